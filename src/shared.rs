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

use crate::answers::Answers;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::event::{Event, Listener};
use crate::heritage::Heritage;
use crate::loose::Loose;
use crate::properties::Properties;
use crate::protocol::{Ask, Continuity, Done, Effect, Protocol, Token};
use crate::reason::Reason;
use crate::router::Router;
use crate::statistics::Statistics;
use crate::transport::Endpoint;
use crate::waiter::{Conditions, Finished, Left, Place, Waiters};

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
    pub(crate) answers: Answers,
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
    /// What the authenticator has to do on this connection.
    pub(crate) ask: Option<Ask>,
    pub(crate) heritage: Heritage,
    driver: DriverState,
    /// When the driver's turn began, and when CONNACK came.
    pub(crate) now: Option<Instant>,
    pub(crate) connected_at: Option<Instant>,
    /// Where the connection leads, or the last attempt led.
    pub(crate) endpoint: Option<Endpoint>,
    /// What the last attempt failed with, or the driver ended with; none while there is a connection.
    pub(crate) failure: Option<Error>,
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
    pub(crate) fn new(protocol: Protocol, answers: Answers, drain_timeout: Duration) -> Self {
        Self(Rc::new(RefCell::new(State {
            protocol,
            router: Router::default(),
            waiters: Waiters::default(),
            answers,
            listeners: Slab::new(),
            statistics: Statistics::default(),
            loose: Loose::default(),
            wanted: Wanted::Connection,
            handles: 0,
            dropped: Vec::new(),
            conditions: Conditions::default(),
            ask: None,
            heritage: Heritage::default(),
            driver: DriverState::Woken,
            now: None,
            connected_at: None,
            endpoint: None,
            failure: None,
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
            Wanted::Leave { .. } | Wanted::Nothing => {
                Err(Error::closed(doing).because(self.failure.as_ref()))
            }
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
        self.catch_up(now);
        let Self {
            waiters,
            protocol,
            answers,
            loose,
            conditions,
            failure,
            ..
        } = self;
        let mut wakers = Vec::new();
        waiters.expire(
            now,
            failure.as_ref(),
            |token, parked| withdraw(protocol, answers, conditions, loose, token, parked),
            |waker| wakers.extend(waker),
        );
        for waker in wakers {
            self.loose.wake_later(Some(waker));
        }
    }

    /// A future was dropped: its wait is forgotten, now or when it is answered.
    pub(crate) fn abandon(&mut self, token: Token) {
        let mut waiting = match self.waiters.abandon(token) {
            Left::Waiting(waiting) => waiting,
            Left::Nothing => return,
            Left::Answer(answer) => {
                let message = self.take_answer(answer);
                return self.loose.drop_later(Some(message));
            }
        };
        let Self {
            protocol,
            answers,
            loose,
            conditions,
            ..
        } = self;
        loose.drop_later(waiting.waker.take());
        if waiting.is_settled()
            || withdraw(protocol, answers, conditions, loose, token, waiting.parked)
        {
            self.waiters.remove(token);
        }
    }

    /// Gives what was called for since the last look its time, and ends what was dropped.
    pub(crate) fn catch_up(&mut self, now: Instant) {
        if let DriverState::Called = self.driver {
            self.driver = DriverState::Working;
        }
        self.now = Some(now);
        self.waiters.stamp(now);
        self.retire_inboxes();
        self.end_dropped();
        if let Wanted::Leave { drain, .. } = &mut self.wanted
            && let Drain::For(span) = *drain
        {
            *drain = Drain::Until(now.checked_add(span));
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
        self.loose.log_later(event);
        for (_, listener) in &mut self.listeners {
            let (waker, oldest) = listener.push(event.clone());
            self.loose.wake_later(waker);
            self.loose.drop_later(oldest);
        }
    }

    /// Ends this wait.
    pub(crate) fn finish(&mut self, token: Token, outcome: Result<Done>) {
        let outcome = outcome.map_err(|error| {
            if error.is_closed() {
                error.because(self.failure.as_ref())
            } else {
                error
            }
        });
        match self.waiters.finish(token, outcome) {
            Finished::Noted(waker) => self.loose.wake_later(waker),
            // Nobody waits any more, so an event says what the call cannot.
            Finished::Unwanted(Err(error)) if error.doing() == Doing::Publishing => {
                self.tell(&Event::Unpublished {
                    message: None,
                    error,
                });
            }
            Finished::Unwanted(_) => {}
            Finished::Again(place) => self.answers.hold(place, token),
        }
    }

    /// Does what the protocol's effects ask for.
    pub(crate) fn settle(&mut self) {
        while let Some(effect) = self.protocol.poll_effect() {
            if let Effect::Done(_, Err(error)) | Effect::Unpublished(_, error) = &effect
                && matches!(error.kind(), ErrorKind::Expired)
            {
                self.statistics.expired += 1;
            }
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
                    self.inbox_subscribed(subscriber);
                }
                Effect::Unrestored(grant) => {
                    let Some(error) = grant.error() else { continue };
                    for subscriber in self.router.subscribers_of(&grant.filter) {
                        self.refused(subscriber, &grant, error.clone());
                    }
                }
                Effect::Restored => self.inbox_restored(),
                Effect::Overdue(receipt) => self.overdue(receipt),
                Effect::Disinherited => self.disinherit(),
                Effect::Authenticate(ask) => self.ask = Some(ask),
                Effect::Reauthenticated => self.tell(&Event::Reauthenticated),
                Effect::NotRenewed(error, retry_in) => {
                    self.tell(&Event::NotRenewed { error, retry_in });
                }
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
        self.failure = None;
        let session_present = continuity == Continuity::Present;
        let limits = self.protocol.limits();
        let identifiers = limits.is_some_and(|limits| limits.identifiers_available);
        self.router
            .connected(continuity == Continuity::Lost, identifiers);
        for token in std::mem::take(&mut self.conditions.connected) {
            self.finish(token, Ok(Done::Sent));
        }
        self.tell(&Event::Connected { session_present });
        self.inbox_connected(continuity);
    }
}

/// Takes a caller out of its line, or from among those who wait for a condition. Returns whether it was
/// there: then nobody will answer it.
fn withdraw(
    protocol: &mut Protocol,
    answers: &mut Answers,
    conditions: &mut Conditions,
    loose: &mut Loose,
    token: Token,
    parked: Option<Place>,
) -> bool {
    let message = match parked {
        None => return conditions.forget(token),
        Some(Place::Line(qos, place)) => protocol.withdraw(qos, place),
        Some(Place::Held(place)) => return answers.withdraw(place),
    };
    let was_there = message.is_some();
    loose.drop_later(message);
    was_there
}
