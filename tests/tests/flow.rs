//! From a booted guest to a sealed answer that the user opens, in one process: the whole path but for the VM.

use std::time::{Duration, Instant};

use blf::ask::{self, Ask, Report};
use blf::cli::VerifyArgs;
use blf::failure::Failure;
use blf::nodes::Known;
use blf::terminal::Terminal;
use blf::verify;
use blf_bridge::{Key, Secret};
use blf_evidence::job::Verdict;
use blf_evidence::telemetry::{Event, JobState};
use blf_tests::network::Net;
use blf_tests::search::Needles;
use k256::ecdsa::SigningKey;

fn ask(net: &Net, prompt: &str, verifiers: u8) -> Result<Report, Failure> {
    let known = Known::read(Some(&net.network), None).unwrap();
    let ask = Ask {
        network: &known.network,
        profile: &known.profile,
        reference: &known.reference,
        prompt: Secret::new(prompt.as_bytes().to_vec()),
        model: known.network.model.clone(),
        verifiers,
        spares: 0,
        max_new_tokens: 24,
        deadline: Duration::from_secs(300),
        keep_evidence: Some(net.dir.path().join("evidence")),
        chosen: String::new(),
        quorum_within: Duration::from_secs(120),
    };
    let key = SigningKey::from_slice(Key::random().unwrap().expose()).unwrap();
    net.runtime.block_on(ask::run(ask, key, &Terminal::new(true)))
}

#[test]
fn one_node_answers_and_nobody_in_between_could_read_it() {
    let Some(net) = Net::start(1) else { return };
    let marker = format!("What is blf? {}", blf_evidence::Hex(*Key::random().unwrap().expose()));
    let report = ask(&net, &marker, 0).unwrap();
    assert_eq!(report.tier, 0, "a TPM emulated beside us is tier 0, whatever it claims");
    assert!(!report.text.is_empty());
    assert_eq!(report.quorum.len(), 1);
    let schema = serde_json::from_str(include_str!("../../measurements/blf/schema/ask.v1.json")).unwrap();
    let printed = serde_json::to_value(&report).unwrap();
    assert!(jsonschema::is_valid(&schema, &printed), "{printed}");
    // The node hears of it a moment later.
    let accepted = |event: &Event| matches!(event, Event::Job { state: JobState::Accepted, .. });
    let until = Instant::now() + Duration::from_secs(60);
    while !net.nodes[0].events.lock().unwrap().iter().any(accepted) {
        assert!(Instant::now() < until, "{:?}", net.nodes[0].events.lock().unwrap());
        std::thread::sleep(Duration::from_millis(10));
    }

    kept_and_fresh_evidence_verifies(&net, &report);

    let (seen, files) = net.end();
    let needles = Needles::new(&[marker.as_bytes(), report.text.as_bytes()]);
    for (name, haystack) in [("courier", &seen[0]), ("devnet's files", &files)] {
        assert!(!haystack.is_empty(), "{name}: nothing was recorded");
        // The search must find what is there before it may say that nothing is.
        let planted = [&haystack[..], marker.as_bytes()].concat();
        assert!(needles.found_in(&planted), "{name}: the planted leak was not found");
        assert!(!needles.found_in(haystack), "{name} held plaintext");
    }
}

/// With the nonce and the name that the tool says it was asked for, as of when it says, and with no other nonce.
fn kept_and_fresh_evidence_verifies(net: &Net, report: &Report) {
    let member = &report.quorum[0];
    let file = member.evidence.as_ref().unwrap().display().to_string();
    let verify = |args: VerifyArgs| {
        let report = verify::run(&VerifyArgs { network: Some(net.network.clone()), ..args }).unwrap();
        assert!(report.lines(false).len() <= 12, "{:#?}", report.lines(false));
        report.into_result()
    };
    let kept = |nonce: String| {
        let (nonce, audience, at) = (Some(nonce), Some(member.audience.to_string()), Some(member.at));
        verify(VerifyArgs { nonce, audience, at, ..VerifyArgs::new(&*file) })
    };
    let result = kept(member.nonce.to_string()).unwrap();
    assert_eq!((result.tier, result.binding.keys.node), (0, member.node));
    assert!(result.binding.models.contains(&report.model), "{:?}", report.model);
    assert_eq!(kept("11".repeat(32)).unwrap_err().code, "NONCE_MISMATCH");
    let fresh = verify(VerifyArgs::new(member.node.to_string())).unwrap();
    assert_eq!(fresh.binding.keys.node, member.node, "asked by its address, through the ICL");
    assert_ne!(fresh.binding.nonce, member.nonce);
}

#[test]
fn three_nodes_agree() {
    let Some(net) = Net::start(3) else { return };
    let report = ask(&net, "What does blf protect?", 2).unwrap();
    assert_eq!(report.quorum.len(), 3);
    let verdicts: Vec<_> = report.quorum.iter().filter_map(|m| m.verdict).collect();
    assert!(!verdicts.is_empty() && verdicts.iter().all(|v| *v == Verdict::Confirm), "{verdicts:?}");
    let again = ask(&net, "What does blf protect?", 2).unwrap();
    assert_eq!(report.text, again.text, "another job, the same answer");
    net.end();
}

#[test]
fn a_model_that_no_node_holds_is_refused_before_anything_is_sealed() {
    let Some(net) = Net::start(1) else { return };
    ask(&net, "warm up", 0).unwrap();
    let known = Known::read(Some(&net.network), None).unwrap();
    let ask = Ask {
        network: &known.network,
        profile: &known.profile,
        reference: &known.reference,
        prompt: Secret::new(b"x".to_vec()),
        model: "blf-huge-9".parse().unwrap(),
        verifiers: 0,
        spares: 0,
        max_new_tokens: 8,
        deadline: Duration::from_secs(30),
        keep_evidence: None,
        chosen: String::new(),
        quorum_within: Duration::ZERO,
    };
    let key = SigningKey::from_slice(Key::random().unwrap().expose()).unwrap();
    let Err(failure) = net.runtime.block_on(ask::run(ask, key, &Terminal::new(true))) else { panic!("accepted") };
    assert_eq!(failure.code, "TOO_FEW_NODES", "{failure}");
    net.end();
}
