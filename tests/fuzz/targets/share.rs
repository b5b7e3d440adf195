#![no_main]
use blf_bridge::release::{HpkeRelease, KeyRelease as _};
use blf_bridge::{HpkeKey, Key};
use blf_evidence::job::Share;
use blf_evidence::json;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(share) = json::parse::<Share>("share", data, 4096) else { return };
    let keys = [HpkeKey::derive(&Key::fill(|_| Ok::<(), ()>(())).unwrap()).unwrap()];
    let mut ours = share.clone();
    (ours.hpke, ours.node) = (keys[0].public(), share.node);
    // A tag that fits is not found by chance.
    assert!(HpkeRelease { node: share.node, keys: &keys, share: &ours, context: "{}" }.release().is_err());
});
