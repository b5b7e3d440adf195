//! How bytes leave the guest and come in (architecture decision 13): through the host, out to measured names only, in to
//! the attested API only.
//!
//! [`Tunnel`] is the seam: [`Vsock`] dials the host beside a local VM; a cloud VM will dial directly. Above it
//! [`Egress`] refuses every name outside the measured list before a byte leaves, whatever the host would allow.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use blf_evidence::profile::{Host, NetworkProfile};
use blf_evidence::tunnel::{Dial, DialReply, PORT_API, PORT_DIAL, PORT_TELEMETRY};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, connect, listen, socket};
use rustix::net::{SocketFlags, accept_with};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

/// Streams to the world outside the guest.
pub trait Tunnel: Send + Sync + 'static {
    /// A stream of bytes.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// A stream to `host`. Checking the name is the caller's task ([`Egress`]), and so is the deadline.
    fn dial(&self, host: &Host) -> impl Future<Output = Result<Self::Stream, TunnelError>> + Send;

    /// A stream to whoever collects telemetry.
    fn telemetry(&self) -> impl Future<Output = Result<Self::Stream, TunnelError>> + Send;

    /// The next stream that comes in, whenever that is; a tunnel may let nobody in.
    fn inbound(&self) -> impl Future<Output = Result<Self::Stream, TunnelError>> + Send {
        std::future::pending()
    }
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// The measured profile does not list the name.
    #[error("egress: {name}:{port} is not on the measured list")]
    Forbidden {
        /// DNS name.
        name: String,
        /// TCP port.
        port: u16,
    },
    /// The host does not answer as a tunnel does.
    #[error("tunnel: wanted a reply byte from 0 to 3, got {got}")]
    Reply {
        /// What came.
        got: u8,
    },
    /// The host refused.
    #[error("tunnel: wanted Connected, got {0:?}")]
    Refused(DialReply),
    /// Not in time.
    #[error("tunnel: no answer within {0:?}")]
    Silent(Duration),
    /// The socket failed.
    #[error("tunnel: {0}")]
    Io(io::ErrorKind),
}

/// Inbound streams that wait to be accepted.
const BACKLOG: i32 = 16;

/// A tunnel that goes to the measured names only.
pub struct Egress<T> {
    tunnel: T,
    allowed: Vec<Host>,
    deadline: Duration,
}

/// The tunnel beside a local VM: virtio-vsock to the host.
#[derive(Debug)]
pub struct Vsock {
    /// Listens; as any socket it becomes readable when somebody waits.
    door: Result<UnixStream, TunnelError>,
}

impl<T: Tunnel> Egress<T> {
    /// Goes where `profile` says, within `deadline` for each stream.
    pub fn new(tunnel: T, profile: &NetworkProfile, deadline: Duration) -> Self {
        Self { tunnel, allowed: profile.hosts().into_iter().cloned().collect(), deadline }
    }

    /// A stream to `host`.
    ///
    /// # Errors
    /// [`TunnelError::Forbidden`] before anything is sent, else those of the tunnel.
    pub async fn dial(&self, host: &Host) -> Result<T::Stream, TunnelError> {
        if !self.allowed.contains(host) {
            return Err(TunnelError::Forbidden { name: host.name.clone(), port: host.port });
        }
        self.in_time(self.tunnel.dial(host)).await
    }

    /// A stream to whoever collects telemetry.
    ///
    /// # Errors
    /// Those of the tunnel.
    pub async fn telemetry(&self) -> Result<T::Stream, TunnelError> {
        self.in_time(self.tunnel.telemetry()).await
    }

    /// The next stream that comes in.
    ///
    /// # Errors
    /// Those of the tunnel.
    pub async fn inbound(&self) -> Result<T::Stream, TunnelError> {
        self.tunnel.inbound().await
    }

    async fn in_time(
        &self,
        stream: impl Future<Output = Result<T::Stream, TunnelError>>,
    ) -> Result<T::Stream, TunnelError> {
        tokio::time::timeout(self.deadline, stream).await.unwrap_or(Err(TunnelError::Silent(self.deadline)))
    }
}

impl Vsock {
    /// The tunnel whose inbound streams arrive at a socket of [`door`]; without one, all else works. To be called within a
    /// runtime.
    pub fn new(door: io::Result<OwnedFd>) -> Self {
        Self { door: door.and_then(|door| UnixStream::from_std(door.into())).map_err(TunnelError::from) }
    }
}

impl Tunnel for Vsock {
    type Stream = UnixStream;

    async fn dial(&self, host: &Host) -> Result<UnixStream, TunnelError> {
        ask(host_port(PORT_DIAL).await?, host).await
    }

    async fn telemetry(&self) -> Result<UnixStream, TunnelError> {
        Ok(host_port(PORT_TELEMETRY).await?)
    }

