//! Evidence of real guests of Azure, and of real vTPMs, each with its verdict (`vectors/azure/README.md`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::azure::{self as azure_platform, Hardware};
use blf_appraisal::snp::{Root, Signer};
use blf_appraisal::{AkEndorsement, Endorsers, Rejected, RootKind, snp, tpm};
use blf_evidence::azure::{HardwareReport, HclReport};
use blf_evidence::bundle::{AzureEvidence, TpmEvidence};
use blf_evidence::endorsements::{Endorsements, SnpEndorsements};
use blf_evidence::snp::{Family, policy};
use blf_evidence::tpm::{Quote, Signature};
use blf_evidence::{Base64, Hex};
use serde_json::Value;
use x509_cert::der::Encode as _;

use crate::azure::{CHALLENGE, ak_public, genuine, rsassa, vector, with_vcek};
use crate::refusal;
use crate::snp::NOW;

fn authenticate(
    evidence: &AzureEvidence,
    endorsements: &Endorsements,
) -> Result<azure_platform::Claims, Box<Rejected>> {
    let endorsers = Endorsers::default();
    azure_platform::authenticate(evidence, CHALLENGE, endorsements, &endorsers, NOW, &AwsLc).map(|it| (*it).clone())
}

#[test]
fn on_snp() {
    let (evidence, vcek) = genuine("evidence-snp-v1.json");
    let claims = authenticate(&evidence, &with_vcek(vcek)).unwrap();
    let Hardware::Snp(hardware) = &claims.hardware else { panic!("not SEV-SNP") };
    assert_eq!(
        (hardware.family, &hardware.signer, hardware.roots),
        (Family::Milan, &Signer::Vcek, RootKind::Production)
    );
    assert_eq!((hardware.report.version, hardware.report.vmpl), (3, 0), "the paravisor's own report");
    assert_eq!(hardware.report.policy & (policy::DEBUG | policy::MIGRATE_MA), 0);
    assert_eq!(claims.vm_configuration.vm_unique_id.as_deref(), Some("26F8BC30-774E-4290-8E7A-535F3B672AEE"));
    assert_eq!(claims.vm_configuration.secure_boot, Some(true));
    assert_eq!((&claims.tpm.ak, claims.tpm.event_log), (&AkEndorsement::Paravisor, false));
    assert_eq!(claims.tpm.pcrs[4].to_string(), "eee70c86ea856a27719a2127d6090f02e100e2947c16a0d6a355f7294382992f");
    assert_eq!(claims.tpm.pcrs[11], Hex([0; 32]), "no image of ours");
}

/// Everything is good but what Intel would have to say of this platform, which nobody published.
#[test]
fn tdx_without_collateral() {
    let (evidence, _) = genuine("evidence-tdx-v1.json");
    let refused = refusal(authenticate(&evidence, &Endorsements::default()));
    assert_eq!(refused.code, "COLLATERAL_MISSING");
    let passed: Vec<_> = refused.passed.iter().map(|check| check.id.names().0).collect();
    assert_eq!(passed, ["azure.hcl", "azure.runtime_data", "azure.td_report", "tdx.quote"]);
    let claims = tpm::authenticate(&evidence.tpm, CHALLENGE, &Endorsers::default(), NOW, &AwsLc).unwrap();
    assert_eq!(claims.ak, AkEndorsement::Nobody, "without the paravisor's word any program could have made this AK");
}

/// A report of version 2 by an older paravisor, beside a genuine chain that is of another chip.
#[test]
fn certificates_of_another_chip() {
    let hcl = HclReport::parse(&vector("azure/hcl-report-snp.bin")).unwrap();
    let HardwareReport::Snp(report) = &hcl.hardware else { panic!("not SEV-SNP") };
    let chain = x509_cert::Certificate::load_pem_chain(&vector("azure/certs.pem")).unwrap();
    let [vek, ask, ark] = [0, 1, 2].map(|index| Some(Base64(chain[index].to_der().unwrap())));
    let endorsements = SnpEndorsements { vek, ask, ark, crl: None };
    let refused = refusal(snp::authenticate(&report[..], &endorsements, &Root::pinned(), NOW, &AwsLc));
    assert_eq!(refused.code, "VEK_MISMATCH");
    assert!(refused.failed.expected.starts_with("CHIP_ID 3a5d5b1d"), "{refused}");
}

