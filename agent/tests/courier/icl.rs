//! An ICL and a blob store with their own keys: strict where the real one is, and misbehaving on demand.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use blf_evidence::eip191::{Signature, address, request_text};
use blf_evidence::icl::*;
use blf_evidence::job::{SealedKey, Share, Verdict};
use blf_evidence::statement::{Binding, Purpose};
use blf_evidence::{Address, Base64, Hex, UnixTime, json};
use bytes::Bytes;
use k256::ecdsa::SigningKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::net::{Call, Peer, Reply};

pub const ICL: &str = "icl.test";
pub const BLOBS: &str = "blobs.test";
pub const THRESHOLD: &str = "threshold.test";
pub const TOKEN: &str = "pinning token";

/// Decides on a reply before the ICL does; gets method, path, and the time since the start.
pub type Fault = Box<dyn FnMut(&str, &str, Duration) -> Option<Reply> + Send>;

pub struct Double {
    key: SigningKey,
    start: Instant,
    /// Unix time at the start.
    pub epoch: u64,
    pub state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    pub fault: Option<Fault>,
    /// Every request: when, method, path.
    pub log: Vec<(Duration, String, String)>,
    nonces: HashSet<String>,
    challenges: HashMap<Address, Hex<32>>,
    /// How far its clock has been set forward, or back, in seconds.
    pub skew: i64,
    /// Certified nodes; cleared to forget them.
    pub known: HashSet<Address>,
    /// Life of a certificate, in seconds.
    pub life: u64,
    /// Nodes whose AK is certified; cleared to forget them.
    pub enrolled: HashSet<Address>,
    pub attested: Vec<Attest>,
    pub heartbeats: Vec<(Duration, Heartbeat)>,
    pub evidence_requests: Vec<EvidenceRequest>,
    pub evidence: Vec<(Duration, FreshEvidence)>,
    pub assignments: Vec<Assignment>,
    pub jobs: HashMap<Hex<32>, Job>,
    pub blobs: HashMap<String, Bytes>,
    /// What the pinning service answers instead of the truth.
    pub pinned_as: Option<String>,
}

#[derive(Default)]
pub struct Job {
    pub claims: usize,
    pub commits: usize,
    pub failed: Option<String>,
    /// Set for a job in which the node is a verifier.
    pub leader_commitment: Option<Hex<32>>,
    pub result: Option<LeaderResult>,
    pub verdict: Option<VerifierResult>,
}

impl Double {
    pub fn new(epoch: u64) -> Self {
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let state = State { life: 86_400, ..State::default() };
        Self { key, start: Instant::now(), epoch, state: Mutex::new(state) }
    }

    pub fn account(&self) -> Address {
        address(self.key.verifying_key())
    }

    pub fn now(&self) -> UnixTime {
        self.with(|s| self.at(s))
    }

