//! The log of the existing network's node, so that what people and tools read there they read here:
//!
//! ```text
//! [2026-05-18T10:25:00] [INFO   ] [0x5935897A] Received 1 assignment(s)
//! ```
//!
//! It is rendered from typed events, which hold numbers, closed words and public ids: no prompt, answer, key or address
//! of a service with a key in it can stand in a line, unlike there.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use blf_evidence::job::Role;
use blf_evidence::telemetry::{Event, JobState};
use blf_evidence::{Hex, UnixTime};
use jiff::Zoned;

use crate::journal::Level;
use crate::notice::{Notice, Show};
use crate::record::now;

/// Jobs of a node that are remembered.
const ROLES: usize = 64;

/// Writes lines as notices come.
pub struct NetworkLog {
    level: Level,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    models: String,
    nodes: HashMap<String, Node>,
}

/// What a node's lines depend on.
#[derive(Default)]
struct Node {
    /// Ten characters of its address, once it has one.
    short: Option<String>,
    roles: HashMap<Hex<32>, Role>,
}

impl NetworkLog {
    /// Lines to stderr.
    pub fn stderr(level: Level) -> Arc<Self> {
        Self::new(level, Box::new(std::io::stderr()))
    }

    /// Lines to `out`.
    pub fn new(level: Level, out: Box<dyn Write + Send>) -> Arc<Self> {
        let state = State { out, models: String::new(), nodes: HashMap::new() };
        Arc::new(Self { level, state: Mutex::new(state) })
    }

    /// Takes notices as they come.
    pub fn show(self: &Arc<Self>) -> Show {
        let log = Arc::clone(self);
        Arc::new(move |notice| log.take(notice, now()))
    }

    /// Writes the lines of one notice.
    pub fn take(&self, notice: &Notice, now: UnixTime) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { out, models, nodes } = &mut *state;
        let (name, lines) = match notice {
            Notice::Model { id, .. } => {
                models.clone_from(id);
                return;
            }
            Notice::Started { node, .. } => (node, vec![(Level::Info, "Daemon starting …".into())]),
            Notice::Appraised { node, address, tier, .. } => {
                nodes.entry(node.clone()).or_default().short = Some(address.to_string().chars().take(10).collect());
                let lines = vec![
                    (Level::Info, format!("  Address : {address}")),
                    (Level::Info, format!("  Tier    : {tier}")),
                    (Level::Info, format!("  Models  : {models}")),
                ];
                (node, lines)
            }
            Notice::Check { node, finding } if !finding.ok => {
                (node, vec![(Level::Error, format!("Evidence refused: {}", finding.id))])
            }
            Notice::Stopping { node } => (node, vec![(Level::Info, "Shutting down …".into())]),
            Notice::Stopped { node, orderly, .. } => {
                let mut lines = vec![(Level::Info, "Daemon stopped.".into())];
                if !orderly {
                    lines.insert(0, (Level::Warning, "The guest was ended by force".into()));
                }
                (node, lines)
            }
            Notice::Guest { node, event } => {
                (node, nodes.entry(node.clone()).or_default().event(event, now).into_iter().collect())
            }
            _ => return,
        };
        let short = nodes.get(name).and_then(|node| node.short.as_deref()).unwrap_or("unknown");
        for (level, message) in lines.into_iter().filter(|(level, _)| *level >= self.level) {
            // A reader that has gone away is no reason to end a VM.
            drop(writeln!(out, "{}", line(level, short, &message)));
        }
    }
}

impl Node {
    fn event(&mut self, event: &Event, now: UnixTime) -> Vec<(Level, String)> {
        let one = |level, message: String| vec![(level, message)];
        match event {
            Event::Certified { not_after, .. } => {
                one(Level::Info, format!("  Cert    : expires in {}s", not_after.0.saturating_sub(now.0)))
            }
            Event::Renewed { not_after, .. } => {
                one(Level::Info, format!("Attestation renewed — new expiry: {}", not_after.0))
            }
            Event::Heartbeat { .. } => one(Level::Debug, "ICL heartbeat sent".into()),
            Event::Assignments { count } => one(Level::Info, format!("Received {count} assignment(s)")),
            Event::NoAssignments { seconds } => one(Level::Info, format!("No assignments for last {seconds}s")),
            Event::Assigned { job, role } => {
                // A guest has two at a time; one that says otherwise is not believed without end.
                if self.roles.len() < ROLES {
                    self.roles.insert(*job, *role);
                }
                let role = spelled(*role);
                vec![
                    (Level::Info, format!("Spawning {role} job 0x{job}")),
                    (Level::Info, format!("Job 0x{job}: starting as {role}")),
                ]
            }
            Event::Job { job, state, .. } => {
                if *state == JobState::Accepted {
                    self.roles.remove(job);
                }
                one(Level::Info, format!("Job 0x{job}: {}", reached(*state)))
            }
            Event::JobFailed { job, code } => {
                let role = self.roles.remove(job).map_or("job", spelled);
                one(Level::Error, format!("Job 0x{job}: {role} failed — {code}"))
            }
            Event::Trouble { code, retry_in } => {
                one(Level::Warning, format!("Request to ICL failed: {code}, retrying in {retry_in}s …"))
            }
            Event::BootFailed { stage, code } => one(Level::Error, format!("Boot failed at {stage}: {code}")),
            Event::Booted { millis, .. } => one(Level::Debug, format!("Booted in {millis} ms")),
            Event::BootStage { stage, millis, .. } => one(Level::Debug, format!("Boot stage {stage}: {millis} ms")),
            Event::EvidenceGiven {} => one(Level::Info, "Fresh evidence given to a user".into()),
            Event::Stopping { jobs } => one(Level::Info, format!("Waiting for {jobs} running job(s) to complete")),
            // Said when the VM has ended, too.
            Event::Stopped {} => Vec::new(),
        }
    }
}

