//! CONNECT and DISCONNECT (MQTT 5, sections 3.1 and 3.14); CONNACK is beside it in `connack`.

use std::fmt;

use super::properties::{self, Place};
use super::wire::{self, Reader};
use super::{Overlong, first};
use crate::error::Violation;
use crate::message::Qos;
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::topic::check_topic;
use crate::version::Version;

pub use super::connack::Connack;

/// The longest client identifier of MQTT 3.1, in characters (MQTT 3.1, section 3.1).
const MAX_CLIENT_ID_3_1: usize = 23;

/// Whether MQTT 3.1 can express this client identifier.
pub(crate) fn fits_3_1(client_id: &str) -> bool {
    (1..=MAX_CLIENT_ID_3_1).contains(&client_id.chars().count())
}

/// The connect flags (MQTT 5, section 3.1.2.3).
mod flag {
    pub(super) const RESERVED: u8 = 0x01;
    pub(super) const CLEAN: u8 = 0x02;
    pub(super) const WILL: u8 = 0x04;
    pub(super) const WILL_QOS: u8 = 0x18;
    pub(super) const WILL_RETAIN: u8 = 0x20;
    pub(super) const PASSWORD: u8 = 0x40;
    pub(super) const USER_NAME: u8 = 0x80;
}

/// CONNECT: the first packet on a connection, from client to server.
#[derive(Clone, Copy, PartialEq)]
pub struct Connect<'a> {
    pub version: Version,
    /// Clean Start on 5.0, CleanSession before.
    pub clean: bool,
    /// Seconds.
    pub keep_alive: u16,
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub properties: PropertyList<'a>,
}

/// The will inside CONNECT.
#[derive(Clone, Copy, PartialEq)]
pub struct Will<'a> {
    pub qos: Qos,
    pub retain: bool,
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub properties: PropertyList<'a>,
}

impl<'a> Connect<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let version = read_version(&mut reader)?;
        let flags = reader.u8()?;
        check_flags(version, flags)?;
        let keep_alive = reader.u16()?;
        let properties = properties::decode(version, &mut reader, Place::Connect)?;
        if properties.authentication_data().is_some()
            && properties.authentication_method().is_none()
        {
            return Err(Violation::protocol(
                "MQTT5 3.1.2.11.10",
                "a CONNECT has Authentication Data without a method",
            ));
        }
        // [MQTT-3.1.3-1]: client id, will, user name, password; each is there if its flag is set
        // [MQTT-3.1.2-9, -16 to -19].
        let client_id = reader.text()?;
        let clean = flags & flag::CLEAN != 0;
        check_client_id(version, client_id, clean)?;
        let will = if flags & flag::WILL != 0 {
            Some(Will::decode(version, flags, &mut reader)?)
        } else {
            None
        };
        let user_name = if flags & flag::USER_NAME != 0 {
            Some(reader.text()?)
        } else {
            None
        };
        let password = if flags & flag::PASSWORD != 0 {
            Some(reader.binary()?)
        } else {
            None
        };
        reader.finish()?;
        Ok(Self {
            version,
            clean,
            keep_alive,
            client_id,
            will,
            user_name,
            password,
            properties,
        })
    }

    /// Appends the packet in its own version.
    ///
    /// The rules about the client id and about a password without a user name are the caller's.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Overlong> {
        let version = self.version;
        wire::packet(out, first::CONNECT, |out| {
            wire::put_text(out, protocol_name(version))?;
            out.push(version.level());
            out.push(self.flags());
            out.extend_from_slice(&self.keep_alive.to_be_bytes());
            properties::encode(version, self.properties, out)?;
            wire::put_text(out, self.client_id)?;
            if let Some(will) = &self.will {
                properties::encode(version, will.properties, out)?;
                wire::put_text(out, will.topic)?;
                wire::put_binary(out, will.payload)?;
            }
            if let Some(user_name) = self.user_name {
                wire::put_text(out, user_name)?;
            }
            if let Some(password) = self.password {
                wire::put_binary(out, password)?;
            }
            Ok(())
        })
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean {
            flags |= flag::CLEAN;
        }
        if let Some(will) = &self.will {
            flags |= flag::WILL | (will.qos.bits() << 3);
            if will.retain {
                flags |= flag::WILL_RETAIN;
            }
        }
        if self.user_name.is_some() {
            flags |= flag::USER_NAME;
        }
        if self.password.is_some() {
            flags |= flag::PASSWORD;
        }
        flags
    }

    /// Bytes that the packet takes on the wire, fixed header included; found by encoding.
    pub fn size(&self) -> usize {
        wire::encoded_size(|out| self.encode(out))
    }
}

const fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::V3_1 => "MQIsdp",
        Version::V3_1_1 | Version::V5_0 => "MQTT",
    }
}

/// The protocol name and level.
fn read_version(reader: &mut Reader<'_>) -> Result<Version, Violation> {
    let name = reader.text()?;
    let level = reader.u8()?;
    [Version::V3_1, Version::V3_1_1, Version::V5_0]
        .into_iter()
        .find(|version| protocol_name(*version) == name && version.level() == level)
        // [MQTT-3.1.2-1], [MQTT-3.1.2-2]
        .ok_or(
            Violation::protocol("MQTT-3.1.2-2", "the protocol or its level is not known")
                .with_reason(Reason::UNSUPPORTED_PROTOCOL_VERSION),
        )
}

/// What can be wrong with the flags alone.
fn check_flags(version: Version, flags: u8) -> Result<(), Violation> {
    if flags & flag::RESERVED != 0 {
        return Err(Violation::malformed(
            "MQTT-3.1.2-3",
            "the reserved flag of CONNECT is set",
        ));
    }
    if flags & flag::WILL == 0 && flags & flag::WILL_QOS != 0 {
        return Err(Violation::malformed(
            "MQTT-3.1.2-11",
            "a CONNECT without a will has a QoS for it",
        ));
    }
    if flags & flag::WILL_QOS == flag::WILL_QOS {
        return Err(Violation::malformed("MQTT-3.1.2-12", "a will has QoS 3"));
    }
    if flags & flag::WILL == 0 && flags & flag::WILL_RETAIN != 0 {
        return Err(Violation::malformed(
            "MQTT-3.1.2-13",
            "a CONNECT without a will has RETAIN for it",
        ));
    }
    // Since 5.0 a password may stand alone, as a token (MQTT 5, section 3.1.2.9).
    if version != Version::V5_0 && flags & (flag::USER_NAME | flag::PASSWORD) == flag::PASSWORD {
        return Err(Violation::malformed(
            "MQTT-3.1.2-22 of 3.1.1",
            "a CONNECT has a password without a user name",
        ));
    }
    Ok(())
}

fn check_client_id(version: Version, client_id: &str, clean: bool) -> Result<(), Violation> {
    let refused = match version {
        Version::V5_0 => return Ok(()),
        Version::V3_1_1 if client_id.is_empty() && !clean => Violation::protocol(
            "MQTT-3.1.3-7 of 3.1.1",
            "an empty client id stands without CleanSession",
        ),
        Version::V3_1_1 => return Ok(()),
        Version::V3_1 if fits_3_1(client_id) => {
            return Ok(());
        }
        Version::V3_1 => {
            Violation::protocol("MQTT3.1 3.1", "a client id has not 1 to 23 characters")
        }
    };
    Err(refused.with_reason(Reason::CLIENT_IDENTIFIER_NOT_VALID))
}

impl<'a> Will<'a> {
    /// The fields of the will, which stand together behind the client id.
    fn decode(version: Version, flags: u8, reader: &mut Reader<'a>) -> Result<Self, Violation> {
        let qos = Qos::from_bits((flags & flag::WILL_QOS) >> 3)
            .ok_or(Violation::malformed("MQTT-3.1.2-12", "a will has QoS 3"))?;
        let properties = properties::decode(version, reader, Place::Will)?;
        // [MQTT-3.1.3-11]
        let topic = reader.utf8()?;
        check_topic(topic)
            .map_err(|error| wire::bad_topic(error, "the topic of a will is not well-formed"))?;
        Ok(Self {
            qos,
            retain: flags & flag::WILL_RETAIN != 0,
            topic,
            payload: reader.binary()?,
            properties,
        })
    }
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Will<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// DISCONNECT, in either direction; before 5.0 from the client only and empty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disconnect<'a> {
    pub reason: Reason,
    pub properties: PropertyList<'a>,
}

impl<'a> Disconnect<'a> {
    /// The reasons of DISCONNECT (MQTT 5, table 3-10), and 0x8C, which only the general list of
    /// section 2.4 gives to it.
    const REASONS: &'static [u8] = &[
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93,
        0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];

    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let (reason, properties) = if version == Version::V5_0 {
            // [MQTT-3.14.2-1]
            let clause = "MQTT-3.14.2-1";
            properties::decode_reason(&mut reader, Place::Disconnect, Self::REASONS, clause)?
        } else {
            (Reason::SUCCESS, PropertyList::EMPTY)
        };
        reader.finish()?;
        Ok(Self { reason, properties })
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Overlong> {
        wire::packet(out, first::DISCONNECT, |out| {
            properties::encode_reason(version, self.reason, self.properties, out)
        })
    }
}
