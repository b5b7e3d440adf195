//! The courier's loops. Each is one task with one owner; queues are bounded, waits have deadlines.
//!
//! ```text
//! admission    until the node is certified, and again before the certificate ends
//! heartbeat    every minute; the first to notice that the ICL is back
//! assignments  every few seconds: starts jobs, at most so many side by side, and queues evidence
//! evidence     one user's nonce after another, at most one a second
//! ```
//!
//! A stop ends claiming at once. Running jobs end in their own time or are handed back at the drain's deadline; then
//! the vault wipes the keys and powers off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use blf_evidence::UnixTime;
use blf_evidence::icl::{EvidenceRequest, Heartbeat};
use blf_evidence::telemetry::Event;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::{Backoff, below, jitter};
use crate::blob::Blobs;
use crate::courier::cofhe::Cofhe;
use crate::courier::evidence::Requests;
use crate::courier::jobs::{Jobs, Offer};
#[cfg(not(feature = "production"))]
use crate::courier::legacy;
use crate::courier::vault::{CallError, Vault};
use crate::courier::{admission, evidence};
use crate::frames::{Identity, ToVault};
use crate::icl::{Icl, IclError};
use crate::telemetry::Telemetry;
use crate::tls::Clock;
use crate::tunnel::Tunnel;

/// Periods and deadlines.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Between polls for assignments.
    pub poll: Duration,
    /// Between looks at a job's status.
    pub status: Duration,
    /// Least time between two attempts at one thing.
    pub least: Duration,
    /// Most time between two attempts at one thing.
    pub most: Duration,
    /// Most time between two attempts at a heartbeat or at admission, so that an ICL that is back soon sees the node.
    pub most_probe: Duration,
    /// Most time between two attempts at a step of a job.
    pub step: Duration,
    /// Least time between two attestations that the ICL causes.
    pub readmit: Duration,
    /// Between two pieces of evidence for users, so that a flood of them does not stop jobs.
    pub evidence: Duration,
    /// From claim to commit, whatever the ICL allows.
    pub job: Duration,
    /// From commit to the quorum's decision, whatever the user allows.
    pub reveal: Duration,
    /// From a stop to handing back what still runs.
    pub drain: Duration,
    /// For handing back one job, and for the last heartbeat.
    pub hand_back: Duration,
}

/// What every loop needs.
pub struct Node<T> {
    /// The coordinator.
    pub icl: Icl<T>,
    /// Sealed prompts and answers.
    pub blobs: Blobs<T>,
    /// What holds prompt keys for the chain, if the profile knows it.
    pub cofhe: Option<Cofhe<T>>,
    /// The existing network, if that is what the profile says.
    #[cfg(not(feature = "production"))]
    pub legacy: Option<legacy::Network<T>>,
    /// Keys, evidence, inference.
    pub vault: Vault,
    /// What may be said.
    pub telemetry: Telemetry,
    /// Who this is.
    pub identity: Identity,
    /// The vault's time.
    pub clock: Clock,
    /// Periods and deadlines.
    pub timings: Timings,
    /// The certificate in force.
    pub admission: watch::Sender<Option<Admitted>>,
    /// Told when the ICL answers again.
    pub back: Notify,
    /// Jobs at hand.
    pub jobs: AtomicU8,
}

/// A certificate is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// Its end.
    pub until: UnixTime,
}

/// Why the loops ended otherwise than by a stop.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A loop ended, which none does by itself.
    #[error("a loop of the courier ended")]
    Loop,
    /// Two jobs panicked within a minute: something is wrong beyond those jobs.
    #[error("two jobs panicked within {0:?}")]
    Panics(Duration),
    /// The vault would not power off.
    #[error(transparent)]
    Vault(#[from] CallError),
}

/// How often a lack of new assignments is mentioned.
const QUIET: Duration = Duration::from_secs(60);
/// How long the vault may take to power off.
const POWER_OFF: Duration = Duration::from_secs(30);
/// How long the last events may take to the host.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Default for Timings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            heartbeat: seconds(60),
            poll: seconds(5),
            status: seconds(1),
            least: seconds(1),
            most: seconds(300),
            most_probe: seconds(25),
            step: seconds(15),
            readmit: seconds(60),
            evidence: seconds(1),
            job: seconds(300),
            reveal: seconds(330),
            drain: seconds(330),
            hand_back: seconds(10),
        }
    }
}

