//! Where things lie on this host: sockets and locks in private run folders, results worth keeping in the cache.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::getuid;

use crate::error::Error;

/// The private folder (mode 0700) of one VM, locked while it runs and removed when it ends.
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

/// Longest folder above the VMs' own, so that socket paths stay below 108 bytes with a name of 64 characters.
const BASE_MAX: usize = 28;

impl RunFolder {
    /// Makes the folder for the VM `name` under `base`, or under [`run_base`].
    ///
    /// # Errors
    /// A failure if a VM of that name runs, an environment error if the folder cannot be made private.
    pub fn create(base: Option<&Path>, name: &str) -> Result<Self, Error> {
        let base = base.map_or_else(run_base, |base| Ok(base.to_owned()))?;
        let path = base.join(name);
        let cannot =
            |path: &Path, e: io::Error| Error::environment("RUN_FOLDER", format!("run folder {}: {e}", path.display()));
        private(&base).map_err(|e| cannot(&base, e))?;
        let lock_path = base.join(format!("{name}.lock"));
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&lock_path)
            .map_err(|e| cannot(&lock_path, e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::failed("NAME_TAKEN", format!("a VM named {name} is running already"))
                .hint("stop it with Ctrl-C where it runs, or choose another --name"));
        }
        // Left by a process that was killed; the lock says that it is nobody's now.
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(cannot(&path, e)),
            _ => {}
        }
        private(&path).map_err(|e| cannot(&path, e))?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
    }
}

/// `$XDG_RUNTIME_DIR/blf`, or `/tmp/blf-UID` where that is not set or too long for sockets.
///
/// # Errors
/// None today; callers treat it like the making of the folder.
pub fn run_base() -> Result<PathBuf, Error> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("blf"));
    let usable = runtime.filter(|dir| dir.is_absolute() && dir.as_os_str().len() <= BASE_MAX);
    Ok(usable.unwrap_or_else(|| PathBuf::from(format!("/tmp/blf-{}", getuid().as_raw()))))
}

/// `$BLF_CACHE`, `$XDG_CACHE_HOME/blf` or `~/.cache/blf`.
pub fn cache() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/".into()));
    env::var_os("BLF_CACHE").map_or_else(
        || env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from).join("blf"),
        PathBuf::from,
    )
}

/// `$XDG_STATE_HOME/blf` or `~/.local/state/blf`: where `blf` looks for a local network.
pub fn state() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".local/state");
    env::var_os("XDG_STATE_HOME").filter(|state| !state.is_empty()).map_or_else(home, PathBuf::from).join("blf")
}

/// Makes a folder of mode 0700, or checks that the one there is ours and closed to others.
fn private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(false).mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        done => return done,
    }
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() && metadata.uid() == getuid().as_raw() && metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    let error = format!(
        "wanted a folder of user {} with mode 0700, got user {} and mode {:o}",
        getuid().as_raw(),
        metadata.uid(),
        metadata.mode() & 0o7777
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, error))
}
