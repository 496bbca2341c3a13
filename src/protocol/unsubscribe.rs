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
use super::packet_id::{Owner, PacketIds};
use super::subscribe::Subscribing;
use super::{Done, Token};
use crate::codec::unsubscribe::{NameList, push_name};
use crate::codec::{Packet, Unsuback, Unsubscribe};
use crate::error::{Doing, Error, ErrorKind, Sent, Violation};
use crate::message::PacketId;
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::version::Version;
use crate::wait::Wait;

/// Requests that may be unanswered at a time: half of the reserved packet identifiers.
const IN_FLIGHT: usize = super::packet_id::RESERVED / 2;

/// One UNSUBSCRIBE that is to be sent or is unanswered.
#[derive(Debug)]
struct Request {
    order: u64,
    filters: Vec<Rc<str>>,
    wait: Option<(Wait, Token)>,
}

#[derive(Debug)]
struct Flight {
    id: PacketId,
    request: Request,
    /// Where the packet ends in the stream of bytes.
    end: u64,
}

/// The machine.
#[derive(Debug, Default)]
pub(super) struct Unsubscribing {
    queue: VecDeque<Request>,
    flights: Slab<Flight>,
}

impl Unsubscribing {
    /// A caller wants to unsubscribe, at its place among all subscribes and unsubscribes.
    pub(super) fn unsubscribe(
        &mut self,
        filters: &[Rc<str>],
        wait: Option<(Wait, Token)>,
        order: u64,
    ) {
        let mut batches = filters.chunks(super::subscribe::BATCH).peekable();
        while let Some(batch) = batches.next() {
            // Answers come in order, so the last batch speaks for all.
            let wait = if batches.peek().is_none() { wait } else { None };
            self.queue.push_back(Request {
                order,
                filters: batch.to_vec(),
                wait,
            });
        }
    }

    /// The place of the next request in the common order.
    pub(super) fn next_order(&self) -> Option<u64> {
        self.queue.front().map(|request| request.order)
    }

    /// Whether a request may be sent now. Then a packet identifier is free for it: publications leave
    /// as many as both kinds of requests can hold.
    pub(super) fn is_free(&self) -> bool {
        self.flights.len() < IN_FLIGHT
    }

    /// Sends the next request.
    pub(super) fn emit(&mut self, ids: &mut PacketIds, out: &mut Outbox) {
        let Some(id) = ids.take(Owner::Unsubscribe(self.flights.vacant_key())) else {
            return;
        };
        let Some(request) = self.queue.pop_front() else {
            ids.release(id);
            return;
        };
        let mut payload = Vec::new();
        for filter in &request.filters {
            push_name(&mut payload, filter);
        }
        let packet = Packet::Unsubscribe(Unsubscribe {
            id,
            properties: PropertyList::EMPTY,
            filters: NameList::new(&payload),
        });
        if let Err(error) = out.send(&packet) {
            ids.release(id);
            if let Some((_, token)) = request.wait {
                out.done(token, Err(error.while_doing(Doing::Unsubscribing)));
            }
            return;
        }
        out.when_flushed(OnFlush::Packet(id));
        self.flights.insert(Flight {
            id,
            request,
            end: out.total(),
        });
    }

    /// The UNSUBSCRIBE in flight under `key` was flushed.
    pub(super) fn handle_flushed(&mut self, key: usize, out: &mut Outbox) {
        let Some(flight) = self.flights.get_mut(key) else {
            return;
        };
        if let Some((_, token)) = flight.request.wait.take_if(|(wait, _)| *wait == Wait::Sent) {
            out.done(token, Ok(Done::Sent));
        }
    }

    /// UNSUBACK for the request in flight under `key`.
    ///
    /// # Errors
    /// On 5.0, not one reason per filter [MQTT-3.11.3-2].
    pub(super) fn handle_unsuback(
        &mut self,
        key: usize,
        unsuback: &Unsuback<'_>,
        subscribing: &mut Subscribing,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(flight) = self.flights.try_remove(key) else {
            return Ok(());
        };
        ids.release(flight.id);
        let request = flight.request;
        let reasons: Vec<Reason> = match out.version() {
            Version::V5_0 => unsuback.reasons.iter().collect(),
            // Before 5.0 the answer is always yes.
            Version::V3_1 | Version::V3_1_1 => vec![Reason::SUCCESS; request.filters.len()],
        };
        if reasons.len() != request.filters.len() {
            return Err(Violation::protocol(
                "MQTT-3.11.3-2",
                "UNSUBACK has not one reason per filter",
            ));
        }
        for filter in &request.filters {
            // A SUBACK that came after the call had made it active again.
            subscribing.forget(filter);
        }
        let Some((_, token)) = request.wait else {
            return Ok(());
        };
        let refused = request
            .filters
            .iter()
            .zip(&reasons)
            .find(|(_, reason)| reason.is_error());
        let outcome = match refused {
            Some((filter, reason)) => {
                let kind = ErrorKind::Refused {
                    reason: *reason,
                    filter: Some(filter.as_ref().into()),
                    text: unsuback.properties.reason_string().map(Into::into),
                };
                Err(Error::new(kind, Doing::Unsubscribing).sent_as(Sent::Yes))
            }
            None => Ok(Done::Unsubscribed(reasons)),
        };
        out.done(token, outcome);
        Ok(())
    }

    /// The connection is over: what was not answered is asked again, in its order.
    pub(super) fn disconnected(&mut self, ids: &mut PacketIds) {
        let mut flights: Vec<_> = self.flights.drain().collect();
        flights.sort_by_key(|flight| flight.end);
        for flight in flights.into_iter().rev() {
            ids.release(flight.id);
            self.queue.push_front(flight.request);
        }
    }

    /// Whether something is asked for and not answered.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty() || !self.flights.is_empty()
    }
}
