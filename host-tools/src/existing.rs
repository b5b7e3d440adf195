//! What the existing network's node calls its choices, in `config.json` and as `BLF_*`, and what became of each.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use blf_evidence::profile::{Host, NetworkProfile};
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
use crate::payment::Service;
use crate::release::read;
use crate::settings::{KEYS, Key, Layers, meant};

/// One name and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// Key of `config.json`; empty for what is only a variable.
    pub key: &'static str,
    /// Variable of the environment; empty for what is only a key.
    pub variable: &'static str,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The host has it too, under the same name.
    Kept,
    /// The measured profile fixes it, in this member.
    Fixed(Fixed),
    /// The guest makes it, anew at every boot.
    Born,
    /// It follows from the evidence and the coordinator's certificate, and nobody declares it.
    Proved,
    /// Something else does its work.
    Replaced(&'static str),
    /// Nothing does, and why.
    Dropped(&'static str),
}

/// A member of the measured profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the members of the profile")]
pub enum Fixed {
    Icl,
    BlobGateway,
    ChainId,
    Rpc,
    PromptKeyStore,
}

/// Every name of the existing node that its documents or its program know.
pub const NAMES: [Name; 32] = {
    use Fate::{Born, Dropped, Fixed as By, Kept, Proved, Replaced};
    const fn name(key: &'static str, variable: &'static str, fate: Fate) -> Name {
        Name { key, variable, fate }
    }
    let token = Replaced("the file that `credentials` names, which no other process can read");
    let on_chain = Dropped("calls to the chain come with a later release");
    [
        name("attestation_backend", "BLF_ATTESTATION_BACKEND", Proved),
        name("attestation_cert_hash", "BLF_ATTESTATION_CERT_HASH", Proved),
        name("attestation_expiry", "BLF_ATTESTATION_EXPIRY", Proved),
        name("blind_token_address", "BLF_BLIND_TOKEN_ADDRESS", on_chain),
        name("cofhe_chain_id", "BLF_COFHE_CHAIN_ID", By(Fixed::ChainId)),
        name("cofhe_endpoint", "BLF_COFHE_ENDPOINT", By(Fixed::Rpc)),
        name("cofhe_mode", "BLF_COFHE_MODE", Dropped("the guest speaks CoFHE itself, there is no bridge to choose")),
        name("custom_backends", "BLF_CUSTOM_BACKENDS", Dropped("no code enters a measured image")),
        name("fhenix_rpc", "BLF_FHENIX_RPC", By(Fixed::Rpc)),
        name("icl_endpoint", "BLF_ICL_ENDPOINT", By(Fixed::Icl)),
        name("ipfs_gateway", "BLF_IPFS_GATEWAY", By(Fixed::BlobGateway)),
        name("keystore_path", "BLF_KEYSTORE_PATH", Born),
        name("log_level", "BLF_LOG_LEVEL", Kept),
        name("model_cache_dir", "BLF_MODEL_CACHE_DIR", Replaced("`model`, one model pack")),
        // `blf` reads BLF_NETWORK as the path of a network file.
        name("network", "", By(Fixed::ChainId)),
        name("node_address", "BLF_NODE_ADDRESS", Born),
        name("payment_service_url", "BLF_PAYMENT_SERVICE_URL", Kept),
        name("registered_on_chain", "BLF_REGISTERED_ON_CHAIN", on_chain),
        name("rpc_url", "BLF_RPC_URL", By(Fixed::Rpc)),
        name(
            "skip_output_key_storage",
            "BLF_SKIP_OUTPUT_KEY_STORAGE",
            Dropped("an answer whose key nobody can get is no answer"),
        ),
        name("stake_amount_wei", "BLF_STAKE_AMOUNT_WEI", on_chain),
        name("supported_model_ids", "BLF_SUPPORTED_MODEL_IDS", Replaced("`model`, whose pack names its model")),
        name("tier", "BLF_TIER", Proved),
        name("zdr_compliant", "BLF_ZDR_COMPLIANT", Dropped("a guest keeps nothing, there is nothing to choose")),
        name("", "BLF_CONFIG_PATH", Replaced("BLF_CONFIG_DIR and --name")),
        name("", "BLF_IPFS_UPLOAD_JWT", token),
        name("", "BLF_KEY_PASSWORD", Born),
        name("", "BLF_PRIVATE_KEY", Born),
        name("", "BLF_PROMPT_KEY_STORE_ADDRESS", By(Fixed::PromptKeyStore)),
        name("", "BLF_STAKE_AMOUNT", on_chain),
        name("", "PINATA_JWT", token),
        name("", "PROMPT_KEY_STORE_ADDRESS", By(Fixed::PromptKeyStore)),
    ]
};

/// Our own variables that are no keys.
const OURS: [&str; 3] = ["BLF_CACHE", "BLF_CONFIG_DIR", "BLF_NETWORK"];

/// Longest `config.json` or `keystore.json`, in bytes.
const FOLDER_CAP: u64 = 256 * 1024;

/// What became of one key of an existing node's folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Taken {
    /// The key, or a file of the folder.
    pub name: String,
    /// Its value where it was taken over, or is public and explains the rest.
    pub value: Option<String>,
    /// Whether it was taken over.
    pub kept: bool,
    /// What became of it.
    pub what: String,
}

