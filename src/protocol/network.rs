//! What the network and the clock bring: the connection opens and ends, bytes leave, time passes.
//!
//! What arrives is in `inbound`.

use std::time::Instant;

use super::outbox::OnFlush;
use super::packet_id::Owner;
use super::{Chunk, Credentials, Done, End, Link, Login, Protocol};
use crate::error::{Doing, Error, ErrorKind, Sent};

impl Protocol {
    /// The transport is open: sends CONNECT.
    ///
    /// # Errors
    /// The credentials or the will cannot be expressed.
    pub fn connect(&mut self, now: Instant, credentials: &Credentials) -> Result<(), Error> {
        self.begin(now, credentials, None)
    }

    pub(super) fn begin(
        &mut self,
        now: Instant,
        credentials: &Credentials,
        login: Option<&Login>,
    ) -> Result<(), Error> {
        self.out.set_limits(self.config.version, usize::MAX);
        let opening = &mut self.session.opening;
        let handshake = opening.connect(now, &self.config, credentials, login, &mut self.out)?;
        self.link = Link::Connecting(handshake);
        Ok(())
    }

    /// The transport took `count` bytes of a chunk.
    pub fn handle_written(&mut self, now: Instant, chunk: Chunk, count: usize) {
        self.out.put_back(chunk, count);
        let Link::Online(online) = &mut self.link else {
            return;
        };
        if count > 0 {
            online.ping.handle_sent(now);
            online.window.trial.handle_taken(now, self.out.taken());
        }
        if count > 0 || online.stalled.is_none() {
            online.stalled = Some(now);
        }
    }

    /// Bytes that the transport took before have left it, if not all.
    pub fn handle_progress(&mut self, now: Instant) {
        if let Link::Online(online) = &mut self.link
            && let Some(stalled) = &mut online.stalled
        {
            *stalled = now;
        }
    }

    /// The transport has flushed all that it took.
    pub fn handle_flushed(&mut self, now: Instant) {
        let progress = self.out.needs_flush();
        self.out.handle_flushed();
        if let Link::Online(online) = &mut self.link {
            if self.out.unsent() == 0 {
                online.stalled = None;
            } else if progress {
                online.stalled = Some(now);
            }
        }
        while let Some(whom) = self.out.poll_flushed() {
            match whom {
                OnFlush::Wait { token, .. } => self.out.done(token, Ok(Done::Sent)),
                OnFlush::Ping => {
                    if let Link::Online(online) = &mut self.link {
                        online.ping.handle_flushed(now);
                    }
                }
                OnFlush::Packet(id) => match self.session.ids.owner(id) {
                    Some(Owner::PublishOut(key)) => {
                        self.session.publish_out.handle_flushed(key, &mut self.out);
                    }
                    Some(Owner::Subscribe(key)) => {
                        let requests = &mut self.session.subscribing.requests;
                        requests.handle_flushed(key, &mut self.out);
                    }
                    Some(Owner::Unsubscribe(key)) => {
                        let requests = &mut self.session.unsubscribing.requests;
                        requests.handle_flushed(key, &mut self.out);
                    }
                    // It was answered before the flush was noticed.
                    Some(Owner::Burnt) | None => {}
                },
            }
        }
    }

    /// The transport has ended, or could not be opened.
    pub fn disconnected(&mut self, end: End) {
        self.end_link(end, &ErrorKind::LinkLost);
        if !self.config.keep_qos0_offline {
            let lost = Error::new(ErrorKind::LinkLost, Doing::Publishing);
            self.session.publish_qos0.fail(&lost, &mut self.out);
            self.session.line_qos0.fail(&lost, &mut self.out);
        }
    }

    /// The connection ends, and waits that cannot go on without it end with an error of this kind.
    pub(super) fn end_link(&mut self, end: End, kind: &ErrorKind) {
        let (online, end) = match std::mem::replace(&mut self.link, Link::Offline) {
            Link::Online(online) => (Some(online), end),
            // We had said good-bye, so it is no message's fault that the broker closed.
            Link::Leaving(online) => (online, End::Otherwise),
            Link::Offline | Link::Connecting(_) => (None, End::Otherwise),
        };
        let taken = self.out.taken();
        if let Some(online) = online {
            let session = &mut self.session;
            session
                .publish_out
                .disconnected(&online.window, end, &mut session.ids, &mut self.out);
            session.publish_in.disconnected();
            let ids = &mut session.ids;
            session.subscribing.disconnected(ids, &mut self.out);
            session.unsubscribing.disconnected(ids, &mut self.out);
            for token in online.ping.disconnected() {
                let error = Error::new(kind.clone(), Doing::Pinging);
                self.out.done(token, Err(error));
            }
            for token in online.auth.into_iter().flat_map(|auth| auth.disconnected()) {
                let error = Error::new(kind.clone(), Doing::Authenticating);
                self.out.done(token, Err(error));
            }
        }
        for whom in self.out.disconnected() {
            // QoS 0 is not sent again, so its wait ends; the others go on across the reconnect.
            if let OnFlush::Wait { token, from } = whom {
                let sent = if from < taken { Sent::Maybe } else { Sent::No };
                let error = Error::new(kind.clone(), Doing::Publishing).sent_as(sent);
                self.out.done(token, Err(error));
            }
        }
    }

    /// Time has passed.
    ///
    /// # Errors
    /// The connection, or the attempt at one, has to be given up.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        match &mut self.link {
            Link::Offline | Link::Leaving(_) => Ok(()),
            Link::Connecting(handshake) => handshake.handle_timeout(now, &mut self.out),
            Link::Online(online) => {
                self.session
                    .publish_in
                    .handle_timeout(now, &mut online.ledger, &mut self.out);
                if self.session.inheritance.is_over(now) {
                    self.disinherit();
                }
                let Link::Online(online) = &mut self.link else {
                    return Ok(());
                };
                if self.out.is_clogged_by_store() {
                    online.ping.handle_unread(now);
                }
                if let (Some(since), Some(end)) = (online.stalled, online.stalled_until())
                    && now >= end
                {
                    return Err(Error::new(ErrorKind::Silent(end - since), Doing::Connected));
                }
                online.window.trial.handle_timeout(now);
                if online.ping.is_due(now) {
                    // Nothing happened for the keep-alive: an idle client holds nothing.
                    self.session.shrink();
                    self.out.shrink();
                }
                if let Some(auth) = &mut online.auth
                    && let Err(error) = auth.handle_timeout(now, &mut self.out)
                {
                    self.break_off();
                    return Err(error);
                }
                if self.out.holds_back() {
                    // The server owes an AUTH, and that is watched.
                    return Ok(());
                }
                online.ping.handle_timeout(now, &mut self.out)
            }
        }
    }
}
