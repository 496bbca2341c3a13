//! What a test can ask the broker.

use crate::error::Violation;
use crate::message::Qos;

use super::broker::{Broker, LinkId};
use super::record::{LoggedPacket, Received};

impl Broker {
    /// How many messages of this QoS it took from clients; repetitions at QoS 2 are not counted.
    pub fn received(&self, qos: Qos) -> u64 {
        self.record
            .received
            .get(usize::from(qos.bits()))
            .copied()
            .unwrap_or(0)
    }

    /// The messages it took from clients, the oldest first.
    pub fn messages(&self) -> &[Received] {
        &self.record.messages
    }

    /// The packets that crossed any link, the oldest first.
    pub fn packets(&self) -> &[LoggedPacket] {
        &self.record.packets
    }

    /// Where clients broke the rules of MQTT; such a link is ended.
    pub fn violations(&self) -> &[(LinkId, Violation)] {
        &self.record.violations
    }

    /// How many packets came from clients.
    pub fn packets_in(&self) -> u64 {
        self.record.packets_in
    }

    /// How many CONNECTs it accepted.
    pub fn connects(&self) -> u64 {
        self.record.connects
    }

    /// Forgets what it recorded and counts from 0; sessions and retained messages stay.
    pub fn clear_records(&mut self) {
        self.record.clear();
    }

    /// The connected clients by client identifier, in alphabetical order.
    pub fn clients(&self) -> Vec<&str> {
        self.sessions
            .iter()
            .filter(|(_, session)| session.link.is_some())
            .map(|(client, _)| &**client)
            .collect()
    }

    /// Whether a client of this identifier is connected.
    pub fn is_connected(&self, client_id: &str) -> bool {
        self.link_of(client_id).is_some()
    }

    /// The link of a connected client.
    pub fn link_of(&self, client_id: &str) -> Option<LinkId> {
        self.sessions.get(client_id)?.link
    }

    /// The links that are open, the oldest first, also those without a client yet.
    pub fn links(&self) -> Vec<LinkId> {
        self.links
            .iter()
            .filter(|(_, link)| !link.is_closed())
            .map(|(id, _)| *id)
            .collect()
    }

    /// Those for whom it keeps a session, connected or not, in alphabetical order.
    pub fn sessions(&self) -> Vec<&str> {
        self.sessions.keys().map(|client| &**client).collect()
    }

    /// The filters and granted QoS of a client, in the order in which they were first asked for.
    pub fn subscriptions(&self, client_id: &str) -> Vec<(&str, Qos)> {
        self.subscriptions
            .of(client_id)
            .iter()
            .map(|subscription| (&*subscription.filter, subscription.options.qos))
            .collect()
    }

    /// How many QoS 1 and 2 messages wait for a client or are on their way to it.
    pub fn backlog(&self, client_id: &str) -> usize {
        self.sessions
            .get(client_id)
            .map_or(0, |session| session.backlog())
    }

    /// The payload that is retained for a topic.
    pub fn retained(&self, topic: &str) -> Option<&[u8]> {
        self.retained.payload(topic)
    }

    /// Drops all retained messages.
    pub fn clear_retained(&mut self) {
        self.retained.clear();
    }
}
