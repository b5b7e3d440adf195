//! What PID 1 asks of the kernel: mounts, modules, switches, randomness, the end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use blf_evidence::Address;
use blf_evidence::telemetry::Event;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::system::RebootCommand;

use crate::clock::boottime;
use crate::sandbox::{self, SandboxError};

/// Where the image keeps its kernel modules, decompressed, named in the order of loading.
const MODULES: &str = "/mods";
/// Drivers whose device may be missing: a machine is one or the other, or neither.
const OPTIONAL: [&str; 2] = ["sev-guest", "tdx-guest"];

/// Switches that the command line of the image sets already, and those that it cannot. Their values are read back.
const SWITCHES: [(&str, &str); 19] = [
    ("fs/protected_fifos", "2"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_regular", "2"),
    ("fs/protected_symlinks", "1"),
    ("fs/suid_dumpable", "0"),
    ("kernel/core_pattern", ""),
    ("kernel/core_uses_pid", "0"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/io_uring_disabled", "2"),
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/modprobe", ""),
    ("kernel/modules_disabled", "1"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/randomize_va_space", "2"),
    ("kernel/sysrq", "0"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/yama/ptrace_scope", "3"),
    ("user/max_user_namespaces", "0"),
];

/// Mounts that nobody writes to after boot: root without a capability could still turn most switches back, or leave files
/// among the devices. Devices themselves are written to all the same; configfs stays open for TSM's requests.
const CLOSED: [(&str, MountFlags); 4] = [
    ("/proc", MountFlags::NODEV),
    ("/sys", MountFlags::NODEV),
    ("/sys/kernel/security", MountFlags::NODEV),
    ("/dev", MountFlags::empty()),
];

/// Why the kernel does not do it.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// Something else the kernel refused.
    #[error("{what}: {error}")]
    Kernel {
        /// What was asked.
        what: String,
        /// Its answer.
        error: io::Error,
    },
    /// A module of the image does not load.
    #[error("module {name}: {error}")]
    Module {
        /// Its file.
        name: String,
        /// The kernel's answer.
        error: Errno,
    },
    /// A file system does not mount.
    #[error("mount {target}: {error}")]
    Mount {
        /// Where.
        target: &'static str,
        /// The kernel's answer.
        error: Errno,
    },
    /// The processor has no random number generator of its own, and the profile does not trust the host's.
    #[error("random: wanted a processor with RDRAND")]
    NoRdrand,
    /// A child has no sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A switch keeps another value.
    #[error("sysctl {name}: wanted {wanted:?}, got {got:?}")]
    Switch {
        /// Its name.
        name: &'static str,
        /// The value it must have.
        wanted: &'static str,
        /// The value it has.
        got: String,
    },
}

impl SystemError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Kernel { .. } => "KERNEL",
            Self::Module { .. } => "KERNEL_MODULE",
            Self::Mount { .. } => "KERNEL_MOUNT",
            Self::NoRdrand => "NO_RDRAND",
            Self::Sandbox(_) => "SANDBOX",
            Self::Switch { .. } => "KERNEL_SWITCH",
        }
    }

    pub(super) fn kernel(what: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self::Kernel { what: what.into(), error: error.into() }
    }
}

/// The kernel's own file systems; nothing that anybody else made is ever mounted (architecture decision 11).
///
/// # Errors
/// [`SystemError`].
pub fn mount() -> Result<(), SystemError> {
    mount_one("/proc", "proc", MountFlags::NODEV, Some(c"hidepid=2"))?;
    mount_one("/sys", "sysfs", MountFlags::NODEV, None)?;
    mount_one("/dev", "devtmpfs", MountFlags::empty(), Some(c"mode=0755"))?;
    mount_one("/sys/kernel/security", "securityfs", MountFlags::NODEV, None)?;
    silence()
}

/// Until here standard streams are the console or, without one, a plain file of the image (see `image/README.md`); what a
/// library might print must end in neither.
fn silence() -> Result<(), SystemError> {
    let failed = |error: io::Error| SystemError::kernel("/dev/null", error);
    let null = File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .map_err(|error| failed(error.into()))
}

