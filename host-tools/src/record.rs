//! What is known of a node, folded from what its launch says: kept beside its configuration while it runs, so that
//! `status`, `attest` and `jobs` can tell without asking the guest.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use blf_evidence::telemetry::{Event, JobState};
use blf_evidence::{Address, Hex, UnixTime};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Exit};
use crate::node::{Node, write};
use crate::notice::{Finding, Notice, Show};

/// Addresses of earlier boots that are remembered, the newest.
const EARLIER: usize = 32;
/// Seconds without a word of the coordinator after which a node counts as cut off from it. Guests send a heartbeat every 48
/// to 72 s whatever their profile, and one that failed again within 25.
pub const SILENT: u64 = 300;
/// Least time between two writes of a record: guests send up to 32 events a second, and each write waits for the disk twice.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of a node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Always `blf.node/v1`.
    pub schema: String,
    /// The node's name.
    pub name: String,
    /// How far it is.
    pub phase: Phase,
    /// The process that runs it, or ran it last.
    pub pid: u32,
    /// When that began.
    pub started_at: UnixTime,
    /// When something was last heard.
    pub updated_at: UnixTime,
    /// The measured profile.
    pub profile: Option<String>,
    /// The coordinator that the profile names.
    pub icl: Option<String>,
    /// What isolates the guest and what that protects.
    pub isolation: Option<String>,
    /// SHA-256 of the image.
    pub image_sha256: Option<Hex<32>>,
    /// The models the guest was given.
    pub models: Vec<Model>,
    /// The address that this boot was born with.
    pub address: Option<Address>,
    /// Those of earlier boots, the newest first.
    pub earlier: Vec<Address>,
    /// The tier that follows from the evidence.
    pub tier: Option<u8>,
    /// Measurement id of the evidence.
    pub measurement: Option<String>,
    /// Every comparison of the appraisal.
    pub findings: Vec<Finding>,
    /// What the coordinator certified last.
    pub certificate: Option<Certificate>,
    /// The last heartbeat that the coordinator acknowledged.
    pub heartbeat_at: Option<UnixTime>,
    /// When the coordinator was heard last, by a certificate or by an acknowledged heartbeat.
    pub heard_at: Option<UnixTime>,
    /// Jobs of this boot.
    pub jobs: Jobs,
    /// What went wrong last.
    pub trouble: Option<Trouble>,
    /// Why it ended.
    pub failure: Option<Error>,
}

/// How far a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its image is checked, its VM boots.
    Starting,
    /// Its evidence was accepted and the tunnel is open.
    Serving,
    /// It drains.
    Stopping,
    /// It was stopped.
    Stopped,
    /// It failed.
    Failed,
}

/// A model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the pack's manifest")]
pub struct Model {
    pub id: String,
    pub manifest_sha256: Hex<32>,
}

/// What the coordinator certified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the event")]
pub struct Certificate {
    pub tier: u8,
    pub not_after: UnixTime,
}

/// Jobs of one boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Jobs {
    pub running: u8,
    pub assigned: u64,
    pub accepted: u64,
    pub failed: u64,
}

/// What went wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// Code of the error.
    pub code: String,
    /// When.
    pub at: UnixTime,
    /// Seconds until the next attempt.
    pub retry_in: u64,
}

/// How a node stands, and with which exit code `status` says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Evidence accepted, certified, running.
    Ready,
    /// As that, but for [`SILENT`] seconds the coordinator was not heard.
    Silent,
    /// No evidence yet.
    Starting,
    /// Its evidence was refused.
    Refused,
    /// The coordinator has not certified it, or not again in time.
    Uncertified,
    /// It drains.
    Stopping,
    /// It does not run.
    Stopped,
    /// It failed.
    Failed,
    /// It was configured and never run.
    NeverRun,
}

impl Record {
    /// The record of a run that begins now, and what is remembered of earlier ones.
    pub fn begin(name: &str, before: Option<Self>, now: UnixTime) -> Self {
        let mut earlier = Vec::new();
        if let Some(before) = before {
            earlier.extend(before.address);
            earlier.extend(before.earlier);
            earlier.truncate(EARLIER);
        }
        Self {
            schema: "blf.node/v1".into(),
            name: name.into(),
            phase: Phase::Starting,
            pid: std::process::id(),
            started_at: now,
            updated_at: now,
            profile: None,
            icl: None,
            isolation: None,
            image_sha256: None,
            models: Vec::new(),
            address: None,
            earlier,
            tier: None,
            measurement: None,
            findings: Vec::new(),
            certificate: None,
            heartbeat_at: None,
            heard_at: None,
            jobs: Jobs::default(),
            trouble: None,
            failure: None,
        }
    }

