//! [`CryptoProvider`] by AWS-LC.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::crypto::{Algorithm, CryptoProvider};

/// AWS-LC through aws-lc-rs: the provider of native builds.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

impl CryptoProvider for AwsLc {
    fn verify(&self, algorithm: Algorithm, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match algorithm {
            Algorithm::EcdsaP256Sha256Asn1 => &signature::ECDSA_P256_SHA256_ASN1,
            Algorithm::EcdsaP256Sha256Fixed => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::EcdsaP384Sha384Asn1 => &signature::ECDSA_P384_SHA384_ASN1,
            Algorithm::EcdsaP384Sha384Fixed => &signature::ECDSA_P384_SHA384_FIXED,
            Algorithm::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, public_key).verify(message, signature).is_ok()
    }
}
