//! What the host carries for a guest: documents in, telemetry and evidence out, and streams whose bytes it cannot read.
//!
//! ```text
//! 5005  documents.rs  host → guest: documents, nonce; guest → host: Evidence; host → guest: "drain and stop"
//! 5006  telemetry.rs  guest → host: typed events
//! 5007  dial.rs       guest → host: `blf/1 name:port`, then TLS bytes both ways
//! 5008  inbound.rs    host → guest: TLS bytes both ways (a module beside this one)
//! ```
//!
//! The guest may be hostile too: lines, frames, streams, rates and waits are bounded, and what exceeds a bound is
//! counted and dropped.

mod dial;
mod documents;
mod telemetry;

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

pub use dial::{DialPolicy, Gate, Limits, Resolve, ResolveError, serve_dials};
pub(crate) use dial::{carry, reach};
pub use documents::{DocumentsError, STOP, Session, offer};
pub use telemetry::{FLOOD_BURST, FLOOD_PER_SECOND, serve_telemetry};

/// What was carried and what was dropped, for one VM.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes from the guest to the network.
    bytes_up: AtomicU64,
    /// Bytes from the network to the guest.
    bytes_down: AtomicU64,
    /// Streams connected.
    streams: AtomicU64,
    /// Dials refused because the tunnel was not open yet.
    dials_early: AtomicU64,
    /// Dials to a name that is not on the allow-list.
    dials_forbidden: AtomicU64,
    /// Lines that are no dial, or came too late.
    dials_malformed: AtomicU64,
    /// Streams closed at once because there were too many.
    dials_surplus: AtomicU64,
    /// Dials to an allowed name that nobody answered.
    dials_unreachable: AtomicU64,
    /// Streams led in.
    inbound: AtomicU64,
    /// Streams from outside that were one too many, or that the guest did not take.
    inbound_refused: AtomicU64,
    /// Telemetry events taken.
    events: AtomicU64,
    /// Telemetry lines that are no event, or too long.
    events_unknown: AtomicU64,
    /// Telemetry lines beyond the rate.
    events_surplus: AtomicU64,
}

/// [`Counters`] at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the members of Counters")]
pub struct Counts {
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub streams: u64,
    pub dials_early: u64,
    pub dials_forbidden: u64,
    pub dials_malformed: u64,
    pub dials_surplus: u64,
    pub dials_unreachable: u64,
    pub inbound: u64,
    pub inbound_refused: u64,
    pub events: u64,
    pub events_unknown: u64,
    pub events_surplus: u64,
}

impl Counters {
    /// The counts now.
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            bytes_up: get(&self.bytes_up),
            bytes_down: get(&self.bytes_down),
            streams: get(&self.streams),
            dials_early: get(&self.dials_early),
            dials_forbidden: get(&self.dials_forbidden),
            dials_malformed: get(&self.dials_malformed),
            dials_surplus: get(&self.dials_surplus),
            dials_unreachable: get(&self.dials_unreachable),
            inbound: get(&self.inbound),
            inbound_refused: get(&self.inbound_refused),
            events: get(&self.events),
            events_unknown: get(&self.events_unknown),
            events_surplus: get(&self.events_surplus),
        }
    }

    /// A stream was led in.
    pub(crate) fn inbound(&self) {
        count(&self.inbound, 1);
    }

    /// A stream was not led in.
    pub(crate) fn inbound_refused(&self) {
        count(&self.inbound_refused, 1);
    }
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Reads up to and including a newline, a byte at a time so that nothing after it is taken. `None` when the stream
/// ends first or `cap` bytes hold no newline.
pub(crate) async fn read_line(stream: &mut (impl AsyncRead + Unpin), cap: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::with_capacity(64);
    while line.len() < cap {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        line.extend_from_slice(&byte);
        if byte == *b"\n" {
            return Ok(Some(line));
        }
    }
    Ok(None)
}
