//! Going on with the session of the process before.

use std::rc::Rc;

use super::{Driver, Home};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::protocol::Restored;

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
        let speaks = self.fallback.admits(identity.version);
        let is_listed = home.as_ref().is_some_and(|home| {
            let mut ways = self.options.ways().into_iter().flatten();
            ways.any(|way| self.routes.are_one_broker(home, &way))
        });
        let is_there = is_listed || self.options.places.share_sessions;
        let is_ours = identity.at_broker && restored.is_same_client && speaks;
        self.tell_restored(&restored, is_ours && is_there);
        // Where it was cannot be compared with where it would be.
        let is_lost = home.is_none() && !self.options.places.share_sessions;
        let spoken = (is_ours && !is_lost).then_some(identity.version);
        let version = self.fallback.version();
        self.guard.0.with(|state| {
            // So that services have the form of their requests, before these are handed on.
            state.speak(if speaks { identity.version } else { version });
            if is_lost || !speaks {
                state.protocol.disown();
            }
            state.inherit(&mut restored);
            if spoken.is_none() {
                state.speak(version);
            }
        });
        self.home = Home {
            endpoint: home,
            spoken,
        };
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
}
