//! One request: a directory that is made for it, used once and removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use blf_evidence::snp::TABLE_CAP;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::report::{self, Report};
use super::{Provider, TsmFailure};

/// Longest report or quote, in bytes; [`blf_evidence::bundle`] takes no longer one.
const OUTBLOB_CAP: usize = 16 * 1024;
/// Longest text attribute.
const TEXT_CAP: usize = 64;
/// Highest VMPL, the most that `privlevel` takes.
const PRIVLEVEL_MAX: u64 = 3;

/// A request directory.
pub(super) struct Request(PathBuf);

impl Request {
    /// Makes a directory, uses it and removes it whatever happened. Its name is random, so that no other request shares it.
    /// A directory that stays is an error: each one holds kernel memory.
    ///
    /// # Errors
    /// [`TsmFailure::NoProvider`] when the kernel says ENXIO; what `work` says; what rmdir says.
    pub(super) fn with<T>(reports: &Path, work: impl FnOnce(&Self) -> Result<T, TsmFailure>) -> Result<T, TsmFailure> {
        let mut name = [0; 16];
        let random = getrandom(&mut name, GetRandomFlags::empty()).map_err(io::Error::from);
        if random.map_err(|error| failure("mkdir", 0, error))? != name.len() {
            return Err(failure("mkdir", 0, io::ErrorKind::UnexpectedEof.into()));
        }
        let request = Self(reports.join(format!("blf-{:032x}", u128::from_be_bytes(name))));
        fs::create_dir(&request.0).map_err(|error| failure("mkdir", 0, error))?;
        let result = work(&request);
        let removed = fs::remove_dir(&request.0).map_err(|error| failure("rmdir", 0, error));
        let value = result?;
        removed?;
        Ok(value)
    }

    /// Who answers.
    pub(super) fn provider(&self) -> Result<Provider, TsmFailure> {
        let text = self.text("provider")?;
        [Provider::Snp, Provider::Tdx].into_iter().find(|known| known.to_string() == text).ok_or(TsmFailure::Text {
            attribute: "provider",
            wanted: "sev_guest or tdx_guest",
            got: text,
        })
    }

    /// The report over `statement`, if nobody else touched the request between our first and our last access.
    pub(super) fn report(&self, provider: Provider, statement: &[u8; 64]) -> Result<Report, TsmFailure> {
        let got = self.provider()?;
        if got != provider {
            let wanted = "the provider found at start";
            return Err(TsmFailure::Text { attribute: "provider", wanted, got: got.to_string() });
        }
        let mut generation = self.number("generation")?;
        // Only SNP has privilege levels. The floor is the most trusted level this guest may speak for.
        let privlevel = optional(self.number("privlevel_floor"))?;
        if let Some(level) = privlevel {
            if level > PRIVLEVEL_MAX {
                return Err(TsmFailure::Layout { field: "privlevel_floor", wanted: PRIVLEVEL_MAX, got: level });
            }
            self.write("privlevel", level.to_string().as_bytes())?;
            self.expect_generation("privlevel", &mut generation, 1)?;
        }
        self.write("inblob", statement)?;
        self.expect_generation("inblob", &mut generation, 1)?;

        let bytes = self.blob("outblob", OUTBLOB_CAP)?;
        let certificates = optional(self.blob("auxblob", TABLE_CAP))?.filter(|table| !table.is_empty());
        self.expect_generation("outblob", &mut generation, 0)?;

        match provider {
            Provider::Snp => report::snp(bytes, certificates, statement, privlevel),
            Provider::Tdx => report::tdx(bytes, statement),
        }
    }

    fn expect_generation(&self, after: &'static str, generation: &mut u64, writes: u64) -> Result<(), TsmFailure> {
        let wanted = generation.wrapping_add(writes);
        let got = self.number("generation")?;
        if got != wanted {
            return Err(TsmFailure::Generation { after, wanted, got });
        }
        *generation = got;
        Ok(())
    }

    /// The whole attribute in one write. Configfs hands a binary one over when the file is closed and then tells no error,
    /// which is another reason to look at the generation.
    fn write(&self, attribute: &'static str, bytes: &[u8]) -> Result<(), TsmFailure> {
        let write = || {
            let mut file = OpenOptions::new().write(true).open(self.0.join(attribute))?;
            if file.write(bytes)? != bytes.len() {
                return Err(io::ErrorKind::WriteZero.into());
            }
            Ok(())
        };
        write().map_err(|error| failure(attribute, bytes.len(), error))
    }

    fn number(&self, attribute: &'static str) -> Result<u64, TsmFailure> {
        let text = self.text(attribute)?;
        match text.parse() {
            Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
            _ => Err(TsmFailure::Text { attribute, wanted: "a decimal number", got: text }),
        }
    }

    fn text(&self, attribute: &'static str) -> Result<String, TsmFailure> {
        let bytes = self.blob(attribute, TEXT_CAP)?;
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        match str::from_utf8(text) {
            Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(text.into()),
            _ => {
                let got = String::from_utf8_lossy(text).into_owned();
                Err(TsmFailure::Text { attribute, wanted: "one line of ASCII", got })
            }
        }
    }

    /// At most `cap` bytes, whatever size the file claims to have.
    fn blob(&self, attribute: &'static str, cap: usize) -> Result<Vec<u8>, TsmFailure> {
        let read = || {
            let mut bytes = Vec::new();
            let limit = u64::try_from(cap).unwrap_or(u64::MAX).saturating_add(1);
            File::open(self.0.join(attribute))?.take(limit).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| failure(attribute, cap, error))?;
        if bytes.len() > cap {
            return Err(TsmFailure::TooLong { attribute, wanted: cap });
        }
        Ok(bytes)
    }
}

fn failure(attribute: &'static str, cap: usize, error: io::Error) -> TsmFailure {
    match error.raw_os_error() {
        Some(errno) if errno == Errno::FBIG.raw_os_error() => TsmFailure::TooLong { attribute, wanted: cap },
        Some(errno) if errno == Errno::NXIO.raw_os_error() => TsmFailure::NoProvider,
        _ => TsmFailure::Attribute { attribute, error },
    }
}

/// Not every provider, and not every kernel, has every attribute.
fn optional<T>(result: Result<T, TsmFailure>) -> Result<Option<T>, TsmFailure> {
    match result {
        Err(TsmFailure::Attribute { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
