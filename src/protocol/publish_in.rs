//! What arrives: PUBLISH, and which PUBACK, PUBREC and PUBCOMP it is owed (MQTT 5, section 4.3).
//!
//! ```text
//!     QoS 1:  PUBLISH ──► Untaken ── taken by all ──► PUBACK, in order of arrival
//!     QoS 2:  PUBLISH ──► Untaken ── taken by all ──► PUBREC, in order of arrival ──► Taken
//!                            │  link lost: nothing is owed, the message stays queued      │ PUBREL
//!                            ▼                                                            ▼
//!                         Adrift ── PUBLISH again: owed again, not delivered again     PUBCOMP
//! ```
//!
//! A [`Receipt`] stands for a message that streams still hold; it outlives connections, as do the
//! QoS 2 identifiers. The [`Ledger`] (what is owed, in which order, and topic aliases) belongs to one
//! connection and dies with it.

mod redelivery;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use slab::Slab;

use super::Effect;
use super::journal::Kept;
use super::ledger::{Answer, Ledger};
use super::outbox::Outbox;
use super::record::{Key, write_nothing};
use crate::codec::Publish;
use crate::codec::publish::AckKind;
use crate::error::Violation;
use crate::message::{Message, PacketId, Qos};
use crate::properties::Remarks;
use crate::reason::Reason;
use crate::version::Version;

/// Deadlines of taken messages that may be kept, so that dropping them is rare.
const SPARE: usize = 64;

/// Stands for a message that was delivered and is owed an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    key: usize,
    /// Tells this use of the key from a later one.
    order: u64,
}

impl Receipt {
    /// Whether its message came before that of `other`.
    pub(crate) fn is_before(self, other: Self) -> bool {
        self.order < other.order
    }
}

/// What outlives connections.
#[derive(Debug, Default)]
pub(super) struct PublishIn {
    untaken: Slab<Untaken>,
    /// QoS 2 identifiers that the broker has not released.
    exactly_once: BTreeMap<PacketId, Exactly>,
    /// QoS 1 identifiers under which the broker may send an untaken message again.
    adrift: BTreeMap<PacketId, Receipt>,
    next_order: u64,
    /// When an unread message is acknowledged all the same, oldest first.
    deadlines: VecDeque<(Instant, Receipt)>,
}

/// A message that is not taken by all who got it.
#[derive(Debug)]
struct Untaken {
    order: u64,
    qos: Qos,
    takers: usize,
    /// The worst answer of those who took it, and what they said beside it.
    reason: Reason,
    remarks: Remarks,
    patience: Patience,
    debt: Debt,
    /// The batch with its content, if it is acknowledged before it is taken; else 0.
    batch: u64,
}

/// For how long a message may stay unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// For ever: it is acknowledged by hand, or nobody has it yet.
    Endless,
    /// For the take timeout, counted anew when the broker sends it again.
    Limited,
}

/// What an untaken message is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Debt {
    /// An acknowledgement at this place of the ledger.
    Owed { id: PacketId, place: u64 },
    /// Nothing on this connection, but the broker may send it again under this identifier.
    Adrift { id: PacketId },
    /// Nothing ever: it was acknowledged late, or its session is lost.
    Nothing,
}

impl Debt {
    /// The place of the acknowledgement in the ledger.
    fn place(self) -> Option<u64> {
        match self {
            Self::Owed { place, .. } => Some(place),
            Self::Adrift { .. } | Self::Nothing => None,
        }
    }
}

/// A QoS 2 identifier that the broker has not released.
#[derive(Debug)]
struct Exactly {
    state: ExactlyState,
    seen: Seen,
    /// The place in this connection's ledger of the PUBREC that was owed last.
    place: Option<u64>,
}

impl Exactly {
    /// Whether a PUBREC for it waits to be sent.
    fn is_owed(&self, ledger: &Ledger) -> bool {
        self.place
            .is_some_and(|place| ledger.pubrecs.is_waiting(place))
    }
}

