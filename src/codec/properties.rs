//! Which property may stand in which packet, and how often (MQTT 5, table 2-4).

use super::Overlong;
use super::wire::{Reader, check_remaining, put_variable};
use crate::error::{Error, Violation};
use crate::properties::{Property, PropertyList};
use crate::reason::Reason;
use crate::version::Version;

/// The identifier of Topic Alias (MQTT 5, table 2-4).
pub(super) const TOPIC_ALIAS: u8 = 0x23;

/// Where a block of properties stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Connect,
    Will,
    Connack,
    Publish,
    /// PUBACK, PUBREC, PUBREL and PUBCOMP, which allow the same.
    Ack,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Disconnect,
    Auth,
}

impl Place {
    /// Whether a user may put these properties here. What the client sets itself is not theirs to set:
    /// a topic alias, a subscription identifier [MQTT-3.3.4-6], an authentication.
    ///
    /// # Errors
    /// A misuse that names the first property that may not stand here.
    pub fn check_from_user(self, properties: PropertyList<'_>) -> Result<(), Error> {
        for property in properties.iter() {
            let own = matches!(
                property,
                Property::SubscriptionIdentifier(_)
                    | Property::TopicAlias(_)
                    | Property::AuthenticationMethod(_)
                    | Property::AuthenticationData(_)
                    | Property::ServerReference(_)
            );
            if own || !self.allows(&property) {
                let id = property.id();
                return Err(Error::misuse(format!(
                    "property 0x{id:02X} is not the user's to set in {self:?}"
                )));
            }
        }
        Ok(())
    }

    /// Table 2-4. Who sends the packet is not known here, so what only one side may send is allowed.
    pub(crate) fn allows(self, property: &Property<'_>) -> bool {
        match property {
            Property::UserProperty(..) => true,
            Property::PayloadFormatIndicator(_)
            | Property::MessageExpiryInterval(_)
            | Property::ContentType(_)
            | Property::ResponseTopic(_)
            | Property::CorrelationData(_) => matches!(self, Self::Publish | Self::Will),
            Property::SubscriptionIdentifier(_) => matches!(self, Self::Publish | Self::Subscribe),
            Property::TopicAlias(_) => matches!(self, Self::Publish),
            Property::WillDelayInterval(_) => matches!(self, Self::Will),
            Property::RequestProblemInformation(_) | Property::RequestResponseInformation(_) => {
                matches!(self, Self::Connect)
            }
            Property::ReceiveMaximum(_)
            | Property::TopicAliasMaximum(_)
            | Property::MaximumPacketSize(_) => matches!(self, Self::Connect | Self::Connack),
            Property::SessionExpiryInterval(_) => {
                matches!(self, Self::Connect | Self::Connack | Self::Disconnect)
            }
            Property::AuthenticationMethod(_) | Property::AuthenticationData(_) => {
                matches!(self, Self::Connect | Self::Connack | Self::Auth)
            }
            Property::AssignedClientIdentifier(_)
            | Property::ServerKeepAlive(_)
            | Property::ResponseInformation(_)
            | Property::MaximumQos(_)
            | Property::RetainAvailable(_)
            | Property::WildcardSubscriptionAvailable(_)
            | Property::SubscriptionIdentifiersAvailable(_)
            | Property::SharedSubscriptionAvailable(_) => matches!(self, Self::Connack),
            Property::ServerReference(_) => matches!(self, Self::Connack | Self::Disconnect),
            Property::ReasonString(_) => match self {
                Self::Connack
                | Self::Ack
                | Self::Suback
                | Self::Unsuback
                | Self::Disconnect
                | Self::Auth => true,
                Self::Connect
                | Self::Will
                | Self::Publish
                | Self::Subscribe
                | Self::Unsubscribe => false,
            },
        }
    }

