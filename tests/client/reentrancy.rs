//! Code of the user's that runs in the middle of the client: wakers, drops and callbacks may call it.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use coracle::testkit::{Attempt, BrokerOptions, Cut, World};
use coracle::{
    Client, Endpoint, ErrorKind, Filters, Incoming, Message, Overflow, Properties, Qos, Reason,
    Wait,
};
use futures_lite::{AsyncRead, AsyncWrite, Stream};

use crate::{CONNACK, SECOND, Setup, now, options};

thread_local! {
    /// The client that is called from everywhere, and how often it was.
    static CALLED: RefCell<(Option<Client>, usize)> = const { RefCell::new((None, 0)) };
}

/// Calls are answered, and the answers bring about more calls: so many are enough.
const ENOUGH: usize = 200;

/// Calls the client with everything that there is.
fn call() {
    let client = CALLED.with_borrow_mut(|(client, count)| {
        *count += 1;
        client.clone().filter(|_| *count < ENOUGH)
    });
    let Some(client) = client else { return };
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        drop(client.publish("called", "x", qos, Wait::None));
        drop(client.publish("called", "x", qos, Wait::Ack));
    }
    drop(client.subscribe("called", Qos::AtMostOnce, Wait::Ack));
    drop(client.unsubscribe("other", Wait::Sent));
    drop(client.request("called", "x", SECOND));
    drop(client.serve(("served", Qos::AtMostOnce), |_| "x", Wait::Ack));
    drop(client.ready());
    drop(client.connected());
    drop(client.ping());
    drop(client.events());
    assert!(client.statistics().published < u64::MAX);
}

/// Begins to call this client, or ends it.
fn watch(client: Option<&Client>) -> usize {
    let (old, count) = CALLED.replace((client.cloned(), 0));
    drop(old);
    count
}

/// Calls the client when it is woken and when it is dropped.
struct Nosy;

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        call();
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        call();
    }
}

/// A future or a stream, looked at once with a waker of its own.
trait Look {
    fn look(&mut self) -> bool;
}

impl<F: Future + Unpin> Look for F {
    fn look(&mut self) -> bool {
        let waker = Waker::from(Arc::new(Nosy));
        Pin::new(self)
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
    }
}

struct Reading<S>(S);

impl<S: Stream + Unpin> Future for Reading<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll_next(cx).map(drop)
    }
}

/// Everything that waits.
fn everything(client: &Client) -> Vec<Box<dyn Look>> {
    let mut all: Vec<Box<dyn Look>> = Vec::new();
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for wait in [Wait::Sent, Wait::Ack] {
            all.push(Box::new(client.publish("t", "x", qos, wait)));
            all.push(Box::new(
                client.publish_message(Message::new("t", "x").qos(qos), wait),
            ));
        }
    }
    all.push(Box::new(client.subscribe("t", Qos::AtLeastOnce, Wait::Ack)));
    all.push(Box::new(client.unsubscribe("u", Wait::Ack)));
    all.push(Box::new(client.request("t", "x", 100 * SECOND)));
    all.push(Box::new(
        client.request_message(Message::new("t", "x"), SECOND),
    ));
    all.push(Box::new(client.ready()));
    all.push(Box::new(client.connected()));
    all.push(Box::new(client.ping()));
    all.push(Box::new(Reading(client.events())));
    let stream = now(client.subscribe("s", Qos::AtLeastOnce, Wait::None)).expect("accepted");
    all.push(Box::new(Reading(stream)));
    let nosy = Nosy;
    let handler = move |_: &Incoming<'_>| {
        let _held = &nosy;
    };
    let inline = client.subscribe_inline(("i", Qos::AtLeastOnce), handler, Wait::None);
    all.push(Box::new(Reading(now(inline).expect("accepted"))));
    all
}

/// A client with little room in a world with a broker, and everything that waits.
fn crowded() -> (Setup, Vec<Box<dyn Look>>) {
    let world = World::new(BrokerOptions::new());
    let options = options(&world).queue_bytes(100);
    let setup = Setup::start(world, options);
    let mut all = everything(&setup.client);
    watch(Some(&setup.client));
    // Twice, so that one waker replaces another.
    for _ in 0..2 {
        all.iter_mut().for_each(|one| {
            one.look();
        });
    }
    (setup, all)
}

