//! What each call waits for, in which order calls take effect, and how a wait ends.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use coracle::testkit::{Attempt, BrokerOptions, Cut, Kind, Rule, Then, When, World};
use coracle::{
    Doing, ErrorKind, Event, Message, Options, Qos, Reason, Sent, TopicError, Unpublished, Wait,
};

use crate::{CONNACK, CONNACK_PRESENT, SECOND, Setup, failure, now, options, poll};

const AT_MOST_ONCE: Qos = Qos::AtMostOnce;
const AT_LEAST_ONCE: Qos = Qos::AtLeastOnce;
const EXACTLY_ONCE: Qos = Qos::ExactlyOnce;

/// PUBLISH "x" to "t" at each QoS, identifier 1, MQTT 5.
const PUBLISH_0: &[u8] = b"\x30\x05\x00\x01t\x00x";
const PUBLISH_1: &[u8] = b"\x32\x07\x00\x01t\x00\x01\x00x";
const PUBLISH_2: &[u8] = b"\x34\x07\x00\x01t\x00\x01\x00x";
const PUBACK: &[u8] = b"\x40\x02\x00\x01";
const PUBREC: &[u8] = b"\x50\x02\x00\x01";
const PUBREL: &[u8] = b"\x62\x02\x00\x01";
const PUBCOMP: &[u8] = b"\x70\x02\x00\x01";
/// SUBSCRIBE to "t" at QoS 1, and UNSUBSCRIBE, with the first identifier.
const SUBSCRIBE: &[u8] = b"\x82\x0b\x00\x01\x04\x0b\x80\x80\x01\x00\x01t\x01";
const SUBACK: &[u8] = b"\x90\x04\x00\x01\x00\x01";
const UNSUBSCRIBE: &[u8] = b"\xa2\x06\x00\x01\x00\x00\x01t";

/// Room for two messages of one-letter topic and payload (66 bytes each): the second may begin below
/// the bound.
const TWO_MESSAGES: usize = 100;

/// Options of a client whose queues hold two messages.
fn narrow(world: &World) -> Options {
    options(world).queue_bytes(TWO_MESSAGES)
}

fn payloads(setup: &Setup) -> Vec<String> {
    setup.world.run_until_idle();
    setup.world.broker(|broker, _| {
        let messages = broker.messages().iter();
        messages
            .map(|message| String::from_utf8_lossy(message.payload()).into_owned())
            .collect()
    })
}

// The table.

#[test]
fn qos_0_with_none_is_accepted_by_the_call_alone() {
    let (setup, mut peer) = Setup::connected();
    // The future is dropped without being polled.
    drop(setup.client.publish("t", "x", AT_MOST_ONCE, Wait::None));
    peer.expect(PUBLISH_0);
    assert!(now(setup.client.publish("t", "x", AT_MOST_ONCE, Wait::None)).is_ok());
}

#[test]
fn qos_0_with_sent_or_ack_ends_when_every_byte_was_flushed() {
    for wait in [Wait::Sent, Wait::Ack] {
        let (setup, mut peer) = Setup::connected();
        setup.world.network().hold_flush();
        let mut publishing = setup.client.publish("t", "x", AT_MOST_ONCE, wait);
        peer.expect(PUBLISH_0);
        assert!(poll(&mut publishing).is_none(), "{wait:?}");
        setup.world.network().release_flush();
        setup.world.run_until_idle();
        let published = now(publishing).expect("the bytes are flushed");
        assert_eq!(published.reason(), Reason::SUCCESS);
    }
}

#[test]
fn a_half_written_message_is_not_sent() {
    let (setup, mut peer) = Setup::connected();
    setup.world.network().stall();
    setup.world.network().send_buffer(3);
    let mut publishing = setup.client.publish("t", "x", AT_MOST_ONCE, Wait::Sent);
    setup.world.run_until_idle();
    assert!(poll(&mut publishing).is_none());
    setup.world.network().send_buffer(PUBLISH_0.len());
    setup.world.run_until_idle();
    assert!(now(publishing).is_ok());
    setup.world.network().unstall();
    peer.expect(PUBLISH_0);
}

#[test]
fn qos_1_with_none_is_accepted_by_the_call_alone() {
    let (setup, mut peer) = Setup::connected();
    drop(setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::None));
    peer.expect(PUBLISH_1);
    assert_eq!(setup.client.statistics().unfinished, 1);
    peer.send(PUBACK);
    assert_eq!(setup.client.statistics().unfinished, 0);
}

#[test]
fn qos_1_and_2_with_sent_end_at_the_first_flush() {
    for (qos, bytes) in [(AT_LEAST_ONCE, PUBLISH_1), (EXACTLY_ONCE, PUBLISH_2)] {
        let (setup, mut peer) = Setup::connected();
        setup.world.network().hold_flush();
        let mut publishing = setup.client.publish("t", "x", qos, Wait::Sent);
        peer.expect(bytes);
        assert!(poll(&mut publishing).is_none(), "{qos}");
        setup.world.network().release_flush();
        setup.world.run_until_idle();
        assert!(now(publishing).is_ok(), "{qos}");
        assert_eq!(setup.client.statistics().unfinished, 1, "{qos}");
    }
}

