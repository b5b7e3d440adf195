//! What users ask.

use std::collections::BTreeSet;

use blf_devnet::{Options, development};
use bytes::Bytes;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};

use crate::net::{HIGH, LOW, MODEL, Net, START, send_on, submission, task};

const PREVIEW: &str = "/v1/inference/quorum-preview?model_id=facebook%2Fopt-125m";

/// `hello world` as every IPFS implementation names it (raw leaf, CIDv1).
const HELLO: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";

#[tokio::test]
async fn preview() {
    let net = Net::start().await;
    let too_few = (400, json!("not enough active nodes available for the requested quorum"));
    assert_eq!(net.get(PREVIEW).await.refused(), too_few);
    let nodes = net.nodes(3).await;
    let reply = net.get(PREVIEW).await.ok();
    let names: BTreeSet<_> = reply.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["candidates", "leader", "verifiers"]));
    let mut quorum: Vec<Value> = reply["verifiers"].as_array().unwrap().clone();
    assert_eq!(quorum.len(), 2);
    quorum.push(reply["leader"].clone());
    let quorum: BTreeSet<_> = quorum.iter().map(|node| node.as_str().unwrap().to_owned()).collect();
    let all: BTreeSet<_> = nodes.iter().map(|node| node.address.to_string()).collect();
    assert_eq!(quorum, all);
    for bad in ["&verifier_count=3", "&verifier_count=9", "&zdr_required=true", "&min_tier=1"] {
        assert_eq!(net.get(&format!("{PREVIEW}{bad}")).await.refused(), too_few, "{bad}");
    }
    let (status, detail) = net.get("/v1/inference/quorum-preview").await.refused();
    assert_eq!(
        (status, &detail[0]["loc"], &detail[0]["type"]),
        (422, &json!(["query", "model_id"]), &json!("missing"))
    );
    assert_eq!(net.get(&format!("{PREVIEW}&min_tier=high")).await.status, 422);
    net.stop().await;
}

/// Drawn anew for every preview, from the first 2 (n + 1) by address.
#[tokio::test]
async fn a_preview_is_a_draw() {
    let net = Net::start().await;
    let nodes = net.nodes(9).await;
    let mut first: Vec<_> = nodes.iter().map(|node| node.address.to_string()).collect();
    first.sort();
    first.truncate(6);
    let mut leaders = BTreeSet::new();
    for _ in 0..64 {
        let reply = net.get(PREVIEW).await.ok();
        assert_eq!(reply["candidates"], json!(first));
        leaders.insert(reply["leader"].as_str().unwrap().to_owned());
    }
    // 64 draws that always gave the same leader would be one chance in 6^63.
    assert!(leaders.len() > 1 && leaders.iter().all(|leader| first.contains(leader)), "{leaders:?}");
    net.stop().await;
}

/// Today nobody asks whether a node has the model; a devnet can.
#[tokio::test]
async fn models_matter_only_when_told_so() {
    let other = "/v1/inference/quorum-preview?model_id=other";
    for (match_models, status) in [(false, 200), (true, 400)] {
        let net = Net::with(|options| options.match_models = match_models).await;
        net.nodes(3).await;
        assert_eq!(net.get(other).await.status, status);
        net.get(PREVIEW).await.ok();
        net.stop().await;
    }
}

#[tokio::test]
async fn upload_and_download() {
    let net = Net::start().await;
    let upload = async |file: &str| {
        let body = format!(
            "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{file}\r\n--xyz--\r\n"
        );
        let headers = [("content-type", "multipart/form-data; boundary=xyz")];
        net.send("POST", "/v1/inference/upload-prompt", &headers, body).await
    };
    assert_eq!(upload("hello world").await.ok(), json!({ "cid": HELLO }));
    assert_eq!(net.get(&format!("/ipfs/{HELLO}")).await.text, "hello world");
    assert_eq!(upload("").await.refused(), (400, json!("Uploaded prompt payload is empty")));
    let (status, detail) = upload(&"x".repeat(blf_devnet::BLOB_CAP + 1)).await.refused();
    let wanted = format!("Prompt upload failed: body: wanted at most {} bytes", blf_devnet::BLOB_CAP);
    assert_eq!((status, detail), (502, json!(wanted)), "PIN_FAILED");
    net.stop().await;
}

