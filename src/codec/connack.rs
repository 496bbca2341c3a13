//! CONNACK (MQTT 5, section 3.2).

use super::properties::{self, Place};
use super::wire::{self, Reader};
use super::{Overlong, first};
use crate::error::Violation;
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::version::Version;

/// CONNACK: the server's answer to CONNECT. The return codes of 3.x are translated to `reason`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Connack<'a> {
    /// Always false on 3.1, which has no such flag.
    pub session_present: bool,
    pub reason: Reason,
    pub properties: PropertyList<'a>,
}

/// The return codes of 3.x from 1 on, in the words of 5.0 (MQTT 3.1.1, table 3.1).
const RETURN_CODES: [Reason; 5] = [
    Reason::UNSUPPORTED_PROTOCOL_VERSION,
    Reason::CLIENT_IDENTIFIER_NOT_VALID,
    Reason::SERVER_UNAVAILABLE,
    Reason::BAD_USER_NAME_OR_PASSWORD,
    Reason::NOT_AUTHORIZED,
];

/// A return code of 3.x. Those above 5 are reserved, but brokers use them: a refusal of unknown kind.
fn reason_of_return_code(code: u8) -> Reason {
    match code.checked_sub(1) {
        None => Reason::SUCCESS,
        Some(index) => RETURN_CODES
            .get(usize::from(index))
            .copied()
            .unwrap_or(Reason::UNSPECIFIED_ERROR),
    }
}

/// The return code of 3.x for `reason`; one that it does not have becomes 0x80, which is reserved.
fn return_code_of_reason(reason: Reason) -> u8 {
    if reason == Reason::SUCCESS {
        return 0;
    }
    (1..)
        .zip(RETURN_CODES)
        .find(|(_code, known)| *known == reason)
        .map_or(Reason::UNSPECIFIED_ERROR.code(), |(code, _known)| code)
}

impl<'a> Connack<'a> {
    /// The reasons of CONNACK (MQTT 5, table 3-1).
    const REASONS: &'static [u8] = &[
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95,
        0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
    ];

    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Self, Violation> {
        // A server that speaks only 3.x refuses a CONNECT of 5.0 in its own form, which has no
        // properties (MQTT 5, section 3.1.2.2; MQTT 3.1.1, section 3.2). One that says yes in that form has not
        // looked at the level, and what follows would be 3.x too: no yes to what was asked.
        if let (Version::V5_0, &[_flags, code]) = (version, body) {
            let reason = match code {
                0 => Reason::UNSUPPORTED_PROTOCOL_VERSION,
                1..0x80 => reason_of_return_code(code),
                0x80.. => Reason::new(code),
            };
            return Ok(Self {
                session_present: false,
                reason,
                properties: PropertyList::EMPTY,
            });
        }
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        // In 3.1 the whole byte is reserved and has no meaning (MQTT 3.1, section 3.2).
        let flags = if version == Version::V3_1 { 0 } else { flags };
        // [MQTT-3.2.2-1]
        if flags > 1 {
            return Err(Violation::malformed(
                "MQTT-3.2.2-1",
                "reserved flags of CONNACK are set",
            ));
        }
        let session_present = flags == 1;
        let reason = if version == Version::V5_0 {
            // [MQTT-3.2.2-8]
            reader.reason(Self::REASONS, "MQTT-3.2.2-8")?
        } else {
            reason_of_return_code(reader.u8()?)
        };
        // [MQTT-3.2.2-6]
        if session_present && reason != Reason::SUCCESS {
            return Err(Violation::protocol(
                "MQTT-3.2.2-6",
                "a refusing CONNACK has Session Present",
            ));
        }
        let properties = properties::decode(version, &mut reader, Place::Connack)?;
        reader.finish()?;
        Ok(Self {
            session_present,
            reason,
            properties,
        })
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// As [`super::Packet::encode`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Overlong> {
        wire::packet(out, first::CONNACK, |out| {
            out.push(u8::from(self.session_present && version != Version::V3_1));
            out.push(if version == Version::V5_0 {
                self.reason.code()
            } else {
                return_code_of_reason(self.reason)
            });
            properties::encode(version, self.properties, out)
        })
    }
}
