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
    /// Path with query at the measured chain RPC, which may carry a key, at most 512 characters; `/` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc_path: Option<String>,
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
            JsonError::Malformed { .. } => malformed("wanted the members pinning_token and v, and maybe rpc_path"),
            other => other,
        })?;
        if credentials.v != 1 {
            return Err(malformed("v: wanted 1"));
        }
        if credentials.pinning_token.len() > 2048 {
            return Err(malformed("pinning_token: wanted at most 2048 characters"));
        }
        if !credentials.rpc_path.as_deref().is_none_or(is_path) {
            return Err(malformed("rpc_path: wanted a URL's path and query, from one / on, of at most 512 characters"));
        }
        Ok(credentials)
    }
}

/// A path with query as a request has it (RFC 9112, section 3.2.1), which cannot be mistaken for another host.
fn is_path(path: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&b);
    path.starts_with('/') && !path.starts_with("//") && path.len() <= 512 && path.bytes().all(allowed)
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
    fn credentials_come_back_as_they_went() {
        for good in [
            r#"{"pinning_token":"","v":1}"#.to_owned(),
            r#"{"pinning_token":"t","rpc_path":"/","v":1}"#.into(),
            r#"{"pinning_token":"t","rpc_path":"/v2/s3cret_Key-1?dkey=a%20b","v":1}"#.into(),
            format!(r#"{{"pinning_token":"{}","rpc_path":"/{}","v":1}}"#, "t".repeat(2048), "k".repeat(511)),
        ] {
            let credentials = Credentials::parse(good.as_bytes()).unwrap_or_else(|e| panic!("{good}: {e}"));
            assert_eq!(serde_json::to_string(&credentials).unwrap(), good);
        }
    }

    #[test]
    fn wrong_credentials_name_the_member_and_no_content() {
        for (wanted, bad) in [
            ("wanted the members", r#"{"pinning_token":"s3cret","v":1,"s3cret":1}"#.to_owned()),
            ("wanted the members", r#"{"pinning_token":"s3cret","rpc_path":null,"v":1}"#.into()),
            ("wanted the members", r#"{"pinning_token":"s3cret","rpc_path":{"s3cret":1},"v":1}"#.into()),
            ("v: ", r#"{"pinning_token":"s3cret","v":2}"#.into()),
            ("pinning_token: ", format!(r#"{{"pinning_token":"{}","v":1}}"#, "s3cret".repeat(400))),
            ("rpc_path: ", format!(r#"{{"pinning_token":"","rpc_path":"/{}","v":1}}"#, "s3cret".repeat(86))),
            ("rpc_path: ", r#"{"pinning_token":"","rpc_path":"","v":1}"#.into()),
            ("rpc_path: ", r#"{"pinning_token":"","rpc_path":"s3cret","v":1}"#.into()),
            ("rpc_path: ", r#"{"pinning_token":"","rpc_path":"//s3cret.example/","v":1}"#.into()),
            ("rpc_path: ", r#"{"pinning_token":"","rpc_path":"https://s3cret.example/","v":1}"#.into()),
            ("rpc_path: ", r#"{"pinning_token":"","rpc_path":"/s3cret#a","v":1}"#.into()),
            ("rpc_path: ", r#"{"pinning_token":"","rpc_path":"/s3cret\r\nhost: x","v":1}"#.into()),
            ("rpc_path: ", r#"{"pinning_token":"","rpc_path":"/s3crét","v":1}"#.into()),
        ] {
            let Err(error) = Credentials::parse(bad.as_bytes()) else { panic!("{bad}") };
            let error = error.to_string();
            assert!(error.contains(wanted) && !error.contains("s3cr"), "{bad}: {error}");
        }
    }
}
