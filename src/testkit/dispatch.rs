//! From a packet to what it causes: the plan of the script, the phase of the link, the kind.

use std::time::Instant;

use crate::codec::ping::PINGRESP;
use crate::codec::publish::AckKind;
use crate::codec::subscribe::ReasonList;
use crate::codec::{Ack, Disconnect, Frame, Packet, Suback, Unsuback, decode};
use crate::error::Violation;
use crate::message::{PacketId, Qos};
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::version::Version;

use super::broker::{Broker, LinkId};
use super::link::{Outflow, Phase, Reply};
use super::record::Kind;
use super::script::{Answering, End, Handling, Plan};

impl Broker {
    /// Does with a packet what a rule wants.
    pub(super) fn act_out(
        &mut self,
        id: LinkId,
        now: Instant,
        (kind, frame, whole): (Kind, Frame<'_>, &[u8]),
        plan: Plan,
    ) {
        let due = plan.delay.map(|delay| now + delay);
        if let Some(link) = self.links.get_mut(&id) {
            if kind == Kind::Connect && plan.handling == Handling::Process {
                link.outflow = match (due, &plan.answering) {
                    (_, Answering::Nothing) => Outflow::Mute,
                    (Some(due), Answering::Own | Answering::Literal(_)) => Outflow::Corked(due),
                    (None, Answering::Own | Answering::Literal(_)) => Outflow::Open,
                };
            }
            link.reply = Reply {
                answering: plan.answering,
                due,
            };
        }
        match plan.handling {
            Handling::Process => self.process(id, now, frame, whole),
            Handling::Refuse(reason) => self.refuse(id, now, frame, reason),
            Handling::Ignore => {}
        }
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let left = std::mem::replace(&mut link.reply, Reply::OWN);
        // The packet had no answer of its own that the literal one could have replaced.
        if let Answering::Literal(bytes) = left.answering {
            match due {
                Some(due) => link.hold_back(due, bytes, End::Stay),
                None => self.write(id, now, |out| out.extend_from_slice(&bytes)),
            }
        }
        if plan.end == End::Cut {
            match (due, self.links.get_mut(&id)) {
                (Some(due), Some(link)) => link.hold_back(due, Vec::new(), End::Cut),
                (Some(_) | None, _) => self.lost.push(id),
            }
        }
        if let Some(due) = due {
            self.arm(due);
        }
    }

    /// Writes the answer to the packet at hand, unless a rule has other plans for it.
    pub(super) fn answer(&mut self, id: LinkId, now: Instant, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.is_closed()) else {
            return;
        };
        let due = link.reply.due;
        let literal = match &mut link.reply.answering {
            Answering::Own => None,
            Answering::Nothing => return,
            Answering::Literal(bytes) => Some(std::mem::take(bytes)),
        };
        if literal.is_some() {
            link.reply.answering = Answering::Nothing;
        }
        let encode = |out: &mut Vec<u8>| match literal {
            Some(bytes) => out.extend_from_slice(&bytes),
            None => encode(out),
        };
        match due {
            Some(due) => {
                let mut bytes = Vec::new();
                encode(&mut bytes);
                link.hold_back(due, bytes, End::Stay);
                self.arm(due);
            }
            None => self.write(id, now, encode),
        }
    }

    /// Answers with a packet of the codec.
    pub(super) fn answer_packet(
        &mut self,
        id: LinkId,
        now: Instant,
        version: Version,
        packet: Packet<'_>,
    ) {
        self.answer(id, now, |out| append(packet, version, out));
    }

    pub(super) fn answer_ack(
        &mut self,
        id: LinkId,
        now: Instant,
        version: Version,
        kind: AckKind,
        (packet_id, reason): (PacketId, Reason),
    ) {
        let ack = Ack {
            id: packet_id,
            reason,
            properties: PropertyList::EMPTY,
        };
        let packet = match kind {
            AckKind::Puback => Packet::Puback(ack),
            AckKind::Pubrec => Packet::Pubrec(ack),
            AckKind::Pubrel => Packet::Pubrel(ack),
            AckKind::Pubcomp => Packet::Pubcomp(ack),
        };
        self.answer_packet(id, now, version, packet);
    }

