//! What a connection can show about a message over which earlier ones have ended.
//!
//! A broker that does not want a message hangs up over it, and would get it again for ever. A network that ends
//! connections at random must never cost a message. So a suspect is sent behind a proof that the connection
//! works, and one over which links broke, which says less, alone and on a connection that has lasted:
//!
//! ```text
//!     None ── a suspect is next, and PINGREQ leaves ──► Asked ── PINGRESP ──► Given ── the suspect is sent
//!       └──────────────┴── any message is acknowledged ──► Progress ◄───────────┘
//! ```
//!
//! What is made of it when the connection ends is in `publish_out/replay`.

use std::time::{Duration, Instant};

/// How long a connection has to last before a message is sent alone. For a network that breaks at random times, it
/// is then rare that it does so over the message, however often or seldom it breaks.
const LASTING: Duration = Duration::from_secs(5);

/// A broker that does not want a message hangs up as fast as it answers a PINGREQ, and this much longer at most.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What one connection has shown.
#[derive(Debug)]
pub(super) struct Trial {
    proof: Proof,
    rest: Rest,
    alone: Alone,
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
enum Alone {
    None,
    /// Its first byte, at this offset, has not left.
    Due(u64),
    /// It has. What breaks the link later than this is not the broker that refuses it.
    Until(Instant),
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            proof: Proof::None,
            rest: Rest::Unasked,
            alone: Alone::None,
        }
    }
}

impl Trial {
    /// What the connection has shown so far.
    pub(super) fn proof(&self) -> Proof {
        self.proof
    }

    /// PINGREQ leaves because of a suspect.
    pub(super) fn ask(&mut self, now: Instant) {
        self.proof = Proof::Asked(now);
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
    pub(super) fn begin_alone(&mut self, from: u64) {
        match self.proof {
            Proof::Given(_) => self.alone = Alone::Due(from),
            Proof::None | Proof::Asked(_) | Proof::Progress => {}
        }
    }

    /// Whether a message is sent alone and nothing has come of it yet.
    pub(super) fn is_under_way(&self) -> bool {
        match self.alone {
            Alone::None => false,
            Alone::Due(_) | Alone::Until(_) => true,
        }
    }

    /// Whether the connection ended over the message that was sent alone, by when it ended.
    pub(super) fn has_ended(&self, at: Instant) -> bool {
        match self.alone {
            Alone::None | Alone::Due(_) => false,
            Alone::Until(end) => at < end,
        }
    }

    /// The transport has taken bytes up to this offset.
    pub(super) fn handle_taken(&mut self, now: Instant, taken: u64) {
        match (self.alone, self.proof) {
            (Alone::Due(from), Proof::Given(answer)) if from < taken => {
                let end = now.checked_add(answer.saturating_add(AT_ONCE));
                self.alone = end.map_or(Alone::None, Alone::Until);
            }
            (Alone::None | Alone::Due(_) | Alone::Until(_), _) => {}
        }
    }

    /// When the connection has lasted, or nothing is to be learnt any more from a message that was sent alone.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match (self.rest, self.alone) {
            (Rest::Until(end), _) | (Rest::Unasked | Rest::Over, Alone::Until(end)) => Some(end),
            (Rest::Unasked | Rest::Over, Alone::None | Alone::Due(_)) => None,
        }
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self.rest {
            Rest::Until(end) if now >= end => self.rest = Rest::Over,
            Rest::Unasked | Rest::Until(_) | Rest::Over => {}
        }
        match self.alone {
            Alone::Until(end) if now >= end => self.alone = Alone::None,
            Alone::None | Alone::Due(_) | Alone::Until(_) => {}
        }
    }

    /// The broker answered a message, or ended the connection for a reason that no message can be.
    pub(super) fn acknowledged(&mut self) {
        self.proof = Proof::Progress;
        self.alone = Alone::None;
    }
}
