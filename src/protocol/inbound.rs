//! What arrives: finds the packets and hands each to exactly one machine.
//!
//! What comes up to CONNACK is in `first`, which machine an answer belongs to in `acks`, and what becomes of a
//! packet above our limit in `skip`.

mod acks;
mod first;
mod skip;

use std::rc::Rc;
use std::time::Instant;

use super::problem;
use super::publish_in::Arrival;
use super::session::Online;
use super::{Delivery, Effect, Link, Protocol, Step};
use crate::codec::{self, Disconnect, Frame, Packet, Split};
use crate::error::{Doing, Error, ErrorKind, Sent, Violation};
use crate::properties::{PropertyList, short_text};
use crate::reason::Reason;
use crate::version::Version;

/// The first byte of CONNECT.
const CONNECT: u8 = 0x10;

impl Protocol {
    /// Bytes arrived, whatever they are: the link lives.
    pub fn handle_received(&mut self, now: Instant) {
        if let Link::Online(online) = &mut self.link {
            online.ping.handle_received(now);
        }
    }

    /// Reads at most one packet from the front of `input`. If `whole` is given, `input` is all of it,
    /// and a message shares it instead of copying.
    ///
    /// # Errors
    /// The connection has to end. If the broker broke the rules, DISCONNECT with the reason is already
    /// among the bytes to write, where the version knows it [MQTT-4.13.1-1].
    pub fn handle_input<'a>(
        &mut self,
        now: Instant,
        input: &'a [u8],
        whole: Option<&'a Rc<Vec<u8>>>,
    ) -> Result<Step<'a>, Error> {
        if let Link::Online(online) = &mut self.link
            && online.skip > 0
            && !input.is_empty()
        {
            let size = online.skip.min(input.len());
            online.skip -= size;
            return Ok(Step::Handled { size });
        }
        if self.is_verifying() {
            return Ok(Step::More { size: None });
        }
        let result = match codec::split(input) {
            Err(violation) => Err(violation.into()),
            Ok(Split::Header) => return Ok(Step::More { size: None }),
            Ok(Split::Partial {
                first,
                header,
                size,
            }) if size > self.config.inbound_limit => self.skip(
                first,
                input.get(header..).unwrap_or_default(),
                size,
                input.len(),
            ),
            Ok(Split::Partial { size, .. }) => return Ok(Step::More { size: Some(size) }),
            Ok(Split::Whole { frame, size }) if size > self.config.inbound_limit => {
                self.skip(frame.first, frame.body, size, size)
            }
            Ok(Split::Whole { frame, size }) => self.handle_frame(now, frame, size, whole),
        };
        result.map_err(|error| self.accuse_if_violated(error))
    }

    /// The connection ends with this error, of which the broker is told if it is its fault.
    pub(super) fn accuse_if_violated(&mut self, error: Error) -> Error {
        let doing = match self.link {
            Link::Connecting(_) => Doing::Connecting,
            Link::Offline | Link::Online(_) | Link::Leaving(_) => Doing::Connected,
        };
        if let ErrorKind::Protocol(violation) = error.kind() {
            self.accuse(*violation);
        }
        error.while_doing(doing)
    }

    fn handle_frame<'a>(
        &mut self,
        now: Instant,
        frame: Frame<'a>,
        size: usize,
        whole: Option<&'a Rc<Vec<u8>>>,
    ) -> Result<Step<'a>, Error> {
        let packet = codec::decode(self.config.version, frame).map_err(|violation| {
            match frame.first {
                // What a server would say to it is not for a client to say.
                CONNECT => only_clients_send(),
                _ => violation,
            }
        })?;
        problem::check(&packet, &self.config)?;
        let online = match &mut self.link {
            Link::Online(online) => &mut **online,
            Link::Connecting(_) => return self.handle_first(now, &packet, size),
            Link::Offline | Link::Leaving(_) => return Ok(Step::Handled { size }),
        };
        let (session, out) = (&mut self.session, &mut self.out);
        let (window, ledger) = (&mut online.window, &mut online.ledger);
        let known = match packet {
            Packet::Publish(publish) => {
                let alias = ledger.resolve(&publish)?;
                let deadline = now.checked_add(self.config.take_timeout);
                let publish_in = &mut session.publish_in;
                let receipt = match publish_in.handle_publish(&publish, deadline, ledger, out)? {
                    Arrival::Deliver => None,
                    Arrival::DeliverOwed(receipt) => Some(receipt),
                    Arrival::Repeated => return Ok(Step::Handled { size }),
                };
                let delivery = Delivery {
                    publish,
                    alias,
                    whole,
                    receipt,
                };
                return Ok(Step::Deliver { size, delivery });
            }
            Packet::Puback(ack) => session.handle_puback(&ack, window, out),
            Packet::Pubrec(ack) => session.handle_pubrec(&ack, window, out),
            Packet::Pubrel(ack) => session.publish_in.handle_pubrel(ack.id, ledger, out),
            Packet::Pubcomp(ack) => session.handle_pubcomp(&ack, window, out),
            Packet::Suback(suback) => session.handle_suback(&suback, out)?,
            Packet::Unsuback(unsuback) => session.handle_unsuback(&unsuback, out)?,
            Packet::Pingresp => {
                // One that nobody asked for is harmless, and proves nothing.
                if online.ping.handle_pingresp(out) {
                    window.trial.handle_pingresp(now);
                }
                true
            }
            Packet::Disconnect(disconnect) => match self.config.version {
                Version::V5_0 => return Err(handle_disconnect(&disconnect, online)),
                Version::V3_1 | Version::V3_1_1 => return Err(not_from_server()),
            },
            // mosquitto up to 2.0 refuses a re-authentication so, where DISCONNECT should stand.
            Packet::Connack(connack) if connack.reason.is_error() && online.is_renewing() => {
                online.window.trial.acknowledged();
                return Err(disconnected_by(connack.reason, connack.properties));
            }
            Packet::Connack(_) => {
                return Err(Violation::protocol("MQTT-3.2.0-2", "a second CONNACK").into());
            }
            Packet::Auth(packet) => {
                self.handle_auth(now, &packet)?;
                return Ok(Step::Handled { size });
            }
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq => return Err(not_from_server()),
        };
        if !known {
            out.effect(Effect::Stray);
        }
        Ok(Step::Handled { size })
    }

    /// Tells the broker what it did wrong, where the version knows how (situation 15).
    fn accuse(&mut self, violation: Violation) {
        if violation.reason == Reason::RECEIVE_MAXIMUM_EXCEEDED {
            // mosquitto up to 2.0.12 does not keep the bound while it has messages queued. Announced
            // again, it would end every connection after a few of them.
            self.config.receive_maximum = u16::MAX;
        }
        match self.config.version {
            Version::V5_0 => {
                // If three bytes are above the broker's limit, the close has to say it.
                if self
                    .disconnect(violation.reason, PropertyList::EMPTY)
                    .is_err()
                {
                    self.link = Link::Leaving(None);
                }
            }
            Version::V3_1 | Version::V3_1_1 => {}
        }
    }
}

