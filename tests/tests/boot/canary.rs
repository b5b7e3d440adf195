//! Twenty jobs and a crash of the engine, and then the search for what they left: everywhere outside the guest, and after the
//! keys were wiped in the guest itself. `docs/secrets.md` says where plaintext may lie.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use blf_bridge::Key;
use blf_evidence::Hex;
use blf_evidence::tunnel::{PORT_DIAL, PORT_DOCUMENTS, PORT_TELEMETRY};
use blf_tests::search::{GUEST_MEMORY, Needles, spellings, token_spellings, tokenizer, tokens};
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, Serializable as _};
use serde_json::json;
use tokenizers::Tokenizer;

use crate::launched::{Launched, Prepared};
use crate::qmp;
use crate::tap::Tap;
use crate::user::{Kept, User};

/// Of five jobs each.
const ROUNDS: usize = 4;
/// What the model knows an answer to. With a marker beside them its answers are short and make no sense.
const QUESTIONS: [&str; 2 * ROUNDS] = [
    "What is blf?",
    "Who are you?",
    "What is a TEE?",
    "Can I trust your answers?",
    "What does blf protect?",
    "What can you do?",
    "How were you trained?",
    "How large are you?",
];
/// What the agent has compiled in.
const COMPILED_IN: &[u8] = b"blf-agent: wanted to be process 1 of the image it is measured in";
#[test]
fn twenty_jobs_and_a_crash_leave_no_text_outside_the_guest_and_no_key_inside() {
    let (prepared, tokenizer, began) = (Prepared::find(), tokenizer(), Instant::now());
    planted_leaks_are_found(&tokenizer);
    tell(&format!("planted leaks found, {} s", began.elapsed().as_secs()));

    let tap = Tap::start();
    let launched = prepared.launch_tapped(&tap);
    let mut user = User::new(&launched.network());
    let (mut texts, mut keys, mut jobs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut keep = |what: &str, text: &str| texts.push((format!("{what} of round {round}"), text.to_owned()));
        if round == ROUNDS / 2 {
            crash(&prepared, &launched, &tap, |prompt| keep("crashed prompt", prompt));
        }
        // One by the user's own command, the others, two at a time, by a user that keeps its keys and asks for evidence once.
        let marked = [(); 3].map(|()| prompt(round));
        marked.iter().for_each(|prompt| keep("prompt", prompt));
        let [first, second, third] = marked.each_ref().map(String::as_str);
        let report = prepared.ask(&launched, first, 0).unwrap();
        assert_eq!(report["tier"], 0, "QEMU beside an emulated TPM is tier 0");
        keep("answer", report["text"].as_str().unwrap());
        jobs.push(report["job_id"].as_str().unwrap().parse::<Hex<32>>().unwrap());
        // Plain questions are no secret, but have whole answers.
        for prompts in [[second, QUESTIONS[round]], [third, QUESTIONS[ROUNDS + round]]] {
            for Kept { job, answer, prompt_key, answer_key } in user.ask(prompts) {
                keep("answer", &answer);
                keys.push((format!("prompt key of {job}"), prompt_key));
                keys.push((format!("answer key of {job}"), answer_key));
                jobs.push(job);
            }
        }
    }
    assert_eq!(launched.kind("appraised").len(), 1);
    assert!(launched.kind("check").iter().all(|c| c["ok"] == true));
    tell(&format!("{} jobs and a crash, {} s", jobs.len(), began.elapsed().as_secs()));

    let needles = Needles::with_tokens(&texts, &tokenizer);
    let public = Needles::new(&jobs.iter().map(|job| job.0.as_slice()).collect::<Vec<_>>());
    outside(&prepared, &launched, &tap, &needles, &public);

    // The guest's memory, while its keys live and once it has wiped them and asked for power off.
    let (memory, length) = guest_memory(qemu(&launched));
    // Of one of them a part may lie on another page, but hardly of both.
    let public_halves = [user.node().keys.hpke.0, user.node().keys.cofhe_sealing.0];
    let private = private_halves(&memory, length, &public_halves);
    assert!(!private.is_empty(), "no key of the guest was found in its memory while it lived");
    keys.extend(private.into_iter().map(|key| ("key of the node".to_owned(), key)));
    let keys = Needles::of(keys.iter().flat_map(|(name, key)| {
        let halves = key.chunks(16).flat_map(spellings);
        halves.map(move |(spelling, bytes)| (format!("{name} ({spelling})"), bytes))
    }));
    // The jobs' ids are public, and lie beside the keys for as long as these live.
    let (known, _) = public.hits_between(&memory, 0, length);
    assert_eq!(known.iter().filter(|name| name.ends_with(" (raw)")).count(), 5 * ROUNDS, "ids of the jobs: {known:?}");
    let (alive, places) = keys.hits_between(&memory, 0, length);
    assert!(alive.contains("key of the node (raw)"), "a key in use was not found: {alive:?}");
    tell(&format!("guest memory before the wipe: {places} places with keys, {alive:?}"));
    let (left, places) = needles.hits_between(&memory, 0, length);
    tell(&format!("guest memory before the wipe: {places} places with text, {left:?}"));

    qmp::qmp(&tap.qmp(), "set-action", json!({ "shutdown": "pause" }));
    launched.interrupt();
    let until = Instant::now() + Duration::from_secs(300);
    while qmp::status(&tap.qmp()) != "shutdown" {
        assert!(Instant::now() < until, "the guest did not power off: {:#?}", launched.kind("guest"));
        thread::sleep(Duration::from_millis(200));
    }
    // This is the memory still, and it can be read.
    let agent = Needles::new(&[COMPILED_IN]);
    assert!(!agent.hits_between(&memory, 0, length).0.is_empty(), "the agent itself is not in the memory");
    let (left, places) = needles.hits_between(&memory, 0, length);
    tell(&format!("guest memory after the wipe: {places} places with text, {left:?}"));
    let (alive, _) = keys.hits_between(&memory, 0, length);
    assert_eq!(alive, BTreeSet::new(), "keys in the guest's memory after they were wiped");
    qmp::qmp(&tap.qmp(), "quit", json!({}));

    let (notices, dir) = launched.stopped();
    assert_eq!(needles.hits(&serde_json::to_vec(&notices).unwrap()), BTreeSet::new(), "the host tool printed text");
    assert_eq!(needles.found_below(dir.path()).unwrap().0, Vec::<String>::new());
    tell(&format!("searched, {} s", began.elapsed().as_secs()));
}

