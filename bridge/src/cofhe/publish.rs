//! How a key gets into the network: two inputs that the verifier signs, which a contract then stores under handles.
//!
//! ```text
//! key ─ KeyPublish ─→ packed list ─ POST /verify ─→ ct_hash, signature, recid ─→ [EncryptedInput; 2] ─→ storeKey
//! ```
//!
//! Open it later with the handles that the contract stored, never with `ct_hash`.

use blf_contracts::prompt_key_store::Input;
use blf_evidence::json::{self, JsonError, excerpt};
use blf_evidence::{Address, Hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Handle, prefixed, split};
use crate::{Key, Secret};

/// The security zone of all inputs.
pub const SECURITY_ZONE: u8 = 0;
/// The type of an encrypted `uint128`.
pub const UINT128: u8 = 6;
/// Path of the verifier's API.
pub const VERIFY_PATH: &str = "/verify";
/// Longest answer of the verifier that is read, in bytes.
pub const VERIFY_CAP: usize = 16 * 1024;

/// Makes of a key what the verifier takes.
pub trait KeyPublish {
    /// The packed list of both halves, high first, for `account`: the one that will call the contract.
    ///
    /// # Errors
    /// [`PublishError`].
    fn packed_list(&self, key: &Key, account: Address, chain_id: u64) -> Result<Secret, PublishError>;
}

/// Inputs that are not encrypted: for the devnet's verifier, which keeps values in the clear.
///
/// ```text
/// "blf.clear/v1" ‖ 0x00 ‖ security zone (1) ‖ account (20) ‖ chain id (32, big-endian) ‖ high (16) ‖ low (16)
/// ```
pub struct ClearInputs;

/// Inputs as the network takes them: a proven compact ciphertext list of tfhe-rs.
pub struct TfheInputs;

/// An input with the verifier's signature: Solidity's `InEuint128`, and what a leader sends with its result.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EncryptedInput {
    /// Hash of the ciphertext.
    pub ct_hash: Handle,
    /// [`SECURITY_ZONE`].
    pub security_zone: u8,
    /// [`UINT128`].
    pub utype: u8,
    /// r ‖ s ‖ v, 65 bytes.
    #[serde(with = "prefixed")]
    pub signature: Vec<u8>,
}

/// A key of the network that inputs are encrypted with. Whoever can exchange it reads every input, so it is believed
/// by the hash in the measured profile only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkKey {
    /// `CompactPkeCrs`.
    Crs,
    /// `CompactPublicKey`.
    PublicKey,
}

/// Why a key is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// An answer of another form.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// This build cannot encrypt.
    #[error(
        "tfhe inputs: this build lacks tfhe-rs, which encrypts and proves them; only clear inputs can be published"
    )]
    NotBuilt,
    /// A key of the network that is not the measured one.
    #[error("{}: wanted sha256 {wanted}, got {got}", key.path())]
    Pin {
        /// Which key.
        key: NetworkKey,
        /// What the profile says.
        wanted: Hex<32>,
        /// What came.
        got: Hex<32>,
    },
    /// A key of the network of which the profile says nothing.
    #[error("{}: the profile names no sha256", key.path())]
    Unpinned {
        /// Which key.
        key: NetworkKey,
    },
    /// The verifier, or who gives the network's keys, refused.
    #[error("{what}: status {status}: {message}")]
    Refused {
        /// Who refused.
        what: &'static str,
        /// HTTP status; 200 for an answer that says so itself.
        status: u16,
        /// An excerpt of its reason.
        message: String,
    },
}

impl KeyPublish for ClearInputs {
    fn packed_list(&self, key: &Key, account: Address, chain_id: u64) -> Result<Secret, PublishError> {
        let [high, low] = split(key);
        let mut list = Vec::with_capacity(CLEAR_LABEL.len() + 1 + 20 + 32 + 32); // no copy is left behind
        list.extend_from_slice(CLEAR_LABEL);
        list.push(SECURITY_ZONE);
        list.extend_from_slice(&account.0);
        list.extend_from_slice(&[0; 24]);
        list.extend_from_slice(&chain_id.to_be_bytes());
        list.extend_from_slice(high.expose());
        list.extend_from_slice(low.expose());
        Ok(Secret::new(list))
    }
}

impl KeyPublish for TfheInputs {
    fn packed_list(&self, _: &Key, _: Address, _: u64) -> Result<Secret, PublishError> {
        Err(PublishError::NotBuilt)
    }
}

/// The body of a request to the verifier.
///
/// # Errors
/// [`PublishError::Json`], for no list.
pub fn verify_body(list: &Secret, account: Address, chain_id: u64) -> Result<Secret, PublishError> {
    let packed_list = zeroize::Zeroizing::new(hex::encode(list.expose()));
    let request = Verify { packed_list: &packed_list, account_addr: account, security_zone: SECURITY_ZONE, chain_id };
    let body = serde_json::to_vec(&request).map_err(|e| malformed(VERIFY, e.to_string()))?;
    Ok(Secret::new(body))
}

