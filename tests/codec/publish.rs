//! PUBLISH and its answers.

use coracle::codec::publish::{Naming, peek_id};
use coracle::codec::{Ack, AckKind, MAX_REMAINING, Overlong, Packet, Publish};
use coracle::{Properties, Qos, Reason, Version};

use crate::{
    ALL, NONE, OLD, accepted, golden, id, malformed, packet, protocol_error, reasons_are_listed,
    refused,
};

const V31: Version = Version::V3_1;
const V311: Version = Version::V3_1_1;
const V5: Version = Version::V5_0;

const PLAIN: Publish<'static> = Publish {
    dup: false,
    qos: Qos::AtMostOnce,
    retain: false,
    topic: "a/b",
    id: None,
    properties: NONE,
    payload: b"hi",
};

#[test]
fn publish_with_qos_0_has_no_id() {
    // [MQTT-2.2.1-2], [MQTT-3.3.2-1]
    for version in OLD {
        golden(version, Packet::Publish(PLAIN), b"\x30\x07\0\x03a/bhi");
    }
    golden(V5, Packet::Publish(PLAIN), b"\x30\x08\0\x03a/b\0hi");
}

#[test]
fn publish_with_qos_1_and_2_has_an_id() {
    // [MQTT-2.2.1-3]
    let first = Publish {
        qos: Qos::AtLeastOnce,
        retain: true,
        id: Some(id(7)),
        ..PLAIN
    };
    let again = Publish {
        dup: true,
        qos: Qos::ExactlyOnce,
        id: Some(id(0x1234)),
        ..PLAIN
    };
    for version in OLD {
        golden(
            version,
            Packet::Publish(first),
            b"\x33\x09\0\x03a/b\0\x07hi",
        );
        golden(
            version,
            Packet::Publish(again),
            b"\x3C\x09\0\x03a/b\x12\x34hi",
        );
    }
    golden(V5, Packet::Publish(first), b"\x33\x0A\0\x03a/b\0\x07\0hi");
    golden(V5, Packet::Publish(again), b"\x3C\x0A\0\x03a/b\x12\x34\0hi");
}

#[test]
fn a_payload_may_be_empty() {
    let publish = Publish {
        payload: b"",
        ..PLAIN
    };
    golden(V311, Packet::Publish(publish), b"\x30\x05\0\x03a/b");
    golden(V5, Packet::Publish(publish), b"\x30\x06\0\x03a/b\0");
}

#[test]
fn publish_carries_properties_on_5_0() {
    let properties = Properties::new()
        .content_type("t")
        .user_property("k", "v")
        .user_property("k", "v");
    let publish = Publish {
        properties: properties.list(),
        ..PLAIN
    };
    golden(
        V5,
        Packet::Publish(publish),
        b"\x30\x1A\0\x03a/b\x12\x03\0\x01t\x26\0\x01k\0\x01v\x26\0\x01k\0\x01vhi",
    );
    // Before, they cannot be said.
    let mut out = Vec::new();
    publish.encode(V311, &mut out).expect("it is short");
    assert_eq!(out, b"\x30\x07\0\x03a/bhi");
}

#[test]
fn the_head_is_everything_but_the_payload() {
    for version in ALL {
        let (mut head, mut whole) = (Vec::new(), Vec::new());
        PLAIN.encode_head(version, &mut head).expect("it is short");
        PLAIN.encode(version, &mut whole).expect("it is short");
        head.extend_from_slice(b"hi");
        assert_eq!(head, whole);
        assert_eq!(PLAIN.size(version), whole.len());
    }
}

#[test]
fn qos_3_is_malformed() {
    // [MQTT-3.3.1-4]
    for version in ALL {
        for first in [0x36, 0x37, 0x3E, 0x3F] {
            let bytes = packet(first, b"\0\x03a/b\0\x07\0hi");
            malformed(version, &bytes, "MQTT-3.3.1-4");
        }
    }
}

#[test]
fn qos_0_is_never_a_repetition() {
    // [MQTT-3.3.1-2]
    protocol_error(V311, b"\x38\x07\0\x03a/bhi", "MQTT-3.3.1-2");
    protocol_error(V5, b"\x39\x08\0\x03a/b\0hi", "MQTT-3.3.1-2");
    // MQTT 3.1, section 2.1: the flag only has no meaning there.
    let publish = Publish { dup: true, ..PLAIN };
    golden(V31, Packet::Publish(publish), b"\x38\x07\0\x03a/bhi");
}

