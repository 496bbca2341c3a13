//! What survives a reconnect, and what does not: the two tables, never mixed.
//!
//! [`Session`] outlives connections; [`Online`] is made at CONNACK and dropped with its connection.

use std::time::Instant;

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
    /// Since when the transport has neither taken nor flushed a byte although there are some.
    pub(super) stalled: Option<Instant>,
    /// Bytes of a packet above the limit that are still to be dropped.
    pub(super) skip: usize,
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
            next_order: 1,
        }
    }

    /// Gives memory back that is not in use.
    pub(super) fn shrink(&mut self) {
        self.ids.shrink();
        self.publish_qos0.shrink();
        self.publish_out.shrink();
        self.publish_in.shrink();
    }
}
