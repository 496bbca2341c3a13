//! Opening a session: which CONNECT to send, and what its CONNACK means (MQTT 5, sections 3.1, 3.2).
//!
//! The machine lives as long as the client: it knows what the broker may hold of us.
//!
//! ```text
//!               CONNECT, keep                     CONNACK
//!     Unknown ───────────────── no session present ─────────────────────────────► Ours
//!        │                   └─ session present ── 5.0: DISCONNECT that ends it ──► Ended
//!        │                                      └─ 3.1.1: DISCONNECT ──► Leftover
//!        │ 3.1: there is no such flag ─────────────────────────► Leftover
//!                                                                   │ CONNECT, clean
//!                                                                   ▼ CONNACK, DISCONNECT
//!                            CONNACK              CONNECT, keep   Wiped
//!                   Ours ◄──────────────── Begun ◄──────────────────┘
//!
//!     Ended ── CONNECT, keep ── no session present ──► Ours
//!                            └─ it is still there: DISCONNECT ──► Leftover
//!
//!           CONNECT, keep                CONNACK
//!     Ours ───────────────► Doubtful ──────────────► Ours
//! ```
//!
//! A session that is to outlive its connection is never opened clean (situation 1). Before 5.0 it would
//! end with the connection. In 5.0 it would not, but mosquitto up to 2.1 writes only those sessions to
//! its disk that were opened without Clean Start: a restart of the broker would cost all messages on
//! their way. So leftovers of an earlier process are found by the session present flag, and ended first.
//!
//! A CONNECT whose CONNACK never comes leaves a doubt: a broker that had lost the session has begun
//! another one then, which the next CONNACK calls present. Exchanges go on, as nothing better is known,
//! and subscriptions are made again, because otherwise they could be missing for ever.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::auth::Authentication;
use super::limits::Limits;
use super::outbox::Outbox;
use super::record::Identity;
use super::{Config, Login, SessionMode};
use crate::codec::connect::fits_3_1;
use crate::codec::{Connack, Connect, Disconnect, Packet, Place, Will};
use crate::error::{Doing, Error, ErrorKind, Violation};
use crate::message::Message;
use crate::properties::{Properties, Property, PropertyList, short_text};
use crate::reason::Reason;
use crate::version::Version;

/// What is sent with CONNECT and may differ at each attempt.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The user name.
    pub user_name: Option<String>,
    /// The password: any bytes.
    pub password: Option<Vec<u8>>,
    /// What the broker publishes if this connection dies, its delay among the properties.
    pub will: Option<Message>,
}

impl std::fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user_name", &self.user_name)
            .field("password", &self.password.as_ref().map(|_| "..."))
            .field("will", &self.will)
            .finish()
    }
}

/// What the broker may hold under our client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtBroker {
    /// Perhaps a session of an earlier process.
    Unknown,
    /// Perhaps still the session of an earlier process that a DISCONNECT of ours was to end.
    Ended,
    /// A session of an earlier process, to be wiped.
    Leftover,
    /// Nothing: it was wiped.
    Wiped,
    /// At most a session that an attempt of ours began whose CONNACK never came.
    Begun,
    /// The session of this client, unless the broker lost it.
    Ours,
    /// The session of this client, or one that an attempt whose CONNACK never came began in its place.
    Doubtful,
}

/// What the CONNECT that is under way is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    /// To work with: session state may be there.
    Keep,
    /// To work with: the broker starts with nothing.
    Clean,
    /// To discard what an earlier process left, and leave again.
    Wipe,
}

/// How the session goes on after CONNACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// The broker still has it: unfinished exchanges go on.
    Present,
    /// The broker does not have it: everything starts anew.
    Lost,
    /// Perhaps the broker still has it: 3.1 does not say so, or an earlier CONNACK never came. Exchanges go
    /// on, and subscriptions are made again to be sure.
    Untold,
}

/// What a good CONNACK means.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The connection is open.
    Open(Continuity, Limits),
    /// Leave, and connect again at once: this connection was for wiping, or showed that one is needed.
    Again,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Opening {
    at_broker: AtBroker,
    /// The identifier that the broker assigned to a client without one.
    assigned: Option<Rc<str>>,
    /// Both, as the last broker has them, while another one is tried that has not answered.
    held_before: Option<(AtBroker, Option<Rc<str>>)>,
}

