//! The bounds of the queues, and the line of callers who wait for room.

use coracle::protocol::Losses;
use coracle::{ErrorKind, Message, Qos, Reason, Sent, Wait, WhenFull};
use proptest::prelude::*;

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
        Ok(Accepted::Yes | Accepted::Dropped) => panic!("there was room"),
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
fn many_who_come_and_go_behind_one_who_stays_delay_nobody() {
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

// What a full queue means.

/// Room for two messages, and these policies for both classes.
fn two_with(policy: WhenFull) -> Config {
    Config {
        when_full: policy,
        when_full_qos0: policy,
        ..two()
    }
}

#[track_caller]
fn losses(scene: &Scene, failed: u64, oldest: u64, newest: u64) {
    let expected = Losses {
        failed,
        oldest,
        newest,
    };
    assert_eq!(scene.protocol.losses(), expected);
}

/// The payloads, of one letter each, of the PUBLISHes of topic `t` in what was written.
fn letters(wire: &[u8]) -> String {
    let mut letters = String::new();
    let mut rest = wire;
    while let [first, length, body @ ..] = rest {
        let (body, behind) = body.split_at(usize::from(*length));
        if first >> 4 == 3 {
            letters.push(char::from(*body.last().expect("a payload")));
        }
        rest = behind;
    }
    letters
}

#[test]
fn drop_oldest_keeps_the_newest_and_tells_those_who_wait() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        play(&two_with(WhenFull::DropOldest), |scene| {
            let first = scene.publish(qos, b"a", Wait::Ack);
            scene.publish(qos, b"b", Wait::None);
            scene.publish(qos, b"c", Wait::None);
            scene.fails_with(
                first,
                Sent::No,
                "publish: the queue was full and newer messages go first (not sent)",
            );
            let fourth = scene.publish(qos, b"d", Wait::Sent);
            losses(scene, 0, 2, 0);
            // Nobody is told of what nobody waits for.
            scene.no_effect();
            scene.open_with(CONNACK_5);
            assert_eq!(letters(&scene.wire), "cd");
            scene.is_sent(fourth);
        });
    }
}

#[test]
fn drop_newest_keeps_the_oldest_and_fails_only_who_waits() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        play(&two_with(WhenFull::DropNewest), |scene| {
            scene.publish(qos, b"a", Wait::None);
            scene.publish(qos, b"b", Wait::None);
            let dropped = scene.protocol.publish(message(b"c", qos), None);
            assert!(matches!(dropped, Ok(Accepted::Dropped)), "{dropped:?}");
            let (wait, token) = scene.begin_for(Wait::Ack);
            let (back, error) = scene
                .protocol
                .publish(message(b"d", qos), wait)
                .expect_err("no room");
            scene.waits.remove(&token);
            assert_eq!(back.payload(), b"d");
            assert_eq!(
                error.to_string(),
                "publish: the queue was full and older messages go first (not sent)"
            );
            assert!(matches!(
                error.kind(),
                ErrorKind::Dropped(WhenFull::DropNewest)
            ));
            losses(scene, 0, 0, 2);
            scene.no_effect();
            scene.open_with(CONNACK_5);
            assert_eq!(letters(&scene.wire), "ab");
        });
    }
}

#[test]
fn the_short_path_of_qos_0_drops_too() {
    play(&two_with(WhenFull::DropOldest), |scene| {
        for letter in [b"a", b"b", b"c", b"d"] {
            scene.publish_0(letter, Wait::None);
        }
        losses(scene, 0, 2, 0);
        scene.open_with(CONNACK_5);
        assert_eq!(letters(&scene.wire), "cd");
    });
    play(&two_with(WhenFull::DropNewest), |scene| {
        for letter in [b"a", b"b", b"c", b"d"] {
            scene.publish_0(letter, Wait::None);
        }
        let (_, token) = scene.begin_for(Wait::Sent);
        let error = scene
            .protocol
            .publish_qos0(outgoing(b"e"), Some(token))
            .expect_err("no room");
        scene.waits.remove(&token);
        assert!(matches!(error.kind(), ErrorKind::Dropped(_)), "{error}");
        losses(scene, 0, 0, 3);
        scene.open_with(CONNACK_5);
        assert_eq!(letters(&scene.wire), "ab");
    });
}