    async fn inbound(&self) -> Result<UnixStream, TunnelError> {
        let door = self.door.as_ref().map_err(Clone::clone)?;
        let accept = || Ok(accept_with(door, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?);
        Ok(UnixStream::from_std(door.async_io(Interest::READABLE, accept).await?.into())?)
    }
}

impl TunnelError {
    /// Stable, in capitals.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "EGRESS_FORBIDDEN",
            Self::Reply { .. } | Self::Refused(DialReply::Malformed | DialReply::Connected) => "TUNNEL_PROTOCOL",
            Self::Refused(DialReply::Forbidden) => "TUNNEL_FORBIDDEN",
            Self::Refused(DialReply::Unreachable) => "TUNNEL_UNREACHABLE",
            Self::Silent(_) => "TUNNEL_SILENT",
            Self::Io(_) => "TUNNEL_IO",
        }
    }
}

impl From<io::Error> for TunnelError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// Asks the host at the other end of `stream` to forward it to `host`.
///
/// # Errors
/// [`TunnelError`].
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, host: &Host) -> Result<S, TunnelError> {
    stream.write_all(Dial(host.clone()).to_line().as_bytes()).await?;
    stream.flush().await?;
    let got = stream.read_u8().await?;
    match DialReply::try_from(got) {
        Ok(DialReply::Connected) => Ok(stream),
        Ok(refusal) => Err(TunnelError::Refused(refusal)),
        Err(_) => Err(TunnelError::Reply { got }),
    }
}

/// A socket that listens for inbound streams. The courier makes it before it enters its sandbox, in which nothing can be
/// bound any more.
///
/// # Errors
/// Those of the kernel: no vsock, or another process listens.
pub fn door() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let door = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    bind(door.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, PORT_API))?;
    listen(&door, Backlog::new(BACKLOG)?)?;
    Ok(door)
}

/// Connects to a vsock port of the host (CID 2) without blocking.
///
/// Once connected, a vsock socket is read, written and shut down like any other stream socket, so that
/// [`UnixStream`] serves it; only connecting needs the address family.
async fn host_port(port: u32) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, port)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = UnixStream::from_std(fd.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        Host { name: name.into(), port: 8443 }
    }

    #[tokio::test]
    async fn asks_as_agreed() {
        for (reply, wanted) in [
            (0, None),
            (1, Some("TUNNEL_FORBIDDEN")),
            (2, Some("TUNNEL_UNREACHABLE")),
            (3, Some("TUNNEL_PROTOCOL")),
            (4, Some("TUNNEL_PROTOCOL")),
        ] {
            let (guest, mut other) = tokio::io::duplex(1024);
            let peer = tokio::spawn(async move {
                let mut line = vec![0; b"blf/1 icl.test:8443\n".len()];
                other.read_exact(&mut line).await.unwrap();
                other.write_all(&[reply, b'x']).await.unwrap();
                (line, other)
            });
            let answer = ask(guest, &host("icl.test")).await;
            let (line, _other) = peer.await.unwrap();
            assert_eq!(line, b"blf/1 icl.test:8443\n");
            match (answer, wanted) {
                (Ok(mut stream), None) => assert_eq!(stream.read_u8().await.unwrap(), b'x', "bytes follow the reply"),
                (Err(error), Some(code)) => assert_eq!(error.code(), code),
                (answer, wanted) => panic!("reply {reply}: wanted {wanted:?}, got {:?}", answer.err()),
            }
        }
    }

    #[tokio::test]
    async fn a_host_that_hangs_up_is_an_error() {
        let (guest, other) = tokio::io::duplex(1024);
        drop(other);
        assert_eq!(ask(guest, &host("icl.test")).await.err().map(|e| e.code()), Some("TUNNEL_IO"));
    }

    /// Here nobody listens, or there is no vsock at all: either is an error, and neither blocks the thread.
    #[tokio::test]
    async fn connecting_does_not_block() {
        let ticks = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let start = std::time::Instant::now();
        tokio::select! {
            biased;
            _ = host_port(1) => {}
            () = ticks => assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed()),
        }
    }

    /// Counts the streams it is asked for, and never gives one.
    struct Silence(std::sync::Arc<std::sync::atomic::AtomicUsize>);

    impl Tunnel for Silence {
        type Stream = UnixStream;

        async fn dial(&self, _: &Host) -> Result<UnixStream, TunnelError> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::future::pending().await
        }

        async fn telemetry(&self) -> Result<UnixStream, TunnelError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_measured_names_and_only_for_so_long() {
        let profile = NetworkProfile::parse(include_bytes!("../profiles/devnet.json")).unwrap();
        let asked = std::sync::Arc::default();
        let egress = Egress::new(Silence(std::sync::Arc::clone(&asked)), &profile, Duration::from_secs(10));
        let other_port = Host { port: 443, ..profile.icl.clone() };
        for stranger in [host("evil.example"), other_port] {
            let error = egress.dial(&stranger).await.err().unwrap();
            assert_eq!(error.code(), "EGRESS_FORBIDDEN");
        }
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0, "nothing was asked of the host");
        let error = egress.dial(&profile.icl).await.err().unwrap();
        assert_eq!(error, TunnelError::Silent(Duration::from_secs(10)));
    }
}
