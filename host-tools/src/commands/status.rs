//! `blf-host status`: how a node stands, from what its process wrote down.

use blf_evidence::UnixTime;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::error::{Error, Exit};
use crate::node::Node;
use crate::notice::print;
use crate::record::{Record, Standing, now};

/// Prints how the node stands; the exit code says whether all is well.
pub(super) fn status(name: &str, json: bool) -> Result<(), Error> {
    let node = Node::named(name);
    if !node.config().is_file() {
        return Err(node.not_initialised());
    }
    // Checked here too: what would keep the node from running is a part of how it stands.
    let layers = node.layers(&crate::settings::Flags::default(), None)?;
    layers.settings()?;
    let record = Record::read(&node)?;
    let standing = record.as_ref().map_or(Standing::NeverRun, |record| record.standing(node.runs(), now()));
    if json {
        print(json!({
            "schema": "blf.status/v1", "name": name, "standing": standing, "config": node.config(), "record": record,
        }));
    } else {
        print(format_args!("{:<15} {name}: {standing}", "Node"));
        match &record {
            Some(record) => show(record),
            None => print(format_args!("{:<15} {}", "Configuration", node.config().display())),
        }
    }
    match unwell(name, standing, record.as_ref()) {
        None => Ok(()),
        // In text it is an error of its own, with what to do next.
        Some(error) if json => Err(error.said()),
        Some(error) => Err(error),
    }
}

/// The error that a standing amounts to, and what to do about it.
pub(super) fn unwell(name: &str, standing: Standing, record: Option<&Record>) -> Option<Error> {
    let exit = standing.exit()?;
    let (code, hint) = match standing {
        Standing::Ready => return None,
        Standing::Starting => ("STARTING", "wait; a boot takes seconds under KVM and about a minute without".into()),
        Standing::Silent | Standing::Uncertified => {
            let expired = record.and_then(|record| record.certificate).is_some();
            let trouble = record.and_then(|record| record.trouble.as_ref());
            let code = match standing {
                Standing::Silent => "HEARTBEAT_LATE",
                _ if expired => "CERTIFICATE_EXPIRED",
                _ => "NOT_CERTIFIED",
            };
            let hint = match trouble {
                Some(trouble) => format!(
                    "the guest tries again by itself; last trouble: {}; can this machine reach the ICL? (docs/operating.md)",
                    trouble.code
                ),
                None => "the guest tries by itself; can this machine reach the ICL?".into(),
            };
            (code, hint)
        }
        Standing::Refused => ("EVIDENCE_REFUSED", format!("blf-host attest --name {name} shows each check")),
        Standing::Stopping => ("STOPPING", "wait until its jobs have ended".into()),
        Standing::Stopped | Standing::NeverRun => ("NOT_RUNNING", format!("blf-host run --name {name}")),
        Standing::Failed => {
            let hint = record.and_then(|record| record.failure.as_ref()?.hint.clone());
            ("NODE_FAILED", hint.unwrap_or_else(|| format!("blf-host run --name {name} --log stderr shows more")))
        }
    };
    let why = record.and_then(|record| record.failure.as_ref()).filter(|_| exit != Exit::NoVerdict);
    let message = match why {
        Some(why) if matches!(standing, Standing::Failed | Standing::Refused) => {
            format!("node {name}: {standing}: {} ({})", why.message, why.code)
        }
        _ => format!("node {name}: {standing}"),
    };
    Some(Error::new(exit, code, message).hint(hint))
}

/// Prints what is known.
pub(super) fn show(record: &Record) {
    let row = |name: &str, value: String| print(format_args!("{name:<15} {value}"));
    row("Since", format!("{}, process {}", when(record.started_at), record.pid));
    row("Address", record.address.map_or_else(|| "none yet".into(), |address| address.to_string()));
    let protects = record.isolation.as_deref().unwrap_or_default();
    row("Tier", record.tier.map_or_else(|| "not known yet".into(), |tier| format!("{tier}  {protects}")));
    let models: Vec<_> = record.models.iter().map(|m| format!("{} {}", m.id, m.manifest_sha256)).collect();
    row("Models", if models.is_empty() { "none".into() } else { models.join(", ") });
    row("Attestation", attestation(record));
    row("Certificate", certificate(record));
    let profile = record.profile.as_deref().unwrap_or("?");
    row("ICL endpoint", format!("{}  (profile {profile})", record.icl.as_deref().unwrap_or("not known yet")));
    row("Heartbeat", record.heartbeat_at.map_or_else(|| "none yet".into(), |at| format!("{} ago", span(now(), at))));
    let jobs = record.jobs;
    row(
        "Jobs",
        format!(
            "{} running, {} assigned, {} accepted, {} failed",
            jobs.running, jobs.assigned, jobs.accepted, jobs.failed
        ),
    );
    if let Some(trouble) = &record.trouble {
        row("Last trouble", format!("{} {} ago", trouble.code, span(now(), trouble.at)));
    }
}

/// The host's own verdict on the evidence, in one clause.
pub(super) fn attestation(record: &Record) -> String {
    match (&record.measurement, record.findings.iter().find(|finding| !finding.ok)) {
        (_, Some(failed)) => format!("refused at {}: wanted {}, got {}", failed.id, failed.expected, failed.got),
        (Some(measurement), None) => format!("accepted after {} checks: {measurement}", record.findings.len()),
        (None, None) => "no evidence yet".into(),
    }
}

/// What the coordinator certified, in one clause.
pub(super) fn certificate(record: &Record) -> String {
    match record.certificate {
        None => "none: not admitted by the ICL".into(),
        Some(certificate) if certificate.not_after <= now() => format!("expired {}", when(certificate.not_after)),
        Some(certificate) => format!(
            "tier {} until {}, {} left",
            certificate.tier,
            when(certificate.not_after),
            span(certificate.not_after, now())
        ),
    }
}

/// A time as people of this machine read it.
fn when(time: UnixTime) -> String {
    let stamp = i64::try_from(time.0).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    stamp.map_or_else(
        || "?".into(),
        |stamp| stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
    )
}

/// How long from `earlier` to `later`, roughly.
fn span(later: UnixTime, earlier: UnixTime) -> String {
    match later.0.saturating_sub(earlier.0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standing_that_is_not_well_says_what_to_do() {
        let record = Record::begin("a", None, UnixTime(1));
        for (standing, exit) in [
            (Standing::Starting, Exit::NoVerdict),
            (Standing::Silent, Exit::NoVerdict),
            (Standing::Uncertified, Exit::NoVerdict),
            (Standing::Refused, Exit::Rejected),
            (Standing::Stopping, Exit::Failed),
            (Standing::Stopped, Exit::Failed),
            (Standing::Failed, Exit::Failed),
            (Standing::NeverRun, Exit::Failed),
        ] {
            let error = unwell("a", standing, Some(&record)).unwrap();
            assert_eq!(error.exit, exit, "{standing}");
            assert!(error.hint.is_some_and(|hint| !hint.is_empty()), "{standing}");
        }
        assert_eq!(unwell("a", Standing::Ready, Some(&record)), None);
    }

    #[test]
    fn spans_are_short() {
        let of = |seconds| span(UnixTime(seconds), UnixTime(0));
        assert_eq!([of(90), of(600), of(86_399)], ["90 s", "10 min", "23 h 59 min"]);
        assert_eq!(span(UnixTime(1), UnixTime(5)), "0 s");
    }
}
