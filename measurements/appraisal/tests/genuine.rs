//! Evidence that is not genuine, one test for each way. Every test first shows that the undamaged evidence passes.

#[path = "common/node.rs"]
mod node;

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::crypto::{Algorithm, CryptoProvider as _};
use blf_appraisal::{AkEndorsement, Claims, Root, RootKind, Stage, authenticate};
use blf_evidence::bundle::{AzureEvidence, Evidence, Platform, SnpEvidence, TdxEvidence};
use blf_evidence::eventlog::{EV_SEPARATOR, Event, EventLog};
use blf_evidence::tpm::{HashAlg, ObjectAttributes, PublicKey, Scheme, Signature};
use blf_evidence::{Base64, Hex, UnixTime};
use node::{Ca, NOW, Setting, Tpm, boot_vector, tpm_of};
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

/// The code with which evidence is refused after this damage.
#[track_caller]
fn code(setting: &Setting, damage: impl FnOnce(&mut Evidence)) -> &'static str {
    let mut evidence = setting.evidence();
    setting.verdict(&evidence).unwrap();
    damage(&mut evidence);
    let refusal = setting.refusal(&evidence);
    assert_eq!(refusal.stage, Stage::Genuine, "{refusal}");
    refusal.code
}

/// Replaces the quote by one that this TPM signs after an edit.
fn requote(setting: &Setting, evidence: &mut Evidence, edit: impl FnOnce(&mut blf_evidence::tpm::Quote)) {
    let tpm = tpm_of(evidence);
    let mut quote = blf_evidence::tpm::Quote::parse(&tpm.quote.0).unwrap();
    edit(&mut quote);
    tpm.quote = Base64(quote.to_bytes());
    tpm.signature = Base64(setting.tpm.sign(&quote).to_bytes());
}

#[test]
fn binding_altered_member_by_member() {
    let setting = Setting::new();
    let good: serde_json::Value = serde_json::from_str(&setting.evidence().binding).unwrap();
    let members = [
        ("/anchor", serde_json::json!({"block_hash": "00".repeat(32), "block_number": 1, "chain_id": 1})),
        ("/audience", "other".into()),
        ("/boot_id", "22".repeat(16).into()),
        ("/config_sha256", "22".repeat(32).into()),
        ("/egress", serde_json::json!(["evil.example:443"])),
        ("/gpu_sha256", "22".repeat(32).into()),
        ("/keys/cofhe_sealing", "22".repeat(32).into()),
        ("/keys/hpke", "22".repeat(32).into()),
        ("/keys/node", blf_evidence::Address([0x22; 20]).to_string().into()),
        ("/keys/response", blf_evidence::Address([0x22; 20]).to_string().into()),
        ("/keys/tls_spki_sha256", "22".repeat(32).into()),
        ("/models/0/id", "other".into()),
        ("/models/0/manifest_sha256", "22".repeat(32).into()),
        ("/models", serde_json::json!([])),
        ("/nonce", "22".repeat(32).into()),
        ("/not_after", (NOW.0 + 7200).into()),
        ("/numeric_profile", "other".into()),
        ("/profile/id", "22".repeat(32).into()),
        ("/profile/name", "production".into()),
        ("/purpose", "preview".into()),
    ];
    // Every member is in the list, but for `v`, of which only one value exists.
    let named: std::collections::BTreeSet<_> =
        members.iter().map(|(path, _)| path.split('/').nth(1).unwrap()).collect();
    let all = good.as_object().unwrap().keys().map(String::as_str).filter(|member| *member != "v");
    assert_eq!(all.collect::<std::collections::BTreeSet<_>>(), named);
    for (path, value) in members {
        let mut altered = good.clone();
        *altered.pointer_mut(path).unwrap() = value;
        let text = blf_evidence::json::canonical("binding", &altered).unwrap();
        assert_eq!(code(&setting, |evidence| evidence.binding = text), "STATEMENT_MISMATCH", "{path}");
    }
    let other_version = setting.evidence().binding.replace("\"v\":1", "\"v\":2");
    assert_eq!(code(&setting, |evidence| evidence.binding = other_version), "BINDING_MALFORMED");
}

