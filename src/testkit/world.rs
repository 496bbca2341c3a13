//! An executor, a clock, a network and a broker that move together, as fast as the machine can.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use smol::{LocalExecutor, Task};

use crate::clock::Clock;

use super::broker::{Broker, LinkId};
use super::clock::FakeClock;
use super::far_end::FarEnd;
use super::network::Network;
use super::options::BrokerOptions;
use super::peer::Peer;

/// Turns of the executor without the clock moving after which somebody must be waking itself for ever;
/// a test that moves a million messages takes fewer.
const MOST_TURNS: usize = 10_000_000;

/// How much simulated time one [`World::block_on`] may take. A client that only keeps its connection
/// alive always has a next deadline, so without a bound a test that waits in vain would never end.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A closed world for tests: tasks run, bytes travel and time passes only when the test says so.
///
/// Time jumps from deadline to deadline, so hours take milliseconds, and every run is the same.
///
/// ```
/// use coracle::Clock;
/// use coracle::testkit::{BrokerOptions, World};
/// use std::time::Duration;
///
/// let world = World::new(BrokerOptions::new());
/// let clock = world.clock();
/// let start = world.now();
/// world.block_on(async {
///     clock.sleep_until(start + Duration::from_secs(3600)).await;
/// });
/// assert_eq!(world.now() - start, Duration::from_secs(3600));
/// ```
#[derive(Clone)]
pub struct World(Rc<Parts>);

struct Parts {
    executor: LocalExecutor<'static>,
    clock: FakeClock,
    network: Network,
    broker: RefCell<Broker>,
    links: RefCell<BTreeMap<LinkId, Rc<FarEnd>>>,
    destination: Destination,
}

/// Where connections lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Broker,
    Peers,
}

impl World {
    /// A world in which connections lead to a broker.
    pub fn new(options: BrokerOptions) -> Self {
        Self::with(options, Destination::Broker)
    }

    /// A world in which connections lead to the test, which takes them with [`World::peer`].
    pub fn with_peers() -> Self {
        Self::with(BrokerOptions::new(), Destination::Peers)
    }

    fn with(options: BrokerOptions, destination: Destination) -> Self {
        Self(Rc::new(Parts {
            executor: LocalExecutor::new(),
            clock: FakeClock::new(),
            network: Network::new(),
            broker: RefCell::new(Broker::new(options)),
            links: RefCell::new(BTreeMap::new()),
            destination,
        }))
    }

    /// The network, for whoever connects and for whoever disturbs it.
    pub fn network(&self) -> Network {
        self.0.network.clone()
    }

    /// The clock.
    pub fn clock(&self) -> FakeClock {
        self.0.clock.clone()
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        self.0.clock.now()
    }

