//! The payment service.

use serde_json::{Value, json};

use crate::net::{HIGH, LOW, MODEL, Net, Node, task};

fn submission(task: Option<&str>) -> Value {
    json!({
        "user_address": "0x00000000000000000000000000000000000000AA", "prompt_cid": "QmPrompt", "model_id": MODEL,
        "encrypted_prompt_key_high": HIGH, "encrypted_prompt_key_low": LOW, "payment_mode": "credits",
        "payment_currency": "cusdc", "insurance_opt_in": false, "task_id": task, "permits": [], "source": "sdk",
        "metadata": {},
    })
}

/// Leader and verifiers of the one job that waits.
async fn roles(nodes: &[Node]) -> (&Node, Vec<&Node>) {
    let mut leader = None;
    let mut verifiers = Vec::new();
    for node in nodes {
        match node.poll().await[0]["role"].as_str() {
            Some("leader") => leader = Some(node),
            _ => verifiers.push(node),
        }
    }
    (leader.unwrap(), verifiers)
}

async fn of(net: &Net, node: &Node, what: &str) -> Value {
    net.get(&format!("/v1/nodes/{}/{what}", node.address)).await.ok()
}

#[tokio::test]
async fn a_job_from_submission_to_rewards() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let task = task(1);
    let reply = net.post("/v1/jobs/submit", &submission(Some(&task))).await.ok();
    let id = reply["job_id"].as_str().unwrap();
    assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert_eq!(reply, json!({ "job_id": id, "status": "RUNNING", "escrow_id": null, "coverage_id": null }));
    let path = format!("/v1/jobs/{id}");
    let record = net.get(&path).await.ok();
    assert_eq!(
        (&record["status"], &record["task_id"], &record["rewards"]),
        (&json!("RUNNING"), &json!(task), &json!({}))
    );
    assert_eq!(record["user_address"], "0x00000000000000000000000000000000000000aa");
    let (leader, verifiers) = roles(&nodes).await;
    assert_eq!(leader.poll().await[0]["userAddress"], "0x00000000000000000000000000000000000000AA");

    leader.result(&task, "aa").await.ok();
    verifiers[0].verify(&task, "aa", "CONFIRM").await.ok();
    let record = net.get(&path).await.ok();
    let rewards = |leader: &Node, verifiers: &[&Node]| {
        let mut rewards = serde_json::Map::new();
        rewards.insert(leader.address.to_string().to_lowercase(), 0.6.into());
        for verifier in verifiers {
            rewards.insert(verifier.address.to_string().to_lowercase(), 0.2.into());
        }
        Value::Object(rewards)
    };
    assert_eq!((&record["status"], &record["rewards"]), (&json!("COMPLETED"), &rewards(leader, &verifiers)));
    assert_eq!((&record["output_cid"], &record["result_hash"]), (&json!("QmOutput"), &json!("aa")));

    // Who did nothing is paid too: today's coordinator names the whole quorum.
    for (node, role, amount) in
        [(leader, "leader", 0.6), (verifiers[0], "verifier", 0.2), (verifiers[1], "verifier", 0.2)]
    {
        let job = json!({
            "job_id": id, "role": role, "status": "COMPLETED", "amount_blind_earned": amount, "model_id": MODEL,
            "completed_at": "2026-11-20T06:59:33Z",
        });
        let lower = node.address.to_string().to_lowercase();
        assert_eq!(of(&net, node, "jobs?limit=5").await, json!({ "node_address": lower, "count": 1, "jobs": [job] }));
        assert_eq!(of(&net, node, "earnings").await, json!({ "total_blind_earned": amount, "jobs_count": 1 }));
        let stats = json!({
            "total_jobs": 1, "success": 1, "failed": 0, "slashed": false, "slash_count": 0,
            "current_stake_blind": "0.0000", "total_earned_blind": format!("{amount:.4}"),
        });
        assert_eq!(of(&net, node, "stats").await, stats);
    }
    net.stop().await;
}

#[tokio::test]
async fn a_rejected_job_is_refunded() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let task = task(1);
    let id = net.post("/v1/jobs/submit", &submission(Some(&task))).await.ok()["job_id"].clone();
    let (leader, verifiers) = roles(&nodes).await;
    leader.result(&task, "aa").await.ok();
    verifiers[0].verify(&task, "bb", "CONFIRM").await.ok();
    verifiers[1].verify(&task, "cc", "CONFIRM").await.ok();
    let record = net.get(&format!("/v1/jobs/{}", id.as_str().unwrap())).await.ok();
    assert_eq!((&record["status"], &record["rewards"]), (&json!("REFUNDED"), &json!({})));
    assert_eq!(record["error_reason"], "Quorum rejected: 1 confirms vs 2 required");
    assert_eq!(of(&net, leader, "jobs").await["jobs"][0]["amount_blind_earned"], 0.0);
    assert_eq!(of(&net, leader, "earnings").await, json!({ "total_blind_earned": 0.0, "jobs_count": 0 }));
    net.stop().await;
}