impl Name {
    /// The name of a key of `config.json`.
    pub fn of_key(key: &str) -> Option<&'static Self> {
        NAMES.iter().find(|name| !key.is_empty() && name.key == key)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => f.write_str("the same here"),
            Self::Fixed(member) => write!(f, "fixed by the measured profile, as its {}", member.name()),
            Self::Born => f.write_str("the guest makes its keys itself, anew at every boot; no host ever holds one"),
            Self::Proved => f.write_str("nobody declares it: it follows from the evidence and the ICL's certificate"),
            Self::Replaced(by) => write!(f, "replaced by {by}"),
            Self::Dropped(why) => f.write_str(why),
        }
    }
}

impl Fixed {
    /// The member's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Icl => "icl",
            Self::BlobGateway => "blob_gateway",
            Self::ChainId => "chain_id",
            Self::Rpc => "cofhe.rpc",
            Self::PromptKeyStore => "cofhe.prompt_key_store",
        }
    }

    /// What the profile says, and whether `text` says the same.
    fn compare(self, profile: &NetworkProfile, text: &str) -> (String, bool) {
        let host = |host: &Host| {
            let same = text.parse::<Service>().is_ok_and(|s| s.host() == host.name && s.port() == host.port);
            (format!("https://{}:{}", host.name, host.port), same)
        };
        match (self, &profile.cofhe) {
            (Self::Icl, _) => host(&profile.icl),
            (Self::BlobGateway, _) => host(&profile.blob_gateway),
            (Self::ChainId, _) => {
                let id = profile.chain_id.to_string();
                let same = text == id || (text == "arbitrum_sepolia" && profile.chain_id == 421_614);
                (id, same)
            }
            (Self::Rpc, Some(cofhe)) => host(&cofhe.rpc),
            (Self::PromptKeyStore, Some(cofhe)) => {
                let store = cofhe.prompt_key_store.to_string();
                let same = store.eq_ignore_ascii_case(text);
                (store, same)
            }
            (Self::Rpc | Self::PromptKeyStore, None) => ("none".into(), false),
        }
    }
}

/// Refuses variables that ask for another network than the measured one: a node that silently joined the profile's
/// would not be where its operator thinks.
///
/// # Errors
/// A configuration error naming the variable, never its value, which may hold a key.
pub fn contradicts(profile: &NetworkProfile, variable: impl Fn(&str) -> Option<String>) -> Result<(), Error> {
    for Name { variable: name, fate, .. } in &NAMES {
        let (Fate::Fixed(member), Some(text)) = (fate, given(name, &variable)) else { continue };
        let (wanted, same) = member.compare(profile, &text);
        if !same {
            let error = format!(
                "{name}: wanted it unset or {wanted}, got another value: the measured profile {} fixes its {}",
                profile.name,
                member.name()
            );
            return Err(Error::config("FIXED_BY_PROFILE", error)
                .hint(format!("unset {name}, or run an image whose profile says so")));
        }
    }
    Ok(())
}

