//! How many QoS 1 and 2 messages may be under way on one connection, and what it has to send again
//! (MQTT 5, section 4.9).

use std::collections::VecDeque;

use super::connect::Limits;

/// What belongs to one connection: how many may be under way, and what is still to be sent again.
#[derive(Debug)]
pub(super) struct Window {
    /// The broker's Receive Maximum, or our own window if that is smaller.
    maximum: usize,
    /// Unfinished exchanges of this connection, the PUBREL phase included.
    used: usize,
    /// Unsettled entries in their order.
    pub(super) replay: VecDeque<usize>,
    pub(super) proof: Proof,
}

/// Whether this connection has shown that it works, so that its end may be a message's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing came back yet.
    None,
    /// PINGREQ is on its way, because the next message is under suspicion.
    Asked,
    /// PINGRESP came before the suspect was sent.
    Given,
    /// A message was acknowledged: none of this connection is to blame.
    Progress,
}

impl Window {
    pub(super) fn new(limits: &Limits, used: usize, replay: VecDeque<usize>) -> Self {
        Self {
            maximum: limits.receive_maximum.into(),
            used,
            replay,
            proof: Proof::None,
        }
    }

    /// Exchanges that may still be begun.
    pub(super) fn credit(&self) -> usize {
        self.maximum.saturating_sub(self.used)
    }

    /// The broker answered a PINGREQ.
    pub(super) fn handle_pingresp(&mut self) {
        match self.proof {
            Proof::Asked => self.proof = Proof::Given,
            Proof::None | Proof::Given | Proof::Progress => {}
        }
    }

    /// The broker answered a message, or ended the connection for a reason that no message can be.
    pub(super) fn acknowledged(&mut self) {
        self.proof = Proof::Progress;
    }

    /// A PUBLISH was sent [MQTT-4.9.0-2].
    pub(super) fn begun(&mut self) {
        self.used += 1;
    }

    /// An exchange is over: its place in the window is free.
    pub(super) fn finished(&mut self) {
        self.used = self.used.saturating_sub(1);
    }

    /// The broker answered the entry `key` before it was sent again: it is not sent again, and its
    /// exchange goes on in the window like any other.
    pub(super) fn settled(&mut self, key: usize) {
        self.replay.retain(|unsettled| *unsettled != key);
        self.used += 1;
    }
}
