//! Against mosquitto: a broker that we did not write. Its programs have to be installed.

mod auth;
mod broker;
mod credentials;
mod every_property;
mod exchange;
mod ground;
mod half_open;
mod oversize;
mod programs;
mod requests;
mod restarts;
mod routing;
mod sessions;
mod subscribing;
mod takeover;
mod wills;
mod world;
