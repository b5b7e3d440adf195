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

#[cfg(test)]
mod tests {
    use super::*;

    /// A box with any plaintext, as a network that does not trim might make it.
    fn sealed(to: &SealingKey, plaintext: &[u8]) -> Sealed {
        let ephemeral = SecretKey::from_bytes([7; 32]);
        let mut value = plaintext.to_vec();
        let tag = SalsaBox::new(&PublicKey::from(to.public().0), &ephemeral)
            .encrypt_in_place_detached((&[9; 24]).into(), &[], &mut value)
            .unwrap();
        Sealed { data: [&tag[..], &value].concat(), public_key: *ephemeral.public_key().as_bytes(), nonce: [9; 24] }
    }

    #[test]
    fn integers_of_any_padding() {
        let key = SealingKey::generate().unwrap();
        for length in 1..=32 {
            let mut plaintext = vec![0; length];
            plaintext[length - 1] = 42;
            assert_eq!(key.unseal(&sealed(&key, &plaintext)).unwrap().expose(), Half::of(42).expose(), "{length}");
        }
        let mut most = [0xff; 32];
        most[..16].fill(0);
        assert_eq!(key.unseal(&sealed(&key, &most)).unwrap().expose(), &[0xff; 16]);
        most[15] = 1;
        assert_eq!(key.unseal(&sealed(&key, &most)).err(), Some(UnsealError::Range), "2^128");
        most[0] = 1;
        assert_eq!(key.unseal(&sealed(&key, &most)).err(), Some(UnsealError::Range));
    }

    #[test]
    fn no_integer_has_this_length() {
        let key = SealingKey::generate().unwrap();
        for length in [0, 33, 4096] {
            let sealed = sealed(&key, &vec![0; length]);
            assert_eq!(key.unseal(&sealed).err(), Some(UnsealError::Length { got: 16 + length }));
        }
        for length in [0, 15] {
            let sealed = Sealed { data: vec![0; length], ..sealed(&key, &[1]) };
            assert_eq!(key.unseal(&sealed).err(), Some(UnsealError::Length { got: length }));
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let key = SealingKey::generate().unwrap();
        let good = seal(&key.public(), &Half::of(u128::MAX)).unwrap();
        assert!(key.unseal(&good).is_ok());
        // X25519 ignores the highest bit of a public key (RFC 7748, section 5).
        for bit in 0..8 * (good.data.len() + 24 + 32) - 1 {
            let mut bad = good.clone();
            let (byte, mask) = (bit / 8, 1 << (bit % 8));
            match byte {
                0..24 => bad.nonce[byte] ^= mask,
                24..56 if byte < 24 + good.data.len() => bad.data[byte - 24] ^= mask,
                _ => bad.public_key[byte - 24 - good.data.len()] ^= mask,
            }
            assert_ne!(bad, good);
            assert_eq!(key.unseal(&bad).err(), Some(UnsealError::Tag), "bit {bit}");
        }
        let other = SealingKey::generate().unwrap();
        assert_eq!(other.unseal(&good).err(), Some(UnsealError::Tag));
    }

    /// Halves of the key 00..1f (protocol section 2).
    #[test]
    fn halves_of_the_recorded_key() {
        let Ok(key) = Key::fill(|bytes| {
            bytes.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
            Ok::<(), Infallible>(())
        });
        let [high, low] = split(&key);
        assert_eq!(u128::from_be_bytes(*high.expose()), 5_233_100_606_242_806_050_955_395_731_361_295);
        assert_eq!(u128::from_be_bytes(*low.expose()), 21_356_283_574_076_891_493_948_969_979_685_445_151);
        assert_eq!(join(&high, &low).expose(), key.expose());
    }

    proptest::proptest! {
        #[test]
        fn sealed_halves_open(value: u128, shift in 0..128u32) {
            let key = SealingKey::generate().unwrap();
            let half = Half::of(value >> shift);
            let sealed = seal(&key.public(), &half).unwrap();
            let opened = key.unseal(&sealed).unwrap();
            proptest::prop_assert_eq!(opened.expose(), half.expose());
        }
    }
}
