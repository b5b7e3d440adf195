//! What a platform says of itself, as it stands in a result: by the names and in the spelling of a policy, so that a line
//! of one can be copied into the other.

use blf_evidence::snp::{Family, TcbComponents};
use blf_evidence::{Hex, UnixTime};
use serde::Serialize;

use crate::authenticate::Claims;
use crate::azure::Hardware;
use crate::snp::{self, Signer};
use crate::tdx::{self, TcbStatus};
use crate::tpm::{self, AkEndorsement};

/// Claims of one platform.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformClaims {
    /// Azure: of the paravisor, and of the guest.
    Azure {
        /// What the hardware says of the paravisor.
        hardware: HardwareClaims,
        /// What the paravisor's vTPM says of the guest.
        tpm: TpmClaims,
    },
    /// SEV-SNP.
    Snp(Box<SnpClaims>),
    /// TDX.
    Tdx(Box<TdxClaims>),
    /// TPM 2.0.
    Tpm(TpmClaims),
}

/// Claims of the hardware below a paravisor.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HardwareClaims {
    /// SEV-SNP.
    Snp(Box<SnpClaims>),
    /// TDX.
    Tdx(Box<TdxClaims>),
}

/// Of SEV-SNP.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[allow(missing_docs)] // each is the field of its name in the report
pub struct SnpClaims {
    pub author_key_digest: Hex<48>,
    pub chip_id: Hex<64>,
    /// CPUID family, model and stepping; from version 3.
    pub cpuid: Option<Hex<3>>,
    /// When the revocation list was made, if there was one.
    pub crl_this_update: Option<UnixTime>,
    /// The cloud whose VLEK signed the report; null when the chip's VCEK did.
    pub csp: Option<String>,
    /// CURRENT_MAJOR.CURRENT_MINOR.CURRENT_BUILD.
    pub current_firmware: String,
    pub current_mitigations: Option<Hex<8>>,
    pub family: Family,
    pub guest_svn: u32,
    pub host_data: Hex<32>,
    pub id_key_digest: Hex<48>,
    pub launch_mitigations: Option<Hex<8>>,
    pub measurement: Hex<48>,
    /// PLATFORM_INFO as a number, the highest digit first.
    pub platform_info: Hex<8>,
    /// POLICY as a number, the highest digit first.
    pub policy: Hex<8>,
    pub report_version: u32,
    pub tcb: SnpTcbs,
    pub vmpl: u32,
}

/// The four TCB versions of a report.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct SnpTcbs {
    pub committed: TcbComponents,
    pub current: TcbComponents,
    pub launch: TcbComponents,
    pub reported: TcbComponents,
}

/// Of TDX.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[allow(missing_docs)] // each is the field of its name in quote or collateral
pub struct TdxClaims {
    pub advisories: Vec<String>,
    /// When the oldest part of the collateral was issued.
    pub collateral_issued: UnixTime,
    /// Whether an event log explains the RTMRs.
    pub event_log: bool,
    pub fmspc: Hex<6>,
    pub mr_config_id: Hex<48>,
    pub mr_owner: Hex<48>,
    pub mr_owner_config: Hex<48>,
    pub mr_seam: Hex<48>,
    pub mr_service_td: Option<Hex<48>>,
    pub mr_td: Hex<48>,
    pub ppid: Hex<16>,
    pub quote_version: u16,
    pub rtmrs: [Hex<48>; 4],
    pub seam_attributes: Hex<8>,
    pub tcb_evaluation_data_number: u32,
    pub tcb_status: TcbStatus,
    /// TDATTRIBUTES as a number, the highest digit first.
    pub td_attributes: Hex<8>,
    pub tee_tcb_svn: Hex<16>,
    /// XFAM as a number, the highest digit first.
    pub xfam: Hex<8>,
}

/// Of a TPM.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TpmClaims {
    /// Who vouches for the AK: `root: ` and its name, `activated`, `paravisor`, or null for nobody.
    pub ak_endorsed_by: Option<String>,
    /// The AK's Name in hex.
    pub ak_name: String,
    /// Whether an event log explains the PCRs.
    pub event_log: bool,
}

