//! What the machines want to have on disk, and what waits until it is there.
//!
//! With a store a message takes one stop more on its way; without one there is no journal, and nothing
//! waits.
//!
//! ```text
//!     out, QoS 1 and 2      accept ──► put: message, packet id ──► on disk ──► PUBLISH
//!                           PUBACK, PUBCOMP ──► remove             (nothing waits for it)
//!          QoS 2            PUBREC ──► put: released ──► on disk ──► PUBREL        [MQTT-4.3.3-6]
//!
//!     in,  on receipt       PUBLISH ──► put: message ──► on disk ──► PUBACK        [MQTT-4.3.2-4]
//!                           taken by its streams ──► remove        (nothing waits for it)
//!          QoS 2            taken ──► put: packet id ──► on disk ──► PUBREC
//!                           PUBREL ──► remove ──► on disk ──► PUBCOMP              [MQTT-4.3.3-12]
//!
//!     filters               call ──► put: filter ──► on disk ──► SUBSCRIBE
//!                           UNSUBACK, refused, withdrawn ──► remove        (nothing waits for it)
//! ```
//!
//! Changes gather in a batch while the one before is on its way, and each batch counts as a whole. So a
//! change is known by the number of its batch, and one number says what is on disk: batches are
//! committed in their order. Where the crash falls between two stops decides what the next process does:
//!
//! - Before a message is on disk, nobody was told that it is, and no byte of it has left.
//! - With its packet id on disk it may have left: it is sent again under that id, with DUP. So an id is
//!   given, and written, only when the message is about to leave; had it been given at accept, a
//!   message of QoS 2 that never left would have to be given up when the broker loses the session.
//! - A removal that is not on disk leaves a message that is sent again (QoS 1), or a PUBREL that is
//!   (QoS 2), which the broker answers with 0x92.
//! - A packet id of the broker that is on disk is not delivered again. One whose message was taken but is
//!   not on disk is: across the end of the process exactly once ends at the take that is on disk.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Identifier;
use super::expiry::Expiry;
use super::record::{Death, Identity, Key, write_filter, write_identity, write_kept};
use crate::codec::publish::AckKind;
use crate::codec::subscribe::FilterOptions;
use crate::message::{Message, PacketId};
use crate::reason::Reason;
use crate::store::Batch;
use crate::topic::check_filter;

/// Bytes that gather before nothing more is read from the broker, and no new message put. As much as a queue
/// of outgoing messages holds by default, so that these alone stop nothing.
const MARK: usize = 1024 * 1024;

/// A clock that shows an earlier date was never set: 2020-01-01.
const FIRST_DATE: u64 = 1_577_836_800;

/// How far the wall clock may go away from the monotonic one before what the store says of it is wrong.
const DRIFT: Duration = Duration::from_secs(1);

/// Stands for a message that was acknowledged before it was taken: it is in the store until it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept(pub(super) u64);

/// What goes into the store.
#[derive(Debug)]
pub(super) struct Journal {
    gathering: Batch,
    /// The number of the batch that gathers; the first is 1.
    number: u64,
    way: Way,
    committed: u64,
    /// Acknowledgements that wait for their batch, in the order in which they leave.
    gated: VecDeque<Gated>,
    filters: BTreeMap<Rc<str>, u64>,
    /// Who still holds each message that was acknowledged before it was taken.
    kept: BTreeMap<u64, usize>,
    /// For filters and kept messages.
    next: u64,
    date: (Instant, Duration),
    /// The date by which those in the store were computed.
    written: (Instant, Duration),
    place: String,
    /// What the store says of the session.
    identity: Option<Identity>,
}

/// Where the batch before the one that gathers is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// On disk.
    Arrived,
    /// Handed over.
    Under,
}

#[derive(Debug)]
struct Gated {
    batch: u64,
    kind: AckKind,
    id: PacketId,
    reason: Reason,
}

impl Journal {
    /// One for a store in which nothing is. `unix` is the date, as the time since 1970.
    pub(super) fn new(now: Instant, unix: Duration) -> Self {
        Self {
            gathering: Batch::new(),
            number: 1,
            way: Way::Arrived,
            committed: 0,
            gated: VecDeque::new(),
            filters: BTreeMap::new(),
            kept: BTreeMap::new(),
            next: 0,
            date: (now, unix),
            written: (now, unix),
            place: String::new(),
            identity: None,
        }
    }

