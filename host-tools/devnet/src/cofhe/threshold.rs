//! The threshold network: shows a value to whom the ACL lets, sealed to the key in their permit.
//!
//! `POST /v2/sealoutput` with handle, chain and permit; then `GET /v2/sealoutput/{id}` until it is done.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use blf_evidence::{Hex, UnixTime};
use crypto_box::aead::AeadInPlace as _;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Knobs, Refusal, internal, parse};
use crate::blobs::iso_8601;
use crate::chain::{self, Chain, Permission, Plain, UINT128, Word};

/// Requests kept, and handles whose submits are counted; the oldest go first.
const KEPT: usize = 4096;
/// The submit path.
const PATH: &str = "/v2/sealoutput";

/// The answer to a submit whose permit holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Submit {
    /// 200 with the box.
    AtOnce(Shape),
    /// 200 with a request id, which is processed for so many polls.
    Later {
        /// Polls answered `PROCESSING` and `is_succeed: false`, which means nothing yet.
        processing: u32,
        /// The poll after them, and every later one.
        end: End,
    },
    /// 200 and `is_succeed: false` with this message.
    Fails(String),
    /// 204: known, not computed yet.
    NotYet,
    /// This status with a message; 404 is how the network says that it has not seen the ciphertext.
    Refused(u16),
}

/// How a box that comes at once is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// As `sealed_data`, `ephemeral_public_key` and `nonce`.
    Flat,
    /// As `sealed`.
    Nested,
}

/// How processing ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// `COMPLETED` and `is_succeed: false` with this message.
    Fails(String),
    /// 404: the request expired.
    Gone,
    /// `COMPLETED` with the box.
    Sealed,
}

/// How a value is sealed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Boxing {
    /// For the key in the permit, without leading zeros, as the network does.
    Right,
    /// The same with this many bytes, at most 64; the network's padding is not known.
    Padded(usize),
    /// For another key.
    OtherKey,
    /// With one bit changed.
    Tampered,
    /// 2^128: more than a Uint128 holds.
    TooLarge,
}

/// Requests under way.
#[derive(Default)]
pub(super) struct Requests {
    /// Submits so far, by handle.
    submits: HashMap<Word, usize>,
    pending: HashMap<String, Pending>,
    order: VecDeque<String>,
}

struct Pending {
    handle: Word,
    sealing_key: [u8; 32],
    submitted_at: u64,
    processing: u32,
    end: End,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    ct_tempkey: Hex<32>,
    host_chain_id: u64,
    permit: Permit,
}

/// A permission as the SDK writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Permit {
    issuer: String,
    expiration: u64,
    recipient: String,
    validator_id: u64,
    validator_contract: String,
    sealing_key: String,
    issuer_signature: String,
    recipient_signature: String,
}

pub(super) fn answer(
    chain: &Chain,
    requests: &mut Requests,
    knobs: &Knobs,
    (method, path): (&str, &str),
    body: &[u8],
) -> Answer {
    let answer = match (method, path.strip_prefix(PATH)) {
        ("POST", Some("")) => submit(chain, requests, knobs, body),
        ("GET", Some(id)) => poll(chain, requests, knobs, id.strip_prefix('/').unwrap_or_default()),
        _ => Err((404, format!("wanted POST {PATH} or GET {PATH}/ID"))),
    };
    answer.unwrap_or_else(|(status, message)| Answer::message(status, &message))
}

fn submit(chain: &Chain, requests: &mut Requests, knobs: &Knobs, body: &[u8]) -> Result<Answer, Refusal> {
    let body: Body = parse(body)?;
    let domain = chain.domain();
    if body.host_chain_id != domain.chain_id {
        return Err((400, format!("host_chain_id: wanted {}, got {}", domain.chain_id, body.host_chain_id)));
    }
    let (handle, permission) = (body.ct_tempkey.0, body.permit.permission()?);
    if chain.plain(handle).map_err(internal)?.is_none() {
        return Err((404, format!("ct_tempkey: no ciphertext {}", body.ct_tempkey)));
    }
    permission.check(domain, chain.now()).map_err(|invalid| (403, format!("permit: {invalid}")))?;
    if !chain.is_allowed(handle, permission.issuer).map_err(internal)? {
        return Err((403, format!("permit: {} is not allowed to use handle 0x{}", permission.issuer, body.ct_tempkey)));
    }
    match requests.next(handle, &knobs.submits) {
        Submit::AtOnce(Shape::Nested) => {
            let sealed = seal(chain, knobs.boxing, handle, permission.sealing_key)?.nested();
            Ok(Answer::json(200, &json!({ "request_id": null, "is_succeed": true, "sealed": sealed })))
        }
        Submit::AtOnce(Shape::Flat) => {
            let Sealed { data, public_key, nonce } = seal(chain, knobs.boxing, handle, permission.sealing_key)?;
            let document = json!({ "sealed_data": data, "ephemeral_public_key": public_key, "nonce": nonce });
            Ok(Answer::json(200, &document))
        }
        Submit::Later { processing, end } => {
            let (sealing_key, submitted_at) = (permission.sealing_key, chain.now());
            let id = requests.add(Pending { handle, sealing_key, submitted_at, processing, end })?;
            Ok(Answer::json(200, &json!({ "request_id": id })))
        }
        Submit::Fails(message) => {
            let document = json!({ "request_id": null, "is_succeed": false, "error_message": message });
            Ok(Answer::json(200, &document))
        }
        Submit::NotYet => Ok(Answer { status: 204, body: Vec::new(), after: Duration::ZERO }),
        Submit::Refused(status) => Err((status, "the threshold network refuses, as it was told to".into())),
    }
}

