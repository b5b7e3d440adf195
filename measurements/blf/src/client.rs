//! HTTPS to a network's hosts and to its nodes: TLS 1.3, bounded bodies, deadlines, no redirects. Of hosts the profile's
//! roots only are believed; whose a node's key is, its evidence says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use blf_evidence::Hex;
use blf_evidence::network::Resolve;
use blf_evidence::profile::Host;

use crate::failure::{Exit, Failure};

/// Connecting, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// One request, from the first byte sent to the last received.
const REQUEST: Duration = Duration::from_secs(60);

/// Runs to its end what talks to a network, on this thread.
///
/// # Errors
/// Those of `future`; [`Exit::Environment`] where the machine has no more of what a runtime needs.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure::new(Exit::Environment, "RUNTIME", e))?.block_on(future)
}

/// A client of one network, or of one node.
pub struct Client {
    tls: TlsConnector,
    resolve: Vec<Resolve>,
}

/// A whole reply.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// Body, bounded.
    pub body: Bytes,
    /// With which key the session ended: SHA-256 of its SubjectPublicKeyInfo.
    pub tls_spki_sha256: Hex<32>,
}

impl Client {
    /// A client that believes `roots` (PEM) and reaches the hosts in `resolve` where it says.
    ///
    /// # Errors
    /// [`Exit::Config`] for unusable roots.
    pub fn new(roots: &str, resolve: Vec<Resolve>) -> Result<Self, Failure> {
        let bad = |e: &dyn std::fmt::Display| Failure::new(Exit::Config, "TLS_ROOTS", format!("tls_roots: {e}"));
        let mut store = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
            store.add(root.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad(&e))?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), resolve })
    }

    /// A client of a node: any key will do, if the server holds it. Whoever calls compares [`Reply::tls_spki_sha256`]
    /// with the node's evidence.
    ///
    /// # Errors
    /// [`Exit::Environment`] for a provider without TLS 1.3.
    pub fn of_node() -> Result<Self, Failure> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let held = Arc::new(Held(provider.signature_verification_algorithms));
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| Failure::new(Exit::Environment, "TLS", e))?
            .dangerous() // rustls's word for any verifier of one's own
            .with_custom_certificate_verifier(held)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), resolve: Vec::new() })
    }

    /// One request on a connection of its own; at most `cap` bytes of reply.
    ///
    /// # Errors
    /// [`Exit::Environment`] if the host cannot be reached, [`Exit::Failed`] if it does not answer properly.
    pub async fn request(
        &self,
        host: &Host,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        cap: usize,
    ) -> Result<Reply, Failure> {
        let name = format!("{}:{}", host.name, host.port);
        let unreachable = |e: &dyn std::fmt::Display| {
            Failure::new(Exit::Environment, "UNREACHABLE", format!("{name}: {e}"))
                .hint("is the network up? for a local one: blf-host launch --devnet")
        };
        let stream = tokio::time::timeout(CONNECT, self.connect(host))
            .await
            .map_err(|_| unreachable(&"no connection within 10 s"))?
            .map_err(|e| unreachable(&e))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(spki_sha256);
        let tls_spki_sha256 = shown.ok_or_else(|| unreachable(&"no certificate"))?;
        let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, "NO_REPLY", format!("{name}{path}: {e}"));
        let exchange = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
            let connection = tokio::spawn(connection);
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header(hyper::header::HOST, &host.name)
                .body(Full::new(body))
                .map_err(|e| failed(&e))?;
            request.headers_mut().extend(headers);
            let reply = sender.send_request(request).await.map_err(|e| failed(&e))?;
            let status = reply.status();
            let body = Limited::new(reply.into_body(), cap).collect().await.map_err(|e| failed(&e))?.to_bytes();
            connection.abort();
            Ok(Reply { status, body, tls_spki_sha256 })
        };
        tokio::time::timeout(REQUEST, exchange).await.map_err(|_| failed(&"no reply within 60 s"))?
    }

    async fn connect(&self, host: &Host) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let given: Vec<SocketAddr> = self.resolve.iter().filter(|r| r.host == *host).map(|r| r.address).collect();
        let stream = if given.is_empty() {
            TcpStream::connect((host.name.as_str(), host.port)).await?
        } else {
            TcpStream::connect(given.as_slice()).await?
        };
        let name = ServerName::try_from(host.name.clone()).map_err(std::io::Error::other)?;
        self.tls.connect(name, stream).await
    }
}

/// Believes that a server holds the key it shows, and nothing else of it.
#[derive(Debug)]
struct Held(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Held {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn spki_sha256(certificate: &CertificateDer<'_>) -> Option<Hex<32>> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    Some(Hex(Sha256::digest(parsed.subject_public_key_info()).into()))
}
