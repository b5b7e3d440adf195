//! TD quotes: real ones, those of an Intel of our own, and what is wrong with all that is refused.

mod bundle;
#[path = "../common/collateral.rs"]
mod collateral;
mod intel;
mod mutants;
mod oracle;
mod refusals;
mod vectors;

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::rust_crypto::RustCrypto;
use blf_appraisal::tdx::{Claims, Root, authenticate};
use blf_appraisal::{CheckId, Rejected, Stage};
use blf_evidence::UnixTime;
use blf_evidence::endorsements::TdxEndorsements;

/// What the verifier says, refusals apart from everything else.
#[track_caller]
fn verdict(quote: &[u8], collateral: &TdxEndorsements, root: &Root, now: UnixTime) -> Result<Claims, Rejected> {
    match authenticate(quote, collateral, root, now, &AwsLc) {
        Ok(authentic) => Ok(Claims::clone(&authentic)),
        Err(rejected) => {
            assert_eq!(rejected.stage, Stage::Genuine, "{rejected}");
            Err(*rejected)
        }
    }
}

/// [`verdict`], by both providers of cryptography and compared with the oracle.
#[track_caller]
fn everyones_verdict(
    quote: &[u8],
    collateral: &TdxEndorsements,
    root: &[u8],
    now: UnixTime,
) -> Result<Claims, Rejected> {
    let believed = Root::from_der(blf_appraisal::RootKind::Production, root).unwrap();
    let ours = verdict(quote, collateral, &believed, now);
    let other = authenticate(quote, collateral, &believed, now, &RustCrypto);
    match (&ours, other) {
        (Ok(claims), Ok(other)) => assert_eq!(format!("{claims:?}"), format!("{:?}", *other)),
        (Err(rejected), Err(other)) => assert_eq!(rejected, &*other),
        (ours, other) => panic!("AWS-LC: {ours:?}, RustCrypto: {other:?}"),
    }
    let theirs = oracle::verify(quote, collateral, root, now.0);
    match (&ours, &theirs) {
        (Ok(claims), Ok(theirs)) => assert_eq!(&oracle::Verdict::from(claims), theirs),
        (Err(_), Err(_)) => (),
        _ => panic!("dcap-qvl disagrees: {theirs:?}, we: {ours:?}"),
    }
    ours
}

/// Whether the checks up to this one were passed.
fn passed(rejected: &Rejected, id: CheckId) -> bool {
    rejected.passed.iter().any(|check| check.id == id)
}
