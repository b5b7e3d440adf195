//! EIP-191 `personal_sign` signatures over secp256k1: how nodes, users and the ICL sign text.
//!
//! ```text
//! digest = keccak256("\x19Ethereum Signed Message:\n" ‖ decimal length ‖ text)
//! signature = r (32) ‖ s (32, low) ‖ v (27 or 28)
//! ```

use std::fmt;
use std::str::FromStr;

use k256::ecdsa::{RecoveryId, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Address, Hex};

/// A recoverable signature, written `0x` + 130 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature(pub [u8; 65]);

/// Why a signature is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not 0x and 130 lower-case hex digits.
    #[error("signature: wanted 0x and 130 lower-case hex digits")]
    Encoding,
    /// Not a canonical (low-s, v 27 or 28) secp256k1 signature.
    #[error("signature: wanted r, low s and v of 27 or 28")]
    Malformed,
    /// A signature by another key.
    #[error("signature: wanted {wanted}, got {got}")]
    Signer {
        /// Address that should have signed.
        wanted: Address,
        /// Address that signed.
        got: Address,
    },
}

impl Signature {
    /// Signs `text` (deterministic, RFC 6979).
    pub fn sign(key: &SigningKey, text: &[u8]) -> Self {
        Self::sign_digest(key, &digest(text))
    }

    /// Signs a digest that its standard defines without the prefix: EIP-712 typed data, EIP-1559 transactions. The
    /// caller has computed it; whoever signs a digest that came from elsewhere signs anything.
    pub fn sign_digest(key: &SigningKey, digest: &[u8; 32]) -> Self {
        let (signature, recovery) = key.sign_prehash_recoverable(digest);
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + recovery.to_byte();
        Self(bytes)
    }

    /// The address whose key signed `text`.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`].
    pub fn recover(&self, text: &[u8]) -> Result<Address, SignatureError> {
        self.recover_digest(&digest(text))
    }

    /// The address whose key signed `digest`.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`].
    pub fn recover_digest(&self, digest: &[u8; 32]) -> Result<Address, SignatureError> {
        let signature = k256::ecdsa::Signature::from_slice(&self.0[..64]).map_err(|_| SignatureError::Malformed)?;
        let recovery = match self.0[64] {
            v @ 27..=28 if signature.normalize_s() == signature => RecoveryId::from_byte(v - 27),
            _ => None,
        }
        .ok_or(SignatureError::Malformed)?;
        let key =
            VerifyingKey::recover_from_prehash(digest, &signature, recovery).map_err(|_| SignatureError::Malformed)?;
        Ok(address(&key))
    }

    /// Checks that `signer` signed `text`.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, text: &[u8], signer: Address) -> Result<(), SignatureError> {
        match self.recover(text)? {
            got if got == signer => Ok(()),
            got => Err(SignatureError::Signer { wanted: signer, got }),
        }
    }
}

/// The account address of a public key: the last 20 bytes of keccak256 of the uncompressed point.
pub fn address(key: &VerifyingKey) -> Address {
    let point = key.to_sec1_point(false);
    let hash = alloy_primitives::keccak256(&point.as_bytes()[1..]);
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&hash[12..]);
    Address(bytes)
}

/// The text that authenticates one request to a strict ICL: method, host, path with query, body, time and nonce.
///
/// ```text
/// "blf.icl/v1\n" METHOD "\n" host "\n" path "\n" hex SHA-256(body) "\n" unix seconds "\n" hex nonce
/// ```
pub fn request_text(method: &str, host: &str, path: &str, body_sha256: &Hex<32>, time: u64, nonce: &Hex<16>) -> String {
    format!("blf.icl/v1\n{method}\n{host}\n{path}\n{body_sha256}\n{time}\n{nonce}")
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", Hex(self.0))
    }
}

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let digits = text.strip_prefix("0x").ok_or(SignatureError::Encoding)?;
        digits.parse::<Hex<65>>().map(|h| Self(h.0)).map_err(|_| SignatureError::Encoding)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

fn digest(text: &[u8]) -> [u8; 32] {
    let mut message = format!("\x19Ethereum Signed Message:\n{}", text.len()).into_bytes();
    message.extend_from_slice(text);
    alloy_primitives::keccak256(message).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        let mut bytes = [0; 32];
        bytes[30..].copy_from_slice(&1001u16.to_be_bytes());
        SigningKey::from_slice(&bytes).unwrap()
    }

    /// Recorded from the network's published Python node 0.3.5 (its signature over a GET request).
    #[test]
    fn equals_the_published_node() {
        let signature = Signature::sign(&key(), b"1795157973");
        assert_eq!(
            signature.to_string(),
            "0x34663aa4565ab889bcc70321ec19f2fc6c08b0c94a002674044e6801b1f7eda77968797b2f6f970291e0366eeab6a34996ea49901aa23026a2bf6156939a1a6b1c"
        );
        let address = "0x5935897A39AFABbedA5a599D38236E7Df151C8b8".parse().unwrap();
        assert_eq!(signature.recover(b"1795157973").unwrap(), address);
        assert!(signature.verify(b"1795157974", address).is_err());
    }

    #[test]
    fn refuses_the_malleable_twin() {
        let signature = Signature::sign(&key(), b"x");
        let inner = k256::ecdsa::Signature::from_slice(&signature.0[..64]).unwrap();
        let (r, s) = inner.split_scalars();
        let twin = k256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
        let mut bytes = signature.0;
        bytes[..64].copy_from_slice(&twin.to_bytes());
        bytes[64] = 27 + (28 - bytes[64]);
        assert_ne!(bytes, signature.0);
        assert_eq!(Signature(bytes).recover(b"x"), Err(SignatureError::Malformed));
    }
}
