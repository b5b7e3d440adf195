//! Frames on a stream between two roles; the format is in `frames.rs`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::frames::{self, FrameError, HEADER};

/// One frame: its id, and its body, which is zeroized.
pub struct Frame {
    /// The id.
    pub id: u32,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

/// A socket on which all that is read and written may take so long together: a peer that moves a byte now and then gains
/// nothing.
pub struct Within<'a> {
    stream: &'a UnixStream,
    end: Instant,
}

impl<'a> Within<'a> {
    /// From now on.
    pub fn new(stream: &'a UnixStream, within: Duration) -> Self {
        Self { stream, end: Instant::now() + within }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Within<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Within<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
/// Those of the stream; `InvalidData` for a length above [`frames::FRAME_CAP`], `UnexpectedEof` inside a frame. After an
/// error the stream is of no more use.
pub fn read(stream: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; HEADER];
    loop {
        match stream.read(&mut head[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.read_exact(&mut head[1..])?;
    let (id, length) = frames::parse_header(head).map_err(invalid)?;
    let mut body = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut body)?;
    Ok(Some(Frame { id, body }))
}

/// Writes one frame.
///
/// # Errors
/// Those of the stream; `InvalidData` for a message that is too long.
pub fn write(stream: &mut impl Write, id: u32, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&frames::encode(id, message).map_err(invalid)?)?;
    stream.flush()
}

fn invalid(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Frame {
    /// The message in the body.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn message<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        frames::decode(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{FRAME_CAP, FromVault, ToVault};

    #[test]
    fn frames_follow_each_other() {
        let mut stream = Vec::new();
        write(&mut stream, 7, &ToVault::Identity).unwrap();
        write(&mut stream, 8, &FromVault::Refused { code: "X".into() }).unwrap();
        let mut rest = stream.as_slice();
        let first = read(&mut rest).unwrap().unwrap();
        assert_eq!(first.id, 7);
        assert!(matches!(first.message().unwrap(), ToVault::Identity));
        let second = read(&mut rest).unwrap().unwrap();
        assert!(matches!(second.message().unwrap(), FromVault::Refused { code } if code == "X"));
        assert!(read(&mut rest).unwrap().is_none());
    }

    #[test]
    fn a_peer_that_moves_a_byte_now_and_then_gains_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut within = Within::new(&ours, Duration::from_millis(100));
        let trickle = std::thread::spawn(move || {
            while (&theirs).write(&[0]).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let error = read(&mut within).err().unwrap();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        let long = FromVault::Evidence("x".repeat(1024 * 1024));
        assert!(write(&mut Within::new(&ours, Duration::from_millis(100)), 1, &long).is_err());
        drop(ours);
        trickle.join().unwrap();
    }

    #[test]
    fn hostile_frames_are_errors() {
        let too_long = [&u32::MAX.to_be_bytes()[..], &[0; 4]].concat();
        assert_eq!(read(&mut too_long.as_slice()).err().unwrap().kind(), io::ErrorKind::InvalidData);
        for cut in [&[0, 0][..], &[0, 0, 0, 9, 0, 0, 0, 1], &[0, 0, 0, 2, 0, 0, 0, 1, 5]] {
            assert_eq!(read(&mut &*cut).err().unwrap().kind(), io::ErrorKind::UnexpectedEof, "{cut:?}");
        }
        let body = |bytes: &[u8]| Frame { id: 1, body: Zeroizing::new(bytes.to_vec()) };
        // An unknown variant, a string of 2^32 bytes, an empty body, bytes left over, a wrong bool.
        for bad in [&[200][..], &[1, 0xff, 0xff, 0xff, 0xff, 0x0f], &[], &[0, 0]] {
            assert_eq!(body(bad).message::<ToVault>().err(), Some(FrameError::Malformed), "{bad:?}");
        }
        let long = FromVault::Evidence("x".repeat(FRAME_CAP + 1));
        assert!(write(&mut Vec::new(), 1, &long).is_err());
    }
}
