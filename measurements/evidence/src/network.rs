//! How a relying party reaches a network: written by whoever runs one, read by `blf`.
//!
//! Where hosts answer need not be trusted: TLS roots and the coordinator's account come from the profile, what a node may
//! run from the release manifest. The files it names and `ak_roots` are trusted: whoever writes them decides whose TPMs
//! count and whether a root is a development one, so they are to be had from where the release is, never from the network.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::json::{self, JsonError};
use crate::profile::Host;

/// Longest network document, in bytes.
pub const NETWORK_CAP: usize = 64 * 1024;

/// Where a network's hosts answer and which files describe it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Who may certify a TPM's AK.
    pub ak_roots: Vec<AkRoot>,
    /// The model asked for when the user names none.
    pub model: String,
    /// Bearer token of the pinning service.
    pub pinning_token: String,
    /// File with the [`crate::profile::NetworkProfile`], relative to this one.
    pub profile: String,
    /// File with the release manifest of the nodes' image, relative to this one.
    pub release: String,
    /// Hosts that answer at a given address instead of where DNS says; empty for a public network.
    pub resolve: Vec<Resolve>,
    /// Version of this document, 1.
    pub v: u8,
}

/// A trust anchor for AK certificates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AkRoot {
    /// Its private key is published: whatever it certifies is tier 0.
    pub development: bool,
    /// Appears in results.
    pub name: String,
    /// One X.509 certificate.
    pub pem: String,
}

/// One host and where it answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// Where it answers.
    pub address: SocketAddr,
    /// The host.
    pub host: Host,
}

impl Network {
    /// Parses the document.
    ///
    /// # Errors
    /// [`JsonError`] naming the member.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let network: Self = json::parse_whole("network", bytes, NETWORK_CAP)?;
        if network.v != 1 {
            let error = format!("v: wanted 1, got {}", network.v);
            return Err(JsonError::Malformed { what: "network", error });
        }
        Ok(network)
    }
}