/// Without a task of the user's the record's own id is the nodes' id of the job.
#[tokio::test]
async fn a_submission_without_a_task() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let id = net.post("/v1/jobs/submit", &submission(None)).await.ok()["job_id"].clone();
    let id = id.as_str().unwrap();
    assert_eq!(nodes[0].poll().await[0]["jobId"], id);
    let (leader, verifiers) = roles(&nodes).await;
    leader.result(id, "aa").await.ok();
    verifiers[0].verify(id, "aa", "CONFIRM").await.ok();
    assert_eq!(net.get(&format!("/v1/jobs/{id}")).await.ok()["status"], "COMPLETED");
    net.stop().await;
}

/// A job that went to the coordinator directly is paid too, so that nodes see what they did.
#[tokio::test]
async fn jobs_of_the_coordinator_are_paid() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    for number in 1..=3 {
        let task = task(number);
        net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
        nodes[0].result(&task, "aa").await.ok();
        nodes[1].verify(&task, "aa", "CONFIRM").await.ok();
    }
    let earned = of(&net, &nodes[1], "earnings").await;
    assert_eq!(earned["jobs_count"], 3);
    assert!((earned["total_blind_earned"].as_f64().unwrap() - 0.6).abs() < 1e-9, "{earned}");
    let jobs = of(&net, &nodes[0], "jobs?limit=0").await;
    assert_eq!(jobs["count"], 1, "at least one");
    net.stop().await;
}

/// Anybody may say that a job is over, and whom to pay for it.
#[tokio::test]
async fn completion_is_not_authenticated() {
    let net = Net::start().await;
    net.nodes(3).await;
    let task = task(1);
    let id = net.post("/v1/jobs/submit", &submission(Some(&task))).await.ok()["job_id"].clone();
    let id = id.as_str().unwrap();
    let thief = net.stranger(9);
    let body = json!({ "status": "success", "leader_address": thief.address, "verifier_addresses": [] });
    let reply = net.post(&format!("/v1/jobs/{task}/complete"), &body).await.ok();
    assert_eq!((&reply["job_id"], &reply["status"]), (&json!(id), &json!("COMPLETED")));
    assert_eq!(of(&net, &thief, "earnings").await["total_blind_earned"], 0.6);
    let again = net.post(&format!("/v1/jobs/{id}/complete"), &body).await.ok();
    assert_eq!(again, json!({ "job_id": id, "status": "COMPLETED", "note": "already_finalized" }));
    let unknown = net.post("/v1/jobs/x/complete", &body).await.refused();
    assert_eq!(unknown, (404, json!("Job x not found")));
    let wrong = net.post(&format!("/v1/jobs/{id}/complete"), &json!({ "status": "perhaps" })).await.refused();
    assert_eq!(wrong.0, 422);
    net.stop().await;
}

#[tokio::test]
async fn records_nodes_and_balances_that_nobody_knows() {
    let net = Net::start().await;
    let (known, unknown) = (&net.nodes(1).await[0], net.stranger(9));
    assert_eq!(net.get("/v1/jobs/x").await.refused(), (404, json!("Job x not found")));
    assert_eq!(of(&net, known, "exists").await, json!({ "is_operator": true }));
    assert_eq!(of(&net, &unknown, "exists").await, json!({ "is_operator": false }));
    assert_eq!(net.get("/v1/nodes/nobody/exists").await.ok(), json!({ "is_operator": false }));
    let lower = unknown.address.to_string().to_lowercase();
    assert_eq!(of(&net, &unknown, "jobs").await, json!({ "node_address": lower, "count": 0, "jobs": [] }));
    assert_eq!(net.get(&format!("/v1/nodes/{lower}/secrets")).await.status, 404);
    assert_eq!(net.get(&format!("/v1/nodes/{lower}/jobs?limit=many")).await.status, 422);
    let balance = net.get(&format!("/v1/balance/{}", unknown.address)).await.ok();
    assert_eq!(balance["user_address"], json!(lower));
    net.stop().await;
}

/// Too few nodes: nothing is recorded.
#[tokio::test]
async fn a_submission_without_nodes() {
    let net = Net::start().await;
    let refused = net.post("/v1/jobs/submit", &submission(None)).await.refused();
    assert_eq!(refused, (400, json!("not enough active nodes available for the requested quorum")));
    net.stop().await;
}