    /// Writes a record. Returns the number of its batch.
    pub(super) fn put(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        self.gathering.put_with(key.number(), write);
        self.number
    }

    /// Removes a record.
    pub(super) fn remove(&mut self, key: Key) {
        self.gathering.remove(key.number());
    }

    /// Everything up to the batch of this number is on disk.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// The number of the last batch that holds a change: once it is on disk, all of them are.
    pub(super) fn mark(&self) -> u64 {
        if self.gathering.is_empty() {
            self.number - 1
        } else {
            self.number
        }
    }

    /// Whether everything is on disk.
    pub(super) fn is_idle(&self) -> bool {
        self.gathering.is_empty() && self.way == Way::Arrived
    }

    /// Whether so much waits for the disk that nothing more should be read from the broker, and no new message
    /// put.
    pub(super) fn is_clogged(&self) -> bool {
        self.gathering.bytes() > MARK
    }

    /// How many acknowledgements wait.
    pub(super) fn gated(&self) -> usize {
        self.gated.len()
    }

    /// The batch that gathered, unless the one before is still on its way.
    pub(super) fn poll_batch(&mut self) -> Option<Batch> {
        if self.way == Way::Under || self.gathering.is_empty() {
            return None;
        }
        self.way = Way::Under;
        self.number += 1;
        Some(std::mem::take(&mut self.gathering))
    }

    /// The batch that was on its way is on disk.
    pub(super) fn handle_committed(&mut self) {
        if self.way == Way::Under {
            self.way = Way::Arrived;
            self.committed = self.number - 1;
        }
    }

    /// Whether a change of this batch was handed over, so that it may be on disk.
    pub(super) fn is_handed_over(&self, batch: u64) -> bool {
        batch < self.number
    }

    /// An acknowledgement that leaves once every change so far is on disk.
    pub(super) fn gate(&mut self, kind: AckKind, id: PacketId, reason: Reason) {
        let batch = self.mark();
        self.gated.push_back(Gated {
            batch,
            kind,
            id,
            reason,
        });
    }

    /// The next acknowledgement that may leave, with `up_to` as what is on disk.
    pub(super) fn pop_gated(&mut self, up_to: u64) -> Option<(AckKind, PacketId, Reason)> {
        if self.gated.front()?.batch > up_to {
            return None;
        }
        let gated = self.gated.pop_front()?;
        Some((gated.kind, gated.id, gated.reason))
    }

    /// The connection is over, and with it what would have been sent on it.
    pub(super) fn disconnected(&mut self) {
        self.gated.clear();
    }

    // The date.

    /// It is this date now. Returns whether the clock was set since the dates in the store were written, so that
    /// they are to be written again. Not while so much waits for the disk already, nor for a date that is none.
    pub(super) fn set_date(&mut self, now: Instant, unix: Duration) -> bool {
        self.date = (now, unix);
        let (then, date) = self.written;
        let expected = date.saturating_add(now.saturating_duration_since(then));
        if unix.abs_diff(expected) <= DRIFT || unix.as_secs() < FIRST_DATE || self.is_clogged() {
            return false;
        }
        self.written = self.date;
        true
    }

    /// When a message dies, as a date.
    pub(super) fn date_of(&self, expires: Expiry) -> Death {
        let end = match expires {
            Expiry::Never => return Death::Never,
            Expiry::After(span) => self.date.0 + span,
            Expiry::At(end) => end,
        };
        let (now, unix) = self.date;
        if unix.as_secs() < FIRST_DATE {
            return Death::Unknown;
        }
        let left = end.saturating_duration_since(now);
        let date = unix.checked_add(left);
        date.map_or(Death::Unknown, |date| Death::At(date.as_secs()))
    }

