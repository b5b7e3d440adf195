//! A small client: one TLS connection for each request, trusting the profile's roots and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use blf_devnet::development;
use blf_evidence::eip191::{Signature, request_text};
use blf_evidence::icl::{HEADER_ADDRESS, HEADER_NONCE, HEADER_SIGNATURE, HEADER_TIMESTAMP, Refusal};
use blf_evidence::{Address, Hex};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use k256::ecdsa::SigningKey;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::nodes::START;

pub(crate) const ICL: &str = "icl.devnet.blf.internal";
pub(crate) const BLOBS: &str = "blobs.devnet.blf.internal";

/// A status and a body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

/// A request's parts, to be changed by tests before they go out.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) method: &'static str,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body of a 200.
    pub(crate) fn ok<T: DeserializeOwned>(self) -> T {
        assert_eq!(self.status, StatusCode::OK, "{:?}", self.body);
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and code of a refusal.
    pub(crate) fn refused(self) -> (u16, String) {
        assert_ne!(self.status, StatusCode::OK, "{:?}", self.body);
        let refusal: Refusal = serde_json::from_slice(&self.body).unwrap();
        assert!(!refusal.detail.contains('\n') && !refusal.detail.is_empty());
        (self.status.as_u16(), refusal.code)
    }
}

impl Draft {
    pub(crate) fn new(method: &'static str, host: &str, path: &str, body: Bytes) -> Self {
        Self { method, host: host.into(), path: path.into(), headers: Vec::new(), body }
    }

    /// Signed as the wire contract says.
    pub(crate) fn sign(mut self, key: &SigningKey, time: u64, nonce: Hex<16>) -> Self {
        let digest = Hex(Sha256::digest(&self.body).into());
        let text = request_text(self.method, &self.host, &self.path, &digest, time, &nonce);
        self.headers = vec![
            (HEADER_ADDRESS.into(), development::address(key).to_string()),
            (HEADER_TIMESTAMP.into(), time.to_string()),
            (HEADER_NONCE.into(), nonce.to_string()),
            (HEADER_SIGNATURE.into(), Signature::sign(key, text.as_bytes()).to_string()),
        ];
        self
    }

    /// Replaces a header.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// Sends it to the peer of that name.
    pub(crate) async fn send(self, to: SocketAddr) -> Reply {
        let name = self.host.clone();
        let stream = connect(to, &name, &development::profile().unwrap().tls_roots).await.unwrap();
        self.send_on(stream).await
    }

    pub(crate) async fn send_on(self, stream: TlsStream<TcpStream>) -> Reply {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(self.method).uri(&self.path).header(HOST, &self.host);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let reply = sender.send_request(request.body(Full::new(self.body)).unwrap()).await.unwrap();
        let (head, body) = reply.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        Reply { status: head.status, headers: head.headers, body }
    }
}

/// The time by which a client judges certificates.
#[derive(Debug)]
struct At(u64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(self.0)))
    }
}

/// A TLS session with the peer of that name, trusting `roots` (PEM), as the devnet under test starts.
pub(crate) async fn connect(to: SocketAddr, name: &str, roots: &str) -> std::io::Result<TlsStream<TcpStream>> {
    connect_at(START, to, name, roots).await
}

/// The same at another time.
pub(crate) async fn connect_at(
    now: u64,
    to: SocketAddr,
    name: &str,
    roots: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root.unwrap()).unwrap();
    }
    let config =
        ClientConfig::builder_with_details(Arc::new(rustls::crypto::aws_lc_rs::default_provider()), Arc::new(At(now)))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(store)
            .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(to).await?).await
}

/// Someone with a key: a node or a user.
pub(crate) struct Caller {
    pub(crate) key: SigningKey,
    pub(crate) address: Address,
    pub(crate) to: SocketAddr,
    pub(crate) clock: Arc<std::sync::atomic::AtomicU64>,
}

impl Caller {
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(std::sync::atomic::Ordering::SeqCst)
    }

    pub(crate) fn draft(&self, method: &'static str, path: &str, body: Bytes) -> Draft {
        Draft::new(method, ICL, path, body).sign(&self.key, self.now(), Hex(random()))
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.draft("GET", path, Bytes::new()).send(self.to).await
    }

    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> Reply {
        self.draft("POST", path, serde_json::to_vec(body).unwrap().into()).send(self.to).await
    }
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}
