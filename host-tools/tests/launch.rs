//! A launch from its first process to its last. QEMU is a script of the test, the guest is the test itself, at the
//! sockets where vhost-device-vsock would connect.

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blf_evidence::bundle::Evidence;
use blf_evidence::config::Credentials;
use blf_evidence::profile::Host;
use blf_evidence::statement::Binding;
use blf_evidence::telemetry::Event;
use blf_evidence::tunnel::{DialReply, HostDocuments, PORT_DIAL, PORT_DOCUMENTS, PORT_TELEMETRY};
use blf_evidence::{Address, Hex, UnixTime};
use blf_host::child::Child;
use blf_host::forward::{DialPolicy, Limits, Resolve, STOP};
use blf_host::launch::{Judge, Judged, Launch, Question, Refused, Until, Wish};
use blf_host::notice::{Finding, Notice, Show, several};
use blf_host::record::{Phase, Record, Recorder, Standing};
use blf_host::vm::{Accel, Transport};
use blf_host::{Error, Exit};
use common::{Machine, QEMU, SOON, eventually, evidence};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Accepts evidence that answers the question, whoever made it.
struct Answers;

impl Judge for Answers {
    fn judge(&self, evidence: &Evidence, question: &Question<'_>) -> Result<Judged, Box<Refused>> {
        let binding = Binding::parse(evidence.binding.as_bytes()).unwrap();
        let finding =
            |id: &str, expected: String, got: String| Finding { ok: expected == got, id: id.into(), expected, got };
        let findings = vec![
            finding("nonce", question.nonce.to_string(), binding.nonce.to_string()),
            finding("audience", question.audience.into(), binding.audience),
        ];
        if findings.iter().all(|finding| finding.ok) {
            return Ok(Judged { address: Address([5; 20]), tier: 0, measurement: "test".into(), findings });
        }
        Err(Box::new(Refused { findings, error: Error::rejected("NONCE_MISMATCH", "wanted our nonce") }))
    }
}

/// For a guest of these tests to power off after it was asked to.
const DRAIN: Duration = Duration::from_secs(5);

struct Launched {
    machine: Machine,
    wish: watch::Sender<Wish>,
    notices: Arc<Mutex<Vec<Notice>>>,
    running: JoinHandle<Result<(), Error>>,
    server: TcpListener,
}

impl Launched {
    async fn new(qemu: &str, nodes: &[&str]) -> Self {
        Self::until(Until::Stopped, Vec::new(), qemu, nodes).await
    }

