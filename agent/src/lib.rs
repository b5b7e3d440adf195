//! The measured program. One static binary, three roles (architecture decision 10):
//!
//! ```text
//! vault    PID 1: boot, keys, TPM or TSM device, opening and sealing   no network
//! courier  tunnel, TLS, ICL, blobs                                     no keys, never sees a prompt
//! engine   the model                                                   no network, no devices, no new files
//! ```
//!
//! The data flow is the file list:
//!
//! ```text
//! boot → keys → attester → certificate → assignment → release → prompt → (inference) → answer → commitment
//! ```
//!
//! `job.rs` is that chain as one readable function per role; `vault.rs` and `daemon.rs` own the loops.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod answer;
pub mod assignment;
pub mod attester;
pub mod backoff;
pub mod blob;
pub mod boot;
pub mod certificate;
pub mod channel;
pub mod clock;
pub mod commitment;
pub mod courier;
pub mod daemon;
pub mod engine;
pub mod error;
pub mod frames;
pub mod icl;
pub mod inbound;
pub mod job;
pub mod keys;
#[cfg(not(feature = "production"))]
pub mod legacy;
pub mod profile;
pub mod prompt;
pub mod release;
pub mod sandbox;
pub mod telemetry;
pub mod tls;
pub mod tunnel;
pub mod vault;
