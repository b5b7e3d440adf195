//! Caps, limits, TLS, restart and stop.

use std::time::Duration;

use blf_devnet::{EventKind, Rate, development};
use blf_evidence::Hex;
use blf_evidence::icl::*;
use bytes::Bytes;

use crate::client::{BLOBS, Draft, ICL, connect, connect_at, random};
use crate::nodes::{Net, START, request_status, submission, submit};

#[tokio::test]
async fn the_time_is_signed_and_needs_no_signature() {
    let net = Net::start().await;
    let nonce = Hex(random());
    let path = format!("/internal/time?nonce={nonce}");
    let time: Time = Draft::new("GET", ICL, &path, Bytes::new()).send(net.running.address).await.ok();
    assert_eq!((time.nonce, time.time.0), (nonce, START));
    let account = development::profile().unwrap().icl_account;
    time.signature.verify(Time::signed_text(&nonce, time.time).as_bytes(), account).unwrap();
    for bad in ["", "?nonce=00", &format!("?nonce={nonce}&nonce={nonce}")] {
        let draft = Draft::new("GET", ICL, &format!("/internal/time{bad}"), Bytes::new());
        assert_eq!(draft.send(net.running.address).await.refused(), (400, "MALFORMED".into()), "{bad}");
    }
    net.stop().await;
}

#[tokio::test]
async fn oversized_bodies() {
    let net = Net::start().await;
    let node = net.node().await;
    let body = Bytes::from(vec![b' '; BODY_CAP + 1]);
    let reply = node.draft("POST", "/internal/heartbeat", body).send(net.running.address).await;
    assert_eq!(reply.refused(), (413, "TOO_LARGE".into()));
    // At the cap it is read, and is not JSON.
    let body = Bytes::from(vec![b' '; BODY_CAP]);
    let reply = node.draft("POST", "/internal/heartbeat", body).send(net.running.address).await;
    assert_eq!(reply.refused(), (400, "MALFORMED".into()));
    net.stop().await;
}