    /// With others that want to hear.
    async fn until(until: Until, mut shows: Vec<Show>, qemu: &str, nodes: &[&str]) -> Self {
        let machine = Machine::new(qemu);
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut resolve = Resolve::default();
        resolve.insert("icl.blf.internal", 443, server.local_addr().unwrap());
        let allow = vec![Host { name: "icl.blf.internal".into(), port: 443 }];
        let notices = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&notices);
        shows.push(Arc::new(move |notice| seen.lock().unwrap().push(notice.clone())));
        let launch = Launch {
            programs: machine.programs.clone(),
            transport: Transport::User,
            accel: Accel::Tcg,
            image: "blf.efi".into(),
            until,
            model: "a model, with comma.pack".into(),
            nodes: nodes.iter().map(|&name| name.into()).collect(),
            memory_mib: 512,
            cpus: 2,
            max_jobs: 2,
            credentials: Credentials { pinning_token: "token".into(), rpc_path: None, v: 1 },
            endorsements: None,
            policy: DialPolicy { allow, resolve, limits: Limits::default() },
            api: None,
            judge: Arc::new(Answers),
            boot_within: SOON,
            stop_within: DRAIN,
            run_base: Some(machine.run()),
            show: several(shows),
        };
        let (wish, wished) = watch::channel(Wish::Run);
        let running = tokio::spawn(launch.run(wished));
        Self { machine, wish, notices, running, server }
    }

    fn folder(&self, node: &str) -> PathBuf {
        self.machine.run().join(node)
    }

    async fn connect(&self, node: &str, port: u32) -> UnixStream {
        let socket = self.folder(node).join(format!("v_{port}"));
        eventually("the host listens", || socket.exists()).await;
        // QEMU writes its arguments when it starts; no guest runs before.
        eventually("QEMU runs", || self.folder(node).join("arguments").exists()).await;
        UnixStream::connect(socket).await.unwrap()
    }

    async fn dial(&self, node: &str) -> DialReply {
        let mut guest = self.connect(node, PORT_DIAL).await;
        guest.write_all(b"blf/1 icl.blf.internal:443\n").await.unwrap();
        DialReply::try_from(guest.read_u8().await.unwrap()).unwrap()
    }

    /// Boots a guest until its evidence is sent; `nonce` changes what it answers.
    async fn boot(&self, node: &str, nonce: impl Fn(Hex<32>) -> Hex<32>) -> UnixStream {
        let mut guest = self.connect(node, PORT_DOCUMENTS).await;
        let mut frame = vec![0; guest.read_u32().await.unwrap() as usize];
        guest.read_exact(&mut frame).await.unwrap();
        let documents = HostDocuments::parse(&frame).unwrap();
        assert_eq!(documents.config, format!(r#"{{"max_jobs":2,"name":"{node}","v":1}}"#));
        assert_eq!(Credentials::parse(documents.credentials.as_bytes()).map(|c| c.pinning_token).unwrap(), "token");
        let mut asked = Hex([0; 32]);
        guest.read_exact(&mut asked.0).await.unwrap();
        let text = evidence(node, nonce(asked), &documents.config).to_json().unwrap();
        guest.write_u32(text.len().try_into().unwrap()).await.unwrap();
        guest.write_all(text.as_bytes()).await.unwrap();
        guest
    }

    fn power_off(&self, node: &str) {
        fs::write(self.folder(node).join("off"), "").unwrap();
    }

    async fn saw(&self, what: &str, wanted: impl Fn(&Notice) -> bool) {
        eventually(what, || self.notices.lock().unwrap().iter().any(&wanted)).await;
    }

    async fn ends(self) -> (Result<(), Error>, Vec<Notice>) {
        let ended = timeout(SOON + DRAIN, self.running).await.unwrap().unwrap();
        let left: Vec<_> = fs::read_dir(self.machine.run()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
        let notices = self.notices.lock().unwrap().clone();
        (ended, notices)
    }
}

#[tokio::test]
async fn two_nodes_from_start_to_stop() {
    let launched = Launched::new(QEMU, &["node-1", "node-2"]).await;
    let mut guests = Vec::new();
    for node in ["node-1", "node-2"] {
        let mut telemetry = launched.connect(node, PORT_TELEMETRY).await;
        telemetry.write_all(b"{\"event\":\"heartbeat\",\"jobs\":1}\n").await.unwrap();
        // Nothing leaves before the appraisal.
        assert_eq!(launched.dial(node).await, DialReply::Unreachable);
        let guest = launched.boot(node, |nonce| nonce).await;
        launched.saw("tunnel open", |n| *n == Notice::TunnelOpen { node: node.into() }).await;
        assert_eq!(launched.dial(node).await, DialReply::Connected);
        launched.server.accept().await.unwrap();
        let heartbeat = Notice::Guest { node: node.into(), event: Event::Heartbeat { jobs: 1 } };
        launched.saw("heartbeat", |n| *n == heartbeat).await;
        guests.push((node, guest));
    }
    let arguments = fs::read_to_string(launched.folder("node-1").join("arguments")).unwrap();
    for wanted in
        ["-nodefaults", "-no-reboot", "tpm-crb,tpmdev=tpm0", r#""filename":"a model, with comma.pack""#, "blf.efi"]
    {
        assert!(arguments.contains(wanted), "{wanted} in {arguments}");
    }

    launched.wish.send_replace(Wish::Stop);
    for (node, guest) in &mut guests {
        assert_eq!(timeout(SOON, guest.read_u8()).await.unwrap().unwrap(), STOP);
        // The stream stays open while the guest drains.
        assert!(timeout(Duration::from_millis(100), guest.read_u8()).await.is_err());
        launched.power_off(node);
    }
    let (ended, notices) = launched.ends().await;
    ended.unwrap();
    for node in ["node-1", "node-2"] {
        let kinds: Vec<_> = notices.iter().filter_map(|notice| kind(notice, node)).collect();
        assert_eq!(kinds, ["started", "check", "check", "appraised", "open", "stopping", "orderly"], "{notices:?}");
    }
}

/// What a notice says about a node; telemetry comes when it comes.
fn kind(notice: &Notice, of: &str) -> Option<&'static str> {
    let (node, kind) = match notice {
        Notice::Started { node, .. } => (node, "started"),
        Notice::Check { node, finding } => (node, if finding.ok { "check" } else { "failed check" }),
        Notice::Appraised { node, .. } => (node, "appraised"),
        Notice::TunnelOpen { node } => (node, "open"),
        Notice::Stopping { node } => (node, "stopping"),
        Notice::Stopped { node, orderly, .. } => (node, if *orderly { "orderly" } else { "forced" }),
        _ => return None,
    };
    (node == of).then_some(kind)
}

#[tokio::test]
async fn refused_evidence_keeps_the_tunnel_closed_and_stops_the_others() {
    let launched = Launched::new(QEMU, &["node-1", "node-2"]).await;
    let mut guest = launched.boot("node-1", |nonce| Hex(nonce.0.map(|byte| !byte))).await;
    // No byte asks it to drain: the stream ends.
    assert!(timeout(SOON, guest.read_u8()).await.unwrap().is_err());
    let (ended, notices) = launched.ends().await;
    let error = ended.unwrap_err();
    assert_eq!((error.exit, error.code.as_str()), (Exit::Rejected, "NONCE_MISMATCH"), "{error}");
    assert!(error.message.starts_with("node-1: "), "{error}");
    let kinds: Vec<_> = notices.iter().filter_map(|notice| kind(notice, "node-1")).collect();
    assert_eq!(kinds, ["started", "failed check", "check", "forced"]);
    let kinds: Vec<_> = notices.iter().filter_map(|notice| kind(notice, "node-2")).collect();
    assert_eq!(kinds, ["started", "forced"]);
}

#[tokio::test]
async fn evidence_alone_opens_no_tunnel_and_stops_the_guest() {
    let launched = Launched::until(Until::Appraised, Vec::new(), QEMU, &["node-1"]).await;
    let mut guest = launched.boot("node-1", |nonce| nonce).await;
    assert_eq!(timeout(SOON, guest.read_u8()).await.unwrap().unwrap(), STOP);
    assert_eq!(launched.dial("node-1").await, DialReply::Unreachable);
    launched.power_off("node-1");
    let (ended, notices) = launched.ends().await;
    ended.unwrap();
    let kinds: Vec<_> = notices.iter().filter_map(|notice| kind(notice, "node-1")).collect();
    assert_eq!(kinds, ["started", "check", "check", "appraised", "stopping", "orderly"], "{notices:?}");
}

#[tokio::test]
async fn a_run_is_written_down_while_it_lasts() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("status.json");
    let read = || serde_json::from_slice::<Record>(&fs::read(&file).unwrap()).unwrap();
    let recorder = Recorder::new(Record::begin("node-1", None, UnixTime(1)), Some(file.clone())).unwrap();
    assert_eq!(read().phase, Phase::Starting);
    let launched = Launched::until(Until::Stopped, vec![recorder.show()], QEMU, &["node-1"]).await;
    let mut telemetry = launched.connect("node-1", PORT_TELEMETRY).await;
    let mut guest = launched.boot("node-1", |nonce| nonce).await;
    launched.saw("tunnel open", |n| matches!(n, Notice::TunnelOpen { .. })).await;
    let certified = Event::Certified { tier: 0, not_after: UnixTime(100) }.to_line().unwrap() + "\n";
    telemetry.write_all(certified.as_bytes()).await.unwrap();
    eventually("the certificate is written down", || read().certificate.is_some()).await;
    let record = read();
    assert_eq!((record.phase, record.address, record.tier), (Phase::Serving, Some(Address([5; 20])), Some(0)));
    assert_eq!(record.findings.len(), 2);
    assert_eq!(record.standing(true, UnixTime(99)), Standing::Ready);

    launched.wish.send_replace(Wish::Stop);
    assert_eq!(timeout(SOON, guest.read_u8()).await.unwrap().unwrap(), STOP);
    launched.power_off("node-1");
    let (ended, _) = launched.ends().await;
    recorder.end(&ended);
    assert_eq!((read().phase, read().failure), (Phase::Stopped, None));
}

#[tokio::test]
async fn a_guest_that_powers_off_early_is_a_failure_with_its_last_words() {
    let launched = Launched::new(QEMU, &["node-1"]).await;
    let mut telemetry = launched.connect("node-1", PORT_TELEMETRY).await;
    telemetry.write_all(b"{\"code\":\"MODEL_READ\",\"event\":\"boot_failed\",\"stage\":\"MODEL\"}\n").await.unwrap();
    launched.power_off("node-1");
    let error = launched.ends().await.0.unwrap_err();
    assert_eq!((error.exit, error.code.as_str()), (Exit::Failed, "GUEST_ENDED"));
    assert!(error.message.starts_with("node-1: the guest's boot failed at MODEL: MODEL_READ; "), "{error}");
    assert!(error.message.ends_with("its console: console of the guest"), "{error}");
}

#[tokio::test]
async fn a_qemu_that_fails_is_a_failure_with_its_last_words() {
    let launched = Launched::new("echo 'no such machine' >&2; exit 3", &["node-1"]).await;
    let error = launched.ends().await.0.unwrap_err();
    assert!(error.message.contains("qemu ended by itself (exit status: 3): no such machine"), "{error}");
}

#[tokio::test]
async fn a_helper_that_dies_ends_the_node() {
    let launched = Launched::new(QEMU, &["node-1"]).await;
    drop(launched.connect("node-1", PORT_DIAL).await);
    let id = fs::read_to_string(launched.folder("node-1").join("vhost")).unwrap();
    let killed = std::process::Command::new("kill").args(["-9", id.trim()]).status().unwrap();
    assert!(killed.success());
    let error = launched.ends().await.0.unwrap_err();
    assert!(error.message.contains("vhost-device-vsock ended by itself (signal: 9"), "{error}");
}

#[tokio::test]
async fn a_second_wish_does_not_wait() {
    let launched = Launched::new(QEMU, &["node-1"]).await;
    let mut guest = launched.boot("node-1", |nonce| nonce).await;
    launched.saw("tunnel open", |n| matches!(n, Notice::TunnelOpen { .. })).await;
    launched.wish.send_replace(Wish::Stop);
    assert_eq!(timeout(SOON, guest.read_u8()).await.unwrap().unwrap(), STOP);
    let begun = Instant::now();
    launched.wish.send_replace(Wish::Kill);
    let (ended, notices) = launched.ends().await;
    ended.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(matches!(notices.last(), Some(Notice::Stopped { orderly: false, .. })), "{notices:?}");
}

#[tokio::test]
async fn a_drain_that_fails_is_a_failure() {
    let launched = Launched::new(QEMU, &["node-1"]).await;
    let mut guest = launched.boot("node-1", |nonce| nonce).await;
    launched.saw("tunnel open", |n| matches!(n, Notice::TunnelOpen { .. })).await;
    launched.wish.send_replace(Wish::Stop);
    assert_eq!(timeout(SOON, guest.read_u8()).await.unwrap().unwrap(), STOP);
    // It never powers off.
    let (ended, notices) = launched.ends().await;
    let error = ended.unwrap_err();
    assert_eq!((error.exit, error.code.as_str()), (Exit::Failed, "STOP_FORCED"));
    assert!(error.message.starts_with("node-1: wanted the guest to drain and power off within 5 s"), "{error}");
    assert!(error.hint.is_some_and(|hint| hint.contains("stop_timeout")));
    assert!(matches!(notices.last(), Some(Notice::Stopped { orderly: false, .. })), "{notices:?}");
}

#[tokio::test]
async fn a_name_can_run_once() {
    let launched = Launched::new(QEMU, &["node-1", "node-1"]).await;
    let error = launched.ends().await.0.unwrap_err();
    assert_eq!(error.code, "NAME_TAKEN", "{error}");
}

#[test]
fn processes_end_with_the_thread_that_started_them() {
    let machine = Machine::new(QEMU);
    let setpriv = machine.programs.setpriv.clone();
    let id = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let child = Child::start("sleep", &setpriv, "/bin/sleep".as_ref(), ["1000"]).unwrap();
            // setpriv becomes sleep; only then is the signal arranged.
            let id = child.id().unwrap();
            eventually("sleep runs", || {
                fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == "sleep")
            })
            .await;
            // Neither stopped nor dropped: as if we had been killed.
            std::mem::forget(child);
            id
        })
    });
    let id = id.join().unwrap();
    let begun = std::time::Instant::now();
    // A zombie until somebody reaps it.
    let alive = || fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() {
        assert!(begun.elapsed() < SOON, "process {id} outlives its thread");
        std::thread::sleep(Duration::from_millis(10));
    }
}
