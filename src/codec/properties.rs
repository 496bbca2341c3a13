//! Which property may stand in which packet, and how often (MQTT 5, table 2-4).
