//! `blf.endorsements/v1`: what the makers of chips say about theirs, stapled to Evidence.
//!
//! The host fetches it and the guest carries it unparsed (architecture decision 15). Nothing in it is believed before a
//! verifier has found a pinned root's signature over it.

use serde::{Deserialize, Serialize};

use crate::json::{self, JsonError};
use crate::{Base64, Hex};

/// Longest document, in bytes.
pub const ENDORSEMENTS_CAP: usize = 128 * 1024;
/// The `schema` member of every such document.
pub const SCHEMA: &str = "blf.endorsements/v1";

/// Endorsements for the chips that a node's evidence may come from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Endorsements {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// For SEV-SNP, or null.
    pub snp: Option<SnpEndorsements>,
    /// For TDX, or null.
    pub tdx: Option<TdxEndorsements>,
}

/// AMD's certificates, each X.509 in DER (Versioned Chip Endorsement Key Certificate and KDS Interface Specification).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SnpEndorsements {
    /// The VCEK or VLEK; null where the report's own certificate table has it.
    pub vek: Option<Base64>,
    /// The ASK or ASVK; null for the one that the verifier carries.
    pub ask: Option<Base64>,
    /// The ARK; null for the one that the verifier carries. Another one is refused.
    pub ark: Option<Base64>,
    /// The ARK's certificate revocation list, or null: for a VCEK the one that AMD's KDS has below `/vcek/v1`, for a VLEK below
    /// `/vlek/v1`.
    pub crl: Option<Base64>,
}

/// Intel's collateral for a quote, version 3 (Intel TDX DCAP Quoting Library API, `tdx_ql_qve_collateral_t`), each part
/// verbatim: what is signed is the text as it came.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TdxEndorsements {
    /// PEM: the issuer of `pck_crl`, and the root.
    pub pck_crl_issuer_chain: String,
    /// CRL of the root CA, DER.
    pub root_ca_crl: Base64,
    /// CRL of the CA that issued the PCK certificate, DER.
    pub pck_crl: Base64,
    /// PEM: the TCB signing certificate, and the root.
    pub tcb_info_issuer_chain: String,
    /// TCB info (`tcbInfo` of Intel's PCS), JSON text.
    pub tcb_info: String,
    /// ECDSA P-256 over `tcb_info`, r ‖ s.
    pub tcb_info_signature: Hex<64>,
    /// PEM: the TCB signing certificate, and the root.
    pub qe_identity_issuer_chain: String,
    /// Identity of the TD quoting enclave (`enclaveIdentity` of Intel's PCS), JSON text.
    pub qe_identity: String,
    /// ECDSA P-256 over `qe_identity`, r ‖ s.
    pub qe_identity_signature: Hex<64>,
}

impl Default for Endorsements {
    /// None.
    fn default() -> Self {
        Self { schema: SCHEMA.into(), snp: None, tdx: None }
    }
}

impl Endorsements {
    /// Parses the document: bounded, strict, every member written.
    ///
    /// # Errors
    /// [`JsonError`] naming the member.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let endorsements: Self = json::parse_whole("endorsements", bytes, ENDORSEMENTS_CAP)?;
        if endorsements.schema != SCHEMA {
            let error = format!("schema: wanted {SCHEMA}, got {}", json::excerpt(&endorsements.schema));
            return Err(JsonError::Malformed { what: "endorsements", error });
        }
        Ok(endorsements)
    }

    /// The document as JSON text.
    ///
    /// # Errors
    /// [`JsonError::Malformed`] never for a value that [`Self::parse`] accepts.
    pub fn to_json(&self) -> Result<String, JsonError> {
        json::canonical("endorsements", self)
    }
}
