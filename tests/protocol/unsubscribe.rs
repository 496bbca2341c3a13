//! UNSUBSCRIBE and UNSUBACK: waits, batches, reasons.

use coracle::{ErrorKind, Qos, Reason, Sent, Wait};

use crate::*;

#[track_caller]
fn reasons(scene: &Scene, token: Token) -> &[Reason] {
    match scene.outcome(token) {
        Ok(Done::Unsubscribed(reasons, _)) => reasons,
        other => panic!("{other:?}"),
    }
}

#[test]
fn unsubscribe_ends_with_unsuback_and_its_reasons() {
    play_online(&v5(), |scene| {
        let token = scene.unsubscribe(&["a", "b"], Wait::Ack);
        scene.sends(&[b"\xA2\x09\0\x01\0\0\x01a\0\x01b"]);
        scene.receive(b"\xB0\x05\0\x01\0\0\x11");
        assert_eq!(
            reasons(scene, token),
            [Reason::SUCCESS, Reason::NO_SUBSCRIPTION_EXISTED]
        );
    });
    // Before 5.0 there are no reasons, and the answer is always yes.
    play_online(&v3(), |scene| {
        let token = scene.unsubscribe(&["a", "b"], Wait::Ack);
        scene.sends(&[b"\xA2\x08\0\x01\0\x01a\0\x01b"]);
        scene.receive(b"\xB0\x02\0\x01");
        assert_eq!(reasons(scene, token), [Reason::SUCCESS; 2]);
    });
}

// [MQTT-3.10.3-1]; MQTT 5, section 3.10.2.1: user properties, and nothing else.
#[test]
fn user_properties_go_with_each_packet_of_a_call() {
    let properties = Properties::new().user_property("k", "v");
    play_online(&v5(), |scene| {
        let (wait, token) = scene.begin_for(Wait::Ack);
        let filters: Vec<Rc<str>> = (0..9).map(|_| Rc::from("a")).collect();
        let protocol = &mut scene.protocol;
        protocol.unsubscribe(&filters, properties.clone(), wait);
        scene.turn();
        let mut first = b"\xA2\x22\0\x01\x07\x26\0\x01k\0\x01v".to_vec();
        first.extend(b"\0\x01a".repeat(8));
        scene.sends(&[&first, b"\xA2\x0D\0\x02\x07\x26\0\x01k\0\x01v\0\x01a"]);
        // Asked again on the next connection, they go with it again.
        scene.cut();
        scene.open_with(PRESENT_5);
        scene.sends(&[
            &[&b"\xA2\x22\0\x03"[..], &first[4..]].concat(),
            b"\xA2\x0D\0\x04\x07\x26\0\x01k\0\x01v\0\x01a",
        ]);
        scene.receive(b"\xB0\x0B\0\x03\0\0\0\0\0\0\0\0\0\xB0\x04\0\x04\0\x11");
        assert_eq!(reasons(scene, token).len(), 9);
    });
    play_online(&v3(), |scene| {
        let protocol = &mut scene.protocol;
        protocol.unsubscribe(&[Rc::from("a")], properties.clone(), None);
        scene.turn();
        scene.sends(&[b"\xA2\x05\0\x01\0\x01a"]);
    });
}

#[test]
fn a_refusal_is_an_error_that_names_the_filter() {
    play_online(&v5(), |scene| {
        let token = scene.unsubscribe(&["a", "b"], Wait::Ack);
        scene.receive(b"\xB0\x05\0\x01\0\0\x87");
        let error = scene.fails(token);
        assert_eq!(
            error.to_string(),
            "unsubscribe: the broker refused the filter \"b\": not authorized (0x87)"
        );
        assert_eq!(error.sent(), Sent::Yes);
    });
}

#[test]
fn sent_ends_when_all_unsubscribes_are_flushed() {
    play_online(&v5(), |scene| {
        scene.flushes = false;
        let token = scene.unsubscribe(&["a"; 9], Wait::Sent);
        scene.goes_on(token);
        scene.flushes = true;
        scene.turn();
        scene.is_sent(token);
    });
}

#[test]
fn an_unsubscribe_has_at_most_8_filters_and_all_reasons_are_told() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    play_online(&v5(), |scene| {
        let token = scene.unsubscribe(&names, Wait::Ack);
        scene.sends(&[
            b"\xA2\x1B\0\x01\0\0\x01a\0\x01b\0\x01c\0\x01d\0\x01e\0\x01f\0\x01g\0\x01h",
            b"\xA2\x09\0\x02\0\0\x01i\0\x01j",
        ]);
        // The answers may come in any order.
        scene.receive(b"\xB0\x05\0\x02\0\0\x11");
        scene.goes_on(token);
        scene.receive(b"\xB0\x0B\0\x01\0\x11\0\0\0\0\0\0\0");
        let mut expected = [Reason::SUCCESS; 10];
        expected[0] = Reason::NO_SUBSCRIPTION_EXISTED;
        expected[9] = Reason::NO_SUBSCRIPTION_EXISTED;
        assert_eq!(reasons(scene, token), expected);
    });
}

