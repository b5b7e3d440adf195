//! The courier's end of the socket to the vault: calls with deadlines, replies in any order.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use blf_evidence::Hex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::frames::{self, FrameError, FromVault, HEADER, ToVault, UNASKED};

/// Asks the vault. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    calls: mpsc::Sender<Call>,
    stop: watch::Receiver<bool>,
}

/// Why the vault did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The socket is closed: the vault is gone, and so is this node.
    #[error("vault: gone")]
    Gone,
    /// It refused.
    #[error("vault: refused with {code}")]
    Refused {
        /// Its code.
        code: String,
    },
    /// Not in time.
    #[error("vault: no answer within {0:?}")]
    Silent(Duration),
    /// A reply to another question.
    #[error("vault: wanted another reply")]
    Unexpected,
}

/// Why the socket to the vault is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A frame that is none.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The socket failed or was closed.
    #[error("vault socket: {0}")]
    Io(#[from] io::Error),
}

struct Call {
    message: ToVault,
    reply: oneshot::Sender<FromVault>,
}

type Pending = Mutex<HashMap<u32, oneshot::Sender<FromVault>>>;

/// Calls waiting to be written.
const CALLS: usize = 16;

impl Vault {
    /// Speaks frames on `socket`. The second value is the work; it ends only when the socket fails, or when nobody
    /// can call any more.
    pub fn connect<S>(socket: S) -> (Self, impl Future<Output = Result<(), LinkError>> + Send)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (calls, queue) = mpsc::channel(CALLS);
        let (stopping, stop) = watch::channel(false);
        let work = async move {
            let (reader, writer) = tokio::io::split(socket);
            let pending = Pending::default();
            // Either end of the socket alone is of no use.
            tokio::select! {
                ended = write(writer, queue, &pending) => ended,
                ended = read(reader, &pending, &stopping) => ended,
            }
        };
        (Self { calls, stop }, work)
    }

    /// Becomes true when the vault wants the node to stop.
    pub fn stop(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }

    /// Asks, and waits for the answer for at most `within`.
    ///
    /// # Errors
    /// [`CallError`]; a refusal is one.
    pub async fn call(&self, message: ToVault, within: Duration) -> Result<FromVault, CallError> {
        let (reply, answer) = oneshot::channel();
        let call = async {
            self.calls.send(Call { message, reply }).await.map_err(|_| CallError::Gone)?;
            answer.await.map_err(|_| CallError::Gone)
        };
        match timeout(within, call).await {
            Ok(Ok(FromVault::Refused { code })) => Err(CallError::Refused { code }),
            Ok(answer) => answer,
            Err(_) => Err(CallError::Silent(within)),
        }
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn done(&self, message: ToVault, within: Duration) -> Result<(), CallError> {
        match self.call(message, within).await? {
            FromVault::Done => Ok(()),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Fresh evidence, as JSON text.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn attest(
        &self,
        purpose: blf_evidence::statement::Purpose,
        audience: String,
        nonce: Hex<32>,
        within: Duration,
    ) -> Result<String, CallError> {
        match self.call(ToVault::Attest { purpose, audience, nonce }, within).await? {
            FromVault::Evidence(text) => Ok(text),
            _ => Err(CallError::Unexpected),
        }
    }
}

impl CallError {
    /// Stable, in capitals.
    pub fn code(&self) -> &str {
        match self {
            Self::Gone => "VAULT_GONE",
            Self::Refused { code } => code,
            Self::Silent(_) => "VAULT_SILENT",
            Self::Unexpected => "VAULT_UNEXPECTED",
        }
    }
}

async fn write(
    mut socket: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Call>,
    pending: &Pending,
) -> Result<(), LinkError> {
    let mut id = UNASKED;
    while let Some(Call { message, reply }) = queue.recv().await {
        if reply.is_closed() {
            continue; // whoever asked has given up
        }
        id = id.checked_add(1).unwrap_or(UNASKED + 1);
        let frame = frames::encode(id, &message)?;
        pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, reply);
        socket.write_all(&frame).await?;
        socket.flush().await?;
    }
    Ok(())
}

async fn read(
    mut socket: impl AsyncRead + Unpin,
    pending: &Pending,
    stopping: &watch::Sender<bool>,
) -> Result<(), LinkError> {
    loop {
        let mut header = [0; HEADER];
        socket.read_exact(&mut header).await?;
        let (id, length) = frames::parse_header(header)?;
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await?;
        match frames::decode(&body)? {
            FromVault::Stop if id == UNASKED => {
                stopping.send_replace(true);
            }
            message => {
                // Nobody waits any more if the call was given up.
                if let Some(reply) = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
                    drop(reply.send(message));
                }
            }
        }
    }
}
