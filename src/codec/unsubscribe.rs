//! UNSUBSCRIBE and UNSUBACK (MQTT 5, sections 3.10 and 3.11).
use super::subscribe::ReasonList;
use crate::message::PacketId;
use crate::properties::PropertyList;

/// UNSUBSCRIBE, from client to server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unsubscribe<'a> {
    pub id: PacketId,
    pub properties: PropertyList<'a>,
    pub filters: NameList<'a>,
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
        let _ = self.bytes;
        std::iter::empty()
    }
}

/// Appends one filter to the payload of an UNSUBSCRIBE. `filter` has been checked to be one.
pub fn push_name(payload: &mut Vec<u8>, filter: &str) {
    let _ = (payload, filter);
    todo!()
}

/// UNSUBACK, from server to client. Before 5.0 it has no reasons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unsuback<'a> {
    pub id: PacketId,
    pub properties: PropertyList<'a>,
    pub reasons: ReasonList<'a>,
}
