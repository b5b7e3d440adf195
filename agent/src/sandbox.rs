//! What each role may still do once it has started (architecture decision 10).
//!
//! ```text
//!                       vault: supervisor   vault: requests   courier         engine
//! user                  0                   0                 1001            1002
//! capabilities          KILL SETGID SETUID SYS_BOOT           none            none
//! new programs          children            no                no              no
//! new sockets           pairs               no                AF_VSOCK only   no
//! files                 yes                 yes (TSM, TPM)    no              no
//! a call not listed     denied list: EPERM  EPERM             kills           kills
//! ```
//!
//! Filters belong to threads and are inherited. The vault's supervisor, which reads nothing from outside, keeps what it
//! needs to start a child again; the threads that read frames do not. They share memory, so this is a second line and
//! no wall; the walls are the processes.

use std::collections::BTreeMap;

use libc::c_long;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// User and group of the courier.
pub const COURIER: u32 = 1001;
/// User and group of the engine.
pub const ENGINE: u32 = 1002;

/// Address space of the courier, in bytes: its threads' stacks and arenas are virtual, its buffers are small.
const COURIER_SPACE: u64 = 2 << 30;
/// Address space of the engine beyond its multiple of the model, in bytes.
const ENGINE_SPACE: u64 = 4 << 30;

/// Why a role does not start: it never runs with less of a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The filter cannot be made or installed.
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::Error),
    /// A filter's rule is malformed.
    #[error("seccomp: {0}")]
    Rule(#[from] BackendError),
    /// The kernel refuses.
    #[error("sandbox: {what}: {error}")]
    Kernel {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        error: Errno,
    },
}

/// Has every panic of this process say nothing: its message could carry anything.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// Makes this single-threaded process the courier's.
///
/// # Errors
/// [`SandboxError`].
pub fn enter_courier() -> Result<(), SandboxError> {
    give_up_user(COURIER)?;
    limit(COURIER_SPACE, 256, 32)?;
    filter_courier()
}

/// Makes this single-threaded process the engine's; its model has `model_bytes`.
///
/// # Errors
/// [`SandboxError`].
pub fn enter_engine(model_bytes: u64) -> Result<(), SandboxError> {
    give_up_user(ENGINE)?;
    // The pack, its tensors in another format, and what a prompt needs.
    limit(model_bytes.saturating_mul(4).saturating_add(ENGINE_SPACE), 16, 256)?;
    filter_engine()
}

/// What the vault's first thread, and so everybody after it, can no longer do once it has booted.
///
/// # Errors
/// [`SandboxError`].
pub fn enter_supervisor() -> Result<(), SandboxError> {
    let kept = CapabilitySet::KILL | CapabilitySet::SETGID | CapabilitySet::SETUID | CapabilitySet::SYS_BOOT;
    for capability in CapabilitySet::all() - kept {
        // Capabilities that this kernel does not know are none.
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(SandboxError::Kernel { what: "bounding set", error }),
        }
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    kernel("capabilities", rustix::thread::set_capabilities(None, sets))?;
    no_core()?;
    filter_supervisor()
}

/// What the threads that read the courier's frames can no longer do.
///
/// # Errors
/// [`SandboxError`].
pub fn enter_requests() -> Result<(), SandboxError> {
    install(&[(&[always(libc::SYS_clone3)], Action::Missing)])?;
    allow_only(&[runtime(), streams(), devices()], SeccompAction::Errno(EPERM))
}

fn give_up_user(id: u32) -> Result<(), SandboxError> {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    kernel("groups", rustix::thread::set_thread_groups(&[]))?;
    kernel("group", rustix::thread::set_thread_res_gid(group, group, group))?;
    kernel("user", rustix::thread::set_thread_res_uid(user, user, user))?;
    // The signal is cleared by a change of user, so it comes after.
    kernel("parent", rustix::process::set_parent_process_death_signal(Some(Signal::KILL)))
}

fn limit(address_space: u64, files: u64, threads: u64) -> Result<(), SandboxError> {
    no_core()?;
    let limits = [
        ("RLIMIT_AS", Resource::As, address_space),
        ("RLIMIT_FSIZE", Resource::Fsize, 0),
        ("RLIMIT_MEMLOCK", Resource::Memlock, 0),
        ("RLIMIT_MSGQUEUE", Resource::Msgqueue, 0),
        ("RLIMIT_NOFILE", Resource::Nofile, files),
        ("RLIMIT_NPROC", Resource::Nproc, threads),
    ];
    for (what, resource, most) in limits {
        kernel(what, setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }))?;
    }
    Ok(())
}

