//! Policies and Reference Values as documents: what is shipped, what the schemas and the parsers refuse alike, and what
//! only the parsers can.

#[path = "../../evidence/tests/common/document.rs"]
mod kind;

use std::collections::BTreeSet;

use blf_appraisal::policy::{Accept, Bit, Component, Limit, Policy};
use blf_appraisal::references::{Reference, References, SnpReference, TdxReference, TpmReference};
use blf_evidence::statement::Profile;
use blf_evidence::tdx::measurement;
use blf_evidence::{Hex, UnixTime};
use serde_json::{Value, json};

use kind::{Kind, places, with};

const SHIPPED: [(&str, &str); 3] =
    [("confidential", Policy::CONFIDENTIAL), ("devnet", Policy::DEVNET), ("released", Policy::RELEASED)];

fn policies() -> Kind {
    let mut documents: Vec<Value> = SHIPPED.iter().map(|(_, text)| serde_json::from_str(text).unwrap()).collect();
    // Every list with something in it.
    let mut full = documents[0].clone();
    full["models"] = json!({"only": [{"id": "blf-tiny-1", "manifest_sha256": "00".repeat(32)}]});
    full["numeric_profiles"] = json!({"only": ["candle-f32-v1"]});
    full["anchor_age_blocks"] = json!({"at_most": 7200});
    full["azure"]["paravisors"] = json!({"only": ["00".repeat(48)]});
    full["snp"]["chip_ids"] = json!({"only": ["00".repeat(64)]});
    full["snp"]["csps"] = json!({"only": ["CN=cc-us-east-2.amazonaws.com"]});
    for (member, bytes) in [("fmspcs", 6), ("mr_seam", 48), ("ppids", 16), ("service_tds", 48)] {
        full["tdx"][member] = json!({"only": ["00".repeat(bytes)]});
    }
    full["tdx"]["advisories"] = json!({"only": ["INTEL-SA-00837"]});
    documents.push(full);
    let schema = include_str!("../schema/policy.v1.json");
    Kind::new("policy", schema, |bytes| Policy::parse(bytes).is_ok(), documents.iter().map(Value::to_string).collect())
}

fn image() -> Reference {
    Reference {
        locked: true,
        name: "blf".into(),
        profile: Profile { id: Hex([10; 32]), name: "production".into() },
        retired: Some("CVE-2026-1".into()),
        snp: vec![SnpReference { measurement: Hex([1; 48]), model: "EPYC-v4".into(), sev_features: 1, vcpus: 4 }],
        tdx: Some(TdxReference {
            mrtd: vec![Hex([2; 48])],
            rtmr0: Accept::Only(vec![Hex([3; 48])]),
            rtmr1: Hex([4; 48]),
            rtmr2: Hex([5; 48]),
        }),
        tpm: Some(TpmReference { pcr11: Hex([6; 32]), pcr4: vec![Hex([7; 32])], pcr9: Hex([8; 32]) }),
        valid_from: UnixTime(1),
        valid_until: Some(UnixTime(2)),
        version: "1.0.0".into(),
    }
}

fn document(references: Vec<Reference>) -> References {
    References { references, schema: "blf.references/v1".into() }
}

fn references() -> Kind {
    let bare =
        Reference { locked: false, retired: None, snp: vec![], tdx: None, tpm: None, valid_until: None, ..image() };
    let documents = [document(vec![]), document(vec![image(), bare])];
    let documents = documents.map(|document| document.to_json().unwrap());
    let schema = include_str!("../schema/references.v1.json");
    Kind::new("references", schema, |bytes| References::parse(bytes).is_ok(), documents.to_vec())
}

#[test]
fn documents_are_valid() {
    [policies(), references()].iter().for_each(Kind::every_document_is_valid);
}

#[test]
fn parse_and_write_are_inverse() {
    for (name, text) in SHIPPED {
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let written = serde_json::to_value(&policy).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(text).unwrap(), "{name}");
        assert_eq!(Policy::parse(written.to_string().as_bytes()).unwrap(), policy);
    }
    let references = document(vec![image()]);
    assert_eq!(References::parse(references.to_json().unwrap().as_bytes()).unwrap(), references);
}

