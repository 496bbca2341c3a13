//! Bytes to packets and back, for MQTT 3.1, 3.1.1 and 5.0: no clock, no state, no input or output.
//!
//! [`split`] finds one packet in the bytes read so far, [`decode`] reads it, borrowing from them;
//! [`Packet::encode`] and the `encode` functions of the submodules append to a buffer. One code path
//! serves all versions; where they differ a [`Version`] decides. Both directions are always there,
//! so that a test can play the broker.
//!
//! A clause is that of MQTT 5 unless it says otherwise. Bytes that cannot be read are malformed
//! (0x81); bytes that can be read and say what is not allowed are a protocol error (0x82), as in
//! section 4.13 of MQTT 5.

#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![expect(
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    reason = "packets are closed; hidden"
)]

pub mod auth;
mod connack;
pub mod connect;
pub mod ping;
mod properties;
pub mod publish;
pub mod subscribe;
pub mod unsubscribe;
mod wire;

use std::fmt;

use crate::error::Violation;
use crate::version::Version;

pub use auth::Auth;
pub use connect::{Connack, Connect, Disconnect, Will};
pub use properties::Place;
pub use publish::{Ack, AckKind, Publish};
pub use subscribe::{Suback, Subscribe};
pub use unsubscribe::{Unsuback, Unsubscribe};

/// The largest packet that the length field can express, its fixed header not counted.
pub const MAX_REMAINING: usize = 268_435_455;

/// The first bytes of packets: the type, and the flags that belong to it (MQTT 5, table 2-2).
mod first {
    pub(super) const CONNECT: u8 = 0x10;
    pub(super) const CONNACK: u8 = 0x20;
    /// With flags for DUP, QoS and RETAIN.
    pub(super) const PUBLISH: u8 = 0x30;
    pub(super) const PUBACK: u8 = 0x40;
    pub(super) const PUBREC: u8 = 0x50;
    pub(super) const PUBREL: u8 = 0x62;
    pub(super) const PUBCOMP: u8 = 0x70;
    pub(super) const SUBSCRIBE: u8 = 0x82;
    pub(super) const SUBACK: u8 = 0x90;
    pub(super) const UNSUBSCRIBE: u8 = 0xA2;
    pub(super) const UNSUBACK: u8 = 0xB0;
    pub(super) const PINGREQ: u8 = 0xC0;
    pub(super) const PINGRESP: u8 = 0xD0;
    pub(super) const DISCONNECT: u8 = 0xE0;
    pub(super) const AUTH: u8 = 0xF0;

    /// The packet is a repetition. On PUBREL, SUBSCRIBE and UNSUBSCRIBE in 3.1 only.
    pub(super) const DUP: u8 = 0x08;
    pub(super) const PUBREL_DUP: u8 = PUBREL | DUP;
    pub(super) const SUBSCRIBE_DUP: u8 = SUBSCRIBE | DUP;
    pub(super) const UNSUBSCRIBE_DUP: u8 = UNSUBSCRIBE | DUP;
}

/// One packet of any kind, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Connack(Connack<'a>),
    Publish(Publish<'a>),
    Puback(Ack<'a>),
    Pubrec(Ack<'a>),
    Pubrel(Ack<'a>),
    Pubcomp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Unsuback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// What [`split`] found at the front of the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Split<'a> {
    /// Not even the fixed header is complete.
    Header,
    /// The fixed header says that the packet takes `size` bytes, header included; fewer are here.
    Partial {
        first: u8,
        header: usize,
        size: usize,
    },
    /// A whole packet of `size` bytes, header included.
    Whole { frame: Frame<'a>, size: usize },
}

/// A packet whose end is known and whose content is not read yet.
#[derive(Clone, Copy, PartialEq)]
pub struct Frame<'a> {
    /// Type and flags.
    pub first: u8,
    /// Everything after the fixed header.
    pub body: &'a [u8],
}

impl fmt::Debug for Frame<'_> {
    /// Without the bytes: CONNECT holds the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("first", &self.first)
            .field("bytes", &self.body.len())
            .finish()
    }
}

/// Finds the packet at the front of `input`. Reads the fixed header only and allocates nothing.
///
/// # Errors
/// A remaining length of more than four bytes or longer than necessary, a packet type 0, flags that
/// the packet type forbids in every version [MQTT-2.1.3-1].
#[inline]
pub fn split(input: &[u8]) -> Result<Split<'_>, Violation> {
    let Some((first, rest)) = input.split_first() else {
        return Ok(Split::Header);
    };
    check_first(*first)?;
    let Some((length, rest)) = wire::variable(rest)? else {
        return Ok(Split::Header);
    };
    let header = input.len().saturating_sub(rest.len());
    let size = header.saturating_add(length);
    let first = *first;
    Ok(match rest.get(..length) {
        Some(body) => Split::Whole {
            frame: Frame { first, body },
            size,
        },
        None => Split::Partial {
            first,
            header,
            size,
        },
    })
}

/// The type and flags that may stand first in a packet of some version.
#[inline]
fn check_first(first: u8) -> Result<(), Violation> {
    match first {
        // Bits 1 and 2 are the QoS; there is no third one [MQTT-3.3.1-4].
        0x30..=0x3F if first & 0x06 != 0x06 => Ok(()),
        first::CONNECT
        | first::CONNACK
        | first::PUBACK
        | first::PUBREC
        | first::PUBREL
        | first::PUBREL_DUP
        | first::PUBCOMP
        | first::SUBSCRIBE
        | first::SUBSCRIBE_DUP
        | first::SUBACK
        | first::UNSUBSCRIBE
        | first::UNSUBSCRIBE_DUP
        | first::UNSUBACK
        | first::PINGREQ
        | first::PINGRESP
        | first::DISCONNECT
        | first::AUTH => Ok(()),
        _ => Err(bad_first(first)),
    }
}

