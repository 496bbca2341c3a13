//! How many QoS 1 and 2 messages may be under way on one connection, and what it has to send again
//! (MQTT 5, section 4.9).

use std::collections::VecDeque;

use super::limits::Limits;
use super::trial::Trial;
use crate::message::Qos;

/// Messages of QoS 1 that get their identifiers before there is room for them: as many as the window of
/// a broker that says nothing of it.
const AHEAD: usize = 1024;

/// What belongs to one connection: how many may be under way, and what is still to be sent again.
#[derive(Debug)]
pub(super) struct Window {
    /// The broker's Receive Maximum, or our own window if that is smaller.
    maximum: usize,
    /// Unfinished exchanges of this connection, the PUBREL phase included.
    used: usize,
    /// How many of them may be, and are, QoS 2.
    exactly_once_maximum: usize,
    exactly_once: usize,
    /// Unsettled entries in their order.
    pub(super) replay: VecDeque<usize>,
    pub(super) trial: Trial,
}

impl Window {
    /// A connection begins, with so many exchanges that are in the PUBREL phase.
    pub(super) fn new(limits: &Limits, released: usize, replay: VecDeque<usize>) -> Self {
        Self {
            maximum: limits.receive_maximum.into(),
            used: released,
            exactly_once_maximum: limits.exactly_once_maximum.into(),
            exactly_once: released,
            replay,
            trial: Trial::default(),
        }
    }

    /// Exchanges that may still be begun. At the bound of QoS 2 nothing is: what is behind a message of
    /// QoS 2 keeps its place [MQTT-4.6.0-1].
    pub(super) fn credit(&self) -> usize {
        if self.exactly_once >= self.exactly_once_maximum {
            return 0;
        }
        self.maximum.saturating_sub(self.used)
    }

    /// Whether a message of this QoS may get its identifier before it is sent, if `named` others have it.
    ///
    /// At QoS 1 many may: to wait for the disk once per window of the broker would be slow. At QoS 2 only
    /// what can leave at once: what has an identifier counts as perhaps sent if the process ends, and if
    /// the broker loses the session too, it is given up.
    pub(super) fn lets_name(&self, qos: Qos, named: usize) -> bool {
        let free = self.credit().saturating_sub(self.replay.len());
        match qos {
            Qos::AtMostOnce | Qos::AtLeastOnce => named < free + AHEAD,
            Qos::ExactlyOnce => {
                let free_twice = self.exactly_once_maximum.saturating_sub(self.exactly_once);
                // All of the replay may be QoS 2. If it is not, the identifiers come when it has left.
                let free_twice = free_twice.saturating_sub(self.replay.len());
                named < free.min(free_twice)
            }
        }
    }

    /// A PUBLISH was sent [MQTT-4.9.0-2].
    pub(super) fn begun(&mut self, qos: Qos) {
        self.used += 1;
        self.exactly_once += usize::from(qos == Qos::ExactlyOnce);
    }

    /// An exchange is over: its place in the window is free.
    pub(super) fn finished(&mut self, qos: Qos) {
        self.used = self.used.saturating_sub(1);
        let exactly_once = usize::from(qos == Qos::ExactlyOnce);
        self.exactly_once = self.exactly_once.saturating_sub(exactly_once);
    }

    /// The broker answered the entry `key` before it was sent again: it is not sent again, and its
    /// exchange goes on in the window like any other.
    pub(super) fn settled(&mut self, key: usize, qos: Qos) {
        self.replay.retain(|unsettled| *unsettled != key);
        self.begun(qos);
    }
}
