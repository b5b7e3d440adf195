//! The existing network in one process: a legacy devnet with its chain and CoFHE, three nodes of ours, and a user who speaks
//! as users do today.

mod beside;
mod python;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blf::client::Client;
use blf_agent::vault::Ended;
use blf_bridge::cofhe::{
    ClearInputs, Domain, Handle, Inquiry, KeyPublish as _, Next, Permission, SealingKey, VERIFY_PATH, join,
    output_key_job_id, verify_answer, verify_body,
};
use blf_bridge::{Key, Secret, blob, legacy};
use blf_contracts::prompt_key_store;
use blf_contracts::transaction::Transaction;
use blf_devnet::{Devnet, Faults, LegacyOptions, Options, Running};
use blf_evidence::eip191::{Signature, address};
use blf_evidence::network::Resolve;
use blf_evidence::profile::{Host, NetworkProfile};
use blf_evidence::telemetry::{Event, JobState};
use blf_evidence::{Address, Hex, UnixTime};
use blf_tests::legacy::{LegacyNode, Setup, profile};
use blf_tests::node::{model_pack, quick};
use bytes::Bytes;
use hyper::{HeaderMap, Method};
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const PROMPT: &str = "A prompt that nobody but vault and user may see, 83401-77.";

/// A devnet, nodes, and a user.
struct Net {
    runtime: Runtime,
    running: Running,
    stop: oneshot::Sender<()>,
    nodes: Vec<Node>,
    user: User,
}

struct Node {
    node: LegacyNode,
    events: Arc<Mutex<Vec<Event>>>,
}

struct User {
    key: SigningKey,
    client: Client,
    profile: NetworkProfile,
}

impl Net {
    fn start(count: usize, change: impl FnOnce(&mut LegacyOptions)) -> Self {
        let runtime = Runtime::new().unwrap();
        let mut legacy = LegacyOptions { assignment_cache: 0, mock_chain: false, ..LegacyOptions::default() };
        change(&mut legacy);
        let (stop, stopped) = oneshot::channel();
        let mut options = Options::legacy(legacy).unwrap();
        options.profile = profile();
        let running = runtime.block_on(Devnet::start(options, async { drop(stopped.await) })).unwrap();
        let profile = profile();
        let resolve: Vec<Resolve> =
            profile.hosts().into_iter().map(|host| Resolve { address: running.address, host: host.clone() }).collect();
        let client = Client::new(&profile.tls_roots, resolve).unwrap();
        let key = SigningKey::from_slice(Key::random().unwrap().expose()).unwrap();
        let mut net = Self { runtime, running, stop, nodes: Vec::new(), user: User { key, client, profile } };
        for _ in 0..count {
            net.add();
        }
        net
    }

    fn add(&mut self) {
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let heard = Arc::clone(&events);
        let mut setup =
            Setup::new(self.running.address, Arc::new(move |event| heard.lock().unwrap().push(event.clone())));
        setup.record = true;
        setup.limits = quick();
        setup.pack = Some(model_pack());
        self.nodes.push(Node { node: LegacyNode::start(setup), events });
    }

    /// The addresses, once all are admitted.
    fn quorum(&self) -> Vec<Address> {
        for node in &self.nodes {
            node.until("admission", |event| matches!(event, Event::Certified { .. }));
        }
        self.nodes.iter().map(|node| node.node.address).collect()
    }

    fn ask(&self, model: &str, quorum: &[Address]) -> (String, Value) {
        self.runtime.block_on(self.user.ask(model, quorum))
    }

    /// Stops all in order; gives what the couriers saw.
    fn end(self) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        for Node { node, .. } in self.nodes {
            let saw = Arc::clone(node.courier_saw.as_ref().unwrap());
            assert_eq!(node.stop(), Ended::PowerOff);
            seen.push(std::mem::take(&mut *saw.lock().unwrap()));
        }
        self.stop.send(()).unwrap();
        self.runtime.block_on(self.running.stopped());
        seen
    }
}

