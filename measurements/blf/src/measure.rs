//! `blf measure`: what an image will measure to, before anybody boots it.

use std::io::Write as _;
use std::path::Path;

use blf_appraisal::predict;
use blf_appraisal::references::References;
use blf_appraisal::release::{Inputs, Pcrs, RELEASE_CAP, Release, measurement_id};
use blf_evidence::Hex;
use blf_evidence::profile::{NetworkProfile, PROFILE_CAP};
use blf_evidence::statement::Profile;
use serde::Serialize;

use crate::cli::MeasureArgs;
use crate::failure::{Exit, Failure, read_file};

/// Longest image, in bytes.
const IMAGE_CAP: u64 = 64 * 1024 * 1024;

/// What an image measures to.
#[derive(Serialize)]
pub struct Report {
    /// `blf.measure/v1`.
    pub schema: &'static str,
    /// SHA-256 of the file.
    pub uki_sha256: Hex<32>,
    /// Size of the file in bytes.
    pub size: usize,
    /// Short name of the measurement.
    pub measurement_id: String,
    /// Predicted PCRs, SHA-256 bank.
    pub pcrs: Pcrs,
    /// Whether it is what the release manifest of `--check` says; null without `--check`.
    pub matches: Option<bool>,
}

/// Predicts, and writes or compares a manifest where asked.
///
/// # Errors
/// [`Exit::Failed`] for an image that cannot be measured, [`Exit::Rejected`] for one that is not the manifest's.
pub fn run(args: &MeasureArgs) -> Result<Report, Failure> {
    let uki = read_file(&args.image, IMAGE_CAP)?;
    let predicted = predict::from_uki(&uki)
        .map_err(|e| Failure::new(Exit::Failed, "IMAGE", format!("{}: {e}", args.image.display())))?;
    let mut report = Report {
        schema: "blf.measure/v1",
        uki_sha256: predicted.uki_sha256,
        size: uki.len(),
        measurement_id: measurement_id(predicted.pcr11),
        pcrs: Pcrs::from(&predicted),
        matches: None,
    };
    if let (Some(inputs), Some(profile), Some(manifest)) = (&args.inputs, &args.profile, &args.manifest) {
        let release = release(&uki, inputs, profile)?;
        let json = release.to_json().map_err(|e| Failure::new(Exit::Failed, "MANIFEST", e))?;
        write(manifest, json.as_bytes())?;
    }
    if let Some(check) = &args.check {
        let wrong =
            |e: &dyn std::fmt::Display| Failure::new(Exit::Config, "MANIFEST", format!("{}: {e}", check.display()));
        let release = Release::parse(&read_file(check, RELEASE_CAP as u64)?).map_err(|e| wrong(&e))?;
        release.check_image(&uki).map_err(|e| Failure::new(Exit::Rejected, "IMAGE_MISMATCH", e))?;
        report.matches = Some(true);
        if let Some(references) = &args.references {
            let json = References::from(&release).to_json().map_err(|e| Failure::new(Exit::Failed, "REFERENCES", e))?;
            write(references, json.as_bytes())?;
        }
    }
    Ok(report)
}

impl Report {
    /// One line for each register.
    pub fn to_text(&self) -> String {
        let [pcr4_disk, pcr4_kernel] = &self.pcrs.pcr4;
        let matches = if self.matches == Some(true) { "\nmatches the release manifest" } else { "" };
        format!(
            "sha256  {}  {} bytes\nPCR 4   {pcr4_disk}  started from an EFI system partition\n\
             PCR 4   {pcr4_kernel}  started by QEMU -kernel\nPCR 9   {}\nPCR 11  {}\nPCR 12  {}\nPCR 13  {}\n{}{matches}",
            self.uki_sha256,
            self.size,
            self.pcrs.pcr9,
            self.pcrs.pcr11,
            self.pcrs.pcr12,
            self.pcrs.pcr13,
            self.measurement_id
        )
    }
}

fn release(uki: &[u8], inputs: &Path, profile: &Path) -> Result<Release, Failure> {
    let wrong = |file: &Path, e: &dyn std::fmt::Display| {
        Failure::new(Exit::Config, "INPUTS", format!("{}: {e}", file.display()))
    };
    let network = NetworkProfile::parse(&read_file(profile, PROFILE_CAP as u64)?).map_err(|e| wrong(profile, &e))?;
    let id = network.id().map_err(|e| wrong(profile, &e))?;
    let described = Inputs::parse(&read_file(inputs, RELEASE_CAP as u64)?).map_err(|e| wrong(inputs, &e))?;
    Release::from_image(uki, &described, Profile { id, name: network.name })
        .map_err(|e| Failure::new(Exit::Rejected, "IMAGE_MISMATCH", e))
}

/// Writes beside the target and renames, so that no half manifest is ever read.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, "WRITE", format!("{}: {e}", path.display()));
    let partial = path.with_extension("partial");
    let mut file = std::fs::File::create(&partial).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)
}
