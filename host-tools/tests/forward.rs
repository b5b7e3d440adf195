//! The forwarder against guests that behave and guests that do not, over unix sockets as vhost-device-vsock makes them.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blf_evidence::bundle::EVIDENCE_CAP;
use blf_evidence::profile::Host;
use blf_evidence::telemetry::{EVENT_CAP, Event};
use blf_evidence::tunnel::{DOCUMENTS_CAP, DialReply, HostDocuments, PORT_DIAL, PORT_DOCUMENTS, PORT_TELEMETRY};
use blf_evidence::{Base64, Hex};
use blf_host::forward::{
    Counters, DialPolicy, DocumentsError, FLOOD_BURST, Limits, Resolve, STOP, offer, serve_dials, serve_telemetry,
};
use blf_host::vsock::Listener;
use common::evidence;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(5);

/// The host's end of port 5007, and the guest's.
struct Dials {
    folder: TempDir,
    gate: watch::Sender<bool>,
    counters: Arc<Counters>,
}

impl Dials {
    /// Allows `icl.blf.internal:443` and leads it to `server`.
    async fn serve(server: Option<&TcpListener>, open: bool, limits: Limits) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = Listener::unix(&folder.path().join("v"), PORT_DIAL).unwrap();
        let mut resolve = Resolve::default();
        if let Some(server) = server {
            resolve.insert("icl.blf.internal", 443, server.local_addr().unwrap());
        }
        let allow = vec![Host { name: "icl.blf.internal".into(), port: 443 }];
        let (gate, opened) = watch::channel(open);
        let counters = Arc::new(Counters::default());
        tokio::spawn(serve_dials(listener, DialPolicy { allow, resolve, limits }, opened, Arc::clone(&counters)));
        Self { folder, gate, counters }
    }

    async fn guest(&self) -> UnixStream {
        UnixStream::connect(socket(self.folder.path(), PORT_DIAL)).await.unwrap()
    }

    /// Sends `line` and reads the reply byte.
    async fn dial(&self, line: &[u8]) -> (UnixStream, Option<DialReply>) {
        let mut guest = self.guest().await;
        guest.write_all(line).await.unwrap();
        let reply = timeout(SOON, guest.read_u8()).await.unwrap().ok();
        (guest, reply.map(|byte| DialReply::try_from(byte).unwrap()))
    }
}

fn socket(folder: &Path, port: u32) -> PathBuf {
    folder.join(format!("v_{port}"))
}

const GOOD: &[u8] = b"blf/1 icl.blf.internal:443\n";

#[tokio::test]
async fn carries_bytes_both_ways() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dials = Dials::serve(Some(&server), true, Limits::default()).await;
    let (mut guest, reply) = dials.dial(GOOD).await;
    assert_eq!(reply, Some(DialReply::Connected));
    let (mut peer, _) = server.accept().await.unwrap();

    let sent = vec![0xa5; 300_000];
    let echo = async {
        let mut got = vec![0; sent.len()];
        peer.read_exact(&mut got).await.unwrap();
        peer.write_all(&got).await.unwrap();
        peer.shutdown().await.unwrap();
        got
    };
    let ask = async {
        guest.write_all(&sent).await.unwrap();
        let mut got = Vec::new();
        guest.read_to_end(&mut got).await.unwrap();
        got
    };
    let (up, down) = timeout(SOON, async { tokio::join!(echo, ask) }).await.unwrap_or_else(|_| {
        // Both directions at once need a guest that reads while it writes.
        panic!("stuck with {:?}", dials.counters.counts())
    });
    assert!(up == sent && down == sent);
    let counts = dials.counters.counts();
    assert_eq!((counts.bytes_up, counts.bytes_down, counts.streams), (300_000, 300_000, 1));
}

#[tokio::test]
async fn refuses_names_outside_the_profile() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dials = Dials::serve(Some(&server), true, Limits::default()).await;
    for line in
        ["blf/1 evil.example:443\n", "blf/1 icl.blf.internal:80\n", "blf/1 localhost:443\n", "blf/1 127.0.0.1:443\n"]
    {
        assert_eq!(dials.dial(line.as_bytes()).await.1, Some(DialReply::Forbidden), "{line}");
    }
    assert_eq!(dials.counters.counts().dials_forbidden, 4);
    assert!(timeout(Duration::from_millis(100), server.accept()).await.is_err());
}

