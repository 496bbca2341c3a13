//! QoS 1 and 2 on the way out: PUBLISH, and what PUBACK, PUBREC and PUBCOMP do to it (MQTT 5,
//! section 4.3).
//!
//! ```text
//!               room, quota          PUBACK; PUBREC ≥ 0x80
//!     Pending ──────────────► Sent ───────────────────────────► done
//!        ▲                     │ │ PUBREC                PUBCOMP  ▲
//!        │                     │ └──────────► Released ───────────┘
//!        │           link lost │                 │ link lost, then the session
//!        │                     ▼                 └─────────────► ended: SessionLost, received
//!        │  session lost   Unsettled ── session present, quota ──► Sent
//!        └─────────────────────┘
//! ```
//!
//! An entry outlives connections; the [`Window`] (quota and replay) belongs to one. Entries keep the
//! order in which they were accepted, and released ones the order of their PUBRECs, because a replay
//! follows it [MQTT-4.6.0-1/-4].

mod replay;

use std::collections::VecDeque;
use std::time::Instant;

use slab::Slab;

use super::connect::Limits;
use super::expiry::Expiry;
use super::outbox::{OnFlush, Outbox};
use super::packet_id::{Owner, PacketIds};
use super::window::{Proof, Window};
use super::{Done, Effect, Token};
use crate::codec::Publish;
use crate::codec::publish::AckKind;
use crate::error::{Doing, Error, ErrorKind, Sent};
use crate::message::{Message, PacketId, Qos};
use crate::properties::{Properties, PropertyList};
use crate::reason::Reason;
use crate::version::Version;
use crate::wait::Wait;

/// Connections that the broker may close over one message before the message is given up.
const CUTS: u8 = 3;

/// Bytes that a message counts beside topic and payload: about what its entry takes.
pub(super) const OVERHEAD: usize = 64;

/// All QoS 1 and 2 messages that are not finished.
#[derive(Debug, Default)]
pub(super) struct PublishOut {
    entries: Slab<Entry>,
    /// Accepted and without an identifier, oldest first.
    pending: VecDeque<usize>,
    /// Bytes of everything that is not finished.
    bytes: usize,
    next_order: u64,
    /// Pending messages that were accepted since the last turn: the last ones.
    fresh: usize,
}

#[derive(Debug)]
struct Entry {
    /// None once the broker has confirmed that it received it.
    message: Option<Message>,
    qos: Qos,
    cost: usize,
    order: u64,
    expires: Expiry,
    wait: Option<(Wait, Token)>,
    stage: Stage,
    /// Connections that ended over this message.
    cuts: u8,
}

#[derive(Debug)]
enum Stage {
    /// It has no identifier.
    Pending,
    /// PUBLISH is in the out buffer or beyond; its bytes began and ended at these offsets.
    Sent {
        id: PacketId,
        from: u64,
        to: u64,
        dup: bool,
    },
    /// The link was lost before it was acknowledged; `dup` if bytes of it had reached the transport.
    Unsettled { id: PacketId, dup: bool },
    /// PUBREC came; PUBREL is sent and PUBCOMP awaited.
    Released { id: PacketId, order: u64 },
}

impl PublishOut {
    /// Bytes of all messages that are not finished.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many are not finished.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many have an identifier.
    pub(super) fn in_flight(&self) -> usize {
        self.entries.len() - self.pending.len()
    }

    /// How many are not finished and how many of these the broker may have.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Accepts a message. It leaves with the next [`PublishOut::emit`] that has room for it.
    pub(super) fn accept(&mut self, message: Message, wait: Option<(Wait, Token)>) {
        let cost = cost(message.topic().len(), message.payload().len());
        self.bytes += cost;
        let order = self.next_order;
        self.next_order += 1;
        let key = self.entries.insert(Entry {
            qos: message.quality_of_service(),
            expires: Expiry::of(message.property_list()),
            message: Some(message),
            cost,
            order,
            wait,
            stage: Stage::Pending,
            cuts: 0,
        });
        self.pending.push_back(key);
        self.fresh += 1;
    }

    /// Gives the messages accepted since the last turn the time from which their expiry counts.
    pub(super) fn stamp(&mut self, now: Instant) {
        let fresh = std::mem::take(&mut self.fresh);
        for key in self.pending.iter().rev().take(fresh) {
            self.entries[*key].expires.stamp(now);
        }
    }

