//! What the application and the authenticator tell the machine of AUTH; see `auth`.

use std::time::{Duration, Instant};

use super::auth::{Authentication, Verified};
use super::{AuthStep, Credentials, Link, Login, Protocol, Token};
use crate::codec::Auth;
use crate::error::{Doing, Error, ErrorKind, Violation};
use crate::properties::PropertyList;
use crate::reason::Reason;

impl Protocol {
    /// The transport is open: sends CONNECT, which begins an enhanced authentication.
    ///
    /// # Errors
    /// As [`Protocol::connect`]; the version is not 5.0.
    pub fn connect_authenticated(
        &mut self,
        now: Instant,
        credentials: &Credentials,
        login: &Login,
    ) -> Result<(), Error> {
        self.begin(now, credentials, Some(login))
    }

    /// Authenticates again on the live connection.
    ///
    /// # Errors
    /// There is no connection, or CONNECT named no method [MQTT-4.12.1-1].
    pub fn reauthenticate(&mut self, token: Token) -> Result<(), Error> {
        let error = match &mut self.link {
            Link::Online(online) => match &mut online.auth {
                Some(auth) => {
                    auth.ask_again(token);
                    return Ok(());
                }
                None => Error::misuse("the options name no authenticator"),
            },
            Link::Offline | Link::Connecting(_) | Link::Leaving(_) => {
                Error::new(ErrorKind::LinkLost, Doing::Authenticating)
            }
        };
        Err(error.while_doing(Doing::Authenticating))
    }

    /// The answer to [`Ask::Begin`](super::Ask::Begin) or [`Ask::Proceed`](super::Ask::Proceed). One
    /// that comes too late is ignored.
    ///
    /// # Errors
    /// The connection has to end; DISCONNECT is among the bytes to write.
    pub fn answer(&mut self, now: Instant, step: Result<AuthStep, Error>) -> Result<(), Error> {
        let answered = match self.link.authentication() {
            Some(auth) => auth.answer(step, now, &mut self.out),
            None => Ok(()),
        };
        answered.inspect_err(|_| self.break_off())
    }

    /// The answer to [`Ask::Finish`](super::Ask::Finish): when the credential has to be renewed, if ever.
    ///
    /// # Errors
    /// The connection has to end; DISCONNECT is among the bytes to write.
    pub fn verified(
        &mut self,
        now: Instant,
        verdict: Result<Option<Duration>, Error>,
    ) -> Result<(), Error> {
        let verified = match self.link.authentication() {
            Some(auth) => auth.verified(verdict, now, &mut self.out),
            None => Ok(Verified::Done),
        };
        match verified.inspect_err(|_| self.break_off())? {
            Verified::Done => Ok(()),
            Verified::Connack(held) => {
                let believed = self.believe_connack(now, &held.connack());
                believed.map_err(|error| self.accuse_if_violated(error))
            }
        }
    }

    /// Whether CONNACK has come and is not believed yet: until [`Protocol::verified`] is called, no
    /// further input is taken.
    pub fn is_verifying(&self) -> bool {
        match &self.link {
            Link::Connecting(handshake) => handshake
                .auth
                .as_ref()
                .is_some_and(|auth| auth.holds_connack()),
            Link::Offline | Link::Online(_) | Link::Leaving(_) => false,
        }
    }

    /// AUTH arrived.
    ///
    /// # Errors
    /// It may not stand here.
    pub(super) fn handle_auth(&mut self, now: Instant, auth: &Auth<'_>) -> Result<(), Violation> {
        match self.link.authentication() {
            Some(machine) => machine.handle_auth(auth, now, &mut self.out),
            None => Err(unasked()),
        }
    }

    /// Says goodbye to a server whose authentication we give up. The reasons for it (0x87 above all) are
    /// the server's alone; this one says nothing that helps an attacker (MQTT 5, table 3-10).
    pub(super) fn break_off(&mut self) {
        // Three bytes, which every broker accepts that was let past its CONNACK.
        let _ = self.disconnect(Reason::UNSPECIFIED_ERROR, PropertyList::EMPTY);
    }
}

impl Link {
    /// The machine of AUTH, if CONNECT named a method and the connection goes on.
    pub(super) fn authentication(&mut self) -> Option<&mut Authentication> {
        match self {
            Self::Connecting(handshake) => handshake.auth.as_deref_mut(),
            Self::Online(online) => online.auth.as_deref_mut(),
            Self::Offline | Self::Leaving(_) => None,
        }
    }
}

/// CONNECT named no method [MQTT-4.12.0-6].
pub(super) fn unasked() -> Violation {
    let what = "the server authenticates although CONNECT has no method";
    Violation::protocol("MQTT-4.12.0-6", what)
}
