//! The TD quote (Intel TDX DCAP Quoting Library API, appendix A.3), versions 4 and 5, field by field.
//!
//! Parsing a quote believes nothing that it says. One quote has one form: everything up to its declared end is known or
//! refused, and beyond it only zeros are tolerated, which some clouds append. Integers are little-endian.

pub mod pem;

use std::fmt::Display;

use sha2::{Digest as _, Sha384};

use crate::Hex;

/// What was started in a TD, by one number: SHA-384 of MRTD, RTMR 1 and RTMR 2. MRTD alone is the firmware, which images share.
#[must_use]
pub fn measurement(mr_td: Hex<48>, rtmr1: Hex<48>, rtmr2: Hex<48>) -> Hex<48> {
    Hex(Sha384::digest([mr_td.0, rtmr1.0, rtmr2.0].concat()).into())
}

/// Longest quote accepted, in bytes. Real ones have about 5,000, or 8,000 with padding.
pub const QUOTE_CAP: usize = 16 * 1024;
/// `TEE Type` of a TD quote; 0 is SGX.
pub const TEE_TYPE_TDX: u32 = 0x0000_0081;
/// `Attestation Key Type`: ECDSA with SHA-256 on P-256, the only one in use.
pub const ECDSA_P256: u16 = 2;
/// `QE Vendor ID`: Intel's.
pub const INTEL_QE_VENDOR_ID: Hex<16> =
    Hex([0x93, 0x9A, 0x72, 0x33, 0xF7, 0x9C, 0x4C, 0xA9, 0x94, 0x0A, 0x0D, 0xB3, 0x95, 0x7F, 0x06, 0x07]);
/// Length of the quote header.
pub const HEADER_LEN: usize = 48;
/// Length of a TD 1.0 body.
pub const TD10_LEN: usize = 584;
/// Length of a TD 1.5 body.
pub const TD15_LEN: usize = 648;
/// Length of an enclave's report body.
pub const ENCLAVE_REPORT_LEN: usize = 384;
/// Length of the `QE Authentication Data`: Intel's TD quoting enclave writes no other.
pub const QE_AUTHENTICATION_DATA_LEN: usize = 32;

/// `TD Quote Body Descriptor` of version 5: a TD 1.0 body.
const BODY_TD10: u16 = 2;
/// A TD 1.5 body.
const BODY_TD15: u16 = 3;
/// `Certification Data Type`: `QE Report Certification Data`.
const CERTIFICATION_QE_REPORT: u16 = 6;
/// `Certification Data Type`: the PCK certificate chain in PEM.
const CERTIFICATION_PCK_CHAIN: u16 = 5;

/// A quote. Its signature is not checked by parsing it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Quote {
    /// `version`: 4 or 5.
    pub version: u16,
    /// `User Data` of the header; the first 16 bytes name the quoting enclave's instance.
    pub user_data: Hex<20>,
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
    /// `Quote Signature Data`. Boxed: it is as large as the rest.
    pub authentication: Box<Authentication>,
}

/// `ECDSA 256-bit Quote Signature Data Structure`, with the `QE Report Certification Data` in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authentication {
    /// By [`Self::attestation_key`] over [`Quote::signed`]: r ‖ s.
    pub signature: Hex<64>,
    /// Of the quoting enclave: x ‖ y.
    pub attestation_key: Hex<64>,
    /// The quoting enclave, vouching for its key.
    pub qe_report: EnclaveReport,
    /// By the PCK over [`Self::qe_report`]: r ‖ s.
    pub qe_report_signature: Hex<64>,
    /// Hashed with the attestation key into the report's `REPORTDATA`.
    pub qe_authentication_data: Hex<QE_AUTHENTICATION_DATA_LEN>,
    /// PCK certificate, its CA and the root, in PEM; see [`pem::chain`].
    pub pck_chain: Vec<u8>,
}

