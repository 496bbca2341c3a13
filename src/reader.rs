//! The bytes that were read and not yet used.
//!
//! The buffer that is read into belongs to the thread and serves all its clients; it is taken and
//! returned within one poll. Only a leftover moves to the connection, so an idle one holds nothing. A
//! large packet gets a buffer of its own, which grows as bytes arrive and becomes the message.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::transport::Transport;

/// Bytes that one read asks for: where more per read stop to pay.
const READ: usize = 64 * 1024;

/// Packets above this size get a buffer of their own.
const LARGE: usize = 64 * 1024;

/// The largest leftover: a packet that is not large, or as much of a too large one as is needed to know
/// its identifier, behind a topic of 65,535 bytes.
const LEFTOVER: usize = LARGE + 64;

thread_local! {
    /// Holds a leftover and a read behind it.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The thread's buffer, taken for one poll.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// Takes the thread's buffer, or makes one if the thread is inside another client's poll.
    pub(crate) fn take() -> Self {
        let mut bytes = BUFFER.take();
        bytes.resize(LEFTOVER + READ, 0);
        Self {
            bytes,
            start: 0,
            end: 0,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        BUFFER.set(std::mem::take(&mut self.bytes));
    }
}

/// What of the input was not used at the last poll.
#[derive(Debug)]
pub(crate) enum Reader {
    /// The beginning of a packet, or nothing.
    Leftover(Vec<u8>),
    /// A large packet of `size` bytes, as far as it is here.
    Large { packet: Vec<u8>, size: usize },
}

/// What there is to use.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// Bytes as they came.
    Bytes(&'a [u8]),
    /// Exactly one packet, to be shared instead of copied.
    Whole(Rc<Vec<u8>>),
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self::Leftover(Vec::new())
    }

    /// Reads once. Returns how many bytes came; 0 at the end of the stream.
    pub(crate) fn poll_read(
        &mut self,
        buffer: &mut Buffer,
        transport: Pin<&mut dyn Transport>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Leftover(leftover) => {
                if buffer.start == buffer.end {
                    buffer.start = 0;
                    buffer.end = leftover.len();
                    buffer.bytes[..leftover.len()].copy_from_slice(leftover);
                    *leftover = Vec::new();
                } else if buffer.start > 0 {
                    buffer.bytes.copy_within(buffer.start..buffer.end, 0);
                    buffer.end -= buffer.start;
                    buffer.start = 0;
                }
                let poll = transport.poll_read(cx, &mut buffer.bytes[buffer.end..][..READ]);
                if let Poll::Ready(Ok(count)) = poll {
                    buffer.end += count;
                }
                poll
            }
            Self::Large { packet, size } => {
                // At most twice of what has arrived is ever reserved: an announced length costs nothing.
                let held = packet.len();
                let more = (*size - held).min(held.max(READ));
                packet.resize(held + more, 0);
                let poll = transport.poll_read(cx, &mut packet[held..]);
                let count = if let Poll::Ready(Ok(count)) = poll {
                    count
                } else {
                    0
                };
                packet.truncate(held + count);
                poll
            }
        }
    }

    /// What is here; the packet at its front may be incomplete.
    pub(crate) fn input<'a>(&mut self, buffer: &'a Buffer) -> Input<'a> {
        match self {
            Self::Large { packet, size } if packet.len() == *size => {
                let packet = std::mem::take(packet);
                *self = Self::new();
                Input::Whole(Rc::new(packet))
            }
            Self::Large { .. } => Input::Bytes(&[]),
            Self::Leftover(_) => Input::Bytes(&buffer.bytes[buffer.start..buffer.end]),
        }
    }

    /// So many bytes of the input were used.
    pub(crate) fn consume(&self, buffer: &mut Buffer, count: usize) {
        buffer.start += count;
    }

    /// The packet at the front of the input takes this many bytes, and they are not all here.
    pub(crate) fn expect(&mut self, buffer: &mut Buffer, size: usize) {
        if size > LARGE {
            let packet = buffer.bytes[buffer.start..buffer.end].to_vec();
            buffer.start = 0;
            buffer.end = 0;
            *self = Self::Large { packet, size };
        }
    }

    /// The poll is over: what is left moves out of the thread's buffer.
    pub(crate) fn put_by(&mut self, buffer: &mut Buffer) {
        if let Self::Leftover(leftover) = self
            && buffer.start < buffer.end
        {
            *leftover = buffer.bytes[buffer.start..buffer.end].to_vec();
        }
        buffer.start = 0;
        buffer.end = 0;
    }
}
