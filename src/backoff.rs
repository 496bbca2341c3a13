//! When the next attempt begins: exponential backoff with full jitter.
//!
//! ```text
//!     Fresh ── an attempt failed, or a link was lost ──► Failing(1) ──► Failing(2) ──► …
//!       ▲                                                    │
//!       └───────────── a link held for `stable` ─────────────┘
//! ```
//!
//! Each delay is random between 0 and a bound that doubles, so that a fleet whose broker restarts does
//! not come back as one. A link that breaks before it was stable counts as a failure too: "accepted,
//! then kicked" backs off.

use std::time::Duration;

use crate::options::Retry;

/// Above this many doublings the bound is at its longest whatever the first one was.
const DOUBLINGS: u32 = 20;

/// The delays of one client.
#[derive(Debug)]
pub(crate) struct Backoff {
    retry: Retry,
    random: fastrand::Rng,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(retry: Retry, seed: Option<u64>) -> Self {
        let random = seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self {
            retry,
            random,
            failures: 0,
        }
    }

    /// A link has ended after it had held for this long.
    pub(crate) fn link_ended(&mut self, held: Duration) {
        if held >= self.retry.stable {
            self.failures = 0;
        }
    }

    /// The delay before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        let bound = self
            .retry
            .first
            .saturating_mul(1 << self.failures.min(DOUBLINGS))
            .min(self.retry.longest);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(self.random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(60),
        stable: Duration::from_secs(10),
    };

    #[test]
    fn the_bound_doubles_to_the_longest_and_the_delay_fills_it() {
        for (nth, bound) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
            let delays: Vec<_> = (0..200)
                .map(|seed| {
                    let mut backoff = Backoff::new(RETRY, Some(seed));
                    (0..nth).for_each(|_| {
                        backoff.next();
                    });
                    backoff.next().as_secs_f64() / f64::from(bound)
                })
                .collect();
            assert!(delays.iter().all(|share| (0.0..=1.0).contains(share)));
            let mean = delays.iter().sum::<f64>() / 200.0;
            assert!((0.4..0.6).contains(&mean), "{mean}");
        }
    }

    #[test]
    fn only_a_stable_link_starts_over() {
        let mut backoff = Backoff::new(RETRY, Some(1));
        (0..10).for_each(|_| {
            backoff.next();
        });
        backoff.link_ended(Duration::from_secs(9));
        assert_eq!(backoff.failures, 10);
        backoff.link_ended(Duration::from_secs(10));
        assert_eq!(backoff.failures, 0);
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let delays = |seed| {
            let mut backoff = Backoff::new(RETRY, Some(seed));
            (0..5).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        assert_eq!(delays(3), delays(3));
        assert_ne!(delays(3), delays(4));
    }
}