    fn at(&self, s: &State) -> UnixTime {
        UnixTime((self.epoch + self.start.elapsed().as_secs()).saturating_add_signed(s.skew))
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock().unwrap())
    }

    pub fn fault(&self, fault: impl FnMut(&str, &str, Duration) -> Option<Reply> + Send + 'static) {
        self.with(|s| s.fault = Some(Box::new(fault)));
    }

    /// Requests so far whose path contains `part`.
    pub fn count(&self, part: &str) -> usize {
        self.with(|s| s.log.iter().filter(|(_, _, path)| path.contains(part)).count())
    }

    fn icl(&self, call: &Call) -> Reply {
        let mut state = self.state.lock().unwrap();
        let s = &mut *state;
        let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        if let ["internal", "time"] = segments.as_slice() {
            let nonce: Hex<32> = query.strip_prefix("nonce=").unwrap().parse().unwrap();
            let time = self.at(s);
            let signature = Signature::sign(&self.key, Time::signed_text(&nonce, time).as_bytes());
            return ok(&Time { nonce, signature, time });
        }
        let node = match self.authenticate(s, call) {
            Ok(node) => node,
            Err(code) => return refuse(401, code),
        };
        let (body, now) = (&call.body, self.at(s));
        match (call.method.as_str(), segments.as_slice()) {
            ("GET", ["internal", "challenge", _]) => {
                let nonce = Hex(Sha256::digest(s.log.len().to_be_bytes()).into());
                s.challenges.insert(node, nonce);
                let expires_at = self.at(s).plus(300);
                ok(&Challenge { challenge_id: "c".into(), nonce, audience: ICL.into(), expires_at })
            }
            ("POST", ["internal", "enroll"]) => {
                let enroll: Enroll = parse(body);
                assert_eq!(enroll.ak_public.0, b"ak");
                ok(&EnrollReply {
                    enrolment_id: "e".into(),
                    credential_blob: Base64(b"blob".to_vec()),
                    encrypted_secret: Base64(b"secret".to_vec()),
                })
            }
            ("POST", ["internal", "enroll", "activate"]) => {
                let activate: Activate = parse(body);
                assert_eq!((activate.enrolment_id.as_str(), activate.secret), ("e", Hex([3; 32])));
                s.enrolled.insert(node);
                ok(&ActivateReply { ak_certificate: Base64(b"certificate".to_vec()) })
            }
            ("POST", ["internal", "attestation", "verify"]) => {
                let attest: Attest = parse(body);
                attest.evidence.check().unwrap();
                let binding = Binding::parse(attest.evidence.binding.as_bytes()).unwrap();
                if binding.purpose != Purpose::Admission || s.challenges.remove(&node) != Some(binding.nonce) {
                    return refuse(403, "STALE_NONCE");
                }
                if attest.backend_type == "tpm" && !s.enrolled.contains(&node) {
                    return refuse(403, "AK_REFUSED");
                }
                s.attested.push(attest);
                s.known.insert(node);
                let certificate = json::canonical(
                    "certificate",
                    &Certificate {
                        binding_sha256: Hex([0; 32]),
                        issued_at: self.at(s),
                        keys: binding.keys,
                        measurement: "tpm-pcr11:00".into(),
                        not_after: self.at(s).plus(s.life),
                        tier: 0,
                        v: 1,
                    },
                )
                .unwrap();
                let signature = Signature::sign(&self.key, Certificate::signed_text(&certificate).as_bytes());
                ok(&AttestReply { certificate, signature })
            }
            _ if !s.known.contains(&node) => refuse(404, "UNKNOWN_NODE"),
            ("GET", ["internal", "assignments", _]) => {
                let answered: HashSet<_> = s.evidence.iter().map(|(_, e)| e.request_id.clone()).collect();
                let waiting = s.evidence_requests.iter().filter(|r| !answered.contains(&r.request_id));
                // As slow to forget as the existing network: claimed jobs show up again.
                ok(&Assignments { assignments: s.assignments.clone(), evidence_requests: waiting.cloned().collect() })
            }
            ("POST", ["internal", "heartbeat"]) => {
                s.heartbeats.push((self.elapsed(), parse(body)));
                done()
            }
            ("POST", ["internal", "evidence"]) => {
                s.evidence.push((self.elapsed(), parse(body)));
                done()
            }
            ("POST", ["internal", "task", "claim"]) => {
                let claim: Claim = parse(body);
                let Some(job) = s.jobs.get_mut(&claim.job_id) else { return refuse(404, "UNKNOWN_JOB") };
                job.claims += 1;
                let key = SealedKey { enc: Hex([1; 32]), ct: Hex([2; 48]) };
                let share = Share { node, hpke: Hex([4; 32]), key };
                ok(&ClaimReply { share, claim_deadline: UnixTime(now.0 + 300) })
            }
            ("POST", ["internal", "task", "commit"]) => {
                let commit: Commit = parse(body);
                let Some(job) = s.jobs.get_mut(&commit.job_id) else { return refuse(404, "UNKNOWN_JOB") };
                job.commits += 1;
                if job.commits > 1 { refuse(409, "ALREADY_COMMITTED") } else { done() }
            }
            ("POST", ["internal", "task", "result"]) => {
                let result: LeaderResult = parse(body);
                let Some(job) = s.jobs.get_mut(&result.job_id) else { return refuse(404, "UNKNOWN_JOB") };
                assert!(s.blobs.contains_key(&result.answer.output_cid), "stored before it is revealed");
                job.result = Some(result);
                done()
            }
            ("POST", ["internal", "task", "verify"]) => {
                let verdict: VerifierResult = parse(body);
                let Some(job) = s.jobs.get_mut(&verdict.job_id) else { return refuse(404, "UNKNOWN_JOB") };
                job.verdict = Some(verdict);
                done()
            }
            ("POST", ["internal", "task", "fail"]) => {
                let fail: Fail = parse(body);
                let Some(job) = s.jobs.get_mut(&fail.job_id) else { return refuse(404, "UNKNOWN_JOB") };
                job.failed = Some(fail.reason);
                done()
            }
            ("GET", ["internal", "jobs", id, "status"]) => {
                let job_id = id.parse().unwrap();
                let Some(job) = s.jobs.get(&job_id) else { return refuse(404, "UNKNOWN_JOB") };
                let (phase, leader_commitment) = job.phase();
                ok(&JobStatus { job_id, phase, leader_commitment, reason: None })
            }
            _ => refuse(404, "NO_SUCH_ENDPOINT"),
        }
    }

    fn authenticate(&self, s: &mut State, call: &Call) -> Result<Address, &'static str> {
        let header = |name| call.headers.get(name).and_then(|v| v.to_str().ok()).ok_or("NOT_SIGNED");
        let node: Address = header(HEADER_ADDRESS)?.parse().map_err(|_| "NOT_SIGNED")?;
        let time: u64 = header(HEADER_TIMESTAMP)?.parse().map_err(|_| "NOT_SIGNED")?;
        let nonce: Hex<16> = header(HEADER_NONCE)?.parse().map_err(|_| "NOT_SIGNED")?;
        let signature: Signature = header(HEADER_SIGNATURE)?.parse().map_err(|_| "NOT_SIGNED")?;
        if self.at(s).0.abs_diff(time) > CLOCK_SKEW {
            return Err("TIME_SKEW");
        }
        let body = Hex(Sha256::digest(&call.body).into());
        let text = request_text(&call.method, ICL, &call.path, &body, time, &nonce);
        signature.verify(text.as_bytes(), node).map_err(|_| "BAD_SIGNATURE")?;
        if s.nonces.insert(nonce.to_string()) { Ok(node) } else { Err("NONCE_REUSED") }
    }

    fn blobs(&self, call: &Call) -> Reply {
        let mut s = self.state.lock().unwrap();
        if let Some(cid) = call.path.strip_prefix("/ipfs/") {
            return s
                .blobs
                .get(cid)
                .map_or_else(|| refuse(404, "UNKNOWN_BLOB"), |blob| Reply::Whole(200, vec![], blob.clone()));
        }
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/pinning/pinFileToIPFS"));
        assert_eq!(call.headers["authorization"], format!("Bearer {TOKEN}"));
        let form = call.headers["content-type"].to_str().unwrap();
        let boundary = form.strip_prefix("multipart/form-data; boundary=").unwrap();
        let blob = file(&call.body, boundary).expect("a part named file");
        let cid = blf_bridge::cid::of(&blob);
        s.blobs.insert(cid.clone(), blob);
        let cid = s.pinned_as.clone().unwrap_or(cid);
        let reply = format!(r#"{{"IpfsHash":"{cid}","PinSize":1,"Timestamp":"2026-01-01T00:00:00Z"}}"#);
        Reply::Whole(200, vec![], reply.into())
    }
}

