//! A small scripted broker, for tests. Not a production broker.
mod auth;
mod broker;
mod clock;
mod connect;
mod dispatch;
mod ending;
mod link;
mod options;
mod publish;
mod record;
mod retained;
mod script;
mod session;
mod statistics;
mod stored;
mod subscribe;
mod subscriptions;
mod will;

pub use broker::{Broker, LinkId, Restart};
pub use clock::FakeClock;
pub use options::{BrokerOptions, Overlap, Recording};
pub use record::{Kind, LoggedPacket, Received};
pub use script::{Direction, Rule, Then, When};
