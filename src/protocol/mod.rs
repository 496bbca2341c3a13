//! The rules of MQTT without a clock and without a socket: instants and packets in, bytes and effects
//! out. See [`Protocol`].
//!
//! Each category of packets is one machine in one file; this file only composes them. Two tables are
//! kept apart: [`Session`] outlives connections, [`Online`] is made at CONNACK and dropped with its
//! connection.

mod config;
mod connect;
mod effect;
mod inbound;
mod line;
mod outbox;
mod packet_id;
mod ping;
mod publish_in;
mod publish_out;
mod publish_qos0;
mod subscribe;
mod unsubscribe;

use std::rc::Rc;
use std::time::Instant;

pub use config::{Config, SessionMode};
pub use connect::{Continuity, Credentials, Limits};
pub use effect::{Asked, Done, Effect, Grant, Token};
pub use inbound::{Delivery, Step};
pub use outbox::Chunk;
pub use publish_in::Receipt;
pub use publish_qos0::Outgoing;
pub use subscribe::Subscription;

use connect::{Handshake, Opening};
use line::Line;
use outbox::{OnFlush, Outbox};
use packet_id::{Owner, PacketIds};
use ping::Ping;
use publish_in::{Ledger, PublishIn};
use publish_out::{PublishOut, Window};
use publish_qos0::PublishQos0;
use subscribe::Subscribing;
use unsubscribe::Unsubscribing;

use crate::codec::{Disconnect, Packet, Publish};
use crate::error::{Doing, Error, ErrorKind, Sent};
use crate::message::{Message, Qos};
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::version::Version;
use crate::wait::Wait;

/// One MQTT client without its socket.
///
/// There are four kinds of methods, and a driver calls them like this:
///
/// - **Getters** may be called at any time.
/// - **Commands** (`publish`, `subscribe`, …) come from the application, at any time.
/// - **`handle_*`** and [`Protocol::connect`] bring what the network and the clock say. Time never
///   runs backwards.
/// - **`poll_*`** give out what became of it: bytes with [`Protocol::poll_chunk`], effects with
///   [`Protocol::poll_effect`], and with [`Protocol::poll_timeout`] the instant at which
///   [`Protocol::handle_timeout`] wants to be called.
///
/// After any of the middle two the driver calls [`Protocol::pump`], then polls until nothing comes.
/// No method waits, reads a clock, or calls anyone.
#[derive(Debug)]
pub struct Protocol {
    config: Config,
    session: Session,
    link: Link,
    out: Outbox,
}

/// What outlives connections.
#[derive(Debug)]
struct Session {
    opening: Opening,
    ids: PacketIds,
    publish_qos0: PublishQos0,
    publish_out: PublishOut,
    publish_in: PublishIn,
    subscribing: Subscribing,
    unsubscribing: Unsubscribing,
    /// Callers who wait for room, per class of message.
    line_qos0: Line,
    line: Line,
    /// The place of the next subscribe or unsubscribe in their common order; 0 is for restoring.
    next_order: u64,
}

/// ```text
///             connect()              CONNACK              disconnect(), or a violation
///     Offline ─────────► Connecting ─────────► Online ───────────────────────────────► Leaving
///        ▲                    │                   │                                       │
///        └────────────────────┴───────────────────┴──────── disconnected() ───────────────┘
/// ```
#[derive(Debug)]
enum Link {
    Offline,
    /// CONNECT is sent.
    Connecting(Handshake),
    Online(Box<Online>),
    /// DISCONNECT is sent, and nothing after it [MQTT-3.14.4-1]. The tables of the connection are kept
    /// until it ends.
    Leaving(Option<Box<Online>>),
}

/// What belongs to one connection.
#[derive(Debug)]
struct Online {
    limits: Limits,
    ping: Ping,
    window: Window,
    ledger: Ledger,
    /// Since when the transport has taken no byte although there are some.
    stalled: Option<Instant>,
    /// Bytes of a packet above the limit that are still to be dropped.
    skip: usize,
}

/// What became of a publish.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "hidden")]
pub enum Accepted {
    /// It will be sent.
    Yes,
    /// It waits for room at this place of the line of its class.
    Parked(u64),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "hidden")]
