//! What the agent's roles say to each other (architecture decision 10).
//!
//! A frame is the length of its body (big-endian u32), an id (big-endian u32), and a postcard body of at most
//! [`FRAME_CAP`] bytes. A reply carries the id of its request; replies may come in another order. The vault believes nothing in a
//! frame: every member is checked again where it is used.
//!
//! ```text
//! courier ── ToVault ──→ vault ── ToEngine ──→ engine
//!         ←── FromVault ──      ←── FromEngine ──
//! ```
//!
//! Prompts and answers exist in frames between vault and engine only, and their buffers are zeroized.

use blf_bridge::cofhe::{Permission, Sealed};
use blf_evidence::eip191::Signature;
use blf_evidence::icl::{LeaderResult, Time, VerifierResult};
use blf_evidence::job::{Role, Share};
use blf_evidence::statement::{Model, Purpose};
use blf_evidence::{Address, Hex, UnixTime};
use postcard::ser_flavors::Size;
use postcard::serialize_with_flavor;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::inbound::key::TranscriptHash;

/// Longest frame body, in bytes: a sealed prompt of 1 MiB and what goes with it.
pub const FRAME_CAP: usize = 1024 * 1024 + 64 * 1024;

/// Length of what goes before a frame's body, in bytes.
pub const HEADER: usize = 8;

/// The id of what the vault says without being asked. Requests have any other.
pub const UNASKED: u32 = 0;

/// What the courier asks of the vault.
#[derive(Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "lives for one call")]
pub enum ToVault {
    /// Who is this node? → [`FromVault::Identity`]
    Identity,
    /// A fresh nonce for `/internal/time`. → [`FromVault::TimeNonce`]
    TimeNonce,
    /// The ICL's signed time for that nonce. → [`FromVault::Done`]
    SetTime(Time),
    /// Authenticate one ICL request with the node key; host and time are the vault's own. → [`FromVault::Signed`]
    SignRequest {
        /// HTTP method.
        method: Method,
        /// Path with query, at most 512 bytes.
        path: String,
        /// SHA-256 of the body.
        body_sha256: Hex<32>,
        /// Random.
        nonce: Hex<16>,
    },
    /// Public halves of the TPM's EK and AK. → [`FromVault::Enrolment`], or an error without a TPM.
    Enrolment,
    /// TPM2_ActivateCredential. → [`FromVault::Activated`]
    Activate {
        /// TPM2B_ID_OBJECT.
        credential_blob: Vec<u8>,
        /// TPM2B_ENCRYPTED_SECRET.
        encrypted_secret: Vec<u8>,
    },
    /// Staple this AK certificate from now on. → [`FromVault::Done`]
    SetAkCertificate(Vec<u8>),
    /// Make the next generation of keys (all but the node key); admission evidence names them. → [`FromVault::Done`]
    Rotate,
    /// Fresh evidence. → [`FromVault::Evidence`]
    Attest {
        /// Its purpose. `admission` names the next generation of keys, all others the certified one.
        purpose: Purpose,
        /// Its audience, at most 253 bytes.
        audience: String,
        /// Its nonce.
        nonce: Hex<32>,
    },
    /// The ICL's certificate: verified, its time taken, the next generation of keys made current.
    /// → [`FromVault::Certified`]
    Certificate {
        /// Canonical JSON, verbatim.
        certificate: String,
        /// The ICL's account over it.
        signature: Signature,
    },
    /// Open the prompt, compare its context, run the model, commit. Takes as long as inference.
    /// → [`FromVault::Committed`]
    Run {
        /// The job context, canonical JSON, verbatim.
        context: String,
        /// This node's part.
        role: Role,
        /// This node's share.
        share: Share,
        /// CoFHE's share, for a job whose context names one.
        boxes: Option<Boxes>,
        /// The sealed prompt, already checked against its CID.
        blob: Vec<u8>,
    },
    /// A permit of the node for itself: what CoFHE opens for the node, it seals to this guest. → [`FromVault::Permit`]
    Permit {
        /// The generation of keys whose sealing key it names, by its HPKE key; the certified one if none.
        hpke: Option<Hex<32>>,
    },
    /// The leader's result, once all committed. → [`FromVault::Leader`]
    RevealLeader {
        /// The job.
        job: Hex<32>,
    },
    /// The verifier's verdict on the leader's commitment. → [`FromVault::Verifier`]
    RevealVerifier {
        /// The job.
        job: Hex<32>,
        /// What the leader revealed.
        leader_commitment: Hex<32>,
    },
    /// The job is over, one way or another: forget its keys, but not that it was done. → [`FromVault::Done`]
    Forget {
        /// The job.
        job: Hex<32>,
    },
    /// All jobs are handed back or done: wipe the keys and power off. → [`FromVault::Done`], then nothing
    PowerOff,
    /// The certificate of the TLS key that evidence names. → [`FromVault::TlsCertificate`]
    TlsCertificate,
    /// Sign a server's CertificateVerify. → [`FromVault::TlsSignature`]
    SignTls {
        /// Which key: its SPKI's SHA-256.
        key: Hex<32>,
        /// What the handshake was so far; all else that is signed is the vault's own.
        transcript: TranscriptHash,
    },
    /// For the existing network. → [`FromVault::Legacy`], or [`FromVault::Done`]
    #[cfg(not(feature = "production"))]
    Legacy(crate::legacy::frames::Ask),
}

