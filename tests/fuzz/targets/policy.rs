#![no_main]
use blf_appraisal::Policy;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(policy) = Policy::parse(data) {
        assert!(policy.minimum_tier <= 2);
        let text = serde_json::to_vec(&policy).unwrap();
        assert_eq!(Policy::parse(&text).unwrap(), policy);
    }
});
