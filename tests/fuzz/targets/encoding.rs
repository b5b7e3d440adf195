#![no_main]
use blf_evidence::eip191::Signature;
use blf_evidence::{Address, Base64, Hex};

// Each value has one spelling.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    macro_rules! identity { ($($t:ty),*) => { $(if let Ok(value) = text.parse::<$t>() { assert_eq!(value.to_string(), text); })* } }
    identity!(Address, Base64, Hex<16>, Hex<32>, Signature);
    if let Ok(signature) = text.parse::<Signature>() {
        let _ = signature.recover(b"text");
    }
});
