//! What the application asks for: publish, subscribe, unsubscribe, ping, disconnect, close.

use std::rc::Rc;

use super::expiry::Expiry;
use super::outgoing::{LARGEST, check, check_properties, size_of};
use super::publish_qos0::PublishQos0;
use super::session::{Online, Session};
use super::{Accepted, End, Link, Outgoing, Protocol, SessionMode, Subscription, Token, Wish};
use crate::codec::{Disconnect, Packet};
use crate::error::{Doing, Error, ErrorKind};
use crate::message::{Message, Qos};
use crate::properties::{Properties, PropertyList};
use crate::reason::Reason;
use crate::version::Version;
use crate::wait::Wait;
use crate::when_full::WhenFull;

impl Protocol {
    /// Publishes at QoS 0, borrowing from the caller. Only without a line and with room; else see
    /// [`Protocol::publish`].
    ///
    /// # Errors
    /// The broker's limits forbid it; the queue is full, and that is an error; there is no link and nothing
    /// is kept.
    #[inline]
    pub fn publish_qos0(
        &mut self,
        outgoing: Outgoing<'_>,
        wait: Option<Token>,
    ) -> Result<Accepted, Error> {
        check_properties(self.config.version, outgoing.properties)?;
        if let Link::Online(online) = &mut self.link
            && self.session.publish_qos0.is_empty()
            && self.session.line_qos0.is_empty()
            && self.out.has_room()
        {
            let Online {
                limits, aliases, ..
            } = &mut **online;
            PublishQos0::send(&outgoing, wait, limits, aliases, &mut self.out)?;
            return Ok(Accepted::Yes);
        }
        let size = outgoing.size(self.config.version);
        self.check(Qos::AtMostOnce, outgoing.retain, size)?;
        if !self.make_room(Qos::AtMostOnce) {
            return match self.config.when_full_qos0 {
                // It may stand in line, see `publish`.
                WhenFull::Fail if wait.is_some() => {
                    Err(Error::new(ErrorKind::QueueFull, Doing::Publishing))
                }
                policy => self.no_room(policy, wait.is_some()),
            };
        }
        let expires = Expiry::of(outgoing.properties);
        self.session.publish_qos0.accept(outgoing, wait, expires);
        Ok(Accepted::Yes)
    }

    /// Publishes a message, or parks it if there is no room and its caller waits.
    ///
    /// # Errors
    /// The broker's limits forbid it; the queue is full, and the policy is to fail and nobody waits, or to
    /// drop and somebody does; QoS 0 without a link if nothing is kept. The message comes back.
    pub fn publish(
        &mut self,
        message: Message,
        wait: Option<(Wait, Token)>,
    ) -> Result<Accepted, (Message, Error)> {
        let qos = message.quality_of_service();
        if let Err(error) = self.check_whole(&message) {
            return Err((message, error));
        }
        if self.make_room(qos) {
            let expires = Expiry::of(message.property_list());
            self.accept(message, wait, expires);
            return Ok(Accepted::Yes);
        }
        let policy = self.policy(qos);
        match (policy, wait) {
            (WhenFull::Fail, Some((wait, token))) => {
                let line = match qos {
                    Qos::AtMostOnce => &mut self.session.line_qos0,
                    Qos::AtLeastOnce | Qos::ExactlyOnce => &mut self.session.line,
                };
                Ok(Accepted::Parked(line.park(message, wait, token)))
            }
            (WhenFull::Fail | WhenFull::DropOldest | WhenFull::DropNewest, _) => self
                .no_room(policy, wait.is_some())
                .map_err(|error| (message, error)),
        }
    }

    /// Whether there is room for a message of this QoS, once the oldest are dropped if that is the policy.
    pub(super) fn make_room(&mut self, qos: Qos) -> bool {
        if self.has_room_for(qos) {
            return true;
        }
        match self.policy(qos) {
            WhenFull::Fail | WhenFull::DropNewest => return false,
            WhenFull::DropOldest => {}
        }
        let bound = self.config.queue_bytes;
        let Session {
            ids,
            publish_qos0,
            publish_out,
            ..
        } = &mut self.session;
        self.session.losses.oldest += match qos {
            Qos::AtMostOnce => publish_qos0.drop_oldest(bound, &mut self.out),
            Qos::AtLeastOnce | Qos::ExactlyOnce => {
                publish_out.drop_oldest(bound, ids, &mut self.out)
            }
        };
        self.has_room_for(qos)
    }

