//! What the broker has seen: counts, messages, packets, and where a client broke the rules.

use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use crate::codec::{Frame, Publish, Split, split};
use crate::error::Violation;
use crate::message::Qos;
use crate::properties::{Properties, PropertyList};

use super::broker::LinkId;
use super::options::Recording;
use super::script::Direction;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// The kind of a packet; its number is the one on the wire (MQTT 5, section 2.1.2).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(clippy::exhaustive_enums, reason = "four bits hold no more")]
        pub enum Kind {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Kind {
            /// The kind of the packet that begins with this byte; none for the reserved number 0.
            pub const fn of(first: u8) -> Option<Self> {
                match first >> 4 {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Its name in the standard.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// CONNECT.
    Connect = 1, "CONNECT";
    /// CONNACK.
    Connack = 2, "CONNACK";
    /// PUBLISH.
    Publish = 3, "PUBLISH";
    /// PUBACK.
    Puback = 4, "PUBACK";
    /// PUBREC.
    Pubrec = 5, "PUBREC";
    /// PUBREL.
    Pubrel = 6, "PUBREL";
    /// PUBCOMP.
    Pubcomp = 7, "PUBCOMP";
    /// SUBSCRIBE.
    Subscribe = 8, "SUBSCRIBE";
    /// SUBACK.
    Suback = 9, "SUBACK";
    /// UNSUBSCRIBE.
    Unsubscribe = 10, "UNSUBSCRIBE";
    /// UNSUBACK.
    Unsuback = 11, "UNSUBACK";
    /// PINGREQ.
    Pingreq = 12, "PINGREQ";
    /// PINGRESP.
    Pingresp = 13, "PINGRESP";
    /// DISCONNECT.
    Disconnect = 14, "DISCONNECT";
    /// AUTH.
    Auth = 15, "AUTH";
}

/// A message that a client published and the broker took.
#[derive(Debug, Clone)]
pub struct Received {
    client: Rc<str>,
    topic: Rc<str>,
    payload: Vec<u8>,
    qos: Qos,
    retain: bool,
    dup: bool,
    properties: Properties,
}

impl Received {
    /// The client identifier of its sender.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// The topic, an alias resolved.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The quality of service.
    pub fn qos(&self) -> Qos {
        self.qos
    }

    /// Whether it was sent to be retained.
    pub fn is_retained(&self) -> bool {
        self.retain
    }

    /// Whether it was marked as sent before.
    pub fn is_duplicate(&self) -> bool {
        self.dup
    }

    /// The properties as they came.
    pub fn property_list(&self) -> PropertyList<'_> {
        self.properties.list()
    }
}

/// One packet that crossed a link, as bytes.
#[derive(Clone)]
pub struct LoggedPacket {
    at: Instant,
    link: LinkId,
    direction: Direction,
    kind: Kind,
    bytes: Vec<u8>,
}

impl LoggedPacket {
    /// When it came, or was handed to the transport.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// On which link.
    pub fn link(&self) -> LinkId {
        self.link
    }

    /// Which way.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Of which kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The whole packet.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for LoggedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = match self.direction {
            Direction::In => "->",
            Direction::Out => "<-",
        };
        write!(f, "{:?} {arrow} {}", self.link, self.kind.name())?;
        for byte in &self.bytes {
            write!(f, " {byte:02x}")?;
        }
        Ok(())
    }
}

/// The broker's memory of what happened; only counts if the options say so.
#[derive(Debug)]
pub(super) struct Record {
    recording: Recording,
    pub(super) received: [u64; 3],
    pub(super) connects: u64,
    pub(super) packets_in: u64,
    pub(super) messages: Vec<Received>,
    pub(super) packets: Vec<LoggedPacket>,
    pub(super) violations: Vec<(LinkId, Violation)>,
}

impl Record {
    pub(super) fn new(recording: Recording) -> Self {
        Self {
            recording,
            received: [0; 3],
            connects: 0,
            packets_in: 0,
            messages: Vec::new(),
            packets: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Whether anybody wants to see the packets one by one.
    pub(super) fn keeps_everything(&self) -> bool {
        self.recording == Recording::Everything
    }

    pub(super) fn packet(&mut self, at: Instant, link: LinkId, direction: Direction, bytes: &[u8]) {
        if direction == Direction::In {
            self.packets_in += 1;
        }
        let Some(kind) = bytes.first().and_then(|first| Kind::of(*first)) else {
            return;
        };
        if self.keeps_everything() {
            self.packets.push(LoggedPacket {
                at,
                link,
                direction,
                kind,
                bytes: bytes.to_vec(),
            });
        }
    }

    pub(super) fn message(&mut self, client: &Rc<str>, topic: &str, publish: &Publish<'_>) {
        let index = usize::from(publish.qos.bits());
        self.received[index] += 1;
        if self.keeps_everything() {
            self.messages.push(Received {
                client: Rc::clone(client),
                topic: topic.into(),
                payload: publish.payload.to_vec(),
                qos: publish.qos,
                retain: publish.retain,
                dup: publish.dup,
                properties: publish.properties.into(),
            });
        }
    }

    /// Forgets what was kept and begins to count from 0.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.recording);
    }
}

/// The packets in `bytes`, each whole and as a frame; ends at the first thing that is not a packet.
pub(super) fn packets(bytes: &[u8]) -> impl Iterator<Item = (&[u8], Frame<'_>)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let Ok(Split::Whole { frame, size }) = split(rest) else {
            return None;
        };
        let (packet, tail) = rest.split_at_checked(size)?;
        rest = tail;
        Some((packet, frame))
    })
}
