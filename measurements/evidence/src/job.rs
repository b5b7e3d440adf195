//! What a job says: for whom a prompt is meant, who may open it, what an answer commits to.
//!
//! Formats only; sealing and opening are in `blf-bridge`.

use serde::{Deserialize, Serialize};

use crate::json::{self, JsonError};
use crate::{Address, Hex, UnixTime};

/// Longest job context, in bytes.
pub const CONTEXT_CAP: usize = 8 * 1024;
/// Most measurement ids a job may accept.
pub const MEASUREMENTS_CAP: usize = 16;
/// Longest prompt text, in bytes of UTF-8.
pub const PROMPT_CAP: usize = 64 * 1024;
/// Longest answer text, in bytes of UTF-8.
pub const ANSWER_CAP: usize = 64 * 1024;

/// For whom a prompt is meant (architecture decision 7).
///
/// Its canonical bytes are sealed inside the prompt and are the `aad` of every key share, so a blob cannot be
/// replayed under another name: every role compares it before inference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobContext {
    /// Where CoFHE keeps the other share of the prompt key; null for a job whose key is in the HPKE shares alone.
    pub cofhe: Option<CofheShare>,
    /// Chosen by the user at random, so that the prompt can name it before the ICL knows it.
    pub job_id: Hex<32>,
    /// Accepted measurement ids, as `tpm-pcr11:` + 64 hex digits, `snp:` or `tdx:` + 96.
    pub measurements: Vec<String>,
    /// Most tokens to generate.
    pub max_new_tokens: u32,
    /// SHA-256 of the canonical manifest of the model that must answer.
    pub model_manifest_sha256: Hex<32>,
    /// Refused after this time.
    pub not_after: UnixTime,
    /// X25519 public key to which the answer key is sealed.
    pub reply_hpke: Hex<32>,
    /// The user's account.
    pub user: Address,
    /// Version of this document, 1.
    pub v: u8,
}

/// Handles of a share of the prompt key that CoFHE holds: prompt key = HPKE share XOR this (architecture decision 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CofheShare {
    /// Handle of the first 16 bytes, 32 bytes big-endian.
    pub high: Hex<32>,
    /// Handle of the last 16 bytes.
    pub low: Hex<32>,
}

/// A 32-byte key sealed with HPKE (RFC 9180, base mode, suite 0x0020 0x0001 0x0002).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedKey {
    /// Encapsulated key.
    pub enc: Hex<32>,
    /// Ciphertext and tag.
    pub ct: Hex<48>,
}

/// A share of the prompt key for one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The node that can open it.
    pub node: Address,
    /// The HPKE key it is sealed to, from that node's evidence.
    pub hpke: Hex<32>,
    /// The share.
    pub key: SealedKey,
}

/// What the leader publishes about an answer, signed with its response key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The job.
    pub job_id: Hex<32>,
    /// Keyed commitment to the text (architecture decision 8).
    pub commitment: Hex<32>,
    /// CID of the sealed answer, at most 128 characters of its alphabets.
    #[serde(deserialize_with = "crate::icl::name")]
    pub output_cid: String,
    /// The answer key, sealed to the user's reply key.
    pub output_key: SealedKey,
    /// The leader's response address.
    pub response: Address,
    /// Version of this document, 1.
    pub v: u8,
}

/// A node's part in a quorum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs the model and publishes the sealed answer.
    Leader,
    /// Runs the model and confirms or rejects the leader's commitment.
    Verifier,
}

/// What a verifier says of the leader's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// The commitments are equal.
    Confirm,
    /// They differ.
    Reject,
}

impl JobContext {
    /// Parses the canonical bytes.
    ///
    /// # Errors
    /// [`JsonError`]: too long, unknown, missing or duplicate member, not canonical, out of range.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let context: Self = json::parse_canonical("job context", bytes, CONTEXT_CAP)?;
        let malformed = |error: String| JsonError::Malformed { what: "job context", error };
        if context.v != 1 {
            return Err(malformed(format!("v: wanted 1, got {}", context.v)));
        }
        if context.measurements.is_empty() || context.measurements.len() > MEASUREMENTS_CAP {
            let got = context.measurements.len();
            return Err(malformed(format!("measurements: wanted 1 to {MEASUREMENTS_CAP} entries, got {got}")));
        }
        Ok(context)
    }

    /// The canonical bytes, as text.
    ///
    /// # Errors
    /// [`JsonError::Malformed`] for numbers that JSON cannot carry.
    pub fn to_canonical(&self) -> Result<String, JsonError> {
        json::canonical("job context", self)
    }
}

