//! One test for each way in which Azure's chain can be broken. Where the hardware has to sign it, ours does: then nothing
//! but the named defect is wrong.

use aws_lc_rs::signature::EcdsaKeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blf_evidence::Base64;
use blf_evidence::azure::{HardwareReport, HclReport};
use blf_evidence::bundle::AzureEvidence;
use blf_evidence::endorsements::Endorsements;
use blf_evidence::snp::Report;
use blf_evidence::tpm::{HashAlg, ObjectAttributes, Public, PublicKey, Quote, Scheme, Signature, ak_p256_template};

use crate::azure::{CHALLENGE, Guest, OTHER_AK, RH_ENDORSEMENT, ak_public, genuine, modulus, runtime_data, vector};
use crate::refusal;
use crate::snp::{Case, sign_report};

/// The code with which evidence is refused after this damage; without it, it passes.
#[track_caller]
fn code(guest: &Guest, damage: impl FnOnce(&mut AzureEvidence)) -> &'static str {
    let mut evidence = guest.evidence(CHALLENGE);
    guest.verdict(&evidence, CHALLENGE).unwrap();
    let good = evidence.clone();
    damage(&mut evidence);
    assert_ne!(evidence, good, "no effect");
    refusal(guest.verdict(&evidence, CHALLENGE)).code
}

/// The code with which a guest is refused whose every signature is good, after this change of what it says.
#[track_caller]
fn code_of(change: impl FnOnce(&mut Guest)) -> &'static str {
    let mut guest = Guest::new();
    change(&mut guest);
    refusal(guest.verdict(&guest.evidence(CHALLENGE), CHALLENGE)).code
}

fn edit_hcl(evidence: &mut AzureEvidence, edit: impl FnOnce(&mut HclReport)) {
    let mut hcl = HclReport::parse(&evidence.hcl_report.0).unwrap();
    edit(&mut hcl);
    evidence.hcl_report = Base64(hcl.to_bytes());
}

fn requote(guest: &Guest, evidence: &mut AzureEvidence, edit: impl FnOnce(&mut Quote)) {
    let mut quote = guest.attest(CHALLENGE);
    edit(&mut quote);
    *evidence = guest.evidence_of(&quote);
}

#[test]
fn runtime_data_edited() {
    let guest = Guest::new();
    for (from, to) in [("\"console-enabled\":true", "\"console-enabled\":null"), ("\"VM\"", "\"WM\"")] {
        let damage = |evidence: &mut AzureEvidence| {
            edit_hcl(evidence, |hcl| {
                let text = String::from_utf8(hcl.runtime_data.clone()).unwrap();
                hcl.runtime_data = text.replacen(from, to, 1).into_bytes();
            });
        };
        assert_eq!(code(&guest, damage), "HCL_MISMATCH");
    }
    let own_ak = |evidence: &mut AzureEvidence| {
        edit_hcl(evidence, |hcl| hcl.runtime_data = runtime_data(&modulus(&OTHER_AK)).into_bytes());
    };
    assert_eq!(code(&guest, own_ak), "HCL_MISMATCH", "an AK of the guest's own put into it");
}

/// Has the HCL report's hardware report made again: for the same runtime data, edited, and signed with this key.
fn reissue(evidence: &mut AzureEvidence, guest: &Guest, key: &EcdsaKeyPair, edit: impl FnOnce(&mut Report)) {
    edit_hcl(evidence, |hcl| {
        let mut report = guest.chip.report.clone();
        report.report_data.0 = hcl.hardware.report_data();
        edit(&mut report);
        hcl.hardware = HardwareReport::Snp(Box::new(sign_report(&report, key)));
    });
}

#[test]
fn report_data_with_more_than_the_digest() {
    let guest = Guest::new();
    let damage = |evidence: &mut AzureEvidence| {
        reissue(evidence, &guest, &guest.chip.key, |report| report.report_data.0[63] = 1)
    };
    assert_eq!(code(&guest, damage), "HCL_MISMATCH");
}

/// Whoever runs above the paravisor may ask the chip for reports of its own.
#[test]
fn report_that_a_guest_asked_for() {
    let guest = Guest::new();
    let damage = |evidence: &mut AzureEvidence| reissue(evidence, &guest, &guest.chip.key, |report| report.vmpl = 2);
    assert_eq!(code(&guest, damage), "HCL_VMPL");
}

