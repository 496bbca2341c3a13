//! What arrives: taking and its timeout, answers by hand, topic aliases, size limits, repeats.

use std::time::Duration;

use coracle::{ErrorKind, Qos, Reason, Wait};

use crate::*;

// Acknowledge on take.

#[test]
fn a_message_is_acknowledged_when_it_is_taken() {
    // [MQTT-4.3.2-4], [MQTT-4.3.3-8], [MQTT-3.3.4-1]
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x30\x05\0\x01t\0z\x32\x07\0\x01t\0\x01\0a\x34\x07\0\x01t\0\x02\0b");
        let z = scene.gets("t", b"z");
        assert!(z.receipt.is_none());
        let a = scene.gets("t", b"a");
        let b = scene.gets("t", b"b");
        scene.sends_nothing();
        scene.take(&a);
        scene.sends(&[b"\x40\x02\0\x01"]);
        scene.take(&b);
        scene.sends(&[b"\x50\x02\0\x02"]);
        // Taking it once more means nothing.
        scene.take(&a);
        scene.take(&b);
        scene.sends_nothing();
    });
}

#[test]
fn a_message_that_is_not_taken_in_time_is_acknowledged_all_the_same() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
        scene.wait(3);
        scene.receive(b"\x34\x07\0\x01t\0\x02\0b");
        let a = scene.gets("t", b"a");
        let b = scene.gets("t", b"b");
        scene.wait(1);
        scene.sends_nothing();
        scene.wait(1);
        scene.sends(&[b"\x40\x02\0\x01"]);
        let expected = format!("Overdue({:?})", a.receipt.expect("QoS 1 has a receipt"));
        assert_eq!(scene.effect(), expected);
        scene.wait(3);
        scene.sends(&[b"\x50\x02\0\x02"]);
        assert!(scene.effect().starts_with("Overdue"));
        // They stay queued, and taking them later means nothing.
        scene.take(&a);
        scene.take(&b);
        scene.sends_nothing();
        scene.no_effect();
        // The exchange of QoS 2 goes on.
        scene.receive(b"\x3C\x07\0\x01t\0\x02\0b\x62\x02\0\x02");
        scene.sends(&[b"\x50\x02\0\x02", b"\x70\x02\0\x02"]);
        scene.gets_nothing();
    });
}

#[test]
fn one_unread_stream_delays_the_others_only_until_its_timeout() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
        for id in 2..=9 {
            scene.receive(&[0x32, 7, 0, 1, b't', 0, id, 0, b'x']);
        }
        scene.gets("t", b"a");
        for _ in 2..=9 {
            let got = scene.gets("t", b"x");
            scene.take(&got);
        }
        scene.sends_nothing();
        scene.wait(5);
        let pubacks: Vec<u8> = (1..=9).flat_map(|id| [0x40, 2, 0, id]).collect();
        scene.sends(&[&pubacks]);
        assert!(scene.effect().starts_with("Overdue"));
        scene.no_effect();
    });
}

#[test]
fn a_taken_message_leaves_no_timer_behind_for_long() {
    let config = Config {
        keep_alive: 0,
        ..v5()
    };
    play_online(&config, |scene| {
        for _ in 0..1000 {
            scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
        }
        scene.wait(5);
        assert_eq!(scene.protocol.poll_timeout(), None);
        scene.no_effect();
    });
}

#[test]
fn a_message_by_hand_has_no_timeout() {
    play_online(&v5(), |scene| {
        deliver_by_hand(scene, b"\x32\x07\0\x01t\0\x01\0a");
        let got = scene.gets("t", b"a");
        scene.wait(59);
        scene.sends_nothing();
        scene.no_effect();
        scene.take(&got);
        scene.sends(&[b"\x40\x02\0\x01"]);
    });
}

