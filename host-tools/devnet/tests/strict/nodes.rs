//! The other side of the devnet: an appraiser with its own key, node doubles that hold it, users, a clock.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blf_appraisal::Expectations;
use blf_devnet::{Appraiser, Devnet, Options, Reason, Running, Verdict, commit, development};
use blf_evidence::bundle::{Evidence, PCRS, Platform, SCHEMA, TpmEvidence};
use blf_evidence::eip191::Signature;
use blf_evidence::icl::*;
use blf_evidence::job::{Answer, JobContext, SealedKey, Share, Verdict as JobVerdict};
use blf_evidence::statement::{Binding, Keys, Model, Profile, Purpose, Statement};
use blf_evidence::{Address, Base64, Hex, UnixTime};
use k256::ecdsa::SigningKey;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use crate::client::{Caller, ICL, Reply, random};

pub(crate) const START: u64 = 1_795_165_688;
pub(crate) const MODEL: &str = "blf-tiny-1";
pub(crate) const MANIFEST: Hex<32> = Hex([8; 32]);
/// The commitment that every leader reveals.
pub(crate) const TEXT: Hex<32> = Hex([0xaa; 32]);

/// Accepts what this key signed over the statement and the question's members.
pub(crate) struct Peer(SigningKey);

impl Peer {
    pub(crate) fn key() -> SigningKey {
        SigningKey::from_slice(&[7; 32]).unwrap()
    }

    pub(crate) fn new() -> Self {
        Self(Self::key())
    }
}

impl Appraiser for Peer {
    fn appraise(&self, evidence: &Evidence, expected: &Expectations, now: UnixTime) -> Result<Verdict, Reason> {
        let reason = |code: &str, detail: &str| Reason { code: code.into(), detail: detail.into() };
        let Platform::Tpm(tpm) = &evidence.platform else { return Err(reason("NOT_GENUINE", "wanted tpm")) };
        let binding = Binding::parse(evidence.binding.as_bytes()).map_err(|e| reason("NOT_WANTED", &e.to_string()))?;
        let statement = Statement::new(binding.keys.node, evidence.binding.as_bytes());
        let signature = tpm.signature.0.as_slice().try_into().map(Signature);
        let signature = signature.map_err(|_| reason("NOT_GENUINE", "wanted 65 bytes"))?;
        signature
            .verify(&statement.0.0, development::address(&self.0))
            .map_err(|e| reason("NOT_GENUINE", &e.to_string()))?;
        let got = (&binding.audience, binding.nonce, binding.purpose);
        if got != (&expected.audience, expected.nonce, expected.purpose) || now > binding.not_after {
            return Err(reason("NOT_WANTED", "wanted another audience, nonce, purpose or end"));
        }
        let measurement = format!("tpm-pcr11:{}", tpm.pcrs[11]);
        Ok(Verdict { measurement, tier: 0, expires_at: binding.not_after })
    }
}

/// A devnet under test; it stops when dropped.
pub(crate) struct Net {
    pub(crate) running: Running,
    pub(crate) clock: Arc<AtomicU64>,
    stop: oneshot::Sender<()>,
}

impl Net {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let clock = Arc::new(AtomicU64::new(START));
        let mut options = Options::new(Arc::new(Peer::new())).unwrap();
        let time = Arc::clone(&clock);
        options.clock = Arc::new(move || UnixTime(time.load(Ordering::SeqCst)));
        change(&mut options);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = Devnet::start(options, async {
            let _ = stopped.await;
        });
        Self { running: running.await.unwrap(), clock, stop }
    }

    pub(crate) fn forward(&self, seconds: u64) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(crate) fn caller(&self) -> Caller {
        let key = SigningKey::from_slice(&random::<32>()).unwrap();
        let address = development::address(&key);
        Caller { key, address, to: self.running.address, clock: Arc::clone(&self.clock) }
    }

    pub(crate) async fn node(&self) -> Node {
        let node = self.stranger();
        node.admit().await;
        node
    }

    pub(crate) fn stranger(&self) -> Node {
        let response = SigningKey::from_slice(&random::<32>()).unwrap();
        Node { caller: self.caller(), response, hpke: Hex(random()), salt: Hex(random()), binding_life: 86_400 }
    }

    /// Ends the devnet and waits for its tasks.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.running.stopped()).await.unwrap();
    }
}

