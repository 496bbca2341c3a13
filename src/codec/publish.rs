//! PUBLISH and its answers PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 5, sections 3.3 to 3.7).
use std::fmt;

use super::Overlong;
use crate::message::{PacketId, Qos};
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::version::Version;

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

impl Publish<'_> {
    /// Bytes that the packet takes on the wire, fixed header included.
    pub fn size(&self, version: Version) -> usize {
        let _ = version;
        todo!()
    }

    /// Appends everything but the payload, whose bytes the caller adds or sends by reference.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    pub fn encode_head(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Overlong> {
        let _ = (version, out);
        todo!()
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Overlong> {
        self.encode_head(version, out)?;
        out.extend_from_slice(self.payload);
        Ok(())
    }
}

impl Ack<'_> {
    /// Appends this answer as `kind`.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    pub fn encode(
        &self,
        kind: AckKind,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<(), Overlong> {
        let _ = (version, out, kind);
        todo!()
    }
}

/// The QoS and packet id of a PUBLISH of which only the beginning is here; none if more is needed.
///
/// For a packet above the size limit that is skipped but must be acknowledged. `first` is its first
/// byte, `body` what is here of everything after the fixed header.
pub fn peek_id(first: u8, body: &[u8]) -> Option<(Qos, Option<PacketId>)> {
    let _ = (first, body);
    todo!()
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}
