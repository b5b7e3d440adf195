//! TPM 2.0: quote over all PCRs of the SHA-256 bank, with the event log; enrolment by credential activation.
//!
//! Two keys, both primaries of the endorsement hierarchy. The EK is the TPM's identity; it cannot sign. The AK signs quotes
//! and is new in every boot: `unique` of its template is random, otherwise the TPM would derive the same key again. That
//! both live in one TPM is what [`Tpm::activate`] proves to the ICL, which then certifies the AK.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use blf_evidence::bundle::{PCRS, TpmEvidence};
use blf_evidence::statement::Statement;
use blf_evidence::tpm::{
    EncryptedSecret, IdObject, PcrSelection, Public, PublicKey, Quote, Signature, TpmError, ak_p256_template,
    ek_p256_template, ek_rsa2048_template,
};
use blf_evidence::{Base64, Hex};
use sha2::{Digest as _, Sha256};

use command::{Commands, PcrValues, Primary, Quoted};

mod command;
mod device;
mod response;

pub use device::{Device, Transport};
pub use response::Rc;

/// NV index of the certificate for the ECC P-256 EK (EK Credential Profile 2.x, 2.2.1.4).
const NV_EK_CERTIFICATE_P256: u32 = 0x01C0_000A;
/// NV index of the certificate for the RSA 2048 EK.
const NV_EK_CERTIFICATE_RSA2048: u32 = 0x01C0_0002;
/// The PCR that systemd-stub extends with the sections of the unified kernel image.
const PCR_IMAGE: usize = 11;
/// Longest event log, in bytes; [`blf_evidence::bundle`] takes no longer one.
const EVENT_LOG_CAP: usize = 128 * 1024;
/// How often quote and PCR values are taken until they belong together. PCRs change a few times during boot, then hardly.
const QUOTE_ATTEMPTS: u32 = 5;

/// One TPM and the two keys this boot has in it.
pub struct Tpm {
    commands: Commands,
    ek: Primary,
    ek_certificate: Option<Vec<u8>>,
    ak: Primary,
    ak_certificate: Option<Vec<u8>>,
    event_log: PathBuf,
}

/// Why the TPM gave no evidence.
#[derive(Debug, thiserror::Error)]
pub enum TpmFailure {
    /// The TPM kept asking for a repetition.
    #[error("{command}: wanted an answer, got {attempts} times the request to repeat")]
    Busy {
        /// The command, as the standard spells it.
        command: &'static str,
        /// How often it was sent.
        attempts: u32,
    },
    /// The character device failed, or did not answer in time.
    #[error("{command}: {error}")]
    Device {
        /// The command, or what else was tried.
        command: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The firmware's event log cannot be read.
    #[error("event log {}: {error}", path.display())]
    EventLog {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Two things that the TPM said, or we asked and it said, do not fit.
    #[error("{what}: wanted them to agree, got a difference")]
    Inconsistent {
        /// Both things.
        what: &'static str,
    },
    /// The EK certificate in NV is no DER SEQUENCE.
    #[error("EK certificate: wanted a DER SEQUENCE that fits into its NV index of {size} bytes, got something else")]
    NoCertificate {
        /// Size of the index.
        size: usize,
    },
    /// The kernel's random numbers are not available.
    #[error("random numbers: {0}")]
    Random(io::Error),
    /// The TPM answered with an error.
    #[error("{command}: wanted success, got {rc}")]
    Refused {
        /// The command.
        command: &'static str,
        /// The error by its name.
        rc: Rc,
    },
    /// A structure inside a response, or one handed in for the TPM, is malformed or not spoken here.
    #[error(transparent)]
    Structure(#[from] TpmError),
    /// Something is larger than this implementation takes.
    #[error("{what}: wanted at most {wanted} bytes, got {got}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// The cap in bytes.
        wanted: usize,
        /// Its length.
        got: usize,
    },
    /// Bytes follow the end of a response, or of an area in it.
    #[error("{command}: wanted no bytes after {field}, got {got}")]
    Trailing {
        /// The command.
        command: &'static str,
        /// What should have been last.
        field: &'static str,
        /// Bytes left over.
        got: usize,
    },
    /// A response ends too early.
    #[error("{command}: {field}: wanted {wanted} more bytes, got {got}")]
    Truncated {
        /// The command.
        command: &'static str,
        /// The field being read.
        field: &'static str,
        /// Bytes it needs.
        wanted: usize,
        /// Bytes left.
        got: usize,
    },
    /// A field of a response has another value than it must have.
    #[error("{command}: {field}: wanted 0x{wanted:x}, got 0x{got:x}")]
    Unexpected {
        /// The command.
        command: &'static str,
        /// The field.
        field: &'static str,
        /// What it must be.
        wanted: u32,
        /// What it is.
        got: u32,
    },
    /// PCRs changed faster than they could be quoted and read.
    #[error("quote: wanted the PCR values it covers, got other values {attempts} times")]
    Unstable {
        /// How often it was tried.
        attempts: u32,
    },
}

impl Tpm {
    /// Opens the TPM's character device and makes this boot's keys, or gives `None` when there is no such device.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn open(device: &Path, event_log: &Path, deadline: Duration) -> Result<Option<Self>, TpmFailure> {
        match Device::open(device, deadline) {
            Ok(device) => Self::new(Box::new(device), event_log).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TpmFailure::Device { command: "open", error }),
        }
    }

