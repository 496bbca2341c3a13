//! How a client ends, and that nothing of it is left then.

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use coracle::testkit::{Attempt, BrokerOptions, Cut, FakeClock, Kind, World};
use coracle::{
    Client, Clock, Endpoint, ErrorKind, Event, Incoming, LocalBoxFuture, Message, Options,
    Properties, Qos, Reason, Sent, Session, Version, Wait,
};

use crate::{CONNACK, CONNACK_3, SECOND, Setup, failure, now, options, poll};

/// The DISCONNECT that ends a session of MQTT 5: reason 0, Session Expiry Interval 0.
const FAREWELL: &[u8] = b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00";

fn last_packet(world: &World) -> Option<Kind> {
    world.run_until_idle();
    world.broker(|broker, _| broker.packets().last().map(|packet| packet.kind()))
}

// disconnect()

#[test]
fn disconnect_waits_for_what_is_not_acknowledged_and_leaves() {
    let (setup, mut peer) = Setup::connected();
    let mut first = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    drop(setup.client.publish("t", "y", Qos::ExactlyOnce, Wait::None));
    peer.received();
    let mut leaving = setup.client.disconnect();
    peer.expect_nothing();
    peer.send(b"\x40\x02\x00\x01");
    assert!(poll(&mut first).is_some_and(|outcome| outcome.is_ok()));
    peer.send(b"\x50\x02\x00\x02");
    peer.expect(b"\x62\x02\x00\x02");
    assert!(poll(&mut leaving).is_none());
    peer.send(b"\x70\x02\x00\x02");
    peer.expect(FAREWELL);
    peer.close();
    assert!(now(leaving).is_ok());
    assert!(setup.world.block_on(setup.driver).is_ok());
}

#[test]
fn disconnect_drains_also_what_is_queued_or_parked() {
    let world = World::new(BrokerOptions::new());
    let options = options(&world).queue_bytes(100).window(1);
    let setup = Setup::start(world, options);
    let waits: Vec<_> = (0..20)
        .map(|_| setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack))
        .collect();
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    assert!(setup.wait(setup.client.disconnect()).is_ok());
    assert!(waits.into_iter().all(|wait| now(wait).is_ok()));
    setup
        .world
        .broker(|broker, _| assert_eq!(broker.messages().len(), 20));
}

#[test]
fn disconnect_reports_what_stayed_unacknowledged() {
    let (setup, mut peer) = Setup::connected();
    let publishing = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    drop(setup.client.publish("t", "y", Qos::ExactlyOnce, Wait::None));
    peer.received();
    let start = setup.world.now();
    let leaving = setup.client.disconnect();
    setup.world.advance(5 * SECOND);
    peer.expect(FAREWELL);
    peer.close();
    let error = failure(now(leaving));
    assert!(
        matches!(error.kind(), ErrorKind::Unacknowledged(2)),
        "{error}"
    );
    assert_eq!(setup.world.now() - start, 5 * SECOND);
    let error = failure(now(publishing));
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    assert_eq!(error.sent(), Sent::Maybe);
    assert!(
        setup.world.block_on(setup.driver).is_ok(),
        "a good end of the driver"
    );
}

#[test]
fn the_drain_lasts_as_long_as_the_options_say() {
    let world = World::with_peers();
    let options = options(&world).drain_timeout(2 * SECOND);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    peer.received();
    let mut leaving = setup.client.disconnect();
    setup.world.advance(2 * SECOND - SECOND / 1000);
    assert!(poll(&mut leaving).is_none());
    peer.expect_nothing();
    setup.world.advance(SECOND / 1000);
    peer.expect(FAREWELL);
}

#[test]
fn disconnect_takes_a_second_more_at_most_if_the_broker_does_not_close() {
    let (setup, mut peer) = Setup::connected();
    let mut leaving = setup.client.disconnect();
    peer.expect(FAREWELL);
    assert!(poll(&mut leaving).is_none());
    setup.world.advance(SECOND);
    assert!(now(leaving).is_ok());
    assert!(peer.is_closed());
}

