//! What a test wants to go wrong, for as long as it says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::StatusCode;
use serde_json::json;

use crate::routes::Reply;

/// One thing that goes wrong with a legacy coordinator.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Requests whose path begins so.
    pub path: &'static str,
    /// How many of them.
    pub times: u32,
    /// Are answered with this status instead, 400 to 599.
    pub status: u16,
    /// And with this `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
}

/// What goes wrong. Clones share it, so that a test can add to it while the devnet runs.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    faults: Vec<Fault>,
    forgets: bool,
    hides_unknown: bool,
}

impl Faults {
    /// From the next request on.
    pub fn add(&self, fault: Fault) {
        self.inner().faults.push(fault);
    }

    /// The coordinator has lost its state: before the next request it forgets all nodes.
    pub fn forget_nodes(&self) {
        self.inner().forgets = true;
    }

    /// From now on nothing waits for a node that it does not know, where it would say 404: today's coordinator does not tell
    /// a node that it was forgotten.
    pub fn hide_unknown(&self) {
        self.inner().hides_unknown = true;
    }

    /// Faults that no request has met yet.
    pub fn left(&self) -> u32 {
        self.inner().faults.iter().map(|fault| fault.times).sum()
    }

    /// Takes one turn of the first fault for this path.
    pub(crate) fn next(&self, path: &str) -> Option<Reply> {
        let mut inner = self.inner();
        let fault = inner.faults.iter_mut().find(|fault| fault.times > 0 && path.starts_with(fault.path))?;
        fault.times -= 1;
        let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = fault.retry_after;
        let detail = status.canonical_reason().unwrap_or("fault");
        Some(Reply { retry_after, ..Reply::new(status, json!({ "detail": detail }).to_string().into_bytes()) })
    }

    /// True once after [`Self::forget_nodes`].
    pub(crate) fn forgotten(&self) -> bool {
        std::mem::take(&mut self.inner().forgets)
    }

    /// True from [`Self::hide_unknown`] on.
    pub(crate) fn hides_unknown(&self) -> bool {
        self.inner().hides_unknown
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
