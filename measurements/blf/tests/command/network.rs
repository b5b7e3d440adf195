//! A network that cannot be reached.

use tempfile::TempDir;

use super::{blf, object};

/// A network document and the files that it names. Nobody listens where its ICL is said to be.
fn unreachable() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/../../agent/profiles/devnet.json");
    std::fs::copy(profile, path("profile.json")).unwrap();
    let release = r#"{"schema":"blf.release/v1","measurement_id":"ID","pcrs":{"4":["Z","Z"],"9":"Z","11":"Z","12":"Z","13":"Z"},
        "profile":{"name":"devnet","id":"Z"},"image_id":"blf","version":"0","kernel":"6","locked":true,"date":"2026-11-20",
        "source":{"commit":"0","agent_sha256":"Z","cargo_lock_sha256":"Z"},
        "rust":{"version":"1","commit":"0","sha256":"Z"},"inputs":[],"outputs":[]}"#;
    let zero = "0".repeat(64);
    let release = release.replace("ID", &format!("tpm-pcr11:{zero}")).replace('Z', &zero);
    std::fs::write(path("release.json"), release).unwrap();
    // A port that nobody listens on: bound and let go.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let network = format!(
        r#"{{"ak_roots":[],"model":"m","pinning_token":"t","profile":"profile.json","release":"release.json",
        "resolve":[{{"address":"127.0.0.1:{port}","host":{{"name":"icl.devnet.blf.internal","port":8443}}}}],"v":1}}"#
    );
    std::fs::write(path("network.json"), network).unwrap();
    let file = path("network.json").display().to_string();
    (dir, file)
}

#[test]
fn it_is_the_environment() {
    let (_dir, network) = unreachable();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("https://127.0.0.1:{port}");
    for arguments in [&["ask", "x"][..], &["verify", "0x5935897A39AFABbedA5a599D38236E7Df151C8b8"], &["verify", &url]] {
        let output = blf(&[&["--json"][..], arguments, &["--network", &network]].concat());
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {}", object(&output));
        assert_eq!(object(&output)["failure"]["code"], "UNREACHABLE", "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_asked_is_asked_of_nobody() {
    let (dir, network) = unreachable();
    let policy = dir.path().join("policy.json").display().to_string();
    let devnet = String::from_utf8(super::vector("appraisal", "../../policies/devnet.json")).unwrap();
    let dated = devnet.replacen(r#""anchor_age_blocks": "any""#, r#""anchor_age_blocks": { "at_most": 100 }"#, 1);
    assert_ne!(dated, devnet);
    std::fs::write(&policy, dated).unwrap();
    let long = "x".repeat(blf_evidence::job::PROMPT_CAP + 1);
    let cases: [(&[&str], &str); 5] = [
        (&["x", "--policy", &policy], "HEAD"),
        (&[""], "PROMPT"),
        (&[&long], "PROMPT"),
        (&["x", "--model", "blf-tiny-1@abcd"], "USAGE"),
        (&["x", "--model", "a b"], "USAGE"),
    ];
    for (arguments, code) in cases {
        let output = blf(&[&["--json", "ask", "--network", &network][..], arguments].concat());
        assert_eq!((output.status.code(), &object(&output)["failure"]["code"]), (Some(2), &code.into()));
    }
    let prompt = dir.path().join("prompt");
    std::fs::write(&prompt, b"caf\xe9").unwrap();
    let mut ask = std::process::Command::new(env!("CARGO_BIN_EXE_blf"));
    ask.args(["--json", "ask", "-", "--network", &network]).stdin(std::fs::File::open(&prompt).unwrap());
    let output = ask.output().unwrap();
    assert_eq!((output.status.code(), &object(&output)["failure"]["code"]), (Some(2), &"PROMPT".into()));
    assert!(object(&output)["failure"]["message"].as_str().unwrap().ends_with("got another byte at 3"));
}

#[test]
fn its_token_is_shown_to_nobody() {
    let (dir, network) = unreachable();
    let file = std::fs::read_to_string(&network).unwrap();
    let named = file.replacen(r#""pinning_token":"t""#, r#""pinning_token":"secret-of-the-user""#, 1);
    assert_ne!(named, file);
    std::fs::write(&network, named).unwrap();
    for arguments in [&["show", &network][..], &["--json", "show", &network]] {
        let output = blf(arguments);
        let shown = super::text(&output.stdout);
        assert!(output.status.success() && shown.contains("18 bytes, not shown"), "{shown}");
        assert!(!shown.contains("secret-of-the-user"), "{shown}");
    }
    drop(dir);
}