/// Feeds one packet as a driver would for a subscription whose messages are acknowledged by hand.
fn deliver_by_hand(scene: &mut Scene, packet: &[u8]) {
    match scene
        .protocol
        .handle_input(scene.now, packet, None)
        .expect("a good packet")
    {
        Step::Deliver { delivery, .. } => {
            let receipt = delivery.receipt();
            let message = delivery.incoming().to_message();
            scene.got.push_back(Got {
                message,
                receipt,
                kept: None,
            });
            if let Some(receipt) = receipt {
                scene.protocol.delivered(receipt, 1, None);
            }
        }
        Step::More { .. } => panic!("the packet is whole"),
        Step::Handled { .. } => {}
    }
    scene.turn();
}

#[test]
fn a_refusal_by_hand_is_told_to_the_broker_on_5_0_only() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
        let got = scene.gets("t", b"a");
        scene.refuse(&got, Reason::PAYLOAD_FORMAT_INVALID);
        scene.sends(&[b"\x40\x03\0\x01\x99"]);
    });
    play_online(&v3(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x06\0\x01t\0\x01a\x34\x06\0\x01t\0\x02b");
        let a = scene.gets("t", b"a");
        let b = scene.gets("t", b"b");
        scene.refuse(&a, Reason::PAYLOAD_FORMAT_INVALID);
        scene.refuse(&b, Reason::PAYLOAD_FORMAT_INVALID);
        scene.sends(&[b"\x40\x02\0\x01", b"\x50\x02\0\x02"]);
        // It is acknowledged, so a repeat is one.
        scene.receive(b"\x3C\x06\0\x01t\0\x02b");
        scene.gets_nothing();
    });
}

// [MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2], [MQTT-3.5.2-3]: not where they make the packet larger than
// the broker takes.
#[test]
fn an_acknowledgement_may_say_why_as_far_as_the_broker_takes_it() {
    let why = Properties::new()
        .reason_string("wet")
        .user_property("a", "b");
    let arrive = |scene: &mut Scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a\x34\x07\0\x01t\0\x02\0b");
        (scene.gets("t", b"a"), scene.gets("t", b"b"))
    };
    play_online(&v5(), |scene| {
        let (a, b) = arrive(scene);
        scene.answer_with(&a, Reason::SUCCESS, &why);
        scene.answer_with(&b, Reason::QUOTA_EXCEEDED, &why);
        scene.sends(&[
            b"\x40\x11\0\x01\0\x0D\x1F\0\x03wet\x26\0\x01a\0\x01b",
            b"\x50\x11\0\x02\x97\x0D\x1F\0\x03wet\x26\0\x01a\0\x01b",
        ]);
    });
    // Maximum Packet Size 18: one byte too few. It is 19 in the other case.
    for (limit, size) in [(b'\x12', 5), (b'\x13', 19)] {
        play(&v5(), |scene| {
            let connack = [0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, limit];
            scene.open_with(&connack);
            let (a, b) = arrive(scene);
            scene.wire.clear();
            scene.answer_with(&a, Reason::PAYLOAD_FORMAT_INVALID, &why);
            assert_eq!(scene.wire.len(), size, "of {limit}");
            scene.wire.clear();
            scene.answer_with(&b, Reason::PAYLOAD_FORMAT_INVALID, &why);
            assert_eq!(scene.wire.len(), size, "of {limit}");
            scene.wire.clear();
        });
    }
    // Before 5.0 nothing can be said.
    play_online(&v3(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x06\0\x01t\0\x01a");
        let a = scene.gets("t", b"a");
        scene.answer_with(&a, Reason::SUCCESS, &why);
        scene.sends(&[b"\x40\x02\0\x01"]);
    });
}