    /// Makes this boot's keys in the TPM behind `transport`: the EK that the TPM has a certificate for, P-256 preferred and
    /// also when there is no certificate, and a new AK.
    ///
    /// # Errors
    /// [`TpmFailure`]; for example `TPM_RC_BAD_AUTH` when the machine's owner has set an auth value for the endorsement
    /// hierarchy.
    pub fn new(transport: Box<dyn Transport + Send>, event_log: &Path) -> Result<Self, TpmFailure> {
        let mut commands = Commands(transport);
        let mut template = ek_p256_template();
        let mut ek_certificate = certificate(&mut commands, NV_EK_CERTIFICATE_P256)?;
        if ek_certificate.is_none() {
            ek_certificate = certificate(&mut commands, NV_EK_CERTIFICATE_RSA2048)?;
            if ek_certificate.is_some() {
                template = ek_rsa2048_template();
            }
        }
        let ek = commands.create_primary(&template)?;
        let ak = match new_ak_template().and_then(|template| commands.create_primary(&template)) {
            Ok(ak) => ak,
            Err(error) => {
                // The first error is the one to report.
                let _ = commands.flush(ek.handle);
                return Err(error);
            }
        };
        Ok(Self { commands, ek, ek_certificate, ak, ak_certificate: None, event_log: event_log.into() })
    }

    /// Quotes all PCRs with SHA-256(statement) as `qualifyingData`, reads their values and the event log.
    ///
    /// # Errors
    /// [`TpmFailure`].
    pub fn attest(&mut self, statement: &Statement) -> Result<TpmEvidence, TpmFailure> {
        let (quoted, pcrs) = self.quote(statement.qualifying_data())?;
        Ok(TpmEvidence {
            quote: Base64(quoted.attest),
            signature: Base64(quoted.signature),
            ak_public: Base64(self.ak_public()),
            ak_certificate: self.ak_certificate.clone().map(Base64),
            pcrs: pcrs.into_iter().map(Hex).collect(),
            event_log: read_event_log(&self.event_log)?.map(Base64),
        })
    }

    /// `tpm-pcr11:` and the hex of PCR 11: the unified kernel image.
    ///
    /// # Errors
    /// [`TpmFailure`].
    pub fn measurement_id(&mut self) -> Result<String, TpmFailure> {
        let pcrs = self.read_pcrs()?;
        Ok(format!("tpm-pcr11:{}", Hex(pcrs[PCR_IMAGE])))
    }

    /// TPM2_ActivateCredential: opens what the ICL made for this EK and this AK's Name (bytes of `TPM2B_ID_OBJECT` and
    /// `TPM2B_ENCRYPTED_SECRET`).
    ///
    /// # Errors
    /// [`TpmFailure::Structure`] for malformed bytes; [`TpmFailure::Refused`] when it was made for another EK or AK.
    pub fn activate(&mut self, id_object: &[u8], encrypted_secret: &[u8]) -> Result<[u8; 32], TpmFailure> {
        let id_object = IdObject::parse(id_object)?.to_bytes();
        let encrypted_secret = EncryptedSecret::parse(encrypted_secret)?.to_bytes();
        let nonce = random()?;
        self.commands.activate_credential(self.ak.handle, self.ek.handle, &id_object, &encrypted_secret, nonce)
    }

    /// Keeps the certificate (DER) that an ICL issued for the AK; evidence carries it from now on.
    pub fn set_ak_certificate(&mut self, der: Vec<u8>) {
        self.ak_certificate = Some(der);
    }

    /// The EK's `TPMT_PUBLIC`.
    pub fn ek_public(&self) -> Vec<u8> {
        self.ek.public.to_bytes()
    }

    /// The EK's certificate (DER) as its maker left it in NV, unparsed; `None` when there is none.
    pub fn ek_certificate(&self) -> Option<&[u8]> {
        self.ek_certificate.as_deref()
    }

