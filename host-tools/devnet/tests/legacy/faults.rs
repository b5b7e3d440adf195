//! What tests of reliability make go wrong.

use blf_devnet::{Fault, Faults, Options, Rate};
use serde_json::json;

use crate::net::{Net, task};

#[tokio::test]
async fn answers_go_wrong_as_often_as_told() {
    let faults = Faults::default();
    let net = Net::with(|options| options.faults = faults.clone()).await;
    let node = &net.nodes(1).await[0];
    let path = format!("/internal/assignments/{}", node.address);
    for (status, retry_after) in [(401, None), (404, None), (409, None), (429, Some(7)), (500, None), (503, Some(1))] {
        faults.add(Fault { path: "/internal/assignments/", times: 2, status, retry_after });
        // Another path is not met by it.
        let challenge = format!("/internal/challenge/{}", node.address);
        node.get(&challenge).await.ok();
        for _ in 0..2 {
            let reply = node.get(&path).await;
            assert_eq!(reply.status, status);
            let header = reply.headers.get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(header, retry_after.map(|seconds| seconds.to_string()));
            assert!(reply.json()["detail"].is_string());
        }
        assert_eq!(faults.left(), 0);
        node.get(&path).await.ok();
    }
    net.stop().await;
}

/// Lost state: nodes are unknown until they attest again; jobs are still there.
#[tokio::test]
async fn all_nodes_are_forgotten() {
    let faults = Faults::default();
    let net = Net::with(|options| options.faults = faults.clone()).await;
    let nodes = net.nodes(3).await;
    net.job(&task(1), &[&nodes[0], &nodes[1], &nodes[2]]).await;
    faults.forget_nodes();
    let path = format!("/internal/assignments/{}", nodes[0].address);
    for _ in 0..2 {
        assert_eq!(nodes[0].get(&path).await.status, 404);
    }
    nodes[0].attest().await;
    assert_eq!(nodes[0].poll().await.len(), 1);
    assert_eq!(net.get("/v1/inference/quorum-preview?model_id=m").await.status, 400);
    net.stop().await;
}

/// Today's coordinator does not tell a node that it was forgotten: nothing waits for it, and that is all.
#[tokio::test]
async fn nodes_are_forgotten_in_silence() {
    let faults = Faults::default();
    let net = Net::with(|options| options.faults = faults.clone()).await;
    let nodes = net.nodes(3).await;
    net.job(&task(1), &[&nodes[0], &nodes[1], &nodes[2]]).await;
    faults.hide_unknown();
    assert_eq!(nodes[0].poll().await.len(), 1, "it is known");
    faults.forget_nodes();
    assert!(nodes[0].poll().await.is_empty());
    assert!(net.stranger(1).poll().await.is_empty());
    nodes[0].attest().await;
    assert_eq!(nodes[0].poll().await.len(), 1);
    net.stop().await;
}

/// Limits and caps of our own, in today's shape.
#[tokio::test]
async fn limits() {
    let mut options = Options::legacy(blf_devnet::LegacyOptions::default()).unwrap();
    options.peer_rate = Rate { burst: 2, per_second: 1 };
    let net = Net::of(options).await;
    let mut reply = net.get("/").await;
    // One comes back each second, so a slow machine may be allowed more than two.
    for _ in 0..100 {
        if reply.status != 200 {
            break;
        }
        reply = net.get("/").await;
    }
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(reply.refused(), (429, json!("requests: too many")));
    net.stop().await;
}

#[tokio::test]
async fn large_bodies() {
    let net = Net::start().await;
    let reply = net.send("POST", "/internal/heartbeat", &[], " ".repeat(64 * 1024 + 1)).await;
    assert_eq!(reply.status, 413);
    assert!(reply.json()["detail"].is_string());
    net.stop().await;
}
