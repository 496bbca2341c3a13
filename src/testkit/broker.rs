//! The core of the broker: bytes and instants in, bytes and deadlines out.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use crate::codec::{Frame, Split, split};
use crate::error::Violation;
use crate::message::Message;
use crate::reason::Reason;
use crate::version::Version;

use super::link::{Attention, Link};
use super::options::BrokerOptions;
use super::record::{Kind, Record};
use super::retained::Retained;
use super::script::{Answering, Direction, End, Plan, Rule, Script};
use super::session::Session;
use super::stored::Stored;
use super::subscriptions::{Subscriptions, Target};
use super::will::Pending;

/// One connection of a transport to the broker; never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(u64);

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}", self.0)
    }
}

/// What is left of the sessions after [`Broker::restart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a broker has them or it has not")]
pub enum Restart {
    /// Sessions that outlive their connection are still there, with their messages.
    KeepSessions,
    /// Every session is gone.
    ForgetSessions,
}

/// A broker without sockets and without a clock.
///
/// A transport calls [`Broker::open`], feeds [`Broker::handle_bytes`], writes what
/// [`Broker::take_output`] returns, closes when [`Broker::is_closed`] says so and reports every end of
/// a link with [`Broker::handle_closed`]. [`Broker::poll_attention`] names the links that have
/// something to write or to close. Time comes in with every call; [`Broker::poll_timeout`] says when
/// [`Broker::handle_timeout`] is due at the latest. [`World`] and [`Server`] do all of this.
///
/// ```
/// use coracle::testkit::{Broker, BrokerOptions, FakeClock};
/// use coracle::Clock;
///
/// let now = FakeClock::new().now();
/// let mut broker = Broker::new(BrokerOptions::new());
/// let link = broker.open();
/// broker.handle_bytes(link, now, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a");
/// assert_eq!(broker.take_output(link), [0x20, 0x02, 0x00, 0x00]);
/// assert!(broker.is_connected("a"));
/// ```
///
/// [`World`]: super::World
/// [`Server`]: super::Server
pub struct Broker {
    pub(super) options: BrokerOptions,
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) sessions: BTreeMap<Rc<str>, Session>,
    pub(super) subscriptions: Subscriptions,
    pub(super) retained: Retained,
    pub(super) pending_wills: Pending,
    pub(super) script: Script,
    pub(super) record: Record,
    pub(super) assigned: u64,
    /// Links to be ended once the packet at hand is done: their wills are routed like any message.
    pub(super) lost: Vec<LinkId>,
    /// Scratch space of the routing.
    pub(super) targets: Vec<Target>,
    pub(super) attention: VecDeque<LinkId>,
    opened: u64,
    /// Not later than anything that is due.
    earliest: Option<Instant>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("links", &self.links.len())
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker that nobody is connected to.
    pub fn new(options: BrokerOptions) -> Self {
        Self {
            record: Record::new(options.recording),
            options,
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            retained: Retained::default(),
            pending_wills: Pending::default(),
            script: Script::default(),
            assigned: 0,
            lost: Vec::new(),
            targets: Vec::new(),
            attention: VecDeque::new(),
            opened: 0,
            earliest: None,
        }
    }

    /// A transport has a new connection.
    pub fn open(&mut self) -> LinkId {
        self.opened += 1;
        let id = LinkId(self.opened);
        self.links.insert(id, Link::new());
        id
    }

    /// Bytes have come on a link. They may end anywhere within a packet.
    pub fn handle_bytes(&mut self, link: LinkId, now: Instant, bytes: &[u8]) {
        let id = link;
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.is_closed()) else {
            return;
        };
        if let Some(connection) = link.connection_mut() {
            connection.heard = now;
        }
        let mut bytes = bytes;
        let mut plan = Plan::default();
        if !self.script.is_empty() {
            let client = link.client().map(|client| &**client);
            let fired = self.script.on_bytes(Direction::In, client, bytes.len());
            if let Some((before, fired)) = fired {
                plan = fired;
                if plan.end == End::Cut {
                    bytes = bytes.get(..before).unwrap_or(bytes);
                }
            }
        }
        let mut held = std::mem::take(&mut link.inbox);
        let rest = if held.is_empty() {
            let used = self.consume(id, now, bytes);
            bytes.get(used..).unwrap_or_default().to_vec()
        } else {
            held.extend_from_slice(bytes);
            let used = self.consume(id, now, &held);
            held.drain(..used);
            held
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.inbox = rest;
        }
        if let Answering::Literal(bytes) = plan.answering {
            self.write(id, now, |out| out.extend_from_slice(&bytes));
        }
        if plan.end == End::Cut {
            self.lost.push(id);
        }
        self.settle(now);
    }

    /// The transport of a link has ended, whoever ended it.
    ///
    /// Without a DISCONNECT before it the client is lost and its will is published.
    pub fn handle_closed(&mut self, link: LinkId, now: Instant) {
        self.lost.push(link);
        self.settle(now);
        self.links.remove(&link);
    }

    /// Takes the bytes that are to be written to a link.
    pub fn take_output(&mut self, link: LinkId) -> Vec<u8> {
        self.links
            .get_mut(&link)
            .map(|link| std::mem::take(&mut link.out))
            .unwrap_or_default()
    }

    /// Appends the bytes that are to be written to a link, and keeps its own memory for the next ones.
    pub fn take_output_into(&mut self, link: LinkId, out: &mut Vec<u8>) {
        if let Some(link) = self.links.get_mut(&link) {
            out.append(&mut link.out);
        }
    }

    /// Whether the broker wants the link closed once its output is written.
    pub fn is_closed(&self, link: LinkId) -> bool {
        self.links.get(&link).is_none_or(Link::is_closed)
    }

    /// A link that has got something to write or that is to be closed since it was last named.
    pub fn poll_attention(&mut self) -> Option<LinkId> {
        loop {
            let id = self.attention.pop_front()?;
            if let Some(link) = self.links.get_mut(&id) {
                link.attention = Attention::None;
                return Some(id);
            }
        }
    }

    /// Does what is due: keep-alives, wills, the ends of sessions, answers that a rule holds back.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return;
        }
        self.earliest = None;
        self.release_delayed(now);
        self.expire(now);
        self.settle(now);
    }

    /// When [`Broker::handle_timeout`] is due; it may then turn out that there is nothing to do yet.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.earliest
    }

    /// Publishes a message of the broker's own, as if another client had sent it.
    pub fn publish(&mut self, now: Instant, message: &Message) {
        self.route(now, None, message.topic(), message.is_retained(), || {
            Stored::own(now, message)
        });
        self.settle(now);
    }

    /// Writes these bytes to a link, whatever they are.
    pub fn inject(&mut self, link: LinkId, now: Instant, bytes: &[u8]) {
        self.write(link, now, |out| out.extend_from_slice(bytes));
        self.settle(now);
    }

    /// Ends a link without a word. The will of its client is published.
    pub fn cut(&mut self, link: LinkId, now: Instant) {
        self.lost.push(link);
        self.settle(now);
    }

    /// Ends a link with a DISCONNECT of this reason; before 5.0, where there is none, without a word.
    pub fn disconnect(&mut self, link: LinkId, now: Instant, reason: Reason) {
        self.say_goodbye(link, now, reason);
        self.lost.push(link);
        self.settle(now);
    }

    /// Adds a rule to the script, behind those that are there.
    pub fn add_rule(&mut self, rule: Rule) {
        self.script.add(rule);
    }

    /// Drops all rules.
    pub fn clear_script(&mut self) {
        self.script.clear();
    }

    /// The options, to be changed for what comes next; CONNACK announces them to the next client.
    pub fn options_mut(&mut self) -> &mut BrokerOptions {
        &mut self.options
    }

    /// Reads the packets at the front of `bytes`; returns how many bytes they took.
    fn consume(&mut self, id: LinkId, now: Instant, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let (frame, size) = match split(rest) {
                Ok(Split::Header) => return used,
                Ok(Split::Partial { size, .. }) => {
                    self.check_size(id, now, size);
                    return used;
                }
                Ok(Split::Whole { frame, size }) => (frame, size),
                Err(violation) => {
                    self.violate(id, now, violation);
                    return bytes.len();
                }
            };
            if self.check_size(id, now, size) {
                let whole = rest.get(..size).unwrap_or(rest);
                self.record.packet(now, id, Direction::In, whole);
                self.handle_packet(id, now, frame, whole);
            }
            used += size;
            // What follows a DISCONNECT, a violation or a cut is not for us.
            if self.is_closed(id) || self.lost.contains(&id) {
                return bytes.len();
            }
        }
    }

    /// Refuses a packet above the Maximum Packet Size that was announced [MQTT-3.2.2-15].
    fn check_size(&mut self, id: LinkId, now: Instant, size: usize) -> bool {
        let Some(limit) = self.options.maximum_packet_size else {
            return true;
        };
        let fits = u32::try_from(size).is_ok_and(|size| size <= limit);
        // Before 5.0 there is no such limit, and a CONNECT comes before its announcement.
        if fits || self.version(id) != Some(Version::V5_0) {
            return true;
        }
        let violation = Violation::protocol("MQTT-3.2.2-15", "a packet is above the maximum size");
        self.violate(id, now, violation.with_reason(Reason::PACKET_TOO_LARGE));
        false
    }

    /// One packet has come: the script is asked what becomes of it.
    fn handle_packet(&mut self, id: LinkId, now: Instant, frame: Frame<'_>, whole: &[u8]) {
        let Some(kind) = Kind::of(frame.first) else {
            return;
        };
        let plan = if self.script.is_empty() {
            None
        } else {
            let client = self.links.get(&id).and_then(Link::client);
            self.script.on_packet(kind, client.map(|client| &**client))
        };
        match plan {
            None => self.process(id, now, frame, whole),
            Some(plan) => self.act_out(id, now, (kind, frame, whole), plan),
        }
    }

    /// Something will be due at `instant`.
    pub(super) fn arm(&mut self, instant: Instant) {
        self.earliest = Some(match self.earliest {
            Some(earliest) => earliest.min(instant),
            None => instant,
        });
    }

    pub(super) fn version(&self, id: LinkId) -> Option<Version> {
        let connection = self.links.get(&id)?.connection()?;
        Some(connection.version)
    }
}
