//! What a TPM will hold after this image booted: PCRs predicted from the bytes of a unified kernel image (UKI).
//!
//! Holds for UEFI firmware as OVMF implements it (TCG PC Client Platform Firmware Profile), systemd-stub 257 and the
//! EFI stub of Linux 6.12; each rule names who measures. Every prediction was compared with a boot.
//!
//! | PCR | who | what |
//! |---|---|---|
//! | 4 | firmware | Authenticode digests of the UKI and of the kernel inside it, and the boot action |
//! | 9 | kernel's EFI stub | command line; initrd with what systemd-stub appends to it |
//! | 11 | systemd-stub | name and content of each section |
//! | 12, 13 | systemd-stub | zero: nothing was handed in from beside the image |

use blf_evidence::Hex;
use sha2::{Digest, Sha256};

use crate::pe::{Image, PeError};

/// Sections a UKI may bring, in the order in which systemd-stub measures them (`unified_sections`).
/// Others that systemd knows (`.ucode`, `.dtb`, `.pcrpkey`, `.profile`, ..) change what is measured elsewhere too,
/// so an image with one of them is refused rather than half predicted.
const MEASURED: [&str; 7] = [".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".uname", ".sbat"];
/// Known to systemd-stub, but not predicted here.
const REFUSED: [&str; 8] = [".ucode", ".dtb", ".pcrsig", ".pcrpkey", ".profile", ".dtbauto", ".hwids", ".efifw"];
/// `EV_EFI_ACTION` text of a boot from a boot option (Platform Firmware Profile, 10.4.4).
const CALLING_EFI_APPLICATION: &[u8] = b"Calling EFI Application from Boot Option";
/// Data of an `EV_SEPARATOR` that reports no error.
const SEPARATOR: [u8; 4] = [0; 4];

/// Why nothing can be predicted for an image.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PredictError {
    /// The command line is not plain ASCII.
    #[error("section .cmdline: wanted ASCII without NUL, got byte 0x{0:02x}")]
    CommandLine(u8),
    /// A section occurs twice.
    #[error("section {0}: wanted once, got twice")]
    Duplicate(String),
    /// The UKI, or the kernel inside it, is not an image that firmware would load.
    #[error("{what}: {error}")]
    Image {
        /// `image` or `section .linux`.
        what: &'static str,
        /// What is wrong with it.
        error: PeError,
    },
    /// A section is missing, or longer in memory than in the file.
    #[error("section {0}: wanted its whole content in the file, got none")]
    Missing(&'static str),
    /// A section that changes measurements in ways this release does not predict.
    #[error("section {0}: wanted none, because this release cannot predict an image with it")]
    Unpredicted(String),
}

/// Measurements of one image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prediction {
    /// SHA-256 of the file.
    pub uki_sha256: Hex<32>,
    /// Authenticode SHA-256 of the file.
    pub uki_authenticode: Hex<32>,
    /// Authenticode SHA-256 of `.linux`.
    pub linux_authenticode: Hex<32>,
    /// Name, length and SHA-256 of each measured section, in the order of measurement.
    pub sections: Vec<(String, u64, Hex<32>)>,
    /// PCR 4: started from the EFI system partition as the first boot option; started by QEMU's `-kernel`.
    /// A boot option that was tried before leaves its own actions in PCR 4, and is a mismatch.
    pub pcr4: [Hex<32>; 2],
    /// PCR 9.
    pub pcr9: Hex<32>,
    /// PCR 11, equal to `systemd-measure calculate --phase=:`.
    pub pcr11: Hex<32>,
}

/// Predicts the SHA-256 bank for the bytes of a UKI.
///
/// # Errors
/// [`PredictError`] for anything that is not a UKI of the known kind.
pub fn from_uki(uki: &[u8]) -> Result<Prediction, PredictError> {
    let image = Image::parse(uki).map_err(|error| PredictError::Image { what: "image", error })?;
    for section in image.sections() {
        if REFUSED.contains(&section.name) {
            return Err(PredictError::Unpredicted(section.name.into()));
        }
    }
    let mut sections = Vec::new();
    for name in MEASURED {
        let mut found = image.sections().iter().filter(|section| section.name == name);
        let Some(section) = found.next() else { continue };
        if found.next().is_some() {
            return Err(PredictError::Duplicate(name.into()));
        }
        sections.push((name, section.data.ok_or(PredictError::Missing(name))?));
    }
    let content = |wanted: &'static str| {
        let found = sections.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, data)| *data).ok_or(PredictError::Missing(wanted))
    };
    let linux = Image::parse(content(".linux")?);
    let linux = linux.map_err(|error| PredictError::Image { what: "section .linux", error })?.authenticode();
    let authenticode = image.authenticode();
    Ok(Prediction {
        uki_sha256: Hex(digest(uki)),
        uki_authenticode: Hex(authenticode),
        linux_authenticode: Hex(linux),
        pcr4: pcr4(authenticode, linux).map(Hex),
        pcr9: Hex(pcr9(content(".cmdline")?, content(".initrd")?, content(".osrel")?)?),
        pcr11: Hex(pcr11(sections.iter().copied())),
        sections: sections.iter().map(|(name, data)| ((*name).into(), data.len() as u64, Hex(digest(data)))).collect(),
    })
}

