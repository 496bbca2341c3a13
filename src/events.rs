//! A stream of events.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::Stream;

use crate::event::{Event, Listener};
use crate::shared::Shared;

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
            match own.pop() {
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
