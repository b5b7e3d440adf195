//! The chain, as much of it as keys need: three contracts behind typed JSON-RPC, in SQLite of its own.
//!
//! ```text
//! wallet: eth_sendRawTransaction → signature, chain id, nonce, fees → contract → receipt with logs
//! anyone: eth_call → PromptKeyStore, ACL, TaskManager
//! ```
//!
//! A transaction is mined when it comes, in the block of that second; gas costs nothing, since nobody has a balance.
//! CoFHE is in `clear` mode: behind each ciphertext stands its plaintext. What it holds is development data.

mod abi;
mod account;
mod contracts;
mod eip712;
mod permit;
mod rlp;
mod rpc;
mod transaction;
mod world;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use blf_evidence::Address;
use blf_evidence::profile::NetworkProfile;
use rusqlite::{Connection, TransactionBehavior};

use crate::{Clock, development};

pub use contracts::TASK_MANAGER;

pub(crate) use abi::{Word, address as address_word};
pub(crate) use account::{address, signer};
pub(crate) use contracts::{UINT128, handle, input_digest};
pub(crate) use eip712::Domain;
pub(crate) use permit::Permission;
pub(crate) use world::Plain;
use world::{Keys, World};

/// The zero address: no one's.
pub(crate) const NOBODY: Address = Address([0; 20]);

/// The chain. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Chain {
    inner: Arc<Inner>,
}

/// An encrypted input: Solidity's `InEuint128`.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Hash of the ciphertext; not the handle under which it will be stored.
    pub ct_hash: [u8; 32],
    /// 0.
    pub security_zone: u8,
    /// 6: euint128.
    pub utype: u8,
    /// The verifier's, 65 bytes.
    pub signature: Vec<u8>,
}

/// Why the chain does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too much was stored.
    #[error("chain: full: wanted at most {} entries; remove its state to start anew", world::ENTRIES)]
    Full,
    /// The system gives no random bytes.
    #[error("chain: random bytes: {0}")]
    Random(getrandom::Error),
    /// The contract refuses.
    #[error("execution reverted: {reason}")]
    Reverted {
        /// In words.
        reason: String,
        /// As the contract says it.
        data: Vec<u8>,
    },
    /// The database does not answer.
    #[error("chain: state: {0}")]
    State(#[from] rusqlite::Error),
    /// A contract or a function that this chain does not have.
    #[error("{0}")]
    Unsupported(String),
}

struct Inner {
    connection: Mutex<Connection>,
    network: Network,
    clock: Clock,
    /// Look-ups of a receipt that find nothing yet.
    slow_receipts: AtomicU32,
    /// How many answers to which method are lost.
    lost: Mutex<(&'static str, u32)>,
}

/// What does not change.
struct Network {
    /// Of the ACL; its chain id is the chain's.
    domain: Domain,
    prompt_key_store: Address,
    /// Whose signature makes an input valid.
    verifier: Address,
}

impl Chain {
    /// The chain of a profile that has CoFHE, in a database of its own; `None` keeps it in memory.
    ///
    /// # Errors
    /// [`crate::Error::Profile`], [`crate::Error::State`], [`crate::Error::StateVersion`].
    pub fn open(path: Option<&Path>, profile: &NetworkProfile, clock: Clock) -> Result<Self, crate::Error> {
        let missing = || crate::Error::Profile("cofhe: wanted contracts and hosts, got null".into());
        let cofhe = profile.cofhe.as_ref().ok_or_else(missing)?;
        let domain = Domain {
            name: cofhe.acl_name.clone(),
            version: cofhe.acl_version.clone(),
            chain_id: profile.chain_id,
            contract: cofhe.acl,
        };
        let verifier = development::address(&development::verifier_key()?);
        let network = Network { domain, prompt_key_store: cofhe.prompt_key_store, verifier };
        let connection = Mutex::new(world::open(path)?);
        Ok(Self {
            inner: Arc::new(Inner {
                connection,
                network,
                clock,
                slow_receipts: AtomicU32::new(0),
                lost: Mutex::default(),
            }),
        })
    }

