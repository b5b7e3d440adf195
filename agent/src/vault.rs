//! The vault: holds every key, and does what the courier asks if it may be done.
//!
//! It believes nothing that comes in a frame. What it signs has one of six labelled forms: a request to the measured ICL,
//! a binding, an answer, a verdict, a permit for CoFHE, a TLS server's CertificateVerify. What it opens was sealed to it for
//! a job that passes every check of `release.rs`. What it does for the existing network is in `vault/legacy.rs`.
//!
//! A compromised courier can have any request to `/internal/` signed with the node key, and so claim, commit and fail in the
//! node's name, or keep back what it is given. The response key signs only the answer that the engine computed, or a verdict
//! on whether what it computed is what the leader committed to.
//!
//! Also without booting: [`Vault::new`] takes its parts, [`Vault::serve`] one end of a socket.

#[cfg(not(feature = "production"))]
mod legacy;

use std::collections::{HashMap, HashSet};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use blf_bridge::cofhe::{Domain, Permission};
use blf_evidence::bundle::{Evidence, Platform, SCHEMA};
use blf_evidence::config::{Credentials, PublicConfig};
use blf_evidence::eip191::{Signature, request_text};
use blf_evidence::job::{Role, Share};
use blf_evidence::json::JsonError;
use blf_evidence::profile::NetworkProfile;
use blf_evidence::statement::{Binding, Model, Profile, Purpose, Statement};
use blf_evidence::{Address, Base64, Hex, UnixTime};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::attester::{AttestError, Attester};
use crate::certificate::{self, Expected};
use crate::channel::{self, Within};
use crate::clock::Clock;
use crate::commitment::Commitment;
use crate::engine::Engine;
use crate::error::{HardwareError, IclError, InternalError, JobError, VaultError};
use crate::frames::{Boxes, FromVault, Identity, Method, ToVault, UNASKED};
use crate::job;
use crate::keys::Keys;
use crate::release::{Claim, Facts, HeldModel};

/// How long a binding says something, in seconds.
const BINDING_LIFETIME: u64 = 60 * 60;
/// How long a permit for CoFHE is good, in seconds: access cannot be taken back, so it ends soon.
const PERMIT_LIFETIME: u64 = 60 * 60;
/// `not_after` while no time was authenticated: the largest that JSON carries. The nonce alone makes such evidence fresh.
const NO_END: UnixTime = UnixTime((1 << 53) - 1);
/// Jobs that a boot remembers having run; then it runs no more.
const JOBS_CAP: usize = 100_000;
/// Jobs between commit and reveal.
const COMMITTED_CAP: usize = 16;
/// How long a commitment is kept at most, in seconds: longer than the courier waits to reveal it, and not as long as a user
/// says, because it keeps the keys that it was made with.
const COMMITTED_LIFETIME: u64 = 10 * 60;
/// Admission bindings remembered for one generation of keys.
const BINDINGS_CAP: usize = 8;
/// Longest AK certificate, in bytes: what evidence can carry.
const AK_CERTIFICATE_CAP: usize = 4 * 1024;
/// Requests that are worked on beside the reading of frames.
const TASKS_CAP: usize = 8;
/// A second panic within this time ends the guest: it is not half dead.
const PANIC_WINDOW: Duration = Duration::from_secs(60);
/// Between two looks whether requests have ended.
const SETTLE_LOOK: Duration = Duration::from_millis(10);
/// How long the courier may take to read a reply.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// The Attesting Environment of RFC 9334, section 3: collects Claims about this guest and signs them.
pub trait AttestingEnvironment: Send {
    /// `snp`, `tdx` or `tpm`.
    fn platform(&self) -> &'static str;
    /// Evidence that this platform saw `statement`.
    ///
    /// # Errors
    /// [`AttestError`].
    fn attest(&mut self, statement: &Statement) -> Result<Platform, AttestError>;
    /// Names what was measured.
    ///
    /// # Errors
    /// [`AttestError`].
    fn measurement_id(&mut self) -> Result<String, AttestError>;
    /// The TPM's public halves; `None` without a TPM.
    fn enrolment(&self) -> Option<Enrolment> {
        None
    }
    /// TPM2_ActivateCredential; `None` without a TPM.
    ///
    /// # Errors
    /// [`AttestError`].
    fn activate(&mut self, _credential_blob: &[u8], _encrypted_secret: &[u8]) -> Option<Result<[u8; 32], AttestError>> {
        None
    }
    /// Staples this AK certificate (DER) from now on; false without a TPM.
    fn set_ak_certificate(&mut self, _der: Vec<u8>) -> bool {
        false
    }
}

