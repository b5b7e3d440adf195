//! The model pack: a model as one flat run of bytes on a raw block device, without a file system.
//!
//! ```text
//! header   magic "BLFPACK1" (8) ‖ manifest length (u32, little endian) ‖ SHA-256 of the manifest (32) ‖ manifest ‖ zeros
//! data     config.json ‖ zeros ‖ tokenizer.json ‖ zeros ‖ template.txt ‖ zeros ‖ model.safetensors ‖ zeros
//! ```
//!
//! Header and files start at multiples of [`ALIGNMENT`]; the space up to the next multiple is zero, the last file's too, so that
//! a pack is a whole number of blocks on any device. Sizes fix the layout: there is one pack for one manifest and its files.
//! The manifest is RFC 8785 canonical JSON and names each file's SHA-256, so the manifest's own SHA-256 ([`Manifest::digest`])
//! is the model's identity. The copy of it in the header finds damage only; what says which model is wanted is the binding.
//!
//! Reading: [`Header::parse`] on the first [`HEADER_MAX`] bytes (or on all of a shorter pack) says how long the pack is;
//! [`Verifier`] is then fed the pack from its first byte and gives the manifest back only when every byte was accounted for.

use std::io::{self, Write};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::encoding::Hex;
use crate::json::{self, JsonError};

/// Alignment of the data area and of every file in it, in bytes.
pub const ALIGNMENT: u64 = 4096;
/// Largest manifest in bytes.
pub const MANIFEST_MAX: usize = 64 * 1024;
/// Largest header in bytes, padding included: what to read before [`Header::parse`].
pub const HEADER_MAX: usize = 17 * 4096;
/// The only architecture there is today (Llama 2 and 3: RMSNorm, rotary positions, grouped-query attention, SwiGLU).
pub const ARCHITECTURE_LLAMA: &str = "llama";
/// The only numeric profile there is today: float32 with every sum in a fixed order, defined by `blf-inference`.
pub const NUMERIC_PROFILE_F32: &str = "blf-f32-v1";

/// What a pack says about the model in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format, 1.
    pub v: u32,
    /// The model's name in assignments: lower-case letters, digits, `.`, `-`, 1 to 64 characters.
    pub id: String,
    /// Family of the network, such as [`ARCHITECTURE_LLAMA`]; spelled like an id.
    pub architecture: String,
    /// Name of the arithmetic that answers are defined by; spelled like an id.
    pub numeric_profile: String,
    /// Longest prompt and answer together, in tokens.
    pub max_context: u32,
    /// Longest answer in tokens.
    pub max_new_tokens: u32,
    /// Tokens that end an answer, ascending, 1 to 8 of them.
    pub eos: Vec<u32>,
    /// The four files in the order of [`FileName::ALL`].
    pub files: Vec<File>,
}

/// One file of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Which file.
    pub name: FileName,
    /// First byte, counted from the start of the data area.
    pub offset: u64,
    /// Length in bytes, without padding.
    pub size: u64,
    /// SHA-256 of the contents.
    pub sha256: Hex<32>,
}

/// The files a pack consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileName {
    /// Shape of the network, as Hugging Face's `config.json`.
    #[serde(rename = "config.json")]
    Config,
    /// Tokenizer, as written by the `tokenizers` library.
    #[serde(rename = "tokenizer.json")]
    Tokenizer,
    /// Text around the prompt: `{prompt}` stands for it exactly once.
    #[serde(rename = "template.txt")]
    Template,
    /// Weights in the safetensors format.
    #[serde(rename = "model.safetensors")]
    Weights,
}

impl FileName {
    /// Every file, in the order of a pack.
    pub const ALL: [Self; 4] = [Self::Config, Self::Tokenizer, Self::Template, Self::Weights];

    /// The name as it is spelled in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config.json",
            Self::Tokenizer => "tokenizer.json",
            Self::Template => "template.txt",
            Self::Weights => "model.safetensors",
        }
    }

    /// Largest size in bytes.
    pub fn size_max(self) -> u64 {
        match self {
            Self::Config => 64 << 10,
            Self::Tokenizer => 32 << 20,
            Self::Template => 16 << 10,
            Self::Weights => 1 << 40,
        }
    }
}

