//! What is to be verified: a file, a node at its ICL, or a node's own API.

use std::path::PathBuf;

use blf_evidence::Address;
use blf_evidence::profile::Host;
use hyper::Uri;

use crate::failure::{Exit, Failure};

/// Where evidence comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// Somebody asked for it before.
    File(PathBuf),
    /// This node is asked through the ICL of the network document.
    Node(Address),
    /// The node behind this host is asked.
    Url(Host),
}

impl Target {
    /// Reads the word of the command line: `https://HOST:PORT`, an account with its checksum, or else a file.
    ///
    /// # Errors
    /// [`Exit::Usage`] for a word that begins like the first two and is none.
    pub(super) fn parse(word: &str) -> Result<Self, Failure> {
        if word.starts_with("https://") {
            return url(word)
                .map(Self::Url)
                .ok_or_else(|| Failure::new(Exit::Usage, "URL", format!("{word}: wanted https://HOST:PORT")));
        }
        match word.strip_prefix("0x") {
            Some(digits) if digits.len() == 40 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                let node = word.parse().map_err(|e| Failure::new(Exit::Usage, "ADDRESS", format!("{word}: {e}")))?;
                Ok(Self::Node(node))
            }
            _ => Ok(Self::File(word.into())),
        }
    }
}

fn url(word: &str) -> Option<Host> {
    let url: Uri = word.parse().ok()?;
    let authority = url.authority()?;
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    if url.path() != "/" || url.query().is_some() || authority.as_str().contains('@') || name.is_empty() {
        return None;
    }
    let port = match authority.port_u16() {
        None if authority.as_str() == authority.host() => 443,
        port => port?,
    };
    Some(Host { name: name.into(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_each() {
        let host = |name: &str, port| Target::Url(Host { name: name.into(), port });
        assert_eq!(Target::parse("https://node.test:7443").unwrap(), host("node.test", 7443));
        assert_eq!(Target::parse("https://node.test/").unwrap(), host("node.test", 443));
        assert_eq!(Target::parse("https://[::1]:7443").unwrap(), host("::1", 7443));
        for file in ["evidence.json", "0x5935", "0x.json"] {
            assert_eq!(Target::parse(file).unwrap(), Target::File(file.into()));
        }
        for bad in ["https://", "https://a:b", "https://u@a:1", "https://a:1/v1", "https://a:1/?x", "https://a b"] {
            assert_eq!(Target::parse(bad).unwrap_err().code, "URL", "{bad}");
        }
        let address = "0x5935897A39AFABbedA5a599D38236E7Df151C8b8";
        assert_eq!(Target::parse(address).unwrap(), Target::Node(address.parse().unwrap()));
        assert_eq!(Target::parse(&address.to_lowercase()).unwrap_err().code, "ADDRESS", "without the checksum");
    }
}
