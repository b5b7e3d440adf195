//! R1: every accepted job ends in exactly one answer or one clear failure, whatever is killed and when.
//!
//! Lanes of four machines (a leader, two verifiers, a spare) share one coordinator. In each round a job is submitted and
//! somebody is killed: at a state of the job, at a byte of the conversation with the network or between courier and
//! vault, or at any moment. A killed node comes back as a new boot with new keys; a killed courier to the vault it left.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use blf_agent::engine::EngineProcess;
use blf_agent::frames::{FromVault, ToVault};
use blf_evidence::Hex;
use blf_evidence::icl::Phase;
use blf_evidence::job::Role;
use blf_evidence::telemetry::JobState;
use blf_tests::node::{engine_process, model_pack};
use tokio::sync::Mutex;
use tokio::task::{LocalSet, spawn_local};

use crate::coordinator::Coordinator;
use crate::machine::{Kit, Machine, Record, Said};
use crate::user::{Asker, End, Job};

/// Kills where `BLF_SURVIVAL_KILLS` does not say.
const KILLS: usize = 200;
/// Jobs side by side.
const LANES: usize = 6;
/// Every so many kills it is the coordinator, and the courier alone.
const COORDINATOR: usize = 10;
const COURIER: usize = 5;

/// What a leader goes through.
const STATES: [Option<JobState>; 8] = [
    None,
    Some(JobState::Claimed),
    Some(JobState::PromptFetched),
    Some(JobState::Running),
    Some(JobState::Committed),
    Some(JobState::AnswerStored),
    Some(JobState::Revealed),
    Some(JobState::Accepted),
];

/// Random numbers that can be had again (SplitMix64).
struct Random(u64);

/// When somebody is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    /// The victim has come so far with the job.
    State(Option<JobState>),
    /// So many bytes of the victim's streams to the network later.
    NetworkByte(u64),
    /// So many bytes between courier and vault later.
    InsideByte(u64),
    /// So much later.
    Moment(Duration),
}

/// What one undisturbed job takes.
#[derive(Clone, Copy, Debug)]
struct Undisturbed {
    network_bytes: u64,
    inside_bytes: u64,
    took: Duration,
}

/// Where in the job the victims were, and how the jobs ended.
#[derive(Default)]
struct Tally {
    killed_at: BTreeMap<String, usize>,
    ends: BTreeMap<String, usize>,
    ready: Vec<Duration>,
}

struct World {
    kit: Kit,
    coordinator: Coordinator,
    expected: String,
    undisturbed: Undisturbed,
    kills: usize,
    seed: u64,
    next: AtomicUsize,
    tally: Mutex<Tally>,
    jobs: Mutex<HashSet<Hex<32>>>,
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: wanted a number, got {text}")))
}

