#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = blf_evidence::profile::NetworkProfile::parse(data) {
        value.id().unwrap();
    }
    let _ = blf_evidence::network::Network::parse(data);
});
