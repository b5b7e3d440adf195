//! The legacy coordinator over real connections on loopback: each endpoint's shape once, and each of today's slips.

mod attestation;
mod chain;
mod faults;
mod net;
mod payment;
mod quorum;
mod signatures;
mod tasks;
mod users;
