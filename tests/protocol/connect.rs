//! CONNECT and CONNACK: credentials, refusals, timeouts, what each session setting sends.

use std::time::Duration;

use coracle::protocol::SessionMode;
use coracle::{ErrorKind, Message, Properties, Qos, Reason, Sent, Wait};

use crate::*;

#[test]
fn user_name_password_and_will_are_sent() {
    // [MQTT-3.1.3-1], [MQTT-3.1.2-9], [MQTT-3.1.2-17], [MQTT-3.1.2-19]
    let credentials = Credentials {
        user_name: Some("u".into()),
        password: Some(b"p\0".to_vec()),
        will: Some(
            Message::new("w", "bye")
                .qos(Qos::ExactlyOnce)
                .retain(true)
                .properties(Properties::new().will_delay_interval(5)),
        ),
    };
    play(&v5(), |scene| {
        scene.connect_as(&credentials);
        scene.sends(&[
            b"\x10\x33\0\x04MQTT\x05\xF4\0\x3C",
            b"\x10\x11\0\0\x0E\x10\x21\x04\0\x27\0\x10\0\0\x22\0\x10",
            b"\0\x01c\x05\x18\0\0\0\x05\0\x01w\0\x03bye\0\x01u\0\x02p\0",
        ]);
    });
    play(&v3(), |scene| {
        scene.connect_as(&credentials);
        scene.sends(&[b"\x10\x1C\0\x04MQTT\x04\xF4\0\x3C\0\x01c\0\x01w\0\x03bye\0\x01u\0\x02p\0"]);
    });
}

#[test]
fn a_password_is_not_shown() {
    let credentials = Credentials {
        user_name: Some("u".into()),
        password: Some(b"secret".to_vec()),
        will: None,
    };
    assert!(!format!("{credentials:?}").contains("secret"));
    assert!(!format!("{credentials:?}").contains("115"));
}

#[test]
fn a_password_without_a_user_name_is_possible_since_5_0() {
    // [MQTT-3.1.2-22 of 3.1.1]
    let credentials = Credentials {
        password: Some(b"p".to_vec()),
        ..Credentials::default()
    };
    play(&v5(), |scene| scene.connect_as(&credentials));
    for version in [Version::V3_1, Version::V3_1_1] {
        play(&config(version), |scene| {
            let error = scene
                .protocol
                .connect(scene.now, &credentials)
                .expect_err("3.x cannot say this");
            assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
            scene.turn();
            scene.sends_nothing();
        });
    }
}

#[test]
fn a_client_id_of_3_1_has_1_to_23_characters() {
    for (id, good) in [
        ("", false),
        ("c", true),
        ("12345678901234567890123", true),
        ("äöüäöüäöüäöüäöüäöüäöüäö", true),
        ("123456789012345678901234", false),
    ] {
        play(&Config::new(Version::V3_1, id), |scene| {
            let outcome = scene.protocol.connect(scene.now, &Credentials::default());
            assert_eq!(outcome.is_ok(), good, "{id:?}");
        });
    }
}

#[test]
fn a_client_without_an_id_has_no_session_on_3_1_1() {
    // [MQTT-3.1.3-7 of 3.1.1]
    play(&Config::new(Version::V3_1_1, ""), |scene| {
        for _ in 0..3 {
            scene.connect();
            scene.sends(&[b"\x10\x0C\0\x04MQTT\x04\x02\0\x3C\0\0"]);
            scene.receive(CONNACK);
            assert_eq!(scene.effect(), "Connected(Lost)");
            scene.cut();
        }
    });
}

#[test]
fn will_and_credentials_that_are_too_long_are_an_error() {
    let long = "x".repeat(65_536);
    for credentials in [
        Credentials {
            user_name: Some(long.clone()),
            ..Credentials::default()
        },
        Credentials {
            will: Some(Message::new("w", long.as_str())),
            ..Credentials::default()
        },
    ] {
        play(&v5(), |scene| {
            let error = scene
                .protocol
                .connect(scene.now, &credentials)
                .expect_err("longer than a text can be");
            assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }));
            scene.turn();
            scene.sends_nothing();
            // The attempt did not begin, and the next one is not disturbed.
            scene.open();
        });
    }
}

