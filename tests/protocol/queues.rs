//! The bounds of the queues, and the line of callers who wait for room.

use coracle::{ErrorKind, Message, Qos, Reason, Sent, Wait};

use crate::*;

/// Room for two messages: the bound is looked at before a message is accepted, and each counts its
/// topic, its payload and 64 bytes.
fn two() -> Config {
    Config {
        queue_bytes: 1 + 1 + 64 + 1,
        ..v5()
    }
}

#[track_caller]
fn full(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::QueueFull), "{error}");
}

fn message(payload: &[u8], qos: Qos) -> Message {
    Message::new("t", payload).qos(qos)
}

#[test]
fn none_fails_at_once_when_there_is_no_room_and_gives_the_message_back() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        play(&two(), |scene| {
            assert!(scene.protocol.has_room());
            scene.publish(qos, b"a", Wait::None);
            scene.publish(qos, b"b", Wait::None);
            assert!(!scene.protocol.has_room());
            let (message, error) = scene
                .protocol
                .publish(message(b"c", qos), None)
                .expect_err("no room");
            full(&error);
            assert_eq!(message.payload(), b"c");
            assert_eq!(error.sent(), Sent::No);
        });
    }
}

#[test]
fn the_short_path_of_qos_0_has_the_same_bound() {
    play(&two(), |scene| {
        scene.publish_0(b"a", Wait::None);
        scene.publish_0(b"b", Wait::None);
        full(
            &scene
                .protocol
                .publish_qos0(outgoing(b"c"), None)
                .expect_err("no room"),
        );
    });
}

#[test]
fn each_class_has_its_own_bound() {
    play(&two(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.publish(Qos::ExactlyOnce, b"b", Wait::None);
        full(&scene.publish_refused(message(b"c", Qos::AtLeastOnce)));
        scene.publish(Qos::AtMostOnce, b"c", Wait::None);
    });
}

#[test]
fn a_message_larger_than_the_bound_is_accepted_alone() {
    play(&two(), |scene| {
        scene.publish(Qos::AtLeastOnce, &[b'x'; 10_000], Wait::None);
        full(&scene.publish_refused(message(b"c", Qos::AtLeastOnce)));
    });
}

