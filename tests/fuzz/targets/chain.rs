#![no_main]
use blf_contracts::cofhe;
use blf_contracts::prompt_key_store::{self, KeyStored};

// What a hostile RPC says that contracts returned and emitted. A log is four topics and its data.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = prompt_key_store::encrypted_key(data);
    let _ = cofhe::acl_address(data);
    let _ = cofhe::domain(data);
    let _ = cofhe::allowed(data);
    let (topics, rest) = data.as_chunks::<32>();
    for count in 0..=topics.len().min(4) {
        let emitted = topics[count..].concat();
        if let Ok(event) = KeyStored::decode(&topics[..count], &[&emitted, rest].concat()) {
            assert!(event.allowed.len() * 32 <= data.len());
        }
    }
});
