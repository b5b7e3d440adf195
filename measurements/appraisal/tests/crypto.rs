//! Both providers of signature primitives give the same verdict, and the right one.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair as _, RsaKeyPair};
use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::crypto::{Algorithm, CryptoProvider};
use blf_appraisal::rust_crypto::RustCrypto;
use proptest::prelude::*;
use serde::Deserialize;

/// `tests/vectors/signatures`.
#[derive(Deserialize)]
struct Vectors {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    algorithm: String,
    message: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    public_key: String,
    signature: String,
    message: Option<String>,
    valid: bool,
}

/// One signature, with the verdict that it deserves.
#[derive(Clone, Debug)]
struct Signed {
    name: String,
    algorithm: Algorithm,
    public_key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
    valid: bool,
}

impl Signed {
    fn verdicts(&self) -> [bool; 2] {
        [&AwsLc as &dyn CryptoProvider, &RustCrypto]
            .map(|crypto| crypto.verify(self.algorithm, &self.public_key, &self.message, &self.signature))
    }
}

fn vectors() -> Vec<Signed> {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/signatures/signatures.json")).unwrap();
    let unhex = |text: &str| hex::decode(text).unwrap();
    let mut all = Vec::new();
    for group in vectors.groups {
        let algorithm = match group.algorithm.as_str() {
            "EcdsaP256Sha256Asn1" => Algorithm::EcdsaP256Sha256Asn1,
            "EcdsaP256Sha256Fixed" => Algorithm::EcdsaP256Sha256Fixed,
            "EcdsaP384Sha384Asn1" => Algorithm::EcdsaP384Sha384Asn1,
            "EcdsaP384Sha384Fixed" => Algorithm::EcdsaP384Sha384Fixed,
            "RsaPssSha384" => Algorithm::RsaPssSha384,
            "RsaPkcs1Sha256" => Algorithm::RsaPkcs1Sha256,
            other => panic!("{other}"),
        };
        for case in group.cases {
            all.push(Signed {
                name: format!("{algorithm:?} {}", case.name),
                algorithm,
                public_key: unhex(&case.public_key),
                message: unhex(case.message.as_ref().unwrap_or(&group.message)),
                signature: unhex(&case.signature),
                valid: case.valid,
            });
        }
    }
    all
}

#[test]
fn every_vector_has_its_verdict() {
    let vectors = vectors();
    let (good, bad) = vectors.iter().partition::<Vec<_>, _>(|signed| signed.valid);
    assert!(good.len() > 50 && bad.len() > 200, "{} good, {} bad", good.len(), bad.len());
    for signed in &vectors {
        assert_eq!(signed.verdicts(), [signed.valid; 2], "{}", signed.name);
    }
}

/// Keys that are fresh each time, not those of the vectors.
#[test]
fn what_aws_lc_signs() {
    let random = SystemRandom::new();
    let message = b"message".to_vec();
    let mut all = Vec::new();
    for (algorithm, how) in [
        (Algorithm::EcdsaP256Sha256Asn1, &signature::ECDSA_P256_SHA256_ASN1_SIGNING),
        (Algorithm::EcdsaP256Sha256Fixed, &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        (Algorithm::EcdsaP384Sha384Asn1, &signature::ECDSA_P384_SHA384_ASN1_SIGNING),
        (Algorithm::EcdsaP384Sha384Fixed, &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
    ] {
        for _ in 0..8 {
            let key = EcdsaKeyPair::generate(how).unwrap();
            let signature = key.sign(&random, &message).unwrap().as_ref().to_vec();
            all.push((algorithm, key.public_key().as_ref().to_vec(), signature));
        }
    }
    let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    for (algorithm, how) in [
        (Algorithm::RsaPssSha384, &signature::RSA_PSS_SHA384 as &dyn signature::RsaEncoding),
        (Algorithm::RsaPkcs1Sha256, &signature::RSA_PKCS1_SHA256),
    ] {
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(how, &random, &message, &mut signature).unwrap();
        all.push((algorithm, key.public_key().as_ref().to_vec(), signature));
    }
    for (algorithm, public_key, signature) in all {
        let name = hex::encode(&signature);
        let signed = Signed { name, algorithm, public_key, message: message.clone(), signature, valid: true };
        assert_eq!(signed.verdicts(), [true; 2], "{signed:?}");
        let other = Signed { message: b"massage".to_vec(), ..signed };
        assert_eq!(other.verdicts(), [false; 2], "{other:?}");
    }
}

/// A way to damage bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Set(usize, u8),
    Delete(usize),
    Insert(usize, u8),
    Repeat(usize),
    Truncate(usize),
    Swap(usize, usize),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let at = any::<usize>();
        prop_oneof![
            4 => (at, 0_u8..8).prop_map(|(at, bit)| Self::Flip(at, bit)),
            2 => (at, prop_oneof![Just(0), Just(1), Just(0x7F), Just(0x80), Just(0xFF), any::<u8>()])
                .prop_map(|(at, byte)| Self::Set(at, byte)),
            1 => at.prop_map(Self::Delete),
            1 => (at, prop_oneof![Just(0), any::<u8>()]).prop_map(|(at, byte)| Self::Insert(at, byte)),
            1 => at.prop_map(Self::Repeat),
            1 => at.prop_map(Self::Truncate),
            1 => (at, at).prop_map(|(one, two)| Self::Swap(one, two)),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let end = bytes.len();
        match *self {
            Self::Insert(at, byte) => bytes.insert(at % (end + 1), byte),
            _ if end == 0 => {}
            Self::Flip(at, bit) => bytes[at % end] ^= 1 << bit,
            // Lengths and leading bytes stand in front, where most of what goes wrong does.
            Self::Set(at, byte) => bytes[at % end.min(8)] = byte,
            Self::Delete(at) => drop(bytes.remove(at % end)),
            Self::Repeat(at) => bytes.insert(at % end, bytes[at % end]),
            Self::Truncate(at) => bytes.truncate(at % end),
            Self::Swap(one, two) => bytes.swap(one % end, two % end),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done to key, message or signature: one verdict, and yes only to what nobody touched.
    #[test]
    fn damaged(which in any::<prop::sample::Index>(), part in 0..3, damages in prop::collection::vec(Damage::any(), 1..4)) {
        thread_local! { static ALL: Vec<Signed> = vectors(); }
        let signed = ALL.with(|all| which.get(all).clone());
        let mut damaged = signed.clone();
        let bytes = match part {
            0 => &mut damaged.public_key,
            1 => &mut damaged.signature,
            _ => &mut damaged.message,
        };
        damages.iter().for_each(|damage| damage.apply(bytes));
        let touched = (&signed.public_key, &signed.signature, &signed.message)
            != (&damaged.public_key, &damaged.signature, &damaged.message);
        let [aws_lc, rust_crypto] = damaged.verdicts();
        prop_assert_eq!(aws_lc, rust_crypto);
        if signed.valid {
            prop_assert_eq!(aws_lc, !touched);
        }
    }
}