/// Runs the node until `stop`, then drains it and has the vault power off.
///
/// # Errors
/// [`DaemonError`].
pub async fn run<T: Tunnel>(node: Arc<Node<T>>, stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
    let (evidence, giving) = evidence::requests(Arc::clone(&node));
    let mut loops = JoinSet::new();
    loops.spawn({
        let node = Arc::clone(&node);
        async move { admission::keep(&node).await }
    });
    loops.spawn(heartbeats(Arc::clone(&node), stop.clone()));
    loops.spawn(giving);
    let drained = tokio::select! {
        drained = assignments(&node, &evidence, stop) => drained,
        _ = loops.join_next() => Err(DaemonError::Loop),
    };
    loops.shutdown().await;
    drained?;

    if node.admission.borrow().is_some() {
        let last = timeout(node.timings.hand_back, node.heartbeat(true)).await;
        if let Ok(Err(error)) = last {
            node.telemetry.trouble(&error.code(), Duration::ZERO);
        }
    }
    node.telemetry.say(Event::Stopped {});
    // A host that does not listen does not keep the node alive.
    drop(timeout(LAST_WORDS, node.telemetry.delivered()).await);
    match node.vault.done(ToVault::PowerOff, POWER_OFF).await {
        // Gone before it could answer: then it is off.
        Ok(()) | Err(CallError::Gone) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until `flag` is true; for ever if nobody can raise it any more.
pub(crate) async fn raised(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|raised| *raised).await.is_err() {
        std::future::pending().await
    }
}

impl<T: Tunnel> Node<T> {
    /// A certificate is in force from now on.
    pub(crate) fn admit(&self, admitted: Admitted) {
        self.admission.send_replace(Some(admitted));
    }

    /// The ICL does not know the node any more, unless another certificate came meanwhile.
    pub(crate) fn forgotten(&self, admitted: Admitted) {
        self.admission.send_if_modified(|now| now.take_if(|now| *now == admitted).is_some());
    }

    /// Waits for a certificate in force.
    pub(crate) async fn admitted(&self) -> Admitted {
        let mut admission = self.admission.subscribe();
        loop {
            if let Some(admitted) = *admission.borrow_and_update()
                && self.clock.now() < admitted.until
            {
                return admitted;
            }
            if admission.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Waits until the ICL has forgotten the node.
    pub(crate) async fn not_admitted(&self) {
        let mut admission = self.admission.subscribe();
        if admission.wait_for(Option::is_none).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits for `delay`, or for little more than until the ICL answers somebody again.
    pub(crate) async fn pause(&self, delay: Duration) {
        tokio::select! {
            () = sleep(delay) => {}
            () = self.back.notified() => sleep(below(self.timings.poll)).await,
        }
    }

    /// Uses no connection made before.
    pub(crate) fn renew(&self) {
        self.icl.renew();
        self.blobs.renew();
        if let Some(cofhe) = &self.cofhe {
            cofhe.renew();
        }
        #[cfg(not(feature = "production"))]
        if let Some(network) = &self.legacy {
            network.renew();
        }
    }

    /// When `time` will be, by the lower bound of now.
    pub(crate) fn at(&self, time: UnixTime) -> Instant {
        // A day is longer than anything here may take, and far from any overflow.
        let left = time.0.saturating_sub(self.clock.now().0).min(86_400);
        Instant::now() + Duration::from_secs(left)
    }

    /// Whether the ICL is a strict one: it takes jobs back and relays nonces.
    pub(crate) fn is_strict(&self) -> bool {
        #[cfg(not(feature = "production"))]
        if self.legacy.is_some() {
            return false;
        }
        true
    }

    async fn heartbeat(&self, stopping: bool) -> Result<(), IclError> {
        #[cfg(not(feature = "production"))]
        if let Some(network) = &self.legacy {
            return network.icl.heartbeat().await;
        }
        let heartbeat = Heartbeat { node_address: self.identity.node, stopping, timestamp: self.clock.now() };
        self.icl.heartbeat(&heartbeat).await.map(drop)
    }

    /// Asks what waits: jobs, and users who want evidence.
    async fn poll(&self) -> Result<(Vec<Offer>, Vec<EvidenceRequest>), IclError> {
        #[cfg(not(feature = "production"))]
        if let Some(network) = &self.legacy {
            let waiting = network.icl.assignments().await?;
            if waiting.malformed > 0 {
                self.telemetry.trouble("ASSIGNMENT_MALFORMED", self.timings.poll);
            }
            return Ok((waiting.good.into_iter().map(Offer::Legacy).collect(), Vec::new()));
        }
        let waiting = self.icl.assignments().await?;
        Ok((waiting.assignments.into_iter().map(Offer::Strict).collect(), waiting.evidence_requests))
    }
}

async fn heartbeats<T: Tunnel>(node: Arc<Node<T>>, mut stop: watch::Receiver<bool>) {
    let timings = &node.timings;
    let mut backoff = Backoff::new(timings.least, timings.most_probe);
    loop {
        let admitted = node.admitted().await;
        let stopping = *stop.borrow_and_update();
        let wait = match node.heartbeat(stopping).await {
            Ok(()) => {
                if backoff.succeeded() {
                    node.back.notify_waiters();
                }
                node.telemetry.say(Event::Heartbeat { jobs: node.jobs.load(Ordering::Relaxed) });
                jitter(timings.heartbeat)
            }
            Err(error) => trouble(&node, &error, admitted, &mut backoff),
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = raised(&mut stop), if !stopping => {}
        }
    }
}

/// Polls until a stop, then drains.
async fn assignments<T: Tunnel>(
    node: &Arc<Node<T>>,
    evidence: &Requests,
    mut stop: watch::Receiver<bool>,
) -> Result<(), DaemonError> {
    let mut jobs = Jobs::new(Arc::clone(node), stop.clone());
    // Never more often than while all is well: these polls are most of what an ICL that is in trouble gets.
    let mut backoff = Backoff::new(node.timings.poll, node.timings.most);
    let mut wait = Duration::ZERO;
    let mut quiet = Instant::now();
    loop {
        let pause = wait;
        let mut poll = std::pin::pin!(async {
            node.pause(pause).await;
            let admitted = node.admitted().await;
            (admitted, node.poll().await)
        });
        let (admitted, polled) = loop {
            tokio::select! {
                biased;
                () = raised(&mut stop) => {
                    jobs.drain().await;
                    return Ok(());
                }
                ended = jobs.ended() => ended?,
                polled = &mut poll => break polled,
            }
        };
        wait = match polled {
            Ok((offers, requests)) => {
                backoff.succeeded();
                requests.into_iter().for_each(|request| evidence.push(request));
                let new = offers.into_iter().filter_map(|offer| jobs.take(offer).then_some(())).count();
                if new > 0 {
                    node.telemetry.say(Event::Assignments { count: u32::try_from(new).unwrap_or(u32::MAX) });
                    quiet = Instant::now();
                } else if quiet.elapsed() >= QUIET {
                    node.telemetry.say(Event::NoAssignments { seconds: QUIET.as_secs() });
                    quiet = Instant::now();
                }
                jitter(node.timings.poll)
            }
            Err(error) => trouble(node, &error, admitted, &mut backoff),
        };
    }
}

/// Says what went wrong with a request about the node itself, and how long to wait before the next.
fn trouble<T: Tunnel>(node: &Node<T>, error: &IclError, admitted: Admitted, backoff: &mut Backoff) -> Duration {
    if error.node_is_unknown() {
        node.forgotten(admitted);
    }
    let wait = backoff.failed(error.retry_after());
    node.telemetry.trouble(&error.code(), wait);
    wait
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::courier::Limits;
    use crate::courier::https::Https;
    use crate::tls;
    use crate::tunnel::{Egress, TunnelError};
    use blf_evidence::Address;
    use blf_evidence::profile::{Host, NetworkProfile};

    /// Leads nowhere.
    pub(crate) struct Nowhere;

    impl Tunnel for Nowhere {
        type Stream = tokio::io::DuplexStream;

        async fn dial(&self, _: &Host) -> Result<Self::Stream, TunnelError> {
            Err(TunnelError::Io(std::io::ErrorKind::ConnectionRefused))
        }

        async fn telemetry(&self) -> Result<Self::Stream, TunnelError> {
            Err(TunnelError::Io(std::io::ErrorKind::ConnectionRefused))
        }
    }

    /// A node that reaches nobody.
    pub(crate) fn node() -> Arc<Node<Nowhere>> {
        node_of(Vault::connect(tokio::io::duplex(1).0).0)
    }

    /// One that reaches nobody but its vault.
    pub(crate) fn node_of(vault: Vault) -> Arc<Node<Nowhere>> {
        let profile = NetworkProfile::parse(include_bytes!("../profiles/devnet.json")).unwrap();
        let Limits { dial, https, timings } = Limits::default();
        let clock = Clock::new(UnixTime(0));
        let tls = tls::connector(&profile.tls_roots, clock.clone()).unwrap();
        let egress = Arc::new(Egress::new(Nowhere, &profile, dial));
        let server = |host: &Host| Https::new(Arc::clone(&egress), tls.clone(), host.clone(), https);
        let node = Address([1; 20]);
        Arc::new(Node {
            icl: Icl::new(server(&profile.icl), vault.clone(), node),
            blobs: Blobs::new(server(&profile.blob_gateway), server(&profile.blob_pinning), String::new()),
            cofhe: None,
            #[cfg(not(feature = "production"))]
            legacy: None,
            vault,
            telemetry: Telemetry::default(),
            identity: Identity {
                node,
                backend: "tpm".into(),
                models: vec![],
                max_jobs: 2,
                pinning_token: String::new(),
                rpc_path: "/".into(),
                boot_events: vec![],
                now: UnixTime(0),
            },
            clock,
            timings,
            admission: watch::Sender::new(None),
            back: Notify::new(),
            jobs: AtomicU8::new(0),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_in_force_until_it_ends_or_is_forgotten() {
        let node = node();
        let (first, second) = (Admitted { until: UnixTime(100) }, Admitted { until: UnixTime(200) });
        node.admit(first);
        assert_eq!(node.admitted().await, first);
        node.admit(second);
        node.forgotten(first); // said of the one before
        assert_eq!(node.admitted().await, second);
        sleep(Duration::from_secs(201)).await;
        assert!(timeout(Duration::from_secs(1), node.admitted()).await.is_err(), "over");
        node.forgotten(second);
        node.not_admitted().await;
    }
}
