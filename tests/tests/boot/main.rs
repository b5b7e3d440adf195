//! The built image, booted: one job through one node, one through three. `tests/boot` runs these.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use blf_tests::search::Needles;
use serde_json::Value;

/// What `tests/boot` prepared: the commands, the image and the model pack.
struct Prepared {
    bin: PathBuf,
    image: PathBuf,
    model: PathBuf,
}

/// `blf-host launch` on the embedded devnet.
struct Launched {
    host: Child,
    notices: Arc<Mutex<Vec<Value>>>,
    reader: JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Prepared {
    fn find() -> Self {
        let path = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("wanted {name}")));
        Self { bin: path("BLF_BOOT_BIN"), image: path("BLF_BOOT_IMAGE"), model: path("BLF_BOOT_MODEL") }
    }

    fn launch(&self, nodes: u8) -> Launched {
        let dir = tempfile::tempdir().unwrap();
        let mut host = Command::new(self.bin.join("blf-host"))
            .args(["--json", "launch", "--devnet", "--nodes", &nodes.to_string()])
            .arg("--image")
            .arg(&self.image)
            .arg("--model")
            .arg(&self.model)
            .env("XDG_STATE_HOME", dir.path())
            .env("XDG_RUNTIME_DIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let notices = Arc::<Mutex<Vec<Value>>>::default();
        let lines = BufReader::new(host.stdout.take().unwrap()).lines();
        let heard = Arc::clone(&notices);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Launched { host, notices, reader, dir }
    }

    fn ask(&self, launched: &Launched, prompt: &str, verifiers: u8) -> Value {
        let devnet = launched.wait("devnet", 1, Duration::from_secs(180));
        let output = Command::new(self.bin.join("blf"))
            .args(["--json", "ask", "--wait-for-quorum", "500", "--verifiers", &verifiers.to_string()])
            .arg("--network")
            .arg(devnet["network"].as_str().unwrap())
            .arg(prompt)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}\n{:#?}", launched.notices.lock().unwrap());
        serde_json::from_str(&text).unwrap()
    }
}

impl Launched {
    /// The `count`th notice of a kind.
    fn wait(&self, kind: &str, count: usize, within: Duration) -> Value {
        let until = Instant::now() + within;
        loop {
            let found = self.kind(kind);
            if found.len() >= count {
                return found[count - 1].clone();
            }
            assert!(Instant::now() < until, "no {kind} within {within:?}: {:#?}", self.notices.lock().unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn kind(&self, kind: &str) -> Vec<Value> {
        self.notices.lock().unwrap().iter().filter(|n| n["notice"] == kind).cloned().collect()
    }

    /// Ctrl-C; every node must drain and power off by itself.
    fn stop(mut self) -> Vec<Value> {
        let interrupted = Command::new("kill").args(["-INT", &self.host.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
        assert!(self.host.wait().unwrap().success());
        self.reader.join().unwrap();
        let notices = std::mem::take(&mut *self.notices.lock().unwrap());
        for stopped in notices.iter().filter(|n| n["notice"] == "stopped") {
            assert_eq!(stopped["orderly"], true, "{stopped}");
        }
        notices
    }

    /// The host tool and what it started, but for QEMU: a guest's memory is where plaintext may be.
    fn processes(&self) -> Vec<(u32, String)> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().map_while(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let Some((before, after)) = stat.rsplit_once(") ") else { continue };
            let name = before.split_once('(').unwrap().1.to_owned();
            let parent: u32 = after.split(' ').nth(1).unwrap().parse().unwrap();
            all.push((pid, name, parent));
        }
        let mut ours = vec![(self.host.id(), "blf-host".to_owned())];
        let mut at = 0;
        while let Some((parent, _)) = ours.get(at).cloned() {
            ours.extend(all.iter().filter(|p| p.2 == parent).map(|p| (p.0, p.1.clone())));
            at += 1;
        }
        ours.retain(|(_, name)| !name.starts_with("qemu"));
        ours
    }
}

#[test]
fn one_node_in_the_booted_image_answers_and_the_host_never_holds_the_text() {
    let prepared = Prepared::find();
    let launched = prepared.launch(1);
    let marker = format!("What is blf? {}", blf_evidence::Hex(*blf_bridge::Key::random().unwrap().expose()));
    let report = prepared.ask(&launched, &marker, 0);
    assert_eq!(report["tier"], 0, "QEMU beside an emulated TPM is tier 0");
    let text = report["text"].as_str().unwrap();
    assert!(!text.is_empty());
    assert_eq!(launched.kind("appraised").len(), 1);
    assert!(launched.kind("check").iter().all(|c| c["ok"] == true));

    let needles = Needles::new(&[marker.as_bytes(), text.as_bytes()]);
    // The search must find what is there before it may say that nothing is: in this process, and in a file.
    assert!(needles.found_in_process(std::process::id()).unwrap(), "the marker in our own memory was not found");
    let planted = tempfile::tempdir().unwrap();
    std::fs::write(planted.path().join("leak"), &marker).unwrap();
    assert!(needles.found_below(planted.path()).unwrap().is_some(), "the planted file was not found");
    // And in each process searched, what it does hold: the name of the job, which is public.
    let job = report["job_id"].as_str().unwrap();
    let public = Needles::new(&[job.as_bytes()]);
    assert!(public.found_in_process(launched.host.id()).unwrap(), "blf-host does not even hold the public job id");

    let processes = launched.processes();
    assert!(processes.len() >= 2, "{processes:?}");
    for (pid, name) in processes {
        assert!(!needles.found_in_process(pid).unwrap(), "{name} holds plaintext");
    }
    let dir = launched.dir.path().to_path_buf();
    assert_eq!(needles.found_below(&dir).unwrap(), None::<PathBuf>, "a file of the host holds plaintext");
    assert!(files(&dir) > 0, "no file was searched");
    let notices = serde_json::to_vec(&launched.stop()).unwrap();
    assert!(!needles.found_in(&notices), "the host tool printed plaintext");
}

#[test]
fn three_nodes_in_the_booted_image_agree() {
    let prepared = Prepared::find();
    let launched = prepared.launch(3);
    let report = prepared.ask(&launched, "What does blf protect?", 2);
    let quorum = report["quorum"].as_array().unwrap();
    assert_eq!(quorum.len(), 3);
    assert!(quorum.iter().any(|m| m["verdict"] == "CONFIRM"), "{quorum:?}");
    assert!(quorum.iter().all(|m| m["verdict"] != "REJECT"), "{quorum:?}");
    let measurements: std::collections::BTreeSet<_> = quorum.iter().map(|m| m["measurement"].to_string()).collect();
    assert_eq!(measurements.len(), 1, "one image, one measurement");
    launched.stop();
}

fn files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map_while(Result::ok);
    entries
        .map(|e| match e.file_type() {
            Ok(kind) if kind.is_dir() => files(&e.path()),
            Ok(kind) if kind.is_file() => 1,
            _ => 0,
        })
        .sum()
}
