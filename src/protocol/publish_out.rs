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
//!
//!     with a store:
//!               quota            on disk, room
//!     Pending ────────► Named ─────────────────► Sent
//!        ▲  session lost  │          an earlier process ──► Unsettled, Released
//!        └────────────────┘
//! ```
//!
//! With a store a message gets its identifier one step earlier, and leaves when both are on disk.
//!
//! An entry outlives connections; the [`Window`] (quota and replay) belongs to one. Entries keep the
//! order in which they were accepted, and released ones the order of their PUBRECs, because a replay
//! follows it [MQTT-4.6.0-1/-4].
//!
//! Here is what is sent and what the broker answers. What waits to be sent is in `pending`, how a message
//! ends in `ending`, what a lost link does in `replay`, and what goes into the store in `stored`.

mod ending;
mod pending;
mod replay;
mod stored;

use std::collections::VecDeque;
use std::time::Instant;

use slab::Slab;

use super::alias::Aliases;
use super::expiry::Expiry;
use super::limits::Limits;
use super::outbox::{OnFlush, Outbox};
use super::outgoing::{OVERHEAD, carried, check};
use super::packet_id::{Owner, PacketIds};
use super::trial::Proof;
use super::window::Window;
use super::{Done, Token};
use crate::codec::Publish;
use crate::codec::publish::{AckKind, Naming};
use crate::error::{Doing, Error, ErrorKind};
use crate::message::{Message, PacketId, Qos};
use crate::properties::{PropertyList, Remarks};
use crate::reason::Reason;
use crate::wait::Wait;

pub(super) use pending::Early;
use stored::unstore_burnt;

/// All QoS 1 and 2 messages that are not finished.
#[derive(Debug, Default)]
pub(super) struct PublishOut {
    entries: Slab<Entry>,
    /// Accepted and without an identifier, oldest first.
    pending: VecDeque<usize>,
    /// How many at the end of `pending` were accepted since the last turn.
    unstamped: usize,
    /// Bytes of everything that is not finished.
    bytes: usize,
    next_order: u64,
    /// How many at the front of `pending` have their identifier; none without a store.
    named: usize,
    /// Identifiers of QoS 2 messages that were given up although the broker may have recorded them. It
    /// would swallow another message under one of these as a repeat [MQTT-4.3.3-10], so they stay in use
    /// until it answers or loses the session.
    burnt: Vec<PacketId>,
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
    written: Written,
    /// Connections that the broker ended over this message.
    cuts: u8,
    /// Connections in a row that broke over it.
    breaks: u8,
    /// What the store has of it.
    stored: Option<Stored>,
}

/// What the store has, or is about to have, of a message.
#[derive(Debug, Clone, Copy)]
struct Stored {
    /// The number of the batch with all of it.
    batch: u64,
    /// The number of the batch with the message: once that is handed over, the next process may send it.
    accepted: u64,
    /// Whether a record of its own tells the identifier.
    renamed: bool,
}

/// Whether bytes of a message had reached the transport of a connection that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Never,
    /// It may have arrived, but the broker has lost the session since: what is sent now is new, and DUP
    /// is 0 [MQTT-4.3.2-2, -3.3.1-3].
    InLostSession,
    InThisSession,
}

#[derive(Debug)]
enum Stage {
    /// It has no identifier.
    Pending,
    /// It has one, and leaves once the store has both. Never without a store.
    Named { id: PacketId },
    /// PUBLISH is in the out buffer or beyond; its bytes began and ended at these offsets.
    Sent { id: PacketId, from: u64, to: u64 },
    /// The link was lost before it was acknowledged.
    Unsettled { id: PacketId },
    /// PUBREC came, with this reason and these properties; PUBREL is sent and PUBCOMP awaited.
    Released {
        id: PacketId,
        order: u64,
        reason: Reason,
        remarks: Remarks,
        /// Whether PUBREL was sent again on a later connection: the broker may have finished before.
        resent: bool,
    },
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

    /// Whether all are finished.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether some were accepted and have no identifier.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives memory back that is not in use.
    pub(super) fn shrink(&mut self) {
        if self.entries.is_empty() {
            self.entries = Slab::new();
            self.pending = VecDeque::new();
        }
    }

