//! A node's life beside an ICL that is away, overloaded, without memory, or without a good clock (R4).

use std::collections::BTreeMap;
use std::time::Duration;

use blf_evidence::icl::CLOCK_SKEW;
use blf_evidence::job::Role;
use blf_evidence::telemetry::JobState;
use tokio::time::{Instant, sleep};

use crate::icl::{refuse, retry_after};
use crate::net::Reply;
use crate::trouble::{HOUR, MINUTE, busiest};
use crate::world::World;

/// How soon after the ICL's return a heartbeat must be there.
const BACK: Duration = Duration::from_secs(30);

/// Every request and every refused dial since `from`, by virtual time since the start.
fn attempts(world: &World, from: Duration) -> Vec<Duration> {
    let (now, elapsed) = (Instant::now(), world.icl.elapsed());
    let mut times = world.icl.with(|s| s.log.iter().map(|(at, ..)| *at).collect::<Vec<_>>());
    times.extend(world.net.refused().iter().map(|at| elapsed - (now - *at)));
    times.retain(|at| *at >= from);
    times.sort_unstable();
    times
}

/// Most attempts in any minute.
fn most_in_a_minute(times: &[Duration]) -> usize {
    let mut first = 0;
    let counts = times.iter().enumerate().map(|(last, at)| {
        while *at - times[first] >= MINUTE {
            first += 1;
        }
        last - first + 1
    });
    counts.max().unwrap_or(0)
}

async fn heartbeat_after(world: &World, from: Duration) -> Duration {
    world.until("a heartbeat", |w| w.icl.with(|s| s.heartbeats.last().is_some_and(|(at, _)| *at > from))).await;
    world.icl.with(|s| s.heartbeats.iter().find(|(at, _)| *at > from).unwrap().0) - from
}

/// A day's certificate ends meanwhile, three times over.
#[tokio::test(start_paused = true)]
async fn an_icl_that_is_away_for_72_hours() {
    let world = World::on("tpm");
    let courier = world.start();
    world.until("a heartbeat", |w| !w.icl.with(|s| s.heartbeats.is_empty())).await;
    let down = world.icl.elapsed();
    world.net.be_down(true);
    sleep(72 * HOUR).await;
    let up = world.icl.elapsed();
    world.net.be_down(false);
    let times = attempts(&world, down + MINUTE);
    let minute = most_in_a_minute(&times);
    assert!(times.len() > 1000, "it goes on asking: {}", times.len());
    assert!(minute <= 60, "{minute} requests in a minute");
    let back = heartbeat_after(&world, up).await;
    assert!(back <= BACK, "{back:?}");
    let job = world.assign(1, Role::Leader);
    world.until("the quorum", |w| w.states(job).contains(&JobState::Accepted)).await;
    assert!(world.icl.elapsed() < up + 2 * MINUTE);
    assert!(!courier.is_finished());
    println!("away for 72 h: {} attempts, {minute} in a minute, first heartbeat in {back:?}", times.len());
}

