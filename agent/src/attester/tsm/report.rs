//! As much of a report's and a quote's layout as the attester must know: does it speak for our statement, and what was measured.

use blf_evidence::{Hex, tdx};

use super::TsmFailure;

/// Launch digest and MRTD are SHA-384 digests.
pub(super) const MEASUREMENT_BYTES: usize = 48;

/// ATTESTATION_REPORT (SEV-SNP ABI, table "ATTESTATION_REPORT Structure"), with its signature.
const SNP_REPORT_BYTES: usize = 1184;
const SNP_VMPL: usize = 0x30;
const SNP_REPORT_DATA: usize = 0x50;
const SNP_MEASUREMENT: usize = 0x90;

/// Quote header (Intel TDX DCAP Quoting Library API, appendix A.3); `tee_type` is in it at 4.
const TDX_HEADER_BYTES: usize = 48;
const TDX_TEE_TYPE: u32 = 0x81;
/// TD report body of TDX 1.0 and of 1.5; the latter adds fields at its end.
const TDX_BODY_1_0_BYTES: usize = 584;
const TDX_BODY_1_5_BYTES: usize = 648;
/// In the body.
const TDX_MRTD: usize = 136;
const TDX_RTMR1: usize = 376;
const TDX_RTMR2: usize = 424;
const TDX_REPORT_DATA: usize = 520;

/// A report or quote that carries the wanted statement.
pub(super) struct Report {
    pub(super) bytes: Vec<u8>,
    pub(super) certificates: Option<Vec<u8>>,
    pub(super) measurement: [u8; MEASUREMENT_BYTES],
}

/// Checks length, REPORT_DATA and, where one was asked for, the VMPL of an SNP report.
pub(super) fn snp(
    bytes: Vec<u8>,
    certificates: Option<Vec<u8>>,
    statement: &[u8; 64],
    vmpl: Option<u64>,
) -> Result<Report, TsmFailure> {
    expect("ATTESTATION_REPORT length", SNP_REPORT_BYTES, bytes.len())?;
    if let Some(wanted) = vmpl {
        let got = u32::from_le_bytes(field("VMPL", &bytes, SNP_VMPL)?).into();
        if got != wanted {
            return Err(TsmFailure::Layout { field: "VMPL", wanted, got });
        }
    }
    check_report_data(&bytes, SNP_REPORT_DATA, statement)?;
    let measurement = field("MEASUREMENT", &bytes, SNP_MEASUREMENT)?;
    Ok(Report { bytes, certificates, measurement })
}

/// Checks versions, lengths and REPORT_DATA of a quote of version 4 or 5. Newer platforms' other formats (DICE, CWT) are
/// refused by their version.
pub(super) fn tdx(bytes: Vec<u8>, statement: &[u8; 64]) -> Result<Report, TsmFailure> {
    expect("quote tee_type", TDX_TEE_TYPE, u32::from_le_bytes(field("quote tee_type", &bytes, 4)?))?;
    let (body, body_bytes) = match u16::from_le_bytes(field("quote version", &bytes, 0)?) {
        4 => (TDX_HEADER_BYTES, TDX_BODY_1_0_BYTES),
        5 => {
            let size = match u16::from_le_bytes(field("quote body type", &bytes, TDX_HEADER_BYTES)?) {
                2 => TDX_BODY_1_0_BYTES,
                kind => {
                    expect("quote body type", 3_u16, kind)?;
                    TDX_BODY_1_5_BYTES
                }
            };
            let declared = u32::from_le_bytes(field("quote body size", &bytes, TDX_HEADER_BYTES + 2)?);
            expect("quote body size", size, usize::try_from(declared).unwrap_or(usize::MAX))?;
            (TDX_HEADER_BYTES + 6, size)
        }
        version => return Err(TsmFailure::Layout { field: "quote version", wanted: 5, got: version.into() }),
    };
    // The kernel may pad the buffer with zeros, so that the declared length may be less than what is left, never more.
    let auth = body + body_bytes;
    let declared = u32::from_le_bytes(field("quote signature length", &bytes, auth)?);
    let left = bytes.len() - auth - 4;
    if declared == 0 || usize::try_from(declared).is_ok_and(|declared| declared > left) {
        let wanted = u64::try_from(left).unwrap_or(u64::MAX);
        return Err(TsmFailure::Layout { field: "quote signature length", wanted, got: declared.into() });
    }
    check_report_data(&bytes, body + TDX_REPORT_DATA, statement)?;
    let [mrtd, rtmr1, rtmr2] = [("MRTD", TDX_MRTD), ("RTMR1", TDX_RTMR1), ("RTMR2", TDX_RTMR2)]
        .map(|(name, offset)| field(name, &bytes, body + offset).map(Hex));
    let Hex(measurement) = tdx::measurement(mrtd?, rtmr1?, rtmr2?);
    Ok(Report { bytes, certificates: None, measurement })
}

fn check_report_data(bytes: &[u8], offset: usize, statement: &[u8; 64]) -> Result<(), TsmFailure> {
    if field::<64>("REPORT_DATA", bytes, offset)? == *statement { Ok(()) } else { Err(TsmFailure::ReportData) }
}

fn field<const N: usize>(field: &'static str, bytes: &[u8], offset: usize) -> Result<[u8; N], TsmFailure> {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().ok_or_else(|| {
        let wanted = u64::try_from(offset + N).unwrap_or(u64::MAX);
        TsmFailure::Layout { field, wanted, got: u64::try_from(bytes.len()).unwrap_or(u64::MAX) }
    })
}

fn expect<T: TryInto<u64> + PartialEq>(field: &'static str, wanted: T, got: T) -> Result<(), TsmFailure> {
    if wanted == got {
        return Ok(());
    }
    let number = |value: T| value.try_into().unwrap_or(u64::MAX);
    Err(TsmFailure::Layout { field, wanted: number(wanted), got: number(got) })
}
