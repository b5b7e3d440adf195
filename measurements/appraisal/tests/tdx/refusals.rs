//! One test for each way in which a quote or its collateral is wrong although somebody signed it: an Intel of our own.
//!
//! Each test shows first that without the defect all is well. dcap-qvl is asked as well; where it accepts what we refuse,
//! or the other way round, the test says so by the function that it calls, and `tests/vectors/tdx/README.md` says why.

use blf_appraisal::tdx::{Claims, TcbStatus};
use blf_appraisal::{CheckId, Rejected, RootKind};
use blf_evidence::tdx::{Quote, attributes};
use blf_evidence::{Hex, UnixTime};
use rcgen::{BasicConstraints, CustomExtension, DnType, IsCa, date_time_ymd};
use serde_json::{Value, json};

use crate::intel::{Intel, KEYS, Made, NOW, Sgx, pem, revoked, tee_tcb_svn};
use crate::vectors::{Genuine, intels_root};
use crate::{everyones_verdict, oracle, passed, verdict};

/// What everyone says of it, dcap-qvl included.
#[track_caller]
fn everyone(made: &Made) -> Result<Claims, Rejected> {
    everyones_verdict(&made.quote, &made.collateral, &made.root, NOW)
}

/// What we say of it, where dcap-qvl says the contrary.
#[track_caller]
fn we_alone(made: &Made) -> Result<Claims, Rejected> {
    let theirs = oracle::verify(&made.quote, &made.collateral, &made.root, NOW.0);
    let ours = verdict(&made.quote, &made.collateral, &made.root(), NOW);
    assert_ne!(ours.is_ok(), theirs.is_ok(), "dcap-qvl agrees: {theirs:?}, {ours:?}");
    ours
}

fn made(edit: impl FnOnce(&mut Intel)) -> Made {
    let mut intel = Intel::new();
    edit(&mut intel);
    intel.make()
}

#[track_caller]
fn refused(code: &str, edit: impl FnOnce(&mut Intel)) -> Rejected {
    everyone(&made(|_| ())).unwrap();
    let rejected = everyone(&made(edit)).unwrap_err();
    assert_eq!(rejected.code, code, "{rejected}");
    rejected
}

#[track_caller]
fn refused_by_us_alone(code: &str, edit: impl FnOnce(&mut Intel)) -> Rejected {
    let rejected = we_alone(&made(edit)).unwrap_err();
    assert_eq!(rejected.code, code, "{rejected}");
    rejected
}

#[track_caller]
fn status(edit: impl FnOnce(&mut Intel)) -> (TcbStatus, Vec<String>) {
    let claims = everyone(&made(edit)).unwrap();
    (claims.tcb_status, claims.advisory_ids)
}

fn advisories(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|number| format!("INTEL-SA-0000{number}")).collect()
}

/// A platform of which one SGX component is this.
fn component(intel: &mut Intel, index: usize, svn: u8) {
    let mut sgx = Sgx::default();
    sgx.components[index] = svn;
    sgx.cpu_svn = sgx.components.to_vec();
    intel.pck.custom_extensions = vec![sgx.extension()];
}

fn platform(intel: &mut Intel, edit: impl FnOnce(&mut Sgx)) {
    let mut sgx = Sgx::default();
    edit(&mut sgx);
    intel.pck.custom_extensions = vec![sgx.extension()];
}

// The chain of the quote.

#[test]
fn another_root() {
    let made = made(|_| ());
    everyone(&made).unwrap();
    let rejected = everyones_verdict(&made.quote, &made.collateral, &intels_root(), NOW).unwrap_err();
    assert_eq!(rejected.code, "PCK_CHAIN");
    let Genuine { quote, collateral, now } = Genuine::v4();
    assert_eq!(everyones_verdict(&quote, &collateral, &made.root, now).unwrap_err().code, "PCK_CHAIN");
}

#[test]
fn development_root_says_so() {
    let made = made(|_| ());
    assert_eq!(verdict(&made.quote, &made.collateral, &made.root(), NOW).unwrap().roots, RootKind::Development);
}

