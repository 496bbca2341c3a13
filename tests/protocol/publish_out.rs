//! QoS 0, 1 and 2 on the way out: waits, order, partial writes, expiry, large bodies, and a message over
//! which the link is cut again and again.

use std::time::Duration;

use coracle::{ErrorKind, Message, Properties, Qos, Reason, Sent, Wait};

use crate::*;

const A_1: &[u8] = b"\x32\x07\0\x01t\0\x01\0a";
const PUBACK_1: &[u8] = b"\x40\x02\0\x01";

// Waits.

#[test]
fn qos_1_ends_with_puback_and_its_reason() {
    // [MQTT-4.3.2-1], [MQTT-4.3.2-2], [MQTT-4.3.2-3]
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.sends(&[A_1]);
        scene.goes_on(token);
        scene.receive(PUBACK_1);
        scene.is_acknowledged(token, Reason::SUCCESS);
        assert_eq!(scene.protocol.unfinished(), 0);
    });
}

#[test]
fn qos_2_ends_with_pubcomp_not_with_pubrec() {
    // [MQTT-4.3.3-1] to [MQTT-4.3.3-5]
    play_online(&v3(), |scene| {
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.sends(&[b"\x34\x06\0\x01t\0\x01a"]);
        scene.receive(b"\x50\x02\0\x01");
        scene.sends(&[b"\x62\x02\0\x01"]);
        scene.goes_on(token);
        scene.receive(b"\x70\x02\0\x01");
        scene.is_acknowledged(token, Reason::SUCCESS);
    });
}

#[test]
fn pubrels_leave_in_the_order_of_their_pubrecs() {
    // [MQTT-4.6.0-4], [MQTT-4.3.3-4], [MQTT-2.2.1-5]
    for (config, separate) in [(v5(), false), (v5(), true), (v3(), false), (v3(), true)] {
        play_online(&config, |scene| {
            for payload in [b"a", b"b", b"c", b"d"] {
                scene.publish(Qos::ExactlyOnce, payload, Wait::None);
            }
            scene.wire.clear();
            let order = [3, 1, 4, 2];
            let pubrecs = order.map(|id| [0x50, 2, 0, id]);
            if separate {
                for pubrec in &pubrecs {
                    scene.receive(pubrec);
                }
            } else {
                scene.receive(&pubrecs.concat());
            }
            let pubrels = order.map(|id| [0x62, 2, 0, id]);
            scene.sends(&[&pubrels.concat()]);
        });
    }
}

#[test]
fn sent_ends_when_the_message_is_flushed_not_when_it_is_written() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        play_online(&v5(), |scene| {
            scene.flushes = false;
            let token = scene.publish(qos, b"a", Wait::Sent);
            assert!(!scene.wire.is_empty());
            scene.goes_on(token);
            scene.flushes = true;
            scene.turn();
            scene.is_sent(token);
        });
    }
}

#[test]
fn ack_of_qos_0_is_the_same_as_sent() {
    play_online(&v5(), |scene| {
        let one = scene.publish(Qos::AtMostOnce, b"a", Wait::Ack);
        let two = scene.publish_0(b"b", Wait::Ack);
        scene.is_sent(one);
        scene.is_sent(two);
    });
}

#[test]
fn sent_of_qos_0_waits_for_its_last_byte() {
    play_online(&v5(), |scene| {
        scene.takes = 7 + 6;
        let one = scene.publish_0(b"a", Wait::Sent);
        let two = scene.publish_0(b"b", Wait::Sent);
        scene.is_sent(one);
        scene.goes_on(two);
        scene.takes = 1;
        scene.turn();
        scene.is_sent(two);
    });
}

#[test]
fn sent_moves_to_the_replay_when_the_link_was_lost_before_the_flush() {
    play_online(&v5(), |scene| {
        scene.flushes = false;
        let one = scene.publish(Qos::AtLeastOnce, b"a", Wait::Sent);
        let two = scene.publish(Qos::ExactlyOnce, b"b", Wait::Sent);
        scene.cut();
        scene.goes_on(one);
        scene.connect();
        scene.flushes = false;
        scene.receive(PRESENT_5);
        scene.goes_on(one);
        scene.goes_on(two);
        scene.flushes = true;
        scene.turn();
        scene.is_sent(one);
        scene.is_sent(two);
    });
}

#[test]
fn sent_moves_to_the_new_message_when_the_session_was_lost_before_the_flush() {
    play_online(&v5(), |scene| {
        scene.flushes = false;
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Sent);
        scene.reconnect_lost();
        scene.is_sent(token);
        scene.sends(&[b"\x32\x07\0\x01t\0\x02\0a"]);
    });
}

#[test]
fn sent_is_over_when_the_answer_comes_before_the_flush_is_noticed() {
    play_online(&v5(), |scene| {
        scene.flushes = false;
        let one = scene.publish(Qos::AtLeastOnce, b"a", Wait::Sent);
        let two = scene.publish(Qos::ExactlyOnce, b"b", Wait::Sent);
        let three = scene.publish(Qos::ExactlyOnce, b"c", Wait::Sent);
        scene.receive(b"\x40\x02\0\x01\x50\x02\0\x02");
        assert!(scene.outcome(one).is_ok());
        scene.is_sent(two);
        scene.goes_on(three);
        // The flush that is noticed later ends nothing a second time.
        scene.flushes = true;
        scene.turn();
        scene.is_sent(three);
        scene.receive(b"\x70\x02\0\x02");
        assert_eq!(scene.protocol.unfinished(), 1);
    });
}

