//! Which property may stand where, how often, and with which values.

use coracle::codec::{Packet, decode, split};
use coracle::{PropertyList, Reason, Version};

use crate::{malformed, packet, protocol_error, read, refused};

const V5: Version = Version::V5_0;

/// Where a block of properties stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Connect,
    Will,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Disconnect,
    Auth,
}

use Place::{
    Auth, Connack, Connect, Disconnect, Puback, Pubcomp, Publish, Pubrec, Pubrel, Suback,
    Subscribe, Unsuback, Unsubscribe, Will,
};

const PLACES: [Place; 14] = [
    Connect,
    Will,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Disconnect,
    Auth,
];

/// Table 2-4 of MQTT 5: an example of each property and the packets in which it may stand.
pub(crate) const TABLE: [(&[u8], &[Place]); 27] = [
    (b"\x01\x01", &[Publish, Will]),
    (b"\x02\0\0\0\x01", &[Publish, Will]),
    (b"\x03\0\x01a", &[Publish, Will]),
    (b"\x08\0\x01a", &[Publish, Will]),
    (b"\x09\0\x01a", &[Publish, Will]),
    (b"\x0B\x01", &[Publish, Subscribe]),
    (b"\x11\0\0\0\x01", &[Connect, Connack, Disconnect]),
    (b"\x12\0\x01a", &[Connack]),
    (b"\x13\0\x01", &[Connack]),
    (b"\x15\0\x01a", &[Connect, Connack, Auth]),
    (b"\x16\0\x01a", &[Connect, Connack, Auth]),
    (b"\x17\x01", &[Connect]),
    (b"\x18\0\0\0\x01", &[Will]),
    (b"\x19\x01", &[Connect]),
    (b"\x1A\0\x01a", &[Connack]),
    (b"\x1C\0\x01a", &[Connack, Disconnect]),
    (
        b"\x1F\0\x01a",
        &[
            Connack, Puback, Pubrec, Pubrel, Pubcomp, Suback, Unsuback, Disconnect, Auth,
        ],
    ),
    (b"\x21\0\x01", &[Connect, Connack]),
    (b"\x22\0\x01", &[Connect, Connack]),
    (b"\x23\0\x01", &[Publish]),
    (b"\x24\x01", &[Connack]),
    (b"\x25\x01", &[Connack]),
    (b"\x26\0\x01a\0\x01b", &PLACES),
    (b"\x27\0\0\0\x01", &[Connect, Connack]),
    (b"\x28\x01", &[Connack]),
    (b"\x29\x01", &[Connack]),
    (b"\x2A\x01", &[Connack]),
];

/// A packet with `properties` at `place`, right in everything else.
fn with(place: Place, properties: &[u8]) -> Vec<u8> {
    // What the other rules demand beside the property in question.
    let lacks_method = place == Auth && !properties.starts_with(b"\x15")
        || place == Connect && properties.starts_with(b"\x16");
    let companion: &[u8] = if lacks_method { b"\x15\0\x01x" } else { b"" };
    let length = [(properties.len() + companion.len()) as u8];
    let block = [&length[..], companion, properties].concat();
    let (first, before, after): (u8, &[u8], &[u8]) = match place {
        Connect => (0x10, b"\0\x04MQTT\x05\x02\0\0", b"\0\0"),
        Will => (0x10, b"\0\x04MQTT\x05\x06\0\0\0\0\0", b"\0\x01w\0\0"),
        Connack => (0x20, b"\0\0", b""),
        Publish => (0x30, b"\0\x01a", b"payload"),
        Puback => (0x40, b"\0\x07\0", b""),
        Pubrec => (0x50, b"\0\x07\0", b""),
        Pubrel => (0x62, b"\0\x07\0", b""),
        Pubcomp => (0x70, b"\0\x07\0", b""),
        Subscribe => (0x82, b"\0\x07", b"\0\x01a\0"),
        Suback => (0x90, b"\0\x07", b"\0"),
        Unsubscribe => (0xA2, b"\0\x07", b"\0\x01a"),
        Unsuback => (0xB0, b"\0\x07", b"\0"),
        Disconnect => (0xE0, b"\0", b""),
        Auth => (0xF0, b"\0", b""),
    };
    packet(first, &[before, &block, after].concat())
}