/// What a TPM shows of itself to be enrolled.
pub struct Enrolment {
    /// TPMT_PUBLIC of the EK.
    pub ek_public: Vec<u8>,
    /// Its certificate (DER).
    pub ek_certificate: Option<Vec<u8>>,
    /// TPMT_PUBLIC of the AK.
    pub ak_public: Vec<u8>,
}

/// What a vault is made of.
pub struct Parts {
    /// The measured profile.
    pub profile: NetworkProfile,
    /// The operator's public configuration, verbatim.
    pub config: String,
    /// What the operator lends.
    pub credentials: Credentials,
    /// What the host staples, unparsed.
    pub endorsements: Option<Base64>,
    /// The platform.
    pub attester: Box<dyn AttestingEnvironment>,
    /// What this platform measured.
    pub measurement: String,
    /// The models in the engine.
    pub models: Vec<HeldModel>,
    /// How the engine computes: the `numeric_profile` of every binding.
    pub numeric_profile: String,
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// The clock.
    pub clock: Clock,
    /// The keys.
    pub keys: Keys,
}

/// The vault.
pub struct Vault {
    profile: NetworkProfile,
    config: String,
    max_jobs: usize,
    pinning_token: Zeroizing<String>,
    rpc_path: Zeroizing<String>,
    endorsements: Option<Base64>,
    attester: Mutex<Box<dyn AttestingEnvironment>>,
    numeric_profile: String,
    engine: Arc<dyn Engine>,
    clock: Clock,
    facts: Facts,
    boot_id: Hex<16>,
    state: Mutex<State>,
    boot_events: Mutex<Vec<String>>,
    /// The courier, to be told to stop.
    courier: Mutex<Option<Writer>>,
    stopping: AtomicBool,
    tasks: AtomicUsize,
    panicked: Mutex<Option<Instant>>,
    /// Panics have ended this vault.
    broken: AtomicBool,
}

struct State {
    /// Gone after [`ToVault::PowerOff`].
    keys: Option<Keys>,
    /// SHA-256 of the bindings that named the next generation of keys to the ICL.
    admissions: Vec<Hex<32>>,
    /// Every job that was begun in this boot (architecture decision 9).
    begun: HashSet<Hex<32>>,
    /// Jobs whose model is running.
    running: HashSet<Hex<32>>,
    /// And until when each is kept.
    committed: HashMap<Hex<32>, (UnixTime, Commitment)>,
    /// Jobs of the existing network between their answer and their end.
    #[cfg(not(feature = "production"))]
    legacy: HashMap<Hex<32>, crate::legacy::job::Done>,
}

type Writer = Arc<Mutex<UnixStream>>;

/// Why [`Vault::serve`] returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The courier is gone.
    Courier,
    /// Two tasks panicked within a minute.
    Panics,
    /// The courier is done and the keys are wiped.
    PowerOff,
}

impl Vault {
    /// A vault of `parts`.
    ///
    /// # Errors
    /// [`InternalError::Document`] for a configuration that is none, [`HardwareError::Randomness`].
    pub fn new(parts: Parts) -> Result<Self, VaultError> {
        let config = PublicConfig::parse(parts.config.as_bytes()).map_err(InternalError::Document)?;
        let mut boot_id = Hex([0; 16]);
        getrandom::fill(&mut boot_id.0).map_err(|_| HardwareError::Randomness)?;
        let node = parts.keys.node().address();
        Ok(Self {
            profile: parts.profile,
            config: parts.config,
            max_jobs: usize::from(config.max_jobs),
            pinning_token: Zeroizing::new(parts.credentials.pinning_token),
            rpc_path: Zeroizing::new(parts.credentials.rpc_path.unwrap_or_else(|| "/".into())),
            endorsements: parts.endorsements,
            attester: Mutex::new(parts.attester),
            numeric_profile: parts.numeric_profile,
            engine: parts.engine,
            clock: parts.clock,
            facts: Facts { node, measurement: parts.measurement, models: parts.models },
            boot_id,
            state: Mutex::new(State {
                keys: Some(parts.keys),
                admissions: Vec::new(),
                begun: HashSet::new(),
                running: HashSet::new(),
                committed: HashMap::new(),
                #[cfg(not(feature = "production"))]
                legacy: HashMap::new(),
            }),
            boot_events: Mutex::default(),
            courier: Mutex::default(),
            stopping: AtomicBool::new(false),
            tasks: AtomicUsize::new(0),
            panicked: Mutex::default(),
            broken: AtomicBool::new(false),
        })
    }