    /// The packet takes effect.
    pub(super) fn process(&mut self, id: LinkId, now: Instant, frame: Frame<'_>, whole: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let done = match &link.phase {
            Phase::Closed => Ok(()),
            Phase::Greeting if Kind::of(frame.first) == Some(Kind::Connect) => {
                self.handle_connect(id, now, frame, whole)
            }
            Phase::Greeting => Err(Violation::protocol(
                "MQTT-3.1.0-1",
                "the first packet is not CONNECT",
            )),
            Phase::Authenticating(_) => self.handle_login(id, now, frame),
            Phase::Connected(connection) => {
                let version = connection.version;
                decode(version, frame)
                    .and_then(|packet| self.handle_connected(id, now, version, packet))
            }
        };
        if let Err(violation) = done {
            self.violate(id, now, violation);
        }
    }

    fn handle_connected(
        &mut self,
        id: LinkId,
        now: Instant,
        version: Version,
        packet: Packet<'_>,
    ) -> Result<(), Violation> {
        match packet {
            Packet::Publish(publish) => self.handle_publish(id, now, version, publish),
            Packet::Puback(ack) => self.handle_puback(id, now, ack),
            Packet::Pubrec(ack) => self.handle_pubrec(id, now, version, ack),
            Packet::Pubrel(ack) => self.handle_pubrel(id, now, version, ack),
            Packet::Pubcomp(ack) => self.handle_pubcomp(id, now, ack),
            Packet::Subscribe(subscribe) => self.handle_subscribe(id, now, version, subscribe),
            Packet::Unsubscribe(unsubscribe) => {
                self.handle_unsubscribe(id, now, version, unsubscribe)
            }
            Packet::Pingreq => {
                self.answer(id, now, |out| out.extend_from_slice(&PINGRESP));
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.handle_disconnect(id, now, disconnect),
            Packet::Auth(auth) => self.handle_reauthentication(id, now, auth),
            Packet::Connect(_) => Err(Violation::protocol("MQTT-3.1.0-2", "a second CONNECT")),
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => Err(
                Violation::protocol("MQTT5 2.1.2", "a packet that only a server sends"),
            ),
        }
    }

    /// The packet takes no effect and is answered with `reason`.
    fn refuse(&mut self, id: LinkId, now: Instant, frame: Frame<'_>, reason: Reason) {
        let version = self.version(id).unwrap_or(Version::V5_0);
        let packet = match decode(version, frame) {
            Ok(packet) => packet,
            Err(violation) => return self.violate(id, now, violation),
        };
        let properties = PropertyList::EMPTY;
        // Before 5.0 SUBACK has one code for every failure [MQTT-3.9.3-2 of 3.1.1].
        let code = match version {
            Version::V5_0 => reason.code(),
            Version::V3_1 | Version::V3_1_1 => Reason::UNSPECIFIED_ERROR.code(),
        };
        match packet {
            Packet::Connect(connect) => self.refuse_connect(id, now, connect.version, reason),
            Packet::Publish(publish) => {
                let kind = match publish.qos {
                    Qos::AtMostOnce => return,
                    Qos::AtLeastOnce => AckKind::Puback,
                    Qos::ExactlyOnce => AckKind::Pubrec,
                };
                if let Some(packet_id) = publish.id {
                    self.answer_ack(id, now, version, kind, (packet_id, reason));
                }
            }
            Packet::Pubrec(ack) => {
                self.answer_ack(id, now, version, AckKind::Pubrel, (ack.id, reason));
            }
            Packet::Pubrel(ack) => {
                self.answer_ack(id, now, version, AckKind::Pubcomp, (ack.id, reason));
            }
            Packet::Subscribe(subscribe) => {
                let codes = vec![code; subscribe.filters.iter().count()];
                let reasons = ReasonList(&codes);
                let id_of = subscribe.id;
                let suback = Packet::Suback(Suback {
                    id: id_of,
                    properties,
                    reasons,
                });
                self.answer_packet(id, now, version, suback);
            }
            Packet::Unsubscribe(unsubscribe) => {
                let codes = vec![code; unsubscribe.filters.iter().count()];
                let reasons = ReasonList(&codes);
                let id_of = unsubscribe.id;
                let unsuback = Packet::Unsuback(Unsuback {
                    id: id_of,
                    properties,
                    reasons,
                });
                self.answer_packet(id, now, version, unsuback);
            }
            // [MQTT-4.12.0-4]
            Packet::Auth(_) if self.version(id).is_none() => {
                self.refuse_connect(id, now, version, reason);
            }
            Packet::Puback(_)
            | Packet::Pubcomp(_)
            | Packet::Pingreq
            | Packet::Disconnect(_)
            | Packet::Auth(_)
            | Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => {
                self.say_goodbye(id, now, reason);
                self.lost.push(id);
            }
        }
    }

    /// A client broke the rules: on 5.0 it is told, and the link ends [MQTT-4.13.1-1].
    pub(super) fn violate(&mut self, id: LinkId, now: Instant, violation: Violation) {
        self.record.violations.push((id, violation));
        self.say_goodbye(id, now, violation.reason);
        self.lost.push(id);
    }

    /// DISCONNECT, where the version has it and CONNACK came before it [MQTT-3.14.0-1].
    pub(super) fn say_goodbye(&mut self, id: LinkId, now: Instant, reason: Reason) {
        let Some(version) = self.version(id) else {
            return;
        };
        match version {
            Version::V5_0 => {
                let packet = Packet::Disconnect(Disconnect {
                    reason,
                    properties: PropertyList::EMPTY,
                });
                self.write(id, now, |out| append(packet, version, out));
            }
            Version::V3_1 | Version::V3_1_1 => {}
        }
    }
}

/// Appends a packet that the broker has made.
pub(super) fn append(packet: Packet<'_>, version: Version, out: &mut Vec<u8>) {
    // Nothing the broker sends is longer than what it received, so this fails for no real packet; if
    // it does, `encode` has written nothing and the packet is dropped like one that the client's
    // Maximum Packet Size forbids.
    if let Err(overlong) = packet.encode(version, out) {
        log::warn!("the test broker drops a packet of {} bytes", overlong.size);
    }
}
