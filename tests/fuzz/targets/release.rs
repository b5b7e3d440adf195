#![no_main]
use blf_appraisal::{Inputs, Release};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Release::parse(data) {
        let text = value.to_json().unwrap();
        assert_eq!(Release::parse(text.as_bytes()).unwrap().to_json().unwrap(), text);
        let _ = value.check_image(data);
    }
    let _ = Inputs::parse(data);
});
