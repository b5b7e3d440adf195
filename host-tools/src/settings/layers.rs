//! The values of all keys, layer upon layer: default, file, environment, flag.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::{Flags, KEYS, Key, Kind, Settings, address, meant, number, one_of, resolve};
use crate::error::{Error, Exit};
use crate::existing;
use crate::journal::Log;

/// Longest configuration file, in bytes.
const FILE_CAP: usize = 64 * 1024;

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "origin")]
pub enum Origin {
    /// Nobody chose.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The service manager's credentials (`LoadCredential=` in systemd.exec(5)).
    Credential,
    /// A flag of the command line.
    Flag,
}

/// A value and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Value {
    /// The value as text; empty for nothing.
    pub value: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
}

/// The values of all keys, layer upon layer.
#[derive(Clone, Debug)]
pub struct Layers(BTreeMap<&'static str, Value>);

impl Layers {
    /// The defaults.
    pub fn new() -> Self {
        Self(KEYS.iter().map(|key| (key.name, Value { value: key.default.into(), origin: Origin::Default })).collect())
    }

    /// What a file says, over what there is.
    ///
    /// # Errors
    /// A configuration error naming file and line: no TOML, an unknown key with what it may have meant, a value of
    /// another type or out of bounds, or a file that others may write.
    pub fn file(&mut self, path: &Path) -> Result<(), Error> {
        let wrong = |e: &dyn fmt::Display| Error::config("CONFIG", format!("{}: {e}", path.display()));
        let mode = fs::metadata(path).map_err(|e| wrong(&e))?.mode();
        if mode & 0o022 != 0 {
            let error = format!("wanted a file that only its owner may write, got mode {:04o}", mode & 0o7777);
            return Err(wrong(&error).hint(format!("chmod 600 {}", path.display())));
        }
        let bytes = crate::release::read(path, FILE_CAP as u64, "CONFIG")?;
        let text = String::from_utf8(bytes).map_err(|_| wrong(&"wanted UTF-8"))?;
        self.text(&text, path)
    }

    /// As [`Self::file`], of a text that was read from `path`.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn text(&mut self, text: &str, path: &Path) -> Result<(), Error> {
        let line = |at: usize| text.get(..at).unwrap_or(text).bytes().filter(|b| *b == b'\n').count() + 1;
        let at =
            |line: usize, e: &dyn fmt::Display| Error::config("CONFIG", format!("{} line {line}: {e}", path.display()));
        let table = DeTable::parse(text).map_err(|e| {
            let place = e.span().map_or(1, |span| line(span.start));
            at(place, &e.message().lines().collect::<Vec<_>>().join(", "))
        })?;
        for (name, value) in table.get_ref() {
            let place = line(name.span().start);
            let Some(key) = Key::named(name.get_ref()) else { return Err(unknown(name.get_ref(), |e| at(place, e))) };
            let got = value.get_ref();
            let text = match (key.kind, got) {
                (Kind::Switch, DeValue::Boolean(yes)) => yes.to_string(),
                (Kind::Number(..), DeValue::Integer(number)) if number.radix() == 10 => {
                    number.as_str().replace('_', "")
                }
                (Kind::Resolve, DeValue::Array(entries)) => {
                    let entries: Option<Vec<_>> = entries.iter().map(|entry| entry.get_ref().as_str()).collect();
                    entries.ok_or_else(|| at(place, &format!("{}: wanted an array of strings", key.name)))?.join(",")
                }
                (Kind::Path | Kind::Word(_) | Kind::Service | Kind::Address, DeValue::String(text)) => text.to_string(),
                (kind, got) => {
                    let error = format!("{}: wanted {}, got {}", key.name, kind.toml(), got.type_str());
                    return Err(at(place, &error));
                }
            };
            key.check(&text).map_err(|e| at(place, &format!("{}: {e}", key.name)))?;
            let text = match key.kind {
                // Nobody else knows where the file lies.
                Kind::Path if !text.is_empty() => {
                    path.parent().unwrap_or_else(|| Path::new("")).join(text).display().to_string()
                }
                _ => text,
            };
            self.set(key.name, text, Origin::File { file: path.into(), line: place });
        }
        Ok(())
    }

    /// What the environment says, over what there is; `variable` looks one up.
    ///
    /// # Errors
    /// A configuration error naming the variable.
    pub fn environment(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), Error> {
        for key in &KEYS {
            let name = key.variable();
            let Some(mut text) = variable(&name).filter(|text| !text.is_empty()) else { continue };
            if let Kind::Switch = key.kind {
                // As the existing node reads its own.
                text = matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "yes").to_string();
            }
            key.check(&text).map_err(|e| Error::config("ENVIRONMENT", format!("{name}: {e}")))?;
            self.set(key.name, text, Origin::Environment { variable: name });
        }
        if let Some(folder) = variable("CREDENTIALS_DIRECTORY").filter(|text| !text.is_empty())
            && self.is_default("credentials")
            && self.get("devnet") != "true"
        {
            let file = Path::new(&folder).join("credentials");
            if file.exists() {
                self.set("credentials", file.display().to_string(), Origin::Credential);
            }
        }
        Ok(())
    }

    /// What the command line says, over what there is.
    ///
    /// # Errors
    /// A usage error naming the flag.
    pub fn flags(&mut self, flags: &Flags, log: Option<Log>) -> Result<(), Error> {
        for (name, text) in flags.given(log) {
            let (Some(key), Some(text)) = (Key::named(name), text) else { continue };
            key.check(&text)
                .map_err(|e| Error::new(Exit::Usage, "USAGE", format!("--{}: {e}", name.replace('_', "-"))))?;
            self.set(key.name, text, Origin::Flag);
        }
        // A network of one's own is chosen against what a file names for another.
        if flags.devnet {
            for other in ["profile", "credentials"] {
                self.set(other, String::new(), Origin::Flag);
            }
        }
        Ok(())
    }

    /// What somebody answered for `key`, after [`Key::check`].
    pub fn answer(&mut self, key: &'static Key, text: String) {
        self.set(key.name, text, Origin::Flag);
    }

    /// Makes every path independent of where this process was started, for a file that outlives it.
    ///
    /// # Errors
    /// A usage error for a path that cannot be.
    pub fn rooted(&mut self) -> Result<(), Error> {
        for key in KEYS.iter().filter(|key| matches!(key.kind, Kind::Path)) {
            let path = self.get(key.name);
            if !path.is_empty() {
                let rooted = std::path::absolute(path)
                    .map_err(|e| Error::new(Exit::Usage, "USAGE", format!("{}: {path}: {e}", key.name)))?;
                self.set(key.name, rooted.display().to_string(), Origin::Flag);
            }
        }
        Ok(())
    }

    /// The key and its value, in the order of [`KEYS`].
    pub fn all(&self) -> impl Iterator<Item = (&'static Key, &Value)> {
        KEYS.iter().filter_map(|key| Some((key, self.0.get(key.name)?)))
    }

    /// Everything checked together.
    ///
    /// # Errors
    /// A configuration error naming the keys that exclude each other and where they come from.
    pub fn settings(&self) -> Result<Settings, Error> {
        let path = |name| Some(PathBuf::from(self.get(name))).filter(|path| !path.as_os_str().is_empty());
        let settings = Settings {
            image: PathBuf::from(self.get("image")),
            model: path("model"),
            devnet: self.get("devnet") == "true",
            profile: path("profile"),
            tee: self.parsed("tee", one_of)?,
            accel: self.parsed("accel", one_of)?,
            memory: self.parsed("memory", number)?,
            cpus: self.parsed("cpus", number)?,
            max_jobs: self.parsed("max_jobs", number)?,
            credentials: path("credentials"),
            endorsements: path("endorsements"),
            resolve: self.parsed("resolve", resolve)?,
            api: match self.get("api") {
                "" => None,
                _ => Some(self.parsed("api", address)?),
            },
            boot_timeout: Duration::from_secs(self.parsed("boot_timeout", number)?),
            stop_timeout: Duration::from_secs(self.parsed("stop_timeout", number)?),
            run_dir: path("run_dir"),
            payment_service_url: match self.get("payment_service_url") {
                "" => None,
                _ => Some(self.parsed("payment_service_url", str::parse)?),
            },
            payment_roots: path("payment_roots"),
            log: self.parsed("log", one_of)?,
            log_level: self.parsed("log_level", one_of)?,
        };
        for other in ["profile", "credentials"] {
            if settings.devnet && !self.get(other).is_empty() {
                let [devnet, other_from] = ["devnet", other].map(|name| self.0.get(name).map(|v| v.origin.to_string()));
                let error = format!(
                    "devnet ({}) and {other} ({}): wanted one of them, got both; the devnet brings its own",
                    devnet.unwrap_or_default(),
                    other_from.unwrap_or_default()
                );
                return Err(Error::config("CONFIG", error).hint(format!("remove one of devnet and {other}")));
            }
        }
        Ok(settings)
    }

    fn set(&mut self, name: &'static str, value: String, origin: Origin) {
        self.0.insert(name, Value { value, origin });
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |value| value.value.as_str())
    }

    fn is_default(&self, name: &str) -> bool {
        self.0.get(name).is_none_or(|value| value.origin == Origin::Default)
    }

    fn parsed<T>(&self, name: &str, parse: fn(&str) -> Result<T, String>) -> Result<T, Error> {
        parse(self.get(name)).map_err(|e| Error::config("CONFIG", format!("{name}: {e}")))
    }
}

