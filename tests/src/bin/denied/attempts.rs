//! What is tried, and how it must end in each role.
//!
//! ```text
//! E   refused with EPERM or EACCES          K   the process is killed by its filter
//! N   the kernel has no such thing          R   the file system is read-only
//! -   let through: it succeeds, or fails for a reason of its own; the role needs it
//! .   not tried
//! ```
//!
//! Columns: the kernel alone (root with every capability, no filter, once the boot has hardened) · the vault's supervisor ·
//! the vault's threads that read frames · courier · engine.

use std::fs::{self, File, OpenOptions};
use std::io;

use libc::c_long;
use rustix::io::Errno;

use crate::call::call;

/// In whose sandbox something is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Kernel,
    Supervisor,
    Requests,
    Courier,
    Engine,
}

/// One thing that is tried.
pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    wanted: &'static str,
    act: Act,
}

enum Act {
    /// A system call by its number.
    Call(c_long, [c_long; 5]),
    Create(&'static str),
    List(&'static str),
    Read(&'static str),
    /// A thread, which must work.
    Thread,
    Write(&'static str),
}

use Act::{Call, Create, List, Read, Thread, Write};

const fn attempt(name: &'static str, wanted: &'static str, act: Act) -> Attempt {
    Attempt { name, wanted, act }
}

/// What the filters decide, on any machine.
const CALLS: &[Attempt] = &[
    attempt("thread", "- - - - -", Thread),
    attempt("acct", ". E E K K", Call(libc::SYS_acct, [0; 5])),
    attempt("add_key", ". E E K K", Call(libc::SYS_add_key, [0; 5])),
    attempt("adjtimex", ". E E K K", Call(libc::SYS_adjtimex, [0; 5])),
    attempt("bind", ". - E K K", Call(libc::SYS_bind, [-1, 0, 0, 0, 0])),
    attempt("bpf", ". E E K K", Call(libc::SYS_bpf, [0; 5])),
    attempt("capset", ". - E K K", Call(libc::SYS_capset, [0; 5])),
    attempt("chroot", ". E E K K", Call(libc::SYS_chroot, [0; 5])),
    attempt("clock_adjtime", ". E E K K", Call(libc::SYS_clock_adjtime, [0; 5])),
    attempt("clock_settime", ". E E K K", Call(libc::SYS_clock_settime, [0; 5])),
    // A new process, were it not for a combination of flags that the kernel refuses.
    attempt("clone", ". - E K K", Call(libc::SYS_clone, [CLONE_SIGHAND, 0, 0, 0, 0])),
    attempt("connect", ". - E - K", Call(libc::SYS_connect, [-1, 0, 0, 0, 0])),
    attempt("delete_module", "E E E K K", Call(libc::SYS_delete_module, [0; 5])),
    attempt("execve", ". - E K K", Call(libc::SYS_execve, [0; 5])),
    attempt("fanotify_init", ". E E K K", Call(libc::SYS_fanotify_init, [0; 5])),
    attempt("finit_module", "E E E K K", Call(libc::SYS_finit_module, [-1, 0, 0, 0, 0])),
    attempt("fsmount", ". E E K K", Call(libc::SYS_fsmount, [-1, 0, 0, 0, 0])),
    attempt("fsopen", ". E E K K", Call(libc::SYS_fsopen, [0; 5])),
    attempt("init_module", "E E E K K", Call(libc::SYS_init_module, [0; 5])),
    attempt("inotify_init1", ". - E K K", Call(libc::SYS_inotify_init1, [-1, 0, 0, 0, 0])),
    attempt("io_uring_setup", "E E E K K", Call(libc::SYS_io_uring_setup, [0; 5])),
    attempt("ioctl TIOCSTI", ". - E K K", Call(libc::SYS_ioctl, [-1, 0x5412, 0, 0, 0])),
    attempt("ioperm", "E E E K K", Call(libc::SYS_ioperm, [0x80, 1, 1, 0, 0])),
    attempt("iopl", "E E E K K", Call(libc::SYS_iopl, [3, 0, 0, 0, 0])),
    attempt("kcmp", ". E E K K", Call(libc::SYS_kcmp, [1, 1, 0, 0, 0])),
    attempt("kexec_file_load", "E E E K K", Call(libc::SYS_kexec_file_load, [-1, -1, 0, 0, 0])),
    attempt("kexec_load", "E E E K K", Call(libc::SYS_kexec_load, [0; 5])),
    attempt("keyctl", ". E E K K", Call(libc::SYS_keyctl, [0, -3, 0, 0, 0])),
    // The vault ends an engine that is late; signal 0 only asks.
    attempt("kill", ". - - K K", Call(libc::SYS_kill, [1, 0, 0, 0, 0])),
    attempt("landlock", ". - E K K", Call(libc::SYS_landlock_restrict_self, [-1, 0, 0, 0, 0])),
    attempt("memfd_create", ". - E K K", Call(libc::SYS_memfd_create, [0; 5])),
    attempt("memfd_secret", ". - E K K", Call(libc::SYS_memfd_secret, [-1, 0, 0, 0, 0])),
    attempt("mmap executable", ". - E K K", Call(libc::SYS_mmap, [0, 4096, 5, 0x22, -1])),
    attempt("mount", ". E E K K", Call(libc::SYS_mount, [0; 5])),
    attempt("mount_setattr", ". E E K K", Call(libc::SYS_mount_setattr, [-1, 0, 0, 0, 0])),
    attempt("move_mount", ". E E K K", Call(libc::SYS_move_mount, [-1, 0, -1, 0, 0])),
    attempt("mprotect executable", ". - E K K", Call(libc::SYS_mprotect, [0, 0, 4, 0, 0])),
    attempt("name_to_handle_at", ". E E K K", Call(libc::SYS_name_to_handle_at, [-1, 0, 0, 0, 0])),
    attempt("open_by_handle_at", ". E E K K", Call(libc::SYS_open_by_handle_at, [-1, 0, 0, 0, 0])),
    attempt("open_tree", ". E E K K", Call(libc::SYS_open_tree, [-1, 0, 0, 0, 0])),
    attempt("perf_event_open", ". E E K K", Call(libc::SYS_perf_event_open, [0, 0, -1, -1, 0])),
    attempt("personality", ". E E K K", Call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0])),
    attempt("pidfd_getfd", ". E E K K", Call(libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0])),
    attempt("pidfd_open", ". - E K K", Call(libc::SYS_pidfd_open, [1, -1, 0, 0, 0])),
    attempt("pivot_root", ". E E K K", Call(libc::SYS_pivot_root, [0; 5])),
    attempt("prctl PR_SET_DUMPABLE", ". - E K K", Call(libc::SYS_prctl, [4, 0, 0, 0, 0])),
    attempt("prctl PR_SET_PTRACER", ". - E K K", Call(libc::SYS_prctl, [0x5961_6d61, 0, 0, 0, 0])),
    attempt("process_madvise", ". E E K K", Call(libc::SYS_process_madvise, [-1, 0, 0, 0, 0])),
    attempt("process_vm_readv", ". E E K K", Call(libc::SYS_process_vm_readv, [1, 0, 0, 0, 0])),
    attempt("process_vm_writev", ". E E K K", Call(libc::SYS_process_vm_writev, [1, 0, 0, 0, 0])),
    attempt("ptrace PTRACE_ATTACH", "E E E K K", Call(libc::SYS_ptrace, [16, 1, 0, 0, 0])),
    attempt("quotactl", ". E E K K", Call(libc::SYS_quotactl, [0; 5])),
    attempt("reboot", ". - E K K", Call(libc::SYS_reboot, [0; 5])),
    attempt("request_key", ". E E K K", Call(libc::SYS_request_key, [0; 5])),
    attempt("sched_setattr", ". - E K K", Call(libc::SYS_sched_setattr, [-1, 0, 0, 0, 0])),
    attempt("seccomp", ". - E K K", Call(libc::SYS_seccomp, [99, 0, 0, 0, 0])),
    attempt("setgroups", ". - E K K", Call(libc::SYS_setgroups, [-1, 0, 0, 0, 0])),
    attempt("sethostname", ". E E K K", Call(libc::SYS_sethostname, [0, -1, 0, 0, 0])),
    attempt("setns", ". E E K K", Call(libc::SYS_setns, [-1, 0, 0, 0, 0])),
    attempt("setresuid", ". - E K K", Call(libc::SYS_setresuid, [-1, -1, -1, 0, 0])),
    attempt("setrlimit", ". - E K K", Call(libc::SYS_setrlimit, [4, 0, 0, 0, 0])),
    attempt("settimeofday", ". E E K K", Call(libc::SYS_settimeofday, [0; 5])),
    attempt("shmget", ". - E K K", Call(libc::SYS_shmget, [0, 0, 0, 0, 0])),
    attempt("socket AF_ALG", ". E E K K", Call(libc::SYS_socket, [38, 5, 0, 0, 0])),
    attempt("socket AF_INET", ". E E K K", Call(libc::SYS_socket, [2, 1, 0, 0, 0])),
    attempt("socket AF_INET6", ". E E K K", Call(libc::SYS_socket, [10, 1, 0, 0, 0])),
    attempt("socket AF_NETLINK", ". E E K K", Call(libc::SYS_socket, [16, 3, 0, 0, 0])),
    attempt("socket AF_PACKET", ". E E K K", Call(libc::SYS_socket, [17, 3, 0, 0, 0])),
    attempt("socket AF_UNIX", ". E E K K", Call(libc::SYS_socket, [1, 1, 0, 0, 0])),
    attempt("socket AF_VSOCK", ". - E - K", Call(libc::SYS_socket, [40, 1, 0, 0, 0])),
    attempt("socketpair", ". - E - K", Call(libc::SYS_socketpair, [1, 1, 0, 0, 0])),
    attempt("swapoff", ". E E K K", Call(libc::SYS_swapoff, [0; 5])),
    attempt("swapon", ". E E K K", Call(libc::SYS_swapon, [0; 5])),
    attempt("syslog", ". E E K K", Call(libc::SYS_syslog, [10, 0, 0, 0, 0])),
    attempt("tgkill", ". - E K K", Call(libc::SYS_tgkill, [1, 1, 0, 0, 0])),
    attempt("umount2", ". E E K K", Call(libc::SYS_umount2, [0; 5])),
    attempt("unshare", ". E E K K", Call(libc::SYS_unshare, [0; 5])),
    attempt("userfaultfd", ". E E K K", Call(libc::SYS_userfaultfd, [0; 5])),
];

/// What else decides it, or the guest's kernel knows: for the courier and the engine it is their filters anywhere.
const GUEST: &[Attempt] = &[
    // The second table of system calls, which filters that name what is denied do not name.
    attempt("bpf of x32", "N N E K K", Call(X32 | 321, [0; 5])),
    attempt("create /dev/blf", "R R R E E", Create("/dev/blf")),
    attempt("create /blf", "R R R E E", Create("/blf")),
    attempt("list /mods", ". - - E E", List("/mods")),
    attempt("list /proc", ". - - E E", List("/proc")),
    attempt("read /dev/kmsg", ". E E E E", Read("/dev/kmsg")),
    attempt("read /dev/mem", "E E E E E", Read("/dev/mem")),
    attempt("read /dev/port", "N N N E E", Read("/dev/port")),
    attempt("read /init", ". - - E E", Read("/init")),
    attempt("read /proc/1/environ", ". E E E E", Read("/proc/1/environ")),
    attempt("read /proc/1/maps", ". E E E E", Read("/proc/1/maps")),
    attempt("read /proc/1/mem", "E E E E E", Read("/proc/1/mem")),
    attempt("read /proc/kcore", "E E E E E", Read("/proc/kcore")),
    attempt("read /proc/self/status", ". - - E E", Read("/proc/self/status")),
    attempt("read /sys/kernel/debug", "N N N E E", List("/sys/kernel/debug/x86")),
    attempt("read /sys/kernel/tracing", "N N N E E", List("/sys/kernel/tracing/events")),
    attempt("write /dev/tty", "N N N E E", Write("/dev/tty")),
    attempt("write /proc/self/mem", ". R R E E", Write("/proc/self/mem")),
    attempt("write /proc/sys/fs/suid_dumpable", "R R R E E", Write("/proc/sys/fs/suid_dumpable")),
    attempt("write /proc/sys/kernel/core_pattern", "R R R E E", Write("/proc/sys/kernel/core_pattern")),
    attempt("write /proc/sys/kernel/modprobe", "R R R E E", Write("/proc/sys/kernel/modprobe")),
    attempt("write /proc/sysrq-trigger", "R R R E E", Write("/proc/sysrq-trigger")),
    attempt("write /sys/kernel/mm", "R R R E E", Write("/sys/kernel/mm/transparent_hugepage/enabled")),
];

/// What `role` tries, each with how it must end.
pub(crate) fn attempts(role: Role, guest: bool) -> Vec<(&'static Attempt, char)> {
    // Elsewhere only filters without exceptions decide about files.
    let files = guest || matches!(role, Role::Courier | Role::Engine);
    let all = CALLS.iter().chain(GUEST.iter().filter(|_| files));
    all.map(|attempt| (attempt, attempt.wanted(role))).filter(|(_, wanted)| *wanted != '.').collect()
}

impl Role {
    const ALL: [(Self, &str); 5] = [
        (Self::Kernel, "kernel"),
        (Self::Supervisor, "supervisor"),
        (Self::Requests, "requests"),
        (Self::Courier, "courier"),
        (Self::Engine, "engine"),
    ];

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(role, _)| role)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }
}

