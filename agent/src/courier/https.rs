//! One HTTP/1.1 exchange after another with one server, over TLS over the tunnel. Every stage has a deadline, every
//! length a cap, and no redirect is followed: the server is hostile until its certificate is checked, and hostile
//! in what it answers even then.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blf_evidence::profile::Host;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::tls;
use crate::tunnel::{Egress, Tunnel, TunnelError};

/// How long the stages of an exchange may take. The tunnel has a deadline of its own.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// The TLS handshake.
    pub handshake: Duration,
    /// From the request to the head of the reply.
    pub head: Duration,
    /// The whole body of the reply.
    pub body: Duration,
}

/// One server.
pub struct Https<T> {
    egress: Arc<Egress<T>>,
    tls: TlsConnector,
    host: Host,
    deadlines: Deadlines,
    idle: Mutex<Idle>,
}

/// A connection, before or between exchanges. Dropping it closes it; nothing runs on its behalf elsewhere.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// The connection's own work; polled while an exchange is under way.
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Which generation of connections it belongs to.
    generation: u64,
    /// When its last exchange ended; its server may have closed it since. None before the first.
    served: Option<Instant>,
}

/// What is sent.
#[derive(Clone)]
pub struct Outgoing {
    /// GET or POST.
    pub method: Method,
    /// Path with query.
    pub path: String,
    /// Headers beside Host and Content-Length.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// `Retry-After` in seconds (RFC 9110, section 10.2.3); its date form is not understood.
    pub retry_after: Option<Duration>,
    /// The body, within the cap asked for.
    pub body: Bytes,
}

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Longer than allowed.
    #[error("reply body: wanted at most {cap} bytes")]
    BodyTooLong {
        /// In bytes.
        cap: usize,
    },
    /// The server closed a reused connection, and the request never left or only asks: it may be sent again.
    #[error("connection: closed by the server between requests")]
    Closed,
    /// The server's words are no HTTP/1.1, or the connection broke.
    #[error("reply: wanted HTTP/1.1")]
    Protocol,
    /// The request could not be built: a bug, or a name that is no DNS name.
    #[error("request: wanted a valid path, name and headers")]
    Request,
    /// A stage took too long.
    #[error("{stage}: not done within {within:?}")]
    Silent {
        /// Which stage.
        stage: &'static str,
        /// How long it might have taken.
        within: Duration,
    },
    /// The handshake failed.
    #[error("tls: {0}")]
    Tls(&'static str),
    /// There is no stream.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}

#[derive(Default)]
struct Idle {
    generation: u64,
    connections: Vec<Connection>,
}

/// Idle connections kept with one server: the poll and a job or two, each with two halves of a key.
const IDLE: usize = 4;
/// How long an idle connection is kept: servers keep one for a minute or more, and what lies between forgets in silence.
const IDLE_LIFE: Duration = Duration::from_secs(60);
/// Longest head of a reply, in bytes; hyper's read buffer.
const HEAD_CAP: usize = 32 * 1024;

impl<T: Tunnel> Https<T> {
    /// The server at `host`.
    pub fn new(egress: Arc<Egress<T>>, tls: TlsConnector, host: Host, deadlines: Deadlines) -> Self {
        Self { egress, tls, host, deadlines, idle: Mutex::default() }
    }

    /// Its DNS name.
    pub fn name(&self) -> &str {
        &self.host.name
    }

    /// Uses no connection made before: certificates are judged again, by what the clock says now.
    pub fn renew(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.generation += 1;
        idle.connections.clear();
    }

    /// An idle connection, or a new one.
    ///
    /// # Errors
    /// [`HttpError::Tunnel`], [`HttpError::Tls`], [`HttpError::Silent`].
    pub async fn connect(&self) -> Result<Connection, HttpError> {
        let generation = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.connections.retain(|c| c.served.is_some_and(|served| served.elapsed() < IDLE_LIFE));
            if let Some(connection) = idle.connections.pop() {
                return Ok(connection);
            }
            idle.generation
        };
        let stream = self.egress.dial(&self.host).await?;
        let name = ServerName::try_from(self.host.name.clone()).map_err(|_| HttpError::Request)?;
        let within = self.deadlines.handshake;
        let stream = timeout(within, self.tls.connect(name, stream))
            .await
            .map_err(|_| HttpError::Silent { stage: "tls handshake", within })?
            .map_err(|e| HttpError::Tls(tls::code(&e)))?;
        let (sender, work) = http1::Builder::new()
            .max_buf_size(HEAD_CAP)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| HttpError::Protocol)?;
        // How the connection ends shows in the exchange that it ends.
        let work = Box::pin(async move { drop(work.await) });
        Ok(Connection { sender, work, generation, served: None })
    }

    /// One exchange; the connection is kept for the next if the server allows.
    ///
    /// # Errors
    /// [`HttpError::Closed`] only for a reused connection, and only for what may be sent again: worth one more attempt on
    /// another.
    pub async fn exchange(
        &self,
        mut connection: Connection,
        outgoing: Outgoing,
        cap: usize,
    ) -> Result<Reply, HttpError> {
        let (reused, asks) = (connection.is_reused(), outgoing.method.is_safe());
        let request = self.request(outgoing)?;
        let Connection { sender, work, .. } = &mut connection;
        let failed = |error: hyper::Error| match error {
            // Hyper says so of what it never wrote.
            error if reused && (asks || error.is_canceled() || error.is_closed()) => HttpError::Closed,
            _ => HttpError::Protocol,
        };
        let exchange = async {
            let within = self.deadlines.head;
            let head = async {
                sender.ready().await?;
                sender.send_request(request).await
            };
            let head = timeout(within, head)
                .await
                .map_err(|_| HttpError::Silent { stage: "reply head", within })?
                .map_err(failed)?;
            let (head, body) = head.into_parts();
            let within = self.deadlines.body;
            let body = timeout(within, bounded(&head.headers, body, cap))
                .await
                .map_err(|_| HttpError::Silent { stage: "reply body", within })??;
            Ok::<_, HttpError>(Reply { status: head.status, retry_after: retry_after(&head.headers), body })
        };
        let reply = beside(work.as_mut(), exchange).await?;
        connection.served = Some(Instant::now());
        self.keep(connection).await;
        Ok(reply)
    }

    /// One exchange, and another on a new connection for each idle one that turns out to be closed.
    ///
    /// # Errors
    /// Those of [`Self::connect`] and [`Self::exchange`].
    pub async fn send(&self, outgoing: Outgoing, cap: usize) -> Result<Reply, HttpError> {
        loop {
            let connection = self.connect().await?;
            let reused = connection.is_reused();
            match self.exchange(connection, outgoing.clone(), cap).await {
                Err(HttpError::Closed) if reused => {}
                reply => return reply,
            }
        }
    }

    fn request(&self, outgoing: Outgoing) -> Result<Request<Full<Bytes>>, HttpError> {
        let Outgoing { method, path, headers, body } = outgoing;
        let uri: Uri = path.parse().map_err(|_| HttpError::Request)?;
        let Host { name, port } = &self.host;
        let host = if *port == 443 { name.clone() } else { format!("{name}:{port}") };
        let host = HeaderValue::try_from(host).map_err(|_| HttpError::Request)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().extend(headers.into_iter().map(|(name, value)| (Some(name), value)));
        Ok(request)
    }

    /// Keeps a connection that can serve again.
    async fn keep(&self, mut connection: Connection) {
        let Connection { sender, work, .. } = &mut connection;
        // After the last byte of a body hyper needs one more turn to know whether the connection lives on.
        let ready = timeout(Duration::ZERO, beside(work.as_mut(), sender.ready())).await;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(ready, Ok(Ok(()))) && idle.generation == connection.generation && idle.connections.len() < IDLE {
            idle.connections.push(connection);
        }
    }
}

