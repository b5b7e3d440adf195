//! The documents stream: what the host tells the guest, what the guest proves, and the request to stop.
//!
//! ```text
//! host → guest   u32 big-endian length, HostDocuments as JSON
//! host → guest   32 bytes: nonce
//! guest → host   u32 big-endian length, Evidence as JSON: purpose `session`, audience = the name in the configuration
//! host → guest   one byte 0x01: drain and stop; the end of the stream says the same
//! ```

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use blf_evidence::Hex;
use blf_evidence::json::JsonError;
use blf_evidence::tunnel::{DOCUMENTS_CAP, HostDocuments, PORT_DOCUMENTS, PORT_TELEMETRY};
use vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

/// How long the host may keep a booting guest waiting.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between attempts to connect.
const RETRY: Duration = Duration::from_millis(200);

/// What the host handed over, and the stream on which it waits for evidence.
pub(super) struct Session<S = VsockStream> {
    stream: S,
    /// Its documents.
    pub(super) documents: HostDocuments,
    /// What the evidence must answer.
    pub(super) nonce: Hex<32>,
}

/// Why there are no documents.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// Not the document it must be.
    #[error(transparent)]
    Malformed(#[from] JsonError),
    /// Nobody listens.
    #[error("host documents: wanted a connection to port {PORT_DOCUMENTS}: {0}")]
    Silent(io::Error),
    /// The stream broke off.
    #[error("host documents: {0}")]
    Stream(io::Error),
    /// Longer than it may be.
    #[error("host documents: wanted at most {DOCUMENTS_CAP} bytes, got {got}")]
    TooLong {
        /// Announced length.
        got: u32,
    },
}

impl Session {
    /// Dials the host.
    ///
    /// # Errors
    /// [`DocumentsError`].
    pub(super) fn open() -> Result<Self, DocumentsError> {
        let until = Instant::now() + DEADLINE;
        let stream = loop {
            match VsockStream::connect(&VsockAddr::new(VMADDR_CID_HOST, PORT_DOCUMENTS)) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= until => return Err(DocumentsError::Silent(error)),
                Err(_) => std::thread::sleep(RETRY),
            }
        };
        stream.set_read_timeout(Some(DEADLINE)).map_err(DocumentsError::Stream)?;
        stream.set_write_timeout(Some(DEADLINE)).map_err(DocumentsError::Stream)?;
        Self::take(stream)
    }

    /// Hands over the evidence; what is left of the stream is for [`stop_asked`].
    ///
    /// # Errors
    /// [`DocumentsError::Stream`].
    pub(super) fn answer(self, evidence: &str) -> Result<VsockStream, DocumentsError> {
        let stream = self.give(evidence)?;
        stream.set_read_timeout(None).map_err(DocumentsError::Stream)?;
        Ok(stream)
    }
}

impl<S: Read + Write> Session<S> {
    fn take(mut stream: S) -> Result<Self, DocumentsError> {
        let mut length = [0; 4];
        stream.read_exact(&mut length).map_err(DocumentsError::Stream)?;
        let got = u32::from_be_bytes(length);
        let length = usize::try_from(got).ok().filter(|length| *length <= DOCUMENTS_CAP);
        let mut bytes = zeroize::Zeroizing::new(vec![0; length.ok_or(DocumentsError::TooLong { got })?]);
        stream.read_exact(&mut bytes).map_err(DocumentsError::Stream)?;
        let documents = HostDocuments::parse(&bytes)?;
        let mut nonce = Hex([0; 32]);
        stream.read_exact(&mut nonce.0).map_err(DocumentsError::Stream)?;
        Ok(Self { stream, documents, nonce })
    }

    fn give(mut self, evidence: &str) -> Result<S, DocumentsError> {
        let length = u32::try_from(evidence.len()).map_err(|e| DocumentsError::Stream(io::Error::other(e)))?;
        let sent = self.stream.write_all(&length.to_be_bytes());
        let sent = sent.and_then(|()| self.stream.write_all(evidence.as_bytes())).and_then(|()| self.stream.flush());
        sent.map_err(DocumentsError::Stream)?;
        Ok(self.stream)
    }
}

/// Waits until the host asks for a stop, or is gone, which means the same: whatever comes next on this stream.
pub(super) fn stop_asked(stream: &mut impl Read) {
    loop {
        match stream.read(&mut [0; 1]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// Sends the telemetry of a boot that failed; there will be no courier to do it.
pub(super) fn report(lines: &[String]) {
    let address = VsockAddr::new(VMADDR_CID_HOST, PORT_TELEMETRY);
    let Ok(mut stream) = VsockStream::connect(&address) else { return };
    if stream.set_write_timeout(Some(RETRY)).is_ok() {
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // Until the host has read and closed, or a moment has passed: powering off would drop what is under way.
        if stream.set_read_timeout(Some(RETRY)).is_ok() {
            stop_asked(&mut stream);
        }
    }
}

impl DocumentsError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "HOST_DOCUMENTS",
            Self::Silent(_) => "HOST_SILENT",
            Self::Stream(_) => "HOST_STREAM",
            Self::TooLong { .. } => "HOST_DOCUMENTS_LENGTH",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    const GOOD: &[u8] = br#"{"config":"{}","credentials":"{}","endorsements":null}"#;

    fn after(bytes: &[&[u8]]) -> Result<Session<UnixStream>, DocumentsError> {
        let (mut host, guest) = UnixStream::pair().unwrap();
        let bytes = bytes.concat();
        let host = std::thread::spawn(move || host.write_all(&bytes));
        let session = Session::take(guest);
        let _ = host.join();
        session
    }

    fn length(bytes: &[u8]) -> [u8; 4] {
        u32::try_from(bytes.len()).unwrap().to_be_bytes()
    }

    #[test]
    fn documents_in_evidence_out() {
        let (mut host, guest) = UnixStream::pair().unwrap();
        host.write_all(&[&length(GOOD)[..], GOOD, &[7; 32]].concat()).unwrap();
        let session = Session::take(guest).unwrap();
        assert_eq!((session.documents.config.as_str(), session.nonce), ("{}", Hex([7; 32])));
        let mut guest = session.give("evidence").unwrap();
        let mut got = [0; 12];
        host.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"\0\0\0\x08evidence");
        host.write_all(&[1]).unwrap();
        stop_asked(&mut guest);
        drop(host);
        stop_asked(&mut guest);
    }

    #[test]
    fn hostile_hosts_are_refused() {
        let code = |bytes: &[&[u8]]| after(bytes).err().unwrap().code();
        assert_eq!(code(&[]), "HOST_STREAM");
        assert_eq!(code(&[&u32::MAX.to_be_bytes()]), "HOST_DOCUMENTS_LENGTH");
        assert_eq!(code(&[&u32::try_from(DOCUMENTS_CAP + 1).unwrap().to_be_bytes()]), "HOST_DOCUMENTS_LENGTH");
        assert_eq!(code(&[&[0, 0, 0, 9], b"short"]), "HOST_STREAM");
        assert_eq!(code(&[&length(GOOD), GOOD, &[7; 31]]), "HOST_STREAM");
        let unknown = br#"{"config":"{}","credentials":"{}","endorsements":null,"x":1}"#;
        assert_eq!(code(&[&length(unknown), unknown, &[7; 32]]), "HOST_DOCUMENTS");
    }
}
