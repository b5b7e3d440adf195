#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = blf_evidence::job::JobContext::parse(data) {
        assert_eq!(value.to_canonical().unwrap().as_bytes(), data);
    }
});
