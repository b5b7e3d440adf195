//! Fresh evidence for users who relay a nonce through the ICL: one after another, so that a flood stops no job.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blf_evidence::bundle::Evidence;
use blf_evidence::icl::{EvidenceRequest, FreshEvidence};
use blf_evidence::json::JsonError;
use blf_evidence::statement::Purpose;
use blf_evidence::telemetry::Event;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::vault::CallError;
use crate::assignment::Seen;
use crate::daemon::Node;
use crate::icl::{IclError, Outcome};
use crate::tunnel::Tunnel;

/// Takes requests. Clones share everything.
#[derive(Clone)]
pub(crate) struct Requests {
    queue: mpsc::Sender<EvidenceRequest>,
    seen: Arc<Mutex<Seen<String>>>,
}

/// Why a user got no evidence.
#[derive(Debug, thiserror::Error)]
enum EvidenceError {
    #[error(transparent)]
    Evidence(#[from] JsonError),
    #[error(transparent)]
    Icl(#[from] IclError),
    /// Evidence for another purpose is not given to whoever asks the ICL.
    #[error("evidence request: wanted purpose preview")]
    Purpose,
    #[error(transparent)]
    Vault(#[from] CallError),
}

/// Requests that wait.
const QUEUE: usize = 64;
/// Requests remembered, so that each is answered once.
const REMEMBERED: usize = 4096;
/// Longest id of a request, in bytes.
const ID_CAP: usize = 128;
/// Longest audience, in bytes.
const AUDIENCE_CAP: usize = 253;
/// How long the vault may take, with a slow TPM.
pub(crate) const DEVICE: Duration = Duration::from_secs(180);

/// Where requests go, and the task that answers them, which ends when nobody can ask any more.
pub(crate) fn requests<T: Tunnel>(node: Arc<Node<T>>) -> (Requests, impl Future<Output = ()> + Send) {
    let (queue, mut waiting) = mpsc::channel::<EvidenceRequest>(QUEUE);
    let requests = Requests { queue, seen: Arc::new(Mutex::new(Seen::new(REMEMBERED))) };
    let seen = Arc::clone(&requests.seen);
    let task = async move {
        while let Some(request) = waiting.recv().await {
            let id = request.request_id.clone();
            if give(&node, request).await {
                sleep(node.timings.evidence).await;
            } else {
                lock(&seen).remove(&id);
                sleep(node.timings.least.max(node.timings.evidence)).await;
            }
        }
    };
    (requests, task)
}

impl Requests {
    /// Queues a request that is new and in bounds; the ICL shows one again that finds no room.
    pub(crate) fn push(&self, request: EvidenceRequest) {
        let id = request.request_id.clone();
        if id.len() > ID_CAP || request.audience.len() > AUDIENCE_CAP {
            return;
        }
        let mut seen = lock(&self.seen);
        if seen.insert(id.clone()) && self.queue.try_send(request).is_err() {
            seen.remove(&id);
        }
    }
}

/// Answers one request; false if that is worth another attempt when the ICL shows it again.
async fn give<T: Tunnel>(node: &Node<T>, request: EvidenceRequest) -> bool {
    let admitted = node.admitted().await;
    let Err(error) = answer(node, request).await else {
        node.telemetry.say(Event::EvidenceGiven {});
        return true;
    };
    let outcome = error.outcome();
    if outcome == Outcome::Forgotten {
        node.forgotten(admitted);
    }
    node.telemetry.trouble(&error.code(), node.timings.poll);
    outcome == Outcome::Final
}

async fn answer<T: Tunnel>(node: &Node<T>, request: EvidenceRequest) -> Result<(), EvidenceError> {
    let EvidenceRequest { request_id, nonce, audience, purpose } = request;
    if purpose != Purpose::Preview {
        return Err(EvidenceError::Purpose);
    }
    let evidence = node.vault.attest(purpose, audience, nonce, DEVICE).await?;
    let evidence = Evidence::parse(evidence.as_bytes())?;
    match node.icl.evidence(&FreshEvidence { node_address: node.identity.node, request_id, evidence }).await {
        Err(error) if error.outcome() != Outcome::AlreadyDone => Err(error.into()),
        _ => Ok(()),
    }
}

fn lock(seen: &Mutex<Seen<String>>) -> MutexGuard<'_, Seen<String>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EvidenceError {
    fn code(&self) -> Cow<'_, str> {
        match self {
            Self::Evidence(_) => "EVIDENCE_MALFORMED".into(),
            Self::Icl(error) => error.code(),
            Self::Purpose => "EVIDENCE_PURPOSE".into(),
            Self::Vault(error) => error.code().into(),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Evidence(_) | Self::Purpose => Outcome::Final,
            Self::Icl(error) => error.outcome(),
            // It may be busy with another's evidence.
            Self::Vault(_) => Outcome::Later,
        }
    }
}
