//! TPM structures as real TPMs write them: round trips, Names, and what is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blf_evidence::tpm::{
    AK_REQUIRED, EncryptedSecret, HashAlg, IdObject, ObjectAttributes, PcrSelection, Public, PublicKey, Quote,
    Signature, TpmError, ak_p256_template, ek_p256_template, ek_rsa2048_template,
};
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

fn json(name: &str) -> Value {
    let path = format!("{}/tests/vectors/tpm/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn pcr_digest(pcrs: &Value) -> Vec<u8> {
    Sha256::digest(pcrs.as_array().unwrap().iter().flat_map(bytes).collect::<Vec<_>>()).to_vec()
}

#[test]
fn swtpm_quotes_and_keys() {
    let swtpm = json("swtpm.json");
    for kind in ["p256", "rsa2048"] {
        let set = &swtpm[kind];
        let quote = Quote::parse(&bytes(&set["quote"])).unwrap();
        assert_eq!(quote.to_bytes(), bytes(&set["quote"]), "{kind}");
        assert_eq!(quote.extra_data, bytes(&swtpm["qualifying_data"]));
        assert_eq!(quote.pcr_select, PcrSelection::ALL_SHA256);
        assert_eq!(quote.pcr_digest, pcr_digest(&swtpm["pcrs"]));
        let signature = Signature::parse(&bytes(&set["signature"])).unwrap();
        assert_eq!(signature.to_bytes(), bytes(&set["signature"]));
        assert_eq!(signature.hash(), HashAlg::Sha256);

        let ak = Public::parse_sized(&bytes(&set["ak_public"])).unwrap();
        assert_eq!(ak.to_sized_bytes(), bytes(&set["ak_public"]));
        assert_eq!(ak.name(), bytes(&set["ak_name"]));
        assert!(ak.attributes.contains(AK_REQUIRED) && !ak.attributes.contains(ObjectAttributes::DECRYPT));
        let ek = Public::parse_sized(&bytes(&set["ek_public"])).unwrap();
        assert_eq!(ek.to_sized_bytes(), bytes(&set["ek_public"]));
        assert!(!ek.attributes.contains(ObjectAttributes::SIGN));
    }
}

/// Public areas that a TPM made from the profile's templates differ from ours only in the unique value.
#[test]
fn templates_are_the_profile_s() {
    let swtpm = json("swtpm.json");
    for (kind, member, template) in [
        ("p256", "ek_public", ek_p256_template()),
        ("rsa2048", "ek_public", ek_rsa2048_template()),
        ("p256", "ak_public", ak_p256_template()),
    ] {
        let mut made = Public::parse_sized(&bytes(&swtpm[kind][member])).unwrap();
        assert!(made.point_or_modulus().is_some());
        made.key = match (made.key, &template.key) {
            (PublicKey::EccP256 { symmetric, scheme, .. }, PublicKey::EccP256 { x, y, .. }) => {
                PublicKey::EccP256 { symmetric, scheme, x: x.clone(), y: y.clone() }
            }
            (PublicKey::Rsa2048 { symmetric, scheme, exponent, .. }, PublicKey::Rsa2048 { modulus, .. }) => {
                PublicKey::Rsa2048 { symmetric, scheme, exponent, modulus: modulus.clone() }
            }
            (key, _) => panic!("{kind} {member}: {key:?}"),
        };
        assert_eq!(made, template, "{kind} {member}");
        assert_eq!(Public::parse(&template.to_bytes()).unwrap(), template);
    }
    assert_eq!(ek_p256_template().attributes.bits(), 0x0003_00B2);
    assert_eq!(ak_p256_template().attributes.to_string(), {
        "fixedTPM,fixedParent,sensitiveDataOrigin,userWithAuth,restricted,sign"
    });
}

/// The SPKI of the cloud vTPM's AK is in the vector as its own TPM stack wrote it.
#[test]
fn cloud_vtpm_quote() {
    let evidence = json("vtpm-evidence.json");
    let decode = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let raw = decode(&evidence["tpm_quote"]["message"]);
    let quote = Quote::parse(&raw).unwrap();
    assert_eq!(quote.to_bytes(), raw);
    assert_eq!(quote.pcr_digest, pcr_digest(&evidence["tpm_quote"]["pcrs"]));
    let raw = decode(&evidence["tpm_quote"]["signature"]);
    let signature = Signature::parse(&raw).unwrap();
    assert_eq!(signature.to_bytes(), raw);
    let spki = decode(&evidence["ak_public"]);
    let mut ak = ek_rsa2048_template();
    assert_eq!(ak.subject_public_key_info(), None, "the template's zeros are no key");
    let PublicKey::Rsa2048 { modulus, .. } = &mut ak.key else { unreachable!() };
    *modulus = spki[33..289].to_vec();
    assert_eq!(ak.subject_public_key_info().unwrap(), spki);
}

#[test]
fn azure_vtpm_quote() {
    let raw = std::fs::read(format!("{}/tests/vectors/tpm/az-quote.msg", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let quote = Quote::parse(&raw).unwrap();
    assert_eq!(quote.extra_data, b"challenge");
    assert_eq!(quote.to_bytes(), raw);
}

/// Each row damages one member of a good structure.
#[test]
fn refusals() {
    let swtpm = json("swtpm.json");
    let quote = bytes(&swtpm["p256"]["quote"]);
    let signature = bytes(&swtpm["p256"]["signature"]);
    let ak = bytes(&swtpm["p256"]["ak_public"])[2..].to_vec();
    let ek_rsa = bytes(&swtpm["rsa2048"]["ek_public"])[2..].to_vec();
    type Parse = fn(&[u8]) -> Result<(), TpmError>;
    let parse_quote: Parse = |b| Quote::parse(b).map(drop);
    let parse_signature: Parse = |b| Signature::parse(b).map(drop);
    let parse_public: Parse = |b| Public::parse(b).map(drop);
    for (name, good, parse, offset, patch) in [
        ("magic", &quote, parse_quote, 0, &[0xFE][..]),
        ("type certify", &quote, parse_quote, 4, &[0x80, 0x17]),
        ("qualifiedSigner too long", &quote, parse_quote, 6, &[0xFF, 0xFF]),
        ("extraData too long", &quote, parse_quote, 42, &[0, 65]),
        ("clock safe is 2", &quote, parse_quote, 92, &[2]),
        ("two banks", &quote, parse_quote, 101, &[0, 0, 0, 2]),
        ("SHA-1 bank", &quote, parse_quote, 105, &[0, 4]),
        ("select of 4 octets", &quote, parse_quote, 107, &[4]),
        ("HMAC signature", &signature, parse_signature, 0, &[0, 5]),
        ("SHA-1 signature", &signature, parse_signature, 2, &[0, 4]),
        ("empty R", &signature, parse_signature, 4, &[0, 0]),
        ("R of 64 bytes", &signature, parse_signature, 4, &[0, 64]),
        ("keyed hash object", &ak, parse_public, 0, &[0, 8]),
        ("SHA-1 name", &ak, parse_public, 2, &[0, 4]),
        ("reserved attribute", &ak, parse_public, 4, &[0x80]),
        ("reserved attribute 0", &ak, parse_public, 7, &[0x73]),
        ("short policy", &ak, parse_public, 8, &[0, 1]),
        ("ECDAA scheme", &ak, parse_public, 12, &[0, 0x1A]),
        ("curve P-384", &ak, parse_public, 16, &[0, 4]),
        ("KDF", &ak, parse_public, 18, &[0, 0x20]),
        ("x of 33 bytes", &ak, parse_public, 20, &[0, 33]),
        ("AES-256", &ek_rsa, parse_public, 44, &[1, 0]),
        ("AES in CBC mode", &ek_rsa, parse_public, 46, &[0, 0x42]),
        ("RSA 1024", &ek_rsa, parse_public, 50, &[4, 0]),
        ("exponent 3", &ek_rsa, parse_public, 52, &[0, 0, 0, 3]),
        ("modulus of 255 bytes", &ek_rsa, parse_public, 56, &[0, 255]),
    ] {
        parse(good).unwrap();
        let mut bad = good.clone();
        bad[offset..offset + patch.len()].copy_from_slice(patch);
        assert_ne!(&bad, good, "{name}: no effect");
        assert!(parse(&bad).is_err(), "{name}");
    }
    for (name, good, parse) in
        [("quote", quote, parse_quote), ("signature", signature, parse_signature), ("public", ak, parse_public)]
    {
        for len in 0..good.len() {
            assert!(parse(&good[..len]).is_err(), "{name} cut to {len}");
        }
        let longer = [&good[..], &[0]].concat();
        assert!(matches!(parse(&longer), Err(TpmError::Trailing { got: 1, .. })), "{name}");
    }
}

#[test]
fn credential_structures() {
    let id = IdObject { integrity_hmac: [7; 32], enc_identity: vec![9; 34] };
    assert_eq!(id.to_bytes()[..4], [0, 68, 0, 32]);
    assert_eq!(IdObject::parse(&id.to_bytes()).unwrap(), id);
    for secret in [EncryptedSecret::Rsa2048(vec![1; 256]), EncryptedSecret::EccP256 { x: [2; 32], y: [3; 32] }] {
        let bytes = secret.to_bytes();
        assert_eq!(EncryptedSecret::parse(&bytes).unwrap(), secret);
        assert!(EncryptedSecret::parse(&bytes[..bytes.len() - 1]).is_err());
        assert!(EncryptedSecret::parse(&[&bytes[..], &[0]].concat()).is_err());
    }
    let mut bad = id.to_bytes();
    bad[3] = 20;
    assert!(IdObject::parse(&bad).is_err());
    assert!(IdObject::parse(&[0, 34, 0, 32]).is_err());
    assert!(IdObject::parse(&[&[0, 36, 0, 32][..], &[1; 34]].concat()).is_err(), "encIdentity of 2 bytes");
}

proptest! {
    /// Whatever a parser accepts it writes back unchanged.
    #[test]
    fn accepted_bytes_round_trip(index in 0_usize..600, value: u8, which in 0_usize..5) {
        let swtpm = json("swtpm.json");
        let (kind, member) =
            [("p256", "quote"), ("p256", "signature"), ("rsa2048", "signature"), ("p256", "ak_public"), ("rsa2048", "ek_public")][which];
        let mut raw = bytes(&swtpm[kind][member]);
        let len = raw.len();
        raw[index % len] = value;
        match member {
            "quote" => if let Ok(quote) = Quote::parse(&raw) { prop_assert_eq!(quote.to_bytes(), raw) },
            "signature" => if let Ok(signature) = Signature::parse(&raw) { prop_assert_eq!(signature.to_bytes(), raw) },
            _ => if let Ok(public) = Public::parse_sized(&raw) { prop_assert_eq!(public.to_sized_bytes(), raw) },
        }
    }

    /// No bytes make a parser panic.
    #[test]
    fn any_bytes(raw in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = (Quote::parse(&raw), Signature::parse(&raw), Public::parse(&raw), Public::parse_sized(&raw));
        let _ = (IdObject::parse(&raw), EncryptedSecret::parse(&raw));
    }
}
