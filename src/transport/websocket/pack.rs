//! What goes to the server: the bytes of MQTT in binary frames, and the answers that RFC 6455 asks for.
//!
//! ```text
//!           Close comes, a rule is broken,              the frame before
//!           or we are done                              it has left
//!   Open ───────────────────────────────► Closing(code) ────────────────► Closed
//! ```
//!
//! There is one buffer, and nothing enters it before it is empty: it holds at most one pong, one frame
//! of data or one Close at a time, or a pong with a frame of data behind it. A pong waits beside it, and
//! a later one takes its place.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use soketto::base::{Codec, Header, OpCode};

use crate::transport::{Transport, progress};

/// Bytes of MQTT in one frame. Where more bytes per write stop to pay, and it bounds the buffer.
const FRAME: usize = 64 * 1024;

/// The longest head of a frame: two bytes, eight of length, four of mask (RFC 6455, 5.2).
const HEAD: usize = 14;

/// A buffer above this is given back once all is flushed. It is enough for what a device sends now and
/// then, so that not every small message costs an allocation.
const KEPT: usize = 1024;

/// The sending side. It cannot be printed: CONNECT, which is in it once, holds the password.
pub(super) struct Pack {
    /// Frames on their way, masked; the inner transport has taken the first `taken` bytes.
    frames: Vec<u8>,
    taken: usize,
    /// Whether the inner transport has taken bytes that it may still hold.
    unflushed: bool,
    /// The payload of the latest ping that is not answered (RFC 6455, 5.5.3: earlier ones need not be).
    ping: Option<Box<[u8]>>,
    state: State,
}

enum State {
    Open,
    /// A Close is due, with this code or none.
    Closing(Option<u16>),
    /// Nothing follows a Close (RFC 6455, 5.5.1).
    Closed,
}

impl Pack {
    pub(super) fn new() -> Self {
        Self {
            frames: Vec::new(),
            taken: 0,
            unflushed: false,
            ping: None,
            state: State::Open,
        }
    }

    /// Whether data may still be sent.
    pub(super) fn is_open(&self) -> bool {
        match self.state {
            State::Open => true,
            State::Closing(_) | State::Closed => false,
        }
    }

    /// A ping with this payload is to be answered.
    pub(super) fn answer(&mut self, ping: &[u8]) {
        if self.is_open() {
            self.ping = Some(ping.into());
        }
    }

    /// Sends a Close, unless there was one.
    pub(super) fn close(&mut self, code: Option<u16>) {
        if self.is_open() {
            self.state = State::Closing(code);
        }
    }

    /// Takes bytes of MQTT, as many as go into a frame, once the frame before has left.
    ///
    /// # Errors
    /// The inner transport failed.
    pub(super) fn poll_write(
        &mut self,
        mut inner: Pin<&mut dyn Transport>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_taken(inner.as_mut(), cx))?;
        // In front of the data, so that both leave in one write.
        self.put_pong();
        let bytes = bytes.get(..FRAME).unwrap_or(bytes);
        self.put(OpCode::Binary, bytes);
        // What is not taken now is with the next write or flush, and `cx` is woken for it.
        if let Poll::Ready(Err(error)) = self.poll_taken(inner, cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// Hands everything that is due to the inner transport, and on to the system.
    ///
    /// # Errors
    /// The inner transport failed.
    pub(super) fn poll_flush(
        &mut self,
        mut inner: Pin<&mut dyn Transport>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_taken(inner.as_mut(), cx))?;
            if !self.put_pong() && !self.put_close() {
                break;
            }
        }
        if self.unflushed {
            ready!(inner.poll_flush(cx))?;
            self.unflushed = false;
        }
        if self.frames.capacity() > KEPT {
            self.frames = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a flush has something to do.
    pub(super) fn needs_flush(&self) -> bool {
        let closing = match self.state {
            State::Closing(_) => true,
            State::Open | State::Closed => false,
        };
        closing || self.ping.is_some() || self.unflushed || !self.frames.is_empty()
    }

    /// Bytes of memory that are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.frames.capacity() + self.ping.as_ref().map_or(0, |ping| ping.len())
    }

    /// Until the inner transport has taken all that is in the buffer.
    fn poll_taken(
        &mut self,
        mut inner: Pin<&mut dyn Transport>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.frames.get(self.taken..)
            && !rest.is_empty()
        {
            match ready!(inner.as_mut().poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.taken += count;
                    progress::took(count);
                }
            }
            self.unflushed = true;
        }
        self.frames.clear();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }

    fn put_pong(&mut self) -> bool {
        let ping = self.ping.take();
        if let Some(payload) = &ping {
            self.put(OpCode::Pong, payload);
        }
        ping.is_some()
    }

    fn put_close(&mut self) -> bool {
        let State::Closing(code) = self.state else {
            return false;
        };
        match code {
            Some(code) => self.put(OpCode::Close, &code.to_be_bytes()),
            None => self.put(OpCode::Close, &[]),
        }
        self.state = State::Closed;
        true
    }

    /// Puts a frame into the buffer, whose mask nobody can foretell (RFC 6455, 5.3 and 10.3).
    fn put(&mut self, opcode: OpCode, payload: &[u8]) {
        let key: u32 = rand::random();
        let mut header = Header::new(opcode);
        header
            .set_masked(true)
            .set_mask(key)
            .set_payload_len(payload.len());
        self.frames.reserve(HEAD + payload.len());
        self.frames
            .extend_from_slice(Codec::new().encode_header(&header));
        let start = self.frames.len();
        self.frames.extend_from_slice(payload);
        mask(&mut self.frames[start..], key);
    }
}

/// Masks in words of eight bytes: the codec's own function goes byte by byte and takes many times as
/// long.
fn mask(bytes: &mut [u8], key: u32) {
    let [a, b, c, d] = key.to_be_bytes();
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    // Whole words stand before it, so the key begins anew.
    for (byte, key) in rest.iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_that_of_the_codec_at_every_length() {
        let mut header = Header::new(OpCode::Binary);
        header.set_masked(true).set_mask(0x01F0_A55A);
        for length in 0..70 {
            let mut ours: Vec<u8> = (0..length).collect();
            let mut theirs = ours.clone();
            mask(&mut ours, header.mask());
            Codec::apply_mask(&header, &mut theirs);
            assert_eq!(ours, theirs, "{length} bytes");
        }
    }

    #[test]
    fn masks_differ_from_frame_to_frame() {
        let mut pack = Pack::new();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..64 {
            pack.put(OpCode::Binary, &[0; 4]);
            // The mask is twice in it, as itself and on zeros.
            assert_eq!(pack.frames[..2], [0x82, 0x84]);
            assert_eq!(pack.frames[2..6], pack.frames[6..]);
            seen.insert(pack.frames.split_off(2));
            pack.frames.clear();
        }
        assert!(seen.len() > 60, "{} different masks of 64", seen.len());
    }
}
