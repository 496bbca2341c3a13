//! What the caller and the subscriber learn: a grant or a failure for each filter, and all of them once the
//! call is over.

use std::rc::Rc;

use super::{Grants, Request, Subscribing};
use crate::error::Error;
use crate::protocol::outbox::Outbox;
use crate::protocol::requests::Call;
use crate::protocol::{Asked, Done, Effect, Grant};

impl Subscribing {
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
        match self.requests.call_of(call) {
            Some(call) => call.own.grants.push(grant),
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
        if let Some(over) = self.requests.answered(key) {
            conclude(over, out);
        }
    }
}

/// A call is over.
pub(super) fn conclude(call: Call<Subscribing>, out: &mut Outbox) {
    let Grants { owner, grants } = call.own;
    out.effect(Effect::Subscribed(owner, grants.clone()));
    let Some((_, token)) = call.wait else { return };
    let failed = grants.iter().find_map(Grant::error);
    out.done(token, failed.map_or(Ok(Done::Granted(grants)), Err));
}
