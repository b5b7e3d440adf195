//! A whole network that lies: ICL, blob store and one node in one peer, with the published development keys.
//!
//! Without a lie it is an honest network whose model says the prompt backwards. Each [`Lie`] edits one thing that passes
//! through it; [`Rogue::ask`] demands that the edit changed something.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blf::ask::{self, Ask, Report};
use blf::failure::Failure;
use blf::nodes::Known;
use blf::terminal::Terminal;
use blf_agent::attester::Tpm;
use blf_bridge::prompt::{open_prompt, seal_answer};
use blf_bridge::release::{HpkeRelease, KeyRelease as _, seal_output_key};
use blf_bridge::{HpkeKey, Key, Secret, cid, commitment};
use blf_devnet::development::{self, Authority};
use blf_evidence::bundle::{Evidence, Platform, SCHEMA};
use blf_evidence::eip191::{self, Signature};
use blf_evidence::icl::{
    AskEvidence, AskEvidenceReply, Candidate, Done, EvidenceReply, HEADER_ADDRESS, NodeVerdict, Phase, QuorumPreview,
    RequestStatus, Submit,
};
use blf_evidence::job::{Answer, Verdict};
use blf_evidence::network::{AkRoot, Network, Resolve};
use blf_evidence::statement::{Binding, Keys, Model, Profile, Purpose, Statement};
use blf_evidence::tpm::Public;
use blf_evidence::{Address, Hex};
use blf_tests::network::{Boot, profile};
use blf_tests::swtpm::SwTpm;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use k256::ecdsa::SigningKey;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// An edit of something that passes through.
pub(crate) type Edit<T> = Box<dyn Fn(&mut T) + Send + Sync>;

/// What is edited, in the order in which a job meets it.
pub(crate) enum Lie {
    /// The nodes that the ICL proposes.
    Preview(Edit<QuorumPreview>),
    /// What the node has its TPM vouch for.
    Binding(Edit<Binding>),
    /// The evidence on its way to the user.
    Evidence(Edit<Evidence>),
    /// The name under which the blob store says it keeps the prompt.
    Pinned(Edit<String>),
    /// The sealed answer, before its CID is taken.
    Sealed(Edit<Vec<u8>>),
    /// The answer that the leader signs.
    Answer(Edit<Answer>),
    /// What the ICL says of the job.
    Status(Edit<RequestStatus>),
    /// The sealed answer, as the blob store hands it out.
    Blob(Edit<Vec<u8>>),
    /// The bytes of replies to paths that begin so.
    Body(&'static str, Edit<Vec<u8>>),
    /// The first reply to paths that begin so: what was asked for is done, and this status comes back.
    Lost(&'static str, StatusCode),
    /// Replies to paths that begin so: none comes.
    Silence(&'static str),
}

/// The network and its user.
pub(crate) struct Rogue {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) peer: Arc<Peer>,
    network: PathBuf,
    runtime: Runtime,
    _tpm: SwTpm,
}

/// Everything behind the network's names.
pub(crate) struct Peer {
    /// The node's account.
    pub(crate) node: Address,
    /// The AK, for certificates by others.
    pub(crate) ak: Public,
    /// What each node's response key and HPKE key are made of.
    seed: Key,
    attester: Mutex<Tpm>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Each with whether it changed something.
    lies: Vec<(Lie, bool)>,
    asked: BTreeMap<String, Question>,
    blobs: BTreeMap<String, Vec<u8>>,
    status: Option<RequestStatus>,
}

/// What a user wants to know of a node.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) node: Address,
    pub(crate) user: String,
    pub(crate) nonce: Hex<32>,
}

impl Rogue {
    /// None where swtpm is missing.
    pub(crate) fn start() -> Option<Self> {
        let boot = Boot::recorded();
        let tpm = SwTpm::booted(&boot.log)?;
        let mut attester = tpm.attester(&boot.log_file);
        let ak = Public::parse(&attester.ak_public()).unwrap();
        let issuer = Authority::from_pem(development::AK_CA, development::AK_CA_KEY).unwrap();
        attester.set_ak_certificate(issuer.attestation_key(&ak, blf::icl::now()).unwrap().to_vec());
        let peer = Arc::new(Peer {
            node: eip191::address(random_account().verifying_key()),
            ak,
            seed: Key::random().unwrap(),
            attester: Mutex::new(attester),
            state: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, Arc::clone(&peer)));

        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        write("profile.json", &serde_json::to_vec(&profile()).unwrap());
        write("release.json", boot.release.to_json().unwrap().as_bytes());
        let network = Network {
            ak_roots: vec![AkRoot { development: true, name: "AK CA".into(), pem: development::AK_CA.into() }],
            model: "blf-tiny-1".parse().unwrap(),
            pinning_token: "token".into(),
            profile: "profile.json".into(),
            release: "release.json".into(),
            resolve: profile().hosts().into_iter().map(|h| Resolve { address, host: h.clone() }).collect(),
            v: 1,
        };
        write("network.json", &serde_json::to_vec(&network).unwrap());
        Some(Self { network: dir.path().join("network.json"), dir, peer, runtime, _tpm: tpm })
    }