#[test]
fn session_settings_show_in_connect() {
    let expiry = b"\x11\0\0\x0E\x10";
    for (mode, clean, keeps) in [
        (SessionMode::Fresh, 0, true),
        (SessionMode::Resume, 0, true),
        (SessionMode::None, 2, false),
    ] {
        let config = Config {
            session: mode,
            ..v5()
        };
        play(&config, |scene| {
            scene.connect();
            assert_eq!(scene.wire[9], clean, "{mode:?}");
            let found = scene.wire.windows(5).any(|bytes| bytes == expiry);
            assert_eq!(found, keeps, "{mode:?}");
        });
    }
}

#[test]
fn connack_has_to_come_in_time() {
    play(&v5(), |scene| {
        scene.connect();
        scene.wait(9);
        assert!(scene.protocol.poll_timeout().is_some());
        let error = scene
            .pass(Duration::from_secs(1))
            .expect_err("CONNACK did not come");
        assert!(matches!(error.kind(), ErrorKind::TimedOut(span) if span.as_secs() == 10));
        assert_eq!(error.to_string(), "connect: no answer within 10s");
    });
}

#[test]
fn a_refusal_is_an_error_with_its_reason_and_text() {
    play(&v5(), |scene| {
        scene.connect();
        let error = scene.refuses(b"\x20\x08\0\x87\x05\x1F\0\x02no");
        assert_eq!(error.reason(), Some(Reason::NOT_AUTHORIZED));
        assert_eq!(
            error.to_string(),
            "connect: the broker refused: not authorized (0x87), \"no\""
        );
        assert!(!scene.protocol.is_online());
    });
    // The return codes of 3.x are the reasons of 5.0.
    for (code, reason) in [
        (1, Reason::UNSUPPORTED_PROTOCOL_VERSION),
        (2, Reason::CLIENT_IDENTIFIER_NOT_VALID),
        (3, Reason::SERVER_UNAVAILABLE),
        (4, Reason::BAD_USER_NAME_OR_PASSWORD),
        (5, Reason::NOT_AUTHORIZED),
    ] {
        play(&v3(), |scene| {
            scene.connect();
            let error = scene.refuses(&[0x20, 2, 0, code]);
            assert_eq!(error.reason(), Some(reason));
        });
    }
}

#[test]
fn a_refused_attempt_changes_nothing_of_the_session() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.cut();
        for _ in 0..3 {
            scene.connect();
            scene.refuses(b"\x20\x03\0\x89\0");
            scene.cut();
        }
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
        scene.goes_on(token);
    });
}

#[test]
fn a_refusal_in_the_form_of_3_x_is_a_refusal() {
    play(&v5(), |scene| {
        scene.connect();
        let error = scene.refuses(b"\x20\x02\0\x01");
        assert_eq!(error.reason(), Some(Reason::UNSUPPORTED_PROTOCOL_VERSION));
    });
}

#[test]
fn what_connack_says_can_be_read() {
    play(&v5(), |scene| {
        // Topic Alias Maximum 5, Wildcard, Identifiers and Shared not available, User Property
        scene.open_with(b"\x20\x13\0\0\x10\x22\0\x05\x28\0\x29\0\x2A\0\x26\0\x01k\0\x01v");
        let limits = scene.protocol.limits().expect("online");
        assert_eq!(limits.topic_alias_maximum, 5);
        assert!(!limits.wildcards_available);
        assert!(!limits.identifiers_available);
        assert!(!limits.shared_available);
        let list = limits.properties.list();
        let properties: Vec<_> = list.user_properties().collect();
        assert_eq!(properties, [("k", "v")]);
    });
}

#[test]
fn what_connack_does_not_say_has_the_value_of_the_standard() {
    play_online(&v5(), |scene| {
        let limits = scene.protocol.limits().expect("online");
        // Our own window is below 65,535.
        assert_eq!(limits.receive_maximum, 1024);
        assert_eq!(limits.maximum_qos, Qos::ExactlyOnce);
        assert_eq!(limits.topic_alias_maximum, 0);
        assert!(limits.retain_available);
        assert!(limits.wildcards_available);
        assert!(limits.shared_available);
        assert!(limits.identifiers_available);
        assert_eq!(limits.keep_alive, Some(Duration::from_secs(60)));
    });
}

#[test]
fn nobody_else_is_given_the_id_that_a_broker_assigns() {
    play(&v5(), |scene| {
        scene.open_with(b"\x20\x08\0\0\x05\x12\0\x02zz");
        assert_eq!(scene.protocol.client_id(), "c");
    });
}

