//! What is published and what arrives: [`Message`], [`Incoming`], [`Payload`], [`Qos`].

use std::fmt;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::Duration;

use crate::error::{Doing, Error, ErrorKind, Result};
use crate::properties::{Properties, PropertyList};
use crate::reason::Reason;
use crate::topic;

/// How surely a message arrives (MQTT 5, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the standard knows three and forbids a fourth"
)]
pub enum Qos {
    /// QoS 0: sent once; lost if the link fails at the wrong moment.
    AtMostOnce = 0,
    /// QoS 1: sent until it is acknowledged; may arrive twice.
    AtLeastOnce = 1,
    /// QoS 2: arrives once, for the price of four packets.
    ExactlyOnce = 2,
}

impl Qos {
    /// The QoS of this number, if there is one.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// Its number, 0 to 2.
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QoS {}", self.bits())
    }
}

/// Checks a topic for publishing.
pub(crate) fn check_topic(topic: &str) -> Result<()> {
    topic::check_topic(topic).map_err(|error| {
        let topic = topic.chars().take(SHOWN).collect::<String>();
        Error::new(ErrorKind::Topic(topic.into(), error), Doing::Publishing)
    })
}

/// Characters of a bad topic or filter that an error shows: enough to find it in the program.
pub(crate) const SHOWN: usize = 100;

/// A packet identifier: never 0 [MQTT-2.2.1-3].
pub type PacketId = NonZeroU16;

/// A span in seconds, as MQTT counts them: one that has begun is a whole one.
pub(crate) fn whole_seconds(span: Duration) -> u64 {
    span.as_secs()
        .saturating_add(u64::from(span.subsec_nanos() > 0))
}

/// The body of a message on its way in: borrowed bytes are copied once, owned ones not at all.
#[derive(Clone)]
pub struct Payload<'a>(pub(crate) PayloadKind<'a>);

#[derive(Clone)]
pub(crate) enum PayloadKind<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
    Shared(Body),
}

impl Payload<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            PayloadKind::Borrowed(bytes) => bytes,
            PayloadKind::Owned(bytes) => bytes,
            PayloadKind::Shared(body) => body.as_bytes(),
        }
    }

    /// The same without the caller's buffer.
    pub(crate) fn into_owned(self) -> Payload<'static> {
        Payload(PayloadKind::Shared(self.into_body()))
    }

    pub(crate) fn into_body(self) -> Body {
        match self.0 {
            PayloadKind::Borrowed(bytes) => Body::from(bytes.to_vec()),
            PayloadKind::Owned(bytes) => Body::from(bytes),
            PayloadKind::Shared(body) => body,
        }
    }
}

impl fmt::Debug for Payload<'_> {
    /// Shows the length only: a payload may be long, and may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.as_bytes().len())
    }
}

macro_rules! payload_from {
    ($($from:ty, $value:ident => $kind:expr;)*) => {
        $(impl<'a> From<$from> for Payload<'a> {
            fn from($value: $from) -> Self {
                Self($kind)
            }
        })*
    };
}

payload_from! {
    &'a [u8], bytes => PayloadKind::Borrowed(bytes);
    &'a Vec<u8>, bytes => PayloadKind::Borrowed(bytes);
    &'a str, text => PayloadKind::Borrowed(text.as_bytes());
    &'a String, text => PayloadKind::Borrowed(text.as_bytes());
    Vec<u8>, bytes => PayloadKind::Owned(bytes);
    Box<[u8]>, bytes => PayloadKind::Owned(bytes.into_vec());
    String, text => PayloadKind::Owned(text.into_bytes());
    Rc<Vec<u8>>, bytes => PayloadKind::Shared(Body { bytes, start: 0 });
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(PayloadKind::Borrowed(bytes))
    }
}

/// Bytes shared by reference: the tail of `bytes` from `start` on.
///
/// A large packet is read into one buffer whose tail is its payload, so it is never copied.
#[derive(Clone)]
pub(crate) struct Body {
    bytes: Rc<Vec<u8>>,
    start: usize,
}

impl Body {
    /// The last `length` bytes of `bytes`.
    pub(crate) fn tail(bytes: Rc<Vec<u8>>, length: usize) -> Self {
        let start = bytes.len().saturating_sub(length);
        Self { bytes, start }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Rc::new(bytes),
            start: 0,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.as_bytes().len())
    }
}

