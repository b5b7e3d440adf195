//! The attested API: what a guest answers to whoever reaches it (architecture decision 13). Every stream that the host
//! leads in ends here.
//!
//! ```text
//! stream → TLS 1.3 with the key that evidence names → one HTTP/1.1 request → api.rs
//!               signer.rs: signed by the vault (key.rs)
//! ```
//!
//! Whoever comes is a stranger, and the host in between hostile: connections are few, heads short, bodies none, and
//! everything has a deadline.

mod api;
pub mod key;
mod signer;

use std::sync::Arc;
use std::time::Duration;

use blf_evidence::Hex;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::backoff::Backoff;
use crate::courier::vault::Vault;
use crate::daemon::Node;
use crate::frames::{FromVault, ToVault};
use crate::tunnel::{Egress, Tunnel};

/// Connections at a time; one more is closed at once.
pub const CONNECTIONS: usize = 16;
/// Longest head of a request, in bytes; the least that hyper takes.
const HEAD_CAP: usize = 8 * 1024;
/// Most headers of a request.
const HEADERS: usize = 32;
/// How long a client may take for its ClientHello, for the rest of its handshake, and for the head of its request, each.
const PROMPT: Duration = Duration::from_secs(10);
/// How long a request may take, with a slow TPM and a slow reader.
const EXCHANGE: Duration = Duration::from_secs(240);
/// How long the vault may take for what needs no device.
const QUICK: Duration = Duration::from_secs(30);

/// Serves every stream that comes in, for ever.
pub(crate) async fn serve<T: Tunnel>(node: Arc<Node<T>>, egress: Arc<Egress<T>>) {
    let api = Arc::new(api::Api::new(Arc::clone(&node)));
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut backoff = Backoff::new(node.timings.least, node.timings.most);
    loop {
        let stream = tokio::select! {
            stream = egress.inbound() => stream,
            Some(_) = connections.join_next() => continue,
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                let delay = backoff.failed(None);
                node.telemetry.trouble(error.code(), delay);
                sleep(delay).await;
                continue;
            }
        };
        backoff.succeeded();
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (node, api) = (Arc::clone(&node), Arc::clone(&api));
        connections.spawn(async move {
            // How it fails is the client's to see.
            if let Some((key, stream)) = handshake(&node.vault, stream).await {
                exchange(&api, key, stream).await;
            }
            drop(slot);
        });
    }
}

/// The server's side of a handshake; gives the key that was shown (its SPKI's SHA-256).
async fn handshake<S>(vault: &Vault, stream: S) -> Option<(Hex<32>, TlsStream<S>)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let hello = timeout(PROMPT, LazyConfigAcceptor::new(Default::default(), stream)).await.ok()?.ok()?;
    let FromVault::TlsCertificate { der, key } = vault.call(ToVault::TlsCertificate, QUICK).await.ok()? else {
        return None;
    };
    let config = signer::config(vault.clone(), der, key)?;
    // rustls signs in the middle of a call that cannot await the vault, so that call gets a thread.
    let rest = tokio::task::spawn_blocking(move || hello.into_stream(config)).await.ok()?;
    let stream = timeout(PROMPT, rest).await.ok()?.ok()?;
    Some((key, stream))
}

/// One request, and the end of the connection.
async fn exchange<T: Tunnel, S>(api: &api::Api<T>, key: Hex<32>, stream: TlsStream<S>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut server = http1::Builder::new();
    server.keep_alive(false).max_buf_size(HEAD_CAP).max_headers(HEADERS);
    server.timer(TokioTimer::new()).header_read_timeout(PROMPT);
    let connection = server.serve_connection(TokioIo::new(stream), service_fn(|request| api.answer(key, request)));
    drop(timeout(EXCHANGE, connection).await);
}