#[tokio::test]
async fn closed_until_the_gate_opens() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dials = Dials::serve(Some(&server), false, Limits::default()).await;
    assert_eq!(dials.dial(GOOD).await.1, Some(DialReply::Unreachable));
    assert!(timeout(Duration::from_millis(100), server.accept()).await.is_err());
    dials.gate.send_replace(true);
    assert_eq!(dials.dial(GOOD).await.1, Some(DialReply::Connected));
    assert_eq!(dials.counters.counts().dials_early, 1);
}

#[tokio::test]
async fn says_when_nobody_answers() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dials = Dials::serve(Some(&gone), true, Limits::default()).await;
    drop(gone);
    assert_eq!(dials.dial(GOOD).await.1, Some(DialReply::Unreachable));
    // A name that no resolver knows (RFC 6761, section 6.4).
    let limits = Limits { connect: Duration::from_secs(1), ..Limits::default() };
    let dials = Dials::serve(None, true, limits).await;
    assert_eq!(dials.dial(GOOD).await.1, Some(DialReply::Unreachable));
}

#[tokio::test]
async fn refuses_lines_that_are_no_dial() {
    let dials = Dials::serve(None, true, Limits::default()).await;
    let oversized = vec![b'a'; 4096];
    for line in [b"GET / HTTP/1.1\r\n".as_slice(), b"blf/2 icl.blf.internal:443\n", b"\n", &[0xff, b'\n'], &oversized] {
        let (mut guest, reply) = dials.dial(line).await;
        assert_eq!(reply, Some(DialReply::Malformed), "{line:?}");
        // And the stream ends; unread bytes may turn the end into a reset.
        let end = timeout(SOON, guest.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)));
    }
    assert_eq!(dials.counters.counts().dials_malformed, 5);
}

#[tokio::test]
async fn a_slow_line_is_cut_off() {
    let limits = Limits { line: Duration::from_millis(300), ..Limits::default() };
    let dials = Dials::serve(None, true, limits).await;
    let mut guest = dials.guest().await;
    let begun = Instant::now();
    let dribble = async {
        for byte in GOOD {
            if guest.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        guest.read_u8().await
    };
    let reply = timeout(SOON, dribble).await.unwrap().unwrap();
    assert_eq!(DialReply::try_from(reply).unwrap(), DialReply::Malformed);
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn streams_are_limited() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits { streams: 3, ..Limits::default() };
    let dials = Dials::serve(Some(&server), true, limits).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let (guest, reply) = dials.dial(GOOD).await;
        assert_eq!(reply, Some(DialReply::Connected));
        held.push(guest);
    }
    let mut surplus = dials.guest().await;
    assert!(matches!(timeout(SOON, surplus.read(&mut [0; 1])).await.unwrap(), Ok(0) | Err(_)));
    assert_eq!(dials.counters.counts().dials_surplus, 1);
    // A stream that ends makes room.
    held.pop();
    let again = async {
        loop {
            if let Ok(DialReply::Connected) = try_dial(&dials).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, again).await.unwrap();
}

async fn try_dial(dials: &Dials) -> std::io::Result<DialReply> {
    let mut guest = dials.guest().await;
    guest.write_all(GOOD).await?;
    Ok(DialReply::try_from(guest.read_u8().await?).unwrap())
}

#[tokio::test]
async fn silence_ends_a_stream() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits { idle: Duration::from_secs(2), ..Limits::default() };
    let dials = Dials::serve(Some(&server), true, limits).await;
    let (mut guest, reply) = dials.dial(GOOD).await;
    assert_eq!(reply, Some(DialReply::Connected));
    let (mut peer, _) = server.accept().await.unwrap();
    // Bytes in one direction keep it open beyond the deadline.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        peer.write_all(b"x").await.unwrap();
        assert_eq!(guest.read_u8().await.unwrap(), b'x');
    }
    assert!(matches!(timeout(SOON, guest.read(&mut [0; 1])).await.unwrap(), Ok(0) | Err(_)));
    assert!(matches!(timeout(SOON, peer.read(&mut [0; 1])).await.unwrap(), Ok(0) | Err(_)));
}

#[test]
fn resolve_entries_have_one_form() {
    let mut resolve = Resolve::default();
    resolve.add("icl.blf.internal:443=127.0.0.1:8443").unwrap();
    for bad in
        ["icl.blf.internal=127.0.0.1:1", "icl:443=localhost:1", "ICL:443=127.0.0.1:1", "icl:443", "icl:0=127.0.0.1:1"]
    {
        assert!(resolve.add(bad).unwrap_err().to_string().contains(bad));
    }
}

