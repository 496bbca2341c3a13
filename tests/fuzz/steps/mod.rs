//! What the fuzz targets in `fuzz/` do with one input, here so that the tests do the same.

mod application;
mod client;
mod connected;
mod decoder;
mod fair;
mod handshake;
mod input;
mod observer;
mod packets;
mod records;
mod rig;

/// What a target does with an input. It panics if something is wrong.
pub(crate) type Step = fn(&[u8]);

/// Each target by its name.
pub(crate) const TARGETS: [(&str, Step); 6] = [
    ("decoder", decoder::run),
    ("connected", connected::run),
    ("packets", packets::run),
    ("client", client::run),
    ("handshake", handshake::run),
    ("records", records::run),
];
