//! CoFHE's services, peers of their own: threshold network, verifier, coordinator, and what the published Python node
//! speaks instead of them.
//!
//! ```text
//! user, leader: clear list → verifier → signed inputs → PromptKeyStore.storeKey (chain) → handles
//! node:         handle, permit → threshold network → permit and ACL checked → NaCl box for the permit's sealing key
//! ```
//!
//! Everything is checked and sealed for real; only the encryption itself is in `clear` mode: the list of inputs holds
//! plaintexts where the network's would hold a proof.

mod coordinator;
pub(crate) mod jsonrpc;
mod python;
mod threshold;
mod verifier;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::chain::Chain;
use crate::refusal::one_line;

pub(crate) use jsonrpc::Fault;
pub use threshold::{Boxing, End, Shape, Submit};
pub use verifier::Verify;

/// Longest body of a request to any of these services and to the chain.
pub const BODY_CAP: usize = 128 * 1024;

/// What goes out: a status and a JSON document, or an empty body.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    /// JSON; empty for 204.
    pub body: Vec<u8>,
    /// To be waited before answering.
    pub after: Duration,
}

/// How the services are to behave; the default is a network in good health.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// What the threshold network answers to the first, second, … submit for a handle; the last is repeated.
    pub submits: Vec<Submit>,
    /// How it seals.
    pub boxing: Boxing,
    /// What the verifier says.
    pub verify: Verify,
    /// How long every service thinks.
    pub after: Duration,
    /// Whether the Python node's permits and access are checked.
    pub python_checks: bool,
}

/// The services over one chain. A clone is another handle to the same ones.
#[derive(Clone)]
pub struct Cofhe {
    chain: Chain,
    knobs: Arc<Mutex<Knobs>>,
    requests: Arc<Mutex<threshold::Requests>>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            submits: vec![Submit::Later { processing: 1, end: End::Sealed }],
            boxing: Boxing::Right,
            verify: Verify::Right,
            after: Duration::ZERO,
            python_checks: true,
        }
    }
}

impl Cofhe {
    /// Healthy services over `chain`.
    #[must_use]
    pub fn new(chain: Chain) -> Self {
        Self { chain, knobs: Arc::default(), requests: Arc::default() }
    }

    /// The chain below them.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// From now on they behave so.
    pub fn set(&self, knobs: Knobs) {
        *lock(&self.knobs) = knobs;
    }

    /// The threshold network: `POST /v2/sealoutput`, `GET /v2/sealoutput/{id}`.
    #[must_use]
    pub fn threshold(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let knobs = self.knobs();
        let answer = threshold::answer(&self.chain, &mut lock(&self.requests), &knobs, (method, path), body);
        Answer { after: knobs.after, ..answer }
    }

    /// The verifier: `POST /verify`.
    #[must_use]
    pub fn verifier(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let knobs = self.knobs();
        Answer { after: knobs.after, ..verifier::answer(&self.chain, &knobs, (method, path), body) }
    }

    /// The coordinator of the FHE network: `POST /GetNetworkPublicKey`, `POST /GetCrs`.
    #[must_use]
    pub fn coordinator(&self, method: &str, path: &str, _body: &[u8]) -> Answer {
        Answer { after: self.knobs().after, ..coordinator::answer(method, path) }
    }

    /// What the published node speaks in its `python` mode: `cofhe_decryptForView` and `cofhe_encrypt`, as JSON-RPC.
    #[must_use]
    pub fn python(&self, method: &str, _path: &str, body: &[u8]) -> Answer {
        let knobs = self.knobs();
        Answer { after: knobs.after, ..python::answer(&self.chain, &knobs, method, body) }
    }

    fn knobs(&self) -> Knobs {
        lock(&self.knobs).clone()
    }
}

impl Answer {
    pub(crate) fn json(status: u16, document: &impl Serialize) -> Self {
        // Our own documents have text for names and no numbers that JSON lacks.
        let body = serde_json::to_vec(document).unwrap_or_default();
        Self { status, body, after: Duration::ZERO }
    }

    /// An error as the threshold network and the coordinator word it.
    fn message(status: u16, message: &str) -> Self {
        Self::json(status, &json!({ "message": one_line(message) }))
    }
}

/// Why a request is refused: status and message.
type Refusal = (u16, String);

/// A body that is a document of kind `T`.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    if body.len() > BODY_CAP {
        return Err((413, format!("body: wanted at most {BODY_CAP} bytes, got {}", body.len())));
    }
    serde_json::from_slice(body).map_err(|e| (400, format!("body: {e}")))
}

/// Our own fault.
fn internal(error: impl std::fmt::Display) -> Refusal {
    (500, error.to_string())
}

/// Nothing that holds one of these locks leaves it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
