//! What SUBSCRIBE and UNSUBSCRIBE have in common: calls that take a packet or several, with a few filters
//! each, which are sent in the order of the calls, and again until the broker has answered.
//!
//! ```text
//!     push ──► queue ── sent ──► flights ── handle_answer ──► the machine
//!               │ ▲                 │
//!               │ └─ disconnected ──┘
//!               └─ withdraw ──► gone, if no packet of its call has ever left
//! ```

use std::collections::VecDeque;
use std::fmt::Debug;
use std::rc::Rc;

use slab::Slab;

use super::outbox::{OnFlush, Outbox};
use super::packet_id::{Owner, PacketIds, REQUESTS};
use super::{Done, Token};
use crate::error::{Doing, Error, Sent};
use crate::message::PacketId;
use crate::wait::Wait;

/// What is a machine's own in its requests.
pub(super) trait Kind {
    /// Goes with each filter.
    type PerFilter: Debug;
    /// Goes with all filters of one packet.
    type PerPacket: Debug + Clone;
    /// Belongs to a call.
    type PerCall: Debug;
    /// What fails when a request does.
    const DOING: Doing;
    /// Who holds the identifier of a packet in flight under this key.
    const OWNER: fn(usize) -> Owner;
}

/// A call under way: it may take several packets.
#[derive(Debug)]
pub(super) struct Call<K: Kind> {
    pub(super) wait: Option<(Wait, Token)>,
    /// Packets not flushed yet, and not answered yet.
    unflushed: usize,
    unanswered: usize,
    /// Whether any packet of it has left.
    sent: Sent,
    pub(super) own: K::PerCall,
}

/// A packet that is to be sent or is unanswered.
#[derive(Debug)]
pub(super) struct Request<K: Kind> {
    /// Its place among all subscribes and unsubscribes.
    pub(super) order: u64,
    /// None if nobody called for it.
    pub(super) call: Option<usize>,
    pub(super) filters: Vec<(Rc<str>, K::PerFilter)>,
    pub(super) own: K::PerPacket,
    flushed: bool,
    /// Those of `filters` that the broker answered a later request for.
    pub(super) overtaken: Vec<Rc<str>>,
}

#[derive(Debug)]
struct Flight<K: Kind> {
    id: PacketId,
    request: Request<K>,
    /// Where the packet ends in the stream of bytes.
    end: u64,
}

/// The requests of one machine.
#[derive(Debug, Default)]
pub(super) struct Requests<K: Kind> {
    /// To be sent, in this order.
    pub(super) queue: VecDeque<Request<K>>,
    flights: Slab<Flight<K>>,
    pub(super) calls: Slab<Call<K>>,
}

impl<K: Kind> Request<K> {
    pub(super) fn new(
        order: u64,
        call: Option<usize>,
        filters: Vec<(Rc<str>, K::PerFilter)>,
        own: K::PerPacket,
    ) -> Self {
        Self {
            order,
            call,
            filters,
            own,
            flushed: false,
            overtaken: Vec::new(),
        }
    }

    pub(super) fn names(&self, filter: &str) -> bool {
        self.filters.iter().any(|(name, _)| **name == *filter)
    }

    /// Takes out the filters that the broker answered a later request for.
    pub(super) fn take_overtaken(&mut self) -> Vec<(Rc<str>, K::PerFilter)> {
        let overtaken = std::mem::take(&mut self.overtaken);
        self.filters
            .extract_if(.., |(filter, _)| overtaken.contains(filter))
            .collect()
    }
}

impl<K: Kind> Requests<K> {
    /// A call begins. Returns the key by which its requests name it.
    pub(super) fn call(&mut self, wait: Option<(Wait, Token)>, own: K::PerCall) -> usize {
        self.calls.insert(Call {
            wait,
            unflushed: 0,
            unanswered: 0,
            sent: Sent::No,
            own,
        })
    }

    /// A call needs one more packet.
    pub(super) fn push(&mut self, request: Request<K>) {
        if let Some(call) = self.call_of(request.call) {
            call.unflushed += 1;
            call.unanswered += 1;
        }
        self.queue.push_back(request);
    }

    /// The call that a request belongs to.
    pub(super) fn call_of(&mut self, call: Option<usize>) -> Option<&mut Call<K>> {
        self.calls.get_mut(call?)
    }

