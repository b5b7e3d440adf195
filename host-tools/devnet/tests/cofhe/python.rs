//! What the published Python node's `python` mode sends, and how it unseals.

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use blf_devnet::cofhe::Knobs;
use blf_evidence::eip191::Signature;
use hkdf::Hkdf;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::net::{Account, CHAIN, Net, START, VALUES, document, hexed, unhexed};

alloy_sol_types::sol! {
    struct Permit { address issuer; uint256 expiration; bytes32 sealingKey; }
}

struct Node {
    account: Account,
    sealing: PrivateKey,
    public: [u8; 32],
}

impl Node {
    fn new(account: Account) -> Self {
        let sealing = PrivateKey::from_private_key(&X25519, &[9; 32]).unwrap();
        let public = sealing.compute_public_key().unwrap().as_ref().try_into().unwrap();
        Self { account, sealing, public }
    }

    fn permit(&self, expiration: u64) -> Value {
        permit(&self.account, expiration, self.public)
    }

    fn unseal(&self, sealed: &[u8]) -> u128 {
        assert!(sealed.len() >= 65, "the node takes no fewer");
        let (public, rest) = sealed.split_at(32);
        let (iv, text) = rest.split_at(12);
        let key = agree(&self.sealing, UnparsedPublicKey::new(&X25519, public), (), |shared| {
            let mut key = [0; 32];
            Hkdf::<Sha256>::new(None, shared).expand(b"CoFHE seal", &mut key).unwrap();
            Ok(key)
        });
        let cipher = Aes256Gcm::new(&key.unwrap().into());
        let value = cipher.decrypt(&Nonce::try_from(iv).unwrap(), text).unwrap();
        u128::from_be_bytes(value.try_into().unwrap())
    }
}

fn permit(account: &Account, expiration: u64, sealing_key: [u8; 32]) -> Value {
    use alloy_sol_types::private::U256;
    use alloy_sol_types::{Eip712Domain, SolStruct as _};
    let typed = Permit {
        issuer: account.address().0.into(),
        expiration: U256::from(expiration),
        sealingKey: sealing_key.into(),
    };
    let domain = Eip712Domain {
        name: Some("CoFHE".into()),
        version: Some("1".into()),
        chain_id: Some(U256::from(CHAIN)),
        verifying_contract: Some([0; 20].into()),
        salt: None,
    };
    let signature = Signature::sign_digest(&account.0, &typed.eip712_signing_hash(&domain).0);
    let (issuer, sealing_key) = (account.address(), hexed(&sealing_key));
    json!({ "issuer": issuer, "expiration": expiration, "sealingKey": sealing_key, "signature": signature })
}

fn ask(net: &Net, method: &str, params: Value) -> (u16, Value) {
    let request = json!({ "jsonrpc": "2.0", "method": method, "params": params, "id": 1 });
    let answer = net.cofhe.python("POST", "/cofhe", request.to_string().as_bytes());
    (answer.status, document(&answer))
}

/// As Python's `hex()` writes a number.
fn python_hex(handle: &[u8; 32]) -> String {
    format!("0x{}", hex::encode(handle).trim_start_matches('0'))
}

#[test]
fn decrypts_what_the_prompt_key_store_allows() {
    let net = Net::new();
    let (node, stranger) = (Node::new(Account::new(2)), Node::new(Account::new(3)));
    let handles = net.store(&Account::new(1), &[node.account.address()]);
    for (handle, value) in handles.iter().zip(VALUES) {
        let params = |node: &Node| json!([python_hex(handle), node.permit(START + 604_800)]);
        let (status, answer) = ask(&net, "cofhe_decryptForView", params(&node));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(node.unseal(&unhexed(&answer["result"]["sealedValue"])), value);
        let (status, answer) = ask(&net, "cofhe_decryptForView", params(&stranger));
        assert_eq!((status, &answer["error"]["code"]), (403, &(-32_003).into()), "{answer}");
        net.cofhe.set(Knobs { python_checks: false, ..Knobs::default() });
        let (status, answer) = ask(&net, "cofhe_decryptForView", params(&stranger));
        assert_eq!((status, stranger.unseal(&unhexed(&answer["result"]["sealedValue"]))), (200, value));
        net.cofhe.set(Knobs::default());
    }
}