/// 200 kills; more by `BLF_SURVIVAL_KILLS=10000 cargo test -p blf-tests --test survival kills -- --nocapture`.
#[test]
fn kills() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path());
    let kills = number("BLF_SURVIVAL_KILLS").map_or(KILLS, |kills| usize::try_from(kills).unwrap());
    let seed = number("BLF_SURVIVAL_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 32 | 1);
    println!("BLF_SURVIVAL_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let begun = Instant::now();
    let lanes = LocalSet::new();
    let world = lanes.block_on(&runtime, async {
        let (pack, model) = model_pack();
        let engine: Arc<EngineProcess> = engine_process(pack);
        let kit = Kit { devnet: coordinator.address, engine, model: Arc::new(model), record: Record::default() };
        let (expected, undisturbed) = undisturbed(&kit, &coordinator).await;
        let world = Arc::new(World {
            kit,
            coordinator,
            expected,
            undisturbed,
            kills,
            seed,
            next: AtomicUsize::new(0),
            tally: Mutex::default(),
            jobs: Mutex::default(),
        });
        let lanes: Vec<_> = (0..LANES.min(kills)).map(|_| spawn_local(lane(Arc::clone(&world)))).collect();
        for lane in lanes {
            lane.await.unwrap();
        }
        Arc::into_inner(world).unwrap()
    });
    check(world, begun.elapsed());
}

/// One job that nobody disturbs.
async fn undisturbed(kit: &Kit, coordinator: &Coordinator) -> (String, Undisturbed) {
    let machines = fleet(kit).await;
    let asker = Asker::new(&coordinator.network);
    let leader = &machines[0];
    let passed = || (leader.network.passed(), leader.inside.passed(), Instant::now());
    let before = passed();
    let job = submit(kit, &asker, &machines).await;
    let End::Answer(text) = asker.end(&job).await else { panic!("nobody disturbed it") };
    leader.reached(job.id, Some(JobState::Accepted)).await;
    let after = passed();
    for machine in machines {
        machine.kill().await;
    }
    let undisturbed =
        Undisturbed { network_bytes: after.0 - before.0, inside_bytes: after.1 - before.1, took: after.2 - before.2 };
    (text, undisturbed)
}

async fn fleet(kit: &Kit) -> Vec<Machine> {
    let mut machines = Vec::new();
    for _ in 0..4 {
        machines.push(Machine::boot(kit).await);
    }
    machines
}

/// A job for the first three machines, the fourth to replace one of them.
async fn submit(kit: &Kit, asker: &Asker, machines: &[Machine]) -> Job {
    let seats: Vec<_> = machines.iter().map(|m| (m.vault.node(), m.hpke())).collect();
    asker.submit((&kit.model.manifest.id, kit.model.digest), &seats[..3], &seats[3..]).await.unwrap()
}

/// Takes one kill after another.
async fn lane(world: Arc<World>) {
    let mut machines = fleet(&world.kit).await;
    let asker = Asker::new(&world.coordinator.network);
    loop {
        let number = world.next.fetch_add(1, Ordering::SeqCst);
        if number >= world.kills {
            break;
        }
        round(&world, number, &mut machines, &asker).await;
    }
    for machine in machines {
        machine.kill().await;
    }
}

async fn round(world: &Arc<World>, number: usize, machines: &mut Vec<Machine>, asker: &Asker) {
    let mut random = Random(world.seed.wrapping_add(number as u64));
    let Undisturbed { network_bytes, inside_bytes, took } = world.undisturbed;
    let when = match number % 4 {
        0 => When::State(STATES[number / 4 % STATES.len()]),
        1 => When::NetworkByte(1 + random.below(network_bytes)),
        2 => When::InsideByte(1 + random.below(inside_bytes)),
        _ => When::Moment(took.mul_f64(random.below(1000) as f64 / 1000.0)),
    };
    // States are a leader's, who goes through most of them.
    let at = if number.is_multiple_of(4) { 0 } else { usize::try_from(random.below(3)).unwrap() };

    let job = submit(&world.kit, asker, machines).await;
    world.jobs.lock().await.insert(job.id);
    let victim = &machines[at];
    match when {
        When::NetworkByte(bytes) => victim.network.arm(bytes),
        When::InsideByte(bytes) => victim.inside.arm(bytes),
        When::State(_) | When::Moment(_) => {}
    }
    let due = async {
        match when {
            When::State(state) => victim.reached(job.id, state).await,
            When::NetworkByte(_) => victim.network.blown().await,
            When::InsideByte(_) => victim.inside.blown().await,
            When::Moment(later) => tokio::time::sleep(later).await,
        }
    };
    // Another's kill may keep this job from going so far; then its victim is killed when it is over.
    let ended = tokio::select! {
        () = due => None,
        end = asker.end(&job) => Some(end),
    };
    world.tally.lock().await.note(victim.state(job.id));

    let victim = machines.remove(at);
    let mut left = None;
    let replacement = if number % COORDINATOR == COORDINATOR - 1 {
        let restarted = Arc::clone(world);
        tokio::task::spawn_blocking(move || restarted.coordinator.kill_and_restart()).await.unwrap();
        victim.kill().await;
        Machine::boot(&world.kit).await
    } else if number % COURIER == COURIER - 2 {
        let vault = victim.kill().await;
        left = Some(Arc::clone(&vault));
        Machine::start(&world.kit, vault).await
    } else {
        victim.kill().await;
        Machine::boot(&world.kit).await
    };
    world.tally.lock().await.ready.push(replacement.ready);
    machines.insert(at, replacement);

    let end = match ended {
        Some(end) => end,
        None => asker.end(&job).await,
    };
    let name = match &end {
        End::Answer(text) => {
            assert_eq!(*text, world.expected, "{when:?}: another answer");
            "answer".to_owned()
        }
        // Addresses are in it.
        End::Failure(reason) => {
            reason.split_whitespace().filter(|word| !word.contains("0x")).collect::<Vec<_>>().join(" ")
        }
    };
    *world.tally.lock().await.ends.entry(name).or_default() += 1;
    if let Some(vault) = left {
        nothing_twice(world, &vault, &job, if at == 0 { Role::Leader } else { Role::Verifier });
    }
}

/// A vault that outlived its courier does a job that it began no second time, and reveals at most once, whoever asks.
fn nothing_twice(world: &World, vault: &blf_agent::vault::Vault, job: &Job, role: Role) {
    let node = vault.node();
    let share = job.shares.iter().find(|share| share.node == node).unwrap().clone();
    let mut said = world.kit.record.lock().unwrap().get(&(job.id, node)).cloned().unwrap_or_default();
    let mut ask = |request| match vault.handle(request) {
        FromVault::Committed { .. } => said.push(Said::Commit),
        FromVault::Leader(_) => said.push(Said::Result),
        FromVault::Verifier(_) => said.push(Said::Verdict),
        FromVault::Refused { .. } => {}
        _ => panic!("wanted a commit, a reveal or a refusal"),
    };
    for _ in 0..2 {
        let (context, share, blob) = (job.context.clone(), share.clone(), job.blob.clone());
        ask(ToVault::Run { context, role, share, boxes: None, blob });
        ask(ToVault::RevealLeader { job: job.id });
        ask(ToVault::RevealVerifier { job: job.id, leader_commitment: Hex([1; 32]) });
    }
    once(&job.id, &said);
}

/// No node commits twice to one job, none signs two results or verdicts, none both.
fn once(job: &Hex<32>, said: &[Said]) {
    assert!(said.iter().filter(|s| **s == Said::Commit).count() <= 1, "{job}: {said:?}");
    assert!(said.iter().filter(|s| **s != Said::Commit).count() <= 1, "{job}: {said:?}");
}

impl Tally {
    fn note(&mut self, state: Option<JobState>) {
        let name = state.map_or_else(|| "Assigned".to_owned(), |state| format!("{state:?}"));
        *self.killed_at.entry(name).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ready = self.ready.clone();
        ready.sort_unstable();
        writeln!(f, "killed at: {:?}", self.killed_at)?;
        for (end, count) in &self.ends {
            writeln!(f, "{count:>6} {end}")?;
        }
        write!(
            f,
            "a new boot was admitted in {:?} (median), {:?} (most)",
            ready[ready.len() / 2],
            ready[ready.len() - 1]
        )
    }
}

/// What must hold in the end, by all that vaults said and all that the coordinator told and kept.
fn check(world: World, took: Duration) {
    let (tally, jobs) = (world.tally.into_inner(), world.jobs.into_inner());
    println!("{} kills in {took:?}; an undisturbed job: {:?}\n{tally}", world.kills, world.undisturbed);
    let record = world.kit.record.lock().unwrap();
    let mut results = BTreeMap::<Hex<32>, usize>::new();
    for ((job, _), said) in record.iter() {
        once(job, said);
        *results.entry(*job).or_default() += said.iter().filter(|s| **s == Said::Result).count();
    }
    assert!(results.values().all(|count| *count <= 1), "two leaders signed results of one job");
    let ends = world.coordinator.ends.lock().unwrap().clone();
    for job in &jobs {
        let ends: Vec<Phase> = ends.iter().filter(|(of, _)| of == job).map(|(_, phase)| *phase).collect();
        // What was told in the instant of a kill is on disk, though nobody heard of it.
        assert!(ends.len() <= 1, "{job} ended more than once: {ends:?}");
    }
    let killed: usize = tally.killed_at.values().sum();
    assert_eq!((killed, jobs.len(), tally.ends.values().sum()), (world.kills, world.kills, world.kills));
    if world.kills >= KILLS {
        // A prompt is opened in the instant in which it is there: that state is told together with the next.
        for state in STATES.into_iter().filter(|state| *state != Some(JobState::PromptFetched)) {
            let name = state.map_or_else(|| "Assigned".to_owned(), |state| format!("{state:?}"));
            assert!(tally.killed_at.contains_key(&name), "nobody was killed at {name}");
        }
        assert!(tally.ends.contains_key("answer") && tally.ends.len() > 1, "{:?}", tally.ends);
    }
    let database = world.coordinator.stop();
    let check: String = rusqlite::Connection::open(database)
        .unwrap()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}
