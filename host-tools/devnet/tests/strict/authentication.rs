//! A request counts only as it was signed, once, in time, for its signer.

use blf_evidence::Hex;
use blf_evidence::eip191::Signature;
use blf_evidence::icl::*;
use bytes::Bytes;

use crate::client::{BLOBS, Draft, ICL, random};
use crate::nodes::{Net, START};

const HEARTBEAT: &str = "/internal/heartbeat";

#[tokio::test]
async fn the_request_as_signed_is_the_only_one() {
    let net = Net::start().await;
    let node = net.node().await;
    let to = net.running.address;
    let beat = Heartbeat { node_address: node.address, stopping: false, timestamp: blf_evidence::UnixTime(START) };
    let body: Bytes = serde_json::to_vec(&beat).unwrap().into();
    let good = || node.draft("POST", HEARTBEAT, body.clone());
    assert_eq!(good().send(to).await.ok::<Done>().status, "ok");

    let mut other_method = good();
    other_method.method = "PUT";
    let mut other_path = good();
    other_path.path = "/internal/task/claim".into();
    let mut with_query = good();
    with_query.path = format!("{HEARTBEAT}?a=b");
    let mut other_body = good();
    other_body.body = serde_json::to_vec(&Heartbeat { stopping: true, ..beat.clone() }).unwrap().into();
    let other_host = Draft::new("POST", "icl.example", HEARTBEAT, body.clone()).sign(&node.key, START, Hex(random()));
    let other_host = Draft { host: ICL.into(), ..other_host };
    let other_signer = good().with(HEADER_ADDRESS, net.caller().address);
    let flipped = Signature::sign(&node.key, b"another text");
    let cases = [
        ("method", other_method),
        ("path", other_path),
        ("query", with_query),
        ("body", other_body),
        ("host", other_host),
        ("signer", other_signer),
        ("signature", good().with(HEADER_SIGNATURE, flipped)),
        ("time", good().with(HEADER_TIMESTAMP, START + 1)),
        ("nonce", good().with(HEADER_NONCE, Hex(random::<16>()))),
    ];
    for (what, draft) in cases {
        assert_eq!(draft.send(to).await.refused(), (401, "BAD_SIGNATURE".into()), "{what}");
    }
    net.stop().await;
}

#[tokio::test]
async fn headers_are_there_once_in_their_one_spelling() {
    let net = Net::start().await;
    let node = net.node().await;
    let path = format!("/internal/assignments/{}", node.address);
    let good = || node.draft("GET", &path, Bytes::new());
    let mut missing = good();
    missing.headers.remove(2);
    let mut twice = good();
    twice.headers.push((HEADER_NONCE.into(), Hex(random::<16>()).to_string()));
    for (what, draft) in [
        ("missing", missing),
        ("twice", twice),
        ("lower-case address", good().with(HEADER_ADDRESS, node.address.to_string().to_lowercase())),
        ("leading zero", good().with(HEADER_TIMESTAMP, format!("0{START}"))),
        ("plus", good().with(HEADER_TIMESTAMP, format!("+{START}"))),
        ("short nonce", good().with(HEADER_NONCE, "00")),
    ] {
        assert_eq!(draft.send(net.running.address).await.refused(), (401, "NOT_SIGNED".into()), "{what}");
    }
    net.stop().await;
}

#[tokio::test]
async fn a_nonce_is_spent_by_the_first_request_even_if_that_is_refused() {
    let net = Net::start().await;
    let (node, to) = (net.node().await, net.running.address);
    let draft = node.draft("GET", &format!("/internal/assignments/{}", node.address), Bytes::new());
    draft.clone().send(to).await.ok::<Assignments>();
    assert_eq!(draft.send(to).await.refused(), (401, "NONCE_REUSED".into()));

    let refused = node.draft("POST", HEARTBEAT, Bytes::from_static(b"{}"));
    assert_eq!(refused.clone().send(to).await.refused(), (400, "MALFORMED".into()));
    assert_eq!(refused.send(to).await.refused(), (401, "NONCE_REUSED".into()));

    // Two signers may use the same nonce: it is random, not coordinated.
    let nonce = Hex(random());
    for node in [&node, &net.node().await] {
        let path = format!("/internal/assignments/{}", node.address);
        Draft::new("GET", ICL, &path, Bytes::new()).sign(&node.key, START, nonce).send(to).await.ok::<Assignments>();
    }
    net.stop().await;
}

#[tokio::test]
async fn time_is_within_300_seconds_either_way() {
    let net = Net::start().await;
    let node = net.node().await;
    for (time, wanted) in [(START - 301, false), (START - 300, true), (START + 300, true), (START + 301, false)] {
        let path = format!("/internal/assignments/{}", node.address);
        let draft = Draft::new("GET", ICL, &path, Bytes::new()).sign(&node.key, time, Hex(random()));
        let reply = draft.send(net.running.address).await;
        match wanted {
            true => assert!(reply.ok::<Assignments>().assignments.is_empty()),
            false => assert_eq!(reply.refused(), (401, "TIME_SKEW".into()), "{time}"),
        }
    }
    net.stop().await;
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let net = Net::start().await;
    let (node, other) = (net.node().await, net.node().await);
    let (node_address, job_id) = (other.address, Hex([1; 32]));
    let timestamp = blf_evidence::UnixTime(START);
    let replies = [
        node.get(&format!("/internal/challenge/{node_address}")).await,
        node.get(&format!("/internal/assignments/{node_address}")).await,
        node.post(HEARTBEAT, &Heartbeat { node_address, stopping: true, timestamp }).await,
        node.post("/internal/task/claim", &Claim { job_id, node_address }).await,
        node.post("/internal/task/commit", &Commit { job_id, node_address, commit: job_id }).await,
        node.post("/internal/task/fail", &Fail { job_id, node_address, reason: "X".into() }).await,
        node.post("/internal/task/result", &LeaderResult { node_address, ..node.result(job_id, job_id) }).await,
    ];
    for reply in replies {
        assert_eq!(reply.refused(), (403, "OTHER_ADDRESS".into()));
    }
    net.stop().await;
}

#[tokio::test]
async fn the_peers_are_told_apart() {
    let net = Net::start().await;
    let to = net.running.address;
    // A session made for one name cannot be used for the other.
    let roots = blf_devnet::development::TLS_CA;
    let stream = crate::client::connect(to, BLOBS, roots).await.unwrap();
    let reply = Draft::new("GET", ICL, "/health", Bytes::new()).send_on(stream).await;
    assert_eq!(reply.refused(), (421, "WRONG_HOST".into()));
    let node = net.node().await;
    let draft = Draft::new("GET", BLOBS, &format!("/internal/challenge/{}", node.address), Bytes::new());
    assert_eq!(draft.send(to).await.refused(), (404, "NO_SUCH_ENDPOINT".into()));
    net.stop().await;
}
