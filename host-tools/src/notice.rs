//! What `launch` says while it works: a line for people, an object for programs.

use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use blf_evidence::profile::Host;
use blf_evidence::telemetry::Event;
use blf_evidence::{Address, Hex, UnixTime};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::Error;
use crate::forward::Counts;
use crate::isolation::Isolation;

/// Takes notices as they come.
pub type Show = Arc<dyn Fn(&Notice) + Send + Sync>;

/// One thing worth saying. In JSON the member `notice` names the kind, e.g. `tunnel_open`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// The image is what its manifest says.
    Image {
        /// The unified kernel image.
        uki: PathBuf,
        /// Its length.
        bytes: u64,
        /// Its SHA-256.
        sha256: Hex<32>,
        /// The measured profile.
        profile: String,
        /// Whether it was built from exactly the locked inputs.
        locked: bool,
    },
    /// The network that the measured profile names.
    Network {
        /// The profile.
        profile: String,
        /// Its coordinator.
        icl: Host,
    },
    /// The model pack that the guests get.
    Model {
        /// The model's name in assignments.
        id: String,
        /// The model's identity.
        manifest_sha256: Hex<32>,
        /// Length of the pack.
        bytes: u64,
    },
    /// What isolation the guests get.
    Isolation {
        /// What was chosen and why.
        #[serde(flatten)]
        isolation: Isolation,
        /// The tier that follows.
        tier: u8,
        /// What that protects and what not.
        sentence: String,
    },
    /// A local network runs in this process.
    Devnet {
        /// Where it listens.
        address: SocketAddr,
        /// The document by which `blf` finds it.
        network: PathBuf,
    },
    /// Something happened on the local network.
    DevnetEvent {
        /// What.
        event: blf_devnet::Event,
    },
    /// A VM runs.
    Started {
        /// The node.
        node: String,
        /// Guest memory.
        memory_mib: u32,
        /// Virtual processors.
        cpus: u8,
    },
    /// A guest said something about itself.
    Guest {
        /// The node.
        node: String,
        /// What it said.
        event: Event,
    },
    /// One comparison of the appraisal.
    Check {
        /// The node.
        node: String,
        /// The comparison.
        #[serde(flatten)]
        finding: Finding,
    },
    /// The evidence is genuine and wanted.
    Appraised {
        /// The node.
        node: String,
        /// Its address.
        address: Address,
        /// Tier 0, 1 or 2.
        tier: u8,
        /// Measurement id.
        measurement: String,
    },
    /// The guest may reach the network.
    TunnelOpen {
        /// The node.
        node: String,
    },
    /// The node's attested API can be reached.
    Api {
        /// The node.
        node: String,
        /// Where.
        address: SocketAddr,
    },
    /// The guest is asked to drain and stop.
    Stopping {
        /// The node.
        node: String,
    },
    /// The VM and everything beside it has ended.
    Stopped {
        /// The node.
        node: String,
        /// Whether the guest powered off by itself.
        orderly: bool,
        /// What was carried and dropped.
        counts: Counts,
    },
}

/// One comparison, as text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// What was compared.
    pub id: String,
    /// What was wanted.
    pub expected: String,
    /// What was there.
    pub got: String,
    /// Whether it will do.
    pub ok: bool,
}

/// Lines on their way to a reader who may have stopped reading: a pager, a terminal after Ctrl-S.
struct Lines {
    /// `None` only once it is dropped.
    queue: Option<SyncSender<String>>,
    writer: JoinHandle<()>,
    json: bool,
    /// Notices that found the queue full since that was said last.
    missed: AtomicU64,
}

/// Lines that wait for the reader.
const QUEUE: usize = 1024;
/// For what is left to be written, at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Notices on stdout: lines for people, coloured where that is a terminal, or one JSON object a line. It never waits for
/// the reader: what finds no room is counted, and the count takes its place as soon as there is some.
///
/// When the result and all of its clones are dropped, what is left has been written, or the reader did not take it in time.
///
/// # Errors
/// An environment error where no thread can be started.
pub fn stdout(json: bool) -> Result<Show, Error> {
    let lines = Lines::new(json, print)?;
    Ok(Arc::new(move |notice| lines.take(notice)))
}

impl Lines {
    fn new(json: bool, write: impl Fn(String) + Send + 'static) -> Result<Self, Error> {
        let (queue, lines) = sync_channel(QUEUE);
        let writer = thread::Builder::new().name("stdout".into()).spawn(move || lines.into_iter().for_each(write));
        let writer = writer.map_err(|e| Error::environment("THREAD", e))?;
        Ok(Self { queue: Some(queue), writer, json, missed: AtomicU64::new(0) })
    }

