//! SUBSCRIBE and SUBACK: waits, batches, limits, restoring, and the order with UNSUBSCRIBE.

use coracle::protocol::Asked;
use coracle::{ErrorKind, Message, Properties, Qos, Reason, Sent, Wait};

use crate::*;

const SUBSCRIBE_A: &[u8] = b"\x82\x07\0\x01\0\0\x01a\x01";

#[track_caller]
fn granted(scene: &Scene, token: Token, expected: &[(&str, Reason)]) {
    let Ok(Done::Granted(grants)) = scene.outcome(token) else {
        panic!("{:?}", scene.outcome(token));
    };
    let reasons: Vec<_> = grants
        .iter()
        .map(|grant| match &grant.answer {
            Asked::Answered(reason, _) => (grant.filter.as_ref(), *reason),
            Asked::Failed(error) => panic!("{error}"),
        })
        .collect();
    assert_eq!(reasons, expected);
}

/// A SUBACK of 5.0 that grants QoS 0 to so many filters.
fn suback(id: u8, filters: u8) -> Vec<u8> {
    let mut packet = vec![0x90, 3 + filters, 0, id, 0];
    packet.resize(5 + usize::from(filters), 0);
    packet
}

#[test]
fn subscribe_ends_with_suback_and_its_granted_qos() {
    play_online(&v5(), |scene| {
        let token = scene.subscribe(&["a", "b"], Qos::ExactlyOnce, Wait::Ack);
        scene.sends(&[b"\x82\x0B\0\x01\0\0\x01a\x02\0\x01b\x02"]);
        scene.receive(b"\x90\x05\0\x01\0\x02\x01");
        granted(
            scene,
            token,
            &[("a", Reason::GRANTED_QOS_2), ("b", Reason::GRANTED_QOS_1)],
        );
        assert!(scene.effect().starts_with("Subscribed(7, [Grant"));
        assert!(scene.protocol.is_drained());
    });
    play_online(&v3(), |scene| {
        let token = scene.subscribe(&["a"], Qos::ExactlyOnce, Wait::Ack);
        scene.sends(&[b"\x82\x06\0\x01\0\x01a\x02"]);
        scene.receive(b"\x90\x03\0\x01\0");
        granted(scene, token, &[("a", Reason::SUCCESS)]);
    });
}

#[test]
fn a_refusal_is_an_error_that_names_the_filter() {
    play_online(&v5(), |scene| {
        let token = scene.subscribe(&["a", "b"], Qos::AtMostOnce, Wait::Ack);
        scene.receive(b"\x90\x0B\0\x01\x06\x1F\0\x03why\0\x87");
        let error = scene.fails(token);
        assert_eq!(
            error.to_string(),
            "subscribe: the broker refused the filter \"b\": not authorized (0x87), \"why\""
        );
        assert_eq!(error.sent(), Sent::Yes);
        let effect = scene.effect();
        assert!(effect.contains("success (0x00)"), "{effect}");
        assert!(effect.contains("not authorized (0x87)"), "{effect}");
    });
    // 0x80 is not success.
    play_online(&v3(), |scene| {
        let token = scene.subscribe(&["a"], Qos::AtMostOnce, Wait::Ack);
        scene.receive(b"\x90\x03\0\x01\x80");
        assert_eq!(scene.fails(token).reason(), Some(Reason::UNSPECIFIED_ERROR));
    });
}

#[test]
fn v3_1_knows_no_0x80_in_suback() {
    play_online(&config(Version::V3_1), |scene| {
        scene.subscribe(&["a"], Qos::AtMostOnce, Wait::None);
        scene.refuses(b"\x90\x03\0\x01\x80");
    });
}

