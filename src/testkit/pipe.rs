//! One connection of the in-memory network: two queues of bytes with two ends.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use super::network::Cut;

/// Wakes what was collected under a borrow of the network, after it.
pub(super) fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// What is left to do after a borrow of the network.
#[derive(Default)]
pub(super) struct After {
    pub(super) wake: Vec<Waker>,
    /// A waker that was replaced. Dropping the last one of a task may drop a connection.
    pub(super) stale: Option<Waker>,
}

impl After {
    pub(super) fn run(self) {
        drop(self.stale);
        wake_all(self.wake);
    }
}

/// A connection as the network sees it.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) to_far: Queue,
    pub(super) to_near: Queue,
    pub(super) near: Holder,
    pub(super) far: Holder,
    /// Who waits for bytes at the near end.
    pub(super) reader: Option<Waker>,
    /// Who waits for room at the near end.
    pub(super) writer: Option<Waker>,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) bytes: VecDeque<u8>,
    /// Bytes that fell into a hole; they still fill the send buffer, as nobody acknowledges them.
    lost: usize,
    pub(super) end: End,
}

/// What comes after the bytes in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Perhaps more bytes.
    Open,
    /// The end of the stream.
    Closed,
    /// An error.
    Reset,
    /// Nothing ever.
    Lost,
}

/// Whether somebody still has an end in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Held,
    Dropped,
}

impl Queue {
    fn new() -> Self {
        Self {
            bytes: VecDeque::new(),
            lost: 0,
            end: End::Open,
        }
    }

    /// Bytes that take up room in the send buffer.
    pub(super) fn filled(&self) -> usize {
        self.bytes.len() + self.lost
    }

    /// Appends the first `count` bytes of `bufs`.
    pub(super) fn push(&mut self, bufs: &[io::IoSlice<'_>], count: usize) {
        if self.end == End::Lost {
            self.lost += count;
            return;
        }
        let mut left = count;
        for buf in bufs {
            let part = buf.get(..left.min(buf.len())).unwrap_or_default();
            self.bytes.extend(part);
            left -= part.len();
        }
    }

    pub(super) fn finish(&mut self, end: End) {
        match (self.end, end) {
            // What is lost or reset does not come back in order.
            (End::Lost | End::Reset, End::Open | End::Closed | End::Lost) => {}
            (_, End::Reset) => {
                self.bytes.clear();
                self.end = end;
            }
            (End::Open | End::Closed, End::Open | End::Closed | End::Lost) => self.end = end,
        }
    }
}

impl Pipe {
    pub(super) fn new() -> Self {
        Self {
            to_far: Queue::new(),
            to_near: Queue::new(),
            near: Holder::Held,
            far: Holder::Held,
            reader: None,
            writer: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.to_far.end == End::Open && self.to_near.end == End::Open
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.near == Holder::Dropped && self.far == Holder::Dropped
    }

    /// Whoever waits at the near end.
    pub(super) fn wakers(&mut self) -> impl Iterator<Item = Waker> + use<> {
        [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
    }

    /// Breaks the connection; returns whom to wake.
    pub(super) fn cut(&mut self, cut: Cut) -> Vec<Waker> {
        let end = match cut {
            Cut::Close => End::Closed,
            Cut::Reset => End::Reset,
            Cut::Hole => End::Lost,
        };
        self.to_far.finish(end);
        self.to_near.finish(end);
        match cut {
            Cut::Close | Cut::Reset => self.wakers().collect(),
            // Silence wakes nobody.
            Cut::Hole => Vec::new(),
        }
    }
}
