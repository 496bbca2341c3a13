//! What the fuzz targets in `fuzz/` do with one input, here so that the tests do the same.

mod application;
mod connected;
mod decoder;
mod fair;
mod input;
mod observer;
mod packets;
mod rig;

/// Panics if something is wrong with these bytes.
type Target = fn(&[u8]);

/// Each target by its name.
pub(crate) const TARGETS: [(&str, Target); 3] = [
    ("decoder", decoder::run),
    ("connected", connected::run),
    ("packets", packets::run),
];
