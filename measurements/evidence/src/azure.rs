//! What Azure's paravisor leaves for its guest in the vTPM (NV index 0x01400001): a hardware report on the paravisor, and
//! the runtime data that the report covers.
//!
//! ```text
//! header (32) ‖ hardware report (1184) ‖ request data (20) ‖ runtime data ‖ zeros up to the size of the NV index
//! ```
//!
//! Integers are little-endian. The layout is that of `IgvmAttestRequestBase` in the public source of OpenHCL
//! (microsoft/openvmm, `openhcl_attestation_protocol`). Only the hardware report is signed, and through it the runtime
//! data: everything else must have its one value, but for [`HclReport::version`] and [`HclReport::padding`], which mean
//! nothing to us. Nothing here checks a signature.

use std::fmt::Display;

mod runtime_data;
mod td_report;

pub use runtime_data::{RuntimeData, VmConfiguration};
pub use td_report::{TD_REPORT_SIZE, TdReport};

/// Longest HCL report with its padding, in bytes. The NV index of today has 2,600.
pub const HCL_REPORT_CAP: usize = 8 * 1024;
/// Size of an ATTESTATION_REPORT, and so of the area for hardware reports.
pub const SNP_REPORT_SIZE: usize = 1184;

const HEADER_SIZE: usize = 32;
const REQUEST_DATA_SIZE: usize = 20;
/// Where the runtime data start.
const RUNTIME_DATA: usize = HEADER_SIZE + SNP_REPORT_SIZE + REQUEST_DATA_SIZE;
const SIGNATURE: u32 = u32::from_le_bytes(*b"HCLA");
/// `AK_CERT_REQUEST`: the request whose claims name the AK.
const AK_CERT_REQUEST: u32 = 2;
/// `SNP_VM_REPORT`, `TDX_VM_REPORT`.
const SNP_VM_REPORT: u32 = 2;
const TDX_VM_REPORT: u32 = 4;
/// `SHA_256`: how the hardware report covers the runtime data.
const SHA_256: u32 = 1;

/// An HCL report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HclReport {
    /// Version of the header, 1 or 2; both have one layout.
    pub version: u32,
    /// The hardware's report on the paravisor.
    pub hardware: HardwareReport,
    /// JSON text, verbatim: its SHA-256 stands in the hardware report. See [`RuntimeData`].
    pub runtime_data: Vec<u8>,
    /// Zero bytes behind the runtime data, as many as the NV index is longer than the report.
    pub padding: usize,
}

/// The hardware's part of an [`HclReport`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HardwareReport {
    /// An ATTESTATION_REPORT, unparsed.
    Snp(Box<[u8; SNP_REPORT_SIZE]>),
    /// A TDREPORT. Only its own processor can check it; a quoting enclave makes a TD quote of it.
    Tdx(Box<TdReport>),
}

/// Why bytes are not what they were taken for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: wanted {wanted}, got {got}")]
pub struct HclError {
    /// The member, as the source of OpenHCL, Intel's specification or the JSON spells it.
    pub field: &'static str,
    /// What is accepted there.
    pub wanted: String,
    /// What was there.
    pub got: String,
}