/// When a QoS 2 identifier was published last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// On this connection, so it counts against our Receive Maximum.
    Now,
    /// On an earlier connection of the same session.
    Before,
    /// On an earlier connection, and perhaps of another session, in which it named another message.
    Perhaps,
}

#[derive(Debug)]
enum ExactlyState {
    /// Streams still hold it.
    Untaken(Receipt),
    /// PUBREC is due or was sent.
    Taken,
}

/// What to do with a PUBLISH.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Hand it on; nothing is owed.
    Deliver,
    /// Hand it on, then say with [`PublishIn::delivered`] who got it.
    DeliverOwed(Receipt),
    /// It was handed on before.
    Repeated,
}

impl PublishIn {
    /// How many messages are not taken.
    pub(super) fn untaken(&self) -> usize {
        self.untaken.len()
    }

    /// A PUBLISH arrived. If it is one that is still unread, that has to be taken by `deadline` now.
    ///
    /// # Errors
    /// More unanswered ones than our Receive Maximum [MQTT-3.3.4-9].
    pub(super) fn handle_publish(
        &mut self,
        publish: &Publish<'_>,
        deadline: Option<Instant>,
        ledger: &mut Ledger,
        out: &mut Outbox,
    ) -> Result<Arrival, Violation> {
        let Some(id) = publish.id else {
            return Ok(Arrival::Deliver);
        };
        match publish.qos {
            Qos::AtMostOnce => Ok(Arrival::Deliver),
            Qos::AtLeastOnce => {
                ledger.count(out.version())?;
                let adrift = self.adrift.remove(&id);
                if let Some(receipt) = adrift.filter(|receipt| self.debt(*receipt).is_some()) {
                    if publish.dup {
                        self.owe(receipt, id, deadline, ledger);
                        return Ok(Arrival::Repeated);
                    }
                    // The broker uses the identifier for another message now.
                    self.settle(receipt);
                }
                Ok(Arrival::DeliverOwed(self.receive(
                    id,
                    Qos::AtLeastOnce,
                    ledger,
                )))
            }
            Qos::ExactlyOnce => match self.exactly_once.get_mut(&id) {
                // Sent again it would have DUP [MQTT-3.3.1-1]: it is of a session that we do not know.
                Some(Exactly {
                    seen: Seen::Perhaps,
                    ..
                }) if !publish.dup => {
                    self.forget_exactly(id, out);
                    self.handle_publish(publish, deadline, ledger, out)
                }
                None => {
                    ledger.count(out.version())?;
                    let receipt = self.receive(id, Qos::ExactlyOnce, ledger);
                    let exactly = Exactly {
                        state: ExactlyState::Untaken(receipt),
                        seen: Seen::Now,
                        place: self.debt(receipt).and_then(Debt::place),
                    };
                    self.exactly_once.insert(id, exactly);
                    Ok(Arrival::DeliverOwed(receipt))
                }
                Some(exactly) => {
                    match std::mem::replace(&mut exactly.seen, Seen::Now) {
                        Seen::Now => {}
                        Seen::Before | Seen::Perhaps => ledger.count(out.version())?,
                    }
                    match exactly.state {
                        ExactlyState::Untaken(receipt) => {
                            self.owe(receipt, id, deadline, ledger);
                            let place = self.debt(receipt).and_then(Debt::place);
                            if let Some(exactly) = self.exactly_once.get_mut(&id) {
                                exactly.place = place;
                            }
                        }
                        // While a PUBREC waits for an older one, it answers the repetition too.
                        ExactlyState::Taken if exactly.is_owed(ledger) => {}
                        ExactlyState::Taken => {
                            let answer = Answer::Ready(Reason::SUCCESS, out.mark());
                            exactly.place = Some(ledger.pubrecs.push(id, answer));
                            ledger.flush(out);
                        }
                    }
                    Ok(Arrival::Repeated)
                }
            },
        }
    }