/// The CONNECT that is under way.
#[derive(Debug)]
pub(super) struct Handshake {
    errand: Errand,
    /// What the broker held before it got this CONNECT.
    at_broker: AtBroker,
    /// When CONNECT was sent.
    sent: Instant,
    /// None if the patience has no end.
    deadline: Option<Instant>,
    patience: Duration,
    /// The authentication that CONNECT began; then it watches the time.
    pub(super) auth: Option<Box<Authentication>>,
}

impl Opening {
    /// A client of which the broker may know from an earlier process.
    pub(super) fn new() -> Self {
        Self {
            at_broker: AtBroker::Unknown,
            assigned: None,
            held_before: None,
        }
    }

    /// The client identifier in use.
    pub(super) fn client_id<'a>(&'a self, config: &'a Config) -> &'a str {
        self.assigned.as_deref().unwrap_or(&config.client_id)
    }

    /// The next connection leads to a broker that does not share sessions with the last one.
    pub(super) fn forget(&mut self, mode: SessionMode) {
        let held = (self.at_broker, self.assigned.take());
        // Once more without an answer between: what is left is what the broker before both has.
        self.held_before.get_or_insert(held);
        self.at_broker = match mode {
            SessionMode::Fresh | SessionMode::None => AtBroker::Unknown,
            // Whatever is there is not the session to go on with.
            SessionMode::Resume => AtBroker::Leftover,
        };
    }

    /// The next connection speaks another version.
    pub(super) fn version_changed(&mut self, mode: SessionMode) {
        match self.at_broker {
            // No version has worked: what an earlier process left is as it was, and it is not known in which.
            AtBroker::Unknown => {}
            AtBroker::Ended
            | AtBroker::Leftover
            | AtBroker::Wiped
            | AtBroker::Begun
            | AtBroker::Ours
            | AtBroker::Doubtful => self.forget(mode),
        }
    }

    /// The session of an earlier process is none to go on with, wherever the next connection leads.
    pub(super) fn disown(&mut self, mode: SessionMode) {
        self.forget(mode);
        self.held_before = None;
    }

    /// The broker that was tried did not let us in: what the last one holds counts again.
    pub(super) fn remember(&mut self) {
        if let Some((at_broker, assigned)) = self.held_before.take() {
            self.at_broker = at_broker;
            self.assigned = assigned;
        }
    }

    /// Whether another broker is tried that has not answered, while the last one holds the session.
    pub(super) fn is_away(&self) -> bool {
        self.held_before.is_some()
    }

