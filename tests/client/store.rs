//! A client with a store: what its calls promise, what the next process takes over, and what a store that
//! fails does to it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use coracle::protocol::record::{Entry, Outgoing};
use coracle::testkit::{Attempt, MemoryStore, Peer, World};
use coracle::{
    Acknowledge, Client, ErrorKind, Event, Filters, Message, Options, Properties, Qos, Reason,
    Sent, Session, StoreError, StoreErrorKind, Subscription, Version, Wait, Waiting, WhenFull,
};

use crate::{CONNACK, CONNACK_3, CONNACK_PRESENT, SECOND, Setup, failure, now, options, poll};

/// PUBLISH of `x` to `t` with identifier 1 at QoS 1, and the same again.
const PUBLISH: &[u8] = b"\x32\x07\x00\x01t\x00\x01\x00x";
const AGAIN: &[u8] = b"\x3A\x07\x00\x01t\x00\x01\x00x";
const PUBACK: &[u8] = b"\x40\x02\x00\x01";

/// A process whose client has this store, and its connection. The one before has ended like after a crash.
fn live(store: &MemoryStore, connack: &[u8]) -> (Setup, Peer) {
    live_with(store, connack, |options| options)
}

fn live_with(
    store: &MemoryStore,
    connack: &[u8],
    set: impl FnOnce(Options) -> Options,
) -> (Setup, Peer) {
    let setup = begin(store, set);
    let peer = setup.greet(connack);
    setup.world.run_until_idle();
    (setup, peer)
}

fn begin(store: &MemoryStore, set: impl FnOnce(Options) -> Options) -> Setup {
    store.crash();
    let world = World::with_peers();
    let options = set(options(&world).store(store.clone()));
    Setup::start(world, options)
}

fn subscribe(setup: &Setup, acknowledge: Acknowledge) -> Subscription {
    let filters = Filters::new("t", Qos::ExactlyOnce).acknowledge(acknowledge);
    now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted")
}

fn full() -> StoreError {
    StoreError::new(StoreErrorKind::Full, "writing /x: no space left")
}

#[test]
fn sent_returns_when_the_message_is_on_disk_and_flushed() {
    let store = MemoryStore::new();
    let (setup, mut peer) = live(&store, CONNACK);
    store.hold();
    let mut sent = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Sent);
    peer.expect_nothing();
    assert!(poll(&mut sent).is_none());
    store.commit();
    peer.expect(PUBLISH);
    assert!(poll(&mut sent).is_some_and(|outcome| outcome.is_ok()));
}

#[test]
fn what_is_called_for_meanwhile_goes_with_one_batch() {
    let store = MemoryStore::new();
    let (setup, _peer) = live(&store, CONNACK);
    store.hold();
    let before = store.batches();
    for _ in 0..100 {
        drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
        setup.world.run_until_idle();
    }
    store.commit();
    setup.world.run_until_idle();
    assert_eq!(store.batches() - before, 2);
}

#[test]
fn a_message_is_on_disk_though_there_was_never_a_connection() {
    let store = MemoryStore::new();
    let setup = begin(&store, |options| options);
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    setup.world.run_until_idle();
    drop(setup);
    let (mut setup, mut peer) = live(&store, CONNACK);
    peer.expect(PUBLISH);
    let events = setup.events();
    assert!(
        matches!(
            events.as_slice(),
            [
                Event::Restored {
                    outgoing: 1,
                    same_session: false,
                    ..
                },
                Event::Connected { .. }
            ]
        ),
        "{events:?}"
    );
}

#[test]
fn the_next_process_goes_on_with_the_session_and_says_so() {
    let store = MemoryStore::new();
    let (setup, mut peer) = live(&store, CONNACK);
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    peer.expect(PUBLISH);
    let _stream = subscribe(&setup, Acknowledge::OnTake);
    peer.received();
    drop(setup.driver);
    let (mut setup, mut peer) = live(&store, CONNACK_PRESENT);
    peer.expect(AGAIN);
    let events = setup.events();
    assert!(
        matches!(
            events.as_slice(),
            [
                Event::Restored {
                    outgoing: 1,
                    incoming: 0,
                    filters,
                    same_session: true,
                    ..
                },
                Event::Connected {
                    session_present: true,
                    ..
                },
            ] if filters.iter().map(AsRef::as_ref).eq(["t"])
        ),
        "{events:?}"
    );
    peer.send(PUBACK);
    // Nobody subscribed again.
    setup.world.advance(5 * SECOND);
    peer.expect(b"\xA2\x06\x00\x02\x00\x00\x01t");
}

