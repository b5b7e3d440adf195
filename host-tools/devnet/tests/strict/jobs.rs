//! A job from claim to verdict, every wrong turn on the way, and replacement inside the user's list only.

use blf_devnet::{Deadlines, quorum};
use blf_evidence::eip191::Signature;
use blf_evidence::icl::*;
use blf_evidence::job::{Role, Verdict};
use blf_evidence::{Hex, UnixTime};

use crate::client::{Caller, random};
use crate::nodes::{MODEL, Net, Node, START, TEXT, request_status, submission, submit, wait_for};

const OTHER: Hex<32> = Hex([0xbb; 32]);

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.into())
}

/// Nodes, a user and a submitted job: a leader, `verifiers`, the rest spares.
async fn job(net: &Net, nodes: usize, verifiers: usize) -> (Caller, Vec<Node>, Hex<32>) {
    let user = net.caller();
    let mut all = Vec::new();
    for _ in 0..nodes {
        all.push(net.node().await);
    }
    let (job, request) = submission(&user, &all.iter().collect::<Vec<_>>(), verifiers);
    submit(&user, &request).await.ok::<Done>();
    (user, all, job)
}

async fn claim_and_commit(node: &Node, job: Hex<32>, commitment: Hex<32>) {
    node.claim(job).await.ok::<ClaimReply>();
    node.commit(job, commitment).await.ok::<Done>();
}

#[test]
fn quorum_of_the_existing_network() {
    assert_eq!([1, 2, 3, 4, 5, 6].map(quorum), [1, 2, 2, 3, 4, 4]);
}

#[tokio::test]
async fn three_nodes_agree() {
    let net = Net::start().await;
    let (user, nodes, job) = job(&net, 3, 2).await;
    for (node, role) in nodes.iter().zip([Role::Leader, Role::Verifier, Role::Verifier]) {
        let waiting = node.poll().await.assignments;
        assert_eq!((waiting.len(), waiting[0].job_id, waiting[0].role), (1, job, role));
        assert_eq!((waiting[0].model_id.as_str(), waiting[0].claim_by), (MODEL, UnixTime(START + 60)));
        let reply: ClaimReply = node.claim(job).await.ok();
        assert_eq!((reply.share.node, reply.share.hpke), (node.address, node.hpke));
        assert_eq!(reply.claim_deadline, UnixTime(START + 600));
        assert_eq!(node.claim(job).await.ok::<ClaimReply>(), reply, "a lost reply can be asked for again");
        assert!(node.poll().await.assignments.is_empty());
    }
    assert_eq!(request_status(&user, job).await.phase, Phase::Committing);
    for node in &nodes {
        let status: JobStatus = node.status(job).await.ok();
        assert_eq!((status.phase, status.leader_commitment), (Phase::Committing, None));
        node.commit(job, TEXT).await.ok::<Done>();
    }
    assert_eq!(nodes[1].status(job).await.ok::<JobStatus>().phase, Phase::Revealing);
    assert_eq!(nodes[1].status(job).await.ok::<JobStatus>().leader_commitment, None);
    nodes[0].lead(job, TEXT).await.ok::<Done>();
    let status: JobStatus = nodes[1].status(job).await.ok();
    assert_eq!((status.phase, status.leader_commitment), (Phase::Verifying, Some(TEXT)));
    let status = request_status(&user, job).await;
    assert_eq!((status.phase, status.answer, status.signature), (Phase::Verifying, None, None));

    nodes[1].verify(job, TEXT, Verdict::Confirm).await.ok::<Done>();
    let status = request_status(&user, job).await;
    assert_eq!((status.phase, status.verdicts.len(), status.reason), (Phase::Accepted, 1, None));
    let answer = status.answer.unwrap();
    assert_eq!(answer.commitment, TEXT);
    status.signature.unwrap().verify(answer.signed_text().unwrap().as_bytes(), answer.response).unwrap();
    assert_eq!(status.quorum, nodes.iter().map(|node| node.address).collect::<Vec<_>>());
    nodes[2].verify(job, TEXT, Verdict::Confirm).await.ok::<Done>();
    let status = request_status(&user, job).await;
    assert_eq!((status.phase, status.verdicts.len()), (Phase::Accepted, 2), "the last one is recorded");
    net.stop().await;
}