/// Pinning is Pinata's classic API, on the plain listener too.
#[tokio::test]
async fn pinning() {
    let net = Net::start().await;
    let body = "--xyz\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nhello world\r\n--xyz--\r\n";
    let headers = [("content-type", "multipart/form-data; boundary=xyz"), ("authorization", "Bearer development")];
    let reply = net.send("POST", "/pinning/pinFileToIPFS", &headers, body.into()).await.ok();
    assert_eq!(reply["IpfsHash"], HELLO);
    net.stop().await;
}

#[tokio::test]
async fn submission_and_status() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let task = task(1);
    let job = net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    let id = job["job_id"].as_str().unwrap();
    assert_eq!((id.len(), id.bytes().all(|b| b.is_ascii_hexdigit())), (32, true), "a UUID without dashes");
    let silent = |node: &crate::net::Node| {
        json!({
            "verifier_address": node.address, "submitted": false, "accepted": null, "confidence": null, "reason": null,
            "risk_score": null, "result_hash": null, "provider": null, "model": null, "summary": null,
            "updated_at": null,
        })
    };
    let wanted = json!({
        "job_id": id, "status": "QUEUED", "output_cid": null, "commitment_hash": null,
        "encrypted_output_key_high": null, "encrypted_output_key_low": null,
        "quorum": { "verifier_addresses": [nodes[1].address, nodes[2].address], "confirmations": 0, "confidence": 0 },
        "dispute_deadline": START + 72 * 3600, "leader_submission": null,
        "verifier_verdicts": [silent(&nodes[1]), silent(&nodes[2])], "reject_reason": null,
    });
    assert_eq!(job, wanted);
    assert_eq!(net.get(&format!("/v1/inference/{id}")).await.ok(), wanted);
    assert_eq!(net.status(&task).await, wanted);
    for path in [format!("/v1/inference/{task}"), format!("/v1/inference/task/{id}")] {
        let (status, detail) = net.get(&path).await.refused();
        assert!(status == 404 && detail.as_str().unwrap().starts_with("'inference request "), "{detail}");
    }
    // There is no such path, which a client of today asks for.
    assert_eq!(net.get(&format!("/v1/inference/{id}/status")).await.refused(), (404, json!("Not Found")));

    let body = json!({
        "jobId": task, "output_cid": "QmOutput", "commitment_hash": "aa",
        "encrypted_output_key_high": "1", "encrypted_output_key_low": "2",
    });
    nodes[0].post("/internal/task/result", &body).await.ok();
    nodes[2].verify(&task, "aa", "CONFIRM").await.ok();
    let status = net.status(&task).await;
    assert_eq!((&status["encrypted_output_key_high"], &status["encrypted_output_key_low"]), (&json!("1"), &json!("2")));
    assert_eq!(
        (&status["verifier_verdicts"][0]["submitted"], &status["verifier_verdicts"][1]["submitted"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(status["verifier_verdicts"][1]["updated_at"], "2026-11-20T06:59:33Z");
    net.stop().await;
}

#[tokio::test]
async fn submissions_that_are_refused() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let nodes = [&nodes[0], &nodes[1], &nodes[2]];
    let good = submission(&task(1), &nodes);
    let submit = async |body: &Value| net.post("/v1/inference/requests", body).await.refused();
    let changed = |change: Value| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    for (change, member) in [
        (json!({ "verifier_count": 0 }), "verifier_count"),
        (json!({ "verifier_count": 6 }), "verifier_count"),
        (json!({ "min_tier": 3 }), "min_tier"),
        (json!({ "text_request": null }), "text_request"),
    ] {
        let (status, detail) = submit(&changed(change.clone())).await;
        assert_eq!((status, &detail[0]["loc"]), (422, &json!(["body", member])), "{change}");
    }
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("developer_address");
    let (status, detail) = submit(&without).await;
    let wanted = json!([{ "type": "missing", "loc": ["body", "developer_address"], "msg": "Field required" }]);
    assert_eq!((status, detail), (422, wanted));
    let stranger = net.stranger(9).address;
    for change in [
        json!({ "developer_address": "nobody" }),
        json!({ "mode": "risk" }),
        json!({ "verifier_addresses": [nodes[1].address] }),
        json!({ "verifier_addresses": [nodes[1].address, nodes[1].address] }),
        json!({ "verifier_addresses": [nodes[1].address, stranger] }),
        json!({ "leader_address": null }),
    ] {
        assert_eq!(submit(&changed(change.clone())).await.0, 400, "{change}");
    }
    net.post("/v1/inference/requests", &good).await.ok();
    assert_eq!(submit(&good).await, (409, json!(format!("task {} already exists", task(1)))));
    net.stop().await;
}

/// A task that the coordinator names has no 0x.
#[tokio::test]
async fn a_task_without_a_name() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let mut body = submission("", &[&nodes[0], &nodes[1], &nodes[2]]);
    for member in ["task_id", "leader_address", "verifier_addresses"] {
        body.as_object_mut().unwrap().remove(member);
    }
    net.post("/v1/inference/requests", &body).await.ok();
    let job = nodes[0].poll().await[0]["jobId"].as_str().unwrap().to_owned();
    assert_eq!((job.len(), hex::decode(&job).is_ok()), (64, true), "{job}");
    net.stop().await;
}

