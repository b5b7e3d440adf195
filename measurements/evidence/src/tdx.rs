//! The TD quote (Intel TDX DCAP Quoting Library API, appendix A.3), versions 4 and 5, field by field.

use crate::Hex;

/// A quote's header and body. Its signature is not checked by parsing it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Quote {
    /// `version`: 4 or 5.
    pub version: u16,
    /// `tee_tcb_svn`.
    pub tee_tcb_svn: Hex<16>,
    /// `mr_seam`: the TDX module.
    pub mr_seam: Hex<48>,
    /// `mrsigner_seam`: zero for Intel's.
    pub mrsigner_seam: Hex<48>,
    /// `seam_attributes`.
    pub seam_attributes: u64,
    /// `td_attributes`, see the constants of [`attributes`].
    pub td_attributes: u64,
    /// `xfam`.
    pub xfam: u64,
    /// `mr_td`.
    pub mr_td: Hex<48>,
    /// `mr_config_id`.
    pub mr_config_id: Hex<48>,
    /// `mr_owner`.
    pub mr_owner: Hex<48>,
    /// `mr_owner_config`.
    pub mr_owner_config: Hex<48>,
    /// `rt_mr0` to `rt_mr3`.
    pub rtmrs: [Hex<48>; 4],
    /// `report_data`.
    pub report_data: Hex<64>,
    /// `tee_tcb_svn_2`; with a TD 1.5 body.
    pub tee_tcb_svn_2: Option<Hex<16>>,
    /// `mr_service_td`; with a TD 1.5 body. Zero without a service TD.
    pub mr_service_td: Option<Hex<48>>,
}

/// Bits of `td_attributes` (Intel TDX Module Base Architecture Specification, ATTRIBUTES).
pub mod attributes {
    /// The host may debug the TD.
    pub const DEBUG: u64 = 1;
    /// EPT violations do not become #VE.
    pub const SEPT_VE_DISABLE: u64 = 1 << 28;
    /// The TD may be migrated.
    pub const MIGRATABLE: u64 = 1 << 29;
    /// Supervisor protection keys.
    pub const PKS: u64 = 1 << 30;
    /// Key locker.
    pub const KL: u64 = 1 << 31;
    /// Performance monitoring.
    pub const PERFMON: u64 = 1 << 63;
}
