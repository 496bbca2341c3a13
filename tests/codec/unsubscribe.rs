//! UNSUBSCRIBE and UNSUBACK.

use coracle::codec::subscribe::ReasonList;
use coracle::codec::unsubscribe::{NameList, push_name};
use coracle::codec::{Packet, Unsuback, Unsubscribe};
use coracle::{Properties, Reason, Version};

use crate::{ALL, NONE, OLD, golden, id, malformed, packet, protocol_error, reasons_are_listed};

const V5: Version = Version::V5_0;

#[test]
fn unsubscribe_in_every_version() {
    // [MQTT-3.10.3-1]
    let mut filters = Vec::new();
    push_name(&mut filters, "a/#");
    push_name(&mut filters, "$share/g/b");
    let unsubscribe = Unsubscribe {
        id: id(7),
        properties: NONE,
        filters: NameList::new(&filters),
    };
    for version in OLD {
        golden(
            version,
            Packet::Unsubscribe(unsubscribe),
            b"\xA2\x13\0\x07\0\x03a/#\0\x0A$share/g/b",
        );
    }
    let properties = Properties::new().user_property("k", "v");
    let unsubscribe = Unsubscribe {
        properties: properties.list(),
        ..unsubscribe
    };
    let bytes = b"\xA2\x1B\0\x07\x07\x26\0\x01k\0\x01v\0\x03a/#\0\x0A$share/g/b";
    golden(V5, Packet::Unsubscribe(unsubscribe), bytes);
    assert_eq!(unsubscribe.size(V5), bytes.len());

    let read: Vec<_> = unsubscribe.filters.iter().collect();
    assert_eq!(read, ["a/#", "$share/g/b"]);
}

#[test]
fn unsubscribe_has_at_least_one_filter() {
    // [MQTT-3.10.3-2]
    for version in OLD {
        protocol_error(version, b"\xA2\x02\0\x07", "MQTT-3.10.3-2");
    }
    protocol_error(V5, b"\xA2\x03\0\x07\0", "MQTT-3.10.3-2");
}

#[test]
fn names_are_utf_8_and_well_formed() {
    // [MQTT-3.10.3-1], [MQTT-1.5.4-2], [MQTT-4.7.3-1], [MQTT-4.7.1-1], [MQTT-4.7.1-2]
    for version in OLD {
        malformed(version, b"\xA2\x05\0\x07\0\x01\xFF", "MQTT-1.5.4-1");
        malformed(version, b"\xA2\x05\0\x07\0\x01\0", "MQTT-1.5.4-2");
        protocol_error(version, b"\xA2\x04\0\x07\0\0", "MQTT-4.7.3-1");
        protocol_error(version, b"\xA2\x06\0\x07\0\x02a#", "MQTT-4.7.1-1");
        protocol_error(version, b"\xA2\x06\0\x07\0\x02a+", "MQTT-4.7.1-2");
    }
}

#[test]
fn the_id_of_unsubscribe_is_not_0() {
    // [MQTT-2.2.1-3]
    for version in OLD {
        protocol_error(version, b"\xA2\x05\0\0\0\x01a", "MQTT-2.2.1-3");
    }
    protocol_error(V5, b"\xA2\x06\0\0\0\0\x01a", "MQTT-2.2.1-3");
}

#[test]
fn unsubscribe_with_other_flags_is_malformed() {
    // [MQTT-3.10.1-1]
    for version in ALL {
        malformed(version, b"\xA0\x05\0\x07\0\x01a", "MQTT-3.10.1-1");
        malformed(version, b"\xA3\x05\0\x07\0\x01a", "MQTT-3.10.1-1");
    }
}

#[test]
fn unsuback_has_reasons_on_5_0_only() {
    // [MQTT-3.11.3-1]
    let unsuback = Unsuback {
        id: id(7),
        properties: NONE,
        reasons: ReasonList(&[]),
    };
    for version in OLD {
        golden(version, Packet::Unsuback(unsuback), b"\xB0\x02\0\x07");
        malformed(version, b"\xB0\x03\0\x07\0", "MQTT5 2.1.4");
    }
    let unsuback = Unsuback {
        reasons: ReasonList(&[0x00, 0x11]),
        ..unsuback
    };
    golden(V5, Packet::Unsuback(unsuback), b"\xB0\x05\0\x07\0\0\x11");
    let reasons: Vec<_> = unsuback.reasons.iter().collect();
    assert_eq!(reasons, [Reason::SUCCESS, Reason::NO_SUBSCRIPTION_EXISTED]);
    // Before, they cannot be said.
    let mut out = Vec::new();
    unsuback
        .encode(Version::V3_1_1, &mut out)
        .expect("it is short");
    assert_eq!(out, b"\xB0\x02\0\x07");
}

#[test]
fn unsuback_uses_only_its_listed_reasons() {
    // [MQTT-3.11.3-2]
    let listed = [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
    reasons_are_listed(&listed, "MQTT-3.11.3-2", |code| {
        packet(0xB0, &[0, 7, 0, 0, code])
    });
}

#[test]
fn unsuback_has_at_least_one_reason_on_5_0() {
    // [MQTT-3.11.3-1]: one per filter, and there was at least one.
    protocol_error(V5, b"\xB0\x03\0\x07\0", "MQTT-3.11.3-1");
    // The form of 3.x lacks the property length.
    malformed(V5, b"\xB0\x02\0\x07", "MQTT5 2.1.4");
}

#[test]
fn the_id_of_unsuback_is_not_0() {
    // [MQTT-2.2.1-3]
    for version in ALL {
        protocol_error(version, b"\xB0\x02\0\0", "MQTT-2.2.1-3");
    }
}
