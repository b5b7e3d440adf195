//! The command as an operator or a script meets it: exit codes, one object under `--json`, refusals.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// Exit code, stdout, stderr.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_blf-host")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs with `--json`: the exit code and the one failure.
fn fails(arguments: &[&str]) -> (i32, Value) {
    let (code, stdout, _) = run(&[arguments, &["--json"]].concat());
    let object: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"));
    assert_eq!(object["schema"], "blf.failure/v1");
    (code, object["failure"].clone())
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/blf-tiny-1")
}

/// A folder with an image whose manifest lists it as it is.
fn image() -> TempDir {
    let folder = TempDir::new().unwrap();
    let uki = b"not a PE file";
    fs::write(folder.path().join("blf.efi"), uki).unwrap();
    let zero = "0".repeat(64);
    let manifest = json!({
        "schema": "blf.release/v1",
        "measurement_id": format!("tpm-pcr11:{zero}"),
        "pcrs": { "4": [zero, zero], "9": zero, "11": zero, "12": zero, "13": zero },
        "profile": { "id": zero, "name": "devnet" },
        "image_id": "blf", "version": "0.1.0", "kernel": "6", "locked": true, "date": "2026-01-01",
        "source": { "commit": "c", "agent_sha256": zero, "cargo_lock_sha256": zero },
        "rust": { "version": "1", "commit": "c", "sha256": zero },
        "inputs": [],
        "outputs": [{
            "name": "blf.efi", "size": uki.len(),
            "sha256": "21b7fba2ea6cbf9e4b1d8cf77b8fc1a2ed2d2ac9d4d8a30b1f3a2aa1dbd2a7c5",
        }],
    });
    fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
    folder
}

/// Gives the manifest in `folder` the digest that its image has.
fn agree(folder: &Path) {
    use sha2::Digest as _;
    let file = folder.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let uki = fs::read(folder.join("blf.efi")).unwrap();
    manifest["outputs"][0]["sha256"] = hex::encode(sha2::Sha256::digest(&uki)).into();
    manifest["outputs"][0]["size"] = uki.len().into();
    fs::write(file, manifest.to_string()).unwrap();
}

#[test]
fn a_tee_that_comes_later_exits_5() {
    for tee in ["snp", "tdx"] {
        let (code, failure) = fails(&["launch", "--tee", tee]);
        assert_eq!((code, failure["code"].as_str()), (5, Some("TEE_NOT_YET")), "{failure}");
        let (code, stdout, stderr) = run(&["launch", "--tee", tee]);
        assert_eq!((code, stdout.as_str()), (5, ""));
        assert!(stderr.contains("comes with a later release"), "{stderr}");
    }
}

#[test]
fn an_image_that_is_not_its_manifests_exits_3() {
    let folder = image();
    let path = folder.path().to_str().unwrap();
    let (code, failure) = fails(&["launch", "--image", path]);
    assert_eq!((code, failure["code"].as_str()), (3, Some("OUTPUT_MISMATCH")), "{failure}");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("blf.efi: wanted 13 bytes with SHA-256 21b7fba2"), "{message}");
    assert!(message.contains("got 13 bytes with "), "{message}");

    // The bytes are listed, but they measure to nothing the manifest says.
    agree(folder.path());
    let (code, failure) = fails(&["launch", "--image", path]);
    assert_eq!((code, failure["code"].as_str()), (3, Some("MEASUREMENT_MISMATCH")), "{failure}");

    fs::remove_file(folder.path().join("blf.efi")).unwrap();
    let (code, failure) = fails(&["launch", "--image", path]);
    assert_eq!((code, failure["code"].as_str()), (3, Some("OUTPUT_MISSING")), "{failure}");
}

