//! What a booted guest denies each role: the list of `src/bin/denied`, tried in the agent's place.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use blf_host::programs::Programs;
use blf_tests::denied::Report;

use crate::launched::Prepared;

/// For a guest that only tries and powers off.
const WITHIN: Duration = Duration::from_secs(300);

/// The image's own kernel, command line, modules and folders; only `/init` is the test's, which hardens the guest with the
/// agent's own code and then tries. An initrd may be several archives, and the last one that names a file wins.
#[test]
fn a_booted_guest_denies_every_role_what_it_does_not_need() {
    let prepared = Prepared::find();
    let dir = tempfile::tempdir().unwrap();
    let initrd = dir.path().join("initrd");
    let mut bytes = fs::read(prepared.image.join("initrd")).unwrap();
    // Archives are told apart where they begin, at a multiple of four.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(stand_in(dir.path()));
    fs::write(&initrd, bytes).unwrap();

    let console = dir.path().join("console");
    let mut qemu = Command::new(Programs::find().unwrap().qemu)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"])
        .args(["-machine", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "512M"])
        .args(["-serial", "stdio", "-append", fs::read_to_string(prepared.image.join("cmdline")).unwrap().trim()])
        .arg("-kernel")
        .arg(prepared.image.join("vmlinuz"))
        .arg("-initrd")
        .arg(&initrd)
        .stdin(Stdio::null())
        .stdout(File::create(&console).unwrap())
        .spawn()
        .unwrap();
    let until = Instant::now() + WITHIN;
    let said = || String::from_utf8_lossy(&fs::read(&console).unwrap()).into_owned();
    while qemu.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            qemu.kill().unwrap();
            qemu.wait().unwrap();
            panic!("the guest did not end: {}", said());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let said = said();
    assert!(said.lines().any(|line| line.trim() == "end"), "{said}");
    let report = Report::parse(&said);
    assert_eq!(report.wrong(), Vec::<String>::new());
    for (role, least) in [("kernel", 20), ("supervisor", 30), ("requests", 30), ("courier", 30), ("engine", 30)] {
        assert!(report.denied(role) >= least, "{role}: {} attempts were denied", report.denied(role));
    }
    assert!(report.facts() >= 50, "{} facts", report.facts());
}

/// An archive with the program as `/init` and the libraries that it was linked with on this machine.
fn stand_in(dir: &Path) -> Vec<u8> {
    let program = dir.join("init");
    let stripped = Command::new("strip").arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_denied")).status().unwrap();
    assert!(stripped.success(), "wanted strip of binutils, as the linker is");
    let listed = Command::new("ldd").arg(&program).output().unwrap();
    assert!(listed.status.success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    // `NAME => PATH (ADDRESS)`, and for the loader `PATH (ADDRESS)`.
    let mut files: Vec<PathBuf> =
        listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect();
    files.sort();
    files.dedup();
    let mut archive = Archive::default();
    archive.file("init", &program);
    for file in &files {
        let name = file.strip_prefix("/").unwrap();
        let folders: Vec<_> = name.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect();
        for folder in folders.into_iter().rev() {
            archive.entry(folder.to_str().unwrap(), 0o040_755, &[]);
        }
        archive.file(name.to_str().unwrap(), file);
    }
    archive.end()
}

/// A cpio archive of the "newc" kind (cpio(5)), as the kernel unpacks it.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: usize,
}

impl Archive {
    fn file(&mut self, name: &str, from: &Path) {
        let mut content = Vec::new();
        File::open(from).and_then(|mut file| file.read_to_end(&mut content)).unwrap();
        self.entry(name, 0o100_755, &content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let (inode, length) = (self.inode, content.len());
        // Inode, mode, user, group, links, time, length, four device numbers, length of the name with its zero, check sum.
        let header = [inode, mode as usize, 0, 0, 1, 0, length, 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for number in header {
            write!(self.bytes, "{number:08x}").unwrap();
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
