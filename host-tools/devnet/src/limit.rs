//! Token buckets, one for each caller, in memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Buckets kept; beyond it the full ones are dropped first (a full bucket says nothing).
const CALLERS: usize = 10_000;

/// How often one caller may ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests at once.
    pub burst: u32,
    /// Requests per second in the long run, at least 1.
    pub per_second: u32,
}

/// Buckets of callers named by `K`.
pub(crate) struct Limiter<K> {
    rate: Rate,
    buckets: HashMap<K, (f64, Instant)>,
}

impl<K: Eq + Hash> Limiter<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, buckets: HashMap::new() }
    }

    /// Takes one token of `caller`, or says after how many seconds there will be one.
    pub(crate) fn take(&mut self, caller: K, now: Instant) -> Result<(), u64> {
        let (burst, per_second) = (f64::from(self.rate.burst), f64::from(self.rate.per_second.max(1)));
        let filled = |(tokens, at): (f64, Instant)| {
            let idle = now.checked_duration_since(at).unwrap_or(Duration::ZERO);
            (tokens + idle.as_secs_f64() * per_second).min(burst)
        };
        if self.buckets.len() >= CALLERS && !self.buckets.contains_key(&caller) {
            self.buckets.retain(|_, bucket| filled(*bucket) < burst);
            if self.buckets.len() >= CALLERS {
                return Err(1);
            }
        }
        let bucket = self.buckets.entry(caller).or_insert((burst, now));
        *bucket = (filled(*bucket), now);
        if bucket.0 < 1.0 {
            return Err(1); // at least one token a second comes in
        }
        bucket.0 -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_does_not_slow_another() {
        let mut limiter = Limiter::new(Rate { burst: 2, per_second: 1 });
        let now = Instant::now();
        assert_eq!([(); 3].map(|()| limiter.take("a", now)), [Ok(()), Ok(()), Err(1)]);
        assert_eq!(limiter.take("b", now), Ok(()));
        let later = now + Duration::from_secs(1);
        assert_eq!([(); 2].map(|()| limiter.take("a", later)), [Ok(()), Err(1)]);
        let much_later = now + Duration::from_secs(100);
        assert_eq!([(); 3].map(|()| limiter.take("a", much_later)), [Ok(()), Ok(()), Err(1)]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut limiter = Limiter::new(Rate { burst: 2, per_second: 1 });
        let now = Instant::now();
        for caller in 0..CALLERS {
            limiter.take(caller, now).unwrap();
        }
        assert_eq!(limiter.take(CALLERS, now), Err(1));
        assert_eq!(limiter.take(CALLERS, now + Duration::from_secs(2)), Ok(()));
        assert_eq!(limiter.buckets.len(), 1);
    }
}
