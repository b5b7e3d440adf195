//! The verifier: reads a list of inputs for an account, encrypts them, and signs each so that this account may store it.
//!
//! ```text
//! clear list = "blf.clear/v1\0" ‖ security zone (1) ‖ account (20) ‖ chain id (32) ‖ values (16 each), big-endian
//! ```
//!
//! In the real list a zero-knowledge proof binds the same metadata; here they stand before the values.

use blf_evidence::Address;
use blf_evidence::eip191::Signature;
use k256::ecdsa::SigningKey;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Knobs, Refusal, internal, parse};
use crate::chain::{self, Chain, Input, Plain, UINT128};
use crate::development;
use crate::refusal::one_line;

/// First bytes of a clear list.
const MAGIC: &[u8; 13] = b"blf.clear/v1\0";
/// Most bits that one list proves.
const BITS: usize = 2048;

/// What the verifier says.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Verify {
    /// What is true.
    #[default]
    Right,
    /// Status 200 and this error.
    Fails(String),
    /// This status.
    Refuses(u16),
    /// Signatures of another key, which no contract accepts.
    OtherKey,
    /// One input too few.
    OneMissing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    packed_list: String,
    account_addr: String,
    security_zone: u8,
    chain_id: u64,
}

pub(super) fn answer(chain: &Chain, knobs: &Knobs, (method, path): (&str, &str), body: &[u8]) -> Answer {
    if (method, path) != ("POST", "/verify") {
        return failure(404, "wanted POST /verify");
    }
    match &knobs.verify {
        Verify::Fails(error) => return failure(200, error),
        Verify::Refuses(status) => return failure(*status, "the verifier refuses, as it was told to"),
        Verify::Right | Verify::OtherKey | Verify::OneMissing => {}
    }
    match verify(chain, &knobs.verify, body) {
        Ok(data) => Answer::json(200, &json!({ "status": "success", "data": data, "error": null })),
        Err((status, error)) => failure(status, &error),
    }
}

fn verify(chain: &Chain, mode: &Verify, body: &[u8]) -> Result<Vec<Value>, Refusal> {
    let bad = |error: String| (400, error);
    let request: Request = parse(body)?;
    let account =
        chain::address(&request.account_addr).ok_or_else(|| bad("account_addr: wanted 0x and 40 hex digits".into()))?;
    let mut values = values(chain, &request, account).map_err(bad)?;
    if *mode == Verify::OneMissing {
        values.pop();
    }
    let key = match mode {
        Verify::OtherKey => SigningKey::from_slice(&[7; 32]).map_err(internal)?,
        _ => development::verifier_key().map_err(internal)?,
    };
    let chain_id = request.chain_id;
    let signed = values.iter().map(|value| {
        let ct_hash = chain.encrypt(value).map_err(internal)?;
        let input = Input { ct_hash, security_zone: request.security_zone, utype: UINT128, signature: Vec::new() };
        let Signature(signature) = Signature::sign_digest(&key, &chain::input_digest(&input, account, chain_id));
        let [ct_hash, rs] = [&ct_hash[..], &signature[..64]].map(|bytes| format!("0x{}", hex::encode(bytes)));
        Ok(json!({ "ct_hash": ct_hash, "signature": rs, "recid": signature[64] - 27 }))
    });
    signed.collect()
}

/// The values of a list that is for this account on this chain. Its bytes appear in no error.
fn values(chain: &Chain, request: &Request, account: Address) -> Result<Vec<Plain>, String> {
    let chain_id = chain.domain().chain_id;
    if request.chain_id != chain_id {
        return Err(format!("chain_id: wanted {chain_id}, got {}", request.chain_id));
    }
    if request.security_zone != 0 {
        return Err(format!("security_zone: wanted 0, got {}", request.security_zone));
    }
    let list = hex::decode(&request.packed_list).map_err(|_| "packed_list: wanted hex digits")?;
    let list = list.strip_prefix(MAGIC).ok_or("packed_list: wanted blf.clear/v1: this network is in clear mode")?;
    let mut metadata = vec![request.security_zone];
    metadata.extend(account.0);
    metadata.extend([0; 24]);
    metadata.extend(chain_id.to_be_bytes());
    let wanted = "packed_list: wanted the security zone, account and chain id of the request";
    let values = list.strip_prefix(metadata.as_slice()).ok_or(wanted)?;
    let (values, rest) = values.as_chunks::<16>();
    if values.is_empty() || values.len() * 128 > BITS || !rest.is_empty() {
        return Err(format!("packed_list: wanted 1 to {} values of 16 bytes", BITS / 128));
    }
    Ok(values.iter().map(|value| Plain(*value)).collect())
}

fn failure(status: u16, error: &str) -> Answer {
    Answer::json(status, &json!({ "status": "failure", "data": [], "error": one_line(error) }))
}