#[test]
fn binding_spelled_otherwise() {
    let setting = Setting::new();
    for (name, from, to) in [
        ("white space", "\"v\":1", "\"v\": 1"),
        ("duplicate member", "\"v\":1", "\"v\":1,\"v\":1"),
        ("unknown member", "\"v\":1", "\"v\":1,\"w\":1"),
        ("short nonce", "\"nonce\":\"09", "\"nonce\":\""),
    ] {
        let damage = |evidence: &mut Evidence| evidence.binding = evidence.binding.replace(from, to);
        assert_eq!(code(&setting, damage), "BINDING_MALFORMED", "{name}");
    }
}

#[test]
fn document_of_another_kind() {
    let setting = Setting::new();
    assert_eq!(code(&setting, |evidence| evidence.schema = "blf.evidence/v2".into()), "EVIDENCE_MALFORMED");
    assert_eq!(code(&setting, |evidence| tpm_of(evidence).pcrs.truncate(23)), "EVIDENCE_MALFORMED");
    assert_eq!(code(&setting, |evidence| tpm_of(evidence).quote.0.resize(2000, 0)), "EVIDENCE_MALFORMED");
}

#[test]
fn configuration_of_another_operator() {
    assert_eq!(code(&Setting::new(), |evidence| evidence.config = "{\"a\":1}".into()), "CONFIG_MISMATCH");
}

#[test]
fn key_that_is_zero() {
    let mut setting = Setting::new();
    setting.binding.keys.hpke = Hex([0; 32]);
    assert_eq!(setting.refusal(&setting.evidence()).code, "KEY_MISSING");
}

#[test]
fn extra_data_that_is_not_the_statement() {
    let setting = Setting::new();
    let nonce = setting.binding.nonce.0;
    for (name, extra_data) in [("empty", vec![]), ("a bare nonce", nonce.to_vec()), ("longer", vec![7; 64])] {
        let damage = |evidence: &mut Evidence| requote(&setting, evidence, |quote| quote.extra_data = extra_data);
        assert_eq!(code(&setting, damage), "STATEMENT_MISMATCH", "{name}");
    }
}

#[test]
fn quote_altered() {
    let setting = Setting::new();
    for index in 0..setting.tpm.attest(&[0; 32], &setting.pcrs).to_bytes().len() {
        let refused = code(&setting, |evidence| tpm_of(evidence).quote.0[index] ^= 1);
        assert!(["QUOTE_MALFORMED", "STATEMENT_MISMATCH", "QUOTE_SIGNATURE"].contains(&refused), "{index}: {refused}");
    }
    assert_eq!(code(&setting, |evidence| tpm_of(evidence).quote.0.push(0)), "QUOTE_MALFORMED");
}

#[test]
fn signature_altered() {
    let setting = Setting::new();
    for index in 0..72 {
        let damage = |evidence: &mut Evidence| tpm_of(evidence).signature.0[index] ^= 1;
        assert_eq!(code(&setting, damage), "QUOTE_SIGNATURE", "{index}");
    }
    let sha384 = Signature::Ecdsa { hash: HashAlg::Sha384, r: vec![1; 32], s: vec![1; 32] };
    let rsa = Signature::Rsassa { hash: HashAlg::Sha256, signature: vec![1; 256] };
    let p384 = Signature::Ecdsa { hash: HashAlg::Sha256, r: vec![1; 48], s: vec![1; 48] };
    for other in [sha384, rsa, p384] {
        let damage = |evidence: &mut Evidence| tpm_of(evidence).signature = Base64(other.to_bytes());
        assert_eq!(code(&setting, damage), "QUOTE_SIGNATURE");
    }
}

