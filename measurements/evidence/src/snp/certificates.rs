//! The certificate table of an extended guest request (GHCB, section 4.1.8; configfs-tsm `auxblob`).
//!
//! The host writes it: nothing in it is believed. It saves whoever verifies the report from asking AMD.

use std::ops::Range;

/// Longest table, in bytes: what Linux hands to a guest at most (`SEV_FW_BLOB_MAX_SIZE`).
pub const TABLE_CAP: usize = 16 * 1024;

/// Bytes of an entry: GUID, offset of the certificate from the start of the table, its length.
const ENTRY: usize = 16 + 4 + 4;

/// GUIDs as they are stored: the first three groups of digits little-endian.
const VCEK: [u8; 16] = guid(0x63DA_758D, 0xE664, 0x4564, 0xADC5_F4B9_3BE8_ACCD);
const VLEK: [u8; 16] = guid(0xA807_4BC2, 0xA25A, 0x483E, 0xAAE6_39C0_45A0_B8A1);
const ASK: [u8; 16] = guid(0x4AB7_B379, 0xBBAC, 0x4FE4, 0xA02F_05AE_F327_C782);
const ARK: [u8; 16] = guid(0xC0B4_06A4, 0xA803, 0x4952, 0x9743_3FB6_014C_D0AE);

/// The certificates of a table, each as it came: X.509 in DER if the host is right.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CertificateTable<'a> {
    /// Of the chip.
    pub vcek: Option<&'a [u8]>,
    /// Of the cloud.
    pub vlek: Option<&'a [u8]>,
    /// Of the ASK or the ASVK.
    pub ask: Option<&'a [u8]>,
    /// Of the ARK.
    pub ark: Option<&'a [u8]>,
}

/// Why bytes are not a certificate table.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CertificateTableError {
    /// Two entries for one certificate.
    #[error("certificate table: wanted one entry for each GUID, got two for {certificate}")]
    Duplicate {
        /// Which one.
        certificate: &'static str,
    },
    /// Too long.
    #[error("certificate table: wanted at most {TABLE_CAP} bytes, got {got}")]
    Length {
        /// Bytes that came.
        got: usize,
    },
    /// A certificate that lies outside the table, over its entries or over another certificate.
    #[error("certificate table: entry {index}: wanted bytes of its own, got {length} from offset {offset}")]
    Range {
        /// The entry, from 0.
        index: usize,
        /// Its offset.
        offset: u32,
        /// Its length.
        length: u32,
    },
    /// No entry of zeros ends the table.
    #[error("certificate table: wanted an entry of zeros behind the last, got the end of the table")]
    Unterminated,
}

impl<'a> CertificateTable<'a> {
    /// Parses a table. No bytes at all are a table without certificates; entries with other GUIDs are skipped.
    ///
    /// # Errors
    /// [`CertificateTableError`] when an entry points where it may not.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CertificateTableError> {
        let mut table = Self::default();
        if bytes.is_empty() {
            return Ok(table);
        }
        if bytes.len() > TABLE_CAP {
            return Err(CertificateTableError::Length { got: bytes.len() });
        }
        let (entries, _) = bytes.as_chunks::<ENTRY>();
        let count = entries.iter().position(|entry| *entry == [0; ENTRY]);
        let count = count.ok_or(CertificateTableError::Unterminated)?;
        let behind_entries = (count + 1) * ENTRY;
        let mut taken: Vec<Range<usize>> = Vec::new();
        for (index, entry) in entries[..count].iter().enumerate() {
            let [.., o0, o1, o2, o3, l0, l1, l2, l3] = *entry;
            let (offset, length) = (u32::from_le_bytes([o0, o1, o2, o3]), u32::from_le_bytes([l0, l1, l2, l3]));
            let range = CertificateTableError::Range { index, offset, length };
            let (Ok(start), Ok(size)) = (usize::try_from(offset), usize::try_from(length)) else { return Err(range) };
            let Some(end) = start.checked_add(size).filter(|end| size > 0 && *end <= bytes.len()) else {
                return Err(range);
            };
            if start < behind_entries || taken.iter().any(|other| start < other.end && other.start < end) {
                return Err(range);
            }
            taken.push(start..end);
            let (slot, certificate) = match entry.first_chunk() {
                Some(&VCEK) => (&mut table.vcek, "the VCEK"),
                Some(&VLEK) => (&mut table.vlek, "the VLEK"),
                Some(&ASK) => (&mut table.ask, "the ASK"),
                Some(&ARK) => (&mut table.ark, "the ARK"),
                _ => continue,
            };
            if slot.replace(&bytes[start..end]).is_some() {
                return Err(CertificateTableError::Duplicate { certificate });
            }
        }
        Ok(table)
    }
}

const fn guid(time_low: u32, time_mid: u16, time_high: u16, rest: u64) -> [u8; 16] {
    let ([a, b, c, d], [e, f], [g, h]) = (time_low.to_le_bytes(), time_mid.to_le_bytes(), time_high.to_le_bytes());
    let [i, j, k, l, m, n, o, p] = rest.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}
