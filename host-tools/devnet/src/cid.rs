//! CIDv1 of a raw block: `b` ‖ base32(0x01 ‖ 0x55 ‖ 0x12 ‖ 0x20 ‖ SHA-256), lower case without padding.
//!
//! The store computes its own names (multiformats CID specification, codec `raw`, multihash `sha2-256`), as a peer
//! of the nodes that check them.

use sha2::{Digest as _, Sha256};

/// Characters of a [`raw`] CID.
pub(crate) const LENGTH: usize = 59;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567"; // RFC 4648, section 6

/// The CID of `block`.
pub(crate) fn raw(block: &[u8]) -> String {
    let mut bytes = vec![0x01, 0x55, 0x12, 0x20];
    bytes.extend_from_slice(&Sha256::digest(block));
    let mut text = String::from("b");
    for group in bytes.chunks(5) {
        let mut padded = [0; 8];
        padded[3..3 + group.len()].copy_from_slice(group);
        let bits = u64::from_be_bytes(padded);
        let digits = (group.len() * 8).div_ceil(5);
        text.extend((0..digits).map(|i| char::from(ALPHABET[(bits >> (35 - 5 * i) & 31) as usize])));
    }
    text
}

/// True for the spelling of a [`raw`] CID; whose digest it is cannot be told.
pub(crate) fn is_raw(text: &str) -> bool {
    // The first eight digits are fixed up to the digest: 0x01551220 is 32 bits, 6 digits and 2 bits.
    text.len() == LENGTH && text.starts_with("bafkrei") && text[7..].bytes().all(|b| ALPHABET.contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers: the empty block and "hello world" as `ipfs add --cid-version=1 --raw-leaves` names them.
    #[test]
    fn known_answers() {
        assert_eq!(raw(b""), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
        assert_eq!(raw(b"hello world"), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
        assert!(is_raw(&raw(b"")));
        for bad in ["", "bafkrei", &raw(b"")[1..], &raw(b"").to_uppercase(), &format!("{}a", raw(b""))] {
            assert!(!is_raw(bad), "{bad}");
        }
    }
}
