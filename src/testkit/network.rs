//! A network inside the program: connections made of byte queues, and everything that can happen to
//! them.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{pending, ready};
use std::io;
use std::rc::Rc;

use crate::clock::LocalBoxFuture;
use crate::transport::{BoxedTransport, Connector, Endpoint};

use super::far_end::FarEnd;
use super::near_end::NearEnd;
use super::pipe::{Pipe, wake_all};

/// How a connection of a [`Network`] breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// In order: what was sent before still arrives, then the end of the stream.
    Close,
    /// By a reset: reads and writes fail, and what was on its way is lost.
    Reset,
    /// In silence: nothing arrives any more in either direction, and nobody is told.
    Hole,
}

/// What becomes of an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attempt {
    /// It succeeds at once.
    Accept,
    /// It fails at once with this error.
    Refuse(io::ErrorKind),
    /// It never ends; the caller has to give up.
    Hang,
}

/// A network for tests: a [`Connector`] whose connections lead to the test itself.
///
/// It is in one thread, has no clock of its own, and everything about it may be changed at any time,
/// also while connections are open. [`World`] joins it with a broker or with scripted peers. Clones
/// are the same network.
///
/// [`World`]: super::World
#[derive(Clone, Default)]
pub struct Network {
    wires: Rc<RefCell<Wires>>,
}

/// The state of the network. Wakers are woken after its borrow, never under it.
pub(super) struct Wires {
    pub(super) pipes: BTreeMap<usize, Pipe>,
    pub(super) weather: Weather,
    pub(super) counts: Counts,
    /// Opened and not yet accepted by the far side.
    arrivals: VecDeque<usize>,
    attempts: VecDeque<(Attempt, usize)>,
    attempt: Attempt,
    opened: usize,
}

/// What holds for all connections.
#[derive(Debug)]
pub(super) struct Weather {
    /// The most bytes that one read returns.
    pub(super) read_chunk: usize,
    /// Bytes that were written and not taken by the far side.
    pub(super) send_buffer: usize,
    pub(super) drain: Drain,
    pub(super) flush: Flush,
    /// A cut that waits for so many more bytes from the client.
    pub(super) cut_sent: Option<(usize, Cut)>,
    /// A cut that waits for so many more bytes to the client.
    pub(super) cut_received: Option<(usize, Cut)>,
}

/// Whether the far side takes what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    Flows,
    Stalls,
}

/// Whether a flush ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    Ends,
    Waits,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) attempts: usize,
    pub(super) reads: usize,
    pub(super) writes: usize,
    pub(super) sent: usize,
    pub(super) received: usize,
}

impl Default for Wires {
    fn default() -> Self {
        Self {
            pipes: BTreeMap::new(),
            weather: Weather {
                read_chunk: usize::MAX,
                send_buffer: usize::MAX,
                drain: Drain::Flows,
                flush: Flush::Ends,
                cut_sent: None,
                cut_received: None,
            },
            counts: Counts::default(),
            arrivals: VecDeque::new(),
            attempts: VecDeque::new(),
            attempt: Attempt::Accept,
            opened: 0,
        }
    }
}

impl Network {
    /// A network in fair weather: every attempt succeeds, every byte arrives at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a connection as [`Connector::connect`] does, without an endpoint.
    ///
    /// The future is boxed and owns all it needs; only the call decides what becomes of it.
    pub fn open(&self) -> LocalBoxFuture<io::Result<BoxedTransport>> {
        let mut wires = self.wires.borrow_mut();
        wires.counts.attempts += 1;
        match wires.next_attempt() {
            Attempt::Accept => {}
            Attempt::Refuse(kind) => return Box::pin(ready(Err(io::Error::from(kind)))),
            Attempt::Hang => return Box::pin(pending()),
        }
        wires.opened += 1;
        let id = wires.opened;
        wires.pipes.insert(id, Pipe::new());
        wires.arrivals.push_back(id);
        drop(wires);
        let near: BoxedTransport = Box::pin(NearEnd::new(Rc::clone(&self.wires), id));
        Box::pin(ready(Ok(near)))
    }

    /// The far end of a connection that was opened and not accepted yet, the oldest first.
    pub(super) fn accept(&self) -> Option<FarEnd> {
        let id = self.wires.borrow_mut().arrivals.pop_front()?;
        Some(FarEnd::new(Rc::clone(&self.wires), id))
    }

    /// Lets the next `count` attempts to connect end like this. May be called several times: the
    /// attempts follow one another.
    pub fn next_attempts(&self, count: usize, attempt: Attempt) {
        self.wires.borrow_mut().attempts.push_back((attempt, count));
    }