    /// Handles of a job's prompt key, high then low, or of what a leader stored under an output key's job id.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn encrypted_key(&self, job: [u8; 32]) -> Result<Option<[[u8; 32]; 2]>, Error> {
        self.view(|world| world.key(Keys::Prompt, job))
    }

    /// Handles that the ICL stored for a user with `storeOutputKey`.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn output_key(&self, job: [u8; 32]) -> Result<Option<[[u8; 32]; 2]>, Error> {
        self.view(|world| world.key(Keys::Output, job))
    }

    /// `storeKey` by `sender`, as a transaction would: the stored handles, high then low.
    ///
    /// # Errors
    /// [`Error`].
    pub fn store_key(
        &self,
        sender: Address,
        job: [u8; 32],
        inputs: [&Input; 2],
        nodes: &[Address],
    ) -> Result<[[u8; 32]; 2], Error> {
        self.turn(sender, |world| contracts::store_key(world, job, inputs, nodes))
    }

    /// `grantDecryptAccess` by `sender`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn grant(&self, sender: Address, job: [u8; 32], node: Address) -> Result<(), Error> {
        self.turn(sender, |world| contracts::grant(world, job, node))
    }

    /// `setICL` by `sender`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_icl(&self, sender: Address, icl: Address) -> Result<(), Error> {
        self.turn(sender, |world| contracts::set_icl(world, icl))
    }

    /// True if the ACL lets `account` use the handle.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn is_allowed(&self, handle: [u8; 32], account: Address) -> Result<bool, Error> {
        self.view(|world| world.is_allowed(handle, account))
    }

    /// Lets `account` use a handle without asking a contract: for handles of the published node's own encryption, which
    /// never see one.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::State`].
    pub fn allow(&self, handle: [u8; 32], account: Address) -> Result<(), Error> {
        self.view(|world| world.allow(handle, account))
    }

    /// Receipts are found only by later look-ups than the first `count`.
    pub fn slow_receipts(&self, count: u32) {
        self.inner.slow_receipts.store(count, Ordering::Relaxed);
    }

    /// The next `count` requests for `method` are done, and answered by a gateway that lost the answer.
    pub fn lose_answers(&self, method: &'static str, count: u32) {
        *self.inner.lost.lock().unwrap_or_else(PoisonError::into_inner) = (method, count);
    }

    /// The ACL's domain.
    pub(crate) fn domain(&self) -> &Domain {
        &self.inner.network.domain
    }

    pub(crate) fn now(&self) -> u64 {
        (self.inner.clock)().0
    }

    /// The plaintext of a handle, if it was ever encrypted here.
    pub(crate) fn plain(&self, handle: Word) -> Result<Option<Plain>, Error> {
        self.view(|world| world.plain(handle))
    }

    /// Encrypts, in `clear` mode: the hash of a new ciphertext.
    pub(crate) fn encrypt(&self, value: &Plain) -> Result<Word, Error> {
        let mut hash = [0; 32];
        getrandom::fill(&mut hash).map_err(Error::Random)?;
        hash[30] |= 0x80; // never its own handle: whoever mistakes one for the other must notice
        self.view(|world| world.keep(hash, value)).map(|()| hash)
    }

    /// As [`Self::turn`], where it does not matter who calls.
    fn view<T>(&self, work: impl FnOnce(&mut World<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.turn(NOBODY, work)
    }

    /// One transaction of the database; an error undoes all of it.
    fn turn<T>(&self, sender: Address, work: impl FnOnce(&mut World<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let mut connection = self.inner.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let db = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (network, now) = (&self.inner.network, self.now());
        let value = work(&mut World { db: &db, network, sender, now, logs: Vec::new() })?;
        db.commit()?;
        Ok(value)
    }
}