#[test]
fn another_client_version_or_broker_does_not_go_on_with_the_session() {
    let elsewhere = |world: &World, url: &str, id: &str| {
        Options::new(url, id)
            .expect("the URL is well-formed")
            .connector(world.network())
            .clock(world.clock())
            .seed(1)
    };
    for (url, id, version, connack) in [
        ("mqtt://broker", "d", Version::V5_0, CONNACK),
        ("mqtt://other", "c", Version::V5_0, CONNACK),
        ("mqtt://broker", "c", Version::V3_1_1, CONNACK_3),
    ] {
        let store = MemoryStore::new();
        let (setup, mut peer) = live(&store, CONNACK);
        drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
        peer.expect(PUBLISH);
        drop(setup);
        store.crash();
        let world = World::with_peers();
        let options = elsewhere(&world, url, id)
            .version(version)
            .store(store.clone());
        let mut setup = Setup::start(world, options);
        let mut peer = setup.greet(connack);
        // Sent anew, without DUP.
        let sent = peer.received();
        assert_eq!(sent.first(), Some(&0x32), "{url} {id} {version}: {sent:?}");
        let events = setup.events();
        assert!(
            matches!(
                events.first(),
                Some(Event::Restored {
                    same_session: false,
                    ..
                })
            ),
            "{url} {id} {version}: {events:?}"
        );
    }
}

#[test]
fn a_payload_is_on_disk_before_it_is_acknowledged_on_receipt() {
    // [MQTT-4.3.2-4]
    let store = MemoryStore::new();
    let (setup, mut peer) = live(&store, CONNACK);
    let _stream = subscribe(&setup, Acknowledge::OnReceipt);
    peer.received();
    store.hold();
    peer.send(PUBLISH);
    peer.expect_nothing();
    store.commit();
    peer.expect(PUBACK);
    drop(setup);
    store.release();
    let (setup, _peer) = live(&store, CONNACK_PRESENT);
    let mut stream = subscribe(&setup, Acknowledge::OnTake);
    let message = now(stream.next()).expect("it was acknowledged");
    assert_eq!(message.payload(), b"x");
}

#[test]
fn a_message_that_one_takes_and_another_does_not_is_on_disk_before_it_is_acknowledged_late() {
    let store = MemoryStore::new();
    let (setup, mut peer) = live(&store, CONNACK);
    let filters = Filters::new("t/#", Qos::AtLeastOnce).acknowledge(Acknowledge::OnReceipt);
    let untaken = now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted");
    let mut taken =
        now(setup.client.subscribe("t/x", Qos::AtLeastOnce, Wait::None)).expect("accepted");
    peer.received();
    // The second one is for the stream alone that acknowledges on receipt.
    peer.send(b"\x32\x09\x00\x03t/x\x00\x01\x00x");
    peer.send(b"\x32\x09\x00\x03t/a\x00\x02\x00a");
    assert!(setup.wait(taken.next()).is_some());
    peer.expect_nothing();
    setup.world.advance(5 * SECOND);
    peer.expect(b"\x40\x02\x00\x01\x40\x02\x00\x02");
    assert_eq!(untaken.len(), 2);
    drop(setup);

    let (setup, _peer) = live(&store, CONNACK_PRESENT);
    let mut stream =
        now(setup.client.subscribe("t/#", Qos::AtLeastOnce, Wait::None)).expect("accepted");
    let mut topics = Vec::new();
    while let Some(message) = stream.try_next() {
        topics.push(message.topic().to_owned());
    }
    topics.sort();
    assert_eq!(topics, ["t/a", "t/x"]);
}