    /// All that are not answered.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Request<K>> {
        let flights = self.flights.iter().map(|(_, flight)| &flight.request);
        self.queue.iter().chain(flights)
    }

    /// Whether something is asked for and not answered.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty() || !self.flights.is_empty()
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

    /// Sends a request that was taken out of the queue, as `encode` does it. If the broker takes no packet as
    /// large, its filters go in two.
    ///
    /// # Errors
    /// There is only one filter: its request comes back, with the reason.
    pub(super) fn send(
        &mut self,
        request: Request<K>,
        ids: &mut PacketIds,
        out: &mut Outbox,
        encode: impl FnOnce(&Request<K>, PacketId, &mut Outbox) -> Result<(), Error>,
    ) -> Result<(), (Request<K>, Error)> {
        let Some(id) = ids.take(K::OWNER(self.flights.vacant_key())) else {
            self.queue.push_front(request);
            return Ok(());
        };
        if let Err(error) = encode(&request, id, out) {
            ids.release(id);
            if request.filters.len() < 2 {
                return Err((request, error.while_doing(K::DOING)));
            }
            self.halve(request);
            return Ok(());
        }
        out.when_flushed(OnFlush::Packet(id));
        if let Some(call) = self.call_of(request.call) {
            call.sent = Sent::Maybe;
        }
        let end = out.total();
        self.flights.insert(Flight { id, request, end });
        Ok(())
    }

    /// The filters of a request go in two.
    fn halve(&mut self, mut request: Request<K>) {
        if let Some(call) = self.call_of(request.call) {
            call.unanswered += 1;
            call.unflushed += usize::from(!request.flushed);
        }
        let half = Request {
            filters: request.filters.split_off(request.filters.len() / 2),
            own: request.own.clone(),
            overtaken: Vec::new(),
            ..request
        };
        self.queue.push_front(half);
        self.queue.push_front(request);
    }

    /// The packet in flight under `key` was flushed.
    pub(super) fn handle_flushed(&mut self, key: usize, out: &mut Outbox) {
        let Some(Flight { request, .. }) = self.flights.get_mut(key) else {
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

    /// How many filters the packet in flight under `key` has.
    pub(super) fn asked(&self, key: usize) -> Option<usize> {
        let flight = self.flights.get(key)?;
        Some(flight.request.filters.len())
    }

    /// The broker has answered the packet in flight under `key`.
    pub(super) fn handle_answer(
        &mut self,
        key: usize,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> Option<Request<K>> {
        // It has left, whether or not the flush was noticed.
        self.handle_flushed(key, out);
        let flight = self.flights.try_remove(key)?;
        ids.release(flight.id);
        Some(flight.request)
    }

    /// Ends the calls of which `is_unwanted` says so and no packet has ever left. Returns them, and the filters
    /// that they asked for.
    pub(super) fn withdraw(
        &mut self,
        is_unwanted: impl Fn(&Call<K>) -> bool,
    ) -> (Vec<Call<K>>, Vec<Rc<str>>) {
        let unwanted: Vec<usize> = self
            .calls
            .iter()
            .filter(|(_, call)| call.sent == Sent::No && is_unwanted(call))
            .map(|(key, _)| key)
            .collect();
        let mut filters = Vec::new();
        if !unwanted.is_empty() {
            self.queue.retain(|request| {
                let stays = request.call.is_none_or(|call| !unwanted.contains(&call));
                if !stays {
                    filters.extend(request.filters.iter().map(|(name, _)| Rc::clone(name)));
                }
                stays
            });
        }
        let calls = unwanted.into_iter().map(|key| self.calls.remove(key));
        (calls.collect(), filters)
    }

    /// A request of this call is done with. Returns the call if it is over.
    pub(super) fn answered(&mut self, call: usize) -> Option<Call<K>> {
        if let Some(call) = self.calls.get_mut(call) {
            call.unanswered -= 1;
        }
        self.finish(call)
    }

    /// A call is over once nothing of it is unanswered.
    pub(super) fn finish(&mut self, call: usize) -> Option<Call<K>> {
        self.calls
            .get(call)
            .is_some_and(|call| call.unanswered == 0)
            .then(|| self.calls.remove(call))
    }

    /// The broker has answered a request for `filter` that came at this place in the common order, so it has
    /// dealt with every packet before it: sent again, that would undo the later one.
    pub(super) fn overtaken(&mut self, filter: &Rc<str>, order: u64) {
        for (_, Flight { request, .. }) in &mut self.flights {
            if request.order < order && request.names(filter) {
                request.overtaken.push(Rc::clone(filter));
            }
        }
    }

    /// The connection is over. Returns what was not answered, the last first: what of it is not overtaken goes
    /// back to the front of the queue.
    pub(super) fn disconnected(
        &mut self,
        ids: &mut PacketIds,
    ) -> impl Iterator<Item = Request<K>> + use<K> {
        let flights = std::mem::take(&mut self.flights);
        let mut flights: Vec<_> = flights.into_iter().map(|(_, flight)| flight).collect();
        flights.sort_by_key(|flight| flight.end);
        for flight in &flights {
            ids.release(flight.id);
        }
        flights.into_iter().rev().map(|flight| flight.request)
    }

    /// Nothing will be sent any more: every wait ends.
    pub(super) fn close(&mut self, out: &mut Outbox) {
        self.queue.clear();
        for call in self.calls.drain() {
            if let Some((_, token)) = call.wait {
                out.done(token, Err(Error::closed(K::DOING).sent_as(call.sent)));
            }
        }
    }
}
