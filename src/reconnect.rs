//! Whether to connect again, and when: exponential backoff with full jitter.
//!
//! ```text
//!     Fresh ── an attempt failed, or a link was lost ──► Failing(1) ──► Failing(2) ──► …
//!       ▲                                                    │
//!       └───────────── a link held for `stable` ─────────────┘
//! ```
//!
//! Each delay is random between 0 and a bound that doubles, so that a fleet whose broker restarts does
//! not come back as one. A broker that says that it is overloaded gets a long delay at once. A link that breaks
//! before it was stable counts as a failure too: "accepted, then kicked" backs off.

use std::time::Duration;

use crate::error::Error;
use crate::options::{GiveUp, Retry};
use crate::prospect::Prospect;

/// Above this many doublings the bound is at its longest whatever the first one was.
const DOUBLINGS: u32 = 20;

/// What is doubled at least, where the options begin with no delay at all.
const FLOOR: Duration = Duration::from_millis(1);

/// Decides for one client.
pub(crate) struct Reconnect {
    retry: Retry,
    give_up: Option<GiveUp>,
    random: fastrand::Rng,
    /// Attempts in a row that failed.
    attempts: u32,
    /// Those, and links in a row that broke before they were stable.
    failures: u32,
    /// The first failure of this round that may heal by itself.
    passing: Option<Error>,
}

/// What becomes of a client whose link or attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It connects again after this delay.
    After(Duration),
    /// The user said that it is enough.
    GiveUp,
}

impl Decision {
    /// The delay, if there is another attempt.
    pub(crate) fn delay(self) -> Option<Duration> {
        match self {
            Self::After(delay) => Some(delay),
            Self::GiveUp => None,
        }
    }
}

impl Reconnect {
    pub(crate) fn new(retry: Retry, give_up: Option<GiveUp>, random: fastrand::Rng) -> Self {
        Self {
            retry,
            give_up,
            random,
            attempts: 0,
            failures: 0,
            passing: None,
        }
    }

    /// Attempts in a row that failed.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// A connection has ended, whoever wanted it, that had held for this long.
    pub(crate) fn connection_ended(&mut self, held: Duration) {
        self.attempts = 0;
        self.passing = None;
        if held >= self.retry.stable {
            self.failures = 0;
        }
    }

    /// The link was lost.
    pub(crate) fn link_lost(&mut self, error: &Error) -> Decision {
        self.decide(error)
    }

    /// One of several ways has failed, and another one is tried.
    pub(crate) fn way_failed(&mut self, error: &Error) {
        if !error.is_permanent() {
            self.passing.get_or_insert_with(|| error.clone());
        }
    }

    /// Every way has failed: returns the failure that stands for them all. As long as one may heal by itself,
    /// trying again can help, even if it does not at the last one: a stranger's web server on port 443 must
    /// not make a device give up a broker that is only down.
    pub(crate) fn round_failed(&mut self, last: Error) -> Error {
        match self.passing.take() {
            Some(passing) if last.is_permanent() => passing,
            Some(_) | None => last,
        }
    }

    /// The broker has sent us on, so there is somewhere to go, however permanent its reason.
    pub(crate) fn sent_on(&mut self) -> Decision {
        Decision::After(self.next_delay())
    }

    /// An attempt to connect has failed.
    pub(crate) fn attempt_failed(&mut self, error: &Error) -> Decision {
        self.attempts = self.attempts.saturating_add(1);
        self.decide(error)
    }

    fn decide(&mut self, error: &Error) -> Decision {
        match &self.give_up {
            Some(give_up) if give_up(error, self.attempts) => Decision::GiveUp,
            Some(_) | None => Decision::After(match error.prospect() {
                Prospect::Reconnect | Prospect::CannotHeal => self.next_delay(),
                Prospect::BackOff => self.long_delay(),
            }),
        }
    }

    fn next_delay(&mut self) -> Duration {
        let doublings = self.failures.min(DOUBLINGS);
        self.failures = self.failures.saturating_add(1);
        // Doubled, nothing stays nothing: without a floor a broker that is gone would be tried without a break.
        let first = match doublings {
            0 => self.retry.first,
            _ => self.retry.first.max(FLOOR),
        };
        let bound = first.saturating_mul(1 << doublings).min(self.retry.longest);
        bound.mul_f64(self.random.f64())
    }

    /// The broker wants to be left alone: at least half of the longest delay, and as random.
    fn long_delay(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let half = self.retry.longest / 2;
        half + half.mul_f64(self.random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Doing, ErrorKind};

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
                    let mut reconnect = Reconnect::new(RETRY, None, fastrand::Rng::with_seed(seed));
                    (0..nth).for_each(|_| {
                        reconnect.next_delay();
                    });
                    reconnect.next_delay().as_secs_f64() / f64::from(bound)
                })
                .collect();
            assert!(delays.iter().all(|share| (0.0..=1.0).contains(share)));
            let mean = delays.iter().sum::<f64>() / 200.0;
            assert!((0.4..0.6).contains(&mean), "{mean}");
        }
    }

    #[test]
    fn without_a_first_delay_the_later_ones_grow_all_the_same() {
        let retry = Retry {
            first: Duration::ZERO,
            ..RETRY
        };
        let mut reconnect = Reconnect::new(retry, None, fastrand::Rng::with_seed(1));
        assert_eq!(reconnect.next_delay(), Duration::ZERO);
        let delays: Vec<_> = (0..30).map(|_| reconnect.next_delay()).collect();
        assert!(delays[0] <= 2 * FLOOR, "{delays:?}");
        let longest = delays.iter().max().expect("there are some");
        assert!(*longest > RETRY.longest / 4, "{delays:?}");
        assert!(*longest <= RETRY.longest, "{delays:?}");
    }

    #[test]
    fn only_a_stable_link_starts_over() {
        let mut reconnect = Reconnect::new(RETRY, None, fastrand::Rng::with_seed(1));
        (0..10).for_each(|_| {
            reconnect.next_delay();
        });
        let lost = Error::new(ErrorKind::LinkLost, Doing::Connected);
        reconnect.connection_ended(Duration::from_secs(9));
        reconnect.link_lost(&lost);
        assert_eq!(reconnect.failures, 11);
        reconnect.connection_ended(Duration::from_secs(10));
        reconnect.link_lost(&lost);
        assert_eq!(reconnect.failures, 1);
    }

    #[test]
    fn a_broker_that_is_overloaded_is_left_alone_for_long() {
        let kind = ErrorKind::Refused {
            reason: crate::reason::Reason::SERVER_BUSY,
            filter: None,
            text: None,
        };
        let busy = Error::new(kind, Doing::Connecting);
        for seed in 0..200 {
            let mut reconnect = Reconnect::new(RETRY, None, fastrand::Rng::with_seed(seed));
            let Decision::After(delay) = reconnect.attempt_failed(&busy) else {
                panic!("nobody gives up");
            };
            assert!((30.0..=60.0).contains(&delay.as_secs_f64()), "{delay:?}");
            assert_eq!(reconnect.failures, 1);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let delays = |seed| {
            let mut reconnect = Reconnect::new(RETRY, None, fastrand::Rng::with_seed(seed));
            (0..5).map(|_| reconnect.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(delays(3), delays(3));
        assert_ne!(delays(3), delays(4));
    }
}