#[test]
fn report_that_the_chip_did_not_sign() {
    let guest = Guest::new();
    let damage = |evidence: &mut AzureEvidence| evidence.hcl_report.0[32 + 0x90] ^= 1;
    assert_eq!(code(&guest, damage), "SNP_SIGNATURE", "its launch digest");
    let other = Case::vcek(guest.chip.family);
    let damage = |evidence: &mut AzureEvidence| reissue(evidence, &guest, &other.key, |_| ());
    assert_eq!(code(&guest, damage), "SNP_SIGNATURE", "by another chip");
}

#[test]
fn hcl_report_of_another_vm() {
    let guest = Guest::new();
    let neighbour = guest.neighbour();
    guest.verdict(&neighbour.evidence(CHALLENGE), CHALLENGE).unwrap();
    let damage = |evidence: &mut AzureEvidence| evidence.hcl_report = neighbour.evidence(CHALLENGE).hcl_report;
    assert_eq!(code(&guest, damage), "AK_NOT_IN_RUNTIME_DATA");
}

#[test]
fn ak_by_software() {
    let mut guest = Guest::new();
    let honest = guest.hcl();
    guest.tpm = &OTHER_AK;
    guest.ak = ak_public(&modulus(guest.tpm));
    let mut evidence = guest.evidence(CHALLENGE);
    evidence.hcl_report = Base64(honest.to_bytes());
    assert_eq!(refusal(guest.verdict(&evidence, CHALLENGE)).code, "AK_NOT_IN_RUNTIME_DATA");
}

#[test]
fn ak_on_another_curve() {
    let damage = |evidence: &mut AzureEvidence| evidence.tpm.ak_public = Base64(ak_p256_template().to_bytes());
    assert_eq!(code(&Guest::new(), damage), "AK_NOT_IN_RUNTIME_DATA");
}

/// The runtime data vouch for this key as well, but as the EK.
#[test]
fn ek_for_ak() {
    let refused = code_of(|guest| {
        let other = URL_SAFE_NO_PAD.encode(modulus(&OTHER_AK));
        let ek = URL_SAFE_NO_PAD.encode([0xEE; 256]);
        let own = URL_SAFE_NO_PAD.encode(modulus(guest.tpm));
        guest.runtime_data = guest.runtime_data.replacen(&own, &other, 1).replacen(&ek, &own, 1);
    });
    assert_eq!(refused, "AK_NOT_IN_RUNTIME_DATA");
}

#[test]
fn ak_that_signs_anything() {
    for toggled in [
        ObjectAttributes::RESTRICTED,
        ObjectAttributes::FIXED_TPM,
        ObjectAttributes::FIXED_PARENT,
        ObjectAttributes::SENSITIVE_DATA_ORIGIN,
        ObjectAttributes::SIGN,
        ObjectAttributes::DECRYPT,
    ] {
        let refused = code_of(|guest| {
            let bits = guest.ak.attributes.bits() ^ toggled.bits();
            guest.ak.attributes = ObjectAttributes::from_bits(bits).unwrap();
        });
        assert_eq!(refused, "AK_ATTRIBUTES", "{toggled}");
    }
    let any_scheme = code_of(|guest| {
        let PublicKey::Rsa2048 { scheme, .. } = &mut guest.ak.key else { unreachable!() };
        *scheme = Scheme::Null;
    });
    assert_eq!(any_scheme, "AK_ATTRIBUTES");
}

/// What the guest says of its AK beyond the modulus stands nowhere but in the name by which the TPM signs.
#[test]
fn ak_described_otherwise() {
    let guest = Guest::new();
    type Edit = fn(&mut Public);
    let edits: [(&str, Edit); 4] = [
        ("noDA", |ak| ak.attributes = ObjectAttributes::from_bits(0x5_0072).unwrap()),
        ("userWithAuth", |ak| ak.attributes = ObjectAttributes::from_bits(0x5_0432).unwrap()),
        ("a policy", |ak| ak.auth_policy = vec![7; 32]),
        ("the exponent in full", |ak| {
            let PublicKey::Rsa2048 { exponent, .. } = &mut ak.key else { unreachable!() };
            *exponent = 65537;
        }),
    ];
    for (name, edit) in edits {
        let mut ak = guest.ak.clone();
        edit(&mut ak);
        let damage = |evidence: &mut AzureEvidence| evidence.tpm.ak_public = Base64(ak.to_bytes());
        assert_eq!(code(&guest, damage), "AK_NAME_MISMATCH", "{name}");
    }
}