    /// What was last known of a node, if it ever ran.
    ///
    /// # Errors
    /// A configuration error for a record that this program did not write.
    pub fn read(node: &Node) -> Result<Option<Self>, Error> {
        let path = node.record();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::failed("READ", format!("{}: {e}", path.display()))),
        };
        let wrong = |e: &dyn fmt::Display| {
            Error::config("RECORD", format!("{}: {e}", path.display())).hint("remove it; the next run writes it anew")
        };
        let record: Self = serde_json::from_slice(&bytes).map_err(|e| wrong(&e))?;
        if record.schema != "blf.node/v1" {
            return Err(wrong(&"schema: wanted blf.node/v1, got another"));
        }
        Ok(Some(record))
    }

    /// Takes in what a launch says. False if it says nothing that is kept.
    pub fn take(&mut self, notice: &Notice, now: UnixTime) -> bool {
        match notice {
            Notice::Image { sha256, .. } => self.image_sha256 = Some(*sha256),
            Notice::Network { profile, icl } => {
                (self.profile, self.icl) = (Some(profile.clone()), Some(format!("https://{}:{}", icl.name, icl.port)));
            }
            Notice::Model { id, manifest_sha256, .. } => {
                self.models = vec![Model { id: id.clone(), manifest_sha256: *manifest_sha256 }];
            }
            Notice::Isolation { sentence, .. } => self.isolation = Some(sentence.clone()),
            Notice::Check { finding, .. } => self.findings.push(finding.clone()),
            Notice::Appraised { address, tier, measurement, .. } => {
                self.address = Some(*address);
                self.tier = Some(*tier);
                self.measurement = Some(measurement.clone());
            }
            Notice::TunnelOpen { .. } => self.phase = Phase::Serving,
            Notice::Stopping { .. } => self.phase = Phase::Stopping,
            Notice::Stopped { .. } => self.jobs.running = 0,
            Notice::Guest { event, .. } => return self.event(event, now),
            Notice::Api { .. } | Notice::Devnet { .. } | Notice::DevnetEvent { .. } | Notice::Started { .. } => {
                return false;
            }
        }
        self.updated_at = now;
        true
    }

    fn event(&mut self, event: &Event, now: UnixTime) -> bool {
        match event {
            Event::Certified { tier, not_after } | Event::Renewed { tier, not_after } => {
                self.certificate = Some(Certificate { tier: *tier, not_after: *not_after });
                self.heard_at = Some(now);
                self.trouble = None;
            }
            Event::Heartbeat { jobs } => {
                (self.heartbeat_at, self.heard_at, self.jobs.running) = (Some(now), Some(now), *jobs);
            }
            Event::Assigned { .. } => {
                self.jobs.assigned += 1;
                self.jobs.running = self.jobs.running.saturating_add(1);
            }
            Event::Job { state: JobState::Accepted, .. } => {
                self.jobs.accepted += 1;
                self.jobs.running = self.jobs.running.saturating_sub(1);
            }
            Event::JobFailed { .. } => {
                self.jobs.failed += 1;
                self.jobs.running = self.jobs.running.saturating_sub(1);
            }
            Event::Trouble { code, retry_in } => {
                self.trouble = Some(Trouble { code: code.to_string(), at: now, retry_in: *retry_in });
            }
            Event::Stopping { jobs } => self.jobs.running = *jobs,
            _ => return false,
        }
        self.updated_at = now;
        true
    }

    /// Takes in how the launch ended.
    pub fn end(&mut self, ended: &Result<(), Error>, now: UnixTime) {
        self.phase = if ended.is_ok() { Phase::Stopped } else { Phase::Failed };
        self.failure = ended.as_ref().err().cloned();
        self.updated_at = now;
    }

    /// How the node stands; `runs` says whether a process has it.
    pub fn standing(&self, runs: bool, now: UnixTime) -> Standing {
        let certified = self.certificate.is_some_and(|certificate| certificate.not_after > now);
        let silent = now.0.saturating_sub(self.heard_at.unwrap_or(self.updated_at).0) > SILENT;
        match (runs, self.phase) {
            (_, Phase::Failed) if self.failure.as_ref().is_some_and(|e| e.exit == Exit::Rejected) => Standing::Refused,
            (_, Phase::Failed) => Standing::Failed,
            // Ended without a word: killed, or the machine was.
            (false, _) | (_, Phase::Stopped) => Standing::Stopped,
            (true, Phase::Starting) => Standing::Starting,
            (true, Phase::Serving) if certified && silent => Standing::Silent,
            (true, Phase::Serving) if certified => Standing::Ready,
            (true, Phase::Serving) => Standing::Uncertified,
            (true, Phase::Stopping) => Standing::Stopping,
        }
    }
}

