//! QoS 0 on the way out: sent once, or kept within bounds until there is room (MQTT 5, section 4.3.1).
//!
//! ```text
//!     a call ── room in the out buffer ──► sent, and forgotten
//!        └───── none, or no link ──► Pending ── room ──► sent, and forgotten
//! ```
//!
//! Small pending messages lie one behind the other in one buffer, so that keeping one allocates
//! nothing once the buffer has grown; the payload of a large one is kept by reference.

use std::collections::VecDeque;
use std::time::Instant;

use super::alias::Aliases;
use super::expiry::Expiry;
use super::limits::Limits;
use super::outbox::{LARGE, OnFlush, Outbox};
use super::outgoing::{Outgoing, carried, check, cost};
use super::{Effect, Token};
use crate::codec::Publish;
use crate::error::{Doing, Error, ErrorKind};
use crate::message::{Body, Qos};
use crate::properties::PropertyList;
use crate::when_full::WhenFull;

/// Accepted QoS 0 messages that wait for room or for the link.
#[derive(Debug, Default)]
pub(super) struct PublishQos0 {
    queue: VecDeque<Entry>,
    /// Topics of `queue` back to back, from `topic_start` on.
    topics: String,
    topic_start: usize,
    /// Properties and small payloads of `queue` back to back, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// How many at the end of `queue` were accepted since the last turn.
    unstamped: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    topic: usize,
    properties: usize,
    payload: Place,
    retain: bool,
    expires: Expiry,
    wait: Option<Token>,
}

#[derive(Debug)]
enum Place {
    /// This many bytes behind the properties.
    Buffer(usize),
    /// Elsewhere, because it is large.
    Body(Body),
}

impl Entry {
    /// Bytes of it in the buffer.
    fn buffered(&self) -> usize {
        let payload = match &self.payload {
            Place::Buffer(length) => *length,
            Place::Body(_) => 0,
        };
        self.properties + payload
    }
}

impl Place {
    fn len(&self) -> usize {
        match self {
            Self::Buffer(length) => *length,
            Self::Body(body) => body.as_bytes().len(),
        }
    }
}

impl PublishQos0 {
    /// Bytes of the messages that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends a message at once. Nothing of its class may be waiting.
    ///
    /// # Errors
    /// The broker's limits forbid it.
    #[inline]
    pub(super) fn send(
        outgoing: &Outgoing<'_>,
        wait: Option<Token>,
        limits: &Limits,
        aliases: &mut Aliases,
        out: &mut Outbox,
    ) -> Result<(), Error> {
        check(Qos::AtMostOnce, outgoing.retain, limits)?;
        let payload = outgoing.payload.as_bytes();
        let body = (payload.len() > LARGE).then(|| outgoing.payload.clone().into_body());
        let properties = carried(out.version(), outgoing.properties, None);
        let publish = packet(outgoing.topic, outgoing.retain, properties.list(), payload);
        let from = out.total();
        let naming = aliases.name(&publish, limits.maximum_packet_size);
        out.publish(&publish, naming, body.as_ref())?;
        if let Some(token) = wait {
            out.when_flushed(OnFlush::Wait { token, from });
        }
        Ok(())
    }

    /// Keeps a message until there is room.
    pub(super) fn accept(&mut self, outgoing: Outgoing<'_>, wait: Option<Token>, expires: Expiry) {
        let properties = outgoing.properties.as_bytes();
        self.topics.push_str(outgoing.topic);
        self.buffer.extend_from_slice(properties);
        let payload = outgoing.payload.as_bytes();
        self.bytes += cost(outgoing.topic.len(), payload.len());
        let place = if payload.len() > LARGE {
            Place::Body(outgoing.payload.into_body())
        } else {
            self.buffer.extend_from_slice(payload);
            Place::Buffer(payload.len())
        };
        self.queue.push_back(Entry {
            topic: outgoing.topic.len(),
            properties: properties.len(),
            payload: place,
            retain: outgoing.retain,
            expires,
            wait,
        });
        self.unstamped += 1;
    }

    /// Gives the messages accepted since the last turn the time from which their expiry counts. Returns
    /// when the first of them expires.
    pub(super) fn stamp(&mut self, now: Instant) -> Option<Instant> {
        let unstamped = self.queue.iter_mut().rev().take(self.unstamped);
        self.unstamped = 0;
        unstamped.filter_map(|entry| entry.expires.stamp(now)).min()
    }

