//! The other side: accounts, transactions, permits, and a chain with services whose clock the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_rlp::{Encodable as _, Header};
use alloy_sol_types::private::{FixedBytes, U256};
use alloy_sol_types::{Eip712Domain, SolCall as _, SolStruct as _, sol};
use blf_devnet::chain::{Chain, Input};
use blf_devnet::cofhe::{Answer, Cofhe};
use blf_devnet::development;
use blf_evidence::eip191::Signature;
use blf_evidence::profile::CofheProfile;
use blf_evidence::{Address, UnixTime};
use crypto_box::aead::AeadInPlace as _;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};

pub(crate) const START: u64 = 1_795_165_688;
pub(crate) const CHAIN: u64 = 421_614;
pub(crate) const JOB: [u8; 32] = [0x0b; 32];
pub(crate) const VALUES: [u128; 2] = [0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, 7];

sol! {
    #[derive(Debug)]
    struct InEuint128 { uint256 ctHash; uint8 securityZone; uint8 utype; bytes signature; }
    function storeKey(bytes32 jobId, InEuint128 encHigh, InEuint128 encLow, address[] allowedNodes);
    function getEncryptedKey(bytes32 jobId) returns (uint256 high, uint256 low);
    function grantDecryptAccess(bytes32 jobId, address node);
    function storeOutputKey(bytes32 jobId, uint256 koHighHandle, uint256 koLowHandle, address userAddress);
    function outputKeys(bytes32 jobId) returns (uint256 high, uint256 low);
    function setICL(address icl);
    function icl() returns (address);
    event KeyStored(bytes32 indexed jobId, address indexed submitter, uint256 highHandle, uint256 lowHandle, address[] allowedNodes);
    event DecryptAccessGranted(bytes32 indexed jobId, address indexed node);
    event OutputKeyStored(bytes32 indexed jobId, uint256 koHighHandle, uint256 koLowHandle, address indexed userAddress);

    function acl() returns (address);
    function eip712Domain() returns (bytes1 fields, string name, string version, uint256 chainId, address verifyingContract, bytes32 salt, uint256[] extensions);
    function isAllowed(uint256 handle, address account) returns (bool);
    struct Permission {
        address issuer; uint64 expiration; address recipient; uint256 validatorId; address validatorContract;
        bytes32 sealingKey; bytes issuerSignature; bytes recipientSignature;
    }
    function checkPermitValidity(Permission permission) returns (bool);
    function isAllowedWithPermission(Permission permission, uint256 handle) returns (bool);

    struct PermissionedV2IssuerSelf {
        address issuer; uint64 expiration; address recipient; uint256 validatorId; address validatorContract; bytes32 sealingKey;
    }
}

/// Someone with a key.
pub(crate) struct Account(pub(crate) SigningKey);

/// A chain, its services and their clock.
pub(crate) struct Net {
    pub(crate) chain: Chain,
    pub(crate) cofhe: Cofhe,
    pub(crate) contracts: CofheProfile,
    clock: Arc<AtomicU64>,
}

/// An EIP-1559 transaction to be signed.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) chain_id: u64,
    pub(crate) nonce: u64,
    pub(crate) tip: u128,
    pub(crate) max_fee: u128,
    pub(crate) gas: u64,
    pub(crate) to: Vec<u8>,
    pub(crate) value: u64,
    pub(crate) data: Vec<u8>,
}

impl Account {
    pub(crate) fn new(byte: u8) -> Self {
        Self(SigningKey::from_slice(&[byte; 32]).unwrap())
    }

    pub(crate) fn of_number(number: u16) -> Self {
        let mut key = [0; 32];
        key[30..].copy_from_slice(&number.to_be_bytes());
        Self(SigningKey::from_slice(&key).unwrap())
    }

    pub(crate) fn address(&self) -> Address {
        development::address(&self.0)
    }