    /// Whether [`PublishOut::emit`] has something to send within the quota.
    pub(super) fn wants_to_emit(&self, window: &Window, ids: &PacketIds) -> bool {
        let fresh = !self.pending.is_empty() && ids.has_room();
        let held = self.suspects(window) && matches!(window.proof, Proof::None | Proof::Asked);
        window.credit() > 0 && !held && (!window.replay.is_empty() || fresh)
    }

    /// Whether PINGREQ has to be answered before the next message may be sent: the link was cut over
    /// it before. Says so once per connection.
    pub(super) fn wants_proof(&self, window: &mut Window) -> bool {
        let wants = self.suspects(window) && window.proof == Proof::None;
        if wants {
            window.proof = Proof::Asked;
        }
        wants
    }

    fn suspects(&self, window: &Window) -> bool {
        let next = window.replay.front().or(self.pending.front());
        next.is_some_and(|key| self.entries[*key].cuts > 0)
    }

    /// Sends the next message: first what is to be sent again, then what is new. One that the
    /// broker's limits forbid, or that has expired, ends instead (situation 12).
    pub(super) fn emit(
        &mut self,
        now: Instant,
        limits: &Limits,
        window: &mut Window,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) {
        let replayed = window.replay.pop_front();
        let Some(key) = replayed.or_else(|| self.pending.pop_front()) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let Some(message) = &entry.message else {
            return;
        };
        let (id, dup) = match entry.stage {
            Stage::Unsettled { id, dup } | Stage::Sent { id, dup, .. } => (Some(id), dup),
            Stage::Pending | Stage::Released { .. } => (None, false),
        };
        // What the broker may already have is finished whatever its age [MQTT-4.3.3-7].
        let expiry = if dup {
            Some(None)
        } else {
            entry.expires.left(now)
        };
        let verdict = match expiry {
            None => Err(Error::new(ErrorKind::Expired, Doing::Publishing)),
            Some(seconds) => {
                check(message.quality_of_service(), message.is_retained(), limits).map(|()| seconds)
            }
        };
        let seconds = match verdict {
            Ok(seconds) => seconds,
            Err(error) => return self.give_up(key, id, error, dup, ids, out),
        };
        let Some(id) = id.or_else(|| ids.take(Owner::PublishOut(key))) else {
            self.pending.push_front(key);
            return;
        };
        let lowered;
        let properties = match (out.version(), seconds) {
            (Version::V3_1 | Version::V3_1_1, _) => PropertyList::EMPTY,
            (Version::V5_0, Some(left)) => {
                lowered = Properties::from(message.property_list()).message_expiry_interval(left);
                lowered.list()
            }
            (Version::V5_0, None) => message.property_list(),
        };
        let from = out.total();
        let publish = Publish {
            dup,
            qos: entry.qos,
            retain: message.is_retained(),
            topic: message.topic(),
            id: Some(id),
            properties,
            payload: message.payload(),
        };
        if let Err(error) = out.publish(&publish, Some(message.body_of())) {
            return self.give_up(key, Some(id), error, dup, ids, out);
        }
        entry.stage = Stage::Sent {
            id,
            from,
            to: out.total(),
            dup,
        };
        if let Some((Wait::Sent, _)) = entry.wait {
            out.when_flushed(OnFlush::Packet(id));
        }
        window.used += 1;
    }