    fn has_room_for(&self, qos: Qos) -> bool {
        match qos {
            Qos::AtMostOnce => self.room_qos0(),
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.room(),
        }
    }

    /// A message comes for which there is no room, and it does not stand in line. Only one who waits is
    /// told of a drop: an event for each would need room too.
    pub(super) fn no_room(&mut self, policy: WhenFull, waits: bool) -> Result<Accepted, Error> {
        let losses = &mut self.session.losses;
        let kind = match policy {
            WhenFull::Fail => {
                losses.failed += 1;
                ErrorKind::QueueFull
            }
            WhenFull::DropOldest | WhenFull::DropNewest => {
                losses.newest += 1;
                if !waits {
                    return Ok(Accepted::Dropped);
                }
                ErrorKind::Dropped(WhenFull::DropNewest)
            }
        };
        Err(Error::new(kind, Doing::Publishing))
    }

    pub(super) fn policy(&self, qos: Qos) -> WhenFull {
        match qos {
            Qos::AtMostOnce => self.config.when_full_qos0,
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.config.when_full,
        }
    }

    /// A caller in line gives up. Returns its message if it was still there: it is never sent.
    pub fn withdraw(&mut self, qos: Qos, place: u64) -> Option<Message> {
        match qos {
            Qos::AtMostOnce => self.session.line_qos0.withdraw(place),
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.session.line.withdraw(place),
        }
    }

    /// Messages of QoS 0 that wait to be sent, and whose callers want to send them later themselves. `tokens`
    /// are theirs, in ascending order.
    pub fn withdraw_qos0(&mut self, tokens: &[Token]) {
        self.session.publish_qos0.withdraw(tokens);
    }

    /// Subscribes. Effects tell what became of it.
    pub fn subscribe(&mut self, subscription: Subscription) {
        let order = self.next_order();
        self.session
            .subscribing
            .subscribe(subscription, order, &mut self.out);
    }

    /// Another filter instead of this one, for a subscriber whose call has not left.
    pub fn rename_filter(&mut self, owner: usize, from: &str, wish: &Wish) {
        self.session
            .subscribing
            .rename(owner, from, wish, &mut self.out);
    }

    /// Unsubscribes: from now on these filters are not restored.
    pub fn unsubscribe(
        &mut self,
        filters: &[Rc<str>],
        properties: Properties,
        wait: Option<(Wait, Token)>,
    ) {
        let order = self.next_order();
        for filter in filters {
            self.session.subscribing.forget(filter);
        }
        self.session
            .unsubscribing
            .unsubscribe(filters, properties, wait, order, &mut self.out);
    }

    /// A subscriber is gone, and nobody else has these filters. Those that the broker cannot have are
    /// forgotten, so that calls which time out offline do not pile up; the others are unsubscribed.
    pub fn end_subscriber(&mut self, owner: usize, ended: &[Rc<str>]) {
        let session = &mut self.session;
        let withdrawn = session.subscribing.withdraw(owner, &mut self.out);
        let (subscribing, unsubscribing) = (&session.subscribing, &session.unsubscribing);
        // From an earlier process. Of a session without a store it is not known.
        let is_old = |filter: &str| {
            let unknown = self.config.session == SessionMode::Resume && !self.config.stored;
            unknown || session.inheritance.has(filter)
        };
        for filter in withdrawn {
            if !is_old(&filter) && !unsubscribing.names(&filter) {
                subscribing.unstore(&filter, &mut self.out);
            }
        }
        let to_end = |filter: &&Rc<str>| {
            subscribing.was_asked_for(filter) || (is_old(filter) && !unsubscribing.names(filter))
        };
        let filters: Vec<Rc<str>> = ended.iter().filter(to_end).cloned().collect();
        if !filters.is_empty() {
            self.unsubscribe(&filters, Properties::new(), None);
        }
    }

    /// Asks the broker whether it answers.
    ///
    /// # Errors
    /// There is no connection.
    pub fn ping(&mut self, token: Token) -> Result<(), Error> {
        match &mut self.link {
            Link::Online(online) => {
                online.ping.ping(token, &mut self.out);
                Ok(())
            }
            Link::Offline | Link::Connecting(_) | Link::Leaving(_) => {
                Err(Error::new(ErrorKind::LinkLost, Doing::Pinging))
            }
        }
    }

