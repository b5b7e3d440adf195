//! What must be true of a guest that has booted and of a process in its sandbox, read back from the kernel.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};

use crate::attempts::Role;

/// Switches of the kernel and their values.
const SWITCHES: [(&str, &str); 20] = [
    ("fs/protected_fifos", "2"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_regular", "2"),
    ("fs/protected_symlinks", "1"),
    ("fs/suid_dumpable", "0"),
    ("kernel/core_pattern", ""),
    ("kernel/ctrl-alt-del", "0"),
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
    ("vm/unprivileged_userfaultfd", "0"),
];

/// Tells what the kernel was made to be.
pub(crate) fn kernel(out: &mut impl Write) -> io::Result<()> {
    for (name, wanted) in SWITCHES {
        let got = fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_else(|error| error.kind().to_string());
        tell(out, name, wanted, got.trim())?;
    }
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown")?;
    tell(out, "lockdown", "confidentiality", lockdown.split(['[', ']']).nth(1).unwrap_or("none"))?;
    // Its first line is a heading.
    let swaps = fs::read_to_string("/proc/swaps").map_or(0, |text| text.lines().count().saturating_sub(1));
    tell(out, "swap", "0", &swaps.to_string())?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(target), Some(kind), Some(flags)) = (words.next(), words.next(), words.next()) else { continue };
        // Of configfs only TSM's requests are left to make; whoever may make one is uid 0 and passes the filter.
        let wanted = if kind == "configfs" { "rw" } else { "ro" };
        tell(out, &format!("mount {target}").replace(' ', ":"), wanted, flags.split(',').next().unwrap_or(""))?;
    }
    tell(out, "debugfs", "absent", if mounts.contains(" debugfs ") { "mounted" } else { "absent" })
}

/// `/proc/self/status`, opened while that was still possible.
pub(crate) struct Status(File);

impl Status {
    pub(crate) fn open() -> io::Result<Self> {
        File::open("/proc/self/status").map(Self)
    }

    /// Tells what the kernel says of this process by now.
    pub(crate) fn tell(&mut self, out: &mut impl Write, role: Role) -> io::Result<()> {
        let mut bytes = vec![0; 8192];
        let length = self.0.read(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        let line = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            found.map(|value| value.split_whitespace().collect::<Vec<_>>().join(",")).unwrap_or_default()
        };
        let (uid, capabilities) = match role {
            // KILL, SETGID, SETUID, SYS_BOOT.
            Role::Kernel | Role::Supervisor | Role::Requests => ("0,0,0,0", "00000000004000e0"),
            Role::Courier => ("1001,1001,1001,1001", "0000000000000000"),
            Role::Engine => ("1002,1002,1002,1002", "0000000000000000"),
        };
        for (name, wanted) in [
            ("Uid", uid),
            ("Groups", ""),
            ("CapInh", "0000000000000000"),
            ("CapEff", capabilities),
            ("CapBnd", "00000000004000e0"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            tell(out, &format!("{}:{name}", role.name()), wanted, &line(name))?;
        }
        Ok(())
    }
}

fn tell(out: &mut impl Write, name: &str, wanted: &str, got: &str) -> io::Result<()> {
    let shown = |value: &str| if value.is_empty() { "-".to_owned() } else { value.replace(' ', "_") };
    writeln!(out, "fact {name} {} {}", shown(wanted), shown(got))
}
