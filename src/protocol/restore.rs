//! The session across processes: what a store holds becomes the session again, and what changes goes
//! into batches for it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::inheritance::Inheritance;
use super::journal::{Journal, Kept};
use super::line::Waiting;
use super::packet_id::PacketIds;
use super::publish_out::Early;
use super::record::{Entry, Filter, Identity, Outgoing};
use super::session::Session;
use super::{Effect, Link, Protocol};
use crate::error::{Doing, Error, ErrorKind};
use crate::message::{Message, PacketId};
use crate::properties::Properties;
use crate::store::{Batch, Record, StoreError, StoreErrorKind};
use crate::when_full::WhenFull;

/// What a store held.
#[derive(Debug, Default)]
pub struct Restored {
    /// The session, as the earlier process had it.
    pub identity: Option<Identity>,
    /// Whether it is this client's: the same client identifier.
    pub is_same_client: bool,
    /// QoS 1 and 2 messages on their way out.
    pub unfinished: usize,
    /// Messages that were acknowledged and not taken, oldest first. Each is held once.
    pub kept: Vec<(Kept, Message)>,
    /// Filters that the broker may know.
    pub filters: Vec<Rc<str>>,
    /// Whether the store had anything at all.
    pub is_empty: bool,
}

/// What stands in the records, before anything is done with it.
#[derive(Debug, Default)]
struct Found {
    identity: Option<Identity>,
    outgoing: BTreeMap<u64, Piece>,
    burnt: Vec<PacketId>,
    taken: Vec<PacketId>,
    kept: Vec<(u64, Message)>,
    filters: Vec<(u64, Filter)>,
}

/// One message on its way out.
#[derive(Debug)]
struct Piece {
    outgoing: Outgoing,
    /// Whether a record of its own tells the identifier.
    renamed: bool,
}

impl Found {
    fn read(records: &[Record]) -> Result<Self, StoreError> {
        let mut found = Self::default();
        let mut ids = BTreeSet::new();
        let mut names = BTreeMap::new();
        for record in records {
            match Entry::read(record)? {
                Entry::Session(identity) => found.identity = Some(identity),
                Entry::Outgoing(order, outgoing) => {
                    let renamed = false;
                    found.outgoing.insert(order, Piece { outgoing, renamed });
                }
                Entry::Named(order, id) => {
                    names.insert(order, id);
                }
                Entry::Burnt(id) => found.burnt.push(id),
                Entry::Taken(id) => found.taken.push(id),
                Entry::Kept(order, message) => found.kept.push((order, message)),
                Entry::Filter(number, filter) => found.filters.push((number, filter)),
            }
        }
        for (order, name) in names {
            let piece = found.outgoing.get_mut(&order);
            // Both are removed in one batch, so this store lost something.
            let piece = piece.ok_or_else(|| damaged("names a message that is not there"))?;
            piece.renamed = true;
            match &mut piece.outgoing {
                Outgoing::Message { id, .. } => *id = name,
                Outgoing::Released { .. } => {}
            }
        }
        let given = found
            .outgoing
            .values()
            .filter_map(|piece| match piece.outgoing {
                Outgoing::Message { id, .. } => id,
                Outgoing::Released { id, .. } => Some(id),
            });
        for id in given.chain(found.burnt.iter().copied()) {
            if !ids.insert(id) {
                return Err(damaged("gives a packet identifier twice"));
            }
        }
        if ids.len() > PacketIds::FOR_PUBLICATIONS {
            return Err(damaged("gives more packet identifiers than a session has"));
        }
        Ok(found)
    }
}

impl Protocol {
    /// Goes on with the session of an earlier process, and from now on gathers what changes. Called once,
    /// before the first connection. `unix` is the date, as the time since 1970.
    ///
    /// The version becomes that in which the session was begun. Without any record it begins.
    ///
    /// # Errors
    /// The records are damaged, or none of ours. Then nothing was restored.
    pub fn restore(
        &mut self,
        now: Instant,
        unix: Duration,
        records: &[Record],
    ) -> Result<Restored, StoreError> {
        let found = Found::read(records)?;
        let early = self.session.publish_out.take_early();
        let mut journal = Journal::new(now, unix);
        let mut restored = Restored {
            is_empty: records.is_empty(),
            ..Restored::default()
        };
        self.restore_outgoing(&journal, found.outgoing, found.burnt);
        restored.unfinished = self.session.publish_out.len();
        let first = self.session.publish_out.first_end();
        self.session.expires = self.session.expires.into_iter().chain(first).min();
        for id in found.taken {
            self.session.publish_in.restore(id);
        }
        for (order, message) in found.kept {
            restored.kept.push((journal.restore_kept(order), message));
        }
        for (number, filter) in found.filters {
            let filter: Rc<str> = filter.filter.into();
            journal.restore_filter(Rc::clone(&filter), number);
            restored.filters.push(filter);
        }
        if !restored.filters.is_empty() || !restored.kept.is_empty() {
            self.session.inheritance = Inheritance::Waiting(restored.filters.clone());
        }
        if let Some(identity) = &found.identity {
            restored.is_same_client = identity.client_id == self.config.client_id;
            self.config.version = identity.version;
            if restored.is_same_client {
                self.session.opening.restore(identity);
            } else {
                self.disown();
            }
            journal.restore_identity(identity.clone());
        }
        restored.identity = found.identity;
        self.out.journal = Some(Box::new(journal));
        self.readmit(early);
        Ok(restored)
    }

