//! `blf show`: a file field by field, in the standards' names. Vouches for nothing.
//!
//! What a file is is told by how it begins, or by `--kind`. Each kind has one parser, the same by which evidence is
//! appraised where it is part of evidence.

use blf_appraisal::references::REFERENCES_CAP;
use serde::Serialize;

use crate::cli::ShowArgs;
use crate::failure::{Exit, Failure, read_file};
use crate::nodes::POLICIES;

mod azure;
mod collateral;
mod documents;
mod eventlog;
mod fields;
mod snp;
mod tdx;
mod tpm;
mod x509;

use Form::{Bytes, Document};
pub use fields::{Fields, Shown};

/// Longest file, in bytes: that of Reference Values.
const SHOW_CAP: u64 = REFERENCES_CAP as u64;

/// What a file holds.
#[derive(Serialize)]
pub struct Report {
    /// `blf.show/v1`.
    pub schema: &'static str,
    /// What it was read as: a name that `--kind` takes.
    pub kind: &'static str,
    /// What that is, and which standard names its fields.
    pub what: &'static str,
    /// Its fields.
    pub fields: Fields,
    /// What showing it cannot tell.
    pub not_vouched_for: &'static str,
}

/// One kind of file.
struct Kind {
    name: &'static str,
    what: &'static str,
    form: Form,
    read: fn(&[u8]) -> Result<Fields, String>,
    not_vouched_for: &'static str,
}

const UNSIGNED: &str = "who made it: no signature was checked (blf verify does, with a nonce of your own)";
const ENDORSED: &str = "whose word it is: no signature, date or revocation was checked";
const WISH: &str = "anything: it is what somebody wants or says, believed by whoever chooses it";

/// How a file of a kind begins.
enum Form {
    /// As JSON, with such a text somewhere.
    Document(&'static [&'static str]),
    /// As such bytes.
    Bytes(fn(&[u8]) -> bool),
}

macro_rules! kinds {
    ($($name:literal, $what:literal, $form:expr, $read:path, $not_vouched_for:expr;)*) => {
        [$(Kind {
            name: $name,
            what: $what,
            form: $form,
            read: |bytes| $read(bytes).map_err(|error| error.to_string()),
            not_vouched_for: $not_vouched_for,
        }),*]
    };
}

const KINDS: [Kind; 20] = kinds! {
    "evidence", "Evidence, blf.evidence/v1", Document(&["blf.evidence/v1"]), documents::evidence, UNSIGNED;
    "endorsements", "Endorsements, blf.endorsements/v1", Document(&["blf.endorsements/v1"]), documents::endorsements,
        ENDORSED;
    "policy", "Appraisal Policy, blf.policy/v1", Document(&["blf.policy/v1"]), documents::policy, WISH;
    "references", "Reference Values, blf.references/v1", Document(&["blf.references/v1"]), documents::references, WISH;
    "release", "release manifest, blf.release/v1", Document(&["blf.release/v1"]), documents::release,
        "the image: build it again and compare (blf measure --check)";
    "network", "network document", Document(&["ak_roots"]), documents::network, WISH;
    "profile", "network profile", Document(&["tls_roots"]), documents::profile, WISH;
    "tcb-info", "TCB info of Intel's Provisioning Certification Service", Document(&["tcbInfo", "fmspc"]),
        collateral::tcb_info, ENDORSED;
    "qe-identity", "enclave identity of Intel's Provisioning Certification Service",
        Document(&["enclaveIdentity", "isvprodid"]), collateral::qe_identity, ENDORSED;
    "snp-report", "ATTESTATION_REPORT (SEV-SNP Firmware ABI Specification, 56860, section 7.3)",
        Bytes(|b| matches!(b, [2..=9, 0, 0, 0, ..]) && b.len() > 64), snp::report, UNSIGNED;
    "certificate-table", "certificate table (GHCB Standardization, 56421, section 4.1.8)", Bytes(snp::begins_a_table),
        snp::certificates, ENDORSED;
    "td-quote", "TD quote (Intel TDX DCAP Quoting Library API, appendix A.3)",
        Bytes(|b| matches!(b, [_, 0, 2 | 3, 0, 0x81, 0, 0, 0, ..])), tdx::quote, UNSIGNED;
    "td-report", "TDREPORT_STRUCT (Intel TDX Module ABI Reference Specification)",
        Bytes(|b| matches!(b, [0x81, 0, 0 | 1, 0, ..])), azure::td_report,
        "who made it: only the processor that made it can check its MAC";
    "hcl-report", "HCL report of Azure's paravisor (NV index 0x01400001)", Bytes(|b| b.starts_with(b"HCLA")),
        azure::hcl_report, UNSIGNED;
    "tpm-quote", "TPMS_ATTEST (TPM 2.0 Library, Part 2, 10.12.12)", Bytes(|b| b.starts_with(b"\xFFTCG")), tpm::quote,
        UNSIGNED;
    "tpm-signature", "TPMT_SIGNATURE (TPM 2.0 Library, Part 2, 11.3.4)",
        Bytes(|b| matches!(b, [0, 0x14 | 0x18, 0, 0x0B | 0x0C, ..])), tpm::signature,
        "anything: it says nothing without the key and what was signed";
    "tpm-public", "TPMT_PUBLIC (TPM 2.0 Library, Part 2, 12.2.4)",
        Bytes(|b| matches!(b, [0, 1 | 0x23, 0, 0x0B | 0x0C, ..] | [_, _, 0, 1 | 0x23, 0, 0x0B | 0x0C, ..])),
        tpm::public, "that the key is in a TPM: anybody can write these bytes";
    "event-log", "event log (TCG PC Client Platform Firmware Profile, section 10; CCEL)",
        Bytes(|b| matches!(b, [0 | 1, 0, 0, 0, 3, 0, 0, 0, ..])), eventlog::log,
        "what was measured: a log is of the boot whose quoted registers its replay gives, and of no other";
    "certificate", "X.509 certificates (RFC 5280)",
        Bytes(|b| x509::is_pem(b, "CERTIFICATE") || matches!(b, [0x30, 0x82, _, _, 0x30, 0x82, _, _, 0xA0 | 2, ..])),
        x509::chain, ENDORSED;
    "crl", "X.509 certificate revocation lists (RFC 5280)",
        Bytes(|b| x509::is_pem(b, "X509 CRL") || matches!(b, [0x30, ..])), x509::crls, ENDORSED;
};

