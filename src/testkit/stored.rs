//! An application message on its way through the broker.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::codec::{Publish, Will};
use crate::message::{Message, Qos};
use crate::properties::{Properties, PropertyList};

/// Identifiers of properties that concern one hop and are not forwarded.
const MESSAGE_EXPIRY: u8 = 0x02;
const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
const WILL_DELAY: u8 = 0x18;
const TOPIC_ALIAS: u8 = 0x23;

/// A message that the broker holds: retained, queued, a will, or being delivered.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) topic: Rc<str>,
    pub(super) payload: Vec<u8>,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// What is forwarded unchanged, in its order [MQTT-3.3.2-17/-18].
    properties: Properties,
    expires: Option<Instant>,
}

impl Stored {
    pub(super) fn published(now: Instant, topic: &str, publish: &Publish<'_>) -> Self {
        Self {
            topic: topic.into(),
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: publish.retain,
            properties: forwarded(publish.properties),
            expires: expiry(now, publish.properties),
        }
    }

    /// Without an expiry, which counts from the publication of the will.
    pub(super) fn will(will: &Will<'_>) -> Self {
        Self {
            topic: will.topic.into(),
            payload: will.payload.to_vec(),
            qos: will.qos,
            retain: will.retain,
            properties: forwarded(will.properties),
            expires: None,
        }
    }

    pub(super) fn expiring(mut self, at: Option<Instant>) -> Self {
        self.expires = at;
        self
    }

    pub(super) fn own(now: Instant, message: &Message) -> Self {
        let list = message.property_list();
        Self {
            topic: message.topic().into(),
            payload: message.payload().to_vec(),
            qos: message.quality_of_service(),
            retain: message.is_retained(),
            properties: forwarded(list),
            expires: expiry(now, list),
        }
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// The properties for one delivery: the forwarded ones, what is left of the expiry
    /// [MQTT-3.3.2-6], and the identifiers of the subscriptions.
    pub(super) fn properties(&self, now: Instant, identifiers: &[u32]) -> Properties {
        let mut properties = self.properties.clone();
        if let Some(expires) = self.expires {
            // Rounded up, so that a message not delayed keeps its interval.
            let left = expires.saturating_duration_since(now);
            let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            properties = properties.message_expiry_interval(seconds);
        }
        for identifier in identifiers {
            properties = properties.subscription_identifier(*identifier);
        }
        properties
    }
}

fn forwarded(list: PropertyList<'_>) -> Properties {
    let mut properties = Properties::from(list);
    for id in [
        MESSAGE_EXPIRY,
        SUBSCRIPTION_IDENTIFIER,
        WILL_DELAY,
        TOPIC_ALIAS,
    ] {
        if list.iter().any(|property| property.id() == id) {
            properties = properties.without(id);
        }
    }
    properties
}

fn expiry(now: Instant, list: PropertyList<'_>) -> Option<Instant> {
    let seconds = list.message_expiry_interval()?;
    Some(now + Duration::from_secs(seconds.into()))
}
