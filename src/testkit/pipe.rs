//! One connection of the in-memory network: two queues of bytes with two ends.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_lite::{AsyncRead, AsyncWrite};

use super::network::{Cut, Drain, Flush, Wires};

/// Wakes what was collected under a borrow of the network, after it.
pub(super) fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// What is left to do after a borrow of the network.
#[derive(Default)]
struct After {
    wake: Vec<Waker>,
    /// A waker that was replaced. Dropping the last one of a task may drop a connection.
    stale: Option<Waker>,
}

impl After {
    fn run(self) {
        drop(self.stale);
        wake_all(self.wake);
    }
}

/// A connection as the network sees it.
#[derive(Debug)]
pub(super) struct Pipe {
    to_far: Queue,
    to_near: Queue,
    near: Holder,
    far: Holder,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Queue {
    bytes: VecDeque<u8>,
    /// Bytes that fell into a hole; they still fill the send buffer, as nobody acknowledges them.
    lost: usize,
    end: End,
}

/// What comes after the bytes in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
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
enum Holder {
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
    fn filled(&self) -> usize {
        self.bytes.len() + self.lost
    }

    /// Appends the first `count` bytes of `bufs`.
    fn push(&mut self, bufs: &[io::IoSlice<'_>], count: usize) {
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

    fn finish(&mut self, end: End) {
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

/// The client's end.
pub(super) struct NearEnd {
    wires: Rc<RefCell<Wires>>,
    id: usize,
}

impl NearEnd {
    pub(super) fn new(wires: Rc<RefCell<Wires>>, id: usize) -> Self {
        Self { wires, id }
    }

    fn read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        after: &mut After,
    ) -> Poll<io::Result<usize>> {
        let mut wires = self.wires.borrow_mut();
        let Wires {
            pipes,
            weather,
            counts,
            ..
        } = &mut *wires;
        let Some(pipe) = pipes.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if let Some(cut) = weather.cut_received.take_if(|(left, _)| *left == 0) {
            after.wake.extend(pipe.cut(cut.1));
        }
        let queue = &mut pipe.to_near;
        match queue.end {
            End::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            End::Open | End::Closed | End::Lost if !queue.bytes.is_empty() => {}
            End::Closed => return Poll::Ready(Ok(0)),
            End::Open | End::Lost => {
                after.stale = pipe.reader.replace(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let budget = weather.cut_received.map_or(usize::MAX, |(left, _)| left);
        let count = buf
            .len()
            .min(weather.read_chunk)
            .min(queue.bytes.len())
            .min(budget);
        for (slot, byte) in buf.iter_mut().zip(queue.bytes.drain(..count)) {
            *slot = byte;
        }
        counts.reads += usize::from(count > 0);
        counts.received += count;
        if let Some((left, _)) = &mut weather.cut_received {
            *left -= count;
        }
        if let Some(cut) = weather.cut_received.take_if(|(left, _)| *left == 0) {
            // What was behind these bytes is lost.
            queue.bytes.clear();
            after.wake.extend(pipe.cut(cut.1));
        }
        Poll::Ready(Ok(count))
    }

    fn write(
        &self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
        after: &mut After,
    ) -> Poll<io::Result<usize>> {
        let mut wires = self.wires.borrow_mut();
        let Wires {
            pipes,
            weather,
            counts,
            ..
        } = &mut *wires;
        let Some(pipe) = pipes.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if let Some(cut) = weather.cut_sent.take_if(|(left, _)| *left == 0) {
            after.wake.extend(pipe.cut(cut.1));
        }
        let queue = &mut pipe.to_far;
        match queue.end {
            End::Open | End::Lost => {}
            End::Closed => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            End::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        let room = weather.send_buffer.saturating_sub(queue.filled());
        if room == 0 && wanted > 0 {
            after.stale = pipe.writer.replace(cx.waker().clone());
            return Poll::Pending;
        }
        let budget = weather.cut_sent.map_or(usize::MAX, |(left, _)| left);
        let count = wanted.min(room).min(budget);
        queue.push(bufs, count);
        counts.writes += usize::from(count > 0);
        counts.sent += count;
        if let Some((left, _)) = &mut weather.cut_sent {
            *left -= count;
        }
        if let Some(cut) = weather.cut_sent.take_if(|(left, _)| *left == 0) {
            after.wake.extend(pipe.cut(cut.1));
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for NearEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut after = After::default();
        let result = self.read(cx, buf, &mut after);
        after.run();
        result
    }
}

impl AsyncWrite for NearEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut after = After::default();
        let result = self.write(cx, &[io::IoSlice::new(buf)], &mut after);
        after.run();
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut after = After::default();
        let result = self.write(cx, bufs, &mut after);
        after.run();
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wires = self.wires.borrow_mut();
        match wires.weather.flush {
            Flush::Ends => return Poll::Ready(Ok(())),
            Flush::Waits => {}
        }
        let pipe = wires.pipes.get_mut(&self.id);
        let stale = pipe.and_then(|pipe| pipe.writer.replace(cx.waker().clone()));
        drop(wires);
        drop(stale);
        Poll::Pending
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(pipe) = self.wires.borrow_mut().pipes.get_mut(&self.id) {
            pipe.to_far.finish(End::Closed);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for NearEnd {
    fn drop(&mut self) {
        let mut wires = self.wires.borrow_mut();
        let mut wakers = Vec::new();
        if let Some(pipe) = wires.pipes.get_mut(&self.id) {
            pipe.near = Holder::Dropped;
            pipe.to_far.finish(End::Closed);
            wakers.extend(pipe.wakers());
        }
        wires.tidy(self.id);
        drop(wires);
        // Nobody polls this end any more; the wakers only must not be dropped under the borrow.
        drop(wakers);
    }
}

/// The broker's or the test's end.
pub(super) struct FarEnd {
    wires: Rc<RefCell<Wires>>,
    id: usize,
}

impl FarEnd {
    pub(super) fn new(wires: Rc<RefCell<Wires>>, id: usize) -> Self {
        Self { wires, id }
    }

    /// Takes what has arrived from the client.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut wires = self.wires.borrow_mut();
        let drain = wires.weather.drain;
        let Some(pipe) = wires.pipes.get_mut(&self.id) else {
            return Vec::new();
        };
        match drain {
            Drain::Stalls => return Vec::new(),
            Drain::Flows => {}
        }
        let bytes: Vec<u8> = pipe.to_far.bytes.drain(..).collect();
        let writer = if bytes.is_empty() {
            None
        } else {
            pipe.writer.take()
        };
        drop(wires);
        wake_all(writer.into_iter().collect());
        bytes
    }

    /// Sends to the client. What goes into a broken connection is lost.
    pub(super) fn send(&self, bytes: &[u8]) {
        let mut wires = self.wires.borrow_mut();
        let mut reader = None;
        if let Some(pipe) = wires.pipes.get_mut(&self.id)
            && pipe.to_near.end == End::Open
        {
            pipe.to_near.bytes.extend(bytes);
            reader = pipe.reader.take();
        }
        drop(wires);
        wake_all(reader.into_iter().collect());
    }

    pub(super) fn cut(&self, cut: Cut) {
        let mut wires = self.wires.borrow_mut();
        let pipe = wires.pipes.get_mut(&self.id);
        let wakers = pipe.map(|pipe| pipe.cut(cut)).unwrap_or_default();
        drop(wires);
        wake_all(wakers);
    }

    /// Whether the client has ended the stream, or the network has, and everything before was taken.
    pub(super) fn is_closed(&self) -> bool {
        let wires = self.wires.borrow();
        let Some(pipe) = wires.pipes.get(&self.id) else {
            return true;
        };
        match pipe.to_far.end {
            End::Open | End::Lost => false,
            End::Closed | End::Reset => pipe.to_far.bytes.is_empty(),
        }
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        let mut wires = self.wires.borrow_mut();
        let mut wakers = Vec::new();
        if let Some(pipe) = wires.pipes.get_mut(&self.id) {
            pipe.far = Holder::Dropped;
            wakers = pipe.cut(Cut::Close);
        }
        wires.tidy(self.id);
        drop(wires);
        wake_all(wakers);
    }
}