    /// Sends CONNECT, the first packet of the connection [MQTT-3.1.0-1].
    ///
    /// # Errors
    /// The credentials, the will or the first step of the authentication cannot be expressed.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        config: &Config,
        credentials: &Credentials,
        login: Option<&Login>,
        out: &mut Outbox,
    ) -> Result<Handshake, Error> {
        check(config, self.client_id(config), credentials, login)?;
        let errand = self.errand(config);
        let clean = errand != Errand::Keep;
        let properties = match (config.version, errand) {
            (Version::V5_0, Errand::Keep | Errand::Clean) => config.connect_properties(),
            // Without an expiry interval the session ends with this connection [MQTT-3.1.2-23].
            (Version::V5_0, Errand::Wipe) => config
                .properties
                .clone()
                .without(Property::SessionExpiryInterval(0).id()),
            (Version::V3_1 | Version::V3_1_1, _) => Properties::new(),
        };
        let properties = match login {
            Some(login) => login
                .add_to(properties)
                .map_err(|error| error.while_doing(Doing::Connecting))?,
            None => properties,
        };
        // A connection that only wipes must not leave a will behind.
        let will = credentials.will.as_ref().filter(|_| errand != Errand::Wipe);
        out.send(&Packet::Connect(Connect {
            version: config.version,
            clean,
            keep_alive: config.keep_alive,
            client_id: self.client_id(config),
            will: will.map(|will| Will {
                qos: will.quality_of_service(),
                retain: will.is_retained(),
                topic: will.topic(),
                payload: will.payload(),
                properties: match config.version {
                    Version::V5_0 => will.property_list(),
                    Version::V3_1 | Version::V3_1_1 => PropertyList::EMPTY,
                },
            }),
            user_name: credentials.user_name.as_deref(),
            password: credentials.password.as_deref(),
            properties: properties.list(),
        }))
        .map_err(|error| error.while_doing(Doing::Connecting))?;
        let at_broker = self.at_broker;
        self.at_broker = match at_broker {
            AtBroker::Wiped | AtBroker::Begun => AtBroker::Begun,
            AtBroker::Ours | AtBroker::Doubtful => AtBroker::Doubtful,
            AtBroker::Unknown | AtBroker::Ended | AtBroker::Leftover => at_broker,
        };
        // Nothing may follow CONNECT yet, so a longer wait would break the keep-alive [MQTT-3.1.2-23 of
        // 3.1.1].
        let patience = match config.keep_alive {
            0 => config.connack_timeout,
            seconds => config
                .connack_timeout
                .min(Duration::from_secs(seconds.into())),
        };
        Ok(Handshake {
            errand,
            at_broker,
            sent: now,
            deadline: now.checked_add(patience),
            patience,
            auth: login.map(|login| Box::new(Authentication::new(login, config, patience, now))),
        })
    }

    fn errand(&self, config: &Config) -> Errand {
        if !has_session(config) {
            return Errand::Clean;
        }
        match (self.at_broker, config.version) {
            (AtBroker::Ours | AtBroker::Doubtful | AtBroker::Wiped | AtBroker::Begun, _) => {
                Errand::Keep
            }
            (AtBroker::Unknown, _) if config.session == SessionMode::Resume => Errand::Keep,
            // Under an identifier that the broker is yet to choose, it holds nothing.
            (AtBroker::Unknown, Version::V5_0) if self.client_id(config).is_empty() => {
                Errand::Clean
            }
            // It may be that there is nothing to wipe.
            (AtBroker::Unknown | AtBroker::Ended, Version::V3_1_1 | Version::V5_0) => Errand::Keep,
            (AtBroker::Leftover, Version::V3_1_1 | Version::V5_0) | (_, Version::V3_1) => {
                Errand::Wipe
            }
        }
    }

    /// CONNACK arrived.
    ///
    /// # Errors
    /// The broker refused, or claims a session that cannot be [MQTT-3.2.2-4].
    pub(super) fn handle_connack(
        &mut self,
        handshake: &Handshake,
        connack: &Connack<'_>,
        config: &Config,
        out: &mut Outbox,
    ) -> Result<Verdict, Error> {
        if connack.reason != Reason::SUCCESS {
            // It has not touched the session.
            self.at_broker = handshake.at_broker;
            return Err(refused(connack));
        }
        let present = connack.session_present;
        let continuity = match (handshake.errand, handshake.at_broker) {
            (Errand::Wipe, _) => {
                self.at_broker = AtBroker::Wiped;
                leave(PropertyList::EMPTY, out);
                return Ok(Verdict::Again);
            }
            (Errand::Clean, _) | (Errand::Keep, AtBroker::Wiped) if present => {
                return Err(unexpected_session());
            }
            (Errand::Keep, AtBroker::Unknown | AtBroker::Ended | AtBroker::Leftover)
                if present && config.session == SessionMode::Fresh =>
            {
                self.end_leftover(handshake.at_broker, config, out);
                return Ok(Verdict::Again);
            }
            // If one is present, it is what an attempt began, and holds nothing.
            (Errand::Clean, _) | (Errand::Keep, AtBroker::Wiped | AtBroker::Begun) => {
                Continuity::Lost
            }
            (Errand::Keep, _) if config.version == Version::V3_1 => Continuity::Untold,
            (Errand::Keep, _) if !present => Continuity::Lost,
            (Errand::Keep, AtBroker::Doubtful) => Continuity::Untold,
            (
                Errand::Keep,
                AtBroker::Ours | AtBroker::Unknown | AtBroker::Ended | AtBroker::Leftover,
            ) => Continuity::Present,
        };
        // Not before: a connection that only wipes is none to work with, and the broker may be gone at the
        // next one.
        self.held_before = None;
        if has_session(config) {
            self.at_broker = AtBroker::Ours;
        }
        match connack.properties.assigned_client_identifier() {
            // Only a client without an identifier is given one.
            Some(id) if config.client_id.is_empty() => self.assigned = Some(Rc::from(id)),
            Some(_) | None => {}
        }
        Ok(Verdict::Open(
            continuity,
            Limits::new(connack.properties, config),
        ))
    }

    /// The broker has a session of an earlier process: tells it to end it, where the version can, and
    /// leaves.
    fn end_leftover(&mut self, at_broker: AtBroker, config: &Config, out: &mut Outbox) {
        let ends = Properties::new().session_expiry_interval(0);
        match (at_broker, config.version) {
            (AtBroker::Unknown, Version::V5_0) if leave(ends.list(), out) => {
                self.at_broker = AtBroker::Ended;
            }
            (_, Version::V3_1 | Version::V3_1_1 | Version::V5_0) => {
                self.at_broker = AtBroker::Leftover;
                leave(PropertyList::EMPTY, out);
            }
        }
    }

    /// What a store has to say of the session, at this place.
    pub(super) fn identity(&self, config: &Config, place: &str) -> Identity {
        Identity {
            at_broker: match self.at_broker {
                AtBroker::Ours | AtBroker::Doubtful => true,
                AtBroker::Unknown
                | AtBroker::Ended
                | AtBroker::Leftover
                | AtBroker::Wiped
                | AtBroker::Begun => false,
            },
            version: config.version,
            client_id: config.client_id.clone(),
            assigned: self.assigned.as_deref().map(Into::into),
            place: place.into(),
        }
    }

    /// The store says this of the session, and it is that of this client.
    pub(super) fn restore(&mut self, identity: &Identity) {
        self.assigned = identity.assigned.as_deref().map(Rc::from);
        if identity.at_broker {
            self.at_broker = AtBroker::Ours;
        }
    }

    /// A DISCONNECT that ends the session at the broker was sent.
    pub(super) fn handle_session_ended(&mut self) {
        self.at_broker = AtBroker::Unknown;
    }
}