    /// What becomes of all further attempts. Defaults to [`Attempt::Accept`].
    pub fn all_attempts(&self, attempt: Attempt) {
        self.wires.borrow_mut().attempt = attempt;
    }

    /// The most bytes that one read of the client returns; 1 tears every packet apart.
    /// Defaults to no limit.
    pub fn read_chunk(&self, bytes: usize) {
        self.wires.borrow_mut().weather.read_chunk = bytes.max(1);
    }

    /// How many bytes a client can write before the far side takes some; beyond that a write takes a
    /// part or waits. Defaults to no limit.
    pub fn send_buffer(&self, bytes: usize) {
        self.change(|wires| wires.weather.send_buffer = bytes);
    }

    /// The far side stops taking bytes: they stay in the send buffer.
    pub fn stall(&self) {
        self.change(|wires| wires.weather.drain = Drain::Stalls);
    }

    /// The far side takes bytes again.
    pub fn unstall(&self) {
        self.change(|wires| wires.weather.drain = Drain::Flows);
    }

    /// Flushes do not end any more, as through a TLS layer that cannot get rid of its bytes.
    pub fn hold_flush(&self) {
        self.change(|wires| wires.weather.flush = Flush::Waits);
    }

    /// Flushes end again.
    pub fn release_flush(&self) {
        self.change(|wires| wires.weather.flush = Flush::Ends);
    }

    /// Breaks every open connection now.
    pub fn cut(&self, cut: Cut) {
        let wakers = self.wires.borrow_mut().cut_all(cut);
        wake_all(wakers);
    }

    /// Breaks the connection over which the client sends the last of so many more bytes, once.
    /// Those bytes still arrive, unless the cut is a reset.
    pub fn cut_after_sent(&self, bytes: usize, cut: Cut) {
        self.wires.borrow_mut().weather.cut_sent = Some((bytes, cut));
    }

    /// Breaks the connection over which the client reads the last of so many more bytes, once.
    pub fn cut_after_received(&self, bytes: usize, cut: Cut) {
        self.wires.borrow_mut().weather.cut_received = Some((bytes, cut));
    }

    /// How often somebody tried to connect.
    pub fn attempts(&self) -> usize {
        self.wires.borrow().counts.attempts
    }

    /// How many connections are open on both sides.
    pub fn connections(&self) -> usize {
        let wires = self.wires.borrow();
        wires.pipes.values().filter(|pipe| pipe.is_open()).count()
    }

    /// How many writes of clients took bytes.
    pub fn writes(&self) -> usize {
        self.wires.borrow().counts.writes
    }

    /// How many reads of clients returned bytes.
    pub fn reads(&self) -> usize {
        self.wires.borrow().counts.reads
    }

    /// Bytes that clients have written.
    pub fn bytes_sent(&self) -> usize {
        self.wires.borrow().counts.sent
    }

    /// Bytes that clients have read.
    pub fn bytes_received(&self) -> usize {
        self.wires.borrow().counts.received
    }

    /// Changes something that a waiting client may have waited for.
    fn change(&self, change: impl FnOnce(&mut Wires)) {
        let mut wires = self.wires.borrow_mut();
        change(&mut wires);
        let wakers = wires.pipes.values_mut().flat_map(Pipe::wakers).collect();
        drop(wires);
        wake_all(wakers);
    }
}

impl Wires {
    fn next_attempt(&mut self) -> Attempt {
        while let Some((attempt, left)) = self.attempts.front_mut() {
            if *left > 0 {
                *left -= 1;
                return *attempt;
            }
            self.attempts.pop_front();
        }
        self.attempt
    }

    fn cut_all(&mut self, cut: Cut) -> Vec<std::task::Waker> {
        self.pipes
            .values_mut()
            .flat_map(|pipe| pipe.cut(cut))
            .collect()
    }

    /// Forgets a connection that nobody holds any more.
    pub(super) fn tidy(&mut self, id: usize) {
        if self.pipes.get(&id).is_some_and(Pipe::is_abandoned) {
            self.pipes.remove(&id);
        }
    }
}

impl Connector for Network {
    fn connect(&self, endpoint: &Endpoint) -> LocalBoxFuture<io::Result<BoxedTransport>> {
        // There is one place in this network; it does not matter what it is called.
        let _ = endpoint;
        self.open()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wires = self.wires.borrow();
        f.debug_struct("Network")
            .field("connections", &wires.pipes.len())
            .field("weather", &wires.weather)
            .field("counts", &wires.counts)
            .finish()
    }
}
