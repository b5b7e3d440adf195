//! The published Python node, `blindference-node` 0.3.5, unchanged, in processes of its own.
//!
//! `host-tools/install --tests` puts it into blf's cache. A program called `nvidia-smi` that answers for a GPU goes before
//! everything else in `PATH`, because `init` ends without one.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use blf_evidence::Address;
use tempfile::TempDir;

/// The version whose behaviour `protocol.md` of the network describes.
pub const VERSION: &str = "0.3.5";
/// In a node's folder: the TLS roots it believes.
const ROOTS: &str = "roots.pem";

/// The installed program, or `None` and a line that says so.
pub fn installed(test: &str) -> Option<PathBuf> {
    let program = cache().join(format!("python-node-{VERSION}/bin/blindference-node"));
    if program.exists() {
        return Some(program);
    }
    let line = format!("skipped: {test}: wanted blindference-node {VERSION} from host-tools/install --tests\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    None
}

/// A folder with a node that was set up and attested, and maybe runs.
pub struct PythonNode {
    /// Its address.
    pub address: Address,
    program: PathBuf,
    dir: TempDir,
    /// Scheme, host and port of every service.
    origin: String,
    running: Option<Child>,
}

impl PythonNode {
    /// `init` and `attest --mock` at the devnet that answers at `devnet`.
    pub fn attested(program: &Path, devnet: SocketAddr, private_key: &[u8; 32]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gpu = dir.path().join("nvidia-smi");
        fs::write(&gpu, "#!/bin/sh\necho 'Imagined GPU, 4096 MiB'\n").unwrap();
        fs::set_permissions(&gpu, fs::Permissions::from_mode(0o755)).unwrap();
        let (address, program, origin) = (Address([0; 20]), program.to_owned(), format!("http://{devnet}"));
        let mut node = Self { address, program, dir, origin, running: None };
        let key = format!("0x{}", blf_evidence::Hex(*private_key).to_string().trim_start_matches("0x"));
        node.finish(node.command("init").env("BLF_PRIVATE_KEY", key), "init");
        node.finish(node.command("attest").arg("--mock"), "attest");
        let config: serde_json::Value = serde_json::from_slice(&fs::read(node.path("config.json")).unwrap()).unwrap();
        node.address = config["node_address"].as_str().unwrap().parse().unwrap();
        node
    }

    /// Speaks to `origin` (`http://…`, `https://…`) from now on.
    pub fn reach(&mut self, origin: String) {
        self.origin = origin;
    }

    /// Believes TLS servers of this CA (PEM) and no other.
    pub fn believe(&self, ca: &str) {
        fs::write(self.path(ROOTS), ca).unwrap();
    }

    /// `run`, until dropped.
    pub fn run(&mut self) {
        let log = File::create(self.path("run.log")).unwrap();
        let child = self.command("run").stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.running = Some(child);
    }

    /// The running process.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().id()
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("run.log")).unwrap_or_default()
    }

    /// Waits until it says `line`.
    pub fn wait_for(&self, line: &str, within: Duration) {
        let start = Instant::now();
        while !self.log().contains(line) {
            assert!(start.elapsed() < within, "wanted {line:?}, got:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, what: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(&self.program);
        command
            .arg(what)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", format!("{}:{path}", self.dir.path().display()))
            .env("HOME", self.dir.path())
            .env("BLF_KEY_PASSWORD", "a test")
            .env("BLF_ICL_ENDPOINT", &self.origin)
            .env("BLF_IPFS_GATEWAY", &self.origin)
            .env("BLF_PAYMENT_SERVICE_URL", &self.origin)
            .env("BLF_COFHE_MODE", "python")
            .env("BLF_COFHE_ENDPOINT", format!("{}/cofhe", self.origin))
            // The roots of its two HTTP clients.
            .env("SSL_CERT_FILE", self.path(ROOTS))
            .env("REQUESTS_CA_BUNDLE", self.path(ROOTS));
        command
    }

    fn finish(&self, command: &mut Command, what: &str) {
        let output = command.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
    }
}

impl Drop for PythonNode {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn cache() -> PathBuf {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    var("BLF_CACHE").unwrap_or_else(|| {
        var("XDG_CACHE_HOME").unwrap_or_else(|| var("HOME").unwrap_or_default().join(".cache")).join("blf")
    })
}