/// As the payment service submits.
#[tokio::test]
async fn the_flat_request() {
    let net = Net::start().await;
    let nodes = net.nodes(3).await;
    let body = json!({
        "job_id": "a-b-c", "developer_address": "0x00000000000000000000000000000000000000aa", "prompt_cid": "QmPrompt",
        "model_id": MODEL, "encrypted_prompt_key_high": HIGH, "encrypted_prompt_key_low": LOW,
    });
    assert_eq!(net.post("/v1/inference/request", &body).await.ok()["status"], "QUEUED");
    assert_eq!(nodes[0].poll().await[0]["jobId"], "a-b-c", "for want of a task");
    net.stop().await;
}

/// On a real chain the coordinator cannot store a prompt key: the job waits until its user has.
#[tokio::test]
async fn a_job_waits_for_its_key() {
    let net = Net::with(|options| options.mock_chain = false).await;
    let nodes = net.nodes(3).await;
    let quorum = [&nodes[0], &nodes[1], &nodes[2]];
    let task = task(1);
    let job = net.job(&task, &quorum).await;
    assert_eq!(job["status"], "QUEUED", "shown so");
    assert!(nodes[0].poll().await.is_empty());
    let path = format!("/v1/inference/{}/confirm-store-key", job["job_id"].as_str().unwrap());
    let empty = net.post(&path, &json!({})).await.refused();
    assert_eq!(empty, (400, json!("prompt_key_store_tx is required")));
    assert_eq!(net.post(&path, &json!({ "prompt_key_store_tx": "0x01" })).await.ok()["status"], "QUEUED");
    assert_eq!(nodes[0].poll().await.len(), 1);
    let unknown = net.post("/v1/inference/x/confirm-store-key", &json!({})).await.refused();
    assert_eq!(unknown, (404, json!("'inference request x not found'")));

    let mut body = submission(&crate::net::task(2), &quorum);
    body["metadata"] = json!({ "prompt_key_store_tx": "0x02" });
    net.post("/v1/inference/requests", &body).await.ok();
    assert_eq!(nodes[0].poll().await.len(), 2);
    net.stop().await;
}

#[tokio::test]
async fn permits() {
    let net = Net::start().await;
    let nodes = net.nodes(4).await;
    let task = task(1);
    net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    let attach = async |body: Value| {
        let headers = [("content-type", "application/json")];
        net.send("PATCH", &format!("/v1/inference/{task}/permit"), &headers, body.to_string()).await
    };
    let reply = attach(json!({ "permit": { "type": "sharing" } })).await.ok();
    assert_eq!(reply, json!({ "status": "permit_attached", "task_id": task, "leader_address": nodes[0].address }));
    assert_eq!(nodes[0].poll().await[0]["permit"], r#"{"type":"sharing"}"#);
    attach(json!({ "node": nodes[1].address, "permit": "text" })).await.ok();
    assert_eq!(nodes[1].poll().await[0]["permit"], "text");
    assert_eq!(attach(json!({ "node": nodes[3].address, "permit": "text" })).await.status, 400);
    assert_eq!(attach(json!({})).await.refused().0, 422);
    net.stop().await;
}

/// A node has one permit however it is spelled, so that nobody can fill a job with them; strangers have none.
#[tokio::test]
async fn permits_do_not_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devnet.sqlite");
    let legacy = blf_devnet::LegacyOptions { assignment_cache: 0, ..blf_devnet::LegacyOptions::default() };
    let mut options = Options::legacy(legacy).unwrap();
    options.state = Some(path.clone());
    let net = Net::of(options).await;
    let nodes = net.nodes(4).await;
    let leader = nodes[0].address.to_string();
    let spellings = [leader.to_lowercase(), format!("0x{}", leader[2..].to_uppercase()), leader];
    let task = task(1);
    let mut request = submission(&task, &[&nodes[0], &nodes[1], &nodes[2]]);
    let strangers = [nodes[3].address.to_string(), "nobody".into()];
    let named = spellings.iter().chain(&strangers).map(|node| json!({ "node": node, "permit": "submitted" }));
    request["permits"] = named.collect();
    net.post("/v1/inference/requests", &request).await.ok();
    assert_eq!(nodes[0].poll().await[0]["permit"], "submitted");
    for node in &spellings {
        let body = json!({ "node": node, "permit": node }).to_string();
        let headers = [("content-type", "application/json")];
        net.send("PATCH", &format!("/v1/inference/{task}/permit"), &headers, body).await.ok();
    }
    assert_eq!(nodes[0].poll().await[0]["permit"], spellings[2]);
    net.stop().await;
    let db = rusqlite::Connection::open(path).unwrap();
    let job: String = db.query_row("SELECT document FROM jobs", [], |row| row.get(0)).unwrap();
    let job: Value = serde_json::from_str(&job).unwrap();
    assert_eq!(job["permits"], json!([{ "node": spellings[2], "permit": spellings[2] }]));
}

