//! The signature primitives that appraisal needs, behind a trait: verifying is the same code on every platform, the
//! primitives are not.

/// Verifies signatures. Implementations: [`crate::aws_lc::AwsLc`].
pub trait CryptoProvider: Sync {
    /// Whether `signature` over `message` is by `public_key`.
    ///
    /// `public_key` is the content of a SubjectPublicKeyInfo's BIT STRING: a SEC 1 uncompressed point, or a DER
    /// `RSAPublicKey`. A key or signature of the wrong form is a wrong signature.
    fn verify(&self, algorithm: Algorithm, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool;
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
