//! Sessions: Fresh, Resume and None on each version, and what CONNACK says about them.

use std::time::Duration;

use coracle::protocol::SessionMode;
use coracle::{ErrorKind, Qos, Sent, Wait};

use crate::*;

fn with(version: Version, session: SessionMode) -> Config {
    Config {
        session,
        ..config(version)
    }
}

/// Where the connect flags stand in CONNECT.
fn flags(scene: &Scene) -> u8 {
    let version = scene.protocol.config().version;
    scene.wire[if version == Version::V3_1 { 11 } else { 9 }] & 0x02
}

const KEEP: u8 = 0;
const CLEAN: u8 = 2;

#[test]
fn resume_goes_on_with_the_session_of_an_earlier_process() {
    play(&with(Version::V5_0, SessionMode::Resume), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.connect();
        assert_eq!(flags(scene), KEEP);
        scene.wire.clear();
        scene.receive(PRESENT_5);
        assert_eq!(scene.effect(), "Connected(Present)");
        // Nothing is known of what that process had sent; the new message is new.
        scene.sends(&[b"\x32\x07\0\x01t\0\x01\0a"]);
        // Its queued messages arrive, and its PUBRELs are answered.
        scene.receive(b"\x3A\x07\0\x01t\0\x05\0x\x62\x02\0\x09");
        scene.gets("t", b"x");
        scene.sends(&[b"\x40\x02\0\x05", b"\x70\x03\0\x09\x92"]);
    });
    play(&with(Version::V3_1_1, SessionMode::Resume), |scene| {
        scene.connect();
        assert_eq!(flags(scene), KEEP);
        scene.receive(PRESENT);
        assert_eq!(scene.effect(), "Connected(Present)");
    });
    play(&with(Version::V3_1, SessionMode::Resume), |scene| {
        scene.connect();
        assert_eq!(flags(scene), KEEP);
        scene.receive(CONNACK);
        assert_eq!(scene.effect(), "Connected(Untold)");
    });
}

#[test]
fn resume_without_a_session_at_the_broker_starts_one() {
    for version in [Version::V5_0, Version::V3_1_1] {
        play(&with(version, SessionMode::Resume), |scene| {
            scene.connect();
            scene.receive(if version == Version::V5_0 {
                CONNACK_5
            } else {
                CONNACK
            });
            assert_eq!(scene.effect(), "Connected(Lost)");
            scene.cut();
            scene.wire.clear();
            scene.connect();
            assert_eq!(flags(scene), KEEP);
        });
    }
}

#[test]
fn none_starts_every_connection_clean() {
    for version in [Version::V5_0, Version::V3_1_1, Version::V3_1] {
        play(&with(version, SessionMode::None), |scene| {
            for _ in 0..3 {
                scene.wire.clear();
                scene.connect();
                assert_eq!(flags(scene), CLEAN);
                scene.receive(if version == Version::V5_0 {
                    CONNACK_5
                } else {
                    CONNACK
                });
                assert_eq!(scene.effect(), "Connected(Lost)");
                scene.cut();
            }
        });
    }
}

#[test]
fn none_sends_queued_qos_1_anew_on_the_next_connection() {
    // With a store the message gets its identifier before SUBSCRIBE does.
    play_online_unstored(&with(Version::V3_1_1, SessionMode::None), |scene| {
        let one = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        let two = scene.publish(Qos::ExactlyOnce, b"b", Wait::Ack);
        scene.subscribe(&["f"], Qos::AtMostOnce, Wait::None);
        scene.receive(b"\x90\x03\0\x03\0");
        scene.cut();
        scene.wire.clear();
        scene.open_with(CONNACK);
        scene.sends(&[b"\x82\x06\0\x04\0\x01f\0", b"\x32\x06\0\x01t\0\x05a"]);
        scene.goes_on(one);
        assert!(matches!(
            scene.fails(two).kind(),
            ErrorKind::SessionLost { received: false }
        ));
    });
}

#[test]
fn none_and_a_session_that_is_present_is_a_violation() {
    // [MQTT-3.2.2-4]
    for (version, connack) in [(Version::V5_0, PRESENT_5), (Version::V3_1_1, PRESENT)] {
        play(&with(version, SessionMode::None), |scene| {
            scene.connect();
            let error = scene.refuses(connack);
            assert_eq!(violation(&error).0, "MQTT-3.2.2-4");
        });
    }
}

