//! Streams and inline handlers: who gets a message, when it is acknowledged, and how they end.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use coracle::testkit::{Attempt, BrokerOptions, Kind, Peer, World};
use coracle::{
    Acknowledge, Doing, ErrorKind, Event, Filters, Incoming, Message, Overflow, Properties, Qos,
    Reason, RetainHandling, Sent, Subscription, Wait,
};

use crate::{CONNACK, CONNACK_PRESENT, SECOND, Setup, failure, now, options, poll};

const AT_MOST_ONCE: Qos = Qos::AtMostOnce;
const AT_LEAST_ONCE: Qos = Qos::AtLeastOnce;
const EXACTLY_ONCE: Qos = Qos::ExactlyOnce;

/// PUBLISH of `payload` to a topic of one letter at QoS 0, MQTT 5.
fn publish_0(topic: u8, payload: u8) -> [u8; 7] {
    [0x30, 5, 0, 1, topic, 0, payload]
}

/// The same at QoS 1.
fn publish_1(topic: u8, id: u8, payload: u8) -> [u8; 9] {
    [0x32, 7, 0, 1, topic, 0, id, 0, payload]
}

/// The same at QoS 2.
fn publish_2(topic: u8, id: u8, payload: u8) -> [u8; 9] {
    [0x34, 7, 0, 1, topic, 0, id, 0, payload]
}

fn puback(id: u8) -> [u8; 4] {
    [0x40, 2, 0, id]
}

fn payloads(stream: &mut Subscription) -> Vec<u8> {
    std::iter::from_fn(|| stream.try_next())
        .map(|message| message.payload()[0])
        .collect()
}

/// Subscribes and lets the peer grant QoS 2 for the one filter.
#[track_caller]
fn subscribe(setup: &Setup, peer: &mut Peer, filters: impl Into<Filters>) -> Subscription {
    let subscribing = setup.client.subscribe_many(filters, Wait::Ack);
    grant(peer);
    now(subscribing).expect("it is granted")
}

/// Answers the SUBSCRIBE that came last, for one filter.
#[track_caller]
fn grant(peer: &mut Peer) {
    let request = peer.received();
    assert_eq!(request[0], 0x82, "SUBSCRIBE");
    peer.send(&[0x90, 4, request[2], request[3], 0, 2]);
}

fn by(mode: Acknowledge) -> Filters {
    Filters::new("t", EXACTLY_ONCE).acknowledge(mode)
}

// Who gets a message.

#[test]
fn overlapping_filters_of_one_handle_give_one_message() {
    let (setup, mut peer) = Setup::connected();
    let filters = Filters::new("a/#", AT_MOST_ONCE)
        .and("a/+", AT_MOST_ONCE)
        .and("a/b", AT_MOST_ONCE);
    let mut stream = now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted");
    peer.send(b"\x30\x07\x00\x03a/b\x001");
    peer.send(b"\x30\x05\x00\x01a\x002");
    peer.send(b"\x30\x05\x00\x01b\x003");
    assert_eq!(payloads(&mut stream), *b"12");
    assert_eq!(setup.client.statistics().unmatched, 1);
}

#[test]
fn every_handle_whose_filter_matches_gets_the_message() {
    let setup = Setup::with_broker(BrokerOptions::new());
    let client = &setup.client;
    let filters = ["a/b", "a/+", "#", "+/b", "a/#"];
    let mut streams: Vec<_> = filters
        .map(|filter| setup.wait(client.subscribe(filter, AT_LEAST_ONCE, Wait::Ack)))
        .map(|stream| stream.expect("granted"))
        .into();
    for wait in [Wait::None, Wait::Ack] {
        setup
            .wait(client.publish("a/b", "x", AT_LEAST_ONCE, wait))
            .expect("published");
    }
    setup.world.run_until_idle();
    for (filter, stream) in filters.iter().zip(&mut streams) {
        assert_eq!(payloads(stream), *b"xx", "{filter}");
    }
}

#[test]
fn a_shared_subscription_matches_by_its_filter_without_the_group() {
    let (setup, mut peer) = Setup::connected();
    let mut stream = now(setup
        .client
        .subscribe("$share/g/t", AT_MOST_ONCE, Wait::None))
    .expect("accepted");
    peer.expect(b"\x82\x14\x00\x01\x04\x0b\x80\x80\x01\x00\x0a$share/g/t\x00");
    peer.send(&publish_0(b't', 1));
    assert_eq!(payloads(&mut stream), [1]);
}

#[test]
fn no_local_on_a_shared_subscription_is_an_error_of_the_call() {
    // [MQTT-3.8.3-4]
    let (setup, mut peer) = Setup::connected();
    let filters = Filters::new("$share/g/t", AT_MOST_ONCE).no_local(true);
    let error = failure(now(setup.client.subscribe_many(filters, Wait::Ack)));
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    peer.expect_nothing();
}

#[test]
fn leading_wildcards_do_not_match_topics_that_begin_with_a_dollar() {
    // [MQTT-4.7.2-1]
    let (setup, mut peer) = Setup::connected();
    let subscribe =
        |filter| now(setup.client.subscribe(filter, AT_MOST_ONCE, Wait::None)).expect("accepted");
    let [mut all, mut one, mut system] = ["#", "+/x", "$SYS/#"].map(subscribe);
    peer.send(b"\x30\x0a\x00\x06$SYS/x\x001");
    assert_eq!(payloads(&mut all), b"");
    assert_eq!(payloads(&mut one), b"");
    assert_eq!(payloads(&mut system), b"1");
}

#[test]
fn an_aliased_topic_reaches_its_stream() {
    let (setup, mut peer) = Setup::connected();
    let mut stream = now(setup.client.subscribe("t", AT_MOST_ONCE, Wait::None)).expect("accepted");
    peer.send(b"\x30\x08\x00\x01t\x03\x23\x00\x01x");
    peer.send(b"\x30\x07\x00\x00\x03\x23\x00\x01y");
    assert_eq!(payloads(&mut stream), *b"xy");
}

#[test]
fn what_needs_mqtt_5_is_an_error_of_the_call_before() {
    let (setup, mut peer) = Setup::connected_3();
    let filters = || Filters::new("t", AT_MOST_ONCE);
    for filters in [
        filters().identifier(1),
        filters().no_local(true),
        filters().retain_as_published(true),
        filters().retain_handling(RetainHandling::SendIfNew),
    ] {
        let error = failure(now(setup.client.subscribe_many(filters, Wait::None)));
        assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    }
    peer.expect_nothing();
}

// One filter, several handles.