#[test]
fn a_manifest_that_is_wrong_exits_6() {
    let folder = image();
    let path = folder.path().to_str().unwrap();
    let file = folder.path().join("manifest.json");
    let good = fs::read_to_string(&file).unwrap();
    for bad in [
        good.replace("blf.efi", "../blf.efi"),
        good.replace("\"locked\"", "\"unlocked\""),
        good.replace("blf.release/v1", "blf.release/v2"),
        good.replacen('{', r#"{"locked":true,"#, 1),
        " ".repeat(2 * 1024 * 1024),
    ] {
        assert_ne!(bad, good);
        fs::write(&file, bad).unwrap();
        let (code, failure) = fails(&["launch", "--image", path]);
        assert_eq!((code, failure["code"].as_str()), (6, Some("MANIFEST")), "{failure}");
    }
    fs::remove_file(&file).unwrap();
    let (code, failure) = fails(&["launch", "--image", path]);
    assert_eq!((code, failure["code"].as_str()), (6, Some("IMAGE_MISSING")), "{failure}");
    assert!(failure["hint"].as_str().unwrap().contains("image/build"));
}

#[test]
fn a_wrong_command_line_exits_2() {
    for arguments in [
        ["launch", "--nodes", "0"],
        ["launch", "--name", "Node_1"],
        ["launch", "--memory", "64"],
        ["launch", "--tee", "sgx"],
        ["model", "pack", "--id"],
        ["stop", "node-1", "now"],
    ] {
        let (code, failure) = fails(&arguments);
        assert_eq!((code, failure["exit"].as_str()), (2, Some("usage")), "{failure}");
        assert_eq!(run(&arguments).0, 2);
    }
    assert_eq!(run(&["--version"]).0, 0);
}

#[test]
fn a_model_is_packed_shown_and_refused_with_one_bit_flipped() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("tiny.pack");
    let (pack, dir) = (file.to_str().unwrap(), model());
    let packing = ["model", "pack", "--id", "blf-tiny-1", "--dir", dir.to_str().unwrap(), "--out", pack, "--json"];
    // Somebody else's, of a name that a pack on its way might have had.
    let other = folder.path().join("tiny.new");
    fs::write(&other, "mine").unwrap();
    let (code, stdout, stderr) = run(&packing);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    let packed: Value = serde_json::from_str(&stdout).unwrap();
    let manifest = &packed["model"]["manifest"];
    assert_eq!(
        (&manifest["id"], &manifest["max_context"], &manifest["eos"]),
        (&json!("blf-tiny-1"), &json!(512), &json!([2]))
    );

    let (code, stdout, _) = run(&["model", "show", pack, "--json"]);
    assert_eq!((code, &serde_json::from_str::<Value>(&stdout).unwrap()), (0, &packed));
    let digest = packed["model"]["manifest_sha256"].as_str().unwrap();
    assert!(run(&["model", "show", pack]).1.contains(digest));
    // The same files give the same pack.
    let first = fs::read(&file).unwrap();
    assert_eq!(run(&packing).0, 0);
    assert!(fs::read(&file).unwrap() == first);
    let header = blf_evidence::pack::verify(&first).unwrap();
    assert_eq!(header.digest.to_string(), digest);

    let mut flipped = first.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bad in [flipped, first[..first.len() - 1].to_vec(), [first.clone(), vec![0]].concat(), first[..20].to_vec()] {
        fs::write(&file, bad).unwrap();
        let (code, failure) = fails(&["model", "show", pack]);
        assert_eq!((code, failure["code"].as_str()), (3, Some("MODEL_PACK")), "{failure}");
    }
    fs::remove_file(&file).unwrap();
    let (code, failure) = fails(&["model", "show", pack]);
    assert_eq!((code, failure["code"].as_str()), (6, Some("MODEL_MISSING")), "{failure}");
}

#[test]
fn a_model_that_lacks_a_file_is_refused_and_nothing_is_left() {
    let folder = TempDir::new().unwrap();
    for name in ["config.json", "tokenizer.json", "template.txt"] {
        fs::copy(model().join(name), folder.path().join(name)).unwrap();
    }
    let (dir, out) = (folder.path().to_str().unwrap(), folder.path().join("x.pack"));
    let (code, failure) = fails(&["model", "pack", "--id", "x", "--dir", dir, "--out", out.to_str().unwrap()]);
    assert_eq!((code, failure["code"].as_str()), (6, Some("MODEL_FILE")), "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("model.safetensors"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn doctor_names_every_row_and_its_fix() {
    let folder = TempDir::new().unwrap();
    let (code, stdout, _) = run(&["doctor", "--json", "--image", folder.path().to_str().unwrap()]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, if report["ok"] == true { 0 } else { 5 }, "{report}");
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["qemu", "ovmf", "swtpm", "setpriv", "vsock", "kvm", "tee", "memory", "disk"]);
    for row in rows {
        assert_eq!(row["fix"].is_null(), row["status"] == "ok", "{row}");
    }

    let nothing =
        Command::new(env!("CARGO_BIN_EXE_blf-host")).args(["doctor", "--json"]).env("PATH", folder.path()).output();
    let nothing = nothing.unwrap();
    let report: Value = serde_json::from_slice(&nothing.stdout).unwrap();
    assert_eq!((nothing.status.code(), &report["ok"]), (Some(5), &json!(false)));
    assert_eq!(report["rows"][0]["fix"], "apt install qemu-system-x86");
}

#[test]
fn completions_and_manual_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, stdout, _) = run(&["completions", shell]);
        assert!(code == 0 && stdout.contains("blf-host"));
    }
    let (code, stdout, _) = run(&["man"]);
    assert!(code == 0 && stdout.contains("Exit codes"), "{stdout}");
}
