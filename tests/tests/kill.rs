//! R1 with real processes and the booted image: `kill -9` of the VM, the host tool, the vsock daemon and the devnet while
//! a user asks. Three kills; `BLF_BOOT_KILLS=50 tests/boot kill` for more.
//!
//! `blf-host` and `blf-devnet` run as an operator runs them, each started again as a supervisor would when it ended.

use std::io::BufReader;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use blf_tests::network::profile;
use blf_tests::processes;
use serde_json::Value;

const KILLS: usize = 3;
/// How long a guest may take to boot and to be admitted.
const BOOT: Duration = Duration::from_secs(300);
/// How long what is killed, or what stands on it, may take to end.
const STOP: Duration = Duration::from_secs(60);
/// How long an ask may take to end, well or not.
const ASK: Duration = Duration::from_secs(240);

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Vm,
    Devnet,
    HostTool,
    Vsock,
}

/// A command that prints one JSON object a line.
struct Told {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    reader: Option<JoinHandle<()>>,
}

struct World {
    bin: PathBuf,
    image: PathBuf,
    model: PathBuf,
    dir: tempfile::TempDir,
    address: String,
    devnet: Told,
    host: Told,
}

impl Told {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::<Mutex<Vec<Value>>>::default();
        let out = BufReader::new(child.stdout.take().unwrap());
        let heard = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            // Notices are a line each, the answer is one object on several.
            for value in serde_json::Deserializer::from_reader(out).into_iter().map_while(Result::ok) {
                heard.lock().unwrap().push(value);
            }
        });
        Self { child, lines, reader: Some(reader) }
    }

    fn count(&self, is: impl Fn(&Value) -> bool) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| is(line)).count()
    }

    /// Waits for one more than the `seen` lines of a kind.
    fn wait(&mut self, what: &str, within: Duration, seen: usize, is: impl Fn(&Value) -> bool) {
        let until = Instant::now() + within;
        while self.count(&is) <= seen {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < until,
                "no {what}, {ended:?}: {:#?}",
                self.lines.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether it ends by itself within this time.
    fn ends(&mut self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        true
    }

    /// Waits for its end, within `within`, else kills it; gives what it printed.
    fn end(mut self, within: Duration) -> Vec<Value> {
        self.ends(within);
        drop(self.child.kill());
        drop(self.child.wait());
        self.reader.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl World {
    fn start() -> Self {
        let path = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("wanted {name}")));
        let (bin, image, model) = (path("BLF_BOOT_BIN"), path("BLF_BOOT_IMAGE"), path("BLF_BOOT_MODEL"));
        let dir = tempfile::tempdir().unwrap();
        // The same address after each restart.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let credentials = dir.path().join("credentials.json");
        let mut file = std::fs::OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600).open(&credentials).unwrap();
        serde_json::to_writer(file, &serde_json::json!({"pinning_token": "development", "v": 1})).unwrap();
        let devnet = devnet(&bin, &image, dir.path(), &address);
        let host = host(&bin, &image, &model, dir.path(), &address);
        Self { bin, image, model, dir, address, devnet, host }
    }

    fn network(&self) -> PathBuf {
        self.dir.path().join("network.json")
    }

    /// Starts again what has ended, and waits for the next heartbeat.
    fn supervise(&mut self) {
        let heartbeat = |line: &Value| line["notice"] == "guest" && line["event"]["event"] == "heartbeat";
        let mut seen = self.host.count(heartbeat);
        if self.devnet.child.try_wait().unwrap().is_some() {
            self.devnet = devnet(&self.bin, &self.image, self.dir.path(), &self.address);
        }
        self.devnet.wait("devnet", BOOT, 0, |line| line["event"] == "listening");
        if self.host.child.try_wait().unwrap().is_some() {
            self.host = host(&self.bin, &self.image, &self.model, self.dir.path(), &self.address);
            seen = 0;
        }
        self.host.wait("heartbeat", BOOT, seen, heartbeat);
    }

    fn ask(&self) -> Told {
        let mut ask = Command::new(self.bin.join("blf"));
        ask.args(["--json", "ask", "--wait-for-quorum", "200", "--timeout", "200", "--max-new-tokens", "8"]);
        Told::start(ask.arg("--network").arg(self.network()).arg("What survives?"))
    }

    /// The process to kill, while it runs.
    fn pid(&self, victim: Victim) -> Option<u32> {
        let below = |name: &str| {
            processes::below(self.host.child.id()).into_iter().find(|(_, is)| is.starts_with(name)).map(|(pid, _)| pid)
        };
        match victim {
            Victim::Vm => below("qemu"),
            Victim::Devnet => Some(self.devnet.child.id()),
            Victim::HostTool => Some(self.host.child.id()),
            // With the kernel's vhost-vsock there is none.
            Victim::Vsock => below("vhost-device-v"),
        }
    }
}