fn list<'a>(place: Place, packet: &Packet<'a>) -> PropertyList<'a> {
    match packet {
        Packet::Connect(connect) if place == Will => {
            connect.will.map(|will| will.properties).unwrap_or_default()
        }
        Packet::Connect(packet) => packet.properties,
        Packet::Connack(packet) => packet.properties,
        Packet::Publish(packet) => packet.properties,
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            ack.properties
        }
        Packet::Subscribe(packet) => packet.properties,
        Packet::Suback(packet) => packet.properties,
        Packet::Unsubscribe(packet) => packet.properties,
        Packet::Unsuback(packet) => packet.properties,
        Packet::Disconnect(packet) => packet.properties,
        Packet::Auth(packet) => packet.properties,
        Packet::Pingreq | Packet::Pingresp => PropertyList::EMPTY,
    }
}

#[test]
fn every_property_stands_in_its_packets_only() {
    // MQTT 5, section 2.2.2.2: elsewhere the packet is malformed.
    for (property, allowed) in TABLE {
        for place in PLACES {
            let bytes = with(place, property);
            if allowed.contains(&place) {
                let found = read(V5, &bytes).map(|packet| {
                    let mut list = list(place, &packet).iter();
                    list.any(|found| found.id() == property[0])
                });
                assert_eq!(found, Ok(true), "{place:?} {bytes:02X?}");
            } else {
                malformed(V5, &bytes, "MQTT5 2.2.2.2");
            }
        }
    }
}

#[test]
fn a_property_stands_only_once() {
    // MQTT 5, sections 3.1.2.11.2 and others: "It is a Protocol Error to include … more than once."
    for (property, allowed) in TABLE {
        let id = property[0];
        for place in allowed {
            let bytes = with(*place, &[property, property].concat());
            let repeatable = id == 0x26 || (id == 0x0B && *place == Publish);
            if repeatable {
                let count = read(V5, &bytes).map(|packet| {
                    let list = list(*place, &packet);
                    list.iter().filter(|property| property.id() == id).count()
                });
                assert_eq!(count, Ok(2), "{place:?} {bytes:02X?}");
            } else {
                protocol_error(V5, &bytes, "MQTT5 2.2.2.2");
            }
        }
    }
}

#[test]
fn user_properties_keep_their_order() {
    let bytes = with(Publish, b"\x26\0\x01k\0\x012\x26\0\x01k\0\x011");
    let packet = read(V5, &bytes).expect("it is right");
    let users: Vec<_> = list(Publish, &packet).user_properties().collect();
    assert_eq!(users, [("k", "2"), ("k", "1")]);
}

#[test]
fn properties_are_borrowed() {
    let bytes = with(Publish, b"\x03\0\x01t");
    let range = bytes.as_ptr_range();
    let Ok(coracle::codec::Split::Whole { frame, .. }) = split(&bytes) else {
        panic!("it is whole");
    };
    let packet = decode(V5, frame).expect("it is right");
    let text = list(Publish, &packet).content_type().expect("it is there");
    assert!(range.contains(&text.as_ptr()));
}

#[test]
fn an_unknown_property_is_malformed() {
    // MQTT 5, section 2.2.2.2; 0x80 0x01 is the identifier 128.
    for unknown in [&b"\0"[..], b"\x04\0", b"\x2B\0", b"\x7F\0", b"\x80\x01\0"] {
        malformed(V5, &with(Publish, unknown), "MQTT5 2.2.2.2");
    }
    // [MQTT-1.5.5-1]: also an identifier is as short as possible.
    malformed(V5, &with(Publish, b"\x81\0\x01"), "MQTT-1.5.5-1");
}

