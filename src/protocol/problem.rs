//! Request Problem Information: whether the broker may explain itself (MQTT 5, section 3.1.2.11.7).

use super::Config;
use crate::codec::Packet;
use crate::error::Violation;
use crate::properties::{Property, PropertyList};

/// Checks that the broker explains itself only where we let it.
///
/// The standard leaves no choice: who asked for no explanation and gets one disconnects with 0x82. Nobody
/// has to ask; by default explanations are welcome.
///
/// # Errors
/// We asked for none, and here is one in another packet than PUBLISH, CONNACK and DISCONNECT
/// [MQTT-3.1.2-29].
pub(super) fn check(packet: &Packet<'_>, config: &Config) -> Result<(), Violation> {
    let properties: PropertyList<'_> = match packet {
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            ack.properties
        }
        Packet::Suback(suback) => suback.properties,
        Packet::Unsuback(unsuback) => unsuback.properties,
        Packet::Auth(auth) => auth.properties,
        Packet::Connect(_)
        | Packet::Connack(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::Pingreq
        | Packet::Pingresp
        | Packet::Disconnect(_) => return Ok(()),
    };
    let explains = |property: Property<'_>| {
        matches!(
            property,
            Property::ReasonString(_) | Property::UserProperty(..)
        )
    };
    // The first look ends it for nearly every packet.
    if properties.is_empty()
        || config.properties.list().request_problem_information() != Some(false)
        || !properties.iter().any(explains)
    {
        return Ok(());
    }
    Err(Violation::protocol(
        "MQTT-3.1.2-29",
        "the server explains itself although it was asked not to",
    ))
}