#[test]
fn qos_0_that_waits_for_its_flush_ends_with_the_link() {
    play_online(&v5(), |scene| {
        scene.takes = 7 + 1;
        scene.flushes = false;
        let written = scene.publish_0(b"a", Wait::Sent);
        let begun = scene.publish(Qos::AtMostOnce, b"b", Wait::Ack);
        let unsent = scene.publish_0(b"c", Wait::Sent);
        scene.cut();
        let text = "publish: the link was lost (perhaps sent)";
        scene.fails_with(written, Sent::Maybe, text);
        scene.fails_with(begun, Sent::Maybe, text);
        scene.fails_with(unsent, Sent::No, "publish: the link was lost (not sent)");
        // It is not sent again.
        assert!(!scene.protocol.needs_flush());
        assert!(scene.protocol.is_drained());
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.sends_nothing();
    });
}

#[test]
fn qos_0_that_was_not_encoded_waits_for_the_next_link() {
    play_online(&v5(), |scene| {
        scene.takes = 0;
        // Above 64 KiB of unsent bytes nothing more is encoded.
        scene.publish_0(&[b'x'; 65_536], Wait::None);
        let token = scene.publish_0(b"a", Wait::Sent);
        assert_eq!(scene.protocol.pending_qos0(), 1);
        scene.reconnect_present();
        scene.sends(&[b"\x30\x05\0\x01t\0a"]);
        scene.is_sent(token);
    });
}

#[test]
fn qos_0_offline_is_kept_in_order_or_fails_by_option() {
    play(&v5(), |scene| {
        let one = scene.publish_0(b"a", Wait::Sent);
        scene.publish(Qos::AtMostOnce, b"b", Wait::None);
        scene.publish_0(b"c", Wait::None);
        scene.open_with(CONNACK_5);
        scene.sends(&[
            b"\x30\x05\0\x01t\0a",
            b"\x30\x05\0\x01t\0b",
            b"\x30\x05\0\x01t\0c",
        ]);
        scene.is_sent(one);
    });
    let config = Config {
        keep_qos0_offline: false,
        ..v5()
    };
    play(&config, |scene| {
        let error = scene.publish_refused(Message::new("t", "a").qos(Qos::AtMostOnce));
        assert!(matches!(error.kind(), ErrorKind::LinkLost));
        assert!(scene.protocol.publish_qos0(outgoing(b"a"), None).is_err());
        scene.open();
        // What the link leaves behind fails, too.
        scene.takes = 0;
        scene.publish_0(&[b'x'; 65_536], Wait::None);
        let token = scene.publish_0(b"a", Wait::Sent);
        scene.publish_0(b"b", Wait::None);
        scene.cut();
        scene.fails_with(token, Sent::No, "publish: the link was lost (not sent)");
        assert!(scene.effect().starts_with("Unpublished(None"));
        assert_eq!(scene.protocol.pending_qos0(), 0);
        // QoS 1 is kept all the same.
        scene.publish(Qos::AtLeastOnce, b"c", Wait::None);
        assert_eq!(scene.protocol.unfinished(), 1);
    });
}

