//! How a node comes by the prompt key.

use blf_evidence::job::Share;
use blf_evidence::{Address, Hex};

use crate::{HpkeKey, Key, OpenError, open_key, seal_key};

const INFO: &[u8] = b"blf.share/v1";
const OUTPUT_INFO: &[u8] = b"blf.output/v1";

/// Releases the prompt key of a job to this node, or says why not. HPKE is one way, CoFHE another; jobs that ask
/// for both XOR what the two return (architecture decision 6).
pub trait KeyRelease {
    /// The prompt key that `share` and the assignment's verbatim `context` give to this node.
    ///
    /// # Errors
    /// [`ReleaseError`].
    fn release(&self, share: &Share, context: &str) -> Result<Key, ReleaseError>;
}

/// Why the prompt key stays closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The share names another node.
    #[error("share: wanted node {wanted}, got {got}")]
    Node {
        /// This node.
        wanted: Address,
        /// The node it names.
        got: Address,
    },
    /// The share is sealed to a key this node does not hold (any more).
    #[error("share: sealed to hpke key {got}, which this node does not hold")]
    Key {
        /// The key it names.
        got: Hex<32>,
    },
    /// The share does not open: another job, user, model, release or altered bytes.
    #[error("share: {0}")]
    Open(#[from] OpenError),
}

/// Shares sealed with HPKE to this node's current key, or to the previous one until its certificate ends.
pub struct HpkeRelease<'a> {
    /// This node.
    pub node: Address,
    /// Keys that may open, current first.
    pub keys: &'a [HpkeKey],
}

impl KeyRelease for HpkeRelease<'_> {
    fn release(&self, share: &Share, context: &str) -> Result<Key, ReleaseError> {
        if share.node != self.node {
            return Err(ReleaseError::Node { wanted: self.node, got: share.node });
        }
        let key = self.keys.iter().find(|k| k.public() == share.hpke).ok_or(ReleaseError::Key { got: share.hpke })?;
        Ok(open_key(key, &share.key, INFO, &share_aad(self.node, context))?)
    }
}

/// Seals the prompt key to one node for one job.
///
/// # Errors
/// [`OpenError::PublicKey`], [`OpenError::Randomness`].
pub fn seal_share(key: &Key, node: Address, hpke: Hex<32>, context: &str) -> Result<Share, OpenError> {
    Ok(Share { node, hpke, key: seal_key(&hpke, key, INFO, &share_aad(node, context))? })
}

/// Seals an answer's key to the user's reply key, bound to the job and to the sealed answer's CID.
///
/// # Errors
/// [`OpenError::PublicKey`], [`OpenError::Randomness`].
pub fn seal_output_key(
    key: &Key,
    reply: &Hex<32>,
    job: &Hex<32>,
    cid: &str,
) -> Result<blf_evidence::job::SealedKey, OpenError> {
    seal_key(reply, key, OUTPUT_INFO, &output_aad(job, cid))
}

/// Opens an answer's key with the user's reply key.
///
/// # Errors
/// [`OpenError::Tag`] for another job, CID or key.
pub fn open_output_key(
    reply: &HpkeKey,
    sealed: &blf_evidence::job::SealedKey,
    job: &Hex<32>,
    cid: &str,
) -> Result<Key, OpenError> {
    open_key(reply, sealed, OUTPUT_INFO, &output_aad(job, cid))
}

/// `aad` of a share: node (20) ‖ canonical job context. The node's length is fixed, so the encoding is injective.
fn share_aad(node: Address, context: &str) -> Vec<u8> {
    [node.0.as_slice(), context.as_bytes()].concat()
}

/// `aad` of an output key: job (32) ‖ CID.
fn output_aad(job: &Hex<32>, cid: &str) -> Vec<u8> {
    [job.0.as_slice(), cid.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_for_the_named_node_job_and_key_only() {
        let keys = [HpkeKey::generate().unwrap(), HpkeKey::generate().unwrap()];
        let (node, stranger) = (Address([1; 20]), Address([2; 20]));
        let prompt_key = Key::random().unwrap();
        let share = seal_share(&prompt_key, node, keys[1].public(), "context").unwrap();
        let release = HpkeRelease { node, keys: &keys };
        assert_eq!(release.release(&share, "context").unwrap().expose(), prompt_key.expose());
        assert_eq!(release.release(&share, "other").err(), Some(ReleaseError::Open(OpenError::Tag)));
        let other = HpkeRelease { node: stranger, keys: &keys };
        assert!(matches!(other.release(&share, "context").err(), Some(ReleaseError::Node { .. })));
        let mut renamed = share.clone();
        renamed.node = stranger;
        assert_eq!(other.release(&renamed, "context").err(), Some(ReleaseError::Open(OpenError::Tag)));
        let rotated = HpkeRelease { node, keys: &keys[..1] };
        assert!(matches!(rotated.release(&share, "context").err(), Some(ReleaseError::Key { .. })));
    }

    #[test]
    fn output_key_is_bound_to_job_and_cid() {
        let reply = HpkeKey::generate().unwrap();
        let key = Key::random().unwrap();
        let sealed = seal_output_key(&key, &reply.public(), &Hex([1; 32]), "cid").unwrap();
        assert_eq!(open_output_key(&reply, &sealed, &Hex([1; 32]), "cid").unwrap().expose(), key.expose());
        assert!(open_output_key(&reply, &sealed, &Hex([2; 32]), "cid").is_err());
        assert!(open_output_key(&reply, &sealed, &Hex([1; 32]), "cie").is_err());
    }
}
