//! Making a policy or the Reference Values stricter never turns a refusal into an acceptance, nor gives a higher tier or a
//! later end. What "stricter" means for each member is written here, as the steps that make it so.

use blf_evidence::snp::Family;
use blf_evidence::{Hex, UnixTime};
use proptest::prelude::*;

use super::refusals::platforms;
use super::{Case, DAY, MRTD, NOW, PARAVISOR, RTMRS, reference};
use crate::policy::{
    Accept, Bit, Demand, GuestPolicy, Limit, PlatformConfiguration, PlatformInfo, PlatformName, Policy, TcbFloor,
    TdAttributes,
};
use crate::tdx::TcbStatus;

/// Choices, read from bytes that the property's framework makes up and makes smaller.
struct Dice(std::vec::IntoIter<u8>);

impl Dice {
    /// One of `count` choices.
    fn roll(&mut self, count: usize) -> usize {
        self.0.next().map_or(0, |byte| usize::from(byte) % count.max(1))
    }
}

/// A member, and one step towards stricter.
type Step = (&'static str, fn(&mut Case, &mut Dice));

const STEPS: [Step; 46] = [
    ("ak_endorsement", |c, _| c.policy.ak_endorsement = Demand::Required),
    ("anchor", |c, _| c.policy.anchor = Demand::Required),
    ("anchor_age_blocks", |c, d| shorten(&mut c.policy.anchor_age_blocks, 200, d)),
    ("azure.paravisors", |c, d| narrow(&mut c.policy.azure.paravisors, &[PARAVISOR, Hex([1; 48])], d)),
    ("event_log", |c, _| c.policy.event_log = Demand::Required),
    ("locked_release", |c, _| c.policy.locked_release = Demand::Required),
    ("max_validity_s", |c, d| c.policy.max_validity_s = [DAY, 3600, 3599, 0][d.roll(4)].min(c.policy.max_validity_s)),
    ("minimum_tier", |c, d| c.policy.minimum_tier = c.policy.minimum_tier.max([1, 2][d.roll(2)])),
    ("models", |c, d| {
        let held = c.binding.models.clone();
        narrow(&mut c.policy.models, &held, d);
    }),
    ("numeric_profiles", |c, d| {
        let used = [c.binding.numeric_profile.clone(), "other".into()];
        narrow(&mut c.policy.numeric_profiles, &used, d);
    }),
    ("platforms", |c, d| {
        let all = [PlatformName::Azure, PlatformName::Snp, PlatformName::Tdx, PlatformName::Tpm];
        narrow(&mut c.policy.platforms, &all, d);
    }),
    ("profiles", |c, d| {
        let all = ["devnet", "insecure", "production"].map(String::from);
        narrow(&mut c.policy.profiles, &all, d);
    }),
    ("snp.author_key_digests", |c, d| narrow(&mut c.policy.snp.author_key_digests, &[Hex([0; 48]), Hex([1; 48])], d)),
    ("snp.chip_ids", |c, d| {
        let own = match &c.platform {
            crate::Claims::Snp(snp) => snp.report.chip_id,
            _ => Hex([2; 64]),
        };
        narrow(&mut c.policy.snp.chip_ids, &[own, Hex([1; 64])], d);
    }),
    ("snp.crl_age_s", |c, d| shorten(&mut c.policy.snp.crl_age_s, 2 * DAY, d)),
    ("snp.csps", |c, d| {
        let all = ["CN=cc-us-east-1.amazonaws.com", "CN=cc-us-east-2.amazonaws.com"].map(String::from);
        narrow(&mut c.policy.snp.csps, &all, d);
    }),
    ("snp.families.tier_0", |c, d| narrow(&mut c.policy.snp.families.tier_0, &Family::ALL, d)),
    ("snp.families.tier_1", |c, d| narrow(&mut c.policy.snp.families.tier_1, &Family::ALL, d)),
    ("snp.families.tier_2", |c, d| narrow(&mut c.policy.snp.families.tier_2, &Family::ALL, d)),
    ("snp.host_data", |c, d| narrow(&mut c.policy.snp.host_data, &[Hex([0; 32]), Hex([1; 32])], d)),
    ("snp.id_key_digests", |c, d| narrow(&mut c.policy.snp.id_key_digests, &[Hex([0; 48]), Hex([1; 48])], d)),
    ("snp.migration_agent", |c, d| decide(&mut c.policy.snp.migration_agent, d)),
    ("snp.minimum_report_version", |c, d| {
        let version = &mut c.policy.snp.minimum_report_version;
        *version = [2, 3, 5, 6][d.roll(4)].max(*version);
    }),
    ("snp.platform_info", |c, d| {
        let bits = &mut c.policy.snp.platform_info;
        let PlatformInfo { alias_check_complete, ciphertext_hiding_dram_en, ecc_en, .. } = bits;
        let all = [alias_check_complete, ciphertext_hiding_dram_en, ecc_en];
        decide(all.into_iter().nth(d.roll(3)).unwrap(), d);
        let PlatformInfo { iommu_write_safe, rapl_dis, smt_en, tio_en, tsme_en, .. } = bits;
        let all = [iommu_write_safe, rapl_dis, smt_en, tio_en, tsme_en];
        decide(all.into_iter().nth(d.roll(5)).unwrap(), d);
    }),
    ("snp.policy", |c, d| {
        let bits = &mut c.policy.snp.policy;
        let GuestPolicy { ciphertext_hiding_dram, cxl_allow, debug, mem_aes_256_xts, migrate_ma, .. } = bits;
        let all = [ciphertext_hiding_dram, cxl_allow, debug, mem_aes_256_xts, migrate_ma];
        decide(all.into_iter().nth(d.roll(5)).unwrap(), d);
        let GuestPolicy { page_swap_disable, rapl_dis, single_socket, smt, .. } = bits;
        decide([page_swap_disable, rapl_dis, single_socket, smt].into_iter().nth(d.roll(4)).unwrap(), d);
    }),
    ("snp.tcb_floors: one less", |c, d| {
        let floors = &mut c.policy.snp.tcb_floors;
        if !floors.is_empty() {
            floors.remove(d.roll(floors.len()));
        }
    }),
    ("snp.tcb_floors: cpuid", |c, d| {
        if let Some(floor) = a_floor(c, d) {
            narrow(&mut floor.cpuid, &[Hex([0x19, 0x11, 0x01]), Hex([0x19, 0x01, 0x01]), Hex([0x1a, 0x02, 0x01])], d);
        }
    }),
    ("snp.tcb_floors: floor", |c, d| {
        if let Some(TcbFloor { floor, .. }) = a_floor(c, d) {
            let all = [&mut floor.bootloader, &mut floor.tee, &mut floor.snp, &mut floor.microcode];
            let component = all.into_iter().nth(d.roll(4)).unwrap();
            *component = component.saturating_add([1, 10, 28, 86][d.roll(4)]);
            floor.fmc = floor.fmc.map(|fmc| fmc.saturating_add(u8::from(d.roll(2) == 1)));
        }
    }),
    ("snp.tcb_floors: mitigations", |c, d| {
        if let Some(floor) = a_floor(c, d) {
            let bits = [&mut floor.launch_mitigations, &mut floor.current_mitigations];
            bits.into_iter().nth(d.roll(2)).unwrap().push([1, 2, 3][d.roll(3)]);
        }
    }),
    ("snp.vmpls", |c, d| narrow(&mut c.policy.snp.vmpls, &[0, 1, 2], d)),
    ("tdx.advisories", |c, d| {
        let all = ["INTEL-SA-00837", "INTEL-SA-01397"].map(String::from);
        narrow(&mut c.policy.tdx.advisories, &all, d);
    }),
    ("tdx.collateral_age_s", |c, d| shorten(&mut c.policy.tdx.collateral_age_s, 2 * DAY, d)),
    ("tdx.event_log", |c, _| c.policy.tdx.event_log = Demand::Required),
    ("tdx.fmspcs", |c, d| narrow(&mut c.policy.tdx.fmspcs, &[Hex([0x90, 0xc0, 0x6f, 0, 0, 0]), Hex([0; 6])], d)),
    ("tdx.minimum_tcb_evaluation_data_number", |c, d| {
        let number = &mut c.policy.tdx.minimum_tcb_evaluation_data_number;
        *number = [18, 20, 21][d.roll(3)].max(*number);
    }),
    ("tdx.mr_config_id, mr_owner, mr_owner_config, mr_seam", |c, d| {
        let tdx = &mut c.policy.tdx;
        let all = [&mut tdx.mr_config_id, &mut tdx.mr_owner, &mut tdx.mr_owner_config, &mut tdx.mr_seam];
        narrow(all.into_iter().nth(d.roll(4)).unwrap(), &[Hex([0; 48]), Hex([0x5e; 48])], d);
    }),
    ("tdx.platform_configuration", |c, d| {
        let PlatformConfiguration { cached_keys, dynamic_platform, smt_enabled } =
            &mut c.policy.tdx.platform_configuration;
        decide([cached_keys, dynamic_platform, smt_enabled].into_iter().nth(d.roll(3)).unwrap(), d);
    }),
    ("tdx.ppids", |c, d| narrow(&mut c.policy.tdx.ppids, &[Hex([7; 16]), Hex([8; 16])], d)),
    ("tdx.rtmr0", |c, _| c.policy.tdx.rtmr0 = Demand::Required),
    ("tdx.seam_attributes", |c, d| narrow(&mut c.policy.tdx.seam_attributes, &[Hex([0; 8])], d)),
    ("tdx.service_tds", |c, d| narrow(&mut c.policy.tdx.service_tds, &[Hex([1; 48]), Hex([2; 48])], d)),
    ("tdx.tcb_statuses", |c, d| {
        let all = [TcbStatus::UpToDate, TcbStatus::SWHardeningNeeded, TcbStatus::ConfigurationNeeded];
        narrow(&mut c.policy.tdx.tcb_statuses, &all, d);
    }),
    ("tdx.td_attributes", |c, d| {
        let TdAttributes { debug, kl, migratable, perfmon, pks, sept_ve_disable } = &mut c.policy.tdx.td_attributes;
        let all = [debug, kl, migratable, perfmon, pks, sept_ve_disable];
        decide(all.into_iter().nth(d.roll(6)).unwrap(), d);
    }),
    ("tdx.xfam", |c, d| {
        let bit = 1 << [0, 1, 8, 9, 17, 62][d.roll(6)];
        let xfam = &mut c.policy.tdx.xfam;
        let (mask, keep) = if d.roll(2) == 0 { (&mut xfam.allowed, true) } else { (&mut xfam.required, false) };
        let bits = u64::from_be_bytes(mask.0);
        *mask = Hex(if keep { bits & !bit } else { bits | bit }.to_be_bytes());
    }),
    ("a Reference Value's time", |c, d| {
        let reference = reference(c);
        match d.roll(3) {
            0 => reference.retired = Some("found wanting".into()),
            1 => reference.valid_from = UnixTime(NOW + 1).max(reference.valid_from),
            _ => {
                let until = [NOW + 3599, NOW + 1, NOW][d.roll(3)];
                let earlier = |own: UnixTime| UnixTime(own.0.min(until));
                reference.valid_until = Some(reference.valid_until.map_or(UnixTime(until), earlier));
            }
        }
    }),
    ("a Reference Value's measurements", |c, d| {
        let reference = reference(c);
        match d.roll(6) {
            0 => drop(reference.snp.pop()),
            1 => reference.tdx = None,
            2 => reference.tpm = None,
            3 => reference.tdx.iter_mut().for_each(|tdx| tdx.mrtd.retain(|mrtd| *mrtd == MRTD)),
            4 => reference.tdx.iter_mut().for_each(|tdx| narrow(&mut tdx.rtmr0, &[RTMRS[0], RTMRS[1]], d)),
            _ => reference.tpm.iter_mut().for_each(|tpm| tpm.pcr4.truncate(1)),
        }
    }),
];

fn narrow<T: Clone>(accept: &mut Accept<T>, all: &[T], dice: &mut Dice) {
    match accept {
        Accept::Any => *accept = Accept::Only(all.to_vec()),
        Accept::Only(values) if values.is_empty() => (),
        Accept::Only(values) => drop(values.remove(dice.roll(values.len()))),
    }
}

fn shorten(limit: &mut Limit, most: u64, dice: &mut Dice) {
    *limit = match *limit {
        Limit::Any => Limit::AtMost(most),
        Limit::AtMost(most) => Limit::AtMost([most / 2, most.saturating_sub(1), 0][dice.roll(3)]),
    };
}

fn decide(bit: &mut Bit, dice: &mut Dice) {
    if *bit == Bit::Allowed {
        *bit = [Bit::Forbidden, Bit::Required][dice.roll(2)];
    }
}

fn a_floor<'a>(case: &'a mut Case, dice: &mut Dice) -> Option<&'a mut TcbFloor> {
    let count = case.policy.snp.tcb_floors.len();
    case.policy.snp.tcb_floors.get_mut(dice.roll(count))
}