#[test]
fn a_session_that_was_lost_once_is_ours_again() {
    play_online(&v5(), |scene| {
        scene.reconnect_lost();
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.reconnect_present();
        scene.sends(&[b"\x3A\x07\0\x01t\0\x01\0a"]);
    });
}

#[test]
fn v3_1_does_not_say_so_exchanges_go_on_and_subscriptions_are_made_again() {
    play_online(&config(Version::V3_1), |scene| {
        scene.subscribe(&["f"], Qos::AtLeastOnce, Wait::None);
        scene.receive(b"\x90\x03\0\x01\x01");
        let one = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        let two = scene.publish(Qos::ExactlyOnce, b"b", Wait::Ack);
        scene.receive(b"\x50\x02\0\x03");
        scene.cut();
        scene.wire.clear();
        scene.connect();
        scene.wire.clear();
        scene.receive(CONNACK);
        assert_eq!(
            scene.effect(),
            "Subscribed(7, [Grant { filter: \"f\", answer: Answered(granted QoS 1 (0x01), []) }])"
        );
        assert_eq!(scene.effect(), "Connected(Untold)");
        scene.sends(&[
            b"\x62\x02\0\x03",
            b"\x82\x06\0\x04\0\x01f\x01",
            b"\x3A\x06\0\x01t\0\x02a",
        ]);
        scene.receive(b"\x40\x02\0\x02\x70\x02\0\x03");
        assert!(scene.outcome(one).is_ok());
        assert!(scene.outcome(two).is_ok());
    });
}

#[test]
fn after_a_connack_that_never_came_a_present_session_is_in_doubt() {
    // The broker may have lost the session and begun another one at the CONNECT that was not answered.
    for (version, connack) in [(Version::V5_0, PRESENT_5), (Version::V3_1_1, PRESENT)] {
        play_online(&config(version), |scene| {
            scene.subscribe(&["f"], Qos::AtLeastOnce, Wait::None);
            scene.receive(if version == Version::V5_0 {
                b"\x90\x04\0\x01\0\x01"
            } else {
                b"\x90\x03\0\x01\x01"
            });
            scene.effects.clear();
            scene.cut();
            scene.connect();
            scene.cut();
            scene.connect();
            scene.wire.clear();
            scene.receive(connack);
            assert_eq!(scene.effect(), "Connected(Untold)");
            scene.sends(&[if version == Version::V5_0 {
                // Retained messages come again only if the subscription was lost.
                b"\x82\x07\0\x02\0\0\x01f\x11"
            } else {
                b"\x82\x06\0\x02\0\x01f\x01"
            }]);
            scene.receive(if version == Version::V5_0 {
                b"\x90\x04\0\x02\0\x01"
            } else {
                b"\x90\x03\0\x02\x01"
            });
            assert_eq!(scene.effect(), "Restored");
            // An answered CONNECT leaves no doubt.
            scene.cut();
            scene.connect();
            scene.receive(connack);
            assert_eq!(scene.effect(), "Connected(Present)");
        });
    }
}

#[test]
fn a_refusal_leaves_no_doubt() {
    play_online(&v5(), |scene| {
        scene.cut();
        scene.connect();
        scene.refuses(b"\x20\x03\0\x89\0");
        scene.cut();
        scene.connect();
        scene.receive(PRESENT_5);
        assert_eq!(scene.effect(), "Connected(Present)");
    });
}

#[test]
fn in_a_session_in_doubt_an_id_without_dup_names_another_message() {
    // [MQTT-3.3.1-1]
    play_online(&v5(), |scene| {
        scene.receive(b"\x34\x07\0\x01t\0\x05\0a\x34\x07\0\x01t\0\x06\0b");
        scene.gets("t", b"a");
        scene.gets("t", b"b");
        scene.cut();
        scene.connect();
        scene.cut();
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.receive(b"\x34\x07\0\x01t\0\x05\0c\x3C\x07\0\x01t\0\x06\0b");
        scene.gets("t", b"c");
        scene.gets_nothing();
        scene.sends(&[b"\x50\x02\0\x05", b"\x50\x02\0\x06"]);
    });
}