#[test]
fn qos_1_with_ack_ends_with_the_reason_of_puback() {
    let (setup, mut peer) = Setup::connected();
    let mut publishing = setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::Ack);
    peer.expect(PUBLISH_1);
    assert!(poll(&mut publishing).is_none());
    // 0x10: nobody subscribes to the topic. That is success (MQTT 5, section 3.4.2.1).
    peer.send(b"\x40\x03\x00\x01\x10");
    let published = now(publishing).expect("0x10 is success");
    assert_eq!(published.reason(), Reason::NO_MATCHING_SUBSCRIBERS);
}

#[test]
fn qos_2_with_none_is_accepted_by_the_call_alone() {
    let (setup, mut peer) = Setup::connected();
    drop(setup.client.publish("t", "x", EXACTLY_ONCE, Wait::None));
    peer.expect(PUBLISH_2);
    peer.send(PUBREC);
    peer.expect(PUBREL);
    peer.send(PUBCOMP);
    assert_eq!(setup.client.statistics().unfinished, 0);
}

#[test]
fn qos_2_with_ack_ends_with_pubcomp_not_with_pubrec() {
    let (setup, mut peer) = Setup::connected();
    let mut publishing = setup.client.publish("t", "x", EXACTLY_ONCE, Wait::Ack);
    peer.expect(PUBLISH_2);
    peer.send(PUBREC);
    peer.expect(PUBREL);
    assert!(poll(&mut publishing).is_none());
    peer.send(PUBCOMP);
    assert!(now(publishing).is_ok());
}

#[test]
fn a_refused_message_is_an_error_with_the_reason_that_was_sent() {
    for (qos, answer) in [
        (AT_LEAST_ONCE, b"\x40\x03\x00\x01\x97"),
        (EXACTLY_ONCE, b"\x50\x03\x00\x01\x97"),
    ] {
        let (setup, mut peer) = Setup::connected();
        let publishing = setup.client.publish("t", "x", qos, Wait::Ack);
        peer.received();
        peer.send(answer);
        let error = failure(now(publishing));
        assert_eq!(error.reason(), Some(Reason::QUOTA_EXCEEDED), "{qos}");
        assert_eq!(error.sent(), Sent::Yes, "{qos}");
        assert_eq!(error.doing(), Doing::Publishing, "{qos}");
        // No PUBREL follows a PUBREC with an error [MQTT-4.3.3-4].
        peer.expect_nothing();
    }
}

#[test]
fn subscribe_with_none_gives_the_stream_at_once() {
    let (setup, mut peer) = Setup::connected();
    let mut stream = now(setup.client.subscribe("t", AT_LEAST_ONCE, Wait::None))
        .expect("the stream comes at once");
    peer.expect(SUBSCRIBE);
    peer.send(SUBACK);
    peer.send(PUBLISH_0);
    assert_eq!(stream.try_next().expect("it arrived").payload(), b"x");
}

#[test]
fn subscribe_with_sent_gives_the_stream_at_the_flush() {
    let (setup, mut peer) = Setup::connected();
    setup.world.network().hold_flush();
    let mut subscribing = setup.client.subscribe("t", AT_LEAST_ONCE, Wait::Sent);
    peer.expect(SUBSCRIBE);
    assert!(poll(&mut subscribing).is_none());
    setup.world.network().release_flush();
    setup.world.run_until_idle();
    let stream = now(subscribing).expect("SUBSCRIBE is flushed");
    assert_eq!(stream.granted().count(), 0, "nobody has granted anything");
}

#[test]
fn subscribe_with_ack_tells_the_granted_qos_per_filter() {
    let (setup, mut peer) = Setup::connected();
    let filters = coracle::Filters::new("t", EXACTLY_ONCE).and("u", AT_LEAST_ONCE);
    let mut subscribing = setup.client.subscribe_many(filters, Wait::Ack);
    peer.expect(b"\x82\x0f\x00\x01\x04\x0b\x80\x80\x01\x00\x01t\x02\x00\x01u\x01");
    assert!(poll(&mut subscribing).is_none());
    peer.send(b"\x90\x05\x00\x01\x00\x01\x00");
    let stream = now(subscribing).expect("both are granted");
    let granted: Vec<_> = stream.granted().collect();
    assert_eq!(
        granted,
        [("t", Reason::GRANTED_QOS_1), ("u", Reason::SUCCESS)]
    );
}

#[test]
fn unsubscribe_waits_for_nothing_for_the_flush_or_for_unsuback() {
    for wait in [Wait::None, Wait::Sent, Wait::Ack] {
        let (setup, mut peer) = Setup::connected();
        setup.world.network().hold_flush();
        let mut unsubscribing = setup.client.unsubscribe("t", wait);
        let at_once = poll(&mut unsubscribing);
        peer.expect(UNSUBSCRIBE);
        if let Some(reasons) = at_once {
            assert_eq!(wait, Wait::None);
            assert_eq!(reasons.expect("accepted").reason(), Reason::SUCCESS);
            continue;
        }
        assert!(poll(&mut unsubscribing).is_none(), "{wait:?}");
        setup.world.network().release_flush();
        setup.world.run_until_idle();
        if let Some(reasons) = poll(&mut unsubscribing) {
            assert_eq!(wait, Wait::Sent);
            assert_eq!(reasons.expect("flushed").reason(), Reason::SUCCESS);
            continue;
        }
        assert_eq!(wait, Wait::Ack);
        peer.send(b"\xb0\x04\x00\x01\x00\x11");
        let reasons = now(unsubscribing).expect("0x11 is success");
        assert_eq!(reasons.reason(), Reason::NO_SUBSCRIPTION_EXISTED);
    }
}

