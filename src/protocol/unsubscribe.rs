//! UNSUBSCRIBE and UNSUBACK (MQTT 5, sections 3.10, 3.11).
//!
//! ```text
//!     a call ──► Queued ────────────► Asked ───────────► done, with the broker's reasons
//!                  ▲    UNSUBSCRIBE     │     UNSUBACK
//!                  └────────────────────┘
//!                   link lost: a new request with a new identifier (situation 14)
//! ```

use std::collections::VecDeque;
use std::rc::Rc;

use slab::Slab;

use super::outbox::{OnFlush, Outbox};
use super::packet_id::{Owner, PacketIds, REQUESTS};
use super::subscribe::{BATCH, Subscribing};
use super::{Done, Token};
use crate::codec::unsubscribe::{NameList, push_name};
use crate::codec::{Packet, Unsuback, Unsubscribe};
use crate::error::{Doing, Error, Sent, Violation};
use crate::message::PacketId;
use crate::properties::{Properties, PropertyList, Remarks};
use crate::reason::Reason;
use crate::version::Version;
use crate::wait::Wait;

/// A call under way: it may take several UNSUBSCRIBEs.
#[derive(Debug)]
struct Call {
    wait: Option<(Wait, Token)>,
    /// They go with each UNSUBSCRIBE of it.
    properties: Properties,
    /// UNSUBSCRIBEs not flushed yet, and not answered yet.
    unflushed: usize,
    unanswered: usize,
    /// The broker's reasons, in the order of the filters.
    reasons: Vec<Reason>,
    /// What the broker said beside them.
    remarks: Remarks,
    /// The first filter that failed.
    failure: Option<Error>,
    /// Whether any UNSUBSCRIBE of it has left.
    sent: Sent,
}

/// One UNSUBSCRIBE that is to be sent or is unanswered.
#[derive(Debug)]
struct Request {
    order: u64,
    call: usize,
    /// Each with its place among the filters of the call.
    filters: Vec<(usize, Rc<str>)>,
    flushed: bool,
}

#[derive(Debug)]
struct Flight {
    id: PacketId,
    request: Request,
    /// Where the packet ends in the stream of bytes.
    end: u64,
    /// Filters that the broker answered a later SUBSCRIBE for.
    overtaken: Vec<Rc<str>>,
}

impl Request {
    fn names(&self, filter: &str) -> bool {
        self.filters.iter().any(|(_, name)| **name == *filter)
    }
}

/// The machine.
#[derive(Debug, Default)]
pub(super) struct Unsubscribing {
    queue: VecDeque<Request>,
    flights: Slab<Flight>,
    calls: Slab<Call>,
}

impl Unsubscribing {
    /// A caller wants to unsubscribe, at its place among all subscribes and unsubscribes.
    pub(super) fn unsubscribe(
        &mut self,
        filters: &[Rc<str>],
        properties: Properties,
        wait: Option<(Wait, Token)>,
        order: u64,
        out: &mut Outbox,
    ) {
        let batches = filters.len().div_ceil(BATCH);
        let call = self.calls.insert(Call {
            wait,
            properties,
            unflushed: batches,
            unanswered: batches,
            reasons: vec![Reason::SUCCESS; filters.len()],
            remarks: Remarks::NONE,
            failure: None,
            sent: Sent::No,
        });
        let placed: Vec<(usize, Rc<str>)> = filters.iter().cloned().enumerate().collect();
        for filters in placed.chunks(BATCH) {
            self.queue.push_back(Request {
                order,
                call,
                filters: filters.to_vec(),
                flushed: false,
            });
        }
        self.conclude(call, out);
    }

    /// The place of the next request in the common order.
    pub(super) fn next_order(&self) -> Option<u64> {
        self.queue.front().map(|request| request.order)
    }

    /// Whether a request may be sent now. Then a packet identifier is free for it: publications leave
    /// as many as both kinds of requests can hold.
    pub(super) fn is_free(&self) -> bool {
        self.flights.len() < REQUESTS
    }

    /// Sends the next request.
    pub(super) fn emit(&mut self, ids: &mut PacketIds, out: &mut Outbox) {
        let Some(request) = self.queue.pop_front() else {
            return;
        };
        let Some(id) = ids.take(Owner::Unsubscribe(self.flights.vacant_key())) else {
            self.queue.push_front(request);
            return;
        };
        let mut payload = Vec::new();
        for (_, filter) in &request.filters {
            push_name(&mut payload, filter);
        }
        let properties = self.calls.get(request.call).map(|call| &call.properties);
        let packet = Packet::Unsubscribe(Unsubscribe {
            id,
            properties: properties.map_or(PropertyList::EMPTY, Properties::list),
            filters: NameList::new(&payload),
        });
        if let Err(error) = out.send(&packet) {
            ids.release(id);
            return self.shrink(request, error, out);
        }
        out.when_flushed(OnFlush::Packet(id));
        if let Some(call) = self.calls.get_mut(request.call) {
            call.sent = Sent::Maybe;
        }
        self.flights.insert(Flight {
            id,
            request,
            end: out.total(),
            overtaken: Vec::new(),
        });
    }