#[test]
fn ak_of_another_tpm() {
    let (setting, other) = (Setting::new(), Tpm::new());
    let damage = |evidence: &mut Evidence| tpm_of(evidence).ak_public = Base64(other.ak.to_bytes());
    assert_eq!(code(&setting, damage), "QUOTE_SIGNATURE");
    // The other TPM signs as well, but the certificate is for the first.
    let damage = |evidence: &mut Evidence| {
        let tpm = tpm_of(evidence);
        let quote = blf_evidence::tpm::Quote::parse(&tpm.quote.0).unwrap();
        tpm.signature = Base64(other.sign(&quote).to_bytes());
        tpm.ak_public = Base64(other.ak.to_bytes());
    };
    assert_eq!(code(&setting, damage), "AK_CERTIFICATE_KEY");
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
        let mut setting = Setting::new();
        let bits = setting.tpm.ak.attributes.bits() ^ toggled.bits();
        setting.tpm.ak.attributes = ObjectAttributes::from_bits(bits).unwrap();
        assert_eq!(setting.refusal(&setting.evidence()).code, "AK_ATTRIBUTES", "{toggled}");
    }
    let mut setting = Setting::new();
    let PublicKey::EccP256 { scheme, .. } = &mut setting.tpm.ak.key else { unreachable!() };
    *scheme = Scheme::Null;
    assert_eq!(setting.refusal(&setting.evidence()).code, "AK_ATTRIBUTES", "any scheme");
    assert_eq!(code(&Setting::new(), |evidence| tpm_of(evidence).ak_public.0.push(0)), "AK_MALFORMED");
}

#[test]
fn quote_over_other_registers() {
    let setting = Setting::new();
    for select in [[0xFF, 0xFF, 0x7F], [0; 3], [0xEF, 0xFF, 0xFF]] {
        let damage = |evidence: &mut Evidence| requote(&setting, evidence, |quote| quote.pcr_select.select = select);
        assert_eq!(code(&setting, damage), "PCR_SELECTION");
    }
    let damage = |evidence: &mut Evidence| requote(&setting, evidence, |quote| quote.pcr_select.hash = HashAlg::Sha384);
    assert_eq!(code(&setting, damage), "PCR_SELECTION", "another bank");
}

#[test]
fn listed_pcrs_that_were_not_quoted() {
    let setting = Setting::new();
    for index in 0..24 {
        let damage = |evidence: &mut Evidence| tpm_of(evidence).pcrs[index].0[0] ^= 1;
        assert_eq!(code(&setting, damage), "PCR_DIGEST_MISMATCH", "PCR {index}");
    }
}

#[test]
fn nothing_measured() {
    let mut setting = Setting::new();
    setting.pcrs[0] = Hex([0; 32]);
    setting.pcrs[7] = Hex([0; 32]);
    let refusal = setting.refusal(&setting.evidence());
    assert_eq!(refusal.code, "NOTHING_MEASURED");
    assert_eq!(refusal.failed.got, "zero: [0, 7]");
}

#[test]
fn event_log_of_another_boot() {
    let setting = Setting::new();
    let other = || Some(Base64(boot_vector("esp.log")));
    assert_eq!(code(&setting, |evidence| tpm_of(evidence).event_log = other()), "EVENT_LOG_MISMATCH");
    // It is a good log, of its own boot.
    let mut setting = Setting::new();
    let boot: serde_json::Value = serde_json::from_slice(&boot_vector("pcrs.json")).unwrap();
    setting.pcrs = boot["esp"].as_array().unwrap().iter().map(|pcr| pcr.as_str().unwrap().parse().unwrap()).collect();
    setting.event_log = other();
    setting.verdict(&setting.evidence()).unwrap();
}

#[test]
fn event_log_damaged() {
    let setting = Setting::new();
    let damage = |evidence: &mut Evidence| tpm_of(evidence).event_log.as_mut().unwrap().0.truncate(7000);
    assert_eq!(code(&setting, damage), "EVENT_LOG_MALFORMED");
    let damage = |evidence: &mut Evidence| tpm_of(evidence).event_log = Some(Base64(Vec::new()));
    assert_eq!(code(&setting, damage), "EVENT_LOG_MALFORMED", "empty");
}

