//! A user like `blf ask` that keeps what it must not: every key of its jobs, so that they can be looked for.

use std::path::Path;
use std::time::{Duration, Instant};

use blf::client::{Client, Reply};
use blf::icl::{User as Account, now};
use blf::nodes::{Known, Node};
use blf_bridge::prompt::{open_answer, seal_prompt};
use blf_bridge::release::{open_output_key, seal_share};
use blf_bridge::{HpkeKey, Key, Secret, cid};
use blf_evidence::Hex;
use blf_evidence::icl::{
    AskEvidence, AskEvidenceReply, Done, EvidenceReply, Phase, QuorumPreview, RequestStatus, Submit,
};
use blf_evidence::job::JobContext;
use blf_evidence::profile::Host;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use k256::ecdsa::SigningKey;
use tokio::runtime::Runtime;

pub(crate) struct User {
    runtime: Runtime,
    known: Known,
    key: SigningKey,
    node: Option<Node>,
}

/// A job, and what only its user and its node hold.
pub(crate) struct Kept {
    pub(crate) job: Hex<32>,
    pub(crate) answer: String,
    /// Of the sealed prompt.
    pub(crate) prompt_key: [u8; 32],
    /// Of the sealed answer.
    pub(crate) answer_key: [u8; 32],
}

/// For a job, and for evidence.
const WITHIN: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(200);
const MAX_NEW_TOKENS: u32 = 32;

impl User {
    pub(crate) fn new(network: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let key = SigningKey::from_slice(Key::random().unwrap().expose()).unwrap();
        Self { runtime, known: Known::read(Some(network), None).unwrap(), key, node: None }
    }

    /// The node that answers: the only one there is, once it has answered a nonce of ours.
    pub(crate) fn node(&mut self) -> Node {
        if self.node.is_none() {
            self.node = Some(self.runtime.block_on(appraise(&self.known, &self.key)));
        }
        self.node.clone().unwrap()
    }

    /// Two jobs at a time, as many as a node takes, from prompt to opened answer.
    pub(crate) fn ask(&mut self, prompts: [&str; 2]) -> [Kept; 2] {
        let node = self.node();
        let [one, other] = prompts.map(|prompt| ask(&self.known, &self.key, &node, prompt));
        self.runtime.block_on(async { tokio::join!(one, other) }).into()
    }
}

async fn appraise(known: &Known, key: &SigningKey) -> Node {
    let client = Client::new(&known.profile.tls_roots, known.network.resolve.clone()).unwrap();
    let user = Account::new(&client, known.profile.icl.clone(), key.clone());
    let leader = preview(known, &user).await.leader.address;
    let nonce = Hex(*Key::random().unwrap().expose());
    let asked = AskEvidence { nonce: Some(nonce), max_age: 0 };
    let reply: AskEvidenceReply = user.post(&format!("/v1/nodes/{leader}/evidence"), &asked).await.unwrap();
    let until = Instant::now() + WITHIN;
    loop {
        let got: EvidenceReply = user.get(&format!("/v1/evidence/{}", reply.request_id)).await.unwrap();
        if let Some(evidence) = got.evidence {
            return known.reference.appraise_preview(&evidence, leader, user.address(), nonce, now()).unwrap();
        }
        assert!(Instant::now() < until, "no evidence of {leader}");
        tokio::time::sleep(POLL).await;
    }
}

async fn preview(known: &Known, user: &Account<'_>) -> QuorumPreview {
    let path = format!("/v1/inference/quorum-preview?model_id={}&verifier_count=0&spares=0", known.network.model.id);
    user.get(&path).await.unwrap()
}

async fn ask(known: &Known, key: &SigningKey, node: &Node, prompt: &str) -> Kept {
    let client = Client::new(&known.profile.tls_roots, known.network.resolve.clone()).unwrap();
    let user = Account::new(&client, known.profile.icl.clone(), key.clone());
    let (job, prompt_key, reply) =
        (Hex(*Key::random().unwrap().expose()), Key::random().unwrap(), HpkeKey::generate().unwrap());
    let model = node.models.iter().find(|m| m.id == known.network.model.id).unwrap();
    let context = JobContext {
        cofhe: None,
        job_id: job,
        measurements: known.reference.measurements(),
        max_new_tokens: MAX_NEW_TOKENS,
        model_manifest_sha256: model.manifest_sha256,
        not_after: now().plus(WITHIN.as_secs()),
        reply_hpke: reply.public(),
        user: user.address(),
        v: 1,
    };
    let blob = seal_prompt(&prompt_key, &context, &Secret::new(prompt.into())).unwrap();
    pin(&client, known, &blob).await;
    let context = context.to_canonical().unwrap();
    let preview = preview(known, &user).await;
    let submit = Submit {
        shares: vec![seal_share(&prompt_key, node.address, node.keys.hpke, &context).unwrap()],
        context,
        leader: preview.leader.address,
        model_id: known.network.model.id.clone(),
        prompt_cid: cid::of(&blob),
        spares: Vec::new(),
        verifiers: Vec::new(),
    };
    user.post::<Done>("/v1/inference/requests", &submit).await.unwrap();
    let until = Instant::now() + WITHIN;
    let status = loop {
        let status: RequestStatus = user.get(&format!("/v1/inference/{job}")).await.unwrap();
        match status.phase {
            Phase::Accepted => break status,
            Phase::Rejected | Phase::Failed => panic!("{:?}", status.reason),
            _ => assert!(Instant::now() < until, "job {job} did not end"),
        }
        tokio::time::sleep(POLL).await;
    };
    let answer = status.answer.unwrap();
    let path = format!("/ipfs/{}", answer.output_cid);
    let sealed = send(&client, &known.profile.blob_gateway, Method::GET, &path, HeaderMap::new(), Vec::new()).await;
    let answer_key = open_output_key(&reply, &answer.output_key, &job, &answer.output_cid).unwrap();
    let text = open_answer(&answer_key, &sealed.body).unwrap();
    Kept {
        job,
        answer: String::from_utf8(text.expose().to_vec()).unwrap(),
        prompt_key: *prompt_key.expose(),
        answer_key: *answer_key.expose(),
    }
}

async fn pin(client: &Client, known: &Known, blob: &[u8]) {
    let head = "--blf\r\nContent-Disposition: form-data; name=\"file\"; filename=\"blf-prompt.bin\"\r\n\
                Content-Type: application/octet-stream\r\n\r\n";
    let body = [head.as_bytes(), blob, b"\r\n--blf--\r\n"].concat();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, "multipart/form-data; boundary=blf".parse().unwrap());
    headers.insert(AUTHORIZATION, format!("Bearer {}", known.network.pinning_token).parse().unwrap());
    send(client, &known.profile.blob_pinning, Method::POST, "/pinning/pinFileToIPFS", headers, body).await;
}

async fn send(client: &Client, to: &Host, method: Method, path: &str, headers: HeaderMap, body: Vec<u8>) -> Reply {
    let reply = client.request(to, method, path, headers, Bytes::from(body), blf_bridge::blob::BLOB_CAP).await.unwrap();
    assert!(reply.status.is_success(), "{path}: {}", reply.status);
    reply
}
