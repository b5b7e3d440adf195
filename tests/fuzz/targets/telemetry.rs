#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = blf_evidence::telemetry::Event::parse(data) {
        let line = value.to_line().unwrap();
        assert_eq!(blf_evidence::telemetry::Event::parse(line.as_bytes()).unwrap(), value);
    }
});
