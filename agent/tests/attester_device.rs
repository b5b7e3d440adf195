//! The attester before devices that are silent, or not there. With a TPM: `tests/tests/attester_tpm.rs`.

#![allow(missing_docs)]

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use blf_agent::attester::{AttestError, Attester, Devices, TpmFailure};

const NOWHERE: &str = "/nonexistent/event-log";

#[test]
fn silent_device_ends_at_the_deadline() {
    // A terminal into which nobody types is a character device that never answers.
    let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY);
    let Ok(master) = master else {
        // Past libtest's capture, so that a script can count the line.
        let _ = io::stderr().write_all(b"skipped: attester_device: no pseudo terminals\n");
        return;
    };
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let devices = Devices {
        tsm_reports: "/nonexistent/tsm".into(),
        tpm: name.to_str().unwrap().into(),
        event_log: NOWHERE.into(),
        deadline: Duration::from_millis(300),
    };
    let start = Instant::now();
    let error = Attester::detect(&devices).err().unwrap();
    assert!(
        matches!(&error, AttestError::Tpm(TpmFailure::Device { error, .. }) if error.kind() == io::ErrorKind::TimedOut),
        "{error}"
    );
    assert!(start.elapsed() >= Duration::from_millis(300) && start.elapsed() < Duration::from_secs(10));
}

#[test]
fn no_device_is_named() {
    let devices =
        Devices { tsm_reports: "/nonexistent/tsm".into(), tpm: "/nonexistent/tpm".into(), ..Devices::default() };
    let error = Attester::detect(&devices).err().unwrap();
    assert_eq!(
        error.to_string(),
        "attester: wanted a TSM below /nonexistent/tsm or a TPM at /nonexistent/tpm, got neither"
    );
}