/// One line for every variable that is set and has no effect, and for those that look like a misspelt one.
pub fn without_effect(variables: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut lines = Vec::new();
    for variable in variables.into_iter().filter(|v| v.starts_with("BLF_") || v == "PINATA_JWT") {
        let ours: Vec<_> = KEYS.iter().map(Key::variable).chain(OURS.map(str::to_owned)).collect();
        let known = NAMES.iter().find(|name| name.variable == variable);
        match known {
            Some(Name { fate: Fate::Kept | Fate::Fixed(_), .. }) => {}
            Some(Name { fate, .. }) => lines.push(format!("{variable} is not read: {fate}")),
            None if ours.contains(&variable) => {}
            None => {
                if let Some(meant) = meant(&variable, ours.iter().map(String::as_str)) {
                    lines.push(format!("{variable} is not read: did you mean {meant}?"));
                }
            }
        }
    }
    lines.sort_unstable();
    lines
}

/// A variable that is set to something.
fn given(name: &str, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    Some(name).filter(|name| !name.is_empty()).and_then(variable).filter(|text| !text.is_empty())
}

/// Reads an existing node's folder, and puts what applies into `layers`.
///
/// Of `keystore.json` only the address is looked at, which is public; the key stays where it is.
///
/// # Errors
/// A configuration error naming the file, and the line for text that is no JSON.
pub fn import(folder: &Path, layers: &mut Layers) -> Result<Vec<Taken>, Error> {
    let file = folder.join("config.json");
    if !file.is_file() {
        let error = format!("wanted an existing node's config.json in {}, it is not there", folder.display());
        return Err(Error::config("NO_EXISTING_NODE", error)
            .hint("its folder is its BLF_CONFIG_DIR, or the folder in which it was run"));
    }
    let mut taken = Vec::new();
    let mut environment = BTreeMap::new();
    for (key, value) in object(&file)? {
        let name = Name::of_key(&key);
        let text = match &value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let shown: String = key.chars().filter(|c| !c.is_control()).take(64).collect();
        let entry = |value: Option<String>, kept, what: String| Taken { name: shown.clone(), value, kept, what };
        taken.push(match (name, Key::named(&key)) {
            (Some(Name { fate: Fate::Kept, .. }), Some(known)) => match known.check(&text) {
                Ok(()) => {
                    environment.insert(known.variable(), text.clone());
                    entry(Some(text), true, "taken over".into())
                }
                Err(e) => entry(None, false, e),
            },
            // An address is public; what else is not taken over may hold a key.
            (Some(Name { key: "node_address", fate, .. }), _) => entry(address(&text), false, fate.to_string()),
            (Some(Name { fate, .. }), _) => entry(None, false, fate.to_string()),
            (None, _) => entry(None, false, "not known; nothing here reads it".into()),
        });
    }
    layers.environment(|name| environment.get(name).cloned())?;
    taken.extend(keystore(&folder.join("keystore.json"))?);
    if folder.join(".env").exists() {
        let what = "not read: it holds keys, and nothing here loads variables from a file".into();
        taken.push(Taken { name: ".env".into(), value: None, kept: false, what });
    }
    Ok(taken)
}

/// The members of a JSON object in a file.
fn object(file: &Path) -> Result<serde_json::Map<String, Value>, Error> {
    let bytes = read(file, FOLDER_CAP, "IMPORT")?;
    serde_json::from_slice(&bytes).map_err(|e| {
        // The category says what is wrong; the parser's own words may repeat what stands there.
        let what = match e.classify() {
            serde_json::error::Category::Eof => "the text ends early",
            serde_json::error::Category::Data => "wanted an object",
            _ => "no JSON",
        };
        let error = format!("{} line {} column {}: {what}", file.display(), e.line(), e.column());
        Error::config("IMPORT", error).hint("mend the file, or set the node up anew: blf-host init")
    })
}

