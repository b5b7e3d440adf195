//! Strict JSON: bounded, no unknown and no duplicate members, and where it is hashed, canonical (RFC 8785).

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

/// Longest excerpt of foreign text in a message, in characters: a 2048-bit public key in hex fits.
const EXCERPT: usize = 640;
/// 2^53 - 1, the largest integer of which every reader has the same idea (RFC 7493, section 2.2).
const INTEGER_MAX: u64 = (1 << 53) - 1;

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

/// Parses a document of at most `cap` bytes: one JSON object.
///
/// `T` derives `Deserialize` with `deny_unknown_fields`; serde's derive refuses duplicate members, and a map is read by
/// [`unique_map`]. A member that may be null may be left out; [`parse_whole`] demands it.
///
/// # Errors
/// [`JsonError::TooLong`], [`JsonError::Malformed`].
pub fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8], cap: usize) -> Result<T, JsonError> {
    if bytes.len() > cap {
        return Err(JsonError::TooLong { what, cap, got: bytes.len() });
    }
    // The derive would also take a list of the members' values, without their names.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(JsonError::Malformed { what, error: "wanted a JSON object".into() });
    }
    serde_json::from_slice(bytes).map_err(|e| JsonError::Malformed { what, error: excerpt(&e.to_string()) })
}

/// Parses a document in which every member is written, by name, also those that are null; white space and order are
/// free.
///
/// # Errors
/// As [`parse`].
pub fn parse_whole<T: DeserializeOwned + Serialize>(
    what: &'static str,
    bytes: &[u8],
    cap: usize,
) -> Result<T, JsonError> {
    let value: T = parse(what, bytes, cap)?;
    let malformed = |e: serde_json::Error| JsonError::Malformed { what, error: excerpt(&e.to_string()) };
    let came: Value = serde_json::from_slice(bytes).map_err(malformed)?;
    if serde_json::to_value(&value).map_err(malformed)? != came {
        return Err(JsonError::Malformed { what, error: "wanted every member, and objects with names".into() });
    }
    interoperable(what, &came)?;
    Ok(value)
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

/// Parses a foreign document of at most `cap` bytes: one JSON object with members that we need not know, in which no
/// object has a name twice.
///
/// # Errors
/// As [`parse`].
pub fn parse_unique(what: &'static str, bytes: &[u8], cap: usize) -> Result<Value, JsonError> {
    parse(what, bytes, cap).map(|UniqueValue(value)| value)
}

/// The canonical form (RFC 8785) of a value.
///
/// # Errors
/// [`JsonError::Malformed`] for values that JSON cannot carry, and for integers beyond 2^53 - 1, of which several would
/// have one form (RFC 8785, section 3.2.2.3, and RFC 7493, section 2.2).
pub fn canonical<T: Serialize>(what: &'static str, value: &T) -> Result<String, JsonError> {
    let malformed = |e: serde_json::Error| JsonError::Malformed { what, error: excerpt(&e.to_string()) };
    interoperable(what, &serde_json::to_value(value).map_err(malformed)?)?;
    serde_jcs::to_string(value).map_err(malformed)
}

fn interoperable(what: &'static str, value: &Value) -> Result<(), JsonError> {
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| interoperable(what, value)),
        Value::Object(members) => members.values().try_for_each(|value| interoperable(what, value)),
        Value::Number(number)
            if number.as_u64().is_some_and(|n| n > INTEGER_MAX)
                || number.as_i64().is_some_and(|n| n.unsigned_abs() > INTEGER_MAX) =>
        {
            let error = format!("wanted integers of at most {INTEGER_MAX}, got {number}");
            Err(JsonError::Malformed { what, error })
        }
        _ => Ok(()),
    }
}

/// Foreign text as part of a message: one line of ASCII, shortened, so that it can neither steer a terminal nor flood a
/// log.
#[must_use]
pub fn excerpt(text: &str) -> String {
    let mut line = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == EXCERPT {
            line.push_str("...");
            break;
        }
        if c == ' ' || c.is_ascii_graphic() { line.push(c) } else { line.extend(c.escape_unicode()) }
    }
    line
}

/// A map in which every name stands once; for `deserialize_with`. serde's own would keep the last.
///
/// # Errors
/// Those of the deserializer, and a name that stands twice.
pub fn unique_map<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    struct Unique<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Unique<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Self::Value, A::Error> {
            unique_members(access)
        }
    }

    deserializer.deserialize_map(Unique(PhantomData))
}

