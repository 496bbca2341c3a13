//! What happens without a call that could return it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use crate::error::Error;
use crate::message::Message;
use crate::transport::Endpoint;

/// Something that happened. Listen with [`Client::events`](crate::Client::events).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The connection is open.
    Connected {
        /// Whether the broker still has the session: then nothing that it acknowledged was forgotten.
        /// Always false on MQTT 3.1, whose brokers cannot tell; false as well if the answer to an earlier
        /// attempt never came, because what is present may be a session which that attempt began.
        session_present: bool,
    },
    /// The driver has read its store, in which an earlier process had left a session. Told once, before the
    /// first connection.
    Restored {
        /// Messages of QoS 1 and 2 whose publishing goes on.
        outgoing: usize,
        /// Messages that were acknowledged and not taken: they come again on the streams that match them.
        incoming: usize,
        /// Filters that the broker may know. Those that nobody subscribes to again within
        /// [`Options::take_timeout`](crate::Options::take_timeout) after the connection are unsubscribed.
        filters: Vec<Rc<str>>,
        /// Whether the session at the broker goes on, too. It does not if the client identifier, the version
        /// or the broker is another one now: there it starts clean, as if the broker had lost it.
        same_session: bool,
    },
    /// The store has failed, and with it what it promises. By default the driver ends; with
    /// [`Options::go_on_without_store`](crate::Options::go_on_without_store) it goes on as if there were none.
    StoreFailed {
        /// Why.
        error: Error,
    },
    /// The connection was lost, or the broker ended it. Not told when the program asked for the end,
    /// with `disconnect()` or `reconnect()`.
    Disconnected {
        /// Why.
        error: Error,
        /// When the next attempt begins; none if there will be none.
        retry_in: Option<Duration>,
    },
    /// The connection has ended because this side wanted it: by `reconnect()`, by `disconnect()`, or
    /// because no handle is left.
    Left,
    /// An attempt to connect has failed.
    ConnectFailed {
        /// Why. [`Error::is_permanent`] tells whether trying again can help. Of several ways it is the last
        /// one's error, or the first one that may heal by itself if the last one cannot.
        error: Error,
        /// How many attempts in a row have failed.
        attempt: u32,
        /// When the next attempt begins; none if there will be none.
        retry_in: Option<Duration>,
    },
    /// One of several ways to the broker has failed: a rung of the ladder, or one of several endpoints. The
    /// next one is tried at once; if it was the last one, `ConnectFailed` follows.
    WayFailed {
        /// Where it was to lead.
        endpoint: Endpoint,
        /// Why it did not.
        error: Error,
    },
    /// The broker has sent us to another one, and the next attempt leads there: see
    /// [`Options::follow_referrals`](crate::Options::follow_referrals).
    Referred {
        /// To where.
        endpoint: Endpoint,
        /// What it said.
        error: Error,
    },
    /// A re-authentication was successful, on both sides; whether the program or the driver began it.
    Reauthenticated,
    /// A credential that is to be renewed could not be: the authenticator has none. The connection goes on
    /// until the broker ends it.
    NotRenewed {
        /// Why.
        error: Error,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// A message for which nobody waits any more was not published, or not acknowledged.
    Unpublished {
        /// The message, if it is still known: not at QoS 0, not once the broker confirmed that it received
        /// it, and not if a wait for it was given up.
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
    pub(crate) missed: u64,
    pub(crate) waker: Option<Waker>,
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

    /// The oldest unread event.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    pub(crate) fn end(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}
