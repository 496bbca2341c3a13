//! One link: bytes that came and are not a whole packet yet, bytes that wait to leave, and what holds
//! as long as the connection.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::message::PacketId;
use crate::version::Version;

use super::auth::{Dialogue, Login};
use super::script::{Answering, End};
use super::will::Testament;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) phase: Phase,
    /// The beginning of a packet.
    pub(super) inbox: Vec<u8>,
    /// What the transport is to take.
    pub(super) out: Vec<u8>,
    pub(super) outflow: Outflow,
    pub(super) reply: Reply,
    /// Answers that a rule holds back, in the order in which they were made.
    delayed: Vec<Delayed>,
    /// Whether it stands in the broker's list of links that the transport should look at.
    pub(super) attention: Attention,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// No CONNECT has been accepted.
    Greeting,
    /// A CONNECT waits for its authentication.
    Authenticating(Dialogue),
    Connected(Box<Connection>),
    /// The broker has ended it; the transport may still take what is in `out`.
    Closed,
}

/// What leaves on a link, apart from the answers that a rule holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outflow {
    Open,
    /// CONNACK is held back until then, and nothing may overtake it.
    Corked(Instant),
    /// CONNACK was swallowed; nothing may stand in its place.
    Mute,
}

/// What becomes of the answers to the packet that is being processed.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) answering: Answering,
    pub(super) due: Option<Instant>,
}

impl Reply {
    pub(super) const OWN: Self = Self {
        answering: Answering::Own,
        due: None,
    };
}

#[derive(Debug)]
struct Delayed {
    due: Instant,
    bytes: Vec<u8>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attention {
    None,
    Wanted,
}

/// What begins with CONNACK and ends with the link.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Rc<str>,
    pub(super) version: Version,
    /// One and a half keep-alives; none if there is no keep-alive [MQTT-3.1.2-22].
    pub(super) patience: Option<Duration>,
    /// When the last byte came.
    pub(super) heard: Instant,
    pub(super) will: Option<Testament>,
    /// The client's Receive Maximum.
    pub(super) window: usize,
    /// The client's Maximum Packet Size.
    pub(super) packet_limit: usize,
    /// What the client's aliases stand for, alias 1 first.
    pub(super) aliases_in: Vec<Option<Rc<str>>>,
    pub(super) aliases_out: AliasesOut,
    /// Publications of the client that it must count as unfinished, whatever a rule did to the
    /// answer: they end when PUBACK, PUBCOMP or a refusing PUBREC leaves.
    pub(super) unfinished: BTreeSet<PacketId>,
    /// The enhanced authentication with which it began, if there was one.
    pub(super) login: Option<Login>,
}

/// The aliases that the broker uses towards the client.
#[derive(Debug)]
pub(super) struct AliasesOut {
    by_topic: BTreeMap<Rc<str>, u16>,
    limit: u16,
}

/// How a topic is named in a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    Topic,
    TopicAndAlias(u16),
    Alias(u16),
}

impl AliasesOut {
    pub(super) fn new(limit: u16) -> Self {
        Self {
            by_topic: BTreeMap::new(),
            limit,
        }
    }

    /// The first topics get the aliases; there is no eviction.
    pub(super) fn naming(&mut self, topic: &Rc<str>) -> Naming {
        if self.limit == 0 {
            return Naming::Topic;
        }
        if let Some(alias) = self.by_topic.get(topic) {
            return Naming::Alias(*alias);
        }
        let next = self.by_topic.len() + 1;
        match u16::try_from(next) {
            Ok(alias) if alias <= self.limit => {
                self.by_topic.insert(Rc::clone(topic), alias);
                Naming::TopicAndAlias(alias)
            }
            Ok(_) | Err(_) => Naming::Topic,
        }
    }
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Greeting,
            inbox: Vec::new(),
            out: Vec::new(),
            outflow: Outflow::Open,
            reply: Reply::OWN,
            delayed: Vec::new(),
            attention: Attention::None,
        }
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        match &self.phase {
            Phase::Connected(connection) => Some(connection),
            Phase::Greeting | Phase::Authenticating(_) | Phase::Closed => None,
        }
    }

    pub(super) fn connection_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.phase {
            Phase::Connected(connection) => Some(connection),
            Phase::Greeting | Phase::Authenticating(_) | Phase::Closed => None,
        }
    }

    pub(super) fn client(&self) -> Option<&Rc<str>> {
        self.connection().map(|connection| &connection.client)
    }

    pub(super) fn is_closed(&self) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::Greeting | Phase::Authenticating(_) | Phase::Connected(_) => false,
        }
    }

    pub(super) fn hold_back(&mut self, due: Instant, bytes: Vec<u8>, end: End) {
        self.delayed.push(Delayed { due, bytes, end });
    }

    pub(super) fn drop_delayed(&mut self) {
        self.delayed.clear();
    }

    /// The earliest instant at which something held back leaves.
    pub(super) fn release_at(&self) -> Option<Instant> {
        self.delayed.iter().map(|delayed| delayed.due).min()
    }

    /// What was held back until now, the earliest first.
    pub(super) fn poll_release(&mut self, now: Instant) -> Option<(Vec<u8>, End)> {
        let due = self.release_at().filter(|due| *due <= now)?;
        let index = self.delayed.iter().position(|delayed| delayed.due == due)?;
        let delayed = self.delayed.remove(index);
        Some((delayed.bytes, delayed.end))
    }
}
