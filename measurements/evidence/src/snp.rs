//! AMD SEV-SNP: the attestation report, and the certificate table that a host lends with it.
//!
//! Names, offsets and reserved bits are those of the SEV-SNP Firmware ABI Specification (AMD publication 56860), section
//! 7.3, and of the GHCB Standardization (56421), section 4.1.8. Parsing checks no signature.

use std::fmt::{self, Display};

mod certificates;
mod report;

pub use certificates::{CertificateTable, CertificateTableError, TABLE_CAP};
pub use report::{Report, ReportError, SIGNING_KEY_NONE, SIGNING_KEY_VCEK, SIGNING_KEY_VLEK};

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

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The family of a chip by CPUID_FAM_ID, CPUID_MOD_ID and CPUID_STEP of its reports.
    #[must_use]
    pub const fn of_cpuid([family, model, _]: [u8; 3]) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0F) => Some(Self::Milan),
            (0x19, 0x10..=0x1F | 0xA0..=0xAF) => Some(Self::Genoa),
            (0x1A, 0x00..=0x1F) => Some(Self::Turin),
            _ => None,
        }
    }

    /// The name that AMD's key distribution service uses.
    #[must_use]
    pub const fn product(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.product())
    }
}

impl Tcb {
    /// The components of a chip of this family (ABI, table "TCB_VERSION").
    #[must_use]
    pub const fn components(self, family: Family) -> TcbComponents {
        match (family, self.0) {
            (Family::Milan | Family::Genoa, [bootloader, tee, _, _, _, _, snp, microcode]) => {
                TcbComponents { fmc: None, bootloader, tee, snp, microcode }
            }
            (Family::Turin, [fmc, bootloader, tee, snp, _, _, _, microcode]) => {
                TcbComponents { fmc: Some(fmc), bootloader, tee, snp, microcode }
            }
        }
    }

    /// Where the bytes lie that the family does not use.
    const fn reserved(family: Family) -> std::ops::Range<usize> {
        match family {
            Family::Milan | Family::Genoa => 2..6,
            Family::Turin => 4..7,
        }
    }
}

impl Display for TcbComponents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc}, ")?;
        }
        write!(f, "bootloader {}, tee {}, snp {}, microcode {}", self.bootloader, self.tee, self.snp, self.microcode)
    }
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
    /// Reserved by the ABI's revision 1.58, and set by genuine Turin firmware (1.55.65); the name is that of other verifiers.
    pub const IOMMU_WRITE_SAFE: u64 = 1 << 6;
    /// TIO is on.
    pub const TIO_EN: u64 = 1 << 7;
}
