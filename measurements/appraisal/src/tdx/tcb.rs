//! What Intel says of platforms, TDX modules and quoting enclaves (TCB info and QE identity of the Provisioning
//! Certification Service, version 4), and what that makes of a quote.

use blf_evidence::tdx::{EnclaveReport, Quote};
use blf_evidence::{Hex, UnixTime};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use x509_cert::der::DateTime;

use super::TcbStatus;
use super::pck::Platform;
use crate::check::{CheckId, Checks, Rejected};

/// `tcbInfo`, version 3.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TcbInfo {
    id: String,
    version: u32,
    #[serde(deserialize_with = "date")]
    pub(super) issue_date: UnixTime,
    #[serde(deserialize_with = "date")]
    pub(super) next_update: UnixTime,
    #[serde(deserialize_with = "hexadecimal")]
    fmspc: Hex<6>,
    #[serde(deserialize_with = "hexadecimal")]
    pce_id: Hex<2>,
    tcb_type: u32,
    pub(super) tcb_evaluation_data_number: u32,
    tdx_module: Module,
    #[serde(default)]
    tdx_module_identities: Vec<ModuleIdentity>,
    tcb_levels: Vec<Level<Tcb>>,
}

/// `enclaveIdentity`, version 2.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QeIdentity {
    id: String,
    version: u32,
    #[serde(deserialize_with = "date")]
    pub(super) issue_date: UnixTime,
    #[serde(deserialize_with = "date")]
    pub(super) next_update: UnixTime,
    pub(super) tcb_evaluation_data_number: u32,
    #[serde(deserialize_with = "hexadecimal")]
    miscselect: Hex<4>,
    #[serde(deserialize_with = "hexadecimal")]
    miscselect_mask: Hex<4>,
    #[serde(deserialize_with = "hexadecimal")]
    attributes: Hex<16>,
    #[serde(deserialize_with = "hexadecimal")]
    attributes_mask: Hex<16>,
    #[serde(deserialize_with = "hexadecimal")]
    mrsigner: Hex<32>,
    isvprodid: u16,
    tcb_levels: Vec<Level<IsvSvn>>,
}

/// `tdxModule`: what a TDX module must be.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Module {
    #[serde(deserialize_with = "hexadecimal")]
    mrsigner: Hex<48>,
    #[serde(deserialize_with = "hexadecimal")]
    attributes: Hex<8>,
    #[serde(deserialize_with = "hexadecimal")]
    attributes_mask: Hex<8>,
}

/// One of `tdxModuleIdentities`: the same for one version of the module, with levels of its own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModuleIdentity {
    id: String,
    #[serde(deserialize_with = "hexadecimal")]
    mrsigner: Hex<48>,
    #[serde(deserialize_with = "hexadecimal")]
    attributes: Hex<8>,
    #[serde(deserialize_with = "hexadecimal")]
    attributes_mask: Hex<8>,
    tcb_levels: Vec<Level<IsvSvn>>,
}

/// One of `tcbLevels`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Level<T> {
    tcb: T,
    #[serde(deserialize_with = "status")]
    tcb_status: Status,
    #[serde(default, rename = "advisoryIDs")]
    advisory_ids: Vec<String>,
}

/// Ordered as Intel orders levels: by SGX components, then PCE, then TDX components.
#[derive(Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
struct Tcb {
    sgxtcbcomponents: [Component; 16],
    pcesvn: u16,
    tdxtcbcomponents: [Component; 16],
}

#[derive(Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
struct Component {
    svn: u8,
}

#[derive(Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
struct IsvSvn {
    isvsvn: u16,
}

/// `tcbStatus` as what it says; statuses of several parts add up.
#[derive(Clone, Copy, Debug, Default)]
struct Status {
    out_of_date: bool,
    configuration_needed: bool,
    sw_hardening_needed: bool,
    revoked: bool,
}

/// What the levels that a quote meets say together.
pub(super) struct Verdict {
    pub(super) status: TcbStatus,
    pub(super) advisory_ids: Vec<String>,
}

