//! What nodes see of a job, from the poll to the status.

use blf_devnet::Accept;
use serde_json::{Value, json};

use crate::net::{HIGH, LOW, MODEL, Net, START, submission, task};

#[tokio::test]
async fn assignment() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let task = task(1);
    net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    for (node, role) in nodes.iter().zip(["leader", "verifier", "verifier"]) {
        let wanted = json!({
            "jobId": task, "role": role, "modelId": MODEL, "promptCid": "QmPrompt", "deadline": START + 600,
            "insuranceOptIn": false, "userAddress": "0x00000000000000000000000000000000000000AA",
            "kpHighHandle": HIGH, "kpLowHandle": LOW, "permit": null,
        });
        assert_eq!(node.poll().await, [wanted]);
    }
    // The deadline moves with every poll: nobody minds it.
    net.forward(100);
    assert_eq!(nodes[0].poll().await[0]["deadline"], START + 700);
    net.stop().await;
}

/// Handles are texts in assignments and bare numbers of up to 78 digits in the reply to a claim.
#[tokio::test]
async fn claim() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let task = task(1);
    net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    let reply = nodes[0].claim(&task).await;
    let wanted = format!(
        r#"{{"kpHighHandle":{HIGH},"kpLowHandle":10,"outputKeyGranted":true,"claimDeadline":{}}}"#,
        START + 300
    );
    assert_eq!((reply.status, reply.text), (200, wanted));
    assert!(nodes[0].poll().await.is_empty(), "it is claimed");
    assert_eq!(nodes[1].poll().await.len(), 1);
    // The published node claims twice.
    assert_eq!(nodes[0].claim(&task).await.status, 200);
    net.stop().await;
}

#[tokio::test]
async fn claims_of_what_is_not_there() {
    let net = Net::start().await;
    let node = &net.nodes(1).await[0];
    let reply = node.claim("unknown").await.ok();
    assert_eq!((&reply["kpHighHandle"], &reply["kpLowHandle"]), (&json!(0), &json!(0)));
    assert_eq!(reply["outputKeyGranted"], true);
    for body in [json!({}), json!({ "jobId": "x" }), json!({ "nodeAddress": node.address })] {
        let refused = node.post("/internal/task/claim", &body).await.refused();
        assert_eq!(refused, (400, json!("jobId and nodeAddress are required")), "{body}");
    }
    net.stop().await;
}

/// Anybody may claim anything, and gets the handles; only a seat of one's own is taken.
#[tokio::test]
async fn a_stranger_claims() {
    let net = Net::start().await;
    let nodes = net.nodes(4).await;
    let task = task(1);
    net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    let reply = nodes[3].claim(&task).await;
    assert!(reply.text.contains(HIGH), "{reply:?}");
    assert_eq!(nodes[0].poll().await.len(), 1);
    net.stop().await;
}

