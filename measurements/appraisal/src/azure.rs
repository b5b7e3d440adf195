//! Azure: the hardware's report vouches for the paravisor's runtime data, these for the vTPM's AK, and the AK's quote for
//! the guest.

use blf_evidence::bundle::AzureEvidence;
use blf_evidence::statement::Statement;

use crate::authenticate::Context;
use crate::check::{AppraisalError, Checks};
use crate::{snp, tdx, tpm};

/// What a guest of Azure says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// What the hardware says of the paravisor.
    pub hardware: Hardware,
    /// What the paravisor's vTPM says of the guest.
    pub tpm: tpm::Claims,
}

/// The hardware below the paravisor.
#[derive(Clone, Debug)]
pub enum Hardware {
    /// SEV-SNP.
    Snp(snp::Claims),
    /// TDX.
    Tdx(tdx::Claims),
}

/// Checks the chain from the hardware to the vTPM's quote of the statement.
pub(crate) fn check(
    _evidence: &AzureEvidence,
    _statement: &Statement,
    _context: &Context<'_>,
    _checks: &mut Checks,
) -> Result<Claims, AppraisalError> {
    Err(AppraisalError::Unsupported("azure"))
}
