//! Intel TDX: a TD quote, Intel's collateral, and the way from there to the pinned root.
//!
//! ```text
//! root ─► PCK CA ─► PCK ─► quoting enclave ─► attestation key ─► quote: the TD
//!   ├───► TCB signing ─► TCB info, QE identity     what Intel says of platform, TDX module, quoting enclave
//!   └───► CRLs
//! ```
//!
//! The status that Intel gives to the platform is data for the policy, and so are debug, migration and service TDs; only a
//! revoked level ends it here. Certificates are taken in their one DER and their one PEM, and collateral as the very bytes
//! that Intel signed. `tests/vectors/tdx/README.md` compares with the crate dcap-qvl, the oracle of the tests.

mod collateral;
mod pck;
mod tcb;

use blf_evidence::bundle::TdxEvidence;
use blf_evidence::endorsements::TdxEndorsements;
use blf_evidence::eventlog::{EV_EFI_ACTION, EV_SEPARATOR, Event, EventLog};
use blf_evidence::statement::Statement;
use blf_evidence::tdx::Quote;
use blf_evidence::{Hex, UnixTime};
use sha2::{Digest as _, Sha384};

pub use self::pck::Configuration;
use crate::authenticate::{Authentic, Context, sha256};
use crate::check::{CheckId, Checks, Rejected};
use crate::crypto::{Algorithm, CryptoProvider};
use crate::x509::{Certificate, CertificateError, RootKind};

/// The trust anchor: Intel's root CA for provisioning.
#[derive(Clone, Debug)]
pub struct Root {
    certificate: Certificate,
    kind: RootKind,
}

/// What a TD quote says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// The quote.
    pub quote: Quote,
    /// `fmspc` of the PCK certificate: the platform's family, model, stepping and custom SKU.
    pub fmspc: Hex<6>,
    /// `PPID` of the PCK certificate: the platform.
    pub ppid: Hex<16>,
    /// `Configuration` of the PCK certificate, which only that of a platform with several packages has.
    pub configuration: Option<Configuration>,
    /// The status of the platform's TCB level, the quoting enclave's and the TDX module's together.
    pub tcb_status: TcbStatus,
    /// Advisories that apply to that level, e.g. `INTEL-SA-00837`.
    pub advisory_ids: Vec<String>,
    /// `tcbEvaluationDataNumber` of TCB info and QE identity, the smaller one.
    pub tcb_evaluation_data_number: u32,
    /// The earliest `issueDate` or `thisUpdate` among the collateral, but for the root's CRL, which Intel issues once a year.
    pub collateral_issued: UnixTime,
    /// When the first part of the collateral, or the first certificate, is no longer valid.
    pub valid_until: UnixTime,
    /// Whether the event log explains the RTMRs.
    pub event_log: bool,
    /// What believing the root means.
    pub roots: RootKind,
}

/// `tcbStatus` of Intel's PCS, and what a later update of the TDX module makes of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub enum TcbStatus {
    /// Patched and configured.
    UpToDate,
    /// Software in the TD must help.
    SWHardeningNeeded,
    /// The platform must be configured.
    ConfigurationNeeded,
    /// Both.
    ConfigurationAndSWHardeningNeeded,
    /// Not patched.
    OutOfDate,
    /// Not patched, not configured.
    OutOfDateConfigurationNeeded,
    /// Patched below the running TD, which was launched before.
    TDRelaunchAdvised,
    /// The same, not configured.
    TDRelaunchAdvisedConfigurationNeeded,
}

impl Root {
    /// Intel's ("Intel SGX Root CA", valid to the end of 2049).
    #[must_use]
    pub fn pinned() -> Self {
        let der = include_bytes!("../roots/intel/sgx-root-ca.der");
        Self::from_der(RootKind::Production, der).expect("a certificate that this crate carries")
    }

    /// A root from its DER certificate.
    ///
    /// # Errors
    /// [`CertificateError`] when it is no certificate.
    pub fn from_der(kind: RootKind, der: &[u8]) -> Result<Self, CertificateError> {
        Ok(Self { certificate: Certificate::parse_canonical(der)?, kind })
    }
}

/// Checks that a quote is genuine, whatever it was made for.
///
/// # Errors
/// [`Rejected`] with the first check that fails.
pub fn authenticate(
    quote: &[u8],
    collateral: &TdxEndorsements,
    root: &Root,
    now: UnixTime,
    crypto: &dyn CryptoProvider,
) -> Result<Authentic<Claims>, Box<Rejected>> {
    let mut checks = Checks::default();
    let claims = verify(quote, Some(collateral), root, now, crypto, &mut checks)?;
    Ok(Authentic { claims, now, checks })
}

/// Checks the quote with its collateral and event log, and that it vouches for the statement.
pub(crate) fn check(
    evidence: &TdxEvidence,
    statement: &Statement,
    context: &Context<'_>,
    checks: &mut Checks,
) -> Result<Claims, Box<Rejected>> {
    let (root, collateral) = (&context.endorsers.intel, context.endorsements.tdx.as_ref());
    let claims = verify(&evidence.quote.0, collateral, root, context.now, context.crypto, checks)?;
    let quote = &claims.quote;
    checks.equal(CheckId::ReportData, statement.0, quote.report_data)?;
    let zero: Vec<_> = (0..2).filter(|index| quote.rtmrs[*index] == Hex([0; 48])).collect();
    let got = if zero.is_empty() { "neither zero".into() } else { format!("zero: {zero:?}") };
    checks.require(CheckId::MeasuredBoot, "RTMR 0 and 1 not zero", got, zero.is_empty())?;
    if let Some(log) = &evidence.event_log {
        check_event_log(&log.0, quote, checks)?;
    }
    Ok(Claims { event_log: evidence.event_log.is_some(), ..claims })
}

