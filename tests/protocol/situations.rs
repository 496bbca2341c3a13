//! The fifteen situations, each half-sentence of their table.

use std::time::Duration;

use coracle::protocol::SessionMode;
use coracle::{ErrorKind, Message, Qos, Reason, Sent, Version, Wait};

use crate::*;

/// CONNECT of the defaults on 5.0, up to the flags and from the keep-alive on.
const CONNECT_5_HEAD: &[u8] = b"\x10\x1E\0\x04MQTT\x05";
const CONNECT_5_TAIL: &[u8] =
    b"\0\x3C\x10\x11\0\0\x0E\x10\x21\x04\0\x27\0\x10\0\0\x22\0\x10\0\x01c";
const KEEP: &[u8] = b"\0";

/// The same on 3.1.1, and on 3.1.
const CONNECT_3: &[u8] = b"\x10\x0D\0\x04MQTT\x04\0\0\x3C\0\x01c";
const CONNECT_3_CLEAN: &[u8] = b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01c";
const CONNECT_3_1: &[u8] = b"\x10\x0F\0\x06MQIsdp\x03\0\0\x3C\0\x01c";
const CONNECT_3_1_CLEAN: &[u8] = b"\x10\x0F\0\x06MQIsdp\x03\x02\0\x3C\0\x01c";

// 1. First connect, no stored state.

#[test]
fn situation_01_v5_keeps_what_it_opens() {
    // [MQTT-3.1.0-1], [MQTT-3.1.2-6]: without Clean Start, because mosquitto saves no other session.
    play(&v5(), |scene| {
        scene.connect();
        scene.sends(&[CONNECT_5_HEAD, KEEP, CONNECT_5_TAIL]);
        scene.receive(CONNACK_5);
        assert_eq!(scene.effect(), "Connected(Lost)");
        assert!(scene.protocol.is_online());
    });
}

#[test]
fn situation_01_v5_ends_a_session_that_is_present() {
    // [MQTT-3.2.2-4]; Session Expiry Interval 0 (0x11) ends it (MQTT 5, section 3.14.2.2.2)
    play(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.connect();
        scene.wire.clear();
        scene.receive(PRESENT_5);
        scene.sends(&[b"\xE0\x07\0\x05\x11\0\0\0\0"]);
        assert_eq!(scene.effect(), "Again");
        assert!(!scene.protocol.is_online());
        // What the broker had queued for the earlier process is of no interest.
        scene.receive(b"\x32\x07\0\x01t\0\x01\0x");
        scene.gets_nothing();
        scene.sends_nothing();
        scene.cut();
        scene.connect();
        scene.sends(&[CONNECT_5_HEAD, KEEP, CONNECT_5_TAIL]);
        scene.receive(CONNACK_5);
        assert_eq!(scene.effect(), "Connected(Lost)");
        // What was published meanwhile waited for the connection to work with.
        scene.sends(&[b"\x32\x07\0\x01t\0\x01\0a"]);
        scene.goes_on(token);
    });
}

#[test]
fn situation_01_v5_wipes_a_session_that_does_not_end() {
    play(&v5(), |scene| {
        scene.connect();
        scene.receive(PRESENT_5);
        // The DISCONNECT was lost.
        scene.cut();
        scene.connect();
        scene.wire.clear();
        scene.effects.clear();
        scene.receive(PRESENT_5);
        scene.sends(&[DISCONNECT]);
        assert_eq!(scene.effect(), "Again");
        scene.cut();
        scene.connect();
        // Without a Session Expiry Interval [MQTT-3.1.2-23].
        scene.sends(&[b"\x10\x0E\0\x04MQTT\x05\x02\0\x3C\0\0\x01c"]);
        scene.receive(CONNACK_5);
        scene.sends(&[DISCONNECT]);
        assert_eq!(scene.effect(), "Again");
        scene.cut();
        scene.connect();
        scene.sends(&[CONNECT_5_HEAD, KEEP, CONNECT_5_TAIL]);
        let error = scene.refuses(PRESENT_5);
        assert_eq!(violation(&error).0, "MQTT-3.2.2-4");
    });
}

#[test]
fn situation_01_v5_without_a_client_id_starts_clean() {
    play(&Config::new(Version::V5_0, ""), |scene| {
        scene.connect();
        assert_eq!(scene.wire[9], 2, "Clean Start");
    });
}

#[test]
fn situation_01_v3_1_1_keeps_what_it_opens() {
    play(&v3(), |scene| {
        scene.connect();
        scene.sends(&[CONNECT_3]);
        scene.receive(CONNACK);
        assert_eq!(scene.effect(), "Connected(Lost)");
        assert!(scene.protocol.is_online());
    });
}

#[test]
fn situation_01_v3_1_1_wipes_a_session_that_is_present() {
    // [MQTT-3.2.2-4]
    play(&v3(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.connect();
        scene.sends(&[CONNECT_3]);
        scene.receive(PRESENT);
        scene.sends(&[DISCONNECT]);
        assert_eq!(scene.effect(), "Again");
        scene.cut();
        scene.connect();
        scene.sends(&[CONNECT_3_CLEAN]);
        scene.receive(CONNACK);
        scene.sends(&[DISCONNECT]);
        assert_eq!(scene.effect(), "Again");
        assert!(!scene.protocol.is_online());
        scene.cut();
        scene.connect();
        scene.sends(&[CONNECT_3]);
        scene.receive(CONNACK);
        assert_eq!(scene.effect(), "Connected(Lost)");
        // What was published meanwhile waited for the connection to work with.
        scene.sends(&[b"\x32\x06\0\x01t\0\x01a"]);
        scene.goes_on(token);
    });
}

#[test]
fn situation_01_v3_1_1_a_session_after_wiping_is_a_violation() {
    play(&v3(), |scene| {
        scene.connect();
        scene.receive(PRESENT);
        scene.cut();
        scene.connect();
        scene.receive(CONNACK);
        scene.cut();
        scene.connect();
        let error = scene.refuses(PRESENT);
        assert_eq!(violation(&error).0, "MQTT-3.2.2-4");
    });
}

#[test]
fn situation_01_v3_1_1_a_wiping_that_fails_is_tried_again() {
    play(&v3(), |scene| {
        scene.connect();
        scene.receive(PRESENT);
        scene.cut();
        scene.connect();
        scene.cut();
        scene.wire.clear();
        scene.connect();
        scene.sends(&[CONNECT_3_CLEAN]);
    });
}

#[test]
fn situation_01_v3_1_is_clean_first() {
    play(&config(Version::V3_1), |scene| {
        scene.connect();
        scene.sends(&[CONNECT_3_1_CLEAN]);
        scene.receive(CONNACK);
        scene.sends(&[DISCONNECT]);
        assert_eq!(scene.effect(), "Again");
        scene.cut();
        scene.connect();
        scene.sends(&[CONNECT_3_1]);
        scene.receive(CONNACK);
        assert_eq!(scene.effect(), "Connected(Lost)");
    });
}

#[test]
fn situation_01_a_session_after_clean_start_is_a_violation() {
    // [MQTT-3.2.2-4]
    let config = Config {
        session: SessionMode::None,
        ..v5()
    };
    play(&config, |scene| {
        scene.connect();
        scene.wire.clear();
        let error = scene.refuses(PRESENT_5);
        assert_eq!(violation(&error), ("MQTT-3.2.2-4", Reason::PROTOCOL_ERROR));
        scene.sends(&[b"\xE0\x01\x82"]);
    });
}

#[test]
fn situation_01_a_connection_that_wipes_has_no_will() {
    let credentials = Credentials {
        will: Some(Message::new("w", "x")),
        ..Credentials::default()
    };
    play(&config(Version::V3_1), |scene| {
        scene.connect_as(&credentials);
        scene.sends(&[CONNECT_3_1_CLEAN]);
        scene.receive(CONNACK);
        scene.cut();
        scene.wire.clear();
        scene.connect_as(&credentials);
        scene.sends(&[b"\x10\x15\0\x06MQIsdp\x03\x0C\0\x3C\0\x01c\0\x01w\0\x01x"]);
    });
}

