//! SUBSCRIBE and SUBACK: what is wanted, asked for, and granted (MQTT 5, sections 3.8, 3.9).
//!
//! ```text
//!     a call ──► Queued ──────────► Asked ──────────► granted: stands in `active`
//!                  ▲    SUBSCRIBE     │     SUBACK    refused: the subscriber is told
//!                  └──────────────────┘
//!                   link lost: a new request with a new identifier (situation 14)
//!     Queued ──► withdrawn: it has never left, and its subscriber is gone
//! ```
//!
//! `active` outlives connections; when the broker lost the session it is asked for again, first of all.
//! Requests and UNSUBSCRIBEs share one order, so that the last word about a filter is the caller's.
//!
//! Here are the calls, the SUBSCRIBEs and the SUBACKs. What of a request may not be sent is in `checks`, what
//! the caller learns in `answers`, and what a lost link or a lost session does in `restore`. What is the same for
//! UNSUBSCRIBE is in [`requests`].

mod answers;
mod checks;
mod restore;

use std::collections::BTreeMap;
use std::rc::Rc;

use super::limits::Limits;
use super::outbox::Outbox;
use super::packet_id::{Owner, PacketIds};
use super::requests::{self, Kind, Requests};
use super::unsubscribe::Unsubscribing;
use super::{Asked, Grant, Identifier, Token, Wish};
use crate::codec::subscribe::{FilterList, FilterOptions, push_filter};
use crate::codec::{Packet, Suback, Subscribe};
use crate::error::{Doing, Error, Violation};
use crate::message::PacketId;
use crate::properties::{Properties, Remarks};
use crate::wait::Wait;

use answers::conclude;
use checks::{check, check_options};

/// Filters per SUBSCRIBE: one large cloud accepts no more.
pub const BATCH: usize = 8;

/// A call of `subscribe`: one filter or several, on behalf of one subscriber.
#[derive(Debug)]
pub struct Subscription {
    /// The subscriber, as the router knows it.
    pub owner: usize,
    /// What it wants. Filters of one identifier go together if they stand together.
    pub filters: Vec<Wish>,
    /// User properties of the SUBSCRIBE.
    pub properties: Properties,
    /// Who waits, and for what.
    pub wait: Option<(Wait, Token)>,
}

/// What a call of `subscribe` gathers.
#[derive(Debug)]
pub(super) struct Grants {
    owner: usize,
    grants: Vec<Grant>,
}

/// What the filters of one SUBSCRIBE share.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    identifier: Identifier,
    properties: Properties,
    /// The batch of the store that has the filters; 0 if none has.
    batch: u64,
}

impl Kind for Subscribing {
    type PerFilter = FilterOptions;
    type PerPacket = Terms;
    type PerCall = Grants;
    const DOING: Doing = Doing::Subscribing;
    const OWNER: fn(usize) -> Owner = Owner::Subscribe;
}

/// One SUBSCRIBE. No call has it if it restores what the broker forgot.
type Request = requests::Request<Subscribing>;

impl Request {
    /// Whether another filter may stand in the same SUBSCRIBE: it has one identifier for all.
    fn takes(&self, identifier: Identifier) -> bool {
        self.own.identifier == identifier && self.filters.len() < BATCH
    }
}

/// A subscription that the broker granted.
#[derive(Debug)]
struct Active {
    options: FilterOptions,
    identifier: Identifier,
    /// The user properties of its SUBSCRIBE; none take no memory.
    properties: Remarks,
}

/// The machine.
#[derive(Debug, Default)]
pub(super) struct Subscribing {
    active: BTreeMap<Rc<str>, Active>,
    pub(super) requests: Requests<Self>,
}

