//! Reference Values: the images that a relying party knows (`blf.references/v1`), each with what it measures to on every
//! platform that it was released for.
//!
//! A release manifest ([`Release`]) says how one image was built; this document says which images count, from when, until
//! when, and which no longer do. Its JSON Schema is `schema/references.v1.json` beside this crate. Where a platform's
//! measured firmware is not released, no image has a value for it, and evidence of it is refused as unknown.

use std::fmt;

use blf_evidence::json::{self, JsonError};
use blf_evidence::statement::Profile;
use blf_evidence::{Hex, UnixTime, tdx};
use serde::{Deserialize, Serialize};

use crate::authenticate::Claims;
use crate::policy::Accept;
use crate::release::{Release, measurement_id};

/// Longest document, in bytes: some 2,000 images with 8 launch digests each.
pub const REFERENCES_CAP: usize = 4 * 1024 * 1024;
/// The `schema` member of every such document.
pub const SCHEMA: &str = "blf.references/v1";

/// The images that a relying party knows. No two measure alike.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct References {
    /// The images.
    pub references: Vec<Reference>,
    /// Always [`SCHEMA`].
    pub schema: String,
}

/// One image.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Built from exactly the inputs that the repository locks.
    pub locked: bool,
    /// Name of the image, `blf`.
    pub name: String,
    /// Name and id of the network profile compiled into the image.
    pub profile: Profile,
    /// Why it no longer counts, or null.
    pub retired: Option<String>,
    /// On SEV-SNP: one launch digest for each machine that it may be launched on. Empty where it was not released for it.
    pub snp: Vec<SnpReference>,
    /// On TDX, or null.
    pub tdx: Option<TdxReference>,
    /// With a TPM, or null.
    pub tpm: Option<TpmReference>,
    /// It counts from this time on.
    pub valid_from: UnixTime,
    /// It no longer counts at this time, or null.
    pub valid_until: Option<UnixTime>,
    /// Version of the image.
    pub version: String,
}

/// A launch digest, and the machine that it is for: its VMSAs are measured.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SnpReference {
    /// MEASUREMENT.
    pub measurement: Hex<48>,
    /// The CPU model whose CPUID signature the VMSAs have, as QEMU names it.
    pub model: String,
    /// SEV_FEATURES of the VMSAs.
    pub sev_features: u64,
    /// How many VMSAs there are.
    pub vcpus: u32,
}

/// What an image measures to on TDX.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TdxReference {
    /// The firmware, in each order of measuring that a VMM has.
    pub mrtd: Vec<Hex<48>>,
    /// The firmware's configuration, which depends on memory, devices and the VMM's tables.
    pub rtmr0: Accept<Hex<48>>,
    /// What the firmware started.
    pub rtmr1: Hex<48>,
    /// Sections of the image.
    pub rtmr2: Hex<48>,
}

/// What an image measures to in the SHA-256 bank of a TPM.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TpmReference {
    /// Sections of the image.
    #[serde(rename = "11")]
    pub pcr11: Hex<32>,
    /// In each way that firmware may start it.
    #[serde(rename = "4")]
    pub pcr4: Vec<Hex<32>>,
    /// Command line and initrd.
    #[serde(rename = "9")]
    pub pcr9: Hex<32>,
}

/// What a platform says was started. Its text is the measurement id.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Image {
    /// Launch digest.
    Snp(Hex<48>),
    /// MRTD, RTMR 1 and 2.
    Tdx(Hex<48>, Hex<48>, Hex<48>),
    /// PCR 11.
    Tpm(Hex<32>),
}

