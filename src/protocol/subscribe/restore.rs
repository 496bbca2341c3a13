//! What a lost link and the next CONNACK do to requests and to what was granted (situations 4 and 14).

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Request, Subscribing, Terms};
use crate::message::Qos;
use crate::properties::Remarks;
use crate::protocol::connect::Continuity;
use crate::protocol::outbox::Outbox;
use crate::protocol::packet_id::PacketIds;
use crate::protocol::{Asked, Grant, Identifier};
use crate::reason::Reason;

/// Retain Handling: send retained messages only if the subscription is new (MQTT 5, section 3.8.3.1).
const RETAINED_IF_NEW: u8 = 1;

impl Subscribing {
    /// The connection is over: what was not answered is asked again, in its order. That goes for what
    /// restores, too: the next connection may find the session that this one began.
    pub(in crate::protocol) fn disconnected(&mut self, ids: &mut PacketIds, out: &mut Outbox) {
        for mut request in self.requests.disconnected(ids) {
            for (filter, options) in request.take_overtaken() {
                let answer = Asked::Answered(as_asked(options.qos), Remarks::NONE);
                self.granted(request.call, Grant { filter, answer }, out);
            }
            if request.filters.is_empty() {
                self.answered(&request, out);
            } else {
                self.requests.queue.push_front(request);
            }
        }
    }

    /// The broker lost the session, or may have: everything granted is asked for again, before anything
    /// else, with its original options (situation 4). A subscription that may still be there brings its
    /// retained messages again only if it is not, as far as the version can say that.
    pub(in crate::protocol) fn restore(&mut self, continuity: Continuity) {
        let at_least = match continuity {
            Continuity::Lost | Continuity::Present => 0,
            Continuity::Untold => RETAINED_IF_NEW,
        };
        let queue = &mut self.requests.queue;
        queue.retain(|request| request.call.is_some());
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
                    let terms = Terms {
                        identifier: active.identifier,
                        properties: active.properties.list().into(),
                        batch: 0,
                    };
                    batches.push(Request::new(0, None, vec![item], terms));
                }
            }
        }
        for batch in batches.into_iter().rev() {
            queue.push_front(batch);
        }
    }

    /// Whether something that the broker lost is still to be answered.
    pub(super) fn is_restoring(&self) -> bool {
        self.requests.iter().any(|request| request.call.is_none())
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
