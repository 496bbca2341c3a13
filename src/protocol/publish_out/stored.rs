//! QoS 1 and 2 messages on their way out, as the store has them: what is written when, and what the next
//! process makes of it.
//!
//! ```text
//!     accept ──► Outgoing(order): message ─────────────────────────────► removed, when it is done
//!       │            + packet id, if it is about to leave                  ▲
//!       └─ offline, no quota ──► Named(order): packet id, later            │
//!                                                 PUBREC ──► Outgoing(order): released
//! ```

use super::{Entry, PublishOut, Stage, Stored, Written};
use crate::message::{Message, PacketId, Qos};
use crate::properties::Remarks;
use crate::protocol::expiry::Expiry;
use crate::protocol::journal::Journal;
use crate::protocol::outbox::Outbox;
use crate::protocol::outgoing::{OVERHEAD, cost};
use crate::protocol::packet_id::{Owner, PacketIds};
use crate::protocol::record::{Key, write_name, write_nothing, write_outgoing, write_released};
use crate::protocol::window::Window;
use crate::reason::Reason;

impl PublishOut {
    /// Journals what was accepted since the last call, and gives identifiers to what may soon leave; on a
    /// connection with this window. Does nothing without a store, and leaves what is new for a later call if
    /// so much waits for the disk already.
    pub(in crate::protocol) fn store(
        &mut self,
        window: Option<&Window>,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) {
        let Some(journal) = &mut out.journal else {
            return;
        };
        let entries = &self.entries;
        let is_fresh = |key: &&usize| entries.get(**key).is_some_and(|new| new.stored.is_none());
        let fresh = match journal.is_clogged() {
            // They wait, and may be many: they are not counted at every call.
            true => 0,
            false => self.pending.iter().rev().take_while(is_fresh).count(),
        };
        let first = self.pending.len() - fresh;
        let mut index = self.named;
        while let Some(key) = self.pending.get(index).copied() {
            let Some(entry) = self.entries.get_mut(key) else {
                return;
            };
            // A disk that is slow or hangs must not make a batch of all that is dropped or expires meanwhile:
            // what is accepted now waits for the next batch. All behind it are as new.
            if entry.stored.is_none() && journal.is_clogged() {
                return;
            }
            // Those before have one: identifiers are given in order, as replays follow it.
            let may_name = self.named == index
                && ids.has_room()
                && window.is_some_and(|window| window.lets_name(entry.qos, index));
            let id = if may_name {
                ids.take(Owner::PublishOut(key))
            } else {
                None
            };
            match (entry.stored, id, &entry.message) {
                (None, id, Some(message)) => {
                    let dies = journal.date_of(entry.expires);
                    let batch = journal.put(Key::Outgoing(entry.order), |out| {
                        write_outgoing(id, dies, message, out);
                    });
                    entry.stored = Some(Stored {
                        batch,
                        accepted: batch,
                        renamed: false,
                    });
                }
                (Some(_), Some(id), _) => entry.write_name(Some(id), journal),
                (Some(_), None, _) | (None, _, None) => {}
            }
            match id {
                Some(id) => {
                    entry.stage = Stage::Named { id };
                    self.named += 1;
                    index += 1;
                }
                // None of those that wait for quota, then.
                None => index = (index + 1).max(first),
            }
        }
    }

    /// Whether the next message may leave, as far as the store is concerned.
    pub(super) fn is_next_stored(&self, journal: &Journal) -> bool {
        let next = self.pending.front().and_then(|key| self.entries.get(*key));
        self.named > 0
            && next
                .and_then(|entry| entry.stored)
                .is_some_and(|stored| stored.batch <= journal.committed())
    }

    /// PUBREC came for the entry `key`: that is on disk before PUBREL leaves [MQTT-4.3.3-6].
    pub(super) fn store_release(&mut self, key: usize, out: &mut Outbox) {
        let (Some(journal), Some(entry)) = (&mut out.journal, self.entries.get_mut(key)) else {
            return;
        };
        let (
            Some(stored),
            Stage::Released {
                id, order, reason, ..
            },
        ) = (&mut entry.stored, &entry.stage)
        else {
            return;
        };
        stored.batch = journal.put(Key::Outgoing(entry.order), |out| {
            write_released(*id, *order, *reason, out);
        });
    }

