//! PUBLISH and its answers PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 5, sections 3.3 to 3.7).

use std::fmt;

use super::properties::{self, Place};
use super::wire::{self, Reader};
use super::{Overlong, first};
use crate::error::Violation;
use crate::message::{PacketId, Qos};
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::topic::{MAX_TEXT, TopicError, check_topic};
use crate::version::Version;

/// The flag RETAIN in the first byte of PUBLISH; DUP is [`first::DUP`].
const RETAIN: u8 = 0x01;

/// PUBLISH, in either direction.
#[derive(Clone, Copy, PartialEq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: Qos,
    pub retain: bool,
    /// Empty only with a topic alias, on 5.0.
    pub topic: &'a str,
    /// Present exactly if the QoS is not 0.
    pub id: Option<PacketId>,
    pub properties: PropertyList<'a>,
    pub payload: &'a [u8],
}

/// How a PUBLISH names its topic (MQTT 5, section 3.3.2.3.4). A topic alias is never 0 [MQTT-3.3.2-8].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// By the topic.
    Topic,
    /// By the topic, for which the alias stands from now on.
    Both(u16),
    /// By the alias alone.
    Alias(u16),
}

impl Naming {
    /// Bytes of the Topic Alias property.
    const ALIAS_SIZE: usize = 3;

    /// The topic as it stands in the packet.
    #[inline]
    fn topic(self, topic: &str) -> &str {
        match self {
            Self::Topic | Self::Both(_) => topic,
            Self::Alias(_) => "",
        }
    }

    /// Bytes that it adds to the properties.
    #[inline]
    const fn more(self) -> usize {
        match self {
            Self::Topic => 0,
            Self::Both(_) | Self::Alias(_) => Self::ALIAS_SIZE,
        }
    }
}

impl<'a> Publish<'a> {
    #[inline]
    pub(super) fn decode(version: Version, first: u8, body: &'a [u8]) -> Result<Self, Violation> {
        let qos = qos_of(first).ok_or_else(|| super::bad_first(first))?;
        let dup = first & first::DUP != 0;
        // [MQTT-3.3.1-2]. 3.1 only says that DUP means nothing there.
        if dup && qos == Qos::AtMostOnce && version != Version::V3_1 {
            return Err(Violation::protocol(
                "MQTT-3.3.1-2",
                "a PUBLISH with QoS 0 has DUP",
            ));
        }
        let mut reader = Reader::new(body);
        // [MQTT-3.3.2-1]
        let topic = reader.utf8()?;
        // [MQTT-2.2.1-2]: no id with QoS 0.
        let id = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce | Qos::ExactlyOnce => Some(reader.id()?),
        };
        let properties = properties::decode(version, &mut reader, Place::Publish)?;
        if !is_plain(topic) {
            check_name(version, topic, properties)?;
        }
        Ok(Self {
            dup,
            qos,
            retain: first & RETAIN != 0,
            topic,
            id,
            properties,
            payload: reader.rest(),
        })
    }
}

/// Whether nothing can be wrong with a topic name; if this is false a second look says what is.
///
/// Without an early return the compiler compares many bytes at a time.
#[inline]
fn is_plain(topic: &str) -> bool {
    let special = topic
        .bytes()
        .fold(false, |found, byte| found | matches!(byte, 0 | b'+' | b'#'));
    !special && !topic.is_empty()
}

#[cold]
fn check_name(
    version: Version,
    topic: &str,
    properties: PropertyList<'_>,
) -> Result<(), Violation> {
    match check_topic(topic) {
        Ok(()) => Ok(()),
        // MQTT 5, section 3.3.2.1
        Err(TopicError::Empty) if version == Version::V5_0 => match properties.topic_alias() {
            Some(_alias) => Ok(()),
            None => Err(Violation::protocol(
                "MQTT5 3.3.2.1",
                "a PUBLISH has neither topic nor alias",
            )),
        },
        Err(TopicError::WildcardInName) => Err(Violation::protocol(
            "MQTT-3.3.2-2",
            "the topic of a PUBLISH holds a wildcard",
        )),
        Err(error) => Err(wire::bad_topic(error, "a topic is not well-formed")),
    }
}