#[tokio::test]
async fn unknown_and_duplicate_members() {
    let net = Net::start().await;
    let node = net.node().await;
    let good = format!(r#"{{"nodeAddress":"{}","stopping":false,"timestamp":{START}}}"#, node.address);
    let send = async |text: &str| {
        let body = Bytes::from(text.to_owned());
        node.draft("POST", "/internal/heartbeat", body).send(net.running.address).await
    };
    send(&good).await.ok::<Done>();
    for bad in [
        good.replace("}", ",\"x\":1}"),
        good.replace("}", ",\"stopping\":true}"),
        good.replace(",\"stopping\":false", ""),
    ] {
        assert_eq!(send(&bad).await.refused(), (400, "MALFORMED".into()), "{bad}");
    }
    net.stop().await;
}

#[tokio::test]
async fn too_many_requests() {
    let net = Net::with(|options| options.rate = Rate { burst: 5, per_second: 1 }).await;
    let (node, other) = (net.node().await, net.node().await); // two of the five are spent
    let mut refused = None;
    for _ in 0..100 {
        let reply = node.get(&format!("/internal/assignments/{}", node.address)).await;
        if reply.status != 200 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.refused(), (429, "RATE_LIMITED".into()));
    other.poll().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    node.poll().await;
    net.stop().await;
}

#[tokio::test]
async fn too_many_requests_that_nobody_signs() {
    let net = Net::with(|options| options.peer_rate = Rate { burst: 2, per_second: 1 }).await;
    let ask = async || Draft::new("GET", BLOBS, "/health", Bytes::new()).send(net.running.address).await;
    let mut reply = ask().await;
    // One comes back each second, so a slow machine may be allowed more than two.
    for _ in 0..100 {
        if reply.status != 200 {
            break;
        }
        reply = ask().await;
    }
    assert_eq!(reply.refused(), (429, "RATE_LIMITED".into()));
    net.stop().await;
}

#[tokio::test]
async fn health_says_development() {
    let net = Net::start().await;
    net.node().await;
    let health: serde_json::Value =
        Draft::new("GET", ICL, "/health", Bytes::new()).send(net.running.address).await.ok();
    assert_eq!(health, serde_json::json!({"status":"ok","network":"devnet","roots":"development","nodes":1}));
    net.stop().await;
}

#[tokio::test]
async fn tls_ends_with_whoever_does_not_know_the_root_or_the_name() {
    let net = Net::start().await;
    let to = net.running.address;
    assert!(connect(to, ICL, development::TLS_CA).await.is_ok());
    let error = connect(to, ICL, development::AK_CA).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    assert!(connect(to, "other.devnet.blf.internal", development::TLS_CA).await.is_err());
    for (days, wanted) in [(89, None), (91, Some("expired"))] {
        let error = connect_at(START + days * 86_400, to, ICL, development::TLS_CA).await.err();
        assert_eq!(error.is_some(), wanted.is_some(), "{days}: {error:?}");
        assert!(error.is_none_or(|e| e.to_string().contains(wanted.unwrap())));
    }
    net.stop().await;
}

/// The published TLS CA is confined to the devnet's names: a certificate for another name is no good.
#[tokio::test]
async fn the_published_ca_speaks_for_the_devnet_only() {
    let net = Net::with(|options| options.profile.icl.name = "icl.example".into()).await;
    let error = connect(net.running.address, "icl.example", development::TLS_CA).await.unwrap_err().to_string();
    assert!(error.contains("NameConstraint") || error.contains("name constraint"), "{error}");
    net.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_everything_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devnet.sqlite");
    let net = Net::with(|options| options.state = Some(path.clone())).await;
    let user = net.caller();
    let mut nodes = [net.node().await, net.node().await];
    let draft = user.draft("GET", "/v1/inference/quorum-preview?model_id=blf-tiny-1&verifier_count=1", Bytes::new());
    draft.clone().send(net.running.address).await.ok::<QuorumPreview>();
    let (job, request) = submission(&user, &[&nodes[0], &nodes[1]], 1);
    submit(&user, &request).await.ok::<Done>();
    nodes[0].claim(job).await.ok::<ClaimReply>();
    let open = nodes[1].challenge().await;
    net.stop().await;

    let net = Net::with(|options| options.state = Some(path.clone())).await;
    assert_eq!(draft.send(net.running.address).await.refused(), (401, "NONCE_REUSED".into()));
    let user = crate::client::Caller { to: net.running.address, ..user };
    for node in &mut nodes {
        node.moved(net.running.address);
    }
    let status = request_status(&user, job).await;
    assert_eq!((status.phase, status.quorum.len()), (Phase::Queued, 2));
    assert_eq!(nodes[1].poll().await.assignments.len(), 1);
    assert!(nodes[0].poll().await.assignments.is_empty());
    let evidence = nodes[1].evidence(blf_evidence::statement::Purpose::Admission, ICL, open.nonce);
    nodes[1].attest(&open, evidence).await.ok::<AttestReply>();
    net.stop().await;

    // A database of another version is refused, not guessed at.
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let mut options = blf_devnet::Options::new(std::sync::Arc::new(crate::nodes::Peer::new())).unwrap();
    options.state = Some(path);
    let Err(error) = blf_devnet::Devnet::start(options, async {}).await else { panic!("it started") };
    assert!(error.to_string().contains("wanted version 2, got 99"), "{error}");
}

#[tokio::test]
async fn a_stop_waits_for_a_request_and_ends_idle_connections() {
    let net = Net::start().await;
    let idle = connect(net.running.address, ICL, development::TLS_CA).await.unwrap();
    let to = net.running.address;
    net.stop().await;
    drop(idle);
    assert!(connect(to, ICL, development::TLS_CA).await.is_err());
}

#[tokio::test]
async fn events_tell_what_happened() {
    let net = Net::start().await;
    let mut events = net.running.events();
    let node = net.node().await;
    let event = events.recv().await.unwrap();
    assert_eq!(event.time.0, START);
    let EventKind::NodeAdmitted { node: admitted, tier: 0, .. } = &event.kind else { panic!("{event:?}") };
    assert_eq!(*admitted, node.address);
    let json = serde_json::to_value(&event).unwrap();
    assert_eq!((&json["event"], &json["tier"]), (&"node_admitted".into(), &0.into()));
    net.stop().await;
}

/// Strangers that open connections and say nothing hold every slot for as long as our patience, not longer.
#[tokio::test]
async fn silent_connections_are_ended() {
    let net = Net::with(|options| options.patience = Duration::from_millis(700)).await;
    let to = net.running.address;
    let since = std::time::Instant::now();
    let mut silent = Vec::new();
    for _ in 0..256 {
        silent.push(tokio::net::TcpStream::connect(to).await.unwrap());
    }
    Draft::new("GET", ICL, "/health", Bytes::new()).send(to).await.ok::<serde_json::Value>();
    assert!(since.elapsed() >= Duration::from_millis(700), "there was a free slot: the cap is not what it was");
    let mut session = connect(to, ICL, development::TLS_CA).await.unwrap();
    let mut byte = [0; 1];
    let ended = tokio::io::AsyncReadExt::read(&mut session, &mut byte);
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("a silent session goes on").ok();
    net.stop().await;
}

/// A fault of our own is told to the operator, and to the caller without particulars.
#[tokio::test]
async fn faults_are_the_operators_to_see() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devnet.sqlite");
    let net = Net::with(|options| options.state = Some(path.clone())).await;
    let address = net.node().await.address;
    net.stop().await;
    let broken = rusqlite::Connection::open(&path).unwrap();
    broken.execute("UPDATE certificates SET models = 'not json'", []).unwrap();
    drop(broken);
    let net = Net::with(|options| options.state = Some(path)).await;
    let mut events = net.running.events();
    let reply = net.caller().get("/v1/inference/quorum-preview?model_id=a&verifier_count=0").await;
    assert!(!String::from_utf8_lossy(&reply.body).contains("line 1"), "{address}");
    assert_eq!(reply.refused(), (500, "INTERNAL".into()));
    let EventKind::Fault { detail } = events.recv().await.unwrap().kind else { panic!("another event") };
    assert!(detail.contains("line 1"), "{detail}");
    net.stop().await;
}
