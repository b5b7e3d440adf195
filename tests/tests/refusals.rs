//! What the user refuses, though everybody in between says it is fine; and that every refusal has its test.
//!
//! The other refusals are tested beside the code that refuses; `tests/REFUSALS.md` lists them all.

#[path = "refusals/rogue.rs"]
mod rogue;

use std::sync::Arc;
use std::time::Duration;

use blf::failure::{Exit, Failure};
use blf_agent::attester::Attester;
use blf_agent::channel;
use blf_agent::clock::{self, Clock};
use blf_agent::engine::{self, EngineProcess};
use blf_agent::frames::{FromEngine, ToEngine};
use blf_agent::vault::{Parts, Vault};
use blf_appraisal::Release;
use blf_devnet::development::Authority;
use blf_evidence::bundle::{Evidence, Platform, TpmEvidence};
use blf_evidence::config::Credentials;
use blf_evidence::eip191::{self, Signature};
use blf_evidence::icl::{BODY_CAP, Candidate, Phase, RequestStatus};
use blf_evidence::job::{Answer, Verdict};
use blf_evidence::statement::{Binding, Keys, Purpose};
use blf_evidence::{Address, Base64, Hex};
use blf_tests::network::{Boot, profile};
use blf_tests::swtpm::SwTpm;
use hyper::StatusCode;
use rogue::{Lie, Question, Rogue, random_account};

/// Rejected, not merely failed: exit code 3.
#[track_caller]
fn rejected(failure: &Failure, code: &str) {
    assert_eq!((failure.exit, failure.code.as_str()), (Exit::Rejected, code), "{failure}");
    assert!(!failure.message.contains('\n') && failure.hint.is_some(), "{failure}");
}

fn tpm(evidence: &mut Evidence) -> &mut TpmEvidence {
    let Platform::Tpm(tpm) = &mut evidence.platform else { unreachable!() };
    tpm
}

fn answer(status: &mut RequestStatus) -> &mut Answer {
    status.answer.as_mut().unwrap()
}

#[test]
fn evidence_that_answers_somebody_else() {
    let Some(rogue) = Rogue::start() else { return };
    let refused = |edit: fn(&mut Binding)| rogue.refused(Lie::Binding(Box::new(edit)));
    rejected(&refused(|b| b.nonce.0[31] ^= 1), "NONCE_MISMATCH");
    rejected(&refused(|b| b.audience = Address([7; 20]).to_string()), "AUDIENCE_MISMATCH");
    rejected(&refused(|b| b.purpose = Purpose::Session), "PURPOSE_MISMATCH");
    rejected(&refused(|b| b.not_after = blf::icl::now()), "EXPIRED");
    rejected(&refused(|b| b.profile.name = "production".into()), "PROFILE_MISMATCH");
    rejected(&refused(|b| b.keys.node = Address([7; 20])), "NODE_MISMATCH");
    rejected(&refused(|b| b.models.clear()), "MODEL_UNKNOWN");
}

#[test]
fn evidence_replayed_from_an_earlier_question() {
    let Some(rogue) = Rogue::start() else { return };
    let user = Address([9; 20]).to_string();
    let old = rogue.peer.evidence(Question { node: rogue.peer.node, user, nonce: Hex([9; 32]) });
    rejected(&rogue.refused(Lie::Evidence(Box::new(move |e| *e = old.clone()))), "NONCE_MISMATCH");
}

#[test]
fn evidence_altered_on_its_way() {
    let Some(rogue) = Rogue::start() else { return };
    let refused = |edit: fn(&mut Evidence)| rogue.refused(Lie::Evidence(Box::new(edit)));
    rejected(&refused(|e| tpm(e).pcrs[11].0[0] ^= 1), "PCR_DIGEST_MISMATCH");
    rejected(&refused(|e| *tpm(e).signature.0.last_mut().unwrap() ^= 1), "QUOTE_SIGNATURE");
    rejected(&refused(|e| tpm(e).event_log = None), "EVENT_LOG_MISSING");
    rejected(&refused(|e| e.config.push(' ')), "CONFIG_MISMATCH");
    rejected(&refused(|e| e.binding = e.binding.replace("\"v\":1", "\"v\": 1")), "BINDING_MALFORMED");
}

