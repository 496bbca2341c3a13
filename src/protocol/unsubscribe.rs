//! UNSUBSCRIBE and UNSUBACK (MQTT 5, sections 3.10, 3.11).
//!
//! ```text
//!     a call ──► Queued ────────────► Asked ───────────► done, with the broker's reasons
//!                  ▲    UNSUBSCRIBE     │     UNSUBACK
//!                  └────────────────────┘
//!                   link lost: a new request with a new identifier (situation 14)
//! ```
//!
//! What is the same for SUBSCRIBE is in [`requests`].

use std::rc::Rc;

use super::outbox::Outbox;
use super::packet_id::{Owner, PacketIds};
use super::requests::{self, Call, Kind, Requests};
use super::subscribe::{BATCH, Subscribing};
use super::{Done, Token};
use crate::codec::unsubscribe::{NameList, push_name};
use crate::codec::{Packet, Unsuback, Unsubscribe};
use crate::error::{Doing, Error, Violation};
use crate::properties::{Properties, Remarks};
use crate::reason::Reason;
use crate::version::Version;
use crate::wait::Wait;

/// What a call of `unsubscribe` gathers.
#[derive(Debug)]
pub(super) struct Reasons {
    /// The broker's reasons, in the order of the filters.
    reasons: Vec<Reason>,
    /// What the broker said beside them.
    remarks: Remarks,
    /// The first filter that failed.
    failure: Option<Error>,
}

impl Kind for Unsubscribing {
    /// Its place among the filters of the call.
    type PerFilter = usize;
    type PerPacket = Properties;
    type PerCall = Reasons;
    const DOING: Doing = Doing::Unsubscribing;
    const OWNER: fn(usize) -> Owner = Owner::Unsubscribe;
}

/// One UNSUBSCRIBE, with its properties.
type Request = requests::Request<Unsubscribing>;

/// The machine.
#[derive(Debug, Default)]
pub(super) struct Unsubscribing {
    pub(super) requests: Requests<Self>,
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
        let reasons = Reasons {
            reasons: vec![Reason::SUCCESS; filters.len()],
            remarks: Remarks::NONE,
            failure: None,
        };
        let call = self.requests.call(wait, reasons);
        let placed: Vec<(Rc<str>, usize)> = filters.iter().cloned().zip(0..).collect();
        for filters in placed.chunks(BATCH) {
            let (filters, properties) = (filters.to_vec(), properties.clone());
            let request = Request::new(order, Some(call), filters, properties);
            self.requests.push(request);
        }
        if let Some(over) = self.requests.finish(call) {
            conclude(over, out);
        }
    }

    /// Sends the next request.
    pub(super) fn emit(&mut self, ids: &mut PacketIds, out: &mut Outbox) {
        let Some(request) = self.requests.queue.pop_front() else {
            return;
        };
        let encode = |request: &Request, id, out: &mut Outbox| {
            let mut payload = Vec::new();
            for (filter, _) in &request.filters {
                push_name(&mut payload, filter);
            }
            out.send(&Packet::Unsubscribe(Unsubscribe {
                id,
                properties: request.own.list(),
                filters: NameList::new(&payload),
            }))
        };
        if let Err((request, error)) = self.requests.send(request, ids, out, encode) {
            if let Some(call) = self.requests.call_of(request.call) {
                call.own.failure.get_or_insert(error);
            }
            self.answered(&request, out);
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
        let Some(asked) = self.requests.asked(key) else {
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
        let Some(request) = self.requests.handle_answer(key, ids, out) else {
            return Ok(());
        };
        if let Some(call) = self.requests.call_of(request.call)
            && call.wait.is_some()
        {
            let before = std::mem::take(&mut call.own.remarks);
            let both = before.and(unsuback.properties);
            // Of one call there may be many, each with a MiB.
            call.own.remarks = Remarks::kept(both.list());
        }
        for ((filter, place), reason) in request.filters.iter().zip(reasons) {
            subscribing.requests.overtaken(filter, request.order);
            subscribing.unstore(filter, out);
            let Some(call) = self.requests.call_of(request.call) else {
                continue;
            };
            if let Some(slot) = call.own.reasons.get_mut(*place) {
                *slot = reason;
            }
            if reason.is_error() {
                let said = unsuback.properties.into();
                let error = Error::refused(reason, Some(filter), said, Doing::Unsubscribing);
                call.own.failure.get_or_insert(error);
            }
        }
        self.answered(&request, out);
        Ok(())
    }

    /// Whether `filter` is to be unsubscribed from.
    pub(super) fn names(&self, filter: &str) -> bool {
        self.requests.iter().any(|request| request.names(filter))
    }

    /// Whether `filter` is unsubscribed from by a call that came after `order` and is not answered.
    pub(super) fn follows(&self, filter: &str, order: u64) -> bool {
        self.requests
            .iter()
            .any(|request| request.order > order && request.names(filter))
    }

    /// The connection is over: what was not answered is asked again, in its order.
    pub(super) fn disconnected(&mut self, ids: &mut PacketIds, out: &mut Outbox) {
        for mut request in self.requests.disconnected(ids) {
            request.take_overtaken();
            if request.filters.is_empty() {
                self.answered(&request, out);
            } else {
                self.requests.queue.push_front(request);
            }
        }
    }

    /// A request is done with.
    fn answered(&mut self, request: &Request, out: &mut Outbox) {
        if let Some(over) = request.call.and_then(|call| self.requests.answered(call)) {
            conclude(over, out);
        }
    }
}

/// A call is over.
fn conclude(call: Call<Unsubscribing>, out: &mut Outbox) {
    let Some((_, token)) = call.wait else { return };
    let own = call.own;
    let done = Done::Unsubscribed(own.reasons, own.remarks);
    out.done(token, own.failure.map_or(Ok(done), Err));
}
