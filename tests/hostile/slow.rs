//! Peers that are slow, dead, or never stop.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle::testkit::{FakeClock, World};
use coracle::{BoxedTransport, Endpoint, LocalBoxFuture, Qos, Version, Wait};
use futures_lite::{AsyncRead, AsyncWrite};

use super::{SECOND, Setup, connack, options};

/// A peer that greets, and sends zeros as fast as they are read once the client has said goodbye. Each
/// read takes a millisecond.
struct Endless {
    clock: FakeClock,
    greeting: usize,
    is_closed: bool,
    /// Reads since anyone else on the thread had a turn.
    reads: Rc<Cell<usize>>,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_closed {
            self.reads.set(self.reads.get() + 1);
            assert!(self.reads.get() < 1000, "nobody else has a turn");
            self.clock.advance(Duration::from_millis(1));
            buffer.fill(0);
            return Poll::Ready(Ok(buffer.len()));
        }
        let rest = &connack(Version::V5_0)[self.greeting..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        buffer[..rest.len()].copy_from_slice(rest);
        self.greeting += rest.len();
        Poll::Ready(Ok(rest.len()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_closed = true;
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_peer_that_sends_without_end_does_not_hold_up_the_goodbye() {
    let world = World::with_peers();
    let reads = Rc::new(Cell::new(0));
    let (clock, count) = (world.clock(), Rc::clone(&reads));
    let connector = move |_: &Endpoint| -> LocalBoxFuture<io::Result<BoxedTransport>> {
        let transport: BoxedTransport = Box::pin(Endless {
            clock: clock.clone(),
            greeting: 0,
            is_closed: false,
            reads: Rc::clone(&count),
        });
        Box::pin(async { Ok(transport) })
    };
    let setup = Setup::start(&world, options(&world, Version::V5_0).connector(connector));
    world
        .block_on(setup.client.connected())
        .expect("CONNACK came");
    let begin = world.now();
    let leaving = setup.client.disconnect();
    let is_over = Rc::new(Cell::new(false));
    let over = Rc::clone(&is_over);
    let others = world.spawn(async move {
        while !is_over.get() {
            reads.set(0);
            futures_lite::future::yield_now().await;
        }
    });
    let driver = setup.driver;
    let driver = world.spawn(async move {
        let result = driver.await;
        over.set(true);
        result
    });
    assert!(world.block_on(driver).is_ok());
    world.block_on(others);
    assert!(world.block_on(leaving).is_ok());
    assert!(world.now() - begin < 2 * SECOND);
}

#[test]
fn a_goodbye_has_its_whole_second() {
    // The driver's alarm is set for the keep-alive, which comes sooner.
    let (setup, mut peer) =
        Setup::connected(Version::V5_0, |options| options.keep_alive(10 * SECOND));
    setup.world.advance(Duration::from_millis(9_700));
    setup.world.network().send_buffer(0);
    setup.world.network().stall();
    let leaving = setup.client.disconnect();
    setup.world.advance(Duration::from_millis(700));
    setup.world.network().send_buffer(usize::MAX);
    setup.world.network().unstall();
    peer.expect(b"\xe0\x00");
    drop(leaving);
}

#[test]
fn no_patience_is_too_long() {
    const EVER: Duration = Duration::MAX;
    let (setup, mut peer) = Setup::connected(Version::V5_0, |options| {
        options
            .keep_alive(EVER)
            .ping_timeout(EVER)
            .connect_timeout(EVER)
            .connack_timeout(EVER)
            .wait_timeout(EVER)
            .drain_timeout(EVER)
            .take_timeout(EVER)
            .stable_after(EVER)
            .session_expiry(EVER)
            .retry_delays(EVER, EVER)
    });
    let client = &setup.client;
    let stream = client.subscribe("#", Qos::AtLeastOnce, Wait::Ack);
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x01");
    let mut stream = setup.world.block_on(stream).expect("it was granted");
    peer.send(b"\x32\x06\x00\x01t\x00\x01\x00");
    peer.expect_nothing();
    assert!(stream.try_next().is_some());
    peer.expect(b"\x40\x02\x00\x01");
    let ping = client.ping();
    peer.expect(b"\xc0\x00");
    peer.send(b"\xd0\x00");
    assert!(setup.world.block_on(ping).is_ok());
    let publishing = client.publish("t", "", Qos::AtLeastOnce, Wait::Ack);
    peer.received();
    let leaving = client.disconnect();
    setup.world.advance(3600 * SECOND);
    peer.expect_nothing();
    peer.reset();
    setup.world.advance(3600 * SECOND);
    drop((publishing, leaving));
}
