//! Keys born in the guest (architecture decision 5): the node key, and generations of all others.
//!
//! ```text
//! generate → next ── certified ──→ current ── another is certified ──→ previous ── its certificate ends ──→ gone
//!            named in admission    signs and opens                    still opens
//! ```
//!
//! Nothing here is ever written or sent; what leaves is [`statement::Keys`].

use std::sync::Arc;

use blf_bridge::cofhe::SealingKey;
use blf_bridge::{HpkeKey, Key};
use blf_evidence::eip191::{Signature, address};
use blf_evidence::statement;
use blf_evidence::{Address, Hex, UnixTime};
use k256::ecdsa::SigningKey;

use crate::certificate::Certified;
use crate::error::{HardwareError, IclError};
use crate::inbound::key::TlsKey;

/// All keys of this guest. Dropping it zeroizes them.
pub struct Keys {
    node: NodeKey,
    next: Generation,
    current: Option<Held>,
    previous: Option<Held>,
}

/// The key that is the node: ICL authentication. Lives as long as the boot.
pub struct NodeKey {
    key: Box<SigningKey>,
    address: Address,
}

/// Keys that are certified together and replaced together.
pub struct Generation {
    response: Box<SigningKey>,
    hpke: HpkeKey,
    /// To which CoFHE seals.
    cofhe_sealing: SealingKey,
    /// For the attested API.
    tls: TlsKey,
    public: statement::Keys,
}

/// A generation and the end of the certificate that vouches for it.
struct Held {
    generation: Arc<Generation>,
    not_after: UnixTime,
}

impl Keys {
    /// A node key and a first generation, to be certified.
    ///
    /// # Errors
    /// [`HardwareError::Randomness`].
    pub fn generate() -> Result<Self, HardwareError> {
        let key = secp256k1()?;
        let node = NodeKey { address: address(key.verifying_key()), key };
        let next = Generation::generate(node.address)?;
        Ok(Self { node, next, current: None, previous: None })
    }

    /// The node key.
    pub fn node(&self) -> &NodeKey {
        &self.node
    }

    /// Replaces the generation that waits to be certified.
    ///
    /// # Errors
    /// [`HardwareError::Randomness`].
    pub fn rotate(&mut self) -> Result<(), HardwareError> {
        self.next = Generation::generate(self.node.address)?;
        Ok(())
    }

    /// Public halves of the generation that waits to be certified: for admission.
    pub fn next(&self) -> &statement::Keys {
        &self.next.public
    }

    /// Public halves of the certified generation, or before there is one, of the next: for everybody but the ICL.
    pub fn shown(&self) -> &statement::Keys {
        &self.shown_generation().public
    }

    /// The TLS key among those that are shown.
    pub fn shown_tls(&self) -> &TlsKey {
        &self.shown_generation().tls
    }

    fn shown_generation(&self) -> &Generation {
        self.current.as_ref().map_or(&self.next, |held| &held.generation)
    }

    /// Makes the next generation current; the current one becomes previous and a new one waits to be certified.
    ///
    /// # Errors
    /// [`HardwareError::Randomness`], [`IclError::NotCertified`] if `certified` is for other keys; nothing changes then.
    pub fn promote(&mut self, certified: Certified) -> Result<(), crate::error::VaultError> {
        if *certified.keys() != self.next.public {
            return Err(IclError::NotCertified.into());
        }
        Ok(self.promote_until(certified.not_after())?)
    }

    /// Makes the next generation current until then, on the word of a coordinator that certifies no keys.
    ///
    /// # Errors
    /// [`HardwareError::Randomness`]; nothing changes then.
    #[cfg(not(feature = "production"))]
    pub fn promote_unproved(&mut self, not_after: UnixTime) -> Result<(), HardwareError> {
        self.promote_until(not_after)
    }

    fn promote_until(&mut self, not_after: UnixTime) -> Result<(), HardwareError> {
        let after = Generation::generate(self.node.address)?;
        let generation = Arc::new(std::mem::replace(&mut self.next, after));
        self.previous = self.current.replace(Held { generation, not_after });
        Ok(())
    }

    /// The generation whose certificate is in force, of several the last.
    ///
    /// # Errors
    /// [`IclError::NotCertified`].
    pub fn certified(&self, now: UnixTime) -> Result<&Generation, IclError> {
        let held = self.current.as_ref().filter(|held| now < held.not_after);
        Ok(&held.ok_or(IclError::NotCertified)?.generation)
    }

    /// The generation with this HPKE key, while its certificate is in force.
    pub fn holding(&mut self, hpke: &Hex<32>, now: UnixTime) -> Option<Arc<Generation>> {
        self.find(now, |public| public.hpke == *hpke)
    }

    /// The generation with this sealing key, while its certificate is in force.
    pub fn sealing(&mut self, sealing: &Hex<32>, now: UnixTime) -> Option<Arc<Generation>> {
        self.find(now, |public| public.cofhe_sealing == *sealing)
    }

    fn find(&mut self, now: UnixTime, wanted: impl Fn(&statement::Keys) -> bool) -> Option<Arc<Generation>> {
        self.expire(now);
        let held = [&self.current, &self.previous].into_iter().flatten();
        held.map(|held| &held.generation).find(|generation| wanted(&generation.public)).map(Arc::clone)
    }