fn poll(chain: &Chain, requests: &mut Requests, knobs: &Knobs, id: &str) -> Result<Answer, Refusal> {
    let gone = || (404, "request_id: no such request, or it expired".to_owned());
    let pending = requests.pending.get_mut(id).ok_or_else(gone)?;
    let mut document = json!({
        "request_id": id,
        "status": "COMPLETED",
        "submitted_at": iso_8601(UnixTime(pending.submitted_at)),
        "encryption_type": UINT128,
    });
    if pending.processing > 0 {
        pending.processing -= 1;
        document["status"] = "PROCESSING".into();
        document["is_succeed"] = false.into();
        return Ok(Answer::json(200, &document));
    }
    document["completed_at"] = iso_8601(UnixTime(chain.now())).into();
    match &pending.end {
        End::Gone => return Err(gone()),
        End::Fails(message) => {
            document["is_succeed"] = false.into();
            document["error_message"] = message.as_str().into();
        }
        End::Sealed => {
            document["is_succeed"] = true.into();
            document["sealed"] = seal(chain, knobs.boxing, pending.handle, pending.sealing_key)?.nested();
        }
    }
    Ok(Answer::json(200, &document))
}

/// A NaCl box (X25519, XSalsa20-Poly1305) by a key made for it.
struct Sealed {
    data: Vec<u8>,
    public_key: [u8; 32],
    nonce: [u8; 24],
}

fn seal(chain: &Chain, boxing: Boxing, handle: Word, sealing_key: [u8; 32]) -> Result<Sealed, Refusal> {
    let Plain(value) = chain.plain(handle).map_err(internal)?.ok_or_else(|| internal("the ciphertext is gone"))?;
    let zeros = value.iter().take_while(|byte| **byte == 0).count().min(15); // zero itself is one byte
    let mut message = match boxing {
        Boxing::Padded(length) => [vec![0; length.clamp(16, 64) - 16], value.to_vec()].concat(),
        Boxing::TooLarge => [&[1][..], &[0; 16]].concat(),
        Boxing::Right | Boxing::OtherKey | Boxing::Tampered => value[zeros..].to_vec(),
    };
    let own = SecretKey::from(random::<32>()?);
    let reader = if boxing == Boxing::OtherKey { own.public_key() } else { PublicKey::from(sealing_key) };
    let nonce = random::<24>()?;
    let tag = SalsaBox::new(&reader, &own).encrypt_in_place_detached(&nonce.into(), b"", &mut message);
    let tag = tag.map_err(|_| internal("the box cannot be made"))?;
    let mut data = [&tag[..], &message].concat(); // NaCl has the tag first
    if boxing == Boxing::Tampered {
        data[0] ^= 1;
    }
    Ok(Sealed { data, public_key: own.public_key().to_bytes(), nonce })
}

impl Sealed {
    fn nested(&self) -> Value {
        json!({ "data": self.data, "public_key": self.public_key, "nonce": self.nonce })
    }
}

impl Requests {
    /// What this submit for the handle is answered.
    fn next(&mut self, handle: Word, submits: &[Submit]) -> Submit {
        if self.submits.len() >= KEPT && !self.submits.contains_key(&handle) {
            self.submits.clear();
        }
        let at = self.submits.entry(handle).or_default();
        let submit = submits.get(*at).or_else(|| submits.last()).cloned();
        *at += 1;
        submit.unwrap_or(Submit::AtOnce(Shape::Nested))
    }

    fn add(&mut self, pending: Pending) -> Result<String, Refusal> {
        let id = hex::encode(random::<16>()?);
        if self.order.len() >= KEPT {
            self.order.pop_front().map(|oldest| self.pending.remove(&oldest));
        }
        self.order.push_back(id.clone());
        self.pending.insert(id.clone(), pending);
        Ok(id)
    }
}

impl Permit {
    fn permission(&self) -> Result<Permission, Refusal> {
        let address = |name: &str, text: &str| {
            chain::address(text).ok_or_else(|| (400, format!("permit.{name}: wanted 0x and 40 hex digits")))
        };
        let bytes = |name: &str, text: &str| {
            let bytes = text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
            bytes.ok_or_else(|| (400, format!("permit.{name}: wanted 0x and hex digits")))
        };
        let mut validator_id = [0; 32];
        validator_id[24..].copy_from_slice(&self.validator_id.to_be_bytes());
        let sealing_key = bytes("sealingKey", &self.sealing_key)?;
        let sealing_key = sealing_key.try_into().map_err(|_| (400, "permit.sealingKey: wanted 32 bytes".to_owned()))?;
        Ok(Permission {
            issuer: address("issuer", &self.issuer)?,
            expiration: self.expiration,
            recipient: address("recipient", &self.recipient)?,
            validator_id,
            validator_contract: address("validatorContract", &self.validator_contract)?,
            sealing_key,
            issuer_signature: bytes("issuerSignature", &self.issuer_signature)?,
            recipient_signature: bytes("recipientSignature", &self.recipient_signature)?,
        })
    }
}

fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    crate::random().map_err(internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let mut requests = Requests::default();
        let pending =
            || Pending { handle: [0; 32], sealing_key: [0; 32], submitted_at: 0, processing: 0, end: End::Sealed };
        let first = requests.add(pending()).unwrap();
        for count in 0..KEPT as u64 {
            assert!(requests.pending.contains_key(&first));
            requests.add(pending()).unwrap();
            let mut handle = [0; 32];
            handle[..8].copy_from_slice(&count.to_be_bytes());
            requests.next(handle, &[]);
        }
        assert!(!requests.pending.contains_key(&first));
        assert_eq!((requests.pending.len(), requests.order.len(), requests.submits.len()), (KEPT, KEPT, KEPT));
        requests.next([1; 32], &[]);
        assert_eq!(requests.submits.len(), 1);
    }
}