#[test]
fn ca_by_a_stranger() {
    refused("PCK_CHAIN", |intel| intel.signers.ca = &KEYS.stranger);
}

#[test]
fn pck_certificate_by_a_stranger() {
    refused("PCK_CHAIN", |intel| intel.signers.pck = &KEYS.stranger);
}

#[test]
fn ca_that_is_none() {
    refused("PCK_CHAIN", |intel| intel.ca.is_ca = IsCa::ExplicitNoCa);
}

#[test]
fn ca_that_may_not_sign_certificates() {
    refused_by_us_alone("PCK_CHAIN", |intel| {
        intel.ca.key_usages.retain(|usage| *usage == rcgen::KeyUsagePurpose::CrlSign)
    });
}

#[test]
fn pck_certificate_that_is_a_ca() {
    refused("PCK_CHAIN", |intel| intel.pck.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
}

#[test]
fn certificates_of_other_names() {
    let name = |params: &mut rcgen::CertificateParams| params.distinguished_name.push(DnType::CommonName, "Intel SGX");
    refused_by_us_alone("PCK_CHAIN", |intel| name(&mut intel.pck));
    refused_by_us_alone("PCK_CHAIN", |intel| name(&mut intel.ca));
    refused_by_us_alone("COLLATERAL_SIGNATURE", |intel| name(&mut intel.tcb));
}

#[test]
fn unknown_demand_of_a_certificate() {
    refused("PCK_CHAIN", |intel| {
        let mut demand = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        demand.set_criticality(true);
        intel.pck.custom_extensions.push(demand);
    });
}

#[test]
fn no_sgx_extensions() {
    refused("PCK_CHAIN", |intel| intel.pck.custom_extensions.clear());
}

#[test]
fn sgx_extensions_twice() {
    refused("PCK_CHAIN", |intel| intel.pck.custom_extensions.push(Sgx::default().extension()));
}

#[test]
fn fields_of_another_length() {
    refused("PCK_CHAIN", |intel| platform(intel, |sgx| sgx.fmspc.truncate(5)));
    refused("PCK_CHAIN", |intel| platform(intel, |sgx| sgx.cpu_svn.truncate(15)));
    refused_by_us_alone("PCK_CHAIN", |intel| platform(intel, |sgx| sgx.ppid.truncate(15)));
    refused_by_us_alone("PCK_CHAIN", |intel| platform(intel, |sgx| sgx.pce_id.push(0)));
}

#[test]
fn cpu_svn_that_is_not_its_components() {
    refused_by_us_alone("PCK_CHAIN", |intel| platform(intel, |sgx| sgx.components[0] += 1));
}

// The quote.

#[test]
fn qe_report_by_a_stranger() {
    refused("TDX_SIGNATURE", |intel| intel.signers.qe_report = &KEYS.stranger);
}

#[test]
fn quote_by_a_stranger() {
    refused("TDX_SIGNATURE", |intel| intel.signers.quote = &KEYS.stranger);
}

#[test]
fn attestation_key_that_the_qe_does_not_name() {
    refused("TDX_SIGNATURE", |intel| intel.edit_qe_report = |report| report[320] ^= 1);
    // The other half is zero in all that Intel's quoting enclave makes; dcap-qvl does not look.
    refused_by_us_alone("TDX_SIGNATURE", |intel| intel.edit_qe_report = |report| report[352] ^= 1);
}

#[test]
fn headers_that_are_signed_and_wrong() {
    let rejected = refused("TDX_QUOTE_MALFORMED", |intel| intel.edit_signed = |bytes| bytes[12] ^= 1);
    assert!(rejected.failed.got.contains("QE vendor id"), "{rejected}");
    refused("TDX_QUOTE_MALFORMED", |intel| intel.edit_signed = |bytes| bytes[0] = 3);
    refused("TDX_QUOTE_MALFORMED", |intel| intel.edit_signed = |bytes| bytes[2] = 3);
    refused("TDX_QUOTE_MALFORMED", |intel| intel.edit_signed = |bytes| bytes[4] = 0);
    // dcap-qvl reads these bytes as the SVNs that they are in quotes of SGX.
    refused_by_us_alone("TDX_QUOTE_MALFORMED", |intel| intel.edit_signed = |bytes| bytes[8] = 1);
}

#[test]
fn other_formats() {
    for (name, start) in [("COSE_Sign1", [0xD2, 0x84]), ("CWT", [0xD8, 0x3D]), ("untagged", [0x84, 0x43])] {
        let error = Quote::parse(&start).unwrap_err().to_string();
        assert!(error.contains("wanted 4 or 5") && error.contains("CBOR"), "{name}: {error}");
    }
    let made = Intel::td15([5, 1, 3]).make();
    everyone(&made).unwrap();
    for (kind, got) in [(1, "body type: wanted 2 (TD 1.0) or 3 (TD 1.5), got 1"), (4, "got 4")] {
        let mut quote = made.quote.clone();
        quote[48] = kind;
        let error = Quote::parse(&quote).unwrap_err().to_string();
        assert!(error.contains(got), "{error}");
    }
}

#[test]
fn td10_body_in_version_5() {
    let claims = everyone(&made(|intel| intel.quote.version = 5)).unwrap();
    assert_eq!((claims.quote.version, claims.quote.mr_service_td), (5, None));
}

#[test]
fn attributes_are_there_for_the_policy() {
    let claims = everyone(&made(|intel| intel.quote.td_attributes |= attributes::DEBUG)).unwrap();
    assert_ne!(claims.quote.td_attributes & attributes::DEBUG, 0);
    let mut intel = Intel::td15([5, 1, 3]);
    intel.quote.mr_service_td = Some(Hex([1; 48]));
    assert_eq!(everyone(&intel.make()).unwrap().quote.mr_service_td, Some(Hex([1; 48])));
    // dcap-qvl decides these itself.
    for attributes in [attributes::SEPT_VE_DISABLE | attributes::MIGRATABLE, 0, attributes::SEPT_VE_DISABLE | 1 << 40] {
        let claims = we_alone(&made(|intel| intel.quote.td_attributes = attributes)).unwrap();
        assert_eq!(claims.quote.td_attributes, attributes);
    }
}

// The collateral's signatures and texts.

#[test]
fn collateral_by_strangers() {
    refused("COLLATERAL_SIGNATURE", |intel| intel.signers.tcb = &KEYS.stranger);
    refused("COLLATERAL_SIGNATURE", |intel| intel.signers.tcb_info = &KEYS.stranger);
    refused("COLLATERAL_SIGNATURE", |intel| intel.signers.qe_identity = &KEYS.stranger);
    refused("COLLATERAL_SIGNATURE", |intel| intel.signers.root_crl = &KEYS.stranger);
    refused("COLLATERAL_SIGNATURE", |intel| intel.signers.pck_crl = &KEYS.stranger);
}

#[test]
fn platforms_key_for_intels() {
    // Whoever owns a platform has no PCK, but this is what it could do with one.
    let rejected = refused("COLLATERAL_SIGNATURE", |intel| intel.signers.tcb_info = &KEYS.pck);
    assert!(rejected.failed.got.starts_with("TCB info: signed by another key"), "{rejected}");
    let mut made = made(|intel| intel.signers.tcb_info = &KEYS.pck);
    let [pck, ca, root] =
        blf_evidence::tdx::pem::chain(&Quote::parse(&made.quote).unwrap().authentication.pck_chain).unwrap();
    for chain in [pem(&[&pck, &root]), pem(&[&pck, &ca, &root]), pem(&[&ca, &root])] {
        made.collateral.tcb_info_issuer_chain = chain;
        let rejected = everyone(&made).unwrap_err();
        assert_eq!(rejected.code, "COLLATERAL_SIGNATURE", "{rejected}");
    }
}

#[test]
fn texts_that_are_not_the_very_bytes() {
    let sound = made(|_| ());
    everyone(&sound).unwrap();
    fn pretty(text: &str) -> String {
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(text).unwrap()).unwrap()
    }
    for (name, edit) in [
        ("spaces", pretty as fn(&str) -> String),
        ("a space at the end", |text| format!("{text} ")),
        ("another status", |text| text.replacen("OutOfDate", "UpToDate ", 1).replacen(" \"", "\"", 1)),
        ("a later date", |text| text.replacen("2026-06", "2027-06", 1)),
    ] {
        for which in ["tcb_info", "qe_identity"] {
            let mut made = sound.clone();
            let text = match which {
                "tcb_info" => &mut made.collateral.tcb_info,
                _ => &mut made.collateral.qe_identity,
            };
            let edited = edit(text);
            assert_ne!(*text, edited, "{which}, {name}: no effect");
            *text = edited;
            let rejected = everyone(&made).unwrap_err();
            assert_eq!(rejected.code, "COLLATERAL_SIGNATURE", "{which}, {name}: {rejected}");
        }
    }
}

