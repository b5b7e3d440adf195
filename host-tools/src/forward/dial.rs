//! Outbound streams: the guest names where it wants to go, the host checks, resolves, connects and carries bytes.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use blf_evidence::profile::{Host, NetworkProfile};
use blf_evidence::tunnel::{DIAL_CAP, DIAL_DEADLINE, Dial, DialReply};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Counters, count, read_line};
use crate::vsock::{Listener, Stream};

/// Whether streams may leave: closed until the guest's Evidence was appraised.
pub type Gate = watch::Receiver<bool>;

/// Where a guest may go, and how far its hostility may.
#[derive(Clone, Debug)]
pub struct DialPolicy {
    /// Names that may be dialled: those of the measured profile, checked here again.
    pub allow: Vec<Host>,
    /// Names that lie elsewhere than DNS says.
    pub resolve: Resolve,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on the streams of one VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Streams at a time.
    pub streams: usize,
    /// For the dial line to arrive.
    pub line: Duration,
    /// For name resolution and connecting together.
    pub connect: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
}

/// Names and ports that lie elsewhere than DNS says: the devnet's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resolve(BTreeMap<(String, u16), SocketAddr>);

/// Why a text is no entry of [`Resolve`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("resolve: wanted NAME:PORT=ADDRESS:PORT, got {got:?}")]
pub struct ResolveError {
    /// At most 80 characters of what came.
    got: String,
}

/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;
/// Between the attempts at two of them: Connection Attempt Delay of RFC 8305, section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Refusals of a kind that are logged for each VM; all are counted. A guest must not fill the journal.
const LOGGED: u64 = 16;

impl DialPolicy {
    /// The hosts of a profile, and default bounds.
    pub fn new(profile: &NetworkProfile, resolve: Resolve) -> Self {
        Self { allow: profile.hosts().into_iter().cloned().collect(), resolve, limits: Limits::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 64,
            line: Duration::from_secs(10),
            // Sooner than the guest gives up, so that it hears why.
            connect: DIAL_DEADLINE - Duration::from_secs(2),
            idle: Duration::from_secs(300),
        }
    }
}

impl Resolve {
    /// Adds one name.
    pub fn insert(&mut self, name: &str, port: u16, to: SocketAddr) {
        self.0.insert((name.into(), port), to);
    }

    /// Adds one `NAME:PORT=ADDRESS:PORT`.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn add(&mut self, text: &str) -> Result<(), ResolveError> {
        let parsed = text.split_once('=').and_then(|(from, to)| {
            let Dial(host) = Dial::parse(format!("blf/1 {from}\n").as_bytes()).ok()?;
            Some((host, SocketAddr::from_str(to).ok()?))
        });
        let Some((host, to)) = parsed else {
            return Err(ResolveError { got: text.chars().take(80).collect() });
        };
        self.insert(&host.name, host.port, to);
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, host: &Host) -> Option<SocketAddr> {
        self.0.get(&(host.name.clone(), host.port)).copied()
    }
}

/// Serves the dials of one VM until the listener fails or the future is dropped; its streams end with it.
///
/// # Errors
/// Those of the listener.
pub async fn serve_dials(
    mut listener: Listener,
    policy: DialPolicy,
    gate: Gate,
    counters: Arc<Counters>,
) -> io::Result<()> {
    let policy = Arc::new(policy);
    let slots = Arc::new(Semaphore::new(policy.limits.streams));
    let mut streams = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = listener.accept() => stream?,
            Some(_) = streams.join_next() => continue,
        };
        // A guest that opens more than its share is told so by a closed stream, not by a queue that grows.
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            count(&counters.dials_surplus, 1);
            continue;
        };
        let (policy, gate, counters) = (Arc::clone(&policy), gate.clone(), Arc::clone(&counters));
        streams.spawn(async move {
            serve_one(stream, &policy, &gate, &counters).await;
            drop(slot);
        });
    }
}

/// One stream from its dial line to its end. Errors end the stream; who caused them is in the counters.
async fn serve_one(mut guest: Stream, policy: &DialPolicy, gate: &Gate, counters: &Counters) {
    let (reply, server) = match connect(&mut guest, policy, gate, counters).await {
        Ok(server) => (DialReply::Connected, Some(server)),
        Err(reply) => (reply, None),
    };
    if !matches!(timeout(policy.limits.line, guest.write_all(&[reply as u8])).await, Ok(Ok(()))) {
        return;
    }
    let Some(server) = server else {
        // Lets the reply arrive before the stream is gone.
        drop(timeout(Duration::from_secs(1), guest.shutdown()).await);
        return;
    };
    count(&counters.streams, 1);
    carry(guest, server, policy.limits.idle, counters).await;
}

