//! Leaving: what is written last arrives, and a peer that does not let go holds up nobody.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle::testkit::{Attempt, BrokerOptions, Peer, World};
use coracle::{
    Blame, BoxedTransport, Client, Endpoint, ErrorKind, Event, Filters, Incoming, LocalBoxFuture,
    Message, Overflow, Properties, Qos, Reason, Wait,
};
use futures_lite::{AsyncRead, AsyncWrite};

use crate::{CONNACK, Setup, failure, now, options, poll};

/// The last packet of MQTT 5 that says nothing else.
const DISCONNECT: &[u8] = b"\xE0\x00";

/// What a [`Peculiar`] transport does, and has seen.
#[derive(Default)]
struct Seen {
    written: RefCell<Vec<u8>>,
    /// Reads that are still answered with bytes once our side is closed.
    flood: Cell<usize>,
    /// Reads since another task had its turn.
    in_a_row: Cell<usize>,
    closed: Cell<bool>,
}

/// A transport that takes one byte at a time, answers with CONNACK, then with `rest`.
struct Peculiar {
    seen: Rc<Seen>,
    input: Vec<u8>,
}

impl AsyncRead for Peculiar {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.seen.closed.get() {
            self.seen.in_a_row.set(self.seen.in_a_row.get() + 1);
            let Some(left) = self.seen.flood.get().checked_sub(1) else {
                return Poll::Ready(Ok(0));
            };
            self.seen.flood.set(left);
            return Poll::Ready(Ok(buffer.len()));
        }
        if self.input.is_empty() {
            return Poll::Pending;
        }
        let count = self.input.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Peculiar {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let first = bytes.iter().take(1);
        self.seen.written.borrow_mut().extend(first);
        Poll::Ready(Ok(1))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seen.closed.set(true);
        Poll::Ready(Ok(()))
    }
}

/// A client on a [`Peculiar`] transport that brings CONNACK and what follows it.
fn peculiar(world: &World, seen: &Rc<Seen>, rest: &[u8]) -> Client {
    let seen = Rc::clone(seen);
    let input = [CONNACK, rest].concat();
    let connect = move |_: &Endpoint| -> LocalBoxFuture<io::Result<BoxedTransport>> {
        let transport = Peculiar {
            seen: Rc::clone(&seen),
            input: input.clone(),
        };
        Box::pin(async move { Ok(Box::pin(transport) as BoxedTransport) })
    };
    let (client, driver) = Client::new(options(world).connector(connect));
    world.spawn(driver.run()).detach();
    world.run_until_idle();
    client
}

#[test]
fn disconnect_arrives_behind_more_than_one_turn_can_write() {
    let world = World::with_peers();
    let seen = Rc::new(Seen::default());
    let client = peculiar(&world, &seen, b"");
    let begun = world.now();
    let published = client.publish("t", &[b'x'; 100], Qos::AtMostOnce, Wait::None);
    now(published).expect("accepted");
    let leaving = client.disconnect_with(Reason::SUCCESS, Properties::new());
    world.block_on(leaving).expect("nothing is unacknowledged");
    assert!(seen.written.borrow().ends_with(DISCONNECT));
    assert_eq!(world.now(), begun, "there was nothing to wait for");
}

#[test]
fn a_peer_that_floods_while_we_leave_starves_nobody() {
    let world = World::with_peers();
    let seen = Rc::new(Seen::default());
    seen.flood.set(1000);
    let client = peculiar(&world, &seen, b"");
    let longest = Rc::new(Cell::new(0));
    let other = {
        let (seen, longest) = (Rc::clone(&seen), Rc::clone(&longest));
        async move {
            while seen.flood.get() > 0 {
                longest.set(longest.get().max(seen.in_a_row.replace(0)));
                futures_lite::future::yield_now().await;
            }
        }
    };
    let other = world.spawn(other);
    let left = world.block_on(client.disconnect_with(Reason::SUCCESS, Properties::new()));
    left.expect("nothing is unacknowledged");
    world.block_on(other);
    assert!((1..100).contains(&longest.get()), "{}", longest.get());
}

