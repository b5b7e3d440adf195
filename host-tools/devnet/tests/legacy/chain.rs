//! The chain and CoFHE's services behind the same listeners, and what a claim has from them.

use alloy_primitives::U256;
use blf_devnet::chain::Input;
use blf_devnet::{Accept, development};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::net::{HIGH, Net, Node, Reply, send_on, submission, task};
use crate::users::connect;

/// Asks the peer of that name, over TLS.
async fn ask(net: &Net, name: &str, method: &str, path: &str, body: &Value) -> Reply {
    let name = format!("{name}.devnet.blf.internal");
    let stream = connect(net, &name).await;
    send_on(stream, &name, method, path, &[], Bytes::from(body.to_string())).await
}

/// Stores a prompt key for these nodes as a user does: by way of the verifier. Returns the handles.
async fn store_key(net: &Net, user: &Node, task: &str, nodes: &[&Node]) -> [[u8; 32]; 2] {
    let chain_id = development::profile().unwrap().chain_id;
    let mut list = b"blf.clear/v1\0".to_vec();
    list.push(0);
    list.extend(user.address.0);
    list.extend(U256::from(chain_id).to_be_bytes::<32>());
    list.extend([7; 32]);
    let body = json!({
        "packed_list": hex::encode(list), "account_addr": user.address, "security_zone": 0, "chain_id": chain_id,
    });
    let reply = ask(net, "verifier", "POST", "/verify", &body).await.ok();
    let input = |value: &Value| {
        let bytes = |member: &str| hex::decode(value[member].as_str().unwrap().trim_start_matches("0x")).unwrap();
        let mut signature = bytes("signature");
        signature.push(27 + u8::try_from(value["recid"].as_u64().unwrap()).unwrap());
        Input { ct_hash: bytes("ct_hash").try_into().unwrap(), security_zone: 0, utype: 6, signature }
    };
    let (high, low) = (input(&reply["data"][0]), input(&reply["data"][1]));
    let job = hex::decode(task.trim_start_matches("0x")).unwrap().try_into().unwrap();
    let nodes: Vec<_> = nodes.iter().map(|node| node.address).collect();
    net.running.cofhe.as_ref().unwrap().chain().store_key(user.address, job, [&high, &low], &nodes).unwrap()
}

/// What the user says of its handles is overruled by what the chain has.
#[tokio::test]
async fn a_claim_gives_the_handles_of_the_chain() {
    for mock_chain in [true, false] {
        let net = Net::with(|options| options.mock_chain = mock_chain).await;
        let nodes = net.nodes(3).await;
        let quorum = [&nodes[0], &nodes[1], &nodes[2]];
        let task = task(1);
        let mut body = submission(&task, &quorum);
        body["metadata"] = json!({
            "prompt_key_store_tx": "0x01",
            "cofhe_prompt_key_inputs": { "high": { "ctHash": "5" }, "low": { "ctHash": "6" } },
        });
        net.post("/v1/inference/requests", &body).await.ok();
        let before = nodes[0].claim(&task).await;
        assert_eq!(before.text.contains(HIGH), mock_chain, "{before:?}");
        assert_eq!(before.text.contains("\"kpHighHandle\":0,"), !mock_chain, "{before:?}");
        let handles = store_key(&net, &net.stranger(9), &task, &quorum).await;
        let [high, low] = handles.map(|handle| U256::from_be_bytes(handle));
        let wanted = format!(r#"{{"kpHighHandle":{high},"kpLowHandle":{low},"#);
        let reply = nodes[1].claim(&task).await;
        assert!(reply.text.starts_with(&wanted), "{reply:?}");
        // Assignments go on giving what the user said: hashes of inputs, which nobody may open.
        let assignment = &nodes[2].poll().await[0];
        assert_eq!((&assignment["kpHighHandle"], &assignment["kpLowHandle"]), (&json!("5"), &json!("6")));
        net.stop().await;
    }
}

/// Without handles of any kind an assignment has none.
#[tokio::test]
async fn an_assignment_without_handles() {
    let net = Net::with(|options| options.mock_chain = false).await;
    let nodes = net.nodes(3).await;
    let mut body = submission(&task(1), &[&nodes[0], &nodes[1], &nodes[2]]);
    body["metadata"] = json!({ "prompt_key_store_tx": "0x01" });
    net.post("/v1/inference/requests", &body).await.ok();
    let assignment = &nodes[0].poll().await[0];
    assert_eq!((&assignment["kpHighHandle"], &assignment["kpLowHandle"]), (&Value::Null, &Value::Null));
    body["task_id"] = task(2).into();
    body["metadata"]["prompt_key_store_handles"] = json!({ "high": "0x01", "low": "0x02" });
    net.post("/v1/inference/requests", &body).await.ok();
    let waiting = nodes[0].poll().await;
    let handles: Vec<_> = waiting.iter().map(|assignment| assignment["kpHighHandle"].clone()).collect();
    assert!(handles.contains(&json!("0x01")), "{handles:?}");
    net.stop().await;
}

/// Each service by its name; the chain and what the published node speaks on the plain listener too.
#[tokio::test]
async fn services_by_name_and_by_path() {
    let net = Net::with(|options| options.accept = Accept::Anything).await;
    let chain_id = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": [] });
    let wanted = format!("{:#x}", development::profile().unwrap().chain_id);
    assert_eq!(ask(&net, "rpc", "POST", "/", &chain_id).await.ok()["result"], wanted);
    assert_eq!(net.post("/rpc", &chain_id).await.ok()["result"], wanted);
    let threshold = ask(&net, "threshold", "GET", "/v2/sealoutput/none", &json!({})).await;
    assert_eq!(threshold.status, 404, "{threshold:?}");
    assert!(threshold.text.contains("request_id"), "{threshold:?}");
    let coordinator = ask(&net, "coordinator", "POST", "/GetCrs", &json!({})).await;
    assert!(coordinator.status == 501 && coordinator.text.contains("clear mode"), "{coordinator:?}");
    let verifier = ask(&net, "verifier", "GET", "/", &json!({})).await;
    assert!(verifier.status == 404 && verifier.text.contains("POST /verify"), "{verifier:?}");

    let node = &net.nodes(1).await[0];
    let encrypt = json!({
        "jsonrpc": "2.0", "id": 1, "method": "cofhe_encrypt", "params": ["0x2a", "uint128", node.address],
    });
    let handle = net.post("/cofhe", &encrypt).await.ok()["result"]["handle"].as_str().unwrap().to_owned();
    let handle: [u8; 32] = hex::decode(&handle[2..]).unwrap().try_into().unwrap();
    assert!(net.running.cofhe.as_ref().unwrap().chain().is_allowed(handle, node.address).unwrap());
    net.stop().await;
}
