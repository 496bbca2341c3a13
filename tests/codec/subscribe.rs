//! SUBSCRIBE and SUBACK.

use coracle::codec::subscribe::{FilterList, FilterOptions, ReasonList, push_filter};
use coracle::codec::{Packet, Suback, Subscribe};
use coracle::{Properties, Qos, Reason, Version};

use crate::{
    ALL, NONE, OLD, accepted, golden, id, malformed, packet, protocol_error, reasons_are_listed,
};

const V31: Version = Version::V3_1;
const V311: Version = Version::V3_1_1;
const V5: Version = Version::V5_0;

const fn only(qos: Qos) -> FilterOptions {
    FilterOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    }
}

#[test]
fn subscribe_in_every_version() {
    let mut filters = Vec::new();
    push_filter(&mut filters, "a/#", only(Qos::AtLeastOnce));
    push_filter(&mut filters, "+", only(Qos::ExactlyOnce));
    let subscribe = Subscribe {
        id: id(7),
        properties: NONE,
        filters: FilterList::new(&filters),
    };
    for version in OLD {
        golden(
            version,
            Packet::Subscribe(subscribe),
            b"\x82\x0C\0\x07\0\x03a/#\x01\0\x01+\x02",
        );
    }
    let properties = Properties::new().subscription_identifier(300);
    let subscribe = Subscribe {
        properties: properties.list(),
        ..subscribe
    };
    let bytes = b"\x82\x10\0\x07\x03\x0B\xAC\x02\0\x03a/#\x01\0\x01+\x02";
    golden(V5, Packet::Subscribe(subscribe), bytes);
    assert_eq!(subscribe.size(V5), bytes.len());

    let read: Vec<_> = subscribe.filters.iter().collect();
    assert_eq!(
        read,
        [
            ("a/#", only(Qos::AtLeastOnce)),
            ("+", only(Qos::ExactlyOnce))
        ]
    );
}

#[test]
fn options_are_written_on_5_0_only() {
    // MQTT 5, section 3.8.3.1; MQTT 3.1.1, section 3.8.3: the upper six bits are reserved.
    let options = FilterOptions {
        qos: Qos::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: 2,
    };
    assert_eq!(options.bits(), 0x2D);
    let mut filters = Vec::new();
    push_filter(&mut filters, "a", options);
    push_filter(&mut filters, "b", options);
    let subscribe = Subscribe {
        id: id(7),
        properties: NONE,
        filters: FilterList::new(&filters),
    };
    golden(
        V5,
        Packet::Subscribe(subscribe),
        b"\x82\x0B\0\x07\0\0\x01a\x2D\0\x01b\x2D",
    );
    for version in OLD {
        let mut out = Vec::new();
        subscribe.encode(version, &mut out).expect("it is short");
        assert_eq!(out, b"\x82\x0A\0\x07\0\x01a\x01\0\x01b\x01");
    }
    assert!(subscribe.filters.iter().all(|(_, read)| read == options));
}

#[test]
fn the_id_of_subscribe_is_not_0() {
    // [MQTT-2.2.1-3]
    for version in OLD {
        protocol_error(version, b"\x82\x06\0\0\0\x01a\0", "MQTT-2.2.1-3");
    }
    protocol_error(V5, b"\x82\x07\0\0\0\0\x01a\0", "MQTT-2.2.1-3");
}

#[test]
fn subscribe_has_at_least_one_filter() {
    // [MQTT-3.8.3-2], [MQTT-3.8.3-3] of 3.1.1
    for version in OLD {
        protocol_error(version, b"\x82\x02\0\x07", "MQTT-3.8.3-2");
    }
    protocol_error(V5, b"\x82\x03\0\x07\0", "MQTT-3.8.3-2");
}

#[test]
fn filters_are_utf_8_without_nul() {
    // [MQTT-3.8.3-1], [MQTT-4.7.3-2]
    for version in OLD {
        malformed(version, b"\x82\x06\0\x07\0\x01\xFF\0", "MQTT-1.5.4-1");
        malformed(version, b"\x82\x06\0\x07\0\x01\0\0", "MQTT-1.5.4-2");
    }
}

#[test]
fn filters_are_well_formed() {
    for (filter, clause) in [
        // [MQTT-4.7.3-1]
        ("", "MQTT-4.7.3-1"),
        // [MQTT-4.7.1-1]
        ("a#", "MQTT-4.7.1-1"),
        ("#/a", "MQTT-4.7.1-1"),
        // [MQTT-4.7.1-2]
        ("a/b+", "MQTT-4.7.1-2"),
        // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
        ("$share/g", "MQTT-4.8.2-2"),
        ("$share//a", "MQTT-4.8.2-2"),
        ("$share/+/a", "MQTT-4.8.2-2"),
    ] {
        let length = [0, filter.len() as u8];
        let body = [b"\0\x07\0\x01a\0", &length[..], filter.as_bytes(), b"\0"].concat();
        for version in OLD {
            protocol_error(version, &packet(0x82, &body), clause);
        }
    }
}

