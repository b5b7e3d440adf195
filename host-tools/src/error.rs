//! One error for every command: whose fault it is, what was wanted and what came, and what to do next.

use std::fmt::Display;

use serde::Serialize;

/// Whose fault a failure is; the exit code follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The operation failed.
    Failed,
    /// The command line asks for something that does not exist.
    Usage,
    /// Something was checked and is not what it must be.
    Rejected,
    /// Something could not be checked.
    NoVerdict,
    /// This machine lacks something.
    Environment,
    /// A configuration file is wrong.
    Config,
}

/// Why a command ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whose fault it is.
    pub class: Class,
    /// One lower-case line: what was wanted and what came.
    pub message: String,
    /// What to do about it, if that is known.
    pub next: Option<String>,
}

impl Class {
    /// The exit code; 0 is success.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Rejected => 3,
            Self::NoVerdict => 4,
            Self::Environment => 5,
            Self::Config => 6,
        }
    }
}

impl Error {
    /// An error of `class` that says `message`.
    pub fn new(class: Class, message: impl Display) -> Self {
        Self { class, message: message.to_string(), next: None }
    }

    /// The operation failed.
    pub fn failed(message: impl Display) -> Self {
        Self::new(Class::Failed, message)
    }

    /// Something was checked and is not what it must be.
    pub fn rejected(message: impl Display) -> Self {
        Self::new(Class::Rejected, message)
    }

    /// This machine lacks something.
    pub fn environment(message: impl Display) -> Self {
        Self::new(Class::Environment, message)
    }

    /// A configuration file is wrong.
    pub fn config(message: impl Display) -> Self {
        Self::new(Class::Config, message)
    }

    /// The same error with advice.
    #[must_use]
    pub fn next(mut self, next: impl Display) -> Self {
        self.next = Some(next.to_string());
        self
    }
}
