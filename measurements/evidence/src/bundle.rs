//! `blf.evidence/v1`: Evidence and its stapled Endorsements as one JSON document.

use serde::{Deserialize, Serialize};

use crate::azure::HCL_REPORT_CAP;
use crate::config::CONFIG_CAP;
use crate::endorsements::ENDORSEMENTS_CAP;
use crate::json::{self, JsonError};
use crate::snp::TABLE_CAP;
use crate::statement::{BINDING_CAP, Binding};
use crate::tdx::QUOTE_CAP;
use crate::{Base64, Hex};

/// Longest evidence document, in bytes.
pub const EVIDENCE_CAP: usize = 512 * 1024;
/// The `schema` member of every evidence document.
pub const SCHEMA: &str = "blf.evidence/v1";
/// Registers of a TPM's PCR bank (TCG PC Client Platform TPM Profile, section 4.6).
pub const PCRS: usize = 24;

/// Caps on the parts, in bytes, beside those of their parsers: a report of SEV-SNP, of which every one has 1,184.
const REPORT_CAP: usize = 16 * 1024;
/// An event log.
const EVENT_LOG_CAP: usize = 128 * 1024;
/// TPMS_ATTEST, TPMT_SIGNATURE and TPMT_PUBLIC, each.
const TPM_STRUCTURE_CAP: usize = 1024;
/// One certificate.
const CERTIFICATE_CAP: usize = 4 * 1024;

/// What a node hands to whoever wants to rely on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The binding, verbatim (RFC 8785 canonical JSON as text).
    pub binding: String,
    /// The operator's public configuration, verbatim.
    pub config: String,
    /// What the platform says about the statement.
    pub platform: Platform,
    /// One opaque document from the host, judged only by the verifier (architecture decision 15), or null.
    pub endorsements: Option<Base64>,
}

/// Evidence of one platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Platform {
    /// SEV-SNP or TDX below Azure's paravisor.
    Azure(AzureEvidence),
    /// AMD SEV-SNP.
    Snp(SnpEvidence),
    /// Intel TDX.
    Tdx(TdxEvidence),
    /// TPM 2.0.
    Tpm(TpmEvidence),
}

/// A guest of Azure: the hardware vouches for the paravisor, the paravisor for the vTPM, the vTPM for the guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureEvidence {
    /// The HCL report (vTPM, NV index 0x01400001): a hardware report and the runtime data that it covers.
    pub hcl_report: Base64,
    /// On TDX the TD quote that Azure's metadata service made of the HCL report's TDREPORT; null on SEV-SNP.
    pub td_quote: Option<Base64>,
    /// What the vTPM says of the guest. Nobody certified its AK; the runtime data names it.
    pub tpm: TpmEvidence,
}

/// An ATTESTATION_REPORT (SEV-SNP ABI, table "ATTESTATION_REPORT Structure").
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpEvidence {
    /// The report, 1,184 bytes.
    pub report: Base64,
    /// The GHCB certificate table that the host lent (configfs-tsm `auxblob`), or null.
    pub certificates: Option<Base64>,
}

/// A TD quote (Intel TDX DCAP Quoting Library API, appendix A.3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxEvidence {
    /// The quote.
    pub quote: Base64,
    /// The CC event log (ACPI CCEL), or null.
    pub event_log: Option<Base64>,
}

/// A TPM 2.0 quote over all 24 PCRs of the SHA-256 bank.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmEvidence {
    /// TPMS_ATTEST (TPM 2.0 Part 2, 10.12.12).
    pub quote: Base64,
    /// TPMT_SIGNATURE (TPM 2.0 Part 2, 11.3.4) by the AK.
    pub signature: Base64,
    /// The AK's TPMT_PUBLIC (TPM 2.0 Part 2, 12.2.4).
    pub ak_public: Base64,
    /// X.509 certificate (DER) that an ICL issued for the AK at enrolment, or null.
    pub ak_certificate: Option<Base64>,
    /// PCR 0 to 23, SHA-256 bank.
    pub pcrs: Vec<Hex<32>>,
    /// The firmware's event log (TCG PC Client Platform Firmware Profile), or null.
    pub event_log: Option<Base64>,
}

