//! Enhanced authentication (MQTT 5, section 4.12), played by a closure for each exchange.

use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use crate::codec::{Auth, Connect, Disconnect, Frame, Packet, Split, decode, split};
use crate::error::Violation;
use crate::properties::{Properties, PropertyList};
use crate::reason::Reason;
use crate::version::Version;

use super::broker::{Broker, LinkId};
use super::link::Phase;

/// What the broker answers in an enhanced authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "an exchange goes on, or ends well or badly"
)]
pub enum AuthReply {
    /// AUTH 0x18 with this data: it goes on.
    Challenge(Vec<u8>),
    /// CONNACK, or AUTH 0x00 at a re-authentication, with this data; without, if it is empty.
    Accept(Vec<u8>),
    /// A refusing CONNACK, or DISCONNECT at a re-authentication, with this reason.
    Refuse(Reason),
}

/// One exchange: gets the data of each step of the client, empty if there is none.
type Play = Box<dyn FnMut(&[u8]) -> AuthReply>;

/// An enhanced authentication on offer.
#[derive(Clone)]
pub(super) struct Authentication {
    pub(super) method: Rc<str>,
    begin: Rc<dyn Fn() -> Play>,
}

impl Authentication {
    /// Each exchange is played by what `begin` returns.
    pub(super) fn new<P>(method: &str, begin: impl Fn() -> P + 'static) -> Self
    where
        P: FnMut(&[u8]) -> AuthReply + 'static,
    {
        Self {
            method: method.into(),
            begin: Rc::new(move || Box::new(begin())),
        }
    }

    /// One AUTH per challenge, whatever the client answers.
    pub(super) fn of(method: &str, challenges: Vec<Vec<u8>>) -> Self {
        Self::new(method, move || {
            let mut challenges = challenges.clone().into_iter();
            move |_: &[u8]| match challenges.next() {
                Some(challenge) => AuthReply::Challenge(challenge),
                None => AuthReply::Accept(Vec::new()),
            }
        })
    }
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// An authentication that CONNECT began and that is not finished.
pub(super) struct Dialogue {
    /// The CONNECT, to be accepted after the last challenge.
    connect: Vec<u8>,
    play: Play,
}

impl fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialogue").finish_non_exhaustive()
    }
}

/// How a connected client has authenticated.
pub(super) struct Login {
    method: Rc<str>,
    /// The re-authentication that is going on.
    again: Option<Play>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("method", &self.method)
            .field("again", &self.again.is_some())
            .finish()
    }
}

impl Login {
    pub(super) fn new(method: &str) -> Self {
        Self {
            method: method.into(),
            again: None,
        }
    }
}

impl Broker {
    /// CONNECT has named the method that the broker offers.
    pub(super) fn begin_login(
        &mut self,
        id: LinkId,
        now: Instant,
        connect: Connect<'_>,
        whole: &[u8],
    ) {
        let Some(offered) = &self.options.authentication else {
            return;
        };
        let mut play = (offered.begin)();
        match play(connect.properties.authentication_data().unwrap_or_default()) {
            AuthReply::Challenge(data) => {
                self.challenge(id, now, &data);
                if let Some(link) = self.links.get_mut(&id) {
                    link.phase = Phase::Authenticating(Dialogue {
                        connect: whole.to_vec(),
                        play,
                    });
                }
            }
            AuthReply::Accept(data) => self.accept(id, now, connect, self.success(&data)),
            AuthReply::Refuse(reason) => self.refuse_connect(id, now, connect.version, reason),
        }
    }

