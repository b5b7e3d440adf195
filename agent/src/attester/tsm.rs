//! SEV-SNP and TDX through the kernel's configfs-tsm (Linux, Documentation/ABI/testing/configfs-tsm-report).
//!
//! The host answers these requests and may be slow, silent or hostile: every wait has a deadline, every blob a cap, and
//! what comes back must carry our statement before anyone sees it. Whether it is genuine is the verifier's question.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use blf_evidence::bundle::{Platform, SnpEvidence, TdxEvidence};
use blf_evidence::statement::Statement;
use blf_evidence::{Base64, Hex};

use report::{MEASUREMENT_BYTES, Report};
use request::Request;

mod report;
mod request;

/// How often one report is asked for while the reason to drop it may pass.
const ATTEMPTS: u32 = 5;
/// Pause before the second attempt; it doubles before each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// The TSM of this guest.
pub struct Tsm {
    reports: PathBuf,
    provider: Provider,
    deadline: Duration,
    helper: Helper,
    measurement: Option<[u8; MEASUREMENT_BYTES]>,
}

/// Who writes the reports (attribute `provider`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Provider {
    /// `sev_guest`: AMD SEV-SNP.
    Snp,
    /// `tdx_guest`: Intel TDX.
    Tdx,
}

/// Why the TSM gave no evidence.
#[derive(Debug, thiserror::Error)]
pub enum TsmFailure {
    /// An attribute, or the request's directory itself, could not be made, read, written or removed.
    #[error("configfs-tsm {attribute}: {error}")]
    Attribute {
        /// The attribute, or `mkdir`, `rmdir`.
        attribute: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// Nothing came in time. The request goes on in the kernel.
    #[error("configfs-tsm: wanted a report within {} s, got none", deadline.as_secs_f32())]
    Deadline {
        /// How long was waited.
        deadline: Duration,
    },
    /// Every attempt was dropped; the last reason is given.
    #[error("configfs-tsm: wanted a report, got none in {attempts} attempts: {last}")]
    GaveUp {
        /// How often a report was asked for.
        attempts: u32,
        /// Why the last one was dropped.
        last: Box<Self>,
    },
    /// Somebody else wrote to our request.
    #[error("configfs-tsm generation: wanted {wanted} after {after}, got {got}")]
    Generation {
        /// Our last access.
        after: &'static str,
        /// What a request of one writer must show.
        wanted: u64,
        /// What it showed.
        got: u64,
    },
    /// The helper thread could not be started or ended without an answer.
    #[error("configfs-tsm helper: {0}")]
    Helper(io::Error),
    /// A report or quote is not what it must be.
    #[error("{field}: wanted {wanted}, got {got}")]
    Layout {
        /// The field, as its specification spells it.
        field: &'static str,
        /// What is accepted.
        wanted: u64,
        /// What was there.
        got: u64,
    },
    /// No driver offers reports any more.
    #[error("configfs-tsm: wanted a provider, got none (ENXIO)")]
    NoProvider,
    /// An earlier request still goes on in the kernel.
    #[error("configfs-tsm: wanted the earlier request to end before the next, got no answer to it yet")]
    Overdue,
    /// The report answers another statement.
    #[error("REPORT_DATA: wanted our statement, got other bytes")]
    ReportData,
    /// A blob or text is larger than this implementation, or the kernel (EFBIG), takes.
    #[error("configfs-tsm {attribute}: wanted at most {wanted} bytes, got more")]
    TooLong {
        /// The attribute.
        attribute: &'static str,
        /// The cap in bytes.
        wanted: usize,
    },
    /// A text attribute has another form than the ABI says.
    #[error("configfs-tsm {attribute}: wanted {wanted}, got {got:?}")]
    Text {
        /// The attribute.
        attribute: &'static str,
        /// What is accepted.
        wanted: &'static str,
        /// At most 64 characters of what came.
        got: String,
    },
}

impl Tsm {
    /// Asks who the provider is, or gives `None` when `reports` is not there or no provider is registered.
    ///
    /// # Errors
    /// [`TsmFailure`]; [`TsmFailure::Text`] for a provider that this implementation does not know.
    pub fn open(reports: &Path, deadline: Duration) -> Result<Option<Self>, TsmFailure> {
        let mut helper = Helper::default();
        let at = reports.to_path_buf();
        let provider = match helper.run(deadline, move || Request::with(&at, Request::provider))? {
            Err(TsmFailure::NoProvider) => None,
            Err(TsmFailure::Attribute { attribute: "mkdir", error }) if error.kind() == io::ErrorKind::NotFound => None,
            known => Some(known?),
        };
        let reports = reports.to_path_buf();
        Ok(provider.map(|provider| Self { reports, provider, deadline, helper, measurement: None }))
    }