    /// This node.
    pub fn node(&self) -> Address {
        self.facts.node
    }

    /// What the courier will report about the boot, one telemetry line each.
    pub fn set_boot_events(&self, lines: Vec<String>) {
        *lock(&self.boot_events) = lines;
    }

    /// Answers the courier's frames on `stream` until it ends. Long requests run in threads of their own.
    pub fn serve(self: &Arc<Self>, stream: UnixStream) -> Ended {
        let Ok((writer, mut reader)) = self.open(stream) else { return Ended::Courier };
        let ended = loop {
            let Ok(Some(frame)) = channel::read(&mut reader) else { break Ended::Courier };
            let id = frame.id;
            let request = match frame.message::<ToVault>() {
                Ok(request) if id != UNASKED => request,
                Ok(_) => break Ended::Courier,
                Err(error) => {
                    reply(&writer, id, &refused(&InternalError::Frame(error).into()));
                    continue;
                }
            };
            drop(frame);
            match request {
                ToVault::PowerOff => {
                    self.wipe();
                    reply(&writer, id, &FromVault::Done);
                    break Ended::PowerOff;
                }
                // What takes long, or waits for the device that another has.
                ToVault::Run { .. }
                | ToVault::Attest { .. }
                | ToVault::Identity
                | ToVault::Enrolment
                | ToVault::Activate { .. }
                | ToVault::SetAkCertificate(_) => self.spawn(&writer, id, request),
                #[cfg(not(feature = "production"))]
                ToVault::Legacy(crate::legacy::frames::Ask::Run(_)) => self.spawn(&writer, id, request),
                quick => self.attempt(&writer, id, quick),
            }
        };
        // Its successor may be here already, and is the one to be told of a stop.
        drop(lock(&self.courier).take_if(|courier| Arc::ptr_eq(courier, &writer)));
        let _ = reader.shutdown(Shutdown::Both);
        if self.broken.load(Ordering::SeqCst) { Ended::Panics } else { ended }
    }

