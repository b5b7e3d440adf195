//! Genuine Azure evidence, damaged everywhere: nothing is accepted but what `blf_appraisal::azure` lists.

use blf_appraisal::Endorsers;
use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::azure::authenticate;
use blf_evidence::Base64;
use blf_evidence::azure::HclReport;
use blf_evidence::bundle::AzureEvidence;
use blf_evidence::endorsements::Endorsements;

use crate::azure::{CHALLENGE, genuine, with_vcek};
use crate::snp::NOW;

struct Subject {
    evidence: AzureEvidence,
    endorsements: Endorsements,
    endorsers: Endorsers,
}

impl Subject {
    fn new() -> Self {
        let (evidence, vcek) = genuine("evidence-snp-v1.json");
        let subject = Self { evidence, endorsements: with_vcek(vcek), endorsers: Endorsers::default() };
        assert_eq!(subject.code(&subject.evidence), None);
        subject
    }

    /// The code of the refusal, if it is refused.
    fn code(&self, evidence: &AzureEvidence) -> Option<&'static str> {
        match authenticate(evidence, CHALLENGE, &self.endorsements, &self.endorsers, NOW, &AwsLc) {
            Ok(_) => None,
            Err(rejected) => Some(rejected.code),
        }
    }
}

type Part = fn(&mut AzureEvidence) -> &mut Vec<u8>;