/// A node: keys of its own, evidence vouched for by the peer's key.
pub(crate) struct Node {
    caller: Caller,
    pub(crate) response: SigningKey,
    pub(crate) hpke: Hex<32>,
    pub(crate) salt: Hex<32>,
    /// Seconds from now to the binding's `not_after`.
    pub(crate) binding_life: u64,
}

impl Deref for Node {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Node {
    pub(crate) fn evidence(&self, purpose: Purpose, audience: &str, nonce: Hex<32>) -> Evidence {
        let binding = Binding {
            anchor: None,
            audience: audience.into(),
            boot_id: Hex([1; 16]),
            config_sha256: Hex(Sha256::digest(b"{}").into()),
            egress: vec![],
            gpu_sha256: None,
            keys: Keys {
                cofhe_sealing: Hex([3; 32]),
                hpke: self.hpke,
                node: self.address,
                response: development::address(&self.response),
                tls_spki_sha256: Hex([7; 32]),
            },
            models: vec![Model { id: MODEL.into(), manifest_sha256: MANIFEST }],
            nonce,
            not_after: UnixTime(self.now() + self.binding_life),
            numeric_profile: "candle-f32-v1".into(),
            profile: Profile { id: Hex([10; 32]), name: "devnet".into() },
            purpose,
            v: 1,
        };
        let binding = binding.to_canonical().unwrap();
        let statement = Statement::new(self.address, binding.as_bytes());
        Evidence {
            schema: SCHEMA.into(),
            binding,
            config: "{}".into(),
            platform: Platform::Tpm(TpmEvidence {
                quote: Base64(statement.qualifying_data().to_vec()),
                signature: Base64(Signature::sign(&Peer::key(), &statement.0.0).0.to_vec()),
                ak_public: Base64(vec![3]),
                ak_certificate: None,
                pcrs: vec![Hex([11; 32]); PCRS],
                event_log: None,
            }),
            endorsements: None,
        }
    }

    /// The devnet has another address now.
    pub(crate) fn moved(&mut self, to: std::net::SocketAddr) {
        self.caller.to = to;
    }

    pub(crate) async fn challenge(&self) -> Challenge {
        self.get(&format!("/internal/challenge/{}", self.address)).await.ok()
    }

    pub(crate) async fn attest(&self, challenge: &Challenge, evidence: Evidence) -> Reply {
        let challenge_id = challenge.challenge_id.clone();
        let (node_address, backend_type) = (self.address, "tpm".into());
        self.post("/internal/attestation/verify", &Attest { node_address, backend_type, challenge_id, evidence }).await
    }

    pub(crate) async fn admit(&self) -> Certificate {
        let challenge = self.challenge().await;
        let evidence = self.evidence(Purpose::Admission, ICL, challenge.nonce);
        let reply: AttestReply = self.attest(&challenge, evidence).await.ok();
        let account = development::profile().unwrap().icl_account;
        reply.signature.verify(Certificate::signed_text(&reply.certificate).as_bytes(), account).unwrap();
        serde_json::from_str(&reply.certificate).unwrap()
    }

    pub(crate) async fn poll(&self) -> Assignments {
        self.get(&format!("/internal/assignments/{}", self.address)).await.ok()
    }

    pub(crate) async fn claim(&self, job_id: Hex<32>) -> Reply {
        self.post("/internal/task/claim", &Claim { job_id, node_address: self.address }).await
    }

    pub(crate) async fn commit(&self, job_id: Hex<32>, commitment: Hex<32>) -> Reply {
        let commit = commit(&job_id, self.address, &commitment, &self.salt);
        self.post("/internal/task/commit", &Commit { job_id, node_address: self.address, commit }).await
    }

