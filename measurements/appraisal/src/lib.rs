//! What is decided about a node's Evidence, and what a release's measurements must be.
#![forbid(unsafe_code)]

pub mod pe;
pub mod predict;
