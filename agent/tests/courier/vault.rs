//! A vault with its own keys that opens nothing: it answers frames as the real one does, and counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blf_agent::frames::{self, FromVault, HEADER, Identity, Method, ToVault, UNASKED};
use blf_bridge::cofhe::{Domain, Permission};
use blf_evidence::bundle::{Evidence, Platform, SCHEMA, TpmEvidence};
use blf_evidence::eip191::{Signature, address, request_text};
use blf_evidence::icl::{Certificate, LeaderResult, Time, VerifierResult};
use blf_evidence::job::{Answer, JobContext, Role, SealedKey, Verdict};
use blf_evidence::statement::{Binding, Keys, Model, Profile, Purpose};
use blf_evidence::{Address, Base64, Hex, UnixTime, json};
use k256::ecdsa::SigningKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, WriteHalf};
use tokio::time::{Instant, sleep};

use crate::icl::{ICL, TOKEN};

#[derive(Clone)]
pub struct Double(Arc<Inner>);

struct Inner {
    key: SigningKey,
    icl: Address,
    backend: &'static str,
    state: Mutex<State>,
}

pub struct State {
    /// It was this time at that instant, or later.
    now: (u64, Instant),
    nonce: Hex<32>,
    /// Names of all calls, in order.
    pub calls: Vec<&'static str>,
    /// How long inference takes.
    pub inference: Duration,
    pub running: usize,
    pub most_running: usize,
    /// Calls that are refused, with their code.
    pub refuse: HashMap<&'static str, &'static str>,
    pub boot_events: Vec<String>,
    pub max_jobs: u8,
    pub off: bool,
    stop: Option<Arc<tokio::sync::Mutex<WriteHalf<DuplexStream>>>>,
}

pub const COMMITMENT: Hex<32> = Hex([0xc0; 32]);
pub const MANIFEST: Hex<32> = Hex([0xaa; 32]);
const SEALING: Hex<32> = Hex([3; 32]);
pub const ANSWER: &[u8] = b"a sealed answer of twenty-eight bytes and more";

impl Double {
    /// A vault that was built at `built` and believes the ICL with this account.
    pub fn new(built: u64, icl: Address, backend: &'static str) -> Self {
        Self::with_key(SigningKey::from_slice(&[9; 32]).unwrap(), built, icl, backend)
    }

    /// The same with the node key `key`.
    pub fn with_key(key: SigningKey, built: u64, icl: Address, backend: &'static str) -> Self {
        let state = State {
            now: (built, Instant::now()),
            nonce: Hex([0; 32]),
            calls: Vec::new(),
            inference: Duration::from_secs(2),
            running: 0,
            most_running: 0,
            refuse: HashMap::new(),
            boot_events: Vec::new(),
            max_jobs: 2,
            off: false,
            stop: None,
        };
        Self(Arc::new(Inner { key, icl, backend, state: Mutex::new(state) }))
    }

