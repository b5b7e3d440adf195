//! Crate edges, budgets and bans, read from the resolved dependency tree of the release build.

use std::collections::BTreeSet;
use std::process::Command;

/// Names of the crates linked or run when `package` is built for release, itself included.
fn tree(package: &str, edges: &str) -> BTreeSet<String> {
    tree_with(package, edges, &[])
}

fn tree_with(package: &str, edges: &str, features: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", package, "--edges", edges, "--prefix", "none"])
        .args(["--format", "{p}", "--target", "x86_64-unknown-linux-gnu"])
        .args(features)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split(" (").next().unwrap().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn names(package: &str) -> BTreeSet<String> {
    without_versions(&tree(package, "normal"))
}

fn without_versions(tree: &BTreeSet<String>) -> BTreeSet<String> {
    tree.iter().map(|entry| entry.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn trusted_code_does_not_link_untrusted_code_nor_the_other_way_round() {
    let edges = [
        ("blf-agent", &["blf-appraisal", "blf-host", "blf-devnet", "blf"][..]),
        ("blf", &["blf-agent", "blf-inference", "blf-host", "blf-devnet", "candle-core"]),
        ("blf-host", &["blf-agent", "blf-inference", "candle-core"]),
        ("blf-devnet", &["blf-agent", "blf-inference", "blf-host", "candle-core"]),
        ("blf-appraisal", &["blf-agent", "blf-bridge", "tokio", "hyper", "candle-core"]),
        ("blf-evidence", &["blf-appraisal", "blf-bridge", "blf-contracts", "blf-agent", "tokio", "hyper"]),
    ];
    for (package, forbidden) in edges {
        let names = names(package);
        assert!(names.contains(package), "{package}: its own tree does not name it");
        for name in forbidden {
            assert!(!names.contains(*name), "{package} links {name}");
        }
    }
}

/// The verifier decides offline, in whoever's program it is linked: no runtime, no network, no engine, and with RustCrypto
/// alone no C either.
#[test]
fn the_verifier_stands_alone() {
    let forbidden = [
        "async-std",
        "candle-core",
        "futures-executor",
        "hyper",
        "mio",
        "native-tls",
        "openssl-sys",
        "reqwest",
        "ring",
        "rustls",
        "smol",
        "socket2",
        "tokio",
        "ureq",
    ];
    let all = ["--features", "rust-crypto"];
    let pure = ["--no-default-features", "--features", "rust-crypto"];
    for features in [&[][..], &all, &pure] {
        let names = without_versions(&tree_with("blf-appraisal", "normal,build", features));
        assert!(names.contains("blf-evidence"), "{features:?}: {names:?}");
        for name in forbidden {
            assert!(!names.contains(name), "{features:?}: blf-appraisal links {name}");
        }
        let is_pure = features == pure;
        for name in ["aws-lc-sys", "cc"] {
            assert_eq!(names.contains(name), !is_pure, "{features:?}: {name}");
        }
        for name in ["p256", "p384", "rsa"] {
            assert_eq!(names.contains(name), !features.is_empty(), "{features:?}: {name}");
        }
    }
}

#[test]
fn nothing_depends_on_tests() {
    for package in
        ["blf-evidence", "blf-appraisal", "blf", "blf-contracts", "blf-bridge", "blf-agent", "blf-host", "blf-devnet"]
    {
        assert!(!names(package).contains("blf-tests"), "{package}");
    }
}

#[test]
fn one_crypto_provider_and_one_tls_stack() {
    for package in ["blf-agent", "blf", "blf-host", "blf-devnet"] {
        let names = names(package);
        for banned in ["ring", "openssl-sys", "native-tls"] {
            assert!(!names.contains(banned), "{package} links {banned}");
        }
    }
}

/// The auditor's afternoon has an end.
#[test]
fn crate_budgets() {
    for (package, budget) in [("blf-agent", 300), ("blf-host", 400), ("blf-appraisal", 100)] {
        let count = tree(package, "normal,build").len();
        assert!(count <= budget, "{package}: wanted at most {budget} crates, got {count}");
    }
}
