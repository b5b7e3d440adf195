//! A user's account: stores keys on the chain for those who may read them, and reads what it may itself.

use std::time::Duration;

use blf::client::Client;
use blf_bridge::Key;
use blf_bridge::cofhe::{
    ClearInputs, Domain, Handle, Inquiry, KeyPublish as _, Next, Permission, SealingKey, VERIFY_PATH, join,
    verify_answer, verify_body,
};
use blf_contracts::prompt_key_store;
use blf_contracts::transaction::Transaction;
use blf_evidence::eip191::{Signature, address};
use blf_evidence::network::Resolve;
use blf_evidence::profile::{CofheProfile, Host, NetworkProfile};
use blf_evidence::{Address, Hex, UnixTime};
use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};

/// An account, and a client of its network.
pub struct Wallet {
    pub client: Client,
    pub key: SigningKey,
    pub profile: NetworkProfile,
    /// At which the chain's RPC answers.
    pub rpc_path: String,
}

impl Wallet {
    /// A new account in the network of `profile`, whose hosts answer where `resolve` says.
    pub fn new(profile: NetworkProfile, resolve: Vec<Resolve>) -> Self {
        let client = Client::new(&profile.tls_roots, resolve).unwrap();
        let key = SigningKey::from_slice(Key::random().unwrap().expose()).unwrap();
        Self { client, key, profile, rpc_path: "/".into() }
    }

    pub fn address(&self) -> Address {
        address(self.key.verifying_key())
    }

    fn cofhe(&self) -> &CofheProfile {
        self.profile.cofhe.as_ref().unwrap()
    }

    /// Stores a key under a job's id for `readers`; gives the transaction's hash.
    pub async fn store(&self, job: Hex<32>, key: &Key, readers: &[Address]) -> Hex<32> {
        let chain_id = self.profile.chain_id;
        let list = ClearInputs.packed_list(key, self.address(), chain_id).unwrap();
        let body = verify_body(&list, self.address(), chain_id).unwrap();
        let body = String::from_utf8(body.expose().to_vec()).unwrap();
        let (status, body) = self.exchange(&self.cofhe().verifier, Method::POST, VERIFY_PATH, body).await;
        let [high, low] = verify_answer(status, &body).unwrap();
        let nonce = self.transactions(self.address()).await;
        let transaction = Transaction {
            chain_id,
            nonce,
            max_priority_fee_per_gas: 1_000_000,
            max_fee_per_gas: 1_000_000_000_000,
            gas_limit: 5_000_000,
            to: self.cofhe().prompt_key_store,
            input: prompt_key_store::store_key(job.0, &(&high).into(), &(&low).into(), readers),
        };
        let signed = transaction.signed(&Signature::sign_digest(&self.key, &transaction.digest()));
        let hash = self.rpc("eth_sendRawTransaction", json!([format!("0x{}", hex::encode(&signed.raw))])).await;
        assert_eq!(hash, format!("0x{}", Hex(signed.hash)));
        let receipt = self.rpc("eth_getTransactionReceipt", json!([hash])).await;
        assert_eq!(receipt["status"], "0x1");
        Hex(signed.hash)
    }

    /// The handles that are stored under a job's id.
    pub async fn stored(&self, job: Hex<32>) -> [Handle; 2] {
        let data = format!("0x{}", hex::encode(prompt_key_store::get_encrypted_key(job.0)));
        let call = json!({"to": self.cofhe().prompt_key_store, "data": data});
        let returned = self.rpc("eth_call", json!([call, "latest"])).await;
        prompt_key_store::encrypted_key(&hex::decode(returned.as_str().unwrap().trim_start_matches("0x")).unwrap())
            .unwrap()
            .map(Handle)
    }

    /// The key behind two handles, as the threshold network shows it to this account.
    pub async fn read(&self, handles: [Handle; 2]) -> Key {
        let sealing = SealingKey::generate().unwrap();
        let domain = Domain {
            chain_id: self.profile.chain_id,
            name: self.cofhe().acl_name.clone(),
            verifying_contract: self.cofhe().acl,
            version: self.cofhe().acl_version.clone(),
        };
        let sign = |digest: &[u8; 32]| Signature::sign_digest(&self.key, digest);
        let until = UnixTime(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 600);
        let permit = Permission::issue_self(&domain, self.address(), until, sealing.public(), sign);
        let mut halves = Vec::new();
        for handle in handles {
            let mut inquiry = Inquiry::new(&handle, self.profile.chain_id, permit.clone()).unwrap();
            let sealed = loop {
                let call = inquiry.call();
                let method = if call.body.is_some() { Method::POST } else { Method::GET };
                let body = call.body.unwrap_or_default().to_owned();
                let (status, body) = self.exchange(&self.cofhe().threshold, method, &call.path, body).await;
                match inquiry.answer(Duration::from_secs(1), status, &body).unwrap() {
                    Next::Done(sealed) => break sealed,
                    Next::Wait(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            halves.push(sealing.unseal(&sealed).unwrap());
        }
        join(&halves[0], &halves[1])
    }

    /// Transactions that an account has sent.
    pub async fn transactions(&self, account: Address) -> u64 {
        let nonce = self.rpc("eth_getTransactionCount", json!([account, "pending"])).await;
        u64::from_str_radix(nonce.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    async fn rpc(&self, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let reply = self.send(&self.cofhe().rpc, Method::POST, &self.rpc_path, request).await;
        assert!(reply["error"].is_null(), "{method}: {reply}");
        reply["result"].clone()
    }

    /// A JSON document that a service gives.
    pub async fn send(&self, host: &Host, method: Method, path: &str, body: String) -> Value {
        let (status, body) = self.exchange(host, method, path, body).await;
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    /// Status and body of a service's answer.
    pub async fn exchange(&self, host: &Host, method: Method, path: &str, body: String) -> (u16, Bytes) {
        let headers: HeaderMap = [(CONTENT_TYPE, "application/json".parse().unwrap())].into_iter().collect();
        let reply = self.client.request(host, method, path, headers, body.into(), 1 << 20).await.unwrap();
        (reply.status.as_u16(), reply.body)
    }
}