    /// Leaves: DISCONNECT is the last packet of this connection.
    ///
    /// # Errors
    /// The properties make it larger than the broker accepts.
    pub fn disconnect(
        &mut self,
        reason: Reason,
        properties: PropertyList<'_>,
    ) -> Result<(), Error> {
        let online = match std::mem::replace(&mut self.link, Link::Offline) {
            Link::Online(online) => Some(online),
            Link::Connecting(_) => None,
            other @ (Link::Offline | Link::Leaving(_)) => {
                self.link = other;
                return Ok(());
            }
        };
        let ends_session = match self.config.version {
            Version::V5_0 => properties.session_expiry_interval() == Some(0),
            Version::V3_1 | Version::V3_1_1 => false,
        };
        let packet = Packet::Disconnect(Disconnect { reason, properties });
        let sent = self
            .out
            .send(&packet)
            .map_err(|error| error.while_doing(Doing::Disconnecting));
        match (&sent, online) {
            // Still connected: the caller decides what to do instead.
            (Err(_), Some(online)) => self.link = Link::Online(online),
            (_, online) => {
                self.link = Link::Leaving(online);
                // What waited for the store may not follow DISCONNECT [MQTT-3.14.4-1].
                if let Some(journal) = &mut self.out.journal {
                    journal.disconnected();
                }
            }
        }
        if ends_session && sent.is_ok() {
            self.session.opening.handle_session_ended();
            // One that has not answered has ended no session of ours: that is where the store says it is.
            if !self.session.opening.is_away() {
                self.identify();
            }
        }
        sent
    }

    /// The next broker does not share sessions with the last one: the next connection starts clean.
    pub fn forget_session(&mut self) {
        self.session.opening.forget(self.config.session);
    }

    /// The attempt after [`Protocol::forget_session`] has failed before CONNACK: the session at the last
    /// broker goes on.
    pub fn remember_session(&mut self) {
        self.session.opening.remember();
    }

    /// Speaks another version from the next connection on. If one has worked before, that starts clean: a
    /// session of one version means nothing in another.
    pub fn set_version(&mut self, version: Version) {
        if version != self.config.version {
            self.config.version = version;
            self.session.opening.version_changed(self.config.session);
        }
    }

    /// Nothing will be sent or received any more: every wait ends.
    pub fn close(&mut self) {
        self.end_link(End::Otherwise, &ErrorKind::Closed);
        let session = &mut self.session;
        let closed = Error::closed(Doing::Publishing);
        session.line.fail(&closed, &mut self.out);
        session.line_qos0.fail(&closed, &mut self.out);
        session.publish_qos0.close(&mut self.out);
        session.publish_out.close(&mut self.out);
        session.subscribing.requests.close(&mut self.out);
        session.unsubscribing.requests.close(&mut self.out);
    }

    pub(super) fn accept(
        &mut self,
        message: Message,
        wait: Option<(Wait, Token)>,
        expires: Expiry,
    ) {
        match message.quality_of_service() {
            Qos::AtMostOnce => {
                let outgoing = Outgoing {
                    topic: message.topic(),
                    payload: message.shared_payload(),
                    properties: message.property_list(),
                    retain: message.is_retained(),
                };
                self.session
                    .publish_qos0
                    .accept(outgoing, wait.map(|(_, token)| token), expires);
            }
            Qos::AtLeastOnce | Qos::ExactlyOnce => {
                self.session.publish_out.accept(message, wait, expires)
            }
        }
    }

    fn next_order(&mut self) -> u64 {
        let order = self.session.next_order;
        self.session.next_order += 1;
        order
    }

    /// What is known to be impossible now is an error of the call.
    fn check(&self, qos: Qos, retain: bool, size: usize) -> Result<(), Error> {
        let limit = match &self.link {
            Link::Online(online) => {
                check(qos, retain, &online.limits)?;
                online.limits.maximum_packet_size
            }
            Link::Offline | Link::Connecting(_) | Link::Leaving(_) => {
                if qos == Qos::AtMostOnce && !self.config.keep_qos0_offline {
                    return Err(Error::new(ErrorKind::LinkLost, Doing::Publishing));
                }
                LARGEST
            }
        };
        if size > limit {
            let kind = ErrorKind::TooLarge { size, limit };
            return Err(Error::new(kind, Doing::Publishing));
        }
        Ok(())
    }

    fn check_whole(&self, message: &Message) -> Result<(), Error> {
        let version = self.config.version;
        check_properties(version, message.property_list())?;
        let size = size_of(version, message);
        self.check(message.quality_of_service(), message.is_retained(), size)
    }
}