    /// When a message dies that the store says to die then: never later than its whole interval from now,
    /// whatever became of the clock meanwhile.
    pub(super) fn expiry_of(&self, dies: Death, message: &Message) -> Expiry {
        let Some(interval) = message.property_list().message_expiry_interval() else {
            return Expiry::Never;
        };
        let (now, unix) = self.date;
        let interval = Duration::from_secs(interval.into());
        let left = match dies {
            Death::At(second) if unix.as_secs() >= FIRST_DATE => {
                Duration::from_secs(second).checked_sub(unix)
            }
            Death::Never | Death::Unknown | Death::At(_) => Some(interval),
        };
        match left {
            Some(left) => Expiry::At(now + left.min(interval)),
            None => Expiry::At(now.checked_sub(Duration::from_nanos(1)).unwrap_or(now)),
        }
    }

    // The session.

    /// Where the connection leads that is about to be made.
    pub(super) fn set_place(&mut self, place: &str) {
        if self.place != place {
            place.clone_into(&mut self.place);
        }
    }

    /// What the store says of the session, if it has to change.
    pub(super) fn identify(&mut self, describe: impl FnOnce(&str) -> Identity) {
        let identity = describe(&self.place);
        if self.identity.as_ref() != Some(&identity) {
            self.put(Key::Session, |out| write_identity(&identity, out));
            self.identity = Some(identity);
        }
    }

    /// Whether the next process goes on with the session.
    pub(super) fn goes_on(&self) -> bool {
        self.identity
            .as_ref()
            .is_some_and(|identity| identity.at_broker)
    }

    /// The store says this of the session.
    pub(super) fn restore_identity(&mut self, identity: Identity) {
        self.place.clone_from(&identity.place);
        self.identity = Some(identity);
    }

    // Filters.

    /// The broker is about to be asked for this filter. Returns the number of the batch to wait for.
    ///
    /// One that is none, as that of a service may be on an older version, fails when it is to leave: the
    /// broker never hears of it, so neither does the store.
    pub(super) fn put_filter(
        &mut self,
        filter: &Rc<str>,
        options: FilterOptions,
        identifier: Identifier,
    ) -> u64 {
        if check_filter(filter).is_err() {
            return self.mark();
        }
        let number = match self.filters.get(filter) {
            Some(number) => *number,
            None => {
                let number = self.take_number();
                self.filters.insert(Rc::clone(filter), number);
                number
            }
        };
        self.put(Key::Filter(number), |out| {
            write_filter(filter, options, identifier, out);
        })
    }

    /// The broker does not have this filter any more.
    pub(super) fn forget_filter(&mut self, filter: &str) {
        if let Some(number) = self.filters.remove(filter) {
            self.remove(Key::Filter(number));
        }
    }

    /// The store has this filter.
    pub(super) fn restore_filter(&mut self, filter: Rc<str>, number: u64) {
        self.next = self.next.max(number + 1);
        self.filters.insert(filter, number);
    }

    // Messages that are acknowledged before they are taken.

    /// Keeps a message on behalf of one holder. Returns the number of its batch, too.
    pub(super) fn keep(&mut self, message: &Message) -> (Kept, u64) {
        let order = self.take_number();
        self.kept.insert(order, 1);
        let batch = self.put(Key::Kept(order), |out| write_kept(message, out));
        (Kept(order), batch)
    }

    /// One more holds it.
    pub(super) fn hold(&mut self, kept: Kept) {
        if let Some(holders) = self.kept.get_mut(&kept.0) {
            *holders += 1;
        }
    }

    /// Whether anyone holds it.
    pub(super) fn is_kept(&self, kept: Kept) -> bool {
        self.kept.contains_key(&kept.0)
    }

    /// One holds it no more. After the last one the store forgets it.
    pub(super) fn let_go(&mut self, kept: Kept) {
        let Some(holders) = self.kept.get_mut(&kept.0) else {
            return;
        };
        *holders -= 1;
        if *holders == 0 {
            self.kept.remove(&kept.0);
            self.remove(Key::Kept(kept.0));
        }
    }

    /// The store has this message, and one holds it.
    pub(super) fn restore_kept(&mut self, order: u64) -> Kept {
        self.next = self.next.max(order + 1);
        self.kept.insert(order, 1);
        Kept(order)
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }
}
