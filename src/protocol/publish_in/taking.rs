//! What those who got a message make of it: taken, refused or dropped; and the PUBACK or PUBREC that follows.

use std::time::Instant;

use super::{Debt, ExactlyState, Patience, PublishIn, Receipt, store};
use crate::message::Qos;
use crate::properties::Remarks;
use crate::protocol::ledger::{Answer, Ledger};
use crate::protocol::outbox::Outbox;
use crate::reason::Reason;
use crate::version::Version;

impl PublishIn {
    /// The message was handed to this many who have to take it. Each is unread until `deadline`, if
    /// there is one.
    pub(in crate::protocol) fn delivered(
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
    pub(in crate::protocol) fn take(
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
    pub(in crate::protocol) fn abandon(&mut self, receipt: Receipt, out: &mut Outbox) {
        if self.untaken_of(receipt).is_none() {
            return;
        }
        let untaken = self.untaken.remove(receipt.key);
        match untaken.debt {
            Debt::Owed { id, .. } | Debt::Adrift { id } => self.forget(untaken.qos, id, out),
            Debt::Nothing => {}
        }
    }

    /// The message is settled on our side: what it is owed may be sent.
    pub(super) fn acknowledge(
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
        let answer = Answer::Ready(reason, remarks, batch);
        ledger.owed(qos).set(place, answer);
        ledger.flush(out);
    }
}
