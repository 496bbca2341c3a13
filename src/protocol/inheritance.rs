//! Subscriptions of an earlier process, which the broker still has: until when they can be made again.
//!
//! ```text
//!     restored ──► Waiting ── CONNACK ──► Until(some time later) ──► Over: unsubscribed, if not made again
//!                     └─ the broker lost the session ──► Until: nothing is left to unsubscribe
//! ```
//!
//! Of its filters only those are known that are in the store, and not who wanted them: a stream is a
//! thing of the process. So the program subscribes again, and what it does not want any more ends after a
//! while. So do the messages that the earlier process had acknowledged and not taken.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connect::Continuity;
use super::outbox::Outbox;
use super::subscribe::Subscribing;

/// The machine.
#[derive(Debug)]
pub(super) enum Inheritance {
    /// There was no earlier process, or its time is over. These are its filters that somebody had made again by
    /// then.
    Over(Vec<Rc<str>>),
    /// Its filters, before the first connection.
    Waiting(Vec<Rc<str>>),
    /// Its filters, and until when they can be made again; none if for ever.
    Until(Option<Instant>, Vec<Rc<str>>),
}

impl Default for Inheritance {
    fn default() -> Self {
        Self::Over(Vec::new())
    }
}

impl Inheritance {
    /// The connection is open.
    pub(super) fn connected(
        &mut self,
        now: Instant,
        patience: Duration,
        continuity: Continuity,
        subscribing: &Subscribing,
        out: &mut Outbox,
    ) {
        match continuity {
            Continuity::Present | Continuity::Untold => {}
            Continuity::Lost => {
                let (Self::Waiting(filters) | Self::Until(_, filters) | Self::Over(filters)) = self;
                for filter in filters.drain(..) {
                    subscribing.unstore(&filter, out);
                }
            }
        }
        if let Self::Waiting(filters) = self {
            *self = Self::Until(now.checked_add(patience), std::mem::take(filters));
        }
    }

    /// Whether the broker may have `filter` from the earlier process.
    pub(super) fn has(&self, filter: &str) -> bool {
        let (Self::Waiting(filters) | Self::Until(_, filters) | Self::Over(filters)) = self;
        filters.iter().any(|own| **own == *filter)
    }

    /// When the time is over.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Until(end, _) => *end,
            Self::Waiting(_) | Self::Over(_) => None,
        }
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.poll_timeout().is_some_and(|end| end <= now)
    }

    /// Ends it. Returns the filters that nobody made again. Those that somebody has are remembered: a call for
    /// one of them may end before it leaves, and then the broker has it all the same.
    pub(super) fn end(&mut self, subscribing: &Subscribing) -> Vec<Rc<str>> {
        let (Self::Waiting(filters) | Self::Until(_, filters)) = self else {
            return Vec::new();
        };
        let (wanted, ended) = std::mem::take(filters)
            .into_iter()
            .partition(|filter| subscribing.has(filter));
        *self = Self::Over(wanted);
        ended
    }
}