/// Reads the verifier's answer: the two inputs, high first, as a contract and a coordinator take them.
///
/// # Errors
/// [`PublishError::Refused`], [`PublishError::Json`].
pub fn verify_answer(status: u16, body: &[u8]) -> Result<[EncryptedInput; 2], PublishError> {
    let refused = |message| Err(PublishError::Refused { what: VERIFY, status, message });
    if status != 200 {
        return refused(excerpt(&String::from_utf8_lossy(&body[..body.len().min(VERIFY_CAP)])));
    }
    let answer: Verified = json::parse(VERIFY, body, VERIFY_CAP)?;
    if answer.status != "success" {
        return refused(excerpt(answer.error.as_deref().unwrap_or("no reason given")));
    }
    let values = answer.data.unwrap_or_default();
    let count = values.len();
    let Ok([high, low]) = <[Value; 2]>::try_from(values) else {
        return Err(malformed(VERIFY, format!("data: wanted 2 values, got {count}")));
    };
    Ok([high.input()?, low.input()?])
}

impl From<&EncryptedInput> for Input {
    fn from(input: &EncryptedInput) -> Self {
        let EncryptedInput { ct_hash, security_zone, utype, signature } = input;
        Self { ct_hash: ct_hash.0, security_zone: *security_zone, utype: *utype, signature: signature.clone() }
    }
}

impl NetworkKey {
    /// Body of the `POST` that asks for it.
    pub const BODY: &'static str = r#"{"securityZone":0}"#;
    /// Longest answer that is read, in bytes: a CRS of 2048 bits takes 9.2 MB of digits.
    pub const CAP: usize = 32 * 1024 * 1024;

    /// Path of the request.
    pub fn path(self) -> &'static str {
        match self {
            Self::Crs => "/GetCrs",
            Self::PublicKey => "/GetNetworkPublicKey",
        }
    }

    /// Reads the answer and compares the key's SHA-256 with the measured one.
    ///
    /// # Errors
    /// [`PublishError::Unpinned`], [`PublishError::Refused`], [`PublishError::Json`], [`PublishError::Pin`].
    pub fn read(self, status: u16, body: &[u8], wanted: Option<Hex<32>>) -> Result<Vec<u8>, PublishError> {
        let what = self.path();
        let wanted = wanted.ok_or(PublishError::Unpinned { key: self })?;
        if status != 200 {
            let message = excerpt(&String::from_utf8_lossy(&body[..body.len().min(VERIFY_CAP)]));
            return Err(PublishError::Refused { what, status, message });
        }
        let answer: NetworkKeyAnswer = json::parse(what, body, Self::CAP)?;
        let (member, digits) = match self {
            Self::Crs => ("crs", answer.crs),
            Self::PublicKey => ("publicKey", answer.public_key),
        };
        let digits = digits.ok_or_else(|| malformed(what, format!("wanted {member}")))?;
        let bytes = hex::decode(digits.strip_prefix("0x").unwrap_or(&digits))
            .map_err(|_| malformed(what, format!("{member}: wanted hex digits")))?;
        let got = Hex(Sha256::digest(&bytes).into());
        if wanted == got { Ok(bytes) } else { Err(PublishError::Pin { key: self, wanted, got }) }
    }
}

/// The id under which a leader stores the key of its answer, of the job's id as the coordinator spells it.
pub fn output_key_job_id(job: &str) -> Hex<32> {
    Hex(alloy_primitives::keccak256(format!("{job}:output-key")).0)
}

const CLEAR_LABEL: &[u8] = b"blf.clear/v1\0";
const VERIFY: &str = "verifier";

#[derive(Serialize)]
struct Verify<'a> {
    packed_list: &'a str,
    account_addr: Address,
    security_zone: u8,
    chain_id: u64,
}

/// The verifier's answer; members that are not named here are ignored.
#[derive(Deserialize)]
struct Verified {
    status: String,
    data: Option<Vec<Value>>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Value {
    ct_hash: Handle,
    signature: String,
    recid: u8,
}

#[derive(Deserialize)]
struct NetworkKeyAnswer {
    crs: Option<String>,
    #[serde(rename = "publicKey")]
    public_key: Option<String>,
}

impl Value {
    fn input(self) -> Result<EncryptedInput, PublishError> {
        let Self { ct_hash, signature, recid } = self;
        let mut bytes = [0; 65];
        let digits = signature.strip_prefix("0x").unwrap_or(&signature);
        hex::decode_to_slice(digits, &mut bytes[..64]).map_err(|_| {
            malformed(VERIFY, format!("signature: wanted 64 bytes in hex, got {}", excerpt(&signature)))
        })?;
        if recid > 1 {
            return Err(malformed(VERIFY, format!("recid: wanted 0 or 1, got {recid}")));
        }
        bytes[64] = 27 + recid;
        Ok(EncryptedInput { ct_hash, security_zone: SECURITY_ZONE, utype: UINT128, signature: bytes.to_vec() })
    }
}

fn malformed(what: &'static str, error: String) -> PublishError {
    PublishError::Json(JsonError::Malformed { what, error })
}
