//! What the caller and the subscriber learn: a grant or a failure for each filter, and all of them once the
//! call is over.

use std::rc::Rc;

use super::{Request, Subscribing};
use crate::error::{Doing, Error};
use crate::protocol::outbox::Outbox;
use crate::protocol::{Asked, Done, Effect, Grant};

impl Subscribing {
    /// Nothing will be sent any more: every wait ends.
    pub(in crate::protocol) fn close(&mut self, out: &mut Outbox) {
        self.queue.clear();
        for call in self.calls.drain() {
            if let Some((_, token)) = call.wait {
                let error = Error::closed(Doing::Subscribing).sent_as(call.sent);
                out.done(token, Err(error));
            }
        }
    }

    pub(super) fn failed(
        &mut self,
        call: Option<usize>,
        filter: Rc<str>,
        error: Error,
        out: &mut Outbox,
    ) {
        let answer = Asked::Failed(error);
        self.granted(call, Grant { filter, answer }, out);
    }

    pub(super) fn granted(&mut self, call: Option<usize>, grant: Grant, out: &mut Outbox) {
        let refused = grant.error().is_some().then(|| Rc::clone(&grant.filter));
        match call.and_then(|call| self.calls.get_mut(call)) {
            Some(call) => call.grants.push(grant),
            None => {
                // A restored subscription: only a refusal is news, and only while it is wanted.
                if grant.error().is_some() && self.active.remove(&grant.filter).is_some() {
                    out.effect(Effect::Unrestored(grant));
                }
            }
        }
        if let Some(filter) = refused {
            self.unstore(&filter, out);
        }
    }

    /// A request is done with.
    pub(super) fn answered(&mut self, request: &Request, out: &mut Outbox) {
        let Some(key) = request.call else {
            if !self.is_restoring() {
                out.effect(Effect::Restored);
            }
            return;
        };
        if let Some(call) = self.calls.get_mut(key) {
            call.unanswered -= 1;
        }
        self.conclude(key, out);
    }

    /// A call is over once nothing of it is unanswered.
    pub(super) fn conclude(&mut self, key: usize, out: &mut Outbox) {
        if self.calls.get(key).is_none_or(|call| call.unanswered > 0) {
            return;
        }
        let call = self.calls.remove(key);
        out.effect(Effect::Subscribed(call.owner, call.grants.clone()));
        let Some((_, token)) = call.wait else { return };
        let failed = call.grants.iter().find_map(Grant::error);
        out.done(token, failed.map_or(Ok(Done::Granted(call.grants)), Err));
    }
}
