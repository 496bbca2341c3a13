//! PUBLISH and its answers, in both directions.

use std::rc::Rc;
use std::time::Instant;

use crate::codec::publish::AckKind;
use crate::codec::{Ack, Packet, Publish};
use crate::error::Violation;
use crate::message::{PacketId, Qos};
use crate::properties::{Properties, PropertyList};
use crate::reason::Reason;
use crate::topic::matches;
use crate::version::Version;

use super::broker::{Broker, LinkId};
use super::dispatch::append;
use super::link::{Connection, Naming};
use super::options::BrokerOptions;
use super::session::{Delivery, Emission};
use super::stored::Stored;
use super::subscriptions::Target;

/// Bytes of the Topic Alias property.
const ALIAS_SIZE: usize = 3;

impl Broker {
    pub(super) fn handle_publish(
        &mut self,
        id: LinkId,
        now: Instant,
        version: Version,
        publish: Publish<'_>,
    ) -> Result<(), Violation> {
        let connection = self
            .links
            .get_mut(&id)
            .and_then(|link| link.connection_mut());
        let Some(connection) = connection else {
            return Ok(());
        };
        let client = Rc::clone(&connection.client);
        let mut aliased = None;
        if version == Version::V5_0 {
            check_offer(&self.options, &publish)?;
            aliased = resolve_alias(connection, &publish)?;
            check_window(&self.options, connection, &publish)?;
        }
        let topic = aliased.as_deref().unwrap_or(publish.topic);
        let Some(packet_id) = publish.id else {
            self.take(now, &client, topic, &publish);
            return Ok(());
        };
        let kind = match publish.qos {
            Qos::AtMostOnce | Qos::AtLeastOnce => AckKind::Puback,
            Qos::ExactlyOnce => AckKind::Pubrec,
        };
        if let Some(connection) = self
            .links
            .get_mut(&id)
            .and_then(|link| link.connection_mut())
        {
            connection.unfinished.insert(packet_id);
        }
        let known = kind == AckKind::Pubrec
            && self
                .sessions
                .get(&client)
                .is_some_and(|session| session.received.contains(&packet_id));
        // [MQTT-4.3.3-10]
        let reason = if known {
            Reason::SUCCESS
        } else {
            self.take(now, &client, topic, &publish)
        };
        // [MQTT-4.3.3-9]: what is refused is not remembered.
        if kind == AckKind::Pubrec
            && !reason.is_error()
            && let Some(session) = self.sessions.get_mut(&client)
        {
            session.received.insert(packet_id);
        }
        self.answer_ack(id, now, version, kind, (packet_id, reason));
        Ok(())
    }

    /// Records and routes a message; what its sender is told.
    fn take(
        &mut self,
        now: Instant,
        client: &Rc<str>,
        topic: &str,
        publish: &Publish<'_>,
    ) -> Reason {
        if self
            .options
            .denied
            .iter()
            .any(|filter| matches(filter, topic))
        {
            return Reason::NOT_AUTHORIZED;
        }
        self.record.message(client, topic, publish);
        let reached = self.route(now, Some(client), topic, publish.retain, || {
            Stored::published(now, topic, publish)
        });
        if reached == 0 {
            Reason::NO_MATCHING_SUBSCRIBERS
        } else {
            Reason::SUCCESS
        }
    }

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

    pub(super) fn handle_pubrel(
        &mut self,
        id: LinkId,
        now: Instant,
        version: Version,
        ack: Ack<'_>,
    ) -> Result<(), Violation> {
        let client = self.links.get(&id).and_then(|link| link.client());
        let session = client.and_then(|client| self.sessions.get_mut(client));
        let known = session.is_some_and(|session| session.received.remove(&ack.id));
        // [MQTT-4.3.3-11]
        self.answer_ack(id, now, version, AckKind::Pubcomp, (ack.id, found(known)));
        Ok(())
    }

    /// Lets the session of a link take an answer, and sends what there is room for now.
    fn answered(
        &mut self,
        id: LinkId,
        now: Instant,
        take: impl FnOnce(&mut super::session::Session) -> bool,
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

fn found(known: bool) -> Reason {
    if known {
        Reason::SUCCESS
    } else {
        Reason::PACKET_IDENTIFIER_NOT_FOUND
    }
}

/// What CONNACK said is not offered.
fn check_offer(options: &BrokerOptions, publish: &Publish<'_>) -> Result<(), Violation> {
    if publish.qos > options.maximum_qos {
        return Err(
            Violation::protocol("MQTT-3.2.2-11", "a QoS above the maximum")
                .with_reason(Reason::QOS_NOT_SUPPORTED),
        );
    }
    if publish.retain && !options.retain_available {
        return Err(Violation::protocol("MQTT-3.2.2-14", "a retained message")
            .with_reason(Reason::RETAIN_NOT_SUPPORTED));
    }
    if publish.properties.subscription_identifier().is_some() {
        return Err(Violation::protocol(
            "MQTT-3.3.4-6",
            "a Subscription Identifier from a client",
        ));
    }
    Ok(())
}

/// The topic that an alias stands for, if there is one; a new alias is learnt.
fn resolve_alias(
    connection: &mut Connection,
    publish: &Publish<'_>,
) -> Result<Option<Rc<str>>, Violation> {
    let Some(alias) = publish.properties.topic_alias() else {
        return Ok(None);
    };
    let slot = usize::from(alias)
        .checked_sub(1)
        .and_then(|index| connection.aliases_in.get_mut(index))
        .ok_or(
            Violation::protocol("MQTT-3.3.2-9", "a Topic Alias above the maximum")
                .with_reason(Reason::TOPIC_ALIAS_INVALID),
        )?;
    if !publish.topic.is_empty() {
        *slot = Some(publish.topic.into());
    }
    match slot {
        Some(topic) => Ok(Some(Rc::clone(topic))),
        None => Err(Violation::protocol(
            "MQTT5 3.3.2.3.4",
            "a Topic Alias that stands for nothing",
        )),
    }
}

/// The Receive Maximum, and no repetition on a live connection.
fn check_window(
    options: &BrokerOptions,
    connection: &Connection,
    publish: &Publish<'_>,
) -> Result<(), Violation> {
    let Some(id) = publish.id else {
        return Ok(());
    };
    if connection.unfinished.contains(&id) {
        return Err(Violation::protocol(
            "MQTT-4.4.0-1",
            "a publication repeated, or its id used anew, on a live connection",
        ));
    }
    let limit = options.receive_maximum.unwrap_or(u16::MAX);
    if connection.unfinished.len() >= limit.into() {
        return Err(Violation::protocol(
            "MQTT-3.3.4-7",
            "more publications than the Receive Maximum",
        )
        .with_reason(Reason::RECEIVE_MAXIMUM_EXCEEDED));
    }
    Ok(())
}