fn no_core() -> Result<(), SandboxError> {
    kernel("RLIMIT_CORE", setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }))?;
    kernel("dumpable", rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))?;
    kernel("no_new_privs", rustix::thread::set_no_new_privs(true))
}

fn filter_courier() -> Result<(), SandboxError> {
    install(&[(&[always(libc::SYS_clone3)], Action::Missing), (&files(), Action::Denied)])?;
    allow_only(&[runtime(), streams(), tunnel(), files()], SeccompAction::KillProcess)
}

fn filter_engine() -> Result<(), SandboxError> {
    install(&[(&[always(libc::SYS_clone3)], Action::Missing), (&files(), Action::Denied)])?;
    allow_only(&[runtime(), streams(), files()], SeccompAction::KillProcess)
}

fn filter_supervisor() -> Result<(), SandboxError> {
    install(&[(&never(), Action::Denied)])
}

/// A system call, and what its argument must be for the rule to match.
type Call = (c_long, Option<(u8, SeccompCmpOp, u64)>);

/// What happens to calls that match.
enum Action {
    /// EPERM: a program that asks for it goes on without.
    Denied,
    /// ENOSYS: the C library then uses the older call, whose flags can be seen.
    Missing,
}

fn always(call: c_long) -> Call {
    (call, None)
}

/// Memory, threads, time: what any Rust program does. No new processes, no executable memory.
fn runtime() -> Vec<Call> {
    let no_exec = SeccompCmpOp::MaskedEq(PROT_EXEC);
    let mut calls = vec![
        (libc::SYS_mmap, Some((2, no_exec.clone(), 0))),
        (libc::SYS_mprotect, Some((2, no_exec, 0))),
        (libc::SYS_clone, Some((0, SeccompCmpOp::MaskedEq(CLONE_THREAD), CLONE_THREAD))),
        (libc::SYS_prctl, Some((0, SeccompCmpOp::Eq, PR_SET_NAME))),
    ];
    calls.extend(
        [
            libc::SYS_brk,
            libc::SYS_clock_getres,
            libc::SYS_clock_gettime,
            libc::SYS_clock_nanosleep,
            libc::SYS_clone3,
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_futex,
            libc::SYS_getpid,
            libc::SYS_getrandom,
            libc::SYS_gettid,
            libc::SYS_gettimeofday,
            libc::SYS_madvise,
            libc::SYS_membarrier,
            libc::SYS_mremap,
            libc::SYS_munmap,
            libc::SYS_nanosleep,
            libc::SYS_restart_syscall,
            libc::SYS_rseq,
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_sched_getaffinity,
            libc::SYS_sched_yield,
            libc::SYS_set_robust_list,
            libc::SYS_sigaltstack,
        ]
        .map(always),
    );
    calls
}

/// Reading and writing what is open.
fn streams() -> Vec<Call> {
    [
        libc::SYS_close,
        libc::SYS_dup,
        libc::SYS_fcntl,
        libc::SYS_fstat,
        libc::SYS_getsockopt,
        libc::SYS_lseek,
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_pread64,
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
        libc::SYS_sendto,
        libc::SYS_setsockopt,
        libc::SYS_shutdown,
        libc::SYS_write,
        libc::SYS_writev,
    ]
    .map(always)
    .to_vec()
}

/// The courier's event loop, and sockets of the one family that leads to the host's forwarder. The socket at which
/// inbound streams arrive listens before; no other can be bound.
fn tunnel() -> Vec<Call> {
    let vsock = Some((0, SeccompCmpOp::Eq, AF_VSOCK));
    let mut calls = vec![(libc::SYS_socket, vsock), (libc::SYS_ioctl, Some((1, SeccompCmpOp::Eq, FIONBIO)))];
    calls.extend(
        [
            libc::SYS_accept4,
            libc::SYS_connect,
            // Where Cargo builds the whole workspace, tokio has its signal feature and makes a pair that nothing can use.
            libc::SYS_socketpair,
            libc::SYS_epoll_create1,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_epoll_wait,
            libc::SYS_eventfd2,
            libc::SYS_getpeername,
            libc::SYS_getsockname,
        ]
        .map(always),
    );
    calls
}

