//! How a QoS 1 or 2 message ends: with the last word of the broker, given up, or because nothing is sent any
//! more; and what whoever waits for it is told.

use std::collections::VecDeque;

use slab::Slab;

use super::stored::{store_burnt, unstore};
use super::{Entry, PublishOut, Stage, Stored, Written};
use crate::error::{Doing, Error, Sent};
use crate::message::{PacketId, Qos};
use crate::properties::{PropertyList, Remarks};
use crate::protocol::outbox::Outbox;
use crate::protocol::packet_id::PacketIds;
use crate::protocol::{Done, Effect};
use crate::reason::Reason;

/// Entries for which an idle client keeps the room, so that sending one message after the other
/// allocates nothing.
const KEPT: usize = 64;

impl PublishOut {
    /// Nothing will be sent any more: every wait ends. What is in the store stays there.
    pub(in crate::protocol) fn close(&mut self, out: &mut Outbox) {
        self.fail_waits(&Error::closed(Doing::Publishing), out);
        self.entries.clear();
        self.pending.clear();
        self.named = 0;
        self.bytes = 0;
    }

    /// Every wait ends with this error, wherever its message is.
    pub(in crate::protocol) fn fail_waits(&mut self, error: &Error, out: &mut Outbox) {
        for (_, entry) in &mut self.entries {
            let handed_over = |stored: Stored| {
                let journal = out.journal.as_ref();
                journal.is_some_and(|journal| journal.is_handed_over(stored.batch))
            };
            let sent = match entry.stage {
                Stage::Released { .. } => Sent::Yes,
                // The next process sends it.
                Stage::Pending | Stage::Named { .. } | Stage::Unsettled { .. }
                    if entry.stored.is_some_and(handed_over) =>
                {
                    Sent::Maybe
                }
                Stage::Pending | Stage::Named { .. } | Stage::Unsettled { .. }
                    if entry.written == Written::Never =>
                {
                    Sent::No
                }
                Stage::Pending
                | Stage::Named { .. }
                | Stage::Unsettled { .. }
                | Stage::Sent { .. } => Sent::Maybe,
            };
            if let Some((_, token)) = entry.wait.take() {
                out.done(token, Err(error.clone().sent_as(sent)));
            }
        }
    }

    /// The exchange is over. The broker said something with PUBREC, perhaps, and something now.
    pub(super) fn finish(
        &mut self,
        key: usize,
        reason: Reason,
        before: Remarks,
        now: PropertyList<'_>,
        out: &mut Outbox,
    ) {
        if reason.is_error() {
            let error = Error::refused(reason, None, before.and(now), Doing::Publishing);
            return self.fail(key, error, out);
        }
        let entry = self.remove(key, out);
        if let Some((_, token)) = entry.wait {
            out.done(token, Ok(Done::Acknowledged(reason, before.and(now))));
        }
    }

    /// The message is not sent, or not sent again; `id` is the identifier it has.
    pub(super) fn give_up(
        &mut self,
        key: usize,
        id: Option<PacketId>,
        error: Error,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        let (written, qos) = (entry.written, entry.qos);
        match (id, &entry.stage) {
            (Some(id), Stage::Unsettled { .. })
                if written == Written::InThisSession && qos == Qos::ExactlyOnce =>
            {
                ids.burn(id);
                self.burnt.push(id);
                store_burnt(id, out);
            }
            (Some(id), _) => ids.release(id),
            (None, _) => {}
        }
        let sent = match written {
            Written::Never => Sent::No,
            Written::InLostSession | Written::InThisSession => Sent::Maybe,
        };
        self.fail(key, error.sent_as(sent), out);
    }

    /// The message ends with an error: its wait is told, or if nobody waits, an event says it.
    pub(super) fn fail(&mut self, key: usize, error: Error, out: &mut Outbox) {
        let entry = self.remove(key, out);
        match entry.wait {
            Some((_, token)) => out.done(token, Err(error)),
            None => out.effect(Effect::Unpublished(entry.message.map(Box::new), error)),
        }
    }

    pub(super) fn remove(&mut self, key: usize, out: &mut Outbox) -> Entry {
        let entry = self.entries.remove(key);
        unstore(&entry, out);
        self.bytes -= entry.cost;
        if self.entries.is_empty() && self.entries.capacity() > KEPT {
            // An idle client holds nothing; the next burst grows the table again.
            self.entries = Slab::new();
            self.pending = VecDeque::new();
        }
        entry
    }
}
