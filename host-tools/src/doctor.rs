//! `doctor`: what this host has and lacks, why it matters, and exactly how to get it.

use std::env;
use std::fmt;
use std::fs;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::isolation::{AccelChoice, Isolation, KVM, Probe, qemu_version};
use crate::programs::{self, INSTALL_OVMF, INSTALL_QEMU, INSTALL_SWTPM, INSTALL_VSOCK, Programs, program};
use crate::release::Image;
use crate::vm::{Accel, Transport};
use crate::vsock::VHOST_VSOCK;
use crate::{Error, folders};

/// Everything that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Always `blf.doctor/v1`.
    pub schema: &'static str,
    /// True if no row failed: `launch` can work here.
    pub ok: bool,
    /// One row a requirement.
    pub rows: Vec<Row>,
}

/// One requirement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    /// What is required.
    pub name: &'static str,
    /// Whether it is there.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub why: &'static str,
    /// How to get it, if it is not there.
    pub fix: Option<String>,
}

/// Whether something is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// There.
    Ok,
    /// Not there; it works without, less well.
    Warn,
    /// Not there; `launch` will not work.
    Fail,
}

/// Memory for one guest with its helpers, in MiB.
const MEMORY_MIB: u64 = 768;
/// Room for an image, a model pack and the tools, in MiB.
const DISK_MIB: u64 = 512;

/// Looks at everything. With an image in `folder`, boots it to find out whether KVM works.
pub async fn examine(folder: &Path) -> Report {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut rows = vec![
        match program(&path, "qemu-system-x86_64") {
            None => Row::fail("qemu", "not in PATH", "runs the VM", INSTALL_QEMU),
            Some(qemu) => match qemu_version(&qemu).await {
                Ok(version) => Row::ok("qemu", version, "runs the VM"),
                Err(e) => Row::fail("qemu", e.message, "runs the VM", INSTALL_QEMU),
            },
        },
        match programs::firmware() {
            Some(file) => Row::ok("ovmf", file.display().to_string(), "firmware that measures the image"),
            None => Row::fail("ovmf", "not found", "firmware that measures the image", INSTALL_OVMF),
        },
        match program(&path, "swtpm") {
            Some(file) => Row::ok("swtpm", file.display().to_string(), "the TPM that evidence comes from"),
            None => Row::fail("swtpm", "not in PATH", "the TPM that evidence comes from", INSTALL_SWTPM),
        },
        match program(&path, "setpriv") {
            Some(file) => Row::ok("setpriv", file.display().to_string(), "ends the VM when this command dies"),
            None => Row::fail("setpriv", "not in PATH", "ends the VM when this command dies", "apt install util-linux"),
        },
        vsock(&path),
    ];
    rows.push(kvm(folder).await);
    rows.push(tee());
    rows.push(memory());
    rows.push(disk());
    Report { schema: "blf.doctor/v1", ok: rows.iter().all(|row| row.status != Status::Fail), rows }
}

fn vsock(path: &std::ffi::OsStr) -> Row {
    let why = "carries documents, telemetry and TLS bytes between guest and host";
    let kernel = fs::OpenOptions::new().read(true).write(true).open(VHOST_VSOCK);
    match (kernel, programs::vsock_in(path)) {
        (Ok(_), _) => Row::ok("vsock", format!("{VHOST_VSOCK} of the kernel"), why),
        (Err(_), Some(file)) => Row::ok("vsock", format!("{}, no {VHOST_VSOCK}", file.display()), why),
        (Err(e), None) => Row::fail("vsock", format!("{VHOST_VSOCK}: {e}; no vhost-device-vsock"), why, INSTALL_VSOCK),
    }
}

async fn kvm(folder: &Path) -> Row {
    let why = "without it the guest's instructions are translated: correct, several times slower";
    let warn =
        |found: String, fix: &str| Row { fix: Some(fix.into()), ..Row::ok("kvm", found, why).with(Status::Warn) };
    if let Err(e) = fs::OpenOptions::new().read(true).write(true).open(KVM) {
        return warn(
            format!("{KVM}: {e}"),
            "enable virtualisation in the firmware, load kvm_amd or kvm_intel, join the group kvm",
        );
    }
    let probed = async {
        let programs = Programs::find()?;
        let transport = Transport::find(&programs)?;
        let image = Image::check(folder)?;
        let probe = Probe::of_this_machine(&programs, &transport, &image, None);
        Isolation::choose(AccelChoice::Auto, &probe).await
    };
    match probed.await {
        Ok(Isolation { accel: Accel::Kvm, why: found }) => Row::ok("kvm", found, why),
        Ok(Isolation { accel: Accel::Tcg, why: found }) => {
            warn(found, "use a machine whose processor is not itself emulated")
        }
        Err(Error { message, .. }) => warn(
            format!("{KVM} opens, which proves nothing; not tried further: {message}"),
            "image/build, then run this again",
        ),
    }
}

fn tee() -> Row {
    let why = "keeps the operator out of the guest's memory (tier 2)";
    let found = if Path::new("/dev/sev").exists() {
        "/dev/sev is there; this release does not use it"
    } else {
        "none that this release can use"
    };
    let fix = "the measured firmware for SEV-SNP and TDX comes with a later release; until then tier 0";
    Row { fix: Some(fix.into()), ..Row::ok("tee", found, why).with(Status::Warn) }
}

fn memory() -> Row {
    let why = "a guest gets 512 MiB unless told otherwise";
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse().ok());
    let mib = kib.map_or(0, |kib: u64| kib / 1024);
    if mib >= MEMORY_MIB {
        return Row::ok("memory", format!("{mib} MiB available"), why);
    }
    Row::fail("memory", format!("{mib} MiB available"), why, format!("free memory: wanted at least {MEMORY_MIB} MiB"))
}

fn disk() -> Row {
    let why = "images, model packs and tools are kept in the cache";
    let cache = folders::cache();
    // The nearest folder above it that exists says which file system it will be on.
    let exists = cache.ancestors().find(|dir| dir.is_dir()).unwrap_or_else(|| Path::new("/"));
    let free = rustix::fs::statvfs(exists).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize) / (1024 * 1024));
    let found = format!("{free} MiB free for {}", cache.display());
    if free >= DISK_MIB {
        return Row::ok("disk", found, why);
    }
    Row::fail("disk", found, why, format!("free disk space: wanted at least {DISK_MIB} MiB, or set BLF_CACHE"))
}

impl Row {
    fn ok(name: &'static str, found: impl Into<String>, why: &'static str) -> Self {
        Self { name, status: Status::Ok, found: found.into(), why, fix: None }
    }

    fn fail(name: &'static str, found: impl Into<String>, why: &'static str, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..Self::ok(name, found, why).with(Status::Fail) }
    }

    fn with(self, status: Status) -> Self {
        Self { status, ..self }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let (word, colour) = match row.status {
                Status::Ok => ("ok  ", AnsiColor::Green),
                Status::Warn => ("warn", AnsiColor::Yellow),
                Status::Fail => ("FAIL", AnsiColor::Red),
            };
            let style = Style::new().fg_color(Some(colour.into())).bold();
            writeln!(f, "{style}{word}{style:#} {:<8} {}", row.name, row.found)?;
            if let Some(fix) = &row.fix {
                writeln!(f, "              why: {}\n              fix: {fix}", row.why)?;
            }
        }
        f.write_str(if self.ok { "this host can launch" } else { "this host cannot launch yet" })
    }
}