#[test]
fn a_shared_subscription_has_no_no_local() {
    // [MQTT-3.8.3-4]
    protocol_error(V5, b"\x82\x10\0\x07\0\0\x0A$share/g/a\x04", "MQTT-3.8.3-4");
}

#[test]
fn reserved_bits_of_options_are_zero() {
    // [MQTT-3.8.3-5], [MQTT-3.8.3-4] of 3.1.1
    for bits in [0x40, 0x80, 0xC1] {
        let bytes = packet(0x82, &[0, 7, 0, 0, 1, b'a', bits]);
        malformed(V5, &bytes, "MQTT-3.8.3-5");
    }
    for bits in [0x04, 0x08, 0x10, 0x20, 0x40, 0x80] {
        let bytes = packet(0x82, &[0, 7, 0, 1, b'a', bits]);
        for version in OLD {
            malformed(version, &bytes, "MQTT-3.8.3-5");
        }
    }
}

#[test]
fn a_subscription_has_no_qos_3() {
    // MQTT 5, section 3.8.3.1; [MQTT-3.8.3-4] of 3.1.1
    for version in OLD {
        protocol_error(version, b"\x82\x06\0\x07\0\x01a\x03", "MQTT5 3.8.3.1");
    }
    protocol_error(V5, b"\x82\x07\0\x07\0\0\x01a\x03", "MQTT5 3.8.3.1");
}

#[test]
fn retain_handling_is_not_3() {
    // MQTT 5, section 3.8.3.1
    protocol_error(V5, b"\x82\x07\0\x07\0\0\x01a\x30", "MQTT5 3.8.3.1");
}

#[test]
fn subscribe_with_other_flags_is_malformed() {
    // [MQTT-3.8.1-1]
    for version in ALL {
        malformed(version, b"\x80\x06\0\x07\0\x01a\0", "MQTT-3.8.1-1");
        malformed(version, b"\x83\x06\0\x07\0\x01a\0", "MQTT-3.8.1-1");
    }
}

#[test]
fn suback_in_every_version() {
    // [MQTT-3.8.4-6], [MQTT-3.9.3-1]
    let suback = Suback {
        id: id(7),
        properties: NONE,
        reasons: ReasonList(&[0, 2, 1]),
    };
    for version in OLD {
        golden(version, Packet::Suback(suback), b"\x90\x05\0\x07\0\x02\x01");
    }
    let properties = Properties::new().reason_string("ok");
    let suback = Suback {
        properties: properties.list(),
        ..suback
    };
    golden(
        V5,
        Packet::Suback(suback),
        b"\x90\x0B\0\x07\x05\x1F\0\x02ok\0\x02\x01",
    );
    let reasons: Vec<_> = suback.reasons.iter().collect();
    assert_eq!(
        reasons,
        [
            Reason::SUCCESS,
            Reason::GRANTED_QOS_2,
            Reason::GRANTED_QOS_1
        ]
    );
}

#[test]
fn suback_uses_only_its_listed_reasons() {
    // [MQTT-3.9.3-2]
    let listed = [
        0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
    ];
    reasons_are_listed(&listed, "MQTT-3.9.3-2", |code| {
        packet(0x90, &[0, 7, 0, 0, code])
    });
}

#[test]
fn suback_of_3_x_grants_or_fails() {
    // [MQTT-3.9.3-2] of 3.1.1; MQTT 3.1, section 3.9 has no failure.
    for code in 3..=u8::MAX {
        let bytes = [0x90, 4, 0, 7, 0, code];
        protocol_error(V31, &bytes, "MQTT-3.9.3-2");
        if code == 0x80 {
            let suback = Suback {
                id: id(7),
                properties: NONE,
                reasons: ReasonList(&[0, 0x80]),
            };
            accepted(V311, &bytes, Packet::Suback(suback));
        } else {
            protocol_error(V311, &bytes, "MQTT-3.9.3-2");
        }
    }
}

#[test]
fn suback_has_at_least_one_reason() {
    // [MQTT-3.8.4-6]: one per filter, and there was at least one.
    for version in OLD {
        protocol_error(version, b"\x90\x02\0\x07", "MQTT-3.8.4-6");
    }
    protocol_error(V5, b"\x90\x03\0\x07\0", "MQTT-3.8.4-6");
}

#[test]
fn the_id_of_suback_is_not_0() {
    // [MQTT-2.2.1-3]
    for version in ALL {
        protocol_error(version, b"\x90\x04\0\0\0\0", "MQTT-2.2.1-3");
    }
}
