#![no_main]
use std::sync::LazyLock;

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::snp::{Chain, Root};
use blf_evidence::endorsements::SnpEndorsements;
use blf_evidence::snp::Report;
use blf_evidence::{Base64, UnixTime};

const VCEK: &str = include_str!("../../../measurements/appraisal/tests/vectors/snp/turin-v5-azure/vcek.pem");
const REPORT: &[u8] = include_bytes!("../../../measurements/appraisal/tests/vectors/snp/turin-v5-azure/report.bin");
/// 2026-11-01T00:00:00Z.
const NOW: UnixTime = UnixTime(1_793_491_200);

static CHAIN: LazyLock<Chain> = LazyLock::new(|| {
    let base64: String = VCEK.lines().filter(|line| !line.starts_with('-')).collect();
    let vek = base64.parse::<Base64>().unwrap();
    let endorsements = SnpEndorsements { vek: Some(vek), ..SnpEndorsements::default() };
    Chain::verify(&endorsements, &Root::pinned(), &AwsLc).unwrap()
});

// A report has one spelling, and only the genuine one is accepted.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(report) = Report::parse(data) {
        assert_eq!(report.to_bytes(), data);
    }
    if CHAIN.authenticate(data, NOW, &AwsLc).is_ok() {
        assert_eq!(data, REPORT);
    }
});