#[test]
fn the_id_of_publish_is_not_0() {
    // [MQTT-2.2.1-3]
    for version in ALL {
        protocol_error(version, b"\x32\x08\0\x03a/b\0\0\0", "MQTT-2.2.1-3");
        protocol_error(version, b"\x34\x08\0\x03a/b\0\0\0", "MQTT-2.2.1-3");
    }
}

#[test]
fn a_topic_name_holds_no_wildcard() {
    // [MQTT-3.3.2-2]
    for topic in [b"a/+", b"a/#", b"a+b", b"#ab"] {
        let bytes = packet(0x30, &[&b"\0\x03"[..], topic, b"\0"].concat());
        for version in ALL {
            protocol_error(version, &bytes, "MQTT-3.3.2-2");
        }
    }
}

#[test]
fn a_wildcard_is_found_wherever_it_stands() {
    // Long enough for every way in which bytes may be compared several at a time.
    for length in 1..40 {
        for place in 0..length {
            let mut topic = vec![b'x'; length];
            topic[place] = b'#';
            let bytes = packet(0x30, &[&[0, length as u8][..], &topic].concat());
            protocol_error(V311, &bytes, "MQTT-3.3.2-2");
            topic[place] = 0;
            let bytes = packet(0x30, &[&[0, length as u8][..], &topic].concat());
            malformed(V311, &bytes, "MQTT-1.5.4-2");
        }
    }
}

#[test]
fn a_topic_name_holds_no_nul() {
    // [MQTT-1.5.4-2], [MQTT-4.7.3-2]
    for version in ALL {
        malformed(version, b"\x30\x06\0\x03a\0b\0", "MQTT-1.5.4-2");
    }
}

#[test]
fn a_topic_name_is_utf_8() {
    // [MQTT-1.5.4-1]: an overlong form, a surrogate, a lone continuation, a cut-off character.
    for topic in [b"\xC0\x80a", b"\xED\xA0\x80", b"a\x80b", b"ab\xC3"] {
        let bytes = packet(0x30, &[&b"\0\x03"[..], topic, b"\0"].concat());
        for version in ALL {
            malformed(version, &bytes, "MQTT-1.5.4-1");
        }
    }
}

#[test]
fn a_topic_name_keeps_its_byte_order_mark() {
    // [MQTT-1.5.4-3]
    let publish = Publish {
        topic: "\u{FEFF}",
        payload: b"",
        ..PLAIN
    };
    golden(
        V311,
        Packet::Publish(publish),
        b"\x30\x05\0\x03\xEF\xBB\xBF",
    );
}

#[test]
fn an_empty_topic_needs_an_alias() {
    // MQTT 5, section 3.3.2.1
    protocol_error(V5, b"\x30\x03\0\0\0", "MQTT5 3.3.2.1");
    protocol_error(V5, b"\x30\x08\0\0\x05\x02\0\0\0\x01", "MQTT5 3.3.2.1");
    let properties = Properties::new().topic_alias(5);
    let publish = Publish {
        topic: "",
        properties: properties.list(),
        ..PLAIN
    };
    golden(
        V5,
        Packet::Publish(publish),
        b"\x30\x08\0\0\x03\x23\0\x05hi",
    );
    // [MQTT-4.7.3-1]
    for version in OLD {
        protocol_error(version, b"\x30\x02\0\0", "MQTT-4.7.3-1");
    }
}

#[test]
fn a_topic_alias_is_not_0() {
    // [MQTT-3.3.2-8]
    refused(
        V5,
        b"\x30\x07\0\x01a\x03\x23\0\0",
        "MQTT-3.3.2-8",
        Reason::TOPIC_ALIAS_INVALID,
    );
}

#[test]
fn a_packet_above_the_length_field_is_not_written() {
    // The zeros are never touched, so they take no memory.
    let zeros = vec![0; MAX_REMAINING];
    let mut out = b"before".to_vec();
    // Two bytes of length and three of topic stand before the payload.
    let fits = Publish {
        payload: &zeros[5..],
        ..PLAIN
    };
    assert_eq!(fits.size(V311), MAX_REMAINING + 5);
    assert_eq!(fits.encode_head(V311, &mut out), Ok(()));
    assert_eq!(out, b"before\x30\xFF\xFF\xFF\x7F\0\x03a/b");
    assert!(out.capacity() < 1_000, "room for the head only");

    out.truncate(6);
    let overlong = Publish {
        payload: &zeros[4..],
        ..PLAIN
    };
    let error = Overlong {
        size: MAX_REMAINING + 1,
        limit: MAX_REMAINING,
    };
    assert_eq!(overlong.encode_head(V311, &mut out), Err(error));
    assert_eq!(overlong.encode(V311, &mut out), Err(error));
    // On 5.0 the byte of no properties is one too many.
    assert_eq!(fits.encode_head(V5, &mut out), Err(error));
    assert_eq!(out, b"before");
}

