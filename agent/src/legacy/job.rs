//! A job of the existing network from claim to what is kept for its end; the chain of `crate::job` with CoFHE's halves for a
//! share, and without a context: nothing in the prompt says for whom it is.
//!
//! ```text
//! Claim ─ halves open ─→ key ─ blob opens ─→ prompt ─ engine ─→ text ─┬ leader:   sealed, committed ─→ Led
//!                                                                     └ verifier: kept ─→ Verified
//! ```

use std::sync::Arc;

use blf_bridge::cofhe::{ClearInputs, KeyPublish as _, TfheInputs, verify_body};
use blf_bridge::prompt::PromptError;
use blf_bridge::release::{CofheRelease, KeyRelease as _};
use blf_bridge::{Key, OpenError, Secret, blob, cid, legacy};
use blf_evidence::job::{ANSWER_CAP, PROMPT_CAP, Role};
use blf_evidence::profile::Inputs;
use blf_evidence::{Address, Hex, UnixTime};
use sha2::{Digest as _, Sha256};

use super::frames::{Input, Output};
use super::mock;
use super::wire::JobId;
use crate::answer::ENGINE_DEADLINE;
use crate::engine::Engine;
use crate::error::{JobError, VaultError};
use crate::frames::Boxes;
use crate::keys::Generation;
use crate::release::HeldModel;

/// A job that this node and its models may do now.
pub(crate) struct Claim {
    pub(crate) job: JobId,
    pub(crate) user: Address,
    pub(crate) model: Model,
    pub(crate) boxes: Boxes,
    /// Has the key to which the boxes are sealed.
    pub(crate) generation: Arc<Generation>,
}

/// Who answers.
pub(crate) enum Model {
    /// The engine, with at most so many tokens.
    Held(u32),
    /// [`mock::MODEL`].
    Mock,
}

/// What is kept of a job until its end.
pub(crate) struct Done {
    pub(crate) until: UnixTime,
    pub(crate) part: Part,
}

/// By role.
pub(crate) enum Part {
    Led(Box<Led>),
    Verified(Verified),
}

/// A leader's.
pub(crate) struct Led {
    pub(crate) job: JobId,
    pub(crate) user: Address,
    pub(crate) cid: String,
    pub(crate) commitment: Hex<32>,
    /// Transactions signed for it.
    pub(crate) transactions: u8,
    /// What the last one stores, and its hash.
    pub(crate) stored: Option<([Input; 2], Hex<32>)>,
}

/// A verifier's: the text, because it is committed to with the leader's CID, which comes later.
pub(crate) struct Verified {
    pub(crate) job: JobId,
    pub(crate) text: Secret,
}

/// For whom an output key is encrypted.
pub(crate) struct Publisher {
    pub(crate) inputs: Inputs,
    /// Who will call the contract.
    pub(crate) account: Address,
    pub(crate) chain_id: u64,
}

impl Model {
    /// The model that `id` names; no id leads to another.
    pub(crate) fn named(id: &str, held: &[HeldModel]) -> Option<Self> {
        if id == mock::MODEL {
            return Some(Self::Mock);
        }
        held.iter().find(|model| model.id == id).map(|model| Self::Held(model.max_new_tokens))
    }
}

impl Claim {
    /// Opens, asks, and seals what came.
    pub(crate) fn run(
        self,
        role: Role,
        blob: &[u8],
        engine: &dyn Engine,
        publisher: &Publisher,
    ) -> Result<(Part, Option<Output>), VaultError> {
        let Self { job, user, model, boxes, generation } = self;
        let text = {
            let release = CofheRelease { key: generation.sealing(), high: &boxes.high, low: &boxes.low };
            let key = release.release().map_err(JobError::Release)?;
            let prompt = blob::open(&key, blob).map_err(|error| JobError::Prompt(error.into()))?;
            ask(&prompt, &model, engine)?
        };
        match role {
            Role::Leader => {
                let key = Key::random().map_err(JobError::Answer)?;
                let blob = blob::seal(&key, &text).map_err(JobError::Answer)?;
                let cid = cid::of(&blob);
                let verify = publisher.verify_body(&key)?;
                let commitment = legacy::commitment(&cid, &text);
                let led = Led { job, user, cid: cid.clone(), commitment, transactions: 0, stored: None };
                Ok((Part::Led(Box::new(led)), Some(Output { cid, blob, verify: verify.expose().to_vec() })))
            }
            Role::Verifier => Ok((Part::Verified(Verified { job, text }), None)),
        }
    }
}