    /// A self permit as the network's SDK would send it, for an hour.
    pub(crate) fn permit(&self, net: &Net, sealing_key: &SecretKey) -> Value {
        let sealing_key = sealing_key.public_key().to_bytes();
        let typed = PermissionedV2IssuerSelf {
            issuer: self.address().0.into(),
            expiration: START + 3600,
            recipient: [0; 20].into(),
            validatorId: U256::ZERO,
            validatorContract: [0; 20].into(),
            sealingKey: sealing_key.into(),
        };
        let domain = Eip712Domain {
            name: Some("ACL".into()),
            version: Some("1".into()),
            chain_id: Some(U256::from(CHAIN)),
            verifying_contract: Some(net.contracts.acl.0.into()),
            salt: None,
        };
        let signature = Signature::sign_digest(&self.0, &typed.eip712_signing_hash(&domain).0);
        json!({
            "issuer": self.address(), "expiration": START + 3600, "recipient": format!("0x{}", "0".repeat(40)),
            "validatorId": 0, "validatorContract": format!("0x{}", "0".repeat(40)), "sealingKey": hexed(&sealing_key),
            "issuerSignature": signature, "recipientSignature": "0x",
        })
    }
}

impl Net {
    pub(crate) fn new() -> Self {
        Self::at(None)
    }

    pub(crate) fn at(path: Option<&std::path::Path>) -> Self {
        let time = Arc::new(AtomicU64::new(START));
        let clock = Arc::clone(&time);
        let profile = development::profile().unwrap();
        let chain = Chain::open(path, &profile, Arc::new(move || UnixTime(clock.load(Ordering::SeqCst)))).unwrap();
        Self { cofhe: Cofhe::new(chain.clone()), chain, contracts: profile.cofhe.unwrap(), clock: time }
    }

    pub(crate) fn set_clock(&self, time: u64) {
        self.clock.store(time, Ordering::SeqCst);
    }