#[test]
fn the_length_grows_at_its_borders() {
    // MQTT 5, table 1-1
    let zeros = vec![0; 2_097_152];
    for (remaining, length) in [
        (127, &b"\x7F"[..]),
        (128, b"\x80\x01"),
        (16_383, b"\xFF\x7F"),
        (16_384, b"\x80\x80\x01"),
        (2_097_151, b"\xFF\xFF\x7F"),
        (2_097_152, b"\x80\x80\x80\x01"),
    ] {
        let publish = Publish {
            payload: &zeros[..remaining - 5],
            ..PLAIN
        };
        let mut out = Vec::new();
        publish.encode(V311, &mut out).expect("it fits");
        assert_eq!(out.len(), 1 + length.len() + remaining);
        assert_eq!(out.len(), publish.size(V311));
        assert_eq!(out.get(1..1 + length.len()), Some(length));
    }
}

#[test]
fn a_topic_that_is_too_long_is_not_written() {
    let long = "x".repeat(65_536);
    let publish = Publish {
        topic: &long,
        ..PLAIN
    };
    let error = Overlong {
        size: 65_536,
        limit: 65_535,
    };
    let mut out = b"before".to_vec();
    assert_eq!(publish.encode(V5, &mut out), Err(error));
    assert_eq!(out, b"before");
}

#[test]
fn the_payload_is_not_shown() {
    assert_eq!(format!("{PLAIN:?}"), r#"Publish { topic: "a/b", .. }"#);
}

#[test]
fn qos_and_id_are_seen_before_the_packet_is_whole() {
    let body = b"\0\x03a/b\x12\x34hi";
    // With QoS 0 the first byte says everything.
    assert_eq!(peek_id(0x30, b""), Some((Qos::AtMostOnce, None)));
    for here in 0..7 {
        assert_eq!(peek_id(0x32, &body[..here]), None, "{here}");
    }
    for here in 7..body.len() {
        let expected = Some((Qos::AtLeastOnce, Some(id(0x1234))));
        assert_eq!(peek_id(0x3B, &body[..here]), expected, "{here}");
    }
    let expected = Some((Qos::ExactlyOnce, Some(id(0x1234))));
    assert_eq!(peek_id(0x34, body), expected);
    // An id of 0 will not become another one with more bytes.
    assert_eq!(
        peek_id(0x34, b"\0\x01a\0\0"),
        Some((Qos::ExactlyOnce, None))
    );
}

const KINDS: [(AckKind, u8); 4] = [
    (AckKind::Puback, 0x40),
    (AckKind::Pubrec, 0x50),
    (AckKind::Pubrel, 0x62),
    (AckKind::Pubcomp, 0x70),
];

const fn answer(kind: AckKind, ack: Ack<'_>) -> Packet<'_> {
    match kind {
        AckKind::Puback => Packet::Puback(ack),
        AckKind::Pubrec => Packet::Pubrec(ack),
        AckKind::Pubrel => Packet::Pubrel(ack),
        AckKind::Pubcomp => Packet::Pubcomp(ack),
    }
}

fn ack(reason: Reason) -> Ack<'static> {
    Ack {
        id: id(0x1234),
        reason,
        properties: NONE,
    }
}

#[test]
fn a_successful_answer_is_four_bytes_in_every_version() {
    // MQTT 5, section 3.4.2.1
    for (kind, first) in KINDS {
        let success = answer(kind, ack(Reason::SUCCESS));
        for version in ALL {
            golden(version, success, &[first, 2, 0x12, 0x34]);
        }
        accepted(V5, &[first, 3, 0x12, 0x34, 0], success);
        accepted(V5, &[first, 4, 0x12, 0x34, 0, 0], success);
    }
}

#[test]
fn an_answer_without_properties_ends_after_its_reason() {
    // MQTT 5, section 3.4.2.2.1
    for (kind, first) in KINDS {
        let (code, reason) = match kind {
            AckKind::Puback | AckKind::Pubrec => (0x97, Reason::QUOTA_EXCEEDED),
            AckKind::Pubrel | AckKind::Pubcomp => (0x92, Reason::PACKET_IDENTIFIER_NOT_FOUND),
        };
        let failure = answer(kind, ack(reason));
        golden(V5, failure, &[first, 3, 0x12, 0x34, code]);
        accepted(V5, &[first, 4, 0x12, 0x34, code, 0], failure);
    }
}

#[test]
fn an_answer_carries_properties_on_5_0() {
    let properties = Properties::new().reason_string("no");
    let ack = Ack {
        properties: properties.list(),
        ..ack(Reason::SUCCESS)
    };
    for (kind, first) in KINDS {
        let bytes = packet(first, b"\x12\x34\0\x05\x1F\0\x02no");
        golden(V5, answer(kind, ack), &bytes);
        // Before, neither they nor a reason can be said.
        let mut out = Vec::new();
        ack.encode(kind, V311, &mut out).expect("it is short");
        assert_eq!(out, [first, 2, 0x12, 0x34]);
    }
}

#[test]
fn an_answer_of_3_x_is_an_id_and_nothing_else() {
    for version in OLD {
        for (_kind, first) in KINDS {
            malformed(version, &[first, 3, 0x12, 0x34, 0], "MQTT5 2.1.4");
        }
    }
}

#[test]
fn the_id_of_an_answer_is_not_0() {
    // [MQTT-2.2.1-3]
    for version in ALL {
        for (_kind, first) in KINDS {
            protocol_error(version, &[first, 2, 0, 0], "MQTT-2.2.1-3");
        }
    }
}

#[test]
fn an_answer_uses_only_its_listed_reasons() {
    // [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1]
    let received = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99][..];
    let released = &[0x00, 0x92][..];
    for (first, listed, clause) in [
        (0x40, received, "MQTT-3.4.2-1"),
        (0x50, received, "MQTT-3.5.2-1"),
        (0x62, released, "MQTT-3.6.2-1"),
        (0x70, released, "MQTT-3.7.2-1"),
    ] {
        reasons_are_listed(listed, clause, |code| packet(first, &[0, 7, code]));
    }
}

