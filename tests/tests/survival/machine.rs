//! A node that can be killed: the agent's own vault and courier, beside an engine that all machines share.
//!
//! A kill drops the courier where it stands and hangs up on the vault, which nobody can reach any more. What the courier
//! could ever have sent outside came from the vault's replies, and those are all written down.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use blf_agent::attester::AttestError;
use blf_agent::clock::{self, Clock};
use blf_agent::courier::{self, Limits};
use blf_agent::engine::Engine;
use blf_agent::frames::{self, FromVault, HEADER, ToVault};
use blf_agent::keys::Keys;
use blf_agent::release::HeldModel;
use blf_agent::vault::{AttestingEnvironment, Parts, Vault};
use blf_appraisal::Expectations;
use blf_devnet::{Appraiser, Reason, Verdict};
use blf_evidence::bundle::{Evidence, Platform, TdxEvidence};
use blf_evidence::config::Credentials;
use blf_evidence::eip191::{Signature, address};
use blf_evidence::pack::Header;
use blf_evidence::statement::{Binding, Purpose, Statement};
use blf_evidence::telemetry::{Event, JobState};
use blf_evidence::{Address, Base64, Hex, UnixTime};
use blf_tests::network::profile;
use k256::ecdsa::SigningKey;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::fuse::{Fuse, Fused, Tcp};

/// What every machine measured.
pub(crate) const MEASUREMENT: &str = "tdx:survival";

/// A platform whose quote is a signature by a key that the coordinator's appraiser knows.
pub(crate) struct Peer(SigningKey);

/// Something that a vault signed or committed to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Said {
    Commit,
    Result,
    Verdict,
}

/// All that left any vault, by job and node, in order.
pub(crate) type Record = Arc<Mutex<HashMap<(Hex<32>, Address), Vec<Said>>>>;

/// What machines are made of.
#[derive(Clone)]
pub(crate) struct Kit {
    pub(crate) devnet: SocketAddr,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) model: Arc<Header>,
    pub(crate) record: Record,
}

/// A running node.
pub(crate) struct Machine {
    pub(crate) vault: Arc<Vault>,
    /// Through which its bytes to the network go.
    pub(crate) network: Arc<Fuse>,
    /// Through which the bytes between courier and vault go.
    pub(crate) inside: Arc<Fuse>,
    /// How long it took from the first key to the certificate.
    pub(crate) ready: Duration,
    events: Arc<Mutex<Vec<Event>>>,
    tasks: Vec<JoinHandle<()>>,
    hang_up: UnixStream,
}

impl Peer {
    pub(crate) fn new() -> Self {
        Self(SigningKey::from_slice(&[7; 32]).unwrap())
    }
}

impl AttestingEnvironment for Peer {
    fn platform(&self) -> &'static str {
        "tdx"
    }

    fn attest(&mut self, statement: &Statement) -> Result<Platform, AttestError> {
        let quote = Base64(Signature::sign(&self.0, &statement.0.0).0.to_vec());
        Ok(Platform::Tdx(TdxEvidence { quote, event_log: None }))
    }

    fn measurement_id(&mut self) -> Result<String, AttestError> {
        Ok(MEASUREMENT.into())
    }
}

impl Appraiser for Peer {
    fn appraise(&self, evidence: &Evidence, expected: &Expectations, _: UnixTime) -> Result<Verdict, Reason> {
        let refused = |detail: &str| Reason { code: "NOT_WANTED".into(), detail: detail.into() };
        let Platform::Tdx(tdx) = &evidence.platform else { return Err(refused("platform: wanted tdx")) };
        let binding = Binding::parse(evidence.binding.as_bytes()).map_err(|e| refused(&e.to_string()))?;
        let statement = Statement::new(binding.keys.node, evidence.binding.as_bytes());
        let quote = tdx.quote.0.as_slice().try_into().map(Signature).map_err(|_| refused("quote: wanted 65 bytes"))?;
        quote.verify(&statement.0.0, address(self.0.verifying_key())).map_err(|e| refused(&e.to_string()))?;
        let asked = (&expected.audience, expected.nonce, expected.purpose);
        if (&binding.audience, binding.nonce, binding.purpose) != asked {
            return Err(refused("binding: wanted the audience, nonce and purpose that were asked for"));
        }
        Ok(Verdict { measurement: MEASUREMENT.into(), tier: 0, expires_at: binding.not_after })
    }
}

impl Machine {
    /// Boots a node with new keys and waits until it is admitted.
    pub(crate) async fn boot(kit: &Kit) -> Self {
        let manifest = &kit.model.manifest;
        let parts = Parts {
            profile: profile(),
            config: r#"{"max_jobs":2,"name":"survivor","v":1}"#.into(),
            credentials: Credentials { pinning_token: "development".into(), rpc_path: None, v: 1 },
            endorsements: None,
            attester: Box::new(Peer::new()),
            measurement: MEASUREMENT.into(),
            models: vec![HeldModel {
                manifest_sha256: kit.model.digest,
                id: manifest.id.clone(),
                max_new_tokens: manifest.max_new_tokens,
            }],
            numeric_profile: manifest.numeric_profile.clone(),
            engine: Arc::clone(&kit.engine),
            clock: Clock::new(clock::build_date(), clock::boottime),
            keys: Keys::generate().unwrap(),
        };
        Self::start(kit, Arc::new(Vault::new(parts).unwrap())).await
    }