impl Connection {
    /// It served an exchange before.
    pub fn is_reused(&self) -> bool {
        self.served.is_some()
    }
}

impl HttpError {
    /// Stable, in capitals.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BodyTooLong { .. } => "REPLY_TOO_LONG",
            Self::Closed => "CONNECTION_CLOSED",
            Self::Protocol => "REPLY_NOT_HTTP",
            Self::Request => "REQUEST_MALFORMED",
            Self::Silent { .. } => "SERVER_SILENT",
            Self::Tls(code) => code,
            Self::Tunnel(error) => error.code(),
        }
    }
}

/// Reads a body of at most `cap` bytes, whatever length the server declares.
async fn bounded(headers: &HeaderMap, mut body: Incoming, cap: usize) -> Result<Bytes, HttpError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if declared.is_some_and(|declared| usize::try_from(declared).is_ok_and(|d| d > cap)) {
        return Err(HttpError::BodyTooLong { cap });
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| HttpError::Protocol)?.into_data() else { continue };
        if bytes.len() + data.len() > cap {
            return Err(HttpError::BodyTooLong { cap });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse::<u32>().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

/// Does `task` while `work` goes on. `work` may end first: what it leaves behind decides how `task` ends.
async fn beside<R>(mut work: Pin<&mut (dyn Future<Output = ()> + Send)>, task: impl Future<Output = R>) -> R {
    let mut task = std::pin::pin!(task);
    tokio::select! {
        biased;
        result = &mut task => result,
        () = &mut work => task.await,
    }
}
