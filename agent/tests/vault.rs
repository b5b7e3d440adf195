//! The vault against an ICL and a user, each with keys of its own; platform and engine are doubles behind their traits.

use std::cell::Cell;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use blf_agent::attester::AttestError;
use blf_agent::channel;
use blf_agent::clock::Clock;
use blf_agent::engine::{Engine, EngineError};
use blf_agent::frames::{self, Boxes, FromVault, Identity, Method, ToVault};
use blf_agent::inbound::key::TranscriptHash;
use blf_agent::keys::Keys;
use blf_agent::profile;
use blf_agent::release::HeldModel;
use blf_agent::vault::{AttestingEnvironment, Ended, Parts, Vault};
use blf_bridge::cofhe::split;
use blf_bridge::prompt::{open_answer, seal_prompt};
use blf_bridge::release::{open_output_key, seal_share};
use blf_bridge::{HpkeKey, Key, Secret, commitment};
use blf_evidence::bundle::{Evidence, PCRS, Platform, TpmEvidence};
use blf_evidence::config::Credentials;
use blf_evidence::eip191::{Signature, address, request_text};
use blf_evidence::icl::{Certificate, Time};
use blf_evidence::job::{CofheShare, JobContext, Role, Share, Verdict};
use blf_evidence::json;
use blf_evidence::statement::{Binding, Purpose, Statement};
use blf_evidence::{Address, Base64, Hex, UnixTime};
use k256::ecdsa::SigningKey;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

const MEASUREMENT: &str = "tpm-pcr11:00";
const MODEL: Hex<32> = Hex([0x33; 32]);
/// What the ICL's clock says.
const NOW: u64 = 1_800_000_000;
const USER: &str = "0x5935897A39AFABbedA5a599D38236E7Df151C8b8";

thread_local! {
    /// Seconds since boot, for the thread of one test.
    static MONOTONIC: Cell<u64> = const { Cell::new(1000) };
}

/// A platform of its own kind: its "quote" is the statement, its "signature" by a key of its own.
struct Double(SigningKey);

impl AttestingEnvironment for Double {
    fn platform(&self) -> &'static str {
        "tpm"
    }

    fn attest(&mut self, statement: &Statement) -> Result<Platform, AttestError> {
        Ok(Platform::Tpm(TpmEvidence {
            quote: Base64(statement.0.0.to_vec()),
            signature: Base64(Signature::sign(&self.0, &statement.0.0).0.to_vec()),
            ak_public: Base64(address(self.0.verifying_key()).0.to_vec()),
            ak_certificate: None,
            pcrs: vec![Hex([0; 32]); PCRS],
            event_log: None,
        }))
    }

    fn measurement_id(&mut self) -> Result<String, AttestError> {
        Ok(MEASUREMENT.into())
    }
}

/// Says the prompt again. Two prompts make it fail, and "wait" says that it has begun and lasts until it may go on.
struct Echo {
    begun: Sender<()>,
    go: Mutex<Receiver<()>>,
}

impl Engine for Echo {
    fn answer(&self, prompt: &Secret, max_new_tokens: u32, _: Duration) -> Result<Secret, EngineError> {
        match prompt.expose() {
            b"panic" => panic!("as asked"),
            b"wait" => {
                let _ = self.begun.send(());
                let _ = self.go.lock().unwrap().recv();
                Ok(Secret::new(b"late".to_vec()))
            }
            b"fail" => Err(EngineError::Failed { code: "ENGINE_DEADLINE" }),
            text => Ok(Secret::new([b"echo: ", text, format!(" ({max_new_tokens})").as_bytes()].concat())),
        }
    }
}

/// A vault and those it deals with.
struct World {
    vault: Arc<Vault>,
    /// From and to an engine that waits.
    begun: Receiver<()>,
    go: Sender<()>,
    icl: SigningKey,
    reply: HpkeKey,
    next_job: AtomicU64,
}

/// CID and bytes of a leader's sealed answer.
type Sealed = Option<(String, Vec<u8>)>;

/// A job as a user submits it.
struct Job {
    key: Key,
    context: JobContext,
    text: String,
    share: Share,
    blob: Vec<u8>,
}

fn signing_key(byte: u8) -> SigningKey {
    SigningKey::from_slice(&[byte; 32]).unwrap()
}