// 2. Later connect.

#[test]
fn situation_02_a_later_connect_keeps_the_session() {
    play_online(&v5(), |scene| {
        scene.cut();
        scene.connect();
        scene.sends(&[CONNECT_5_HEAD, KEEP, CONNECT_5_TAIL]);
    });
    play_online(&v3(), |scene| {
        scene.cut();
        scene.connect();
        scene.sends(&[CONNECT_3]);
    });
    play_online(&config(Version::V3_1), |scene| {
        scene.cut();
        scene.connect();
        scene.sends(&[CONNECT_3_1]);
    });
}

#[test]
fn situation_02_the_assigned_client_id_is_kept() {
    // [MQTT-3.1.3-2]; Assigned Client Identifier "zz" (0x12)
    play(&Config::new(Version::V5_0, ""), |scene| {
        scene.open_with(b"\x20\x08\0\0\x05\x12\0\x02zz");
        assert_eq!(scene.protocol.client_id(), "zz");
        scene.cut();
        scene.connect();
        assert!(scene.wire.ends_with(b"\0\x02zz"));
        assert_eq!(scene.wire[9], 0, "Clean Start");
    });
}

#[test]
fn situation_02_limits_are_anew() {
    play(&v5(), |scene| {
        // Receive Maximum 1, Maximum QoS 1, Retain Available 0, Server Keep Alive 7
        scene.open_with(b"\x20\x0D\0\0\x0A\x21\0\x01\x24\x01\x25\0\x13\0\x07");
        let limits = scene.protocol.limits().expect("online");
        assert_eq!(limits.receive_maximum, 1);
        assert_eq!(limits.maximum_qos, Qos::AtLeastOnce);
        assert!(!limits.retain_available);
        assert_eq!(limits.keep_alive, Some(Duration::from_secs(7)));
        scene.reconnect_present();
        let limits = scene.protocol.limits().expect("online");
        assert_eq!(limits.receive_maximum, 1024);
        assert_eq!(limits.maximum_qos, Qos::ExactlyOnce);
        assert!(limits.retain_available);
        assert_eq!(limits.keep_alive, Some(Duration::from_secs(60)));
    });
}

#[test]
fn situation_02_topic_aliases_are_anew() {
    // [MQTT-3.3.2-7]
    play_online(&v5(), |scene| {
        scene.receive(b"\x30\x08\0\x01t\x03\x23\0\x01a");
        scene.gets("t", b"a");
        scene.receive(b"\x30\x07\0\0\x03\x23\0\x01b");
        scene.gets("t", b"b");
        scene.reconnect_present();
        scene.refuses(b"\x30\x07\0\0\x03\x23\0\x01b");
    });
}

#[test]
fn situation_02_quotas_are_anew() {
    play(&v5(), |scene| {
        scene.open_with(b"\x20\x06\0\0\x03\x21\0\x02");
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        assert_eq!(scene.protocol.credit(), 0);
        scene.reconnect_lost();
        assert_eq!(scene.protocol.credit(), 1024 - 2);
    });
}

#[test]
fn situation_02_nothing_but_connect_is_sent_before_connack() {
    // [MQTT-3.1.2-30]
    for config in [v5(), v3()] {
        play(&config, |scene| {
            scene.connect();
            scene.wire.clear();
            scene.publish(Qos::AtMostOnce, b"a", Wait::None);
            scene.publish_0(b"a", Wait::None);
            scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
            scene.publish(Qos::ExactlyOnce, b"a", Wait::None);
            scene.subscribe(&["a"], Qos::AtMostOnce, Wait::None);
            scene.unsubscribe(&["b"], Wait::None);
            scene.sends_nothing();
        });
    }
}

#[test]
fn situation_02_a_disconnect_may_be_sent_before_connack() {
    play(&v5(), |scene| {
        scene.connect();
        scene.wire.clear();
        scene.disconnect();
        scene.sends(&[DISCONNECT]);
        scene.receive(CONNACK_5);
        assert!(!scene.protocol.is_online());
    });
}

// 3. Session present.

#[test]
fn situation_03_session_present_replays_pubrels_then_publishes_with_dup() {
    // [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.6.0-4], [MQTT-3.3.1-1]
    play_online(&v5(), |scene| {
        scene.publish(Qos::ExactlyOnce, b"a", Wait::None);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        scene.publish(Qos::ExactlyOnce, b"c", Wait::None);
        scene.publish(Qos::ExactlyOnce, b"d", Wait::None);
        scene.receive(b"\x50\x02\0\x04\x50\x02\0\x01");
        scene.takes = 0;
        scene.publish(Qos::AtLeastOnce, b"e", Wait::None);
        scene.reconnect_present();
        scene.sends(&[
            // PUBRELs in the order of their PUBRECs
            b"\x62\x02\0\x04",
            b"\x62\x02\0\x01",
            // PUBLISHes in their order and with their ids; "e" never left, so it has no DUP
            b"\x3A\x07\0\x01t\0\x02\0b",
            b"\x3C\x07\0\x01t\0\x03\0c",
            b"\x32\x07\0\x01t\0\x05\0e",
        ]);
    });
}

#[test]
fn situation_03_before_5_0_everything_is_sent_again_in_its_order() {
    // 3.1.1: [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.6.0-4], [MQTT-3.3.1-1], [MQTT-2.3.1-3], [MQTT-4.3.3-1]
    for version in [Version::V3_1, Version::V3_1_1] {
        play_online(&config(version), |scene| {
            scene.publish(Qos::ExactlyOnce, b"a", Wait::None);
            scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
            scene.publish(Qos::ExactlyOnce, b"c", Wait::None);
            scene.publish(Qos::ExactlyOnce, b"d", Wait::None);
            scene.wire.clear();
            scene.receive(b"\x50\x02\0\x04\x50\x02\0\x01");
            scene.sends(&[b"\x62\x02\0\x04", b"\x62\x02\0\x01"]);
            for _ in 0..3 {
                scene.reconnect_present();
                scene.sends(&[
                    b"\x62\x02\0\x04",
                    b"\x62\x02\0\x01",
                    b"\x3A\x06\0\x01t\0\x02b",
                    b"\x3C\x06\0\x01t\0\x03c",
                ]);
            }
            // Each identifier is in use until its last answer.
            scene.publish(Qos::AtLeastOnce, b"e", Wait::None);
            scene.sends(&[b"\x32\x06\0\x01t\0\x05e"]);
            scene.receive(b"\x70\x02\0\x04\x70\x02\0\x01\x40\x02\0\x02");
            scene.receive(b"\x50\x02\0\x03\x70\x02\0\x03\x40\x02\0\x05");
            assert!(scene.protocol.is_drained());
            assert_eq!(scene.protocol.identifiers(), 0);
            scene.no_effect();
        });
    }
}

#[test]
fn situation_03_dup_is_set_when_one_byte_had_reached_the_transport() {
    // [MQTT-3.3.1-1], [MQTT-3.3.1-3]
    play_online(&v3(), |scene| {
        scene.takes = 9;
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        scene.publish(Qos::AtLeastOnce, b"c", Wait::None);
        scene.sends(&[b"\x32\x06\0\x01t\0\x01a", b"\x32"]);
        scene.reconnect_present();
        scene.sends(&[
            b"\x3A\x06\0\x01t\0\x01a",
            b"\x3A\x06\0\x01t\0\x02b",
            b"\x32\x06\0\x01t\0\x03c",
        ]);
    });
}

