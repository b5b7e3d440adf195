//! What is refused, each with one thing wrong in evidence that is genuine otherwise, and by which check.

use blf_appraisal::RootKind;
use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::snp::{Chain, Root, Signer, authenticate};
use blf_evidence::endorsements::SnpEndorsements;
use blf_evidence::snp::{Family, Report, SIGNING_KEY_NONE, SIGNING_KEY_VCEK, SIGNING_KEY_VLEK, Tcb};
use blf_evidence::{Base64, Hex, UnixTime};

use crate::pki::{
    ARK, ASK, ASVK, Case, Extension, FAR_AWAY, LONG_AGO, NOW, NOW_UTC, RevocationList, STRANGER, amd, ask, asvk,
    integer, p256_key, pss, root, tlv, verdict,
};
use crate::vectors;

mod certificate;
mod chain;
mod report;
mod revocation;

/// Asserts that the case is genuine, breaks it, asserts that this changed what the verdict depends on, and that it is
/// refused with this code, for a reason with these words in it.
#[track_caller]
fn refused(mut case: Case, code: &str, reason: &str, break_it: impl FnOnce(&mut Case)) {
    case.authenticate().unwrap();
    let before = case.shown();
    break_it(&mut case);
    assert_ne!(before, case.shown(), "nothing was broken");
    let rejected = case.authenticate().unwrap_err();
    assert_eq!(rejected.code, code, "{rejected}");
    assert!(rejected.to_string().contains(reason), "{rejected}");
}

fn vcek() -> Case {
    Case::vcek(Family::Milan)
}

fn vlek() -> Case {
    Case::vlek(Family::Milan)
}

#[test]
fn genuine_before_they_are_broken() {
    for family in Family::ALL {
        let claims = Case::vcek(family).authenticate().unwrap();
        assert_eq!((claims.family, claims.signer, claims.roots), (family, Signer::Vcek, RootKind::Development));
        let claims = Case::vlek(family).authenticate().unwrap();
        assert_eq!(claims.signer, Signer::Vlek { csp_id: "CN=cloud.example".into() });
    }
}

/// A report of version 2 does not say of which family it is; the certificate does.
#[test]
fn version_2() {
    for family in [Family::Milan, Family::Genoa] {
        let mut case = Case::vcek(family);
        (case.report.version, case.report.cpuid) = (2, None);
        assert_eq!(case.authenticate().unwrap().family, family);
    }
}

/// A certificate of Turin for a report of a time before Turin.
#[test]
fn version_2_of_turin() {
    refused(Case::vcek(Family::Turin), "VEK_MISMATCH", "wanted Milan or Genoa, got Turin", |case| {
        (case.report.version, case.report.cpuid) = (2, None);
        (case.report.launch_mitigations, case.report.current_mitigations) = (None, None);
        // In the order of TCB_VERSION that version 2 has, nothing is reserved here.
        let tcb = Tcb([1, 1, 0, 0, 0, 0, 0, 0x51]);
        (case.report.reported_tcb, case.report.current_tcb) = (tcb, tcb);
        (case.report.committed_tcb, case.report.launch_tcb) = (tcb, tcb);
        for (spl, level) in [(9, 1), (1, 1), (2, 0), (3, 0)] {
            case.vek.extension(&[3, spl]).value = integer(&[level]);
        }
    });
}
