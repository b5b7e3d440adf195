//! A legacy devnet under test, nodes and users that talk plain HTTP to it, and its clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blf_devnet::{Devnet, LegacyOptions, Options, Running, development};
use blf_evidence::eip191::Signature;
use blf_evidence::{Address, UnixTime};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

pub(crate) const START: u64 = 1_795_157_973;
pub(crate) const MODEL: &str = "facebook/opt-125m";
/// A handle of 78 digits: no number of ours holds it.
pub(crate) const HIGH: &str = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
pub(crate) const LOW: &str = "0x0a";

pub(crate) struct Net {
    pub(crate) running: Running,
    clock: Arc<AtomicU64>,
    stop: oneshot::Sender<()>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

/// Someone with a key.
pub(crate) struct Node {
    pub(crate) key: SigningKey,
    pub(crate) address: Address,
    to: SocketAddr,
    clock: Arc<AtomicU64>,
}

impl Net {
    /// One that caches nothing, so that every poll is answered anew.
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut LegacyOptions)) -> Self {
        let mut legacy = LegacyOptions { assignment_cache: 0, ..LegacyOptions::default() };
        change(&mut legacy);
        Self::of(Options::legacy(legacy).unwrap()).await
    }

    pub(crate) async fn of(mut options: Options) -> Self {
        let clock = Arc::new(AtomicU64::new(START));
        let time = Arc::clone(&clock);
        options.clock = Arc::new(move || UnixTime(time.load(Ordering::SeqCst)));
        let (stop, stopped) = oneshot::channel::<()>();
        let running = Devnet::start(options, async {
            let _ = stopped.await;
        });
        Self { running: running.await.unwrap(), clock, stop }
    }

    pub(crate) fn plain(&self) -> SocketAddr {
        self.running.plain.unwrap()
    }

    pub(crate) fn forward(&self, seconds: u64) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    /// A node nobody knows. Keys are small numbers, so that failures can be read.
    pub(crate) fn stranger(&self, number: u16) -> Node {
        let mut bytes = [0; 32];
        bytes[30..].copy_from_slice(&number.to_be_bytes());
        let key = SigningKey::from_slice(&bytes).unwrap();
        let address = development::address(&key);
        Node { key, address, to: self.plain(), clock: Arc::clone(&self.clock) }
    }

    /// Nodes that attested.
    pub(crate) async fn nodes(&self, count: u16) -> Vec<Node> {
        let mut nodes = Vec::new();
        for number in 1..=count {
            let node = self.stranger(1000 + number);
            node.attest().await;
            nodes.push(node);
        }
        nodes
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        send(self.plain(), "GET", path, &[], Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Reply {
        send(self.plain(), method, path, headers, body.into()).await
    }

    /// A job for this leader and these verifiers, as its user sees it.
    pub(crate) async fn job(&self, task: &str, nodes: &[&Node]) -> Value {
        self.post("/v1/inference/requests", &submission(task, nodes)).await.ok()
    }

    /// The user's view of a job.
    pub(crate) async fn status(&self, task: &str) -> Value {
        self.get(&format!("/v1/inference/task/{task}")).await.ok()
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.running.stopped()).await.unwrap();
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body of a 200.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// Status and detail of anything else, which has no other member.
    pub(crate) fn refused(&self) -> (u16, Value) {
        assert_ne!(self.status, 200, "{self:?}");
        let document = self.json();
        assert_eq!(document.as_object().unwrap().len(), 1, "{document}");
        (self.status, document["detail"].clone())
    }
}

impl Node {
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// The headers that a node of today sends with this body.
    pub(crate) fn headers(&self, body: &str) -> Vec<(&'static str, String)> {
        let time = self.now().to_string();
        let signature = Signature::sign(&self.key, format!("{body}{time}").as_bytes());
        vec![
            ("X-Node-Address", self.address.to_string()),
            ("X-Timestamp", time),
            ("X-Signature", signature.to_string()),
            ("Content-Type", "application/json".into()),
        ]
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &str) -> Reply {
        let headers = self.headers(body);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        send(self.to, method, path, &headers, body.to_owned().into()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &body.to_string()).await
    }

    pub(crate) fn attestation(&self) -> Value {
        json!({
            "nodeAddress": self.address, "backendType": "mock", "quote": "00", "runtimeHash": "00",
            "challengeId": "none", "supportedModelIds": [MODEL],
        })
    }

    pub(crate) async fn attest(&self) {
        self.post("/internal/attestation/verify", &self.attestation()).await.ok();
    }

    pub(crate) async fn poll(&self) -> Vec<Value> {
        let reply = self.get(&format!("/internal/assignments/{}", self.address)).await.ok();
        reply["assignments"].as_array().unwrap().clone()
    }

    pub(crate) async fn claim(&self, task: &str) -> Reply {
        self.post("/internal/task/claim", &json!({ "jobId": task, "nodeAddress": self.address })).await
    }

    pub(crate) async fn result(&self, task: &str, commitment: &str) -> Reply {
        let body = json!({ "jobId": task, "output_cid": "QmOutput", "commitment_hash": commitment });
        self.post("/internal/task/result", &body).await
    }

    pub(crate) async fn verify(&self, task: &str, commitment: &str, verdict: &str) -> Reply {
        let body = json!({
            "jobId": task, "verifier_address": self.address, "commitment_hash": commitment,
            "verdict": verdict, "confidence": 100,
        });
        self.post("/internal/task/verify", &body).await
    }
}

/// The request for a job with this quorum.
pub(crate) fn submission(task: &str, nodes: &[&Node]) -> Value {
    json!({
        "developer_address": "0x00000000000000000000000000000000000000aa",
        "task_id": task,
        "mode": "text",
        "text_request": {
            "prompt_cid": "QmPrompt",
            "encrypted_prompt_key": { "high": HIGH, "low": LOW },
            "model_id": MODEL,
        },
        "leader_address": nodes[0].address,
        "verifier_addresses": nodes[1..].iter().map(|node| node.address).collect::<Vec<_>>(),
        "verifier_count": nodes.len() - 1,
        "permits": [],
    })
}

/// A task id of a user's.
pub(crate) fn task(number: u8) -> String {
    format!("0x{}", hex::encode([number; 32]))
}

pub(crate) async fn send(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Reply {
    let stream = TcpStream::connect(to).await.unwrap();
    send_on(stream, &to.to_string(), method, path, headers, body).await
}

pub(crate) async fn send_on(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Reply {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(HOST, host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let (head, body) = reply.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Reply { status: head.status.as_u16(), headers: head.headers, text: String::from_utf8(body.to_vec()).unwrap() }
}