    /// The clock was set: when messages expire is written anew, as it has not changed for this process. The next
    /// one knows nothing but the date.
    pub(in crate::protocol) fn store_dates(&self, journal: &mut Journal) {
        for (_, entry) in &self.entries {
            let (Some(_), Some(_), Some(message)) =
                (entry.stored, entry.expires.end(), &entry.message)
            else {
                continue;
            };
            let id = match entry.stage {
                Stage::Pending => None,
                Stage::Named { id }
                | Stage::Sent { id, .. }
                | Stage::Unsettled { id }
                | Stage::Released { id, .. } => Some(id),
            };
            let dies = journal.date_of(entry.expires);
            journal.put(Key::Outgoing(entry.order), |out| {
                write_outgoing(id, dies, message, out);
            });
        }
    }

    /// What is accepted in this process comes after everything in the store.
    pub(in crate::protocol) fn restore_order(&mut self, next_order: u64) {
        self.next_order = next_order;
    }

    /// The store has this message, and nothing older that was not restored. With an identifier, which is free,
    /// it may have been sent.
    pub(in crate::protocol) fn restore(
        &mut self,
        order: u64,
        message: Message,
        expires: Expiry,
        named: Option<PacketId>,
        renamed: bool,
        ids: &mut PacketIds,
    ) {
        let cost = cost(message.topic().len(), message.payload().len());
        self.bytes += cost;
        let (stage, written) = match named {
            Some(id) => (Stage::Unsettled { id }, Written::InThisSession),
            None => (Stage::Pending, Written::Never),
        };
        let key = self.entries.insert(Entry {
            qos: message.quality_of_service(),
            message: Some(message),
            cost,
            order,
            expires,
            wait: None,
            stage,
            written,
            cuts: 0,
            breaks: 0,
            stored: Some(Stored::earlier(renamed)),
        });
        match named {
            Some(id) => ids.occupy(id, Owner::PublishOut(key)),
            None => self.pending.push_back(key),
        }
    }

    /// The store has what is left of a message that the broker received: its identifier, which is free, its
    /// place among those, and what PUBREC said.
    pub(in crate::protocol) fn restore_released(
        &mut self,
        order: u64,
        stage: (PacketId, u64, Reason),
        renamed: bool,
        ids: &mut PacketIds,
    ) {
        let (id, released, reason) = stage;
        self.bytes += OVERHEAD;
        let key = self.entries.insert(Entry {
            qos: Qos::ExactlyOnce,
            message: None,
            cost: OVERHEAD,
            order,
            expires: Expiry::Never,
            wait: None,
            stage: Stage::Released {
                id,
                order: released,
                reason,
                remarks: Remarks::NONE,
                resent: false,
            },
            written: Written::InThisSession,
            cuts: 0,
            breaks: 0,
            stored: Some(Stored::earlier(renamed)),
        });
        ids.occupy(id, Owner::PublishOut(key));
    }

    /// The store has an identifier that is free but may not be used.
    pub(in crate::protocol) fn restore_burnt(&mut self, id: PacketId, ids: &mut PacketIds) {
        self.burnt.push(id);
        ids.occupy(id, Owner::Burnt);
    }
}

impl Stored {
    /// An earlier process has stored it.
    fn earlier(renamed: bool) -> Self {
        Self {
            batch: 0,
            accepted: 0,
            renamed,
        }
    }
}

impl Entry {
    /// The identifier has changed.
    pub(super) fn store_name(&mut self, id: Option<PacketId>, out: &mut Outbox) {
        if let Some(journal) = &mut out.journal {
            self.write_name(id, journal);
        }
    }

    fn write_name(&mut self, id: Option<PacketId>, journal: &mut Journal) {
        let Some(stored) = &mut self.stored else {
            return;
        };
        stored.batch = journal.put(Key::Named(self.order), |out| write_name(id, out));
        stored.renamed = true;
    }
}

/// The message is done with.
pub(super) fn unstore(entry: &Entry, out: &mut Outbox) {
    let (Some(journal), Some(stored)) = (&mut out.journal, entry.stored) else {
        return;
    };
    journal.remove(Key::Outgoing(entry.order));
    if stored.renamed {
        journal.remove(Key::Named(entry.order));
    }
}

/// The identifier may not be used, not by the next process either.
pub(super) fn store_burnt(id: PacketId, out: &mut Outbox) {
    if let Some(journal) = &mut out.journal {
        journal.put(Key::Burnt(id), write_nothing);
    }
}

/// The identifier may be used again.
pub(super) fn unstore_burnt(id: PacketId, out: &mut Outbox) {
    if let Some(journal) = &mut out.journal {
        journal.remove(Key::Burnt(id));
    }
}
