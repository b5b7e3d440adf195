//! What is wanted of an SEV-SNP platform and of the guest that runs on it.

use blf_evidence::snp::{Family, Report, Tcb, TcbComponents, platform_info, policy};
use blf_evidence::{Hex, UnixTime};
use serde::{Deserialize, Serialize};

use super::words::{Accept, Bit, Bits, Limit};
use crate::check::{CheckId, Checks, Rejected};
use crate::snp::{Claims, Signer};

/// What is wanted of SEV-SNP.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SnpPolicy {
    /// AUTHOR_KEY_DIGEST; zero without an author key.
    pub author_key_digests: Accept<Hex<48>>,
    /// CHIP_ID of chips, for reports that a VCEK signed.
    pub chip_ids: Accept<Hex<64>>,
    /// Age of the revocation list, in seconds.
    pub crl_age_s: Limit,
    /// CSP_ID of clouds, for reports that a VLEK signed.
    pub csps: Accept<String>,
    /// Which families will do for which tier.
    pub families: Families,
    /// HOST_DATA; zero when the launcher gave none.
    pub host_data: Accept<Hex<32>>,
    /// ID_KEY_DIGEST; zero without an ID block.
    pub id_key_digests: Accept<Hex<48>>,
    /// Whether a migration agent may be bound: REPORT_ID_MA is all ones without one.
    pub migration_agent: Bit,
    /// Lowest VERSION of the report: 3 brought the CPUID, 5 the mitigation vectors.
    pub minimum_report_version: u32,
    /// PLATFORM_INFO.
    pub platform_info: PlatformInfo,
    /// POLICY. Its bits 0 to 15, the lowest firmware that may launch the guest, say nothing of what runs.
    pub policy: GuestPolicy,
    /// The lowest firmware and microcode, for each kind of chip. A chip that is not listed is refused.
    pub tcb_floors: Vec<TcbFloor>,
    /// The VMPL that may ask for the report.
    pub vmpls: Accept<u32>,
}

/// Families that will do for each tier. The tier of a result is no higher than the highest one that its family is in.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Families {
    /// For tier 0.
    pub tier_0: Accept<Family>,
    /// For tier 1.
    pub tier_1: Accept<Family>,
    /// For tier 2.
    pub tier_2: Accept<Family>,
}

/// The bits of PLATFORM_INFO, by their names in the SEV-SNP ABI.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each is the constant of its name in `blf_evidence::snp::platform_info`
pub struct PlatformInfo {
    pub alias_check_complete: Bit,
    pub ciphertext_hiding_dram_en: Bit,
    pub ecc_en: Bit,
    pub iommu_write_safe: Bit,
    pub rapl_dis: Bit,
    pub smt_en: Bit,
    pub tio_en: Bit,
    pub tsme_en: Bit,
}

/// The bits of POLICY, by their names in the SEV-SNP ABI.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each is the constant of its name in `blf_evidence::snp::policy`
pub struct GuestPolicy {
    pub ciphertext_hiding_dram: Bit,
    pub cxl_allow: Bit,
    pub debug: Bit,
    pub mem_aes_256_xts: Bit,
    pub migrate_ma: Bit,
    pub page_swap_disable: Bit,
    pub rapl_dis: Bit,
    pub single_socket: Bit,
    pub smt: Bit,
}

/// The lowest TCB of one kind of chip, compared component by component.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TcbFloor {
    /// Why the floor is where it is.
    pub advisories: Vec<Advisory>,
    /// CPUID family, model and stepping, as the report has them: microcode is numbered for each stepping by itself.
    pub cpuid: Accept<Hex<3>>,
    /// Bits that CURRENT_MIT_VECTOR must have, by number.
    pub current_mitigations: Vec<u8>,
    /// The family of the chip.
    pub family: Family,
    /// For REPORTED_TCB and LAUNCH_TCB.
    pub floor: TcbComponents,
    /// Bits that LAUNCH_MIT_VECTOR must have, by number.
    pub launch_mitigations: Vec<u8>,
}

/// Who says that older firmware will not do.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Advisory {
    /// Its name, e.g. `AMD-SB-3020`.
    pub id: String,
    /// The members that it sets.
    pub raises: Vec<Component>,
    /// Where it says so.
    pub source: String,
}

/// A member of [`TcbFloor`] that an advisory sets.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Component {
    Bootloader,
    Fmc,
    Microcode,
    Mitigations,
    Snp,
    Tee,
}

impl SnpPolicy {
    /// What the types do not say: Turin alone has an FMC, mitigations are bits of 64, no chip has two floors.
    pub(super) fn check_form(&self) -> Result<(), String> {
        if self.chip_ids != Accept::Any && self.csps == Accept::Any {
            return Err("snp: csps: wanted a list beside that of chip_ids: a cloud's key may sign for any chip".into());
        }
        for (index, floor) in self.tcb_floors.iter().enumerate() {
            let at = |member: &str| format!("snp: tcb_floors: {index}: {member}");
            let turin = floor.family == Family::Turin;
            if floor.floor.fmc.is_some() != turin {
                return Err(at(if turin { "fmc: wanted a number" } else { "fmc: wanted null" }));
            }
            let mut bits = floor.current_mitigations.iter().chain(&floor.launch_mitigations);
            if let Some(bit) = bits.find(|bit| **bit > 63) {
                return Err(at(&format!("mitigations: wanted bits 0 to 63, got {bit}")));
            }
            if self.tcb_floors[..index].iter().any(|other| other.overlaps(floor)) {
                return Err(at("wanted one floor for each cpuid, got another one before"));
            }
        }
        Ok(())
    }

