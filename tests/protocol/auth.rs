//! AUTH: at CONNECT, again on the live connection, and everything that a server may not do with it.

use std::time::Duration;

use coracle::protocol::{Ask, AuthStep, Login, SessionMode};
use coracle::{Properties, Property};

use crate::*;

/// AUTH 0x18, AUTH 0x19 and AUTH 0x00 of method "M", and CONNACK that repeats it, without data.
const CHALLENGE: &[u8] = b"\xF0\x06\x18\x04\x15\0\x01M";
const AGAIN: &[u8] = b"\xF0\x06\x19\x04\x15\0\x01M";
const SUCCESS: &[u8] = b"\xF0\x06\x00\x04\x15\0\x01M";
const CONNACK_M: &[u8] = b"\x20\x07\0\0\x04\x15\0\x01M";

/// The goodbye to a server that is not believed: 0x80.
const BREAK_OFF: &[u8] = b"\xE0\x01\x80";

fn login() -> Login {
    Login {
        method: "M".into(),
        step: AuthStep::new().data("1"),
        one_sided: false,
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Sends CONNECT with a method and puts it out of sight.
fn begin(scene: &mut Scene, login: &Login) {
    scene.input.clear();
    scene
        .protocol
        .connect_authenticated(scene.now, &Credentials::default(), login)
        .expect("this can be sent");
    scene.turn();
    scene.wire.clear();
}

/// The authenticator's next answer.
#[track_caller]
fn answer(scene: &mut Scene, data: &str) {
    scene
        .protocol
        .answer(scene.now, Ok(AuthStep::new().data(data)))
        .expect("the exchange goes on");
    scene.turn();
}

/// The authenticator believes the server, which lets what was held back be read.
#[track_caller]
fn believe(scene: &mut Scene, renew_in: Option<Duration>) {
    scene
        .protocol
        .verified(scene.now, Ok(renew_in))
        .expect("the server is believed");
    scene.turn();
    scene.feed(b"").expect("what was held is in order");
}

/// Opens a connection by a CONNECT with a method and a CONNACK that is believed.
fn open(scene: &mut Scene, renew_in: Option<Duration>) {
    begin(scene, &login());
    scene.receive(CONNACK_M);
    believe(scene, renew_in);
    assert!(scene.protocol.is_online());
    scene.effects.clear();
    scene.wire.clear();
}

fn play_open(renew_in: Option<Duration>, script: impl Fn(&mut Scene)) {
    play(&v5(), |scene| {
        open(scene, renew_in);
        script(scene);
    });
}

/// As [`play_open`], without a store.
fn play_open_unstored(script: impl Fn(&mut Scene)) {
    play_unstored(&v5(), |scene| {
        open(scene, None);
        script(scene);
    });
}

/// Calls for a re-authentication.
#[track_caller]
fn reauthenticate(scene: &mut Scene) -> Token {
    let token = scene.begin();
    scene.protocol.reauthenticate(token).expect("online");
    scene.turn();
    token
}

/// What the authenticator is asked now, with the data of the server.
fn asked(scene: &mut Scene) -> (&'static str, Option<Vec<u8>>) {
    let data = |properties: &Properties| {
        let data = properties.list().authentication_data();
        data.map(<[u8]>::to_vec)
    };
    match scene.effects.pop_front() {
        Some(Effect::Authenticate(Ask::Begin)) => ("begin", None),
        Some(Effect::Authenticate(Ask::Proceed(properties))) => ("proceed", data(&properties)),
        Some(Effect::Authenticate(Ask::Finish(properties))) => ("finish", data(&properties)),
        other => panic!("not a question: {other:?}"),
    }
}

fn is_authenticated(scene: &Scene, token: Token) {
    let outcome = scene.outcome(token);
    assert!(matches!(outcome, Ok(Done::Authenticated)), "{outcome:?}");
}

// At CONNECT.

#[test]
fn connect_names_the_method_and_carries_the_first_step() {
    // [MQTT-3.1.2-30]
    let login = Login {
        step: AuthStep::new().data("1").user_property("k", "v"),
        ..login()
    };
    let mut config = v5();
    config.properties = Properties::new().user_property("a", "b");
    play(&config, |scene| {
        scene
            .protocol
            .connect_authenticated(scene.now, &Credentials::default(), &login)
            .expect("this can be sent");
        scene.turn();
        scene.sends(&[
            b"\x10\x34\0\x04MQTT\x05\0\0\x3C\x26\x26\0\x01a\0\x01b",
            b"\x11\0\0\x0E\x10\x21\x04\0\x27\0\x10\0\0\x22\0\x10",
            b"\x15\0\x01M\x16\0\x011\x26\0\x01k\0\x01v\0\x01c",
        ]);
    });
}

#[test]
fn challenges_are_answered_until_connack_which_is_believed_before_it_counts() {
    play(&v5(), |scene| {
        // What is queued waits until the very end.
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        begin(scene, &login());
        scene.receive(b"\xF0\x0A\x18\x08\x15\0\x01M\x16\0\x012");
        assert_eq!(asked(scene), ("proceed", Some(b"2".to_vec())));
        scene.sends_nothing();
        answer(scene, "3");
        scene.sends(&[b"\xF0\x0A\x18\x08\x15\0\x01M\x16\0\x013"]);
        scene.receive(CHALLENGE);
        assert_eq!(asked(scene), ("proceed", None));
        scene
            .protocol
            .answer(scene.now, Ok(AuthStep::new().user_property("k", "v")))
            .expect("it goes on");
        scene.turn();
        scene.sends(&[b"\xF0\x0D\x18\x0B\x15\0\x01M\x26\0\x01k\0\x01v"]);
        scene.receive(b"\x20\x0B\0\0\x08\x15\0\x01M\x16\0\x014");
        assert_eq!(asked(scene), ("finish", Some(b"4".to_vec())));
        assert!(!scene.protocol.is_online());
        assert!(scene.protocol.is_verifying());
        scene.sends_nothing();
        scene.no_effect();
        believe(scene, None);
        assert_eq!(scene.effect(), "Connected(Lost)");
        assert!(scene.protocol.is_online());
        scene.sends(&[b"\x32\x07\0\x01t\0\x01\0a"]);
        scene.goes_on(token);
    });
}

#[test]
fn what_stands_behind_a_connack_waits_until_it_is_believed() {
    play(&v5(), |scene| {
        begin(scene, &login());
        scene.receive(
            &[
                CONNACK_M,
                b"\x30\x05\0\x01t\0a",
                b"\x32\x07\0\x01t\0\x01\0b",
            ]
            .concat(),
        );
        assert_eq!(asked(scene).0, "finish");
        scene.gets_nothing();
        believe(scene, None);
        scene.gets("t", b"a");
        scene.gets("t", b"b");
        scene.sends(&[b"\x40\x02\0\x01"]);
    });
}

#[test]
fn a_server_that_is_not_believed_gets_a_goodbye_and_nothing_else() {
    play(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        begin(scene, &login());
        scene.receive(&[CONNACK_M, b"\x30\x05\0\x01t\0a"].concat());
        scene.effects.clear();
        let error = scene
            .protocol
            .verified(scene.now, Err(Error::unproven("its signature is wrong")))
            .expect_err("the connection has to end");
        assert_eq!(
            error.to_string(),
            "authenticate: the broker did not prove who it is: its signature is wrong"
        );
        assert!(error.is_permanent());
        scene.turn();
        scene.sends(&[BREAK_OFF]);
        scene.no_effect();
        scene.gets_nothing();
        assert!(!scene.protocol.is_online());
        scene.goes_on(token);
        scene.cut();
        scene.goes_on(token);
    });
}

#[test]
fn an_authenticator_without_an_answer_ends_the_connection() {
    play(&v5(), |scene| {
        begin(scene, &login());
        scene.receive(CHALLENGE);
        let error = scene
            .protocol
            .answer(scene.now, Err(Error::no_credential("the card is out")))
            .expect_err("nothing can be said");
        assert!(matches!(error.kind(), ErrorKind::NoCredential(_)));
        assert!(!error.is_permanent());
        scene.turn();
        scene.sends(&[BREAK_OFF]);
    });
}

#[test]
fn a_refusal_is_believed_at_once_whoever_has_the_word() {
    // [MQTT-4.12.0-4]
    for challenged in [false, true] {
        play(&v5(), |scene| {
            begin(scene, &login());
            if challenged {
                scene.receive(CHALLENGE);
            }
            let error = scene.refuses(b"\x20\x03\0\x87\0");
            assert_eq!(error.reason(), Some(Reason::NOT_AUTHORIZED));
            scene.sends_nothing();
        });
    }
}

#[test]
fn a_server_that_breaks_the_rules_of_the_first_exchange_is_told() {
    for (before, bytes, clause) in [
        // AUTH 0x19 and 0x00, and AUTH without anything
        (b"".as_slice(), AGAIN, "MQTT5 3.15.2.1"),
        (b"", SUCCESS, "MQTT5 4.12"),
        (b"", b"\xF0\0", "MQTT5 4.12"),
        // another method, and none
        (b"", b"\xF0\x06\x18\x04\x15\0\x01N", "MQTT-4.12.0-5"),
        (b"", b"\xF0\x02\x18\0", "MQTT5 3.15.2.2.2"),
        // CONNACK without a method, and with another one
        (b"", CONNACK_5, "MQTT-4.12.0-5"),
        (b"", b"\x20\x07\0\0\x04\x15\0\x01N", "MQTT-4.12.0-5"),
        // a challenge, or success, before the answer
        (CHALLENGE, CHALLENGE, "MQTT5 4.12"),
        (CHALLENGE, CONNACK_M, "MQTT5 4.12"),
        // something else
        (b"", b"\x30\x05\0\x01t\0a", "MQTT-3.2.0-1"),
        (CHALLENGE, PINGRESP, "MQTT-3.2.0-1"),
    ] {
        play(&v5(), |scene| {
            begin(scene, &login());
            scene.receive(before);
            let error = scene.refuses(bytes);
            assert_eq!(violation(&error), (clause, Reason::PROTOCOL_ERROR));
            assert!(error.to_string().contains(clause), "{error}");
            scene.sends(&[b"\xE0\x01\x82"]);
            // An answer that was still being made comes to nothing.
            answer(scene, "late");
            scene.sends_nothing();
            assert!(!scene.protocol.is_online());
        });
    }
}

#[test]
fn a_server_cannot_go_on_with_challenges_for_ever() {
    play(&v5(), |scene| {
        begin(scene, &login());
        for _ in 0..16 {
            scene.receive(CHALLENGE);
            assert_eq!(asked(scene).0, "proceed");
            answer(scene, "");
        }
        scene.wire.clear();
        let error = scene.refuses(CHALLENGE);
        assert_eq!(violation(&error).1, Reason::QUOTA_EXCEEDED);
        scene.sends(&[b"\xE0\x01\x97"]);
        scene.no_effect();
    });
}

#[test]
fn each_step_has_its_time_anew() {
    play(&v5(), |scene| {
        begin(scene, &login());
        for _ in 0..3 {
            scene.wait(9);
            scene.receive(CHALLENGE);
            scene.wait(9);
            answer(scene, "");
        }
        scene.wait(9);
        scene.receive(CONNACK_M);
        scene.wait(9);
        believe(scene, None);
        assert!(scene.protocol.is_online());
    });
}

#[test]
fn before_connack_the_steps_of_both_sides_share_a_keep_alive() {
    // [MQTT-3.1.2-20]: nothing but AUTH may leave then, so a broker may count from CONNECT and from each AUTH.
    let config = Config {
        keep_alive: 10,
        ..v5()
    };
    play(&config, |scene| {
        begin(scene, &login());
        for _ in 0..2 {
            scene.wait(5);
            scene.receive(CHALLENGE);
            scene.wait(4);
            answer(scene, "");
        }
        scene.wait(9);
        scene.receive(CHALLENGE);
        let error = scene.pass(seconds(1)).expect_err("it took too long");
        assert!(matches!(error.kind(), ErrorKind::TimedOut(span) if *span == seconds(10)));
    });
}

#[test]
fn a_step_that_takes_too_long_is_the_end_whoever_has_the_word() {
    for (bytes, answered) in [
        (b"".as_slice(), false),
        (CHALLENGE, false),
        (CHALLENGE, true),
        (CONNACK_M, false),
    ] {
        play(&v5(), |scene| {
            begin(scene, &login());
            scene.receive(bytes);
            if answered {
                answer(scene, "");
            }
            scene.wait(9);
            let error = scene.pass(seconds(1)).expect_err("it took too long");
            assert!(matches!(error.kind(), ErrorKind::TimedOut(span) if *span == seconds(10)));
            assert!(!scene.protocol.is_online());
        });
    }
}

#[test]
fn a_connack_that_is_believed_still_has_to_be_possible() {
    // [MQTT-3.2.2-4]
    let config = Config {
        session: SessionMode::None,
        ..v5()
    };
    play(&config, |scene| {
        begin(scene, &login());
        scene.receive(b"\x20\x07\x01\0\x04\x15\0\x01M");
        let error = scene
            .protocol
            .verified(scene.now, Ok(None))
            .expect_err("there is no session");
        assert_eq!(violation(&error).0, "MQTT-3.2.2-4");
        scene.turn();
        scene.sends(&[b"\xE0\x01\x82"]);
    });
}

#[test]
fn a_connection_that_only_ends_an_old_session_is_authenticated_too() {
    play(&v5(), |scene| {
        begin(scene, &login());
        scene.receive(b"\x20\x07\x01\0\x04\x15\0\x01M");
        assert_eq!(asked(scene).0, "finish");
        scene.sends_nothing();
        scene
            .protocol
            .verified(scene.now, Ok(None))
            .expect("believed");
        scene.turn();
        assert_eq!(scene.effect(), "Again");
        scene.sends(&[b"\xE0\x07\0\x05\x11\0\0\0\0"]);
        scene.cut();
        open(scene, None);
    });
}

#[test]
fn where_the_server_proves_nothing_success_need_not_repeat_the_method() {
    let login = Login {
        one_sided: true,
        ..login()
    };
    play(&v5(), |scene| {
        begin(scene, &login);
        scene.receive(CONNACK_5);
        believe(scene, None);
        // The short form, the long one that says the same, and one with words (MQTT 5, section 3.15.2.1).
        for success in [
            &b"\xF0\0"[..],
            b"\xF0\x02\0\0",
            b"\xF0\x06\0\x04\x1F\0\x01w",
        ] {
            scene.effects.clear();
            let token = reauthenticate(scene);
            assert_eq!(asked(scene).0, "begin");
            answer(scene, "");
            scene.receive(success);
            assert_eq!(asked(scene).0, "finish");
            believe(scene, None);
            is_authenticated(scene, token);
        }
    });
    play(&v5(), |scene| {
        begin(scene, &login);
        let error = scene.refuses(b"\x20\x07\0\0\x04\x15\0\x01N");
        assert_eq!(violation(&error).0, "MQTT-4.12.0-5");
    });
}

#[test]
fn a_login_needs_5_0() {
    for version in [Version::V3_1, Version::V3_1_1] {
        play(&config(version), |scene| {
            let error = scene
                .protocol
                .connect_authenticated(scene.now, &Credentials::default(), &login())
                .expect_err("3.x has no AUTH");
            assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
            scene.turn();
            scene.sends_nothing();
        });
    }
}

#[test]
fn a_first_step_that_cannot_be_sent_is_an_error_and_the_next_attempt_goes_on() {
    for step in [
        AuthStep::new().data(vec![0; 65_536]),
        AuthStep::new().user_property("k", "a\0b"),
    ] {
        let bad = Login { step, ..login() };
        play(&v5(), |scene| {
            let outcome =
                scene
                    .protocol
                    .connect_authenticated(scene.now, &Credentials::default(), &bad);
            let error = outcome.expect_err("MQTT cannot carry this");
            assert!(matches!(error.kind(), ErrorKind::Property(_)), "{error}");
            scene.turn();
            scene.sends_nothing();
            open(scene, None);
        });
    }
}

// On the live connection.

#[test]
fn a_reauthentication_goes_through_its_steps_while_messages_flow() {
    // [MQTT-4.12.1-1]
    let config = Config {
        quiet_renewal: false,
        ..v5()
    };
    play(&config, |scene| {
        open(scene, None);
        let token = reauthenticate(scene);
        assert_eq!(asked(scene), ("begin", None));
        scene.sends_nothing();
        scene.publish(Qos::AtMostOnce, b"a", Wait::None);
        scene.sends(&[b"\x30\x05\0\x01t\0a"]);
        answer(scene, "1");
        scene.sends(&[b"\xF0\x0A\x19\x08\x15\0\x01M\x16\0\x011"]);
        scene.receive(b"\x30\x05\0\x01t\0b");
        scene.gets("t", b"b");
        scene.receive(b"\xF0\x0A\x18\x08\x15\0\x01M\x16\0\x012");
        assert_eq!(asked(scene), ("proceed", Some(b"2".to_vec())));
        scene.publish(Qos::AtMostOnce, b"c", Wait::None);
        scene.sends(&[b"\x30\x05\0\x01t\0c"]);
        answer(scene, "3");
        scene.sends(&[b"\xF0\x0A\x18\x08\x15\0\x01M\x16\0\x013"]);
        scene.receive(b"\xF0\x0A\x00\x08\x15\0\x01M\x16\0\x014");
        assert_eq!(asked(scene), ("finish", Some(b"4".to_vec())));
        // Only CONNACK holds the rest up.
        assert!(!scene.protocol.is_verifying());
        scene.receive(b"\x30\x05\0\x01t\0d");
        scene.gets("t", b"d");
        scene.goes_on(token);
        believe(scene, None);
        is_authenticated(scene, token);
        assert_eq!(scene.effect(), "Reauthenticated");
        scene.sends_nothing();
    });
}

#[test]
fn one_exchange_at_a_time_and_a_later_call_has_its_own() {
    play_open(None, |scene| {
        let first = reauthenticate(scene);
        assert_eq!(asked(scene).0, "begin");
        // The credential may have changed since the first one was asked for it.
        let second = reauthenticate(scene);
        let third = reauthenticate(scene);
        scene.no_effect();
        answer(scene, "");
        scene.receive(SUCCESS);
        assert_eq!(asked(scene).0, "finish");
        believe(scene, None);
        is_authenticated(scene, first);
        scene.goes_on(second);
        assert_eq!(scene.effect(), "Reauthenticated");
        assert_eq!(asked(scene).0, "begin");
        scene.wire.clear();
        answer(scene, "");
        scene.sends(&[b"\xF0\x09\x19\x07\x15\0\x01M\x16\0\0"]);
        scene.receive(SUCCESS);
        scene.effects.clear();
        believe(scene, None);
        is_authenticated(scene, second);
        is_authenticated(scene, third);
    });
}

#[test]
fn a_credential_is_renewed_by_itself_each_time_it_is_due() {
    let config = Config {
        keep_alive: 0,
        ..v5()
    };
    play(&config, |scene| {
        open(scene, Some(seconds(100)));
        for _ in 0..3 {
            scene.wait(99);
            scene.no_effect();
            scene.wait(1);
            assert_eq!(asked(scene), ("begin", None));
            answer(scene, "");
            scene.sends(&[b"\xF0\x09\x19\x07\x15\0\x01M\x16\0\0"]);
            scene.receive(SUCCESS);
            assert_eq!(asked(scene).0, "finish");
            believe(scene, Some(seconds(100)));
            assert_eq!(scene.effect(), "Reauthenticated");
        }
    });
}

#[test]
fn a_renewal_without_a_credential_is_told_and_tried_again() {
    play_open(Some(seconds(20)), |scene| {
        scene.wait(20);
        assert_eq!(asked(scene).0, "begin");
        for _ in 0..2 {
            scene
                .protocol
                .answer(scene.now, Err(Error::no_credential("the server is away")))
                .expect("the connection stays");
            scene.turn();
            let effect = scene.effect();
            assert!(effect.contains("NotRenewed"), "{effect}");
            assert!(effect.contains("the server is away"), "{effect}");
            assert!(effect.contains("10s"), "{effect}");
            scene.sends_nothing();
            scene.wait(9);
            scene.no_effect();
            scene.wait(1);
            assert_eq!(asked(scene).0, "begin");
        }
        answer(scene, "");
        scene.sends(&[b"\xF0\x09\x19\x07\x15\0\x01M\x16\0\0"]);
    });
}

#[test]
fn a_call_without_a_credential_fails_and_the_connection_stays() {
    play_open(None, |scene| {
        let token = reauthenticate(scene);
        scene
            .protocol
            .answer(scene.now, Err(Error::no_credential("none")))
            .expect("the connection stays");
        scene.turn();
        let error = scene.fails(token);
        assert_eq!(
            error.to_string(),
            "authenticate: there is no credential: none"
        );
        scene.sends_nothing();
        assert!(scene.protocol.is_online());
        // Too slow is the same.
        scene.effects.clear();
        let token = reauthenticate(scene);
        scene.wait(10);
        assert!(matches!(scene.fails(token).kind(), ErrorKind::TimedOut(_)));
        assert!(scene.protocol.is_online());
        // What comes then is nobody's.
        answer(scene, "late");
        scene.sends_nothing();
        assert_eq!(asked(scene).0, "begin");
        scene.no_effect();
    });
}

#[test]
fn a_server_that_is_not_believed_again_is_left() {
    play_open(None, |scene| {
        let token = reauthenticate(scene);
        answer(scene, "");
        scene.wire.clear();
        scene.receive(SUCCESS);
        let verdict = Err(Error::unproven("it is another one"));
        scene
            .protocol
            .verified(scene.now, verdict)
            .expect_err("the connection has to end");
        scene.turn();
        assert!(matches!(scene.fails(token).kind(), ErrorKind::Unproven(_)));
        // [MQTT-4.12.1-2], and nothing follows.
        scene.publish(Qos::AtMostOnce, b"a", Wait::None);
        scene.sends(&[BREAK_OFF]);
    });
}

#[test]
fn a_server_that_refuses_a_reauthentication_disconnects() {
    play_open(None, |scene| {
        let token = reauthenticate(scene);
        answer(scene, "");
        scene.wire.clear();
        let error = scene.refuses(b"\xE0\x01\x87");
        assert_eq!(error.reason(), Some(Reason::NOT_AUTHORIZED));
        scene.sends_nothing();
        scene.closed_by_broker();
        let error = scene.fails(token);
        assert_eq!(error.to_string(), "authenticate: the link was lost");
    });
}

#[test]
fn a_reauthentication_that_stalls_ends_the_connection() {
    for challenged in [false, true] {
        play_open(None, |scene| {
            let token = reauthenticate(scene);
            answer(scene, "");
            if challenged {
                scene.receive(CHALLENGE);
            }
            scene.wait(9);
            scene.goes_on(token);
            scene.wire.clear();
            let error = scene.pass(seconds(1)).expect_err("it took too long");
            assert_eq!(error.to_string(), "authenticate: no answer within 10s");
            scene.turn();
            // [MQTT-4.12.1-2]
            scene.sends(&[BREAK_OFF]);
            scene.cut();
            assert!(matches!(scene.fails(token).kind(), ErrorKind::TimedOut(_)));
        });
    }
}

#[test]
fn a_server_that_breaks_the_rules_of_a_later_exchange_is_told() {
    let idle: &[&[u8]] = &[];
    let started: &[&[u8]] = &[b""];
    let challenged: &[&[u8]] = &[b"", CHALLENGE];
    for (before, bytes, clause) in [
        // Nothing is under way.
        (idle, CHALLENGE, "MQTT5 4.12"),
        (idle, SUCCESS, "MQTT5 4.12"),
        (idle, b"\xF0\0", "MQTT5 4.12"),
        (idle, AGAIN, "MQTT5 3.15.2.1"),
        // It is under way.
        (started, AGAIN, "MQTT5 3.15.2.1"),
        (started, b"\xF0\x06\x18\x04\x15\0\x01N", "MQTT-4.12.0-5"),
        (started, b"\xF0\x06\x00\x04\x15\0\x01N", "MQTT-4.12.0-5"),
        (started, b"\xF0\0", "MQTT-4.12.0-5"),
        (started, CONNACK_M, "MQTT-3.2.0-2"),
        // Our answer is due.
        (challenged, CHALLENGE, "MQTT5 4.12"),
        (challenged, SUCCESS, "MQTT5 4.12"),
    ] {
        play_open(None, |scene| {
            let mut token = None;
            for bytes in before {
                if token.is_none() {
                    token = Some(reauthenticate(scene));
                    answer(scene, "");
                }
                scene.receive(bytes);
            }
            scene.wire.clear();
            let error = scene.refuses(bytes);
            assert_eq!(violation(&error), (clause, Reason::PROTOCOL_ERROR));
            scene.sends(&[b"\xE0\x01\x82"]);
            answer(scene, "late");
            scene.sends_nothing();
            scene.cut();
            if let Some(token) = token {
                scene.fails(token);
            }
        });
    }
}

#[test]
fn a_challenge_that_comes_before_the_first_data_is_sent_is_out_of_turn() {
    play_open(None, |scene| {
        reauthenticate(scene);
        let error = scene.refuses(CHALLENGE);
        assert_eq!(violation(&error).0, "MQTT5 4.12");
    });
}

#[test]
fn a_later_exchange_has_as_many_challenges_as_the_first_one() {
    play_open(None, |scene| {
        for _ in 0..2 {
            let token = reauthenticate(scene);
            answer(scene, "");
            for _ in 0..16 {
                scene.receive(CHALLENGE);
                answer(scene, "");
            }
            scene.receive(SUCCESS);
            believe(scene, None);
            is_authenticated(scene, token);
        }
    });
}

#[test]
fn without_a_connection_or_a_method_a_call_fails_at_once() {
    play(&v5(), |scene| {
        let token = scene.begin();
        let error = scene.protocol.reauthenticate(token).expect_err("offline");
        assert!(matches!(error.kind(), ErrorKind::LinkLost));
        begin(scene, &login());
        let error = scene
            .protocol
            .reauthenticate(token)
            .expect_err("no CONNACK");
        assert!(matches!(error.kind(), ErrorKind::LinkLost));
        scene.cut();
        scene.open();
        // [MQTT-4.12.0-7]
        let error = scene.protocol.reauthenticate(token).expect_err("no method");
        assert!(matches!(error.kind(), ErrorKind::Misuse(_)));
        answer(scene, "unasked");
        scene.sends_nothing();
        scene.waits.remove(&token);
    });
}

#[test]
fn a_lost_link_ends_the_waits_and_the_renewal() {
    play_open(Some(seconds(30)), |scene| {
        let first = reauthenticate(scene);
        let second = reauthenticate(scene);
        scene.effects.clear();
        scene.cut();
        for token in [first, second] {
            assert!(matches!(scene.fails(token).kind(), ErrorKind::LinkLost));
        }
        // An answer of that connection does not reach the next one.
        answer(scene, "late");
        scene.sends_nothing();
        open(scene, None);
        answer(scene, "late");
        scene.wait(59);
        scene.sends_nothing();
        scene.no_effect();
    });
}

#[test]
fn close_ends_the_waits_of_an_exchange() {
    play_open(None, |scene| {
        let token = reauthenticate(scene);
        scene.protocol.close();
        scene.collect();
        assert!(matches!(scene.fails(token).kind(), ErrorKind::Closed));
    });
}

#[test]
fn auth_keeps_to_the_largest_packet_of_the_broker() {
    let large = || Ok(AuthStep::new().data(vec![0; 100]));
    play(&v5(), |scene| {
        begin(scene, &login());
        // Maximum Packet Size 64
        scene.receive(b"\x20\x0C\0\0\x09\x27\0\0\0\x40\x15\0\x01M");
        believe(scene, None);
        scene.effects.clear();
        let token = reauthenticate(scene);
        scene
            .protocol
            .answer(scene.now, large())
            .expect("nothing has begun");
        scene.turn();
        assert!(matches!(
            scene.fails(token).kind(),
            ErrorKind::TooLarge {
                size: 111,
                limit: 64
            }
        ));
        scene.sends_nothing();
        let token = reauthenticate(scene);
        answer(scene, "");
        scene.receive(CHALLENGE);
        scene.wire.clear();
        scene
            .protocol
            .answer(scene.now, large())
            .expect_err("the exchange cannot go on");
        scene.turn();
        scene.fails(token);
        scene.sends(&[BREAK_OFF]);
    });
}

// [MQTT-3.15.2-2], [MQTT-3.15.2-3]: not where they make AUTH larger than the broker takes.
#[test]
fn auth_may_say_why_as_far_as_the_broker_takes_it() {
    let step = || {
        let step = AuthStep::new().data(*b"d").reason_string("old");
        Ok(step.user_property("a", "b"))
    };
    for (limit, auth) in [
        (
            27,
            &b"\xF0\x17\x19\x15\x15\0\x01M\x16\0\x01d\x26\0\x01a\0\x01b\x1F\0\x03old"[..],
        ),
        (20, b"\xF0\x0A\x19\x08\x15\0\x01M\x16\0\x01d"),
    ] {
        play(&v5(), |scene| {
            begin(scene, &login());
            scene.receive(&[0x20, 12, 0, 0, 9, 0x27, 0, 0, 0, limit, 0x15, 0, 1, b'M']);
            believe(scene, None);
            scene.effects.clear();
            scene.wire.clear();
            reauthenticate(scene);
            let protocol = &mut scene.protocol;
            protocol.answer(scene.now, step()).expect("it goes on");
            scene.turn();
            scene.sends(&[auth]);
        });
    }
}

#[test]
fn connect_has_no_reason_string() {
    let login = Login {
        step: AuthStep::new().data(*b"0").reason_string("old"),
        ..login()
    };
    play(&v5(), |scene| {
        begin(scene, &login);
        let sent = scene.wire.clone();
        assert!(!sent.windows(3).any(|part| part == b"old"));
    });
}

#[test]
fn a_user_property_that_makes_auth_too_large_is_left_out() {
    // [MQTT-3.15.2-3], [MQTT-3.2.2-15]
    for (value, size) in [(47, 64), (48, 8)] {
        play(&v5(), |scene| {
            begin(scene, &login());
            // Maximum Packet Size 64
            scene.receive(b"\x20\x0C\0\0\x09\x27\0\0\0\x40\x15\0\x01M");
            believe(scene, None);
            let token = reauthenticate(scene);
            let step = AuthStep::new().user_property("name", &"v".repeat(value));
            scene
                .protocol
                .answer(scene.now, Ok(step))
                .expect("it can be sent without");
            scene.turn();
            assert_eq!(scene.wire.len(), size);
            scene.goes_on(token);
        });
    }
}

#[test]
fn what_can_wait_does_while_the_server_authenticates_us_again() {
    play_open_unstored(|scene| {
        scene.publish(Qos::AtLeastOnce, b"z", Wait::None);
        scene.sends(&[b"\x32\x07\0\x01t\0\x01\0z"]);
        let token = reauthenticate(scene);
        // Nothing has begun for the server.
        scene.publish(Qos::AtMostOnce, b"a", Wait::None);
        scene.sends(&[b"\x30\x05\0\x01t\0a"]);
        answer(scene, "");
        scene.sends(&[b"\xF0\x09\x19\x07\x15\0\x01M\x16\0\0"]);
        let sent = scene.publish_0(b"b", Wait::Sent);
        let acknowledged = scene.publish(Qos::AtLeastOnce, b"c", Wait::Ack);
        let granted = scene.subscribe(&["f"], Qos::AtMostOnce, Wait::Ack);
        let pinged = scene.begin();
        scene.protocol.ping(pinged).expect("online");
        scene.receive(b"\x32\x07\0\x01t\0\x01\0d");
        scene.gets("t", b"d");
        scene.receive(b"\x34\x07\0\x01t\0\x02\0e");
        scene.gets("t", b"e");
        // What the server still says to what it had is taken.
        scene.receive(b"\x40\x02\0\x01");
        scene.sends_nothing();
        assert!(!scene.protocol.is_drained());
        // The exchange itself is not held up.
        scene.receive(CHALLENGE);
        answer(scene, "");
        scene.sends(&[b"\xF0\x09\x18\x07\x15\0\x01M\x16\0\0"]);
        scene.wait(9);
        scene.sends_nothing();
        scene.receive(SUCCESS);
        scene.sends(&[
            b"\x40\x02\0\x01",
            b"\x50\x02\0\x02",
            PINGREQ,
            b"\x82\x07\0\x02\0\0\x01f\0",
            b"\x32\x07\0\x01t\0\x03\0c",
            b"\x30\x05\0\x01t\0b",
        ]);
        scene.is_sent(sent);
        believe(scene, None);
        is_authenticated(scene, token);
        scene.receive(PINGRESP);
        assert!(matches!(scene.outcome(pinged), Ok(Done::Pong)));
        scene.receive(b"\x40\x02\0\x03");
        scene.is_acknowledged(acknowledged, Reason::SUCCESS);
        scene.goes_on(granted);
    });
}

#[test]
fn the_keep_alive_goes_on_behind_a_reauthentication() {
    play_open(None, |scene| {
        scene.wait(55);
        let token = reauthenticate(scene);
        answer(scene, "");
        scene.wire.clear();
        scene.wait(9);
        scene.sends_nothing();
        scene.receive(SUCCESS);
        believe(scene, None);
        is_authenticated(scene, token);
        // Nothing but AUTH had come or gone, and its times count.
        scene.sends_nothing();
        scene.wait(51);
        scene.sends(&[PINGREQ]);
    });
}

#[test]
fn what_was_held_back_dies_with_the_link() {
    play_open(None, |scene| {
        let token = reauthenticate(scene);
        answer(scene, "");
        scene.receive(b"\x32\x07\0\x01t\0\x01\0d");
        let publishing = scene.publish(Qos::AtLeastOnce, b"c", Wait::Ack);
        scene.wire.clear();
        scene.cut();
        scene.fails(token);
        begin(scene, &login());
        scene.receive(b"\x20\x07\x01\0\x04\x15\0\x01M");
        believe(scene, None);
        scene.sends(&[b"\x32\x07\0\x01t\0\x01\0c"]);
        scene.goes_on(publishing);
    });
}

#[test]
fn a_goodbye_does_not_wait_for_a_reauthentication() {
    play_open(None, |scene| {
        reauthenticate(scene);
        answer(scene, "");
        scene.receive(b"\x32\x07\0\x01t\0\x01\0d");
        scene.wire.clear();
        scene.disconnect();
        scene.sends(&[DISCONNECT]);
    });
}

#[test]
fn a_refusal_by_connack_is_understood() {
    // mosquitto up to 2.0 refuses a re-authentication so.
    play_open(None, |scene| {
        reauthenticate(scene);
        answer(scene, "");
        scene.wire.clear();
        let error = scene.refuses(b"\x20\x03\0\x87\0");
        assert!(matches!(error.kind(), ErrorKind::Disconnected { .. }));
        assert_eq!(error.reason(), Some(Reason::NOT_AUTHORIZED));
        scene.sends_nothing();
    });
    // At any other time it is what it is.
    play_open(None, |scene| {
        let error = scene.refuses(b"\x20\x03\0\x87\0");
        assert_eq!(violation(&error).0, "MQTT-3.2.0-2");
    });
}

#[test]
fn a_refused_reauthentication_is_no_messages_fault() {
    play_open(None, |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        for _ in 0..5 {
            reauthenticate(scene);
            answer(scene, "");
            scene.refuses(b"\xE0\x01\x87");
            scene.closed_by_broker();
            begin(scene, &login());
            scene.receive(b"\x20\x07\x01\0\x04\x15\0\x01M");
            believe(scene, None);
        }
        scene.goes_on(token);
    });
}

#[test]
fn the_data_of_a_step_is_not_shown() {
    let step = AuthStep::new()
        .data("hunter2")
        .user_property("token", "hunter2");
    let login = Login { step, ..login() };
    let ask = Ask::Proceed(Properties::new().with(Property::AuthenticationData(b"hunter2")));
    for text in [
        format!("{login:?}"),
        format!("{login:#?}"),
        format!("{ask:?}"),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains("104"), "{text}");
    }
    play(&v5(), |scene| {
        begin(scene, &login);
        assert!(!format!("{:?}", scene.protocol).contains("hunter2"));
    });
}
