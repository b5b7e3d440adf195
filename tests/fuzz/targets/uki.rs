#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = blf_appraisal::predict::from_uki(data);
});