#[test]
fn a_property_that_is_cut_off_is_malformed() {
    // MQTT 5, section 2.2.2: what is missing is not looked for behind the block.
    for (property, allowed) in TABLE {
        for length in 1..property.len() {
            let bytes = with(allowed[0], &property[..length]);
            malformed(V5, &bytes, "MQTT5 2.2.2");
        }
    }
}

#[test]
fn a_block_of_properties_that_is_cut_off_is_malformed() {
    malformed(V5, b"\x30\x04\0\x01a\x05", "MQTT5 2.1.4");
    malformed(V5, b"\x30\x04\0\x01a\x80", "MQTT5 2.1.4");
    malformed(V5, b"\x30\x05\0\x01a\xFF\x7F", "MQTT5 2.1.4");
    // [MQTT-1.5.5-1], MQTT 5, section 1.5.5
    malformed(V5, b"\x30\x05\0\x01a\x80\0", "MQTT-1.5.5-1");
    malformed(V5, b"\x30\x07\0\x01a\x80\x80\x80\x80", "MQTT5 1.5.5");
}

#[test]
fn texts_in_properties_are_utf_8_without_nul() {
    // [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-1.5.7-1], [MQTT-3.3.2-13], [MQTT-3.3.2-19]
    for (bad, clause) in [
        (&b"\x03\0\x01\xFF"[..], "MQTT-1.5.4-1"),
        (b"\x03\0\x01\0", "MQTT-1.5.4-2"),
        (b"\x08\0\x01\xFF", "MQTT-1.5.4-1"),
        (b"\x26\0\x01\xFF\0\x01a", "MQTT-1.5.4-1"),
        (b"\x26\0\x01a\0\x01\xFF", "MQTT-1.5.4-1"),
        (b"\x26\0\x01\0\0\x01a", "MQTT-1.5.4-2"),
        (b"\x26\0\x01a\0\x01\0", "MQTT-1.5.4-2"),
    ] {
        malformed(V5, &with(Publish, bad), clause);
    }
}

#[test]
fn values_that_a_property_may_not_have() {
    for (place, bad, clause) in [
        // MQTT 5, section 3.8.2.1.2
        (Publish, &b"\x0B\0"[..], "MQTT5 3.8.2.1.2"),
        (Subscribe, b"\x0B\0", "MQTT5 3.8.2.1.2"),
        // MQTT 5, section 3.1.2.11.3
        (Connect, b"\x21\0\0", "MQTT5 3.1.2.11.3"),
        (Connack, b"\x21\0\0", "MQTT5 3.1.2.11.3"),
        // MQTT 5, section 3.1.2.11.4
        (Connack, b"\x27\0\0\0\0", "MQTT5 3.1.2.11.4"),
        // MQTT 5, section 3.2.2.3.4
        (Connack, b"\x24\x02", "MQTT5 3.2.2.3.4"),
        // MQTT 5, sections 3.1.2.11.6, 3.1.2.11.7, 3.2.2.3.5 and 3.2.2.3.11 to 13
        (Publish, b"\x01\x02", "MQTT5 2.2.2.2"),
        (Connect, b"\x17\x02", "MQTT5 2.2.2.2"),
        (Connect, b"\x19\x02", "MQTT5 2.2.2.2"),
        (Connack, b"\x25\x02", "MQTT5 2.2.2.2"),
        (Connack, b"\x28\x02", "MQTT5 2.2.2.2"),
        (Connack, b"\x29\x02", "MQTT5 2.2.2.2"),
        (Connack, b"\x2A\x02", "MQTT5 2.2.2.2"),
        // [MQTT-3.3.2-14]
        (Publish, b"\x08\0\x01#", "MQTT-3.3.2-14"),
        (Will, b"\x08\0\x01+", "MQTT-3.3.2-14"),
    ] {
        protocol_error(V5, &with(place, bad), clause);
    }
    // [MQTT-3.3.2-8]
    let bytes = with(Publish, b"\x23\0\0");
    refused(V5, &bytes, "MQTT-3.3.2-8", Reason::TOPIC_ALIAS_INVALID);
}