#[test]
fn a_handler_is_called_with_what_an_earlier_process_had_acknowledged() {
    let store = MemoryStore::new();
    let (setup, mut peer) = live(&store, CONNACK);
    let _stream = subscribe(&setup, Acknowledge::OnReceipt);
    peer.received();
    peer.send(PUBLISH);
    peer.expect(PUBACK);
    drop(setup);
    let (setup, _peer) = live(&store, CONNACK_PRESENT);
    let heard = Rc::new(RefCell::new(Vec::new()));
    let hearing = Rc::clone(&heard);
    let client = setup.client.clone();
    let handler = move |incoming: &coracle::Incoming<'_>| {
        assert!(client.is_connected());
        hearing.borrow_mut().push(incoming.payload().to_vec());
    };
    let filters = Filters::new("t", Qos::AtLeastOnce);
    let _handle = now(setup.client.subscribe_inline(filters, handler, Wait::None));
    setup.world.run_until_idle();
    assert_eq!(*heard.borrow(), [b"x"]);
}

#[test]
fn what_is_owed_by_hand_to_the_store_stays_there_until_it_is_answered() {
    let store = MemoryStore::new();
    let (setup, mut peer) = live(&store, CONNACK);
    let _stream = subscribe(&setup, Acknowledge::OnReceipt);
    peer.received();
    peer.send(PUBLISH);
    peer.expect(PUBACK);
    drop(setup);
    for answered in [false, true] {
        let (setup, _peer) = live(&store, CONNACK_PRESENT);
        let mut stream = subscribe(&setup, Acknowledge::ByHand);
        let message = now(stream.next()).expect("it is still there");
        if answered {
            message.acknowledge().expect("it is owed");
        }
        setup.world.run_until_idle();
    }
    let (setup, _peer) = live(&store, CONNACK_PRESENT);
    let mut stream = subscribe(&setup, Acknowledge::ByHand);
    assert!(stream.try_next().is_none());
}

#[test]
fn what_nobody_asked_for_in_time_is_forgotten() {
    let store = MemoryStore::new();
    let (setup, mut peer) = live(&store, CONNACK);
    let _stream = subscribe(&setup, Acknowledge::OnReceipt);
    peer.received();
    peer.send(PUBLISH);
    peer.expect(PUBACK);
    drop(setup);
    let (setup, mut peer) = live(&store, CONNACK_PRESENT);
    setup.world.advance(5 * SECOND);
    peer.received();
    peer.send(b"\xB0\x04\x00\x01\x00\x00");
    setup.world.run_until_idle();
    assert_eq!(store.records().len(), 1, "the session alone");
}

#[test]
fn disconnect_waits_for_the_last_batch_and_does_not_end_the_session() {
    let store = MemoryStore::new();
    let (setup, mut peer) = live(&store, CONNACK);
    let acknowledged = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    peer.expect(PUBLISH);
    store.hold();
    peer.send(PUBACK);
    setup.world.run_until_idle();
    assert!(now(acknowledged).is_ok());
    let mut leaving = setup.client.disconnect();
    peer.expect_nothing();
    assert!(poll(&mut leaving).is_none());
    store.commit();
    peer.expect(b"\xE0\x00");
    peer.close();
    setup.world.run_until_idle();
    assert!(now(leaving).is_ok());
    assert!(setup.world.block_on(setup.driver).is_ok());
    assert_eq!(store.records().len(), 1, "the session alone");
}

/// Its end has no record any more of what is taken, so the next one would get it again [MQTT-4.3.3-10].
#[test]
fn what_is_untaken_when_the_client_ends_comes_to_the_next_process_alone() {
    for (acknowledge, qos) in [
        (Acknowledge::OnTake, 4),
        (Acknowledge::OnTake, 2),
        (Acknowledge::OnReceipt, 4),
        (Acknowledge::OnReceipt, 2),
        (Acknowledge::ByHand, 4),
    ] {
        let store = MemoryStore::new();
        let (setup, mut peer) = live(&store, CONNACK);
        let mut stream = subscribe(&setup, acknowledge);
        peer.received();
        peer.send(b"\x90\x04\x00\x01\x00\x02");
        let publish = [&[0x30 | qos], &PUBLISH[1..]].concat();
        peer.send(&publish);
        peer.send(b"\x30\x05\x00\x01t\x00z");
        setup.world.run_until_idle();
        assert_eq!(stream.len(), 2);
        let acknowledged = !peer.received().is_empty();
        setup.wait(setup.client.disconnect()).expect("it ends well");
        let left = now(stream.next()).expect("QoS 0 does not come again");
        assert_eq!(left.payload(), b"z", "{acknowledge:?} {qos}");
        assert!(now(stream.next()).is_none(), "{acknowledge:?} {qos}");
        drop((stream, setup));

        let (setup, mut peer) = live(&store, CONNACK_PRESENT);
        let mut stream = subscribe(&setup, Acknowledge::OnTake);
        setup.world.run_until_idle();
        if !acknowledged {
            peer.send(&[&[0x38 | qos], &PUBLISH[1..]].concat());
            setup.world.run_until_idle();
        }
        let message = now(stream.next()).expect("it was not taken");
        assert_eq!(message.payload(), b"x");
        assert!(stream.try_next().is_none(), "{acknowledge:?} {qos}");
    }
}