#[test]
fn closed_at_every_place() {
    [policies(), references()].iter().for_each(Kind::closed_at_every_place);
}

/// At every place, values that some members may have: what the schema refuses, the parser does too.
#[test]
fn nothing_is_looser_than_its_schema() {
    for kind in [policies(), references()] {
        for good in &kind.documents {
            for at in places(good) {
                for other in [json!(null), json!("any"), json!({"only": []}), json!(-1), json!(256), json!("")] {
                    let (schema, parser) = kind.verdicts(&with(good, &at, other.clone()));
                    // Besides, the parser refuses two floors for one chip.
                    assert!(schema || !parser, "{} {at}: {other}", kind.name);
                }
            }
        }
    }
}

#[test]
fn refused_policies() {
    let kind = policies();
    let good = &kind.documents[0];
    let zero = "00".repeat(48);
    for (at, value, by_schema) in [
        ("/schema", json!("blf.policy/v2"), true),
        ("/minimum_tier", json!(3), true),
        ("/anchor", json!("never"), true),
        ("/platforms", json!({"only": ["sgx"]}), true),
        ("/azure/paravisors", json!({"only": [&zero[2..]]}), true),
        ("/azure/paravisors", json!({"any": null}), true),
        ("/azure/paravisors", json!({"only": [zero], "any": null}), true),
        ("/anchor_age_blocks", json!({"at_most": -1}), true),
        ("/anchor_age_blocks", json!(7), true),
        ("/snp/policy/debug", json!("maybe"), true),
        ("/snp/families/tier_2", json!({"only": ["naples"]}), true),
        ("/snp/tcb_floors/0/cpuid", json!({"only": ["1911"]}), true),
        ("/snp/tcb_floors/0/floor/snp", json!(256), true),
        ("/snp/tcb_floors/0/launch_mitigations", json!([64]), true),
        ("/snp/tcb_floors/0/advisories/0/raises", json!(["everything"]), true),
        ("/tdx/tcb_statuses", json!({"only": ["Revoked"]}), true),
        ("/tdx/xfam/allowed", json!("e7"), true),
        // What a schema cannot say: Turin alone has an FMC, and no chip has two floors.
        ("/snp/tcb_floors/0/floor/fmc", json!(0), false),
        ("/snp/tcb_floors/5/floor/fmc", json!(null), false),
        ("/snp/tcb_floors/0/cpuid", json!({"only": ["191102"]}), false),
        ("/snp/tcb_floors/0/cpuid", json!("any"), false),
    ] {
        let bad = with(good, at, value);
        assert_ne!(&bad, good, "{at}: no effect");
        assert_eq!(kind.verdicts(&bad), (!by_schema, false), "{at}");
    }
    // The devnet's, which takes any cloud.
    let bad = with(&kind.documents[1], "/snp/chip_ids", json!({"only": ["00".repeat(64)]}));
    assert_eq!(kind.verdicts(&bad), (true, false), "chips, and any cloud's key for all of them");
    let text = good.to_string();
    for (from, to) in [("\"anchor\":\"any\"", "\"anchor\":\"any\",\"anchor\":\"any\""), ("{", "["), ("}", "}}")] {
        let bad = text.replacen(from, to, 1);
        assert_ne!(bad, text);
        assert!(Policy::parse(bad.as_bytes()).is_err(), "{to}");
    }
}

#[test]
fn refused_references() {
    let other = |change: fn(&mut Reference)| {
        let mut other = image();
        other.snp[0].measurement = Hex([0x11; 48]);
        other.tdx.as_mut().unwrap().rtmr2 = Hex([0x15; 48]);
        other.tpm.as_mut().unwrap().pcr11 = Hex([0x16; 32]);
        let distinct = document(vec![image(), other.clone()]).to_json().unwrap();
        References::parse(distinct.as_bytes()).unwrap();
        change(&mut other);
        References::parse(document(vec![image(), other]).to_json().unwrap().as_bytes()).unwrap_err().to_string()
    };
    let twice = ": wanted once, got twice";
    let error = other(|image| image.snp[0].measurement = Hex([1; 48]));
    assert_eq!(error, format!("references: snp:{}{twice}", Hex([1; 48])));
    let error = other(|image| image.tdx.as_mut().unwrap().rtmr2 = Hex([5; 48]));
    assert!(
        error.starts_with(&format!("references: mrtd:{} rtmr1:", Hex([2; 48]))) && error.ends_with(twice),
        "{error}"
    );
    let error = other(|image| image.tpm.as_mut().unwrap().pcr11 = Hex([6; 32]));
    assert_eq!(error, format!("references: tpm-pcr11:{}{twice}", Hex([6; 32])));
    let text = document(vec![]).to_json().unwrap().replace("/v1", "/v2");
    assert!(References::parse(text.as_bytes()).unwrap_err().to_string().contains("wanted blf.references/v1"));
}

