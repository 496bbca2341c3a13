//! What an earlier process had acknowledged and not taken comes to the streams of the next ones, once.

use std::cell::RefCell;
use std::rc::Rc;

use coracle::testkit::{MemoryStore, Peer, World};
use coracle::{
    Acknowledge, ErrorKind, Filters, Overflow, Qos, Subscribing, Subscription, Version, Wait,
};

use crate::{
    CONNACK, CONNACK_3, CONNACK_3_PRESENT, CONNACK_PRESENT, SECOND, Setup, failure, now, options,
    poll,
};

/// One life of a client with this store, which ends like a crash.
fn live(memory: &MemoryStore, connack: &[u8], play: impl FnOnce(&Setup, &mut Peer)) {
    let world = World::with_peers();
    let options = options(&world).store(memory.clone());
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(connack);
    play(&setup, &mut peer);
    drop(setup);
    memory.crash();
}

fn subscribe(setup: &Setup, filter: &str) -> Subscription {
    let filters = Filters::new(filter, Qos::ExactlyOnce).acknowledge(Acknowledge::OnReceipt);
    now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted")
}

/// A life in which a message of QoS 2 is acknowledged and not taken.
fn leave_one(memory: &MemoryStore) {
    live(memory, CONNACK, |setup, peer| {
        let _stream = subscribe(setup, "t");
        peer.received();
        peer.send(b"\x34\x07\x00\x01t\x00\x01\x00x");
        peer.expect(b"\x50\x02\x00\x01");
        peer.send(b"\x62\x02\x00\x01");
        peer.expect(b"\x70\x02\x00\x01");
    });
}

/// Long before the time for the earlier subscriptions is over. Found by killing a real client.
#[test]
fn a_message_that_was_inherited_and_taken_is_not_inherited_again() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let mut stream = subscribe(setup, "t");
        setup.world.run_until_idle();
        assert!(stream.try_next().is_some());
        setup.world.run_until_idle();
    });
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let mut stream = subscribe(setup, "t");
        setup.world.run_until_idle();
        assert!(stream.try_next().is_none(), "it was taken before");
    });
}

#[test]
fn a_message_that_nobody_has_taken_is_inherited_again() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    for _ in 0..2 {
        live(&memory, CONNACK_PRESENT, |setup, _| {
            let _untaken = subscribe(setup, "t");
            setup.world.run_until_idle();
        });
        // One that wants something else leaves it, too.
        live(&memory, CONNACK_PRESENT, |setup, _| {
            let _other = subscribe(setup, "other");
            setup.world.run_until_idle();
        });
    }
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let mut stream = subscribe(setup, "t");
        setup.world.run_until_idle();
        assert!(stream.try_next().is_some());
    });
}

#[test]
fn each_subscriber_of_one_life_gets_what_was_inherited() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let mut first = subscribe(setup, "t");
        setup.world.run_until_idle();
        assert!(first.try_next().is_some());
        setup.world.run_until_idle();
        let mut second = subscribe(setup, "+");
        setup.world.run_until_idle();
        assert!(second.try_next().is_some());
        assert!(first.try_next().is_none());
    });
}

#[test]
fn a_handler_that_comes_after_other_messages_gets_what_was_inherited() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    live(&memory, CONNACK_PRESENT, |setup, peer| {
        peer.send(b"\x30\x05\x00\x01u\x00y");
        setup.world.run_until_idle();
        let heard = Rc::new(RefCell::new(Vec::new()));
        let hearing = Rc::clone(&heard);
        let handler = move |incoming: &coracle::Incoming<'_>| {
            hearing.borrow_mut().push(incoming.payload().to_vec());
        };
        let filters = Filters::new("t", Qos::ExactlyOnce);
        let _handle = now(setup.client.subscribe_inline(filters, handler, Wait::None));
        // This one comes in the turn in which it would be called.
        peer.send(b"\x30\x05\x00\x01u\x00z");
        setup.world.run_until_idle();
        assert_eq!(*heard.borrow(), [b"x"]);
    });
}

/// A life in which these messages of QoS 1 are acknowledged and not taken.
fn leave(memory: &MemoryStore, payloads: &[u8]) {
    live(memory, CONNACK, |setup, peer| {
        let _stream = subscribe(setup, "t");
        peer.received();
        for (id, payload) in (1..).zip(payloads) {
            peer.send(&[0x32, 7, 0, 1, b't', 0, id, 0, *payload]);
            peer.expect(&[0x40, 2, 0, id]);
        }
    });
}

