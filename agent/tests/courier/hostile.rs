//! Servers that mean harm (S6): what they say is bounded in time and memory, and the next exchange is as good as ever.

mod sealoutput;

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blf_agent::courier::https::{HttpError, Https, Outgoing, Reply};
use blf_agent::tls::{self, Clock};
use blf_agent::tunnel::{Egress, Tunnel, TunnelError};
use blf_bridge::blob::BLOB_CAP;
use blf_evidence::UnixTime;
use blf_evidence::profile::Host;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::time::{Instant, sleep};
use tokio_rustls::LazyConfigAcceptor;

use crate::exchange::server;
use crate::net::{Net, Script};
use crate::world::{NOW, World};

/// How long after harm all must be well again.
const HEALTHY: Duration = Duration::from_secs(5);
/// How much more memory harm may cost, in KiB.
const MEMORY: u64 = 64 * 1024;
const MIB: usize = 1024 * 1024;

/// What a script must come to.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Wanted {
    NotHttp,
    TooLong,
    /// By a deadline, or as no HTTP: which of them is the library's choice.
    Refused,
    SilentBody,
    SilentHead,
    /// A reply that is none of ours: its status is looked at, its body not believed.
    Status(u16),
}

const OK: &str = "HTTP/1.1 200 OK\r\n";
const SECOND: Duration = Duration::from_secs(1);
/// As fast as virtual time allows.
const FAST: Duration = Duration::from_millis(1);

fn scripts() -> Vec<(&'static str, Script, Wanted)> {
    let script = |once: String, again: Vec<u8>, every| Script { once: once.into_bytes(), again, every };
    let once = |text: &str| script(text.to_owned(), vec![], FAST);
    let chunked = |rest: &str| format!("{OK}transfer-encoding: chunked\r\n\r\n{rest}");
    let settings = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64".to_vec();
    vec![
        ("a head, a byte a second", script(format!("{OK}x: "), b"a".to_vec(), SECOND), Wanted::SilentHead),
        ("a head without end", script(OK.into(), b"x: yyyyyyyyyyyy\r\n".repeat(256), FAST), Wanted::NotHttp),
        ("a status line without end", script("HTTP/1.1 200 ".into(), vec![b'K'; 4096], FAST), Wanted::NotHttp),
        (
            "interim replies without end",
            script(String::new(), b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(16), SECOND / 4),
            Wanted::Refused,
        ),
        (
            "a body, a byte a second",
            script(format!("{OK}content-length: 999\r\n\r\n"), b" ".to_vec(), SECOND),
            Wanted::SilentBody,
        ),
        ("a body without end", script(format!("{OK}\r\n"), vec![b' '; 65536], FAST), Wanted::TooLong),
        (
            "chunks without end",
            script(chunked(""), [b"10000\r\n".to_vec(), vec![b' '; 65536], b"\r\n".to_vec()].concat(), FAST),
            Wanted::TooLong,
        ),
        (
            "small chunks without end",
            script(chunked(""), b"10\r\n0123456789abcdef\r\n".repeat(1024), FAST),
            Wanted::TooLong,
        ),
        ("a chunk's length without end", script(chunked(""), vec![b'0'; 4096], SECOND), Wanted::Refused),
        ("a chunk's extension without end", script(chunked("1;"), vec![b'a'; 65536], FAST), Wanted::Refused),
        ("trailers without end", script(chunked("0\r\n"), b"x: y\r\n".repeat(256), SECOND), Wanted::Refused),
        ("a TiB announced", once(&format!("{OK}content-length: 1099511627776\r\n\r\n")), Wanted::TooLong),
        (
            "more announced than a number holds",
            once(&format!("{OK}content-length: 99999999999999999999\r\n\r\n")),
            Wanted::NotHttp,
        ),
        ("less than nothing announced", once(&format!("{OK}content-length: -1\r\n\r\n")), Wanted::NotHttp),
        ("more announced than sent", once(&format!("{OK}content-length: 9\r\n\r\nshort")), Wanted::NotHttp),
        ("two lengths", once(&format!("{OK}content-length: 2\r\ncontent-length: 3\r\n\r\nabc")), Wanted::NotHttp),
        ("a chunk longer than it says", once(&chunked("1\r\nab\r\n0\r\n\r\n")), Wanted::NotHttp),
        ("no HTTP", once("ready\r\n"), Wanted::NotHttp),
        ("HTTP/2", script(String::new(), settings, SECOND), Wanted::NotHttp),
        ("nothing", once(""), Wanted::NotHttp),
        (
            "another protocol",
            once("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"),
            Wanted::Status(101),
        ),
        (
            "elsewhere",
            once("HTTP/1.1 302 Found\r\nlocation: https://evil.test/\r\ncontent-length: 0\r\n\r\n"),
            Wanted::Status(302),
        ),
        (
            "a zip bomb",
            once(&format!("{OK}content-encoding: gzip\r\ncontent-length: 4\r\n\r\n\u{1f}\u{8b}x")),
            Wanted::Status(200),
        ),
    ]
}