#[tokio::test]
async fn quorums_of_one_two_and_four() {
    let net = Net::start().await;
    // (members, verifiers that confirm, the rest reject) → accepted?
    for (members, confirming, wanted) in [
        (1, 0, Phase::Accepted),
        (2, 1, Phase::Accepted),
        (2, 0, Phase::Rejected),
        (4, 2, Phase::Accepted),
        (4, 1, Phase::Rejected),
    ] {
        let (user, nodes, job) = job(&net, members, members - 1).await;
        let (leader, verifiers) = nodes.split_first().unwrap();
        claim_and_commit(leader, job, TEXT).await;
        for (i, node) in verifiers.iter().enumerate() {
            claim_and_commit(node, job, if i < confirming { TEXT } else { OTHER }).await;
        }
        leader.lead(job, TEXT).await.ok::<Done>();
        // Those who reject first: they must not end it while the others can still confirm.
        for (i, node) in verifiers.iter().enumerate().rev() {
            let (commitment, verdict) =
                if i < confirming { (TEXT, Verdict::Confirm) } else { (OTHER, Verdict::Reject) };
            node.verify(job, commitment, verdict).await.ok::<Done>();
        }
        let status = request_status(&user, job).await;
        assert_eq!(status.phase, wanted, "{confirming} of {members}");
        assert_eq!(status.answer.is_some(), wanted == Phase::Accepted);
        assert_eq!(status.reason.is_some(), wanted == Phase::Rejected);
    }
    net.stop().await;
}

#[tokio::test]
async fn strangers_and_spares_have_no_part() {
    let net = Net::start().await;
    let (_, nodes, job) = job(&net, 2, 0).await;
    let (stranger, spare) = (net.node().await, &nodes[1]);
    for node in [&stranger, spare] {
        assert!(node.poll().await.assignments.is_empty());
        assert_eq!(node.claim(job).await.refused(), code(403, "NOT_A_MEMBER"));
        assert_eq!(node.commit(job, TEXT).await.refused(), code(403, "NOT_A_MEMBER"));
        assert_eq!(node.lead(job, TEXT).await.refused(), code(403, "NOT_A_MEMBER"));
        assert_eq!(node.verify(job, TEXT, Verdict::Confirm).await.refused(), code(403, "NOT_A_MEMBER"));
        assert_eq!(node.hand_back(job, "X").await.refused(), code(403, "NOT_A_MEMBER"));
        assert_eq!(node.status(job).await.refused(), code(403, "NOT_A_MEMBER"));
    }
    assert_eq!(stranger.claim(Hex([0; 32])).await.refused(), code(404, "UNKNOWN_JOB"));
    net.stop().await;
}

