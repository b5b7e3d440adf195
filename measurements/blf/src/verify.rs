//! `blf verify`: a file of evidence, appraised offline, every check shown in order.

use blf_appraisal::check::{AppraisalError, Check};
use blf_appraisal::policy::Expectations;
use blf_appraisal::result::AttestationResult;
use blf_evidence::bundle::{EVIDENCE_CAP, Evidence};
use blf_evidence::statement::Purpose;
use blf_evidence::{Hex, UnixTime};
use serde::Serialize;

use crate::cli::VerifyArgs;
use crate::failure::{Exit, Failure, read_file};
use crate::nodes::{Known, refused};
use crate::terminal::Terminal;

/// The verdict on evidence that is genuine and wanted.
#[derive(Serialize)]
pub struct Report {
    /// `blf.verify/v1`.
    pub schema: &'static str,
    /// What that tier means.
    pub meaning: &'static str,
    /// The attestation result, every check included.
    pub result: AttestationResult,
}

/// Appraises and shows each check.
///
/// # Errors
/// [`Exit::Rejected`], [`Exit::NoVerdict`], [`Exit::Config`] for files, [`Exit::Usage`] for arguments.
pub fn run(args: &VerifyArgs, terminal: &Terminal) -> Result<Report, Failure> {
    let nonce: Hex<32> = args.nonce.parse().map_err(|e| Failure::new(Exit::Usage, "NONCE", format!("--nonce: {e}")))?;
    let purpose = match args.purpose.as_str() {
        "admission" => Purpose::Admission,
        "ionet" => Purpose::Ionet,
        "session" => Purpose::Session,
        _ => Purpose::Preview,
    };
    let known = Known::read(args.network.as_deref(), args.policy.as_deref())?;
    let bytes = read_file(&args.evidence, EVIDENCE_CAP as u64)?;
    let evidence = Evidence::parse(&bytes).map_err(|e| Failure::new(Exit::Rejected, "EVIDENCE_MALFORMED", e))?;
    let expected = Expectations { audience: args.audience.clone(), nonce, purpose };
    let now = args.at.map_or_else(crate::icl::now, UnixTime);
    match known.reference.appraise(&evidence, &expected, now) {
        Ok(result) => {
            show(&result.checks, terminal);
            Ok(Report { schema: "blf.verify/v1", meaning: result.meaning(), result })
        }
        Err(error) => {
            if let AppraisalError::Rejected(rejected) = &error {
                show(&rejected.passed, terminal);
                show(std::slice::from_ref(&rejected.failed), terminal);
            }
            Err(refused(&error, &args.evidence.display().to_string()))
        }
    }
}

fn show(checks: &[Check], terminal: &Terminal) {
    for check in checks {
        if check.ok {
            terminal.check(true, format!("{}: {}", check.id, check.got));
        } else {
            terminal.check(false, format!("{}: wanted {}, got {}", check.id, check.expected, check.got));
        }
    }
}