    /// The UNSUBSCRIBE in flight under `key` was flushed.
    pub(super) fn handle_flushed(&mut self, key: usize, out: &mut Outbox) {
        let Some(request) = self.flights.get_mut(key).map(|flight| &mut flight.request) else {
            return;
        };
        if std::mem::replace(&mut request.flushed, true) {
            return;
        }
        let Some(call) = self.calls.get_mut(request.call) else {
            return;
        };
        call.unflushed -= 1;
        if call.unflushed == 0
            && let Some((_, token)) = call.wait.take_if(|(wait, _)| *wait == Wait::Sent)
        {
            out.done(token, Ok(Done::Sent));
        }
    }

    /// UNSUBACK for the request in flight under `key`.
    ///
    /// # Errors
    /// On 5.0, not one reason per filter [MQTT-3.11.3-2]. Then it is still unanswered.
    pub(super) fn handle_unsuback(
        &mut self,
        key: usize,
        unsuback: &Unsuback<'_>,
        subscribing: &mut Subscribing,
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
        let reasons: Vec<Reason> = match out.version() {
            Version::V5_0 => unsuback.reasons.iter().collect(),
            // Before 5.0 the answer is always yes.
            Version::V3_1 | Version::V3_1_1 => vec![Reason::SUCCESS; asked],
        };
        if reasons.len() != asked {
            return Err(Violation::protocol(
                "MQTT-3.11.3-2",
                "UNSUBACK has not one reason per filter",
            ));
        }
        // It has left, whether or not the flush was noticed.
        self.handle_flushed(key, out);
        let Flight { id, request, .. } = self.flights.remove(key);
        ids.release(id);
        if let Some(call) = self.calls.get_mut(request.call)
            && call.wait.is_some()
        {
            let before = std::mem::take(&mut call.remarks);
            call.remarks = before.and(unsuback.properties);
        }
        for ((place, filter), reason) in request.filters.iter().zip(reasons) {
            subscribing.overtaken(filter, request.order);
            subscribing.unstore(filter, out);
            let Some(call) = self.calls.get_mut(request.call) else {
                continue;
            };
            if let Some(slot) = call.reasons.get_mut(*place) {
                *slot = reason;
            }
            if reason.is_error() {
                let said = unsuback.properties.into();
                let error = Error::refused(reason, Some(filter), said, Doing::Unsubscribing);
                call.failure.get_or_insert(error);
            }
        }
        self.answered(&request, out);
        Ok(())
    }

    /// Whether `filter` is unsubscribed from by a call that came after `order` and is not answered.
    pub(super) fn follows(&self, filter: &str, order: u64) -> bool {
        let flights = self.flights.iter().map(|(_, flight)| &flight.request);
        self.queue
            .iter()
            .chain(flights)
            .filter(|request| request.order > order)
            .any(|request| request.names(filter))
    }

    /// The broker has answered a SUBSCRIBE for `filter` that came at this place in the common order, so it
    /// has dealt with every UNSUBSCRIBE before it: sent again, that would undo the later one.
    pub(super) fn overtaken(&mut self, filter: &Rc<str>, order: u64) {
        for (_, flight) in &mut self.flights {
            if flight.request.order < order && flight.request.names(filter) {
                flight.overtaken.push(Rc::clone(filter));
            }
        }
    }

    /// The connection is over: what was not answered is asked again, in its order.
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
            request
                .filters
                .retain(|(_, filter)| !overtaken.contains(filter));
            if request.filters.is_empty() {
                self.answered(&request, out);
            } else {
                self.queue.push_front(request);
            }
        }
    }

    /// Whether something is asked for and not answered.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty() || !self.flights.is_empty()
    }

    /// Nothing will be sent any more: every wait ends.
    pub(super) fn close(&mut self, out: &mut Outbox) {
        self.queue.clear();
        for call in self.calls.drain() {
            if let Some((_, token)) = call.wait {
                let error = Error::closed(Doing::Unsubscribing).sent_as(call.sent);
                out.done(token, Err(error));
            }
        }
    }

    /// The broker takes no packet as large as this one: the filters go in two, or if there is only one,
    /// it fails.
    fn shrink(&mut self, mut request: Request, error: Error, out: &mut Outbox) {
        let Some(call) = self.calls.get_mut(request.call) else {
            return;
        };
        if request.filters.len() < 2 {
            call.failure
                .get_or_insert_with(|| error.while_doing(Doing::Unsubscribing));
            return self.answered(&request, out);
        }
        call.unanswered += 1;
        call.unflushed += usize::from(!request.flushed);
        let kept = request.filters.len() / 2;
        let half = Request {
            filters: request.filters.split_off(kept),
            ..request
        };
        self.queue.push_front(half);
        self.queue.push_front(request);
    }

    /// A request is done with.
    fn answered(&mut self, request: &Request, out: &mut Outbox) {
        if let Some(call) = self.calls.get_mut(request.call) {
            call.unanswered -= 1;
        }
        self.conclude(request.call, out);
    }

    /// A call is over once nothing of it is unanswered.
    fn conclude(&mut self, key: usize, out: &mut Outbox) {
        if self.calls.get(key).is_none_or(|call| call.unanswered > 0) {
            return;
        }
        let call = self.calls.remove(key);
        let Some((_, token)) = call.wait else { return };
        let outcome = call
            .failure
            .map_or(Ok(Done::Unsubscribed(call.reasons, call.remarks)), Err);
        out.done(token, outcome);
    }
}