#[test]
fn close_ends_every_wait_and_says_what_left() {
    play_online_unstored(&v5(), |scene| {
        scene.takes = 9 + 9;
        let released = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        let written = scene.publish(Qos::AtLeastOnce, b"b", Wait::Ack);
        scene.receive(b"\x50\x02\0\x01");
        let unsent = scene.publish(Qos::AtLeastOnce, b"c", Wait::Ack);
        let zero = scene.publish_0(b"d", Wait::Sent);
        let subscribe = scene.subscribe(&["f"], Qos::AtMostOnce, Wait::Ack);
        let unsubscribe = scene.unsubscribe(&["g"], Wait::Ack);
        let ping = scene.begin();
        scene.protocol.ping(ping).expect("online");
        scene.cut();
        let pending = scene.publish(Qos::AtLeastOnce, b"e", Wait::Ack);
        let zero_pending = scene.publish_0(b"f", Wait::Sent);
        scene.protocol.close();
        scene.collect();
        for (token, sent) in [
            (released, Sent::Yes),
            (written, Sent::Maybe),
            (unsent, Sent::No),
            (zero, Sent::No),
            (pending, Sent::No),
            (zero_pending, Sent::No),
        ] {
            assert_eq!(scene.fails(token).sent(), sent, "{token}");
        }
        for token in [subscribe, unsubscribe] {
            assert!(matches!(scene.fails(token).kind(), ErrorKind::Closed));
        }
        assert!(matches!(scene.fails(ping).kind(), ErrorKind::LinkLost));
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn close_while_online_says_closed_everywhere() {
    play_online_unstored(&v5(), |scene| {
        scene.takes = 1;
        let zero = scene.publish_0(b"d", Wait::Sent);
        let one = scene.publish(Qos::AtLeastOnce, b"c", Wait::Ack);
        let ping = scene.begin();
        scene.protocol.ping(ping).expect("online");
        scene.protocol.close();
        scene.collect();
        for (token, sent) in [(zero, Sent::Maybe), (one, Sent::No), (ping, Sent::No)] {
            let error = scene.fails(token);
            assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
            assert_eq!(error.sent(), sent);
        }
    });
}

// Order and writing.

#[test]
fn both_classes_keep_their_order_and_neither_waits_for_the_other() {
    play(&v5(), |scene| {
        scene.open_with(b"\x20\x06\0\0\x03\x21\0\x01");
        for number in [b'1', b'2', b'3'] {
            scene.publish(Qos::AtLeastOnce, &[b'a', number], Wait::None);
            scene.publish_0(&[b'z', number], Wait::None);
        }
        scene.receive(PUBACK_1);
        scene.publish_0(b"z4", Wait::None);
        scene.receive(b"\x40\x02\0\x02");
        scene.sends(&[
            b"\x32\x08\0\x01t\0\x01\0a1",
            b"\x30\x06\0\x01t\0z1",
            b"\x30\x06\0\x01t\0z2",
            b"\x30\x06\0\x01t\0z3",
            b"\x32\x08\0\x01t\0\x02\0a2",
            b"\x30\x06\0\x01t\0z4",
            b"\x32\x08\0\x01t\0\x03\0a3",
        ]);
    });
}

#[test]
fn offline_messages_of_both_classes_take_turns() {
    play_unstored(&v5(), |scene| {
        for payload in [b"a", b"b"] {
            scene.publish(Qos::AtLeastOnce, payload, Wait::None);
        }
        for payload in [b"x", b"y"] {
            scene.publish_0(payload, Wait::None);
        }
        scene.open_with(CONNACK_5);
        scene.sends(&[
            A_1,
            b"\x30\x05\0\x01t\0x",
            b"\x32\x07\0\x01t\0\x02\0b",
            b"\x30\x05\0\x01t\0y",
        ]);
    });
}

#[test]
fn partial_writes_give_the_same_bytes_whatever_is_queued_meanwhile() {
    for step in 1..=40 {
        play_online(&v5(), |scene| {
            let mut expected = Vec::new();
            let large = vec![b'L'; 70_000];
            scene.takes = 0;
            for number in 1..=5_u8 {
                scene.publish_0(&[number; 3], Wait::None);
                expected.extend_from_slice(&[0x30, 7, 0, 1, b't', 0, number, number, number]);
                if number == 3 {
                    scene.publish_0(&large, Wait::None);
                    expected.extend_from_slice(b"\x30\xF4\xA2\x04\0\x01t\0");
                    expected.extend_from_slice(&large);
                }
                scene.takes = step;
                scene.turn();
                scene.takes = 0;
            }
            scene.takes = 33_333;
            scene.turn();
            scene.takes = usize::MAX;
            scene.turn();
            assert_eq!(scene.wire, expected);
            assert!(scene.protocol.is_drained());
        });
    }
}

#[test]
fn what_is_queued_while_the_transport_holds_a_chunk_stands_behind_it() {
    for written in [0, 1, 6, 7] {
        play_online(&v5(), |scene| {
            scene.takes = 0;
            scene.publish_0(b"a", Wait::None);
            let chunk = scene.protocol.poll_chunk().expect("there are bytes");
            scene.wire.extend_from_slice(&chunk.as_bytes()[..written]);
            scene
                .protocol
                .publish_qos0(outgoing(b"b"), None)
                .expect("accepted");
            scene.protocol.handle_written(scene.now, chunk, written);
            scene.takes = usize::MAX;
            scene.turn();
            scene.sends(&[b"\x30\x05\0\x01t\0a", b"\x30\x05\0\x01t\0b"]);
        });
    }
}

#[test]
fn everything_of_one_turn_leaves_in_one_chunk() {
    play_online(&v5(), |scene| {
        for _ in 0..100 {
            scene
                .protocol
                .publish_qos0(outgoing(b"a"), None)
                .expect("accepted");
        }
        scene.protocol.pump(scene.now);
        let chunk = scene.protocol.poll_chunk().expect("there are bytes");
        assert_eq!(chunk.as_bytes().len(), 700);
        assert!(scene.protocol.poll_chunk().is_none());
        scene.protocol.handle_written(scene.now, chunk, 700);
    });
}

#[test]
fn large_bodies_are_written_without_being_copied() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        play_online_unstored(&v5(), |scene| {
            let body = Rc::new(vec![b'L'; 65_537]);
            let message = Message::new("t", Rc::clone(&body)).qos(qos);
            let (wait, token) = scene.begin_for(Wait::Sent);
            scene.protocol.publish(message, wait).expect("accepted");
            scene.protocol.pump(scene.now);
            let head = scene.protocol.poll_chunk().expect("the head");
            assert!(head.as_bytes().len() < 16);
            let length = head.as_bytes().len();
            scene.protocol.handle_written(scene.now, head, length);
            let chunk = scene.protocol.poll_chunk().expect("the body");
            assert_eq!(chunk.as_bytes().as_ptr(), body.as_ptr());
            scene.protocol.handle_written(scene.now, chunk, 60_000);
            let chunk = scene.protocol.poll_chunk().expect("the rest of the body");
            assert_eq!(chunk.as_bytes().len(), 5_537);
            scene.protocol.handle_written(scene.now, chunk, 5_537);
            scene.goes_on(token);
            scene.turn();
            scene.is_sent(token);
        });
    }
}

#[test]
fn a_large_body_is_replayed_after_a_cut_in_its_middle() {
    play_online(&v3(), |scene| {
        scene.takes = 40_000;
        let body = vec![b'L'; 65_537];
        let token = scene.publish(Qos::AtLeastOnce, &body, Wait::Ack);
        scene.reconnect_present();
        scene.sends(&[b"\x3A\x86\x80\x04\0\x01t\0\x01", &body]);
        scene.receive(PUBACK_1);
        scene.is_acknowledged(token, Reason::SUCCESS);
    });
}

#[test]
fn above_64_kib_of_unsent_bytes_messages_stay_pending() {
    play_online(&v5(), |scene| {
        scene.takes = 0;
        for _ in 0..100 {
            scene.publish_0(&[b'x'; 1000], Wait::None);
            scene.publish(Qos::AtLeastOnce, &[b'y'; 1000], Wait::None);
        }
        assert!(scene.protocol.unsent() < 64 * 1024 + 1100);
        assert!(scene.protocol.pending_qos0() > 50);
        scene.takes = usize::MAX;
        scene.turn();
        assert_eq!(scene.protocol.pending_qos0(), 0);
        assert_eq!(scene.wire.len(), 100 * (1007 + 1009));
    });
}

#[test]
fn packet_ids_are_not_reused_at_once_and_skip_those_in_use() {
    // [MQTT-2.2.1-3]
    play_online(&v3(), |scene| {
        let stuck = scene.publish(Qos::AtLeastOnce, b"s", Wait::Ack);
        scene.wire.clear();
        let mut last = 1_u16;
        for _ in 0..70_000 {
            scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
            last = last.checked_add(1).unwrap_or(2);
            let [high, low] = last.to_be_bytes();
            scene.sends(&[&[0x32, 6, 0, 1, b't', high, low, b'a']]);
            scene.protocol.handle_received(scene.now);
            scene.feed(&[0x40, 2, high, low]).expect("PUBACK");
        }
        scene.goes_on(stuck);
        scene.receive(PUBACK_1);
        scene.is_acknowledged(stuck, Reason::SUCCESS);
    });
}

#[test]
fn no_id_that_waits_for_an_answer_is_used_in_two_hundred_thousand_publishes() {
    // [MQTT-2.2.1-3]. Three times through all ids, while a message, the second half of an exchange and a
    // request wait, and across reconnects, each of which sends them again.
    let mut scene = Scene::new(v3(), Feed::Whole);
    scene.open();
    let stuck = scene.publish(Qos::AtLeastOnce, b"s", Wait::Ack);
    let released = scene.publish(Qos::ExactlyOnce, b"r", Wait::Ack);
    scene.receive(b"\x50\x02\0\x02");
    let request = scene.subscribe(&["f"], Qos::AtMostOnce, Wait::Ack);
    let mut asked = [0, 3];
    for nth in 0..200_000 {
        if nth % 50_000 == 49_999 {
            scene.reconnect_present();
            let wire = std::mem::take(&mut scene.wire);
            assert_eq!(wire.len(), 20, "{}", Hex(&wire));
            let subscribe = &wire[4..12];
            assert!(
                wire.starts_with(b"\x62\x02\0\x02\x82\x06"),
                "{}",
                Hex(&wire)
            );
            assert!(wire.ends_with(b"\x3A\x06\0\x01t\0\x01s"), "{}", Hex(&wire));
            asked = [subscribe[2], subscribe[3]];
        }
        scene.wire.clear();
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        let id = [scene.wire[5], scene.wire[6]];
        let free = ![[0, 0], [0, 1], [0, 2], asked].contains(&id);
        assert!(free, "{id:?} is in use at publish {nth}");
        scene.receive(&[0x40, 2, id[0], id[1]]);
    }
    for wait in [stuck, released, request] {
        scene.goes_on(wait);
    }
    scene.receive(PUBACK_1);
    scene.receive(b"\x70\x02\0\x02");
    scene.receive(&[0x90, 3, asked[0], asked[1], 0]);
    scene.is_acknowledged(stuck, Reason::SUCCESS);
    scene.is_acknowledged(released, Reason::SUCCESS);
    assert!(scene.outcome(request).is_ok());
    scene.rest();
}

// Links that are lost again and again.

#[test]
fn a_full_window_goes_on_after_a_reconnect() {
    let config = Config { window: 3, ..v3() };
    play_online(&config, |scene| {
        let tokens: Vec<_> = [b"a", b"b", b"c", b"d", b"e"]
            .map(|payload| scene.publish(Qos::AtLeastOnce, payload, Wait::Ack))
            .into();
        assert_eq!(scene.protocol.credit(), 0);
        scene.wire.clear();
        for _ in 0..2 {
            scene.reconnect_present();
            scene.sends(&[
                b"\x3A\x06\0\x01t\0\x01a",
                b"\x3A\x06\0\x01t\0\x02b",
                b"\x3A\x06\0\x01t\0\x03c",
            ]);
        }
        scene.receive(b"\x40\x02\0\x01\x40\x02\0\x02\x40\x02\0\x03");
        scene.sends(&[b"\x32\x06\0\x01t\0\x04d", b"\x32\x06\0\x01t\0\x05e"]);
        scene.receive(b"\x40\x02\0\x04\x40\x02\0\x05");
        for token in tokens {
            scene.is_acknowledged(token, Reason::SUCCESS);
        }
    });
}

#[test]
fn a_released_message_is_not_published_again_though_its_pubrel_never_leaves() {
    // [MQTT-4.3.3-6]. Mosquitto 2.0.11 does so as a sender, when a link ends before it has repeated its
    // PUBREL.
    for takes in [usize::MAX, 0] {
        play_online(&v5(), |scene| {
            let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
            scene.takes = takes;
            scene.receive(b"\x50\x02\0\x01");
            for _ in 0..3 {
                scene.cut();
                scene.connect();
                scene.wire.clear();
                scene.takes = 0;
                scene.receive(PRESENT_5);
                scene.sends_nothing();
            }
            scene.reconnect_present();
            scene.sends(&[b"\x62\x02\0\x01"]);
            scene.receive(b"\x70\x02\0\x01");
            scene.is_acknowledged(token, Reason::SUCCESS);
        });
    }
}

// Expiry.

#[test]
fn a_pending_message_expires_and_what_is_left_of_its_expiry_is_sent() {
    let expiring = |seconds| {
        Message::new("t", "a")
            .expiry(Duration::from_secs(seconds))
            .qos(Qos::AtLeastOnce)
    };
    play_unstored(&v5(), |scene| {
        let short = scene.publish_message(expiring(10), Wait::Ack);
        let long = scene.publish_message(expiring(100), Wait::Ack);
        let zero = scene.publish_message(expiring(10).qos(Qos::AtMostOnce), Wait::Sent);
        scene.publish_message(expiring(100).qos(Qos::AtMostOnce), Wait::None);
        scene
            .pass(Duration::from_millis(30_500))
            .expect("there is no link");
        scene.open_with(CONNACK_5);
        let text = "publish: the message expired before it could be sent (not sent)";
        scene.fails_with(short, Sent::No, text);
        scene.fails_with(zero, Sent::No, text);
        // 69.5 seconds, rounded up
        scene.sends(&[
            b"\x32\x0C\0\x01t\0\x01\x05\x02\0\0\0\x46a",
            b"\x30\x0A\0\x01t\x05\x02\0\0\0\x46a",
        ]);
        scene.goes_on(long);
    });
}

#[test]
fn a_message_that_leaves_at_once_has_its_whole_expiry() {
    play_online(&v5(), |scene| {
        let message = Message::new("t", "a").expiry(Duration::from_secs(10));
        scene.publish_message(message, Wait::None);
        scene.sends(&[b"\x32\x0C\0\x01t\0\x01\x05\x02\0\0\0\x0Aa"]);
    });
}

#[test]
fn what_the_broker_may_have_does_not_expire() {
    // [MQTT-4.3.3-7]
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        play_online(&v5(), |scene| {
            let message = Message::new("t", "a")
                .expiry(Duration::from_secs(10))
                .qos(qos);
            let token = scene.publish_message(message, Wait::Ack);
            scene.cut();
            scene.wait(100);
            scene.wire.clear();
            scene.open_with(PRESENT_5);
            let first = 0x38 | qos.bits() << 1;
            scene.sends(&[&[first], b"\x0C\0\x01t\0\x01\x05\x02\0\0\0\x01a"]);
            scene.goes_on(token);
        });
    }
}

