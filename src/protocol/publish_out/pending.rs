//! QoS 1 and 2 messages that were accepted and have not left: the queue, in which they may expire or make
//! room for newer ones.

use std::time::Instant;

use super::{Entry, PublishOut, Stage, Written};
use crate::error::{Doing, Error, ErrorKind};
use crate::message::{Message, PacketId};
use crate::protocol::Token;
use crate::protocol::expiry::Expiry;
use crate::protocol::outbox::Outbox;
use crate::protocol::outgoing::cost;
use crate::protocol::packet_id::PacketIds;
use crate::wait::Wait;
use crate::when_full::WhenFull;

/// A message that was accepted in this process before its store was read.
#[derive(Debug)]
pub(in crate::protocol) struct Early {
    pub(in crate::protocol) message: Message,
    pub(in crate::protocol) wait: Option<(Wait, Token)>,
    pub(in crate::protocol) expires: Expiry,
}

impl PublishOut {
    /// Accepts a message. It leaves with the next [`PublishOut::emit`] that has room for it.
    pub(in crate::protocol) fn accept(
        &mut self,
        message: Message,
        wait: Option<(Wait, Token)>,
        expires: Expiry,
    ) {
        let cost = cost(message.topic().len(), message.payload().len());
        self.bytes += cost;
        let order = self.next_order;
        self.next_order += 1;
        let key = self.entries.insert(Entry {
            qos: message.quality_of_service(),
            expires,
            message: Some(message),
            cost,
            order,
            wait,
            stage: Stage::Pending,
            written: Written::Never,
            cuts: 0,
            breaks: 0,
            stored: None,
        });
        self.pending.push_back(key);
        self.unstamped += 1;
    }

    /// Gives the messages accepted since the last turn the time from which their expiry counts. Returns
    /// when the first of them expires.
    pub(in crate::protocol) fn stamp(&mut self, now: Instant) -> Option<Instant> {
        let unstamped = self.pending.iter().rev().take(self.unstamped);
        self.unstamped = 0;
        let entries = &mut self.entries;
        unstamped
            .filter_map(|key| entries.get_mut(*key)?.expires.stamp(now))
            .min()
    }

    /// Pending messages that have expired end. Returns when the next one does.
    pub(in crate::protocol) fn expire(
        &mut self,
        now: Instant,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> Option<Instant> {
        let mut expired = Vec::new();
        let entries = &self.entries;
        self.pending.retain(|key| {
            let stays = entries
                .get(*key)
                .is_some_and(|entry| entry.expires.left(now).is_some());
            if !stays {
                expired.push(*key);
            }
            stays
        });
        for key in expired {
            let error = Error::new(ErrorKind::Expired, Doing::Publishing);
            let id = self.unname(key);
            self.give_up(key, id, error, ids, out);
        }
        self.first_end()
    }

    /// When the first of those that are pending expires.
    pub(in crate::protocol) fn first_end(&self) -> Option<Instant> {
        let pending = self.pending.iter().filter_map(|key| self.entries.get(*key));
        pending.filter_map(|entry| entry.expires.end()).min()
    }

    /// The oldest messages of which no byte ever left are dropped, until there is room below `bound`; if
    /// somebody waits for one, the wait ends. None is if what may not be dropped leaves no room: it would go
    /// for nothing. Returns how many.
    pub(in crate::protocol) fn drop_oldest(
        &mut self,
        bound: usize,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> u64 {
        let mut left = self.bytes;
        let pending = self.pending.iter().filter_map(|key| self.entries.get(*key));
        for entry in pending.filter(|entry| entry.written == Written::Never) {
            if left < bound {
                break;
            }
            left -= entry.cost;
        }
        if left >= bound {
            return 0;
        }
        let mut dropped = 0;
        while self.bytes >= bound {
            let entries = &self.entries;
            let unsent = |key: &usize| {
                entries
                    .get(*key)
                    .is_some_and(|entry| entry.written == Written::Never)
            };
            let oldest = self.pending.iter().position(unsent);
            let Some(key) = oldest.and_then(|at| self.pending.remove(at)) else {
                break;
            };
            if let Some(id) = self.unname(key) {
                ids.release(id);
            }
            if let Some((_, token)) = self.remove(key, out).wait {
                let kind = ErrorKind::Dropped(WhenFull::DropOldest);
                out.done(token, Err(Error::new(kind, Doing::Publishing)));
            }
            dropped += 1;
        }
        dropped
    }

    /// Takes out what was accepted in this process before its store is read, in its order.
    pub(in crate::protocol) fn take_early(&mut self) -> Vec<Early> {
        let mut all = Vec::new();
        for key in std::mem::take(&mut self.pending) {
            let entry = self.entries.remove(key);
            self.bytes -= entry.cost;
            if let Some(message) = entry.message {
                all.push(Early {
                    message,
                    wait: entry.wait,
                    expires: entry.expires,
                });
            }
        }
        self.unstamped = 0;
        all
    }

    /// A message is not pending any more, and does not leave. Returns the identifier that it had.
    fn unname(&mut self, key: usize) -> Option<PacketId> {
        match self.entries.get(key)?.stage {
            Stage::Named { id } => {
                self.named = self.named.saturating_sub(1);
                Some(id)
            }
            Stage::Pending
            | Stage::Sent { .. }
            | Stage::Unsettled { .. }
            | Stage::Released { .. } => None,
        }
    }

    pub(super) fn pop_pending(&mut self) -> Option<usize> {
        self.named = self.named.saturating_sub(1);
        self.pending.pop_front()
    }
}
