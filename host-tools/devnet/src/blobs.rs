//! The blob store: an IPFS gateway (`GET /ipfs/{cid}`) and a pinning service (`POST /pinning/pinFileToIPFS`,
//! multipart field `file`, as Pinata's classic API), CIDv1 of raw blocks only.

use blf_evidence::UnixTime;
use bytes::Bytes;
use rusqlite::OptionalExtension as _;
use serde::Serialize;
use subtle::ConstantTimeEq as _;

use crate::cid;
use crate::event::EventKind;
use crate::refusal::{Refused, Result};
use crate::state::{Turn, sql};

/// Longest blob, in bytes.
pub const BLOB_CAP: usize = 1024 * 1024;
/// Longest request body: a blob and the multipart frame around it.
pub(crate) const BODY_CAP: usize = BLOB_CAP + 16 * 1024;
/// Bytes that the store holds in all.
const STORE_CAP: i64 = 1 << 30;
/// Most parts of a multipart body, and the longest boundary (RFC 2046, section 5.1.1).
const PARTS_CAP: usize = 8;
const BOUNDARY_CAP: usize = 70;

/// The pinning service's reply, with its spelling.
#[derive(Debug, Serialize)]
pub(crate) struct Pinned {
    #[serde(rename = "IpfsHash")]
    ipfs_hash: String,
    #[serde(rename = "PinSize")]
    pin_size: usize,
    #[serde(rename = "Timestamp")]
    timestamp: String,
}

/// The blob with this CID.
pub(crate) fn get(turn: &Turn<'_>, name: &str) -> Result<Vec<u8>> {
    if !cid::is_raw(name) {
        return Err(Refused::malformed("cid: wanted a CIDv1 of a raw block, base32"));
    }
    let row = turn.tx.query_row("SELECT bytes FROM blobs WHERE cid = ?1", [name], |row| row.get(0)).optional()?;
    row.ok_or_else(|| Refused::not_found("UNKNOWN_BLOB", format!("cid: {name} is not here")))
}

/// Checks the bearer token, in constant time.
pub(crate) fn authorize(wanted: &str, authorization: Option<&[u8]>) -> Result<()> {
    let got = authorization.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
    if !bool::from(wanted.as_bytes().ct_eq(got)) {
        return Err(Refused::unauthorized("WRONG_TOKEN", "authorization: wanted the pinning service's bearer token"));
    }
    Ok(())
}

/// Stores the file of a multipart body. The same bytes again give the same reply.
pub(crate) fn pin(turn: &mut Turn<'_>, content_type: Option<&[u8]>, body: &Bytes) -> Result<Pinned> {
    let file = file(content_type, body)?;
    let cid = store(turn, file)?;
    Ok(Pinned { ipfs_hash: cid, pin_size: file.len(), timestamp: iso_8601(turn.now) })
}

/// Stores a blob under its CID, which it returns.
pub(crate) fn store(turn: &mut Turn<'_>, file: &[u8]) -> Result<String> {
    if file.len() > BLOB_CAP {
        return Err(Refused::too_large(BLOB_CAP));
    }
    let cid = cid::raw(file);
    let held: i64 = turn.tx.query_row("SELECT COALESCE(SUM(length), 0) FROM blobs", [], |row| row.get(0))?;
    let length = i64::try_from(file.len()).map_err(Refused::internal)?;
    if held + length > STORE_CAP {
        let detail = format!("store: wanted at most {STORE_CAP} bytes in all, holds {held}");
        return Err(Refused::new(hyper::StatusCode::INSUFFICIENT_STORAGE, "STORE_FULL", detail));
    }
    turn.tx.execute("INSERT OR IGNORE INTO blobs VALUES (?1, ?2, ?3, ?4)", (&cid, file, length, sql(turn.now)))?;
    turn.tell(EventKind::BlobPinned { cid: cid.clone(), bytes: file.len() });
    Ok(cid)
}

