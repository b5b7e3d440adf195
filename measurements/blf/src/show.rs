//! `blf show`: a file field by field, in the standards' names. Vouches for nothing.

use std::fmt::Write as _;

use blf_appraisal::policy::Policy;
use blf_appraisal::release::{RELEASE_CAP, Release};
use blf_evidence::bundle::{Evidence, Platform};
use blf_evidence::eventlog::EventLog;
use blf_evidence::statement::{Binding, Statement};
use blf_evidence::tpm::{Public, Quote};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::ShowArgs;
use crate::failure::{Exit, Failure, read_file};

/// What a file holds.
#[derive(Serialize)]
pub struct Report {
    /// `blf.show/v1`.
    pub schema: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// Its fields.
    pub fields: Value,
    /// What showing it does not tell.
    pub vouches_for: &'static str,
}

/// Parses the file as evidence, then as a release manifest.
///
/// # Errors
/// [`Exit::Failed`] if it is neither.
pub fn run(args: &ShowArgs) -> Result<Report, Failure> {
    let Some(file) = args.file.as_ref().filter(|_| !args.policy) else {
        let policy = Policy::parse(Policy::DEVNET.as_bytes()).map_err(|e| Failure::new(Exit::Failed, "POLICY", e))?;
        return report("policy", &policy, "a policy is a wish, not a fact");
    };
    let bytes = read_file(file, RELEASE_CAP as u64)?;
    let as_evidence = Evidence::parse(&bytes);
    if let Ok(evidence) = &as_evidence {
        return report("evidence", &fields(evidence)?, "nothing: no signature was checked; use blf verify");
    }
    match (Release::parse(&bytes), as_evidence) {
        (Ok(release), _) => report("release manifest", &release, "nothing: rebuild the image and compare"),
        (Err(release), Err(evidence)) => {
            let message =
                format!("{}: neither evidence ({evidence}) nor a release manifest ({release})", file.display());
            Err(Failure::new(Exit::Failed, "UNKNOWN_FILE", message))
        }
        (Err(_), Ok(_)) => Err(Failure::new(Exit::Failed, "UNKNOWN_FILE", file.display())),
    }
}

impl Report {
    /// The fields as indented lines.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.kind);
        lines(&mut text, &self.fields, 1);
        let _ = write!(text, "vouches for {}", self.vouches_for);
        text
    }
}

fn report(kind: &'static str, fields: &impl Serialize, vouches_for: &'static str) -> Result<Report, Failure> {
    let fields = serde_json::to_value(fields).map_err(|e| Failure::new(Exit::Failed, "SHOW", e))?;
    Ok(Report { schema: "blf.show/v1", kind, fields, vouches_for })
}

fn fields(evidence: &Evidence) -> Result<Value, Failure> {
    let bad = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, "EVIDENCE_MALFORMED", e);
    let binding = Binding::parse(evidence.binding.as_bytes()).map_err(|e| bad(&e))?;
    let statement = Statement::new(binding.keys.node, evidence.binding.as_bytes());
    let platform = match &evidence.platform {
        Platform::Tpm(tpm) => {
            let quote = Quote::parse(&tpm.quote.0).map_err(|e| bad(&e))?;
            let ak = Public::parse(&tpm.ak_public.0).map_err(|e| bad(&e))?;
            let log = tpm.event_log.as_ref().map(|log| EventLog::parse(&log.0)).transpose().map_err(|e| bad(&e))?;
            json!({
                "TPMS_ATTEST": format!("{quote:?}"),
                "AK Name": hex::encode(ak.name()),
                "AK certificate": tpm.ak_certificate.as_ref().map(|c| format!("{} bytes", c.0.len())),
                "PCR": tpm.pcrs.iter().enumerate().map(|(i, p)| (i.to_string(), json!(p))).collect::<serde_json::Map<_, _>>(),
                "event log": log.map(|log| format!("{} events", log.events.len())),
            })
        }
        Platform::Azure(azure) => json!({ "HCL report": format!("{} bytes", azure.hcl_report.0.len()) }),
        Platform::Snp(snp) => json!({ "ATTESTATION_REPORT": format!("{} bytes", snp.report.0.len()) }),
        Platform::Tdx(tdx) => json!({ "TD quote": format!("{} bytes", tdx.quote.0.len()) }),
    };
    Ok(json!({ "statement": statement.0, "binding": binding, "config": evidence.config, "platform": platform }))
}

fn lines(text: &mut String, value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => return,
    };
    for (name, value) in entries {
        match value {
            Value::Object(members) if !members.is_empty() => {
                let _ = writeln!(text, "{pad}{name}");
                lines(text, value, depth + 1);
            }
            Value::Array(items) if !items.is_empty() => {
                let _ = writeln!(text, "{pad}{name}");
                lines(text, value, depth + 1);
            }
            Value::String(string) => {
                // Text from a hostile file must not steer the terminal.
                let _ = writeln!(text, "{pad}{name}: {}", string.escape_debug());
            }
            other => {
                let _ = writeln!(text, "{pad}{name}: {other}");
            }
        }
    }
}