fn unique_members<'de, A: MapAccess<'de>, T: Deserialize<'de>>(mut access: A) -> Result<BTreeMap<String, T>, A::Error> {
    let mut map = BTreeMap::new();
    while let Some((name, value)) = access.next_entry::<String, T>()? {
        if map.contains_key(&name) {
            return Err(de::Error::custom(format_args!("duplicate field `{name}`")));
        }
        map.insert(name, value);
    }
    Ok(map)
}

/// Any value, in which no object has a name twice; serde_json's own keeps the last.
struct UniqueValue(Value);

impl<'de> Deserialize<'de> for UniqueValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(UniqueValue(value)) = access.next_element()? {
                    values.push(value);
                }
                Ok(values.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
                let members = unique_members::<_, UniqueValue>(access)?;
                Ok(members.into_iter().map(|(name, UniqueValue(value))| (name, value)).collect())
            }
        }

        deserializer.deserialize_any(Any).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Document {
        inner: Option<Inner>,
        #[serde(deserialize_with = "unique_map")]
        map: BTreeMap<String, u64>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        v: u64,
    }

    fn whole(text: &str) -> Result<Document, JsonError> {
        parse_whole("document", text.as_bytes(), 1024)
    }

    #[test]
    fn one_form() {
        let good = r#"{"inner":{"v":1},"map":{"a":1,"b":2}}"#;
        let document = whole(good).unwrap();
        assert_eq!(parse::<Document>("document", good.as_bytes(), 1024).unwrap(), document);
        assert_eq!(whole(" {\"map\":{\"b\":2,\"a\":1}, \"inner\":{\"v\":1}}\n").unwrap(), document);
        assert!(whole(r#"{"inner":null,"map":{}}"#).unwrap().inner.is_none());
        for (name, bad) in [
            ("a list for the document", r#"[{"v":1},{"a":1,"b":2}]"#),
            ("a list for an object in it", r#"{"inner":[1],"map":{"a":1,"b":2}}"#),
            ("a member left out", r#"{"map":{"a":1,"b":2}}"#),
            ("a member twice", r#"{"inner":null,"inner":{"v":1},"map":{}}"#),
            ("a name in a map twice", r#"{"inner":{"v":1},"map":{"a":1,"b":2,"b":2}}"#),
            ("an unknown member", r#"{"inner":{"v":1,"w":1},"map":{}}"#),
            ("a second document", r#"{"inner":{"v":1},"map":{}}{}"#),
            ("no document", ""),
        ] {
            assert!(matches!(whole(bad), Err(JsonError::Malformed { .. })), "{name}: {bad}");
        }
    }

    #[test]
    fn foreign_documents_have_each_name_once() {
        let good = r#"{"a":[{"b":null,"c":[1,-2,0.5,true,"x"]},{"b":{}}]}"#;
        let value = parse_unique("document", good.as_bytes(), 1024).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(good).unwrap());
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(500), "]".repeat(500));
        for (name, bad) in [
            ("a name twice", r#"{"a":1,"a":1}"#),
            ("a name twice in an object in a list", r#"{"a":[{"b":1,"c":2,"b":1}]}"#),
            ("a name twice, once escaped", r#"{"a":1,"\u0061":1}"#),
            ("no object", "[1]"),
            ("a second document", "{} {}"),
            ("no end", r#"{"a":"#),
            ("nested without end", &deep),
        ] {
            assert!(parse_unique("document", bad.as_bytes(), 2048).is_err(), "{name}: {bad}");
        }
        assert!(matches!(parse_unique("document", b"{ }", 2), Err(JsonError::TooLong { .. })));
    }

    #[test]
    fn integers_that_have_a_form_of_their_own() {
        let most = Inner { v: INTEGER_MAX };
        let text = canonical("document", &most).unwrap();
        assert_eq!(parse_canonical::<Inner>("document", text.as_bytes(), 64).unwrap(), most);
        // 2^53 and 2^53 + 1 would be written alike.
        for v in [INTEGER_MAX + 1, INTEGER_MAX + 2, u64::MAX] {
            assert!(canonical("document", &Inner { v }).is_err(), "{v}");
            let text = format!("{{\"v\":{v}}}");
            assert!(parse_canonical::<Inner>("document", text.as_bytes(), 64).is_err(), "{v}");
            assert!(parse_whole::<Inner>("document", text.as_bytes(), 64).is_err(), "{v}");
        }
    }

    #[test]
    fn messages_are_one_short_line() {
        let bad = format!(r#"{{"\u001b[2J\n{}":1}}"#, "é".repeat(500));
        let message = parse::<Inner>("document", bad.as_bytes(), 4096).unwrap_err().to_string();
        assert!(message.contains("unknown field"), "{message}");
        assert!(message.len() < 5000 && message.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{message}");
    }
}
