//! Bytes as Ethereum's JSON writes them, `0x` and hex digits: for serde's `with`.

use serde::{Deserialize as _, Deserializer, Serializer, de};

/// Most bytes that a text may spell: a smart account's signature (ERC-1271) has any length, but not a longer one.
const CAP: usize = 4096;

pub(super) fn serialize<T: AsRef<[u8]>, S: Serializer>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("0x{}", hex::encode(bytes)))
}

pub(super) fn deserialize<'de, T: TryFrom<Vec<u8>>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() <= 2 * CAP);
    digits
        .and_then(|digits| hex::decode(digits).ok())
        .and_then(|bytes| T::try_from(bytes).ok())
        .ok_or_else(|| de::Error::custom(format_args!("wanted 0x and hex digits, got {} characters", text.len())))
}
