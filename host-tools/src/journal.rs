//! What a launch says, written down: to journald with fields, to stderr, or as the existing network's node writes.

use std::fmt;
use std::sync::Arc;

use blf_evidence::telemetry::Event;
use clap::ValueEnum;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{self as lines, FmtContext};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::error::Error;
use crate::network_log::{self, NetworkLog};
use crate::notice::{Notice, Show};

/// Where the log goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Log {
    /// To the journal where there is one, else nowhere: stdout shows the same.
    #[default]
    Auto,
    /// To the journal, fields and all.
    Journald,
    /// To stderr.
    Stderr,
    /// To stderr, in the lines of the existing network's node.
    Network,
    /// Nowhere.
    None,
}

/// The least level that is written down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, ValueEnum)]
pub enum Level {
    /// Everything.
    Debug,
    /// What goes its usual way.
    #[default]
    Info,
    /// What goes wrong and is tried again.
    Warning,
    /// What failed.
    Error,
}

/// Starts logging for this process. Journal fields begin with `BLF_`. What a launch says is taken by the result.
///
/// # Errors
/// An environment error where the journal was asked for and is not there.
pub fn start(log: Log, level: Level) -> Result<Show, Error> {
    let nowhere: Show = Arc::new(|_| {});
    let journald = || tracing_journald::layer().map(|layer| layer.with_field_prefix(Some("BLF".into())));
    let filter = match level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warning => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    };
    let registry = tracing_subscriber::registry().with(filter);
    // Another subscriber is there only in tests that start two.
    drop(match log {
        Log::None => return Ok(nowhere),
        Log::Stderr => registry.with(lines::layer().with_writer(std::io::stderr).with_ansi(false)).try_init(),
        Log::Network => {
            let host = lines::layer().with_writer(std::io::stderr).event_format(HostLines);
            drop(registry.with(host).try_init());
            return Ok(NetworkLog::stderr(level).show());
        }
        Log::Auto => match journald() {
            Ok(layer) => registry.with(layer).try_init(),
            Err(_) => return Ok(nowhere),
        },
        Log::Journald => {
            let layer = journald()
                .map_err(|e| Error::environment("JOURNAL", format!("journald: {e}")).hint("use --log stderr"))?;
            registry.with(layer).try_init()
        }
    });
    Ok(Arc::new(notice))
}

/// Writes down what a launch says.
fn notice(notice: &Notice) {
    match notice {
        Notice::Image { sha256, profile, locked, .. } => tracing::info!(%sha256, profile, locked, "image"),
        Notice::Network { profile, icl } => tracing::info!(profile, icl = icl.name, "network"),
        Notice::Model { id, manifest_sha256, .. } => tracing::info!(model = id, %manifest_sha256, "model"),
        Notice::Isolation { sentence, tier, .. } => tracing::info!(tier, "{sentence}"),
        Notice::Devnet { address, .. } => tracing::info!(%address, "devnet"),
        Notice::DevnetEvent { event } => tracing::debug!("devnet: {}", event.kind),
        Notice::Started { node, .. } => tracing::info!(node, "VM started"),
        Notice::Check { node, finding } if finding.ok => tracing::debug!(node, check = finding.id, "check"),
        Notice::Check { node, finding } => {
            tracing::error!(node, check = finding.id, wanted = finding.expected, got = finding.got, "evidence refused")
        }
        Notice::Appraised { node, address, tier, measurement } => {
            tracing::info!(node, %address, tier, measurement, "evidence accepted");
        }
        Notice::TunnelOpen { node } => tracing::info!(node, "tunnel open"),
        Notice::Api { node, address } => tracing::info!(node, %address, "attested API"),
        Notice::Stopping { node } => tracing::info!(node, "asked to drain and stop"),
        Notice::Stopped { node, orderly, .. } => tracing::info!(node, orderly, "VM ended"),
        Notice::Guest { node, event } => guest(node, event),
    }
}

fn guest(node: &str, event: &Event) {
    match event {
        Event::BootStage { number, of, stage, millis } => {
            tracing::info!(node, event = "boot_stage", number, of, %stage, millis, "boot stage");
        }
        Event::BootFailed { stage, code } => tracing::error!(node, event = "boot_failed", %stage, %code, "boot failed"),
        Event::Booted { node: address, millis, memory_total_kib, memory_available_kib } => {
            tracing::info!(node, event = "booted", %address, millis, memory_total_kib, memory_available_kib, "booted");
        }
        Event::Certified { tier, not_after } => {
            tracing::info!(node, event = "certified", tier, %not_after, "certified");
        }
        Event::Renewed { tier, not_after } => {
            tracing::info!(node, event = "renewed", tier, %not_after, "certificate renewed");
        }
        Event::Assignments { count } => tracing::info!(node, event = "assignments", count, "assignments received"),
        Event::NoAssignments { seconds } => {
            tracing::info!(node, event = "no_assignments", seconds, "no assignments");
        }
        Event::Heartbeat { jobs } => tracing::info!(node, event = "heartbeat", jobs, "heartbeat"),
        Event::Assigned { job, role } => tracing::info!(node, event = "assigned", %job, ?role, "job assigned"),
        Event::Job { job, state, millis } => tracing::info!(node, event = "job", %job, ?state, millis, "job state"),
        Event::JobFailed { job, code } => tracing::warn!(node, event = "job_failed", %job, %code, "job failed"),
        Event::EvidenceGiven {} => tracing::info!(node, event = "evidence_given", "evidence given to a user"),
        Event::Trouble { code, retry_in } => tracing::warn!(node, event = "trouble", %code, retry_in, "trouble"),
        Event::Stopping { jobs } => tracing::info!(node, event = "stopping", jobs, "stopping"),
        Event::Stopped {} => tracing::info!(node, event = "stopped", "stopped"),
    }
}

/// The host's own words among the network's lines.
struct HostLines;

impl<S, N> FormatEvent<S, N> for HostLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::INFO => Level::Info,
            _ => Level::Debug,
        };
        let mut words = Words(String::new());
        event.record(&mut words);
        writeln!(writer, "{}", network_log::line(level, "blf-host", words.0.trim_start()))
    }
}

/// The message and its fields in one line.
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&match field.name() {
            "message" => format!(" {value:?}"),
            name => format!(" {name}={value:?}"),
        });
    }
}