async fn exchange(https: &Https<Net>) -> Result<Reply, HttpError> {
    let outgoing = Outgoing { method: hyper::Method::GET, path: "/x".into(), headers: vec![], body: Bytes::new() };
    let connection = https.connect().await?;
    https.exchange(connection, outgoing, BLOB_CAP).await
}

/// One script after another against one client, with a good exchange five seconds after each.
async fn every_script() {
    let world = World::new();
    let https = server(&world, &world.profile.icl);
    let limits = world.limits.https;
    for (name, script, wanted) in scripts() {
        world.net.be_hostile(Some(script));
        https.renew();
        let start = Instant::now();
        let got = exchange(&https).await;
        let took = start.elapsed();
        assert!(took <= limits.head.max(limits.body) + SECOND, "{name}: {took:?}");
        let as_wanted = match (&got, wanted) {
            (Err(HttpError::Protocol), Wanted::NotHttp | Wanted::Refused) => true,
            (Err(HttpError::BodyTooLong { .. }), Wanted::TooLong) => true,
            (Err(HttpError::Silent { stage: "reply body", .. }), Wanted::SilentBody | Wanted::Refused) => true,
            (Err(HttpError::Silent { stage: "reply head", .. }), Wanted::SilentHead | Wanted::Refused) => true,
            (Ok(reply), Wanted::Status(status)) => reply.status.as_u16() == status,
            _ => false,
        };
        assert!(as_wanted, "{name}: wanted {wanted:?}, got {got:?}");
        world.net.be_hostile(None);
        https.renew();
        sleep(HEALTHY).await;
        // The honest ICL knows no such path, and says so in a whole reply.
        let healthy = exchange(&https).await;
        assert!(healthy.as_ref().is_ok_and(|reply| reply.status == 401), "{name}: {healthy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_a_server_says_ends_in_time_and_the_next_exchange_is_good() {
    every_script().await;
}

/// The most memory this process ever had resident, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_is_bounded_whatever_a_server_says() {
    in_a_process_of_its_own("hostile::measured");
}

/// Runs the ignored test `name`, and says what it measured.
fn in_a_process_of_its_own(name: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", said.lines().find(|line| line.contains("KiB")).unwrap());
}

#[tokio::test(start_paused = true)]
#[ignore = "a child of the test above"]
async fn measured() {
    let world = World::new();
    exchange(&server(&world, &world.profile.icl)).await.unwrap();
    // As many at once as a node has requests under way: two jobs and four loops, and then some.
    within_bounds((0..8).map(|_| every_script())).await;
}

/// Does all at once; the process may take so much more memory meanwhile.
async fn within_bounds(crowd: impl Iterator<Item = impl Future<Output = ()> + Send + 'static>) {
    let before = peak();
    let crowd: Vec<_> = crowd.map(tokio::spawn).collect();
    for member in crowd {
        member.await.unwrap();
    }
    let more = peak() - before;
    println!("{more} KiB more at the peak");
    assert!(more <= MEMORY, "{more} KiB, of at most {MEMORY}");
    // The measure itself: what is used shows.
    let used = vec![1_u8; 100 * MIB];
    assert!(peak() - before > MEMORY, "{}", used.len());
}

/// A reply to a request that was not made yet is not taken as its answer.
#[tokio::test(start_paused = true)]
async fn a_second_reply_to_one_request_answers_no_other() {
    let world = World::new();
    let https = server(&world, &world.profile.icl);
    let reply = |body: &str| format!("{OK}content-length: {}\r\n\r\n{body}", body.len());
    let twice = format!("{}{}", reply("mine"), reply("evil"));
    world.net.be_hostile(Some(Script { once: twice.into_bytes(), again: b"\r\n".to_vec(), every: 100 * SECOND }));
    let first = exchange(&https).await.unwrap();
    assert_eq!(first.body, b"mine".as_slice());
    sleep(SECOND).await;
    let second = exchange(&https).await;
    assert!(second.is_err() || second.as_ref().is_ok_and(|reply| reply.body == b"mine".as_slice()), "{second:?}");
}

/// A whole node beside such servers for two minutes each.
#[tokio::test(start_paused = true)]
async fn a_node_outlives_them() {
    for (name, script, _) in scripts() {
        let world = World::new();
        let courier = world.start();
        world.until("a heartbeat", |w| !w.icl.with(|s| s.heartbeats.is_empty())).await;
        world.net.be_hostile(Some(script));
        sleep(Duration::from_secs(120)).await;
        world.net.be_hostile(None);
        let healed = world.icl.elapsed();
        let beat = |w: &World| w.icl.with(|s| s.heartbeats.last().is_some_and(|(at, _)| *at > healed));
        world.until("a heartbeat", beat).await;
        let back = world.icl.elapsed() - healed;
        // A node that was forgotten by a 4xx is admitted anew.
        assert!(back <= 2 * Duration::from_secs(60), "{name}: {back:?}");
        assert!(!courier.is_finished(), "{name}");
        courier.abort();
    }
}

/// Shows what a client offers, and answers nothing.
struct Listening(Arc<Mutex<Option<Vec<Vec<u8>>>>>);

impl Tunnel for Listening {
    type Stream = DuplexStream;

    async fn dial(&self, _: &Host) -> Result<DuplexStream, TunnelError> {
        let (near, far) = duplex(16 * 1024);
        let offered = Arc::clone(&self.0);
        tokio::spawn(async move {
            let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), far).await.unwrap();
            let alpn = start.client_hello().alpn().map(|names| names.map(<[u8]>::to_vec).collect());
            *offered.lock().unwrap() = alpn;
            let mut io = start.io;
            drop(io.read_u8().await);
        });
        Ok(near)
    }

    async fn telemetry(&self) -> Result<DuplexStream, TunnelError> {
        Err(TunnelError::Io(std::io::ErrorKind::ConnectionRefused))
    }
}

/// So floods of streams, resets and continuation frames have nothing to flood.
#[tokio::test(start_paused = true)]
async fn http_2_is_not_offered() {
    let world = World::new();
    let clock = Clock::new(UnixTime(NOW));
    let connector = tls::connector(&world.profile.tls_roots, clock).unwrap();
    let offered = Arc::default();
    let egress = Egress::new(Listening(Arc::clone(&offered)), &world.profile, world.limits.dial);
    let https = Https::new(Arc::new(egress), connector, world.profile.icl.clone(), world.limits.https);
    assert!(https.connect().await.is_err());
    assert_eq!(offered.lock().unwrap().take(), Some(vec![b"http/1.1".to_vec()]));
}