#[test]
fn sent_ends_when_all_subscribes_are_flushed() {
    play_online(&v5(), |scene| {
        scene.flushes = false;
        let token = scene.subscribe(&["a"; 9], Qos::AtMostOnce, Wait::Sent);
        scene.goes_on(token);
        scene.flushes = true;
        scene.turn();
        scene.is_sent(token);
        scene.receive(&suback(1, 8));
        scene.receive(&suback(2, 1));
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn sent_ends_with_the_answer_if_that_comes_before_the_flush_is_noticed() {
    play_online(&v5(), |scene| {
        scene.flushes = false;
        let one = scene.subscribe(&["a"], Qos::AtMostOnce, Wait::Sent);
        let two = scene.subscribe(&["a"; 9], Qos::AtMostOnce, Wait::Sent);
        scene.receive(&suback(1, 1));
        scene.is_sent(one);
        scene.receive(&suback(2, 8));
        scene.goes_on(two);
        scene.flushes = true;
        scene.turn();
        scene.is_sent(two);
    });
}

#[test]
fn sent_moves_to_the_new_request_when_the_link_was_lost_before_the_flush() {
    play_online(&v5(), |scene| {
        scene.flushes = false;
        let token = scene.subscribe(&["a"; 9], Qos::AtMostOnce, Wait::Sent);
        scene.cut();
        scene.goes_on(token);
        scene.open_with(PRESENT_5);
        scene.is_sent(token);
    });
}

#[test]
fn a_subscribe_without_filters_is_over_at_once() {
    play(&v5(), |scene| {
        let one = scene.subscribe(&[], Qos::AtMostOnce, Wait::Ack);
        granted(scene, one, &[]);
        let two = scene.unsubscribe(&[], Wait::Ack);
        assert!(scene.outcome(two).is_ok());
        assert!(scene.protocol.is_drained());
    });
}

// Batches.

#[test]
fn a_subscribe_has_at_most_8_filters() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    play_online(&v5(), |scene| {
        let token = scene.subscribe(&names, Qos::AtMostOnce, Wait::Ack);
        scene.sends(&[
            b"\x82\x23\0\x01\0\0\x01a\0\0\x01b\0\0\x01c\0\0\x01d\0",
            b"\0\x01e\0\0\x01f\0\0\x01g\0\0\x01h\0",
            b"\x82\x0B\0\x02\0\0\x01i\0\0\x01j\0",
        ]);
        scene.receive(&suback(1, 8));
        scene.goes_on(token);
        scene.receive(&suback(2, 2));
        let expected = names.map(|name| (name, Reason::SUCCESS));
        granted(scene, token, &expected);
    });
}

#[test]
fn few_requests_are_unanswered_at_a_time() {
    play_online(&v5(), |scene| {
        for _ in 0..20 {
            scene.subscribe(&["a"], Qos::AtMostOnce, Wait::None);
        }
        assert_eq!(scene.wire.len(), 8 * 9);
        for id in 1..=20 {
            scene.receive(&suback(id, 1));
        }
        assert_eq!(scene.wire.len(), 20 * 9);
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn requests_get_an_id_though_publications_hold_all_the_others() {
    let config = Config {
        window: u16::MAX,
        queue_bytes: usize::MAX,
        ..v3()
    };
    play_online(&config, |scene| {
        for _ in 0..65_535 {
            scene
                .protocol
                .publish(Message::new("t", ""), None)
                .expect("accepted");
        }
        scene.turn();
        assert_eq!(scene.wire.len() / 7, 65_535 - 16);
        scene.wire.clear();
        for _ in 0..8 {
            scene.subscribe(&["a"], Qos::AtMostOnce, Wait::None);
        }
        for _ in 0..8 {
            scene.unsubscribe(&["a"], Wait::None);
        }
        assert_eq!(scene.wire.len(), 8 * 8 + 8 * 7);
        // Each with its own.
        let (subscribes, unsubscribes) = scene.wire.split_at(64);
        let ids: std::collections::BTreeSet<_> = subscribes
            .chunks(8)
            .chain(unsubscribes.chunks(7))
            .map(|packet| [packet[2], packet[3]])
            .collect();
        assert_eq!(ids.len(), 16);
    });
}

#[test]
fn one_subscribe_has_one_subscription_identifier() {
    play_online(&v5(), |scene| {
        for identifier in [1, 200] {
            scene.protocol.subscribe(Subscription {
                owner: 7,
                filters: vec![wish(
                    "a",
                    options(Qos::AtMostOnce),
                    Identifier::Given(identifier),
                )],
                properties: Properties::new().user_property("k", "v"),
                wait: None,
            });
        }
        scene.turn();
        scene.sends(&[
            b"\x82\x10\0\x01\x09\x26\0\x01k\0\x01v\x0B\x01\0\x01a\0",
            b"\x82\x11\0\x02\x0A\x26\0\x01k\0\x01v\x0B\xC8\x01\0\x01a\0",
        ]);
    });
}

// Limits.

#[test]
fn what_the_broker_does_not_offer_fails_and_the_rest_is_asked_for() {
    play(&v5(), |scene| {
        // Wildcard and Shared Subscription Available 0
        scene.open_with(b"\x20\x07\0\0\x04\x28\0\x2A\0");
        let token = scene.subscribe(&["a", "b/+", "$share/g/c", "d"], Qos::AtMostOnce, Wait::Ack);
        scene.sends(&[b"\x82\x0B\0\x01\0\0\x01a\0\0\x01d\0"]);
        scene.receive(&suback(1, 2));
        assert_eq!(
            scene.fails(token).to_string(),
            "subscribe: the broker does not offer this: wildcard subscriptions not supported (0xA2)"
        );
        let effect = scene.effect();
        assert!(effect.contains("0x9E"), "{effect}");
        assert_eq!(effect.matches("success").count(), 2, "{effect}");
    });
}

#[test]
fn a_subscribe_of_which_nothing_is_offered_sends_nothing() {
    play(&v5(), |scene| {
        // Subscription Identifiers Available 0
        scene.open_with(b"\x20\x05\0\0\x02\x29\0");
        let token = scene.begin();
        scene.protocol.subscribe(Subscription {
            owner: 7,
            filters: vec![wish("a", options(Qos::AtMostOnce), Identifier::Given(1))],
            properties: Properties::new(),
            wait: Some((Wait::Ack, token)),
        });
        scene.turn();
        scene.sends_nothing();
        assert!(matches!(
            scene.fails(token).kind(),
            ErrorKind::NotOffered(Reason::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED)
        ));
        assert!(scene.protocol.is_drained());
        // No id was lost over it.
        scene.subscribe(&["a"], Qos::AtLeastOnce, Wait::None);
        scene.sends(&[SUBSCRIBE_A]);
    });
}

#[test]
fn a_subscribe_too_large_for_the_broker_goes_in_pieces() {
    // [MQTT-3.2.2-15]
    play(&v5(), |scene| {
        // Maximum Packet Size 16
        scene.open_with(b"\x20\x08\0\0\x05\x27\0\0\0\x10");
        let names = ["aa", "bb", "a filter that is too long", "dd", "ee"];
        let token = scene.subscribe(&names, Qos::AtMostOnce, Wait::Ack);
        let mut ids = Vec::new();
        let wire = std::mem::take(&mut scene.wire);
        let mut rest = wire.as_slice();
        let mut asked = Vec::new();
        while let [0x82, length, _, id, _, filters @ ..] = rest {
            let length = usize::from(*length) + 2;
            assert!(length <= 16);
            ids.push((*id, (length - 5) / 5));
            asked.extend_from_slice(&filters[..length - 5]);
            rest = &wire[wire.len() - rest.len() + length..];
        }
        assert_eq!(asked, b"\0\x02aa\0\0\x02bb\0\0\x02dd\0\0\x02ee\0");
        for (id, filters) in ids {
            let filters = u8::try_from(filters).expect("few");
            scene.receive(&suback(id, filters));
        }
        let error = scene.fails(token);
        assert!(matches!(
            error.kind(),
            ErrorKind::TooLarge { limit: 16, .. }
        ));
        assert_eq!(error.doing(), coracle::Doing::Subscribing);
        assert!(scene.protocol.is_drained());
    });
}

// Answers that are wrong.

#[test]
fn a_suback_of_the_wrong_length_is_a_violation_and_the_request_is_made_again() {
    // [MQTT-3.8.4-6]
    for answer in [
        b"\x90\x05\0\x01\0\0\0".as_slice(),
        b"\x90\x06\0\x01\0\0\0\0",
    ] {
        play_online(&v5(), |scene| {
            let token = scene.subscribe(&["a"], Qos::AtLeastOnce, Wait::Ack);
            scene.sends(&[SUBSCRIBE_A]);
            let error = scene.refuses(answer);
            assert_eq!(violation(&error).0, "MQTT-3.8.4-6");
            scene.goes_on(token);
            scene.reconnect_present();
            scene.sends(&[b"\x82\x07\0\x02\0\0\x01a\x01"]);
            scene.receive(b"\x90\x04\0\x02\0\x01");
            granted(scene, token, &[("a", Reason::GRANTED_QOS_1)]);
        });
    }
}

#[test]
fn a_suback_without_reasons_is_a_violation() {
    for (config, answer) in [
        (v5(), b"\x90\x03\0\x01\0".as_slice()),
        (v3(), b"\x90\x02\0\x01"),
    ] {
        play_online(&config, |scene| {
            scene.subscribe(&["a"], Qos::AtLeastOnce, Wait::None);
            scene.refuses(answer);
        });
    }
}

#[test]
fn a_second_suback_is_ignored() {
    play_online(&v5(), |scene| {
        let token = scene.subscribe(&["a"], Qos::AtLeastOnce, Wait::Ack);
        scene.receive(&suback(1, 1));
        scene.receive(&suback(1, 1));
        granted(scene, token, &[("a", Reason::SUCCESS)]);
    });
}

// Restoring.

#[test]
fn what_was_granted_is_restored_in_batches_of_8_with_the_same_options() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    play_online(&v5(), |scene| {
        scene.subscribe(&names, Qos::AtMostOnce, Wait::None);
        scene.receive(&suback(1, 8));
        // "j" is refused.
        scene.receive(b"\x90\x05\0\x02\0\0\x87");
        scene.effects.clear();
        scene.reconnect_lost();
        scene.sends(&[
            b"\x82\x23\0\x03\0\0\x01a\0\0\x01b\0\0\x01c\0\0\x01d\0",
            b"\0\x01e\0\0\x01f\0\0\x01g\0\0\x01h\0",
            b"\x82\x07\0\x04\0\0\x01i\0",
        ]);
        scene.receive(&suback(3, 8));
        scene.no_effect();
        scene.receive(&suback(4, 1));
        assert_eq!(scene.effect(), "Restored");
        scene.no_effect();
        // A present session has them already.
        scene.reconnect_present();
        scene.sends_nothing();
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn a_filter_subscribed_to_again_is_restored_with_its_last_options() {
    play_online(&v5(), |scene| {
        scene.subscribe(&["a"], Qos::AtMostOnce, Wait::None);
        scene.receive(&suback(1, 1));
        scene.subscribe(&["a"], Qos::ExactlyOnce, Wait::None);
        scene.receive(b"\x90\x04\0\x02\0\x02");
        scene.reconnect_lost();
        scene.sends(&[b"\x82\x07\0\x03\0\0\x01a\x02"]);
    });
}

#[test]
fn a_restoring_that_the_link_interrupts_goes_on_with_the_new_session() {
    // The broker lost the session, the link broke again before SUBACK, and now it has the session that
    // began without subscriptions.
    play_online(&v5(), |scene| {
        scene.subscribe(&["a"], Qos::AtLeastOnce, Wait::None);
        scene.receive(b"\x90\x04\0\x01\0\x01");
        scene.effects.clear();
        scene.cut();
        scene.connect();
        scene.takes = 0;
        scene.receive(CONNACK_5);
        scene.reconnect_present();
        scene.sends(&[b"\x82\x07\0\x03\0\0\x01a\x01"]);
        // Once more, and with the session lost it is asked for once, not twice.
        scene.reconnect_lost();
        scene.sends(&[b"\x82\x07\0\x04\0\0\x01a\x01"]);
        scene.receive(b"\x90\x04\0\x04\0\x01");
        assert_eq!(scene.effect(), "Restored");
        scene.no_effect();
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn a_restored_subscription_that_is_refused_is_an_event_and_is_not_asked_for_again() {
    play_online(&v5(), |scene| {
        scene.subscribe(&["a", "b"], Qos::AtMostOnce, Wait::None);
        scene.receive(&suback(1, 2));
        scene.effects.clear();
        scene.reconnect_lost();
        scene.sends(&[b"\x82\x0B\0\x02\0\0\x01a\0\0\x01b\0"]);
        scene.receive(b"\x90\x05\0\x02\0\0\x87");
        let effect = scene.effect();
        assert!(
            effect.starts_with("Unrestored(Grant { filter: \"b\""),
            "{effect}"
        );
        assert_eq!(scene.effect(), "Restored");
        scene.no_effect();
        scene.reconnect_lost();
        scene.sends(&[b"\x82\x07\0\x03\0\0\x01a\0"]);
    });
}

#[test]
fn a_restored_subscription_that_is_not_offered_any_more_is_an_event() {
    play_online(&v5(), |scene| {
        scene.subscribe(&["a/+"], Qos::AtMostOnce, Wait::None);
        scene.receive(&suback(1, 1));
        scene.cut();
        scene.connect();
        scene.effects.clear();
        scene.wire.clear();
        scene.receive(b"\x20\x05\0\0\x02\x28\0");
        scene.sends_nothing();
        assert_eq!(scene.effect(), "Connected(Lost)");
        let effect = scene.effect();
        assert!(effect.starts_with("Unrestored"), "{effect}");
    });
}

#[test]
fn a_restored_subscription_keeps_its_identifier_apart_from_others() {
    play_online(&v5(), |scene| {
        let given = Identifier::Given(1);
        for (filter, identifier) in [("a", given), ("b", Identifier::None), ("c", given)] {
            scene.protocol.subscribe(Subscription {
                owner: 7,
                filters: vec![wish(filter, options(Qos::AtMostOnce), identifier)],
                properties: Properties::new(),
                wait: None,
            });
        }
        scene.turn();
        for id in 1..=3 {
            scene.receive(&suback(id, 1));
        }
        scene.reconnect_lost();
        scene.sends(&[
            b"\x82\x0D\0\x04\x02\x0B\x01\0\x01a\0\0\x01c\0",
            b"\x82\x07\0\x05\0\0\x01b\0",
        ]);
    });
}

#[test]
fn a_subscribe_that_is_unanswered_is_asked_again_once_not_twice() {
    play_online(&v5(), |scene| {
        let token = scene.subscribe(&["a"], Qos::AtLeastOnce, Wait::Ack);
        scene.reconnect_lost();
        scene.sends(&[b"\x82\x07\0\x02\0\0\x01a\x01"]);
        scene.receive(b"\x90\x04\0\x02\0\x01");
        granted(scene, token, &[("a", Reason::GRANTED_QOS_1)]);
    });
}

// Order with UNSUBSCRIBE.

#[test]
fn subscribe_and_unsubscribe_of_one_filter_keep_their_order_across_a_link_loss() {
    for connack in [PRESENT_5, CONNACK_5] {
        play_online(&v5(), |scene| {
            let tokens = [
                scene.subscribe(&["a"], Qos::AtMostOnce, Wait::Ack),
                scene.unsubscribe(&["a"], Wait::Ack),
                scene.subscribe(&["a"], Qos::AtLeastOnce, Wait::Ack),
                scene.unsubscribe(&["a"], Wait::Ack),
                scene.subscribe(&["a"], Qos::ExactlyOnce, Wait::Ack),
            ];
            scene.sends(&[
                b"\x82\x07\0\x01\0\0\x01a\0",
                b"\xA2\x06\0\x02\0\0\x01a",
                b"\x82\x07\0\x03\0\0\x01a\x01",
                b"\xA2\x06\0\x04\0\0\x01a",
                b"\x82\x07\0\x05\0\0\x01a\x02",
            ]);
            scene.receive(b"\x90\x04\0\x01\0\0");
            scene.cut();
            scene.open_with(connack);
            scene.sends(&[
                b"\xA2\x06\0\x06\0\0\x01a",
                b"\x82\x07\0\x07\0\0\x01a\x01",
                b"\xA2\x06\0\x08\0\0\x01a",
                b"\x82\x07\0\x09\0\0\x01a\x02",
            ]);
            scene.receive(b"\xB0\x04\0\x06\0\0\x90\x04\0\x07\0\x01");
            scene.receive(b"\xB0\x04\0\x08\0\0\x90\x04\0\x09\0\x02");
            for token in tokens {
                assert!(scene.outcome(token).is_ok());
            }
            // The last word counts.
            scene.reconnect_lost();
            scene.sends(&[b"\x82\x07\0\x0A\0\0\x01a\x02"]);
        });
    }
}

#[test]
fn an_unsubscribe_waits_behind_subscribes_that_wait_for_their_turn() {
    play_online(&v5(), |scene| {
        for _ in 0..9 {
            scene.subscribe(&["a"], Qos::AtMostOnce, Wait::None);
        }
        scene.wire.clear();
        scene.unsubscribe(&["a"], Wait::None);
        scene.sends_nothing();
        scene.receive(&suback(1, 1));
        scene.sends(&[b"\x82\x07\0\x09\0\0\x01a\0", b"\xA2\x06\0\x0A\0\0\x01a"]);
    });
}

#[test]
fn a_suback_after_the_unsubscribe_does_not_bring_the_filter_back() {
    play_online(&v5(), |scene| {
        scene.subscribe(&["a"], Qos::AtMostOnce, Wait::None);
        scene.unsubscribe(&["a"], Wait::None);
        scene.receive(&suback(1, 1));
        scene.receive(b"\xB0\x04\0\x02\0\0");
        scene.reconnect_lost();
        scene.sends_nothing();
    });
}

#[test]
fn an_unsuback_after_the_next_suback_does_not_take_the_filter_away() {
    // The standard does not say that the two kinds of answers come in order.
    play_online(&v5(), |scene| {
        scene.unsubscribe(&["a"], Wait::None);
        scene.subscribe(&["a"], Qos::AtMostOnce, Wait::None);
        scene.receive(&suback(2, 1));
        scene.receive(b"\xB0\x04\0\x01\0\x11");
        scene.reconnect_lost();
        scene.sends(&[b"\x82\x07\0\x03\0\0\x01a\0"]);
    });
}

#[test]
fn a_filter_unsubscribed_from_while_offline_is_not_restored() {
    play_online(&v5(), |scene| {
        scene.subscribe(&["a", "b"], Qos::AtMostOnce, Wait::None);
        scene.receive(&suback(1, 2));
        scene.cut();
        let token = scene.unsubscribe(&["a"], Wait::Ack);
        scene.open();
        scene.sends(&[b"\x82\x07\0\x02\0\0\x01b\0", b"\xA2\x06\0\x03\0\0\x01a"]);
        scene.receive(b"\xB0\x04\0\x03\0\x11");
        assert!(scene.outcome(token).is_ok());
    });
}

#[test]
fn a_filter_unsubscribed_from_while_it_is_restored_does_not_come_back() {
    play_online(&v5(), |scene| {
        scene.subscribe(&["a"], Qos::AtMostOnce, Wait::None);
        scene.receive(&suback(1, 1));
        scene.effects.clear();
        scene.reconnect_lost();
        scene.unsubscribe(&["a"], Wait::None);
        // A refusal of it is no news either.
        scene.receive(b"\x90\x04\0\x02\0\x87");
        assert_eq!(scene.effect(), "Restored");
        scene.no_effect();
        scene.receive(b"\xB0\x04\0\x03\0\x11");
        scene.reconnect_lost();
        scene.sends_nothing();
    });
}

#[test]
fn a_subscribe_whose_answer_was_lost_does_not_undo_a_later_unsubscribe() {
    // Found by the simulation, seed 3765: the broker answered the UNSUBSCRIBE and not the SUBSCRIBE.
    play_online(&v5(), |scene| {
        let one = scene.subscribe(&["a", "b"], Qos::AtLeastOnce, Wait::Ack);
        scene.unsubscribe(&["a"], Wait::None);
        let two = scene.subscribe(&["c"], Qos::AtLeastOnce, Wait::Ack);
        scene.unsubscribe(&["c"], Wait::None);
        scene.receive(b"\xB0\x04\0\x02\0\0\xB0\x04\0\x04\0\0");
        scene.cut();
        assert!(scene.outcome(two).is_ok());
        scene.connect();
        scene.wire.clear();
        scene.receive(PRESENT_5);
        scene.sends(&[b"\x82\x07\0\x05\0\0\x01b\x01"]);
        scene.receive(b"\x90\x04\0\x05\0\x01");
        assert!(scene.outcome(one).is_ok());
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn a_subscribe_that_is_answered_after_a_later_unsubscribe_is_not_restored() {
    play_online(&v5(), |scene| {
        scene.subscribe(&["a"], Qos::AtLeastOnce, Wait::None);
        scene.unsubscribe(&["a"], Wait::None);
        scene.receive(b"\xB0\x04\0\x02\0\0\x90\x04\0\x01\0\x01");
        scene.cut();
        scene.connect();
        scene.wire.clear();
        scene.receive(b"\x20\x03\0\0\0");
        scene.sends_nothing();
    });
}

#[test]
fn a_subscribe_whose_answer_was_lost_does_not_lower_the_qos_of_a_later_one() {
    // Found by the simulation, seed 8571: the broker answered the second SUBSCRIBE and not the first.
    play_online(&v5(), |scene| {
        let one = scene.subscribe(&["a"], Qos::AtMostOnce, Wait::Ack);
        let two = scene.subscribe(&["a"], Qos::ExactlyOnce, Wait::Ack);
        scene.receive(b"\x90\x04\0\x02\0\x02");
        scene.cut();
        assert!(scene.outcome(one).is_ok() && scene.outcome(two).is_ok());
        scene.connect();
        scene.wire.clear();
        scene.receive(PRESENT_5);
        scene.sends_nothing();
        // Nor when the answers come in another order and the session is lost.
        scene.subscribe(&["b"], Qos::AtMostOnce, Wait::None);
        scene.subscribe(&["b"], Qos::ExactlyOnce, Wait::None);
        scene.wire.clear();
        scene.receive(b"\x90\x04\0\x04\0\x02\x90\x04\0\x03\0\0");
        scene.cut();
        scene.connect();
        scene.wire.clear();
        scene.receive(b"\x20\x03\0\0\0");
        scene.sends(&[b"\x82\x0B\0\x05\0\0\x01a\x02\0\x01b\x02"]);
    });
}

#[test]
fn a_restored_subscription_keeps_its_user_properties() {
    play_online(&v5(), |scene| {
        for (filter, name) in [
            ("a", Some("x")),
            ("b", None),
            ("c", Some("x")),
            ("d", Some("y")),
        ] {
            let properties = Properties::new();
            scene.protocol.subscribe(Subscription {
                owner: 7,
                filters: vec![wish(filter, options(Qos::AtMostOnce), Identifier::None)],
                properties: name
                    .map_or(Properties::new(), |name| properties.user_property(name, "")),
                wait: None,
            });
        }
        scene.turn();
        for id in 1..=4 {
            scene.receive(&suback(id, 1));
        }
        for first in [5, 8] {
            scene.reconnect_lost();
            scene.sends(&[
                &[0x82, 0x11, 0, first],
                b"\x06\x26\0\x01x\0\0\0\x01a\0\0\x01c\0",
                &[0x82, 0x07, 0, first + 1],
                b"\0\0\x01b\0",
                &[0x82, 0x0d, 0, first + 2],
                b"\x06\x26\0\x01y\0\0\0\x01d\0",
            ]);
            for id in first..first + 3 {
                scene.receive(&suback(id, if id == first { 2 } else { 1 }));
            }
        }
    });
}
