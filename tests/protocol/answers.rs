//! What the broker says beside its reasons: reason strings and user properties of acknowledgements, and
//! whether it may say anything.

use coracle::protocol::Asked;
use coracle::{Properties, PropertyList, Qos, Reason, Wait};

use crate::*;

/// A reason string "why" and a user property "k" of value "v", with their length in front.
const WHY: &[u8] = b"\x0d\x1f\0\x03why\x26\0\x01k\0\x01v";

/// A packet of this type with a body in pieces.
fn packet(first: u8, pieces: &[&[u8]]) -> Vec<u8> {
    let body = pieces.concat();
    let length = u8::try_from(body.len()).expect("short");
    [&[first, length], body.as_slice()].concat()
}

#[track_caller]
fn says_why(said: PropertyList<'_>) {
    assert_eq!(said.reason_string(), Some("why"));
    let users: Vec<_> = said.user_properties().collect();
    assert_eq!(users, [("k", "v")]);
}

#[track_caller]
fn acknowledged(scene: &Scene, token: Token) -> (Reason, PropertyList<'_>) {
    match scene.outcome(token) {
        Ok(Done::Acknowledged(reason, remarks)) => (*reason, remarks.list()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_puback_says_reaches_the_caller_in_ok_and_in_err() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.receive(&packet(0x40, &[b"\0\x01\x10", WHY]));
        let (reason, said) = acknowledged(scene, token);
        assert_eq!(reason, Reason::NO_MATCHING_SUBSCRIBERS);
        says_why(said);
        let token = scene.publish(Qos::AtLeastOnce, b"a", Wait::Ack);
        scene.receive(&packet(0x40, &[b"\0\x02\x87", WHY]));
        let error = scene.fails(token);
        assert_eq!(error.reason(), Some(Reason::NOT_AUTHORIZED));
        says_why(error.properties());
        assert!(error.to_string().contains("\"why\""), "{error}");
    });
}

#[test]
fn what_pubrec_and_pubcomp_say_reaches_the_caller_in_their_order() {
    play_online(&v5(), |scene| {
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.receive(&packet(0x50, &[b"\0\x01\x10", WHY]));
        // It is kept across a reconnect.
        scene.reconnect_present();
        scene.receive(b"\x70\x0d\0\x01\x92\x09\x1f\0\x06it was");
        let (reason, said) = acknowledged(scene, token);
        assert_eq!(reason, Reason::NO_MATCHING_SUBSCRIBERS);
        says_why(said);
        let all: Vec<_> = said
            .iter()
            .filter(|property| matches!(property, coracle::Property::ReasonString(_)))
            .collect();
        assert_eq!(all.len(), 2, "{all:?}");
        // PUBCOMP alone.
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.receive(b"\x50\x02\0\x02");
        scene.receive(&packet(0x70, &[b"\0\x02\0", WHY]));
        let (reason, said) = acknowledged(scene, token);
        assert_eq!(reason, Reason::SUCCESS);
        says_why(said);
        // A refusal.
        let token = scene.publish(Qos::ExactlyOnce, b"a", Wait::Ack);
        scene.receive(&packet(0x50, &[b"\0\x03\x97", WHY]));
        let error = scene.fails(token);
        assert_eq!(error.reason(), Some(Reason::QUOTA_EXCEEDED));
        says_why(error.properties());
    });
}