#[test]
fn a_policy_is_that_of_its_class() {
    let config = Config {
        when_full_qos0: WhenFull::DropOldest,
        ..two()
    };
    play(&config, |scene| {
        for letter in [b"a", b"b", b"c"] {
            scene.publish(Qos::AtMostOnce, letter, Wait::None);
        }
        scene.publish(Qos::AtLeastOnce, b"d", Wait::None);
        scene.publish(Qos::AtLeastOnce, b"e", Wait::None);
        full(&scene.publish_refused(message(b"f", Qos::AtLeastOnce)));
        let parked = park(scene, b"g", Qos::AtLeastOnce, Wait::Ack);
        scene.goes_on(parked.0);
        losses(scene, 1, 1, 0);
    });
}

#[test]
fn what_was_sent_is_never_dropped() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        play_online(&two_with(WhenFull::DropOldest), |scene| {
            let a = scene.publish(qos, b"a", Wait::Ack);
            let b = scene.publish(qos, b"b", Wait::Ack);
            // Both have an identifier: the new one has to go.
            let dropped = scene.protocol.publish(message(b"c", qos), None);
            assert!(matches!(dropped, Ok(Accepted::Dropped)), "{dropped:?}");
            losses(scene, 0, 0, 1);
            // So it stays when the link is lost, and when the session is, though they have none then.
            scene.cut();
            let dropped = scene.protocol.publish(message(b"d", qos), None);
            assert!(matches!(dropped, Ok(Accepted::Dropped)), "{dropped:?}");
            losses(scene, 0, 0, 2);
            scene.goes_on(a);
            scene.goes_on(b);
        });
    }
}

#[test]
fn what_was_sent_before_the_session_was_lost_is_not_dropped_but_what_follows_it_is() {
    let config = Config {
        window: 1,
        ..two_with(WhenFull::DropOldest)
    };
    play(&config, |scene| {
        let qos = Qos::AtLeastOnce;
        let a = scene.publish(qos, b"a", Wait::Ack);
        scene.open_with(CONNACK_5);
        assert_eq!(letters(&std::mem::take(&mut scene.wire)), "a");
        let b = scene.publish(qos, b"b", Wait::Ack);
        scene.cut();
        // On the next connection nothing is taken by the transport, so `a` is pending once more.
        scene.connect();
        scene.takes = 0;
        scene.receive(CONNACK_5);
        scene.cut();
        let c = scene.publish(qos, b"c", Wait::Ack);
        scene.goes_on(a);
        assert!(matches!(
            scene.fails(b).kind(),
            ErrorKind::Dropped(WhenFull::DropOldest)
        ));
        scene.goes_on(c);
        losses(scene, 0, 1, 0);
    });
}

#[test]
fn a_large_message_drops_as_many_as_it_takes() {
    let config = Config {
        queue_bytes: 1000,
        ..two_with(WhenFull::DropOldest)
    };
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        play(&config, |scene| {
            // 66 bytes each: 16 of them are above the bound.
            for _ in 0..15 {
                scene.publish(qos, b"a", Wait::None);
            }
            losses(scene, 0, 0, 0);
            // The bound is looked at before, so the large one is accepted as the 16th.
            scene.publish(qos, &[b'x'; 5000], Wait::None);
            losses(scene, 0, 0, 0);
            // It goes last of all, and all before it goes first.
            scene.publish(qos, b"b", Wait::None);
            losses(scene, 0, 16, 0);
            assert!(scene.protocol.has_room());
        });
    }
}

// What expires.

fn expiring(payload: &[u8], qos: Qos, seconds: u64) -> Message {
    message(payload, qos).expiry(Duration::from_secs(seconds))
}

#[test]
fn what_expires_ends_without_a_link_and_makes_room() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        play(&two(), |scene| {
            let a = scene.publish_message(expiring(b"a", qos, 10), Wait::Ack);
            let b = scene.publish_message(expiring(b"b", qos, 20), Wait::Ack);
            let parked = scene.publish_message(expiring(b"c", qos, 15), Wait::Ack);
            let last = scene.publish_message(expiring(b"d", qos, 60), Wait::Sent);
            scene.wait(9);
            scene.goes_on(a);
            scene.wait(2);
            scene.fails_with(
                a,
                Sent::No,
                "publish: the message expired before it could be sent (not sent)",
            );
            scene.goes_on(b);
            // `c` has moved up, `d` has not.
            assert!(!scene.protocol.has_room());
            scene.wait(5);
            assert!(matches!(scene.fails(parked).kind(), ErrorKind::Expired));
            scene.wait(5);
            assert!(matches!(scene.fails(b).kind(), ErrorKind::Expired));
            assert!(scene.protocol.has_room());
            scene.open_with(CONNACK_5);
            // 21 s of the 60 have passed.
            assert!(scene.wire.ends_with(b"\x05\x02\0\0\0\x27d"));
            scene.is_sent(last);
        });
    }
}