#[test]
fn a_timeout_of_something_else_does_not_shorten_the_goodbye() {
    let (setup, mut peer) = Setup::connected();
    let pinging = setup.client.ping().timeout(Duration::from_millis(200));
    setup.world.run_until_idle();
    peer.received();
    let mut left = setup
        .client
        .disconnect_with(Reason::SUCCESS, Properties::new());
    peer.expect(DISCONNECT);
    // The peer gets a second to close its side too.
    setup.world.advance(Duration::from_millis(999));
    assert!(poll(&mut left).is_none());
    setup.world.advance(Duration::from_millis(1));
    now(left).expect("nothing is unacknowledged");
    drop(pinging);
}

#[test]
fn an_accused_peer_is_told_before_the_connection_is_dropped() {
    // A socket that is dropped with unread bytes sends a reset, which may overtake DISCONNECT.
    let world = World::with_peers();
    let seen = Rc::new(Seen::default());
    let client = peculiar(&world, &seen, b"\x30\x80\x80\x80\x01");
    assert!(!client.is_connected());
    assert!(seen.written.borrow().ends_with(b"\xE0\x01\x95"));
    assert!(seen.closed.get());
}

#[test]
fn a_refusal_or_a_disconnect_of_the_broker_closes_the_connection() {
    // [MQTT-4.13.2-1]: also if the broker leaves the closing to us.
    for refusal in [b"\x20\x03\x00\x87\x00".as_slice(), b"\x20\x03\x00\x80\x00"] {
        let setup = Setup::with_peers();
        let mut peer = setup.greet(refusal);
        assert!(peer.is_closed(), "{refusal:02x?}");
        peer.expect_nothing();
    }
    for goodbye in [b"\xE0\x01\x80".as_slice(), b"\xE0\x01\x8B", b"\xE0\x00"] {
        let (setup, mut peer) = Setup::connected();
        peer.send(goodbye);
        assert!(peer.is_closed(), "{goodbye:02x?}");
        peer.expect_nothing();
        assert!(!setup.client.is_connected());
    }
}

#[test]
fn a_disconnect_that_cannot_leave_closes_the_connection_all_the_same() {
    // [MQTT-4.13.2-1]: "whether or not" it was sent.
    let (setup, mut peer) = Setup::connected();
    setup.world.network().send_buffer(0);
    setup.world.network().stall();
    // PUBREL with flags 0.
    peer.send(b"\x60\x02\x00\x01");
    assert!(!setup.client.is_connected());
    setup.world.advance(Duration::from_secs(1));
    assert!(peer.is_closed());
    peer.expect_nothing();
}

#[test]
fn attempts_are_counted_anew_after_a_connection_that_was_left() {
    let mut setup = Setup::with_peers();
    let network = setup.world.network();
    let refused = Attempt::Refuse(io::ErrorKind::ConnectionRefused);
    network.next_attempts(2, refused);
    // Delays of at most one and two seconds.
    setup.world.advance(Duration::from_secs(3));
    let mut peer = setup.greet(CONNACK);
    setup.events();
    network.next_attempts(1, refused);
    setup.client.reconnect().expect("the client is open");
    peer.expect(DISCONNECT);
    peer.close();
    assert!(matches!(
        setup.events().as_slice(),
        [Event::Left, Event::ConnectFailed { attempt: 1, .. }]
    ));
}

#[test]
fn a_client_leaves_only_with_a_reason_of_clients() {
    // [MQTT-3.14.2-1]
    let (setup, mut peer) = Setup::connected();
    for reason in [
        Reason::GRANTED_QOS_1,
        Reason::SERVER_SHUTTING_DOWN,
        Reason::SESSION_TAKEN_OVER,
        Reason::new(0xFF),
    ] {
        let left = now(setup.client.disconnect_with(reason, Properties::new()));
        assert!(matches!(failure(left).kind(), ErrorKind::Misuse(_)));
    }
    peer.expect_nothing();
    let left = setup
        .client
        .disconnect_with(Reason::QUOTA_EXCEEDED, Properties::new());
    peer.expect(b"\xE0\x01\x97");
    drop(left);
}

