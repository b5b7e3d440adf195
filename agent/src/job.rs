//! A job from assignment to commitment, one function per role. Each step takes the one before by value, so none can be
//! left out, and what a step no longer needs ends with it.
//!
//! ```text
//! Claim ─ share opens ─→ PromptKey ─ context matches ─→ Prompt ─ engine ─→ Answer ─┬ seal ─→ SealedAnswer
//!                                                                                └ commit ─→ Commitment ─ reveal, once
//! ```

use blf_evidence::UnixTime;

use crate::answer::SealedAnswer;
use crate::commitment::Commitment;
use crate::engine::Engine;
use crate::error::VaultError;
use crate::release::Claim;

/// The leader's part: answer, seal the answer to the user, commit to both.
///
/// # Errors
/// [`VaultError::Job`], [`VaultError::Model`].
pub fn lead(
    claim: Claim,
    sealed_prompt: &[u8],
    engine: &dyn Engine,
    now: UnixTime,
) -> Result<(Commitment, SealedAnswer), VaultError> {
    let answer = claim.release()?.open(sealed_prompt)?.answer(engine, now)?;
    let sealed = answer.seal()?;
    let commitment = answer.commit_sealed(&sealed)?;
    Ok((commitment, sealed))
}

/// A verifier's part: answer, and commit to it without showing it to anybody.
///
/// # Errors
/// [`VaultError::Job`], [`VaultError::Model`].
pub fn verify(
    claim: Claim,
    sealed_prompt: &[u8],
    engine: &dyn Engine,
    now: UnixTime,
) -> Result<Commitment, VaultError> {
    claim.release()?.open(sealed_prompt)?.answer(engine, now)?.commit()
}