#[test]
fn what_comes_to_no_other_process_can_be_read_after_the_end() {
    // The session is gone, and with it what the broker would have sent again.
    let (store, lost) = (MemoryStore::new(), "lost by the broker");
    let (setup, mut peer) = live(&store, CONNACK);
    let mut stream = subscribe(&setup, Acknowledge::OnTake);
    peer.send(PUBLISH);
    setup.world.run_until_idle();
    peer.close();
    let _peer = setup.greet_later(CONNACK);
    setup.wait(setup.client.disconnect()).expect("it ends well");
    assert!(now(stream.next()).is_some(), "{lost}");

    let (store, ended) = (MemoryStore::new(), "ended by the client");
    let (setup, mut peer) = live(&store, CONNACK);
    let mut stream = subscribe(&setup, Acknowledge::OnTake);
    peer.send(PUBLISH);
    setup.world.run_until_idle();
    let farewell = Properties::new().session_expiry_interval(0);
    let leaving = setup.client.disconnect_with(Reason::SUCCESS, farewell);
    setup.wait(leaving).expect("it ends well");
    assert!(now(stream.next()).is_some(), "{ended}");
}

#[test]
fn what_is_unfinished_when_the_client_ends_may_still_be_sent() {
    let store = MemoryStore::new();
    let setup = begin(&store, |options| options);
    let publishing = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    setup.world.run_until_idle();
    drop(setup.driver);
    setup.world.run_until_idle();
    let error = failure(now(publishing));
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    assert_eq!(error.sent(), Sent::Maybe);
}

#[test]
fn a_store_that_fails_ends_the_waits_and_the_driver_without_a_goodbye() {
    let store = MemoryStore::new();
    let (mut setup, mut peer) = live(&store, CONNACK);
    store.hold();
    let handed_over = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    setup.world.run_until_idle();
    let gathered = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    setup.world.run_until_idle();
    store.fail(full());
    let events = setup.events();
    assert!(
        matches!(events.last(), Some(Event::StoreFailed { error }) if matches!(error.kind(), ErrorKind::Store(_))),
        "{events:?}"
    );
    let error = failure(now(handed_over));
    assert_eq!(
        (error.to_string().as_str(), error.sent()),
        (
            "publish: writing /x: no space left (perhaps sent)",
            Sent::Maybe
        )
    );
    assert_eq!(failure(now(gathered)).sent(), Sent::No);
    let error = failure(setup.world.block_on(setup.driver));
    assert!(
        matches!(error.kind(), ErrorKind::Store(failed) if failed.kind() == StoreErrorKind::Full)
    );
    // The broker publishes the will.
    peer.expect_nothing();
    assert!(peer.is_closed());
    let late = now(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack));
    assert_eq!(
        failure(late).to_string(),
        "publish: the client is closed (not sent); before that, store: writing /x: no space left"
    );
}

#[test]
fn a_store_that_fails_while_there_is_no_connection_ends_the_driver_too() {
    let store = MemoryStore::new();
    let setup = begin(&store, |options| options);
    let mut peer = setup.greet(CONNACK);
    peer.reset();
    setup.world.run_until_idle();
    store.fail(full());
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    let error = failure(setup.world.block_on(setup.driver));
    assert!(matches!(error.kind(), ErrorKind::Store(_)), "{error}");
}

/// A client that has lost its connection and leaves while its last batch is on the way.
fn leave_with_a_batch_on_its_way(
    store: &MemoryStore,
    set: fn(Options) -> Options,
) -> (Setup, Waiting) {
    let (setup, mut peer) = live_with(store, CONNACK, set);
    peer.reset();
    setup.world.run_until_idle();
    store.hold();
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    let mut leaving = setup.client.disconnect();
    setup.world.advance(Duration::from_millis(4999));
    assert!(poll(&mut leaving).is_none(), "the batch is on its way");
    (setup, leaving)
}

