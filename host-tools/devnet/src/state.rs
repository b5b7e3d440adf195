//! State in SQLite: everything that must survive a restart of the devnet.
//!
//! Write-ahead log with `synchronous=FULL`: what was answered is on disk. One connection, one transaction a request,
//! off the async threads; no second process may open it. Addresses, digests and documents are stored as the text they have on the wire.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use blf_evidence::UnixTime;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::broadcast;

use crate::event::{Event, EventKind};
use crate::refusal::{Refused, Result};
use crate::{Error, Settings};

/// Tables and their version, which is SQLite's `user_version`.
pub(crate) struct Schema {
    pub(crate) version: i64,
    pub(crate) tables: &'static str,
}

/// The blob store's, in every mode.
const BLOBS: &str = "
    CREATE TABLE blobs (cid TEXT PRIMARY KEY, bytes BLOB, length INTEGER, pinned_at INTEGER) STRICT;
";

/// A strict coordinator's.
pub(crate) const STRICT: Schema = Schema {
    version: 2,
    tables: "
    CREATE TABLE nonces (address TEXT, nonce TEXT, time INTEGER, PRIMARY KEY (address, nonce)) WITHOUT ROWID, STRICT;
    CREATE TABLE challenges (id TEXT PRIMARY KEY, node TEXT, nonce TEXT, expires_at INTEGER) STRICT;
    CREATE TABLE enrolments (id TEXT PRIMARY KEY, node TEXT, ak_public BLOB, secret BLOB, expires_at INTEGER) STRICT;
    CREATE TABLE nodes (address TEXT PRIMARY KEY, seen_at INTEGER, stopping INTEGER) STRICT;
    CREATE TABLE certificates (serial INTEGER PRIMARY KEY, node TEXT, certificate TEXT, not_after INTEGER,
        models TEXT, evidence TEXT, taken_at INTEGER) STRICT;
    CREATE INDEX certificates_of_node ON certificates (node, serial);
    CREATE TABLE evidence_requests (id TEXT PRIMARY KEY, user TEXT, node TEXT, nonce TEXT, expires_at INTEGER,
        shown_at INTEGER, evidence TEXT, taken_at INTEGER) STRICT;
    CREATE INDEX evidence_requests_of_node ON evidence_requests (node, expires_at);
    CREATE TABLE jobs (id TEXT PRIMARY KEY, user TEXT, live INTEGER, ended_at INTEGER, document TEXT) STRICT;
    CREATE INDEX jobs_live ON jobs (live, user);
    CREATE TABLE seats (job TEXT, node TEXT, PRIMARY KEY (node, job)) WITHOUT ROWID, STRICT;
    CREATE INDEX seats_of_job ON seats (job);
",
};

/// The database, shared by all connections.
#[derive(Clone)]
pub(crate) struct State {
    connection: Arc<Mutex<Connection>>,
    settings: Arc<Settings>,
    events: broadcast::Sender<Event>,
}

/// One request's view: a transaction, the time, and what is to be told once the transaction stands.
pub(crate) struct Turn<'a> {
    pub(crate) tx: &'a Transaction<'a>,
    pub(crate) now: UnixTime,
    pub(crate) settings: &'a Settings,
    events: Vec<EventKind>,
}

impl Turn<'_> {
    /// Tells `event` after the commit.
    pub(crate) fn tell(&mut self, event: EventKind) {
        self.events.push(event);
    }
}

impl State {
    /// Opens or makes the database; `None` keeps it in memory.
    pub(crate) fn open(
        path: Option<&Path>,
        schema: &Schema,
        settings: Arc<Settings>,
        events: broadcast::Sender<Event>,
    ) -> std::result::Result<Self, Error> {
        let connection = database(path, schema.version, &format!("{BLOBS} {}", schema.tables))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), settings, events })
    }

    /// Runs `work` in one transaction on a blocking thread; a refusal undoes all of it.
    pub(crate) async fn turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Turn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let state = self.clone();
        let turn = tokio::task::spawn_blocking(move || state.blocking_turn(work)).await;
        turn.unwrap_or_else(|_| Err(Refused::internal("state: the request was abandoned")))
    }

    fn blocking_turn<T>(&self, work: impl FnOnce(&mut Turn<'_>) -> Result<T>) -> Result<T> {
        // A panic in another turn rolled its transaction back, so the connection itself is sound.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let now = (self.settings.clock)();
        let mut turn = Turn { tx: &tx, now, settings: &self.settings, events: Vec::new() };
        let value = work(&mut turn)?;
        let events = turn.events;
        tx.commit()?;
        for kind in events {
            self.tell(kind, now);
        }
        Ok(value)
    }

    /// Tells the operator of a refusal that is our own fault.
    pub(crate) fn tell_fault(&self, refused: &Refused) {
        if refused.is_fault() {
            self.tell(EventKind::Fault { detail: refused.detail.clone() }, (self.settings.clock)());
        }
    }

    /// Nobody need listen.
    fn tell(&self, kind: EventKind, time: UnixTime) {
        let _ = self.events.send(Event { time, kind });
    }
}

/// Opens a database, or makes it with these tables; `None` keeps it in memory.
pub(crate) fn database(path: Option<&Path>, wanted: i64, tables: &str) -> std::result::Result<Connection, Error> {
    let connection = path.map_or_else(Connection::open_in_memory, Connection::open).map_err(Error::State)?;
    connection
        .execute_batch("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA trusted_schema=OFF;")
        .map_err(Error::State)?;
    match connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(Error::State)? {
        0 => connection
            .execute_batch(&format!("BEGIN; {tables} PRAGMA user_version={wanted}; COMMIT;"))
            .map_err(Error::State)?,
        got if got == wanted => {}
        got => return Err(Error::StateVersion { wanted, got }),
    }
    Ok(connection)
}

/// A time as SQLite's integer. Exact: no time exceeds 2^53.
pub(crate) fn sql(time: UnixTime) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// SQLite's integer as a time.
pub(crate) fn time(value: i64) -> UnixTime {
    UnixTime(u64::try_from(value).unwrap_or(0))
}

/// Text that this crate wrote, read back.
pub(crate) fn parse<T: std::str::FromStr>(text: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e| Refused::internal(format!("state: {e}")))
}
