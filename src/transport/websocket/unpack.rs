//! What comes from the server: frames, of which the payload of the data frames is MQTT.
//!
//! ```text
//!                 a data frame                     its payload is through
//!        ┌──────────────────────► Data(left) ─────────────────────────┐
//!      Head ◄─────────────────────────────────────────────────────────┤
//!        ├──────────────────────► Control(kind) ──────────────────────┤
//!        │        a control frame                  Ping or Pong       │
//!        │ a rule is broken, or the stream ends                       │ Close
//!        └──────────────────────► Over(end) ◄─────────────────────────┘
//! ```
//!
//! Bytes are unpacked where they stand: payload moves to the front, over the heads. So nothing is ever
//! left over, nothing is stored but a head or a control frame that is not complete, and the length that a
//! frame announces is only a number to count down. A connection layer that gathers frames, as there are
//! several, would reserve what the server announces.

use std::sync::Arc;

use soketto::Parsing;
use soketto::base::{Codec, Header, OpCode};

use super::pack::Pack;
use crate::obstacle::{Cause, Obstacle, Step};

/// The longest head of a frame, with a mask that should not be there (RFC 6455, 5.2).
const HEAD: usize = 14;

/// The longest payload of a control frame (RFC 6455, 5.5).
const CONTROL: usize = 125;

/// The codes of a Close (RFC 6455, 7.4.1).
pub(super) const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;
const TOO_BIG: u16 = 1009;

/// The receiving side.
#[derive(Debug)]
pub(super) struct Unpack {
    state: State,
    message: Message,
    /// For the text of errors.
    host: Arc<str>,
}

#[derive(Debug)]
enum State {
    /// Between frames, or within a head of which `held` bytes are here.
    Head {
        bytes: [u8; HEAD],
        held: usize,
    },
    /// Within the payload of a data frame, of which so many bytes are to come.
    Data(usize),
    /// Within the payload of a control frame, of which `held` of `size` bytes are here.
    Control {
        kind: Control,
        bytes: [u8; CONTROL],
        held: usize,
        size: usize,
    },
    Over(End),
}

impl State {
    const BETWEEN: Self = Self::Head {
        bytes: [0; HEAD],
        held: 0,
    };
}

#[derive(Debug, Clone, Copy)]
enum Control {
    Close,
    Ping,
    Pong,
}

/// Where in a message, which may be fragmented, the next data frame stands (RFC 6455, 5.4).
#[derive(Debug, Clone, Copy)]
enum Message {
    First,
    Continued,
}

/// How it ended, for this and every later read.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// As a stream of bytes ends.
    Closed,
    /// By a Close with the code of an error.
    Refused(Obstacle),
    Failed(Obstacle),
}