impl Publish<'_> {
    /// Bytes that the packet takes on the wire, fixed header included.
    #[inline]
    pub fn size(&self, version: Version) -> usize {
        wire::packet_size(self.remaining(version, Naming::Topic))
    }

    /// Bytes after the fixed header.
    #[inline]
    fn remaining(&self, version: Version, naming: Naming) -> usize {
        let id = if self.id.is_some() { 2_usize } else { 0 };
        let properties = if version == Version::V5_0 {
            let length = self
                .properties
                .as_bytes()
                .len()
                .saturating_add(naming.more());
            wire::variable_size(length).saturating_add(length)
        } else {
            0
        };
        id.saturating_add(2)
            .saturating_add(naming.topic(self.topic).len())
            .saturating_add(properties)
            .saturating_add(self.payload.len())
    }

    /// Appends everything but the payload, whose bytes the caller adds or sends by reference.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    #[inline]
    pub fn encode_head(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Overlong> {
        self.put_head(version, Naming::Topic, 0, out)
    }

    /// The same on 5.0 with the topic named in this way. There is no other alias among the properties.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    pub fn encode_head_as(&self, naming: Naming, out: &mut Vec<u8>) -> Result<(), Overlong> {
        let remaining = self.remaining(Version::V5_0, naming);
        let properties = self.properties.as_bytes();
        let length = properties.len().saturating_add(Naming::ALIAS_SIZE);
        // Nearly every message with an alias, in as few steps as one without: the length of the properties
        // takes one byte, and there is no topic.
        if let (Naming::Alias(alias), Ok(length @ ..0x80)) = (naming, u8::try_from(length)) {
            wire::check_remaining(remaining)?;
            let [high, low] = alias.to_be_bytes();
            let property = properties::TOPIC_ALIAS;
            self.put_fixed_header(remaining, out);
            match self.id.map(|id| id.get().to_be_bytes()) {
                None => out.extend_from_slice(&[0, 0, length, property, high, low]),
                Some([first, second]) => {
                    out.extend_from_slice(&[0, 0, first, second, length, property, high, low]);
                }
            }
            out.extend_from_slice(properties);
            return Ok(());
        }
        self.put_head(Version::V5_0, naming, 0, out)
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    #[inline]
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Overlong> {
        self.put_head(version, Naming::Topic, self.payload.len(), out)?;
        out.extend_from_slice(self.payload);
        Ok(())
    }

    /// Appends the head and makes room for `follows` more bytes.
    #[inline(always)]
    fn put_head(
        &self,
        version: Version,
        naming: Naming,
        follows: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Overlong> {
        debug_assert_eq!(
            self.id.is_some(),
            self.qos != Qos::AtMostOnce,
            "a packet id belongs to QoS 1 and 2 [MQTT-2.2.1-2]"
        );
        // Everything that can fail comes before the first byte.
        let topic = naming.topic(self.topic);
        let topic_size = u16::try_from(topic.len()).map_err(|_| Overlong {
            size: topic.len(),
            limit: MAX_TEXT,
        })?;
        let remaining = self.remaining(version, naming);
        wire::check_remaining(remaining)?;
        let head = wire::packet_size(remaining).saturating_sub(self.payload.len());
        out.reserve(head.saturating_add(follows));

        self.put_fixed_header(remaining, out);
        out.extend_from_slice(&topic_size.to_be_bytes());
        out.extend_from_slice(topic.as_bytes());
        if let Some(id) = self.id {
            wire::put_id(out, id);
        }
        match naming {
            Naming::Topic => properties::encode(version, self.properties, out),
            Naming::Both(alias) | Naming::Alias(alias) => {
                properties::encode_with_alias(alias, self.properties, out)
            }
        }
    }
}

impl Publish<'_> {
    #[inline]
    fn put_fixed_header(&self, remaining: usize, out: &mut Vec<u8>) {
        let dup = if self.dup { first::DUP } else { 0 };
        let retain = if self.retain { RETAIN } else { 0 };
        out.push(first::PUBLISH | dup | (self.qos.bits() << 1) | retain);
        wire::put_variable(out, remaining);
    }
}

