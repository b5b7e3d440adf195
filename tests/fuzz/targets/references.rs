#![no_main]
use blf_appraisal::References;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = References::parse(data) {
        let text = value.to_json().unwrap();
        assert_eq!(References::parse(text.as_bytes()).unwrap(), value);
    }
});