fn mount_one(
    target: &'static str,
    kind: &'static str,
    flags: MountFlags,
    data: Option<&std::ffi::CStr>,
) -> Result<(), SystemError> {
    let flags = flags | MountFlags::NOSUID | MountFlags::NOEXEC;
    match rustix::mount::mount(kind, target, kind, flags, data) {
        // The kernel may have mounted its devices itself.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(SystemError::Mount { target, error }),
    }
}

/// Loads the image's modules in the order of their names, and mounts the file system that one of them brings.
///
/// # Errors
/// [`SystemError`].
pub fn load_modules() -> Result<(), SystemError> {
    let listed = fs::read_dir(MODULES).map_err(|error| SystemError::kernel(MODULES, error))?;
    let mut paths: Vec<_> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "ko")) {
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let file = File::open(path).map_err(|error| SystemError::kernel(&name, error))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(Errno::NODEV) if OPTIONAL.iter().any(|optional| name.ends_with(optional)) => {}
            Err(error) => return Err(SystemError::Module { name, error }),
        }
    }
    if Path::new("/sys/kernel/config").exists() {
        mount_one("/sys/kernel/config", "configfs", MountFlags::NODEV, None)?;
    }
    Ok(())
}

/// Makes the root read-only, throws the switches that only go one way, reads every one back, and closes the files by which they
/// could be turned again.
///
/// # Errors
/// [`SystemError`].
pub fn harden() -> Result<(), SystemError> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount("/", flags, c"").map_err(|error| SystemError::Mount { target: "/", error })?;
    for (name, wanted) in SWITCHES {
        let path = Path::new("/proc/sys").join(name);
        let read = |path: &Path| fs::read_to_string(path).map(|text| text.trim().to_owned());
        let before = match read(&path) {
            // A kernel without the feature needs no switch for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            before => before.map_err(|error| SystemError::kernel(name, error))?,
        };
        if before != wanted {
            let written = OpenOptions::new().write(true).open(&path).and_then(|mut f| writeln!(f, "{wanted}"));
            written.map_err(|error| SystemError::kernel(name, error))?;
        }
        let got = read(&path).map_err(|error| SystemError::kernel(name, error))?;
        if got != wanted {
            return Err(SystemError::Switch { name, wanted, got });
        }
    }
    for (target, flags) in CLOSED {
        let flags = flags | MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC;
        rustix::mount::mount_remount(target, flags, c"").map_err(|error| SystemError::Mount { target, error })?;
    }
    rustix::system::reboot(RebootCommand::CadOff).map_err(|error| SystemError::kernel("ctrl-alt-del", error))
}

/// Waits until the kernel's random number generator is seeded.
pub(super) fn seeded(need_rdrand: bool) -> Result<(), SystemError> {
    #[cfg(target_arch = "x86_64")]
    if need_rdrand && !std::arch::is_x86_feature_detected!("rdrand") {
        return Err(SystemError::NoRdrand);
    }
    // With these flags the call blocks until the generator is seeded, once per boot.
    let mut byte = [0; 1];
    rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty())
        .map(drop)
        .map_err(|error| SystemError::kernel("getrandom", error))
}

/// What PID 1 can no longer do from now on.
pub(super) fn drop_privileges() -> Result<(), SystemError> {
    Ok(sandbox::enter_supervisor()?)
}

/// Where the devnet profile shows the boot list.
pub(super) fn console() -> Option<File> {
    OpenOptions::new().write(true).open("/dev/console").ok()
}

/// Memory that is available, in bytes.
pub(super) fn memory_available() -> u64 {
    meminfo("MemAvailable:").saturating_mul(1024)
}

/// The end of the boot list.
pub(super) fn booted(node: Address) -> Event {
    Event::Booted {
        node,
        millis: u64::try_from(boottime().as_millis()).unwrap_or(u64::MAX),
        memory_total_kib: meminfo("MemTotal:"),
        memory_available_kib: meminfo("MemAvailable:"),
    }
}

/// Ends the guest. There is nothing to write back.
pub(super) fn power_off() -> ! {
    loop {
        let _ = rustix::system::reboot(RebootCommand::PowerOff);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// One line of /proc/meminfo, in KiB; 0 if it is not there.
fn meminfo(member: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(member));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