/// The QoS bits in the first byte of a PUBLISH.
#[inline]
const fn qos_of(first: u8) -> Option<Qos> {
    Qos::from_bits(first >> 1 & 0x03)
}

/// The QoS and packet id of a PUBLISH of which only the beginning is here; none if more is needed.
///
/// For a packet above the size limit that is skipped but must be acknowledged. `first` is its first
/// byte, `body` what is here of everything after the fixed header. With QoS 1 and 2 an id of 0, which
/// is forbidden [MQTT-2.2.1-3], is told as none.
pub fn peek_id(first: u8, body: &[u8]) -> Option<(Qos, Option<PacketId>)> {
    let qos = qos_of(first)?;
    if qos == Qos::AtMostOnce {
        return Some((qos, None));
    }
    let mut reader = Reader::new(body);
    reader.binary().ok()?;
    let id = reader.u16().ok()?;
    Some((qos, PacketId::new(id)))
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP. Before 5.0 there is only the id; `reason` is then success.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ack<'a> {
    pub id: PacketId,
    pub reason: Reason,
    pub properties: PropertyList<'a>,
}

/// Which of the four answers an [`Ack`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

impl AckKind {
    const fn first(self) -> u8 {
        match self {
            Self::Puback => first::PUBACK,
            Self::Pubrec => first::PUBREC,
            Self::Pubrel => first::PUBREL,
            Self::Pubcomp => first::PUBCOMP,
        }
    }

    /// The reasons that it may have (MQTT 5, tables 3-4 to 3-7) and the clause that says so.
    const fn reasons(self) -> (&'static [u8], &'static str) {
        const RECEIVED: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
        const RELEASED: &[u8] = &[0x00, 0x92];
        match self {
            Self::Puback => (RECEIVED, "MQTT-3.4.2-1"),
            Self::Pubrec => (RECEIVED, "MQTT-3.5.2-1"),
            Self::Pubrel => (RELEASED, "MQTT-3.6.2-1"),
            Self::Pubcomp => (RELEASED, "MQTT-3.7.2-1"),
        }
    }
}

impl<'a> Ack<'a> {
    /// An answer that is an id and nothing else.
    #[inline]
    pub(super) fn decode_bare(body: &'a [u8]) -> Option<Self> {
        let id = u16::from_be_bytes(body.try_into().ok()?);
        Some(Self {
            id: PacketId::new(id)?,
            reason: Reason::SUCCESS,
            properties: PropertyList::EMPTY,
        })
    }

    pub(super) fn decode(
        kind: AckKind,
        version: Version,
        body: &'a [u8],
    ) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let id = reader.id()?;
        let (reason, properties) = if version == Version::V5_0 {
            let (allowed, clause) = kind.reasons();
            properties::decode_reason(&mut reader, Place::Ack, allowed, clause)?
        } else {
            (Reason::SUCCESS, PropertyList::EMPTY)
        };
        reader.finish()?;
        Ok(Self {
            id,
            reason,
            properties,
        })
    }

    /// Appends this answer as `kind`.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    #[inline]
    pub fn encode(
        &self,
        kind: AckKind,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<(), Overlong> {
        // Nearly every answer: no reason is told, so four bytes are all.
        if version != Version::V5_0
            || (self.reason == Reason::SUCCESS && self.properties.is_empty())
        {
            let [high, low] = self.id.get().to_be_bytes();
            out.extend_from_slice(&[kind.first(), 2, high, low]);
            return Ok(());
        }
        wire::packet(out, kind.first(), |out| {
            wire::put_id(out, self.id);
            properties::encode_reason(version, self.reason, self.properties, out)
        })
    }

    /// Bytes that the packet takes on the wire, fixed header included; found by encoding.
    pub fn size(&self, kind: AckKind, version: Version) -> usize {
        wire::encoded_size(|out| self.encode(kind, version, out))
    }
}
