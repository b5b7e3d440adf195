//! The vault in a profile of the existing network: what it signs, what it opens, and that it does each once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blf_agent::attester::AttestError;
use blf_agent::clock::Clock;
use blf_agent::engine::{Engine, EngineError};
use blf_agent::frames::{Boxes, FromVault, ToVault};
use blf_agent::keys::Keys;
use blf_agent::legacy::frames::{Ask, Input, Judge, Output, Request, Run, Signed, StoreKey, Told};
use blf_agent::legacy::wire::JobId;
use blf_agent::profile;
use blf_agent::release::HeldModel;
use blf_agent::vault::{AttestingEnvironment, Parts, Vault};
use blf_bridge::cofhe::{Domain, EncryptedInput, Handle, Permission, output_key_job_id, seal, split};
use blf_bridge::{Key, Secret, blob, cid, legacy};
use blf_evidence::bundle::Platform;
use blf_evidence::config::Credentials;
use blf_evidence::eip191::Signature;
use blf_evidence::job::Role;
use blf_evidence::profile::{Inputs, NetworkProfile, Protocol};
use blf_evidence::statement::Statement;
use blf_evidence::{Address, Hex, UnixTime};
use serde_json::{Value, json};

const NOW: u64 = 1_795_157_973;
const USER: Address = Address([9; 20]);
/// Seconds since the start, for the vaults of this file.
static MONOTONIC: AtomicU64 = AtomicU64::new(0);

/// Says nothing about anything: nobody asks, in this network.
struct Mute;

impl AttestingEnvironment for Mute {
    fn platform(&self) -> &'static str {
        "tpm"
    }

    fn attest(&mut self, _: &Statement) -> Result<Platform, AttestError> {
        panic!("nobody asks")
    }

    fn measurement_id(&mut self) -> Result<String, AttestError> {
        Ok("tpm-pcr11:00".into())
    }
}

struct Echo;

impl Engine for Echo {
    fn answer(&self, prompt: &Secret, max_new_tokens: u32, _: Duration) -> Result<Secret, EngineError> {
        Ok(Secret::new([prompt.expose(), format!(" ({max_new_tokens})").as_bytes()].concat()))
    }
}

struct World {
    vault: Arc<Vault>,
    profile: NetworkProfile,
}

impl World {
    fn new(change: impl FnOnce(&mut NetworkProfile)) -> Self {
        let mut profile = profile::network().unwrap();
        profile.protocol = Protocol::Legacy;
        change(&mut profile);
        let vault = Vault::new(Parts {
            profile: profile.clone(),
            config: r#"{"max_jobs":2,"name":"node-1","v":1}"#.into(),
            credentials: Credentials { pinning_token: "token".into(), rpc_path: None, v: 1 },
            endorsements: None,
            attester: Box::new(Mute),
            measurement: "tpm-pcr11:00".into(),
            models: vec![HeldModel { manifest_sha256: Hex([5; 32]), id: "echo".into(), max_new_tokens: 64 }],
            numeric_profile: "echo".into(),
            engine: Arc::new(Echo),
            clock: Clock::new(UnixTime(1_700_000_000), || Duration::from_secs(MONOTONIC.load(Ordering::SeqCst))),
            keys: Keys::generate().unwrap(),
        });
        Self { vault: Arc::new(vault.unwrap()), profile }
    }

    /// One that has attested.
    fn attested() -> Self {
        let world = Self::new(|_| ());
        world.attest();
        world
    }

    fn attest(&self) {
        self.ask(Ask::Time(UnixTime(NOW))).unwrap();
        self.ask(Ask::Attested { expiry: UnixTime(NOW + 86_400) }).unwrap();
    }

    fn ask(&self, ask: Ask) -> Result<FromVault, String> {
        self.call(ToVault::Legacy(ask))
    }

    fn call(&self, call: ToVault) -> Result<FromVault, String> {
        match self.vault.handle(call) {
            FromVault::Refused { code } => Err(code),
            answer => Ok(answer),
        }
    }

    fn signed(&self, ask: Ask) -> Result<(Value, Signed), String> {
        let FromVault::Legacy(Told::Signed(signed)) = self.ask(ask)? else { panic!("wanted a signed request") };
        let text = [&signed.body[..], signed.time.to_string().as_bytes()].concat();
        signed.signature.verify(&text, self.vault.node()).unwrap();
        let body = if signed.body.is_empty() { Value::Null } else { serde_json::from_slice(&signed.body).unwrap() };
        Ok((body, signed))
    }

    fn permit(&self) -> Permission {
        let Ok(FromVault::Permit(permit)) = self.call(ToVault::Permit { hpke: None }) else { panic!("no permit") };
        permit
    }

