//! The data types of the wire (MQTT 5, section 1.5): a reader over one packet, and their writing.

use super::{MAX_REMAINING, Overlong};
use crate::error::Violation;
use crate::message::PacketId;
use crate::reason::Reason;
use crate::topic::{MAX_TEXT, TopicError};

/// The longest binary data: its length is a 16-bit number, as that of a text (MQTT 5, section 1.5.6).
const MAX_BINARY: usize = MAX_TEXT;

const CUT_OFF: Violation = Violation::malformed("MQTT5 2.1.4", "a field is cut off");

const HOLDS_NUL: Violation = Violation::malformed("MQTT-1.5.4-2", "a text holds U+0000");

/// Reads the fields of one packet in their order, borrowing from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Violation> {
        let (byte, rest) = self.rest.split_first().ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(*byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Violation> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub(super) fn id(&mut self) -> Result<PacketId, Violation> {
        // [MQTT-2.2.1-3]
        PacketId::new(self.u16()?).ok_or(Violation::protocol("MQTT-2.2.1-3", "a packet id is 0"))
    }

    /// A reason code that is one of `allowed`, or the violation of `clause`.
    pub(super) fn reason(
        &mut self,
        allowed: &[u8],
        clause: &'static str,
    ) -> Result<Reason, Violation> {
        let code = self.u8()?;
        if allowed.contains(&code) {
            return Ok(Reason::new(code));
        }
        Err(Violation::protocol(
            clause,
            "a reason code does not belong to the packet",
        ))
    }

    /// The next `length` bytes.
    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Violation> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A text of which only the encoding is checked; the caller looks for U+0000.
    #[inline]
    pub(super) fn utf8(&mut self) -> Result<&'a str, Violation> {
        // [MQTT-1.5.4-1]: also no surrogates, which UTF-8 has no form for. A byte order mark is a
        // character as any other [MQTT-1.5.4-3].
        std::str::from_utf8(self.binary()?)
            .map_err(|_| Violation::malformed("MQTT-1.5.4-1", "a text is not UTF-8"))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Violation> {
        let text = self.utf8()?;
        // [MQTT-1.5.4-2]
        if text.as_bytes().contains(&0) {
            return Err(Violation::malformed("MQTT-1.5.4-2", "a text holds U+0000"));
        }
        Ok(text)
    }

    #[inline]
    pub(super) fn variable(&mut self) -> Result<usize, Violation> {
        let (value, rest) = variable(self.rest)?.ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(value)
    }

    /// Everything that was not read yet.
    pub(super) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// The packet must be read to its end.
    pub(super) fn finish(self) -> Result<(), Violation> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Violation::malformed(
            "MQTT5 2.1.4",
            "bytes follow the last field",
        ))
    }
}

/// What a topic or filter that is not well-formed makes of its packet. U+0000 makes every text
/// malformed; the other rules are about texts that can be read.
#[cold]
pub(super) fn bad_topic(error: TopicError, what: &'static str) -> Violation {
    if error == TopicError::Nul {
        return HOLDS_NUL;
    }
    Violation::protocol(error.clause(), what)
}

/// The variable byte integer at the front of `bytes` and what follows it; none if more is needed.
#[inline]
pub(super) fn variable(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, Violation> {
    let mut value = 0;
    let mut rest = bytes;
    for shift in [0, 7, 14, 21] {
        let Some((byte, tail)) = rest.split_first() else {
            return Ok(None);
        };
        rest = tail;
        value |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1]
            if *byte == 0 && shift > 0 {
                return Err(Violation::malformed(
                    "MQTT-1.5.5-1",
                    "a length is longer than necessary",
                ));
            }
            return Ok(Some((value, rest)));
        }
    }
    Err(Violation::malformed(
        "MQTT5 1.5.5",
        "a length takes more than four bytes",
    ))
}

/// Bytes that `value` takes as a variable byte integer; at most four, larger ones are not sent.
#[inline]
pub(super) const fn variable_size(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Bytes of a packet with `remaining` bytes after its fixed header.
#[inline]
pub(super) const fn packet_size(remaining: usize) -> usize {
    remaining.saturating_add(variable_size(remaining).saturating_add(1))
}

/// Appends a variable byte integer; the caller has checked that `value` is not above
/// [`MAX_REMAINING`].
#[inline]
pub(super) fn put_variable(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        let [low, ..] = value.to_le_bytes();
        out.push(low | 0x80);
        value >>= 7;
    }
    let [low, ..] = value.to_le_bytes();
    out.push(low);
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), Overlong> {
    put_binary(out, text.as_bytes())
}

pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Overlong> {
    let length = u16::try_from(bytes.len()).map_err(|_| Overlong {
        size: bytes.len(),
        limit: MAX_BINARY,
    })?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

pub(super) fn put_id(out: &mut Vec<u8>, id: PacketId) {
    out.extend_from_slice(&id.get().to_be_bytes());
}

/// Appends a packet: its fixed header and what `body` appends.
///
/// The length stands in front of the body but is known after it, so the header is written last and
/// rotated to the front: no size is computed twice, for the price of moving a short body once.
/// PUBLISH, whose body may be long, computes its length first.
pub(super) fn packet(
    out: &mut Vec<u8>,
    first: u8,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), Overlong>,
) -> Result<(), Overlong> {
    let start = out.len();
    let written = body(out).and_then(|()| {
        let remaining = out.len().saturating_sub(start);
        check_remaining(remaining)?;
        out.push(first);
        put_variable(out, remaining);
        if let Some(packet) = out.get_mut(start..) {
            packet.rotate_left(remaining);
        }
        Ok(())
    });
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Whether the length field can say `remaining`.
#[inline]
pub(super) const fn check_remaining(remaining: usize) -> Result<(), Overlong> {
    if remaining > MAX_REMAINING {
        return Err(Overlong {
            size: remaining,
            limit: MAX_REMAINING,
        });
    }
    Ok(())
}

/// Bytes that `encode` appends, also if they are too many.
pub(super) fn encoded_size(encode: impl FnOnce(&mut Vec<u8>) -> Result<(), Overlong>) -> usize {
    let mut out = Vec::new();
    match encode(&mut out) {
        Ok(()) => out.len(),
        Err(overlong) => overlong.size,
    }
}
