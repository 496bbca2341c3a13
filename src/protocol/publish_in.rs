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
//!
//! Here is what the broker sends. What those who got a message make of it is in `taking`, what happens if
//! they leave it unread in `late`, and what a lost link does in `redelivery`.

mod late;
mod redelivery;
mod taking;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use slab::Slab;

use super::ledger::{Answer, Ledger};
use super::outbox::Outbox;
use super::record::{Key, write_nothing};
use crate::codec::Publish;
use crate::codec::publish::AckKind;
use crate::error::Violation;
use crate::message::{PacketId, Qos};
use crate::properties::Remarks;
use crate::reason::Reason;

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
                            let answer = Answer::Ready(Reason::SUCCESS, Remarks::NONE, out.mark());
                            exactly.place = Some(ledger.pubrecs.push(id, answer));
                            ledger.flush(out);
                        }
                    }
                    Ok(Arrival::Repeated)
                }
            },
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
                let answer = Answer::Ready(Reason::SUCCESS, Remarks::NONE, 0);
                ledger.pubacks.push(id, answer);
            }
            Qos::ExactlyOnce => {
                let old = self.exactly_once.remove(&id);
                if old.as_ref().is_none_or(|old| old.seen != Seen::Now) {
                    ledger.unanswered += 1;
                }
                let answer = Answer::Ready(Reason::SUCCESS, Remarks::NONE, store(id, out));
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