impl TcbInfo {
    /// Parses `tcbInfo` of TDX; whether Intel signed it is another question.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut info: Self = serde_json::from_str(text).map_err(|error| format!("tcbInfo: {error}"))?;
        if (&*info.id, info.version, info.tcb_type) != ("TDX", 3, 0) {
            let got = format!("{:?}, version {}, tcbType {}", info.id, info.version, info.tcb_type);
            return Err(format!("tcbInfo: wanted \"TDX\", version 3, tcbType 0, got {got}"));
        }
        // The first level that is met counts. Intel's library goes by this order, not by that of the text.
        info.tcb_levels.sort_by(|a, b| b.tcb.cmp(&a.tcb));
        for identity in &mut info.tdx_module_identities {
            identity.tcb_levels.sort_by(|a, b| b.tcb.cmp(&a.tcb));
        }
        Ok(info)
    }

    /// The identity for the module's version (`TEE_TCB_SVN[1]`). Version 0 has none: the levels of the platform name it.
    fn module_identity(&self, tee_tcb_svn: &Hex<16>) -> Result<Option<&ModuleIdentity>, String> {
        if tee_tcb_svn.0[1] == 0 {
            return Ok(None);
        }
        let id = format!("TDX_{:02X}", tee_tcb_svn.0[1]);
        let found = self.tdx_module_identities.iter().find(|identity| identity.id.eq_ignore_ascii_case(&id));
        found.map(Some).ok_or_else(|| format!("no identity {id}"))
    }

    /// Adds what the first levels say that this platform meets with this TDX module.
    fn evaluate(&self, platform: &Platform, svn: &Hex<16>, advisory_ids: &mut Vec<String>) -> Result<Status, String> {
        let level = self.tcb_levels.iter().find(|level| level.tcb.met(platform, svn)).ok_or_else(|| {
            format!("none for CPUSVN {}, PCESVN {}, TEE_TCB_SVN {svn}", platform.cpu_svn, platform.pce_svn)
        })?;
        let mut status = level.add_to(Status::default(), advisory_ids);
        if let Some(identity) = self.module_identity(svn)? {
            let isvsvn = u16::from(svn.0[0]);
            let level = first_met(&identity.tcb_levels, isvsvn).ok_or_else(|| format!("none of {}'s", identity.id))?;
            status = level.add_to(status, advisory_ids);
        }
        Ok(status)
    }
}

impl QeIdentity {
    /// Parses `enclaveIdentity` of the TD quoting enclave; whether Intel signed it is another question.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut identity: Self = serde_json::from_str(text).map_err(|error| format!("enclaveIdentity: {error}"))?;
        if (&*identity.id, identity.version) != ("TD_QE", 2) {
            let got = format!("{:?}, version {}", identity.id, identity.version);
            return Err(format!("enclaveIdentity: wanted \"TD_QE\", version 2, got {got}"));
        }
        identity.tcb_levels.sort_by(|a, b| b.tcb.cmp(&a.tcb));
        Ok(identity)
    }

    /// `Err` says which field of the enclave's report is another's.
    fn check(&self, report: &EnclaveReport) -> Result<(), String> {
        let differs = |field: &str, wanted: &dyn std::fmt::Display, got: &dyn std::fmt::Display| {
            Err(format!("{field}: wanted {wanted}, got {got}"))
        };
        let (signer, product) = (report.mr_signer(), report.isv_prod_id());
        let misc = masked(report.misc_select(), self.miscselect_mask);
        let attributes = masked(report.attributes(), self.attributes_mask);
        if signer != self.mrsigner {
            return differs("MRSIGNER", &self.mrsigner, &signer);
        }
        if product != self.isvprodid {
            return differs("ISVPRODID", &self.isvprodid, &product);
        }
        if misc != masked(self.miscselect, self.miscselect_mask) {
            return differs("MISCSELECT", &self.miscselect, &misc);
        }
        if attributes != masked(self.attributes, self.attributes_mask) {
            return differs("ATTRIBUTES", &self.attributes, &attributes);
        }
        // Whatever the mask says: the host reads the memory of a debug enclave.
        if report.attributes().0[0] & 0b10 != 0 {
            return differs("ATTRIBUTES", &"no DEBUG", &report.attributes());
        }
        Ok(())
    }
}