#[test]
fn each_new_handle_of_a_filter_sends_subscribe_again_at_the_highest_qos() {
    let (setup, mut peer) = Setup::connected();
    let client = &setup.client;
    let mut first = now(client.subscribe("t", EXACTLY_ONCE, Wait::None)).expect("accepted");
    peer.expect(b"\x82\x0b\x00\x01\x04\x0b\x80\x80\x01\x00\x01t\x02");
    let mut second = now(client.subscribe("t", AT_MOST_ONCE, Wait::None)).expect("accepted");
    peer.expect(b"\x82\x0b\x00\x02\x04\x0b\x80\x80\x01\x00\x01t\x02");
    peer.send(&publish_0(b't', 1));
    assert_eq!(payloads(&mut first), [1]);
    assert_eq!(payloads(&mut second), [1]);
}

#[test]
fn a_retained_message_comes_again_with_each_new_handle() {
    let setup = Setup::with_broker(BrokerOptions::new());
    let client = &setup.client;
    let retained = Message::new("t", "x").retain(true);
    assert!(
        setup
            .wait(client.publish_message(retained, Wait::Ack))
            .is_ok()
    );
    let mut first = setup
        .wait(client.subscribe("t", AT_LEAST_ONCE, Wait::Ack))
        .expect("granted");
    let message = setup.wait(first.next()).expect("retained");
    assert!(message.is_retained());
    let mut second = setup
        .wait(client.subscribe("t", AT_LEAST_ONCE, Wait::Ack))
        .expect("granted");
    assert!(setup.wait(second.next()).expect("retained").is_retained());
}

#[test]
fn retain_handling_no_local_and_retain_as_published_are_said_in_the_options() {
    // MQTT 5, section 3.8.3.1: QoS in bits 0 and 1, No Local 2, Retain As Published 3, handling 4 and 5.
    let (setup, mut peer) = Setup::connected();
    let filters = Filters::new("t", AT_LEAST_ONCE)
        .no_local(true)
        .retain_as_published(true)
        .retain_handling(RetainHandling::DoNotSend)
        .identifier(5);
    let _stream = now(setup.client.subscribe_many(filters, Wait::None));
    peer.expect(b"\x82\x09\x00\x01\x02\x0b\x05\x00\x01t\x2d");
}

#[test]
fn the_same_filter_with_other_options_is_a_conflict() {
    let (setup, mut peer) = Setup::connected();
    let _first = now(setup.client.subscribe("t", AT_LEAST_ONCE, Wait::None)).expect("accepted");
    peer.received();
    let other = [
        Filters::new("t", AT_LEAST_ONCE).no_local(true),
        Filters::new("t", AT_LEAST_ONCE).retain_as_published(true),
        Filters::new("t", AT_LEAST_ONCE).retain_handling(RetainHandling::SendIfNew),
        Filters::new("t", AT_LEAST_ONCE).identifier(1),
    ];
    for filters in other {
        let error = failure(now(setup.client.subscribe_many(filters, Wait::Ack)));
        assert!(
            matches!(error.kind(), ErrorKind::Conflict(filter) if **filter == *"t"),
            "{error}"
        );
    }
    peer.expect_nothing();
}

#[test]
fn a_dropped_handle_does_not_conflict_with_the_next_one() {
    let (setup, mut peer) = Setup::connected();
    let stream = now(setup.client.subscribe("t", EXACTLY_ONCE, Wait::None)).expect("accepted");
    peer.received();
    drop(stream);
    // The driver had no turn in between.
    let filters = Filters::new("t", AT_MOST_ONCE).no_local(true);
    let _stream = now(setup.client.subscribe_many(filters, Wait::None)).expect("no conflict");
    peer.expect(b"\xa2\x06\x00\x02\x00\x00\x01t\x82\x0b\x00\x03\x04\x0b\x81\x80\x01\x00\x01t\x04");
}

#[test]
fn dropping_the_last_handle_unsubscribes_by_the_driver() {
    let (setup, mut peer) = Setup::connected();
    let client = &setup.client;
    let first = now(client.subscribe("t", AT_MOST_ONCE, Wait::None)).expect("accepted");
    let second = now(client.subscribe("t", AT_MOST_ONCE, Wait::None)).expect("accepted");
    peer.received();
    drop(first);
    peer.expect_nothing();
    let sent = setup.world.network().bytes_sent();
    drop(second);
    assert_eq!(
        setup.world.network().bytes_sent(),
        sent,
        "the drop itself sends nothing"
    );
    peer.expect(b"\xa2\x06\x00\x03\x00\x00\x01t");
}

#[test]
fn subscribing_again_and_again_while_there_is_no_link_leaves_nothing_behind() {
    let world = World::with_peers();
    let refused = Attempt::Refuse(std::io::ErrorKind::ConnectionRefused);
    world.network().all_attempts(refused);
    let options = options(&world);
    let setup = Setup::start(world, options);
    for nth in 0..300 {
        let subscribing = setup.client.subscribe("t", AT_LEAST_ONCE, Wait::Ack);
        match nth % 3 {
            0 => drop(subscribing),
            1 => {
                let subscribing = subscribing.timeout(SECOND);
                let error = setup.wait(subscribing).expect_err("nobody answers");
                assert!(matches!(error.kind(), ErrorKind::TimedOut(_)), "{error}");
            }
            _ => {
                drop(subscribing);
                let stream = setup.client.subscribe("t", AT_LEAST_ONCE, Wait::None);
                drop(now(stream).expect("accepted"));
            }
        }
        setup.world.run_until_idle();
    }
    assert_eq!(setup.client.statistics().waits, 0);
    let mut stream = now(setup.client.subscribe("t", AT_LEAST_ONCE, Wait::None)).expect("accepted");
    setup.world.network().all_attempts(Attempt::Accept);
    let mut peer = setup.greet_later(CONNACK);
    // The one that is wanted, and nothing for the others.
    let request = peer.received();
    assert_eq!((request[0], request.len()), (0x82, 13), "{request:02x?}");
    peer.send(&[0x90, 4, request[2], request[3], 0, 1]);
    peer.send(&publish_0(b't', 1));
    assert_eq!(payloads(&mut stream), [1]);
}

#[test]
fn what_the_broker_was_asked_for_is_unsubscribed_although_a_later_call_never_left() {
    let (setup, mut peer) = Setup::connected();
    let stream = now(setup.client.subscribe("t", AT_MOST_ONCE, Wait::None)).expect("accepted");
    peer.received();
    peer.reset();
    setup.world.run_until_idle();
    // It has left, and may have arrived; the second has not.
    let second = now(setup.client.subscribe("t", AT_MOST_ONCE, Wait::None)).expect("accepted");
    drop((stream, second));
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    let packets = peer.received();
    let kinds: Vec<u8> = [packets[0], packets[usize::from(packets[1]) + 2]].into();
    assert_eq!(kinds, [0x82, 0xA2], "{packets:02x?}");
    assert_eq!(packets.len(), 13 + 8);
}

