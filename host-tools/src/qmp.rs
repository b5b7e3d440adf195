//! The QEMU Machine Protocol, as far as a VM's supervisor needs it: ask how it is, end it.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::forward::read_line;

/// A connection in command mode.
pub struct Qmp(BufReader<UnixStream>);

/// For one command and its answer.
const COMMAND: Duration = Duration::from_secs(5);
/// Longest line QEMU sends for the commands used here, in bytes.
const LINE_CAP: usize = 64 * 1024;

impl Qmp {
    /// Connects to QEMU's socket and leaves negotiation mode.
    ///
    /// # Errors
    /// Those of the socket, and of a peer that does not speak QMP in time.
    pub async fn connect(socket: &Path) -> io::Result<Self> {
        let mut qmp = Self(BufReader::new(UnixStream::connect(socket).await?));
        timeout(COMMAND, qmp.line()).await??;
        qmp.command("qmp_capabilities").await?;
        Ok(qmp)
    }

    /// QEMU's `RunState`: `running`, `internal-error`, `shutdown`, …
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn status(&mut self) -> io::Result<String> {
        let answer = self.command("query-status").await?;
        answer.get("status").and_then(Value::as_str).map(Into::into).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Ends QEMU at once.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn quit(&mut self) -> io::Result<()> {
        self.command("quit").await.map(drop)
    }

    async fn command(&mut self, name: &str) -> io::Result<Value> {
        let exchange = async {
            self.0.write_all(format!("{}\n", json!({ "execute": name })).as_bytes()).await?;
            loop {
                // Events come in between and are of no interest.
                match self.line().await? {
                    Message { ret: Some(value), .. } => return Ok(value),
                    Message { error: Some(error), .. } => return Err(io::Error::other(error.to_string())),
                    _ => {}
                }
            }
        };
        timeout(COMMAND, exchange).await?
    }

    async fn line(&mut self) -> io::Result<Message> {
        let line = read_line(&mut self.0, LINE_CAP).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(serde_json::from_slice(&line)?)
    }
}

/// The members of QMP's messages that matter here (QMP specification, section 2.4).
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "return")]
    ret: Option<Value>,
    error: Option<Value>,
}