/// The log of a boot with other data, and without the events for which there are none. Digests stay as they are.
fn rewritten(data_of: impl Fn(&Event<'_>) -> Option<Vec<u8>>) -> Vec<u8> {
    let raw = boot_vector("kernel.log");
    let log = EventLog::parse(&raw).unwrap();
    let header = 32 + usize::try_from(u32::from_le_bytes(raw[28..32].try_into().unwrap())).unwrap();
    let mut out = raw[..header].to_vec();
    let mut at = header;
    for event in &log.events {
        let digests: usize = log.algorithms.iter().map(|(_, size)| 2 + usize::from(*size)).sum();
        let len = 12 + digests + 4 + event.data.len();
        if let Some(data) = data_of(event) {
            out.extend(&raw[at..at + 12 + digests]);
            out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            out.extend(data);
        }
        at += len;
    }
    assert_eq!(at, raw.len());
    out
}

/// Logs that replay, but do not show a whole boot: of a firmware that stopped measuring half-way, and such in which an
/// event's data, which nobody measured, claims the rest.
#[test]
fn event_log_without_its_end() {
    const RETURNED: &[u8] = b"Exit Boot Services Returned with Success";
    let same = |event: &Event<'_>| Some(event.data.to_vec());
    assert_eq!(rewritten(same), boot_vector("kernel.log"));
    let exit = |event: &Event<'_>| event.data == RETURNED;
    let separator = |event: &Event<'_>| (event.pcr, event.kind) == (7, EV_SEPARATOR);
    for (name, log) in [
        ("no separator in PCR 7", rewritten(|event| (!separator(event)).then(|| event.data.to_vec()))),
        (
            "a separator that says what it is not",
            rewritten(|event| Some(if separator(event) { vec![0xFF; 4] } else { event.data.to_vec() })),
        ),
        ("no exit from boot services", rewritten(|event| (!exit(event)).then(|| event.data.to_vec()))),
        (
            "an exit that was another event",
            rewritten(|event| {
                let invocation = event.data == b"Exit Boot Services Invocation";
                (!exit(event)).then(|| if invocation { RETURNED.to_vec() } else { event.data.to_vec() })
            }),
        ),
    ] {
        assert_ne!(log, boot_vector("kernel.log"), "{name}: no effect");
        let mut setting = Setting::new();
        let replay = EventLog::parse(&log).unwrap().replay_sha256().unwrap();
        for index in (0..16).filter(|index| *index != 10) {
            setting.pcrs[index] = Hex(replay[index]);
        }
        setting.event_log = Some(Base64(log));
        assert_eq!(setting.refusal(&setting.evidence()).code, "EVENT_LOG_INCOMPLETE", "{name}");
    }
}

#[test]
fn certificate_of_another_root() {
    let setting = Setting::new();
    let ak = &setting.tpm.ak;
    let stranger = Ca::new("somebody else");
    let damage = |evidence: &mut Evidence| tpm_of(evidence).ak_certificate = Some(stranger.certify(ak));
    assert_eq!(code(&setting, damage), "AK_CERTIFICATE_ROOT");
    let namesake = Ca::new("blf test AK issuer");
    let damage = |evidence: &mut Evidence| tpm_of(evidence).ak_certificate = Some(namesake.certify(ak));
    assert_eq!(code(&setting, damage), "AK_CERTIFICATE_SIGNATURE");
    let mut without = Setting::new();
    without.endorsers.roots.clear();
    assert_eq!(without.refusal(&without.evidence()).code, "AK_CERTIFICATE_ROOT");
    // While a root is being replaced both bear one name; either will do.
    let mut both = Setting::new();
    both.endorsers.roots.insert(0, namesake.root(RootKind::Development));
    both.verdict(&both.evidence()).unwrap();
}

#[test]
fn certificate_of_another_ak() {
    let setting = Setting::new();
    let other = setting.ca.certify(&Tpm::new().ak);
    assert_eq!(code(&setting, |evidence| tpm_of(evidence).ak_certificate = Some(other)), "AK_CERTIFICATE_KEY");
}

#[test]
fn certificate_expired_or_not_yet_valid() {
    let setting = Setting::new();
    let dated = |from, to| {
        setting.ca.certify_with(&setting.tpm.ak, |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        })
    };
    for (from, to) in [(2020, 2026), (2027, 2028)] {
        let certificate = dated(from, to);
        let damage = |evidence: &mut Evidence| tpm_of(evidence).ak_certificate = Some(certificate);
        assert_eq!(code(&setting, damage), "AK_CERTIFICATE_EXPIRED", "{from} to {to}");
    }
    let mut good = setting.evidence();
    tpm_of(&mut good).ak_certificate = Some(dated(2026, 2027));
    setting.verdict(&good).unwrap();
    let mut expired = Setting::new();
    expired.ca = Ca::with("old", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.not_after = rcgen::date_time_ymd(2026, 1, 1);
    });
    expired.endorsers.roots = vec![expired.ca.root(RootKind::Development)];
    assert_eq!(expired.refusal(&expired.evidence()).code, "AK_CERTIFICATE_EXPIRED", "the root's own date");
}