/// The duty to acknowledge a message that was received with [`Acknowledge::ByHand`].
///
/// The client implements it; the duty is failed when the last clone of its message is dropped.
///
/// [`Acknowledge::ByHand`]: crate::Acknowledge::ByHand
pub(crate) trait Duty {
    /// Says yes or no to the broker, once, with a reason string or user properties.
    fn acknowledge(&self, reason: Reason, properties: PropertyList<'_>) -> Result<()>;
}

/// A message: what [`Client::publish_message`] takes and what a [`Subscription`] yields.
///
/// Cloning shares topic and payload.
///
/// [`Client::publish_message`]: crate::Client::publish_message
/// [`Subscription`]: crate::Subscription
#[derive(Clone)]
pub struct Message {
    topic: Rc<str>,
    payload: Body,
    properties: Properties,
    qos: Qos,
    retain: bool,
    dup: bool,
    duty: Option<Rc<dyn Duty>>,
}

impl Message {
    /// A message to publish. QoS defaults to 1 (at least once), retain to false.
    pub fn new<'a>(topic: impl Into<Rc<str>>, payload: impl Into<Payload<'a>>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into().into_body(),
            properties: Properties::new(),
            qos: Qos::AtLeastOnce,
            retain: false,
            dup: false,
            duty: None,
        }
    }

    /// Sets the quality of service. Defaults to QoS 1.
    pub fn qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// Asks the broker to keep this as the last known message of its topic. Defaults to false.
    ///
    /// An empty payload removes what the broker keeps (MQTT 5, section 3.3.1.3).
    pub fn retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// Sets after how long the message is of no use any more, in whole seconds, rounded up.
    ///
    /// MQTT 5 only; without effect on older versions. Defaults to never.
    pub fn expiry(mut self, after: Duration) -> Self {
        let seconds = u32::try_from(whole_seconds(after)).unwrap_or(u32::MAX);
        self.properties = self.properties.message_expiry_interval(seconds);
        self
    }

    /// Sets the properties; MQTT 5 only, without effect on older versions. Replaces the earlier ones.
    pub fn properties(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        self.payload.as_bytes()
    }

    /// The payload as text, if it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.payload()).ok()
    }

    /// The properties; none on versions before 5.
    pub fn property_list(&self) -> PropertyList<'_> {
        self.properties.list()
    }

    /// The quality of service it was or will be sent with.
    pub fn quality_of_service(&self) -> Qos {
        self.qos
    }

    /// Whether it is, or came as, a retained message.
    pub fn is_retained(&self) -> bool {
        self.retain
    }

    /// Whether the broker said that it may have sent this before.
    pub fn is_duplicate(&self) -> bool {
        self.dup
    }

    /// Tells the broker that this message is taken; for [`Acknowledge::ByHand`].
    ///
    /// Acknowledgements leave in the order in which the messages came [MQTT-4.6.0-2], so one that is
    /// missing holds back those behind it.
    ///
    /// # Errors
    /// A misuse if this message was not received by hand or was answered before. After a link loss
    /// there is nothing to acknowledge any more: this does nothing, and the broker sends it again.
    ///
    /// [`Acknowledge::ByHand`]: crate::Acknowledge::ByHand
    pub fn acknowledge(&self) -> Result<()> {
        self.answer(Reason::SUCCESS, PropertyList::EMPTY)
    }

    /// As [`Message::acknowledge`], with a reason string or user properties on PUBACK or PUBREC; without
    /// effect on versions before 5.
    ///
    /// Most brokers ignore them, and some end a connection on which they come. They are left out where the
    /// broker takes no packet so large [MQTT-3.4.2-2, MQTT-3.4.2-3]. A message that several
    /// subscriptions took is acknowledged once, with the properties of one of them.
    ///
    /// # Errors
    /// As [`Message::acknowledge`]; also a misuse for properties that an acknowledgement cannot carry.
    pub fn acknowledge_with(&self, properties: &Properties) -> Result<()> {
        properties.check().map_err(Error::property)?;
        self.answer(Reason::SUCCESS, properties.list())
    }

    /// Tells the broker that this message is refused; for [`Acknowledge::ByHand`] on MQTT 5.
    ///
    /// Older versions know no refusal: there it is acknowledged.
    ///
    /// # Errors
    /// As [`Message::acknowledge`]; also a misuse if `reason` is not one that PUBACK and PUBREC may
    /// carry, 0x80 or above.
    ///
    /// [`Acknowledge::ByHand`]: crate::Acknowledge::ByHand
    pub fn refuse(&self, reason: Reason) -> Result<()> {
        self.answer(reason, PropertyList::EMPTY)
    }

    /// As [`Message::refuse`], with a reason string or user properties, which may tell the other side why.
    ///
    /// # Errors
    /// As [`Message::refuse`] and [`Message::acknowledge_with`].
    pub fn refuse_with(&self, reason: Reason, properties: &Properties) -> Result<()> {
        properties.check().map_err(Error::property)?;
        self.answer(reason, properties.list())
    }

    fn answer(&self, reason: Reason, properties: PropertyList<'_>) -> Result<()> {
        match &self.duty {
            Some(duty) => duty.acknowledge(reason, properties),
            None => Err(Error::misuse(
                "only a message received by hand is acknowledged by hand",
            )),
        }
    }

    /// The message as it would arrive.
    pub(crate) fn as_incoming(&self) -> Incoming<'_> {
        Incoming {
            topic: TopicRef::Aliased(&self.topic),
            payload: self.payload(),
            properties: self.property_list(),
            qos: self.qos,
            retain: self.retain,
            dup: self.dup,
            whole: None,
        }
    }

    pub(crate) fn received(incoming: &Incoming<'_>) -> Self {
        Self {
            topic: incoming.topic_to_share(),
            payload: incoming.body(),
            properties: incoming.properties.into(),
            qos: incoming.qos,
            retain: incoming.retain,
            dup: incoming.dup,
            duty: None,
        }
    }

    pub(crate) fn with_duty(mut self, duty: Rc<dyn Duty>) -> Self {
        self.duty = Some(duty);
        self
    }

    /// With the DUP flag that it came with.
    pub(crate) fn duplicate(mut self, dup: bool) -> Self {
        self.dup = dup;
        self
    }

    pub(crate) fn take_duty(&mut self) -> Option<Rc<dyn Duty>> {
        self.duty.take()
    }

    pub(crate) fn shared_payload(&self) -> Payload<'static> {
        Payload(PayloadKind::Shared(self.payload.clone()))
    }

    pub(crate) fn body_of(&self) -> &Body {
        &self.payload
    }

    pub(crate) fn shared_topic(&self) -> Rc<str> {
        Rc::clone(&self.topic)
    }

    pub(crate) fn owned_properties(&self) -> Properties {
        self.properties.clone()
    }

    pub(crate) fn with_topic(mut self, topic: Rc<str>) -> Self {
        self.topic = topic;
        self
    }

    /// Whether it can be expressed: its topic and its properties.
    pub(crate) fn check(&self) -> Result<()> {
        check_topic(&self.topic)?;
        self.properties.check().map_err(Error::property)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("payload", &self.payload)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("dup", &self.dup)
            .field("properties", &self.properties)
            .finish()
    }
}

