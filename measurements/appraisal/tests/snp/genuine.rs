//! Real reports, and what they say.

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::snp::{Chain, Claims, Signer, authenticate};
use blf_appraisal::{Rejected, RootKind};
use blf_evidence::endorsements::SnpEndorsements;
use blf_evidence::snp::{CertificateTable, Family, Report, policy};
use blf_evidence::{Base64, Hex, UnixTime};

use crate::pki::verdict;
use crate::vectors::{NOW, Vector, amd, certificate, dstack, file, genuine, named, roots};

fn check(vector: &Vector, endorsements: &SnpEndorsements) -> Result<Claims, Rejected> {
    let result = authenticate(&vector.report, endorsements, &roots(), vector.now, &AwsLc);
    verdict(result.map(|authentic| (*authentic).clone()))
}

#[test]
fn every_genuine_vector() {
    for vector in genuine() {
        let claims = check(&vector, &vector.endorsements()).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        assert_eq!((claims.family, claims.roots), (vector.family, RootKind::Production), "{}", vector.name);
        assert_eq!(claims.report.to_bytes(), *vector.report, "{}", vector.name);
        let csp_id = || "CN=cc-us-east-2.amazonaws.com".into();
        let signer = if vector.name == "milan-v3-vlek" { Signer::Vlek { csp_id: csp_id() } } else { Signer::Vcek };
        assert_eq!((claims.signer, claims.crl_this_update), (signer, None), "{}", vector.name);
    }
}

/// What AMD sends along may be stapled: the ASK or ASVK, and the ARK.
#[test]
fn whole_chains() {
    for vector in genuine() {
        let [ark, ask, asvk] = amd(vector.family).map(|der| Some(Base64(der)));
        let ask = if vector.name == "milan-v3-vlek" { asvk } else { ask };
        check(&vector, &SnpEndorsements { ask, ark, ..vector.endorsements() }).unwrap();
    }
    for (name, family) in
        [("genoa-v3-azure", Family::Genoa), ("milan-dstack", Family::Milan), ("turin-v5-azure", Family::Turin)]
    {
        assert_eq!(certificate(&format!("{name}/ask.pem")), amd(family)[1], "{name}");
    }
}

/// The same verdicts and the same checks when the chain was checked before.
#[test]
fn chains_that_are_kept() {
    for vector in genuine() {
        let cold = authenticate(&vector.report, &vector.endorsements(), &roots(), vector.now, &AwsLc).unwrap();
        let chain = Chain::verify(&vector.endorsements(), &roots(), &AwsLc).unwrap();
        let warm = chain.authenticate(&vector.report, vector.now, &AwsLc).unwrap();
        assert_eq!(warm.report, cold.report, "{}", vector.name);
        let expired = verdict(chain.authenticate(&vector.report, UnixTime::MAX, &AwsLc)).unwrap_err();
        assert_eq!(expired.code, "VEK_EXPIRED", "{}", vector.name);
        for other in genuine().iter().filter(|other| other.name != vector.name) {
            let refused = verdict(chain.authenticate(&other.report, vector.now, &AwsLc)).unwrap_err();
            assert_eq!(refused.code, "VEK_MISMATCH", "{} with the certificate of {}", other.name, vector.name);
        }
    }
}

#[test]
fn key_values() {
    let report = |name| Report::parse(&named(name).report).unwrap();
    let tcb = |name, family| {
        let tcb = report(name).reported_tcb.components(family);
        (tcb.fmc, tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode)
    };
    assert_eq!(tcb("milan-v2-virtee", Family::Milan), (None, 3, 0, 8, 115));
    assert_eq!(tcb("turin-v5-azure", Family::Turin), (Some(1), 1, 1, 4, 0x51));
    assert_eq!(tcb("genoa-v3-azure", Family::Genoa), (None, 10, 0, 0x17, 0x54));
    let measurements = [
        ("milan-v2-virtee", "7a1e5c266c0108db"),
        ("milan-v2-coco", "a1f3930413247bb3"),
        ("milan-v3-vlek", "8922ebbdd00ec2c5"),
        ("turin-v5-azure", "6d6c354511d6f7c6"),
        ("milan-dstack", "7f51e17f72a04d54"),
    ];
    for (name, start) in measurements {
        assert!(report(name).measurement.to_string().starts_with(start), "{name}");
    }
    let coco = report("milan-v2-coco");
    assert_eq!((coco.current_tcb.0[7], coco.reported_tcb.0[7]), (0xCE, 0x73), "the VCEK is of the reported TCB");
    let turin = report("turin-v5-azure");
    assert_eq!((turin.platform_info, turin.current_firmware), (0x65, [1, 55, 65]));
    assert_eq!((report("milan-v3-vlek").vmpl, report("milan-v3-vlek").chip_id), (1, Hex([0; 64])));
    assert!(report("milan-dstack").report_data.0.starts_with(b"attest-test-fixture-2026"));
}

