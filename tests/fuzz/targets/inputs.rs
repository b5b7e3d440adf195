#![no_main]
use blf_bridge::cofhe::{NetworkKey, verify_answer};
use blf_evidence::Hex;

// What a hostile verifier and a hostile source of the network's keys answer.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(inputs) = verify_answer(200, data) {
        assert!(inputs.iter().all(|input| input.signature.len() == 65 && [27, 28].contains(&input.signature[64])));
    }
    let _ = verify_answer(500, data);
    for key in [NetworkKey::Crs, NetworkKey::PublicKey] {
        assert!(key.read(200, data, Some(Hex([0; 32]))).is_err(), "not what was measured");
    }
});
