//! What is wanted of a TDX platform and of the TD that runs on it.

use blf_evidence::tdx::{Quote, attributes};
use blf_evidence::{Hex, UnixTime};
use serde::{Deserialize, Serialize};

use super::words::{Accept, Bit, Bits, Demand, Limit};
use crate::check::{CheckId, Checks, Rejected};
use crate::tdx::{Claims, Configuration, TcbStatus};

/// What is wanted of TDX.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TdxPolicy {
    /// Advisories that may apply to the platform's TCB level, e.g. `INTEL-SA-00837`.
    pub advisories: Accept<String>,
    /// Age of the oldest part of the collateral, in seconds.
    pub collateral_age_s: Limit,
    /// Must there be an event log? RTMR 1 and 2 are compared with or without.
    pub event_log: Demand,
    /// FMSPC of platforms.
    pub fmspcs: Accept<Hex<6>>,
    /// `Configuration` of the PCK certificate. Of platforms with one package, whose certificates have none, nothing is wanted.
    pub platform_configuration: PlatformConfiguration,
    /// Lowest `tcbEvaluationDataNumber` of the collateral.
    pub minimum_tcb_evaluation_data_number: u32,
    /// MRCONFIGID; zero when the launcher gave none.
    pub mr_config_id: Accept<Hex<48>>,
    /// MROWNER; zero when the launcher gave none.
    pub mr_owner: Accept<Hex<48>>,
    /// MROWNERCONFIG; zero when the launcher gave none.
    pub mr_owner_config: Accept<Hex<48>>,
    /// MRSEAM: TDX modules.
    pub mr_seam: Accept<Hex<48>>,
    /// PPID of platforms.
    pub ppids: Accept<Hex<16>>,
    /// Must RTMR 0 be one that the Reference Value lists? It covers what the host gives to the firmware, ACPI's tables included.
    pub rtmr0: Demand,
    /// SEAMATTRIBUTES.
    pub seam_attributes: Accept<Hex<8>>,
    /// MRSERVICETD that may be bound. Having none is always accepted.
    pub service_tds: Accept<Hex<48>>,
    /// `tcbStatus` of the platform, of its TDX module and its quoting enclave together.
    pub tcb_statuses: Accept<TcbStatus>,
    /// TDATTRIBUTES.
    pub td_attributes: TdAttributes,
    /// XFAM: the extended features that the TD may use.
    pub xfam: Mask,
}

/// The bits of TDATTRIBUTES, by their names in the TDX module's specification.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each is the constant of its name in `blf_evidence::tdx::attributes`
pub struct TdAttributes {
    pub debug: Bit,
    pub kl: Bit,
    pub migratable: Bit,
    pub perfmon: Bit,
    pub pks: Bit,
    pub sept_ve_disable: Bit,
}

/// What a PCK certificate says of a platform with several packages, by Intel's names.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each is the member of its name in `crate::tdx::Configuration`
pub struct PlatformConfiguration {
    pub cached_keys: Bit,
    pub dynamic_platform: Bit,
    pub smt_enabled: Bit,
}

/// Bits of a 64-bit number, written as 16 hex digits, the highest first.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// May be set.
    pub allowed: Hex<8>,
    /// Must be set.
    pub required: Hex<8>,
}

impl TdxPolicy {
    /// Compares a quote with the policy.
    pub(super) fn check(&self, claims: &Claims, now: UnixTime, checks: &mut Checks) -> Result<(), Box<Rejected>> {
        let wanted = format!("PPID {}; FMSPC {}", self.ppids.list(), self.fmspcs.list());
        let ok = self.ppids.accepts(&claims.ppid) && self.fmspcs.accepts(&claims.fmspc);
        checks.require(CheckId::Chip, wanted, format!("PPID {}; FMSPC {}", claims.ppid, claims.fmspc), ok)?;
        let (bits, word) = (self.platform_configuration.bits(), claims.configuration.map(PlatformConfiguration::word));
        let got = word.map_or_else(|| "none".into(), |word| bits.spelled(word));
        let ok = word.is_none_or(|word| bits.admit(word));
        checks.require(CheckId::TdPlatform, bits.wording(), got, ok)?;
        self.check_td(&claims.quote, checks)?;
        self.check_tcb(claims, now, checks)
    }

    /// When the collateral gets too old.
    pub(super) fn expiry(&self, claims: &Claims) -> Option<UnixTime> {
        self.collateral_age_s.end(Some(claims.collateral_issued.0)).map(UnixTime)
    }

