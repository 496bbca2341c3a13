//! A network between a client and a broker that cuts every connection, at a byte of its choice.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle::Version;
use fastrand::Rng;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, Timer, future};
use socket2::SockRef;

use crate::listening::Listening;
use crate::wire::{Framing, Passed, Place};

/// A connection that has not come to its byte by then is cut where it stands.
const LATE: Duration = Duration::from_millis(300);

/// How long the sides of a cut connection are kept that nobody closes. Longer than it takes a client to see
/// that nothing comes any more, and than mosquitto needs to close a connection that another one replaces.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// CONNECT, CONNACK and the first header end before this byte.
const OPENING: u64 = 64;

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blade {
    /// By FIN: both sides read the end.
    Fin,
    /// By RST: both sides read an error, and what was on its way to them may be gone.
    Reset,
    /// By RST for the client alone: the broker hears nothing until the client takes its session over.
    HalfOpen,
    /// By silence: nothing passes any more, not even the end, and nobody is told.
    Hole,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    ToBroker,
    ToClient,
}

/// A cut that has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cut {
    pub(crate) blade: Blade,
    pub(crate) direction: Direction,
    pub(crate) place: Place,
}

/// A cut that is to happen.
#[derive(Debug, Clone, Copy)]
struct Plan {
    blade: Blade,
    direction: Direction,
    /// When so many bytes have passed in this direction.
    after: u64,
}

impl Plan {
    fn new(random: &mut Rng) -> Self {
        // Each hole costs a second of keep-alive.
        let blade = match random.u32(..200) {
            0 => Blade::Hole,
            1..40 => Blade::HalfOpen,
            40..120 => Blade::Fin,
            _ => Blade::Reset,
        };
        let direction = if random.bool() {
            Direction::ToBroker
        } else {
            Direction::ToClient
        };
        // As many early as late: a cut at any byte of a long connection would never meet its beginning.
        let after = match random.u32(..4) {
            0 => random.u64(..OPENING),
            _ => {
                let magnitude = random.u32(..9);
                random.u64(..OPENING << magnitude)
            }
        };
        Self {
            blade,
            direction,
            after,
        }
    }
}

/// The network of one client, ended with its owner.
#[derive(Debug)]
pub(crate) struct Knife {
    listening: Listening,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    random: Mutex<Rng>,
    cuts: Mutex<Vec<Cut>>,
    to_broker: Mutex<Vec<Passed>>,
    to_client: Mutex<Vec<Passed>>,
    version: Version,
    /// So many cuts; then everything passes.
    count: usize,
}

impl Knife {
    /// Leads to this port of this machine, for a client that speaks this version, and cuts so many
    /// connections.
    pub(crate) fn start(port: u16, version: Version, seed: u64, count: usize) -> Self {
        let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let shared = Arc::new(Shared {
            random: Mutex::new(Rng::with_seed(seed)),
            cuts: Mutex::default(),
            to_broker: Mutex::default(),
            to_client: Mutex::default(),
            version,
            count,
        });
        let serving = Arc::clone(&shared);
        let listening = Listening::start(move |client, _| {
            let shared = Arc::clone(&serving);
            async move {
                // A broker that is not there shows as a connection that is closed at once.
                if let Ok(broker) = Async::<TcpStream>::connect(broker).await {
                    carry(client, broker, &shared).await;
                }
            }
        });
        Self { listening, shared }
    }

    /// Where the client finds it.
    pub(crate) fn url(&self) -> String {
        self.listening.url("mqtt")
    }

    /// What it has cut so far.
    pub(crate) fn cuts(&self) -> Vec<Cut> {
        lock(&self.shared.cuts).clone()
    }

    /// Everything that matters of what has passed so far in this direction, on all connections.
    pub(crate) fn passed(&self, direction: Direction) -> Vec<Passed> {
        lock(self.shared.log(direction)).clone()
    }

    /// How often it has cut so far.
    pub(crate) fn count(&self) -> usize {
        lock(&self.shared.cuts).len()
    }

    /// Whether it cuts no more.
    pub(crate) fn is_blunt(&self) -> bool {
        self.count() >= self.shared.count
    }
}

impl Shared {
    fn log(&self, direction: Direction) -> &Mutex<Vec<Passed>> {
        match direction {
            Direction::ToBroker => &self.to_broker,
            Direction::ToClient => &self.to_client,
        }
    }
}

