//! PID 1 after boot: starts the other roles, buries the dead, restarts a few times, and ends the guest.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use blf_evidence::tunnel::DRAIN;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use vsock::VsockStream;

use super::documents::stop_asked;
use super::{ENGINE_READY, SystemError};
use crate::engine::{EngineError, EngineProcess};
use crate::sandbox;
use crate::vault::{Ended, Vault};

/// How often one role may be restarted within [`RESTART_WINDOW`].
const RESTARTS: usize = 3;
/// See [`RESTARTS`].
const RESTART_WINDOW: Duration = Duration::from_secs(60 * 60);
/// How long requests may take to end once the engine is dead.
const SETTLE: Duration = Duration::from_secs(3);
/// Before a restart.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A guest that has booted.
pub(super) struct Guest {
    pub(super) vault: Arc<Vault>,
    engine: Arc<EngineProcess>,
    pack: File,
    engine_pid: Pid,
    courier_pid: Option<Pid>,
    engine_restarts: Restarts,
    courier_restarts: Restarts,
    news: Receiver<News>,
    tell: Sender<News>,
}

/// What PID 1 waits for.
enum News {
    /// A child is dead.
    Exited(Pid),
    /// The host wants a stop, or is gone.
    Stop,
    /// The socket of the courier with this process id is done with.
    Ended(Ended, Option<Pid>),
}

/// When a role was restarted.
#[derive(Default)]
struct Restarts(Vec<Instant>);

impl Guest {
    /// Begins to listen to the host and to bury the dead.
    pub(super) fn new(
        vault: Arc<Vault>,
        engine: Arc<EngineProcess>,
        engine_pid: Pid,
        pack: File,
        mut documents: VsockStream,
    ) -> Result<Self, SystemError> {
        let (tell, news) = mpsc::channel();
        let host = tell.clone();
        thread("host", move || {
            if sandbox::enter_requests().is_ok() {
                stop_asked(&mut documents);
            }
            let _ = host.send(News::Stop);
        })?;
        let dead = tell.clone();
        thread("reaper", move || {
            loop {
                match rustix::process::wait(WaitOptions::empty()) {
                    Ok(Some((pid, _))) if dead.send(News::Exited(pid)).is_err() => return,
                    Ok(_) | Err(Errno::INTR) => {}
                    // No children for the moment.
                    Err(_) => std::thread::sleep(RESTART_PAUSE / 4),
                }
            }
        })?;
        let (engine_restarts, courier_restarts) = (Restarts::default(), Restarts::default());
        Ok(Self { vault, engine, pack, engine_pid, courier_pid: None, engine_restarts, courier_restarts, news, tell })
    }

