//! The ATTESTATION_REPORT of SEV-SNP (SEV-SNP Firmware ABI Specification, 56860, section 7.3 and table
//! "ATTESTATION_REPORT Structure"), field by field.

use crate::Hex;

/// Families of chips: the key hierarchies of AMD's KDS, each with an ARK of its own.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// EPYC 7003: CPUID family 19h, models 00h to 0Fh.
    Milan,
    /// EPYC 9004 and 8004 (Genoa, Bergamo, Siena): 19h, 10h to 1Fh and A0h to AFh.
    Genoa,
    /// EPYC 9005: 1Ah, 00h to 1Fh.
    Turin,
}

/// TCB_VERSION: eight bytes whose order depends on the family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tcb(pub [u8; 8]);

/// The components of a [`Tcb`]. Compared one by one, never as a number.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct TcbComponents {
    /// FMC; null before Turin.
    pub fmc: Option<u8>,
    /// Boot loader of the secure processor.
    pub bootloader: u8,
    /// Trusted operating system of the secure processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

/// A report. Its signature is not checked by parsing it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// VERSION: 2, 3 or 5.
    pub version: u32,
    /// GUEST_SVN.
    pub guest_svn: u32,
    /// POLICY, see the constants of [`policy`].
    pub policy: u64,
    /// FAMILY_ID, set by the launcher.
    pub family_id: Hex<16>,
    /// IMAGE_ID, set by the launcher.
    pub image_id: Hex<16>,
    /// VMPL the report was asked for from.
    pub vmpl: u32,
    /// CURRENT_TCB.
    pub current_tcb: Tcb,
    /// PLATFORM_INFO, see the constants of [`platform_info`].
    pub platform_info: u64,
    /// AUTHOR_KEY_EN.
    pub author_key_enabled: bool,
    /// MASK_CHIP_KEY.
    pub mask_chip_key: bool,
    /// SIGNING_KEY: 0 VCEK, 1 VLEK, 7 none.
    pub signing_key: u8,
    /// REPORT_DATA.
    pub report_data: Hex<64>,
    /// MEASUREMENT: the launch digest.
    pub measurement: Hex<48>,
    /// HOST_DATA.
    pub host_data: Hex<32>,
    /// ID_KEY_DIGEST.
    pub id_key_digest: Hex<48>,
    /// AUTHOR_KEY_DIGEST.
    pub author_key_digest: Hex<48>,
    /// REPORT_ID.
    pub report_id: Hex<32>,
    /// REPORT_ID_MA: all ones without a migration agent.
    pub report_id_ma: Hex<32>,
    /// REPORTED_TCB: of which the VEK is.
    pub reported_tcb: Tcb,
    /// CPUID_FAM_ID, CPUID_MOD_ID, CPUID_STEP; from version 3.
    pub cpuid: Option<[u8; 3]>,
    /// CHIP_ID; zero when masked.
    pub chip_id: Hex<64>,
    /// COMMITTED_TCB.
    pub committed_tcb: Tcb,
    /// CURRENT_MAJOR, CURRENT_MINOR, CURRENT_BUILD.
    pub current_firmware: [u8; 3],
    /// COMMITTED_MAJOR, COMMITTED_MINOR, COMMITTED_BUILD.
    pub committed_firmware: [u8; 3],
    /// LAUNCH_TCB.
    pub launch_tcb: Tcb,
    /// LAUNCH_MIT_VECTOR; from version 5.
    pub launch_mitigations: Option<u64>,
    /// CURRENT_MIT_VECTOR; from version 5.
    pub current_mitigations: Option<u64>,
}

/// Bits of POLICY.
pub mod policy {
    /// SMT is allowed.
    pub const SMT: u64 = 1 << 16;
    /// Reserved, must be one.
    pub const RESERVED_ONE: u64 = 1 << 17;
    /// A migration agent may be bound.
    pub const MIGRATE_MA: u64 = 1 << 18;
    /// The host may debug the guest.
    pub const DEBUG: u64 = 1 << 19;
    /// Only one socket.
    pub const SINGLE_SOCKET: u64 = 1 << 20;
    /// CXL is allowed.
    pub const CXL_ALLOW: u64 = 1 << 21;
    /// AES-256 XTS is demanded.
    pub const MEM_AES_256_XTS: u64 = 1 << 22;
    /// RAPL must be disabled.
    pub const RAPL_DIS: u64 = 1 << 23;
    /// Ciphertext hiding is demanded.
    pub const CIPHERTEXT_HIDING_DRAM: u64 = 1 << 24;
    /// Page swapping must be disabled.
    pub const PAGE_SWAP_DISABLE: u64 = 1 << 25;
}

/// Bits of PLATFORM_INFO.
pub mod platform_info {
    /// SMT is on.
    pub const SMT_EN: u64 = 1;
    /// Transparent SME is on.
    pub const TSME_EN: u64 = 1 << 1;
    /// Memory has ECC.
    pub const ECC_EN: u64 = 1 << 2;
    /// RAPL is disabled.
    pub const RAPL_DIS: u64 = 1 << 3;
    /// Ciphertext hiding is on.
    pub const CIPHERTEXT_HIDING_DRAM_EN: u64 = 1 << 4;
    /// Memory was checked for aliases (BadRAM).
    pub const ALIAS_CHECK_COMPLETE: u64 = 1 << 5;
    /// TIO is on.
    pub const TIO_EN: u64 = 1 << 7;
}