    fn take(&self, notice: &Notice) {
        let line = if self.json { serde_json::to_string(notice).ok() } else { Some(notice.to_string()) };
        let Some(line) = line else { return };
        if !self.say_missed() || !self.push(line) {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// False while there is no room to say it.
    fn say_missed(&self) -> bool {
        let count = self.missed.swap(0, Ordering::Relaxed);
        if count == 0 {
            return true;
        }
        let said = self.push(if self.json {
            json!({ "notice": "not_shown", "count": count }).to_string()
        } else {
            format!("{count} notices not shown: stdout was not read in time")
        });
        if !said {
            self.missed.fetch_add(count, Ordering::Relaxed);
        }
        said
    }

    /// False where there is no room.
    fn push(&self, line: String) -> bool {
        self.queue.as_ref().is_some_and(|queue| !matches!(queue.try_send(line), Err(TrySendError::Full(_))))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.say_missed();
        drop(self.queue.take());
        let until = Instant::now() + LAST_LINES;
        while !self.writer.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// One that gives notices to each of several.
pub fn several(shows: Vec<Show>) -> Show {
    Arc::new(move |notice| shows.iter().for_each(|show| show(notice)))
}

/// A line on stdout. A reader that has gone away is no reason to end a VM.
pub fn print(line: impl fmt::Display) {
    drop(writeln!(anstream::stdout().lock(), "{line}"));
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (good, bad, bold) = (colour(AnsiColor::Green), colour(AnsiColor::Red), Style::new().bold());
        match self {
            Self::Image { uki, bytes, sha256, profile, locked } => {
                write!(f, "image     {} ({bytes} bytes, profile {profile})\n          sha256 {sha256}", uki.display())?;
                if *locked {
                    return Ok(());
                }
                write!(
                    f,
                    "\n          {bold}not a released measurement{bold:#}: built from newer packages than the lock file names"
                )
            }
            Self::Network { profile, icl } => write!(f, "network   profile {profile}, ICL {}:{}", icl.name, icl.port),
            Self::Model { id, manifest_sha256, bytes } => {
                write!(f, "model     {id} ({bytes} bytes)\n          manifest sha256 {manifest_sha256}")
            }
            Self::Isolation { isolation, sentence, .. } => {
                write!(f, "isolation {:?}: {}\n          {bad}{sentence}{bad:#}", isolation.accel, isolation.why)
            }
            Self::Devnet { address, network } => {
                write!(
                    f,
                    "devnet    ICL and blob store on {address}, development keys; described in {}",
                    network.display()
                )
            }
            Self::DevnetEvent { event } => write!(f, "devnet    {}", event.kind),
            Self::Started { node, memory_mib, cpus } => write!(f, "{node:<9} started: {memory_mib} MiB, {cpus} CPU"),
            Self::Guest { node, event } => {
                write!(f, "{node:<9} ")?;
                guest_event(f, event)
            }
            // What was wanted is in `--json`; here it matters where it was not there.
            Self::Check { node, finding: Finding { id, got, ok: true, .. } } => {
                write!(f, "{node:<9} {good}ok{good:#}   {id:<22} {}", short(got))
            }
            Self::Check { node, finding: Finding { id, expected, got, .. } } => {
                write!(f, "{node:<9} {bad}FAIL{bad:#} {id:<22} wanted {expected}, got {got}")
            }
            Self::Appraised { node, address, tier, measurement } => {
                write!(f, "{node:<9} evidence accepted: tier {tier}, {measurement}\n          address {address}")
            }
            Self::TunnelOpen { node } => write!(f, "{node:<9} tunnel open"),
            Self::Api { node, address } => write!(f, "{node:<9} attested API: blf verify https://{address}"),
            Self::Stopping { node } => write!(f, "{node:<9} asked to drain and stop"),
            Self::Stopped { node, orderly, counts: c } => {
                let how = if *orderly { "powered off" } else { "ended by force" };
                write!(
                    f,
                    "{node:<9} {how}; carried {} bytes out and {} in on {} streams",
                    c.bytes_up, c.bytes_down, c.streams
                )?;
                let refused = c.dials_forbidden + c.dials_malformed + c.dials_surplus;
                let dropped = c.events_unknown + c.events_surplus;
                if refused + dropped > 0 {
                    write!(f, "; {bold}refused {refused} dials, dropped {dropped} telemetry lines{bold:#}")?;
                }
                Ok(())
            }
        }
    }
}

fn guest_event(f: &mut fmt::Formatter<'_>, event: &Event) -> fmt::Result {
    match event {
        Event::BootStage { number, of, stage, millis } => write!(f, "boot {number}/{of} {stage} {millis} ms"),
        Event::BootFailed { stage, code } => write!(f, "boot failed at {stage}: {code}"),
        Event::Booted { node, millis, memory_total_kib, memory_available_kib } => write!(
            f,
            "booted in {millis} ms as {node}; memory {} MiB, {} MiB free",
            memory_total_kib / 1024,
            memory_available_kib / 1024
        ),
        Event::Certified { tier, not_after: UnixTime(time) } => {
            write!(f, "certified by the ICL, tier {tier}, until {time}")
        }
        Event::Renewed { tier, not_after: UnixTime(time) } => {
            write!(f, "certified again by the ICL, tier {tier}, until {time}")
        }
        Event::Assignments { count } => write!(f, "received {count} assignments"),
        Event::NoAssignments { seconds } => write!(f, "no assignments for {seconds} s"),
        Event::Heartbeat { jobs } => write!(f, "heartbeat, {jobs} jobs running"),
        Event::Assigned { job, role } => {
            write!(f, "job {} assigned as {}", short(&job.to_string()), format!("{role:?}").to_lowercase())
        }
        Event::Job { job, state, millis } => {
            write!(f, "job {} {} after {millis} ms", short(&job.to_string()), snake(&format!("{state:?}")))
        }
        Event::JobFailed { job, code } => write!(f, "job {} failed: {code}", short(&job.to_string())),
        Event::EvidenceGiven {} => write!(f, "gave fresh evidence to a user"),
        Event::Trouble { code, retry_in } => write!(f, "trouble: {code}, next attempt in {retry_in} s"),
        Event::Stopping { jobs } => write!(f, "stopping, {jobs} jobs still running"),
        Event::Stopped {} => write!(f, "stopped"),
    }
}

/// `AnswerStored` as `answer stored`.
fn snake(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 2);
    for (at, c) in name.char_indices() {
        if at > 0 && c.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

/// A long value by its beginning; the whole is in `--json`.
fn short(text: &str) -> String {
    match text.char_indices().nth(48) {
        Some(_) => {
            format!("{}…", text.chars().take(if text.contains([' ', ',']) { 47 } else { 16 }).collect::<String>())
        }
        None => text.into(),
    }
}

fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(colour.into())).bold()
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::vm::Accel;

    #[test]
    fn one_flat_object_each() {
        let isolation = Isolation { accel: Accel::Tcg, why: "asked for".into() };
        let sentence = isolation.sentence();
        let notice = Notice::Isolation { isolation, tier: 0, sentence: sentence.clone() };
        let object =
            json!({ "notice": "isolation", "accel": "tcg", "why": "asked for", "tier": 0, "sentence": sentence });
        assert_eq!(json!(notice), object);
        assert!(notice.to_string().contains("NOT CONFIDENTIAL (tier 0)"));

        let finding = |ok| Finding { id: "pcr.11".into(), expected: "aa".into(), got: "bb".into(), ok };
        let notice = Notice::Check { node: "node-1".into(), finding: finding(false) };
        let object =
            json!({ "notice": "check", "node": "node-1", "id": "pcr.11", "expected": "aa", "got": "bb", "ok": false });
        assert_eq!(json!(notice), object);
        assert!(notice.to_string().contains("wanted aa, got bb"));

        let notice = Notice::Guest { node: "node-1".into(), event: Event::Heartbeat { jobs: 2 } };
        assert_eq!(json!(notice)["event"], json!({ "event": "heartbeat", "jobs": 2 }));
        assert_eq!(notice.to_string(), "node-1    heartbeat, 2 jobs running");
    }

    #[test]
    fn a_reader_that_stalls_holds_up_nobody_and_hears_what_it_missed() {
        let (go, going) = mpsc::channel::<()>();
        let written = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&written);
        let write = move |line: String| {
            // Stalled until the other end is dropped.
            let _ = going.recv();
            seen.lock().unwrap().push(line);
        };
        let lines = Lines::new(true, write).unwrap();
        let notice = Notice::TunnelOpen { node: "node-1".into() };
        let total = QUEUE as u64 + 101;
        for _ in 0..total {
            lines.take(&notice);
        }
        drop(go);
        // Room for the last count.
        while written.lock().unwrap().len() < 2 {
            thread::sleep(Duration::from_millis(10));
        }
        drop(lines);
        let written = written.lock().unwrap();
        let of = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let shown = written.iter().filter(|line| of(line) == json!(notice)).count() as u64;
        // The writer may take its first line late, so that there was room for a count before the last one.
        let missed: u64 = written.iter().filter_map(|line| of(line)["count"].as_u64()).sum();
        assert!(missed >= 100 && of(written.last().unwrap())["notice"] == "not_shown", "{missed}");
        assert_eq!(shown + missed, total);
    }

    #[test]
    fn a_reader_that_never_reads_again_is_given_up() {
        let lines = Lines::new(false, |_| {
            loop {
                thread::park();
            }
        });
        let lines = lines.unwrap();
        lines.take(&Notice::TunnelOpen { node: "node-1".into() });
        let begun = Instant::now();
        drop(lines);
        assert!(begun.elapsed() >= LAST_LINES, "{:?}", begun.elapsed());
    }

    #[test]
    fn long_values_are_shortened() {
        assert_eq!(short(&"a".repeat(64)), format!("{}…", "a".repeat(16)));
        assert_eq!(short("blf-f32-v1"), "blf-f32-v1");
        assert_eq!(snake("AnswerStored"), "answer stored");
    }
}
