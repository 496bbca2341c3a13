//! Peers that are slow, dead, or never stop.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle::testkit::{Attempt, FakeClock, Peer, World};
use coracle::{BoxedTransport, Endpoint, Event, LocalBoxFuture, Qos, Version, Wait};
use futures_lite::{AsyncRead, AsyncWrite};

use super::{SECOND, Setup, VERSIONS, connack, next, options};

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

/// Lets time pass, with one byte from the peer each second, until it has no more or the link is gone.
/// Returns how many seconds that took.
fn drip(setup: &Setup, peer: &mut Peer, bytes: impl IntoIterator<Item = u8>) -> u32 {
    let mut seconds = 0;
    for byte in bytes {
        peer.send(&[byte]);
        setup.world.advance(SECOND);
        peer.received();
        if peer.is_closed() {
            break;
        }
        seconds += 1;
    }
    seconds
}

/// How many seconds of silence the link lasts.
fn silence(setup: &Setup, peer: &mut Peer) -> u32 {
    for seconds in 0..10_000 {
        peer.received();
        if peer.is_closed() {
            return seconds;
        }
        setup.world.advance(SECOND);
    }
    panic!("the link lasts for ever");
}

#[test]
fn a_dripping_connack_ends_at_its_timeout() {
    for version in VERSIONS {
        let world = World::with_peers();
        let setup = Setup::start(&world, options(&world, version));
        let mut peer = world.peer();
        // 16,000 bytes are announced.
        let bytes = [0x20, 0x80, 0x7D].into_iter().chain(std::iter::repeat(0));
        assert_eq!(drip(&setup, &mut peer, bytes), 9, "connack_timeout is 10 s");
        let mut peer = loop {
            world.advance(SECOND);
            if world.network().attempts() > 1 {
                break world.peer();
            }
        };
        assert!(
            silence(&setup, &mut peer) <= 11,
            "CONNACK does not come at all"
        );
    }
}

#[test]
fn a_packet_that_stops_in_its_header_or_body_ends_with_the_keep_alive() {
    for version in VERSIONS {
        for start in [
            b"\x30".as_slice(),
            b"\x30\xff",
            b"\x30\xff\xff\x03",
            b"\x30\xff\xff\x03\x00\x01t",
        ] {
            let (setup, mut peer) = Setup::connected(version, |options| options);
            drip(&setup, &mut peer, start.iter().copied());
            let seconds = silence(&setup, &mut peer);
            assert!((60..=71).contains(&seconds), "it took {seconds} s");
        }
    }
}

#[test]
fn a_dripping_body_disturbs_no_other_client_and_its_end_is_noticed() {
    let (setup, mut peer) = Setup::connected(Version::V5_0, |options| options);
    let other = Setup::start(&setup.world, options(&setup.world, Version::V5_0));
    let mut other_peer = other.greet(Version::V5_0);
    let start = b"\x30\xff\xff\x03\x00\x01t\x00";
    drip(&setup, &mut peer, start.iter().copied());
    for id in 1..=100_u8 {
        let body = std::iter::repeat_n(b'x', 30);
        assert_eq!(
            drip(&setup, &mut peer, body),
            30,
            "bytes are a sign of life"
        );
        let publishing = other.client.publish("t", "", Qos::AtLeastOnce, Wait::Ack);
        assert_eq!(other_peer.received().first(), Some(&0x32));
        other_peer.send(&[0x40, 2, 0, id]);
        assert!(setup.world.block_on(publishing).is_ok());
    }
    assert!(silence(&setup, &mut peer) <= 75);
}