    /// The message was handed to this many who have to take it. Each is unread until `deadline`, if
    /// there is one.
    pub(super) fn delivered(
        &mut self,
        receipt: Receipt,
        takers: usize,
        deadline: Option<Instant>,
        ledger: Option<&mut Ledger>,
        out: &mut Outbox,
    ) {
        let Some(untaken) = self.untaken_of(receipt) else {
            return;
        };
        if takers == 0 {
            return self.take(receipt, (Reason::SUCCESS, Remarks::NONE), ledger, out);
        }
        untaken.takers = takers;
        if let Some(deadline) = deadline {
            untaken.patience = Patience::Limited;
            self.remind(receipt, deadline);
        }
    }

    /// One of those who got the message has taken or refused it.
    pub(super) fn take(
        &mut self,
        receipt: Receipt,
        (reason, remarks): (Reason, Remarks),
        ledger: Option<&mut Ledger>,
        out: &mut Outbox,
    ) {
        let Some(untaken) = self.untaken_of(receipt) else {
            return;
        };
        untaken.takers = untaken.takers.saturating_sub(1);
        // The words belong to the reason that is sent, and a reason string may stand there but once.
        if reason > untaken.reason || untaken.remarks.is_empty() {
            untaken.remarks = remarks;
        }
        untaken.reason = untaken.reason.max(reason);
        if untaken.takers > 0 {
            return;
        }
        let untaken = self.untaken.remove(receipt.key);
        let batch = untaken.batch;
        let answer = (untaken.reason, untaken.remarks);
        self.acknowledge(untaken.qos, untaken.debt, answer, batch, ledger, out);
    }

    /// The message was dropped by the one who had to answer it by hand: it is never acknowledged, and
    /// handed on again when the broker sends it again. What came after it waits for that.
    pub(super) fn abandon(&mut self, receipt: Receipt, out: &mut Outbox) {
        if self.untaken_of(receipt).is_none() {
            return;
        }
        let untaken = self.untaken.remove(receipt.key);
        match untaken.debt {
            Debt::Owed { id, .. } | Debt::Adrift { id } => self.forget(untaken.qos, id, out),
            Debt::Nothing => {}
        }
    }

    /// The QoS 2 identifier names another message now: the one that had it is owed nothing any more.
    fn forget_exactly(&mut self, id: PacketId, out: &mut Outbox) -> Option<Exactly> {
        let exactly = self.exactly_once.remove(&id)?;
        match exactly.state {
            ExactlyState::Untaken(receipt) => self.settle(receipt),
            ExactlyState::Taken => unstore(id, out),
        }
        Some(exactly)
    }

    /// The next message with this identifier is another one.
    fn forget(&mut self, qos: Qos, id: PacketId, out: &mut Outbox) {
        match qos {
            Qos::ExactlyOnce => {
                self.forget_exactly(id, out);
            }
            Qos::AtLeastOnce | Qos::AtMostOnce => {
                self.adrift.remove(&id);
            }
        }
    }

    /// The message is settled on our side: what it is owed may be sent.
    fn acknowledge(
        &mut self,
        qos: Qos,
        debt: Debt,
        (reason, remarks): (Reason, Remarks),
        mut batch: u64,
        ledger: Option<&mut Ledger>,
        out: &mut Outbox,
    ) {
        let (Debt::Owed { id, .. } | Debt::Adrift { id }) = debt else {
            return;
        };
        // Before 5.0 there is no way to refuse.
        let reason = match out.version() {
            Version::V5_0 => reason,
            Version::V3_1 | Version::V3_1_1 => Reason::SUCCESS,
        };
        let refused = reason.is_error();
        match qos {
            // After PUBREC with an error the identifier is new [MQTT-4.3.3-9]. Where there is no link to
            // send it on, the message comes again and can be refused again.
            Qos::ExactlyOnce if refused => self.forget(qos, id, out),
            Qos::ExactlyOnce => {
                if let Some(exactly) = self.exactly_once.get_mut(&id) {
                    exactly.state = ExactlyState::Taken;
                    batch = store(id, out);
                }
            }
            Qos::AtLeastOnce | Qos::AtMostOnce => self.forget(qos, id, out),
        }
        let (Debt::Owed { place, .. }, Some(ledger)) = (debt, ledger) else {
            return;
        };
        let owed = match qos {
            Qos::ExactlyOnce => &mut ledger.pubrecs,
            Qos::AtLeastOnce | Qos::AtMostOnce => &mut ledger.pubacks,
        };
        let answer = if remarks.is_empty() {
            Answer::Ready(reason, batch)
        } else {
            Answer::Worded(reason, remarks, batch)
        };
        owed.set(place, answer);
        ledger.flush(out);
    }