    /// Whether [`PublishOut::emit`] has something to send within the quota.
    pub(super) fn wants_to_emit(&self, window: &Window, ids: &PacketIds, out: &Outbox) -> bool {
        let fresh = match &out.journal {
            None => !self.pending.is_empty() && (self.named > 0 || ids.has_room()),
            Some(journal) => self.is_next_stored(journal),
        };
        let trial = &window.trial;
        let held = trial.is_under_way() || trial.is_unproven() && self.suspect(window).is_some();
        window.credit() > 0 && !held && (!window.replay.is_empty() || fresh)
    }

    /// The next message waits for a PINGRESP if the link was cut over it before. Returns whether it begins to,
    /// so that PINGREQ is to be sent: once per connection.
    pub(super) fn ask_for_proof(&self, now: Instant, window: &mut Window) -> bool {
        let asks = window.trial.proof() == Proof::None
            && self
                .suspect(window)
                .is_some_and(|suspect| !suspect.is_doubtful() || window.trial.has_lasted(now));
        if asks {
            window.trial.ask(now);
        }
        asks
    }

    /// The next message, if it is under suspicion.
    fn suspect(&self, window: &Window) -> Option<&Entry> {
        let next = window.replay.front().or_else(|| self.pending.front())?;
        let next = self.entries.get(*next)?;
        (next.cuts > 0 || next.is_doubtful()).then_some(next)
    }