#[test]
fn certificate_for_another_use() {
    let setting = Setting::new();
    let ak = &setting.tpm.ak;
    let authority = setting.ca.certify_with(ak, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let unknown = setting.ca.certify_with(ak, |params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    });
    let [server, none] = [vec![ExtendedKeyUsagePurpose::ServerAuth], vec![]]
        .map(|usages| setting.ca.certify_with(ak, |params| params.extended_key_usages = usages));
    for (name, certificate) in [
        ("an authority", authority),
        ("an unknown critical extension", unknown),
        ("a server's", server),
        ("nobody's in particular", none),
    ] {
        let damage = |evidence: &mut Evidence| tpm_of(evidence).ak_certificate = Some(certificate);
        assert_eq!(code(&setting, damage), "AK_CERTIFICATE_USAGE", "{name}");
    }
    for (name, ca) in [
        ("a root that is no authority", Ca::with("leaf", |params| params.is_ca = IsCa::ExplicitNoCa)),
        ("a root that may not sign certificates", {
            Ca::with("crl", |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                params.key_usages = vec![KeyUsagePurpose::CrlSign];
            })
        }),
    ] {
        let mut bad = Setting::new();
        bad.endorsers.roots = vec![ca.root(RootKind::Development)];
        bad.ca = ca;
        assert_eq!(bad.refusal(&bad.evidence()).code, "AK_CERTIFICATE_USAGE", "{name}");
    }
}

#[test]
fn certificate_that_is_none() {
    let setting = Setting::new();
    for index in [0, 1, 5, 20] {
        let damage = |evidence: &mut Evidence| tpm_of(evidence).ak_certificate.as_mut().unwrap().0[index] ^= 0x11;
        let refused = code(&setting, damage);
        assert!(refused.starts_with("AK_CERTIFICATE"), "{index}: {refused}");
    }
    let damage = |evidence: &mut Evidence| tpm_of(evidence).ak_certificate.as_mut().unwrap().0.push(0);
    assert_eq!(code(&setting, damage), "AK_CERTIFICATE_MALFORMED", "trailing byte");
    assert!(Root::from_der("x", RootKind::Production, b"").is_err());
    assert!(Root::from_pem("x", RootKind::Production, "-----BEGIN CERTIFICATE-----\n").is_err());
}

