//! The statement and the binding it commits to (architecture decision 1). This is the only definition.
//!
//! ```text
//! statement = node address (20) ‖ SHA-256("blf.binding/v1" ‖ 0x00 ‖ binding) (32) ‖ zero (12)
//! ```
//!
//! On SEV-SNP and TDX the statement is `REPORT_DATA`; with a TPM, SHA-256(statement) is `qualifyingData`.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::json::{self, JsonError};
use crate::{Address, Hex, UnixTime};

/// Longest binding, in bytes.
pub const BINDING_CAP: usize = 16 * 1024;
/// Most models and most egress names a binding may list.
pub const LIST_CAP: usize = 64;

/// What the platform vouches for: 64 bytes, the same on every platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statement(pub Hex<64>);

/// The document behind the statement. Travels verbatim as RFC 8785 canonical JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// A recent block, so that a third party can date the document, or null.
    pub anchor: Option<Anchor>,
    /// Who asked: the DNS name of the ICL, or the address of a user, in lower case or EIP-55.
    pub audience: String,
    /// Random per boot.
    pub boot_id: Hex<16>,
    /// SHA-256 of the operator's public configuration, which travels verbatim in the bundle.
    pub config_sha256: Hex<32>,
    /// Host names the guest may dial.
    pub egress: Vec<String>,
    /// SHA-256 of the GPU evidence, or null without a GPU.
    pub gpu_sha256: Option<Hex<32>>,
    /// The keys born in this guest.
    pub keys: Keys,
    /// The models this guest holds.
    pub models: Vec<Model>,
    /// Chosen by the audience, compared whole.
    pub nonce: Hex<32>,
    /// The binding says nothing after this time.
    pub not_after: UnixTime,
    /// Names the numeric behaviour of the engine: equal profiles give equal bits.
    pub numeric_profile: String,
    /// The measured profile.
    pub profile: Profile,
    /// What the evidence is for.
    pub purpose: Purpose,
    /// Version of this document, 1.
    pub v: u8,
}

/// A block that existed when the binding was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// Block hash.
    pub block_hash: Hex<32>,
    /// Block number.
    pub block_number: u64,
    /// EIP-155 chain id.
    pub chain_id: u64,
}

/// Public halves of the keys that exist only inside the guest (architecture decision 5).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// X25519 public key to which CoFHE seals.
    pub cofhe_sealing: Hex<32>,
    /// X25519 public key for HPKE (RFC 9180).
    pub hpke: Hex<32>,
    /// secp256k1: ICL authentication, permits, chain.
    pub node: Address,
    /// secp256k1: signs answers and API responses.
    pub response: Address,
    /// SHA-256 of the TLS key's SubjectPublicKeyInfo (DER).
    pub tls_spki_sha256: Hex<32>,
}

/// A model and what exactly it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The id that jobs name.
    pub id: String,
    /// SHA-256 of the model pack's canonical manifest.
    pub manifest_sha256: Hex<32>,
}

/// Name and id of a measured profile (architecture decision 4).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// SHA-256 of the profile's canonical JSON, which is part of the measured image.
    pub id: Hex<32>,
    /// `production`, `insecure` or `devnet`.
    pub name: String,
}

/// What evidence is for. Evidence for one purpose is refused for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// To be admitted by an ICL.
    Admission,
    /// For the io.net confidential API.
    Ionet,
    /// For a user who is about to seal a prompt.
    Preview,
    /// For one TLS session.
    Session,
}

impl Binding {
    /// Parses the canonical bytes.
    ///
    /// # Errors
    /// [`JsonError`]: too long, unknown, missing or duplicate member, not canonical, or another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let binding: Self = json::parse_canonical("binding", bytes, BINDING_CAP)?;
        let malformed = |error: String| JsonError::Malformed { what: "binding", error };
        if binding.v != 1 {
            return Err(malformed(format!("v: wanted 1, got {}", binding.v)));
        }
        for (member, got) in [("models", binding.models.len()), ("egress", binding.egress.len())] {
            if got > LIST_CAP {
                return Err(malformed(format!("{member}: wanted at most {LIST_CAP} entries, got {got}")));
            }
        }
        Ok(binding)
    }

    /// The canonical bytes, as text.
    ///
    /// # Errors
    /// [`JsonError::Malformed`] for numbers that JSON cannot carry.
    pub fn to_canonical(&self) -> Result<String, JsonError> {
        json::canonical("binding", self)
    }
}

impl Statement {
    /// The statement of `node` over the verbatim bytes of a binding.
    pub fn new(node: Address, binding: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(b"blf.binding/v1\0").chain_update(binding).finalize();
        let mut bytes = [0; 64];
        bytes[..20].copy_from_slice(&node.0);
        bytes[20..52].copy_from_slice(&digest);
        Self(Hex(bytes))
    }

    /// SHA-256(statement): the TPM's `qualifyingData` (architecture decision 2).
    pub fn qualifying_data(&self) -> [u8; 32] {
        Sha256::digest(self.0.0).into()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Binding {
        Binding {
            anchor: None,
            audience: "icl.devnet.blf.internal".into(),
            boot_id: Hex([1; 16]),
            config_sha256: Hex([2; 32]),
            egress: vec!["icl.devnet.blf.internal".into()],
            gpu_sha256: None,
            keys: Keys {
                cofhe_sealing: Hex([3; 32]),
                hpke: Hex([4; 32]),
                node: Address([5; 20]),
                response: Address([6; 20]),
                tls_spki_sha256: Hex([7; 32]),
            },
            models: vec![Model { id: "blf-tiny-1".into(), manifest_sha256: Hex([8; 32]) }],
            nonce: Hex([9; 32]),
            not_after: UnixTime(1_795_157_973),
            numeric_profile: "candle-f32-v1".into(),
            profile: Profile { id: Hex([10; 32]), name: "devnet".into() },
            purpose: Purpose::Admission,
            v: 1,
        }
    }

    #[test]
    fn round_trip() {
        let text = example().to_canonical().unwrap();
        assert_eq!(text, include_str!("../tests/vectors/binding.json"));
        assert_eq!(Binding::parse(text.as_bytes()).unwrap(), example());
    }

    #[test]
    fn refuses_every_other_spelling() {
        let text = example().to_canonical().unwrap();
        for (name, bad) in [
            ("space", text.replacen(':', ": ", 1)),
            ("duplicate member", text.replacen("\"v\":1", "\"v\":1,\"v\":1", 1)),
            ("unknown member", text.replacen("\"v\":1", "\"v\":1,\"w\":1", 1)),
            ("missing null", text.replacen("\"anchor\":null,", "", 1)),
            ("missing member", text.replacen(",\"v\":1", "", 1)),
            ("other version", text.replacen("\"v\":1", "\"v\":2", 1)),
            ("upper-case hex", text.replacen("0a0a", "0A0a", 1)),
            ("lower-case address", text.replacen("0x0505", "0X0505", 1)),
            ("trailing byte", format!("{text} ")),
            ("reordered", text.replacen("\"purpose\":\"admission\",\"v\":1", "\"v\":1,\"purpose\":\"admission\"", 1)),
        ] {
            assert_ne!(bad, text, "{name}: mutation had no effect");
            assert!(Binding::parse(bad.as_bytes()).is_err(), "{name}");
        }
    }

    #[test]
    fn statement_layout() {
        let text = example().to_canonical().unwrap();
        let statement = Statement::new(Address([5; 20]), text.as_bytes());
        assert_eq!(&statement.0.0[..20], &[5; 20]);
        assert_eq!(&statement.0.0[52..], &[0; 12]);
    }
}
