//! A node without a VM: the agent's own vault, courier and engine, in threads.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use blf_agent::attester::Attester;
use blf_agent::clock::{self, Clock};
use blf_agent::courier::{self, Limits};
use blf_agent::engine::{self, EngineProcess};
use blf_agent::keys::Keys;
use blf_agent::release::HeldModel;
use blf_agent::tunnel::{Tunnel, TunnelError};
use blf_agent::vault::{Ended, Parts, Vault};
use blf_evidence::Address;
use blf_evidence::config::Credentials;
use blf_evidence::pack::{self, Header};
use blf_evidence::profile::{Host, NetworkProfile};
use blf_evidence::telemetry::Event;
use blf_host::model::Pack;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::network::Boot;
use crate::swtpm::SwTpm;

/// A running node.
pub struct Node {
    /// Its address.
    pub address: Address,
    /// Where its inbound streams arrive: what vsock port 5008 is in a VM.
    pub api: SocketAddr,
    /// Every byte between vault and courier, both ways: all that a courier ever gets from inside the guest.
    pub courier_saw: Arc<Mutex<Vec<u8>>>,
    /// Its telemetry so far.
    pub events: Arc<Mutex<Vec<Event>>>,
    vault: Arc<Vault>,
    courier: JoinHandle<()>,
    served: JoinHandle<Ended>,
    _tpm: SwTpm,
}

/// Gets a node's telemetry.
pub type Say = Arc<dyn Fn(&Event) + Send + Sync>;

/// Streams by TCP instead of vsock: what the host's forwarder does, without the host.
struct Tcp {
    devnet: SocketAddr,
    telemetry: SocketAddr,
    door: TcpListener,
}

impl Tunnel for Tcp {
    type Stream = TcpStream;

    async fn dial(&self, _: &Host) -> Result<TcpStream, TunnelError> {
        TcpStream::connect(self.devnet).await.map_err(|e| TunnelError::Io(e.kind()))
    }

    async fn telemetry(&self) -> Result<TcpStream, TunnelError> {
        TcpStream::connect(self.telemetry).await.map_err(|e| TunnelError::Io(e.kind()))
    }

    async fn inbound(&self) -> Result<TcpStream, TunnelError> {
        self.door.accept().await.map(|(stream, _)| stream).map_err(|e| TunnelError::Io(e.kind()))
    }
}

impl Node {
    /// Starts a node that booted `boot` and reaches the devnet at `devnet`; none where swtpm is missing.
    pub fn start(boot: &Boot, name: &str, devnet: SocketAddr) -> Option<Self> {
        let tpm = SwTpm::booted(&boot.log)?;
        let mut attester = Attester::Tpm(tpm.attester(&boot.log_file));
        let measurement = attester.measurement_id().unwrap();
        let (pack, header) = model_pack();
        let manifest = &header.manifest;
        let parts = Parts {
            profile: blf_agent::profile::network().unwrap(),
            config: format!(r#"{{"max_jobs":2,"name":"{name}","v":1}}"#),
            credentials: Credentials { pinning_token: "development".into(), rpc_path: None, v: 1 },
            endorsements: None,
            attester: Box::new(attester),
            measurement,
            models: vec![HeldModel {
                manifest_sha256: header.digest,
                id: manifest.id.clone(),
                max_new_tokens: manifest.max_new_tokens,
            }],
            numeric_profile: manifest.numeric_profile.clone(),
            engine: engine_process(pack),
            clock: Clock::new(clock::build_date(), clock::boottime),
            keys: Keys::generate().unwrap(),
        };
        let vault = Arc::new(Vault::new(parts).unwrap());
        let (served, socket, courier_saw) = serve(&vault);
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let door = door();
        let api = door.local_addr().unwrap();
        let courier = thread::spawn({
            let events = Arc::clone(&events);
            let say: Say = Arc::new(move |event| events.lock().unwrap().push(event.clone()));
            move || run_courier(socket, devnet, door, &blf_agent::profile::network().unwrap(), quick(), say)
        });
        Some(Self { address: vault.node(), api, courier_saw, events, vault, courier, served, _tpm: tpm })
    }

    /// Asks the node to drain and stop, and waits until it did.
    pub fn stop(self) -> Ended {
        self.vault.stop();
        let ended = self.served.join().unwrap();
        self.courier.join().unwrap();
        ended
    }
}

/// The committed model, packed by the operator's tool.
pub fn model_pack() -> (File, Header) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("pack");
    blf_host::model::pack(&Pack {
        id: "blf-tiny-1".into(),
        dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("models/blf-tiny-1"),
        out: out.clone(),
        max_context: None,
        max_new_tokens: None,
        eos: Vec::new(),
    })
    .unwrap();
    let header = pack::verify(&std::fs::read(&out).unwrap()).unwrap();
    (File::open(&out).unwrap(), header)
}

/// The engine's loop over `pack`, on the other end of the vault's socket.
pub fn engine_process(pack: File) -> Arc<EngineProcess> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || engine::serve(theirs, &pack, NonZeroUsize::MIN));
    let process = Arc::new(EngineProcess::default());
    process.attach(ours, Duration::from_secs(120)).unwrap();
    process
}

/// The vault's loop, and the courier's end of a socket on which every byte is recorded.
pub(crate) fn serve(vault: &Arc<Vault>) -> (JoinHandle<Ended>, UnixStream, Arc<Mutex<Vec<u8>>>) {
    let (vault_end, vault_tap) = UnixStream::pair().unwrap();
    let (courier_tap, courier_end) = UnixStream::pair().unwrap();
    let seen = Arc::<Mutex<Vec<u8>>>::default();
    for (mut from, mut to) in
        [(vault_tap.try_clone().unwrap(), courier_tap.try_clone().unwrap()), (courier_tap, vault_tap)]
    {
        let seen = Arc::clone(&seen);
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                seen.lock().unwrap().extend_from_slice(&buffer[..n]);
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
    let served = thread::spawn({
        let vault = Arc::clone(vault);
        move || vault.serve(vault_end)
    });
    (served, courier_end, seen)
}

/// Periods for tests.
pub fn quick() -> Limits {
    let mut limits = Limits::default();
    limits.timings.poll = Duration::from_millis(200);
    limits.timings.status = Duration::from_millis(100);
    limits.timings.evidence = Duration::from_millis(50);
    limits.timings.least = Duration::from_millis(100);
    limits.timings.readmit = Duration::from_secs(1);
    limits
}

/// Where inbound streams of a node without a VM arrive.
pub(crate) fn door() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

pub(crate) fn run_courier(
    socket: UnixStream,
    devnet: SocketAddr,
    door: std::net::TcpListener,
    profile: &NetworkProfile,
    limits: Limits,
    say: Say,
) {
    socket.set_nonblocking(true).unwrap();
    door.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = TcpListener::from_std(door).unwrap();
        let tunnel = Tcp { devnet, telemetry: listener.local_addr().unwrap(), door };
        let collect = tokio::spawn(collect(listener, say));
        let socket = tokio::net::UnixStream::from_std(socket).unwrap();
        courier::serve(socket, tunnel, profile, limits).await.unwrap();
        collect.abort();
    });
}

async fn collect(listener: TcpListener, say: Say) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            say(&Event::parse(line.as_bytes()).unwrap());
        }
    }
}