    /// The AK's `TPMT_PUBLIC`.
    pub fn ak_public(&self) -> Vec<u8> {
        self.ak.public.to_bytes()
    }

    /// The quote and the PCR values that it covers.
    fn quote(&mut self, qualifying_data: [u8; 32]) -> Result<(Quoted, [[u8; 32]; PCRS]), TpmFailure> {
        for _ in 0..QUOTE_ATTEMPTS {
            let quoted = self.commands.quote(self.ak.handle, qualifying_data, PcrSelection::ALL_SHA256)?;
            let quote = Quote::parse(&quoted.attest)?;
            Signature::parse(&quoted.signature)?;
            if quote.extra_data != qualifying_data {
                return Err(TpmFailure::Inconsistent { what: "qualifyingData and extraData of the quote" });
            }
            if quote.pcr_select != PcrSelection::ALL_SHA256 {
                return Err(TpmFailure::Inconsistent { what: "PCRs asked for and PCRs quoted" });
            }
            let pcrs = self.read_pcrs()?;
            if quote.pcr_digest == Sha256::digest(pcrs.as_flattened()).as_slice() {
                return Ok((quoted, pcrs));
            }
        }
        Err(TpmFailure::Unstable { attempts: QUOTE_ATTEMPTS })
    }

    /// All PCRs of the SHA-256 bank. A TPM returns at most eight per command, so the update counter must stand still.
    fn read_pcrs(&mut self) -> Result<[[u8; 32]; PCRS], TpmFailure> {
        'attempt: for _ in 0..QUOTE_ATTEMPTS {
            let mut pcrs = [[0; 32]; PCRS];
            let mut left = PcrSelection::ALL_SHA256;
            let mut first_counter = None;
            while left.select != [0; 3] {
                let PcrValues { update_counter, select, values } = self.commands.pcr_read(left)?;
                if *first_counter.get_or_insert(update_counter) != update_counter {
                    continue 'attempt;
                }
                let selected = (0..PCRS).filter(|pcr| select[pcr / 8] & (1 << (pcr % 8)) != 0);
                for (pcr, value) in selected.zip(values) {
                    pcrs[pcr] = value;
                }
                for (left, got) in left.select.iter_mut().zip(select) {
                    *left &= !got;
                }
            }
            return Ok(pcrs);
        }
        Err(TpmFailure::Unstable { attempts: QUOTE_ATTEMPTS })
    }
}

impl Drop for Tpm {
    /// Frees the TPM's slots. The kernel's resource manager would do so, too, when the device is closed.
    fn drop(&mut self) {
        for handle in [self.ak.handle, self.ek.handle] {
            let _ = self.commands.flush(handle);
        }
    }
}

/// The AK's template with `unique` drawn anew, which makes another key of it.
fn new_ak_template() -> Result<Public, TpmFailure> {
    let mut template = ak_p256_template();
    if let PublicKey::EccP256 { x, y, .. } = &mut template.key {
        *x = random()?.to_vec();
        *y = random()?.to_vec();
    }
    Ok(template)
}

/// The certificate in an NV index without the padding behind it.
fn certificate(commands: &mut Commands, index: u32) -> Result<Option<Vec<u8>>, TpmFailure> {
    let Some(mut content) = commands.nv_read(index)? else { return Ok(None) };
    let size = content.len();
    // Every certificate is a SEQUENCE of 256 to 65,535 bytes with a length in its long form (X.690, 8.1.3.5).
    let end = match content[..] {
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([high, low])),
        _ => return Err(TpmFailure::NoCertificate { size }),
    };
    if end > size {
        return Err(TpmFailure::NoCertificate { size });
    }
    content.truncate(end);
    Ok(Some(content))
}

/// The event log, or `None` where the firmware left none.
fn read_event_log(path: &Path) -> Result<Option<Vec<u8>>, TpmFailure> {
    let failure = |error| TpmFailure::EventLog { path: path.into(), error };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failure)?,
    };
    let mut log = Vec::new();
    let mut capped = file.take(u64::try_from(EVENT_LOG_CAP).unwrap_or(u64::MAX).saturating_add(1));
    capped.read_to_end(&mut log).map_err(failure)?;
    if log.len() > EVENT_LOG_CAP {
        return Err(TpmFailure::TooLong { what: "event log", wanted: EVENT_LOG_CAP, got: log.len() });
    }
    Ok(Some(log))
}

fn random() -> Result<[u8; 32], TpmFailure> {
    let mut bytes = [0; 32];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| TpmFailure::Random(error.into()))?;
    // The kernel never returns fewer than 256 bytes at once (getrandom(2)), unless something filters syscalls wrongly.
    if got != bytes.len() {
        return Err(TpmFailure::Random(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(bytes)
}