/// DISCONNECT of a server of 5.0.
fn handle_disconnect(disconnect: &Disconnect<'_>, online: &mut Online) -> Error {
    if disconnect.properties.session_expiry_interval().is_some() {
        let what = "a DISCONNECT of the server has a Session Expiry Interval";
        return Violation::protocol("MQTT-3.14.2-2", what).into();
    }
    if online.is_renewing() || !may_be_about_a_message(disconnect.reason) {
        online.window.trial.acknowledged();
    }
    disconnected_by(disconnect.reason, disconnect.properties)
}

/// The broker ends the connection, for this reason and with these properties.
fn disconnected_by(reason: Reason, properties: PropertyList<'_>) -> Error {
    let kind = ErrorKind::Disconnected {
        reason,
        text: short_text(properties).map(Into::into),
    };
    Error::new(kind, Doing::Connected).with_properties(properties)
}

/// Whether a message of ours can be why the broker disconnects. What it says about itself, about the
/// session or about time must never cost a message.
fn may_be_about_a_message(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::SUCCESS
            | Reason::SERVER_BUSY
            | Reason::SERVER_SHUTTING_DOWN
            | Reason::KEEP_ALIVE_TIMEOUT
            | Reason::SESSION_TAKEN_OVER
            | Reason::ADMINISTRATIVE_ACTION
            | Reason::USE_ANOTHER_SERVER
            | Reason::SERVER_MOVED
            | Reason::CONNECTION_RATE_EXCEEDED
            | Reason::MAXIMUM_CONNECT_TIME
    )
}

fn not_from_server() -> Error {
    only_clients_send().into()
}

fn only_clients_send() -> Violation {
    Violation::protocol("MQTT5 2.1.2", "a packet that only clients send")
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::new(ErrorKind::Protocol(violation), Doing::Connected).sent_as(Sent::Maybe)
    }
}