/// Nothing is refused that a policy could accept.
fn loosest() -> Policy {
    let text = Policy::DEVNET.replace(": \"forbidden\"", ": \"allowed\"").replace(": \"required\"", ": \"any\"");
    let mut policy = Policy::parse(text.as_bytes()).unwrap();
    policy.max_validity_s = u64::MAX;
    policy.profiles = Accept::Any;
    policy.snp.minimum_report_version = 0;
    let families = &mut policy.snp.families;
    (families.tier_0, families.tier_1, families.tier_2) = (Accept::Any, Accept::Any, Accept::Any);
    policy.snp.vmpls = Accept::Any;
    policy.tdx.seam_attributes = Accept::Any;
    policy.tdx.service_tds = Accept::Any;
    policy.tdx.xfam.required = Hex([0; 8]);
    policy
}

/// Evidence of some platform, good or spoilt in one way, and a policy that is stricter than the loosest by some steps.
fn some_case(dice: &mut Dice) -> Case {
    let (_, good, rows) = platforms().into_iter().nth(dice.roll(5)).unwrap();
    let mut case = good();
    case.policy = loosest();
    if dice.roll(3) > 0 {
        let rows: Vec<_> = rows.into_iter().flatten().collect();
        let (.., change) = rows[dice.roll(rows.len())];
        change(&mut case);
    }
    if case.references.references.is_empty() {
        case.references = good().references;
    }
    for _ in 0..dice.roll(8) {
        let (_, step) = STEPS[dice.roll(STEPS.len())];
        step(&mut case, dice);
    }
    case
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn stricter_never_accepts_more(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
        let mut dice = Dice(bytes.into_iter());
        let case = some_case(&mut dice);
        let (member, step) = STEPS[dice.roll(STEPS.len())];
        let mut stricter = case.clone();
        step(&mut stricter, &mut dice);
        if let Ok(result) = stricter.verdict() {
            let looser = case.verdict();
            prop_assert!(looser.is_ok(), "{member}: {looser:?}");
            let looser = looser.unwrap();
            prop_assert!(result.tier <= looser.tier && result.expires_at <= looser.expires_at, "{member}");
        }
    }
}