#[test]
fn situation_03_dup_stays_set_when_a_replay_did_not_leave() {
    play_online(&v3(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.cut();
        scene.wire.clear();
        scene.connect();
        scene.takes = 0;
        scene.receive(PRESENT);
        scene.reconnect_present();
        scene.sends(&[b"\x3A\x06\0\x01t\0\x01a"]);
    });
}

#[test]
fn situation_03_pubrels_do_not_wait_for_quota() {
    // [MQTT-3.3.4-8], [MQTT-4.9.0-3]
    play_online(&v5(), |scene| {
        for payload in [b"a", b"b", b"c", b"d"] {
            scene.publish(Qos::ExactlyOnce, payload, Wait::None);
        }
        scene.receive(b"\x50\x02\0\x01\x50\x02\0\x02\x50\x02\0\x03");
        scene.cut();
        scene.wire.clear();
        // Receive Maximum 2
        scene.open_with(b"\x20\x06\x01\0\x03\x21\0\x02");
        scene.sends(&[b"\x62\x02\0\x01", b"\x62\x02\0\x02", b"\x62\x02\0\x03"]);
        scene.receive(b"\x70\x02\0\x01");
        scene.sends_nothing();
        scene.receive(b"\x70\x02\0\x02");
        scene.sends(&[b"\x3C\x07\0\x01t\0\x04\0d"]);
    });
}

#[test]
fn situation_03_replayed_publishes_are_paced_by_quota_and_come_before_unsent_ones() {
    play_online(&v5(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        scene.cut();
        scene.publish(Qos::AtLeastOnce, b"c", Wait::None);
        scene.wire.clear();
        scene.open_with(b"\x20\x06\x01\0\x03\x21\0\x01");
        scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
        scene.receive(b"\x40\x02\0\x01");
        scene.sends(&[b"\x3A\x07\0\x01t\0\x02\0b"]);
        scene.receive(b"\x40\x02\0\x02");
        scene.sends(&[b"\x32\x07\0\x01t\0\x03\0c"]);
    });
}

#[test]
fn situation_03_waits_go_on_across_the_reconnect() {
    play_online(&v5(), |scene| {
        let one = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        let two = scene.publish(Qos::ExactlyOnce, b"b", Wait::Ack);
        scene.receive(b"\x50\x02\0\x02");
        scene.reconnect_present();
        scene.goes_on(one);
        scene.goes_on(two);
        scene.receive(b"\x40\x02\0\x01\x70\x02\0\x02");
        scene.is_acknowledged(one, Reason::SUCCESS);
        scene.is_acknowledged(two, Reason::SUCCESS);
        assert!(scene.protocol.is_drained());
    });
}

// 4. Session lost.

#[test]
fn situation_04_session_lost_subscribes_first_then_sends_qos_1_anew() {
    // [MQTT-3.2.2-5]. With a store the message gets its identifier before SUBSCRIBE does.
    play_online_unstored(&v5(), |scene| {
        scene.protocol.subscribe(Subscription {
            owner: 1,
            filters: vec![wish(
                "a",
                FilterOptions {
                    retain_handling: 1,
                    ..options(Qos::AtLeastOnce)
                },
                Identifier::Given(3),
            )],
            properties: Properties::new(),
            wait: None,
        });
        scene.turn();
        scene.sends(&[b"\x82\x09\0\x01\x02\x0B\x03\0\x01a\x11"]);
        scene.receive(b"\x90\x04\0\x01\0\x01");
        let token = scene.publish(Qos::AtLeastOnce, b"x", Wait::Ack);
        scene.sends(&[b"\x32\x07\0\x01t\0\x02\0x"]);
        scene.reconnect_lost();
        scene.sends(&[
            // with its original Retain Handling
            b"\x82\x09\0\x03\x02\x0B\x03\0\x01a\x11",
            // DUP 0 and a new id
            b"\x32\x07\0\x01t\0\x04\0x",
        ]);
        scene.goes_on(token);
        scene.receive(b"\x90\x04\0\x03\0\x01\x40\x02\0\x04");
        scene.is_acknowledged(token, Reason::SUCCESS);
    });
}

#[test]
fn situation_04_qos_2_that_had_been_written_ends() {
    play_online(&v5(), |scene| {
        scene.takes = 9 + 4;
        let written = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        let begun = scene.publish(Qos::ExactlyOnce, b"b", Wait::Ack);
        let unsent = scene.publish(Qos::ExactlyOnce, b"c", Wait::Ack);
        scene.reconnect_lost();
        let text = "publish: the broker lost the session (perhaps sent)";
        scene.fails_with(written, Sent::Maybe, text);
        scene.fails_with(begun, Sent::Maybe, text);
        assert!(matches!(
            scene.fails(written).kind(),
            ErrorKind::SessionLost { received: false }
        ));
        scene.goes_on(unsent);
        scene.sends(&[b"\x34\x07\0\x01t\0\x04\0c"]);
    });
}

#[test]
fn situation_04_qos_2_that_had_been_written_is_told_to_nobody_as_an_event() {
    play_online(&v5(), |scene| {
        scene.publish(Qos::ExactlyOnce, b"a", Wait::None);
        scene.cut();
        scene.connect();
        scene.receive(CONNACK_5);
        let effect = scene.effect();
        assert!(effect.starts_with("Unpublished(Some("), "{effect}");
        assert!(
            effect.contains("the broker lost the session (perhaps sent)"),
            "{effect}"
        );
    });
}

#[test]
fn situation_04_qos_2_is_published_again_if_wanted() {
    let config = Config {
        republish: true,
        ..v5()
    };
    play_online(&config, |scene| {
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.reconnect_lost();
        scene.sends(&[b"\x34\x07\0\x01t\0\x02\0a"]);
        scene.receive(b"\x50\x02\0\x02\x70\x02\0\x02");
        scene.is_acknowledged(token, Reason::SUCCESS);
    });
}

#[test]
fn situation_04_what_is_sent_anew_has_dup_only_once_it_left_in_the_new_session() {
    // [MQTT-3.3.1-3], [MQTT-4.3.2-2]
    play_online(&v3(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.cut();
        scene.wire.clear();
        scene.connect();
        scene.takes = 0;
        scene.receive(CONNACK);
        scene.reconnect_present();
        scene.sends(&[b"\x32\x06\0\x01t\0\x02a"]);
        scene.reconnect_present();
        scene.sends(&[b"\x3A\x06\0\x01t\0\x02a"]);
        // That it may have arrived in the lost session is not forgotten.
        scene.goes_on(token);
    });
    play_online(&v3(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.cut();
        scene.connect();
        scene.takes = 0;
        scene.receive(CONNACK);
        scene.cut();
        scene.protocol.close();
        scene.collect();
        assert_eq!(scene.fails(token).sent(), Sent::Maybe);
    });
}

#[test]
fn situation_04_inbound_qos_2_ids_are_cleared() {
    play_online(&v5(), |scene| {
        scene.receive(b"\x34\x07\0\x01t\0\x05\0a");
        scene.gets("t", b"a");
        scene.reconnect_lost();
        scene.receive(b"\x34\x07\0\x01t\0\x05\0b");
        scene.gets("t", b"b");
        scene.sends(&[b"\x50\x02\0\x05"]);
    });
}

#[test]
fn situation_04_a_message_left_untaken_is_owed_nothing_after_the_session_is_lost() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x34\x07\0\x01t\0\x05\0a\x32\x07\0\x01t\0\x06\0b");
        let a = scene.gets("t", b"a");
        let b = scene.gets("t", b"b");
        scene.reconnect_lost();
        scene.take(&a);
        scene.take(&b);
        scene.sends_nothing();
    });
}

#[test]
fn situation_04_order_is_kept_when_sent_anew() {
    play_online(&v3(), |scene| {
        for payload in [b"a", b"b", b"c"] {
            scene.publish(Qos::AtLeastOnce, payload, Wait::None);
        }
        scene.receive(b"\x40\x02\0\x02");
        scene.cut();
        scene.publish(Qos::AtLeastOnce, b"d", Wait::None);
        scene.wire.clear();
        scene.open();
        scene.sends(&[
            b"\x32\x06\0\x01t\0\x04a",
            b"\x32\x06\0\x01t\0\x05c",
            b"\x32\x06\0\x01t\0\x06d",
        ]);
    });
}

