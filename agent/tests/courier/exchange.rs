//! What the courier takes as an answer: bounded, in time, from where it asked.

use std::sync::Arc;
use std::time::Duration;

use blf_agent::blob::{BlobError, Blobs};
use blf_agent::courier::https::{HttpError, Https, Outgoing};
use blf_agent::courier::vault::Vault;
use blf_agent::icl::{Icl, IclError, Outcome};
use blf_agent::tls::{self, Clock};
use blf_agent::tunnel::Egress;
use blf_bridge::blob::BLOB_CAP;
use blf_bridge::cid::{self, CidError};
use blf_evidence::icl::BODY_CAP;
use blf_evidence::profile::Host;
use blf_evidence::{Hex, UnixTime};
use bytes::Bytes;
use tokio::io::duplex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::icl::{TOKEN, refuse, retry_after};
use crate::net::{Net, Reply};
use crate::world::{NOW, World};

pub fn server(world: &World, host: &Host) -> Https<Net> {
    let clock = Clock::new(UnixTime(NOW));
    let connector = tls::connector(&world.profile.tls_roots, clock).unwrap();
    let egress = Egress::new(world.net.clone(), &world.profile, world.limits.dial);
    Https::new(Arc::new(egress), connector, host.clone(), world.limits.https)
}

/// A client with a vault to sign for it.
fn client(world: &World) -> Icl<Net> {
    let (near, far) = duplex(64 * 1024);
    tokio::spawn(world.vault.clone().serve(far));
    let (vault, link) = Vault::connect(near);
    tokio::spawn(link);
    Icl::new(server(world, &world.profile.icl), vault, world.vault.node())
}

fn blobs(world: &World) -> Blobs<Net> {
    Blobs::new(server(world, &world.profile.blob_gateway), server(world, &world.profile.blob_pinning), TOKEN.into())
}

fn whole(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply::Whole(status, vec![], body.into().into())
}

/// What the client makes of one reply to a request, and how long it takes.
async fn take(reply: Reply) -> (Result<(), IclError>, Duration, usize) {
    let world = World::new();
    world.icl.fault(move |_, path, _| path.contains("/time").then(|| reply.clone()));
    let start = Instant::now();
    let taken = client(&world).time(&Hex([0; 32])).await;
    (taken.map(drop), start.elapsed(), world.icl.count("/"))
}

