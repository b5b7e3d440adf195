//! ATTESTATION_REPORT (ABI, table "ATTESTATION_REPORT Structure"), field by field. Integers are little-endian.

use std::ops::Range;

use super::{Family, Tcb, platform_info, policy};
use crate::Hex;

/// SIGNING_KEY of a report that a VCEK signed.
pub const SIGNING_KEY_VCEK: u8 = 0;
/// SIGNING_KEY of a report that a VLEK signed.
pub const SIGNING_KEY_VLEK: u8 = 1;
/// SIGNING_KEY of a report that nobody signed.
pub const SIGNING_KEY_NONE: u8 = 7;

/// SIGNATURE_ALGO of ECDSA P-384 with SHA-384, the only one defined.
const ECDSA_P384_SHA384: u32 = 1;
/// First version with CPUID_FAM_ID, CPUID_MOD_ID and CPUID_STEP.
const VERSION_WITH_CPUID: u32 = 3;
/// First version with LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR.
const VERSION_WITH_MIT_VECTORS: u32 = 5;

/// POLICY: bits that a firmware may set.
const POLICY_BITS: u64 = (policy::PAGE_SWAP_DISABLE << 1) - 1;
/// PLATFORM_INFO: bits that a firmware may set.
const PLATFORM_INFO_BITS: u64 = (platform_info::TIO_EN << 1) - 1;

/// Offsets of the fields.
mod at {
    pub(super) const VERSION: usize = 0x000;
    pub(super) const GUEST_SVN: usize = 0x004;
    pub(super) const POLICY: usize = 0x008;
    pub(super) const FAMILY_ID: usize = 0x010;
    pub(super) const IMAGE_ID: usize = 0x020;
    pub(super) const VMPL: usize = 0x030;
    pub(super) const SIGNATURE_ALGO: usize = 0x034;
    pub(super) const CURRENT_TCB: usize = 0x038;
    pub(super) const PLATFORM_INFO: usize = 0x040;
    pub(super) const KEY_INFO: usize = 0x048;
    pub(super) const REPORT_DATA: usize = 0x050;
    pub(super) const MEASUREMENT: usize = 0x090;
    pub(super) const HOST_DATA: usize = 0x0C0;
    pub(super) const ID_KEY_DIGEST: usize = 0x0E0;
    pub(super) const AUTHOR_KEY_DIGEST: usize = 0x110;
    pub(super) const REPORT_ID: usize = 0x140;
    pub(super) const REPORT_ID_MA: usize = 0x160;
    pub(super) const REPORTED_TCB: usize = 0x180;
    pub(super) const CPUID: usize = 0x188;
    pub(super) const CHIP_ID: usize = 0x1A0;
    pub(super) const COMMITTED_TCB: usize = 0x1E0;
    pub(super) const CURRENT_BUILD: usize = 0x1E8;
    pub(super) const COMMITTED_BUILD: usize = 0x1EC;
    pub(super) const LAUNCH_TCB: usize = 0x1F0;
    pub(super) const LAUNCH_MIT_VECTOR: usize = 0x1F8;
    pub(super) const CURRENT_MIT_VECTOR: usize = 0x200;
    pub(super) const SIGNATURE: usize = 0x2A0;
    pub(super) const SIGNATURE_S: usize = SIGNATURE + 72;
}

/// Bytes of `r`, and of `s`, that P-384 needs; the field of each has 72.
const SCALAR: usize = 48;

/// Must be zero in every version.
const RESERVED: [Range<usize>; 8] = [
    0x04C..at::REPORT_DATA,
    0x18B..at::CHIP_ID,
    0x1EB..at::COMMITTED_BUILD,
    0x1EF..at::LAUNCH_TCB,
    0x208..at::SIGNATURE,
    // Unsigned. Each non-zero byte would be another encoding of the same signature.
    at::SIGNATURE + SCALAR..at::SIGNATURE_S,
    at::SIGNATURE_S + SCALAR..at::SIGNATURE_S + 72,
    at::SIGNATURE_S + 72..Report::SIZE,
];

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
    /// SIGNATURE as `r ‖ s`, each big-endian: ECDSA P-384 with SHA-384 over [`Report::signed_part`].
    pub signature: Hex<96>,
}