/// Compares platform, TDX module and quoting enclave with what Intel says of them.
pub(super) fn check(
    quote: &Quote,
    platform: &Platform,
    tcb_info: &TcbInfo,
    qe_identity: &QeIdentity,
    checks: &mut Checks,
) -> Result<Verdict, Box<Rejected>> {
    let of = |fmspc: &Hex<6>, pce_id: &Hex<2>| format!("FMSPC {fmspc}, PCE-ID {pce_id}");
    let wanted = of(&platform.fmspc, &platform.pce_id);
    checks.equal(CheckId::CollateralPlatform, wanted, of(&tcb_info.fmspc, &tcb_info.pce_id))?;

    let report = &quote.authentication.qe_report;
    checks.parsed(CheckId::QeIdentity, "the enclave of Intel's QE identity", qe_identity.check(report))?;
    checks.parsed(CheckId::TdModuleIdentity, "a TDX module of Intel's", check_module(quote, tcb_info))?;

    let verdict = evaluate(quote, platform, tcb_info, qe_identity);
    let got = match &verdict {
        Ok(Some(verdict)) => format!("{:?}", verdict.status),
        Ok(None) => "Revoked".into(),
        Err(none) => none.clone(),
    };
    let wanted = "a level that is not revoked";
    match verdict {
        Ok(Some(verdict)) => {
            checks.require(CheckId::TdTcbLevel, wanted, got, true)?;
            Ok(verdict)
        }
        _ => Err(checks.reject(CheckId::TdTcbLevel, wanted, got)),
    }
}

/// The module is of a version that Intel knows, with its signer and attributes. Attributes outside the mask are zero:
/// nobody said what they mean.
fn check_module(quote: &Quote, tcb_info: &TcbInfo) -> Result<(), String> {
    let base = &tcb_info.tdx_module;
    let (signer, attributes, mask) = match tcb_info.module_identity(&quote.tee_tcb_svn)? {
        Some(identity) => (identity.mrsigner, identity.attributes, identity.attributes_mask),
        None => (base.mrsigner, base.attributes, base.attributes_mask),
    };
    if quote.mrsigner_seam != signer {
        return Err(format!("mrsigner_seam: wanted {signer}, got {}", quote.mrsigner_seam));
    }
    let got = Hex(quote.seam_attributes.to_le_bytes());
    if got != masked(attributes, mask) {
        return Err(format!("seam_attributes: wanted {}, got {got}", masked(attributes, mask)));
    }
    if let Some(svn) = &quote.tee_tcb_svn_2 {
        tcb_info.module_identity(svn)?;
    }
    Ok(())
}

/// `Ok(None)` when anything is revoked, `Err` when there is no level for something.
fn evaluate(
    quote: &Quote,
    platform: &Platform,
    tcb_info: &TcbInfo,
    qe_identity: &QeIdentity,
) -> Result<Option<Verdict>, String> {
    let mut advisory_ids = Vec::new();
    let launch = tcb_info.evaluate(platform, &quote.tee_tcb_svn, &mut advisory_ids)?;
    // The module may have been updated below the running TD; both count.
    let current = match &quote.tee_tcb_svn_2 {
        Some(svn) => tcb_info.evaluate(platform, svn, &mut advisory_ids)?,
        None => launch,
    };
    let isvsvn = quote.authentication.qe_report.isv_svn();
    let level =
        first_met(&qe_identity.tcb_levels, isvsvn).ok_or_else(|| format!("none for the QE's ISVSVN {isvsvn}"))?;
    let qe = level.add_to(Status::default(), &mut advisory_ids);
    let status = launch.and(qe).with_update(current.and(qe));
    Ok(status.map(|status| Verdict { status, advisory_ids }))
}