#[test]
fn what_is_said_is_said_by_the_one_whose_answer_is_sent() {
    let said = |text: &str| Properties::new().reason_string(text);
    for (first, second, sent) in [
        (
            (Reason::SUCCESS, said("x")),
            (Reason::QUOTA_EXCEEDED, said("y")),
            &b"\x40\x08\0\x01\x97\x04\x1F\0\x01y"[..],
        ),
        (
            (Reason::QUOTA_EXCEEDED, said("x")),
            (Reason::SUCCESS, said("y")),
            b"\x40\x08\0\x01\x97\x04\x1F\0\x01x",
        ),
        (
            (Reason::SUCCESS, Properties::new()),
            (Reason::SUCCESS, said("y")),
            b"\x40\x08\0\x01\0\x04\x1F\0\x01y",
        ),
    ] {
        play_online(&v5(), |scene| {
            scene.hold = true;
            scene.takers = 2;
            scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
            let got = scene.gets("t", b"a");
            scene.answer_with(&got, first.0, &first.1);
            scene.sends_nothing();
            scene.answer_with(&got, second.0, &second.1);
            scene.sends(&[sent]);
        });
    }
}

#[test]
fn a_refusal_by_hand_without_a_link_lets_the_message_come_again() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x34\x07\0\x01t\0\x02\0b");
        let got = scene.gets("t", b"b");
        scene.cut();
        scene.refuse(&got, Reason::QUOTA_EXCEEDED);
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.receive(b"\x3C\x07\0\x01t\0\x02\0b");
        let got = scene.gets("t", b"b");
        scene.refuse(&got, Reason::QUOTA_EXCEEDED);
        scene.sends(&[b"\x50\x03\0\x02\x97"]);
    });
}

#[test]
fn a_message_dropped_unanswered_is_never_acknowledged_and_comes_back() {
    play_online_unstored(&v5(), |scene| {
        deliver_by_hand(scene, b"\x32\x07\0\x01t\0\x01\0a");
        deliver_by_hand(scene, b"\x34\x07\0\x01t\0\x02\0b");
        for payload in [b"a", b"b"] {
            let got = scene.gets("t", payload);
            let receipt = got.receipt.expect("QoS 1 and 2 have receipts");
            scene.protocol.abandon(receipt);
            scene.protocol.abandon(receipt);
            scene.take(&got);
        }
        scene.sends_nothing();
        // [MQTT-4.6.0-2]: what came after it waits, because acknowledgements leave in order.
        scene.receive(b"\x32\x07\0\x01t\0\x03\0c");
        scene.gets("t", b"c");
        scene.sends_nothing();
        scene.reconnect_present();
        scene.receive(b"\x3A\x07\0\x01t\0\x01\0a\x3C\x07\0\x01t\0\x02\0b\x3A\x07\0\x01t\0\x03\0c");
        scene.gets("t", b"a");
        scene.gets("t", b"b");
        scene.sends(&[b"\x40\x02\0\x01", b"\x50\x02\0\x02", b"\x40\x02\0\x03"]);
    });
}

#[test]
fn a_message_dropped_unanswered_while_offline_comes_back_too() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a\x34\x07\0\x01t\0\x02\0b");
        let a = scene.gets("t", b"a").receipt.expect("QoS 1");
        let b = scene.gets("t", b"b").receipt.expect("QoS 2");
        scene.cut();
        scene.protocol.abandon(a);
        scene.protocol.abandon(b);
        scene.wire.clear();
        scene.hold = false;
        scene.open_with(PRESENT_5);
        scene.receive(b"\x3A\x07\0\x01t\0\x01\0a\x3C\x07\0\x01t\0\x02\0b");
        scene.gets("t", b"a");
        scene.gets("t", b"b");
        scene.sends(&[b"\x40\x02\0\x01", b"\x50\x02\0\x02"]);
    });
}

// Repeats.

#[test]
fn an_early_pubrel_ends_the_exchange_of_an_unread_message() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x34\x07\0\x01t\0\x01\0a\x34\x07\0\x01t\0\x02\0b");
        let a = scene.gets("t", b"a");
        let b = scene.gets("t", b"b");
        scene.take(&b);
        // Not even PUBREC had been sent for either.
        scene.receive(b"\x62\x02\0\x02\x62\x02\0\x01");
        scene.sends(&[b"\x70\x02\0\x02", b"\x70\x02\0\x01"]);
        scene.take(&a);
        scene.sends_nothing();
    });
}

