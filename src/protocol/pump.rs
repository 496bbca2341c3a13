//! What may leave now, and in which order; and everything else that comes out.

use std::time::{Duration, Instant};

use super::session::{Online, Session};
use super::{Chunk, Effect, Link, Protocol};

/// The queues are looked through for what has expired at most this often. A MiB of small messages is 16,000
/// of them, which may all expire at different times; and the standard counts their time in seconds.
const PACE: Duration = Duration::from_millis(100);

impl Protocol {
    /// Encodes what is pending and may be sent now; moves callers up who wait for room. What was accepted
    /// since the last call gets the time from which its expiry counts.
    pub fn pump(&mut self, now: Instant) {
        let session = &mut self.session;
        let stamped = [
            session.expires,
            session.publish_out.stamp(now),
            session.publish_qos0.stamp(now),
            session.line.stamp(now),
            session.line_qos0.stamp(now),
        ];
        session.expires = stamped.into_iter().flatten().min();
        if session.expires.is_some_and(|end| end <= now) {
            self.expire(now);
        }
        self.move_up();
        if let Link::Online(online) = &mut self.link
            && let Some(auth) = &mut online.auth
        {
            auth.begin_if_due(now, &mut self.out);
            online.ping.probe_if_asked(&mut self.out);
        }
        self.session.subscribing.store(&mut self.out);
        self.emit_requests();
        self.store_messages();
        // What ends instead of being sent makes room without a byte, so nothing else would call again.
        while self.emit_messages(now) && self.move_up() {
            self.store_messages();
        }
    }

    /// With a store: what is accepted goes into it, before any byte of it leaves.
    fn store_messages(&mut self) {
        let window = match &self.link {
            Link::Online(online) => Some(&online.window),
            Link::Offline | Link::Connecting(_) | Link::Leaving(_) => None,
        };
        let Session {
            ids, publish_out, ..
        } = &mut self.session;
        publish_out.store(window, ids, &mut self.out);
    }

    /// What waits to be sent and has expired ends now, with or without a link: its wait ends in time, and
    /// its room is free for others.
    fn expire(&mut self, now: Instant) {
        let session = &mut self.session;
        let next = [
            session
                .publish_out
                .expire(now, &mut session.ids, &mut self.out),
            session.publish_qos0.expire(now, &mut self.out),
            session.line.expire(now, &mut self.out),
            session.line_qos0.expire(now, &mut self.out),
        ];
        let next = next.into_iter().flatten().min();
        session.expires = next.map(|end| end.max(now + PACE));
    }

    /// SUBSCRIBEs and UNSUBSCRIBEs in the order of their calls. They wait behind no message, and few may
    /// be unanswered at a time.
    fn emit_requests(&mut self) {
        let Link::Online(online) = &mut self.link else {
            return;
        };
        let Session {
            ids,
            subscribing,
            unsubscribing,
            ..
        } = &mut self.session;
        let out = &mut self.out;
        if out.holds_back() || out.committed() < online.opened {
            return;
        }
        // Publications leave enough of them; were it not so, the same request would be tried for ever.
        while ids.has_any() {
            match (
                subscribing.requests.next_order(),
                unsubscribing.requests.next_order(),
            ) {
                (Some(one), other) if other.is_none_or(|other| one < other) => {
                    if !subscribing.requests.is_free() || !subscribing.is_next_stored(out) {
                        return;
                    }
                    subscribing.emit(&online.limits, ids, out);
                }
                (_, Some(_)) => {
                    if !unsubscribing.requests.is_free() {
                        return;
                    }
                    unsubscribing.emit(ids, out);
                }
                (Some(_) | None, None) => return,
            }
        }
    }

    /// Messages, as far as there is room. The two classes take turns, so that neither starves the other.
    /// Returns whether any left or ended.
    fn emit_messages(&mut self, now: Instant) -> bool {
        let Link::Online(online) = &mut self.link else {
            return false;
        };
        let Online {
            limits,
            window,
            aliases,
            ping,
            ..
        } = &mut **online;
        let Session {
            ids,
            publish_qos0,
            publish_out,
            ..
        } = &mut self.session;
        let out = &mut self.out;
        let mut emitted = false;
        loop {
            let mut idle = true;
            // Only if PINGREQ may leave now: it marks the proof as asked for.
            if !out.holds_back() && publish_out.ask_for_proof(now, window) {
                ping.probe(out);
            }
            if out.has_room() && publish_out.wants_to_emit(window, ids, out) {
                publish_out.emit(now, limits, window, aliases, ids, out);
                idle = false;
            }
            if out.has_room() && !publish_qos0.is_empty() {
                publish_qos0.emit(now, limits, aliases, out);
                idle = false;
            }
            if idle {
                return emitted;
            }
            emitted = true;
        }
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
        let link = match &self.link {
            Link::Offline | Link::Leaving(_) => None,
            Link::Connecting(handshake) => handshake.poll_timeout(),
            Link::Online(online) => [
                if self.out.is_clogged_by_store() {
                    online.ping.poll_timeout_unread()
                } else {
                    online.ping.poll_timeout()
                }
                .filter(|_| !self.out.holds_back()),
                online.auth.as_ref().and_then(|auth| auth.poll_timeout()),
                self.session.publish_in.poll_timeout(),
                self.session.inheritance.poll_timeout(),
                online.window.trial.poll_timeout(),
                online.stalled_until(),
            ]
            .into_iter()
            .flatten()
            .min(),
        };
        // If nothing waits any more, what would have expired has left.
        let expires = self.session.expires.filter(|_| self.session.holds_back());
        link.into_iter().chain(expires).min()
    }

    /// Those in line move up as long as there is room. Returns whether any did.
    fn move_up(&mut self) -> bool {
        let mut moved = false;
        while self.session.publish_out.bytes() < self.config.queue_bytes
            && let Some(waiting) = self.session.line.pop()
        {
            let wait = Some((waiting.wait, waiting.token));
            self.accept(waiting.message, wait, waiting.expires);
            moved = true;
        }
        while self.session.publish_qos0.bytes() < self.config.queue_bytes
            && let Some(waiting) = self.session.line_qos0.pop()
        {
            let wait = Some((waiting.wait, waiting.token));
            self.accept(waiting.message, wait, waiting.expires);
            moved = true;
        }
        moved
    }
}
