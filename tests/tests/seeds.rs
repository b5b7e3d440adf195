//! The seeds of the fuzz targets, `tests/fuzz/corpus`: a fuzzer that starts from nothing finds no JSON with forty members.
//!
//! Each is small and, where its parser can be called from here, accepted by it; what real machines said is read from the
//! vectors of the crates. The test compares them with the committed ones; with `BLF_BLESS=1` in the environment it
//! writes them.

#[path = "../../measurements/appraisal/tests/common/collateral.rs"]
mod collateral;
#[path = "../../measurements/appraisal/tests/common/pe.rs"]
mod pe;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use blf_agent::attester::Tpm;
use blf_agent::attester::tpm::Transport;
use blf_agent::frames::{self, FromVault, HEADER, Method, ToVault, UNASKED};
use blf_agent::legacy::frames::Ask;
use blf_appraisal::{Policy, References};
use blf_bridge::{HpkeKey, Key, cid};
use blf_evidence::bundle::{AzureEvidence, Evidence, Platform, SCHEMA, SnpEvidence, TdxEvidence, TpmEvidence};
use blf_evidence::eip191::Signature;
use blf_evidence::endorsements::{Endorsements, SnpEndorsements, TdxEndorsements};
use blf_evidence::job::{Answer, JobContext, Role, SealedKey, Share, Verdict};
use blf_evidence::pack::{self, Parameters};
use blf_evidence::profile::{Host, NetworkProfile};
use blf_evidence::statement::{Binding, Keys, Model, Purpose, Statement};
use blf_evidence::telemetry::{Code, Event, JobState};
use blf_evidence::tpm::{EncryptedSecret, IdObject, Public, Quote};
use blf_evidence::tunnel::Dial;
use blf_evidence::{Address, Base64, Hex, UnixTime, icl, json};
use blf_tests::network::Boot;
use blf_tests::swtpm::{Socket, SwTpm};
use serde::Serialize;
use serde_json::Value;

