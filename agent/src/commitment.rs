//! Commits to the answer, and reveals once (architecture decisions 8 and 9).

use blf_bridge::commitment::{commit, commitment};
use blf_evidence::icl::{LeaderResult, VerifierResult};
use blf_evidence::job::{self, Role, SealedKey, Verdict};
use blf_evidence::{Hex, UnixTime};

use crate::answer::{Answer, SealedAnswer};
use crate::error::{HardwareError, InternalError, JobError, VaultError};
use crate::release::Task;

/// What is kept of a job between commit and reveal: neither text nor the prompt's key, but the generation of keys that the
/// answer is signed with.
pub struct Commitment {
    task: Task,
    commitment: Hex<32>,
    salt: Hex<32>,
    /// The leader's: CID and key of the sealed answer.
    output: Option<(String, SealedKey)>,
}

impl Answer {
    /// Commits as verifier. The text ends here.
    ///
    /// # Errors
    /// [`HardwareError::Randomness`].
    pub fn commit(self) -> Result<Commitment, VaultError> {
        let (task, key, text) = self.into_parts();
        let mut salt = Hex([0; 32]);
        getrandom::fill(&mut salt.0).map_err(|_| HardwareError::Randomness)?;
        let commitment = commitment(&key, &task.context.job_id, &text);
        Ok(Commitment { task, commitment, salt, output: None })
    }

    /// Commits as leader, to the sealed answer too.
    ///
    /// # Errors
    /// [`HardwareError::Randomness`].
    pub fn commit_sealed(self, sealed: &SealedAnswer) -> Result<Commitment, VaultError> {
        let output = Some((sealed.cid.clone(), sealed.key.clone()));
        Ok(Commitment { output, ..self.commit()? })
    }
}

impl Commitment {
    /// The hash for `/internal/task/commit`.
    pub fn commit(&self) -> Hex<32> {
        commit(&self.task.context.job_id, &self.task.node, &self.commitment, &self.salt)
    }

    /// This node's part.
    pub fn role(&self) -> Role {
        self.task.role
    }

    /// The job's end.
    pub fn not_after(&self) -> UnixTime {
        self.task.context.not_after
    }

    /// The leader's result, signed with the response key that the user has seen evidence for.
    ///
    /// # Errors
    /// [`JobError::NotCommitted`] for a verifier.
    pub fn reveal_leader(self) -> Result<LeaderResult, VaultError> {
        let Self { task, commitment, salt, output } = self;
        let (output_cid, output_key) = output.ok_or(JobError::NotCommitted)?;
        let job_id = task.context.job_id;
        let response = task.generation.public().response;
        let answer = job::Answer { job_id, commitment, output_cid, output_key, response, v: 1 };
        let text = answer.signed_text().map_err(InternalError::Document)?;
        let signature = task.generation.sign_response(&text);
        Ok(LeaderResult { job_id, node_address: task.node, answer, salt, signature })
    }

    /// The verifier's verdict: CONFIRM only if the leader has committed to the very same. It is signed with the response
    /// key that the user has seen evidence for, so that nobody between can say it in this node's name.
    ///
    /// # Errors
    /// [`JobError::NotCommitted`] for the leader.
    pub fn reveal_verifier(self, leader: &Hex<32>) -> Result<VerifierResult, VaultError> {
        let Self { task, commitment, salt, output } = self;
        if output.is_some() {
            return Err(JobError::NotCommitted.into());
        }
        let verdict = if commitment == *leader { Verdict::Confirm } else { Verdict::Reject };
        let job_id = task.context.job_id;
        let signature = task.generation.sign_response(&verdict.signed_text(&job_id, leader));
        Ok(VerifierResult { job_id, node_address: task.node, commitment, salt, verdict, signature })
    }
}