#[test]
fn what_an_earlier_process_may_have_asked_for_is_unsubscribed_although_the_call_never_left() {
    let world = World::with_peers();
    let options = options(&world).session(coracle::Session::Resume);
    let setup = Setup::start(world, options);
    for _ in 0..10 {
        let stream = setup.client.subscribe("t", AT_MOST_ONCE, Wait::None);
        drop(now(stream).expect("accepted"));
        setup.world.run_until_idle();
    }
    let mut peer = setup.greet(CONNACK_PRESENT);
    peer.expect(b"\xa2\x06\x00\x01\x00\x00\x01t");
}

#[test]
fn dropping_one_of_several_filters_keeps_those_that_another_handle_has() {
    let (setup, mut peer) = Setup::connected();
    let both = Filters::new("a", AT_MOST_ONCE).and("b", AT_MOST_ONCE);
    let both = now(setup.client.subscribe_many(both, Wait::None)).expect("accepted");
    let mut one = now(setup.client.subscribe("a", AT_MOST_ONCE, Wait::None)).expect("accepted");
    peer.received();
    drop(both);
    peer.expect(b"\xa2\x06\x00\x03\x00\x00\x01b");
    peer.send(&publish_0(b'a', 1));
    assert_eq!(payloads(&mut one), [1]);
}

#[test]
fn one_filter_twice_in_one_call_is_a_mistake() {
    let (setup, mut peer) = Setup::connected();
    let filters = Filters::new("t", AT_MOST_ONCE).and("t", AT_LEAST_ONCE);
    let error = failure(now(setup.client.subscribe_many(filters, Wait::Ack)));
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    peer.expect_nothing();
}

// Refusals.

#[test]
fn with_ack_a_refused_filter_is_an_error_that_names_it_and_the_others_are_given_up() {
    let (mut setup, mut peer) = Setup::connected();
    let filters = Filters::new("a", AT_LEAST_ONCE).and("b", AT_LEAST_ONCE);
    let subscribing = setup.client.subscribe_many(filters, Wait::Ack);
    peer.received();
    // 0x87 with the reason string "no".
    peer.send(b"\x90\x0a\x00\x01\x05\x1f\x00\x02no\x01\x87");
    let error = failure(now(subscribing));
    let ErrorKind::Refused {
        reason,
        filter,
        text,
    } = error.kind()
    else {
        panic!("{error}");
    };
    assert_eq!(*reason, Reason::NOT_AUTHORIZED);
    assert_eq!(
        (filter.as_deref(), text.as_deref()),
        (Some("b"), Some("no"))
    );
    assert_eq!(error.sent(), Sent::Yes);
    peer.expect(b"\xa2\x06\x00\x02\x00\x00\x01a");
    assert!(setup.client.is_connected());
    drop(setup.events());
}

#[test]
fn without_ack_a_refused_filter_ends_its_stream_with_an_error_and_is_an_event() {
    for wait in [Wait::None, Wait::Sent] {
        let (mut setup, mut peer) = Setup::connected();
        let subscribing = setup.client.subscribe("t", AT_LEAST_ONCE, wait);
        setup.world.run_until_idle();
        let mut stream = now(subscribing).expect("the stream comes at once");
        assert!(stream.error().is_none());
        peer.send(b"\x90\x04\x00\x01\x00\x87");
        assert!(now(stream.next()).is_none(), "the stream has ended");
        let error = stream.error().expect("it says why");
        assert_eq!(error.reason(), Some(Reason::NOT_AUTHORIZED));
        let events = setup.events();
        let ended = events.iter().any(|event| match event {
            Event::SubscriptionEnded { filter, error, .. } => {
                &**filter == "t" && error.reason() == Some(Reason::NOT_AUTHORIZED)
            }
            _ => false,
        });
        assert!(ended, "{events:?}");
        drop(stream);
        peer.received();
        assert!(setup.client.is_connected());
    }
}

#[test]
fn a_stream_goes_on_with_the_filters_that_were_granted() {
    let (setup, mut peer) = Setup::connected();
    let filters = Filters::new("a", AT_MOST_ONCE).and("b", AT_MOST_ONCE);
    let mut stream = now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted");
    peer.received();
    peer.send(b"\x90\x05\x00\x01\x00\x80\x00");
    peer.send(&publish_0(b'b', 1));
    assert_eq!(payloads(&mut stream), [1]);
    assert!(stream.error().is_none());
}

#[test]
fn the_refusal_of_a_dropped_subscribe_does_not_end_the_next_one() {
    let (setup, mut peer) = Setup::connected();
    let dropped = setup.client.subscribe("t", AT_LEAST_ONCE, Wait::Ack);
    peer.received();
    drop(dropped);
    peer.received();
    let mut stream = now(setup.client.subscribe("t", AT_LEAST_ONCE, Wait::None)).expect("accepted");
    peer.expect(b"\x82\x0b\x00\x03\x04\x0b\x81\x80\x01\x00\x01t\x01");
    peer.send(b"\x90\x04\x00\x01\x00\x97");
    peer.send(b"\xb0\x04\x00\x02\x00\x11");
    peer.send(b"\x90\x04\x00\x03\x00\x01");
    peer.send(&publish_0(b't', 1));
    assert_eq!(payloads(&mut stream), [1]);
}

#[test]
fn what_the_broker_does_not_offer_ends_the_stream_at_connack() {
    let broker = BrokerOptions::new()
        .wildcard_subscriptions(false)
        .shared_subscriptions(false)
        .subscription_identifiers(false);
    let setup = Setup::with_broker(broker);
    let client = &setup.client;
    for filters in [
        Filters::new("#", AT_MOST_ONCE),
        Filters::new("$share/g/t", AT_MOST_ONCE),
        Filters::new("t", AT_MOST_ONCE).identifier(1),
    ] {
        let error = failure(setup.wait(client.subscribe_many(filters.clone(), Wait::Ack)));
        assert!(matches!(error.kind(), ErrorKind::NotOffered(_)), "{error}");
        let mut stream = now(client.subscribe_many(filters, Wait::None)).expect("accepted");
        assert!(setup.wait(stream.next()).is_none());
        assert!(matches!(
            stream.error().expect("refused").kind(),
            ErrorKind::NotOffered(_)
        ));
    }
    setup.world.broker(|broker, _| {
        assert!(broker.violations().is_empty());
        assert_eq!(broker.connects(), 1);
    });
}