#[test]
fn every_target_has_its_seeds() {
    formats();
    tpm();
    icl_messages();
    bridge();
    chain();
    appraisal();
    platforms();
    agent();
    for target in fs::read_dir(fuzz().join("targets")).unwrap() {
        let name = target.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        let seeds = fs::read_dir(fuzz().join("corpus").join(&name)).map_or(0, Iterator::count);
        assert!(seeds > 0, "{name} has no seed");
    }
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// One seed; the first byte of some says what the rest is, as their targets explain.
#[track_caller]
fn write(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    assert!(bytes.len() <= 65536, "{target}/{name}: {} bytes", bytes.len());
    let file = fuzz().join("corpus").join(target).join(name);
    if std::env::var_os("BLF_BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    } else {
        assert!(fs::read(&file).is_ok_and(|committed| committed == bytes), "{}: run with BLF_BLESS=1", file.display());
    }
}

/// A copy of a file that lives elsewhere and may change there: as good a seed when it is older.
fn copy(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    if std::env::var_os("BLF_BLESS").is_some() {
        write(target, name, bytes);
    }
}

fn vector(path: &str) -> Vec<u8> {
    fs::read(fuzz().join("../../measurements").join(path)).unwrap()
}

/// A message as it stands in a frame.
fn body(message: &impl Serialize) -> Vec<u8> {
    frames::encode(UNASKED, message).unwrap()[HEADER..].to_vec()
}

fn unhex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn key() -> Key {
    Key::fill(|_| Ok::<(), ()>(())).unwrap()
}

fn keys() -> Keys {
    binding().keys
}

fn models() -> Vec<Model> {
    binding().models
}

fn binding() -> Binding {
    Binding {
        egress: vec!["icl.devnet.blf.internal:8443".into()],
        not_after: UnixTime(1_795_160_000),
        numeric_profile: "blf-f32-v1".into(),
        ..Binding::parse(&vector("evidence/tests/vectors/binding.json")).unwrap()
    }
}

fn context() -> JobContext {
    JobContext {
        cofhe: None,
        job_id: Hex([1; 32]),
        measurements: vec![format!("tpm-pcr11:{}", Hex([0; 32]))],
        max_new_tokens: 64,
        model_manifest_sha256: Hex([2; 32]),
        not_after: UnixTime(1_795_157_973),
        reply_hpke: Hex([3; 32]),
        user: Address([4; 20]),
        v: 1,
    }
}

/// A quote of a software TPM, with another binding than it was made for.
fn evidence() -> Evidence {
    let swtpm: Value = serde_json::from_slice(&vector("evidence/tests/vectors/tpm/swtpm.json")).unwrap();
    let set = &swtpm["p256"];
    Evidence {
        schema: SCHEMA.into(),
        binding: binding().to_canonical().unwrap(),
        config: CONFIG.into(),
        platform: Platform::Tpm(TpmEvidence {
            quote: Base64(unhex(&set["quote"])),
            signature: Base64(unhex(&set["signature"])),
            ak_public: Base64(unhex(&set["ak_public"])[2..].to_vec()),
            ak_certificate: None,
            pcrs: swtpm["pcrs"].as_array().unwrap().iter().map(|p| Hex(unhex(p).try_into().unwrap())).collect(),
            event_log: None,
        }),
        endorsements: Some(Base64(vec![1, 2, 3])),
    }
}

const CONFIG: &str = r#"{"max_jobs":2,"name":"node-1","v":1}"#;
const CREDENTIALS: &str = r#"{"pinning_token":"token","v":1}"#;

fn formats() {
    write("binding", "admission", binding().to_canonical().unwrap());
    let anchor = blf_evidence::statement::Anchor { block_hash: Hex([1; 32]), block_number: 7, chain_id: 421_614 };
    let dated = Binding { anchor: Some(anchor), gpu_sha256: Some(Hex([1; 32])), ..binding() };
    write("binding", "dated", dated.to_canonical().unwrap());
    write("job_context", "job", context().to_canonical().unwrap());
    let text = evidence().to_json().unwrap();
    Evidence::parse(text.as_bytes()).unwrap();
    write("evidence", "tpm", text);
    let snp = SnpEvidence { report: Base64(vec![0; 64]), certificates: None };
    write("evidence", "snp", Evidence { platform: Platform::Snp(snp), ..evidence() }.to_json().unwrap());
    let tdx = TdxEvidence { quote: Base64(vec![0; 64]), event_log: None };
    write("evidence", "tdx", Evidence { platform: Platform::Tdx(tdx), ..evidence() }.to_json().unwrap());

    write("host_documents", "config", CONFIG);
    write("host_documents", "credentials", CREDENTIALS);
    let documents = serde_json::json!({"config": CONFIG, "credentials": CREDENTIALS, "endorsements": "AQID"});
    write("host_documents", "documents", sorted(&documents));

    let host = Host { name: "icl.devnet.blf.internal".into(), port: 8443 };
    write("dial", "icl", Dial(host).to_line());

    let (job, node) = (Hex([1; 32]), Address([2; 20]));
    let code = || Code::new("STAGE").unwrap();
    let events = [
        Event::BootStage { number: 1, of: 9, stage: code(), millis: 12 },
        Event::BootFailed { stage: code(), code: code() },
        Event::Booted { node, millis: 1, memory_total_kib: 2, memory_available_kib: 3 },
        Event::Certified { tier: 0, not_after: UnixTime(9) },
        Event::Heartbeat { jobs: 1 },
        Event::Assigned { job, role: Role::Leader },
        Event::Job { job, state: JobState::Running, millis: 3 },
        Event::JobFailed { job, code: code() },
        Event::EvidenceGiven {},
        Event::Trouble { code: code(), retry_in: 5 },
        Event::Stopping { jobs: 0 },
        Event::Stopped {},
        Event::Renewed { tier: 0, not_after: UnixTime(9) },
        Event::Assignments { count: 2 },
        Event::NoAssignments { seconds: 60 },
    ];
    for (i, event) in events.iter().enumerate() {
        write("telemetry", &format!("event-{i:02}"), event.to_line().unwrap());
    }

    let profile = fs::read(fuzz().join("../../agent/profiles/devnet.json")).unwrap();
    NetworkProfile::parse(&profile).unwrap();
    copy("network_profile", "devnet", profile);
    let network = serde_json::json!({
        "ak_roots": [{"development": true, "name": "root", "pem": "-----BEGIN CERTIFICATE-----"}],
        "model": "blf-tiny-1", "pinning_token": "token", "profile": "profile.json", "release": "release.json",
        "resolve": [{"address": "127.0.0.1:8443", "host": {"name": "icl.devnet.blf.internal", "port": 8443}}], "v": 1,
    });
    let network = sorted(&network);
    blf_evidence::network::Network::parse(network.as_bytes()).unwrap();
    write("network_profile", "network", network);

    let parameters = Parameters {
        id: "blf-tiny-1".into(),
        architecture: pack::ARCHITECTURE_LLAMA.into(),
        numeric_profile: pack::NUMERIC_PROFILE_F32.into(),
        max_context: 512,
        max_new_tokens: 128,
        eos: vec![2],
    };
    let mut packed = Vec::new();
    let manifest = pack::write(&mut packed, parameters, [b"{}", b"{}", b"{prompt}", b"weights"]).unwrap();
    pack::verify(&packed).unwrap();
    write("model_pack", "pack", packed);
    write("model_pack", "manifest", manifest.to_canonical().unwrap());

    let address = Address([5; 20]).to_string();
    let signature = Signature([27; 65]).to_string();
    for (name, text) in [
        ("address", address.as_str()),
        ("base64", "AQIDBA=="),
        ("hex16", &"0a".repeat(16)),
        ("hex32", &"0a".repeat(32)),
        ("signature", &signature),
    ] {
        write("encoding", name, text);
    }
}

fn tpm() {
    let swtpm: Value = serde_json::from_slice(&vector("evidence/tests/vectors/tpm/swtpm.json")).unwrap();
    for kind in ["p256", "rsa2048"] {
        let set = &swtpm[kind];
        Quote::parse(&unhex(&set["quote"])).unwrap();
        write("tpm", &format!("quote-{kind}"), unhex(&set["quote"]));
        write("tpm", &format!("signature-{kind}"), unhex(&set["signature"]));
        for member in ["ak_public", "ek_public"] {
            let bytes = unhex(&set[member])[2..].to_vec();
            Public::parse(&bytes).unwrap();
            write("tpm", &format!("{member}-{kind}"), bytes);
        }
    }
    // As an ICL makes them (Part 1, 24), with numbers instead of a secret.
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let id_object = sized(&[sized(&[7; 32]), vec![8; 34]].concat());
    IdObject::parse(&id_object).unwrap();
    write("tpm", "id-object", id_object);
    let point = sized(&[sized(&[7; 32]), sized(&[8; 32])].concat());
    EncryptedSecret::parse(&point).unwrap();
    write("tpm", "encrypted-secret", point);
    write("event_log", "kernel", vector("appraisal/tests/vectors/boot/kernel.log"));
    write("event_log", "short-no-action", vector("evidence/tests/vectors/eventlog/bad-short-no-action.bin"));
}

/// The first byte says which message; the numbers are those of `targets/icl.rs`.
fn icl_messages() {
    let (node_address, job_id) = (Address([2; 20]), Hex([1; 32]));
    let text = || "text".to_owned();
    let (hex, time, signature) = (Hex([1; 32]), UnixTime(1_795_157_973), Signature([27; 65]));
    let share = Share { node: node_address, hpke: hex, key: SealedKey { enc: hex, ct: Hex([2; 48]) } };
    let answer = Answer {
        job_id,
        commitment: hex,
        output_cid: cid::of(b"answer"),
        output_key: share.key.clone(),
        response: node_address,
        v: 1,
    };
    let context = context().to_canonical().unwrap();
    let candidate = icl::Candidate { address: node_address, tier: 0, models: models() };
    let bytes = || Base64(vec![1, 2, 3]);
    macro_rules! messages {
        ($($number:literal $name:literal $message:expr),* $(,)?) => {
            $(write("icl", $name, [&[$number], json::canonical($name, &$message).unwrap().as_bytes()].concat());)*
        };
    }
    messages!(
        0 "time" icl::Time { nonce: hex, signature, time },
        1 "challenge" icl::Challenge { challenge_id: text(), nonce: hex, audience: text(), expires_at: time },
        2 "enroll-reply" icl::EnrollReply { enrolment_id: text(), credential_blob: bytes(), encrypted_secret: bytes() },
        3 "activate-reply" icl::ActivateReply { ak_certificate: bytes() },
        4 "attest-reply" icl::AttestReply { certificate: text(), signature },
        5 "certificate" icl::Certificate {
            binding_sha256: hex, issued_at: time, keys: keys(), measurement: text(), not_after: time, tier: 0, v: 1,
        },
        6 "assignments" icl::Assignments {
            assignments: vec![icl::Assignment {
                job_id, role: Role::Leader, model_id: text(), context: context.clone(), prompt_cid: cid::of(b"x"),
                claim_by: time,
            }],
            evidence_requests: vec![icl::EvidenceRequest {
                request_id: text(), nonce: hex, audience: text(), purpose: Purpose::Preview,
            }],
        },
        7 "claim-reply" icl::ClaimReply { share: share.clone(), claim_deadline: time },
        8 "job-status" icl::JobStatus { job_id, phase: icl::Phase::Revealing, leader_commitment: Some(hex), reason: None },
        9 "done" icl::Done { status: "ok".into() },
        10 "refusal" icl::Refusal { code: "NONCE_REUSED".into(), detail: text() },
        11 "enroll" icl::Enroll { node_address, ek_public: bytes(), ek_certificate: None, ak_public: bytes() },
        12 "attest" icl::Attest {
            node_address, backend_type: "tpm".into(), challenge_id: text(), evidence: evidence(),
        },
        13 "fresh-evidence" icl::FreshEvidence { node_address, request_id: text(), evidence: evidence() },
        14 "leader-result" icl::LeaderResult { job_id, node_address, answer: answer.clone(), salt: hex, signature },
        15 "verifier-result" icl::VerifierResult {
            job_id, node_address, commitment: hex, salt: hex, verdict: Verdict::Confirm, signature,
        },
        16 "submit" icl::Submit {
            context, leader: node_address, model_id: text(), prompt_cid: cid::of(b"x"), shares: vec![share],
            spares: vec![node_address], verifiers: vec![],
        },
        17 "quorum-preview" icl::QuorumPreview { leader: candidate.clone(), verifiers: vec![candidate], spares: vec![] },
        18 "request-status" icl::RequestStatus {
            job_id, phase: icl::Phase::Accepted, answer: Some(answer), signature: Some(signature), reason: None,
            verdicts: vec![icl::NodeVerdict { node: node_address, verdict: Verdict::Reject, signature }],
            quorum: vec![node_address],
        },
        19 "evidence-reply" icl::EvidenceReply { evidence: Some(evidence()), age: 0 },
    );
}

fn bridge() {
    write("cid", "v1", cid::of(b"blob"));
    write("cid", "v0", "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o");
    let mut plain = vec![5, 0, 0, 0];
    plain.extend(b"hello");
    plain.resize(1024, 0);
    write("prompt", "answer", &plain);
    let mut plain = vec![2, 0, 0, 0, b'{', b'}', 5, 0, 0, 0];
    plain.extend(b"hello");
    plain.resize(1024, 0);
    write("prompt", "prompt", &plain);
    // The key of the target, and what was never sealed to it.
    let hpke = HpkeKey::derive(&key()).unwrap();
    let sealed = SealedKey { enc: HpkeKey::derive(&key()).unwrap().public(), ct: Hex([2; 48]) };
    let share = Share { node: Address([5; 20]), hpke: hpke.public(), key: sealed };
    write("share", "share", json::canonical("share", &share).unwrap());
}

/// The order of members is the JSON crate's, which a test dependency may set; seeds have one.
fn sorted(value: &Value) -> String {
    json::canonical("seed", value).unwrap()
}

/// What is recorded in the vectors of the crates that read it.
fn chain() {
    let read = |path: &str| -> Value { serde_json::from_slice(&fs::read(fuzz().join(path)).unwrap()).unwrap() };
    let sdk = read("../../bridge/tests/vectors/cofhe-sdk-0.5.1.json");
    let sealed = &sdk["sealed"][1];
    let [data, public_key, nonce] = ["data", "public_key", "nonce"].map(|member| sealed[member].clone());
    let nested = serde_json::json!({"data": data, "public_key": public_key, "nonce": nonce});
    let flat = serde_json::json!({"sealed_data": data, "ephemeral_public_key": public_key, "nonce": nonce});
    let completed = serde_json::json!({"is_succeed": true, "sealed": nested, "status": "COMPLETED"});
    for (name, kind, body) in [
        ("accepted", 0, r#"{"request_id":"3f6c-1"}"#.to_owned()),
        ("at-once", 0, sorted(&flat)),
        ("refused", 4, r#"{"error_message":"no access"}"#.into()),
        ("completed", 0x80, sorted(&completed)),
        ("processing", 0x88, r#"{"request_id":"1","status":"PROCESSING"}"#.into()),
    ] {
        write("sealoutput", name, [&[kind], body.as_bytes()].concat());
    }
    let value = serde_json::json!({"ct_hash": "258", "signature": "ab".repeat(64), "recid": 1});
    let verified = serde_json::json!({"status": "success", "data": [value, value], "error": null});
    write("inputs", "verified", sorted(&verified));
    write("inputs", "crs", r#"{"crs":"0102"}"#);
    write("inputs", "public-key", r#"{"publicKey":"0x0102"}"#);
    write("handle", "number", "115792089237316195423570985008687907853269984665640564039457584007913129639935");
    write("handle", "decimal", "\"258\"");
    write("handle", "hex", "\"0x102\"");
    write("handle", "sharing", sdk["cases"][1]["exported"].as_str().unwrap());
    let calls = read("../../contracts/tests/vectors/calls.json");
    let log = &calls["key_stored"][2];
    let topics = log["topics"].as_array().unwrap().iter().flat_map(unhex);
    write("chain", "key-stored", topics.chain(unhex(&log["data"])).collect::<Vec<_>>());
    write("chain", "domain", unhex(&calls["eip712_domain"]));
}

fn appraisal() {
    write("certificate", "root.der", vector("appraisal/tests/vectors/gcp-ca/root.der"));
    write("certificate", "intermediate.der", vector("appraisal/tests/vectors/gcp-ca/intermediate.der"));
    let ca = fs::read(fuzz().join("../../host-tools/devnet/development/ak-ca.pem"));
    copy("certificate", "ak-ca.pem", ca.unwrap());
    for (name, policy) in
        [("confidential", Policy::CONFIDENTIAL), ("devnet", Policy::DEVNET), ("released", Policy::RELEASED)]
    {
        copy("policy", name, policy);
    }
    let hash = Hex([0; 32]).to_string();
    let file = serde_json::json!({"name": "blf.efi", "size": 1, "sha256": hash});
    let input = serde_json::json!({
        "kind": "deb", "name": "linux", "version": "6", "architecture": "amd64", "size": 1, "sha256": hash,
    });
    let common = serde_json::json!({
        "version": "0.1.0", "kernel": "6.12", "locked": true, "date": "2026-11-20",
        "source": {"commit": "0", "agent_sha256": hash, "cargo_lock_sha256": hash},
        "rust": {"version": "1.95.0", "commit": "0", "sha256": hash}, "inputs": [input], "outputs": [file],
    });
    let with = |more: Value| {
        let mut all = common.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sorted(&all)
    };
    let release = with(serde_json::json!({
        "schema": blf_appraisal::release::SCHEMA, "measurement_id": format!("tpm-pcr11:{hash}"),
        "pcrs": {"4": [hash, hash], "9": hash, "11": hash, "12": hash, "13": hash},
        "profile": {"id": hash, "name": "devnet"}, "image_id": "blf",
    }));
    blf_appraisal::Release::parse(release.as_bytes()).unwrap();
    write("release", "release", release);
    let inputs = with(serde_json::json!({"profile": "devnet", "sections": {".linux": hash}}));
    blf_appraisal::Inputs::parse(inputs.as_bytes()).unwrap();
    write("release", "inputs", inputs);
    let uki = pe::uki(&pe::uki_sections());
    blf_appraisal::predict::from_uki(&uki).unwrap();
    write("uki", "uki", uki);
}

/// What chips, clouds and their makers say.
fn platforms() {
    let vector = |path: &str| vector(&format!("appraisal/tests/vectors/{path}"));
    for name in ["genoa-v3-azure", "milan-v2-coco", "milan-v3-vlek", "turin-v5-azure"] {
        write("snp_report", name, vector(&format!("snp/{name}/report.bin")));
    }
    for name in ["turin-flip-reserved", "turin-sig-zero", "turin-truncated-1183"] {
        write("snp_report", name, vector(&format!("snp/derived-bad/{name}.bin")));
    }
    let pem = |path: &str| {
        let text = String::from_utf8(vector(path)).unwrap();
        let base64: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        base64.parse::<Base64>().unwrap()
    };
    let (vcek, ask) = (pem("snp/turin-v5-azure/vcek.pem"), pem("snp/turin-v5-azure/ask.pem"));
    let vlek = vector("snp/milan-v3-vlek/vlek.der");
    write("certificate", "vcek.der", &vcek.0);
    write("certificate", "ask.der", &ask.0);
    write("certificate", "vlek.der", &vlek);
    let guids =
        ["8d75da6364e66445adc5f4b93be8accd", "79b3b74aacbbe44fa02f05aef327c782", "c24b07a85aa23e48aae639c045a0b8a1"];
    let certificates = [&vcek.0, &ask.0, &vlek];
    let mut table = Vec::new();
    let mut offset = 4 * 24;
    for (guid, der) in guids.iter().zip(certificates) {
        let numbers = [offset, der.len()].map(|number| u32::try_from(number).unwrap().to_le_bytes());
        table.extend([hex::decode(guid).unwrap(), numbers.concat()].concat());
        offset += der.len();
    }
    table.extend([0; 24]);
    certificates.iter().for_each(|der| table.extend(*der));
    let parsed = blf_evidence::snp::CertificateTable::parse(&table).unwrap();
    assert_eq!((parsed.vcek, parsed.ask, parsed.vlek), (Some(&vcek.0[..]), Some(&ask.0[..]), Some(&vlek[..])));
    write("cert_table", "vcek-ask-vlek", &table);

    for (name, file) in [
        ("v4", "v4-phala-uptodate/quote.bin"),
        ("v5", "v5-google-uptodate/quote.bin"),
        ("v5-service-td", "coco/quote-td15.bin"),
        ("length-huge", "derived-bad/siglen-huge.bin"),
    ] {
        write("td_quote", name, vector(&format!("tdx/{file}")));
    }
    let snp = SnpEndorsements { vek: Some(vcek.clone()), ask: Some(ask), ..SnpEndorsements::default() };
    let endorsements = |snp: Option<SnpEndorsements>, tdx: Option<TdxEndorsements>| {
        Endorsements { snp, tdx, ..Endorsements::default() }.to_json().unwrap()
    };
    write("endorsements", "snp", endorsements(Some(snp), None));
    for (name, folder) in [("v4", "v4-phala-uptodate"), ("v5", "v5-google-uptodate")] {
        let collateral = collateral::collateral(&vector(&format!("tdx/{folder}/collateral.json")));
        let document = endorsements(None, collateral);
        let quote = vector(&format!("tdx/{folder}/quote.bin"));
        let length = u16::try_from(quote.len()).unwrap().to_le_bytes();
        write("td_authenticate", name, [&length, &quote[..], document.as_bytes()].concat());
        write("endorsements", &format!("tdx-{name}"), document);
    }

    let hcl = vector("azure/hcl-report-snp.bin");
    write("hcl", "snp", &hcl);
    write("hcl", "runtime-data", blf_evidence::azure::HclReport::parse(&hcl).unwrap().runtime_data);
    let hcl = vector("azure/hcl-report-tdx.bin");
    write("hcl", "tdx", &hcl);
    write("hcl", "td-report", &hcl[32..32 + 1024]);

    let report = vector("snp/turin-v5-azure/report.bin");
    let genuine = SnpEvidence { report: Base64(report), certificates: Some(Base64(table)) };
    write("evidence", "snp-turin", Evidence { platform: Platform::Snp(genuine), ..evidence() }.to_json().unwrap());
    let genuine = TdxEvidence { quote: Base64(vector("tdx/v4-phala-uptodate/quote.bin")), event_log: None };
    write("evidence", "tdx-v4", Evidence { platform: Platform::Tdx(genuine), ..evidence() }.to_json().unwrap());
    let Platform::Tpm(tpm) = evidence().platform else { unreachable!() };
    let azure = AzureEvidence { hcl_report: Base64(hcl), td_quote: None, tpm };
    write("evidence", "azure", Evidence { platform: Platform::Azure(azure), ..evidence() }.to_json().unwrap());

    let [digest, hash] = [Hex([1; 48]).to_string(), Hex([2; 32]).to_string()];
    let image = serde_json::json!({
        "locked": true, "name": "blf", "profile": {"id": hash, "name": "production"}, "retired": null,
        "snp": [{"measurement": digest, "model": "EPYC-v4", "sev_features": 1, "vcpus": 2}],
        "tdx": {"mrtd": [digest], "rtmr0": "any", "rtmr1": digest, "rtmr2": digest},
        "tpm": {"11": hash, "4": [hash], "9": hash},
        "valid_from": 1_795_000_000, "valid_until": null, "version": "0.1.0",
    });
    let references = sorted(&serde_json::json!({"references": [image], "schema": "blf.references/v1"}));
    References::parse(references.as_bytes()).unwrap();
    write("references", "one-image", references);

    // Behind its last event a CCEL is all ones up to the size of the table.
    let mut ccel = fs::read(fuzz().join("../../measurements/evidence/tests/vectors/eventlog/ccel-ovmf.bin")).unwrap();
    ccel.truncate(ccel.iter().rposition(|byte| *byte != 0xFF).unwrap() + 33);
    write("event_log", "ccel", ccel);
}

fn agent() {
    let (job, hex) = (Hex([1; 32]), Hex([1; 32]));
    let share = Share { node: Address([2; 20]), hpke: hex, key: SealedKey { enc: hex, ct: Hex([2; 48]) } };
    let to_vault = [
        ToVault::Identity,
        ToVault::SetTime(icl::Time { nonce: hex, signature: Signature([27; 65]), time: UnixTime(1) }),
        ToVault::SignRequest {
            method: Method::Post,
            path: "/internal/x".into(),
            body_sha256: hex,
            nonce: Hex([1; 16]),
        },
        ToVault::Activate { credential_blob: vec![1], encrypted_secret: vec![2] },
        ToVault::Attest { purpose: Purpose::Preview, audience: "a".into(), nonce: hex },
        ToVault::Run { context: "{}".into(), role: Role::Leader, share, boxes: None, blob: vec![1, 2, 3] },
        ToVault::RevealVerifier { job, leader_commitment: hex },
        ToVault::Permit { hpke: None },
        ToVault::Legacy(Ask::Attested { expiry: UnixTime(9) }),
    ];
    for (i, message) in to_vault.iter().enumerate() {
        write("frames", &format!("to-vault-{i}"), body(message));
    }
    let handle = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    let job = format!("0x{}", "ab".repeat(32));
    let nonce = "00ff".repeat(16);
    let (hash, commitment, user) = ("12".repeat(16), "aa".repeat(32), "0x5935897A39AFABbedA5a599D38236E7Df151C8b8");
    for (kind, name, text) in [
        (
            0,
            "challenge",
            format!(
                r#"{{"challengeId":"11111111-2222-3333-4444-555555555555","nonce":"0x{nonce}","expiresAt":1795158273}}"#
            ),
        ),
        (1, "attested", format!(r#"{{"certHash":"0x{hash}","expiry":1795244373,"tier":0}}"#)),
        (
            2,
            "assignments",
            format!(
                r#"{{"assignments":[{{"jobId":"{job}","role":"leader","modelId":"mock","promptCid":"QmX","deadline":1,"insuranceOptIn":false,"userAddress":"{user}","kpHighHandle":"{handle}","kpLowHandle":"0x1","permit":null}}]}}"#
            ),
        ),
        (
            3,
            "claim",
            format!(
                r#"{{"kpHighHandle":{handle},"kpLowHandle":{handle},"outputKeyGranted":true,"claimDeadline":1795158273}}"#
            ),
        ),
        (
            4,
            "status",
            format!(
                r#"{{"jobId":"{job}","status":"queued","outputCid":"QmX","leaderCommitment":"{commitment}","failureReason":null,"nodeAssignments":{{}}}}"#
            ),
        ),
        (5, "done", r#"{"status":"ok"}"#.into()),
    ] {
        write("legacy", name, [&[kind], text.as_bytes()].concat());
    }

    let refused = FromVault::Refused { code: "CODE".into() };
    write("frames", "from-vault", body(&refused));

    let model = fuzz().join("../models/blf-tiny-1");
    let file = |name: &str| fs::read(model.join(name)).unwrap();
    copy("model_files", "config", [&[0], &file("config.json")[..]].concat());
    copy("model_files", "tokenizer", [&[1], &file("tokenizer.json")[..]].concat());
    copy("model_files", "template", [&[2], &file("template.txt")[..]].concat());
    // Only the header of the weights: a length and JSON.
    let weights = file("model.safetensors");
    let header = 8 + usize::try_from(u64::from_le_bytes(weights[..8].try_into().unwrap())).unwrap();
    copy("model_files", "weights", [&[3], &weights[..header]].concat());

    // What a TPM says first: an NV index that is not there, twice, then two keys.
    let response = |rc: u32, body: &[u8]| {
        let size = u32::try_from(10 + body.len()).unwrap();
        let tag: u16 = if body.is_empty() { 0x8001 } else { 0x8002 };
        let bytes = [&tag.to_be_bytes()[..], &size.to_be_bytes(), &rc.to_be_bytes(), body].concat();
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
    };
    write(
        "tpm_responses",
        "no-certificates",
        [response(0x18B, &[]), response(0x18B, &[]), response(0, &[0; 64])].concat(),
    );
    recorded();
}

/// What a software TPM said from its first command to an activated credential; every TPM says it with other keys, so it
/// is recorded once.
fn recorded() {
    let file = fuzz().join("corpus/tpm_responses/swtpm");
    if std::env::var_os("BLF_BLESS").is_none() || file.exists() {
        return;
    }
    let boot = Boot::recorded();
    let Some(swtpm) = SwTpm::booted(&boot.log) else { return };
    let said = Arc::<Mutex<Vec<u8>>>::default();
    let tap = Tap { socket: swtpm.connect(), said: Arc::clone(&said) };
    let mut tpm = Tpm::new(Box::new(tap), &boot.log_file).unwrap();
    tpm.attest(&Statement(Hex([7; 64]))).unwrap();
    tpm.measurement_id().unwrap();
    fs::write(file, &*said.lock().unwrap()).unwrap();
}

/// Writes down each response with its length.
struct Tap {
    socket: Socket,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Transport for Tap {
    fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        let response = self.socket.transmit(command)?;
        let mut said = self.said.lock().unwrap();
        said.extend(u16::try_from(response.len()).unwrap().to_be_bytes());
        said.extend(&response);
        Ok(response)
    }
}
