//! Certificates of VCEKs and VLEKs, by themselves.

use super::*;

#[test]
fn missing() {
    let case = vcek();
    let none = SnpEndorsements { vek: None, ask: None, ark: None, crl: None };
    let result = authenticate(&case.signed_report(), &none, &case.roots, NOW, &AwsLc);
    let rejected = verdict(result).unwrap_err();
    assert_eq!((rejected.code, &*rejected.failed.got), ("VEK_MISSING", "none"));
}

#[test]
fn that_is_none() {
    refused(vcek(), "VEK_MALFORMED", "X.509", |case| case.endorsements.vek = Some(Base64(b"PEM".to_vec())));
}

#[test]
fn with_bytes_behind_it() {
    refused(vcek(), "VEK_MALFORMED", "X.509", |case| {
        case.endorsements.vek = Some(Base64([&case.vek.sign(&ASK)[..], &[0]].concat()));
    });
}

/// A default value that DER leaves out.
#[test]
fn in_another_encoding() {
    refused(vcek(), "VEK_MALFORMED", "another encoding", |case| {
        case.vek.extension(&[3, 1]).critical = Some(false);
    });
}

#[test]
fn with_a_length_that_is_longer_than_need_be() {
    refused(vcek(), "VEK_MALFORMED", "X.509", |case| {
        let der = case.vek.sign(&ASK);
        assert_eq!(der[..2], [0x30, 0x82]);
        case.endorsements.vek = Some(Base64([&[0x30, 0x83, 0x00], &der[2..]].concat()));
    });
}

#[test]
fn for_a_key_on_p256() {
    refused(vcek(), "VEK_MALFORMED", "not on P-384", |case| case.vek.key = p256_key());
}

#[test]
fn that_may_issue() {
    refused(vcek(), "VEK_MALFORMED", "may issue", |case| {
        case.vek.extensions.extend(ask(Family::Milan).extensions);
    });
}

#[test]
fn with_an_unknown_critical_extension() {
    refused(vcek(), "VEK_MALFORMED", "demands what we do not know", |case| {
        let policies = Extension { oid: b"\x55\x1D\x20".to_vec(), critical: Some(true), value: tlv(0x30, &[]) };
        case.vek.extensions.push(policies);
    });
}

#[test]
fn with_an_extension_of_amd_s_that_we_do_not_know() {
    for arcs in [&[3, 10][..], &[6], &[3, 1, 1], &[3]] {
        refused(vcek(), "VEK_MALFORMED", "unknown extension", |case| {
            case.vek.extensions.push(amd(arcs, integer(&[0])));
        });
    }
}

#[test]
fn without_one_of_amd_s_extensions() {
    for index in 0..vcek().vek.extensions.len() {
        refused(vcek(), "VEK_MALFORMED", "snp.vek", |case| drop(case.vek.extensions.remove(index)));
    }
    for index in 0..vlek().vek.extensions.len() {
        refused(vlek(), "VEK_MALFORMED", "snp.vek", |case| drop(case.vek.extensions.remove(index)));
    }
}

#[test]
fn with_one_of_amd_s_extensions_twice() {
    for index in 0..vcek().vek.extensions.len() {
        refused(vcek(), "VEK_MALFORMED", "twice", |case| {
            let again = case.vek.extensions[index].clone();
            case.vek.extensions.push(again);
        });
    }
}

/// The second of two that contradict each other is not the one that counts.
#[test]
fn with_two_levels_of_one_component() {
    refused(vcek(), "VEK_MALFORMED", "twice", |case| {
        case.vek.extension(&[3, 8]).value = integer(&[0]);
        case.vek.extensions.push(amd(&[3, 8], integer(&[0xDB])));
    });
}

#[test]
fn with_levels_that_are_no_canonical_integers() {
    for bad in [
        &b"\x02\x02\x00\x04"[..],
        b"\x02\x01\xDB",
        b"\x02\x02\x01\x04",
        b"\x02\x00",
        b"\x02\x01\x04\x00",
        b"\x04\x01\x04",
        b"",
    ] {
        refused(vcek(), "VEK_MALFORMED", "no INTEGER", |case| case.vek.extension(&[3, 1]).value = bad.to_vec());
    }
}