    /// What the user knows of the network, by its usual policy or by one of the user's own.
    pub(crate) fn known(&self, policy: Option<&Path>) -> Known {
        Known::read(Some(&self.network), policy).unwrap()
    }

    /// The honest network answers; then it lies and is refused with this code, having changed something.
    #[track_caller]
    pub(crate) fn refused(&self, lie: Lie) -> Failure {
        let honest = self.ask(&self.known(None), 0, vec![]).unwrap();
        assert_eq!(honest.text, "?flb si tahw");
        self.ask(&self.known(None), 0, vec![lie]).err().expect("the lie was believed")
    }

    /// One question, which each lie must have reached and changed something in.
    #[track_caller]
    pub(crate) fn ask(&self, known: &Known, verifiers: u8, lies: Vec<Lie>) -> Result<Report, Failure> {
        self.ask_within(Duration::from_secs(30), known, verifiers, lies)
    }

    /// As [`Self::ask`], by a user of so much patience.
    #[track_caller]
    pub(crate) fn ask_within(
        &self,
        deadline: Duration,
        known: &Known,
        verifiers: u8,
        lies: Vec<Lie>,
    ) -> Result<Report, Failure> {
        *self.state() = State { lies: lies.into_iter().map(|lie| (lie, false)).collect(), ..State::default() };
        let ask = Ask {
            network: &known.network,
            profile: &known.profile,
            reference: &known.reference,
            prompt: Secret::new(b"what is blf?".to_vec()),
            model: known.network.model.clone(),
            verifiers,
            spares: 0,
            max_new_tokens: 8,
            deadline,
            keep_evidence: None,
            chosen: String::new(),
            quorum_within: Duration::ZERO,
        };
        let report = self.runtime.block_on(ask::run(ask, random_account(), &Terminal::new(true)));
        let honest = self.state().lies.iter().position(|(_, told)| !told);
        assert!(honest.is_none(), "lie {honest:?} changed nothing: {:?}", report.err());
        report
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.peer.state()
    }
}

/// An account nobody knows.
pub(crate) fn random_account() -> SigningKey {
    SigningKey::from_slice(Key::random().unwrap().expose()).unwrap()
}

impl Peer {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Edits `value` if the lie is about it.
    fn tell<T: Clone + PartialEq>(&self, value: &mut T, about: impl Fn(&Lie) -> Option<&Edit<T>>) {
        for (lie, told) in &mut self.state().lies {
            let Some(edit) = about(lie) else { continue };
            let truth = value.clone();
            edit(value);
            *told |= *value != truth;
        }
    }

    /// The key by which `node` signs answers and verdicts.
    pub(crate) fn response(&self, node: Address) -> SigningKey {
        SigningKey::from_slice(&self.own(node)).unwrap()
    }

    /// The key to which the prompt's key is sealed for `node`.
    pub(crate) fn hpke(&self, node: Address) -> HpkeKey {
        let own = Key::fill(|key| {
            *key = self.own(node);
            Ok::<_, Infallible>(())
        });
        HpkeKey::derive(&own.unwrap()).unwrap()
    }

    fn own(&self, node: Address) -> [u8; 32] {
        Sha256::new().chain_update(self.seed.expose()).chain_update(node.0).finalize().into()
    }

    /// Whether the reply to `path` is lost, and what comes in its place.
    fn lost(&self, path: &str) -> Option<StatusCode> {
        self.state().lies.iter_mut().find_map(|(lie, told)| match lie {
            Lie::Lost(prefix, status) if path.starts_with(*prefix) && !*told => {
                *told = true;
                Some(*status)
            }
            _ => None,
        })
    }

