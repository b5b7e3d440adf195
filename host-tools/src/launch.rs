//! `launch`: every node from its first process to its last, in order.
//!
//! ```text
//! VM started → documents, nonce → Evidence → appraised, each check shown → tunnel open → events until the stop
//!     → guest drains and powers off → QEMU → vsock process → TPM
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use blf_evidence::bundle::Evidence;
use blf_evidence::config::{Credentials, PublicConfig};
use blf_evidence::telemetry::Event;
use blf_evidence::tunnel::{DRAIN, HostDocuments};
use blf_evidence::{Address, Base64, Hex, UnixTime, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::{Error, Exit};
use crate::forward::{Counters, DialPolicy, DocumentsError, Session, offer, serve_dials, serve_telemetry};
use crate::inbound;
use crate::notice::{Finding, Notice, Show};
use crate::programs::Programs;
use crate::vm::{Accel, Transport, Vm, VmSpec};
use crate::vsock::Listener;

/// Everything a launch was decided to be.
pub struct Launch {
    /// The programs to start.
    pub programs: Programs,
    /// How vsock reaches the host.
    pub transport: Transport,
    /// What executes the guests.
    pub accel: Accel,
    /// The unified kernel image, checked.
    pub image: PathBuf,
    /// How far to go.
    pub until: Until,
    /// The model pack.
    pub model: PathBuf,
    /// Names of the nodes, `[a-z0-9-]`.
    pub nodes: Vec<String>,
    /// Memory of each guest.
    pub memory_mib: u32,
    /// Virtual processors of each guest.
    pub cpus: u8,
    /// Jobs side by side in each guest, 1 or 2.
    pub max_jobs: u8,
    /// What the guests need to reach the network's services.
    pub credentials: Credentials,
    /// One opaque document for the guests to staple, or none.
    pub endorsements: Option<Base64>,
    /// Where the guests may go.
    pub policy: DialPolicy,
    /// Where the attested API of the first node is reached, that of the next one port further; `None` for nowhere.
    pub api: Option<SocketAddr>,
    /// Decides about the guests' Evidence.
    pub judge: Arc<dyn Judge>,
    /// How long a guest may take until its Evidence.
    pub boot_within: Duration,
    /// How long a guest may take to drain.
    pub stop_within: Duration,
    /// Where run folders go; `None` for the default.
    pub run_base: Option<PathBuf>,
    /// Takes what happens.
    pub show: Show,
}

/// How far a launch goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Until {
    /// Until the wish to stop.
    #[default]
    Stopped,
    /// Until the evidence was appraised: nothing leaves the guest.
    Appraised,
}

/// How far the operator's wish to stop has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Wish {
    /// Go on.
    #[default]
    Run,
    /// Drain and stop.
    Stop,
    /// Stop at once.
    Kill,
}

/// What a guest's Evidence must answer.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// `nonce` of the binding.
    pub nonce: Hex<32>,
    /// `audience` of the binding: the node's name.
    pub audience: &'a str,
    /// The time to judge by.
    pub now: UnixTime,
}

/// Evidence that is genuine and wanted.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The node's address.
    pub address: Address,
    /// Tier 0, 1 or 2.
    pub tier: u8,
    /// Measurement id.
    pub measurement: String,
    /// Every comparison.
    pub findings: Vec<Finding>,
}

/// Evidence that is not.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The comparisons, the failed one last.
    pub findings: Vec<Finding>,
    /// The error to end with: [`Exit::Rejected`] or [`Exit::NoVerdict`].
    pub error: Error,
}

