//! How bytes reach the broker. The only folder that names a socket.

mod endpoint;
mod network;
#[cfg(all(feature = "testkit", any(feature = "proxy", feature = "websocket")))]
pub mod probe;
pub(crate) mod progress;
#[cfg(feature = "proxy")]
mod proxy;
mod resolve;
mod rung;
mod socket;
mod steps;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
mod unix;
#[cfg(feature = "websocket")]
mod websocket;

use std::io;
use std::pin::Pin;

use futures_lite::{AsyncRead, AsyncWrite};

use crate::clock::LocalBoxFuture;

pub use endpoint::Endpoint;
pub(crate) use network::{Network, NetworkSettings};
#[cfg(feature = "proxy")]
pub use proxy::Proxy;
pub use rung::Rung;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsVersion};
#[cfg(feature = "websocket")]
pub use websocket::{Upgrade, WebSocket};

/// What a connection is made of: anything that reads and writes bytes in order.
pub trait Transport: AsyncRead + AsyncWrite {}

impl<T: AsyncRead + AsyncWrite + ?Sized> Transport for T {}

/// An open connection of any kind.
pub type BoxedTransport = Pin<Box<dyn Transport>>;

/// Opens connections. The door through which a user brings a transport of their own.
///
/// It is asked for every attempt anew, on the application's thread. A function or a closure of the same
/// shape is a `Connector` too:
///
/// ```
/// # #[cfg(unix)]
/// # fn main() -> coracle::Result<()> {
/// use std::io;
/// use std::os::unix::net::UnixStream;
///
/// use async_io::Async;
/// use coracle::{BoxedTransport, Endpoint, LocalBoxFuture, Options};
///
/// fn through_socket(_endpoint: &Endpoint) -> LocalBoxFuture<io::Result<BoxedTransport>> {
///     Box::pin(async {
///         let stream = Async::<UnixStream>::connect("/run/broker.sock").await?;
///         Ok(Box::pin(stream) as BoxedTransport)
///     })
/// }
///
/// let options = Options::new("mqtt://broker", "pump-1")?.connector(through_socket);
/// # let _ = options; Ok(()) }
/// # #[cfg(not(unix))]
/// # fn main() {}
/// ```
pub trait Connector {
    /// Opens a connection to `endpoint`. Dropping the future gives up the attempt.
    ///
    /// # Errors
    /// Whatever the attempt failed with; the driver tells it and tries again later.
    fn connect(&self, endpoint: &Endpoint) -> LocalBoxFuture<io::Result<BoxedTransport>>;
}

impl<F> Connector for F
where
    F: Fn(&Endpoint) -> LocalBoxFuture<io::Result<BoxedTransport>>,
{
    fn connect(&self, endpoint: &Endpoint) -> LocalBoxFuture<io::Result<BoxedTransport>> {
        self(endpoint)
    }
}
