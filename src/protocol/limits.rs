//! What the broker announced for one connection (MQTT 5, section 3.2.2.3).

use std::time::Duration;

use super::Config;
use super::outgoing::LARGEST;
use crate::error::Violation;
use crate::message::Qos;
use crate::properties::{Properties, PropertyList};
use crate::reason::Reason;
use crate::version::Version;

/// QoS 2 messages that may be unfinished at a time where the broker cannot tell its Receive Maximum. It
/// is what mosquitto takes of one client unless it is configured otherwise. It drops every message above
/// QoS 0 beyond them, and before 5.0 it has to confirm what it drops.
const EXACTLY_ONCE_BEFORE_5: u16 = 20;

/// The least that a broker has to take: an acknowledgement with a reason. PINGREQ and a DISCONNECT without
/// properties are shorter.
const LEAST: usize = 5;

/// What the broker announced for this connection; made at CONNACK and dropped with the connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// How many QoS 1 and 2 publications may be unfinished.
    pub receive_maximum: u16,
    /// How many of these may be QoS 2.
    pub exactly_once_maximum: u16,
    /// The highest QoS that may be published.
    pub maximum_qos: Qos,
    /// Whether retained messages may be published.
    pub retain_available: bool,
    /// The largest packet that may be sent, in bytes.
    pub maximum_packet_size: usize,
    /// The highest topic alias that may be sent.
    pub topic_alias_maximum: u16,
    /// Whether filters may hold wildcards.
    pub wildcards_available: bool,
    /// Whether filters may be shared.
    pub shared_available: bool,
    /// Whether a subscription may have an identifier.
    pub identifiers_available: bool,
    /// The keep-alive in force; none if 0.
    pub keep_alive: Option<Duration>,
    /// Everything that CONNACK said, for reading.
    pub properties: Properties,
}

impl Limits {
    /// What the broker did not announce has the value that the standard gives it (section 3.2.2.3).
    pub(super) fn new(properties: PropertyList<'_>, config: &Config) -> Self {
        let keep_alive = properties.server_keep_alive().unwrap_or(config.keep_alive);
        let receive_maximum = properties.receive_maximum().unwrap_or(u16::MAX);
        let receive_maximum = receive_maximum.min(config.window);
        Self {
            receive_maximum,
            exactly_once_maximum: match config.version {
                Version::V5_0 => receive_maximum,
                Version::V3_1 | Version::V3_1_1 => receive_maximum.min(EXACTLY_ONCE_BEFORE_5),
            },
            maximum_qos: match properties.maximum_qos() {
                Some(0) => Qos::AtMostOnce,
                Some(1) => Qos::AtLeastOnce,
                Some(_) | None => Qos::ExactlyOnce,
            },
            retain_available: properties.retain_available().unwrap_or(true),
            maximum_packet_size: maximum_packet_size(properties),
            topic_alias_maximum: properties.topic_alias_maximum().unwrap_or(0),
            wildcards_available: properties.wildcard_subscription_available().unwrap_or(true),
            shared_available: properties.shared_subscription_available().unwrap_or(true),
            identifiers_available: config.version == Version::V5_0
                && properties
                    .subscription_identifiers_available()
                    .unwrap_or(true),
            keep_alive: (keep_alive > 0).then(|| Duration::from_secs(keep_alive.into())),
            properties: properties.into(),
        }
    }
}

/// The largest packet that the broker takes, in bytes.
pub(super) fn maximum_packet_size(properties: PropertyList<'_>) -> usize {
    properties
        .maximum_packet_size()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(LARGEST)
}

/// Whether a client can keep the rules with this largest packet.
///
/// # Errors
/// What it must answer is larger than it may send [MQTT-3.2.2-15]. No broker is known that announces so
/// little; refused at once, it is no case anywhere else.
pub(super) fn check_packet_size(size: usize) -> Result<(), Violation> {
    if size >= LEAST {
        return Ok(());
    }
    let what = "the server takes no packet as large as an acknowledgement";
    let violation = Violation::protocol("MQTT5 3.2.2.3.6", what);
    Err(violation.with_reason(Reason::IMPLEMENTATION_SPECIFIC_ERROR))
}