#[test]
fn a_node_that_runs_another_release() {
    let Some(rogue) = Rogue::start() else { return };
    rogue.ask(&rogue.known(None), 0, vec![]).unwrap();
    let file = rogue.dir.path().join("release.json");
    let good = Release::parse(&std::fs::read(&file).unwrap()).unwrap();
    type Change = fn(&mut Release);
    let changes: [(&str, Change); 2] = [
        ("PCR9_MISMATCH", |r| r.pcrs.pcr9.0[0] ^= 1),
        ("PCR4_MISMATCH", |r| r.pcrs.pcr4.iter_mut().for_each(|pcr| pcr.0[0] ^= 1)),
    ];
    for (code, change) in changes {
        let mut other = good.clone();
        change(&mut other);
        assert_ne!(other, good);
        std::fs::write(&file, other.to_json().unwrap()).unwrap();
        rejected(&rogue.ask(&rogue.known(None), 0, vec![]).err().unwrap(), code);
    }
}

#[test]
fn an_ak_that_nobody_the_user_knows_certified() {
    let Some(rogue) = Rogue::start() else { return };
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "somebody else");
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let stranger = Authority::from_pem(&pem, &key.serialize_pem()).unwrap();
    let certificate = stranger.attestation_key(&rogue.peer.ak, blf::icl::now()).unwrap();
    let lie = move |e: &mut Evidence| tpm(e).ak_certificate = Some(Base64(certificate.to_vec()));
    rejected(&rogue.refused(Lie::Evidence(Box::new(lie))), "AK_CERTIFICATE_ROOT");

    // The development policy says `any` and thereby tier 0; a user who demands an endorsement gets none without it.
    let policy = rogue.dir.path().join("policy.json");
    let demanding =
        blf_appraisal::Policy::DEVNET.replace("\"ak_endorsement\": \"any\"", "\"ak_endorsement\": \"required\"");
    assert_ne!(demanding, blf_appraisal::Policy::DEVNET);
    std::fs::write(&policy, demanding).unwrap();
    let known = rogue.known(Some(&policy));
    rogue.ask(&known, 0, vec![]).unwrap();
    let bare = Lie::Evidence(Box::new(|e| tpm(e).ak_certificate = None));
    rejected(&rogue.ask(&known, 0, vec![bare]).err().unwrap(), "AK_NOT_ENDORSED");
}

#[test]
fn an_answer_by_somebody_else() {
    let Some(rogue) = Rogue::start() else { return };
    let status = |edit: fn(&mut RequestStatus)| rogue.refused(Lie::Status(Box::new(edit)));
    // The ICL signs with a key of its own, under its own name or the leader's.
    rejected(
        &status(|s| {
            let key = random_account();
            answer(s).response = eip191::address(key.verifying_key());
            s.signature = Some(Signature::sign(&key, answer(s).signed_text().unwrap().as_bytes()));
        }),
        "ANSWER_KEY_UNKNOWN",
    );
    rejected(
        &status(|s| {
            let text = answer(s).signed_text().unwrap();
            s.signature = Some(Signature::sign(&random_account(), text.as_bytes()));
        }),
        "ANSWER_SIGNATURE",
    );
    rejected(&status(|s| s.quorum = vec![Address([7; 20])]), "ANSWER_LEADER");
    rejected(&status(|s| s.quorum.clear()), "ANSWER_LEADER");
    rejected(&status(|s| s.answer = None), "ANSWER_MISSING");
    rejected(&status(|s| s.signature = None), "ANSWER_MISSING");
}

