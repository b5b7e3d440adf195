//! A local network for a launched node to live in: the coordinator (ICL) and a blob store, each a peer with its own keys,
//! all of them development keys that are published on purpose. Two [modes](Mode): `strict`, for nodes that prove what they
//! run, and `legacy`, which is spoken to as the network's coordinator is today.
//!
//! ```text
//! strict: time → challenge → enrolment (credential activation) → evidence, appraised → certificate
//!      → poll: assignments and users' nonces → claim → commit → reveal → accepted or rejected
//! user: quorum preview → evidence on demand → submit → status;   blobs: pin → get
//! legacy: challenge → certificate → poll → claim → result, verdicts → accepted or rejected → rewards
//! ```
//!
//! Coordinator and blob store never hold a key to a prompt or an answer, only sealed blobs, sealed shares and commitments;
//! [CoFHE](cofhe), in clear mode, holds whatever is stored on the [chain].

#![forbid(unsafe_code)]

mod admission;
mod appraiser;
mod auth;
mod blobs;
pub mod chain;
mod cid;
pub mod cli;
pub mod cofhe;
pub mod development;
mod event;
mod job;
mod jobs;
mod legacy;
mod limit;
mod peer;
mod refusal;
mod relay;
mod routes;
mod server;
mod state;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use blf_evidence::UnixTime;
use blf_evidence::network::{AkRoot, ModelName, Network, Resolve};
use blf_evidence::profile::{Host, NetworkProfile};
use k256::ecdsa::SigningKey;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub use appraiser::{Appraisal, Appraiser, Reason, Verdict};
pub use blobs::BLOB_CAP;
pub use event::{Event, EventKind};
pub use job::{Deadlines, commit, quorum};
pub use legacy::{Accept, Fault, Faults, LegacyOptions};
pub use limit::Rate;

use crate::chain::Chain;
use crate::cofhe::Cofhe;
use crate::development::Authority;
use crate::routes::Routes;
use crate::state::State;

/// The time of a devnet, an argument so that tests can move it.
pub type Clock = Arc<dyn Fn() -> UnixTime + Send + Sync>;

/// Events kept for a listener that is slow.
const EVENTS: usize = 1024;
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(500);

/// What the coordinator of a devnet is.
#[derive(Clone)]
pub enum Mode {
    /// It admits nodes by their evidence, of which this decides.
    Strict(Arc<dyn Appraiser>),
    /// It does as the network's coordinator does today, payment service included.
    Legacy(LegacyOptions),
}

/// How a devnet is to be. [`Options::new`] and [`Options::legacy`] give the usual ones.
pub struct Options {
    /// Where to listen; port 0 takes a free one. All peers share the listener and are told apart by name.
    pub listen: SocketAddr,
    /// The SQLite database, made if missing; `None` keeps everything in memory.
    pub state: Option<PathBuf>,
    /// Names of the peers, and the chain's contracts.
    pub profile: NetworkProfile,
    /// What its coordinator is.
    pub mode: Mode,
    /// Verifiers of a strict quorum preview that does not say; 0 is a devnet quorum of one: nobody checks the leader.
    pub verifier_count: usize,
    /// Deadlines of a strict job's parts.
    pub deadlines: Deadlines,
    /// Longest life of a node's certificate, in seconds, at most 24 h.
    pub certificate_life: u64,
    /// Bearer token of the pinning service.
    pub pinning_token: String,
    /// Path with query at which the chain's RPC answers over TLS; public ones want a key in it.
    pub rpc_path: String,
    /// How often one signer may ask a strict ICL.
    pub rate: Rate,
    /// How often one network address may ask; all nodes of a host share theirs.
    pub peer_rate: Rate,
    /// How long a TLS handshake may take, and how long a connection may be silent before a request.
    pub patience: Duration,
    /// Certificate and PKCS #8 key (PEM) of the CA for the server certificates; the development CA.
    pub tls_authority: (String, String),
    /// The time.
    pub clock: Clock,
}

