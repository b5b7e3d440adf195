//! Every way to change a genuine report or certificate a little. None is accepted: no byte of them is outside of every
//! signature and every rule.

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::snp::{Chain, Root};
use blf_evidence::Base64;
use blf_evidence::endorsements::SnpEndorsements;
use blf_evidence::snp::{Family, Report};

use crate::pki::verdict;
use crate::vectors::{Vector, amd, named};

/// One bit flipped, each in its turn.
pub(crate) fn flips(genuine: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..genuine.len() * 8).map(|bit| {
        let mut mutant = genuine.to_vec();
        mutant[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {} of byte 0x{:x}", bit % 8, bit / 8), mutant)
    })
}

/// One byte left out, doubled, or put behind its neighbour; the bytes up to there alone; one more byte behind the last.
pub(crate) fn edits(genuine: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let each = (0..genuine.len()).flat_map(|index| {
        let (head, tail) = genuine.split_at(index);
        let mut mutants = vec![
            (format!("without byte 0x{index:x}"), [head, &tail[1..]].concat()),
            (format!("with byte 0x{index:x} twice"), [head, &tail[..1], tail].concat()),
            (format!("the first 0x{index:x} bytes"), head.to_vec()),
        ];
        if let [first, second, rest @ ..] = tail
            && first != second
        {
            let swapped = [head, &[*second, *first], rest].concat();
            mutants.push((format!("with bytes 0x{index:x} and 0x{:x} swapped", index + 1), swapped));
        }
        mutants
    });
    let longer = [0, 1, 0xFF].map(|byte| (format!("with 0x{byte:x} behind it"), [genuine, &[byte]].concat()));
    each.chain(longer)
}

/// Asserts that the genuine bytes are accepted and every mutant is refused by one of these checks; returns how many were.
#[track_caller]
fn none_accepted(
    genuine: &[u8],
    mutants: impl Iterator<Item = (String, Vec<u8>)>,
    codes: &[&str],
    check: impl Fn(&[u8]) -> Result<(), &'static str>,
) -> usize {
    check(genuine).unwrap();
    mutants
        .map(|(what, mutant)| {
            assert_ne!(mutant, genuine, "{what}: nothing changed");
            let code = check(&mutant).expect_err(&what);
            assert!(codes.contains(&code), "{what}: {code}");
        })
        .count()
}

const OF_A_REPORT: [&str; 5] =
    ["SNP_REPORT_MALFORMED", "CHIP_FAMILY_UNKNOWN", "SNP_SIGNING_KEY", "VEK_MISMATCH", "SNP_SIGNATURE"];

fn report_check(vector: &Vector) -> impl Fn(&[u8]) -> Result<(), &'static str> {
    let chain = Chain::verify(&vector.endorsements(), &Root::pinned(), &AwsLc).unwrap();
    let now = vector.now;
    move |report| verdict(chain.authenticate(report, now, &AwsLc)).map(|_| ()).map_err(|rejected| rejected.code)
}

#[test]
fn bits_of_a_report() {
    for name in ["turin-v5-azure", "milan-v2-virtee"] {
        let vector = named(name);
        let count = none_accepted(&vector.report, flips(&vector.report), &OF_A_REPORT, report_check(&vector));
        assert_eq!(count, 9_472, "{name}");
    }
}

#[test]
fn bytes_of_a_report() {
    for name in ["turin-v5-azure", "milan-v3-vlek"] {
        let vector = named(name);
        let count = none_accepted(&vector.report, edits(&vector.report), &OF_A_REPORT, report_check(&vector));
        assert!(count > 3 * Report::SIZE, "{name}: {count}");
    }
}

/// A certificate of a chain, and how the chain fares with other bytes in its place.
fn certificate_mutants(genuine: &[u8], others: SnpEndorsements, put: fn(&mut SnpEndorsements) -> &mut Option<Base64>) {
    let roots = Root::pinned();
    let check = |der: &[u8]| {
        let mut endorsements = others.clone();
        *put(&mut endorsements) = Some(Base64(der.to_vec()));
        verdict(Chain::verify(&endorsements, &roots, &AwsLc)).map(|_| ()).map_err(|rejected| rejected.code)
    };
    let codes = ["VEK_MALFORMED", "VEK_CHAIN"];
    assert_eq!(none_accepted(genuine, flips(genuine), &codes, check), genuine.len() * 8);
    assert!(none_accepted(genuine, edits(genuine), &codes, check) > 3 * genuine.len());
}

#[test]
fn of_a_vcek() {
    let turin = named("turin-v5-azure");
    certificate_mutants(&turin.vek, turin.endorsements(), |endorsements| &mut endorsements.vek);
}

#[test]
fn of_a_vlek() {
    let aws = named("milan-v3-vlek");
    certificate_mutants(&aws.vek, aws.endorsements(), |endorsements| &mut endorsements.vek);
}

#[test]
fn of_an_ask() {
    let [_, ask, _] = amd(Family::Turin);
    certificate_mutants(&ask, named("turin-v5-azure").endorsements(), |endorsements| &mut endorsements.ask);
}

#[test]
fn of_an_ark() {
    let [ark, _, _] = amd(Family::Turin);
    certificate_mutants(&ark, named("turin-v5-azure").endorsements(), |endorsements| &mut endorsements.ark);
}
