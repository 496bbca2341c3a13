//! What the user wants of the protocol: plain numbers and texts, made from `Options`.

use std::time::Duration;

use crate::properties::{Properties, Property};
use crate::version::Version;
use crate::when_full::WhenFull;

/// What becomes of the session that the broker keeps for this client: its subscriptions, and the
/// messages of QoS 1 and 2 that are queued or under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionMode {
    /// A session that lives with this process: kept across connections, leftovers of an earlier
    /// process are discarded, ended by `disconnect()` where the version allows it. With a store
    /// ([`Options::store`](crate::Options::store)) it lives with that instead.
    Fresh,
    /// Goes on with the session of an earlier process: its subscriptions stay, queued messages arrive.
    ///
    /// They arrive right after the connection, so subscribe before the driver runs: a message that
    /// matches no subscription of this process is acknowledged and dropped.
    ///
    /// Without a store ([`Options::store`](crate::Options::store)) QoS 2 is exact only within one process: what
    /// the earlier process had not finished publishing is not finished, and a message that it had taken but not
    /// yet acknowledged comes a second time.
    Resume,
    /// Nothing is kept: each connection starts anew.
    None,
}

/// The settings of one client.
#[derive(Debug, Clone)]
pub struct Config {
    /// The version that is spoken.
    pub version: Version,
    /// The client identifier; empty if the broker is to choose.
    pub client_id: String,
    /// What becomes of the session.
    pub session: SessionMode,
    /// For how long the broker keeps it without a connection; 5.0 only.
    pub session_expiry: Duration,
    /// Seconds; 0 for none.
    pub keep_alive: u16,
    /// How long PINGRESP may take.
    pub ping_timeout: Duration,
    /// How long CONNACK may take.
    pub connack_timeout: Duration,
    /// How many QoS 1 and 2 messages may be unfinished, at most.
    pub window: u16,
    /// How many QoS 1 and 2 messages the broker may send unacknowledged; 5.0 only.
    pub receive_maximum: u16,
    /// The largest packet that is accepted from the broker, in bytes.
    pub inbound_limit: usize,
    /// The highest topic alias that the broker may use; 5.0 only.
    pub topic_alias_maximum: u16,
    /// How many topic aliases are used for what is published, at most; 5.0 only.
    pub topic_aliases: u16,
    /// The bound of each of the two queues of outgoing messages, in bytes.
    pub queue_bytes: usize,
    /// What becomes of a QoS 0 message for which there is no room.
    pub when_full_qos0: WhenFull,
    /// What becomes of a QoS 1 or 2 message for which there is no room.
    pub when_full: WhenFull,
    /// Whether QoS 0 messages are kept while there is no link.
    pub keep_qos0_offline: bool,
    /// Whether a QoS 2 message that may have arrived is published again after the session was lost.
    pub republish: bool,
    /// How long a message may stay untaken before it is acknowledged all the same.
    pub take_timeout: Duration,
    /// Whether other packets wait while the broker authenticates this client again; 5.0 only.
    pub quiet_renewal: bool,
    /// Whether a store makes the session outlive the process.
    pub stored: bool,
    /// Further properties of CONNECT; 5.0 only.
    pub properties: Properties,
}

impl Config {
    /// The defaults for a client of this name.
    pub fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.into(),
            session: SessionMode::Fresh,
            session_expiry: Duration::from_secs(3600),
            keep_alive: 60,
            ping_timeout: Duration::from_secs(10),
            connack_timeout: Duration::from_secs(10),
            window: 1024,
            // Not announced: mosquitto would widen its own window, and a restart of it would repeat
            // messages of QoS 2 beyond that one.
            receive_maximum: u16::MAX,
            inbound_limit: 1024 * 1024,
            topic_alias_maximum: 16,
            // More than brokers usually allow; mosquitto allows 10.
            topic_aliases: 64,
            queue_bytes: 1024 * 1024,
            when_full_qos0: WhenFull::Fail,
            when_full: WhenFull::Fail,
            keep_qos0_offline: true,
            republish: false,
            take_timeout: Duration::from_secs(5),
            // mosquitto ends the connection over any other packet.
            quiet_renewal: true,
            stored: false,
            properties: Properties::new(),
        }
    }

    /// Whether the session is to outlive its connection.
    pub fn keeps_session(&self) -> bool {
        match (self.session, self.version) {
            // Whole seconds, as on the wire: what CONNECT sends as 0 no DISCONNECT can raise.
            (SessionMode::Fresh | SessionMode::Resume, Version::V5_0) => {
                self.session_expiry.as_secs() > 0
            }
            (SessionMode::Fresh | SessionMode::Resume, Version::V3_1 | Version::V3_1_1) => true,
            (SessionMode::None, _) => false,
        }
    }

    /// The properties of the DISCONNECT of a good end: a session that lives with this process ends with
    /// it, where the version can say so.
    pub fn farewell(&self) -> Properties {
        match (self.version, self.session) {
            (Version::V5_0, SessionMode::Fresh) if self.keeps_session() && !self.stored => {
                Properties::new().session_expiry_interval(0)
            }
            (Version::V3_1 | Version::V3_1_1 | Version::V5_0, _) => Properties::new(),
        }
    }

    /// The properties of CONNECT. What has its default value on the wire is left out, also if it stands
    /// among the user's: what the broker is told has to be what we hold it to.
    pub(super) fn connect_properties(&self) -> Properties {
        let mut properties = self.properties.clone();
        for own in [
            Property::SessionExpiryInterval(0),
            Property::ReceiveMaximum(1),
            Property::MaximumPacketSize(1),
            Property::TopicAliasMaximum(0),
        ] {
            properties = properties.without(own.id());
        }
        let expiry = match self.session {
            SessionMode::Fresh | SessionMode::Resume => self.session_expiry.as_secs(),
            SessionMode::None => 0,
        };
        if expiry > 0 {
            let seconds = u32::try_from(expiry).unwrap_or(u32::MAX);
            properties = properties.session_expiry_interval(seconds);
        }
        if self.receive_maximum < u16::MAX {
            properties = properties.receive_maximum(self.receive_maximum);
        }
        if let Ok(limit) = u32::try_from(self.inbound_limit) {
            properties = properties.maximum_packet_size(limit);
        }
        if self.topic_alias_maximum > 0 {
            properties = properties.topic_alias_maximum(self.topic_alias_maximum);
        }
        properties
    }
}
