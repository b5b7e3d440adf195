//! The relying party's command: who wants to know what a node is, or to have a prompt answered that only they read.
//!
//! ```text
//! blf verify   evidence, or a node that gives it → genuine? wanted? → verdict
//! blf show     anything of that, field by field
//! blf measure  image → measurements → release manifest
//! blf ask      quorum → evidence of each node → seal → submit → wait → open → check
//! ```

#![forbid(unsafe_code)]

pub mod account;
mod advice;
pub mod ask;
pub mod cli;
pub mod client;
pub mod failure;
mod fresh;
pub mod icl;
pub mod measure;
pub mod nodes;
pub mod show;
pub mod terminal;
mod time;
pub mod verify;