async fn connect(
    guest: &mut Stream,
    policy: &DialPolicy,
    gate: &Gate,
    counters: &Counters,
) -> Result<TcpStream, DialReply> {
    let line = timeout(policy.limits.line, read_line(guest, DIAL_CAP)).await;
    let dial = match line {
        Ok(Ok(Some(line))) => Dial::parse(&line).ok(),
        _ => None,
    };
    let Some(Dial(host)) = dial else {
        count(&counters.dials_malformed, 1);
        return Err(DialReply::Malformed);
    };
    if !policy.allow.contains(&host) {
        count(&counters.dials_forbidden, 1);
        if counters.counts().dials_forbidden <= LOGGED {
            tracing::warn!(name = %host.name, port = host.port, "guest dialled a name outside its profile");
        }
        return Err(DialReply::Forbidden);
    }
    if !*gate.borrow() {
        count(&counters.dials_early, 1);
        return Err(DialReply::Unreachable);
    }
    let connecting = async {
        if let Some(address) = policy.resolve.get(&host) {
            return TcpStream::connect(address).await;
        }
        reach(lookup_host((host.name.as_str(), host.port)).await?).await
    };
    let error = match timeout(policy.limits.connect, connecting).await {
        Ok(Ok(server)) => {
            // Small TLS records must not wait for each other.
            drop(server.set_nodelay(true));
            return Ok(server);
        }
        Ok(Err(error)) => error,
        Err(_) => io::Error::from(io::ErrorKind::TimedOut),
    };
    count(&counters.dials_unreachable, 1);
    if counters.counts().dials_unreachable <= LOGGED {
        tracing::warn!(name = %host.name, port = host.port, %error, "nobody answers where the guest wants to go");
    }
    Err(DialReply::Unreachable)
}

/// The first connection to one of a name's addresses. An address that leads nowhere, as IPv6 often does, does not use up the
/// time of those after it: each is tried as soon as the one before has failed or [`ATTEMPT_DELAY`] is over.
///
/// # Errors
/// The last of the attempts' where all failed.
pub(crate) async fn reach(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    // The families take turns (RFC 8305, section 4), each in the resolver's order.
    let (mut six, mut four) = (0, 0);
    let mut turns: Vec<_> = addresses
        .map(|address| {
            let turn = if address.is_ipv6() { &mut six } else { &mut four };
            *turn += 1;
            (*turn, address)
        })
        .collect();
    turns.sort_by_key(|(turn, _)| *turn);
    let mut addresses = turns.into_iter().map(|(_, address)| address).take(ADDRESSES).peekable();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = addresses.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = sleep(ATTEMPT_DELAY), if addresses.peek().is_some() => continue,
        };
        match ended {
            Some(Ok(Ok(server))) => return Ok(server),
            Some(Ok(Err(error))) => last = error,
            Some(Err(error)) => last = io::Error::other(error),
            None => return Err(last),
        }
    }
}

/// Carries bytes both ways until either side ends or both are silent.
///
/// When one side ends, what it sent before is delivered, then both are closed: vhost-user-vsock knows no half-closed
/// streams, so none may be relied on.
pub(crate) async fn carry(guest: Stream, server: TcpStream, idle: Duration, counters: &Counters) {
    let (mut guest_in, mut guest_out) = tokio::io::split(guest);
    let (mut server_in, mut server_out) = server.into_split();
    let (touched, mut touches) = watch::channel(());
    let watchdog = async { while let Ok(Ok(())) = timeout(idle, touches.changed()).await {} };
    let up = copy(&mut guest_in, &mut server_out, |n| {
        count(&counters.bytes_up, n);
        touched.send_replace(());
    });
    let down = copy(&mut server_in, &mut guest_out, |n| {
        count(&counters.bytes_down, n);
        touched.send_replace(());
    });
    tokio::select! {
        () = up => {}
        () = down => {}
        () = watchdog => {}
    }
    drop(timeout(Duration::from_secs(1), guest_out.shutdown()).await);
}

async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), mut moved: impl FnMut(u64)) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let Some(bytes) = buffer.get(..n) else { break };
        if to.write_all(bytes).await.is_err() {
            break;
        }
        moved(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::Instant;

    use super::*;

    const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[tokio::test]
    async fn an_address_that_leads_nowhere_does_not_keep_the_next_one_waiting() {
        // Nobody accepts; once its queue is full the kernel drops what else comes, as a broken path does.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(LOCAL).unwrap();
        let hole = socket.listen(1).unwrap();
        let hole = (hole.local_addr().unwrap(), hole);
        let mut held = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(500), TcpStream::connect(hole.0)).await {
            held.push(connected.unwrap());
            assert!(held.len() < 64, "the queue never fills");
        }
        let good = TcpListener::bind(LOCAL).await.unwrap();
        let begun = Instant::now();
        let reached = reach([hole.0, hole.0, good.local_addr().unwrap()].into_iter()).await.unwrap();
        assert_eq!(reached.peer_addr().unwrap(), good.local_addr().unwrap());
        assert!(begun.elapsed() >= ATTEMPT_DELAY * 2, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_passed_over() {
        let gone = TcpListener::bind(LOCAL).await.unwrap().local_addr().unwrap();
        let good = TcpListener::bind(LOCAL).await.unwrap();
        let reached = reach([gone, gone, good.local_addr().unwrap()].into_iter()).await.unwrap();
        assert_eq!(reached.peer_addr().unwrap(), good.local_addr().unwrap());

        assert_eq!(reach([gone, gone].into_iter()).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(reach([].into_iter()).await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        // Beyond the most that are tried, and one of the other family, whose turn comes second.
        let many = std::iter::repeat_n("[::1]:1".parse().unwrap(), ADDRESSES * 2);
        reach(many.chain([good.local_addr().unwrap()])).await.unwrap();
    }
}