/// One connection.
async fn carry(client: Async<TcpStream>, broker: Async<TcpStream>, shared: &Shared) {
    let set = broker.get_ref().set_nodelay(true);
    set.expect("an option of the socket");
    let blunt = lock(&shared.cuts).len() >= shared.count;
    let plan = (!blunt).then(|| Plan::new(&mut lock(&shared.random)));
    let lane = |direction| {
        let here = plan.filter(|plan| plan.direction == direction);
        Lane {
            limit: here.map(|plan| plan.after),
            framing: RefCell::new(Framing::new(shared.version)),
            log: shared.log(direction),
        }
    };
    let to_broker = lane(Direction::ToBroker);
    let to_client = lane(Direction::ToClient);
    let traffic = async {
        // Both have come to their end in order, or one of them ends both.
        let both = future::try_zip(
            to_broker.carry(&client, &broker),
            to_client.carry(&broker, &client),
        );
        both.await.err().unwrap_or(Over::Otherwise)
    };
    let late = async {
        match plan {
            Some(_) => Timer::after(LATE).await,
            None => future::pending().await,
        };
        Over::Due
    };
    let (Some(plan), Over::Due) = (plan, future::or(traffic, late).await) else {
        return;
    };
    let lane = match plan.direction {
        Direction::ToBroker => &to_broker,
        Direction::ToClient => &to_client,
    };
    lock(&shared.cuts).push(Cut {
        blade: plan.blade,
        direction: plan.direction,
        place: lane.framing.borrow().place(),
    });
    let ending = async {
        match plan.blade {
            Blade::Fin => {
                // An error means that the other side was quicker.
                let _ = client.get_ref().shutdown(Shutdown::Write);
                let _ = broker.get_ref().shutdown(Shutdown::Write);
                // Closed with unread bytes, a socket would send RST.
                future::zip(swallow(&client), swallow(&broker)).await;
            }
            Blade::Reset => {
                reset(client);
                reset(broker);
            }
            Blade::HalfOpen => {
                reset(client);
                swallow(&broker).await;
            }
            Blade::Hole => {
                future::zip(swallow(&client), swallow(&broker)).await;
            }
        }
    };
    let forgotten = async {
        Timer::after(FORGOTTEN).await;
    };
    future::or(ending, forgotten).await;
}

/// Why nothing passes any more.
#[derive(Debug)]
enum Over {
    /// The connection is to be cut now.
    Due,
    /// One of the sides has ended it.
    Otherwise,
}

/// One direction of one connection.
struct Lane<'a> {
    limit: Option<u64>,
    framing: RefCell<Framing>,
    log: &'a Mutex<Vec<Passed>>,
}

impl Lane<'_> {
    /// Until the end in order, or until the connection has to end.
    async fn carry(
        &self,
        mut from: &Async<TcpStream>,
        mut to: &Async<TcpStream>,
    ) -> Result<(), Over> {
        let mut left = self.limit;
        let mut bytes = [0; 4096];
        loop {
            if left == Some(0) {
                return Err(Over::Due);
            }
            let read = from.read(&mut bytes).await;
            let count = read.map_err(|_| Over::Otherwise)?;
            if count == 0 {
                // An error means that the other direction has ended it.
                let _ = to.get_ref().shutdown(Shutdown::Write);
                return Ok(());
            }
            let room = left.map_or(count, |left| {
                usize::try_from(left).map_or(count, |left| left.min(count))
            });
            let sent = to.write_all(&bytes[..room]).await;
            sent.map_err(|_| Over::Otherwise)?;
            let mut log = lock(self.log);
            let mut framing = self.framing.borrow_mut();
            framing.pass(&bytes[..room], |passed| log.push(passed));
            drop((framing, log));
            left = left.map(|left| left - room as u64);
        }
    }
}

/// Reads to the end of a side, and passes nothing on.
async fn swallow(mut side: &Async<TcpStream>) {
    let mut bytes = [0; 4096];
    while let Ok(1..) = side.read(&mut bytes).await {}
}

/// Ends one side by RST.
fn reset(side: Async<TcpStream>) {
    // Closed with data or without: RST.
    let set = SockRef::from(&side).set_linger(Some(Duration::ZERO));
    set.expect("an option of the socket");
    drop(side);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
