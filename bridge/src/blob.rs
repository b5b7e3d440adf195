//! Sealed blobs as the network stores them: AES-256-GCM, `iv (12) ‖ tag (16) ‖ ciphertext`, no associated data.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};

use crate::{Key, OpenError, Secret};

/// Longest sealed blob, in bytes.
pub const BLOB_CAP: usize = 1024 * 1024;

const IV: usize = 12;
const TAG: usize = 16;

/// Seals `plaintext` under `key` with a random IV. A key seals one blob.
///
/// # Errors
/// [`OpenError::Length`], [`OpenError::Randomness`].
pub fn seal(key: &Key, plaintext: &Secret) -> Result<Vec<u8>, OpenError> {
    let mut iv = [0; IV];
    getrandom::fill(&mut iv).map_err(|_| OpenError::Randomness)?;
    seal_with_iv(key, &iv, plaintext)
}

/// Opens a blob.
///
/// # Errors
/// [`OpenError::Length`], [`OpenError::Tag`].
pub fn open(key: &Key, blob: &[u8]) -> Result<Secret, OpenError> {
    let length = OpenError::Length { min: IV + TAG, max: BLOB_CAP, got: blob.len() };
    if !(IV + TAG..=BLOB_CAP).contains(&blob.len()) {
        return Err(length);
    }
    let (iv, rest) = blob.split_first_chunk::<IV>().ok_or_else(|| length.clone())?;
    let (tag, ciphertext) = rest.split_first_chunk::<TAG>().ok_or(length)?;
    let mut plaintext = zeroize::Zeroizing::new(ciphertext.to_vec());
    Aes256Gcm::new(key.expose().into())
        .decrypt_inout_detached(iv.into(), &[], InOutBuf::from(plaintext.as_mut_slice()), tag.into())
        .map_err(|_| OpenError::Tag)?;
    Ok(Secret::new(std::mem::take(&mut *plaintext)))
}

fn seal_with_iv(key: &Key, iv: &[u8; IV], plaintext: &Secret) -> Result<Vec<u8>, OpenError> {
    let got = IV + TAG + plaintext.expose().len();
    if got > BLOB_CAP {
        return Err(OpenError::Length { min: IV + TAG, max: BLOB_CAP, got });
    }
    let mut blob = Vec::with_capacity(got);
    blob.extend_from_slice(iv);
    blob.extend_from_slice(&[0; TAG]);
    blob.extend_from_slice(plaintext.expose());
    let tag = Aes256Gcm::new(key.expose().into())
        .encrypt_inout_detached(iv.into(), &[], InOutBuf::from(&mut blob[IV + TAG..]))
        .map_err(|_| OpenError::Length { min: IV + TAG, max: BLOB_CAP, got })?;
    blob[IV..IV + TAG].copy_from_slice(&tag);
    Ok(blob)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::fill(|b| {
            b.iter_mut().zip(0..).for_each(|(b, i)| *b = i);
            Ok::<(), ()>(())
        })
        .unwrap()
    }

    /// Recorded from the network's published Python node 0.3.5.
    #[test]
    fn equals_the_published_node() {
        let iv = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let blob = seal_with_iv(&key(), &iv, &Secret::new(b"hello".to_vec())).unwrap();
        assert_eq!(hex::encode(&blob), "000102030405060708090a0b2797ff353b8a046d28236dcd9d057bbb2f67ba77aa");
        assert_eq!(open(&key(), &blob).unwrap().expose(), b"hello");
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let blob = seal(&key(), &Secret::new(b"hello".to_vec())).unwrap();
        for bit in 0..blob.len() * 8 {
            let mut bad = blob.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key(), &bad).err(), Some(OpenError::Tag), "bit {bit}");
        }
        assert!(matches!(open(&key(), &blob[..27]).err(), Some(OpenError::Length { got: 27, .. })));
        assert!(matches!(open(&key(), &vec![0; BLOB_CAP + 1]).err(), Some(OpenError::Length { .. })));
    }
}
