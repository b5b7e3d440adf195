//! Beside the published Python node, unchanged: quorums of both kinds, and what a leader gets that uploads nothing.

use std::time::{Duration, Instant};

use blf_devnet::{Fault, Faults};
use blf_evidence::Address;
use blf_tests::python::{PythonNode, installed};
use hyper::Method;
use serde_json::Value;

use super::Net;

const PATIENCE: Duration = Duration::from_secs(120);

/// A devnet, `ours` nodes of ours, and three published ones; none where those are not installed.
fn net(test: &str, ours: usize, faults: &Faults) -> Option<(Net, Vec<Address>, Vec<PythonNode>)> {
    let program = installed(test)?;
    let net = Net::start(ours, |options| options.faults = faults.clone());
    let plain = net.running.plain.unwrap();
    let published: Vec<_> = (1..=3u8)
        .map(|number| {
            let mut node = PythonNode::attested(&program, plain, &[number; 32]);
            node.run();
            node
        })
        .collect();
    for node in &published {
        node.wait_for("Daemon starting", PATIENCE);
    }
    let ours = net.quorum();
    Some((net, ours, published))
}

/// Leader's hash first, then the verifiers', each with its word.
fn hashes(status: &Value) -> Vec<(String, Value)> {
    let verdicts = status["verifier_verdicts"].as_array().unwrap();
    let leader = (status["leader_submission"]["result_hash"].as_str().unwrap().to_owned(), Value::Bool(true));
    let verdict = |v: &Value| (v["result_hash"].as_str().unwrap_or_default().to_owned(), v["accepted"].clone());
    std::iter::once(leader).chain(verdicts.iter().map(verdict)).collect()
}

impl Net {
    /// Asks, and gives what the coordinator says once every verifier has spoken. It decides after the first that agrees,
    /// so the leader is kept from its assignments until all have claimed.
    fn ask_all(&self, faults: &Faults, quorum: &[Address]) -> Value {
        let path: &str = format!("/internal/assignments/{}", quorum[0]).leak();
        faults.add(Fault { path, times: 1, status: 429, retry_after: Some(15) });
        until("the leader kept waiting", || faults.left() == 0);
        let (task, status) = self.ask("mock", quorum);
        let path = format!("/v1/inference/task/{task}");
        let mut last = status;
        until("a word of every verifier", || {
            let wallet = &self.user.wallet;
            last = self.runtime.block_on(wallet.send(&wallet.profile.icl, Method::GET, &path, String::new()));
            last["verifier_verdicts"].as_array().unwrap().iter().all(|verdict| verdict["submitted"] == true)
        });
        last
    }
}

#[test]
fn both_kinds_of_node_agree_on_a_hash() {
    let faults = Faults::default();
    let name = "legacy::python::both_kinds_of_node_agree_on_a_hash";
    let Some((net, ours, published)) = net(name, 2, &faults) else { return };
    let theirs: Vec<_> = published.iter().map(|node| node.address).collect();

    // Ours leads, two published verify; two of ours and one published.
    for quorum in [[ours[0], theirs[0], theirs[1]], [ours[0], ours[1], theirs[2]]] {
        let status = net.ask_all(&faults, &quorum);
        assert_eq!(status["status"], "ACCEPTED", "{status}");
        let spoke = hashes(&status);
        assert!(spoke.len() == 3 && spoke.iter().all(|word| *word == spoke[0]), "{quorum:?}: {spoke:?}");
    }

    // Published ones alone.
    let (_, status) = net.ask("mock", &theirs);
    assert_eq!(status["status"], "ACCEPTED", "{status}");

    // A published leader without a pinning token names a CID under which there is nothing.
    let (_, status) = net.ask("mock", &[theirs[0], ours[0], ours[1]]);
    assert_eq!(status["status"], "REJECTED", "{status}");
    let spoke = hashes(&status);
    assert!(spoke[1..].iter().all(|(hash, accepted)| *accepted == false && *hash != spoke[0].0), "{spoke:?}");
    net.end();
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "no {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
