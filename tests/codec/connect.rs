//! CONNECT, CONNACK and DISCONNECT.

use coracle::codec::{Connack, Connect, Disconnect, Overlong, Packet, Will};
use coracle::{Properties, Qos, Reason, Version};

use crate::{
    ALL, NONE, OLD, accepted, golden, malformed, packet, protocol_error, read, reasons_are_listed,
    refused,
};

const V31: Version = Version::V3_1;
const V311: Version = Version::V3_1_1;
const V5: Version = Version::V5_0;

const fn plain(version: Version) -> Connect<'static> {
    Connect {
        version,
        clean: true,
        keep_alive: 60,
        client_id: "a",
        will: None,
        user_name: None,
        password: None,
        properties: NONE,
    }
}

#[test]
fn a_plain_connect_in_every_version() {
    // [MQTT-3.1.2-1], [MQTT-3.1.3-3]
    golden(
        V31,
        Packet::Connect(plain(V31)),
        b"\x10\x0F\0\x06MQIsdp\x03\x02\0\x3C\0\x01a",
    );
    golden(
        V311,
        Packet::Connect(plain(V311)),
        b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01a",
    );
    // [MQTT-2.2.2-1]: no properties are a length of 0.
    golden(
        V5,
        Packet::Connect(plain(V5)),
        b"\x10\x0E\0\x04MQTT\x05\x02\0\x3C\0\0\x01a",
    );
}

#[test]
fn a_full_connect_in_every_version() {
    // [MQTT-3.1.3-1]: client id, will, user name, password in this order; [MQTT-3.1.2-9, -17, -19].
    let will = Will {
        qos: Qos::AtLeastOnce,
        retain: true,
        topic: "w",
        payload: b"gone",
        properties: NONE,
    };
    let full = |version| Connect {
        will: Some(will),
        user_name: Some("u"),
        password: Some(b"p"),
        client_id: "id",
        ..plain(version)
    };
    golden(
        V31,
        Packet::Connect(full(V31)),
        b"\x10\x1F\0\x06MQIsdp\x03\xEE\0\x3C\0\x02id\0\x01w\0\x04gone\0\x01u\0\x01p",
    );
    golden(
        V311,
        Packet::Connect(full(V311)),
        b"\x10\x1D\0\x04MQTT\x04\xEE\0\x3C\0\x02id\0\x01w\0\x04gone\0\x01u\0\x01p",
    );
    let properties = Properties::new()
        .session_expiry_interval(10)
        .receive_maximum(20);
    let delay = Properties::new().will_delay_interval(5);
    let connect = Connect {
        clean: false,
        will: Some(Will {
            qos: Qos::ExactlyOnce,
            properties: delay.list(),
            ..will
        }),
        properties: properties.list(),
        ..full(V5)
    };
    golden(
        V5,
        Packet::Connect(connect),
        b"\x10\x2C\0\x04MQTT\x05\xF4\0\x3C\x08\x11\0\0\0\x0A\x21\0\x14\
          \0\x02id\x05\x18\0\0\0\x05\0\x01w\0\x04gone\0\x01u\0\x01p",
    );
}

#[test]
fn a_connect_tells_its_own_version() {
    let mut out = Vec::new();
    let connect = Packet::Connect(plain(V31));
    connect.encode(V5, &mut out).expect("it is short");
    for version in ALL {
        accepted(version, &out, connect);
    }
}

#[test]
fn a_body_of_two_length_bytes_is_written_right() {
    let id = "x".repeat(200);
    let connect = Connect {
        client_id: &id,
        ..plain(V311)
    };
    let bytes = [
        &b"\x10\xD4\x01\0\x04MQTT\x04\x02\0\x3C\0\xC8"[..],
        id.as_bytes(),
    ]
    .concat();
    golden(V311, Packet::Connect(connect), &bytes);
    assert_eq!(connect.size(), bytes.len());
}

#[test]
fn an_unknown_protocol_is_refused() {
    // [MQTT-3.1.2-1], [MQTT-3.1.2-2]: the answer to it is CONNACK 0x84.
    for bytes in [
        &b"\x10\x0D\0\x04MQTX\x04\x02\0\x3C\0\x01a"[..],
        b"\x10\x0D\0\x04mqtt\x04\x02\0\x3C\0\x01a",
        b"\x10\x0D\0\x04MQTT\x03\x02\0\x3C\0\x01a",
        b"\x10\x0D\0\x04MQTT\x06\x02\0\x3C\0\x01a",
        b"\x10\x0F\0\x06MQIsdp\x04\x02\0\x3C\0\x01a",
    ] {
        let reason = Reason::UNSUPPORTED_PROTOCOL_VERSION;
        refused(V5, bytes, "MQTT-3.1.2-2", reason);
    }
}