    pub(crate) fn result(&self, job_id: Hex<32>, commitment: Hex<32>) -> LeaderResult {
        let output_key = SealedKey { enc: Hex([1; 32]), ct: Hex([2; 48]) };
        let response = development::address(&self.response);
        let answer = Answer { job_id, commitment, output_cid: "bafkreia".into(), output_key, response, v: 1 };
        let signature = Signature::sign(&self.response, answer.signed_text().unwrap().as_bytes());
        LeaderResult { job_id, node_address: self.address, answer, salt: self.salt, signature }
    }

    pub(crate) async fn lead(&self, job_id: Hex<32>, commitment: Hex<32>) -> Reply {
        self.post("/internal/task/result", &self.result(job_id, commitment)).await
    }

    /// A verdict on a leader whose commitment is `judged`.
    pub(crate) fn verdict(
        &self,
        job_id: Hex<32>,
        commitment: Hex<32>,
        judged: Hex<32>,
        verdict: JobVerdict,
    ) -> VerifierResult {
        let signature = Signature::sign(&self.response, verdict.signed_text(&job_id, &judged).as_bytes());
        VerifierResult { job_id, node_address: self.address, commitment, salt: self.salt, verdict, signature }
    }

    pub(crate) async fn verify(&self, job_id: Hex<32>, commitment: Hex<32>, verdict: JobVerdict) -> Reply {
        self.reveal(&self.verdict(job_id, commitment, TEXT, verdict)).await
    }

    pub(crate) async fn reveal(&self, result: &VerifierResult) -> Reply {
        self.post("/internal/task/verify", result).await
    }

    pub(crate) async fn hand_back(&self, job_id: Hex<32>, reason: &str) -> Reply {
        let fail = Fail { job_id, node_address: self.address, reason: reason.into() };
        self.post("/internal/task/fail", &fail).await
    }

    pub(crate) async fn status(&self, job: Hex<32>) -> Reply {
        self.get(&format!("/internal/jobs/{job}/status")).await
    }
}

/// A job as `user` would submit it to these nodes: leader first, then `verifiers`, the rest are spares.
pub(crate) fn submission(user: &Caller, nodes: &[&Node], verifiers: usize) -> (Hex<32>, Submit) {
    let job_id = Hex(random());
    let context = JobContext {
        cofhe: None,
        job_id,
        measurements: vec![format!("tpm-pcr11:{}", Hex([11; 32]))],
        max_new_tokens: 16,
        model_manifest_sha256: MANIFEST,
        not_after: UnixTime(user.now() + 3600),
        reply_hpke: Hex([5; 32]),
        user: user.address,
        v: 1,
    };
    let share = |node: &&Node| Share {
        node: node.address,
        hpke: node.hpke,
        key: SealedKey { enc: Hex([1; 32]), ct: Hex([9; 48]) },
    };
    let addresses: Vec<Address> = nodes.iter().map(|node| node.address).collect();
    let submit = Submit {
        context: context.to_canonical().unwrap(),
        leader: addresses[0],
        model_id: MODEL.into(),
        prompt_cid: "bafkreia".into(),
        shares: nodes.iter().map(share).collect(),
        spares: addresses[1 + verifiers..].to_vec(),
        verifiers: addresses[1..=verifiers].to_vec(),
    };
    (job_id, submit)
}

pub(crate) async fn submit(user: &Caller, submit: &Submit) -> Reply {
    user.post("/v1/inference/requests", submit).await
}

pub(crate) async fn request_status(user: &Caller, job: Hex<32>) -> RequestStatus {
    user.get(&format!("/v1/inference/{job}")).await.ok()
}

/// Asks until the job is where it is wanted: deadlines are applied by the devnet's ticker.
pub(crate) async fn wait_for(user: &Caller, job: Hex<32>, wanted: impl Fn(&RequestStatus) -> bool) -> RequestStatus {
    for _ in 0..100 {
        let status = request_status(user, job).await;
        if wanted(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("job {job} stays {:?}", request_status(user, job).await);
}