#[test]
fn an_acknowledgement_that_overtakes_the_flush_ends_the_wait_too() {
    let (setup, mut peer) = Setup::connected();
    setup.world.network().hold_flush();
    let sent = setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::Sent);
    peer.expect(PUBLISH_1);
    peer.send(PUBACK);
    assert!(now(sent).is_ok());
    let unsubscribing = setup.client.unsubscribe("t", Wait::Sent);
    peer.expect(b"\xa2\x06\x00\x02\x00\x00\x01t");
    peer.send(b"\xb0\x04\x00\x02\x00\x00");
    assert!(now(unsubscribing).is_ok());
}

#[test]
fn a_ping_ends_with_pingresp() {
    let (setup, mut peer) = Setup::connected();
    let mut ping = setup.client.ping();
    peer.expect(b"\xc0\x00");
    assert!(poll(&mut ping).is_none());
    peer.send(b"\xd0\x00");
    assert!(now(ping).is_ok());
}

// Order.

#[test]
fn each_class_keeps_the_order_of_its_calls() {
    // A window of two and a bound of two messages: most are parked, many are pending.
    let world = World::new(BrokerOptions::new());
    let options = narrow(&world).window(2);
    let setup = Setup::start(world, options);
    let mut waits = Vec::new();
    for number in 0..60 {
        let qos = [AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE][number % 3];
        let wait = [Wait::Sent, Wait::Ack][number % 2];
        let payload = format!("{number}");
        waits.push(setup.client.publish("t", payload, qos, wait));
    }
    for wait in waits {
        assert!(setup.wait(wait).is_ok());
    }
    let arrived: Vec<usize> = payloads(&setup)
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let class = |qos_0: bool| {
        let of_class = arrived
            .iter()
            .copied()
            .filter(|number| (number % 3 == 1) == qos_0);
        of_class.collect::<Vec<_>>()
    };
    let expected = |qos_0: bool| {
        let of_class = (0..60).filter(|number| (number % 3 == 1) == qos_0);
        of_class.collect::<Vec<_>>()
    };
    assert_eq!(class(true), expected(true));
    assert_eq!(class(false), expected(false));
}

#[test]
fn subscribe_unsubscribe_and_ping_wait_behind_no_message() {
    let world = World::with_peers();
    let options = options(&world).window(1);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    for _ in 0..100 {
        drop(setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::None));
    }
    peer.expect(PUBLISH_1);
    let _stream = now(setup.client.subscribe("t", AT_LEAST_ONCE, Wait::None));
    peer.expect(b"\x82\x0b\x00\x02\x04\x0b\x80\x80\x01\x00\x01t\x01");
    drop(setup.client.unsubscribe("u", Wait::None));
    peer.expect(b"\xa2\x06\x00\x03\x00\x00\x01u");
    drop(setup.client.ping());
    peer.expect(b"\xc0\x00");
}

// Room.

#[test]
fn none_fails_at_once_when_the_queue_is_full() {
    let world = World::with_peers();
    let options = narrow(&world);
    let setup = Setup::start(world, options);
    for qos in [AT_MOST_ONCE, AT_LEAST_ONCE] {
        for _ in 0..2 {
            assert!(now(setup.client.publish("t", "x", qos, Wait::None)).is_ok());
        }
        let error = failure(now(setup.client.publish("t", "x", qos, Wait::None)));
        assert!(
            matches!(error.kind(), ErrorKind::QueueFull),
            "{qos}: {error}"
        );
        assert_eq!(error.sent(), Sent::No, "{qos}");
    }
    assert_eq!(setup.client.statistics().published, 4);
}

#[test]
fn none_fails_also_while_there_is_room_but_someone_is_in_line() {
    let world = World::with_peers();
    let options = narrow(&world);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    // The handler runs after a PUBACK made room and before the driver has moved the line.
    let outcomes = Rc::new(RefCell::new(Vec::new()));
    let handler = {
        let (client, outcomes) = (setup.client.clone(), Rc::clone(&outcomes));
        move |_: &coracle::Incoming<'_>| {
            let outcome = now(client.publish("t", "4", AT_LEAST_ONCE, Wait::None));
            outcomes.borrow_mut().push(outcome);
        }
    };
    let subscribing = setup
        .client
        .subscribe_inline(("h", AT_MOST_ONCE), handler, Wait::None);
    let _subscription = now(subscribing).expect("accepted");
    for payload in ["1", "2"] {
        drop(
            setup
                .client
                .publish("t", payload, AT_LEAST_ONCE, Wait::None),
        );
    }
    let mut parked = setup.client.publish("t", "3", AT_LEAST_ONCE, Wait::Ack);
    peer.received();
    peer.send(b"\x40\x02\x00\x02\x40\x02\x00\x03\x30\x05\x00\x01h\x00x");
    let outcome = outcomes.borrow_mut().pop().expect("the handler was called");
    assert!(matches!(failure(outcome).kind(), ErrorKind::QueueFull));
    peer.expect(b"\x32\x07\x00\x01t\x00\x04\x003");
    assert!(poll(&mut parked).is_none());
    peer.send(b"\x40\x02\x00\x04");
    assert!(now(parked).is_ok());
}

