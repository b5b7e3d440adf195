//! The words in which a policy is written. None of them is a default: "any" and "allowed" have to be typed.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// Which values are accepted. `{"only": []}` accepts none.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accept<T> {
    /// Every value.
    Any,
    /// These.
    Only(Vec<T>),
}

/// What is wanted of one bit. Bits that have no name in a policy are forbidden.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bit {
    /// Set or not.
    Allowed,
    /// Not set.
    Forbidden,
    /// Set.
    Required,
}

/// Whether something optional must be there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// With or without.
    Any,
    /// Only with.
    Required,
}

/// How old something may be. A limit demands that it is there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Of any age, or not there at all.
    Any,
    /// There, and at most so old; the policy's member names the unit.
    AtMost(u64),
}

impl<T: PartialEq> Accept<T> {
    pub(crate) fn accepts(&self, value: &T) -> bool {
        match self {
            Self::Any => true,
            Self::Only(values) => values.contains(value),
        }
    }
}

impl<T> Accept<T> {
    pub(crate) fn listing(&self, spelled: impl Fn(&T) -> String) -> String {
        match self {
            Self::Any => "any".into(),
            Self::Only(values) if values.is_empty() => "none".into(),
            Self::Only(values) => values.iter().map(spelled).collect::<Vec<_>>().join(", "),
        }
    }
}

impl<T: Display> Accept<T> {
    pub(crate) fn list(&self) -> String {
        self.listing(T::to_string)
    }
}

impl Bit {
    fn admits(self, set: bool) -> bool {
        match self {
            Self::Allowed => true,
            Self::Forbidden => !set,
            Self::Required => set,
        }
    }
}

impl Demand {
    pub(crate) fn admits(self, there: bool) -> bool {
        self == Self::Any || there
    }

    /// What is wanted: "any", or the words for what is required.
    pub(crate) fn wording(self, required: &str) -> String {
        match self {
            Self::Any => "any".into(),
            Self::Required => required.into(),
        }
    }
}

impl Limit {
    /// Whether something that began at `since` will do at `now`.
    pub(crate) fn admits(self, since: Option<u64>, now: u64) -> bool {
        match self {
            Self::Any => true,
            Self::AtMost(most) => since.is_some_and(|since| now.saturating_sub(since) <= most),
        }
    }

    /// When something that began at `since` will no longer do.
    pub(crate) fn end(self, since: Option<u64>) -> Option<u64> {
        match (self, since) {
            (Self::AtMost(most), Some(since)) => Some(since.saturating_add(most).saturating_add(1)),
            _ => None,
        }
    }

    /// What is wanted: "any", or how old it may be.
    pub(crate) fn wording(self, unit: &str) -> String {
        match self {
            Self::Any => "any".into(),
            Self::AtMost(most) => format!("at most {most} {unit} old"),
        }
    }
}

/// A word of bits: for each its name, its mask, and what is wanted of it.
pub(crate) struct Bits<const N: usize>(pub(crate) [(&'static str, u64, Bit); N]);

impl<const N: usize> Bits<N> {
    pub(crate) fn admit(&self, word: u64) -> bool {
        let named = self.0.iter().fold(0, |named, (_, mask, _)| named | mask);
        word & !named == 0 && self.0.iter().all(|(_, mask, bit)| bit.admits(word & mask != 0))
    }

    /// What is wanted, e.g. `debug forbidden, smt allowed`.
    pub(crate) fn wording(&self) -> String {
        let word = |bit: &Bit| match bit {
            Bit::Allowed => "allowed",
            Bit::Forbidden => "forbidden",
            Bit::Required => "required",
        };
        let named = self.0.iter().map(|(name, _, bit)| format!("{name} {}", word(bit)));
        named.chain(["no other".into()]).collect::<Vec<_>>().join(", ")
    }

    /// The bits that are set, e.g. `debug, smt, bit 40`.
    pub(crate) fn spelled(&self, word: u64) -> String {
        let set = (0..64).filter(|index| word >> index & 1 == 1).map(|index| {
            let named = self.0.iter().find(|(_, mask, _)| *mask == 1 << index);
            named.map_or_else(|| format!("bit {index}"), |(name, ..)| (*name).to_string())
        });
        let set: Vec<_> = set.collect();
        if set.is_empty() { "none".into() } else { set.join(", ") }
    }
}
