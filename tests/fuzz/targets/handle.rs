#![no_main]
use blf_bridge::cofhe::{Handle, Sharing};

// Handles in every JSON form, and permits that are imported.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Some(handle)) = serde_json::from_slice::<Option<Handle>>(data) {
        for text in [handle.decimal(), format!("\"{handle}\""), serde_json::to_string(&handle).unwrap()] {
            assert_eq!(serde_json::from_str::<Handle>(&text).unwrap(), handle);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(permit) = Sharing::parse(text) {
        assert_eq!(Sharing::parse(&permit.to_json().unwrap()).unwrap(), permit);
    }
});