    /// PUBREL arrived: the identifier is forgotten, then PUBCOMP is sent. Returns whether it was known.
    pub(super) fn handle_pubrel(
        &mut self,
        id: PacketId,
        ledger: &mut Ledger,
        out: &mut Outbox,
    ) -> bool {
        let Some(exactly) = self.forget_exactly(id, out) else {
            let reason = Reason::PACKET_IDENTIFIER_NOT_FOUND;
            out.acknowledge_stored(AckKind::Pubcomp, id, reason);
            return false;
        };
        // If the broker did not wait for a PUBREC, that must not come any more: it would answer the next
        // message with this identifier.
        if let Some(place) = exactly.place {
            ledger.pubrecs.set(place, Answer::Void);
        }
        match exactly.seen {
            Seen::Now => ledger.answered(),
            Seen::Before | Seen::Perhaps => {}
        }
        out.acknowledge_stored(AckKind::Pubcomp, id, Reason::SUCCESS);
        ledger.flush(out);
        true
    }

    /// A message above our limit was skipped: it is answered like one that nobody wants, so that the
    /// broker does not send it for ever.
    pub(super) fn handle_skipped(
        &mut self,
        qos: Qos,
        id: PacketId,
        ledger: &mut Ledger,
        out: &mut Outbox,
    ) {
        match qos {
            Qos::AtMostOnce => return,
            Qos::AtLeastOnce => {
                self.forget(qos, id, out);
                ledger.unanswered += 1;
                ledger.pubacks.push(id, Answer::Ready(Reason::SUCCESS, 0));
            }
            Qos::ExactlyOnce => {
                let old = self.exactly_once.remove(&id);
                if old.as_ref().is_none_or(|old| old.seen != Seen::Now) {
                    ledger.unanswered += 1;
                }
                let answer = Answer::Ready(Reason::SUCCESS, store(id, out));
                let place = match old.and_then(|old| old.place) {
                    Some(place) if ledger.pubrecs.is_waiting(place) => {
                        ledger.pubrecs.set(place, answer);
                        place
                    }
                    Some(_) | None => ledger.pubrecs.push(id, answer),
                };
                let exactly = Exactly {
                    state: ExactlyState::Taken,
                    seen: Seen::Now,
                    place: Some(place),
                };
                self.exactly_once.insert(id, exactly);
            }
        }
        ledger.flush(out);
    }

    /// Gives memory back that is not in use.
    pub(super) fn shrink(&mut self) {
        self.deadlines.shrink_to_fit();
        if self.untaken.is_empty() {
            self.untaken = Slab::new();
        }
    }

    /// When [`PublishIn::handle_timeout`] has something to do; perhaps a little early.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Time has passed: what was not taken in time is acknowledged; it stays queued.
    pub(super) fn handle_timeout(&mut self, now: Instant, ledger: &mut Ledger, out: &mut Outbox) {
        while let Some((deadline, receipt)) = self.deadlines.front().copied() {
            if deadline > now && self.debt(receipt).is_some() {
                return;
            }
            self.deadlines.pop_front();
            let Some(debt @ Debt::Owed { .. }) = self.debt(receipt) else {
                continue;
            };
            let Some(qos) = self.untaken_of(receipt).map(|untaken| untaken.qos) else {
                continue;
            };
            // With a store, nothing is acknowledged that is not in it: the client looks for the message and
            // says that it is late.
            if out.journal.is_none() {
                self.settle(receipt);
                let answer = (Reason::SUCCESS, Remarks::NONE);
                self.acknowledge(qos, debt, answer, 0, Some(&mut *ledger), out);
            }
            out.effect(Effect::Overdue(receipt));
        }
    }