#[test]
fn publish_message_gives_the_message_back_when_it_is_not_accepted() {
    let world = World::with_peers();
    let options = narrow(&world);
    let setup = Setup::start(world, options);
    let message = || Message::new("t", "x").retain(true);
    for _ in 0..2 {
        assert!(now(setup.client.publish_message(message(), Wait::None)).is_ok());
    }
    let Err(Unpublished { error, message, .. }) =
        now(setup.client.publish_message(message(), Wait::None))
    else {
        panic!("the queue is full");
    };
    assert!(matches!(error.kind(), ErrorKind::QueueFull));
    let message = message.expect("it comes back");
    assert_eq!((message.topic(), message.payload()), ("t", &b"x"[..]));
    assert!(message.is_retained());
    // A mistake gives it back too; one that was accepted is gone.
    let bad = now(setup
        .client
        .publish_message(Message::new("+", "x"), Wait::Ack));
    assert!(bad.is_err_and(|unpublished| unpublished.message.is_some()));
    let accepted = setup
        .client
        .publish_message(Message::new("t", "x").qos(AT_MOST_ONCE), Wait::Ack)
        .timeout(SECOND);
    let late = setup.wait(accepted);
    assert!(late.is_err_and(|unpublished| unpublished.message.is_none()));
}

#[test]
fn parked_calls_move_up_in_call_order_without_being_polled() {
    let world = World::new(BrokerOptions::new());
    let options = narrow(&world).window(1);
    world
        .network()
        .all_attempts(Attempt::Refuse(std::io::ErrorKind::ConnectionRefused));
    let setup = Setup::start(world, options);
    let waits: Vec<_> = ["1", "2", "3", "4", "5", "6"]
        .into_iter()
        .map(|payload| setup.client.publish("t", payload, AT_LEAST_ONCE, Wait::Ack))
        .collect();
    setup.world.run_until_idle();
    assert_eq!(
        setup.client.statistics().unfinished,
        2,
        "the others are parked"
    );
    setup.world.network().all_attempts(Attempt::Accept);
    setup.world.advance(10 * SECOND);
    assert_eq!(payloads(&setup), ["1", "2", "3", "4", "5", "6"]);
    for wait in waits {
        assert!(now(wait).is_ok());
    }
}

#[test]
fn a_parked_qos_0_message_moves_up_too() {
    let world = World::new(BrokerOptions::new());
    let options = narrow(&world);
    world.network().all_attempts(Attempt::Hang);
    let setup = Setup::start(world, options.connect_timeout(SECOND));
    let waits: Vec<_> = ["1", "2", "3", "4"]
        .into_iter()
        .map(|payload| setup.client.publish("t", payload, AT_MOST_ONCE, Wait::Sent))
        .collect();
    setup.world.run_until_idle();
    assert_eq!(setup.client.statistics().pending, 2);
    setup.world.network().all_attempts(Attempt::Accept);
    setup.world.advance(10 * SECOND);
    assert_eq!(payloads(&setup), ["1", "2", "3", "4"]);
    for wait in waits {
        assert!(now(wait).is_ok());
    }
}

#[test]
fn dropping_a_parked_call_withdraws_it() {
    for qos in [AT_MOST_ONCE, AT_LEAST_ONCE] {
        let world = World::new(BrokerOptions::new());
        world.network().all_attempts(Attempt::Hang);
        let options = narrow(&world).connect_timeout(SECOND);
        let setup = Setup::start(world, options);
        for payload in ["1", "2"] {
            drop(setup.client.publish("t", payload, qos, Wait::None));
        }
        let third = setup.client.publish("t", "3", qos, Wait::Sent);
        let fourth = setup.client.publish("t", "4", qos, Wait::Ack);
        let fifth = setup.client.publish("t", "5", qos, Wait::Ack);
        drop(fourth);
        setup.world.network().all_attempts(Attempt::Accept);
        setup.world.advance(10 * SECOND);
        assert_eq!(payloads(&setup), ["1", "2", "3", "5"], "{qos}");
        assert!(now(third).is_ok() && now(fifth).is_ok());
    }
}

#[test]
fn timing_out_while_parked_withdraws_it_and_nothing_was_sent() {
    for qos in [AT_MOST_ONCE, AT_LEAST_ONCE] {
        let world = World::new(BrokerOptions::new());
        world.network().all_attempts(Attempt::Hang);
        let options = narrow(&world).connect_timeout(10 * SECOND);
        let setup = Setup::start(world, options);
        for payload in ["1", "2"] {
            drop(setup.client.publish("t", payload, qos, Wait::None));
        }
        let parked = setup
            .client
            .publish("t", "3", qos, Wait::Ack)
            .timeout(SECOND);
        let error = failure(setup.wait(parked));
        assert!(
            matches!(error.kind(), ErrorKind::TimedOut(after) if *after == SECOND),
            "{error}"
        );
        assert_eq!(error.sent(), Sent::No, "{qos}");
        setup.world.network().all_attempts(Attempt::Accept);
        setup.world.advance(30 * SECOND);
        assert_eq!(payloads(&setup), ["1", "2"], "{qos}");
    }
}

