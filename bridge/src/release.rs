//! How a node comes by the prompt key.

use blf_evidence::job::Share;
use blf_evidence::{Address, Hex};

use crate::cofhe::{self, Sealed, SealingKey, UnsealError};
use crate::{HpkeKey, Key, OpenError, open_key, seal_key};

const INFO: &[u8] = b"blf.share/v1";
const OUTPUT_INFO: &[u8] = b"blf.output/v1";

/// Releases the prompt key of a job to this node, or says why not (architecture decision 6): [`HpkeRelease`],
/// [`CofheRelease`], or [`Joined`] for jobs that ask for both.
pub trait KeyRelease {
    /// The prompt key.
    ///
    /// # Errors
    /// [`ReleaseError`].
    fn release(&self) -> Result<Key, ReleaseError>;
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
    /// What the threshold network sealed is no half of a key, or not for this node.
    #[error("{half} half: {error}")]
    Unseal {
        /// `high` or `low`.
        half: &'static str,
        /// Why.
        error: UnsealError,
    },
}

/// A share sealed with HPKE to this node's current key, or to the previous one until its certificate ends.
pub struct HpkeRelease<'a> {
    /// This node.
    pub node: Address,
    /// Keys that may open, current first.
    pub keys: &'a [HpkeKey],
    /// The share of the assignment.
    pub share: &'a Share,
    /// The verbatim context of the assignment.
    pub context: &'a str,
}

/// Both halves as the threshold network sealed them to this node's sealing key.
pub struct CofheRelease<'a> {
    /// The key that was in the permit.
    pub key: &'a SealingKey,
    /// First half.
    pub high: &'a Sealed,
    /// Second half.
    pub low: &'a Sealed,
}

/// Two shares of one key, neither of which says anything of it: share ⊕ share.
pub struct Joined<A, B>(pub A, pub B);

impl KeyRelease for HpkeRelease<'_> {
    fn release(&self) -> Result<Key, ReleaseError> {
        let share = self.share;
        if share.node != self.node {
            return Err(ReleaseError::Node { wanted: self.node, got: share.node });
        }
        let key = self.keys.iter().find(|k| k.public() == share.hpke).ok_or(ReleaseError::Key { got: share.hpke })?;
        Ok(open_key(key, &share.key, INFO, &share_aad(self.node, self.context))?)
    }
}

impl KeyRelease for CofheRelease<'_> {
    fn release(&self) -> Result<Key, ReleaseError> {
        let half = |half, sealed| self.key.unseal(sealed).map_err(|error| ReleaseError::Unseal { half, error });
        Ok(cofhe::join(&half("high", self.high)?, &half("low", self.low)?))
    }
}

impl<A: KeyRelease, B: KeyRelease> KeyRelease for Joined<A, B> {
    fn release(&self) -> Result<Key, ReleaseError> {
        let (first, second) = (self.0.release()?, self.1.release()?);
        Ok(first.xor(&second))
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
        let release = HpkeRelease { node, keys: &keys, share: &share, context: "context" };
        assert_eq!(release.release().unwrap().expose(), prompt_key.expose());
        let other = HpkeRelease { context: "other", ..release };
        assert_eq!(other.release().err(), Some(ReleaseError::Open(OpenError::Tag)));
        let other = HpkeRelease { node: stranger, ..release };
        assert!(matches!(other.release().err(), Some(ReleaseError::Node { .. })));
        let renamed = Share { node: stranger, ..share.clone() };
        let other = HpkeRelease { node: stranger, share: &renamed, ..release };
        assert_eq!(other.release().err(), Some(ReleaseError::Open(OpenError::Tag)));
        let rotated = HpkeRelease { keys: &keys[..1], ..release };
        assert!(matches!(rotated.release().err(), Some(ReleaseError::Key { .. })));
    }

    #[test]
    fn cofhe_opens_with_the_permits_key_only() {
        let (key, other) = (SealingKey::generate().unwrap(), SealingKey::generate().unwrap());
        let prompt_key = Key::random().unwrap();
        let [high, low] = cofhe::split(&prompt_key).map(|half| cofhe::seal(&key.public(), &half).unwrap());
        let release = CofheRelease { key: &key, high: &high, low: &low };
        assert_eq!(release.release().unwrap().expose(), prompt_key.expose());
        let exchanged = CofheRelease { high: &low, low: &high, ..release };
        assert_ne!(exchanged.release().unwrap().expose(), prompt_key.expose());
        let altered = Sealed { data: low.data[1..].to_vec(), ..low.clone() };
        for (release, half) in
            [(CofheRelease { key: &other, ..release }, "high"), (CofheRelease { low: &altered, ..release }, "low")]
        {
            assert_eq!(release.release().err(), Some(ReleaseError::Unseal { half, error: UnsealError::Tag }));
        }
    }

    #[test]
    fn joined_needs_both_shares() {
        let hpke = [HpkeKey::generate().unwrap()];
        let sealing = SealingKey::generate().unwrap();
        let (prompt_key, cofhe_share) = (Key::random().unwrap(), Key::random().unwrap());
        let hpke_share = prompt_key.xor(&cofhe_share);
        let node = Address([1; 20]);
        let share = seal_share(&hpke_share, node, hpke[0].public(), "context").unwrap();
        let [high, low] = cofhe::split(&cofhe_share).map(|half| cofhe::seal(&sealing.public(), &half).unwrap());
        let ours = || HpkeRelease { node, keys: &hpke, share: &share, context: "context" };
        let theirs = || CofheRelease { key: &sealing, high: &high, low: &low };
        assert_eq!(Joined(ours(), theirs()).release().unwrap().expose(), prompt_key.expose());
        assert_ne!(ours().release().unwrap().expose(), prompt_key.expose());
        assert_ne!(theirs().release().unwrap().expose(), prompt_key.expose());
        let other = HpkeRelease { context: "other", ..ours() };
        assert_eq!(Joined(other, theirs()).release().err(), Some(ReleaseError::Open(OpenError::Tag)));
        let other = CofheRelease { high: &low, low: &high, ..theirs() };
        assert_ne!(Joined(ours(), other).release().unwrap().expose(), prompt_key.expose());
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
