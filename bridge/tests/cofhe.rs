//! Against the network's own SDK: digests, signatures and exports byte for byte, and boxes that it sealed.

use blf_bridge::Key;
use blf_bridge::cofhe::{Domain, Permission, PermitError, Sealed, SealingKey, Sharing, UnsealError};
use blf_evidence::eip191::{Signature, address};
use blf_evidence::{Address, Hex, UnixTime};
use k256::ecdsa::SigningKey;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Vectors {
    domain: SdkDomain,
    cases: Vec<Case>,
    sealed: Vec<Box_>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SdkDomain {
    name: String,
    version: String,
    chain_id: u64,
    verifying_contract: Address,
}

#[derive(Deserialize)]
struct Case {
    #[serde(rename = "type")]
    kind: String,
    permission: Box<RawValue>,
    sealing_sk: Hex<32>,
    eip712: String,
    exported: Option<String>,
}

#[derive(Deserialize)]
struct Box_ {
    v: String,
    sk: Hex<32>,
    pk: Hex<32>,
    #[serde(flatten)]
    sealed: Sealed,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors/cofhe-sdk-0.5.1.json")).unwrap()
}

fn domain() -> Domain {
    let SdkDomain { name, version, chain_id, verifying_contract } = vectors().domain;
    Domain { chain_id, name, verifying_contract, version }
}

/// The public development accounts 0 and 1 of Hardhat.
fn account(number: usize) -> SigningKey {
    let keys = [
        "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
        "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    ];
    SigningKey::from_slice(&hex::decode(keys[number]).unwrap()).unwrap()
}

fn address_of(number: usize) -> Address {
    address(account(number).verifying_key())
}

fn sign(number: usize) -> impl FnOnce(&[u8; 32]) -> Signature {
    move |digest| Signature::sign_digest(&account(number), digest)
}

fn sealing_key(private: &Hex<32>) -> SealingKey {
    let key = Key::fill(|bytes| {
        bytes.copy_from_slice(&private.0);
        Ok::<(), ()>(())
    });
    SealingKey::new(key.unwrap())
}

/// One case: its permission as text without white space, and parsed.
fn case(kind: &str) -> (Case, String, Permission) {
    let case = vectors().cases.into_iter().find(|case| case.kind == kind).unwrap();
    let text: String = case.permission.get().split_whitespace().collect();
    let permission: Permission = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&permission).unwrap(), text, "{kind}: same members in the same order");
    assert_eq!(sealing_key(&case.sealing_sk).public().0, permission.sealing_key, "{kind}: sealing key pair");
    (case, text, permission)
}

#[test]
fn a_permit_for_oneself() {
    let (case, text, permission) = case("self");
    assert_eq!(format!("0x{}", hex::encode(permission.self_digest(&domain()))), case.eip712);
    let ours = Permission::issue_self(
        &domain(),
        address_of(0),
        permission.expiration,
        sealing_key(&case.sealing_sk).public(),
        sign(0),
    );
    assert_eq!(serde_json::to_string(&ours).unwrap(), text);
}

#[test]
fn a_permit_for_somebody_else() {
    let (case, _, permission) = case("sharing");
    assert_eq!(format!("0x{}", hex::encode(permission.shared_digest(&domain()))), case.eip712);
    let Permission { expiration, recipient, .. } = permission;
    let ours = Sharing::issue(&domain(), "Unnamed Permit", address_of(0), expiration, recipient, sign(0));
    assert_eq!(ours.issuer_signature, permission.issuer_signature);
    let exported = case.exported.unwrap();
    assert_eq!(ours.to_json().unwrap(), exported);
    assert_eq!(Sharing::parse(&exported).unwrap(), ours);
}

#[test]
fn a_permit_from_somebody_else() {
    let exported = case("sharing").0.exported.unwrap();
    let (case, text, permission) = case("recipient");
    assert_eq!(format!("0x{}", hex::encode(permission.recipient_digest(&domain()))), case.eip712);
    let sealing = sealing_key(&case.sealing_sk).public();
    let shared = Sharing::parse(&exported).unwrap();
    let ours = shared.clone().receive(&domain(), address_of(1), sealing, sign(1)).unwrap();
    assert_eq!(serde_json::to_string(&ours).unwrap(), text);
    let stranger = shared.receive(&domain(), address_of(0), sealing, |_| unreachable!("nothing is signed"));
    assert_eq!(stranger.err(), Some(PermitError::Recipient { wanted: address_of(0), got: address_of(1) }));
}

