//! Intel TDX: a TD quote, Intel's collateral, and the way from there to the pinned root.

use blf_evidence::bundle::TdxEvidence;
use blf_evidence::statement::Statement;
use blf_evidence::tdx::Quote;
use blf_evidence::{Hex, UnixTime};

use crate::authenticate::Context;
use crate::check::{AppraisalError, Checks};
use crate::x509::RootKind;

/// The trust anchor: Intel's root CA for provisioning.
#[derive(Clone, Debug)]
pub struct Root {
    /// What believing it means.
    pub kind: RootKind,
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
    /// The status of the platform's TCB level, the quoting enclave's and the TDX module's together.
    pub tcb_status: TcbStatus,
    /// Advisories that apply to that level, e.g. `INTEL-SA-00837`.
    pub advisory_ids: Vec<String>,
    /// `tcbEvaluationDataNumber` of TCB info and QE identity, the smaller one.
    pub tcb_evaluation_data_number: u32,
    /// The earliest `issueDate` or `thisUpdate` among the collateral.
    pub collateral_issued: UnixTime,
    /// Whether the event log explains the RTMRs.
    pub event_log: bool,
    /// What believing the root means.
    pub roots: RootKind,
}

/// `tcbStatus` of Intel's PCS.
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
}

impl Root {
    /// Intel's.
    #[must_use]
    pub fn pinned() -> Self {
        Self { kind: RootKind::Production }
    }
}

/// Checks the quote with its collateral and event log, and that it vouches for the statement.
pub(crate) fn check(
    _evidence: &TdxEvidence,
    _statement: &Statement,
    _context: &Context<'_>,
    _checks: &mut Checks,
) -> Result<Claims, AppraisalError> {
    Err(AppraisalError::Unsupported("tdx"))
}
