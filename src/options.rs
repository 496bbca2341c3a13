//! How a client behaves.

mod network;
mod storage;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::authenticator::Authenticator;
use crate::clock::{Clock, LocalBoxFuture, SystemClock};
use crate::codec::Place;
use crate::codec::connect::fits_3_1;
use crate::error::{Doing, Error, Result};
use crate::message::{Message, Qos, check_topic, whole_seconds};
use crate::properties::Properties;
use crate::protocol::{Config, Credentials, SessionMode as Session};
use crate::topic;
use crate::transport::{Connector, Endpoint, NetworkSettings};
use crate::version::{Version, Versions};
use crate::when_full::WhenFull;

pub(crate) use network::{Order, Places};
pub(crate) use storage::Storage;

/// When a message of QoS 1 or 2 is acknowledged to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Acknowledge {
    /// When it has arrived here, before anyone has seen it.
    OnReceipt,
    /// When the stream's reader has taken it, or [`Options::take_timeout`] has passed. What the program does
    /// with it comes after: a crash in between loses the message.
    #[default]
    OnTake,
    /// When [`Message::acknowledge`] is called: for messages that must be stored or worked on first.
    ///
    /// One that is dropped because its stream is full ([`Overflow`]), or is still queued when the
    /// subscription is dropped, is acknowledged unseen. So let [`Options::receive_maximum`] times the largest
    /// message and its 64 bytes fit into [`Options::stream_bytes`].
    ByHand,
}

/// What happens when a stream's queue of untaken messages is at its bound.
///
/// A message of QoS 0 makes older ones of QoS 0 go in any case; if none is queued, it is dropped itself. Each
/// loss counts in [`Statistics::dropped`](crate::Statistics::dropped).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest message is dropped, and counts as taken: it is acknowledged. Tells
    /// [`Event::SlowConsumer`](crate::Event::SlowConsumer).
    #[default]
    DropOldest,
    /// The new message is dropped, and counts as taken. Tells
    /// [`Event::SlowConsumer`](crate::Event::SlowConsumer).
    DropNewest,
    /// The stream ends with an error after what is queued, and is unsubscribed. The message that did not fit
    /// counts as taken and is lost. Tells
    /// [`Event::SubscriptionEnded`](crate::Event::SubscriptionEnded).
    End,
}

/// One attempt to connect, as the callback of [`Options::before_connect`] gets and returns it.
#[derive(Debug, Clone)]
#[must_use = "an attempt has an effect only when it is returned"]
pub struct Attempt {
    pub(crate) failed_before: u32,
    pub(crate) endpoint: Endpoint,
    pub(crate) credentials: Credentials,
    pub(crate) shares_sessions: bool,
}

impl Attempt {
    /// How many attempts have failed since the last connection: 0 at the first one.
    pub fn failed_before(&self) -> u32 {
        self.failed_before
    }

