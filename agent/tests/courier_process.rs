//! The courier as the process that it is in the guest: own user, own system calls, a socket as standard input.

#![allow(missing_docs)]

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use blf_agent::channel;
use blf_agent::frames::{FromVault, Identity, ToVault, UNASKED};
use blf_evidence::{Address, Hex, UnixTime};

/// There is no host to dial, so that it fails and tries again: which it can only do if its sandbox lets it.
#[test]
fn lives_in_its_sandbox_and_stops_when_told() {
    if !rustix::process::getuid().is_root() {
        // Past libtest's capture, so that a script can count the line.
        let _ = io::stderr().write_all(b"skipped: courier_process: only root can become another user\n");
        return;
    }
    let (mut vault, courier) = UnixStream::pair().unwrap();
    vault.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_blf-agent"))
        .arg("courier")
        .stdin(Stdio::from(OwnedFd::from(courier)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut attempts = 0;
    loop {
        let frame = channel::read(&mut vault).unwrap().expect("the courier to go on");
        match frame.message().unwrap() {
            ToVault::Identity => {
                let identity = Identity {
                    node: Address([1; 20]),
                    backend: "tpm".into(),
                    models: vec![],
                    max_jobs: 2,
                    pinning_token: String::new(),
                    rpc_path: "/".into(),
                    boot_events: vec![],
                    now: UnixTime(1_700_000_000),
                };
                channel::write(&mut vault, frame.id, &FromVault::Identity(identity)).unwrap();
            }
            ToVault::TimeNonce => {
                channel::write(&mut vault, frame.id, &FromVault::TimeNonce(Hex([0; 32]))).unwrap();
                attempts += 1;
                if attempts == 2 {
                    channel::write(&mut vault, UNASKED, &FromVault::Stop).unwrap();
                }
            }
            ToVault::PowerOff => {
                channel::write(&mut vault, frame.id, &FromVault::Done).unwrap();
                break;
            }
            _ => panic!("wanted Identity, TimeNonce or PowerOff"),
        }
    }
    assert!(attempts >= 2, "{attempts}");
    let ended = child.wait().unwrap();
    assert!(ended.success(), "{ended}");
}
