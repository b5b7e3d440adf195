#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use blf_evidence::tpm::{EncryptedSecret, IdObject, Public, Quote, Signature};
    macro_rules! identity { ($($t:ty),*) => { $(if let Ok(value) = <$t>::parse(data) { assert_eq!(value.to_bytes(), data); })* } }
    identity!(Quote, Signature, Public, IdObject, EncryptedSecret);
});