/// Looking for files: libraries do it when they start, to tune themselves, and do without.
fn files() -> Vec<Call> {
    [
        libc::SYS_access,
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_getcwd,
        libc::SYS_newfstatat,
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_prlimit64,
        libc::SYS_readlink,
        libc::SYS_readlinkat,
        libc::SYS_stat,
        libc::SYS_statx,
        libc::SYS_sysinfo,
        libc::SYS_uname,
    ]
    .map(always)
    .to_vec()
}

/// The TPM's device and configfs-tsm: open, make and remove a request's directory.
fn devices() -> Vec<Call> {
    [
        libc::SYS_getdents64,
        libc::SYS_kill,
        libc::SYS_mkdir,
        libc::SYS_mkdirat,
        libc::SYS_newfstatat,
        libc::SYS_openat,
        libc::SYS_readlink,
        libc::SYS_readlinkat,
        libc::SYS_rmdir,
        libc::SYS_statx,
        libc::SYS_unlinkat,
    ]
    .map(always)
    .to_vec()
}

/// What nobody in this guest does after boot.
fn never() -> Vec<Call> {
    let mut calls = vec![(libc::SYS_socket, Some((0, SeccompCmpOp::Ne, AF_VSOCK)))];
    calls.extend(
        [
            libc::SYS_acct,
            libc::SYS_add_key,
            libc::SYS_adjtimex,
            libc::SYS_bpf,
            libc::SYS_chroot,
            libc::SYS_clock_adjtime,
            libc::SYS_clock_settime,
            libc::SYS_delete_module,
            libc::SYS_fanotify_init,
            libc::SYS_finit_module,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fsopen,
            libc::SYS_fspick,
            libc::SYS_init_module,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_io_uring_setup,
            libc::SYS_ioperm,
            libc::SYS_iopl,
            libc::SYS_kcmp,
            libc::SYS_kexec_file_load,
            libc::SYS_kexec_load,
            libc::SYS_keyctl,
            libc::SYS_mount,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_name_to_handle_at,
            libc::SYS_open_by_handle_at,
            libc::SYS_open_tree,
            libc::SYS_perf_event_open,
            libc::SYS_personality,
            libc::SYS_pidfd_getfd,
            libc::SYS_pivot_root,
            libc::SYS_process_madvise,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_ptrace,
            libc::SYS_quotactl,
            libc::SYS_request_key,
            libc::SYS_setns,
            libc::SYS_settimeofday,
            libc::SYS_swapoff,
            libc::SYS_swapon,
            libc::SYS_syslog,
            libc::SYS_umount2,
            libc::SYS_unshare,
            libc::SYS_userfaultfd,
        ]
        .map(always),
    );
    calls
}

/// One filter per entry: calls that match are answered so, all others pass to the next filter. The kernel takes the
/// strictest answer of all filters.
fn install(filters: &[(&[Call], Action)]) -> Result<(), SandboxError> {
    for (calls, action) in filters {
        let on_match = match action {
            Action::Denied => SeccompAction::Errno(EPERM),
            Action::Missing => SeccompAction::Errno(ENOSYS),
        };
        apply(calls.iter().cloned(), SeccompAction::Allow, on_match)?;
    }
    Ok(())
}

fn allow_only(lists: &[Vec<Call>], otherwise: SeccompAction) -> Result<(), SandboxError> {
    apply(lists.iter().flatten().cloned(), otherwise, SeccompAction::Allow)
}

fn apply(
    calls: impl Iterator<Item = Call>,
    otherwise: SeccompAction,
    on_match: SeccompAction,
) -> Result<(), SandboxError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, condition) in calls {
        let rules = rules.entry(call).or_default();
        if let Some((argument, operator, value)) = condition {
            let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
            rules.push(SeccompRule::new(vec![condition])?);
        }
    }
    let filter = SeccompFilter::new(rules, otherwise, on_match, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}

fn kernel(what: &'static str, answer: rustix::io::Result<()>) -> Result<(), SandboxError> {
    answer.map_err(|error| SandboxError::Kernel { what, error })
}

// Linux's own numbers (asm-generic and linux/*.h), as the filters compare them: 32 bits, unsigned.
const AF_VSOCK: u64 = 40;
const CLONE_THREAD: u64 = 0x0001_0000;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
const FIONBIO: u64 = 0x5421;
const PROT_EXEC: u64 = 4;
const PR_SET_NAME: u64 = 15;

