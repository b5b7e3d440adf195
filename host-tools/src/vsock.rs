//! Where a guest's vsock connections arrive and how it is reached: AF_VSOCK where the kernel has vhost-vsock, else the unix
//! sockets of a supervised `vhost-device-vsock` process. Above [`Listener`] and [`Dialer`] nobody can tell which.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

use crate::forward::read_line;

/// A stream from a guest.
pub type Stream = Box<dyn GuestStream>;

/// What a stream from a guest can do.
pub trait GuestStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> GuestStream for T {}

/// Accepts the connections of one guest on one port.
pub struct Listener(Source);

enum Source {
    Unix { listener: UnixListener, path: PathBuf },
    Kernel(mpsc::Receiver<VsockStream>),
}

/// Connects to the ports of one guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dialer {
    /// The CID of a guest beside the kernel's vhost-vsock.
    Kernel(u32),
    /// The `uds-path` of the guest's `vhost-device-vsock`.
    Unix(PathBuf),
}

/// The host's end of the kernel's vsock: one listener a port for all guests of this process, told apart by their CID.
pub struct Kernel {
    ports: Vec<(u32, Routes)>,
    tasks: Vec<JoinHandle<()>>,
}

type Routes = Arc<Mutex<HashMap<u32, mpsc::Sender<VsockStream>>>>;

/// The kernel's side of vhost-vsock.
pub const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// Connections of one guest that wait to be accepted.
const BACKLOG: usize = 16;

/// Longest answer of `vhost-device-vsock` to `CONNECT port`: `OK port`, a u32 and a newline.
const CONNECTED: usize = 14;

/// How long to wait before accepting again when this process is out of something.
const RECOVERY: Duration = Duration::from_millis(100);

/// The longest path a unix socket can have (`sun_path` in unix(7), with its final zero).
const SUN_PATH: usize = 108;

impl Listener {
    /// Listens for what a guest sends to `port` through a `vhost-device-vsock` whose `uds-path` is `uds`.
    ///
    /// # Errors
    /// Those of binding, and [`io::ErrorKind::InvalidInput`] for a path that is too long for a socket.
    pub fn unix(uds: &Path, port: u32) -> io::Result<Self> {
        let mut path = uds.as_os_str().to_owned();
        path.push(format!("_{port}"));
        if path.len() >= SUN_PATH {
            let error = format!("socket path: wanted fewer than {SUN_PATH} bytes, got {}", path.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let path = PathBuf::from(path);
        Ok(Self(Source::Unix { listener: UnixListener::bind(&path)?, path }))
    }

    /// The guest's next connection. While this process is out of something, connections wait.
    ///
    /// # Errors
    /// Those of accepting that do not pass; [`io::ErrorKind::BrokenPipe`] when the kernel's listener ended.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        match &mut self.0 {
            Source::Unix { listener, .. } => loop {
                match listener.accept().await {
                    Ok((stream, _)) => return Ok(Box::new(stream)),
                    Err(error) if passes(&error) => sleep(RECOVERY).await,
                    Err(error) => return Err(error),
                }
            },
            Source::Kernel(streams) => match streams.recv().await {
                Some(stream) => Ok(Box::new(stream)),
                None => Err(io::ErrorKind::BrokenPipe.into()),
            },
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Source::Unix { path, .. } = &self.0 {
            // The folder goes with the VM; a socket nobody listens on should not outlive its listener.
            drop(std::fs::remove_file(path));
        }
    }
}

impl Dialer {
    /// A stream to `port` of the guest.
    ///
    /// `vhost-device-vsock` 0.3.0 panics when the guest takes a stream whose host's end is gone by then
    /// (vsock_conn.rs, VSOCK_OP_RESPONSE); so this should not be given up soon, whatever has become of whoever asked.
    ///
    /// # Errors
    /// Those of connecting; [`io::ErrorKind::ConnectionRefused`] if nobody listens there.
    pub async fn connect(&self, port: u32) -> io::Result<Stream> {
        match self {
            Self::Kernel(cid) => Ok(Box::new(VsockStream::connect(VsockAddr::new(*cid, port)).await?)),
            Self::Unix(uds) => {
                let mut stream = UnixStream::connect(uds).await?;
                // What follows the line before its answer would be lost.
                stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
                match read_line(&mut stream, CONNECTED).await? {
                    Some(line) if line.starts_with(b"OK ") => Ok(Box::new(stream)),
                    _ => Err(io::ErrorKind::ConnectionRefused.into()),
                }
            }
        }
    }
}

impl Kernel {
    /// Listens on `ports` for every guest of this process.
    ///
    /// # Errors
    /// Those of binding: another process listens on a port, or the kernel has no vsock.
    pub fn bind(ports: &[u32]) -> io::Result<Self> {
        let mut kernel = Self { ports: Vec::new(), tasks: Vec::new() };
        for port in ports {
            let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port))?;
            let routes = Routes::default();
            kernel.tasks.push(tokio::spawn(dispatch(listener, Arc::clone(&routes))));
            kernel.ports.push((*port, routes));
        }
        Ok(kernel)
    }

    /// What the guest `cid` sends to `port`; replaces an earlier listener for the same.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] for a port that was not bound.
    pub fn listener(&self, cid: u32, port: u32) -> io::Result<Listener> {
        let routes = self.ports.iter().find(|(bound, _)| *bound == port);
        let (_, routes) = routes.ok_or(io::ErrorKind::NotFound)?;
        let (sender, receiver) = mpsc::channel(BACKLOG);
        routes.lock().map_err(|_| io::ErrorKind::Other)?.insert(cid, sender);
        Ok(Listener(Source::Kernel(receiver)))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// True for an error of accept(2) that is no fault of the listener: a connection that is gone already, or a process or
/// system that is out of file descriptors or memory for now.
fn passes(error: &io::Error) -> bool {
    let passing = [Errno::CONNABORTED, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|error| passing.contains(&error))
}

async fn dispatch(listener: VsockListener, routes: Routes) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if passes(&error) => {
                sleep(RECOVERY).await;
                continue;
            }
            Err(_) => return,
        };
        // A guest that is not ours, or one whose backlog is full, gets a closed stream.
        if let Ok(routes) = routes.lock()
            && let Some(route) = routes.get(&peer.cid())
        {
            drop(route.try_send(stream));
        }
    }
}
