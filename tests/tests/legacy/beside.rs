//! What a node costs, beside the published one: same devnet, same machine, same run, the same jobs with the `mock` model, which
//! leaves inference out. Ours speaks TLS, pins the answer and stores its key on the chain; the published one, set up as
//! its authors test it, speaks plain HTTP, uploads nothing and stores nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use blf_devnet::EventKind;
use blf_evidence::Address;
use blf_tests::python::{PythonNode, installed};
use hyper::Method;
use serde_json::Value;

use super::Net;

const JOBS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(120);
/// Clock ticks in a second, as `/proc` counts CPU time (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// What one leader took.
#[derive(Default)]
struct Cost {
    start: Duration,
    cpu: f64,
    wall: Duration,
    resident_kib: u64,
    bytes: u64,
}

/// A process and the wire it speaks on.
struct Leader {
    address: Address,
    pid: u32,
    started: Instant,
    wire: Arc<AtomicU64>,
}

#[test]
#[ignore = "measures; tests/beside-python runs it"]
fn beside_the_published_node() {
    let Some(program) = installed("legacy::beside::beside_the_published_node") else { return };
    let net = Net::start(0, |_| ());
    let plain = net.running.plain.unwrap();

    // Two verifiers of each kind, then the leaders that are measured, each behind a wire of its own.
    let mut published: Vec<_> = (1..=3u8).map(|n| PythonNode::attested(&program, plain, &[n; 32])).collect();
    let mut ours: Vec<_> = (0..2).map(|_| Process::start(net.running.address)).collect();
    published[1].run();
    published[2].run();
    let theirs = published.iter().map(|node| node.address).collect::<Vec<_>>();

    let wire = wire(net.running.address);
    let started = Instant::now();
    ours.insert(0, Process::start(wire.0));
    let leader = Leader { address: ours[0].address, pid: ours[0].child.id(), started, wire: wire.1 };
    let our_cost = net.measure(&leader, &[ours[0].address, ours[1].address, ours[2].address]);

    let wire = self::wire(plain);
    published[0].reach(wire.0);
    let started = Instant::now();
    published[0].run();
    let leader = Leader { address: theirs[0], pid: published[0].pid(), started, wire: wire.1 };
    let their_cost = net.measure(&leader, &theirs);

    report(&our_cost, &their_cost);
    drop(ours);
    net.end();
}

impl Net {
    /// Waits for the leader's first heartbeat, then has it lead jobs.
    fn measure(&self, leader: &Leader, quorum: &[Address]) -> Cost {
        let mut events = self.running.events();
        let mut cost = Cost::default();
        let mut until = |what: &dyn Fn(&EventKind) -> bool| {
            let waiting = async {
                loop {
                    if let Ok(event) = events.recv().await
                        && what(&event.kind)
                    {
                        return Instant::now();
                    }
                }
            };
            self.runtime.block_on(async { tokio::time::timeout(PATIENCE, waiting).await }).unwrap()
        };
        let beat = until(&|event| matches!(event, EventKind::Heartbeat { node, .. } if *node == leader.address));
        cost.start = beat - leader.started;
        for _ in 0..JOBS {
            let task = self.runtime.block_on(self.user.submit("mock", quorum));
            let claimed = until(
                &|event| matches!(event, EventKind::LegacyClaimed { node, job } if *node == leader.address && *job == task),
            );
            let (cpu, bytes) = (cpu(leader.pid), leader.wire.load(Ordering::Relaxed));
            let submitted = self.submitted(&task);
            cost.wall += submitted - claimed;
            cost.cpu += self::cpu(leader.pid) - cpu;
            cost.bytes += leader.wire.load(Ordering::Relaxed) - bytes;
        }
        cost.resident_kib = resident(leader.pid);
        cost
    }

    /// When the leader's result was there.
    fn submitted(&self, task: &str) -> Instant {
        let (icl, path) = (&self.user.profile.icl, format!("/v1/inference/task/{task}"));
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let status: Value = self.runtime.block_on(self.user.send(icl, Method::GET, &path, String::new()));
            if !status["leader_submission"].is_null() {
                return Instant::now();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{task}: nothing submitted");
    }
}

fn report(ours: &Cost, theirs: &Cost) {
    let jobs = JOBS as f64;
    println!("{JOBS} jobs, leader of a quorum of three of its kind");
    println!("{:<34} {:>12} {:>12} {:>10}", "", "blf", "published", "ratio");
    let row = |what: &str, ours: f64, theirs: f64| {
        println!("{what:<34} {ours:>12.1} {theirs:>12.1} {:>9.1}x", theirs / ours);
    };
    row("CPU per job, ms", ours.cpu * 1e3 / jobs, theirs.cpu * 1e3 / jobs);
    row("claim to submitted, ms", ours.wall.as_secs_f64() * 1e3 / jobs, theirs.wall.as_secs_f64() * 1e3 / jobs);
    row("resident memory, MiB", ours.resident_kib as f64 / 1024.0, theirs.resident_kib as f64 / 1024.0);
    row("start to first heartbeat, ms", ours.start.as_secs_f64() * 1e3, theirs.start.as_secs_f64() * 1e3);
    row("bytes on the wire per job", ours.bytes as f64 / jobs, theirs.bytes as f64 / jobs);
}

/// `blf-legacy-node`, until dropped.
struct Process {
    address: Address,
    child: Child,
}

impl Process {
    fn start(devnet: SocketAddr) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_blf-legacy-node"))
            .args(["--devnet", &devnet.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
        Self { address: line.trim().parse().unwrap(), child }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that leads to `to`, and the bytes that went either way.
fn wire(to: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bytes = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&bytes);
    std::thread::spawn(move || {
        while let Ok((near, _)) = listener.accept() {
            let Ok(far) = TcpStream::connect(to) else { continue };
            let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
            for (mut from, mut to) in [(near, far), back] {
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || {
                    let mut buffer = [0; 16 * 1024];
                    while let Ok(n @ 1..) = from.read(&mut buffer) {
                        counted.fetch_add(n as u64, Ordering::Relaxed);
                        if to.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (address, bytes)
}

/// Seconds of CPU time that a process used so far, in user and system mode (proc(5), fields 14 and 15 of `stat`).
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
    (ticks(14) + ticks(15)) / TICKS
}

/// Resident memory in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
