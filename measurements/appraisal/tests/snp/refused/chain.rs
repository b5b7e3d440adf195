//! Chains of certificates, and the vectors.

use super::*;

#[test]
fn with_a_vcek_by_a_stranger() {
    refused(vcek(), "VEK_CHAIN", "another key than SEV-Milan", |case| case.issuer = &STRANGER);
}

#[test]
fn with_a_vcek_by_the_asvk() {
    refused(vcek(), "VEK_CHAIN", "another key than SEV-Milan", |case| case.issuer = &ASVK);
    refused(vcek(), "VEK_CHAIN", "name other issuers", |case| {
        case.issuer = &ASVK;
        case.vek.issuer = "SEV-VLEK-Milan".into();
    });
    refused(vcek(), "VEK_CHAIN", "SEV-VLEK-Milan instead of SEV-Milan", |case| {
        case.issuer = &ASVK;
        case.vek.issuer = "SEV-VLEK-Milan".into();
        case.endorsements.ask = Some(Base64(asvk(Family::Milan).sign(&ARK)));
    });
}

#[test]
fn with_a_vlek_by_the_ask() {
    refused(vlek(), "VEK_CHAIN", "another key than SEV-VLEK-Milan", |case| case.issuer = &ASK);
    refused(vlek(), "VEK_CHAIN", "SEV-Milan instead of SEV-VLEK-Milan", |case| {
        case.issuer = &ASK;
        case.vek.issuer = "SEV-Milan".into();
        case.endorsements.ask = Some(Base64(ask(Family::Milan).sign(&ARK)));
    });
}

#[test]
fn with_a_vcek_by_the_ark() {
    refused(vcek(), "VEK_CHAIN", "name other issuers", |case| {
        case.issuer = &ARK;
        case.vek.issuer = "ARK-Milan".into();
    });
}

#[test]
fn with_the_ask_of_a_sibling() {
    refused(vcek(), "VEK_CHAIN", "SEV-Genoa instead of SEV-Milan", |case| {
        case.endorsements.ask = Some(Base64(ask(Family::Genoa).sign(&ARK)));
    });
    let genoa = vectors::certificate("genoa-v3-azure/ask.pem");
    let milan = vectors::named("milan-v2-coco");
    let endorsements = SnpEndorsements { ask: Some(Base64(genoa)), ..milan.endorsements() };
    let result = Chain::verify(&endorsements, &Root::pinned(), &AwsLc);
    assert_eq!(verdict(result).unwrap_err().code, "VEK_CHAIN");
}

#[test]
fn with_an_ask_by_a_stranger() {
    refused(vcek(), "VEK_CHAIN", "another key than the ARK", |case| {
        case.endorsements.ask = Some(Base64(ask(Family::Milan).sign(&STRANGER)));
    });
}

#[test]
fn with_an_ask_by_another_issuer() {
    refused(vcek(), "VEK_CHAIN", "name other issuers", |case| {
        let mut ask = ask(Family::Milan);
        ask.issuer = "ARK-Genoa".into();
        case.endorsements.ask = Some(Base64(ask.sign(&ARK)));
    });
}

#[test]
fn with_an_ask_that_may_not_issue() {
    for index in [0, 1] {
        refused(vcek(), "VEK_CHAIN", "may not issue", |case| {
            let mut ask = ask(Family::Milan);
            // Not an authority, or one whose key may only revoke.
            ask.extensions[index].value = [tlv(0x30, &[]), tlv(0x03, &[1, 0x02])][index].clone();
            case.endorsements.ask = Some(Base64(ask.sign(&ARK)));
        });
    }
}

#[test]
fn with_an_ask_that_expired() {
    refused(vcek(), "VEK_EXPIRED", "valid at", |case| {
        let mut ask = ask(Family::Milan);
        ask.not_after = "260101000000Z";
        case.endorsements.ask = Some(Base64(ask.sign(&ARK)));
    });
}

/// AMD may certify a new ASK; the ARK's word for it is enough.
#[test]
fn with_a_new_ask_is_taken() {
    let mut case = vcek();
    let mut new = ask(Family::Milan);
    new.serial = 9;
    case.endorsements.ask = Some(Base64(new.sign(&ARK)));
    case.authenticate().unwrap();
}

/// The same key under another certificate is another ARK: what it adds nobody asked for.
#[test]
fn with_another_ark() {
    refused(vcek(), "VEK_CHAIN", "another ARK", |case| {
        let ark = crate::pki::Template::authority(1, "ARK-Milan", "ARK-Milan", &ARK);
        case.endorsements.ark = Some(Base64(ark.sign(&ARK)));
    });
    let [_, ask, _] = vectors::amd(Family::Milan);
    let milan = vectors::named("milan-v2-coco");
    let endorsements = SnpEndorsements { ark: Some(Base64(ask)), ..milan.endorsements() };
    let result = Chain::verify(&endorsements, &Root::pinned(), &AwsLc);
    assert_eq!(verdict(result).unwrap_err().code, "VEK_CHAIN");
}

