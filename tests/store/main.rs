//! The store in a file: on real disks, on full ones, on damaged ones, and when the power fails; and a client that
//! is killed with its session in it. mosquitto has to be installed.
#![cfg(unix)]

// Parts that the tests are made of.
#[path = "../mosquitto/broker.rs"]
#[expect(dead_code, reason = "the other tests also stop and configure it")]
mod broker;
mod device;
#[path = "../mosquitto/ground.rs"]
mod ground;
mod process;
mod table;
#[path = "../mosquitto/world.rs"]
#[expect(dead_code, reason = "the other tests also have other clients")]
mod world;

// Tests.
mod client;
mod damage;
mod faults;
mod file;
mod lives;
mod power;
mod writer;