#[test]
fn in_a_session_in_doubt_a_qos_1_message_is_handed_on_again_rather_than_lost() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x32\x07\0\x01t\0\x05\0a");
        let a = scene.gets("t", b"a");
        scene.cut();
        scene.connect();
        scene.cut();
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.receive(b"\x3A\x07\0\x01t\0\x05\0b");
        let b = scene.gets("t", b"b");
        scene.take(&a);
        scene.sends_nothing();
        scene.take(&b);
        scene.sends(&[b"\x40\x02\0\x05"]);
    });
}

#[test]
fn v3_1_1_the_session_that_an_unanswered_connect_began_is_ours_and_empty() {
    play(&v3(), |scene| {
        // A leftover is wiped.
        scene.connect();
        scene.receive(PRESENT);
        scene.cut();
        scene.connect();
        scene.receive(CONNACK);
        scene.cut();
        // The CONNACK of this one never comes.
        scene.connect();
        scene.cut();
        scene.connect();
        scene.effects.clear();
        scene.receive(PRESENT);
        assert_eq!(scene.effect(), "Connected(Lost)");
        assert!(scene.protocol.is_online());
    });
}

#[test]
fn v3_1_accepts_dup_on_pubrel() {
    // MQTT 3.1, section 3.6
    play_online(&config(Version::V3_1), |scene| {
        scene.receive(b"\x34\x06\0\x01t\0\x01a");
        scene.receive(b"\x6A\x02\0\x01");
        scene.sends(&[b"\x50\x02\0\x01", b"\x70\x02\0\x01"]);
    });
    play_online(&v3(), |scene| {
        scene.refuses(b"\x6A\x02\0\x01");
    });
}

#[test]
fn v3_1_ignores_the_flags_of_connack() {
    play_online(&config(Version::V3_1), |scene| {
        scene.cut();
        scene.connect();
        scene.receive(PRESENT);
        assert_eq!(scene.effect(), "Connected(Untold)");
    });
}

#[test]
fn two_losses_in_a_row_lose_no_qos_1_message() {
    play_online(&v5(), |scene| {
        let tokens: Vec<_> = (0..3)
            .map(|_| scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack))
            .collect();
        for _ in 0..5 {
            scene.cut();
            scene.connect();
            scene.takes = 12;
            scene.receive(CONNACK_5);
        }
        scene.cut();
        scene.wire.clear();
        scene.open();
        assert_eq!(scene.wire.len(), 27);
        for (token, packet) in tokens.iter().zip(scene.wire.clone().chunks(9)) {
            assert_eq!(packet[0], 0x32);
            scene.goes_on(*token);
            scene.receive(&[0x40, 2, packet[5], packet[6]]);
            assert!(scene.outcome(*token).is_ok());
        }
    });
}

#[test]
fn qos_2_that_left_is_not_sent_again_even_after_two_losses() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        // The replay does not leave, but the first PUBLISH had.
        scene.cut();
        scene.connect();
        scene.takes = 0;
        scene.receive(PRESENT_5);
        scene.reconnect_lost();
        scene.sends_nothing();
        assert_eq!(scene.fails(token).sent(), Sent::Maybe);
    });
}

#[test]
fn the_session_outlives_attempts_that_fail() {
    play_online(&v5(), |scene| {
        scene.receive(b"\x34\x07\0\x01t\0\x05\0a");
        scene.gets("t", b"a");
        let token = scene.publish(Qos::ExactlyOnce, b"b", Wait::Ack);
        scene.receive(b"\x50\x02\0\x01");
        for _ in 0..3 {
            scene.cut();
            scene.connect();
        }
        scene.cut();
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.sends(&[b"\x62\x02\0\x01"]);
        scene.receive(b"\x3C\x07\0\x01t\0\x05\0a");
        scene.gets_nothing();
        scene.goes_on(token);
    });
}

#[test]
fn in_a_session_in_doubt_an_unread_message_whose_id_is_used_again_is_owed_nothing() {
    play_online(&v5(), |scene| {
        scene.hold = true;
        scene.receive(b"\x34\x07\0\x01t\0\x05\0a");
        let old = scene.gets("t", b"a");
        scene.cut();
        scene.connect();
        scene.cut();
        scene.wire.clear();
        scene.open_with(PRESENT_5);
        scene.receive(b"\x34\x07\0\x01t\0\x05\0b");
        let new = scene.gets("t", b"b");
        scene.take(&old);
        scene.sends_nothing();
        scene.take(&new);
        scene.sends(&[b"\x50\x02\0\x05"]);
    });
}

