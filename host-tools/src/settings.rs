//! What an operator chooses for a node, and where each choice comes from: default, file, environment, flag; the later
//! one holds. Everything here is the host's business: what a guest may reach and whom it believes is measured.

mod flags;
mod layers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blf_evidence::tunnel::DRAIN;
use clap::ValueEnum;

use crate::error::Error;
use crate::forward::Resolve;
use crate::isolation::{AccelChoice, Tee};
use crate::journal::{Level, Log};
use crate::payment::Service;

pub use flags::Flags;
pub use layers::{Layers, Origin, Value};

/// One thing to choose.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in the file; the flag has dashes, the environment `BLF_` and capitals.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What it is if nobody chooses; empty for nothing.
    pub default: &'static str,
    /// One line for the file.
    pub about: &'static str,
}

/// What a choice may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A file or folder; a relative one is looked for beside the file that names it.
    Path,
    /// True or false.
    Switch,
    /// A whole number within bounds.
    Number(u64, u64),
    /// One of some words.
    Word(fn(&str) -> Result<(), String>),
    /// Entries `NAME:PORT=ADDRESS:PORT`.
    Resolve,
    /// The address of a service.
    Service,
    /// `ADDRESS:PORT` on this machine.
    Address,
}

/// Every key, in the order in which people read them.
pub const KEYS: [Key; 20] = [
    Key { name: "image", kind: Kind::Path, default: "out", about: "folder with the image and its release manifest" },
    Key { name: "model", kind: Kind::Path, default: "", about: "model pack for the guest" },
    Key { name: "devnet", kind: Kind::Switch, default: "false", about: "run a local network in the same process" },
    Key {
        name: "profile",
        kind: Kind::Path,
        default: "",
        about: "network profile compiled into the image; not needed for the devnet's",
    },
    Key { name: "tee", kind: Kind::Word(word::<Tee>), default: "auto", about: "isolation: none, snp, tdx, auto" },
    Key { name: "accel", kind: Kind::Word(word::<AccelChoice>), default: "auto", about: "kvm, tcg or auto" },
    Key { name: "memory", kind: Kind::Number(192, 1_048_576), default: "512", about: "guest memory in MiB" },
    Key { name: "cpus", kind: Kind::Number(1, 64), default: "2", about: "virtual processors" },
    Key { name: "max_jobs", kind: Kind::Number(1, 2), default: "2", about: "jobs side by side" },
    Key {
        name: "credentials",
        kind: Kind::Path,
        default: "",
        about: "file with the pinning service's token, mode 0600",
    },
    Key { name: "endorsements", kind: Kind::Path, default: "", about: "one document to staple to the evidence" },
    Key {
        name: "resolve",
        kind: Kind::Resolve,
        default: "",
        about: "names of the profile that lie elsewhere than DNS says: NAME:PORT=ADDRESS:PORT",
    },
    Key {
        name: "api",
        kind: Kind::Address,
        default: "",
        about: "ADDRESS:PORT that leads into the guest's attested API; without it nobody gets in",
    },
    Key {
        name: "boot_timeout",
        kind: Kind::Number(1, 3600),
        default: "300",
        about: "seconds a guest may take until its evidence",
    },
    Key {
        name: "stop_timeout",
        kind: Kind::Number(0, 3600),
        default: "390",
        about: "seconds a guest may take to finish its jobs and power off; it drains for at most 360",
    },
    Key { name: "run_dir", kind: Kind::Path, default: "", about: "where sockets and locks of the running VM go" },
    Key {
        name: "payment_service_url",
        kind: Kind::Service,
        default: "",
        about: "the network's payment service, for `blf-host jobs`",
    },
    Key {
        name: "payment_roots",
        kind: Kind::Path,
        default: "",
        about: "PEM file with the roots to believe for it instead of the machine's",
    },
    Key {
        name: "log",
        kind: Kind::Word(word::<Log>),
        default: "auto",
        about: "where what the guest reports is written down: auto, journald, stderr, network, none",
    },
    Key {
        name: "log_level",
        kind: Kind::Word(word::<Level>),
        default: "info",
        about: "least level of the log: debug, info, warning, error",
    },
];

