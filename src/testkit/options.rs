//! What the broker offers, and what it announces in CONNACK.

use std::rc::Rc;
use std::time::Duration;

use crate::message::Qos;
use crate::properties::Properties;
use crate::reason::Reason;
use crate::version::Version;

use super::auth::{AuthReply, Authentication};

/// What a [`Broker`] offers. The default is a broker without limits that speaks every version.
///
/// What MQTT 5 announces in CONNACK is announced exactly if it is set here, and is enforced: a client
/// that goes past it is disconnected with the reason that the standard names.
///
/// [`Broker`]: super::Broker
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    pub(super) versions: Vec<Version>,
    pub(super) refusal: Option<Reason>,
    pub(super) credentials: Option<(Rc<str>, Rc<[u8]>)>,
    pub(super) authentication: Option<Authentication>,
    pub(super) denied: Vec<Rc<str>>,
    pub(super) receive_maximum: Option<u16>,
    pub(super) maximum_qos: Qos,
    pub(super) retain_available: bool,
    pub(super) maximum_packet_size: Option<u32>,
    pub(super) topic_alias_maximum: u16,
    pub(super) sent_aliases: u16,
    pub(super) server_keep_alive: Option<u16>,
    pub(super) session_expiry: Option<u32>,
    pub(super) assigned_client_id: Option<Rc<str>>,
    pub(super) wildcards: bool,
    pub(super) subscription_identifiers: bool,
    pub(super) shared_subscriptions: bool,
    pub(super) connack_properties: Properties,
    pub(super) overlap: Overlap,
    pub(super) recording: Recording,
}

/// How a message arrives that matches several subscriptions of one client (MQTT 5, section 3.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the standard leaves these two to the server"
)]
pub enum Overlap {
    /// Once, at the highest QoS, with the identifiers of all subscriptions.
    OneCopy,
    /// Once per subscription.
    CopyEach,
}

/// How much the broker keeps of what it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "all or nothing")]
pub enum Recording {
    /// Every packet and every message; for tests.
    Everything,
    /// Only how many there were; for benchmarks and long runs.
    Counts,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            versions: vec![Version::V3_1, Version::V3_1_1, Version::V5_0],
            refusal: None,
            credentials: None,
            authentication: None,
            denied: Vec::new(),
            receive_maximum: None,
            maximum_qos: Qos::ExactlyOnce,
            retain_available: true,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            sent_aliases: 0,
            server_keep_alive: None,
            session_expiry: None,
            assigned_client_id: None,
            wildcards: true,
            subscription_identifiers: true,
            shared_subscriptions: true,
            connack_properties: Properties::new(),
            overlap: Overlap::OneCopy,
            recording: Recording::Everything,
        }
    }
}

impl BrokerOptions {
    /// A broker without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// The versions it speaks. Defaults to all.
    ///
    /// A CONNECT of another version is refused: in the form of 3.1.1, code 1, if the client or the
    /// broker is older than 5.0, and with 0x84 otherwise.
    pub fn versions(mut self, versions: &[Version]) -> Self {
        self.versions = versions.to_vec();
        self
    }

    /// Refuses every CONNECT with `reason`. Defaults to accepting; [`Rule`] refuses a number of them.
    ///
    /// [`Rule`]: super::Rule
    pub fn refuse(mut self, reason: Reason) -> Self {
        self.refusal = Some(reason);
        self
    }

    /// The only user name and password it lets in. Defaults to letting everybody in.
    pub fn credentials(mut self, user_name: &str, password: impl AsRef<[u8]>) -> Self {
        self.credentials = Some((user_name.into(), password.as_ref().into()));
        self
    }

    /// Offers the authentication `method`: one AUTH is sent per challenge, then CONNACK.
    ///
    /// Whatever the client answers is accepted and recorded; a wrong answer is made up by a [`Rule`]
    /// on AUTH. Re-authentication goes through the same challenges. Defaults to none: a CONNECT that
    /// names a method is refused with 0x8C [MQTT-4.12.0-1].
    ///
    /// [`Rule`]: super::Rule
    pub fn authentication<C: AsRef<[u8]>>(
        mut self,
        method: &str,
        challenges: impl IntoIterator<Item = C>,
    ) -> Self {
        let challenges = challenges.into_iter().map(|data| data.as_ref().to_vec());
        self.authentication = Some(Authentication::of(method, challenges.collect()));
        self
    }

