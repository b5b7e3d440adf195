//! A configured node on this host: a private folder with its configuration and what was last known of it.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, RenameFlags, flock, renameat_with};

use crate::error::Error;
use crate::journal::Log;
use crate::settings::{Flags, Layers};

/// A node by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    name: String,
    folder: PathBuf,
}

/// Held while a node runs.
pub struct Running(#[expect(dead_code, reason = "the lock ends with the file")] File);

impl Node {
    /// The node of this name, which may not be there yet.
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), folder: config_dir().join(name) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder, mode 0700.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its configuration, mode 0600.
    pub fn config(&self) -> PathBuf {
        self.folder.join("node.toml")
    }

    /// What was last known of it, mode 0600.
    pub fn record(&self) -> PathBuf {
        self.folder.join("status.json")
    }

    /// Everything its operator chose.
    ///
    /// # Errors
    /// A configuration error if it is not there or wrong.
    pub fn layers(&self, flags: &Flags, log: Option<Log>) -> Result<Layers, Error> {
        if !self.config().is_file() {
            return Err(self.not_initialised());
        }
        let mut layers = Layers::new();
        layers.file(&self.config())?;
        layers.environment(variable)?;
        layers.flags(flags, log)?;
        Ok(layers)
    }

    /// Makes the folder and its configuration, which appears whole or not at all.
    ///
    /// # Errors
    /// A configuration error if there is one already; a failure of writing.
    pub fn create(&self, text: &str) -> Result<(), Error> {
        let cannot = |e: io::Error| Error::failed("WRITE", format!("{}: {e}", self.config().display()));
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(cannot)?;
        match write(&self.config(), text.as_bytes(), 0o600, false) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let error = format!("node {}: {} is there already", self.name, self.config().display());
                Err(Error::config("NODE_EXISTS", error).hint("edit that file, or choose another --name"))
            }
            done => done.map_err(cannot),
        }
    }

    /// Takes the node for this process.
    ///
    /// # Errors
    /// A failure if it runs already or its folder cannot be used.
    pub fn lock(&self) -> Result<Running, Error> {
        let path = self.folder.join("lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = opened.map_err(|e| Error::failed("NODE_FOLDER", format!("{}: {e}", path.display())))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::failed("NODE_RUNS", format!("node {} runs already", self.name))
                .hint(format!("blf-host status --name {}", self.name)));
        }
        Ok(Running(file))
    }

    /// Whether a process has it.
    pub fn runs(&self) -> bool {
        File::open(self.folder.join("lock"))
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// What to say where it is not there.
    pub fn not_initialised(&self) -> Error {
        let error = format!(
            "node {}: not initialised: wanted its configuration at {}, it is not there",
            self.name,
            self.config().display()
        );
        let error = Error::config("NOT_INITIALISED", error);
        if config_dir().join("config.json").is_file() {
            let folder = config_dir();
            return error.hint(format!(
                "{} is a folder of the existing network's node: blf-host import {} --name {}",
                folder.display(),
                folder.display(),
                self.name
            ));
        }
        match all().as_slice() {
            [] => error.hint(format!("blf-host init --name {}", self.name)),
            names => error.hint(format!("blf-host init --name {}, or --name of: {}", self.name, names.join(", "))),
        }
    }
}

/// `$BLF_CONFIG_DIR`, `$XDG_CONFIG_HOME/blf` or `~/.config/blf`: where the nodes of this host lie.
pub fn config_dir() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").unwrap_or_else(|| "/".into()).join(".config");
    let dir = set("BLF_CONFIG_DIR").unwrap_or_else(|| set("XDG_CONFIG_HOME").unwrap_or_else(home).join("blf"));
    std::path::absolute(&dir).unwrap_or(dir)
}

/// The names of all configured nodes, sorted.
pub fn all() -> Vec<String> {
    let entries = fs::read_dir(config_dir()).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().join("node.toml").is_file());
    let mut names: Vec<_> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// A variable of the environment that is text.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// Where a file that will be at `path` lies until it is whole; nothing else is called so.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_else(|| OsStr::new("file")).to_string_lossy();
    folder(path).join(format!(".{name}.{}.new", std::process::id()))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Writes a file that appears whole or not at all; without `replace` only where there is none.
///
/// # Errors
/// Those of writing; [`ErrorKind::AlreadyExists`].
pub fn write(path: &Path, bytes: &[u8], mode: u32, replace: bool) -> io::Result<()> {
    let new = unfinished(path);
    // Left by a process of the same number that was killed.
    drop(fs::remove_file(&new));
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, path, flags)?;
        File::open(folder(path))?.sync_all()
    };
    let done = written();
    if done.is_err() {
        drop(fs::remove_file(&new));
    }
    done
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn node(folder: &Path) -> Node {
        Node { name: "alpha".into(), folder: folder.join("nodes/alpha") }
    }

    #[test]
    fn a_node_is_private_made_once_and_run_once() {
        let folder = tempfile::TempDir::new().unwrap();
        let node = node(folder.path());
        node.create("cpus = 2\n").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(node.folder()), mode(&node.config())), (0o700, 0o600));
        assert_eq!(node.create("cpus = 3\n").unwrap_err().code, "NODE_EXISTS");
        assert_eq!(fs::read_to_string(node.config()).unwrap(), "cpus = 2\n");

        assert!(!node.runs());
        let running = node.lock().unwrap();
        assert!(node.runs());
        assert_eq!(node.lock().err().unwrap().code, "NODE_RUNS");
        drop(running);
        assert!(!node.runs());
        drop(node.lock().unwrap());
        // Nothing half-written stays.
        let mut left: Vec<_> = fs::read_dir(node.folder()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["lock", "node.toml"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_old_one() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("status.json");
        write(&path, b"old", 0o600, true).unwrap();
        write(&path, b"new", 0o600, true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let beyond = folder.path().join("nowhere/status.json");
        assert_eq!(write(&beyond, b"x", 0o600, true).unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(write(&folder.path().join("taken"), b"x", 0o600, true).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_configuration_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::TempDir::new().unwrap();
        let node = node(folder.path());
        node.create("cpus = 2\n").unwrap();
        node.layers(&Flags::default(), None).unwrap();
        fs::set_permissions(node.config(), fs::Permissions::from_mode(0o620)).unwrap();
        let error = node.layers(&Flags::default(), None).unwrap_err();
        assert!(error.message.contains("got mode 0620") && error.hint.unwrap().starts_with("chmod 600"));
    }
}