#[test]
fn a_stream_that_what_was_inherited_overflows_is_subscribed_to_before_it_is_unsubscribed() {
    let memory = MemoryStore::new();
    leave(&memory, b"xy");
    live(&memory, CONNACK_PRESENT, |setup, peer| {
        setup.world.run_until_idle();
        let filters = Filters::new("t", Qos::AtLeastOnce)
            .overflow(Overflow::End)
            .stream_bytes(100);
        let stream = now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted");
        let error = stream.error().expect("the second does not fit");
        assert!(matches!(error.kind(), ErrorKind::Overflow), "{error}");
        // Else the broker would have it for ever, with nobody to unsubscribe it.
        let subscribe = b"\x82\x0b\x00\x01\x04\x0b\x80\x80\x01\x00\x01t\x01";
        let unsubscribe = b"\xa2\x06\x00\x02\x00\x00\x01t";
        peer.expect(&[&subscribe[..], unsubscribe].concat());
    });
}

#[test]
fn a_request_is_inherited_by_a_service_from_before_the_version_is_known() {
    let memory = MemoryStore::default();
    let serve = || {
        let world = World::with_peers();
        let options = options(&world).version(Version::Auto).store(memory.clone());
        let setup = Setup::start(world, options);
        let filters = Filters::new("t", Qos::ExactlyOnce).acknowledge(Acknowledge::OnReceipt);
        let service = now(setup.client.requests(filters, Wait::None)).expect("accepted");
        (setup, service)
    };
    let (setup, service) = serve();
    let mut peer = setup.greet(b"\x20\x02\x00\x01");
    peer.close();
    let mut peer = setup.greet(CONNACK_3);
    peer.expect(b"\x82\x0a\x00\x01\x00\x05t/+/+\x02");
    peer.send(b"\x90\x03\x00\x01\x02");
    peer.send(b"\x34\x0b\x00\x06t/cl/1\x00\x01x");
    peer.expect(b"\x50\x02\x00\x01");
    peer.send(b"\x62\x02\x00\x01");
    peer.expect(b"\x70\x02\x00\x01");
    drop((setup, service, peer));

    let (setup, mut service) = serve();
    // The version is remembered with the session.
    let mut peer = setup.greet(CONNACK_3_PRESENT);
    let request = service.try_next().expect("it was not taken");
    assert_eq!((request.topic(), request.text()), ("t", Some("x")));
    peer.expect(b"\x82\x0a\x00\x01\x00\x05t/+/+\x02");
    peer.send(b"\x90\x03\x00\x01\x02");
    // It is the only filter that was ever stored.
    setup.world.advance(3600 * SECOND);
    let later = peer.received();
    assert!(!later.contains(&0xa2), "{}", later.escape_ascii());
}

/// The keys of messages that were acknowledged and not taken.
fn kept(memory: &MemoryStore) -> usize {
    const KEPT: u64 = 6;
    let records = memory.records();
    let kinds = records.iter().map(|record| record.key() >> 56);
    kinds.filter(|kind| *kind == KEPT).count()
}

fn subscribing(setup: &Setup) -> Subscribing {
    setup.client.subscribe("t", Qos::ExactlyOnce, Wait::Ack)
}

fn text(stream: &mut Subscription) -> Option<String> {
    let message = stream.try_next()?;
    message.text().map(str::to_owned)
}

/// The broker had acknowledged it long ago, so it would be lost for ever.
#[test]
fn a_message_that_a_subscribe_had_which_timed_out_is_inherited_by_the_next_process() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    let world = World::with_peers();
    let options = options(&world).store(memory.clone());
    let setup = Setup::start(world, options);
    // Nobody answers at the network.
    let mut waiting = subscribing(&setup);
    setup.world.advance(30 * SECOND);
    let error = failure(poll(&mut waiting).expect("its time is over"));
    assert!(matches!(error.kind(), ErrorKind::TimedOut(_)), "{error}");
    setup.world.run_until_idle();
    assert_eq!(kept(&memory), 1);
    drop(setup);
    memory.crash();
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let mut stream = subscribe(setup, "t");
        setup.world.run_until_idle();
        assert_eq!(text(&mut stream).as_deref(), Some("x"));
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 0);
    });
}

#[test]
fn a_message_that_a_subscribe_had_which_failed_is_inherited_by_the_next_one() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    live(&memory, CONNACK_PRESENT, |setup, peer| {
        // One whose future is dropped, one that is refused.
        let dropped = subscribing(setup);
        peer.expect(b"\x82\x0b\x00\x01\x04\x0b\x80\x80\x01\x00\x01t\x02");
        drop(dropped);
        setup.world.run_until_idle();
        peer.received();
        peer.send(b"\x90\x04\x00\x01\x00\x02");
        peer.send(b"\xb0\x04\x00\x02\x00\x00");
        let mut refused = subscribing(setup);
        assert_eq!(peer.received().get(..4), Some(&b"\x82\x0b\x00\x03"[..]));
        peer.send(b"\x90\x04\x00\x03\x00\x87");
        setup.world.run_until_idle();
        failure(poll(&mut refused).expect("it was refused"));
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 1);

        let mut stream = subscribe(setup, "t");
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 1, "it was not taken");
        assert_eq!(text(&mut stream).as_deref(), Some("x"));
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 0);
        assert_eq!(text(&mut stream), None);
    });
}