/// A rule that the server broke: the code for the Close, and the text for the error.
type Breach = (u16, &'static str);

impl Unpack {
    pub(super) fn new(host: Arc<str>) -> Self {
        Self {
            state: State::BETWEEN,
            message: Message::First,
            host,
        }
    }

    /// How it ended, if it did.
    pub(super) fn end(&self) -> Option<&End> {
        match &self.state {
            State::Over(end) => Some(end),
            State::Head { .. } | State::Data(_) | State::Control { .. } => None,
        }
    }

    /// The stream below has ended: fine between frames, as it is for MQTT on TCP.
    pub(super) fn handle_end(&mut self) {
        let end = match self.state {
            State::Over(_) => return,
            State::Head { held: 0, .. } => End::Closed,
            State::Head { .. } | State::Data(_) | State::Control { .. } => {
                End::Failed(self.obstacle(Cause::Ended))
            }
        };
        self.state = State::Over(end);
    }

    /// The stream below has failed.
    pub(super) fn handle_failure(&mut self, obstacle: Obstacle) {
        self.state = State::Over(End::Failed(obstacle));
    }

    /// Unpacks the bytes that came. Returns how many at their front are payload.
    pub(super) fn unpack(&mut self, bytes: &mut [u8], out: &mut Pack) -> usize {
        let mut used = 0;
        let mut payload = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            match &mut self.state {
                State::Head { bytes: head, held } => match decode(&head[..*held]) {
                    Ok(Parsing::NeedMore(_)) if rest.is_empty() => return payload,
                    // Never more than `HEAD` in sum: the codec asks for no byte behind a head.
                    Ok(Parsing::NeedMore(missing)) => used += fill(head, held, missing, rest),
                    Ok(Parsing::Done { value, offset }) => match self.begin(&value, offset) {
                        Ok(state) => self.state = state,
                        Err(breach) => self.refuse(breach, out),
                    },
                    Err(breach) => self.refuse(breach, out),
                },
                State::Data(0) => self.state = State::BETWEEN,
                State::Data(_) if rest.is_empty() => return payload,
                State::Data(left) => {
                    let count = rest.len().min(*left);
                    if payload < used {
                        bytes.copy_within(used..used + count, payload);
                    }
                    *left -= count;
                    used += count;
                    payload += count;
                }
                State::Control {
                    kind,
                    bytes: body,
                    held,
                    size,
                } if held == size => {
                    let (kind, body, size) = (*kind, *body, *size);
                    self.state = State::BETWEEN;
                    self.handle_control(kind, &body[..size], out);
                }
                State::Control { .. } if rest.is_empty() => return payload,
                State::Control {
                    bytes: body,
                    held,
                    size,
                    ..
                } => used += fill(body, held, *size - *held, rest),
                // What comes behind a Close, or behind what is not a frame, is nothing.
                State::Over(_) => return payload,
            }
        }
    }

    /// What follows a whole head of so many bytes.
    fn begin(&mut self, header: &Header, length: usize) -> Result<State, Breach> {
        let size = header.payload_len();
        if header.is_masked() {
            return Err((PROTOCOL_ERROR, "it masked a frame [RFC 6455, 5.1]"));
        }
        // The codec takes a length that is written too long, and one with its highest bit set.
        let shortest = match size {
            0..=125 => 2,
            126..=0xFFFF => 4,
            _ => 10,
        };
        if length != shortest || size as u64 > i64::MAX as u64 {
            return Err((
                PROTOCOL_ERROR,
                "it wrote the length of a frame wrongly [RFC 6455, 5.2]",
            ));
        }
        let kind = match (header.opcode(), self.message) {
            (OpCode::Binary, Message::First) | (OpCode::Continue, Message::Continued) => {
                self.message = if header.is_fin() {
                    Message::First
                } else {
                    Message::Continued
                };
                return Ok(State::Data(size));
            }
            (OpCode::Text, Message::First) => {
                return Err((UNSUPPORTED_DATA, "it sent a text frame [MQTT-6.0.0-1]"));
            }
            (OpCode::Continue, Message::First) => {
                return Err((
                    PROTOCOL_ERROR,
                    "it continued a message that it had not begun [RFC 6455, 5.4]",
                ));
            }
            (OpCode::Binary | OpCode::Text, Message::Continued) => {
                return Err((
                    PROTOCOL_ERROR,
                    "it began a message inside of another [RFC 6455, 5.4]",
                ));
            }
            (OpCode::Close, _) => Control::Close,
            (OpCode::Ping, _) => Control::Ping,
            (OpCode::Pong, _) => Control::Pong,
            (_, _) => return Err(RESERVED_OPCODE),
        };
        Ok(State::Control {
            kind,
            bytes: [0; CONTROL],
            held: 0,
            size,
        })
    }

    fn handle_control(&mut self, kind: Control, payload: &[u8], out: &mut Pack) {
        match kind {
            Control::Ping => out.answer(payload),
            // Nothing of ours is waiting for one (RFC 6455, 5.5.3).
            Control::Pong => {}
            Control::Close => self.handle_close(payload, out),
        }
    }

    /// Answers with the code that came (RFC 6455, 5.5.1), and ends.
    fn handle_close(&mut self, payload: &[u8], out: &mut Pack) {
        let (code, text) = match payload {
            [] => (None, &[][..]),
            [_] => {
                let text = "it sent a Close with half a code [RFC 6455, 5.5.1]";
                return self.refuse((PROTOCOL_ERROR, text), out);
            }
            [high, low, text @ ..] => (Some(u16::from_be_bytes([*high, *low])), text),
        };
        out.close(code.map(|code| {
            if may_be_sent(code) {
                code
            } else {
                PROTOCOL_ERROR
            }
        }));
        self.state = State::Over(match code {
            None | Some(NORMAL | GOING_AWAY) => End::Closed,
            Some(code) => {
                let mut said = format!("it closed the WebSocket with code {code}");
                if !text.is_empty() {
                    said.push_str(": ");
                    // At most 123 bytes, as a control frame is short. It may be meant for a terminal.
                    let text = String::from_utf8_lossy(text);
                    said.push_str(&text.replace(char::is_control, "\u{FFFD}"));
                }
                End::Refused(self.obstacle(Cause::Rules(said.into())))
            }
        });
    }

    /// Closes because a rule is broken.
    fn refuse(&mut self, (code, text): Breach, out: &mut Pack) {
        out.close(Some(code));
        self.state = State::Over(End::Failed(self.obstacle(Cause::Rules(text.into()))));
    }

    fn obstacle(&self, cause: Cause) -> Obstacle {
        Obstacle::new(Step::WebSocket, Arc::clone(&self.host), cause)
    }
}

const RESERVED_OPCODE: Breach = (
    PROTOCOL_ERROR,
    "it sent a frame of an unknown kind [RFC 6455, 5.2]",
);

/// Decodes a head, or says how many bytes it lacks.
fn decode(head: &[u8]) -> Result<Parsing<Header, usize>, Breach> {
    use soketto::base::Error;
    let mut codec = Codec::new();
    // Any length that the standard knows: a frame may hold more than one packet [MQTT-6.0.0-2], and
    // what is in it is measured where packets are known.
    codec.set_max_data_size(usize::MAX);
    codec.decode_header(head).map_err(|error| match error {
        Error::InvalidReservedBit(_) => (
            PROTOCOL_ERROR,
            "it set a reserved bit of a frame [RFC 6455, 5.2]",
        ),
        Error::FragmentedControl => (
            PROTOCOL_ERROR,
            "it fragmented a control frame [RFC 6455, 5.5]",
        ),
        Error::InvalidControlFrameLen => (
            PROTOCOL_ERROR,
            "it sent a control frame of more than 125 bytes [RFC 6455, 5.5]",
        ),
        Error::UnknownOpCode | Error::ReservedOpCode => RESERVED_OPCODE,
        // Only where an address is shorter than the length. There is no way around it.
        Error::PayloadTooLarge { .. } => {
            (TOO_BIG, "it sent a frame that is too large for this device")
        }
        _ => (PROTOCOL_ERROR, "it sent something that is no frame"),
    })
}

/// Moves up to `missing` bytes behind those that are held. Returns how many.
fn fill(into: &mut [u8], held: &mut usize, missing: usize, from: &[u8]) -> usize {
    let count = missing.min(from.len());
    into[*held..][..count].copy_from_slice(&from[..count]);
    *held += count;
    count
}

/// Whether a Close may carry this code (RFC 6455, 7.4): the others stand for what no Close said.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
