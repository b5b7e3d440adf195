//! The world behind the tunnel: every dial ends at a TLS server in this process.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use blf_agent::tunnel::{Tunnel, TunnelError};
use blf_evidence::profile::Host;
use blf_evidence::telemetry::Event;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, DuplexStream, duplex,
};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::TlsAcceptor;

/// A request as a peer sees it.
pub struct Call {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What a peer does with it.
#[derive(Clone, Debug)]
pub enum Reply {
    Whole(u16, Vec<(&'static str, String)>, Bytes),
    /// Never a head.
    Silence,
    /// Chunks without end.
    Endless,
    /// One byte every ten seconds.
    Dribble,
    /// The connection is closed.
    Hangup,
}

/// Bytes that a server says to any request, whatever they mean.
#[derive(Clone, Debug)]
pub struct Script {
    pub once: Vec<u8>,
    /// Said again and again; the connection is closed if there is nothing to say.
    pub again: Vec<u8>,
    pub every: Duration,
}

impl Script {
    async fn play(self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
        let mut request = Vec::new();
        while !request.windows(4).any(|w| w == b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => return,
            }
        }
        let mut said = stream.write_all(&self.once).await;
        while said.is_ok() && !self.again.is_empty() {
            sleep(self.every).await;
            said = stream.write_all(&self.again).await;
        }
        drop(stream.shutdown().await);
    }
}

pub trait Peer: Send + Sync + 'static {
    fn answer(&self, host: &str, call: Call) -> Reply;
}

/// Clones share everything.
#[derive(Clone)]
pub struct Net(Arc<Inner>);

struct Inner {
    tls: Mutex<Arc<ServerConfig>>,
    peer: Arc<dyn Peer>,
    dials: AtomicUsize,
    /// Close after each reply without saying so first.
    rude: AtomicBool,
    deaf: AtomicBool,
    /// No server is there: dials are refused.
    down: AtomicBool,
    /// Ends the streams that are open.
    cut: Notify,
    /// What servers say instead of an answer: the one of this name, or all of them.
    script: Mutex<Option<(Option<&'static str>, Script)>>,
    /// Dials to this name are refused.
    gone: Mutex<Option<&'static str>>,
    /// When dials were refused.
    refused: Mutex<Vec<Instant>>,
    events: Mutex<Vec<(Instant, Event)>>,
}

impl Net {
    pub fn new(tls: Arc<ServerConfig>, peer: Arc<dyn Peer>) -> Self {
        Self(Arc::new(Inner {
            tls: Mutex::new(tls),
            peer,
            dials: AtomicUsize::default(),
            rude: AtomicBool::default(),
            deaf: AtomicBool::default(),
            down: AtomicBool::default(),
            cut: Notify::default(),
            script: Mutex::default(),
            gone: Mutex::default(),
            refused: Mutex::default(),
            events: Mutex::default(),
        }))
    }

    pub fn dials(&self) -> usize {
        self.0.dials.load(Ordering::Relaxed)
    }

    pub fn set_tls(&self, tls: Arc<ServerConfig>) {
        *self.0.tls.lock().unwrap() = tls;
    }

    /// From now on connections are closed behind the client's back after each reply.
    pub fn be_rude(&self) {
        self.0.rude.store(true, Ordering::Relaxed);
    }

    /// From now on nobody takes telemetry.
    pub fn be_deaf(&self, deaf: bool) {
        self.0.deaf.store(deaf, Ordering::Relaxed);
    }

    /// Takes the servers away, or starts them again.
    pub fn be_down(&self, down: bool) {
        self.0.down.store(down, Ordering::Relaxed);
        self.0.cut.notify_waiters();
    }

    /// From now on servers read from a script.
    pub fn be_hostile(&self, script: Option<Script>) {
        self.read(script.map(|script| (None, script)));
    }

    /// From now on one server reads from a script.
    pub fn be_hostile_at(&self, host: &'static str, script: Script) {
        self.read(Some((Some(host), script)));
    }