#[test]
fn the_reserved_connect_flag_is_zero() {
    // [MQTT-3.1.2-3]
    malformed(
        V311,
        b"\x10\x0D\0\x04MQTT\x04\x03\0\x3C\0\x01a",
        "MQTT-3.1.2-3",
    );
    malformed(
        V5,
        b"\x10\x0E\0\x04MQTT\x05\x03\0\x3C\0\0\x01a",
        "MQTT-3.1.2-3",
    );
}

#[test]
fn without_a_will_there_is_no_qos_for_it() {
    // [MQTT-3.1.2-11]
    for flags in [0x0A, 0x12, 0x1A] {
        let bytes = packet(
            0x10,
            &[b"\0\x04MQTT\x04", &[flags][..], b"\0\x3C\0\x01a"].concat(),
        );
        malformed(V311, &bytes, "MQTT-3.1.2-11");
    }
}

#[test]
fn a_will_has_no_qos_3() {
    // [MQTT-3.1.2-12]
    malformed(
        V311,
        b"\x10\x12\0\x04MQTT\x04\x1E\0\x3C\0\x01a\0\x01w\0\0",
        "MQTT-3.1.2-12",
    );
}

#[test]
fn without_a_will_there_is_no_retain_for_it() {
    // [MQTT-3.1.2-13]
    malformed(
        V311,
        b"\x10\x0D\0\x04MQTT\x04\x22\0\x3C\0\x01a",
        "MQTT-3.1.2-13",
    );
}

#[test]
fn a_flag_promises_its_field() {
    // [MQTT-3.1.2-9], [MQTT-3.1.2-17], [MQTT-3.1.2-19]
    for flags in [0x06, 0x82] {
        let bytes = packet(
            0x10,
            &[b"\0\x04MQTT\x04", &[flags][..], b"\0\x3C\0\x01a"].concat(),
        );
        malformed(V311, &bytes, "MQTT5 2.1.4");
    }
    malformed(
        V311,
        b"\x10\x10\0\x04MQTT\x04\xC2\0\x3C\0\x01a\0\x01u",
        "MQTT5 2.1.4",
    );
}

#[test]
fn a_field_without_its_flag_is_malformed() {
    // [MQTT-3.1.2-11], [MQTT-3.1.2-16], [MQTT-3.1.2-18]
    malformed(
        V311,
        b"\x10\x10\0\x04MQTT\x04\x02\0\x3C\0\x01a\0\x01u",
        "MQTT5 2.1.4",
    );
}

#[test]
fn a_password_alone_is_for_5_0() {
    // [MQTT-3.1.2-22] of 3.1.1; MQTT 5, section 3.1.2.9
    let clause = "MQTT-3.1.2-22 of 3.1.1";
    malformed(
        V31,
        b"\x10\x12\0\x06MQIsdp\x03\x42\0\x3C\0\x01a\0\x01p",
        clause,
    );
    malformed(
        V311,
        b"\x10\x10\0\x04MQTT\x04\x42\0\x3C\0\x01a\0\x01p",
        clause,
    );
    let connect = Connect {
        password: Some(b"p"),
        ..plain(V5)
    };
    golden(
        V5,
        Packet::Connect(connect),
        b"\x10\x11\0\x04MQTT\x05\x42\0\x3C\0\0\x01a\0\x01p",
    );
}

#[test]
fn the_client_id_is_always_there() {
    // [MQTT-3.1.3-3]
    malformed(V311, b"\x10\x0A\0\x04MQTT\x04\x02\0\x3C", "MQTT5 2.1.4");
}