impl Node {
    fn until(&self, what: &str, mut is: impl FnMut(&Event) -> bool) {
        let start = Instant::now();
        while !self.events().iter().any(&mut is) {
            assert!(start.elapsed() < Duration::from_secs(120), "no {what}: {:?}", self.events());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    fn states(&self) -> Vec<JobState> {
        let state = |event: &Event| match event {
            Event::Job { state, .. } => Some(*state),
            _ => None,
        };
        self.events().iter().filter_map(state).collect()
    }
}

impl User {
    fn address(&self) -> Address {
        address(self.key.verifying_key())
    }

    /// Asks leader first, then verifiers; gives the task's id and what the coordinator says of it at last.
    async fn ask(&self, model: &str, quorum: &[Address]) -> (String, Value) {
        let task = self.submit(model, quorum).await;
        let path = format!("/v1/inference/task/{task}");
        for _ in 0..600 {
            let status = self.send(&self.profile.icl, Method::GET, &path, String::new()).await;
            if status["status"] != "QUEUED" && status["status"] != "RUNNING" {
                return (task, status);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("no decision on {task}");
    }

    /// Seals a prompt, stores its key for the quorum, and submits; gives the task's id.
    async fn submit(&self, model: &str, quorum: &[Address]) -> String {
        let key = Key::random().unwrap();
        let sealed = blob::seal(&key, &Secret::new(PROMPT.into())).unwrap();
        let cid = self.upload(&sealed).await;
        let task = Hex(*Key::random().unwrap().expose());
        let transaction = self.store(task, &key, quorum).await;
        let [high, low] = self.stored(task).await.map(|handle| handle.decimal());
        let task = format!("0x{task}");
        let request = json!({
            "developer_address": self.address(), "task_id": task, "model_id": model, "mode": "text", "permits": [],
            "text_request": {
                "prompt_cid": cid, "encrypted_prompt_key": {"high": high, "low": low}, "model_id": model,
                "coverage_enabled": false,
            },
            "leader_address": quorum[0], "verifier_addresses": &quorum[1..], "verifier_count": quorum.len() - 1,
            "metadata": {"prompt_key_store_tx": format!("0x{transaction}")},
        });
        self.send(&self.profile.icl, Method::POST, "/v1/inference/requests", request.to_string()).await;
        task
    }

    /// Opens the answer with the key that the leader stored.
    async fn open(&self, task: &str, status: &Value) -> Secret {
        let handles = self.stored(output_key_job_id(task)).await;
        let sealing = SealingKey::generate().unwrap();
        let cofhe = self.profile.cofhe.as_ref().unwrap();
        let domain = Domain {
            chain_id: self.profile.chain_id,
            name: cofhe.acl_name.clone(),
            verifying_contract: cofhe.acl,
            version: cofhe.acl_version.clone(),
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
                let (status, body) =
                    self.exchange(&cofhe.threshold, method, &call.path, call.body.unwrap_or_default().to_owned()).await;
                match inquiry.answer(Duration::from_secs(1), status, &body).unwrap() {
                    Next::Done(sealed) => break sealed,
                    Next::Wait(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            halves.push(sealing.unseal(&sealed).unwrap());
        }
        let cid = status["output_cid"].as_str().unwrap();
        let (code, bytes) =
            self.exchange(&self.profile.blob_gateway, Method::GET, &format!("/ipfs/{cid}"), String::new()).await;
        assert_eq!(code, 200);
        blob::open(&join(&halves[0], &halves[1]), &bytes).unwrap()
    }

    async fn upload(&self, sealed: &[u8]) -> String {
        let head = b"--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        let body = [&head[..], sealed, b"\r\n--xyz--\r\n"].concat();
        let headers: HeaderMap =
            [(hyper::header::CONTENT_TYPE, "multipart/form-data; boundary=xyz".parse().unwrap())].into_iter().collect();
        let path = "/v1/inference/upload-prompt";
        let reply =
            self.client.request(&self.profile.icl, Method::POST, path, headers, body.into(), 4096).await.unwrap();
        let reply: Value = serde_json::from_slice(&reply.body).unwrap();
        reply["cid"].as_str().unwrap().to_owned()
    }

    /// Stores the prompt key under the task for the quorum; gives the transaction's hash.
    async fn store(&self, task: Hex<32>, key: &Key, quorum: &[Address]) -> Hex<32> {
        let cofhe = self.profile.cofhe.as_ref().unwrap();
        let chain_id = self.profile.chain_id;
        let list = ClearInputs.packed_list(key, self.address(), chain_id).unwrap();
        let body = verify_body(&list, self.address(), chain_id).unwrap();
        let body = String::from_utf8(body.expose().to_vec()).unwrap();
        let (status, body) = self.exchange(&cofhe.verifier, Method::POST, VERIFY_PATH, body).await;
        let [high, low] = verify_answer(status, &body).unwrap();
        let nonce = self.rpc("eth_getTransactionCount", json!([self.address(), "pending"])).await;
        let transaction = Transaction {
            chain_id,
            nonce: u64::from_str_radix(nonce.as_str().unwrap().trim_start_matches("0x"), 16).unwrap(),
            max_priority_fee_per_gas: 1_000_000,
            max_fee_per_gas: 1_000_000_000_000,
            gas_limit: 5_000_000,
            to: cofhe.prompt_key_store,
            input: prompt_key_store::store_key(task.0, &(&high).into(), &(&low).into(), quorum),
        };
        let signed = transaction.signed(&Signature::sign_digest(&self.key, &transaction.digest()));
        let hash = self.rpc("eth_sendRawTransaction", json!([format!("0x{}", hex::encode(&signed.raw))])).await;
        assert_eq!(hash, format!("0x{}", Hex(signed.hash)));
        let receipt = self.rpc("eth_getTransactionReceipt", json!([hash])).await;
        assert_eq!(receipt["status"], "0x1");
        Hex(signed.hash)
    }

    /// The handles that are stored under a job's id.
    async fn stored(&self, job: Hex<32>) -> [Handle; 2] {
        let to = self.profile.cofhe.as_ref().unwrap().prompt_key_store;
        let data = format!("0x{}", hex::encode(prompt_key_store::get_encrypted_key(job.0)));
        let returned = self.rpc("eth_call", json!([{"to": to, "data": data}, "latest"])).await;
        prompt_key_store::encrypted_key(&hex::decode(returned.as_str().unwrap().trim_start_matches("0x")).unwrap())
            .unwrap()
            .map(Handle)
    }

    async fn rpc(&self, method: &str, params: Value) -> Value {
        let rpc = &self.profile.cofhe.as_ref().unwrap().rpc;
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let reply = self.send(rpc, Method::POST, "/", request).await;
        assert!(reply["error"].is_null(), "{method}: {reply}");
        reply["result"].clone()
    }

    async fn send(&self, host: &Host, method: Method, path: &str, body: String) -> Value {
        let (status, body) = self.exchange(host, method, path, body).await;
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    async fn exchange(&self, host: &Host, method: Method, path: &str, body: String) -> (u16, Bytes) {
        let headers: HeaderMap =
            [(hyper::header::CONTENT_TYPE, "application/json".parse().unwrap())].into_iter().collect();
        let reply = self.client.request(host, method, path, headers, body.into(), 1 << 20).await.unwrap();
        (reply.status.as_u16(), reply.body)
    }
}

/// One leader and two verifiers answer with the mock, then with the model; only vault and user see what is said.
#[test]
fn a_prompt_becomes_an_answer_that_its_user_opens() {
    let net = Net::start(3, |_| ());
    let quorum = net.quorum();
    let mut texts = Vec::new();
    for model in ["mock", "blf-tiny-1"] {
        let (task, status) = net.ask(model, &quorum);
        assert_eq!(status["status"], "ACCEPTED", "{status}");
        let answer = net.runtime.block_on(net.user.open(&task, &status));
        let cid = status["output_cid"].as_str().unwrap();
        assert_eq!(status["commitment_hash"], legacy::commitment(cid, &answer).to_string());
        texts.push(String::from_utf8(answer.expose().to_vec()).unwrap());
    }
    let mock = legacy::mock_output("mock", &Secret::new(PROMPT.into()));
    assert_eq!(texts[0].as_bytes(), mock.expose());
    assert!(!texts[1].is_empty() && texts[0] != texts[1]);

    // The second verifier's word may come after the decision.
    for node in &net.nodes {
        node.until("two jobs done", |_| {
            node.states().iter().filter(|state| **state == JobState::Revealed).count() == 2
        });
    }
    let [leader, verifiers @ ..] = net.nodes.as_slice() else { panic!() };
    let states: BTreeSet<_> = leader.states().into_iter().map(|state| format!("{state:?}")).collect();
    let wanted = ["Claimed", "KeyReceived", "PromptFetched", "Running", "AnswerStored", "KeyPublished", "Revealed"];
    assert_eq!(states, wanted.map(str::to_owned).into());
    assert!(verifiers.iter().all(|node| !node.states().contains(&JobState::AnswerStored)));
    for (number, saw) in net.end().into_iter().enumerate() {
        for secret in [PROMPT, &texts[0], &texts[1]] {
            let found = saw.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "the courier of node {number} saw {secret:?}");
        }
    }
}

/// The coordinator loses its nodes: each notices at its next poll and attests again.
#[test]
fn a_forgotten_node_comes_back() {
    let faults = Faults::default();
    let net = Net::start(3, |options| options.faults = faults.clone());
    let quorum = net.quorum();
    faults.forget_nodes();
    for node in &net.nodes {
        node.until("another attestation", |event| matches!(event, Event::Renewed { .. }));
    }
    let (_, status) = net.ask("mock", &quorum);
    assert_eq!(status["status"], "ACCEPTED", "{status}");
    net.end();
}

/// A model that nobody has is not claimed, and nobody answers for it.
#[test]
fn an_unknown_model_is_left_alone() {
    let net = Net::start(3, |options| options.claim_timeout = 5);
    let quorum = net.quorum();
    let user = &net.user;
    let asked = async { tokio::time::timeout(Duration::from_secs(5), user.ask("qwen2.5-7b", &quorum)).await };
    assert!(net.runtime.block_on(asked).is_err(), "still queued");
    for node in &net.nodes {
        node.until(
            "the reason",
            |event| matches!(event, Event::JobFailed { code, .. } if code.to_string() == "MODEL_UNKNOWN"),
        );
        assert!(node.states().is_empty(), "{:?}", node.states());
    }
    net.end();
}