/// The host's end of port 5006, and the guest's.
async fn telemetry(queue: usize) -> (TempDir, UnixStream, mpsc::Receiver<Event>, Arc<Counters>) {
    let folder = TempDir::new().unwrap();
    let listener = Listener::unix(&folder.path().join("v"), PORT_TELEMETRY).unwrap();
    let counters = Arc::new(Counters::default());
    let (sender, events) = mpsc::channel(queue);
    tokio::spawn(serve_telemetry(listener, sender, Arc::clone(&counters)));
    let guest = UnixStream::connect(socket(folder.path(), PORT_TELEMETRY)).await.unwrap();
    (folder, guest, events, counters)
}

#[tokio::test]
async fn telemetry_takes_events_and_nothing_else() {
    let (_folder, mut guest, mut events, counters) = telemetry(16).await;
    let mut overlong = vec![b' '; EVENT_CAP];
    overlong.extend_from_slice(b"{\"event\":\"stopped\"}\n");
    for line in [
        b"hello, I am free text\n".as_slice(),
        b"{\"event\":\"prompt\",\"text\":\"secret\"}\n",
        &overlong,
        b"\n",
        b"{\"event\":\"heartbeat\",\"jobs\":1}\n",
        &vec![b'x'; 100_000],
        b"\n{\"event\":\"stopped\"}\n",
    ] {
        guest.write_all(line).await.unwrap();
    }
    assert_eq!(timeout(SOON, events.recv()).await.unwrap(), Some(Event::Heartbeat { jobs: 1 }));
    assert_eq!(timeout(SOON, events.recv()).await.unwrap(), Some(Event::Stopped {}));
    let counts = counters.counts();
    assert_eq!((counts.events, counts.events_unknown), (2, 5));
}

#[tokio::test]
async fn a_telemetry_flood_is_dropped_and_never_blocks_the_guest() {
    const SENT: u32 = 20_000;
    let (folder, mut guest, mut events, counters) = telemetry(FLOOD_BURST as usize * 4).await;
    let flood = "{\"event\":\"evidence_given\"}\n".repeat(SENT as usize);
    let begun = Instant::now();
    timeout(Duration::from_secs(30), guest.write_all(flood.as_bytes())).await.unwrap().unwrap();
    drop(guest);
    // Its next connection is served, so the flood has been read to its end.
    let mut next = UnixStream::connect(socket(folder.path(), PORT_TELEMETRY)).await.unwrap();
    next.write_all(b"no event\n").await.unwrap();
    let read = async {
        while counters.counts().events_unknown == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), read).await.unwrap();
    let counts = counters.counts();
    assert_eq!(counts.events + counts.events_surplus, u64::from(SENT));
    let most = u64::from(FLOOD_BURST) + 32 * (begun.elapsed().as_secs() + 1);
    assert!((u64::from(FLOOD_BURST)..=most).contains(&counts.events), "{counts:?}");
    let mut taken = 0;
    while events.try_recv().is_ok() {
        taken += 1;
    }
    assert_eq!(taken, counts.events);
}

#[tokio::test]
async fn nobody_listening_to_events_ends_the_service() {
    let folder = TempDir::new().unwrap();
    let listener = Listener::unix(&folder.path().join("v"), PORT_TELEMETRY).unwrap();
    let (sender, events) = mpsc::channel(1);
    drop(events);
    let service = tokio::spawn(serve_telemetry(listener, sender, Arc::default()));
    let mut guest = UnixStream::connect(socket(folder.path(), PORT_TELEMETRY)).await.unwrap();
    guest.write_all(b"{\"event\":\"stopped\"}\n").await.unwrap();
    timeout(SOON, service).await.unwrap().unwrap().unwrap();
}

fn documents() -> HostDocuments {
    HostDocuments {
        config: r#"{"max_jobs":2,"name":"node-1","v":1}"#.into(),
        credentials: r#"{"pinning_token":"t","v":1}"#.into(),
        endorsements: None,
    }
}

/// Port 5005 and the path of its socket.
fn document_port() -> (TempDir, Listener, PathBuf) {
    let folder = TempDir::new().unwrap();
    let listener = Listener::unix(&folder.path().join("v"), PORT_DOCUMENTS).unwrap();
    let path = socket(folder.path(), PORT_DOCUMENTS);
    (folder, listener, path)
}

/// What a guest reads first: its documents and its nonce.
async fn take(guest: &mut UnixStream) -> (HostDocuments, Hex<32>) {
    let length = guest.read_u32().await.unwrap() as usize;
    let mut frame = vec![0; length];
    guest.read_exact(&mut frame).await.unwrap();
    let mut nonce = Hex([0; 32]);
    guest.read_exact(&mut nonce.0).await.unwrap();
    (HostDocuments::parse(&frame).unwrap(), nonce)
}

