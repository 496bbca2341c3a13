//! What a PUBLISH of ours may carry, and what it costs: the same for every QoS.

use super::limits::Limits;
use crate::codec::{MAX_REMAINING, Place, Publish};
use crate::error::{Doing, Error, ErrorKind};
use crate::message::{Message, PacketId, Payload, Qos};
use crate::properties::{Properties, Property, PropertyFault, PropertyList};
use crate::reason::Reason;
use crate::version::Version;

/// Bytes that a message counts beside topic and payload, so that empty ones are bounded too. What its entry
/// takes depends on the QoS, from about as much to some four times as much.
pub(super) const OVERHEAD: usize = 64;

/// The largest packet that MQTT can express: five bytes of fixed header and what they can count.
pub(super) const LARGEST: usize = MAX_REMAINING + 5;

/// A message to publish, borrowed from its caller.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Where to; checked to be a topic name.
    pub topic: &'a str,
    /// What.
    pub payload: Payload<'a>,
    /// With which properties; not sent before 5.0.
    pub properties: PropertyList<'a>,
    /// Whether the broker keeps it.
    pub retain: bool,
}

impl Outgoing<'_> {
    /// Bytes of its packet.
    pub(super) fn size(&self, version: Version) -> usize {
        size(
            version,
            Qos::AtMostOnce,
            self.topic,
            self.properties,
            self.payload.as_bytes(),
        )
    }
}

/// Bytes of the packet of `message`.
pub(super) fn size_of(version: Version, message: &Message) -> usize {
    size(
        version,
        message.quality_of_service(),
        message.topic(),
        message.property_list(),
        message.payload(),
    )
}

fn size(
    version: Version,
    qos: Qos,
    topic: &str,
    properties: PropertyList<'_>,
    payload: &[u8],
) -> usize {
    let properties = carried(version, properties, None);
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        // Any identifier takes two bytes.
        id: (qos != Qos::AtMostOnce).then_some(PacketId::MIN),
        properties: properties.list(),
        payload,
    };
    publish.size(version)
}

/// What a message counts against the bound of its queue.
pub(super) fn cost(topic: usize, payload: usize) -> usize {
    topic + payload + OVERHEAD
}

/// What the broker said at CONNACK that it does not take [MQTT-3.2.2-11, -14].
pub(super) fn check(qos: Qos, retain: bool, limits: &Limits) -> Result<(), Error> {
    let refuse = |reason| Err(Error::new(ErrorKind::NotOffered(reason), Doing::Publishing));
    if qos > limits.maximum_qos {
        return refuse(Reason::QOS_NOT_SUPPORTED);
    }
    if retain && !limits.retain_available {
        return refuse(Reason::RETAIN_NOT_SUPPORTED);
    }
    Ok(())
}

/// Whether each property may stand in a PUBLISH, or is one that [`carried`] leaves out.
pub(super) fn check_properties(version: Version, list: PropertyList<'_>) -> Result<(), Error> {
    // Before 5.0 properties are not sent, so none can be wrong.
    if list.is_empty() || version != Version::V5_0 {
        return Ok(());
    }
    if list.iter().all(|property| Place::Publish.allows(&property)) {
        return Ok(());
    }
    let fault = PropertyFault {
        clause: "MQTT5 2.2.2.2",
        what: "a property does not belong into a PUBLISH",
        reason: Reason::PROTOCOL_ERROR,
    };
    Err(Error::new(ErrorKind::Property(fault), Doing::Publishing))
}

/// Properties as they are sent.
pub(super) enum Carried<'a> {
    /// As the caller gave them.
    Unchanged(PropertyList<'a>),
    /// Without what must not be sent, or with another expiry.
    Changed(Properties),
}

impl Carried<'_> {
    /// What is in them.
    pub(super) fn list(&self) -> PropertyList<'_> {
        match self {
            Self::Unchanged(list) => *list,
            Self::Changed(properties) => properties.list(),
        }
    }
}

/// The properties as they are sent, with the seconds until the message expires if that has changed.
///
/// A message that is passed on brings the topic alias of the connection it came on, which means
/// nothing on this one [MQTT-3.3.2-7], and subscription identifiers, which no client may send
/// [MQTT-3.3.4-6]: both are left out.
pub(super) fn carried(version: Version, list: PropertyList<'_>, left: Option<u32>) -> Carried<'_> {
    if list.is_empty() || version != Version::V5_0 {
        return Carried::Unchanged(PropertyList::EMPTY);
    }
    let foreign = |property: &Property<'_>| {
        matches!(
            property,
            Property::TopicAlias(_) | Property::SubscriptionIdentifier(_)
        )
    };
    if left.is_none() && !list.iter().any(|property| foreign(&property)) {
        return Carried::Unchanged(list);
    }
    let mut properties = Properties::new();
    for property in list.iter().filter(|property| !foreign(property)) {
        properties = properties.with(property);
    }
    if let Some(left) = left {
        properties = properties.message_expiry_interval(left);
    }
    Carried::Changed(properties)
}