    /// A job as a user and the threshold network give it.
    fn job(&self, name: &str, role: Role, model: &str, prompt: &str) -> Run {
        let key = Key::random().unwrap();
        let sealing = Hex(self.permit().sealing_key);
        let [high, low] = split(&key).map(|half| seal(&sealing, &half).unwrap());
        let blob = blob::seal(&key, &Secret::new(prompt.into())).unwrap();
        let (job, model) = (name.to_owned().try_into().unwrap(), model.into());
        Run { job, role, model, user: USER, boxes: Boxes { sealing, high, low }, blob }
    }

    fn run(&self, run: Run) -> Result<Option<Output>, String> {
        match self.ask(Ask::Run(run))? {
            FromVault::Legacy(Told::Ran(output)) => Ok(output),
            _ => panic!("wanted what ran"),
        }
    }

    fn store(&self, job: &str, gas: u64, max_fee: u128) -> Result<(Vec<u8>, Hex<32>), String> {
        let job = JobId::try_from(job.to_owned()).unwrap().digest();
        let inputs = [input(1), input(2)].map(Input::from);
        let store = StoreKey { job, inputs, nonce: 7, max_fee, max_priority_fee: 1, gas };
        match self.ask(Ask::StoreKey(store))? {
            FromVault::Legacy(Told::Transaction { raw, hash }) => Ok((raw, hash)),
            _ => panic!("wanted a transaction"),
        }
    }
}

fn input(byte: u8) -> EncryptedInput {
    EncryptedInput { ct_hash: Handle([byte; 32]), security_zone: 0, utype: 6, signature: vec![byte; 65] }
}

fn text(secret: &Secret) -> &str {
    std::str::from_utf8(secret.expose()).unwrap()
}

#[test]
fn requests_have_closed_forms() {
    let world = World::attested();
    let node = world.vault.node().to_string();
    assert_eq!(world.signed(Ask::Sign(Request::Get)).unwrap().0, Value::Null);
    let attest = Request::Attest { challenge: "c".into(), nonce: (0..32).collect() };
    let wanted = json!({
        "nodeAddress": node, "backendType": "mock", "challengeId": "c", "supportedModelIds": ["echo", "mock"],
        "quote": "e7049166db983d3e3678f95738b28e78fce65215f4e413e1ae7e2132c934a702",
        "runtimeHash": "3ec7b0c7e7a1c5dbc0fbf73e4e8a25af6bb02518009db41d8ef32e64b40793f6",
    });
    assert_eq!(world.signed(Ask::Sign(attest)).unwrap().0, wanted);
    let (heartbeat, signed) = world.signed(Ask::Sign(Request::Heartbeat)).unwrap();
    assert_eq!(heartbeat, json!({"nodeAddress": node, "timestamp": signed.time.to_string()}));
    let job = JobId::try_from("job".to_owned()).unwrap();
    let claim = world.signed(Ask::Sign(Request::Claim(job))).unwrap().0;
    assert_eq!(claim, json!({"jobId": "job", "nodeAddress": node}));
    let long = Request::Attest { challenge: "c".repeat(70_000), nonce: vec![] };
    assert_eq!(world.signed(Ask::Sign(long)).err().unwrap(), "REQUEST_BODY");
}

#[test]
fn a_strict_profile_speaks_no_legacy() {
    let world = World::new(|profile| profile.protocol = Protocol::Strict);
    for ask in [Ask::Sign(Request::Get), Ask::Time(UnixTime(NOW)), Ask::Attested { expiry: UnixTime(NOW + 60) }] {
        assert_eq!(world.ask(ask).err().unwrap(), "PROTOCOL");
    }
}

#[test]
fn a_permit_is_for_this_guest_for_an_hour() {
    let world = World::new(|_| ());
    assert_eq!(world.call(ToVault::Permit { hpke: None }).err().unwrap(), "NOT_CERTIFIED");
    world.attest();
    let cofhe = world.profile.cofhe.as_ref().unwrap();
    let domain = Domain {
        chain_id: world.profile.chain_id,
        name: cofhe.acl_name.clone(),
        verifying_contract: cofhe.acl,
        version: cofhe.acl_version.clone(),
    };
    let permit = world.permit();
    assert_eq!(permit.issuer, world.vault.node());
    let signer = |domain: &Domain| {
        let signature = Signature(permit.issuer_signature.clone().try_into().unwrap());
        signature.recover_digest(&permit.self_digest(domain)).unwrap()
    };
    assert_eq!(signer(&domain), permit.issuer);
    let now = world.signed(Ask::Sign(Request::Get)).unwrap().1.time;
    assert!(permit.expiration <= now.plus(3600), "{}", permit.expiration);
    let other = Domain { chain_id: 1, ..domain };
    assert_ne!(signer(&other), permit.issuer);
    let without = World::new(|profile| profile.cofhe = None);
    without.attest();
    assert_eq!(without.call(ToVault::Permit { hpke: None }).err().unwrap(), "NO_COFHE");
}