/// Why a devnet does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A certificate cannot be issued.
    #[error("issue a certificate: {0}")]
    Issue(rcgen::Error),
    /// A key, certificate or date cannot be used.
    #[error("development pki: {0}: cannot be used")]
    Key(&'static str),
    /// The profile cannot be read.
    #[error("{0}")]
    Profile(String),
    /// The system gives no random bytes.
    #[error("random bytes: {0}")]
    Random(getrandom::Error),
    /// The database cannot be opened.
    #[error("state: {0}")]
    State(rusqlite::Error),
    /// The database is of another version of this program.
    #[error("state: wanted version {wanted}, got {got}: remove it to start anew")]
    StateVersion {
        /// This program's.
        wanted: i64,
        /// The file's.
        got: i64,
    },
    /// A server certificate cannot be used.
    #[error("tls: {0}")]
    Tls(rustls::Error),
}

/// The devnet.
pub struct Devnet;

/// A devnet that runs. Dropping it does not stop it; the shutdown future does.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens for plain HTTP, in legacy mode.
    pub plain: Option<SocketAddr>,
    /// The chain and CoFHE's services, where the profile has them.
    pub cofhe: Option<Cofhe>,
    hosts: Vec<Host>,
    pinning_token: String,
    events: broadcast::Sender<Event>,
    server: JoinHandle<()>,
}

/// What every part of a running devnet reads.
struct Settings {
    profile: NetworkProfile,
    key: SigningKey,
    ak_authority: Authority,
    mode: Mode,
    verifier_count: usize,
    deadlines: Deadlines,
    certificate_life: u64,
    pinning_token: String,
    rpc_path: String,
    rate: Rate,
    peer_rate: Rate,
    patience: Duration,
    clock: Clock,
    chain: Option<Chain>,
}

impl Options {
    /// The usual strict devnet with this appraiser: loopback, any free port, state in memory, the machine's clock.
    ///
    /// # Errors
    /// [`Error::Profile`] never for the committed profile.
    pub fn new(appraiser: Arc<dyn Appraiser>) -> Result<Self, Error> {
        Self::with(Mode::Strict(appraiser))
    }

    /// The usual legacy devnet.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn legacy(legacy: LegacyOptions) -> Result<Self, Error> {
        Self::with(Mode::Legacy(legacy))
    }

    fn with(mode: Mode) -> Result<Self, Error> {
        Ok(Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            state: None,
            profile: development::profile()?,
            mode,
            verifier_count: 2,
            deadlines: Deadlines { claim: 60, commit: 600, reveal: 120 },
            certificate_life: 86_400,
            pinning_token: "development".into(),
            rpc_path: "/".into(),
            rate: Rate { burst: 120, per_second: 20 },
            peer_rate: Rate { burst: 2000, per_second: 400 },
            patience: Duration::from_secs(15),
            tls_authority: (development::TLS_CA.into(), development::TLS_CA_KEY.into()),
            clock: Arc::new(|| {
                let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
                UnixTime(since.as_secs())
            }),
        })
    }
}

