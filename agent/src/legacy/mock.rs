//! What proves nothing: the attestation of today's network, and the model that is none. A production build has neither.

use aws_lc_rs::hmac;
use blf_evidence::Hex;
use sha2::{Digest as _, Sha256};

/// `backendType` of the attestation.
pub const BACKEND: &str = "mock";
/// The id by which a user asks for the mock model. No other id leads to it.
pub const MODEL: &str = "mock";

/// Published with the nodes of the network: whoever reads it can make any quote.
const KEY: &[u8] = b"weloveblindference";
/// What every published node says it runs, whatever it runs.
const RUNTIME: &[u8] = b"blindference-node-v0.1.0-mock";

/// The quote over a challenge's nonce.
pub fn quote(nonce: &[u8]) -> Hex<32> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), nonce);
    let mut quote = Hex([0; 32]);
    quote.0.copy_from_slice(tag.as_ref());
    quote
}

/// `runtimeHash` of the attestation.
pub fn runtime_hash() -> Hex<32> {
    Hex(Sha256::digest(RUNTIME).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from the network's published Python node 0.3.5.
    #[test]
    fn equals_the_published_node() {
        let nonce: Vec<u8> = (0..32).collect();
        assert_eq!(quote(&nonce).to_string(), "e7049166db983d3e3678f95738b28e78fce65215f4e413e1ae7e2132c934a702");
        assert_eq!(runtime_hash().to_string(), "3ec7b0c7e7a1c5dbc0fbf73e4e8a25af6bb02518009db41d8ef32e64b40793f6");
    }
}