#[tokio::test]
async fn nothing_before_its_turn_and_nothing_twice() {
    let net = Net::start().await;
    let (_, nodes, job) = job(&net, 3, 2).await;
    let [leader, verifier, last] = &nodes[..] else { unreachable!() };
    assert_eq!(leader.commit(job, TEXT).await.refused(), code(409, "NOT_CLAIMED"));
    claim_and_commit(leader, job, TEXT).await;
    assert_eq!(leader.commit(job, TEXT).await.refused(), code(409, "ALREADY_COMMITTED"));
    assert_eq!(leader.claim(job).await.refused(), code(409, "ALREADY_COMMITTED"));
    assert_eq!(leader.lead(job, TEXT).await.refused(), code(409, "NOT_ALL_COMMITTED"));
    claim_and_commit(verifier, job, TEXT).await;
    last.claim(job).await.ok::<ClaimReply>();
    assert_eq!(leader.lead(job, TEXT).await.refused(), code(409, "NOT_ALL_COMMITTED"));
    last.commit(job, OTHER).await.ok::<Done>();
    assert_eq!(verifier.verify(job, TEXT, Verdict::Confirm).await.refused(), code(409, "LEADER_NOT_REVEALED"));
    assert_eq!(verifier.lead(job, TEXT).await.refused(), code(403, "NOT_THE_LEADER"));

    leader.lead(job, TEXT).await.ok::<Done>();
    assert_eq!(leader.lead(job, TEXT).await.refused(), code(409, "ALREADY_REVEALED"));
    assert_eq!(leader.verify(job, TEXT, Verdict::Confirm).await.refused(), code(403, "NOT_A_VERIFIER"));
    assert_eq!(leader.hand_back(job, "X").await.refused(), code(409, "ALREADY_REVEALED"));
    assert_eq!(verifier.verify(job, TEXT, Verdict::Reject).await.refused(), code(422, "VERDICT_CONTRADICTS"));
    let wrong = code(422, "WRONG_VERDICT_SIGNATURE");
    let mut other = verifier.verdict(job, TEXT, TEXT, Verdict::Confirm);
    other.signature = leader.verdict(job, TEXT, TEXT, Verdict::Confirm).signature;
    assert_eq!(verifier.reveal(&other).await.refused(), wrong, "another node's key");
    let other = verifier.verdict(job, TEXT, OTHER, Verdict::Confirm);
    assert_eq!(verifier.reveal(&other).await.refused(), wrong, "said of another answer");
    let other = verifier.verdict(Hex([9; 32]), TEXT, TEXT, Verdict::Confirm).signature;
    let other = VerifierResult { signature: other, ..verifier.verdict(job, TEXT, TEXT, Verdict::Confirm) };
    assert_eq!(verifier.reveal(&other).await.refused(), wrong, "said of another job");
    assert_eq!(last.verify(job, OTHER, Verdict::Confirm).await.refused(), code(422, "VERDICT_CONTRADICTS"));
    last.verify(job, OTHER, Verdict::Reject).await.ok::<Done>();
    assert_eq!(last.verify(job, OTHER, Verdict::Reject).await.refused(), code(409, "ALREADY_REVEALED"));
    verifier.verify(job, TEXT, Verdict::Confirm).await.ok::<Done>();
    assert_eq!(verifier.hand_back(job, "X").await.refused(), code(409, "JOB_ENDED"));
    assert_eq!(leader.lead(job, TEXT).await.refused(), code(409, "ALREADY_REVEALED"));
    net.stop().await;
}

/// A verifier that copies the leader's commitment once it is public has committed to something else before.
#[tokio::test]
async fn a_reveal_opens_the_commit_or_is_refused() {
    let net = Net::start().await;
    let (_, mut nodes, job) = job(&net, 2, 1).await;
    claim_and_commit(&nodes[0], job, TEXT).await;
    claim_and_commit(&nodes[1], job, OTHER).await;
    assert_eq!(nodes[0].lead(job, OTHER).await.refused(), code(422, "SALT_MISMATCH"));
    let wrong_salt = LeaderResult { salt: Hex(random()), ..nodes[0].result(job, TEXT) };
    let reply = nodes[0].post("/internal/task/result", &wrong_salt).await;
    assert_eq!(reply.refused(), code(422, "SALT_MISMATCH"));
    nodes[0].lead(job, TEXT).await.ok::<Done>();
    assert_eq!(nodes[1].verify(job, TEXT, Verdict::Confirm).await.refused(), code(422, "SALT_MISMATCH"));
    nodes[1].salt = Hex(random());
    assert_eq!(nodes[1].verify(job, OTHER, Verdict::Reject).await.refused(), code(422, "SALT_MISMATCH"));
    net.stop().await;
}

#[tokio::test]
async fn the_answer_is_signed_by_a_key_that_the_certificate_vouches_for() {
    let net = Net::start().await;
    let (user, nodes, job) = job(&net, 1, 0).await;
    let leader = &nodes[0];
    claim_and_commit(leader, job, TEXT).await;
    let good = leader.result(job, TEXT);
    let send = async |result: LeaderResult| leader.post("/internal/task/result", &result).await;
    let key = net.caller().key;
    let mut strange = good.clone();
    strange.answer.response = blf_devnet::development::address(&key);
    strange.signature = Signature::sign(&key, strange.answer.signed_text().unwrap().as_bytes());
    assert_eq!(send(strange).await.refused(), code(422, "WRONG_RESPONSE_KEY"));
    let signature = Signature::sign(&key, good.answer.signed_text().unwrap().as_bytes());
    assert_eq!(send(LeaderResult { signature, ..good.clone() }).await.refused(), code(422, "WRONG_ANSWER_SIGNATURE"));
    let mut altered = good.clone();
    altered.answer.output_cid = "bafkreib".into();
    assert_eq!(send(altered).await.refused(), code(422, "WRONG_ANSWER_SIGNATURE"));
    let mut other_job = good.clone();
    other_job.answer.job_id = Hex([0; 32]);
    assert_eq!(send(other_job).await.refused(), code(422, "WRONG_ANSWER"));
    let mut version = good.clone();
    version.answer.v = 2;
    assert_eq!(send(version).await.refused(), code(422, "WRONG_ANSWER"));
    send(good).await.ok::<Done>();
    assert_eq!(request_status(&user, job).await.phase, Phase::Accepted);
    net.stop().await;
}