#[test]
fn ready_ends_when_there_is_room_for_both_classes_and_at_once_if_there_is() {
    let world = World::with_peers();
    let options = narrow(&world);
    let setup = Setup::start(world, options);
    assert!(now(setup.client.ready()).is_ok());
    let mut peer = setup.greet(CONNACK);
    for _ in 0..2 {
        drop(setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::None));
    }
    let mut ready = setup.client.ready();
    peer.received();
    assert!(poll(&mut ready).is_none());
    peer.send(PUBACK);
    assert!(now(ready).is_ok());
    assert!(now(setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::None)).is_ok());
}

// Time.

#[test]
fn a_wait_lasts_as_long_as_the_options_say() {
    let world = World::with_peers();
    let setup = Setup::start(world.clone(), options(&world));
    let start = world.now();
    let error = failure(setup.wait(setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::Ack)));
    assert!(matches!(error.kind(), ErrorKind::TimedOut(_)));
    assert_eq!(world.now() - start, Duration::from_secs(30), "the default");

    let world = World::with_peers();
    let setup = Setup::start(world.clone(), options(&world).wait_timeout(7 * SECOND));
    let start = world.now();
    failure(setup.wait(setup.client.subscribe("t", AT_LEAST_ONCE, Wait::Ack)));
    assert_eq!(world.now() - start, 7 * SECOND);
}

#[test]
fn a_call_may_set_its_own_timeout_shorter_or_longer() {
    let (setup, _peer) = Setup::connected();
    for seconds in [1, 45] {
        let start = setup.world.now();
        let publishing = setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::Ack);
        let error = failure(setup.wait(publishing.timeout(seconds * SECOND)));
        assert_eq!(
            error.sent(),
            Sent::Maybe,
            "it was accepted, so it may arrive"
        );
        assert_eq!(setup.world.now() - start, seconds * SECOND);
        let start = setup.world.now();
        let unsubscribing = setup.client.unsubscribe("t", Wait::Ack);
        failure(setup.wait(unsubscribing.timeout(seconds * SECOND)));
        assert_eq!(setup.world.now() - start, seconds * SECOND);
        let start = setup.world.now();
        let subscribing = setup.client.subscribe("t", AT_LEAST_ONCE, Wait::Ack);
        failure(setup.wait(subscribing.timeout(seconds * SECOND)));
        assert_eq!(setup.world.now() - start, seconds * SECOND);
    }
}

#[test]
fn a_wait_begun_by_a_handler_times_out_like_any_other() {
    let (setup, mut peer) = Setup::connected();
    let begun = Rc::new(RefCell::new(Vec::new()));
    let handler = {
        let (client, begun) = (setup.client.clone(), Rc::clone(&begun));
        move |_: &coracle::Incoming<'_>| {
            let publishing = client.publish("t", "x", AT_LEAST_ONCE, Wait::Ack);
            begun.borrow_mut().push(publishing.timeout(SECOND));
        }
    };
    let subscribing = setup
        .client
        .subscribe_inline(("h", AT_MOST_ONCE), handler, Wait::None);
    let _subscription = now(subscribing).expect("accepted");
    peer.send(b"\x30\x05\x00\x01h\x00x");
    let publishing = begun.borrow_mut().pop().expect("the handler was called");
    let start = setup.world.now();
    failure(setup.wait(publishing));
    assert_eq!(setup.world.now() - start, SECOND);
}