/// What the packer chooses; the files give the rest of the manifest.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// See [`Manifest::id`].
    pub id: String,
    /// See [`Manifest::architecture`].
    pub architecture: String,
    /// See [`Manifest::numeric_profile`].
    pub numeric_profile: String,
    /// See [`Manifest::max_context`].
    pub max_context: u32,
    /// See [`Manifest::max_new_tokens`].
    pub max_new_tokens: u32,
    /// See [`Manifest::eos`].
    pub eos: Vec<u32>,
}

/// Size and digest of a file, in the order of [`FileName::ALL`] where four are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Hex<32>,
}

impl Content {
    /// Measures `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { size: bytes.len() as u64, sha256: sha256(bytes) }
    }
}

impl Manifest {
    /// Lays the four files out one after the other.
    ///
    /// # Errors
    /// As [`Self::parse`], for a parameter or a size that no manifest may have.
    pub fn new(parameters: Parameters, contents: [Content; 4]) -> Result<Self, PackError> {
        let mut offset = 0;
        let files = FileName::ALL.into_iter().zip(contents).map(|(name, Content { size, sha256 })| {
            let file = File { name, offset, size, sha256 };
            offset = aligned(offset.saturating_add(size));
            file
        });
        let files = files.collect();
        let Parameters { id, architecture, numeric_profile, max_context, max_new_tokens, eos } = parameters;
        let manifest = Self { v: 1, id, architecture, numeric_profile, max_context, max_new_tokens, eos, files };
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads canonical JSON; the result is complete and within every limit of this module.
    ///
    /// # Errors
    /// [`PackError::Json`], or the member that is out of bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, PackError> {
        let manifest: Self = json::parse_canonical(WHAT, bytes, MANIFEST_MAX)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// RFC 8785 canonical JSON: the bytes that are stored and hashed.
    ///
    /// # Errors
    /// [`PackError::Json`] if it is longer than [`MANIFEST_MAX`]; a checked manifest never is.
    pub fn to_canonical(&self) -> Result<String, PackError> {
        let text = json::canonical(WHAT, self)?;
        if text.len() > MANIFEST_MAX {
            return Err(JsonError::TooLong { what: WHAT, cap: MANIFEST_MAX, got: text.len() }.into());
        }
        Ok(text)
    }

    /// SHA-256 of the canonical manifest: the model's identity in the binding.
    ///
    /// # Errors
    /// As [`Self::to_canonical`].
    pub fn digest(&self) -> Result<Hex<32>, PackError> {
        Ok(sha256(self.to_canonical()?.as_bytes()))
    }

    /// The header, padding included: what stands in front of the files.
    ///
    /// # Errors
    /// As [`Self::parse`]: a manifest that could not be read back is not written.
    pub fn to_header(&self) -> Result<Vec<u8>, PackError> {
        self.check()?;
        let manifest = self.to_canonical()?;
        let length = u32::try_from(manifest.len()).map_err(|_| PackError::ManifestSize { got: u32::MAX })?;
        let mut header = Vec::with_capacity(HEADER_MAX);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&length.to_le_bytes());
        header.extend_from_slice(&sha256(manifest.as_bytes()).0);
        header.extend_from_slice(manifest.as_bytes());
        header.resize(header.len().next_multiple_of(BLOCK), 0);
        Ok(header)
    }

    /// Length of the data area in bytes, padding included.
    pub fn data_len(&self) -> u64 {
        self.files.last().map_or(0, |last| aligned(last.offset.saturating_add(last.size)))
    }

    /// The entry of one file; `None` only for a manifest that [`Self::parse`] would refuse.
    pub fn file(&self, name: FileName) -> Option<&File> {
        self.files.iter().find(|file| file.name == name)
    }

