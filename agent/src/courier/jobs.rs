//! The jobs at hand: each its own task, at most so many, each job once, all awaited.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use blf_evidence::job::Role;
use blf_evidence::telemetry::Event;
use blf_evidence::{Hex, icl};
use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use super::job;
#[cfg(not(feature = "production"))]
use super::legacy;
use crate::assignment::{Assignment, Seen};
use crate::daemon::{DaemonError, Node};
use crate::telemetry::closed;
use crate::tunnel::Tunnel;

/// The jobs at hand.
pub(crate) struct Jobs<T> {
    node: Arc<Node<T>>,
    /// True where its job may be taken again.
    tasks: JoinSet<bool>,
    /// Which job a task is about.
    names: HashMap<task::Id, Hex<32>>,
    seen: Seen<Hex<32>>,
    stop: watch::Receiver<bool>,
    hand_back: watch::Sender<bool>,
    panicked: Option<Instant>,
}

/// A job that the ICL offers.
pub(crate) enum Offer {
    /// By the strict protocol.
    Strict(icl::Assignment),
    /// By the existing network.
    #[cfg(not(feature = "production"))]
    Legacy(crate::legacy::wire::Assignment),
}

/// Jobs remembered, so that each is done once.
const REMEMBERED: usize = 4096;
/// Two panics in this time end the node.
const PANICS: Duration = Duration::from_secs(60);

impl<T: Tunnel> Jobs<T> {
    /// None yet; `stop` forbids claims.
    pub(crate) fn new(node: Arc<Node<T>>, stop: watch::Receiver<bool>) -> Self {
        Self {
            node,
            tasks: JoinSet::new(),
            names: HashMap::new(),
            seen: Seen::new(REMEMBERED),
            stop,
            hand_back: watch::Sender::new(false),
            panicked: None,
        }
    }

    /// Starts a job that is new, while there is room; the ICL shows one again that finds none. True for a new one.
    pub(crate) fn take(&mut self, offer: Offer) -> bool {
        let job = offer.job();
        if self.tasks.len() >= usize::from(self.node.identity.max_jobs) || !self.seen.insert(job) {
            return false;
        }
        let (node, stop, hand_back) = (Arc::clone(&self.node), self.stop.clone(), self.hand_back.subscribe());
        match offer {
            Offer::Strict(wire) => match Assignment::accept(wire, &node.identity.models, node.clock.now()) {
                // Its answer could be stored nowhere.
                Ok(leads) if leads.role() == Role::Leader && node.identity.pinning_token.is_empty() => {
                    self.failed(job, "NO_PINNING_TOKEN");
                }
                Ok(assignment) => self.spawn(job, async move {
                    job::work(node, assignment, stop, hand_back).await;
                    false
                }),
                Err(error) => self.failed(job, error.code()),
            },
            #[cfg(not(feature = "production"))]
            Offer::Legacy(assignment) => match legacy::job::judge(&node, &assignment) {
                Ok(()) => self.spawn(job, legacy::job::work(node, assignment, stop, hand_back)),
                Err(code) => self.failed(job, code),
            },
        }
        true
    }

    /// Waits for a task to end; for ever, while there is none.
    ///
    /// # Errors
    /// [`DaemonError::Panics`]: one panic ends its job only, a second one within a minute the node.
    pub(crate) async fn ended(&mut self) -> Result<(), DaemonError> {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.settle(ended),
            None => std::future::pending().await,
        }
    }

    /// Waits for all jobs; at the deadline they are handed back, and what is then left is dropped.
    pub(crate) async fn drain(&mut self) {
        let node = Arc::clone(&self.node);
        node.telemetry.say(Event::Stopping { jobs: node.jobs.load(Ordering::Relaxed) });
        if timeout(node.timings.drain, self.all()).await.is_err() {
            self.hand_back.send_replace(true);
            // Each may hand back, then have the vault forget.
            drop(timeout(node.timings.hand_back * 2, self.all()).await);
            self.tasks.shutdown().await;
        }
    }

    async fn all(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            // Even after two panics: the node ends anyway.
            drop(self.settle(ended));
        }
    }

    fn spawn(&mut self, job: Hex<32>, work: impl Future<Output = bool> + Send + 'static) {
        let task = self.tasks.spawn(work);
        self.names.insert(task.id(), job);
        self.count();
    }

    fn settle(&mut self, ended: Result<(task::Id, bool), JoinError>) -> Result<(), DaemonError> {
        let (id, again, panicked) = match &ended {
            Ok((id, again)) => (*id, *again, false),
            Err(error) => (error.id(), false, error.is_panic()),
        };
        let job = self.names.remove(&id);
        self.count();
        if let (Some(job), true) = (&job, again) {
            self.seen.remove(job);
        }
        if !panicked {
            return Ok(());
        }
        if let Some(job) = job {
            self.failed(job, "JOB_PANICKED");
            let node = Arc::clone(&self.node);
            self.spawn(job, async move {
                job::clean_up(node, job).await;
                false
            });
        }
        match self.panicked.replace(Instant::now()) {
            Some(before) if before.elapsed() < PANICS => Err(DaemonError::Panics(PANICS)),
            _ => Ok(()),
        }
    }

    fn failed(&self, job: Hex<32>, code: &str) {
        if let Some(code) = closed(code) {
            self.node.telemetry.say(Event::JobFailed { job, code });
        }
    }

    fn count(&self) {
        self.node.jobs.store(u8::try_from(self.tasks.len()).unwrap_or(u8::MAX), Ordering::Relaxed);
    }
}

impl Offer {
    fn job(&self) -> Hex<32> {
        match self {
            Self::Strict(wire) => wire.job_id,
            #[cfg(not(feature = "production"))]
            Self::Legacy(assignment) => assignment.job.digest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::tests::node;

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_its_job_only_and_a_second_one_the_node() {
        let (_stopping, stop) = watch::channel(false);
        let mut jobs = Jobs::new(node(), stop);
        jobs.spawn(Hex([1; 32]), std::future::pending());
        jobs.spawn(Hex([2; 32]), async { panic!("a bug") });
        jobs.ended().await.unwrap();
        assert_eq!(jobs.node.jobs.load(Ordering::Relaxed), 2, "one goes on, the other is handed back");
        assert!(jobs.names.values().any(|job| *job == Hex([2; 32])));
        // Handing back, in vain: there is no ICL and no vault.
        jobs.ended().await.unwrap();
        assert_eq!(jobs.names.values().collect::<Vec<_>>(), [&Hex([1; 32])]);
        tokio::time::sleep(PANICS * 2).await;
        jobs.spawn(Hex([3; 32]), async { panic!("a bug") });
        jobs.ended().await.unwrap();
        jobs.spawn(Hex([4; 32]), async { panic!("a bug") });
        assert!(matches!(jobs.ended().await, Err(DaemonError::Panics(_))));
    }
}
