//! The rules of MQTT without a clock and without a socket: instants and packets in, bytes and effects
//! out. See [`Protocol`].
//!
//! Each category of packets is one machine in one file. This file, `commands`, `network`, `inbound`,
//! `authenticate`, `delivery`, `pump` and `restore` only compose them: what the application asks for, what
//! the network and the clock bring, which machine gets a packet that arrived, what an authenticator answers,
//! who took a message, what may leave now, and what a store holds. The two tables of state are in `session`;
//! what of them outlives the process, and what waits until it does, is in `journal`.

#![expect(
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    reason = "hidden; matched to the end by the client"
)]

// The client's side and the network's side of `Protocol`.
mod authenticate;
mod commands;
mod delivery;
mod inbound;
mod network;
mod pump;
mod restore;
mod session;

// The machines, one per category of packets.
mod auth;
mod connect;
mod ping;
mod publish_in;
mod publish_out;
mod publish_qos0;
mod subscribe;
mod trial;
mod unsubscribe;

// What they share.
mod alias;
mod config;
mod effect;
mod expiry;
mod inheritance;
mod journal;
mod ledger;
mod limits;
mod line;
mod login;
mod outbox;
mod outgoing;
mod packet_id;
mod problem;
pub mod record;
mod requests;
mod window;
mod wish;

pub use auth::Ask;
pub use config::{Config, SessionMode};
pub use connect::{Continuity, Credentials};
pub use delivery::{Delivery, Step};
pub use effect::{Asked, Done, Effect, Grant, Token};
pub use journal::Kept;
pub use limits::Limits;
pub use login::{AuthStep, Login};
pub use outbox::{BodyChunk, Chunk};
pub use outgoing::Outgoing;
pub use publish_in::Receipt;
pub use restore::Restored;
pub use subscribe::{BATCH, Subscription};
pub use wish::{Identifier, Wish};

pub use crate::properties::Remarks;

use std::time::Instant;

use connect::Handshake;
use outbox::Outbox;
use session::{Online, Session};

/// One MQTT client without its socket.
///
/// There are four kinds of methods, and a driver calls them like this:
///
/// - **Getters** may be called at any time.
/// - **Commands** (`publish`, `subscribe`, …) come from the application, at any time.
/// - **`handle_*`** and [`Protocol::connect`] bring what the network and the clock say. Time never
///   runs backwards.
/// - **`poll_*`** give out what became of it: bytes with [`Protocol::poll_chunk`], effects with
///   [`Protocol::poll_effect`], and with [`Protocol::poll_timeout`] the instant at which
///   [`Protocol::handle_timeout`] wants to be called.
///
/// After any of the middle two the driver calls [`Protocol::pump`], then polls until nothing comes. A chunk
/// goes back with [`Protocol::handle_written`] even if the transport took nothing of it, or is dropped when
/// [`Protocol::disconnected`] is called; commands may come while it is away. No method waits, reads a clock,
/// or calls anyone.
#[derive(Debug)]
pub struct Protocol {
    config: Config,
    session: Session,
    link: Link,
    out: Outbox,
}

/// ```text
///             connect()              CONNACK              disconnect(), or a violation
///     Offline ─────────► Connecting ─────────► Online ───────────────────────────────► Leaving
///        ▲                    │                   │                                       │
///        └────────────────────┴───────────────────┴──────── disconnected() ───────────────┘
/// ```
#[derive(Debug)]
enum Link {
    Offline,
    /// CONNECT is sent.
    Connecting(Handshake),
    Online(Box<Online>),
    /// DISCONNECT is sent, and nothing after it [MQTT-3.14.4-1]. The tables of the connection are kept
    /// until it ends.
    Leaving(Option<Box<Online>>),
}

/// What became of a publish.
#[derive(Debug)]
pub enum Accepted {
    /// It will be sent.
    Yes,
    /// It waits for room at this place of the line of its class.
    Parked(u64),
    /// Nobody waits for it, there was no room, and the policy is to drop it.
    Dropped,
}