    /// Compares a report with the policy. Returns the highest tier for which its family will do.
    pub(super) fn check(
        &self,
        claims: &Claims,
        minimum_tier: u8,
        now: UnixTime,
        checks: &mut Checks,
    ) -> Result<u8, Box<Rejected>> {
        let Claims { report, family, signer, crl_this_update, .. } = claims;
        let tier = self.families.tier(*family);
        let wanted = format!("one of tier {minimum_tier} or above: {}", self.families.wording(minimum_tier));
        let got = tier.map_or_else(|| format!("{family}, of no tier"), |tier| format!("{family}, up to tier {tier}"));
        let enough = tier.filter(|tier| *tier >= minimum_tier);
        checks.require(CheckId::ChipFamily, wanted, got, enough.is_some())?;
        let tier = enough.unwrap_or_default();
        self.check_chip(report, signer, checks)?;
        let version = report.version;
        let wanted = format!("at least {}", self.minimum_report_version);
        checks.require(CheckId::SnpVersion, wanted, version, version >= self.minimum_report_version)?;
        self.check_guest(report, checks)?;
        let bits = self.platform_info.bits();
        let info = report.platform_info;
        checks.require(CheckId::SnpPlatformInfo, bits.wording(), bits.spelled(info), bits.admit(info))?;
        self.check_tcb(report, *family, checks)?;
        let updated = crl_this_update.map(|UnixTime(time)| time);
        let got = updated.map_or_else(|| "none".into(), |time| format!("{} s old", now.0.saturating_sub(time)));
        checks.require(CheckId::CrlAge, self.crl_age_s.wording("s"), got, self.crl_age_s.admits(updated, now.0))?;
        Ok(tier)
    }

    /// When the revocation list gets too old.
    pub(super) fn expiry(&self, claims: &Claims) -> Option<UnixTime> {
        self.crl_age_s.end(claims.crl_this_update.map(|UnixTime(time)| time)).map(UnixTime)
    }

    fn check_chip(&self, report: &Report, signer: &Signer, checks: &mut Checks) -> Result<(), Box<Rejected>> {
        match signer {
            Signer::Vcek => {
                let ok = self.chip_ids.accepts(&report.chip_id);
                checks.require(CheckId::Chip, self.chip_ids.list(), report.chip_id, ok)
            }
            Signer::Vlek { csp_id } => checks.require(
                CheckId::Chip,
                format!("a cloud: {}", self.csps.list()),
                format!("a cloud: {csp_id}"),
                self.csps.accepts(csp_id),
            ),
        }
    }

    /// How the guest was launched.
    fn check_guest(&self, report: &Report, checks: &mut Checks) -> Result<(), Box<Rejected>> {
        let bits = self.policy.bits();
        let word = report.policy & !0xffff;
        checks.require(CheckId::SnpPolicy, bits.wording(), bits.spelled(word), bits.admit(word))?;
        let agent = Bits([("a migration agent", 1, self.migration_agent)]);
        let bound = u64::from(report.report_id_ma != Hex([0xff; 32]));
        checks.require(CheckId::SnpMigrationAgent, agent.wording(), agent.spelled(bound), agent.admit(bound))?;
        let (id, author) = (&self.id_key_digests, &self.author_key_digests);
        let wanted = format!("ID key {}; author key {}", id.list(), author.list());
        let got = format!("ID key {}; author key {}", report.id_key_digest, report.author_key_digest);
        let ok = id.accepts(&report.id_key_digest) && author.accepts(&report.author_key_digest);
        checks.require(CheckId::SnpIdKey, wanted, got, ok)?;
        let ok = self.host_data.accepts(&report.host_data);
        checks.require(CheckId::SnpHostData, self.host_data.list(), report.host_data, ok)?;
        checks.require(CheckId::SnpVmpl, self.vmpls.list(), report.vmpl, self.vmpls.accepts(&report.vmpl))
    }