#[test]
fn ready_fails_when_the_client_closes() {
    let world = World::with_peers();
    let setup = Setup::start(world.clone(), options(&world).queue_bytes(1));
    let mut peer = setup.greet(CONNACK);
    let publish = || now(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    publish().expect("there is room for one");
    peer.received();
    let mut ready = setup.client.ready();
    assert!(poll(&mut ready).is_none());
    drop(setup.driver);
    setup.world.run_until_idle();
    let error = failure(now(ready));
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
}

#[test]
fn ready_and_connected_wait_for_ever_unless_told_otherwise() {
    let world = World::with_peers();
    world.network().all_attempts(Attempt::Hang);
    let options = narrow(&world);
    let setup = Setup::start(world, options);
    drop(
        setup
            .client
            .publish("t", vec![0; TWO_MESSAGES], AT_LEAST_ONCE, Wait::None),
    );
    let (mut ready, mut connected) = (setup.client.ready(), setup.client.connected());
    setup.world.advance(Duration::from_secs(3600));
    assert!(poll(&mut ready).is_none() && poll(&mut connected).is_none());
    let error = failure(setup.wait(setup.client.connected().timeout(SECOND)));
    assert!(matches!(error.kind(), ErrorKind::TimedOut(_)));
    failure(setup.wait(setup.client.ready().timeout(SECOND)));
}

#[test]
fn a_timeout_does_not_cancel_an_accepted_message() {
    let world = World::new(BrokerOptions::new());
    world
        .network()
        .all_attempts(Attempt::Refuse(std::io::ErrorKind::HostUnreachable));
    let options = options(&world);
    let setup = Setup::start(world, options);
    for (qos, payload) in [
        (AT_MOST_ONCE, "0"),
        (AT_LEAST_ONCE, "1"),
        (EXACTLY_ONCE, "2"),
    ] {
        let publishing = setup
            .client
            .publish("t", payload, qos, Wait::Ack)
            .timeout(SECOND);
        failure(setup.wait(publishing));
    }
    setup.world.network().all_attempts(Attempt::Accept);
    setup
        .wait(setup.client.connected())
        .expect("the network is back");
    let mut arrived = payloads(&setup);
    arrived.sort();
    assert_eq!(arrived, ["0", "1", "2"]);
}

// Links.

#[test]
fn a_qos_0_wait_ends_with_the_link() {
    for (taken, sent) in [(0, Sent::No), (3, Sent::Maybe)] {
        let (setup, _peer) = Setup::connected();
        setup.world.network().stall();
        setup.world.network().send_buffer(taken);
        let publishing = setup.client.publish("t", "x", AT_MOST_ONCE, Wait::Sent);
        setup.world.run_until_idle();
        setup.world.network().cut(Cut::Reset);
        setup.world.run_until_idle();
        let error = failure(now(publishing));
        assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
        assert_eq!(error.sent(), sent);
    }
}

#[test]
fn a_written_but_not_flushed_qos_0_message_may_have_arrived() {
    let (setup, mut peer) = Setup::connected();
    setup.world.network().hold_flush();
    let publishing = setup.client.publish("t", "x", AT_MOST_ONCE, Wait::Sent);
    peer.expect(PUBLISH_0);
    setup.world.network().cut(Cut::Reset);
    setup.world.run_until_idle();
    assert_eq!(failure(now(publishing)).sent(), Sent::Maybe);
}

#[test]
fn qos_0_offline_waits_for_the_link_or_fails_by_option() {
    let world = World::with_peers();
    let setup = Setup::start(world.clone(), options(&world));
    let mut kept = setup.client.publish("t", "x", AT_MOST_ONCE, Wait::Sent);
    assert!(poll(&mut kept).is_none());
    let mut peer = setup.greet(CONNACK);
    peer.expect(PUBLISH_0);
    assert!(now(kept).is_ok());

    let world = World::with_peers();
    let setup = Setup::start(world.clone(), options(&world).keep_qos0_offline(false));
    for wait in [Wait::None, Wait::Sent, Wait::Ack] {
        let error = failure(now(setup.client.publish("t", "x", AT_MOST_ONCE, wait)));
        assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
        assert_eq!(error.sent(), Sent::No);
    }
}

#[test]
fn qos_1_and_2_waits_go_on_across_a_reconnect() {
    for (qos, again) in [
        (AT_LEAST_ONCE, &b"\x3a\x07\x00\x01t\x00\x01\x00x"[..]),
        (EXACTLY_ONCE, &b"\x3c\x07\x00\x01t\x00\x01\x00x"[..]),
    ] {
        let (setup, mut peer) = Setup::connected();
        let mut publishing = setup.client.publish("t", "x", qos, Wait::Ack);
        peer.received();
        peer.reset();
        assert!(poll(&mut publishing).is_none());
        let mut peer = setup.greet_later(CONNACK_PRESENT);
        // The same identifier and DUP 1 [MQTT-4.4.0-1, MQTT-3.3.1-1].
        peer.expect(again);
        assert!(poll(&mut publishing).is_none());
        match qos {
            Qos::ExactlyOnce => {
                peer.send(PUBREC);
                peer.expect(PUBREL);
                peer.send(PUBCOMP);
            }
            Qos::AtMostOnce | Qos::AtLeastOnce => peer.send(PUBACK),
        }
        assert!(now(publishing).is_ok());
    }
}

#[test]
fn a_wait_goes_on_when_the_link_is_lost_between_pubrec_and_pubcomp() {
    let (setup, mut peer) = Setup::connected();
    let mut publishing = setup.client.publish("t", "x", EXACTLY_ONCE, Wait::Ack);
    peer.received();
    peer.send(PUBREC);
    peer.expect(PUBREL);
    peer.reset();
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    peer.expect(PUBREL);
    assert!(poll(&mut publishing).is_none());
    peer.send(PUBCOMP);
    assert!(now(publishing).is_ok());
}

#[test]
fn sent_moves_to_the_re_emission() {
    let (setup, mut peer) = Setup::connected();
    setup.world.network().hold_flush();
    let mut publishing = setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::Sent);
    peer.expect(PUBLISH_1);
    peer.reset();
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    peer.expect(b"\x3a\x07\x00\x01t\x00\x01\x00x");
    assert!(poll(&mut publishing).is_none(), "no flush has ended yet");
    setup.world.network().release_flush();
    setup.world.run_until_idle();
    assert!(now(publishing).is_ok());
}

#[test]
fn subscribe_and_unsubscribe_waits_go_on_across_a_reconnect_with_new_requests() {
    let (setup, mut peer) = Setup::connected();
    let mut subscribing = setup.client.subscribe("t", AT_LEAST_ONCE, Wait::Ack);
    peer.expect(SUBSCRIBE);
    peer.reset();
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    peer.expect(b"\x82\x0b\x00\x02\x04\x0b\x80\x80\x01\x00\x01t\x01");
    assert!(poll(&mut subscribing).is_none());
    peer.send(b"\x90\x04\x00\x02\x00\x01");
    let _stream = now(subscribing).expect("granted");
    let mut unsubscribing = setup.client.unsubscribe("t", Wait::Ack);
    peer.expect(b"\xa2\x06\x00\x03\x00\x00\x01t");
    peer.reset();
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    peer.expect(b"\xa2\x06\x00\x04\x00\x00\x01t");
    assert!(poll(&mut unsubscribing).is_none());
    peer.send(b"\xb0\x04\x00\x04\x00\x00");
    assert!(now(unsubscribing).is_ok());
}

