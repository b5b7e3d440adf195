//! The network's payment service, which alone keeps the history of jobs: asked over HTTPS, believed in nothing but
//! what it is shown as.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use blf_evidence::Address;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::Error;
use crate::forward::reach;
use crate::release::read;

/// From the name to the last byte of the reply.
const WITHIN: Duration = Duration::from_secs(30);
/// Longest reply, in bytes.
const REPLY_CAP: usize = 1024 * 1024;
/// Longest PEM file with roots, in bytes.
const ROOTS_CAP: u64 = 1024 * 1024;
/// Longest text that is shown of what came.
const SHOWN: usize = 80;

/// Where a service is: `https://HOST[:PORT][/PATH]`, or `http://` on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    secure: bool,
    host: String,
    port: u16,
    path: String,
}

/// A client of the payment service.
pub struct Payment {
    service: Service,
    tls: Option<TlsConnector>,
}

/// `GET /v1/nodes/{address}/jobs`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct History {
    /// Whose jobs.
    pub node_address: String,
    /// How many are listed.
    pub count: u64,
    /// The newest first, as the service gives them.
    pub jobs: Vec<Job>,
}

/// One job of a history.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The payment service's id.
    pub job_id: String,
    /// `leader` or `verifier`.
    pub role: String,
    /// What became of it.
    pub status: String,
    /// What it earned, if that is settled.
    pub amount_blind_earned: Option<f64>,
    /// The model.
    pub model_id: Option<String>,
    /// When it ended, as the service writes it.
    pub completed_at: Option<serde_json::Value>,
}

/// `GET /v1/nodes/{address}/earnings`.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Earnings {
    /// In BLIND.
    pub total_blind_earned: f64,
    /// Jobs that earned.
    pub jobs_count: u64,
}

impl Service {
    /// Its name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "wanted https://HOST[:PORT][/PATH], or http:// with an address of this machine".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(wrong());
        }
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let secure = match uri.scheme_str() {
            Some("https") => true,
            // Whoever sits between could write any history.
            Some("http") if is_this_machine(&host) => false,
            _ => return Err(wrong()),
        };
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        if host.is_empty() || (authority.port_u16().is_none() && authority.as_str() != authority.host()) {
            return Err(wrong());
        }
        Ok(Self { secure, host, port, path: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", Authority(self), self.path)
    }
}

