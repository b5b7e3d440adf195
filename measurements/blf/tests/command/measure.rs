//! `blf measure`: a manifest is made of an image, the image is compared with it, and what is wanted of nodes follows.

use blf_appraisal::{References, Release};
use serde_json::Value;

use super::{blf, object, schema, text};
use crate::inputs::inputs;
use crate::pe_images::{uki, uki_sections};

#[test]
fn manifest_comparison_and_references() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let image = uki(&uki_sections());
    std::fs::write(path("image"), &image).unwrap();
    std::fs::write(path("inputs"), serde_json::to_vec(&inputs(&image)).unwrap()).unwrap();
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/../../agent/profiles/devnet.json");
    let (image, inputs, manifest, references) = (path("image"), path("inputs"), path("manifest"), path("references"));
    let measured = object(&blf(&[
        "--json",
        "measure",
        "--image",
        &image,
        "--inputs",
        &inputs,
        "--profile",
        profile,
        "--manifest",
        &manifest,
    ]));
    let schema = schema("measure");
    assert!(schema.is_valid(&measured), "{measured}");
    assert_eq!(measured["matches"], Value::Null);
    let release = Release::parse(&std::fs::read(&manifest).unwrap()).unwrap();
    assert_eq!(measured["measurement_id"], release.measurement_id);

    let compare = ["--json", "measure", "--image", &image, "--check", &manifest, "--references", &references];
    let compared = object(&blf(&compare));
    assert!(schema.is_valid(&compared), "{compared}");
    assert_eq!(compared["matches"], true);
    assert_eq!(References::parse(&std::fs::read(&references).unwrap()).unwrap(), References::from(&release));
    let people = text(&blf(&compare[1..]).stdout);
    assert!(people.ends_with("matches the release manifest\n") && people.contains(&release.measurement_id), "{people}");

    // Of another image nothing is wanted.
    std::fs::remove_file(&references).unwrap();
    let mut sections = uki_sections();
    sections[2].1.push(b' ');
    std::fs::write(&image, uki(&sections)).unwrap();
    let output = blf(&compare);
    assert_eq!((output.status.code(), &object(&output)["failure"]["code"]), (Some(3), &"IMAGE_MISMATCH".into()));
    assert!(!std::path::Path::new(&references).exists());
}