    fn check(&self) -> Result<(), PackError> {
        if self.v != 1 {
            return Err(PackError::Version { got: self.v });
        }
        for (member, value) in
            [("id", &self.id), ("architecture", &self.architecture), ("numeric_profile", &self.numeric_profile)]
        {
            let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'.' || c == b'-';
            if value.is_empty() || value.len() > 64 || !value.bytes().all(plain) {
                return Err(PackError::Name { member });
            }
        }
        for (member, value, max) in
            [("max_context", self.max_context, CONTEXT_MAX), ("max_new_tokens", self.max_new_tokens, self.max_context)]
        {
            if value == 0 || value > max {
                return Err(PackError::Limit { member, max, got: value });
            }
        }
        if self.eos.is_empty() || self.eos.len() > 8 || !self.eos.is_sorted_by(|a, b| a < b) {
            return Err(PackError::Eos);
        }
        if self.files.len() != FileName::ALL.len() {
            return Err(PackError::Files { got: self.files.len() });
        }
        let mut wanted = 0;
        for (file, name) in self.files.iter().zip(FileName::ALL) {
            if file.name != name {
                return Err(PackError::Order { wanted: name.as_str(), got: file.name.as_str() });
            }
            if file.size == 0 || file.size > name.size_max() {
                return Err(PackError::FileSize { name: name.as_str(), max: name.size_max(), got: file.size });
            }
            if file.offset != wanted {
                return Err(PackError::Offset { name: name.as_str(), wanted, got: file.offset });
            }
            wanted = aligned(wanted + file.size);
        }
        Ok(())
    }
}

/// The header of a pack, read and checked on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The manifest it carries.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes: the model's identity.
    pub digest: Hex<32>,
    /// Start of the data area: length of the header in bytes, padding included.
    pub len: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; what follows it is not looked at.
    ///
    /// # Errors
    /// [`PackError::Truncated`] if the header does not end within `bytes`, [`PackError::Magic`], [`PackError::ManifestDigest`],
    /// [`PackError::Padding`], and those of [`Manifest::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PackError> {
        let truncated = |wanted: usize| PackError::Truncated { wanted: wanted as u64, got: bytes.len() as u64 };
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| truncated(FIXED_LEN))?;
        if magic != MAGIC {
            return Err(PackError::Magic);
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| truncated(FIXED_LEN))?;
        let length = u32::from_le_bytes(*length);
        let manifest_len = usize::try_from(length).unwrap_or(usize::MAX);
        if manifest_len == 0 || manifest_len > MANIFEST_MAX {
            return Err(PackError::ManifestSize { got: length });
        }
        let (wanted, rest) = rest.split_first_chunk::<32>().ok_or_else(|| truncated(FIXED_LEN))?;
        let len = (FIXED_LEN + manifest_len).next_multiple_of(BLOCK);
        let rest = rest.get(..len - FIXED_LEN).ok_or_else(|| truncated(len))?;
        let (manifest, padding) = rest.split_at(manifest_len);
        let digest = sha256(manifest);
        if digest.0 != *wanted {
            return Err(PackError::ManifestDigest);
        }
        if let Some(at) = padding.iter().position(|byte| *byte != 0) {
            return Err(PackError::Padding { at: (FIXED_LEN + manifest_len + at) as u64 });
        }
        Ok(Self { manifest: Manifest::parse(manifest)?, digest, len })
    }

    /// Length of the whole pack in bytes: what to read from the device, and nothing beyond it.
    pub fn pack_len(&self) -> u64 {
        (self.len as u64).saturating_add(self.manifest.data_len())
    }

    /// Where a file's contents are, counted from the start of the pack.
    pub fn range(&self, name: FileName) -> Range<u64> {
        self.manifest.file(name).map_or(0..0, |file| {
            let start = (self.len as u64).saturating_add(file.offset);
            start..start.saturating_add(file.size)
        })
    }
}

/// Checks a pack while it is read: every file against its digest, every byte between them against zero.
pub struct Verifier {
    header: Header,
    /// Bytes seen so far, from the start of the pack.
    position: u64,
    /// Index of the first file that has not ended.
    current: usize,
    hash: Sha256,
}

impl Verifier {
    /// Starts over the pack that `header` was read from.
    pub fn new(header: Header) -> Self {
        Self { header, position: 0, current: 0, hash: Sha256::new() }
    }