impl Standing {
    /// Its exit code, or none where all is well.
    pub fn exit(self) -> Option<Exit> {
        match self {
            Self::Ready => None,
            Self::Silent | Self::Starting | Self::Uncertified => Some(Exit::NoVerdict),
            Self::Refused => Some(Exit::Rejected),
            Self::Stopping | Self::Stopped | Self::Failed | Self::NeverRun => Some(Exit::Failed),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "running, its evidence accepted, certified by the ICL",
            Self::Silent => "running and certified, but no heartbeat has reached the ICL for more than 5 minutes",
            Self::Starting => "starting, no evidence yet",
            Self::Refused => "its evidence was refused",
            Self::Uncertified => "running, its evidence accepted, but not certified by the ICL",
            Self::Stopping => "stopping",
            Self::Stopped => "not running",
            Self::Failed => "failed",
            Self::NeverRun => "configured, never run",
        })
    }
}

/// Keeps a record in a file while a launch goes on.
pub struct Recorder {
    kept: Arc<Kept>,
    /// Wakes the thread that writes; none where there is no file.
    changed: Option<SyncSender<()>>,
}

struct Kept {
    record: Mutex<Record>,
    /// Held by whoever writes; `None` where nobody writes or the end was written.
    file: Mutex<Option<PathBuf>>,
}

impl Recorder {
    /// Keeps `record` in `file`, or only in memory.
    ///
    /// # Errors
    /// An environment error where no thread can be started.
    pub fn new(record: Record, file: Option<PathBuf>) -> Result<Arc<Self>, Error> {
        let writes = file.is_some();
        let kept = Arc::new(Kept { record: Mutex::new(record), file: Mutex::new(file) });
        drop(kept.write());
        let changed = if writes {
            // One is enough: who writes writes what is known by then.
            let (changed, changes) = sync_channel(1);
            let kept = Arc::clone(&kept);
            let thread = thread::Builder::new().name("status".into()).spawn(move || kept.keep(&changes));
            // It ends with the recorder, and after `end` it touches nothing.
            drop(thread.map_err(|e| Error::environment("THREAD", e))?);
            Some(changed)
        } else {
            None
        };
        Ok(Arc::new(Self { kept, changed }))
    }

    /// Takes notices as they come.
    pub fn show(self: &Arc<Self>) -> Show {
        let recorder = Arc::clone(self);
        Arc::new(move |notice| {
            let taken = recorder.kept.record().take(notice, now());
            if let (true, Some(changed)) = (taken, &recorder.changed) {
                let _ = changed.try_send(());
            }
        })
    }

    /// Takes in how the launch ended, and has written it down when it returns.
    pub fn end(&self, ended: &Result<(), Error>) {
        self.kept.record().end(ended, now());
        self.kept.write().take();
    }

    /// The record now.
    pub fn record(&self) -> Record {
        self.kept.record().clone()
    }
}

impl Kept {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes after changes until nobody makes any more.
    fn keep(&self, changes: &Receiver<()>) {
        while changes.recv().is_ok() {
            drop(self.write());
            thread::sleep(PAUSE);
        }
    }

    /// A node does its work also where nobody can be told about it. Gives what keeps others from writing.
    fn write(&self) -> MutexGuard<'_, Option<PathBuf>> {
        let held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &*held else { return held };
        let text = serde_json::to_vec(&*self.record());
        let written = text.map_err(std::io::Error::from).and_then(|text| write(file, &text, 0o600, true));
        if let Err(error) = written {
            tracing::warn!(%error, file = %file.display(), "cannot write down how the node stands");
        }
        held
    }
}