#[test]
fn more_than_eight_filters_are_batched() {
    let (setup, mut peer) = Setup::connected();
    let mut filters = Filters::new("a", AT_MOST_ONCE);
    for letter in 'b'..='t' {
        filters = filters.and(letter.to_string(), AT_MOST_ONCE);
    }
    let mut subscribing = setup.client.subscribe_many(filters, Wait::Ack);
    let mut expected = Vec::new();
    for (id, batch) in ('a'..='t').collect::<Vec<_>>().chunks(8).enumerate() {
        expected.extend([0x82, 7 + 4 * batch.len() as u8, 0, id as u8 + 1]);
        expected.extend([4, 0x0b, 0x80 + id as u8, 0x80, 1]);
        for letter in batch {
            expected.extend([0, 1, *letter as u8, 0]);
        }
    }
    peer.expect(&expected);
    peer.send(b"\x90\x0b\x00\x01\x00\0\0\0\0\0\0\0\0");
    peer.send(b"\x90\x0b\x00\x02\x00\0\0\0\0\0\0\0\0");
    assert!(poll(&mut subscribing).is_none());
    peer.send(b"\x90\x07\x00\x03\x00\0\0\0\0");
    let stream = now(subscribing).expect("all are granted");
    assert_eq!(stream.granted().count(), 20);
    drop(stream);
    let unsubscribes = peer.received();
    assert_eq!(unsubscribes.iter().filter(|byte| **byte == 0xa2).count(), 3);
}

#[test]
fn a_hundred_subscribes_at_once_are_all_answered() {
    // More than there are reserved packet identifiers.
    let setup = Setup::with_broker(BrokerOptions::new());
    let waits: Vec<_> = (0..100)
        .map(|number| {
            setup
                .client
                .subscribe(&format!("t/{number}"), AT_LEAST_ONCE, Wait::Ack)
        })
        .collect();
    let streams: Vec<_> = waits.into_iter().map(|wait| setup.wait(wait)).collect();
    assert!(streams.iter().all(Result::is_ok));
    setup
        .world
        .broker(|broker, _| assert_eq!(broker.subscriptions("c").len(), 100));
    drop(streams);
    setup.world.run_until_idle();
    setup
        .world
        .broker(|broker, _| assert_eq!(broker.subscriptions("c").len(), 0));
}

// Unsubscribing.

#[test]
fn unsubscribe_ends_all_streams_of_the_filter_and_what_they_hold_can_be_read() {
    let (setup, mut peer) = Setup::connected();
    let client = &setup.client;
    let subscribe = || now(client.subscribe("t", AT_MOST_ONCE, Wait::None)).expect("accepted");
    let mut streams = [subscribe(), subscribe()];
    peer.received();
    peer.send(&publish_0(b't', 1));
    let unsubscribing = client.unsubscribe("t", Wait::Ack);
    peer.expect(b"\xa2\x06\x00\x03\x00\x00\x01t");
    // On its way when the broker got the UNSUBSCRIBE: nobody gets it (situation 14).
    peer.send(&publish_1(b't', 9, 2));
    peer.expect(&puback(9));
    peer.send(b"\xb0\x04\x00\x03\x00\x00");
    assert!(now(unsubscribing).is_ok());
    for stream in &mut streams {
        assert_eq!(now(stream.next()).expect("queued").payload(), [1]);
        assert!(now(stream.next()).is_none());
        assert!(stream.error().is_none(), "the user wanted it");
    }
    drop(streams);
    peer.expect_nothing();
}

#[test]
fn a_stream_with_another_filter_goes_on_after_an_unsubscribe() {
    let (setup, mut peer) = Setup::connected();
    let filters = Filters::new("a", AT_MOST_ONCE).and("b", AT_MOST_ONCE);
    let mut stream = now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted");
    drop(setup.client.unsubscribe("a", Wait::None));
    peer.received();
    peer.send(&publish_0(b'a', 1));
    peer.send(&publish_0(b'b', 2));
    assert_eq!(payloads(&mut stream), [2]);
    assert!(poll(&mut Box::pin(stream.next())).is_none());
}

#[test]
fn a_waiting_reader_is_woken_by_a_message_and_by_the_end() {
    let setup = Setup::with_broker(BrokerOptions::new());
    let mut stream = setup
        .wait(setup.client.subscribe("t", AT_LEAST_ONCE, Wait::Ack))
        .expect("granted");
    let reader = setup.world.spawn(async move {
        let mut count = 0;
        while stream.next().await.is_some() {
            count += 1;
        }
        count
    });
    for _ in 0..3 {
        setup
            .wait(setup.client.publish("t", "x", AT_LEAST_ONCE, Wait::Ack))
            .expect("published");
    }
    setup
        .wait(setup.client.unsubscribe("t", Wait::Ack))
        .expect("unsubscribed");
    assert_eq!(setup.wait(reader), 3);
}

// Inline handlers.

/// Where a message lies: the addresses of its topic and its payload.
type Places = Rc<RefCell<Vec<(usize, usize)>>>;

#[test]
fn an_inline_handler_sees_the_message_in_the_read_buffer() {
    let (setup, mut peer) = Setup::connected();
    let places = Places::default();
    let handler = {
        let places = Rc::clone(&places);
        move |incoming: &Incoming<'_>| {
            let topic = incoming.topic().as_ptr() as usize;
            let payload = incoming.payload().as_ptr() as usize;
            places.borrow_mut().push((topic, payload));
        }
    };
    let subscribing = setup
        .client
        .subscribe_inline(("t", AT_MOST_ONCE), handler, Wait::None);
    let _subscription = now(subscribing).expect("accepted");
    let packet = publish_0(b't', 1);
    peer.send(&[packet, packet, packet].concat());
    let places = places.borrow();
    let (first, _) = places[0];
    for (index, (topic, payload)) in places.iter().enumerate() {
        assert_eq!(
            *topic,
            first + index * packet.len(),
            "as far apart as on the wire"
        );
        // The topic of one byte and the empty properties of one byte stand between.
        assert_eq!(*payload, topic + 2);
    }
    assert_eq!(places.len(), 3);
}

#[test]
fn an_inline_message_is_acknowledged_when_the_handler_returns() {
    let (setup, mut peer) = Setup::connected();
    let count = Rc::new(Cell::new(0));
    let handler = {
        let count = Rc::clone(&count);
        move |incoming: &Incoming<'_>| {
            assert_eq!(incoming.quality_of_service(), AT_LEAST_ONCE);
            count.set(count.get() + 1);
        }
    };
    let subscribing = setup
        .client
        .subscribe_inline(("t", AT_LEAST_ONCE), handler, Wait::None);
    let _subscription = now(subscribing).expect("accepted");
    peer.received();
    peer.send(&[publish_1(b't', 1, 1), publish_1(b't', 2, 2)].concat());
    peer.expect(&[puback(1), puback(2)].concat());
    assert_eq!(count.get(), 2);
}

