//! Against other implementations of the ABI and of transactions, and against the ABI that the published node ships.

use alloy_primitives::keccak256;
use blf_contracts::prompt_key_store::{self, Input, KeyStored};
use blf_contracts::transaction::{Signed, Transaction};
use blf_contracts::{AbiError, cofhe};
use blf_evidence::eip191::Signature;
use blf_evidence::{Address, Hex};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Calls {
    store_key: Vec<StoreKey>,
    key_stored: Vec<Log>,
    eip712_domain: String,
    is_allowed: String,
}

#[derive(Deserialize)]
struct StoreKey {
    job: Hex<32>,
    high: SdkInput,
    low: SdkInput,
    allowed: Vec<Hex<20>>,
    data: String,
}

#[derive(Deserialize)]
struct SdkInput {
    ct_hash: Hex<32>,
    security_zone: u8,
    utype: u8,
    signature: String,
}

#[derive(Deserialize)]
struct Log {
    topics: Vec<Hex<32>>,
    data: String,
    job: Hex<32>,
    submitter: Hex<20>,
    high: Hex<32>,
    low: Hex<32>,
    allowed: Vec<Hex<20>>,
}

#[derive(Deserialize)]
struct Sent {
    chain_id: String,
    nonce: String,
    gas_limit: String,
    max_priority_fee_per_gas: String,
    max_fee_per_gas: String,
    to: Hex<20>,
    input: String,
    digest: Hex<32>,
    raw: String,
    hash: Hex<32>,
}

fn calls() -> Calls {
    serde_json::from_str(include_str!("vectors/calls.json")).unwrap()
}

fn addresses(list: &[Hex<20>]) -> Vec<Address> {
    list.iter().map(|address| Address(address.0)).collect()
}

/// `name(types)` of a function or event, from its entry in an ABI.
fn signature(entry: &Value) -> String {
    fn types(parameters: &Value) -> String {
        let list = parameters.as_array().unwrap().iter().map(|p| match p["type"].as_str().unwrap() {
            "tuple" => format!("({})", types(&p["components"])),
            plain => plain.to_owned(),
        });
        list.collect::<Vec<_>>().join(",")
    }
    format!("{}({})", entry["name"].as_str().unwrap(), types(&entry["inputs"]))
}

fn abi(name: &str) -> Value {
    let abi: Value = serde_json::from_str(include_str!("vectors/PromptKeyStore.json")).unwrap();
    abi.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone()
}

#[test]
fn selectors_are_those_of_the_shipped_abi() {
    let input = Input { ct_hash: [1; 32], security_zone: 0, utype: 6, signature: vec![2; 65] };
    for (name, data, documented) in [
        ("storeKey", prompt_key_store::store_key([0; 32], &input, &input, &[]), "e6e58979"),
        ("getEncryptedKey", prompt_key_store::get_encrypted_key([0; 32]), "533688bb"),
    ] {
        assert_eq!(data[..4], keccak256(signature(&abi(name)))[..4], "{name}");
        assert_eq!(hex::encode(&data[..4]), documented, "{name}: as the network's documents have it");
    }
    let topic = keccak256(signature(&abi("KeyStored"))).0;
    let result = KeyStored::decode(&[topic], &[]);
    assert!(matches!(result, Err(AbiError::Malformed { what: "KeyStored", .. })), "the event is known: {result:?}");
    assert_eq!(hex::encode(cofhe::acl()), "de287359");
    assert_eq!(hex::encode(cofhe::eip712_domain()), "84b0196e");
}

#[test]
fn call_data_equals_another_implementation() {
    for StoreKey { job, high, low, allowed, data } in calls().store_key {
        let [high, low] = [high, low].map(|i| Input {
            ct_hash: i.ct_hash.0,
            security_zone: i.security_zone,
            utype: i.utype,
            signature: hex::decode(i.signature).unwrap(),
        });
        let ours = prompt_key_store::store_key(job.0, &high, &low, &addresses(&allowed));
        assert_eq!(hex::encode(ours), data);
    }
    let mut handle = [0; 32];
    (handle[0], handle[31]) = (0x80, 7);
    assert_eq!(hex::encode(cofhe::is_allowed(handle, Address([0x77; 20]))), calls().is_allowed);
    let data = prompt_key_store::get_encrypted_key([0xab; 32]);
    assert_eq!(hex::encode(&data[4..]), "ab".repeat(32));
}

