//! Who may be in a quorum: preview and submission.

use blf_evidence::icl::*;
use blf_evidence::{Address, Hex, UnixTime};

use crate::client::random;
use crate::nodes::{MODEL, Net, Node, START, request_status, submission, submit};

async fn preview(net: &Net, query: &str) -> crate::client::Reply {
    net.caller().get(&format!("/v1/inference/quorum-preview?{query}")).await
}

#[tokio::test]
async fn preview_names_leader_verifiers_and_spares() {
    let net = Net::start().await;
    let mut addresses = Vec::<Address>::new();
    for _ in 0..4 {
        addresses.push(net.node().await.address);
    }
    addresses.sort();
    let quorum: QuorumPreview = preview(&net, &format!("model_id={MODEL}&verifier_count=2&spares=1")).await.ok();
    let all: Vec<_> = std::iter::once(&quorum.leader).chain(&quorum.verifiers).chain(&quorum.spares).collect();
    assert_eq!(all.iter().map(|c| c.address).collect::<Vec<_>>(), addresses);
    assert_eq!((quorum.verifiers.len(), quorum.spares.len()), (2, 1));
    assert_eq!((all[0].tier, all[0].models[0].id.as_str()), (0, MODEL));
    let quorum: QuorumPreview = preview(&net, &format!("model_id={MODEL}")).await.ok();
    assert_eq!((quorum.verifiers.len(), quorum.spares.len()), (2, 1), "the defaults");
    let quorum: QuorumPreview = preview(&net, &format!("model_id={MODEL}&verifier_count=0&spares=8")).await.ok();
    assert_eq!((quorum.verifiers.len(), quorum.spares.len()), (0, 3), "as many spares as there are");
    net.stop().await;
}

#[tokio::test]
async fn too_few_nodes_says_how_many() {
    let net = Net::start().await;
    let node = net.node().await;
    let reply = preview(&net, &format!("model_id={MODEL}&verifier_count=2")).await;
    let refusal: Refusal = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(refusal.detail, "quorum: wanted 3 admitted nodes with model blf-tiny-1, got 1");
    assert_eq!(reply.refused(), (400, "TOO_FEW_NODES".into()));
    assert_eq!(preview(&net, "model_id=other&verifier_count=0").await.refused(), (400, "TOO_FEW_NODES".into()));
    for bad in ["", "model_id=a&verifier_count=6", "model_id=a&verifier_count=-1", "model_id=a&model_id=b"] {
        assert_eq!(preview(&net, bad).await.refused(), (400, "MALFORMED".into()), "{bad}");
    }
    let one = format!("model_id={MODEL}&verifier_count=0");
    preview(&net, &one).await.ok::<QuorumPreview>();
    let beat = Heartbeat { node_address: node.address, stopping: true, timestamp: UnixTime(START) };
    node.post("/internal/heartbeat", &beat).await.ok::<Done>();
    assert_eq!(preview(&net, &one).await.refused(), (400, "TOO_FEW_NODES".into()), "it stops");
    node.post("/internal/heartbeat", &Heartbeat { stopping: false, ..beat }).await.ok::<Done>();
    preview(&net, &one).await.ok::<QuorumPreview>();
    net.forward(301);
    assert_eq!(preview(&net, &one).await.refused(), (400, "TOO_FEW_NODES".into()), "not heard of");
    node.poll().await;
    preview(&net, &one).await.ok::<QuorumPreview>();
    net.stop().await;
}