#[test]
fn a_disconnect_called_while_the_driver_writes_drains_too() {
    struct Leaves(Client);
    impl Drop for Leaves {
        fn drop(&mut self) {
            // It goes on although nobody waits for it.
            drop(self.0.disconnect());
        }
    }
    let setup = Setup::with_peers();
    let client = &setup.client;
    let leaves = Leaves(client.clone());
    let handler = move |_: &Incoming<'_>| assert!(!leaves.0.is_connected());
    let wildcard = Filters::new("a/#", Qos::AtMostOnce);
    // What CONNACK rules out fails while the driver encodes, and the handler is dropped.
    let inline = client.subscribe_inline(wildcard, handler, Wait::None);
    let publishing = client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    let mut peer = setup.greet(b"\x20\x05\x00\x00\x02\x28\x00");
    peer.expect(b"\x32\x07\x00\x01t\x00\x01\x00x");
    peer.send(b"\x40\x02\x00\x01");
    now(publishing).expect("it was acknowledged");
    // The session ends with the client.
    peer.expect(b"\xE0\x07\x00\x05\x11\x00\x00\x00\x00");
    drop(inline);
}

#[test]
fn reconnect_and_disconnect_are_told_as_left() {
    let mut setup = Setup::with_broker(BrokerOptions::new());
    setup.world.run_until_idle();
    setup.client.reconnect().expect("the client is open");
    setup.world.run_until_idle();
    let left = setup.client.disconnect();
    assert!(setup.world.block_on(left).is_ok());
    let told: Vec<_> = setup
        .events()
        .iter()
        .map(|event| match event {
            Event::Connected { .. } => "connected",
            Event::Left => "left",
            _ => "something else",
        })
        .collect();
    assert_eq!(told, ["connected", "left", "connected", "left"]);
}

#[test]
fn the_reason_string_of_a_disconnect_is_told() {
    let (mut setup, mut peer) = Setup::connected();
    // 0x8B (server shutting down), reason string "night".
    peer.send(b"\xE0\x0A\x8B\x08\x1F\0\x05night");
    let events = setup.events();
    let Some(Event::Disconnected { error, .. }) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!(error.reason(), Some(Reason::SERVER_SHUTTING_DOWN));
    assert!(error.to_string().ends_with("(0x8B), \"night\""), "{error}");
}

#[test]
fn the_caps_of_the_options_hold_for_the_will_too() {
    let world = World::with_peers();
    let will = Message::new("w", "gone").qos(Qos::ExactlyOnce);
    let capped = options(&world).maximum_qos(Qos::AtLeastOnce).will(will);
    let setup = Setup::start(world, capped);
    let error = setup
        .world
        .block_on(setup.driver)
        .expect_err("QoS 2 is above the cap");
    assert_eq!(error.blame(), Blame::You);
}

#[test]
fn what_disconnect_could_not_send_at_qos_0_is_counted() {
    let setup = Setup::with_peers();
    let refused = Attempt::Refuse(io::ErrorKind::ConnectionRefused);
    setup.world.network().all_attempts(refused);
    let kept = setup.client.publish("t", "x", Qos::AtMostOnce, Wait::None);
    assert!(setup.world.block_on(kept).is_ok());
    let left = setup.client.disconnect();
    let error = setup.world.block_on(left).expect_err("it was never sent");
    assert!(
        matches!(error.kind(), ErrorKind::Unacknowledged(1)),
        "{error}"
    );
}