#[test]
fn a_store_that_fails_with_the_last_batch_is_told_by_disconnect_and_by_the_driver() {
    let store = MemoryStore::new();
    let (setup, leaving) = leave_with_a_batch_on_its_way(&store, |options| options);
    store.fail(full());
    let error = failure(setup.wait(leaving));
    assert_eq!(
        error.to_string(),
        "disconnect: the client is closed; before that, store: writing /x: no space left"
    );
    let error = failure(setup.world.block_on(setup.driver));
    assert_eq!(error.to_string(), "store: writing /x: no space left");
}

#[test]
fn a_store_that_takes_too_long_for_the_last_batch_has_failed() {
    let store = MemoryStore::new();
    let (mut setup, leaving) = leave_with_a_batch_on_its_way(&store, |options| options);
    setup.world.advance(Duration::from_millis(1));
    let error = failure(now(leaving));
    assert_eq!(
        error.to_string(),
        "disconnect: the client is closed; before that, store: the last changes are not on disk after 5s"
    );
    let events = setup.events();
    assert!(
        matches!(events.last(), Some(Event::StoreFailed { .. })),
        "{events:?}"
    );
    let error = failure(setup.world.block_on(setup.driver));
    assert!(matches!(error.kind(), ErrorKind::Store(_)), "{error}");
}

#[test]
fn one_that_goes_on_without_its_store_ends_without_it_too() {
    for hangs in [false, true] {
        let store = MemoryStore::new();
        let (mut setup, leaving) =
            leave_with_a_batch_on_its_way(&store, |options| options.go_on_without_store(true));
        if hangs {
            setup.world.advance(Duration::from_millis(1));
        } else {
            store.fail(full());
        }
        let error = failure(setup.wait(leaving));
        assert!(
            matches!(error.kind(), ErrorKind::Unacknowledged(1)),
            "{error}"
        );
        let events = setup.events();
        assert!(
            matches!(events.last(), Some(Event::StoreFailed { .. })),
            "{events:?}"
        );
        assert!(setup.world.block_on(setup.driver).is_ok());
    }
}

#[test]
fn a_store_that_cannot_be_read_ends_the_driver_before_it_connects() {
    let store = MemoryStore::new();
    store.fail(full());
    let world = World::with_peers();
    let options = options(&world).store(store);
    let setup = Setup::start(world, options);
    let error = failure(setup.world.block_on(setup.driver));
    assert_eq!(error.to_string(), "store: writing /x: no space left");
    assert_eq!(setup.world.network().attempts(), 0);
}

#[test]
fn the_client_goes_on_without_its_store_if_the_user_chose_so() {
    let store = MemoryStore::new();
    let (mut setup, mut peer) =
        live_with(&store, CONNACK, |options| options.go_on_without_store(true));
    store.hold();
    let acknowledged = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    peer.expect_nothing();
    store.fail(full());
    peer.expect(PUBLISH);
    peer.send(PUBACK);
    setup.world.run_until_idle();
    assert!(now(acknowledged).is_ok());
    let events = setup.events();
    assert!(
        matches!(events.last(), Some(Event::StoreFailed { .. })),
        "{events:?}"
    );
    let before = store.batches();
    drop(setup.client.publish("t", "y", Qos::AtLeastOnce, Wait::None));
    peer.expect(b"\x32\x07\x00\x01t\x00\x02\x00y");
    assert_eq!(store.batches(), before);
}

#[test]
fn one_store_serves_one_client_and_wants_a_session() {
    let world = World::with_peers();
    let shared = options(&world).store(MemoryStore::new());
    let (_first, _driver) = Client::new(shared.clone());
    let (_second, driver) = Client::new(shared);
    let error = failure(world.block_on(driver.run()));
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    for set in [
        (|options: Options| options.session(Session::None)) as fn(Options) -> Options,
        |options| options.session_expiry(Duration::ZERO),
    ] {
        let (_client, driver) = Client::new(set(options(&world).store(MemoryStore::new())));
        let error = failure(world.block_on(driver.run()));
        assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    }
}

