#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = blf_evidence::pack::Header::parse(data);
    let _ = blf_evidence::pack::verify(data);
    if let Ok(value) = blf_evidence::pack::Manifest::parse(data) {
        assert_eq!(value.to_canonical().unwrap().as_bytes(), data);
    }
});
