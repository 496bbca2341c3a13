//! AUTH.

use coracle::codec::{Auth, Packet};
use coracle::{Properties, Reason, Version};

use crate::{NONE, OLD, golden, malformed, packet, protocol_error, reasons_are_listed};

const V5: Version = Version::V5_0;

#[test]
fn auth_is_read_and_written() {
    let properties = Properties::new()
        .authentication_method("x")
        .authentication_data(b"12");
    golden(
        V5,
        Packet::Auth(Auth {
            reason: Reason::CONTINUE_AUTHENTICATION,
            properties: properties.list(),
        }),
        b"\xF0\x0B\x18\x09\x15\0\x01x\x16\0\x0212",
    );
}

#[test]
fn auth_with_success_and_no_properties_is_empty() {
    // MQTT 5, section 3.15.2.1
    let auth = Auth {
        reason: Reason::SUCCESS,
        properties: NONE,
    };
    golden(V5, Packet::Auth(auth), b"\xF0\0");
}

#[test]
fn auth_uses_only_its_listed_reasons() {
    // [MQTT-3.15.2-1]
    reasons_are_listed(&[0x00, 0x18, 0x19], "MQTT-3.15.2-1", |code| {
        packet(0xF0, &[code, 4, 0x15, 0, 1, b'x'])
    });
}

#[test]
fn auth_has_an_authentication_method() {
    // MQTT 5, section 3.15.2.2.2
    protocol_error(V5, b"\xF0\x02\x18\0", "MQTT5 3.15.2.2.2");
    protocol_error(V5, b"\xF0\x06\x18\x04\x16\0\x01x", "MQTT5 3.15.2.2.2");
}

#[test]
fn auth_does_not_end_after_the_reason() {
    // MQTT 5, section 3.15.2: unlike in DISCONNECT the property length may be left out only together
    // with the reason.
    malformed(V5, b"\xF0\x01\x18", "MQTT5 2.1.4");
}

#[test]
fn auth_ends_after_its_properties() {
    malformed(V5, b"\xF0\x07\x18\x04\x15\0\x01x\0", "MQTT5 2.1.4");
}

#[test]
fn auth_with_flags_is_malformed() {
    // [MQTT-3.15.1-1]
    for flags in 1..=0x0F {
        malformed(V5, &[0xF0 | flags, 0], "MQTT-3.15.1-1");
    }
}

#[test]
fn auth_does_not_exist_before_5_0() {
    // MQTT 3.1.1, section 2.2.1: the type 15 is reserved.
    for version in OLD {
        protocol_error(version, b"\xF0\0", "MQTT5 3.15");
    }
}