#[test]
fn parts_in_each_others_place() {
    let sound = made(|_| ());
    everyone(&sound).unwrap();
    let refuse = |name: &str, swap: fn(&mut Made)| {
        let mut made = sound.clone();
        swap(&mut made);
        assert_ne!(made.collateral, sound.collateral, "{name}: no effect");
        let rejected = everyone(&made).unwrap_err();
        assert_eq!(rejected.code, "COLLATERAL_SIGNATURE", "{name}: {rejected}");
    };
    refuse("signatures", |made| {
        let of = &mut made.collateral;
        std::mem::swap(&mut of.tcb_info_signature, &mut of.qe_identity_signature);
    });
    refuse("lists", |made| std::mem::swap(&mut made.collateral.root_ca_crl, &mut made.collateral.pck_crl));
    refuse("the root's list for the CA's", |made| made.collateral.pck_crl = made.collateral.root_ca_crl.clone());
    refuse("another's chain", |made| {
        made.collateral.qe_identity_issuer_chain = Genuine::v4().collateral.qe_identity_issuer_chain;
    });
    // Both texts and signatures at once: each is signed, neither is what it should be.
    let mut made = sound.clone();
    let of = &mut made.collateral;
    std::mem::swap(&mut of.tcb_info_signature, &mut of.qe_identity_signature);
    std::mem::swap(&mut of.tcb_info, &mut of.qe_identity);
    assert_eq!(everyone(&made).unwrap_err().code, "COLLATERAL_MALFORMED");
}

