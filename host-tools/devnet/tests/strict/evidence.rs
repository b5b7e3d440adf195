//! Evidence on demand: relayed nonces and cached evidence with its age.

use blf_evidence::icl::*;
use blf_evidence::statement::{Binding, Purpose};
use blf_evidence::{Address, Hex};

use crate::client::{Caller, ICL, Reply, random};
use crate::nodes::{Net, Node};

async fn ask(user: &Caller, node: Address, nonce: Option<Hex<32>>, max_age: u64) -> Reply {
    user.post(&format!("/v1/nodes/{node}/evidence"), &AskEvidence { nonce, max_age }).await
}

async fn look(user: &Caller, request: &str) -> Reply {
    user.get(&format!("/v1/evidence/{request}")).await
}

async fn answer(node: &Node, request: &str, purpose: Purpose, audience: &str, nonce: Hex<32>) -> Reply {
    let evidence = node.evidence(purpose, audience, nonce);
    let fresh = FreshEvidence { node_address: node.address, request_id: request.into(), evidence };
    node.post("/internal/evidence", &fresh).await
}

#[tokio::test]
async fn a_users_nonce_is_relayed_and_the_answer_brought_back() {
    let net = Net::start().await;
    let (node, other) = (net.node().await, net.node().await);
    let (user, stranger) = (net.caller(), net.caller());
    let nonce = Hex(random());
    let asked: AskEvidenceReply = ask(&user, node.address, Some(nonce), 0).await.ok();
    let id = &asked.request_id;
    let pending: EvidenceReply = look(&user, id).await.ok();
    assert_eq!((pending.evidence, pending.age), (None, 0));

    assert!(other.poll().await.evidence_requests.is_empty());
    let waiting = node.poll().await.evidence_requests;
    let audience = user.address.to_string();
    let wanted =
        EvidenceRequest { request_id: id.clone(), nonce, audience: audience.clone(), purpose: Purpose::Preview };
    assert_eq!(waiting, [wanted]);
    assert!(node.poll().await.evidence_requests.is_empty(), "shown once");
    net.forward(30);
    assert_eq!(node.poll().await.evidence_requests.len(), 1, "and again after a while");

    let wrong = "EVIDENCE_MALFORMED".to_string();
    assert_eq!(answer(&node, id, Purpose::Preview, &audience, Hex(random())).await.refused(), (422, wrong.clone()));
    assert_eq!(answer(&node, id, Purpose::Admission, &audience, nonce).await.refused(), (422, wrong.clone()));
    assert_eq!(answer(&node, id, Purpose::Preview, ICL, nonce).await.refused(), (422, wrong));
    let by_other = answer(&other, id, Purpose::Preview, &audience, nonce).await;
    assert_eq!(by_other.refused(), (404, "UNKNOWN_REQUEST".into()));

    answer(&node, id, Purpose::Preview, &audience, nonce).await.ok::<Done>();
    let again = answer(&node, id, Purpose::Preview, &audience, nonce).await;
    assert_eq!(again.refused(), (409, "ALREADY_ANSWERED".into()));
    net.forward(7);
    let reply: EvidenceReply = look(&user, id).await.ok();
    let evidence = reply.evidence.unwrap();
    let binding = Binding::parse(evidence.binding.as_bytes()).unwrap();
    assert_eq!((reply.age, binding.nonce, binding.audience), (7, nonce, audience));
    assert_eq!(look(&stranger, id).await.refused(), (404, "UNKNOWN_REQUEST".into()), "another user");
    assert!(node.poll().await.evidence_requests.is_empty());
    net.stop().await;
}

