//! AUTH (MQTT 5, section 3.15).

use super::properties::{self, Place};
use super::wire::{self, Reader};
use super::{Overlong, first};
use crate::error::Violation;
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::version::Version;

/// The reasons of AUTH (MQTT 5, table 3-11).
const REASONS: &[u8] = &[0x00, 0x18, 0x19];

/// AUTH: one step of an enhanced authentication, in either direction. MQTT 5 only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Auth<'a> {
    pub reason: Reason,
    pub properties: PropertyList<'a>,
}

impl<'a> Auth<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        if version != Version::V5_0 {
            return Err(Violation::protocol(
                "MQTT5 3.15",
                "AUTH stands on a connection before 5.0",
            ));
        }
        let mut reader = Reader::new(body);
        // MQTT 5, section 3.15.2.1: an empty body is success without properties. Unlike DISCONNECT
        // there is no form that ends after the reason.
        if reader.is_empty() {
            return Ok(Self {
                reason: Reason::SUCCESS,
                properties: PropertyList::EMPTY,
            });
        }
        // [MQTT-3.15.2-1]
        let reason = reader.reason(REASONS, "MQTT-3.15.2-1")?;
        let properties = properties::decode(version, &mut reader, Place::Auth)?;
        // Success may come without anything; whether it may without this is up to who began the exchange.
        if properties.authentication_method().is_none() && reason != Reason::SUCCESS {
            return Err(Violation::protocol(
                "MQTT5 3.15.2.2.2",
                "AUTH has no Authentication Method",
            ));
        }
        reader.finish()?;
        Ok(Self { reason, properties })
    }

    /// Appends the packet, which only 5.0 has.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Overlong> {
        wire::packet(out, first::AUTH, |out| {
            if self.reason == Reason::SUCCESS && self.properties.is_empty() {
                return Ok(());
            }
            out.push(self.reason.code());
            properties::encode(Version::V5_0, self.properties, out)
        })
    }
}
