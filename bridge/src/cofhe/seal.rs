//! Sealed halves: NaCl boxes (X25519, XSalsa20-Poly1305) to a key of this node, and the key they are halves of.
//!
//! ```text
//! data = tag (16) ‖ ciphertext of the value, big-endian, 1 to 32 bytes, below 2^128
//! key  = high (16) ‖ low (16)
//! ```

use std::convert::Infallible;

use blf_evidence::Hex;
use crypto_box::aead::AeadInPlace as _;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{Key, OpenError};

const TAG: usize = 16;
/// Longest value, in bytes; the SDK trims leading zeros, others may not.
const VALUE: usize = 32;

/// An X25519 key pair to which the threshold network seals.
pub struct SealingKey {
    private: Key,
    public: Hex<32>,
}

/// One half of a key: 16 bytes, the big-endian form of a `uint128`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Half(Box<[u8; 16]>);

/// A value sealed by the threshold network, as its JSON has it: arrays of numbers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sealed {
    /// Tag and ciphertext.
    pub data: Vec<u8>,
    /// The sealer's key, fresh for each box: it proves nothing.
    pub public_key: [u8; 32],
    /// Nonce of the box.
    pub nonce: [u8; 24],
}

/// Why a sealed half stays closed. Never says what is inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// Too short or too long for an integer.
    #[error("sealed value: wanted {} to {} bytes, got {got}", TAG + 1, TAG + VALUE)]
    Length {
        /// Bytes that came.
        got: usize,
    },
    /// An integer, but not one of 128 bits.
    #[error("sealed value: wanted an integer below 2^128")]
    Range,
    /// Sealed to another key, or altered.
    #[error("sealed value: tag does not match: sealed to another key, or altered")]
    Tag,
}

impl SealingKey {
    /// A fresh key pair.
    ///
    /// # Errors
    /// [`OpenError::Randomness`].
    pub fn generate() -> Result<Self, OpenError> {
        Ok(Self::new(Key::random()?))
    }

    /// The pair of a private key.
    pub fn new(private: Key) -> Self {
        let public = Hex(*SecretKey::from_bytes(*private.expose()).public_key().as_bytes());
        Self { private, public }
    }

    /// The public half: `sealingKey` of permits.
    pub fn public(&self) -> Hex<32> {
        self.public
    }

    /// Opens a sealed half.
    ///
    /// # Errors
    /// [`UnsealError`].
    pub fn unseal(&self, sealed: &Sealed) -> Result<Half, UnsealError> {
        let error = UnsealError::Length { got: sealed.data.len() };
        let (tag, ciphertext) = sealed.data.split_first_chunk::<TAG>().ok_or_else(|| error.clone())?;
        let mut value = Zeroizing::new([0; VALUE]);
        // Right-aligned, so that the bytes before it are the zeros that were trimmed.
        let start = VALUE.checked_sub(ciphertext.len()).filter(|start| *start < VALUE).ok_or(error)?;
        value[start..].copy_from_slice(ciphertext);
        SalsaBox::new(&PublicKey::from(sealed.public_key), &self.secret())
            .decrypt_in_place_detached((&sealed.nonce).into(), &[], &mut value[start..], tag.into())
            .map_err(|_| UnsealError::Tag)?;
        let (above, half) = value.split_at(VALUE - 16);
        if above.iter().any(|byte| *byte != 0) {
            return Err(UnsealError::Range);
        }
        Ok(Half::copied(half))
    }

    fn secret(&self) -> SecretKey {
        SecretKey::from_bytes(*self.private.expose())
    }
}

impl Half {
    /// The half that an integer is: for peers of a node, which keep integers.
    pub fn of(value: u128) -> Self {
        Self::copied(&value.to_be_bytes())
    }

    /// The secret bytes, big-endian.
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }

    /// A half of these bytes: 16, as every caller in this file cuts them.
    fn copied(bytes: &[u8]) -> Self {
        let mut half = Self(Box::new([0; 16]));
        half.0.copy_from_slice(bytes);
        half
    }
}

/// Seals a half to a sealing key as the threshold network does, leading zeros trimmed: for peers of a node.
///
/// # Errors
/// [`OpenError::Randomness`]; [`OpenError::Length`] never, the value is short.
pub fn seal(to: &Hex<32>, half: &Half) -> Result<Sealed, OpenError> {
    let ephemeral = SecretKey::from_bytes(*Key::random()?.expose());
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce).map_err(|_| OpenError::Randomness)?;
    let trimmed = half.0.iter().take(15).take_while(|byte| **byte == 0).count();
    let mut value = Zeroizing::new(half.0[trimmed..].to_vec());
    let tag = SalsaBox::new(&PublicKey::from(to.0), &ephemeral)
        .encrypt_in_place_detached((&nonce).into(), &[], &mut value)
        .map_err(|_| OpenError::Length { min: 1, max: 16, got: value.len() })?;
    let data = [&tag[..], &value].concat();
    Ok(Sealed { data, public_key: *ephemeral.public_key().as_bytes(), nonce })
}

/// The key of two halves.
pub fn join(high: &Half, low: &Half) -> Key {
    let Ok(key) = Key::fill(|key| {
        key[..16].copy_from_slice(high.expose());
        key[16..].copy_from_slice(low.expose());
        Ok::<(), Infallible>(())
    });
    key
}

/// The halves of a key, high first.
pub fn split(key: &Key) -> [Half; 2] {
    let (high, low) = key.expose().split_at(16);
    [Half::copied(high), Half::copied(low)]
}