#[test]
fn ak_of_another_hierarchy() {
    let guest = Guest::new();
    let owner = 0x4000_0001_u32.to_be_bytes();
    assert_ne!(owner, RH_ENDORSEMENT);
    for signer in [guest.ak.qualified_name(&owner), guest.ak.qualified_name(&guest.ak.name()), guest.ak.name(), vec![]]
    {
        let damage = |evidence: &mut AzureEvidence| requote(&guest, evidence, |quote| quote.qualified_signer = signer);
        assert_eq!(code(&guest, damage), "AK_NAME_MISMATCH");
    }
}

#[test]
fn extra_data_that_was_not_asked_for() {
    let guest = Guest::new();
    for extra_data in [vec![], b"Challenge".to_vec(), [CHALLENGE, b"\0"].concat(), CHALLENGE[..8].to_vec()] {
        let damage = |evidence: &mut AzureEvidence| requote(&guest, evidence, |quote| quote.extra_data = extra_data);
        assert_eq!(code(&guest, damage), "STATEMENT_MISMATCH");
    }
    // Nobody may ask for nothing.
    let silent = guest.evidence(&[]);
    assert_eq!(refusal(guest.verdict(&silent, &[])).code, "STATEMENT_MISMATCH");
}

#[test]
fn pcrs_all_zero() {
    let refused = code_of(|guest| {
        guest.pcrs = vec![blf_evidence::Hex([0; 32]); 24];
        guest.event_log = None;
    });
    assert_eq!(refused, "NOTHING_MEASURED");
}

#[test]
fn pcrs_that_were_not_quoted() {
    let guest = Guest::new();
    assert_eq!(code(&guest, |evidence| evidence.tpm.pcrs[11].0[0] ^= 1), "PCR_DIGEST_MISMATCH");
    assert_eq!(code(&guest, |evidence| evidence.tpm.pcrs.swap(4, 9)), "PCR_DIGEST_MISMATCH");
    assert_eq!(code(&guest, |evidence| evidence.tpm.pcrs.truncate(23)), "PCR_DIGEST_MISMATCH");
    let fewer =
        |evidence: &mut AzureEvidence| requote(&guest, evidence, |quote| quote.pcr_select.select = [0xFF, 0x40, 0]);
    assert_eq!(code(&guest, fewer), "PCR_SELECTION");
    let other_bank = |evidence: &mut AzureEvidence| {
        requote(&guest, evidence, |quote| quote.pcr_select.hash = HashAlg::Sha384);
    };
    assert_eq!(code(&guest, other_bank), "PCR_SELECTION");
}

/// Reset counters, clock and firmware version are signed.
#[test]
fn quote_of_another_clock() {
    let guest = Guest::new();
    let edits: [fn(&mut Quote); 5] = [
        |quote| quote.clock_info.clock += 1,
        |quote| quote.clock_info.reset_count += 1,
        |quote| quote.clock_info.restart_count += 1,
        |quote| quote.clock_info.safe = false,
        |quote| quote.firmware_version += 1,
    ];
    for edit in edits {
        let damage = |evidence: &mut AzureEvidence| {
            let mut quote = Quote::parse(&evidence.tpm.quote.0).unwrap();
            edit(&mut quote);
            evidence.tpm.quote = Base64(quote.to_bytes());
        };
        assert_eq!(code(&guest, damage), "QUOTE_SIGNATURE");
    }
}

#[test]
fn signature_of_another_kind() {
    let guest = Guest::new();
    for other in [
        Signature::Rsassa { hash: HashAlg::Sha256, signature: vec![0; 256] },
        Signature::Rsassa { hash: HashAlg::Sha384, signature: vec![1; 256] },
        Signature::Ecdsa { hash: HashAlg::Sha256, r: vec![1; 32], s: vec![1; 32] },
    ] {
        let damage = |evidence: &mut AzureEvidence| evidence.tpm.signature = Base64(other.to_bytes());
        assert_eq!(code(&guest, damage), "QUOTE_SIGNATURE");
    }
    assert_eq!(code(&guest, |evidence| evidence.tpm.signature.0.push(0)), "QUOTE_SIGNATURE", "trailing byte");
}