#[test]
fn messages_that_arrive_during_the_drain_are_still_delivered() {
    let (setup, mut peer) = Setup::connected();
    let mut stream =
        now(setup.client.subscribe("t", Qos::AtLeastOnce, Wait::None)).expect("accepted");
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x01");
    drop(setup.client.publish("p", "x", Qos::AtLeastOnce, Wait::None));
    peer.received();
    drop(setup.client.disconnect());
    peer.send(b"\x32\x07\x00\x01t\x00\x07\x00x");
    assert!(stream.try_next().is_some());
    peer.expect(b"\x40\x02\x00\x07");
}

#[test]
fn offline_disconnect_does_not_connect_to_drain() {
    let world = World::new(BrokerOptions::new());
    world
        .network()
        .next_attempts(1, Attempt::Refuse(io::ErrorKind::ConnectionRefused));
    let options = options(&world).retry_delays(1000 * SECOND, 1000 * SECOND);
    let setup = Setup::start(world, options);
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    setup.world.run_until_idle();
    let leaving = setup.client.disconnect();
    setup.world.run_until_idle();
    assert!(matches!(
        failure(now(leaving)).kind(),
        ErrorKind::Unacknowledged(1)
    ));
    assert!(setup.world.block_on(setup.driver).is_ok());
    assert_eq!(setup.world.network().attempts(), 1);
}

#[test]
fn disconnect_ends_a_hanging_attempt() {
    let world = World::new(BrokerOptions::new());
    world.network().all_attempts(Attempt::Hang);
    let options = options(&world);
    let setup = Setup::start(world, options);
    setup.world.run_until_idle();
    let leaving = setup.client.disconnect();
    setup.world.run_until_idle();
    assert!(now(leaving).is_ok());
    assert!(setup.driver.is_finished());
}

#[test]
fn disconnect_before_connack_leaves_by_disconnect() {
    let setup = Setup::with_peers();
    let mut peer = setup.world.peer();
    peer.received();
    drop(setup.client.disconnect());
    let wire = peer.received();
    assert_eq!(wire.first(), Some(&0xe0));
    peer.close();
    assert!(setup.world.block_on(setup.driver).is_ok());
}

#[test]
fn a_link_that_breaks_during_the_drain_is_the_end() {
    let (mut setup, mut peer) = Setup::connected();
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    peer.received();
    let leaving = setup.client.disconnect();
    drop(setup.events());
    peer.reset();
    assert!(matches!(
        failure(now(leaving)).kind(),
        ErrorKind::Unacknowledged(1)
    ));
    let events = setup.events();
    assert!(
        matches!(&events[..], [Event::Disconnected { retry_in: None, .. }]),
        "there is no other attempt: {events:?}"
    );
    assert!(setup.world.block_on(setup.driver).is_ok());
    assert_eq!(setup.world.network().attempts(), 1);
}

#[test]
fn after_disconnect_every_call_is_closed() {
    let (setup, mut peer) = Setup::connected();
    let client = &setup.client;
    drop(client.disconnect());
    let check = || {
        for wait in [Wait::None, Wait::Sent, Wait::Ack] {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
                let error = failure(now(client.publish("t", "x", qos, wait)));
                assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
                assert_eq!(error.sent(), Sent::No);
            }
            let message = now(client.publish_message(Message::new("t", "x"), wait));
            assert!(message.is_err_and(|unpublished| unpublished.message.is_some()));
            let closed = |error: coracle::Error| assert!(matches!(error.kind(), ErrorKind::Closed));
            closed(failure(now(client.subscribe("t", Qos::AtLeastOnce, wait))));
            closed(failure(now(client.subscribe_inline(
                ("t", Qos::AtMostOnce),
                |_| {},
                wait,
            ))));
            closed(failure(now(client.unsubscribe("t", wait))));
            closed(failure(now(client.ping())));
            closed(failure(now(client.connected())));
            closed(failure(now(client.ready())));
            closed(failure(now(client.disconnect())));
            closed(failure(now(
                client.disconnect_with(Reason::SUCCESS, Properties::new())
            )));
            closed(failure(client.reconnect()));
        }
    };
    // While it leaves, and when it has left.
    check();
    peer.received();
    peer.close();
    assert!(setup.driver.is_finished());
    check();
    assert!(!client.is_connected());
    assert_eq!(client.statistics().waits, 0);
}

