//! What is accepted, and what should not be.

use serde_json::{Value, json};

use crate::net::{Net, Node, START, task};

/// The user's view after these commitments: the leader's, then the verifiers'.
async fn outcome(commitments: &[(&str, &str)]) -> Value {
    let net = Net::start().await;
    let nodes = net.nodes(u16::try_from(commitments.len()).unwrap()).await;
    let task = task(1);
    net.job(&task, &nodes.iter().collect::<Vec<_>>()).await;
    for (i, (commitment, verdict)) in commitments.iter().enumerate() {
        match i {
            0 => nodes[0].result(&task, commitment).await.ok(),
            i => nodes[i].verify(&task, commitment, verdict).await.ok(),
        };
    }
    let status = net.status(&task).await;
    net.stop().await;
    status
}

#[tokio::test]
async fn two_of_three() {
    let status = outcome(&[("aa", ""), ("bb", "CONFIRM"), ("aa", "CONFIRM")]).await;
    assert_eq!((&status["status"], &status["commitment_hash"]), (&json!("ACCEPTED"), &json!("aa")));
    assert_eq!((&status["quorum"]["confirmations"], &status["quorum"]["confidence"]), (&json!(2), &json!(100)));
}

/// The first verifier that agrees ends it; nobody waits for the other.
#[tokio::test]
async fn it_ends_as_soon_as_it_can() {
    let status = outcome(&[("aa", ""), ("aa", "CONFIRM")]).await;
    assert_eq!((&status["status"], &status["quorum"]["confirmations"]), (&json!("ACCEPTED"), &json!(2)));
}

/// `0xaa` is not `aa`, nor is `AA`: commitments are compared as texts.
#[tokio::test]
async fn commitments_are_texts() {
    for other in ["0xaa", "AA"] {
        let status = outcome(&[("aa", ""), (other, "CONFIRM")]).await;
        assert_eq!(status["status"], "REJECTED", "{other}");
        assert_eq!(status["reject_reason"], "Quorum rejected: 1 confirms vs 2 required");
    }
}

#[tokio::test]
async fn a_rejection_with_an_equal_commitment_confirms() {
    let status = outcome(&[("aa", ""), ("aa", "REJECT"), ("bb", "CONFIRM")]).await;
    assert_eq!(status["status"], "ACCEPTED");
    let verdict = &status["verifier_verdicts"][0];
    assert_eq!(
        (&verdict["accepted"], &verdict["reason"]),
        (&json!(false), &json!("verifier rejected text commitment"))
    );
}

/// Two verifiers outvote the leader, whose output is served all the same.
#[tokio::test]
async fn a_group_without_the_leader_wins_for_the_leader() {
    let status = outcome(&[("aa", ""), ("bb", "CONFIRM"), ("bb", "CONFIRM")]).await;
    assert_eq!((&status["status"], &status["commitment_hash"]), (&json!("ACCEPTED"), &json!("bb")));
    assert_eq!(status["output_cid"], "QmOutput");
    assert_eq!(status["leader_submission"]["result_hash"], "aa");
}

#[tokio::test]
async fn nothing_ends_without_the_leader() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let task = task(1);
    net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    for verifier in &nodes[1..] {
        let reply = verifier.verify(&task, "bb", "CONFIRM").await.ok();
        assert_eq!((&reply["status"], &reply["finalized"]), (&json!("verifier_verdict_recorded"), &json!(false)));
    }
    assert_eq!(net.status(&task).await["status"], "QUEUED");
    let reply = nodes[0].result(&task, "aa").await.ok();
    assert_eq!((&reply["status"], &reply["finalized"]), (&json!("committed"), &json!(true)));
    net.stop().await;
}

/// A quorum of four needs three; without them all must have spoken before it is rejected.
#[tokio::test]
async fn three_of_four() {
    let status = outcome(&[("aa", ""), ("aa", "CONFIRM")]).await;
    assert_eq!(status["status"], "ACCEPTED");
    let net = Net::start().await;
    let nodes = net.nodes(4).await;
    let task = task(1);
    net.job(&task, &nodes.iter().collect::<Vec<_>>()).await;
    nodes[0].result(&task, "aa").await.ok();
    nodes[1].verify(&task, "aa", "CONFIRM").await.ok();
    nodes[2].verify(&task, "bb", "CONFIRM").await.ok();
    assert_eq!(net.status(&task).await["status"], "QUEUED");
    nodes[3].verify(&task, "cc", "CONFIRM").await.ok();
    let status = net.status(&task).await;
    assert_eq!(status["reject_reason"], "Quorum rejected: 2 confirms vs 3 required");
    net.stop().await;
}

