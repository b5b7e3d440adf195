#![no_main]
use blf_bridge::prompt::{open_answer, open_prompt};
use blf_bridge::{Key, Secret, blob};

// What somebody who holds the key may have sealed, and sealed bytes of somebody who does not.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let key = Key::fill(|_| Ok::<(), ()>(())).unwrap();
    let _ = open_answer(&key, data);
    let Ok(sealed) = blob::seal(&key, &Secret::new(data.to_vec())) else { return };
    if let Ok(text) = open_answer(&key, &sealed) {
        // The one spelling: length, text, zeros up to the bucket.
        let length = text.expose().len();
        assert_eq!(data[..4], u32::try_from(length).unwrap().to_le_bytes());
        assert_eq!(&data[4..4 + length], text.expose());
        assert!(data.len().is_power_of_two() && data[4 + length..].iter().all(|byte| *byte == 0));
    }
    if let Ok(prompt) = open_prompt(&key, &sealed, "{}") {
        std::str::from_utf8(prompt.text().expose()).unwrap();
    }
});
