//! Evidence, Endorsements and bindings as documents: what is written is read back, nothing else is read, and different
//! bindings never have one form.

#[path = "common/sample.rs"]
mod sample;

use blf_evidence::bundle::{
    AzureEvidence, EVIDENCE_CAP, Evidence, PCRS, Platform, SCHEMA, SnpEvidence, TdxEvidence, TpmEvidence,
};
use blf_evidence::config::CONFIG_CAP;
use blf_evidence::endorsements::{self, ENDORSEMENTS_CAP, Endorsements, SnpEndorsements, TdxEndorsements};
use blf_evidence::json::JsonError;
use blf_evidence::statement::{Anchor, BINDING_CAP, Binding, Keys, Model, Profile, Purpose, Statement};
use blf_evidence::{Address, Base64, Hex, UnixTime};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn every_sample_is_read_back() {
    for evidence in sample::evidence() {
        assert_eq!(Evidence::parse(evidence.to_json().unwrap().as_bytes()).unwrap(), evidence);
    }
    for endorsements in sample::endorsements() {
        assert_eq!(Endorsements::parse(endorsements.to_json().unwrap().as_bytes()).unwrap(), endorsements);
    }
}

/// The cap of every part: at the cap it is accepted, one byte more is refused by name.
#[test]
fn parts_longer_than_their_caps() {
    type Part = for<'a> fn(&'a mut Evidence) -> Option<&'a mut Base64>;
    fn tpm_of(evidence: &mut Evidence) -> Option<&mut TpmEvidence> {
        match &mut evidence.platform {
            Platform::Tpm(tpm) => Some(tpm),
            Platform::Azure(azure) => Some(&mut azure.tpm),
            _ => None,
        }
    }
    let parts: [(&str, usize, Part); 11] = [
        ("endorsements", 131_072, |evidence| evidence.endorsements.as_mut()),
        ("quote", 1024, |evidence| tpm_of(evidence).map(|tpm| &mut tpm.quote)),
        ("signature", 1024, |evidence| tpm_of(evidence).map(|tpm| &mut tpm.signature)),
        ("ak_public", 1024, |evidence| tpm_of(evidence).map(|tpm| &mut tpm.ak_public)),
        ("ak_certificate", 4096, |evidence| tpm_of(evidence)?.ak_certificate.as_mut()),
        ("event_log", 131_072, |evidence| tpm_of(evidence)?.event_log.as_mut()),
        ("report", 16_384, |evidence| match &mut evidence.platform {
            Platform::Snp(snp) => Some(&mut snp.report),
            _ => None,
        }),
        ("certificates", 16_384, |evidence| match &mut evidence.platform {
            Platform::Snp(snp) => snp.certificates.as_mut(),
            _ => None,
        }),
        ("quote", 16_384, |evidence| match &mut evidence.platform {
            Platform::Tdx(tdx) => Some(&mut tdx.quote),
            _ => None,
        }),
        ("hcl_report", 8192, |evidence| match &mut evidence.platform {
            Platform::Azure(azure) => Some(&mut azure.hcl_report),
            _ => None,
        }),
        ("td_quote", 16_384, |evidence| match &mut evidence.platform {
            Platform::Azure(azure) => azure.td_quote.as_mut(),
            _ => None,
        }),
    ];
    for (name, cap, part) in parts {
        let mut tried = 0;
        for mut evidence in sample::evidence() {
            let Some(bytes) = part(&mut evidence) else { continue };
            *bytes = Base64(vec![0; cap]);
            evidence.check().unwrap();
            part(&mut evidence).unwrap().0.push(0);
            let refused = format!("evidence: {name}: wanted at most {cap} bytes, got {}", cap + 1);
            assert_eq!(evidence.check().unwrap_err().to_string(), refused);
            tried += 1;
        }
        assert!(tried > 0, "{name}");
    }
}