    /// Whether nothing is ever said to `path`.
    fn silent(&self, path: &str) -> bool {
        self.state().lies.iter_mut().any(|(lie, told)| {
            let silent = matches!(lie, Lie::Silence(prefix) if path.starts_with(*prefix));
            *told |= silent;
            silent
        })
    }

    fn models(&self) -> Vec<Model> {
        vec![Model { id: "blf-tiny-1".into(), manifest_sha256: Hex([0x11; 32]) }]
    }

    /// Evidence of the node that was asked: all nodes are this one, under other names.
    pub(crate) fn evidence(&self, question: Question) -> Evidence {
        let config = r#"{"max_jobs":1,"name":"rogue","v":1}"#;
        let mut binding = Binding {
            anchor: None,
            audience: question.user,
            boot_id: Hex([1; 16]),
            config_sha256: Hex(Sha256::digest(config).into()),
            egress: profile().egress(),
            gpu_sha256: None,
            keys: Keys {
                cofhe_sealing: Hex([3; 32]),
                hpke: self.hpke(question.node).public(),
                node: question.node,
                response: eip191::address(self.response(question.node).verifying_key()),
                tls_spki_sha256: Hex([4; 32]),
            },
            models: self.models(),
            nonce: question.nonce,
            not_after: blf::icl::now().plus(3600),
            numeric_profile: "blf-f32-v1".into(),
            profile: Profile { id: profile().id().unwrap(), name: profile().name },
            purpose: Purpose::Preview,
            v: 1,
        };
        self.tell(&mut binding, |lie| if let Lie::Binding(edit) = lie { Some(edit) } else { None });
        let text = binding.to_canonical().unwrap();
        let statement = Statement::new(binding.keys.node, text.as_bytes());
        let platform = Platform::Tpm(self.attester.lock().unwrap().attest(&statement).unwrap());
        let mut evidence =
            Evidence { schema: SCHEMA.into(), binding: text, config: config.into(), platform, endorsements: None };
        self.tell(&mut evidence, |lie| if let Lie::Evidence(edit) = lie { Some(edit) } else { None });
        evidence
    }

    /// Opens the prompt as the node would, and answers it.
    fn run(&self, submit: &Submit) {
        let share = submit.shares.iter().find(|s| s.node == self.node).unwrap();
        let (keys, leader) = ([self.hpke(self.node)], self.response(self.node));
        let key = HpkeRelease { node: self.node, keys: &keys, share, context: &submit.context }.release().unwrap();
        let sealed = self.state().blobs[&submit.prompt_cid].clone();
        let prompt = open_prompt(&key, &sealed, &submit.context).unwrap();
        let text = Secret::new(prompt.text().expose().iter().rev().copied().collect());
        let context = submit.context().unwrap();

        let answer_key = Key::random().unwrap();
        let mut blob = seal_answer(&answer_key, &text).unwrap();
        self.tell(&mut blob, |lie| if let Lie::Sealed(edit) = lie { Some(edit) } else { None });
        let output_cid = cid::of(&blob);
        let mut answer = Answer {
            job_id: context.job_id,
            commitment: commitment::commitment(&key, &context.job_id, &text),
            output_key: seal_output_key(&answer_key, &context.reply_hpke, &context.job_id, &output_cid).unwrap(),
            output_cid: output_cid.clone(),
            response: eip191::address(leader.verifying_key()),
            v: 1,
        };
        self.tell(&mut answer, |lie| if let Lie::Answer(edit) = lie { Some(edit) } else { None });
        let signature = Signature::sign(&leader, answer.signed_text().unwrap().as_bytes());
        let commitment = answer.commitment;
        let verdicts = submit.verifiers.iter().map(|node| {
            let (job, verdict) = (&context.job_id, Verdict::Confirm);
            let text = verdict.signed_text(job, &commitment);
            NodeVerdict { node: *node, verdict, signature: Signature::sign(&self.response(*node), text.as_bytes()) }
        });
        let mut status = RequestStatus {
            job_id: context.job_id,
            phase: Phase::Accepted,
            answer: Some(answer),
            signature: Some(signature),
            verdicts: verdicts.collect(),
            quorum: std::iter::once(self.node).chain(submit.verifiers.iter().copied()).collect(),
            reason: None,
        };
        self.tell(&mut status, |lie| if let Lie::Status(edit) = lie { Some(edit) } else { None });
        let mut state = self.state();
        state.blobs.insert(output_cid, blob);
        state.status = Some(status);
    }

