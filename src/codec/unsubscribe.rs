//! UNSUBSCRIBE and UNSUBACK (MQTT 5, sections 3.10 and 3.11).

use super::properties::{self, Place};
use super::subscribe::{ReasonList, read_filter};
use super::wire::{self, Reader};
use super::{Overlong, first};
use crate::error::Violation;
use crate::message::PacketId;
use crate::properties::PropertyList;
use crate::version::Version;

/// UNSUBSCRIBE, from client to server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unsubscribe<'a> {
    pub id: PacketId,
    pub properties: PropertyList<'a>,
    pub filters: NameList<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(body);
        let id = reader.id()?;
        let properties = properties::decode(version, &mut reader, Place::Unsubscribe)?;
        let filters = NameList::new(reader.rest());
        // [MQTT-3.10.3-2]
        if reader.is_empty() {
            return Err(Violation::protocol(
                "MQTT-3.10.3-2",
                "an UNSUBSCRIBE has no filter",
            ));
        }
        while !reader.is_empty() {
            read_filter(&mut reader)?;
        }
        Ok(Self {
            id,
            properties,
            filters,
        })
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Overlong> {
        wire::packet(out, first::UNSUBSCRIBE, |out| {
            wire::put_id(out, self.id);
            properties::encode(version, self.properties, out)?;
            out.extend_from_slice(self.filters.bytes);
            Ok(())
        })
    }

    /// Bytes that the packet takes on the wire, fixed header included; found by encoding.
    pub fn size(&self, version: Version) -> usize {
        wire::encoded_size(|out| self.encode(version, out))
    }
}

/// The checked payload of an UNSUBSCRIBE: at least one filter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NameList<'a> {
    bytes: &'a [u8],
}

impl<'a> NameList<'a> {
    /// The list over bytes that [`push_name`] wrote.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The filters.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let mut reader = Reader::new(self.bytes);
        // The list is checked or written here, so an error can only mean its end.
        std::iter::from_fn(move || reader.utf8().ok())
    }
}

/// Appends one filter to the payload of an UNSUBSCRIBE. `filter` has been checked to be one.
pub fn push_name(payload: &mut Vec<u8>, filter: &str) {
    let written = wire::put_text(payload, filter);
    debug_assert!(written.is_ok(), "a checked filter is not too long");
}

/// UNSUBACK, from server to client. Before 5.0 it has no reasons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unsuback<'a> {
    pub id: PacketId,
    pub properties: PropertyList<'a>,
    pub reasons: ReasonList<'a>,
}

impl<'a> Unsuback<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        /// MQTT 5, table 3-9.
        const REASONS: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
        let mut reader = Reader::new(body);
        let id = reader.id()?;
        let properties = properties::decode(version, &mut reader, Place::Unsuback)?;
        let reasons = if version == Version::V5_0 {
            ReasonList::decode(reader, REASONS, ("MQTT-3.11.3-1", "MQTT-3.11.3-2"))?
        } else {
            reader.finish()?;
            ReasonList(&[])
        };
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
        wire::packet(out, first::UNSUBACK, |out| {
            wire::put_id(out, self.id);
            properties::encode(version, self.properties, out)?;
            if version == Version::V5_0 {
                out.extend_from_slice(self.reasons.0);
            }
            Ok(())
        })
    }
}