// 5. Session lost after PUBREC.

#[test]
fn situation_05_session_lost_after_pubrec_is_never_published_again() {
    // [MQTT-4.3.3-6]
    for republish in [false, true] {
        let config = Config { republish, ..v5() };
        play_online(&config, |scene| {
            let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
            scene.publish(Qos::ExactlyOnce, b"b", Wait::None);
            scene.receive(b"\x50\x02\0\x01\x50\x02\0\x02");
            scene.cut();
            scene.connect();
            scene.wire.clear();
            scene.receive(CONNACK_5);
            scene.sends_nothing();
            let error = scene.fails(token);
            assert_eq!(error.sent(), Sent::Yes);
            assert!(matches!(
                error.kind(),
                ErrorKind::SessionLost { received: true }
            ));
            let effect = scene.effect();
            assert!(effect.starts_with("Unpublished(None"), "{effect}");
            assert!(scene.protocol.is_drained());
        });
    }
}

// 6. PUBACK or PUBREC with an error.

#[test]
fn situation_06_a_refusing_puback_ends_the_exchange() {
    // [MQTT-4.4.0-2], [MQTT-3.3.4-7]
    play(&v5(), |scene| {
        scene.open_with(b"\x20\x06\0\0\x03\x21\0\x01");
        let one = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        let two = scene.publish(Qos::AtLeastOnce, b"b", Wait::Ack);
        scene.sends(&[b"\x32\x07\0\x01t\0\x01\0a"]);
        scene.receive(b"\x40\x03\0\x01\x87");
        scene.fails_with(
            one,
            Sent::Yes,
            "publish: the broker refused: not authorized (0x87) (sent)",
        );
        // The quota is free.
        scene.sends(&[b"\x32\x07\0\x01t\0\x02\0b"]);
        scene.goes_on(two);
        // So is the id: nothing is replayed.
        scene.receive(b"\x40\x02\0\x02");
        scene.reconnect_present();
        scene.sends_nothing();
    });
}

#[test]
fn situation_06_a_refusing_pubrec_ends_the_exchange_without_pubrel() {
    // [MQTT-4.3.3-4], [MQTT-4.4.0-2]
    play(&v5(), |scene| {
        scene.open_with(b"\x20\x06\0\0\x03\x21\0\x01");
        let one = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.publish(Qos::ExactlyOnce, b"b", Wait::None);
        scene.wire.clear();
        // with a Reason String
        scene.receive(b"\x50\x09\0\x01\x97\x05\x1F\0\x02no");
        scene.fails_with(
            one,
            Sent::Yes,
            "publish: the broker refused: quota exceeded (0x97), \"no\" (sent)",
        );
        scene.sends(&[b"\x34\x07\0\x01t\0\x02\0b"]);
    });
}

#[test]
fn situation_06_a_refusal_that_nobody_waits_for_is_an_event() {
    play_online(&v5(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.receive(b"\x40\x03\0\x01\x87");
        let effect = scene.effect();
        assert!(effect.starts_with("Unpublished(Some("), "{effect}");
        assert!(effect.contains("not authorized (0x87)"), "{effect}");
    });
}

#[test]
fn situation_06_no_matching_subscribers_is_ok() {
    play_online(&v5(), |scene| {
        let one = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        let two = scene.publish(Qos::ExactlyOnce, b"b", Wait::Ack);
        scene.wire.clear();
        scene.receive(b"\x40\x03\0\x01\x10\x50\x03\0\x02\x10");
        scene.sends(&[b"\x62\x02\0\x02"]);
        scene.receive(b"\x70\x02\0\x02");
        scene.is_acknowledged(one, Reason::NO_MATCHING_SUBSCRIBERS);
        scene.is_acknowledged(two, Reason::NO_MATCHING_SUBSCRIBERS);
    });
}

#[test]
fn situation_06_pubcomp_not_found_after_a_replay_is_ok() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.receive(b"\x50\x02\0\x01");
        scene.reconnect_present();
        scene.sends(&[b"\x62\x02\0\x01"]);
        scene.receive(b"\x70\x03\0\x01\x92");
        scene.is_acknowledged(token, Reason::SUCCESS);
    });
}

#[test]
fn situation_06_pubcomp_not_found_on_the_connection_of_the_pubrec_is_a_refusal() {
    // MQTT 5, table 3-7: at other times than recovery it shows that the two sides differ about the session.
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.wire.clear();
        scene.receive(b"\x50\x02\0\x01");
        scene.sends(&[b"\x62\x02\0\x01"]);
        scene.receive(b"\x70\x03\0\x01\x92");
        let error = scene.fails(token);
        assert_eq!(error.reason(), Some(Reason::PACKET_IDENTIFIER_NOT_FOUND));
        assert_eq!(error.sent(), Sent::Yes);
        assert!(scene.protocol.is_drained());
        // What PUBREC said is not why.
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.receive(b"\x50\x0A\0\x02\0\x06\x1F\0\x03yes");
        scene.receive(b"\x70\x09\0\x02\x92\x05\x1F\0\x02no");
        let said = scene.fails(token).properties();
        assert_eq!(said.iter().count(), 1, "{said:?}");
        assert_eq!(said.reason_string(), Some("no"));
    });
}

// 7. Unknown ids.

#[test]
fn situation_07_an_unknown_pubrec_gets_pubrel_with_not_found() {
    // [MQTT-3.6.2-1]
    play_online(&v5(), |scene| {
        scene.receive(b"\x50\x02\0\x09");
        scene.sends(&[b"\x62\x03\0\x09\x92"]);
        assert_eq!(scene.effect(), "Stray");
    });
    play_online(&v3(), |scene| {
        scene.receive(b"\x50\x02\0\x09");
        scene.sends(&[b"\x62\x02\0\x09"]);
        assert_eq!(scene.effect(), "Stray");
    });
}

#[test]
fn situation_07_an_unknown_pubrec_with_an_error_gets_nothing() {
    play_online(&v5(), |scene| {
        scene.receive(b"\x50\x03\0\x09\x80");
        scene.sends_nothing();
        assert_eq!(scene.effect(), "Stray");
    });
}

#[test]
fn situation_07_an_unknown_pubrel_gets_pubcomp_with_not_found() {
    // [MQTT-3.7.2-1]
    play_online(&v5(), |scene| {
        scene.receive(b"\x62\x02\0\x09");
        scene.sends(&[b"\x70\x03\0\x09\x92"]);
        assert_eq!(scene.effect(), "Stray");
    });
    play_online(&v3(), |scene| {
        scene.receive(b"\x62\x02\0\x09");
        scene.sends(&[b"\x70\x02\0\x09"]);
    });
}

#[test]
fn situation_07_a_repeated_pubrec_gets_pubrel_again() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.wire.clear();
        scene.receive(b"\x50\x02\0\x01");
        scene.receive(b"\x50\x02\0\x01");
        scene.sends(&[b"\x62\x02\0\x01", b"\x62\x02\0\x01"]);
        scene.no_effect();
        scene.receive(b"\x70\x02\0\x01");
        scene.is_acknowledged(token, Reason::SUCCESS);
        // The second PUBCOMP is stray.
        scene.receive(b"\x70\x02\0\x01");
        assert_eq!(scene.effect(), "Stray");
    });
}

#[test]
fn situation_07_other_unknown_acknowledgements_are_counted_and_ignored() {
    for bytes in [
        b"\x40\x02\0\x09".as_slice(),
        b"\x70\x02\0\x09",
        b"\x90\x04\0\x09\0\0",
        b"\xB0\x04\0\x09\0\0",
    ] {
        play_online(&v5(), |scene| {
            scene.receive(bytes);
            assert_eq!(scene.effect(), "Stray");
            scene.sends_nothing();
            assert!(scene.protocol.is_online());
        });
    }
}

