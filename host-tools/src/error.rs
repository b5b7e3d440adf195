//! One error for every command: whose fault it is, what was wanted and what came, and what to do next.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// Whose fault a failure is; the exit code follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// The operation failed.
    Failed = 1,
    /// The command line asks for something that does not exist.
    Usage = 2,
    /// Something was checked and is not what it must be.
    Rejected = 3,
    /// Something could not be checked.
    NoVerdict = 4,
    /// This machine lacks something.
    Environment = 5,
    /// A file of the operator's is wrong.
    Config = 6,
}

/// Why a command ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// How the process ends.
    pub exit: Exit,
    /// Stable, in capitals.
    pub code: String,
    /// One lower-case line: what was wanted and what came.
    pub message: String,
    /// What to do next, if that is known.
    pub hint: Option<String>,
    /// Whether the command's one object on stdout says so already.
    #[serde(skip)]
    pub said: bool,
}

impl Error {
    /// An error without a hint.
    pub fn new(exit: Exit, code: &str, message: impl Display) -> Self {
        Self { exit, code: code.into(), message: message.to_string(), hint: None, said: false }
    }

    /// The operation failed.
    pub fn failed(code: &str, message: impl Display) -> Self {
        Self::new(Exit::Failed, code, message)
    }

    /// Something was checked and is not what it must be.
    pub fn rejected(code: &str, message: impl Display) -> Self {
        Self::new(Exit::Rejected, code, message)
    }

    /// This machine lacks something.
    pub fn environment(code: &str, message: impl Display) -> Self {
        Self::new(Exit::Environment, code, message)
    }

    /// A file of the operator's is wrong.
    pub fn config(code: &str, message: impl Display) -> Self {
        Self::new(Exit::Config, code, message)
    }

    /// The same error with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same error, of a command whose report is the one object on stdout already.
    #[must_use]
    pub fn said(mut self) -> Self {
        self.said = true;
        self
    }
}
