//! What passes in one direction of a connection: where in a packet a byte is, and which messages went by.

use coracle::Version;

use crate::fates::DIGITS;

/// Where in the bytes of its direction a connection was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In CONNECT or CONNACK, or before it.
    Opening,
    /// Within a fixed header.
    Header,
    /// Within what follows the fixed header.
    Body,
    /// Between two packets.
    Between,
}

/// A packet that has passed whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    /// The broker lets the client in, and says whether it has its session.
    Connack { present: bool },
    /// A message by its number, and its packet identifier above QoS 0.
    Publish { number: usize, id: Option<u16> },
    /// The end of the sender's half of a QoS 2 exchange: it may not publish the message again.
    Pubrel { id: u16 },
}

/// Long enough for everything that stands before the digits of a message.
const HEAD: usize = 80;

/// Finds the packets in the bytes of one direction.
#[derive(Debug)]
pub(crate) struct Framing {
    version: Version,
    /// Whole ones.
    packets: u64,
    part: Part,
    first: u8,
    /// The beginning of what follows the fixed header.
    head: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Between,
    /// The remaining length, as far as it has passed.
    Length {
        value: usize,
        shift: u32,
    },
    Body {
        left: usize,
    },
}

impl Framing {
    pub(crate) fn new(version: Version) -> Self {
        Self {
            version,
            packets: 0,
            part: Part::Between,
            first: 0,
            head: Vec::new(),
        }
    }

    /// Bytes have passed. Tells of packets that are whole now.
    pub(crate) fn pass(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Passed)) {
        while let Some((&byte, rest)) = bytes.split_first() {
            self.part = match self.part {
                Part::Between => {
                    self.first = byte;
                    self.head.clear();
                    bytes = rest;
                    Part::Length { value: 0, shift: 0 }
                }
                Part::Length { value, shift } => {
                    bytes = rest;
                    let value = value | usize::from(byte & 0x7f) << shift;
                    if byte < 0x80 {
                        Part::Body { left: value }
                    } else {
                        let shift = shift + 7;
                        Part::Length { value, shift }
                    }
                }
                Part::Body { left } => {
                    let (here, rest) = bytes.split_at(bytes.len().min(left));
                    let room = HEAD - self.head.len();
                    self.head.extend(here.iter().take(room));
                    bytes = rest;
                    Part::Body {
                        left: left - here.len(),
                    }
                }
            };
            if let Part::Body { left: 0 } = self.part {
                self.part = Part::Between;
                self.packets += 1;
                if let Some(passed) = self.passed() {
                    tell(passed);
                }
            }
        }
    }

    /// Where the next byte is.
    pub(crate) fn place(&self) -> Place {
        match (self.packets, self.part) {
            (0, _) => Place::Opening,
            (_, Part::Between) => Place::Between,
            (_, Part::Length { .. }) => Place::Header,
            (_, Part::Body { .. }) => Place::Body,
        }
    }

    /// The packet that is whole now, if it is one that matters.
    fn passed(&self) -> Option<Passed> {
        match self.first >> 4 {
            2 => {
                let [flags, reason] = self.head.first_chunk()?;
                (*reason == 0).then_some(Passed::Connack {
                    present: flags & 1 == 1,
                })
            }
            3 => self.publish(),
            6 => {
                let (id, _) = number(&self.head)?;
                Some(Passed::Pubrel { id })
            }
            _ => None,
        }
    }

    fn publish(&self) -> Option<Passed> {
        let (topic, rest) = number(&self.head)?;
        let rest = rest.get(usize::from(topic)..)?;
        let (id, rest) = match self.first >> 1 & 3 {
            0 => (None, rest),
            _ => {
                let (id, rest) = number(rest)?;
                (Some(id), rest)
            }
        };
        let payload = if self.version == Version::V5_0 {
            // The properties of these messages are shorter than 128 bytes.
            rest.get(1 + usize::from(*rest.first()?)..)?
        } else {
            rest
        };
        let digits = std::str::from_utf8(payload.get(..DIGITS)?).ok()?;
        let number = digits.parse().ok()?;
        Some(Passed::Publish { number, id })
    }
}

/// Two bytes, and what follows.
fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (two, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*two), rest))
}
