//! A node's life when the ICL or the blob store does not behave.

use std::time::Duration;

use blf_evidence::Hex;
use blf_evidence::icl::CLOCK_SKEW;
use blf_evidence::job::Role;
use blf_evidence::telemetry::{Event, JobState};
use tokio::time::sleep;

use crate::icl::{refuse, retry_after};
use crate::net::Reply;
use crate::world::World;

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// Most requests in any second of the log that began after `from`.
pub fn busiest(world: &World, from: Duration) -> usize {
    let times: Vec<_> = world.icl.with(|s| s.log.iter().map(|(at, ..)| *at).filter(|at| *at > from).collect());
    let second = Duration::from_secs(1);
    times
        .iter()
        .map(|at| times.iter().filter(|other| **other >= *at && **other - *at < second).count())
        .max()
        .unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn an_icl_that_is_down_for_longer_than_the_certificate_lasts() {
    let world = World::new();
    world.icl.with(|s| s.life = 3600);
    let courier = world.start();
    world.until("a heartbeat", |w| !w.icl.with(|s| s.heartbeats.is_empty())).await;
    let (down, up) = (world.icl.elapsed(), world.icl.elapsed() + 12 * HOUR);
    world.icl.fault(move |_, _, now| (now < up).then(|| refuse(503, "DOWN")));
    sleep(12 * HOUR).await;
    // Three loops are left to wait: heartbeat, assignments, admission.
    let rate = world.icl.with(|s| s.log.iter().filter(|(at, ..)| *at > down + MINUTE).count());
    assert!(rate < 12 * 3600 / 5, "{rate} requests in 12 hours");
    assert!(busiest(&world, down + MINUTE) <= 3);
    world.until("a heartbeat", |w| w.icl.with(|s| s.heartbeats.last().unwrap().0 > up)).await;
    let back = world.icl.with(|s| s.heartbeats.iter().find(|(at, _)| *at > up).unwrap().0) - up;
    assert!(back <= Duration::from_secs(30), "{back:?}");
    // The certificate ended meanwhile; work goes on with another.
    let job = world.assign(1, Role::Leader);
    world.until("the quorum", |w| w.states(job).contains(&JobState::Accepted)).await;
    assert!(world.icl.elapsed() < up + 2 * MINUTE, "{:?}", world.icl.elapsed() - up);
    assert!(!courier.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_icl_that_forgets_is_asked_again_at_most_once_a_minute() {
    for (status, code) in [(401, "CERTIFICATE_EXPIRED"), (404, "UNKNOWN_NODE"), (404, "HTTP")] {
        let world = World::new();
        let _courier = world.start();
        world.until("admission", |w| w.icl.with(|s| s.attested.len()) == 1).await;
        world.icl.fault(move |_, path, _| {
            (path.contains("assignments") || path.contains("heartbeat")).then(|| refuse(status, code))
        });
        sleep(20 * MINUTE).await;
        let attested = world.icl.with(|s| s.attested.len());
        assert!((10..=21).contains(&attested), "{status} {code}: {attested} in 20 minutes");
        assert!(world.icl.count("heartbeat") <= 25, "{}", world.icl.count("heartbeat"));
        world.icl.with(|s| s.fault = None);
        let job = world.assign(1, Role::Leader);
        world.until("the quorum", |w| w.states(job).contains(&JobState::Accepted)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn evidence_is_shown_at_most_once_a_minute_whatever_comes_back() {
    for reply in
        [refuse(500, "INTERNAL"), refuse(403, "MEASUREMENT"), Reply::Hangup, Reply::Whole(200, vec![], "{}".into())]
    {
        let world = World::new();
        let _courier = world.start();
        world.icl.fault(move |_, path, _| path.contains("attestation").then(|| reply.clone()));
        sleep(30 * MINUTE).await;
        let shown = world.icl.count("attestation");
        assert!((5..=30).contains(&shown), "{shown} in 30 minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn an_icl_that_lost_its_state_gets_a_new_attestation_and_jobs_go_on() {
    let world = World::new();
    world.vault.with(|s| s.inference = Duration::from_secs(100));
    let _courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.until("inference", |w| w.states(job).contains(&JobState::Running)).await;
    world.icl.with(|s| s.known.clear());
    world.until("the quorum", |w| w.states(job).contains(&JobState::Accepted)).await;
    assert_eq!(world.icl.with(|s| s.attested.len()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_asked_for_is_kept() {
    let world = World::new();
    let _courier = world.start();
    world.until("polls", |w| w.icl.count("assignments") > 3).await;
    world.icl.fault(|_, path, _| path.contains("assignments").then(|| retry_after(429, 120)));
    let before = world.icl.count("assignments");
    let start = world.icl.elapsed();
    sleep(10 * MINUTE).await;
    let polls: Vec<_> = world.icl.with(|s| {
        s.log.iter().filter(|(at, _, path)| path.contains("assignments") && *at > start).map(|(at, ..)| *at).collect()
    });
    assert_eq!(polls.len(), world.icl.count("assignments") - before);
    assert!((3..=6).contains(&polls.len()), "{polls:?}");
    assert!(polls.windows(2).all(|w| w[1] - w[0] >= 2 * MINUTE), "{polls:?}");
}

#[tokio::test(start_paused = true)]
async fn steps_of_a_job_outlive_an_icl_that_stumbles() {
    let faults: [fn() -> Reply; 5] = [
        || refuse(500, "INTERNAL"),
        || refuse(429, "RATE_LIMITED"),
        || Reply::Hangup,
        || Reply::Silence,
        || Reply::Dribble,
    ];
    for (i, fault) in faults.into_iter().enumerate() {
        let world = World::new();
        let _courier = world.start();
        let job = world.assign(1, Role::Leader);
        // Each step fails the first time.
        let mut seen = std::collections::HashSet::new();
        world.icl.fault(move |_, path, _| {
            let path = path.split('?').next().unwrap();
            let of_job = ["task", "status", "ipfs", "pinning"].iter().any(|part| path.contains(part));
            (of_job && seen.insert(path.to_owned())).then(fault)
        });
        world.until("the quorum", |w| w.states(job).contains(&JobState::Accepted) || w.failure(job).is_some()).await;
        assert_eq!(world.failure(job), None, "fault {i}");
        world.icl.with(|s| assert_eq!((s.jobs[&job].claims, s.jobs[&job].commits), (1, 1)));
    }
}

/// The ICL did it, but its reply is lost.
#[tokio::test(start_paused = true)]
async fn what_was_done_already_is_done() {
    let world = World::new();
    let _courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.icl.with(|s| s.jobs.get_mut(&job).unwrap().commits = 1);
    world.until("the quorum", |w| w.states(job).contains(&JobState::Accepted)).await;
    assert_eq!(world.icl.with(|s| s.jobs[&job].commits), 2, "answered with 409");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_be_done_is_not_claimed() {
    let world = World::new();
    let _courier = world.start();
    let jobs: Vec<_> = (1..=6).map(|number| world.assign(number, Role::Leader)).collect();
    world.icl.with(|s| {
        let manifest = crate::vault::MANIFEST.to_string();
        s.assignments[0].model_id = "gigantic".into();
        s.assignments[1].context = s.assignments[1].context.replace(&manifest, &Hex([1; 32]).to_string());
        s.assignments[2].context = s.assignments[3].context.clone();
        s.assignments[3].context.push(' ');
        s.assignments[4].prompt_cid = "../internal/time".into();
        s.assignments[5].claim_by = blf_evidence::UnixTime(crate::world::NOW - CLOCK_SKEW);
    });
    sleep(Duration::from_secs(1)).await;
    world.until("all", |w| jobs.iter().all(|job| w.failure(*job).is_some())).await;
    let codes: Vec<_> = jobs.iter().map(|job| world.failure(*job).unwrap()).collect();
    let wanted = [
        "MODEL_UNKNOWN",
        "MODEL_UNKNOWN",
        "ASSIGNMENT_OTHER_JOB",
        "ASSIGNMENT_CONTEXT",
        "ASSIGNMENT_CID",
        "ASSIGNMENT_EXPIRED",
    ];
    assert_eq!(codes, wanted);
    sleep(MINUTE).await;
    assert_eq!(world.icl.count("claim"), 0);
    assert_eq!(world.icl.count("fail"), 0);
    let failed = world.net.events().iter().filter(|e| matches!(e, Event::JobFailed { .. })).count();
    assert_eq!(failed, 6, "said once each");
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_does_not_match_its_cid_never_reaches_the_vault() {
    let world = World::new();
    let _courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.icl.with(|s| {
        let blob = s.blobs.values_mut().next().unwrap();
        *blob = vec![0xee; 64].into();
    });
    world.until("the end", |w| w.icl.with(|s| s.jobs[&job].failed.is_some())).await;
    assert_eq!(world.icl.with(|s| s.jobs[&job].failed.clone()).unwrap(), "CID_MISMATCH");
    assert_eq!(world.failure(job).unwrap(), "CID_MISMATCH");
    assert_eq!((world.vault.count("Run"), world.vault.count("Forget")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_never_comes_is_waited_for_until_the_commit_is_due() {
    let world = World::new();
    let _courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.icl.with(|s| s.blobs.clear());
    world.until("the end", |w| w.icl.with(|s| s.jobs[&job].failed.is_some())).await;
    assert_eq!(world.failure(job).unwrap(), "BLOB_HTTP_404");
    let took = world.icl.elapsed();
    assert!((Duration::from_secs(295)..Duration::from_secs(320)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_vault_refuses_is_handed_back_with_its_code() {
    let world = World::new();
    world.vault.with(|s| s.refuse.insert("Run", "PROMPT_TAG"));
    let _courier = world.start();
    let job = world.assign(1, Role::Verifier);
    world.until("the end", |w| w.icl.with(|s| s.jobs[&job].failed.is_some())).await;
    assert_eq!(world.icl.with(|s| s.jobs[&job].failed.clone()).unwrap(), "PROMPT_TAG");
    assert_eq!(world.icl.with(|s| s.jobs[&job].commits), 0);
    world.until("the vault to forget", |w| w.vault.count("Forget") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn inference_that_outlasts_the_claim_is_handed_back() {
    let world = World::new();
    world.vault.with(|s| s.inference = HOUR);
    let _courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.until("the end", |w| w.icl.with(|s| s.jobs[&job].failed.is_some())).await;
    assert_eq!(world.icl.with(|s| s.jobs[&job].failed.clone()).unwrap(), "JOB_LATE");
    assert!(world.icl.elapsed() < Duration::from_secs(320));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_not_stored_is_not_revealed() {
    let world = World::new();
    world.icl.with(|s| s.pinned_as = Some(blf_bridge::cid::of(b"something else")));
    let _courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.until("the end", |w| w.failure(job).is_some()).await;
    assert_eq!(world.failure(job).unwrap(), "CID_MISMATCH");
    assert_eq!(world.vault.count("RevealLeader"), 0);
    world.until("the end", |w| w.icl.with(|s| s.jobs[&job].failed.is_some())).await;
    assert_eq!(world.icl.with(|s| s.jobs[&job].failed.clone()).unwrap(), "CID_MISMATCH", "so that nobody waits for it");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_this_node_did_before_is_not_undone() {
    let world = World::new();
    let _courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.icl.fault(|_, path, _| path.contains("claim").then(|| refuse(409, "ALREADY_COMMITTED")));
    world.until("the end", |w| w.failure(job).is_some()).await;
    sleep(MINUTE).await;
    assert_eq!(world.failure(job).unwrap(), "JOB_DONE_BEFORE");
    assert_eq!(world.icl.count("fail"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_before_admission_is_a_stop() {
    let world = World::new();
    world.icl.fault(|_, _, _| Some(Reply::Silence));
    let courier = world.start();
    world.until("the first trouble", |w| !w.troubles().is_empty()).await;
    let before = world.icl.elapsed();
    world.vault.stop().await;
    courier.await.unwrap().unwrap();
    assert!(world.icl.elapsed() - before < Duration::from_secs(15));
    assert!(world.vault.with(|s| s.off));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_refused_is_left_alone() {
    let world = World::new();
    let _courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.icl.fault(|_, path, _| path.contains("claim").then(|| refuse(409, "CLAIM_TOO_LATE")));
    world.until("the end", |w| w.failure(job).is_some()).await;
    sleep(MINUTE).await;
    assert_eq!((world.icl.count("claim"), world.icl.count("fail")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_verifier_waits_for_the_leader_until_its_own_deadline() {
    let world = World::new();
    let _courier = world.start();
    let job = world.assign(1, Role::Verifier);
    world.icl.with(|s| s.jobs.get_mut(&job).unwrap().leader_commitment = None);
    world.until("the end", |w| w.failure(job).is_some()).await;
    assert_eq!(world.failure(job).unwrap(), "JOB_LATE");
    let took = world.icl.elapsed();
    assert!((Duration::from_secs(325)..Duration::from_secs(345)).contains(&took), "{took:?}");
    world.until("the vault to forget", |w| w.vault.count("Forget") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_challenge_for_somebody_else_is_not_answered() {
    let world = World::new();
    let _courier = world.start();
    world.icl.fault(|_, path, _| {
        let challenge = format!(
            r#"{{"audience":"other.icl","challengeId":"c","expiresAt":9999999999,"nonce":"{}"}}"#,
            Hex([1; 32])
        );
        path.contains("challenge").then(|| Reply::Whole(200, vec![], challenge.into()))
    });
    world.until("the refusal", |w| w.troubles().contains(&"CHALLENGE_AUDIENCE".into())).await;
    assert_eq!(world.vault.count("Attest"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_takes_no_telemetry_stops_nothing() {
    let world = World::new();
    world.net.be_deaf(true);
    let courier = world.start();
    let jobs: Vec<_> = (1..=60).map(|number| world.assign(number, Role::Leader)).collect();
    world.icl.with(|s| s.assignments.iter_mut().for_each(|a| a.claim_by = a.claim_by.plus(3600)));
    world.until("all", |w| w.icl.with(|s| jobs.iter().all(|job| s.jobs[job].result.is_some()))).await;
    world.net.be_deaf(false);
    world.until("events", |w| !w.net.events().is_empty()).await;
    sleep(Duration::from_secs(1)).await;
    let events = world.net.events();
    assert!(events.len() <= 257, "{}", events.len());
    assert!(world.troubles().contains(&"EVENTS_LOST".into()), "what was dropped is said");
    assert!(!events.iter().any(|e| matches!(e, Event::Certified { .. })), "the oldest went first");
    world.vault.stop().await;
    courier.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_its_vault_the_courier_ends() {
    let world = World::new();
    let (near, far) = tokio::io::duplex(1024);
    let (net, profile, limits) = (world.net.clone(), world.profile.clone(), world.limits);
    let courier = tokio::spawn(async move { blf_agent::courier::serve(near, net, &profile, limits).await });
    drop(far);
    assert!(courier.await.unwrap().is_err());
}