#[test]
fn a_refusal_in_any_batch_is_the_error_of_the_call() {
    play_online(&v5(), |scene| {
        let token = scene.unsubscribe(&["a"; 9], Wait::Ack);
        scene.receive(b"\xB0\x0B\0\x01\0\0\0\0\0\0\0\0\x87");
        scene.receive(b"\xB0\x04\0\x02\0\0");
        assert_eq!(scene.fails(token).reason(), Some(Reason::NOT_AUTHORIZED));
    });
}

#[test]
fn an_unsuback_of_the_wrong_length_is_a_violation_and_the_request_is_made_again() {
    // [MQTT-3.11.3-2]
    play_online(&v5(), |scene| {
        let token = scene.unsubscribe(&["a"], Wait::Ack);
        let error = scene.refuses(b"\xB0\x05\0\x01\0\0\0");
        assert_eq!(violation(&error).0, "MQTT-3.11.3-2");
        scene.goes_on(token);
        scene.reconnect_present();
        scene.sends(&[b"\xA2\x06\0\x02\0\0\x01a"]);
        scene.receive(b"\xB0\x04\0\x02\0\0");
        assert_eq!(reasons(scene, token), [Reason::SUCCESS]);
    });
}

#[test]
fn an_unsubscribe_too_large_for_the_broker_goes_in_pieces() {
    // [MQTT-3.2.2-15]
    play(&v5(), |scene| {
        // Maximum Packet Size 16
        scene.open_with(b"\x20\x08\0\0\x05\x27\0\0\0\x10");
        let names = ["aa", "bb", "a filter that is too long", "dd", "ee"];
        let token = scene.unsubscribe(&names, Wait::Ack);
        let wire = std::mem::take(&mut scene.wire);
        let mut rest = wire.as_slice();
        let mut asked = Vec::new();
        let mut answers = Vec::new();
        while let [0xA2, length, high, low, _, filters @ ..] = rest {
            let length = usize::from(*length) + 2;
            assert!(length <= 16);
            asked.extend_from_slice(&filters[..length - 5]);
            let count = u8::try_from((length - 5) / 4).expect("few");
            answers.extend_from_slice(&[0xB0, 3 + count, *high, *low, 0]);
            answers.resize(answers.len() + usize::from(count), 0);
            rest = &wire[wire.len() - rest.len() + length..];
        }
        assert_eq!(asked, b"\0\x02aa\0\x02bb\0\x02dd\0\x02ee");
        scene.receive(&answers);
        let error = scene.fails(token);
        assert!(matches!(
            error.kind(),
            ErrorKind::TooLarge { limit: 16, .. }
        ));
        assert_eq!(error.doing(), coracle::Doing::Unsubscribing);
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn few_requests_are_unanswered_at_a_time() {
    play_online(&v5(), |scene| {
        for _ in 0..20 {
            scene.unsubscribe(&["a"], Wait::None);
        }
        assert_eq!(scene.wire.len(), 8 * 8);
        for id in 1..=20 {
            scene.receive(&[0xB0, 4, 0, id, 0, 0]);
        }
        assert_eq!(scene.wire.len(), 20 * 8);
        assert!(scene.protocol.is_drained());
    });
}

#[test]
fn an_unsubscribe_waits_behind_no_message() {
    // [MQTT-3.3.4-8]
    play_unstored(&v5(), |scene| {
        scene.open_with(b"\x20\x06\0\0\x03\x21\0\x01");
        scene.publish(Qos::AtLeastOnce, b"a", Wait::None);
        scene.publish(Qos::AtLeastOnce, b"b", Wait::None);
        scene.wire.clear();
        scene.unsubscribe(&["a"], Wait::None);
        scene.sends(&[b"\xA2\x06\0\x02\0\0\x01a"]);
    });
}

#[test]
fn an_unsubscribe_whose_answer_was_lost_does_not_undo_a_later_subscribe() {
    // Found by the simulation, seed 659: the broker answered the second SUBSCRIBE and not the UNSUBSCRIBE.
    for (connack, again) in [
        (PRESENT_5, b"".as_slice()),
        (b"\x20\x03\0\0\0", b"\x82\x07\0\x04\0\0\x01a\x01"),
    ] {
        play_online(&v5(), |scene| {
            scene.subscribe(&["a"], Qos::AtLeastOnce, Wait::None);
            scene.receive(b"\x90\x04\0\x01\0\x01");
            let token = scene.unsubscribe(&["b", "a"], Wait::Ack);
            scene.subscribe(&["a"], Qos::AtLeastOnce, Wait::None);
            scene.receive(b"\x90\x04\0\x03\0\x01");
            scene.cut();
            scene.connect();
            scene.wire.clear();
            scene.receive(connack);
            let id = if again.is_empty() { 4 } else { 5 };
            scene.sends(&[again, &[0xA2, 6, 0, id, 0, 0, 1, b'b']]);
            scene.receive(&[0xB0, 4, 0, id, 0, 0x11]);
            assert_eq!(
                reasons(scene, token),
                [Reason::NO_SUBSCRIPTION_EXISTED, Reason::SUCCESS]
            );
        });
    }
}
