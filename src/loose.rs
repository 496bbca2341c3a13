//! What leaves the shared state to be woken, called or dropped after the borrow.
//!
//! A waker, a handler, a message or anything else whose drop may run a user's code must not be touched
//! while the state is borrowed: that code may call the client.

use std::task::Waker;

use crate::event::{Event, Listener};
use crate::message::Message;
use crate::router::Inline;

/// The list of what has to happen after the borrow.
#[derive(Debug, Default)]
pub(crate) struct Loose {
    events: Vec<Event>,
    wakers: Vec<Waker>,
    garbage: Vec<Garbage>,
}

/// Things whose drop may run a user's code.
#[derive(Debug)]
#[expect(dead_code, reason = "held to be dropped at the right time")]
pub(crate) enum Garbage {
    Waker(Waker),
    Message(Message),
    Inline(Inline),
    Event(Event),
    Listener(Listener),
}

macro_rules! garbage_from {
    ($($kind:ident),*) => {
        $(impl From<$kind> for Garbage {
            fn from(value: $kind) -> Self {
                Self::$kind(value)
            }
        })*
    };
}

garbage_from!(Waker, Message, Inline, Event, Listener);

impl Loose {
    /// Logs this after the borrow: a logger is the user's code too.
    pub(crate) fn log_later(&mut self, event: &Event) {
        if log::log_enabled!(log::Level::Debug) {
            self.events.push(event.clone());
        }
    }

    /// Wakes this task after the borrow.
    pub(crate) fn wake_later(&mut self, waker: Option<Waker>) {
        self.wakers.extend(waker);
    }

    /// Drops this after the borrow.
    pub(crate) fn drop_later(&mut self, value: Option<impl Into<Garbage>>) {
        self.garbage.extend(value.map(Into::into));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.wakers.is_empty() && self.garbage.is_empty()
    }

    /// Logs, wakes and drops. The state is not borrowed.
    pub(crate) fn settle(&mut self) {
        for event in self.events.drain(..) {
            log::debug!("{event:?}");
        }
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        self.garbage.clear();
    }

    /// Gives the memory of an emptied list back, so that waking allocates nothing once warm.
    pub(crate) fn reuse(&mut self, emptied: Self) {
        if self.wakers.capacity() < emptied.wakers.capacity() && self.is_empty() {
            *self = emptied;
        }
    }
}
