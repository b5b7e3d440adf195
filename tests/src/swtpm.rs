//! swtpm as a TPM that saw a boot.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use blf_agent::attester::Tpm;
use blf_agent::attester::tpm::Transport;
use blf_evidence::eventlog::{EV_NO_ACTION, EventLog};

/// The emulator's process; ends with this value.
pub struct SwTpm {
    child: Child,
    dir: tempfile::TempDir,
}

/// A connection to it. A stream, so that a response must be put together by its size.
pub struct Socket(UnixStream);

/// Says past libtest's capture, so that `tests/check` can count it, that a test proves nothing here and why.
pub fn skip(reason: &str) {
    let line = format!("skipped: {}: {reason}\n", thread::current().name().unwrap_or("?"));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// The authorization area of one empty password: TPM_RS_PW.
pub const PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];

impl SwTpm {
    /// A fresh TPM; none, with the reason on standard error, where swtpm is not installed.
    pub fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate", &format!("dir={}", dir.path().display())])
            .args(["--server", &format!("type=unixio,path={}", at("sock"))])
            .args(["--ctrl", &format!("type=unixio,path={}", at("ctrl"))])
            .args(["--flags", "not-need-init,startup-clear"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                skip("swtpm is not installed");
                None
            }
            other => Some(Self { child: other.unwrap(), dir }),
        }
    }

    /// A TPM that measured what `log` says, in its SHA-256 bank.
    pub fn booted(log: &[u8]) -> Option<Self> {
        let tpm = Self::start()?;
        let mut socket = tpm.connect();
        for event in EventLog::parse(log).unwrap().events {
            if event.kind != EV_NO_ACTION {
                extend(&mut socket, event.pcr, event.sha256.unwrap());
            }
        }
        Some(tpm)
    }

    /// A folder that ends with it, to keep files in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// swtpm serves one connection at a time; the next one waits for the end of the one before.
    pub fn connect(&self) -> Socket {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match UnixStream::connect(self.dir.path().join("sock")) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                    return Socket(stream);
                }
                Err(error) => assert!(Instant::now() < until, "swtpm did not come up: {error}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The guest's attester over this TPM, with fresh keys.
    pub fn attester(&self, event_log: &Path) -> Tpm {
        Tpm::new(Box::new(self.connect()), event_log).unwrap()
    }
}

impl Drop for SwTpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Transport for Socket {
    fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(command)?;
        let mut response = vec![0; 10];
        self.0.read_exact(&mut response)?;
        let size = u32::from_be_bytes(response[2..6].try_into().unwrap()) as usize;
        assert!((10..=4096).contains(&size));
        response.resize(size, 0);
        self.0.read_exact(&mut response[10..])?;
        Ok(response)
    }
}

/// Sends a command whose success is all that matters.
pub fn raw(tpm: &mut Socket, code: u32, body: &[u8]) {
    let size = u32::try_from(10 + body.len()).unwrap();
    let command = [&[0x80, 0x02][..], &size.to_be_bytes(), &code.to_be_bytes(), body].concat();
    let response = tpm.transmit(&command).unwrap();
    assert_eq!(response[6..10], [0; 4], "command {code:#x}");
}

/// TPM2_PCR_Extend of the SHA-256 bank (TPM 2.0 Part 3, section 22.2).
pub fn extend(tpm: &mut Socket, pcr: u32, digest: [u8; 32]) {
    raw(tpm, 0x182, &[&pcr.to_be_bytes()[..], &PASSWORD, &[0, 0, 0, 1, 0, 0x0B], &digest].concat());
}
