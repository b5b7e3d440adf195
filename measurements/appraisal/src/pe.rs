//! PE/COFF images (Microsoft PE Format) as firmware measures them: sections and the Authenticode SHA-256 digest.
//!
//! Only what a unified kernel image and a Linux kernel with EFI stub use: PE32+, no gaps in trust. Integers are
//! little-endian. Everything read lies inside the file; nothing is allocated by a declared size.

use sha2::{Digest, Sha256};

/// Most sections an image may have; a UKI has about 15.
const SECTIONS_CAP: usize = 96;
/// Offset of `CheckSum` in the optional header (PE32+).
const CHECKSUM: usize = 64;
/// Offset of data directory 4, the certificate table, in the optional header (PE32+).
const CERTIFICATE_TABLE: usize = 112 + 4 * 8;
/// Size of a section header.
const SECTION_HEADER: usize = 40;

/// Why bytes are not a PE image we can measure.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("PE image, {field}: wanted {wanted}, got {got}")]
pub struct PeError {
    /// The member, as the format names it.
    pub field: &'static str,
    /// What is accepted.
    pub wanted: &'static str,
    /// What was there.
    pub got: u64,
}

/// A parsed image that borrows its file.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    file: &'a [u8],
    checksum_at: usize,
    /// Where the certificate table's directory entry is, when the optional header has one.
    certificates_at: Option<usize>,
    certificates_len: usize,
    headers_len: usize,
    sections: Vec<Section<'a>>,
}

/// A section of an image.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    /// Up to eight bytes of ASCII, e.g. `.linux`.
    pub name: &'a str,
    /// `VirtualSize` bytes as the loader places them; `None` when the section is longer in memory than in the file.
    pub data: Option<&'a [u8]>,
    /// `PointerToRawData` and `SizeOfRawData` as a range of the file.
    raw: (usize, usize),
}

impl<'a> Image<'a> {
    /// Parses a PE32+ image for x86-64.
    ///
    /// # Errors
    /// [`PeError`] naming the member.
    pub fn parse(file: &'a [u8]) -> Result<Self, PeError> {
        let error = |field, wanted, got: usize| PeError { field, wanted, got: got as u64 };
        if array::<2>(file, 0, "e_magic")? != *b"MZ" {
            return Err(error("e_magic", "MZ", file[0].into()));
        }
        let pe = size(file, 0x3C, "e_lfanew")?;
        if pe > 0x1000 || array::<4>(file, pe, "signature")? != *b"PE\0\0" {
            return Err(error("signature", "PE at e_lfanew, below 4096", pe));
        }
        let coff = pe + 4;
        let machine = half(file, coff, "Machine")?;
        if machine != 0x8664 {
            return Err(error("Machine", "x86-64 (34404)", machine));
        }
        let count = half(file, coff + 2, "NumberOfSections")?;
        if count == 0 || count > SECTIONS_CAP {
            return Err(error("NumberOfSections", "1 to 96", count));
        }
        let optional_len = half(file, coff + 16, "SizeOfOptionalHeader")?;
        let optional = coff + 20;
        let magic = half(file, optional, "Magic")?;
        if magic != 0x20B {
            return Err(error("Magic", "PE32+ (523)", magic));
        }
        let table = optional + optional_len;
        let table_end = table + count * SECTION_HEADER;
        let headers_len = size(file, optional + 60, "SizeOfHeaders")?;
        if headers_len < table_end || headers_len > file.len() {
            return Err(error("SizeOfHeaders", "from the section table's end to the file's end", headers_len));
        }
        let directories = size(file, optional + 108, "NumberOfRvaAndSizes")?;
        if directories > 16 || optional_len < 112 + 8 * directories {
            return Err(error("NumberOfRvaAndSizes", "at most 16, all inside the optional header", directories));
        }
        let certificates_at = (directories > 4).then_some(optional + CERTIFICATE_TABLE);
        let (mut certificates, mut certificates_len) = (0, 0);
        if let Some(at) = certificates_at {
            certificates = size(file, at, "certificate table offset")?;
            certificates_len = size(file, at + 4, "certificate table size")?;
        }
        if certificates_len != 0 && certificates.checked_add(certificates_len) != Some(file.len()) {
            return Err(error("certificate table", "ends with the file", certificates));
        }
        let sections = (0..count).map(|i| Section::parse(file, table + i * SECTION_HEADER, headers_len));
        let sections = sections.collect::<Result<Vec<_>, _>>()?;
        let image =
            Self { file, checksum_at: optional + CHECKSUM, certificates_at, certificates_len, headers_len, sections };
        let mut end = headers_len;
        for (start, len) in image.raw_in_file_order() {
            if start < end {
                return Err(error("PointerToRawData", "sections that do not overlap", start));
            }
            end = start + len;
        }
        if end > file.len() - certificates_len {
            return Err(error("SizeOfRawData", "sections before the certificate table", end));
        }
        Ok(image)
    }

