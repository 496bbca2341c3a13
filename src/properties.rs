//! The 27 properties of MQTT 5, section 2.2.2.2.
//!
//! There is one representation: the bytes of the wire. [`Properties`] owns them, [`PropertyList`]
//! borrows them from a packet or from a [`Properties`], so that reading allocates nothing and writing
//! is one copy. A [`PropertyList`] holds only what was checked when it was made.

mod remarks;
mod value;

use std::fmt;

use crate::reason::Reason;
use crate::topic::check_topic;

pub use self::remarks::Remarks;
pub(crate) use self::remarks::short_text;
use self::value::{Pair, Value, Variable};

/// The largest variable byte integer (MQTT 5, section 1.5.5).
pub(crate) const MAX_VARIABLE: u32 = 268_435_455;

/// Why a property cannot be sent or was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PropertyFault {
    /// The statement or section of the standard.
    pub clause: &'static str,
    /// What is wrong, as part of a sentence.
    pub what: &'static str,
    /// The reason code for it, if the property came from the other side.
    pub(crate) reason: Reason,
}

impl fmt::Display for PropertyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.what, self.clause)
    }
}

impl std::error::Error for PropertyFault {}

const fn fault(clause: &'static str, what: &'static str) -> PropertyFault {
    PropertyFault {
        clause,
        what,
        reason: Reason::MALFORMED_PACKET,
    }
}

/// The standard calls a value of the right form that is not allowed a protocol error.
const fn forbidden(clause: &'static str, what: &'static str, reason: Reason) -> PropertyFault {
    PropertyFault {
        clause,
        what,
        reason,
    }
}

const CUT_OFF: PropertyFault = fault("MQTT5 2.2.2", "a property is cut off");

