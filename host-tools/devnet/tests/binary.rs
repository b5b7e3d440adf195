//! The command itself: what it prints, how it ends.

#[path = "common/release.rs"]
mod release;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use blf_devnet::development;
use blf_evidence::Hex;
use blf_evidence::network::Network;
use release::release;
use serde_json::Value;

fn manifest(folder: &Path) -> std::path::PathBuf {
    let release = release([Hex([1; 32]); 3]);
    let path = folder.join("manifest.json");
    std::fs::write(&path, release.to_json().unwrap()).unwrap();
    path
}

fn devnet(manifest: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blf-devnet"));
    command.args(["run", "--manifest"]).arg(manifest).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ends with the test, whatever becomes of it.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn runs_until_sigterm_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = manifest(folder.path());
    let (state, network) = (folder.path().join("state"), folder.path().join("network.json"));
    let arguments = ["--json", "--listen", "127.0.0.1:0", "--state", state.to_str().unwrap()];
    let mut command = devnet(&manifest, &arguments);
    let mut child = Ends(command.arg("--network").arg(&network).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&first["event"], &first["roots"]), (&"listening".into(), &"development".into()));
    let described = Network::parse(&std::fs::read(&network).unwrap()).unwrap();
    assert_eq!(described.resolve.len(), 6);
    assert_eq!(Value::from(described.resolve[0].address.to_string()), first["address"]);
    assert!(described.ak_roots[0].development && Path::new(&described.release).is_absolute());
    let profile = std::fs::read(folder.path().join(&described.profile)).unwrap();
    assert_eq!(profile, development::PROFILE.as_bytes());

    // The state is one process's.
    let second = devnet(&manifest, &arguments).output().unwrap();
    assert_eq!(second.status.code(), Some(5));
    let failed: Value = serde_json::from_slice(&second.stdout).unwrap();
    assert_eq!((&failed["event"], &failed["code"]), (&"failed".into(), &"STATE".into()));
    assert!(second.stderr.is_empty());

    assert!(Command::new("kill").arg(child.0.id().to_string()).status().unwrap().success());
    assert_eq!(lines.next().unwrap().unwrap(), r#"{"event":"stopped"}"#);
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

#[test]
fn runs_as_the_network_is_today() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blf-devnet"));
    let arguments = ["run", "--json", "--mode", "legacy", "--listen", "127.0.0.1:0", "--plain", "127.0.0.1:0"];
    let mut child = Ends(command.args(arguments).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&first["event"], &first["mode"]), (&"listening".into(), &"legacy".into()));
    assert!(first.get("measurement").is_none());
    let plain: std::net::SocketAddr = first["plain"].as_str().unwrap().parse().unwrap();
    assert!(plain.port() != 0 && std::net::TcpStream::connect(plain).is_ok());
    assert!(Command::new("kill").args(["-INT", &child.0.id().to_string()]).status().unwrap().success());
    assert_eq!(lines.next().unwrap().unwrap(), r#"{"event":"stopped"}"#);
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

/// What belongs to one mode is refused in the other.
#[test]
fn modes_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let good = manifest(folder.path());
    let legacy = devnet(&good, &["--mode", "legacy"]).output().unwrap();
    let mut without = Command::new(env!("CARGO_BIN_EXE_blf-devnet"));
    let strict = without.arg("run").output().unwrap();
    for (output, says) in
        [(legacy, "--manifest: wanted in strict mode only"), (strict, "--manifest: wanted in strict mode")]
    {
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn wrong_input_has_its_exit_code_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let good = manifest(folder.path());
    let bad = folder.path().join("bad.json");
    std::fs::write(&bad, "{}").unwrap();
    let missing = folder.path().join("missing.json");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (manifest, arguments, code, says) in [
        (&bad, vec![], 6, "missing field"),
        (&missing, vec![], 6, "missing.json"),
        (&good, vec!["--policy", bad.to_str().unwrap()], 6, "bad.json"),
        (&good, vec!["--listen", &taken], 5, "CANNOT_LISTEN"),
        (&good, vec!["--listen", "127.0.0.1:0", "--state", good.to_str().unwrap()], 5, "manifest.json"),
        (&good, vec!["--verifiers", "6"], 2, "0..=5"),
        (&good, vec!["--nonsense"], 2, "--nonsense"),
    ] {
        let output = devnet(manifest, &arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(says), "{text}");
    }
}