impl HclReport {
    /// Parses the content of the NV index.
    ///
    /// # Errors
    /// [`HclError`] naming the member: too short or too long, another signature, version, request or hash, a status, sizes
    /// that contradict each other, reserved bytes or padding that are not zero, and for TDX what [`TdReport::parse`]
    /// refuses.
    pub fn parse(bytes: &[u8]) -> Result<Self, HclError> {
        if bytes.len() < RUNTIME_DATA || bytes.len() > HCL_REPORT_CAP {
            return Err(HclError::new("HCL report", format!("{RUNTIME_DATA} to {HCL_REPORT_CAP} bytes"), bytes.len()));
        }
        let word = |at: usize| u32::from_le_bytes(array(bytes, at));
        one_of("signature", &[SIGNATURE], word(0))?;
        let version = one_of("version", &[1, 2], word(4))?;
        one_of("request_type", &[AK_CERT_REQUEST], word(12))?;
        one_of("status", &[0], word(16))?;
        zeros("reserved", &bytes[20..HEADER_SIZE])?;

        let request_data = HEADER_SIZE + SNP_REPORT_SIZE;
        one_of("request_data.version", &[1], word(request_data + 4))?;
        let report_type = one_of("report_type", &[SNP_VM_REPORT, TDX_VM_REPORT], word(request_data + 8))?;
        one_of("report_data_hash_type", &[SHA_256], word(request_data + 12))?;
        let variable = word(request_data + 16);
        let left = bytes.len() - RUNTIME_DATA;
        let Some(size) = usize::try_from(variable).ok().filter(|size| (1..=left).contains(size)) else {
            return Err(HclError::new("variable_data_size", format!("1 to {left}"), variable));
        };
        // Both repeat that size; a report whose sizes differ has two readings.
        for (field, at, before) in [("data_size", request_data, REQUEST_DATA_SIZE), ("report_size", 8, RUNTIME_DATA)] {
            let (wanted, got) = (before + size, word(at));
            if usize::try_from(got) != Ok(wanted) {
                return Err(HclError::new(field, wanted, got));
            }
        }
        let (runtime_data, padding) = bytes[RUNTIME_DATA..].split_at(size);
        zeros("padding", padding)?;

        let hardware = if report_type == SNP_VM_REPORT {
            HardwareReport::Snp(Box::new(array(bytes, HEADER_SIZE)))
        } else {
            let (report, rest) = bytes[HEADER_SIZE..request_data].split_at(TD_REPORT_SIZE);
            zeros("bytes behind the TDREPORT", rest)?;
            HardwareReport::Tdx(Box::new(TdReport::parse(report)?))
        };
        Ok(Self { version, hardware, runtime_data: runtime_data.to_vec(), padding: padding.len() })
    }

    /// The content of the NV index.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Bounded by the cap for whatever was parsed.
        let size = |before: usize| u32::try_from(before + self.runtime_data.len()).unwrap_or(u32::MAX);
        let (report_type, report) = match &self.hardware {
            HardwareReport::Snp(report) => (SNP_VM_REPORT, report.to_vec()),
            HardwareReport::Tdx(report) => (TDX_VM_REPORT, report.to_bytes().to_vec()),
        };
        let mut out = Vec::new();
        for word in [SIGNATURE, self.version, size(RUNTIME_DATA), AK_CERT_REQUEST, 0, 0, 0, 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend(report);
        out.resize(HEADER_SIZE + SNP_REPORT_SIZE, 0);
        for word in [size(REQUEST_DATA_SIZE), 1, report_type, SHA_256, size(0)] {
            out.extend(word.to_le_bytes());
        }
        out.extend(&self.runtime_data);
        out.resize(out.len() + self.padding, 0);
        out
    }
}

impl HardwareReport {
    /// What the paravisor had the hardware sign: the digest of the runtime data, and zeros.
    #[must_use]
    pub fn report_data(&self) -> [u8; 64] {
        match self {
            // ATTESTATION_REPORT, offset 50h.
            Self::Snp(report) => array(&report[..], 0x50),
            Self::Tdx(report) => report.report_data.0,
        }
    }
}

impl HclError {
    fn new(field: &'static str, wanted: impl Display, got: impl Display) -> Self {
        Self { field, wanted: wanted.to_string(), got: got.to_string() }
    }
}

fn one_of(field: &'static str, wanted: &[u32], got: u32) -> Result<u32, HclError> {
    if wanted.contains(&got) {
        return Ok(got);
    }
    let wanted: Vec<_> = wanted.iter().map(|value| format!("0x{value:x}")).collect();
    Err(HclError::new(field, wanted.join(" or "), format!("0x{got:x}")))
}

fn zeros(field: &'static str, bytes: &[u8]) -> Result<(), HclError> {
    match bytes.iter().position(|byte| *byte != 0) {
        None => Ok(()),
        Some(at) => Err(HclError::new(field, "zeros", format!("0x{:x} at byte {at} of it", bytes[at]))),
    }
}

/// `N` bytes of a structure whose size was checked before.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