#[test]
fn encrypts_for_the_node_itself() {
    let net = Net::new();
    let node = Node::new(Account::new(2));
    let (_, answer) = ask(&net, "cofhe_encrypt", json!(["0x7", "uint128", node.account.address()]));
    let handle: [u8; 32] = unhexed(&answer["result"]["handle"]).try_into().unwrap();
    assert_eq!(handle[30..], [6, 0]);
    let user = Node::new(Account::new(1));
    let params = |node: &Node| json!([python_hex(&handle), node.permit(START + 1)]);
    let (_, answer) = ask(&net, "cofhe_decryptForView", params(&node));
    assert_eq!(node.unseal(&unhexed(&answer["result"]["sealedValue"])), 7);
    // The user gets at it only when the ICL lets them.
    assert_eq!(ask(&net, "cofhe_decryptForView", params(&user)).0, 403);
    net.chain.allow(handle, user.account.address()).unwrap();
    let (_, answer) = ask(&net, "cofhe_decryptForView", params(&user));
    assert_eq!(user.unseal(&unhexed(&answer["result"]["sealedValue"])), 7);
}

/// Recorded from the published node 0.3.5: its permit for key 1001.
#[test]
fn takes_the_published_nodes_permit() {
    let recorded = "0x760fc9db2690c33646730953b1ed71ec1b1358b51f2be7a5dcfcb748c47fe43d2b128adeb85608b5572ce89529c48081e4585429328635af2989a6cd333688311c";
    let account = Account::of_number(1001);
    let permit = permit(&account, 1_795_762_773, [7; 32]);
    assert_eq!(permit["signature"], recorded);
    let net = Net::new();
    let [handle, _] = net.store(&Account::new(1), &[account.address()]);
    assert_eq!(ask(&net, "cofhe_decryptForView", json!([hexed(&handle), permit])).0, 200);
}

#[test]
fn requests_that_are_wrong() {
    let net = Net::new();
    let node = Node::new(Account::new(2));
    let [handle, _] = net.store(&Account::new(1), &[node.account.address()]);
    let handle = hexed(&handle);
    let good = node.permit(START + 1);
    let with = |name: &str, value: Value| {
        let mut permit = good.clone();
        permit[name] = value;
        assert_ne!(permit, good);
        ask(&net, "cofhe_decryptForView", json!([handle, permit]))
    };
    let decrypt = |params| ask(&net, "cofhe_decryptForView", params);
    let encrypt = |params| ask(&net, "cofhe_encrypt", params);
    let account = node.account.address();
    for ((status, answer), wanted, code, says) in [
        (with("expiration", START.into()), 403, -32_003, "permit.expiration: wanted a later time"),
        (with("expiration", (START + 2).into()), 403, -32_003, "permit.signature: wanted one by 0x"),
        (with("sealingKey", hexed(&[1; 32]).into()), 403, -32_003, "permit.signature: wanted one by 0x"),
        (with("signature", "0x".into()), 200, -32_602, "permit.signature: wanted 0x and 65 bytes of hex"),
        (with("issuer", "0x".into()), 200, -32_602, "permit.issuer: wanted 0x and 40 hex digits"),
        (with("more", 1.into()), 200, -32_602, "permit: unknown field `more`"),
        (decrypt(json!(["0x", good])), 200, -32_602, "handle: wanted 0x and 1 to 64 hex digits"),
        (decrypt(json!([1, good])), 200, -32_602, "handle: wanted 0x and 1 to 64 hex digits"),
        (decrypt(json!([handle])), 200, -32_602, "cofhe_decryptForView: wanted other parameters"),
        (encrypt(json!([hexed(&[1; 17]), "uint128", account])), 200, -32_602, "value: wanted at most 128 bits"),
        (encrypt(json!(["0x1", "uint64", account])), 200, -32_602, "cofhe_encrypt: wanted other parameters"),
        (encrypt(json!(["0x1", "uint128", "0x1"])), 200, -32_602, "account: wanted 0x and 40 hex digits"),
        (
            ask(&net, "eth_chainId", json!([])),
            200,
            -32_601,
            "method eth_chainId: this devnet has cofhe_decryptForView, cofhe_encrypt",
        ),
    ] {
        assert_eq!((status, &answer["error"]["code"]), (wanted, &code.into()), "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().starts_with(says), "{answer}: wanted {says}");
    }
}