#[test]
fn a_message_sent_anew_may_expire_and_was_perhaps_sent() {
    play_online(&v5(), |scene| {
        let message = Message::new("t", "a").expiry(Duration::from_secs(10));
        let token = scene.publish_message(message, Wait::Ack);
        scene.cut();
        scene.wait(100);
        scene.wire.clear();
        scene.open();
        scene.sends_nothing();
        scene.fails_with(
            token,
            Sent::Maybe,
            "publish: the message expired before it could be sent (perhaps sent)",
        );
        assert_eq!(scene.protocol.unfinished(), 0);
    });
}

#[test]
fn before_5_0_expiry_is_kept_by_the_client_alone() {
    play_unstored(&v3(), |scene| {
        let message = |seconds| Message::new("t", "a").expiry(Duration::from_secs(seconds));
        let short = scene.publish_message(message(10), Wait::Ack);
        scene.publish_message(message(100), Wait::None);
        scene.wait(30);
        scene.open_with(CONNACK);
        assert!(matches!(scene.fails(short).kind(), ErrorKind::Expired));
        scene.sends(&[b"\x32\x06\0\x01t\0\x01a"]);
    });
}

// Properties.

#[test]
fn properties_are_sent_on_5_0_and_left_out_before() {
    let message = || {
        Message::new("t", "a")
            .qos(Qos::AtMostOnce)
            .properties(Properties::new().user_property("k", "v"))
    };
    play_online(&v5(), |scene| {
        scene.publish_message(message(), Wait::None);
        scene.sends(&[b"\x30\x0C\0\x01t\x07\x26\0\x01k\0\x01va"]);
    });
    play_online(&v3(), |scene| {
        scene.publish_message(message(), Wait::None);
        scene.sends(&[b"\x30\x04\0\x01ta"]);
    });
}