    /// Where this attempt leads.
    pub fn target(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sets the user name and the password for this attempt.
    pub fn credentials(mut self, user_name: &str, password: impl Into<Vec<u8>>) -> Self {
        self.credentials.user_name = Some(user_name.into());
        self.credentials.password = Some(password.into());
        self
    }

    /// Sets the will for this attempt.
    pub fn will(mut self, will: Message) -> Self {
        self.credentials.will = Some(will);
        self
    }

    /// Leads this attempt elsewhere, to a broker that knows nothing of the session so far: it starts
    /// clean there.
    ///
    /// # Errors
    /// A misuse if `url` is not understood.
    pub fn endpoint(mut self, url: &str) -> Result<Self> {
        self.endpoint = Endpoint::parse(url)?;
        self.shares_sessions = false;
        Ok(self)
    }

    /// Declares that the endpoint shares its sessions with the last one, so that the session goes on.
    pub fn shares_sessions(mut self) -> Self {
        self.shares_sessions = true;
        self
    }
}

type BeforeConnect = Rc<dyn Fn(Attempt) -> LocalBoxFuture<Result<Attempt>>>;
pub(crate) type GiveUp = Rc<dyn Fn(&Error, u32) -> bool>;

/// How a client behaves. Made with [`Options::new`]; every setter takes and returns it.
///
/// ```
/// use std::time::Duration;
/// use coracle::{Message, Options, Qos, Version};
///
/// # fn main() -> coracle::Result<()> {
/// let options = Options::new("mqtt://localhost:1883", "thermometer-7")?
///     .version(Version::V3_1_1)
///     .keep_alive(Duration::from_secs(30))
///     .credentials("thermometer", "secret")
///     .will(Message::new("house/hall/online", "no").qos(Qos::AtLeastOnce).retain(true));
/// # let _ = options; Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "options have an effect only when a client is made of them"]
pub struct Options {
    pub(crate) config: Config,
    pub(crate) versions: Versions,
    pub(crate) places: Places,
    pub(crate) network: NetworkSettings,
    pub(crate) credentials: Credentials,
    connector: Option<Rc<dyn Connector>>,
    pub(crate) clock: Rc<dyn Clock>,
    pub(crate) before_connect: Option<BeforeConnect>,
    pub(crate) authenticator: Option<Rc<dyn Authenticator>>,
    pub(crate) give_up: Option<GiveUp>,
    pub(crate) wait_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) retry: Retry,
    pub(crate) stream_bytes: usize,
    pub(crate) maximum_qos: Qos,
    pub(crate) retain: bool,
    pub(crate) identifiers: bool,
    pub(crate) seed: Option<u64>,
    pub(crate) response_prefix: Option<Rc<str>>,
    pub(crate) storage: Storage,
}

/// When the next attempt begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
    /// A link that held this long makes the delays start over.
    pub(crate) stable: Duration,
}

impl Options {
    /// Options for a client that connects to `url` (see [`Endpoint::parse`]) under this client identifier.
    ///
    /// With an empty identifier the broker chooses one (MQTT 5, or a session that is not kept). Two
    /// clients with the same identifier at one broker push each other out.
    ///
    /// # Errors
    /// A misuse that says what is wrong with the URL or the identifier.
    pub fn new(url: &str, client_id: &str) -> Result<Self> {
        if client_id.contains('\0') || client_id.len() > usize::from(u16::MAX) {
            return Err(Error::misuse("the client id is too long or holds U+0000"));
        }
        Ok(Self {
            config: Config::new(Version::V5_0, client_id),
            versions: Versions::One(Version::V5_0),
            places: Places::new(Endpoint::parse(url)?),
            network: NetworkSettings::default(),
            credentials: Credentials::default(),
            connector: None,
            clock: Rc::new(SystemClock),
            before_connect: None,
            authenticator: None,
            give_up: None,
            wait_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(5),
            retry: Retry {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(60),
                stable: Duration::from_secs(10),
            },
            stream_bytes: 1024 * 1024,
            maximum_qos: Qos::ExactlyOnce,
            retain: true,
            identifiers: true,
            seed: None,
            response_prefix: None,
            storage: Storage::default(),
        })
    }

    /// Sets the version of MQTT, or with [`Version::Auto`] lets the broker decide. Defaults to 5.0.
    pub fn version(mut self, version: impl Into<Versions>) -> Self {
        self.versions = version.into();
        self.config.version = self.versions.newest();
        self
    }

    /// Sets what becomes of the session at the broker. Defaults to [`Session::Fresh`].
    pub fn session(mut self, session: Session) -> Self {
        self.config.session = session;
        self
    }

    /// Sets for how long the broker keeps the session without a connection, in whole seconds, rounded up;
    /// MQTT 5 only (older brokers decide themselves). Defaults to one hour.
    pub fn session_expiry(mut self, expiry: Duration) -> Self {
        self.config.session_expiry = Duration::from_secs(whole_seconds(expiry));
        self
    }

