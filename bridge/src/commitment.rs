//! What an answer commits to (architecture decision 8, protocol section 4).
//!
//! ```text
//! norm(text)  = trimmed, every run of white space one U+0020     (white space as in Python's `\s`)
//! key         = HKDF-SHA256(prompt key, no salt, "blf.commitment/v1")
//! commitment  = HMAC-SHA256(key, "blf.commitment/v1" ‖ 0x00 ‖ job (32) ‖ SHA-256(norm(text)))
//! commit      = SHA-256("blf.commit/v1" ‖ 0x00 ‖ job (32) ‖ node (20) ‖ commitment (32) ‖ salt (32))
//! ```
//!
//! Keyed, so that a short answer cannot be guessed from it; committed before it is revealed, so that a lazy
//! verifier has nothing to copy.

use blf_evidence::{Address, Hex};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::{Key, Secret};

const LABEL: &[u8] = b"blf.commitment/v1";

/// The commitment of an answer's text.
pub fn commitment(prompt_key: &Key, job: &Hex<32>, text: &Secret) -> Hex<32> {
    // HMAC pads its key with zeros to one block of 64 bytes.
    let mut key = zeroize::Zeroizing::new([0; 64]);
    let hkdf = hkdf::Hkdf::<Sha256>::new(None, prompt_key.expose());
    // 32 bytes is within HKDF's limit of 255 hashes; on the impossible error the key stays zero and no hash matches.
    if hkdf.expand(LABEL, &mut key[..32]).is_err() {
        return Hex([0; 32]);
    }
    let text = normalise(text);
    let mut mac = Hmac::<Sha256>::new((&*key).into());
    mac.update(LABEL);
    mac.update(&[0]);
    mac.update(&job.0);
    mac.update(&Sha256::digest(text.expose()));
    Hex(mac.finalize().into_bytes().into())
}

/// The hash a node sends before anybody reveals.
pub fn commit(job: &Hex<32>, node: &Address, commitment: &Hex<32>, salt: &Hex<32>) -> Hex<32> {
    let hash = Sha256::new()
        .chain_update(b"blf.commit/v1\0")
        .chain_update(job.0)
        .chain_update(node.0)
        .chain_update(commitment.0)
        .chain_update(salt.0);
    Hex(hash.finalize().into())
}

/// Trimmed, with every run of white space replaced by one space; white space as in Python's `\s`.
pub(crate) fn normalise(text: &Secret) -> Secret {
    // A copy that is zeroized, also where the lossy one would be a copy of its own.
    let text = zeroize::Zeroizing::new(String::from_utf8_lossy(text.expose()).into_owned());
    let words = text.split(is_python_space).filter(|w| !w.is_empty());
    let mut normal = String::with_capacity(text.len());
    for word in words {
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.push_str(word);
    }
    Secret::new(normal.into_bytes())
}

/// Unicode White_Space and U+001C to U+001F (protocol section 0, item 4).
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured on the published Python node 0.3.5.
    #[test]
    fn normalises_as_python() {
        let normalise = |text: &str| normalise(&Secret::new(text.into()));
        let normal = normalise(" a\u{a0}b\u{2003}c\u{200b}d\u{1c}e\u{85}f\n");
        assert_eq!(normal.expose(), "a b c\u{200b}d e f".as_bytes());
        assert_eq!(normalise("  Hello,\n\t world  ").expose(), b"Hello, world");
    }

    #[test]
    fn keyed_and_bound() {
        let (key, other) = (Key::random().unwrap(), Key::random().unwrap());
        let (job, text) = (Hex([1; 32]), Secret::new(b"yes".to_vec()));
        let c = commitment(&key, &job, &text);
        assert_eq!(c, commitment(&key, &job, &Secret::new(b" yes\n".to_vec())));
        assert_ne!(c, commitment(&other, &job, &text));
        assert_ne!(c, commitment(&key, &Hex([2; 32]), &text));
        assert_ne!(c, commitment(&key, &job, &Secret::new(b"no".to_vec())));
        let (node, salt) = (Address([3; 20]), Hex([4; 32]));
        assert_ne!(commit(&job, &node, &c, &salt), commit(&job, &Address([5; 20]), &c, &salt));
    }
}