/// `$wire` is the type that reads and writes, where it differs from the type that a user sees.
macro_rules! properties {
    ($($(#[$doc:meta])* $id:literal $variant:ident $name:ident : $kind:ty $(= $wire:ident)?;)*) => {
        /// One property, borrowed from where it stands.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Property<'a> {
            $($(#[$doc])* $variant($kind),)*
            /// 0x26, a name and a value of the user's; may stand several times, in order.
            UserProperty(&'a str, &'a str),
        }

        impl<'a> Property<'a> {
            /// The identifier on the wire.
            pub fn id(&self) -> u8 {
                match self {
                    $(Self::$variant(_) => $id,)*
                    Self::UserProperty(..) => 0x26,
                }
            }

            /// Reads the property at the front of `bytes` and returns what follows it.
            pub(crate) fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), PropertyFault> {
                let (Variable(id), bytes) = Variable::read(bytes)?;
                let (property, rest) = match id {
                    $($id => {
                        let (value, rest) = properties!(@read $kind $(, $wire)?; bytes);
                        (Self::$variant(value), rest)
                    })*
                    0x26 => {
                        let ((name, value), rest) = Pair::read(bytes)?;
                        (Self::UserProperty(name, value), rest)
                    }
                    _ => return Err(fault("MQTT5 2.2.2.2", "a property is unknown")),
                };
                property.check()?;
                Ok((property, rest))
            }

            /// Appends this property to `out`; on an error `out` ends in a part of it.
            fn write(&self, out: &mut Vec<u8>) -> Result<(), PropertyFault> {
                self.check()?;
                out.push(self.id());
                match self {
                    $(Self::$variant(value) => properties!(@write $kind $(, $wire)?; value, out),)*
                    Self::UserProperty(name, value) => (*name, *value).write(out),
                }
            }
        }

        impl Properties {
            $(
                $(#[$doc])*
                ///
                /// Replaces an earlier value, except that a subscription identifier is added.
                pub fn $name<'a>(self, value: $kind) -> Self
                where
                    Self: 'a,
                {
                    self.with(Property::$variant(value))
                }
            )*
        }

        impl<'a> PropertyList<'a> {
            $(
                $(#[$doc])*
                ///
                /// The first one, if there are several.
                pub fn $name(self) -> Option<$kind> {
                    self.iter().find_map(|property| {
                        let Property::$variant(value) = property else { return None };
                        Some(value)
                    })
                }
            )*
        }
    };
    (@read $kind:ty; $bytes:ident) => { <$kind as Value<'_>>::read($bytes)? };
    (@read $kind:ty, $wire:ident; $bytes:ident) => {{
        let ($wire(value), rest) = $wire::read($bytes)?;
        (value, rest)
    }};
    (@write $kind:ty; $value:ident, $out:ident) => { Value::write($value, $out) };
    (@write $kind:ty, $wire:ident; $value:ident, $out:ident) => { $wire(*$value).write($out) };
}

properties! {
    /// 0x01, whether the payload says of itself that it is UTF-8 text.
    0x01 PayloadFormatIndicator payload_format_indicator: bool;
    /// 0x02, seconds after which the message is of no use any more.
    0x02 MessageExpiryInterval message_expiry_interval: u32;
    /// 0x03, what the payload is, in the application's words.
    0x03 ContentType content_type: &'a str;
    /// 0x08, the topic on which an answer is expected.
    0x08 ResponseTopic response_topic: &'a str;
    /// 0x09, bytes that the answer brings back.
    0x09 CorrelationData correlation_data: &'a [u8];
    /// 0x0B, the number that a client gave its subscription: 1 to 268,435,455.
    0x0B SubscriptionIdentifier subscription_identifier: u32 = Variable;
    /// 0x11, seconds for which the session outlives its connection.
    0x11 SessionExpiryInterval session_expiry_interval: u32;
    /// 0x12, the client identifier that the server chose.
    0x12 AssignedClientIdentifier assigned_client_identifier: &'a str;
    /// 0x13, the keep-alive in seconds that the server wants.
    0x13 ServerKeepAlive server_keep_alive: u16;
    /// 0x15, the name of the authentication method.
    0x15 AuthenticationMethod authentication_method: &'a str;
    /// 0x16, bytes whose meaning the authentication method defines.
    0x16 AuthenticationData authentication_data: &'a [u8];
    /// 0x17, whether reason strings and user properties may be sent to this client.
    0x17 RequestProblemInformation request_problem_information: bool;
    /// 0x18, seconds between the end of the connection and the will.
    0x18 WillDelayInterval will_delay_interval: u32;
    /// 0x19, whether the server is asked for Response Information.
    0x19 RequestResponseInformation request_response_information: bool;
    /// 0x1A, the basis for creating a response topic.
    0x1A ResponseInformation response_information: &'a str;
    /// 0x1C, another server to use.
    0x1C ServerReference server_reference: &'a str;
    /// 0x1F, a text for people, for diagnosis.
    0x1F ReasonString reason_string: &'a str;
    /// 0x21, how many unacknowledged QoS 1 and 2 publications its sender accepts at a time.
    0x21 ReceiveMaximum receive_maximum: u16;
    /// 0x22, the highest topic alias that its sender accepts.
    0x22 TopicAliasMaximum topic_alias_maximum: u16;
    /// 0x23, the number that stands for the topic on this connection.
    0x23 TopicAlias topic_alias: u16;
    /// 0x24, the highest QoS that the server accepts: 0 or 1.
    0x24 MaximumQos maximum_qos: u8;
    /// 0x25, whether the server keeps retained messages.
    0x25 RetainAvailable retain_available: bool;
    /// 0x27, the largest packet in bytes that its sender accepts.
    0x27 MaximumPacketSize maximum_packet_size: u32;
    /// 0x28, whether the server accepts wildcards in filters.
    0x28 WildcardSubscriptionAvailable wildcard_subscription_available: bool;
    /// 0x29, whether the server accepts subscription identifiers.
    0x29 SubscriptionIdentifiersAvailable subscription_identifiers_available: bool;
    /// 0x2A, whether the server accepts shared subscriptions.
    0x2A SharedSubscriptionAvailable shared_subscription_available: bool;
}

impl Property<'_> {
    /// The values that a property of the right form may still not have.
    fn check(&self) -> Result<(), PropertyFault> {
        if let Self::SubscriptionIdentifier(0) = self {
            return Err(forbidden(
                "MQTT5 3.8.2.1.2",
                "the Subscription Identifier is 0",
                Reason::PROTOCOL_ERROR,
            ));
        }
        if let Self::ReceiveMaximum(0) = self {
            return Err(forbidden(
                "MQTT5 3.1.2.11.3",
                "the Receive Maximum is 0",
                Reason::PROTOCOL_ERROR,
            ));
        }
        if let Self::MaximumPacketSize(0) = self {
            return Err(forbidden(
                "MQTT5 3.1.2.11.4",
                "the Maximum Packet Size is 0",
                Reason::PROTOCOL_ERROR,
            ));
        }
        if let Self::MaximumQos(2..) = self {
            return Err(forbidden(
                "MQTT5 3.2.2.3.4",
                "the Maximum QoS is above 1",
                Reason::PROTOCOL_ERROR,
            ));
        }
        if let Self::TopicAlias(0) = self {
            return Err(forbidden(
                "MQTT-3.3.2-8",
                "the Topic Alias is 0",
                Reason::TOPIC_ALIAS_INVALID,
            ));
        }
        if let Self::ResponseTopic(topic) = self
            && check_topic(topic).is_err()
        {
            return Err(forbidden(
                "MQTT-3.3.2-14",
                "the Response Topic is not a topic name",
                Reason::PROTOCOL_ERROR,
            ));
        }
        Ok(())
    }

    /// Whether it may stand in one packet more than once.
    pub(crate) fn is_repeatable(&self) -> bool {
        matches!(
            self,
            Self::UserProperty(..) | Self::SubscriptionIdentifier(_)
        )
    }
}

/// Properties of a packet, owned. Empty ones take no memory of their own.
///
/// ```
/// use coracle::Properties;
///
/// let properties = Properties::new().content_type("text/plain").user_property("unit", "C");
/// assert_eq!(properties.list().content_type(), Some("text/plain"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties {
    bytes: Vec<u8>,
    fault: Option<PropertyFault>,
}

impl Properties {
    /// No properties.
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            fault: None,
        }
    }

    /// Adds `property`. One that may stand only once replaces the earlier one.
    ///
    /// A value that MQTT cannot carry (a text above 65,535 bytes or with U+0000, a response topic with
    /// a wildcard, a zero where none is allowed) is remembered and becomes the error of the call that
    /// is given these properties.
    pub fn with(mut self, property: Property<'_>) -> Self {
        if !property.is_repeatable() && self.list().iter().any(|old| old.id() == property.id()) {
            self = self.without(property.id());
        }
        let length = self.bytes.len();
        if let Err(fault) = property.write(&mut self.bytes) {
            self.bytes.truncate(length);
            self.fault.get_or_insert(fault);
        }
        self
    }

    /// Adds a user property; several are kept in their order.
    pub fn user_property(self, name: &str, value: &str) -> Self {
        self.with(Property::UserProperty(name, value))
    }

    /// The same without the properties of identifier `id`.
    pub(crate) fn without(self, id: u8) -> Self {
        let mut kept = Self {
            bytes: Vec::with_capacity(self.bytes.len()),
            fault: self.fault,
        };
        for property in self.list().iter().filter(|property| property.id() != id) {
            // What stood in a list was checked when it was added, so it can be written again.
            let _ = property.write(&mut kept.bytes);
        }
        kept
    }

    /// The same without what may be left out of a packet that the broker finds too large: reason string and
    /// user properties.
    pub(crate) fn without_words(self) -> Self {
        self.without(Property::ReasonString("").id())
            .without(Property::UserProperty("", "").id())
    }

    /// What is in it, for reading.
    pub fn list(&self) -> PropertyList<'_> {
        PropertyList { bytes: &self.bytes }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The first value that could not be added.
    pub(crate) fn check(&self) -> Result<(), PropertyFault> {
        self.fault.map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list().fmt(f)
    }
}

impl From<PropertyList<'_>> for Properties {
    fn from(list: PropertyList<'_>) -> Self {
        Self {
            bytes: list.bytes.to_vec(),
            fault: None,
        }
    }
}

