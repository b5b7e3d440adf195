//! What guests say, written down: to journald with fields, or to stderr.

use blf_evidence::telemetry::Event;
use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::error::Error;

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
    /// Nowhere.
    None,
}

/// Starts logging for this process. Journal fields begin with `BLF_`.
///
/// # Errors
/// An environment error where the journal was asked for and is not there.
pub fn start(log: Log) -> Result<(), Error> {
    let journald = || tracing_journald::layer().map(|layer| layer.with_field_prefix(Some("BLF".into())));
    let layer = match log {
        Log::None => return Ok(()),
        Log::Stderr => {
            let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
            tracing_subscriber::registry().with(layer).init();
            return Ok(());
        }
        Log::Auto => match journald() {
            Ok(layer) => layer,
            Err(_) => return Ok(()),
        },
        Log::Journald => {
            journald().map_err(|e| Error::environment("JOURNAL", format!("journald: {e}")).hint("use --log stderr"))?
        }
    };
    tracing_subscriber::registry().with(layer).init();
    Ok(())
}

/// Writes one guest event.
pub fn guest(node: &str, event: &Event) {
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
