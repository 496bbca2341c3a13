//! Publications to the clients: who gets a message, when it leaves, and what the client answers.

use std::rc::Rc;
use std::time::Instant;

use crate::codec::publish::AckKind;
use crate::codec::{Ack, Packet, Publish};
use crate::error::Violation;
use crate::message::{PacketId, Qos};
use crate::properties::{Properties, PropertyList};
use crate::reason::Reason;
use crate::version::Version;

use super::broker::{Broker, LinkId};
use super::dispatch::append;
use super::link::Naming;
use super::publish_in::found;
use super::session::{Delivery, Emission, Session};
use super::stored::Stored;
use super::subscriptions::Target;

/// Bytes of the Topic Alias property.
const ALIAS_SIZE: usize = 3;

impl Broker {
    /// Brings a message to everybody who subscribes; to how many. `store` is called only if somebody
    /// does or if the message is retained.
    pub(super) fn route(
        &mut self,
        now: Instant,
        from: Option<&str>,
        topic: &str,
        retain: bool,
        store: impl FnOnce() -> Stored,
    ) -> usize {
        let mut targets = std::mem::take(&mut self.targets);
        let sessions = &self.sessions;
        let is_online = |client: &str| {
            sessions
                .get(client)
                .is_some_and(|session| session.link.is_some())
        };
        let overlap = self.options.overlap;
        self.subscriptions
            .targets(topic, from, overlap, is_online, &mut targets);
        let count = targets.len();
        if count > 0 || retain {
            let message = Rc::new(store());
            if retain {
                self.retained.keep(&message);
            }
            for target in targets.drain(..) {
                self.deliver(now, target, &message);
            }
        }
        self.targets = targets;
        count
    }

    fn deliver(&mut self, now: Instant, target: Target, message: &Rc<Stored>) {
        let delivery = Delivery {
            message: Rc::clone(message),
            qos: message.qos.min(target.qos),
            // [MQTT-3.3.1-12/-13]
            retain: message.retain && target.retain_as_published,
            identifiers: target.identifiers,
        };
        self.send(now, &target.client, delivery);
    }

    /// QoS 0 goes at once or never, the rest into the session's queue.
    pub(super) fn send(&mut self, now: Instant, client: &str, delivery: Delivery) {
        let Some(session) = self.sessions.get_mut(client) else {
            return;
        };
        if delivery.qos == Qos::AtMostOnce {
            if let Some(link) = session.link {
                self.write_publish(link, now, None, &delivery, false);
            }
            return;
        }
        session.enqueue(delivery);
        self.emit(client, now);
    }

    /// Sends what waits for a client, as far as its window goes.
    pub(super) fn emit(&mut self, client: &str, now: Instant) {
        while let Some(session) = self.sessions.get_mut(client)
            && let Some(id) = session.link
            && let Some(connection) = self.links.get(&id).and_then(|link| link.connection())
            && let Some(emission) = session.poll_emission(connection.window, now)
        {
            let version = connection.version;
            match emission {
                Emission::Publish {
                    id: packet_id,
                    delivery,
                    dup,
                } => {
                    if !self.write_publish(id, now, Some(packet_id), &delivery, dup)
                        && let Some(session) = self.sessions.get_mut(client)
                    {
                        session.abandon(packet_id);
                    }
                }
                Emission::Pubrel(packet_id) => {
                    let pubrel = Packet::Pubrel(Ack {
                        id: packet_id,
                        reason: Reason::SUCCESS,
                        properties: PropertyList::EMPTY,
                    });
                    self.write(id, now, |out| append(pubrel, version, out));
                }
            }
        }
    }

    /// Says whether the client can take it at all.
    fn write_publish(
        &mut self,
        id: LinkId,
        now: Instant,
        packet_id: Option<PacketId>,
        delivery: &Delivery,
        dup: bool,
    ) -> bool {
        let connection = self
            .links
            .get_mut(&id)
            .and_then(|link| link.connection_mut());
        let Some(connection) = connection else {
            return false;
        };
        let version = connection.version;
        let message = &*delivery.message;
        let mut properties = Properties::new();
        if version == Version::V5_0 {
            properties = message.properties(now, &delivery.identifiers);
        }
        let mut publish = Publish {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: &message.topic,
            id: packet_id,
            properties: properties.list(),
            payload: &message.payload,
        };
        // With room for an alias, so that a topic does not get one that is never announced.
        if publish.size(version).saturating_add(ALIAS_SIZE) > connection.packet_limit {
            return false;
        }
        let with_alias;
        match connection.aliases_out.naming(&message.topic) {
            Naming::Topic => {}
            Naming::TopicAndAlias(alias) => {
                with_alias = properties.clone().topic_alias(alias);
                publish.properties = with_alias.list();
            }
            Naming::Alias(alias) => {
                with_alias = properties.clone().topic_alias(alias);
                publish.properties = with_alias.list();
                publish.topic = "";
            }
        }
        self.write(id, now, |out| {
            append(Packet::Publish(publish), version, out)
        });
        true
    }

    pub(super) fn handle_puback(
        &mut self,
        id: LinkId,
        now: Instant,
        ack: Ack<'_>,
    ) -> Result<(), Violation> {
        self.answered(id, now, |session| session.acknowledged(ack.id));
        Ok(())
    }

    pub(super) fn handle_pubrec(
        &mut self,
        id: LinkId,
        now: Instant,
        version: Version,
        ack: Ack<'_>,
    ) -> Result<(), Violation> {
        let known = self.answered(id, now, |session| session.recorded(ack.id, ack.reason));
        if !ack.reason.is_error() {
            // [MQTT-4.3.3-4]; also for an id that means nothing here, so that the exchange can end.
            let reason = found(known);
            self.answer_ack(id, now, version, AckKind::Pubrel, (ack.id, reason));
        }
        Ok(())
    }

    pub(super) fn handle_pubcomp(
        &mut self,
        id: LinkId,
        now: Instant,
        ack: Ack<'_>,
    ) -> Result<(), Violation> {
        self.answered(id, now, |session| session.completed(ack.id));
        Ok(())
    }

    /// Lets the session of a link take an answer, and sends what there is room for now.
    fn answered(
        &mut self,
        id: LinkId,
        now: Instant,
        take: impl FnOnce(&mut Session) -> bool,
    ) -> bool {
        let client = self.links.get(&id).and_then(|link| link.client());
        let Some(client) = client.map(Rc::clone) else {
            return false;
        };
        let known = self.sessions.get_mut(&client).is_some_and(take);
        self.emit(&client, now);
        known
    }
}
