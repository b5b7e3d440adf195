//! The user's account: from a file that only its owner may read, or a fresh one.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use blf_bridge::Key;
use k256::ecdsa::SigningKey;
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};

/// The account of the file, or one that nobody had before.
///
/// # Errors
/// [`Exit::Config`] naming the file: others may read it, or it holds no key.
pub fn account(file: Option<&Path>) -> Result<SigningKey, Failure> {
    let Some(path) = file else {
        let key = Key::random().map_err(|e| Failure::new(Exit::Environment, "RANDOMNESS", e))?;
        return SigningKey::from_slice(key.expose()).map_err(|e| Failure::new(Exit::Failed, "ACCOUNT", e));
    };
    let wrong = |e: &dyn std::fmt::Display| Failure::new(Exit::Config, "ACCOUNT", format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(|e| wrong(&e))?;
    let mode = file.metadata().map_err(|e| wrong(&e))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(
            wrong(&format!("wanted mode 0600, got {:04o}", mode & 0o777)).hint(format!("chmod 600 {}", path.display()))
        );
    }
    // Of the file that was judged, whatever the name means by now.
    let mut text = Zeroizing::new(Vec::with_capacity(256));
    file.take(129).read_to_end(&mut text).map_err(|e| wrong(&e))?;
    if text.len() > 128 {
        return Err(wrong(&"wanted 64 hex digits, got more than 128 bytes"));
    }
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), bytes.as_mut_slice()).map_err(|_| wrong(&"wanted 64 hex digits"))?;
    SigningKey::from_slice(bytes.as_slice()).map_err(|_| wrong(&"wanted a secp256k1 key"))
}