    /// Those that have expired end. Returns when the next one does.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Outbox) -> Option<Instant> {
        let expired = |entry: &Entry| entry.expires.left(now).is_none();
        self.take_out(expired, |entry| {
            let error = Error::new(ErrorKind::Expired, Doing::Publishing);
            end(entry.wait, error, out);
        });
        self.queue
            .iter()
            .filter_map(|entry| entry.expires.end())
            .min()
    }

    /// Those for which one of these waits are not sent from here. `tokens` are in ascending order.
    pub(super) fn withdraw(&mut self, tokens: &[Token]) {
        let withdrawn = |entry: &Entry| {
            entry
                .wait
                .is_some_and(|token| tokens.binary_search(&token).is_ok())
        };
        self.take_out(withdrawn, drop);
    }

    /// Takes out those of which `is_gone` says so, in their order.
    fn take_out(&mut self, is_gone: impl Fn(&Entry) -> bool, mut take: impl FnMut(Entry)) {
        if !self.queue.iter().any(&is_gone) {
            return;
        }
        // What stays is moved together: each byte once.
        let (mut topic, mut start) = (self.topic_start, self.start);
        let stamped = self.queue.len() - self.unstamped;
        let mut kept = Self::default();
        for (index, entry) in std::mem::take(&mut self.queue).into_iter().enumerate() {
            let (topic_end, end) = (topic + entry.topic, start + entry.buffered());
            if is_gone(&entry) {
                take(entry);
            } else {
                kept.topics.push_str(&self.topics[topic..topic_end]);
                kept.buffer.extend_from_slice(&self.buffer[start..end]);
                kept.bytes += cost(entry.topic, entry.payload.len());
                kept.unstamped += usize::from(index >= stamped);
                kept.queue.push_back(entry);
            }
            (topic, start) = (topic_end, end);
        }
        *self = kept;
    }

    /// The oldest are dropped, until there is room below `bound`; if somebody waits for one, the wait ends.
    /// Returns how many.
    pub(super) fn drop_oldest(&mut self, bound: usize, out: &mut Outbox) -> u64 {
        let mut dropped = 0;
        while self.bytes >= bound
            && let Some(entry) = self.queue.pop_front()
        {
            self.bytes -= cost(entry.topic, entry.payload.len());
            if let Some(token) = entry.wait {
                let kind = ErrorKind::Dropped(WhenFull::DropOldest);
                out.done(token, Err(Error::new(kind, Doing::Publishing)));
            }
            self.topic_start += entry.topic;
            self.start += entry.buffered();
            self.compact();
            dropped += 1;
        }
        dropped
    }

    /// Sends the oldest message; one that the broker's limits forbid, or that has expired, ends
    /// instead.
    pub(super) fn emit(
        &mut self,
        now: Instant,
        limits: &Limits,
        aliases: &mut Aliases,
        out: &mut Outbox,
    ) {
        let Some(entry) = self.queue.pop_front() else {
            return;
        };
        self.bytes -= cost(entry.topic, entry.payload.len());
        let topic = &self.topics[self.topic_start..][..entry.topic];
        let (properties, rest) = self.buffer[self.start..].split_at(entry.properties);
        let mut used = entry.properties;
        let (payload, body) = match &entry.payload {
            Place::Buffer(length) => {
                used += length;
                (&rest[..*length], None)
            }
            Place::Body(body) => (body.as_bytes(), Some(body)),
        };
        let list = PropertyList::from_checked(properties);
        let from = out.total();
        let sent = match entry.expires.left(now) {
            None => Err(Error::new(ErrorKind::Expired, Doing::Publishing)),
            Some(seconds) => check(Qos::AtMostOnce, entry.retain, limits).and_then(|()| {
                let properties = carried(out.version(), list, seconds);
                let publish = packet(topic, entry.retain, properties.list(), payload);
                let naming = aliases.name(&publish, limits.maximum_packet_size);
                out.publish(&publish, naming, body)
            }),
        };
        match (sent, entry.wait) {
            (Ok(()), Some(token)) => out.when_flushed(OnFlush::Wait { token, from }),
            (Ok(()), None) => {}
            (Err(error), wait) => end(wait, error, out),
        }
        self.topic_start += entry.topic;
        self.start += used;
        self.compact();
    }

    /// None of those who wait will be sent: they end with this error, and if nobody waits for one, an
    /// event says so.
    pub(super) fn fail(&mut self, error: &Error, out: &mut Outbox) {
        for entry in std::mem::take(self).queue {
            end(entry.wait, error.clone(), out);
        }
    }

    /// Gives memory back that is not in use.
    pub(super) fn shrink(&mut self) {
        if self.queue.is_empty() {
            *self = Self::default();
        }
    }

    /// Nothing will be sent any more: every wait ends.
    pub(super) fn close(&mut self, out: &mut Outbox) {
        for token in std::mem::take(self)
            .queue
            .into_iter()
            .filter_map(|entry| entry.wait)
        {
            out.done(token, Err(Error::closed(Doing::Publishing)));
        }
    }

    /// Drops what was sent once it is the larger part: each byte moves at most once.
    fn compact(&mut self) {
        if self.queue.is_empty() {
            self.topic_start = 0;
            self.topics.clear();
            self.start = 0;
            self.buffer.clear();
            return;
        }
        if self.topic_start * 2 >= self.topics.len() {
            self.topics.drain(..self.topic_start);
            self.topic_start = 0;
        }
        if self.start * 2 >= self.buffer.len() {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }
}

/// A message ends with an error: its wait is told, or if nobody waits, an event says so.
fn end(wait: Option<Token>, error: Error, out: &mut Outbox) {
    match wait {
        Some(token) => out.done(token, Err(error)),
        None => out.effect(Effect::Unpublished(None, error)),
    }
}

fn packet<'a>(
    topic: &'a str,
    retain: bool,
    properties: PropertyList<'a>,
    payload: &'a [u8],
) -> Publish<'a> {
    Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain,
        topic,
        id: None,
        properties,
        payload,
    }
}