impl Tcb {
    fn met(&self, platform: &Platform, tee_tcb_svn: &Hex<16>) -> bool {
        let reaches = |(have, needed): (&u8, &Component)| *have >= needed.svn;
        // From version 1 of the module on, its identity judges the first two.
        let skipped = if tee_tcb_svn.0[1] == 0 { 0 } else { 2 };
        platform.cpu_svn.0.iter().zip(&self.sgxtcbcomponents).all(reaches)
            && platform.pce_svn >= self.pcesvn
            && tee_tcb_svn.0.iter().zip(&self.tdxtcbcomponents).skip(skipped).all(reaches)
    }
}

impl<T> Level<T> {
    fn add_to(&self, status: Status, advisory_ids: &mut Vec<String>) -> Status {
        for id in &self.advisory_ids {
            if !advisory_ids.contains(id) {
                advisory_ids.push(id.clone());
            }
        }
        status.and(self.tcb_status)
    }
}

impl Status {
    fn and(self, other: Self) -> Self {
        Self {
            out_of_date: self.out_of_date || other.out_of_date,
            configuration_needed: self.configuration_needed || other.configuration_needed,
            sw_hardening_needed: self.sw_hardening_needed || other.sw_hardening_needed,
            revoked: self.revoked || other.revoked,
        }
    }

    /// The status of a TD launched with this one and running with `current`; `None` for revoked.
    fn with_update(self, current: Self) -> Option<TcbStatus> {
        let both = self.and(current);
        if both.revoked {
            return None;
        }
        let relaunch = self.out_of_date && !current.out_of_date;
        Some(match (both.out_of_date, both.configuration_needed, both.sw_hardening_needed) {
            (true, true, _) if relaunch => TcbStatus::TDRelaunchAdvisedConfigurationNeeded,
            (true, false, _) if relaunch => TcbStatus::TDRelaunchAdvised,
            (true, true, _) => TcbStatus::OutOfDateConfigurationNeeded,
            (true, false, _) => TcbStatus::OutOfDate,
            (false, true, true) => TcbStatus::ConfigurationAndSWHardeningNeeded,
            (false, true, false) => TcbStatus::ConfigurationNeeded,
            (false, false, true) => TcbStatus::SWHardeningNeeded,
            (false, false, false) => TcbStatus::UpToDate,
        })
    }
}

fn first_met(levels: &[Level<IsvSvn>], isvsvn: u16) -> Option<&Level<IsvSvn>> {
    levels.iter().find(|level| isvsvn >= level.tcb.isvsvn)
}

fn masked<const N: usize>(value: Hex<N>, mask: Hex<N>) -> Hex<N> {
    Hex(std::array::from_fn(|index| value.0[index] & mask.0[index]))
}

/// The statuses that Intel gives to levels.
fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Status, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    let (out_of_date, configuration_needed, sw_hardening_needed, revoked) = match text {
        "UpToDate" => (false, false, false, false),
        "SWHardeningNeeded" => (false, false, true, false),
        "ConfigurationNeeded" => (false, true, false, false),
        "ConfigurationAndSWHardeningNeeded" => (false, true, true, false),
        "OutOfDate" => (true, false, false, false),
        "OutOfDateConfigurationNeeded" => (true, true, false, false),
        "Revoked" => (false, false, false, true),
        _ => return Err(D::Error::custom(format_args!("tcbStatus: unknown {text:?}"))),
    };
    Ok(Status { out_of_date, configuration_needed, sw_hardening_needed, revoked })
}

fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixTime, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    let time: DateTime = text.parse().map_err(|_| D::Error::custom(format_args!("date: wanted UTC, got {text:?}")))?;
    Ok(UnixTime(time.unix_duration().as_secs()))
}

/// In either case: Intel's texts mix them.
fn hexadecimal<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<Hex<N>, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(D::Error::custom)?;
    Ok(Hex(bytes))
}
