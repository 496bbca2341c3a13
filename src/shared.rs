//! The state between the handles and the driver, and the one way to it.
//!
//! **Borrow, call, drop, wake.** [`Shared::with`] is the only access. While the state is borrowed no
//! waker is woken, no handler called, and nothing dropped that may hold a user's code: all that goes
//! into [`Loose`] and happens after the borrow.

use std::cell::RefCell;
use std::fmt;
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::error::{Doing, Error, ErrorKind, Result};
use crate::event::{Event, Listener};
use crate::loose::Loose;
use crate::message::Qos;
use crate::options::Acknowledge;
use crate::properties::Properties;
use crate::protocol::{Asked, Continuity, Delivery, Done, Effect, Grant, Protocol, Receipt, Token};
use crate::queue::{Push, Queued};
use crate::reason::Reason;
use crate::router::{Inline, Router, Sink};
use crate::statistics::Statistics;
use crate::waiter::{Conditions, Waiters};

/// A reference to the state of one client.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<State>>);

/// The same without keeping the state alive.
#[derive(Clone)]
pub(crate) struct WeakShared(Weak<RefCell<State>>);

/// Everything that handles and driver share.
pub(crate) struct State {
    pub(crate) protocol: Protocol,
    pub(crate) router: Router,
    pub(crate) waiters: Waiters,
    pub(crate) listeners: Slab<Listener>,
    pub(crate) statistics: Statistics,
    pub(crate) loose: Loose,
    /// What the user wants of the driver.
    pub(crate) wanted: Wanted,
    /// Clients and subscriptions that exist.
    pub(crate) handles: usize,
    /// Subscriptions that were dropped: the driver unsubscribes them.
    pub(crate) dropped: Vec<usize>,
    pub(crate) conditions: Conditions,
    driver: DriverState,
    /// When the driver's turn began, and when CONNACK came.
    now: Option<Instant>,
    pub(crate) connected_at: Option<Instant>,
    /// How long a disconnect waits for what is not acknowledged.
    pub(crate) drain_timeout: Duration,
}

/// What the user wants of the driver.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// To hold the connection.
    Connection,
    /// To leave and connect again.
    Reconnect,
    /// To leave for good: at once, or once everything is acknowledged.
    Leave {
        reason: Reason,
        properties: Properties,
        drain: Drain,
    },
    /// Nothing any more: every wait and stream has ended.
    Nothing,
}

/// Whether what is not acknowledged is waited for before leaving.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Drain {
    /// No: at once.
    No,
    /// For this long, from the driver's next turn on.
    For(Duration),
    /// Until this instant; none if the span reaches beyond the end of time.
    Until(Option<Instant>),
}

#[derive(Debug)]
enum DriverState {
    /// It waits, and wants to be woken.
    Asleep(Waker),
    /// It was woken, or has not run yet.
    Woken,
    /// It is at work: calls wake nobody.
    Working,
    /// It is at work, and someone has called meanwhile: a handler, or the drop of a user's value.
    Called,
}

impl Shared {
    pub(crate) fn new(protocol: Protocol, drain_timeout: Duration) -> Self {
        Self(Rc::new(RefCell::new(State {
            protocol,
            router: Router::default(),
            waiters: Waiters::default(),
            listeners: Slab::new(),
            statistics: Statistics::default(),
            loose: Loose::default(),
            wanted: Wanted::Connection,
            handles: 0,
            dropped: Vec::new(),
            conditions: Conditions::default(),
            driver: DriverState::Woken,
            now: None,
            connected_at: None,
            drain_timeout,
        })))
    }

    /// Borrows the state for `f`, then does what has to happen after the borrow.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.0.borrow_mut();
        let result = f(&mut state);
        state.settle();
        if !state.loose.is_empty() {
            let mut loose = std::mem::take(&mut state.loose);
            drop(state);
            loose.settle();
            self.0.borrow_mut().loose.reuse(loose);
        }
        result
    }

    pub(crate) fn downgrade(&self) -> WeakShared {
        WeakShared(Rc::downgrade(&self.0))
    }
}

