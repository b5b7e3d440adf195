//! The courier against peers with their own keys, in one process and in virtual time: an ICL and a blob store behind
//! real TLS, a vault behind real frames.

#![allow(missing_docs, unreachable_pub, unnameable_types)]

mod exchange;
mod flow;
mod icl;
mod net;
mod pki;
mod trouble;
mod trust;
mod vault;
mod world;