    pub fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.0.state.lock().unwrap())
    }

    pub fn count(&self, call: &str) -> usize {
        self.with(|s| s.calls.iter().filter(|c| **c == call).count())
    }

    pub fn node(&self) -> Address {
        address(self.0.key.verifying_key())
    }

    pub async fn stop(&self) {
        let writer = self.with(|s| s.stop.clone()).expect("served");
        send(&writer, UNASKED, &FromVault::Stop).await;
    }

    /// Answers frames until the courier hangs up.
    pub async fn serve(self, socket: DuplexStream) {
        let (mut reader, writer) = tokio::io::split(socket);
        let writer = Arc::new(tokio::sync::Mutex::new(writer));
        self.with(|s| s.stop = Some(Arc::clone(&writer)));
        loop {
            let mut header = [0; HEADER];
            if reader.read_exact(&mut header).await.is_err() {
                return;
            }
            let (id, length) = frames::parse_header(header).unwrap();
            assert_ne!(id, UNASKED);
            let mut body = vec![0; length];
            reader.read_exact(&mut body).await.unwrap();
            let call = frames::decode(&body).unwrap();
            let (vault, writer) = (self.clone(), Arc::clone(&writer));
            tokio::spawn(async move {
                let reply = vault.answer(call).await;
                send(&writer, id, &reply).await;
                if vault.with(|s| s.off) {
                    // As a process that ends does.
                    drop(writer.lock().await.shutdown().await);
                }
            });
        }
    }

    fn now(&self) -> UnixTime {
        let (time, at) = self.with(|s| s.now);
        UnixTime(time + at.elapsed().as_secs())
    }

    async fn answer(&self, call: ToVault) -> FromVault {
        let name = match &call {
            ToVault::Identity => "Identity",
            ToVault::TimeNonce => "TimeNonce",
            ToVault::SetTime(_) => "SetTime",
            ToVault::SignRequest { .. } => "SignRequest",
            ToVault::Enrolment => "Enrolment",
            ToVault::Activate { .. } => "Activate",
            ToVault::SetAkCertificate(_) => "SetAkCertificate",
            ToVault::Rotate => "Rotate",
            ToVault::Attest { .. } => "Attest",
            ToVault::Certificate { .. } => "Certificate",
            ToVault::Run { .. } => "Run",
            ToVault::RevealLeader { .. } => "RevealLeader",
            ToVault::RevealVerifier { .. } => "RevealVerifier",
            ToVault::Forget { .. } => "Forget",
            ToVault::PowerOff => "PowerOff",
            ToVault::Permit { .. } => "Permit",
            ToVault::Legacy(_) => "Legacy",
            ToVault::TlsCertificate => "TlsCertificate",
            ToVault::SignTls { .. } => "SignTls",
        };
        let refused = self.with(|s| {
            s.calls.push(name);
            s.refuse.get(name).copied()
        });
        if let Some(code) = refused {
            return FromVault::Refused { code: code.into() };
        }
        let node = self.node();
        match call {
            ToVault::Identity => FromVault::Identity(Identity {
                node,
                backend: self.0.backend.into(),
                models: vec![Model { id: "tiny".into(), manifest_sha256: MANIFEST }],
                max_jobs: self.with(|s| s.max_jobs),
                pinning_token: TOKEN.into(),
                rpc_path: "/".into(),
                boot_events: self.with(|s| s.boot_events.clone()),
                now: self.now(),
            }),
            ToVault::TimeNonce => self.with(|s| {
                s.nonce.0[0] = s.nonce.0[0].wrapping_add(1);
                FromVault::TimeNonce(s.nonce)
            }),
            ToVault::SetTime(time) => {
                let text = Time::signed_text(&self.with(|s| s.nonce), time.time);
                time.signature.verify(text.as_bytes(), self.0.icl).unwrap();
                self.with(|s| s.now = (time.time.0, Instant::now()));
                FromVault::Done
            }
            ToVault::SignRequest { method, path, body_sha256, nonce } => {
                let method = match method {
                    Method::Get => "GET",
                    Method::Post => "POST",
                };
                let time = self.now();
                let text = request_text(method, ICL, &path, &body_sha256, time.0, &nonce);
                FromVault::Signed { time, signature: Signature::sign(&self.0.key, text.as_bytes()) }
            }
            ToVault::Enrolment => {
                FromVault::Enrolment { ek_public: b"ek".to_vec(), ek_certificate: None, ak_public: b"ak".to_vec() }
            }
            ToVault::Activate { credential_blob, encrypted_secret } => {
                assert_eq!((credential_blob.as_slice(), encrypted_secret.as_slice()), (&b"blob"[..], &b"secret"[..]));
                FromVault::Activated(Hex([3; 32]))
            }
            ToVault::SetAkCertificate(certificate) => {
                assert_eq!(certificate, b"certificate");
                FromVault::Done
            }
            ToVault::Rotate | ToVault::Forget { .. } => FromVault::Done,
            ToVault::Attest { purpose, audience, nonce } => {
                sleep(Duration::from_millis(200)).await;
                FromVault::Evidence(json::canonical("evidence", &self.evidence(purpose, audience, nonce)).unwrap())
            }
            ToVault::Certificate { certificate, signature } => {
                signature.verify(Certificate::signed_text(&certificate).as_bytes(), self.0.icl).unwrap();
                let certificate: Certificate =
                    json::parse_canonical("certificate", certificate.as_bytes(), 16 * 1024).unwrap();
                FromVault::Certified { tier: certificate.tier, not_after: certificate.not_after, now: self.now() }
            }
            ToVault::Run { context, role, boxes, blob, .. } => {
                assert!(!blob.is_empty());
                let context = JobContext::parse(context.as_bytes()).unwrap();
                assert_eq!(context.cofhe.is_some(), boxes.is_some_and(|boxes| boxes.sealing == SEALING));
                let inference = self.with(|s| {
                    s.running += 1;
                    s.most_running = s.most_running.max(s.running);
                    s.inference
                });
                sleep(inference).await;
                self.with(|s| s.running -= 1);
                let sealed_answer = (role == Role::Leader).then(|| (blf_bridge::cid::of(ANSWER), ANSWER.to_vec()));
                FromVault::Committed { commit: Hex([5; 32]), sealed_answer }
            }
            ToVault::RevealLeader { job } => {
                let answer = Answer {
                    job_id: job,
                    commitment: COMMITMENT,
                    output_cid: blf_bridge::cid::of(ANSWER),
                    output_key: SealedKey { enc: Hex([1; 32]), ct: Hex([2; 48]) },
                    response: node,
                    v: 1,
                };
                let signature = Signature::sign(&self.0.key, answer.signed_text().unwrap().as_bytes());
                FromVault::Leader(LeaderResult {
                    job_id: job,
                    node_address: node,
                    answer,
                    salt: Hex([6; 32]),
                    signature,
                })
            }
            ToVault::RevealVerifier { job, leader_commitment } => {
                let verdict = if leader_commitment == COMMITMENT { Verdict::Confirm } else { Verdict::Reject };
                let text = verdict.signed_text(&job, &leader_commitment);
                FromVault::Verifier(VerifierResult {
                    job_id: job,
                    node_address: node,
                    commitment: COMMITMENT,
                    salt: Hex([6; 32]),
                    verdict,
                    signature: Signature::sign(&self.0.key, text.as_bytes()),
                })
            }
            ToVault::PowerOff => {
                self.with(|s| s.off = true);
                FromVault::Done
            }
            ToVault::Permit { .. } => {
                let domain = Domain { chain_id: 1, name: "ACL".into(), verifying_contract: node, version: "1".into() };
                let sign = |digest: &[u8; 32]| Signature::sign_digest(&self.0.key, digest);
                FromVault::Permit(Permission::issue_self(&domain, node, self.now().plus(3600), SEALING, sign))
            }
            ToVault::Legacy(_) => panic!("{name}: not in this profile"),
            // Nobody comes in here; tests/tests/inbound.rs has a real vault.
            ToVault::TlsCertificate | ToVault::SignTls { .. } => FromVault::Refused { code: "TLS_KEY".into() },
        }
    }

    fn evidence(&self, purpose: Purpose, audience: String, nonce: Hex<32>) -> Evidence {
        let binding = Binding {
            anchor: None,
            audience,
            boot_id: Hex([1; 16]),
            config_sha256: Hex([2; 32]),
            egress: vec!["icl.test:443".into()],
            gpu_sha256: None,
            keys: Keys {
                cofhe_sealing: SEALING,
                hpke: Hex([4; 32]),
                node: self.node(),
                response: self.node(),
                tls_spki_sha256: Hex([7; 32]),
            },
            models: vec![],
            nonce,
            not_after: self.now().plus(3600),
            numeric_profile: "test".into(),
            profile: Profile { id: Hex([10; 32]), name: "devnet".into() },
            purpose,
            v: 1,
        };
        Evidence {
            schema: SCHEMA.into(),
            binding: binding.to_canonical().unwrap(),
            config: "{}".into(),
            platform: Platform::Tpm(TpmEvidence {
                quote: Base64(vec![1]),
                signature: Base64(vec![2]),
                ak_public: Base64(vec![3]),
                ak_certificate: None,
                pcrs: vec![Hex([0; 32]); 24],
                event_log: None,
            }),
            endorsements: None,
        }
    }
}

async fn send(writer: &tokio::sync::Mutex<WriteHalf<DuplexStream>>, id: u32, message: &FromVault) {
    let frame = frames::encode(id, message).unwrap();
    // The courier may have hung up.
    drop(writer.lock().await.write_all(&frame).await);
}
