//! The line of callers who wait for room in a queue.
//!
//! ```text
//!     a call with Sent or Ack, no room ──► Parked ── room ──► accepted
//!                                            └── future dropped, timed out ──► withdrawn, never sent
//! ```

use std::collections::VecDeque;

use super::Token;
use crate::message::Message;
use crate::wait::Wait;

/// Messages of one class in the order of their calls.
#[derive(Debug, Default)]
pub(super) struct Line {
    queue: VecDeque<Parked>,
    next: u64,
}

#[derive(Debug)]
struct Parked {
    place: u64,
    /// None once it was withdrawn.
    content: Option<(Message, Wait, Token)>,
}

impl Line {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// A caller joins the line. Returns the place, by which it can be withdrawn.
    pub(super) fn park(&mut self, message: Message, wait: Wait, token: Token) -> u64 {
        let place = self.next;
        self.next += 1;
        self.queue.push_back(Parked {
            place,
            content: Some((message, wait, token)),
        });
        place
    }

    /// The caller at `place` gives up. Returns its message if it was still in line.
    pub(super) fn withdraw(&mut self, place: u64) -> Option<Message> {
        let index = self
            .queue
            .binary_search_by_key(&place, |parked| parked.place)
            .ok()?;
        let message = self.queue[index]
            .content
            .take()
            .map(|(message, _, _)| message);
        // The line is empty when nobody is in it.
        while self
            .queue
            .front()
            .is_some_and(|parked| parked.content.is_none())
        {
            self.queue.pop_front();
        }
        message
    }

    /// The first in line.
    pub(super) fn pop(&mut self) -> Option<(Message, Wait, Token)> {
        let first = self.queue.pop_front()?.content;
        while self
            .queue
            .front()
            .is_some_and(|parked| parked.content.is_none())
        {
            self.queue.pop_front();
        }
        first
    }
}
