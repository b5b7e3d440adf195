//! The verifier's signatures, as the contract takes them, and its refusals.

use blf_devnet::chain::Input;
use blf_devnet::cofhe::{BODY_CAP, Knobs, Verify};
use serde_json::{Value, json};

use crate::net::{Account, JOB, Net, VALUES, document, inputs, store_key, verify_body};

fn ask(net: &Net, body: &Value) -> (u16, Value) {
    let answer = net.cofhe.verifier("POST", "/verify", body.to_string().as_bytes());
    (answer.status, document(&answer))
}

/// Why the contract does not store these inputs.
fn reverts(net: &Net, account: &Account, inputs: [&Input; 2]) -> String {
    net.chain.store_key(account.address(), JOB, inputs, &[]).unwrap_err().to_string()
}

#[test]
fn an_input_is_for_one_account_and_as_it_was_signed() {
    let net = Net::new();
    let (user, stranger) = (Account::new(1), Account::new(3));
    let [high, low] = net.encrypt(user.address(), VALUES);
    let changed = |change: fn(&mut Input)| {
        let mut changed = high.clone();
        change(&mut changed);
        assert_ne!(changed, high);
        reverts(&net, &user, [&changed, &low])
    };
    assert!(reverts(&net, &stranger, [&high, &low]).contains("InvalidSigner("));
    assert!(changed(|input| input.ct_hash[31] ^= 1).contains("InvalidSigner("));
    assert!(changed(|input| input.utype = 5).contains("InvalidEncryptedInput("));
    assert!(changed(|input| input.security_zone = 1).contains("InvalidSecurityZone("));
    assert!(changed(|input| input.signature = vec![0; 65]).contains("InvalidSignature("));
    assert!(changed(|input| input.signature.truncate(64)).contains("InvalidSignature("));
    // A transaction that reverts is mined, stores nothing and spends its nonce.
    let receipt = net.send(&stranger, store_key(&[high.clone(), low.clone()], &[]));
    assert_eq!((&receipt["status"], &receipt["logs"]), (&"0x0".into(), &json!([])));
    assert_eq!(net.draft(&stranger, Vec::new()).nonce, 1);
    assert_eq!(net.chain.encrypted_key(JOB).unwrap(), None);
    net.chain.store_key(user.address(), JOB, [&high, &low], &[]).unwrap();
}

#[test]
fn lists_that_are_wrong() {
    let net = Net::new();
    let account = Account::new(1).address();
    let good = verify_body(account, &VALUES);
    let list = good["packed_list"].as_str().unwrap();
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        assert_ne!(body, good);
        ask(&net, &body)
    };
    let metadata = "packed_list: wanted the security zone, account and chain id of the request";
    for ((status, answer), says) in [
        (with("account_addr", Account::new(3).address().to_string().into()), metadata),
        (with("account_addr", "0x12".into()), "account_addr: wanted 0x and 40 hex digits"),
        (with("chain_id", 1.into()), "chain_id: wanted 421614, got 1"),
        (with("security_zone", 1.into()), "security_zone: wanted 0, got 1"),
        (with("packed_list", format!("0x{list}").into()), "packed_list: wanted hex digits"),
        (with("packed_list", list.replacen("62", "63", 1).into()), "packed_list: wanted blf.clear/v1"),
        (with("packed_list", format!("{list}00").into()), "packed_list: wanted 1 to 16 values"),
        (ask(&net, &verify_body(account, &[])), "packed_list: wanted 1 to 16 values"),
        (ask(&net, &verify_body(account, &[1; 17])), "packed_list: wanted 1 to 16 values"),
        (with("more", 1.into()), "unknown field `more`"),
    ] {
        assert_eq!((status, &answer["status"], &answer["data"]), (400, &"failure".into(), &json!([])), "{answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.starts_with("body: ") || error.starts_with(says), "{error}: wanted {says}");
        assert!(!error.contains(&hex::encode(VALUES[0].to_be_bytes())), "{error}: shows a value");
    }
    assert_eq!(net.cofhe.verifier("POST", "/verify", &vec![b' '; BODY_CAP + 1]).status, 413);
    assert_eq!(net.cofhe.verifier("GET", "/verify", b"").status, 404);
    assert_eq!(ask(&net, &verify_body(account, &[1; 16])).0, 200);
}

#[test]
fn a_verifier_that_misbehaves() {
    let net = Net::new();
    let user = Account::new(1);
    let asked = |verify| {
        net.cofhe.set(Knobs { verify, ..Knobs::default() });
        net.cofhe.verifier("POST", "/verify", verify_body(user.address(), &VALUES).to_string().as_bytes())
    };
    let fails = asked(Verify::Fails("no proof".into()));
    assert_eq!((fails.status, &document(&fails)["error"]), (200, &"no proof".into()));
    assert_eq!(asked(Verify::Refuses(503)).status, 503);
    assert_eq!(document(&asked(Verify::OneMissing))["data"].as_array().unwrap().len(), 1);
    let [high, low] = inputs(&asked(Verify::OtherKey));
    assert!(reverts(&net, &user, [&high, &low]).contains("InvalidSigner("));
    let [high, low] = inputs(&asked(Verify::Right));
    net.chain.store_key(user.address(), JOB, [&high, &low], &[]).unwrap();
}

#[test]
fn the_coordinator_has_no_keys_in_clear_mode() {
    let net = Net::new();
    for path in ["/GetNetworkPublicKey", "/GetCrs"] {
        let answer = net.cofhe.coordinator("POST", path, br#"{"securityZone":0}"#);
        assert_eq!(answer.status, 501);
        assert!(document(&answer)["message"].as_str().unwrap().starts_with("clear mode: this network has no"));
    }
    assert_eq!(net.cofhe.coordinator("GET", "/GetCrs", b"").status, 404);
}