/// Each test starts this test binary again, as a process that enters a sandbox and then does one thing.
#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, ExitStatus};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

    use super::*;

    const SIGSYS: i32 = 31;
    const VARIABLE: &str = "BLF_SANDBOX_TEST";

    fn run(role: &str, act: &str) -> ExitStatus {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "sandbox::tests::child", "--test-threads=1"])
            .env(VARIABLE, format!("{role} {act}"))
            .output()
            .unwrap();
        output.status
    }

    #[test]
    #[ignore = "started by the other tests"]
    #[expect(clippy::exit, reason = "the parent reads the status")]
    fn child() {
        let task = std::env::var(VARIABLE).unwrap();
        let (role, act) = task.split_once(' ').unwrap();
        // Not the user, which would need root; that is seen when the image boots.
        match role {
            "courier" => limit(COURIER_SPACE, 256, 4096).and_then(|()| filter_courier()).unwrap(),
            "engine" => limit(ENGINE_SPACE, 256, 4096).and_then(|()| filter_engine()).unwrap(),
            "requests" => no_core().and_then(|()| enter_requests()).unwrap(),
            "supervisor" => no_core().and_then(|()| filter_supervisor()).unwrap(),
            _ => unreachable!(),
        }
        let vsock = || socket_with(AddressFamily::VSOCK, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let inet = || socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let done = match act {
            "compute" => std::thread::spawn(|| vec![7u8; 1 << 20].iter().map(|b| u64::from(*b)).sum::<u64>())
                .join()
                .map(|sum| assert_eq!(sum, 7 << 20))
                .map_err(|_| io::Error::other("panic")),
            "open" => std::fs::File::open("/proc/self/status").map(drop),
            "write" => std::fs::write("/tmp/blf-sandbox-test", b"x"),
            "spawn" => Command::new("/proc/self/exe").arg("--list").status().map(drop),

            // A kernel without the family says so: the filter let the call pass.
            "vsock" => match vsock() {
                Err(Errno::AFNOSUPPORT) | Ok(_) => Ok(()),
                Err(error) => Err(error.into()),
            },
            "inet" => inet().map(drop).map_err(Into::into),
            "unshare" => {
                let flags = rustix::thread::UnshareFlags::FS;
                #[allow(deprecated, reason = "the safe spelling; only CLONE_FILES is unsafe")]
                rustix::thread::unshare(flags).map_err(Into::into)
            }
            "kill" => rustix::process::test_kill_process(rustix::process::getpid()).map_err(Into::into),
            "memory" => match Vec::<u8>::new().try_reserve_exact(usize::try_from(ENGINE_SPACE).unwrap()) {
                Ok(()) => Ok(()),
                Err(_) => Err(Errno::PERM.into()),
            },
            _ => unreachable!(),
        };
        match done {
            Ok(()) => std::process::exit(0),
            Err(error) if error.raw_os_error() == Some(1) => std::process::exit(13),
            Err(_) => std::process::exit(99),
        }
    }

    fn works(role: &str, act: &str) {
        assert_eq!(run(role, act).code(), Some(0), "{role} {act}");
    }

    fn denied(role: &str, act: &str) {
        assert_eq!(run(role, act).code(), Some(13), "{role} {act}");
    }

    fn kills(role: &str, act: &str) {
        assert_eq!(run(role, act).signal(), Some(SIGSYS), "{role} {act}");
    }

    #[test]
    fn every_role_computes_in_threads() {
        for role in ["courier", "engine", "requests", "supervisor"] {
            works(role, "compute");
        }
    }

    #[test]
    fn courier() {
        works("courier", "vsock");
        denied("courier", "open");
        denied("courier", "write");
        kills("courier", "inet");
        kills("courier", "spawn");
        kills("courier", "unshare");
        kills("courier", "kill");
    }

    #[test]
    fn engine() {
        denied("engine", "open");
        denied("engine", "write");
        denied("engine", "memory");
        kills("engine", "vsock");
        kills("engine", "inet");
        kills("engine", "spawn");
        kills("engine", "kill");
    }

    #[test]
    fn requests() {
        works("requests", "open");
        denied("requests", "vsock");
        denied("requests", "inet");
        denied("requests", "unshare");
        denied("requests", "spawn");
    }

    #[test]
    fn supervisor() {
        works("supervisor", "spawn");
        works("supervisor", "vsock");
        denied("supervisor", "inet");
        denied("supervisor", "unshare");
    }
}
