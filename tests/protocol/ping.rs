//! Keep-alive: what silence does (situation 13), and pings that the application asks for.

use std::time::Duration;

use coracle::{ErrorKind, Qos, Wait};

use crate::*;

/// The error says that the link was silent for this long.
#[track_caller]
fn silent(outcome: Result<(), Error>, seconds: u64) {
    match outcome {
        Ok(()) => panic!("the link is not dead"),
        Err(error) => assert!(
            matches!(error.kind(), ErrorKind::Silent(span) if *span == Duration::from_secs(seconds)),
            "{error:?}"
        ),
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn pingreq_leaves_when_nothing_was_sent_or_received_for_the_keep_alive() {
    // [MQTT-3.1.2-20]
    play_online(&v5(), |scene| {
        for _ in 0..1000 {
            scene.wait(59);
            scene.sends_nothing();
            scene.wait(1);
            scene.sends(&[PINGREQ]);
            scene.receive(PINGRESP);
        }
        assert_eq!(scene.clock(), 60_000);
    });
}

#[test]
fn pingreq_leaves_though_much_is_sent_when_nothing_is_received() {
    play_online(&v5(), |scene| {
        for second in 1..=7200 {
            scene.wait(1);
            scene.publish_0(b"x", Wait::None);
            if second % 60 == 0 {
                scene.sends(&[PINGREQ, b"\x30\x05\0\x01t\0x"]);
                scene.receive(PINGRESP);
            } else {
                scene.sends(&[b"\x30\x05\0\x01t\0x"]);
            }
        }
    });
}

#[test]
fn pingreq_leaves_though_much_is_received_when_nothing_is_sent() {
    play_online(&v5(), |scene| {
        for second in 1..=7200 {
            scene.wait(1);
            scene.receive(b"\x30\x05\0\x01t\0x");
            if second % 60 == 0 {
                scene.sends(&[PINGREQ]);
                scene.receive(PINGRESP);
            } else {
                scene.sends_nothing();
            }
        }
    });
}

#[test]
fn no_pingreq_leaves_while_both_directions_are_busy() {
    play_online(&v5(), |scene| {
        for _ in 0..500 {
            scene.wait(20);
            scene.receive(b"\x32\x07\0\x01t\0\x01\0x");
            scene.sends(&[b"\x40\x02\0\x01"]);
        }
    });
}

#[test]
fn the_link_is_dead_when_pingresp_does_not_come() {
    play_online(&v5(), |scene| {
        scene.wait(60);
        scene.sends(&[PINGREQ]);
        scene.wait(9);
        silent(scene.pass(seconds(1)), 10);
    });
}

#[test]
fn the_deadline_of_pingresp_starts_when_pingreq_is_flushed() {
    play_online(&v5(), |scene| {
        scene.flushes = false;
        scene.wait(60);
        scene.sends(&[PINGREQ]);
        scene.wait(29);
        scene.flushes = true;
        scene.turn();
        scene.wait(9);
        silent(scene.pass(seconds(1)), 10);
    });
}

#[test]
fn any_received_byte_extends_the_deadline() {
    play_online(&v5(), |scene| {
        scene.wait(60);
        scene.sends(&[PINGREQ]);
        // The bytes of one large packet, one at a time.
        scene.receive(b"\x30\x88\x27\0\x01t\0");
        // So late an answer does not end the duty to send something [MQTT-3.1.2-20].
        for second in (9..=9000).step_by(9) {
            scene.wait(9);
            let again = if second % 60 < 9 { PINGREQ } else { &[] };
            scene.sends(&[again]);
            scene.receive(b"x");
        }
        scene.receive(b"x");
        scene.wait(9);
        silent(scene.pass(seconds(1)), 10);
    });
}

#[test]
fn a_transport_that_takes_no_byte_for_the_keep_alive_is_dead() {
    play_online(&v5(), |scene| {
        scene.takes = 0;
        scene.publish_0(b"x", Wait::None);
        // What is received does not help.
        for _ in 0..59 {
            scene.wait(1);
            scene.receive(b"\x30\x05\0\x01t\0x");
        }
        silent(scene.pass(seconds(1)), 60);
    });
}

#[test]
fn a_transport_that_takes_a_byte_now_and_then_lives() {
    play_online(&v5(), |scene| {
        scene.takes = 0;
        scene.publish_0(&[b'x'; 100], Wait::None);
        for _ in 0..20 {
            scene.wait(50);
            scene.takes = 1;
            scene.receive(b"\x30\x05\0\x01t\0x");
        }
        scene.takes = 0;
        scene.wait(9);
        silent(scene.pass(seconds(51)), 60);
    });
}

#[test]
fn a_transport_that_takes_bytes_but_never_flushes_them_is_dead() {
    // A transport with TLS takes what it cannot hand to the system.
    play_online(&v5(), |scene| {
        scene.flushes = false;
        scene.publish_0(b"x", Wait::None);
        scene.wait(59);
        silent(scene.pass(seconds(1)), 60);
    });
}

#[test]
fn after_a_stall_that_ended_the_link_lives() {
    play_online(&v5(), |scene| {
        scene.takes = 0;
        scene.publish_0(b"x", Wait::None);
        scene.wait(59);
        scene.takes = usize::MAX;
        scene.turn();
        scene.sends(&[b"\x30\x05\0\x01t\0x"]);
        scene.receive(b"\x30\x05\0\x01t\0x");
        scene.wait(59);
        scene.sends_nothing();
        scene.wait(1);
        scene.sends(&[PINGREQ]);
    });
}

#[test]
fn a_pingreq_that_cannot_leave_has_half_a_keep_alive_to_do_so() {
    // One and a half from the last byte received: then the broker gives the client up as well
    // [MQTT-3.1.2-22].
    play_online(&v5(), |scene| {
        scene.takes = 0;
        scene.wait(60);
        scene.sends_nothing();
        scene.wait(29);
        silent(scene.pass(seconds(1)), 30);
    });
}

#[test]
fn a_transport_that_takes_nothing_has_the_keep_alive_again_if_something_is_received() {
    play_online(&v5(), |scene| {
        scene.takes = 0;
        scene.wait(60);
        scene.wait(20);
        scene.receive(b"\x30\x05\0\x01t\0x");
        // The PINGREQ is stuck since 60, and the silence begins at 80.
        scene.wait(39);
        silent(scene.pass(seconds(1)), 60);
    });
}

#[test]
fn keep_alive_0_sends_nothing_and_finds_no_silence() {
    let config = Config {
        keep_alive: 0,
        ..v5()
    };
    play_online(&config, |scene| {
        assert_eq!(scene.protocol.poll_timeout(), None);
        scene.takes = 0;
        scene.publish_0(b"x", Wait::None);
        scene.wait(1_000_000);
        scene.takes = usize::MAX;
        scene.turn();
        scene.sends(&[b"\x30\x05\0\x01t\0x"]);
    });
}

#[test]
fn a_ping_that_is_asked_for_ends_with_pingresp() {
    play_online(&v5(), |scene| {
        let one = scene.begin();
        scene.protocol.ping(one).expect("online");
        let two = scene.begin();
        scene.protocol.ping(two).expect("online");
        scene.turn();
        // One PINGREQ is enough for both.
        scene.sends(&[PINGREQ]);
        scene.receive(PINGRESP);
        assert!(matches!(scene.outcome(one), Ok(Done::Pong)));
        assert!(matches!(scene.outcome(two), Ok(Done::Pong)));
    });
}

#[test]
fn a_ping_with_keep_alive_0_has_a_deadline_too() {
    let config = Config {
        keep_alive: 0,
        ..v5()
    };
    play_online(&config, |scene| {
        let token = scene.begin();
        scene.protocol.ping(token).expect("online");
        scene.turn();
        silent(scene.pass(seconds(10)), 10);
        scene.cut();
        assert!(matches!(scene.fails(token).kind(), ErrorKind::LinkLost));
    });
}

#[test]
fn a_ping_without_a_connection_is_an_error() {
    play(&v5(), |scene| {
        assert!(scene.protocol.ping(1).is_err());
        scene.connect();
        assert!(scene.protocol.ping(1).is_err());
        scene.receive(CONNACK_5);
        scene.disconnect();
        assert!(scene.protocol.ping(1).is_err());
    });
}

#[test]
fn a_pingresp_that_nobody_asked_for_is_harmless() {
    play_online(&v5(), |scene| {
        scene.receive(PINGRESP);
        scene.no_effect();
        // Also while PINGREQ waits to leave: its answer has a deadline all the same.
        scene.takes = 0;
        scene.wait(60);
        scene.receive(PINGRESP);
        scene.takes = usize::MAX;
        scene.turn();
        scene.sends(&[PINGREQ]);
        scene.wait(9);
        silent(scene.pass(seconds(1)), 10);
    });
}

#[test]
fn what_is_sent_counts_when_the_transport_takes_it() {
    play_online(&v5(), |scene| {
        scene.wait(30);
        scene.takes = 0;
        scene.publish_0(b"x", Wait::None);
        scene.wait(20);
        scene.takes = usize::MAX;
        scene.turn();
        scene.sends(&[b"\x30\x05\0\x01t\0x"]);
        scene.receive(b"\x30\x05\0\x01t\0x");
        scene.wait(59);
        scene.sends_nothing();
        scene.wait(1);
        scene.sends(&[PINGREQ]);
    });
}

#[test]
fn an_endless_ping_timeout_is_possible() {
    let config = Config {
        ping_timeout: Duration::MAX,
        connack_timeout: Duration::MAX,
        take_timeout: Duration::from_secs(5),
        ..v5()
    };
    play_online(&config, |scene| {
        scene.wait(60);
        scene.sends(&[PINGREQ]);
        for _ in 0..1000 {
            scene.wait(60);
            scene.sends(&[PINGREQ]);
        }
        // However many were asked for, one answer is enough.
        scene.receive(PINGRESP);
        scene.receive(PINGRESP);
        scene.wait(59);
        scene.sends_nothing();
    });
}

#[test]
fn the_next_connection_starts_with_a_fresh_clock() {
    play_online(&v5(), |scene| {
        scene.wait(60);
        scene.wait(9);
        scene.reconnect_present();
        scene.wait(59);
        scene.sends_nothing();
        scene.wait(1);
        scene.sends(&[PINGREQ]);
    });
}

#[test]
fn qos_1_without_puback_is_no_reason_to_end_a_link_that_lives() {
    // [MQTT-4.4.0-1]: and nothing is sent again on it.
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"x", Wait::Ack);
        scene.sends(&[b"\x32\x07\0\x01t\0\x01\0x"]);
        for _ in 0..100 {
            scene.wait(60);
            scene.sends(&[PINGREQ]);
            scene.receive(PINGRESP);
        }
        scene.goes_on(token);
    });
}