#[test]
fn disconnect_is_the_last_packet() {
    // [MQTT-3.14.4-1]
    play_online(&v5(), |scene| {
        scene.publish_0(b"x", Wait::None);
        scene
            .protocol
            .disconnect(
                Reason::DISCONNECT_WITH_WILL,
                Properties::new().reason_string("no").list(),
            )
            .expect("it can be sent");
        scene.turn();
        scene.sends(&[b"\x30\x05\0\x01t\0x", b"\xE0\x07\x04\x05\x1F\0\x02no"]);
        scene.publish(Qos::AtLeastOnce, b"x", Wait::None);
        scene.publish(Qos::AtMostOnce, b"x", Wait::None);
        scene.subscribe(&["f"], Qos::AtMostOnce, Wait::None);
        scene.disconnect();
        scene.wait(100_000);
        scene.sends_nothing();
    });
    // [MQTT-3.14.4-2 of 3.1.1]
    play_online(&v3(), |scene| {
        scene.publish_0(b"x", Wait::None);
        scene.hold = true;
        scene.receive(b"\x32\x06\0\x01t\0\x01a");
        let got = scene.gets("t", b"a");
        scene.disconnect();
        scene.sends(&[b"\x30\x04\0\x01tx", DISCONNECT]);
        scene.take(&got);
        scene.publish(Qos::AtLeastOnce, b"x", Wait::None);
        scene.publish(Qos::AtMostOnce, b"x", Wait::None);
        scene.subscribe(&["f"], Qos::AtMostOnce, Wait::None);
        scene.unsubscribe(&["f"], Wait::None);
        scene.receive(b"\x34\x06\0\x01t\0\x02a\x62\x02\0\x02");
        scene.disconnect();
        scene.wait(100_000);
        scene.sends_nothing();
    });
}

#[test]
fn a_disconnect_that_the_broker_cannot_take_does_not_leave() {
    play(&v5(), |scene| {
        // Maximum Packet Size 10
        scene.open_with(b"\x20\x08\0\0\x05\x27\0\0\0\x0A");
        // [MQTT-3.14.2-3], [MQTT-3.14.2-4]
        for properties in [
            Properties::new().reason_string("a long story"),
            Properties::new().user_property("story", "short"),
        ] {
            let error = scene
                .protocol
                .disconnect(Reason::SUCCESS, properties.list())
                .expect_err("too large");
            assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }));
            assert!(scene.protocol.is_online());
            scene.turn();
            scene.sends_nothing();
        }
        scene.disconnect();
        scene.sends(&[DISCONNECT]);
    });
}

#[test]
fn a_disconnect_without_a_connection_does_nothing() {
    play(&v5(), |scene| {
        scene.disconnect();
        scene.sends_nothing();
        scene.open();
        scene.sends_nothing();
    });
}

#[test]
fn a_session_that_was_ended_by_a_disconnect_is_not_gone_on_with() {
    play_online(&v5(), |scene| {
        let properties = Properties::new().session_expiry_interval(0);
        scene
            .protocol
            .disconnect(Reason::SUCCESS, properties.list())
            .expect("it can be sent");
        scene.turn();
        scene.sends(&[b"\xE0\x07\0\x05\x11\0\0\0\0"]);
        scene.cut();
        scene.connect();
        scene.wire.clear();
        // It did not arrive: what is still there is ended before anything else.
        scene.receive(b"\x20\x03\x01\0\0");
        scene.sends(&[b"\xE0\x07\0\x05\x11\0\0\0\0"]);
        assert!(!scene.protocol.is_online());
    });
}

#[test]
fn another_broker_starts_clean() {
    // 5.0 starts clean, 3.1.1 finds out whether there is something to wipe.
    play(&Config::new(Version::V5_0, ""), |scene| {
        scene.open_with(b"\x20\x08\0\0\x05\x12\0\x02zz");
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.cut();
        scene.protocol.forget_session();
        // The id was that broker's.
        assert_eq!(scene.protocol.client_id(), "");
        scene.wire.clear();
        scene.connect();
        assert_eq!(scene.wire[9], 2, "Clean Start");
        scene.receive(CONNACK_5);
        assert_eq!(scene.effect(), "Connected(Lost)");
        assert_eq!(scene.fails(token).sent(), Sent::Maybe);
    });
    play_online(&v3(), |scene| {
        scene.cut();
        scene.protocol.forget_session();
        scene.connect();
        scene.receive(PRESENT);
        assert_eq!(scene.effect(), "Again");
    });
}

