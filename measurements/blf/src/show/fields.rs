//! What is shown: members in the order of their standard, as lines for people and as one JSON object.

use std::fmt::Write as _;

use blf_evidence::Hex;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::terminal::escaped;

/// Longest value that is shown whole, in bytes; of a longer one length and digest.
const WHOLE: usize = 128;
/// Widest column, in characters: names and cells are a stranger's, and what is longer sticks out.
const WIDEST: usize = 64;

/// A member's value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Shown {
    /// Not there.
    Nothing,
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(u64),
    /// Anything that has a text.
    Text(String),
    /// Members.
    Fields(Fields),
    /// Values without names.
    List(Vec<Self>),
    /// Values of the same names, shown as a table.
    Table(Vec<Fields>),
}

/// Names and values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<(String, Shown)>);

impl Fields {
    /// With one more member.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Shown>) -> Self {
        self.0.push((name.into(), value.into()));
        self
    }

    /// With one more member where there is a value.
    #[must_use]
    pub fn with_some<T: Into<Shown>>(self, name: &str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With the members of another.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// One line for each value, indented; foreign text cannot steer a terminal.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, 1);
        text
    }

    fn write(&self, text: &mut String, depth: usize) {
        let pad = "  ".repeat(depth);
        let width = self.0.iter().filter(|(_, value)| value.one_line().is_some()).map(|(name, _)| name.chars().count());
        let width = width.max().unwrap_or_default().min(WIDEST);
        for (name, value) in &self.0 {
            let name = escaped(name);
            match value.one_line() {
                Some(line) => _ = writeln!(text, "{pad}{name:width$}  {}", escaped(&line)),
                None => {
                    _ = writeln!(text, "{pad}{name}");
                    value.write(text, depth + 1);
                }
            }
        }
    }
}

impl Shown {
    /// The value on the line of its name, if it fits there.
    fn one_line(&self) -> Option<String> {
        match self {
            Self::Nothing => Some("none".into()),
            Self::Flag(flag) => Some(if *flag { "1" } else { "0" }.into()),
            Self::Number(number) => Some(number.to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::List(values) if values.is_empty() => Some("none".into()),
            Self::List(values) if values.iter().all(Self::is_short) => {
                Some(values.iter().filter_map(Self::one_line).collect::<Vec<_>>().join(", "))
            }
            Self::Table(rows) if rows.is_empty() => Some("none".into()),
            Self::Fields(_) | Self::List(_) | Self::Table(_) => None,
        }
    }

    /// A word or number, several of which fit on a line.
    fn is_short(&self) -> bool {
        const SHORT: usize = 24;
        match self {
            Self::Flag(_) | Self::Number(_) => true,
            Self::Text(text) => text.chars().count() <= SHORT,
            Self::Nothing | Self::Fields(_) | Self::List(_) | Self::Table(_) => false,
        }
    }

    fn write(&self, text: &mut String, depth: usize) {
        match self {
            Self::Fields(fields) => fields.write(text, depth),
            Self::List(values) => {
                let numbered = values.iter().enumerate().map(|(index, value)| (index.to_string(), value.clone()));
                Fields(numbered.collect()).write(text, depth);
            }
            Self::Table(rows) => write_table(text, rows, depth),
            Self::Nothing | Self::Flag(_) | Self::Number(_) | Self::Text(_) => {}
        }
    }
}

/// Columns as wide as their widest value, up to [`WIDEST`].
fn write_table(text: &mut String, rows: &[Fields], depth: usize) {
    let cell = |value: &Shown| escaped(&value.one_line().unwrap_or_default());
    let head: Vec<String> =
        rows.first().map(|row| row.0.iter().map(|(name, _)| name.clone()).collect()).unwrap_or_default();
    let body = rows.iter().map(|row| row.0.iter().map(|(_, value)| cell(value)).collect::<Vec<_>>());
    let lines: Vec<Vec<String>> = std::iter::once(head.clone()).chain(body).collect();
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or_default().min(WIDEST)).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let joined = cells.collect::<Vec<_>>().join("  ");
        _ = writeln!(text, "{}{}", "  ".repeat(depth), joined.trim_end());
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The bits of `value` by name, lowest first, and what is left of it.
pub(super) fn bits(value: u64, names: &[(u64, &str)]) -> Fields {
    let known = names.iter().fold(0, |known, (bit, _)| known | bit);
    let mut fields = Fields::default();
    for (bit, name) in names {
        fields = fields.with(*name, value & bit != 0);
    }
    let others = value & !known;
    fields.with_some("other bits", (others != 0).then(|| format!("0x{others:x}")))
}

/// Bytes in hex, or how many there are and their SHA-256.
pub(super) fn blob(bytes: &[u8]) -> Shown {
    match bytes.len() {
        0 => Shown::Nothing,
        length if length <= WHOLE => hex::encode(bytes).into(),
        length => format!("{length} bytes, SHA-256 {}", Hex::<32>(Sha256::digest(bytes).into())).into(),
    }
}

/// A part of a larger whole: its fields, or why it cannot be read.
pub(super) fn part<E: std::fmt::Display>(read: Result<Fields, E>) -> Fields {
    read.unwrap_or_else(|error| Fields::default().with("cannot be read", error.to_string()))
}

/// A document of ours, in the words of its schema.
pub(super) fn document(value: &impl Serialize) -> Result<Fields, String> {
    match Shown::from(serde_json::to_value(value).map_err(|e| e.to_string())?) {
        Shown::Fields(fields) => Ok(fields),
        _ => Err("wanted a JSON object".into()),
    }
}

impl From<Value> for Shown {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Nothing,
            Value::Bool(flag) => Self::Flag(flag),
            Value::Number(number) => number.as_u64().map_or_else(|| Self::Text(number.to_string()), Self::Number),
            Value::String(text) => Self::Text(text),
            Value::Array(values) => Self::List(values.into_iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Fields(Fields(members.into_iter().map(|(name, value)| (name, value.into())).collect()))
            }
        }
    }
}