#[test]
fn an_inline_handler_may_publish_and_subscribe() {
    let (setup, mut peer) = Setup::connected();
    let streams = Rc::new(RefCell::new(Vec::new()));
    let handler = {
        let (client, streams) = (setup.client.clone(), Rc::clone(&streams));
        move |_: &Incoming<'_>| {
            for qos in [AT_MOST_ONCE, AT_LEAST_ONCE] {
                now(client.publish("p", "x", qos, Wait::None)).expect("accepted");
            }
            streams
                .borrow_mut()
                .push(client.subscribe("u", AT_MOST_ONCE, Wait::Ack));
        }
    };
    let subscribing = setup
        .client
        .subscribe_inline(("t", AT_MOST_ONCE), handler, Wait::None);
    let _subscription = now(subscribing).expect("accepted");
    peer.received();
    peer.send(&publish_0(b't', 1));
    peer.expect(
        b"\x30\x05\x00\x01p\x00x\x82\x0b\x00\x02\x04\x0b\x81\x80\x01\x00\x01u\x00\x32\x07\x00\x01p\x00\x03\x00x",
    );
    peer.send(b"\x90\x04\x00\x02\x00\x00");
    let subscribing = streams.borrow_mut().pop().expect("the handler was called");
    let mut stream = now(subscribing).expect("granted");
    peer.send(&publish_0(b'u', 2));
    assert_eq!(payloads(&mut stream), [2]);
}

#[test]
fn a_handler_that_drops_its_own_subscription_is_not_called_again() {
    let (setup, mut peer) = Setup::connected();
    let own = Rc::new(RefCell::new(None));
    let count = Rc::new(Cell::new(0));
    let handler = {
        let (own, count) = (Rc::clone(&own), Rc::clone(&count));
        move |_: &Incoming<'_>| {
            count.set(count.get() + 1);
            drop(own.borrow_mut().take());
        }
    };
    let subscribing = setup
        .client
        .subscribe_inline(("t", AT_LEAST_ONCE), handler, Wait::None);
    *own.borrow_mut() = Some(now(subscribing).expect("accepted"));
    peer.received();
    // In one read; the later ones match nothing any more and count as taken.
    let messages = [
        publish_1(b't', 1, 1),
        publish_1(b't', 2, 2),
        publish_1(b't', 3, 3),
    ];
    peer.send(&messages.concat());
    let expected = [
        &puback(1)[..],
        &puback(2),
        &puback(3),
        b"\xa2\x06\x00\x02\x00\x00\x01t",
    ];
    peer.expect(&expected.concat());
    assert_eq!(count.get(), 1);
    assert_eq!(Rc::strong_count(&count), 1, "the handler is dropped");
}

#[test]
fn a_handler_that_ends_another_one_leaves_its_message_acknowledged() {
    // The wildcard is called first, so that the other one has had its turn or has not.
    for (ending, ended, calls) in [("+", "t", 0), ("t", "+", 1)] {
        for by_drop in [true, false] {
            let (setup, mut peer) = Setup::connected();
            let other = Rc::new(RefCell::new(None));
            let count = Rc::new(Cell::new(0));
            let first = {
                let (client, other) = (setup.client.clone(), Rc::clone(&other));
                move |_: &Incoming<'_>| {
                    if by_drop {
                        drop(other.borrow_mut().take());
                    } else {
                        drop(client.unsubscribe(ended, Wait::None));
                    }
                }
            };
            let second = {
                let count = Rc::clone(&count);
                move |_: &Incoming<'_>| count.set(count.get() + 1)
            };
            let inline = |filter, handler: Box<dyn FnMut(&Incoming<'_>)>| {
                let filters = Filters::new(filter, AT_LEAST_ONCE);
                now(setup.client.subscribe_inline(filters, handler, Wait::None)).expect("accepted")
            };
            let _keep = inline(ending, Box::new(first));
            *other.borrow_mut() = Some(inline(ended, Box::new(second)));
            peer.received();
            for id in 1..=2 {
                peer.send(&publish_1(b't', id, 1));
                let wire = peer.received();
                assert!(wire.starts_with(&puback(id)), "{wire:02x?}");
            }
            assert_eq!(count.get(), calls);
        }
    }
}

#[test]
fn a_handler_subscribed_in_place_of_a_dropped_one_does_not_get_the_message_at_hand() {
    let (setup, mut peer) = Setup::connected();
    let other = Rc::new(RefCell::new(None));
    let count = Rc::new(Cell::new(0));
    let first = {
        let (client, other, count) = (setup.client.clone(), Rc::clone(&other), Rc::clone(&count));
        move |_: &Incoming<'_>| {
            let Some(dropped) = other.borrow_mut().take() else {
                return;
            };
            drop::<Subscription>(dropped);
            let count = Rc::clone(&count);
            let handler = move |_: &Incoming<'_>| count.set(count.get() + 1);
            let subscribing = client.subscribe_inline(("t", AT_MOST_ONCE), handler, Wait::None);
            // Kept for ever: the test wants to see who is called.
            std::mem::forget(now(subscribing));
        }
    };
    let _keep = now(setup
        .client
        .subscribe_inline(("+", AT_MOST_ONCE), first, Wait::None));
    let second = setup
        .client
        .subscribe_inline(("t", AT_MOST_ONCE), |_| {}, Wait::None);
    *other.borrow_mut() = Some(now(second).expect("accepted"));
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x00\x90\x04\x00\x02\x00\x00");
    peer.send(&publish_0(b't', 1));
    assert_eq!(count.get(), 0);
    peer.send(&publish_0(b't', 2));
    assert_eq!(count.get(), 1);
}

#[test]
fn a_handler_that_disconnects_lets_the_client_drain() {
    let (setup, mut peer) = Setup::connected();
    let handler = {
        let client = setup.client.clone();
        move |_: &Incoming<'_>| {
            drop(client.publish("p", "x", AT_LEAST_ONCE, Wait::None));
            drop(client.disconnect());
        }
    };
    let subscribing = setup
        .client
        .subscribe_inline(("t", AT_LEAST_ONCE), handler, Wait::None);
    let _subscription = now(subscribing).expect("accepted");
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x01");
    peer.send(&publish_1(b't', 1, 1));
    peer.expect(b"\x40\x02\x00\x01\x32\x07\x00\x01p\x00\x02\x00x");
    peer.send(&puback(2));
    let wire = peer.received();
    assert_eq!(wire[0], 0xe0, "DISCONNECT after the drain");
}

