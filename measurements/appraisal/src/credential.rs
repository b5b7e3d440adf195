//! The verifier's half of credential activation (TPM 2.0 Part 1, 24, B.10 and C.6): a secret that only the TPM holding
//! both this EK and this AK can return. An EK cannot sign; this is how it vouches for an AK all the same.

use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::{digest, hmac};
use blf_evidence::tpm::{
    self, EncryptedSecret, HashAlg, IdObject, ObjectAttributes, Public, PublicKey, Scheme, ek_p256_template,
    ek_rsa2048_template,
};

/// Label of the seed (Part 1, B.10.4 and C.6.4), with the NUL that OAEP and KDFe want.
const IDENTITY: &[u8] = b"IDENTITY\0";
/// Labels of the keys derived from the seed (Part 1, 24.4 and 24.5), with the NUL that KDFa wants.
const STORAGE: &[u8] = b"STORAGE\0";
const INTEGRITY: &[u8] = b"INTEGRITY\0";

/// Why no credential was made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CredentialError {
    /// The AK may sign what it did not make, may leave its TPM, or may decrypt.
    #[error("ak attributes: wanted {wanted}, not decrypt, with its own scheme, got {got}")]
    Ak {
        /// What every AK must have.
        wanted: ObjectAttributes,
        /// What it has.
        got: ObjectAttributes,
    },
    /// The EK is not one of the default templates, or not a key of its curve or size.
    #[error("ek: wanted a default template (L-1 or L-2) with its public value, got another key")]
    Ek,
    /// The system's random number generator failed.
    #[error("random numbers: wanted 32 bytes, got none")]
    Random,
}

/// A credential for one TPM: what `TPM2_ActivateCredential` takes, and what it returns.
pub struct Credential {
    /// `credentialBlob`.
    pub id_object: IdObject,
    /// `secret`, encrypted to the EK.
    pub encrypted_secret: EncryptedSecret,
}

/// Encrypts `secret` so that only the TPM with `ek` returns it, and only if `ak` is loaded there.
///
/// Also checks the two keys' templates: that the EK is a storage key its policy guards, that the AK is restricted and
/// fixed to its TPM. Whether the EK is a real TPM's (its certificate) is for the caller to decide.
///
/// # Errors
/// [`CredentialError`], naming the key that is not as it must be.
pub fn make_credential(ek: &Public, ak: &Public, secret: &[u8; 32]) -> Result<Credential, CredentialError> {
    let (PublicKey::Rsa2048 { scheme, .. } | PublicKey::EccP256 { scheme, .. }) = &ak.key;
    let restricted = ak.attributes.contains(tpm::AK_REQUIRED) && !ak.attributes.contains(ObjectAttributes::DECRYPT);
    if !restricted || *scheme != Scheme::Signing(HashAlg::Sha256) {
        return Err(CredentialError::Ak { wanted: tpm::AK_REQUIRED, got: ak.attributes });
    }
    let (seed, encrypted_secret) = match (&ek.key, is_default_template(ek)) {
        (PublicKey::EccP256 { .. }, true) => p256_seed(ek)?,
        (PublicKey::Rsa2048 { .. }, true) => rsa_seed(ek)?,
        (_, false) => return Err(CredentialError::Ek),
    };
    let name = ak.name();
    let mut identity = [&32_u16.to_be_bytes()[..], secret].concat();
    encrypt_cfb(&kdfa(&seed, STORAGE, &name, 128)[..16], &mut identity).map_err(|_| CredentialError::Random)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &kdfa(&seed, INTEGRITY, &[], 256));
    let tag = hmac::sign(&key, &[&identity[..], &name].concat());
    let integrity_hmac = fixed(tag.as_ref());
    Ok(Credential { id_object: IdObject { integrity_hmac, enc_identity: identity }, encrypted_secret })
}

/// The EK is what the default template makes, whatever its public value.
fn is_default_template(ek: &Public) -> bool {
    let mut template = match ek.key {
        PublicKey::EccP256 { .. } => ek_p256_template(),
        PublicKey::Rsa2048 { .. } => ek_rsa2048_template(),
    };
    match (&mut template.key, &ek.key) {
        (PublicKey::EccP256 { x, y, .. }, PublicKey::EccP256 { x: ek_x, y: ek_y, .. }) => {
            (*x, *y) = (ek_x.clone(), ek_y.clone());
        }
        (PublicKey::Rsa2048 { modulus, .. }, PublicKey::Rsa2048 { modulus: ek_modulus, .. }) => {
            modulus.clone_from(ek_modulus);
        }
        _ => return false,
    }
    template == *ek
}

/// Seed for a P-256 EK (Part 1, C.6.4): one-pass ECDH with a fresh key, then KDFe over both x coordinates.
fn p256_seed(ek: &Public) -> Result<([u8; 32], EncryptedSecret), CredentialError> {
    let point = ek.point_or_modulus().ok_or(CredentialError::Ek)?;
    let ours = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(|_| CredentialError::Random)?;
    let public = ours.compute_public_key().map_err(|_| CredentialError::Random)?;
    let public = public.as_ref();
    let (x, y) = (fixed(&public[1..33]), fixed(&public[33..65]));
    let theirs = UnparsedPublicKey::new(&ECDH_P256, &point);
    let seed = agree_ephemeral(ours, theirs, CredentialError::Ek, |z| {
        let input = [&1_u32.to_be_bytes()[..], z, IDENTITY, &x, &point[1..33]].concat();
        Ok(fixed(digest::digest(&digest::SHA256, &input).as_ref()))
    })?;
    Ok((seed, EncryptedSecret::EccP256 { x, y }))
}

/// Seed for an RSA EK (Part 1, B.10.4): random, encrypted with RSAES-OAEP, SHA-256.
fn rsa_seed(ek: &Public) -> Result<([u8; 32], EncryptedSecret), CredentialError> {
    let spki = ek.subject_public_key_info().ok_or(CredentialError::Ek)?;
    let key = PublicEncryptingKey::from_der(&spki).map_err(|_| CredentialError::Ek)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| CredentialError::Ek)?;
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| CredentialError::Random)?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    let written = key.encrypt(&OAEP_SHA256_MGF1SHA256, &seed, &mut ciphertext, Some(IDENTITY));
    let ciphertext = written.map_err(|_| CredentialError::Ek)?.to_vec();
    Ok((seed, EncryptedSecret::Rsa2048(ciphertext)))
}

/// KDFa with HMAC-SHA-256 for at most one block (Part 1, 11.4.10.2).
fn kdfa(seed: &[u8; 32], label: &[u8], context: &[u8], bits: u32) -> [u8; 32] {
    let input = [&1_u32.to_be_bytes()[..], label, context, &bits.to_be_bytes()].concat();
    fixed(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), &input).as_ref())
}

/// AES-128 in CFB mode with a zero IV (Part 1, 24.4): the key is used once.
fn encrypt_cfb(key: &[u8], in_out: &mut [u8]) -> Result<(), Unspecified> {
    let key = EncryptingKey::cfb128(UnboundCipherKey::new(&AES_128, key)?)?;
    key.less_safe_encrypt(in_out, EncryptionContext::Iv128(FixedLength::from([0; 16]))).map(drop)
}

/// The first `N` bytes of a digest, a tag or a coordinate, each at least that long.
fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
    out
}
