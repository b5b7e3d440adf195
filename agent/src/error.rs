//! Why the vault refuses, sorted by whose fault it is. Each error has a stable code; none carries content.

use blf_bridge::OpenError;
use blf_bridge::cofhe::PublishError;
use blf_bridge::prompt::PromptError;
use blf_bridge::release::ReleaseError;
use blf_evidence::json::JsonError;
use blf_evidence::{Hex, UnixTime};

use crate::attester::AttestError;
use crate::certificate::CertificateError;
use crate::clock::TimeError;
use crate::engine::EngineError;
use crate::frames::FrameError;

/// Why the vault refuses.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The platform's devices.
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// The coordinator.
    #[error(transparent)]
    Icl(#[from] IclError),
    /// Ourselves: the courier asked for what it may not have, or something broke.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// The job, so its user or who relayed it.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The engine and its model.
    #[error(transparent)]
    Model(#[from] EngineError),
}

/// The platform's devices.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// No evidence.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// No TPM, so nothing to enrol.
    #[error("enrolment: wanted a TPM, got {got}")]
    NoTpm {
        /// The platform.
        got: &'static str,
    },
    /// The kernel has no randomness.
    #[error("no randomness from the system")]
    Randomness,
}

/// The coordinator.
#[derive(Debug, thiserror::Error)]
pub enum IclError {
    /// Admission evidence for somebody else than the measured ICL.
    #[error("audience: wanted {wanted}, got another")]
    Audience {
        /// What it must be.
        wanted: String,
    },
    /// The certificate is not good.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The keys are not certified, or not any more.
    #[error("no certificate is in force")]
    NotCertified,
    /// The time is not good.
    #[error(transparent)]
    Time(#[from] TimeError),
}

/// Ourselves.
#[derive(Debug, thiserror::Error)]
pub enum InternalError {
    /// A request of our own is longer than any that we write.
    #[error("request body: wanted at most 64 KiB")]
    Body,
    /// Too much at once.
    #[error("busy: wanted at most {max} at once")]
    Busy {
        /// The bound.
        max: usize,
    },
    /// A document that we made ourselves is out of its own bounds.
    #[error(transparent)]
    Document(#[from] JsonError),
    /// Not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A thread panicked.
    #[error("a task ended in a panic")]
    Panicked,
    /// The node key signs requests to the ICL's node endpoints only.
    #[error("path: wanted /internal/ and at most 512 printable characters")]
    Path,
    /// Evidence of this purpose is not the courier's to ask for.
    #[error("purpose: wanted admission or preview")]
    Purpose,
    /// The measured profile has another protocol.
    #[error("protocol: wanted one of the measured profile")]
    Protocol,
    /// Not the TLS key that evidence names now.
    #[error("tls key: wanted the one that evidence names, got another")]
    TlsKey,
    /// The keys are wiped.
    #[error("the keys are wiped")]
    Wiped,
}

/// The job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The answer cannot be sealed.
    #[error("answer: {0}")]
    Answer(OpenError),
    /// CoFHE's share came and the context names none, or the other way round.
    #[error("cofhe: wanted boxes exactly if the context names a share")]
    Boxes,
    /// The context is not a job context.
    #[error(transparent)]
    Context(JsonError),
    /// The job has expired.
    #[error("job: wanted before {not_after:?}, now {now:?}")]
    Expired {
        /// Its end.
        not_after: UnixTime,
        /// Now.
        now: UnixTime,
    },
    /// Storing the output key would cost more than it may, or was tried too often.
    #[error("transaction: wanted at most 10000000 gas, 0.01 ether and 3 attempts")]
    Fee,
    /// The job accepts other releases than this guest.
    #[error("measurements: wanted {ours} among them")]
    Measurement {
        /// What this guest is.
        ours: String,
    },
    /// The job is for a model that is not here.
    #[error("model: got {got}, which this guest does not hold")]
    Model {
        /// Digest of the manifest that the job names.
        got: Hex<32>,
    },
    /// The measured profile does not say where CoFHE is.
    #[error("cofhe: the network profile has none")]
    NoCofhe,
    /// The prompt is not for this job, or does not open.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The output key cannot be encrypted.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The share does not open.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// A result for this job was made, or begun, before.
    #[error("job: ran before on this node")]
    Repeated,
    /// CoFHE sealed to a key that this node does not hold (any more), or not to the one of the share.
    #[error("cofhe: sealed to a key that this job does not have")]
    SealingKey,
    /// The node has run as many jobs as it remembers; it must start anew.
    #[error("job: this boot has run its {max} jobs")]
    Spent {
        /// How many.
        max: usize,
    },
    /// The job asks for no tokens or for more than the model gives.
    #[error("max_new_tokens: wanted 1 to {max}, got {got}")]
    Tokens {
        /// The model's limit.
        max: u32,
        /// What came.
        got: u32,
    },
    /// The job names a model by an id that this guest does not hold.
    #[error("model: unknown id")]
    UnknownModel,
    /// No such job waits to be revealed, or it was revealed before, or the node has the other role.
    #[error("job: nothing to reveal in this role")]
    NotCommitted,
}

impl VaultError {
    /// The stable code, in capitals: [`blf_evidence::telemetry::Code`].
    pub fn code(&self) -> &str {
        match self {
            Self::Hardware(error) => match error {
                HardwareError::Attest(error) => attest_code(error),
                HardwareError::NoTpm { .. } => "NO_TPM",
                HardwareError::Randomness => "NO_RANDOMNESS",
            },
            Self::Icl(error) => match error {
                IclError::Audience { .. } => "ICL_AUDIENCE",
                IclError::Certificate(error) => error.code(),
                IclError::NotCertified => "NOT_CERTIFIED",
                IclError::Time(error) => error.code(),
            },
            Self::Internal(error) => match error {
                InternalError::Body => "REQUEST_BODY",
                InternalError::Busy { .. } => "BUSY",
                InternalError::Document(_) => "DOCUMENT",
                InternalError::Frame(_) => "FRAME",
                InternalError::Panicked => "PANICKED",
                InternalError::Path => "REQUEST_PATH",
                InternalError::Purpose => "PURPOSE",
                InternalError::Protocol => "PROTOCOL",
                InternalError::TlsKey => "TLS_KEY",
                InternalError::Wiped => "WIPED",
            },
            Self::Job(error) => error.code(),
            Self::Model(error) => error.code(),
        }
    }
}

impl JobError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Answer(_) => "ANSWER_SEAL",
            Self::Boxes => "JOB_BOXES",
            Self::Context(_) => "JOB_CONTEXT",
            Self::Expired { .. } => "JOB_EXPIRED",
            Self::Fee => "TRANSACTION_FEE",
            Self::Measurement { .. } => "JOB_MEASUREMENT",
            Self::Model { .. } => "JOB_MODEL",
            Self::NoCofhe => "NO_COFHE",
            Self::NotCommitted => "JOB_NOT_COMMITTED",
            Self::Prompt(error) => match error {
                PromptError::Context => "PROMPT_CONTEXT",
                PromptError::Open(OpenError::Length { .. }) => "PROMPT_LENGTH",
                PromptError::Open(OpenError::Tag) => "PROMPT_TAG",
                PromptError::Open(_) => "PROMPT_FORM",
                PromptError::Text => "PROMPT_TEXT",
            },
            Self::Publish(PublishError::NotBuilt) => "NO_TFHE_INPUTS",
            Self::Publish(_) => "KEY_PUBLISH",
            Self::Release(error) => match error {
                ReleaseError::Key { .. } => "SHARE_KEY",
                ReleaseError::Node { .. } => "SHARE_NODE",
                ReleaseError::Open(_) => "SHARE_TAG",
                ReleaseError::Unseal { .. } => "COFHE_SEAL",
            },
            Self::Repeated => "JOB_REPEATED",
            Self::SealingKey => "SEALING_KEY",
            Self::Spent { .. } => "JOBS_SPENT",
            Self::Tokens { .. } => "JOB_TOKENS",
            Self::UnknownModel => "MODEL_UNKNOWN",
        }
    }
}

/// The stable code of a failed attestation.
pub(crate) fn attest_code(error: &AttestError) -> &'static str {
    match error {
        AttestError::NoDevice { .. } => "NO_ATTESTER",
        AttestError::Tpm(_) => "TPM",
        AttestError::Tsm(_) => "TSM",
    }
}