#[test]
fn one_in_line_that_expires_leaves_it() {
    play_online(&two(), |scene| {
        let qos = Qos::AtLeastOnce;
        scene.publish(qos, b"a", Wait::None);
        scene.publish(qos, b"b", Wait::None);
        let (short, long) = (expiring(b"c", qos, 5), expiring(b"d", qos, 50));
        let short = scene.publish_message(short, Wait::Ack);
        let long = scene.publish_message(long, Wait::Sent);
        scene.wait(6);
        assert!(matches!(scene.fails(short).kind(), ErrorKind::Expired));
        scene.goes_on(long);
        scene.receive(b"\x40\x02\0\x01");
        scene.is_sent(long);
        assert_eq!(letters(&scene.wire), "abd");
    });
}

#[test]
fn what_expires_between_others_leaves_them_whole() {
    // Topics, properties and payloads of QoS 0 lie one behind the other.
    play(&v5(), |scene| {
        let large = vec![b'l'; 65_537];
        for (topic, payload, seconds) in [
            ("one", b"1".as_slice(), 100),
            ("gone", b"22", 5),
            ("large", &large, 100),
            ("gone/too", &large, 5),
            ("three", b"333", 100),
        ] {
            let message = Message::new(topic, payload)
                .qos(Qos::AtMostOnce)
                .expiry(Duration::from_secs(seconds));
            scene.publish_message(message, Wait::None);
        }
        scene.wait(10);
        for _ in 0..2 {
            let effect = scene.effect();
            assert!(effect.contains("the message expired"), "{effect}");
        }
        scene.no_effect();
        scene.open_with(CONNACK_5);
        let mut expected = b"\x30\x0C\0\x03one\x05\x02\0\0\0\x5A1".to_vec();
        // 65,537 of payload, 5 and 2 of topic, 6 of properties.
        expected.extend_from_slice(b"\x30\x8E\x80\x04\0\x05large\x05\x02\0\0\0\x5A");
        expected.extend_from_slice(&large);
        expected.extend_from_slice(b"\x30\x10\0\x05three\x05\x02\0\0\0\x5A333");
        scene.sends(&[&expected]);
    });
}

#[test]
fn a_lifetime_of_0_s_is_now_or_never() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        play_online(&v5(), |scene| {
            scene.publish_message(expiring(b"a", qos, 0), Wait::None);
            assert!(scene.wire.ends_with(b"\x05\x02\0\0\0\0a"));
            scene.cut();
            scene.wire.clear();
            let late = scene.publish_message(expiring(b"b", qos, 0), Wait::Sent);
            scene.goes_on(late);
            scene.wait(1);
            assert!(matches!(scene.fails(late).kind(), ErrorKind::Expired));
        });
    }
}

#[test]
fn the_lifetime_is_lowered_by_whole_seconds_across_all_reconnects() {
    play(&v5(), |scene| {
        let message = expiring(b"a", Qos::AtLeastOnce, 100);
        scene.publish_message(message, Wait::Ack);
        let half = Duration::from_millis(500);
        scene.pass(20 * half + half).expect("there is no link");
        scene.open_with(CONNACK_5);
        // 10.5 s have passed, so 10 are taken off.
        scene.sends(&[b"\x32\x0C\0\x01t\0\x01\x05\x02\0\0\0\x5Aa"]);
        // What is sent again says what is left then, and DUP [MQTT-4.4.0-1]: a broker that has not got it
        // would keep it for too long otherwise.
        for left in [b"\x50", b"\x46"] {
            scene.cut();
            scene.wait(10);
            scene.wire.clear();
            scene.open_with(PRESENT_5);
            scene.sends(&[b"\x3A\x0C\0\x01t\0\x01\x05\x02\0\0\0", left, b"a"]);
        }
        // Anew, after the session was lost.
        scene.cut();
        scene.wait(10);
        scene.wire.clear();
        scene.open_with(CONNACK_5);
        scene.sends(&[b"\x32\x0C\0\x01t\0\x02\x05\x02\0\0\0\x3Ca"]);
    });
}

#[test]
fn nothing_wakes_the_driver_for_a_message_that_has_left() {
    let config = Config {
        keep_alive: 0,
        ..v5()
    };
    play_online(&config, |scene| {
        scene.publish_message(expiring(b"a", Qos::AtLeastOnce, 10), Wait::None);
        scene.publish_message(expiring(b"b", Qos::AtMostOnce, 10), Wait::None);
        assert!(scene.protocol.poll_timeout().is_none());
    });
}

