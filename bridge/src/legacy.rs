//! What the network does today and a node must equal to take part: commitments without key, the mock engine, what
//! authenticates a request (protocol sections 1.1 and 4).
//!
//! ```text
//! commitment = SHA-256(SHA-256(output CID) ‖ SHA-256(norm(text)))
//! mock       = "MOCK_OUTPUT_" ‖ hex SHA-256(model id ‖ ":" ‖ prompt)
//! signed     = body ‖ decimal Unix seconds                                (EIP-191)
//! ```
//!
//! The commitment names neither job nor node, and a short answer can be guessed from it: only for jobs of that network.

use blf_evidence::Hex;
use sha2::{Digest as _, Sha256};

use crate::Secret;
use crate::commitment::normalise;

/// The commitment of an answer's text under the leader's CID; sent as bare hex.
pub fn commitment(output_cid: &str, text: &Secret) -> Hex<32> {
    let hash =
        Sha256::new().chain_update(Sha256::digest(output_cid)).chain_update(Sha256::digest(normalise(text).expose()));
    Hex(hash.finalize().into())
}

/// What the mock engine answers.
pub fn mock_output(model_id: &str, prompt: &Secret) -> Secret {
    let hash = Sha256::new().chain_update(model_id).chain_update(b":").chain_update(prompt.expose());
    Secret::new(format!("MOCK_OUTPUT_{}", hex::encode(hash.finalize())).into_bytes())
}

/// The text that authenticates a request: its body, byte for byte as it is sent, and the time of `X-Timestamp`.
pub fn request_text(body: &[u8], time: u64) -> Vec<u8> {
    [body, time.to_string().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use blf_evidence::eip191::Signature;

    use super::*;

    /// Measured on the published Python node 0.3.5, as all below.
    #[test]
    fn commitments_equal_the_published_node() {
        for (text, wanted) in [
            ("  Hello,\n\t world  ", "8f912050b411242543f8e9c0702d8839e5ee87728b430afa2fb217fbf43593b4"),
            (
                "a\u{a0}b\u{2003}c\u{200b}d\u{1c}e\u{85}f",
                "1e37c81682a3c45c0de8d88e9ca20c06dad4cc9ca528a4db125c9064fd450fa6",
            ),
        ] {
            assert_eq!(commitment("QmTest", &Secret::new(text.into())).to_string(), wanted);
        }
    }

    #[test]
    fn mock_output_equals_the_published_node() {
        let output = mock_output("m", &Secret::new(b"p".to_vec()));
        let wanted = "5034f36f44cd9f41914cdcd427f07a1147360af726e14da1e89798644e80519";
        let text = String::from_utf8(output.expose().to_vec()).unwrap();
        assert!(text.starts_with("MOCK_OUTPUT_") && text.ends_with(wanted), "{text}");
        assert_eq!(text.len(), 12 + 64);
    }

    #[test]
    fn signatures_equal_the_published_node() {
        let mut key = [0; 32];
        key[30..].copy_from_slice(&1001u16.to_be_bytes());
        let key = k256::ecdsa::SigningKey::from_slice(&key).unwrap();
        let body = br#"{"nodeAddress": "0x5935897A39AFABbedA5a599D38236E7Df151C8b8", "timestamp": "1795157973"}"#;
        for (body, wanted) in [
            (
                &b""[..],
                "0x34663aa4565ab889bcc70321ec19f2fc6c08b0c94a002674044e6801b1f7eda77968797b2f6f970291e0366eeab6a34996ea49901aa23026a2bf6156939a1a6b1c",
            ),
            (
                &body[..],
                "0x72280fa541826a6c8526b97d663ec378f4b4c7eac60efbea393035b0cb979c5610e0a93e6aefad07be0f07e05618cda599a0b05268d2688a8a261c433c82bfcb1c",
            ),
        ] {
            assert_eq!(Signature::sign(&key, &request_text(body, 1_795_157_973)).to_string(), wanted);
        }
    }
}
