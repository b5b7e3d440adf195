//! Azure: genuine evidence, evidence with keys of our own, and what is refused, one test for each way.

#[path = "../common/azure.rs"]
mod azure;
#[allow(dead_code)] // not all of it
#[path = "../tdx/intel.rs"]
mod intel;
#[path = "../common/snp.rs"]
mod snp;

mod bundle;
mod flips;
mod genuine;
mod oracle;
mod refused;
mod tdx;

use blf_appraisal::Rejected;

/// The refusal of what must be refused.
#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, Box<Rejected>>) -> Rejected {
    match result {
        Err(rejected) => *rejected,
        other => panic!("wanted a refusal, got {other:?}"),
    }
}