/// A question and a marker that nobody else has.
fn prompt(n: usize) -> String {
    format!("{} {}", QUESTIONS[n % QUESTIONS.len()], Hex(*Key::random().unwrap().expose()))
}

/// Everything of the host's: memory, files, output, and what went over the wire.
fn outside(prepared: &Prepared, launched: &Launched, tap: &Tap, needles: &Needles, public: &Needles) {
    let processes = launched.processes();
    assert!(processes.len() >= 3, "{processes:?}");
    for (pid, name) in &processes {
        assert_eq!(needles.found_in_process(*pid).unwrap(), BTreeSet::new(), "{name} holds plaintext");
    }
    // And in what was searched, what it does hold: the ids of the jobs, which are public.
    assert!(!public.found_in_process(launched.host.id()).unwrap().is_empty(), "blf-host does not even hold public ids");
    let log = fs::read(launched.dir.path().join("log")).unwrap();
    assert!(!public.hits(&log).is_empty(), "the log does not even name the jobs");
    let console = String::from_utf8_lossy(&tap.console()).into_owned();
    assert!(console.contains("/13] mount"), "the console does not even show the boot list: {console}");

    let mut files = 0;
    for dir in [launched.dir.path(), tap.dir(), &prepared.image] {
        let (found, searched) = needles.found_below(dir).unwrap();
        assert_eq!(found, Vec::<String>::new());
        files += searched;
    }
    let mut open = 0;
    for (pid, _) in &processes {
        open += open_files(*pid, needles);
    }
    tell(&format!("{} processes, {files} files and {open} open ones: nothing found", processes.len()));

    if tap.is_blind() {
        blf_tests::swtpm::skip("the kernel carries vsock here, so that nothing between guest and host was recorded");
        return;
    }
    for (port, shows) in [(PORT_DOCUMENTS, &b"node-1"[..]), (PORT_TELEMETRY, b"\"booted\""), (PORT_DIAL, b"blf/1 ")] {
        let streams = tap.recorded(port);
        let shown = streams.iter().any(|bytes| bytes.windows(shows.len()).any(|window| window == shows));
        assert!(shown, "port {port}: what must be there was not recorded");
        for bytes in &streams {
            assert_eq!(needles.hits(bytes), BTreeSet::new(), "port {port} carried plaintext");
        }
        let bytes: usize = streams.iter().map(Vec::len).sum();
        tell(&format!("port {port}: {} streams, {bytes} bytes, nothing found", streams.len()));
    }
}

/// Files that a process has open, also those without a name any more; gives how many.
fn open_files(pid: u32, needles: &Needles) -> usize {
    let mut searched = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map_while(Result::ok) {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let regular = fs::metadata(entry.path()).is_ok_and(|m| m.is_file());
        if !regular || target.to_string_lossy().contains(GUEST_MEMORY) {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        let length = file.metadata().unwrap().len();
        let (found, _) = needles.hits_between(&file, 0, length);
        assert_eq!(found, BTreeSet::new(), "{}", target.display());
        searched += 1;
    }
    searched
}

/// Ends the engine in the middle of a prompt, as a bug or an attacker in it would: whoever owns the machine waits until the
/// engine computes and writes zeros over the stacks of its threads. The image has nothing for this purpose.
fn crash(prepared: &Prepared, launched: &Launched, tap: &Tap, mut keep: impl FnMut(&str)) {
    // Long, so that the engine is at work for a while.
    let prompt = (0..4).map(prompt).collect::<Vec<_>>().join(" ");
    keep(&prompt);
    let (memory, _) = guest_memory(qemu(launched));
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| prepared.ask(launched, &prompt, 0));
        let mut before = 0;
        while !asked.is_finished() {
            let registers = qmp::registers(&tap.qmp());
            // Nothing else in the guest computes in as many threads as there are processors, and for so long.
            let process = registers[0].cr3;
            let one_process = registers.iter().all(|r| r.in_a_process() && r.cr3 == process);
            if one_process && process == before {
                for stack in registers.iter().filter_map(|processor| processor.stack(&memory)) {
                    let zeros = vec![0; usize::try_from(stack.end - stack.start).unwrap()];
                    memory.write_all_at(&zeros, stack.start).unwrap();
                }
            }
            before = if one_process { process } else { 0 };
            thread::sleep(Duration::from_millis(10));
        }
        asked.join().unwrap()
    });
    let failure = answer.expect_err("the engine ended in the middle, and yet there was an answer");
    assert!(failure.contains("ENGINE_GONE"), "{failure}");
    tell("the engine was ended in the middle of a prompt");
    // It is started again; what is asked meanwhile is refused.
    let until = Instant::now() + Duration::from_secs(120);
    while let Err(failure) = prepared.ask(launched, "Are you there?", 0) {
        assert!(Instant::now() < until, "no engine again: {failure}");
    }
}

