//! Telemetry: one typed event a line, from a guest that may send anything.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use blf_evidence::telemetry::{EVENT_CAP, Event};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Counters, count};
use crate::vsock::{Listener, Stream};

/// Events that are taken at once before the rate counts.
pub const FLOOD_BURST: u32 = 256;
/// Events a second that are taken for long.
pub const FLOOD_PER_SECOND: u32 = 32;

/// Serves the telemetry of one VM, a connection at a time, until the listener fails or nobody wants the events.
///
/// Lines that are no event, lines that are too long and lines beyond the rate are counted and dropped; the connection
/// is read on all the same, so that a guest never blocks on its telemetry.
///
/// # Errors
/// Those of the listener.
pub async fn serve_telemetry(
    mut listener: Listener,
    events: mpsc::Sender<Event>,
    counters: Arc<Counters>,
) -> io::Result<()> {
    let mut bucket = Bucket { tokens: FLOOD_BURST, refilled: Instant::now() };
    loop {
        let stream = listener.accept().await?;
        if !read_events(stream, &events, &counters, &mut bucket).await {
            return Ok(());
        }
    }
}

/// Reads one connection to its end. False when nobody wants the events any more.
async fn read_events(stream: Stream, events: &mpsc::Sender<Event>, counters: &Counters, bucket: &mut Bucket) -> bool {
    let mut reader = BufReader::with_capacity(4096, stream);
    let mut line = Vec::with_capacity(EVENT_CAP);
    // Set while the rest of a line that is too long goes by.
    let mut overlong = false;
    loop {
        let Ok(chunk @ [_, ..]) = reader.fill_buf().await else { return true };
        let end = chunk.iter().position(|b| *b == b'\n');
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        let taken = part.len() + usize::from(end.is_some());
        overlong |= line.len() + part.len() > EVENT_CAP;
        if !overlong {
            line.extend_from_slice(part);
        }
        reader.consume(taken);
        if end.is_none() {
            continue;
        }
        match Event::parse(&line).ok().filter(|_| !overlong) {
            None => count(&counters.events_unknown, 1),
            Some(_) if !bucket.take() => count(&counters.events_surplus, 1),
            // A full queue means a host that is behind: the guest does not wait for it.
            Some(event) => match events.try_send(event) {
                Ok(()) => count(&counters.events, 1),
                Err(mpsc::error::TrySendError::Full(_)) => count(&counters.events_surplus, 1),
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
            },
        }
        line.clear();
        overlong = false;
    }
}

struct Bucket {
    tokens: u32,
    refilled: Instant,
}

impl Bucket {
    fn take(&mut self) -> bool {
        let each = Duration::from_secs(1) / FLOOD_PER_SECOND;
        let due = u32::try_from(self.refilled.elapsed().as_nanos() / each.as_nanos()).unwrap_or(u32::MAX);
        if due > 0 {
            self.tokens = self.tokens.saturating_add(due).min(FLOOD_BURST);
            self.refilled = Instant::now();
        }
        self.tokens.checked_sub(1).map(|left| self.tokens = left).is_some()
    }
}