#[test]
fn an_answer_altered_by_the_icl() {
    let Some(rogue) = Rogue::start() else { return };
    let status = |edit: fn(&mut Answer)| rogue.refused(Lie::Status(Box::new(move |s| edit(answer(s)))));
    rejected(&status(|a| a.job_id.0[0] ^= 1), "ANSWER_JOB");
    rejected(&status(|a| a.commitment.0[0] ^= 1), "ANSWER_SIGNATURE");
    rejected(&status(|a| a.output_cid = blf_bridge::cid::of(b"another answer")), "ANSWER_SIGNATURE");
    rejected(&status(|a| a.output_key.ct.0[0] ^= 1), "ANSWER_SIGNATURE");
    rejected(&status(|a| a.v = 2), "ANSWER");
    assert_eq!(status(|a| a.output_cid = "../../etc/passwd".into()).code, "BAD_REPLY");
}

#[test]
fn a_leader_that_signs_what_is_not_so() {
    let Some(rogue) = Rogue::start() else { return };
    let signed = |edit: fn(&mut Answer)| rogue.refused(Lie::Answer(Box::new(edit)));
    rejected(&signed(|a| a.job_id.0[0] ^= 1), "ANSWER_JOB");
    rejected(&signed(|a| a.commitment.0[0] ^= 1), "ANSWER_COMMITMENT");
    rejected(&signed(|a| a.output_key.ct.0[0] ^= 1), "ANSWER_KEY");
    rejected(&signed(|a| a.output_key.enc = Hex([0; 32])), "ANSWER_KEY");
    // Another text, sealed to the user under the same names, is not the one committed to.
    let sealed = |edit: fn(&mut Vec<u8>)| rogue.refused(Lie::Sealed(Box::new(edit)));
    rejected(&sealed(|blob| *blob.last_mut().unwrap() ^= 1), "ANSWER_TAG");
    rejected(&sealed(|blob| blob[12] ^= 1), "ANSWER_TAG");
    rejected(&sealed(|blob| blob.truncate(27)), "ANSWER_TAG");
}

#[test]
fn a_blob_store_that_keeps_something_else() {
    let Some(rogue) = Rogue::start() else { return };
    rejected(&rogue.refused(Lie::Blob(Box::new(|blob| blob[0] ^= 1))), "ANSWER_CID");
    rejected(&rogue.refused(Lie::Blob(Box::new(Vec::clear))), "ANSWER_CID");
    let failed = rogue.refused(Lie::Pinned(Box::new(|cid| *cid = blf_bridge::cid::of(b"something else"))));
    assert_eq!((failed.exit, failed.code.as_str()), (Exit::Failed, "UPLOAD"), "{failed}");
    let failed = rogue.refused(Lie::Pinned(Box::new(|cid| *cid = "../../etc/passwd".into())));
    assert_eq!((failed.exit, failed.code.as_str()), (Exit::Failed, "UPLOAD"), "{failed}");
}

#[test]
fn a_quorum_that_was_not_asked_for() {
    let Some(rogue) = Rogue::start() else { return };
    let preview = Lie::Preview(Box::new(|p| p.verifiers.push(p.leader.clone())));
    assert_eq!(rogue.refused(preview).code, "QUORUM_SIZE");
    let twice = Lie::Preview(Box::new(|p| p.verifiers.push(p.leader.clone())));
    let failed = rogue.ask(&rogue.known(None), 1, vec![twice]).err().unwrap();
    rejected(&failed, "QUORUM_DUPLICATE");
}

/// One guest under two names: whatever it calls itself, it has one key of each kind.
#[test]
fn a_quorum_of_one_guest() {
    let Some(rogue) = Rogue::start() else { return };
    rogue.ask(&rogue.known(None), 1, vec![with_verifiers(1)]).unwrap();
    let leader = rogue.peer.node;
    let response = eip191::address(rogue.peer.response(leader).verifying_key());
    let hpke = rogue.peer.hpke(leader).public();
    let refused = |edit: Box<dyn Fn(&mut Keys) + Send + Sync>| {
        let shared = Lie::Binding(Box::new(move |b| {
            if b.keys.node == OTHERS[0] {
                edit(&mut b.keys);
            }
        }));
        rogue.ask(&rogue.known(None), 1, vec![with_verifiers(1), shared]).err().unwrap()
    };
    rejected(&refused(Box::new(move |keys| keys.response = response)), "QUORUM_DUPLICATE");
    rejected(&refused(Box::new(move |keys| keys.hpke = hpke)), "QUORUM_DUPLICATE");
}