impl Attempt {
    fn wanted(&self, role: Role) -> char {
        let column = Role::ALL.iter().position(|(known, _)| *known == role).unwrap_or(0);
        self.wanted.split(' ').nth(column).and_then(|word| word.chars().next()).unwrap_or('.')
    }

    /// Tries it; a filter that kills does not return.
    pub(crate) fn run(&self) -> char {
        let done = match self.act {
            Call(number, arguments) => call(number, arguments),
            Create(path) => OpenOptions::new().write(true).create_new(true).open(path).map(drop),
            List(path) => fs::read_dir(path).map(drop),
            Read(path) => File::open(path).map(drop),
            Thread => std::thread::Builder::new()
                .spawn(|| {})
                .and_then(|thread| thread.join().map_err(|_| io::Error::other("panicked"))),
            Write(path) => OpenOptions::new().write(true).open(path).map(drop),
        };
        match done.as_ref().map_err(Errno::from_io_error) {
            Err(Some(Errno::PERM | Errno::ACCESS)) => 'E',
            Err(Some(Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::NOSYS | Errno::AFNOSUPPORT)) => 'N',
            Err(Some(Errno::ROFS)) => 'R',
            _ => '-',
        }
    }
}

// Linux's own numbers (linux/sched.h, asm/unistd.h).
const CLONE_SIGHAND: c_long = 0x800;
const X32: c_long = 0x4000_0000;