    /// The sections in the order of the section table.
    #[must_use]
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// Authenticode SHA-256 digest, as UEFI firmware extends it into PCR 4 when it loads the image: the file without
    /// `CheckSum`, the certificate table's directory entry and the certificate table; sections in file order.
    #[must_use]
    pub fn authenticode(&self) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(&self.file[..self.checksum_at]);
        let after_checksum = self.checksum_at + 4;
        match self.certificates_at {
            Some(at) => {
                hash.update(&self.file[after_checksum..at]);
                hash.update(&self.file[at + 8..self.headers_len]);
            }
            None => hash.update(&self.file[after_checksum..self.headers_len]),
        }
        let mut hashed = self.headers_len;
        for (start, len) in self.raw_in_file_order() {
            hash.update(&self.file[start..start + len]);
            hashed += len;
        }
        // Firmware counts what it hashed, wherever that lay, and hashes the file's tail from there on.
        let tail = self.file.len() - self.certificates_len;
        if let Some(tail) = self.file.get(hashed..tail) {
            hash.update(tail);
        }
        hash.finalize().into()
    }

    fn raw_in_file_order(&self) -> Vec<(usize, usize)> {
        let mut raw: Vec<_> = self.sections.iter().map(|s| s.raw).filter(|(_, len)| *len != 0).collect();
        raw.sort_unstable();
        raw
    }
}

impl<'a> Section<'a> {
    fn parse(file: &'a [u8], at: usize, headers_len: usize) -> Result<Self, PeError> {
        let error = |field, wanted, got: usize| PeError { field, wanted, got: got as u64 };
        let name = file.get(at..at + 8).ok_or_else(|| error("Name", "8 bytes", 0))?;
        let (name, padding) = name.split_at(name.iter().position(|byte| *byte == 0).unwrap_or(8));
        let name = std::str::from_utf8(name).ok().filter(|n| n.bytes().all(|b| b.is_ascii_graphic()));
        let Some(name) = name.filter(|_| padding.iter().all(|byte| *byte == 0)) else {
            return Err(error("Name", "ASCII, zero padded", at));
        };
        let virtual_size = size(file, at + 8, "VirtualSize")?;
        let (len, start) = (size(file, at + 16, "SizeOfRawData")?, size(file, at + 20, "PointerToRawData")?);
        if len == 0 {
            return Ok(Self { name, data: None, raw: (0, 0) });
        }
        let raw = start.checked_add(len).and_then(|end| file.get(start..end));
        let Some(raw) = raw.filter(|_| start >= headers_len) else {
            return Err(error("PointerToRawData", "inside the file, after the headers", start));
        };
        Ok(Self { name, data: raw.get(..virtual_size), raw: (start, len) })
    }
}

fn array<const N: usize>(file: &[u8], at: usize, field: &'static str) -> Result<[u8; N], PeError> {
    let bytes = at.checked_add(N).and_then(|end| file.get(at..end)).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(PeError { field, wanted: "inside the file", got: at as u64 })
}

fn half(file: &[u8], at: usize, field: &'static str) -> Result<usize, PeError> {
    Ok(u16::from_le_bytes(array(file, at, field)?).into())
}

fn size(file: &[u8], at: usize, field: &'static str) -> Result<usize, PeError> {
    let value = u32::from_le_bytes(array(file, at, field)?);
    usize::try_from(value).map_err(|_| PeError { field, wanted: "below this machine's limit", got: value.into() })
}