#[test]
fn a_leader_answers_stores_the_key_and_says_so_once() {
    let world = World::attested();
    let (name, prompt) = ("0xab", "what is 2+2?");
    let Output { cid, blob, verify } = world.run(world.job(name, Role::Leader, "echo", prompt)).unwrap().unwrap();
    cid::check(&cid, &blob).unwrap();

    // The verifier's side, which in clear mode reads the key.
    let body: Value = serde_json::from_slice(&verify).unwrap();
    assert_eq!(body["account_addr"], world.vault.node().to_string());
    let list = hex::decode(body["packed_list"].as_str().unwrap()).unwrap();
    let (head, bytes) = list.split_at(list.len() - 32);
    let chain = [&[0; 24][..], &world.profile.chain_id.to_be_bytes()].concat();
    assert_eq!(head, [b"blf.clear/v1\0\0", &world.vault.node().0[..], &chain].concat());
    let key = Key::fill(|key| <[u8; 32]>::try_from(bytes).map(|bytes| *key = bytes)).unwrap();
    let answer = blob::open(&key, &blob).unwrap();
    assert_eq!(text(&answer), "what is 2+2? (64)");

    let id = JobId::try_from(name.to_owned()).unwrap().digest();
    let result = || world.signed(Ask::Result { job: id });
    assert_eq!(result().err().unwrap(), "JOB_NOT_COMMITTED", "the key is not stored yet");
    let judge = Judge { job: id, cid: cid.clone(), stored: true, commitment: String::new() };
    assert_eq!(world.signed(Ask::Judge(judge)).err().unwrap(), "JOB_NOT_COMMITTED", "in the other role");
    let (raw, hash) = world.store(name, 1_000_000, 1_000_000_000).unwrap();
    let contains = |part: &[u8]| raw.windows(part.len()).any(|window| window == part);
    let store = world.profile.cofhe.as_ref().unwrap().prompt_key_store;
    assert!(contains(&store.0) && contains(&USER.0) && contains(&output_key_job_id(name).0));
    let (body, _) = result().unwrap();
    let commitment = legacy::commitment(&cid, &answer).to_string();
    let [high, low] = [1, 2].map(|byte| serde_json::to_value(input(byte)).unwrap());
    let wanted = json!({
        "jobId": name, "output_cid": cid, "commitment_hash": commitment,
        "encrypted_output_key_high": high["ctHash"], "encrypted_output_key_low": low["ctHash"],
        "encrypted_output_key_inputs": {"high": high, "low": low},
        "output_key_store_tx": format!("0x{hash}"),
        "output_key_store_job_id": format!("0x{}", output_key_job_id(name)),
    });
    assert_eq!(body, wanted);
    assert!(body["encrypted_output_key_high"].is_string());
    assert_eq!(result().err().unwrap(), "JOB_NOT_COMMITTED", "once");
    for role in [Role::Leader, Role::Verifier] {
        assert_eq!(world.run(world.job(name, role, "echo", prompt)).err().unwrap(), "JOB_REPEATED");
    }
    // The same bytes in another spelling are the same job.
    let padded = "ab".repeat(32);
    world.run(world.job(&padded, Role::Leader, "echo", prompt)).unwrap();
    let prefixed = format!("0x{padded}");
    assert_eq!(world.run(world.job(&prefixed, Role::Leader, "echo", prompt)).err().unwrap(), "JOB_REPEATED");
}

#[test]
fn a_transaction_has_a_bounded_price_and_few_attempts() {
    let world = World::attested();
    world.run(world.job("j", Role::Leader, "mock", "p")).unwrap();
    for (gas, fee) in [(10_000_001, 1), (1_000_000, 10_000_000_001), (u64::MAX, u128::MAX)] {
        assert_eq!(world.store("j", gas, fee).err().unwrap(), "TRANSACTION_FEE");
    }
    for _ in 0..3 {
        world.store("j", 1_000_000, 10_000_000_000).unwrap();
    }
    assert_eq!(world.store("j", 1_000_000, 1).err().unwrap(), "TRANSACTION_FEE");
    assert_eq!(world.store("other", 1_000_000, 1).err().unwrap(), "JOB_NOT_COMMITTED");
}

