//! The command from outside: exit codes, what people read, one object for every end.

#![allow(missing_docs)]

#[path = "../../../appraisal/tests/common/collateral.rs"]
mod collateral;
mod docs;
#[path = "../../../appraisal/tests/common/inputs.rs"]
mod inputs;
mod measure;
mod network;
mod node;
#[path = "../../../appraisal/tests/common/pe.rs"]
mod pe_images;
mod show;
mod verify;

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Without anything that the user's surroundings would add.
fn blf(arguments: &[impl AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blf"));
    for name in ["BLF_NETWORK", "CLICOLOR_FORCE", "HOME", "XDG_STATE_HOME"] {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

/// The one object on stdout.
fn object(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A vector of the neighbouring crate, e.g. `evidence`.
fn vector(of: &str, name: &str) -> Vec<u8> {
    let path = format!("{}/../{of}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A schema of this crate.
fn schema(name: &str) -> jsonschema::Validator {
    let path = format!("{}/schema/{name}.v1.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "{name}");
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn every_failure_is_one_object_with_the_exit_code_of_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (junk, schema) = (file("junk", "{}"), schema("failure"));
    let nonce = "00".repeat(32);
    let address = "0x5935897A39AFABbedA5a599D38236E7Df151C8b8";
    let asked = ["--nonce", &nonce, "--audience", "a"];
    let verify = |more: &[&'static str]| [&["verify", &junk][..], &asked, more].concat();
    let network = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/devnet/network.json");
    let cases: [(Vec<&str>, i32, &str); 21] = [
        (vec!["ask"], 2, "USAGE"),
        (vec!["show", &junk], 1, "UNKNOWN_FILE"),
        (vec!["show", "--kind", "snp", &junk], 2, "USAGE"),
        (vec!["show", "/nonexistent"], 6, "FILE"),
        (vec!["measure", "--image", &junk], 1, "IMAGE"),
        (vec!["verify"], 2, "USAGE"),
        (vec!["verify", &junk], 2, "NONCE"),
        (vec!["verify", &junk, "--nonce", "zz", "--audience", "a"], 2, "NONCE"),
        (vec!["verify", &junk, "--nonce", &nonce], 2, "AUDIENCE"),
        (verify(&["--at", "yesterday"]), 2, "USAGE"),
        (verify(&["--head", "7"]), 2, "USAGE"),
        (verify(&["--head", "1:5", "--network", network]), 2, "HEAD"),
        (vec!["verify", address, "--network", network, "--node", address], 2, "NODE"),
        (verify(&["--network", "/nonexistent"]), 6, "FILE"),
        (verify(&["--references", "/nonexistent"]), 6, "FILE"),
        ([verify(&["--references"]), vec![&junk]].concat(), 6, "REFERENCES"),
        (verify(&[]), 2, "NETWORK"),
        (vec!["verify", "https://a:1/v1"], 2, "URL"),
        (vec!["verify", "https://a:1", "--at", "1"], 2, "AT"),
        (vec!["verify", address, "--network", "/nonexistent"], 6, "FILE"),
        (vec!["verify", &address[..41], "--nonce", &nonce, "--audience", "a", "--network", &junk], 6, "NETWORK"),
    ];
    for (arguments, exit, code) in cases {
        let output = blf(&[&["--json"][..], &arguments].concat());
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {}", text(&output.stdout));
        let object = object(&output);
        assert!(schema.is_valid(&object), "{arguments:?}: {object}");
        assert_eq!(object["failure"]["code"], code, "{arguments:?}: {object}");
        assert!(object["failure"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{arguments:?}");
        let output = blf(&arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(exit), 0), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

/// Nobody has what was asked for: not a success, and not a panic.
#[test]
fn what_cannot_be_written_is_a_failure() {
    let write = |arguments: &[&str], stdout: Stdio| {
        Command::new(env!("CARGO_BIN_EXE_blf")).args(arguments).stdout(stdout).output().unwrap()
    };
    for arguments in [&["show", "--policy"][..], &["--json", "show", "--policy"], &["completions", "bash"], &["man"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        for stdout in [Stdio::from(full), Stdio::from(writer)] {
            let output = write(arguments, stdout);
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
            assert!(told.contains("(WRITE)") && told.contains("next: "), "{arguments:?}: {told}");
        }
    }
}

#[test]
fn completions_and_manual_page_are_whole() {
    for arguments in [&["completions", "bash"][..], &["man"]] {
        let output = blf(arguments);
        assert!(output.status.success());
        let text = text(&output.stdout);
        for word in ["ask", "verify", "show", "measure"] {
            assert!(text.contains(word), "{arguments:?} lacks {word}");
        }
    }
    let completions = text(&blf(&["completions", "bash"]).stdout);
    for word in ["--references", "--verbose", "--head", "--kind", "certificate-table", "confidential"] {
        assert!(completions.contains(word), "completions lack {word}");
    }
    let manual = text(&blf(&["man", "verify"]).stdout).replace("\\-", "-");
    for word in ["--references", "--policy", "--at", "--verbose", "blf-verify"] {
        assert!(manual.contains(word), "the manual page of verify lacks {word}");
    }
}