#[test]
fn of_another_tcb() {
    for spl in 1..=8 {
        refused(vcek(), "VEK_MISMATCH", "TCB", |case| case.vek.extension(&[3, spl]).value = integer(&[0x77]));
    }
}

/// The SPLs of Turin in a certificate that says that it is of the older structure.
#[test]
fn of_another_structure() {
    refused(Case::vcek(Family::Turin), "VEK_MALFORMED", "structVersion", |case| {
        case.vek.extension(&[1]).value = integer(&[0]);
    });
    refused(vcek(), "VEK_MALFORMED", "structVersion", |case| case.vek.extension(&[1]).value = integer(&[1]));
    refused(vcek(), "VEK_MALFORMED", "does not have", |case| case.vek.extensions.push(amd(&[3, 9], integer(&[0]))));
}

#[test]
fn of_an_unknown_product() {
    for name in ["Rome", "Milan-", "Milan-B0-C", "Milan-b0", "MilanB0", "milan", " Milan", ""] {
        refused(vcek(), "VEK_MALFORMED", "productName", |case| {
            case.vek.extension(&[2]).value = tlv(0x16, name.as_bytes());
        });
    }
}

/// The product is a string of another type.
#[test]
fn of_a_product_that_is_no_ia5string() {
    refused(vcek(), "VEK_MALFORMED", "IA5String", |case| case.vek.extension(&[2]).value = tlv(0x0C, b"Milan-B0"));
}

/// The ASK of one family signs for another, with the name of its issuer as it should be.
#[test]
fn of_another_product() {
    refused(vcek(), "VEK_CHAIN", "signed by another key than SEV-Genoa", |case| {
        case.vek.extension(&[2]).value = tlv(0x16, b"Genoa-B0");
        case.vek.issuer = "SEV-Genoa".into();
        case.issuer = &STRANGER;
        case.roots.push(root(Family::Genoa));
    });
}

#[test]
fn of_another_chip() {
    refused(vcek(), "VEK_MISMATCH", "hwID", |case| case.vek.extension(&[4]).value[0] ^= 1);
}

#[test]
fn with_a_chip_id_of_another_length() {
    for length in [0, 8, 63, 65] {
        refused(vcek(), "VEK_MALFORMED", "hwID of", |case| case.vek.extension(&[4]).value = vec![1; length]);
    }
}

/// As AMD's specification has it, and its certificates do not.
#[test]
fn with_a_chip_id_in_an_octet_string_is_taken() {
    for family in Family::ALL {
        let mut case = Case::vcek(family);
        let hw_id = case.vek.extension(&[4]);
        hw_id.value = tlv(0x04, &hw_id.value);
        case.authenticate().unwrap();
    }
}

#[test]
fn of_a_chip_and_a_cloud() {
    refused(vcek(), "VEK_MALFORMED", "hwID and cspID", |case| {
        case.vek.extensions.push(amd(&[5], tlv(0x16, b"CN=cloud.example")));
    });
}

#[test]
fn with_the_name_of_the_other_kind() {
    refused(vcek(), "VEK_MALFORMED", "SEV-VLEK instead", |case| case.vek.subject = "SEV-VLEK".into());
    refused(vlek(), "VEK_MALFORMED", "SEV-VCEK instead", |case| case.vek.subject = "SEV-VCEK".into());
}

#[test]
fn that_expired() {
    refused(vcek(), "VEK_EXPIRED", "valid at", |case| case.vek.not_after = "261120085959Z");
    let mut last_second = vcek();
    last_second.vek.not_after = NOW_UTC;
    last_second.authenticate().unwrap();
}

#[test]
fn that_is_not_yet_valid() {
    refused(vcek(), "VEK_EXPIRED", "valid at", |case| case.vek.not_before = "261120090001Z");
    let mut first_second = vcek();
    first_second.vek.not_before = NOW_UTC;
    first_second.authenticate().unwrap();
}

#[test]
fn that_ends_before_it_begins() {
    refused(vcek(), "VEK_EXPIRED", "valid at", |case| {
        (case.vek.not_before, case.vek.not_after) = (FAR_AWAY, LONG_AGO);
    });
}

#[test]
fn at_another_time() {
    refused(vcek(), "VEK_EXPIRED", "valid at 0,", |case| case.now = UnixTime(0));
    refused(vcek(), "VEK_EXPIRED", "valid at", |case| case.now = UnixTime::MAX);
}