/// One line: local time, level, who, message.
pub fn line(level: Level, who: &str, message: &str) -> String {
    stamped(&Zoned::now(), level, who, message)
}

fn stamped(time: &Zoned, level: Level, who: &str, message: &str) -> String {
    let level = match level {
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warning => "WARNING",
        Level::Error => "ERROR",
    };
    // As text it may be a stranger's only where the host's own words repeat one.
    let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("[{}] [{level:<7}] [{who}] {message}", time.strftime("%Y-%m-%dT%H:%M:%S"))
}

fn spelled(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Verifier => "verifier",
    }
}

fn reached(state: JobState) -> &'static str {
    match state {
        JobState::Claimed => "claimed",
        JobState::KeyReceived => "prompt key received",
        JobState::PromptFetched => "prompt fetched",
        JobState::Running => "inference running",
        JobState::Committed => "committed",
        JobState::AnswerStored => "answer stored",
        JobState::KeyPublished => "answer key published",
        JobState::Revealed => "submitted to ICL",
        JobState::Accepted => "accepted by the quorum",
    }
}

#[cfg(test)]
mod tests {
    use blf_evidence::Address;
    use blf_evidence::telemetry::Code;

    use super::*;

    /// A sink that can be read.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn life(level: Level) -> Vec<String> {
        let sink = Sink::default();
        let log = NetworkLog::new(level, Box::new(sink.clone()));
        let node = || String::from("a");
        let address: Address = "0x5935897A39AFABbedA5a599D38236E7Df151C8b8".parse().unwrap();
        let job = Hex([0xab; 32]);
        let guest = |event| Notice::Guest { node: node(), event };
        let notices = [
            (0, Notice::Model { id: "blf-tiny-1".into(), manifest_sha256: Hex([1; 32]), bytes: 1 }),
            (0, Notice::Started { node: node(), memory_mib: 1, cpus: 1 }),
            (1, Notice::Appraised { node: node(), address, tier: 0, measurement: "m".into() }),
            (2, guest(Event::Certified { tier: 0, not_after: UnixTime(86_402) })),
            (30, guest(Event::Heartbeat { jobs: 0 })),
            (90, guest(Event::NoAssignments { seconds: 60 })),
            (91, guest(Event::Assignments { count: 2 })),
            (91, guest(Event::Assigned { job, role: Role::Leader })),
            (92, guest(Event::Job { job, state: JobState::Claimed, millis: 5 })),
            (93, guest(Event::JobFailed { job, code: Code::new("PROMPT_TAG").unwrap() })),
            (94, guest(Event::Trouble { code: Code::new("ICL_UNREACHABLE").unwrap(), retry_in: 5 })),
            (95, guest(Event::Renewed { tier: 0, not_after: UnixTime(90_000) })),
            (96, Notice::Stopping { node: node() }),
            (97, Notice::Stopped { node: node(), orderly: true, counts: Default::default() }),
        ];
        for (at, notice) in notices {
            log.take(&notice, UnixTime(at));
        }
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_lines_of_the_networks_node() {
        let lines = life(Level::Debug);
        // Without the time, which is this moment's.
        let (times, rest): (Vec<_>, Vec<_>) = lines.iter().map(|line| line.split_at(22)).unzip();
        for time in times {
            let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert_eq!(shape, "[0000-00-00T00:00:00] ");
        }
        let job = "ab".repeat(32);
        let wanted = [
            "[INFO   ] [unknown] Daemon starting …".into(),
            "[INFO   ] [0x5935897A]   Address : 0x5935897A39AFABbedA5a599D38236E7Df151C8b8".into(),
            "[INFO   ] [0x5935897A]   Tier    : 0".into(),
            "[INFO   ] [0x5935897A]   Models  : blf-tiny-1".into(),
            "[INFO   ] [0x5935897A]   Cert    : expires in 86400s".into(),
            "[DEBUG  ] [0x5935897A] ICL heartbeat sent".into(),
            "[INFO   ] [0x5935897A] No assignments for last 60s".into(),
            "[INFO   ] [0x5935897A] Received 2 assignment(s)".into(),
            format!("[INFO   ] [0x5935897A] Spawning leader job 0x{job}"),
            format!("[INFO   ] [0x5935897A] Job 0x{job}: starting as leader"),
            format!("[INFO   ] [0x5935897A] Job 0x{job}: claimed"),
            format!("[ERROR  ] [0x5935897A] Job 0x{job}: leader failed — PROMPT_TAG"),
            "[WARNING] [0x5935897A] Request to ICL failed: ICL_UNREACHABLE, retrying in 5s …".into(),
            "[INFO   ] [0x5935897A] Attestation renewed — new expiry: 90000".into(),
            "[INFO   ] [0x5935897A] Shutting down …".into(),
            "[INFO   ] [0x5935897A] Daemon stopped.".into(),
        ];
        assert_eq!(rest, wanted.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn a_level_leaves_out_what_is_below_it() {
        assert_eq!(life(Level::Error).len(), 1);
        assert_eq!(life(Level::Warning).len(), 2);
        assert!(life(Level::Info).iter().all(|line| !line.contains("[DEBUG")));
    }

    #[test]
    fn local_time_and_no_control_characters() {
        let time: Zoned = "2026-05-18T10:25:00+02:00[+02:00]".parse().unwrap();
        assert_eq!(
            stamped(&time, Level::Warning, "blf-host", "a\nb\u{1b}[31m"),
            "[2026-05-18T10:25:00] [WARNING] [blf-host] a b [31m"
        );
    }
}
