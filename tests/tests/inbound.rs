//! The attested API, from a user's command through the operator's host into a guest and back.

use std::convert::Infallible;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blf::cli::VerifyArgs;
use blf::client::{Client, Reply};
use blf::failure::{Exit, Failure};
use blf::verify::{self, Report};
use blf_agent::inbound::CONNECTIONS;
use blf_appraisal::AttestationResult;
use blf_evidence::Hex;
use blf_evidence::bundle::{EVIDENCE_CAP, Evidence};
use blf_evidence::icl::Refusal;
use blf_evidence::json;
use blf_evidence::profile::Host;
use blf_evidence::statement::Binding;
use blf_host::forward::Counters;
use blf_host::inbound;
use blf_host::vsock::Dialer;
use blf_tests::network::Net;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const ACCOUNT: &str = "0x5935897A39AFABbedA5a599D38236E7Df151C8b8";
const LONG: Duration = Duration::from_secs(120);

/// One certified node, whose API is reached through the host.
struct World {
    net: Net,
    host: SocketAddr,
    counters: Arc<Counters>,
}

impl World {
    /// None where swtpm is missing.
    fn start() -> Option<Self> {
        let net = Net::start(1)?;
        let counters = Arc::<Counters>::default();
        let host = lead_in(&net, net.nodes[0].api, &counters);
        let world = Self { net, host, counters };
        // Until then keys change with every attempt to be admitted, which ends the sessions that were about to begin.
        let until = Instant::now() + LONG;
        while !world.health().is_ok_and(|health| health.contains("\"certified\":true")) {
            assert!(Instant::now() < until, "not certified within {LONG:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(world)
    }

    fn get(&self, method: Method, path: &str) -> Result<Reply, Failure> {
        let host = Host { name: self.host.ip().to_string(), port: self.host.port() };
        let client = Client::of_node().unwrap();
        let request = client.request(&host, method, path, HeaderMap::new(), Bytes::new(), EVIDENCE_CAP);
        self.net.runtime.block_on(request)
    }

    fn health(&self) -> Result<String, Failure> {
        let reply = self.get(Method::GET, "/v1/health")?;
        assert_eq!(reply.status, StatusCode::OK);
        Ok(String::from_utf8(reply.body.to_vec()).unwrap())
    }

    fn report(&self, at: SocketAddr) -> Result<Report, Failure> {
        let network = Some(self.net.network.clone());
        verify::run(&VerifyArgs { network, ..VerifyArgs::new(format!("https://{at}")) })
    }

    fn verify(&self, at: SocketAddr) -> Result<AttestationResult, Failure> {
        self.report(at)?.into_result()
    }
}

/// The host's forwarder before a double of `vhost-device-vsock` whose guest listens at `guest`.
fn lead_in(net: &Net, guest: SocketAddr, counters: &Arc<Counters>) -> SocketAddr {
    let uds = net.dir.path().join("v");
    net.runtime.block_on(async {
        let listener = UnixListener::bind(&uds).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut host = BufReader::new(stream);
                    let mut line = String::new();
                    host.read_line(&mut line).await.unwrap();
                    assert_eq!(line, "CONNECT 5008\n");
                    let mut guest = TcpStream::connect(guest).await.unwrap();
                    host.write_all(b"OK 5008\n").await.unwrap();
                    drop(copy_bidirectional(&mut host, &mut guest).await);
                });
            }
        });
        let listener = inbound::listen("127.0.0.1:0".parse().unwrap(), 0).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(inbound::serve(listener, Dialer::Unix(uds), Arc::clone(counters)));
        address
    })
}

/// A host that ends TLS itself, with a key of its own, and asks the node in the client's name.
struct Proxy {
    node: SocketAddr,
    /// What it answers instead, once it has an answer.
    kept: Option<Mutex<Option<Bytes>>>,
}

impl Proxy {
    fn start(self, world: &World) -> SocketAddr {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().der().clone();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let (tls, proxy) = (TlsAcceptor::from(Arc::new(config)), Arc::new(self));
        world.net.runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (tls, proxy) = (tls.clone(), Arc::clone(&proxy));
                    tokio::spawn(async move {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        let answer = |request| proxy.answer(request);
                        let server = hyper::server::conn::http1::Builder::new();
                        drop(server.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
                    });
                }
            });
            address
        })
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let node = Host { name: self.node.ip().to_string(), port: self.node.port() };
        let path = request.uri().to_string();
        let client = Client::of_node().unwrap();
        let reply = client.request(&node, Method::GET, &path, HeaderMap::new(), Bytes::new(), EVIDENCE_CAP).await;
        let fresh = reply.unwrap().body;
        let body = match &self.kept {
            Some(kept) => kept.lock().unwrap().get_or_insert(fresh).clone(),
            None => fresh,
        };
        Ok(Response::new(Full::new(body)))
    }
}

fn code(failure: Result<AttestationResult, Failure>) -> (Exit, String) {
    let Err(failure) = failure else { panic!("verified") };
    (failure.exit, failure.code)
}

