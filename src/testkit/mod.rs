//! A small scripted broker, an in-memory network and a clock that stands still: to test programs that
//! talk MQTT. It is a test tool and not a production broker.
//!
//! There are three ways to use it, each on top of the one before:
//!
//! - [`Broker`]: bytes and instants in, bytes and deadlines out. No sockets, no tasks.
//! - [`World`]: the broker, or a [`Peer`] that a test plays by hand, on a [`Network`] and a
//!   [`FakeClock`]. Hours of keep-alives and reconnects take milliseconds, and every run is the same.
//! - [`Server`]: the broker on a TCP port of the loopback interface, in real time, for programs that
//!   are tested as a whole.
//!
//! What goes wrong is said with [`Rule`]s (refuse, ignore, swallow, delay, answer something else, cut),
//! with the options of the broker, and with the weather of the network.
//!
//! ```
//! use coracle::testkit::{BrokerOptions, Kind, Rule, Then, When, World};
//! use futures_lite::{AsyncReadExt, AsyncWriteExt};
//!
//! let world = World::new(BrokerOptions::new());
//! // The answer to the first publication is lost, and the link with it.
//! let lost = [Then::Swallow, Then::Cut];
//! world.broker(|broker, _now| broker.add_rule(Rule::new(When::Packet(Kind::Publish), lost)));
//!
//! let network = world.network();
//! let answers = world.block_on(async {
//!     let mut transport = network.open().await?;
//!     transport.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a").await?;
//!     transport.write_all(b"\x32\x06\x00\x01t\x00\x01x").await?;
//!     let mut answers = Vec::new();
//!     transport.read_to_end(&mut answers).await?;
//!     std::io::Result::Ok(answers)
//! })?;
//! assert_eq!(answers, b"\x20\x02\x00\x00");
//! world.broker(|broker, _now| {
//!     assert_eq!(broker.messages()[0].payload(), b"x");
//!     assert!(broker.violations().is_empty());
//! });
//! # std::io::Result::Ok(())
//! ```
//!
//! # In scope
//!
//! - MQTT 3.1, 3.1.1 and 5.0: sessions with queues and redelivery, QoS 0 to 2 both ways, retained
//!   messages, wills, shared subscriptions, aliases, flow control, keep-alive, message and session
//!   expiry, enhanced authentication with given challenges or played by a closure.
//! - The limits that MQTT 5 announces, enforced; where a client breaks a rule, the clause.
//! - Scripted faults at a packet, at a byte, at a time.
//! - To be a sink in benchmarks: [`Recording::Counts`] keeps nothing, and a QoS 0 message that nobody
//!   subscribes to costs no allocation.
//!
//! # Out of scope
//!
//! - TLS, WebSocket, storage, bridges, `$SYS` topics, access rules beyond a list of denied filters.
//! - Many subscriptions: they are searched one after the other.
//! - Bounds on queues and protection against hostile clients: nothing is dropped because there is too
//!   much of it.
//! - More than one thread.

mod auth;
mod broker;
mod clock;
mod connect;
mod dispatch;
mod ending;
mod far_end;
mod link;
mod memory;
mod near_end;
mod network;
mod options;
mod output;
mod peer;
mod pipe;
mod publish_in;
mod publish_out;
mod record;
mod retained;
mod script;
mod server;
mod session;
mod socket;
mod statistics;
mod stored;
mod subscribe;
mod subscriptions;
mod will;
mod world;

#[cfg(any(feature = "proxy", feature = "websocket"))]
#[doc(hidden)]
pub use crate::transport::probe;
pub use auth::AuthReply;
pub use broker::{Broker, LinkId, Restart};
pub use clock::FakeClock;
pub use memory::MemoryStore;
pub use network::{Attempt, Cut, Network};
pub use options::{BrokerOptions, Overlap, Recording};
pub use peer::Peer;
pub use record::{Kind, LoggedPacket, Received};
pub use script::{Direction, Rule, Then, When};
pub use server::Server;
pub use world::World;