    /// A packet has come in the middle of the first authentication.
    pub(super) fn handle_login(
        &mut self,
        id: LinkId,
        now: Instant,
        frame: Frame<'_>,
    ) -> Result<(), Violation> {
        let packet = decode(Version::V5_0, frame)?;
        if let Packet::Disconnect(_) = packet {
            self.lost.push(id);
            return Ok(());
        }
        let Packet::Auth(auth) = packet else {
            return Err(Violation::protocol(
                "MQTT-3.1.2-30",
                "only AUTH and DISCONNECT may stand before CONNACK",
            ));
        };
        let method = self.method();
        if auth.reason != Reason::CONTINUE_AUTHENTICATION
            || auth.properties.authentication_method() != method.list().authentication_method()
        {
            return Err(Violation::protocol(
                "MQTT-4.12.0-3",
                "AUTH does not go on with the authentication",
            ));
        }
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        let Phase::Authenticating(dialogue) = &mut link.phase else {
            return Ok(());
        };
        let data = match (dialogue.play)(auth.properties.authentication_data().unwrap_or_default())
        {
            AuthReply::Challenge(data) => {
                self.challenge(id, now, &data);
                return Ok(());
            }
            AuthReply::Accept(data) => data,
            AuthReply::Refuse(reason) => {
                self.refuse_connect(id, now, Version::V5_0, reason);
                return Ok(());
            }
        };
        let phase = std::mem::replace(&mut link.phase, Phase::Greeting);
        if let Phase::Authenticating(dialogue) = phase
            && let Split::Whole { frame, .. } = split(&dialogue.connect)?
            && let Packet::Connect(connect) = decode(Version::V5_0, frame)?
        {
            self.accept(id, now, connect, self.success(&data));
        }
        Ok(())
    }

    /// A connected client has sent AUTH.
    pub(super) fn handle_reauthentication(
        &mut self,
        id: LinkId,
        now: Instant,
        auth: Auth<'_>,
    ) -> Result<(), Violation> {
        let connection = self
            .links
            .get_mut(&id)
            .and_then(|link| link.connection_mut());
        let login = connection.and_then(|connection| connection.login.as_mut());
        let (Some(login), Some(offered)) = (login, &self.options.authentication) else {
            return Err(Violation::protocol(
                "MQTT-4.12.0-7",
                "AUTH on a connection that began without a method",
            ));
        };
        if auth.properties.authentication_method() != Some(&login.method) {
            return Err(Violation::protocol(
                "MQTT-4.12.1-1",
                "the method of a re-authentication is another one",
            ));
        }
        let mut play = match (auth.reason, login.again.take()) {
            (Reason::RE_AUTHENTICATE, None) => (offered.begin)(),
            (Reason::CONTINUE_AUTHENTICATION, Some(play)) => play,
            (_, _) => {
                return Err(Violation::protocol(
                    "MQTT5 4.12.1",
                    "AUTH has a reason that does not fit here",
                ));
            }
        };
        match play(auth.properties.authentication_data().unwrap_or_default()) {
            AuthReply::Challenge(data) => {
                login.again = Some(play);
                self.challenge(id, now, &data);
            }
            AuthReply::Accept(data) => {
                let properties = self.success(&data);
                let done = Packet::Auth(Auth {
                    reason: Reason::SUCCESS,
                    properties: properties.list(),
                });
                self.answer_packet(id, now, Version::V5_0, done);
            }
            AuthReply::Refuse(reason) => {
                // [MQTT-4.12.1-2]
                let goodbye = Packet::Disconnect(Disconnect {
                    reason,
                    properties: PropertyList::EMPTY,
                });
                self.answer_packet(id, now, Version::V5_0, goodbye);
                self.lost.push(id);
            }
        }
        Ok(())
    }

    fn challenge(&mut self, id: LinkId, now: Instant, data: &[u8]) {
        let properties = self.method().authentication_data(data);
        let auth = Packet::Auth(Auth {
            reason: Reason::CONTINUE_AUTHENTICATION,
            properties: properties.list(),
        });
        self.answer_packet(id, now, Version::V5_0, auth);
    }

    /// The method and the final data.
    fn success(&self, data: &[u8]) -> Properties {
        let method = self.method();
        if data.is_empty() {
            return method;
        }
        method.authentication_data(data)
    }

    /// The method, which every AUTH and the CONNACK repeat [MQTT-4.12.0-5].
    fn method(&self) -> Properties {
        match &self.options.authentication {
            Some(offered) => Properties::new().authentication_method(&offered.method),
            None => Properties::new(),
        }
    }
}
