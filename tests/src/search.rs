//! The search for plaintext and keys where none may be.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use aho_corasick::AhoCorasick;
use blf_evidence::Base64;
use tokenizers::Tokenizer;

/// Texts that must not be found, in every usual spelling, whole and in windows.
pub struct Needles {
    finder: AhoCorasick,
    /// What each pattern of the finder is: a text and how it is spelled.
    names: Vec<String>,
}

/// Bytes of a text that are looked for together, and how far the next ones begin.
const WINDOW: (usize, usize) = (16, 8);
/// The same for tokens.
const TOKENS: (usize, usize) = (6, 3);
/// Shorter ones would be found by chance, in bytes.
const SHORTEST: usize = 8;
/// So would those that hardly vary: tokens are small numbers, and an answer may stammer. Different bytes, zero not counted.
const FEWEST: usize = 6;
/// Bytes of memory read at a time; what lies across two reads is read twice.
const CHUNK: usize = 16 << 20;
/// Longer than any pattern.
const OVERLAP: usize = 4096;
/// A guest's memory, as QEMU names it: where plaintext may be.
pub const GUEST_MEMORY: &str = "memory-backend-memfd";

/// What `bytes` may look like elsewhere, each with its name.
pub fn spellings(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let text = String::from_utf8_lossy(bytes);
    let mut all = vec![
        ("raw", bytes.to_vec()),
        ("HEX", hex.to_uppercase().into()),
        ("hex", hex.into()),
        ("UTF-16LE", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("UTF-16BE", text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
    ];
    for (skip, name) in ["base64", "base64 from 1", "base64 from 2"].into_iter().enumerate().take(bytes.len()) {
        // Of base64 only whole groups of three bytes are the same in a longer text.
        let whole = (bytes.len() - skip) / 3 * 3;
        all.push((name, Base64(bytes[skip..skip + whole].to_vec()).to_string().into()));
    }
    all
}

/// What the tokens of a text may look like in memory.
pub fn token_spellings(ids: &[u32]) -> Vec<(&'static str, Vec<u8>)> {
    let narrow = |id: &u32| u16::try_from(*id).unwrap().to_le_bytes();
    vec![
        ("tokens u16", ids.iter().flat_map(narrow).collect()),
        ("tokens u32", ids.iter().flat_map(|id| id.to_le_bytes()).collect()),
        ("tokens u64", ids.iter().flat_map(|id| u64::from(*id).to_le_bytes()).collect()),
    ]
}

/// The tokenizer of the committed model.
pub fn tokenizer() -> Tokenizer {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/blf-tiny-1/tokenizer.json");
    Tokenizer::from_file(file).unwrap()
}

/// The tokens of `text`, without any template around it.
pub fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
}

impl Needles {
    /// Windows of each text in all [`spellings`].
    pub fn new(texts: &[&[u8]]) -> Self {
        let named = texts.iter().enumerate().map(|(n, text)| (format!("text {n}"), *text));
        Self::of(named.flat_map(|(name, text)| windows(&name, text)))
    }

    /// The same of named texts, and windows of their tokens.
    pub fn with_tokens(texts: &[(String, String)], tokenizer: &Tokenizer) -> Self {
        Self::of(texts.iter().flat_map(|(name, text)| {
            let ids = tokens(tokenizer, text);
            let of_tokens = parts(&ids, TOKENS).into_iter().flat_map(token_spellings);
            let of_tokens = of_tokens.map(|(spelling, bytes)| (format!("{name} ({spelling})"), bytes));
            windows(name, text.as_bytes()).into_iter().chain(of_tokens).collect::<Vec<_>>()
        }))
    }

    /// These very bytes, each with its name.
    pub fn of(named: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let varies = |bytes: &[u8]| bytes.iter().filter(|b| **b != 0).collect::<BTreeSet<_>>().len() >= FEWEST;
        let kept = named.into_iter().filter(|(_, bytes)| bytes.len() >= SHORTEST && varies(bytes));
        let (names, patterns): (Vec<_>, Vec<_>) = kept.unzip();
        assert!(!patterns.is_empty(), "nothing to look for");
        Self { finder: AhoCorasick::new(patterns).unwrap(), names }
    }

    /// Whether any of them is there.
    pub fn found_in(&self, haystack: &[u8]) -> bool {
        self.finder.is_match(haystack)
    }

    /// The names of those that are there.
    pub fn hits(&self, haystack: &[u8]) -> BTreeSet<&str> {
        self.finder
            .find_overlapping_iter(haystack)
            .map(|found| self.names[found.pattern().as_usize()].as_str())
            .collect()
    }

    /// The files below `dir` that hold any, with what they hold, and how many files were searched; sockets and pipes are
    /// passed over.
    pub fn found_below(&self, dir: &Path) -> io::Result<(Vec<String>, usize)> {
        let (mut found, mut searched) = (Vec::new(), 0);
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                let (below, files) = self.found_below(&entry.path())?;
                found.extend(below);
                searched += files;
            } else if kind.is_file() {
                let names = self.hits(&std::fs::read(entry.path())?);
                found.extend(names.into_iter().map(|name| format!("{}: {name}", entry.path().display())));
                searched += 1;
            }
        }
        Ok((found, searched))
    }

    /// What the memory of a process holds of them, without a guest's memory where it has that mapped, and without what it can only
    /// read of files: programs have sentences of their own.
    pub fn found_in_process(&self, pid: u32) -> io::Result<BTreeSet<&str>> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let mut found = BTreeSet::new();
        for line in maps.lines().filter(|line| !line.contains(GUEST_MEMORY)) {
            // Range, access, offset, device, inode, name (proc_pid_maps(5)); inode 0 is no file.
            let words: Vec<&str> = line.split_whitespace().collect();
            let [range, access, _, _, inode, ..] = words.as_slice() else { continue };
            let Some((from, to)) = range.split_once('-') else { continue };
            let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16)) else { continue };
            if access.starts_with("rw") || (access.starts_with('r') && *inode == "0") {
                found.extend(self.hits_between(&memory, from, to).0);
            }
        }
        Ok(found)
    }

    /// What `file` holds of them between two offsets, and in how many places; a part that cannot be read is passed over.
    pub fn hits_between(&self, file: &File, from: u64, to: u64) -> (BTreeSet<&str>, usize) {
        let (mut names, mut places, mut at) = (BTreeSet::new(), BTreeSet::new(), from);
        let mut bytes = vec![0; CHUNK];
        while at < to {
            let wanted = usize::try_from(to - at).unwrap_or(CHUNK).min(CHUNK);
            let Ok(read @ 1..) = file.read_at(&mut bytes[..wanted], at) else { break };
            for found in self.finder.find_overlapping_iter(&bytes[..read]) {
                names.insert(self.names[found.pattern().as_usize()].as_str());
                places.insert(at + found.start() as u64);
            }
            if read <= OVERLAP || at + read as u64 >= to {
                break;
            }
            // The end is searched a second time, as the beginning of the next part.
            at += (read - OVERLAP) as u64;
        }
        (names, places.len())
    }
}