/// A leader that asks with a lower-case address is told that it verifies.
#[tokio::test]
async fn the_role_goes_by_the_spelling() {
    let net = Net::with(|options| options.accept = Accept::Anything).await;
    let nodes = net.nodes(3).await;
    let mut request = submission(&task(1), &[&nodes[0], &nodes[1], &nodes[2]]);
    request["permits"] =
        json!([{ "node": nodes[0].address, "permit": { "a": 1 } }, { "node": nodes[1].address, "permit": "text" }]);
    net.post("/v1/inference/requests", &request).await.ok();
    let lower = format!("/internal/assignments/{}", nodes[0].address.to_string().to_lowercase());
    let assignment = &net.get(&lower).await.ok()["assignments"][0];
    assert_eq!((&assignment["role"], &assignment["permit"]), (&json!("verifier"), &Value::Null));
    let assignment = &nodes[0].poll().await[0];
    assert_eq!((&assignment["role"], &assignment["permit"]), (&json!("leader"), &json!(r#"{"a":1}"#)));
    assert_eq!(nodes[1].poll().await[0]["permit"], "text");
    net.stop().await;
}

/// The answer to a poll is given again for 15 seconds, whatever happened since.
#[tokio::test]
async fn assignments_are_cached() {
    let net = Net::with(|options| options.assignment_cache = 15).await;
    let nodes = net.nodes(3).await;
    let tasks = [task(1), task(2)];
    assert!(nodes[1].poll().await.is_empty());
    net.job(&tasks[0], &[&nodes[0], &nodes[1], &nodes[2]]).await;
    assert_eq!(nodes[0].poll().await.len(), 1);
    assert!(nodes[1].poll().await.is_empty(), "the answer before the job");
    nodes[0].claim(&tasks[0]).await.ok();
    net.forward(14);
    assert_eq!(nodes[0].poll().await.len(), 1, "claimed, and still there");
    net.forward(1);
    assert!(nodes[0].poll().await.is_empty());
    assert_eq!(nodes[1].poll().await.len(), 1);
    net.stop().await;
}

/// One answer for a node, not one for each spelling of its address: anybody could make a thousand of those.
#[tokio::test]
async fn the_cache_goes_by_the_node() {
    let net = Net::with(|options| {
        options.assignment_cache = 15;
        options.accept = Accept::Anything;
    })
    .await;
    let nodes = net.nodes(3).await;
    net.job(&task(1), &[&nodes[0], &nodes[1], &nodes[2]]).await;
    assert_eq!(nodes[0].poll().await[0]["role"], "leader");
    let lower = format!("/internal/assignments/{}", nodes[0].address.to_string().to_lowercase());
    assert_eq!(net.get(&lower).await.ok()["assignments"][0]["role"], "leader", "as told before");
    net.forward(15);
    assert_eq!(net.get(&lower).await.ok()["assignments"][0]["role"], "verifier");
    assert_eq!(nodes[0].poll().await[0]["role"], "verifier", "as told before");
    net.stop().await;
}

#[tokio::test]
async fn result_and_verdict() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let task = task(0xab);
    let job = net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    let body = json!({
        "jobId": task, "output_cid": "QmOutput", "commitment_hash": "aa",
        "encrypted_output_key_high": "1", "encrypted_output_key_low": "2",
        "encrypted_output_key_inputs": {
            "high": { "ctHash": "1", "securityZone": 0, "utype": 6, "signature": "0x" },
            "low": { "ctHash": "2", "securityZone": 0, "utype": 6, "signature": "0x" },
        },
        "unknown": "ignored",
    });
    let wanted = json!({
        "status": "leader_result_recorded", "job_id": task, "task_id": task, "commitment_hash": "aa",
        "output_key_store_tx": null,
        "output_key_store_job_id": "0x2f2696379b61d1bd2b4da412c36501a34d1281d0e182821ca02d5140728cc9b0",
        "finalized": false,
    });
    assert_eq!(nodes[0].post("/internal/task/result", &body).await.ok(), wanted);
    // The client's id of the job is as good as the nodes'.
    let id = job["job_id"].as_str().unwrap();
    let wanted = json!({
        "status": "committed", "job_id": id, "task_id": task, "verifier_address": nodes[1].address, "finalized": true,
    });
    assert_eq!(nodes[1].verify(id, "aa", "CONFIRM").await.ok(), wanted);
    net.stop().await;
}

#[tokio::test]
async fn results_and_verdicts_are_refused_for_their_form() {
    let net = Net::start().await;
    let nodes = net.nodes(4).await;
    let task = task(1);
    net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    let refused = async |path: &str, body: Value| nodes[0].post(path, &body).await.refused();
    let result = "/internal/task/result";
    assert_eq!(refused(result, json!({})).await, (400, json!("jobId is required")));
    let unknown = nodes[0].result("nothing", "aa").await.refused();
    assert_eq!(unknown, (404, json!("'inference request nothing not found'")));
    let (status, detail) = refused(result, json!({ "jobId": task, "commitment_hash": "aa" })).await;
    let detail = detail.as_str().unwrap();
    assert_eq!(status, 400, "not 422");
    assert!(detail.starts_with("1 validation error for LeaderTextResultSubmission") && detail.contains("output_cid"));
    let bad = json!({ "jobId": task, "output_cid": "Qm", "commitment_hash": "aa", "verdict": "maybe" });
    assert_eq!(refused(result, bad).await, (400, json!("leader verdict must be CONFIRM or REJECT")));
    let text = nodes[0].send("POST", result, "[").await;
    assert_eq!((text.status, text.json()["detail"][0]["type"].as_str()), (422, Some("json_invalid")));

    let stranger = nodes[3].verify(&task, "aa", "CONFIRM").await.refused();
    assert_eq!(stranger, (400, json!("verifier verdict submitted by non-quorum verifier")));
    let leader = nodes[0].verify(&task, "aa", "CONFIRM").await.refused();
    assert_eq!(leader, stranger, "the leader does not verify");
    let verdict = nodes[1].verify(&task, "aa", "PERHAPS").await.refused();
    assert_eq!(verdict, (400, json!("verifier verdict must be CONFIRM or REJECT")));
    let body = json!({
        "jobId": task, "verifier_address": nodes[1].address, "commitment_hash": "aa", "verdict": "CONFIRM",
        "confidence": 101,
    });
    let (status, detail) = nodes[1].post("/internal/task/verify", &body).await.refused();
    assert!(status == 400 && detail.as_str().unwrap().contains("wanted 0 to 100, got 101"), "{detail}");
    net.stop().await;
}

#[tokio::test]
async fn status_and_escrow() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let task = task(1);
    let job = net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    let status = format!("/internal/jobs/{task}/status");
    let mut wanted = json!({
        "jobId": task, "status": "QUEUED", "outputCid": null, "leaderCommitment": null, "failureReason": null,
        "nodeAssignments": {},
    });
    assert_eq!(nodes[1].get(&status).await.ok(), wanted);
    nodes[0].result(&task, "aa").await.ok();
    wanted["outputCid"] = "QmOutput".into();
    wanted["leaderCommitment"] = "aa".into();
    assert_eq!(nodes[1].get(&status).await.ok(), wanted, "there to be copied");
    let escrow = nodes[1].get(&format!("/internal/jobs/{task}/escrow")).await.ok();
    assert_eq!(escrow, json!({ "jobId": task, "escrowId": 0 }));
    // Not by the client's id.
    let id = job["job_id"].as_str().unwrap();
    for what in ["status", "escrow"] {
        let refused = nodes[1].get(&format!("/internal/jobs/{id}/{what}")).await.refused();
        assert_eq!(refused, (404, json!(format!("Job {id} not found"))));
    }
    net.stop().await;
}