/// The time of this machine.
pub fn now() -> UnixTime {
    UnixTime(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::time::Instant;

    use blf_evidence::telemetry::Code;

    use super::*;

    fn guest(event: Event) -> Notice {
        Notice::Guest { node: "a".into(), event }
    }

    #[test]
    fn a_life_is_folded_into_one_standing_after_another() {
        let mut record = Record::begin("a", None, UnixTime(1));
        let at = |record: &Record, runs, now| record.standing(runs, UnixTime(now));
        assert_eq!((at(&record, true, 1), at(&record, false, 1)), (Standing::Starting, Standing::Stopped));
        let appraised =
            Notice::Appraised { node: "a".into(), address: Address([1; 20]), tier: 0, measurement: "m".into() };
        for notice in [appraised, Notice::TunnelOpen { node: "a".into() }] {
            assert!(record.take(&notice, UnixTime(2)));
        }
        assert_eq!(at(&record, true, 2), Standing::Uncertified);
        record.take(&guest(Event::Certified { tier: 0, not_after: UnixTime(100) }), UnixTime(3));
        assert_eq!((at(&record, true, 99), at(&record, true, 100)), (Standing::Ready, Standing::Uncertified));
        // Cut off: neither trouble nor jobs are a word of the coordinator.
        let trouble = |record: &mut Record, now| {
            record.take(&guest(Event::Trouble { code: Code::new("TUNNEL_UNREACHABLE").unwrap(), retry_in: 25 }), now);
        };
        let mut long = record.clone();
        long.take(&guest(Event::Certified { tier: 0, not_after: UnixTime(9999) }), UnixTime(10));
        trouble(&mut long, UnixTime(300));
        assert_eq!((at(&long, true, 310), at(&long, true, 311)), (Standing::Ready, Standing::Silent));
        long.take(&guest(Event::Heartbeat { jobs: 0 }), UnixTime(320));
        trouble(&mut long, UnixTime(620));
        assert_eq!((at(&long, true, 620), at(&long, true, 621)), (Standing::Ready, Standing::Silent));
        assert_eq!((at(&long, false, 621), Standing::Silent.exit()), (Standing::Stopped, Some(Exit::NoVerdict)));
        // This machine's clock was set back.
        assert_eq!(at(&long, true, 1), Standing::Ready);

        let job = Hex([7; 32]);
        record.take(&guest(Event::Assigned { job, role: blf_evidence::job::Role::Leader }), UnixTime(4));
        record.take(&guest(Event::JobFailed { job, code: Code::new("LATE").unwrap() }), UnixTime(5));
        assert_eq!(record.jobs, Jobs { running: 0, assigned: 1, accepted: 0, failed: 1 });
        assert_eq!(record.updated_at, UnixTime(5));
        assert!(!record.take(&guest(Event::EvidenceGiven {}), UnixTime(6)));

        record.end(&Ok(()), UnixTime(7));
        assert_eq!(at(&record, false, 7), Standing::Stopped);
        record.end(&Err(Error::rejected("NONCE_MISMATCH", "x")), UnixTime(8));
        assert_eq!(at(&record, false, 8).exit(), Some(Exit::Rejected));

        let next = Record::begin("a", Some(record), UnixTime(9));
        assert_eq!((next.address, next.earlier.as_slice()), (None, &[Address([1; 20])][..]));
    }

    #[test]
    fn a_flood_of_events_is_written_seldom_and_the_end_at_once() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("status.json");
        let read = || serde_json::from_slice::<Record>(&fs::read(&file).unwrap()).unwrap();
        let recorder = Recorder::new(Record::begin("a", None, UnixTime(1)), Some(file.clone())).unwrap();
        assert_eq!(read().phase, Phase::Starting);
        let show = recorder.show();
        let inode = || fs::metadata(&file).unwrap().ino();
        let first = inode();
        show(&guest(Event::Heartbeat { jobs: 0 }));
        let until = Instant::now() + Duration::from_secs(60);
        while inode() == first {
            assert!(Instant::now() < until, "not written");
            thread::sleep(Duration::from_millis(5));
        }
        let (mut written, mut last, begun) = (0, inode(), Instant::now());
        for jobs in 0..200 {
            show(&guest(Event::Heartbeat { jobs }));
            thread::sleep(Duration::from_millis(5));
            let now = inode();
            written += u64::from(now != last);
            last = now;
        }
        assert!(written <= 1 + begun.elapsed().as_secs(), "{written}");
        show(&Notice::TunnelOpen { node: "a".into() });
        recorder.end(&Ok(()));
        let end = read();
        assert_eq!((end.phase, end.jobs.running), (Phase::Stopped, 199));
        // Nobody writes any more, and nothing half-written is left.
        fs::remove_file(&file).unwrap();
        show(&guest(Event::Heartbeat { jobs: 1 }));
        thread::sleep(PAUSE + Duration::from_millis(500));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn addresses_of_earlier_boots_are_bounded() {
        let mut record = Record::begin("a", None, UnixTime(1));
        for boot in 0..100 {
            record.address = Some(Address([boot; 20]));
            record = Record::begin("a", Some(record), UnixTime(1));
        }
        assert_eq!((record.earlier.len(), record.earlier[0]), (EARLIER, Address([99; 20])));
    }
}
