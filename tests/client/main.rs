//! A client and its driver in a closed world: an in-memory network, a scripted peer or broker, and a
//! clock that only the tests move. No socket, no sleep.

mod answers;
mod auth;
mod cancel;
mod fairness;
mod forwarding;
mod goodbye;
mod heritage;
mod hostile;
mod identifiers;
mod lifecycle;
mod queues;
mod reconnect;
mod reentrancy;
mod requests;
mod routes;
mod store;
mod subscriptions;
mod version;
mod waits;
mod wall_clock;

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use coracle::testkit::{BrokerOptions, Peer, World};
use coracle::{Client, Driver, Error, Event, Events, Options, Version};
use futures_lite::Stream;
use smol::Task;

/// CONNACK of MQTT 5 without a session, and with one.
pub(crate) const CONNACK: &[u8] = b"\x20\x03\x00\x00\x00";
pub(crate) const CONNACK_PRESENT: &[u8] = b"\x20\x03\x01\x00\x00";
/// CONNACK of MQTT 3.1.1 without a session, and with one.
pub(crate) const CONNACK_3: &[u8] = b"\x20\x02\x00\x00";
pub(crate) const CONNACK_3_PRESENT: &[u8] = b"\x20\x02\x01\x00";

/// A client whose driver runs in a world.
pub(crate) struct Setup {
    pub(crate) world: World,
    pub(crate) client: Client,
    pub(crate) driver: Task<coracle::Result<()>>,
    events: Events,
}

impl Setup {
    /// Connections lead to a broker of this kind.
    pub(crate) fn with_broker(broker: BrokerOptions) -> Self {
        let world = World::new(broker);
        let options = options(&world);
        Self::start(world, options)
    }

    /// Connections lead to peers, which the test plays.
    pub(crate) fn with_peers() -> Self {
        let world = World::with_peers();
        let options = options(&world);
        Self::start(world, options)
    }

    /// With these options.
    pub(crate) fn start(world: World, options: Options) -> Self {
        let (client, driver) = Client::new(options);
        Self::run(world, client, driver)
    }

    /// With this client, which may have been called before its driver runs.
    pub(crate) fn run(world: World, client: Client, driver: Driver) -> Self {
        let events = client.events();
        let driver = world.spawn(driver.run());
        Self {
            world,
            client,
            driver,
            events,
        }
    }

    /// A client that is connected to a peer, on MQTT 5 without a session.
    pub(crate) fn connected() -> (Self, Peer) {
        let setup = Self::with_peers();
        let peer = setup.greet(CONNACK);
        (setup, peer)
    }

    /// As [`Setup::connected`], on 3.1.1.
    pub(crate) fn connected_3() -> (Self, Peer) {
        let world = World::with_peers();
        let options = options(&world).version(Version::V3_1_1);
        let setup = Self::start(world, options);
        let peer = setup.greet(CONNACK_3);
        (setup, peer)
    }

    /// Takes the next connection and answers its CONNECT.
    #[track_caller]
    pub(crate) fn greet(&self, connack: &[u8]) -> Peer {
        let mut peer = self.world.peer();
        let connect = peer.received();
        assert_eq!(connect.first(), Some(&0x10), "the first packet is CONNECT");
        peer.send(connack);
        peer
    }

    /// Takes the next connection, on which a frame around CONNECT comes, and answers it with this frame.
    #[track_caller]
    pub(crate) fn greet_framed(&self, connack: &[u8]) -> Peer {
        let mut peer = self.world.peer();
        let connect = peer.received();
        assert_eq!(connect.first(), Some(&0x82), "CONNECT is in a binary frame");
        peer.send(connack);
        peer
    }

    /// Waits until the next attempt to connect, takes it and answers its CONNECT.
    #[track_caller]
    pub(crate) fn greet_later(&self, connack: &[u8]) -> Peer {
        self.until_attempt();
        self.greet(connack)
    }

    /// Lets time pass until the next attempt to connect.
    #[track_caller]
    pub(crate) fn until_attempt(&self) {
        let network = self.world.network();
        let before = network.attempts();
        for _ in 0..LONGEST_PAUSE {
            if network.attempts() > before {
                return;
            }
            self.world.advance(SECOND);
        }
        panic!("there was no attempt to connect for {LONGEST_PAUSE} s");
    }

    /// What has happened since the last call.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        self.world.run_until_idle();
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        while let Poll::Ready(Some(event)) = Pin::new(&mut self.events).poll_next(&mut cx) {
            all.push(event);
        }
        all
    }

    /// Waits for `future` as a task of the application would.
    #[track_caller]
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.world.block_on(future)
    }
}

/// More than the longest default delay between two attempts, in seconds.
const LONGEST_PAUSE: usize = 120;

pub(crate) const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

/// Options of a client named "c" in this world.
pub(crate) fn options(world: &World) -> Options {
    Options::new("mqtt://broker", "c")
        .expect("the URL is well-formed")
        .connector(world.network())
        .clock(world.clock())
        .seed(1)
}

/// Looks once whether a future has ended.
pub(crate) fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(future).poll(&mut cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// The outcome of a future that has to be known now.
#[track_caller]
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future still waits"),
    }
}

/// The error of a call that has to fail.
#[track_caller]
pub(crate) fn failure<T: fmt::Debug>(outcome: Result<T, Error>) -> Error {
    outcome.expect_err("the call has to fail")
}