    /// Sets the keep-alive, in whole seconds up to 65,535, rounded up; 0 switches it off. A MQTT 5 broker may
    /// replace it. Defaults to 60 s.
    pub fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.config.keep_alive = u16::try_from(whole_seconds(keep_alive)).unwrap_or(u16::MAX);
        self
    }

    /// Sets how long the broker may take to answer a ping before the link counts as dead. Defaults to
    /// 10 s.
    pub fn ping_timeout(mut self, timeout: Duration) -> Self {
        self.config.ping_timeout = timeout;
        self
    }

    /// Sets how long opening a transport may take, the callback of [`Options::before_connect`] and all steps
    /// together ([`Options::step_timeout`] bounds each of them). Defaults to 20 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long the broker may take to answer CONNECT; never longer than the keep-alive. Defaults
    /// to 10 s.
    ///
    /// In an enhanced authentication each step has this time anew, the steps of the [`Authenticator`] too; but
    /// a step of the broker's and the next of ours share one keep-alive, because nothing else may be sent
    /// before CONNACK. An exchange has at most 16 challenges.
    pub fn connack_timeout(mut self, timeout: Duration) -> Self {
        self.config.connack_timeout = timeout;
        self
    }

    /// Sets how long a wait lasts at most, unless its call says otherwise. Defaults to 30 s.
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.wait_timeout = timeout;
        self
    }

    /// Sets how long `disconnect()` waits for what is not acknowledged. Defaults to 5 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Sets how long a received message may stay untaken before it is acknowledged all the same, so
    /// that one unread stream cannot stop the link. Defaults to 5 s.
    pub fn take_timeout(mut self, timeout: Duration) -> Self {
        self.config.take_timeout = timeout;
        self
    }

    /// Sets how many QoS 1 and 2 messages may be under way at a time, 1 to 65,000; an MQTT 5 broker may
    /// lower it. Defaults to 1,024.
    ///
    /// Before MQTT 5 a broker cannot announce its bound, so at most 20 of them are QoS 2: mosquitto takes no
    /// more unless it is configured otherwise, drops what is beyond, and acknowledges it all the same.
    pub fn window(mut self, messages: u16) -> Self {
        // A round number below the 65,535 identifiers less those that are for SUBSCRIBE and UNSUBSCRIBE.
        self.config.window = messages.clamp(1, 65_000);
        self
    }

    /// Sets how many QoS 1 and 2 messages the broker may send before they are acknowledged, at least 1;
    /// MQTT 5 only. A broker that sends more is disconnected once, and told of no bound from then on.
    ///
    /// Defaults to 65,535, which is not announced: then the broker's own window holds. Mosquitto widens its
    /// window of 20 to what is announced here, and forgets beyond 20 what it had released when it restarts:
    /// then QoS 2 messages would arrive twice.
    pub fn receive_maximum(mut self, messages: u16) -> Self {
        self.config.receive_maximum = messages.max(1);
        self
    }

    /// Sets the largest packet that is accepted from the broker, in bytes. On MQTT 5 the broker is told
    /// and drops what is larger; before, a larger message is skipped, acknowledged, and an event.
    /// Defaults to 1 MiB; at least 64 bytes.
    pub fn inbound_limit(mut self, bytes: usize) -> Self {
        self.config.inbound_limit = bytes.max(64);
        self
    }

    /// Sets the highest topic alias that the broker may use for what it sends; MQTT 5 only. Defaults to 16.
    pub fn topic_alias_maximum(mut self, aliases: u16) -> Self {
        self.config.topic_alias_maximum = aliases;
        self
    }

    /// Sets how many topic aliases are used for published messages, at most; MQTT 5 only. 0 for none. The
    /// broker may allow fewer, and allows none unless it says so. Defaults to 64.
    ///
    /// A topic that is sent again and again on a connection is then sent as two bytes. Which topics get an
    /// alias is found by itself; a [`Properties::topic_alias`] of a message is never sent.
    pub fn topic_aliases(mut self, aliases: u16) -> Self {
        self.config.topic_aliases = aliases;
        self
    }

    /// Sets the bound of each of the two queues of outgoing messages (QoS 0; QoS 1 and 2), in bytes. A
    /// message counts its topic, its payload and 64 bytes; QoS 1 and 2 count until they are
    /// acknowledged. Defaults to 1 MiB.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.config.queue_bytes = bytes.max(1);
        self
    }

    /// Sets what becomes of a QoS 1 or 2 message for which the queue has no room. Defaults to
    /// [`WhenFull::Fail`].
    pub fn when_full(mut self, policy: WhenFull) -> Self {
        self.config.when_full = policy;
        self
    }

    /// Sets what becomes of a QoS 0 message for which the queue has no room. Defaults to
    /// [`WhenFull::Fail`].
    ///
    /// A thermometer that goes on measuring without a link, and wants its last readings sent when the
    /// link is back:
    ///
    /// ```
    /// # use coracle::{Options, WhenFull};
    /// # fn main() -> coracle::Result<()> {
    /// let options = Options::new("mqtt://localhost", "thermometer-7")?
    ///     .queue_bytes(64 * 1024)
    ///     .when_full_qos0(WhenFull::DropOldest);
    /// # let _ = options; Ok(()) }
    /// ```
    pub fn when_full_qos0(mut self, policy: WhenFull) -> Self {
        self.config.when_full_qos0 = policy;
        self
    }

    /// Sets the bound of each stream's queue of untaken messages, in bytes. Defaults to 1 MiB.
    pub fn stream_bytes(mut self, bytes: usize) -> Self {
        self.stream_bytes = bytes;
        self
    }

    /// Sets the highest QoS that may be published and subscribed to, for clouds that close on a higher
    /// one. A publish above it is a misuse; a subscribe asks for this much. Defaults to QoS 2.
    pub fn maximum_qos(mut self, qos: Qos) -> Self {
        self.maximum_qos = qos;
        self
    }

    /// Sets whether retained messages may be published, for clouds that close on one. Defaults to true.
    pub fn allow_retain(mut self, allow: bool) -> Self {
        self.retain = allow;
        self
    }

    /// Sets whether filters get subscription identifiers by themselves, if the broker knows them; MQTT 5
    /// only. Defaults to true.
    ///
    /// A message then says for which subscriptions it is: it finds its streams without a look at its topic,
    /// and a broker that sends a copy for each of several overlapping subscriptions reaches each stream
    /// once. The numbers are from 16,384 on and stand among the properties of a message. Switch it off for
    /// a broker that sends one copy without all of its identifiers, against [MQTT-3.3.4-4]:
    /// mosquitto does if its `allow_duplicate_messages` is set to false.
    pub fn subscription_identifiers(mut self, automatic: bool) -> Self {
        self.identifiers = automatic;
        self
    }

    /// Sets whether QoS 0 messages are kept while there is no link, or fail with
    /// [`ErrorKind::LinkLost`](crate::ErrorKind::LinkLost): the call itself while there is no link, and
    /// when the link is lost whatever waits to be sent. Defaults to keeping them, within the bound of
    /// [`Options::queue_bytes`] and until they expire.
    ///
    /// What had been handed to the system is not sent again in either case.
    pub fn keep_qos0_offline(mut self, keep: bool) -> Self {
        self.config.keep_qos0_offline = keep;
        self
    }

    /// Sets whether a QoS 2 message that may have arrived is published again when the broker lost the
    /// session, at the risk that it arrives twice. Defaults to false: its wait ends with an error.
    pub fn republish_after_session_loss(mut self, republish: bool) -> Self {
        self.config.republish = republish;
        self
    }

    /// Sets the user name and the password; the password may be any bytes. Defaults to none.
    pub fn credentials(mut self, user_name: &str, password: impl Into<Vec<u8>>) -> Self {
        self.credentials.user_name = Some(user_name.into());
        self.credentials.password = Some(password.into());
        self
    }

    /// Sets the user name alone. Defaults to none.
    pub fn user_name(mut self, user_name: &str) -> Self {
        self.credentials.user_name = Some(user_name.into());
        self
    }

    /// Sets what the broker publishes when this client vanishes. Its properties, the delay among them,
    /// are those of the message. Defaults to none. With a will that MQTT cannot express the driver refuses
    /// to run.
    pub fn will(mut self, will: Message) -> Self {
        self.credentials.will = Some(will);
        self
    }

    /// Sets further properties of CONNECT, user properties above all; MQTT 5 only. What other options
    /// set replaces what is in here. With one that CONNECT cannot have the driver refuses to run.
    pub fn properties(mut self, properties: Properties) -> Self {
        self.config.properties = properties;
        self
    }

    /// Sets the delays between attempts: each is random, up to a bound that begins at `first` and doubles
    /// to `longest`, which is at least `first`. Defaults to 1 s and 60 s. With a `first` of zero the first
    /// attempt follows at once, and unless `longest` is zero too the bound then doubles from 2 ms on.
    pub fn retry_delays(mut self, first: Duration, longest: Duration) -> Self {
        self.retry.first = first;
        self.retry.longest = longest.max(first);
        self
    }

    /// Sets how long a link has to hold before the delays start over, so that a broker that accepts and
    /// then kicks is not flooded. Defaults to 10 s.
    pub fn stable_after(mut self, stable: Duration) -> Self {
        self.retry.stable = stable;
        self
    }

    /// Sets when the driver gives up instead of trying again: `decide` gets the error and how many
    /// attempts in a row have failed, 0 for a connection that was lost. Defaults to never.
    ///
    /// Of several ways it is asked when all have failed: with the last error, or with the first one that may
    /// heal by itself if the last one cannot.
    ///
    /// ```
    /// # use coracle::Options;
    /// # fn main() -> coracle::Result<()> {
    /// let options = Options::new("mqtt://localhost", "pump-1")?
    ///     .give_up_when(|error, failed| error.is_permanent() || failed >= 5);
    /// # let _ = options; Ok(()) }
    /// ```
    pub fn give_up_when(mut self, decide: impl Fn(&Error, u32) -> bool + 'static) -> Self {
        self.give_up = Some(Rc::new(decide));
        self
    }

    /// Sets a callback that is asked before each attempt, so also for each endpoint and each rung of a ladder,
    /// for fresh credentials, will and endpoint. It gets what these options say. If it fails, the attempt has
    /// failed; its time counts to [`Options::connect_timeout`].
    ///
    /// ```
    /// # use coracle::Options;
    /// # fn main() -> coracle::Result<()> {
    /// let options = Options::new("mqtt://localhost", "pump-1")?.before_connect(|attempt| {
    ///     Box::pin(async move { Ok(attempt.credentials("pump", "token of this minute")) })
    /// });
    /// # let _ = options; Ok(()) }
    /// ```
    pub fn before_connect(
        mut self,
        callback: impl Fn(Attempt) -> LocalBoxFuture<Result<Attempt>> + 'static,
    ) -> Self {
        self.before_connect = Some(Rc::new(callback));
        self
    }

    /// Sets who authenticates this client by the enhanced authentication of MQTT 5: at each CONNECT, and
    /// again on the live connection (see [`Authenticator`]). Defaults to nobody.
    ///
    /// User name and password are sent too, if they are set. With an older version of MQTT the driver
    /// refuses to run.
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticator = Some(Rc::new(authenticator));
        self
    }

    /// Sets whether other packets to the broker wait while it authenticates this client again: messages,
    /// requests, acknowledgements and pings. What it sends is taken all the same. Defaults to true.
    ///
    /// The standard lets them go on. Mosquitto, at least up to 2.0, calls each of them a protocol error and
    /// ends the connection. The wait is one round trip, or as many as the method has, and what the
    /// [`Authenticator`] takes for its answers. As pings wait too, the connection is given up when the broker's
    /// next step and our answer to it take longer than the keep-alive together.
    ///
    /// One delay is the broker's: a message that mosquitto, at least up to 2.1, gets for this client in the
    /// middle of the exchange comes only when mosquitto next has something for it.
    pub fn quiet_renewal(mut self, quiet: bool) -> Self {
        self.config.quiet_renewal = quiet;
        self
    }

    /// Sets what the topic begins with on which the answers to this client's requests come:
    /// `PREFIX/CLIENT`, with the client identifier as its last level. No other client should be allowed to
    /// subscribe there.
    ///
    /// Before MQTT 5 a request has no place for it, so whoever serves it needs the same setting. With a prefix
    /// that is no topic name, or that begins a shared subscription, the driver refuses to run.
    ///
    /// Defaults to the Response Information of the broker, which an MQTT 5 broker may give when
    /// [`Options::properties`] ask for it, and without it to `coracle/response`.
    pub fn response_prefix(mut self, prefix: &str) -> Self {
        self.response_prefix = Some(prefix.strip_suffix('/').unwrap_or(prefix).into());
        self
    }

    /// Sets where time comes from. Defaults to the system's monotonic clock; tests bring their own.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Rc::new(clock);
        self
    }

    /// Sets the seed of the random delays, for tests. Defaults to a random one.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The versions to try. Only 5.0 has AUTH: who has an authenticator is not let down to where it counts
    /// for nothing.
    pub(crate) fn spoken(&self) -> Versions {
        match (self.versions, &self.authenticator) {
            (Versions::Auto, Some(_)) => Versions::One(Version::V5_0),
            (versions, _) => versions,
        }
    }

    /// The oldest version that can express our CONNECT.
    pub(crate) fn oldest(&self) -> Version {
        if fits_3_1(&self.config.client_id) {
            Version::V3_1
        } else {
            Version::V3_1_1
        }
    }

    /// The source of what is left to chance.
    pub(crate) fn random(&self) -> fastrand::Rng {
        self.seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed)
    }

    /// Checks the will of these options, or what a callback made of it.
    pub(crate) fn check_will(&self, credentials: &Credentials) -> Result<()> {
        let Some(will) = &credentials.will else {
            return Ok(());
        };
        will.check()?;
        if will.quality_of_service() > self.maximum_qos || (will.is_retained() && !self.retain) {
            return Err(Error::misuse(
                "the options forbid the QoS or the retain of the will",
            ));
        }
        Place::Will.check_from_user(will.property_list())
    }

    /// What can be known to be wrong before the first attempt.
    pub(crate) fn check(&self) -> Result<()> {
        let id = &self.config.client_id;
        match self.config.version {
            Version::V3_1 if !fits_3_1(id) => {
                return Err(Error::misuse(
                    "MQTT 3.1 wants a client id of 1 to 23 characters",
                ));
            }
            Version::V3_1_1 if id.is_empty() && self.config.session != Session::None => {
                return Err(Error::misuse(
                    "without a client id MQTT 3.1.1 keeps no session [MQTT-3.1.3-7]",
                ));
            }
            Version::V3_1 | Version::V3_1_1 | Version::V5_0 => {}
        }
        let password_alone =
            self.credentials.password.is_some() && self.credentials.user_name.is_none();
        if self.config.version != Version::V5_0 && password_alone {
            return Err(Error::misuse(
                "a password needs a user name [MQTT-3.1.2-22]",
            ));
        }
        if self.authenticator.is_some() && self.config.version != Version::V5_0 {
            return Err(Error::misuse("an authenticator needs MQTT 5"));
        }
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &self.network.proxy {
            proxy.check()?;
        }
        if let Some(prefix) = &self.response_prefix {
            check_topic(prefix).map_err(|error| error.while_doing(Doing::Configuring))?;
            if topic::is_shared(prefix) {
                return Err(Error::misuse(
                    "answers cannot come by a shared subscription",
                ));
            }
        }
        self.check_storage()?;
        self.check_will(&self.credentials)?;
        self.config.properties.check().map_err(Error::property)?;
        Place::Connect.check_from_user(self.config.properties.list())
    }
}

impl fmt::Debug for Options {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("places", &self.places)
            .field("network", &self.network)
            .field("config", &self.config)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}