#[test]
fn the_session_ends_with_the_client_unless_it_is_to_be_resumed() {
    let plain = b"\xe0\x00";
    for (session, version, connack, goodbye) in [
        (Session::Fresh, Version::V5_0, CONNACK, FAREWELL),
        (Session::Resume, Version::V5_0, CONNACK, plain),
        (Session::None, Version::V5_0, CONNACK, plain),
        (Session::Fresh, Version::V3_1_1, CONNACK_3, plain),
    ] {
        let world = World::with_peers();
        let options = options(&world).session(session).version(version);
        let setup = Setup::start(world, options);
        let mut peer = setup.greet(connack);
        drop(setup.client.disconnect());
        peer.expect(goodbye);
        // The connection ends with it, though the broker keeps its side [MQTT-3.14.4-2].
        setup.world.advance(SECOND);
        assert!(peer.is_closed());
    }
}

#[test]
fn disconnect_with_says_its_reason_and_its_properties_at_once() {
    let (setup, mut peer) = Setup::connected();
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    peer.received();
    let properties = Properties::new().reason_string("bye");
    let leaving = setup
        .client
        .disconnect_with(Reason::ADMINISTRATIVE_ACTION, properties);
    peer.expect(b"\xe0\x08\x98\x06\x1f\x00\x03bye");
    peer.close();
    assert!(matches!(
        failure(now(leaving)).kind(),
        ErrorKind::Unacknowledged(1)
    ));
}

#[test]
fn the_will_fires_only_if_the_reason_asks_for_it() {
    for (reason, fires) in [
        (Reason::SUCCESS, false),
        (Reason::DISCONNECT_WITH_WILL, true),
    ] {
        let world = World::new(BrokerOptions::new());
        let options = options(&world).will(Message::new("w", "gone").retain(true));
        let setup = Setup::start(world, options);
        setup
            .wait(setup.client.connected())
            .expect("the broker is there");
        assert!(
            setup
                .wait(setup.client.disconnect_with(reason, Properties::new()))
                .is_ok()
        );
        setup
            .world
            .broker(|broker, _| assert_eq!(broker.retained("w").is_some(), fires));
    }
    let world = World::new(BrokerOptions::new());
    let options = options(&world).will(Message::new("w", "gone").retain(true));
    let setup = Setup::start(world, options);
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    assert!(setup.wait(setup.client.disconnect()).is_ok());
    setup
        .world
        .broker(|broker, _| assert!(broker.retained("w").is_none()));
}

#[test]
fn a_session_that_was_not_kept_cannot_be_kept_at_disconnect() {
    // MQTT 5, section 3.14.2.2.2.
    let world = World::with_peers();
    let options = options(&world).session(Session::None);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    let properties = Properties::new().session_expiry_interval(10);
    let error = failure(now(setup
        .client
        .disconnect_with(Reason::SUCCESS, properties)));
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    peer.expect_nothing();
    assert!(setup.client.is_connected(), "a mistake disconnects nobody");
}

// Without handles.

#[test]
fn dropping_all_handles_drains_and_ends_the_driver() {
    let (setup, mut peer) = Setup::connected();
    let publishing = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    let Setup {
        world,
        client,
        driver,
        ..
    } = setup;
    let clone = client.clone();
    drop(client);
    peer.received();
    drop(clone);
    peer.expect_nothing();
    assert!(!driver.is_finished());
    peer.send(b"\x40\x02\x00\x01");
    // A wait is no handle, but it ends well in the drain.
    assert!(now(publishing).is_ok());
    peer.expect(FAREWELL);
    peer.close();
    assert!(world.block_on(driver).is_ok());
}

