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
    if status != 200 {
        return Err(refused(VERIFY, status, body));
    }
    let answer: Verified = json::parse(VERIFY, body, VERIFY_CAP)?;
    if answer.status != "success" {
        return Err(refused(VERIFY, status, answer.error.as_deref().unwrap_or("no reason given").as_bytes()));
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
            return Err(refused(what, status, body));
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

/// A refusal with the beginning of its reason, which may be of any length and no text at all.
fn refused(what: &'static str, status: u16, reason: &[u8]) -> PublishError {
    let reason = String::from_utf8_lossy(&reason[..reason.len().min(VERIFY_CAP)]);
    PublishError::Refused { what, status, message: excerpt(&reason) }
}

fn malformed(what: &'static str, error: String) -> PublishError {
    PublishError::Json(JsonError::Malformed { what, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::fill(|bytes| {
            bytes.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
            Ok::<(), ()>(())
        })
        .unwrap()
    }

    fn value(ct_hash: &str, signature: &str, recid: &str) -> String {
        format!(r#"{{"ct_hash":{ct_hash},"signature":"{signature}","recid":{recid}}}"#)
    }

    fn verified(values: &[String]) -> String {
        format!(r#"{{"status":"success","data":[{}],"error":null}}"#, values.join(","))
    }

    #[test]
    fn clear_inputs_are_these_bytes() {
        let list = ClearInputs.packed_list(&key(), Address([0xaa; 20]), 421_614).unwrap();
        let wanted =
            [b"blf.clear/v1\0\0".as_slice(), &[0xaa; 20], &[0; 29], &[0x06, 0x6e, 0xee], key().expose()].concat();
        assert_eq!(list.expose(), wanted);
        let body = verify_body(&list, Address([0x11; 20]), 421_614).unwrap();
        let wanted = format!(
            r#"{{"packed_list":"{}","account_addr":"0x1111111111111111111111111111111111111111","security_zone":0,"chain_id":421614}}"#,
            hex::encode(wanted)
        );
        assert_eq!(std::str::from_utf8(body.expose()).unwrap(), wanted);
    }

    #[test]
    fn tfhe_inputs_are_an_error_and_no_list() {
        let result = TfheInputs.packed_list(&key(), Address([0xaa; 20]), 421_614);
        assert_eq!(result.err(), Some(PublishError::NotBuilt));
        assert!(PublishError::NotBuilt.to_string().contains("tfhe"));
    }

    #[test]
    fn a_verified_input_in_every_form() {
        let digits = "ab".repeat(64);
        for (ct_hash, signature) in [("258", &digits), ("\"258\"", &digits), ("\"0x102\"", &format!("0x{digits}"))] {
            let body = verified(&[value(ct_hash, signature, "0"), value("\"7\"", &digits, "1")]);
            let [high, low] = verify_answer(200, body.as_bytes()).unwrap();
            assert_eq!((high.ct_hash, low.ct_hash), ("258".parse().unwrap(), "7".parse().unwrap()));
            assert_eq!((high.signature[64], low.signature[64], high.signature.len()), (27, 28, 65));
            let json = serde_json::to_string(&high).unwrap();
            let wanted = format!(r#"{{"ctHash":"258","securityZone":0,"utype":6,"signature":"0x{digits}1b"}}"#);
            assert_eq!(json, wanted, "as a leader sends it");
            assert_eq!(serde_json::from_str::<EncryptedInput>(&json).unwrap(), high);
            let input = Input::from(&high);
            assert_eq!((input.ct_hash, input.security_zone, input.utype), (high.ct_hash.0, 0, 6));
            assert_eq!(input.signature, high.signature);
        }
    }

    #[test]
    fn a_verifier_that_refuses() {
        let refused =
            |status, message: &str| Err(PublishError::Refused { what: "verifier", status, message: message.into() });
        assert_eq!(verify_answer(400, b"bad\nproof"), refused(400, r"bad\u{a}proof"));
        assert_eq!(verify_answer(204, b""), refused(204, ""));
        assert_eq!(verify_answer(200, br#"{"status":"error","error":"bad proof"}"#), refused(200, "bad proof"));
        assert_eq!(verify_answer(200, br#"{"status":"error"}"#), refused(200, "no reason given"));
    }

    #[test]
    fn answers_of_another_form_are_refused() {
        let good = value("1", &"ab".repeat(64), "0");
        for (wanted, body) in [
            ("wanted a JSON object", String::new()),
            ("wanted at most 16384 bytes", " ".repeat(VERIFY_CAP + 1)),
            ("missing field `status`", "{}".into()),
            ("data: wanted 2 values, got 0", r#"{"status":"success"}"#.into()),
            ("data: wanted 2 values, got 1", verified(std::slice::from_ref(&good))),
            ("data: wanted 2 values, got 3", verified(&[good.clone(), good.clone(), good.clone()])),
            ("handle: wanted", verified(&[good.clone(), value("\"ff\"", &"ab".repeat(64), "0")])),
            ("signature: wanted 64 bytes", verified(&[good.clone(), value("1", &"ab".repeat(65), "0")])),
            ("signature: wanted 64 bytes", verified(&[value("1", "zz", "0"), good.clone()])),
            ("recid: wanted 0 or 1, got 2", verified(&[good.clone(), value("1", &"ab".repeat(64), "2")])),
            ("invalid value", verified(&[good.clone(), value("1", &"ab".repeat(64), "-1")])),
        ] {
            let error = verify_answer(200, body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn only_the_measured_keys_of_the_network() {
        let pin = Some(Hex(Sha256::digest([1, 2, 3]).into()));
        let crs = br#"{"crs":"010203"}"#;
        assert_eq!(NetworkKey::Crs.read(200, crs, pin).unwrap(), [1, 2, 3]);
        assert_eq!(NetworkKey::PublicKey.read(200, br#"{"publicKey":"0x010203"}"#, pin).unwrap(), [1, 2, 3]);
        assert_eq!(NetworkKey::Crs.read(200, crs, None), Err(PublishError::Unpinned { key: NetworkKey::Crs }));
        let other = NetworkKey::Crs.read(200, br#"{"crs":"010204"}"#, pin);
        assert!(matches!(other, Err(PublishError::Pin { key: NetworkKey::Crs, .. })));
        assert!(matches!(NetworkKey::Crs.read(500, b"", pin), Err(PublishError::Refused { status: 500, .. })));
        for (wanted, body) in [
            ("wanted publicKey", r#"{"crs":"01"}"#),
            ("wanted hex digits", r#"{"publicKey":"0"}"#),
            ("wanted a JSON", ""),
        ] {
            let error = NetworkKey::PublicKey.read(200, body.as_bytes(), pin).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    /// Recorded from the published Python node 0.3.5 (protocol section 4): the id's text is hashed, not its bytes.
    #[test]
    fn output_key_job_id_equals_the_published_node() {
        let job = format!("0x{}", "ab".repeat(32));
        let wanted = "2f2696379b61d1bd2b4da412c36501a34d1281d0e182821ca02d5140728cc9b0";
        assert_eq!(output_key_job_id(&job).to_string(), wanted);
        assert_ne!(output_key_job_id(&"ab".repeat(32)).to_string(), wanted);
    }
}
