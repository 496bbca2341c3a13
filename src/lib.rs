//! test
#![allow(dead_code)]
mod clock;
#[doc(hidden)]
#[allow(missing_docs)]
pub mod codec;
mod error;
mod message;
mod properties;
#[doc(hidden)]
pub mod protocol;
mod reason;
mod topic;
mod transport;
mod version;
mod wait;
pub use clock::{Clock, LocalBoxFuture};
pub use error::{Blame, Doing, Error, ErrorKind, Result, Sent, Violation};
pub use message::{Incoming, Message, PacketId, Payload, Qos};
pub use properties::{Properties, Property, PropertyFault, PropertyList};
pub use reason::Reason;
pub use topic::{TopicError, matches};
pub use transport::{BoxedTransport, Connector, Endpoint, Transport};
pub use version::Version;
pub use wait::Wait;