#[test]
fn a_panic_in_a_handler_closes_the_client() {
    let (setup, mut peer) = Setup::connected();
    let client = &setup.client;
    let token = Rc::new(());
    let handler = {
        let token = Rc::clone(&token);
        move |_: &Incoming<'_>| {
            let _held = &token;
            panic!("the handler has a bug");
        }
    };
    let mut stream = now(client.subscribe("u", AT_MOST_ONCE, Wait::None)).expect("accepted");
    let subscription = now(client.subscribe_inline(("t", AT_MOST_ONCE), handler, Wait::None));
    let publishing = client.publish("p", "x", AT_LEAST_ONCE, Wait::Ack);
    peer.received();
    peer.send(&publish_0(b't', 1));
    assert!(matches!(failure(now(publishing)).kind(), ErrorKind::Closed));
    assert!(now(stream.next()).is_none());
    assert!(matches!(
        failure(now(client.connected())).kind(),
        ErrorKind::Closed
    ));
    assert_eq!(Rc::strong_count(&token), 1, "the handler is dropped");
    drop(subscription);
    // The panic goes on to whoever waits for the driver.
    let Setup { world, driver, .. } = setup;
    let ended = catch_unwind(AssertUnwindSafe(|| world.block_on(driver)));
    assert!(ended.is_err());
}

#[test]
fn the_stream_of_an_inline_subscription_ends_like_any_other() {
    let (setup, mut peer) = Setup::connected();
    let client = &setup.client;
    let subscribe = |filter| {
        let subscribing = client.subscribe_inline((filter, AT_MOST_ONCE), |_| {}, Wait::None);
        now(subscribing).expect("accepted")
    };
    let [mut unsubscribed, mut refused, mut closed] = ["a", "b", "c"].map(subscribe);
    peer.received();
    let waits = [&mut unsubscribed, &mut refused, &mut closed].map(|subscription| {
        let mut next = Box::pin(subscription.next());
        assert!(poll(&mut next).is_none());
        next
    });
    drop(client.unsubscribe("a", Wait::None));
    peer.send(b"\x90\x04\x00\x02\x00\x87");
    drop(client.disconnect_with(Reason::SUCCESS, Properties::new()));
    for wait in waits {
        assert!(setup.wait(wait).is_none());
    }
    assert!(unsubscribed.error().is_none());
    assert_eq!(
        refused.error().expect("refused").reason(),
        Some(Reason::NOT_AUTHORIZED)
    );
    assert!(matches!(
        closed.error().expect("closed").kind(),
        ErrorKind::Closed
    ));
}

#[test]
fn an_inline_handler_cannot_acknowledge_by_hand() {
    let (setup, mut peer) = Setup::connected();
    let subscribing = setup
        .client
        .subscribe_inline(by(Acknowledge::ByHand), |_| {}, Wait::Ack);
    assert!(matches!(
        failure(now(subscribing)).kind(),
        ErrorKind::Misuse(_)
    ));
    peer.expect_nothing();
}

// Bounds.

/// Room for two messages of one-letter topic and payload (66 bytes each).
const TWO_MESSAGES: usize = 140;

#[test]
fn a_full_stream_drops_what_its_overflow_says_and_tells() {
    for (overflow, qos, left) in [
        (Overflow::DropOldest, AT_LEAST_ONCE, [3, 4]),
        (Overflow::DropNewest, AT_LEAST_ONCE, [1, 2]),
        // At QoS 0 the oldest goes in any case.
        (Overflow::DropOldest, AT_MOST_ONCE, [3, 4]),
        (Overflow::DropNewest, AT_MOST_ONCE, [3, 4]),
        (Overflow::End, AT_MOST_ONCE, [3, 4]),
    ] {
        let (mut setup, mut peer) = Setup::connected();
        let filters = Filters::new("t", qos)
            .overflow(overflow)
            .stream_bytes(TWO_MESSAGES);
        let mut stream = subscribe(&setup, &mut peer, filters);
        drop(setup.events());
        for number in 1..=4 {
            match qos {
                Qos::AtMostOnce => peer.send(&publish_0(b't', number)),
                Qos::AtLeastOnce | Qos::ExactlyOnce => peer.send(&publish_1(b't', number, number)),
            }
        }
        assert_eq!(stream.len(), 2);
        assert_eq!(payloads(&mut stream), left, "{overflow:?} {qos}");
        // What was dropped counts as taken.
        if qos == AT_LEAST_ONCE {
            peer.expect(&[1, 2, 3, 4].map(puback).concat());
        }
        let events = setup.events();
        let [
            Event::SlowConsumer { dropped: 1, .. },
            Event::SlowConsumer {
                dropped: 2, filter, ..
            },
        ] = &events[..]
        else {
            panic!("{events:?}");
        };
        assert_eq!(&**filter, "t");
        assert_eq!(setup.client.statistics().dropped, 2);
    }
}