    /// The PUBLISH in the entry `key` was flushed.
    pub(super) fn handle_flushed(&mut self, key: usize, out: &mut Outbox) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if let Some((_, token)) = entry.wait.take_if(|(wait, _)| *wait == Wait::Sent) {
            out.done(token, Ok(Done::Sent));
        }
    }

    /// PUBACK, for the entry `key`. Returns whether it belongs to something.
    pub(super) fn handle_puback(
        &mut self,
        key: usize,
        reason: Reason,
        text: Option<&str>,
        window: &mut Window,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> bool {
        match self.entries.get(key).map(|entry| (&entry.stage, entry.qos)) {
            Some((Stage::Sent { id, .. }, Qos::AtLeastOnce)) => ids.release(*id),
            // An answer to something that was not sent on this connection, or of the wrong kind.
            Some(_) | None => return false,
        }
        window.finished();
        window.acknowledged();
        self.finish(key, reason, text, out);
        true
    }

    /// PUBREC, for the entry `key`. Returns whether it belongs to something.
    pub(super) fn handle_pubrec(
        &mut self,
        key: usize,
        reason: Reason,
        text: Option<&str>,
        window: &mut Window,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        let id = match (&entry.stage, entry.qos) {
            (Stage::Sent { id, .. }, Qos::ExactlyOnce) => *id,
            // Repeated: PUBREL again, in case it was lost.
            (Stage::Released { id, .. }, _) => {
                out.acknowledge(AckKind::Pubrel, *id, Reason::SUCCESS);
                return true;
            }
            (Stage::Pending | Stage::Sent { .. } | Stage::Unsettled { .. }, _) => return false,
        };
        window.acknowledged();
        if reason.is_error() {
            ids.release(id);
            window.finished();
            self.finish(key, reason, text, out);
            return true;
        }
        // The broker has it: the content is not needed any more, and may never be sent again.
        let order = self.next_order;
        self.next_order += 1;
        entry.stage = Stage::Released { id, order };
        entry.message = None;
        self.bytes -= entry.cost - OVERHEAD;
        entry.cost = OVERHEAD;
        out.acknowledge(AckKind::Pubrel, id, Reason::SUCCESS);
        true
    }

    /// PUBCOMP, for the entry `key`. Returns whether it belongs to something.
    ///
    /// 0x92 after a replay means that the broker had finished before: that is success too.
    pub(super) fn handle_pubcomp(
        &mut self,
        key: usize,
        window: &mut Window,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> bool {
        match self.entries.get(key).map(|entry| &entry.stage) {
            Some(Stage::Released { id, .. }) => ids.release(*id),
            Some(Stage::Pending | Stage::Sent { .. } | Stage::Unsettled { .. }) | None => {
                return false;
            }
        }
        window.finished();
        window.acknowledged();
        self.finish(key, Reason::SUCCESS, None, out);
        true
    }

    /// Nothing will be sent any more: every wait ends.
    pub(super) fn close(&mut self, out: &mut Outbox) {
        for entry in self.entries.drain() {
            let sent = match entry.stage {
                Stage::Pending | Stage::Unsettled { dup: false, .. } => Sent::No,
                Stage::Unsettled { dup: true, .. } | Stage::Sent { .. } => Sent::Maybe,
                Stage::Released { .. } => Sent::Yes,
            };
            if let Some((_, token)) = entry.wait {
                out.done(token, Err(Error::closed(Doing::Publishing).sent_as(sent)));
            }
        }
        self.pending.clear();
        self.bytes = 0;
    }

    /// The broker has answered: the exchange is over.
    fn finish(&mut self, key: usize, reason: Reason, text: Option<&str>, out: &mut Outbox) {
        if !reason.is_error() {
            let entry = self.remove(key);
            if let Some((_, token)) = entry.wait {
                out.done(token, Ok(Done::Acknowledged(reason)));
            }
            return;
        }
        let kind = ErrorKind::Refused {
            reason,
            filter: None,
            text: text.map(Into::into),
        };
        self.fail(
            key,
            Error::new(kind, Doing::Publishing).sent_as(Sent::Yes),
            out,
        );
    }

    fn give_up(
        &mut self,
        key: usize,
        id: Option<PacketId>,
        error: Error,
        dup: bool,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) {
        if let Some(id) = id {
            ids.release(id);
        }
        self.fail(
            key,
            error.sent_as(if dup { Sent::Maybe } else { Sent::No }),
            out,
        );
    }

    /// The message ends with an error: its wait is told, or if nobody waits, an event says it.
    fn fail(&mut self, key: usize, error: Error, out: &mut Outbox) {
        let entry = self.remove(key);
        match entry.wait {
            Some((_, token)) => out.done(token, Err(error)),
            None => out.effect(Effect::Unpublished(entry.message.map(Box::new), error)),
        }
    }

    fn remove(&mut self, key: usize) -> Entry {
        let entry = self.entries.remove(key);
        self.bytes -= entry.cost;
        entry
    }
}

/// What a message counts against the bound of its queue.
pub(super) fn cost(topic: usize, payload: usize) -> usize {
    topic + payload + OVERHEAD
}

/// What the broker said at CONNACK that it does not take [MQTT-3.2.2-11, -14].
pub(super) fn check(qos: Qos, retain: bool, limits: &Limits) -> Result<(), Error> {
    let refuse = |reason| Err(Error::new(ErrorKind::NotOffered(reason), Doing::Publishing));
    if qos > limits.maximum_qos {
        return refuse(Reason::QOS_NOT_SUPPORTED);
    }
    if retain && !limits.retain_available {
        return refuse(Reason::RETAIN_NOT_SUPPORTED);
    }
    Ok(())
}
