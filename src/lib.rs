#![doc = include_str!("../README.md")]

mod alarm;
mod answers;
mod authenticator;
mod calls;
mod client;
mod clock;
#[doc(hidden)]
pub mod codec;
mod connection;
mod deliver;
mod dialogue;
mod driver;
mod ending;
mod error;
mod event;
mod events;
mod fallback;
mod heritage;
mod keeper;
mod loose;
mod message;
mod obstacle;
mod options;
mod properties;
mod prospect;
#[doc(hidden)]
pub mod protocol;
mod queue;
mod reader;
mod reason;
mod reconnect;
mod request;
mod router;
mod routes;
mod serve;
mod shared;
mod statistics;
mod store;
mod subscription;
#[cfg(feature = "testkit")]
pub mod testkit;
mod topic;
mod transport;
mod version;
mod wait;
mod wait_for;
mod waiter;
mod when_full;

pub use authenticator::{AuthFuture, Authenticator, Exchange, Occasion};
#[cfg(feature = "auth")]
pub use authenticator::{SasToken, Scram, ScramHash};
pub use client::Client;
pub use clock::{Clock, LocalBoxFuture};
pub use driver::Driver;
/// The rustls that is inside, for [`Tls::client_config`].
#[cfg(feature = "tls")]
pub use futures_rustls::rustls;

pub use error::{Blame, Doing, Error, ErrorKind, Result, Sent, Violation};
pub use event::Event;
pub use events::Events;
#[doc(hidden)]
pub use message::PacketId;
pub use message::{Incoming, Message, Payload, Qos};
pub use obstacle::{Cause, Obstacle, Step};
pub use options::{Acknowledge, Attempt, Options, Overflow};
pub use properties::{Properties, Property, PropertyFault, PropertyList};
pub use prospect::Prospect;
pub use protocol::AuthStep;
pub use protocol::SessionMode as Session;
pub use reason::Reason;
pub use request::Requesting;
pub use serve::{Reply, Request, Service, Serving};
pub use smol::{LocalExecutor, block_on};
pub use statistics::Statistics;
#[cfg(feature = "store")]
pub use store::FileStore;
pub use store::{Batch, Change, Record, Store, StoreError, StoreErrorKind};
pub use subscription::{Filters, RetainHandling, Subscription};
pub use topic::{TopicError, matches};
#[cfg(feature = "proxy")]
pub use transport::Proxy;
pub use transport::{BoxedTransport, Connector, Endpoint, Rung, Transport};
#[cfg(feature = "tls")]
pub use transport::{Tls, TlsVersion};
#[cfg(feature = "websocket")]
pub use transport::{Upgrade, WebSocket};
pub use version::{Version, Versions};
pub use wait::Wait;
pub use wait_for::{
    Published, Publishing, PublishingMessage, Subscribing, Unpublished, Unsubscribed,
    Unsubscribing, Waiting,
};
pub use when_full::WhenFull;