#[test]
fn issuer_chain_of_the_pck_crl_is_not_read() {
    let mut made = made(|_| ());
    made.collateral.pck_crl_issuer_chain = "anything".into();
    everyone(&made).unwrap();
}

#[test]
fn texts_of_another_kind() {
    refused("COLLATERAL_MALFORMED", |intel| intel.tcb_info["id"] = "SGX".into());
    refused("COLLATERAL_MALFORMED", |intel| intel.tcb_info["version"] = 2.into());
    refused("COLLATERAL_MALFORMED", |intel| intel.qe_identity["id"] = "QE".into());
    refused("COLLATERAL_MALFORMED", |intel| intel.qe_identity["version"] = 1.into());
    refused("COLLATERAL_MALFORMED", |intel| intel.tcb_info["tcbLevels"][0]["tcbStatus"] = "Fine".into());
    refused("COLLATERAL_MALFORMED", |intel| drop(intel.tcb_info.as_object_mut().unwrap().remove("tdxModule")));
    refused_by_us_alone("COLLATERAL_MALFORMED", |intel| intel.tcb_info["tcbType"] = 1.into());
    refused_by_us_alone("COLLATERAL_MALFORMED", |intel| {
        intel.tcb_info["nextUpdate"] = "2026-06-14T02:00:00+02:00".into()
    });
}

// Dates.