#[test]
fn a_qos_2_message_whose_session_was_lost_ends_with_how_far_it_had_come() {
    for (answered, sent) in [(false, Sent::Maybe), (true, Sent::Yes)] {
        let (setup, mut peer) = Setup::connected();
        let publishing = setup.client.publish("t", "x", EXACTLY_ONCE, Wait::Ack);
        peer.received();
        if answered {
            peer.send(PUBREC);
        }
        peer.reset();
        let mut peer = setup.greet_later(CONNACK);
        peer.expect_nothing();
        let error = failure(now(publishing));
        let received = matches!(error.kind(), ErrorKind::SessionLost { received } if *received);
        assert_eq!(received, answered, "{error}");
        assert_eq!(error.sent(), sent);
    }
}

#[test]
fn a_qos_1_message_whose_session_was_lost_is_sent_anew_and_its_wait_goes_on() {
    let (setup, mut peer) = Setup::connected();
    let publishing = setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::Ack);
    peer.expect(PUBLISH_1);
    peer.reset();
    let mut peer = setup.greet_later(CONNACK);
    peer.expect(b"\x32\x07\x00\x01t\x00\x02\x00x");
    peer.send(b"\x40\x02\x00\x02");
    assert!(now(publishing).is_ok());
}

#[test]
fn a_ping_needs_a_link_and_ends_with_it() {
    let setup = Setup::with_peers();
    let error = failure(now(setup.client.ping()));
    assert!(matches!(error.kind(), ErrorKind::LinkLost));
    let mut peer = setup.greet(CONNACK);
    let ping = setup.client.ping();
    peer.expect(b"\xc0\x00");
    peer.reset();
    assert!(matches!(failure(now(ping)).kind(), ErrorKind::LinkLost));
}

// Mistakes.

#[test]
fn a_callers_mistake_is_an_error_of_the_call_and_never_touches_the_connection() {
    // Maximum QoS 1, Retain Available 0, Maximum Packet Size 20.
    let mut setup = Setup::with_peers();
    let mut peer = setup.greet(b"\x20\x0c\x00\x00\x09\x24\x01\x25\x00\x27\x00\x00\x00\x14");
    let client = &setup.client;
    for wait in [Wait::None, Wait::Sent, Wait::Ack] {
        for topic in ["", "a/+", "#", "nul\0"] {
            let error = failure(now(client.publish(topic, "x", AT_LEAST_ONCE, wait)));
            assert!(
                matches!(error.kind(), ErrorKind::Topic(..)),
                "{topic:?}: {error}"
            );
            assert_eq!(error.sent(), Sent::No);
        }
        for filter in ["", "a#", "a/#/b", "a+", "$share/x"] {
            let error = failure(now(client.subscribe(filter, AT_LEAST_ONCE, wait)));
            assert!(
                matches!(error.kind(), ErrorKind::Filter(..)),
                "{filter:?}: {error}"
            );
            let error = failure(now(client.unsubscribe(filter, wait)));
            assert!(
                matches!(error.kind(), ErrorKind::Filter(..)),
                "{filter:?}: {error}"
            );
        }
        let error = failure(now(client.publish("t", "x", EXACTLY_ONCE, wait)));
        let not_offered = Reason::QOS_NOT_SUPPORTED;
        assert!(matches!(error.kind(), ErrorKind::NotOffered(reason) if *reason == not_offered));
        for qos in [AT_MOST_ONCE, AT_LEAST_ONCE] {
            let retained = Message::new("t", "x").retain(true).qos(qos);
            let error = now(client.publish_message(retained, wait))
                .expect_err("not offered")
                .error;
            let not_offered = Reason::RETAIN_NOT_SUPPORTED;
            assert!(
                matches!(error.kind(), ErrorKind::NotOffered(reason) if *reason == not_offered)
            );
            let error = failure(now(client.publish("t", [0; 20].to_vec(), qos, wait)));
            let size = match qos {
                Qos::AtMostOnce => 26,
                Qos::AtLeastOnce | Qos::ExactlyOnce => 28,
            };
            assert!(
                matches!(error.kind(), ErrorKind::TooLarge { size: is, limit: 20 } if *is == size),
                "{error}"
            );
        }
    }
    peer.expect_nothing();
    assert!(client.is_connected());
    let events = setup.events();
    assert!(
        matches!(events[..], [Event::Connected { .. }]),
        "{events:?}"
    );
}

#[test]
fn a_bad_topic_is_named_with_its_fault() {
    let setup = Setup::with_peers();
    let error = failure(now(setup.client.publish(
        "a/#",
        "x",
        AT_LEAST_ONCE,
        Wait::Ack,
    )));
    let ErrorKind::Topic(topic, fault) = error.kind() else {
        panic!("{error}");
    };
    assert_eq!((&**topic, *fault), ("a/#", TopicError::WildcardInName));
}

