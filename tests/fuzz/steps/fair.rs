//! A broker that has no objection.

use coracle::codec::subscribe::ReasonList;
use coracle::codec::{Ack, Auth, Connack, Packet, Suback, Unsuback};
use coracle::protocol::Login;
use coracle::{PacketId, Properties, PropertyList, Reason, Version};

use super::observer::Asked;

pub(crate) fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet
        .encode(version, &mut out)
        .expect("all of these can be expressed");
    out
}

/// The bytes of the answer to what a client asked.
pub(crate) fn answer(asked: Asked, version: Version, login: Option<&Login>) -> Vec<u8> {
    let zeros = [0; 16];
    let properties = match login {
        Some(login) => Properties::new().authentication_method(&login.method),
        None => Properties::new(),
    };
    let ack = |id: PacketId| Ack {
        id,
        reason: Reason::SUCCESS,
        properties: PropertyList::EMPTY,
    };
    let packet = match asked {
        Asked::Connect => Packet::Connack(Connack {
            session_present: false,
            reason: Reason::SUCCESS,
            properties: properties.list(),
        }),
        Asked::Auth => Packet::Auth(Auth {
            reason: Reason::SUCCESS,
            properties: properties.list(),
        }),
        Asked::Puback(id) => Packet::Puback(ack(id)),
        Asked::Pubrec(id) => Packet::Pubrec(ack(id)),
        Asked::Pubrel(id) => Packet::Pubrel(ack(id)),
        Asked::Pubcomp(id) => Packet::Pubcomp(ack(id)),
        Asked::Suback(id, count) => Packet::Suback(Suback {
            id,
            properties: PropertyList::EMPTY,
            reasons: ReasonList(&zeros[..count]),
        }),
        Asked::Unsuback(id, count) => Packet::Unsuback(Unsuback {
            id,
            properties: PropertyList::EMPTY,
            reasons: ReasonList(if version == Version::V5_0 {
                &zeros[..count]
            } else {
                &[]
            }),
        }),
        Asked::Pingresp => Packet::Pingresp,
    };
    encode(&packet, version)
}
