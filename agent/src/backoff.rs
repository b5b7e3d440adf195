//! How long to wait: full jitter, so that a thousand nodes do not come back in the same second.

use std::time::Duration;

/// Delays between attempts at one thing that fails.
#[derive(Clone, Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    failures: u32,
}

/// Longest wait that the other side may ask for.
pub const ASKED: Duration = Duration::from_secs(300);

impl Backoff {
    /// Waits at least `least` and at most `most` between two attempts.
    pub fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, failures: 0 }
    }

    /// The delay after another failure: uniform between the least and a limit that doubles each time (full jitter). What
    /// the other side asked for (`Retry-After`) is honoured up to [`ASKED`], and spread.
    pub fn failed(&mut self, asked: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let limit = self.least.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.most);
        // Without an atom at the least: half of a fleet would come back together.
        let delay = self.least + below(limit.saturating_sub(self.least));
        let asked = asked.map(|asked| asked.min(ASKED) + below(self.least));
        delay.max(asked.unwrap_or_default())
    }

    /// Forgets the failures; true if there were any.
    pub fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

/// `period`, at random up to a fifth longer or shorter.
pub fn jitter(period: Duration) -> Duration {
    period.mul_f64(0.8) + below(period.mul_f64(0.4))
}

/// Uniform in `[0, limit)`.
pub fn below(limit: Duration) -> Duration {
    // Without randomness there is no spreading, only the longest wait.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    limit.mul_f64(f64::from(random) / 4_294_967_296.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_within_bounds() {
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(300));
        let mut backoff = Backoff::new(least, most);
        for failures in 1..100_u32 {
            let limit = Duration::from_secs(1 << failures.min(9)).min(most);
            let delay = backoff.failed(None);
            assert!((least..=limit).contains(&delay), "{failures}: {delay:?}");
        }
        assert!(backoff.succeeded() && !backoff.succeeded());
        assert!(backoff.failed(None) <= Duration::from_secs(2));
    }

    #[test]
    fn no_two_nodes_come_back_together() {
        let first = || Backoff::new(Duration::from_secs(60), Duration::from_secs(300)).failed(None);
        let delays: std::collections::BTreeSet<_> = (0..64).map(|_| first()).collect();
        assert!(delays.len() > 60, "{delays:?}");
    }

    #[test]
    fn honours_what_was_asked_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        let asked = Duration::from_secs(120);
        let delay = backoff.failed(Some(asked));
        assert!((asked..=asked + Duration::from_secs(1)).contains(&delay), "{delay:?}");
        assert!(backoff.failed(Some(Duration::from_secs(1_000_000))) <= ASKED + Duration::from_secs(1));
        // However soon it would ask by itself.
        let mut probe = Backoff::new(Duration::from_secs(1), Duration::from_secs(25));
        assert!(probe.failed(Some(asked)) >= asked);
    }

    #[test]
    fn spreads() {
        let delays: Vec<_> = (0..64).map(|_| jitter(Duration::from_secs(5))).collect();
        assert!(delays.iter().all(|d| (Duration::from_secs(4)..Duration::from_secs(6)).contains(d)));
        assert!(
            delays.iter().any(|d| *d < Duration::from_secs(5)) && delays.iter().any(|d| *d > Duration::from_secs(5))
        );
    }
}