async fn answer(guest: &mut UnixStream, text: &[u8]) {
    guest.write_u32(text.len().try_into().unwrap()).await.unwrap();
    guest.write_all(text).await.unwrap();
}

#[tokio::test]
async fn documents_go_in_and_evidence_comes_out() {
    let (_folder, listener, path) = document_port();
    let guest = tokio::spawn(async move {
        // A first connection that breaks off costs nothing but its nonce.
        let mut early = UnixStream::connect(&path).await.unwrap();
        let (_, first) = take(&mut early).await;
        drop(early);
        let mut guest = UnixStream::connect(&path).await.unwrap();
        let (documents, nonce) = take(&mut guest).await;
        assert_ne!(first, nonce);
        assert_eq!(documents.config, r#"{"max_jobs":2,"name":"node-1","v":1}"#);
        let text = evidence("node-1", nonce, &documents.config).to_json().unwrap();
        answer(&mut guest, text.as_bytes()).await;
        (guest.read_u8().await, guest.read_u8().await.is_err(), nonce)
    });
    let mut session = timeout(SOON, offer(listener, &documents(), SOON)).await.unwrap().unwrap();
    session.stop().await.unwrap();
    let sent = session.nonce;
    drop(session);
    let (stop, ended, nonce) = timeout(SOON, guest).await.unwrap().unwrap();
    assert_eq!((stop.unwrap(), ended, nonce), (STOP, true, sent));
}

#[tokio::test]
async fn hostile_evidence_is_refused() {
    let oversized = u32::try_from(EVIDENCE_CAP + 1).unwrap().to_be_bytes().to_vec();
    let announced = u32::MAX.to_be_bytes().to_vec();
    let truncated = [1000_u32.to_be_bytes().as_slice(), b"{"].concat();
    for (frame, wanted) in [(oversized, "at most 524288"), (announced, "at most 524288"), (truncated, "1000 bytes")] {
        let (_folder, listener, path) = document_port();
        let guest = tokio::spawn(async move {
            let mut guest = UnixStream::connect(&path).await.unwrap();
            take(&mut guest).await;
            guest.write_all(&frame).await.unwrap();
        });
        let error = offer(listener, &documents(), Duration::from_millis(500)).await.err().unwrap();
        assert!(
            matches!(&error, DocumentsError::Deadline { last: Some(last), .. } if last.contains(wanted)),
            "{error}"
        );
        guest.await.unwrap();
    }
    let (_folder, listener, path) = document_port();
    let guest = tokio::spawn(async move {
        let mut guest = UnixStream::connect(&path).await.unwrap();
        take(&mut guest).await;
        answer(&mut guest, br#"{"schema":"blf.evidence/v1"}"#).await;
        drop(guest.read_u8().await);
    });
    let error = offer(listener, &documents(), SOON).await.err().unwrap();
    assert!(matches!(error, DocumentsError::Evidence(_)), "{error}");
    guest.await.unwrap();
}

#[tokio::test]
async fn a_silent_guest_is_given_up() {
    let (_folder, listener, path) = document_port();
    let error = offer(listener, &documents(), Duration::from_millis(200)).await.err().unwrap();
    assert!(error.to_string().ends_with("got no connection"), "{error}");
    assert!(!path.exists(), "the socket outlives its listener");

    let (_folder, listener, path) = document_port();
    let guest = tokio::spawn(async move {
        let mut guest = UnixStream::connect(&path).await.unwrap();
        guest.read_to_end(&mut Vec::new()).await.unwrap();
    });
    let error = offer(listener, &documents(), Duration::from_millis(200)).await.err().unwrap();
    assert!(error.to_string().contains("without a whole evidence frame"), "{error}");
    timeout(SOON, guest).await.unwrap().unwrap();
}

#[tokio::test]
async fn oversized_documents_are_refused_before_a_guest_comes() {
    let (_folder, listener, _path) = document_port();
    let documents = HostDocuments { endorsements: Some(Base64(vec![0; DOCUMENTS_CAP])), ..documents() };
    let error = offer(listener, &documents, SOON).await.err().unwrap();
    assert!(matches!(error, DocumentsError::TooLong { got } if got > DOCUMENTS_CAP), "{error}");
}

#[tokio::test]
async fn socket_paths_are_checked() {
    let folder = TempDir::new().unwrap();
    let long = folder.path().join("x".repeat(100));
    let error = Listener::unix(&long, PORT_DIAL).err().unwrap();
    assert!(error.to_string().contains("fewer than 108 bytes"), "{error}");
}
