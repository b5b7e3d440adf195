//! [`CryptoProvider`] by AWS-LC.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::crypto::{CryptoProvider, Signed};

/// AWS-LC through aws-lc-rs: the provider of native builds.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

impl CryptoProvider for AwsLc {
    fn verify_parsed(&self, signed: &Signed<'_>, message: &[u8]) -> bool {
        let (algorithm, public_key, signature): (&dyn VerificationAlgorithm, &[u8], &[u8]) = match signed {
            Signed::EcdsaP256Sha256 { point, signature } => (&signature::ECDSA_P256_SHA256_FIXED, *point, signature),
            Signed::EcdsaP384Sha384 { point, signature } => (&signature::ECDSA_P384_SHA384_FIXED, *point, signature),
            Signed::RsaPssSha384 { key, signature } => (&signature::RSA_PSS_2048_8192_SHA384, key.der, signature),
            Signed::RsaPkcs1Sha256 { key, signature } => (&signature::RSA_PKCS1_2048_8192_SHA256, key.der, signature),
        };
        UnparsedPublicKey::new(algorithm, public_key).verify(message, signature).is_ok()
    }
}