    /// Component by component: the order of the bytes differs between families, and a newer boot loader does not make up
    /// for older microcode.
    fn check_tcb(&self, report: &Report, family: Family, checks: &mut Checks) -> Result<(), Box<Rejected>> {
        let of = |tcb: Tcb| tcb.components(family);
        let (reported, launch) = (of(report.reported_tcb), of(report.launch_tcb));
        let cpuid = report.cpuid.map(Hex);
        let chip = cpuid.map_or_else(|| "without a CPUID".into(), |cpuid| cpuid.to_string());
        let got = format!("reported {reported}; launch {launch}");
        let Some(floor) = self.tcb_floors.iter().find(|floor| floor.is_for(family, cpuid)) else {
            return Err(checks.reject(CheckId::SnpTcb, format!("a floor for {family} {chip}"), got));
        };
        let ok = at_least(reported, floor.floor) && at_least(launch, floor.floor);
        checks.require(CheckId::SnpTcb, format!("at least {}", floor.floor), got, ok)?;

        let (committed, current) = (of(report.committed_tcb), of(report.current_tcb));
        let ok = at_least(committed, reported) && at_least(current, committed);
        let got = format!("reported {reported}; committed {committed}; current {current}");
        checks.require(CheckId::SnpTcbOrder, "reported at most committed, committed at most current", got, ok)?;

        let (at_launch, now) = (report.launch_mitigations, report.current_mitigations);
        let ok = has_bits(at_launch, &floor.launch_mitigations) && has_bits(now, &floor.current_mitigations);
        let wanted =
            format!("bits {:?} at launch, {:?} currently", floor.launch_mitigations, floor.current_mitigations);
        let vector = |vector: Option<u64>| vector.map_or_else(|| "no vector".into(), |bits| format!("{bits:#x}"));
        let got = format!("{} at launch, {} currently", vector(at_launch), vector(now));
        checks.require(CheckId::SnpMitigations, wanted, got, ok)
    }
}

impl Families {
    /// The highest tier for which a family will do.
    fn tier(&self, family: Family) -> Option<u8> {
        let tiers = [(2, &self.tier_2), (1, &self.tier_1), (0, &self.tier_0)];
        tiers.into_iter().find(|(_, families)| families.accepts(&family)).map(|(tier, _)| tier)
    }

    fn wording(&self, minimum_tier: u8) -> String {
        let enough = |family: &Family| self.tier(*family).is_some_and(|tier| tier >= minimum_tier);
        Accept::Only(Family::ALL.into_iter().filter(enough).collect()).list()
    }
}

impl PlatformInfo {
    fn bits(&self) -> Bits<8> {
        Bits([
            ("smt_en", platform_info::SMT_EN, self.smt_en),
            ("tsme_en", platform_info::TSME_EN, self.tsme_en),
            ("ecc_en", platform_info::ECC_EN, self.ecc_en),
            ("rapl_dis", platform_info::RAPL_DIS, self.rapl_dis),
            ("ciphertext_hiding_dram_en", platform_info::CIPHERTEXT_HIDING_DRAM_EN, self.ciphertext_hiding_dram_en),
            ("alias_check_complete", platform_info::ALIAS_CHECK_COMPLETE, self.alias_check_complete),
            ("iommu_write_safe", platform_info::IOMMU_WRITE_SAFE, self.iommu_write_safe),
            ("tio_en", platform_info::TIO_EN, self.tio_en),
        ])
    }
}

impl GuestPolicy {
    fn bits(&self) -> Bits<10> {
        Bits([
            ("smt", policy::SMT, self.smt),
            ("bit 17", policy::RESERVED_ONE, Bit::Required),
            ("migrate_ma", policy::MIGRATE_MA, self.migrate_ma),
            ("debug", policy::DEBUG, self.debug),
            ("single_socket", policy::SINGLE_SOCKET, self.single_socket),
            ("cxl_allow", policy::CXL_ALLOW, self.cxl_allow),
            ("mem_aes_256_xts", policy::MEM_AES_256_XTS, self.mem_aes_256_xts),
            ("rapl_dis", policy::RAPL_DIS, self.rapl_dis),
            ("ciphertext_hiding_dram", policy::CIPHERTEXT_HIDING_DRAM, self.ciphertext_hiding_dram),
            ("page_swap_disable", policy::PAGE_SWAP_DISABLE, self.page_swap_disable),
        ])
    }
}

impl TcbFloor {
    /// A report of version 2 has no CPUID, and only a floor for every stepping is for it.
    fn is_for(&self, family: Family, cpuid: Option<Hex<3>>) -> bool {
        let stepping = match (&self.cpuid, cpuid) {
            (Accept::Any, _) => true,
            (only, Some(cpuid)) => only.accepts(&cpuid),
            (_, None) => false,
        };
        self.family == family && stepping
    }

    fn overlaps(&self, other: &Self) -> bool {
        let shared = match (&self.cpuid, &other.cpuid) {
            (Accept::Only(these), Accept::Only(those)) => these.iter().any(|cpuid| those.contains(cpuid)),
            _ => true,
        };
        self.family == other.family && shared
    }
}

/// Whether no component is lower. An FMC that only one of them has makes them incomparable.
fn at_least(tcb: TcbComponents, floor: TcbComponents) -> bool {
    tcb.fmc.is_some() == floor.fmc.is_some()
        && tcb.fmc >= floor.fmc
        && tcb.bootloader >= floor.bootloader
        && tcb.tee >= floor.tee
        && tcb.snp >= floor.snp
        && tcb.microcode >= floor.microcode
}

fn has_bits(vector: Option<u64>, bits: &[u8]) -> bool {
    let set = |vector: u64, bit: u8| vector.checked_shr(bit.into()).is_some_and(|rest| rest & 1 == 1);
    bits.iter().all(|bit| vector.is_some_and(|vector| set(vector, *bit)))
}