/// The leader's confidence counts if it gives one: the mean of those that agree.
#[tokio::test]
async fn confidence() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let task = task(1);
    net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    let result =
        json!({ "jobId": task, "output_cid": "Qm", "commitment_hash": "aa", "verdict": "confirm", "confidence": 93 });
    nodes[0].post("/internal/task/result", &result).await.ok();
    let verdict = json!({
        "jobId": task, "verifier_address": nodes[1].address, "commitment_hash": "aa", "verdict": "confirm",
        "confidence": 88,
    });
    nodes[1].post("/internal/task/verify", &verdict).await.ok();
    assert_eq!(net.status(&task).await["quorum"]["confidence"], 90);
    net.stop().await;
}

/// Nobody stops a second result, not even after the end.
#[tokio::test]
async fn a_late_result_replaces_what_was_accepted() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let task = task(1);
    net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    nodes[0].result(&task, "aa").await.ok();
    nodes[1].verify(&task, "aa", "CONFIRM").await.ok();
    let body = json!({ "jobId": task, "output_cid": "QmOther", "commitment_hash": "zz" });
    // It need not be the leader's: a result names nobody.
    let reply = nodes[2].post("/internal/task/result", &body).await.ok();
    assert_eq!((&reply["status"], &reply["finalized"]), (&json!("committed"), &json!(true)));
    let status = net.status(&task).await;
    assert_eq!((&status["status"], &status["output_cid"]), (&json!("ACCEPTED"), &json!("QmOther")));
    assert_eq!(status["commitment_hash"], "zz");
    net.stop().await;
}

/// Failures in a row of a node, as the payment service tells of them.
async fn failures(net: &Net, node: &Node) -> Value {
    net.get(&format!("/v1/nodes/{}/stats", node.address)).await.ok()["slash_count"].clone()
}

/// Who claims and does not deliver fails after five minutes, but only when it polls; and a verifier that has delivered
/// fails too while the leader is missing.
#[tokio::test]
async fn late_nodes_fail_when_they_poll() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let task = task(1);
    net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    for node in &nodes {
        node.claim(&task).await.ok();
    }
    nodes[1].verify(&task, "aa", "CONFIRM").await.ok();
    net.forward(300);
    nodes[1].poll().await;
    assert_eq!(failures(&net, &nodes[1]).await, 0, "not yet");
    net.forward(1);
    assert!(nodes[1].poll().await.is_empty());
    assert_eq!(failures(&net, &nodes[1]).await, 1, "it had delivered");
    assert_eq!(failures(&net, &nodes[2]).await, 0, "it did not poll");
    nodes[1].poll().await;
    assert_eq!(failures(&net, &nodes[1]).await, 1, "once for each job");
    // The job is still there for the others, and still accepted.
    nodes[0].result(&task, "aa").await.ok();
    assert_eq!(net.status(&task).await["status"], "ACCEPTED");
    assert_eq!(failures(&net, &nodes[1]).await, 0, "success ends the row");
    net.stop().await;
}

/// A job fails when all of its nodes have, and is shown as queued for ever.
#[tokio::test]
async fn a_failed_job_looks_queued() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    for job in 1..=3 {
        let task = task(job);
        net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
        for node in &nodes {
            node.claim(&task).await.ok();
        }
        net.forward(301);
        for node in &nodes {
            node.poll().await;
        }
        assert_eq!(net.status(&task).await["status"], "QUEUED");
        let jobs = net.get(&format!("/v1/nodes/{}/jobs", nodes[0].address)).await.ok();
        assert_eq!((&jobs["jobs"][0]["status"], &jobs["count"]), (&json!("FAILED"), &json!(job)));
    }
    // Three in a row: slashed, and chosen no more.
    let stats = net.get(&format!("/v1/nodes/{}/stats", nodes[0].address)).await.ok();
    assert_eq!((&stats["slashed"], &stats["failed"]), (&json!(true), &json!(3)));
    let preview = net.get("/v1/inference/quorum-preview?model_id=m").await;
    assert_eq!(preview.refused(), (400, json!("not enough active nodes available for the requested quorum")));
    net.stop().await;
}

/// A node counts as there while it beats or is attested: only both over make it gone.
#[tokio::test]
async fn nodes_are_gone_late() {
    let net = Net::start().await;
    let nodes = net.nodes(2).await;
    let path = "/v1/inference/quorum-preview?model_id=m&verifier_count=1";
    net.forward(86_400);
    net.get(path).await.ok();
    net.forward(1);
    assert_eq!(net.get(path).await.status, 400);
    for node in &nodes {
        let body = json!({ "nodeAddress": node.address, "timestamp": (START + 86_401).to_string() });
        node.post("/internal/heartbeat", &body).await.ok();
    }
    net.get(path).await.ok();
    net.forward(300);
    net.get(path).await.ok();
    net.forward(1);
    assert_eq!(net.get(path).await.status, 400);
    net.stop().await;
}
