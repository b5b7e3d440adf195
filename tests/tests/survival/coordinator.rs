//! The devnet on its SQLite state, which can be killed and comes back at the same address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blf_devnet::cofhe::Cofhe;
use blf_devnet::{Deadlines, Devnet, Error, EventKind, Options, Rate, Running};
use blf_evidence::Hex;
use blf_evidence::icl::Phase;
use blf_evidence::network::Network;
use tokio::runtime::Runtime;

use crate::machine::Peer;

/// How often each job was told to have ended, and how.
pub(crate) type Ends = Arc<Mutex<Vec<(Hex<32>, Phase)>>>;

pub(crate) struct Coordinator {
    state: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) network: Network,
    pub(crate) ends: Ends,
    /// Everything of the devnet runs on it and on nothing else; the chain and CoFHE's services are open with it.
    alive: Mutex<Option<(Runtime, Cofhe)>>,
}

impl Coordinator {
    pub(crate) fn start(dir: &Path) -> Self {
        let (state, ends) = (dir.join("devnet.sqlite"), Ends::default());
        let (runtime, running) = run(&state, SocketAddr::from(([127, 0, 0, 1], 0)), &ends).unwrap();
        let network = running.network("profile.json", "release.json", "blf-tiny-1".parse().unwrap());
        let (address, cofhe) = (running.address, running.cofhe.unwrap());
        Self { state, address, network, ends, alive: Mutex::new(Some((runtime, cofhe))) }
    }

    /// The chain and CoFHE's services. Whoever keeps them keeps the chain's file locked.
    pub(crate) fn cofhe(&self) -> Cofhe {
        self.alive.lock().unwrap().as_ref().unwrap().1.clone()
    }

    /// Drops every task of the devnet where it stands, and starts another on what the first left on disk.
    pub(crate) fn kill_and_restart(&self) {
        let mut alive = self.alive.lock().unwrap();
        end(alive.take().unwrap());
        let until = Instant::now() + Duration::from_secs(10);
        // A connection that is still being taken down keeps the port.
        *alive = Some(loop {
            match run(&self.state, self.address, &self.ends) {
                Ok((runtime, running)) => break (runtime, running.cofhe.unwrap()),
                Err(error) => assert!(Instant::now() < until, "the devnet does not come back: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        });
    }

    /// Ends it; gives its database.
    pub(crate) fn stop(self) -> PathBuf {
        end(self.alive.into_inner().unwrap().unwrap());
        self.state
    }
}

fn end((runtime, cofhe): (Runtime, Cofhe)) {
    drop(cofhe);
    runtime.shutdown_timeout(Duration::from_secs(10));
}

fn run(state: &Path, listen: SocketAddr, ends: &Ends) -> Result<(Runtime, Running), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut options = Options::new(Arc::new(Peer::new()))?;
    options.listen = listen;
    options.state = Some(state.to_owned());
    // Long enough for a busy machine, short enough for hundreds of dead nodes.
    options.deadlines = Deadlines { claim: 4, commit: 5, reveal: 4 };
    let rate = Rate { burst: 100_000, per_second: 10_000 };
    (options.rate, options.peer_rate) = (rate, rate);
    let running = runtime.block_on(Devnet::start(options, std::future::pending()))?;
    let (mut events, ends) = (running.events(), Arc::clone(ends));
    runtime.spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) => {
                    if let EventKind::Job { job, phase, .. } = event.kind
                        && matches!(phase, Phase::Accepted | Phase::Rejected | Phase::Failed)
                    {
                        ends.lock().unwrap().push((job, phase));
                    }
                }
                Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => panic!("{missed} events missed"),
                Err(_) => return,
            }
        }
    });
    Ok((runtime, running))
}