#[tokio::test]
async fn submissions_that_are_refused() {
    let net = Net::start().await;
    let (user, stranger) = (net.caller(), net.caller());
    let (a, b, c) = (net.node().await, net.node().await, net.node().await);
    let unknown = net.stranger();
    let good = || submission(&user, &[&a, &b, &c], 1).1;
    let context = |old: &str, new: &str| {
        let request = good();
        let context = request.context.replace(old, new);
        assert_ne!(context, request.context, "{old}");
        Submit { context, ..request }
    };
    let changed = |change: fn(&mut Submit)| {
        let mut request = good();
        change(&mut request);
        request
    };
    let twice = |node: &Node| Submit { spares: vec![node.address], ..good() };
    let cases: Vec<(&str, Submit, (u16, &str))> = vec![
        ("context not canonical", context("\"v\":1", "\"v\": 1"), (400, "MALFORMED")),
        ("context of another version", context("\"v\":1", "\"v\":2"), (400, "MALFORMED")),
        ("another user", context(&user.address.to_string(), &stranger.address.to_string()), (403, "OTHER_ADDRESS")),
        ("expired", context(&(START + 3600).to_string(), &(START - 1).to_string()), (422, "JOB_EXPIRED")),
        ("another manifest", context(&Hex([8; 32]).to_string(), &Hex([9; 32]).to_string()), (422, "MODEL_NOT_HELD")),
        ("another model", changed(|s| s.model_id = "other".into()), (422, "MODEL_NOT_HELD")),
        ("no cid", changed(|s| s.prompt_cid.clear()), (400, "MALFORMED")),
        ("cid with a path", changed(|s| s.prompt_cid = "a/b".into()), (400, "MALFORMED")),
        ("leader as spare", twice(&a), (422, "NOT_DISTINCT")),
        ("verifier as spare", twice(&b), (422, "NOT_DISTINCT")),
        ("share missing", changed(|s| s.shares.truncate(2)), (422, "WRONG_SHARES")),
        ("share twice", changed(|s| s.shares[2] = s.shares[1].clone()), (422, "WRONG_SHARES")),
        ("share too many", changed(|s| s.spares.clear()), (422, "WRONG_SHARES")),
        ("share for another key", changed(|s| s.shares[1].hpke = Hex([0; 32])), (422, "WRONG_SHARE_KEY")),
        ("unknown node", submission(&user, &[&a, &unknown], 1).1, (422, "NODE_NOT_ADMITTED")),
        ("too many verifiers", changed(|s| s.verifiers = vec![s.leader; 6]), (400, "MALFORMED")),
        ("too many spares", changed(|s| s.spares = vec![s.leader; 9]), (400, "MALFORMED")),
    ];
    for (what, request, (status, code)) in cases {
        assert_eq!(submit(&user, &request).await.refused(), (status, code.into()), "{what}");
    }
    let (job, request) = submission(&user, &[&a, &b, &c], 1);
    submit(&user, &request).await.ok::<Done>();
    assert_eq!(submit(&user, &request).await.refused(), (409, "ALREADY_SUBMITTED".into()));
    assert_eq!(request_status(&user, job).await.phase, Phase::Queued);
    let path = format!("/v1/inference/{job}");
    assert_eq!(stranger.get(&path).await.refused(), (403, "NOT_YOUR_JOB".into()));
    let path = format!("/v1/inference/{}", Hex([0; 32]));
    assert_eq!(user.get(&path).await.refused(), (404, "UNKNOWN_JOB".into()));
    net.stop().await;
}

#[tokio::test]
async fn shares_for_the_keys_before_a_rotation_are_good_until_that_certificate_ends() {
    let net = Net::start().await;
    let (user, mut node) = (net.caller(), net.node().await);
    let before = submission(&user, &[&node], 0).1;
    let long_before = submission(&user, &[&node], 0).1;
    net.forward(10);
    node.hpke = Hex(random());
    node.admit().await;
    submit(&user, &before).await.ok::<Done>();
    node.hpke = Hex(random());
    node.admit().await;
    assert_eq!(submit(&user, &long_before).await.refused(), (422, "WRONG_SHARE_KEY".into()));
    submit(&user, &submission(&user, &[&node], 0).1).await.ok::<Done>();
    net.stop().await;
}

#[tokio::test]
async fn shares_for_the_keys_of_an_ended_certificate_are_refused() {
    let net = Net::with(|options| options.certificate_life = 1000).await;
    let (user, mut node) = (net.caller(), net.node().await);
    let [in_time, too_late] = [0, 1].map(|_| submission(&user, &[&node], 0).1);
    net.forward(990);
    node.hpke = Hex(random());
    node.admit().await;
    net.forward(9);
    submit(&user, &in_time).await.ok::<Done>();
    net.forward(1);
    assert_eq!(submit(&user, &too_late).await.refused(), (422, "WRONG_SHARE_KEY".into()));
    net.stop().await;
}

#[tokio::test]
async fn a_user_has_sixteen_live_jobs_at_most() {
    let net = Net::start().await;
    let (user, node) = (net.caller(), net.node().await);
    for _ in 0..16 {
        submit(&user, &submission(&user, &[&node], 0).1).await.ok::<Done>();
    }
    assert_eq!(submit(&user, &submission(&user, &[&node], 0).1).await.refused(), (429, "TOO_MANY_JOBS".into()));
    let other = net.caller();
    submit(&other, &submission(&other, &[&node], 0).1).await.ok::<Done>();
    net.stop().await;
}
