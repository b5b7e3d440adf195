//! HPKE (RFC 9180), base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (0x0020, 0x0001, 0x0002).

use blf_evidence::Hex;
use blf_evidence::job::SealedKey;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};

use crate::{Key, OpenError};

type Kem = X25519HkdfSha256;
type PublicKey = <Kem as hpke::Kem>::PublicKey;
type PrivateKey = <Kem as hpke::Kem>::PrivateKey;
type EncappedKey = <Kem as hpke::Kem>::EncappedKey;

/// An HPKE key pair. The private half zeroizes and never leaves.
#[derive(Clone)]
pub struct HpkeKey {
    private: Key,
    public: Hex<32>,
}

impl HpkeKey {
    /// A fresh key pair.
    ///
    /// # Errors
    /// [`OpenError::Randomness`].
    pub fn generate() -> Result<Self, OpenError> {
        Self::derive(&Key::random()?)
    }

    /// DeriveKeyPair (RFC 9180, section 4.1) from 32 bytes of key material.
    ///
    /// # Errors
    /// [`OpenError::PublicKey`] never in practice.
    pub fn derive(ikm: &Key) -> Result<Self, OpenError> {
        let (private, public) = Kem::derive_keypair(ikm.expose());
        let private = Key::fill(|bytes| {
            private.write_exact(bytes);
            Ok::<(), OpenError>(())
        })?;
        Ok(Self { private, public: Hex(public.to_bytes().into()) })
    }

    /// The public half.
    pub fn public(&self) -> Hex<32> {
        self.public
    }
}

/// Seals a key to `to`, bound to `info` and `aad`.
///
/// # Errors
/// [`OpenError::PublicKey`] if `to` is not usable, [`OpenError::Randomness`]; [`OpenError::Tag`] never in practice.
pub fn seal_key(to: &Hex<32>, key: &Key, info: &[u8], aad: &[u8]) -> Result<SealedKey, OpenError> {
    let public = PublicKey::from_bytes(&to.0).map_err(|_| OpenError::PublicKey)?;
    // The library panics when the system has no randomness, so that is asked first; getrandom(2) cannot fail later.
    getrandom::fill(&mut [0; 1]).map_err(|_| OpenError::Randomness)?;
    let (enc, ct) =
        hpke::single_shot_seal::<AesGcm256, HkdfSha256, Kem>(&OpModeS::Base, &public, info, key.expose(), aad)
            .map_err(|_| OpenError::PublicKey)?;
    let ct = <[u8; 48]>::try_from(ct.as_slice()).map_err(|_| OpenError::Tag)?;
    Ok(SealedKey { enc: Hex(enc.to_bytes().into()), ct: Hex(ct) })
}

/// Opens a key that was sealed to `key` with the same `info` and `aad`.
///
/// # Errors
/// [`OpenError::PublicKey`], [`OpenError::Tag`].
pub fn open_key(key: &HpkeKey, sealed: &SealedKey, info: &[u8], aad: &[u8]) -> Result<Key, OpenError> {
    let private = PrivateKey::from_bytes(key.private.expose()).map_err(|_| OpenError::PublicKey)?;
    let enc = EncappedKey::from_bytes(&sealed.enc.0).map_err(|_| OpenError::PublicKey)?;
    let mut context = hpke::setup_receiver::<AesGcm256, HkdfSha256, Kem>(&OpModeR::Base, &private, &enc, info)
        .map_err(|_| OpenError::PublicKey)?;
    let (ct, tag) = sealed.ct.0.split_at(32);
    let tag = hpke::aead::AeadTag::from_bytes(tag).map_err(|_| OpenError::Tag)?;
    Key::fill(|bytes| {
        bytes.copy_from_slice(ct);
        context.open_inout_detached(bytes.as_mut_slice().into(), aad, &tag).map_err(|_| OpenError::Tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[allow(non_snake_case, reason = "names of RFC 9180")]
    struct Vector {
        info: String,
        ikmR: String,
        pkRm: String,
        enc: String,
        encryptions: Vec<Encryption>,
    }

    #[derive(serde::Deserialize)]
    struct Encryption {
        aad: String,
        ct: String,
        pt: String,
    }

    /// RFC 9180 test vector: key derivation and every recorded encryption.
    #[test]
    fn rfc_9180() {
        let vector: Vector =
            serde_json::from_str(include_str!("../tests/vectors/rfc9180-x25519-sha256-aes256gcm-base.json")).unwrap();
        let unhex = |text: &str| hex::decode(text).unwrap();
        let ikm = Key::fill(|b| {
            b.copy_from_slice(&unhex(&vector.ikmR));
            Ok::<(), ()>(())
        })
        .unwrap();
        let key = HpkeKey::derive(&ikm).unwrap();
        assert_eq!(key.public().to_string(), vector.pkRm);
        let private = PrivateKey::from_bytes(key.private.expose()).unwrap();
        let enc = EncappedKey::from_bytes(&unhex(&vector.enc)).unwrap();
        let mut context =
            hpke::setup_receiver::<AesGcm256, HkdfSha256, Kem>(&OpModeR::Base, &private, &enc, &unhex(&vector.info))
                .unwrap();
        for encryption in &vector.encryptions {
            let pt = context.open(&unhex(&encryption.ct), &unhex(&encryption.aad)).unwrap();
            assert_eq!(hex::encode(pt), encryption.pt);
        }
        assert_eq!(vector.encryptions.len(), 4);
    }

    #[test]
    fn opens_only_with_key_info_and_aad() {
        let (ours, other) = (HpkeKey::generate().unwrap(), HpkeKey::generate().unwrap());
        let key = Key::random().unwrap();
        let sealed = seal_key(&ours.public(), &key, b"info", b"aad").unwrap();
        assert_eq!(open_key(&ours, &sealed, b"info", b"aad").unwrap().expose(), key.expose());
        assert_eq!(open_key(&other, &sealed, b"info", b"aad").err(), Some(OpenError::Tag));
        assert_eq!(open_key(&ours, &sealed, b"infp", b"aad").err(), Some(OpenError::Tag));
        assert_eq!(open_key(&ours, &sealed, b"info", b"aae").err(), Some(OpenError::Tag));
        for bit in 0..48 * 8 {
            let mut bad = sealed.clone();
            bad.ct.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open_key(&ours, &bad, b"info", b"aad").err(), Some(OpenError::Tag), "bit {bit}");
        }
        assert_eq!(seal_key(&Hex([0; 32]), &key, b"", b"").err(), Some(OpenError::PublicKey), "low-order point");
    }
}