/// Messages for which there was no room, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// The call failed.
    pub failed: u64,
    /// Dropped for a newer one.
    pub oldest: u64,
    /// Dropped when it came.
    pub newest: u64,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The broker closed it in order.
    ByBroker,
    /// It broke at this time. A network does that, and a broker that hangs up before it has read all that we
    /// sent.
    Broken(Instant),
    /// Anything else: silence, a timeout, ourselves.
    Otherwise,
}

impl Protocol {
    /// A client that has never been connected.
    pub fn new(config: Config) -> Self {
        let out = Outbox::new(config.version);
        Self {
            config,
            session: Session::new(),
            link: Link::Offline,
            out,
        }
    }

    // Getters.

    /// Whether CONNACK came and the connection goes on.
    pub fn is_online(&self) -> bool {
        matches!(self.link, Link::Online(_))
    }

    /// Whether DISCONNECT is sent and nothing may follow it.
    pub fn is_leaving(&self) -> bool {
        matches!(self.link, Link::Leaving(_))
    }

    /// What the broker announced, while there is a connection.
    pub fn limits(&self) -> Option<&Limits> {
        match &self.link {
            Link::Online(online) => Some(&online.limits),
            Link::Offline | Link::Connecting(_) | Link::Leaving(_) => None,
        }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The client identifier in use: the one given, or the one that the broker assigned.
    pub fn client_id(&self) -> &str {
        self.session.opening.client_id(&self.config)
    }

    /// QoS 1 and 2 messages that are not finished; those in line are not counted.
    pub fn unfinished(&self) -> usize {
        self.session.publish_out.len()
    }

    /// QoS 0 messages that were not handed to the transport's buffer.
    pub fn pending_qos0(&self) -> usize {
        self.session.publish_qos0.len()
    }

    /// Messages for which there was no room.
    pub fn losses(&self) -> Losses {
        self.session.losses
    }

    /// Packet identifiers in use: of messages that were sent and of requests that are unanswered.
    pub fn identifiers(&self) -> usize {
        self.session.ids.len()
    }

    /// QoS 1 and 2 messages that arrived and were not taken by all who got them.
    pub fn untaken(&self) -> usize {
        self.session.publish_in.untaken()
    }

    /// Whether everything accepted is sent and acknowledged.
    pub fn is_drained(&self) -> bool {
        let session = &self.session;
        session.publish_out.is_empty()
            && session.publish_qos0.is_empty()
            && session.line.is_empty()
            && session.line_qos0.is_empty()
            && !session.subscribing.requests.is_busy()
            && !session.unsubscribing.requests.is_busy()
            && self.out.unsent() == 0
            && !self.out.owes()
            && self.is_stored()
            && !self.out.needs_flush()
    }

    /// Whether the peer takes our acknowledgements too slowly to be read from, or the store what they wait
    /// for: they must not pile up. Before CONNACK nothing comes that could.
    pub fn is_clogged(&self) -> bool {
        match self.link {
            Link::Connecting(_) => false,
            Link::Offline | Link::Online(_) | Link::Leaving(_) => self.out.is_clogged(),
        }
    }

    /// How the connection ends that the other side closes now in order. No broker means to in the middle of
    /// a message of ours, but one that does not want it may: that looks like a link that breaks.
    pub fn closed_at(&self, now: Instant) -> End {
        if self.session.publish_out.is_amid(&self.out) {
            End::Broken(now)
        } else {
            End::ByBroker
        }
    }

    /// Bytes that the transport has not taken.
    pub fn unsent(&self) -> usize {
        self.out.unsent()
    }

    /// How many more QoS 1 and 2 messages may be under way now.
    pub fn credit(&self) -> usize {
        match &self.link {
            Link::Online(online) => online.window.credit(),
            Link::Offline | Link::Connecting(_) | Link::Leaving(_) => 0,
        }
    }

    /// Whether a message of any QoS would be accepted at once.
    pub fn has_room(&self) -> bool {
        self.room_qos0() && self.room()
    }

    fn room_qos0(&self) -> bool {
        self.session.line_qos0.is_empty()
            && self.session.publish_qos0.bytes() < self.config.queue_bytes
    }

    fn room(&self) -> bool {
        self.session.line.is_empty() && self.session.publish_out.bytes() < self.config.queue_bytes
    }
}
