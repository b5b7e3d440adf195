//! `blf verify` of files: verdict, exit code, lines for people, one object for programs; without any network.

use std::process::Output;

use blf_evidence::bundle::Platform;
use serde_json::Value;

use super::node::Node;
use super::{blf, object, schema, text, vector};

/// More than a dozen lines are not read.
const LINES: usize = 12;

fn lines(output: &Output) -> Vec<String> {
    assert_eq!(text(&output.stderr), "", "a verdict is not an error of the command");
    text(&output.stdout).lines().map(str::to_owned).collect()
}

/// The same in both forms: exit code, verdict and code; what is last is the verdict.
fn verdict(arguments: &[String]) -> (i32, Vec<String>, Value) {
    let people = blf(arguments);
    let programs = blf(&[&["--json".to_owned()], arguments].concat());
    assert_eq!(people.status.code(), programs.status.code());
    let (lines, object) = (lines(&people), object(&programs));
    assert!(schema("verify").is_valid(&object), "{object}");
    assert!(lines.len() <= LINES, "{lines:#?}");
    let word = object["verdict"].as_str().unwrap().to_uppercase().replace('_', " ");
    assert!(lines.last().unwrap().starts_with(&word), "{word}: {lines:#?}");
    (people.status.code().unwrap(), lines, object)
}

fn refused(arguments: &[String], exit: i32, code: &str) -> (Vec<String>, Value) {
    let (got, lines, object) = verdict(arguments);
    assert_eq!((got, object["failure"]["code"].as_str()), (exit, Some(code)), "{lines:#?}");
    assert!(object["result"].is_null() && object["meaning"].is_null());
    assert!(lines.last().unwrap().contains(code), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("next  ")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("see   ") && line.contains(code)), "{lines:#?}");
    (lines, object)
}

#[test]
fn genuine_and_wanted() {
    let (exit, lines, object) = verdict(&Node::new().arguments());
    assert_eq!(exit, 0, "{lines:#?}");
    for part in [
        "genuine   ",
        "TPM 2.0",
        "answer    ",
        "image     ",
        "blf 0.1.0, tpm-pcr11:",
        "memory readable by operator; image by pcr",
        "roots none",
        "node 0x0505050505050505050505050505050505050505, until 2026-11-20T10:00:00Z",
        "VERIFIED tier 0: development only",
    ] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:#?}");
    }
    assert_eq!(object["result"]["tier"], 0);
    assert_eq!(object["at"], 1_795_165_200);
    assert!(object["failure"].is_null());
    assert!(object["checks"].as_array().unwrap().iter().all(|check| check["ok"] == true));
}

#[test]
fn of_the_node_that_was_named() {
    let node = Node::new();
    let with = |address: &str| [&node.arguments()[..], &["--node".into(), address.into()]].concat();
    let (exit, lines, object) = verdict(&with("0x0505050505050505050505050505050505050505"));
    assert_eq!((exit, object["policy"].as_str().is_some()), (0, true), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains("judged    as of 2026-11-20T09:00:00Z, by the policy ")),
        "{lines:#?}"
    );
    refused(&with("0x5935897A39AFABbedA5a599D38236E7Df151C8b8"), 3, "NODE_MISMATCH");
}

#[test]
fn verbose_has_a_line_for_each_check() {
    let node = Node::new();
    let arguments = node.arguments();
    let (_, _, object) = verdict(&arguments);
    let checks = object["checks"].as_array().unwrap().clone();
    let output = blf(&[&arguments[..], &["--verbose".to_owned()]].concat());
    let lines = lines(&output);
    assert!(checks.len() > LINES, "{}", checks.len());
    for (check, line) in checks.iter().zip(&lines) {
        let id = check["id"].as_str().unwrap();
        assert!(line.starts_with(&format!("ok    {id}")), "{id}: {line}");
    }
    assert!(lines.last().unwrap().starts_with("VERIFIED"));
}

#[test]
fn not_what_was_asked_for() {
    let mut node = Node::new();
    node.nonce = "11".repeat(32);
    let (lines, object) = refused(&node.arguments(), 3, "NONCE_MISMATCH");
    assert!(lines.iter().any(|line| line.starts_with("ok    genuine")), "{lines:#?}");
    let failed = lines.iter().find(|line| line.starts_with("FAIL")).unwrap();
    assert!(failed.contains(&format!("nonce: wanted {}, got {}", node.nonce, "09".repeat(32))), "{failed}");
    let last = object["checks"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["id"], &last["ok"]), (&"nonce".into(), &false.into()));
}

