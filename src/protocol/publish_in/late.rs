//! Messages that are not taken in time: they are acknowledged, and stay queued.

use std::time::Instant;

use super::{Debt, PublishIn, Receipt};
use crate::message::Message;
use crate::properties::Remarks;
use crate::protocol::Effect;
use crate::protocol::journal::Kept;
use crate::protocol::ledger::Ledger;
use crate::protocol::outbox::Outbox;
use crate::reason::Reason;

/// Deadlines of taken messages that may be kept, so that dropping them is rare.
const SPARE: usize = 64;

impl PublishIn {
    /// When [`PublishIn::handle_timeout`] has something to do; perhaps a little early.
    pub(in crate::protocol) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Time has passed: what was not taken in time is acknowledged; it stays queued.
    pub(in crate::protocol) fn handle_timeout(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        out: &mut Outbox,
    ) {
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
    pub(in crate::protocol) fn keep(
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
    pub(in crate::protocol) fn late(
        &mut self,
        receipt: Receipt,
        ledger: Option<&mut Ledger>,
        out: &mut Outbox,
    ) {
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
    pub(super) fn remind(&mut self, receipt: Receipt, deadline: Instant) {
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
}