/// It answers to nothing: every request ends by its own deadline, which may have begun just before the return.
#[tokio::test(start_paused = true)]
async fn an_icl_that_is_silent_for_72_hours() {
    let world = World::new();
    let _courier = world.start();
    world.until("a heartbeat", |w| !w.icl.with(|s| s.heartbeats.is_empty())).await;
    world.icl.fault(|_, _, _| Some(Reply::Silence));
    sleep(72 * HOUR).await;
    let up = world.icl.elapsed();
    world.icl.with(|s| s.fault = None);
    let back = heartbeat_after(&world, up).await;
    assert!(back <= BACK + world.limits.https.head, "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn an_icl_that_lost_its_state_gets_the_node_and_its_ak_again() {
    let world = World::on("tpm");
    let _courier = world.start();
    world.until("a heartbeat", |w| !w.icl.with(|s| s.heartbeats.is_empty())).await;
    sleep(HOUR).await;
    world.net.be_down(true);
    sleep(Duration::from_secs(20)).await;
    world.icl.with(|s| {
        s.known.clear();
        s.enrolled.clear();
    });
    let up = world.icl.elapsed();
    world.net.be_down(false);
    let back = heartbeat_after(&world, up).await;
    assert!(back <= BACK + world.limits.timings.readmit, "{back:?}");
    assert_eq!(world.icl.with(|s| s.attested.len()), 2, "at once, with its AK enrolled anew");
    assert!(!world.troubles().contains(&"AK_REFUSED".into()), "{:?}", world.troubles());
}

/// An hour of one refusal for everything but the time, with and without a wait asked for.
#[tokio::test(start_paused = true)]
async fn storms() {
    let asked = 90;
    let mut measured = BTreeMap::new();
    for status in [401, 404, 409, 429, 500, 502, 503, 504] {
        for asks in [false, true] {
            let world = World::new();
            let courier = world.start();
            world.until("a heartbeat", |w| !w.icl.with(|s| s.heartbeats.is_empty())).await;
            let begun = world.icl.elapsed();
            world.icl.fault(move |_, path, _| {
                let reply = if asks { retry_after(status, asked) } else { refuse(status, "STORM") };
                (!path.contains("/time")).then_some(reply)
            });
            sleep(HOUR).await;
            let over = world.icl.elapsed();
            world.icl.with(|s| s.fault = None);
            let name = format!("{status}{}", if asks { " with Retry-After" } else { "" });

            let times = attempts(&world, begun + MINUTE);
            assert!(!times.is_empty() && most_in_a_minute(&times) <= 60, "{name}: {}", most_in_a_minute(&times));
            assert!(busiest(&world, begun + MINUTE) <= 6, "{name}");
            let attestations = world.icl.with(|s| {
                let shown = s.log.iter().filter(|(at, _, path)| *at > begun && path.contains("attestation"));
                shown.map(|(at, ..)| *at).collect::<Vec<_>>()
            });
            assert!(attestations.windows(2).all(|w| w[1] - w[0] >= MINUTE), "{name}: {attestations:?}");
            // Each loop keeps the wait that was asked of it.
            for path in ["/heartbeat", "/assignments/", "/challenge/"] {
                let of = world.icl.with(|s| {
                    let of = s.log.iter().filter(|(at, _, of)| *at > begun && *at <= over && of.contains(path));
                    of.map(|(at, ..)| *at).collect::<Vec<_>>()
                });
                let kept = of.windows(2).all(|w| w[1] - w[0] >= Duration::from_secs(asked));
                // A node that is forgotten asks once more, as a new one.
                assert!(!asks || matches!(status, 401 | 404) || kept, "{name}: {path} {of:?}");
            }
            let back = heartbeat_after(&world, over).await;
            let forgotten = if matches!(status, 401 | 404) { 5 * MINUTE } else { Duration::ZERO };
            let wait = Duration::from_secs(if asks { asked } else { 0 });
            assert!(back <= BACK + forgotten + wait, "{name}: {back:?}");
            assert!(!courier.is_finished(), "{name}");
            courier.abort();
            measured.insert(name, (times.len(), most_in_a_minute(&times), attestations.len(), back));
        }
    }
    for (name, (requests, minute, attestations, back)) in measured {
        println!(
            "{name}: {requests} requests an hour, {minute} in a minute, {attestations} attestations, back in {back:?}"
        );
    }
}

/// Within the skew that the ICL tolerates nothing happens; beyond it the node asks for the time again.
#[tokio::test(start_paused = true)]
async fn an_icl_whose_clock_is_set() {
    for skew in [-120, -60, 60, 120] {
        let world = World::new();
        let courier = world.start();
        world.until("a heartbeat", |w| !w.icl.with(|s| s.heartbeats.is_empty())).await;
        world.icl.with(|s| s.skew = skew);
        let set = world.icl.elapsed();
        let job = world.assign(1, Role::Leader);
        world.until("the quorum", |w| w.states(job).contains(&JobState::Accepted)).await;
        sleep(HOUR).await;
        let beats = world.icl.with(|s| s.heartbeats.iter().filter(|(at, _)| *at > set).count());
        assert!(beats >= 48, "{skew}: {beats} heartbeats in an hour");
        assert_eq!(world.icl.with(|s| s.attested.len()), 1, "{skew}: {:?}", world.troubles());
        courier.abort();
    }
    for (skew, late) in [(600, 0), (-600, 600 - CLOCK_SKEW)] {
        let world = World::new();
        let courier = world.start();
        world.until("a heartbeat", |w| !w.icl.with(|s| s.heartbeats.is_empty())).await;
        world.icl.with(|s| s.skew = skew);
        let set = world.icl.elapsed();
        // A guest's clock never goes back: it waits until the ICL's has come near again.
        let back = heartbeat_after(&world, set + Duration::from_secs(late)).await;
        assert!(back <= 6 * MINUTE, "{skew}: {back:?}");
        assert!(world.troubles().contains(&"TIME_SKEW".into()), "{skew}");
        let times = attempts(&world, set + MINUTE);
        assert!(most_in_a_minute(&times) <= 60, "{skew}");
        courier.abort();
    }
}
