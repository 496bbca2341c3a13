//! For the tests: a stream of bytes without a network, whose other end is the test.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_lite::{AsyncRead, AsyncWrite};

use crate::transport::BoxedTransport;

/// Makes an answer from what was sent.
type Respond = dyn FnOnce(&[u8]) -> Vec<u8>;

/// What the peer does next.
pub(super) enum Step {
    Bytes(VecDeque<u8>),
    /// So many bytes of zero, which are nowhere stored.
    Zeros(usize),
    /// Bytes that depend on what was sent so far.
    Answer(Box<Respond>),
    Fails(io::ErrorKind),
    Ends,
}

pub(super) fn bytes(bytes: &[u8]) -> Step {
    Step::Bytes(bytes.to_vec().into())
}

/// What both ends see.
pub(super) struct Wire {
    pub(super) script: VecDeque<Step>,
    /// Bytes of one read at most.
    pub(super) chunk: usize,
    /// Bytes that may still be written.
    pub(super) room: usize,
    pub(super) sent: Vec<u8>,
    pub(super) reads: usize,
    pub(super) writes: usize,
    pub(super) flushes: usize,
    pub(super) closes: usize,
    /// Whom to wake when there is room again.
    pub(super) writer: Option<Waker>,
}

/// The end that the client has.
struct End(Rc<RefCell<Wire>>);

pub(super) fn wire(script: Vec<Step>) -> (BoxedTransport, Rc<RefCell<Wire>>) {
    let wire = Rc::new(RefCell::new(Wire {
        script: script.into(),
        chunk: usize::MAX,
        room: usize::MAX,
        sent: Vec::new(),
        reads: 0,
        writes: 0,
        flushes: 0,
        closes: 0,
        writer: None,
    }));
    (Box::pin(End(Rc::clone(&wire))), wire)
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        wire.reads += 1;
        let room = buffer.len().min(wire.chunk);
        let step = match wire.script.pop_front() {
            Some(Step::Answer(answer)) => Some(bytes(&answer(&wire.sent))),
            step => step,
        };
        let (count, left) = match step {
            None => return Poll::Pending,
            Some(Step::Ends) => (0, Some(Step::Ends)),
            Some(Step::Fails(kind)) => return Poll::Ready(Err(kind.into())),
            Some(Step::Answer(_)) => unreachable!("it was answered above"),
            Some(Step::Zeros(left)) => {
                let count = room.min(left);
                buffer[..count].fill(0);
                let left = left - count;
                (count, (left > 0).then_some(Step::Zeros(left)))
            }
            Some(Step::Bytes(mut bytes)) => {
                let count = room.min(bytes.len());
                for (slot, byte) in buffer.iter_mut().zip(bytes.drain(..count)) {
                    *slot = byte;
                }
                (count, (!bytes.is_empty()).then_some(Step::Bytes(bytes)))
            }
        };
        if let Some(left) = left {
            wire.script.push_front(left);
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        let count = bytes.len().min(wire.room);
        if count == 0 {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.room -= count;
        wire.writes += 1;
        wire.sent.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().closes += 1;
        Poll::Ready(Ok(()))
    }
}

/// Counts how often it is woken.
#[derive(Default)]
pub(super) struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    pub(super) fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}