#[test]
fn a_repeat_on_the_same_connection_is_answered_once_while_unread() {
    // A broker may not do this [MQTT-4.4.0-1], but old ones do.
    play_online(&v3(), |scene| {
        scene.hold = true;
        scene.receive(b"\x34\x06\0\x01t\0\x01a\x3C\x06\0\x01t\0\x01a\x3C\x06\0\x01t\0\x01a");
        let got = scene.gets("t", b"a");
        scene.gets_nothing();
        scene.take(&got);
        scene.sends(&[b"\x50\x02\0\x01"]);
    });
}

#[test]
fn a_pubrec_that_was_held_back_does_not_answer_a_later_message_of_its_id() {
    play_online(&v3(), |scene| {
        scene.hold = true;
        scene.receive(b"\x34\x06\0\x01t\0\x05a");
        let a = scene.gets("t", b"a");
        scene.take(&a);
        scene.sends(&[b"\x50\x02\0\x05"]);
        // An unread message, a repeat behind it whose PUBREC is held back, then PUBREL.
        scene.receive(b"\x34\x06\0\x01t\0\x06b\x3C\x06\0\x01t\0\x05a\x62\x02\0\x05");
        scene.sends(&[b"\x70\x02\0\x05"]);
        // The id names another message now.
        scene.receive(b"\x34\x06\0\x01t\0\x05c");
        let b = scene.gets("t", b"b");
        let c = scene.gets("t", b"c");
        scene.take(&b);
        scene.sends(&[b"\x50\x02\0\x06"]);
        scene.take(&c);
        scene.sends(&[b"\x50\x02\0\x05"]);
    });
}

#[test]
fn a_qos_1_repeat_on_the_same_connection_is_a_message_of_its_own() {
    // [MQTT-4.3.2-5] lets the receiver take it for new.
    play_online(&v3(), |scene| {
        scene.receive(b"\x32\x06\0\x01t\0\x01a\x3A\x06\0\x01t\0\x01a");
        scene.gets("t", b"a");
        scene.gets("t", b"a");
        scene.sends(&[b"\x40\x02\0\x01", b"\x40\x02\0\x01"]);
    });
}

#[test]
fn after_puback_the_id_is_new_whatever_dup_says() {
    // [MQTT-4.3.2-5]
    play_online(&v5(), |scene| {
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a\x3A\x07\0\x01t\0\x01\0b");
        scene.gets("t", b"a");
        scene.gets("t", b"b");
        scene.sends(&[b"\x40\x02\0\x01", b"\x40\x02\0\x01"]);
        // The broker may not have got the last one.
        scene.reconnect_present();
        scene.receive(b"\x3A\x07\0\x01t\0\x01\0b");
        scene.gets("t", b"b");
        scene.sends(&[b"\x40\x02\0\x01"]);
    });
}

// Topic aliases.

#[test]
fn topic_aliases_are_resolved_defined_anew_and_forgotten() {
    // [MQTT-3.3.2-7], [MQTT-3.3.2-10]
    play_online(&v5(), |scene| {
        // 16 is the maximum that we announced.
        scene.receive(b"\x30\x0A\0\x03a/b\x03\x23\0\x10\x31");
        scene.gets("a/b", b"1");
        scene.receive(b"\x30\x07\0\0\x03\x23\0\x10\x32");
        scene.gets("a/b", b"2");
        scene.receive(b"\x30\x08\0\x01c\x03\x23\0\x10\x33");
        scene.gets("c", b"3");
        scene.receive(b"\x34\x09\0\0\0\x01\x03\x23\0\x10\x34");
        scene.gets("c", b"4");
        // A repeat may define an alias, too.
        scene.receive(b"\x3C\x0A\0\x01d\0\x01\x03\x23\0\x01\x34");
        scene.receive(b"\x30\x07\0\0\x03\x23\0\x01\x35");
        scene.gets("d", b"5");
        scene.reconnect_present();
        let error = scene.refuses(b"\x30\x07\0\0\x03\x23\0\x10\x36");
        assert_eq!(violation(&error).1, Reason::PROTOCOL_ERROR);
    });
}

