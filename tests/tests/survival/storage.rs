//! R3: a disk that is full or read-only, file descriptors that run out: nothing is corrupted, what cannot be done is
//! refused before anybody claims it and says why, and all goes on without a restart.
//!
//! Each case runs in a process of its own, this test binary again, in a mount namespace or under a limit.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blf_devnet::{Devnet, Options};
use blf_evidence::profile::Host;
use blf_evidence::tunnel::{Dial, DialReply};
use blf_host::forward::{Counters, DialPolicy, Resolve, serve_dials};
use blf_host::model::{self, Pack};
use blf_host::vsock::Listener;
use blf_tests::network::profile;
use blf_tests::node::{engine_process, model_pack};
use blf_tests::swtpm::skip;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::coordinator::Coordinator;
use crate::machine::{Kit, Machine, Peer, Record};
use crate::user::{Asker, End};

/// Where a child finds its small disk.
const DISK: &str = "BLF_SURVIVAL_DISK";

/// Runs the ignored test `name` of this binary on a disk of `size` that only it sees; false where that is not permitted.
fn on_a_small_disk(name: &str, size: &str) -> bool {
    let mounts = |script: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("unshare");
        // Who is not root becomes it in a user namespace, where one may mount.
        child.args(["--mount", if rustix::process::geteuid().is_root() { "--" } else { "--map-root-user" }]);
        child.args(["sh", "-c", script, "sh"]).arg(dir.path()).arg(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--ignored", "--nocapture"]).env(DISK, dir.path());
        child.output().unwrap()
    };
    let mount = format!("mount -t tmpfs -o size={size} tmpfs \"$1\"");
    if !mounts(&mount).status.success() {
        skip("no small disk may be mounted here");
        return false;
    }
    let output = mounts(&format!("{mount} && shift && exec \"$@\""));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    true
}

fn disk() -> PathBuf {
    std::env::var_os(DISK).expect("run by another test").into()
}

/// Writes until the disk is full.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let mut file = File::create(&path).unwrap();
    for size in [64 * 1024, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    path
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn kit(coordinator: &Coordinator) -> Kit {
    let (pack, model) = model_pack();
    let engine = engine_process(pack);
    Kit { devnet: coordinator.address, engine, model: Arc::new(model), record: Record::default() }
}

/// A job is answered: at once, or by the same node and network when they have noticed that all is well again.
async fn answered(asker: &Asker, kit: &Kit, machine: &Machine) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let seat = [(machine.vault.node(), machine.hpke())];
        let job = asker.submit((&kit.model.manifest.id, kit.model.digest), &seat, &[]).await.unwrap();
        let end = asker.end(&job).await;
        if let End::Answer(_) = end {
            return;
        }
        assert!(Instant::now() < until, "{end:?}");
    }
}

/// Since `healed` all is well again: a job is answered without a restart.
async fn recovers(asker: &Asker, kit: &Kit, machine: Machine, healed: Instant) {
    answered(asker, kit, &machine).await;
    println!("a job was answered {:?} after all was well again", healed.elapsed());
    machine.kill().await;
}