impl Default for Layers {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{} line {line}", file.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Credential => f.write_str("credential of the service"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// What to say of a key that does not exist.
fn unknown(name: &str, at: impl Fn(&dyn fmt::Display) -> Error) -> Error {
    let shown: String = name.chars().take(64).collect();
    if let Some(known) = existing::Name::of_key(name) {
        return at(&format!("{shown}: a key of the existing node's config.json: {}", known.fate))
            .hint("remove it; blf-host import FOLDER takes over an existing node's folder");
    }
    let error = at(&format!("{shown:?}: no such key"));
    match meant(name, KEYS.iter().map(|key| key.name)) {
        Some(meant) => error.hint(format!("did you mean {meant}?")),
        None => error.hint("blf-host config show lists every key"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::document;
    use super::*;
    use crate::cli::Cli;
    use crate::journal::Level;

    fn layers(text: &str) -> Result<Layers, Error> {
        let mut layers = Layers::new();
        layers.text(text, Path::new("/etc/blf/alpha/node.toml"))?;
        Ok(layers)
    }

    #[test]
    fn the_later_layer_holds_and_is_named() {
        let mut layers =
            layers("memory = 1024\ncpus = 3\nimage = \"img\"\nresolve = [\"a.b:1=127.0.0.1:2\"]\n").unwrap();
        layers.environment(|name| (name == "BLF_CPUS").then(|| "4".into())).unwrap();
        let flags = Flags { max_jobs: Some(1), ..Flags::default() };
        layers.flags(&flags, Some(Log::Stderr)).unwrap();
        let settings = layers.settings().unwrap();
        assert_eq!((settings.memory, settings.cpus, settings.max_jobs), (1024, 4, 1));
        assert_eq!((settings.log, settings.log_level), (Log::Stderr, Level::Info));
        assert_eq!(settings.image, Path::new("/etc/blf/alpha/img"));
        let origins: Vec<_> = layers.all().map(|(key, value)| (key.name, value.origin.to_string())).collect();
        for wanted in [
            ("memory", "/etc/blf/alpha/node.toml line 1"),
            ("cpus", "environment BLF_CPUS"),
            ("max_jobs", "flag"),
            ("accel", "default"),
        ] {
            assert!(origins.contains(&(wanted.0, wanted.1.into())), "{wanted:?} in {origins:?}");
        }
    }

    #[test]
    fn what_is_written_is_what_was_chosen() {
        let first =
            layers("model = \"/packs/a \\\"b\\\".pack\"\ndevnet = true\nresolve = [\"a.b:1=127.0.0.1:2\"]\n").unwrap();
        let text = document(&first, "one\ntwo");
        assert!(text.starts_with("# one\n# two\n\n# folder with"), "{text}");
        let again = layers(&text).unwrap();
        let values = |layers: &Layers| layers.all().map(|(_, value)| value.value.clone()).collect::<Vec<_>>();
        assert_eq!(values(&first), values(&again));
        // Every key is there to be found.
        for key in KEYS {
            assert!(text.contains(&format!("{} = ", key.name)), "{}", key.name);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, wanted, hint) in [
            ("cpus = 2\nmemroy = 512\n", "line 2: \"memroy\": no such key", "did you mean memory?"),
            ("\n\nmemory = \n", "line 3", ""),
            ("memory = 64", "memory: wanted a number from 192 to 1048576, got \"64\"", ""),
            ("memory = 0x400", "memory: wanted a whole number", ""),
            ("memory = \"512\"", "memory: wanted a whole number, got string", ""),
            ("devnet = 1", "devnet: wanted true or false, got integer", ""),
            ("image = 1", "image: wanted a string, got integer", ""),
            ("image = \"\"", "image: wanted a path", ""),
            ("cpus = 2\ncpus = 2", "line 2", ""),
            ("tee = \"sgx\"", "tee: wanted none, snp, tdx, auto, got \"sgx\"", ""),
            ("resolve = [1]", "resolve: wanted an array of strings", ""),
            ("resolve = [\"a\"]", "wanted NAME:PORT=ADDRESS:PORT", ""),
            ("payment_service_url = \"http://pay.example\"", "payment_service_url: wanted https", ""),
            ("icl_endpoint = \"https://x\"", "a key of the existing node's config.json: fixed by", "blf-host import"),
            ("[a]\nb = 1", "line 1: \"a\": no such key", "lists every key"),
        ] {
            let error = layers(text).unwrap_err();
            assert_eq!((error.exit, error.code.as_str()), (Exit::Config, "CONFIG"), "{text}: {error}");
            assert!(error.message.contains(wanted), "{text}: {error}");
            assert!(error.message.starts_with("/etc/blf/alpha/node.toml line "), "{error}");
            assert!(error.hint.unwrap_or_default().contains(hint), "{text}");
        }
        let error = Layers::new().environment(|name| (name == "BLF_MEMORY").then(|| "lots".into())).unwrap_err();
        assert_eq!(error.message, "BLF_MEMORY: wanted a number from 192 to 1048576, got \"lots\"");
        let error = layers("devnet = true\nprofile = \"p\"").unwrap().settings().unwrap_err();
        assert!(error.message.contains("node.toml line 1) and profile ("), "{error}");
    }

    #[test]
    fn what_the_service_manager_hands_over_is_for_other_networks_than_the_devnet() {
        let folder = tempfile::TempDir::new().unwrap();
        fs::write(folder.path().join("credentials"), "{}").unwrap();
        let of = |text| {
            let mut layers = layers(text).unwrap();
            let handed = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| folder.path().display().to_string());
            layers.environment(handed).unwrap();
            layers.settings().unwrap().credentials
        };
        assert_eq!(of(""), Some(folder.path().join("credentials")));
        assert_eq!(of("credentials = \"own\""), Some("/etc/blf/alpha/own".into()));
        assert_eq!(of("devnet = true"), None);
    }

    #[test]
    fn levels_are_read_as_the_seeds_write_them_and_switches_too() {
        let mut layers = Layers::new();
        let environment = [("BLF_LOG_LEVEL", "DEBUG"), ("BLF_DEVNET", "1"), ("BLF_MODEL", "")];
        layers.environment(|name| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).into())).unwrap();
        let settings = layers.settings().unwrap();
        assert_eq!((settings.log_level, settings.devnet, settings.model), (Level::Debug, true, None));
    }

    #[test]
    fn help_says_every_default() {
        let mut cli = Cli::command();
        let help = cli.find_subcommand_mut("run").unwrap().render_long_help().to_string();
        for key in KEYS {
            assert!(help.contains(&format!("--{}", key.name.replace('_', "-"))), "{}", key.name);
            if !key.default.is_empty() && !matches!(key.kind, Kind::Switch) && key.name != "log" {
                assert!(help.contains(&format!("[default: {}]", key.default)), "{}", key.name);
            }
        }
        assert!(!Layers::new().settings().unwrap().stops_early());
    }
}