#[test]
fn certificates_that_are_not_valid_now() {
    let past = date_time_ymd(2026, 5, 27);
    let future = date_time_ymd(2026, 5, 30);
    refused("STALE_COLLATERAL", |intel| intel.pck.not_after = past);
    refused("STALE_COLLATERAL", |intel| intel.ca.not_after = past);
    refused("STALE_COLLATERAL", |intel| intel.tcb.not_after = past);
    refused("STALE_COLLATERAL", |intel| intel.pck.not_before = future);
    refused("STALE_COLLATERAL", |intel| intel.tcb.not_before = future);
    // Anchors have no dates for dcap-qvl.
    refused_by_us_alone("STALE_COLLATERAL", |intel| intel.root.not_after = past);
}

#[test]
fn lists_that_are_not_valid_now() {
    refused("STALE_COLLATERAL", |intel| intel.root_crl.next_update = date_time_ymd(2026, 5, 27));
    refused("STALE_COLLATERAL", |intel| intel.pck_crl.next_update = date_time_ymd(2026, 5, 27));
    refused_by_us_alone("STALE_COLLATERAL", |intel| intel.root_crl.this_update = date_time_ymd(2026, 5, 30));
    refused_by_us_alone("STALE_COLLATERAL", |intel| intel.pck_crl.this_update = date_time_ymd(2026, 5, 30));
}

#[test]
fn texts_that_are_not_valid_now() {
    for (member, date) in [("issueDate", "2026-05-29T00:00:00Z"), ("nextUpdate", "2026-05-28T00:00:00Z")] {
        refused("STALE_COLLATERAL", |intel| intel.tcb_info[member] = date.into());
        refused("STALE_COLLATERAL", |intel| intel.qe_identity[member] = date.into());
    }
}

#[test]
fn oldest_part_dates_the_collateral() {
    let issued = |edit: fn(&mut Intel)| everyone(&made(edit)).unwrap().collateral_issued;
    assert_eq!(issued(|_| ()), UnixTime(1_778_371_200)); // the lists, 2026-05-10
    assert_eq!(issued(|intel| intel.qe_identity["issueDate"] = "2026-05-01T00:00:01Z".into()), UnixTime(1_777_593_601));
}

// Revocation.

#[test]
fn revoked_certificates() {
    refused("PCK_REVOKED", |intel| intel.pck_crl.revoked_certs.push(revoked(3)));
    refused("PCK_REVOKED", |intel| intel.root_crl.revoked_certs.push(revoked(2)));
    refused("PCK_REVOKED", |intel| intel.root_crl.revoked_certs.push(revoked(4)));
    refused("PCK_REVOKED", |intel| intel.root_crl.revoked_certs.push(revoked(1)));
}

#[test]
fn serial_numbers_of_other_issuers_revoke_nothing() {
    everyone(&made(|intel| {
        intel.pck_crl.revoked_certs.extend([revoked(1), revoked(2), revoked(4)]);
        intel.root_crl.revoked_certs.push(revoked(3));
    }))
    .unwrap();
}

// What Intel says of the platform.

#[test]
fn collateral_of_another_platform() {
    refused("COLLATERAL_MISMATCH", |intel| intel.tcb_info["fmspc"] = "00806F050000".into());
    refused("COLLATERAL_MISMATCH", |intel| platform(intel, |sgx| sgx.fmspc[0] ^= 1));
    // dcap-qvl does not look at the PCE-ID.
    refused_by_us_alone("COLLATERAL_MISMATCH", |intel| intel.tcb_info["pceId"] = "0001".into());
    refused_by_us_alone("COLLATERAL_MISMATCH", |intel| platform(intel, |sgx| sgx.pce_id[1] = 1));
}

#[test]
fn another_quoting_enclave() {
    let edits: [fn(&mut [u8; 384]); 4] =
        [|report| report[128] ^= 1, |report| report[256] = 1, |report| report[16] = 1, |report| report[48] ^= 0x10];
    for edit in edits {
        let rejected = refused("QE_MISMATCH", |intel| intel.edit_qe_report = edit);
        assert!(passed(&rejected, CheckId::TdQuoteSignature));
    }
    // Bits that the mask leaves out.
    everyone(&made(|intel| intel.edit_qe_report = |report| (report[48], report[60]) = (0x11, 0xFF))).unwrap();
}

