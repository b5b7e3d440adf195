//! Is the job for this node, and does its share open? First links of the chain in `job.rs`.
//!
//! ```text
//! context, role, share ─ Claim::check ─→ Claim ─ release ─→ PromptKey
//! ```

use std::sync::Arc;

use blf_bridge::Key;
use blf_bridge::release::{CofheRelease, HpkeRelease, Joined, KeyRelease as _, ReleaseError};
use blf_evidence::job::{JobContext, Role, Share};
use blf_evidence::{Address, Hex, UnixTime};

use crate::error::JobError;
use crate::frames::Boxes;
use crate::keys::Generation;

/// What this node is, as far as a job can ask for it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its address.
    pub node: Address,
    /// What is running: `tpm-pcr11:…` and the like.
    pub measurement: String,
    /// The models it holds.
    pub models: Vec<HeldModel>,
}

/// A model in the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldModel {
    /// SHA-256 of its manifest.
    pub manifest_sha256: Hex<32>,
    /// The id that jobs name.
    pub id: String,
    /// Longest answer, in tokens.
    pub max_new_tokens: u32,
}

/// What travels along the chain: the job, this node's part, and the keys the job was sealed to.
pub struct Task {
    /// The job's context, parsed.
    pub context: JobContext,
    /// The job's context, verbatim.
    pub text: String,
    /// This node's part.
    pub role: Role,
    /// This node.
    pub node: Address,
    /// The generation of keys that the share names; its response key signs the answer, because that is the one in
    /// the evidence that the user has seen.
    pub generation: Arc<Generation>,
}

/// A job that this node, release and model may do now.
pub struct Claim(Task, Share, Option<Boxes>);

/// The key of the sealed prompt.
pub struct PromptKey(Task, Key);

impl Claim {
    /// Checks everything that can be checked without the prompt. `holding` finds the generation of keys that a share
    /// names, if its certificate is in force.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn check(
        facts: &Facts,
        now: UnixTime,
        role: Role,
        text: String,
        share: Share,
        boxes: Option<Boxes>,
        holding: impl FnOnce(&Hex<32>) -> Option<Arc<Generation>>,
    ) -> Result<Self, JobError> {
        let context = JobContext::parse(text.as_bytes()).map_err(JobError::Context)?;
        if now >= context.not_after {
            return Err(JobError::Expired { not_after: context.not_after, now });
        }
        let wanted = context.model_manifest_sha256;
        let model = facts.models.iter().find(|m| m.manifest_sha256 == wanted).ok_or(JobError::Model { got: wanted })?;
        if !context.measurements.contains(&facts.measurement) {
            return Err(JobError::Measurement { ours: facts.measurement.clone() });
        }
        if context.max_new_tokens == 0 || context.max_new_tokens > model.max_new_tokens {
            return Err(JobError::Tokens { max: model.max_new_tokens, got: context.max_new_tokens });
        }
        if share.node != facts.node {
            return Err(ReleaseError::Node { wanted: facts.node, got: share.node }.into());
        }
        let generation = holding(&share.hpke).ok_or(ReleaseError::Key { got: share.hpke })?;
        if context.cofhe.is_some() != boxes.is_some() {
            return Err(JobError::Boxes);
        }
        if boxes.as_ref().is_some_and(|boxes| boxes.sealing != generation.sealing().public()) {
            return Err(JobError::SealingKey);
        }
        Ok(Self(Task { context, text, role, node: facts.node, generation }, share, boxes))
    }

    /// The job.
    pub fn job(&self) -> Hex<32> {
        self.0.context.job_id
    }

    /// Opens the share, which is bound to this node and to every byte of the context; with CoFHE's share for another half
    /// where the context asks for both.
    ///
    /// # Errors
    /// [`JobError::Release`].
    pub fn release(self) -> Result<PromptKey, JobError> {
        let Self(task, share, boxes) = self;
        let keys = std::slice::from_ref(task.generation.hpke());
        let hpke = HpkeRelease { node: task.node, keys, share: &share, context: &task.text };
        let key = match &boxes {
            None => hpke.release()?,
            Some(Boxes { high, low, .. }) => {
                Joined(hpke, CofheRelease { key: task.generation.sealing(), high, low }).release()?
            }
        };
        Ok(PromptKey(task, key))
    }
}

impl PromptKey {
    pub(crate) fn into_parts(self) -> (Task, Key) {
        (self.0, self.1)
    }
}
