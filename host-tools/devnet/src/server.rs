//! Connections: TLS 1.3 or none, HTTP/1.1, caps and deadlines on everything, and the tasks' one owner.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::peer::Door;
use crate::refusal::{Refused, Result};
use crate::routes::{Call, Reply, Routes};

/// Connections at once.
const CONNECTIONS: usize = 256;
/// For a request's body and its answer.
const REQUEST: Duration = Duration::from_secs(30);
/// For open connections to end after a stop was asked for.
const STOP: Duration = Duration::from_secs(5);
/// Longest head of a request, in bytes.
const HEAD_CAP: usize = 16 * 1024;

/// Accepts until `stop` turns true, then waits for the connections it owns.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    routes: Arc<Routes>,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let slot = tokio::select! {
            () = asked(&mut stop) => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = asked(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, or the peer is gone already: neither is helped by trying at once.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (tls, routes, stop) = (tls.clone(), Arc::clone(&routes), stop.clone());
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            match tls {
                None => connection(stream, peer, &Door::Plain, &routes, stop).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(routes.patience(), tls.accept(stream)).await
                        && let Some(name) = stream.get_ref().1.server_name().map(str::to_owned)
                    {
                        connection(stream, peer, &Door::Tls(name), &routes, stop).await;
                    }
                }
            }
            drop(slot);
        });
    }
    drop(listener);
    let _ = timeout(STOP, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
}

/// One connection. Whatever goes wrong below HTTP ends it and concerns nobody else.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    door: &Door,
    routes: &Routes,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(|request| async move {
        let reply = match timeout(REQUEST, answer(request, peer.ip(), door, routes)).await {
            Ok(reply) => reply,
            Err(_) => Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "TIMEOUT", "request: took too long")),
        };
        Ok::<_, std::convert::Infallible>(response(reply))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(routes.patience())
        .max_buf_size(HEAD_CAP)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = asked(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Waits until a stop is asked for.
pub(crate) async fn asked(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could ask is gone, which is a reason to stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Reads the whole request, within its cap, and answers it.
async fn answer(request: Request<Incoming>, peer: IpAddr, door: &Door, routes: &Routes) -> Result<Reply> {
    let host = request.headers().get(HOST).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    if let Door::Tls(name) = door
        && host != name
    {
        let detail = format!("host: wanted {name}, for which the TLS session was made");
        return Err(Refused::new(StatusCode::MISDIRECTED_REQUEST, "WRONG_HOST", detail));
    }
    let (head, body) = request.into_parts();
    let cap = routes.body_cap(door, head.uri.path());
    let length = head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|length| length > cap as u64) {
        return Err(Refused::too_large(cap));
    }
    let body = match Limited::new(body, cap).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(Refused::too_large(cap)),
        Err(_) => return Err(Refused::malformed("body: ended early")),
    };
    routes.answer(Call { head, body, peer, at: Instant::now() }, door).await
}

/// The reply or the refusal as HTTP.
fn response(reply: Result<Reply>) -> Response<Full<Bytes>> {
    let Reply { status, content_type, retry_after, body } = reply.unwrap_or_else(|refused| Reply {
        status: refused.status,
        content_type: "application/json",
        retry_after: refused.retry_after,
        body: serde_json::to_vec(&refused.document()).unwrap_or_default(),
    });
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