/// Properties of a packet, borrowed. Each accessor is `None` where the property is absent.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct PropertyList<'a> {
    bytes: &'a [u8],
}

impl<'a> PropertyList<'a> {
    /// No properties.
    pub const EMPTY: Self = Self { bytes: &[] };

    /// `bytes` have been read by [`Property::read`] to their end without an error.
    pub(crate) const fn from_checked(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The wire form, without the length in front of it.
    pub(crate) const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// All properties in their order.
    pub fn iter(self) -> impl Iterator<Item = Property<'a>> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            // A list is checked when it is made, so an error can only mean its end.
            let (property, tail) = Property::read(rest).ok()?;
            rest = tail;
            Some(property)
        })
    }

    /// The user properties in their order.
    pub fn user_properties(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter().filter_map(|property| {
            let Property::UserProperty(name, value) = property else {
                return None;
            };
            Some((name, value))
        })
    }

    /// All subscription identifiers in their order.
    pub fn subscription_identifiers(self) -> impl Iterator<Item = u32> {
        self.iter().filter_map(|property| {
            let Property::SubscriptionIdentifier(identifier) = property else {
                return None;
            };
            Some(identifier)
        })
    }
}

impl fmt::Debug for PropertyList<'_> {
    /// Authentication data is shown as its length: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for property in self.iter() {
            match property {
                Property::AuthenticationData(data) => {
                    list.entry(&format_args!("AuthenticationData({} bytes)", data.len()))
                }
                other => list.entry(&other),
            };
        }
        list.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_property_replaces_and_a_user_property_is_added() {
        let properties = Properties::new()
            .content_type("a")
            .user_property("k", "1")
            .content_type("b")
            .user_property("k", "2");
        assert_eq!(properties.list().content_type(), Some("b"));
        let users: Vec<_> = properties.list().user_properties().collect();
        assert_eq!(users, [("k", "1"), ("k", "2")]);
    }

    #[test]
    fn a_value_that_cannot_be_sent_is_remembered() {
        let long = "x".repeat(65_536);
        for (bad, clause) in [
            (Properties::new().content_type(&long), "MQTT5 1.5.4"),
            (Properties::new().content_type("a\0"), "MQTT-1.5.4-2"),
            (Properties::new().response_topic("a/+"), "MQTT-3.3.2-14"),
            (Properties::new().topic_alias(0), "MQTT-3.3.2-8"),
            (
                Properties::new().subscription_identifier(268_435_456),
                "MQTT5 1.5.5",
            ),
        ] {
            assert_eq!(bad.check().map_err(|fault| fault.clause), Err(clause));
            assert!(bad.is_empty());
        }
    }

    #[test]
    fn a_user_property_is_two_texts() {
        // [MQTT-1.5.7-1], [MQTT-1.5.4-2], [MQTT-1.5.4-3]
        for (name, value) in [("a\0", "b"), ("a", "b\0"), ("\0", "\0")] {
            let bad = Properties::new().user_property(name, value);
            assert_eq!(
                bad.check().map_err(|fault| fault.clause),
                Err("MQTT-1.5.4-2")
            );
            assert!(bad.is_empty());
        }
        let good = Properties::new().user_property("\u{FEFF}", "\u{FEFF}b");
        let pairs: Vec<_> = good.list().user_properties().collect();
        assert_eq!(pairs, [("\u{FEFF}", "\u{FEFF}b")]);
    }

    #[test]
    fn authentication_data_is_not_shown() {
        let properties = Properties::new().authentication_data(b"hunter2");
        assert_eq!(format!("{properties:?}"), "[AuthenticationData(7 bytes)]");
    }
}