/// Why bytes are not a report.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReportError {
    /// Another length.
    #[error("ATTESTATION_REPORT: wanted 1184 bytes, got {got}")]
    Length {
        /// Bytes that came.
        got: usize,
    },
    /// A reserved byte that is set.
    #[error("{field}: wanted zero at offset 0x{offset:x}, got 0x{got:x}")]
    Reserved {
        /// Whose it is, or `reserved`.
        field: &'static str,
        /// Where in the report.
        offset: usize,
        /// The byte.
        got: u8,
    },
    /// A value that the ABI does not define.
    #[error("{field}: wanted {wanted}, got 0x{got:x}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is accepted.
        wanted: &'static str,
        /// What was there.
        got: u64,
    },
}

impl Report {
    /// Bytes of a report.
    pub const SIZE: usize = 0x4A0;

    /// The bytes that the signature covers: what identifies a report. `None` for fewer bytes.
    #[must_use]
    pub fn signed_part(bytes: &[u8]) -> Option<&[u8]> {
        bytes.get(..at::SIGNATURE)
    }

    /// Parses a report: of a known version, every reserved bit as the ABI wants it, its signature in the one canonical form.
    ///
    /// # Errors
    /// [`ReportError`] naming the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let raw = Raw(bytes.try_into().map_err(|_| ReportError::Length { got: bytes.len() })?);
        let version = raw.u32(at::VERSION);
        require("VERSION", "2, 3 or 5", version.into(), matches!(version, 2 | 3 | 5))?;
        let algorithm = raw.u32(at::SIGNATURE_ALGO);
        require("SIGNATURE_ALGO", "1", algorithm.into(), algorithm == ECDSA_P384_SHA384)?;
        let policy = raw.u64(at::POLICY);
        let right = policy & !POLICY_BITS == 0 && policy & policy::RESERVED_ONE != 0;
        require("POLICY", "bit 17 one, bits 26 to 63 zero", policy, right)?;
        let platform_info = raw.u64(at::PLATFORM_INFO);
        let right = platform_info & !PLATFORM_INFO_BITS == 0;
        require("PLATFORM_INFO", "bits 8 to 63 zero", platform_info, right)?;
        let key_info = raw.u32(at::KEY_INFO);
        require("KEY_INFO", "bits 5 to 31 zero", key_info.into(), key_info >> 5 == 0)?;
        let signing_key = raw.0[at::KEY_INFO] >> 2;
        let known = matches!(signing_key, SIGNING_KEY_VCEK | SIGNING_KEY_VLEK | SIGNING_KEY_NONE);
        require("SIGNING_KEY", "0 (VCEK), 1 (VLEK) or 7 (none)", signing_key.into(), known)?;

        for range in RESERVED {
            raw.zero("reserved", range)?;
        }
        let cpuid = version >= VERSION_WITH_CPUID;
        if !cpuid {
            raw.zero("reserved", at::CPUID..at::CPUID + 3)?;
        }
        let mitigations = version >= VERSION_WITH_MIT_VECTORS;
        if !mitigations {
            raw.zero("reserved", at::LAUNCH_MIT_VECTOR..0x208)?;
        }
        let cpuid = cpuid.then(|| raw.array(at::CPUID));
        // Version 2 is older than the other order of TCB_VERSION.
        let family = cpuid.map_or(Some(Family::Milan), Family::of_cpuid);
        for (field, at) in [
            ("CURRENT_TCB", at::CURRENT_TCB),
            ("REPORTED_TCB", at::REPORTED_TCB),
            ("COMMITTED_TCB", at::COMMITTED_TCB),
            ("LAUNCH_TCB", at::LAUNCH_TCB),
        ] {
            if let Some(reserved) = family.map(Tcb::reserved) {
                raw.zero(field, at + reserved.start..at + reserved.end)?;
            }
        }

