//! How many QoS 1 and 2 messages may be under way on one connection, and what it has to send again
//! (MQTT 5, section 4.9).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::limits::Limits;
use crate::message::Qos;

/// Messages of QoS 1 that get their identifiers before there is room for them: as many as the window of
/// a broker that says nothing of it.
const AHEAD: usize = 1024;

/// How long a connection has to last before a message is sent alone. For a network that breaks at random times, it
/// is then rare that it does so over the message, however often or seldom it breaks.
const LASTING: Duration = Duration::from_secs(5);

/// A broker that does not want a message hangs up as fast as it answers a PINGREQ, and this much longer at most.
const AT_ONCE: Duration = Duration::from_secs(1);

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
    pub(super) proof: Proof,
    rest: Rest,
    trial: Trial,
}

/// Whether this connection has shown that it works, so that its end may be a message's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing came back yet.
    None,
    /// PINGREQ is on its way since then, because the next message is under suspicion.
    Asked(Instant),
    /// PINGRESP came before the suspect was sent, after this long.
    Given(Duration),
    /// A message was acknowledged: none of this connection is to blame.
    Progress,
}

/// Before a message is sent over which the link broke again and again, the connection has to last. A network
/// that breaks often shows itself meanwhile, and then the message is none to be suspected.
#[derive(Debug, Clone, Copy)]
enum Rest {
    Unasked,
    Until(Instant),
    Over,
}

/// A message over which the link broke again and again is sent alone, so that nothing else can be the cause.
#[derive(Debug, Clone, Copy)]
enum Trial {
    None,
    /// Its first byte, at this offset, has not left.
    Due(u64),
    /// It has. What breaks the link later than this is not the broker that refuses it.
    Until(Instant),
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
            proof: Proof::None,
            rest: Rest::Unasked,
            trial: Trial::None,
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

    /// The broker answered a PINGREQ.
    pub(super) fn handle_pingresp(&mut self, now: Instant) {
        match self.proof {
            Proof::Asked(since) => {
                self.proof = Proof::Given(now.saturating_duration_since(since));
            }
            Proof::None | Proof::Given(_) | Proof::Progress => {}
        }
    }

    /// Whether the connection has lasted. From the first call on it is waited for.
    pub(super) fn has_lasted(&mut self, now: Instant) -> bool {
        match self.rest {
            Rest::Unasked => {
                self.rest = Rest::Until(now + LASTING);
                false
            }
            Rest::Until(end) => now >= end,
            Rest::Over => true,
        }
    }

    /// Whether the next suspect has to wait for proof.
    pub(super) fn is_unproven(&self) -> bool {
        match self.proof {
            Proof::None | Proof::Asked(_) => true,
            Proof::Given(_) | Proof::Progress => false,
        }
    }

    /// The message that begins at this offset is sent alone, if anything is to be learnt from it.
    pub(super) fn try_alone(&mut self, from: u64) {
        match self.proof {
            Proof::Given(_) => self.trial = Trial::Due(from),
            Proof::None | Proof::Asked(_) | Proof::Progress => {}
        }
    }

    /// Whether a message is sent alone and nothing has come of it yet.
    pub(super) fn is_on_trial(&self) -> bool {
        match self.trial {
            Trial::None => false,
            Trial::Due(_) | Trial::Until(_) => true,
        }
    }

    /// Whether the connection ended over the message that was sent alone, by when it ended.
    pub(super) fn ended_trial(&self, at: Instant) -> bool {
        match self.trial {
            Trial::None | Trial::Due(_) => false,
            Trial::Until(end) => at < end,
        }
    }

    /// The transport has taken bytes up to this offset.
    pub(super) fn handle_taken(&mut self, now: Instant, taken: u64) {
        match (self.trial, self.proof) {
            (Trial::Due(from), Proof::Given(answer)) if from < taken => {
                let end = now.checked_add(answer.saturating_add(AT_ONCE));
                self.trial = end.map_or(Trial::None, Trial::Until);
            }
            (Trial::None | Trial::Due(_) | Trial::Until(_), _) => {}
        }
    }

    /// When the connection has lasted, or nothing is to be learnt any more from a message that was sent alone.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match (self.rest, self.trial) {
            (Rest::Until(end), _) | (Rest::Unasked | Rest::Over, Trial::Until(end)) => Some(end),
            (Rest::Unasked | Rest::Over, Trial::None | Trial::Due(_)) => None,
        }
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self.rest {
            Rest::Until(end) if now >= end => self.rest = Rest::Over,
            Rest::Unasked | Rest::Until(_) | Rest::Over => {}
        }
        match self.trial {
            Trial::Until(end) if now >= end => self.trial = Trial::None,
            Trial::None | Trial::Due(_) | Trial::Until(_) => {}
        }
    }

    /// The broker answered a message, or ended the connection for a reason that no message can be.
    pub(super) fn acknowledged(&mut self) {
        self.proof = Proof::Progress;
        self.trial = Trial::None;
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
