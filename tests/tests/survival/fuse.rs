//! What cuts a node off from the outside: after so many bytes of its streams, or at once. Nothing in the agent knows.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use blf_agent::tunnel::{Tunnel, TunnelError};
use blf_evidence::profile::Host;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Counts bytes, and blows at the last one that is allowed.
#[derive(Default)]
pub(crate) struct Fuse {
    passed: AtomicU64,
    /// Bytes that may still pass; none while it is not armed.
    left: Mutex<Option<u64>>,
    blown: AtomicBool,
    blowing: Notify,
}

impl Fuse {
    /// Bytes so far.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// Lets `bytes` more pass, then none.
    pub(crate) fn arm(&self, bytes: u64) {
        *self.left.lock().unwrap() = Some(bytes);
    }

    /// Lets nothing pass from now on.
    pub(crate) fn blow(&self) {
        self.blown.store(true, Ordering::SeqCst);
        self.blowing.notify_waiters();
    }

    /// Waits until it has blown.
    pub(crate) async fn blown(&self) {
        loop {
            let blowing = self.blowing.notified();
            if self.blown.load(Ordering::SeqCst) {
                return;
            }
            blowing.await;
        }
    }

    /// How many of `wanted` bytes may pass; zero when it has blown.
    fn room(&self, wanted: usize) -> usize {
        if self.blown.load(Ordering::SeqCst) {
            return 0;
        }
        match *self.left.lock().unwrap() {
            None => wanted,
            Some(left) => wanted.min(usize::try_from(left).unwrap_or(usize::MAX)),
        }
    }

    fn pass(&self, bytes: usize) {
        self.passed.fetch_add(bytes as u64, Ordering::SeqCst);
        let mut left = self.left.lock().unwrap();
        if let Some(left) = left.as_mut() {
            *left = left.saturating_sub(bytes as u64);
            if *left == 0 {
                self.blow();
            }
        }
    }
}

/// A stream through a fuse: when it blows, the stream stands still, as after `kill -9` nothing is said any more.
pub(crate) struct Fused<S> {
    pub(crate) stream: S,
    pub(crate) fuse: Arc<Fuse>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Fused<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = self.fuse.room(buffer.remaining());
        if room == 0 {
            self.fuse.blow();
            return Poll::Pending;
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        std::task::ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
        let bytes = part.filled().len();
        buffer.advance(bytes);
        self.fuse.pass(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Fused<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = self.fuse.room(bytes.len());
        if room == 0 {
            self.fuse.blow();
            return Poll::Pending;
        }
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(context, &bytes[..room]))?;
        self.fuse.pass(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Streams by TCP instead of vsock, through one fuse.
pub(crate) struct Tcp {
    pub(crate) devnet: SocketAddr,
    pub(crate) telemetry: SocketAddr,
    pub(crate) fuse: Arc<Fuse>,
}

impl Tunnel for Tcp {
    type Stream = Fused<TcpStream>;

    async fn dial(&self, _: &Host) -> Result<Self::Stream, TunnelError> {
        let stream = TcpStream::connect(self.devnet).await.map_err(|e| TunnelError::Io(e.kind()))?;
        Ok(Fused { stream, fuse: Arc::clone(&self.fuse) })
    }

    async fn telemetry(&self) -> Result<Self::Stream, TunnelError> {
        let stream = TcpStream::connect(self.telemetry).await.map_err(|e| TunnelError::Io(e.kind()))?;
        // What a node says about itself is no part of a job.
        Ok(Fused { stream, fuse: Arc::default() })
    }
}
