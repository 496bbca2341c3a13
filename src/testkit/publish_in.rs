//! Publications of the clients: PUBLISH, PUBREL, and what they are answered with.

use std::rc::Rc;
use std::time::Instant;

use crate::codec::publish::AckKind;
use crate::codec::{Ack, Publish};
use crate::error::Violation;
use crate::message::Qos;
use crate::reason::Reason;
use crate::topic::matches;
use crate::version::Version;

use super::broker::{Broker, LinkId};
use super::link::Connection;
use super::options::BrokerOptions;
use super::stored::Stored;

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
}

/// Whether an id meant something, as a reason.
pub(super) fn found(known: bool) -> Reason {
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
