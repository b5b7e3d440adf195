#![no_main]
use std::sync::LazyLock;

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::snp::{self, Chain};
use blf_appraisal::{Root, RootKind};
use blf_evidence::Base64;
use blf_evidence::endorsements::SnpEndorsements;

static ROOTS: LazyLock<Vec<snp::Root>> = LazyLock::new(snp::Root::pinned);
const VCEK: &str = include_str!("../../../measurements/appraisal/tests/vectors/snp/turin-v5-azure/vcek.pem");
static GENUINE: LazyLock<Base64> =
    LazyLock::new(|| VCEK.lines().filter(|line| !line.starts_with('-')).collect::<String>().parse().unwrap());

// Certificates of AKs and of AMD's keys, and revocation lists.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Root::from_der("der", RootKind::Development, data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Root::from_pem("pem", RootKind::Development, text);
    }
    let bytes = || Some(Base64(data.to_vec()));
    let vek = SnpEndorsements { vek: bytes(), ..SnpEndorsements::default() };
    let _ = Chain::verify(&vek, &ROOTS, &AwsLc);
    let genuine = SnpEndorsements { vek: Some(GENUINE.clone()), ..SnpEndorsements::default() };
    let ask = SnpEndorsements { ask: bytes(), ..genuine.clone() };
    let _ = Chain::verify(&ask, &ROOTS, &AwsLc);
    let crl = SnpEndorsements { crl: bytes(), ..genuine };
    let _ = Chain::verify(&crl, &ROOTS, &AwsLc);
});
