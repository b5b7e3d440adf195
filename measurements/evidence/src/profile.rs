//! The measured network profile (architecture decisions 4 and 12): what a guest may talk to and whom it believes.
//!
//! A profile is compiled into the image. Its canonical JSON is hashed into every binding, so two images that
//! differ only in their profile have different measurements and different bindings.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::json::{self, JsonError};
use crate::{Address, Hex};

/// Longest profile, in bytes.
pub const PROFILE_CAP: usize = 32 * 1024;

/// What a guest may talk to and whom it believes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkProfile {
    /// Where sealed prompts are fetched: the host of an IPFS gateway.
    pub blob_gateway: Host,
    /// Where sealed answers are pinned: the host of a pinning service.
    pub blob_pinning: Host,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The coordinator.
    pub icl: Host,
    /// The account that signs the coordinator's time and certificates.
    pub icl_account: Address,
    /// `production`, `insecure` or `devnet`.
    pub name: String,
    /// TLS trust anchors, PEM.
    pub tls_roots: String,
    /// Version of this document, 1.
    pub v: u8,
}

/// A DNS name and a TCP port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// DNS name in lower case.
    pub name: String,
    /// TCP port.
    pub port: u16,
}

impl NetworkProfile {
    /// Parses a profile; white space and order are free in the file, [`Self::id`] hashes the canonical form.
    ///
    /// # Errors
    /// [`JsonError`] naming the member.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let profile: Self = json::parse_whole("network profile", bytes, PROFILE_CAP)?;
        let malformed = |error: String| Err(JsonError::Malformed { what: "network profile", error });
        if profile.v != 1 {
            return malformed(format!("v: wanted 1, got {}", profile.v));
        }
        if !["production", "insecure", "devnet"].contains(&profile.name.as_str()) {
            return malformed(format!(
                "name: wanted production, insecure or devnet, got {}",
                json::excerpt(&profile.name)
            ));
        }
        for host in profile.hosts() {
            if !is_dns_name(&host.name) {
                return malformed(format!("host: wanted a lower-case DNS name, got {}", json::excerpt(&host.name)));
            }
        }
        Ok(profile)
    }

    /// SHA-256 of the canonical JSON: the `profile.id` of every binding.
    ///
    /// # Errors
    /// [`JsonError::Malformed`] for numbers that JSON cannot carry.
    pub fn id(&self) -> Result<Hex<32>, JsonError> {
        Ok(Hex(Sha256::digest(json::canonical("network profile", self)?).into()))
    }

    /// Every host the guest may dial, each once: the allow-list checked in the guest and again on the host.
    pub fn hosts(&self) -> Vec<&Host> {
        let mut hosts = vec![&self.icl, &self.blob_gateway, &self.blob_pinning];
        hosts.sort_by(|a, b| (&a.name, a.port).cmp(&(&b.name, b.port)));
        hosts.dedup();
        hosts
    }

    /// The `egress` member of every binding: `name:port`, sorted.
    pub fn egress(&self) -> Vec<String> {
        self.hosts().into_iter().map(|h| format!("{}:{}", h.name, h.port)).collect()
    }
}

/// A lower-case DNS name of at most 253 characters (RFC 1123, section 2.1).
pub(crate) fn is_dns_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        })
}
