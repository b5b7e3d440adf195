//! Has the model answer, and seals the answer to the user.

use std::time::Duration;

use blf_bridge::{Key, Secret, cid, prompt, release};
use blf_evidence::UnixTime;
use blf_evidence::job::SealedKey;

use crate::engine::Engine;
use crate::error::{JobError, VaultError};
use crate::prompt::Prompt;
use crate::release::Task;

/// Longest time one prompt may keep the engine.
pub const ENGINE_DEADLINE: Duration = Duration::from_secs(240);

/// What the model said.
pub struct Answer(Task, Key, Secret);

/// An answer that only the user can open.
pub struct SealedAnswer {
    /// CID of `blob`.
    pub cid: String,
    /// The sealed text.
    pub blob: Vec<u8>,
    /// Its key, sealed to the user's reply key.
    pub key: SealedKey,
}

impl Prompt {
    /// Asks the engine. The prompt's text ends here; its key is kept, because the commitment is keyed with it.
    ///
    /// # Errors
    /// [`VaultError::Model`].
    pub fn answer(self, engine: &dyn Engine, now: UnixTime) -> Result<Answer, VaultError> {
        let (task, key, prompt) = self.into_parts();
        let left = Duration::from_secs(task.context.not_after.0.saturating_sub(now.0));
        let text = engine.answer(prompt.text(), task.context.max_new_tokens, left.min(ENGINE_DEADLINE))?;
        Ok(Answer(task, key, text))
    }
}

impl Answer {
    /// Seals the text under a fresh key, and that key to the user's reply key.
    ///
    /// # Errors
    /// [`JobError::Answer`].
    pub fn seal(&self) -> Result<SealedAnswer, JobError> {
        let Self(task, _, text) = self;
        let key = Key::random().map_err(JobError::Answer)?;
        let blob = prompt::seal_answer(&key, text).map_err(JobError::Answer)?;
        let cid = cid::of(&blob);
        let key = release::seal_output_key(&key, &task.context.reply_hpke, &task.context.job_id, &cid)
            .map_err(JobError::Answer)?;
        Ok(SealedAnswer { cid, blob, key })
    }

    pub(crate) fn into_parts(self) -> (Task, Key, Secret) {
        (self.0, self.1, self.2)
    }
}