impl World {
    fn new() -> Self {
        let icl = signing_key(41);
        let ((begins, begun), (go, going)) = (mpsc::channel(), mpsc::channel());
        let mut profile = profile::network().unwrap();
        profile.icl_account = address(icl.verifying_key());
        let vault = Vault::new(Parts {
            profile,
            config: r#"{"max_jobs":1,"name":"node-1","v":1}"#.into(),
            credentials: Credentials { pinning_token: "token".into(), rpc_path: None, v: 1 },
            endorsements: None,
            attester: Box::new(Double(signing_key(42))),
            measurement: MEASUREMENT.into(),
            models: vec![HeldModel { manifest_sha256: MODEL, id: "echo".into(), max_new_tokens: 64 }],
            numeric_profile: "echo".into(),
            engine: Arc::new(Echo { begun: begins, go: Mutex::new(going) }),
            clock: Clock::new(UnixTime(1_700_000_000), || Duration::from_secs(MONOTONIC.get())),
            keys: Keys::generate().unwrap(),
        });
        let reply = HpkeKey::generate().unwrap();
        Self { vault: Arc::new(vault.unwrap()), begun, go, icl, reply, next_job: AtomicU64::new(1) }
    }

    /// A world whose node is certified.
    fn certified() -> Self {
        let world = Self::new();
        world.set_time();
        world.certify();
        world
    }

    fn ask(&self, request: ToVault) -> Result<FromVault, String> {
        match self.vault.handle(request) {
            FromVault::Refused { code } => Err(code),
            answer => Ok(answer),
        }
    }

    fn set_time(&self) {
        let Ok(FromVault::TimeNonce(nonce)) = self.ask(ToVault::TimeNonce) else { panic!() };
        let signature = Signature::sign(&self.icl, Time::signed_text(&nonce, UnixTime(NOW)).as_bytes());
        self.ask(ToVault::SetTime(Time { nonce, signature, time: UnixTime(NOW) })).unwrap();
    }

    fn attest(&self, purpose: Purpose, audience: &str) -> Result<(Evidence, Binding), String> {
        let nonce = Hex([7; 32]);
        let FromVault::Evidence(text) = self.ask(ToVault::Attest { purpose, audience: audience.into(), nonce })? else {
            panic!()
        };
        let evidence = Evidence::parse(text.as_bytes()).unwrap();
        let binding = Binding::parse(evidence.binding.as_bytes()).unwrap();
        assert_eq!((binding.nonce, binding.purpose, binding.audience.as_str()), (nonce, purpose, audience));
        Ok((evidence, binding))
    }

    fn certificate(&self) -> Certificate {
        let (evidence, binding) = self.attest(Purpose::Admission, "icl.devnet.blf.internal").unwrap();
        Certificate {
            binding_sha256: sha256(evidence.binding.as_bytes()),
            issued_at: UnixTime(NOW),
            keys: binding.keys,
            measurement: MEASUREMENT.into(),
            not_after: UnixTime(NOW + 3600),
            tier: 0,
            v: 1,
        }
    }

    fn issue(&self, certificate: &Certificate) -> Result<FromVault, String> {
        let certificate = json::canonical("certificate", certificate).unwrap();
        let signature = Signature::sign(&self.icl, Certificate::signed_text(&certificate).as_bytes());
        self.ask(ToVault::Certificate { certificate, signature })
    }

    fn certify(&self) {
        let certificate = self.certificate();
        assert!(matches!(self.issue(&certificate), Ok(FromVault::Certified { tier: 0, .. })));
    }

    fn identity(&self) -> Identity {
        let Ok(FromVault::Identity(identity)) = self.ask(ToVault::Identity) else { panic!() };
        identity
    }

    /// A new job for this node, as its evidence for users shows it.
    fn job(&self, prompt: &str) -> Job {
        self.job_with(prompt, |_| ())
    }

