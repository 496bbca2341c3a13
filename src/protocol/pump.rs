//! What may leave now, and in which order; and everything else that comes out.

use std::time::Instant;

use super::session::{Online, Session};
use super::{Chunk, Effect, Link, Protocol};

impl Protocol {
    /// Encodes what is pending and may be sent now; moves callers up who wait for room.
    pub fn pump(&mut self, now: Instant) {
        self.move_up();
        let Link::Online(online) = &mut self.link else {
            return;
        };
        let Online {
            limits,
            window,
            ping,
            ..
        } = &mut **online;
        let Session {
            ids,
            publish_qos0,
            publish_out,
            subscribing,
            unsubscribing,
            ..
        } = &mut self.session;
        let out = &mut self.out;
        // They wait behind no message, and few may be unanswered at a time.
        loop {
            match (subscribing.next_order(), unsubscribing.next_order()) {
                (Some(one), other) if other.is_none_or(|other| one < other) => {
                    if !subscribing.is_free() {
                        break;
                    }
                    subscribing.emit(limits, ids, out);
                }
                (_, Some(_)) => {
                    if !unsubscribing.is_free() {
                        break;
                    }
                    unsubscribing.emit(ids, out);
                }
                (Some(_) | None, None) => break,
            }
        }
        if publish_out.wants_proof(window) {
            ping.probe(out);
        }
        // The two classes take turns, so that neither starves the other.
        loop {
            let mut idle = true;
            if out.has_room() && publish_out.wants_to_emit(window, ids) {
                publish_out.emit(now, limits, window, ids, out);
                idle = false;
            }
            if out.has_room() && !publish_qos0.is_empty() {
                publish_qos0.emit(now, limits, out);
                idle = false;
            }
            if idle {
                break;
            }
        }
        self.move_up();
    }

    /// The next effect.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.poll_effect()
    }

    /// Bytes to write, to be given back with [`Protocol::handle_written`].
    pub fn poll_chunk(&mut self) -> Option<Chunk> {
        self.out.poll_chunk()
    }

    /// Whether the transport has bytes that it may not have flushed.
    pub fn needs_flush(&self) -> bool {
        self.out.needs_flush()
    }

    /// When [`Protocol::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.link {
            Link::Offline | Link::Leaving(_) => None,
            Link::Connecting(handshake) => handshake.poll_timeout(),
            Link::Online(online) => {
                let stalled = online.stalled.zip(online.limits.keep_alive);
                [
                    online.ping.poll_timeout(),
                    self.session.publish_in.poll_timeout(),
                    stalled.map(|(since, patience)| since + patience),
                ]
                .into_iter()
                .flatten()
                .min()
            }
        }
    }

    /// Those in line move up as long as there is room.
    fn move_up(&mut self) {
        while self.session.publish_out.bytes() < self.config.queue_bytes
            && let Some((message, wait, token)) = self.session.line.pop()
        {
            self.accept(message, Some((wait, token)));
        }
        while self.session.publish_qos0.bytes() < self.config.queue_bytes
            && let Some((message, wait, token)) = self.session.line_qos0.pop()
        {
            self.accept(message, Some((wait, token)));
        }
    }
}