#[test]
fn a_message_that_is_published_with_everything_keeps_it() {
    let store = MemoryStore::new();
    let setup = begin(&store, |options| options);
    let message = Message::new("t", "x")
        .qos(Qos::ExactlyOnce)
        .retain(true)
        .properties(Properties::new().user_property("k", "v"));
    drop(setup.client.publish_message(message, Wait::None));
    setup.world.run_until_idle();
    drop(setup);
    let (_setup, mut peer) = live(&store, CONNACK);
    peer.expect(b"\x35\x0E\x00\x01t\x00\x01\x07\x26\x00\x01k\x00\x01vx");
}

#[test]
fn a_message_that_came_with_dup_is_passed_on_without_it() {
    // [MQTT-3.3.1-3]: DUP of an outgoing message has nothing to do with that of an incoming one.
    let store = MemoryStore::new();
    let (setup, mut peer) = live(&store, CONNACK);
    let mut stream = subscribe(&setup, Acknowledge::OnTake);
    peer.received();
    peer.send(b"\x3A\x07\x00\x01t\x00\x09\x00x");
    let message = now(stream.next()).expect("it arrived");
    peer.reset();
    setup.world.run_until_idle();
    let again = message.qos(Qos::AtLeastOnce);
    now(setup.client.publish_message(again, Wait::None)).expect("accepted");
    setup.world.run_until_idle();
    drop(setup);
    let (_setup, mut peer) = live(&store, CONNACK);
    peer.expect(PUBLISH);
}

#[test]
fn a_filter_of_requests_that_an_older_version_cannot_have_is_not_stored() {
    let store = MemoryStore::new();
    let auto = |options: Options| options.version(Version::Auto);
    let setup = begin(&store, auto);
    let service = setup
        .client
        .serve(("a/#", Qos::AtLeastOnce), |_| "y", Wait::None);
    let _service = now(service).expect("accepted");
    let mut peer = setup.greet(b"\x20\x02\x00\x01");
    peer.close();
    setup.world.run_until_idle();
    // The next attempt speaks 3.1.1, and the process is killed while it waits for CONNACK.
    let mut older = setup.world.peer();
    assert_eq!(older.received()[8], 4);
    drop(setup);
    let (setup, _peer) = live_with(&store, CONNACK, auto);
    assert!(setup.client.is_connected());
}

#[test]
fn messages_published_after_a_restart_overwrite_none_of_those_before() {
    // paho.mqtt.c #618: numbering began anew with each process, so new files replaced old ones.
    let store = MemoryStore::new();
    let mut expected = Vec::new();
    for life in 0..5_u8 {
        let setup = begin(&store, |options| options);
        for number in 0..3_u8 {
            let text = [b'a' + life, b'0' + number];
            let publishing = setup
                .client
                .publish("t", &text[..], Qos::AtLeastOnce, Wait::None);
            now(publishing).expect("accepted");
            expected.push(text);
        }
        // It never has a connection, and ends like in a crash.
        setup.world.run_until_idle();
    }
    let (_setup, mut peer) = live(&store, CONNACK);
    let wire = peer.received();
    // 8 bytes of header, topic, identifier and properties, then two of text.
    let sent: Vec<_> = wire
        .chunks(10)
        .map(|packet| [packet[8], packet[9]])
        .collect();
    assert_eq!(sent, expected, "{}", wire.escape_ascii());
}

/// A process without a link, whose queue holds ten messages of 35 bytes to `t`. It publishes `texts` before its
/// driver runs.
fn live_offline(store: &MemoryStore, policy: WhenFull, texts: &[String]) -> Setup {
    store.crash();
    let world = World::with_peers();
    world.network().all_attempts(Attempt::Hang);
    let options = options(&world)
        .queue_bytes(1_000)
        .when_full(policy)
        .store(store.clone());
    let (client, driver) = Client::new(options);
    for text in texts {
        let publishing = client.publish("t", text.clone(), Qos::AtLeastOnce, Wait::None);
        now(publishing).expect("accepted");
    }
    let setup = Setup::run(world, client, driver);
    setup.world.run_until_idle();
    setup
}

/// 35 bytes, so that a message with it to `t` counts 100.
fn text(number: usize) -> String {
    format!("{number:35}")
}

