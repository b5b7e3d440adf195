#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = blf_evidence::tunnel::Dial::parse(data) {
        assert_eq!(value.to_line().as_bytes(), data);
    }
});
