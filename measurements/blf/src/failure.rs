//! How a command ends when it does not end well, and with which exit code.

use std::fmt;

use serde::Serialize;

/// Exit codes, the same for every command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// The operation failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Evidence, answer or image was rejected.
    Rejected = 3,
    /// No verdict could be had.
    NoVerdict = 4,
    /// This machine or network cannot do it.
    Environment = 5,
    /// A file the user wrote is wrong.
    Config = 6,
}

/// One failure: what was wanted, what came, what to do next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// Stable, in capitals.
    pub code: String,
    /// One line.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, code: &str, message: impl fmt::Display) -> Self {
        Self { exit, code: code.into(), message: message.to_string(), hint: None }
    }

    /// The same with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  next: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Reads a file the user named, up to `cap` bytes.
///
/// # Errors
/// [`Exit::Config`] naming the file.
pub fn read_file(path: &std::path::Path, cap: u64) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let failure = |e: &dyn fmt::Display| Failure::new(Exit::Config, "FILE", format!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| failure(&e))?;
    file.take(cap + 1).read_to_end(&mut bytes).map_err(|e| failure(&e))?;
    if bytes.len() as u64 > cap {
        return Err(failure(&format!("wanted at most {cap} bytes, got more")));
    }
    Ok(bytes)
}
