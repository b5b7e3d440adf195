//! [`CryptoProvider`] by RustCrypto.

use rsa::signature::Verifier;
use rsa::{BoxedUint, pkcs1v15, pss};
use sha2::{Sha256, Sha384};

use crate::crypto::{self, CryptoProvider, Signed};

/// RustCrypto's p256, p384 and rsa: the provider of builds without C, e.g. for WebAssembly.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustCrypto;

impl CryptoProvider for RustCrypto {
    fn verify_parsed(&self, signed: &Signed<'_>, message: &[u8]) -> bool {
        let verified = match signed {
            Signed::EcdsaP256Sha256 { point, signature } => p256::ecdsa::VerifyingKey::from_sec1_bytes(*point)
                .and_then(|key| key.verify(message, &p256::ecdsa::Signature::from_slice(signature)?)),
            Signed::EcdsaP384Sha384 { point, signature } => p384::ecdsa::VerifyingKey::from_sec1_bytes(*point)
                .and_then(|key| key.verify(message, &p384::ecdsa::Signature::from_slice(signature)?)),
            Signed::RsaPssSha384 { key, signature } => rsa_key(key).and_then(|key| {
                pss::VerifyingKey::<Sha384>::new(key).verify(message, &pss::Signature::try_from(*signature)?)
            }),
            Signed::RsaPkcs1Sha256 { key, signature } => rsa_key(key).and_then(|key| {
                pkcs1v15::VerifyingKey::<Sha256>::new(key).verify(message, &pkcs1v15::Signature::try_from(*signature)?)
            }),
        };
        verified.is_ok()
    }
}

fn rsa_key(key: &crypto::RsaPublicKey<'_>) -> Result<rsa::RsaPublicKey, rsa::signature::Error> {
    let modulus = BoxedUint::from_be_slice_vartime(key.modulus);
    let exponent = BoxedUint::from_be_slice_vartime(key.exponent);
    Ok(rsa::RsaPublicKey::new(modulus, exponent)?)
}