/// A member that holds bytes: its name, its cap and what is there.
type Part<'a> = (&'static str, usize, Option<&'a Base64>);

impl Platform {
    fn parts(&self) -> Vec<Part<'_>> {
        match self {
            Self::Azure(azure) => {
                let mut parts = azure.tpm.parts();
                parts.push(("hcl_report", HCL_REPORT_CAP, Some(&azure.hcl_report)));
                parts.push(("td_quote", QUOTE_CAP, azure.td_quote.as_ref()));
                parts
            }
            Self::Snp(snp) => {
                vec![("report", REPORT_CAP, Some(&snp.report)), ("certificates", TABLE_CAP, snp.certificates.as_ref())]
            }
            Self::Tdx(tdx) => {
                vec![("quote", QUOTE_CAP, Some(&tdx.quote)), ("event_log", EVENT_LOG_CAP, tdx.event_log.as_ref())]
            }
            Self::Tpm(tpm) => tpm.parts(),
        }
    }

    fn pcrs(&self) -> Option<&[Hex<32>]> {
        match self {
            Self::Azure(azure) => Some(&azure.tpm.pcrs),
            Self::Tpm(tpm) => Some(&tpm.pcrs),
            Self::Snp(_) | Self::Tdx(_) => None,
        }
    }
}

impl TpmEvidence {
    fn parts(&self) -> Vec<Part<'_>> {
        vec![
            ("quote", TPM_STRUCTURE_CAP, Some(&self.quote)),
            ("signature", TPM_STRUCTURE_CAP, Some(&self.signature)),
            ("ak_public", TPM_STRUCTURE_CAP, Some(&self.ak_public)),
            ("ak_certificate", CERTIFICATE_CAP, self.ak_certificate.as_ref()),
            ("event_log", EVENT_LOG_CAP, self.event_log.as_ref()),
        ]
    }
}

impl Evidence {
    /// Parses a document: bounded, strict, its binding canonical, every part within its cap.
    ///
    /// # Errors
    /// [`JsonError`] naming the member.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let evidence: Self = json::parse_whole("evidence", bytes, EVIDENCE_CAP)?;
        evidence.check()?;
        Ok(evidence)
    }

    /// What [`Self::parse`] checks beyond the JSON, for evidence that came inside another document.
    ///
    /// # Errors
    /// [`JsonError`] naming the member.
    pub fn check(&self) -> Result<(), JsonError> {
        let malformed = |error: String| JsonError::Malformed { what: "evidence", error };
        if self.schema != SCHEMA {
            return Err(malformed(format!("schema: wanted {SCHEMA}, got {}", json::excerpt(&self.schema))));
        }
        if self.config.len() > CONFIG_CAP || self.binding.len() > BINDING_CAP {
            return Err(malformed(format!("config or binding: wanted at most {CONFIG_CAP} and {BINDING_CAP} bytes")));
        }
        Binding::parse(self.binding.as_bytes())?;
        if let Some(pcrs) = self.platform.pcrs().filter(|pcrs| pcrs.len() != PCRS) {
            return Err(malformed(format!("pcrs: wanted {PCRS}, got {}", pcrs.len())));
        }
        let mut parts = self.platform.parts();
        parts.push(("endorsements", ENDORSEMENTS_CAP, self.endorsements.as_ref()));
        for (part, cap, bytes) in parts {
            let got = bytes.map_or(0, |bytes| bytes.0.len());
            if got > cap {
                return Err(malformed(format!("{part}: wanted at most {cap} bytes, got {got}")));
            }
        }
        Ok(())
    }

    /// The document as JSON text.
    ///
    /// # Errors
    /// [`JsonError::Malformed`] never for a value that [`Self::check`] accepts.
    pub fn to_json(&self) -> Result<String, JsonError> {
        json::canonical("evidence", self)
    }
}
