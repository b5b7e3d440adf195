//! The courier against peers with their own keys, in one process and in virtual time: an ICL and a blob store behind
//! real TLS, a vault behind real frames.

#![allow(missing_docs, unreachable_pub, unnameable_types)]

mod exchange;
mod fleet;
mod flow;
mod hostile;
mod icl;
mod net;
mod outage;
mod pki;
mod trouble;
mod trust;
mod vault;
mod world;
