//! What stands in a store: how the session is written as numbers and bytes, and read again.
//!
//! The first byte of a key says what it is about, the rest which one; so what belongs together lies
//! together, and messages in their order:
//!
//! ```text
//!     key    1  0            the session: whose it is, and where
//!            2  order        a message on its way out; once it is released, what is left of it
//!            3  order        the packet identifier of a message that got or lost it after it was stored
//!            4  packet id    an identifier that was given up but may not be used
//!            5  packet id    a message of QoS 2 that was taken, until the broker releases it
//!            6  order        a message that was acknowledged before it was taken
//!            7  number       a filter that the broker may know
//!
//!     value  FORMAT, then its fields in big-endian order; what has a varying length comes last
//! ```
//!
//! Nothing that is read is trusted: whatever the bytes are, they become a session or an error.

use crate::codec::Place;
use crate::codec::subscribe::FilterOptions;
use crate::message::{Message, PacketId, Payload, Qos};
use crate::properties::{MAX_VARIABLE, Properties, Property, PropertyList};
use crate::reason::Reason;
use crate::store::{Record, StoreError, StoreErrorKind};
use crate::topic::{check_filter, check_topic};
use crate::version::Version;

use super::Identifier;

/// The first byte of every value. Another form of any record gets another number.
const FORMAT: u8 = 1;

/// The last kind of a key. What is added gets the next number.
const KINDS: u64 = 7;

/// The bits of a key that say which one.
const WHICH: u64 = (1 << 56) - 1;

/// No process counts so far, and what goes on from here does not reach the kind of the key.
const LAST_ORDER: u64 = 1 << 55;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The session.
    Session,
    /// A message on its way out, by its order.
    Outgoing(u64),
    /// The identifier that it got later; none if it lost it.
    Named(u64),
    /// An identifier that was given up but may not be used.
    Burnt(PacketId),
    /// A message of QoS 2 that was taken.
    Taken(PacketId),
    /// A message that was acknowledged before it was taken, by its order.
    Kept(u64),
    /// A filter.
    Filter(u64),
}

impl Key {
    /// The number under which the store has it.
    pub fn number(self) -> u64 {
        let (kind, which) = match self {
            Self::Session => (1, 0),
            Self::Outgoing(order) => (2, order),
            Self::Named(order) => (3, order),
            Self::Burnt(id) => (4, id.get().into()),
            Self::Taken(id) => (5, id.get().into()),
            Self::Kept(order) => (6, order),
            Self::Filter(number) => (7, number),
        };
        kind << 56 | (which & WHICH)
    }

    /// What this number stands for, if it is one of ours.
    pub fn of(number: u64) -> Option<Self> {
        let which = number & WHICH;
        if which > LAST_ORDER {
            return None;
        }
        let id = || u16::try_from(which).ok().and_then(PacketId::new);
        match number >> 56 {
            1 if which == 0 => Some(Self::Session),
            2 => Some(Self::Outgoing(which)),
            3 => Some(Self::Named(which)),
            4 => id().map(Self::Burnt),
            5 => id().map(Self::Taken),
            6 => Some(Self::Kept(which)),
            7 => Some(Self::Filter(which)),
            _ => None,
        }
    }
}

/// The session: whose it is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whether the broker has it, as far as is known.
    pub at_broker: bool,
    /// The version in which it was begun.
    pub version: Version,
    /// The identifier that the program gave.
    pub client_id: String,
    /// The one that the broker chose instead.
    pub assigned: Option<String>,
    /// The broker, in the driver's words.
    pub place: String,
}

/// When a message is of no use any more, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Never.
    Never,
    /// Unknown, because the clock was not set when it was written: its time starts over.
    Unknown,
    /// Then.
    At(u64),
}

/// A message on its way out.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// It was accepted.
    Message {
        /// The identifier, if it got one at once.
        id: Option<PacketId>,
        /// When it expires.
        dies: Death,
        /// What it is.
        message: Message,
    },
    /// PUBREC came for it.
    Released {
        /// Its identifier.
        id: PacketId,
        /// Its place among the released.
        order: u64,
        /// What PUBREC said.
        reason: Reason,
    },
}

