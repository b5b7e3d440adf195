//! Where things lie on this host: sockets and locks in private run folders, results worth keeping in the cache.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
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
        let base = base.map_or_else(run_base, Path::to_owned);
        let path = base.join(name);
        let cannot =
            |path: &Path, e: io::Error| Error::environment("RUN_FOLDER", format!("run folder {}: {e}", path.display()));
        private(&base).map_err(|e| cannot(&base, e))?;
        // Whoever ended just now may remove the folder between our opening and our locking it.
        for _ in 0..4 {
            private(&path).map_err(|e| cannot(&path, e))?;
            let lock = File::open(&path).map_err(|e| cannot(&path, e))?;
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                break;
            }
            let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|m| m.ino()).ok();
            if inode(lock.metadata()) == inode(fs::symlink_metadata(&path)) {
                // Left by a process that was killed; the lock says that it is nobody's now.
                empty(&path).map_err(|e| cannot(&path, e))?;
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(Error::failed("NAME_TAKEN", format!("a VM named {name} is running already"))
            .hint("stop it with Ctrl-C where it runs, or choose another --name"))
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

/// `$XDG_RUNTIME_DIR/blf`, or `/tmp/blf-UID` where that is not set, not a folder of this user's, or too long for sockets.
pub fn run_base() -> PathBuf {
    run_base_in(env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))
}

fn run_base_in(runtime: Option<PathBuf>) -> PathBuf {
    // runuser(1) leaves the variable as it is for the user who calls it.
    let ours = |dir: &PathBuf| fs::metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == getuid().as_raw());
    let usable = runtime.filter(ours).map(|dir| dir.join("blf"));
    let usable = usable.filter(|dir| dir.is_absolute() && dir.as_os_str().len() <= BASE_MAX);
    usable.unwrap_or_else(|| PathBuf::from(format!("/tmp/blf-{}", getuid().as_raw())))
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

fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_runtime_folder_of_somebody_else_is_not_used() {
        let folder = tempfile::TempDir::new_in("/tmp").unwrap();
        let (uid, ours) = (getuid().as_raw(), folder.path().to_owned());
        let fallback = PathBuf::from(format!("/tmp/blf-{uid}"));
        assert_eq!(run_base_in(Some(ours.clone())), ours.join("blf"));
        let file = ours.join("file");
        fs::write(&file, "").unwrap();
        let long = ours.join("a-name-too-long-for-sockets");
        fs::create_dir(&long).unwrap();
        for unusable in [None, Some(ours.join("nowhere")), Some(file), Some(long), Some(PathBuf::new())] {
            assert_eq!(run_base_in(unusable.clone()), fallback, "{unusable:?}");
        }
        // Who is not root finds somebody else's everywhere.
        let theirs = if uid == 0 { ours } else { PathBuf::from("/") };
        if uid == 0 {
            std::os::unix::fs::chown(&theirs, Some(65534), None).unwrap();
        }
        assert_eq!(run_base_in(Some(theirs)), fallback);
    }

    #[test]
    fn a_run_folder_is_private_empty_and_one_owners() {
        let folder = tempfile::TempDir::new().unwrap();
        let base = folder.path().join("run");
        let path = base.join("node-1");
        private(&base).unwrap();
        private(&path).unwrap();
        fs::create_dir(path.join("tpm")).unwrap();
        fs::write(path.join("tpm/left"), "by a process that was killed").unwrap();

        let folder = RunFolder::create(Some(&base), "node-1").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(RunFolder::create(Some(&base), "node-1").err().unwrap().code, "NAME_TAKEN");
        drop(folder);
        assert!(!path.exists());

        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = RunFolder::create(Some(&base), "node-1").err().unwrap();
        assert!(error.message.contains("wanted a folder of user") && error.message.contains("mode 755"), "{error}");
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/tmp", &path).unwrap();
        assert_eq!(RunFolder::create(Some(&base), "node-1").err().unwrap().code, "RUN_FOLDER");
    }
}