/// The numbers of the messages that the store has, in their order.
fn stored(store: &MemoryStore) -> Vec<usize> {
    let mut numbers = Vec::new();
    for record in store.records() {
        if let Ok(Entry::Outgoing(_, Outgoing::Message { message, .. })) = Entry::read(&record) {
            let text = String::from_utf8_lossy(message.payload()).into_owned();
            numbers.push(text.trim().parse().expect("a number"));
        }
    }
    numbers
}

#[test]
fn restarts_without_a_link_fill_the_queue_once_and_the_policy_decides_what_is_in_it() {
    // What is published before the driver runs comes before the store is read.
    for (policy, expected) in [
        (WhenFull::Fail, 0..10),
        (WhenFull::DropNewest, 0..10),
        (WhenFull::DropOldest, 170..180),
    ] {
        let store = MemoryStore::new();
        let mut untold = 0;
        let mut counted = 0;
        for life in 0..20 {
            let texts: Vec<_> = (life * 9..(life + 1) * 9).map(text).collect();
            let mut setup = live_offline(&store, policy, &texts);
            let statistics = setup.client.statistics();
            assert!(statistics.unfinished <= 10, "{policy:?}: {statistics:?}");
            counted += match policy {
                WhenFull::Fail => statistics.queue_full,
                WhenFull::DropNewest => statistics.dropped_newest,
                _ => statistics.dropped_oldest,
            };
            let told = setup.events().into_iter().filter(|event| match event {
                Event::Unpublished { message, error } => {
                    assert!(matches!(error.kind(), ErrorKind::QueueFull), "{error}");
                    assert_eq!(error.sent(), Sent::No);
                    message.is_some()
                }
                _ => false,
            });
            untold += 9 - told.count();
        }
        assert_eq!(stored(&store), expected.collect::<Vec<_>>(), "{policy:?}");
        assert_eq!(counted, 170, "{policy:?}");
        assert_eq!(untold, if policy == WhenFull::Fail { 10 } else { 180 });
    }
}

#[test]
fn one_who_waits_since_before_the_store_was_read_stands_in_line_for_it() {
    let store = MemoryStore::new();
    let texts: Vec<_> = (0..10).map(text).collect();
    drop(live_offline(&store, WhenFull::Fail, &texts));
    store.crash();
    let world = World::with_peers();
    let options = options(&world).queue_bytes(1_000).store(store.clone());
    let (client, driver) = Client::new(options);
    let publish = |number| client.publish("t", text(number), Qos::AtLeastOnce, Wait::Ack);
    let mut waits: Vec<_> = (10..22).map(publish).collect();
    let setup = Setup::run(world, client, driver);
    let mut peer = setup.greet(CONNACK);
    setup.world.run_until_idle();
    assert_eq!(stored(&store), (0..10).collect::<Vec<_>>());
    assert_eq!(setup.client.statistics().unfinished, 10);
    let mut sent = Vec::new();
    for id in 1..=22 {
        sent.extend(peer.received());
        peer.send(&[0x40, 2, 0, id]);
    }
    // 8 bytes of header, topic, identifier and properties, then 35 of text.
    let sent: Vec<_> = sent.chunks(43).map(|packet| &packet[8..]).collect();
    let expected: Vec<_> = (0..22).map(text).collect();
    assert_eq!(sent.concat(), expected.concat().into_bytes());
    for wait in &mut waits {
        assert!(poll(wait).is_some_and(|outcome| outcome.is_ok()));
    }
}

#[test]
fn one_who_waits_since_before_the_store_was_read_learns_that_the_message_was_dropped() {
    for policy in [WhenFull::DropOldest, WhenFull::DropNewest] {
        let store = MemoryStore::new();
        let set = |options: Options| options.queue_bytes(1_000).when_full(policy);
        let (setup, mut peer) = live_with(&store, CONNACK, set);
        for number in 0..10 {
            drop(
                setup
                    .client
                    .publish("t", text(number), Qos::AtLeastOnce, Wait::None),
            );
        }
        assert_eq!(peer.received().len(), 10 * 43);
        drop(setup.driver);
        store.crash();
        let world = World::with_peers();
        let (client, driver) = Client::new(set(options(&world).store(store.clone())));
        let mut wait = client.publish("t", text(10), Qos::AtLeastOnce, Wait::Ack);
        let driver = world.spawn(driver.run());
        world.run_until_idle();
        let error = failure(poll(&mut wait).expect("it ended"));
        let dropped = ErrorKind::Dropped(WhenFull::DropNewest);
        assert_eq!(format!("{:?}", error.kind()), format!("{dropped:?}"));
        assert_eq!(error.sent(), Sent::No);
        assert_eq!(client.statistics().dropped_newest, 1);
        assert_eq!(stored(&store), (0..10).collect::<Vec<_>>());
        drop(driver);
    }
}