/// The bytes of the one part named `file` (RFC 7578); other parts are allowed and not looked at.
pub(crate) fn file<'a>(content_type: Option<&[u8]>, body: &'a [u8]) -> Result<&'a [u8]> {
    let malformed = |what: &str| Refused::malformed(format!("multipart: wanted {what}"));
    let boundary = content_type
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|value| value.strip_prefix("multipart/form-data"))
        .and_then(|value| value.split(';').find_map(|p| p.trim().strip_prefix("boundary=")))
        .map(|value| value.trim_matches('"'))
        .filter(|value| (1..=BOUNDARY_CAP).contains(&value.len()))
        .ok_or_else(|| malformed("content-type multipart/form-data with a boundary"))?;
    let first = format!("--{boundary}");
    let next = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(first.as_bytes()).ok_or_else(|| malformed("the boundary first"))?;
    let mut found = None;
    for _ in 0..PARTS_CAP {
        if rest.starts_with(b"--") {
            return found.ok_or_else(|| malformed("a part named file"));
        }
        rest = rest.strip_prefix(b"\r\n").ok_or_else(|| malformed("a line end after the boundary"))?;
        let head = find(rest, b"\r\n\r\n").ok_or_else(|| malformed("a header of each part"))?;
        let end = find(&rest[head + 4..], next.as_bytes()).ok_or_else(|| malformed("the boundary last"))?;
        let (headers, part) = (&rest[..head], &rest[head + 4..head + 4 + end]);
        rest = &rest[head + 4 + end + next.len()..];
        if is_file(headers) && found.replace(part).is_some() {
            return Err(malformed("one part named file, got two"));
        }
    }
    Err(malformed(&format!("at most {PARTS_CAP} parts")))
}

/// True if a part's headers say `form-data; name="file"`.
fn is_file(headers: &[u8]) -> bool {
    let Ok(headers) = std::str::from_utf8(headers) else { return false };
    headers.split("\r\n").any(|line| {
        let Some((name, value)) = line.split_once(':') else { return false };
        let mut parameters = value.split(';').map(str::trim);
        name.eq_ignore_ascii_case("content-disposition")
            && parameters.next() == Some("form-data")
            && parameters.any(|p| p == "name=\"file\"" || p == "name=file")
    })
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// Seconds as `2026-11-20T09:00:00Z` (days to civil date after H. Hinnant's `civil_from_days`).
pub(crate) fn iso_8601(time: UnixTime) -> String {
    let (days, seconds) = (time.0 / 86_400, time.0 % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds % 3600 / 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: Option<&[u8]> = Some(b"multipart/form-data; boundary=xyz");

    #[test]
    fn multipart() {
        let good = b"--xyz\r\nContent-Disposition: form-data; name=\"pinataOptions\"\r\n\r\n{}\r\n--xyz\r\n\
            Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Type: x/y\r\n\r\n\r\n--xy\r\nbytes\r\n--xyz--\r\n";
        assert_eq!(file(TYPE, good).unwrap(), b"\r\n--xy\r\nbytes");
        assert_eq!(file(Some(b"multipart/form-data; boundary=\"xyz\""), good).unwrap(), b"\r\n--xy\r\nbytes");
        let text = String::from_utf8(good.to_vec()).unwrap();
        for (bad, says) in [
            (String::new(), "boundary first"),
            (text.replace("name=\"file\"", "name=\"fil\""), "a part named file"),
            (text.replace("name=\"pinataOptions\"", "name=\"file\""), "got two"),
            (text.replace("--xyz--", "--xyz"), "header of each part"),
            (text.replace("bytes\r\n--xyz--", "bytes"), "boundary last"),
            ("--xyz\r\na: b\r\n\r\nc\r\n".repeat(9) + "--xyz--", "at most 8 parts"),
        ] {
            assert!(file(TYPE, bad.as_bytes()).unwrap_err().detail.contains(says), "{says}");
        }
        assert!(file(None, good).is_err());
        assert!(file(Some(b"multipart/form-data"), good).is_err());
    }

    #[test]
    fn dates() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_165_688, "2026-11-20T09:08:08Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(iso_8601(UnixTime(time)), text);
        }
    }
}