    fn job_with(&self, prompt: &str, change: impl FnOnce(&mut JobContext)) -> Job {
        let mut job_id = Hex([0; 32]);
        job_id.0[24..].copy_from_slice(&self.next_job.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        let mut context = JobContext {
            cofhe: None,
            job_id,
            measurements: vec!["tpm-pcr11:ff".into(), MEASUREMENT.into()],
            max_new_tokens: 64,
            model_manifest_sha256: MODEL,
            not_after: UnixTime(NOW + 600),
            reply_hpke: self.reply.public(),
            user: Address([9; 20]),
            v: 1,
        };
        change(&mut context);
        let (_, binding) = self.attest(Purpose::Preview, USER).unwrap();
        let key = Key::random().unwrap();
        let text = context.to_canonical().unwrap();
        let share = seal_share(&key, binding.keys.node, binding.keys.hpke, &text).unwrap();
        let blob = seal_prompt(&key, &context, &Secret::new(prompt.into())).unwrap();
        Job { key, context, text, share, blob }
    }

    fn run(&self, job: &Job, role: Role) -> Result<(Hex<32>, Sealed), String> {
        let (context, share, blob) = (job.text.clone(), job.share.clone(), job.blob.clone());
        match self.ask(ToVault::Run { context, role, share, boxes: None, blob })? {
            FromVault::Committed { commit, sealed_answer } => Ok((commit, sealed_answer)),
            _ => panic!(),
        }
    }

    /// The vault answers in a thread; gives the courier's end.
    fn serve(&self) -> (UnixStream, JoinHandle<Ended>) {
        let (courier, theirs) = UnixStream::pair().unwrap();
        let vault = Arc::clone(&self.vault);
        (courier, std::thread::spawn(move || vault.serve(theirs)))
    }

    /// Runs a job as leader and wants it refused.
    fn refused(&self, job: &Job) -> String {
        self.run(job, Role::Leader).err().unwrap()
    }
}

fn sha256(bytes: &[u8]) -> Hex<32> {
    use sha2::Digest as _;
    Hex(sha2::Sha256::digest(bytes).into())
}

#[test]
fn a_key_of_two_shares_takes_both() {
    let world = World::certified();
    let handles = CofheShare { high: Hex([1; 32]), low: Hex([2; 32]) };
    let mut job = world.job_with("what is 2+2?", |context| context.cofhe = Some(handles));
    let hpke = job.share.hpke;
    let permit = |hpke| match world.ask(ToVault::Permit { hpke }) {
        Ok(FromVault::Permit(permit)) => Ok(Hex(permit.sealing_key)),
        Err(code) => Err(code),
        Ok(_) => panic!(),
    };
    let sealing = permit(Some(hpke)).unwrap();
    assert_eq!(permit(None).unwrap(), sealing);
    assert_eq!(permit(Some(Hex([7; 32]))).err().unwrap(), "SEALING_KEY");

    // The prompt key is that of the job; CoFHE has one share of it, the node's HPKE share the other.
    let cofhe = Key::random().unwrap();
    job.share = seal_share(&job.key.xor(&cofhe), job.share.node, hpke, &job.text).unwrap();
    let boxes = |key: &Key| {
        let [high, low] = split(key).map(|half| blf_bridge::cofhe::seal(&sealing, &half).unwrap());
        Some(Boxes { sealing, high, low })
    };
    let run = |job: &Job, boxes| {
        let (context, share, blob) = (job.text.clone(), job.share.clone(), job.blob.clone());
        world.ask(ToVault::Run { context, role: Role::Verifier, share, boxes, blob })
    };
    assert_eq!(run(&job, None).err().unwrap(), "JOB_BOXES");
    let elsewhere = Some(Boxes { sealing: Hex([7; 32]), ..boxes(&cofhe).unwrap() });
    assert_eq!(run(&job, elsewhere).err().unwrap(), "SEALING_KEY");
    assert!(matches!(run(&job, boxes(&cofhe)), Ok(FromVault::Committed { .. })));

    let mut other = world.job_with("what is 2+2?", |context| context.cofhe = Some(handles));
    other.share = seal_share(&other.key.xor(&cofhe), other.share.node, hpke, &other.text).unwrap();
    assert_eq!(run(&other, boxes(&Key::random().unwrap())).err().unwrap(), "PROMPT_TAG", "another share");
    let plain = world.job("what is 2+2?");
    assert_eq!(run(&plain, boxes(&cofhe)).err().unwrap(), "JOB_BOXES");
}

#[test]
fn a_leader_answers_and_the_user_opens() {
    let world = World::certified();
    let job = world.job("what is 2+2?");
    let (commit, sealed) = world.run(&job, Role::Leader).unwrap();
    let (cid, blob) = sealed.unwrap();
    blf_bridge::cid::check(&cid, &blob).unwrap();

    let id = job.context.job_id;
    assert_eq!(
        world.ask(ToVault::RevealVerifier { job: id, leader_commitment: Hex([0; 32]) }).err().as_deref(),
        Some("JOB_NOT_COMMITTED"),
        "in the other role"
    );
    let Ok(FromVault::Leader(result)) = world.ask(ToVault::RevealLeader { job: id }) else { panic!() };
    let key = open_output_key(&world.reply, &result.answer.output_key, &id, &cid).unwrap();
    let text = open_answer(&key, &blob).unwrap();
    assert_eq!(text.expose(), b"echo: what is 2+2? (64)");

    let node = world.vault.node();
    assert_eq!(result.answer.commitment, commitment::commitment(&job.key, &id, &text));
    assert_eq!(commit, commitment::commit(&id, &node, &result.answer.commitment, &result.salt));
    assert_eq!((result.answer.output_cid.as_str(), result.node_address), (cid.as_str(), node));
    let (_, binding) = world.attest(Purpose::Preview, USER).unwrap();
    assert_eq!(result.answer.response, binding.keys.response);
    let signed = result.answer.signed_text().unwrap();
    result.signature.verify(signed.as_bytes(), binding.keys.response).unwrap();

    assert!(world.ask(ToVault::RevealLeader { job: id }).is_err(), "revealed once");
    assert_eq!(world.refused(&job), "JOB_REPEATED");
    assert_eq!(world.run(&job, Role::Verifier).err().unwrap(), "JOB_REPEATED", "nor in the other role");
}

#[test]
fn a_verifier_confirms_the_same_and_rejects_anything_else() {
    let world = World::certified();
    for (good, verdict) in [(true, Verdict::Confirm), (false, Verdict::Reject)] {
        let job = world.job("hello");
        let (commit, sealed) = world.run(&job, Role::Verifier).unwrap();
        assert!(sealed.is_none(), "a verifier shows no answer");
        let id = job.context.job_id;
        let text = if good { "echo: hello (64)" } else { "echo: hallo (64)" };
        let leader_commitment = commitment::commitment(&job.key, &id, &Secret::new(text.into()));
        assert!(world.ask(ToVault::RevealLeader { job: id }).is_err());
        let reveal = ToVault::RevealVerifier { job: id, leader_commitment };
        let Ok(FromVault::Verifier(result)) = world.ask(reveal) else { panic!() };
        assert_eq!(result.verdict, verdict);
        let text = verdict.signed_text(&id, &leader_commitment);
        let (_, binding) = world.attest(Purpose::Preview, USER).unwrap();
        result.signature.verify(text.as_bytes(), binding.keys.response).unwrap();
        assert_eq!(commit, commitment::commit(&id, &world.vault.node(), &result.commitment, &result.salt));
        assert!(world.ask(ToVault::RevealVerifier { job: id, leader_commitment }).is_err(), "revealed once");
    }
}

#[test]
fn jobs_for_others_are_refused() {
    let world = World::certified();
    let with = |change: fn(&mut JobContext)| world.refused(&world.job_with("hello", change));
    assert_eq!(with(|c| c.model_manifest_sha256 = Hex([1; 32])), "JOB_MODEL");
    assert_eq!(with(|c| c.measurements = vec!["tpm-pcr11:01".into()]), "JOB_MEASUREMENT");
    assert_eq!(with(|c| c.not_after = UnixTime(NOW)), "JOB_EXPIRED");
    assert_eq!(with(|c| c.max_new_tokens = 65), "JOB_TOKENS");
    assert_eq!(with(|c| c.max_new_tokens = 0), "JOB_TOKENS");
    assert_eq!(with(|c| c.v = 2), "JOB_CONTEXT");

    let mut job = world.job("hello");
    job.text = job.text.replacen(':', ": ", 1);
    assert_eq!(world.refused(&job), "JOB_CONTEXT", "another spelling");
    let mut job = world.job("hello");
    job.share.node = Address([1; 20]);
    assert_eq!(world.refused(&job), "SHARE_NODE");
    let mut job = world.job("hello");
    job.share.hpke = Hex([1; 32]);
    assert_eq!(world.refused(&job), "SHARE_KEY");
    let mut job = world.job("hello");
    job.share.key.ct.0[0] ^= 1;
    assert_eq!(world.refused(&job), "SHARE_TAG");
    let mut job = world.job("hello");
    let last = job.blob.len() - 1;
    job.blob[last] ^= 1;
    assert_eq!(world.refused(&job), "PROMPT_TAG");
    let mut job = world.job("hello");
    job.blob.truncate(10);
    assert_eq!(world.refused(&job), "PROMPT_LENGTH");
}

/// Somebody who relays a victim's prompt under a context of its own, member by member.
#[test]
fn a_prompt_in_another_context_is_refused() {
    let world = World::certified();
    type Change = fn(&mut JobContext);
    let changes: [(&str, Change); 5] = [
        ("job", |c| c.job_id = Hex([0xee; 32])),
        ("user", |c| c.user = Address([8; 20])),
        ("reply key", |c| c.reply_hpke = HpkeKey::generate().unwrap().public()),
        ("expiry", |c| c.not_after = UnixTime(NOW + 601)),
        ("length", |c| c.max_new_tokens = 63),
    ];
    for (name, change) in changes {
        let mut job = world.job("hello");
        let mut context = job.context.clone();
        change(&mut context);
        job.text = context.to_canonical().unwrap();
        assert_eq!(world.refused(&job), "SHARE_TAG", "{name}: the share is bound to its context");
        // Somebody who knows the key, so not the ICL, can seal a new share; the prompt still says for whom it is.
        let mut job = world.job("hello");
        let mut context = job.context.clone();
        change(&mut context);
        if name == "job" {
            // The other id was begun above.
            context.job_id = Hex([0xef; 32]);
        }
        job.text = context.to_canonical().unwrap();
        job.share = seal_share(&job.key, world.vault.node(), job.share.hpke, &job.text).unwrap();
        assert_eq!(world.refused(&job), "PROMPT_CONTEXT", "{name}");
    }
}

#[test]
fn the_engine_s_failure_is_the_job_s() {
    let world = World::certified();
    assert_eq!(world.refused(&world.job("fail")), "ENGINE_DEADLINE");
    assert!(world.run(&world.job("hello"), Role::Leader).is_ok());
}

#[test]
fn only_the_certified_run_jobs() {
    let world = World::new();
    world.set_time();
    let job = world.job("hello");
    assert_eq!(world.refused(&job), "NOT_CERTIFIED");
    world.certify();
    assert!(world.run(&job, Role::Leader).is_ok(), "the share was sealed to these keys");

    // After two more certificates the first keys are gone; after one they still open.
    let (first, second) = (world.job("a"), world.job("b"));
    world.certify();
    assert!(world.run(&first, Role::Leader).is_ok());
    world.ask(ToVault::Rotate).unwrap();
    world.certify();
    assert_eq!(world.refused(&second), "SHARE_KEY");
}

#[test]
fn a_certificate_answers_this_guest_s_evidence_once() {
    let world = World::new();
    world.set_time();
    let first = world.certificate();
    let mut other = first.clone();
    other.binding_sha256 = Hex([0; 32]);
    assert_eq!(world.issue(&other).err().unwrap(), "CERTIFICATE_BINDING");
    world.ask(ToVault::Rotate).unwrap();
    assert_eq!(world.issue(&first).err().unwrap(), "CERTIFICATE_KEYS", "keys that were replaced");
    let second = world.certificate();
    assert!(world.issue(&second).is_ok());
    assert_eq!(world.issue(&second).err().unwrap(), "CERTIFICATE_KEYS", "a certificate again");
}

#[test]
fn evidence_names_the_keys_its_reader_needs() {
    let world = World::certified();
    let user = USER;
    let (evidence, shown) = world.attest(Purpose::Preview, user).unwrap();
    let (_, next) = world.attest(Purpose::Admission, "icl.devnet.blf.internal").unwrap();
    assert_eq!(shown.keys.node, next.keys.node);
    assert_ne!(shown.keys.hpke, next.keys.hpke);
    assert_eq!(shown.not_after, UnixTime(NOW + 3600));
    assert_eq!(shown.config_sha256, sha256(evidence.config.as_bytes()));
    let Platform::Tpm(tpm) = &evidence.platform else { panic!() };
    assert_eq!(tpm.quote.0, Statement::new(shown.keys.node, evidence.binding.as_bytes()).0.0);

    let refused = |purpose, audience: &str| world.attest(purpose, audience).err().unwrap();
    assert_eq!(refused(Purpose::Admission, "icl.elsewhere.example"), "ICL_AUDIENCE");
    assert_eq!(refused(Purpose::Preview, "icl.devnet.blf.internal"), "ICL_AUDIENCE");
    assert_eq!(refused(Purpose::Session, "node-1"), "PURPOSE");
    assert_eq!(refused(Purpose::Ionet, "node-1"), "PURPOSE");
    assert_eq!(world.ask(ToVault::Enrolment).err().unwrap(), "NO_TPM");
}

#[test]
fn the_node_key_signs_requests_to_its_icl_only() {
    let world = World::certified();
    let (body_sha256, nonce) = (Hex([1; 32]), Hex([2; 16]));
    let sign =
        |path: &str| world.ask(ToVault::SignRequest { method: Method::Post, path: path.into(), body_sha256, nonce });
    let Ok(FromVault::Signed { time, signature }) = sign("/internal/task/claim?x=1") else { panic!() };
    let path = "/internal/task/claim?x=1";
    let text = request_text("POST", "icl.devnet.blf.internal", path, &body_sha256, time.0, &nonce);
    signature.verify(text.as_bytes(), world.identity().node).unwrap();
    assert_eq!(time, world.identity().now);
    let long = format!("/internal/{}", "x".repeat(512));
    for bad in
        ["", "/", "internal/x", "/v1/inference/requests", "/internal/x\nPOST", "/internal/ x", "/internal/ü", &long]
    {
        assert_eq!(sign(bad).err().as_deref(), Some("REQUEST_PATH"), "{bad:?}");
    }
}

#[test]
fn the_courier_is_answered_until_it_powers_off() {
    let world = World::certified();
    let (mut courier, serving) = world.serve();
    let mut call = |id: u32, request: &ToVault| -> FromVault {
        channel::write(&mut courier, id, request).unwrap();
        let frame = channel::read(&mut courier).unwrap().unwrap();
        assert_eq!(frame.id, id);
        frame.message().unwrap()
    };
    assert!(
        matches!(call(1, &ToVault::Identity), FromVault::Identity(i) if i.pinning_token == "token" && i.max_jobs == 1)
    );
    let Job { context, text, share, blob, .. } = world.job("hello");
    let run = ToVault::Run { context: text, role: Role::Leader, share, boxes: None, blob };
    assert!(matches!(call(2, &run), FromVault::Committed { sealed_answer: Some(_), .. }));

    // Not a request: refused, and the next one is answered.
    use std::io::Write as _;
    courier.write_all(&[0, 0, 0, 1, 0, 0, 0, 3, 0xff]).unwrap();
    let frame = channel::read(&mut courier).unwrap().unwrap();
    assert!(matches!(frame.message().unwrap(), FromVault::Refused { code } if code == "FRAME" && frame.id == 3));

    world.vault.stop();
    let frame = channel::read(&mut courier).unwrap().unwrap();
    assert!(matches!((frame.id, frame.message().unwrap()), (0, FromVault::Stop)));
    channel::write(&mut courier, 4, &ToVault::PowerOff).unwrap();
    assert!(matches!(channel::read(&mut courier).unwrap().unwrap().message().unwrap(), FromVault::Done));
    assert_eq!(serving.join().unwrap(), Ended::PowerOff);
    assert_eq!(world.ask(ToVault::Identity).err().unwrap(), "WIPED");
    assert_eq!(world.ask(ToVault::RevealLeader { job: context.job_id }).err().unwrap(), "WIPED");
}

#[test]
fn a_panic_costs_its_job_and_a_second_one_the_guest() {
    let world = World::certified();
    let (mut courier, serving) = world.serve();
    let mut run = |id: u32, prompt: &str| {
        let Job { text, share, blob, .. } = world.job(prompt);
        channel::write(&mut courier, id, &ToVault::Run { context: text, role: Role::Leader, share, boxes: None, blob })
            .unwrap();
        channel::read(&mut courier).ok().flatten().map(|frame| frame.message::<FromVault>().unwrap())
    };
    assert!(matches!(run(1, "panic"), Some(FromVault::Refused { code }) if code == "PANICKED"));
    assert!(matches!(run(2, "hello"), Some(FromVault::Committed { .. })), "one job at a time, so the first is out");
    assert!(run(3, "panic").is_none());
    assert_eq!(serving.join().unwrap(), Ended::Panics);
    assert_eq!(world.ask(ToVault::Identity).err().unwrap(), "WIPED");
}

#[test]
fn a_job_that_is_forgotten_while_it_runs_keeps_nothing_and_nobody_out() {
    let world = World::certified();
    let (mut courier, serving) = world.serve();
    let late = world.job("wait");
    let Job { text, share, blob, .. } = late;
    channel::write(&mut courier, 1, &ToVault::Run { context: text, role: Role::Verifier, share, boxes: None, blob })
        .unwrap();
    world.begun.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(world.refused(&world.job("hello")), "BUSY", "one job at a time");
    let job = late.context.job_id;
    world.ask(ToVault::Forget { job }).unwrap();
    world.run(&world.job("hello"), Role::Verifier).unwrap();
    assert!(!world.vault.settled(Duration::from_millis(50)), "its engine is still at work");

    world.go.send(()).unwrap();
    let frame = channel::read(&mut courier).unwrap().unwrap();
    assert!(matches!(frame.message().unwrap(), FromVault::Refused { code } if code == "JOB_NOT_COMMITTED"));
    assert!(world.vault.settled(Duration::from_secs(30)));
    let reveal = ToVault::RevealVerifier { job, leader_commitment: Hex([0; 32]) };
    assert_eq!(world.ask(reveal).err().unwrap(), "JOB_NOT_COMMITTED");
    drop(courier);
    serving.join().unwrap();
}

#[test]
fn a_commitment_is_not_kept_for_as_long_as_a_user_says() {
    let world = World::certified();
    let job = world.job_with("hello", |context| context.not_after = UnixTime(NOW + 365 * 24 * 3600));
    world.run(&job, Role::Leader).unwrap();
    MONOTONIC.set(MONOTONIC.get() + 601);
    // Any request will do that the courier makes every few seconds.
    world.identity();
    assert_eq!(world.ask(ToVault::RevealLeader { job: job.context.job_id }).err().unwrap(), "JOB_NOT_COMMITTED");
}

#[test]
fn a_courier_that_ends_late_takes_no_stop_from_its_successor() {
    let world = World::new();
    let serve = || {
        let (mut courier, serving) = world.serve();
        channel::write(&mut courier, 1, &ToVault::Identity).unwrap();
        channel::read(&mut courier).unwrap().unwrap();
        (courier, serving)
    };
    let (first, ending) = serve();
    let (mut second, serving) = serve();
    drop(first);
    assert_eq!(ending.join().unwrap(), Ended::Courier);
    world.vault.stop();
    second.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(channel::read(&mut second).unwrap().unwrap().message().unwrap(), FromVault::Stop));
    drop(second);
    assert_eq!(serving.join().unwrap(), Ended::Courier);
}

