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

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blf_evidence::bundle::Evidence;
use blf_evidence::icl::{self, EvidenceRequest, FreshEvidence, Heartbeat};
use blf_evidence::statement::Purpose;
use blf_evidence::telemetry::Event;
use blf_evidence::{Hex, UnixTime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::assignment::{Assignment, Seen};
use crate::backoff::{Backoff, below, jitter};
use crate::blob::Blobs;
use crate::courier::vault::{CallError, Vault};
use crate::courier::{admission, job};
use crate::frames::{Identity, ToVault};
use crate::icl::{Icl, IclError, Outcome};
use crate::telemetry::{Telemetry, closed};
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

/// Users whose nonces wait for evidence.
const EVIDENCE_QUEUE: usize = 64;
/// Jobs and requests remembered, so that each is done once.
const REMEMBERED: usize = 4096;
/// Longest id of an evidence request, in bytes.
const REQUEST_ID_CAP: usize = 128;
/// Longest audience, in bytes.
const AUDIENCE_CAP: usize = 253;
/// Two panics in this time end the process.
const PANICS: Duration = Duration::from_secs(60);
/// How long the vault may take for evidence, and to power off.
const DEVICE: Duration = Duration::from_secs(180);
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
pub async fn run<T: Tunnel>(node: Arc<Node<T>>, mut stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
    let (evidence, requests) = mpsc::channel(EVIDENCE_QUEUE);
    let given = Arc::new(Mutex::new(Seen::new(REMEMBERED)));
    let jobs = Arc::new(AtomicU8::new(0));

    let mut loops = JoinSet::new();
    loops.spawn({
        let node = Arc::clone(&node);
        async move { admission::keep(&node).await }
    });
    loops.spawn(heartbeats(Arc::clone(&node), Arc::clone(&jobs), stop.clone()));
    loops.spawn(give_evidence(Arc::clone(&node), requests, Arc::clone(&given), stop.clone()));
    let drained = tokio::select! {
        drained = assignments(&node, evidence, &given, &jobs, &mut stop) => drained,
        _ = loops.join_next() => Err(DaemonError::Loop),
    };
    loops.shutdown().await;
    drained?;

    if node.admission.borrow().is_some() {
        let last = timeout(node.timings.hand_back, node.icl.heartbeat(&node.heartbeat(true))).await;
        if let Ok(Err(error)) = last {
            node.telemetry.trouble(&error.code(), Duration::ZERO);
        }
    }
    node.telemetry.say(Event::Stopped {});
    // A host that does not listen does not keep the node alive.
    drop(timeout(LAST_WORDS, node.telemetry.delivered()).await);
    Ok(node.vault.done(ToVault::PowerOff, DEVICE).await?)
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
    }

    /// When `time` will be, by the lower bound of now.
    pub(crate) fn at(&self, time: UnixTime) -> Instant {
        // A day is longer than anything here may take, and far from any overflow.
        let left = time.0.saturating_sub(self.clock.now().0).min(86_400);
        Instant::now() + Duration::from_secs(left)
    }

    fn heartbeat(&self, stopping: bool) -> Heartbeat {
        Heartbeat { node_address: self.identity.node, stopping, timestamp: self.clock.now() }
    }
}