#[test]
fn a_message_is_not_kept_for_a_subscribe_that_failed_while_others_have_it() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let failed = subscribing(setup);
        let mut stream = subscribe(setup, "+");
        drop(failed);
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 1);
        assert_eq!(text(&mut stream).as_deref(), Some("x"));
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 0);
    });
}

#[test]
fn a_handler_that_was_not_called_before_its_subscribe_failed_leaves_the_message() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let filters = || Filters::new("t", Qos::ExactlyOnce);
        let never = |_: &coracle::Incoming<'_>| panic!("it is not subscribed");
        drop(setup.client.subscribe_inline(filters(), never, Wait::Ack));
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 1);
        let heard = Rc::new(RefCell::new(Vec::new()));
        let hearing = Rc::clone(&heard);
        let handler = move |incoming: &coracle::Incoming<'_>| {
            hearing.borrow_mut().push(incoming.payload().to_vec());
        };
        let waiting = setup.client.subscribe_inline(filters(), handler, Wait::Ack);
        setup.world.run_until_idle();
        // It was called before the broker had answered, so the message is taken.
        drop(waiting);
        setup.world.run_until_idle();
        assert_eq!(*heard.borrow(), [b"x"]);
        assert_eq!(kept(&memory), 0);
    });
}

/// What is not in the store any more cannot be left to the next process.
#[test]
fn a_message_that_came_from_memory_can_be_read_after_the_end() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let mut first = subscribe(setup, "t");
        setup.world.run_until_idle();
        assert_eq!(text(&mut first).as_deref(), Some("x"));
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 0);
        let mut second = subscribe(setup, "+");
        let by_hand = Filters::new("#", Qos::ExactlyOnce).acknowledge(Acknowledge::ByHand);
        let mut third = now(setup.client.subscribe_many(by_hand, Wait::None)).expect("accepted");
        let message = third.try_next().expect("from memory, too");
        message.acknowledge().expect("it is by hand");
        let mut leaving = setup.client.disconnect();
        setup.world.advance(10 * SECOND);
        poll(&mut leaving)
            .expect("it is over")
            .expect("all is kept");
        assert_eq!(text(&mut second).as_deref(), Some("x"));
    });
}

/// QoS 2 arrives once. Whoever subscribes anew, as after an error, would get it again each time.
#[test]
fn a_filter_brings_what_was_inherited_once() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let mut first = subscribe(setup, "t");
        setup.world.run_until_idle();
        assert_eq!(text(&mut first).as_deref(), Some("x"));
        drop(first);
        setup.world.run_until_idle();
        let mut again = subscribe(setup, "t");
        setup.world.run_until_idle();
        assert_eq!(text(&mut again), None);
        // One that has another filter, too, gets it by that.
        let filters = Filters::new("t", Qos::ExactlyOnce).and("#", Qos::ExactlyOnce);
        let mut more = now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted");
        setup.world.run_until_idle();
        assert_eq!(text(&mut more).as_deref(), Some("x"));
        let mut all = subscribe(setup, "#");
        setup.world.run_until_idle();
        assert_eq!(text(&mut all), None);
        assert_eq!(text(&mut more), None);
    });
}

#[test]
fn a_handler_that_was_called_with_what_was_inherited_is_not_followed_by_another() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let heard = Rc::new(RefCell::new(0));
        for _ in 0..2 {
            let hearing = Rc::clone(&heard);
            let handler = move |_: &coracle::Incoming<'_>| *hearing.borrow_mut() += 1;
            let filters = Filters::new("t", Qos::ExactlyOnce);
            let waiting = setup.client.subscribe_inline(filters, handler, Wait::Ack);
            setup.world.run_until_idle();
            drop(waiting);
            setup.world.run_until_idle();
        }
        assert_eq!(*heard.borrow(), 1);
    });
}

/// The store records that a message is taken, not by whom.
#[test]
fn what_one_of_several_streams_took_comes_again_until_the_last_has_taken_it() {
    let memory = MemoryStore::new();
    leave_one(&memory);
    for last in [false, false, true] {
        live(&memory, CONNACK_PRESENT, |setup, _| {
            let mut one = subscribe(setup, "t");
            let mut other = subscribe(setup, "+");
            setup.world.run_until_idle();
            assert_eq!(text(&mut one).as_deref(), Some("x"));
            if last {
                assert_eq!(text(&mut other).as_deref(), Some("x"));
            }
            setup.world.run_until_idle();
        });
    }
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let mut all = subscribe(setup, "#");
        setup.world.run_until_idle();
        assert_eq!(text(&mut all), None);
    });
}