fn sound(database: &Path) {
    let connection = rusqlite::Connection::open(database).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[test]
fn a_coordinator_on_a_full_disk_refuses_and_recovers() {
    on_a_small_disk("storage::full_disk", "6m");
}

#[test]
#[ignore = "a child of the test above"]
fn full_disk() {
    let disk = disk();
    let coordinator = Coordinator::start(&disk);
    let runtime = runtime();
    runtime.block_on(async {
        let kit = kit(&coordinator);
        let machine = Machine::boot(&kit).await;
        let asker = Asker::new(&coordinator.network);
        answered(&asker, &kit, &machine).await;

        let filler = fill(&disk);
        let said = kit.record.lock().unwrap().len();
        // Small rows may still fit into what the database holds already; this does not.
        let refused = asker.pin(&vec![7; 700_000]).await.unwrap_err();
        assert_eq!(refused.code, "HTTP_507", "{refused}");
        assert!(refused.message.contains("STORE_FULL") && refused.message.contains("disk is full"), "{refused}");
        let seat = [(machine.vault.node(), machine.hpke())];
        let mut refusals = 0;
        // What is refused is refused before a node hears of it; what still fits is done.
        for _ in 0..40 {
            match asker.submit((&kit.model.manifest.id, kit.model.digest), &seat, &[]).await {
                Ok(_) => {}
                Err(failure) => {
                    assert!(["HTTP_507", "STORE_FULL"].contains(&failure.code.as_str()), "{failure}");
                    refusals += 1;
                }
            }
        }
        println!("{refusals} of 40 submissions refused, {} jobs begun", kit.record.lock().unwrap().len() - said);

        fs::remove_file(filler).unwrap();
        let room = Instant::now();
        while asker.pin(&vec![8; 700_000]).await.is_err() {
            assert!(room.elapsed() < Duration::from_secs(30), "it does not recover");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        recovers(&asker, &kit, machine, room).await;
    });
    sound(&coordinator.stop());
}

#[test]
fn what_cannot_be_written_is_not_half_written() {
    on_a_small_disk("storage::read_only_disk", "8m");
}

#[test]
#[ignore = "a child of the test above"]
fn read_only_disk() {
    let disk = disk();
    let database = Coordinator::start(&disk).stop();
    let before = fs::read(&database).unwrap();
    let pack = |out: PathBuf| {
        model::pack(&Pack {
            id: "blf-tiny-1".into(),
            dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("models/blf-tiny-1"),
            out,
            max_context: None,
            max_new_tokens: None,
            eos: Vec::new(),
        })
    };
    let packed = pack(disk.join("pack")).unwrap();
    let filler = fill(&disk);
    let error = pack(disk.join("other")).unwrap_err();
    assert_eq!(error.code, "WRITE", "{error}");
    // Replacing the good one fails, too, and leaves it.
    assert_eq!(pack(disk.join("pack")).unwrap_err().code, "WRITE");
    assert!(!disk.join("other").exists() && !disk.join("other.new").exists() && !disk.join("pack.new").exists());
    assert_eq!(model::show(&disk.join("pack"), true).unwrap().manifest_sha256, packed.manifest_sha256);
    fs::remove_file(filler).unwrap();
    pack(disk.join("other")).unwrap();

    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk).status().unwrap();
    assert!(remounted.success());
    assert_eq!(pack(disk.join("third")).unwrap_err().code, "WRITE");
    let mut options = Options::new(Arc::new(Peer::new())).unwrap();
    options.state = Some(database.clone());
    let refused = runtime().block_on(async { Devnet::start(options, std::future::pending()).await.err().unwrap() });
    assert!(refused.to_string().starts_with("state: "), "{refused}");
    assert!(fs::read(&database).unwrap() == before, "the database was touched");
}

/// This test binary again, in a process with few file descriptors.
fn with_few_descriptors(name: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Takes every file descriptor that is left.
fn hog() -> Vec<File> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum }).unwrap();
    let mut held = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()), "{error}");
                return held;
            }
        }
    }
}

#[test]
fn a_network_without_file_descriptors_recovers() {
    with_few_descriptors("storage::no_descriptors");
}

#[test]
#[ignore = "a child of the test above"]
fn no_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path());
    let runtime = runtime();
    runtime.block_on(async {
        let kit = kit(&coordinator);
        let machine = Machine::boot(&kit).await;
        let asker = Asker::new(&coordinator.network);
        answered(&asker, &kit, &machine).await;
        let mut held = hog();
        // One for a stream that connects and is not accepted.
        held.pop();
        let waiting = tokio::net::TcpStream::connect(coordinator.address).await.unwrap();
        // Whatever is closed meanwhile is taken as well.
        for _ in 0..60 {
            held.extend(hog());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop((held, waiting));
        recovers(&asker, &kit, machine, Instant::now()).await;
    });
    sound(&coordinator.stop());
}

#[test]
fn a_tunnel_without_file_descriptors_recovers() {
    with_few_descriptors("storage::no_descriptors_for_dials");
}

#[test]
#[ignore = "a child of the test above"]
fn no_descriptors_for_dials() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let uds = dir.path().join("vsock");
        let listener = Listener::unix(&uds, 5007).unwrap();
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (profile, mut resolve) = (profile(), Resolve::default());
        let host = profile.icl.clone();
        resolve.insert(&host.name, host.port, server.local_addr().unwrap());
        let echo = tokio::spawn(async move {
            loop {
                // Out of descriptors itself for a while.
                let Ok((mut stream, _)) = server.accept().await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                drop(stream.write_all(b"!").await);
            }
        });
        let (_gate, open) = watch::channel(true);
        let policy = DialPolicy::new(&profile, resolve);
        let dials = tokio::spawn(serve_dials(listener, policy, open, Arc::new(Counters::default())));
        let path = format!("{}_5007", uds.display());
        dial(&path, &host).await.unwrap();

        let mut held = hog();
        // One for the guest's end of a connection; the host has none left to take it.
        held.pop();
        let waiting = UnixStream::connect(&path).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!dials.is_finished(), "the tunnel is gone for good");
        drop((held, waiting));
        dial(&path, &host).await.unwrap();
        echo.abort();
    });
}

/// Through the tunnel to the server behind it.
async fn dial(path: &str, host: &Host) -> io::Result<()> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(Dial(host.clone()).to_line().as_bytes()).await?;
    assert_eq!(stream.read_u8().await?, DialReply::Connected as u8);
    assert_eq!(stream.read_u8().await?, b'!');
    Ok(())
}