async fn heartbeats<T: Tunnel>(node: Arc<Node<T>>, jobs: Arc<AtomicU8>, mut stop: watch::Receiver<bool>) {
    let timings = &node.timings;
    let mut backoff = Backoff::new(timings.least, timings.most_probe);
    loop {
        let admitted = node.admitted().await;
        let stopping = *stop.borrow_and_update();
        let wait = match node.icl.heartbeat(&node.heartbeat(stopping)).await {
            Ok(_) => {
                if backoff.succeeded() {
                    node.back.notify_waiters();
                }
                node.telemetry.say(Event::Heartbeat { jobs: jobs.load(Ordering::Relaxed) });
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
    evidence: mpsc::Sender<EvidenceRequest>,
    given: &Mutex<Seen<String>>,
    running: &AtomicU8,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), DaemonError> {
    let (hand_back, handing_back) = watch::channel(false);
    let mut jobs = Jobs { node, tasks: JoinSet::new(), names: HashMap::new(), running, panicked: None };
    let mut seen = Seen::new(REMEMBERED);
    let mut backoff = Backoff::new(node.timings.least, node.timings.most);
    let mut wait = Duration::ZERO;
    loop {
        let pause = wait;
        let mut poll = std::pin::pin!(async {
            node.pause(pause).await;
            let admitted = node.admitted().await;
            (admitted, node.icl.assignments().await)
        });
        let (admitted, polled) = loop {
            tokio::select! {
                biased;
                () = raised(stop) => return jobs.drain(&hand_back).await,
                ended = jobs.next() => jobs.ended(ended)?,
                polled = &mut poll => break polled,
            }
        };
        wait = match polled {
            Ok(waiting) => {
                backoff.succeeded();
                for request in waiting.evidence_requests {
                    enqueue(request, &evidence, given);
                }
                for wire in waiting.assignments {
                    if seen.contains(&wire.job_id) || jobs.tasks.len() >= usize::from(node.identity.max_jobs) {
                        continue;
                    }
                    seen.insert(wire.job_id);
                    jobs.take(wire, stop, &handing_back);
                }
                jitter(node.timings.poll)
            }
            Err(error) => trouble(node, &error, admitted, &mut backoff),
        };
    }
}

/// The jobs at hand.
struct Jobs<'a, T> {
    node: &'a Arc<Node<T>>,
    tasks: JoinSet<()>,
    /// Which job a task is about.
    names: HashMap<task::Id, Hex<32>>,
    running: &'a AtomicU8,
    panicked: Option<Instant>,
}

impl<T: Tunnel> Jobs<'_, T> {
    fn take(&mut self, wire: icl::Assignment, stop: &watch::Receiver<bool>, hand_back: &watch::Receiver<bool>) {
        let (node, job) = (self.node, wire.job_id);
        match Assignment::accept(wire, &node.identity.models, node.clock.now()) {
            Ok(assignment) => {
                let work = job::work(Arc::clone(node), assignment, stop.clone(), hand_back.clone());
                self.spawn(job, work);
            }
            Err(error) => {
                if let Some(code) = closed(error.code()) {
                    node.telemetry.say(Event::JobFailed { job, code });
                }
            }
        }
    }

    fn spawn(&mut self, job: Hex<32>, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(work);
        self.names.insert(task.id(), job);
        self.count();
    }

    /// The next task that ends; never, while there is none.
    async fn next(&mut self) -> Result<(task::Id, ()), JoinError> {
        match self.tasks.join_next_with_id().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// A panic ends its job only; a second one within a minute ends the node.
    fn ended(&mut self, ended: Result<(task::Id, ()), JoinError>) -> Result<(), DaemonError> {
        let (id, panicked) = match &ended {
            Ok((id, ())) => (*id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let job = self.names.remove(&id);
        if panicked {
            if self.panicked.is_some_and(|before| before.elapsed() < PANICS) {
                return Err(DaemonError::Panics(PANICS));
            }
            self.panicked = Some(Instant::now());
            if let Some(job) = job {
                if let Some(code) = closed("JOB_PANICKED") {
                    self.node.telemetry.say(Event::JobFailed { job, code });
                }
                self.spawn(job, job::clean_up(Arc::clone(self.node), job));
            }
        }
        self.count();
        Ok(())
    }

    /// Waits for the jobs; at the deadline they are handed back, and what is then left is dropped.
    async fn drain(&mut self, hand_back: &watch::Sender<bool>) -> Result<(), DaemonError> {
        let timings = &self.node.timings;
        self.node.telemetry.say(Event::Stopping { jobs: self.running.load(Ordering::Relaxed) });
        if timeout(timings.drain, self.all()).await.is_err() {
            hand_back.send_replace(true);
            // Each may hand back, then have the vault forget.
            drop(timeout(timings.hand_back * 2, self.all()).await);
            self.tasks.shutdown().await;
        }
        Ok(())
    }

    async fn all(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            // The node ends anyway.
            drop(self.ended(ended));
        }
    }

    fn count(&self) {
        self.running.store(u8::try_from(self.tasks.len()).unwrap_or(u8::MAX), Ordering::Relaxed);
    }
}

/// Queues a request that is new and in bounds; the ICL shows one again that finds no room.
fn enqueue(request: EvidenceRequest, queue: &mpsc::Sender<EvidenceRequest>, given: &Mutex<Seen<String>>) {
    let id = request.request_id.clone();
    if id.len() > REQUEST_ID_CAP || request.audience.len() > AUDIENCE_CAP {
        return;
    }
    let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
    if given.insert(id.clone()) && queue.try_send(request).is_err() {
        given.remove(&id);
    }
}

async fn give_evidence<T: Tunnel>(
    node: Arc<Node<T>>,
    mut requests: mpsc::Receiver<EvidenceRequest>,
    given: Arc<Mutex<Seen<String>>>,
    mut stop: watch::Receiver<bool>,
) {
    while let Some(request) = requests.recv().await {
        let id = request.request_id.clone();
        let admitted = node.admitted().await;
        match answer(&node, request).await {
            Ok(()) => node.telemetry.say(Event::EvidenceGiven {}),
            Err(error) => {
                if error.forgotten() {
                    node.forgotten(admitted);
                }
                node.telemetry.trouble(&error.code(), node.timings.poll);
                // Once more when the ICL shows it again, unless that would end the same.
                if error.is_transient() {
                    given.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                }
            }
        }
        tokio::select! {
            () = sleep(node.timings.evidence) => {}
            // Not an end of this task, which has none, but of its work.
            () = raised(&mut stop) => std::future::pending().await,
        }
    }
}

/// Why a user got no evidence.
#[derive(Debug, thiserror::Error)]
enum EvidenceError {
    /// Evidence for another purpose is not given to whoever asks the ICL.
    #[error("evidence request: wanted purpose preview")]
    Purpose,
    /// The vault's evidence is none.
    #[error(transparent)]
    Evidence(#[from] blf_evidence::json::JsonError),
    #[error(transparent)]
    Icl(#[from] IclError),
    #[error(transparent)]
    Vault(#[from] CallError),
}

async fn answer<T: Tunnel>(node: &Node<T>, request: EvidenceRequest) -> Result<(), EvidenceError> {
    let EvidenceRequest { request_id, nonce, audience, purpose } = request;
    if purpose != Purpose::Preview {
        return Err(EvidenceError::Purpose);
    }
    let evidence = node.vault.attest(purpose, audience, nonce, DEVICE).await?;
    let evidence = Evidence::parse(evidence.as_bytes())?;
    let node_address = node.identity.node;
    match node.icl.evidence(&FreshEvidence { node_address, request_id, evidence }).await {
        Err(error) if error.outcome() != Outcome::AlreadyDone => Err(error.into()),
        _ => Ok(()),
    }
}

impl EvidenceError {
    fn code(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Purpose => "EVIDENCE_PURPOSE".into(),
            Self::Evidence(_) => "EVIDENCE_MALFORMED".into(),
            Self::Icl(error) => error.code(),
            Self::Vault(error) => error.code().into(),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Purpose | Self::Evidence(_) => false,
            Self::Icl(error) => matches!(error.outcome(), Outcome::Later | Outcome::Forgotten),
            // The vault may be busy with another's evidence.
            Self::Vault(_) => true,
        }
    }

    fn forgotten(&self) -> bool {
        matches!(self, Self::Icl(error) if error.outcome() == Outcome::Forgotten)
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
