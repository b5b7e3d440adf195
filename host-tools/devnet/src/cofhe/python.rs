//! What the published Python node speaks in its `python` mode. The real network has nothing like it: a permit with an
//! EIP-712 domain of its own, and a sealing that is not a NaCl box.
//!
//! ```text
//! sealedValue = ephemeral X25519 key (32) ‖ iv (12) ‖ AES-256-GCM(HKDF-SHA256(shared, "CoFHE seal"), value) ‖ tag (16)
//! ```

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand::SystemRandom;
use blf_evidence::Address;
use serde::Deserialize;
use serde_json::{Value, json};

use super::jsonrpc::{self, Fault};
use super::{Answer, Knobs};
use crate::chain::{self, Chain, Domain, Plain, UINT128, Word};

const METHODS: [&str; 2] = ["cofhe_decryptForView", "cofhe_encrypt"];
/// Type that the permit is signed as.
const PERMIT: &str = "Permit(address issuer,uint256 expiration,bytes32 sealingKey)";
/// Code of requests that are understood and refused; HTTP says 403.
const FORBIDDEN: i64 = -32_003;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Permit {
    issuer: String,
    expiration: u64,
    sealing_key: String,
    signature: String,
}

pub(super) fn answer(chain: &Chain, knobs: &Knobs, method: &str, body: &[u8]) -> Answer {
    jsonrpc::answer(method, body, |name, params| match (name, params) {
        ("cofhe_decryptForView", [handle, permit]) => decrypt(chain, knobs, handle, permit),
        ("cofhe_encrypt", [value, Value::String(kind), account]) if kind == "uint128" => encrypt(chain, value, account),
        (name, _) if METHODS.contains(&name) => Err(Fault::params(format!("{name}: wanted other parameters"))),
        _ => Err(Fault::method(name, &METHODS)),
    })
}

fn decrypt(chain: &Chain, knobs: &Knobs, handle: &Value, permit: &Value) -> Result<Value, Fault> {
    let handle = number("handle", handle)?;
    let permit = Permit::deserialize(permit).map_err(|e| Fault::params(format!("permit: {e}")))?;
    let issuer = address("permit.issuer", &permit.issuer)?;
    let sealing_key: Word = fixed("permit.sealingKey", &permit.sealing_key)?;
    if knobs.python_checks {
        permit.check(chain, issuer, sealing_key)?;
        if !chain.is_allowed(handle, issuer)? {
            let handle = hex::encode(handle);
            return Err(forbidden(format!("permit: {issuer} is not allowed to use handle 0x{handle}")));
        }
    }
    let Some(Plain(value)) = chain.plain(handle)? else {
        return Err(Fault::params(format!("handle: no ciphertext 0x{}", hex::encode(handle))));
    };
    let sealed = seal(&value, &sealing_key).map_err(|_| Fault::params("permit.sealingKey: wanted an X25519 key"))?;
    Ok(json!({ "sealedValue": format!("0x{}", hex::encode(sealed)) }))
}

/// Encrypts for `account`, which alone may use the handle: no contract ever sees it.
fn encrypt(chain: &Chain, value: &Value, account: &Value) -> Result<Value, Fault> {
    let account = address("account", account.as_str().unwrap_or_default())?;
    let value: Word = number("value", value)?;
    let (high, low) = value.split_at(16);
    let plain = match (high, <[u8; 16]>::try_from(low)) {
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Ok(low)) => Plain(low),
        _ => return Err(Fault::params("value: wanted at most 128 bits")),
    };
    let handle = chain::handle(chain.encrypt(&plain)?, UINT128, 0);
    chain.allow(handle, account)?;
    Ok(json!({ "handle": format!("0x{}", hex::encode(handle)) }))
}

impl Permit {
    fn check(&self, chain: &Chain, issuer: Address, sealing_key: Word) -> Result<(), Fault> {
        if self.expiration <= chain.now() {
            return Err(forbidden(format!("permit.expiration: wanted a later time than now, got {}", self.expiration)));
        }
        let chain_id = chain.domain().chain_id;
        let domain = Domain { name: "CoFHE".into(), version: "1".into(), chain_id, contract: chain::NOBODY };
        let mut expiration = [0; 32];
        expiration[24..].copy_from_slice(&self.expiration.to_be_bytes());
        let digest = domain.digest(PERMIT, &[chain::address_word(issuer), expiration, sealing_key]);
        let signature: [u8; 65] = fixed("permit.signature", &self.signature)?;
        if chain::signer(&digest, &signature) != Some(issuer) {
            return Err(forbidden(format!("permit.signature: wanted one by {issuer}")));
        }
        Ok(())
    }
}

fn seal(value: &[u8; 16], reader: &[u8; 32]) -> Result<Vec<u8>, Unspecified> {
    let own = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new())?;
    let public = own.compute_public_key()?;
    let key = agree_ephemeral(own, UnparsedPublicKey::new(&X25519, reader), Unspecified, |shared| {
        let prk = Salt::new(HKDF_SHA256, &[]).extract(shared);
        let okm = prk.expand(&[b"CoFHE seal"], &AES_256_GCM)?;
        Ok(LessSafeKey::new(UnboundKey::from(okm)))
    })?;
    let mut iv = [0; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut iv)?;
    // All 16 bytes: the node takes nothing shorter than 65 bytes in all.
    let mut sealed = value.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(iv), Aad::empty(), &mut sealed)?;
    Ok([public.as_ref(), &iv, &sealed].concat())
}

/// A number of at most 256 bits as Python's `hex()` writes it: without leading zeros.
fn number(name: &str, value: &Value) -> Result<Word, Fault> {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    let wanted = || Fault::params(format!("{name}: wanted 0x and 1 to 64 hex digits"));
    let digits = digits.filter(|digits| (1..=64).contains(&digits.len())).ok_or_else(wanted)?;
    let mut word = [0; 32];
    hex::decode_to_slice(format!("{digits:0>64}"), &mut word).map_err(|_| wanted())?;
    Ok(word)
}

fn fixed<const N: usize>(name: &str, text: &str) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    let digits = text.strip_prefix("0x").unwrap_or_default();
    hex::decode_to_slice(digits, &mut bytes)
        .map_err(|_| Fault::params(format!("{name}: wanted 0x and {N} bytes of hex")))?;
    Ok(bytes)
}

fn address(name: &str, text: &str) -> Result<Address, Fault> {
    chain::address(text).ok_or_else(|| Fault::params(format!("{name}: wanted 0x and 40 hex digits")))
}

fn forbidden(message: String) -> Fault {
    Fault { status: 403, ..Fault::new(FORBIDDEN, message) }
}
