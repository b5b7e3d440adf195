//! Reports.

use super::*;

#[test]
fn of_an_unknown_family() {
    refused(vcek(), "CHIP_FAMILY_UNKNOWN", "CPUID family 1ah, model 50h", |case| {
        case.report.cpuid = Some([0x1A, 0x50, 0]);
    });
}

#[test]
fn of_a_family_whose_ark_nobody_gave() {
    refused(vcek(), "CHIP_FAMILY_UNKNOWN", "got Milan", |case| case.roots = vec![root(Family::Genoa)]);
}

#[test]
fn of_a_sibling_family() {
    refused(vcek(), "VEK_MISMATCH", "wanted Genoa, got Milan", |case| {
        case.report.cpuid = Some([0x19, 0x11, 1]);
    });
}

#[test]
fn that_says_a_vlek_signed_it() {
    refused(vcek(), "VEK_MISMATCH", "wanted a VLEK, got a VCEK", |case| {
        case.report.signing_key = SIGNING_KEY_VLEK;
    });
}

#[test]
fn that_says_a_vcek_signed_it() {
    refused(vlek(), "VEK_MISMATCH", "wanted a VCEK, got a VLEK", |case| {
        case.report.signing_key = SIGNING_KEY_VCEK;
    });
}

#[test]
fn that_says_nobody_signed_it() {
    refused(vcek(), "SNP_SIGNING_KEY", "got SIGNING_KEY 7", |case| case.report.signing_key = SIGNING_KEY_NONE);
}

#[test]
fn with_a_masked_chip_key() {
    refused(vcek(), "SNP_SIGNING_KEY", "MASK_CHIP_KEY 1", |case| case.report.mask_chip_key = true);
}

#[test]
fn of_a_hidden_chip() {
    refused(vcek(), "VEK_MISMATCH", "wanted CHIP_ID 0000", |case| case.report.chip_id = Hex([0; 64]));
}

#[test]
fn of_another_chip() {
    refused(vcek(), "VEK_MISMATCH", "hwID", |case| case.report.chip_id.0[63] ^= 1);
}

/// Bytes behind the eight that Turin uses.
#[test]
fn of_another_chip_of_turin() {
    refused(Case::vcek(Family::Turin), "VEK_MISMATCH", "hwID", |case| case.report.chip_id.0[8] = 1);
}

/// One component at a time, in the order of each family.
#[test]
fn with_another_reported_tcb() {
    for (family, bytes) in
        [(Family::Milan, &[0, 1, 6, 7][..]), (Family::Genoa, &[0, 1, 6, 7]), (Family::Turin, &[0, 1, 2, 3, 7])]
    {
        for byte in bytes {
            refused(Case::vcek(family), "VEK_MISMATCH", "TCB", |case| case.report.reported_tcb.0[*byte] += 1);
        }
    }
}

#[test]
fn signed_by_another_key() {
    refused(vcek(), "SNP_SIGNATURE", "by another key", |case| case.key = Case::vcek(Family::Milan).key);
}

#[test]
fn signed_with_zeros() {
    let case = vcek();
    let bytes = case.report.to_bytes();
    let rejected = verdict(authenticate(&bytes, &case.endorsements(), &case.roots, NOW, &AwsLc)).unwrap_err();
    assert_eq!((rejected.code, case.report.signature), ("SNP_SIGNATURE", Hex([0; 96])));
}

/// ECDSA verifies for `n - s` as well: a report has two signatures, which is why nobody may take the signature for the
/// report's identity. Everything that it says is the same.
#[test]
fn has_two_signatures() {
    const N: &str = "ffffffffffffffffffffffffffffffffffffffffffffffff\
                     c7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let case = vcek();
    let genuine = Report::parse(&case.signed_report()).unwrap();
    let (n, mut other) = (hex::decode(N).unwrap(), genuine.clone());
    let mut borrow = 0;
    for index in (0..48).rev() {
        let difference = i16::from(n[index]) - i16::from(genuine.signature.0[48 + index]) - borrow;
        borrow = i16::from(difference < 0);
        other.signature.0[48 + index] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    assert_ne!(genuine.signature, other.signature);
    let claims = authenticate(&other.to_bytes(), &case.endorsements(), &case.roots, NOW, &AwsLc).unwrap();
    assert_eq!(Report { signature: genuine.signature, ..claims.report.clone() }, genuine);
    let signed = Report::signed_part;
    assert_eq!(signed(&genuine.to_bytes()), signed(&other.to_bytes()));
}
