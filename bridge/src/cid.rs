//! CIDs, checked both ways: a stored blob must hash to the CID it was asked by, and a pinned one to the CID it got.
//!
//! Two forms are accepted: CIDv1 raw (`bafkrei…`, what we write) and CIDv0 of a single-block UnixFS file (`Qm…`,
//! what pinning services answer for small files). Anything else is a named error: a multi-block file has no hash
//! that its bytes alone could be checked against.

use sha2::{Digest as _, Sha256};

/// Why bytes are not what a CID names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidError {
    /// Neither CIDv1 raw SHA-256 in base32 nor CIDv0.
    #[error("cid: wanted CIDv1 raw sha2-256 in base32 or CIDv0, got {got:?}")]
    Form {
        /// At most 80 characters of what came.
        got: String,
    },
    /// The bytes are not the ones the CID names.
    #[error("blob does not match its cid: wanted {wanted}, got {got}")]
    Mismatch {
        /// The CID asked for.
        wanted: String,
        /// The CID of the bytes, in the same form.
        got: String,
    },
}

/// The CIDv1 (raw codec, SHA-256, base32 lower case) of `bytes`.
pub fn of(bytes: &[u8]) -> String {
    // version 1, codec raw 0x55, multihash sha2-256 0x12 of 32 bytes
    let binary = [&[0x01, 0x55, 0x12, 0x20], Sha256::digest(bytes).as_slice()].concat();
    format!("b{}", base32(&binary))
}

/// Checks that `bytes` are what `cid` names.
///
/// # Errors
/// [`CidError`].
pub fn check(cid: &str, bytes: &[u8]) -> Result<(), CidError> {
    let form = || CidError::Form { got: cid.chars().take(80).collect() };
    let got = match (cid.len(), cid.as_bytes().first_chunk::<7>()) {
        (59, Some(b"bafkrei")) if cid.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7')) => of(bytes),
        (46, Some([b'Q', b'm', ..])) if cid.bytes().all(|b| BASE58.contains(&b)) => v0(bytes),
        _ => return Err(form()),
    };
    if got == cid { Ok(()) } else { Err(CidError::Mismatch { wanted: cid.into(), got }) }
}

/// CIDv0: the SHA-256 multihash, in base58btc, of the dag-pb node of a file that fits one block.
fn v0(bytes: &[u8]) -> String {
    // UnixFS Data message: Type = File (field 1), Data (field 2), filesize (field 3); empty data is left out.
    let mut unixfs = vec![0x08, 0x02];
    if !bytes.is_empty() {
        unixfs.push(0x12);
        varint(&mut unixfs, bytes.len());
        unixfs.extend_from_slice(bytes);
    }
    unixfs.push(0x18);
    varint(&mut unixfs, bytes.len());
    // PBNode: Data (field 1), no links.
    let mut node = vec![0x0a];
    varint(&mut node, unixfs.len());
    node.extend_from_slice(&unixfs);
    base58(&[&[0x12, 0x20], Sha256::digest(&node).as_slice()].concat())
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// RFC 4648 base32, lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::new();
    for chunk in bytes.chunks(5) {
        let mut block = [0; 8];
        block[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(block);
        for i in 0..(chunk.len() * 8).div_ceil(5) {
            let index = (bits >> (35 - 5 * i)).to_le_bytes()[0] & 31;
            text.push(char::from(ALPHABET[usize::from(index)]));
        }
    }
    text
}

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// base58btc of bytes that do not begin with zero (a multihash never does).
fn base58(bytes: &[u8]) -> String {
    let mut digits: Vec<u8> = Vec::new();
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58).to_le_bytes()[0];
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58).to_le_bytes()[0]);
            carry /= 58;
        }
    }
    digits.iter().rev().map(|d| char::from(BASE58[usize::from(*d)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ipfs add` gives the two v0 CIDs; the v1 CID was computed with Python's hashlib and base64.
    #[test]
    fn well_known() {
        assert_eq!(v0(b""), "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
        assert_eq!(v0(b"hello world\n"), "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o");
        assert_eq!(of(b"hello world"), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
    }

    #[test]
    fn both_ways() {
        for cid in [of(b"blob"), v0(b"blob")] {
            assert_eq!(check(&cid, b"blob"), Ok(()));
            assert!(matches!(check(&cid, b"blub"), Err(CidError::Mismatch { .. })));
        }
        let long = v0(&vec![7; 300]);
        assert_eq!(check(&long, &vec![7; 300]), Ok(()));
        for bad in [
            "",
            "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
            "BAFKREIFZJUT3TE7NHYEKKLSS27NH3K72YSCO7Y32KOAO5EEI66WOF36N5E",
            "Qm0000000000000000000000000000000000000000000000",
            "../../etc/passwd",
        ] {
            assert!(matches!(check(bad, b"blob"), Err(CidError::Form { .. })), "{bad}");
        }
    }
}
