//! AUTH: enhanced authentication at CONNECT, and again on a live connection (MQTT 5, section 4.12).
//!
//! ```text
//!     CONNECT            AUTH 0x18                            a call, or the credential expires
//!        │       ┌───────────────────────► Challenged              Settled ──────► Beginning
//!        ▼       │                             │                      ▲                │
//!     Awaited ───┤◄────────────────────────────┘                      │                │
//!        ▲       │           answer: AUTH 0x18                        │ accepted       │
//!        │       └───────────────────────► Verifying ─────────────────┘                │
//!        │         CONNACK, or AUTH 0x00       │ rejected, or no answer is known:      │
//!        │                                     ▼ DISCONNECT                            │
//!        └─────────────────────────────────────────────────────────────────────────────┘
//!                              the first data is there: AUTH 0x19
//! ```
//!
//! The machine knows no cryptography. What the server says goes out as an [`Ask`]; what the
//! authenticator makes of it comes back by a command, now or much later. It lives as long as its
//! connection, and there is none if CONNECT named no method.
//!
//! While the server authenticates us again, other packets may go on (section 4.12.1). mosquitto, at
//! least up to 2.0, calls every one of them a protocol error, so all that can wait does unless the user
//! wants otherwise; what arrives is taken as ever. As PINGREQ waits too, no more than a keep-alive may pass
//! from one AUTH of ours to the next.
//!
//! A CONNACK that says success is held until the authenticator has looked at the data in it: a server
//! that does not prove who it is gets no packet of ours, and nothing tells of a connection.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::outbox::Outbox;
use super::{AuthStep, Config, Done, Effect, Login, Token};
use crate::codec::{Auth, Connack, Packet};
use crate::error::{Doing, Error, ErrorKind, Violation};
use crate::properties::{Properties, PropertyList};
use crate::reason::Reason;

/// Challenges of one exchange, at most, so that a server cannot keep a client busy for ever. SCRAM has
/// one, Kerberos two or three (RFC 4752); the longest ones in use, of the EAP family, have about ten.
const CHALLENGES: u32 = 16;

/// How long after a renewal that could not begin another one is tried.
const RETRY: Duration = Duration::from_secs(10);

/// What the authenticator is asked. A later question replaces an earlier one.
#[derive(Debug)]
pub enum Ask {
    /// The first data of a re-authentication; answered with `Protocol::answer`.
    Begin,
    /// The answer to a challenge, whose properties these are; answered with `Protocol::answer`.
    Proceed(Properties),
    /// Whether the server, which said this at last, is the one it should be; answered with
    /// `Protocol::verified`.
    Finish(Properties),
}

/// A CONNACK that is not believed yet.
#[derive(Debug)]
pub(super) struct Held {
    session_present: bool,
    properties: Properties,
}

impl Held {
    pub(super) fn connack(&self) -> Connack<'_> {
        Connack {
            session_present: self.session_present,
            reason: Reason::SUCCESS,
            properties: self.properties.list(),
        }
    }
}

/// The machine, of one connection.
#[derive(Debug)]
pub(super) struct Authentication {
    method: Rc<str>,
    one_sided: bool,
    /// Whether other packets are held back while the server authenticates us again.
    holds_back: bool,
    state: State,
    /// How long each side may take for one step.
    patience: Duration,
    /// When the step at hand has to be done; none between exchanges, and if the patience has no end.
    deadline: Option<Instant>,
    /// The keep-alive in force: of CONNECT, then as CONNACK told it; none if there is none.
    keep_alive: Option<Duration>,
    /// Where nothing else of ours may leave, before CONNACK and while others are held back: when something
    /// has to leave again.
    quiet_until: Option<Instant>,
    /// Challenges of this exchange so far.
    challenges: u32,
    /// When the credential has to be renewed.
    renewal: Option<Instant>,
    /// Callers who wait for the exchange that is under way, and those who wait for the next one.
    waits: Vec<Token>,
    next: Vec<Token>,
}

#[derive(Debug)]
enum State {
    /// The connection is open and no exchange under way.
    Settled,
    /// A re-authentication: the authenticator makes the first data.
    Beginning,
    /// It is the server's turn.
    Awaited(Purpose),
    /// It is the authenticator's turn.
    Challenged(Purpose),
    /// The server said success with this CONNACK, or with AUTH: the authenticator looks at it.
    VerifyingConnack(Held),
    VerifyingAuth,
}

/// What an exchange is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Connect,
    Renewal,
}

/// What became of a verification that went well.
#[derive(Debug)]
pub(super) enum Verified {
    /// The CONNACK counts.
    Connack(Held),
    /// The re-authentication is done, or nothing was to be verified.
    Done,
}

impl Authentication {
    /// CONNECT with this login was sent.
    pub(super) fn new(login: &Login, config: &Config, patience: Duration, now: Instant) -> Self {
        // What CONNECT says holds from the moment when it is sent.
        let keep_alive = match config.keep_alive {
            0 => None,
            seconds => Some(Duration::from_secs(seconds.into())),
        };
        Self {
            method: Rc::clone(&login.method),
            one_sided: login.one_sided,
            holds_back: config.quiet_renewal,
            state: State::Awaited(Purpose::Connect),
            patience,
            deadline: now.checked_add(patience),
            keep_alive,
            quiet_until: keep_alive.and_then(|span| now.checked_add(span)),
            challenges: 0,
            renewal: None,
            waits: Vec::new(),
            next: Vec::new(),
        }
    }

