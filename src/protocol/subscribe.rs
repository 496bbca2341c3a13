//! SUBSCRIBE and SUBACK: what is wanted, asked for, and granted (MQTT 5, sections 3.8, 3.9).
//!
//! ```text
//!     a call ──► Queued ──────────► Asked ──────────► granted: stands in `active`
//!                  ▲    SUBSCRIBE     │     SUBACK    refused: the subscriber is told
//!                  └──────────────────┘
//!                   link lost: a new request with a new identifier (situation 14)
//! ```
//!
//! `active` outlives connections; when the broker lost the session it is asked for again, first of all.
//! Requests and UNSUBSCRIBEs share one order, so that the last word about a filter is the caller's.
//!
//! Here are the calls, the SUBSCRIBEs and the SUBACKs. What of a request may not be sent is in `checks`, what
//! the caller learns in `answers`, and what a lost link or a lost session does in `restore`.

mod answers;
mod checks;
mod restore;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use slab::Slab;

use super::limits::Limits;
use super::outbox::{OnFlush, Outbox};
use super::packet_id::{Owner, PacketIds, REQUESTS};
use super::unsubscribe::Unsubscribing;
use super::{Asked, Done, Grant, Identifier, Token, Wish};
use crate::codec::subscribe::{FilterList, FilterOptions, push_filter};
use crate::codec::{Packet, Suback, Subscribe};
use crate::error::{Error, Sent, Violation};
use crate::message::PacketId;
use crate::properties::{Properties, Remarks};
use crate::wait::Wait;

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

/// A call under way: it may take several SUBSCRIBEs.
#[derive(Debug)]
struct Call {
    owner: usize,
    wait: Option<(Wait, Token)>,
    /// SUBSCRIBEs not flushed yet, and not answered yet.
    unflushed: usize,
    unanswered: usize,
    grants: Vec<Grant>,
    /// Whether any SUBSCRIBE of it has left.
    sent: Sent,
}

/// One SUBSCRIBE that is to be sent or is unanswered.
#[derive(Debug)]
struct Request {
    order: u64,
    /// None if it restores what the broker forgot.
    call: Option<usize>,
    filters: Vec<(Rc<str>, FilterOptions)>,
    identifier: Identifier,
    properties: Properties,
    flushed: bool,
    /// The batch that has the filters; 0 if none has.
    batch: u64,
}

impl Request {
    /// Whether another filter may stand in the same SUBSCRIBE: it has one identifier for all.
    fn takes(&self, identifier: Identifier) -> bool {
        self.identifier == identifier && self.filters.len() < BATCH
    }

    fn names(&self, filter: &str) -> bool {
        self.filters.iter().any(|(name, _)| **name == *filter)
    }
}

#[derive(Debug)]
struct Flight {
    id: PacketId,
    request: Request,
    /// Where the packet ends in the stream of bytes.
    end: u64,
    /// Filters that the broker answered a later request for.
    overtaken: Vec<Rc<str>>,
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
    queue: VecDeque<Request>,
    flights: Slab<Flight>,
    calls: Slab<Call>,
}

impl Subscribing {
    /// A caller wants to subscribe. `order` is its place among all subscribes and unsubscribes.
    pub(super) fn subscribe(&mut self, subscription: Subscription, order: u64, out: &mut Outbox) {
        let call = self.calls.insert(Call {
            owner: subscription.owner,
            wait: subscription.wait,
            unflushed: 0,
            unanswered: 0,
            grants: Vec::with_capacity(subscription.filters.len()),
            sent: Sent::No,
        });
        let mut batches: Vec<Request> = Vec::new();
        for wish in subscription.filters {
            let item = (wish.filter, wish.options);
            match batches.last_mut() {
                Some(batch) if batch.takes(wish.identifier) => batch.filters.push(item),
                Some(_) | None => batches.push(Request {
                    order,
                    call: Some(call),
                    filters: vec![item],
                    identifier: wish.identifier,
                    properties: subscription.properties.clone(),
                    flushed: false,
                    batch: 0,
                }),
            }
        }
        if let Some(call) = self.calls.get_mut(call) {
            call.unflushed = batches.len();
            call.unanswered = batches.len();
        }
        self.queue.extend(batches);
        self.conclude(call, out);
    }

    /// A subscriber wants another filter instead of this one, which was never asked for.
    pub(super) fn rename(&mut self, owner: usize, from: &str, wish: &Wish, out: &mut Outbox) {
        for request in &mut self.queue {
            let call = request.call.and_then(|call| self.calls.get(call));
            if call.is_none_or(|call| call.owner != owner) {
                continue;
            }
            for (filter, options) in &mut request.filters {
                if **filter != *from {
                    continue;
                }
                (*filter, *options) = (Rc::clone(&wish.filter), wish.options);
                if let Some(journal) = &mut out.journal
                    && request.batch > 0
                {
                    request.batch = journal.put_filter(filter, *options, request.identifier);
                }
            }
        }
        self.unstore(from, out);
    }