/// Each of these bits, flipped alone: refused with one of the codes.
fn flipped(part: Part, bits: impl Fn(usize) -> bool, codes: &[&str]) {
    let subject = Subject::new();
    let mut evidence = subject.evidence.clone();
    for bit in (0..part(&mut evidence).len() * 8).filter(|bit| bits(*bit)) {
        part(&mut evidence)[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(evidence, subject.evidence, "bit {bit}: no effect");
        let code = subject.code(&evidence);
        assert!(code.is_some_and(|code| codes.contains(&code)), "bit {bit}: {code:?}");
        part(&mut evidence)[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Every bit of the HCL report, but of the hardware's report in it one of each byte: `tests/snp/mutants.rs` flips the others.
#[test]
fn every_bit_of_the_hcl_report() {
    let codes = [
        "HCL_MALFORMED",
        "HCL_MISMATCH",
        "SNP_REPORT_MALFORMED",
        "CHIP_FAMILY_UNKNOWN",
        "SNP_SIGNING_KEY",
        "VEK_CHAIN",
        "VEK_MISMATCH",
        "SNP_SIGNATURE",
    ];
    let hardware = 32 * 8..(32 + 1184) * 8;
    let bits = |bit: usize| !hardware.contains(&bit) || bit % 8 == bit / 8 % 8;
    flipped(|evidence| &mut evidence.hcl_report.0, bits, &codes);
}

#[test]
fn every_bit_of_the_quote() {
    let codes = ["QUOTE_MALFORMED", "STATEMENT_MISMATCH", "QUOTE_SIGNATURE"];
    flipped(|evidence| &mut evidence.tpm.quote.0, |_| true, &codes);
}

#[test]
fn every_bit_of_its_signature() {
    flipped(|evidence| &mut evidence.tpm.signature.0, |_| true, &["QUOTE_SIGNATURE"]);
}

#[test]
fn every_bit_of_the_ak() {
    let codes = ["AK_MALFORMED", "AK_ATTRIBUTES", "AK_NOT_IN_RUNTIME_DATA", "AK_NAME_MISMATCH"];
    flipped(|evidence| &mut evidence.tpm.ak_public.0, |_| true, &codes);
}

/// One digest covers them all: a bit of each byte.
#[test]
fn a_bit_of_each_byte_of_the_pcrs() {
    let subject = Subject::new();
    let mut evidence = subject.evidence.clone();
    for byte in 0..24 * 32 {
        let (pcr, at, bit) = (byte / 32, byte % 32, 1 << (byte % 8));
        evidence.tpm.pcrs[pcr].0[at] ^= bit;
        assert_eq!(subject.code(&evidence), Some("PCR_DIGEST_MISMATCH"), "PCR {pcr}, byte {at}");
        evidence.tpm.pcrs[pcr].0[at] ^= bit;
    }
}

/// Bytes left out, doubled, swapped, cut off and appended. Only the number of zeros behind the HCL report is free.
#[test]
fn bytes_moved() {
    let subject = Subject::new();
    let parts: [(&str, Part); 4] = [
        ("hcl_report", |evidence| &mut evidence.hcl_report.0),
        ("quote", |evidence| &mut evidence.tpm.quote.0),
        ("signature", |evidence| &mut evidence.tpm.signature.0),
        ("ak_public", |evidence| &mut evidence.tpm.ak_public.0),
    ];
    let original = HclReport::parse(&subject.evidence.hcl_report.0).unwrap();
    let (mut tried, mut padded) = (0, 0);
    for (name, part) in parts {
        let good = part(&mut subject.evidence.clone()).clone();
        let len = good.len();
        let without = |at: usize| [&good[..at], &good[at + 1..]].concat();
        let doubled = |at: usize| [&good[..=at], &good[at..]].concat();
        let swapped = |at: usize| {
            let mut bytes = good.clone();
            bytes.swap(at, (at + 1) % len);
            bytes
        };
        let mutants = (0..len).flat_map(|at| [without(at), doubled(at), swapped(at), good[..at].to_vec()]);
        let longer = [vec![0], vec![1], vec![0; 64], good.clone()].map(|tail| [&good[..], &tail].concat());
        for mutant in mutants.chain(longer).filter(|mutant| *mutant != good) {
            let mut evidence = subject.evidence.clone();
            *part(&mut evidence) = mutant.clone();
            tried += 1;
            if subject.code(&evidence).is_none() {
                let hcl = HclReport::parse(&mutant).unwrap();
                assert_eq!((name, HclReport { padding: original.padding, ..hcl }), ("hcl_report", original.clone()));
                padded += 1;
            }
        }
    }
    // Of each zero of the padding: left out, doubled, cut off; and two tails of zeros.
    assert_eq!(padded, 3 * original.padding + 2);
    assert!(tried > 10_000, "{tried}");
}

/// The parts of two genuine guests, mixed.
#[test]
fn parts_of_another_guest() {
    let subject = Subject::new();
    let (other, _) = genuine("evidence-tdx-v1.json");
    type Swap = fn(&mut AzureEvidence, &AzureEvidence);
    let swaps: [(&str, Swap); 6] = [
        ("TD_REPORT_MISMATCH", |evidence, other| evidence.td_quote = other.td_quote.clone()),
        ("TD_REPORT_MISMATCH", |evidence, other| evidence.hcl_report = other.hcl_report.clone()),
        ("QUOTE_SIGNATURE", |evidence, other| evidence.tpm.quote = other.tpm.quote.clone()),
        ("QUOTE_SIGNATURE", |evidence, other| evidence.tpm.signature = other.tpm.signature.clone()),
        ("AK_NOT_IN_RUNTIME_DATA", |evidence, other| evidence.tpm.ak_public = other.tpm.ak_public.clone()),
        ("PCR_DIGEST_MISMATCH", |evidence, other| evidence.tpm.pcrs = other.tpm.pcrs.clone()),
    ];
    for (code, swap) in swaps {
        let mut evidence = subject.evidence.clone();
        swap(&mut evidence, &other);
        assert_eq!(subject.code(&evidence), Some(code));
    }
}

/// The list of what is free, by trying it.
#[test]
fn what_is_unsigned() {
    let subject = Subject::new();
    let mut hcl = HclReport::parse(&subject.evidence.hcl_report.0).unwrap();
    hcl.version = 3 - hcl.version;
    hcl.padding = 0;
    let evidence = AzureEvidence { hcl_report: Base64(hcl.to_bytes()), ..subject.evidence.clone() };
    assert_ne!(evidence, subject.evidence);
    assert_eq!(subject.code(&evidence), None);
}