/// From the root down to the quote, then what Intel says of what made it.
pub(crate) fn verify(
    bytes: &[u8],
    collateral: Option<&TdxEndorsements>,
    root: &Root,
    now: UnixTime,
    crypto: &dyn CryptoProvider,
    checks: &mut Checks,
) -> Result<Claims, Box<Rejected>> {
    let quote = checks.parsed(CheckId::TdQuote, "a TD quote of version 4 or 5", Quote::parse(bytes))?;
    let Some(collateral) = collateral else {
        return Err(checks.reject(CheckId::Collateral, "Intel's collateral", "none"));
    };
    checks.require(CheckId::Collateral, "Intel's collateral", "Intel's collateral", true)?;
    let chain = pck::check(&quote.authentication.pck_chain, root, crypto, checks)?;
    let signed = check_signatures(bytes, &quote, &chain.pck, crypto);
    checks.parsed(CheckId::TdQuoteSignature, "by the PCK's quoting enclave", signed)?;
    let collateral = collateral::check(collateral, &chain, root, now, crypto, checks)?;
    let collateral::Collateral { tcb_info, qe_identity, issued, valid_until } = collateral;
    let verdict = tcb::check(&quote, &chain.platform, &tcb_info, &qe_identity, checks)?;
    Ok(Claims {
        fmspc: chain.platform.fmspc,
        ppid: chain.platform.ppid,
        configuration: chain.platform.configuration,
        tcb_status: verdict.status,
        advisory_ids: verdict.advisory_ids,
        tcb_evaluation_data_number: tcb_info.tcb_evaluation_data_number.min(qe_identity.tcb_evaluation_data_number),
        collateral_issued: issued,
        valid_until,
        event_log: false,
        roots: root.kind,
        quote,
    })
}

/// The PCK signed the quoting enclave's report, which names the attestation key, which signed the quote.
fn check_signatures(
    bytes: &[u8],
    quote: &Quote,
    pck: &Certificate,
    crypto: &dyn CryptoProvider,
) -> Result<(), &'static str> {
    let auth = &quote.authentication;
    if !pck::has_signed(pck, &auth.qe_report.0.0, &auth.qe_report_signature, crypto) {
        return Err("a QE report that the PCK did not sign");
    }
    let named = sha256(&[&auth.attestation_key.0[..], &auth.qe_authentication_data.0].concat());
    let report_data = auth.qe_report.report_data().0;
    if report_data[..32] != named.0 || report_data[32..] != [0; 32] {
        return Err("an attestation key that the QE report does not name");
    }
    let point = [&[4][..], &auth.attestation_key.0].concat();
    if !crypto.verify(Algorithm::EcdsaP256Sha256Fixed, &point, quote.signed(bytes), &auth.signature.0) {
        return Err("a quote that the attestation key did not sign");
    }
    Ok(())
}

/// The log explains all four RTMRs, and shows that firmware handed over to the system.
fn check_event_log(log: &[u8], quote: &Quote, checks: &mut Checks) -> Result<(), Box<Rejected>> {
    let log = checks.parsed(CheckId::EventLog, "a crypto-agile TCG event log", EventLog::parse(log))?;
    let (wanted, got, ok) = match log.replay_rtmrs() {
        None => ("a SHA-384 bank".into(), "a log without one, or with events of other registers".into(), false),
        Some(replay) => match (0..4).find(|index| replay[*index] != quote.rtmrs[*index].0) {
            Some(index) => (format!("RTMR {index} {}", quote.rtmrs[index]), Hex(replay[index]).to_string(), false),
            None => ("RTMR 0 to 3 as quoted".into(), format!("{} events that give them", log.events.len()), true),
        },
    };
    checks.require(CheckId::EventLogReplay, wanted, got, ok)?;
    // RTMR 0 and 1 are registers 1 and 2 of the log.
    let separators = [1, 2]
        .map(|index| log.extended(index).filter(|event| event.kind == EV_SEPARATOR && says(event, &[0; 4])).count());
    let last = log.extended(2).last();
    let handed_over = last
        .is_some_and(|event| event.kind == EV_EFI_ACTION && says(event, b"Exit Boot Services Returned with Success"));
    let got = format!("{separators:?} separators, {}", if handed_over { "the exit" } else { "no exit at the end" });
    // Firmware separates what it measured from what it starts once for each of the two, into either.
    let ok = handed_over && separators[0] > 0 && separators[0] + separators[1] == 2;
    checks.require(CheckId::EventLogSequence, "2 separators in RTMR 0 and 1, the exit from boot services", got, ok)
}

/// Whether the event's data is this, and its digest of it: of data alone nothing is known.
fn says(event: &Event<'_>, data: &[u8]) -> bool {
    event.data == data && event.sha384 == Some(Sha384::digest(data).into())
}