#[test]
fn a_node_is_verified_through_its_host_and_refuses_what_it_does_not_know() {
    let Some(world) = World::start() else { return };
    let report = world.report(world.host).unwrap();
    let session = report.tls_spki_sha256;
    let first = report.into_result().unwrap().binding;
    assert_eq!(first.keys.node, world.net.nodes[0].address);
    assert_eq!(session, Some(first.keys.tls_spki_sha256));
    let again = world.verify(world.host).unwrap();
    assert_ne!(first.nonce, again.binding.nonce, "each run asks anew");
    assert!(world.health().unwrap().contains(&first.keys.node.to_string()));

    let nonce = Hex([7; 32]);
    let path = format!("/v1/evidence?audience={ACCOUNT}&nonce={nonce}");
    let reply = world.get(Method::GET, &path).unwrap();
    let evidence = Evidence::parse(&reply.body).unwrap();
    let binding = Binding::parse(evidence.binding.as_bytes()).unwrap();
    assert_eq!((binding.nonce, binding.audience.as_str()), (nonce, ACCOUNT));

    let no_account = format!("/v1/evidence?audience=icl.devnet.blf.internal&nonce={nonce}");
    for (method, path, status, wanted) in [
        (Method::GET, "/", StatusCode::NOT_FOUND, "NOT_FOUND"),
        (Method::GET, "/v1/health?x", StatusCode::NOT_FOUND, "NOT_FOUND"),
        (Method::GET, "/internal/task/fail", StatusCode::NOT_FOUND, "NOT_FOUND"),
        (Method::POST, path.as_str(), StatusCode::NOT_FOUND, "NOT_FOUND"),
        (Method::GET, "/v1/evidence", StatusCode::BAD_REQUEST, "BAD_QUERY"),
        (Method::GET, no_account.as_str(), StatusCode::BAD_REQUEST, "BAD_QUERY"),
    ] {
        let reply = world.get(method, path).unwrap();
        let refusal: Refusal = json::parse("refusal", &reply.body, 1024).unwrap();
        assert_eq!((reply.status, refusal.code.as_str()), (status, wanted), "{path}");
    }
    let long = format!("/{}", "x".repeat(16 * 1024));
    assert!(world.get(Method::GET, &long).map_or(true, |reply| reply.status.is_client_error()));
    assert!(world.counters.counts().inbound >= 9);
    world.net.end();
}

#[test]
fn a_session_that_ends_before_the_guest_is_refused() {
    let Some(world) = World::start() else { return };
    let node = world.host;
    let relay = Proxy { node, kept: None }.start(&world);
    assert_eq!(code(world.verify(relay)), (Exit::Rejected, "TLS_KEY_MISMATCH".into()));
    let replay = Proxy { node, kept: Some(Mutex::default()) }.start(&world);
    assert_eq!(code(world.verify(replay)), (Exit::Rejected, "TLS_KEY_MISMATCH".into()));
    assert_eq!(code(world.verify(replay)), (Exit::Rejected, "NONCE_MISMATCH".into()), "an answer to somebody else");
    world.verify(node).unwrap();
    world.net.end();
}

#[test]
fn strangers_take_no_more_than_their_share() {
    let Some(world) = World::start() else { return };
    let guest = world.net.nodes[0].api;
    let connect = |at: SocketAddr| {
        let stream = StdTcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    };
    // They say nothing; the one too many is closed while the first still is not.
    let held: Vec<_> = (0..CONNECTIONS).map(|_| connect(guest)).collect();
    assert_eq!(connect(guest).read(&mut [0]).unwrap_or_default(), 0);
    held[0].set_nonblocking(true).unwrap();
    let open = held[0].peek(&mut [0]);
    assert_eq!(open.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the first was closed too");
    drop(held);

    // And then everybody gets in again.
    let until = Instant::now() + LONG;
    while let Err(failure) = world.verify(world.host) {
        assert!(Instant::now() < until, "{failure}");
        std::thread::sleep(Duration::from_millis(200));
    }
    world.net.end();
}

/// Bounds of the host, whatever its guest does.
#[test]
fn a_host_leads_in_no_more_than_its_share() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let uds = dir.path().join("v");
    let counters = Arc::<Counters>::default();
    let (vsock, host) = runtime.block_on(async {
        let vsock = UnixListener::bind(&uds).unwrap();
        let listener = inbound::listen("127.0.0.1:0".parse().unwrap(), 3).await.unwrap();
        let host = listener.local_addr().unwrap();
        tokio::spawn(inbound::serve(listener, Dialer::Unix(uds), Arc::clone(&counters)));
        (vsock, host)
    });
    let connect = || {
        let stream = StdTcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    };
    // A guest that takes nobody: all wait, and one is too many.
    let mut held: Vec<_> = (0..inbound::STREAMS).map(|_| connect()).collect();
    assert_eq!(connect().read(&mut [0]).unwrap_or_default(), 0);
    assert_eq!(counters.counts().inbound_refused, 1);
    // A guest without a listener there: its vsock closes the stream.
    drop(runtime.block_on(vsock.accept()).unwrap());
    let closed = held.iter_mut().any(|stream| {
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        matches!(stream.read(&mut [0]), Ok(0))
    });
    assert!(closed, "no stream was closed");
    assert_eq!(counters.counts().inbound, 0);
}
