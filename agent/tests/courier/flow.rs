//! A node's life when all goes well.

use std::time::Duration;

use blf_evidence::Hex;
use blf_evidence::icl::EvidenceRequest;
use blf_evidence::job::{Role, Verdict};
use blf_evidence::statement::{Binding, Purpose};
use blf_evidence::telemetry::{Event, JobState};
use tokio::time::sleep;

use crate::vault::COMMITMENT;
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_leader_from_boot_to_stop() {
    let world = World::new();
    let booted = Event::Booted { node: world.vault.node(), millis: 1, memory_total_kib: 2, memory_available_kib: 1 };
    world.vault.with(|s| s.boot_events = vec![booted.to_line().unwrap()]);
    let courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.until("the quorum", |w| w.states(job).contains(&JobState::Accepted)).await;
    let wanted = [
        JobState::Claimed,
        JobState::PromptFetched,
        JobState::Running,
        JobState::Committed,
        JobState::AnswerStored,
        JobState::Revealed,
        JobState::Accepted,
    ];
    assert_eq!(world.states(job), wanted);
    world.icl.with(|s| {
        let of = &s.jobs[&job];
        assert_eq!((of.claims, of.commits, of.failed.as_deref()), (1, 1, None));
        assert_eq!(of.result.as_ref().unwrap().answer.commitment, COMMITMENT);
    });
    world.vault.stop().await;
    courier.await.unwrap().unwrap();
    assert!(world.vault.with(|s| s.off));
    assert_eq!(world.vault.count("Forget"), 1);
    assert_eq!(world.vault.count("Enrolment"), 0, "nothing to enrol without a TPM");
    let events = world.net.events();
    assert_eq!(events.first(), Some(&booted));
    assert!(matches!(events[1], Event::Certified { tier: 0, .. }), "{:?}", events[1]);
    assert_eq!(events.last(), Some(&Event::Stopped {}));
    assert!(world.icl.with(|s| s.heartbeats.last().unwrap().1.stopping), "the last heartbeat says so");
    assert_eq!(world.troubles(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_verifier_says_what_it_found() {
    let world = World::new();
    let _courier = world.start();
    let agreed = world.assign(1, Role::Verifier);
    let differs = world.assign(2, Role::Verifier);
    world.icl.with(|s| s.jobs.get_mut(&differs).unwrap().leader_commitment = Some(Hex([1; 32])));
    world.until("both", |w| w.states(agreed).contains(&JobState::Accepted) && w.failure(differs).is_some()).await;
    let verdict = |job| world.icl.with(|s| s.jobs[&job].verdict.as_ref().unwrap().verdict);
    assert_eq!((verdict(agreed), verdict(differs)), (Verdict::Confirm, Verdict::Reject));
    assert_eq!(world.failure(differs).unwrap(), "JOB_REJECTED");
    assert_eq!(world.icl.with(|s| s.jobs[&differs].failed.clone()), None, "not handed back after the commit");
}

#[tokio::test(start_paused = true)]
async fn a_tpm_is_enrolled_once_and_again_when_refused() {
    let world = World::on("tpm");
    world.icl.with(|s| s.life = 3600);
    let _courier = world.start();
    sleep(Duration::from_secs(6 * 3600)).await;
    let attested = world.icl.with(|s| s.attested.len());
    assert!((6..=9).contains(&attested), "{attested}");
    assert_eq!(world.vault.count("Activate"), 1);
    // The ICL loses its AKs, and says so when the certificate is to be renewed.
    world.icl.with(|s| s.enrolled.clear());
    world.until("admission", |w| w.icl.with(|s| s.attested.len()) > attested).await;
    assert_eq!(world.vault.count("Activate"), 2);
    assert!(world.troubles().contains(&"AK_REFUSED".into()), "{:?}", world.troubles());
}

#[tokio::test(start_paused = true)]
async fn certificates_are_renewed_with_new_keys_under_load() {
    let world = World::new();
    world.icl.with(|s| s.life = 600);
    let _courier = world.start();
    let mut jobs = Vec::new();
    for number in 1..=50 {
        jobs.push(world.assign(number, Role::Leader));
        sleep(Duration::from_secs(60)).await;
    }
    world.until("the last", |w| w.states(jobs[49]).contains(&JobState::Accepted)).await;
    for job in jobs {
        assert_eq!(world.failure(job), None);
    }
    let attested = world.icl.with(|s| s.attested.len());
    assert!((6..=9).contains(&attested), "{attested} attestations in 50 minutes, a certificate lasting 10");
    assert_eq!(world.vault.count("Rotate"), attested);
    assert_eq!(world.troubles(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_done_once_however_often_it_is_shown() {
    let world = World::new();
    let _courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.until("the quorum", |w| w.states(job).contains(&JobState::Accepted)).await;
    let polls = world.icl.count("/assignments/");
    world.until("more polls", |w| w.icl.count("/assignments/") > polls + 5).await;
    assert_eq!(world.icl.with(|s| s.jobs[&job].claims), 1);
    assert_eq!(world.vault.count("Run"), 1);
}

#[tokio::test(start_paused = true)]
async fn two_jobs_side_by_side_and_no_more() {
    let world = World::new();
    world.vault.with(|s| s.inference = Duration::from_secs(20));
    let _courier = world.start();
    let jobs: Vec<_> = (1..=5).map(|number| world.assign(number, Role::Leader)).collect();
    world
        .until("all", |w| {
            jobs.iter().all(|job| w.states(*job).contains(&JobState::Accepted) || w.failure(*job).is_some())
        })
        .await;
    assert_eq!(world.vault.with(|s| s.most_running), 2);
    assert!(jobs.iter().all(|job| world.failure(*job).is_none()), "none claimed late");
}

#[tokio::test(start_paused = true)]
async fn a_user_s_nonce_is_answered_once_and_a_flood_stops_no_job() {
    let world = World::new();
    let _courier = world.start();
    let ask = |i: u8, purpose| EvidenceRequest {
        request_id: format!("r{i}"),
        nonce: Hex([i; 32]),
        audience: "0x5935897A39AFABbedA5a599D38236E7Df151C8b8".into(),
        purpose,
    };
    world.icl.with(|s| s.evidence_requests = (0..150).map(|i| ask(i, Purpose::Preview)).collect());
    world.icl.with(|s| s.evidence_requests.push(ask(200, Purpose::Admission)));
    let job = world.assign(1, Role::Leader);
    world.until("the quorum", |w| w.states(job).contains(&JobState::Accepted)).await;
    assert!(world.icl.elapsed() < Duration::from_secs(20), "{:?}", world.icl.elapsed());
    world.until("all nonces", |w| w.icl.with(|s| s.evidence.len()) == 150).await;
    sleep(Duration::from_secs(60)).await;
    world.icl.with(|s| {
        assert_eq!(s.evidence.len(), 150, "each once");
        for (_, given) in &s.evidence {
            let binding = Binding::parse(given.evidence.binding.as_bytes()).unwrap();
            assert_eq!(given.request_id, format!("r{}", binding.nonce.0[0]));
            assert_eq!(binding.purpose, Purpose::Preview);
        }
        let pace = s.evidence.windows(2).map(|w| w[1].0 - w[0].0).min().unwrap();
        assert!(pace >= Duration::from_secs(1), "{pace:?}");
    });
    assert_eq!(world.troubles(), ["EVIDENCE_PURPOSE"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_claiming_and_lets_jobs_end() {
    let world = World::new();
    world.vault.with(|s| s.inference = Duration::from_secs(100));
    let courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.until("inference", |w| w.states(job).contains(&JobState::Running)).await;
    world.vault.stop().await;
    let late = world.assign(2, Role::Leader);
    world.until("the stop is known", |w| w.icl.with(|s| s.heartbeats.last().is_some_and(|(_, h)| h.stopping))).await;
    assert!(!courier.is_finished());
    courier.await.unwrap().unwrap();
    assert_eq!(world.states(job).last(), Some(&JobState::Accepted));
    assert_eq!(world.icl.with(|s| s.jobs[&late].claims), 0);
    assert!(world.vault.with(|s| s.off));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_done_by_the_drain_s_deadline_is_handed_back() {
    let mut world = World::new();
    world.limits.timings.drain = Duration::from_secs(30);
    world.vault.with(|s| s.inference = Duration::from_secs(200));
    let courier = world.start();
    let job = world.assign(1, Role::Leader);
    world.until("inference", |w| w.states(job).contains(&JobState::Running)).await;
    let before = world.icl.elapsed();
    world.vault.stop().await;
    courier.await.unwrap().unwrap();
    let took = world.icl.elapsed() - before;
    assert!((Duration::from_secs(30)..Duration::from_secs(35)).contains(&took), "{took:?}");
    assert_eq!(world.icl.with(|s| s.jobs[&job].failed.clone()).unwrap(), "NODE_STOPPING");
    assert!(world.vault.with(|s| s.off));
}