    /// Starts a task. It runs when the world does.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        self.0.executor.spawn(future)
    }

    /// Looks at the broker or changes it. `call` must not run the world.
    pub fn broker<T>(&self, call: impl FnOnce(&mut Broker, Instant) -> T) -> T {
        call(&mut self.0.broker.borrow_mut(), self.now())
    }

    /// The next connection, in a world of peers.
    ///
    /// # Panics
    /// If nobody connects before the world is idle, or if connections lead to the broker.
    #[track_caller]
    pub fn peer(&self) -> Peer {
        self.run_until_idle();
        let Some(end) = self.0.network.accept() else {
            panic!("nobody has connected, or connections lead to the broker");
        };
        // Weak, because a task of the world may own the peer.
        let parts = Rc::downgrade(&self.0);
        let settle = move || {
            if let Some(parts) = parts.upgrade() {
                Self(parts).run_until_idle();
            }
        };
        Peer::new(end, Rc::new(settle))
    }

    /// Runs tasks and moves bytes until nothing more can happen without time passing.
    ///
    /// # Panics
    /// If that never comes to an end.
    #[track_caller]
    pub fn run_until_idle(&self) {
        for _ in 0..MOST_TURNS {
            let ran = self.0.executor.try_tick();
            // Bytes move only when no task can run, so that what is written in one go stays together.
            if !ran && !self.pump() {
                return;
            }
        }
        panic!("the tasks do not come to rest: something wakes itself for ever");
    }

    /// Lets time pass, stopping at every deadline on the way.
    ///
    /// # Panics
    /// As [`World::run_until_idle`].
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        let end = self.now() + by;
        self.run_until_idle();
        while let Some(deadline) = self.next_deadline().filter(|deadline| *deadline <= end) {
            self.0.clock.advance_to(deadline);
            self.run_until_idle();
        }
        self.0.clock.advance_to(end);
        self.run_until_idle();
    }

    /// Runs the world until `future` ends, letting time pass whenever nothing else can happen.
    ///
    /// # Panics
    /// If nothing is left that could end it, or after a day of simulated time.
    #[track_caller]
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Arc::clone(&flag).into();
        let mut cx = Context::from_waker(&waker);
        let start = self.now();
        loop {
            if flag.0.swap(false, Ordering::Relaxed)
                && let Poll::Ready(output) = future.as_mut().poll(&mut cx)
            {
                return output;
            }
            self.run_until_idle();
            if flag.0.load(Ordering::Relaxed) {
                continue;
            }
            match self.next_deadline() {
                Some(deadline) => self.0.clock.advance_to(deadline),
                None => panic!(
                    "the future waits for ever: no task can run, no byte is under way, and nobody \
                     waits for a time"
                ),
            }
            if self.now() - start > LONGEST_WAIT {
                panic!("the future did not end within a day of simulated time");
            }
        }
    }

    /// The next instant at which anything happens by itself.
    fn next_deadline(&self) -> Option<Instant> {
        let broker = self.0.broker.borrow().poll_timeout();
        let deadlines = [self.0.clock.next_deadline(), broker];
        let next = deadlines.into_iter().flatten().min()?;
        // One that has passed is asked for again, so that time never stands still.
        Some(next.max(self.now() + Duration::from_nanos(1)))
    }

    /// Moves bytes between the network and the broker; says whether there was anything to move.
    fn pump(&self) -> bool {
        match self.0.destination {
            Destination::Peers => false,
            Destination::Broker => self.pump_broker(),
        }
    }

    /// The broker and the links are borrowed for single calls only: sending, taking and closing wake
    /// tasks, and a waker may run any code.
    fn pump_broker(&self) -> bool {
        let now = self.now();
        let mut moved = false;
        while let Some(end) = self.0.network.accept() {
            let id = self.0.broker.borrow_mut().open();
            self.0.links.borrow_mut().insert(id, Rc::new(end));
            moved = true;
        }
        self.0.broker.borrow_mut().handle_timeout(now);
        let ends: Vec<(LinkId, Rc<FarEnd>)> = self
            .0
            .links
            .borrow()
            .iter()
            .map(|(id, end)| (*id, Rc::clone(end)))
            .collect();
        for (id, end) in ends {
            let bytes = end.take();
            if !bytes.is_empty() {
                self.0.broker.borrow_mut().handle_bytes(id, now, &bytes);
                moved = true;
            }
            if end.is_closed() {
                self.close(id);
                moved = true;
            }
        }
        loop {
            let mut broker = self.0.broker.borrow_mut();
            let Some(id) = broker.poll_attention() else {
                break;
            };
            let output = broker.take_output(id);
            let is_closed = broker.is_closed(id);
            drop(broker);
            let end = self.0.links.borrow().get(&id).map(Rc::clone);
            if let Some(end) = end {
                end.send(&output);
            }
            if is_closed {
                self.close(id);
            }
            moved = true;
        }
        moved
    }

    /// A link has ended, on whichever side.
    fn close(&self, id: LinkId) {
        self.0.broker.borrow_mut().handle_closed(id, self.now());
        let end = self.0.links.borrow_mut().remove(&id);
        drop(end);
    }
}

/// Remembers that the future of [`World::block_on`] wants to be polled.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("clock", &self.0.clock)
            .field("network", &self.0.network)
            .field("broker", &self.0.broker)
            .finish_non_exhaustive()
    }
}
