//! What a released image is made of and measures to (`blf.release/v1`).
//!
//! A release manifest is written when an image is built; Reference Values ([`crate::references`]) are made of it. Whoever rebuilds the
//! image from the named inputs gets the same manifest. Its JSON Schema is `schema/release.v1.json` beside this crate.

use blf_evidence::Hex;
use blf_evidence::json::{self, JsonError};
use blf_evidence::statement::Profile;
use serde::{Deserialize, Serialize};

use crate::predict::{self, PredictError, Prediction};

/// Longest manifest, in bytes. One with 400 inputs has about 80 KiB.
pub const RELEASE_CAP: usize = 1024 * 1024;
/// The `schema` member of every release manifest.
pub const SCHEMA: &str = "blf.release/v1";

/// A release manifest.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Short name of what this image measures to on a platform: `tpm-pcr11:` and 64 hex digits.
    pub measurement_id: String,
    /// Predicted PCRs, SHA-256 bank.
    pub pcrs: Pcrs,
    /// Name and id of the network profile compiled into the image.
    pub profile: Profile,
    /// Name of the image, `blf`.
    pub image_id: String,
    /// Version of the image.
    pub version: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Built from exactly the inputs that the repository locks. An image that was not is no release.
    pub locked: bool,
    /// Date of the inputs, `YYYY-MM-DD`; midnight UTC of it is the build's `SOURCE_DATE_EPOCH`.
    pub date: String,
    /// The sources.
    pub source: Source,
    /// The Rust toolchain.
    pub rust: Toolchain,
    /// Every package that went into the image or made it.
    pub inputs: Vec<Input>,
    /// Every file that came out.
    pub outputs: Vec<Output>,
}

/// Predicted PCRs. 12 and 13 are members so that a reader sees that they are demanded.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pcrs {
    /// Started from an EFI system partition; started by QEMU's `-kernel`.
    #[serde(rename = "4")]
    pub pcr4: [Hex<32>; 2],
    /// Command line and initrd.
    #[serde(rename = "9")]
    pub pcr9: Hex<32>,
    /// Sections of the image.
    #[serde(rename = "11")]
    pub pcr11: Hex<32>,
    /// Zero: no credentials, no command line beside the image.
    #[serde(rename = "12")]
    pub pcr12: Hex<32>,
    /// Zero: no system extensions beside the image.
    #[serde(rename = "13")]
    pub pcr13: Hex<32>,
}

/// What the image builder writes beside an image (`inputs.json`): a release but for its measurements and profile id.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Name of the network profile.
    pub profile: String,
    /// Version of the image.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// Built from exactly the locked inputs.
    pub locked: bool,
    /// Date of the inputs.
    pub date: String,
    /// The sources.
    pub source: Source,
    /// The Rust toolchain.
    pub rust: Toolchain,
    /// Packages.
    pub inputs: Vec<Input>,
    /// Files.
    pub outputs: Vec<Output>,
    /// SHA-256 of the image's sections, by name; compared with the image.
    #[serde(deserialize_with = "json::unique_map")]
    pub sections: std::collections::BTreeMap<String, Hex<32>>,
}

/// Which sources an image was built from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Git commit; a plus sign behind it when the checkout had changes of its own.
    pub commit: String,
    /// SHA-256 over the list of the agent's source files.
    pub agent_sha256: Hex<32>,
    /// SHA-256 of the `Cargo.lock` that is cut down to the agent's crates.
    pub cargo_lock_sha256: Hex<32>,
}

/// Which compiler built the agent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Toolchain {
    /// Version.
    pub version: String,
    /// Its commit.
    pub commit: String,
    /// SHA-256 over its files.
    pub sha256: Hex<32>,
}

/// A Debian package.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// `image`: in the image; `tool` and `extra`: made it.
    pub kind: String,
    /// Package name.
    pub name: String,
    /// Package version.
    pub version: String,
    /// Debian architecture.
    pub architecture: String,
    /// Size of the package file, in bytes.
    pub size: u64,
    /// SHA-256 of the package file.
    pub sha256: Hex<32>,
}

/// A file of the release.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// File name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Hex<32>,
}

/// Why there is no manifest, or why an image is not the manifest's.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The image is not what was described.
    #[error("image, {member}: wanted {wanted}, got {got}")]
    Image {
        /// What was compared.
        member: String,
        /// What the description says.
        wanted: String,
        /// What the image has.
        got: String,
    },
    /// The document is not strict JSON of the known form.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Nothing can be predicted for the image.
    #[error(transparent)]
    Predict(#[from] PredictError),
}

