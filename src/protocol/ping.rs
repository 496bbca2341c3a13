//! Keep-alive: when the next PINGREQ is due, and when the link is dead (MQTT 5, section 3.1.2.10).
//!
//! ```text
//!          nothing sent, or nothing received,
//!               for the keep-alive                flushed
//!     Idle ──────────────────────────► Queued ──────────────► Waiting
//!       ▲                                │                       │ │ nothing received
//!       │            PINGRESP            │                       │ │ for the patience
//!       └────────────────────────────────┴───────────────────────┘ ▼
//!                                                           the link is dead
//! ```
//!
//! A ping is due also when only one direction was silent: a client that only sends would otherwise never
//! learn that nobody answers, and one that only receives would be dropped by its broker.
//!
//! PINGRESP may be late behind much other input. Meanwhile PINGREQ leaves again for every keep-alive in
//! which nothing else was sent; the patience is still that of the first one.

use std::time::{Duration, Instant};

use super::outbox::{OnFlush, Outbox};
use super::{Done, Token};
use crate::codec::ping::PINGREQ;
use crate::error::{Doing, Error, ErrorKind};

/// The keep-alive of one connection.
#[derive(Debug)]
pub(super) struct Ping {
    /// None if the keep-alive is 0: then pings are sent only when asked for.
    interval: Option<Duration>,
    /// How long PINGRESP may take.
    patience: Duration,
    sent: Instant,
    received: Instant,
    state: State,
    /// Callers of `ping()` who wait for the next PINGRESP.
    waits: Vec<Token>,
}

#[derive(Debug)]
enum State {
    /// No PINGREQ is on its way.
    Idle,
    /// PINGREQ is in the out buffer, in front of this offset.
    Queued { end: u64 },
    /// PINGREQ is flushed and nothing was received since this instant.
    Waiting { since: Instant },
}

impl Ping {
    /// CONNACK has just arrived; CONNECT, the last packet so far, was sent at `sent`.
    pub(super) fn new(
        interval: Option<Duration>,
        patience: Duration,
        sent: Instant,
        now: Instant,
    ) -> Self {
        Self {
            interval,
            patience,
            sent,
            received: now,
            state: State::Idle,
            waits: Vec::new(),
        }
    }

    /// When the last bytes came, or CONNACK.
    pub(super) fn received(&self) -> Instant {
        self.received
    }

    /// The transport took bytes.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        self.sent = now;
    }

    /// Bytes arrived: the link lives, whatever they are.
    pub(super) fn handle_received(&mut self, now: Instant) {
        self.received = now;
        match &mut self.state {
            State::Waiting { since } => *since = now,
            State::Idle | State::Queued { .. } => {}
        }
    }

    /// Nothing is read now, for a reason of ours: what the peer says meanwhile is not known, so it is not held
    /// against it.
    pub(super) fn handle_unread(&mut self, now: Instant) {
        self.handle_received(now);
    }

    /// PINGREQ was flushed.
    pub(super) fn handle_flushed(&mut self, now: Instant) {
        match self.state {
            State::Queued { .. } => self.state = State::Waiting { since: now },
            State::Idle | State::Waiting { .. } => {}
        }
    }

    /// PINGRESP arrived. Returns whether it was asked for; if not, it is ignored.
    pub(super) fn handle_pingresp(&mut self, out: &mut Outbox) -> bool {
        match self.state {
            State::Idle => return false,
            // It cannot be the answer to what has not left. Else it may come before the flush is noticed.
            State::Queued { end } if out.taken() < end => return false,
            State::Queued { .. } | State::Waiting { .. } => self.state = State::Idle,
        }
        for token in self.waits.drain(..) {
            out.done(token, Ok(Done::Pong));
        }
        true
    }

    /// Someone wants to know whether the broker answers.
    pub(super) fn ping(&mut self, token: Token, out: &mut Outbox) {
        self.waits.push(token);
        self.probe_if_asked(out);
    }

    /// Sends PINGREQ if someone waits for the answer to one and it may leave.
    pub(super) fn probe_if_asked(&mut self, out: &mut Outbox) {
        if !self.waits.is_empty() && !out.holds_back() {
            self.probe(out);
        }
    }

    /// Sends PINGREQ unless one is on its way.
    pub(super) fn probe(&mut self, out: &mut Outbox) {
        match self.state {
            State::Idle => self.send(out),
            State::Queued { .. } | State::Waiting { .. } => {}
        }
    }

    /// Time has passed.
    ///
    /// # Errors
    /// The link is dead: no byte came for the patience after PINGREQ was flushed.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) -> Result<(), Error> {
        match self.state {
            State::Idle if self.is_due(now) => {
                self.send(out);
                Ok(())
            }
            State::Waiting { since } if self.dead(since).is_some_and(|dead| now >= dead) => Err(
                Error::new(ErrorKind::Silent(self.patience), Doing::Connected),
            ),
            State::Waiting { .. } if self.repeat().is_some_and(|due| now >= due) => {
                out.send_bytes(&PINGREQ);
                // If it cannot leave, the out buffer's own watch ends the link, not a heap of pings.
                self.sent = now;
                Ok(())
            }
            State::Idle | State::Queued { .. } | State::Waiting { .. } => Ok(()),
        }
    }

    /// Whether one direction was silent for the keep-alive.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| now >= due)
    }

    /// When [`Ping::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle => self.due(),
            // The out buffer is watched for progress by itself.
            State::Queued { .. } => None,
            State::Waiting { since } => {
                let dead = self.dead(since);
                dead.into_iter().chain(self.repeat()).min()
            }
        }
    }

    /// The same while nothing is read: no answer is late.
    pub(super) fn poll_timeout_unread(&self) -> Option<Instant> {
        match self.state {
            State::Idle => self.due(),
            State::Queued { .. } => None,
            State::Waiting { .. } => self.repeat(),
        }
    }

    /// The connection is over. Returns who waits in vain.
    pub(super) fn disconnected(self) -> Vec<Token> {
        self.waits
    }

    fn due(&self) -> Option<Instant> {
        self.interval
            .map(|interval| self.sent.min(self.received) + interval)
    }

    /// When the next PINGREQ is due although one is unanswered [MQTT-3.1.2-20].
    fn repeat(&self) -> Option<Instant> {
        self.interval.map(|interval| self.sent + interval)
    }

    /// When the link is dead that was silent since then; never if the patience has no end.
    fn dead(&self, since: Instant) -> Option<Instant> {
        since.checked_add(self.patience)
    }

    fn send(&mut self, out: &mut Outbox) {
        out.send_bytes(&PINGREQ);
        out.when_flushed(OnFlush::Ping);
        self.state = State::Queued { end: out.total() };
    }
}
