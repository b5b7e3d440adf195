//! swtpm, a TPM that is not ours, spoken to by tpm2-tools, which are not ours either.

use std::io::{self, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Ends with the test.
pub(crate) struct Swtpm(Child, tempfile::TempDir, String);

impl Swtpm {
    /// `None` where swtpm or tpm2-tools are not installed.
    pub(crate) fn start() -> Option<Self> {
        let found = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
        if !["swtpm", "tpm2_createek", "tpm2_activatecredential"].into_iter().all(found) {
            // Past libtest's capture, so that tests/check can count it.
            let _ = io::stderr().write_all(b"skipped: swtpm: needs swtpm and tpm2-tools\n");
            return None;
        }
        // Another program may take a port between the two that look for it.
        for _ in 0..5 {
            if let Some(swtpm) = Self::at_free_ports() {
                return Some(swtpm);
            }
        }
        panic!("swtpm did not start");
    }

    /// `None` if it ended.
    fn at_free_ports() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        // tpm2-tools wants the control port right behind the command port.
        let port = loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
                break port;
            }
        };
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", folder.path().display()))
            .args(["--server", &format!("type=tcp,port={port}"), "--ctrl", &format!("type=tcp,port={}", port + 1)])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut swtpm = Self(child, folder, format!("swtpm:host=127.0.0.1,port={port}"));
        while swtpm.0.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(50));
            if swtpm.command("tpm2_getcap", &["properties-fixed"]).output().unwrap().status.success() {
                return Some(swtpm);
            }
        }
        None
    }

    fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut command = Command::new(tool);
        command.args(args).current_dir(self.1.path()).env("TPM2TOOLS_TCTI", &self.2);
        command
    }

    pub(crate) fn run(&self, tool: &str, args: &[&str]) -> bool {
        let output = self.command(tool, args).output().unwrap();
        if !output.status.success() {
            eprintln!("{tool}: {}", String::from_utf8_lossy(&output.stderr));
        }
        // Without a resource manager the transient objects fill up.
        self.command("tpm2_flushcontext", &["-t"]).output().unwrap();
        output.status.success()
    }

    pub(crate) fn write(&self, file: &str, bytes: &[u8]) {
        std::fs::write(self.1.path().join(file), bytes).unwrap();
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.1.path().join(file)).unwrap()
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