    /// Takes the next bytes of the pack, the header's own among them (those are passed over: [`Header::parse`] has checked them,
    /// and the caller feeds the same memory that it parsed).
    ///
    /// # Errors
    /// [`PackError::FileDigest`], [`PackError::Padding`], [`PackError::Trailing`].
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        while !bytes.is_empty() {
            let name = FileName::ALL.get(self.current).copied();
            let (start, end) = match name {
                Some(name) => {
                    let range = self.header.range(name);
                    (range.start, range.end)
                }
                None => (self.header.pack_len(), self.header.pack_len()),
            };
            // Up to the next border: end of the header, start of the file, end of the file.
            let header_len = self.header.len as u64;
            let border = [header_len, start, end].into_iter().find(|border| self.position < *border);
            let Some(border) = border else {
                return Err(PackError::Trailing { wanted: self.header.pack_len() });
            };
            let take = usize::try_from(border - self.position).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(take);
            if self.position >= start {
                self.hash.update(now);
            } else if self.position >= header_len
                && let Some(at) = now.iter().position(|byte| *byte != 0)
            {
                return Err(PackError::Padding { at: self.position + at as u64 });
            }
            self.position += take as u64;
            bytes = later;
            if let Some(name) = name
                && self.position == end
            {
                self.end_file(name)?;
            }
        }
        Ok(())
    }

    /// Ends the reading: the header, its files now verified.
    ///
    /// # Errors
    /// [`PackError::Truncated`] if fewer bytes came than the pack has.
    pub fn finish(self) -> Result<Header, PackError> {
        let wanted = self.header.pack_len();
        if self.position != wanted {
            return Err(PackError::Truncated { wanted, got: self.position });
        }
        Ok(self.header)
    }

    fn end_file(&mut self, name: FileName) -> Result<(), PackError> {
        let got = Hex(std::mem::take(&mut self.hash).finalize().into());
        let wanted = self.header.manifest.file(name).map_or(Hex([0; 32]), |file| file.sha256);
        if got != wanted {
            return Err(PackError::FileDigest { name: name.as_str(), wanted, got });
        }
        self.current += 1;
        Ok(())
    }
}

/// Verifies a whole pack in memory.
///
/// # Errors
/// Those of [`Header::parse`] and [`Verifier`].
pub fn verify(pack: &[u8]) -> Result<Header, PackError> {
    let mut verifier = Verifier::new(Header::parse(pack)?);
    verifier.update(pack)?;
    verifier.finish()
}

/// Writes a whole pack; `files` in the order of [`FileName::ALL`]. Returns its manifest.
///
/// Contents too large for memory are written by the caller instead: [`Manifest::new`], [`Manifest::to_header`], then each file
/// followed by [`padding`] of its size.
///
/// # Errors
/// [`PackError`] as an [`io::Error`] of kind `InvalidInput`, and those of `out`.
pub fn write(out: &mut impl Write, parameters: Parameters, files: [&[u8]; 4]) -> io::Result<Manifest> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, e);
    let manifest = Manifest::new(parameters, files.map(Content::of)).map_err(invalid)?;
    out.write_all(&manifest.to_header().map_err(invalid)?)?;
    for file in files {
        out.write_all(file)?;
        out.write_all(padding(file.len() as u64))?;
    }
    Ok(manifest)
}

/// The zeros that follow a file of `size` bytes.
pub fn padding(size: u64) -> &'static [u8] {
    let missing = usize::try_from(aligned(size).saturating_sub(size)).unwrap_or(0);
    ZEROS.get(..missing).unwrap_or(&[])
}