        Ok(Self {
            version,
            guest_svn: raw.u32(at::GUEST_SVN),
            policy,
            family_id: Hex(raw.array(at::FAMILY_ID)),
            image_id: Hex(raw.array(at::IMAGE_ID)),
            vmpl: raw.u32(at::VMPL),
            current_tcb: Tcb(raw.array(at::CURRENT_TCB)),
            platform_info,
            author_key_enabled: key_info & 1 != 0,
            mask_chip_key: key_info & 2 != 0,
            signing_key,
            report_data: Hex(raw.array(at::REPORT_DATA)),
            measurement: Hex(raw.array(at::MEASUREMENT)),
            host_data: Hex(raw.array(at::HOST_DATA)),
            id_key_digest: Hex(raw.array(at::ID_KEY_DIGEST)),
            author_key_digest: Hex(raw.array(at::AUTHOR_KEY_DIGEST)),
            report_id: Hex(raw.array(at::REPORT_ID)),
            report_id_ma: Hex(raw.array(at::REPORT_ID_MA)),
            reported_tcb: Tcb(raw.array(at::REPORTED_TCB)),
            cpuid,
            chip_id: Hex(raw.array(at::CHIP_ID)),
            committed_tcb: Tcb(raw.array(at::COMMITTED_TCB)),
            current_firmware: reversed(raw.array(at::CURRENT_BUILD)),
            committed_firmware: reversed(raw.array(at::COMMITTED_BUILD)),
            launch_tcb: Tcb(raw.array(at::LAUNCH_TCB)),
            launch_mitigations: mitigations.then(|| raw.u64(at::LAUNCH_MIT_VECTOR)),
            current_mitigations: mitigations.then(|| raw.u64(at::CURRENT_MIT_VECTOR)),
            signature: raw.signature(),
        })
    }

    /// The report's bytes: those that [`Self::parse`] took it from.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let mut put = |at: usize, field: &[u8]| out[at..at + field.len()].copy_from_slice(field);
        put(at::VERSION, &self.version.to_le_bytes());
        put(at::GUEST_SVN, &self.guest_svn.to_le_bytes());
        put(at::POLICY, &self.policy.to_le_bytes());
        put(at::FAMILY_ID, &self.family_id.0);
        put(at::IMAGE_ID, &self.image_id.0);
        put(at::VMPL, &self.vmpl.to_le_bytes());
        put(at::SIGNATURE_ALGO, &ECDSA_P384_SHA384.to_le_bytes());
        put(at::CURRENT_TCB, &self.current_tcb.0);
        put(at::PLATFORM_INFO, &self.platform_info.to_le_bytes());
        let key_info = u8::from(self.author_key_enabled) | u8::from(self.mask_chip_key) << 1 | self.signing_key << 2;
        put(at::KEY_INFO, &[key_info]);
        put(at::REPORT_DATA, &self.report_data.0);
        put(at::MEASUREMENT, &self.measurement.0);
        put(at::HOST_DATA, &self.host_data.0);
        put(at::ID_KEY_DIGEST, &self.id_key_digest.0);
        put(at::AUTHOR_KEY_DIGEST, &self.author_key_digest.0);
        put(at::REPORT_ID, &self.report_id.0);
        put(at::REPORT_ID_MA, &self.report_id_ma.0);
        put(at::REPORTED_TCB, &self.reported_tcb.0);
        put(at::CPUID, &self.cpuid.unwrap_or_default());
        put(at::CHIP_ID, &self.chip_id.0);
        put(at::COMMITTED_TCB, &self.committed_tcb.0);
        put(at::CURRENT_BUILD, &reversed(self.current_firmware));
        put(at::COMMITTED_BUILD, &reversed(self.committed_firmware));
        put(at::LAUNCH_TCB, &self.launch_tcb.0);
        put(at::LAUNCH_MIT_VECTOR, &self.launch_mitigations.unwrap_or_default().to_le_bytes());
        put(at::CURRENT_MIT_VECTOR, &self.current_mitigations.unwrap_or_default().to_le_bytes());
        let (r, s) = self.signature.0.split_at(SCALAR);
        put(at::SIGNATURE, &r.iter().rev().copied().collect::<Vec<_>>());
        put(at::SIGNATURE_S, &s.iter().rev().copied().collect::<Vec<_>>());
        out
    }
}

fn require(field: &'static str, wanted: &'static str, got: u64, ok: bool) -> Result<(), ReportError> {
    if ok { Ok(()) } else { Err(ReportError::Value { field, wanted, got }) }
}

/// The firmware's version is written build, minor, major.
const fn reversed([first, second, third]: [u8; 3]) -> [u8; 3] {
    [third, second, first]
}

/// Bytes of the right length.
struct Raw<'a>(&'a [u8; Report::SIZE]);

impl Raw<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.0[at..at + N]);
        out
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    fn signature(&self) -> Hex<96> {
        let mut out = [0; 2 * SCALAR];
        let (r, s) = out.split_at_mut(SCALAR);
        for (scalar, at) in [(r, at::SIGNATURE), (s, at::SIGNATURE_S)] {
            scalar.copy_from_slice(&self.0[at..at + SCALAR]);
            scalar.reverse();
        }
        Hex(out)
    }

    fn zero(&self, field: &'static str, range: Range<usize>) -> Result<(), ReportError> {
        match self.0[range.clone()].iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(index) => {
                let offset = range.start + index;
                Err(ReportError::Reserved { field, offset, got: self.0[offset] })
            }
        }
    }
}
