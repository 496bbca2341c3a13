//! How a connection is left, and how the driver comes to its end.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::{Driver, Next};
use crate::connection::Connection;
use crate::error::{Doing, Error, ErrorKind};
use crate::properties::{Properties, PropertyList};
use crate::protocol::Done;
use crate::reason::Reason;
use crate::shared::Wanted;

/// How long a goodbye may take: DISCONNECT is written and the transport closed, or not.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long the end of a driver waits for its store: what the last messages changed is on disk, or not.
const LAST_BATCH: Duration = Duration::from_secs(5);

impl Driver {
    /// The user wants to leave this connection: says so to the broker.
    pub(super) async fn leave(&mut self, connection: &mut Connection) {
        let shared = self.guard.0.clone();
        shared.with(|state| {
            let (reason, properties) = match &state.wanted {
                Wanted::Leave {
                    reason, properties, ..
                } => (*reason, properties.clone()),
                Wanted::Connection | Wanted::Reconnect | Wanted::Nothing => {
                    (Reason::SUCCESS, Properties::new())
                }
            };
            // Properties too large for this broker are no reason to stay. Words go first: they alone may be
            // left out [MQTT-3.14.2-3, -4]. What is left may still be nine bytes.
            let few = properties.clone().without_words();
            for properties in [properties.list(), few.list(), PropertyList::EMPTY] {
                if state.protocol.disconnect(reason, properties).is_ok() {
                    break;
                }
            }
        });
        self.goodbye(connection).await;
    }

    pub(super) async fn goodbye(&mut self, connection: &mut Connection) {
        let shared = self.guard.0.clone();
        let clock = Rc::clone(&self.options.clock);
        let mut closing = pin!(connection.close(&shared, &*clock));
        let limit = clock.now() + GOODBYE;
        std::future::poll_fn(|cx| {
            loop {
                if closing.as_mut().poll(cx).is_ready() || clock.now() >= limit {
                    return Poll::Ready(());
                }
                // The alarm may still be set to something earlier.
                if self.alarm.poll(&*clock, Some(limit), cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// What the user wants when there is no connection.
    pub(super) async fn interrupted(&mut self) -> Next {
        let shared = self.guard.0.clone();
        if shared
            .with(|state| state.check_open(Doing::Connected))
            .is_err()
        {
            self.keep_the_rest().await;
        }
        if let Some(error) = self.keeper.failure() {
            return Next::End(Err(error));
        }
        let (result, waits) = shared.with(|state| match &state.wanted {
            Wanted::Connection => (None, Vec::new()),
            Wanted::Reconnect => {
                state.wanted = Wanted::Connection;
                (None, Vec::new())
            }
            Wanted::Leave { .. } | Wanted::Nothing => {
                let unacknowledged = state.protocol.unfinished() + state.protocol.pending_qos0();
                let waits = std::mem::take(&mut state.conditions.closed);
                (Some(unacknowledged), waits)
            }
        });
        let Some(unacknowledged) = result else {
            return Next::Connect;
        };
        let left = match unacknowledged {
            0 => Ok(()),
            count => Err(Error::new(
                ErrorKind::Unacknowledged(count),
                Doing::Disconnecting,
            )),
        };
        shared.with(|state| {
            for token in waits {
                state.finish(token, left.clone().map(|()| Done::Sent));
            }
        });
        // The caller of disconnect() is told what stayed; for the driver it is a good end.
        Next::End(Ok(()))
    }

    /// What the last messages changed goes into the store, before anyone hears that this is the end. A store
    /// that is not done in time has failed.
    pub(super) async fn keep_the_rest(&mut self) {
        let shared = self.guard.0.clone();
        let clock = Rc::clone(&self.options.clock);
        let end = clock.now().checked_add(LAST_BATCH);
        std::future::poll_fn(|cx| {
            loop {
                let now = clock.now();
                self.keeper.date(now, &shared, &*clock);
                shared.with(|state| state.protocol.pump(now));
                match self.keeper.poll(&shared, cx) {
                    Ok(true) => continue,
                    Ok(false) if self.keeper.is_done() => return Poll::Ready(()),
                    Ok(false) if end.is_none_or(|end| now < end) => {}
                    Ok(false) => {
                        self.keeper.give_up(LAST_BATCH, &shared);
                        return Poll::Ready(());
                    }
                    Err(_) => return Poll::Ready(()),
                }
                if self.alarm.poll(&*clock, end, cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }
}