    /// Who writes the reports.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// A report or quote whose REPORT_DATA is the statement.
    ///
    /// # Errors
    /// [`TsmFailure`].
    pub fn attest(&mut self, statement: &Statement) -> Result<Platform, TsmFailure> {
        let report = self.report(statement.0.0)?;
        Ok(match self.provider {
            Provider::Snp => Platform::Snp(SnpEvidence {
                report: Base64(report.bytes),
                certificates: report.certificates.map(Base64),
            }),
            Provider::Tdx => Platform::Tdx(TdxEvidence { quote: Base64(report.bytes), event_log: None }),
        })
    }

    /// `snp:` and the hex of the launch digest, or `tdx:` and that of [`blf_evidence::tdx::measurement`]. They stay the same
    /// while the guest lives, so that a report is asked for at most once. That one speaks for an all-zero statement, which no
    /// binding can have.
    ///
    /// # Errors
    /// [`TsmFailure`].
    pub fn measurement_id(&mut self) -> Result<String, TsmFailure> {
        let measurement = match self.measurement {
            Some(measurement) => measurement,
            None => self.report([0; 64])?.measurement,
        };
        Ok(format!("{}:{}", self.provider.platform(), Hex(measurement)))
    }

    fn report(&mut self, statement: [u8; 64]) -> Result<Report, TsmFailure> {
        let (reports, provider) = (self.reports.clone(), self.provider);
        let until = Instant::now() + self.deadline;
        let report = self.helper.run(self.deadline, move || repeat(&reports, provider, &statement, until))??;
        self.measurement = Some(report.measurement);
        Ok(report)
    }
}

impl Provider {
    /// `snp` or `tdx`.
    pub fn platform(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        }
    }
}

impl fmt::Display for Provider {
    /// As the attribute `provider` spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snp => "sev_guest",
            Self::Tdx => "tdx_guest",
        })
    }
}

impl TsmFailure {
    /// The next attempt may succeed: another writer, or a device or host that was busy.
    fn may_pass(&self) -> bool {
        use rustix::io::Errno;
        match self {
            Self::Generation { .. } => true,
            Self::Attribute { error, .. } => [Errno::AGAIN, Errno::BUSY, Errno::INTR, Errno::TIMEDOUT]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())),
            _ => false,
        }
    }
}

/// Asks in a fresh directory each time, until a report stands or its time is over.
fn repeat(reports: &Path, provider: Provider, statement: &[u8; 64], until: Instant) -> Result<Report, TsmFailure> {
    let mut pause = PAUSE;
    let mut attempts = 1;
    loop {
        match Request::with(reports, |request| request.report(provider, statement)) {
            Err(last) if last.may_pass() => {
                if attempts == ATTEMPTS || Instant::now() + pause >= until {
                    return Err(TsmFailure::GaveUp { attempts, last: Box::new(last) });
                }
            }
            result => return result,
        }
        thread::sleep(pause);
        pause *= 2;
        attempts += 1;
    }
}

/// Runs what may block for ever on a thread of its own, at most one at a time.
///
/// A read of `outblob` cannot be interrupted from here, nor can its directory be removed meanwhile: rmdir would wait for the
/// same lock. So the thread keeps both, cleans up when the kernel lets it go, and until then further requests are refused.
#[derive(Default)]
struct Helper {
    overdue: Option<JoinHandle<()>>,
}

impl Helper {
    fn run<T: Send + 'static>(
        &mut self,
        deadline: Duration,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TsmFailure> {
        if self.overdue.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Err(TsmFailure::Overdue);
        }
        self.overdue = None;
        let (sender, receiver) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("tsm".into())
            .spawn(move || {
                // Nobody listens any more when the deadline has passed; the late result is dropped.
                let _ = sender.send(task());
            })
            .map_err(TsmFailure::Helper)?;
        match receiver.recv_timeout(deadline) {
            Ok(value) => Ok(value),
            Err(RecvTimeoutError::Timeout) => {
                self.overdue = Some(thread);
                Err(TsmFailure::Deadline { deadline })
            }
            Err(RecvTimeoutError::Disconnected) => Err(TsmFailure::Helper(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}
