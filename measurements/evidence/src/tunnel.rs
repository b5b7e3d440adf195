//! What guest and host say over vsock (architecture decision 13). The host is hostile; every message is bounded.
//!
//! The guest dials the host (CID 2), but for the last port:
//!
//! ```text
//! port 5005  host → guest: u32 BE length ‖ HostDocuments ‖ 32-byte nonce
//!            guest → host: u32 BE length ‖ Evidence of purpose session, for that nonce
//!            host → guest: later one byte 0x01, or the end of the stream: drain and stop
//! port 5006  guest → host: telemetry, one JSON event a line (crate::telemetry)
//! port 5007  guest → host: one Dial, host → guest: one reply byte, then bytes both ways until either side ends
//! port 5008  host → guest: TLS of whoever reaches the attested API, which the host cannot read
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Base64;
use crate::json::{self, JsonError};
use crate::profile::{Host, is_dns_name};

/// vsock port on which the host hands out [`HostDocuments`].
pub const PORT_DOCUMENTS: u32 = 5005;
/// vsock port on which the host receives telemetry.
pub const PORT_TELEMETRY: u32 = 5006;
/// vsock port on which the host forwards outbound streams.
pub const PORT_DIAL: u32 = 5007;
/// vsock port on which the guest serves the attested API.
pub const PORT_API: u32 = 5008;
/// Longest [`HostDocuments`], in bytes.
pub const DOCUMENTS_CAP: usize = 256 * 1024;
/// Longest [`Dial`] line, in bytes, with its newline.
pub const DIAL_CAP: usize = 272;
/// How long a guest waits for a stream that it asked for.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// How long a guest may drain after it was asked to stop: longer than the longest job and what the engine may take
/// beyond its deadline. A host that waits less ends jobs by force.
pub const DRAIN: Duration = Duration::from_secs(360);

/// Everything the host may tell a booting guest, as one JSON document behind a big-endian u32 length.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostDocuments {
    /// The operator's public configuration, verbatim ([`crate::config::PublicConfig`]).
    pub config: String,
    /// [`crate::config::Credentials`] as text, never bound, never shown.
    pub credentials: String,
    /// Opaque endorsements to staple, or null.
    pub endorsements: Option<Base64>,
}

/// Where an outbound stream wants to go: the line `blf/1 name:port\n`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dial(pub Host);

/// The host's one-byte answer to a [`Dial`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DialReply {
    /// Connected; bytes follow.
    Connected = 0,
    /// The name is not on the allow-list.
    Forbidden = 1,
    /// The name is allowed but nobody answers there.
    Unreachable = 2,
    /// The line is not a [`Dial`].
    Malformed = 3,
}

/// Why a line is not a [`Dial`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("dial: wanted `blf/1 name:port` in at most 272 bytes")]
pub struct DialError;

impl HostDocuments {
    /// Parses the JSON behind the length.
    ///
    /// # Errors
    /// [`JsonError`] without content.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        json::parse_whole("host documents", bytes, DOCUMENTS_CAP).map_err(|e| match e {
            JsonError::Malformed { what, .. } => {
                JsonError::Malformed { what, error: "wanted the members config, credentials and endorsements".into() }
            }
            other => other,
        })
    }
}

impl Dial {
    /// Parses one line, its newline included.
    ///
    /// # Errors
    /// [`DialError`].
    pub fn parse(line: &[u8]) -> Result<Self, DialError> {
        if line.len() > DIAL_CAP {
            return Err(DialError);
        }
        let text = std::str::from_utf8(line).map_err(|_| DialError)?;
        let (name, port) = text
            .strip_prefix("blf/1 ")
            .and_then(|t| t.strip_suffix('\n'))
            .and_then(|t| t.split_once(':'))
            .ok_or(DialError)?;
        let number: u16 = port.parse().map_err(|_| DialError)?;
        if !is_dns_name(name) || number == 0 || number.to_string() != port {
            return Err(DialError);
        }
        Ok(Self(Host { name: name.into(), port: number }))
    }

    /// The line, its newline included.
    pub fn to_line(&self) -> String {
        format!("blf/1 {}:{}\n", self.0.name, self.0.port)
    }
}

impl TryFrom<u8> for DialReply {
    type Error = DialError;

    fn try_from(byte: u8) -> Result<Self, DialError> {
        [Self::Connected, Self::Forbidden, Self::Unreachable, Self::Malformed]
            .into_iter()
            .find(|r| *r as u8 == byte)
            .ok_or(DialError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dial_has_one_spelling() {
        let line = "blf/1 icl.devnet.blf.internal:8443\n";
        assert_eq!(Dial::parse(line.as_bytes()).unwrap().to_line(), line);
        for bad in [
            "blf/1 icl:8443",
            "blf/1 ICL:8443\n",
            "blf/1 icl:08443\n",
            "blf/1 icl:+8443\n",
            "blf/1 icl:0\n",
            "blf/1 icl:65536\n",
            "blf/1 ic l:1\n",
            "blf/1 -icl:1\n",
            "blf/1 a..b:1\n",
            "blf/1 a:1\n\n",
            "blf/2 a:1\n",
            "blf/1 :1\n",
        ] {
            assert!(Dial::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Dial::parse(&[b'a'; DIAL_CAP + 1]).is_err());
    }
}