#[test]
fn a_refusal_that_nobody_waits_for_is_an_effect_with_what_the_broker_said() {
    play_online(&v5(), |scene| {
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.receive(&packet(0x40, &[b"\0\x01\x87", WHY]));
        match scene.effects.pop_front() {
            Some(Effect::Unpublished(Some(_), error)) => says_why(error.properties()),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn what_suback_says_reaches_the_caller_in_ok_and_in_err() {
    play_online(&v5(), |scene| {
        let token = scene.subscribe(&["a", "b"], Qos::AtMostOnce, Wait::Ack);
        scene.receive(&packet(0x90, &[b"\0\x01", WHY, b"\0\0"]));
        match scene.outcome(token) {
            Ok(Done::Granted(grants)) => {
                assert_eq!(grants.len(), 2);
                for grant in grants {
                    match &grant.answer {
                        Asked::Answered(_, remarks) => says_why(remarks.list()),
                        Asked::Failed(error) => panic!("{error}"),
                    }
                }
            }
            other => panic!("{other:?}"),
        }
        let token = scene.subscribe(&["a", "b"], Qos::AtMostOnce, Wait::Ack);
        scene.receive(&packet(0x90, &[b"\0\x02", WHY, b"\0\x87"]));
        says_why(scene.fails(token).properties());
    });
}

#[test]
fn what_unsuback_says_reaches_the_caller_in_ok_and_in_err() {
    play_online(&v5(), |scene| {
        let token = scene.unsubscribe(&["a"], Wait::Ack);
        scene.receive(&packet(0xB0, &[b"\0\x01", WHY, b"\x11"]));
        match scene.outcome(token) {
            Ok(Done::Unsubscribed(reasons, remarks)) => {
                assert_eq!(*reasons, [Reason::NO_SUBSCRIPTION_EXISTED]);
                says_why(remarks.list());
            }
            other => panic!("{other:?}"),
        }
        let token = scene.unsubscribe(&["a"], Wait::Ack);
        scene.receive(&packet(0xB0, &[b"\0\x02", WHY, b"\x87"]));
        says_why(scene.fails(token).properties());
    });
}

/// We ask the broker not to explain itself.
fn tight_lipped() -> Config {
    Config {
        properties: Properties::new().request_problem_information(false),
        ..v5()
    }
}

#[test]
fn what_is_asked_of_the_broker_stands_in_connect_and_its_response_information_can_be_read() {
    let config = Config {
        properties: Properties::new()
            .request_response_information(true)
            .request_problem_information(false),
        ..v5()
    };
    play(&config, |scene| {
        scene.connect();
        let connect = std::mem::take(&mut scene.wire);
        for asked in [b"\x19\x01", b"\x17\x00"] {
            assert!(connect.windows(2).any(|two| two == asked));
        }
        scene.receive(b"\x20\x09\0\0\x06\x1a\0\x03r/1");
        let limits = scene.protocol.limits().expect("it is online");
        let said = limits.properties.list();
        assert_eq!(said.response_information(), Some("r/1"));
        scene.effects.clear();
    });
}

#[test]
fn a_broker_that_was_asked_not_to_explain_itself_and_does_breaks_the_rules() {
    // [MQTT-3.1.2-29]
    let text: &[u8] = b"\x04\x1f\0\x01x";
    let user: &[u8] = b"\x07\x26\0\x01k\0\x01v";
    for said in [text, user] {
        for (first, before, after) in [
            (0x40, &b"\0\x01\0"[..], &b""[..]),
            (0x50, b"\0\x01\0", b""),
            (0x62, b"\0\x01\0", b""),
            (0x70, b"\0\x01\0", b""),
            (0x90, b"\0\x01", b"\0"),
            (0xB0, b"\0\x01", b"\0"),
        ] {
            let answer = packet(first, &[before, said, after]);
            play_online(&tight_lipped(), |scene| {
                let error = scene.refuses(&answer);
                assert_eq!(violation(&error), ("MQTT-3.1.2-29", Reason::PROTOCOL_ERROR));
                scene.sends(&[b"\xE0\x01\x82"]);
            });
            // Unless asked, it may.
            play_online(&v5(), |scene| scene.receive(&answer));
        }
    }
}

#[test]
fn in_connack_publish_and_disconnect_the_broker_may_always_explain_itself() {
    play(&tight_lipped(), |scene| {
        scene.open_with(b"\x20\x07\0\0\x04\x1f\0\x01x");
        scene.receive(b"\x30\x0c\0\x01t\x07\x26\0\x01k\0\x01vx");
        scene.gets("t", b"x");
        let error = scene.refuses(b"\xE0\x06\x98\x04\x1f\0\x01x");
        assert_eq!(error.reason(), Some(Reason::ADMINISTRATIVE_ACTION));
        scene.sends_nothing();
    });
}