#[test]
fn an_answer_ends_after_its_properties() {
    for (_kind, first) in KINDS {
        malformed(V5, &[first, 5, 0x12, 0x34, 0, 0, 0], "MQTT5 2.1.4");
    }
}

#[test]
fn an_answer_with_other_flags_is_malformed() {
    // [MQTT-3.6.1-1], [MQTT-2.1.3-1]
    for version in ALL {
        malformed(version, b"\x60\x02\0\x07", "MQTT-3.6.1-1");
        malformed(version, b"\x63\x02\0\x07", "MQTT-3.6.1-1");
        malformed(version, b"\x42\x02\0\x07", "MQTT-2.1.3-1");
        malformed(version, b"\x51\x02\0\x07", "MQTT-2.1.3-1");
        malformed(version, b"\x72\x02\0\x07", "MQTT-2.1.3-1");
    }
}

#[test]
fn a_topic_can_be_named_by_itself_with_an_alias_and_by_the_alias_alone() {
    // MQTT 5, section 3.3.2.3.4; in front of 0 to 300 bytes of other properties, at each length of the header.
    for (value, payload) in [(0, 0), (0, 120), (100, 20), (130, 130), (300, 20_000)] {
        let value = "v".repeat(value);
        let others = Properties::new().user_property("k", &value);
        let payload = vec![b'x'; payload];
        for others in [Properties::new(), others] {
            for id in [None, Some(id(0x1234))] {
                let publish = Publish {
                    qos: id.map_or(Qos::AtMostOnce, |_| Qos::ExactlyOnce),
                    retain: true,
                    dup: id.is_some(),
                    id,
                    properties: others.list(),
                    payload: &payload,
                    ..PLAIN
                };
                for (naming, topic) in [
                    (Naming::Topic, "a/b"),
                    (Naming::Both(0x0102), "a/b"),
                    (Naming::Alias(0x0102), ""),
                ] {
                    let mut properties = Properties::new();
                    if naming != Naming::Topic {
                        properties = properties.topic_alias(0x0102);
                    }
                    for property in others.list().iter() {
                        properties = properties.with(property);
                    }
                    let expected = Publish {
                        topic,
                        properties: properties.list(),
                        ..publish
                    };
                    let mut head = Vec::new();
                    publish
                        .encode_head_as(naming, &mut head)
                        .expect("it is short");
                    head.extend_from_slice(&payload);
                    let mut whole = Vec::new();
                    expected.encode(V5, &mut whole).expect("it is short");
                    assert_eq!(head, whole);
                    assert_eq!(crate::read(V5, &head), Ok(Packet::Publish(expected)));
                }
            }
        }
    }
}
