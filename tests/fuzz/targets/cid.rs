#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = blf_bridge::cid::check(text, data);
    blf_bridge::cid::check(&blf_bridge::cid::of(data), data).unwrap();
});
