//! The documents connection: what the guest is told, what it proves before the tunnel opens, and how it is asked to stop.
//!
//! ```text
//! host → guest   u32 big-endian length, HostDocuments as JSON
//! host → guest   32 bytes: nonce
//! guest → host   u32 big-endian length, Evidence as JSON: purpose `session`, audience = the name in the configuration
//! host → guest   one byte 0x01: drain and stop; end of stream without it: the host is gone, drain and stop
//! ```

use std::io;
use std::time::Duration;

use blf_evidence::Hex;
use blf_evidence::bundle::{EVIDENCE_CAP, Evidence};
use blf_evidence::json::JsonError;
use blf_evidence::tunnel::{DOCUMENTS_CAP, HostDocuments};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use crate::vsock::{Listener, Stream};

/// The byte that asks a guest to drain and stop.
pub const STOP: u8 = 1;

/// A guest that took its documents and proved something. Dropping it tells the guest that the host is gone.
pub struct Session {
    stream: Stream,
    /// What the guest says.
    pub evidence: Evidence,
    /// The nonce that its binding must carry.
    pub nonce: Hex<32>,
}

/// Why no guest took its documents.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// No Evidence in time.
    #[error("wanted the guest's evidence within {} s, got {}", .within.as_secs(), .last.as_deref().unwrap_or("no connection"))]
    Deadline {
        /// The deadline.
        within: Duration,
        /// Why the last connection ended, if there was one.
        last: Option<String>,
    },
    /// The guest answered with something that is no Evidence document.
    #[error(transparent)]
    Evidence(JsonError),
    /// The listener or the random number generator failed.
    #[error("documents connection: {0}")]
    Io(#[from] io::Error),
    /// The documents are longer than a guest reads.
    #[error("host documents: wanted at most {DOCUMENTS_CAP} bytes, got {got}")]
    TooLong {
        /// Length in bytes.
        got: usize,
    },
}

/// Hands `documents` to the guest behind `listener` and waits for its Evidence.
///
/// A connection that breaks off is replaced by the guest's next one, with a new nonce, until `within` is over. The
/// listener closes when this returns: a guest gets its documents once.
///
/// # Errors
/// [`DocumentsError`].
pub async fn offer(
    mut listener: Listener,
    documents: &HostDocuments,
    within: Duration,
) -> Result<Session, DocumentsError> {
    let text = serde_json::to_vec(documents).map_err(io::Error::from)?;
    let length = u32::try_from(text.len()).ok().filter(|_| text.len() <= DOCUMENTS_CAP);
    let Some(length) = length else {
        return Err(DocumentsError::TooLong { got: text.len() });
    };
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&text);

    let deadline = Instant::now() + within;
    let mut last = None;
    loop {
        let Ok(stream) = timeout_at(deadline, listener.accept()).await else {
            return Err(DocumentsError::Deadline { within, last });
        };
        let mut stream = stream?;
        let mut nonce = Hex([0; 32]);
        getrandom::fill(&mut nonce.0).map_err(io::Error::other)?;
        match timeout_at(deadline, exchange(&mut stream, &frame, &nonce)).await {
            Ok(Ok(bytes)) => {
                let evidence = Evidence::parse(&bytes).map_err(DocumentsError::Evidence)?;
                return Ok(Session { stream, evidence, nonce });
            }
            Ok(Err(error)) => last = Some(format!("a connection that broke off: {error}")),
            Err(_) => last = Some("a connection without a whole evidence frame".into()),
        }
    }
}

async fn exchange(stream: &mut Stream, frame: &[u8], nonce: &Hex<32>) -> io::Result<Vec<u8>> {
    stream.write_all(frame).await?;
    stream.write_all(&nonce.0).await?;
    let got = stream.read_u32().await?;
    let length = usize::try_from(got).unwrap_or(usize::MAX);
    if length > EVIDENCE_CAP {
        return Err(io::Error::other(format!("evidence: wanted at most {EVIDENCE_CAP} bytes, got {got}")));
    }
    // The buffer grows with what arrives, never with what is announced.
    let mut bytes = Vec::new();
    let taken = (&mut *stream).take(length as u64).read_to_end(&mut bytes).await?;
    if taken < length {
        return Err(io::Error::other(format!("evidence: wanted {length} bytes, got {taken}")));
    }
    Ok(bytes)
}

impl Session {
    /// Asks the guest to drain and stop.
    ///
    /// # Errors
    /// Those of the stream: the guest is gone already.
    pub async fn stop(&mut self) -> io::Result<()> {
        self.stream.write_all(&[STOP]).await?;
        self.stream.flush().await
    }
}
