//! Bytes to packets and back, for MQTT 3.1, 3.1.1 and 5.0: no clock, no state, no input or output.
//!
//! [`split`] finds one packet in the bytes read so far, [`decode`] reads it, borrowing from them;
//! [`Packet::encode`] and the `encode` functions of the submodules append to a buffer. One code path
//! serves all versions; where they differ a [`Version`] decides. Both directions are always there,
//! so that a test can play the broker.

#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![expect(
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    reason = "packets are closed; hidden"
)]

pub mod auth;
pub mod connect;
pub mod ping;
mod properties;
pub mod publish;
pub mod subscribe;
pub mod unsubscribe;
mod wire;

use crate::error::Violation;
use crate::version::Version;

pub use auth::Auth;
pub use connect::{Connack, Connect, Disconnect, Will};
pub use publish::{Ack, Publish};
pub use subscribe::{Suback, Subscribe};
pub use unsubscribe::{Unsuback, Unsubscribe};

/// The largest packet that the length field can express, its fixed header not counted.
pub const MAX_REMAINING: usize = 268_435_455;

/// One packet of any kind, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Connack(Connack<'a>),
    Publish(Publish<'a>),
    Puback(Ack<'a>),
    Pubrec(Ack<'a>),
    Pubrel(Ack<'a>),
    Pubcomp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Unsuback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// What [`split`] found at the front of the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Split<'a> {
    /// Not even the fixed header is complete.
    Header,
    /// The fixed header says that the packet takes `size` bytes, header included; fewer are here.
    Partial {
        first: u8,
        header: usize,
        size: usize,
    },
    /// A whole packet of `size` bytes, header included.
    Whole { frame: Frame<'a>, size: usize },
}

/// A packet whose end is known and whose content is not read yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame<'a> {
    /// Type and flags.
    pub first: u8,
    /// Everything after the fixed header.
    pub body: &'a [u8],
}

/// Finds the packet at the front of `input`. Reads the fixed header only and allocates nothing.
///
/// # Errors
/// A remaining length of more than four bytes or longer than necessary, a packet type 0, flags that
/// the packet type forbids [MQTT-2.1.3-1].
pub fn split(input: &[u8]) -> Result<Split<'_>, Violation> {
    let _ = input;
    todo!()
}

/// Reads a packet of `version`.
///
/// A CONNECT tells its own version and is read whatever `version` is.
///
/// # Errors
/// Everything that can be seen in the bytes of one packet, with the clause of the standard.
pub fn decode<'a>(version: Version, frame: Frame<'a>) -> Result<Packet<'a>, Violation> {
    let _ = (version, frame);
    todo!()
}

impl Packet<'_> {
    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// If it cannot be expressed: a text or the whole is too long. Then `out` is as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Overlong> {
        let _ = (version, out);
        todo!()
    }
}

/// A packet that the length fields of MQTT cannot express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlong {
    /// Bytes that the packet, or the text in it, would take.
    pub size: usize,
    /// Bytes that are possible.
    pub limit: usize,
}
