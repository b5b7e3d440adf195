//! TLS 1.3 from the courier to the ICL and the blob services, believing the measured roots only.
//!
//! The guest's clock is a lower bound (architecture decision 14): real time is that or later, never earlier. So a
//! server certificate is verified at the later of that bound and its own `notBefore`: one that ended before the
//! bound is refused whatever the host's RTC says, and one that begins after it is not, since its time may have come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blf_evidence::UnixTime;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use x509_cert::der::Decode as _;

/// The vault's time as the courier knows it: it is this late, or later.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    start: Instant,
    /// Seconds since 1970 at `start`; only ever grows.
    at_start: AtomicU64,
}

/// Why there is no TLS configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The profile's roots are no PEM certificates, or none.
    #[error("tls roots: wanted at least one PEM certificate with a valid key")]
    Roots,
    /// The provider has no TLS 1.3.
    #[error("tls: wanted a provider of TLS 1.3")]
    Provider,
}

impl Clock {
    /// It is now `now` or later.
    pub fn new(now: UnixTime) -> Self {
        Self(Arc::new(Bound { start: Instant::now(), at_start: AtomicU64::new(now.0) }))
    }

    /// Now, or earlier.
    pub fn now(&self) -> UnixTime {
        UnixTime(self.0.at_start.load(Ordering::Relaxed)).plus(self.0.start.elapsed().as_secs())
    }

    /// An authenticated time says that it is `now` or later. An earlier one changes nothing.
    pub fn advance(&self, now: UnixTime) {
        let at_start = now.0.saturating_sub(self.0.start.elapsed().as_secs());
        self.0.at_start.fetch_max(at_start, Ordering::Relaxed);
    }
}

/// Connects with TLS 1.3 and HTTP/1.1 to servers that chain to `roots` (PEM).
///
/// # Errors
/// [`TlsError`].
pub fn connector(roots: &str, clock: Clock) -> Result<TlsConnector, TlsError> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root.map_err(|_| TlsError::Roots)?).map_err(|_| TlsError::Roots)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
        .build()
        .map_err(|_| TlsError::Roots)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| TlsError::Provider)?
        .dangerous() // rustls's word for any verifier of one's own; this one adds a time and delegates the rest
        .with_custom_certificate_verifier(Arc::new(LowerBound { inner, clock }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would not show its certificate again.
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What went wrong in a handshake, as a code.
pub(crate) fn code(error: &std::io::Error) -> &'static str {
    use rustls::Error;
    match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "TLS_CERTIFICATE_EXPIRED"
        }
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "TLS_UNKNOWN_ROOT"
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "TLS_WRONG_NAME",
        Some(Error::InvalidCertificate(_)) => "TLS_CERTIFICATE",
        Some(Error::PeerIncompatible(_)) => "TLS_VERSION",
        Some(Error::AlertReceived(_)) => "TLS_REFUSED_BY_PEER",
        Some(_) => "TLS_PROTOCOL",
        None => "TLS_INTERRUPTED",
    }
}

/// WebPKI verification at the later of the clock's bound and the leaf's `notBefore`.
#[derive(Debug)]
struct LowerBound {
    inner: Arc<WebPkiServerVerifier>,
    clock: Clock,
}

impl ServerCertVerifier for LowerBound {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        // From the system's clock, which the host sets.
        _now: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf = x509_cert::Certificate::from_der(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let not_before = leaf.tbs_certificate().validity().not_before.to_unix_duration();
        let now = std::time::Duration::from_secs(self.clock.now().0).max(not_before);
        let now = rustls::pki_types::UnixTime::since_unix_epoch(now);
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
