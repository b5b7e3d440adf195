//! How a relying party reaches a network: written by whoever runs one, read by `blf`.
//!
//! Where hosts answer need not be trusted: TLS roots and the coordinator's account come from the profile, what a node may
//! run from the release manifest. The files it names and `ak_roots` are trusted: whoever writes them decides whose TPMs
//! count and whether a root is a development one, so they are to be had from where the release is, never from the network.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Hex;
use crate::json::{self, JsonError};
use crate::profile::Host;

/// Longest network document, in bytes.
pub const NETWORK_CAP: usize = 64 * 1024;

/// Longest model name, in bytes.
const NAME_CAP: usize = 256;

/// Where a network's hosts answer and which files describe it. No `Debug`: it holds a token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Who may certify a TPM's AK.
    pub ak_roots: Vec<AkRoot>,
    /// The model asked for when the user names none.
    pub model: ModelName,
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

/// A model as users name it: `ID`, or `ID@MANIFEST_SHA256` for these weights and no others of that id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName {
    /// What a node calls it.
    pub id: String,
    /// SHA-256 of its pack's manifest.
    pub manifest_sha256: Option<Hex<32>>,
}

/// A text that names no model.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("model: wanted ID or ID@MANIFEST_SHA256: letters, digits and -._:/, then 64 lower-case hex digits; got {0:?}")]
pub struct ModelNameError(String);

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

impl FromStr for ModelName {
    type Err = ModelNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ModelNameError(text.chars().take(NAME_CAP).collect());
        let (id, digest) = text.split_once('@').map_or((text, None), |(id, digest)| (id, Some(digest)));
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._:/".contains(&b);
        if id.is_empty() || text.len() > NAME_CAP || !id.bytes().all(good) {
            return Err(wrong());
        }
        let manifest_sha256 = digest.map(|digest| digest.parse().map_err(|_| wrong())).transpose()?;
        Ok(Self { id: id.into(), manifest_sha256 })
    }
}

impl TryFrom<String> for ModelName {
    type Error = ModelNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.manifest_sha256 {
            Some(digest) => write!(f, "{}@{digest}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_model_is_named_with_or_without_its_weights() {
        let digest = Hex([0xab; 32]);
        for (text, manifest_sha256) in [("blf-tiny-1".into(), None), (format!("blf-tiny-1@{digest}"), Some(digest))] {
            let name = ModelName { id: "blf-tiny-1".into(), manifest_sha256 };
            assert_eq!((text.parse(), name.to_string()), (Ok(name), text));
        }
        let long = "a".repeat(NAME_CAP + 1);
        let upper = format!("a@{}", "AB".repeat(32));
        for bad in ["", "@", "a@", "a@abcd", "a b", "a?x=1", "a&b", "a\n", &format!("@{digest}"), &upper, &long] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad:?}");
            let network = json!({
                "ak_roots": [], "model": bad, "pinning_token": "", "profile": "profile.json", "release": "release.json",
                "resolve": [], "v": 1,
            });
            let written = network.to_string();
            let refused = Network::parse(written.as_bytes()).err().unwrap().to_string();
            assert!(refused.contains("ID@MANIFEST_SHA256"), "{bad:?}: {refused}");
        }
    }
}