impl Release {
    /// The manifest of an image: what its builder says, checked against it, and what it measures to.
    ///
    /// # Errors
    /// [`ReleaseError`] when the image is not the described one, or its measurements cannot be predicted.
    pub fn from_image(uki: &[u8], inputs: &Inputs, profile: Profile) -> Result<Self, ReleaseError> {
        let predicted = predict::from_uki(uki)?;
        for (name, wanted) in &inputs.sections {
            let got = predicted.sections.iter().find(|(section, ..)| section == name);
            differs(name.clone(), wanted.to_string(), got.map_or_else(|| "none".into(), |(.., sha)| sha.to_string()))?;
        }
        differs("profile".into(), inputs.profile.clone(), profile.name.clone())?;
        let release = Self {
            schema: SCHEMA.into(),
            measurement_id: measurement_id(predicted.pcr11),
            pcrs: Pcrs::from(&predicted),
            profile,
            image_id: "blf".into(),
            version: inputs.version.clone(),
            kernel: inputs.kernel.clone(),
            locked: inputs.locked,
            date: inputs.date.clone(),
            source: inputs.source.clone(),
            rust: inputs.rust.clone(),
            inputs: inputs.inputs.clone(),
            outputs: inputs.outputs.clone(),
        };
        release.check_image(uki)?;
        Ok(release)
    }

    /// Parses a manifest.
    ///
    /// # Errors
    /// [`ReleaseError::Json`] for anything but strict JSON of this schema, and for values that contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        let release: Self = json::parse_whole("release manifest", bytes, RELEASE_CAP)?;
        let malformed = |error: String| JsonError::Malformed { what: "release manifest", error };
        if release.schema != SCHEMA {
            return Err(malformed(format!("schema: wanted {SCHEMA}, got {}", json::excerpt(&release.schema))).into());
        }
        let wanted = measurement_id(release.pcrs.pcr11);
        if release.measurement_id != wanted {
            return Err(malformed(format!(
                "measurement_id: wanted {wanted}, got {}",
                json::excerpt(&release.measurement_id)
            ))
            .into());
        }
        if (release.pcrs.pcr12, release.pcrs.pcr13) != (Hex([0; 32]), Hex([0; 32])) {
            return Err(malformed("pcrs: wanted 12 and 13 zero".into()).into());
        }
        Ok(release)
    }

    /// The manifest as JSON for people: indented, ending with a line feed.
    ///
    /// # Errors
    /// [`ReleaseError::Json`] never for a value that [`Self::parse`] accepts.
    pub fn to_json(&self) -> Result<String, ReleaseError> {
        let text = serde_json::to_string_pretty(self);
        let malformed =
            |error: serde_json::Error| JsonError::Malformed { what: "release manifest", error: error.to_string() };
        Ok(text.map_err(malformed)? + "\n")
    }

    /// Checks that these bytes are the image this manifest describes, before anybody boots it.
    ///
    /// # Errors
    /// [`ReleaseError::Image`] naming what differs.
    pub fn check_image(&self, uki: &[u8]) -> Result<Prediction, ReleaseError> {
        let predicted = predict::from_uki(uki)?;
        let listed = self.outputs.iter().find(|output| output.name == "blf.efi");
        let listed = listed.map_or_else(|| "an output blf.efi".into(), |output| output.sha256.to_string());
        differs("blf.efi".into(), listed, predicted.uki_sha256.to_string())?;
        let pcrs = Pcrs::from(&predicted);
        for (index, wanted, got) in [
            (4, self.pcrs.pcr4[0], pcrs.pcr4[0]),
            (4, self.pcrs.pcr4[1], pcrs.pcr4[1]),
            (9, self.pcrs.pcr9, pcrs.pcr9),
            (11, self.pcrs.pcr11, pcrs.pcr11),
        ] {
            differs(format!("PCR {index}"), wanted.to_string(), got.to_string())?;
        }
        Ok(predicted)
    }
}

impl Inputs {
    /// Parses the builder's description.
    ///
    /// # Errors
    /// [`ReleaseError::Json`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        Ok(json::parse_whole("inputs.json", bytes, RELEASE_CAP)?)
    }
}

impl From<&Prediction> for Pcrs {
    fn from(predicted: &Prediction) -> Self {
        let zero = Hex([0; 32]);
        Self { pcr4: predicted.pcr4, pcr9: predicted.pcr9, pcr11: predicted.pcr11, pcr12: zero, pcr13: zero }
    }
}

/// The short name under which jobs and quorums refer to an image on a TPM platform.
#[must_use]
pub fn measurement_id(pcr11: Hex<32>) -> String {
    format!("tpm-pcr11:{pcr11}")
}

fn differs(member: String, wanted: String, got: String) -> Result<(), ReleaseError> {
    if wanted == got { Ok(()) } else { Err(ReleaseError::Image { member, wanted, got }) }
}
