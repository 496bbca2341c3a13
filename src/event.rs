//! What happens without a call that could return it: events, and a stream of them.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::Stream;

use crate::error::Error;
use crate::message::Message;
use crate::shared::Shared;

/// Something that happened. Listen with [`Client::events`](crate::Client::events).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The connection is open.
    Connected {
        /// Whether the broker still has the session: then nothing that it acknowledged was forgotten.
        session_present: bool,
    },
    /// The connection has ended.
    Disconnected {
        /// Why.
        error: Error,
        /// When the next attempt begins; none if there will be none.
        retry_in: Option<Duration>,
    },
    /// An attempt to connect has failed.
    ConnectFailed {
        /// Why. [`Error::is_permanent`] tells whether trying again can help.
        error: Error,
        /// How many attempts in a row have failed.
        attempt: u32,
        /// When the next attempt begins; none if there will be none.
        retry_in: Option<Duration>,
    },
    /// A message for which nobody waits any more was not published, or not acknowledged.
    Unpublished {
        /// The message, unless it was QoS 0 or the broker had confirmed that it received it.
        message: Option<Message>,
        /// Why.
        error: Error,
    },
    /// A filter is not subscribed to any more, or never was, and its stream ends with this error.
    SubscriptionEnded {
        /// The filter.
        filter: Rc<str>,
        /// Why.
        error: Error,
    },
    /// A stream was not read fast enough: what its [`Overflow`](crate::Overflow) says was done.
    SlowConsumer {
        /// A filter of the subscription.
        filter: Rc<str>,
        /// Messages that its stream has lost in all.
        dropped: u64,
    },
    /// A message was not taken in time and was acknowledged all the same; it stays queued.
    Overdue {
        /// Its topic.
        topic: Rc<str>,
    },
    /// A message received by hand was dropped without an answer: the broker sends it again after the
    /// next reconnect, and sends no more than its window until then.
    Unacknowledged {
        /// Its topic.
        topic: Rc<str>,
    },
    /// A message above the inbound limit was skipped and acknowledged; 3.1 and 3.1.1 only.
    Skipped {
        /// Its size in bytes.
        size: usize,
    },
}

/// A listener's own queue of events.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    queue: VecDeque<Event>,
    missed: u64,
    waker: Option<Waker>,
}

/// Events that a listener may leave unread; beyond it the oldest is dropped and counted.
const UNREAD: usize = 256;

impl Listener {
    /// Queues an event. Returns who is to be woken, and what fell out.
    pub(crate) fn push(&mut self, event: Event) -> (Option<Waker>, Option<Event>) {
        let oldest = if self.queue.len() >= UNREAD {
            self.queue.pop_front()
        } else {
            None
        };
        self.missed += u64::from(oldest.is_some());
        self.queue.push_back(event);
        (self.waker.take(), oldest)
    }

    pub(crate) fn end(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

/// A stream of [`Event`]s from the moment of the call on. Ends when the client is closed.
///
/// Holds at most 256 unread events; the oldest is dropped and counted in [`Events::missed`].
#[must_use = "a listener that is not read misses events"]
pub struct Events {
    shared: Shared,
    key: usize,
}

impl Events {
    pub(crate) fn new(shared: Shared) -> Self {
        let key = shared.with(|state| state.listeners.insert(Listener::default()));
        Self { shared, key }
    }

    /// Waits for the next event; none when the client is closed.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the event stays queued.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// How many events were dropped because they were not read.
    pub fn missed(&self) -> u64 {
        self.shared
            .with(|state| state.listeners.get(self.key).map_or(0, |own| own.missed))
    }

    fn poll_event(&self, cx: &Context<'_>) -> Poll<Option<Event>> {
        self.shared.with(|state| {
            let closed = state.is_closed();
            let Some(own) = state.listeners.get_mut(self.key) else {
                return Poll::Ready(None);
            };
            match own.queue.pop_front() {
                Some(event) => Poll::Ready(Some(event)),
                None if closed => Poll::Ready(None),
                None => {
                    let old = own.waker.replace(cx.waker().clone());
                    state.loose.drop_later(old);
                    Poll::Pending
                }
            }
        })
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(cx)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.with(|state| {
            let own = state.listeners.try_remove(self.key);
            state.loose.drop_later(own);
        });
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
