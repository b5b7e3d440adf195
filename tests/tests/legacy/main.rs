//! The existing network in one process: a legacy devnet with its chain and CoFHE, three nodes of ours, and a user who speaks
//! as users do today.

mod beside;
mod python;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blf_agent::vault::Ended;
use blf_bridge::cofhe::output_key_job_id;
use blf_bridge::{Key, Secret, blob, legacy};
use blf_devnet::{Devnet, Faults, LegacyOptions, Options, Running};
use blf_evidence::network::Resolve;
use blf_evidence::telemetry::{Event, JobState};
use blf_evidence::{Address, Hex};
use blf_tests::legacy::{LegacyNode, Setup, profile};
use blf_tests::node::{model_pack, quick};
use blf_tests::wallet::Wallet;
use hyper::{HeaderMap, Method};
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
    wallet: Wallet,
}

impl Net {
    fn start(count: usize, change: impl FnOnce(&mut LegacyOptions)) -> Self {
        Self::with_rpc("/", count, change)
    }

    /// With a chain RPC that answers at this path only; nodes and user know it.
    fn with_rpc(rpc_path: &str, count: usize, change: impl FnOnce(&mut LegacyOptions)) -> Self {
        let runtime = Runtime::new().unwrap();
        let mut legacy = LegacyOptions { assignment_cache: 0, mock_chain: false, ..LegacyOptions::default() };
        change(&mut legacy);
        let (stop, stopped) = oneshot::channel();
        let mut options = Options::legacy(legacy).unwrap();
        options.profile = profile();
        options.rpc_path = rpc_path.into();
        let running = runtime.block_on(Devnet::start(options, async { drop(stopped.await) })).unwrap();
        let profile = profile();
        let resolve: Vec<Resolve> =
            profile.hosts().into_iter().map(|host| Resolve { address: running.address, host: host.clone() }).collect();
        let mut user = User { wallet: Wallet::new(profile, resolve) };
        user.wallet.rpc_path = rpc_path.into();
        let mut net = Self { runtime, running, stop, nodes: Vec::new(), user };
        for _ in 0..count {
            net.add(Some(rpc_path));
        }
        net
    }