    /// Starts the courier; gives the socket on which it asks.
    pub(super) fn start_courier(&mut self) -> Result<UnixStream, SystemError> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| SystemError::kernel("socketpair", error))?;
        self.courier_pid = Some(start("courier", theirs, Stdio::null())?);
        Ok(ours)
    }

    /// Answers the courier in a thread.
    pub(super) fn answer_courier(&self, socket: UnixStream) -> Result<(), SystemError> {
        let (vault, tell, courier) = (Arc::clone(&self.vault), self.tell.clone(), self.courier_pid);
        thread("vault", move || {
            let ended = match sandbox::enter_requests() {
                Ok(()) => vault.serve(socket),
                Err(_) => Ended::Courier,
            };
            let _ = tell.send(News::Ended(ended, courier));
        })
    }

    /// Serves until the end; says which end it was.
    pub(super) fn serve(mut self) -> String {
        let mut drained = None;
        let end = loop {
            let news = match drained {
                None => self.news.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(until) => self.news.recv_timeout(Instant::saturating_duration_since(&until, Instant::now())),
            };
            match news {
                Ok(News::Exited(pid)) if pid == self.engine_pid => {
                    if !self.restart_engine() {
                        break "ENGINE_DIED";
                    }
                }
                Ok(News::Exited(pid)) if Some(pid) == self.courier_pid => {
                    if !self.restart_courier() {
                        break "COURIER_DIED";
                    }
                }
                Ok(News::Exited(_)) => {}
                Ok(News::Stop) => {
                    drained.get_or_insert_with(|| Instant::now() + DRAIN);
                    self.vault.stop();
                }
                Ok(News::Ended(Ended::PowerOff, _)) => break "STOPPED",
                Ok(News::Ended(Ended::Panics, _)) => break "PANICKED",
                // A courier without its socket is of no use; when it is dead it is restarted. The socket of one that
                // died may end after its successor was started.
                Ok(News::Ended(Ended::Courier, courier)) if courier == self.courier_pid => kill(courier),
                Ok(News::Ended(Ended::Courier, _)) => {}
                Err(RecvTimeoutError::Timeout) => break "DRAIN_DEADLINE",
                Err(RecvTimeoutError::Disconnected) => break "SUPERVISOR",
            }
        };
        // The engine first: what waits for it ends, and with it the last holders of keys and prompts.
        kill(Some(self.engine_pid));
        kill(self.courier_pid);
        self.vault.wipe();
        self.vault.settled(SETTLE);
        end.into()
    }

    fn restart_engine(&mut self) -> bool {
        // One that was killed because of a user's deadline does not count: a user must not be able to end the guest.
        if !self.engine.take_late() && !self.engine_restarts.allow(Instant::now()) {
            return false;
        }
        std::thread::sleep(RESTART_PAUSE);
        let Ok((pid, stream)) = start_engine(&self.pack) else { return false };
        self.engine_pid = pid;
        let engine = Arc::clone(&self.engine);
        // Loading takes a while; meanwhile prompts are refused, not kept.
        thread("engine", move || {
            if attach(&engine, stream, pid).is_err() {
                kill(Some(pid));
            }
        })
        .is_ok()
    }

    fn restart_courier(&mut self) -> bool {
        if !self.courier_restarts.allow(Instant::now()) {
            return false;
        }
        std::thread::sleep(RESTART_PAUSE);
        // Its events have been told.
        self.vault.set_boot_events(Vec::new());
        self.start_courier().and_then(|socket| self.answer_courier(socket)).is_ok()
    }
}

impl Restarts {
    /// Whether the role may be started once more at `now`.
    fn allow(&mut self, now: Instant) -> bool {
        self.0.retain(|at| now.saturating_duration_since(*at) < RESTART_WINDOW);
        let allowed = self.0.len() < RESTARTS;
        if allowed {
            self.0.push(now);
        }
        allowed
    }
}

/// Starts the engine's process, with the sealed pack as its second stream.
///
/// # Errors
/// [`SystemError::Kernel`].
pub(super) fn start_engine(pack: &File) -> Result<(Pid, UnixStream), SystemError> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| SystemError::kernel("socketpair", error))?;
    let pack = pack.try_clone().map_err(|error| SystemError::kernel("model", error))?;
    Ok((start("engine", theirs, Stdio::from(pack))?, ours))
}

/// Waits for an engine in a thread that can do no more than that: what the engine says, the host's model may have written.
///
/// # Errors
/// [`EngineError`].
pub(super) fn attach(engine: &EngineProcess, stream: UnixStream, pid: Pid) -> Result<(), EngineError> {
    std::thread::scope(|scope| {
        let listen = || {
            sandbox::enter_requests().map_err(|_| EngineError::Gone)?;
            engine.attach_process(stream, pid, ENGINE_READY)
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn_scoped(scope, listen);
        thread.map_err(|_| EngineError::Gone)?.join().unwrap_or(Err(EngineError::Gone))
    })
}

/// Starts this program in another role; what it inherits are its two streams and nothing else.
fn start(role: &str, socket: UnixStream, second: Stdio) -> Result<Pid, SystemError> {
    let child = Command::new("/proc/self/exe")
        .arg(role)
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(socket))
        .stdout(second)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| SystemError::kernel(role, error))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| SystemError::kernel(role, io::Error::other("wanted a process id")))
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), SystemError> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(drop).map_err(|error| SystemError::kernel(name, error))
}

/// The dead are buried by the reaper.
fn kill(pid: Option<Pid>) {
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_restarts_an_hour() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        for minute in 0..3 {
            assert!(restarts.allow(start + Duration::from_secs(60 * minute)));
        }
        assert!(!restarts.allow(start + Duration::from_secs(180)));
        assert!(restarts.allow(start + RESTART_WINDOW), "the first one is an hour ago");
        assert!(!restarts.allow(start + RESTART_WINDOW));
    }
}
