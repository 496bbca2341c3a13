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
    /// The beginning of a packet, or nothing. There is nothing to use before `wanted` bytes are here:
    /// until then what comes is appended, because to move a leftover into the buffer and out again for
    /// each byte of a peer that sends one at a time is work that grows with the square of the packet.
    Leftover { bytes: Vec<u8>, wanted: usize },
    /// A large packet of `size` bytes, of which `held` are here; `packet` is as long as it was grown.
    Large {
        packet: Vec<u8>,
        held: usize,
        size: usize,
    },
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
        Self::Leftover {
            bytes: Vec::new(),
            wanted: 0,
        }
    }

    /// Reads once. Returns how many bytes came; 0 at the end of the stream.
    pub(crate) fn poll_read(
        &mut self,
        buffer: &mut Buffer,
        transport: Pin<&mut dyn Transport>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Leftover { bytes, wanted } => {
                if buffer.start == buffer.end {
                    buffer.start = 0;
                    buffer.end = 0;
                } else if buffer.start > 0 {
                    buffer.bytes.copy_within(buffer.start..buffer.end, 0);
                    buffer.end -= buffer.start;
                    buffer.start = 0;
                }
                // The room of the leftover is in front of what is read.
                let before = buffer.end + bytes.len();
                let poll = transport.poll_read(cx, &mut buffer.bytes[before..][..READ]);
                let Poll::Ready(Ok(count)) = poll else {
                    return poll;
                };
                if !bytes.is_empty() && before + count < *wanted {
                    bytes.extend_from_slice(&buffer.bytes[before..][..count]);
                    return poll;
                }
                if !bytes.is_empty() {
                    buffer.bytes[..bytes.len()].copy_from_slice(bytes);
                    *bytes = Vec::new();
                }
                *wanted = 0;
                buffer.end = before + count;
                poll
            }
            Self::Large { packet, held, size } => {
                if *held == packet.len() {
                    // At most twice of what has arrived is ever reserved: an announced length costs
                    // nothing. Only then is it filled with zeros, not for each read.
                    let more = (*size - *held).min((*held).max(READ));
                    packet.resize(*held + more, 0);
                }
                let poll = transport.poll_read(cx, &mut packet[*held..]);
                if let Poll::Ready(Ok(count)) = poll {
                    *held += count;
                }
                poll
            }
        }
    }

    /// What an earlier poll left moves back into the buffer, to be used before more is read.
    pub(crate) fn bring_back(&mut self, buffer: &mut Buffer) {
        if let Self::Leftover { bytes, wanted } = self {
            let bytes = std::mem::take(bytes);
            *wanted = 0;
            buffer.start = 0;
            buffer.end = bytes.len();
            buffer.bytes[..bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// What is here; the packet at its front may be incomplete.
    pub(crate) fn input<'a>(&mut self, buffer: &'a Buffer) -> Input<'a> {
        match self {
            Self::Large { packet, held, size } if held == size => {
                let packet = std::mem::take(packet);
                *self = Self::new();
                Input::Whole(Rc::new(packet))
            }
            Self::Large { .. } => Input::Bytes(&[]),
            Self::Leftover { .. } => Input::Bytes(&buffer.bytes[buffer.start..buffer.end]),
        }
    }

    /// So many bytes of the input were used.
    pub(crate) fn consume(&self, buffer: &mut Buffer, count: usize) {
        buffer.start += count;
    }

    /// Nothing can be done before `size` bytes are here, which begin with what is not used.
    pub(crate) fn expect(&mut self, buffer: &mut Buffer, size: usize) {
        if size > LARGE {
            let packet = buffer.bytes[buffer.start..buffer.end].to_vec();
            buffer.start = 0;
            buffer.end = 0;
            let held = packet.len();
            *self = Self::Large { packet, held, size };
        } else if let Self::Leftover { wanted, .. } = self {
            *wanted = size;
        }
    }

    /// Whether a packet has begun and not ended.
    pub(crate) fn is_amid(&self, buffer: &Buffer) -> bool {
        match self {
            Self::Leftover { bytes, .. } => !bytes.is_empty() || buffer.start < buffer.end,
            Self::Large { .. } => true,
        }
    }

    /// The poll is over: what is left moves out of the thread's buffer.
    pub(crate) fn put_by(&mut self, buffer: &mut Buffer) {
        if let Self::Leftover { bytes, .. } = self
            && buffer.start < buffer.end
        {
            *bytes = buffer.bytes[buffer.start..buffer.end].to_vec();
        }
        buffer.start = 0;
        buffer.end = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::BoxedTransport;
    use futures_lite::{AsyncRead, AsyncWrite};
    use std::task::Waker;

    /// Gives one byte per read, the number of the read.
    #[derive(Default)]
    struct Drip(usize);

    impl AsyncRead for Drip {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            buffer[0] = self.0.to_le_bytes()[0];
            self.0 += 1;
            Poll::Ready(Ok(1))
        }
    }

    impl AsyncWrite for Drip {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Reads a packet of `size` bytes, one in each poll, whose size is known after the fifth. Calls
    /// `look` after each, and returns the packet.
    fn drip(size: usize, mut look: impl FnMut(&Reader)) -> Vec<u8> {
        let mut transport: BoxedTransport = Box::pin(Drip::default());
        let mut reader = Reader::new();
        let mut cx = Context::from_waker(Waker::noop());
        for read in 1.. {
            let mut buffer = Buffer::take();
            let poll = reader.poll_read(&mut buffer, transport.as_mut(), &mut cx);
            assert!(matches!(poll, Poll::Ready(Ok(1))));
            let here = match reader.input(&buffer) {
                Input::Bytes(bytes) => bytes.to_vec(),
                Input::Whole(packet) => packet.to_vec(),
            };
            if read == size {
                return here;
            }
            if !here.is_empty() && read >= 5 {
                reader.expect(&mut buffer, size);
            }
            reader.put_by(&mut buffer);
            look(&reader);
        }
        unreachable!("there is always another number")
    }

    fn counted(size: usize) -> Vec<u8> {
        (0..size).map(|index| index.to_le_bytes()[0]).collect()
    }

    #[test]
    fn a_small_packet_that_comes_byte_by_byte_is_moved_once() {
        let mut size_before = 0;
        let mut moves = 0;
        let mut place = std::ptr::null();
        let packet = drip(60_000, |reader| {
            let Reader::Leftover { bytes, .. } = reader else {
                unreachable!("it is not large");
            };
            assert_eq!(bytes.len(), size_before + 1);
            size_before = bytes.len();
            moves += u32::from(bytes.as_ptr() != place);
            place = bytes.as_ptr();
        });
        assert_eq!(packet, counted(60_000));
        assert!(moves < 64, "the leftover was moved {moves} times");
    }

    #[test]
    fn a_large_packet_that_comes_byte_by_byte_is_filled_with_zeros_once() {
        let mut grown = Vec::new();
        let packet = drip(300_000, |reader| {
            if let Reader::Large { packet, held, .. } = reader {
                assert!(packet.len() <= 2 * held.max(&READ));
                if grown.last() != Some(&packet.len()) {
                    grown.push(packet.len());
                }
            }
        });
        assert_eq!(packet, counted(300_000));
        assert!(grown.len() < 8, "it grew {} times", grown.len());
    }

    #[test]
    fn what_was_wanted_of_one_packet_is_not_wanted_of_the_next() {
        let mut transport: BoxedTransport = Box::pin(Drip::default());
        let mut reader = Reader::new();
        let mut cx = Context::from_waker(Waker::noop());
        let mut turn = |expect: Option<usize>, use_up: usize| {
            let mut buffer = Buffer::take();
            let poll = reader.poll_read(&mut buffer, transport.as_mut(), &mut cx);
            assert!(matches!(poll, Poll::Ready(Ok(1))));
            let Input::Bytes(bytes) = reader.input(&buffer) else {
                unreachable!("it is not large");
            };
            let here = bytes.len();
            reader.consume(&mut buffer, use_up);
            if let Some(size) = expect {
                reader.expect(&mut buffer, size);
            }
            reader.put_by(&mut buffer);
            here
        };
        assert_eq!(turn(Some(3), 0), 1);
        assert_eq!(turn(None, 0), 0);
        assert_eq!(turn(None, 3), 3);
        // Its size is not known yet: each byte has to be looked at.
        assert_eq!(turn(None, 0), 1);
        assert_eq!(turn(None, 0), 2);
    }
}
