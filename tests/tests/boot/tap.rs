//! Records every byte between guest and host, and the guest's console, without a change to either: programs of the same names,
//! first in `PATH`, start the real ones with another folder for vsock's sockets and a log for the serial port. Behind those
//! sockets this process carries the bytes on to where `blf-host` listens.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use blf_evidence::tunnel::{PORT_DIAL, PORT_DOCUMENTS, PORT_TELEMETRY};
use blf_host::programs::Programs;
use blf_host::vsock::VHOST_VSOCK;

pub(crate) struct Tap {
    dir: tempfile::TempDir,
    streams: Arc<Mutex<Vec<Recording>>>,
    /// The kernel carries vsock here, so there is nothing to stand in between.
    blind: bool,
}

/// One direction of one connection.
struct Recording {
    port: u32,
    bytes: Arc<Mutex<Vec<u8>>>,
}

const PORTS: [u32; 3] = [PORT_DOCUMENTS, PORT_TELEMETRY, PORT_DIAL];
/// The node's name, below the folder for run folders.
const NODE: &str = "node-1";

impl Tap {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let programs = Programs::find().unwrap();
        let at = dir.path().display();
        fs::create_dir(dir.path().join("bin")).unwrap();
        let qemu = format!(
            "exec '{}' \"${{@/stdio,id=console,signal=off/stdio,id=console,signal=off,logfile={at}/console}}\"",
            programs.qemu.display()
        );
        script(&dir.path().join("bin/qemu-system-x86_64"), &qemu);
        if let Some(vsock) = &programs.vsock {
            // One before it, of the search for KVM, may have left its socket.
            let vsock =
                format!("rm -f '{at}/v'\nexec '{}' \"${{@/uds-path=*\\/v,/uds-path={at}/v,}}\"", vsock.display());
            script(&dir.path().join("bin/vhost-device-vsock"), &vsock);
        }
        let streams = Arc::<Mutex<Vec<Recording>>>::default();
        for port in PORTS {
            let listener = UnixListener::bind(dir.path().join(format!("v_{port}"))).unwrap();
            let to = dir.path().join("run").join(NODE).join(format!("v_{port}"));
            let streams = Arc::clone(&streams);
            thread::spawn(move || {
                for guest in listener.incoming().map_while(Result::ok) {
                    let Ok(host) = UnixStream::connect(&to) else { continue };
                    carry(port, guest, host, &streams);
                }
            });
        }
        Self { dir, streams, blind: Path::new(VHOST_VSOCK).exists() }
    }

    /// Whether it sees nothing, because the kernel carries vsock.
    pub(crate) fn is_blind(&self) -> bool {
        self.blind
    }

    /// Everything it writes is below it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// For `blf-host --run-dir`.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The node's QMP socket.
    pub(crate) fn qmp(&self) -> PathBuf {
        self.run_dir().join(NODE).join("qmp")
    }

    /// `PATH` for `blf-host`.
    pub(crate) fn path(&self) -> OsString {
        let mut path = self.dir.path().join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path
    }

    /// What the guest wrote to its console.
    pub(crate) fn console(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("console")).unwrap_or_default()
    }

    /// Everything that went over one port, each direction of each connection by itself.
    pub(crate) fn recorded(&self, port: u32) -> Vec<Vec<u8>> {
        let streams = self.streams.lock().unwrap();
        streams.iter().filter(|s| s.port == port).map(|s| s.bytes.lock().unwrap().clone()).collect()
    }
}

fn script(path: &Path, does: &str) {
    fs::write(path, format!("#!/bin/bash\n{does}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn carry(port: u32, guest: UnixStream, host: UnixStream, streams: &Mutex<Vec<Recording>>) {
    let up = (guest.try_clone().unwrap(), host.try_clone().unwrap());
    for (mut from, mut to) in [up, (host, guest)] {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        streams.lock().unwrap().push(Recording { port, bytes: Arc::clone(&bytes) });
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                bytes.lock().unwrap().extend_from_slice(&buffer[..n]);
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            // Either side's end is the other's too; what was read is written by now.
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