#[test]
fn situation_07_an_acknowledgement_of_the_wrong_kind_is_ignored() {
    play_online(&v5(), |scene| {
        let one = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        let two = scene.publish(Qos::ExactlyOnce, b"b", Wait::Ack);
        let three = scene.subscribe(&["f"], Qos::AtMostOnce, Wait::Ack);
        let four = scene.unsubscribe(&["g"], Wait::Ack);
        scene.wire.clear();
        // PUBCOMP, SUBACK, UNSUBACK for the PUBLISHes, PUBACK for the QoS 2 one and for the requests
        for bytes in [
            b"\x70\x02\0\x01\x70\x02\0\x02".as_slice(),
            b"\x90\x04\0\x01\0\0\xB0\x04\0\x01\0\0",
            b"\x40\x02\0\x02\x40\x02\0\x03\x40\x02\0\x04",
            b"\x90\x04\0\x04\0\0\xB0\x04\0\x03\0\0",
        ] {
            scene.receive(bytes);
        }
        scene.sends_nothing();
        for token in [one, two, three, four] {
            scene.goes_on(token);
        }
        scene.receive(b"\x40\x02\0\x01\x50\x02\0\x02\x70\x02\0\x02");
        scene.receive(b"\x90\x04\0\x03\0\0\xB0\x04\0\x04\0\0");
        for token in [one, two, three, four] {
            assert!(scene.outcome(token).is_ok());
        }
        assert!(scene.protocol.is_drained());
    });
}

// 8. Inbound QoS 2.

#[test]
fn situation_08_a_repeat_is_never_delivered() {
    // [MQTT-4.3.3-8], [MQTT-4.3.3-10]
    play_online(&v5(), |scene| {
        scene.receive(b"\x34\x07\0\x01t\0\x05\0a");
        scene.gets("t", b"a");
        scene.sends(&[b"\x50\x02\0\x05"]);
        scene.receive(b"\x3C\x07\0\x01t\0\x05\0a");
        scene.gets_nothing();
        scene.sends(&[b"\x50\x02\0\x05"]);
        scene.reconnect_present();
        scene.receive(b"\x3C\x07\0\x01t\0\x05\0a");
        scene.gets_nothing();
        scene.sends(&[b"\x50\x02\0\x05"]);
        scene.receive(b"\x62\x02\0\x05");
        scene.sends(&[b"\x70\x02\0\x05"]);
    });
}

#[test]
fn situation_08_after_pubrel_the_id_is_new() {
    // [MQTT-4.3.3-11], [MQTT-4.3.3-12]
    play_online(&v3(), |scene| {
        scene.receive(b"\x34\x06\0\x01t\0\x05a");
        scene.receive(b"\x62\x02\0\x05");
        scene.sends(&[b"\x50\x02\0\x05", b"\x70\x02\0\x05"]);
        scene.receive(b"\x34\x06\0\x01t\0\x05b");
        scene.gets("t", b"a");
        scene.gets("t", b"b");
    });
}

#[test]
fn situation_08_the_id_is_recorded_at_delivery_not_when_taken() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x34\x07\0\x01t\0\x05\0a");
        let got = scene.gets("t", b"a");
        scene.receive(b"\x3C\x07\0\x01t\0\x05\0a");
        scene.gets_nothing();
        scene.sends_nothing();
        scene.take(&got);
        scene.sends(&[b"\x50\x02\0\x05"]);
    });
}

#[test]
fn situation_08_a_pubrel_across_the_reconnect_is_answered() {
    play_online(&v5(), |scene| {
        scene.receive(b"\x34\x07\0\x01t\0\x05\0a");
        scene.reconnect_present();
        scene.receive(b"\x62\x02\0\x05");
        scene.sends(&[b"\x70\x02\0\x05"]);
        scene.no_effect();
    });
}

#[test]
fn situation_08_a_refused_message_is_new_when_it_comes_again() {
    // [MQTT-4.3.3-9]
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x34\x07\0\x01t\0\x05\0a");
        let got = scene.gets("t", b"a");
        scene.refuse(&got, Reason::QUOTA_EXCEEDED);
        scene.sends(&[b"\x50\x03\0\x05\x97"]);
        scene.receive(b"\x34\x07\0\x01t\0\x05\0b");
        scene.gets("t", b"b");
    });
}

// 9. Acknowledgements owed.

#[test]
fn situation_09_pubacks_and_pubrecs_leave_in_arrival_order_in_two_queues() {
    // [MQTT-4.6.0-2], [MQTT-4.6.0-3]
    play_online(&v5(), |scene| {
        scene.hold = true;
        for packet in [
            b"\x32\x07\0\x01t\0\x01\0a",
            b"\x34\x07\0\x01t\0\x02\0b",
            b"\x32\x07\0\x01t\0\x03\0c",
            b"\x34\x07\0\x01t\0\x04\0d",
        ] {
            scene.receive(packet);
        }
        let a = scene.gets("t", b"a");
        let b = scene.gets("t", b"b");
        let c = scene.gets("t", b"c");
        let d = scene.gets("t", b"d");
        scene.take(&d);
        scene.take(&c);
        scene.sends_nothing();
        scene.take(&b);
        scene.sends(&[b"\x50\x02\0\x02", b"\x50\x02\0\x04"]);
        scene.take(&a);
        scene.sends(&[b"\x40\x02\0\x01", b"\x40\x02\0\x03"]);
    });
}

#[test]
fn situation_09_before_5_0_the_order_is_the_same() {
    // 3.1.1: [MQTT-4.6.0-2], [MQTT-4.6.0-3], [MQTT-3.3.4-1], [MQTT-2.3.1-6]
    for version in [Version::V3_1, Version::V3_1_1] {
        play_online(&config(version), |scene| {
            scene.hold = true;
            scene.receive(b"\x32\x06\0\x01t\0\x09a\x34\x06\0\x01t\0\x08b\x30\x04\0\x01tz");
            scene.receive(b"\x32\x06\0\x01t\0\x07c\x34\x06\0\x01t\0\x06d");
            let a = scene.gets("t", b"a");
            let b = scene.gets("t", b"b");
            let z = scene.gets("t", b"z");
            assert!(z.receipt.is_none(), "QoS 0 has no answer");
            let c = scene.gets("t", b"c");
            let d = scene.gets("t", b"d");
            scene.take(&d);
            scene.take(&c);
            scene.sends_nothing();
            scene.take(&b);
            scene.sends(&[b"\x50\x02\0\x08", b"\x50\x02\0\x06"]);
            scene.take(&a);
            scene.sends(&[b"\x40\x02\0\x09", b"\x40\x02\0\x07"]);
            scene.receive(b"\x62\x02\0\x06\x62\x02\0\x08");
            scene.sends(&[b"\x70\x02\0\x06", b"\x70\x02\0\x08"]);
        });
    }
}

#[test]
fn situation_09_nothing_else_waits_for_them() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a\x34\x07\0\x01t\0\x02\0b");
        scene.receive(b"\x62\x02\0\x09");
        scene.publish(Qos::AtLeastOnce, b"x", Wait::None);
        scene.publish_0(b"y", Wait::None);
        scene.subscribe(&["f"], Qos::AtMostOnce, Wait::None);
        scene.sends(&[
            b"\x70\x03\0\x09\x92",
            b"\x32\x07\0\x01t\0\x01\0x",
            b"\x30\x05\0\x01t\0y",
            b"\x82\x07\0\x02\0\0\x01f\0",
        ]);
    });
}

