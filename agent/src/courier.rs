//! The courier: the role that speaks to the network. It holds no keys and never sees a prompt; what it carries is
//! ciphertext and public data, and whatever it is told from outside is checked again by the vault.

pub mod cofhe;
pub mod https;
#[cfg(not(feature = "production"))]
pub mod legacy;
pub mod vault;

pub(crate) mod admission;
pub(crate) mod evidence;
pub(crate) mod job;
pub(crate) mod jobs;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use blf_evidence::profile::NetworkProfile;
use blf_evidence::telemetry::Event;
use blf_evidence::tunnel::DIAL_DEADLINE;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};

use crate::blob::Blobs;
use crate::courier::cofhe::Cofhe;
use crate::courier::https::{Deadlines, Https};
use crate::courier::vault::{CallError, LinkError, Vault};
use crate::daemon::{self, DaemonError, Node, Timings};
use crate::frames::{FromVault, ToVault};
use crate::icl::Icl;
use crate::inbound;
use crate::telemetry::Telemetry;
use crate::tls::{self, Clock, TlsError};
use crate::tunnel::{Egress, Tunnel, Vsock};

/// Periods and deadlines of everything the courier does.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a stream through the tunnel.
    pub dial: Duration,
    /// For an HTTP exchange.
    pub https: Deadlines,
    /// For the loops.
    pub timings: Timings,
}

/// Why the courier ends otherwise than by a stop.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    /// A loop or the vault.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The socket to the vault.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// No runtime.
    #[error("runtime: {0}")]
    Runtime(#[from] io::Error),
    /// The measured roots.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The vault would not say who this node is.
    #[error(transparent)]
    Vault(#[from] CallError),
}

/// Threads that wait for the vault to sign a handshake.
const SIGNING: usize = 2;
/// The vault answers once all models are loaded.
const IDENTITY: Duration = Duration::from_secs(600);
/// How long the courier may take to notice that its work is done once the vault is gone.
const LAST_WORD: Duration = Duration::from_secs(1);

impl Default for Limits {
    fn default() -> Self {
        Self {
            dial: DIAL_DEADLINE,
            https: Deadlines {
                handshake: Duration::from_secs(15),
                head: Duration::from_secs(30),
                body: Duration::from_secs(30),
            },
            timings: Timings::default(),
        }
    }
}

/// The role: one thread for all but handshakes, `vault` as the only way in, the host's vsock as the only way out, `door`
/// ([`crate::tunnel::door`]) for inbound streams. Returns once the vault has been asked to power off.
///
/// # Errors
/// [`CourierError`].
pub fn run(vault: StdUnixStream, door: io::Result<OwnedFd>, profile: &NetworkProfile) -> Result<(), CourierError> {
    vault.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(SIGNING)
        .build()?;
    runtime.block_on(async {
        let vault = UnixStream::from_std(vault)?;
        serve(vault, Vsock::new(door), profile, Limits::default()).await
    })
}

/// The same over any socket and tunnel.
///
/// # Errors
/// [`CourierError`].
pub async fn serve<S, T>(socket: S, tunnel: T, profile: &NetworkProfile, limits: Limits) -> Result<(), CourierError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    T: Tunnel,
{
    let (vault, link) = Vault::connect(socket);
    let mut served = std::pin::pin!(speak(vault, tunnel, profile, limits));
    tokio::select! {
        served = &mut served => served,
        // Without its vault the courier has nothing to say; unless it was the last word, which the socket's end may
        // overtake.
        ended = link => match (tokio::time::timeout(LAST_WORD, served).await, ended) {
            (Ok(Ok(())), _) => Ok(()),
            (_, Ok(())) => Err(CallError::Gone.into()),
            (_, Err(error)) => Err(error.into()),
        },
    }
}

async fn speak<T: Tunnel>(
    vault: Vault,
    tunnel: T,
    profile: &NetworkProfile,
    limits: Limits,
) -> Result<(), CourierError> {
    let Limits { dial, https, timings } = limits;
    let stop = vault.stop();
    let FromVault::Identity(identity) = vault.call(ToVault::Identity, IDENTITY).await? else {
        return Err(CallError::Unexpected.into());
    };
    let clock = Clock::new(identity.now);
    let tls = tls::connector(&profile.tls_roots, clock.clone())?;
    let egress = Arc::new(Egress::new(tunnel, profile, dial));
    let telemetry = Telemetry::default();
    for line in &identity.boot_events {
        if let Ok(event) = Event::parse(line.as_bytes()) {
            telemetry.say(event);
        }
    }
    let server = |host| Https::new(Arc::clone(&egress), tls.clone(), host, https);
    let node = Arc::new(Node {
        icl: Icl::new(server(profile.icl.clone()), vault.clone(), identity.node),
        blobs: Blobs::new(
            server(profile.blob_gateway.clone()),
            server(profile.blob_pinning.clone()),
            identity.pinning_token.clone(),
        ),
        cofhe: Cofhe::new(profile, server),
        #[cfg(not(feature = "production"))]
        legacy: legacy::Network::new(profile, vault.clone(), &identity, server),
        vault,
        telemetry: telemetry.clone(),
        identity,
        clock,
        timings,
        admission: watch::Sender::new(None),
        back: Notify::new(),
        jobs: AtomicU8::new(0),
    });
    tokio::select! {
        ended = daemon::run(Arc::clone(&node), stop) => Ok(ended?),
        () = telemetry.deliver(Arc::clone(&egress), timings.most) => Err(DaemonError::Loop.into()),
        () = inbound::serve(Arc::clone(&node), Arc::clone(&egress)) => Err(DaemonError::Loop.into()),
    }
}