#[test]
fn debug_enclave_whatever_the_mask_says() {
    refused("QE_MISMATCH", |intel| {
        intel.qe_identity["attributesMask"] = "00".repeat(16).into();
        intel.qe_identity["attributes"] = "00".repeat(16).into();
        intel.edit_qe_report = |report| report[48] |= 0b10;
    });
}

#[test]
fn another_tdx_module() {
    refused("TDX_MODULE_UNKNOWN", |intel| intel.quote.mrsigner_seam = Hex([1; 48]));
    refused("TDX_MODULE_UNKNOWN", |intel| intel.quote.seam_attributes = 1);
    refused("TDX_MODULE_UNKNOWN", |intel| intel.quote.tee_tcb_svn = tee_tcb_svn([5, 2, 3]));
    refused("TDX_MODULE_UNKNOWN", |intel| {
        intel.tcb_info["tdxModuleIdentities"][1]["attributesMask"] = "00".repeat(8).into();
        intel.quote.seam_attributes = 1;
    });
    // A module before identities: `tdxModule` describes it, the platform's levels know its version.
    assert_eq!(status(|intel| intel.quote.tee_tcb_svn = tee_tcb_svn([5, 0, 3])).0, TcbStatus::UpToDate);
    refused("TDX_MODULE_UNKNOWN", |intel| {
        intel.quote.tee_tcb_svn = tee_tcb_svn([5, 0, 3]);
        intel.quote.mrsigner_seam = Hex([1; 48]);
    });
}

#[test]
fn levels_of_the_platform() {
    assert_eq!(status(|_| ()), (TcbStatus::UpToDate, advisories(&[])));
    assert_eq!(status(|intel| component(intel, 7, 4)), (TcbStatus::SWHardeningNeeded, advisories(&[1])));
    assert_eq!(status(|intel| component(intel, 7, 3)), (TcbStatus::ConfigurationNeeded, advisories(&[1])));
    assert_eq!(status(|intel| component(intel, 4, 3)), (TcbStatus::OutOfDate, advisories(&[1, 2])));
    assert_eq!(status(|intel| platform(intel, |sgx| sgx.pce_svn = 12)), (TcbStatus::OutOfDate, advisories(&[1, 2])));
    // The order of the text does not count.
    let shuffled = |intel: &mut Intel| {
        intel.tcb_info["tcbLevels"].as_array_mut().unwrap().reverse();
        component(intel, 7, 4);
    };
    assert_eq!(status(shuffled).0, TcbStatus::SWHardeningNeeded);
}

#[test]
fn levels_of_the_module() {
    let module = |svn: u8| move |intel: &mut Intel| intel.quote.tee_tcb_svn = tee_tcb_svn([svn, 1, 3]);
    assert_eq!(status(module(9)), (TcbStatus::UpToDate, advisories(&[])));
    assert_eq!(status(module(4)), (TcbStatus::OutOfDate, advisories(&[3])));
    let both = |intel: &mut Intel| {
        module(3)(intel);
        component(intel, 7, 3);
    };
    assert_eq!(status(both), (TcbStatus::OutOfDateConfigurationNeeded, advisories(&[1, 3])));
    refused("TCB_LEVEL_UNKNOWN", module(2));
    refused("TCB_LEVEL_UNKNOWN", module(1));
}

#[test]
fn levels_of_the_quoting_enclave() {
    assert_eq!(status(|intel| intel.edit_qe_report = |report| report[258] = 9).0, TcbStatus::UpToDate);
    let old: fn(&mut [u8; 384]) = |report| report[258] = 5;
    assert_eq!(status(|intel| intel.edit_qe_report = old), (TcbStatus::OutOfDate, advisories(&[4])));
    let both = |intel: &mut Intel| {
        intel.edit_qe_report = old;
        component(intel, 7, 4);
    };
    assert_eq!(status(both), (TcbStatus::OutOfDate, advisories(&[1, 4])));
    refused("TCB_LEVEL_UNKNOWN", |intel| intel.edit_qe_report = |report| report[258] = 3);
    refused("TCB_LEVEL_UNKNOWN", |intel| intel.edit_qe_report = |report| report[258] = 1);
}