    /// Asks the courier, this one and any that comes after it, to drain and power off.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(writer) = lock(&self.courier).clone() {
            reply(&writer, UNASKED, &FromVault::Stop);
        }
    }

    /// Waits until no request is at work any more: those of jobs hold keys and prompts of their own until they end. False if
    /// some still are after `within`.
    pub fn settled(&self, within: Duration) -> bool {
        let end = Instant::now() + within;
        while self.tasks.load(Ordering::SeqCst) > 0 {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(SETTLE_LOOK);
        }
        true
    }

    /// Forgets every key and every job. Nothing can be signed or opened afterwards; see [`Self::settled`].
    pub fn wipe(&self) {
        let mut state = lock(&self.state);
        state.keys = None;
        state.committed.clear();
        #[cfg(not(feature = "production"))]
        state.legacy.clear();
    }

    /// Does what one request asks.
    pub fn handle(&self, request: ToVault) -> FromVault {
        self.answer(request).unwrap_or_else(|error| refused(&error))
    }

    /// Fresh evidence for `audience`.
    ///
    /// # Errors
    /// [`VaultError::Hardware`], [`InternalError::Wiped`].
    pub fn evidence(&self, purpose: Purpose, audience: String, nonce: Hex<32>) -> Result<Evidence, VaultError> {
        let now = self.clock.now();
        let not_after =
            if self.clock.is_authenticated() { UnixTime(now.0.saturating_add(BINDING_LIFETIME)) } else { NO_END };
        let keys = self.with_keys(|keys| {
            Ok(if purpose == Purpose::Admission { keys.next().clone() } else { keys.shown().clone() })
        })?;
        let models = self.facts.models.iter();
        let binding = Binding {
            anchor: None,
            audience,
            boot_id: self.boot_id,
            config_sha256: Hex(Sha256::digest(&self.config).into()),
            egress: self.profile.egress(),
            gpu_sha256: None,
            keys,
            models: models.map(|m| Model { id: m.id.clone(), manifest_sha256: m.manifest_sha256 }).collect(),
            nonce,
            not_after,
            numeric_profile: self.numeric_profile.clone(),
            profile: Profile {
                id: self.profile.id().map_err(InternalError::Document)?,
                name: self.profile.name.clone(),
            },
            purpose,
            v: 1,
        };
        let text = binding.to_canonical().map_err(InternalError::Document)?;
        let statement = Statement::new(self.facts.node, text.as_bytes());
        let platform = lock(&self.attester).attest(&statement).map_err(HardwareError::Attest)?;
        if purpose == Purpose::Admission {
            let mut state = lock(&self.state);
            // The keys may have rotated while the device was at work; then no certificate may answer this.
            if state.keys.as_ref().is_some_and(|keys| *keys.next() == binding.keys) {
                if state.admissions.len() == BINDINGS_CAP {
                    state.admissions.remove(0);
                }
                state.admissions.push(Hex(Sha256::digest(&text).into()));
            }
        }
        let evidence = Evidence {
            schema: SCHEMA.into(),
            binding: text,
            config: self.config.clone(),
            platform,
            endorsements: self.endorsements.clone(),
        };
        evidence.check().map_err(InternalError::Document)?;
        Ok(evidence)
    }

    fn answer(&self, request: ToVault) -> Result<FromVault, VaultError> {
        match request {
            ToVault::Identity => self.with_keys(|_| Ok(())).map(|()| FromVault::Identity(self.identity())),
            ToVault::TimeNonce => {
                let mut nonce = Hex([0; 32]);
                getrandom::fill(&mut nonce.0).map_err(|_| HardwareError::Randomness)?;
                self.clock.ask(nonce);
                Ok(FromVault::TimeNonce(nonce))
            }
            ToVault::SetTime(time) => {
                self.clock.answer(&time, self.profile.icl_account).map_err(IclError::Time)?;
                Ok(FromVault::Done)
            }
            ToVault::SignRequest { method, path, body_sha256, nonce } => {
                self.sign_request(method, &path, &body_sha256, &nonce)
            }
            ToVault::Enrolment => {
                let attester = lock(&self.attester);
                let no_tpm = HardwareError::NoTpm { got: attester.platform() };
                let Enrolment { ek_public, ek_certificate, ak_public } = attester.enrolment().ok_or(no_tpm)?;
                Ok(FromVault::Enrolment { ek_public, ek_certificate, ak_public })
            }
            ToVault::Activate { credential_blob, encrypted_secret } => {
                let mut attester = lock(&self.attester);
                let no_tpm = HardwareError::NoTpm { got: attester.platform() };
                let secret = attester.activate(&credential_blob, &encrypted_secret).ok_or(no_tpm)?;
                Ok(FromVault::Activated(Hex(secret.map_err(HardwareError::Attest)?)))
            }
            ToVault::SetAkCertificate(der) => {
                if der.len() > AK_CERTIFICATE_CAP {
                    let (what, cap, got) = ("AK certificate", AK_CERTIFICATE_CAP, der.len());
                    return Err(InternalError::Document(JsonError::TooLong { what, cap, got }).into());
                }
                let mut attester = lock(&self.attester);
                let got = attester.platform();
                if attester.set_ak_certificate(der) {
                    Ok(FromVault::Done)
                } else {
                    Err(HardwareError::NoTpm { got }.into())
                }
            }
            ToVault::Rotate => {
                self.with_keys(|keys| Ok(keys.rotate()?))?;
                lock(&self.state).admissions.clear();
                Ok(FromVault::Done)
            }
            ToVault::Attest { purpose, audience, nonce } => self.attest(purpose, audience, nonce),
            ToVault::Certificate { certificate, signature } => self.certify(&certificate, &signature),
            ToVault::Permit { hpke } => self.permit(hpke),
            ToVault::Run { context, role, share, boxes, blob } => self.run(context, role, share, boxes, &blob),
            #[cfg(not(feature = "production"))]
            ToVault::Legacy(ask) => self.legacy(ask),
            ToVault::RevealLeader { job } => Ok(FromVault::Leader(self.take(&job, Role::Leader)?.reveal_leader()?)),
            ToVault::RevealVerifier { job, leader_commitment } => {
                let commitment = self.take(&job, Role::Verifier)?;
                Ok(FromVault::Verifier(commitment.reveal_verifier(&leader_commitment)?))
            }
            ToVault::Forget { job } => {
                let mut state = lock(&self.state);
                // One that still runs will find that nobody waits for it.
                state.running.remove(&job);
                state.committed.remove(&job);
                #[cfg(not(feature = "production"))]
                state.legacy.remove(&job);
                Ok(FromVault::Done)
            }
            ToVault::PowerOff => {
                self.wipe();
                Ok(FromVault::Done)
            }
            ToVault::TlsCertificate => self.with_keys(|keys| {
                let tls = keys.shown_tls();
                Ok(FromVault::TlsCertificate { der: tls.certificate().to_vec(), key: tls.spki_sha256() })
            }),
            ToVault::SignTls { key, transcript } => self.with_keys(|keys| {
                let tls = keys.shown_tls();
                if tls.spki_sha256() != key {
                    return Err(InternalError::TlsKey.into());
                }
                Ok(FromVault::TlsSignature(tls.certificate_verify(&transcript)?))
            }),
        }
    }

    fn identity(&self) -> Identity {
        let backend = match lock(&self.attester).platform() {
            // The name that the network uses.
            "snp" => "sev",
            other => other,
        };
        let models = self.facts.models.iter();
        Identity {
            node: self.facts.node,
            backend: backend.into(),
            models: models.map(|m| Model { id: m.id.clone(), manifest_sha256: m.manifest_sha256 }).collect(),
            max_jobs: u8::try_from(self.max_jobs).unwrap_or(1),
            pinning_token: self.pinning_token.to_string(),
            rpc_path: self.rpc_path.to_string(),
            boot_events: lock(&self.boot_events).clone(),
            now: self.clock.now(),
        }
    }

    /// Authenticates a request to the measured ICL's node endpoints, and nothing else.
    fn sign_request(
        &self,
        method: Method,
        path: &str,
        body_sha256: &Hex<32>,
        nonce: &Hex<16>,
    ) -> Result<FromVault, VaultError> {
        if !path.starts_with("/internal/") || path.len() > 512 || !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InternalError::Path.into());
        }
        let method = match method {
            Method::Get => "GET",
            Method::Post => "POST",
        };
        let time = self.clock.now();
        let text = request_text(method, &self.profile.icl.name, path, body_sha256, time.0, nonce);
        let signature = self.with_keys(|keys| Ok(keys.node().sign(&text)))?;
        Ok(FromVault::Signed { time, signature })
    }

    /// Evidence that the courier may ask for: for the measured ICL, or for a user's account.
    fn attest(&self, purpose: Purpose, audience: String, nonce: Hex<32>) -> Result<FromVault, VaultError> {
        match purpose {
            Purpose::Admission if audience == self.profile.icl.name => {}
            Purpose::Admission => return Err(IclError::Audience { wanted: self.profile.icl.name.clone() }.into()),
            Purpose::Preview if audience.parse::<Address>().is_ok() => {}
            Purpose::Preview => return Err(IclError::Audience { wanted: "an address".into() }.into()),
            Purpose::Ionet | Purpose::Session => return Err(InternalError::Purpose.into()),
        }
        let evidence = self.evidence(purpose, audience, nonce)?;
        Ok(FromVault::Evidence(evidence.to_json().map_err(InternalError::Document)?))
    }

    fn certify(&self, text: &str, signature: &Signature) -> Result<FromVault, VaultError> {
        let mut state = lock(&self.state);
        let State { keys, admissions, .. } = &mut *state;
        let keys = keys.as_mut().ok_or(InternalError::Wiped)?;
        let expected = Expected {
            icl: self.profile.icl_account,
            keys: keys.next(),
            bindings: admissions,
            measurement: &self.facts.measurement,
            now: self.clock.now(),
        };
        let certified = certificate::verify(text, signature, &expected).map_err(IclError::Certificate)?;
        self.clock.advance(certified.issued_at());
        let (tier, not_after) = (certified.tier(), certified.not_after());
        keys.promote(certified)?;
        admissions.clear();
        Ok(FromVault::Certified { tier, not_after, now: self.clock.now() })
    }

    /// A permit of the node for itself (CoFHE, `PermissionedV2`), under the measured ACL and for at most an hour. What it
    /// opens is sealed to a key that never leaves the vault, so it is of no use to whoever else holds it.
    fn permit(&self, hpke: Option<Hex<32>>) -> Result<FromVault, VaultError> {
        let cofhe = self.profile.cofhe.as_ref().ok_or(JobError::NoCofhe)?;
        let domain = Domain {
            chain_id: self.profile.chain_id,
            name: cofhe.acl_name.clone(),
            verifying_contract: cofhe.acl,
            version: cofhe.acl_version.clone(),
        };
        let now = self.clock.now();
        self.with_keys(|keys| {
            keys.certified(now)?;
            let sealing = match hpke {
                None => keys.certified(now)?.sealing().public(),
                Some(hpke) => keys.holding(&hpke, now).ok_or(JobError::SealingKey)?.sealing().public(),
            };
            let node = keys.node();
            let expiration = now.plus(PERMIT_LIFETIME);
            let sign = |digest: &[u8; 32]| node.sign_digest(digest);
            Ok(FromVault::Permit(Permission::issue_self(&domain, node.address(), expiration, sealing, sign)))
        })
    }

    fn run(
        &self,
        context: String,
        role: Role,
        share: Share,
        boxes: Option<Boxes>,
        blob: &[u8],
    ) -> Result<FromVault, VaultError> {
        let now = self.clock.now();
        let claim = self.admit(context, role, share, boxes, now)?;
        let job = claim.job();
        // Also when the job panics, else two panics would leave no room for any other job.
        let _running = Running { vault: self, job };
        let (commitment, sealed_answer) = match role {
            Role::Leader => {
                let (commitment, sealed) = job::lead(claim, blob, &*self.engine, now)?;
                (commitment, Some((sealed.cid, sealed.blob)))
            }
            Role::Verifier => (job::verify(claim, blob, &*self.engine, now)?, None),
        };
        let commit = commitment.commit();
        let mut state = lock(&self.state);
        state.awaited(&job)?;
        let until = commitment.not_after().min(self.clock.now().plus(COMMITTED_LIFETIME));
        state.committed.insert(job, (until, commitment));
        Ok(FromVault::Committed { commit, sealed_answer })
    }

    /// Lets a job begin, once.
    fn admit(
        &self,
        context: String,
        role: Role,
        share: Share,
        boxes: Option<Boxes>,
        now: UnixTime,
    ) -> Result<Claim, VaultError> {
        let mut state = lock(&self.state);
        let State { keys, running, committed, .. } = &mut *state;
        let keys = keys.as_mut().ok_or(InternalError::Wiped)?;
        keys.certified(now)?;
        committed.retain(|_, (until, _)| now < *until);
        if running.len() >= self.max_jobs || committed.len() >= COMMITTED_CAP {
            return Err(InternalError::Busy { max: self.max_jobs }.into());
        }
        let claim = Claim::check(&self.facts, now, role, context, share, boxes, |hpke| keys.holding(hpke, now))?;
        state.begin(claim.job())?;
        Ok(claim)
    }

    /// Takes a commitment out, so that it is revealed once.
    fn take(&self, job: &Hex<32>, role: Role) -> Result<Commitment, VaultError> {
        let mut state = lock(&self.state);
        if state.keys.is_none() {
            return Err(InternalError::Wiped.into());
        }
        if state.committed.get(job).is_none_or(|(_, commitment)| commitment.role() != role) {
            return Err(JobError::NotCommitted.into());
        }
        Ok(state.committed.remove(job).ok_or(JobError::NotCommitted)?.1)
    }

    /// Also ends what has ended: the courier asks every few seconds, jobs may not come for days.
    fn with_keys<T>(&self, work: impl FnOnce(&mut Keys) -> Result<T, VaultError>) -> Result<T, VaultError> {
        let mut state = lock(&self.state);
        let State { keys, committed, .. } = &mut *state;
        let (keys, now) = (keys.as_mut().ok_or(InternalError::Wiped)?, self.clock.now());
        keys.expire(now);
        committed.retain(|_, (until, _)| now < *until);
        work(keys)
    }

    fn open(&self, stream: UnixStream) -> std::io::Result<(Writer, UnixStream)> {
        let reader = stream.try_clone()?;
        let writer = Arc::new(Mutex::new(stream));
        let mut courier = lock(&self.courier);
        *courier = Some(Arc::clone(&writer));
        if self.stopping.load(Ordering::SeqCst) {
            reply(&writer, UNASKED, &FromVault::Stop);
        }
        Ok((writer, reader))
    }

    /// Answers `request` in a thread.
    fn spawn(self: &Arc<Self>, writer: &Writer, id: u32, request: ToVault) {
        if self.tasks.fetch_add(1, Ordering::SeqCst) >= TASKS_CAP {
            self.tasks.fetch_sub(1, Ordering::SeqCst);
            reply(writer, id, &refused(&InternalError::Busy { max: TASKS_CAP }.into()));
            return;
        }
        let (vault, out) = (Arc::clone(self), Arc::clone(writer));
        let task = move || {
            vault.attempt(&out, id, request);
            vault.tasks.fetch_sub(1, Ordering::SeqCst);
        };
        if std::thread::Builder::new().name("request".into()).spawn(task).is_err() {
            self.tasks.fetch_sub(1, Ordering::SeqCst);
            reply(writer, id, &refused(&InternalError::Busy { max: TASKS_CAP }.into()));
        }
    }

    /// Answers `request`. A panic costs this request; a second one soon costs the guest.
    fn attempt(&self, writer: &Writer, id: u32, request: ToVault) {
        let answer = catch_unwind(AssertUnwindSafe(|| self.handle(request)));
        if answer.is_err() && self.count_panic() {
            let _ = lock(writer).shutdown(Shutdown::Both);
        }
        reply(writer, id, &answer.unwrap_or_else(|_| refused(&InternalError::Panicked.into())));
    }

    /// Notes a panic; true if it is the second within [`PANIC_WINDOW`].
    fn count_panic(&self) -> bool {
        let mut panicked = lock(&self.panicked);
        let again = panicked.is_some_and(|at| at.elapsed() < PANIC_WINDOW);
        *panicked = Some(Instant::now());
        if again {
            self.broken.store(true, Ordering::SeqCst);
            self.wipe();
        }
        again
    }
}

