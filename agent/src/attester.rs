//! Gets the platform to vouch for the [`Statement`]: the Attester of RFC 9334.
//!
//! ```text
//! Statement ─┬→ configfs-tsm (SEV-SNP, TDX): REPORT_DATA            → report or quote
//!            └→ TPM 2.0: qualifyingData = SHA-256(statement)         → quote over PCR 0 to 23, event log
//! ```
//!
//! Runs in the vault: synchronous, no network. A guest with a TSM never falls back to a TPM, because weaker evidence must be
//! the operator's visible choice of machine and not the effect of a failing device.

use std::path::PathBuf;
use std::time::Duration;

use blf_evidence::bundle::Platform;
use blf_evidence::statement::Statement;

pub mod tpm;
pub mod tsm;

pub use tpm::{Tpm, TpmFailure};
pub use tsm::{Tsm, TsmFailure};

/// Where the platform's devices are. Arguments, so that tests put doubles there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Devices {
    /// The directory of configfs-tsm in which requests are made.
    pub tsm_reports: PathBuf,
    /// A TPM 2.0 character device with the kernel's resource manager.
    pub tpm: PathBuf,
    /// The firmware's event log, as securityfs shows it.
    pub event_log: PathBuf,
    /// How long one request to the TSM, or one TPM command, may take.
    pub deadline: Duration,
}

/// The device that vouches for this guest.
pub enum Attester {
    /// TPM 2.0.
    Tpm(Tpm),
    /// SEV-SNP or TDX, through the kernel's configfs-tsm.
    Tsm(Tsm),
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// Neither kind of device is there.
    #[error("attester: wanted a TSM below {tsm_reports} or a TPM at {tpm}, got neither")]
    NoDevice {
        /// [`Devices::tsm_reports`]
        tsm_reports: PathBuf,
        /// [`Devices::tpm`]
        tpm: PathBuf,
    },
    /// The TPM, or its driver.
    #[error(transparent)]
    Tpm(#[from] TpmFailure),
    /// The TSM, its driver or the host behind them.
    #[error(transparent)]
    Tsm(#[from] TsmFailure),
}

impl Default for Devices {
    /// The paths of Linux. One minute: a TDX quote passes through the host's quoting service, a slow TPM makes an RSA key.
    fn default() -> Self {
        Self {
            tsm_reports: "/sys/kernel/config/tsm/report".into(),
            tpm: "/dev/tpmrm0".into(),
            event_log: "/sys/kernel/security/tpm0/binary_bios_measurements".into(),
            deadline: Duration::from_secs(60),
        }
    }
}

impl Attester {
    /// Opens the TSM where a provider is registered, else the TPM, in which fresh keys are then made.
    ///
    /// Assumes configfs and securityfs to be mounted and the drivers loaded.
    ///
    /// # Errors
    /// [`AttestError::NoDevice`], or what is wrong with the device that is there.
    pub fn detect(devices: &Devices) -> Result<Self, AttestError> {
        if let Some(tsm) = Tsm::open(&devices.tsm_reports, devices.deadline)? {
            return Ok(Self::Tsm(tsm));
        }
        match Tpm::open(&devices.tpm, &devices.event_log, devices.deadline)? {
            Some(tpm) => Ok(Self::Tpm(tpm)),
            None => Err(AttestError::NoDevice { tsm_reports: devices.tsm_reports.clone(), tpm: devices.tpm.clone() }),
        }
    }

    /// `snp`, `tdx` or `tpm`: the member of [`Platform`] that evidence will have.
    pub fn platform(&self) -> &'static str {
        match self {
            Self::Tpm(_) => "tpm",
            Self::Tsm(tsm) => tsm.provider().platform(),
        }
    }

    /// Evidence that this platform saw `statement`.
    ///
    /// # Errors
    /// [`AttestError::Tpm`], [`AttestError::Tsm`]. A later call may succeed.
    pub fn attest(&mut self, statement: &Statement) -> Result<Platform, AttestError> {
        match self {
            Self::Tpm(tpm) => Ok(Platform::Tpm(tpm.attest(statement)?)),
            Self::Tsm(tsm) => Ok(tsm.attest(statement)?),
        }
    }

    /// Names what was measured: `tpm-pcr11:`, `snp:` or `tdx:` and the hex of PCR 11, launch digest or digest of MRTD and RTMRs.
    ///
    /// This is what the platform says at this moment and proves nothing by itself.
    ///
    /// # Errors
    /// As [`Self::attest`].
    pub fn measurement_id(&mut self) -> Result<String, AttestError> {
        match self {
            Self::Tpm(tpm) => Ok(tpm.measurement_id()?),
            Self::Tsm(tsm) => Ok(tsm.measurement_id()?),
        }
    }
}