#[test]
fn callers_who_wait_are_parked_and_move_up_in_the_order_of_their_calls() {
    play(&two(), |scene| {
        let mut tokens = Vec::new();
        for payload in [b"a", b"b", b"c", b"d", b"e"] {
            tokens.push(scene.publish(Qos::AtLeastOnce, payload, Wait::Ack));
        }
        assert_eq!(scene.protocol.unfinished(), 2);
        assert!(!scene.protocol.is_drained());
        scene.open_with(CONNACK_5);
        scene.sends(&[b"\x32\x07\0\x01t\0\x01\0a", b"\x32\x07\0\x01t\0\x02\0b"]);
        for (id, packet) in [
            (1, b"\x32\x07\0\x01t\0\x03\0c".as_slice()),
            (2, b"\x32\x07\0\x01t\0\x04\0d"),
            (3, b"\x32\x07\0\x01t\0\x05\0e"),
            (4, b""),
            (5, b""),
        ] {
            scene.receive(&[0x40, 2, 0, id]);
            scene.sends(&[packet]);
        }
        for token in tokens {
            assert!(scene.outcome(token).is_ok());
        }
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn nobody_overtakes_the_line() {
    play(&two(), |scene| {
        scene.open_with(CONNACK_5);
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        let parked = park(scene, b"c", Qos::AtLeastOnce, Wait::Sent);
        // The broker's answer makes room, but the one in line is first.
        scene.protocol.handle_received(scene.now);
        scene
            .protocol
            .handle_input(scene.now, b"\x40\x02\0\x01", None)
            .expect("PUBACK");
        full(&scene.publish_refused(message(b"d", Qos::AtLeastOnce)));
        assert!(!scene.protocol.has_room());
        scene.turn();
        scene.is_sent(parked.0);
        full(&scene.publish_refused(message(b"d", Qos::AtLeastOnce)));
        scene.receive(b"\x40\x02\0\x02");
        assert!(scene.protocol.has_room());
        scene.publish(Qos::AtLeastOnce, b"d", Wait::None);
    });
}

/// Parks a message; its token and its place in line.
#[track_caller]
fn park(scene: &mut Scene, payload: &[u8], qos: Qos, wait: Wait) -> (Token, u64) {
    let (wait, token) = scene.begin_for(wait);
    match scene.protocol.publish(message(payload, qos), wait) {
        Ok(Accepted::Parked(place)) => (token, place),
        Ok(Accepted::Yes) => panic!("there was room"),
        Err((_, error)) => panic!("{error}"),
    }
}

#[test]
fn one_who_withdraws_is_never_sent() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        play(&two(), |scene| {
            scene.publish(qos, b"a", Wait::None);
            scene.publish(qos, b"b", Wait::None);
            let places: Vec<_> = [b"c", b"d", b"e", b"f"]
                .iter()
                .map(|payload| park(scene, *payload, qos, Wait::Sent))
                .collect();
            let back = scene.protocol.withdraw(qos, places[1].1).expect("in line");
            assert_eq!(back.payload(), b"d");
            assert!(scene.protocol.withdraw(qos, places[1].1).is_none());
            let back = scene.protocol.withdraw(qos, places[0].1).expect("in line");
            assert_eq!(back.payload(), b"c");
            let back = scene.protocol.withdraw(qos, places[3].1).expect("in line");
            assert_eq!(back.payload(), b"f");
            scene.open_with(CONNACK_5);
            for id in 1..=3 {
                scene.receive(&[0x40, 2, 0, id]);
            }
            let sent: Vec<u8> = scene.wire.clone();
            let payload = |byte| sent.contains(&byte);
            assert!(payload(b'a') && payload(b'b') && payload(b'e'));
            assert!(!payload(b'c') && !payload(b'd') && !payload(b'f'));
            // The one that moved up is not in line any more.
            assert!(scene.protocol.withdraw(qos, places[2].1).is_none());
            for at in [0, 1, 3] {
                scene.goes_on(places[at].0);
                scene.waits.remove(&places[at].0);
            }
        });
    }
}

#[test]
fn a_line_from_which_all_withdrew_is_empty() {
    play(&two(), |scene| {
        let qos = Qos::AtLeastOnce;
        scene.publish(qos, b"a", Wait::None);
        scene.publish(qos, b"b", Wait::None);
        let one = park(scene, b"c", qos, Wait::Ack);
        let two = park(scene, b"d", qos, Wait::Ack);
        scene.protocol.withdraw(qos, two.1).expect("in line");
        scene.protocol.withdraw(qos, one.1).expect("in line");
        scene.open_with(CONNACK_5);
        scene.receive(b"\x40\x02\0\x01\x40\x02\0\x02");
        assert!(scene.protocol.has_room());
        assert!(scene.protocol.is_drained());
        scene.waits.clear();
    });
}

#[test]
fn many_who_come_and_go_behind_one_who_stays_are_forgotten() {
    play(&two(), |scene| {
        let qos = Qos::AtLeastOnce;
        scene.publish(qos, b"a", Wait::None);
        scene.publish(qos, b"b", Wait::None);
        let stays = park(scene, b"c", qos, Wait::Ack);
        for _ in 0..10_000 {
            let (token, place) = park(scene, b"d", qos, Wait::Ack);
            scene.protocol.withdraw(qos, place).expect("in line");
            scene.waits.remove(&token);
        }
        let last = park(scene, b"e", qos, Wait::Ack);
        scene.open_with(CONNACK_5);
        scene.receive(b"\x40\x02\0\x01\x40\x02\0\x02");
        scene.receive(b"\x40\x02\0\x03\x40\x02\0\x04");
        assert!(scene.outcome(stays.0).is_ok());
        assert!(scene.outcome(last.0).is_ok());
    });
}

#[test]
fn pubrec_makes_room_because_the_content_is_dropped() {
    play_online(&two(), |scene| {
        scene.publish(Qos::ExactlyOnce, &[b'x'; 1000], Wait::None);
        full(&scene.publish_refused(message(b"c", Qos::AtLeastOnce)));
        scene.receive(b"\x50\x02\0\x01");
        // 64 bytes of it still count.
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        full(&scene.publish_refused(message(b"c", Qos::AtLeastOnce)));
        scene.receive(b"\x70\x02\0\x01");
        assert!(scene.protocol.has_room());
        scene.receive(b"\x40\x02\0\x02");
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn close_ends_those_in_line() {
    play_unstored(&two(), |scene| {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let tokens: Vec<_> = (0..4)
                .map(|_| scene.publish(qos, b"a", Wait::Ack))
                .collect();
            scene.goes_on(tokens[3]);
        }
        scene.protocol.close();
        scene.collect();
        for token in scene.waits.keys() {
            let error = scene.fails(*token);
            assert!(matches!(error.kind(), ErrorKind::Closed));
            assert_eq!(error.sent(), Sent::No);
        }
        assert_eq!(scene.waits.len(), 8);
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn those_in_line_move_up_when_messages_end_instead_of_being_sent() {
    // Nothing is written then, so nothing else would wake the driver.
    let config = Config {
        queue_bytes: 200,
        ..v5()
    };
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        play_unstored(&config, |scene| {
            for _ in 0..4 {
                let message = Message::new("t", "old")
                    .qos(qos)
                    .expiry(Duration::from_secs(1));
                scene.publish_message(message, Wait::Sent);
            }
            let last = scene.publish(qos, b"a", Wait::Sent);
            scene.wait(10);
            scene.connect();
            scene.wire.clear();
            scene.protocol.handle_received(scene.now);
            scene
                .protocol
                .handle_input(scene.now, CONNACK_5, None)
                .expect("CONNACK");
            scene.protocol.pump(scene.now);
            // One call was enough.
            let chunk = scene.protocol.poll_chunk().expect("there are bytes");
            assert!(chunk.as_bytes().ends_with(b"a"));
            let length = chunk.as_bytes().len();
            scene.protocol.handle_written(scene.now, chunk, length);
            scene.turn();
            assert!(scene.outcome(last).is_ok());
        });
    }
}

#[test]
fn a_qos_0_message_without_a_link_that_is_not_kept_is_not_parked_either() {
    let config = Config {
        keep_qos0_offline: false,
        ..two()
    };
    play_online(&config, |scene| {
        scene.takes = 0;
        scene.publish_0(&[b'x'; 65_536], Wait::None);
        scene.publish_0(b"a", Wait::None);
        scene.publish_0(b"b", Wait::None);
        let (parked, _) = park(scene, b"c", Qos::AtMostOnce, Wait::Sent);
        scene.cut();
        scene.fails_with(parked, Sent::No, "publish: the link was lost (not sent)");
    });
}

#[test]
fn a_packet_that_mqtt_cannot_express_is_an_error_of_the_call() {
    // Only its length is looked at; 256 MiB of zeros take no memory until they are touched.
    let huge = Rc::new(vec![0; 268_435_456]);
    play(&v5(), |scene| {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let message = Message::new("t", Rc::clone(&huge)).qos(qos);
            let error = scene.publish_refused(message);
            assert!(
                matches!(error.kind(), ErrorKind::TooLarge { .. }),
                "{error}"
            );
        }
        assert!(scene.protocol.publish_qos0(outgoing(&huge), None).is_err());
        scene.open();
        let message = Message::new("t", Rc::clone(&huge)).qos(Qos::AtLeastOnce);
        scene.publish_refused(message);
        assert!(scene.protocol.publish_qos0(outgoing(&huge), None).is_err());
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn a_queue_counts_each_message_to_the_byte() {
    // Topic, payload and 64 bytes make 66, so there is room as long as nothing else counts.
    for (bound, room) in [(66, false), (67, true)] {
        let config = Config {
            queue_bytes: bound,
            ..v5()
        };
        play_online(&config, |scene| {
            scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
            let two = scene.publish(Qos::AtLeastOnce, b"b", Wait::Ack);
            scene.receive(b"\x40\x02\0\x01");
            assert_eq!(scene.protocol.has_room(), room);
            scene.receive(b"\x40\x02\0\x02");
            scene.is_acknowledged(two, Reason::SUCCESS);
            assert!(scene.protocol.has_room());
        });
    }
}

#[test]
fn a_queue_of_qos_0_counts_what_is_left_of_it() {
    let config = Config {
        queue_bytes: 100_000,
        ..v5()
    };
    play(&config, |scene| {
        for _ in 0..3 {
            scene.publish_0(&[b'x'; 40_000], Wait::None);
        }
        assert!(!scene.protocol.has_room());
        scene.connect();
        scene.takes = 0;
        scene.receive(CONNACK_5);
        // Two fill the out buffer, and one waits.
        assert_eq!(scene.protocol.pending_qos0(), 1);
        scene.publish_0(&[b'x'; 60_000], Wait::None);
        assert!(!scene.protocol.has_room());
        scene.takes = usize::MAX;
        scene.turn();
        assert!(scene.protocol.has_room());
    });
}

#[test]
fn the_expiry_of_a_message_in_line_counts_from_its_call() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        play(&two(), |scene| {
            scene.publish(qos, b"a", Wait::None);
            scene.publish(qos, b"b", Wait::None);
            let expiring = |seconds| {
                Message::new("t", "c")
                    .qos(qos)
                    .expiry(Duration::from_secs(seconds))
            };
            let short = scene.publish_message(expiring(10), Wait::Ack);
            let long = scene.publish_message(expiring(100), Wait::Sent);
            scene.wait(30);
            scene.open_with(CONNACK_5);
            scene.receive(b"\x40\x02\0\x01\x40\x02\0\x02");
            let error = scene.fails(short);
            assert!(matches!(error.kind(), ErrorKind::Expired), "{error}");
            scene.is_sent(long);
            // 70 seconds are left.
            assert!(scene.wire.ends_with(b"\x05\x02\0\0\0\x46c"));
        });
    }
}