    fn read(&self, script: Option<(Option<&'static str>, Script)>) {
        *self.0.script.lock().unwrap() = script;
        self.0.cut.notify_waiters();
    }

    /// Takes one server away, or starts it again.
    pub fn be_gone(&self, host: Option<&'static str>) {
        *self.0.gone.lock().unwrap() = host;
        self.0.cut.notify_waiters();
    }

    /// When dials found no server.
    pub fn refused(&self) -> Vec<Instant> {
        self.0.refused.lock().unwrap().clone()
    }

    pub fn events(&self) -> Vec<Event> {
        self.0.events.lock().unwrap().iter().map(|(_, event)| event.clone()).collect()
    }

    async fn serve(self, stream: DuplexStream, host: String) {
        let tls = TlsAcceptor::from(Arc::clone(&self.0.tls.lock().unwrap()));
        let Ok(mut stream) = tls.accept(stream).await else { return };
        let script = self.0.script.lock().unwrap().clone();
        if let Some((at, script)) = script
            && at.is_none_or(|at| at == host)
        {
            return script.play(&mut stream).await;
        }
        let answer = |request: Request<Incoming>| {
            let (net, host) = (self.clone(), host.clone());
            async move {
                let (head, body) = request.into_parts();
                let Ok(body) = body.collect().await else { return Err(io::Error::from(io::ErrorKind::BrokenPipe)) };
                let call = Call {
                    method: head.method.to_string(),
                    path: head.uri.to_string(),
                    headers: head.headers,
                    body: body.to_bytes(),
                };
                let (status, headers, body) = match net.0.peer.answer(&host, call) {
                    Reply::Whole(status, headers, body) => (status, headers, Answer::Whole(Some(body))),
                    Reply::Silence => std::future::pending().await,
                    Reply::Endless => (200, vec![], Answer::Endless),
                    Reply::Dribble => (200, vec![], Answer::Dribble(Box::pin(sleep(Duration::ZERO)))),
                    Reply::Hangup => return Err(io::ErrorKind::BrokenPipe.into()),
                };
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                Ok(response.body(body).unwrap())
            }
        };
        let rude = self.0.rude.load(Ordering::Relaxed);
        let server = hyper::server::conn::http1::Builder::new();
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service_fn(answer)));
        if rude {
            // Long enough for a reply, too short for a second one.
            drop(tokio::time::timeout(Duration::from_secs(1), &mut connection).await);
        } else {
            drop(connection.await);
        }
    }
}

impl Tunnel for Net {
    type Stream = DuplexStream;

    async fn dial(&self, host: &Host) -> Result<DuplexStream, TunnelError> {
        self.0.dials.fetch_add(1, Ordering::Relaxed);
        if self.0.down.load(Ordering::Relaxed) || self.0.gone.lock().unwrap().is_some_and(|gone| gone == host.name) {
            self.0.refused.lock().unwrap().push(Instant::now());
            return Err(TunnelError::Io(io::ErrorKind::ConnectionRefused));
        }
        let (near, far) = duplex(16 * 1024);
        let (net, name) = (self.clone(), host.name.clone());
        tokio::spawn(async move {
            let cut = Arc::clone(&net.0);
            tokio::select! {
                () = net.serve(far, name) => {}
                () = cut.cut.notified() => {}
            }
        });
        Ok(near)
    }

    async fn telemetry(&self) -> Result<DuplexStream, TunnelError> {
        if self.0.deaf.load(Ordering::Relaxed) {
            return Err(TunnelError::Io(io::ErrorKind::ConnectionRefused));
        }
        let (near, far) = duplex(1024);
        let net = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(far).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let event = Event::parse(line.as_bytes()).unwrap();
                net.0.events.lock().unwrap().push((Instant::now(), event));
            }
        });
        Ok(near)
    }
}

enum Answer {
    Whole(Option<Bytes>),
    Endless,
    Dribble(Pin<Box<Sleep>>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = |data: Bytes| Poll::Ready(Some(Ok(Frame::data(data))));
        match &mut *self {
            Self::Whole(body) => body.take().filter(|b| !b.is_empty()).map_or(Poll::Ready(None), data),
            Self::Endless => data(Bytes::from_static(&[b' '; 4096])),
            Self::Dribble(next) => {
                std::task::ready!(next.as_mut().poll(context));
                next.as_mut().reset(Instant::now() + Duration::from_secs(10));
                data(Bytes::from_static(b" "))
            }
        }
    }
}