#[test]
fn limits_found_only_at_connack_fail_the_wait_and_not_the_link() {
    let broker = BrokerOptions::new()
        .maximum_qos(AT_LEAST_ONCE)
        .retain_available(false)
        .maximum_packet_size(64);
    let setup = Setup::with_broker(broker);
    let client = &setup.client;
    let qos_2 = client.publish("t", "x", EXACTLY_ONCE, Wait::Ack);
    let retained = client.publish_message(Message::new("t", "x").retain(true), Wait::Ack);
    let large = client.publish("t", vec![0; 64], AT_LEAST_ONCE, Wait::Sent);
    let large_0 = client.publish("t", vec![0; 64], AT_MOST_ONCE, Wait::Sent);
    let good = client.publish("t", "good", AT_LEAST_ONCE, Wait::Ack);
    assert!(setup.wait(good).is_ok());
    let error = failure(now(qos_2));
    assert!(matches!(error.kind(), ErrorKind::NotOffered(_)), "{error}");
    assert_eq!(error.sent(), Sent::No);
    let error = now(retained).expect_err("not offered").error;
    assert!(matches!(error.kind(), ErrorKind::NotOffered(_)), "{error}");
    for large in [large, large_0] {
        let error = failure(now(large));
        assert!(
            matches!(error.kind(), ErrorKind::TooLarge { limit: 64, .. }),
            "{error}"
        );
        assert_eq!(error.sent(), Sent::No);
    }
    assert_eq!(payloads(&setup), ["good"]);
    setup.world.broker(|broker, _| {
        assert!(broker.violations().is_empty());
        assert_eq!(broker.connects(), 1);
    });
}

#[test]
fn limits_found_only_at_connack_are_an_event_if_nobody_waits() {
    let mut setup = Setup::with_broker(BrokerOptions::new().maximum_qos(AT_LEAST_ONCE));
    drop(setup.client.publish("t", "x", EXACTLY_ONCE, Wait::None));
    let events = setup.events();
    let [
        Event::Connected { .. },
        Event::Unpublished { message, error, .. },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert!(matches!(error.kind(), ErrorKind::NotOffered(_)), "{error}");
    assert_eq!(message.as_ref().expect("it comes back").payload(), b"x");
}

#[test]
fn a_refusal_that_nobody_waits_for_is_an_event() {
    let mut setup = Setup::with_broker(BrokerOptions::new());
    setup.world.broker(|broker, _| {
        let refuse = Rule::new(
            When::Packet(Kind::Publish),
            [Then::Refuse(Reason::NOT_AUTHORIZED)],
        );
        broker.add_rule(refuse.times(2));
    });
    drop(setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::None));
    // Sent has ended long before the refusal comes.
    setup
        .wait(setup.client.publish("t", "y", AT_LEAST_ONCE, Wait::Sent))
        .expect("flushed");
    let events = setup.events();
    let refused = events.iter().filter(|event| match event {
        Event::Unpublished { error, .. } => error.reason() == Some(Reason::NOT_AUTHORIZED),
        _ => false,
    });
    assert_eq!(refused.count(), 2, "{events:?}");
}

#[test]
fn what_the_options_forbid_is_a_mistake_of_the_call() {
    let world = World::with_peers();
    let options = options(&world)
        .maximum_qos(AT_LEAST_ONCE)
        .allow_retain(false);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    let error = failure(now(setup.client.publish("t", "x", EXACTLY_ONCE, Wait::Ack)));
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    for qos in [AT_MOST_ONCE, AT_LEAST_ONCE] {
        let retained = Message::new("t", "x").retain(true).qos(qos);
        assert!(now(setup.client.publish_message(retained, Wait::None)).is_err());
    }
    peer.expect_nothing();
}

#[test]
fn a_message_that_expired_before_it_was_sent_fails_with_expired() {
    let world = World::new(BrokerOptions::new());
    world.network().next_attempts(1, Attempt::Hang);
    let options = options(&world).connect_timeout(5 * SECOND);
    let setup = Setup::start(world, options);
    let waits: Vec<_> = [AT_MOST_ONCE, AT_LEAST_ONCE, EXACTLY_ONCE]
        .map(|qos| Message::new("t", "x").qos(qos).expiry(2 * SECOND))
        .map(|message| setup.client.publish_message(message, Wait::Ack))
        .into();
    for wait in waits {
        let error = setup.wait(wait).expect_err("it is too old").error;
        assert!(matches!(error.kind(), ErrorKind::Expired), "{error}");
        assert_eq!(error.sent(), Sent::No);
    }
    assert!(payloads(&setup).is_empty());
}

#[test]
fn a_duration_without_end_is_no_panic() {
    let world = World::new(BrokerOptions::new());
    let endless = Duration::MAX;
    let options = options(&world)
        .wait_timeout(endless)
        .connect_timeout(endless)
        .connack_timeout(endless)
        .ping_timeout(endless)
        .drain_timeout(endless)
        .take_timeout(endless)
        .session_expiry(endless)
        .stable_after(endless)
        .keep_alive(endless)
        .retry_delays(endless, endless);
    let setup = Setup::start(world, options);
    let mut stream = setup
        .wait(setup.client.subscribe("t", AT_LEAST_ONCE, Wait::Ack))
        .expect("granted");
    let publishing = setup
        .client
        .publish("t", "x", AT_LEAST_ONCE, Wait::Ack)
        .timeout(endless);
    assert!(setup.wait(publishing).is_ok());
    assert!(setup.wait(stream.next()).is_some());
    assert!(setup.wait(setup.client.ping()).is_ok());
    assert!(setup.wait(setup.client.disconnect()).is_ok());
}