impl Peer for Double {
    fn answer(&self, host: &str, call: Call) -> Reply {
        let elapsed = self.elapsed();
        let mut state = self.state.lock().unwrap();
        state.log.push((elapsed, call.method.clone(), call.path.clone()));
        let fault = state.fault.as_mut().and_then(|fault| fault(&call.method, &call.path, elapsed));
        drop(state);
        match (fault, host) {
            (Some(reply), _) => reply,
            (None, ICL) => self.icl(&call),
            (None, THRESHOLD) => sealoutput(&call),
            (None, _) => self.blobs(&call),
        }
    }
}

impl Job {
    /// A job for a node that leads a quorum of one.
    pub fn lead() -> Self {
        Self::default()
    }

    /// A job for a verifier whose leader committed to this.
    pub fn verify(leader_commitment: Hex<32>) -> Self {
        Self { leader_commitment: Some(leader_commitment), ..Self::default() }
    }

    fn phase(&self) -> (Phase, Option<Hex<32>>) {
        let phase = match (&self.failed, self.commits, &self.result, &self.verdict, self.leader_commitment) {
            (Some(_), ..) => Phase::Failed,
            (_, _, Some(_), ..) => Phase::Accepted,
            (_, _, _, Some(v), _) if v.verdict == Verdict::Confirm => Phase::Accepted,
            (_, _, _, Some(_), _) => Phase::Rejected,
            (_, 0, ..) => Phase::Committing,
            (_, _, _, _, Some(_)) => Phase::Verifying,
            _ => Phase::Revealing,
        };
        let shown = matches!(phase, Phase::Verifying | Phase::Accepted | Phase::Rejected);
        (phase, self.leader_commitment.filter(|_| shown))
    }
}