    /// Whether several of `property` may stand here: user properties, and in PUBLISH the
    /// subscription identifiers of all subscriptions that match (MQTT 5, section 3.3.2.3.8).
    fn allows_several(self, property: &Property<'_>) -> bool {
        match self {
            Self::Subscribe => matches!(property, Property::UserProperty(..)),
            Self::Connect
            | Self::Will
            | Self::Connack
            | Self::Publish
            | Self::Ack
            | Self::Suback
            | Self::Unsubscribe
            | Self::Unsuback
            | Self::Disconnect
            | Self::Auth => property.is_repeatable(),
        }
    }
}

/// Reads a block of properties with its length in front. Before 5.0 there is none.
#[inline]
pub(super) fn decode<'a>(
    version: Version,
    reader: &mut Reader<'a>,
    place: Place,
) -> Result<PropertyList<'a>, Violation> {
    if version != Version::V5_0 {
        return Ok(PropertyList::EMPTY);
    }
    let length = reader.variable()?;
    if length == 0 {
        return Ok(PropertyList::EMPTY);
    }
    check(reader.take(length)?, place)
}

fn check(bytes: &[u8], place: Place) -> Result<PropertyList<'_>, Violation> {
    // One bit per identifier; the highest is 0x2A.
    let mut seen = 0_u64;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (property, tail) = Property::read(rest)?;
        rest = tail;
        if !place.allows(&property) {
            return Err(Violation::malformed(
                "MQTT5 2.2.2.2",
                "a property does not belong into the packet",
            ));
        }
        let bit = 1_u64.wrapping_shl(u32::from(property.id()));
        if seen & bit != 0 && !place.allows_several(&property) {
            return Err(Violation::protocol(
                "MQTT5 2.2.2.2",
                "a property stands in the packet twice",
            ));
        }
        seen |= bit;
    }
    Ok(PropertyList::from_checked(bytes))
}

/// Appends the block with its length in front. Before 5.0 it appends nothing: what only 5.0 can say
/// is left out.
#[inline]
pub(super) fn encode(
    version: Version,
    properties: PropertyList<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Overlong> {
    if version != Version::V5_0 {
        return Ok(());
    }
    let bytes = properties.as_bytes();
    check_remaining(bytes.len())?;
    // [MQTT-2.2.2-1]: no properties are a length of 0.
    put_variable(out, bytes.len());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends the block on 5.0 with a topic alias in front of what it holds.
#[inline]
pub(super) fn encode_with_alias(
    alias: u16,
    properties: PropertyList<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Overlong> {
    let bytes = properties.as_bytes();
    let [high, low] = alias.to_be_bytes();
    let property = [TOPIC_ALIAS, high, low];
    let length = bytes.len().saturating_add(property.len());
    check_remaining(length)?;
    put_variable(out, length);
    out.extend_from_slice(&property);
    out.extend_from_slice(bytes);
    Ok(())
}

/// The end of PUBACK to PUBCOMP and DISCONNECT: a packet without properties may end after the reason,
/// and one that also means success before it (MQTT 5, sections 3.4.2.1, 3.4.2.2.1 and 3.14.2).
pub(super) fn decode_reason<'a>(
    reader: &mut Reader<'a>,
    place: Place,
    allowed: &[u8],
    clause: &'static str,
) -> Result<(Reason, PropertyList<'a>), Violation> {
    if reader.is_empty() {
        return Ok((Reason::SUCCESS, PropertyList::EMPTY));
    }
    let reason = reader.reason(allowed, clause)?;
    if reader.is_empty() {
        return Ok((reason, PropertyList::EMPTY));
    }
    Ok((reason, decode(Version::V5_0, reader, place)?))
}

/// Appends what [`decode_reason`] reads, in its shortest form; before 5.0 nothing.
pub(super) fn encode_reason(
    version: Version,
    reason: Reason,
    properties: PropertyList<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Overlong> {
    if version != Version::V5_0 {
        return Ok(());
    }
    if properties.is_empty() && reason == Reason::SUCCESS {
        return Ok(());
    }
    out.push(reason.code());
    if properties.is_empty() {
        return Ok(());
    }
    encode(version, properties, out)
}
