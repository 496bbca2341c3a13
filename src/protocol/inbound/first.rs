//! The packets with which a connection begins, up to the CONNACK that makes it one.

use std::time::Instant;

use crate::codec::{Connack, Packet};
use crate::error::{Error, Violation};
use crate::protocol::alias::Aliases;
use crate::protocol::authenticate::unasked;
use crate::protocol::connect::{Continuity, Verdict};
use crate::protocol::ledger::Ledger;
use crate::protocol::limits::{check_packet_size, maximum_packet_size};
use crate::protocol::ping::Ping;
use crate::protocol::session::{Online, Session};
use crate::protocol::{Effect, Link, Protocol, Step};
use crate::reason::Reason;

impl Protocol {
    /// The first packet of a connection has to be CONNACK, after the AUTHs that CONNECT asked for.
    pub(super) fn handle_first<'a>(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        size: usize,
    ) -> Result<Step<'a>, Error> {
        match packet {
            Packet::Connack(connack) => {
                self.handle_connack(now, connack)?;
                Ok(Step::Handled { size })
            }
            Packet::Auth(auth) => {
                self.handle_auth(now, auth)?;
                Ok(Step::Handled { size })
            }
            Packet::Connect(_)
            | Packet::Publish(_)
            | Packet::Puback(_)
            | Packet::Pubrec(_)
            | Packet::Pubrel(_)
            | Packet::Pubcomp(_)
            | Packet::Subscribe(_)
            | Packet::Suback(_)
            | Packet::Unsubscribe(_)
            | Packet::Unsuback(_)
            | Packet::Pingreq
            | Packet::Pingresp
            | Packet::Disconnect(_) => {
                Err(Violation::protocol("MQTT-3.2.0-1", "the first packet is not CONNACK").into())
            }
        }
    }

    fn handle_connack(&mut self, now: Instant, connack: &Connack<'_>) -> Result<(), Error> {
        if connack.reason == Reason::SUCCESS {
            let limit = maximum_packet_size(connack.properties);
            // First, so that also what is wrong with this CONNACK is told in a packet that the broker takes.
            self.out.set_limits(self.config.version, limit);
            check_packet_size(limit)?;
        }
        match self.link.authentication() {
            // A refusal is believed at once.
            Some(auth) if connack.reason == Reason::SUCCESS => {
                Ok(auth.handle_connack(connack, now, &mut self.out)?)
            }
            None if connack.properties.authentication_method().is_some() => Err(unasked().into()),
            Some(_) | None => self.believe_connack(now, connack),
        }
    }

    /// CONNACK counts.
    pub(in crate::protocol) fn believe_connack(
        &mut self,
        now: Instant,
        connack: &Connack<'_>,
    ) -> Result<(), Error> {
        let Link::Connecting(handshake) = &mut self.link else {
            return Ok(());
        };
        let Session {
            opening,
            ids,
            publish_out,
            publish_in,
            subscribing,
            inheritance,
            ..
        } = &mut self.session;
        let out = &mut self.out;
        let config = &self.config;
        let (continuity, limits) = match opening.handle_connack(handshake, connack, config, out)? {
            Verdict::Open(continuity, limits) => (continuity, limits),
            Verdict::Again => {
                self.link = Link::Leaving(None);
                out.effect(Effect::Again);
                return Ok(());
            }
        };
        // First of all: what is written after it belongs to this session.
        if let Some(journal) = &mut out.journal {
            journal.identify(|place| opening.identity(config, place));
        }
        inheritance.connected(now, config.take_timeout, continuity, subscribing, out);
        let window = match continuity {
            Continuity::Present => publish_out.connected_present(&limits, out),
            Continuity::Untold => {
                publish_in.session_untold();
                subscribing.restore(continuity);
                publish_out.connected_present(&limits, out)
            }
            Continuity::Lost => {
                publish_in.session_lost(out);
                subscribing.restore(continuity);
                publish_out.connected_lost(&limits, config.republish, ids, out)
            }
        };
        let ping = Ping::new(
            limits.keep_alive,
            config.ping_timeout,
            handshake.sent(),
            now,
        );
        let ledger = Ledger::new(config.receive_maximum, config.topic_alias_maximum);
        let mut auth = handshake.auth.take();
        if let Some(auth) = &mut auth {
            auth.connected(limits.keep_alive);
        }
        let aliases = Aliases::new(limits.topic_alias_maximum.min(config.topic_aliases));
        out.effect(Effect::Connected(continuity));
        self.link = Link::Online(Box::new(Online {
            limits,
            ping,
            window,
            aliases,
            ledger,
            auth,
            stalled: None,
            skip: 0,
        }));
        Ok(())
    }
}
