//! A process that panics or aborts with a prompt in its memory says nothing and leaves no core. Each test starts this test
//! binary again, as the process that ends; without the agent's precautions the same process tells everything.

#![allow(missing_docs)]

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};

use blf_agent::sandbox;
use rustix::process::{Resource, Rlimit, setrlimit};

const VARIABLE: &str = "BLF_CRASH_TEST";
const PROMPT: &str = "a prompt that nobody may read in any report of a crash";

/// Ends this way, in an empty folder.
fn end(how: &str, dir: &Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, how)
        .env("RUST_BACKTRACE", "1")
        .current_dir(dir)
        .output()
        .unwrap()
}

#[test]
#[ignore = "started by the other tests"]
fn child() {
    let (how, prompt) = (std::env::var(VARIABLE).unwrap(), PROMPT.to_owned());
    let unlimited = Rlimit { current: None, maximum: None };
    match how.as_str() {
        "panic" => sandbox::silence_panics(),
        "panic aloud" => {}
        // The limit that a shell or a service manager may have left.
        "abort" => {
            let _ = setrlimit(Resource::Core, unlimited);
            sandbox::enter_engine(0).unwrap();
        }
        "abort with a core" => setrlimit(Resource::Core, unlimited).unwrap(),
        _ => unreachable!(),
    }
    if how.starts_with("panic") {
        panic!("{prompt}");
    }
    std::process::abort();
}

fn tells(output: &Output, dir: &Path) -> bool {
    let files = fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let all = [output.stdout.clone(), output.stderr.clone()].into_iter().chain(files);
    all.into_iter().any(|bytes| bytes.windows(PROMPT.len()).any(|window| window == PROMPT.as_bytes()))
}

#[test]
fn a_panic_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let aloud = end("panic aloud", dir.path());
    assert!(!aloud.status.success() && tells(&aloud, dir.path()), "the leak was not found: {aloud:?}");
    let silent = end("panic", dir.path());
    assert!(!silent.status.success(), "{silent:?}");
    assert!(!tells(&silent, dir.path()), "{silent:?}");
}

#[test]
fn an_abort_leaves_no_core() {
    let skip = |reason: &str| {
        // Past libtest's capture, so that a script can count the line.
        let _ = io::stderr().write_all(format!("skipped: sandbox_crash: {reason}\n").as_bytes());
    };
    if !rustix::process::getuid().is_root() {
        return skip("only root can become another user");
    }
    let dir = tempfile::tempdir().unwrap();
    // Whoever the engine is must be able to leave one there.
    rustix::fs::chmod(dir.path(), 0o777.into()).unwrap();
    let open = end("abort with a core", dir.path());
    if open.status.signal().is_none() {
        return skip("the limit on core dumps cannot be raised");
    }
    if fs::read_dir(dir.path()).unwrap().next().is_none() {
        return skip("this machine keeps cores elsewhere, or none");
    }
    assert!(tells(&open, dir.path()), "the leak was not found in the core");
    let dir = tempfile::tempdir().unwrap();
    rustix::fs::chmod(dir.path(), 0o777.into()).unwrap();
    let closed = end("abort", dir.path());
    assert!(closed.status.signal().is_some(), "{closed:?}");
    assert!(!closed.status.core_dumped(), "{closed:?}");
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none() && !tells(&closed, dir.path()), "{closed:?}");
}
