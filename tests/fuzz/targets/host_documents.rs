#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = blf_evidence::tunnel::HostDocuments::parse(data) {
        let _ = blf_evidence::config::PublicConfig::parse(value.config.as_bytes());
        let _ = blf_evidence::config::Credentials::parse(value.credentials.as_bytes());
    }
    let _ = blf_evidence::config::PublicConfig::parse(data);
    let _ = blf_evidence::config::Credentials::parse(data);
});