pub enum End {
    /// The broker closed it in order.
    ByBroker,
    /// Anything else: the network, a timeout, ourselves.
    Otherwise,
}

impl Protocol {
    /// A client that has never been connected.
    pub fn new(config: Config) -> Self {
        let out = Outbox::new(config.version);
        let session = Session {
            opening: Opening::new(),
            ids: PacketIds::default(),
            publish_qos0: PublishQos0::default(),
            publish_out: PublishOut::default(),
            publish_in: PublishIn::default(),
            subscribing: Subscribing::default(),
            unsubscribing: Unsubscribing::default(),
            line_qos0: Line::default(),
            line: Line::default(),
            next_order: 1,
        };
        Self {
            config,
            session,
            link: Link::Offline,
            out,
        }
    }

    // Getters.

    /// Whether CONNACK came and the connection goes on.
    pub fn is_online(&self) -> bool {
        matches!(self.link, Link::Online(_))
    }

    /// Whether DISCONNECT is sent and nothing may follow it.
    pub fn is_leaving(&self) -> bool {
        matches!(self.link, Link::Leaving(_))
    }

    /// What the broker announced, while there is a connection.
    pub fn limits(&self) -> Option<&Limits> {
        match &self.link {
            Link::Online(online) => Some(&online.limits),
            Link::Offline | Link::Connecting(_) | Link::Leaving(_) => None,
        }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The client identifier in use: the one given, or the one that the broker assigned.
    pub fn client_id(&self) -> &str {
        self.session.opening.client_id(&self.config)
    }

    /// QoS 1 and 2 messages that are not finished; those in line are not counted.
    pub fn unfinished(&self) -> usize {
        self.session.publish_out.len()
    }

    /// QoS 0 messages that were not handed to the transport's buffer.
    pub fn pending_qos0(&self) -> usize {
        self.session.publish_qos0.len()
    }

    /// Whether everything accepted is sent and acknowledged.
    pub fn is_drained(&self) -> bool {
        let session = &self.session;
        session.publish_out.is_empty()
            && session.publish_qos0.is_empty()
            && session.line.is_empty()
            && session.line_qos0.is_empty()
            && !session.subscribing.is_busy()
            && !session.unsubscribing.is_busy()
            && self.out.unsent() == 0
            && !self.out.needs_flush()
    }

    /// Bytes that the transport has not taken.
    pub fn unsent(&self) -> usize {
        self.out.unsent()
    }

    /// How many more QoS 1 and 2 messages may be under way now.
    pub fn credit(&self) -> usize {
        match &self.link {
            Link::Online(online) => online.window.credit(),
            Link::Offline | Link::Connecting(_) | Link::Leaving(_) => 0,
        }
    }

    /// Whether a message of any QoS would be accepted at once.
    pub fn has_room(&self) -> bool {
        self.room_qos0() && self.room()
    }

    fn room_qos0(&self) -> bool {
        self.session.line_qos0.is_empty()
            && self.session.publish_qos0.bytes() < self.config.queue_bytes
    }

    fn room(&self) -> bool {
        self.session.line.is_empty() && self.session.publish_out.bytes() < self.config.queue_bytes
    }

    // Commands.

    /// Publishes at QoS 0, borrowing from the caller. Only without a line and with room; else see
    /// [`Protocol::publish`].
    ///
    /// # Errors
    /// The broker's limits forbid it; the queue is full; there is no link and nothing is kept.
    #[inline]
    pub fn publish_qos0(
        &mut self,
        outgoing: Outgoing<'_>,
        wait: Option<Token>,
    ) -> Result<(), Error> {
        if let Link::Online(online) = &self.link
            && self.session.publish_qos0.is_empty()
            && self.session.line_qos0.is_empty()
            && self.out.has_room()
        {
            return PublishQos0::send(&outgoing, wait, &online.limits, &mut self.out);
        }
        let size = outgoing.topic.len() + outgoing.payload.as_bytes().len();
        self.check(Qos::AtMostOnce, outgoing.retain, size)?;
        if !self.room_qos0() {
            return Err(Error::new(ErrorKind::QueueFull, Doing::Publishing));
        }
        self.session.publish_qos0.accept(outgoing, wait);
        Ok(())
    }

    /// Publishes a message, or parks it if there is no room and its caller waits.
    ///
    /// # Errors
    /// The broker's limits forbid it; the queue is full and nobody waits; QoS 0 without a link if
    /// nothing is kept. The message comes back.
    pub fn publish(
        &mut self,
        message: Message,
        wait: Option<(Wait, Token)>,
    ) -> Result<Accepted, (Message, Error)> {
        let qos = message.quality_of_service();
        if let Err(error) = self.check_whole(&message) {
            return Err((message, error));
        }
        let room = match qos {
            Qos::AtMostOnce => self.room_qos0(),
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.room(),
        };
        if room {
            self.accept(message, wait);
            return Ok(Accepted::Yes);
        }
        let Some((wait, token)) = wait else {
            return Err((message, Error::new(ErrorKind::QueueFull, Doing::Publishing)));
        };
        let line = match qos {
            Qos::AtMostOnce => &mut self.session.line_qos0,
            Qos::AtLeastOnce | Qos::ExactlyOnce => &mut self.session.line,
        };
        Ok(Accepted::Parked(line.park(message, wait, token)))
    }

    /// A caller in line gives up. Returns its message if it was still there: it is never sent.
    pub fn withdraw(&mut self, qos: Qos, place: u64) -> Option<Message> {
        match qos {
            Qos::AtMostOnce => self.session.line_qos0.withdraw(place),
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.session.line.withdraw(place),
        }
    }

    /// Subscribes. Effects tell what became of it.
    pub fn subscribe(&mut self, subscription: Subscription) {
        let order = self.next_order();
        self.session.subscribing.subscribe(subscription, order);
    }

    /// Unsubscribes: from now on these filters are not restored.
    pub fn unsubscribe(&mut self, filters: &[Rc<str>], wait: Option<(Wait, Token)>) {
        for filter in filters {
            self.session.subscribing.forget(filter);
        }
        let order = self.next_order();
        self.session.unsubscribing.unsubscribe(filters, wait, order);
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
            (_, online) => self.link = Link::Leaving(online),
        }
        if ends_session && sent.is_ok() {
            self.session.opening.handle_session_ended();
        }
        sent
    }