impl PlatformClaims {
    pub(crate) fn of(platform: &Claims) -> Self {
        match platform {
            Claims::Azure(azure) => {
                let hardware = match &azure.hardware {
                    Hardware::Snp(claims) => HardwareClaims::Snp(SnpClaims::of(claims).into()),
                    Hardware::Tdx(claims) => HardwareClaims::Tdx(TdxClaims::of(claims).into()),
                };
                Self::Azure { hardware, tpm: TpmClaims::of(&azure.tpm) }
            }
            Claims::Snp(claims) => Self::Snp(SnpClaims::of(claims).into()),
            Claims::Tdx(claims) => Self::Tdx(TdxClaims::of(claims).into()),
            Claims::Tpm(claims) => Self::Tpm(TpmClaims::of(claims)),
        }
    }
}

impl SnpClaims {
    fn of(claims: &snp::Claims) -> Self {
        let report = &claims.report;
        let components = |tcb: blf_evidence::snp::Tcb| tcb.components(claims.family);
        let [major, minor, build] = report.current_firmware;
        Self {
            author_key_digest: report.author_key_digest,
            chip_id: report.chip_id,
            cpuid: report.cpuid.map(Hex),
            crl_this_update: claims.crl_this_update,
            csp: match &claims.signer {
                Signer::Vcek => None,
                Signer::Vlek { csp_id } => Some(csp_id.clone()),
            },
            current_firmware: format!("{major}.{minor}.{build}"),
            current_mitigations: report.current_mitigations.map(number),
            family: claims.family,
            guest_svn: report.guest_svn,
            host_data: report.host_data,
            id_key_digest: report.id_key_digest,
            launch_mitigations: report.launch_mitigations.map(number),
            measurement: report.measurement,
            platform_info: number(report.platform_info),
            policy: number(report.policy),
            report_version: report.version,
            tcb: SnpTcbs {
                committed: components(report.committed_tcb),
                current: components(report.current_tcb),
                launch: components(report.launch_tcb),
                reported: components(report.reported_tcb),
            },
            vmpl: report.vmpl,
        }
    }
}

impl TdxClaims {
    fn of(claims: &tdx::Claims) -> Self {
        let quote = &claims.quote;
        Self {
            advisories: claims.advisory_ids.clone(),
            collateral_issued: claims.collateral_issued,
            event_log: claims.event_log,
            fmspc: claims.fmspc,
            mr_config_id: quote.mr_config_id,
            mr_owner: quote.mr_owner,
            mr_owner_config: quote.mr_owner_config,
            mr_seam: quote.mr_seam,
            mr_service_td: quote.mr_service_td,
            mr_td: quote.mr_td,
            ppid: claims.ppid,
            quote_version: quote.version,
            rtmrs: quote.rtmrs,
            seam_attributes: number(quote.seam_attributes),
            tcb_evaluation_data_number: claims.tcb_evaluation_data_number,
            tcb_status: claims.tcb_status,
            td_attributes: number(quote.td_attributes),
            tee_tcb_svn: quote.tee_tcb_svn,
            xfam: number(quote.xfam),
        }
    }
}

impl TpmClaims {
    fn of(claims: &tpm::Claims) -> Self {
        Self {
            ak_endorsed_by: match &claims.ak {
                AkEndorsement::Certified { root, .. } => Some(format!("root: {root}")),
                AkEndorsement::Activated => Some("activated".into()),
                AkEndorsement::Paravisor => Some("paravisor".into()),
                AkEndorsement::Nobody => None,
            },
            ak_name: hex::encode(&claims.ak_name),
            event_log: claims.event_log,
        }
    }
}

/// 64 bits as 16 hex digits: JSON's numbers end at 2^53.
fn number(bits: u64) -> Hex<8> {
    Hex(bits.to_be_bytes())
}
