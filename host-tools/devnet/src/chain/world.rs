//! The chain's state in SQLite, and what one call may do to it.

use std::path::Path;

use blf_evidence::Address;
use rusqlite::{Connection, OptionalExtension as _};

use super::abi::{self, Token, Word};
use super::{Error, Network};
use crate::state::database;

/// Most entries of all tables together.
pub(super) const ENTRIES: i64 = 500_000;
/// Receipts kept; the oldest go first.
const RECEIPTS: i64 = 10_000;
/// Version of the tables, in SQLite's `user_version`.
const VERSION: i64 = 1;

/// `ciphertexts.id` is a handle without its last two bytes, which hold metadata.
const TABLES: &str = "
    CREATE TABLE ciphertexts (id BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID, STRICT;
    CREATE TABLE allowed (handle BLOB, account BLOB, PRIMARY KEY (handle, account)) WITHOUT ROWID, STRICT;
    CREATE TABLE prompt_keys (job BLOB PRIMARY KEY, high BLOB, low BLOB) WITHOUT ROWID, STRICT;
    CREATE TABLE output_keys (job BLOB PRIMARY KEY, high BLOB, low BLOB) WITHOUT ROWID, STRICT;
    CREATE TABLE accounts (address BLOB PRIMARY KEY, nonce BLOB) WITHOUT ROWID, STRICT;
    CREATE TABLE receipts (id INTEGER PRIMARY KEY, hash BLOB UNIQUE, block BLOB, receipt TEXT, looked INTEGER) STRICT;
    CREATE INDEX receipts_of_block ON receipts (block);
    CREATE TABLE chain (id INTEGER PRIMARY KEY, entries INTEGER, icl BLOB) STRICT;
    INSERT INTO chain VALUES (1, 0, NULL);
";

/// Which half of a pair of tables.
#[derive(Clone, Copy)]
pub(super) enum Keys {
    Prompt,
    Output,
}

/// A 128-bit plaintext. Development data that lies in the open in the database; without `Debug` all the same.
pub(crate) struct Plain(pub(crate) [u8; 16]);

/// A log entry of a call.
pub(super) struct Log {
    pub(super) address: Address,
    pub(super) topics: Vec<Word>,
    pub(super) data: Vec<u8>,
}

/// One call's view: the database, who calls and when, and what came of it.
pub(super) struct World<'a> {
    pub(super) db: &'a Connection,
    pub(super) network: &'a Network,
    pub(super) sender: Address,
    /// `block.timestamp`.
    pub(super) now: u64,
    pub(super) logs: Vec<Log>,
}

/// Opens or makes the database; `None` keeps it in memory.
pub(super) fn open(path: Option<&Path>) -> Result<Connection, crate::Error> {
    database(path, VERSION, TABLES)
}

impl Keys {
    fn table(self) -> &'static str {
        match self {
            Self::Prompt => "prompt_keys",
            Self::Output => "output_keys",
        }
    }
}

