//! Configured nodes as an operator meets them: made, imported, checked, shown; and what is said of those that are not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use blf_evidence::UnixTime;
use blf_host::record::{Certificate, Phase, Record};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A machine with no configuration but this folder's, and no variable but those given.
struct Operator {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Operator {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), variables: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    fn nodes(&self) -> PathBuf {
        self.folder.path().join("nodes")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.nodes().join(name).join("node.toml")
    }

    /// Exit code, stdout, stderr.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_blf-host"))
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("BLF_CONFIG_DIR", self.nodes())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The one object of a command that ends well.
    fn object(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"))
    }

    /// The exit code and the one failure of a command that does not, whose error says what to do next.
    fn fails(&self, arguments: &[&str]) -> (i32, Value) {
        let (code, stdout, _) = self.run(&[arguments, &["--json"]].concat());
        let object: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"));
        assert_eq!(object["schema"], "blf.failure/v1", "{object}");
        let failure = object["failure"].clone();
        assert!(failure["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{failure}");
        (code, failure)
    }

    /// The node of this record as if a process ran it, while the result lives.
    fn runs(&self, record: &Record) -> fs::File {
        let folder = self.nodes().join(&record.name);
        fs::write(folder.join("status.json"), serde_json::to_vec(record).unwrap()).unwrap();
        let lock = fs::File::create(folder.join("lock")).unwrap();
        // A program that another test is just starting may still hold the one before.
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        lock
    }

    /// A folder as the existing network's node leaves it.
    fn existing(&self, config: &str) -> PathBuf {
        let folder = self.folder.path().join("old");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), config).unwrap();
        let keystore = json!({
            "address": "5935897A39AFABbedA5a599D38236E7Df151C8b8", "version": 3, "id": "x",
            "crypto": { "ciphertext": "c1f3e27ec1f3e27e", "mac": "3a4c3a4c" },
        });
        fs::write(folder.join("keystore.json"), keystore.to_string()).unwrap();
        fs::set_permissions(folder.join("keystore.json"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(folder.join(".env"), "BLF_PRIVATE_KEY=0xdeadbeefdeadbeef\n").unwrap();
        folder
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_node_is_configured_without_a_question_and_without_a_key() {
    let operator = Operator::new();
    let made = operator.object(&["init", "--name", "alpha", "--image", "img", "--memory", "1024", "--devnet"]);
    let file = operator.file("alpha");
    assert_eq!(made["file"], file.to_str().unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let image = operator.folder.path().join("img");
    assert!(text(&file).contains(&format!("\nimage = {image:?}\n")), "{}", text(&file));
    assert!(text(&file).contains("\nmemory = 1024\n") && text(&file).contains("\n# cpus = 2\n"));
    let left: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");

    let (code, failure) = operator.fails(&["init", "--name", "alpha"]);
    assert_eq!((code, failure["code"].as_str()), (6, Some("NODE_EXISTS")), "{failure}");
    // Several nodes of one machine, told apart by name.
    let (code, stdout, _) = operator.run(&["init", "--name", "beta", "--non-interactive"]);
    assert!(code == 0 && stdout.contains("no key was made"), "{stdout}");
    let (code, failure) = operator.fails(&["status", "--name", "gamma"]);
    assert_eq!((code, failure["code"].as_str()), (6, Some("NOT_INITIALISED")), "{failure}");
    assert!(failure["hint"].as_str().unwrap().contains("alpha, beta"), "{failure}");
}

#[test]
fn a_command_that_needs_a_node_says_how_to_make_one() {
    let operator = Operator::new();
    for command in [
        &["run"][..],
        &["status"],
        &["attest"],
        &["models", "test"],
        &["jobs", "list"],
        &["jobs", "earnings"],
        &["config", "check"],
        &["config", "show"],
    ] {
        let (code, failure) = operator.fails(command);
        assert_eq!((code, failure["code"].as_str()), (6, Some("NOT_INITIALISED")), "{command:?}: {failure}");
        assert_eq!(failure["hint"], "blf-host init --name node", "{command:?}");
    }
    // A folder of the existing node is recognised.
    let folder = operator.existing("{}");
    let operator = operator.with("BLF_CONFIG_DIR", folder.to_str().unwrap());
    let (_, failure) = operator.fails(&["run"]);
    assert!(failure["hint"].as_str().unwrap().contains("blf-host import"), "{failure}");
}

#[test]
fn a_node_that_was_never_run_stands_still() {
    let operator = Operator::new();
    operator.object(&["init", "--devnet"]);
    let (code, stdout, _) = operator.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &status["standing"], &status["record"]), (1, &json!("never_run"), &json!(null)));
    let (code, stdout, stderr) = operator.run(&["status"]);
    assert!(code == 1 && stdout.contains("configured, never run") && stderr.contains("blf-host run"), "{stderr}");

    let record = operator.nodes().join("node/status.json");
    for bad in ["{}", "{\"schema\":", "[]"] {
        fs::write(&record, bad).unwrap();
        let (code, failure) = operator.fails(&["status"]);
        assert_eq!((code, failure["code"].as_str()), (6, Some("RECORD")), "{failure}");
    }
}

#[test]
fn a_node_that_is_cut_off_does_not_stand_well() {
    let operator = Operator::new();
    operator.object(&["init", "--name", "alpha", "--devnet"]);
    let now = UnixTime(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs());
    let mut record = Record::begin("alpha", None, now);
    record.phase = Phase::Serving;
    record.certificate = Some(Certificate { tier: 0, not_after: UnixTime(now.0 + 9999) });
    for (ago, code, standing) in [(60, 0, "ready"), (301, 4, "silent")] {
        record.heard_at = Some(UnixTime(now.0 - ago));
        let _lock = operator.runs(&record);
        for command in ["status", "attest"] {
            let (got, stdout, _) = operator.run(&[command, "--name", "alpha", "--json"]);
            let said: Value = serde_json::from_str(&stdout).unwrap();
            assert_eq!((got, said["standing"].as_str()), (code, Some(standing)), "{command}: {said}");
            let (got, _, stderr) = operator.run(&[command, "--name", "alpha"]);
            assert_eq!((got, stderr.contains("(HEARTBEAT_LATE)")), (code, code == 4), "{stderr}");
        }
    }
}

#[test]
fn a_check_says_what_a_run_would_say() {
    let operator = Operator::new();
    operator.object(&["init", "--tee", "snp", "--devnet"]);
    for command in [&["config", "check"][..], &["run"]] {
        let (code, stdout, _) = operator.run(&[command, &["--json"]].concat());
        assert!(code == 5 && stdout.contains("TEE_NOT_YET"), "{command:?}: {stdout}");
    }
}

#[test]
fn every_value_is_shown_with_where_it_comes_from() {
    let operator = Operator::new().with("BLF_LOG_LEVEL", "DEBUG");
    operator.object(&["init", "--cpus", "3"]);
    let shown = operator.object(&["config", "show"]);
    let origin = |key: &str| shown["values"][key]["origin"].as_str().unwrap().to_owned();
    assert_eq!([origin("cpus"), origin("log_level"), origin("memory")], ["file", "environment", "default"]);
    assert_eq!(shown["values"]["cpus"]["value"], "3");
    let (_, stdout, _) = operator.run(&["config", "show", "--origin"]);
    let line = stdout.lines().find(|line| line.starts_with("log_level")).unwrap();
    assert!(line.ends_with("environment BLF_LOG_LEVEL"), "{line}");
    let line = stdout.lines().find(|line| line.starts_with("cpus")).unwrap();
    assert!(line.contains("node.toml line "), "{line}");
    let (_, stdout, _) = operator.run(&["config", "show"]);
    assert!(!stdout.contains("environment"), "{stdout}");
}

#[test]
fn a_configuration_that_is_wrong_is_named_with_its_line() {
    let operator = Operator::new();
    operator.object(&["init"]);
    for (bad, wanted) in [
        ("cpus = 2\nmemroy = 1\n", "node.toml line 2: \"memroy\": no such key"),
        ("cpus = \n", "node.toml line 1"),
        ("icl_endpoint = \"https://icl.example\"\n", "fixed by the measured profile"),
    ] {
        fs::write(operator.file("node"), bad).unwrap();
        for command in [&["config", "check"][..], &["run"], &["status"], &["attest"]] {
            let (code, stdout, _) = operator.run(&[command, &["--json"]].concat());
            let failure = serde_json::from_str::<Value>(&stdout).unwrap()["failure"].clone();
            assert_eq!((code, failure["code"].as_str()), (6, Some("CONFIG")), "{command:?} {failure}");
            assert!(failure["message"].as_str().unwrap().contains(wanted), "{failure}");
        }
    }
    let (_, _, stderr) = operator.run(&["config", "check"]);
    assert!(stderr.contains("    next: "), "{stderr}");
}

#[test]
fn variables_are_honoured_refused_or_said_to_have_no_effect() {
    let operator = Operator::new().with("BLF_MEMORY", "lots");
    let (code, stdout, _) = operator.run(&["init", "--json"]);
    let failure = serde_json::from_str::<Value>(&stdout).unwrap()["failure"].clone();
    assert_eq!((code, failure["code"].as_str()), (6, Some("ENVIRONMENT")), "{failure}");

    let secret = "5ec4e75ec4e75ec4e7";
    let operator = Operator::new().with("BLF_PRIVATE_KEY", secret).with("BLF_MEMROY", "1").with("BLF_TIER", "2");
    let (code, stdout, stderr) = operator.run(&["init"]);
    assert_eq!(code, 0, "{stderr}");
    for wanted in [
        "BLF_PRIVATE_KEY is not read: the guest makes its keys itself",
        "BLF_MEMROY is not read: did you mean BLF_MEMORY?",
        "BLF_TIER is not read",
    ] {
        assert!(stderr.contains(wanted), "{wanted} in {stderr}");
    }
    assert!(!stdout.contains(secret) && !stderr.contains(secret) && !text(&operator.file("node")).contains(secret));
}

#[test]
fn an_existing_node_is_taken_over_key_by_key_and_no_secret_with_it() {
    let operator = Operator::new();
    let config = json!({
        "node_address": "0x5935897A39AFABbedA5a599D38236E7Df151C8b8", "keystore_path": "./keystore.json", "tier": 0,
        "supported_model_ids": ["facebook/opt-125m"], "attestation_backend": "mock",
        "icl_endpoint": "https://icl.blindference.xyz", "payment_service_url": "http://127.0.0.1:8001",
        "rpc_url": "https://arb-sepolia.example/v2/s3cr3tkey", "ipfs_gateway": "https://node.lighthouse.storage",
        "model_cache_dir": "./models", "log_level": "DEBUG", "zdr_compliant": false, "network": "arbitrum_sepolia",
        "attestation_cert_hash": "0x00", "attestation_expiry": 1, "registered_on_chain": false, "stake_amount_wei": 0,
        "cofhe_mode": "bridge", "cofhe_endpoint": "https://arb-sepolia.example/v2/s3cr3tkey", "cofhe_chain_id": 421614,
        "skip_output_key_storage": false, "custom_backends": [], "blind_token_address": "0x232D", "surprise": "s3cr3tkey",
    });
    let folder = operator.existing(&config.to_string());
    let folder = folder.to_str().unwrap();
    let (code, stdout, stderr) = operator.run(&["import", folder, "--name", "alpha", "--image", "img"]);
    assert_eq!(code, 0, "{stderr}");
    let file = text(&operator.file("alpha"));
    assert!(file.contains("\npayment_service_url = \"http://127.0.0.1:8001\"\n"), "{file}");
    assert!(file.contains("\nlog_level = \"DEBUG\"\n"), "{file}");
    for secret in ["s3cr3tkey", "deadbeef", "c1f3e27e", "3a4c3a4c"] {
        assert!(![&stdout, &stderr, &file].iter().any(|text| text.contains(secret)), "{secret}: {stdout}{stderr}");
    }
    assert!(!operator.nodes().join("alpha/keystore.json").exists());
    // Every key is accounted for, the wallet too.
    let imported = operator.object(&["import", folder, "--name", "beta"]);
    let keys = imported["keys"].as_array().unwrap();
    let of = |name: &str| keys.iter().find(|key| key["name"] == name).unwrap_or_else(|| panic!("{name}")).clone();
    for key in config.as_object().unwrap().keys() {
        assert!(!of(key)["what"].as_str().unwrap().is_empty(), "{key}");
    }
    let kept: BTreeSet<_> =
        keys.iter().filter(|key| key["kept"] == true).map(|key| key["name"].as_str().unwrap()).collect();
    assert_eq!(kept, BTreeSet::from(["log_level", "payment_service_url"]));
    assert_eq!(of("keystore.json")["value"], "0x5935897A39AFABbedA5a599D38236E7Df151C8b8");
    assert!(of("keystore.json")["what"].as_str().unwrap().contains("chmod 600"));
    assert!(of(".env")["what"].as_str().unwrap().contains("not read"));
}

#[test]
fn an_existing_folder_that_is_wrong_is_refused_and_nothing_is_made() {
    let operator = Operator::new();
    for (config, wanted) in [
        ("{\n\"tier\": s3cr3t", "line 2 column 9: no JSON"),
        ("{\n\"tier\": 0", "the text ends early"),
        ("[1]", "wanted an object"),
    ] {
        let folder = operator.existing(config);
        let (code, failure) = operator.fails(&["import", folder.to_str().unwrap()]);
        assert_eq!((code, failure["code"].as_str()), (6, Some("IMPORT")), "{failure}");
        let message = failure["message"].as_str().unwrap();
        assert!(message.contains(wanted) && !message.contains("s3cr3t"), "{message}");
    }
    let nowhere = operator.folder.path().join("nowhere");
    let (code, failure) = operator.fails(&["import", nowhere.to_str().unwrap()]);
    assert_eq!((code, failure["code"].as_str()), (6, Some("NO_EXISTING_NODE")), "{failure}");
    assert!(!operator.nodes().exists());
}

#[test]
fn models_are_listed_and_tried() {
    let operator = Operator::new();
    assert_eq!(operator.object(&["models", "list"])["models"], json!([]));
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/blf-tiny-1");
    let pack = operator.folder.path().join("tiny.pack");
    operator.object(&[
        "models",
        "pack",
        "--id",
        "blf-tiny-1",
        "--dir",
        tiny.to_str().unwrap(),
        "--out",
        pack.to_str().unwrap(),
    ]);
    operator.object(&["init", "--name", "alpha", "--model", "tiny.pack", "--devnet"]);
    operator.object(&["init", "--name", "beta"]);
    let models = operator.object(&["models", "list"])["models"].clone();
    assert_eq!((&models[0]["node"], &models[0]["pack"]["manifest"]["id"]), (&json!("alpha"), &json!("blf-tiny-1")));
    assert_eq!((&models[1]["file"], &models[1]["pack"]), (&json!(null), &json!(null)));

    // One whose configuration is wrong does not hide the others.
    fs::create_dir(operator.nodes().join("gamma")).unwrap();
    fs::write(operator.file("gamma"), "memroy = 1\n").unwrap();
    operator.object(&["init", "--name", "omega"]);
    let models = operator.object(&["models", "list"])["models"].clone();
    assert_eq!((&models[2]["error"]["code"], &models[3]["node"]), (&json!("CONFIG"), &json!("omega")));
    let (code, stdout, _) = operator.run(&["models", "list"]);
    assert!(code == 0 && stdout.contains("[!] gamma"), "{stdout}");

    let tried = operator.object(&["models", "test", "--name", "alpha", "--no-boot"]);
    assert_eq!((&tried["whole"], &tried["served"]), (&json!(true), &json!(false)));
    // A guest that still boots serves nothing yet, whatever it was given.
    let lock = operator.runs(&Record::begin("alpha", None, UnixTime(1)));
    let (code, failure) = operator.fails(&["models", "test", "--name", "alpha"]);
    assert_eq!((code, failure["code"].as_str()), (4, Some("STARTING")), "{failure}");
    let tried = operator.object(&["models", "test", "--name", "alpha", "--no-boot"]);
    assert_eq!(tried["served"], json!(false));
    drop(lock);
    let (code, failure) = operator.fails(&["models", "test", "--name", "beta"]);
    assert_eq!((code, failure["code"].as_str()), (6, Some("NO_MODEL")), "{failure}");
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let (code, stdout, _) = operator.run(&["models", "test", "--name", "alpha", "--no-boot", "--json"]);
    assert!(code == 3 && stdout.contains("MODEL_PACK"), "{stdout}");
}

#[test]
fn no_flag_chooses_what_makes_evidence() {
    let operator = Operator::new();
    operator.object(&["init"]);
    for arguments in [&["attest", "--mock"][..], &["attest", "--tee-key", "mydevkey"]] {
        let (code, failure) = operator.fails(arguments);
        assert_eq!((code, failure["code"].as_str()), (2, Some("NO_MOCK")), "{failure}");
        assert!(!failure.to_string().contains("mydevkey"));
    }
    let (_, help, _) = operator.run(&["attest", "--help"]);
    assert!(!help.contains("--mock"));
}
