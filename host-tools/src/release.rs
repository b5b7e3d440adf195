//! Is the image what its release manifest says? Checked before anything starts.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blf_appraisal::Release;
use blf_appraisal::release::RELEASE_CAP;
use blf_evidence::Hex;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// An image whose every output is the one of its release manifest.
#[derive(Clone, Debug)]
pub struct Image {
    /// The unified kernel image.
    pub uki: PathBuf,
    /// Its SHA-256.
    pub sha256: Hex<32>,
    /// Its length in bytes.
    pub size: u64,
    /// The release manifest.
    pub release: Release,
    /// The release manifest, verbatim.
    pub manifest: Vec<u8>,
    boots: PathBuf,
    /// Holds open what `boots` names.
    _sealed: Arc<File>,
}

/// The release manifest's name.
const MANIFEST: &str = "manifest.json";
/// The output that boots.
const UKI: &str = "blf.efi";
/// Longest unified kernel image, in bytes.
const UKI_CAP: u64 = 256 * 1024 * 1024;

impl Image {
    /// Reads the manifest in `folder`, checks size and SHA-256 of every output it lists, and that the image measures to
    /// what the manifest says.
    ///
    /// # Errors
    /// A configuration error for a manifest that is missing or malformed; a rejection naming the first output that is
    /// missing or another.
    pub fn check(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        if !path.is_file() {
            let error = format!("wanted a release manifest at {}, it is not there", path.display());
            return Err(Error::config("IMAGE_MISSING", error)
                .hint("build the image with image/build, or name its folder with --image"));
        }
        let malformed = |e: &dyn std::fmt::Display| Error::config("MANIFEST", format!("{}: {e}", path.display()));
        let manifest = read(&path, RELEASE_CAP as u64, "MANIFEST")?;
        let release = Release::parse(&manifest).map_err(|e| malformed(&e))?;

        let mut checked = None;
        for output in &release.outputs {
            let plain = !output.name.is_empty() && !output.name.contains('/') && !output.name.starts_with('.');
            if !plain {
                return Err(malformed(&format!("outputs: wanted plain file names, got {:?}", output.name)));
            }
            let file = folder.join(&output.name);
            let wanted = format!("{} bytes with SHA-256 {}", output.size, output.sha256);
            let missing = |e: &dyn std::fmt::Display| {
                Error::rejected("OUTPUT_MISSING", format!("{}: wanted {wanted}, got {e}", file.display()))
            };
            let (size, sha256) = if output.name == UKI {
                let mut bytes = Vec::new();
                File::open(&file)
                    .and_then(|opened| opened.take(UKI_CAP).read_to_end(&mut bytes))
                    .map_err(|e| missing(&e))?;
                let (size, sha256) = (bytes.len() as u64, Hex(Sha256::digest(&bytes).into()));
                checked = Some((file.clone(), bytes, sha256));
                (size, sha256)
            } else {
                digest(&file).map_err(|e| missing(&e))?
            };
            if (size, sha256) != (output.size, output.sha256) {
                let error = format!("{}: wanted {wanted}, got {size} bytes with {sha256}", file.display());
                return Err(Error::rejected("OUTPUT_MISMATCH", error)
                    .hint("the image is not the one of its manifest: build or fetch it again"));
            }
        }
        let (uki, bytes, sha256) = checked.ok_or_else(|| malformed(&format!("outputs: wanted {UKI} among them")))?;
        release.check_image(&bytes).map_err(|e| Error::rejected("MEASUREMENT_MISMATCH", e))?;
        let size = bytes.len() as u64;
        let sealed = sealed(&bytes).map_err(|e| Error::environment("MEMFD", format!("{}: {e}", uki.display())))?;
        let boots = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), sealed.as_raw_fd()));
        Ok(Self { uki, sha256, size, release, manifest, boots, _sealed: Arc::new(sealed) })
    }

    /// A path to the very bytes that were checked, while this value lives; what the file holds by now is no matter.
    pub fn boots(&self) -> &Path {
        &self.boots
    }
}

/// Bytes in memory that nobody can change any more.
fn sealed(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("blf.efi", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file)
}

/// A file of at most `cap` bytes.
///
/// # Errors
/// A configuration error with `code` naming the file.
pub fn read(path: &Path, cap: u64, code: &str) -> Result<Vec<u8>, Error> {
    let error = |e: &dyn std::fmt::Display| Error::config(code, format!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| error(&e))?;
    file.take(cap + 1).read_to_end(&mut bytes).map_err(|e| error(&e))?;
    if bytes.len() as u64 > cap {
        return Err(error(&format!("wanted at most {cap} bytes, got more")));
    }
    Ok(bytes)
}

/// Length and SHA-256 of a file.
///
/// # Errors
/// Those of reading it.
pub fn digest(path: &Path) -> io::Result<(u64, Hex<32>)> {
    let mut file = File::open(path)?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((size, Hex(hash.finalize().into())));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        size += read as u64;
    }
}
