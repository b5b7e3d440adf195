//! The threshold network against a node (S6): whatever it says of a job's share, the job ends in time with a reason that
//! names it, is handed back, and the node goes on.

use std::time::Duration;

use blf_evidence::Hex;
use blf_evidence::job::{CofheShare, Role};
use blf_evidence::telemetry::JobState;
use bytes::Bytes;
use tokio::time::sleep;

use super::{HEALTHY, Wanted, in_a_process_of_its_own, scripts, within_bounds};
use crate::icl::{THRESHOLD, retry_after, sealed};
use crate::net::{Reply, Script};
use crate::world::World;

const SHARE: CofheShare = CofheShare { high: Hex([1; 32]), low: Hex([2; 32]) };
/// How long these nodes take from claim to commit: longer than any one exchange.
const COMMIT: Duration = Duration::from_secs(70);
/// Raw bytes come no faster: `hostile` has floods, here they would last as long as the job.
const PACE: Duration = Duration::from_millis(50);
/// Longest answer that is read, in bytes (`blf_bridge::cofhe::SEALOUTPUT_CAP`).
const CAP: usize = 16 * 1024;

/// What the threshold network does.
enum Harm {
    /// It answers each request so; first the submit, then the polls.
    Answers([Reply; 2]),
    /// It is not there.
    Gone,
    /// It says this, whatever that means.
    Says(Script),
}

fn whole(status: u16, body: impl Into<Bytes>) -> Reply {
    Reply::Whole(status, vec![], body.into())
}

