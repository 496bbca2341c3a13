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

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use slab::Slab;

use super::connect::Continuity;
use super::limits::Limits;
use super::outbox::{OnFlush, Outbox};
use super::packet_id::{Owner, PacketIds, REQUESTS};
use super::unsubscribe::Unsubscribing;
use super::{Asked, Done, Effect, Grant, Identifier, Token, Wish};
use crate::codec::subscribe::{FilterList, FilterOptions, push_filter};
use crate::codec::{Packet, Suback, Subscribe};
use crate::error::{Doing, Error, ErrorKind, Sent, Violation};
use crate::message::{PacketId, Qos};
use crate::properties::{Properties, Remarks};
use crate::reason::Reason;
use crate::topic;
use crate::version::Version;
use crate::wait::Wait;

/// Filters per SUBSCRIBE: one large cloud accepts no more.
pub const BATCH: usize = 8;

/// Retain Handling: send retained messages only if the subscription is new (MQTT 5, section 3.8.3.1).
const RETAINED_IF_NEW: u8 = 1;

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
        self.active.contains_key(filter)
            || asked.any(|request| request.filters.iter().any(|(name, _)| **name == *filter))
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
        let remarks = Remarks::from(suback.properties);
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

    /// The broker has answered a request for `filter` that came at this place in the common order, so it has
    /// dealt with every SUBSCRIBE before it: sent again, that would undo the later one, or lower its QoS.
    pub(super) fn overtaken(&mut self, filter: &Rc<str>, order: u64) {
        for (_, flight) in &mut self.flights {
            let mut filters = flight.request.filters.iter();
            if flight.request.order < order && filters.any(|(name, _)| name == filter) {
                flight.overtaken.push(Rc::clone(filter));
            }
        }
    }

    /// The connection is over: what was not answered is asked again, in its order. That goes for what
    /// restores, too: the next connection may find the session that this one began.
    pub(super) fn disconnected(&mut self, ids: &mut PacketIds, out: &mut Outbox) {
        let mut flights: Vec<_> = std::mem::take(&mut self.flights).into_iter().collect();
        flights.sort_by_key(|(_, flight)| flight.end);
        for (_, flight) in flights.into_iter().rev() {
            ids.release(flight.id);
            let Flight {
                mut request,
                overtaken,
                ..
            } = flight;
            for (filter, options) in std::mem::take(&mut request.filters) {
                if overtaken.contains(&filter) {
                    let answer = Asked::Answered(as_asked(options.qos), Remarks::NONE);
                    self.granted(request.call, Grant { filter, answer }, out);
                } else {
                    request.filters.push((filter, options));
                }
            }
            if request.filters.is_empty() {
                self.answered(&request, out);
            } else {
                self.queue.push_front(request);
            }
        }
    }

    /// The broker lost the session, or may have: everything granted is asked for again, before anything
    /// else, with its original options (situation 4). A subscription that may still be there brings its
    /// retained messages again only if it is not, as far as the version can say that.
    pub(super) fn restore(&mut self, continuity: Continuity) {
        let at_least = match continuity {
            Continuity::Lost | Continuity::Present => 0,
            Continuity::Untold => RETAINED_IF_NEW,
        };
        self.queue.retain(|request| request.call.is_some());
        let mut batches: Vec<Request> = Vec::new();
        // The last batch of each identifier and properties: a SUBSCRIBE has one of both for all its filters.
        let mut last: BTreeMap<(Identifier, &[u8]), usize> = BTreeMap::new();
        for (filter, active) in &self.active {
            let mut options = active.options;
            options.retain_handling = options.retain_handling.max(at_least);
            let item = (Rc::clone(filter), options);
            let kind = (active.identifier, active.properties.list().as_bytes());
            let batch = last.get(&kind).copied();
            match batch.and_then(|batch| batches.get_mut(batch)) {
                Some(batch) if batch.takes(active.identifier) => batch.filters.push(item),
                Some(_) | None => {
                    last.insert(kind, batches.len());
                    batches.push(Request {
                        order: 0,
                        call: None,
                        filters: vec![item],
                        identifier: active.identifier,
                        properties: active.properties.list().into(),
                        flushed: false,
                        batch: 0,
                    });
                }
            }
        }
        for batch in batches.into_iter().rev() {
            self.queue.push_front(batch);
        }
    }

    /// Whether something is asked for and not answered.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty() || !self.flights.is_empty()
    }

    /// Whether something that the broker lost is still to be answered.
    fn is_restoring(&self) -> bool {
        let flights = self.flights.iter().map(|(_, flight)| &flight.request);
        let mut requests = flights.chain(&self.queue);
        requests.any(|request| request.call.is_none())
    }

    /// Nothing will be sent any more: every wait ends.
    pub(super) fn close(&mut self, out: &mut Outbox) {
        self.queue.clear();
        for call in self.calls.drain() {
            if let Some((_, token)) = call.wait {
                let error = Error::closed(Doing::Subscribing).sent_as(call.sent);
                out.done(token, Err(error));
            }
        }
    }

    /// The broker takes no packet as large as this one: the filters go in two, or if there is only one,
    /// it fails.
    fn shrink(&mut self, mut request: Request, error: Error, out: &mut Outbox) {
        if request.filters.len() < 2 {
            let error = error.while_doing(Doing::Subscribing);
            for (filter, _) in std::mem::take(&mut request.filters) {
                self.failed(request.call, filter, error.clone(), out);
            }
            return self.answered(&request, out);
        }
        if let Some(call) = request.call.and_then(|call| self.calls.get_mut(call)) {
            call.unanswered += 1;
            call.unflushed += usize::from(!request.flushed);
        }
        let half = Request {
            filters: request.filters.split_off(request.filters.len() / 2),
            properties: request.properties.clone(),
            ..request
        };
        self.queue.push_front(half);
        self.queue.push_front(request);
    }

    fn failed(&mut self, call: Option<usize>, filter: Rc<str>, error: Error, out: &mut Outbox) {
        let answer = Asked::Failed(error);
        self.granted(call, Grant { filter, answer }, out);
    }

    fn granted(&mut self, call: Option<usize>, grant: Grant, out: &mut Outbox) {
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
    fn answered(&mut self, request: &Request, out: &mut Outbox) {
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
    fn conclude(&mut self, key: usize, out: &mut Outbox) {
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

/// What the broker is taken to have granted if its answer was lost and does not matter any more.
fn as_asked(qos: Qos) -> Reason {
    match qos {
        Qos::AtMostOnce => Reason::SUCCESS,
        Qos::AtLeastOnce => Reason::GRANTED_QOS_1,
        Qos::ExactlyOnce => Reason::GRANTED_QOS_2,
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

/// A call may have been accepted when it was not known yet that the broker speaks an older version.
fn check_options(version: Version, filter: &str, options: FilterOptions) -> Result<(), Error> {
    let text = match version {
        Version::V5_0 => return Ok(()),
        // It was a filter when it was accepted, and has got the two levels of requests since.
        Version::V3_1 | Version::V3_1_1 if topic::check_filter(filter).is_err() => {
            "before MQTT 5 a filter of requests cannot end with #"
        }
        Version::V3_1 | Version::V3_1_1 if options.bits() == options.qos.bits() => return Ok(()),
        Version::V3_1 | Version::V3_1_1 => {
            "No Local, Retain As Published and Retain Handling need MQTT 5"
        }
    };
    Err(Error::new(
        ErrorKind::Misuse(text.into()),
        Doing::Subscribing,
    ))
}

/// What the broker said at CONNACK that it does not offer (MQTT 5, sections 3.2.2.3.11 to .13).
fn check(filter: &str, identifier: Option<u32>, limits: &Limits) -> Result<(), Error> {
    let refuse = |reason| {
        Err(Error::new(
            ErrorKind::NotOffered(reason),
            Doing::Subscribing,
        ))
    };
    if !limits.wildcards_available && topic::has_wildcard(filter) {
        return refuse(Reason::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED);
    }
    if !limits.shared_available && topic::is_shared(filter) {
        return refuse(Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
    }
    if !limits.identifiers_available && identifier.is_some() {
        return refuse(Reason::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED);
    }
    Ok(())
}