#[test]
fn every_alias_up_to_our_maximum_is_accepted() {
    // [MQTT-3.3.2-10]
    for maximum in [1, 16, 300] {
        let config = Config {
            topic_alias_maximum: maximum,
            ..v5()
        };
        play_online(&config, |scene| {
            // From the highest to the lowest.
            for alias in (1..=maximum).rev() {
                let [high, low] = alias.to_be_bytes();
                let topic = format!("{alias:03}");
                let head = [0x30, 9, 0, 3];
                scene.receive(&[&head, topic.as_bytes(), &[3, 0x23, high, low]].concat());
            }
            for alias in 1..=maximum {
                let [high, low] = alias.to_be_bytes();
                scene.receive(&[0x30, 6, 0, 0, 3, 0x23, high, low]);
            }
            let topics: Vec<_> = scene.got.iter().map(|got| got.message.topic()).collect();
            let (defined, used) = topics.split_at(maximum.into());
            assert!(defined.iter().rev().eq(used));
            scene.got.clear();
            let [high, low] = (maximum + 1).to_be_bytes();
            let error = scene.refuses(&[0x30, 7, 0, 1, b't', 3, 0x23, high, low]);
            assert_eq!(violation(&error).1, Reason::TOPIC_ALIAS_INVALID);
        });
    }
}

#[test]
fn the_exchange_of_a_message_that_has_expired_goes_on() {
    // [MQTT-4.3.3-13]: Message Expiry Interval 1
    play_online(&v5(), |scene| {
        deliver_by_hand(scene, b"\x34\x0C\0\x01t\0\x05\x05\x02\0\0\0\x01a");
        let got = scene.gets("t", b"a");
        scene.wait(10);
        scene.sends_nothing();
        scene.take(&got);
        scene.sends(&[b"\x50\x02\0\x05"]);
        scene.wait(10);
        // It is still one message.
        scene.receive(b"\x3C\x0C\0\x01t\0\x05\x05\x02\0\0\0\x01a");
        scene.gets_nothing();
        scene.receive(b"\x62\x02\0\x05");
        scene.sends(&[b"\x50\x02\0\x05", b"\x70\x02\0\x05"]);
    });
}

#[test]
fn aliased_topics_are_shared() {
    play_online(&v5(), |scene| {
        scene.receive(b"\x30\x08\0\x01t\x03\x23\0\x01a\x30\x07\0\0\x03\x23\0\x01b");
        let a = scene.gets("t", b"a");
        let b = scene.gets("t", b"b");
        assert_eq!(
            a.message.topic().as_ptr(),
            b.message.topic().as_ptr(),
            "one allocation serves all messages of an alias"
        );
    });
}

#[test]
fn with_a_maximum_of_0_no_alias_is_accepted() {
    let config = Config {
        topic_alias_maximum: 0,
        ..v5()
    };
    play_online(&config, |scene| {
        let error = scene.refuses(b"\x30\x08\0\x01t\x03\x23\0\x01a");
        assert_eq!(violation(&error).1, Reason::TOPIC_ALIAS_INVALID);
        scene.sends(&[b"\xE0\x01\x94"]);
    });
}

// Size.

fn small(version: Version) -> Config {
    Config {
        inbound_limit: 20,
        ..config(version)
    }
}

#[test]
fn a_packet_of_the_limit_is_accepted_and_one_byte_more_is_not() {
    play_online(&small(Version::V5_0), |scene| {
        scene.receive(b"\x30\x12\0\x01t\0abcdefghijklmn");
        scene.gets("t", b"abcdefghijklmn");
        // [MQTT-3.1.2-24]: the broker knew the limit. The declared length is enough to see it.
        let error = scene.refuses(b"\x30\x13");
        assert_eq!(
            violation(&error),
            ("MQTT-3.1.2-24", Reason::PACKET_TOO_LARGE)
        );
        scene.sends(&[b"\xE0\x01\x95"]);
    });
}

