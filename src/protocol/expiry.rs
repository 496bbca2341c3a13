//! When a message is of no use any more (MQTT 5, section 3.3.2.3.3).

use std::time::{Duration, Instant};

use crate::properties::PropertyList;

/// When a message is of no use any more.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expiry {
    /// Never.
    Never,
    /// This long after the driver's next turn.
    After(Duration),
    /// At this instant.
    At(Instant),
}

impl Expiry {
    pub(super) fn of(properties: PropertyList<'_>) -> Self {
        match properties.message_expiry_interval() {
            Some(seconds) => Self::After(Duration::from_secs(seconds.into())),
            None => Self::Never,
        }
    }

    pub(super) fn stamp(&mut self, now: Instant) {
        if let Self::After(span) = *self {
            *self = Self::At(now + span);
        }
    }

    /// Whole seconds left, at least 1; none once it has expired.
    pub(super) fn left(self, now: Instant) -> Option<Option<u32>> {
        match self {
            Self::Never | Self::After(_) => Some(None),
            Self::At(end) if end <= now => None,
            Self::At(end) => {
                let left = end - now;
                let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                Some(Some(u32::try_from(seconds).unwrap_or(u32::MAX)))
            }
        }
    }
}
