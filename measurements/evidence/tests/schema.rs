//! The schemas that are shipped (`schema/`) say what the parsers do, as far as JSON Schema can say it.

#[path = "common/document.rs"]
mod document;
#[path = "common/sample.rs"]
mod sample;

use blf_evidence::bundle::Evidence;
use blf_evidence::endorsements::Endorsements;
use blf_evidence::statement::Binding;
use serde_json::{Value, json};

use document::{Kind, with};

fn kinds() -> [Kind; 3] {
    [
        Kind::new(
            "evidence",
            include_str!("../schema/evidence.v1.json"),
            |bytes| Evidence::parse(bytes).is_ok(),
            sample::evidence().iter().map(|evidence| evidence.to_json().unwrap()).collect(),
        ),
        Kind::new(
            "endorsements",
            include_str!("../schema/endorsements.v1.json"),
            |bytes| Endorsements::parse(bytes).is_ok(),
            sample::endorsements().iter().map(|endorsements| endorsements.to_json().unwrap()).collect(),
        ),
        Kind::new(
            "binding",
            include_str!("../schema/binding.v1.json"),
            |bytes| Binding::parse(bytes).is_ok(),
            sample::bindings().iter().map(|binding| binding.to_canonical().unwrap()).collect(),
        ),
    ]
}

#[test]
fn every_sample_is_valid() {
    kinds().iter().for_each(Kind::every_document_is_valid);
}

#[test]
fn closed_at_every_place() {
    kinds().iter().for_each(Kind::closed_at_every_place);
}

/// A value that is out of range: both refuse.
#[test]
fn values_out_of_range() {
    let kinds = kinds();
    let long = |bytes: usize| Value::from("AAAA".repeat(bytes.div_ceil(3) + 1));
    for (index, document, at, value) in [
        (0, 7, "/schema", json!("blf.evidence/v2")),
        (0, 7, "/binding", json!("x".repeat(16_385))),
        (0, 7, "/config", json!("x".repeat(4097))),
        (0, 7, "/endorsements", long(131_072)),
        (0, 7, "/platform/tpm/quote", long(1024)),
        (0, 7, "/platform/tpm/signature", long(1024)),
        (0, 7, "/platform/tpm/ak_public", long(1024)),
        (0, 7, "/platform/tpm/ak_certificate", long(4096)),
        (0, 7, "/platform/tpm/event_log", long(131_072)),
        (0, 7, "/platform/tpm/pcrs", json!(["55".repeat(32)])),
        (0, 7, "/platform/tpm/pcrs", vec![Value::from("55".repeat(32)); 25].into()),
        (0, 7, "/platform/tpm/pcrs/3", json!("AA".repeat(32))),
        (0, 7, "/platform/tpm/pcrs/3", json!("55".repeat(31))),
        (0, 7, "/platform/tpm/quote", json!("cXVvdGU")),
        (0, 7, "/platform/tpm/quote", json!("cXVvdGV=")),
        (0, 7, "/platform/tpm/quote", json!("_XVvdGU=")),
        (0, 7, "/platform/tpm/quote", json!("cXVvdGU=\n")),
        (0, 7, "/platform", json!({})),
        (
            0,
            7,
            "/platform",
            json!({"snp": {"report": "AA==", "certificates": null}, "tdx": {"quote": "AA==", "event_log": null}}),
        ),
        (0, 7, "/platform", json!({"sgx": {"report": "AA=="}})),
        (0, 6, "/platform/tdx/quote", long(16_384)),
        (0, 6, "/platform/tdx/event_log", long(131_072)),
        (0, 5, "/platform/snp/report", long(16_384)),
        (0, 5, "/platform/snp/certificates", long(16_384)),
        (0, 4, "/platform/azure/hcl_report", long(8192)),
        (0, 4, "/platform/azure/td_quote", long(16_384)),
        (1, 3, "/schema", json!("blf.endorsements/v2")),
        (1, 3, "/snp/vek", json!("A")),
        (1, 3, "/tdx/tcb_info_signature", json!("01".repeat(63))),
        (1, 3, "/tdx/tcb_info", Value::Null),
        (2, 1, "/v", json!(2)),
        (2, 1, "/purpose", json!("other")),
        (2, 1, "/nonce", json!("09".repeat(31))),
        (2, 1, "/nonce", json!("0A".repeat(32))),
        (2, 1, "/boot_id", json!("09".repeat(17))),
        (2, 1, "/keys/node", json!("0X0505050505050505050505050505050505050505")),
        (2, 1, "/keys/node", json!("0x05")),
        (2, 1, "/not_after", json!(-1)),
        (2, 1, "/anchor/block_number", json!(-1)),
        (2, 1, "/models", vec![json!({"id": "a", "manifest_sha256": "08".repeat(32)}); 65].into()),
        (2, 1, "/egress", vec![Value::from("a"); 65].into()),
        (2, 1, "/gpu_sha256", json!("")),
    ] {
        let kind = &kinds[index];
        let good = &kind.documents[document];
        let bad = with(good, at, value);
        assert_ne!(&bad, good, "{at}: no effect");
        assert_eq!(kind.verdicts(&bad), (false, false), "{} {at}", kind.name);
    }
}

/// What JSON Schema cannot say. The parser refuses all the same: a schema is for writing documents, not for judging them.
#[test]
fn beyond_a_schema() {
    let kinds = kinds();
    for (index, document, at, value, why) in [
        (0, 7, "/binding", json!("{}"), "the binding is a document of its own"),
        (0, 7, "/config", json!("é".repeat(3000)), "caps count bytes"),
        (2, 1, "/keys/node", json!("0x5935897a39afabbeda5a599d38236e7df151c8b8"), "an address without its checksum"),
    ] {
        let kind = &kinds[index];
        let bad = with(&kind.documents[document], at, value);
        assert_eq!(kind.verdicts(&bad), (true, false), "{why}");
    }
    // A name that stands twice is gone before a schema sees the document.
    let good = kinds[1].documents[0].to_string();
    let twice = good.replacen("\"snp\":null", "\"snp\":null,\"snp\":null", 1);
    assert_ne!(twice, good);
    assert!(kinds[1].schema.is_valid(&serde_json::from_str(&twice).unwrap()));
    assert!(!(kinds[1].parses)(twice.as_bytes()));
    // 2^53, of which readers have different ideas, and its neighbour.
    let mut large = kinds[2].documents[0].clone();
    large["not_after"] = json!((1_u64 << 53) - 1);
    assert_eq!(kinds[2].verdicts(&large), (true, true));
    large["not_after"] = json!(1_u64 << 53);
    assert!(!kinds[2].schema.is_valid(&large) && !(kinds[2].parses)(large.to_string().as_bytes()));
}