#[tokio::test]
async fn a_member_that_hands_back_is_replaced_in_the_users_order() {
    let net = Net::start().await;
    let (user, nodes, job) = job(&net, 4, 1).await;
    let [leader, verifier, first, second] = &nodes[..] else { unreachable!() };
    assert_eq!(leader.hand_back(job, "not a code!").await.refused(), code(400, "MALFORMED"));
    leader.claim(job).await.ok::<ClaimReply>();
    leader.hand_back(job, "MODEL_BROKEN").await.ok::<Done>();
    let status = request_status(&user, job).await;
    assert_eq!((status.phase, status.quorum), (Phase::Queued, vec![first.address, verifier.address]));
    assert_eq!(first.poll().await.assignments[0].role, Role::Leader);
    assert_eq!(leader.claim(job).await.refused(), code(403, "NOT_A_MEMBER"));
    assert_eq!(leader.status(job).await.refused(), code(403, "NOT_A_MEMBER"), "no more than a stranger");
    assert_eq!(first.status(job).await.ok::<JobStatus>().phase, Phase::Queued);

    claim_and_commit(first, job, TEXT).await;
    verifier.hand_back(job, "BUSY").await.ok::<Done>();
    assert_eq!(second.poll().await.assignments[0].role, Role::Verifier);
    claim_and_commit(second, job, TEXT).await;
    first.lead(job, TEXT).await.ok::<Done>();
    second.verify(job, TEXT, Verdict::Confirm).await.ok::<Done>();
    let status = request_status(&user, job).await;
    assert_eq!((status.phase, status.quorum), (Phase::Accepted, vec![first.address, second.address]));
    net.stop().await;
}

#[tokio::test]
async fn without_a_spare_the_job_fails_though_other_nodes_are_there() {
    let net = Net::start().await;
    let (user, nodes, job) = job(&net, 2, 1).await;
    let bystander = net.node().await;
    nodes[1].hand_back(job, "BUSY").await.ok::<Done>();
    let status = request_status(&user, job).await;
    assert_eq!(status.phase, Phase::Failed);
    assert!(status.reason.unwrap().contains("BUSY"));
    assert!(bystander.poll().await.assignments.is_empty());
    assert_eq!(nodes[0].claim(job).await.refused(), code(409, "JOB_ENDED"));
    assert_eq!(nodes[0].status(job).await.ok::<JobStatus>().phase, Phase::Failed);
    net.stop().await;
}

#[tokio::test]
async fn deadlines_replace_those_who_are_late() {
    let deadlines = Deadlines { claim: 20, commit: 40, reveal: 30 };
    let net = Net::with(|options| options.deadlines = deadlines).await;
    let (user, nodes, job) = job(&net, 4, 1).await;
    let [leader, verifier, first, second] = &nodes[..] else { unreachable!() };
    verifier.claim(job).await.ok::<ClaimReply>();
    // A spare that stops is passed over.
    let beat = Heartbeat { node_address: first.address, stopping: true, timestamp: UnixTime(START) };
    first.post("/internal/heartbeat", &beat).await.ok::<Done>();
    net.forward(21);
    let status = wait_for(&user, job, |status| status.quorum[0] != leader.address).await;
    assert_eq!(status.quorum, [second.address, verifier.address]);
    assert_eq!(leader.claim(job).await.refused(), code(403, "NOT_A_MEMBER"));
    assert_eq!(second.poll().await.assignments[0].claim_by, UnixTime(START + 41));
    claim_and_commit(second, job, TEXT).await;
    net.forward(20); // 41 seconds after its claim the verifier has not committed
    let status = wait_for(&user, job, |status| status.phase == Phase::Failed).await;
    assert!(status.reason.unwrap().contains("did not commit in time"));
    net.stop().await;
}