/// Decides whether session evidence is genuine and wanted.
pub trait Judge: Send + Sync {
    /// Appraises evidence that was parsed and size-checked.
    ///
    /// # Errors
    /// [`Refused`].
    fn judge(&self, evidence: &Evidence, question: &Question<'_>) -> Result<Judged, Box<Refused>>;
}

/// For a guest to take the byte that asks it to stop.
const ASK: Duration = Duration::from_secs(5);

impl Launch {
    /// Runs every node until the wish to stop, then stops them. The first node that fails stops the others.
    ///
    /// Processes are started on the thread that drives this; see [`crate::child::Child::start`].
    ///
    /// # Errors
    /// Those of the first node that failed.
    pub async fn run(self, wish: watch::Receiver<Wish>) -> Result<(), Error> {
        let launch = Arc::new(self);
        // Raised by the operator or by a node that failed.
        let (all, stop) = watch::channel(Wish::Run);
        let mut nodes = JoinSet::new();
        for (number, name) in (0..).zip(launch.nodes.clone()) {
            nodes.spawn(node(Arc::clone(&launch), number, name, stop.clone()));
        }
        drop(stop);
        let relay = async {
            let mut wish = wish;
            while wish.changed().await.is_ok() {
                let wished = *wish.borrow();
                all.send_modify(|now| *now = wished.max(*now));
            }
            std::future::pending().await
        };
        let ends = async {
            let mut result = Ok(());
            while let Some(ended) = nodes.join_next().await {
                let ended = ended.unwrap_or_else(|e| Err(Error::failed("NODE_TASK", e)));
                if result.is_ok() && ended.is_err() {
                    result = ended;
                }
                all.send_modify(|now| *now = Wish::Stop.max(*now));
            }
            result
        };
        tokio::select! {
            result = ends => result,
            () = relay => Ok(()),
        }
    }
}

/// One node from start to end.
async fn node(launch: Arc<Launch>, number: u16, name: String, mut stop: watch::Receiver<Wish>) -> Result<(), Error> {
    let api = match launch.api {
        Some(first) => Some(inbound::listen(first, number).await.map_err(|e| of_node(&name, e))?),
        None => None,
    };
    let spec = VmSpec {
        name: name.clone(),
        image: launch.image.clone(),
        model: Some(launch.model.clone()),
        memory_mib: launch.memory_mib,
        cpus: launch.cpus,
        accel: launch.accel,
    };
    let started = Vm::start(&spec, &launch.programs, &launch.transport, launch.run_base.as_deref()).await;
    let (mut vm, listeners) = started.map_err(|e| of_node(&name, e))?;
    (launch.show)(&Notice::Started { node: name.clone(), memory_mib: spec.memory_mib, cpus: spec.cpus });

    let counters = Arc::new(Counters::default());
    let (gate, opened) = watch::channel(false);
    let (events, heard) = mpsc::channel(512);
    let mut services = JoinSet::new();
    let (telemetry, dials) = (listeners.telemetry, listeners.dials);
    let (policy, counted) = (launch.policy.clone(), Arc::clone(&counters));
    services.spawn(async move { drop(serve_telemetry(telemetry, events, counted).await) });
    let counted = Arc::clone(&counters);
    services.spawn(async move { drop(serve_dials(dials, policy, opened, counted).await) });
    let failure = Arc::new(OnceLock::new());
    services.spawn(listen(name.clone(), heard, Arc::clone(&launch.show), Arc::clone(&failure)));

    let admitted = tokio::select! {
        admitted = admit(&launch, &name, listeners.documents) => admitted.map(Some),
        ended = vm.ended() => Err(ended_early(&vm, ended)),
        () = wished(&mut stop, Wish::Stop) => Ok(None),
    };
    let (result, mut session) = match admitted {
        Ok(None) => (Ok(()), None),
        Err(error) => (Err(error), None),
        Ok(Some(session)) if launch.until == Until::Appraised => (Ok(()), Some(session)),
        Ok(Some(session)) => {
            gate.send_replace(true);
            (launch.show)(&Notice::TunnelOpen { node: name.clone() });
            if let Some(listener) = api {
                if let Ok(address) = listener.local_addr() {
                    (launch.show)(&Notice::Api { node: name.clone(), address });
                }
                services.spawn(inbound::serve(listener, listeners.inbound, Arc::clone(&counters)));
            }
            let result = tokio::select! {
                ended = vm.ended() => Err(ended_early(&vm, ended)),
                () = wished(&mut stop, Wish::Stop) => Ok(()),
            };
            (result, Some(session))
        }
    };

    // A guest that has no documents has nothing to drain. The stream stays open while it drains.
    let mut within = Duration::ZERO;
    if let (Ok(()), Some(session)) = (&result, &mut session) {
        (launch.show)(&Notice::Stopping { node: name.clone() });
        // One that does not read must not put off its end.
        let asked = tokio::select! {
            asked = timeout(ASK, session.stop()) => matches!(asked, Ok(Ok(()))),
            () = wished(&mut stop, Wish::Kill) => false,
        };
        if asked {
            within = launch.stop_within;
        }
    }
    let orderly = tokio::select! {
        orderly = vm.stop(within) => orderly,
        () = wished(&mut stop, Wish::Kill) => false,
    };
    // Whoever wished it knows; and without a network there was no job.
    let lost = !orderly && session.is_some() && launch.until == Until::Stopped && *stop.borrow() < Wish::Kill;
    drop(session);
    // The last events are still on their way through the socket.
    sleep(Duration::from_millis(100)).await;
    services.shutdown().await;
    (launch.show)(&Notice::Stopped { node: name.clone(), orderly, counts: counters.counts() });
    let result = if lost { result.and_then(|()| Err(forced(launch.stop_within))) } else { result };
    result.map_err(|mut error| {
        if let Some(said) = failure.get() {
            error.message = format!("{said}; {}", error.message);
        }
        of_node(&name, error)
    })
}

/// Documents in, Evidence out, appraised.
async fn admit(launch: &Launch, name: &str, listener: Listener) -> Result<Session, Error> {
    let config = PublicConfig { max_jobs: launch.max_jobs, name: name.into(), v: 1 };
    let written = |what, e: &dyn std::fmt::Display| Error::config("DOCUMENTS", format!("{what}: {e}"));
    let config = json::canonical("public configuration", &config).map_err(|e| written("configuration", &e))?;
    PublicConfig::parse(config.as_bytes()).map_err(|e| written("configuration", &e))?;
    let documents = HostDocuments {
        config,
        credentials: serde_json::to_string(&launch.credentials).map_err(|_| written("credentials", &"no JSON"))?,
        endorsements: launch.endorsements.clone(),
    };
    let session = offer(listener, &documents, launch.boot_within).await.map_err(|e| match e {
        DocumentsError::Evidence(e) => Error::rejected("EVIDENCE_MALFORMED", e),
        DocumentsError::Deadline { .. } => Error::new(Exit::NoVerdict, "EVIDENCE_LATE", e)
            .hint("a slow machine may need a longer --boot-timeout; --log stderr shows what the guest reports"),
        DocumentsError::TooLong { .. } => Error::config("DOCUMENTS", e),
        DocumentsError::Io(_) => Error::failed("DOCUMENTS", e),
    })?;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let question = Question { nonce: session.nonce, audience: name, now: UnixTime(now.as_secs()) };
    let check = |finding: Finding| (launch.show)(&Notice::Check { node: name.into(), finding });
    match launch.judge.judge(&session.evidence, &question) {
        Ok(Judged { address, tier, measurement, findings }) => {
            findings.into_iter().for_each(check);
            (launch.show)(&Notice::Appraised { node: name.into(), address, tier, measurement });
            Ok(session)
        }
        Err(refused) => {
            let Refused { findings, error } = *refused;
            findings.into_iter().for_each(check);
            Err(error.hint("the tunnel stayed closed: this guest is not the image it was started from"))
        }
    }
}

/// Shows and writes down what a guest says; keeps why its boot failed.
async fn listen(node: String, mut events: mpsc::Receiver<Event>, show: Show, failure: Arc<OnceLock<String>>) {
    while let Some(event) = events.recv().await {
        if let Event::BootFailed { stage, code } = &event {
            failure.get_or_init(|| format!("the guest's boot failed at {stage}: {code}"));
        }
        show(&Notice::Guest { node: node.clone(), event });
    }
}

/// Waits until the wish to stop is at least `wish`.
async fn wished(stop: &mut watch::Receiver<Wish>, wish: Wish) {
    if stop.wait_for(|now| *now >= wish).await.is_err() {
        // Nobody can wish any more.
        std::future::pending().await
    }
}

/// A VM that ended while it was wanted, with the guest's last words where it has a console.
fn ended_early(vm: &Vm, ended: Result<(), Error>) -> Error {
    let mut error = match ended {
        Ok(()) => Error::failed("GUEST_ENDED", "the guest powered off by itself"),
        Err(error) => error,
    };
    let words = vm.console().complaint(8);
    if !words.is_empty() {
        error.message = format!("{}; its console: {words}", error.message);
    }
    error
}

/// A guest that was asked to drain and did not end by itself.
fn forced(within: Duration) -> Error {
    let error = format!(
        "wanted the guest to drain and power off within {} s, it was ended by force: running jobs may have been lost",
        within.as_secs()
    );
    Error::failed("STOP_FORCED", error).hint(format!(
        "a longer stop_timeout, if that was shorter than the {} s for which a guest may drain; else --log stderr shows more",
        DRAIN.as_secs()
    ))
}

fn of_node(name: &str, mut error: Error) -> Error {
    error.message = format!("{name}: {}", error.message);
    error
}
