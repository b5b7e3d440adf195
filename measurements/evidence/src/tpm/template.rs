//! The keys the attester asks its TPM for.

use super::{HashAlg, ObjectAttributes, Public, PublicKey, RSA_2048_BYTES, Scheme, Symmetric};

/// Default EK template L-2 (TCG EK Credential Profile 2.x, B.3.4): ECC P-256, decrypts, PolicySecret(endorsement).
#[must_use]
pub fn ek_p256_template() -> Public {
    let key =
        PublicKey::EccP256 { symmetric: Symmetric::Aes128Cfb, scheme: Scheme::Null, x: vec![0; 32], y: vec![0; 32] };
    Public { name_alg: HashAlg::Sha256, attributes: EK_ATTRIBUTES, auth_policy: EK_POLICY_A_SHA256.to_vec(), key }
}

/// Default EK template L-1 (TCG EK Credential Profile 2.x, B.3.3): RSA 2048, decrypts, PolicySecret(endorsement).
#[must_use]
pub fn ek_rsa2048_template() -> Public {
    let (symmetric, modulus) = (Symmetric::Aes128Cfb, vec![0; RSA_2048_BYTES]);
    let key = PublicKey::Rsa2048 { symmetric, scheme: Scheme::Null, exponent: 0, modulus };
    Public { name_alg: HashAlg::Sha256, attributes: EK_ATTRIBUTES, auth_policy: EK_POLICY_A_SHA256.to_vec(), key }
}

/// Our attestation key: restricted ECDSA P-256 with SHA-256, made by and fixed to the TPM, empty auth value.
#[must_use]
pub fn ak_p256_template() -> Public {
    let attributes = AK_REQUIRED.union(ObjectAttributes::USER_WITH_AUTH);
    let scheme = Scheme::Signing(HashAlg::Sha256);
    let key = PublicKey::EccP256 { symmetric: Symmetric::Null, scheme, x: Vec::new(), y: Vec::new() };
    Public { name_alg: HashAlg::Sha256, attributes, auth_policy: Vec::new(), key }
}

/// What every attestation key must have; beside these it must not have `decrypt`.
pub const AK_REQUIRED: ObjectAttributes = ObjectAttributes::FIXED_TPM
    .union(ObjectAttributes::FIXED_PARENT)
    .union(ObjectAttributes::SENSITIVE_DATA_ORIGIN)
    .union(ObjectAttributes::RESTRICTED)
    .union(ObjectAttributes::SIGN);

/// Attributes of the default EK templates (EK Credential Profile, B.3.3): 0x000300B2.
pub const EK_ATTRIBUTES: ObjectAttributes = ObjectAttributes::FIXED_TPM
    .union(ObjectAttributes::FIXED_PARENT)
    .union(ObjectAttributes::SENSITIVE_DATA_ORIGIN)
    .union(ObjectAttributes::ADMIN_WITH_POLICY)
    .union(ObjectAttributes::RESTRICTED)
    .union(ObjectAttributes::DECRYPT);

/// PolicyA for SHA-256: `TPM2_PolicySecret(TPM_RH_ENDORSEMENT)` (EK Credential Profile, B.6.2).
pub const EK_POLICY_A_SHA256: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xB3, 0xF8, 0x1A, 0x90, 0xCC, 0x8D, 0x46, 0xA5, 0xD7, 0x24, 0xFD, 0x52, 0xD7,
    0x6E, 0x06, 0x52, 0x0B, 0x64, 0xF2, 0xA1, 0xDA, 0x1B, 0x33, 0x14, 0x69, 0xAA,
];