/// Genuine, and nothing for a policy: the host may read this guest's memory.
#[test]
fn a_guest_that_may_be_debugged_says_so() {
    let google = named("milan-v2-google");
    let claims = check(&google, &google.endorsements()).unwrap();
    assert_eq!(claims.report.policy & policy::DEBUG, policy::DEBUG);
    let debugged = genuine().into_iter().filter(|v| Report::parse(&v.report).unwrap().policy & policy::DEBUG != 0);
    assert_eq!(debugged.count(), 1);
}

/// The launch digest that two programs computed from a firmware, a kernel and a command line is in a report that AMD signed.
#[test]
fn a_measurement_that_was_predicted() {
    let predicted: serde_json::Value = serde_json::from_slice(&file("milan-dstack/measurement.json")).unwrap();
    let vector = named("milan-dstack");
    let claims = check(&vector, &vector.endorsements()).unwrap();
    assert_eq!(predicted["expected_launch_digest"], claims.report.measurement.to_string());
}

/// dstack's self-contained form of the same evidence: report and certificates in one.
#[test]
fn dstack_s_envelopes() {
    let json: serde_json::Value = serde_json::from_slice(&file("milan-dstack/sev-snp-attestation.json")).unwrap();
    let envelope = hex::decode(json["attestation"].as_str().unwrap()).unwrap();
    let (report, rest) = dstack();
    assert_eq!((&envelope[..4], &envelope[4..4 + Report::SIZE]), (&[0, 3, 0x81, 0x12][..], &*report));
    assert_eq!(rest.len() + report.len() + 4, file("milan-dstack/attestation.scale.bin").len());
    let text = String::from_utf8_lossy(&envelope);
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let pems = text.match_indices(begin).map(|(start, _)| &text[start..start + text[start..].find(end).unwrap()]);
    let ders: Vec<_> =
        pems.map(|pem| x509_cert::der::pem::decode_vec(format!("{pem}{end}\n").as_bytes()).unwrap().1).collect();
    let [_, ask, _] = amd(Family::Milan);
    assert!(ders.contains(&ask) && ders.contains(&certificate("milan-dstack/vcek.pem")), "{} certificates", ders.len());
}

/// The host's certificate table, as Linux hands it to a guest.
#[test]
fn certificate_tables() {
    let vector = named("turin-v5-azure");
    let [_, ask, _] = amd(vector.family);
    let vcek = hex::decode("8d75da6364e66445adc5f4b93be8accd").unwrap();
    let other = [0x11; 16];
    let ask_guid = hex::decode("79b3b74aacbbe44fa02f05aef327c782").unwrap();
    let certificates = [(&vcek[..], &vector.vek), (&other, &ask), (&ask_guid, &ask)];
    let mut table = Vec::new();
    let mut offset = u32::try_from(24 * (certificates.len() + 1)).unwrap();
    for (guid, der) in certificates {
        let length = u32::try_from(der.len()).unwrap();
        table.extend([guid, &offset.to_le_bytes(), &length.to_le_bytes()].concat());
        offset += length;
    }
    table.extend([0; 24]);
    certificates.iter().for_each(|(_, der)| table.extend(*der));
    table.resize(8192, 0);
    let parsed = CertificateTable::parse(&table).unwrap();
    assert_eq!(parsed, CertificateTable { vcek: Some(&vector.vek), vlek: None, ask: Some(&ask), ark: None });
    let stapled = SnpEndorsements { vek: parsed.vcek.map(|der| Base64(der.to_vec())), ..vector.endorsements() };
    check(&Vector { now: NOW, ..vector }, &stapled).unwrap();
}