/// A filter that the broker may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The filter.
    pub filter: String,
    /// With which options it was asked for.
    pub options: FilterOptions,
    /// And with which number.
    pub identifier: Identifier,
}

/// A record, understood.
#[derive(Debug, Clone)]
pub enum Entry {
    /// See [`Key::Session`].
    Session(Identity),
    /// See [`Key::Outgoing`].
    Outgoing(u64, Outgoing),
    /// See [`Key::Named`].
    Named(u64, Option<PacketId>),
    /// See [`Key::Burnt`].
    Burnt(PacketId),
    /// See [`Key::Taken`].
    Taken(PacketId),
    /// See [`Key::Kept`].
    Kept(u64, Message),
    /// See [`Key::Filter`].
    Filter(u64, Filter),
}

/// Appends the value of [`Key::Burnt`] or [`Key::Taken`]: the key says it all.
pub(super) fn write_nothing(out: &mut Vec<u8>) {
    out.push(FORMAT);
}

/// Appends the value of [`Key::Named`].
pub(super) fn write_name(id: Option<PacketId>, out: &mut Vec<u8>) {
    out.push(FORMAT);
    out.extend_from_slice(&id.map_or(0, PacketId::get).to_be_bytes());
}

/// Appends the value of [`Key::Outgoing`] for a message.
pub(super) fn write_outgoing(
    id: Option<PacketId>,
    dies: Death,
    message: &Message,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&[FORMAT, 0]);
    out.extend_from_slice(&id.map_or(0, PacketId::get).to_be_bytes());
    let dies = match dies {
        Death::Never => 0,
        Death::Unknown => 1,
        Death::At(second) => second.max(2),
    };
    out.extend_from_slice(&dies.to_be_bytes());
    // Whether it came with DUP says nothing about how it leaves [MQTT-3.3.1-3].
    write_message(message, false, out);
}

/// Appends the value of [`Key::Outgoing`] for what is released.
pub(super) fn write_released(id: PacketId, order: u64, reason: Reason, out: &mut Vec<u8>) {
    out.extend_from_slice(&[FORMAT, 1]);
    out.extend_from_slice(&id.get().to_be_bytes());
    out.extend_from_slice(&order.to_be_bytes());
    out.push(reason.code());
}

/// Appends the value of [`Key::Kept`].
pub(super) fn write_kept(message: &Message, out: &mut Vec<u8>) {
    out.push(FORMAT);
    write_message(message, message.is_duplicate(), out);
}

fn write_message(message: &Message, dup: bool, out: &mut Vec<u8>) {
    let retain = if message.is_retained() { 4 } else { 0 };
    let dup = if dup { 8 } else { 0 };
    out.push(message.quality_of_service().bits() | retain | dup);
    write_sized(message.topic().as_bytes(), out);
    write_sized(message.property_list().as_bytes(), out);
    out.extend_from_slice(message.payload());
}

/// Appends the value of [`Key::Session`].
pub(super) fn write_identity(identity: &Identity, out: &mut Vec<u8>) {
    let assigned = identity.assigned.as_deref();
    let flags = u8::from(identity.at_broker) | u8::from(assigned.is_some()) << 1;
    out.extend_from_slice(&[FORMAT, flags, identity.version.level()]);
    write_sized(identity.client_id.as_bytes(), out);
    write_sized(assigned.unwrap_or_default().as_bytes(), out);
    write_sized(identity.place.as_bytes(), out);
}

/// Appends the value of [`Key::Filter`].
pub(super) fn write_filter(
    filter: &str,
    options: FilterOptions,
    identifier: Identifier,
    out: &mut Vec<u8>,
) {
    let (kind, number) = match identifier {
        Identifier::None => (0, 0),
        Identifier::Automatic(number) => (1, number),
        Identifier::Given(number) => (2, number),
    };
    out.extend_from_slice(&[FORMAT, options.bits(), kind]);
    out.extend_from_slice(&number.to_be_bytes());
    write_sized(filter.as_bytes(), out);
}

