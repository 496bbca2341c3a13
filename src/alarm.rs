//! The driver's one timer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::clock::{Clock, LocalBoxFuture};

/// The driver's one timer. It is looked at lazily: as long as it goes off early enough it is left
/// alone, because setting a timer anew costs a wake-up of the reactor.
#[derive(Default)]
pub(crate) struct Alarm {
    armed: Option<(Instant, LocalBoxFuture<()>)>,
}

impl Alarm {
    /// Ready when `deadline` may have come; pending, and armed, before. Never ready without one.
    pub(crate) fn poll(
        &mut self,
        clock: &dyn Clock,
        deadline: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let early_enough = self.armed.as_ref().is_some_and(|(set, _)| *set <= deadline);
        if !early_enough {
            self.armed = Some((deadline, clock.sleep_until(deadline)));
        }
        let Some((_, sleep)) = &mut self.armed else {
            return Poll::Pending;
        };
        let poll = Pin::as_mut(sleep).poll(cx);
        if poll.is_ready() {
            self.armed = None;
        }
        poll
    }
}
