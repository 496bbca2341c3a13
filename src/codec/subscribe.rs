//! SUBSCRIBE and SUBACK (MQTT 5, sections 3.8 and 3.9).

use super::properties::{self, Place};
use super::wire::{self, Reader};
use super::{Overlong, first};
use crate::error::Violation;
use crate::message::{PacketId, Qos};
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::topic::{check_filter, is_shared};
use crate::version::Version;

/// SUBSCRIBE, from client to server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Subscribe<'a> {
    pub id: PacketId,
    pub properties: PropertyList<'a>,
    pub filters: FilterList<'a>,
}

impl<'a> Subscribe<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let id = reader.id()?;
        let properties = properties::decode(version, &mut reader, Place::Subscribe)?;
        let filters = FilterList::new(reader.rest());
        // [MQTT-3.8.3-2]
        if reader.is_empty() {
            return Err(Violation::protocol(
                "MQTT-3.8.3-2",
                "a SUBSCRIBE has no filter",
            ));
        }
        while !reader.is_empty() {
            let filter = read_filter(&mut reader)?;
            let options = FilterOptions::decode(version, reader.u8()?)?;
            // [MQTT-3.8.3-4]
            if options.no_local && is_shared(filter) {
                return Err(Violation::protocol(
                    "MQTT-3.8.3-4",
                    "a shared subscription has No Local",
                ));
            }
        }
        Ok(Self {
            id,
            properties,
            filters,
        })
    }

    /// Appends the packet. Before 5.0 only the QoS of the options is written.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Overlong> {
        wire::packet(out, first::SUBSCRIBE, |out| {
            wire::put_id(out, self.id);
            properties::encode(version, self.properties, out)?;
            if version == Version::V5_0 {
                out.extend_from_slice(self.filters.bytes);
                return Ok(());
            }
            for (filter, options) in self.filters.iter() {
                wire::put_text(out, filter)?;
                out.push(options.qos.bits());
            }
            Ok(())
        })
    }

    /// Bytes that the packet takes on the wire, fixed header included; found by encoding.
    pub fn size(&self, version: Version) -> usize {
        wire::encoded_size(|out| self.encode(version, out))
    }
}

/// A filter of SUBSCRIBE or UNSUBSCRIBE [MQTT-3.8.3-1, MQTT-3.10.3-1].
pub(super) fn read_filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Violation> {
    let filter = reader.utf8()?;
    check_filter(filter).map_err(|error| wire::bad_topic(error, "a filter is not well-formed"))?;
    Ok(filter)
}

/// The checked payload of a SUBSCRIBE: filters with their options, at least one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilterList<'a> {
    bytes: &'a [u8],
}

impl<'a> FilterList<'a> {
    /// The list over bytes that [`push_filter`] wrote.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The filters with their options.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, FilterOptions)> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            // The list is checked or written here, so an error can only mean its end.
            let filter = reader.utf8().ok()?;
            let options = FilterOptions::decode(Version::V5_0, reader.u8().ok()?).ok()?;
            Some((filter, options))
        })
    }
}

/// Appends one filter to the payload of a SUBSCRIBE. `filter` has been checked to be one.
pub fn push_filter(payload: &mut Vec<u8>, filter: &str, options: FilterOptions) {
    super::unsubscribe::push_name(payload, filter);
    payload.push(options.bits());
}

/// How a subscription is wanted (MQTT 5, section 3.8.3.1). Before 5.0 only the QoS is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterOptions {
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// 0: send retained messages; 1: only for a new subscription; 2: never.
    pub retain_handling: u8,
}

impl FilterOptions {
    const NO_LOCAL: u8 = 0x04;
    const RETAIN_AS_PUBLISHED: u8 = 0x08;

    /// The byte on the wire; before 5.0 only the QoS bits are used.
    pub fn bits(self) -> u8 {
        let no_local = if self.no_local { Self::NO_LOCAL } else { 0 };
        let as_published = if self.retain_as_published {
            Self::RETAIN_AS_PUBLISHED
        } else {
            0
        };
        self.qos.bits() | no_local | as_published | ((self.retain_handling & 0x03) << 4)
    }

    /// The options of this byte, if it is one of 5.0.
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        Self::decode(Version::V5_0, bits).ok()
    }

    fn decode(version: Version, bits: u8) -> Result<Self, Violation> {
        // [MQTT-3.8.3-5]; before 5.0 all but the QoS is reserved.
        let reserved = if version == Version::V5_0 { 0xC0 } else { 0xFC };
        if bits & reserved != 0 {
            return Err(Violation::malformed(
                "MQTT-3.8.3-5",
                "reserved bits of subscription options are set",
            ));
        }
        let qos = Qos::from_bits(bits & 0x03).ok_or(Violation::protocol(
            "MQTT5 3.8.3.1",
            "a subscription has QoS 3",
        ))?;
        let retain_handling = bits >> 4;
        if retain_handling == 3 {
            return Err(Violation::protocol(
                "MQTT5 3.8.3.1",
                "a subscription has Retain Handling 3",
            ));
        }
        Ok(Self {
            qos,
            no_local: bits & Self::NO_LOCAL != 0,
            retain_as_published: bits & Self::RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }
}

/// SUBACK, from server to client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suback<'a> {
    pub id: PacketId,
    pub properties: PropertyList<'a>,
    /// One byte per filter.
    pub reasons: ReasonList<'a>,
}

impl<'a> Suback<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let id = reader.id()?;
        let properties = properties::decode(version, &mut reader, Place::Suback)?;
        // MQTT 3.1, section 3.9; [MQTT-3.9.3-2] of 3.1.1; [MQTT-3.9.3-2]
        let allowed: &[u8] = match version {
            Version::V3_1 => &[0, 1, 2],
            Version::V3_1_1 => &[0, 1, 2, 0x80],
            Version::V5_0 => &[
                0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
            ],
        };
        let reasons = ReasonList::decode(reader, allowed, ("MQTT-3.8.4-6", "MQTT-3.9.3-2"))?;
        Ok(Self {
            id,
            properties,
            reasons,
        })
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Overlong> {
        wire::packet(out, first::SUBACK, |out| {
            wire::put_id(out, self.id);
            properties::encode(version, self.properties, out)?;
            out.extend_from_slice(self.reasons.0);
            Ok(())
        })
    }
}

/// The reasons of SUBACK and UNSUBACK, one byte each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReasonList<'a>(pub &'a [u8]);

impl<'a> ReasonList<'a> {
    /// Reads to the end of the packet. `clauses` demand one reason per filter, and that it be allowed.
    pub(super) fn decode(
        mut reader: Reader<'a>,
        allowed: &[u8],
        clauses: (&'static str, &'static str),
    ) -> Result<Self, Violation> {
        let (one_per_filter, only_listed) = clauses;
        let reasons = Self(reader.rest());
        if reader.is_empty() {
            return Err(Violation::protocol(
                one_per_filter,
                "an acknowledgement of filters has no reason",
            ));
        }
        while !reader.is_empty() {
            reader.reason(allowed, only_listed)?;
        }
        Ok(reasons)
    }

    /// The reasons in the order of the filters.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Reason> + 'a {
        self.0.iter().map(|code| Reason::new(*code))
    }
}