impl<const N: usize> From<Hex<N>> for Shown {
    fn from(bytes: Hex<N>) -> Self {
        Self::Text(bytes.to_string())
    }
}

impl<T: Into<Self>> From<Option<T>> for Shown {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, Into::into)
    }
}

macro_rules! shown {
    ($($type:ty: $of:expr),* $(,)?) => {
        $(impl From<$type> for Shown {
            fn from(value: $type) -> Self {
                let of: fn($type) -> Self = $of;
                of(value)
            }
        })*
    };
}

shown! {
    bool: Self::Flag,
    u8: |number| Self::Number(number.into()),
    u16: |number| Self::Number(number.into()),
    u32: |number| Self::Number(number.into()),
    u64: Self::Number,
    String: Self::Text,
    &str: |text| Self::Text(text.into()),
    Fields: Self::Fields,
    Vec<Self>: Self::List,
    Vec<Fields>: Self::Table,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A width from the file, above 65,535, panicked; below, each short line became as long as the longest.
    #[test]
    fn a_long_name_or_cell_widens_no_other_line() {
        let long = "x".repeat(70_000);
        let rows = |cell: &str| Fields::default().with("a", cell).with("b", 1_u8);
        let fields =
            Fields::default().with(long.as_str(), 1_u8).with("short", 2_u8).with("rows", vec![rows(&long), rows("y")]);
        let text = fields.to_text();
        assert!(text.contains(&format!("  short{}  2\n", " ".repeat(WIDEST - 5))), "{}", text.len());
        assert!(text.contains(&format!("    y{}  1\n", " ".repeat(WIDEST - 1))), "{}", text.len());
        assert!(text.len() < 2 * long.len() + 1000, "{}", text.len());
    }

    #[test]
    fn lines_and_object_say_the_same() {
        let table = vec![
            Fields::default().with("PCR", 0_u8).with("event", "a\u{202e}\x1b[2J"),
            Fields::default().with("PCR", 11_u8).with("event", Shown::Nothing),
        ];
        let fields = Fields::default()
            .with("VERSION", 3_u32)
            .with("POLICY", bits(0b1101, &[(1, "SMT"), (2, "DEBUG")]))
            .with("events", table)
            .with("id", blob(&[0; 129]));
        let text = fields.to_text();
        for line in [
            "  VERSION  3\n",
            "  POLICY\n    SMT         1\n    DEBUG       0\n    other bits  0xc\n",
            "    PCR  event\n    0    a\\u{202e}\\u{1b}[2J\n    11   none\n",
            "  id       129 bytes, SHA-256 ",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        let json = serde_json::to_string(&fields).unwrap();
        let policy = r#"{"VERSION":3,"POLICY":{"SMT":true,"DEBUG":false,"other bits":"0xc"},"#;
        assert!(json.starts_with(policy), "{json}");
        assert!(json.contains(r#"{"PCR":11,"event":null}"#), "{json}");
    }
}
