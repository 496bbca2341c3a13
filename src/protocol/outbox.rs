//! Where all machines put what comes out: bytes for the broker, effects for the client.
//!
//! Offsets count the bytes of the client's life, across connections: what a message ended at is
//! compared with what the transport has taken and flushed, so that a wait for `Sent` costs one number.
//!
//! ```text
//!     dropped or flushed        taken by the transport         queued
//!     ──────────────────┬──────────────────────────────┬─────────────────┐
//!                    flushed                         taken             total
//! ```

use std::collections::VecDeque;
use std::fmt;

use super::journal::Journal;
use super::{Done, Effect, Token};
use crate::codec::publish::{AckKind, Naming};
use crate::codec::{Ack, Overlong, Packet, Publish};
use crate::error::{Error, ErrorKind};
use crate::message::{Body, PacketId};
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::version::Version;

/// Above this many unsent bytes nothing new is encoded; it stays pending. One write of 64 KiB is where
/// more bytes per write stop to pay, and it bounds how long an acknowledgement waits behind messages.
pub(super) const MARK: usize = 64 * 1024;

/// Bodies above this size are sent by reference instead of being copied into the buffer.
pub(super) const LARGE: usize = 64 * 1024;

/// Bytes of an acknowledgement, at most.
const ACKNOWLEDGEMENT: usize = 5;

/// Held acknowledgements above this many bytes are more than an honest broker can ask for: each identifier of
/// its messages and of ours is answered once before it is used again. They do not stop the reading before that,
/// because what ends the holding has to be read.
const HELD: usize = 2 * 65_535 * ACKNOWLEDGEMENT;

/// Who is told when an offset is flushed.
#[derive(Debug, Clone, Copy)]
pub(super) enum OnFlush {
    /// This wait for a packet that began at `from` is over.
    Wait {
        /// The wait.
        token: Token,
        /// Where the packet began.
        from: u64,
    },
    /// The machine that holds this identifier.
    Packet(PacketId),
    /// A PINGREQ has left, and the time for its answer begins.
    Ping,
}

/// A piece of output, taken out of the outbox while the transport writes it.
pub enum Chunk {
    /// Packets back to back; those before `usize` are written.
    Bytes(Vec<u8>, usize),
    /// The body of a large message; the bytes before `usize` are written.
    Body(BodyChunk, usize),
}

/// The body of a large message, shared with its message.
#[derive(Debug)]
pub struct BodyChunk(Body);

impl Chunk {
    /// What is still to be written.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes, from) => bytes.get(*from..),
            Self::Body(body, from) => body.0.as_bytes().get(*from..),
        }
        .unwrap_or_default()
    }
}

impl fmt::Debug for Chunk {
    /// Without the bytes: CONNECT holds the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.as_bytes().len())
    }
}

/// The output of all machines.
pub(super) struct Outbox {
    version: Version,
    /// The largest packet that the broker accepts, in bytes.
    limit: usize,
    /// Chunks before `tail`; there is one only around large bodies.
    chunks: VecDeque<Chunk>,
    tail: Vec<u8>,
    /// Bytes of `tail` that are written; not 0 only while `chunks` is empty.
    head: usize,
    total: u64,
    taken: u64,
    flushed: u64,
    /// Bytes of acknowledgements that the transport has not taken, at most.
    replies: usize,
    /// Acknowledgements that are held back; none unless everything is that can be.
    held: Option<Vec<u8>>,
    on_flush: VecDeque<(u64, OnFlush)>,
    effects: VecDeque<Effect>,
    /// What is to be stored; none without a store.
    pub(super) journal: Option<Box<Journal>>,
}

