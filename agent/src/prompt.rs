//! Opens the prompt and compares whom it is for (architecture decision 7).

use blf_bridge::{Key, prompt};

use crate::error::JobError;
use crate::release::{PromptKey, Task};

/// A prompt that was sealed for this very job.
pub struct Prompt(Task, Key, prompt::Prompt);

impl PromptKey {
    /// Opens the sealed prompt. Its own copy of the context must be the assignment's, byte for byte.
    ///
    /// # Errors
    /// [`JobError::Prompt`].
    pub fn open(self, sealed: &[u8]) -> Result<Prompt, JobError> {
        let (task, key) = self.into_parts();
        let prompt = prompt::open_prompt(&key, sealed, &task.text)?;
        Ok(Prompt(task, key, prompt))
    }
}

impl Prompt {
    pub(crate) fn into_parts(self) -> (Task, Key, prompt::Prompt) {
        (self.0, self.1, self.2)
    }
}