/// Nodes of the second to the fourth: the rogue answers for all of them.
const OTHERS: [Address; 3] = [Address([7; 20]), Address([8; 20]), Address([9; 20])];

/// A leader and so many verifiers.
fn with_verifiers(count: usize) -> Lie {
    Lie::Preview(Box::new(move |p| {
        let others = OTHERS[..count].iter().map(|address| Candidate { address: *address, ..p.leader.clone() });
        p.verifiers = others.collect();
    }))
}

#[test]
fn nodes_with_different_weights_under_one_name() {
    let Some(rogue) = Rogue::start() else { return };
    let report = rogue.ask(&rogue.known(None), 1, vec![with_verifiers(1)]).unwrap();
    assert_eq!(report.quorum.iter().map(|m| m.node).collect::<Vec<_>>(), [rogue.peer.node, OTHERS[0]]);
    let other = Lie::Binding(Box::new(|b| {
        if b.keys.node == OTHERS[0] {
            b.models[0].manifest_sha256.0[0] ^= 1;
        }
    }));
    rejected(&rogue.ask(&rogue.known(None), 1, vec![with_verifiers(1), other]).err().unwrap(), "MODEL_DIFFERS");
}

/// All nodes agree, and none holds the weights that the user wants: an operator may pack any under any id.
#[test]
fn nodes_that_all_hold_other_weights_than_the_wanted() {
    let Some(rogue) = Rogue::start() else { return };
    let mut known = rogue.known(None);
    let held = rogue.ask(&known, 0, vec![]).unwrap().model;
    known.network.model.manifest_sha256 = Some(held.manifest_sha256);
    assert_eq!(rogue.ask(&known, 0, vec![]).unwrap().model, held);
    let others = |b: &mut Binding| b.models[0].manifest_sha256.0[0] ^= 1;
    rejected(&rogue.ask(&known, 0, vec![Lie::Binding(Box::new(others))]).err().unwrap(), "MODEL_DIFFERS");
}

#[test]
fn a_quorum_that_did_not_agree() {
    let Some(rogue) = Rogue::start() else { return };
    let tell = |edit| rogue.ask(&rogue.known(None), 2, vec![with_verifiers(2), Lie::Status(edit)]);
    // The first `count` verifiers reject, and sign it.
    let reject = |count: usize| {
        let peer = Arc::clone(&rogue.peer);
        tell(Box::new(move |s: &mut RequestStatus| {
            let (job, commitment) = (s.job_id, s.answer.as_ref().unwrap().commitment);
            for said in &mut s.verdicts[..count] {
                said.verdict = Verdict::Reject;
                let key = peer.response(said.node);
                said.signature = Signature::sign(&key, said.verdict.signed_text(&job, &commitment).as_bytes());
            }
        }))
    };
    reject(1).unwrap();
    rejected(&reject(2).err().unwrap(), "QUORUM_VERDICTS");
    let refused = |edit: fn(&mut RequestStatus)| tell(Box::new(edit)).err().unwrap();
    rejected(&refused(|s| s.verdicts.clear()), "QUORUM_VERDICTS");
    rejected(&refused(|s| s.quorum.truncate(1)), "QUORUM_SIZE");
    rejected(&refused(|s| s.quorum[2] = s.quorum[1]), "QUORUM_SIZE");
    rejected(&refused(|s| s.quorum[2] = OTHERS[2]), "QUORUM_STRANGER");
    let failed = refused(|s| s.phase = Phase::Rejected);
    rejected(&failed, "QUORUM_REJECTED");
    // The ICL signs for a verifier, and turns a verdict round.
    let invented = refused(|s| s.verdicts[0].signature = Signature::sign(&random_account(), b"CONFIRM"));
    rejected(&invented, "VERDICT_SIGNATURE");
    rejected(&refused(|s| s.verdicts[0].verdict = Verdict::Reject), "VERDICT_SIGNATURE");
}