/// `Enclave Report Body` (Intel SGX DCAP Quoting Library API, appendix A.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EnclaveReport(pub Hex<ENCLAVE_REPORT_LEN>);

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

/// Why bytes are not a quote.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("TD quote, {field}: wanted {wanted}, got {got}")]
pub struct QuoteError {
    /// The field, as the standard spells it.
    pub field: &'static str,
    /// What is accepted.
    pub wanted: String,
    /// What was there.
    pub got: String,
}

impl Quote {
    /// Parses a quote of at most [`QUOTE_CAP`] bytes.
    ///
    /// # Errors
    /// [`QuoteError`] naming the field, for another version or TEE, an attestation key of another type, a quoting enclave
    /// that is not Intel's, lengths that do not fit into each other, and anything but zeros behind the end.
    pub fn parse(bytes: &[u8]) -> Result<Self, QuoteError> {
        if bytes.len() > QUOTE_CAP {
            return Err(error("length", format_args!("at most {QUOTE_CAP}"), bytes.len()));
        }
        let mut r = Reader(bytes);
        let (version, user_data) = header(&mut r)?;
        let td15 = version == 5 && body_descriptor(&mut r)?;
        let tee_tcb_svn = r.array("tee_tcb_svn")?;
        let mr_seam = r.array("mr_seam")?;
        let mrsigner_seam = r.array("mrsigner_seam")?;
        let seam_attributes = r.u64("seam_attributes")?;
        let td_attributes = r.u64("td_attributes")?;
        let xfam = r.u64("xfam")?;
        let mr_td = r.array("mr_td")?;
        let mr_config_id = r.array("mr_config_id")?;
        let mr_owner = r.array("mr_owner")?;
        let mr_owner_config = r.array("mr_owner_config")?;
        let rtmrs = [r.array("rt_mr0")?, r.array("rt_mr1")?, r.array("rt_mr2")?, r.array("rt_mr3")?];
        let report_data = r.array("report_data")?;
        let tee_tcb_svn_2 = td15.then(|| r.array("tee_tcb_svn_2")).transpose()?;
        let mr_service_td = td15.then(|| r.array("mr_service_td")).transpose()?;
        let length = r.u32("quote signature data length")?;
        let authentication = Authentication::parse(r.take_u32("quote signature data", length)?)?.into();
        if let Some(at) = r.0.iter().position(|byte| *byte != 0) {
            let got = format!("0x{:02x} in byte {}", r.0[at], bytes.len() - r.0.len() + at);
            return Err(error("padding", "zeros behind the quote", got));
        }
        Ok(Self {
            version,
            user_data,
            tee_tcb_svn,
            mr_seam,
            mrsigner_seam,
            seam_attributes,
            td_attributes,
            xfam,
            mr_td,
            mr_config_id,
            mr_owner,
            mr_owner_config,
            rtmrs,
            report_data,
            tee_tcb_svn_2,
            mr_service_td,
            authentication,
        })
    }

    /// The part of the bytes that were parsed which the attestation key signed: header and body.
    #[must_use]
    pub fn signed<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let body = if self.tee_tcb_svn_2.is_some() { TD15_LEN } else { TD10_LEN };
        let descriptor = if self.version == 5 { 6 } else { 0 };
        bytes.get(..HEADER_LEN + descriptor + body).unwrap_or_default()
    }

    /// The quote without padding: the bytes that were parsed, up to their declared end.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(QUOTE_CAP);
        out.extend(self.version.to_le_bytes());
        out.extend(ECDSA_P256.to_le_bytes());
        out.extend(TEE_TYPE_TDX.to_le_bytes());
        out.extend([0; 4]);
        out.extend(INTEL_QE_VENDOR_ID.0);
        out.extend(self.user_data.0);
        if self.version == 5 {
            let (kind, len) = if self.mr_service_td.is_some() { (BODY_TD15, TD15_LEN) } else { (BODY_TD10, TD10_LEN) };
            out.extend(kind.to_le_bytes());
            out.extend(length(len));
        }
        out.extend(self.tee_tcb_svn.0);
        out.extend(self.mr_seam.0);
        out.extend(self.mrsigner_seam.0);
        out.extend(self.seam_attributes.to_le_bytes());
        out.extend(self.td_attributes.to_le_bytes());
        out.extend(self.xfam.to_le_bytes());
        for register in [self.mr_td, self.mr_config_id, self.mr_owner, self.mr_owner_config].iter().chain(&self.rtmrs) {
            out.extend(register.0);
        }
        out.extend(self.report_data.0);
        out.extend(self.tee_tcb_svn_2.iter().flat_map(|svn| svn.0));
        out.extend(self.mr_service_td.iter().flat_map(|hash| hash.0));
        let authentication = self.authentication.to_bytes();
        out.extend(length(authentication.len()));
        out.extend(authentication);
        out
    }
}