    fn answer(&self, path: &str, user: &str, body: &[u8]) -> Option<Vec<u8>> {
        if path.starts_with("/v1/inference/quorum-preview") {
            let leader = Candidate { address: self.node, tier: 0, models: self.models() };
            let mut preview = QuorumPreview { leader, verifiers: Vec::new(), spares: Vec::new() };
            self.tell(&mut preview, |lie| if let Lie::Preview(edit) = lie { Some(edit) } else { None });
            return Some(json(&preview));
        }
        if let Some(rest) = path.strip_prefix("/v1/nodes/") {
            let asked: AskEvidence = serde_json::from_slice(body).unwrap();
            let node = rest.strip_suffix("/evidence")?.parse().unwrap();
            let question = Question { node, user: user.into(), nonce: asked.nonce.unwrap() };
            let mut state = self.state();
            let request_id = state.asked.len().to_string();
            state.asked.insert(request_id.clone(), question);
            return Some(json(&AskEvidenceReply { request_id }));
        }
        if let Some(request) = path.strip_prefix("/v1/evidence/") {
            let question = self.state().asked.get(request)?.clone();
            return Some(json(&EvidenceReply { evidence: Some(self.evidence(question)), age: 0 }));
        }
        if path == "/pinning/pinFileToIPFS" {
            // One part: its bytes are between the empty line and the closing boundary.
            let from = body.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
            let to = body.windows(8).rposition(|w| w == b"\r\n--blf-")?;
            let blob = body[from..to].to_vec();
            let mut name = cid::of(&blob);
            self.state().blobs.insert(name.clone(), blob);
            self.tell(&mut name, |lie| if let Lie::Pinned(edit) = lie { Some(edit) } else { None });
            return Some(json(&serde_json::json!({ "IpfsHash": name, "PinSize": 1 })));
        }
        if path == "/v1/inference/requests" {
            self.run(&serde_json::from_slice(body).unwrap());
            return Some(json(&Done { status: "ok".into() }));
        }
        if let Some(name) = path.strip_prefix("/ipfs/") {
            let mut blob = self.state().blobs.get(name)?.clone();
            self.tell(&mut blob, |lie| if let Lie::Blob(edit) = lie { Some(edit) } else { None });
            return Some(blob);
        }
        self.state().status.as_ref().filter(|s| path == format!("/v1/inference/{}", s.job_id)).map(json)
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

async fn serve(listener: TcpListener, peer: Arc<Peer>) {
    let authority = Authority::from_pem(development::TLS_CA, development::TLS_CA_KEY).unwrap();
    let profile = profile();
    let names: Vec<&str> = profile.hosts().into_iter().map(|h| h.name.as_str()).collect();
    let config = development::server_config(&authority, &names, blf::icl::now()).unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        let (peer, tls) = (Arc::clone(&peer), tls.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = hyper::service::service_fn(|request| reply(request, &peer));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn reply(request: Request<Incoming>, peer: &Peer) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let user = request.headers().get(HEADER_ADDRESS).map_or("", |v| v.to_str().unwrap()).to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if peer.silent(&path) {
        std::future::pending::<()>().await;
    }
    let (mut status, mut body) = if path == "/v1/inference/requests" && peer.state().status.is_some() {
        (StatusCode::CONFLICT, br#"{"code":"ALREADY_SUBMITTED","detail":"job: it exists"}"#.to_vec())
    } else if let Some(body) = peer.answer(&path, &user, &body) {
        (StatusCode::OK, body)
    } else {
        (StatusCode::NOT_FOUND, br#"{"code":"NOT_FOUND","detail":"nothing there"}"#.to_vec())
    };
    if let Some(instead) = peer.lost(&path) {
        (status, body) = (instead, b"<html>a gateway's own words</html>".to_vec());
    }
    let about = |prefix: &str| path.starts_with(prefix);
    peer.tell(&mut body, |lie| match lie {
        Lie::Body(prefix, edit) if about(prefix) => Some(edit),
        _ => None,
    });
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    Ok(response)
}
