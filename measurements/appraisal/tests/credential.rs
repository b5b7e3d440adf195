//! Credential activation against a software TPM's own arithmetic.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::{cipher, digest, hmac, iv};
use blf_appraisal::credential::{Credential, CredentialError, make_credential};
use blf_evidence::tpm::{
    EncryptedSecret, ObjectAttributes, Public, PublicKey, ak_p256_template, ek_p256_template, ek_rsa2048_template,
};

/// An EK, and the side of the exchange that a TPM has.
struct Ek(PrivateKey, Public);

impl Ek {
    fn new() -> Self {
        let key = PrivateKey::generate(&ECDH_P256).unwrap();
        let mut public = ek_p256_template();
        set_point(&mut public, key.compute_public_key().unwrap().as_ref());
        Self(key, public)
    }

    /// `TPM2_ActivateCredential` (Part 3, 12.5): `None` when the integrity check fails.
    fn activate(&self, credential: &Credential, ak_name: &[u8]) -> Option<Vec<u8>> {
        let EncryptedSecret::EccP256 { x, y } = &credential.encrypted_secret else { panic!("not for P-256") };
        let point = [&[4][..], x, y].concat();
        let own_x = &self.1.point_or_modulus().unwrap()[1..33];
        let seed = agree(&self.0, UnparsedPublicKey::new(&ECDH_P256, &point), (), |z| {
            Ok(digest::digest(&digest::SHA256, &[&[0, 0, 0, 1], z, b"IDENTITY\0", x, own_x].concat()).as_ref().to_vec())
        });
        let seed = hmac::Key::new(hmac::HMAC_SHA256, &seed.unwrap());
        let integrity = hmac::sign(&seed, &[&[0, 0, 0, 1][..], b"INTEGRITY\0", &256_u32.to_be_bytes()].concat());
        let integrity = hmac::Key::new(hmac::HMAC_SHA256, integrity.as_ref());
        let id = &credential.id_object;
        hmac::verify(&integrity, &[&id.enc_identity, ak_name].concat(), &id.integrity_hmac).ok()?;
        let storage = hmac::sign(&seed, &[&[0, 0, 0, 1][..], b"STORAGE\0", ak_name, &128_u32.to_be_bytes()].concat());
        let key = cipher::UnboundCipherKey::new(&cipher::AES_128, &storage.as_ref()[..16]).unwrap();
        let mut identity = id.enc_identity.clone();
        let context = cipher::DecryptionContext::Iv128(iv::FixedLength::from([0; 16]));
        cipher::DecryptingKey::cfb128(key).unwrap().decrypt(&mut identity, context).unwrap();
        assert_eq!(identity[..2], [0, 32]);
        Some(identity[2..].to_vec())
    }
}

fn set_point(public: &mut Public, point: &[u8]) {
    let PublicKey::EccP256 { x, y, .. } = &mut public.key else { panic!("not P-256") };
    (*x, *y) = (point[1..33].to_vec(), point[33..].to_vec());
}

fn ak() -> Public {
    let mut public = ak_p256_template();
    set_point(&mut public, PrivateKey::generate(&ECDH_P256).unwrap().compute_public_key().unwrap().as_ref());
    public
}

#[test]
fn only_the_right_pair_of_keys_opens_it() {
    let (ek, ak) = (Ek::new(), ak());
    let credential = make_credential(&ek.1, &ak, &[7; 32]).unwrap();
    assert_eq!(ek.activate(&credential, &ak.name()), Some(vec![7; 32]));
    assert_eq!(Ek::new().activate(&credential, &ak.name()), None, "another TPM");
    assert_eq!(ek.activate(&credential, &self::ak().name()), None, "another AK");
    let again = make_credential(&ek.1, &ak, &[7; 32]).unwrap();
    assert_ne!(again.id_object, credential.id_object, "a fresh seed each time");
}

#[test]
fn keys_that_are_refused() {
    let (ek, good) = (Ek::new().1, ak());
    make_credential(&ek, &good, &[7; 32]).unwrap();
    let refuse_ak = |bits: u32| {
        let mut bad = good.clone();
        bad.attributes = ObjectAttributes::from_bits(good.attributes.bits() ^ bits).unwrap();
        assert!(matches!(make_credential(&ek, &bad, &[7; 32]), Err(CredentialError::Ak { .. })), "{}", bad.attributes);
    };
    for toggled in [
        ObjectAttributes::RESTRICTED,
        ObjectAttributes::FIXED_TPM,
        ObjectAttributes::FIXED_PARENT,
        ObjectAttributes::SENSITIVE_DATA_ORIGIN,
        ObjectAttributes::SIGN,
        ObjectAttributes::DECRYPT,
    ] {
        refuse_ak(toggled.bits());
    }
    let refuse_ek = |bad: &Public, why: &str| {
        assert!(matches!(make_credential(bad, &good, &[7; 32]), Err(CredentialError::Ek)), "{why}");
    };
    refuse_ek(&good, "an AK in the EK's place");
    refuse_ek(&ek_rsa2048_template(), "a template without a key");
    let mut bad = ek.clone();
    bad.auth_policy.clear();
    refuse_ek(&bad, "no policy");
    let mut bad = ek.clone();
    let PublicKey::EccP256 { y, .. } = &mut bad.key else { unreachable!() };
    y[31] ^= 1;
    refuse_ek(&bad, "a point off the curve");
}