#[test]
fn wakers_that_are_dropped_with_their_futures_may_call() {
    let (setup, all) = crowded();
    drop(all);
    setup.world.run_until_idle();
    assert!(watch(None) > 10);
}

#[test]
fn wakers_that_are_woken_may_call() {
    let (setup, mut all) = crowded();
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    setup
        .world
        .broker(|broker, now| broker.publish(now, &Message::new("s", "x")));
    setup.world.advance(SECOND);
    all.iter_mut().for_each(|one| {
        one.look();
    });
    setup.world.network().cut(Cut::Reset);
    setup.world.advance(100 * SECOND);
    assert!(watch(None) > 10);
    drop(all);
    setup.world.run_until_idle();
}

#[test]
fn wakers_that_are_woken_by_the_end_of_time_may_call() {
    let world = World::with_peers();
    world.network().all_attempts(Attempt::Hang);
    let options = options(&world).queue_bytes(100).wait_timeout(SECOND);
    let setup = Setup::start(world, options);
    let mut all = everything(&setup.client);
    watch(Some(&setup.client));
    all.iter_mut().for_each(|one| {
        one.look();
    });
    setup.world.advance(10 * SECOND);
    assert!(watch(None) > 10);
    drop(all);
}

#[test]
fn wakers_and_handlers_may_call_while_the_client_closes() {
    for by_user in [true, false] {
        let (setup, all) = crowded();
        let Setup {
            world,
            client,
            driver,
            ..
        } = setup;
        world.run_until_idle();
        if by_user {
            drop(client.disconnect_with(Reason::SUCCESS, Properties::new()));
            drop(world.block_on(driver));
        } else {
            drop(driver);
            world.run_until_idle();
        }
        assert!(watch(None) > 0, "by user: {by_user}");
        drop(all);
    }
}

#[test]
fn a_handler_that_is_refused_may_call_when_it_is_dropped() {
    let (setup, mut peer) = Setup::connected();
    let client = &setup.client;
    let _kept = now(client.subscribe("k", Qos::AtMostOnce, Wait::None)).expect("accepted");
    watch(Some(client));
    let handler = || {
        let nosy = Nosy;
        move |_: &Incoming<'_>| {
            let _held = &nosy;
        }
    };
    // By a mistake, by a conflict, by the broker.
    drop(client.subscribe_inline(("a#", Qos::AtMostOnce), handler(), Wait::Ack));
    let conflicting = Filters::new("k", Qos::AtMostOnce).no_local(true);
    drop(client.subscribe_inline(conflicting, handler(), Wait::Ack));
    assert!(CALLED.with_borrow(|(_, count)| *count) >= 2);
    peer.received();
    let refused = now(client.subscribe_inline(("r", Qos::AtMostOnce), handler(), Wait::None));
    peer.received();
    let before = CALLED.with_borrow(|(_, count)| *count);
    drop(client.unsubscribe("r", Wait::None));
    peer.received();
    assert!(CALLED.with_borrow(|(_, count)| *count) > before);
    drop(refused);
    watch(None);
}

#[test]
fn a_waker_may_call_when_a_stream_overflows() {
    let (setup, mut peer) = Setup::connected();
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::End] {
        let filters = Filters::new("t", Qos::AtLeastOnce)
            .stream_bytes(1)
            .overflow(overflow);
        let mut stream =
            Reading(now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted"));
        let mut events = Reading(setup.client.events());
        watch(Some(&setup.client));
        stream.look();
        events.look();
        for id in 1..=3 {
            peer.send(&[0x32, 7, 0, 1, b't', 0, id, 0, b'x']);
            events.look();
        }
        assert!(watch(None) > 1, "{overflow:?}");
        drop(stream);
        peer.received();
    }
}

/// A transport that calls the client whenever it is asked for something.
struct Talkative<T>(T);

impl<T: AsyncRead + Unpin> AsyncRead for Talkative<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        call();
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Talkative<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        call();
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        call();
        Pin::new(&mut self.0).poll_close(cx)
    }
}

impl<T> Drop for Talkative<T> {
    fn drop(&mut self) {
        call();
    }
}