#[test]
fn stalled_handshakes_disturb_no_other_client() {
    for version in VERSIONS {
        let world = World::with_peers();
        let other = Setup::start(&world, options(&world, version));
        let mut other_peer = other.greet(version);
        // One whose transport never opens, one that gets no CONNACK, and one that gets the half of it.
        world.network().next_attempts(1, Attempt::Hang);
        let hangs = Setup::start(&world, options(&world, version));
        world.run_until_idle();
        let silent = Setup::start(&world, options(&world, version));
        let _silent_peer = world.peer();
        let half = Setup::start(&world, options(&world, version));
        let mut half_peer = world.peer();
        half_peer.send(&connack(version)[..2]);
        for id in 1..=15_u8 {
            world.advance(SECOND);
            let before = world.now();
            let publishing = other.client.publish("t", "", Qos::AtLeastOnce, Wait::Ack);
            assert_eq!(other_peer.received().first(), Some(&0x32));
            other_peer.send(&[0x40, 2, 0, id]);
            assert!(world.block_on(publishing).is_ok());
            assert_eq!(world.now(), before, "without any time in between");
        }
        // 10 s for CONNACK and 20 s for the transport.
        assert_eq!(silent.client.statistics().failed, 1);
        assert_eq!(half.client.statistics().failed, 1);
        assert_eq!(hangs.client.statistics().failed, 0);
        world.advance(6 * SECOND);
        assert_eq!(hangs.client.statistics().failed, 1);
    }
}

#[test]
fn a_send_buffer_that_never_drains_is_a_dead_link_and_stops_the_reading() {
    for version in VERSIONS {
        let (setup, mut peer) = Setup::connected(version, |options| options);
        let network = setup.world.network();
        network.send_buffer(1000);
        network.stall();
        let before = network.bytes_received();
        // PUBREC for what was never sent wants an answer.
        for _ in 0..100 {
            peer.send(&b"\x50\x02\x00\x01".repeat(16_384));
        }
        let read = network.bytes_received() - before;
        assert!(read <= 3 * 65_536, "{read} bytes were read");
        let mut events = setup.client.events();
        setup.world.advance(59 * SECOND);
        assert!(next(&mut events).is_none());
        setup.world.advance(12 * SECOND);
        assert!(matches!(
            next(&mut events),
            Some(Event::Disconnected { .. })
        ));
    }
}

/// Attempts in the first minute and in the hour after it. `meet` plays each peer.
fn attempts(version: Version, attempt: Attempt, meet: impl Fn(&mut Peer)) -> (usize, usize) {
    let world = World::with_peers();
    let network = world.network();
    network.all_attempts(attempt);
    let setup = Setup::start(&world, options(&world, version));
    let mut counts = Vec::new();
    let mut met = 0;
    for seconds in [60, 3600] {
        let before = network.attempts();
        for _ in 0..seconds * 10 {
            world.advance(SECOND / 10);
            while attempt == Attempt::Accept && met < network.attempts() {
                meet(&mut world.peer());
                met += 1;
            }
        }
        counts.push(network.attempts() - before);
    }
    assert_eq!(setup.client.statistics().unfinished, 0);
    (counts[0], counts[1])
}

#[test]
fn whatever_fails_is_tried_again_seldom() {
    let refused = Attempt::Refuse(io::ErrorKind::ConnectionRefused);
    let nobody = |_: &mut Peer| {};
    for version in VERSIONS {
        let kick = |peer: &mut Peer| {
            peer.send(connack(version));
            peer.close();
        };
        for (what, (first, hour)) in [
            ("refused at once", attempts(version, refused, nobody)),
            (
                "closed after accept",
                attempts(version, Attempt::Accept, Peer::close),
            ),
            (
                "reset after accept",
                attempts(version, Attempt::Accept, Peer::reset),
            ),
            (
                "kicked after CONNACK",
                attempts(version, Attempt::Accept, kick),
            ),
        ] {
            // Random delays below 1, 2, 4, 8, 16, 32 and then 60 s: half of each on average.
            assert!(
                (4..=15).contains(&first),
                "{what}: {first} in the first minute"
            );
            assert!((60..=240).contains(&hour), "{what}: {hour} in an hour");
        }
        let (first, hour) = attempts(version, Attempt::Hang, nobody);
        assert!((2..=3).contains(&first), "{first} in the first minute");
        assert!((40..=180).contains(&hour), "{hour} in an hour");
    }
}
