//! The seam to whoever decides about evidence. The devnet's own is `blf-appraisal`, with the development AK root.

use blf_evidence::bundle::Evidence;
use blf_evidence::statement::Purpose;
use blf_evidence::{Hex, UnixTime};

/// What the evidence must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `audience` of the binding.
    pub audience: String,
    /// `nonce` of the binding.
    pub nonce: Hex<32>,
    /// `purpose` of the binding.
    pub purpose: Purpose,
    /// The time to judge by.
    pub now: UnixTime,
}

/// What an appraiser found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Measurement id, e.g. `tpm-pcr11:` and 64 hex digits.
    pub measurement: String,
    /// Tier 0, 1 or 2 (architecture decision 3).
    pub tier: u8,
}

/// Why evidence or an enrolment is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Reason {
    /// Stable, in capitals.
    pub code: String,
    /// One line: what was wanted and what came.
    pub detail: String,
}

/// A credential for a TPM to open (TPM 2.0 Part 1, section 24).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// TPM2B_ID_OBJECT.
    pub id_object: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET.
    pub encrypted_secret: Vec<u8>,
}

/// Decides whether evidence is genuine and wanted, and makes credentials.
pub trait Appraiser: Send + Sync {
    /// Appraises evidence that was parsed and size-checked.
    ///
    /// # Errors
    /// [`Reason`]: not genuine, or not wanted.
    fn appraise(&self, evidence: &Evidence, question: &Question) -> Result<Verdict, Reason>;

    /// Makes the credential that only the TPM with this EK (TPMT_PUBLIC) and an AK of this Name can open.
    ///
    /// # Errors
    /// [`Reason`]: an EK that cannot be sealed to.
    fn make_credential(&self, ek_public: &[u8], ak_name: &[u8], secret: &[u8; 32]) -> Result<Credential, Reason>;
}