/// Each harm, and the reason with which the job is handed back.
fn harms() -> Vec<(String, Harm, &'static str)> {
    let accepted = || whole(200, r#"{"request_id":"r-1"}"#);
    let submit = |reply: Reply| Harm::Answers([reply.clone(), reply]);
    let poll = |reply| Harm::Answers([accepted(), reply]);
    let deep = "[".repeat(CAP - 64);
    let named = [
        ("away", Harm::Gone, "TUNNEL_IO"),
        ("silent", submit(Reply::Silence), "SERVER_SILENT"),
        ("slow", submit(Reply::Dribble), "SERVER_SILENT"),
        ("slow when polled", poll(Reply::Dribble), "SERVER_SILENT"),
        ("without end", submit(Reply::Endless), "REPLY_TOO_LONG"),
        ("without end when polled", poll(Reply::Endless), "REPLY_TOO_LONG"),
        ("hangs up", submit(Reply::Hangup), "REPLY_NOT_HTTP"),
        ("404 for ever", submit(whole(404, "{}")), "SEALOUTPUT_UNKNOWN"),
        ("404 when polled", poll(whole(404, "{}")), "SEALOUTPUT_EXPIRED"),
        ("204 for ever", submit(whole(204, "")), "SEALOUTPUT_LATE"),
        ("204 when polled", poll(whole(204, "")), "SEALOUTPUT_REPLY"),
        ("202 for ever", submit(whole(202, "{}")), "SEALOUTPUT_REPLY"),
        ("202 and an id for ever", poll(whole(202, r#"{"status":"PROCESSING"}"#)), "SEALOUTPUT_LATE"),
        ("another state for ever", poll(whole(200, r#"{"status":"QUEUED","is_succeed":false}"#)), "SEALOUTPUT_LATE"),
        ("failed when polled", poll(whole(200, r#"{"status":"COMPLETED","is_succeed":false}"#)), "SEALOUTPUT_HTTP_200"),
        ("not ready for ever", submit(whole(200, r#"{"status":"CT_NOT_READY"}"#)), "SEALOUTPUT_LATE"),
        (
            "elsewhere",
            submit(Reply::Whole(307, vec![("location", "/v2/x".into())], Bytes::new())),
            "SEALOUTPUT_HTTP_307",
        ),
        ("elsewhere when polled", poll(whole(302, "")), "SEALOUTPUT_HTTP_302"),
        ("no access", submit(whole(403, r#"{"message":"no"}"#)), "SEALOUTPUT_HTTP_403"),
        ("too many requests", submit(retry_after(429, 100_000)), "SEALOUTPUT_HTTP_429"),
        ("an error page", submit(whole(500, "<html>".repeat(2000))), "SEALOUTPUT_HTTP_500"),
        ("away behind its gateway when polled", poll(whole(503, "")), "SEALOUTPUT_HTTP_503"),
        ("deep JSON", submit(whole(200, format!(r#"{{"x":{deep}"#))), "SEALOUTPUT_REPLY"),
        ("deep JSON when polled", poll(whole(200, format!(r#"{{"sealed":{deep}"#))), "SEALOUTPUT_REPLY"),
        ("twice the same member", submit(whole(200, r#"{"request_id":"a","request_id":"b"}"#)), "SEALOUTPUT_REPLY"),
        ("a path for an id", submit(whole(200, r#"{"request_id":"../../decrypt"}"#)), "SEALOUTPUT_REPLY"),
        ("a key of 31 bytes", poll(whole(200, sealed(&[]).replacen("2,", "", 1))), "SEALOUTPUT_REPLY"),
        (
            "a box of text",
            poll(whole(200, sealed(&[]).replace("\"data\":[]", "\"data\":\"AA==\""))),
            "SEALOUTPUT_REPLY",
        ),
        ("a box too long to read", poll(whole(200, sealed(&[1; CAP]))), "REPLY_TOO_LONG"),
    ];
    let named = named.map(|(name, harm, code)| (name.to_owned(), harm, code));
    let raw = scripts().into_iter().map(|(name, mut script, wanted)| {
        script.every = script.every.max(PACE);
        let code = match (name, wanted) {
            (_, Wanted::TooLong) => "REPLY_TOO_LONG",
            (_, Wanted::SilentBody | Wanted::SilentHead) => "SERVER_SILENT",
            (_, Wanted::Status(101)) => "SEALOUTPUT_HTTP_101",
            (_, Wanted::Status(302)) => "SEALOUTPUT_HTTP_302",
            (_, Wanted::Status(_)) => "SEALOUTPUT_REPLY",
            (_, Wanted::NotHttp) => "REPLY_NOT_HTTP",
            // Which of the two is the library's choice.
            (_, Wanted::Refused) => "",
        };
        (format!("raw: {name}"), Harm::Says(script), code)
    });
    named.into_iter().chain(raw).collect()
}

/// A job meets the harm; another, once it is over, meets a network in good health.
async fn meets(name: &str, harm: Harm, code: &str) {
    let mut world = World::new();
    world.limits.timings.job = COMMIT;
    let courier = world.start();
    world.until("a heartbeat", |w| !w.icl.with(|s| s.heartbeats.is_empty())).await;
    match harm {
        Harm::Answers([submit, poll]) => world.icl.fault(move |method, path, _| {
            path.contains("sealoutput").then(|| if method == "POST" { submit.clone() } else { poll.clone() })
        }),
        Harm::Gone => world.net.be_gone(Some(THRESHOLD)),
        Harm::Says(script) => world.net.be_hostile_at(THRESHOLD, script),
    }
    let start = world.icl.elapsed();
    let job = world.assign_sharing(1, Role::Leader, Some(SHARE));
    world.until("the end", |w| w.icl.with(|s| s.jobs[&job].failed.is_some())).await;
    let (took, failed) = (world.icl.elapsed() - start, world.icl.with(|s| s.jobs[&job].failed.clone()).unwrap());
    // To the assignment's poll, to the deadline, and to hand back.
    assert!(took <= COMMIT + Duration::from_secs(20), "{name}: {took:?}");
    let as_wanted = failed == code || code.is_empty() && ["REPLY_NOT_HTTP", "SERVER_SILENT"].contains(&failed.as_str());
    assert!(as_wanted, "{name}: wanted {code}, got {failed}");
    assert_eq!(world.failure(job).as_ref(), Some(&failed), "{name}");
    assert_eq!((world.vault.count("Run"), world.icl.with(|s| s.jobs[&job].commits)), (0, 0), "{name}");
    // Two halves, each once a second.
    let asked = world.icl.count("sealoutput");
    assert!(asked as u64 <= 3 * (took.as_secs() + 2), "{name}: {asked} requests in {took:?}");
    let beats = world.icl.with(|s| s.heartbeats.iter().filter(|(at, _)| *at >= start).count());
    assert!(beats as u64 >= took.as_secs() / 75, "{name}: {beats} heartbeats in {took:?}");

    world.icl.with(|s| s.fault = None);
    world.net.be_gone(None);
    world.net.be_hostile(None);
    sleep(HEALTHY).await;
    let next = world.assign_sharing(2, Role::Leader, Some(SHARE));
    world.until("the quorum", |w| w.states(next).contains(&JobState::Accepted) || w.failure(next).is_some()).await;
    assert_eq!(world.failure(next), None, "{name}");
    assert!(world.states(next).contains(&JobState::KeyReceived), "{name}");
    assert!(!courier.is_finished(), "{name}");
    courier.abort();
}

async fn every_harm() {
    for (name, harm, code) in harms() {
        meets(&name, harm, code).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_it_says_the_job_is_handed_back_and_the_node_goes_on() {
    every_harm().await;
}

#[test]
fn memory_is_bounded_whatever_it_says() {
    in_a_process_of_its_own("hostile::sealoutput::measured");
}

#[tokio::test(start_paused = true)]
#[ignore = "a child of the test above"]
async fn measured() {
    meets("nothing yet", Harm::Answers([whole(403, ""), whole(403, "")]), "SEALOUTPUT_HTTP_403").await;
    within_bounds((0..2).map(|_| every_harm())).await;
}

/// Nobody judged the share while a gateway was at fault or in a hurry: one such answer must not end the claim.
#[tokio::test(start_paused = true)]
async fn a_network_that_stumbles_is_asked_again() {
    let world = World::new();
    let _courier = world.start();
    let mut left = vec![("POST", 503), ("POST", 429), ("POST", 408), ("GET", 500), ("GET", 502), ("GET", 429)];
    world.icl.fault(move |method, path, _| {
        let next = left.iter().position(|(of, _)| path.contains("sealoutput") && *of == method)?;
        Some(whole(left.remove(next).1, ""))
    });
    let job = world.assign_sharing(1, Role::Leader, Some(SHARE));
    world.until("the quorum", |w| w.states(job).contains(&JobState::Accepted) || w.failure(job).is_some()).await;
    assert_eq!(world.failure(job), None);
    assert_eq!(world.icl.count("sealoutput"), 6 + 4, "each refusal once, and both halves submitted and polled");
}

/// While a job waits for its share, another one is done.
#[tokio::test(start_paused = true)]
async fn a_job_without_a_share_does_not_wait_for_it() {
    let world = World::new();
    let _courier = world.start();
    world.icl.fault(|_, path, _| path.contains("sealoutput").then_some(Reply::Silence));
    let waits = world.assign_sharing(1, Role::Leader, Some(SHARE));
    let goes_on = world.assign(2, Role::Leader);
    world.until("the quorum", |w| w.states(goes_on).contains(&JobState::Accepted)).await;
    assert_eq!(world.failure(waits), None);
    assert!(world.icl.elapsed() < Duration::from_secs(60), "{:?}", world.icl.elapsed());
}
