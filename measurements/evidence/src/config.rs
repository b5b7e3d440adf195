//! The operator's public configuration: the one document the host may hand to the guest (architecture decision 12).
//!
//! Closed and length-capped. It travels verbatim in the evidence, its SHA-256 in the binding, so whoever relies on
//! the node sees what the operator chose. Credentials travel separately and are never bound or shown.

use serde::{Deserialize, Serialize};

use crate::json::{self, JsonError};

/// Longest public configuration, in bytes.
pub const CONFIG_CAP: usize = 4 * 1024;
/// Longest credentials document, in bytes.
pub const CREDENTIALS_CAP: usize = 4 * 1024;

/// What the operator may choose in public.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicConfig {
    /// Jobs that may run side by side, 1 or 2.
    pub max_jobs: u8,
    /// A name the operator gives the node, at most 64 characters of `[a-z0-9-]`.
    pub name: String,
    /// Version of this document, 1.
    pub v: u8,
}

/// What the operator must lend but need not show. Not part of the evidence.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Bearer token of the blob store's pinning service, at most 2,048 characters.
    pub pinning_token: String,
    /// Version of this document, 1.
    pub v: u8,
}

impl PublicConfig {
    /// Parses the verbatim bytes.
    ///
    /// # Errors
    /// [`JsonError`]: too long, unknown, missing or duplicate member, or a value out of range.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let config: Self = json::parse_whole("public configuration", bytes, CONFIG_CAP)?;
        let error = if config.v != 1 {
            format!("v: wanted 1, got {}", config.v)
        } else if !(1..=2).contains(&config.max_jobs) {
            format!("max_jobs: wanted 1 or 2, got {}", config.max_jobs)
        } else if config.name.is_empty()
            || config.name.len() > 64
            || !config.name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        {
            "name: wanted 1 to 64 characters of [a-z0-9-]".into()
        } else {
            return Ok(config);
        };
        Err(JsonError::Malformed { what: "public configuration", error })
    }
}

impl Credentials {
    /// Parses the document. The error never repeats what came.
    ///
    /// # Errors
    /// [`JsonError`] without content.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let what = "credentials";
        let malformed = |error: &str| JsonError::Malformed { what, error: error.into() };
        let credentials: Self = json::parse_whole(what, bytes, CREDENTIALS_CAP).map_err(|e| match e {
            JsonError::Malformed { .. } => malformed("wanted the members pinning_token and v"),
            other => other,
        })?;
        match (credentials.v, credentials.pinning_token.len()) {
            (1, 0..=2048) => Ok(credentials),
            (1, _) => Err(malformed("pinning_token: wanted at most 2048 characters")),
            _ => Err(malformed("v: wanted 1")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses() {
        assert!(PublicConfig::parse(br#"{"max_jobs":2,"name":"node-1","v":1}"#).is_ok());
        for bad in [
            r#"{"max_jobs":2,"name":"node-1","v":1,"cmdline":"x"}"#,
            r#"{"max_jobs":2,"name":"node-1","name":"node-1","v":1}"#,
            r#"{"max_jobs":3,"name":"node-1","v":1}"#,
            r#"{"max_jobs":2,"name":"Node 1","v":1}"#,
            r#"{"max_jobs":2,"name":"","v":1}"#,
            r#"{"max_jobs":2,"name":"node-1","v":2}"#,
            r#"{"max_jobs":2,"name":"node-1"}"#,
            r#"[2,"node-1",1]"#,
        ] {
            assert!(PublicConfig::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(PublicConfig::parse(&vec![b' '; CONFIG_CAP + 1]).is_err());
    }

    #[test]
    fn credential_errors_carry_no_content() {
        let Err(error) = Credentials::parse(br#"{"pinning_token":"s3cret","v":1,"s3cret":1}"#) else { panic!() };
        assert!(!error.to_string().contains("s3cret"));
    }
}