/// A third machine's quote is good, and is nobody's below an HCL report of another machine.
#[test]
fn quote_of_a_third_machine() {
    let bytes = vector("azure/quote.bin");
    let (signature, rest) = bytes[8..].split_at(256);
    let (message, pcrs) = rest[8..].split_at(122);
    let (_, spki) = x509_cert::der::pem::decode_vec(&vector("azure/akpub.pem")).unwrap();
    let third = TpmEvidence {
        quote: Base64(message.to_vec()),
        signature: Base64(rsassa(signature.to_vec())),
        ak_public: Base64(ak_public(&spki[33..289]).to_bytes()),
        ak_certificate: None,
        pcrs: pcrs[8..].chunks(32).map(|pcr| Hex(pcr.try_into().unwrap())).collect(),
        event_log: None,
    };
    assert_eq!(ak_public(&spki[33..289]).subject_public_key_info().unwrap(), spki);
    let claims = tpm::authenticate(&third, CHALLENGE, &Endorsers::default(), NOW, &AwsLc).unwrap();
    assert_eq!(claims.pcrs[0].to_string(), "f3a7e99a5f819a034386bce753a48a73cfdaa0bea0ecfc124bedbf5a8c4799be");
    let (evidence, vcek) = genuine("evidence-snp-v1.json");
    let mixed = AzureEvidence { tpm: third, ..evidence };
    assert_eq!(refusal(authenticate(&mixed, &with_vcek(vcek))).code, "AK_NOT_IN_RUNTIME_DATA");
}

fn evidence_vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../evidence/tests/vectors/tpm/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A quote over fewer PCRs, by an AK that is in none of the HCL reports.
#[test]
fn quote_by_an_unknown_ak() {
    for file in ["evidence-snp-v1.json", "evidence-tdx-v1.json"] {
        let (mut evidence, _) = genuine(file);
        evidence.tpm.quote = Base64(evidence_vector("az-quote.msg"));
        evidence.tpm.signature = Base64(rsassa(evidence_vector("az-quote.sig")));
        assert_eq!(Quote::parse(&evidence.tpm.quote.0).unwrap().extra_data, CHALLENGE);
        let refused = refusal(tpm::authenticate(&evidence.tpm, CHALLENGE, &Endorsers::default(), NOW, &AwsLc));
        assert_eq!(refused.code, "QUOTE_SIGNATURE");
    }
}

/// A cloud's vTPM that measured nothing: its signature and its PCR digest are good.
#[test]
fn quote_over_nothing() {
    let real: Value = serde_json::from_slice(&evidence_vector("vtpm-evidence.json")).unwrap();
    let decode = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let (spki, quote) = (decode(&real["ak_public"]), decode(&real["tpm_quote"]["message"]));
    let signature = decode(&real["tpm_quote"]["signature"]);
    Signature::parse(&signature).unwrap();
    let extra_data = Quote::parse(&quote).unwrap().extra_data;
    let pcrs = real["tpm_quote"]["pcrs"].as_array().unwrap();
    let evidence = TpmEvidence {
        quote: Base64(quote),
        signature: Base64(signature),
        ak_public: Base64(ak_public(&spki[33..289]).to_bytes()),
        ak_certificate: None,
        pcrs: pcrs.iter().map(|pcr| pcr.as_str().unwrap().parse().unwrap()).collect(),
        event_log: None,
    };
    let refused = refusal(tpm::authenticate(&evidence, &extra_data, &Endorsers::default(), NOW, &AwsLc));
    assert_eq!(refused.code, "NOTHING_MEASURED");
    assert!(refused.passed.iter().any(|check| check.id.names().0 == "quote.pcr_digest"), "{:?}", refused.passed);
}
