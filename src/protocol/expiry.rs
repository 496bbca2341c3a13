//! When a message is of no use any more (MQTT 5, section 3.3.2.3.3).

use std::time::{Duration, Instant};

use crate::message::whole_seconds;
use crate::properties::PropertyList;

/// When a message is of no use any more.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expiry {
    /// Never.
    Never,
    /// This long after the driver's next turn.
    After(Duration),
    /// After this instant. At it a message may still leave: that of a lifetime of 0 s does if it can leave
    /// in the turn in which it was published, and never else.
    At(Instant),
}

impl Expiry {
    pub(super) fn of(properties: PropertyList<'_>) -> Self {
        match properties.message_expiry_interval() {
            Some(seconds) => Self::After(Duration::from_secs(seconds.into())),
            None => Self::Never,
        }
    }

    /// The driver's next turn is now. Returns when the message expires, if that was not known before.
    pub(super) fn stamp(&mut self, now: Instant) -> Option<Instant> {
        let Self::After(span) = *self else {
            return None;
        };
        *self = Self::At(now + span);
        self.end()
    }

    /// The first instant at which it has expired, if that is known.
    pub(super) fn end(self) -> Option<Instant> {
        match self {
            Self::Never | Self::After(_) => None,
            Self::At(end) => end.checked_add(Duration::from_nanos(1)),
        }
    }

    /// Seconds left, of which only whole ones that passed are taken off; none once it has expired.
    pub(super) fn left(self, now: Instant) -> Option<Option<u32>> {
        match self {
            Self::Never | Self::After(_) => Some(None),
            Self::At(end) if end < now => None,
            Self::At(end) => {
                let left = end - now;
                Some(Some(u32::try_from(whole_seconds(left)).unwrap_or(u32::MAX)))
            }
        }
    }
}