#[test]
fn an_empty_client_id_needs_a_clean_session() {
    // [MQTT-3.1.3-7] of 3.1.1; the answer to it is CONNACK 0x02.
    refused(
        V311,
        b"\x10\x0C\0\x04MQTT\x04\0\0\x3C\0\0",
        "MQTT-3.1.3-7 of 3.1.1",
        Reason::CLIENT_IDENTIFIER_NOT_VALID,
    );
    let clean = Connect {
        client_id: "",
        ..plain(V311)
    };
    golden(
        V311,
        Packet::Connect(clean),
        b"\x10\x0C\0\x04MQTT\x04\x02\0\x3C\0\0",
    );
    // MQTT 5, section 3.1.3.1: the server assigns one.
    let kept = Connect {
        version: V5,
        clean: false,
        ..clean
    };
    golden(
        V5,
        Packet::Connect(kept),
        b"\x10\x0D\0\x04MQTT\x05\0\0\x3C\0\0\0",
    );
}

#[test]
fn a_client_id_of_3_1_has_1_to_23_characters() {
    // MQTT 3.1, section 3.1
    for (count, allowed) in [(0, false), (1, true), (23, true), (24, false)] {
        // Characters, not bytes: each takes two.
        let id = "ä".repeat(count);
        let length = [0, (2 * count) as u8];
        let head: &[u8] = b"\0\x06MQIsdp\x03\x02\0\x3C";
        let bytes = packet(0x10, &[head, &length, id.as_bytes()].concat());
        if allowed {
            let connect = Connect {
                client_id: &id,
                ..plain(V31)
            };
            golden(V31, Packet::Connect(connect), &bytes);
        } else {
            let reason = Reason::CLIENT_IDENTIFIER_NOT_VALID;
            refused(V31, &bytes, "MQTT3.1 3.1", reason);
        }
    }
}

#[test]
fn texts_of_connect_are_utf_8() {
    // [MQTT-3.1.3-4], [MQTT-3.1.3-11], [MQTT-3.1.3-12]; ED A0 80 is the surrogate U+D800.
    for bytes in [
        &b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01\xFF"[..],
        b"\x10\x0F\0\x04MQTT\x04\x02\0\x3C\0\x03\xED\xA0\x80",
        b"\x10\x12\0\x04MQTT\x04\x06\0\x3C\0\x01a\0\x01\xFF\0\0",
        b"\x10\x10\0\x04MQTT\x04\x82\0\x3C\0\x01a\0\x01\xFF",
    ] {
        malformed(V311, bytes, "MQTT-1.5.4-1");
    }
}

#[test]
fn texts_of_connect_hold_no_nul() {
    // [MQTT-1.5.4-2]
    for bytes in [
        &b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01\0"[..],
        b"\x10\x12\0\x04MQTT\x04\x06\0\x3C\0\x01a\0\x01\0\0\0",
        b"\x10\x10\0\x04MQTT\x04\x82\0\x3C\0\x01a\0\x01\0",
    ] {
        malformed(V311, bytes, "MQTT-1.5.4-2");
    }
}

#[test]
fn a_byte_order_mark_is_a_character() {
    // [MQTT-1.5.4-3]
    let connect = Connect {
        client_id: "\u{FEFF}a",
        ..plain(V311)
    };
    golden(
        V311,
        Packet::Connect(connect),
        b"\x10\x10\0\x04MQTT\x04\x02\0\x3C\0\x04\xEF\xBB\xBFa",
    );
}

#[test]
fn the_topic_of_a_will_is_a_topic_name() {
    // [MQTT-4.7.0-1], [MQTT-4.7.3-1]
    protocol_error(
        V311,
        b"\x10\x12\0\x04MQTT\x04\x06\0\x3C\0\x01a\0\x01#\0\0",
        "MQTT-4.7.0-1",
    );
    protocol_error(
        V311,
        b"\x10\x11\0\x04MQTT\x04\x06\0\x3C\0\x01a\0\0\0\0",
        "MQTT-4.7.3-1",
    );
}

#[test]
fn authentication_data_needs_a_method() {
    // MQTT 5, section 3.1.2.11.10
    protocol_error(
        V5,
        b"\x10\x12\0\x04MQTT\x05\x02\0\x3C\x04\x16\0\x01x\0\x01a",
        "MQTT5 3.1.2.11.10",
    );
}

#[test]
fn a_text_that_is_too_long_leaves_the_buffer_alone() {
    let long = "x".repeat(65_536);
    let overlong = Err(Overlong {
        size: 65_536,
        limit: 65_535,
    });
    let will = Will {
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "w",
        payload: long.as_bytes(),
        properties: NONE,
    };
    for connect in [
        Connect {
            client_id: &long,
            ..plain(V5)
        },
        Connect {
            will: Some(will),
            ..plain(V5)
        },
        Connect {
            password: Some(long.as_bytes()),
            ..plain(V5)
        },
    ] {
        let mut out = b"before".to_vec();
        assert_eq!(connect.encode(&mut out), overlong);
        assert_eq!(out, b"before");
    }
}

