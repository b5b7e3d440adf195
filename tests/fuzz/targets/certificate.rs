#![no_main]
use blf_appraisal::{Root, RootKind};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Root::from_der("der", RootKind::Development, data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Root::from_pem("pem", RootKind::Development, text);
    }
});
