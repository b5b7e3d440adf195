#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(policy) = blf_appraisal::Policy::parse(data) {
        assert!(policy.minimum_tier <= 2);
    }
});
