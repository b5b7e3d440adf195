//! Every answer of the threshold network, and every refusal.

use std::time::Duration;

use blf_devnet::cofhe::{BODY_CAP, Boxing, End, Knobs, Shape, Submit};
use crypto_box::SecretKey;
use serde_json::{Value, json};

use crate::net::{Account, CHAIN, Net, START, VALUES, document, trimmed, unseal};

struct Asked {
    net: Net,
    handles: [[u8; 32]; 2],
    permit: Value,
    secret: SecretKey,
}

impl Asked {
    fn new(knobs: Knobs) -> Self {
        let net = Net::new();
        let node = Account::new(2);
        let handles = net.store(&Account::new(1), &[node.address()]);
        let secret = SecretKey::from([9; 32]);
        let permit = node.permit(&net, &secret);
        net.cofhe.set(knobs);
        Self { net, handles, permit, secret }
    }

    fn submit(&self) -> (u16, Value) {
        self.submit_for(0)
    }

    fn submit_for(&self, half: usize) -> (u16, Value) {
        let answer = self.net.submit(self.handles[half], &self.permit);
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    fn poll(&self, id: &Value) -> (u16, Value) {
        let answer = self.net.cofhe.threshold("GET", &format!("/v2/sealoutput/{}", id.as_str().unwrap()), b"");
        (answer.status, document(&answer))
    }

    /// The status and message of a submit with this body.
    fn refusal(&self, body: &str) -> (u16, String) {
        let answer = self.net.cofhe.threshold("POST", "/v2/sealoutput", body.as_bytes());
        (answer.status, document(&answer)["message"].as_str().unwrap().into())
    }
}

fn submits(submits: Vec<Submit>) -> Knobs {
    Knobs { submits, ..Knobs::default() }
}

#[test]
fn each_half_walks_through_the_answers_by_itself() {
    let asked = Asked::new(submits(vec![Submit::NotYet, Submit::Refused(404), Submit::AtOnce(Shape::Flat)]));
    for half in [0, 1] {
        let answer = asked.net.submit(asked.handles[half], &asked.permit);
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        assert_eq!(asked.submit_for(half).0, 404);
        for _ in 0..2 {
            let (status, flat) = asked.submit_for(half);
            assert_eq!((status, flat.get("sealed")), (200, None));
            let (data, public_key) = (&flat["sealed_data"], &flat["ephemeral_public_key"]);
            let sealed = json!({ "data": data, "public_key": public_key, "nonce": flat["nonce"] });
            assert_eq!(unseal(&asked.secret, &sealed).unwrap(), trimmed(VALUES[half]));
        }
    }
}

#[test]
fn at_once_and_by_a_fresh_key_each_time() {
    let asked = Asked::new(submits(vec![Submit::AtOnce(Shape::Nested)]));
    let (_, first) = asked.submit();
    let (_, second) = asked.submit();
    assert_eq!(unseal(&asked.secret, &first["sealed"]).unwrap(), trimmed(VALUES[0]));
    assert_ne!(first["sealed"]["public_key"], second["sealed"]["public_key"]);
    assert_ne!(first["sealed"]["nonce"], second["sealed"]["nonce"]);
}

#[test]
fn later() {
    let asked = Asked::new(submits(vec![Submit::Later { processing: 2, end: End::Sealed }]));
    let (status, submitted) = asked.submit();
    assert_eq!((status, submitted.as_object().unwrap().len()), (200, 1));
    for _ in 0..2 {
        let (_, answer) = asked.poll(&submitted["request_id"]);
        let (status, at) = (&answer["status"], &answer["submitted_at"]);
        assert_eq!((status, at), (&"PROCESSING".into(), &"2026-11-20T09:08:08Z".into()));
        assert_eq!((answer.get("sealed"), &answer["is_succeed"]), (None, &false.into()));
    }
    asked.net.set_clock(START + 2);
    for _ in 0..2 {
        let (_, answer) = asked.poll(&submitted["request_id"]);
        assert_eq!((&answer["request_id"], &answer["encryption_type"]), (&submitted["request_id"], &6.into()));
        assert_eq!(answer["completed_at"], "2026-11-20T09:08:10Z");
        assert_eq!(unseal(&asked.secret, &answer["sealed"]).unwrap(), trimmed(VALUES[0]));
    }
}

#[test]
fn failures() {
    let fails = || "sealing failed".to_owned();
    let asked = Asked::new(submits(vec![
        Submit::Later { processing: 0, end: End::Fails(fails()) },
        Submit::Later { processing: 0, end: End::Gone },
        Submit::Fails(fails()),
        Submit::Refused(503),
    ]));
    let (_, answer) = asked.poll(&asked.submit().1["request_id"]);
    assert_eq!((&answer["is_succeed"], &answer["error_message"]), (&false.into(), &fails().into()));
    assert_eq!((&answer["status"], answer.get("sealed")), (&"COMPLETED".into(), None));
    assert_eq!(asked.poll(&asked.submit().1["request_id"]).0, 404);
    let (status, answer) = asked.submit();
    assert_eq!((status, &answer["is_succeed"], &answer["error_message"]), (200, &false.into(), &fails().into()));
    assert_eq!(asked.submit().0, 503);
    assert_eq!(asked.poll(&"0".into()).0, 404);
}

#[test]
fn boxes_that_are_wrong_or_odd() {
    let sealed = |boxing| {
        let asked = Asked::new(Knobs { boxing, ..submits(vec![Submit::AtOnce(Shape::Nested)]) });
        unseal(&asked.secret, &asked.submit().1["sealed"])
    };
    assert_eq!(sealed(Boxing::OtherKey), None);
    assert_eq!(sealed(Boxing::Tampered), None);
    assert_eq!(sealed(Boxing::TooLarge).unwrap(), [&[1][..], &[0; 16]].concat());
    assert_eq!(sealed(Boxing::Padded(32)).unwrap(), [[0; 16], VALUES[0].to_be_bytes()].concat());
    assert_eq!(sealed(Boxing::Padded(16)).unwrap(), VALUES[0].to_be_bytes());
    assert_eq!(sealed(Boxing::Right).unwrap(), trimmed(VALUES[0]));
}

#[test]
fn every_answer_takes_its_time() {
    let asked = Asked::new(Knobs { after: Duration::from_secs(3), ..submits(vec![Submit::NotYet]) });
    let after = |answer: blf_devnet::cofhe::Answer| answer.after.as_secs();
    assert_eq!(after(asked.net.submit(asked.handles[0], &asked.permit)), 3);
    assert_eq!(after(asked.net.submit([1; 32], &asked.permit)), 3);
    assert_eq!(after(asked.net.cofhe.verifier("POST", "/verify", b"")), 3);
    assert_eq!(after(asked.net.cofhe.coordinator("POST", "/GetCrs", b"")), 3);
    assert_eq!(after(asked.net.cofhe.python("POST", "/", b"")), 3);
}

#[test]
fn requests_that_are_wrong() {
    let asked = Asked::new(Knobs::default());
    let good = json!({ "ct_tempkey": hex::encode(asked.handles[0]), "host_chain_id": CHAIN, "permit": asked.permit });
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body);
        assert_ne!(body, good);
        asked.refusal(&body.to_string())
    };
    let permit = |name: &'static str, value: Value| with(&|body| body["permit"][name] = value.clone());
    for ((status, message), wanted, says) in [
        (with(&|body| body["ct_tempkey"] = format!("0x{}", hex::encode([1; 32])).into()), 400, "64 lower-case digits"),
        (with(&|body| body["ct_tempkey"] = hex::encode([1; 32]).into()), 404, "no ciphertext 0101"),
        (with(&|body| body["host_chain_id"] = 1.into()), 400, "host_chain_id: wanted 421614, got 1"),
        (with(&|body| body["more"] = 1.into()), 400, "unknown field `more`"),
        (with(&|body| body["permit"] = Value::Null), 400, "body: "),
        (permit("more", 1.into()), 400, "unknown field `more`"),
        (permit("issuer", "0x12".into()), 400, "permit.issuer: wanted 0x and 40 hex digits"),
        (permit("sealingKey", "0x12".into()), 400, "permit.sealingKey: wanted 32 bytes"),
        (permit("issuerSignature", "12".into()), 400, "permit.issuerSignature: wanted 0x"),
        (permit("issuerSignature", "0x12".into()), 403, "PermissionInvalid_IssuerSignature"),
        (permit("issuer", Account::new(3).address().to_string().into()), 403, "PermissionInvalid_IssuerSignature"),
        (permit("expiration", (START - 1).into()), 403, "PermissionInvalid_Expired"),
        (asked.refusal("[]"), 400, "body: "),
        (asked.refusal(&"[".repeat(1000)), 400, "body: "),
        (asked.refusal(&" ".repeat(BODY_CAP + 1)), 413, "wanted at most"),
    ] {
        assert_eq!(status, wanted, "{message}");
        assert!(message.contains(says), "{message}: wanted {says}");
    }
    for (method, path) in
        [("GET", "/v2/sealoutput"), ("POST", "/v2/sealoutput/1"), ("POST", "/v2/decrypt"), ("GET", "/")]
    {
        assert_eq!(asked.net.cofhe.threshold(method, path, b"").status, 404, "{method} {path}");
    }
    assert_eq!(asked.submit().0, 200);
}