#[test]
fn dropping_all_handles_before_the_first_turn_ends_the_driver_too() {
    let world = World::new(BrokerOptions::new());
    let (client, driver) = Client::new(options(&world));
    drop(client);
    assert!(world.block_on(driver.run()).is_ok());
    assert_eq!(world.network().attempts(), 0);
}

#[test]
fn a_subscription_alone_keeps_the_driver_and_its_drop_ends_it() {
    let (setup, mut peer) = Setup::connected();
    let stream = now(setup.client.subscribe("t", Qos::AtLeastOnce, Wait::None)).expect("accepted");
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x01");
    let Setup {
        world,
        client,
        driver,
        ..
    } = setup;
    drop(client);
    world.advance(300 * SECOND);
    let kept_alive = peer.received();
    assert!(
        kept_alive.starts_with(b"\xc0\x00"),
        "it pings for its stream"
    );
    assert!(!driver.is_finished(), "but nobody answered, and it goes on");
    drop(stream);
    world.advance(2 * SECOND);
    assert!(driver.is_finished());
}

// The guard.

/// A waker of which can be told how many clones there are.
struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

/// Polls a wait; true once it has ended.
type Polled = dyn FnMut(&mut Context<'_>) -> bool;

/// Something of everything that waits, polled once.
struct Waits {
    polls: Vec<Box<Polled>>,
    waker: Arc<Counted>,
}

impl Waits {
    /// Begins every kind of wait. The client has neither room nor a connection that answers.
    fn begin(client: &Client) -> Self {
        let mut waits = Self {
            polls: Vec::new(),
            waker: Arc::new(Counted),
        };
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for wait in [Wait::Sent, Wait::Ack] {
                waits.closes(client.publish("t", "x", qos, wait));
                waits.closes(client.publish("t", "x", qos, wait));
            }
        }
        let mut message = client.publish_message(Message::new("t", "x"), Wait::Ack);
        waits.add(
            move |cx| match std::pin::Pin::new(&mut message).poll_once(cx) {
                Some(outcome) => {
                    let unpublished = outcome.expect_err("closed");
                    assert!(matches!(unpublished.error.kind(), ErrorKind::Closed));
                    true
                }
                None => false,
            },
        );
        waits.closes(client.subscribe("t", Qos::AtLeastOnce, Wait::Ack));
        waits.closes(client.unsubscribe("u", Wait::Ack));
        waits.closes(client.connected());
        waits.closes(client.ready());
        let stream = now(client.subscribe("s", Qos::AtLeastOnce, Wait::None)).expect("accepted");
        waits.ends(stream);
        let inline = client.subscribe_inline(("i", Qos::AtLeastOnce), |_| {}, Wait::None);
        waits.ends(now(inline).expect("accepted"));
        waits.ends(client.events());
        waits
    }

    fn add(&mut self, poll: impl FnMut(&mut Context<'_>) -> bool + 'static) {
        self.polls.push(Box::new(poll));
    }

    /// A wait that is to end with `Closed`.
    fn closes<T: std::fmt::Debug>(
        &mut self,
        mut future: impl Future<Output = coracle::Result<T>> + Unpin + 'static,
    ) {
        self.add(
            move |cx| match std::pin::Pin::new(&mut future).poll_once(cx) {
                Some(outcome) => {
                    let error = failure(outcome);
                    assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
                    true
                }
                None => false,
            },
        );
    }

    /// A stream that is to end.
    fn ends(&mut self, mut stream: impl futures_lite::Stream + Unpin + 'static) {
        self.add(move |cx| {
            let mut polled = std::pin::Pin::new(&mut stream).poll_next(cx);
            while let std::task::Poll::Ready(Some(_)) = polled {
                polled = std::pin::Pin::new(&mut stream).poll_next(cx);
            }
            polled.is_ready()
        });
    }

    /// Polls everything that has not ended; returns how many have not.
    fn left(&mut self) -> usize {
        let waker = Waker::from(Arc::clone(&self.waker));
        let mut cx = Context::from_waker(&waker);
        self.polls.retain_mut(|poll| !poll(&mut cx));
        self.polls.len()
    }

    #[track_caller]
    fn check_going_on(&mut self) {
        let all = self.polls.len();
        assert_eq!(self.left(), all);
        assert!(Arc::strong_count(&self.waker) > all, "each holds a waker");
    }

    #[track_caller]
    fn check_ended(mut self) {
        assert_eq!(
            Arc::strong_count(&self.waker),
            1,
            "every waker was woken or dropped"
        );
        assert_eq!(self.left(), 0, "every wait has ended");
    }
}

/// Polls once.
trait PollOnce: Future {
    fn poll_once(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Option<Self::Output> {
        match self.poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}

impl<F: Future> PollOnce for F {}

/// A client without room that has no connection.
fn waiting(options: Options) -> (Client, coracle::Driver, Waits) {
    let (client, driver) = Client::new(options.queue_bytes(1));
    let mut waits = Waits::begin(&client);
    waits.check_going_on();
    (client, driver, waits)
}

#[test]
fn a_driver_that_is_dropped_unrun_ends_every_wait() {
    let world = World::with_peers();
    let (_client, driver, waits) = waiting(options(&world));
    drop(driver);
    waits.check_ended();
}

#[test]
fn a_driver_that_is_dropped_ends_every_wait_without_a_goodbye() {
    let world = World::new(BrokerOptions::new());
    let options = options(&world).will(Message::new("w", "gone").retain(true));
    world.network().hold_flush();
    // Nothing is answered any more after CONNACK.
    let (client, driver, mut waits) = waiting(options);
    let driver = world.spawn(driver.run());
    world.network().stall();
    world.run_until_idle();
    waits.check_going_on();
    drop(driver);
    world.run_until_idle();
    waits.check_ended();
    world.network().unstall();
    world.run_until_idle();
    assert!(!client.is_connected());

    let world = World::new(BrokerOptions::new());
    let options = self::options(&world).will(Message::new("w", "gone").retain(true));
    let setup = Setup::start(world, options);
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    drop(setup.driver);
    setup.world.run_until_idle();
    setup.world.broker(|broker, _| {
        assert!(broker.retained("w").is_some(), "the will is published");
        let disconnects = broker
            .packets()
            .iter()
            .filter(|packet| packet.kind() == Kind::Disconnect);
        assert_eq!(disconnects.count(), 0);
    });
}

#[test]
fn a_driver_that_returns_an_error_ends_every_wait() {
    let world = World::new(BrokerOptions::new());
    world
        .network()
        .all_attempts(Attempt::Refuse(io::ErrorKind::ConnectionRefused));
    let options = options(&world).give_up_when(|_, _| true);
    let (_client, driver, waits) = waiting(options);
    failure(world.block_on(driver.run()));
    waits.check_ended();
}

#[test]
fn a_driver_that_panics_ends_every_wait() {
    let world = World::with_peers();
    let connector = |_: &Endpoint| -> LocalBoxFuture<io::Result<coracle::BoxedTransport>> {
        panic!("the connector has a bug")
    };
    let options = options(&world).connector(connector);
    let (_client, driver, waits) = waiting(options);
    let mut run = Box::pin(driver.run());
    let panicked = catch_unwind(AssertUnwindSafe(|| poll(&mut run)));
    assert!(panicked.is_err());
    drop(run);
    waits.check_ended();
}

#[test]
fn a_disconnect_ends_every_wait() {
    let world = World::with_peers();
    world.network().all_attempts(Attempt::Hang);
    let (client, driver, waits) = waiting(options(&world));
    let driver = world.spawn(driver.run());
    world.run_until_idle();
    drop(client.disconnect());
    assert!(world.block_on(driver).is_ok());
    waits.check_ended();
}

#[test]
fn what_a_stream_holds_can_be_read_after_the_end() {
    let (setup, mut peer) = Setup::connected();
    let mut stream =
        now(setup.client.subscribe("t", Qos::AtMostOnce, Wait::None)).expect("accepted");
    peer.send(b"\x30\x05\x00\x01t\x00x");
    drop(setup.driver);
    setup.world.run_until_idle();
    assert!(now(stream.next()).is_some());
    assert!(now(stream.next()).is_none());
    assert!(matches!(
        stream.error().expect("it says why").kind(),
        ErrorKind::Closed
    ));
}

// Cycles.

/// A clock that holds a token.
#[derive(Debug)]
struct Held<T>(FakeClock, T);

impl<T: std::fmt::Debug> Clock for Held<T> {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn sleep_until(&self, deadline: Instant) -> LocalBoxFuture<()> {
        self.0.sleep_until(deadline)
    }
}

/// A client of which every callback holds a token, and some the client itself.
fn entangled(token: &Rc<()>) -> (World, Client, smol::Task<coracle::Result<()>>) {
    let world = World::new(BrokerOptions::new());
    let own = Rc::new(RefCell::new(None::<Client>));
    let options = options(&world)
        .clock(Held(world.clock(), Rc::clone(token)))
        .connector({
            let (network, token, own) = (world.network(), Rc::clone(token), Rc::clone(&own));
            move |_: &Endpoint| {
                let _held = (&token, &own);
                network.open()
            }
        })
        .before_connect({
            let (token, own) = (Rc::clone(token), Rc::clone(&own));
            move |attempt| {
                let _held = (&token, &own);
                Box::pin(std::future::ready(Ok(attempt)))
            }
        })
        .give_up_when({
            let token = Rc::clone(token);
            move |_, _| {
                let _held = &token;
                false
            }
        });
    let (client, driver) = Client::new(options);
    *own.borrow_mut() = Some(client.clone());
    let handler = {
        let (token, client) = (Rc::clone(token), client.clone());
        move |_: &Incoming<'_>| {
            let _held = (&token, &client);
        }
    };
    let subscribing = client.subscribe_inline(("t", Qos::AtMostOnce), handler, Wait::None);
    let subscription = now(subscribing).expect("accepted");
    // A task of the application that keeps a handle for ever.
    let keeper = (client.clone(), subscription);
    let kept = world.spawn(async move {
        let (client, mut subscription) = keeper;
        let ended = subscription.next().await;
        (client, ended.is_none())
    });
    kept.detach();
    let driver = world.spawn(driver.run());
    (world, client, driver)
}

#[test]
fn no_cycle_keeps_a_client_alive_after_disconnect() {
    let token = Rc::new(());
    let (world, client, driver) = entangled(&token);
    world
        .block_on(client.connected())
        .expect("the broker is there");
    assert!(Rc::strong_count(&token) > 4);
    world
        .block_on(client.disconnect())
        .expect("nothing is unacknowledged");
    world.block_on(driver).expect("a good end");
    assert_eq!(
        Rc::strong_count(&token),
        1,
        "although a handle is still there"
    );
}

#[test]
fn no_cycle_keeps_a_client_alive_after_its_driver_was_dropped() {
    let token = Rc::new(());
    let (world, client, driver) = entangled(&token);
    world
        .block_on(client.connected())
        .expect("the broker is there");
    drop(driver);
    world.run_until_idle();
    assert_eq!(
        Rc::strong_count(&token),
        1,
        "although a handle is still there"
    );
    drop(client);
}

#[test]
fn a_dropped_driver_frees_what_the_client_held() {
    let (setup, mut peer) = Setup::connected();
    let payload = Rc::new(vec![7; 100]);
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        drop(
            setup
                .client
                .publish("t", Rc::clone(&payload), qos, Wait::None),
        );
    }
    peer.received();
    assert!(Rc::strong_count(&payload) > 1);
    let mut stream =
        now(setup.client.subscribe("t", Qos::AtMostOnce, Wait::None)).expect("accepted");
    peer.send(b"\x30\x05\x00\x01t\x00x");
    let message = stream.try_next().expect("it arrived");
    peer.send(b"\x30\x05\x00\x01t\x00x");
    drop(setup.driver);
    setup.world.run_until_idle();
    assert_eq!(Rc::strong_count(&payload), 1);
    // What the user holds keeps its content, whatever becomes of the client.
    drop((setup.client, stream));
    assert_eq!(message.payload(), b"x");
}

#[test]
fn a_thousand_clients_one_after_the_other_leave_nothing_in_the_world() {
    let world = World::new(BrokerOptions::new());
    for _ in 0..1000 {
        let setup = Setup::start(world.clone(), options(&world));
        let subscribing = setup.client.subscribe("t", Qos::AtLeastOnce, Wait::Ack);
        let stream = setup.wait(subscribing).expect("granted");
        setup
            .wait(setup.client.disconnect())
            .expect("nothing is unacknowledged");
        drop(stream);
    }
    world.run_until_idle();
    assert_eq!(world.network().connections(), 0);
    world.broker(|broker, _| assert!(broker.sessions().is_empty()));
}

#[test]
fn the_broker_is_left_by_disconnect_also_when_much_is_unsent() {
    // The send buffer takes a few bytes at a time, so the goodbye takes many writes.
    let world = World::new(BrokerOptions::new());
    world.network().send_buffer(10);
    let options = options(&world);
    let setup = Setup::start(world, options);
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    for _ in 0..100 {
        drop(setup.client.publish("t", "x", Qos::AtMostOnce, Wait::None));
    }
    drop(
        setup
            .client
            .disconnect_with(Reason::SUCCESS, Properties::new()),
    );
    setup.world.advance(SECOND);
    assert_eq!(last_packet(&setup.world), Some(Kind::Disconnect));
    setup
        .world
        .broker(|broker, _| assert_eq!(broker.messages().len(), 100));
}

#[test]
fn a_link_that_is_lost_while_leaving_ends_the_goodbye() {
    let (setup, mut peer) = Setup::connected();
    let leaving = setup.client.disconnect();
    peer.expect(FAREWELL);
    setup.world.network().cut(Cut::Reset);
    setup.world.run_until_idle();
    assert!(now(leaving).is_ok());
    assert!(setup.world.block_on(setup.driver).is_ok());
}

#[test]
fn an_idle_client_reads_nothing_between_pings() {
    // A client that only keeps its connection alive has one timer and wakes nobody in between.
    let setup = Setup::with_broker(BrokerOptions::new());
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    let reads = setup.world.network().reads();
    setup.world.advance(Duration::from_secs(59));
    assert_eq!(setup.world.network().reads(), reads);
}

#[test]
fn a_ping_has_its_time_from_when_it_has_left_however_long_a_handler_took() {
    let world = World::with_peers();
    let clock = world.clock();
    let options = options(&world).keep_alive(10 * SECOND).ping_timeout(SECOND);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    let slow = clock.clone();
    let _handle = now(setup.client.subscribe_inline(
        ("t", Qos::AtMostOnce),
        move |_| slow.advance(SECOND * 3 / 2),
        Wait::None,
    ));
    peer.received();
    // The ping is due in the turn that calls the handler.
    clock.advance(10 * SECOND);
    peer.send(b"\x30\x04\0\x01t\0");
    assert_eq!(peer.received(), b"\xC0\0");
    setup.world.advance(SECOND * 9 / 10);
    assert!(setup.client.is_connected());
    peer.send(b"\xD0\0");
    setup.world.advance(5 * SECOND);
    assert!(setup.client.is_connected());
}

#[test]
fn a_slow_handler_does_not_hide_the_answer_to_a_ping_that_lies_behind_its_messages() {
    let world = World::with_peers();
    world.network().read_chunk(8);
    let clock = world.clock();
    let options = options(&world).keep_alive(10 * SECOND).ping_timeout(SECOND);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    let _handle = now(setup.client.subscribe_inline(
        ("t", Qos::AtMostOnce),
        move |_| clock.advance(SECOND * 3 / 2),
        Wait::None,
    ));
    peer.received();
    setup.world.advance(10 * SECOND);
    assert_eq!(peer.received(), b"\xC0\0");
    // More than the reads of one turn.
    let mut flood = b"\x30\x04\0\x01t\0".repeat(11);
    flood.extend(b"\xD0\0");
    peer.send(&flood);
    setup.world.run_until_idle();
    assert!(setup.client.is_connected());
}