impl Authentication {
    fn parse(bytes: &[u8]) -> Result<Self, QuoteError> {
        let mut r = Reader(bytes);
        let signature = r.array("quote signature")?;
        let attestation_key = r.array("ECDSA attestation key")?;
        let mut qe = r.certification_data("certification data", CERTIFICATION_QE_REPORT)?;
        let qe_report = EnclaveReport(qe.array("QE report")?);
        let qe_report_signature = qe.array("QE report signature")?;
        let len = qe.u16("QE authentication data length")?;
        if usize::from(len) != QE_AUTHENTICATION_DATA_LEN {
            return Err(error("QE authentication data length", QE_AUTHENTICATION_DATA_LEN, len));
        }
        let qe_authentication_data = qe.array("QE authentication data")?;
        let pck_chain = qe.certification_data("QE certification data", CERTIFICATION_PCK_CHAIN)?.0.to_vec();
        Ok(Self { signature, attestation_key, qe_report, qe_report_signature, qe_authentication_data, pck_chain })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut qe = self.qe_report.0.0.to_vec();
        qe.extend(self.qe_report_signature.0);
        qe.extend(&length(QE_AUTHENTICATION_DATA_LEN)[..2]);
        qe.extend(self.qe_authentication_data.0);
        qe.extend(CERTIFICATION_PCK_CHAIN.to_le_bytes());
        qe.extend(length(self.pck_chain.len()));
        qe.extend(&self.pck_chain);
        let mut out = self.signature.0.to_vec();
        out.extend(self.attestation_key.0);
        out.extend(CERTIFICATION_QE_REPORT.to_le_bytes());
        out.extend(length(qe.len()));
        out.extend(qe);
        out
    }
}

impl EnclaveReport {
    /// `CPUSVN`.
    #[must_use]
    pub fn cpu_svn(&self) -> Hex<16> {
        self.field(0)
    }

    /// `MISCSELECT`.
    #[must_use]
    pub fn misc_select(&self) -> Hex<4> {
        self.field(16)
    }

    /// `ATTRIBUTES`; bit 1 of the first byte is DEBUG.
    #[must_use]
    pub fn attributes(&self) -> Hex<16> {
        self.field(48)
    }

    /// `MRENCLAVE`.
    #[must_use]
    pub fn mr_enclave(&self) -> Hex<32> {
        self.field(64)
    }

    /// `MRSIGNER`.
    #[must_use]
    pub fn mr_signer(&self) -> Hex<32> {
        self.field(128)
    }

    /// `ISVPRODID`.
    #[must_use]
    pub fn isv_prod_id(&self) -> u16 {
        u16::from_le_bytes(self.field(256).0)
    }

    /// `ISVSVN`.
    #[must_use]
    pub fn isv_svn(&self) -> u16 {
        u16::from_le_bytes(self.field(258).0)
    }

    /// `REPORTDATA`.
    #[must_use]
    pub fn report_data(&self) -> Hex<64> {
        self.field(320)
    }

