//! What is decided about a node's Evidence, and what a release's measurements must be.
//!
//! ```text
//! Evidence + Endorsers ─ authenticate ─► Authentic + References + Expectations ─ Policy::appraise ─► AttestationResult
//!                                                       ▲
//!                   UKI ─ predict::from_uki ─► Release ─┘
//! ```
//!
//! Genuine first, wanted second, in two types: only [`authenticate()`] makes an [`Authentic`], and only that can be
//! appraised. Roots and time are arguments; nothing here does I/O. Each comparison is kept as a [`Check`], so that
//! whoever relies on a verdict can be shown what it rests on.
//!
//! One module for each platform: [`snp`], [`tdx`], [`azure`] and [`tpm`].

#![forbid(unsafe_code)]

pub mod authenticate;
#[cfg(feature = "aws-lc")]
pub mod aws_lc;
pub mod azure;
pub mod check;
#[cfg(feature = "aws-lc")]
pub mod credential;
mod crl;
pub mod crypto;
pub mod pe;
pub mod policy;
pub mod predict;
pub mod references;
pub mod release;
pub mod result;
#[cfg(feature = "rust-crypto")]
pub mod rust_crypto;
pub mod snp;
pub mod tdx;
pub mod tpm;
pub mod x509;

pub use authenticate::{Authentic, Claims, Endorsers, Node, authenticate};
pub use check::{Check, CheckId, Rejected, Stage};
pub use policy::{Accept, Demand, Expectations, Head, Policy};
pub use references::{Reference, References};
pub use release::{Inputs, Release};
pub use result::{AttestationResult, TrustVector};
pub use tpm::AkEndorsement;
pub use x509::{Root, RootKind};