#[test]
fn documents_longer_than_their_caps() {
    let padded = |text: &str, len: usize| [text.as_bytes(), &vec![b' '; len - text.len()]].concat();
    let evidence = sample::evidence().remove(0).to_json().unwrap();
    Evidence::parse(&padded(&evidence, EVIDENCE_CAP)).unwrap();
    let refused = Evidence::parse(&padded(&evidence, EVIDENCE_CAP + 1)).unwrap_err();
    assert_eq!(refused, JsonError::TooLong { what: "evidence", cap: EVIDENCE_CAP, got: EVIDENCE_CAP + 1 });
    let endorsements = Endorsements::default().to_json().unwrap();
    Endorsements::parse(&padded(&endorsements, ENDORSEMENTS_CAP)).unwrap();
    assert!(Endorsements::parse(&padded(&endorsements, ENDORSEMENTS_CAP + 1)).is_err());
    let mut long = sample::evidence().remove(0);
    long.config = " ".repeat(CONFIG_CAP);
    long.check().unwrap();
    long.config.push(' ');
    assert!(long.check().is_err(), "config");
    let mut long = sample::bindings()[0].clone();
    long.audience = "a".repeat(BINDING_CAP);
    assert!(Binding::parse(long.to_canonical().unwrap().as_bytes()).is_err(), "binding");
}

#[test]
fn number_of_pcrs() {
    for mut evidence in sample::evidence() {
        let pcrs = match &mut evidence.platform {
            Platform::Tpm(tpm) => &mut tpm.pcrs,
            Platform::Azure(azure) => &mut azure.tpm.pcrs,
            _ => continue,
        };
        pcrs.push(Hex([1; 32]));
        assert_eq!(evidence.check().unwrap_err().to_string(), "evidence: pcrs: wanted 24, got 25");
    }
}

