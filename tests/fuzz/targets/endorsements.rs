#![no_main]
use std::sync::LazyLock;

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::snp::{Chain, Root};
use blf_evidence::endorsements::Endorsements;

static ROOTS: LazyLock<Vec<Root>> = LazyLock::new(Root::pinned);

// What a hostile host staples to evidence: certificates and revocation lists are read before anything is believed.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Endorsements::parse(data) {
        let text = value.to_json().unwrap();
        assert_eq!(Endorsements::parse(text.as_bytes()).unwrap(), value);
        if let Some(snp) = &value.snp {
            let _ = Chain::verify(snp, &ROOTS, &AwsLc);
        }
    }
});