#[test]
fn a_message_passed_on_sends_neither_its_alias_nor_its_subscription_identifier() {
    // [MQTT-3.3.2-7], [MQTT-3.3.4-6]
    play_online(&v5(), |scene| {
        // alias 1, subscription identifier 5, content type "x"
        scene.receive(b"\x30\x0E\0\x01t\x09\x23\0\x01\x0B\x05\x03\0\x01xa");
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let got = scene.got.front().expect("a message arrived");
            let message = got.message.clone().qos(qos);
            scene.publish_message(message, Wait::None);
        }
        let got = scene.gets("t", b"a");
        scene
            .protocol
            .publish_qos0(
                Outgoing {
                    properties: got.message.property_list(),
                    ..outgoing(b"a")
                },
                None,
            )
            .expect("accepted");
        scene.turn();
        scene.sends(&[
            b"\x30\x09\0\x01t\x04\x03\0\x01xa",
            b"\x32\x0B\0\x01t\0\x01\x04\x03\0\x01xa",
            b"\x30\x09\0\x01t\x04\x03\0\x01xa",
        ]);
    });
}

#[test]
fn a_property_that_does_not_belong_into_publish_is_an_error_of_the_call() {
    let properties = Properties::new().reason_string("no");
    play_online(&v5(), |scene| {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let message = Message::new("t", "a").qos(qos);
            let error = scene.publish_refused(message.properties(properties.clone()));
            assert!(matches!(error.kind(), ErrorKind::Property(_)), "{error}");
        }
        let outgoing = Outgoing {
            properties: properties.list(),
            ..outgoing(b"a")
        };
        assert!(scene.protocol.publish_qos0(outgoing, None).is_err());
        scene.turn();
        scene.sends_nothing();
    });
    // Before 5.0 it is harmless: no property is sent.
    play_online(&v3(), |scene| {
        let message = Message::new("t", "a").properties(properties.clone());
        scene.publish_message(message, Wait::None);
        scene.sends(&[b"\x32\x06\0\x01t\0\x01a"]);
    });
}

