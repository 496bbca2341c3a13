//! The two ends of a driver that has a store: what an earlier process left, and what this one leaves.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::Driver;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::protocol::Restored;

/// How long the end of a driver waits for its store: what the last messages changed is on disk, or not.
const LAST_BATCH: Duration = Duration::from_secs(5);

impl Driver {
    /// Goes on with the session of the process before, if there is a store with one.
    pub(super) fn take_over(&mut self) -> Result<()> {
        if self.lacks_store {
            return Err(Error::misuse(
                "another client has the store of these options",
            ));
        }
        let clock = Rc::clone(&self.options.clock);
        let Some(mut restored) = self.keeper.load(&self.guard.0, &*clock)? else {
            return Ok(());
        };
        let Some(identity) = restored.identity.take() else {
            // It was never connected, so there is only what it wanted to send.
            self.tell_restored(&restored, false);
            return Ok(());
        };
        let home = self.options.known(&identity.place);
        let speaks = self.fallback.remember(identity.version);
        let is_listed = home.as_ref().is_some_and(|home| {
            let mut ways = self.options.ways().into_iter().flatten();
            ways.any(|way| self.routes.are_one_broker(home, &way))
        });
        let is_there = is_listed || self.options.places.share_sessions;
        let same_session = identity.ours && restored.is_ours && speaks && is_there;
        self.tell_restored(&restored, same_session);
        let version = self.fallback.version();
        self.guard.0.with(|state| {
            // So that services have the form of their requests, before these are handed on.
            state.speak(version);
            // Where it was cannot be compared with where it would be.
            let is_lost = home.is_none() && !self.options.places.share_sessions;
            if is_lost || !speaks {
                state.protocol.disown();
            }
            state.inherit(&mut restored);
        });
        self.home = home;
        Ok(())
    }

    fn tell_restored(&self, restored: &Restored, same_session: bool) {
        if restored.is_empty {
            return;
        }
        let event = Event::Restored {
            outgoing: restored.unfinished,
            incoming: restored.kept.len(),
            filters: restored.filters.clone(),
            same_session,
        };
        self.guard.0.with(|state| state.tell(&event));
    }

    /// What the last messages changed goes into the store, before anyone hears that this is the end.
    pub(super) async fn keep_the_rest(&mut self) {
        let shared = self.guard.0.clone();
        let clock = Rc::clone(&self.options.clock);
        let end = clock.now().checked_add(LAST_BATCH);
        std::future::poll_fn(|cx| {
            loop {
                let now = clock.now();
                shared.with(|state| state.protocol.pump(now));
                match self.keeper.poll(now, &shared, &*clock, cx) {
                    Ok(true) => continue,
                    Ok(false) if !self.keeper.is_done() && end.is_none_or(|end| now < end) => {}
                    Ok(false) | Err(_) => return Poll::Ready(()),
                }
                if self.alarm.poll(&*clock, end, cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }
}
