//! From the kernel's first process to a serving guest: a numbered list that stops at the first failure.
//!
//! Each stage is timed and becomes a telemetry event; with the devnet profile it is also shown on the console. Nothing
//! but this list, an error's code and its one line ever is.

mod documents;
mod model;
mod supervise;
pub mod system;

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blf_evidence::config::{Credentials, PublicConfig};
use blf_evidence::json::JsonError;
use blf_evidence::statement::Purpose;
use blf_evidence::telemetry::{Code, Event};

use crate::attester::{Attester, Devices};
use crate::clock::{self, Clock};
use crate::engine::EngineProcess;
use crate::error::{HardwareError, InternalError, VaultError};
use crate::keys::Keys;
use crate::profile;
use crate::release::HeldModel;
use crate::vault::{Parts, Vault};
use system::SystemError;

pub use documents::DocumentsError;
pub use model::ModelError;

/// The list.
const STAGES: [&str; 13] = [
    "mount",
    "modules",
    "harden",
    "random",
    "documents",
    "config",
    "attester",
    "profile",
    "keys",
    "model",
    "engine",
    "evidence",
    "courier",
];

/// How long the engine may take to load its model.
const ENGINE_READY: Duration = Duration::from_secs(300);

/// Why a guest does not come up, sorted by whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The host's documents, or their stream.
    #[error(transparent)]
    Documents(#[from] DocumentsError),
    /// The operator's configuration or credentials.
    #[error(transparent)]
    Config(JsonError),
    /// The model on the host's block device.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The network profile that this image was built with.
    #[error(transparent)]
    Profile(JsonError),
    /// A production image outside a TEE.
    #[error("profile: wanted SEV-SNP or TDX, got {got}")]
    Tee {
        /// The platform.
        got: &'static str,
    },
    /// The kernel.
    #[error(transparent)]
    System(#[from] SystemError),
    /// Keys, devices, engine.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Boots as PID 1, serves, and powers off.
pub fn run() -> ! {
    let mut boot = Boot { events: Vec::new(), console: None, number: 0 };
    let end = match boot.up() {
        Ok(guest) => guest.serve(),
        Err(error) => boot.failed(&error),
    };
    if let Some(console) = &mut boot.console {
        let _ = writeln!(console, "[ end ] power off: {end}");
    }
    system::power_off()
}

struct Boot {
    /// Telemetry so far, for the courier to send.
    events: Vec<String>,
    console: Option<std::fs::File>,
    /// Stages begun.
    number: usize,
}

impl Boot {
    fn up(&mut self) -> Result<supervise::Guest, BootError> {
        self.stage("mount", || Ok(system::mount()?))?;
        if profile::CONSOLE {
            self.console = system::console();
            self.show_first();
        }
        self.stage("modules", || Ok(system::load_modules()?))?;
        self.stage("harden", || Ok(system::harden()?))?;
        self.stage("random", || Ok(system::seeded(profile::NEEDS_TEE)?))?;
        let mut host = self.stage("documents", || Ok(documents::Session::open()?))?;
        let (config, credentials) = self.stage("config", || {
            let config = PublicConfig::parse(host.documents.config.as_bytes()).map_err(BootError::Config)?;
            let credentials = Credentials::parse(host.documents.credentials.as_bytes()).map_err(BootError::Config)?;
            Ok((config, credentials))
        })?;
        let (attester, measurement) = self.stage("attester", || {
            let mut attester = Attester::detect(&Devices::default()).map_err(hardware)?;
            let measurement = attester.measurement_id().map_err(hardware)?;
            Ok((attester, measurement))
        })?;
        let network = self.stage("profile", || {
            let got = attester.platform();
            if profile::NEEDS_TEE && got == "tpm" {
                return Err(BootError::Tee { got });
            }
            profile::network().map_err(BootError::Profile)
        })?;
        let keys = self.stage("keys", || Ok(Keys::generate().map_err(VaultError::from)?))?;
        let pack = self.stage("model", || Ok(model::read()?))?;
        let engine = Arc::new(EngineProcess::default());
        let engine_pid = self.stage("engine", || {
            system::drop_privileges()?;
            let (pid, stream) = supervise::start_engine(&pack.file)?;
            supervise::attach(&engine, stream, pid).map_err(VaultError::from)?;
            Ok(pid)
        })?;
        let manifest = &pack.header.manifest;
        let vault = Vault::new(Parts {
            profile: network,
            config: std::mem::take(&mut host.documents.config),
            credentials,
            endorsements: host.documents.endorsements.take(),
            attester: Box::new(attester),
            measurement,
            models: vec![HeldModel {
                manifest_sha256: pack.header.digest,
                id: manifest.id.clone(),
                max_new_tokens: manifest.max_new_tokens,
            }],
            numeric_profile: manifest.numeric_profile.clone(),
            engine: Arc::<EngineProcess>::clone(&engine),
            clock: Clock::new(clock::build_date(), clock::boottime),
            keys,
        })?;
        let documents = self.stage("evidence", || {
            let evidence = vault.evidence(Purpose::Session, config.name, host.nonce)?;
            let text = evidence.to_json().map_err(|error| VaultError::from(InternalError::Document(error)))?;
            Ok(host.answer(&text)?)
        })?;
        let mut guest = supervise::Guest::new(Arc::new(vault), engine, engine_pid, pack.file, documents)?;
        let socket = self.stage("courier", || Ok(guest.start_courier()?))?;
        self.say(&system::booted(guest.vault.node()));
        guest.vault.set_boot_events(std::mem::take(&mut self.events));
        guest.answer_courier(socket)?;
        Ok(guest)
    }

    /// Runs one stage, which must be the next of the list.
    fn stage<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T, BootError>) -> Result<T, BootError> {
        let started = Instant::now();
        debug_assert_eq!(STAGES.get(self.number), Some(&name));
        self.number += 1;
        let done = work()?;
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Ok(stage) = code(name) {
            let (number, of) = (u8::try_from(self.number).unwrap_or(u8::MAX), STAGES_U8);
            self.say(&Event::BootStage { number, of, stage, millis });
        }
        if let Some(console) = &mut self.console {
            let _ = writeln!(console, "[{:2}/{STAGES_U8}] {name} {millis} ms", self.number);
        }
        Ok(done)
    }

    /// The stage before there was a console.
    fn show_first(&mut self) {
        if let Some(console) = &mut self.console {
            let _ = writeln!(console, "[ 1/{STAGES_U8}] {}", STAGES[0]);
        }
    }

    /// Tells console and host; gives the code.
    fn failed(&mut self, error: &BootError) -> String {
        let name = self.number.checked_sub(1).and_then(|i| STAGES.get(i)).copied().unwrap_or("start");
        let reason = error.code().to_owned();
        if let (Ok(stage), Ok(code)) = (code(name), Code::new(&reason)) {
            self.say(&Event::BootFailed { stage, code });
        }
        if let Some(console) = &mut self.console {
            let _ = writeln!(console, "[{:2}/{STAGES_U8}] {name} FAILED {reason}: {error}", self.number);
        }
        documents::report(&self.events);
        reason
    }

    fn say(&mut self, event: &Event) {
        self.events.extend(event.to_line());
    }
}

impl BootError {
    /// The stable code.
    pub fn code(&self) -> &str {
        match self {
            Self::Documents(error) => error.code(),
            Self::Config(_) => "HOST_CONFIG",
            Self::Model(error) => error.code(),
            Self::Profile(_) => "PROFILE",
            Self::Tee { .. } => "NO_TEE",
            Self::System(error) => error.code(),
            Self::Vault(error) => error.code(),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "thirteen")]
const STAGES_U8: u8 = STAGES.len() as u8;

fn code(stage: &str) -> Result<Code, String> {
    Code::new(&stage.to_ascii_uppercase())
}

fn hardware(error: crate::attester::AttestError) -> BootError {
    BootError::Vault(HardwareError::Attest(error).into())
}
