//! What a full queue means, and what expires, as the application sees it.

use std::time::Duration;

use coracle::testkit::{Attempt, BrokerOptions, World};
use coracle::{ErrorKind, Event, Message, Qos, Sent, Statistics, Wait, WhenFull};

use crate::{CONNACK, SECOND, Setup, failure, now, options};

const CLASSES: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

/// A client without a link, whose queues hold two messages of one letter.
fn offline(policy: WhenFull) -> Setup {
    let world = World::new(BrokerOptions::new());
    world.network().next_attempts(1, Attempt::Hang);
    let options = options(&world)
        .queue_bytes(67)
        .when_full(policy)
        .when_full_qos0(policy);
    Setup::start(world, options)
}

/// What the broker got once the link is there.
fn arrived(setup: &Setup) -> Vec<String> {
    setup
        .wait(setup.client.connected())
        .expect("the next attempt succeeds");
    setup.world.run_until_idle();
    setup.world.broker(|broker, _| {
        let messages = broker.messages().iter();
        messages
            .map(|message| String::from_utf8_lossy(message.payload()).into_owned())
            .collect()
    })
}

/// Published, failed, dropped for newer ones, dropped at once.
fn counts(statistics: Statistics) -> [u64; 4] {
    [
        statistics.published,
        statistics.queue_full,
        statistics.dropped_oldest,
        statistics.dropped_newest,
    ]
}

#[test]
fn a_sensor_that_drops_the_oldest_never_fails_and_sends_its_last_readings() {
    for qos in CLASSES {
        let mut setup = offline(WhenFull::DropOldest);
        for reading in 0..10 {
            let reading = reading.to_string();
            let publishing = setup.client.publish("t", reading, qos, Wait::None);
            assert!(now(publishing).is_ok());
            setup.world.run_until_idle();
        }
        assert_eq!(counts(setup.client.statistics()), [10, 0, 8, 0]);
        let events = setup.events();
        let told = |event: &Event| matches!(event, Event::Unpublished { .. });
        assert!(!events.iter().any(told), "{events:?}");
        assert_eq!(arrived(&setup), ["8", "9"]);
    }
}

#[test]
fn a_sensor_that_drops_the_newest_never_fails_and_sends_its_first_readings() {
    for qos in CLASSES {
        let mut setup = offline(WhenFull::DropNewest);
        for reading in 0..10 {
            let reading = reading.to_string();
            let publishing = setup.client.publish("t", reading, qos, Wait::None);
            assert!(now(publishing).is_ok());
        }
        assert_eq!(counts(setup.client.statistics()), [2, 0, 0, 8]);
        let events = setup.events();
        let told = |event: &Event| matches!(event, Event::Unpublished { .. });
        assert!(!events.iter().any(told), "{events:?}");
        assert_eq!(arrived(&setup), ["0", "1"]);
    }
}

#[test]
fn what_fails_is_counted_and_who_stands_in_line_has_not_failed() {
    for qos in CLASSES {
        let setup = offline(WhenFull::Fail);
        for _ in 0..2 {
            assert!(now(setup.client.publish("t", "a", qos, Wait::None)).is_ok());
        }
        let error = failure(now(setup.client.publish("t", "b", qos, Wait::None)));
        assert!(matches!(error.kind(), ErrorKind::QueueFull), "{error}");
        let parked = setup.client.publish("t", "c", qos, Wait::Ack);
        assert_eq!(counts(setup.client.statistics()), [3, 1, 0, 0]);
        assert_eq!(arrived(&setup), ["a", "a", "c"]);
        assert!(setup.wait(parked).is_ok());
    }
}

#[test]
fn one_who_waits_learns_that_the_message_was_dropped() {
    for qos in CLASSES {
        let setup = offline(WhenFull::DropOldest);
        let [first, second, third] =
            ["a", "b", "c"].map(|letter| setup.client.publish("t", letter, qos, Wait::Ack));
        let error = failure(setup.wait(first));
        let policy = WhenFull::DropOldest;
        assert!(matches!(error.kind(), ErrorKind::Dropped(it) if *it == policy));
        assert_eq!(error.sent(), Sent::No);
        assert!(setup.wait(second).is_ok());
        assert!(setup.wait(third).is_ok());
        assert_eq!(arrived(&setup), ["b", "c"]);
    }
}