impl World<'_> {
    /// Keeps the plaintext of a ciphertext whose handles begin as `hash` does.
    pub(super) fn keep(&self, hash: Word, value: &Plain) -> Result<(), Error> {
        let id = &hash[..30];
        let added = self.db.execute("INSERT OR REPLACE INTO ciphertexts VALUES (?1, ?2)", (id, value.0))?;
        self.count(added)
    }

    /// The plaintext of a handle, if it was ever encrypted here.
    pub(super) fn plain(&self, handle: Word) -> Result<Option<Plain>, Error> {
        let id = &handle[..30];
        let mut statement = self.db.prepare_cached("SELECT value FROM ciphertexts WHERE id = ?1")?;
        Ok(statement.query_row([id], |row| row.get(0)).optional()?.map(Plain))
    }

    pub(super) fn is_allowed(&self, handle: Word, account: Address) -> Result<bool, Error> {
        let mut statement = self.db.prepare_cached("SELECT 1 FROM allowed WHERE handle = ?1 AND account = ?2")?;
        Ok(statement.exists((handle, account.0))?)
    }

    pub(super) fn allow(&self, handle: Word, account: Address) -> Result<(), Error> {
        let added = self.db.execute("INSERT OR IGNORE INTO allowed VALUES (?1, ?2)", (handle, account.0))?;
        self.count(added)
    }

    /// Both handles of a job's key.
    pub(super) fn key(&self, keys: Keys, job: Word) -> Result<Option<[Word; 2]>, Error> {
        let sql = format!("SELECT high, low FROM {} WHERE job = ?1", keys.table());
        let row = self.db.query_row(&sql, [job], |row| Ok([row.get(0)?, row.get(1)?]));
        Ok(row.optional()?)
    }

    pub(super) fn set_key(&self, keys: Keys, job: Word, [high, low]: [Word; 2]) -> Result<(), Error> {
        let sql = format!("INSERT OR REPLACE INTO {} VALUES (?1, ?2, ?3)", keys.table());
        let added = self.db.execute(&sql, (job, high, low))?;
        self.count(added)
    }

    /// The account that `onlyICL` lets through.
    pub(super) fn icl(&self) -> Result<Option<Address>, Error> {
        Ok(self.db.query_row("SELECT icl FROM chain", [], |row| row.get::<_, Option<[u8; 20]>>(0))?.map(Address))
    }

    pub(super) fn set_icl(&self, icl: Address) -> Result<(), Error> {
        self.db.execute("UPDATE chain SET icl = ?1", [icl.0])?;
        Ok(())
    }

    /// Transactions of an account so far.
    pub(super) fn nonce(&self, account: Address) -> Result<u64, Error> {
        let sql = "SELECT nonce FROM accounts WHERE address = ?1";
        let nonce = self.db.query_row(sql, [account.0], |row| row.get(0)).optional()?;
        Ok(nonce.map_or(0, u64::from_be_bytes))
    }

    pub(super) fn set_nonce(&self, account: Address, nonce: u64) -> Result<(), Error> {
        let added =
            self.db.execute("INSERT OR REPLACE INTO accounts VALUES (?1, ?2)", (account.0, nonce.to_be_bytes()))?;
        self.count(added)
    }

    /// A receipt by its transaction's hash, and how often it was looked at before.
    pub(super) fn receipt(&self, hash: Word) -> Result<Option<(String, u32)>, Error> {
        let sql = "UPDATE receipts SET looked = looked + 1 WHERE hash = ?1 RETURNING receipt, looked - 1";
        Ok(self.db.query_row(sql, [hash], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }

    pub(super) fn has_receipt(&self, hash: Word) -> Result<bool, Error> {
        Ok(self.db.prepare_cached("SELECT 1 FROM receipts WHERE hash = ?1")?.exists([hash])?)
    }

    pub(super) fn keep_receipt(&self, hash: Word, block: u64, receipt: &str) -> Result<(), Error> {
        self.db.execute("INSERT INTO receipts VALUES (NULL, ?1, ?2, ?3, 0)", (hash, block.to_be_bytes(), receipt))?;
        self.db.execute("DELETE FROM receipts WHERE id <= (SELECT max(id) FROM receipts) - ?1", [RECEIPTS])?;
        Ok(())
    }

    /// Hashes of a block's transactions, in their order.
    pub(super) fn transactions(&self, block: u64) -> Result<Vec<Word>, Error> {
        let mut statement = self.db.prepare_cached("SELECT hash FROM receipts WHERE block = ?1 ORDER BY id")?;
        let hashes = statement.query_map([block.to_be_bytes()], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(hashes)
    }

    /// Emits an event of the contract at `address`.
    pub(super) fn emit(&mut self, address: Address, event: &str, indexed: &[Word], data: &[Token<'_>]) {
        let topics = [&[alloy_primitives::keccak256(event).0], indexed].concat();
        self.logs.push(Log { address, topics, data: abi::encode(data) });
    }

    /// Counts what a statement wrote. A replaced row counts again: the bound is on work, too.
    fn count(&self, added: usize) -> Result<(), Error> {
        let sql = "UPDATE chain SET entries = entries + ?1 RETURNING entries";
        let added = i64::try_from(added).unwrap_or(i64::MAX);
        let entries: i64 = self.db.query_row(sql, [added], |row| row.get(0))?;
        if entries > ENTRIES { Err(Error::Full) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blf_evidence::UnixTime;

    use super::super::Chain;
    use super::*;

    fn chain() -> Chain {
        Chain::open(None, &crate::development::profile().unwrap(), Arc::new(|| UnixTime(1_795_165_688))).unwrap()
    }

    #[test]
    fn a_full_chain_takes_nothing_more() {
        let (chain, account) = (chain(), Address([5; 20]));
        let fill = "UPDATE chain SET entries = ?1";
        chain.view(|world| Ok(world.db.execute(fill, [ENTRIES - 1])?)).unwrap();
        chain.allow([1; 32], account).unwrap();
        assert!(matches!(chain.allow([2; 32], account), Err(Error::Full)));
        assert!(matches!(chain.encrypt(&Plain([1; 16])), Err(Error::Full)));
        assert_eq!([[1; 32], [2; 32]].map(|handle| chain.is_allowed(handle, account).unwrap()), [true, false]);
    }

    #[test]
    fn the_oldest_receipts_go_first() {
        let receipt = |count: i64| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&count.to_be_bytes());
            hash
        };
        chain()
            .view(|world| {
                for count in 0..=RECEIPTS {
                    world.keep_receipt(receipt(count), 1, "{}")?;
                }
                let kept = [0, 1, RECEIPTS].map(|count| world.has_receipt(receipt(count)));
                assert_eq!(kept.map(Result::unwrap), [false, true, true]);
                Ok(())
            })
            .unwrap();
    }
}