    fn add(&mut self, rpc_path: Option<&str>) {
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let heard = Arc::clone(&events);
        let mut setup =
            Setup::new(self.running.address, Arc::new(move |event| heard.lock().unwrap().push(event.clone())));
        setup.record = true;
        setup.rpc_path = rpc_path.map(str::to_owned);
        setup.limits = quick();
        // A verifier whose leader failed would wait for it.
        setup.limits.timings.drain = Duration::from_secs(10);
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
    /// Asks leader first, then verifiers; gives the task's id and what the coordinator says of it at last.
    async fn ask(&self, model: &str, quorum: &[Address]) -> (String, Value) {
        let task = self.submit(model, quorum).await;
        let status = self.decided(&task).await;
        (task, status)
    }

    /// What the coordinator says of a task at last.
    async fn decided(&self, task: &str) -> Value {
        let path = format!("/v1/inference/task/{task}");
        for _ in 0..600 {
            let status = self.wallet.send(&self.wallet.profile.icl, Method::GET, &path, String::new()).await;
            if status["status"] != "QUEUED" && status["status"] != "RUNNING" {
                return status;
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
        let transaction = self.wallet.store(task, &key, quorum).await;
        let [high, low] = self.wallet.stored(task).await.map(|handle| handle.decimal());
        let task = format!("0x{task}");
        let request = json!({
            "developer_address": self.wallet.address(), "task_id": task, "model_id": model, "mode": "text", "permits": [],
            "text_request": {
                "prompt_cid": cid, "encrypted_prompt_key": {"high": high, "low": low}, "model_id": model,
                "coverage_enabled": false,
            },
            "leader_address": quorum[0], "verifier_addresses": &quorum[1..], "verifier_count": quorum.len() - 1,
            "metadata": {"prompt_key_store_tx": format!("0x{transaction}")},
        });
        self.wallet.send(&self.wallet.profile.icl, Method::POST, "/v1/inference/requests", request.to_string()).await;
        task
    }

    /// Opens the answer with the key that the leader stored.
    async fn open(&self, task: &str, status: &Value) -> Secret {
        let key = self.wallet.read(self.wallet.stored(output_key_job_id(task)).await).await;
        let cid = status["output_cid"].as_str().unwrap();
        let gateway = &self.wallet.profile.blob_gateway;
        let (code, bytes) = self.wallet.exchange(gateway, Method::GET, &format!("/ipfs/{cid}"), String::new()).await;
        assert_eq!(code, 200);
        blob::open(&key, &bytes).unwrap()
    }

    async fn upload(&self, sealed: &[u8]) -> String {
        let head = b"--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        let body = [&head[..], sealed, b"\r\n--xyz--\r\n"].concat();
        let headers: HeaderMap =
            [(hyper::header::CONTENT_TYPE, "multipart/form-data; boundary=xyz".parse().unwrap())].into_iter().collect();
        let path = "/v1/inference/upload-prompt";
        let Wallet { client, profile, .. } = &self.wallet;
        let reply = client.request(&profile.icl, Method::POST, path, headers, body.into(), 4096).await.unwrap();
        let reply: Value = serde_json::from_slice(&reply.body).unwrap();
        reply["cid"].as_str().unwrap().to_owned()
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
    let task = net.runtime.block_on(net.user.submit("qwen2.5-7b", &quorum));
    let decided = async { tokio::time::timeout(Duration::from_secs(5), net.user.decided(&task)).await };
    assert!(net.runtime.block_on(decided).is_err(), "still queued");
    for node in &net.nodes {
        node.until(
            "the reason",
            |event| matches!(event, Event::JobFailed { code, .. } if code.to_string() == "MODEL_UNKNOWN"),
        );
        assert!(node.states().is_empty(), "{:?}", node.states());
    }
    net.end();
}

/// A public RPC wants the operator's key in its path: who has it can lead, who has not says why, and nobody says the key.
#[test]
fn the_chain_s_rpc_may_want_a_key() {
    const KEY: &str = "s3cretKey";
    let mut net = Net::with_rpc(&format!("/v2/{KEY}?network=devnet"), 3, |_| ());
    net.add(None);
    let quorum = net.quorum();
    let (task, status) = net.ask("mock", &quorum[..3]);
    assert_eq!(status["status"], "ACCEPTED", "{status}");
    net.runtime.block_on(net.user.open(&task, &status));

    net.runtime.block_on(net.user.submit("mock", &[quorum[3], quorum[1], quorum[2]]));
    let refused = |event: &Event| matches!(event, Event::JobFailed { code, .. } if code.to_string() == "RPC_HTTP_401");
    net.nodes[3].until("the reason", refused);
    for node in &net.nodes {
        let said = node.events().iter().map(|event| event.to_line().unwrap()).collect::<String>();
        assert!(!said.contains(KEY), "{said}");
    }
    net.end();
}

/// Whatever answer of the RPC is lost, the job is done and the chain sees one transaction.
#[test]
fn lost_answers_of_the_chain_s_rpc_are_asked_for_again() {
    let net = Net::start(3, |_| ());
    let quorum = net.quorum();
    let chain = net.running.cofhe.as_ref().unwrap().chain().clone();
    let methods = [
        "eth_getTransactionCount",
        "eth_getBlockByNumber",
        "eth_maxPriorityFeePerGas",
        "eth_estimateGas",
        "eth_sendRawTransaction",
        "eth_getTransactionReceipt",
    ];
    for (done, method) in (1..).zip(methods) {
        // The user stores the key first; what is lost is for the leader.
        let task = net.runtime.block_on(net.user.submit("mock", &quorum));
        chain.lose_answers(method, 2);
        let status = net.runtime.block_on(net.user.decided(&task));
        assert_eq!(status["status"], "ACCEPTED", "{method}: {status}");
        net.runtime.block_on(net.user.open(&task, &status));
        let sent = net.runtime.block_on(net.user.wallet.transactions(quorum[0]));
        assert_eq!(sent, done, "{method}");
    }
    net.end();
}