impl Subscribing {
    /// A caller wants to subscribe. `order` is its place among all subscribes and unsubscribes.
    pub(super) fn subscribe(&mut self, subscription: Subscription, order: u64, out: &mut Outbox) {
        let grants = Grants {
            owner: subscription.owner,
            grants: Vec::with_capacity(subscription.filters.len()),
        };
        let call = self.requests.call(subscription.wait, grants);
        let mut batches: Vec<Request> = Vec::new();
        for wish in subscription.filters {
            let item = (wish.filter, wish.options);
            match batches.last_mut() {
                Some(batch) if batch.takes(wish.identifier) => batch.filters.push(item),
                Some(_) | None => {
                    let terms = Terms {
                        identifier: wish.identifier,
                        properties: subscription.properties.clone(),
                        batch: 0,
                    };
                    batches.push(Request::new(order, Some(call), vec![item], terms));
                }
            }
        }
        for batch in batches {
            self.requests.push(batch);
        }
        if let Some(over) = self.requests.finish(call) {
            conclude(over, out);
        }
    }

    /// A subscriber wants another filter instead of this one, which was never asked for.
    pub(super) fn rename(&mut self, owner: usize, from: &str, wish: &Wish, out: &mut Outbox) {
        let Requests { queue, calls, .. } = &mut self.requests;
        for request in queue {
            let call = request.call.and_then(|call| calls.get(call));
            if call.is_none_or(|call| call.own.owner != owner) {
                continue;
            }
            for (filter, options) in &mut request.filters {
                if **filter != *from {
                    continue;
                }
                (*filter, *options) = (Rc::clone(&wish.filter), wish.options);
                if let Some(journal) = &mut out.journal
                    && request.own.batch > 0
                {
                    let identifier = request.own.identifier;
                    request.own.batch = journal.put_filter(filter, *options, identifier);
                }
            }
        }
        self.unstore(from, out);
    }

    /// Journals the filters that were called for since the last call: what the broker is asked for, the next
    /// process has to know of. Does nothing without a store.
    pub(super) fn store(&mut self, out: &mut Outbox) {
        let Some(journal) = &mut out.journal else {
            return;
        };
        let is_fresh = |request: &&mut Request| request.call.is_some() && request.own.batch == 0;
        let queue = &mut self.requests.queue;
        for request in queue.iter_mut().rev().take_while(is_fresh) {
            for (filter, options) in &request.filters {
                let identifier = request.own.identifier;
                request.own.batch = journal.put_filter(filter, *options, identifier);
            }
        }
    }

    /// Whether the filters of the next request are in the store, if there is one.
    pub(super) fn is_next_stored(&self, out: &Outbox) -> bool {
        let next = self.requests.queue.front();
        next.is_none_or(|request| request.own.batch <= out.committed())
    }

    /// Whether `filter` is subscribed to, or asked for.
    pub(super) fn has(&self, filter: &str) -> bool {
        let requests = self.requests.iter();
        let mut asked = requests.filter(|request| request.call.is_some());
        self.active.contains_key(filter) || asked.any(|request| request.names(filter))
    }

    /// The broker does not have `filter`, unless it is asked for again.
    pub(super) fn unstore(&self, filter: &str, out: &mut Outbox) {
        if let Some(journal) = &mut out.journal
            && !self.has(filter)
        {
            journal.forget_filter(filter);
        }
    }

    /// Sends the next request. What of it the broker's limits forbid fails instead.
    pub(super) fn emit(&mut self, limits: &Limits, ids: &mut PacketIds, out: &mut Outbox) {
        let Some(mut request) = self.requests.queue.pop_front() else {
            return;
        };
        let identifier = request.own.identifier.given();
        for (filter, options) in std::mem::take(&mut request.filters) {
            // What is made again was granted before, and what more it asks for an older version leaves out.
            let checked = match request.call {
                Some(_) => check_options(out.version(), &filter, options),
                None => Ok(()),
            };
            let checked = checked.and_then(|()| check(&filter, identifier, limits));
            match checked {
                Ok(()) => request.filters.push((filter, options)),
                Err(error) => self.failed(request.call, filter, error, out),
            }
        }
        if request.filters.is_empty() {
            return self.answered(&request, out);
        }
        let encode = |request: &Request, id, out: &mut Outbox| send(request, id, limits, out);
        if let Err((mut request, error)) = self.requests.send(request, ids, out, encode) {
            if let Some((filter, _)) = request.filters.pop() {
                self.failed(request.call, filter, error, out);
            }
            self.answered(&request, out);
        }
    }