#[tokio::test]
async fn whoever_does_not_reveal_ends_the_job() {
    let deadlines = Deadlines { claim: 20, commit: 40, reveal: 30 };
    let net = Net::with(|options| options.deadlines = deadlines).await;
    let (user, nodes, silent) = job(&net, 2, 1).await;
    for node in &nodes {
        claim_and_commit(node, silent, TEXT).await;
    }
    net.forward(31);
    let status = wait_for(&user, silent, |status| status.phase == Phase::Failed).await;
    assert!(status.reason.unwrap().contains("leader did not reveal"));
    assert_eq!(nodes[0].lead(silent, TEXT).await.refused(), code(409, "JOB_ENDED"));

    let (user, nodes, alone) = job(&net, 2, 1).await;
    for node in &nodes {
        claim_and_commit(node, alone, TEXT).await;
    }
    nodes[0].lead(alone, TEXT).await.ok::<Done>();
    net.forward(31);
    let status = wait_for(&user, alone, |status| status.phase == Phase::Rejected).await;
    assert_eq!(status.reason.unwrap(), "quorum: wanted 2 of 2, got 1 in time");
    assert!(status.answer.is_none());

    let (user, nodes, given_up) = job(&net, 2, 1).await;
    for node in &nodes {
        claim_and_commit(node, given_up, TEXT).await;
    }
    nodes[0].hand_back(given_up, "UPLOAD").await.ok::<Done>();
    assert_eq!(request_status(&user, given_up).await.phase, Phase::Failed);

    let (user, nodes, withdrawn) = job(&net, 2, 1).await;
    for node in &nodes {
        claim_and_commit(node, withdrawn, TEXT).await;
    }
    nodes[1].hand_back(withdrawn, "STOP").await.ok::<Done>();
    nodes[0].lead(withdrawn, TEXT).await.ok::<Done>();
    assert_eq!(request_status(&user, withdrawn).await.phase, Phase::Rejected);
    net.stop().await;
}

#[tokio::test]
async fn a_job_ends_with_the_users_expiry() {
    let net = Net::with(|options| options.deadlines = Deadlines { claim: 9000, commit: 9000, reveal: 9000 }).await;
    let (user, nodes, job) = job(&net, 1, 0).await;
    claim_and_commit(&nodes[0], job, TEXT).await;
    net.forward(3601);
    let status = wait_for(&user, job, |status| status.phase == Phase::Failed).await;
    assert!(status.reason.unwrap().contains("expired"));
    net.stop().await;
}

/// Anybody may submit jobs that end at once: of those that ended the newest are kept.
#[tokio::test]
async fn ended_jobs_give_way_to_newer_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devnet.sqlite");
    let net = Net::with(|options| options.state = Some(path.clone())).await;
    let (user, node) = (net.caller(), net.node().await);
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let (job, request) = submission(&user, &[&node], 0);
        submit(&user, &request).await.ok::<Done>();
        node.hand_back(job, "BUSY").await.ok::<Done>();
        net.forward(10);
        jobs.push(job);
    }
    net.stop().await;
    // With these between the two there is one too many.
    let between = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 1023)
        INSERT INTO jobs SELECT printf('%064x', n), '', FALSE, ?1, '' FROM number";
    let db = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(db.execute(between, [i64::try_from(START + 5).unwrap()]).unwrap(), 1023);
    drop(db);

    let net = Net::with(|options| options.state = Some(path.clone())).await;
    let user = Caller { to: net.running.address, clock: net.clock.clone(), ..user };
    let oldest = format!("/v1/inference/{}", jobs[0]);
    for _ in 0..100 {
        if user.get(&oldest).await.status == 404 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(user.get(&oldest).await.refused(), code(404, "UNKNOWN_JOB"));
    assert_eq!(request_status(&user, jobs[1]).await.phase, Phase::Failed);
    net.stop().await;
    let db = rusqlite::Connection::open(&path).unwrap();
    let kept = |table| db.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get::<_, u32>(0)).unwrap();
    assert_eq!((kept("jobs"), kept("seats")), (1024, 1));
}