impl Handshake {
    /// When CONNECT was sent.
    pub(super) fn sent(&self) -> Instant {
        self.sent
    }

    /// When CONNACK, or the next step of an authentication, has to be there.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if let Some(auth) = &self.auth {
            return auth.poll_timeout();
        }
        self.deadline
    }

    /// Time has passed.
    ///
    /// # Errors
    /// It did not come in time.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) -> Result<(), Error> {
        if let Some(auth) = &mut self.auth {
            return auth.handle_timeout(now, out);
        }
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TimedOut(self.patience),
            Doing::Connecting,
        ))
    }
}

/// Whether a session may be there that outlives connections, however short its expiry is. In 3.1.1 a client
/// without an identifier cannot have one [MQTT-3.1.3-7 of 3.1.1]; in 5.0 the broker tells the identifier that
/// it assigned.
fn has_session(config: &Config) -> bool {
    match config.session {
        SessionMode::Fresh | SessionMode::Resume => {
            config.version != Version::V3_1_1 || !config.client_id.is_empty()
        }
        SessionMode::None => false,
    }
}

/// What CONNECT cannot express, in any version or in the older ones. Credentials and will may be fresh,
/// so they are looked at for each attempt.
fn check(
    config: &Config,
    client_id: &str,
    credentials: &Credentials,
    login: Option<&Login>,
) -> Result<(), Error> {
    let misuse = |text: &str| {
        Err(Error::new(
            ErrorKind::Misuse(text.into()),
            Doing::Connecting,
        ))
    };
    if let Some(will) = &credentials.will {
        will.check()
            .and_then(|()| Place::Will.check_from_user(will.property_list()))
            .map_err(|error| error.while_doing(Doing::Connecting))?;
    }
    if let Some(user_name) = &credentials.user_name
        && user_name.contains('\0')
    {
        return misuse("the user name holds U+0000 [MQTT-1.5.4-2]");
    }
    match config.version {
        Version::V5_0 => return Ok(()),
        Version::V3_1_1 => {}
        Version::V3_1 if fits_3_1(client_id) => {}
        Version::V3_1 => return misuse("MQTT 3.1 wants a client identifier of 1 to 23 characters"),
    }
    if login.is_some() {
        return misuse("an authenticator needs MQTT 5");
    }
    if credentials.password.is_some() && credentials.user_name.is_none() {
        return misuse("before MQTT 5.0 a password needs a user name");
    }
    Ok(())
}

/// Sends a DISCONNECT. Returns whether it is not above the broker's limit: without properties it never is, as
/// every broker accepts two bytes that was let past its CONNACK.
fn leave(properties: PropertyList<'_>, out: &mut Outbox) -> bool {
    let disconnect = Disconnect {
        reason: Reason::SUCCESS,
        properties,
    };
    out.send(&Packet::Disconnect(disconnect)).is_ok()
}

fn refused(connack: &Connack<'_>) -> Error {
    let text = short_text(connack.properties).map(Into::into);
    Error::new(
        ErrorKind::Refused {
            reason: connack.reason,
            filter: None,
            text,
        },
        Doing::Connecting,
    )
    .with_properties(connack.properties)
}

fn unexpected_session() -> Error {
    let violation = Violation::protocol(
        "MQTT-3.2.2-4",
        "CONNACK claims a session although there is none",
    );
    Error::new(ErrorKind::Protocol(violation), Doing::Connecting)
}
