//! The line of callers who wait for room in a queue.
//!
//! ```text
//!     a call with Sent or Ack, no room ──► Parked ── room ──► accepted
//!                                            └── future dropped, timed out ──► withdrawn, never sent
//! ```

use std::collections::VecDeque;
use std::time::Instant;

use super::Token;
use super::expiry::Expiry;
use super::outbox::Outbox;
use crate::error::{Doing, Error, ErrorKind};
use crate::message::Message;
use crate::wait::Wait;

/// Messages of one class in the order of their calls.
#[derive(Debug, Default)]
pub(super) struct Line {
    queue: VecDeque<Parked>,
    /// How many places of `queue` belong to nobody any more.
    withdrawn: usize,
    /// How many at the end of `queue` came since the last turn.
    unstamped: usize,
    /// The last place that was given. 0 is nobody's.
    last: u64,
}

#[derive(Debug)]
struct Parked {
    place: u64,
    /// None once it was withdrawn.
    content: Option<Waiting>,
}

/// A message in line, and who waits for what.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) message: Message,
    pub(super) wait: Wait,
    pub(super) token: Token,
    pub(super) expires: Expiry,
}

impl Line {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// A caller joins the line. Returns the place, by which it can be withdrawn.
    pub(super) fn park(&mut self, message: Message, wait: Wait, token: Token) -> u64 {
        self.last += 1;
        let place = self.last;
        self.queue.push_back(Parked {
            place,
            content: Some(Waiting {
                expires: Expiry::of(message.property_list()),
                message,
                wait,
                token,
            }),
        });
        self.unstamped += 1;
        place
    }

    /// These stand before all others, in this order, and cannot be withdrawn. Called before the first turn.
    pub(super) fn stand_first(&mut self, waiting: Vec<Waiting>) {
        self.unstamped += waiting.len();
        for content in waiting.into_iter().rev() {
            let content = Some(content);
            self.queue.push_front(Parked { place: 0, content });
        }
    }

    /// Gives the messages that came since the last turn the time from which their expiry counts. Returns
    /// when the first of them expires.
    pub(super) fn stamp(&mut self, now: Instant) -> Option<Instant> {
        let unstamped = self.queue.iter_mut().rev().take(self.unstamped);
        self.unstamped = 0;
        unstamped
            .filter_map(|parked| parked.content.as_mut()?.expires.stamp(now))
            .min()
    }

    /// The waits of those that have expired end. Returns when the next one does.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Outbox) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for parked in &mut self.queue {
            let expired = |waiting: &mut Waiting| waiting.expires.left(now).is_none();
            if let Some(waiting) = parked.content.take_if(expired) {
                let error = Error::new(ErrorKind::Expired, Doing::Publishing);
                out.done(waiting.token, Err(error));
                self.withdrawn += 1;
            } else if let Some(end) = parked.content.as_ref().and_then(|w| w.expires.end()) {
                next = Some(next.map_or(end, |next| next.min(end)));
            }
        }
        self.tidy();
        next
    }

    /// The caller at `place` gives up. Returns its message if it was still in line.
    pub(super) fn withdraw(&mut self, place: u64) -> Option<Message> {
        let index = self
            .queue
            .binary_search_by_key(&place, |parked| parked.place)
            .ok()?;
        let waiting = self.queue.get_mut(index)?.content.take()?;
        self.withdrawn += 1;
        self.tidy();
        Some(waiting.message)
    }

    /// The first in line.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let first = self.queue.pop_front()?.content;
        self.tidy();
        first
    }

    /// None of them will move up: their waits end with this error.
    pub(super) fn fail(&mut self, error: &Error, out: &mut Outbox) {
        for waiting in self.queue.drain(..).filter_map(|parked| parked.content) {
            out.done(waiting.token, Err(error.clone()));
        }
        self.withdrawn = 0;
    }

    /// Drops the places of those who gave up: at the front at once, because the line is empty when
    /// nobody is in it; elsewhere once they are the larger part.
    fn tidy(&mut self) {
        while self
            .queue
            .front()
            .is_some_and(|parked| parked.content.is_none())
        {
            self.queue.pop_front();
            self.withdrawn -= 1;
        }
        if self.withdrawn * 2 > self.queue.len() {
            self.queue.retain(|parked| parked.content.is_some());
            self.withdrawn = 0;
        }
    }
}
