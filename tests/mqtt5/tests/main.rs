//! Against the broker of the mqtt5 crate, in this process: a second broker that we did not write, and one
//! that knows SCRAM.

mod broker;
#[path = "../../mosquitto/every_property.rs"]
mod every_property;
#[path = "../../mosquitto/ground.rs"]
#[allow(
    dead_code,
    reason = "shared with tests/mosquitto, which has programs to find"
)]
mod ground;
mod properties;
mod scram;
#[path = "../../mosquitto/world.rs"]
#[allow(
    dead_code,
    reason = "shared with tests/mosquitto, which uses all of it"
)]
mod world;