    fn check_td(&self, quote: &Quote, checks: &mut Checks) -> Result<(), Box<Rejected>> {
        let (bits, word) = (self.td_attributes.bits(), quote.td_attributes);
        checks.require(CheckId::TdAttributes, bits.wording(), bits.spelled(word), bits.admit(word))?;
        let Mask { allowed, required } = &self.xfam;
        let wanted = format!("of {allowed}, with {required}");
        let [may, must] = [allowed, required].map(|mask| u64::from_be_bytes(mask.0));
        let ok = quote.xfam & !may == 0 && quote.xfam & must == must;
        checks.require(CheckId::TdXfam, wanted, format!("{:016x}", quote.xfam), ok)?;
        let attributes = Hex(quote.seam_attributes.to_be_bytes());
        let wanted = format!("MRSEAM {}; SEAMATTRIBUTES {}", self.mr_seam.list(), self.seam_attributes.list());
        let got = format!("MRSEAM {}; SEAMATTRIBUTES {attributes}", quote.mr_seam);
        let ok = self.mr_seam.accepts(&quote.mr_seam) && self.seam_attributes.accepts(&attributes);
        checks.require(CheckId::TdModule, wanted, got, ok)?;
        let given = [
            ("MRCONFIGID", &self.mr_config_id, quote.mr_config_id),
            ("MROWNER", &self.mr_owner, quote.mr_owner),
            ("MROWNERCONFIG", &self.mr_owner_config, quote.mr_owner_config),
        ];
        let wanted = given.each_ref().map(|(name, accepted, _)| format!("{name} {}", accepted.list())).join("; ");
        let got = given.each_ref().map(|(name, _, got)| format!("{name} {got}")).join("; ");
        let ok = given.iter().all(|(_, accepted, got)| accepted.accepts(got));
        checks.require(CheckId::TdConfig, wanted, got, ok)?;
        let bound = quote.mr_service_td.filter(|service| *service != Hex([0; 48]));
        let got = bound.map_or_else(|| "none".into(), |service| service.to_string());
        let ok = bound.is_none_or(|service| self.service_tds.accepts(&service));
        checks.require(CheckId::TdServiceTd, format!("none, or one of: {}", self.service_tds.list()), got, ok)
    }

    fn check_tcb(&self, claims: &Claims, now: UnixTime, checks: &mut Checks) -> Result<(), Box<Rejected>> {
        let statuses = self.tcb_statuses.listing(|status| format!("{status:?}"));
        let wanted = format!("{statuses}; advisories {}", self.advisories.list());
        let advisories = &claims.advisory_ids;
        let listed = if advisories.is_empty() { "none".into() } else { advisories.join(", ") };
        let got = format!("{:?}; advisories {listed}", claims.tcb_status);
        let ok = self.tcb_statuses.accepts(&claims.tcb_status)
            && advisories.iter().all(|advisory| self.advisories.accepts(advisory));
        checks.require(CheckId::TdTcbStatus, wanted, got, ok)?;
        let (least, number) = (self.minimum_tcb_evaluation_data_number, claims.tcb_evaluation_data_number);
        checks.require(CheckId::TcbEvaluation, format!("at least {least}"), number, number >= least)?;
        let UnixTime(issued) = claims.collateral_issued;
        let got = format!("{} s old", now.0.saturating_sub(issued));
        let ok = self.collateral_age_s.admits(Some(issued), now.0);
        checks.require(CheckId::CollateralAge, self.collateral_age_s.wording("s"), got, ok)
    }
}

impl PlatformConfiguration {
    /// Intel has names for these and no bits: the numbers are ours, and go nowhere.
    fn bits(&self) -> Bits<3> {
        Bits([
            ("dynamic_platform", 1, self.dynamic_platform),
            ("cached_keys", 2, self.cached_keys),
            ("smt_enabled", 4, self.smt_enabled),
        ])
    }

    fn word(of: Configuration) -> u64 {
        let Configuration { dynamic_platform, cached_keys, smt_enabled } = of;
        u64::from(dynamic_platform) | u64::from(cached_keys) << 1 | u64::from(smt_enabled) << 2
    }
}

impl TdAttributes {
    fn bits(&self) -> Bits<6> {
        Bits([
            ("debug", attributes::DEBUG, self.debug),
            ("sept_ve_disable", attributes::SEPT_VE_DISABLE, self.sept_ve_disable),
            ("migratable", attributes::MIGRATABLE, self.migratable),
            ("pks", attributes::PKS, self.pks),
            ("kl", attributes::KL, self.kl),
            ("perfmon", attributes::PERFMON, self.perfmon),
        ])
    }
}