#[test]
fn another_broker_starts_clean_even_if_sessions_are_resumed() {
    for (version, clean) in [(Version::V5_0, 2), (Version::V3_1_1, 2), (Version::V3_1, 2)] {
        let config = Config {
            session: SessionMode::Resume,
            ..config(version)
        };
        play_online(&config, |scene| {
            scene.cut();
            scene.protocol.forget_session();
            scene.wire.clear();
            scene.connect();
            let flags = scene.wire[if version == Version::V3_1 { 11 } else { 9 }];
            assert_eq!(flags, clean, "{version}");
        });
    }
}

#[test]
fn another_version_starts_clean() {
    play_online(&v5(), |scene| {
        scene.cut();
        scene.protocol.set_version(Version::V3_1_1);
        scene.connect();
        scene.sends(&[b"\x10\x0D\0\x04MQTT\x04\0\0\x3C\0\x01c"]);
        scene.receive(PRESENT);
        assert_eq!(scene.effect(), "Again");
        scene.cut();
        scene.open();
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.sends(&[b"\x32\x06\0\x01t\0\x01a"]);
        // The same version again changes nothing.
        scene.cut();
        scene.protocol.set_version(Version::V3_1_1);
        scene.open_with(PRESENT);
        scene.sends(&[b"\x3A\x06\0\x01t\0\x01a"]);
    });
}

#[test]
fn what_the_settings_say_replaces_what_the_properties_say_also_by_leaving_it_out() {
    // Else the broker would use aliases up to 9 and be accused for it [MQTT-3.1.2-26].
    let config = Config {
        session: SessionMode::None,
        receive_maximum: u16::MAX,
        topic_alias_maximum: 0,
        properties: Properties::new()
            .session_expiry_interval(9)
            .receive_maximum(9)
            .topic_alias_maximum(9)
            .maximum_packet_size(9)
            .user_property("a", "b"),
        ..v5()
    };
    play(&config, |scene| {
        scene.connect();
        scene.sends(&[
            b"\x10\x1A\0\x04MQTT\x05\x02\0\x3C",
            b"\x0C\x26\0\x01a\0\x01b\x27\0\x10\0\0\0\x01c",
        ]);
    });
}

#[test]
fn before_5_0_disconnect_is_two_bytes_and_ends_no_session() {
    play_online(&v3(), |scene| {
        scene
            .protocol
            .disconnect(
                Reason::DISCONNECT_WITH_WILL,
                Properties::new().session_expiry_interval(0).list(),
            )
            .expect("it can be sent");
        scene.turn();
        scene.sends(&[DISCONNECT]);
        scene.cut();
        scene.open_with(PRESENT);
    });
}

#[test]
fn a_session_of_less_than_a_second_is_none() {
    // CONNECT sends whole seconds, and DISCONNECT may not raise a 0 (MQTT 5, section 3.14.2.2.2).
    let config = Config {
        session_expiry: Duration::from_millis(999),
        ..v5()
    };
    assert!(!config.keeps_session());
}

#[test]
fn texts_and_wills_that_cannot_be_sent_fail_the_attempt() {
    let with_will = |will: Message| Credentials {
        will: Some(will),
        ..Credentials::default()
    };
    for credentials in [
        // [MQTT-1.5.4-2]
        Credentials {
            user_name: Some("a\0b".into()),
            ..Credentials::default()
        },
        // [MQTT-4.7.0-1]
        with_will(Message::new("a/+", "x")),
        with_will(Message::new("", "x")),
        // MQTT 5, table 2-4: no property of a will.
        with_will(Message::new("a", "x").properties(Properties::new().topic_alias(1))),
        // [MQTT-3.3.2-14]
        with_will(Message::new("a", "x").properties(Properties::new().response_topic("a/#"))),
    ] {
        play(&v5(), |scene| {
            let outcome = scene.protocol.connect(scene.now, &credentials);
            let error = outcome.expect_err("CONNECT cannot be sent");
            assert_eq!(error.blame(), coracle::Blame::You, "{error}");
            scene.turn();
            scene.sends_nothing();
        });
    }
}

#[test]
fn a_broker_may_offer_qos_0_only() {
    // [MQTT-3.2.2-11]
    play(&v5(), |scene| {
        scene.open_with(b"\x20\x05\0\0\x02\x24\0");
        scene.publish_refused(Message::new("t", "a"));
        scene.publish(Qos::AtMostOnce, b"a", Wait::None);
        scene.sends(&[b"\x30\x05\0\x01t\0a"]);
    });
}