fn keystore(file: &Path) -> Result<Option<Taken>, Error> {
    let mode = match fs::metadata(file) {
        Ok(metadata) => metadata.mode(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::config("IMPORT", format!("{}: {e}", file.display()))),
    };
    #[derive(serde::Deserialize)]
    struct Keystore {
        address: Option<String>,
    }
    let bytes = read(file, FOLDER_CAP, "IMPORT")?;
    let address = serde_json::from_slice::<Keystore>(&bytes).ok().and_then(|k| address(&k.address?));
    let mut what =
        "the wallet stays where it is, with its stake and its earnings; a guest is born with keys of its own"
            .to_owned();
    if mode & 0o077 != 0 {
        what.push_str(&format!("; others can read it: chmod 600 {}", file.display()));
    }
    Ok(Some(Taken { name: "keystore.json".into(), value: address, kept: false, what }))
}

/// An address, with or without `0x`, and nothing else.
fn address(text: &str) -> Option<String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    (digits.len() == 40 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then(|| format!("0x{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> NetworkProfile {
        crate::devnet::profile().unwrap()
    }

    #[test]
    fn what_a_profile_fixes_is_not_asked_for_otherwise() {
        let profile = profile();
        let icl = format!("https://{}:{}", profile.icl.name, profile.icl.port);
        let ask = |name: &'static str, value: &str| {
            let value = value.to_owned();
            contradicts(&profile, move |n| (n == name).then(|| value.clone()))
        };
        for (name, value) in [
            ("BLF_ICL_ENDPOINT", icl.as_str()),
            ("BLF_ICL_ENDPOINT", ""),
            ("BLF_COFHE_CHAIN_ID", "421614"),
            ("BLF_PRIVATE_KEY", "0x00"),
            ("BLF_LOG_LEVEL", "DEBUG"),
        ] {
            ask(name, value).unwrap();
        }
        for (name, value) in [
            ("BLF_ICL_ENDPOINT", "https://icl.blindference.xyz"),
            ("BLF_ICL_ENDPOINT", "http://icl.devnet.blf.internal"),
            ("BLF_IPFS_GATEWAY", "https://gateway.example/ipfs"),
            ("BLF_COFHE_CHAIN_ID", "1"),
            ("BLF_RPC_URL", "https://rpc.example/v2/s3cret"),
            ("BLF_PROMPT_KEY_STORE_ADDRESS", "0x00"),
        ] {
            let error = ask(name, value).unwrap_err();
            assert_eq!(error.code, "FIXED_BY_PROFILE", "{name}");
            assert!(error.message.starts_with(name) && !error.message.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn what_has_no_effect_says_so() {
        let set =
            ["BLF_PRIVATE_KEY", "BLF_TIER", "BLF_MEMROY", "BLF_MEMORY", "BLF_CACHE", "BLF_SOMETHING_ELSE", "HOME"];
        let lines = without_effect(set.map(str::to_owned));
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("BLF_MEMROY is not read: did you mean BLF_MEMORY?"), "{lines:?}");
        assert!(lines[1].starts_with("BLF_PRIVATE_KEY is not read: the guest makes its keys itself"), "{lines:?}");
        assert!(lines[2].starts_with("BLF_TIER is not read: nobody declares it"), "{lines:?}");
    }

    #[test]
    fn no_name_twice() {
        for (at, name) in NAMES.iter().enumerate() {
            for other in &NAMES[at + 1..] {
                assert!(name.key.is_empty() || name.key != other.key, "{}", name.key);
                assert!(name.variable.is_empty() || name.variable != other.variable, "{}", name.variable);
            }
            if name.fate == Fate::Kept {
                assert_eq!(Key::named(name.key).map(Key::variable).as_deref(), Some(name.variable));
            }
        }
    }
}
