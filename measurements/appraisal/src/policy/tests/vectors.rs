//! Real reports and quotes of guests that a host may look into, before the laxest policy that is shipped.

use blf_evidence::Hex;
use blf_evidence::snp::{Family, Report};
use blf_evidence::tdx::Quote;

use super::{Case, reference, report, snp, tdx};
use crate::check::CheckId;
use crate::policy::{Accept, Policy};
use crate::references::TdxReference;

/// Everything but what the guest was launched with is as wanted.
fn under_devnet(mut case: Case) -> Case {
    case.policy = Policy::parse(Policy::DEVNET.as_bytes()).unwrap();
    case.policy.profiles = Accept::Any;
    case
}

fn quote(bytes: &[u8]) -> Case {
    let mut case = under_devnet(Case::tdx());
    let quote = Quote::parse(bytes).unwrap();
    let values = reference(&mut case).tdx.as_mut().unwrap();
    let [rtmr0, rtmr1, rtmr2, _] = quote.rtmrs;
    *values = TdxReference { mrtd: vec![quote.mr_td], rtmr0: Accept::Only(vec![rtmr0]), rtmr1, rtmr2 };
    tdx(&mut case).quote = quote;
    case
}

#[test]
fn report_of_a_guest_that_may_be_debugged() {
    let genuine = Report::parse(include_bytes!("../../../tests/vectors/snp/milan-v2-google/report.bin")).unwrap();
    let mut case = under_devnet(Case::snp());
    reference(&mut case).snp[0].measurement = genuine.measurement;
    snp(&mut case).family = Family::Milan;
    *report(&mut case) = genuine;
    let refusal = case.refusal();
    assert_eq!((refusal.failed.id, refusal.failed.got.as_str()), (CheckId::SnpPolicy, "smt, bit 17, debug"));
    report(&mut case).policy &= !blf_evidence::snp::policy::DEBUG;
    case.verdict().unwrap();
}

#[test]
fn quote_of_a_td_that_may_be_debugged() {
    let mut case = quote(include_bytes!("../../../tests/vectors/tdx/coco/quote4.bin"));
    let refusal = case.refusal();
    assert_eq!((refusal.failed.id, refusal.failed.got.as_str()), (CheckId::TdAttributes, "debug, sept_ve_disable"));
    tdx(&mut case).quote.td_attributes ^= 1;
    tdx(&mut case).quote.rtmrs[3] = Hex([0; 48]);
    case.verdict().unwrap();
}

#[test]
fn quote_of_a_td_that_another_one_serves() {
    let mut case = quote(include_bytes!("../../../tests/vectors/tdx/coco/quote-td15.bin"));
    let refusal = case.refusal();
    assert_eq!(refusal.failed.id, CheckId::TdServiceTd, "{refusal}");
    tdx(&mut case).quote.mr_service_td = None;
    tdx(&mut case).quote.rtmrs[3] = Hex([0; 48]);
    case.verdict().unwrap();
}