impl Verdict {
    /// The text that a verifier's response key signs: `blf.verdict/v1`, the job, the leader's commitment that is judged,
    /// and CONFIRM or REJECT, a line each.
    pub fn signed_text(self, job: &Hex<32>, commitment: &Hex<32>) -> String {
        let word = match self {
            Self::Confirm => "CONFIRM",
            Self::Reject => "REJECT",
        };
        format!("blf.verdict/v1\n{job}\n{commitment}\n{word}")
    }
}

impl Answer {
    /// The text that the response key signs: `blf.answer/v1`, a newline, the canonical document.
    ///
    /// # Errors
    /// [`JsonError::Malformed`] for another version: nobody signs or checks what it does not know.
    pub fn signed_text(&self) -> Result<String, JsonError> {
        if self.v != 1 {
            return Err(JsonError::Malformed { what: "answer", error: format!("v: wanted 1, got {}", self.v) });
        }
        Ok(format!("blf.answer/v1\n{}", json::canonical("answer", self)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_one_version_and_a_plain_cid() {
        let key = SealedKey { enc: Hex([1; 32]), ct: Hex([2; 48]) };
        let good = Answer {
            job_id: Hex([3; 32]),
            commitment: Hex([4; 32]),
            output_cid: "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e".into(),
            output_key: key,
            response: Address([5; 20]),
            v: 1,
        };
        let parse = |answer: &Answer| {
            let text = json::canonical("answer", answer).unwrap();
            json::parse_canonical::<Answer>("answer", text.as_bytes(), 4096)
        };
        assert_eq!(parse(&good).as_ref(), Ok(&good));
        assert!(good.signed_text().unwrap().starts_with("blf.answer/v1\n{\"commitment\""));
        let other = Answer { v: 2, ..good.clone() };
        assert!(other.signed_text().unwrap_err().to_string().contains("v: wanted 1, got 2"));
        for cid in ["", "../../etc/passwd", "a\nb", &"a".repeat(129)] {
            assert!(parse(&Answer { output_cid: cid.into(), ..good.clone() }).is_err(), "{cid:?}");
        }
    }

    #[test]
    fn a_verdict_is_signed_over_what_it_judges() {
        let (job, commitment) = (Hex([1; 32]), Hex([2; 32]));
        let text = Verdict::Confirm.signed_text(&job, &commitment);
        assert_eq!(text, format!("blf.verdict/v1\n{job}\n{commitment}\nCONFIRM"));
        assert!(Verdict::Reject.signed_text(&job, &commitment).ends_with("\nREJECT"));
    }

    #[test]
    fn a_context_of_another_form_is_refused() {
        let good = JobContext {
            cofhe: None,
            job_id: Hex([1; 32]),
            measurements: vec!["tpm-pcr11:00".into()],
            max_new_tokens: 64,
            model_manifest_sha256: Hex([2; 32]),
            not_after: UnixTime(9),
            reply_hpke: Hex([3; 32]),
            user: Address([4; 20]),
            v: 1,
        };
        let parse = |context: &JobContext| JobContext::parse(context.to_canonical().unwrap().as_bytes());
        assert_eq!(parse(&good).as_ref(), Ok(&good));
        let shared = JobContext { cofhe: Some(CofheShare { high: Hex([5; 32]), low: Hex([6; 32]) }), ..good.clone() };
        assert_eq!(parse(&shared).as_ref(), Ok(&shared));
        assert!(parse(&JobContext { v: 2, ..good.clone() }).is_err());
        assert!(parse(&JobContext { measurements: vec![], ..good.clone() }).is_err());
        assert!(parse(&JobContext { measurements: vec!["x".into(); MEASUREMENTS_CAP + 1], ..good.clone() }).is_err());
        assert!(parse(&JobContext { measurements: vec!["x".repeat(CONTEXT_CAP)], ..good.clone() }).is_err());
        let text = good.to_canonical().unwrap();
        for bad in [
            text.replacen(':', ": ", 1),
            text.replacen("\"cofhe\":null,", "", 1),
            text.replacen("\"v\":1", "\"v\":1,\"v\":1", 1),
            text.to_uppercase(),
        ] {
            assert_ne!(bad, text);
            assert!(JobContext::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
