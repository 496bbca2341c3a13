//! What the fuzz targets in `fuzz/` do with one input, here so that the tests do the same.

mod application;
mod connected;
mod decoder;
mod fair;
mod input;
mod observer;
mod packets;
mod rig;

/// Each target by its name: it panics if something is wrong.
pub(crate) const TARGETS: [(&str, fn(&[u8])); 3] = [
    ("decoder", decoder::run),
    ("connected", connected::run),
    ("packets", packets::run),
];