    /// The result of an RPC method.
    pub(crate) fn rpc(&self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Code and message of an RPC method that fails.
    pub(crate) fn rpc_error(&self, method: &str, params: Value) -> (i64, String) {
        let answer = self.ask(method, params);
        let error = answer.get("error").unwrap_or_else(|| panic!("{method}: {answer}"));
        (error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().into())
    }

    fn ask(&self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.chain.rpc("POST", "/", request.to_string().as_bytes());
        assert_eq!(answer.status, 200);
        document(&answer)
    }

    /// What a contract returns, or the revert's data.
    pub(crate) fn call(&self, to: Address, data: &[u8]) -> Result<Vec<u8>, (String, Vec<u8>)> {
        let answer = self.ask("eth_call", json!([{ "to": to, "data": hexed(data) }, "latest"]));
        match answer.get("error") {
            None => Ok(unhexed(&answer["result"])),
            Some(error) => Err((error["message"].as_str().unwrap().into(), unhexed(&error["data"]))),
        }
    }

    /// Signs and sends a call of the PromptKeyStore with the account's next nonce: the receipt.
    pub(crate) fn send(&self, account: &Account, data: Vec<u8>) -> Value {
        let raw = self.draft(account, data).sign(account);
        let hash = self.rpc("eth_sendRawTransaction", json!([hexed(&raw)]));
        self.rpc("eth_getTransactionReceipt", json!([hash]))
    }

    pub(crate) fn draft(&self, account: &Account, data: Vec<u8>) -> Draft {
        let nonce = self.rpc("eth_getTransactionCount", json!([account.address(), "latest"]));
        let nonce = u64::from_str_radix(nonce.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap();
        let to = self.contracts.prompt_key_store.0.to_vec();
        Draft { chain_id: CHAIN, nonce, tip: 1_000_000, max_fee: 300_000_000, gas: 1_000_000, to, value: 0, data }
    }

    /// Two inputs that `account` may store.
    pub(crate) fn encrypt(&self, account: Address, values: [u128; 2]) -> [Input; 2] {
        let answer = self.cofhe.verifier("POST", "/verify", verify_body(account, &values).to_string().as_bytes());
        inputs(&answer)
    }

    /// A key stored by `account` for `nodes`: its handles.
    pub(crate) fn store(&self, account: &Account, nodes: &[Address]) -> [[u8; 32]; 2] {
        let inputs = self.encrypt(account.address(), VALUES);
        let receipt = self.send(account, store_key(&inputs, nodes));
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        self.chain.encrypted_key(JOB).unwrap().unwrap()
    }

    pub(crate) fn submit(&self, handle: [u8; 32], permit: &Value) -> Answer {
        let body = json!({ "ct_tempkey": hex::encode(handle), "host_chain_id": CHAIN, "permit": permit });
        self.cofhe.threshold("POST", "/v2/sealoutput", body.to_string().as_bytes())
    }
}

impl Draft {
    pub(crate) fn sign(&self, account: &Account) -> Vec<u8> {
        let unsigned = self.fields();
        let digest = alloy_sol_types::private::keccak256(enveloped(&unsigned));
        let Signature(signature) = Signature::sign_digest(&account.0, &digest);
        self.with(signature)
    }

    /// With this signature, whatever it is.
    pub(crate) fn with(&self, signature: [u8; 65]) -> Vec<u8> {
        let mut fields = self.fields();
        u64::from(signature[64] - 27).encode(&mut fields);
        for integer in signature[..64].chunks(32) {
            let zeros = integer.iter().take_while(|byte| **byte == 0).count();
            integer[zeros..].encode(&mut fields);
        }
        enveloped(&fields)
    }

    fn fields(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        self.chain_id.encode(&mut fields);
        self.nonce.encode(&mut fields);
        self.tip.encode(&mut fields);
        self.max_fee.encode(&mut fields);
        self.gas.encode(&mut fields);
        self.to[..].encode(&mut fields);
        self.value.encode(&mut fields);
        self.data[..].encode(&mut fields);
        Header { list: true, payload_length: 0 }.encode(&mut fields);
        fields
    }
}

fn enveloped(fields: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2];
    Header { list: true, payload_length: fields.len() }.encode(&mut bytes);
    [bytes, fields.to_vec()].concat()
}

/// The request of a user of the clear mode.
pub(crate) fn verify_body(account: Address, values: &[u128]) -> Value {
    let mut list = [&b"blf.clear/v1\0\0"[..], &account.0, &[0; 24], &CHAIN.to_be_bytes()].concat();
    list.extend(values.iter().flat_map(|value| value.to_be_bytes()));
    json!({ "packed_list": hex::encode(list), "account_addr": account, "security_zone": 0, "chain_id": CHAIN })
}

/// The inputs that the verifier signed, put together as the network's SDK does.
pub(crate) fn inputs(answer: &Answer) -> [Input; 2] {
    let answer = document(answer);
    assert_eq!(answer["status"], "success", "{answer}");
    let inputs = answer["data"].as_array().unwrap().iter().map(|input| Input {
        ct_hash: unhexed(&input["ct_hash"]).try_into().unwrap(),
        security_zone: 0,
        utype: 6,
        signature: [unhexed(&input["signature"]), vec![27 + u8::try_from(input["recid"].as_u64().unwrap()).unwrap()]]
            .concat(),
    });
    inputs.collect::<Vec<_>>().try_into().unwrap()
}

pub(crate) fn store_key(inputs: &[Input; 2], nodes: &[Address]) -> Vec<u8> {
    let [high, low] = inputs.each_ref().map(|input| InEuint128 {
        ctHash: U256::from_be_bytes(input.ct_hash),
        securityZone: input.security_zone,
        utype: input.utype,
        signature: input.signature.clone().into(),
    });
    let nodes = nodes.iter().map(|node| node.0.into()).collect();
    storeKeyCall { jobId: FixedBytes(JOB), encHigh: high, encLow: low, allowedNodes: nodes }.abi_encode()
}

/// Opens a box as a node does: the integer, or nothing if the box is not for this key.
pub(crate) fn unseal(secret: &SecretKey, sealed: &Value) -> Option<Vec<u8>> {
    let bytes = |name: &str| serde_json::from_value::<Vec<u8>>(sealed[name].clone()).unwrap();
    let public: [u8; 32] = bytes("public_key").try_into().unwrap();
    let nonce: [u8; 24] = bytes("nonce").try_into().unwrap();
    let data = bytes("data");
    let (tag, text) = data.split_first_chunk::<16>().unwrap();
    let mut text = text.to_vec();
    let reader = SalsaBox::new(&PublicKey::from(public), secret);
    reader.decrypt_in_place_detached(&nonce.into(), b"", &mut text, tag.into()).ok()?;
    Some(text)
}

/// Big-endian, without leading zeros but never empty, as the network writes it.
pub(crate) fn trimmed(value: u128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(15);
    bytes[zeros..].to_vec()
}

pub(crate) fn document(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

pub(crate) fn hexed(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

pub(crate) fn unhexed(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap_or_default().strip_prefix("0x").unwrap_or_default()).unwrap()
}
