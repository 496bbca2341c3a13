//! How a subscription ends, and how the client does.

use std::rc::Rc;

use crate::error::{Doing, Error};
use crate::event::Event;
use crate::protocol::Grant;
use crate::router::Sink;
use crate::shared::{State, Wanted};

impl State {
    /// A filter of this subscriber was refused: it has it no more.
    pub(crate) fn refused(&mut self, subscriber: usize, grant: &Grant, error: Error) {
        // Dropped or unsubscribed meanwhile: nobody is left to be told.
        if !self.router.has(subscriber, &grant.filter) {
            return;
        }
        // If another handle has the filter, the broker's older answer still holds for that one.
        self.router.detach(subscriber, &grant.filter);
        self.tell(&Event::SubscriptionEnded {
            filter: Rc::clone(&grant.filter),
            error: error.clone(),
        });
        self.end_if_bare(subscriber, Some(error));
    }

    /// A subscriber without filters gets nothing any more.
    fn end_if_bare(&mut self, key: usize, error: Option<Error>) {
        let Some(subscriber) = self.router.subscribers.get_mut(key) else {
            return;
        };
        if !subscriber.filters.is_empty() {
            return;
        }
        let waker = subscriber.reading.end(error);
        self.loose.wake_later(waker);
        if let Sink::Inline(inline) = &mut subscriber.sink {
            let inline = inline.take();
            self.loose.drop_later(inline);
            // It will not be called any more.
            self.give_back(key);
        }
    }

    /// A handle is gone: what it alone had is unsubscribed, what it had not taken counts as taken.
    pub(crate) fn end_subscriber(&mut self, key: usize) {
        let Some((mut subscriber, ended)) = self.router.remove(key) else {
            return;
        };
        self.protocol.end_subscriber(key, &ended);
        self.loose.drop_later(subscriber.reading.waker.take());
        match subscriber.sink {
            Sink::Stream(mut queue) => {
                while let Some(queued) = queue.pop() {
                    self.discard(queued);
                }
            }
            Sink::Inline(inline) => {
                self.loose.drop_later(inline);
                self.forget_calls(key);
            }
            Sink::Answers => {}
        }
    }

    /// Ends the subscriptions whose handles are gone.
    pub(crate) fn end_dropped(&mut self) {
        for key in std::mem::take(&mut self.dropped) {
            self.end_subscriber(key);
        }
    }

    /// A user unsubscribes a filter: every handle loses it.
    pub(crate) fn forget_filter(&mut self, filter: &str) {
        for key in self.router.subscribers_of(filter) {
            self.router.detach(key, filter);
            self.end_if_bare(key, None);
        }
    }

    /// The client is at its end: every wait and stream ends, every handler is dropped.
    pub(crate) fn close(&mut self) {
        if self.is_closed() {
            return;
        }
        self.wanted = Wanted::Nothing;
        self.protocol.close();
        self.settle();
        let Self {
            waiters,
            loose,
            failure,
            ..
        } = self;
        waiters.close(failure.as_ref(), |waker| loose.wake_later(waker));
        for (_, subscriber) in &mut self.router.subscribers {
            let closed = Error::closed(Doing::Receiving).because(self.failure.as_ref());
            let waker = subscriber.reading.end(Some(closed));
            self.loose.wake_later(waker);
            match &mut subscriber.sink {
                Sink::Inline(inline) => {
                    let inline = inline.take();
                    self.loose.drop_later(inline);
                }
                Sink::Stream(queue) => {
                    // Nothing records any more that these are taken, so they are left to the next process, and
                    // to it alone.
                    let protocol = &self.protocol;
                    let left = queue.take_out(|queued| {
                        queued.kept.is_some_and(|kept| protocol.is_kept(kept))
                            || queued.receipt.is_some_and(|own| protocol.comes_again(own))
                    });
                    for queued in left {
                        self.loose.drop_later(Some(queued.message));
                    }
                }
                Sink::Answers => {}
            }
        }
        self.bequeath();
        for (_, listener) in &mut self.listeners {
            let waker = listener.end();
            self.loose.wake_later(waker);
        }
    }
}