#[test]
fn without_a_connection_there_are_no_limits_and_no_credit() {
    play(&v5(), |scene| {
        assert!(scene.protocol.limits().is_none());
        assert_eq!(scene.protocol.credit(), 0);
        scene.open();
        assert_eq!(scene.protocol.credit(), 1024);
        scene.disconnect();
        assert!(scene.protocol.limits().is_none());
        assert_eq!(scene.protocol.credit(), 0);
    });
}

#[test]
fn nothing_of_a_clean_session_is_used_again() {
    // [MQTT-3.1.2-4], [MQTT-3.1.2-6 of 3.1.1]
    for version in [Version::V5_0, Version::V3_1_1, Version::V3_1] {
        let (connack, publish, again): (_, &[u8], &[u8]) = if version == Version::V5_0 {
            (
                CONNACK_5,
                b"\x34\x07\0\x01t\0\x05\0m",
                b"\x32\x07\0\x01t\0\x04\0b",
            )
        } else {
            (
                CONNACK,
                b"\x34\x06\0\x01t\0\x05m",
                b"\x32\x06\0\x01t\0\x04b",
            )
        };
        play(&with(version, SessionMode::None), |scene| {
            scene.open_with(connack);
            let released = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
            scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
            let sent = scene.publish(Qos::ExactlyOnce, b"c", Wait::Ack);
            scene.receive(b"\x50\x02\0\x01");
            scene.receive(publish);
            scene.gets("t", b"m");
            scene.cut();
            scene.wire.clear();
            scene.connect();
            assert_eq!(flags(scene), CLEAN);
            scene.wire.clear();
            scene.receive(connack);
            // Neither PUBREL nor DUP, and a new identifier for what goes on as a new message.
            scene.sends(&[again]);
            for (token, received) in [(released, true), (sent, false)] {
                assert!(matches!(
                    scene.fails(token).kind(),
                    ErrorKind::SessionLost { received: is } if *is == received
                ));
            }
            // What the broker's identifier stood for is forgotten, too.
            scene.receive(publish);
            scene.gets("t", b"m");
            scene.sends(&[b"\x50\x02\0\x05"]);
        });
    }
}

#[test]
fn what_belongs_to_the_session_lasts_as_long_as_its_connection() {
    // [MQTT-4.1.0-1], [MQTT-4.1.0-2 of 3.1.1], [MQTT-3.1.2-4 of 3.1.1], [MQTT-3.1.2-23]: the Session Expiry
    // Interval counts from the end of the connection.
    for version in [Version::V5_0, Version::V3_1_1] {
        let is_5 = version == Version::V5_0;
        let config = Config {
            session_expiry: Duration::from_secs(1),
            ..config(version)
        };
        play_online(&config, |scene| {
            let one = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
            let two = scene.publish(Qos::ExactlyOnce, b"b", Wait::Ack);
            let three = scene.publish(Qos::ExactlyOnce, b"c", Wait::Ack);
            scene.receive(b"\x50\x02\0\x03");
            let (publish, repeat): (&[u8], &[u8]) = if is_5 {
                (b"\x34\x07\0\x01t\0\x05\0m", b"\x3C\x07\0\x01t\0\x05\0m")
            } else {
                (b"\x34\x06\0\x01t\0\x05m", b"\x3C\x06\0\x01t\0\x05m")
            };
            scene.receive(publish);
            scene.gets("t", b"m");
            // A day in which nothing but pings happens.
            for _ in 0..24 * 60 {
                scene.wait(60);
                scene.receive(PINGRESP);
            }
            scene.wire.clear();
            scene.receive(repeat);
            scene.gets_nothing();
            scene.sends(&[b"\x50\x02\0\x05"]);
            scene.reconnect_present();
            scene.sends(if is_5 {
                &[
                    b"\x62\x02\0\x03",
                    b"\x3A\x07\0\x01t\0\x01\0a",
                    b"\x3C\x07\0\x01t\0\x02\0b",
                ]
            } else {
                &[
                    b"\x62\x02\0\x03",
                    b"\x3A\x06\0\x01t\0\x01a",
                    b"\x3C\x06\0\x01t\0\x02b",
                ]
            });
            scene.receive(repeat);
            scene.gets_nothing();
            for token in [one, two, three] {
                scene.goes_on(token);
            }
        });
    }
}

