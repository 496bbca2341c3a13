//! Packets at random, and a broker that answers everything.

use coracle::codec::publish::{Ack, Publish};
use coracle::codec::subscribe::ReasonList;
use coracle::codec::{self, Auth, Connack, Disconnect, Packet, Split, Suback, Unsuback};
use coracle::{PacketId, Properties, PropertyList, Qos, Reason, Version};
use fastrand::Rng;

/// One of these, at random.
pub(crate) fn pick<T: Copy>(random: &mut Rng, all: &[T]) -> T {
    all[random.usize(..all.len())]
}

/// An identifier that is likely to be in use.
fn id(random: &mut Rng) -> PacketId {
    let id = if random.u8(..20) == 0 {
        random.u16(1..)
    } else {
        random.u16(1..7)
    };
    PacketId::new(id).expect("it is at least 1")
}

pub(crate) fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet
        .encode(version, &mut out)
        .expect("all of these can be expressed");
    out
}

/// A packet that a broker may send, or one that it may not.
pub(crate) fn packet(random: &mut Rng, version: Version) -> Vec<u8> {
    let mut properties = Properties::new();
    if random.u8(..4) == 0 {
        properties = properties.user_property("k", "v");
    }
    if random.u16(..400) == 0 {
        properties = properties.reason_string(&"why ".repeat(100));
    }
    let codes = [0, 0, 0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    let received = Ack {
        id: id(random),
        reason: Reason::new(pick(random, &codes)),
        properties: properties.list(),
    };
    let released = Ack {
        reason: Reason::new(pick(random, &[0, 0, 0x92])),
        ..received
    };
    let reasons: Vec<u8> = (0..random.usize(1..4))
        .map(|_| pick(random, &[0, 1, 2, 0x80]))
        .collect();
    let done: Vec<u8> = (0..random.usize(1..4))
        .map(|_| pick(random, &[0, 0x11, 0x80]))
        .collect();
    let packet = match random.u32(..1000) {
        0..350 => {
            let qos = pick(
                random,
                &[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce],
            );
            let mut topic = pick(random, &["t", "t", "a/b", "a", "$SYS/x", "a/b/c"]);
            let mut properties = properties;
            if random.u8(..5) == 0 {
                properties = properties.topic_alias(pick(random, &[1, 1, 1, 2, 2, 2, 3]));
                if random.u8(..20) == 0 {
                    topic = "";
                }
            }
            let payload = vec![b'x'; pick(random, &[0, 0, 1, 1, 2, 3, 10, 20, 200, 3000])];
            let publish = Publish {
                dup: qos != Qos::AtMostOnce && random.bool(),
                qos,
                retain: random.bool(),
                topic: if version == Version::V5_0 || !topic.is_empty() {
                    topic
                } else {
                    "t"
                },
                id: (qos != Qos::AtMostOnce).then(|| id(random)),
                properties: properties.list(),
                payload: &payload,
            };
            return encode(&Packet::Publish(publish), version);
        }
        350..500 => Packet::Puback(received),
        500..620 => Packet::Pubrec(received),
        620..720 => Packet::Pubrel(released),
        720..820 => Packet::Pubcomp(released),
        820..880 => Packet::Suback(Suback {
            id: id(random),
            properties: PropertyList::EMPTY,
            reasons: ReasonList(&reasons),
        }),
        880..930 => {
            let reasons = ReasonList(if version == Version::V5_0 { &done } else { &[] });
            Packet::Unsuback(Unsuback {
                id: id(random),
                properties: PropertyList::EMPTY,
                reasons,
            })
        }
        930..980 => Packet::Pingresp,
        980..983 => Packet::Disconnect(Disconnect {
            reason: Reason::new(pick(random, &[0x81, 0x82, 0x89, 0x8B, 0x93, 0x98])),
            properties: PropertyList::EMPTY,
        }),
        983..985 => Packet::Pingreq,
        985..987 => Packet::Auth(Auth {
            reason: Reason::SUCCESS,
            properties: PropertyList::EMPTY,
        }),
        987..990 => return wild_connack(random, version),
        _ => Packet::Puback(received),
    };
    encode(&packet, version)
}

/// A CONNACK that announces anything.
pub(crate) fn wild_connack(random: &mut Rng, version: Version) -> Vec<u8> {
    let mut properties = Properties::new();
    if random.bool() {
        properties = properties.receive_maximum(random.u16(1..4));
    }
    if random.u8(..4) == 0 {
        properties = properties.maximum_qos(random.u8(..2));
    }
    if random.u8(..4) == 0 {
        properties = properties.retain_available(random.bool());
    }
    if random.u8(..4) == 0 {
        properties = properties.maximum_packet_size(random.u32(1..300));
    }
    if random.u8(..4) == 0 {
        properties = properties.server_keep_alive(random.u16(..100));
    }
    if random.u8(..4) == 0 {
        properties = properties.wildcard_subscription_available(random.bool());
    }
    let refused = random.u8(..10) == 0;
    connack(
        version,
        !refused && random.bool(),
        refused,
        properties.list(),
    )
}

pub(crate) fn connack(
    version: Version,
    session_present: bool,
    refused: bool,
    properties: PropertyList<'_>,
) -> Vec<u8> {
    let reason = if refused {
        Reason::SERVER_UNAVAILABLE
    } else {
        Reason::SUCCESS
    };
    let connack = Connack {
        session_present,
        reason,
        properties,
    };
    encode(&Packet::Connack(connack), version)
}

/// Whether CONNECT was answered already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    Due,
    Done,
}

