//! The driver's side of the store: hands over what has changed, and says when it is on disk.
//!
//! ```text
//!     Unread ── load ──► Idle ── a batch has gathered: submit ──► Busy ── committed ──► Idle
//!        │                                                          │
//!        └──────────── failed ──────────────────────────────────────┴──► Absent, if the client goes on without
//!                                                                        Failed, if the driver is to end
//! ```
//!
//! One batch is on its way at a time; what changes meanwhile gathers in the protocol. The store is the
//! user's code, so it is never called while the state is borrowed.

use std::fmt;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::protocol::Restored;
use crate::shared::Shared;
use crate::store::{Store, StoreError, StoreErrorKind};

/// The machine.
pub(crate) struct Keeper {
    state: State,
    /// Whether the client goes on when the store has failed.
    go_on: bool,
}

enum State {
    /// There is none, or none any more.
    Absent,
    Unread(Box<dyn Store>),
    Idle(Box<dyn Store>),
    Busy(Box<dyn Store>),
    /// The driver is to end with this.
    Failed(Error),
}

impl Keeper {
    pub(crate) fn new(store: Option<Box<dyn Store>>, go_on: bool) -> Self {
        Self {
            state: store.map_or(State::Absent, State::Unread),
            go_on,
        }
    }

    /// Reads the store and goes on with the session in it. None without a store, or if it has failed and
    /// the client goes on without it.
    ///
    /// # Errors
    /// The store has failed.
    pub(crate) fn load(&mut self, shared: &Shared, clock: &dyn Clock) -> Result<Option<Restored>> {
        let State::Unread(mut store) = std::mem::replace(&mut self.state, State::Absent) else {
            return Ok(None);
        };
        let (now, unix) = (clock.now(), clock.unix_time());
        let restored = store
            .load()
            .and_then(|records| shared.with(|state| state.protocol.restore(now, unix, &records)));
        match restored {
            Ok(restored) => {
                self.state = State::Idle(store);
                Ok(Some(restored))
            }
            Err(error) => self.fail(&error, shared).map(|()| None),
        }
    }

    /// Says what the date is, before anything that expires is gathered: the wall clock may have been set since
    /// the last turn, or the device may have slept.
    pub(crate) fn date(&self, now: Instant, shared: &Shared, clock: &dyn Clock) {
        if self.is_present() {
            let unix = clock.unix_time();
            shared.with(|state| state.protocol.set_date(now, unix));
        }
    }

    /// Does what there is to do. Returns whether a batch has arrived: what waited for it can leave.
    ///
    /// # Errors
    /// The store has failed, and the driver is to end.
    pub(crate) fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Result<bool> {
        // Also without a store: it may have failed since.
        call_inherited(shared);
        match &self.state {
            State::Absent | State::Unread(_) => return Ok(false),
            State::Failed(error) => return Err(error.clone()),
            State::Idle(_) | State::Busy(_) => {}
        }
        let arrived = self.poll_committed(shared, cx)?;
        self.submit(shared);
        // So that the store knows whom to wake; one that works at once is done.
        Ok(self.poll_committed(shared, cx)? || arrived)
    }

    fn submit(&mut self, shared: &Shared) {
        self.state = match std::mem::replace(&mut self.state, State::Absent) {
            State::Idle(mut store) => match shared.with(|state| state.protocol.poll_batch()) {
                Some(batch) => {
                    store.submit(batch);
                    State::Busy(store)
                }
                None => State::Idle(store),
            },
            other @ (State::Absent | State::Unread(_) | State::Busy(_) | State::Failed(_)) => other,
        };
    }

    fn poll_committed(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Result<bool> {
        let State::Busy(store) = &mut self.state else {
            return Ok(false);
        };
        let Poll::Ready(result) = store.poll_committed(cx) else {
            return Ok(false);
        };
        match (result, std::mem::replace(&mut self.state, State::Absent)) {
            (Ok(()), State::Busy(store)) => {
                self.state = State::Idle(store);
                shared.with(|state| state.protocol.handle_committed());
            }
            (Err(error), _) => self.fail(&error, shared)?,
            (Ok(()), other) => self.state = other,
        }
        Ok(true)
    }

    /// Whether there is a store to be served.
    pub(crate) fn is_present(&self) -> bool {
        match self.state {
            State::Idle(_) | State::Busy(_) => true,
            State::Absent | State::Unread(_) | State::Failed(_) => false,
        }
    }

    /// Whether nothing is left to be done.
    pub(crate) fn is_done(&self) -> bool {
        match self.state {
            State::Absent | State::Unread(_) | State::Idle(_) | State::Failed(_) => true,
            State::Busy(_) => false,
        }
    }

    /// With what the driver is to end, if the store has failed.
    pub(crate) fn failure(&self) -> Option<Error> {
        match &self.state {
            State::Failed(error) => Some(error.clone()),
            State::Absent | State::Unread(_) | State::Idle(_) | State::Busy(_) => None,
        }
    }

    /// The store is not waited for any longer, after this long.
    pub(crate) fn give_up(&mut self, after: Duration, shared: &Shared) {
        let text = format!("the last changes are not on disk after {after:?}");
        let error = StoreError::new(StoreErrorKind::Other, text);
        match std::mem::replace(&mut self.state, State::Absent) {
            // Its drop would hold up every task of the thread.
            State::Unread(mut store) | State::Idle(mut store) | State::Busy(mut store) => {
                store.give_up();
            }
            State::Absent | State::Failed(_) => {}
        }
        // It is in the state, for `Keeper::failure`.
        let _ = self.fail(&error, shared);
    }

    /// The store is of no use any more.
    fn fail(&mut self, error: &StoreError, shared: &Shared) -> Result<()> {
        let told = Error::store(error.clone());
        let event = Event::StoreFailed {
            error: told.clone(),
        };
        let go_on = self.go_on;
        shared.with(|state| {
            state.tell(&event);
            if go_on {
                state.protocol.go_on_without_store();
            } else {
                state.protocol.handle_store_failed(error);
            }
        });
        if go_on {
            log::error!("{told}; the session lives with this process from now on");
            return Ok(());
        }
        self.state = State::Failed(told.clone());
        Err(told)
    }
}

/// Calls the inline handlers that match what an earlier process had left, with nothing borrowed.
fn call_inherited(shared: &Shared) {
    while let Some((key, mut inline, kept, message)) = shared.with(|state| state.borrow_inherited())
    {
        (inline.0)(&message.as_incoming());
        shared.with(|state| state.return_inherited(key, inline, kept));
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}