/// All choices, checked.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the keys of KEYS, which say what each is")]
pub struct Settings {
    pub image: PathBuf,
    pub model: Option<PathBuf>,
    pub devnet: bool,
    pub profile: Option<PathBuf>,
    pub tee: Tee,
    pub accel: AccelChoice,
    pub memory: u32,
    pub cpus: u8,
    pub max_jobs: u8,
    pub credentials: Option<PathBuf>,
    pub endorsements: Option<PathBuf>,
    pub resolve: Resolve,
    pub api: Option<SocketAddr>,
    pub boot_timeout: Duration,
    pub stop_timeout: Duration,
    pub run_dir: Option<PathBuf>,
    pub payment_service_url: Option<Service>,
    pub payment_roots: Option<PathBuf>,
    pub log: Log,
    pub log_level: Level,
}

impl Key {
    /// The key of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Its variable in the environment.
    pub fn variable(&self) -> String {
        format!("BLF_{}", self.name.to_ascii_uppercase())
    }

    /// Whether `text` may be its value; empty is nothing.
    ///
    /// # Errors
    /// What was wanted and what came.
    pub fn check(&self, text: &str) -> Result<(), String> {
        match self.kind {
            _ if text.is_empty() && self.default.is_empty() => Ok(()),
            Kind::Path if text.is_empty() || text.contains('\0') => Err("wanted a path".into()),
            Kind::Path => Ok(()),
            Kind::Switch if matches!(text, "true" | "false") => Ok(()),
            Kind::Switch => Err(format!("wanted true or false, got {text:?}")),
            Kind::Number(least, most) => match text.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(()),
                _ => Err(format!("wanted a number from {least} to {most}, got {text:?}")),
            },
            Kind::Word(check) => check(text),
            Kind::Resolve => resolve(text).map(drop),
            Kind::Service => text.parse::<Service>().map(drop),
            Kind::Address => address(text).map(drop),
        }
    }
}

impl Settings {
    /// Whether a guest may be ended by force while it still drains.
    pub fn stops_early(&self) -> bool {
        self.stop_timeout < DRAIN
    }

    /// The model pack, without which no guest comes up.
    ///
    /// # Errors
    /// A configuration error where none is named.
    pub fn model_pack(&self) -> Result<&Path, Error> {
        self.model.as_deref().ok_or_else(|| {
            Error::config("NO_MODEL", "wanted a model pack, none is named: a guest does not come up without one")
                .hint("--model FILE, or model = \"FILE\" in the node's configuration; blf-host models pack makes one")
        })
    }
}

impl Kind {
    fn toml(self) -> &'static str {
        match self {
            Self::Path | Self::Word(_) | Self::Service | Self::Address => "a string",
            Self::Switch => "true or false",
            Self::Number(..) => "a whole number",
            Self::Resolve => "an array of strings",
        }
    }
}

/// The text of a configuration file with every key: what was chosen, and as comments what may be.
pub fn document(layers: &Layers, header: &str) -> String {
    let mut text: String = header.lines().map(|line| format!("# {line}\n")).collect();
    for (key, value) in layers.all() {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let spelled = match key.kind {
            Kind::Switch | Kind::Number(..) => value.value.clone(),
            Kind::Resolve => {
                let entries: Vec<_> = value.value.split(',').filter(|entry| !entry.is_empty()).map(quoted).collect();
                format!("[{}]", entries.join(", "))
            }
            Kind::Path | Kind::Word(_) | Kind::Service | Kind::Address => quoted(&value.value),
        };
        let comment = if value.origin == Origin::Default { "# " } else { "" };
        text.push_str(&format!("\n# {}\n{comment}{} = {spelled}\n", key.about, key.name));
    }
    text
}

/// The name among `known` that `name` may have meant.
pub fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = known.into_iter().map(|known| (strsim::osa_distance(name, known), known)).min()?;
    (nearest.0 <= 1.max(name.len() / 4)).then_some(nearest.1)
}

fn word<T: ValueEnum>(text: &str) -> Result<(), String> {
    one_of::<T>(text).map(drop)
}

fn one_of<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, true).map_err(|_| {
        let words: Vec<_> = T::value_variants().iter().map(|word| spelled_ref(word)).collect();
        format!("wanted {}, got {text:?}", words.join(", "))
    })
}

fn spelled<T: ValueEnum>(word: T) -> String {
    spelled_ref(&word)
}

fn spelled_ref<T: ValueEnum>(word: &T) -> String {
    word.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let wrong = || format!("wanted a number, got {text:?}");
    T::try_from(text.parse().map_err(|_| wrong())?).map_err(|_| wrong())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("wanted ADDRESS:PORT, got {text:?}"))
}

fn resolve(text: &str) -> Result<Resolve, String> {
    let mut resolve = Resolve::default();
    for entry in text.split(',').filter(|entry| !entry.is_empty()) {
        resolve.add(entry).map_err(|e| e.to_string())?;
    }
    Ok(resolve)
}
