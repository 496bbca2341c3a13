//! The client's end of a connection of the in-memory network.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_lite::{AsyncRead, AsyncWrite};

use super::network::{Flush, Wires};
use super::pipe::{After, End, Holder};

/// The client's end.
pub(super) struct NearEnd {
    wires: Rc<RefCell<Wires>>,
    id: usize,
}

impl NearEnd {
    pub(super) fn new(wires: Rc<RefCell<Wires>>, id: usize) -> Self {
        Self { wires, id }
    }

    fn read(&self, waker: &Waker, buf: &mut [u8], after: &mut After) -> Poll<io::Result<usize>> {
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
                after.stale = pipe.reader.replace(waker.clone());
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
        waker: &Waker,
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
            after.stale = pipe.writer.replace(waker.clone());
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
        let result = self.read(cx.waker(), buf, &mut after);
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
        let result = self.write(cx.waker(), &[io::IoSlice::new(buf)], &mut after);
        after.run();
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut after = After::default();
        let result = self.write(cx.waker(), bufs, &mut after);
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
