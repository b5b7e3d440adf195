//! The way to the TPM: command bytes in, response bytes out.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// TPM2_MAX_RESPONSE_SIZE of every PC Client TPM, and of Linux's driver (`TPM_BUFSIZE`).
const RESPONSE_CAP: usize = 4096;

/// Carries one command at a time.
pub trait Transport {
    /// Sends a command and waits for its response, which is returned as it came.
    ///
    /// # Errors
    /// Whatever the device says; [`io::ErrorKind::TimedOut`] when it says nothing in time.
    fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>>;
}

/// Linux's TPM character device, best the one with the resource manager (`/dev/tpmrm0`).
pub struct Device {
    file: File,
    deadline: Duration,
}

impl Device {
    /// Opens the device. Non-blocking, so that a wait for the TPM can end.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open(path: &Path, deadline: Duration) -> io::Result<Self> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        Ok(Self { file, deadline })
    }
}

impl Transport for Device {
    /// One write is one command, one read is one response (Linux, drivers/char/tpm/tpm-dev-common.c).
    fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        let written = self.file.write(command)?;
        if written != command.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let until = Instant::now() + self.deadline;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut response = vec![0; RESPONSE_CAP];
        let size = self.file.read(&mut response)?;
        response.truncate(size);
        Ok(response)
    }
}