#[test]
fn before_5_0_a_larger_message_is_skipped_and_acknowledged() {
    play_online(&small(Version::V3_1_1), |scene| {
        scene.receive(b"\x30\x13\0\x01tabcdefghijklmnop");
        assert_eq!(scene.effect(), "Skipped(21)");
        scene.receive(b"\x32\x13\0\x01t\0\x01abcdefghijklmn");
        assert_eq!(scene.effect(), "Skipped(21)");
        scene.sends(&[b"\x40\x02\0\x01"]);
        scene.receive(b"\x34\x13\0\x01t\0\x02abcdefghijklmn");
        assert_eq!(scene.effect(), "Skipped(21)");
        scene.sends(&[b"\x50\x02\0\x02"]);
        scene.receive(b"\x62\x02\0\x02");
        scene.sends(&[b"\x70\x02\0\x02"]);
        // What follows is read.
        scene.receive(b"\x32\x06\0\x01t\0\x03a");
        scene.gets("t", b"a");
        scene.sends(&[b"\x40\x02\0\x03"]);
        scene.gets_nothing();
        scene.no_effect();
    });
}

#[test]
fn skipped_messages_are_acknowledged_in_arrival_order() {
    // [MQTT-4.6.0-2], [MQTT-4.6.0-3]
    play_online(&small(Version::V3_1_1), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x06\0\x01t\0\x01a\x34\x06\0\x01t\0\x02b");
        scene.receive(b"\x32\x13\0\x01t\0\x03abcdefghijklmn\x34\x13\0\x01t\0\x04abcdefghijklmn");
        scene.sends_nothing();
        let a = scene.gets("t", b"a");
        let b = scene.gets("t", b"b");
        scene.take(&b);
        scene.sends(&[b"\x50\x02\0\x02", b"\x50\x02\0\x04"]);
        scene.take(&a);
        scene.sends(&[b"\x40\x02\0\x01", b"\x40\x02\0\x03"]);
    });
}

#[test]
fn a_skipped_message_takes_the_place_of_an_unread_one_with_its_id() {
    play_online(&small(Version::V3_1_1), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x06\0\x01t\0\x01a");
        let got = scene.gets("t", b"a");
        scene.reconnect_present();
        scene.receive(b"\x32\x13\0\x01t\0\x01abcdefghijklmn");
        scene.sends(&[b"\x40\x02\0\x01"]);
        scene.take(&got);
        scene.sends_nothing();
    });
}

#[test]
fn a_skip_is_forgotten_when_the_link_ends_in_it() {
    play_online(&small(Version::V3_1_1), |scene| {
        scene.receive(b"\x30\x7F\0\x01tabcdefgh");
        assert_eq!(scene.effect(), "Skipped(129)");
        scene.reconnect_present();
        scene.receive(b"\x30\x04\0\x01ta");
        scene.gets("t", b"a");
    });
}

#[test]
fn a_skipped_message_with_the_id_0_is_a_violation() {
    // [MQTT-2.2.1-3]
    play_online(&small(Version::V3_1_1), |scene| {
        let error = scene.refuses(b"\x32\x13\0\x01t\0\0abcdefghijklmn");
        assert_eq!(violation(&error).0, "MQTT-2.2.1-3");
    });
}

#[test]
fn before_5_0_another_packet_above_the_limit_ends_the_connection() {
    play_online(&small(Version::V3_1_1), |scene| {
        let error = scene.refuses(b"\x90\x13");
        assert_eq!(violation(&error).0, "MQTT-3.1.2-24");
    });
}

#[test]
fn a_packet_that_is_not_whole_says_how_long_it_is() {
    play_online(&v5(), |scene| {
        let mut step = |input: &'static [u8]| match scene
            .protocol
            .handle_input(scene.now, input, None)
            .expect("a good beginning")
        {
            Step::More { size } => size,
            Step::Handled { .. } | Step::Deliver { .. } => panic!("nothing is whole"),
        };
        assert_eq!(step(b""), None);
        assert_eq!(step(b"\x30"), None);
        assert_eq!(step(b"\x30\x80"), None);
        assert_eq!(step(b"\x30\x80\x01"), Some(131));
        assert_eq!(step(b"\x30\x80\x01\0"), Some(131));
    });
}

