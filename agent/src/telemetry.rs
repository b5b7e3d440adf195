//! Events on their way to the host: a bounded queue that never makes anyone wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blf_evidence::telemetry::{Code, Event};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::backoff::Backoff;
use crate::tunnel::{Egress, Tunnel};

/// Takes events. Cheap to clone.
#[derive(Clone, Default)]
pub struct Telemetry(Arc<Queue>);

#[derive(Default)]
struct Queue {
    events: Mutex<VecDeque<Event>>,
    lost: AtomicU64,
    pushed: Notify,
    emptied: Notify,
}

/// Events kept while nobody listens; the oldest go first.
const EVENTS: usize = 256;
/// A line that the host does not take within this time breaks the connection.
const WRITE: Duration = Duration::from_secs(10);

impl Telemetry {
    /// Queues an event; drops the oldest if there are too many.
    pub fn say(&self, event: Event) {
        let mut events = self.lock();
        if events.len() >= EVENTS {
            events.pop_front();
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        events.push_back(event);
        drop(events);
        self.0.pushed.notify_one();
    }

    /// Says that something went wrong outside a job, and when it is tried again.
    pub fn trouble(&self, code: &str, retry_in: Duration) {
        if let Some(code) = closed(code) {
            self.say(Event::Trouble { code, retry_in: retry_in.as_secs() });
        }
    }

    /// How many events were dropped so far.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Waits until all events are with the host.
    pub async fn delivered(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            if self.lock().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Hands the events to whoever collects them, for ever; connects again with growing delays, at most `most`.
    pub async fn deliver<T: Tunnel>(self, egress: Arc<Egress<T>>, most: Duration) {
        let mut backoff = Backoff::new(Duration::from_secs(1).min(most), most);
        let mut told = 0;
        loop {
            if let Ok(stream) = egress.telemetry().await {
                backoff.succeeded();
                self.write(stream, &mut told).await;
            }
            tokio::time::sleep(backoff.failed(None)).await;
        }
    }

    /// Writes events until the stream fails.
    async fn write(&self, mut stream: impl AsyncWrite + Unpin, told: &mut u64) {
        loop {
            let pushed = self.0.pushed.notified();
            // The event stays in the queue until it is written: a broken stream loses none that it did not take.
            let Some(next) = self.lock().front().cloned() else {
                self.0.emptied.notify_waiters();
                pushed.await;
                continue;
            };
            let lost = self.lost();
            if lost > *told
                && let Some(code) = closed("EVENTS_LOST")
                && !line(&mut stream, &Event::Trouble { code, retry_in: 0 }).await
            {
                return;
            }
            *told = lost;
            if !line(&mut stream, &next).await {
                return;
            }
            // Unless it was the oldest of too many meanwhile.
            if self.lost() == lost {
                self.lock().pop_front();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Event>> {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `code` as a closed word. One that is none, from an ICL that says more than it should, is not repeated.
pub fn closed(code: &str) -> Option<Code> {
    Code::new(code).or_else(|_| Code::new("UNNAMED")).ok()
}

async fn line(stream: &mut (impl AsyncWrite + Unpin), event: &Event) -> bool {
    let Ok(mut line) = event.to_line() else { return true };
    line.push('\n');
    let write = async {
        stream.write_all(line.as_bytes()).await?;
        stream.flush().await
    };
    matches!(tokio::time::timeout(WRITE, write).await, Ok(Ok(())))
}
