//! SUBSCRIBE and SUBACK (MQTT 5, sections 3.8 and 3.9).
use crate::message::{PacketId, Qos};
use crate::properties::PropertyList;
use crate::reason::Reason;

/// SUBSCRIBE, from client to server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Subscribe<'a> {
    pub id: PacketId,
    pub properties: PropertyList<'a>,
    pub filters: FilterList<'a>,
}

/// The checked payload of a SUBSCRIBE: filters with their options, at least one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilterList<'a> {
    bytes: &'a [u8],
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
    /// The byte on the wire; before 5.0 only the QoS bits are used.
    pub fn bits(self) -> u8 {
        todo!()
    }
}

impl<'a> FilterList<'a> {
    /// The list over bytes that [`push_filter`] wrote.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The filters with their options.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, FilterOptions)> {
        let _ = self.bytes;
        std::iter::empty()
    }
}

/// Appends one filter to the payload of a SUBSCRIBE. `filter` has been checked to be one.
pub fn push_filter(payload: &mut Vec<u8>, filter: &str, options: FilterOptions) {
    let _ = (payload, filter, options);
    todo!()
}

/// SUBACK, from server to client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suback<'a> {
    pub id: PacketId,
    pub properties: PropertyList<'a>,
    /// One byte per filter.
    pub reasons: ReasonList<'a>,
}

/// The reasons of SUBACK and UNSUBACK, one byte each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReasonList<'a>(pub &'a [u8]);

impl<'a> ReasonList<'a> {
    /// The reasons in the order of the filters.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Reason> + 'a {
        self.0.iter().map(|code| Reason::new(*code))
    }
}