    /// Forgets every generation whose certificate has ended.
    pub fn expire(&mut self, now: UnixTime) {
        for held in [&mut self.current, &mut self.previous] {
            drop(held.take_if(|held| now >= held.not_after));
        }
    }
}

impl NodeKey {
    /// The node's address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs (EIP-191). The caller has built `text` from a fixed form.
    pub fn sign(&self, text: impl AsRef<[u8]>) -> Signature {
        Signature::sign(&self.key, text.as_ref())
    }

    /// Signs the digest of a permit (EIP-712) or of a transaction (EIP-1559), which the caller has built.
    pub fn sign_digest(&self, digest: &[u8; 32]) -> Signature {
        Signature::sign_digest(&self.key, digest)
    }
}

impl Generation {
    fn generate(node: Address) -> Result<Self, HardwareError> {
        let random = |_| HardwareError::Randomness;
        let response = secp256k1()?;
        let hpke = HpkeKey::generate().map_err(random)?;
        let cofhe_sealing = SealingKey::generate().map_err(random)?;
        let tls = TlsKey::generate()?;
        let public = statement::Keys {
            cofhe_sealing: cofhe_sealing.public(),
            hpke: hpke.public(),
            node,
            response: address(response.verifying_key()),
            tls_spki_sha256: tls.spki_sha256(),
        };
        Ok(Self { response, hpke, cofhe_sealing, tls, public })
    }

    /// The public halves.
    pub fn public(&self) -> &statement::Keys {
        &self.public
    }

    /// The key to which shares are sealed.
    pub fn hpke(&self) -> &HpkeKey {
        &self.hpke
    }

    /// The key to which CoFHE seals.
    pub fn sealing(&self) -> &SealingKey {
        &self.cofhe_sealing
    }

    /// Signs an answer or a verdict (EIP-191).
    pub fn sign_response(&self, text: &str) -> Signature {
        Signature::sign(&self.response, text.as_bytes())
    }
}

/// A random secp256k1 key. `SigningKey` zeroizes itself where it lies when it is dropped; the box keeps later moves from
/// leaving copies. It is made on the stack first, and that copy is left to be overwritten.
fn secp256k1() -> Result<Box<SigningKey>, HardwareError> {
    // About one in 2^128 strings is zero or not below the order of the group.
    for _ in 0..8 {
        let bytes = Key::random().map_err(|_| HardwareError::Randomness)?;
        if let Ok(key) = SigningKey::from_slice(bytes.expose()) {
            return Ok(Box::new(key));
        }
    }
    Err(HardwareError::Randomness)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::certified;

    #[test]
    fn generations_follow_each_other() {
        let mut keys = Keys::generate().unwrap();
        let (first, now) = (keys.next().clone(), UnixTime(1000));
        assert_eq!(keys.shown(), &first);
        assert!(keys.certified(now).is_err());
        assert!(keys.holding(&first.hpke, now).is_none(), "uncertified keys open nothing");

        keys.promote(certified(&first, 2000)).unwrap();
        assert_eq!(keys.shown(), &first);
        assert!(keys.holding(&first.hpke, now).is_some());
        assert_ne!(keys.next(), &first);

        keys.rotate().unwrap();
        let second = keys.next().clone();
        assert!(keys.promote(certified(&first, 3000)).is_err(), "a certificate for other keys");
        keys.promote(certified(&second, 3000)).unwrap();
        assert_eq!(keys.shown(), &second);
        assert!(keys.holding(&first.hpke, UnixTime(1999)).is_some(), "the previous one still opens");
        assert!(keys.holding(&first.hpke, UnixTime(2000)).is_none(), "until its certificate ends");
        assert!(keys.holding(&second.hpke, UnixTime(2999)).is_some());
        assert!(keys.holding(&second.hpke, UnixTime(3000)).is_none());
        assert!(keys.certified(UnixTime(3000)).is_err());
    }

    #[test]
    fn generations_end_with_their_certificates() {
        let mut keys = Keys::generate().unwrap();
        for not_after in [2000, 3000] {
            let next = keys.next().clone();
            keys.promote(certified(&next, not_after)).unwrap();
        }
        let ends = [&keys.previous, &keys.current].map(|held| Arc::downgrade(&held.as_ref().unwrap().generation));
        let alive = || ends.each_ref().map(|generation| generation.upgrade().is_some());
        keys.expire(UnixTime(1999));
        assert_eq!(alive(), [true, true]);
        keys.expire(UnixTime(2000));
        assert_eq!(alive(), [false, true]);
        keys.expire(UnixTime(3000));
        assert_eq!(alive(), [false, false]);
        assert_eq!(keys.shown(), keys.next());
    }

    #[test]
    fn all_but_the_node_key_rotate() {
        let mut keys = Keys::generate().unwrap();
        let first = keys.next().clone();
        keys.rotate().unwrap();
        let second = keys.next();
        assert_eq!(first.node, second.node);
        assert_ne!(first.response, second.response);
        assert_ne!(first.hpke, second.hpke);
        assert_ne!(first.cofhe_sealing, second.cofhe_sealing);
        assert_ne!(first.tls_spki_sha256, second.tls_spki_sha256);
    }
}