fn qemu(launched: &Launched) -> u32 {
    launched.processes().into_iter().find(|(_, name)| name.starts_with("qemu")).unwrap().0
}

/// The file that is the guest's memory, and its length.
fn guest_memory(qemu: u32) -> (File, u64) {
    let entries = fs::read_dir(format!("/proc/{qemu}/fd")).unwrap().map_while(Result::ok);
    let memory = entries
        .map(|e| e.path())
        .find(|path| fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains(GUEST_MEMORY)));
    let memory = memory.expect("QEMU's file of the guest's memory");
    let file = File::options().read(true).write(true).open(memory).unwrap();
    let length = file.metadata().unwrap().len();
    (file, length)
}

/// Private halves of X25519 keys, wherever they lie in the guest's memory: in boxes of 32 bytes.
fn private_halves(memory: &File, length: u64, public: &[[u8; 32]]) -> BTreeSet<[u8; 32]> {
    /// The size that glibc's allocator writes before such a box, with its flags but for the one of another arena.
    const BOX: u64 = 0x31;
    const OTHER_ARENA: u64 = 4;
    let (mut tried, mut found, mut page) = (BTreeSet::new(), BTreeSet::new(), [0; 4096]);
    for at in (0..length).step_by(page.len()) {
        if memory.read_exact_at(&mut page, at).is_err() {
            continue;
        }
        for start in (16..=page.len() - 32).step_by(16) {
            let size = u64::from_le_bytes(page[start - 8..start].try_into().unwrap());
            let candidate: [u8; 32] = page[start..start + 32].try_into().unwrap();
            // Random bytes hardly repeat.
            let random = || candidate.iter().collect::<BTreeSet<_>>().len() >= 20;
            if size & !OTHER_ARENA != BOX || !random() || !tried.insert(candidate) {
                continue;
            }
            let Ok(private) = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&candidate) else { continue };
            let half = X25519HkdfSha256::sk_to_pk(&private).to_bytes();
            if public.iter().any(|public| half.as_slice() == public) {
                found.insert(candidate);
            }
        }
    }
    found
}

/// A leak in each spelling, in each kind of place, is found before anybody may say that there is none.
fn planted_leaks_are_found(tokenizer: &Tokenizer) {
    let text = format!("{} planted", prompt(0));
    let needles = Needles::with_tokens(&[("planted".into(), text.clone())], tokenizer);
    let mut all = spellings(text.as_bytes());
    all.extend(token_spellings(&tokens(tokenizer, &text)));
    let tap = Tap::start();
    fs::create_dir_all(tap.qmp().parent().unwrap()).unwrap();
    let _host = UnixListener::bind(tap.qmp().with_file_name(format!("v_{PORT_TELEMETRY}"))).unwrap();
    for (spelling, bytes) in all {
        let name = format!("planted ({spelling})");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/leak"), &bytes).unwrap();
        let (found, searched) = needles.found_below(dir.path()).unwrap();
        assert!(searched == 1 && found.iter().any(|f| f.ends_with(&name)), "a file: {name}: {found:?}");

        // A process that keeps what it reads until it has read everything.
        let mut process = Command::new("sort").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut input = process.stdin.take().unwrap();
        input.write_all(&bytes).unwrap();
        wait(&name, || needles.found_in_process(process.id()).unwrap().contains(name.as_str()));
        process.kill().unwrap();
        process.wait().unwrap();

        let mut guest = UnixStream::connect(tap.dir().join(format!("v_{PORT_TELEMETRY}"))).unwrap();
        guest.write_all(&bytes).unwrap();
        let carried = || tap.recorded(PORT_TELEMETRY).iter().any(|bytes| needles.hits(bytes).contains(name.as_str()));
        wait(&name, carried);
    }
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "{what}: the planted leak was not found");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Past libtest's capture: figures are of use to whoever runs this.
fn tell(line: &str) {
    let _ = io::stderr().write_all(format!("canary: {line}\n").as_bytes());
}
