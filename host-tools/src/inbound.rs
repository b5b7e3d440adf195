//! Inbound streams: whoever connects to `--api` is led into the guest, where TLS ends. The host reads no byte of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blf_evidence::tunnel::PORT_API;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::{Error, Exit};
use crate::forward::{Counters, carry};
use crate::vsock::Dialer;

/// Streams at a time; one more is closed at once.
pub const STREAMS: usize = 32;
/// For the guest to take a stream. Long, for the reason in [`Dialer::connect`].
const CONNECT: Duration = Duration::from_secs(60);
/// Without a byte in either direction.
const IDLE: Duration = Duration::from_secs(300);
/// Before another attempt where the system has no more sockets.
const PAUSE: Duration = Duration::from_millis(500);

/// Listens for the node with this number, 0 being the first: each has a port of its own, one after another.
///
/// # Errors
/// A usage error if there is no such port, an environment error if it cannot be had.
pub async fn listen(first: SocketAddr, number: u16) -> Result<TcpListener, Error> {
    let mut address = first;
    if first.port() != 0 {
        let port = first.port().checked_add(number).ok_or_else(|| {
            Error::new(Exit::Usage, "API", format!("--api {first}: wanted {number} more ports after this, up to 65535"))
        })?;
        address.set_port(port);
    }
    let bound = TcpListener::bind(address).await;
    bound.map_err(|e| Error::environment("API", format!("--api: cannot listen on {address}: {e}")))
}

/// Leads streams into the guest until the future is dropped; they end with it.
pub async fn serve(listener: TcpListener, guest: Dialer, counters: Arc<Counters>) {
    let slots = Arc::new(Semaphore::new(STREAMS));
    let mut streams = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = streams.join_next() => continue,
        };
        let Ok((client, _)) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            counters.inbound_refused();
            continue;
        };
        let (guest, counters) = (guest.clone(), Arc::clone(&counters));
        streams.spawn(async move {
            if lead_in(client, &guest, &counters).await.is_err() {
                counters.inbound_refused();
            }
            drop(slot);
        });
    }
}

async fn lead_in(client: TcpStream, guest: &Dialer, counters: &Counters) -> io::Result<()> {
    // Small TLS records must not wait for each other.
    client.set_nodelay(true)?;
    let stream = timeout(CONNECT, guest.connect(PORT_API)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    counters.inbound();
    carry(stream, client, IDLE, counters).await;
    Ok(())
}
