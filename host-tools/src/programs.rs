//! The programs of others that a VM needs, and where this host has them.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::folders;

/// Every program a VM needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Programs {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// `swtpm`.
    pub swtpm: PathBuf,
    /// `setpriv` of util-linux.
    pub setpriv: PathBuf,
    /// `vhost-device-vsock`, if it is there; needed where the kernel has no vhost-vsock.
    pub vsock: Option<PathBuf>,
    /// OVMF for `-bios`.
    pub firmware: PathBuf,
}

/// How to get what is missing.
pub const INSTALL_QEMU: &str = "apt install qemu-system-x86";
/// How to get what is missing.
pub const INSTALL_OVMF: &str = "apt install ovmf";
/// How to get what is missing.
pub const INSTALL_SWTPM: &str = "apt install swtpm";
/// How to get what is missing.
pub const INSTALL_VSOCK: &str = "cargo install vhost-device-vsock --version 0.3.0 --locked --root ~/.cache/blf/host";

/// Where Debian and Ubuntu put OVMF as one file for `-bios`.
const FIRMWARE: [&str; 3] = ["/usr/share/ovmf/OVMF.fd", "/usr/share/qemu/OVMF.fd", "/usr/share/OVMF/OVMF.fd"];

impl Programs {
    /// Finds them in `$PATH` and, for what `cargo install` puts there, in the cache.
    ///
    /// # Errors
    /// An environment error naming what is missing and how to get it.
    pub fn find() -> Result<Self, Error> {
        Self::find_in(&env::var_os("PATH").unwrap_or_default())
    }

    /// Finds them in the folders of `path`, which is written like `$PATH`.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_in(path: &OsStr) -> Result<Self, Error> {
        let wanted = |name: &str, install: &str| {
            program(path, name).ok_or_else(|| {
                Error::environment("PROGRAM_MISSING", format!("wanted the program {name}, it is not in PATH"))
                    .hint(install)
            })
        };
        Ok(Self {
            qemu: wanted("qemu-system-x86_64", INSTALL_QEMU)?,
            swtpm: wanted("swtpm", INSTALL_SWTPM)?,
            setpriv: wanted("setpriv", "apt install util-linux")?,
            vsock: vsock_in(path),
            firmware: firmware().ok_or_else(|| {
                Error::environment("FIRMWARE_MISSING", format!("wanted OVMF at {}, it is not there", FIRMWARE[0]))
                    .hint(INSTALL_OVMF)
            })?,
        })
    }
}

/// `vhost-device-vsock`, in `path` or where the quickstart installs it.
pub fn vsock_in(path: &OsStr) -> Option<PathBuf> {
    let name = "vhost-device-vsock";
    let cache = folders::cache();
    program(path, name).or_else(|| Some(cache.join("host/bin").join(name)).filter(|file| is_program(file)))
}

/// The program `name` in the folders of `path`.
pub fn program(path: &OsStr, name: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|dir| dir.join(name)).find(|file| is_program(file))
}

/// OVMF as one file.
pub fn firmware() -> Option<PathBuf> {
    FIRMWARE.iter().map(PathBuf::from).find(|file| file.is_file())
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