    /// The place of the next request in the common order.
    pub(super) fn next_order(&self) -> Option<u64> {
        self.queue.front().map(|request| request.order)
    }

    /// Journals the filters that were called for since the last call: what the broker is asked for, the next
    /// process has to know of. Does nothing without a store.
    pub(super) fn store(&mut self, out: &mut Outbox) {
        let Some(journal) = &mut out.journal else {
            return;
        };
        let is_fresh = |request: &&mut Request| request.call.is_some() && request.batch == 0;
        for request in self.queue.iter_mut().rev().take_while(is_fresh) {
            for (filter, options) in &request.filters {
                request.batch = journal.put_filter(filter, *options, request.identifier);
            }
        }
    }

    /// Whether the filters of the next request are in the store, if there is one.
    pub(super) fn is_next_stored(&self, out: &Outbox) -> bool {
        let next = self.queue.front();
        next.is_none_or(|request| request.batch <= out.committed())
    }

    /// Whether `filter` is subscribed to, or asked for.
    pub(super) fn has(&self, filter: &str) -> bool {
        let flights = self.flights.iter().map(|(_, flight)| &flight.request);
        let asked = self.queue.iter().chain(flights);
        let mut asked = asked.filter(|request| request.call.is_some());
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

    /// Whether a request may be sent now. Then a packet identifier is free for it: publications leave
    /// as many as both kinds of requests can hold.
    pub(super) fn is_free(&self) -> bool {
        self.flights.len() < REQUESTS
    }

    /// Sends the next request. What of it the broker's limits forbid fails instead.
    pub(super) fn emit(&mut self, limits: &Limits, ids: &mut PacketIds, out: &mut Outbox) {
        let Some(mut request) = self.queue.pop_front() else {
            return;
        };
        let identifier = request.identifier.given();
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
        let Some(id) = ids.take(Owner::Subscribe(self.flights.vacant_key())) else {
            self.queue.push_front(request);
            return;
        };
        if let Err(error) = send(&request, id, limits, out) {
            ids.release(id);
            return self.shrink(request, error, out);
        }
        out.when_flushed(OnFlush::Packet(id));
        if let Some(call) = request.call.and_then(|call| self.calls.get_mut(call)) {
            call.sent = Sent::Maybe;
        }
        self.flights.insert(Flight {
            id,
            request,
            end: out.total(),
            overtaken: Vec::new(),
        });
    }

    /// The SUBSCRIBE in flight under `key` was flushed.
    pub(super) fn handle_flushed(&mut self, key: usize, out: &mut Outbox) {
        let Some(request) = self.flights.get_mut(key).map(|flight| &mut flight.request) else {
            return;
        };
        if std::mem::replace(&mut request.flushed, true) {
            return;
        }
        let Some(call) = request.call.and_then(|call| self.calls.get_mut(call)) else {
            return;
        };
        call.unflushed -= 1;
        if call.unflushed == 0
            && let Some((_, token)) = call.wait.take_if(|(wait, _)| *wait == Wait::Sent)
        {
            out.done(token, Ok(Done::Sent));
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
        let Some(asked) = self
            .flights
            .get(key)
            .map(|flight| flight.request.filters.len())
        else {
            return Ok(());
        };
        if suback.reasons.iter().len() != asked {
            return Err(Violation::protocol(
                "MQTT-3.8.4-6",
                "SUBACK has not one reason per filter",
            ));
        }
        // It has left, whether or not the flush was noticed.
        self.handle_flushed(key, out);
        let Flight {
            id,
            request,
            overtaken,
            ..
        } = self.flights.remove(key);
        ids.release(id);
        let remarks = Remarks::kept(suback.properties);
        let properties = Remarks::from(request.properties.list());
        for ((filter, options), reason) in request.filters.iter().zip(suback.reasons.iter()) {
            unsubscribing.overtaken(filter, request.order);
            self.overtaken(filter, request.order);
            // What is restored stands there already, unless nobody wants it any more. Nor is it wanted if
            // an UNSUBSCRIBE follows, or if a later request was answered first.
            if !reason.is_error()
                && request.call.is_some()
                && !overtaken.contains(filter)
                && !unsubscribing.follows(filter, request.order)
            {
                let active = Active {
                    options: *options,
                    identifier: request.identifier,
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

    /// Nobody wants `filter` any more: it is not restored. What is queued or under way for it goes on,
    /// and the UNSUBSCRIBE follows it.
    pub(super) fn forget(&mut self, filter: &str) {
        self.active.remove(filter);
    }

    /// Whether something is asked for and not answered.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty() || !self.flights.is_empty()
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
    let number = request.identifier.number();
    let properties = match number.filter(|_| limits.identifiers_available) {
        Some(identifier) => {
            let properties = request.properties.clone();
            with_identifier = properties.subscription_identifier(identifier);
            with_identifier.list()
        }
        None => request.properties.list(),
    };
    // Before 5.0 the codec leaves the properties out.
    out.send(&Packet::Subscribe(Subscribe {
        id,
        properties,
        filters: FilterList::new(&payload),
    }))
}