impl Outbox {
    /// An empty one.
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            limit: usize::MAX,
            chunks: VecDeque::new(),
            tail: Vec::new(),
            head: 0,
            total: 0,
            taken: 0,
            flushed: 0,
            replies: 0,
            held: None,
            on_flush: VecDeque::new(),
            effects: VecDeque::new(),
            journal: None,
        }
    }

    /// A connection begins with this version and, once CONNACK told it, this largest packet.
    pub(super) fn set_limits(&mut self, version: Version, limit: usize) {
        self.version = version;
        self.limit = limit;
    }

    /// The version that is encoded.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Bytes that the transport has not taken.
    pub(super) fn unsent(&self) -> usize {
        // The difference is what is held in memory, so it fits.
        (self.total - self.taken) as usize
    }

    /// Whether the peer takes our acknowledgements too slowly to be read from, or the store what they wait
    /// for: they must not pile up.
    pub(super) fn is_clogged(&self) -> bool {
        self.is_clogged_by_peer() || self.is_clogged_by_store()
    }

    fn is_clogged_by_peer(&self) -> bool {
        let too_much = self.held.as_ref().is_some_and(|held| held.len() > HELD);
        self.replies > MARK || too_much
    }

    /// Whether it is the store that keeps the peer from being read from.
    pub(super) fn is_clogged_by_store(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| {
            let gated = journal.gated() * ACKNOWLEDGEMENT;
            journal.is_clogged() || gated > 0 && self.replies + gated > MARK
        })
    }

    /// Whether something may be encoded that can also wait.
    pub(super) fn has_room(&self) -> bool {
        self.held.is_none() && self.unsent() < MARK
    }

    /// From now on nothing leaves but what [`Outbox::send`] is given: the rest waits for
    /// [`Outbox::release`].
    pub(super) fn hold_back(&mut self) {
        self.held.get_or_insert_with(Vec::new);
    }

    /// What was held back may leave.
    pub(super) fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.tail.extend_from_slice(&held);
            self.total += held.len() as u64;
            self.replies += held.len();
        }
    }

    /// Whether everything is held back that can be.
    pub(super) fn holds_back(&self) -> bool {
        self.held.is_some()
    }

    /// Whether acknowledgements are held back.
    pub(super) fn owes(&self) -> bool {
        self.held.as_ref().is_some_and(|held| !held.is_empty())
    }

    /// The offset at which the next packet begins.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The offset up to which the transport has taken bytes.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether bytes wait for a flush.
    pub(super) fn needs_flush(&self) -> bool {
        self.flushed < self.taken
    }

    /// Appends a packet.
    ///
    /// # Errors
    /// It is larger than the broker accepts or than MQTT can say. Then nothing was appended.
    pub(super) fn send(&mut self, packet: &Packet<'_>) -> Result<(), Error> {
        let before = self.tail.len();
        if let Err(overlong) = packet.encode(self.version, &mut self.tail) {
            return Err(too_large(overlong));
        }
        let size = self.tail.len() - before;
        if size > self.limit {
            self.tail.truncate(before);
            return Err(too_large(Overlong {
                size,
                limit: self.limit,
            }));
        }
        self.total += size as u64;
        Ok(())
    }

    /// Appends an acknowledgement without properties: at most five bytes, which every broker accepts that
    /// was let past its CONNACK.
    pub(super) fn acknowledge(&mut self, kind: AckKind, id: PacketId, reason: Reason) {
        self.acknowledge_with(kind, id, reason, PropertyList::EMPTY);
    }

    /// Appends an acknowledgement, without its properties if they make it larger than the broker accepts
    /// [MQTT-3.4.2-2, -3, MQTT-3.5.2-2, -3].
    pub(super) fn acknowledge_with(
        &mut self,
        kind: AckKind,
        id: PacketId,
        reason: Reason,
        properties: PropertyList<'_>,
    ) {
        let mut ack = Ack {
            id,
            reason,
            properties,
        };
        if !properties.is_empty() && ack.size(kind, self.version) > self.limit {
            ack.properties = PropertyList::EMPTY;
        }
        if let Some(held) = &mut self.held {
            // Neither five bytes nor what fits the limit are a packet that is too long.
            let _ = ack.encode(kind, self.version, held);
            return;
        }
        let before = self.tail.len();
        if ack.encode(kind, self.version, &mut self.tail).is_ok() {
            let size = self.tail.len() - before;
            self.total += size as u64;
            self.replies += size;
        }
    }

    /// The same once everything that was journaled so far is on disk; without a store at once.
    pub(super) fn acknowledge_stored(&mut self, kind: AckKind, id: PacketId, reason: Reason) {
        match &mut self.journal {
            None => self.acknowledge(kind, id, reason),
            Some(journal) => {
                journal.gate(kind, id, reason);
                self.send_ungated();
            }
        }
    }

    /// Appends the acknowledgements that waited for what is on disk now.
    pub(super) fn send_ungated(&mut self) {
        let committed = self.committed();
        while let Some((kind, id, reason)) = self
            .journal
            .as_mut()
            .and_then(|journal| journal.pop_gated(committed))
        {
            self.acknowledge(kind, id, reason);
        }
    }

    /// The number up to which batches are on disk: without a store nothing waits for one.
    pub(super) fn committed(&self) -> u64 {
        self.journal
            .as_ref()
            .map_or(u64::MAX, |journal| journal.committed())
    }

    /// The number of the last batch that holds a change.
    pub(super) fn mark(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.mark())
    }

    /// Appends bytes that are a packet.
    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.total += bytes.len() as u64;
    }

    /// Appends a PUBLISH that names its topic in this way; `body` is its payload if that may be sent by
    /// reference.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    #[inline]
    pub(super) fn publish(
        &mut self,
        publish: &Publish<'_>,
        naming: Naming,
        body: Option<&Body>,
    ) -> Result<(), Error> {
        let before = self.tail.len();
        match naming {
            Naming::Topic => publish.encode_head(self.version, &mut self.tail),
            Naming::Both(_) | Naming::Alias(_) => publish.encode_head_as(naming, &mut self.tail),
        }
        .map_err(too_large)?;
        let size = self.tail.len() - before + publish.payload.len();
        if size > self.limit {
            self.tail.truncate(before);
            return Err(too_large(Overlong {
                size,
                limit: self.limit,
            }));
        }
        match body {
            Some(body) if publish.payload.len() > LARGE => {
                let head = std::mem::take(&mut self.tail);
                self.chunks
                    .push_back(Chunk::Bytes(head, std::mem::take(&mut self.head)));
                self.chunks
                    .push_back(Chunk::Body(BodyChunk(body.clone()), 0));
            }
            Some(_) | None => self.tail.extend_from_slice(publish.payload),
        }
        self.total += size as u64;
        Ok(())
    }

    /// Tells `whom` when everything that is queued now is flushed.
    pub(super) fn when_flushed(&mut self, whom: OnFlush) {
        self.on_flush.push_back((self.total, whom));
    }

    /// A wait is over.
    pub(super) fn done(&mut self, token: Token, outcome: Result<Done, Error>) {
        self.effects.push_back(Effect::Done(token, outcome));
    }

    /// Something that the client has to know.
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// The next effect.
    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Takes the first piece of output, to be given back with [`Outbox::put_back`].
    pub(super) fn poll_chunk(&mut self) -> Option<Chunk> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Some(chunk);
        }
        if self.tail.is_empty() {
            return None;
        }
        Some(Chunk::Bytes(
            std::mem::take(&mut self.tail),
            std::mem::take(&mut self.head),
        ))
    }

    /// Gives back what was taken; the transport has written `count` bytes of it.
    pub(super) fn put_back(&mut self, mut chunk: Chunk, count: usize) {
        self.taken += count as u64;
        self.replies = self.replies.min(self.unsent());
        let (Chunk::Bytes(_, from) | Chunk::Body(_, from)) = &mut chunk;
        *from += count;
        let empty = chunk.as_bytes().is_empty();
        if !empty {
            // Packets queued meanwhile stand behind it.
            match chunk {
                Chunk::Bytes(bytes, from) if self.chunks.is_empty() && self.tail.is_empty() => {
                    self.tail = bytes;
                    self.head = from;
                    self.compact();
                }
                Chunk::Bytes(..) | Chunk::Body(..) => self.chunks.push_front(chunk),
            }
        } else if let Chunk::Bytes(mut bytes, _) = chunk
            && self.tail.capacity() == 0
        {
            // The buffer is kept for the next packets, unless it grew beyond all proportion.
            if bytes.capacity() <= 2 * MARK {
                bytes.clear();
                self.tail = bytes;
            }
        }
    }

    /// Drops the written part of the buffer once it is the larger one: each byte moves at most once.
    fn compact(&mut self) {
        if self.head * 2 >= self.tail.len() {
            self.tail.drain(..self.head);
            self.head = 0;
        }
    }

    /// Gives memory back that is not in use.
    pub(super) fn shrink(&mut self) {
        if self.tail.is_empty() {
            self.tail = Vec::new();
        }
        self.chunks.shrink_to_fit();
        self.on_flush.shrink_to_fit();
        self.effects.shrink_to_fit();
    }

    /// The transport has flushed all that it took.
    pub(super) fn handle_flushed(&mut self) {
        self.flushed = self.taken;
    }

    /// The next one to be told that its bytes are flushed.
    pub(super) fn poll_flushed(&mut self) -> Option<OnFlush> {
        let (offset, _) = self.on_flush.front()?;
        if *offset > self.flushed {
            return None;
        }
        self.on_flush.pop_front().map(|(_, whom)| whom)
    }

    /// The connection is over: its unsent bytes are thrown away. Returns the waits that hung on them.
    pub(super) fn disconnected(&mut self) -> Vec<OnFlush> {
        self.chunks.clear();
        self.tail = Vec::new();
        self.head = 0;
        // The next connection starts behind everything that was ever queued, so that no offset of this
        // one can look flushed.
        self.taken = self.total;
        self.flushed = self.total;
        self.replies = 0;
        self.held = None;
        self.limit = usize::MAX;
        if let Some(journal) = &mut self.journal {
            journal.disconnected();
        }
        self.on_flush.drain(..).map(|(_, whom)| whom).collect()
    }
}

impl fmt::Debug for Outbox {
    /// Without the bytes: CONNECT holds the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("version", &self.version)
            .field("limit", &self.limit)
            .field("total", &self.total)
            .field("taken", &self.taken)
            .field("flushed", &self.flushed)
            .field("replies", &self.replies)
            .field("on_flush", &self.on_flush)
            .field("effects", &self.effects)
            .finish_non_exhaustive()
    }
}

fn too_large(overlong: Overlong) -> Error {
    let Overlong { size, limit } = overlong;
    Error::new(
        ErrorKind::TooLarge { size, limit },
        crate::error::Doing::Publishing,
    )
}