/// PCR 11 for sections given in the order of measurement: `H(name ‖ NUL)`, then `H(content)`, for each.
#[must_use]
pub fn pcr11<'a>(sections: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> [u8; 32] {
    let mut pcr = [0; 32];
    for (name, data) in sections {
        pcr = extend(pcr, digest(&[name.as_bytes(), &[0]].concat()));
        pcr = extend(pcr, digest(data));
    }
    pcr
}

/// PCR 4 for both ways to start the UKI. The firmware's boot manager measures the action and the separator before it
/// loads a boot option; QEMU's loader loads the file given by `-kernel` earlier than that. The stub loads the kernel last.
fn pcr4(uki: [u8; 32], linux: [u8; 32]) -> [[u8; 32]; 2] {
    let action = digest(CALLING_EFI_APPLICATION);
    let separator = digest(&SEPARATOR);
    [[action, separator, uki, linux], [uki, action, separator, linux]]
        .map(|events| events.into_iter().fold([0; 32], extend))
}

/// PCR 9: load options, then the initrd as the kernel loads it from the stub (`EFISTUB_EVT_LOAD_OPTIONS`, `_INITRD`).
fn pcr9(cmdline: &[u8], initrd: &[u8], osrel: &[u8]) -> Result<[u8; 32], PredictError> {
    let load_options: Vec<u8> = load_options(cmdline)?.into_iter().flat_map(u16::to_le_bytes).collect();
    let mut initrds = Sha256::new().chain_update(initrd);
    initrds.update(&[0; 3][..padding(initrd.len())]);
    initrds.update(os_release_cpio(osrel));
    let pcr = extend([0; 32], digest(&load_options));
    Ok(extend(pcr, initrds.finalize().into()))
}

/// The UTF-16 load options systemd-stub makes of `.cmdline` (`mangle_stub_cmdline`): controls become blanks, blanks at
/// both ends go, a NUL ends it and is measured with it.
fn load_options(cmdline: &[u8]) -> Result<Vec<u16>, PredictError> {
    let end = cmdline.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = &cmdline[..end];
    if let Some(bad) = text.iter().find(|byte| **byte == 0 || !byte.is_ascii()) {
        return Err(PredictError::CommandLine(*bad));
    }
    let blank = |byte: u8| byte <= b' ' || byte == 0x7F;
    let first = text.iter().position(|byte| !blank(*byte)).unwrap_or(text.len());
    let last = text.iter().rposition(|byte| !blank(*byte)).map_or(first, |last| last + 1);
    let text = text[first..last].iter().map(|byte| if blank(*byte) { b' ' } else { *byte });
    Ok(text.chain([0]).map(u16::from).collect())
}

/// The archive ("newc" cpio) in which systemd-stub hands `.osrel` to the initrd as `/.extra/os-release`.
fn os_release_cpio(osrel: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cpio_entry(&mut out, 1, 0o040_555, ".extra", &[]);
    cpio_entry(&mut out, 2, 0o100_444, ".extra/os-release", osrel);
    // systemd-stub's trailer is a fixed text; its name size alone is written in upper case.
    out.extend(format!("070701{:032}{:08}{:048}0000000B{:08}TRAILER!!!\0\0\0\0", 0, 1, 0, 0).bytes());
    out
}

fn cpio_entry(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, data: &[u8]) {
    // inode, mode, uid, gid, nlink, mtime, file size, device (2), special device (2), name size, checksum
    let fields: [usize; 13] = [inode as usize, mode as usize, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
    out.extend(b"070701");
    out.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    out.extend(name.bytes().chain([0]));
    out.extend(&[0; 3][..padding(out.len())]);
    out.extend(data);
    out.extend(&[0; 3][..padding(out.len())]);
}

/// Bytes that bring `len` to a multiple of four.
fn padding(len: usize) -> usize {
    len.next_multiple_of(4) - len
}

fn extend(pcr: [u8; 32], digest: [u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(pcr).chain_update(digest).finalize().into()
}

fn digest(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}