/// Why a pack or its manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// `eos` is empty, too long or not ascending.
    #[error("model pack: eos must be 1 to 8 ascending token ids")]
    Eos,
    /// A file's contents are not those of the manifest.
    #[error("model pack: {name} has SHA-256 {got}, manifest says {wanted}")]
    FileDigest {
        /// The file.
        name: &'static str,
        /// Digest in the manifest.
        wanted: Hex<32>,
        /// Digest of the contents.
        got: Hex<32>,
    },
    /// Not the four files.
    #[error("model pack: manifest lists {got} files, wanted 4")]
    Files {
        /// Number of entries.
        got: usize,
    },
    /// A file is empty or too large.
    #[error("model pack: {name} has {got} bytes, wanted 1 to {max}")]
    FileSize {
        /// The file.
        name: &'static str,
        /// Largest size.
        max: u64,
        /// Size in the manifest.
        got: u64,
    },
    /// The manifest is not the canonical JSON object it must be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A number is zero or too large.
    #[error("model pack: {member} is {got}, wanted 1 to {max}")]
    Limit {
        /// The member.
        member: &'static str,
        /// Largest value.
        max: u32,
        /// Value in the manifest.
        got: u32,
    },
    /// The first 8 bytes are not `BLFPACK1`.
    #[error("model pack: no BLFPACK1 at the start")]
    Magic,
    /// The manifest is not the one the header was written for.
    #[error("model pack: manifest does not match the digest in the header")]
    ManifestDigest,
    /// The header announces an empty or too long manifest.
    #[error("model pack: manifest has {got} bytes, wanted 1 to 65536")]
    ManifestSize {
        /// Length in bytes.
        got: u32,
    },
    /// A name has characters or a length it must not have.
    #[error("model pack: {member} must be 1 to 64 of a-z, 0-9, '.', '-'")]
    Name {
        /// The member.
        member: &'static str,
    },
    /// A file does not start where the one before it ends.
    #[error("model pack: {name} at offset {got}, wanted {wanted}")]
    Offset {
        /// The file.
        name: &'static str,
        /// Where it must start.
        wanted: u64,
        /// Where the manifest puts it.
        got: u64,
    },
    /// The files are in another order.
    #[error("model pack: {got} where {wanted} must be")]
    Order {
        /// File that must be here.
        wanted: &'static str,
        /// File that is.
        got: &'static str,
    },
    /// A byte that belongs to no file is not zero.
    #[error("model pack: byte {at} must be zero")]
    Padding {
        /// Its place in the pack.
        at: u64,
    },
    /// More bytes than the pack has.
    #[error("model pack: bytes after its end at {wanted}")]
    Trailing {
        /// Length of the pack.
        wanted: u64,
    },
    /// Fewer bytes than the pack has.
    #[error("model pack: {got} bytes, wanted {wanted}")]
    Truncated {
        /// Bytes that are needed.
        wanted: u64,
        /// Bytes that came.
        got: u64,
    },
    /// Another version of this format.
    #[error("model pack: version {got}, wanted 1")]
    Version {
        /// Version in the manifest.
        got: u32,
    },
}

/// `value` rounded up to [`ALIGNMENT`]; sizes are capped far below where this could saturate.
fn aligned(value: u64) -> u64 {
    value.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX)
}

fn sha256(bytes: &[u8]) -> Hex<32> {
    Hex(Sha256::digest(bytes).into())
}

