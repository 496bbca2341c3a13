//! The data types of the wire (MQTT 5, section 1.5).
