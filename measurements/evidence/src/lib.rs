//! What a node says, and how it is written down.
//!
//! A node proves one 64-byte [`Statement`](statement::Statement): its address and the hash of a
//! [`Binding`](statement::Binding), the canonical JSON document that names its keys, its models, its
//! configuration and the nonce it answers. The platform (TPM 2.0, SEV-SNP, TDX) vouches for the statement;
//! both travel together as [`Evidence`](bundle::Evidence).
//!
//! ```text
//! keys, models, config, nonce → Binding → Statement → quote or report → Evidence → (ICL, user, auditor)
//! ```
//!
//! This crate holds formats only: no I/O, no async, no decision about trust. Whether evidence is genuine and
//! wanted is decided in `blf-appraisal`.

#![forbid(unsafe_code)]

pub mod azure;
pub mod bundle;
pub mod config;
pub mod eip191;
pub mod encoding;
pub mod endorsements;
pub mod eventlog;
pub mod icl;
pub mod job;
pub mod json;
pub mod network;
pub mod pack;
pub mod profile;
pub mod snp;
pub mod statement;
pub mod tdx;
pub mod telemetry;
pub mod tpm;
pub mod tunnel;

pub use encoding::{Address, Base64, Hex, UnixTime};
