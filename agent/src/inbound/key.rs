//! The TLS key of the attested API, as the vault holds it: born with its certificate, and asked for one signature only.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use blf_evidence::Hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::HardwareError;

/// A P-256 key. What it signs cannot be chosen: a certificate of itself when it is born, then only CertificateVerify.
pub struct TlsKey {
    pair: EcdsaKeyPair,
    certificate: Vec<u8>,
    spki_sha256: Hex<32>,
}

/// Transcript-Hash (RFC 8446, section 4.4.1) by the hash of the cipher suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TranscriptHash {
    /// TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256
    Sha256(Hex<32>),
    /// TLS_AES_256_GCM_SHA384
    Sha384(Hex<48>),
}

impl TlsKey {
    /// A fresh key and its certificate.
    ///
    /// # Errors
    /// [`HardwareError::Randomness`].
    pub fn generate() -> Result<Self, HardwareError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| HardwareError::Randomness)?;
        let spki = pair.public_key().as_der().map_err(|_| HardwareError::Randomness)?;
        let spki_sha256 = Hex(Sha256::digest(spki.as_ref()).into());
        let certificate = self_signed(&pair, spki.as_ref(), &spki_sha256)?;
        Ok(Self { pair, certificate, spki_sha256 })
    }

    /// Its certificate (DER).
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// SHA-256 of its SubjectPublicKeyInfo: `tls_spki_sha256` of the binding.
    pub fn spki_sha256(&self) -> Hex<32> {
        self.spki_sha256
    }

    /// Signs a server's CertificateVerify. All but the hash is put around it here, so that nothing else can be signed.
    ///
    /// # Errors
    /// [`HardwareError::Randomness`].
    pub fn certificate_verify(&self, transcript: &TranscriptHash) -> Result<Vec<u8>, HardwareError> {
        sign(&self.pair, &transcript.certificate_verify())
    }
}

impl TranscriptHash {
    /// What a server's CertificateVerify signs (RFC 8446, section 4.4.3).
    pub fn certificate_verify(&self) -> Vec<u8> {
        let hash = match self {
            Self::Sha256(hash) => &hash.0[..],
            Self::Sha384(hash) => &hash.0,
        };
        [&before_hash(), hash].concat()
    }

    /// The hash in what [`Self::certificate_verify`] gives; `None` for anything else.
    pub fn of_certificate_verify(message: &[u8]) -> Option<Self> {
        let hash = message.strip_prefix(before_hash().as_slice())?;
        let sha256 = || Some(Self::Sha256(Hex(hash.try_into().ok()?)));
        sha256().or_else(|| Some(Self::Sha384(Hex(hash.try_into().ok()?))))
    }
}

/// 64 spaces, the context string and a zero (RFC 8446, section 4.4.3).
fn before_hash() -> Vec<u8> {
    [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0"].concat()
}

/// An X.509 certificate (RFC 5280) that says nothing but the key: whose it is and until when is in the evidence.
fn self_signed(pair: &EcdsaKeyPair, spki: &[u8], spki_sha256: &Hex<32>) -> Result<Vec<u8>, HardwareError> {
    const INTEGER: u8 = 0x02;
    const BIT_STRING: u8 = 0x03;
    const UTF8_STRING: u8 = 0x0c;
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const VERSION: u8 = 0xa0;
    // OBJECT IDENTIFIER ecdsa-with-SHA256 (RFC 5758, section 3.2), commonName.
    let ecdsa_with_sha256 = der(SEQUENCE, &[&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]]);
    let common_name = der(SEQUENCE, &[&[0x06, 0x03, 0x55, 0x04, 0x03], &der(UTF8_STRING, &[b"blf"])]);
    let name = der(SEQUENCE, &[&der(SET, &[&common_name])]);
    // The guest knows no date; 99991231235959Z is RFC 5280's word for no end (section 4.1.2.5).
    let validity = der(SEQUENCE, &[&der(UTC_TIME, &[b"700101000000Z"]), &der(GENERALIZED_TIME, &[b"99991231235959Z"])]);
    let version = der(VERSION, &[&der(INTEGER, &[&[2]])]);
    // Positive, and another for each key.
    let serial = der(INTEGER, &[&[1], &spki_sha256.0[..15]]);
    let tbs = der(SEQUENCE, &[&version, &serial, &ecdsa_with_sha256, &name, &validity, &name, spki]);
    let signature = der(BIT_STRING, &[&[0], &sign(pair, &tbs)?]);
    Ok(der(SEQUENCE, &[&tbs, &ecdsa_with_sha256, &signature]))
}

/// One DER value of fewer than 2^16 bytes (ITU-T X.690, section 10.1).
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [.., high, low] = content.len().to_be_bytes();
    let length: &[u8] = match (high, low) {
        (0, ..0x80) => &[low],
        (0, _) => &[0x81, low],
        _ => &[0x82, high, low],
    };
    [&[tag], length, &content].concat()
}

fn sign(pair: &EcdsaKeyPair, message: &[u8]) -> Result<Vec<u8>, HardwareError> {
    let signature = pair.sign(&SystemRandom::new(), message).map_err(|_| HardwareError::Randomness)?;
    Ok(signature.as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use rustls::pki_types::CertificateDer;
    use rustls::server::ParsedCertificate;
    use x509_cert::Certificate;
    use x509_cert::der::{Decode as _, Encode as _};

    use super::*;

    #[test]
    fn the_certificate_says_the_key_and_is_signed_by_it() {
        let key = TlsKey::generate().unwrap();
        let parsed = Certificate::from_der(key.certificate()).unwrap();
        assert_eq!(parsed.to_der().unwrap(), key.certificate());
        let tbs = parsed.tbs_certificate();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.pair.public_key());
        public.verify(&tbs.to_der().unwrap(), parsed.signature().raw_bytes()).unwrap();
        let spki = tbs.subject_public_key_info().to_der().unwrap();
        assert_eq!(Hex(Sha256::digest(&spki).into()), key.spki_sha256());
        // As TLS stacks read it.
        let certificate = CertificateDer::from(key.certificate());
        let parsed = ParsedCertificate::try_from(&certificate).unwrap();
        assert_eq!(parsed.subject_public_key_info().as_ref(), spki);
    }

    #[test]
    fn a_certificate_verify_has_one_form() {
        let hashes = [(130, TranscriptHash::Sha256(Hex([7; 32]))), (146, TranscriptHash::Sha384(Hex([7; 48])))];
        for (length, hash) in hashes {
            let message = hash.certificate_verify();
            assert_eq!(message.len(), length);
            assert_eq!(TranscriptHash::of_certificate_verify(&message), Some(hash));
            for at in 0..98 {
                let mut other = message.clone();
                other[at] ^= 1;
                assert_eq!(TranscriptHash::of_certificate_verify(&other), None, "byte {at}");
            }
            let longer = [&message[..], &[7]].concat();
            for other in [&message[1..], &message[..length - 1], &longer, b"", b"hash"] {
                assert_eq!(TranscriptHash::of_certificate_verify(other), None);
            }
        }
    }
}