// Answers at the wrong time.

#[test]
fn a_second_puback_is_ignored() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.receive(PUBACK_1);
        scene.receive(PUBACK_1);
        scene.is_acknowledged(token, Reason::SUCCESS);
        assert_eq!(scene.effect(), "Stray");
        assert_eq!(scene.protocol.credit(), 1024);
    });
}

#[test]
fn an_answer_that_comes_before_the_replay_counts_and_nothing_is_sent_again() {
    play_online(&v5(), |scene| {
        let one = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        let two = scene.publish(Qos::AtLeastOnce, b"b", Wait::Ack);
        let three = scene.publish(Qos::ExactlyOnce, b"c", Wait::Ack);
        let four = scene.publish(Qos::ExactlyOnce, b"d", Wait::Ack);
        scene.cut();
        scene.wire.clear();
        scene.open_with(b"\x20\x06\x01\0\x03\x21\0\x01");
        scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
        // The broker answers what it got on the last connection.
        scene.receive(b"\x40\x02\0\x02\x50\x02\0\x03\x50\x03\0\x04\x87");
        scene.is_acknowledged(two, Reason::SUCCESS);
        assert_eq!(scene.fails(four).reason(), Some(Reason::NOT_AUTHORIZED));
        scene.sends(&[b"\x62\x02\0\x03"]);
        scene.receive(PUBACK_1);
        scene.is_acknowledged(one, Reason::SUCCESS);
        scene.sends_nothing();
        assert_eq!(scene.protocol.credit(), 0);
        scene.receive(b"\x70\x02\0\x03");
        scene.is_acknowledged(three, Reason::SUCCESS);
        assert_eq!(scene.protocol.credit(), 1);
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn a_refusal_after_pubrel_comes_too_late() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.receive(b"\x50\x02\0\x01");
        scene.wire.clear();
        scene.receive(b"\x50\x03\0\x01\x80");
        scene.sends_nothing();
        assert_eq!(scene.effect(), "Stray");
        scene.goes_on(token);
        scene.receive(b"\x70\x02\0\x01");
        scene.is_acknowledged(token, Reason::SUCCESS);
        assert_eq!(scene.protocol.credit(), 1024);
    });
}

#[test]
fn the_id_of_a_qos_2_message_given_up_is_not_used_until_the_broker_answers() {
    // [MQTT-4.3.3-10]: under that id the broker would take another message for a repeat.
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.cut();
        // Maximum QoS 1
        scene.open_with(b"\x20\x05\x01\0\x02\x24\x01");
        assert_eq!(scene.fails(token).sent(), Sent::Maybe);
        scene.wire.clear();
        // The counter comes around and skips it.
        for id in (2..=u16::MAX).chain([2]) {
            scene.publish(Qos::AtLeastOnce, b"x", Wait::None);
            let [high, low] = id.to_be_bytes();
            scene.sends(&[&[0x32, 7, 0, 1, b't', high, low, 0, b'x']]);
            scene.feed(&[0x40, 2, high, low]).expect("PUBACK");
        }
        // The broker's PUBREC is answered so that it can forget, and then the id is free.
        scene.receive(b"\x50\x02\0\x01");
        scene.sends(&[b"\x62\x03\0\x01\x92"]);
        scene.receive(b"\x70\x02\0\x01");
        for id in (3..=u16::MAX).chain([1]) {
            scene.publish(Qos::AtLeastOnce, b"x", Wait::None);
            let [high, low] = id.to_be_bytes();
            scene.sends(&[&[0x32, 7, 0, 1, b't', high, low, 0, b'x']]);
            scene.feed(&[0x40, 2, high, low]).expect("PUBACK");
        }
    });
}

#[test]
fn the_id_of_a_qos_2_message_given_up_is_free_when_the_broker_refuses_it() {
    play_online(&v5(), |scene| {
        scene.publish(Qos::ExactlyOnce, b"a", Wait::None);
        scene.cut();
        scene.open_with(b"\x20\x05\x01\0\x02\x24\x01");
        assert_eq!(scene.protocol.identifiers(), 1);
        scene.wire.clear();
        scene.receive(b"\x50\x03\0\x01\x80");
        scene.sends_nothing();
        assert_eq!(scene.protocol.identifiers(), 0);
    });
}

#[test]
fn a_burst_leaves_nothing_behind_that_the_next_one_could_stumble_over() {
    play_online(&v5(), |scene| {
        for round in 0..3_u8 {
            for _ in 0..200 {
                scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
                scene.publish_0(&[b'z'; 100], Wait::None);
            }
            for id in 1..=200_u16 {
                let [high, low] = (id + 200 * u16::from(round)).to_be_bytes();
                scene.receive(&[0x40, 2, high, low]);
            }
            assert!(scene.protocol.is_drained());
            assert_eq!(scene.protocol.identifiers(), 0);
            scene.no_effect();
        }
    });
}

