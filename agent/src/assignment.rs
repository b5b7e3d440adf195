//! What may be taken: an assignment is judged before it is claimed, so that nothing is claimed that cannot be done.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use blf_bridge::cid::CidError;
use blf_evidence::job::{JobContext, Role};
use blf_evidence::json::JsonError;
use blf_evidence::statement::Model;
use blf_evidence::{Hex, UnixTime, icl};

use crate::blob;

/// A job that this node can do.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// As the ICL wrote it; the context verbatim.
    pub wire: icl::Assignment,
    /// Its context, parsed.
    pub context: JobContext,
}

/// Why a job is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// Its prompt has no checkable name.
    #[error(transparent)]
    Cid(#[from] CidError),
    /// Its context is none.
    #[error(transparent)]
    Context(#[from] JsonError),
    /// It is over.
    #[error("assignment: wanted one that ends after {now}, got {end}")]
    Expired {
        /// The earlier of claim deadline and expiry.
        end: UnixTime,
        /// Now.
        now: UnixTime,
    },
    /// The context is another job's.
    #[error("assignment: wanted the context of {wanted}, got that of {got}")]
    Job {
        /// The assignment's.
        wanted: Hex<32>,
        /// The context's.
        got: Hex<32>,
    },
    /// This guest does not hold the model.
    #[error("assignment: wanted a model of this guest, got manifest {manifest}")]
    Model {
        /// SHA-256 of the manifest that must answer.
        manifest: Hex<32>,
    },
}

/// The last things seen, at most so many: each is handled once.
pub struct Seen<K> {
    order: VecDeque<K>,
    set: HashSet<K>,
    most: usize,
}

impl Assignment {
    /// Judges an assignment for a guest that holds `models`.
    ///
    /// # Errors
    /// [`AssignmentError`].
    pub fn accept(wire: icl::Assignment, models: &[Model], now: UnixTime) -> Result<Self, AssignmentError> {
        let context = JobContext::parse(wire.context.as_bytes())?;
        if context.job_id != wire.job_id {
            return Err(AssignmentError::Job { wanted: wire.job_id, got: context.job_id });
        }
        let manifest = context.model_manifest_sha256;
        if !models.iter().any(|m| m.id == wire.model_id && m.manifest_sha256 == manifest) {
            return Err(AssignmentError::Model { manifest });
        }
        blob::is_cid(&wire.prompt_cid)?;
        // The ICL's clock may be behind the time that it told at admission; whether a claim is late is for it to say.
        let end = wire.claim_by.plus(icl::CLOCK_SKEW).min(context.not_after);
        if end <= now {
            return Err(AssignmentError::Expired { end, now });
        }
        Ok(Self { wire, context })
    }

    /// The job.
    pub fn job(&self) -> Hex<32> {
        self.wire.job_id
    }

    /// The node's part.
    pub fn role(&self) -> Role {
        self.wire.role
    }
}

impl AssignmentError {
    /// Stable, in capitals.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cid(_) => "ASSIGNMENT_CID",
            Self::Context(_) => "ASSIGNMENT_CONTEXT",
            Self::Expired { .. } => "ASSIGNMENT_EXPIRED",
            Self::Job { .. } => "ASSIGNMENT_OTHER_JOB",
            Self::Model { .. } => "MODEL_UNKNOWN",
        }
    }
}

impl<K: Clone + Eq + Hash> Seen<K> {
    /// Remembers the last `most`.
    pub fn new(most: usize) -> Self {
        Self { order: VecDeque::new(), set: HashSet::new(), most }
    }

    /// True the first time.
    pub fn insert(&mut self, key: K) -> bool {
        if !self.set.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }

    /// True if it was seen.
    pub fn contains(&self, key: &K) -> bool {
        self.set.contains(key)
    }

    /// Forgets one, so that it can be handled again.
    pub fn remove(&mut self, key: &K) {
        if self.set.remove(key) {
            self.order.retain(|other| other != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_so_many_and_no_more() {
        let mut seen = Seen::new(2);
        assert!(seen.insert(1) && seen.insert(2));
        assert!(!seen.insert(1) && !seen.insert(2));
        assert!(seen.insert(3), "1 makes room");
        assert!(seen.contains(&2) && seen.contains(&3) && !seen.contains(&1));
        seen.remove(&2);
        assert!(seen.insert(2) && !seen.insert(3));
        assert_eq!((seen.order.len(), seen.set.len()), (2, 2));
    }
}
