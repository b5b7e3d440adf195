//! The search for plaintext where none may be.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use blf_evidence::Base64;
use memchr::memmem::Finder;

/// Texts that must not be found, in every usual spelling, whole and in windows.
pub struct Needles(Vec<Finder<'static>>);

impl Needles {
    /// Windows of 16 bytes every 8 of each text: raw, hex of both cases, base64 at its three alignments, UTF-16.
    pub fn new(texts: &[&[u8]]) -> Self {
        let mut needles = Vec::new();
        for text in texts {
            let windows: Vec<&[u8]> = if text.len() < 16 { vec![text] } else { text.windows(16).step_by(8).collect() };
            for window in windows {
                let hex: String = window.iter().map(|b| format!("{b:02x}")).collect();
                needles.push(window.to_vec());
                needles.push(hex.to_uppercase().into());
                needles.push(hex.into());
                needles.push(String::from_utf8_lossy(window).encode_utf16().flat_map(u16::to_le_bytes).collect());
                for skip in 0..3.min(window.len()) {
                    // Of base64 only whole groups of three bytes are the same in a longer text.
                    let whole = (window.len() - skip) / 3 * 3;
                    needles.push(Base64(window[skip..skip + whole].to_vec()).to_string().into());
                }
            }
        }
        // Shorter ones would be found by chance.
        needles.retain(|n| n.len() >= 8);
        assert!(!needles.is_empty(), "nothing to look for");
        Self(needles.into_iter().map(|n| Finder::new(&n).into_owned()).collect())
    }

    /// Whether any of them is there.
    pub fn found_in(&self, haystack: &[u8]) -> bool {
        self.0.iter().any(|finder| finder.find(haystack).is_some())
    }

    /// Whether any of them is in a file below `dir`; sockets and pipes are passed over.
    pub fn found_below(&self, dir: &Path) -> io::Result<Option<std::path::PathBuf>> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if let Some(found) = self.found_below(&entry.path())? {
                    return Ok(Some(found));
                }
            } else if kind.is_file() && self.found_in(&std::fs::read(entry.path())?) {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }

    /// Whether any of them is in the memory of a process.
    pub fn found_in_process(&self, pid: u32) -> io::Result<bool> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let (Some(range), Some(access)) = (words.next(), words.next()) else { continue };
            let Some((from, to)) = range.split_once('-') else { continue };
            let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16)) else { continue };
            if !access.starts_with('r') || to - from > 1 << 32 {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
            // Some regions of the kernel's own cannot be read.
            let Ok(read) = memory.read_at(&mut bytes, from) else { continue };
            if self.found_in(&bytes[..read]) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
