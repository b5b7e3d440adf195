//! A job whose prompt key is the HPKE share XOR one that CoFHE holds: the user stores that on the chain for the nodes, the
//! courier has the threshold network seal it to the vault, the vault joins both. And what keeps it closed.

use std::time::Duration;

use blf_bridge::Key;
use blf_devnet::cofhe::{Boxing, End as Ending, Knobs, Submit};
use blf_evidence::telemetry::JobState;
use blf_evidence::{Address, Hex};
use tokio::time::{sleep, timeout};

use crate::coordinator::Coordinator;
use crate::machine::{Kit, Machine};
use crate::storage::{kit, runtime};
use crate::user::{Asker, End, Shared};

/// A network, its user, and some nodes.
struct Net {
    coordinator: Coordinator,
    asker: Asker,
    kit: Kit,
    machines: Vec<Machine>,
}

impl Net {
    async fn start(coordinator: Coordinator, nodes: usize) -> Self {
        let (kit, asker) = (kit(&coordinator), Asker::new(&coordinator.network));
        let mut machines = Vec::new();
        for _ in 0..nodes {
            machines.push(Machine::boot(&kit).await);
        }
        Self { coordinator, asker, kit, machines }
    }

    fn addresses(&self) -> Vec<Address> {
        self.machines.iter().map(|machine| machine.vault.node()).collect()
    }

    /// A job of the first `members` nodes, with the others as spares.
    async fn ask(&self, id: Hex<32>, members: usize, shared: &Shared) -> End {
        let seats: Vec<_> = self.machines.iter().map(|machine| (machine.vault.node(), machine.hpke())).collect();
        let (members, spares) = seats.split_at(members);
        let model = (self.kit.model.manifest.id.as_str(), self.kit.model.digest);
        let job = self.asker.submit_sharing(id, model, members, spares, Some(shared)).await.unwrap();
        self.asker.end(&job).await
    }

    /// Why a job of one node failed.
    async fn refused(&self, id: Hex<32>, shared: &Shared) -> String {
        match self.ask(id, 1, shared).await {
            End::Failure(reason) => reason,
            End::Answer(_) => panic!("answered"),
        }
    }
}

fn id() -> Hex<32> {
    Hex(*Key::random().unwrap().expose())
}

/// The coordinator has a runtime of its own, which starts and ends outside of any other.
fn run(nodes: usize, test: impl AsyncFnOnce(&Net)) {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path());
    let runtime = runtime();
    let net = runtime.block_on(Net::start(coordinator, nodes));
    runtime.block_on(test(&net));
    for machine in net.machines {
        runtime.block_on(machine.kill());
    }
    net.coordinator.stop();
}

#[test]
fn a_key_of_two_shares_is_joined_in_every_vault_of_a_quorum() {
    run(3, async |net| {
        let id = id();
        let shared = net.asker.share(id, &net.addresses()).await;
        // What CoFHE holds is for the nodes; and it is not the prompt's key.
        let End::Answer(text) = net.ask(id, 3, &shared).await else { panic!("no answer") };
        assert!(!text.is_empty());
        for machine in &net.machines {
            machine.reached(id, Some(JobState::KeyReceived)).await;
        }
    });
}

#[test]
fn a_node_that_the_chain_does_not_allow_hands_back_and_one_that_it_allows_answers() {
    run(2, async |net| {
        let closed = id();
        let shared = net.asker.share(closed, &[]).await;
        let reason = net.refused(closed, &shared).await;
        assert!(reason.contains("handed back: SEALOUTPUT_HTTP_403"), "{reason}");

        let open = id();
        let shared = net.asker.share(open, &net.addresses()[1..]).await;
        let End::Answer(_) = net.ask(open, 1, &shared).await else { panic!("no answer") };
        let state = net.machines[0].state(open);
        assert!(matches!(state, Some(JobState::Claimed | JobState::PromptFetched)), "{state:?}: it got no share");
        // Its node hears of it a moment later.
        timeout(Duration::from_secs(60), net.machines[1].reached(open, Some(JobState::Accepted))).await.unwrap();
    });
}

#[test]
fn what_does_not_open_is_handed_back_and_the_next_job_is_done() {
    run(1, async |net| {
        let nodes = net.addresses();
        let fails = |end| Knobs { submits: vec![Submit::Later { processing: 0, end }], ..Knobs::default() };
        let boxing = |boxing| Knobs { boxing, ..Knobs::default() };
        for (knobs, wanted) in [
            (boxing(Boxing::OtherKey), "COFHE_SEAL"),
            (boxing(Boxing::Tampered), "COFHE_SEAL"),
            (boxing(Boxing::TooLarge), "COFHE_SEAL"),
            (fails(Ending::Fails("no".into())), "SEALOUTPUT_HTTP_200"),
            (fails(Ending::Gone), "SEALOUTPUT_EXPIRED"),
        ] {
            let id = id();
            let shared = net.asker.share(id, &nodes).await;
            net.coordinator.cofhe().set(knobs);
            let reason = net.refused(id, &shared).await;
            assert!(reason.contains(&format!("handed back: {wanted}")), "wanted {wanted}, got {reason}");
            net.coordinator.cofhe().set(Knobs::default());
        }

        // Halves of another key, and the right ones in the wrong places: both open, and make no key of this prompt.
        let (first, second) = (id(), id());
        let other = net.asker.share(first, &nodes).await;
        let shared = net.asker.share(second, &nodes).await;
        let reason = net.refused(second, &Shared { share: other.share, key: shared.key }).await;
        assert!(reason.contains("handed back: PROMPT_TAG"), "{reason}");
        let Shared { share, key } = other;
        let swapped = blf_evidence::job::CofheShare { high: share.low, low: share.high };
        let reason = net.refused(first, &Shared { share: swapped, key }).await;
        assert!(reason.contains("handed back: PROMPT_TAG"), "{reason}");

        let id = id();
        let shared = net.asker.share(id, &nodes).await;
        let End::Answer(_) = net.ask(id, 1, &shared).await else { panic!("no answer") };
    });
}

/// The threshold network thinks for longer than the node has; what remains of the job is a reason.
#[test]
fn a_share_that_does_not_come_in_time_ends_the_job() {
    run(1, async |net| {
        let id = id();
        let shared = net.asker.share(id, &net.addresses()).await;
        net.coordinator.cofhe().set(Knobs { submits: vec![Submit::NotYet], ..Knobs::default() });
        let reason = net.refused(id, &shared).await;
        assert!(["SEALOUTPUT_LATE", "did not commit in time"].iter().any(|wanted| reason.contains(wanted)), "{reason}");
        net.coordinator.cofhe().set(Knobs::default());
        sleep(Duration::from_secs(1)).await;
        let id = self::id();
        let shared = net.asker.share(id, &net.addresses()).await;
        let End::Answer(_) = net.ask(id, 1, &shared).await else { panic!("no answer") };
    });
}