    /// The next broker does not share sessions with the last one: the next connection starts clean.
    pub fn forget_session(&mut self) {
        self.session.opening.forget();
    }

    /// Nothing will be sent or received any more: every wait ends.
    pub fn close(&mut self) {
        self.disconnected(End::Otherwise);
        while let Some((_, _, token)) = self.session.line.pop() {
            self.out.done(token, Err(Error::closed(Doing::Publishing)));
        }
        while let Some((_, _, token)) = self.session.line_qos0.pop() {
            self.out.done(token, Err(Error::closed(Doing::Publishing)));
        }
        self.session.publish_qos0.close(&mut self.out);
        self.session.publish_out.close(&mut self.out);
    }

    // The network and the clock.

    /// The transport is open: sends CONNECT.
    ///
    /// # Errors
    /// The credentials or the will cannot be expressed.
    pub fn connect(&mut self, now: Instant, credentials: &Credentials) -> Result<(), Error> {
        self.out.set_limits(self.config.version, usize::MAX);
        let opening = &self.session.opening;
        let handshake = opening.connect(now, &self.config, credentials, &mut self.out)?;
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
        }
        if self.out.unsent() == 0 {
            online.stalled = None;
        } else if count > 0 || online.stalled.is_none() {
            online.stalled = Some(now);
        }
    }

    /// The transport has flushed all that it took.
    pub fn handle_flushed(&mut self, now: Instant) {
        self.out.handle_flushed();
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
                        self.session.subscribing.handle_flushed(key, &mut self.out);
                    }
                    Some(Owner::Unsubscribe(key)) => {
                        self.session
                            .unsubscribing
                            .handle_flushed(key, &mut self.out);
                    }
                    // It was answered before the flush was noticed.
                    None => {}
                },
            }
        }
    }

    /// The transport has ended, or could not be opened.
    pub fn disconnected(&mut self, end: End) {
        let link = std::mem::replace(&mut self.link, Link::Offline);
        let taken = self.out.taken();
        let online = match link {
            Link::Online(online) => Some(online),
            Link::Leaving(online) => online,
            Link::Offline | Link::Connecting(_) => None,
        };
        let session = &mut self.session;
        if let Some(online) = online {
            let blame = end == End::ByBroker;
            session.publish_out.disconnected(
                &online.window,
                blame,
                &mut session.ids,
                &mut self.out,
            );
            session.publish_in.disconnected();
            session.subscribing.disconnected(&mut session.ids);
            session.unsubscribing.disconnected(&mut session.ids);
            for token in online.ping.disconnected() {
                self.out
                    .done(token, Err(Error::new(ErrorKind::LinkLost, Doing::Pinging)));
            }
        }
        for whom in self.out.disconnected() {
            // QoS 0 is not sent again, so its wait ends; the others go on across the reconnect.
            if let OnFlush::Wait { token, from } = whom {
                let sent = if from < taken { Sent::Maybe } else { Sent::No };
                let error = Error::new(ErrorKind::LinkLost, Doing::Publishing).sent_as(sent);
                self.out.done(token, Err(error));
            }
        }
    }

    /// Time has passed. Also gives what was accepted since the last call the time from which its expiry
    /// counts.
    ///
    /// # Errors
    /// The connection, or the attempt at one, has to be given up.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.session.publish_out.stamp(now);
        self.session.publish_qos0.stamp(now);
        match &mut self.link {
            Link::Offline | Link::Leaving(_) => Ok(()),
            Link::Connecting(handshake) => handshake.handle_timeout(now),
            Link::Online(online) => {
                self.session
                    .publish_in
                    .handle_timeout(now, &mut online.ledger, &mut self.out);
                if let (Some(since), Some(patience)) = (online.stalled, online.limits.keep_alive)
                    && now >= since + patience
                {
                    return Err(Error::new(ErrorKind::Silent(patience), Doing::Connected));
                }
                online.ping.handle_timeout(now, &mut self.out)
            }
        }
    }

    // What comes out.

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
            Link::Connecting(handshake) => Some(handshake.poll_timeout()),
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

    fn accept(&mut self, message: Message, wait: Option<(Wait, Token)>) {
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
                    .accept(outgoing, wait.map(|(_, token)| token));
            }
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.session.publish_out.accept(message, wait),
        }
    }

    fn next_order(&mut self) -> u64 {
        let order = self.session.next_order;
        self.session.next_order += 1;
        order
    }

    /// What is known to be impossible now is an error of the call.
    fn check(&self, qos: Qos, retain: bool, size: usize) -> Result<(), Error> {
        match &self.link {
            Link::Online(online) => {
                publish_out::check(qos, retain, &online.limits)?;
                let limit = online.limits.maximum_packet_size;
                if size > limit {
                    let kind = ErrorKind::TooLarge { size, limit };
                    return Err(Error::new(kind, Doing::Publishing));
                }
                Ok(())
            }
            Link::Offline | Link::Connecting(_) | Link::Leaving(_) => {
                if qos == Qos::AtMostOnce && !self.config.keep_qos0_offline {
                    return Err(Error::new(ErrorKind::LinkLost, Doing::Publishing));
                }
                Ok(())
            }
        }
    }

    fn check_whole(&self, message: &Message) -> Result<(), Error> {
        let qos = message.quality_of_service();
        let size = Publish {
            dup: false,
            qos,
            retain: message.is_retained(),
            topic: message.topic(),
            // Any identifier takes two bytes.
            id: (qos != Qos::AtMostOnce).then_some(crate::message::PacketId::MIN),
            properties: match self.config.version {
                Version::V5_0 => message.property_list(),
                Version::V3_1 | Version::V3_1_1 => PropertyList::EMPTY,
            },
            payload: message.payload(),
        }
        .size(self.config.version);
        self.check(qos, message.is_retained(), size)
    }
}
