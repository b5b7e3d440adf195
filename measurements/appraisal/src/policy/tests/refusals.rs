//! Each check of the second question refuses what it is for, on every platform that it is made for.

use std::collections::BTreeSet;

use blf_evidence::snp::{Family, Tcb, platform_info, policy};
use blf_evidence::statement::{Model, Purpose};
use blf_evidence::tdx::attributes;
use blf_evidence::{Hex, UnixTime};

use super::{Accept, Case, DAY, MRTD, NOW, PlatformName, RTMRS, reference, report, snp, tdx, tpm};
use crate::authenticate::Claims;
use crate::azure::Hardware;
use crate::check::{CheckId, Stage};
use crate::policy::{Bit, Demand, Limit};
use crate::result::{ImageIdentity, Memory, Party, PlatformClaims, Roots};
use crate::snp::Signer;
use crate::tdx::TcbStatus;
use crate::tpm::AkEndorsement;
use crate::x509::RootKind;

/// What is wrong, by which check it is refused, and how to make it so.
pub(super) type Row = (&'static str, CheckId, fn(&mut Case));

/// On every platform.
const ANY: [Row; 24] = [
    ("another nonce", CheckId::Nonce, |c| c.expected.nonce.0[31] ^= 1),
    ("a nonce that nobody chose", CheckId::Nonce, |c| {
        (c.expected.nonce, c.binding.nonce) = (Hex([0; 32]), Hex([0; 32]));
    }),
    ("another audience", CheckId::Audience, |c| c.expected.audience.push('x')),
    ("another purpose", CheckId::Purpose, |c| c.expected.purpose = Purpose::Session),
    ("expired", CheckId::NotAfter, |c| c.binding.not_after = UnixTime(NOW)),
    ("valid for too long", CheckId::Validity, |c| c.policy.max_validity_s = 3599),
    ("without an anchor", CheckId::Anchor, |c| {
        c.policy.anchor = Demand::Required;
        c.binding.anchor = None;
    }),
    ("an anchor that is too old", CheckId::AnchorAge, |c| c.policy.anchor_age_blocks = Limit::AtMost(99)),
    ("an anchor of no known age", CheckId::AnchorAge, |c| {
        c.policy.anchor_age_blocks = Limit::AtMost(100);
        c.expected.head = None;
    }),
    ("an anchor of another chain", CheckId::AnchorAge, |c| {
        c.policy.anchor_age_blocks = Limit::AtMost(100);
        c.binding.anchor.as_mut().unwrap().chain_id = 1;
    }),
    ("an anchor that is yet to come", CheckId::AnchorAge, |c| {
        c.policy.anchor_age_blocks = Limit::AtMost(100);
        c.binding.anchor.as_mut().unwrap().block_number = 1101;
    }),
    ("no anchor where its age counts", CheckId::AnchorAge, |c| {
        c.policy.anchor_age_blocks = Limit::AtMost(100);
        c.binding.anchor = None;
    }),
    ("a platform that is not wanted", CheckId::Platform, |c| c.policy.platforms = Accept::Only(vec![])),
    ("an image that nobody knows", CheckId::Measurement, |c| c.references.references.clear()),
    ("a retired image", CheckId::ReferenceRetired, |c| reference(c).retired = Some("CVE-2026-1".into())),
    ("an image before its time", CheckId::ReferenceValidity, |c| reference(c).valid_from = UnixTime(NOW + 1)),
    ("an image after its time", CheckId::ReferenceValidity, |c| reference(c).valid_until = Some(UnixTime(NOW))),
    ("an image that is no release", CheckId::ReleaseLocked, |c| reference(c).locked = false),
    ("a profile that is not wanted", CheckId::ReleaseProfile, |c| c.policy.profiles = Accept::Only(vec![])),
    ("another profile than the image's", CheckId::Profile, |c| c.binding.profile.id = Hex([11; 32])),
    ("a model too many", CheckId::Models, |c| {
        c.policy.models = Accept::Only(c.binding.models.clone());
        c.binding.models.push(Model { id: "other".into(), manifest_sha256: Hex([1; 32]) });
    }),
    ("other numbers", CheckId::NumericProfile, |c| c.policy.numeric_profiles = Accept::Only(vec![])),
    ("a GPU", CheckId::Gpu, |c| c.binding.gpu_sha256 = Some(Hex([1; 32]))),
    ("a profile without a tier", CheckId::Tier, |c| {
        c.policy.profiles = Accept::Any;
        (reference(c).profile.name, c.binding.profile.name) = ("devnet".into(), "devnet".into());
    }),
];

/// On SEV-SNP, and below a paravisor on it.
const SNP: [Row; 38] = [
    ("Milan", CheckId::ChipFamily, |c| snp(c).family = Family::Milan),
    ("a family of no tier", CheckId::ChipFamily, |c| {
        let families = &mut c.policy.snp.families;
        (families.tier_0, families.tier_1, families.tier_2) =
            (Accept::Only(vec![]), Accept::Only(vec![]), Accept::Only(vec![]));
        c.policy.minimum_tier = 0;
    }),
    ("another chip", CheckId::Chip, |c| c.policy.snp.chip_ids = Accept::Only(vec![Hex([1; 64])])),
    ("a cloud's key", CheckId::Chip, |c| {
        c.policy.snp.chip_ids = Accept::Any;
        snp(c).signer = Signer::Vlek { csp_id: "CN=cc-us-east-2.amazonaws.com".into() };
    }),
    ("another cloud's key", CheckId::Chip, |c| {
        c.policy.snp.csps = Accept::Only(vec!["CN=cc-us-east-2.amazonaws.com".into()]);
        snp(c).signer = Signer::Vlek { csp_id: "CN=cc-us-east-1.amazonaws.com".into() };
    }),
    ("an old version", CheckId::SnpVersion, |c| report(c).version = 2),
    ("debug", CheckId::SnpPolicy, |c| report(c).policy |= policy::DEBUG),
    ("migration", CheckId::SnpPolicy, |c| report(c).policy |= policy::MIGRATE_MA),
    ("CXL", CheckId::SnpPolicy, |c| report(c).policy |= policy::CXL_ALLOW),
    ("SMT", CheckId::SnpPolicy, |c| c.policy.snp.policy.smt = Bit::Forbidden),
    ("without ciphertext hiding", CheckId::SnpPolicy, |c| c.policy.snp.policy.ciphertext_hiding_dram = Bit::Required),
    ("without the reserved bit", CheckId::SnpPolicy, |c| report(c).policy &= !policy::RESERVED_ONE),
    ("a bit of POLICY without a name", CheckId::SnpPolicy, |c| report(c).policy |= 1 << 26),
    ("a migration agent", CheckId::SnpMigrationAgent, |c| report(c).report_id_ma.0[0] ^= 1),
    ("an ID key", CheckId::SnpIdKey, |c| report(c).id_key_digest.0[47] = 1),
    ("an author key", CheckId::SnpIdKey, |c| report(c).author_key_digest.0[0] = 1),
    ("HOST_DATA", CheckId::SnpHostData, |c| report(c).host_data.0[31] = 1),
    ("VMPL 1", CheckId::SnpVmpl, |c| report(c).vmpl = 1),
    ("a report that the host asked for", CheckId::SnpVmpl, |c| report(c).vmpl = u32::MAX),
    ("memory that may have aliases", CheckId::SnpPlatformInfo, |c| {
        report(c).platform_info &= !platform_info::ALIAS_CHECK_COMPLETE;
    }),
    ("TIO", CheckId::SnpPlatformInfo, |c| report(c).platform_info |= platform_info::TIO_EN),
    ("a bit of PLATFORM_INFO without a name", CheckId::SnpPlatformInfo, |c| report(c).platform_info |= 1 << 8),
    ("old SNP firmware", CheckId::SnpTcb, |c| report(c).reported_tcb.0[6] -= 1),
    ("old microcode", CheckId::SnpTcb, |c| report(c).reported_tcb.0[7] -= 1),
    ("launched by old SNP firmware", CheckId::SnpTcb, |c| report(c).launch_tcb.0[6] -= 1),
    ("launched on old microcode", CheckId::SnpTcb, |c| report(c).launch_tcb.0[7] -= 1),
    ("an old boot loader", CheckId::SnpTcb, |c| c.policy.snp.tcb_floors[0].floor.bootloader = 11),
    ("an old TEE", CheckId::SnpTcb, |c| c.policy.snp.tcb_floors[0].floor.tee = 1),
    ("a chip without a floor", CheckId::SnpTcb, |c| report(c).cpuid = Some([0x19, 0x11, 0x03])),
    ("a chip that does not say which it is", CheckId::SnpTcb, |c| report(c).cpuid = None),
    ("reported more than committed", CheckId::SnpTcbOrder, |c| report(c).reported_tcb.0[1] += 1),
    ("committed more than current", CheckId::SnpTcbOrder, |c| report(c).committed_tcb.0[7] += 1),
    ("unmitigated at launch", CheckId::SnpMitigations, |c| report(c).launch_mitigations = Some(0b100)),
    ("unmitigated", CheckId::SnpMitigations, |c| report(c).current_mitigations = Some(0b010)),
    ("without mitigation vectors", CheckId::SnpMitigations, |c| {
        let report = report(c);
        (report.version, report.launch_mitigations, report.current_mitigations) = (3, None, None);
    }),
    ("without a revocation list", CheckId::CrlAge, |c| snp(c).crl_this_update = None),
    ("an old revocation list", CheckId::CrlAge, |c| snp(c).crl_this_update = Some(UnixTime(NOW - 400 * DAY - 1))),
    ("a development root", CheckId::Tier, |c| snp(c).roots = RootKind::Development),
];

/// On TDX, and below a paravisor on it.
const TDX: [Row; 26] = [
    ("another platform", CheckId::Chip, |c| c.policy.tdx.ppids = Accept::Only(vec![Hex([8; 16])])),
    ("another kind of platform", CheckId::Chip, |c| c.policy.tdx.fmspcs = Accept::Only(vec![Hex([0; 6])])),
    ("keys that Intel keeps", CheckId::TdPlatform, |c| {
        c.policy.tdx.platform_configuration.cached_keys = Bit::Forbidden;
        let configuration = tdx(c).configuration.as_mut().unwrap();
        (configuration.cached_keys, configuration.dynamic_platform) = (true, false);
    }),
    ("debug", CheckId::TdAttributes, |c| tdx(c).quote.td_attributes |= attributes::DEBUG),
    ("migration", CheckId::TdAttributes, |c| tdx(c).quote.td_attributes |= attributes::MIGRATABLE),
    ("performance counters", CheckId::TdAttributes, |c| tdx(c).quote.td_attributes |= attributes::PERFMON),
    ("EPT violations as #VE", CheckId::TdAttributes, |c| tdx(c).quote.td_attributes = 0),
    ("an attribute without a name", CheckId::TdAttributes, |c| tdx(c).quote.td_attributes |= 1 << 1),
    ("processor tracing", CheckId::TdXfam, |c| tdx(c).quote.xfam |= 1 << 8),
    ("without SSE", CheckId::TdXfam, |c| tdx(c).quote.xfam &= !2),
    ("another TDX module", CheckId::TdModule, |c| c.policy.tdx.mr_seam = Accept::Only(vec![])),
    ("a TDX module with attributes", CheckId::TdModule, |c| tdx(c).quote.seam_attributes = 1),
    ("MRCONFIGID", CheckId::TdConfig, |c| tdx(c).quote.mr_config_id.0[0] = 1),
    ("MROWNER", CheckId::TdConfig, |c| tdx(c).quote.mr_owner.0[0] = 1),
    ("MROWNERCONFIG", CheckId::TdConfig, |c| tdx(c).quote.mr_owner_config.0[47] = 1),
    ("a service TD", CheckId::TdServiceTd, |c| tdx(c).quote.mr_service_td = Some(Hex([1; 48]))),
    ("another service TD", CheckId::TdServiceTd, |c| {
        c.policy.tdx.service_tds = Accept::Only(vec![Hex([2; 48])]);
        tdx(c).quote.mr_service_td = Some(Hex([1; 48]));
    }),
    ("out of date", CheckId::TdTcbStatus, |c| tdx(c).tcb_status = TcbStatus::OutOfDate),
    ("to be configured", CheckId::TdTcbStatus, |c| tdx(c).tcb_status = TcbStatus::ConfigurationNeeded),
    ("to be hardened", CheckId::TdTcbStatus, |c| tdx(c).tcb_status = TcbStatus::SWHardeningNeeded),
    ("with an advisory", CheckId::TdTcbStatus, |c| tdx(c).advisory_ids = vec!["INTEL-SA-00837".into()]),
    ("with an advisory too many", CheckId::TdTcbStatus, |c| {
        c.policy.tdx.advisories = Accept::Only(vec!["INTEL-SA-00837".into()]);
        tdx(c).advisory_ids = vec!["INTEL-SA-00837".into(), "INTEL-SA-01397".into()];
    }),
    ("an old evaluation", CheckId::TcbEvaluation, |c| tdx(c).tcb_evaluation_data_number = 19),
    ("old collateral", CheckId::CollateralAge, |c| tdx(c).collateral_issued = UnixTime(NOW - 30 * DAY - 1)),
    ("a development root", CheckId::Tier, |c| tdx(c).roots = RootKind::Development),
    ("a profile of tier 1", CheckId::Tier, |c| {
        c.policy.profiles = Accept::Any;
        (reference(c).profile.name, c.binding.profile.name) = ("insecure".into(), "insecure".into());
    }),
];

/// On TDX without a paravisor, whose guest is measured by RTMRs.
const RTMR: [Row; 8] = [
    ("another firmware", CheckId::Measurement, |c| tdx(c).quote.mr_td.0[0] ^= 1),
    ("another kernel", CheckId::Measurement, |c| tdx(c).quote.rtmrs[1].0[0] ^= 1),
    ("another initrd", CheckId::Measurement, |c| tdx(c).quote.rtmrs[2].0[0] ^= 1),
    ("another configuration", CheckId::Rtmrs, |c| {
        reference(c).tdx.as_mut().unwrap().rtmr0 = Accept::Only(vec![Hex([1; 48])]);
    }),
    ("a Reference Value for any configuration", CheckId::Rtmrs, |c| {
        reference(c).tdx.as_mut().unwrap().rtmr0 = Accept::Any
    }),
    ("something measured at run time", CheckId::Rtmrs, |c| tdx(c).quote.rtmrs[3].0[0] = 1),
    ("without an event log", CheckId::EventLogPresent, |c| {
        c.policy.tdx.event_log = Demand::Required;
        tdx(c).event_log = false;
    }),
    ("a firmware that was not released", CheckId::Measurement, |c| reference(c).tdx = None),
];

/// With a TPM, also one below which there is a paravisor.
const TPM: [Row; 11] = [
    ("another image", CheckId::Measurement, |c| tpm(c).pcrs[11].0[0] ^= 1),
    ("a firmware that was not released", CheckId::Measurement, |c| reference(c).tpm = None),
    ("started otherwise", CheckId::Pcr4, |c| tpm(c).pcrs[4] = Hex([6; 32])),
    ("a driver of the host's", CheckId::Drivers, |c| tpm(c).pcrs[2] = Hex([2; 32])),
    ("a driver's configuration", CheckId::Drivers, |c| tpm(c).pcrs[3] = Hex([3; 32])),
    ("another command line", CheckId::Pcr9, |c| tpm(c).pcrs[9].0[0] ^= 1),
    ("credentials", CheckId::Pcr12, |c| tpm(c).pcrs[12].0[0] = 1),
    ("extensions", CheckId::Pcr13, |c| tpm(c).pcrs[13].0[31] = 1),
    ("an AK of nobody", CheckId::Ak, |c| tpm(c).ak = AkEndorsement::Nobody),
    ("without an event log", CheckId::EventLogPresent, |c| {
        c.policy.event_log = Demand::Required;
        tpm(c).event_log = false;
    }),
    ("tier 2", CheckId::Tier, |c| {
        c.policy.minimum_tier = 2;
        (reference(c).profile.name, c.binding.profile.name) = ("insecure".into(), "insecure".into());
        c.policy.profiles = Accept::Any;
    }),
];

const AZURE: [Row; 2] = [
    ("another paravisor", CheckId::Paravisor, |c| c.policy.azure.paravisors = Accept::Only(vec![Hex([1; 48])])),
    ("a bare guest wanted", CheckId::Platform, |c| c.policy.platforms = Accept::Only(vec![PlatformName::Snp])),
];

const LAUNCH: [Row; 2] = [
    ("another launch digest", CheckId::Measurement, |c| report(c).measurement.0[0] ^= 1),
    ("a firmware that was not released", CheckId::Measurement, |c| reference(c).snp.clear()),
];

/// A platform, good evidence of it, and what may be wrong with it.
pub(super) type Platform = (&'static str, fn() -> Case, Vec<&'static [Row]>);

pub(super) fn platforms() -> [Platform; 5] {
    [
        ("snp", Case::snp, vec![&ANY, &SNP, &LAUNCH]),
        ("tdx", Case::tdx, vec![&ANY, &TDX, &RTMR]),
        ("azure on snp", Case::azure_snp, vec![&ANY, &SNP, &TPM, &AZURE]),
        ("azure on tdx", Case::azure_tdx, vec![&ANY, &TDX, &TPM, &AZURE]),
        ("tpm", Case::tpm, vec![&ANY, &TPM]),
    ]
}

#[test]
fn each_check_refuses_what_it_is_for() {
    let mut refused = BTreeSet::new();
    for (platform, good, rows) in platforms() {
        good().verdict().unwrap_or_else(|error| panic!("{platform}: {error}"));
        for (name, check, change) in rows.into_iter().flatten() {
            let mut case = good();
            change(&mut case);
            let refusal = case.refusal();
            assert_eq!(refusal.failed.id, *check, "{platform}, {name}: {refusal}");
            assert_eq!(refusal.code, check.names().1);
            assert_ne!(
                refusal.failed.expected, refusal.failed.got,
                "{platform}, {name}: a refusal shows the difference"
            );
            refused.insert(check.names().0);
        }
    }
    let wanted = CheckId::ALL.into_iter().filter(|check| check.stage() == Stage::Wanted);
    assert_eq!(refused, wanted.map(|check| check.names().0).collect(), "each check is tried");
}

/// The order in which checks stand in the README is the one in which they are made.
#[test]
fn checks_are_made_in_order() {
    for (platform, good, _) in platforms() {
        let result = good().verdict().unwrap();
        let order: Vec<_> = result.checks.iter().map(|check| check.id as u8).collect();
        assert!(order.is_sorted_by(|a, b| a < b), "{platform}: {:?}", result.checks);
        assert!(result.checks.iter().all(|check| check.ok && !check.expected.is_empty() && !check.got.is_empty()));
    }
}

#[test]
fn what_a_result_says() {
    let maker_and = |party: Option<Party>| [Some(Party::ChipMaker), party].into_iter().flatten().collect::<Vec<_>>();
    let launch = format!("snp:{}", Hex([0x11; 48]));
    let td = format!("tdx:{}", blf_evidence::tdx::measurement(MRTD, RTMRS[1], RTMRS[2]));
    let pcr = format!("tpm-pcr11:{}", Hex([11; 32]));
    for (case, id, image, tcb) in [
        (Case::snp(), launch, ImageIdentity::LaunchDigest, maker_and(None)),
        (Case::tdx(), td, ImageIdentity::Rtmr, maker_and(None)),
        (Case::azure_snp(), pcr.clone(), ImageIdentity::Pcr, maker_and(Some(Party::Cloud))),
        (Case::azure_tdx(), pcr, ImageIdentity::Pcr, maker_and(Some(Party::Cloud))),
    ] {
        let result = case.verdict().unwrap();
        assert_eq!((result.tier, result.measurement_id), (2, id));
        assert_eq!((result.trust.memory, result.trust.roots), (Memory::HardwareIsolated, Roots::Production));
        assert_eq!((result.trust.image, result.trust.tcb), (image, tcb));
        assert_eq!((result.image_id, result.version, result.locked_release), ("blf".into(), "1.0.0".into(), true));
        assert_eq!(result.binding, case.binding);
    }
    let result = Case::tpm().verdict().unwrap();
    assert_eq!((result.tier, result.trust.memory), (1, Memory::ReadableByOperator));
    assert_eq!(result.trust.tcb, [Party::Operator, Party::TpmMaker]);

    let mut vlek = Case::snp();
    vlek.policy.snp.csps = Accept::Any;
    snp(&mut vlek).signer = Signer::Vlek { csp_id: "a cloud".into() };
    let result = vlek.verdict().unwrap();
    assert_eq!(result.trust.tcb, maker_and(Some(Party::Cloud)));
    let PlatformClaims::Snp(claims) = &result.claims else { panic!("{:?}", result.claims) };
    assert_eq!((claims.csp.as_deref(), claims.tcb.reported.snp, claims.family), (Some("a cloud"), 28, Family::Genoa));
    let json = serde_json::to_value(&result).unwrap();
    assert_eq!(json["claims"]["snp"]["policy"], "0000000000030000");
    assert_eq!(json["claims"]["snp"]["tcb"]["launch"]["microcode"], 0x56);
    let json = serde_json::to_value(Case::azure_tdx().verdict().unwrap()).unwrap();
    assert_eq!(json["claims"]["azure"]["hardware"]["tdx"]["tcb_status"], "UpToDate");
    assert_eq!(json["claims"]["azure"]["tpm"]["ak_endorsed_by"], "paravisor");
}

/// A result ends with the first thing that it rests on.
#[test]
fn expiry() {
    let end = |change: fn(&mut Case)| {
        [Case::snp(), Case::tdx(), Case::azure_snp(), Case::azure_tdx()].map(|mut case| {
            case.binding.not_after = UnixTime(NOW + 80_000);
            change(&mut case);
            case.verdict().unwrap().expires_at.0 - NOW
        })
    };
    assert_eq!(end(|_| ()), [80_000; 4]);
    assert_eq!(end(|case| reference(case).valid_until = Some(UnixTime(NOW + 7))), [7; 4]);
    assert_eq!(end(|case| reference(case).valid_until = None), [80_000; 4]);
    let chain = |case: &mut Case| {
        let valid_until = match &mut case.platform {
            Claims::Azure(azure) => match &mut azure.hardware {
                Hardware::Snp(snp) => &mut snp.valid_until,
                Hardware::Tdx(tdx) => &mut tdx.valid_until,
            },
            Claims::Snp(snp) => &mut snp.valid_until,
            Claims::Tdx(tdx) => &mut tdx.valid_until,
            Claims::Tpm(_) => unreachable!(),
        };
        *valid_until = UnixTime(NOW + 6);
    };
    assert_eq!(end(chain), [6; 4]);
    let mut certified = Case::tpm();
    let AkEndorsement::Certified { valid_until, .. } = &mut tpm(&mut certified).ak else { unreachable!() };
    *valid_until = UnixTime(NOW + 5);
    assert_eq!(certified.verdict().unwrap().expires_at.0, NOW + 5);
    let limits = |case: &mut Case| {
        case.policy.snp.crl_age_s = Limit::AtMost(DAY + 11);
        case.policy.tdx.collateral_age_s = Limit::AtMost(DAY + 12);
    };
    assert_eq!(end(limits), [12, 13, 12, 13]);
    let mut case = Case::snp();
    limits(&mut case);
    let end = case.verdict().unwrap().expires_at.0;
    case.now = end - 1;
    assert!(case.verdict().is_ok(), "the last moment");
    case.now = end;
    assert_eq!(case.refusal().failed.id, CheckId::CrlAge);
}

/// The tier is no higher than what the policy grants the family.
#[test]
fn a_family_limits_the_tier() {
    let mut milan = Case::snp();
    snp(&mut milan).family = Family::Milan;
    let report = report(&mut milan);
    report.cpuid = Some([0x19, 0x01, 0x01]);
    (report.launch_mitigations, report.current_mitigations) = (Some(0b1_0110), Some(0b1_0110));
    for tcb in [&mut report.current_tcb, &mut report.committed_tcb, &mut report.reported_tcb, &mut report.launch_tcb] {
        *tcb = Tcb([4, 0, 0, 0, 0, 0, 0x1d, 0xde]);
    }
    assert_eq!(milan.refusal().code, "CHIP_FAMILY_REFUSED");
    milan.policy.minimum_tier = 0;
    assert_eq!(milan.verdict().unwrap().tier, 0);
    milan.policy.snp.families.tier_1 = Accept::Any;
    assert_eq!(milan.verdict().unwrap().tier, 1);
    milan.policy.snp.families.tier_2 = Accept::Only(vec![Family::Milan]);
    milan.policy.minimum_tier = 2;
    assert_eq!(milan.verdict().unwrap().tier, 2);
}

/// Compared as one number, or in the order of another family, these would pass.
#[test]
fn tcbs_are_compared_component_by_component() {
    let mut turin = Case::snp();
    snp(&mut turin).family = Family::Turin;
    report(&mut turin).cpuid = Some([0x1a, 0x02, 0x01]);
    let with = |tcb: [u8; 8]| {
        let mut case = turin.clone();
        let report = report(&mut case);
        for own in
            [&mut report.current_tcb, &mut report.committed_tcb, &mut report.reported_tcb, &mut report.launch_tcb]
        {
            *own = Tcb(tcb);
        }
        case
    };
    let floor = [1, 3, 2, 5, 0, 0, 0, 0x5a];
    with(floor).verdict().unwrap();
    for (name, tcb) in [
        ("newer microcode for older SNP firmware", [1, 3, 2, 4, 0, 0, 0, 0xff]),
        ("newer SNP firmware for an older TEE", [1, 3, 1, 0xff, 0, 0, 0, 0xff]),
        ("newer everything for an older FMC", [0, 0xff, 0xff, 0xff, 0, 0, 0, 0xff]),
        ("in the order of Genoa", [3, 2, 0, 0, 0, 0, 5, 0x5a]),
    ] {
        let case = with(tcb);
        assert!(u64::from_le_bytes(tcb) > u64::from_le_bytes(floor), "{name}: no trap");
        assert_eq!(case.refusal().failed.id, CheckId::SnpTcb, "{name}");
    }
}

/// K13: what a report claims of its TCB counts for nothing where the certificate does not say the same; here, that no
/// component may be claimed above what was committed.
#[test]
fn no_component_may_run_ahead() {
    for index in [0, 1, 6, 7] {
        let mut case = Case::snp();
        report(&mut case).reported_tcb.0[index] += 1;
        assert_eq!(case.refusal().code, "TCB_INCONSISTENT", "{index}");
        report(&mut case).committed_tcb.0[index] += 1;
        assert_eq!(case.refusal().code, "TCB_INCONSISTENT", "{index}");
        report(&mut case).current_tcb.0[index] += 1;
        case.verdict().unwrap();
    }
}

/// K5: of all combinations of the ten bits that POLICY has, exactly those pass in which each bit is as it must be.
#[test]
fn every_combination_of_policy_bits() {
    let bits = [
        ("smt", policy::SMT),
        ("reserved", policy::RESERVED_ONE),
        ("migrate_ma", policy::MIGRATE_MA),
        ("debug", policy::DEBUG),
        ("single_socket", policy::SINGLE_SOCKET),
        ("cxl_allow", policy::CXL_ALLOW),
        ("mem_aes_256_xts", policy::MEM_AES_256_XTS),
        ("rapl_dis", policy::RAPL_DIS),
        ("ciphertext_hiding_dram", policy::CIPHERTEXT_HIDING_DRAM),
        ("page_swap_disable", policy::PAGE_SWAP_DISABLE),
    ];
    let written: serde_json::Value = serde_json::from_str(crate::Policy::CONFIDENTIAL).unwrap();
    let mut passed = 0;
    for combination in 0..1 << bits.len() {
        let set = |index: usize| combination >> index & 1 == 1;
        let word = (0..bits.len()).filter(|index| set(*index)).fold(0x1f, |word, index| word | bits[index].1);
        let mut case = Case::snp();
        report(&mut case).policy = word;
        let ok =
            bits.iter().enumerate().all(|(index, (name, _))| match (*name, written["snp"]["policy"][*name].as_str()) {
                ("reserved", _) | (_, Some("required")) => set(index),
                (_, Some("forbidden")) => !set(index),
                (_, word) => word == Some("allowed"),
            });
        match case.verdict() {
            Ok(_) => assert!(ok, "{word:#x}"),
            Err(error) => assert!(!ok && error.to_string().starts_with("SNP_POLICY"), "{word:#x}: {error}"),
        }
        passed += u32::from(ok);
    }
    assert_eq!(passed, 1 << 6, "debug, migration and CXL are forbidden, one bit is fixed, six are free");
    for index in 16..64 {
        let mut case = Case::snp();
        report(&mut case).policy = 0x3_0000 ^ 1 << index;
        let free = [16, 20, 22, 23, 24, 25].contains(&index);
        assert_eq!(case.verdict().is_ok(), free, "bit {index}");
    }
}