    fn field<const N: usize>(&self, offset: usize) -> Hex<N> {
        let mut field = [0; N];
        field.copy_from_slice(&self.0.0[offset..offset + N]);
        Hex(field)
    }
}

/// The header up to the body: its version and user data.
fn header(r: &mut Reader<'_>) -> Result<(u16, Hex<20>), QuoteError> {
    let version = r.u16("version")?;
    if version != 4 && version != 5 {
        // The other formats that quoting enclaves are heard to speak: COSE_Sign1, tagged or not, as of a CWT or DICE.
        let cbor = matches!(version.to_le_bytes()[0], 0x84 | 0xD2 | 0xD8 | 0xD9);
        let got = if cbor { format!("{version}, or CBOR (a CWT or DICE token)") } else { version.to_string() };
        return Err(error("version", "4 or 5", got));
    }
    let key = r.u16("attestation key type")?;
    if key != ECDSA_P256 {
        return Err(error("attestation key type", "2 (ECDSA P-256)", key));
    }
    let tee = r.u32("TEE type")?;
    if tee != TEE_TYPE_TDX {
        return Err(error("TEE type", "0x81 (TDX)", format_args!("{tee:#x}")));
    }
    let reserved: Hex<4> = r.array("reserved")?;
    if reserved.0 != [0; 4] {
        return Err(error("reserved", Hex([0; 4]), reserved));
    }
    let vendor = r.array("QE vendor id")?;
    if vendor != INTEL_QE_VENDOR_ID {
        return Err(error("QE vendor id", format_args!("{INTEL_QE_VENDOR_ID} (Intel)"), vendor));
    }
    Ok((version, r.array("user data")?))
}

/// Whether a TD 1.5 body follows.
fn body_descriptor(r: &mut Reader<'_>) -> Result<bool, QuoteError> {
    let (kind, size) = (r.u16("body type")?, r.u32("body size")?);
    let wanted = match kind {
        BODY_TD10 => TD10_LEN,
        BODY_TD15 => TD15_LEN,
        _ => return Err(error("body type", "2 (TD 1.0) or 3 (TD 1.5)", kind)),
    };
    if usize::try_from(size) != Ok(wanted) {
        return Err(error("body size", wanted, size));
    }
    Ok(kind == BODY_TD15)
}

fn error(field: &'static str, wanted: impl Display, got: impl Display) -> QuoteError {
    QuoteError { field, wanted: wanted.to_string(), got: got.to_string() }
}

/// A length that was parsed from 32 bits.
fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// Takes fields from the front; bounded by the bytes there are, never by a declared length.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// `Certification Data` that fills what is left.
    fn certification_data(&mut self, field: &'static str, kind: u16) -> Result<Self, QuoteError> {
        let got = self.u16(field)?;
        if got != kind {
            return Err(error(field, format_args!("type {kind}"), format_args!("type {got}")));
        }
        let len = self.u32(field)?;
        if usize::try_from(len) != Ok(self.0.len()) {
            return Err(error(field, format_args!("{} bytes, which are left", self.0.len()), len));
        }
        Ok(Self(std::mem::take(&mut self.0)))
    }

    fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], QuoteError> {
        let Some((head, rest)) = self.0.split_at_checked(len) else {
            return Err(error(field, format_args!("{len} bytes"), format_args!("{}, then the end", self.0.len())));
        };
        self.0 = rest;
        Ok(head)
    }

    fn take_u32(&mut self, field: &'static str, len: u32) -> Result<&'a [u8], QuoteError> {
        self.take(field, usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<Hex<N>, QuoteError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(field, N)?);
        Ok(Hex(out))
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, QuoteError> {
        Ok(u16::from_le_bytes(self.array(field)?.0))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, QuoteError> {
        Ok(u32::from_le_bytes(self.array(field)?.0))
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, QuoteError> {
        Ok(u64::from_le_bytes(self.array(field)?.0))
    }
}