/// The threshold network: a request id, and the box at the second poll for it.
fn sealoutput(call: &Call) -> Reply {
    let reply = match (call.method.as_str(), call.path.as_str()) {
        ("POST", "/v2/sealoutput") => r#"{"request_id":"r-1"}"#.to_owned(),
        ("GET", "/v2/sealoutput/r-1") => sealed(&[1; 32]),
        _ => return refuse(404, "NO_SUCH_REQUEST"),
    };
    Reply::Whole(200, vec![], reply.into())
}

/// A completed answer with `data` in its box.
pub fn sealed(data: &[u8]) -> String {
    let sealed = serde_json::json!({ "data": data, "public_key": vec![2; 32], "nonce": vec![3; 24] });
    serde_json::json!({ "status": "COMPLETED", "is_succeed": true, "sealed": sealed }).to_string()
}

pub fn ok(document: &impl Serialize) -> Reply {
    let text = json::canonical("reply", document).unwrap();
    Reply::Whole(200, vec![("content-type", "application/json".into())], text.into())
}

pub fn refuse(status: u16, code: &str) -> Reply {
    let refusal = Refusal { code: code.into(), detail: "test".into() };
    Reply::Whole(status, vec![], json::canonical("refusal", &refusal).unwrap().into())
}

pub fn retry_after(status: u16, seconds: u64) -> Reply {
    match refuse(status, "RATE_LIMITED") {
        Reply::Whole(status, _, body) => Reply::Whole(status, vec![("retry-after", seconds.to_string())], body),
        other => other,
    }
}

fn done() -> Reply {
    ok(&Done { status: "ok".into() })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> T {
    json::parse("body", body, BODY_CAP).unwrap()
}

/// The part named `file` of a multipart body (RFC 7578).
fn file(body: &[u8], boundary: &str) -> Option<Bytes> {
    let find = |text: &[u8], wanted: &[u8]| text.windows(wanted.len()).position(|w| w == wanted);
    let mut rest = body;
    loop {
        let start = find(rest, format!("--{boundary}\r\n").as_bytes())? + boundary.len() + 4;
        rest = &rest[start..];
        let head = find(rest, b"\r\n\r\n")?;
        let end = find(rest, format!("\r\n--{boundary}").as_bytes())?;
        if std::str::from_utf8(&rest[..head]).ok()?.contains("name=\"file\"") {
            return Some(Bytes::copy_from_slice(&rest[head + 4..end]));
        }
        rest = &rest[end + 2..];
    }
}