/// With its length in front. What is written here is far shorter than four gigabytes: MQTT has no larger
/// packet than 256 MB.
fn write_sized(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

impl Entry {
    /// Appends the value. The key is [`Entry::key`].
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Session(identity) => write_identity(identity, out),
            Self::Outgoing(_, Outgoing::Message { id, dies, message }) => {
                write_outgoing(*id, *dies, message, out);
            }
            Self::Outgoing(_, Outgoing::Released { id, order, reason }) => {
                write_released(*id, *order, *reason, out);
            }
            Self::Named(_, id) => write_name(*id, out),
            Self::Burnt(_) | Self::Taken(_) => write_nothing(out),
            Self::Kept(_, message) => write_kept(message, out),
            Self::Filter(_, filter) => {
                write_filter(&filter.filter, filter.options, filter.identifier, out);
            }
        }
    }

    /// The key.
    pub fn key(&self) -> Key {
        match self {
            Self::Session(_) => Key::Session,
            Self::Outgoing(order, _) => Key::Outgoing(*order),
            Self::Named(order, _) => Key::Named(*order),
            Self::Burnt(id) => Key::Burnt(*id),
            Self::Taken(id) => Key::Taken(*id),
            Self::Kept(order, _) => Key::Kept(*order),
            Self::Filter(number, _) => Key::Filter(*number),
        }
    }

    /// Understands a record.
    ///
    /// # Errors
    /// It is none of ours, of a later format, or damaged.
    pub fn read(record: &Record) -> Result<Self, StoreError> {
        read(record).map_err(|what| {
            let key = record.key();
            let (kind, what) = match of_newer(record) {
                // Whoever removes what is damaged would lose what the newer version can read.
                Some(what) => (StoreErrorKind::Other, what),
                None => (StoreErrorKind::Damaged, what.to_owned()),
            };
            StoreError::new(kind, format!("the record {key:#x} of the store {what}"))
        })
    }
}

/// What is unknown about a record because a newer version wrote it.
fn of_newer(record: &Record) -> Option<String> {
    let what = match record.value().first() {
        _ if record.key() >> 56 > KINDS => {
            "is of a kind that this version does not know".to_owned()
        }
        Some(format) if *format > FORMAT => {
            format!("has the format {format}, and this version knows {FORMAT}")
        }
        Some(_) | None => return None,
    };
    Some(format!("{what}: a newer version of this program wrote it"))
}

fn read(record: &Record) -> Result<Entry, &'static str> {
    let key = Key::of(record.key()).ok_or("is none of a session")?;
    let mut reader = Reader(record.value());
    if reader.u8()? != FORMAT {
        return Err("has a format that this version does not know");
    }
    let entry = match key {
        Key::Session => Entry::Session(read_identity(&mut reader)?),
        Key::Outgoing(order) => Entry::Outgoing(order, read_outgoing(&mut reader)?),
        Key::Named(order) => Entry::Named(order, PacketId::new(reader.u16()?)),
        Key::Burnt(id) => Entry::Burnt(id),
        Key::Taken(id) => Entry::Taken(id),
        Key::Kept(order) => Entry::Kept(order, read_message(&mut reader)?),
        Key::Filter(number) => Entry::Filter(number, read_filter(&mut reader)?),
    };
    if reader.0.is_empty() {
        Ok(entry)
    } else {
        Err("is too long")
    }
}