#[test]
fn no_message_is_dropped_where_that_makes_no_room() {
    let store = MemoryStore::new();
    let (setup, mut peer) = live_with(&store, CONNACK, |options| options.window(10));
    for number in 0..15 {
        drop(
            setup
                .client
                .publish("t", text(number), Qos::AtLeastOnce, Wait::None),
        );
    }
    assert_eq!(peer.received().len(), 10 * 43);
    drop(setup.driver);
    // What was sent and is not acknowledged fills this queue alone.
    let setup = live_offline(&store, WhenFull::DropOldest, &[text(15)]);
    let publishing = setup
        .client
        .publish("t", text(16), Qos::AtLeastOnce, Wait::None);
    now(publishing).expect("nobody waits for it");
    setup.world.run_until_idle();
    assert_eq!(stored(&store), (0..15).collect::<Vec<_>>());
    let statistics = setup.client.statistics();
    assert_eq!(
        (statistics.dropped_oldest, statistics.dropped_newest),
        (0, 2)
    );
}

/// PUBLISHes to `t` with these identifiers, of 8 KiB each.
fn flood(identifiers: std::ops::Range<u16>) -> Vec<u8> {
    let mut flood = Vec::new();
    for identifier in identifiers {
        flood.extend_from_slice(b"\x32\x86\x40\x00\x01t");
        flood.extend_from_slice(&identifier.to_be_bytes());
        flood.push(0);
        flood.resize(flood.len() + 8192, b'x');
    }
    flood
}

/// Takes what has come. Returns how many.
fn drain(stream: &mut Subscription) -> usize {
    std::iter::from_fn(|| stream.try_next()).count()
}

#[test]
fn a_store_that_hangs_ends_no_link_whose_broker_answers() {
    let store = MemoryStore::new();
    let (setup, mut peer) = live(&store, CONNACK);
    let mut stream = subscribe(&setup, Acknowledge::OnReceipt);
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x02");
    store.hold();
    let mut got = 0;
    for id in 1..=230 {
        peer.send(&flood(id..id + 1));
        got += drain(&mut stream);
    }
    assert!((128..150).contains(&got), "{got} are in memory");
    let mut pings = 0;
    for second in 0..600 {
        setup.world.advance(SECOND);
        assert!(setup.client.is_connected(), "{second} s");
        let said = peer.received();
        if said.ends_with(b"\xC0\x00") {
            pings += 1;
            peer.send(b"\xD0\x00");
        }
    }
    assert!((9..=11).contains(&pings), "{pings} pings");
    assert_eq!(drain(&mut stream), 0);
    store.release();
    setup.world.run_until_idle();
    got += drain(&mut stream);
    assert_eq!(got, 230);
    let acknowledged = peer.received();
    assert_eq!(acknowledged.len(), 230 * 4);
    // A broker that falls silent is found as ever.
    setup.world.advance(71 * SECOND);
    assert!(!setup.client.is_connected());
}

#[test]
fn a_store_that_hangs_keeps_nobody_from_connecting_and_lets_nothing_pile_up() {
    let store = MemoryStore::new();
    let (setup, mut peer) = live(&store, CONNACK);
    let mut stream = subscribe(&setup, Acknowledge::OnReceipt);
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x02");
    store.hold();
    for id in 1..=256 {
        peer.send(&flood(id..id + 1));
        drain(&mut stream);
    }
    for _ in 0..5 {
        peer.reset();
        // It is seen when PINGREQ is to leave. What stands behind CONNACK waits.
        peer = setup.greet_later(&[CONNACK_PRESENT, &flood(300..310)].concat());
        assert!(setup.client.is_connected());
        assert_eq!(drain(&mut stream), 0);
    }
    store.release();
    setup.world.run_until_idle();
    assert_eq!(drain(&mut stream), 10);
}
