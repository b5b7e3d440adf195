#![no_main]
use blf_evidence::tdx::Quote;

// A quote has one spelling, but for the number of zeros behind it.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(quote) = Quote::parse(data) {
        let bytes = quote.to_bytes();
        let (written, padding) = data.split_at(bytes.len());
        assert_eq!(bytes, written);
        assert!(padding.iter().all(|byte| *byte == 0));
        assert!(written.starts_with(quote.signed(data)));
    }
});