#[test]
fn not_genuine() {
    let mut node = Node::new();
    let Platform::Tpm(tpm) = &mut node.evidence.platform else { unreachable!() };
    *tpm.signature.0.last_mut().unwrap() ^= 1;
    let (lines, _) = refused(&node.arguments(), 3, "QUOTE_SIGNATURE");
    assert!(!lines.iter().any(|line| line.contains("answer")), "nothing is wanted of what is not genuine: {lines:#?}");
}

#[test]
fn not_a_known_image() {
    let mut node = Node::new();
    node.references.references.clear();
    refused(&node.arguments(), 3, "MEASUREMENT_UNKNOWN");
}

#[test]
fn not_the_tier_that_the_policy_wants() {
    let node = Node::new();
    let policy = vector("appraisal", "../../policies/devnet.json");
    let policy = String::from_utf8(policy).unwrap();
    let stricter = policy.replacen(r#""minimum_tier": 0"#, r#""minimum_tier": 1"#, 1);
    assert_ne!(stricter, policy);
    let mut arguments = node.arguments();
    let at = arguments.iter().position(|argument| argument == "devnet").unwrap();
    arguments[at] = node.write("policy.json", stricter);
    let (lines, _) = refused(&arguments, 3, "TIER_TOO_LOW");
    assert!(lines.iter().any(|line| line.starts_with("FAIL  trust     tier: wanted at least 1, got 0")), "{lines:#?}");
}

#[test]
fn no_longer() {
    let node = Node::new();
    let mut arguments = node.arguments();
    let at = arguments.iter().position(|argument| argument == super::node::AT).unwrap();
    arguments[at] = "2036-11-20T09:00:00Z".into();
    let (lines, _) = refused(&arguments, 3, "EXPIRED");
    assert!(lines.iter().any(|line| line.contains("--at")), "{lines:#?}");
    // By the clock of whoever runs the test, too.
    arguments.drain(at - 1..=at);
    refused(&arguments, 3, "EXPIRED");
}

#[test]
fn no_verdict_without_endorsements() {
    let quote = vector("appraisal", "tdx/v4-phala-uptodate/quote.bin");
    let (lines, object) = refused(&Node::new().td(quote).arguments(), 4, "COLLATERAL_MISSING");
    assert_eq!(object["verdict"], "no_verdict");
    assert!(lines.iter().any(|line| line.contains("stapled no collateral")), "{lines:#?}");
}

#[test]
fn not_evidence_at_all() {
    let node = Node::new();
    let mut arguments = node.arguments();
    for (name, bytes) in [
        ("half", node.evidence.to_json().unwrap().into_bytes()[..1000].to_vec()),
        ("nothing", Vec::new()),
        ("other", b"{\"schema\":\"blf.evidence/v1\",\"\\u001b[2J\":1}".to_vec()),
    ] {
        arguments[1] = node.write(name, bytes);
        refused(&arguments, 3, "EVIDENCE_MALFORMED");
    }
}

/// What a stranger wrote is shown, and obeyed by no terminal.
#[test]
fn hostile_words() {
    let hostile = "blf\u{1b}]52;c;bGVhaw==\u{7}\u{1b}[2J\u{9b}31m\u{202e}\r\n";
    let mut node = Node::new();
    node.references.references[0].name = hostile.into();
    node.audience = hostile.into();
    let arguments = node.arguments();
    for more in [&[][..], &["--verbose".to_owned()], &["--json".to_owned()]] {
        let output = blf(&[&arguments[..], more].concat());
        assert_eq!(output.status.code(), Some(3));
        let shown = text(&output.stdout);
        assert!(shown.contains("bGVhaw=="), "{shown}");
        let obeyed = shown.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(obeyed, None, "{shown:?}");
    }
    node.audience = Node::new().audience;
    let (exit, lines, _) = verdict(&node.arguments());
    assert_eq!(exit, 0);
    assert!(lines.iter().any(|line| line.contains(r"blf\u{1b}]52")), "{lines:#?}");
}