#[test]
fn foreign_text_is_shown_as_one_line() {
    let Some(rogue) = Rogue::start() else { return };
    let clear = "\u{1b}[2J\nall is well";
    // Genuine evidence of a node whose operator chose a strange audience, and an ICL with a strange reason.
    let refused = rogue.refused(Lie::Binding(Box::new(move |b| b.audience = clear.into())));
    rejected(&refused, "AUDIENCE_MISMATCH");
    assert!(!refused.message.contains(char::is_control), "{refused:?}");
    let refused = rogue.refused(Lie::Status(Box::new(move |s| {
        s.phase = Phase::Failed;
        s.reason = Some(clear.into());
    })));
    assert_eq!((refused.exit, refused.code.as_str()), (Exit::Failed, "BAD_REPLY"));
    assert!(!refused.message.contains(char::is_control), "{refused:?}");
    let refused = rogue.refused(Lie::Status(Box::new(|s| {
        s.phase = Phase::Failed;
        s.reason = Some("all is well".into());
    })));
    assert_eq!(refused.code, "JOB_FAILED");
    assert!(refused.message.ends_with(": the ICL says: all is well"), "{refused:?}");
    // Not a control character, and still it would turn the rest of the line round.
    let refused = rogue.refused(Lie::Status(Box::new(|s| {
        s.phase = Phase::Rejected;
        s.reason = Some("\u{202e}llew si lla".into());
    })));
    assert!(refused.message.ends_with(r": the ICL says: \u{202e}llew si lla"), "{refused:?}");
}

#[test]
fn what_a_gateway_loses_is_asked_for_again() {
    let Some(rogue) = Rogue::start() else { return };
    let ask = |path, status| rogue.ask(&rogue.known(None), 0, vec![Lie::Lost(path, status)]);
    for (path, status) in [
        ("/v1/inference/requests", StatusCode::BAD_GATEWAY),
        ("/ipfs/", StatusCode::NOT_FOUND),
        ("/ipfs/", StatusCode::TOO_MANY_REQUESTS),
        ("/ipfs/", StatusCode::BAD_GATEWAY),
    ] {
        assert_eq!(ask(path, status).unwrap().text, "?flb si tahw", "{path}: {status}");
    }
    let failed = ask("/ipfs/", StatusCode::FORBIDDEN).err().unwrap();
    assert_eq!((failed.exit, failed.code.as_str()), (Exit::Failed, "BAD_REPLY"), "{failed}");
    assert!(failed.message.starts_with("job "), "{failed}");
}

#[test]
fn a_host_that_says_nothing_costs_no_more_than_the_timeout() {
    let Some(rogue) = Rogue::start() else { return };
    let silence = vec![Lie::Silence("/v1/nodes/")];
    let failed = rogue.ask_within(Duration::from_secs(15), &rogue.known(None), 0, silence).err().unwrap();
    assert_eq!((failed.exit, failed.code.as_str()), (Exit::Failed, "TIMEOUT"), "{failed}");
    assert!(failed.message.ends_with("within 15 s, got no further than: evidence"), "{failed}");
}