/// SHA-256 in the parameters, and in nothing else; another algorithm outside than inside; salts of 32 bytes.
#[test]
fn with_another_algorithm() {
    refused(vcek(), "VEK_CHAIN", "another key than SEV-Milan", |case| {
        let sha384 = b"\x60\x86\x48\x01\x65\x03\x04\x02\x02";
        let at = pss().windows(9).position(|window| window == sha384).unwrap();
        case.vek.algorithm[at + 8] = 0x01;
    });
    refused(vcek(), "VEK_CHAIN", "another key than SEV-Milan", |case| {
        let mut der = case.vek.sign(&ASK);
        let at = der.windows(5).rposition(|window| window == b"\xA2\x03\x02\x01\x30").unwrap();
        der[at + 4] = 0x20;
        case.endorsements.vek = Some(Base64(der));
    });
}

/// Signed by another program: AWS-LC cannot make such signatures.
#[test]
fn with_salts_of_32_bytes() {
    let file = |name: &str| vectors::file(&format!("pss-salt-32/{name}.der"));
    let (ark, ask) = (file("ark"), file("ask"));
    let roots = [Root::new(Family::Milan, RootKind::Development, &ark, &ask, &ask).unwrap()];
    let chain = |vek: &str| {
        let endorsements = SnpEndorsements { vek: Some(Base64(file(vek))), ask: None, ark: None, crl: None };
        verdict(Chain::verify(&endorsements, &roots, &AwsLc)).map(|_| ()).map_err(|rejected| rejected.code)
    };
    assert_eq!(chain("vcek-salt-48"), Ok(()));
    assert_eq!(chain("vcek-declares-32"), Err("VEK_CHAIN"));
    assert_eq!(chain("vcek-declares-48"), Err("VEK_CHAIN"));
}

/// What the README of the vectors says of each.
#[test]
fn with_vectors_that_others_broke() {
    let good = vectors::named("milan-v2-coco");
    for bad in ["bad-vcek-legacy.der", "bad-vcek-new.der"] {
        let vek = vectors::certificate(&format!("milan-v2-coco/{bad}"));
        assert_ne!(vek, good.vek);
        let endorsements = SnpEndorsements { vek: Some(Base64(vek)), ..good.endorsements() };
        let result = authenticate(&good.report, &endorsements, &Root::pinned(), good.now, &AwsLc);
        let rejected = verdict(result).unwrap_err();
        assert_eq!(rejected.code, "VEK_CHAIN", "{bad}: {rejected}");
    }
    let vlek = vectors::named("milan-v3-vlek");
    let [_, ask, _] = vectors::amd(Family::Milan);
    let endorsements = SnpEndorsements { ask: Some(Base64(ask)), ..vlek.endorsements() };
    let result = authenticate(&vlek.report, &endorsements, &Root::pinned(), vlek.now, &AwsLc);
    assert_eq!(verdict(result).unwrap_err().code, "VEK_CHAIN", "a VLEK through the ASK");
    let expired = authenticate(&vlek.report, &vlek.endorsements(), &Root::pinned(), vectors::NOW, &AwsLc);
    assert_eq!(verdict(expired).unwrap_err().code, "VEK_EXPIRED", "the VLEK ended in 2025");
}

#[test]
fn with_reports_that_were_broken() {
    let turin = vectors::named("turin-v5-azure");
    for (name, code) in [
        ("turin-extra-byte-1185", "SNP_REPORT_MALFORMED"),
        ("turin-flip-measurement", "SNP_SIGNATURE"),
        ("turin-flip-reserved", "SNP_REPORT_MALFORMED"),
        ("turin-sig-r-pad-nonzero", "SNP_REPORT_MALFORMED"),
        ("turin-sig-zero", "SNP_SIGNATURE"),
        ("turin-truncated-1183", "SNP_REPORT_MALFORMED"),
    ] {
        let report = vectors::file(&format!("derived-bad/{name}.bin"));
        assert_ne!(report, turin.report, "{name}");
        let result = authenticate(&report, &turin.endorsements(), &Root::pinned(), turin.now, &AwsLc);
        let rejected = verdict(result).unwrap_err();
        assert_eq!(rejected.code, code, "{name}: {rejected}");
    }
}

/// AMD's root and one for development side by side: each is found, and the second one's word is no better than it is.
#[test]
fn below_the_second_root_of_a_family_is_taken() {
    let mut case = vcek();
    case.roots.insert(0, Root::pinned().remove(0));
    assert_eq!((case.roots[0].family, case.roots[1].family), (Family::Milan, Family::Milan));
    assert_eq!(case.authenticate().unwrap().roots, RootKind::Development);
    let milan = vectors::named("milan-v2-coco");
    let genuine = authenticate(&milan.report, &milan.endorsements(), &case.roots, milan.now, &AwsLc).unwrap();
    assert_eq!(genuine.roots, RootKind::Production);
    refused(case, "VEK_CHAIN", "name other issuers", |case| case.issuer = &STRANGER);
}