#[test]
fn a_message_that_is_dropped_at_once_comes_back_to_one_who_waits() {
    for qos in CLASSES {
        let setup = offline(WhenFull::DropNewest);
        for _ in 0..2 {
            assert!(now(setup.client.publish("t", "a", qos, Wait::None)).is_ok());
        }
        let error = failure(now(setup.client.publish("t", "b", qos, Wait::Ack)));
        assert!(matches!(error.kind(), ErrorKind::Dropped(_)), "{error}");
        let message = Message::new("t", "c").qos(qos);
        let unpublished = now(setup.client.publish_message(message, Wait::Sent));
        let message = unpublished.expect_err("no room").message;
        assert_eq!(message.expect("it comes back").payload(), b"c");
        assert_eq!(setup.client.statistics().waits, 0);
    }
}

#[test]
fn a_dropped_message_whose_future_is_gone_is_an_event() {
    let mut setup = offline(WhenFull::DropOldest);
    for _ in 0..3 {
        drop(setup.client.publish("t", "a", Qos::AtLeastOnce, Wait::Ack));
    }
    let events = setup.events();
    assert!(
        events.iter().any(|event| matches!(
            event,
            Event::Unpublished { error, .. } if matches!(error.kind(), ErrorKind::Dropped(_))
        )),
        "{events:?}"
    );
}

#[test]
fn a_request_that_is_dropped_fails() {
    let world = World::with_peers();
    let options = options(&world)
        .window(1)
        .queue_bytes(100)
        .when_full(WhenFull::DropOldest);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    // The first asks for the inbox; then one request is under way and another pending.
    let requests: Vec<_> = (0..2)
        .map(|_| {
            let message = Message::new("t", "x").qos(Qos::AtLeastOnce);
            setup.client.request_message(message, 60 * SECOND)
        })
        .collect();
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x01");
    peer.received();
    let publishing = setup.client.publish("t", "y", Qos::AtLeastOnce, Wait::None);
    assert!(now(publishing).is_ok());
    let mut requests = requests.into_iter();
    let _under_way = requests.next();
    let error = failure(setup.wait(requests.next().expect("two")));
    assert!(matches!(error.kind(), ErrorKind::Dropped(_)), "{error}");
}

#[test]
fn a_long_burst_within_one_turn_holds_what_the_queue_holds() {
    let setup = offline(WhenFull::DropOldest);
    for _ in 0..100_000 {
        drop(setup.client.publish("t", "a", Qos::AtLeastOnce, Wait::None));
    }
    let statistics = setup.client.statistics();
    assert_eq!(statistics.unfinished, 2);
    assert_eq!(statistics.dropped_oldest, 99_998);
}

#[test]
fn what_expires_without_a_link_is_counted_and_told_in_time() {
    for qos in CLASSES {
        let world = World::new(BrokerOptions::new());
        world.network().all_attempts(Attempt::Hang);
        let mut setup = Setup::start(world.clone(), options(&world));
        let message = || Message::new("t", "x").qos(qos).expiry(2 * SECOND);
        assert!(now(setup.client.publish_message(message(), Wait::None)).is_ok());
        let waiting = setup.client.publish_message(message(), Wait::Ack);
        world.advance(Duration::from_millis(1_999));
        assert_eq!(setup.client.statistics().expired, 0);
        world.advance(Duration::from_millis(2));
        let error = failure(now(waiting).map_err(coracle::Error::from));
        assert!(matches!(error.kind(), ErrorKind::Expired), "{error}");
        assert_eq!(error.sent(), Sent::No);
        assert_eq!(setup.client.statistics().expired, 2);
        let events = setup.events();
        assert!(
            events.iter().any(|event| matches!(
                event,
                Event::Unpublished { error, .. } if matches!(error.kind(), ErrorKind::Expired)
            )),
            "{events:?}"
        );
    }
}