    /// A new courier for a vault whose courier was killed.
    pub(crate) async fn start(kit: &Kit, vault: Arc<Vault>) -> Self {
        let begun = Instant::now();
        let (network, inside) = <(Arc<Fuse>, Arc<Fuse>)>::default();
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let (far, near) = UnixStream::pair().unwrap();
        let hang_up = far.try_clone().unwrap();
        let serving = Arc::clone(&vault);
        thread::spawn(move || serving.serve(far));
        near.set_nonblocking(true).unwrap();
        let near = tokio::net::UnixStream::from_std(near).unwrap();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let theirs = Fused { stream: theirs, fuse: Arc::clone(&inside) };

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tunnel = Tcp { devnet: kit.devnet, telemetry: listener.local_addr().unwrap(), fuse: Arc::clone(&network) };
        let mut limits = Limits::default();
        limits.timings.poll = Duration::from_millis(400);
        limits.timings.status = Duration::from_millis(100);
        limits.timings.least = Duration::from_millis(100);
        limits.timings.most = Duration::from_secs(2);
        limits.timings.most_probe = Duration::from_secs(1);
        limits.timings.step = Duration::from_millis(500);
        limits.timings.readmit = Duration::from_secs(1);
        let tasks = vec![
            tokio::spawn(carry(near, ours, vault.node(), Arc::clone(&kit.record))),
            tokio::spawn(collect(listener, Arc::clone(&events))),
            tokio::spawn(async move { drop(courier::serve(theirs, tunnel, &profile(), limits).await) }),
        ];
        let mut machine = Self { vault, network, inside, ready: Duration::ZERO, events, tasks, hang_up };
        machine.certified().await;
        machine.ready = begun.elapsed();
        machine
    }

    async fn certified(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.events.lock().unwrap().iter().any(|e| matches!(e, Event::Certified { .. })) {
            assert!(Instant::now() < until, "not admitted: {:?}", self.events.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How far this node came with a job: none before the claim.
    pub(crate) fn state(&self, job: Hex<32>) -> Option<JobState> {
        let events = self.events.lock().unwrap();
        events.iter().rev().find_map(|event| match event {
            Event::Job { job: of, state, .. } if *of == job => Some(*state),
            _ => None,
        })
    }

    /// Waits until this node has come so far with a job.
    pub(crate) async fn reached(&self, job: Hex<32>, wanted: Option<JobState>) {
        let said = |wanted| {
            let events = self.events.lock().unwrap();
            events
                .iter()
                .any(|event| matches!(event, Event::Job { job: of, state, .. } if *of == job && *state == wanted))
        };
        while !wanted.is_none_or(said) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The node's certified HPKE key.
    pub(crate) fn hpke(&self) -> Hex<32> {
        let audience = self.vault.node().to_string();
        let ask = ToVault::Attest { purpose: Purpose::Preview, audience, nonce: Hex([1; 32]) };
        let FromVault::Evidence(text) = self.vault.handle(ask) else { panic!("no evidence") };
        let evidence = Evidence::parse(text.as_bytes()).unwrap();
        Binding::parse(evidence.binding.as_bytes()).unwrap().keys.hpke
    }

    /// Ends it where it stands; the vault can be reached no more, unless by another courier.
    pub(crate) async fn kill(self) -> Arc<Vault> {
        self.network.blow();
        self.inside.blow();
        drop(self.hang_up.shutdown(std::net::Shutdown::Both));
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            drop(task.await); // aborted, or over already
        }
        self.vault
    }
}

/// Carries frames between the vault and its courier, and writes down what the vault said.
async fn carry(vault: tokio::net::UnixStream, courier: tokio::io::DuplexStream, node: Address, record: Record) {
    let (mut from_vault, mut to_vault) = vault.into_split();
    let (mut from_courier, mut to_courier) = tokio::io::split(courier);
    let runs = Mutex::<HashMap<u32, Hex<32>>>::default();
    let asked = async {
        while let Some((id, frame)) = frame(&mut from_courier).await {
            if let Ok(ToVault::Run { context, .. }) = frames::decode(&frame[HEADER..]) {
                let context: blf_evidence::job::JobContext = serde_json::from_str(&context).unwrap();
                runs.lock().unwrap().insert(id, context.job_id);
            }
            if to_vault.write_all(&frame).await.is_err() {
                return;
            }
        }
    };
    let answered = async {
        while let Some((id, frame)) = frame(&mut from_vault).await {
            let said = match frames::decode(&frame[HEADER..]) {
                Ok(FromVault::Committed { .. }) => Some((runs.lock().unwrap()[&id], Said::Commit)),
                Ok(FromVault::Leader(result)) => Some((result.job_id, Said::Result)),
                Ok(FromVault::Verifier(verdict)) => Some((verdict.job_id, Said::Verdict)),
                _ => None,
            };
            if let Some((job, said)) = said {
                record.lock().unwrap().entry((job, node)).or_default().push(said);
            }
            if to_courier.write_all(&frame).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asked => {}
        () = answered => {}
    }
}

/// One whole frame with its header.
async fn frame(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<(u32, Vec<u8>)> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await.ok()?;
    let (id, length) = frames::parse_header(header).ok()?;
    let mut frame = header.to_vec();
    frame.resize(HEADER + length, 0);
    stream.read_exact(&mut frame[HEADER..]).await.ok()?;
    Some((id, frame))
}

async fn collect(listener: TcpListener, events: Arc<Mutex<Vec<Event>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            events.lock().unwrap().push(Event::parse(line.as_bytes()).unwrap());
        }
    }
}