/// `HOST:PORT` as it stands in a header.
struct Authority<'a>(&'a Service);

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Service { host, port, .. } = self.0;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Payment {
    /// A client that believes the roots in `roots` (PEM), or else this machine's.
    ///
    /// # Errors
    /// A configuration error for roots that cannot be used, an environment error where the machine has none.
    pub fn new(service: Service, roots: Option<&Path>) -> Result<Self, Error> {
        if !service.secure {
            return Ok(Self { service, tls: None });
        }
        let mut store = rustls::RootCertStore::empty();
        if let Some(file) = roots {
            let wrong = |e: &dyn fmt::Display| Error::config("PAYMENT_ROOTS", format!("{}: {e}", file.display()));
            for root in CertificateDer::pem_slice_iter(&read(file, ROOTS_CAP, "PAYMENT_ROOTS")?) {
                store.add(root.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
            }
            if store.is_empty() {
                return Err(wrong(&"wanted certificates in PEM, got none"));
            }
        } else {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(Error::environment("NO_ROOTS", "this machine has no roots to believe for HTTPS")
                    .hint("apt install ca-certificates, or name a PEM file with --payment-roots"));
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| Error::failed("TLS", e))?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self { service, tls: Some(TlsConnector::from(Arc::new(config))) })
    }

    /// The newest `limit` jobs of a node.
    ///
    /// # Errors
    /// An environment error if the service cannot be reached, a failure if it does not answer as it should.
    pub async fn history(&self, node: &Address, limit: u8) -> Result<History, Error> {
        let history: History = self.get(&format!("/v1/nodes/{node}/jobs?limit={limit}")).await?;
        if !history.node_address.eq_ignore_ascii_case(&node.to_string()) {
            let error = format!("node_address: wanted {node}, got {}", plain(&history.node_address));
            return Err(self.malformed(&error));
        }
        if history.jobs.len() > usize::from(limit) {
            return Err(self.malformed(&format!("jobs: wanted at most {limit}, got {}", history.jobs.len())));
        }
        Ok(history)
    }

    /// What a node earned.
    ///
    /// # Errors
    /// As [`Self::history`].
    pub async fn earnings(&self, node: &Address) -> Result<Earnings, Error> {
        self.get(&format!("/v1/nodes/{node}/earnings")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let (status, body) = match timeout(WITHIN, self.exchange(path)).await {
            Ok(answered) => answered?,
            Err(_) => return Err(self.unreachable(&format!("no whole reply within {} s", WITHIN.as_secs()))),
        };
        if status == StatusCode::NOT_FOUND {
            let error = format!("{}{path}: the payment service knows no such node", self.service);
            return Err(Error::failed("PAYMENT_UNKNOWN", error).hint(
                "a node is known there after its first job; is this the payment service of the node's network?",
            ));
        }
        if status != StatusCode::OK {
            let error = format!("{}{path}: wanted status 200, got {}", self.service, status.as_u16());
            return Err(Error::failed("PAYMENT_REFUSED", error).hint("try again later"));
        }
        // The parser's own words may repeat what came.
        serde_json::from_slice(&body).map_err(|e| self.malformed(&plain(&e.to_string())))
    }

    async fn exchange(&self, path: &str) -> Result<(StatusCode, Bytes), Error> {
        let Service { host, port, .. } = &self.service;
        let addresses = lookup_host((host.as_str(), *port)).await.map_err(|e| self.unreachable(&e))?;
        let stream = reach(addresses).await.map_err(|e| self.unreachable(&e))?;
        let Some(tls) = &self.tls else { return self.over(stream, path).await };
        let name = ServerName::try_from(host.clone()).map_err(|e| self.unreachable(&e))?;
        let stream = tls.connect(name, stream).await.map_err(|e| self.unreachable(&e))?;
        self.over(stream, path).await
    }

    async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        path: &str,
    ) -> Result<(StatusCode, Bytes), Error> {
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(|e| self.unreachable(&e))?;
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("{}{path}", self.service.path))
            .header(hyper::header::HOST, Authority(&self.service).to_string())
            .header(hyper::header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|e| Error::failed("PAYMENT", e))?;
        let reply = sender.send_request(request).await.map_err(|e| self.unreachable(&e))?;
        let status = reply.status();
        let body = Limited::new(reply.into_body(), REPLY_CAP).collect().await;
        connection.abort();
        Ok((status, body.map_err(|e| self.malformed(&plain(&e.to_string())))?.to_bytes()))
    }

    fn unreachable(&self, e: &dyn fmt::Display) -> Error {
        Error::environment("PAYMENT_UNREACHABLE", format!("payment service unreachable: {}: {e}", self.service))
            .hint("is payment_service_url right, and the network up? blf-host config show --origin")
    }

    fn malformed(&self, e: &str) -> Error {
        Error::failed("PAYMENT_MALFORMED", format!("payment service {}: {e}", self.service))
            .hint("is that the address of a payment service?")
    }
}

/// A stranger's text for a terminal: short, without control characters.
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_services() {
        for (text, shown) in [
            ("https://payment.example", "https://payment.example:443"),
            ("https://Payment.example:8443/api/", "https://payment.example:8443/api"),
            ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
            ("http://[::1]:8001", "http://[::1]:8001"),
            ("http://localhost", "http://localhost:80"),
        ] {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "payment.example",
            "http://payment.example",
            "ftp://payment.example",
            "https://user:secret@payment.example",
            "https://payment.example?key=secret",
            "https://payment.example:99999",
            "https://",
        ] {
            let error = bad.parse::<Service>().unwrap_err();
            assert!(error.starts_with("wanted https://HOST") && !error.contains("secret"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_strangers_text_is_plain() {
        assert_eq!(plain("a\u{1b}[31mb\n"), "a[31mb");
        assert_eq!(plain(&"x".repeat(200)).len(), SHOWN);
    }
}