#[test]
fn a_large_message_shares_the_buffer_that_it_was_read_into() {
    play_online(&v5(), |scene| {
        let mut packet = b"\x30\xA4\x8D\x06\0\x01t\0".to_vec();
        packet.resize(4 + 100_004, b'L');
        let whole = Rc::new(packet);
        match scene
            .protocol
            .handle_input(scene.now, &whole, Some(&whole))
            .expect("a good packet")
        {
            Step::Deliver { size, delivery } => {
                assert_eq!(size, whole.len());
                let message = delivery.incoming().to_message();
                assert_eq!(message.payload().as_ptr(), whole[8..].as_ptr());
                assert_eq!(message.payload().len(), 100_000);
            }
            Step::More { .. } | Step::Handled { .. } => panic!("a message"),
        }
    });
}

// While leaving, and without a link.

#[test]
fn what_arrives_after_our_disconnect_is_ignored() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x34\x07\0\x01t\0\x01\0a");
        let got = scene.gets("t", b"a");
        scene.disconnect();
        scene.sends(&[DISCONNECT]);
        scene.receive(b"\x32\x07\0\x01t\0\x02\0b");
        scene.gets_nothing();
        // [MQTT-3.14.4-1]
        scene.take(&got);
        scene.sends_nothing();
        scene.cut();
        // It was taken, so it is not delivered again.
        scene.hold = false;
        scene.open_with(PRESENT_5);
        scene.receive(b"\x3C\x07\0\x01t\0\x01\0a\x3A\x07\0\x01t\0\x02\0b");
        scene.gets("t", b"b");
        scene.sends(&[b"\x50\x02\0\x01", b"\x40\x02\0\x02"]);
    });
}

#[test]
fn a_receipt_of_a_lost_session_is_worth_nothing_even_if_its_place_is_used_again() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
        let old = scene.gets("t", b"a");
        scene.take(&old);
        scene.wire.clear();
        scene.receive(b"\x32\x07\0\x01t\0\x01\0b");
        let new = scene.gets("t", b"b");
        let receipt = old.receipt.expect("QoS 1");
        scene.protocol.delivered(receipt, 5, None);
        scene.take(&old);
        scene.sends_nothing();
        scene.take(&new);
        scene.sends(&[b"\x40\x02\0\x01"]);
    });
}

#[test]
fn a_publish_from_within_a_delivery_leaves_in_order() {
    play_online(&v5(), |scene| {
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
        scene.publish(Qos::AtLeastOnce, b"x", Wait::None);
        scene.sends(&[b"\x40\x02\0\x01", b"\x32\x07\0\x01t\0\x01\0x"]);
    });
}

#[test]
fn a_client_without_a_link_ignores_input_and_time() {
    play(&v5(), |scene| {
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
        scene.gets_nothing();
        assert_eq!(scene.protocol.poll_timeout(), None);
        scene
            .pass(Duration::from_secs(1_000_000))
            .expect("nothing can time out");
        let error = scene.refuses(b"\x60\x02\0\x01");
        assert!(matches!(error.kind(), ErrorKind::Protocol(_)));
        scene.sends_nothing();
    });
}

#[test]
fn a_message_by_hand_that_comes_again_still_has_no_timeout() {
    play_online(&v5(), |scene| {
        deliver_by_hand(scene, b"\x32\x07\0\x01t\0\x01\0a");
        let got = scene.gets("t", b"a");
        scene.reconnect_present();
        scene.receive(b"\x3A\x07\0\x01t\0\x01\0a");
        scene.gets_nothing();
        scene.wait(59);
        scene.sends_nothing();
        scene.take(&got);
        scene.sends(&[b"\x40\x02\0\x01"]);
    });
}

