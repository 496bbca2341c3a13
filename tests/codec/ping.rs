//! PINGREQ and PINGRESP.

use coracle::codec::Packet;

use crate::{ALL, golden, malformed};

#[test]
fn pings_are_two_bytes_in_every_version() {
    for version in ALL {
        golden(version, Packet::Pingreq, b"\xC0\0");
        golden(version, Packet::Pingresp, b"\xD0\0");
    }
}

#[test]
fn a_ping_with_a_body_is_malformed() {
    // MQTT 5, sections 3.12 and 3.13: there is neither variable header nor payload.
    for version in ALL {
        malformed(version, b"\xC0\x01\0", "MQTT5 2.1.4");
        malformed(version, b"\xD0\x01\0", "MQTT5 2.1.4");
    }
}

#[test]
fn a_ping_with_flags_is_malformed() {
    // [MQTT-2.1.3-1]
    for version in ALL {
        for flags in 1..=0x0F {
            malformed(version, &[0xC0 | flags, 0], "MQTT-2.1.3-1");
            malformed(version, &[0xD0 | flags, 0], "MQTT-2.1.3-1");
        }
    }
}
