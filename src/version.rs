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

/// The versions that a client may speak: one, or what the broker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Versions {
    /// This one.
    One(Version),
    /// 5.0, else 3.1.1, else 3.1: what the broker speaks is found out with the first connection, and
    /// remembered for as long as the client lives. With a store it is remembered with the session, and spoken by
    /// the next process where that goes on.
    ///
    /// The client goes one version down when the broker refuses the version, when it twice in a row ends the
    /// connection instead of answering CONNECT, and when it does not answer at all; from 3.1 it goes up to
    /// 5.0 again. 3.1 is left out for a client identifier that is empty or above 23 characters. What needs
    /// MQTT 5 is left out where it does no harm (a property of a message) and an error where it does.
    Auto,
}

impl Version {
    /// What the broker speaks: see [`Versions::Auto`].
    #[expect(
        non_upper_case_globals,
        reason = "it stands where a version does, and reads like one"
    )]
    pub const Auto: Versions = Versions::Auto;
}

impl From<Version> for Versions {
    fn from(version: Version) -> Self {
        Self::One(version)
    }
}

impl Versions {
    /// The newest of them.
    pub(crate) fn newest(self) -> Version {
        match self {
            Self::One(version) => version,
            Self::Auto => Version::V5_0,
        }
    }
}