#[test]
fn many_that_expire_one_after_the_other_are_looked_for_now_and_then() {
    play(&v5(), |scene| {
        for at in 0..1000 {
            let message = expiring(b"a", Qos::AtLeastOnce, 10);
            scene.publish_message(message, Wait::None);
            scene
                .pass(Duration::from_millis(1))
                .expect("there is no link");
            assert_eq!(scene.protocol.unfinished(), at + 1);
        }
        let mut wakes = 0;
        while let Some(due) = scene.protocol.poll_timeout() {
            scene.now = scene.now.max(due);
            scene.turn();
            wakes += 1;
        }
        assert_eq!(scene.protocol.unfinished(), 0);
        assert!(wakes <= 11, "{wakes} times");
        scene.effects.clear();
    });
}

// Any order of calls, against a queue that anyone can see through.

#[derive(Debug, Clone, Copy)]
enum Act {
    Publish {
        qos: Qos,
        size: usize,
        /// 0 for never.
        seconds: u64,
        waits: bool,
    },
    Pass(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let qos = prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce)];
    let size = prop_oneof![1..100_usize, Just(70_000)];
    let publish = (qos, size, 0..20_u64, any::<bool>());
    let act = prop_oneof![
        4 => publish.prop_map(|(qos, size, seconds, waits)| Act::Publish { qos, size, seconds, waits }),
        1 => (0..8_u64).prop_map(Act::Pass),
    ];
    proptest::collection::vec(act, 1..60)
}

/// A message as the model knows it.
#[derive(Debug)]
struct Mine {
    number: u32,
    cost: usize,
    /// In milliseconds of the script.
    expires: Option<u128>,
    token: Option<Token>,
}

/// One class: messages in the order in which they came, and nothing clever.
#[derive(Debug, Default)]
struct Naive {
    queue: Vec<Mine>,
    line: Vec<Mine>,
    dropped: Vec<Mine>,
    expired: Vec<Mine>,
    losses: [u64; 3],
}

impl Naive {
    fn bytes(&self) -> usize {
        self.queue.iter().map(|mine| mine.cost).sum()
    }

    /// Whether the call is expected to succeed.
    fn publish(&mut self, mine: Mine, policy: WhenFull, bound: usize) -> bool {
        let is_full = |it: &Self| it.bytes() >= bound || !it.line.is_empty();
        match policy {
            WhenFull::DropOldest => {
                while is_full(self) {
                    self.dropped.push(self.queue.remove(0));
                    self.losses[1] += 1;
                }
            }
            WhenFull::DropNewest if is_full(self) => {
                self.losses[2] += 1;
                return mine.token.is_none();
            }
            _ if is_full(self) => {
                let waits = mine.token.is_some();
                if waits {
                    self.line.push(mine);
                } else {
                    self.losses[0] += 1;
                }
                return waits;
            }
            _ => {}
        }
        self.queue.push(mine);
        true
    }

    /// Whether something has expired so shortly before that it may be there or not.
    fn is_expiring(&self, now: u128) -> bool {
        let mut all = self.queue.iter().chain(&self.line);
        all.any(|mine| {
            mine.expires
                .is_some_and(|end| (now.saturating_sub(110)..=now).contains(&end))
        })
    }

    fn pass(&mut self, now: u128, bound: usize) {
        for list in [&mut self.queue, &mut self.line] {
            let late = |mine: &mut Mine| mine.expires.is_some_and(|end| end < now);
            self.expired.extend(list.extract_if(.., late));
        }
        while self.bytes() < bound && !self.line.is_empty() {
            self.queue.push(self.line.remove(0));
        }
    }
}