#[test]
fn ids_that_a_job_may_name() {
    let current = Reference { retired: None, ..image() };
    let ids = document(vec![current]).measurement_ids();
    let wanted = [
        format!("snp:{}", Hex([1; 48])),
        format!("tdx:{}", measurement(Hex([2; 48]), Hex([4; 48]), Hex([5; 48]))),
        format!("tpm-pcr11:{}", Hex([6; 32])),
    ];
    assert_eq!(ids, wanted);
    assert!(document(vec![image()]).measurement_ids().is_empty(), "retired");
}

/// What no policy that is shipped lets through, and what those for production demand.
#[test]
fn shipped_policies() {
    for (name, text) in SHIPPED {
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let (snp, tdx) = (&policy.snp, &policy.tdx);
        let host_can_look = [
            snp.policy.debug,
            snp.policy.migrate_ma,
            snp.migration_agent,
            tdx.td_attributes.debug,
            tdx.td_attributes.migratable,
        ];
        assert!(host_can_look.iter().all(|bit| *bit == Bit::Forbidden), "{name}");
        assert_eq!(tdx.service_tds, Accept::Only(vec![]), "{name}");
        assert!(matches!(&snp.vmpls, Accept::Only(levels) if levels.iter().all(|level| *level <= 3)), "{name}");
        for families in [&snp.families.tier_1, &snp.families.tier_2] {
            let Accept::Only(families) = families else { panic!("{name}: any family") };
            assert!(!families.contains(&blf_evidence::snp::Family::Milan), "{name}: Milan");
        }
        if policy.minimum_tier > 0 {
            assert!(snp.minimum_report_version >= 3, "{name}: a report that does not name its chip");
            assert_eq!(snp.platform_info.alias_check_complete, Bit::Required, "{name}");
            assert!(matches!(snp.crl_age_s, Limit::AtMost(_)) && matches!(tdx.collateral_age_s, Limit::AtMost(_)));
        }
    }
}

/// Each number in a floor that was shipped has an advisory that sets it, and each of these a source.
#[test]
fn floors_have_reasons() {
    let policy = Policy::parse(Policy::CONFIDENTIAL.as_bytes()).unwrap();
    assert_eq!(policy.snp.tcb_floors, Policy::parse(Policy::RELEASED.as_bytes()).unwrap().snp.tcb_floors);
    for floor in &policy.snp.tcb_floors {
        let named = |component| floor.advisories.iter().any(|advisory| advisory.raises.contains(&component));
        let mitigations = floor.launch_mitigations.len() + floor.current_mitigations.len();
        for (component, set) in [
            (Component::Fmc, floor.floor.fmc.is_some_and(|fmc| fmc > 0)),
            (Component::Bootloader, floor.floor.bootloader > 0),
            (Component::Tee, floor.floor.tee > 0),
            (Component::Snp, floor.floor.snp > 0),
            (Component::Microcode, floor.floor.microcode > 0),
            (Component::Mitigations, mitigations > 0),
        ] {
            assert_eq!(named(component), set, "{:?} {:?}: {component:?}", floor.family, floor.cpuid);
        }
        let sources: BTreeSet<_> = floor.advisories.iter().map(|advisory| &advisory.source).collect();
        assert_eq!(sources.len(), floor.advisories.len(), "{:?}", floor.cpuid);
        assert!(sources.iter().all(|source| source.starts_with("https://")));
    }
}