impl References {
    /// Parses the document.
    ///
    /// # Errors
    /// [`JsonError`] for anything but strict JSON with every member, and for two images that measure alike.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let references: Self = json::parse_whole("references", bytes, REFERENCES_CAP)?;
        let malformed = |error: String| Err(JsonError::Malformed { what: "references", error });
        if references.schema != SCHEMA {
            return malformed(format!("schema: wanted {SCHEMA}, got {}", json::excerpt(&references.schema)));
        }
        let mut images: Vec<_> = references.references.iter().flat_map(Reference::images).collect();
        images.sort_unstable();
        if let Some(pair) = images.windows(2).find(|pair| pair[0] == pair[1]) {
            return malformed(format!("{}: wanted once, got twice", pair[0].measured()));
        }
        Ok(references)
    }

    /// The document as JSON for people: indented, ending with a line feed.
    ///
    /// # Errors
    /// [`JsonError::Malformed`] never for a value that [`Self::parse`] accepts.
    pub fn to_json(&self) -> Result<String, JsonError> {
        let malformed =
            |error: serde_json::Error| JsonError::Malformed { what: "references", error: error.to_string() };
        Ok(serde_json::to_string_pretty(self).map_err(malformed)? + "\n")
    }

    /// The measurement ids of images that are not retired: those that a job may name.
    #[must_use]
    pub fn measurement_ids(&self) -> Vec<String> {
        let current = self.references.iter().filter(|reference| reference.retired.is_none());
        current.flat_map(Reference::images).map(|image| image.to_string()).collect()
    }

    pub(crate) fn find(&self, image: Image) -> Option<&Reference> {
        self.references.iter().find(|reference| reference.images().any(|own| own == image))
    }
}

impl From<&Release> for References {
    /// The one image of a manifest, which counts at all times.
    fn from(release: &Release) -> Self {
        let reference = Reference {
            locked: release.locked,
            name: release.image_id.clone(),
            profile: release.profile.clone(),
            retired: None,
            snp: Vec::new(),
            tdx: None,
            tpm: Some(TpmReference {
                pcr11: release.pcrs.pcr11,
                pcr4: release.pcrs.pcr4.to_vec(),
                pcr9: release.pcrs.pcr9,
            }),
            valid_from: UnixTime(0),
            valid_until: None,
            version: release.version.clone(),
        };
        Self { references: vec![reference], schema: SCHEMA.into() }
    }
}

impl Reference {
    fn images(&self) -> impl Iterator<Item = Image> {
        let snp = self.snp.iter().map(|launch| Image::Snp(launch.measurement));
        let tdx = self.tdx.iter().flat_map(|tdx| tdx.mrtd.iter().map(|mrtd| Image::Tdx(*mrtd, tdx.rtmr1, tdx.rtmr2)));
        snp.chain(tdx).chain(self.tpm.iter().map(|tpm| Image::Tpm(tpm.pcr11)))
    }
}

impl Image {
    /// What is looked up: on Azure the guest's, whose paravisor is another matter.
    pub(crate) fn of(platform: &Claims) -> Self {
        match platform {
            Claims::Azure(azure) => Self::Tpm(azure.tpm.pcrs[11]),
            Claims::Snp(snp) => Self::Snp(snp.report.measurement),
            Claims::Tdx(tdx) => {
                let [_, rtmr1, rtmr2, _] = tdx.quote.rtmrs;
                Self::Tdx(tdx.quote.mr_td, rtmr1, rtmr2)
            }
            Claims::Tpm(tpm) => Self::Tpm(tpm.pcrs[11]),
        }
    }

    /// All that was measured, as it stands in the evidence.
    pub(crate) fn measured(&self) -> String {
        match self {
            Self::Snp(_) | Self::Tpm(_) => self.to_string(),
            Self::Tdx(mrtd, rtmr1, rtmr2) => format!("mrtd:{mrtd} rtmr1:{rtmr1} rtmr2:{rtmr2}"),
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snp(digest) => write!(f, "snp:{digest}"),
            Self::Tdx(mrtd, rtmr1, rtmr2) => write!(f, "tdx:{}", tdx::measurement(*mrtd, *rtmr1, *rtmr2)),
            Self::Tpm(pcr11) => f.write_str(&measurement_id(*pcr11)),
        }
    }
}
