//! Model packs: made here, read once inside the guest.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use blf_evidence::Hex;
use blf_evidence::pack::{self, Content, FileName, HEADER_MAX, Header, Manifest, Parameters};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::node::unfinished;
use crate::release::digest;

/// What to pack.
#[derive(Clone, Debug)]
pub struct Pack {
    /// The model's name in assignments.
    pub id: String,
    /// Folder with `config.json`, `tokenizer.json`, `template.txt` and `model.safetensors`.
    pub dir: PathBuf,
    /// Where the pack goes.
    pub out: PathBuf,
    /// Longest prompt and answer together in tokens; `None` for `max_position_embeddings` of `config.json`.
    pub max_context: Option<u32>,
    /// Longest answer in tokens; `None` for half of the context.
    pub max_new_tokens: Option<u32>,
    /// Tokens that end an answer; empty for `eos_token_id` of `config.json`.
    pub eos: Vec<u32>,
}

/// A pack that lies in a file.
#[derive(Clone, Debug, Serialize)]
pub struct Packed {
    /// The file.
    pub file: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its manifest: the model's identity.
    pub manifest_sha256: Hex<32>,
    /// What it says about the model.
    pub manifest: Manifest,
}

/// The members of `config.json` that the manifest repeats.
#[derive(Deserialize)]
struct Shape {
    model_type: String,
    max_position_embeddings: u32,
    eos_token_id: Eos,
}

/// One end token or several: both spellings are in use.
#[derive(Deserialize)]
#[serde(untagged)]
enum Eos {
    One(u32),
    Several(Vec<u32>),
}

/// Makes a pack. Weights are copied, never held in memory; the file appears whole or not at all.
///
/// # Errors
/// A configuration error for a file that is missing or out of bounds, a failure of writing.
pub fn pack(wanted: &Pack) -> Result<Packed, Error> {
    let path = |name: FileName| wanted.dir.join(name.as_str());
    let config = path(FileName::Config);
    let unreadable =
        |path: &Path, e: &dyn std::fmt::Display| Error::config("MODEL_FILE", format!("{}: {e}", path.display()));
    let (size, _) = digest(&config).map_err(|e| unreadable(&config, &e))?;
    if size > FileName::Config.size_max() {
        let error = format!("wanted at most {} bytes, got {size}", FileName::Config.size_max());
        return Err(unreadable(&config, &error));
    }
    let text = fs::read(&config).map_err(|e| unreadable(&config, &e))?;
    let shape: Shape = serde_json::from_slice(&text).map_err(|e| unreadable(&config, &e))?;

    let max_context = wanted.max_context.unwrap_or(shape.max_position_embeddings);
    let mut eos = match (wanted.eos.as_slice(), shape.eos_token_id) {
        ([], Eos::One(token)) => vec![token],
        ([], Eos::Several(tokens)) => tokens,
        (tokens, _) => tokens.to_vec(),
    };
    eos.sort_unstable();
    eos.dedup();
    let parameters = Parameters {
        id: wanted.id.clone(),
        architecture: shape.model_type,
        numeric_profile: pack::NUMERIC_PROFILE_F32.into(),
        max_context,
        max_new_tokens: wanted.max_new_tokens.unwrap_or(max_context / 2),
        eos,
    };
    let mut contents = [Content { size: 0, sha256: Hex([0; 32]) }; 4];
    for (content, name) in contents.iter_mut().zip(FileName::ALL) {
        let file = path(name);
        let (size, sha256) = digest(&file).map_err(|e| unreadable(&file, &e))?;
        *content = Content { size, sha256 };
    }
    let refused = |e: pack::PackError| Error::config("MODEL_PACK", e);
    let manifest = Manifest::new(parameters, contents).map_err(refused)?;
    let header = manifest.to_header().map_err(refused)?;

    let new = unfinished(&wanted.out);
    let write = || -> io::Result<()> {
        let mut out = File::create(&new)?;
        out.write_all(&header)?;
        for (content, name) in contents.iter().zip(FileName::ALL) {
            let copied = io::copy(&mut File::open(path(name))?, &mut out)?;
            if copied != content.size {
                return Err(io::Error::other(format!("{} changed while it was packed", name.as_str())));
            }
            out.write_all(pack::padding(content.size))?;
        }
        out.sync_all()?;
        // Read back: the files may have changed between hashing and copying.
        verify(&mut File::open(&new)?).map_err(io::Error::other)?;
        fs::rename(&new, &wanted.out)
    };
    if let Err(e) = write() {
        drop(fs::remove_file(&new));
        return Err(Error::failed("WRITE", format!("{}: {e}", wanted.out.display())));
    }
    show(&wanted.out, false)
}

/// What a pack says; with `whole`, after every byte of it was checked.
///
/// # Errors
/// A configuration error for a file that is missing or cannot be read, a rejection of a pack that is damaged or longer or
/// shorter than it says.
pub fn show(file: &Path, whole: bool) -> Result<Packed, Error> {
    let unreadable = |e: io::Error| {
        let code = if e.kind() == io::ErrorKind::NotFound { "MODEL_MISSING" } else { "READ" };
        Error::config(code, format!("{}: wanted a model pack: {e}", file.display()))
            .hint("name another with --model or model in the node's configuration; blf-host models pack makes one")
    };
    let refused = |e: &dyn std::fmt::Display| Error::rejected("MODEL_PACK", format!("{}: {e}", file.display()));
    let mut opened = File::open(file).map_err(unreadable)?;
    let bytes = opened.metadata().map_err(unreadable)?.len();
    let header = if whole {
        verify(&mut opened).map_err(|e| refused(&e))?
    } else {
        header(&mut opened).map_err(|e| refused(&e))?
    };
    if bytes != header.pack_len() {
        return Err(refused(&format!("model pack: wanted {} bytes, got {bytes}", header.pack_len())));
    }
    Ok(Packed { file: file.into(), bytes, manifest_sha256: header.digest, manifest: header.manifest })
}

fn header(file: &mut File) -> io::Result<Header> {
    let mut start = Vec::new();
    file.take(HEADER_MAX as u64).read_to_end(&mut start)?;
    Header::parse(&start).map_err(io::Error::other)
}

fn verify(file: &mut File) -> io::Result<Header> {
    let header = header(file)?;
    file.rewind()?;
    let mut verifier = pack::Verifier::new(header);
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return verifier.finish().map_err(io::Error::other);
        }
        verifier.update(buffer.get(..read).unwrap_or_default()).map_err(io::Error::other)?;
    }
}