/// The names that `--kind` takes.
pub fn kinds() -> [&'static str; KINDS.len()] {
    KINDS.each_ref().map(|kind| kind.name)
}

/// Shows a file, or the default policy.
///
/// # Errors
/// [`Exit::Config`] if the file cannot be read, [`Exit::Failed`] with everything that was tried if it is nothing known.
pub fn run(args: &ShowArgs) -> Result<Report, Failure> {
    let Some(file) = &args.file else {
        let text = POLICIES.iter().find(|(name, _)| args.policy.as_deref() == Some(*name)).map_or("", |(_, text)| text);
        return report(text.as_bytes(), Some("policy")).map_err(|tried| unknown("policy", text.as_bytes(), &tried));
    };
    let bytes = read_file(file, SHOW_CAP)?;
    report(&bytes, args.kind.as_deref()).map_err(|tried| unknown(&file.display().to_string(), &bytes, &tried))
}

fn unknown(name: &str, bytes: &[u8], tried: &[(&str, String)]) -> Failure {
    let tried: String = tried.iter().map(|(kind, error)| format!("\n  as {kind}: {error}")).collect();
    let message = format!("{name}: {} bytes that are none of what was tried{tried}", bytes.len());
    Failure::new(Exit::Failed, "UNKNOWN_FILE", message).hint("blf show --kind KIND FILE reads it as one kind only")
}

/// The first reading that succeeds, among the kinds that begin like this; among all if there is none.
fn report(bytes: &[u8], wanted: Option<&str>) -> Result<Report, Vec<(&'static str, String)>> {
    if bytes.is_empty() {
        return Err(Vec::new());
    }
    let json = bytes.trim_ascii_start().first() == Some(&b'{');
    let chosen: Vec<&Kind> = match wanted {
        Some(name) => KINDS.iter().filter(|kind| kind.name == name).collect(),
        None => KINDS.iter().filter(|kind| kind.form.fits(bytes, json)).collect(),
    };
    // At least those of its form: of broken JSON it is no news that it is no certificate.
    let of_form = |kind: &&Kind| matches!(kind.form, Document(_)) == json;
    let candidates = if chosen.is_empty() { KINDS.iter().filter(of_form).collect() } else { chosen };
    let mut tried = Vec::new();
    for kind in candidates {
        match shown(kind, bytes) {
            Ok(report) => return Ok(report),
            Err(error) => tried.push((kind.name, error)),
        }
    }
    Err(tried)
}

fn shown(kind: &Kind, bytes: &[u8]) -> Result<Report, String> {
    let Kind { name, what, not_vouched_for, .. } = *kind;
    Ok(Report { schema: "blf.show/v1", kind: name, what, fields: (kind.read)(bytes)?, not_vouched_for })
}

impl Form {
    fn fits(&self, bytes: &[u8], json: bool) -> bool {
        match self {
            Document(texts) => json && texts.iter().any(|text| names(bytes, text)),
            Bytes(begin) => !json && begin(bytes),
        }
    }
}

/// Whether the text stands in quotation marks somewhere in the bytes.
fn names(bytes: &[u8], text: &str) -> bool {
    let quoted = format!("\"{text}\"");
    bytes.windows(quoted.len()).any(|window| window == quoted.as_bytes())
}

impl Report {
    /// The fields as indented lines, escaped for a terminal.
    pub fn to_text(&self) -> String {
        format!("{}: {}\n{}not vouched for: {}", self.kind, self.what, self.fields.to_text(), self.not_vouched_for)
    }
}
