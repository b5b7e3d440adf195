//! A process of ours: it ends with us, never receives the terminal's Ctrl-C, and what it prints is kept within a bound.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::Error;

/// Bytes of output that are kept, the newest.
const KEPT: usize = 64 * 1024;

/// All that a process of ours inherits of our environment, where an operator may keep secrets.
const INHERITED: [&str; 3] = ["LD_LIBRARY_PATH", "PATH", "TMPDIR"];

/// A running process.
pub struct Child {
    name: &'static str,
    process: tokio::process::Child,
    /// Standard output: for a VM its serial console.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
    readers: Vec<JoinHandle<()>>,
}

/// The last `KEPT` bytes a process printed.
#[derive(Clone, Default)]
pub struct Output(Arc<Mutex<VecDeque<u8>>>);

impl Child {
    /// Starts `program`.
    ///
    /// `setpriv` (util-linux) makes the kernel kill the process when the thread that started it ends, however it
    /// ends, and keeps it from gaining privileges. So this must be called from a thread that lives as long as the
    /// process: the main thread or a runtime's worker.
    ///
    /// # Errors
    /// An environment error if it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        name: &'static str,
        setpriv: &Path,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, Error> {
        let mut process = Command::new(setpriv)
            .args(["--pdeathsig", "KILL", "--no-new-privs", "--"])
            .arg(program)
            .args(arguments)
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, env::var_os(name)?))))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::environment("PROGRAM", format!("{name}: cannot start {}: {e}", program.display())))?;
        let (stdout, stderr) = (Output::default(), Output::default());
        let readers = vec![
            tokio::spawn(keep(process.stdout.take(), stdout.clone())),
            tokio::spawn(keep(process.stderr.take(), stderr.clone())),
        ];
        Ok(Self { name, process, stdout, stderr, readers })
    }

    /// Its process id, until it was awaited.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Those of waiting.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait().await?;
        while let Some(reader) = self.readers.last_mut() {
            // What it printed last; a grandchild that holds the pipe open is not waited for.
            drop(timeout(Duration::from_secs(1), reader).await);
            self.readers.pop();
        }
        Ok(status)
    }

    /// Whether it has ended, without waiting.
    ///
    /// # Errors
    /// Those of asking.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// Its end as an error: status and last words.
    pub fn died(&self, status: ExitStatus) -> Error {
        let words = self.stderr.last_lines(3);
        let words = if words.is_empty() { "it said nothing".into() } else { words };
        Error::failed("PROGRAM_ENDED", format!("{} ended by itself ({status}): {words}", self.name))
    }

    /// Asks it to end (SIGTERM), waits, then kills it.
    pub async fn stop(&mut self, within: Duration) {
        if self.ended().is_ok_and(|status| status.is_some()) {
            return;
        }
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Not reaped yet, so the number is still its own.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(within, self.process.wait()).await.is_err() {
            drop(self.process.kill().await);
        }
    }
}

impl Output {
    /// The kept output as text; bytes that are no text are replaced, control characters but the newline removed.
    pub fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (a, b) = kept.as_slices();
        let text = String::from_utf8_lossy(&[a, b].concat()).into_owned();
        text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
    }

    /// The last `count` lines that are not blank, joined by ` / `.
    pub fn last_lines(&self, count: usize) -> String {
        let text = self.text();
        let mut lines: Vec<_> = text.lines().rev().filter(|l| !l.trim().is_empty()).take(count).collect();
        lines.reverse();
        lines.join(" / ")
    }

    /// What a Linux guest printed from its first complaint on, at most `count` lines; its last words if it had none.
    pub fn complaint(&self, count: usize) -> String {
        let text = self.text();
        let lines: Vec<_> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        let complains = |line: &&str| ["BUG:", "Oops", "Kernel panic", "panicked at"].iter().any(|c| line.contains(c));
        let first = lines.iter().position(complains).unwrap_or_else(|| lines.len().saturating_sub(count));
        lines.into_iter().skip(first).take(count).collect::<Vec<_>>().join(" / ")
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
}

async fn keep(pipe: Option<impl AsyncRead + Unpin>, output: Output) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        output.push(buffer.get(..n).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_quoted_from_its_first_complaint_on() {
        let output = Output::default();
        output.push(b"booting\r\n\r\n[1.0] Oops: int3: 0000 [#1] SMP\r\n[1.1] RIP: here\r\n[1.2] Kernel panic\r\n");
        assert_eq!(output.complaint(2), "[1.0] Oops: int3: 0000 [#1] SMP / [1.1] RIP: here");
        let output = Output::default();
        output.push(b"one\ntwo\nthree\n");
        assert_eq!(output.complaint(2), "two / three");
    }
}
