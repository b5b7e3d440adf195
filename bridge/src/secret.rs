//! Secrets: zeroized on drop, without `Debug` or `Display`, read through `expose`.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::OpenError;

/// A 32-byte secret key, on the heap so that moves leave no copies.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key(Box<[u8; 32]>);

/// A secret text: a prompt or an answer.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Key {
    /// A fresh random key.
    ///
    /// # Errors
    /// [`OpenError::Randomness`].
    pub fn random() -> Result<Self, OpenError> {
        Self::fill(|bytes| getrandom::fill(bytes).map_err(|_| OpenError::Randomness))
    }

    /// A key written in place by `fill`.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn fill<E>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self(Box::new([0; 32]));
        fill(&mut key.0)?;
        Ok(key)
    }

    /// This key ⊕ another: the key of two shares, or one share of the key and the other.
    #[must_use]
    pub fn xor(&self, other: &Self) -> Self {
        let mut key = self.clone();
        key.0.iter_mut().zip(other.expose()).for_each(|(a, b)| *a ^= b);
        key
    }

    /// The secret bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Secret {
    /// Takes over the bytes; they are zeroized with this value.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}