    /// Sends the next message: first what is to be sent again, then what is new. One that the
    /// broker's limits forbid, or that has expired, ends instead (situation 12).
    pub(super) fn emit(
        &mut self,
        now: Instant,
        limits: &Limits,
        window: &mut Window,
        aliases: &mut Aliases,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) {
        let replayed = window.replay.pop_front();
        let Some(key) = replayed.or_else(|| self.pop_pending()) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let Some(message) = &entry.message else {
            return;
        };
        let (id, dup) = match entry.stage {
            Stage::Pending => (None, false),
            Stage::Named { id } => (Some(id), false),
            Stage::Unsettled { id } => (Some(id), entry.written == Written::InThisSession),
            Stage::Sent { .. } | Stage::Released { .. } => return,
        };
        let seconds = match (entry.expires.left(now), dup) {
            (Some(seconds), _) => Ok(seconds),
            // What the broker may already have is finished whatever its age [MQTT-4.3.3-7].
            (None, true) => Ok(Some(1)),
            (None, false) => Err(Error::new(ErrorKind::Expired, Doing::Publishing)),
        };
        let seconds = match seconds
            .and_then(|seconds| check(entry.qos, message.is_retained(), limits).map(|()| seconds))
        {
            Ok(seconds) => seconds,
            Err(error) => return self.give_up(key, id, error, ids, out),
        };
        let Some(id) = id.or_else(|| ids.take(Owner::PublishOut(key))) else {
            self.pending.push_front(key);
            return;
        };
        let properties = carried(out.version(), message.property_list(), seconds);
        let from = out.total();
        let publish = Publish {
            dup,
            qos: entry.qos,
            retain: message.is_retained(),
            topic: message.topic(),
            id: Some(id),
            properties: properties.list(),
            payload: message.payload(),
        };
        let naming = match entry.stage {
            // What is sent again has its whole topic (situation 3).
            Stage::Unsettled { .. } => Naming::Topic,
            Stage::Pending | Stage::Named { .. } | Stage::Sent { .. } | Stage::Released { .. } => {
                aliases.name(&publish, limits.maximum_packet_size)
            }
        };
        if let Err(error) = out.publish(&publish, naming, Some(message.body_of())) {
            return self.give_up(key, Some(id), error, ids, out);
        }
        entry.stage = Stage::Sent {
            id,
            from,
            to: out.total(),
        };
        if entry.is_doubtful() {
            window.trial.begin_alone(from);
        }
        if let Some((Wait::Sent, _)) = entry.wait {
            out.when_flushed(OnFlush::Packet(id));
        }
        window.begun(entry.qos);
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
        said: PropertyList<'_>,
        window: &mut Window,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> bool {
        let Some(id) = self.answered(key, Qos::AtLeastOnce, window) else {
            return false;
        };
        ids.release(id);
        window.finished(Qos::AtLeastOnce);
        self.finish(key, reason, Remarks::NONE, said, out);
        true
    }

    /// PUBREC, for the entry `key`. Returns whether it belongs to something.
    pub(super) fn handle_pubrec(
        &mut self,
        key: usize,
        reason: Reason,
        said: PropertyList<'_>,
        window: &mut Window,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> bool {
        if let Some(Stage::Released { id, .. }) = self.entries.get(key).map(|entry| &entry.stage) {
            // Repeated: PUBREL again, in case it was lost. A refusal comes too late.
            if !reason.is_error() {
                out.acknowledge_stored(AckKind::Pubrel, *id, Reason::SUCCESS);
            }
            return !reason.is_error();
        }
        let Some(id) = self.answered(key, Qos::ExactlyOnce, window) else {
            return false;
        };
        if reason.is_error() {
            ids.release(id);
            window.finished(Qos::ExactlyOnce);
            self.finish(key, reason, Remarks::NONE, said, out);
            return true;
        }
        // It has left, whether or not the flush was noticed.
        self.handle_flushed(key, out);
        let order = self.next_order;
        self.next_order += 1;
        if let Some(entry) = self.entries.get_mut(key) {
            // The broker has it: the content is not needed any more, and may never be sent again.
            entry.message = None;
            self.bytes -= entry.cost - OVERHEAD;
            entry.cost = OVERHEAD;
            entry.stage = Stage::Released {
                id,
                order,
                reason,
                // Nobody is told of a success that nobody waits for.
                remarks: entry.wait.map_or(Remarks::NONE, |_| Remarks::kept(said)),
                resent: false,
            };
        }
        self.store_release(key, out);
        out.acknowledge_stored(AckKind::Pubrel, id, Reason::SUCCESS);
        true
    }

    /// PUBCOMP, for the entry `key`. Returns whether it belongs to something.
    ///
    /// 0x92 after a replay means that the broker had finished before: that is success too. At any other time
    /// it has forgotten the message that it took (MQTT 5, table 3-7). Otherwise the reason is that of
    /// PUBREC, which is about the message; of the properties the caller gets those of both.
    pub(super) fn handle_pubcomp(
        &mut self,
        key: usize,
        answer: Reason,
        said: PropertyList<'_>,
        window: &mut Window,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> bool {
        let (reason, remarks) = match self.entries.get_mut(key).map(|entry| &mut entry.stage) {
            Some(Stage::Released {
                id,
                reason,
                remarks,
                resent,
                ..
            }) => {
                ids.release(*id);
                let remarks = std::mem::take(remarks);
                if answer.is_error() && !*resent {
                    (answer, Remarks::NONE)
                } else {
                    (*reason, remarks)
                }
            }
            Some(
                Stage::Pending | Stage::Named { .. } | Stage::Sent { .. } | Stage::Unsettled { .. },
            )
            | None => return false,
        };
        window.trial.acknowledged();
        window.finished(Qos::ExactlyOnce);
        self.finish(key, reason, remarks, said, out);
        true
    }

    /// The broker is done with the identifier of a message that was given up.
    pub(super) fn handle_burnt(&mut self, id: PacketId, ids: &mut PacketIds, out: &mut Outbox) {
        self.burnt.retain(|burnt| *burnt != id);
        ids.release(id);
        unstore_burnt(id, out);
    }

    /// The broker has answered the PUBLISH of the entry `key`, which is of this QoS. Returns its
    /// identifier, unless there was nothing to answer.
    fn answered(&self, key: usize, qos: Qos, window: &mut Window) -> Option<PacketId> {
        let entry = self.entries.get(key).filter(|entry| entry.qos == qos)?;
        let id = match entry.stage {
            Stage::Sent { id, .. } => id,
            // It answers what came on the last connection: then it is not sent again.
            Stage::Unsettled { id } => {
                window.settled(key, qos);
                id
            }
            Stage::Pending | Stage::Named { .. } | Stage::Released { .. } => return None,
        };
        window.trial.acknowledged();
        Some(id)
    }
}