#[test]
fn pingreq_leaves_again_while_its_answer_is_outstanding() {
    // [MQTT-3.1.2-23 of 3.1.1]: the broker drops a client that is silent for one and a half times the
    // keep-alive, also one that it has not answered yet.
    for version in [Version::V3_1, Version::V3_1_1] {
        let config = Config {
            keep_alive: 4,
            ..config(version)
        };
        play_online(&config, |scene| {
            scene.wait(4);
            scene.sends(&[PINGREQ]);
            scene.wait(4);
            scene.sends(&[PINGREQ]);
            scene.wait(1);
            // The patience is that of the first one.
            silent(scene.pass(seconds(5)), 10);
            scene.sends(&[PINGREQ]);
        });
    }
}

#[test]
fn a_repeated_pingreq_that_cannot_leave_is_queued_once() {
    let config = Config {
        ping_timeout: Duration::MAX,
        ..v5()
    };
    play_online(&config, |scene| {
        scene.wait(60);
        scene.sends(&[PINGREQ]);
        scene.takes = 0;
        scene.wait(89);
        silent(scene.pass(seconds(1)), 30);
        assert_eq!(scene.protocol.unsent(), PINGREQ.len());
    });
}

#[test]
fn the_keep_alive_counts_from_connect_not_from_connack() {
    // [MQTT-3.1.2-23 of 3.1.1]: from packet to packet that the client sends.
    let config = Config {
        keep_alive: 10,
        ..v3()
    };
    play(&config, |scene| {
        scene.connect();
        scene.wait(8);
        scene.wire.clear();
        scene.receive(CONNACK);
        scene.wait(1);
        scene.sends_nothing();
        scene.wait(1);
        scene.sends(&[PINGREQ]);
    });
}

