//! Who signed: the published node's signatures hold, and nothing else does unless anything is accepted.

use blf_devnet::Accept;
use serde_json::json;

use crate::attestation::vectors;
use crate::net::{Net, START};

#[tokio::test]
async fn signatures_of_the_published_node() {
    let vectors = vectors();
    let net = Net::start().await;
    let (address, time) = (vectors["address"].as_str().unwrap(), vectors["timestamp"].as_str().unwrap());
    assert_eq!(time, START.to_string());
    assert_eq!(address, net.stranger(1001).address.to_string());
    let recorded = vectors["signatures"].as_array().unwrap();
    assert_eq!(recorded.len(), 3);
    // The attestation first, so that the node is known.
    for vector in recorded.iter().rev() {
        let (method, path) = vector["request"].as_str().unwrap().split_once(' ').unwrap();
        let (body, signature) = (vector["body"].as_str().unwrap(), vector["signature"].as_str().unwrap());
        let send = async |body: &str, signature: &str| {
            let headers = [("X-Node-Address", address), ("X-Timestamp", time), ("X-Signature", signature)];
            net.send(method, path, &headers, body.into()).await
        };
        send(body, signature).await.ok();
        assert_eq!(send(&format!("{body} "), signature).await.status, 401, "another body");
        assert_eq!(send(body, &signature.replace("0x", "0x0")).await.status, 401, "too long");
        // What we sign ourselves is the same: both are RFC 6979.
        let headers = net.stranger(1001).headers(body);
        assert!(headers.contains(&("X-Signature", signature.to_owned())), "{path}");
    }
    net.stop().await;
}

/// Every way in which a request of a node can be somebody else's.
#[tokio::test]
async fn strict_signatures() {
    let net = Net::start().await;
    let node = &net.nodes(1).await[0];
    let path = format!("/internal/assignments/{}", node.address);
    node.get(&path).await.ok();
    let good = node.headers("");
    let other = net.stranger(2);
    let lower = node.address.to_string().to_lowercase();
    for (name, value, says) in [
        ("X-Node-Address", other.address.to_string(), "wanted 0x"),
        ("X-Node-Address", lower.clone(), "EIP-55"),
        ("X-Node-Address", String::new(), "address"),
        ("X-Timestamp", (START - 301).to_string(), "within 300 seconds"),
        ("X-Timestamp", (START + 301).to_string(), "within 300 seconds"),
        ("X-Timestamp", "soon".into(), "x-timestamp"),
        ("X-Signature", "0x00".into(), "130"),
    ] {
        let headers: Vec<_> =
            good.iter().map(|(n, v)| if *n == name { (*n, value.as_str()) } else { (*n, v.as_str()) }).collect();
        let (status, detail) = net.send("GET", &path, &headers, String::new()).await.refused();
        assert_eq!(status, 401, "{name} {value}");
        assert!(detail.as_str().unwrap().contains(says), "{name} {value}: {detail}");
    }
    assert_eq!(net.get(&path).await.status, 401, "unsigned");
    // The address in path or body must be the signer's, letter for letter.
    assert_eq!(other.get(&path).await.status, 401);
    assert_eq!(node.get(&format!("/internal/assignments/{lower}")).await.status, 401);
    let beat = json!({ "nodeAddress": other.address, "timestamp": "0" });
    assert_eq!(node.post("/internal/heartbeat", &beat).await.status, 401);
    let claim = json!({ "jobId": "x", "nodeAddress": other.address });
    assert_eq!(node.post("/internal/task/claim", &claim).await.status, 401);
    net.stop().await;
}

/// A time of up to five minutes' difference is good.
#[tokio::test]
async fn clocks_may_differ_by_five_minutes() {
    let net = Net::start().await;
    let node = &net.nodes(1).await[0];
    let path = format!("/internal/assignments/{}", node.address);
    let headers = node.headers("");
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    net.forward(300);
    net.send("GET", &path, &headers, String::new()).await.ok();
    net.forward(1);
    assert_eq!(net.send("GET", &path, &headers, String::new()).await.status, 401);
    net.stop().await;
}

/// Users sign nothing; if they do, it must be good.
#[tokio::test]
async fn users_need_not_sign() {
    let net = Net::start().await;
    net.nodes(3).await;
    let path = format!("/v1/inference/quorum-preview?model_id={}", crate::net::MODEL);
    net.get(&path).await.ok();
    net.stranger(9).get(&path).await.ok();
    let bad = [("X-Node-Address", "0x5935897A39AFABbedA5a599D38236E7Df151C8b8")];
    assert_eq!(net.send("GET", &path, &bad, String::new()).await.status, 401);
    net.stop().await;
}

#[tokio::test]
async fn anything_is_accepted_when_told_so() {
    let net = Net::with(|options| options.accept = Accept::Anything).await;
    let node = &net.nodes(1).await[0];
    let path = format!("/internal/assignments/{}", node.address);
    net.get(&path).await.ok();
    net.get(&path.to_lowercase()).await.ok();
    net.send("GET", &path, &[("X-Node-Address", "x"), ("X-Signature", "y")], String::new()).await.ok();
    net.stop().await;
}