/// Everything is there after a restart but what was cached.
#[tokio::test]
async fn a_restart_keeps_jobs_and_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let options = || {
        let mut options = Options::legacy(blf_devnet::LegacyOptions::default()).unwrap();
        options.state = Some(folder.path().join("devnet.sqlite"));
        options
    };
    let net = Net::of(options()).await;
    let nodes = net.nodes(3).await;
    let task = task(1);
    net.job(&task, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    nodes[0].claim(&task).await.ok();
    let status = net.status(&task).await;
    net.stop().await;
    let net = Net::of(options()).await;
    assert_eq!(net.status(&task).await, status);
    assert!(net.stranger(1001).poll().await.is_empty(), "claimed");
    assert_eq!(net.stranger(1002).poll().await.len(), 1);
    net.stop().await;
    // A strict devnet does not take it for its own.
    let mut strict = Options::new(std::sync::Arc::new(Nobody)).unwrap();
    strict.state = Some(folder.path().join("devnet.sqlite"));
    let Err(error) = blf_devnet::Devnet::start(strict, async {}).await else { panic!("it started") };
    assert!(error.to_string().contains("wanted version 2, got 1001"), "{error}");
}

/// Admits nobody.
struct Nobody;

impl blf_devnet::Appraiser for Nobody {
    fn appraise(
        &self,
        _: &blf_evidence::bundle::Evidence,
        _: &blf_appraisal::Expectations,
        _: blf_evidence::UnixTime,
    ) -> Result<blf_devnet::Verdict, blf_devnet::Reason> {
        Err(blf_devnet::Reason { code: "NOT_WANTED".into(), detail: "nobody is".into() })
    }
}

/// The same coordinator, blob store and payment service, over TLS by name.
#[tokio::test]
async fn over_tls_by_name() {
    let net = Net::start().await;
    let node = &net.nodes(1).await[0];
    let exists = format!("/v1/nodes/{}/exists", node.address);
    for (name, path, wanted) in [
        ("icl.devnet.blf.internal", "/", json!({ "message": "Blindference ICL is running" })),
        ("payment.devnet.blf.internal", &exists, json!({ "is_operator": true })),
        (
            "blobs.devnet.blf.internal",
            "/health",
            json!({ "status": "ok", "network": "devnet", "roots": "development", "nodes": 1 }),
        ),
    ] {
        let stream = connect(&net, name).await;
        let reply = send_on(stream, name, "GET", path, &[], Bytes::new()).await;
        assert_eq!(reply.ok(), wanted, "{name}");
    }
    let stream = connect(&net, "icl.devnet.blf.internal").await;
    let reply = send_on(stream, "payment.devnet.blf.internal", "GET", "/", &[], Bytes::new()).await;
    assert_eq!(reply.status, 421, "one session for each name");
    net.stop().await;
}

/// A TLS session with the peer of that name.
pub(crate) async fn connect(net: &Net, name: &str) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    #[derive(Debug)]
    struct At;
    impl rustls::time_provider::TimeProvider for At {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(START)))
        }
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(development::TLS_CA.as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_details(provider, std::sync::Arc::new(At))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(net.running.address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.unwrap()
}
