//! Whom a request is for. Over TLS the session's name (SNI) says it; on the plain listener, which has no names, the path.

use blf_evidence::profile::NetworkProfile;

/// The payment service's DNS name, in legacy mode. No profile names it: no node of ours talks to it.
pub(crate) const PAYMENT: &str = "payment.devnet.blf.internal";

/// Where a request came in.
pub(crate) enum Door {
    /// Plain HTTP on loopback, for programs that know none of our TLS roots.
    Plain,
    /// A TLS session for this name.
    Tls(String),
}

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    Blobs,
    /// The chain's JSON-RPC.
    Chain,
    /// Of the FHE network.
    Coordinator,
    Icl,
    Payment,
    /// What the published node speaks instead of CoFHE.
    Python,
    Threshold,
    Verifier,
}

impl Peer {
    pub(crate) fn of(door: &Door, path: &str, profile: &NetworkProfile) -> Self {
        match door {
            Door::Tls(name) if *name == profile.icl.name => Self::Icl,
            Door::Tls(name) if name == PAYMENT => Self::Payment,
            Door::Tls(name) => match &profile.cofhe {
                Some(cofhe) if *name == cofhe.coordinator.name => Self::Coordinator,
                Some(cofhe) if *name == cofhe.rpc.name => Self::Chain,
                Some(cofhe) if *name == cofhe.threshold.name => Self::Threshold,
                Some(cofhe) if *name == cofhe.verifier.name => Self::Verifier,
                _ => Self::Blobs,
            },
            Door::Plain => {
                let mut segments = path.split('/').skip(1);
                match (segments.next(), segments.next()) {
                    (Some("cofhe"), _) => Self::Python,
                    (Some("ipfs" | "pinning"), _) => Self::Blobs,
                    (Some("rpc"), _) => Self::Chain,
                    (Some("v1"), Some("balance" | "jobs" | "nodes")) => Self::Payment,
                    _ => Self::Icl,
                }
            }
        }
    }
}