    /// The connection is open, with this keep-alive.
    pub(super) fn connected(&mut self, keep_alive: Option<Duration>) {
        self.keep_alive = keep_alive;
        self.quiet_until = None;
    }

    /// AUTH arrived.
    ///
    /// # Errors
    /// It may not stand here.
    pub(super) fn handle_auth(
        &mut self,
        auth: &Auth<'_>,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        match auth.reason {
            Reason::CONTINUE_AUTHENTICATION => {
                let State::Awaited(purpose) = self.state else {
                    return Err(out_of_turn("a challenge comes although none is due"));
                };
                self.check_method(auth.properties, false)?;
                self.challenges += 1;
                if self.challenges > CHALLENGES {
                    let what = "an authentication has more than 16 challenges";
                    let violation = Violation::protocol("MQTT5 4.12", what);
                    return Err(violation.with_reason(Reason::QUOTA_EXCEEDED));
                }
                self.step(State::Challenged(purpose), now);
                out.effect(Effect::Authenticate(Ask::Proceed(auth.properties.into())));
                Ok(())
            }
            Reason::SUCCESS => {
                let State::Awaited(Purpose::Renewal) = self.state else {
                    return Err(out_of_turn(
                        "AUTH says success outside of a re-authentication",
                    ));
                };
                self.check_method(auth.properties, self.one_sided)?;
                self.quiet_until = None;
                self.step(State::VerifyingAuth, now);
                out.release();
                out.effect(Effect::Authenticate(Ask::Finish(auth.properties.into())));
                Ok(())
            }
            // The codec knows no other reason than 0x19.
            _ => Err(Violation::protocol(
                "MQTT5 3.15.2.1",
                "the server begins a re-authentication",
            )),
        }
    }

    /// A CONNACK arrived that says success.
    ///
    /// # Errors
    /// It comes before our answer, or without the method [MQTT-4.12.0-5].
    pub(super) fn handle_connack(
        &mut self,
        connack: &Connack<'_>,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let State::Awaited(Purpose::Connect) = self.state else {
            return Err(out_of_turn("CONNACK says success in the middle of a step"));
        };
        self.check_method(connack.properties, self.one_sided)?;
        let held = Held {
            session_present: connack.session_present,
            properties: connack.properties.into(),
        };
        self.step(State::VerifyingConnack(held), now);
        out.effect(Effect::Authenticate(Ask::Finish(connack.properties.into())));
        Ok(())
    }

    /// Whether the server owes us the next step of a re-authentication.
    pub(super) fn is_renewing(&self) -> bool {
        matches!(self.state, State::Awaited(Purpose::Renewal))
    }

    /// Whether CONNACK is held: until it is believed nothing behind it is looked at.
    pub(super) fn holds_connack(&self) -> bool {
        matches!(self.state, State::VerifyingConnack(_))
    }

    /// Someone wants a re-authentication. While one goes on another will follow it, because the
    /// credential may be a new one.
    pub(super) fn ask_again(&mut self, token: Token) {
        self.next.push(token);
    }

    /// Begins a re-authentication if one is due and none goes on.
    pub(super) fn begin_if_due(&mut self, now: Instant, out: &mut Outbox) {
        let State::Settled = self.state else { return };
        if self.next.is_empty() && !self.is_renewal_due(now) {
            return;
        }
        self.waits = std::mem::take(&mut self.next);
        self.challenges = 0;
        self.step(State::Beginning, now);
        out.effect(Effect::Authenticate(Ask::Begin));
    }

    /// The authenticator has made the first data, or the answer to a challenge.
    ///
    /// # Errors
    /// The connection has to end: an exchange that has begun cannot be finished.
    pub(super) fn answer(
        &mut self,
        step: Result<AuthStep, Error>,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Error> {
        let (purpose, reason) = match self.state {
            State::Beginning => (Purpose::Renewal, Reason::RE_AUTHENTICATE),
            State::Challenged(purpose) => (purpose, Reason::CONTINUE_AUTHENTICATION),
            State::Settled
            | State::Awaited(_)
            | State::VerifyingConnack(_)
            | State::VerifyingAuth => return Ok(()),
        };
        let sent = step.and_then(|step| {
            let said = step.to_auth(&self.method)?;
            let mut send =
                |properties: PropertyList<'_>| out.send(&Packet::Auth(Auth { reason, properties }));
            // Words are no reason to fail [MQTT-3.15.2-2, -3].
            send(said.list()).or_else(|_| send(said.without_words().list()))
        });
        match sent {
            Ok(()) => {
                let is_quiet = match purpose {
                    Purpose::Connect => true,
                    Purpose::Renewal => self.holds_back,
                };
                if is_quiet {
                    self.quiet_until = self.keep_alive.and_then(|span| now.checked_add(span));
                }
                if purpose == Purpose::Renewal && self.holds_back {
                    out.hold_back();
                }
                self.step(State::Awaited(purpose), now);
                Ok(())
            }
            Err(error) if matches!(self.state, State::Beginning) => {
                self.could_not_begin(&error.while_doing(Doing::Authenticating), now, out);
                Ok(())
            }
            Err(error) => Err(self.failed(&error.while_doing(Doing::Authenticating), out)),
        }
    }

    /// The authenticator has looked at what the server said at last, and wants the credential renewed
    /// after this time.
    ///
    /// # Errors
    /// The connection has to end: the server is not the one it should be [MQTT-4.12.1-2].
    pub(super) fn verified(
        &mut self,
        verdict: Result<Option<Duration>, Error>,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<Verified, Error> {
        let (State::VerifyingConnack(_) | State::VerifyingAuth) = self.state else {
            return Ok(Verified::Done);
        };
        let renew_in = match verdict {
            Ok(renew_in) => renew_in,
            Err(error) => return Err(self.failed(&error.while_doing(Doing::Authenticating), out)),
        };
        self.renewal = renew_in.and_then(|span| now.checked_add(span));
        self.deadline = None;
        match std::mem::replace(&mut self.state, State::Settled) {
            State::VerifyingConnack(held) => Ok(Verified::Connack(held)),
            State::VerifyingAuth
            | State::Settled
            | State::Beginning
            | State::Awaited(_)
            | State::Challenged(_) => {
                for token in self.waits.drain(..) {
                    out.done(token, Ok(Done::Authenticated));
                }
                out.effect(Effect::Reauthenticated);
                Ok(Verified::Done)
            }
        }
    }

    /// When [`Authentication::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Settled => self.renewal,
            State::Beginning
            | State::Awaited(_)
            | State::Challenged(_)
            | State::VerifyingConnack(_)
            | State::VerifyingAuth => self.deadline,
        }
    }

    /// Time has passed.
    ///
    /// # Errors
    /// A step took too long; the connection has to end.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) -> Result<(), Error> {
        self.begin_if_due(now, out);
        let late = self.deadline.is_some_and(|deadline| now >= deadline);
        let quiet = self
            .keep_alive
            .filter(|_| self.deadline == self.quiet_until);
        let span = quiet.unwrap_or(self.patience);
        match self.state {
            State::Beginning if late => {
                let error = Error::new(ErrorKind::TimedOut(span), Doing::Authenticating);
                self.could_not_begin(&error, now, out);
                Ok(())
            }
            State::Awaited(_)
            | State::Challenged(_)
            | State::VerifyingConnack(_)
            | State::VerifyingAuth
                if late =>
            {
                let error = Error::new(ErrorKind::TimedOut(span), Doing::Authenticating);
                Err(self.failed(&error, out))
            }
            State::Settled
            | State::Beginning
            | State::Awaited(_)
            | State::Challenged(_)
            | State::VerifyingConnack(_)
            | State::VerifyingAuth => Ok(()),
        }
    }

    /// The connection is over. Returns who waits in vain.
    pub(super) fn disconnected(mut self) -> Vec<Token> {
        self.waits.append(&mut self.next);
        self.waits
    }

    fn is_renewal_due(&self, now: Instant) -> bool {
        self.renewal.is_some_and(|renewal| now >= renewal)
    }

    /// Each step has the patience anew; the number of challenges bounds the whole. Where nothing else of ours
    /// may leave, the server's step and ours share one keep-alive [MQTT-3.1.2-20], [MQTT-3.2.2-21].
    fn step(&mut self, state: State, now: Instant) {
        self.state = state;
        let ends = [now.checked_add(self.patience), self.quiet_until];
        self.deadline = ends.into_iter().flatten().min();
    }

    /// Nothing of the exchange has left, so the connection goes on as it was.
    fn could_not_begin(&mut self, error: &Error, now: Instant, out: &mut Outbox) {
        self.state = State::Settled;
        self.deadline = None;
        for token in self.waits.drain(..) {
            out.done(token, Err(error.clone()));
        }
        if self.is_renewal_due(now) {
            self.renewal = now.checked_add(RETRY);
            out.effect(Effect::NotRenewed(error.clone(), RETRY));
        }
    }

    /// The exchange is broken off. Returns why.
    fn failed(&mut self, error: &Error, out: &mut Outbox) -> Error {
        for token in self.waits.drain(..) {
            out.done(token, Err(error.clone()));
        }
        error.clone()
    }

    /// [MQTT-4.12.0-5]; the codec lets AUTH without one pass only if it is empty.
    fn check_method(&self, properties: PropertyList<'_>, may_lack: bool) -> Result<(), Violation> {
        let what = match properties.authentication_method() {
            Some(method) if *method == *self.method => return Ok(()),
            None if may_lack => return Ok(()),
            None => "an answer in an authentication has no Authentication Method",
            Some(_) => "an answer in an authentication has another Authentication Method",
        };
        Err(Violation::protocol("MQTT-4.12.0-5", what))
    }
}

fn out_of_turn(what: &'static str) -> Violation {
    Violation::protocol("MQTT5 4.12", what)
}