#[test]
fn what_has_its_default_on_the_wire_is_left_out_of_connect() {
    let config = Config {
        receive_maximum: u16::MAX,
        inbound_limit: usize::MAX,
        topic_alias_maximum: 0,
        session: SessionMode::None,
        ..v5()
    };
    play(&config, |scene| {
        scene.connect();
        scene.sends(&[b"\x10\x0E\0\x04MQTT\x05\x02\0\x3C\0\0\x01c"]);
    });
}

#[test]
fn further_properties_of_connect_are_sent() {
    let config = Config {
        receive_maximum: u16::MAX,
        inbound_limit: usize::MAX,
        topic_alias_maximum: 0,
        session: SessionMode::None,
        properties: Properties::new().user_property("k", "v"),
        ..v5()
    };
    play(&config, |scene| {
        scene.connect();
        scene.sends(&[b"\x10\x15\0\x04MQTT\x05\x02\0\x3C\x07\x26\0\x01k\0\x01v\0\x01c"]);
    });
}

#[test]
fn another_broker_that_does_not_let_us_in_leaves_the_session_where_it_is() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.cut();
        scene.protocol.forget_session();
        scene.connect();
        scene.refuses(b"\x20\x03\0\x87\0");
        scene.cut();
        scene.protocol.remember_session();
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
        scene.goes_on(token);
        // Once a broker let us in, there is nothing to go back to.
        scene.protocol.remember_session();
        scene.reconnect_present();
        scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
    });
}

#[test]
fn the_farewell_ends_a_session_that_lives_with_its_process() {
    for (version, session, ends) in [
        (Version::V5_0, SessionMode::Fresh, true),
        (Version::V5_0, SessionMode::Resume, false),
        (Version::V5_0, SessionMode::None, false),
        (Version::V3_1_1, SessionMode::Fresh, false),
        (Version::V3_1, SessionMode::Fresh, false),
    ] {
        let config = Config {
            session,
            ..config(version)
        };
        let farewell = config.farewell();
        let expected = ends.then_some(0);
        assert_eq!(farewell.list().session_expiry_interval(), expected);
    }
}

#[test]
fn a_client_that_said_good_bye_is_leaving() {
    play_online(&v5(), |scene| {
        assert!(!scene.protocol.is_leaving());
        scene.disconnect();
        assert!(scene.protocol.is_leaving());
        scene.cut();
        assert!(!scene.protocol.is_leaving());
    });
}

#[test]
fn a_server_that_takes_no_acknowledgement_is_left() {
    // [MQTT-3.2.2-15]: a PUBACK with its reason takes five bytes, so below that a connection cannot keep the
    // rules. DISCONNECT with a reason takes three; where not even that fits the close has to say it.
    for limit in 1..=4 {
        play(&v5(), |scene| {
            scene.connect();
            scene.wire.clear();
            let error = scene.refuses(&[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, limit]);
            let reason = Reason::IMPLEMENTATION_SPECIFIC_ERROR;
            assert_eq!(violation(&error), ("MQTT5 3.2.2.3.6", reason));
            assert!(scene.protocol.is_leaving());
            if limit < 3 {
                scene.sends_nothing();
            } else {
                scene.sends(&[b"\xE0\x01\x83"]);
            }
            scene.wait(100_000);
            scene.sends_nothing();
        });
    }
    play(&v5(), |scene| {
        scene.open_with(b"\x20\x08\0\0\x05\x27\0\0\0\x05");
        scene.wait(60);
        scene.sends(&[PINGREQ]);
    });
}

#[test]
fn a_session_of_an_earlier_process_is_wiped_where_no_disconnect_can_end_it() {
    // [MQTT-3.2.2-15]: the DISCONNECT that ends a session takes nine bytes.
    play(&config(Version::V5_0), |scene| {
        scene.connect();
        scene.wire.clear();
        scene.receive(b"\x20\x08\x01\0\x05\x27\0\0\0\x08");
        scene.sends(&[DISCONNECT]);
        scene.cut();
        scene.connect();
        // Clean Start, and no Session Expiry Interval: the session ends with this connection.
        assert_eq!(scene.wire[9], 0x02);
        assert!(!scene.wire.contains(&0x11));
        scene.wire.clear();
        scene.receive(CONNACK_5);
        scene.sends(&[DISCONNECT]);
    });
    // With nine bytes it can.
    play(&config(Version::V5_0), |scene| {
        scene.connect();
        scene.wire.clear();
        scene.receive(b"\x20\x08\x01\0\x05\x27\0\0\0\x09");
        scene.sends(&[b"\xE0\x07\0\x05\x11\0\0\0\0"]);
    });
}