    /// What was accepted before the store was read was not measured with what was in it: there is room for
    /// this much of it as if it were published now.
    fn readmit(&mut self, early: Vec<Early>) {
        let mut in_line = Vec::new();
        for Early {
            message,
            wait,
            expires,
        } in early
        {
            let qos = message.quality_of_service();
            // Those in line came later.
            let has_room = self.session.publish_out.bytes() < self.config.queue_bytes;
            if has_room || self.make_room(qos) {
                self.accept(message, wait, expires);
                continue;
            }
            match (self.policy(qos), wait) {
                (WhenFull::Fail, Some((wait, token))) => in_line.push(Waiting {
                    message,
                    wait,
                    token,
                    expires,
                }),
                (policy @ (WhenFull::Fail | WhenFull::DropOldest | WhenFull::DropNewest), wait) => {
                    match (self.no_room(policy, wait.is_some()), wait) {
                        (Ok(_), _) => {}
                        (Err(error), Some((_, token))) => self.out.done(token, Err(error)),
                        (Err(error), None) => self
                            .out
                            .effect(Effect::Unpublished(Some(Box::new(message)), error)),
                    }
                }
            }
        }
        self.session.line.stand_first(in_line);
    }

    fn restore_outgoing(
        &mut self,
        journal: &Journal,
        outgoing: BTreeMap<u64, Piece>,
        burnt: Vec<PacketId>,
    ) {
        let Session {
            ids, publish_out, ..
        } = &mut self.session;
        let last = outgoing.last_key_value().map(|(order, _)| *order);
        let released = outgoing.values().filter_map(|piece| match &piece.outgoing {
            Outgoing::Message { .. } => None,
            Outgoing::Released { order, .. } => Some(*order),
        });
        let next_order = last.into_iter().chain(released).max();
        publish_out.restore_order(next_order.map_or(0, |last| last + 1));
        for (order, piece) in outgoing {
            let Piece { renamed, .. } = piece;
            match piece.outgoing {
                Outgoing::Message { id, dies, message } => {
                    let expires = journal.expiry_of(dies, &message);
                    publish_out.restore(order, message, expires, id, renamed, ids);
                }
                Outgoing::Released {
                    id,
                    order: released,
                    reason,
                } => publish_out.restore_released(order, (id, released, reason), renamed, ids),
            }
        }
        for id in burnt {
            publish_out.restore_burnt(id, ids);
        }
    }

    /// The session of the earlier process is none to go on with: the next connection starts clean, and
    /// what it had to send is sent anew.
    pub fn disown(&mut self) {
        self.session.opening.disown(self.config.session);
    }

    /// It is this date now, for what expires. If the clock was set, what is in the store says so.
    pub fn set_date(&mut self, now: Instant, unix: Duration) {
        if let Some(journal) = &mut self.out.journal
            && journal.set_date(now, unix)
        {
            self.session.publish_out.store_dates(journal);
        }
    }

    /// Where the connection leads that is about to be made, in words that the next process understands.
    pub fn set_place(&mut self, place: &str) {
        if let Some(journal) = &mut self.out.journal {
            journal.set_place(place);
        }
    }

    /// What has changed, to be handed to the store; none while a batch is on its way.
    pub fn poll_batch(&mut self) -> Option<Batch> {
        self.out.journal.as_mut()?.poll_batch()
    }

    /// The batch that was handed over is on disk: what waited for it leaves.
    pub fn handle_committed(&mut self) {
        if let Some(journal) = &mut self.out.journal {
            journal.handle_committed();
        }
        self.send_stored();
    }

    /// The store has failed, and nothing more goes into it. Every wait for a message of QoS 1 or 2 ends with
    /// this error.
    pub fn handle_store_failed(&mut self, error: &StoreError) {
        let error = Error::new(ErrorKind::Store(error.clone()), Doing::Publishing);
        self.session.publish_out.fail_waits(&error, &mut self.out);
        self.session.line.fail(&error, &mut self.out);
    }

    /// The store has failed and the user wants to go on without it: what waited for it leaves, and the
    /// session ends with this process, because the store says what was before.
    pub fn go_on_without_store(&mut self) {
        self.config.stored = false;
        // Those that waited for a batch leave in their order.
        let waited = self.out.journal.take();
        if let Some(mut journal) = waited {
            while let Some((kind, id, reason)) = journal.pop_gated(u64::MAX) {
                self.out.acknowledge(kind, id, reason);
            }
        }
        self.send_stored();
    }

    /// Whether a store takes part and everything is in it, or none does.
    pub(super) fn is_stored(&self) -> bool {
        let journal = self.out.journal.as_ref();
        journal.is_none_or(|journal| journal.is_idle())
    }

    fn send_stored(&mut self) {
        self.out.send_ungated();
        if let Link::Online(online) = &mut self.link {
            online.ledger.flush(&mut self.out);
        }
    }

    /// What the store says of the session may have to change.
    pub(super) fn identify(&mut self) {
        let Self {
            config,
            session,
            out,
            ..
        } = self;
        if let Some(journal) = &mut out.journal {
            journal.identify(|place| session.opening.identity(config, place));
        }
    }

    /// The time is over for the subscriptions of the earlier process: what was not made again is
    /// unsubscribed.
    pub(super) fn disinherit(&mut self) {
        let filters = self.session.inheritance.end(&self.session.subscribing);
        if !filters.is_empty() {
            self.unsubscribe(&filters, Properties::new(), None);
        }
        self.out.effect(Effect::Disinherited);
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Damaged, format!("the store {what}"))
}