    /// SUBACK for the request in flight under `key`.
    ///
    /// # Errors
    /// Not one reason per filter [MQTT-3.8.4-6]. Then it is still unanswered.
    pub(super) fn handle_suback(
        &mut self,
        key: usize,
        suback: &Suback<'_>,
        unsubscribing: &mut Unsubscribing,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(asked) = self.requests.asked(key) else {
            return Ok(());
        };
        if suback.reasons.iter().len() != asked {
            return Err(Violation::protocol(
                "MQTT-3.8.4-6",
                "SUBACK has not one reason per filter",
            ));
        }
        let Some(request) = self.requests.handle_answer(key, ids, out) else {
            return Ok(());
        };
        let remarks = Remarks::kept(suback.properties);
        let properties = Remarks::from(request.own.properties.list());
        for ((filter, options), reason) in request.filters.iter().zip(suback.reasons.iter()) {
            unsubscribing.requests.overtaken(filter, request.order);
            self.requests.overtaken(filter, request.order);
            // What is restored stands there already, unless nobody wants it any more. Nor is it wanted if
            // an UNSUBSCRIBE follows, or if a later request was answered first.
            if !reason.is_error()
                && request.call.is_some()
                && !request.overtaken.contains(filter)
                && !unsubscribing.follows(filter, request.order)
            {
                let active = Active {
                    options: *options,
                    identifier: request.own.identifier,
                    properties: properties.clone(),
                };
                self.active.insert(Rc::clone(filter), active);
            }
            let grant = Grant {
                filter: Rc::clone(filter),
                answer: Asked::Answered(reason, remarks.clone()),
            };
            self.granted(request.call, grant, out);
        }
        self.answered(&request, out);
        Ok(())
    }

    /// A subscriber is gone: what it called for and never left need not leave. Returns those filters.
    pub(super) fn withdraw(&mut self, owner: usize, out: &mut Outbox) -> Vec<Rc<str>> {
        let (calls, filters) = self.requests.withdraw(|call| call.own.owner == owner);
        for call in calls {
            conclude(call, out);
        }
        filters
    }

    /// Whether this process has asked the broker for `filter`, or is about to.
    pub(super) fn was_asked_for(&self, filter: &str) -> bool {
        self.active.contains_key(filter)
            || self.requests.iter().any(|request| request.names(filter))
    }

    /// Nobody wants `filter` any more: it is not restored. What is queued or under way for it goes on,
    /// and the UNSUBSCRIBE follows it.
    pub(super) fn forget(&mut self, filter: &str) {
        self.active.remove(filter);
    }
}

/// Appends the SUBSCRIBE.
fn send(request: &Request, id: PacketId, limits: &Limits, out: &mut Outbox) -> Result<(), Error> {
    let mut payload = Vec::new();
    for (filter, options) in &request.filters {
        push_filter(&mut payload, filter, *options);
    }
    let with_identifier;
    // One of the user's has been checked to be offered.
    let number = request.own.identifier.number();
    let properties = match number.filter(|_| limits.identifiers_available) {
        Some(identifier) => {
            let properties = request.own.properties.clone();
            with_identifier = properties.subscription_identifier(identifier);
            with_identifier.list()
        }
        None => request.own.properties.list(),
    };
    // Before 5.0 the codec leaves the properties out.
    out.send(&Packet::Subscribe(Subscribe {
        id,
        properties,
        filters: FilterList::new(&payload),
    }))
}
