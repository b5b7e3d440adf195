#![no_main]
use std::sync::LazyLock;

use blf_appraisal::{Endorsers, authenticate, aws_lc::AwsLc};
use blf_evidence::{UnixTime, bundle::Evidence};

static ENDORSERS: LazyLock<Endorsers> = LazyLock::new(Endorsers::default);

// A verifier appraises what a hostile node of any platform sends, up to its first refusal.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Evidence::parse(data) {
        let text = value.to_json().unwrap();
        assert_eq!(Evidence::parse(text.as_bytes()).unwrap(), value);
        let _ = authenticate(&value, &ENDORSERS, UnixTime(1_795_157_973), &AwsLc);
    }
});
