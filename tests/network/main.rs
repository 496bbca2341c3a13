//! What lies between a client and its broker, in real parts: TLS, WebSockets, proxies, bad networks.
//! The programs of mosquitto, microsocks, tinyproxy and openssl have to be installed.
#![cfg(all(unix, feature = "tls"))]

// Parts that the tests are made of.
#[path = "../mosquitto/broker.rs"]
mod broker;
mod front;
#[path = "../mosquitto/ground.rs"]
mod ground;
mod listening;
mod peers;
mod pki;
mod process;
mod proxies;
mod relay;
mod site;
#[path = "../mosquitto/world.rs"]
mod world;

// Tests.
mod cuts;
mod failures;
mod ladder;
mod parts;
mod relayed;
mod schemes;
mod through;
mod tls;