#[test]
fn situation_09_a_message_that_matches_nobody_counts_as_taken() {
    // [MQTT-4.5.0-2]
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.takers = 0;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a\x34\x07\0\x01t\0\x02\0b");
        scene.sends(&[b"\x40\x02\0\x01", b"\x50\x02\0\x02"]);
    });
    play_online(&v3(), |scene| {
        scene.hold = true;
        scene.takers = 0;
        scene.receive(b"\x32\x06\0\x01t\0\x01a\x34\x06\0\x01t\0\x02b");
        scene.sends(&[b"\x40\x02\0\x01", b"\x50\x02\0\x02"]);
    });
}

#[test]
fn situation_09_a_message_of_several_is_taken_when_the_last_one_took_it() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.takers = 3;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
        let got = scene.gets("t", b"a");
        scene.take(&got);
        scene.refuse(&got, Reason::NOT_AUTHORIZED);
        scene.sends_nothing();
        scene.take(&got);
        // The worst answer counts.
        scene.sends(&[b"\x40\x03\0\x01\x87"]);
    });
}

#[test]
fn situation_09_acknowledgements_for_one_read_leave_in_one_write() {
    play_online(&v3(), |scene| {
        scene.receive(b"\x32\x06\0\x01t\0\x01a\x32\x06\0\x01t\0\x02b\x34\x06\0\x01t\0\x03c");
        scene.sends(&[b"\x40\x02\0\x01", b"\x40\x02\0\x02", b"\x50\x02\0\x03"]);
    });
}

// 10. Link lost, messages untaken.

#[test]
fn situation_10_owed_acknowledgements_die_with_the_link() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a\x34\x07\0\x01t\0\x02\0b");
        let a = scene.gets("t", b"a");
        let b = scene.gets("t", b"b");
        scene.cut();
        scene.take(&a);
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.take(&b);
        scene.sends_nothing();
        // The broker sends them again. QoS 1 may come twice, QoS 2 may not.
        scene.receive(b"\x3A\x07\0\x01t\0\x01\0a\x3C\x07\0\x01t\0\x02\0b");
        scene.sends(&[b"\x50\x02\0\x02"]);
        let a = scene.gets("t", b"a");
        scene.gets_nothing();
        scene.take(&a);
        scene.sends(&[b"\x40\x02\0\x01"]);
    });
}

#[test]
fn situation_10_a_redelivery_rearms_the_message_still_queued() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a\x34\x07\0\x01t\0\x02\0b");
        let a = scene.gets("t", b"a");
        let b = scene.gets("t", b"b");
        scene.reconnect_present();
        scene.receive(b"\x3A\x07\0\x01t\0\x01\0a\x3C\x07\0\x01t\0\x02\0b");
        scene.gets_nothing();
        scene.sends_nothing();
        scene.take(&a);
        scene.sends(&[b"\x40\x02\0\x01"]);
        scene.take(&b);
        scene.sends(&[b"\x50\x02\0\x02"]);
    });
}

#[test]
fn situation_10_the_same_id_without_dup_is_another_message() {
    // [MQTT-4.3.2-5]
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
        let a = scene.gets("t", b"a");
        scene.reconnect_present();
        scene.receive(b"\x32\x07\0\x01t\0\x01\0b");
        let b = scene.gets("t", b"b");
        scene.take(&a);
        scene.sends_nothing();
        scene.take(&b);
        scene.sends(&[b"\x40\x02\0\x01"]);
    });
}

#[test]
fn situation_10_a_rearmed_message_has_a_take_timeout_again() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a\x34\x07\0\x01t\0\x02\0b");
        scene.wait(3);
        scene.reconnect_present();
        scene.wait(30);
        scene.sends_nothing();
        scene.receive(b"\x3A\x07\0\x01t\0\x01\0a\x3C\x07\0\x01t\0\x02\0b");
        scene.wait(4);
        scene.sends_nothing();
        scene.wait(1);
        scene.sends(&[b"\x40\x02\0\x01", b"\x50\x02\0\x02"]);
        assert!(scene.effect().starts_with("Overdue"));
        assert!(scene.effect().starts_with("Overdue"));
    });
}

// 11. Receive Maximum.

#[test]
fn situation_11_out_the_pubrel_phase_is_included() {
    // [MQTT-3.3.4-7], [MQTT-4.9.0-2]
    play(&v5(), |scene| {
        scene.open_with(b"\x20\x06\0\0\x03\x21\0\x02");
        for payload in [b"a", b"b", b"c", b"d"] {
            scene.publish(Qos::ExactlyOnce, payload, Wait::None);
        }
        scene.sends(&[b"\x34\x07\0\x01t\0\x01\0a", b"\x34\x07\0\x01t\0\x02\0b"]);
        assert_eq!(scene.protocol.credit(), 0);
        scene.receive(b"\x50\x02\0\x01");
        scene.sends(&[b"\x62\x02\0\x01"]);
        scene.receive(b"\x70\x02\0\x01");
        scene.sends(&[b"\x34\x07\0\x01t\0\x03\0c"]);
        scene.receive(b"\x50\x03\0\x02\x80");
        scene.sends(&[b"\x34\x07\0\x01t\0\x04\0d"]);
    });
}

#[test]
fn situation_11_out_before_5_0_at_most_twenty_are_qos_2() {
    // mosquitto drops what comes beyond them, and confirms it: the older versions cannot refuse.
    for version in [Version::V3_1, Version::V3_1_1] {
        play_online_unstored(&config(version), |scene| {
            scene.wire.clear();
            for _ in 0..100 {
                scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
            }
            assert_eq!(scene.wire.len(), 100 * 8, "QoS 1 has its window");
            scene.wire.clear();
            for _ in 0..21 {
                scene.publish(Qos::ExactlyOnce, b"b", Wait::None);
            }
            // What is behind keeps its place, and would be dropped too.
            scene.publish(Qos::AtLeastOnce, b"c", Wait::None);
            assert_eq!(scene.wire.len(), 20 * 8);
            assert_eq!(scene.protocol.credit(), 0);
            scene.wire.clear();
            scene.receive(b"\x40\x02\0\x01\x50\x02\0\x65");
            scene.sends(&[b"\x62\x02\0\x65"]);
            scene.receive(b"\x70\x02\0\x65");
            scene.sends(&[b"\x34\x06\0\x01t\0\x79b"]);
            scene.receive(b"\x50\x02\0\x66\x70\x02\0\x66");
            scene.sends(&[b"\x62\x02\0\x66", b"\x32\x06\0\x01t\0\x7Ac"]);
            // As many count again on the next connection, those in the PUBREL phase included.
            scene.receive(b"\x50\x02\0\x67");
            scene.reconnect_present();
            scene.publish(Qos::ExactlyOnce, b"d", Wait::None);
            scene.publish(Qos::ExactlyOnce, b"e", Wait::None);
            assert!(scene.wire.ends_with(b"\0\x7Bd"), "one place was free");
            assert_eq!(scene.protocol.credit(), 0);
        });
    }
}

#[test]
fn situation_11_out_everything_else_goes_on_at_quota_zero() {
    // [MQTT-3.3.4-8], [MQTT-4.9.0-3]
    play_unstored(&v5(), |scene| {
        scene.open_with(b"\x20\x06\0\0\x03\x21\0\x01");
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        scene.wire.clear();
        scene.publish_0(b"x", Wait::None);
        scene.subscribe(&["f"], Qos::AtMostOnce, Wait::None);
        scene.receive(b"\x32\x07\0\x01t\0\x05\0m");
        scene.sends(&[
            b"\x30\x05\0\x01t\0x",
            b"\x82\x07\0\x02\0\0\x01f\0",
            b"\x40\x02\0\x05",
        ]);
    });
}

#[test]
fn situation_11_in_an_excess_is_0x93() {
    // [MQTT-3.3.4-9]
    let config = Config {
        receive_maximum: 2,
        ..v5()
    };
    play_online(&config, |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a\x34\x07\0\x01t\0\x02\0b");
        let error = scene.refuses(b"\x32\x07\0\x01t\0\x03\0c");
        assert_eq!(
            violation(&error),
            ("MQTT-3.3.4-9", Reason::RECEIVE_MAXIMUM_EXCEEDED)
        );
        scene.sends(&[b"\xE0\x01\x93"]);
    });
}