impl Publisher {
    fn verify_body(&self, key: &Key) -> Result<Secret, JobError> {
        let list = match self.inputs {
            Inputs::Clear => ClearInputs.packed_list(key, self.account, self.chain_id),
            Inputs::Tfhe => TfheInputs.packed_list(key, self.account, self.chain_id),
        };
        list.and_then(|list| verify_body(&list, self.account, self.chain_id)).map_err(JobError::Publish)
    }
}

impl Verified {
    /// What this node committed to, and whether the leader did to the same. A rejection carries a commitment that no other
    /// node sends: the coordinator counts equal ones and reads no verdict, so that two equal rejections would accept.
    pub(crate) fn judge(&self, node: Address, cid: &str, stored: bool, leader: &str) -> Result<Hex<32>, Hex<32>> {
        let ours = legacy::commitment(cid, &self.text);
        if stored && ours.to_string() == leader {
            return Ok(ours);
        }
        let hash = Sha256::new().chain_update(b"blf.reject/v1\0").chain_update(node.0).chain_update(ours.0);
        Err(Hex(hash.finalize().into()))
    }
}

fn ask(prompt: &Secret, model: &Model, engine: &dyn Engine) -> Result<Secret, VaultError> {
    let bytes = prompt.expose();
    if bytes.is_empty() || bytes.len() > PROMPT_CAP || std::str::from_utf8(bytes).is_err() {
        return Err(JobError::Prompt(PromptError::Text).into());
    }
    let text = match model {
        Model::Held(max_new_tokens) => engine.answer(prompt, *max_new_tokens, ENGINE_DEADLINE)?,
        Model::Mock => legacy::mock_output(mock::MODEL, prompt),
    };
    match text.expose().len() {
        0..=ANSWER_CAP => Ok(text),
        got => Err(JobError::Answer(OpenError::Length { min: 0, max: ANSWER_CAP, got }).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_id_leads_to_the_mock() {
        let held = [HeldModel { manifest_sha256: Hex([1; 32]), id: "tiny".into(), max_new_tokens: 7 }];
        assert!(matches!(Model::named("tiny", &held), Some(Model::Held(7))));
        assert!(matches!(Model::named("mock", &held), Some(Model::Mock)));
        for other in ["", "Mock", "mock ", "facebook/opt-125m"] {
            assert!(Model::named(other, &held).is_none(), "{other}");
        }
    }

    #[test]
    fn a_rejection_equals_no_commitment() {
        let verified = Verified { job: "j".to_owned().try_into().unwrap(), text: Secret::new(b"yes".to_vec()) };
        let (one, other) = (Address([1; 20]), Address([2; 20]));
        let ours = legacy::commitment("QmX", &verified.text);
        assert_eq!(verified.judge(one, "QmX", true, &ours.to_string()), Ok(ours));
        let rejections = [
            verified.judge(one, "QmX", false, &ours.to_string()),
            verified.judge(one, "QmX", true, &format!("0x{ours}")),
            verified.judge(one, "QmY", true, &ours.to_string()),
        ];
        assert!(rejections.iter().all(|r| r.is_err_and(|hash| hash != ours)), "{rejections:?}");
        assert_ne!(rejections[0], verified.judge(other, "QmX", false, &ours.to_string()));
    }
}