#[test]
fn a_wait_that_ends_without_a_connection_says_why_there_is_none() {
    let setup = Setup::with_peers();
    let refused = Attempt::Refuse(io::ErrorKind::ConnectionRefused);
    setup.world.network().all_attempts(refused);
    let wait = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    let error = setup.world.block_on(wait).expect_err("nobody is there");
    assert_eq!(
        error.to_string(),
        "publish: no answer within 30s (perhaps sent); before that, connect: mqtt://broker:1883: connection refused"
    );
    // What a failing `main` prints is the same sentence.
    assert_eq!(format!("{error:?}"), error.to_string());
}

#[test]
fn closed_says_what_the_driver_ended_with() {
    let world = World::with_peers();
    let wrong = options(&world).will(Message::new("a/+", "x"));
    let setup = Setup::start(world, wrong);
    setup.world.run_until_idle();
    let wait = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    let error = setup
        .world
        .block_on(wait)
        .expect_err("the driver has ended");
    assert_eq!(
        error.to_string(),
        "publish: the client is closed (not sent); before that, publish: the topic \"a/+\" is a topic \
         name but holds a wildcard [MQTT-4.7.0-1] (not sent)"
    );
}

#[test]
fn an_overflow_ends_each_filter_of_the_stream() {
    let (mut setup, mut peer) = Setup::connected();
    let filters = Filters::new("a", Qos::AtMostOnce)
        .and("b", Qos::AtLeastOnce)
        .overflow(Overflow::End)
        .stream_bytes(1);
    let stream = setup
        .world
        .block_on(setup.client.subscribe_many(filters, Wait::None));
    assert!(stream.is_ok());
    peer.send(b"\x32\x06\0\x01b\0\x01\0\x32\x06\0\x01b\0\x02\0");
    let ended: Vec<_> = setup
        .events()
        .iter()
        .filter_map(|event| match event {
            Event::SubscriptionEnded { filter, .. } => Some(filter.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(ended, ["a", "b"]);
}

#[test]
fn what_waits_is_not_written_to_a_link_that_the_broker_has_ended() {
    // [MQTT-3.14.4-1] for the first; the second is one that only closes.
    for end in [&b"\xe0\x01\x8b"[..], b""] {
        let setup = Setup::with_peers();
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let waits = setup.client.publish("t", "x", qos, Wait::None);
            now(waits).expect("accepted");
        }
        let mut sent = setup.client.publish("t", "y", Qos::AtMostOnce, Wait::Sent);
        setup.world.run_until_idle();
        let mut peer = Peer::accept(&setup.world.network());
        peer.received();
        // With CONNACK, so that both are read in one turn.
        peer.send(&[CONNACK, end].concat());
        peer.close();
        setup.world.run_until_idle();
        peer.expect_nothing();
        assert!(poll(&mut sent).is_none());
        let mut peer = setup.greet_later(CONNACK);
        // Without DUP [MQTT-3.3.1-1].
        let all = peer.received();
        for packet in [
            &b"\x30\x05\x00\x01t\x00x"[..],
            b"\x32\x07\x00\x01t\x00\x01\x00x",
            b"\x30\x05\x00\x01t\x00y",
        ] {
            let found = all.windows(packet.len()).filter(|window| *window == packet);
            assert_eq!(found.count(), 1, "{}", all.escape_ascii());
        }
        assert_eq!(all.len(), 7 + 9 + 7);
        assert!(poll(&mut sent).is_some_and(|sent| sent.is_ok()));
    }
}

#[test]
fn words_that_are_too_large_cost_disconnect_nothing_else() {
    // Only they may be left out [MQTT-3.14.2-3], [MQTT-3.14.2-4].
    let setup = Setup::with_peers();
    let mut peer = setup.greet(b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x14");
    let properties = Properties::new()
        .reason_string("thirty characters are too many")
        .user_property("a", "b")
        .session_expiry_interval(0);
    let _leaving = setup.client.disconnect_with(Reason::SUCCESS, properties);
    peer.expect(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00");
}