#[test]
fn situation_11_in_a_bound_that_the_broker_does_not_keep_is_not_announced_again() {
    // mosquitto up to 2.0.12 sends as many again with each PUBACK when it has more in its queue: with
    // the same bound, every connection would end like the first.
    let config = Config {
        receive_maximum: 2,
        ..v5()
    };
    play_online(&config, |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a\x32\x07\0\x01t\0\x02\0b");
        scene.refuses(b"\x32\x07\0\x01t\0\x03\0c");
        scene.cut();
        scene.wire.clear();
        scene.connect();
        // Session Expiry Interval, Maximum Packet Size, Topic Alias Maximum.
        scene.sends(&[
            b"\x10\x1B\0\x04MQTT\x05\0\0\x3C\x0D\x11\0\0\x0E\x10\x27\0\x10\0\0\x22\0\x10\0\x01c",
        ]);
        scene.receive(PRESENT_5);
        scene.receive(b"\x3A\x07\0\x01t\0\x01\0a\x3A\x07\0\x01t\0\x02\0b");
        scene.receive(b"\x3A\x07\0\x01t\0\x03\0c");
        scene.sends_nothing();
    });
}

#[test]
fn situation_11_in_only_unanswered_publishes_of_this_connection_count() {
    let config = Config {
        receive_maximum: 2,
        ..v5()
    };
    play_online(&config, |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a\x34\x07\0\x01t\0\x02\0b");
        let a = scene.gets("t", b"a");
        let b = scene.gets("t", b"b");
        scene.reconnect_present();
        scene.receive(b"\x3A\x07\0\x01t\0\x01\0a\x3C\x07\0\x01t\0\x02\0b");
        // A repeat on the same connection does not count twice.
        scene.receive(b"\x3C\x07\0\x01t\0\x02\0b");
        scene.take(&a);
        scene.take(&b);
        scene.sends(&[b"\x40\x02\0\x01", b"\x50\x02\0\x02"]);
        // QoS 2 counts until PUBCOMP.
        scene.receive(b"\x32\x07\0\x01t\0\x03\0c");
        let c = scene.gets("t", b"c");
        scene.take(&c);
        scene.receive(b"\x62\x02\0\x02");
        scene.sends(&[b"\x40\x02\0\x03", b"\x70\x02\0\x02"]);
        scene.receive(b"\x32\x07\0\x01t\0\x04\0d\x32\x07\0\x01t\0\x05\0e");
        scene.refuses(b"\x32\x07\0\x01t\0\x06\0f");
    });
}

#[test]
fn situation_11_in_a_qos_2_message_that_comes_again_counts_again() {
    let config = Config {
        receive_maximum: 2,
        ..v5()
    };
    play_online(&config, |scene| {
        scene.receive(b"\x34\x07\0\x01t\0\x02\0b");
        scene.reconnect_present();
        scene.hold = true;
        scene.receive(b"\x3C\x07\0\x01t\0\x02\0b\x32\x07\0\x01t\0\x03\0c");
        let error = scene.refuses(b"\x32\x07\0\x01t\0\x04\0d");
        assert_eq!(violation(&error).1, Reason::RECEIVE_MAXIMUM_EXCEEDED);
    });
}

#[test]
fn situation_11_in_a_refused_qos_2_message_is_answered() {
    let config = Config {
        receive_maximum: 1,
        ..v5()
    };
    play_online(&config, |scene| {
        scene.hold = true;
        for _ in 0..3 {
            scene.receive(b"\x34\x07\0\x01t\0\x02\0b");
            let got = scene.gets("t", b"b");
            scene.refuse(&got, Reason::UNSPECIFIED_ERROR);
            scene.sends(&[b"\x50\x03\0\x02\x80"]);
        }
    });
}

#[test]
fn situation_11_in_before_5_0_there_is_no_maximum() {
    let config = Config {
        receive_maximum: 1,
        ..v3()
    };
    play_online(&config, |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x06\0\x01t\0\x01a\x32\x06\0\x01t\0\x02b\x34\x06\0\x01t\0\x03c");
        assert_eq!(scene.got.len(), 3);
    });
}

// 12. A queued message breaks new limits.

#[test]
fn situation_12_a_queued_message_that_breaks_new_limits_fails() {
    // [MQTT-3.2.2-11], [MQTT-3.2.2-14], [MQTT-3.2.2-15]
    play_online(&v5(), |scene| {
        scene.cut();
        let two = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        let retained = scene.publish_message(Message::new("t", "b").retain(true), Wait::Ack);
        let large = scene.publish(Qos::AtLeastOnce, &[0; 40], Wait::Ack);
        let fine = scene.publish(Qos::AtLeastOnce, b"c", Wait::Ack);
        let zero = scene.publish(Qos::AtMostOnce, &[0; 40], Wait::Sent);
        scene.wire.clear();
        // Maximum QoS 1, Retain Available 0, Maximum Packet Size 32
        scene.open_with(b"\x20\x0C\x01\0\x09\x24\x01\x25\0\x27\0\0\0\x20");
        scene.fails_with(
            two,
            Sent::No,
            "publish: the broker does not offer this: QoS not supported (0x9B) (not sent)",
        );
        scene.fails_with(
            retained,
            Sent::No,
            "publish: the broker does not offer this: retain not supported (0x9A) (not sent)",
        );
        let text = "publish: a packet of 48 bytes is above the limit of 32 (not sent)";
        scene.fails_with(large, Sent::No, text);
        let text = "publish: a packet of 46 bytes is above the limit of 32 (not sent)";
        scene.fails_with(zero, Sent::No, text);
        scene.goes_on(fine);
        // It takes the first id: the others took none, or gave it back.
        assert_eq!(scene.wire.len(), 9);
        assert_eq!(scene.protocol.unfinished(), 1);
    });
}

#[test]
fn situation_12_with_none_it_is_an_event() {
    play_online_unstored(&v5(), |scene| {
        scene.cut();
        scene.publish(Qos::ExactlyOnce, b"a", Wait::None);
        scene.publish_message(
            Message::new("t", "b").qos(Qos::AtMostOnce).retain(true),
            Wait::None,
        );
        scene.connect();
        scene.receive(b"\x20\x07\0\0\x04\x24\x01\x25\0");
        assert_eq!(scene.effect(), "Connected(Lost)");
        let effect = scene.effect();
        assert!(effect.starts_with("Unpublished(Some("), "{effect}");
        assert!(effect.contains("QoS not supported"), "{effect}");
        let effect = scene.effect();
        assert!(effect.starts_with("Unpublished(None"), "{effect}");
        assert!(effect.contains("retain not supported"), "{effect}");
    });
}

#[test]
fn situation_12_a_replay_that_breaks_new_limits_was_perhaps_sent() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.cut();
        scene.wire.clear();
        scene.open_with(b"\x20\x05\x01\0\x02\x24\x01");
        scene.sends_nothing();
        assert_eq!(scene.fails(token).sent(), Sent::Maybe);
    });
}

#[test]
fn situation_12_while_online_it_is_an_error_of_the_call() {
    play(&v5(), |scene| {
        scene.open_with(b"\x20\x0C\0\0\x09\x24\x01\x25\0\x27\0\0\0\x20");
        for message in [
            Message::new("t", "a").qos(Qos::ExactlyOnce),
            Message::new("t", "a").retain(true),
            Message::new("t", &[0; 40]),
            Message::new("t", &[0; 40]).qos(Qos::AtMostOnce),
        ] {
            scene.publish_refused(message);
        }
        let mut retained = outgoing(b"a");
        retained.retain = true;
        assert!(scene.protocol.publish_qos0(retained, None).is_err());
        assert!(
            scene
                .protocol
                .publish_qos0(outgoing(&[0; 40]), None)
                .is_err()
        );
        scene.turn();
        scene.sends_nothing();
        // It never touches the connection.
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.sends(&[b"\x32\x07\0\x01t\0\x01\0a"]);
    });
}

