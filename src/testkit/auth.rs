//! Enhanced authentication (MQTT 5, section 4.12): a fixed list of challenges, any answer goes.

use std::rc::Rc;
use std::time::Instant;

use crate::codec::{Auth, Connect, Frame, Packet, Split, decode, split};
use crate::error::Violation;
use crate::properties::Properties;
use crate::reason::Reason;
use crate::version::Version;

use super::broker::{Broker, LinkId};
use super::link::Phase;

/// An authentication that CONNECT began and that is not finished.
#[derive(Debug)]
pub(super) struct Dialogue {
    /// The CONNECT, to be accepted after the last challenge.
    connect: Vec<u8>,
    /// Challenges sent.
    sent: usize,
}

/// How a connected client has authenticated.
#[derive(Debug)]
pub(super) struct Login {
    method: Rc<str>,
    /// Challenges sent of the re-authentication that is going on.
    again: Option<usize>,
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
        if self.challenge(id, now, 0) {
            if let Some(link) = self.links.get_mut(&id) {
                link.phase = Phase::Authenticating(Dialogue {
                    connect: whole.to_vec(),
                    sent: 1,
                });
            }
        } else {
            self.accept(id, now, connect, self.method());
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
        let method = self.method();
        let goes_on = |auth: &Auth<'_>| {
            auth.reason == Reason::CONTINUE_AUTHENTICATION
                && auth.properties.authentication_method() == method.list().authentication_method()
        };
        let Packet::Auth(auth) = packet else {
            return Err(Violation::protocol(
                "MQTT-3.1.2-30",
                "only AUTH and DISCONNECT may stand before CONNACK",
            ));
        };
        if !goes_on(&auth) {
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
        let sent = dialogue.sent;
        dialogue.sent += 1;
        if self.challenge(id, now, sent) {
            return Ok(());
        }
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        let phase = std::mem::replace(&mut link.phase, Phase::Greeting);
        if let Phase::Authenticating(dialogue) = phase
            && let Split::Whole { frame, .. } = split(&dialogue.connect)?
            && let Packet::Connect(connect) = decode(Version::V5_0, frame)?
        {
            self.accept(id, now, connect, method);
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
        let Some(login) = login else {
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
        let sent = match (auth.reason, login.again) {
            (Reason::RE_AUTHENTICATE, None) => 0,
            (Reason::CONTINUE_AUTHENTICATION, Some(sent)) => sent,
            (_, _) => {
                return Err(Violation::protocol(
                    "MQTT5 4.12.1",
                    "AUTH has a reason that does not fit here",
                ));
            }
        };
        login.again = Some(sent + 1);
        if self.challenge(id, now, sent) {
            return Ok(());
        }
        let connection = self
            .links
            .get_mut(&id)
            .and_then(|link| link.connection_mut());
        if let Some(login) = connection.and_then(|connection| connection.login.as_mut()) {
            login.again = None;
        }
        let properties = self.method();
        let done = Packet::Auth(Auth {
            reason: Reason::SUCCESS,
            properties: properties.list(),
        });
        self.answer_packet(id, now, Version::V5_0, done);
        Ok(())
    }

    /// Sends the challenge of this number; says whether there is one.
    fn challenge(&mut self, id: LinkId, now: Instant, number: usize) -> bool {
        let offered = self.options.authentication.as_ref();
        let data = offered.and_then(|offered| offered.challenges.get(number));
        let Some(data) = data.map(Rc::clone) else {
            return false;
        };
        let properties = self.method().authentication_data(&data);
        let auth = Packet::Auth(Auth {
            reason: Reason::CONTINUE_AUTHENTICATION,
            properties: properties.list(),
        });
        self.answer_packet(id, now, Version::V5_0, auth);
        true
    }

    /// The method, which every AUTH and the CONNACK repeat [MQTT-4.12.0-5].
    fn method(&self) -> Properties {
        match &self.options.authentication {
            Some(offered) => Properties::new().authentication_method(&offered.method),
            None => Properties::new(),
        }
    }
}
