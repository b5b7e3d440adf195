//! Our parser of HCL reports beside az-cvm-vtpm's, on every report at hand and on damaged ones.

use az_cvm_vtpm::hcl::{HclReport as Oracle, ReportType};
use az_cvm_vtpm::tdx::TdReport as OracleTdReport;
use blf_evidence::azure::{HardwareReport, HclReport, RuntimeData};
use sha2::{Digest as _, Sha256};

use crate::azure::{ak_public, genuine, vector};

fn reports() -> [Vec<u8>; 4] {
    [
        vector("azure/hcl-report-snp.bin"),
        vector("azure/hcl-report-tdx.bin"),
        genuine("evidence-snp-v1.json").0.hcl_report.0,
        genuine("evidence-tdx-v1.json").0.hcl_report.0,
    ]
}

/// Both read the same out of these bytes.
#[track_caller]
fn agree(good: &[u8], bytes: &[u8], ours: &HclReport) {
    let theirs = Oracle::new(bytes.to_vec()).expect("the oracle accepts what we accept");
    assert_eq!(ours.runtime_data, theirs.var_data());
    assert_eq!(Sha256::digest(&ours.runtime_data)[..], theirs.var_data_sha256());
    match &ours.hardware {
        HardwareReport::Snp(_) => assert_eq!(theirs.report_type(), ReportType::Snp),
        HardwareReport::Tdx(report) => {
            let theirs = OracleTdReport::try_from(&theirs).unwrap();
            assert_eq!(report.report_data.0, theirs.report_mac.reportdata);
            assert_eq!(report.mr_td.0, theirs.tdinfo.mrtd);
        }
    }
    let modulus = |hcl: &HclReport| RuntimeData::parse(&hcl.runtime_data).ok().map(|data| data.ak_modulus);
    match (modulus(ours), theirs.ak_pub()) {
        (Some(modulus), Ok(ak)) => {
            let spki = ak_public(&modulus[..]).subject_public_key_info().unwrap();
            assert_eq!(spki, ak.key.try_to_der().unwrap());
        }
        // The oracle reads members that we do not: operations, other keys.
        (Some(ours), Err(_)) => assert_eq!(Some(ours), modulus(&HclReport::parse(good).unwrap())),
        // It takes any size, any exponent, the first of two AKs, and the last of two members.
        (None, _) => (),
    }
}

#[test]
fn on_every_report() {
    for bytes in reports() {
        let ours = HclReport::parse(&bytes).unwrap();
        RuntimeData::parse(&ours.runtime_data).unwrap();
        agree(&bytes, &bytes, &ours);
    }
}

/// Whatever we accept of the damaged reports, the oracle accepts and reads alike; what it accepts beyond that lies in the
/// members that it does not look at.
#[test]
fn on_every_flipped_bit() {
    // One report of each kind of hardware; the other two differ from them in nothing that a parser sees.
    for good in reports().into_iter().take(2) {
        let (mut both, mut neither, mut theirs_alone) = (0, 0, 0);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(bad, good);
            match (HclReport::parse(&bad), Oracle::new(bad.clone())) {
                (Ok(ours), _) => {
                    agree(&good, &bad, &ours);
                    both += 1;
                }
                (Err(_), Err(_)) => neither += 1,
                (Err(error), Ok(_)) => {
                    assert!(UNREAD.contains(&error.field), "bit {bit}: {error}");
                    theirs_alone += 1;
                }
            }
        }
        assert!(both > 0 && neither > 0 && theirs_alone > 0, "{both} {neither} {theirs_alone}");
    }
}

/// What az-cvm-vtpm 0.8.2 accepts with any value.
const UNREAD: [&str; 21] = [
    "signature",
    "version",
    "report_size",
    "request_type",
    "status",
    "reserved",
    "data_size",
    "request_data.version",
    // It ends the program when the digest is asked for.
    "report_data_hash_type",
    "padding",
    "bytes behind the TDREPORT",
    "REPORTTYPE.TYPE",
    "REPORTTYPE.SUBTYPE",
    "REPORTTYPE.VERSION",
    "REPORTTYPE.RESERVED",
    "REPORTMACSTRUCT.RESERVED",
    "TEE_TCB_INFO_HASH",
    "TEE_INFO_HASH",
    "TEE_TCB_INFO.RESERVED",
    "TDREPORT_STRUCT.RESERVED",
    "TDINFO_STRUCT.RESERVED",
];