/// What is wrong with the type or the flags of a packet.
#[cold]
const fn bad_first(first: u8) -> Violation {
    let clause = match first & 0xF0 {
        0x00 => return Violation::malformed("MQTT5 2.1.2", "a packet is of type 0"),
        first::PUBLISH => return Violation::malformed("MQTT-3.3.1-4", "a PUBLISH has QoS 3"),
        0x60 => "MQTT-3.6.1-1",
        0x80 => "MQTT-3.8.1-1",
        0xA0 => "MQTT-3.10.1-1",
        first::DISCONNECT => "MQTT-3.14.1-1",
        first::AUTH => "MQTT-3.15.1-1",
        _ => "MQTT-2.1.3-1",
    };
    Violation::malformed(clause, "a packet has flags that its type forbids")
}

/// Reads a packet of `version`.
///
/// A CONNECT tells its own version and is read whatever `version` is. Who sent the packet is not
/// known here: what only one side may send is allowed.
///
/// # Errors
/// Everything that can be seen in the bytes of one packet, with the clause of the standard.
#[inline]
pub fn decode<'a>(version: Version, frame: Frame<'a>) -> Result<Packet<'a>, Violation> {
    decode_parts(version, frame.first, frame.body)
}

/// [`decode`] with the frame in registers: on its way through memory it costs more than the parsing.
fn decode_parts(version: Version, first: u8, body: &[u8]) -> Result<Packet<'_>, Violation> {
    if first & 0xF0 == first::PUBLISH {
        return Publish::decode(version, first, body).map(Packet::Publish);
    }
    // Nearly every answer to a PUBLISH is an id and nothing else, in every version.
    if let Some(ack) = Ack::decode_bare(body) {
        match first {
            first::PUBACK => return Ok(Packet::Puback(ack)),
            first::PUBREC => return Ok(Packet::Pubrec(ack)),
            first::PUBREL => return Ok(Packet::Pubrel(ack)),
            first::PUBCOMP => return Ok(Packet::Pubcomp(ack)),
            _ => {}
        }
    }
    decode_rare(version, first, body)
}

/// Everything but PUBLISH.
fn decode_rare(version: Version, first: u8, body: &[u8]) -> Result<Packet<'_>, Violation> {
    Ok(match (first, version) {
        (first::CONNECT, _) => Packet::Connect(Connect::decode(body)?),
        (first::CONNACK, _) => Packet::Connack(Connack::decode(version, body)?),
        (first::PUBACK, _) => Packet::Puback(Ack::decode(AckKind::Puback, version, body)?),
        (first::PUBREC, _) => Packet::Pubrec(Ack::decode(AckKind::Pubrec, version, body)?),
        (first::PUBCOMP, _) => Packet::Pubcomp(Ack::decode(AckKind::Pubcomp, version, body)?),
        (first::PUBREL, _) | (first::PUBREL_DUP, Version::V3_1) => {
            Packet::Pubrel(Ack::decode(AckKind::Pubrel, version, body)?)
        }
        (first::SUBSCRIBE, _) | (first::SUBSCRIBE_DUP, Version::V3_1) => {
            Packet::Subscribe(Subscribe::decode(version, body)?)
        }
        (first::SUBACK, _) => Packet::Suback(Suback::decode(version, body)?),
        (first::UNSUBSCRIBE, _) | (first::UNSUBSCRIBE_DUP, Version::V3_1) => {
            Packet::Unsubscribe(Unsubscribe::decode(version, body)?)
        }
        (first::UNSUBACK, _) => Packet::Unsuback(Unsuback::decode(version, body)?),
        (first::PINGREQ, _) => {
            wire::Reader::new(body).finish()?;
            Packet::Pingreq
        }
        (first::PINGRESP, _) => {
            wire::Reader::new(body).finish()?;
            Packet::Pingresp
        }
        (first::DISCONNECT, _) => Packet::Disconnect(Disconnect::decode(version, body)?),
        (first::AUTH, _) => Packet::Auth(Auth::decode(version, body)?),
        _ => return Err(bad_first(first)),
    })
}

impl Packet<'_> {
    /// Appends the packet to `out`.
    ///
    /// What `version` cannot say is left out: properties and reasons before 5.0. A CONNECT tells its
    /// own version, and AUTH exists on 5.0 only; both are written whatever `version` is.
    ///
    /// # Errors
    /// If it cannot be expressed: a text or the whole is too long. Then `out` is as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Overlong> {
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::Connack(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::Puback(packet) => packet.encode(AckKind::Puback, version, out),
            Self::Pubrec(packet) => packet.encode(AckKind::Pubrec, version, out),
            Self::Pubrel(packet) => packet.encode(AckKind::Pubrel, version, out),
            Self::Pubcomp(packet) => packet.encode(AckKind::Pubcomp, version, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::Suback(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::Unsuback(packet) => packet.encode(version, out),
            Self::Pingreq => {
                out.extend_from_slice(&ping::PINGREQ);
                Ok(())
            }
            Self::Pingresp => {
                out.extend_from_slice(&ping::PINGRESP);
                Ok(())
            }
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(out),
        }
    }

    /// Bytes that the packet takes on the wire, fixed header included.
    ///
    /// Found by encoding, except for PUBLISH: for limits, not for every message.
    pub fn size(&self, version: Version) -> usize {
        if let Self::Publish(publish) = self {
            return publish.size(version);
        }
        wire::encoded_size(|out| self.encode(version, out))
    }
}

/// A packet that the length fields of MQTT cannot express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlong {
    /// Bytes that the packet after its fixed header, or the text in it, would take.
    pub size: usize,
    /// Bytes that are possible.
    pub limit: usize,
}