/// Text that differs from a good document in one place.
#[test]
fn other_spellings() {
    let good = sample::evidence().pop().unwrap().to_json().unwrap();
    for (name, from, to) in [
        ("another schema", "\"blf.evidence/v1\"", "\"blf.evidence/v2\""),
        ("an unknown member", "\"config\":", "\"new\":1,\"config\":"),
        ("a member twice", "\"config\":", "\"config\":\"{}\",\"config\":"),
        ("a member of the platform twice", "\"quote\":", "\"quote\":\"AA==\",\"quote\":"),
        ("two platforms", "\"platform\":{", "\"platform\":{\"snp\":{\"certificates\":null,\"report\":\"AA==\"},"),
        ("an unknown platform", "\"tpm\":{", "\"tpm3\":{"),
        ("a platform in capitals", "\"tpm\":{", "\"TPM\":{"),
        ("a platform without evidence", "\"platform\":{", "\"platform\":{}, \"other\":{"),
        ("base64 without padding", "\"cXVvdGU=\"", "\"cXVvdGU\""),
        ("base64 with bits behind its end", "\"cXVvdGU=\"", "\"cXVvdGV=\""),
        ("base64url", "\"cXVvdGU=\"", "\"_XVvdGU=\""),
        ("hex in capitals", "555555", "AAAAAA"),
        ("a number for text", "\"config\":\"{}\"", "\"config\":7"),
        ("a list for the PCRs' digest", "\"event_log\":\"b3B0aW9uYWw=\"", "\"event_log\":[1]"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{name}: no effect");
        assert!(Evidence::parse(bad.as_bytes()).is_err(), "{name}");
    }
    let good = sample::endorsements()[3].to_json().unwrap();
    for (name, from, to) in [
        ("another schema", "\"blf.endorsements/v1\"", "\"blf.endorsements/v2\""),
        ("an unknown member", "\"snp\":", "\"new\":1,\"snp\":"),
        ("a member twice", "\"vek\":", "\"vek\":null,\"vek\":"),
        ("a short signature", "\"0101", "\"01"),
        ("null for text", "\"tcb_info\":\"{}\"", "\"tcb_info\":null"),
        ("an object for text", "\"tcb_info\":\"{}\"", "\"tcb_info\":{}"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{name}: no effect");
        assert!(Endorsements::parse(bad.as_bytes()).is_err(), "{name}");
    }
}

/// Every member of every object, left out, must be missed; null is written.
#[test]
fn members_left_out() {
    let texts = sample::evidence().into_iter().map(|evidence| evidence.to_json().unwrap());
    for text in texts {
        let good: Value = serde_json::from_str(&text).unwrap();
        for (at, bad) in with_one_member_less(&good) {
            assert!(Evidence::parse(bad.to_string().as_bytes()).is_err(), "{at}");
        }
    }
    for endorsements in sample::endorsements() {
        let good: Value = serde_json::from_str(&endorsements.to_json().unwrap()).unwrap();
        for (at, bad) in with_one_member_less(&good) {
            assert!(Endorsements::parse(bad.to_string().as_bytes()).is_err(), "{at}");
        }
    }
    for binding in sample::bindings() {
        let good: Value = serde_json::from_str(&binding.to_canonical().unwrap()).unwrap();
        for (at, bad) in with_one_member_less(&good) {
            assert!(Binding::parse(bad.to_string().as_bytes()).is_err(), "{at}");
        }
    }
    assert_eq!(with_one_member_less(&json!({"a": {"b": 1}, "c": [{"d": null}]})).len(), 4);
}

fn with_one_member_less(good: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let children: Vec<(String, &Value)> = match good {
        Value::Object(members) => {
            for name in members.keys() {
                let mut less = members.clone();
                less.remove(name);
                found.push((name.clone(), Value::Object(less)));
            }
            members.iter().map(|(name, value)| (name.clone(), value)).collect()
        }
        Value::Array(values) => values.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (name, child) in children {
        for (at, less) in with_one_member_less(child) {
            let mut whole = good.clone();
            match &mut whole {
                Value::Object(members) => members[&name] = less,
                Value::Array(values) => values[name.parse::<usize>().unwrap()] = less,
                _ => unreachable!(),
            }
            found.push((format!("{name}/{at}"), whole));
        }
    }
    found
}

fn hex<const N: usize>() -> impl Strategy<Value = Hex<N>> {
    // Mostly bytes that another field could hold as well.
    prop_oneof![Just([0; N]), Just([b'0'; N]), any::<[u8; N]>()].prop_map(Hex)
}

fn base64(most: usize) -> impl Strategy<Value = Base64> {
    vec(any::<u8>(), 0..most).prop_map(Base64)
}

/// Text that tries to look like the JSON around it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,12}",
        "[\\\\\",:{}\\[\\]u0022\u{0}\u{1f}\u{7f}\u{2028}é😀]{0,8}",
        Just("\",\"v\":1,\"x\":\"".to_string()),
        Just("null".to_string()),
        Just(String::new()),
    ]
}

prop_compose! {
    fn tpm_evidence()(
        quote in base64(64), signature in base64(64), ak_public in base64(64),
        ak_certificate in option::of(base64(64)), event_log in option::of(base64(64)),
        pcrs in vec(hex(), PCRS),
    ) -> TpmEvidence {
        TpmEvidence { quote, signature, ak_public, ak_certificate, pcrs, event_log }
    }
}

fn platform() -> impl Strategy<Value = Platform> {
    prop_oneof![
        (base64(64), option::of(base64(64)), tpm_evidence())
            .prop_map(|(hcl_report, td_quote, tpm)| Platform::Azure(AzureEvidence { hcl_report, td_quote, tpm })),
        (base64(64), option::of(base64(64)))
            .prop_map(|(report, certificates)| Platform::Snp(SnpEvidence { report, certificates })),
        (base64(64), option::of(base64(64)))
            .prop_map(|(quote, event_log)| Platform::Tdx(TdxEvidence { quote, event_log })),
        tpm_evidence().prop_map(Platform::Tpm),
    ]
}

prop_compose! {
    fn binding()(
        anchor in option::of((hex(), 0..1_u64 << 53, 0..1_u64 << 53)),
        audience in text(), boot_id in hex(), config_sha256 in hex(), egress in vec(text(), 0..4),
        gpu_sha256 in option::of(hex()), cofhe_sealing in hex(), hpke in hex(),
        node in any::<[u8; 20]>(), response in any::<[u8; 20]>(), tls_spki_sha256 in hex(),
        models in vec((text(), hex()), 0..4),
        (nonce, not_after, numeric_profile, id, name, purpose) in
            (hex(), 0..1_u64 << 53, text(), hex(), text(), 0_usize..4),
    ) -> Binding {
        Binding {
            anchor: anchor.map(|(block_hash, block_number, chain_id)| Anchor { block_hash, block_number, chain_id }),
            audience, boot_id, config_sha256, egress, gpu_sha256,
            keys: Keys {
                cofhe_sealing, hpke, node: Address(node), response: Address(response), tls_spki_sha256,
            },
            models: models.into_iter().map(|(id, manifest_sha256)| Model { id, manifest_sha256 }).collect(),
            nonce, not_after: UnixTime(not_after), numeric_profile,
            profile: Profile { id, name },
            purpose: [Purpose::Admission, Purpose::Ionet, Purpose::Preview, Purpose::Session][purpose],
            v: 1,
        }
    }
}

prop_compose! {
    fn endorsements()(
        snp in option::of((option::of(base64(64)), option::of(base64(64)), option::of(base64(64)), option::of(base64(64)))),
        tdx in option::of((text(), base64(64), base64(64), text(), text(), (hex(), text(), text(), hex()))),
    ) -> Endorsements {
        Endorsements {
            schema: endorsements::SCHEMA.into(),
            snp: snp.map(|(vek, ask, ark, crl)| SnpEndorsements { vek, ask, ark, crl }),
            tdx: tdx.map(|(pck_crl_issuer_chain, root_ca_crl, pck_crl, tcb_info_issuer_chain, tcb_info, rest)| {
                let (tcb_info_signature, qe_identity_issuer_chain, qe_identity, qe_identity_signature) = rest;
                TdxEndorsements {
                    pck_crl_issuer_chain, root_ca_crl, pck_crl, tcb_info_issuer_chain, tcb_info, tcb_info_signature,
                    qe_identity_issuer_chain, qe_identity, qe_identity_signature,
                }
            }),
        }
    }
}

proptest! {
    /// Parse after write is the identity, whatever the members hold.
    #[test]
    fn evidence_is_read_back(platform in platform(), binding in binding(), config in text(), endorsements in option::of(base64(64))) {
        let evidence =
            Evidence { schema: SCHEMA.into(), binding: binding.to_canonical().unwrap(), config, platform, endorsements };
        let written = evidence.to_json().unwrap();
        prop_assert_eq!(&Evidence::parse(written.as_bytes()).unwrap(), &evidence);
        // Order and white space are free, and do not change what is read.
        let spaced = serde_json::to_string_pretty(&evidence).unwrap();
        prop_assert_ne!(&spaced, &written);
        prop_assert_eq!(Evidence::parse(spaced.as_bytes()).unwrap().to_json().unwrap(), written);
    }

    #[test]
    fn endorsements_are_read_back(endorsements in endorsements()) {
        let written = endorsements.to_json().unwrap();
        prop_assert_eq!(Endorsements::parse(written.as_bytes()).unwrap(), endorsements);
    }

    /// The encoding of bindings is injective: what is read back from the form is the binding itself, so two bindings that
    /// differ cannot share one, nor a statement.
    #[test]
    fn bindings_have_a_form_each(one in binding(), other in binding()) {
        let (text, other_text) = (one.to_canonical().unwrap(), other.to_canonical().unwrap());
        prop_assert_eq!(&Binding::parse(text.as_bytes()).unwrap(), &one);
        prop_assert_eq!(one == other, text == other_text);
        let statement = |binding: &Binding, text: &str| Statement::new(binding.keys.node, text.as_bytes());
        prop_assert_eq!(one == other, statement(&one, &text) == statement(&other, &other_text));
    }

    /// Moving text from one member to its neighbour gives another form (no concatenation anywhere).
    #[test]
    fn text_belongs_to_its_member(binding in binding(), moved in "[a-z]{1,6}") {
        let (mut one, mut other) = (binding.clone(), binding);
        one.audience.push_str(&moved);
        other.numeric_profile.insert_str(0, &moved);
        prop_assert_ne!(&one, &other);
        prop_assert_ne!(one.to_canonical().unwrap(), other.to_canonical().unwrap());
        let (mut joined, mut apart) = (one.clone(), one);
        joined.egress = vec![format!("{moved}{moved}")];
        apart.egress = vec![moved.clone(), moved];
        prop_assert_ne!(joined.to_canonical().unwrap(), apart.to_canonical().unwrap());
    }

    /// One byte of the canonical form replaced: refused, or the form of another binding.
    #[test]
    fn one_byte_of_a_binding(binding in binding(), at: prop::sample::Index, byte: u8) {
        let text = binding.to_canonical().unwrap().into_bytes();
        let mut bad = text.clone();
        let at = at.index(bad.len());
        bad[at] = byte;
        if let Ok(other) = Binding::parse(&bad) {
            prop_assert_eq!(other.to_canonical().unwrap().into_bytes(), bad.clone());
            prop_assert_eq!(other == binding, bad == text);
        }
    }

    #[test]
    fn any_bytes(raw in vec(any::<u8>(), 0..300)) {
        let _ = (Evidence::parse(&raw), Endorsements::parse(&raw), Binding::parse(&raw));
    }
}
