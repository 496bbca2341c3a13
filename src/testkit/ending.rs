//! How links and sessions end, and what is due when time passes.

use std::rc::Rc;
use std::time::Instant;

use crate::reason::Reason;

use super::broker::{Broker, LinkId, Restart};
use super::link::{Link, Outflow, Phase};
use super::script::End;
use super::session::Expiry;
use super::stored::Stored;
use super::will::Testament;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// By a normal DISCONNECT: the will is discarded.
    Left,
    /// In any other way: the will is published.
    Lost,
    /// The broker itself goes down: nobody is left to publish the will.
    Restarted,
}

impl Broker {
    /// Closes all links and comes back as an older or a newer self.
    ///
    /// Wills die with the broker, retained messages stay. To be refused for a while, let the
    /// transport refuse connections.
    pub fn restart(&mut self, now: Instant, sessions: Restart) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            self.end(id, now, Ending::Restarted);
        }
        self.pending_wills.clear();
        match sessions {
            Restart::KeepSessions => {}
            Restart::ForgetSessions => {
                let clients: Vec<Rc<str>> = self.sessions.keys().cloned().collect();
                for client in clients {
                    self.end_session(&client, now);
                }
            }
        }
        self.settle(now);
    }

    /// Drops the session of a client that is not connected; says whether there was one.
    pub fn forget_session(&mut self, now: Instant, client_id: &str) -> bool {
        let stored = self
            .sessions
            .get(client_id)
            .is_some_and(|session| session.link.is_none());
        if stored {
            self.end_session(client_id, now);
            self.settle(now);
        }
        stored
    }

    /// Ends the links that were lost meanwhile. Their wills may cause further losses.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some(id) = self.lost.pop() {
            self.end(id, now, Ending::Lost);
        }
    }

    /// The connection of a link ends; what is in its output may still leave.
    pub(super) fn end(&mut self, id: LinkId, now: Instant, ending: Ending) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.drop_delayed();
        link.inbox = Vec::new();
        let phase = std::mem::replace(&mut link.phase, Phase::Closed);
        self.want_attention(id);
        let mut connection = match phase {
            Phase::Connected(connection) => connection,
            Phase::Greeting | Phase::Authenticating(_) | Phase::Closed => return,
        };
        let client = connection.client;
        let Some(session) = self.sessions.get_mut(&client) else {
            return;
        };
        session.link = None;
        let expiry = session.expiry;
        let testament = match ending {
            Ending::Lost => connection.will.take(),
            Ending::Left | Ending::Restarted => None,
        };
        if let Some(testament) = testament {
            let wait = testament.wait(expiry);
            if wait.is_zero() {
                self.execute(&client, now, testament);
            } else {
                self.pending_wills
                    .insert(Rc::clone(&client), now + wait, testament);
                self.arm(now + wait);
            }
        }
        match expiry {
            Expiry::AtClose => self.end_session(&client, now),
            Expiry::After(after) => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.ends = Some(now + after);
                }
                self.arm(now + after);
            }
            Expiry::Never => {}
        }
    }

    /// The session is over: its subscriptions go with it, and a will that waits is due.
    pub(super) fn end_session(&mut self, client: &str, now: Instant) {
        self.sessions.remove(client);
        self.subscriptions.forget(client);
        if let Some(testament) = self.pending_wills.take(client) {
            self.execute(client, now, testament);
        }
    }

    /// Publishes a will.
    fn execute(&mut self, client: &str, now: Instant, testament: Testament) {
        let message: Stored = testament.into_message(now);
        let topic = Rc::clone(&message.topic);
        let retain = message.retain;
        self.route(now, Some(client), &topic, retain, || message);
    }

    /// Lets go what rules hold back until now.
    pub(super) fn release_delayed(&mut self, now: Instant) {
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            while let Some(link) = self.links.get_mut(&id)
                && let Some((bytes, end)) = link.poll_release(now)
            {
                let start = link.out.len();
                link.out.extend_from_slice(&bytes);
                self.passed_out(id, now, start);
                if end == End::Cut {
                    // Before the next one leaves.
                    self.lost.push(id);
                    self.settle(now);
                }
            }
            if let Some(link) = self.links.get_mut(&id) {
                if let Outflow::Corked(until) = link.outflow
                    && until <= now
                {
                    link.outflow = Outflow::Open;
                }
                if let Some(due) = link.release_at() {
                    self.arm(due);
                }
            }
        }
    }

    /// Ends what has lasted too long, and arms the timer for the next of each kind.
    pub(super) fn expire(&mut self, now: Instant) {
        let silent = |link: &Link| {
            let connection = link.connection()?;
            Some(connection.heard + connection.patience?)
        };
        let deadlines: Vec<(LinkId, Instant)> = self
            .links
            .iter()
            .filter_map(|(id, link)| Some((*id, silent(link)?)))
            .collect();
        for (id, deadline) in deadlines {
            if deadline <= now {
                self.say_goodbye(id, now, Reason::KEEP_ALIVE_TIMEOUT);
                self.end(id, now, Ending::Lost);
            } else {
                self.arm(deadline);
            }
        }
        while let Some((client, testament)) = self.pending_wills.poll_due(now) {
            self.execute(&client, now, testament);
        }
        if let Some(due) = self.pending_wills.poll_timeout() {
            self.arm(due);
        }
        let ends: Vec<(Rc<str>, Instant)> = self
            .sessions
            .iter()
            .filter_map(|(client, session)| Some((Rc::clone(client), session.ends?)))
            .collect();
        for (client, ends) in ends {
            if ends <= now {
                self.end_session(&client, now);
            } else {
                self.arm(ends);
            }
        }
    }
}