// The eight combinations of what CONNECT asks for, what CONNACK says, and what this side holds.

/// What follows CONNACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    /// The connection is open, and nothing is to be sent.
    Nothing,
    /// QoS 1 is sent anew, QoS 2 has ended, a message that comes again is new.
    Anew,
    /// Both are sent again, a message that comes again is none.
    Again,
    /// The session of somebody else is not gone on with: it is left.
    Leaves,
    /// The broker may not say so.
    Violation,
}

#[test]
fn what_follows_connack_is_right_for_every_clean_start_session_present_and_local_state() {
    // [MQTT-3.2.2-2] to [MQTT-3.2.2-5] of 5.0, [MQTT-3.2.2-1] to [MQTT-3.2.2-3] of 3.1.1
    let table = [
        (SessionMode::None, false, false, Follows::Nothing),
        (SessionMode::None, false, true, Follows::Violation),
        (SessionMode::None, true, false, Follows::Anew),
        (SessionMode::None, true, true, Follows::Violation),
        (SessionMode::Fresh, false, false, Follows::Nothing),
        (SessionMode::Fresh, false, true, Follows::Leaves),
        (SessionMode::Fresh, true, false, Follows::Anew),
        (SessionMode::Fresh, true, true, Follows::Again),
    ];
    for version in [Version::V3_1_1, Version::V5_0] {
        for (session, holds, present, follows) in table {
            println!("{version}, {session:?}, holds {holds}, present {present}: {follows:?}");
            play(&with(version, session), |scene| {
                follow(scene, holds, present, follows);
            });
        }
    }
}

/// A packet of 5.0, or of 3.1.1: there it has no properties, whose length is 0 at this place.
fn of(version: Version, packet: &[u8], place: usize) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if version == Version::V3_1_1 {
        packet.remove(place);
        packet[1] -= 1;
    }
    packet
}

fn follow(scene: &mut Scene, holds: bool, present: bool, follows: Follows) {
    let Config {
        version, session, ..
    } = *scene.protocol.config();
    let publish = |packet: &[u8]| of(version, packet, 7);
    let mut waits = None;
    if holds {
        scene.open();
        waits = Some((
            scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack),
            scene.publish(Qos::ExactlyOnce, b"b", Wait::Ack),
        ));
        scene.receive(&publish(b"\x34\x07\0\x01t\0\x05\0c"));
        scene.gets("t", b"c");
        scene.cut();
        scene.wire.clear();
    }
    scene.connect();
    let clean = if session == SessionMode::None {
        CLEAN
    } else {
        KEEP
    };
    assert_eq!(flags(scene), clean);
    scene.wire.clear();
    let connack = of(version, &[0x20, 3, u8::from(present), 0, 0], 4);
    if follows == Follows::Violation {
        let error = scene.refuses(&connack);
        assert_eq!(violation(&error).1, Reason::PROTOCOL_ERROR);
        assert!(!scene.protocol.is_online());
        return;
    }
    scene.receive(&connack);
    assert_eq!(scene.protocol.is_online(), follows != Follows::Leaves);
    match follows {
        Follows::Nothing => scene.sends_nothing(),
        Follows::Leaves => {
            let ends_it: &[u8] = match version {
                Version::V5_0 => b"\xE0\x07\0\x05\x11\0\0\0\0",
                _ => DISCONNECT,
            };
            scene.sends(&[ends_it]);
            assert!(matches!(scene.effects.back(), Some(Effect::Again)));
        }
        Follows::Anew => {
            scene.sends(&[&publish(b"\x32\x07\0\x01t\0\x03\0a")]);
            let (_, two) = waits.expect("it holds messages");
            let error = scene.fails(two);
            assert_eq!(error.sent(), Sent::Maybe);
            scene.receive(&publish(b"\x34\x07\0\x01t\0\x05\0d"));
            scene.gets("t", b"d");
        }
        Follows::Again => {
            scene.sends(&[
                &publish(b"\x3A\x07\0\x01t\0\x01\0a"),
                &publish(b"\x3C\x07\0\x01t\0\x02\0b"),
            ]);
            let (one, two) = waits.expect("it holds messages");
            scene.goes_on(one);
            scene.goes_on(two);
            scene.receive(&publish(b"\x3C\x07\0\x01t\0\x05\0c"));
            scene.gets_nothing();
        }
        Follows::Violation => unreachable!("returned above"),
    }
}
