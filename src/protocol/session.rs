//! What survives a reconnect, and what does not: the two tables, never mixed.
//!
//! [`Session`] outlives connections; [`Online`] is made at CONNACK and dropped with its connection.

use std::time::Instant;

use super::Losses;
use super::alias::Aliases;
use super::auth::Authentication;
use super::connect::Opening;
use super::inheritance::Inheritance;
use super::ledger::Ledger;
use super::limits::Limits;
use super::line::Line;
use super::packet_id::PacketIds;
use super::ping::Ping;
use super::publish_in::PublishIn;
use super::publish_out::PublishOut;
use super::publish_qos0::PublishQos0;
use super::subscribe::Subscribing;
use super::unsubscribe::Unsubscribing;
use super::window::Window;

/// What outlives connections.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) opening: Opening,
    pub(super) ids: PacketIds,
    pub(super) publish_qos0: PublishQos0,
    pub(super) publish_out: PublishOut,
    pub(super) publish_in: PublishIn,
    pub(super) subscribing: Subscribing,
    pub(super) unsubscribing: Unsubscribing,
    pub(super) inheritance: Inheritance,
    /// Callers who wait for room, per class of message.
    pub(super) line_qos0: Line,
    pub(super) line: Line,
    /// When one of those that wait above expires; perhaps it has left before.
    pub(super) expires: Option<Instant>,
    /// Messages for which there was no room.
    pub(super) losses: Losses,
    /// The place of the next subscribe or unsubscribe in their common order; 0 is for restoring.
    pub(super) next_order: u64,
}

/// What belongs to one connection.
#[derive(Debug)]
pub(super) struct Online {
    pub(super) limits: Limits,
    pub(super) ping: Ping,
    pub(super) window: Window,
    /// Ours; those of the broker are in the ledger.
    pub(super) aliases: Aliases,
    pub(super) ledger: Ledger,
    /// None if CONNECT named no authentication method.
    pub(super) auth: Option<Box<Authentication>>,
    /// Since when the transport has neither taken nor got rid of a byte although there are some.
    pub(super) stalled: Option<Instant>,
    /// Bytes of a packet above the limit that are still to be dropped.
    pub(super) skip: usize,
    /// The batch of the store with what CONNACK has changed. Before it is on disk nothing is subscribed to:
    /// what comes for it belongs to a session that the next process would not know.
    pub(super) opened: u64,
}

impl Online {
    /// When a transport that takes no byte is given up: after the keep-alive; after half of it once nothing
    /// was received for the whole. So a link on which not even PINGREQ can leave is found after one and a
    /// half keep-alives, which is also when the broker gives it up [MQTT-3.1.2-22].
    pub(super) fn stalled_until(&self) -> Option<Instant> {
        let (since, patience) = self.stalled.zip(self.limits.keep_alive)?;
        let silent = self.ping.received() + patience;
        Some((since + patience).min(silent.max(since + patience / 2)))
    }

    /// Whether the server owes us the next step of a re-authentication.
    pub(super) fn is_renewing(&self) -> bool {
        self.auth.as_ref().is_some_and(|auth| auth.is_renewing())
    }
}

impl Session {
    /// Nothing was ever sent.
    pub(super) fn new() -> Self {
        Self {
            opening: Opening::new(),
            ids: PacketIds::default(),
            publish_qos0: PublishQos0::default(),
            publish_out: PublishOut::default(),
            publish_in: PublishIn::default(),
            subscribing: Subscribing::default(),
            unsubscribing: Unsubscribing::default(),
            inheritance: Inheritance::default(),
            line_qos0: Line::default(),
            line: Line::default(),
            expires: None,
            losses: Losses::default(),
            next_order: 1,
        }
    }

    /// Whether messages wait to be sent.
    pub(super) fn holds_back(&self) -> bool {
        self.publish_out.has_pending()
            || !self.publish_qos0.is_empty()
            || !self.line.is_empty()
            || !self.line_qos0.is_empty()
    }

    /// Gives memory back that is not in use.
    pub(super) fn shrink(&mut self) {
        self.ids.shrink();
        self.publish_qos0.shrink();
        self.publish_out.shrink();
        self.publish_in.shrink();
    }
}
