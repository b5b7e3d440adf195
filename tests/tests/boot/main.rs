//! The built image, booted: what its jobs leave behind, three nodes that agree, what it denies. `tests/boot` runs these.

#![allow(missing_docs)]

mod canary;
mod denied;
mod launched;
mod qmp;
mod tap;
mod user;

use launched::Prepared;

#[test]
fn three_nodes_in_the_booted_image_agree() {
    let prepared = Prepared::find();
    let launched = prepared.launch(3);
    let report = prepared.ask(&launched, "What does blf protect?", 2).unwrap();
    let quorum = report["quorum"].as_array().unwrap();
    assert_eq!(quorum.len(), 3);
    assert!(quorum.iter().any(|m| m["verdict"] == "CONFIRM"), "{quorum:?}");
    assert!(quorum.iter().all(|m| m["verdict"] != "REJECT"), "{quorum:?}");
    let measurements: std::collections::BTreeSet<_> = quorum.iter().map(|m| m["measurement"].to_string()).collect();
    assert_eq!(measurements.len(), 1, "one image, one measurement");
    // And each of them, asked without the coordinator.
    let mut asked = std::collections::BTreeSet::new();
    for api in launched.kind("api") {
        let verdict = prepared.verify(&launched, api["address"].as_str().unwrap());
        assert_eq!((&verdict["verdict"], &verdict["result"]["tier"]), (&"verified".into(), &0.into()), "{verdict}");
        asked.insert(verdict["result"]["binding"]["keys"]["node"].to_string());
    }
    let members: std::collections::BTreeSet<_> = quorum.iter().map(|m| m["node"].to_string()).collect();
    assert_eq!(asked, members, "the nodes of the quorum, each at its own port");
    launched.stop();
}
