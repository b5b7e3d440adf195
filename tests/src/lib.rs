//! The other side: a whole network in one process, for tests.
//!
//! ```text
//! swtpm (PCRs and event log of a recorded boot) → vault ─ recorded socket ─ courier ─ TCP ─ devnet ─ blf ask
//! ```
//!
//! Everything but the VM is the real thing: the agent's vault, courier and engine, the devnet over TLS, a software TPM
//! in a process of its own, the committed model.

#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::missing_panics_doc, reason = "for tests only")]

pub mod denied;
pub mod legacy;
pub mod network;
pub mod node;
pub mod processes;
pub mod python;
pub mod search;
pub mod swtpm;
pub mod wallet;
