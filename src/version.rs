//! The three versions of MQTT that this crate speaks.

use std::fmt;

/// A version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// MQTT 3.1 (2010), protocol name `MQIsdp`, level 3.
    V3_1,
    /// MQTT 3.1.1 (2014), protocol name `MQTT`, level 4.
    V3_1_1,
    /// MQTT 5.0 (2019), protocol name `MQTT`, level 5.
    V5_0,
}

impl Version {
    /// The protocol level byte of CONNECT.
    pub const fn level(self) -> u8 {
        match self {
            Self::V3_1 => 3,
            Self::V3_1_1 => 4,
            Self::V5_0 => 5,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_1 => "3.1",
            Self::V3_1_1 => "3.1.1",
            Self::V5_0 => "5.0",
        })
    }
}
