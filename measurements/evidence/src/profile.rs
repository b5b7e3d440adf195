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
/// Longest member of an EIP-712 domain, in bytes.
const DOMAIN_CAP: usize = 64;

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
    /// The threshold network that holds prompt keys for the chain; null where nobody knows its contracts yet.
    pub cofhe: Option<CofheProfile>,
    /// The coordinator.
    pub icl: Host,
    /// The account that signs the coordinator's time and certificates.
    pub icl_account: Address,
    /// `production`, `insecure` or `devnet`.
    pub name: String,
    /// How the coordinator is spoken to.
    pub protocol: Protocol,
    /// TLS trust anchors, PEM.
    pub tls_roots: String,
    /// Version of this document, 1.
    pub v: u8,
}

/// How the coordinator is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// As the network does today: `legacy`. Nothing is verified, prompt keys come from CoFHE alone.
    Legacy,
    /// [`crate::icl`]: evidence, signed time, key shares, commit-then-reveal.
    Strict,
}

/// What a node must know of CoFHE: its hosts and the contracts, measured so that no host can name others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CofheProfile {
    /// The ACL contract: verifyingContract of the permits' EIP-712 domain.
    pub acl: Address,
    /// `name` of that domain.
    pub acl_name: String,
    /// `version` of that domain.
    pub acl_version: String,
    /// Gives the network's public key and CRS.
    pub coordinator: Host,
    /// SHA-256 of the CRS; null where inputs need none.
    pub crs_sha256: Option<Hex<32>>,
    /// How inputs are encrypted.
    pub inputs: Inputs,
    /// Contract in which prompt keys and output keys are stored.
    pub prompt_key_store: Address,
    /// SHA-256 of the network's public key; null where inputs need none.
    pub public_key_sha256: Option<Hex<32>>,
    /// JSON-RPC of the chain.
    pub rpc: Host,
    /// The threshold network: opens handles for those whom the ACL lets.
    pub threshold: Host,
    /// Verifies encrypted inputs.
    pub verifier: Host,
}

/// How inputs are encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inputs {
    /// Not at all: for development, with a verifier that expects it.
    Clear,
    /// A proven compact ciphertext list of tfhe-rs.
    Tfhe,
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
        for (member, text) in
            profile.cofhe.iter().flat_map(|c| [("acl_name", &c.acl_name), ("acl_version", &c.acl_version)])
        {
            if text.is_empty() || text.len() > DOMAIN_CAP || !text.bytes().all(|b| b.is_ascii_graphic()) {
                let got = json::excerpt(text);
                return malformed(format!("cofhe.{member}: wanted 1 to {DOMAIN_CAP} printable characters, got {got}"));
            }
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
        if let Some(cofhe) = &self.cofhe {
            hosts.extend([&cofhe.coordinator, &cofhe.rpc, &cofhe.threshold, &cofhe.verifier]);
        }
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
