//! AUTH (MQTT 5, section 3.15).
use crate::properties::PropertyList;
use crate::reason::Reason;

/// AUTH: one step of an enhanced authentication, in either direction. MQTT 5 only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Auth<'a> {
    pub reason: Reason,
    pub properties: PropertyList<'a>,
}