fn devnet(bin: &Path, image: &Path, dir: &Path, address: &str) -> Told {
    let mut devnet = Command::new(bin.join("blf-devnet"));
    devnet.args(["--json", "run", "--listen", address, "--commit-deadline", "40", "--reveal-deadline", "20"]);
    devnet.arg("--state").arg(dir.join("devnet")).arg("--manifest").arg(image.join("manifest.json"));
    Told::start(devnet.arg("--network").arg(dir.join("network.json")))
}

fn host(bin: &Path, image: &Path, model: &Path, dir: &Path, address: &str) -> Told {
    let mut host = Command::new(bin.join("blf-host"));
    host.args(["--json", "launch"]).arg("--image").arg(image).arg("--model").arg(model);
    host.arg("--credentials").arg(dir.join("credentials.json"));
    for to in profile().hosts() {
        host.arg("--resolve").arg(format!("{}:{}={address}", to.name, to.port));
    }
    Told::start(host.env("XDG_STATE_HOME", dir).env("XDG_RUNTIME_DIR", dir))
}

fn kill_nine(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn every_ask_ends_in_one_answer_or_one_failure_whoever_is_killed() {
    let kills = std::env::var("BLF_BOOT_KILLS").map_or(KILLS, |text| text.parse().expect("BLF_BOOT_KILLS: a number"));
    let mut world = World::start();
    world.supervise();
    let undisturbed = Instant::now();
    let report = world.ask().end(ASK);
    assert!(report.len() == 1 && report[0]["text"].is_string(), "{report:?}");
    let (took, text) = (undisturbed.elapsed(), report[0]["text"].clone());

    let (mut answers, mut failures, mut killed) = (0, 0, 0);
    let mut random = std::process::id();
    while killed < kills {
        let victim = [Victim::Vm, Victim::Devnet, Victim::HostTool, Victim::Vsock][killed % 4];
        let asked = world.ask();
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        std::thread::sleep(took.mul_f64(f64::from(random >> 16) / 65536.0));
        let started = processes::below(world.host.child.id());
        if let Some(pid) = world.pid(victim) {
            kill_nine(pid);
            match victim {
                // A host tool whose VM or vsock ended says why, stops the rest, and ends.
                Victim::Vm | Victim::Vsock => assert!(world.host.ends(STOP), "{victim:?}: the host tool goes on"),
                Victim::Devnet => assert!(world.devnet.ends(STOP), "the devnet goes on"),
                Victim::HostTool => {
                    assert!(world.host.ends(STOP), "the host tool goes on");
                    gone(&started);
                }
            }
        }
        killed += 1;
        let restarted = Instant::now();
        world.supervise();
        println!("{killed} {victim:?}: a heartbeat {:?} after the restart", restarted.elapsed());
        let ended = asked.end(ASK);
        assert_eq!(ended.len(), 1, "{victim:?}: wanted one answer or one failure: {ended:?}");
        if ended[0]["text"].is_string() {
            assert_eq!(ended[0]["text"], text, "{victim:?}: another answer");
            answers += 1;
        } else {
            let failure = &ended[0]["failure"];
            assert!(failure["code"].is_string() && failure["message"].is_string(), "{victim:?}: {failure}");
            println!("{victim:?}: {}: {}", failure["code"], failure["message"]);
            failures += 1;
        }
    }
    println!("{killed} kills: {answers} answers, {failures} failures");
}

/// What a killed host tool had started ends with it.
fn gone(left: &[(u32, String)]) {
    let until = Instant::now() + Duration::from_secs(10);
    let runs = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    while let Some((pid, name)) = left.iter().find(|(pid, _)| runs(pid)) {
        assert!(Instant::now() < until, "{name} ({pid}) outlived the host tool");
        std::thread::sleep(Duration::from_millis(100));
    }
}
