//! Strict JSON: bounded, no unknown and no duplicate members, and where it is hashed, canonical (RFC 8785).

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Longer than its cap.
    #[error("{what}: wanted at most {cap} bytes, got {got}")]
    TooLong {
        /// Name of the document.
        what: &'static str,
        /// Cap in bytes.
        cap: usize,
        /// Length in bytes.
        got: usize,
    },
    /// Not the wanted document; the text names the member and the position.
    #[error("{what}: {error}")]
    Malformed {
        /// Name of the document.
        what: &'static str,
        /// The parser's words.
        error: String,
    },
    /// Well formed, but not the canonical spelling.
    #[error("{what}: wanted RFC 8785 canonical JSON, differs at byte {at}")]
    NotCanonical {
        /// Name of the document.
        what: &'static str,
        /// First byte that differs.
        at: usize,
    },
}

/// Parses a document of at most `cap` bytes.
///
/// `T` derives `Deserialize` with `deny_unknown_fields`; serde's derive refuses duplicate members, and no type
/// of this crate uses maps.
///
/// # Errors
/// [`JsonError::TooLong`], [`JsonError::Malformed`].
pub fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8], cap: usize) -> Result<T, JsonError> {
    if bytes.len() > cap {
        return Err(JsonError::TooLong { what, cap, got: bytes.len() });
    }
    serde_json::from_slice(bytes).map_err(|e| JsonError::Malformed { what, error: e.to_string() })
}

/// Parses a document that must be its own canonical form, because its bytes are hashed or signed.
///
/// # Errors
/// As [`parse`], and [`JsonError::NotCanonical`] (also for a member that is missing but has a null form).
pub fn parse_canonical<T: DeserializeOwned + Serialize>(
    what: &'static str,
    bytes: &[u8],
    cap: usize,
) -> Result<T, JsonError> {
    let value: T = parse(what, bytes, cap)?;
    let canonical = canonical(what, &value)?;
    if canonical.as_bytes() != bytes {
        let same = canonical.bytes().zip(bytes).take_while(|(a, b)| a == *b).count();
        return Err(JsonError::NotCanonical { what, at: same });
    }
    Ok(value)
}

/// The canonical form (RFC 8785) of a value.
///
/// # Errors
/// [`JsonError::Malformed`] for values that JSON cannot carry.
pub fn canonical<T: Serialize>(what: &'static str, value: &T) -> Result<String, JsonError> {
    serde_jcs::to_string(value).map_err(|e| JsonError::Malformed { what, error: e.to_string() })
}