#[test]
fn a_verifier_confirms_the_same_and_rejects_all_else() {
    let world = World::attested();
    let answer = legacy::mock_output("mock", &Secret::new(b"p".to_vec()));
    let good = legacy::commitment("QmX", &answer).to_string();
    for (name, stored, commitment, verdict) in [
        ("confirm", true, good.clone(), "CONFIRM"),
        ("unstored", false, good.clone(), "REJECT"),
        ("other", true, "00".repeat(32), "REJECT"),
        ("prefixed", true, format!("0x{good}"), "REJECT"),
    ] {
        assert!(world.run(world.job(name, Role::Verifier, "mock", "p")).unwrap().is_none());
        let job = JobId::try_from(name.to_owned()).unwrap().digest();
        let judge = || Ask::Judge(Judge { job, cid: "QmX".into(), stored, commitment: commitment.clone() });
        let (body, _) = world.signed(judge()).unwrap();
        assert_eq!(
            (&body["jobId"], &body["verdict"], &body["confidence"]),
            (&json!(name), &json!(verdict), &json!(100))
        );
        assert_eq!(body["verifier_address"], world.vault.node().to_string());
        assert_eq!(body["commitment_hash"] == good.as_str(), verdict == "CONFIRM");
        assert_eq!(world.signed(judge()).err().unwrap(), "JOB_NOT_COMMITTED", "once");
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let world = World::attested();
    let job = || world.job("j", Role::Leader, "mock", "p");
    assert_eq!(world.run(Run { model: "qwen2.5-7b".into(), ..job() }).err().unwrap(), "MODEL_UNKNOWN");
    let foreign = Boxes { sealing: Hex([1; 32]), ..job().boxes };
    assert_eq!(world.run(Run { boxes: foreign, ..job() }).err().unwrap(), "SEALING_KEY");
    // Sealed to another's key, though it says ours.
    let key = Key::random().unwrap();
    let [high, low] = split(&key).map(|half| seal(&blf_bridge::HpkeKey::generate().unwrap().public(), &half).unwrap());
    let lied = Boxes { sealing: job().boxes.sealing, high, low };
    assert_eq!(world.run(Run { boxes: lied, ..job() }).err().unwrap(), "COFHE_SEAL");
    assert_eq!(
        world.run(Run { job: name("k"), blob: world.job("x", Role::Leader, "mock", "q").blob, ..job() }).err().unwrap(),
        "PROMPT_TAG"
    );
    assert_eq!(
        world.run(Run { job: name("l"), ..world.job("l", Role::Leader, "mock", "") }).err().unwrap(),
        "PROMPT_TEXT"
    );

    let tfhe = World::new(|profile| profile.cofhe.as_mut().unwrap().inputs = Inputs::Tfhe);
    tfhe.attest();
    assert_eq!(tfhe.run(tfhe.job("j", Role::Leader, "mock", "p")).err().unwrap(), "NO_TFHE_INPUTS");
    assert!(tfhe.run(tfhe.job("j", Role::Verifier, "mock", "p")).unwrap().is_none(), "a verifier publishes nothing");
}

#[test]
fn an_attestation_ends_within_a_day() {
    let world = World::new(|_| ());
    world.ask(Ask::Time(UnixTime(NOW))).unwrap();
    assert_eq!(world.ask(Ask::Attested { expiry: UnixTime(NOW) }).err().unwrap(), "NOT_CERTIFIED");
    world.ask(Ask::Attested { expiry: UnixTime(NOW + 30 * 86_400) }).unwrap();
    let job = world.job("j", Role::Verifier, "mock", "p");
    world.ask(Ask::Time(UnixTime(NOW + 86_400))).unwrap();
    assert_eq!(world.run(job).err().unwrap(), "NOT_CERTIFIED");
    // Time only goes forward.
    world.ask(Ask::Time(UnixTime(NOW))).unwrap();
    assert!(world.signed(Ask::Sign(Request::Get)).unwrap().1.time >= UnixTime(NOW + 86_400));
}

#[test]
fn nothing_is_signed_after_the_end() {
    let world = World::attested();
    world.run(world.job("j", Role::Verifier, "mock", "p")).unwrap();
    world.call(ToVault::PowerOff).unwrap();
    let judge = Judge { job: name("j").digest(), cid: "QmX".into(), stored: true, commitment: String::new() };
    assert_eq!(world.signed(Ask::Judge(judge)).err().unwrap(), "WIPED");
    assert_eq!(world.signed(Ask::Sign(Request::Get)).err().unwrap(), "WIPED");
}

fn name(name: &str) -> JobId {
    name.to_owned().try_into().unwrap()
}