/// Name of the document in errors.
const WHAT: &str = "model pack manifest";
const MAGIC: &[u8; 8] = b"BLFPACK1";
/// Magic, length, digest.
const FIXED_LEN: usize = 8 + 4 + 32;
/// [`ALIGNMENT`] for lengths in memory.
const BLOCK: usize = 4096;
const CONTEXT_MAX: u32 = 1 << 20;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_reads_back_and_its_layout_follows_from_its_sizes() {
        let (manifest, pack) = sample();
        let header = verify(&pack).unwrap();
        assert_eq!(header.manifest, manifest);
        assert_eq!(header.digest, manifest.digest().unwrap());
        assert_eq!(header.pack_len(), pack.len() as u64);
        assert_eq!(pack.len() % BLOCK, 0);
        for (name, content) in FileName::ALL.into_iter().zip(FILES) {
            let range = header.range(name);
            assert_eq!(range.start % ALIGNMENT, 0);
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            assert_eq!(&pack[range], content);
        }
        let parsed = Manifest::parse(manifest.to_canonical().unwrap().as_bytes()).unwrap();
        assert_eq!(parsed, manifest);
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let (_, pack) = sample();
        let header_end = FIXED_LEN + 1200;
        // Every bit of what carries meaning in the header, then samples of everything, padding included.
        let samples = (0..header_end * 8).chain((header_end * 8..pack.len() * 8).step_by(61));
        let mut damaged = pack.clone();
        for bit in samples {
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&damaged).is_err(), "bit {bit}");
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(verify(&damaged).is_ok());
    }

    #[test]
    fn any_cut_and_any_addition_is_refused() {
        let (_, pack) = sample();
        for len in (0..pack.len()).step_by(97) {
            let refused = verify(&pack[..len]).unwrap_err();
            assert!(matches!(refused, PackError::Truncated { .. }), "{len}: {refused}");
        }
        let mut longer = pack.clone();
        longer.push(0);
        assert_eq!(verify(&longer), Err(PackError::Trailing { wanted: pack.len() as u64 }));
    }

    #[test]
    fn chunks_of_any_size_verify_alike() {
        let (_, pack) = sample();
        for size in [1, 511, 512, 4095, 4096, 5000, 1 << 20] {
            let mut verifier = Verifier::new(Header::parse(&pack[..pack.len().min(HEADER_MAX)]).unwrap());
            for chunk in pack.chunks(size) {
                verifier.update(chunk).unwrap();
            }
            assert!(verifier.finish().is_ok(), "{size}");
        }
    }

    #[test]
    fn a_manifest_out_of_bounds_is_refused_by_member() {
        let refuse = |change: fn(&mut Manifest)| {
            let (mut manifest, _) = sample();
            change(&mut manifest);
            let refused = manifest.to_header().unwrap_err();
            let text = json::canonical(WHAT, &manifest).unwrap();
            assert_eq!(Manifest::parse(text.as_bytes()).unwrap_err(), refused);
            refused.to_string()
        };
        type Change = fn(&mut Manifest);
        let cases: [(&str, Change); 14] = [
            ("version 2", |m| m.v = 2),
            ("id must", |m| m.id = "Tiny".into()),
            ("id must", |m| m.id.clear()),
            ("architecture must", |m| m.architecture = "a".repeat(65)),
            ("numeric_profile must", |m| m.numeric_profile = "a/b".into()),
            ("max_context is 0", |m| m.max_context = 0),
            ("max_context is 4294967295", |m| m.max_context = u32::MAX),
            ("max_new_tokens is 2000", |m| m.max_new_tokens = 2000),
            ("eos", |m| m.eos = vec![2, 2]),
            ("lists 3 files", |m| m.files.truncate(3)),
            ("template.txt where tokenizer.json", |m| m.files.swap(1, 2)),
            ("tokenizer.json at offset 0, wanted 4096", |m| m.files[1].offset = 0),
            ("template.txt has 0 bytes", |m| m.files[2].size = 0),
            ("model.safetensors has", |m| m.files[3].size = u64::MAX >> 11),
        ];
        for (wanted, change) in cases {
            let got = refuse(change);
            assert!(got.contains(wanted), "wanted {wanted}, got {got}");
        }
    }

    #[test]
    fn a_manifest_that_is_not_canonical_or_not_closed_is_refused() {
        let (manifest, _) = sample();
        let text = manifest.to_canonical().unwrap();
        for (from, to) in [
            ("{\"arch", " {\"arch"),
            ("\"v\":1", "\"v\":1,\"w\":1"),
            ("\"v\":1", "\"v\":1,\"v\":1"),
            ("\"v\":1", "\"v\":1.0"),
            (",\"v\":1", ""),
            ("config.json", "config.yaml"),
            ("\"eos\":[1,2]", "\"eos\":[-1,2]"),
        ] {
            assert!(text.contains(from), "{from}");
            let changed = text.replacen(from, to, 1);
            assert!(matches!(Manifest::parse(changed.as_bytes()), Err(PackError::Json(_))), "{changed}");
        }
        assert!(Manifest::parse(&vec![b' '; MANIFEST_MAX + 1]).is_err());
        let upper = text.replace(&manifest.files[0].sha256.to_string(), &"AB".repeat(32));
        assert!(Manifest::parse(upper.as_bytes()).is_err());
    }

    fn sample() -> (Manifest, Vec<u8>) {
        let parameters = Parameters {
            id: "sample-1".into(),
            architecture: ARCHITECTURE_LLAMA.into(),
            numeric_profile: "sample-f32".into(),
            max_context: 1024,
            max_new_tokens: 128,
            eos: vec![1, 2],
        };
        let mut pack = Vec::new();
        let manifest = write(&mut pack, parameters, FILES).unwrap();
        (manifest, pack)
    }

    const FILES: [&[u8]; 4] = [b"{\"hidden_size\":8}", &[7; 4096], b"{prompt}", &[0xa5; 5000]];
}