#[tokio::test]
async fn cached_evidence_has_an_age() {
    let net = Net::start().await;
    let (node, user) = (net.node().await, net.caller());
    net.forward(50);
    let asked: AskEvidenceReply = ask(&user, node.address, None, 50).await.ok();
    let reply: EvidenceReply = look(&user, &asked.request_id).await.ok();
    assert_eq!(reply.age, 50);
    let binding = Binding::parse(reply.evidence.unwrap().binding.as_bytes()).unwrap();
    assert_eq!((binding.keys.node, binding.purpose), (node.address, Purpose::Admission));
    assert!(node.poll().await.evidence_requests.is_empty(), "the node is not asked");
    let by_node = answer(&node, &asked.request_id, Purpose::Preview, &user.address.to_string(), Hex([0; 32])).await;
    assert_eq!(by_node.refused(), (404, "UNKNOWN_REQUEST".into()), "nor waited for");
    net.forward(1);
    assert_eq!(ask(&user, node.address, None, 50).await.refused(), (404, "NO_CACHED_EVIDENCE".into()));
    net.stop().await;
}

/// Evidence is long, questions are short: to ask for the cached one makes no copy of it.
#[tokio::test]
async fn cached_evidence_stays_with_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devnet.sqlite");
    let net = Net::with(|options| options.state = Some(path.clone())).await;
    let (mut node, user) = (net.node().await, net.caller());
    net.forward(50);
    let asked: AskEvidenceReply = ask(&user, node.address, None, 50).await.ok();
    for _ in 0..2 {
        node.hpke = Hex(random());
        node.admit().await;
    }
    net.forward(7);
    let reply: EvidenceReply = look(&user, &asked.request_id).await.ok();
    let binding = Binding::parse(reply.evidence.unwrap().binding.as_bytes()).unwrap();
    assert_eq!((reply.age, binding.keys.hpke), (7, node.hpke), "the newest");
    net.stop().await;
    let db = rusqlite::Connection::open(path).unwrap();
    let copies = "SELECT COUNT(*), COUNT(evidence) FROM evidence_requests";
    let counts = db.query_row(copies, [], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?)));
    assert_eq!(counts.unwrap(), (1, 0));
}

#[tokio::test]
async fn a_question_is_one_or_the_other_and_about_a_known_node() {
    let net = Net::start().await;
    let (node, user) = (net.node().await, net.caller());
    let malformed = || (400, "MALFORMED".to_string());
    assert_eq!(ask(&user, node.address, None, 0).await.refused(), malformed());
    assert_eq!(ask(&user, node.address, Some(Hex(random())), 5).await.refused(), malformed());
    let stranger = net.stranger();
    assert_eq!(ask(&user, stranger.address, Some(Hex(random())), 0).await.refused(), (404, "UNKNOWN_NODE".into()));
    net.stop().await;
}

#[tokio::test]
async fn questions_end() {
    let net = Net::start().await;
    let (node, user) = (net.node().await, net.caller());
    let nonce = Hex(random());
    let asked: AskEvidenceReply = ask(&user, node.address, Some(nonce), 0).await.ok();
    net.forward(601);
    let audience = user.address.to_string();
    let late = answer(&node, &asked.request_id, Purpose::Preview, &audience, nonce).await;
    assert_eq!(late.refused(), (409, "EVIDENCE_TOO_LATE".into()));
    assert!(node.poll().await.evidence_requests.is_empty());
    assert_eq!(look(&user, &asked.request_id).await.refused(), (404, "UNKNOWN_REQUEST".into()));

    // Of many users; what the node has answered makes room.
    for number in 0..33 {
        let (user, nonce) = (net.caller(), Hex(random()));
        let asked: AskEvidenceReply = ask(&user, node.address, Some(nonce), 0).await.ok();
        if number == 0 {
            let audience = user.address.to_string();
            answer(&node, &asked.request_id, Purpose::Preview, &audience, nonce).await.ok::<Done>();
        }
    }
    let reply = ask(&user, node.address, Some(Hex(random())), 0).await;
    assert!(reply.headers.contains_key("retry-after"));
    assert_eq!(reply.refused(), (429, "TOO_MANY_QUESTIONS".into()));
    net.stop().await;
}