#[test]
fn a_filter_of_the_earlier_process_is_unsubscribed_although_the_call_for_it_never_left() {
    let memory = MemoryStore::new();
    live(&memory, CONNACK, |setup, peer| {
        let _stream = subscribe(setup, "a");
        let request = peer.received();
        peer.send(&[0x90, 4, request[2], request[3], 0, 2]);
    });
    live(&memory, CONNACK_PRESENT, |setup, peer| {
        // As many as may be unanswered at a time.
        let _others: Vec<_> = (0..8)
            .map(|nth| subscribe(setup, &format!("f{nth}")))
            .collect();
        let mut asked = Vec::new();
        asked.extend(peer.received());
        let late = setup.client.subscribe("a", Qos::ExactlyOnce, Wait::Ack);
        let late = late.timeout(10 * SECOND);
        // The earlier process's filters end meanwhile, but for those that somebody wants.
        let error = setup.wait(late).expect_err("nobody answers");
        assert!(matches!(error.kind(), ErrorKind::TimedOut(_)), "{error}");
        while let [0x82, length, high, low, ..] = asked[..] {
            peer.send(&[0x90, 4, high, low, 0, 2]);
            asked.drain(..usize::from(length) + 2);
        }
        setup.world.run_until_idle();
        let said = peer.received();
        assert!(said.starts_with(b"\xa2\x06"), "{said:02x?}");
        assert!(said.ends_with(b"\x00\x00\x01a"), "{said:02x?}");
    });
}

/// With room for one message.
fn narrow(overflow: Overflow) -> Filters {
    Filters::new("t", Qos::AtLeastOnce)
        .overflow(overflow)
        .stream_bytes(100)
}

/// No program ever had the handle of that stream.
#[test]
fn a_message_for_which_a_subscribe_that_failed_had_no_room_is_inherited_by_the_next_process() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::End] {
        let memory = MemoryStore::new();
        leave(&memory, b"xy");
        let world = World::with_peers();
        let options = options(&world).store(memory.clone());
        let setup = Setup::start(world, options);
        let mut waiting = setup.client.subscribe_many(narrow(overflow), Wait::Ack);
        setup.world.advance(30 * SECOND);
        failure(poll(&mut waiting).expect("nobody answered"));
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 2, "{overflow:?}");
        drop(setup);
        memory.crash();
        live(&memory, CONNACK_PRESENT, |setup, _| {
            let mut stream = subscribe(setup, "t");
            setup.world.run_until_idle();
            assert_eq!(text(&mut stream).as_deref(), Some("x"));
            assert_eq!(text(&mut stream).as_deref(), Some("y"));
            setup.world.run_until_idle();
            assert_eq!(kept(&memory), 0);
        });
    }
}

/// The program has chosen that, and has the handle.
#[test]
fn a_message_for_which_a_subscribe_had_no_room_is_forgotten_when_that_succeeds() {
    let memory = MemoryStore::new();
    leave(&memory, b"xy");
    live(&memory, CONNACK_PRESENT, |setup, peer| {
        let mut waiting = setup
            .client
            .subscribe_many(narrow(Overflow::DropOldest), Wait::Ack);
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 2);
        peer.received();
        peer.send(b"\x90\x04\x00\x01\x00\x01");
        setup.world.run_until_idle();
        let mut stream = poll(&mut waiting).expect("answered").expect("granted");
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 1);
        assert_eq!(text(&mut stream).as_deref(), Some("y"));
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 0);
        let mut again = subscribe(setup, "t");
        setup.world.run_until_idle();
        assert_eq!(text(&mut again), None);
    });
}

#[test]
fn what_a_stream_that_ends_had_no_room_for_is_inherited_by_the_next_subscribe() {
    let memory = MemoryStore::new();
    leave(&memory, b"xyz");
    live(&memory, CONNACK_PRESENT, |setup, _| {
        let filters = narrow(Overflow::End);
        let mut stream = now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted");
        setup.world.run_until_idle();
        let error = stream.error().expect("the second does not fit");
        assert!(matches!(error.kind(), ErrorKind::Overflow), "{error}");
        assert_eq!(kept(&memory), 3);
        assert_eq!(text(&mut stream).as_deref(), Some("x"));
        assert_eq!(text(&mut stream), None);
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 2);
        assert_eq!(setup.client.statistics().dropped, 0, "it is not lost");

        let mut roomy = subscribe(setup, "t");
        setup.world.run_until_idle();
        assert_eq!(text(&mut roomy).as_deref(), Some("y"));
        assert_eq!(text(&mut roomy).as_deref(), Some("z"));
        assert_eq!(text(&mut roomy), None);
        setup.world.run_until_idle();
        assert_eq!(kept(&memory), 0);
    });
}