// 13. Silence: more in `ping`.

#[test]
fn situation_13_server_keep_alive_replaces_ours_and_0_disables() {
    // [MQTT-3.1.2-21], [MQTT-3.2.2-21]
    play(&v5(), |scene| {
        scene.open_with(b"\x20\x06\0\0\x03\x13\0\x05");
        scene.wait(4);
        scene.sends_nothing();
        scene.wait(1);
        scene.sends(&[PINGREQ]);
        scene.receive(PINGRESP);
        scene.cut();
        scene.wire.clear();
        scene.open_with(b"\x20\x06\x01\0\x03\x13\0\0");
        assert_eq!(scene.protocol.poll_timeout(), None);
        scene.wait(100_000);
        scene.sends_nothing();
    });
}

// 14. Subscribe or unsubscribe pending at a link loss.

#[test]
fn situation_14_a_pending_request_is_made_anew_with_a_new_id() {
    for (present, connack) in [(true, PRESENT_5), (false, CONNACK_5)] {
        play_online(&v5(), |scene| {
            let one = scene.subscribe(&["a"], Qos::AtLeastOnce, Wait::Ack);
            let two = scene.unsubscribe(&["b"], Wait::Ack);
            scene.sends(&[b"\x82\x07\0\x01\0\0\x01a\x01", b"\xA2\x06\0\x02\0\0\x01b"]);
            scene.cut();
            scene.open_with(connack);
            scene.sends(&[b"\x82\x07\0\x03\0\0\x01a\x01", b"\xA2\x06\0\x04\0\0\x01b"]);
            scene.goes_on(one);
            scene.goes_on(two);
            // The answers of the old connection are nobody's.
            scene.receive(b"\x90\x04\0\x01\0\x01");
            scene.goes_on(one);
            scene.receive(b"\x90\x04\0\x03\0\x01\xB0\x04\0\x04\0\x11");
            assert!(matches!(scene.outcome(one), Ok(Done::Granted(grants)) if grants.len() == 1));
            assert!(matches!(
                scene.outcome(two),
                Ok(Done::Unsubscribed(reasons, _)) if *reasons == [Reason::NO_SUBSCRIPTION_EXISTED]
            ));
            assert!(present || scene.protocol.is_drained());
        });
    }
}

#[test]
fn situation_14_late_messages_of_an_ended_subscription_are_acknowledged() {
    // [MQTT-3.10.4-3]
    play_online(&v5(), |scene| {
        scene.unsubscribe(&["t"], Wait::None);
        scene.wire.clear();
        scene.takers = 0;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
        scene.sends(&[b"\x40\x02\0\x01"]);
    });
}

// 15. The server breaks the rules.

#[test]
fn situation_15_v5_says_disconnect_with_the_reason() {
    // [MQTT-3.14.2-1]
    for (bytes, reason, clause) in [
        // a remaining length of five bytes
        (b"\x40\xFF\xFF\xFF\xFF\x01".as_slice(), 0x81, "MQTT5 1.5.5"),
        // PUBREL with flags 0000
        (b"\x60\x02\0\x01", 0x81, "MQTT-3.6.1-1"),
        // a second CONNACK
        (CONNACK_5, 0x82, "MQTT-3.2.0-2"),
        // packet id 0
        (b"\x40\x02\0\0", 0x82, "MQTT-2.2.1-3"),
        // AUTH without a method in CONNECT
        (b"\xF0\x06\x18\x04\x15\0\x01m", 0x82, "MQTT-4.12.0-6"),
        // a DISCONNECT of the server with a Session Expiry Interval
        (b"\xE0\x07\0\x05\x11\0\0\0\0", 0x82, "MQTT-3.14.2-2"),
        // packets that only clients send
        (PINGREQ, 0x82, "MQTT5 2.1.2"),
        (b"\x82\x07\0\x01\0\0\x01a\0", 0x82, "MQTT5 2.1.2"),
        // CONNECT of an unknown protocol, and one of 3.1.1 with an empty client id: what a server would answer
        // to them (0x84, 0x85) stands in no DISCONNECT
        (b"\x10\x07\0\x04QUIC\x09", 0x82, "MQTT5 2.1.2"),
        (b"\x10\x0C\0\x04MQTT\x04\0\0\0\0\0", 0x82, "MQTT5 2.1.2"),
        // a topic alias above our maximum of 16, and one of 0
        (b"\x30\x08\0\x01t\x03\x23\0\x11a", 0x94, "MQTT-3.1.2-26"),
        (b"\x30\x08\0\x01t\x03\x23\0\0a", 0x94, "MQTT-3.3.2-8"),
        // an alias that was never defined
        (b"\x30\x07\0\0\x03\x23\0\x02a", 0x82, "MQTT5 3.3.2.3.4"),
        // a packet of 2 MiB, on its declared length
        (b"\x30\x80\x80\x80\x01", 0x95, "MQTT-3.1.2-24"),
    ] {
        play_online(&v5(), |scene| {
            let error = scene.refuses(bytes);
            assert_eq!(violation(&error), (clause, Reason::new(reason)));
            assert!(error.to_string().contains(clause), "{error}");
            scene.sends(&[&[0xE0, 1, reason]]);
            // [MQTT-3.14.4-1]: nothing follows.
            scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
            scene.sends_nothing();
            scene.cut();
        });
    }
}

#[test]
fn situation_15_before_5_0_the_connection_just_ends() {
    for bytes in [b"\x60\x02\0\x01".as_slice(), CONNACK, PINGREQ, DISCONNECT] {
        play_online(&v3(), |scene| {
            scene.refuses(bytes);
            scene.sends_nothing();
        });
    }
}

#[test]
fn situation_15_the_first_packet_must_be_connack() {
    // [MQTT-3.2.0-1]
    play(&v5(), |scene| {
        scene.connect();
        scene.wire.clear();
        let error = scene.refuses(b"\x30\x05\0\x01t\0a");
        assert_eq!(violation(&error), ("MQTT-3.2.0-1", Reason::PROTOCOL_ERROR));
        scene.sends(&[b"\xE0\x01\x82"]);
        scene.gets_nothing();
    });
}

#[test]
fn situation_15_a_server_that_authenticates_unasked_breaks_the_rules() {
    for bytes in [
        // CONNACK with Authentication Method "m", and AUTH
        b"\x20\x07\0\0\x04\x15\0\x01m".as_slice(),
        b"\xF0\x06\x18\x04\x15\0\x01m",
    ] {
        play(&v5(), |scene| {
            scene.connect();
            scene.wire.clear();
            let error = scene.refuses(bytes);
            assert_eq!(violation(&error), ("MQTT-4.12.0-6", Reason::PROTOCOL_ERROR));
            scene.sends(&[b"\xE0\x01\x82"]);
        });
    }
}

#[test]
fn situation_15_a_disconnect_of_the_broker_ends_the_connection_with_its_reason() {
    play_online(&v5(), |scene| {
        let error = scene.refuses(b"\xE0\x01\x8B");
        assert_eq!(error.reason(), Some(Reason::SERVER_SHUTTING_DOWN));
        scene.sends_nothing();
    });
}

#[test]
fn situation_15_a_session_none_has_nothing_to_keep() {
    let config = Config {
        session: SessionMode::None,
        ..v5()
    };
    play(&config, |scene| {
        for _ in 0..2 {
            scene.connect();
            assert_eq!(scene.wire[9], 2, "Clean Start");
            scene.receive(CONNACK_5);
            scene.cut();
            scene.wire.clear();
        }
    });
}
