#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = blf_evidence::bundle::Evidence::parse(data) {
        let text = value.to_json().unwrap();
        assert_eq!(blf_evidence::bundle::Evidence::parse(text.as_bytes()).unwrap(), value);
    }
});
