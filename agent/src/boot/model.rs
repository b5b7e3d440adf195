//! Reads the model pack from the host's block device, once, into memory that then cannot change (architecture decision 11).
//!
//! The device belongs to the host and may answer differently each time. So each chunk is copied, the copy is hashed and
//! the copy is kept; the device is not looked at again.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use blf_evidence::pack::{HEADER_MAX, Header, PackError, Verifier};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use super::system::memory_available;

/// Where virtio_blk puts the first disk.
const DEVICE: &str = "/dev/vda";
/// How long the device may take to appear.
const APPEARS: Duration = Duration::from_secs(5);
/// Longest pack, in bytes.
const PACK_CAP: u64 = 8 << 30;
/// The pack may fill one part in so many of the memory that is left: it stays for a restart of the engine, which reads it
/// whole into memory of its own and converts its weights beside that.
const MEMORY_PARTS: u64 = 4;
/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// A verified pack.
pub(super) struct Pack {
    /// All of its bytes, sealed against any change.
    pub(super) file: File,
    /// Its header.
    pub(super) header: Header,
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No disk, or a path that is none.
    #[error("model: wanted a block device at {DEVICE}: {0}")]
    Device(io::Error),
    /// No memory file.
    #[error("model: memory: {0}")]
    Memory(io::Error),
    /// What is on the device is no pack, or a damaged one.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The device broke off.
    #[error("model: {0}")]
    Read(io::Error),
    /// It does not fit.
    #[error("model: wanted at most {max} bytes, got {got}")]
    TooLarge {
        /// The bound: 8 GiB, or a quarter of the memory that is left.
        max: u64,
        /// Length of the pack.
        got: u64,
    },
}

/// Reads and verifies the pack on the guest's disk.
///
/// # Errors
/// [`ModelError`].
pub(super) fn read() -> Result<Pack, ModelError> {
    let device = open(Path::new(DEVICE)).map_err(ModelError::Device)?;
    copy(device, PACK_CAP.min(memory_available() / MEMORY_PARTS))
}

fn open(path: &Path) -> io::Result<File> {
    let until = Instant::now() + APPEARS;
    let file = loop {
        match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(file) => break File::from(file),
            Err(error) if Instant::now() >= until => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    if file.metadata()?.file_type().is_block_device() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn copy(mut device: impl Read, max: u64) -> Result<Pack, ModelError> {
    let mut first = Vec::with_capacity(HEADER_MAX);
    device.by_ref().take(HEADER_MAX as u64).read_to_end(&mut first).map_err(ModelError::Read)?;
    let header = Header::parse(&first)?;
    let length = header.pack_len();
    if length > max {
        return Err(ModelError::TooLarge { max, got: length });
    }
    let mut file = memory_file().map_err(ModelError::Memory)?;
    let mut verifier = Verifier::new(header.clone());
    first.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    let mut left = length - first.len() as u64;
    verifier.update(&first)?;
    file.write_all(&first).map_err(ModelError::Memory)?;
    drop(first);
    let mut chunk = vec![0; CHUNK];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        let got = match device.read(&mut chunk[..wanted]) {
            Ok(0) => return Err(PackError::Truncated { wanted: length, got: length - left }.into()),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ModelError::Read(error)),
        };
        verifier.update(&chunk[..got])?;
        file.write_all(&chunk[..got]).map_err(ModelError::Memory)?;
        left -= got as u64;
    }
    verifier.finish()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(|error| ModelError::Memory(error.into()))?;
    Ok(Pack { file, header })
}

fn memory_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    Ok(File::from(rustix::fs::memfd_create("model", flags)?))
}

impl ModelError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Device(_) => "MODEL_DEVICE",
            Self::Memory(_) => "MODEL_MEMORY",
            Self::Pack(_) => "MODEL_PACK",
            Self::Read(_) => "MODEL_READ",
            Self::TooLarge { .. } => "MODEL_TOO_LARGE",
        }
    }
}

#[cfg(test)]
mod tests {
    use blf_evidence::pack::{self, Parameters};

    use super::*;

    fn sample() -> Vec<u8> {
        let parameters = Parameters {
            id: "sample-1".into(),
            architecture: "llama".into(),
            numeric_profile: "sample-f32".into(),
            max_context: 1024,
            max_new_tokens: 128,
            eos: vec![1],
        };
        let mut bytes = Vec::new();
        // Longer than the header that is read first, and than one chunk.
        let weights = vec![0xa5; CHUNK + 5000];
        pack::write(&mut bytes, parameters, [b"{}", &[7; 4096], b"{prompt}", weights.as_slice()]).unwrap();
        bytes
    }

    #[test]
    fn a_pack_is_kept_as_it_was_hashed() {
        let bytes = sample();
        // A device is longer than what is on it.
        let device = [bytes.as_slice(), &[9; 8192]].concat();
        let mut pack = copy(device.as_slice(), PACK_CAP).unwrap();
        assert_eq!(pack.file.metadata().unwrap().len(), bytes.len() as u64);
        let mut kept = vec![0; bytes.len()];
        std::os::unix::fs::FileExt::read_exact_at(&pack.file, &mut kept, 0).unwrap();
        assert_eq!(kept, bytes);
        assert!(pack.file.write_all(b"x").is_err(), "sealed");
        assert!(pack.file.set_len(0).is_err(), "sealed");
    }

    #[test]
    fn damaged_short_and_large_packs_are_refused() {
        let bytes = sample();
        for at in [0, 12, 50, 5000, bytes.len() / 2, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(copy(bad.as_slice(), PACK_CAP).err().unwrap().code(), "MODEL_PACK", "byte {at}");
        }
        assert_eq!(copy(&bytes[..bytes.len() - 1], PACK_CAP).err().unwrap().code(), "MODEL_PACK");
        assert_eq!(copy(&[][..], PACK_CAP).err().unwrap().code(), "MODEL_PACK");
        let exactly = bytes.len() as u64;
        assert!(copy(bytes.as_slice(), exactly).is_ok());
        assert_eq!(copy(bytes.as_slice(), exactly - 1).err().unwrap().code(), "MODEL_TOO_LARGE");
    }

    #[test]
    fn a_path_that_is_no_disk_is_refused() {
        assert!(open(Path::new("/dev/null")).is_err());
        assert!(open(Path::new("/proc/self/exe")).is_err(), "a link");
    }
}