/// The hardware signed nothing of the header: it has one value.
#[test]
fn hcl_report_with_another_header() {
    let guest = Guest::new();
    const REQUEST: usize = 32 + 1184;
    let huge = u32::MAX.to_le_bytes();
    let rows: [(&str, usize, &[u8]); 10] = [
        ("another signature", 0, b"HCLB"),
        ("version 3", 4, &[3]),
        ("report_size lies", 8, &[0]),
        ("a key release request", 12, &[1]),
        ("a status", 16, &[1]),
        ("data_size lies", REQUEST, &[0xFF]),
        ("report_type of a VBS report", REQUEST + 8, &[1]),
        ("hash_type other than SHA-256", REQUEST + 12, &[2]),
        ("var_size huge", REQUEST + 16, &huge),
        ("var_size zero", REQUEST + 16, &[0; 4]),
    ];
    for (name, at, patch) in rows {
        let damage = |evidence: &mut AzureEvidence| {
            evidence.hcl_report.0[at..at + patch.len()].copy_from_slice(patch);
        };
        assert_eq!(code(&guest, damage), "HCL_MALFORMED", "{name}");
    }
    assert_eq!(code(&guest, |evidence| evidence.hcl_report.0.truncate(1236)), "HCL_MALFORMED");
    assert_eq!(code(&guest, |evidence| evidence.hcl_report.0.clear()), "HCL_MALFORMED");
    assert_eq!(code(&guest, |evidence| evidence.hcl_report.0.push(1)), "HCL_MALFORMED");
}

/// Runtime data that a paravisor signed, and that name no AK, or more than one.
#[test]
fn runtime_data_that_name_no_ak() {
    let small = URL_SAFE_NO_PAD.encode([0xC5; 128]);
    for (name, change) in [
        (
            "two HCLAkPub",
            &(|text: &str, _: &str| text.replacen("HCLEkPub", "HCLAkPub", 1)) as &dyn Fn(&str, &str) -> String,
        ),
        ("no HCLAkPub", &|text, _| text.replacen("HCLAkPub", "HCLTransferKey", 1)),
        ("e = 3", &|text, _| text.replacen("AQAB", "Aw", 1)),
        ("a modulus of 1024 bits", &|text, own| text.replacen(own, &small, 1)),
        ("kty of a curve", &|text, _| text.replacen("\"RSA\"", "\"EC\"", 1)),
        ("a name twice", &|text, own| text.replacen("\"n\":", &format!("\"n\":\"{own}\",\"n\":"), 1)),
        ("a name twice elsewhere", &|text, _| text.replacen("\"user-data\":", "\"user-data\":\"\",\"user-data\":", 1)),
        ("not JSON", &|text, _| text.replacen('{', "", 1)),
    ] {
        let refused = code_of(|guest| {
            let own = URL_SAFE_NO_PAD.encode(modulus(guest.tpm));
            let changed = change(&guest.runtime_data, &own);
            assert_ne!(changed, guest.runtime_data, "{name}: no effect");
            guest.runtime_data = changed;
        });
        assert_eq!(refused, "HCL_MALFORMED", "{name}");
    }
}

#[test]
fn td_quote_beside_an_snp_report() {
    let (tdx, _) = genuine("evidence-tdx-v1.json");
    let damage = |evidence: &mut AzureEvidence| evidence.td_quote = tdx.td_quote;
    assert_eq!(code(&Guest::new(), damage), "TD_REPORT_MISMATCH");
}

#[test]
fn endorsements_left_out_or_of_another_chip() {
    let guest = Guest::new();
    let verdict = |endorsements: &Endorsements| {
        let evidence = guest.evidence(CHALLENGE);
        let (endorsers, crypto) = (guest.endorsers(), blf_appraisal::aws_lc::AwsLc);
        blf_appraisal::azure::authenticate(&evidence, CHALLENGE, endorsements, &endorsers, guest.now, &crypto)
    };
    verdict(&guest.endorsements()).unwrap();
    assert_eq!(refusal(verdict(&Endorsements::default())).code, "VEK_MISSING");
    let other = Guest::new();
    assert_eq!(refusal(verdict(&other.endorsements())).code, "SNP_SIGNATURE");
}

#[test]
fn event_log_of_another_boot_or_cut_short() {
    let guest = Guest::new();
    let other = |evidence: &mut AzureEvidence| evidence.tpm.event_log = Some(Base64(vector("boot/esp.log")));
    assert_eq!(code(&guest, other), "EVENT_LOG_MISMATCH");
    let cut = |evidence: &mut AzureEvidence| evidence.tpm.event_log.as_mut().unwrap().0.truncate(7000);
    assert_eq!(code(&guest, cut), "EVENT_LOG_MALFORMED");
}

/// A certificate is not needed here, but one that is there must be good.
#[test]
fn certificate_that_is_none() {
    let damage = |evidence: &mut AzureEvidence| evidence.tpm.ak_certificate = Some(Base64(vec![0x30, 0]));
    assert_eq!(code(&Guest::new(), damage), "AK_CERTIFICATE_MALFORMED");
}