#[test]
fn a_message_dropped_unanswered_after_its_timeout_owes_nothing() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x34\x07\0\x01t\0\x01\0a");
        let got = scene.gets("t", b"a");
        scene.wait(5);
        scene.sends(&[b"\x50\x02\0\x01"]);
        scene.protocol.abandon(got.receipt.expect("QoS 2"));
        // It was acknowledged, so a repeat is one.
        scene.receive(b"\x3C\x07\0\x01t\0\x01\0a");
        scene.gets_nothing();
        assert_eq!(scene.protocol.untaken(), 0);
    });
}

#[test]
fn the_take_timeout_of_a_message_that_came_again_counts_from_then() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x01\0a");
        scene.wait(4);
        scene.reconnect_present();
        scene.receive(b"\x3A\x07\0\x01t\0\x01\0a");
        scene.wait(4);
        scene.sends_nothing();
        scene.wait(1);
        scene.sends(&[b"\x40\x02\0\x01"]);
    });
}

#[test]
fn an_unread_message_whose_id_was_skipped_since_is_not_rearmed() {
    play_online(&small(Version::V3_1_1), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x06\0\x01t\0\x01a");
        scene.gets("t", b"a");
        scene.reconnect_present();
        scene.receive(b"\x32\x13\0\x01t\0\x01abcdefghijklmn");
        scene.reconnect_present();
        scene.receive(b"\x3A\x06\0\x01t\0\x01b");
        scene.gets("t", b"b");
    });
}

#[test]
fn a_skipped_message_that_comes_again_is_answered_once_while_its_pubrec_waits() {
    play_online(&small(Version::V3_1_1), |scene| {
        scene.hold = true;
        scene.receive(b"\x34\x06\0\x01t\0\x02a");
        scene.receive(b"\x34\x13\0\x01t\0\x04abcdefghijklmn\x3C\x13\0\x01t\0\x04abcdefghijklmn");
        scene.sends_nothing();
        let got = scene.gets("t", b"a");
        scene.take(&got);
        scene.sends(&[b"\x50\x02\0\x02", b"\x50\x02\0\x04"]);
    });
}

#[test]
fn a_message_to_be_skipped_whose_topic_does_not_fit_is_malformed() {
    play_online(&small(Version::V3_1_1), |scene| {
        let error = scene.refuses(b"\x32\x13\0\x12abcdefghijklmnopqrs");
        assert_eq!(violation(&error).1, Reason::MALFORMED_PACKET);
    });
}

#[test]
fn many_messages_behind_an_unread_one_leave_no_timer_behind() {
    play_online(&v3(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x06\0\x01t\0\x01a");
        scene.gets("t", b"a");
        for _ in 0..2000 {
            scene.receive(b"\x34\x06\0\x01t\0\x02b");
            let got = scene.gets("t", b"b");
            scene.take(&got);
            scene.receive(b"\x62\x02\0\x02");
        }
        scene.wire.clear();
        scene.wait(5);
        scene.sends(&[b"\x40\x02\0\x01"]);
        assert!(scene.effect().starts_with("Overdue"));
        scene.no_effect();
    });
}

#[test]
fn before_5_0_more_unanswered_messages_than_packet_ids_are_a_violation() {
    play_online(&v3(), |scene| {
        scene.hold = true;
        let mut packets = Vec::new();
        for id in 1..=u16::MAX {
            let [high, low] = id.to_be_bytes();
            packets.extend_from_slice(&[0x32, 5, 0, 1, b't', high, low]);
        }
        scene.feed(&packets).expect("each has its own id");
        assert_eq!(scene.got.len(), 65_535);
        scene.refuses(b"\x32\x05\0\x01t\0\x01");
    });
}

#[test]
fn unsent_answers_clog_the_out_buffer_and_unsent_messages_do_not() {
    play_online(&v5(), |scene| {
        scene.takes = 0;
        scene.publish_0(&[b'x'; 100_000], Wait::None);
        assert!(!scene.protocol.is_clogged());
        let flood = b"\x62\x02\0\x09".repeat(14_000);
        scene.feed(&flood).expect("answered each");
        assert!(scene.protocol.is_clogged());
        scene.takes = usize::MAX;
        scene.turn();
        assert!(!scene.protocol.is_clogged());
    });
}