proptest! {
    #[test]
    fn a_queue_does_what_a_naive_one_does(
        acts in acts(),
        bound in prop_oneof![Just(1_usize), 100..1000_usize, Just(100_000)],
        policy in prop_oneof![
            Just(WhenFull::Fail),
            Just(WhenFull::DropOldest),
            Just(WhenFull::DropNewest),
        ],
    ) {
        let config = Config { queue_bytes: bound, when_full: policy, when_full_qos0: policy, ..v5() };
        let mut scene = Scene::new(config, Feed::Whole);
        let mut models = [Naive::default(), Naive::default()];
        for (number, act) in (0..).zip(acts) {
            match act {
                Act::Publish { qos, size, seconds, waits } => {
                    let mut payload = vec![b'.'; size.max(4)];
                    payload[..4].copy_from_slice(&u32::to_be_bytes(number));
                    let cost = 1 + payload.len() + 64;
                    let mut message = message(&payload, qos);
                    if seconds > 0 {
                        message = message.expiry(Duration::from_secs(seconds));
                    }
                    let (wait, token) = scene.begin_for(if waits { Wait::Ack } else { Wait::None });
                    let outcome = scene.protocol.publish(message, wait);
                    let mine = Mine {
                        number,
                        cost,
                        expires: (seconds > 0).then(|| milliseconds(&scene) + 1000 * u128::from(seconds)),
                        token: waits.then_some(token),
                    };
                    let fine = models[usize::from(qos.bits())].publish(mine, policy, bound);
                    prop_assert_eq!(outcome.is_ok(), fine, "{:?}", outcome);
                    if waits && !fine {
                        scene.waits.remove(&token);
                    }
                    scene.turn();
                }
                Act::Pass(seconds) => {
                    scene.pass(Duration::from_secs(seconds)).expect("there is no link");
                    // What expires may stay unnoticed for 100 ms.
                    while models.iter().any(|it| it.is_expiring(milliseconds(&scene))) {
                        scene.pass(Duration::from_millis(50)).expect("there is no link");
                    }
                    let now = milliseconds(&scene);
                    models.iter_mut().for_each(|it| it.pass(now, bound));
                }
            }
            let [zero, one] = &models;
            prop_assert_eq!(scene.protocol.pending_qos0(), zero.queue.len());
            prop_assert_eq!(scene.protocol.unfinished(), one.queue.len());
            let losses = scene.protocol.losses();
            let all = [losses.failed, losses.oldest, losses.newest];
            let expected: Vec<u64> = (0..3).map(|at| zero.losses[at] + one.losses[at]).collect();
            prop_assert_eq!(&all[..], &expected[..]);
            for model in &models {
                for mine in model.queue.iter().chain(&model.line) {
                    if let Some(token) = mine.token {
                        prop_assert!(scene.waits[&token].is_none(), "{:?}", mine);
                    }
                }
                for (gone, kind) in [(&model.dropped, "dropped"), (&model.expired, "expired")] {
                    for token in gone.iter().filter_map(|mine| mine.token) {
                        let error = scene.fails(token);
                        let fits = match error.kind() {
                            ErrorKind::Dropped(WhenFull::DropOldest) => kind == "dropped",
                            ErrorKind::Expired => kind == "expired",
                            _ => false,
                        };
                        prop_assert!(fits && error.sent() == Sent::No, "{}", error);
                    }
                }
            }
        }
        // What is left leaves, whole and in order.
        let [zero, one] = &models;
        let expected = [zero, one].map(|model| {
            model.queue.iter().chain(&model.line).map(|mine| mine.number).collect::<Vec<_>>()
        });
        scene.open_with(CONNACK_5);
        let mut sent = [Vec::new(), Vec::new()];
        loop {
            let wire = std::mem::take(&mut scene.wire);
            let (numbers, ids) = numbers(&wire);
            if ids.is_empty() && numbers.is_empty() {
                break;
            }
            for (qos, number) in numbers {
                sent[usize::from(qos)].push(number);
            }
            for id in ids {
                scene.receive(&[0x40, 2, (id >> 8) as u8, id as u8]);
            }
        }
        prop_assert_eq!(sent, expected);
        scene.effects.clear();
        scene.rest();
    }
}

fn milliseconds(scene: &Scene) -> u128 {
    (scene.now - scene.start).as_millis()
}

/// QoS and number of each PUBLISH, and the identifiers of those of QoS 1.
fn numbers(wire: &[u8]) -> (Vec<(u8, u32)>, Vec<u16>) {
    let (mut numbers, mut ids) = (Vec::new(), Vec::new());
    let mut rest = wire;
    while let [first, behind @ ..] = rest {
        let (mut length, mut shift, mut head) = (0, 0, 0);
        for byte in behind {
            length |= usize::from(byte & 0x7F) << shift;
            (shift, head) = (shift + 7, head + 1);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (body, next) = behind[head..].split_at(length);
        let qos = first >> 1 & 3;
        // Topic or, aliased, none.
        let mut at = 2 + usize::from(body[1]);
        if qos > 0 {
            ids.push(u16::from_be_bytes([body[at], body[at + 1]]));
            at += 2;
        }
        at += 1 + usize::from(body[at]);
        let number = body[at..at + 4].try_into().expect("4 bytes");
        numbers.push((qos, u32::from_be_bytes(number)));
        rest = next;
    }
    (numbers, ids)
}