/// What a broker answers that has no objection; CONNECT with no session. None to a DISCONNECT. What is
/// not a whole packet yet stays in `bytes`.
pub(crate) fn answer(version: Version, greeting: Greeting, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let sent = std::mem::take(bytes);
    let mut rest = sent.as_slice();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let Split::Whole { frame, size } = codec::split(rest).expect("a client keeps the rules")
        else {
            *bytes = rest.to_vec();
            break;
        };
        rest = &rest[size..];
        let plain = |id| Ack {
            id,
            reason: Reason::SUCCESS,
            properties: PropertyList::EMPTY,
        };
        let zeros = [0; 8];
        let packet = match codec::decode(version, frame).expect("a client keeps the rules") {
            Packet::Connect(_) => {
                if greeting == Greeting::Due {
                    out.extend(connack(version, false, false, PropertyList::EMPTY));
                }
                continue;
            }
            Packet::Publish(publish) => match (publish.qos, publish.id) {
                (Qos::AtLeastOnce, Some(id)) => Packet::Puback(plain(id)),
                (Qos::ExactlyOnce, Some(id)) => Packet::Pubrec(plain(id)),
                _ => continue,
            },
            Packet::Pubrec(ack) if !ack.reason.is_error() => Packet::Pubrel(plain(ack.id)),
            Packet::Pubrel(ack) => Packet::Pubcomp(plain(ack.id)),
            Packet::Subscribe(subscribe) => Packet::Suback(Suback {
                id: subscribe.id,
                properties: PropertyList::EMPTY,
                reasons: ReasonList(&zeros[..subscribe.filters.iter().count()]),
            }),
            Packet::Unsubscribe(unsubscribe) => {
                let count = match version {
                    Version::V5_0 => unsubscribe.filters.iter().count(),
                    _ => 0,
                };
                Packet::Unsuback(Unsuback {
                    id: unsubscribe.id,
                    properties: PropertyList::EMPTY,
                    reasons: ReasonList(&zeros[..count]),
                })
            }
            Packet::Pingreq => Packet::Pingresp,
            Packet::Disconnect(_) => return None,
            _ => continue,
        };
        out.extend(encode(&packet, version));
    }
    Some(out)
}
