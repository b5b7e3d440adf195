//! What each role's sandbox must deny, tried in the real sandboxes on this machine. `tests/boot` tries the same, and what the
//! guest's kernel must deny, in a guest; `src/bin/denied/attempts.rs` is the list.

#![allow(missing_docs)]

use std::process::Command;

use blf_tests::denied::Report;

/// How the program says that it could not enter a sandbox.
const NO_SANDBOX: i32 = 3;

#[test]
fn every_role_is_denied_what_it_does_not_need() {
    let output = Command::new(env!("CARGO_BIN_EXE_denied")).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NO_SANDBOX) {
        blf_tests::swtpm::skip(&format!("wanted root with its capabilities: {}", complaint.trim()));
        return;
    }
    assert!(output.status.success(), "{}: {complaint}", output.status);
    let report = Report::parse(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(report.wrong(), Vec::<String>::new());
    for role in ["supervisor", "requests", "courier", "engine"] {
        assert!(report.denied(role) >= 30, "{role}: {} attempts were denied", report.denied(role));
    }
}