fn read_identity(reader: &mut Reader<'_>) -> Result<Identity, &'static str> {
    let flags = reader.u8()?;
    let version = match reader.u8()? {
        3 => Version::V3_1,
        4 => Version::V3_1_1,
        5 => Version::V5_0,
        _ => return Err("names an unknown version of MQTT"),
    };
    let client_id = reader.text()?.to_owned();
    let assigned = reader.text()?;
    let assigned = match flags {
        0 | 1 if assigned.is_empty() => None,
        2 | 3 if !assigned.is_empty() => Some(assigned.to_owned()),
        0..=3 => return Err("has an identifier of the broker's that cannot be"),
        _ => return Err("has unknown flags"),
    };
    Ok(Identity {
        at_broker: flags & 1 != 0,
        version,
        client_id,
        assigned,
        place: reader.text()?.to_owned(),
    })
}

fn read_outgoing(reader: &mut Reader<'_>) -> Result<Outgoing, &'static str> {
    match reader.u8()? {
        0 => {
            let id = PacketId::new(reader.u16()?);
            let dies = match reader.u64()? {
                0 => Death::Never,
                1 => Death::Unknown,
                second => Death::At(second),
            };
            let message = read_message(reader)?;
            if message.quality_of_service() == Qos::AtMostOnce {
                return Err("is no message on its way out");
            }
            Ok(Outgoing::Message {
                id,
                dies,
                message: message.duplicate(false),
            })
        }
        1 => {
            let id = reader.id()?;
            let order = reader.u64()?;
            if order > LAST_ORDER {
                return Err("has an impossible order");
            }
            let reason = Reason::new(reader.u8()?);
            Ok(Outgoing::Released { id, order, reason })
        }
        _ => Err("is at an unknown stage"),
    }
}

fn read_message(reader: &mut Reader<'_>) -> Result<Message, &'static str> {
    let flags = reader.u8()?;
    let qos = Qos::from_bits(flags & 3).filter(|_| flags & 0xF0 == 0);
    let qos = qos.ok_or("has unknown flags")?;
    let topic = reader.text()?;
    check_topic(topic).map_err(|_| "has a bad topic")?;
    let properties = read_properties(reader)?;
    let payload = std::mem::take(&mut reader.0);
    Ok(Message::new(topic, Payload::from(payload))
        .qos(qos)
        .retain(flags & 4 != 0)
        .duplicate(flags & 8 != 0)
        .properties(properties))
}

/// Before 5.0 no property is sent, so a call may give any, and they are written as they are. Another version
/// may be spoken now: those that are none of a message are left out.
fn read_properties(reader: &mut Reader<'_>) -> Result<Properties, &'static str> {
    let bytes = reader.sized()?;
    let mut rest = bytes;
    let mut stray = false;
    while !rest.is_empty() {
        let (property, behind) = Property::read(rest).map_err(|_| "has bad properties")?;
        stray |= !Place::Publish.allows(&property);
        rest = behind;
    }
    let list = PropertyList::from_checked(bytes);
    if !stray {
        return Ok(list.into());
    }
    let own = list.iter().filter(|own| Place::Publish.allows(own));
    Ok(own.fold(Properties::new(), Properties::with))
}

fn read_filter(reader: &mut Reader<'_>) -> Result<Filter, &'static str> {
    let options = FilterOptions::from_bits(reader.u8()?).ok_or("has unknown options")?;
    let kind = reader.u8()?;
    let number = reader.u32()?;
    let identifier = match (kind, number) {
        (0, 0) => Identifier::None,
        (1, 1..=MAX_VARIABLE) => Identifier::Automatic(number),
        (2, 1..=MAX_VARIABLE) => Identifier::Given(number),
        _ => return Err("has an impossible subscription identifier"),
    };
    let filter = reader.text()?;
    check_filter(filter).map_err(|_| "has a bad filter")?;
    Ok(Filter {
        filter: filter.to_owned(),
        options,
        identifier,
    })
}

/// What was not read yet.
struct Reader<'a>(&'a [u8]);

const CUT_OFF: &str = "is cut off";

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u8(&mut self) -> Result<u8, &'static str> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, &'static str> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        self.array().map(u64::from_be_bytes)
    }

    fn id(&mut self) -> Result<PacketId, &'static str> {
        PacketId::new(self.u16()?).ok_or("has the packet id 0")
    }

    fn sized(&mut self) -> Result<&'a [u8], &'static str> {
        let length = usize::try_from(self.u32()?).map_err(|_| CUT_OFF)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, &'static str> {
        std::str::from_utf8(self.sized()?).map_err(|_| "holds a text that is not UTF-8")
    }
}
