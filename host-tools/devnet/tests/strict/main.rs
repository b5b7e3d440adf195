//! The strict ICL and the blob store over real TLS on loopback: every refusal once, and the flows around them.

mod admission;
mod authentication;
mod blobs;
mod client;
mod evidence;
mod jobs;
mod nodes;
mod quorum;
mod server;
mod tpm;

#[path = "../common/release.rs"]
mod release;
