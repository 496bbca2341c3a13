//! PINGREQ and PINGRESP (MQTT 5, sections 3.12 and 3.13).

/// PINGREQ, whole.
pub const PINGREQ: [u8; 2] = [super::first::PINGREQ, 0];
/// PINGRESP, whole.
pub const PINGRESP: [u8; 2] = [super::first::PINGRESP, 0];
