//! How a node comes in, which is by asking.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::net::{Net, START};

/// The vectors of the published node.
pub(crate) fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/node-0.3.5.json")).unwrap()
}

#[tokio::test]
async fn the_roots() {
    let net = Net::start().await;
    assert_eq!(net.get("/").await.ok(), json!({ "message": "Blindference ICL is running" }));
    let health = json!({ "status": "ok", "chain_connected": true, "mongo_connected": true });
    assert_eq!(net.get("/health").await.ok(), health);
    assert_eq!(net.get("/nothing").await.refused(), (404, json!("Not Found")));
    net.stop().await;
}

#[tokio::test]
async fn challenge() {
    let net = Net::start().await;
    let node = net.stranger(1);
    let path = format!("/internal/challenge/{}", node.address);
    let mut nonces = BTreeSet::new();
    for _ in 0..2 {
        let reply = node.get(&path).await.ok();
        let names: BTreeSet<_> = reply.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, BTreeSet::from(["challengeId", "expiresAt", "nonce"]));
        let id = reply["challengeId"].as_str().unwrap();
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4", "version 4");
        let nonce = reply["nonce"].as_str().unwrap();
        assert_eq!((nonce.len(), &nonce[..2]), (66, "0x"));
        assert!(hex::decode(&nonce[2..]).is_ok() && &nonce[14..15] == "4" && &nonce[46..47] == "4", "two UUIDs");
        assert_eq!(reply["expiresAt"], START + 300);
        nonces.insert(nonce.to_owned());
    }
    assert_eq!(nonces.len(), 2);
    net.stop().await;
}

/// Neither challenge nor quote is looked at; the hash is 16 random bytes; a declared tier is believed.
#[tokio::test]
async fn certificate() {
    let net = Net::start().await;
    let node = net.stranger(1);
    let mut hashes = BTreeSet::new();
    for (change, tier) in [
        (json!({}), 0),
        (json!({ "backendType": "sev" }), 0),
        (json!({ "backendType": "tpm" }), 1),
        (json!({ "tier": 2 }), 2),
        (json!({ "backendType": null, "quote": null }), 0),
    ] {
        let mut body = node.attestation();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let reply = node.post("/internal/attestation/verify", &body).await.ok();
        assert_eq!((&reply["expiry"], &reply["tier"]), (&json!(START + 86_400), &json!(tier)), "{change}");
        let hash = reply["certHash"].as_str().unwrap();
        assert_eq!((hash.len(), &hash[..2]), (34, "0x"), "16 bytes");
        assert!(hashes.insert(hash.to_owned()));
    }
    net.stop().await;
}

#[tokio::test]
async fn attestation_is_refused_for_two_reasons_only() {
    let net = Net::with(|options| options.accept = blf_devnet::Accept::Anything).await;
    let path = "/internal/attestation/verify";
    let text = net.send("POST", path, &[], "{".into()).await;
    assert_eq!(text.refused(), (400, json!("Invalid JSON body")));
    assert_eq!(net.post(path, &json!({})).await.refused(), (400, json!("nodeAddress is required")));
    let unsigned = net.post(path, &net.stranger(1).attestation()).await.ok();
    assert_eq!(unsigned["tier"], 0);
    net.stop().await;
}

/// A cap of our own: anybody may attest.
#[tokio::test]
async fn nodes_have_a_number() {
    let net = Net::with(|options| options.accept = blf_devnet::Accept::Anything).await;
    let attest = async |number: u32| {
        net.post("/internal/attestation/verify", &json!({ "nodeAddress": format!("0x{number:040x}") })).await
    };
    for number in 1..=1024 {
        attest(number).await.ok();
    }
    assert_eq!(attest(1025).await.refused(), (503, json!("nodes: wanted at most 1024")), "TOO_MANY_NODES");
    attest(1024).await.ok();
    net.stop().await;
}

#[tokio::test]
async fn heartbeat() {
    let net = Net::start().await;
    let (known, unknown) = (&net.nodes(1).await[0], net.stranger(2));
    for node in [known, &unknown] {
        let body = json!({ "nodeAddress": node.address, "timestamp": START.to_string() });
        assert_eq!(node.post("/internal/heartbeat", &body).await.ok(), json!({ "status": "ok" }));
    }
    let nobody = known.post("/internal/heartbeat", &json!({})).await;
    assert_eq!(nobody.refused(), (400, json!("nodeAddress is required")));
    // It made nobody known.
    let path = format!("/internal/assignments/{}", unknown.address);
    assert_eq!(unknown.get(&path).await.status, 404);
    net.stop().await;
}

/// The one thing today's coordinator does not do: whoever is unknown is told so, and attests again.
#[tokio::test]
async fn an_unknown_node_is_told_so() {
    let net = Net::start().await;
    let node = net.stranger(1);
    let path = format!("/internal/assignments/{}", node.address);
    let detail = format!("node {} is unknown: attest again", node.address);
    assert_eq!(node.get(&path).await.refused(), (404, json!(detail)));
    node.attest().await;
    assert_eq!(node.get(&path).await.ok(), json!({ "assignments": [] }));
    net.stop().await;
}

/// The quote of the published node is an HMAC that anybody can make, and this is it.
#[tokio::test]
async fn the_mock_quote_is_what_the_vector_says() {
    let vector = &vectors()["attestation"];
    let text = |member: &str| vector[member].as_str().unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, text("key").as_bytes());
    let quote = aws_lc_rs::hmac::sign(&key, &hex::decode(text("nonce")).unwrap());
    assert_eq!(hex::encode(quote), text("quote"));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text("runtime").as_bytes());
    assert_eq!(hex::encode(digest), text("runtime_hash"));
}