#[test]
fn the_id_of_a_qos_2_message_given_up_is_free_when_the_session_is_lost() {
    play_online(&v5(), |scene| {
        scene.publish(Qos::ExactlyOnce, b"a", Wait::None);
        scene.cut();
        scene.open_with(b"\x20\x05\x01\0\x02\x24\x01");
        scene.reconnect_lost();
        for id in (2..=u16::MAX).chain([1]) {
            scene.publish(Qos::AtLeastOnce, b"x", Wait::None);
            let [high, low] = id.to_be_bytes();
            scene.sends(&[&[0x32, 7, 0, 1, b't', high, low, 0, b'x']]);
            scene.feed(&[0x40, 2, high, low]).expect("PUBACK");
        }
    });
}

// A message over which the link is cut.

/// Reconnects, and lets the broker answer the PINGREQ that asks whether this connection works.
fn reconnect_and_prove(scene: &mut Scene) {
    scene.wire.clear();
    scene.open_with(PRESENT_5);
    scene.sends(&[PINGREQ]);
    scene.receive(PINGRESP);
}

#[test]
fn a_message_over_which_the_broker_closes_three_times_fails() {
    play_online(&v5(), |scene| {
        let bad = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        let good = scene.publish(Qos::AtLeastOnce, b"b", Wait::Ack);
        scene.closed_by_broker();
        for _ in 0..2 {
            scene.goes_on(bad);
            // The message waits until the broker has shown that it answers at all.
            reconnect_and_prove(scene);
            scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a", b"\x3A\x07\0\x01t\0\x02\0b"]);
            scene.closed_by_broker();
        }
        scene.fails_with(
            bad,
            Sent::Maybe,
            "publish: the link was lost (perhaps sent)",
        );
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.sends(&[b"\x3A\x07\0\x01t\0\x02\0b"]);
        scene.receive(b"\x40\x02\0\x02");
        scene.is_acknowledged(good, Reason::SUCCESS);
    });
}

#[test]
fn a_message_is_not_to_blame_for_what_the_network_cuts() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        for _ in 0..20 {
            scene.reconnect_present();
            scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
        }
        scene.goes_on(token);
    });
}

#[test]
fn a_message_is_not_to_blame_for_a_broker_that_answers_no_ping() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.closed_by_broker();
        for _ in 0..20 {
            scene.wire.clear();
            scene.open_with(PRESENT_5);
            scene.sends(&[PINGREQ]);
            scene.closed_by_broker();
        }
        scene.goes_on(token);
    });
}

#[test]
fn a_message_is_not_to_blame_for_a_connection_that_acknowledged_another() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        for id in 2..20 {
            scene.receive(&[0x40, 2, 0, id]);
            scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
            scene.closed_by_broker();
            scene.wire.clear();
            scene.open_with(PRESENT_5);
        }
        scene.goes_on(token);
        assert!(scene.wire.starts_with(b"\x3A\x07\0\x01t\0\x01\0a"));
    });
}

#[test]
fn a_message_is_not_to_blame_for_a_connection_that_finished_another() {
    play_online(&v5(), |scene| {
        for _ in 0..5 {
            scene.publish(Qos::ExactlyOnce, b"b", Wait::None);
        }
        scene.receive(b"\x50\x02\0\x01\x50\x02\0\x02\x50\x02\0\x03\x50\x02\0\x04\x50\x02\0\x05");
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.cut();
        for id in 1..=5 {
            scene.open_with(PRESENT_5);
            // The PUBCOMP of a PUBREL that was sent again.
            scene.receive(&[0x70, 2, 0, id]);
            scene.closed_by_broker();
        }
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.sends(&[b"\x3A\x07\0\x01t\0\x06\0a"]);
        scene.goes_on(token);
    });
}

#[test]
fn a_message_is_not_to_blame_for_a_broker_that_shuts_down() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        for reason in [
            0x8B, 0x89, 0x8D, 0x8E, 0x98, 0x9C, 0x9D, 0x9F, 0xA0, 0x8B, 0x00,
        ] {
            scene.refuses(&[0xE0, 1, reason]);
            scene.closed_by_broker();
            scene.wire.clear();
            scene.open_with(PRESENT_5);
            scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
        }
        scene.goes_on(token);
    });
}

#[test]
fn a_message_is_to_blame_when_the_broker_says_so() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        for _ in 0..2 {
            scene.refuses(b"\xE0\x01\x95");
            scene.closed_by_broker();
            reconnect_and_prove(scene);
            scene.sends(&[b"\x3C\x07\0\x01t\0\x01\0a"]);
        }
        scene.refuses(b"\xE0\x01\x95");
        scene.closed_by_broker();
        assert_eq!(scene.fails(token).sent(), Sent::Maybe);
    });
}

#[test]
fn a_message_that_did_not_leave_whole_is_not_to_blame() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        for _ in 0..5 {
            scene.cut();
            scene.connect();
            scene.takes = 8;
            scene.receive(PRESENT_5);
            scene.closed_by_broker();
        }
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
        scene.goes_on(token);
    });
}

/// The link breaks so often over the message "a", which is the only one, that it is under suspicion.
fn make_doubtful(scene: &mut Scene) -> Token {
    let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
    scene.wire.clear();
    for _ in 0..3 {
        scene.breaks();
        scene.wire.clear();
        scene.open_with(PRESENT_5);
    }
    token
}

