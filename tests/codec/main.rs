//! The codec against literal bytes, rule by rule, and against the laws that hold for all bytes.
//!
//! Every packet is read twice, at once and byte by byte, by the functions below.

mod auth;
mod connect;
mod laws;
mod ping;
mod properties;
mod publish;
mod subscribe;
mod unsubscribe;
mod wire;

use coracle::codec::{Frame, Packet, Split, decode, split};
use coracle::{PacketId, PropertyList, Reason, Version, Violation};

pub(crate) const ALL: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5_0];
/// The versions without properties and reasons.
pub(crate) const OLD: [Version; 2] = [Version::V3_1, Version::V3_1_1];

pub(crate) const NONE: PropertyList<'static> = PropertyList::EMPTY;

pub(crate) fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("a test uses ids above 0")
}

/// Reads the one packet that `bytes` are, at once and byte by byte.
#[track_caller]
pub(crate) fn read(version: Version, bytes: &[u8]) -> Result<Packet<'_>, Violation> {
    let at_once = frame_at_once(bytes).and_then(|frame| decode(version, frame));
    let in_bits = frame_in_bits(bytes).and_then(|frame| decode(version, frame));
    assert_eq!(at_once, in_bits, "{bytes:02X?}");
    at_once
}

#[track_caller]
fn frame_at_once(bytes: &[u8]) -> Result<Frame<'_>, Violation> {
    match split(bytes)? {
        Split::Whole { frame, size } => {
            assert_eq!(size, bytes.len(), "one packet: {bytes:02X?}");
            Ok(frame)
        }
        split => panic!("{bytes:02X?} are not whole: {split:?}"),
    }
}

#[track_caller]
fn frame_in_bits(bytes: &[u8]) -> Result<Frame<'_>, Violation> {
    let mut header_is_here = false;
    for here in 0..bytes.len() {
        match split(&bytes[..here])? {
            Split::Header => assert!(!header_is_here, "a header does not go away"),
            Split::Partial {
                first,
                header,
                size,
            } => {
                header_is_here = true;
                assert_eq!((first, size), (bytes[0], bytes.len()));
                assert!(header <= here);
            }
            Split::Whole { size, .. } => panic!("whole at {size}: {bytes:02X?}"),
        }
    }
    frame_at_once(bytes)
}

/// `packet` is written as `bytes`, and `bytes` are read as `packet`.
#[track_caller]
pub(crate) fn golden(version: Version, packet: Packet<'_>, bytes: &[u8]) {
    let mut out = b"before".to_vec();
    packet
        .encode(version, &mut out)
        .expect("it is not too long");
    let written = out.strip_prefix(b"before").expect("encoding appends");
    assert_eq!(written, bytes, "written on {version}: {written:02X?}");
    assert_eq!(packet.size(version), bytes.len(), "size on {version}");
    assert_eq!(read(version, bytes), Ok(packet), "read on {version}");
}

/// `bytes` are read as `packet`, which is not written like this.
#[track_caller]
pub(crate) fn accepted(version: Version, bytes: &[u8], packet: Packet<'_>) {
    assert_eq!(read(version, bytes), Ok(packet), "{version}");
}

/// `bytes` break `clause`, for which MQTT 5 has `reason`.
#[track_caller]
fn broken(version: Version, bytes: &[u8], clause: &str, reason: Reason) {
    match read(version, bytes) {
        Ok(packet) => panic!("{bytes:02X?} are read on {version} as {packet:?}"),
        Err(found) => assert_eq!(
            (found.clause, found.reason),
            (clause, reason),
            "{bytes:02X?} on {version}: {found}"
        ),
    }
}

#[track_caller]
pub(crate) fn malformed(version: Version, bytes: &[u8], clause: &str) {
    broken(version, bytes, clause, Reason::MALFORMED_PACKET);
}

#[track_caller]
pub(crate) fn protocol_error(version: Version, bytes: &[u8], clause: &str) {
    broken(version, bytes, clause, Reason::PROTOCOL_ERROR);
}

#[track_caller]
pub(crate) fn refused(version: Version, bytes: &[u8], clause: &str, reason: Reason) {
    broken(version, bytes, clause, reason);
}

/// A packet of `first` and `body`, which is below 128 bytes.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 0x80, "one byte of length");
    let length = body.len() as u8;
    [&[first, length], body].concat()
}

/// On 5.0 exactly the `listed` reason codes are allowed where `bytes` puts one.
#[track_caller]
pub(crate) fn reasons_are_listed(listed: &[u8], clause: &str, bytes: impl Fn(u8) -> Vec<u8>) {
    for code in 0..=u8::MAX {
        let bytes = bytes(code);
        if listed.contains(&code) {
            assert!(read(Version::V5_0, &bytes).is_ok(), "{bytes:02X?}");
        } else {
            protocol_error(Version::V5_0, &bytes, clause);
        }
    }
}
