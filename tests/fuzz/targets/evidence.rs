#![no_main]
use blf_appraisal::{Endorsers, authenticate, aws_lc::AwsLc};
use blf_evidence::{UnixTime, bundle::Evidence};

// A verifier appraises what a hostile node sends, up to its first refusal.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Evidence::parse(data) {
        let text = value.to_json().unwrap();
        assert_eq!(Evidence::parse(text.as_bytes()).unwrap(), value);
        let _ = authenticate(&value, &Endorsers::default(), UnixTime(1_795_157_973), &AwsLc);
    }
});
