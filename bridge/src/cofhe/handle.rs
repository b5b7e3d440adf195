//! Handles: the 256-bit names of ciphertexts.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::U256;
use blf_evidence::Hex;
use blf_evidence::json::excerpt;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

/// The name of a ciphertext on the chain: a `uint256`, 32 bytes big-endian.
///
/// In JSON it comes as an integer of up to 78 digits, as decimal text or as `0x` text, and goes as decimal text. Where
/// it may be null, [`Option`] takes that. Displayed as `0x` and 64 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Handle(pub [u8; 32]);

/// A text that is no handle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("handle: wanted an integer below 2^256, decimal or 0x and hex digits, got {got}")]
pub struct HandleError {
    /// An excerpt of what came.
    pub got: String,
}

/// Writes a handle as a JSON integer: for `serialize_with`, where a coordinator as today's answers a claim.
///
/// # Errors
/// Those of the serializer.
pub fn as_number<S: Serializer>(handle: &Handle, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(handle.decimal()).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

impl Handle {
    /// Zero means that there is no key.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 32]
    }

    /// As the threshold network reads it: 64 digits without prefix.
    pub fn wire(&self) -> String {
        hex::encode(self.0)
    }

    /// As JSON carries it in text.
    pub fn decimal(&self) -> String {
        U256::from_be_bytes(self.0).to_string()
    }
}

impl From<Hex<32>> for Handle {
    fn from(bytes: Hex<32>) -> Self {
        Self(bytes.0)
    }
}

impl From<Handle> for Hex<32> {
    fn from(handle: Handle) -> Self {
        Self(handle.0)
    }
}

impl FromStr for Handle {
    type Err = HandleError;

    /// Decimal, or `0x` and at most 64 digits: Python writes no leading zeros.
    fn from_str(text: &str) -> Result<Self, HandleError> {
        let (digits, radix, most) = match text.strip_prefix("0x") {
            Some(digits) => (digits, 16, 64),
            None => (text, 10, 78),
        };
        // The parser below would also take underscores.
        let plain = (1..=most).contains(&digits.len()) && digits.bytes().all(|b| char::from(b).is_digit(radix));
        let value = if plain { U256::from_str_radix(digits, u64::from(radix)).ok() } else { None };
        value.map(|value| Self(value.to_be_bytes())).ok_or_else(|| HandleError { got: excerpt(text) })
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", self.wire())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Handle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.decimal())
    }
}

impl<'de> Deserialize<'de> for Handle {
    /// From the bytes of a JSON document only: a number that went through `serde_json::Value` has lost its digits.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        // A number of JSON has no prefix, and text with escapes has no plain digits.
        unquoted.unwrap_or(text).parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Serialize, PartialEq, Debug)]
    struct Claim {
        #[serde(rename = "kpHighHandle", serialize_with = "as_number")]
        high: Handle,
        low: Option<Handle>,
    }

    const MOST: &str = "115792089237316195423570985008687907853269984665640564039457584007913129639935";

    #[test]
    fn every_json_form() {
        let most = Handle([0xff; 32]);
        for (text, wanted) in [
            (MOST.to_owned(), most),
            (format!("\"{MOST}\""), most),
            (format!("\"0x{}\"", "f".repeat(64)), most),
            (format!("\"0x{}\"", "F".repeat(64)), most),
            ("0".into(), Handle::default()),
            ("\"0x0\"".into(), Handle::default()),
            ("18446744073709551616".into(), "0x10000000000000000".parse().unwrap()),
        ] {
            assert_eq!(serde_json::from_str::<Handle>(&text).unwrap(), wanted, "{text}");
        }
        assert_eq!(most.decimal(), MOST);
        assert_eq!(serde_json::to_string(&most).unwrap(), format!("\"{MOST}\""));
        let claim: Claim = serde_json::from_str(&format!("{{\"kpHighHandle\": {MOST}, \"low\": null}}")).unwrap();
        assert_eq!(claim, Claim { high: most, low: None });
        assert_eq!(serde_json::to_string(&claim).unwrap(), format!("{{\"kpHighHandle\":{MOST},\"low\":null}}"));
        assert!(Handle::default().is_zero() && !most.is_zero());
    }

    #[test]
    fn everything_else_is_refused() {
        let above = format!("{}6", &MOST[..77]);
        for bad in [
            above.clone(),
            format!("\"{above}\""),
            format!("\"0x1{}\"", "0".repeat(64)),
            "-1".into(),
            "1.0".into(),
            "1e3".into(),
            "\"\"".into(),
            "\"0x\"".into(),
            "\"1_0\"".into(),
            "\"0X1\"".into(),
            "\" 1\"".into(),
            "\"\\u0031\"".into(),
            "\"+1\"".into(),
            "\"ff\"".into(),
            "true".into(),
            "null".into(),
            "[1]".into(),
            "{}".into(),
        ] {
            let error = serde_json::from_str::<Handle>(&bad).unwrap_err().to_string();
            assert!(error.contains("handle: wanted an integer below 2^256"), "{bad}: {error}");
        }
        let error = serde_json::from_str::<Handle>(&"9".repeat(10_000)).unwrap_err().to_string();
        assert!(error.len() < 1000, "{error}");
    }

    proptest::proptest! {
        #[test]
        fn forms_agree(bytes: [u8; 32]) {
            let handle = Handle(bytes);
            for text in [handle.decimal(), format!("\"{}\"", handle.decimal()), format!("\"{handle}\"")] {
                proptest::prop_assert_eq!(serde_json::from_str::<Handle>(&text).unwrap(), handle);
            }
        }
    }
}
