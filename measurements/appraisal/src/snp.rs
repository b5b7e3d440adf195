//! AMD SEV-SNP: a report, the certificate of the key that signed it, and the way from there to a pinned ARK.

use blf_evidence::UnixTime;
use blf_evidence::bundle::SnpEvidence;
use blf_evidence::snp::{Family, Report};
use blf_evidence::statement::Statement;

use crate::authenticate::Context;
use crate::check::{AppraisalError, Checks};
use crate::x509::RootKind;

/// A trust anchor: the ARK of a family.
#[derive(Clone, Debug)]
pub struct Root {
    /// Whose chips it is for.
    pub family: Family,
    /// What believing it means.
    pub kind: RootKind,
}

/// What an SEV-SNP report says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// The report.
    pub report: Report,
    /// The family of the chip that made it.
    pub family: Family,
    /// Whose key signed it.
    pub signer: Signer,
    /// When the revocation list was made, if there was one.
    pub crl_this_update: Option<UnixTime>,
    /// What believing the ARK means.
    pub roots: RootKind,
}

/// The key that signed a report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Signer {
    /// Versioned chip endorsement key: of one chip.
    Vcek,
    /// Versioned loaded endorsement key: of a cloud.
    Vlek {
        /// The cloud, as the certificate names it (`CSP_ID`).
        csp_id: String,
    },
}

impl Root {
    /// AMD's ARKs, one for each family.
    #[must_use]
    pub fn pinned() -> Vec<Self> {
        Vec::new()
    }
}

/// Checks the report and its chain, and that it vouches for the statement.
pub(crate) fn check(
    _evidence: &SnpEvidence,
    _statement: &Statement,
    _context: &Context<'_>,
    _checks: &mut Checks,
) -> Result<Claims, AppraisalError> {
    Err(AppraisalError::Unsupported("snp"))
}