/// The halves of a key, sealed by CoFHE.
#[derive(Serialize, Deserialize)]
pub struct Boxes {
    /// To which key: the permit's.
    pub sealing: Hex<32>,
    /// The first 16 bytes.
    pub high: Sealed,
    /// The last 16 bytes.
    pub low: Sealed,
}

/// What the vault answers.
#[derive(Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "lives for one call")]
pub enum FromVault {
    /// Done, nothing to return.
    Done,
    /// Refused or failed; the code of `crate::error::VaultError`, never content.
    Refused {
        /// Stable, in capitals.
        code: String,
    },
    /// Who this node is and what the host handed over.
    Identity(Identity),
    /// For `/internal/time`.
    TimeNonce(Hex<32>),
    /// An authenticated request.
    Signed {
        /// `x-timestamp`.
        time: UnixTime,
        /// `x-signature`.
        signature: Signature,
    },
    /// Public halves of EK and AK.
    Enrolment {
        /// TPMT_PUBLIC.
        ek_public: Vec<u8>,
        /// X.509 DER, if the TPM carries one.
        ek_certificate: Option<Vec<u8>>,
        /// TPMT_PUBLIC.
        ak_public: Vec<u8>,
    },
    /// What TPM2_ActivateCredential returned.
    Activated(Hex<32>),
    /// An evidence document (JSON text).
    Evidence(String),
    /// The certificate is good.
    Certified {
        /// Tier 0, 1 or 2.
        tier: u8,
        /// Its end.
        not_after: UnixTime,
        /// Now, by the vault's clock.
        now: UnixTime,
    },
    /// A permit for the threshold network.
    Permit(Permission),
    /// The model has run.
    Committed {
        /// For `/internal/task/commit`.
        commit: Hex<32>,
        /// The leader's sealed answer and its CID, to be stored before the reveal.
        sealed_answer: Option<(String, Vec<u8>)>,
    },
    /// For `/internal/task/result`.
    Leader(LeaderResult),
    /// For `/internal/task/verify`.
    Verifier(VerifierResult),
    /// Asked by nobody, with id [`UNASKED`]: take no more jobs, finish or hand back, then [`ToVault::PowerOff`].
    Stop,
    /// The TLS key that evidence names.
    TlsCertificate {
        /// X.509 DER, self-signed.
        der: Vec<u8>,
        /// Its SPKI's SHA-256.
        key: Hex<32>,
    },
    /// ECDSA with P-256 and SHA-256, DER.
    TlsSignature(Vec<u8>),
    /// For the existing network.
    #[cfg(not(feature = "production"))]
    Legacy(crate::legacy::frames::Told),
}

/// What the courier needs to know to speak for the node.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The node's address.
    pub node: Address,
    /// `tpm`, `sev` or `tdx`.
    pub backend: String,
    /// The models this guest holds.
    pub models: Vec<Model>,
    /// Most jobs side by side.
    pub max_jobs: u8,
    /// Bearer token for the pinning service.
    pub pinning_token: String,
    /// Path with query at the chain's RPC; with the operator's key, if the RPC wants one.
    pub rpc_path: String,
    /// Boot telemetry so far, one JSON line each.
    pub boot_events: Vec<String>,
    /// Now, by the vault's clock.
    pub now: UnixTime,
}

/// Methods that the courier may have signed.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
}

/// What the vault asks of the engine.
#[derive(Serialize, Deserialize)]
pub struct ToEngine {
    /// The prompt's text, UTF-8.
    pub prompt: Vec<u8>,
    /// Most tokens to generate.
    pub max_new_tokens: u32,
    /// Give up after this many milliseconds.
    pub deadline_millis: u64,
}

/// What the engine answers.
#[derive(Serialize, Deserialize)]
pub enum FromEngine {
    /// The model is loaded.
    Ready,
    /// The answer's text, UTF-8.
    Answer(Vec<u8>),
    /// Failed; the code of the engine's error, never content.
    Failed {
        /// Stable, in capitals.
        code: String,
    },
}

/// Why a frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_CAP`].
    #[error("frame: wanted at most {FRAME_CAP} bytes, got {got}")]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// Not a frame of the wanted type, or with bytes left over.
    #[error("frame: malformed body")]
    Malformed,
}

/// One frame, in a buffer that never grew: one that did would leave copies of a prompt behind.
///
/// # Errors
/// [`FrameError`].
pub fn encode<T: Serialize>(id: u32, message: &T) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    let got = serialize_with_flavor(message, Size::default()).map_err(|_| FrameError::Malformed)?;
    let length = u32::try_from(got).ok().filter(|_| got <= FRAME_CAP).ok_or(FrameError::TooLong { got })?;
    let mut frame = Zeroizing::new(vec![0; HEADER + got]);
    let (header, body) = frame.split_at_mut(HEADER);
    header[..4].copy_from_slice(&length.to_be_bytes());
    header[4..].copy_from_slice(&id.to_be_bytes());
    postcard::to_slice(message, body).map_err(|_| FrameError::Malformed)?;
    Ok(frame)
}

/// The id of a frame and the length of its body.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn parse_header(header: [u8; HEADER]) -> Result<(u32, usize), FrameError> {
    let [a, b, c, d, id @ ..] = header;
    let got = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if got > FRAME_CAP { Err(FrameError::TooLong { got }) } else { Ok((u32::from_be_bytes(id), got)) }
}

/// Parses the body of a frame.
///
/// # Errors
/// [`FrameError`].
pub fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    if body.len() > FRAME_CAP {
        return Err(FrameError::TooLong { got: body.len() });
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Malformed),
    }
}