#[test]
fn who_vouches_for_the_ak() {
    let mut setting = Setting::new();
    let vouching = |evidence: &Evidence, setting: &Setting| {
        let authentic = authenticate(evidence, &setting.endorsers, NOW, &AwsLc).unwrap();
        let Claims::Tpm(tpm) = &authentic.platform else { panic!("not a TPM") };
        tpm.ak.clone()
    };
    let mut evidence = setting.evidence();
    let ends = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    tpm_of(&mut evidence).ak_certificate = Some(setting.ca.certify_with(&setting.tpm.ak, ends));
    // That second is still good.
    let valid_until = UnixTime(1_798_761_601);
    let wanted = AkEndorsement::Certified { root: "test root".into(), kind: RootKind::Development, valid_until };
    assert_eq!(vouching(&evidence, &setting), wanted);
    tpm_of(&mut evidence).ak_certificate = None;
    let ak = |setting: &Setting| vouching(&evidence, setting);
    assert_eq!(ak(&setting), AkEndorsement::Nobody);
    setting.endorsers.activated = vec![Tpm::new().ak.name()];
    assert_eq!(ak(&setting), AkEndorsement::Nobody, "another AK was activated");
    setting.endorsers.activated.push(setting.tpm.ak.name());
    assert_eq!(ak(&setting), AkEndorsement::Activated);
}

#[test]
fn platform_that_is_not_what_it_says() {
    let setting = Setting::new();
    let zeros = || Base64(vec![0; 5006]);
    let claim = |platform: Platform| code(&setting, |evidence| evidence.platform = platform);
    assert_eq!(claim(Platform::Snp(SnpEvidence { report: zeros(), certificates: None })), "SNP_REPORT_MALFORMED");
    assert_eq!(claim(Platform::Tdx(TdxEvidence { quote: zeros(), event_log: None })), "TDX_QUOTE_MALFORMED");
    let tpm = tpm_of(&mut setting.evidence()).clone();
    assert_eq!(claim(Platform::Azure(AzureEvidence { hcl_report: zeros(), td_quote: None, tpm })), "HCL_MALFORMED");
}

/// Signatures of real TPMs, each refused after one flipped bit.
#[test]
fn real_tpms_signatures() {
    use blf_evidence::tpm::{Public, Quote};
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../evidence/tests/vectors/tpm/swtpm.json");
    let swtpm: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (kind, algorithm) in [("p256", Algorithm::EcdsaP256Sha256Fixed), ("rsa2048", Algorithm::RsaPkcs1Sha256)] {
        let bytes = |member: &str| hex::decode(swtpm[kind][member].as_str().unwrap()).unwrap();
        let ak = Public::parse_sized(&bytes("ak_public")).unwrap();
        let (key, signature) = match Signature::parse(&bytes("signature")).unwrap() {
            Signature::Ecdsa { r, s, .. } => (ak.point_or_modulus().unwrap(), [r, s].concat()),
            Signature::Rsassa { signature, .. } => (ak.subject_public_key_info().unwrap()[24..].to_vec(), signature),
        };
        let mut quote = bytes("quote");
        Quote::parse(&quote).unwrap();
        assert!(AwsLc.verify(algorithm, &key, &quote, &signature), "{kind}");
        quote[60] ^= 1;
        assert!(!AwsLc.verify(algorithm, &key, &quote, &signature), "{kind}");
    }
}

/// Evidence of a real cloud vTPM: the signature is good, yet nothing was measured.
#[test]
fn real_quote_over_nothing() {
    use base64::Engine as _;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../evidence/tests/vectors/tpm/vtpm-evidence.json");
    let real: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let decode =
        |value: &serde_json::Value| base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
    let spki = decode(&real["ak_public"]);
    let Signature::Rsassa { signature, .. } = Signature::parse(&decode(&real["tpm_quote"]["signature"])).unwrap()
    else {
        panic!("not RSASSA")
    };
    let message = decode(&real["tpm_quote"]["message"]);
    assert!(AwsLc.verify(Algorithm::RsaPkcs1Sha256, &spki[24..], &message, &signature));
    let mut setting = Setting::new();
    let pcrs = real["tpm_quote"]["pcrs"].as_array().unwrap();
    setting.pcrs = pcrs.iter().map(|pcr| pcr.as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(setting.refusal(&setting.evidence()).code, "NOTHING_MEASURED");
}

/// A certificate's dates count by the clock that is handed in.
#[test]
fn the_verifier_s_clock_decides() {
    let mut setting = Setting::new();
    setting.now = UnixTime(0);
    assert_eq!(setting.refusal(&setting.evidence()).code, "AK_CERTIFICATE_EXPIRED");
}