#[test]
fn hostile_lengths_end_the_stream() {
    use std::io::Write as _;
    let world = World::new();
    let (mut courier, theirs) = UnixStream::pair().unwrap();
    courier.write_all(&[0xff; 8]).unwrap();
    assert_eq!(world.vault.serve(theirs), Ended::Courier);
}

#[test]
fn of_a_handshake_only_the_hash_is_the_courier_s() {
    let world = World::certified();
    let (_, binding) = world.attest(Purpose::Preview, USER).unwrap();
    let FromVault::TlsCertificate { der, key } = world.ask(ToVault::TlsCertificate).unwrap() else { panic!() };
    assert_eq!(key, binding.keys.tls_spki_sha256);
    let certificate = CertificateDer::from(der);
    let spki = ParsedCertificate::try_from(&certificate).unwrap().subject_public_key_info();
    assert_eq!(sha256(spki.as_ref()), key);

    // A statement that would name another guest, in the place of a hash: signed, but as a handshake and nothing else.
    let wish = Hex([0x5a; 32]);
    let sign = |key, transcript| world.ask(ToVault::SignTls { key, transcript });
    let transcript = TranscriptHash::Sha256(wish);
    let FromVault::TlsSignature(signature) = sign(key, transcript).unwrap() else { panic!() };
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki.as_ref());
    let handshake = [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &wish.0].concat();
    public.verify(&handshake, &signature).unwrap();
    assert!(public.verify(&wish.0, &signature).is_err());

    let frame = frames::encode(7, &ToVault::SignTls { key, transcript }).unwrap();
    let body = &frame[frames::HEADER..];
    for other in [&body[..body.len() - 1], &[body, b"x"].concat()] {
        assert!(frames::decode::<ToVault>(other).is_err(), "a hash of another length");
    }
    let (_, next) = world.attest(Purpose::Admission, "icl.devnet.blf.internal").unwrap();
    for other in [next.keys.tls_spki_sha256, Hex([0; 32])] {
        assert_eq!(sign(other, transcript).err().unwrap(), "TLS_KEY", "a key that evidence does not show");
    }
}
