//! The store in a file: on real disks, on full ones, on damaged ones, and when the power fails.
#![cfg(unix)]

// Parts that the tests are made of.
mod device;
#[path = "../mosquitto/ground.rs"]
#[expect(dead_code, reason = "the other tests also need ports and programs")]
mod ground;
mod process;
mod table;

// Tests.
mod damage;
mod faults;
mod file;
mod power;
mod writer;