/// Every case, good or spoilt in one way, that the loosest policies accept.
fn accepted_by_the_loosest() -> Vec<Case> {
    let mut one_tier_less = loosest();
    one_tier_less.snp.families.tier_2 = Accept::Only(vec![]);
    let mut two_tiers_less = one_tier_less.clone();
    two_tiers_less.snp.families.tier_1 = Accept::Only(vec![]);
    let mut cases = Vec::new();
    for (_, good, rows) in platforms() {
        for policy in [&loosest(), &one_tier_less, &two_tiers_less] {
            cases.push(Case { policy: policy.clone(), ..good() });
        }
        for (.., change) in rows.into_iter().flatten() {
            let mut case = good();
            change(&mut case);
            cases.push(Case { policy: loosest(), ..case });
        }
    }
    cases.retain(|case| case.verdict().is_ok());
    cases
}

/// Every member has a step, and each step makes a difference: some case is refused after some of them, or of a lower tier.
#[test]
fn each_step_makes_a_difference() {
    let cases = accepted_by_the_loosest();
    assert!(cases.len() > 50, "{}", cases.len());
    for (member, step) in STEPS {
        let differs = |case: &Case| {
            let tier = case.verdict().unwrap().tier;
            (0..8).any(|choice| {
                let mut case = case.clone();
                (0..4).for_each(|more| step(&mut case, &mut Dice(vec![choice, choice / 2 + more, more].into_iter())));
                case.verdict().map_or(true, |result| result.tier < tier)
            })
        };
        assert!(cases.iter().any(differs), "{member}");
    }
    let policy = serde_json::to_value(loosest()).unwrap();
    let names = policy.as_object().unwrap().iter().flat_map(|(name, value)| match value.as_object() {
        Some(inner) if ["azure", "snp", "tdx"].contains(&name.as_str()) => {
            inner.keys().map(|inner| format!("{name}.{inner}")).collect()
        }
        _ => vec![name.clone()],
    });
    for name in names.filter(|name| name != "schema") {
        let short = name.trim_start_matches("tdx.");
        let has_step = |(member, _): &Step| member.starts_with(&name) || member.contains(&format!(" {short}"));
        assert!(STEPS.iter().any(has_step), "{name}: no step");
    }
}
