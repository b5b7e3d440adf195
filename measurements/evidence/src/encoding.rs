//! The few ways bytes are written in text: bare lower-case hex, padded base64, EIP-55 addresses, Unix seconds.
//!
//! Each has one spelling; any other is refused, so that parse-then-write is the identity.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `N` bytes, written as `2 * N` lower-case hex digits without a prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// Bytes of any length, written as standard base64 with padding (RFC 4648, section 4).
///
/// The length is bounded by the size cap of the document that carries it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Base64(pub Vec<u8>);

/// A 20-byte account address, written `0x` + 40 hex digits with the EIP-55 checksum.
///
/// The checksum is demanded: the existing ICL compares addresses as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 20]);

/// Seconds since 1970-01-01T00:00:00Z, at most 2^53 - 1 (the integers that RFC 8785 can carry).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UnixTime(pub u64);

/// Why a text is not the wanted encoding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// An address without a valid EIP-55 checksum.
    #[error("address: wanted 0x and 40 hex digits with the EIP-55 checksum, got {got:?}")]
    Address {
        /// At most 64 characters of what came.
        got: String,
    },
    /// Text that is not standard padded base64.
    #[error("base64: wanted the standard alphabet with padding (RFC 4648 section 4)")]
    Base64,
    /// Text that is not the wanted number of lower-case hex digits.
    #[error("hex: wanted {wanted} lower-case digits, got {got} characters")]
    Hex {
        /// Number of digits wanted.
        wanted: usize,
        /// Number of characters that came.
        got: usize,
    },
    /// A time that RFC 8785 cannot carry.
    #[error("time: wanted at most 9007199254740991 seconds, got {got}")]
    Time {
        /// What came.
        got: u64,
    },
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = EncodingError;

    fn from_str(text: &str) -> Result<Self, EncodingError> {
        let error = || EncodingError::Hex { wanted: 2 * N, got: text.chars().count() };
        let mut bytes = [0; N];
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(error());
        }
        hex::decode_to_slice(text, &mut bytes).map_err(|_| error())?;
        Ok(Self(bytes))
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Base64 {
    type Err = EncodingError;

    fn from_str(text: &str) -> Result<Self, EncodingError> {
        STANDARD.decode(text).map(Self).map_err(|_| EncodingError::Base64)
    }
}

impl fmt::Display for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(&self.0))
    }
}

impl FromStr for Address {
    type Err = EncodingError;

    fn from_str(text: &str) -> Result<Self, EncodingError> {
        alloy_primitives::Address::parse_checksummed(text, None)
            .map(|a| Self(a.into_array()))
            .map_err(|_| EncodingError::Address { got: text.chars().take(64).collect() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&alloy_primitives::Address::from(self.0).to_checksum(None))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl UnixTime {
    /// The largest time that a canonical document can carry.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// This time moved `seconds` later, at most [`Self::MAX`].
    #[must_use]
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds).min(Self::MAX.0))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for UnixTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for UnixTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let got = u64::deserialize(deserializer)?;
        if got > Self::MAX.0 {
            return Err(de::Error::custom(EncodingError::Time { got }));
        }
        Ok(Self(got))
    }
}

macro_rules! as_text {
    ([$($generics:tt)*] $type:ty) => {
        impl<$($generics)*> Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de, $($generics)*> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

as_text!([const N: usize] Hex<N>);
as_text!([] Base64);
as_text!([] Address);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_each() {
        assert_eq!("00ff".parse::<Hex<2>>().unwrap().to_string(), "00ff");
        for bad in ["00FF", "00f", "00ff0", "0x00", "00fg", "00fé"] {
            assert!(bad.parse::<Hex<2>>().is_err(), "{bad}");
        }
        let address = "0x5935897A39AFABbedA5a599D38236E7Df151C8b8";
        assert_eq!(address.parse::<Address>().unwrap().to_string(), address);
        assert!(address.to_lowercase().parse::<Address>().is_err());
        for bad in ["AAA", "AA==\n", "AB==", "A_=="] {
            assert!(bad.parse::<Base64>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<UnixTime>("9007199254740992").is_err());
    }
}
