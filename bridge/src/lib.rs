//! Who may open a prompt, and how.
//!
//! ```text
//! user:  PromptKey ─ seal prompt ─→ blob ─→ CID       PromptKey ─ HPKE ─→ one Share per node
//! node:  Share ─ KeyRelease ─→ PromptKey ─ open blob ─→ context + text   (context compared before inference)
//! node:  text ─ engine ─→ answer ─ seal under a fresh key ─→ blob ─→ CID  key ─ HPKE ─→ the user's reply key
//! all:   commitment = HMAC(key from PromptKey, job ‖ SHA-256(normalised answer))
//! cofhe: handles ─ threshold network ─→ two Halves ─→ PromptKey, alone or joined with the Share
//! ```
//!
//! Secrets are [`Key`] and [`Secret`]: they zeroize, have no `Debug`, and are read through `expose`.

#![forbid(unsafe_code)]

pub mod blob;
pub mod cid;
pub mod cofhe;
pub mod commitment;
pub mod legacy;
pub mod prompt;
pub mod release;
pub mod secret;

mod hpke;

pub use hpke::{HpkeKey, open_key, seal_key};
pub use secret::{Key, Secret};

/// Why something stays closed. Never says what is inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The sealed bytes are shorter than IV and tag, or longer than the cap.
    #[error("sealed blob: wanted {min} to {max} bytes, got {got}")]
    Length {
        /// Fewest bytes.
        min: usize,
        /// Most bytes.
        max: usize,
        /// Bytes that came.
        got: usize,
    },
    /// The padded plaintext is not of the defined form.
    #[error("plaintext: wanted length, context, text and zero padding to a bucket")]
    Padding,
    /// Wrong key, wrong `aad`, or altered bytes: AES-256-GCM cannot tell which.
    #[error("authentication tag does not match: wrong key, wrong context or altered bytes")]
    Tag,
    /// The HPKE public key is not a point of X25519 that may be used.
    #[error("hpke public key is not usable")]
    PublicKey,
    /// No randomness could be had.
    #[error("no randomness from the system")]
    Randomness,
}
