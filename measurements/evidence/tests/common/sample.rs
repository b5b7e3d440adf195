//! One document of every kind, which say nothing in particular.

use blf_evidence::bundle::{AzureEvidence, Evidence, PCRS, Platform, SCHEMA, SnpEvidence, TdxEvidence, TpmEvidence};
use blf_evidence::endorsements::{self, Endorsements, SnpEndorsements, TdxEndorsements};
use blf_evidence::statement::{Anchor, Binding};
use blf_evidence::{Base64, Hex};

/// Without anything optional, and with all of it.
pub(crate) fn bindings() -> [Binding; 2] {
    let bare = Binding::parse(include_bytes!("../vectors/binding.json")).unwrap();
    let anchor = Some(Anchor { block_hash: Hex([0x77; 32]), block_number: 12, chain_id: 421_614 });
    [bare.clone(), Binding { anchor, gpu_sha256: Some(Hex([0x66; 32])), ..bare }]
}

/// Of every platform, without anything optional, and with all of it.
pub(crate) fn evidence() -> Vec<Evidence> {
    let optional = |present: bool| present.then(|| Base64(b"optional".to_vec()));
    let tpm = |present: bool| TpmEvidence {
        quote: Base64(b"quote".to_vec()),
        signature: Base64(b"signature".to_vec()),
        ak_public: Base64(b"ak".to_vec()),
        ak_certificate: optional(present),
        pcrs: vec![Hex([0x55; 32]); PCRS],
        event_log: optional(present),
    };
    let report = || Base64(vec![0xFF; 1184]);
    let platforms = |present: bool| {
        [
            Platform::Azure(AzureEvidence { hcl_report: report(), td_quote: optional(present), tpm: tpm(present) }),
            Platform::Snp(SnpEvidence { report: report(), certificates: optional(present) }),
            Platform::Tdx(TdxEvidence { quote: report(), event_log: optional(present) }),
            Platform::Tpm(tpm(present)),
        ]
    };
    let [bare, full] = bindings().map(|binding| binding.to_canonical().unwrap());
    let document = |platform: Platform, binding: &str, endorsements| Evidence {
        schema: SCHEMA.into(),
        binding: binding.into(),
        config: "{}".into(),
        platform,
        endorsements,
    };
    let without = platforms(false).map(|platform| document(platform, &bare, None));
    without.into_iter().chain(platforms(true).map(|platform| document(platform, &full, optional(true)))).collect()
}

/// None, each kind of them alone, and all.
pub(crate) fn endorsements() -> [Endorsements; 4] {
    let der = || Base64(b"certificate".to_vec());
    let snp = SnpEndorsements { vek: Some(der()), ask: None, ark: Some(der()), crl: None };
    let pem = || "-----BEGIN CERTIFICATE-----\n".to_string();
    let tdx = TdxEndorsements {
        pck_crl_issuer_chain: pem(),
        root_ca_crl: der(),
        pck_crl: der(),
        tcb_info_issuer_chain: pem(),
        tcb_info: "{}".into(),
        tcb_info_signature: Hex([1; 64]),
        qe_identity_issuer_chain: pem(),
        qe_identity: "{}".into(),
        qe_identity_signature: Hex([2; 64]),
    };
    let document = |snp, tdx| Endorsements { schema: endorsements::SCHEMA.into(), snp, tdx };
    let whole = SnpEndorsements { ask: Some(der()), crl: Some(der()), ..snp.clone() };
    [
        document(None, None),
        document(Some(snp), None),
        document(None, Some(tdx.clone())),
        document(Some(whole), Some(tdx)),
    ]
}
