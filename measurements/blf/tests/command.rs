//! The command from outside: exit codes, one object for every end.

#![allow(missing_docs)]

use std::process::{Command, Output};

use serde_json::Value;

fn blf(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_blf")).args(arguments).env_remove("BLF_NETWORK").output().unwrap()
}

/// The one object on stdout.
fn object(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

#[test]
fn every_failure_is_one_object_with_the_exit_code_of_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let junk = file("junk", "{}");
    let nonce = "00".repeat(32);
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--json", "ask"], 2, "USAGE"),
        (&["--json", "show", &junk], 1, "UNKNOWN_FILE"),
        (&["--json", "measure", "--image", &junk], 1, "IMAGE"),
        (&["--json", "verify", &junk, "--nonce", "zz", "--audience", "a"], 2, "NONCE"),
        (&["--json", "verify", &junk, "--nonce", &nonce, "--audience", "a", "--network", "/nonexistent"], 6, "FILE"),
    ];
    for (arguments, exit, code) in cases {
        let output = blf(arguments);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}");
        let object = object(&output);
        assert_eq!(object["schema"], "blf.failure/v1", "{arguments:?}");
        assert_eq!(object["failure"]["code"], code, "{arguments:?}: {object}");
        assert!(object["failure"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{arguments:?}");
    }
}

#[test]
fn an_unreachable_network_is_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let profile = format!("{root}/agent/profiles/devnet.json");
    std::fs::copy(profile, path("profile.json")).unwrap();
    let release = r#"{"schema":"blf.release/v1","measurement_id":"ID","pcrs":{"4":["Z","Z"],"9":"Z","11":"Z","12":"Z","13":"Z"},
        "profile":{"name":"devnet","id":"Z"},"image_id":"blf","version":"0","kernel":"6","locked":true,"date":"2026-11-20",
        "source":{"commit":"0","agent_sha256":"Z","cargo_lock_sha256":"Z"},
        "rust":{"version":"1","commit":"0","sha256":"Z"},"inputs":[],"outputs":[]}"#;
    let zero = "0".repeat(64);
    std::fs::write(path("release.json"), release.replace("ID", &format!("tpm-pcr11:{zero}")).replace('Z', &zero))
        .unwrap();
    // A port that nobody listens on: bound and let go.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let network = format!(
        r#"{{"ak_roots":[],"model":"m","pinning_token":"t","profile":"profile.json","release":"release.json",
        "resolve":[{{"address":"127.0.0.1:{port}","host":{{"name":"icl.devnet.blf.internal","port":8443}}}}],"v":1}}"#
    );
    std::fs::write(path("network.json"), network).unwrap();
    let output = blf(&["--json", "ask", "x", "--network", &path("network.json").display().to_string()]);
    assert_eq!(output.status.code(), Some(5), "{}", object(&output));
    assert_eq!(object(&output)["failure"]["code"], "UNREACHABLE");
}

#[test]
fn completions_and_manual_page_are_whole() {
    for arguments in [&["completions", "bash"][..], &["man"]] {
        let output = blf(arguments);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        for word in ["ask", "verify", "show", "measure"] {
            assert!(text.contains(word), "{arguments:?} lacks {word}");
        }
    }
}
