//! The signature primitives that appraisal needs, behind a trait: verifying is the same code on every platform, the
//! primitives are not.
//!
//! Keys and signatures are parsed here, once for all providers, and each has one form. So a provider cannot accept what
//! another refuses, e.g. compressed points, which AWS-LC would.

use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Decode as _, Error, Reader as _, SliceReader};

/// Verifies signatures. Implementations: [`crate::aws_lc::AwsLc`], and with feature `rust-crypto` `RustCrypto`.
pub trait CryptoProvider: Sync {
    /// The primitive alone: whether the signature over `message` is by the key.
    fn verify_parsed(&self, signed: &Signed<'_>, message: &[u8]) -> bool;

    /// Whether `signature` over `message` is by `public_key`.
    ///
    /// `public_key` is the content of a SubjectPublicKeyInfo's BIT STRING: a SEC 1 uncompressed point, or a DER
    /// `RSAPublicKey`. A key or signature of the wrong form is a wrong signature.
    fn verify(&self, algorithm: Algorithm, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        Signed::parse(algorithm, public_key, signature).is_some_and(|signed| self.verify_parsed(&signed, message))
    }
}

/// Signature algorithms, with the form of the signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256; DER `ECDSA-Sig-Value`, as in certificates.
    EcdsaP256Sha256Asn1,
    /// The same; `r ‖ s`, 32 bytes each.
    EcdsaP256Sha256Fixed,
    /// ECDSA on P-384 with SHA-384; DER `ECDSA-Sig-Value`, as in certificates.
    EcdsaP384Sha384Asn1,
    /// The same; `r ‖ s`, 48 bytes each.
    EcdsaP384Sha384Fixed,
    /// RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes, under a modulus of 2048 to 8192 bits.
    RsaPssSha384,
    /// RSASSA-PKCS1-v1_5 with SHA-256 under a modulus of 2048 to 8192 bits.
    RsaPkcs1Sha256,
}

/// A public key and a signature of the right form. Whether point and numbers are in range is for the primitive to say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signed<'a> {
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256Sha256 {
        /// The uncompressed point.
        point: &'a [u8; 65],
        /// `r ‖ s`.
        signature: [u8; 64],
    },
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384Sha384 {
        /// The uncompressed point.
        point: &'a [u8; 97],
        /// `r ‖ s`.
        signature: [u8; 96],
    },
    /// RSASSA-PSS, see [`Algorithm::RsaPssSha384`].
    RsaPssSha384 {
        /// The key.
        key: RsaPublicKey<'a>,
        /// As long as the modulus.
        signature: &'a [u8],
    },
    /// RSASSA-PKCS1-v1_5, see [`Algorithm::RsaPkcs1Sha256`].
    RsaPkcs1Sha256 {
        /// The key.
        key: RsaPublicKey<'a>,
        /// As long as the modulus.
        signature: &'a [u8],
    },
}

/// `RSAPublicKey` (RFC 8017, A.1.1): an odd modulus of 2048 to 8192 bits and an odd exponent of 2 to 33 bits, which
/// bounds the work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RsaPublicKey<'a> {
    /// The key as it came.
    pub der: &'a [u8],
    /// `modulus`, big-endian, without leading zeros.
    pub modulus: &'a [u8],
    /// `publicExponent`, likewise.
    pub exponent: &'a [u8],
}

impl<'a> Signed<'a> {
    fn parse(algorithm: Algorithm, public_key: &'a [u8], signature: &'a [u8]) -> Option<Self> {
        Some(match algorithm {
            Algorithm::EcdsaP256Sha256Asn1 => {
                Self::EcdsaP256Sha256 { point: point(public_key)?, signature: ecdsa_sig_value::<32, 64>(signature)? }
            }
            Algorithm::EcdsaP256Sha256Fixed => {
                Self::EcdsaP256Sha256 { point: point(public_key)?, signature: signature.try_into().ok()? }
            }
            Algorithm::EcdsaP384Sha384Asn1 => {
                Self::EcdsaP384Sha384 { point: point(public_key)?, signature: ecdsa_sig_value::<48, 96>(signature)? }
            }
            Algorithm::EcdsaP384Sha384Fixed => {
                Self::EcdsaP384Sha384 { point: point(public_key)?, signature: signature.try_into().ok()? }
            }
            Algorithm::RsaPssSha384 => {
                let key = RsaPublicKey::parse(public_key)?;
                Self::RsaPssSha384 { signature: key.signature(signature)?, key }
            }
            Algorithm::RsaPkcs1Sha256 => {
                let key = RsaPublicKey::parse(public_key)?;
                Self::RsaPkcs1Sha256 { signature: key.signature(signature)?, key }
            }
        })
    }
}

impl<'a> RsaPublicKey<'a> {
    fn parse(der: &'a [u8]) -> Option<Self> {
        let (modulus, exponent) = two_integers(der).ok()?;
        let key = Self { der, modulus: modulus.as_bytes(), exponent: exponent.as_bytes() };
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        let sizes = (2048..=8192).contains(&bits(key.modulus)) && (2..=33).contains(&bits(key.exponent));
        (sizes && odd(key.modulus) && odd(key.exponent)).then_some(key)
    }

    fn signature<'s>(&self, signature: &'s [u8]) -> Option<&'s [u8]> {
        (signature.len() == self.modulus.len()).then_some(signature)
    }
}

/// A SEC 1 point that is not compressed.
fn point<const N: usize>(bytes: &[u8]) -> Option<&[u8; N]> {
    bytes.try_into().ok().filter(|point: &&[u8; N]| point[0] == 0x04)
}

/// `ECDSA-Sig-Value` (RFC 3279, 2.2.3) in DER as `r ‖ s` of `N` bytes each; `M` is twice `N`.
fn ecdsa_sig_value<const N: usize, const M: usize>(der: &[u8]) -> Option<[u8; M]> {
    let (r, s) = two_integers(der).ok()?;
    let mut out = [0; M];
    for (number, field) in [r, s].into_iter().zip(out.chunks_exact_mut(N)) {
        let start = N.checked_sub(number.as_bytes().len())?;
        field[start..].copy_from_slice(number.as_bytes());
    }
    Some(out)
}

/// A SEQUENCE of two INTEGERs in DER, neither negative nor longer than need be, and nothing else.
fn two_integers(der: &[u8]) -> Result<(UintRef<'_>, UintRef<'_>), Error> {
    let mut reader = SliceReader::new(der)?;
    let pair = reader.sequence(|reader| Ok::<_, Error>((UintRef::decode(reader)?, UintRef::decode(reader)?)))?;
    reader.finish()?;
    Ok(pair)
}

fn bits(number: &[u8]) -> usize {
    let zeros = number.first().map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() * 8).saturating_sub(zeros)
}