impl WeakShared {
    pub(crate) fn upgrade(&self) -> Option<Shared> {
        self.0.upgrade().map(Shared)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl State {
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.wanted, Wanted::Nothing)
    }

    /// Whether calls are still taken.
    ///
    /// # Errors
    /// The client is closed, or is leaving.
    #[inline]
    pub(crate) fn check_open(&self, doing: Doing) -> Result<()> {
        match self.wanted {
            Wanted::Connection | Wanted::Reconnect => Ok(()),
            Wanted::Leave { .. } | Wanted::Nothing => Err(Error::closed(doing)),
        }
    }

    /// There is something for the driver to do.
    #[inline]
    pub(crate) fn wake_driver(&mut self) {
        match self.driver {
            DriverState::Woken | DriverState::Called => {}
            DriverState::Working => self.driver = DriverState::Called,
            DriverState::Asleep(_) => {
                if let DriverState::Asleep(waker) =
                    std::mem::replace(&mut self.driver, DriverState::Woken)
                {
                    self.loose.wake_later(Some(waker));
                }
            }
        }
    }

    /// The driver begins its turn: calls made until it sleeps wake nobody.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        if let DriverState::Asleep(waker) =
            std::mem::replace(&mut self.driver, DriverState::Working)
        {
            self.loose.drop_later(Some(waker));
        }
        self.now = Some(now);
        self.catch_up(now);
        let Self {
            waiters,
            protocol,
            loose,
            conditions,
            ..
        } = self;
        let mut wakers = Vec::new();
        waiters.expire(
            now,
            |token, parked| withdraw(protocol, conditions, loose, token, parked),
            |waker| wakers.extend(waker),
        );
        for waker in wakers {
            self.loose.wake_later(Some(waker));
        }
    }

    /// A future was dropped: its wait is forgotten, now or when it is answered.
    pub(crate) fn abandon(&mut self, token: Token) {
        let Some(mut waiting) = self.waiters.abandon(token) else {
            return;
        };
        let Self {
            protocol,
            loose,
            conditions,
            ..
        } = self;
        loose.drop_later(waiting.waker.take());
        if withdraw(protocol, conditions, loose, token, waiting.parked) {
            self.waiters.remove(token);
        }
    }

    /// Gives what was called for since the last look its time, and ends what was dropped.
    pub(crate) fn catch_up(&mut self, now: Instant) {
        if let DriverState::Called = self.driver {
            self.driver = DriverState::Working;
        }
        self.waiters.stamp(now);
        self.end_dropped();
        if let Wanted::Leave { drain, .. } = &mut self.wanted
            && let Drain::For(span) = *drain
        {
            *drain = Drain::Until(now.checked_add(span));
        }
    }

    /// Ends the subscriptions whose handles are gone.
    pub(crate) fn end_dropped(&mut self) {
        for key in std::mem::take(&mut self.dropped) {
            self.end_subscriber(key);
        }
    }

    /// Whether the user wants the connection to go on. While it drains, until when at most.
    pub(crate) fn wants_connection(&self, now: Instant) -> bool {
        match &self.wanted {
            Wanted::Connection => true,
            Wanted::Leave {
                drain: Drain::Until(end),
                ..
            } => end.is_none_or(|end| now < end) && !self.protocol.is_drained(),
            // Called just now, within the turn: the next one sets the end and looks at the queues.
            Wanted::Leave {
                drain: Drain::For(_),
                ..
            } => true,
            Wanted::Leave {
                drain: Drain::No, ..
            }
            | Wanted::Reconnect
            | Wanted::Nothing => false,
        }
    }

    /// The next instant at which the driver has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let drain = match &self.wanted {
            Wanted::Leave {
                drain: Drain::Until(end),
                ..
            } => *end,
            Wanted::Leave { .. } | Wanted::Connection | Wanted::Reconnect | Wanted::Nothing => None,
        };
        let all = [
            self.protocol.poll_timeout(),
            self.waiters.poll_timeout(),
            drain,
        ];
        all.into_iter().flatten().min()
    }

    /// A handle is gone. Without any, the client drains and leaves.
    pub(crate) fn drop_handle(&mut self) {
        self.handles -= 1;
        if self.handles == 0
            && let Wanted::Connection | Wanted::Reconnect = self.wanted
        {
            self.wanted = Wanted::Leave {
                reason: Reason::SUCCESS,
                properties: self.protocol.config().farewell(),
                drain: Drain::For(self.drain_timeout),
            };
        }
        self.wake_driver();
    }

    /// The driver has nothing to do until it is woken; which is at once if someone has called since it
    /// looked.
    pub(crate) fn end_turn(&mut self, waker: &Waker) {
        self.driver = match self.driver {
            DriverState::Called => {
                self.loose.wake_later(Some(waker.clone()));
                DriverState::Woken
            }
            DriverState::Asleep(_) | DriverState::Woken | DriverState::Working => {
                DriverState::Asleep(waker.clone())
            }
        };
    }

    /// The driver gives way to the others on the thread and goes on at once.
    pub(crate) fn give_way(&mut self, waker: &Waker) {
        self.driver = DriverState::Woken;
        self.loose.wake_later(Some(waker.clone()));
    }

    /// Tells every listener.
    pub(crate) fn tell(&mut self, event: &Event) {
        log::debug!("{event:?}");
        for (_, listener) in &mut self.listeners {
            let (waker, oldest) = listener.push(event.clone());
            self.loose.wake_later(waker);
            self.loose.drop_later(oldest);
        }
    }

    /// Ends this wait.
    pub(crate) fn finish(&mut self, token: Token, outcome: Result<Done>) {
        let (waker, unwanted) = self.waiters.finish(token, outcome);
        self.loose.wake_later(waker);
        // Nobody waits any more, so an event says what the call cannot.
        if let Some(Err(error)) = unwanted
            && error.doing() == Doing::Publishing
        {
            self.tell(&Event::Unpublished {
                message: None,
                error,
            });
        }
    }

    /// Does what the protocol's effects ask for.
    fn settle(&mut self) {
        while let Some(effect) = self.protocol.poll_effect() {
            match effect {
                Effect::Done(token, outcome) => self.finish(token, outcome),
                Effect::Connected(continuity) => self.connected(continuity),
                // The driver sees that the protocol has left.
                Effect::Again => {}
                Effect::Unpublished(message, error) => {
                    self.tell(&Event::Unpublished {
                        message: message.map(|boxed| *boxed),
                        error,
                    });
                }
                Effect::Subscribed(subscriber, grants) => {
                    for grant in grants {
                        if let Some(error) = grant.error() {
                            self.refused(subscriber, &grant, error);
                        }
                    }
                    self.router.answered(subscriber);
                }
                Effect::Unrestored(grant) => {
                    let Some(error) = grant.error() else { continue };
                    for subscriber in self.router.subscribers_of(&grant.filter) {
                        self.refused(subscriber, &grant, error.clone());
                    }
                }
                Effect::Overdue(receipt) => self.overdue(receipt),
                Effect::Skipped(size) => {
                    self.statistics.skipped += 1;
                    self.tell(&Event::Skipped { size });
                }
                Effect::Stray => self.statistics.stray += 1,
            }
        }
        // A queue that was emptied because the client closes has no room for anyone.
        if !self.conditions.ready.is_empty()
            && self.check_open(Doing::Publishing).is_ok()
            && self.protocol.has_room()
        {
            for token in std::mem::take(&mut self.conditions.ready) {
                self.finish(token, Ok(Done::Sent));
            }
        }
    }

    fn connected(&mut self, continuity: Continuity) {
        self.statistics.connected += 1;
        self.connected_at = self.now;
        let session_present = continuity == Continuity::Present;
        for token in std::mem::take(&mut self.conditions.connected) {
            self.finish(token, Ok(Done::Sent));
        }
        self.tell(&Event::Connected { session_present });
    }

    /// A filter of this subscriber was refused: it has it no more.
    fn refused(&mut self, subscriber: usize, grant: &Grant, error: Error) {
        // Dropped or unsubscribed meanwhile: nobody is left to be told.
        if !self.router.has(subscriber, &grant.filter) {
            return;
        }
        // If another handle has the filter, the broker's older answer still holds for that one.
        self.router.detach(subscriber, &grant.filter);
        match &grant.answer {
            Asked::Answered(..) | Asked::Failed(_) => {
                let filter = Rc::clone(&grant.filter);
                self.tell(&Event::SubscriptionEnded {
                    filter,
                    error: error.clone(),
                });
            }
        }
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
        }
    }

    /// A handle is gone: what it alone had is unsubscribed, what it had not taken counts as taken.
    pub(crate) fn end_subscriber(&mut self, key: usize) {
        let Some((mut subscriber, ended)) = self.router.remove(key) else {
            return;
        };
        if !ended.is_empty() {
            self.protocol.unsubscribe(&ended, None);
        }
        self.loose.drop_later(subscriber.reading.waker.take());
        match subscriber.sink {
            Sink::Stream(mut queue) => {
                while let Some(queued) = queue.pop() {
                    self.discard(queued);
                }
            }
            Sink::Inline(inline) => self.loose.drop_later(inline),
        }
    }

    /// A message that nobody will take.
    fn discard(&mut self, queued: Queued) {
        if let Some(receipt) = queued.receipt {
            self.protocol.take(receipt, Reason::SUCCESS);
        }
        self.loose.drop_later(Some(queued.message));
    }

    /// A user unsubscribes a filter: every handle loses it.
    pub(crate) fn forget_filter(&mut self, filter: &str) {
        for key in self.router.subscribers_of(filter) {
            self.router.detach(key, filter);
            self.end_if_bare(key, None);
        }
    }

    fn overdue(&mut self, receipt: Receipt) {
        self.statistics.overdue += 1;
        let topic =
            self.router
                .subscribers
                .iter()
                .find_map(|(_, subscriber)| match &subscriber.sink {
                    Sink::Stream(queue) => {
                        queue.find(receipt).map(|message| message.shared_topic())
                    }
                    Sink::Inline(_) => None,
                });
        if let Some(topic) = topic {
            self.tell(&Event::Overdue { topic });
        }
    }

    /// Hands a message to everyone it belongs to; not to whom a handler has just dropped. Inline handlers are not called here: their keys go
    /// into `calls`, and what they owe is taken after the call.
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        delivery: &Delivery<'_>,
        calls: &mut Vec<usize>,
    ) {
        self.end_dropped();
        self.statistics.received += 1;
        let incoming = delivery.incoming();
        let receipt = delivery.receipt();
        let hits = self.router.route(incoming.topic());
        if hits.is_empty() {
            self.statistics.unmatched += 1;
        }
        let mut takers = 0;
        let mut by_hand = false;
        let mut message = None;
        let mut lost = Vec::new();
        for key in &hits {
            let Some(subscriber) = self.router.subscribers.get_mut(*key) else {
                continue;
            };
            if subscriber.reading.is_ended() {
                continue;
            }
            let queue = match &mut subscriber.sink {
                Sink::Inline(Some(_)) => {
                    takers += 1;
                    calls.push(*key);
                    continue;
                }
                Sink::Inline(None) => continue,
                Sink::Stream(queue) => queue,
            };
            let owed = match queue.acknowledge() {
                Acknowledge::OnReceipt => None,
                Acknowledge::OnTake => receipt,
                Acknowledge::ByHand => {
                    by_hand |= receipt.is_some();
                    receipt
                }
            };
            takers += usize::from(owed.is_some());
            let message = message.get_or_insert_with(|| incoming.to_message());
            let queued = Queued {
                message: message.clone(),
                receipt: owed,
            };
            match queue.push(queued) {
                Push::Room => {}
                Push::Dropped(dropped) => lost.push((*key, dropped, false)),
                Push::End(queued) => lost.push((*key, vec![queued], true)),
            }
            let waker = subscriber.reading.waker.take();
            self.loose.wake_later(waker);
        }
        self.router.done(hits);
        if let Some(receipt) = receipt {
            // What is acknowledged by hand may take as long as it takes.
            let timeout = self.protocol.config().take_timeout;
            let deadline = if by_hand {
                None
            } else {
                now.checked_add(timeout)
            };
            self.protocol.delivered(receipt, takers, deadline);
        }
        for (key, dropped, end) in lost {
            self.overflowed(key, dropped, end);
        }
    }

    fn overflowed(&mut self, key: usize, dropped: Vec<Queued>, end: bool) {
        self.statistics.dropped += dropped.len() as u64;
        for queued in dropped {
            self.discard(queued);
        }
        let Some(subscriber) = self.router.subscribers.get_mut(key) else {
            return;
        };
        let Some(filter) = subscriber.filters.first().cloned() else {
            return;
        };
        let Sink::Stream(queue) = &mut subscriber.sink else {
            return;
        };
        let total = queue.dropped();
        if end {
            let error = Error::new(ErrorKind::Overflow, Doing::Receiving);
            let filters = std::mem::take(&mut subscriber.filters);
            let waker = subscriber.reading.end(Some(error.clone()));
            self.loose.wake_later(waker);
            let ended: Vec<_> = filters
                .into_iter()
                .filter(|filter| self.router.detach(key, filter))
                .collect();
            if !ended.is_empty() {
                self.protocol.unsubscribe(&ended, None);
            }
            self.tell(&Event::SubscriptionEnded { filter, error });
        } else {
            self.tell(&Event::SlowConsumer {
                filter,
                dropped: total,
            });
        }
    }

    /// Takes a handler out for its call. None if an earlier handler of the same message has ended its
    /// subscription: then the message counts as taken.
    pub(crate) fn borrow_inline(&mut self, key: usize, receipt: Option<Receipt>) -> Option<Inline> {
        let dropped = self.dropped.contains(&key);
        let handler = self.router.handler(key).filter(|_| !dropped);
        let inline = handler.and_then(Option::take);
        if let (None, Some(receipt)) = (&inline, receipt) {
            self.protocol.take(receipt, Reason::SUCCESS);
        }
        inline
    }

    /// Puts a handler back after its call, unless its subscription ended meanwhile, and takes what it
    /// was called with.
    pub(crate) fn return_inline(&mut self, key: usize, inline: Inline, receipt: Option<Receipt>) {
        let mut inline = Some(inline);
        if let Some(subscriber) = self.router.subscribers.get_mut(key)
            && let Sink::Inline(place @ None) = &mut subscriber.sink
            && !subscriber.filters.is_empty()
        {
            *place = inline.take();
        }
        self.loose.drop_later(inline);
        if let Some(receipt) = receipt {
            self.protocol.take(receipt, Reason::SUCCESS);
        }
    }

    /// The client is at its end: every wait and stream ends, every handler is dropped.
    pub(crate) fn close(&mut self) {
        if self.is_closed() {
            return;
        }
        if let Wanted::Leave { .. } | Wanted::Reconnect | Wanted::Connection =
            std::mem::replace(&mut self.wanted, Wanted::Nothing)
        {
            self.protocol.close();
        }
        self.settle();
        let Self { waiters, loose, .. } = self;
        waiters.close(|waker| loose.wake_later(waker));
        for (_, subscriber) in &mut self.router.subscribers {
            let closed = Error::closed(Doing::Receiving);
            let waker = subscriber.reading.end(Some(closed));
            self.loose.wake_later(waker);
            if let Sink::Inline(inline) = &mut subscriber.sink {
                let inline = inline.take();
                self.loose.drop_later(inline);
            }
        }
        for (_, listener) in &mut self.listeners {
            let waker = listener.end();
            self.loose.wake_later(waker);
        }
    }
}

/// Takes a caller out of its line, or from among those who wait for a condition. Returns whether it was
/// there: then nobody will answer it.
fn withdraw(
    protocol: &mut Protocol,
    conditions: &mut Conditions,
    loose: &mut Loose,
    token: Token,
    parked: Option<(Qos, u64)>,
) -> bool {
    let Some((qos, place)) = parked else {
        return conditions.forget(token);
    };
    let message = protocol.withdraw(qos, place);
    let was_there = message.is_some();
    loose.drop_later(message);
    was_there
}