/// dcap-qvl, like Intel's library, lets a part that must be configured go unnoticed beside a platform that need not.
#[test]
fn every_part_counts() {
    let made = made(|intel| intel.qe_identity["tcbLevels"][0]["tcbStatus"] = "ConfigurationNeeded".into());
    let ours = verdict(&made.quote, &made.collateral, &made.root(), NOW).unwrap();
    assert_eq!(ours.tcb_status, TcbStatus::ConfigurationNeeded);
    let theirs = oracle::verify(&made.quote, &made.collateral, &made.root, NOW.0).unwrap();
    assert!(format!("{theirs:?}").contains("UpToDate"), "{theirs:?}");
}

#[test]
fn revoked_level_of_the_platform() {
    let rejected = refused("TCB_LEVEL_UNKNOWN", |intel| component(intel, 0, 2));
    assert_eq!(rejected.failed.got, "Revoked");
}

#[test]
fn platform_below_all_levels() {
    let rejected = refused("TCB_LEVEL_UNKNOWN", |intel| component(intel, 0, 1));
    assert!(rejected.failed.got.starts_with("none for CPUSVN 0103"), "{rejected}");
}

#[test]
fn module_updated_below_a_running_td() {
    let updated = |launch: [u8; 3], current: [u8; 3], edit: fn(&mut Intel)| {
        let mut intel = Intel::td15(current);
        intel.quote.tee_tcb_svn = tee_tcb_svn(launch);
        edit(&mut intel);
        everyone(&intel.make()).map(|claims| claims.tcb_status).map_err(|rejected| rejected.code)
    };
    let configure: fn(&mut Intel) = |intel| component(intel, 7, 3);
    assert_eq!(updated([5, 1, 3], [5, 1, 3], |_| ()), Ok(TcbStatus::UpToDate));
    assert_eq!(updated([4, 1, 3], [5, 1, 3], |_| ()), Ok(TcbStatus::TDRelaunchAdvised));
    assert_eq!(updated([4, 1, 3], [5, 3, 3], configure), Ok(TcbStatus::TDRelaunchAdvisedConfigurationNeeded));
    assert_eq!(updated([4, 1, 3], [3, 1, 3], |_| ()), Ok(TcbStatus::OutOfDate));
    assert_eq!(updated([5, 1, 3], [2, 1, 3], |_| ()), Err("TCB_LEVEL_UNKNOWN"));
    assert_eq!(updated([5, 1, 3], [1, 1, 3], |_| ()), Err("TCB_LEVEL_UNKNOWN"));
    assert_eq!(updated([5, 1, 3], [5, 2, 3], |_| ()), Err("TDX_MODULE_UNKNOWN"));
}

/// A module that became worse under a running TD counts as well; dcap-qvl goes by the launch.
#[test]
fn module_downgraded_below_a_running_td() {
    let mut intel = Intel::td15([4, 1, 3]);
    intel.quote.tee_tcb_svn = tee_tcb_svn([5, 1, 3]);
    let made = intel.make();
    let ours = verdict(&made.quote, &made.collateral, &made.root(), NOW).unwrap();
    assert_eq!((ours.tcb_status, ours.advisory_ids), (TcbStatus::OutOfDate, advisories(&[3])));
    let theirs = oracle::verify(&made.quote, &made.collateral, &made.root, NOW.0).unwrap();
    assert!(format!("{theirs:?}").contains("UpToDate"), "{theirs:?}");
}

#[test]
fn smaller_evaluation_data_number_counts() {
    assert_eq!(everyone(&made(|_| ())).unwrap().tcb_evaluation_data_number, 19);
    let claims = everyone(&made(|intel| intel.tcb_info["tcbEvaluationDataNumber"] = json!(7))).unwrap();
    assert_eq!(claims.tcb_evaluation_data_number, 7);
}
