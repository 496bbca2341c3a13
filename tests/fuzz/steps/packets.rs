//! A client that is given packets which are each in order by themselves, in an order that is not.

use coracle::codec::publish::{Ack, Publish};
use coracle::codec::subscribe::ReasonList;
use coracle::codec::{Auth, Disconnect, Packet, Suback, Unsuback};
use coracle::{PacketId, Properties, PropertyList, Qos, Reason, Version};

use super::application::{QOS, TOPICS, act, connack, connect, rig};
use super::fair::{answer, encode};
use super::input::Input;
use super::rig::Rig;

/// Input: settings, how the connection opens, then steps: a packet from the broker, whole or in two pieces, or
/// something that the program, the clock or the network does.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut rig = rig(&mut input);
    connect(&mut rig, &mut input);
    while !input.is_empty() {
        if !rig.is_open {
            connect(&mut rig, &mut input);
        }
        match input.u8() {
            kind @ 0..0x90 => {
                let bytes = packet(&rig, kind, &mut input);
                rig.receive(&bytes);
            }
            0x90..0x98 => {
                let kind = input.below(0x90) as u8;
                let bytes = packet(&rig, kind, &mut input);
                let (first, second) = bytes.split_at(input.below(bytes.len() + 1));
                if rig.receive(first) {
                    act(&mut rig, &mut input);
                    rig.receive(second);
                }
            }
            0x98.. => act(&mut rig, &mut input),
        }
    }
    rig.drain();
}

/// An identifier that is likely to be in use.
fn id(rig: &Rig, input: &mut Input<'_>) -> PacketId {
    let choice = input.u8();
    let nth = usize::from(choice);
    let number = match choice {
        0xF0.. => input.u16(),
        _ => u16::from(choice & 7),
    };
    match rig.observer.identifier(nth) {
        Some(id) if choice & 0x80 != 0 && choice < 0xF0 => id,
        Some(_) | None => PacketId::new(number).unwrap_or(PacketId::MIN),
    }
}

fn packet(rig: &Rig, kind: u8, input: &mut Input<'_>) -> Vec<u8> {
    let version = rig.version;
    let mut properties = Properties::new();
    let ack = |input: &mut Input<'_>, codes: &[u8]| Ack {
        id: id(rig, input),
        reason: Reason::new(input.pick(codes)),
        properties: PropertyList::EMPTY,
    };
    const RECEIVED: &[u8] = &[0, 0, 0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    const RELEASED: &[u8] = &[0, 0, 0x92];
    let packet = match kind {
        0..0x28 => return publish(rig, input),
        0x28..0x50 => {
            // What a fair broker answers, one packet of it.
            let asked = &rig.observer.asked;
            return match asked.get(input.below(asked.len().max(1))) {
                Some(asked) => answer(*asked, version, None),
                None => encode(&Packet::Pingresp, version),
            };
        }
        0x50..0x5C => Packet::Puback(ack(input, RECEIVED)),
        0x5C..0x6A => Packet::Pubrec(ack(input, RECEIVED)),
        0x6A..0x76 => Packet::Pubrel(ack(input, RELEASED)),
        0x76..0x80 => Packet::Pubcomp(ack(input, RELEASED)),
        0x80..0x83 => {
            let id = id(rig, input);
            let count = 1 + input.below(3);
            let reasons = input.take(count);
            let reasons: Vec<u8> = reasons
                .iter()
                .map(|code| [0, 1, 2, 0x80][usize::from(*code) % 4])
                .collect();
            let properties = PropertyList::EMPTY;
            let reasons = ReasonList(if reasons.is_empty() { &[0] } else { &reasons });
            return encode(
                &Packet::Suback(Suback {
                    id,
                    properties,
                    reasons,
                }),
                version,
            );
        }
        0x83..0x86 => Packet::Unsuback(Unsuback {
            id: id(rig, input),
            properties: PropertyList::EMPTY,
            reasons: ReasonList(match (version, input.bool()) {
                (Version::V5_0, true) => &[0],
                (Version::V5_0, false) => &[0x11, 0],
                (_, _) => &[],
            }),
        }),
        0x86..0x88 => Packet::Pingresp,
        0x88 => Packet::Disconnect(Disconnect {
            reason: Reason::new(input.pick(&[0x00, 0x81, 0x82, 0x89, 0x8B, 0x8E, 0x93, 0x98])),
            properties: PropertyList::EMPTY,
        }),
        0x89 => return connack(input, version),
        0x8A..0x8E => {
            if !input.once_in(4) {
                properties = properties.authentication_method("m");
            }
            let reason = input.pick(&[0x18, 0x00, 0x19]);
            Packet::Auth(Auth {
                reason: Reason::new(reason),
                properties: properties.list(),
            })
        }
        0x8E.. => {
            properties = properties.reason_string("why").user_property("k", "v");
            let ack = Ack {
                id: id(rig, input),
                reason: Reason::SUCCESS,
                properties: properties.list(),
            };
            return encode(&Packet::Puback(ack), version);
        }
    };
    encode(&packet, version)
}

fn publish(rig: &Rig, input: &mut Input<'_>) -> Vec<u8> {
    let how = input.u8();
    let qos = QOS[usize::from(how & 3) % 3];
    let mut topic = TOPICS[usize::from(how >> 2 & 3)];
    let mut properties = Properties::new();
    if how & 64 != 0 && rig.version == Version::V5_0 {
        properties = properties.topic_alias(1 + u16::from(input.u8() & 1));
        if input.bool() {
            topic = "";
        }
        if input.once_in(8) {
            properties = properties.subscription_identifier(9);
        }
    }
    let size = if how & 128 != 0 {
        usize::from(input.u16()) % 3000
    } else {
        1
    };
    let payload = vec![b'x'; size];
    encode(
        &Packet::Publish(Publish {
            dup: how & 16 != 0 && qos != Qos::AtMostOnce,
            qos,
            retain: how & 32 != 0,
            topic,
            id: (qos != Qos::AtMostOnce).then(|| id(rig, input)),
            properties: properties.list(),
            payload: &payload,
        }),
        rig.version,
    )
}
