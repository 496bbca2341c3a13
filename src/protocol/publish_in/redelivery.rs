//! What a lost link and the next CONNACK do to messages that arrived and are unread, and to QoS 2
//! identifiers (situations 4, 8 and 10).

use std::time::Instant;

use super::{Debt, Exactly, ExactlyState, Patience, PublishIn, Receipt, Seen};
use crate::message::{PacketId, Qos};
use crate::protocol::ledger::{Answer, Ledger};
use crate::protocol::outbox::Outbox;

impl PublishIn {
    /// The connection is over: what was owed is owed no more, and the messages stay where they are.
    pub(in crate::protocol) fn disconnected(&mut self) {
        for (key, untaken) in &mut self.untaken {
            if let Debt::Owed { id, .. } = untaken.debt {
                untaken.debt = Debt::Adrift { id };
                if untaken.qos == Qos::AtLeastOnce {
                    self.adrift.insert(
                        id,
                        Receipt {
                            key,
                            order: untaken.order,
                        },
                    );
                }
            }
        }
        for exactly in self.exactly_once.values_mut() {
            match exactly.seen {
                Seen::Now => exactly.seen = Seen::Before,
                Seen::Before | Seen::Perhaps => {}
            }
            exactly.place = None;
        }
        self.deadlines.clear();
    }

    /// The broker may have lost the session: its identifiers may mean nothing any more. A QoS 1 message
    /// that comes again is handed on again, rather than that another one is taken for it and lost.
    pub(in crate::protocol) fn session_untold(&mut self) {
        for receipt in std::mem::take(&mut self.adrift).into_values() {
            self.settle(receipt);
        }
        for exactly in self.exactly_once.values_mut() {
            exactly.seen = Seen::Perhaps;
        }
    }

    /// The broker lost the session: its identifiers mean nothing any more.
    pub(in crate::protocol) fn session_lost(&mut self, out: &mut Outbox) {
        for (_, untaken) in &mut self.untaken {
            untaken.debt = Debt::Nothing;
        }
        for (id, exactly) in std::mem::take(&mut self.exactly_once) {
            match exactly.state {
                ExactlyState::Untaken(_) => {}
                ExactlyState::Taken => super::unstore(id, out),
            }
        }
        self.adrift.clear();
    }

    /// Whether the broker may send this message again.
    pub(in crate::protocol) fn is_unanswered(&self, receipt: Receipt) -> bool {
        self.debt(receipt).is_some()
    }

    /// The store has this QoS 2 identifier. The broker may have lost the session without our knowing, so
    /// what comes under it without DUP is another message.
    pub(in crate::protocol) fn restore(&mut self, id: PacketId) {
        let exactly = Exactly {
            state: ExactlyState::Taken,
            seen: Seen::Perhaps,
            place: None,
        };
        self.exactly_once.insert(id, exactly);
    }

    /// An untaken message came again: its acknowledgement is owed on this connection too.
    pub(super) fn owe(
        &mut self,
        receipt: Receipt,
        id: PacketId,
        deadline: Option<Instant>,
        ledger: &mut Ledger,
    ) {
        let Some(untaken) = self.untaken_of(receipt) else {
            return;
        };
        match untaken.debt {
            Debt::Adrift { .. } => {
                let place = ledger.owed(untaken.qos).push(id, Answer::Open);
                untaken.debt = Debt::Owed { id, place };
            }
            // Repeated on the same connection: one acknowledgement is enough.
            Debt::Owed { .. } | Debt::Nothing => return,
        }
        match (untaken.patience, deadline) {
            (Patience::Limited, Some(deadline)) => self.remind(receipt, deadline),
            (Patience::Limited, None) | (Patience::Endless, _) => {}
        }
    }
}