/// A host that names another contract, chain or version gets a signature that is worth nothing on the measured one.
#[test]
fn every_member_of_the_domain_is_signed() {
    let permission = case("self").2;
    let ours = domain();
    let others = [
        Domain { chain_id: 1, ..ours.clone() },
        Domain { name: "ACM".into(), ..ours.clone() },
        Domain { verifying_contract: Address([1; 20]), ..ours.clone() },
        Domain { version: "2".into(), ..ours.clone() },
    ];
    for other in others {
        assert_ne!(permission.self_digest(&other), permission.self_digest(&ours), "{other:?}");
        assert_ne!(permission.shared_digest(&other), permission.shared_digest(&ours), "{other:?}");
        assert_ne!(permission.recipient_digest(&other), permission.recipient_digest(&ours), "{other:?}");
    }
}

#[test]
fn every_signed_member_changes_the_digest() {
    type Change = fn(&mut Permission);
    let changes: [(&str, Change, [bool; 3]); 8] = [
        ("issuer", |p| p.issuer = Address([9; 20]), [true, true, false]),
        ("expiration", |p| p.expiration = UnixTime(9), [true, true, false]),
        ("recipient", |p| p.recipient = Address([9; 20]), [true, true, false]),
        ("validatorId", |p| p.validator_id = 9, [true, true, false]),
        ("validatorContract", |p| p.validator_contract = Address([9; 20]), [true, true, false]),
        ("sealingKey", |p| p.sealing_key = [9; 32], [true, false, true]),
        ("issuerSignature", |p| p.issuer_signature[0] ^= 1, [false, false, true]),
        ("recipientSignature", |p| p.recipient_signature = vec![9], [false, false, false]),
    ];
    let good = case("recipient").2;
    let digests =
        |p: &Permission| [p.self_digest(&domain()), p.shared_digest(&domain()), p.recipient_digest(&domain())];
    for (member, change, signed) in changes {
        let mut other = good.clone();
        change(&mut other);
        assert_ne!(other, good, "{member}: mutation had no effect");
        let differs = std::array::from_fn(|i| digests(&other)[i] != digests(&good)[i]);
        assert_eq!(differs, signed, "{member}");
    }
}

#[test]
fn a_shared_permit_of_another_form_is_refused() {
    let good = case("sharing").0.exported.unwrap();
    let signature = hex::encode(case("sharing").2.issuer_signature);
    let validator = |members: &str| good.replacen("\"issuerSignature\"", &format!("{members}\"issuerSignature\""), 1);
    let contract = r#""validatorContract":"0x0101010101010101010101010101010101010101","#;
    assert!(Sharing::parse(&validator(&format!(r#""validatorId":1,{contract}"#))).is_ok());
    for (wanted, bad) in [
        ("wanted both or neither", validator(r#""validatorId":1,"#)),
        ("wanted both or neither", validator(contract)),
        ("unknown variant `self`", good.replace("\"sharing\"", "\"self\"")),
        ("unknown field `sealingPair`", validator(r#""sealingPair":{},"#)),
        (
            "missing field `recipient`",
            good.replacen("\"recipient\": \"0x70997970C51812dc3A010C7d01b50e0d17dc79C8\",", "", 1),
        ),
        ("EIP-55", good.to_lowercase().replace("issuersignature", "issuerSignature")),
        ("time: wanted at most", good.replace("1800000001", "9007199254740992")),
        ("wanted 0x and hex digits", good.replace(&signature, "zz")),
        ("wanted 0x and hex digits", good.replace(&signature, &"ab".repeat(4097))),
        ("wanted at most 16384 bytes", format!("{good}{}", " ".repeat(16 * 1024))),
        ("wanted a JSON object", "[]".into()),
    ] {
        assert_ne!(bad, good);
        let error = Sharing::parse(&bad).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn boxes_of_the_sdk_open() {
    let mut opened = 0;
    for Box_ { v, sk, pk, sealed } in vectors().sealed {
        let key = sealing_key(&sk);
        assert_eq!(key.public(), pk);
        match v.parse::<u128>() {
            Ok(value) => {
                assert_eq!(u128::from_be_bytes(*key.unseal(&sealed).unwrap().expose()), value);
                opened += 1;
            }
            Err(_) => assert_eq!(key.unseal(&sealed).err(), Some(UnsealError::Range), "{v} is no half of a key"),
        }
    }
    assert_eq!(opened, 5);
}