#[tokio::test(start_paused = true)]
async fn no_redirect_is_followed() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = vec![("location", "https://icl.test/internal/other".to_owned())];
        let (taken, _, requests) = take(Reply::Whole(status, elsewhere, vec![].into())).await;
        let error = taken.unwrap_err();
        assert_eq!((error.code(), error.outcome()), (format!("HTTP_{status}").into(), Outcome::Final));
        assert_eq!(requests, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_bounded_whatever_its_declared_length() {
    let too_long = HttpError::BodyTooLong { cap: BODY_CAP };
    let (taken, took, _) = take(whole(200, vec![b' '; BODY_CAP + 1])).await;
    assert_eq!(taken, Err(too_long.clone().into()));
    assert!(took < Duration::from_secs(1), "{took:?}");
    let (taken, took, _) = take(Reply::Endless).await;
    assert_eq!(taken, Err(too_long.into()));
    assert!(took < Duration::from_secs(1), "{took:?}");
    let (taken, ..) = take(whole(200, vec![b' '; BODY_CAP])).await;
    assert_eq!(taken.unwrap_err().code(), "REPLY_MALFORMED", "within the cap it is read");
}

#[tokio::test(start_paused = true)]
async fn every_stage_has_a_deadline() {
    let (taken, took, _) = take(Reply::Dribble).await;
    assert_eq!(taken, Err(HttpError::Silent { stage: "reply body", within: Duration::from_secs(30) }.into()));
    assert!((30..=31).contains(&took.as_secs()), "{took:?}");
    let (taken, took, _) = take(Reply::Silence).await;
    assert_eq!(taken, Err(HttpError::Silent { stage: "reply head", within: Duration::from_secs(30) }.into()));
    assert!((30..=31).contains(&took.as_secs()), "{took:?}");
    let (taken, ..) = take(Reply::Hangup).await;
    assert_eq!(taken, Err(HttpError::Protocol.into()));
}

#[tokio::test(start_paused = true)]
async fn only_the_wanted_document() {
    let good = format!(r#"{{"nonce":"{}","signature":"0x{}","time":1}}"#, Hex([0; 32]), Hex([0; 65]));
    assert_eq!(take(whole(200, good.clone())).await.0, Ok(()));
    for (name, bad) in [
        ("deep", "[".repeat(100_000)),
        ("html", "<html>200 OK</html>".into()),
        ("empty", String::new()),
        ("unknown member", good.replace("\"time\":1", "\"time\":1,\"x\":1")),
        ("duplicate member", good.replace("\"time\":1", "\"time\":1,\"time\":1")),
        ("missing member", good.replace(",\"time\":1", "")),
        ("wrong type", good.replace("\"time\":1", "\"time\":\"1\"")),
        ("trailing bytes", format!("{good}x")),
    ] {
        assert_ne!(bad, good, "{name}");
        assert_eq!(take(whole(200, bad)).await.0.unwrap_err().code(), "REPLY_MALFORMED", "{name}");
    }
    // Any other status is a refusal, whatever its body says.
    for status in [201, 204, 206] {
        let error = take(whole(status, good.clone())).await.0.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Final, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn statuses_mean_what_they_should() {
    for (reply, code, outcome) in [
        (refuse(401, "TIME_SKEW"), "TIME_SKEW", Outcome::Forgotten),
        (refuse(404, "UNKNOWN_NODE"), "UNKNOWN_NODE", Outcome::Forgotten),
        (refuse(404, "UNKNOWN_JOB"), "UNKNOWN_JOB", Outcome::Final),
        (refuse(403, "NOT_A_MEMBER"), "NOT_A_MEMBER", Outcome::Final),
        (refuse(409, "ALREADY_COMMITTED"), "ALREADY_COMMITTED", Outcome::AlreadyDone),
        (refuse(409, "COMMIT_TOO_LATE"), "COMMIT_TOO_LATE", Outcome::Final),
        (refuse(429, "RATE_LIMITED"), "RATE_LIMITED", Outcome::Later),
        (whole(500, "Internal Server Error"), "HTTP_500", Outcome::Later),
        (whole(502, "<html>"), "HTTP_502", Outcome::Later),
        (whole(503, ""), "HTTP_503", Outcome::Later),
    ] {
        let error = take(reply).await.0.unwrap_err();
        assert_eq!((error.code().as_ref(), error.outcome()), (code, outcome));
    }
    let error = take(retry_after(429, 7)).await.0.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_and_replaced_when_its_server_closed_it() {
    let world = World::new();
    world.icl.with(|s| s.known.insert(world.vault.node()));
    let icl = client(&world);
    for _ in 0..5 {
        let time = icl.time(&Hex([0; 32])).await.unwrap();
        assert_eq!(time.time.0, NOW);
    }
    assert_eq!(world.net.dials(), 1);

    world.net.be_rude();
    icl.renew();
    icl.time(&Hex([0; 32])).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    // The vault's clock is behind, so that the signed request is refused; but it is signed anew and arrives.
    let error = icl.assignments().await.err().unwrap();
    assert_eq!(error.code(), "TIME_SKEW");
    assert_eq!(world.net.dials(), 3);
}

/// One request to a path that the double refuses to anybody: what counts is how often it arrives.
async fn knock(https: &Https<Net>, method: hyper::Method) -> Result<u16, HttpError> {
    let outgoing = Outgoing { method, path: "/knock".into(), headers: vec![], body: Bytes::from_static(b"x") };
    https.send(outgoing, BODY_CAP).await.map(|reply| reply.status.as_u16())
}

/// A server that closes while nothing is under way costs nobody a request.
#[tokio::test(start_paused = true)]
async fn a_request_that_never_left_is_sent_again() {
    for method in [hyper::Method::GET, hyper::Method::POST] {
        let world = World::new();
        let https = server(&world, &world.profile.icl);
        world.net.be_rude();
        for requests in 1..=3 {
            assert_eq!(knock(&https, method.clone()).await, Ok(401));
            assert_eq!((world.icl.count("/knock"), world.net.dials()), (requests, requests), "{method}");
            sleep(Duration::from_secs(5)).await;
        }
    }
}

/// A server that closes instead of answering: what changes something arrived once, what only asks may be asked again.
#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_arrived_is_sent_again_only_if_it_asks() {
    for (method, answer, requests) in
        [(hyper::Method::GET, Ok(401), 3), (hyper::Method::POST, Err(HttpError::Protocol), 2)]
    {
        let world = World::new();
        let https = server(&world, &world.profile.icl);
        assert_eq!(knock(&https, method.clone()).await, Ok(401));
        let mut hung_up = false;
        world.icl.fault(move |_, _, _| (!std::mem::replace(&mut hung_up, true)).then_some(Reply::Hangup));
        assert_eq!(knock(&https, method.clone()).await, answer, "{method}");
        assert_eq!(world.icl.count("/knock"), requests, "{method}");
        // Whatever it was, the next request is as good as ever.
        assert_eq!(knock(&https, method).await, Ok(401));
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_kept_for_a_minute_and_no_more_than_four() {
    let world = World::new();
    let https = Arc::new(server(&world, &world.profile.icl));
    for (together, dials) in [(2, 2), (2, 2), (6, 6), (6, 8)] {
        let mut crowd = JoinSet::new();
        for _ in 0..together {
            let https = Arc::clone(&https);
            crowd.spawn(async move { knock(&https, hyper::Method::GET).await });
        }
        while let Some(answer) = crowd.join_next().await {
            assert_eq!(answer.unwrap(), Ok(401));
        }
        assert_eq!(world.net.dials(), dials);
        sleep(Duration::from_secs(50)).await;
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(knock(&https, hyper::Method::GET).await, Ok(401));
    assert_eq!(world.net.dials(), 9, "the old ones are not used");
}

#[tokio::test(start_paused = true)]
async fn a_blob_is_what_its_cid_names() {
    let world = World::new();
    let blobs = blobs(&world);
    let (good, bad, long) = (cid::of(b"good"), cid::of(b"bad"), cid::of(b"long"));
    world.icl.with(|s| {
        s.blobs.insert(good.clone(), b"good".as_slice().into());
        s.blobs.insert(bad.clone(), b"not bad".as_slice().into());
        s.blobs.insert(long.clone(), vec![0; BLOB_CAP + 1].into());
    });
    assert_eq!(blobs.fetch(&good).await.unwrap(), b"good".as_slice());
    assert!(matches!(blobs.fetch(&bad).await, Err(BlobError::Cid(CidError::Mismatch { .. }))));
    assert_eq!(blobs.fetch(&long).await, Err(HttpError::BodyTooLong { cap: BLOB_CAP }.into()));
    let requests = world.icl.count("/");
    for path in
        ["../internal/time", "bafkreiqqqq", "Qm", "", "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"]
    {
        assert!(matches!(blobs.fetch(path).await, Err(BlobError::Cid(CidError::Form { .. }))), "{path}");
    }
    assert_eq!(world.icl.count("/"), requests, "nobody was asked for what is no CID");
}

#[tokio::test(start_paused = true)]
async fn a_pinned_blob_is_what_the_service_says_it_stored() {
    let world = World::new();
    let blobs = blobs(&world);
    let blob = b"a sealed answer \r\n-- with a line end";
    let ours = cid::of(blob);
    assert_eq!(blobs.pin(&ours, blob).await, Ok(()));
    assert_eq!(world.icl.with(|s| s.blobs[&ours].clone()), blob.as_slice());
    // `ipfs add --cid-version=0` of these bytes, and of others.
    world.icl.with(|s| s.pinned_as = Some("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o".into()));
    assert_eq!(blobs.pin(&cid::of(b"hello world\n"), b"hello world\n").await, Ok(()));
    assert!(matches!(blobs.pin(&ours, blob).await, Err(BlobError::Cid(CidError::Mismatch { .. }))));
    world.icl.with(|s| s.pinned_as = Some("whatever".into()));
    assert!(matches!(blobs.pin(&ours, blob).await, Err(BlobError::Cid(CidError::Form { .. }))));
    // Ours must be right, too.
    let requests = world.icl.count("/");
    assert!(matches!(blobs.pin(&ours, b"other").await, Err(BlobError::Cid(CidError::Mismatch { .. }))));
    assert_eq!(world.icl.count("/"), requests);
    for (reply, wanted) in [(whole(200, "{}"), BlobError::Malformed), (whole(200, "ok"), BlobError::Malformed)] {
        world.icl.fault(move |_, _, _| Some(reply.clone()));
        assert_eq!(blobs.pin(&ours, blob).await, Err(wanted));
    }
    world.icl.fault(|_, _, _| Some(refuse(401, "WRONG_TOKEN")));
    let error = blobs.pin(&ours, blob).await.unwrap_err();
    assert_eq!((error.code(), error.is_transient()), ("BLOB_HTTP_401".into(), false));
}