#[test]
fn connack_may_not_take_longer_than_the_keep_alive() {
    // Nothing but DISCONNECT may be sent before it, and something has to be.
    let config = Config {
        keep_alive: 5,
        ..v3()
    };
    play(&config, |scene| {
        scene.connect();
        scene.wait(4);
        let error = scene.pass(seconds(1)).expect_err("CONNACK did not come");
        assert!(matches!(error.kind(), ErrorKind::TimedOut(span) if *span == seconds(5)));
    });
}

#[test]
fn a_pingresp_that_comes_before_the_flush_is_noticed_is_the_answer() {
    play_online(&v5(), |scene| {
        scene.flushes = false;
        let token = scene.begin();
        scene.protocol.ping(token).expect("online");
        scene.turn();
        scene.sends(&[PINGREQ]);
        scene.receive(PINGRESP);
        assert!(matches!(scene.outcome(token), Ok(Done::Pong)));
        // The flush that is noticed later starts no deadline.
        scene.flushes = true;
        scene.turn();
        scene.wait(59);
        scene.sends_nothing();
    });
}

#[test]
fn a_flush_of_nothing_does_not_hide_a_stall() {
    play_online(&v5(), |scene| {
        scene.takes = 0;
        scene.publish_0(b"x", Wait::None);
        for _ in 0..59 {
            scene.wait(1);
            // A transport that holds nothing is flushed at once.
            scene.protocol.handle_flushed(scene.now);
        }
        silent(scene.pass(seconds(1)), 60);
    });
}