#[test]
fn logs_of_another_implementation() {
    for log in calls().key_stored {
        let topics: Vec<_> = log.topics.iter().map(|topic| topic.0).collect();
        let data = hex::decode(&log.data).unwrap();
        let event = KeyStored::decode(&topics, &data).unwrap();
        let wanted = KeyStored {
            job: log.job.0,
            submitter: Address(log.submitter.0),
            high: log.high.0,
            low: log.low.0,
            allowed: addresses(&log.allowed),
        };
        assert_eq!(event, wanted);

        let mut other = topics.clone();
        other[0][0] ^= 1;
        assert_eq!(KeyStored::decode(&other, &data), Err(AbiError::Event { what: "KeyStored" }));
        assert_eq!(KeyStored::decode(&[], &data), Err(AbiError::Event { what: "KeyStored" }));
        let mut dirty = topics.clone();
        dirty[2][0] = 1;
        assert!(KeyStored::decode(&dirty, &data).is_err(), "a submitter of more than 20 bytes");
        assert!(KeyStored::decode(&topics[..2], &data).is_err(), "a topic is missing");
        assert!(KeyStored::decode(&[&topics[..], &[[0; 32]]].concat(), &data).is_err(), "a topic too many");
        for length in 0..data.len() {
            assert!(KeyStored::decode(&topics, &data[..length]).is_err(), "cut to {length} bytes");
        }
        let mut endless = data.clone();
        endless[96..128].fill(0xff);
        assert!(KeyStored::decode(&topics, &endless).is_err(), "a list of 2^256 - 1 nodes");
        endless[96..128].copy_from_slice(&[[0; 28].as_slice(), &[0x7f, 0xff, 0xff, 0xff]].concat());
        assert!(KeyStored::decode(&topics, &endless).is_err(), "a list of 2^31 - 1 nodes");
    }
}

#[test]
fn answers_of_contracts() {
    let data = hex::decode(calls().eip712_domain).unwrap();
    let domain = cofhe::domain(&data).unwrap();
    assert_eq!((domain.name.as_str(), domain.version.as_str()), ("ACL", "1"));
    assert_eq!(domain.chain_id[29..], [0x06, 0x6e, 0xee]);
    assert_eq!(domain.verifying_contract.to_string(), "0xa6Ea4b5291d044D93b73b3CFf3109A1128663E8B");
    for length in 0..data.len() {
        assert!(cofhe::domain(&data[..length]).is_err(), "cut to {length} bytes");
    }
    let mut word = [0; 32];
    word[12..].fill(0x11);
    assert_eq!(cofhe::acl_address(&word), Ok(Address([0x11; 20])));
    word[0] = 1;
    assert!(cofhe::acl_address(&word).is_err(), "more than 20 bytes");
    let mut word = [0; 32];
    assert_eq!(cofhe::allowed(&word), Ok(false));
    word[31] = 1;
    assert_eq!(cofhe::allowed(&word), Ok(true));
    word[31] = 2;
    assert!(cofhe::allowed(&word).is_err(), "no bool");
    let handles = [[0xab; 32], [0xcd; 32]];
    assert_eq!(prompt_key_store::encrypted_key(&handles.concat()), Ok(handles));
    for bad in [&[][..], &[0; 63]] {
        let error = prompt_key_store::encrypted_key(bad).unwrap_err();
        assert!(matches!(error, AbiError::Malformed { what: "getEncryptedKey", .. }), "{error}");
    }
}

#[test]
fn transactions_equal_other_implementations() {
    let mut key = [0; 32];
    key[30..].copy_from_slice(&1001u16.to_be_bytes());
    let key = k256::ecdsa::SigningKey::from_slice(&key).unwrap();
    let sent: Vec<Sent> = serde_json::from_str(include_str!("vectors/transactions.json")).unwrap();
    assert_eq!(sent.len(), 9);
    for sent in sent {
        let transaction = Transaction {
            chain_id: sent.chain_id.parse().unwrap(),
            nonce: sent.nonce.parse().unwrap(),
            max_priority_fee_per_gas: sent.max_priority_fee_per_gas.parse().unwrap(),
            max_fee_per_gas: sent.max_fee_per_gas.parse().unwrap(),
            gas_limit: sent.gas_limit.parse().unwrap(),
            to: Address(sent.to.0),
            input: hex::decode(sent.input).unwrap(),
        };
        assert_eq!(Hex(transaction.digest()), sent.digest);
        let Signed { raw, hash } = transaction.signed(&Signature::sign_digest(&key, &transaction.digest()));
        assert_eq!((hex::encode(raw), Hex(hash)), (sent.raw, sent.hash));
    }
}

/// r or s below 2^248, which one signature in 128 has, is written without its leading zeros.
#[test]
fn integers_of_a_signature_are_written_without_zeros() {
    let transaction = Transaction {
        chain_id: 1,
        nonce: 0,
        max_priority_fee_per_gas: 0,
        max_fee_per_gas: 0,
        gas_limit: 0,
        to: Address([0; 20]),
        input: vec![],
    };
    let mut signature = [0; 65];
    (signature[2], signature[63], signature[64]) = (0x80, 0x05, 28);
    let raw = transaction.signed(&Signature(signature)).raw;
    let tail = [&[0x01, 0x80 + 30, 0x80][..], &[0; 29], &[0x05]].concat();
    assert!(raw.ends_with(&tail), "{}", hex::encode(raw));
}

proptest::proptest! {
    #[test]
    fn hostile_bytes_are_values_or_errors(data in proptest::collection::vec(0u8..=255, 0..512)) {
        let topics: Vec<_> = calls().key_stored[0].topics.iter().map(|topic| topic.0).collect();
        let _ = KeyStored::decode(&topics, &data);
        let _ = cofhe::domain(&data);
        let words = data.len() / 32 >= 2;
        proptest::prop_assert_eq!(prompt_key_store::encrypted_key(&data).is_ok(), words);
    }
}