#[test]
fn secrets_are_not_shown() {
    let connect = Connect {
        user_name: Some("user"),
        password: Some(b"hunter2"),
        will: Some(Will {
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "w",
            payload: b"hunter2",
            properties: NONE,
        }),
        ..plain(V5)
    };
    assert_eq!(
        format!("{:?}", Packet::Connect(connect)),
        r#"Connect(Connect { client_id: "a", .. })"#
    );
    assert_eq!(
        format!("{:?}", connect.will),
        r#"Some(Will { topic: "w", .. })"#
    );
}

const fn connack(reason: Reason) -> Connack<'static> {
    Connack {
        session_present: false,
        reason,
        properties: NONE,
    }
}

#[test]
fn an_accepting_connack_in_every_version() {
    let fresh = connack(Reason::SUCCESS);
    let resumed = Connack {
        session_present: true,
        ..fresh
    };
    golden(V31, Packet::Connack(fresh), b"\x20\x02\0\0");
    golden(V311, Packet::Connack(fresh), b"\x20\x02\0\0");
    golden(V311, Packet::Connack(resumed), b"\x20\x02\x01\0");
    // MQTT 3.1, section 3.2: there is no such flag.
    let mut out = Vec::new();
    resumed.encode(V31, &mut out).expect("it is short");
    assert_eq!(out, b"\x20\x02\0\0");
    golden(V5, Packet::Connack(resumed), b"\x20\x03\x01\0\0");
    let properties = Properties::new()
        .assigned_client_identifier("me")
        .server_keep_alive(30);
    let resumed = Connack {
        properties: properties.list(),
        ..resumed
    };
    golden(
        V5,
        Packet::Connack(resumed),
        b"\x20\x0B\x01\0\x08\x12\0\x02me\x13\0\x1E",
    );
}

#[test]
fn return_codes_of_3_x_are_translated_both_ways() {
    // MQTT 3.1.1, table 3.1
    for (code, reason) in [
        (1, Reason::UNSUPPORTED_PROTOCOL_VERSION),
        (2, Reason::CLIENT_IDENTIFIER_NOT_VALID),
        (3, Reason::SERVER_UNAVAILABLE),
        (4, Reason::BAD_USER_NAME_OR_PASSWORD),
        (5, Reason::NOT_AUTHORIZED),
    ] {
        for version in OLD {
            golden(
                version,
                Packet::Connack(connack(reason)),
                &[0x20, 2, 0, code],
            );
        }
    }
}

#[test]
fn a_reserved_return_code_is_a_refusal() {
    // MQTT 3.1.1, section 3.2.2.3 reserves them; brokers use them.
    let refusal = Packet::Connack(connack(Reason::UNSPECIFIED_ERROR));
    for code in 6..=u8::MAX {
        for version in OLD {
            accepted(version, &[0x20, 2, 0, code], refusal);
        }
    }
    golden(V311, refusal, &[0x20, 2, 0, 0x80]);
}

#[test]
fn reasons_that_3_x_does_not_have_become_a_reserved_code() {
    let mut out = Vec::new();
    let busy = connack(Reason::SERVER_BUSY);
    busy.encode(V311, &mut out).expect("it is short");
    assert_eq!(out, b"\x20\x02\0\x80");
}

#[test]
fn reserved_flags_of_connack_are_zero() {
    // [MQTT-3.2.2-1]
    for flags in 2..=u8::MAX {
        malformed(V311, &[0x20, 2, flags, 0], "MQTT-3.2.2-1");
        malformed(V5, &[0x20, 3, flags, 0, 0], "MQTT-3.2.2-1");
        // MQTT 3.1, section 3.2: the byte is not used.
        accepted(
            V31,
            &[0x20, 2, flags, 0],
            Packet::Connack(connack(Reason::SUCCESS)),
        );
    }
}

#[test]
fn a_refusing_connack_has_no_session() {
    // [MQTT-3.2.2-6], [MQTT-3.2.2-4] of 3.1.1
    protocol_error(V311, b"\x20\x02\x01\x05", "MQTT-3.2.2-6");
    protocol_error(V5, b"\x20\x03\x01\x87\0", "MQTT-3.2.2-6");
}

