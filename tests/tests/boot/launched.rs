//! `blf-host launch` and `blf ask`, as their users start them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use blf_tests::processes;
use serde_json::Value;

use crate::tap::Tap;

/// What `tests/boot` prepared: the commands, the image and the model pack.
pub(crate) struct Prepared {
    pub(crate) bin: PathBuf,
    pub(crate) image: PathBuf,
    pub(crate) model: PathBuf,
}

/// A process that does not outlive its test.
pub(crate) struct Host(Child);

/// `blf-host launch` on the embedded devnet.
pub(crate) struct Launched {
    pub(crate) host: Host,
    notices: Arc<Mutex<Vec<Value>>>,
    reader: JoinHandle<()>,
    /// Everything the host tools may write is below it.
    pub(crate) dir: tempfile::TempDir,
}

impl Prepared {
    pub(crate) fn find() -> Self {
        let path = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("wanted {name}")));
        Self { bin: path("BLF_BOOT_BIN"), image: path("BLF_BOOT_IMAGE"), model: path("BLF_BOOT_MODEL") }
    }

    pub(crate) fn launch(&self, nodes: u8) -> Launched {
        self.start(nodes, tempfile::tempdir().unwrap(), |host| {
            host.args(["--api", "127.0.0.1:0"]);
        })
    }

    /// One node whose host says everything it can, with every byte between them recorded in `tap`.
    pub(crate) fn launch_tapped(&self, tap: &Tap) -> Launched {
        let dir = tempfile::tempdir().unwrap();
        let (run, log) = (tap.run_dir(), File::create(dir.path().join("log")).unwrap());
        self.start(1, dir, |host| {
            host.args(["--log", "stderr", "--stop-timeout", "300"]).arg("--run-dir").arg(run);
            host.env("PATH", tap.path()).env("BLF_CACHE", blf_host::folders::cache()).stderr(log);
        })
    }

    fn start(&self, nodes: u8, dir: tempfile::TempDir, prepare: impl FnOnce(&mut Command)) -> Launched {
        let mut command = Command::new(self.bin.join("blf-host"));
        command
            .args(["--json", "launch", "--devnet", "--nodes", &nodes.to_string()])
            .arg("--image")
            .arg(&self.image)
            .arg("--model")
            .arg(&self.model)
            .env("XDG_STATE_HOME", dir.path())
            .env("XDG_RUNTIME_DIR", dir.path())
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        prepare(&mut command);
        let mut host = command.spawn().unwrap();
        let notices = Arc::<Mutex<Vec<Value>>>::default();
        let lines = BufReader::new(host.stdout.take().unwrap()).lines();
        let heard = Arc::clone(&notices);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Launched { host: Host(host), notices, reader, dir }
    }

    /// One prompt and what `blf ask` reports; its failure, with the notices so far, where it reports one.
    pub(crate) fn ask(&self, launched: &Launched, prompt: &str, verifiers: u8) -> Result<Value, String> {
        let mut ask = Command::new(self.bin.join("blf"))
            .args(["--json", "ask", "--wait-for-quorum", "500", "--verifiers", &verifiers.to_string()])
            .arg("--network")
            .arg(launched.network())
            .arg("-")
            .env("XDG_STATE_HOME", launched.dir.path())
            .env("TMPDIR", launched.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        ask.stdin.take().unwrap().write_all(prompt.as_bytes()).unwrap();
        let output = ask.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            return Ok(serde_json::from_str(&text).unwrap());
        }
        Err(format!("{text}\n{:#?}", launched.notices.lock().unwrap()))
    }

    /// What `blf verify` says of a node that is asked directly, through its host.
    pub(crate) fn verify(&self, launched: &Launched, address: &str) -> Value {
        let mut verify = Command::new(self.bin.join("blf"));
        verify.args(["--json", "verify", &format!("https://{address}"), "--network"]).arg(launched.network());
        serde_json::from_slice(&verify.output().unwrap().stdout).unwrap()
    }
}

impl Host {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What it started ends with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Launched {
    /// The document by which users find the network.
    pub(crate) fn network(&self) -> PathBuf {
        let devnet = self.wait("devnet", 1, Duration::from_secs(180));
        PathBuf::from(devnet["network"].as_str().unwrap())
    }

    /// The `count`th notice of a kind.
    pub(crate) fn wait(&self, kind: &str, count: usize, within: Duration) -> Value {
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

    pub(crate) fn kind(&self, kind: &str) -> Vec<Value> {
        self.notices.lock().unwrap().iter().filter(|n| n["notice"] == kind).cloned().collect()
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let interrupted = Command::new("kill").args(["-INT", &self.host.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
    }

    /// Ctrl-C; every node must drain and power off by itself.
    pub(crate) fn stop(self) -> Vec<Value> {
        self.interrupt();
        self.stopped().0
    }

    /// Waits for an end in order; gives every notice, and the folder with what is left behind.
    pub(crate) fn stopped(mut self) -> (Vec<Value>, tempfile::TempDir) {
        assert!(self.host.0.wait().unwrap().success());
        self.reader.join().unwrap();
        let notices = std::mem::take(&mut *self.notices.lock().unwrap());
        for stopped in notices.iter().filter(|n| n["notice"] == "stopped") {
            assert_eq!(stopped["orderly"], true, "{stopped}");
        }
        (notices, self.dir)
    }

    /// The host tool and what it started.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let mut ours = vec![(self.host.id(), "blf-host".to_owned())];
        ours.extend(processes::below(self.host.id()));
        ours
    }
}
