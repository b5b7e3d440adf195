//! What a machine's owner may always do to a guest without a TEE: look at its processors, and pause it where it would end.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// For one answer.
const ANSWER: Duration = Duration::from_secs(20);

/// A connection to QEMU's monitor, for one command.
pub(crate) fn qmp(socket: &Path, command: &str, arguments: Value) -> Value {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut stream = stream;
    assert!(lines.next().unwrap().unwrap().contains("QMP"), "wanted QMP's greeting");
    let mut run = |command: &str, arguments: Value| {
        // In one piece: to `quit` QEMU listens no longer than it must.
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        stream.write_all(line.as_bytes()).unwrap();
        // Events come in between; QEMU may end before it answers.
        while let Some(Ok(line)) = lines.next() {
            let message: Value = serde_json::from_str(&line).unwrap();
            assert!(message.get("error").is_none(), "{command}: {message}");
            if let Some(answer) = message.get("return") {
                return answer.clone();
            }
        }
        Value::Null
    };
    run("qmp_capabilities", json!({}));
    run(command, arguments)
}

/// QEMU's `RunState`.
pub(crate) fn status(socket: &Path) -> String {
    qmp(socket, "query-status", json!({}))["status"].as_str().unwrap().to_owned()
}

/// Of one processor, what says where it is; without stopping it, so it may be a moment old.
pub(crate) struct Registers {
    /// Its code segment: the last two bits are 3 in a process, 0 in the kernel.
    pub(crate) cs: u64,
    /// The page tables: one for each process.
    pub(crate) cr3: u64,
    cr4: u64,
    rsp: u64,
}

/// What each processor of the guest is at.
pub(crate) fn registers(monitor: &Path) -> Vec<Registers> {
    let answer = qmp(monitor, "human-monitor-command", json!({ "command-line": "info registers -a" }));
    let text = answer.as_str().unwrap();
    text.split("CPU#")
        .skip(1)
        .map(|processor| {
            let register = |name: &str| {
                let (_, after) = processor.split_once(name).unwrap_or_else(|| panic!("wanted {name} in {processor}"));
                let digits = after.split(|c: char| !c.is_ascii_hexdigit()).next().unwrap();
                u64::from_str_radix(digits, 16).unwrap()
            };
            Registers { cs: register("CS ="), cr3: register("CR3="), cr4: register("CR4="), rsp: register("RSP=") }
        })
        .collect()
}

impl Registers {
    /// Whether a process executes, not the kernel.
    pub(crate) fn in_a_process(&self) -> bool {
        self.cs & 3 == 3
    }

    /// Where the rest of the stack's page lies in the guest's memory, by its page tables (Intel SDM, volume 3, section 4.5).
    pub(crate) fn stack(&self, memory: &File) -> Option<Range<u64>> {
        const PRESENT: u64 = 1;
        const PAGE_SIZE: u64 = 1 << 7;
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        /// CR4.LA57: five levels instead of four.
        const LA57: u64 = 1 << 12;
        let mut table = self.cr3 & ADDRESS;
        let levels = if self.cr4 & LA57 == 0 { 4 } else { 5 };
        for level in (1..=levels).rev() {
            let shift = 12 + 9 * (level - 1);
            let mut entry = [0; 8];
            memory.read_exact_at(&mut entry, table + (self.rsp >> shift) % 512 * 8).ok()?;
            let entry = u64::from_le_bytes(entry);
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 1 || entry & PAGE_SIZE != 0 {
                let page = 1 << shift;
                let start = (entry & ADDRESS & !(page - 1)) + self.rsp % page;
                return Some(start..(start | 0xfff) + 1);
            }
            table = entry & ADDRESS;
        }
        None
    }
}