#[test]
fn connack_uses_only_its_listed_reasons() {
    // [MQTT-3.2.2-8]
    let listed = [
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95,
        0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
    ];
    reasons_are_listed(&listed, "MQTT-3.2.2-8", |code| packet(0x20, &[0, code, 0]));
}

#[test]
fn a_refusal_in_the_form_of_3_x_is_understood_on_5_0() {
    // MQTT 3.1.1, section 3.1.2.2: a server that does not know 5.0 answers 0x01 in its own form.
    for (code, reason) in [
        (1, Reason::UNSUPPORTED_PROTOCOL_VERSION),
        (5, Reason::NOT_AUTHORIZED),
        (7, Reason::UNSPECIFIED_ERROR),
        (0x84, Reason::UNSUPPORTED_PROTOCOL_VERSION),
        (0x97, Reason::QUOTA_EXCEEDED),
        (0xFF, Reason::new(0xFF)),
    ] {
        let refusal = Packet::Connack(connack(reason));
        accepted(V5, &[0x20, 2, 0, code], refusal);
        // Its first byte has no meaning in 3.1.
        accepted(V5, &[0x20, 2, 1, code], refusal);
    }
}

#[test]
fn an_acceptance_in_the_form_of_3_x_is_a_refusal_of_5_0() {
    // What was asked for was 5.0, and what follows would be 3.x too.
    let refusal = Packet::Connack(connack(Reason::UNSUPPORTED_PROTOCOL_VERSION));
    for flags in [0, 1] {
        accepted(V5, &[0x20, 2, flags, 0], refusal);
    }
    // A packet that is cut short is still malformed.
    malformed(V5, b"\x20\x01\0", "MQTT5 2.1.4");
}

#[test]
fn connack_ends_after_its_last_field() {
    malformed(V31, b"\x20\x03\0\0\0", "MQTT5 2.1.4");
    malformed(V311, b"\x20\x03\0\0\0", "MQTT5 2.1.4");
    malformed(V5, b"\x20\x04\0\0\0\0", "MQTT5 2.1.4");
}

#[test]
fn disconnect_is_as_short_as_possible() {
    // MQTT 5, section 3.14.2.1
    let disconnect = Disconnect {
        reason: Reason::SUCCESS,
        properties: NONE,
    };
    for version in ALL {
        golden(version, Packet::Disconnect(disconnect), b"\xE0\0");
    }
    let with_will = Packet::Disconnect(Disconnect {
        reason: Reason::DISCONNECT_WITH_WILL,
        properties: NONE,
    });
    golden(V5, with_will, b"\xE0\x01\x04");
    let properties = Properties::new().reason_string("so");
    let disconnect = Disconnect {
        reason: Reason::SERVER_BUSY,
        properties: properties.list(),
    };
    golden(
        V5,
        Packet::Disconnect(disconnect),
        b"\xE0\x07\x89\x05\x1F\0\x02so",
    );
    // The long forms of the first two.
    accepted(V5, b"\xE0\x01\0", read(V5, b"\xE0\0").expect("as above"));
    accepted(V5, b"\xE0\x02\0\0", read(V5, b"\xE0\0").expect("as above"));
    accepted(V5, b"\xE0\x02\x04\0", with_will);
}

#[test]
fn disconnect_of_3_x_has_no_reason() {
    let mut out = Vec::new();
    let disconnect = Disconnect {
        reason: Reason::SERVER_BUSY,
        properties: NONE,
    };
    disconnect.encode(V311, &mut out).expect("it is short");
    assert_eq!(out, b"\xE0\0");
    for version in OLD {
        malformed(version, b"\xE0\x01\0", "MQTT5 2.1.4");
    }
}

#[test]
fn disconnect_uses_only_its_listed_reasons() {
    // [MQTT-3.14.2-1]; 0x8C stands only in the general list of section 2.4.
    let listed = [
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93,
        0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];
    reasons_are_listed(&listed, "MQTT-3.14.2-1", |code| packet(0xE0, &[code]));
}

#[test]
fn disconnect_with_flags_is_malformed() {
    // [MQTT-3.14.1-1]
    for version in ALL {
        for flags in 1..=0x0F {
            malformed(version, &[0xE0 | flags, 0], "MQTT-3.14.1-1");
        }
    }
}

#[test]
fn disconnect_ends_after_its_properties() {
    malformed(V5, b"\xE0\x03\0\0\0", "MQTT5 2.1.4");
}