/// A connection that lasts and answers, so that the suspect leaves.
fn last_and_prove(scene: &mut Scene) {
    scene.wait(4);
    scene.sends_nothing();
    scene.wait(1);
    scene.sends(&[PINGREQ]);
    scene.receive(PINGRESP);
}

#[test]
fn a_message_over_which_the_link_breaks_six_times_in_a_row_fails() {
    play_online(&v5(), |scene| {
        let bad = make_doubtful(scene);
        let good = scene.publish(Qos::AtLeastOnce, b"b", Wait::Ack);
        for _ in 0..3 {
            scene.goes_on(bad);
            last_and_prove(scene);
            // Alone.
            scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
            scene.breaks();
            scene.open_with(PRESENT_5);
        }
        scene.fails_with(
            bad,
            Sent::Maybe,
            "publish: the link was lost (perhaps sent)",
        );
        scene.sends(&[b"\x32\x07\0\x01t\0\x02\0b"]);
        scene.receive(b"\x40\x02\0\x02");
        scene.is_acknowledged(good, Reason::SUCCESS);
    });
}

#[test]
fn a_message_is_not_to_blame_for_a_link_that_breaks_elsewhere_too() {
    play_online(&v5(), |scene| {
        let token = make_doubtful(scene);
        for _ in 0..5 {
            scene.wait(4);
            scene.sends_nothing();
            scene.breaks();
            for _ in 0..3 {
                scene.open_with(PRESENT_5);
                scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
                scene.breaks();
            }
            scene.open_with(PRESENT_5);
            // It breaks before PINGRESP.
            scene.wait(5);
            scene.sends(&[PINGREQ]);
            scene.breaks();
            for _ in 0..3 {
                scene.open_with(PRESENT_5);
                scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
                scene.breaks();
            }
            scene.open_with(PRESENT_5);
        }
        scene.goes_on(token);
    });
}

#[test]
fn a_message_is_not_to_blame_for_a_link_that_breaks_later() {
    play_online(&v5(), |scene| {
        let token = make_doubtful(scene);
        let other = scene.publish(Qos::AtLeastOnce, b"b", Wait::Ack);
        for round in 0..5 {
            last_and_prove(scene);
            scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
            // A broker that refuses it would have hung up.
            scene.wait(1);
            let first = if round == 0 { 0x32 } else { 0x3A };
            let other = &[first, 7, 0, 1, b't', 0, 2, 0, b'b'];
            scene.sends(&[other]);
            scene.breaks();
            for _ in 0..3 {
                scene.open_with(PRESENT_5);
                scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a", b"\x3A\x07\0\x01t\0\x02\0b"]);
                scene.breaks();
            }
            scene.open_with(PRESENT_5);
        }
        scene.goes_on(token);
        scene.goes_on(other);
    });
}

#[test]
fn a_message_of_which_no_byte_left_is_not_to_blame() {
    play_online(&v5(), |scene| {
        let token = make_doubtful(scene);
        for _ in 0..10 {
            scene.wait(5);
            scene.takes = 0;
            scene.receive(PINGRESP);
            scene.breaks();
            scene.open_with(PRESENT_5);
            scene.wire.clear();
        }
        scene.goes_on(token);
    });
}

#[test]
fn a_message_that_is_sent_alone_holds_back_no_qos_0_and_no_request() {
    play_online(&v5(), |scene| {
        let token = make_doubtful(scene);
        last_and_prove(scene);
        scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        scene.publish_0(b"x", Wait::None);
        scene.subscribe(&["f"], Qos::AtMostOnce, Wait::None);
        let mut wire = std::mem::take(&mut scene.wire);
        let subscribe = b"\x82\x07\0\x02\0\0\x01f\0";
        let id = wire.windows(2).rposition(|pair| pair == b"\x82\x07");
        let id = id.expect("SUBSCRIBE") + 3;
        wire[id] = 2;
        assert_eq!(wire, [&b"\x30\x05\0\x01t\0x"[..], subscribe].concat());
        // Its acknowledgement lets the others go.
        scene.receive(b"\x40\x02\0\x01");
        scene.is_acknowledged(token, Reason::SUCCESS);
        assert_eq!(scene.wire.first(), Some(&0x32));
    });
}

#[test]
fn our_own_good_bye_blames_no_message() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        for _ in 0..5 {
            scene.disconnect();
            scene.closed_by_broker();
            scene.wire.clear();
            scene.open_with(PRESENT_5);
            scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
        }
        scene.goes_on(token);
    });
}

#[test]
fn a_suspect_does_not_hold_back_qos_0_or_requests() {
    play_online(&v5(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.closed_by_broker();
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.publish_0(b"x", Wait::None);
        scene.subscribe(&["f"], Qos::AtMostOnce, Wait::None);
        scene.sends(&[PINGREQ, b"\x30\x05\0\x01t\0x", b"\x82\x07\0\x02\0\0\x01f\0"]);
    });
}

#[test]
fn a_suspect_stays_one_when_the_session_is_lost() {
    play_online(&v5(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.closed_by_broker();
        scene.wire.clear();
        scene.open();
        scene.sends(&[PINGREQ]);
        scene.receive(PINGRESP);
        scene.sends(&[b"\x32\x07\0\x01t\0\x02\0a"]);
        scene.receive(b"\x40\x02\0\x02");
        assert!(scene.protocol.is_drained());
    });
}
