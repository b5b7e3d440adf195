//! The index of attacks (`vectors/README.md`) names tests that exist.

use std::path::Path;

#[test]
fn every_attack_has_its_test() {
    let measurements = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let index = include_str!("vectors/README.md");
    let (_, rest) = index.split_once("| attack | refused in |\n").unwrap();
    let (attacks, _) = rest.split_once("\n\n").unwrap();
    let mut named = 0;
    for row in attacks.lines().filter(|row| !row.starts_with("|---")) {
        let tests: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            let (path, name) = test.split_once("::").unwrap_or_else(|| panic!("wanted path::name, got {test}"));
            let source = std::fs::read_to_string(measurements.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert!(source.contains(&format!("fn {name}(")), "{path} has no {name}");
            named += 1;
        }
    }
    assert!(named > 60, "{named} tests");
}