    /// A message will be acknowledged before it is taken: it is stored, for one of those who hold it. None
    /// without a store.
    pub(super) fn keep(
        &mut self,
        receipt: Receipt,
        message: &Message,
        out: &mut Outbox,
    ) -> Option<Kept> {
        let (kept, batch) = out.journal.as_mut()?.keep(message);
        if let Some(untaken) = self.untaken_of(receipt) {
            untaken.batch = batch;
        }
        Some(kept)
    }

    /// A message was not taken in time. With a store it is acknowledged now that it is in there.
    pub(super) fn late(&mut self, receipt: Receipt, ledger: Option<&mut Ledger>, out: &mut Outbox) {
        let Some(debt @ Debt::Owed { .. }) = self.debt(receipt) else {
            return;
        };
        let Some(untaken) = self.untaken_of(receipt) else {
            return;
        };
        let (qos, batch) = (untaken.qos, untaken.batch);
        self.settle(receipt);
        let answer = (Reason::SUCCESS, Remarks::NONE);
        self.acknowledge(qos, debt, answer, batch, ledger, out);
    }

    /// An unread message must be taken by `deadline`, or is acknowledged then.
    fn remind(&mut self, receipt: Receipt, deadline: Instant) {
        // What was taken meanwhile is dropped here, so that the queue holds only what is unread.
        while let Some((_, front)) = self.deadlines.front() {
            if self.debt(*front).is_some() {
                break;
            }
            self.deadlines.pop_front();
        }
        // Behind one that is unread for long there may be many that were taken at once.
        if self.deadlines.len() > 2 * self.untaken.len() + SPARE {
            let mut deadlines = std::mem::take(&mut self.deadlines);
            deadlines.retain(|(_, receipt)| self.debt(*receipt).is_some());
            self.deadlines = deadlines;
        }
        self.deadlines.push_back((deadline, receipt));
    }

    fn receive(&mut self, id: PacketId, qos: Qos, ledger: &mut Ledger) -> Receipt {
        let place = ledger.owed(qos).push(id, Answer::Open);
        let order = self.next_order;
        self.next_order += 1;
        let debt = Debt::Owed { id, place };
        let key = self.untaken.insert(Untaken {
            order,
            qos,
            takers: 1,
            reason: Reason::SUCCESS,
            remarks: Remarks::NONE,
            patience: Patience::Endless,
            debt,
            batch: 0,
        });
        Receipt { key, order }
    }

    fn untaken_of(&mut self, receipt: Receipt) -> Option<&mut Untaken> {
        let untaken = self.untaken.get_mut(receipt.key)?;
        (untaken.order == receipt.order).then_some(untaken)
    }

    fn debt(&self, receipt: Receipt) -> Option<Debt> {
        let untaken = self.untaken.get(receipt.key)?;
        (untaken.order == receipt.order && untaken.debt != Debt::Nothing).then_some(untaken.debt)
    }

    /// Nothing is owed for this message any more.
    fn settle(&mut self, receipt: Receipt) {
        if let Some(untaken) = self.untaken_of(receipt) {
            untaken.debt = Debt::Nothing;
        }
    }
}

/// The identifier stands in the store before PUBREC leaves. Returns the number of its batch.
fn store(id: PacketId, out: &mut Outbox) -> u64 {
    out.journal
        .as_mut()
        .map_or(0, |journal| journal.put(Key::Taken(id), write_nothing))
}

/// The identifier is gone from the store before PUBCOMP leaves [MQTT-4.3.3-12].
fn unstore(id: PacketId, out: &mut Outbox) {
    if let Some(journal) = &mut out.journal {
        journal.remove(Key::Taken(id));
    }
}