    /// Offers the authentication `method` and plays it: `begin` is called for each exchange, at CONNECT and
    /// at a re-authentication, and what it returns gets the data of each step of the client and says what
    /// the broker answers. It may play a broker that is wrong.
    ///
    /// ```
    /// use coracle::Reason;
    /// use coracle::testkit::{AuthReply, BrokerOptions};
    ///
    /// // Asks for the answer to one question, and is right about everything.
    /// let options = BrokerOptions::new().play_authentication("QUIZ", || {
    ///     let mut asked = false;
    ///     move |data: &[u8]| {
    ///         if !std::mem::replace(&mut asked, true) {
    ///             return AuthReply::Challenge(b"6 * 7?".to_vec());
    ///         }
    ///         match data {
    ///             b"42" => AuthReply::Accept(b"indeed".to_vec()),
    ///             _ => AuthReply::Refuse(Reason::NOT_AUTHORIZED),
    ///         }
    ///     }
    /// });
    /// # drop(options);
    /// ```
    pub fn play_authentication<P>(mut self, method: &str, begin: impl Fn() -> P + 'static) -> Self
    where
        P: FnMut(&[u8]) -> AuthReply + 'static,
    {
        self.authentication = Some(Authentication::new(method, begin));
        self
    }

    /// Answers 0x87, not authorized, to a subscription to exactly this filter and to a publication to
    /// a topic that it matches. May be called several times.
    pub fn deny(mut self, filter: &str) -> Self {
        self.denied.push(filter.into());
        self
    }

    /// Receive Maximum: how many unfinished QoS 1 and 2 publications it accepts. Defaults to 65,535.
    pub fn receive_maximum(mut self, count: u16) -> Self {
        self.receive_maximum = Some(count);
        self
    }

    /// Maximum QoS: what it accepts on 5.0, and grants to subscriptions. Defaults to QoS 2.
    pub fn maximum_qos(mut self, qos: Qos) -> Self {
        self.maximum_qos = qos;
        self
    }

    /// Retain Available. Defaults to true.
    pub fn retain_available(mut self, available: bool) -> Self {
        self.retain_available = available;
        self
    }

    /// Maximum Packet Size in bytes. Defaults to no limit but the protocol's.
    pub fn maximum_packet_size(mut self, bytes: u32) -> Self {
        self.maximum_packet_size = Some(bytes);
        self
    }

    /// Topic Alias Maximum: the highest alias a client may use. Defaults to 0, none.
    pub fn topic_alias_maximum(mut self, highest: u16) -> Self {
        self.topic_alias_maximum = highest;
        self
    }

    /// How many aliases it uses itself, at most those the client allows. Defaults to 0, none.
    pub fn send_topic_aliases(mut self, highest: u16) -> Self {
        self.sent_aliases = highest;
        self
    }

    /// Server Keep Alive in seconds, 0 to disable. Defaults to what the client asks for.
    pub fn server_keep_alive(mut self, seconds: u16) -> Self {
        self.server_keep_alive = Some(seconds);
        self
    }

    /// Session Expiry Interval that the broker imposes on every 5.0 client, in whole seconds.
    /// Defaults to what the client asks for.
    pub fn session_expiry(mut self, after: Duration) -> Self {
        self.session_expiry = Some(u32::try_from(after.as_secs()).unwrap_or(u32::MAX));
        self
    }

    /// The client identifier given to whoever brings none. Defaults to `assigned-1`, `assigned-2` ….
    pub fn assigned_client_id(mut self, client_id: &str) -> Self {
        self.assigned_client_id = Some(client_id.into());
        self
    }

    /// Wildcard Subscription Available. Defaults to true.
    pub fn wildcard_subscriptions(mut self, available: bool) -> Self {
        self.wildcards = available;
        self
    }

    /// Subscription Identifiers Available. Defaults to true.
    pub fn subscription_identifiers(mut self, available: bool) -> Self {
        self.subscription_identifiers = available;
        self
    }

    /// Shared Subscription Available. Defaults to true.
    pub fn shared_subscriptions(mut self, available: bool) -> Self {
        self.shared_subscriptions = available;
        self
    }

    /// Further properties of every CONNACK of 5.0: a Reason String, a Server Reference, user
    /// properties …. Defaults to none. They are only announced; nothing acts on them.
    pub fn connack_properties(mut self, properties: Properties) -> Self {
        self.connack_properties = properties;
        self
    }

    /// How overlapping subscriptions of one client are served. Defaults to one copy.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// What it keeps of what it has seen. Defaults to everything.
    pub fn recording(mut self, recording: Recording) -> Self {
        self.recording = recording;
        self
    }

    /// What CONNACK announces to every 5.0 client, whatever it asked for.
    pub(super) fn announcement(&self) -> Properties {
        let mut properties = self.connack_properties.clone();
        if let Some(count) = self.receive_maximum {
            properties = properties.receive_maximum(count);
        }
        if self.maximum_qos < Qos::ExactlyOnce {
            properties = properties.maximum_qos(self.maximum_qos.bits());
        }
        if !self.retain_available {
            properties = properties.retain_available(false);
        }
        if let Some(bytes) = self.maximum_packet_size {
            properties = properties.maximum_packet_size(bytes);
        }
        if self.topic_alias_maximum > 0 {
            properties = properties.topic_alias_maximum(self.topic_alias_maximum);
        }
        if let Some(seconds) = self.server_keep_alive {
            properties = properties.server_keep_alive(seconds);
        }
        if let Some(seconds) = self.session_expiry {
            properties = properties.session_expiry_interval(seconds);
        }
        if !self.wildcards {
            properties = properties.wildcard_subscription_available(false);
        }
        if !self.subscription_identifiers {
            properties = properties.subscription_identifiers_available(false);
        }
        if !self.shared_subscriptions {
            properties = properties.shared_subscription_available(false);
        }
        properties
    }
}