#[test]
fn replies_of_another_form() {
    let Some(rogue) = Rogue::start() else { return };
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 4] = [
        ("an unknown member", |body| {
            body.pop();
            body.extend(br#","more":1}"#);
        }),
        ("a member twice", |body| {
            body.pop();
            body.extend(br#","spares":[]}"#);
        }),
        ("a member less", |body| *body = String::from_utf8_lossy(body).replace(",\"spares\":[]", "").into_bytes()),
        ("too much", |body| body.resize(BODY_CAP + 1, b' ')),
    ];
    for (name, change) in changes {
        let failed = rogue.refused(Lie::Body("/v1/inference/quorum-preview", Box::new(change)));
        assert_eq!(failed.exit, Exit::Failed, "{name}: {failed}");
        assert!(["BAD_REPLY", "NO_REPLY"].contains(&failed.code.as_str()), "{name}: {failed}");
    }
}

#[test]
fn a_network_of_another_root() {
    let Some(rogue) = Rogue::start() else { return };
    let mut known = rogue.known(None);
    rogue.ask(&known, 0, vec![]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    known.profile.tls_roots = params.self_signed(&key).unwrap().pem();
    let failed = rogue.ask(&known, 0, vec![]).err().unwrap();
    assert_eq!((failed.exit, failed.code.as_str()), (Exit::Environment, "UNREACHABLE"), "{failed}");
}

/// The vault's own look at what the host handed in, after the boot's.
#[test]
fn a_configuration_that_the_vault_does_not_know() {
    let boot = Boot::recorded();
    let Some(tpm) = SwTpm::booted(&boot.log) else { return };
    drop(tpm);
    let code = |config: &str| {
        let tpm = SwTpm::booted(&boot.log).unwrap();
        let parts = Parts {
            profile: profile(),
            config: config.into(),
            credentials: Credentials { pinning_token: String::new(), rpc_path: None, v: 1 },
            endorsements: None,
            attester: Box::new(Attester::Tpm(tpm.attester(&boot.log_file))),
            measurement: boot.release.measurement_id.clone(),
            models: Vec::new(),
            numeric_profile: "blf-f32-v1".into(),
            engine: Arc::new(EngineProcess::default()),
            clock: Clock::new(clock::build_date(), clock::boottime),
            keys: blf_agent::keys::Keys::generate().unwrap(),
        };
        Vault::new(parts).err().map(|e| e.code().to_string())
    };
    let good = r#"{"max_jobs":2,"name":"node-1","v":1}"#;
    assert_eq!(code(good), None);
    for (name, bad) in [
        ("unknown member", good.replace("\"v\":1", "\"cmdline\":\"x\",\"v\":1")),
        ("duplicate member", good.replace("\"v\":1", "\"v\":1,\"v\":1")),
        ("member less", good.replace(",\"v\":1", "")),
        ("out of range", good.replace("2", "3")),
    ] {
        assert_ne!(bad, good, "{name}");
        assert_eq!(code(&bad).as_deref(), Some("DOCUMENT"), "{name}");
    }
}

/// A clock that is looked at after tokenising lets whoever asks keep the engine busy beyond every deadline.
#[test]
fn a_prompt_whose_time_is_over_is_not_read() {
    let (mut vault, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let (pack, _) = blf_tests::node::model_pack();
    let served = std::thread::spawn(move || engine::serve(theirs, &pack, std::num::NonZeroUsize::MIN));
    let receive = |from: &mut _| channel::read(from).unwrap().unwrap().message::<FromEngine>().unwrap();
    assert!(matches!(receive(&mut vault), FromEngine::Ready));
    let mut ask = |deadline_millis| {
        let prompt = vec![0xff];
        channel::write(&mut vault, 1, &ToEngine { prompt, max_new_tokens: 1, deadline_millis }).unwrap();
        let FromEngine::Failed { code } = receive(&mut vault) else { panic!() };
        code
    };
    assert_eq!(ask(0), "ENGINE_DEADLINE");
    assert_eq!(ask(60_000), "PROMPT_TEXT");
    drop(vault);
    served.join().unwrap().unwrap();
}

/// `tests/REFUSALS.md` names a test for every refusal, and every test it names exists.
#[test]
fn every_refusal_has_its_test() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = std::fs::read_to_string(root.join("tests/REFUSALS.md")).unwrap();
    let mut named = 0;
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| refused ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let tests: Vec<&str> = cells[2].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            let (path, name) = test.split_once("::").unwrap_or_else(|| panic!("wanted path::name, got {test}"));
            let source = std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
            let wanted = if path.ends_with(".rs") { format!("fn {name}(") } else { format!("{name}() {{") };
            assert!(source.contains(&wanted), "{path} has no {name}");
            named += 1;
        }
    }
    assert!(named > 40, "{named} tests");
}