impl Devnet {
    /// Starts a devnet; it runs until `shutdown` resolves. Needs a Tokio runtime with time and I/O.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn start(
        options: Options,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Running, Error> {
        let (certificate, key) = &options.tls_authority;
        let tls_authority = Authority::from_pem(certificate, key)?;
        // Sorted by name, so that a name with two ports stands twice in a row.
        let mut names: Vec<&str> = options.profile.hosts().into_iter().map(|host| &*host.name).collect();
        names.dedup();
        let plain = match &options.mode {
            Mode::Strict(_) => None,
            Mode::Legacy(legacy) => {
                names.push(peer::PAYMENT);
                Some(bind(legacy.plain).await?)
            }
        };
        let tls = development::server_config(&tls_authority, &names, (options.clock)())?;
        let hosts = options.profile.hosts().into_iter().cloned().collect();
        let pinning_token = options.pinning_token.clone();
        let chain = match options.profile.cofhe {
            // Beside the coordinator's database: another program would have its own.
            Some(_) => {
                let path = options.state.as_ref().map(|path| path.with_extension("chain.sqlite"));
                Some(Chain::open(path.as_deref(), &options.profile, Arc::clone(&options.clock))?)
            }
            None => None,
        };
        let settings = Arc::new(Settings {
            profile: options.profile,
            key: development::icl_key()?,
            ak_authority: Authority::from_pem(development::AK_CA, development::AK_CA_KEY)?,
            mode: options.mode,
            verifier_count: options.verifier_count,
            deadlines: options.deadlines,
            certificate_life: options.certificate_life.min(86_400),
            pinning_token: options.pinning_token,
            rpc_path: options.rpc_path,
            rate: options.rate,
            peer_rate: options.peer_rate,
            patience: options.patience,
            clock: options.clock,
            chain: chain.clone(),
        });
        let schema = match settings.mode {
            Mode::Legacy(_) => &legacy::SCHEMA,
            Mode::Strict(_) => &state::STRICT,
        };
        let (events, _) = broadcast::channel(EVENTS);
        let state = State::open(options.state.as_deref(), schema, Arc::clone(&settings), events.clone())?;
        let (listener, address) = bind(options.listen).await?;
        let (plain, plain_address) = plain.unzip();
        let cofhe = chain.map(Cofhe::new);
        let routes = Arc::new(Routes::new(state.clone(), settings, cofhe.clone()));
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(async move {
            let tls = TlsAcceptor::from(Arc::new(tls));
            let serve = server::serve(listener, Some(tls), Arc::clone(&routes), stopped.clone());
            let serve_plain = async {
                if let Some(plain) = plain {
                    server::serve(plain, None, Arc::clone(&routes), stopped.clone()).await;
                }
            };
            let ticker = tick(state, stopped.clone());
            let stop = async move {
                shutdown.await;
                let _ = stop.send(true);
            };
            tokio::join!(serve, serve_plain, ticker, stop);
        });
        Ok(Running { address, plain: plain_address, cofhe, hosts, pinning_token, events, server })
    }
}

impl Running {
    /// How a relying party reaches this devnet. `profile` and `release` are the files' names as the document will carry
    /// them, relative to where it is written.
    pub fn network(&self, profile: &str, release: &str, model: ModelName) -> Network {
        let resolve = self.hosts.iter().map(|host| Resolve { address: self.address, host: host.clone() });
        let root = AkRoot { development: true, name: "blf development AK CA".into(), pem: development::AK_CA.into() };
        Network {
            ak_roots: vec![root],
            model,
            pinning_token: self.pinning_token.clone(),
            profile: profile.into(),
            release: release.into(),
            resolve: resolve.collect(),
            v: 1,
        }
    }

    /// What happens from now on. A listener that falls more than 1,024 events behind misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Waits until the devnet has stopped and all of its tasks have ended.
    pub async fn stopped(self) {
        let _ = self.server.await;
    }
}

impl Settings {
    /// The ICL's DNS name: what requests sign as host and admissions name as audience.
    fn audience(&self) -> &str {
        &self.profile.icl.name
    }
}

/// Listens at `address`; returns where that is, for port 0.
async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Applies deadlines and forgets what is over, until the stop. A turn that fails is tried again with the next tick.
async fn tick(state: State, mut stopped: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = server::asked(&mut stopped) => return,
            _ = interval.tick() => {}
        }
        let ticked = state.turn(|turn| match turn.settings.mode {
            // Today's coordinator looks at deadlines only when a node polls.
            Mode::Legacy(_) => Ok(()),
            Mode::Strict(_) => {
                jobs::tick(turn)?;
                admission::sweep(turn)?;
                relay::sweep(turn)?;
                auth::sweep(turn)
            }
        });
        if let Err(refused) = ticked.await {
            state.tell_fault(&refused);
        }
    }
}

/// `N` bytes from the system.
fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    Ok(bytes)
}
