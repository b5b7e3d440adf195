//! TDREPORT_STRUCT (Intel TDX Module ABI Reference Specification): what a TD's processor says to itself, authenticated by
//! a MAC that nobody else can check.

use sha2::{Digest as _, Sha384};

use super::{HclError, array, one_of, zeros};
use crate::Hex;

/// Size of a TDREPORT_STRUCT: REPORTMACSTRUCT (256), TEE_TCB_INFO (239), reserved (17), TDINFO_STRUCT (512).
pub const TD_REPORT_SIZE: usize = 1024;

const TEE_TCB_INFO: usize = 256;
const TEE_TCB_INFO_SIZE: usize = 239;
const TD_INFO: usize = 512;
/// REPORTTYPE.TYPE of a TD.
const TYPE_TDX: u32 = 0x81;

/// A TDREPORT, its fields named as in the TD quote ([`crate::tdx::Quote`]) that is made of it.
///
/// `TEE_TCB_INFO_HASH` and `TEE_INFO_HASH` are not members: they were compared and are computed again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TdReport {
    /// REPORTTYPE.VERSION: 0, or 1 when [`Self::service_td_hash`] counts.
    pub version: u8,
    /// CPUSVN. No part of a quote.
    pub cpu_svn: Hex<16>,
    /// REPORTDATA.
    pub report_data: Hex<64>,
    /// MAC under a key of the processor. No part of a quote.
    pub mac: Hex<32>,
    /// TEE_TCB_INFO.VALID: which of its fields the TDX module wrote. No part of a quote.
    pub valid: u64,
    /// TEE_TCB_SVN.
    pub tee_tcb_svn: Hex<16>,
    /// MRSEAM.
    pub mr_seam: Hex<48>,
    /// MRSIGNERSEAM.
    pub mrsigner_seam: Hex<48>,
    /// TEE_TCB_INFO.ATTRIBUTES.
    pub seam_attributes: u64,
    /// TEE_TCB_SVN2.
    pub tee_tcb_svn_2: Hex<16>,
    /// TDINFO.ATTRIBUTES.
    pub td_attributes: u64,
    /// XFAM.
    pub xfam: u64,
    /// MRTD.
    pub mr_td: Hex<48>,
    /// MRCONFIGID.
    pub mr_config_id: Hex<48>,
    /// MROWNER.
    pub mr_owner: Hex<48>,
    /// MROWNERCONFIG.
    pub mr_owner_config: Hex<48>,
    /// RTMR0 to RTMR3.
    pub rtmrs: [Hex<48>; 4],
    /// SERVTD_HASH, the quote's `mr_service_td`.
    pub service_td_hash: Hex<48>,
}

impl TdReport {
    /// Parses a TDREPORT_STRUCT.
    ///
    /// # Errors
    /// [`HclError`] naming the field: another size or type, reserved bytes that are not zero, and a digest that is not of
    /// the structure that follows.
    pub fn parse(bytes: &[u8]) -> Result<Self, HclError> {
        if bytes.len() != TD_REPORT_SIZE {
            return Err(HclError::new("TDREPORT", format!("{TD_REPORT_SIZE} bytes"), bytes.len()));
        }
        let [kind, subtype, version, reserved] = array(bytes, 0);
        one_of("REPORTTYPE.TYPE", &[TYPE_TDX], kind.into())?;
        one_of("REPORTTYPE.SUBTYPE", &[0], subtype.into())?;
        one_of("REPORTTYPE.VERSION", &[0, 1], version.into())?;
        one_of("REPORTTYPE.RESERVED", &[0], reserved.into())?;
        zeros("REPORTMACSTRUCT.RESERVED", &bytes[4..16])?;
        zeros("REPORTMACSTRUCT.RESERVED", &bytes[192..224])?;
        let tcb_info = &bytes[TEE_TCB_INFO..TEE_TCB_INFO + TEE_TCB_INFO_SIZE];
        zeros("TEE_TCB_INFO.RESERVED", &tcb_info[144..])?;
        zeros("TDREPORT_STRUCT.RESERVED", &bytes[TEE_TCB_INFO + TEE_TCB_INFO_SIZE..TD_INFO])?;
        let info = &bytes[TD_INFO..];
        zeros("TDINFO_STRUCT.RESERVED", &info[448..])?;
        for (field, at, covered) in [("TEE_TCB_INFO_HASH", 32, tcb_info), ("TEE_INFO_HASH", 80, info)] {
            let (wanted, got) = (sha384(covered), Hex(array(bytes, at)));
            if got != wanted {
                return Err(HclError::new(field, wanted, got));
            }
        }
        let rtmr = |index: usize| Hex(array(info, 208 + index * 48));
        Ok(Self {
            version,
            cpu_svn: Hex(array(bytes, 16)),
            report_data: Hex(array(bytes, 128)),
            mac: Hex(array(bytes, 224)),
            valid: u64::from_le_bytes(array(tcb_info, 0)),
            tee_tcb_svn: Hex(array(tcb_info, 8)),
            mr_seam: Hex(array(tcb_info, 24)),
            mrsigner_seam: Hex(array(tcb_info, 72)),
            seam_attributes: u64::from_le_bytes(array(tcb_info, 120)),
            tee_tcb_svn_2: Hex(array(tcb_info, 128)),
            td_attributes: u64::from_le_bytes(array(info, 0)),
            xfam: u64::from_le_bytes(array(info, 8)),
            mr_td: Hex(array(info, 16)),
            mr_config_id: Hex(array(info, 64)),
            mr_owner: Hex(array(info, 112)),
            mr_owner_config: Hex(array(info, 160)),
            rtmrs: [0, 1, 2, 3].map(rtmr),
            service_td_hash: Hex(array(info, 400)),
        })
    }

    /// The TDREPORT_STRUCT.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TD_REPORT_SIZE] {
        let mut out = [0; TD_REPORT_SIZE];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0x81, 0, self.version, 0]);
        put(16, &self.cpu_svn.0);
        put(128, &self.report_data.0);
        put(224, &self.mac.0);
        put(TEE_TCB_INFO, &self.valid.to_le_bytes());
        put(TEE_TCB_INFO + 8, &self.tee_tcb_svn.0);
        put(TEE_TCB_INFO + 24, &self.mr_seam.0);
        put(TEE_TCB_INFO + 72, &self.mrsigner_seam.0);
        put(TEE_TCB_INFO + 120, &self.seam_attributes.to_le_bytes());
        put(TEE_TCB_INFO + 128, &self.tee_tcb_svn_2.0);
        put(TD_INFO, &self.td_attributes.to_le_bytes());
        put(TD_INFO + 8, &self.xfam.to_le_bytes());
        let registers = [&self.mr_td, &self.mr_config_id, &self.mr_owner, &self.mr_owner_config];
        for (index, register) in registers.into_iter().chain(&self.rtmrs).enumerate() {
            put(TD_INFO + 16 + index * 48, &register.0);
        }
        put(TD_INFO + 400, &self.service_td_hash.0);
        let tcb_info = sha384(&out[TEE_TCB_INFO..TEE_TCB_INFO + TEE_TCB_INFO_SIZE]);
        let info = sha384(&out[TD_INFO..]);
        out[32..80].copy_from_slice(&tcb_info.0);
        out[80..128].copy_from_slice(&info.0);
        out
    }
}

fn sha384(data: &[u8]) -> Hex<48> {
    Hex(Sha384::digest(data).into())
}
