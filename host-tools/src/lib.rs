//! The operator's side: starts the VM, hands it documents, carries bytes it cannot read, writes down what it says.
//!
//! Nothing here is trusted by anyone but the operator. Prompts and answers never pass in the clear.
//!
//! ```text
//! release (is the image what it says?) → isolation (what does this host really have?) → vm → vsock
//!     → forward::documents → appraisal of the Evidence → forward::dial opens → forward::telemetry until Ctrl-C
//! ```
//!
//! What an operator chose lies in a node's folder (node, settings); what a launch says goes to a terminal (notice), a log
//! (journal, network_log), the service manager (systemd) and a file from which `status` tells (record).

#![forbid(unsafe_code)]

pub mod appraise;
pub mod child;
pub mod cli;
pub mod commands;
pub mod devnet;
pub mod doctor;
pub mod error;
pub mod existing;
pub mod folders;
pub mod forward;
pub mod inbound;
pub mod isolation;
pub mod journal;
pub mod launch;
pub mod model;
pub mod network_log;
pub mod node;
pub mod notice;
pub mod payment;
pub mod programs;
pub mod qmp;
pub mod record;
pub mod release;
pub mod settings;
pub mod systemd;
pub mod vm;
pub mod vsock;

pub use error::{Error, Exit};
