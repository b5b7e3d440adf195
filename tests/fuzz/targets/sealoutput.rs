#![no_main]
use std::time::Duration;

use blf_bridge::Key;
use blf_bridge::cofhe::{Domain, Handle, Inquiry, Next, Permission, SealingKey};
use blf_evidence::eip191::Signature;
use blf_evidence::{Address, UnixTime};

// What a hostile threshold network answers, to a submission or (first byte's highest bit) to a poll.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let domain = Domain { chain_id: 1, name: "ACL".into(), verifying_contract: Address([1; 20]), version: "1".into() };
    let key = SealingKey::new(Key::fill(|_| Ok::<(), ()>(())).unwrap());
    let sign = |_: &[u8; 32]| Signature([0; 65]);
    let permit = Permission::issue_self(&domain, Address([2; 20]), UnixTime(9), key.public(), sign);
    let mut inquiry = Inquiry::new(&Handle::default(), 1, permit).unwrap();
    if kind & 0x80 != 0 {
        inquiry.answer(Duration::ZERO, 200, br#"{"request_id":"1"}"#).unwrap();
    }
    let status = [200, 202, 204, 301, 400, 403, 404, 500][usize::from(kind & 7)];
    let elapsed = Duration::from_secs(u64::from(kind >> 3 & 15) * 30);
    match inquiry.answer(elapsed, status, body) {
        Ok(Next::Done(sealed)) => assert!(key.unseal(&sealed).is_err(), "a tag that fits is not found by chance"),
        Ok(Next::Wait(delay)) => {
            assert!(elapsed + delay <= Duration::from_secs(300));
            let path = inquiry.call().path;
            let id = path.strip_prefix("/v2/sealoutput").unwrap().trim_start_matches('/');
            assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{path}");
        }
        Err(_) => {}
    }
});