/// A message as it arrives, borrowed from the read buffer for the length of an inline handler's call.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    pub(crate) topic: TopicRef<'a>,
    pub(crate) payload: &'a [u8],
    pub(crate) properties: PropertyList<'a>,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// The buffer of a large packet, whose tail the payload is.
    pub(crate) whole: Option<&'a Rc<Vec<u8>>>,
}

/// A topic as it stands in the packet, or as its alias is resolved.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TopicRef<'a> {
    Borrowed(&'a str),
    Aliased(&'a Rc<str>),
}

impl<'a> Incoming<'a> {
    /// The topic.
    pub fn topic(&self) -> &'a str {
        match self.topic {
            TopicRef::Borrowed(topic) => topic,
            TopicRef::Aliased(topic) => topic,
        }
    }

    /// The payload.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The payload as text, if it is UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.payload).ok()
    }

    /// The properties; none on versions before 5.
    pub fn property_list(&self) -> PropertyList<'a> {
        self.properties
    }

    /// The quality of service it was sent with.
    pub fn quality_of_service(&self) -> Qos {
        self.qos
    }

    /// Whether it came as a retained message.
    pub fn is_retained(&self) -> bool {
        self.retain
    }

    /// Whether the broker said that it may have sent this before.
    pub fn is_duplicate(&self) -> bool {
        self.dup
    }

    /// A copy to keep.
    pub fn to_message(&self) -> Message {
        Message::received(self)
    }

    fn topic_to_share(&self) -> Rc<str> {
        match self.topic {
            TopicRef::Borrowed(topic) => Rc::from(topic),
            TopicRef::Aliased(topic) => Rc::clone(topic),
        }
    }

    fn body(&self) -> Body {
        match self.whole {
            Some(whole) => Body::tail(Rc::clone(whole), self.payload.len()),
            None => Body::from(self.payload.to_vec()),
        }
    }
}
