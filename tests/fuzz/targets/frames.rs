#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use blf_agent::frames;
    let _ = frames::decode::<frames::ToVault>(data);
    let _ = frames::decode::<frames::FromVault>(data);
    let _ = frames::decode::<frames::ToEngine>(data);
    let _ = frames::decode::<frames::FromEngine>(data);
});