impl State {
    /// Notes that a job is run, once in a boot, in whichever role.
    fn begin(&mut self, job: Hex<32>) -> Result<(), JobError> {
        if self.begun.contains(&job) {
            return Err(JobError::Repeated);
        }
        if self.begun.len() >= JOBS_CAP {
            return Err(JobError::Spent { max: JOBS_CAP });
        }
        self.begun.insert(job);
        self.running.insert(job);
        Ok(())
    }

    /// Whether what came of a job that has run may be kept: neither the keys nor the job were given up meanwhile.
    fn awaited(&self, job: &Hex<32>) -> Result<(), VaultError> {
        if self.keys.is_none() {
            return Err(InternalError::Wiped.into());
        }
        if !self.running.contains(job) {
            return Err(JobError::NotCommitted.into());
        }
        Ok(())
    }
}

/// A job in the engine.
struct Running<'a> {
    vault: &'a Vault,
    job: Hex<32>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.vault.state).running.remove(&self.job);
    }
}

impl AttestingEnvironment for Attester {
    fn platform(&self) -> &'static str {
        Self::platform(self)
    }

    fn attest(&mut self, statement: &Statement) -> Result<Platform, AttestError> {
        Self::attest(self, statement)
    }

    fn measurement_id(&mut self) -> Result<String, AttestError> {
        Self::measurement_id(self)
    }

    fn enrolment(&self) -> Option<Enrolment> {
        let Self::Tpm(tpm) = self else { return None };
        Some(Enrolment {
            ek_public: tpm.ek_public(),
            ek_certificate: tpm.ek_certificate().map(<[u8]>::to_vec),
            ak_public: tpm.ak_public(),
        })
    }

    fn activate(&mut self, credential_blob: &[u8], encrypted_secret: &[u8]) -> Option<Result<[u8; 32], AttestError>> {
        let Self::Tpm(tpm) = self else { return None };
        Some(tpm.activate(credential_blob, encrypted_secret).map_err(AttestError::Tpm))
    }

    fn set_ak_certificate(&mut self, der: Vec<u8>) -> bool {
        let Self::Tpm(tpm) = self else { return false };
        tpm.set_ak_certificate(der);
        true
    }
}

/// A panic while the lock was held left what it guards valid: every change under it is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(error: &VaultError) -> FromVault {
    FromVault::Refused { code: error.code().into() }
}

/// A courier that does not take its replies is gone; its end is seen where frames are read.
fn reply(writer: &Writer, id: u32, message: &FromVault) {
    let stream = lock(writer);
    if channel::write(&mut Within::new(&stream, WRITE_DEADLINE), id, message).is_err() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
