//! What a node costs, beside the published one: same devnet, same machine, same run, the same jobs with the `mock` model, which
//! leaves inference out. Ours speaks TLS, pins the answer and stores its key on the chain. The published one uploads nothing
//! and stores nothing; it is measured twice: as its authors test it, by plain HTTP, and behind a terminator of TLS 1.3.

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
use nix::time::ClockId;
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::version::TLS13;

use super::Net;

const JOBS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// What one leader took.
#[derive(Default)]
struct Cost {
    start: Duration,
    cpu: Duration,
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
    let [mut verifiers, mut leaders] =
        [[1, 2], [3, 4]].map(|keys: [u8; 2]| keys.map(|n| PythonNode::attested(&program, plain, &[n; 32])));
    verifiers.iter_mut().for_each(PythonNode::run);
    let ours = [(); 2].map(|()| Process::start(net.running.address));

    let wire = wire(net.running.address);
    let started = Instant::now();
    let node = Process::start(wire.0);
    let leader = Leader { address: node.address, pid: node.child.id(), started, wire: wire.1 };
    let our_cost = net.measure(&leader, &[node.address, ours[0].address, ours[1].address]);
    drop((node, ours));

    let (terminator, ca) = net.terminator(plain);
    let mut theirs = leaders.iter_mut().zip([("http", plain), ("https", terminator)]).map(|(node, (scheme, to))| {
        let wire = self::wire(to);
        node.reach(format!("{scheme}://localhost:{}", wire.0.port()));
        node.believe(&ca);
        let started = Instant::now();
        node.run();
        let leader = Leader { address: node.address, pid: node.pid(), started, wire: wire.1 };
        net.measure(&leader, &[node.address, verifiers[0].address, verifiers[1].address])
    });
    let (plain_cost, tls_cost) = (theirs.next().unwrap(), theirs.next().unwrap());
    drop(theirs);

    report([&our_cost, &plain_cost, &tls_cost]);
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

    /// An address at which TLS 1.3 ends, as before a server of the internet, on the way to `plain`; and the CA of its
    /// certificate.
    fn terminator(&self, plain: SocketAddr) -> (SocketAddr, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".into()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let config = ServerConfig::builder_with_protocol_versions(&[&TLS13])
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = self.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        self.runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut near = acceptor.accept(near).await?;
                    let mut far = tokio::net::TcpStream::connect(plain).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        (address, ca)
    }

    /// When the leader's result was there.
    fn submitted(&self, task: &str) -> Instant {
        let (wallet, path) = (&self.user.wallet, format!("/v1/inference/task/{task}"));
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let status: Value =
                self.runtime.block_on(wallet.send(&wallet.profile.icl, Method::GET, &path, String::new()));
            if !status["leader_submission"].is_null() {
                return Instant::now();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{task}: nothing submitted");
    }
}

/// Ours, the published one, the published one by TLS.
fn report(costs: [&Cost; 3]) {
    let jobs = JOBS as f64;
    println!("{JOBS} jobs, leader of a quorum of three of its kind");
    println!("{:<30} {:>10} {:>12} {:>9} {:>12} {:>9}", "", "blf", "published", "ratio", "by TLS", "ratio");
    let row = |what: &str, of: fn(&Cost) -> f64, per: f64| {
        let [ours, plain, tls] = costs.map(|cost| of(cost) / per);
        println!("{what:<30} {ours:>10.2} {plain:>12.1} {:>8.1}x {tls:>12.1} {:>8.1}x", plain / ours, tls / ours);
    };
    row("CPU per job, ms", |cost| cost.cpu.as_secs_f64() * 1e3, jobs);
    row("claim to submitted, ms", |cost| cost.wall.as_secs_f64() * 1e3, jobs);
    row("resident memory, MiB", |cost| cost.resident_kib as f64 / 1024.0, 1.0);
    row("start to first heartbeat, ms", |cost| cost.start.as_secs_f64() * 1e3, 1.0);
    row("bytes on the wire per job", |cost| cost.bytes as f64, jobs);
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

/// CPU time that a process used so far in all of its threads, to the nanosecond: `/proc` counts in ticks of 10 ms.
fn cpu(pid: u32) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.try_into().unwrap())).unwrap();
    clock.now().unwrap().into()
}

/// Resident memory in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