fn windows(name: &str, text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let spelled = parts(text, WINDOW).into_iter().flat_map(spellings);
    spelled.map(|(spelling, bytes)| (format!("{name} ({spelling})"), bytes)).collect()
}

/// Overlapping parts of a whole, or all of it if it is shorter than one.
fn parts<T>(whole: &[T], (length, step): (usize, usize)) -> Vec<&[T]> {
    if whole.len() < length { vec![whole] } else { whole.windows(length).step_by(step).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_part_is_found_and_nothing_else() {
        let (text, tokenizer) = ("a prompt of 64 letters, which nobody else would write like this", tokenizer());
        let needles = Needles::with_tokens(&[("prompt".into(), text.into())], &tokenizer);
        let mut spelled = spellings(text.as_bytes());
        spelled.extend(token_spellings(&tokens(&tokenizer, text)));
        assert_eq!(spelled.len(), 11);
        for (name, bytes) in spelled {
            // A leak that is cut off on both sides, in between other bytes.
            let cut = &bytes[bytes.len() / 8..bytes.len() * 7 / 8];
            let found = needles.hits(&[&[0xff; 100], cut, &[0xff; 100]].concat());
            assert!(found.contains(format!("prompt ({name})").as_str()), "{name}: {found:?}");
        }
        assert!(!needles.found_in(&[0xff; 4096]));
        assert!(!needles.found_in(b"another text that is about as long as the one above, but not the same"));
    }

    #[test]
    fn a_leak_across_two_reads_of_memory_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let mut bytes = vec![0; CHUNK + 100_000];
        bytes[CHUNK - 8..CHUNK + 8].copy_from_slice(b"sixteen letters!");
        std::fs::write(&path, &bytes).unwrap();
        let needles = Needles::new(&[b"sixteen letters!"]);
        let file = File::open(&path).unwrap();
        assert_eq!(needles.hits_between(&file, 0, bytes.len() as u64).1, 1);
        assert_eq!(needles.hits_between(&file, 0, CHUNK as u64).1, 0);
    }
}