#[test]
fn a_stream_that_is_to_end_on_overflow_ends_with_an_error_and_is_unsubscribed() {
    let (mut setup, mut peer) = Setup::connected();
    let filters = Filters::new("t", AT_LEAST_ONCE)
        .overflow(Overflow::End)
        .stream_bytes(TWO_MESSAGES);
    let mut stream = subscribe(&setup, &mut peer, filters);
    drop(setup.events());
    for number in 1..=3 {
        peer.send(&publish_1(b't', number, number));
    }
    peer.expect(b"\xa2\x06\x00\x02\x00\x00\x01t");
    let events = setup.events();
    let [Event::SubscriptionEnded { filter, error, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(&**filter, "t");
    assert!(matches!(error.kind(), ErrorKind::Overflow));
    for number in 1..=2 {
        assert_eq!(now(stream.next()).expect("queued").payload(), [number]);
    }
    assert!(now(stream.next()).is_none());
    assert!(matches!(
        stream.error().expect("it says why").kind(),
        ErrorKind::Overflow
    ));
    peer.expect(&[1, 2, 3].map(puback).concat());
}

#[test]
fn a_message_larger_than_the_bound_is_taken_by_an_empty_stream() {
    let (setup, mut peer) = Setup::connected();
    let filters = Filters::new("t", AT_MOST_ONCE).stream_bytes(1);
    let mut stream = subscribe(&setup, &mut peer, filters);
    peer.send(&publish_0(b't', 1));
    assert_eq!(payloads(&mut stream), [1]);
}

#[test]
fn a_slow_stream_takes_nothing_from_a_fast_one() {
    let (setup, mut peer) = Setup::connected();
    let slow = Filters::new("t", AT_MOST_ONCE).stream_bytes(TWO_MESSAGES);
    let mut slow = subscribe(&setup, &mut peer, slow);
    let mut fast = subscribe(&setup, &mut peer, ("t", AT_MOST_ONCE));
    for number in 0..100 {
        peer.send(&publish_0(b't', number));
    }
    assert_eq!(payloads(&mut slow), [98, 99]);
    assert_eq!(payloads(&mut fast), (0..100).collect::<Vec<_>>());
}

// Acknowledging.

#[test]
fn on_receipt_a_message_is_acknowledged_before_anyone_took_it() {
    let (setup, mut peer) = Setup::connected();
    let mut stream = subscribe(&setup, &mut peer, by(Acknowledge::OnReceipt));
    peer.send(&publish_1(b't', 1, 1));
    peer.expect(&puback(1));
    peer.send(&publish_2(b't', 2, 2));
    peer.expect(b"\x50\x02\x00\x02");
    assert_eq!(payloads(&mut stream), [1, 2]);
}

#[test]
fn on_take_a_message_is_acknowledged_when_it_is_taken() {
    let (setup, mut peer) = Setup::connected();
    let mut stream = subscribe(&setup, &mut peer, by(Acknowledge::OnTake));
    peer.send(&publish_1(b't', 1, 1));
    peer.send(&publish_2(b't', 2, 2));
    peer.expect_nothing();
    assert!(stream.try_next().is_some());
    peer.expect(&puback(1));
    assert!(stream.try_next().is_some());
    peer.expect(b"\x50\x02\x00\x02");
}

#[test]
fn on_take_the_last_of_several_streams_acknowledges() {
    let (setup, mut peer) = Setup::connected();
    let mut first = subscribe(&setup, &mut peer, ("t", AT_LEAST_ONCE));
    let mut second = subscribe(&setup, &mut peer, ("+", AT_LEAST_ONCE));
    let third = subscribe(&setup, &mut peer, ("#", AT_LEAST_ONCE));
    peer.send(&publish_1(b't', 1, 1));
    assert!(first.try_next().is_some());
    peer.expect_nothing();
    // A message that a dropped stream held counts as taken.
    drop(third);
    peer.expect(b"\xa2\x06\x00\x04\x00\x00\x01#");
    assert!(second.try_next().is_some());
    peer.expect(&puback(1));
}

#[test]
fn a_message_that_is_not_taken_in_time_is_acknowledged_with_an_event_and_stays_queued() {
    let (mut setup, mut peer) = Setup::connected();
    let mut stream = subscribe(&setup, &mut peer, ("t", AT_LEAST_ONCE));
    drop(setup.events());
    peer.send(&publish_1(b't', 1, 1));
    setup.world.advance(5 * SECOND - SECOND / 1000);
    peer.expect_nothing();
    setup.world.advance(SECOND / 1000);
    peer.expect(&puback(1));
    let events = setup.events();
    assert!(
        matches!(&events[..], [Event::Overdue { topic, .. }] if **topic == *"t"),
        "{events:?}"
    );
    assert_eq!(setup.client.statistics().overdue, 1);
    assert_eq!(payloads(&mut stream), [1]);
    peer.expect_nothing();
}

#[test]
fn the_take_timeout_is_an_option() {
    let world = World::with_peers();
    let options = options(&world).take_timeout(2 * SECOND);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    let _stream = subscribe(&setup, &mut peer, ("t", AT_LEAST_ONCE));
    peer.send(&publish_1(b't', 1, 1));
    setup.world.advance(2 * SECOND);
    peer.expect(&puback(1));
}

#[test]
fn by_hand_the_acknowledgements_leave_in_the_order_of_arrival() {
    // [MQTT-4.6.0-2]
    let (setup, mut peer) = Setup::connected();
    let mut stream = subscribe(&setup, &mut peer, by(Acknowledge::ByHand));
    for id in 1..=3 {
        peer.send(&publish_1(b't', id, id));
    }
    let messages: Vec<_> = std::iter::from_fn(|| stream.try_next()).collect();
    messages[2].acknowledge().expect("once");
    messages[1].acknowledge().expect("once");
    peer.expect_nothing();
    // Hours may pass.
    setup.world.advance(30 * SECOND);
    peer.expect_nothing();
    messages[0].acknowledge().expect("once");
    peer.expect(&[1, 2, 3].map(puback).concat());
    let again = failure(messages[0].acknowledge());
    assert!(matches!(again.kind(), ErrorKind::Misuse(_)), "{again}");
    peer.expect_nothing();
}

#[test]
fn by_hand_a_message_can_be_refused_on_5() {
    let (setup, mut peer) = Setup::connected();
    let mut stream = subscribe(&setup, &mut peer, by(Acknowledge::ByHand));
    peer.send(&publish_1(b't', 1, 1));
    peer.send(&publish_2(b't', 2, 2));
    let first = stream.try_next().expect("queued");
    // A reason that PUBACK cannot carry [MQTT-3.4.2-1].
    let error = failure(first.refuse(Reason::SERVER_BUSY));
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    first.refuse(Reason::PAYLOAD_FORMAT_INVALID).expect("once");
    peer.expect(b"\x40\x03\x00\x01\x99");
    stream
        .try_next()
        .expect("queued")
        .refuse(Reason::QUOTA_EXCEEDED)
        .expect("once");
    peer.expect(b"\x50\x03\x00\x02\x97");
}

#[test]
fn by_hand_an_answer_may_say_why_on_5() {
    let (setup, mut peer) = Setup::connected();
    let mut stream = subscribe(&setup, &mut peer, by(Acknowledge::ByHand));
    peer.send(&publish_1(b't', 1, 1));
    peer.send(&publish_2(b't', 2, 2));
    let first = stream.try_next().expect("queued");
    // A property that PUBACK cannot carry, and one that cannot be written.
    let long = "x".repeat(70_000);
    for bad in [
        Properties::new().content_type("text"),
        Properties::new().reason_string(&long),
    ] {
        let error = failure(first.acknowledge_with(&bad));
        assert_eq!(error.sent(), Sent::No, "{error}");
    }
    let why = Properties::new().user_property("a", "b");
    first.acknowledge_with(&why).expect("once");
    peer.expect(b"\x40\x0B\x00\x01\x00\x07\x26\x00\x01a\x00\x01b");
    let why = Properties::new().reason_string("wet");
    let second = stream.try_next().expect("queued");
    second
        .refuse_with(Reason::QUOTA_EXCEEDED, &why)
        .expect("once");
    peer.expect(b"\x50\x0A\x00\x02\x97\x06\x1F\x00\x03wet");
}

#[test]
fn several_filters_are_given_up_at_once_with_properties() {
    let (setup, mut peer) = Setup::connected();
    let client = &setup.client;
    let (u, v) = (["u"; 1], ["u", "v"]);
    let no = [
        failure(now(client.unsubscribe_many(
            [],
            Properties::new(),
            Wait::Ack,
        ))),
        failure(now(client.unsubscribe_many(
            ["#/u"],
            Properties::new(),
            Wait::Ack,
        ))),
        failure(now(client.unsubscribe_many(
            u,
            Properties::new().reason_string("why"),
            Wait::Ack,
        ))),
    ];
    for error in &no {
        assert_eq!(error.sent(), Sent::No, "{error}");
    }
    let why = Properties::new().user_property("a", "b");
    let unsubscribing = client.unsubscribe_many(v, why, Wait::Ack);
    peer.expect(b"\xA2\x10\x00\x01\x07\x26\x00\x01a\x00\x01b\x00\x01u\x00\x01v");
    peer.send(b"\xB0\x05\x00\x01\x00\x00\x11");
    let unsubscribed = now(unsubscribing).expect("it is answered");
    assert_eq!(unsubscribed.reason(), Reason::SUCCESS);
    assert_eq!(
        unsubscribed.reasons(),
        [Reason::SUCCESS, Reason::NO_SUBSCRIPTION_EXISTED]
    );
}

#[test]
fn by_hand_a_refusal_is_an_acknowledgement_before_5() {
    let (setup, mut peer) = Setup::connected_3();
    let subscribing = setup
        .client
        .subscribe_many(by(Acknowledge::ByHand), Wait::Ack);
    peer.expect(b"\x82\x06\x00\x01\x00\x01t\x02");
    peer.send(b"\x90\x03\x00\x01\x02");
    let mut stream = now(subscribing).expect("granted");
    peer.send(b"\x32\x06\x00\x01t\x00\x01x");
    stream
        .try_next()
        .expect("queued")
        .refuse(Reason::QUOTA_EXCEEDED)
        .expect("once");
    peer.expect(&puback(1));
}

#[test]
fn by_hand_a_message_dropped_unacknowledged_is_an_event_and_comes_back_after_a_reconnect() {
    for (message, again, answer) in [
        (
            publish_1(b't', 1, 1),
            [0x3a, 7, 0, 1, b't', 0, 1, 0, 1],
            puback(1),
        ),
        (
            publish_2(b't', 1, 1),
            [0x3c, 7, 0, 1, b't', 0, 1, 0, 1],
            [0x50, 2, 0, 1],
        ),
    ] {
        let (mut setup, mut peer) = Setup::connected();
        let mut stream = subscribe(&setup, &mut peer, by(Acknowledge::ByHand));
        drop(setup.events());
        peer.send(&message);
        let taken = stream.try_next().expect("queued");
        // A clone keeps the duty alive.
        let clone = taken.clone();
        drop(taken);
        assert!(setup.events().is_empty());
        drop(clone);
        let events = setup.events();
        assert!(
            matches!(&events[..], [Event::Unacknowledged { .. }]),
            "{events:?}"
        );
        peer.expect_nothing();
        peer.reset();
        let mut peer = setup.greet_later(CONNACK_PRESENT);
        peer.send(&again);
        let taken = stream.try_next().expect("it came back");
        assert!(taken.is_duplicate());
        peer.expect_nothing();
        taken.acknowledge().expect("once");
        peer.expect(&answer);
    }
}

#[test]
fn a_message_acknowledged_by_hand_after_a_link_loss_is_not_handed_on_again() {
    let (setup, mut peer) = Setup::connected();
    let mut stream = subscribe(&setup, &mut peer, by(Acknowledge::ByHand));
    peer.send(&publish_1(b't', 1, 1));
    let message = stream.try_next().expect("queued");
    peer.reset();
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    // Redelivered while its taker still works on it (situation 10).
    peer.send(b"\x3a\x07\x00\x01t\x00\x01\x00\x01");
    assert!(stream.is_empty());
    message.acknowledge().expect("once");
    peer.expect(&puback(1));
}

#[test]
fn a_message_that_nobody_took_before_a_link_loss_is_not_queued_twice() {
    // Situation 10.
    let (setup, mut peer) = Setup::connected();
    let mut stream = subscribe(&setup, &mut peer, ("t", AT_LEAST_ONCE));
    peer.send(&publish_1(b't', 1, 1));
    peer.reset();
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    peer.send(b"\x3a\x07\x00\x01t\x00\x01\x00\x01");
    peer.expect_nothing();
    assert_eq!(payloads(&mut stream), [1]);
    peer.expect(&puback(1));
}

#[test]
fn a_message_taken_while_the_link_was_down_is_not_acknowledged_on_the_next_one() {
    // Situation 10: taking sends nothing; what the broker sends again is a repetition to QoS 1.
    let (setup, mut peer) = Setup::connected();
    let mut stream = subscribe(&setup, &mut peer, ("t", AT_LEAST_ONCE));
    peer.send(&publish_1(b't', 1, 1));
    peer.reset();
    assert_eq!(payloads(&mut stream), [1]);
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    peer.expect_nothing();
}

#[test]
fn only_a_message_received_by_hand_is_acknowledged_by_hand() {
    let (setup, mut peer) = Setup::connected();
    let mut stream = subscribe(&setup, &mut peer, ("t", AT_LEAST_ONCE));
    peer.send(&publish_1(b't', 1, 1));
    let error = failure(stream.try_next().expect("queued").acknowledge());
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    assert_eq!(error.doing(), Doing::Configuring);
}

#[test]
fn a_message_that_matches_nothing_is_acknowledged() {
    let (setup, mut peer) = Setup::connected();
    peer.send(&publish_1(b'z', 1, 1));
    peer.expect(&puback(1));
    peer.send(&publish_2(b'z', 2, 1));
    peer.expect(b"\x50\x02\x00\x02");
    peer.send(b"\x62\x02\x00\x02");
    peer.expect(b"\x70\x02\x00\x02");
    assert_eq!(setup.client.statistics().unmatched, 2);
}

#[test]
fn acknowledgements_for_one_read_leave_in_one_write() {
    let (setup, mut peer) = Setup::connected();
    let _stream = subscribe(&setup, &mut peer, by(Acknowledge::OnReceipt));
    let writes = setup.world.network().writes();
    let messages: Vec<u8> = (1..=100).flat_map(|id| publish_1(b't', id, 1)).collect();
    peer.send(&messages);
    assert_eq!(peer.received().len(), 400);
    assert_eq!(setup.world.network().writes() - writes, 1);
}

#[test]
fn a_subscription_holds_the_client_open() {
    let setup = Setup::with_broker(BrokerOptions::new());
    let mut stream = setup
        .wait(setup.client.subscribe("t", AT_LEAST_ONCE, Wait::Ack))
        .expect("granted");
    let Setup {
        world,
        client,
        driver,
        ..
    } = setup;
    drop(client);
    world.run_until_idle();
    world.broker(|broker, now| broker.publish(now, &Message::new("t", "x")));
    assert!(world.block_on(stream.next()).is_some());
    drop(stream);
    assert!(world.block_on(driver).is_ok());
    world.broker(|broker, _| {
        let last = broker.packets().last().map(|packet| packet.kind());
        assert_eq!(last, Some(Kind::Disconnect));
    });
}
