//! The hostile peer: whatever the other end of the connection sends, or does not send, nothing panics,
//! hangs, grows without bound or takes work out of proportion.

mod floods;
mod half_open;
mod random;
mod rig;
mod secrets;
mod slow;
mod wild;

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use coracle::testkit::{Peer, World};
use coracle::{Client, Event, Events, Options, Version};
use futures_lite::Stream;
use smol::Task;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5_0];

/// CONNACK without a session.
pub(crate) fn connack(version: Version) -> &'static [u8] {
    match version {
        Version::V5_0 => b"\x20\x03\x00\x00\x00",
        _ => b"\x20\x02\x00\x00",
    }
}

/// Options of a client named "c" in this world, which keeps no session, so that no version connects twice.
pub(crate) fn options(world: &World, version: Version) -> Options {
    Options::new("mqtt://broker", "c")
        .expect("the URL is well-formed")
        .version(version)
        .session(coracle::Session::None)
        .connector(world.network())
        .clock(world.clock())
        .seed(1)
}

/// A client whose driver runs in a world of peers.
pub(crate) struct Setup {
    pub(crate) world: World,
    pub(crate) client: Client,
    pub(crate) driver: Task<coracle::Result<()>>,
}

impl Setup {
    pub(crate) fn start(world: &World, options: Options) -> Self {
        let (client, driver) = Client::new(options);
        let driver = world.spawn(driver.run());
        Self {
            world: world.clone(),
            client,
            driver,
        }
    }

    /// A client of its own world, connected to a peer.
    pub(crate) fn connected(
        version: Version,
        change: impl FnOnce(Options) -> Options,
    ) -> (Self, Peer) {
        let world = World::with_peers();
        let setup = Self::start(&world, change(options(&world, version)));
        let peer = setup.greet(version);
        (setup, peer)
    }

    /// Takes the next connection and answers its CONNECT.
    #[track_caller]
    pub(crate) fn greet(&self, version: Version) -> Peer {
        let mut peer = self.world.peer();
        assert_eq!(
            peer.received().first(),
            Some(&0x10),
            "the first packet is CONNECT"
        );
        peer.send(connack(version));
        assert!(self.client.is_connected());
        peer
    }
}

/// The next event, if there is one.
pub(crate) fn next(events: &mut Events) -> Option<Event> {
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(events).poll_next(&mut cx) {
        Poll::Ready(event) => event,
        Poll::Pending => None,
    }
}