#[test]
fn every_callback_may_call() {
    let world = World::new(BrokerOptions::new());
    world
        .network()
        .next_attempts(1, Attempt::Refuse(io::ErrorKind::ConnectionRefused));
    let network = world.network();
    let options = options(&world)
        .connector(
            move |_: &Endpoint| -> coracle::LocalBoxFuture<io::Result<coracle::BoxedTransport>> {
                call();
                let opening = network.open();
                Box::pin(async move {
                    call();
                    let transport: coracle::BoxedTransport = Box::pin(Talkative(opening.await?));
                    Ok(transport)
                })
            },
        )
        .before_connect(|attempt| {
            call();
            Box::pin(async move {
                call();
                Ok(attempt)
            })
        })
        .give_up_when(|_, _| {
            call();
            false
        });
    let setup = Setup::start(world, options);
    watch(Some(&setup.client));
    setup
        .wait(setup.client.connected())
        .expect("the second attempt succeeds");
    setup.world.advance(SECOND);
    setup.world.network().cut(Cut::Close);
    setup.world.advance(10 * SECOND);
    assert!(setup.client.is_connected());
    drop(setup.client.disconnect());
    setup.world.advance(10 * SECOND);
    assert!(watch(None) > 10);
    assert!(setup.driver.is_finished());
}

#[test]
fn what_is_called_by_the_last_write_of_a_turn_is_done_in_the_next() {
    // A call in the middle of the driver's turn wakes nobody, and must not be forgotten for that.
    let world = World::with_peers();
    let network = world.network();
    let armed = Rc::new(RefCell::new(None::<Client>));
    struct Late<T>(T, Rc<RefCell<Option<Client>>>);
    impl<T: AsyncRead + Unpin> AsyncRead for Late<T> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }
    impl<T: AsyncWrite + Unpin> AsyncWrite for Late<T> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if let Some(client) = self.1.borrow_mut().take() {
                drop(client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
            }
            Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_close(cx)
        }
    }
    let options = {
        let armed = Rc::clone(&armed);
        options(&world).connector(
            move |_: &Endpoint| -> coracle::LocalBoxFuture<io::Result<coracle::BoxedTransport>> {
                let (opening, armed) = (network.open(), Rc::clone(&armed));
                Box::pin(async move {
                    let transport: coracle::BoxedTransport = Box::pin(Late(opening.await?, armed));
                    Ok(transport)
                })
            },
        )
    };
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    *armed.borrow_mut() = Some(setup.client.clone());
    drop(setup.client.ping());
    peer.expect(b"\xc0\x00\x32\x07\x00\x01t\x00\x01\x00x");
}

#[test]
fn a_handler_that_publishes_into_a_full_queue_is_told_and_the_client_goes_on() {
    let world = World::with_peers();
    // Room for one message: it counts its topic, its payload and 64 bytes.
    let options = options(&world).queue_bytes(66);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    let waits = Rc::new(RefCell::new(Vec::new()));
    let handler = {
        let (client, waits) = (setup.client.clone(), Rc::clone(&waits));
        move |_: &Incoming<'_>| {
            for wait in [Wait::None, Wait::Ack, Wait::Ack, Wait::None] {
                let publishing = client.publish("p", "x", Qos::AtLeastOnce, wait);
                waits.borrow_mut().push(publishing);
            }
        }
    };
    let subscribing = setup
        .client
        .subscribe_inline(("t", Qos::AtMostOnce), handler, Wait::None);
    let _subscription = now(subscribing).expect("accepted");
    peer.received();
    peer.send(b"\x30\x05\x00\x01t\x00y");
    // The first one found room, and the queue is full.
    peer.expect(b"\x32\x07\x00\x01p\x00\x02\x00x");
    let mut waits = waits.take();
    let last = waits.pop().expect("the handler was called");
    let error = now(last).expect_err("there is no room and others wait for it");
    assert!(matches!(error.kind(), ErrorKind::QueueFull), "{error}");
    // Those who wait for room get it.
    peer.send(b"\x40\x02\x00\x02");
    peer.expect(b"\x32\x07\x00\x01p\x00\x03\x00x");
    peer.send(b"\x40\x02\x00\x03");
    peer.expect(b"\x32\x07\x00\x01p\x00\x04\x00x");
    peer.send(b"\x40\x02\x00\x04");
    for wait in waits {
        now(wait).expect("accepted or acknowledged");
    }
}
