//! Release manifests: made from an image, compared with one, strict, and as their schema says.

#[path = "common/inputs.rs"]
mod inputs;
#[path = "common/pe.rs"]
mod pe_images;

use blf_appraisal::release::measurement_id;
use blf_appraisal::{Inputs, Release, predict};
use blf_evidence::Hex;
use blf_evidence::statement::Profile;
use inputs::{inputs, sha};
use pe_images::{uki, uki_sections};
use serde_json::Value;

fn profile() -> Profile {
    Profile { name: "devnet".into(), id: Hex([10; 32]) }
}

fn image() -> Vec<u8> {
    uki(&uki_sections())
}

#[test]
fn manifest_of_an_image() {
    let image = image();
    let release = Release::from_image(&image, &inputs(&image), profile()).unwrap();
    let predicted = predict::from_uki(&image).unwrap();
    assert_eq!(release.pcrs.pcr4, predicted.pcr4);
    assert_eq!(release.measurement_id, measurement_id(predicted.pcr11));
    let text = release.to_json().unwrap();
    assert_eq!(Release::parse(text.as_bytes()).unwrap(), release);
    release.check_image(&image).unwrap();
}

#[test]
fn inputs_as_the_builder_writes_them() {
    let image = image();
    let text = serde_json::to_string(&inputs(&image)).unwrap();
    assert_eq!(Inputs::parse(text.as_bytes()).unwrap(), inputs(&image));
    assert!(Inputs::parse(text.replacen("\"locked\"", "\"sealed\"", 1).as_bytes()).is_err());
}

#[test]
fn section_named_twice() {
    let image = image();
    let text = serde_json::to_string(&inputs(&image)).unwrap();
    let (name, hash) = inputs(&image).sections.pop_first().unwrap();
    let first = format!("\"{name}\":\"{hash}\"");
    let twice = text.replacen(&first, &format!("{first},\"{name}\":\"{}\"", Hex([9; 32])), 1);
    assert_ne!(twice, text);
    assert!(Inputs::parse(text.as_bytes()).is_ok());
    assert!(Inputs::parse(twice.as_bytes()).unwrap_err().to_string().contains("duplicate field"));
}

#[test]
fn description_of_another_image() {
    let image = image();
    let mut other = inputs(&image);
    other.sections.insert(".initrd".into(), Hex([7; 32]));
    let error = Release::from_image(&image, &other, profile()).unwrap_err().to_string();
    assert!(error.starts_with("image, .initrd: wanted 0707"), "{error}");
    let mut other = inputs(&image);
    other.outputs[0].sha256 = Hex([7; 32]);
    assert!(Release::from_image(&image, &other, profile()).unwrap_err().to_string().starts_with("image, blf.efi"));
    let mut other = inputs(&image);
    other.profile = "production".into();
    assert!(Release::from_image(&image, &other, profile()).unwrap_err().to_string().starts_with("image, profile"));
}

#[test]
fn tampered_image() {
    let image = image();
    let release = Release::from_image(&image, &inputs(&image), profile()).unwrap();
    for (index, _) in image.iter().enumerate().step_by(97) {
        let mut bad = image.clone();
        bad[index] ^= 1;
        assert!(release.check_image(&bad).is_err(), "{index}");
    }
}

/// Even a manifest whose file digest was replaced along with the file does not cover another command line.
#[test]
fn tampered_command_line() {
    let good = image();
    let mut release = Release::from_image(&good, &inputs(&good), profile()).unwrap();
    let mut sections = uki_sections();
    sections.iter_mut().find(|(name, _)| *name == ".cmdline").unwrap().1 = b"console=ttyS0 init=/bin/sh\n".to_vec();
    let bad = uki(&sections);
    assert!(release.check_image(&bad).unwrap_err().to_string().starts_with("image, blf.efi"));
    release.outputs[0].sha256 = sha(&bad);
    assert!(release.check_image(&bad).unwrap_err().to_string().starts_with("image, PCR 4"));
    release.pcrs.pcr4 = predict::from_uki(&bad).unwrap().pcr4;
    assert!(release.check_image(&bad).unwrap_err().to_string().starts_with("image, PCR 9"));
}

#[test]
fn refused_manifests() {
    let image = image();
    let text = Release::from_image(&image, &inputs(&image), profile()).unwrap().to_json().unwrap();
    let zero = "0".repeat(64);
    for (name, from, to) in [
        ("other schema", "blf.release/v1", "blf.release/v2"),
        ("unknown member", "\"locked\": true", "\"locked\": true, \"signed\": true"),
        ("duplicate member", "\"locked\": true", "\"locked\": false, \"locked\": true"),
        ("PCR 14 instead of 12", "\"12\"", "\"14\""),
        ("measurement id of another image", "tpm-pcr11:", "tpm-pcr11:0"),
        ("PCR 12 that is not zero", &format!("\"12\": \"{zero}\""), &format!("\"12\": \"1{}\"", &zero[1..])),
        ("PCR 13 that is not zero", &format!("\"13\": \"{zero}\""), &format!("\"13\": \"1{}\"", &zero[1..])),
        ("text where a truth is wanted", "\"locked\": true", "\"locked\": \"yes\""),
        ("negative size", "\"size\": 135912", "\"size\": -1"),
    ] {
        let bad = text.replacen(from, to, 1);
        assert_ne!(bad, text, "{name}: no effect");
        assert!(Release::parse(bad.as_bytes()).is_err(), "{name}");
    }
    let members: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    for member in members.keys() {
        let mut without = members.clone();
        without.remove(member);
        assert!(Release::parse(serde_json::to_string(&without).unwrap().as_bytes()).is_err(), "without {member}");
    }
}

/// The shipped schema names the same members as the type, all required, none else allowed, at every level.
#[test]
fn schema_is_the_type_s() {
    fn compare(path: &str, schema: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                assert_eq!(schema["additionalProperties"], false, "{path}");
                let names: std::collections::BTreeSet<_> = members.keys().map(String::as_str).collect();
                let properties = schema["properties"].as_object().unwrap_or_else(|| panic!("{path}"));
                assert_eq!(properties.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), names);
                let required = schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                assert_eq!(required.collect::<std::collections::BTreeSet<_>>(), names, "{path}");
                for (name, value) in members {
                    compare(&format!("{path}/{name}"), &properties[name], value);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| compare(path, &schema["items"], value)),
            Value::String(_) => assert!(schema["type"] == "string" || schema["const"].is_string(), "{path}"),
            Value::Bool(_) => assert_eq!(schema["type"], "boolean", "{path}"),
            Value::Number(_) => assert_eq!(schema["type"], "integer", "{path}"),
            Value::Null => panic!("{path}: nothing is null"),
        }
    }
    let image = image();
    let release = Release::from_image(&image, &inputs(&image), profile()).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/release.v1.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    compare("", &schema, &serde_json::to_value(&release).unwrap());
}
