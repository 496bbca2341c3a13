//! How bytes reach the broker. The only folder that names a socket.

use std::fmt;
use std::io;
use std::pin::Pin;

use futures_lite::{AsyncRead, AsyncWrite};

use crate::clock::LocalBoxFuture;
use crate::error::{Error, Result};

/// What a connection is made of: anything that reads and writes bytes in order.
pub trait Transport: AsyncRead + AsyncWrite {}

impl<T: AsyncRead + AsyncWrite + ?Sized> Transport for T {}

/// An open connection of any kind.
pub type BoxedTransport = Pin<Box<dyn Transport>>;

/// Opens connections. The door through which a user brings a transport of their own.
///
/// It is asked for every attempt anew, on the application's thread. A closure of the same shape is a
/// `Connector` too.
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

/// Where the broker is: a host name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// The port registered for MQTT without TLS.
const MQTT_PORT: u16 = 1883;

impl Endpoint {
    /// Reads `mqtt://host`, `mqtt://host:port`, `tcp://…`; an IPv6 address stands in brackets.
    ///
    /// The port defaults to 1883.
    ///
    /// # Errors
    /// A misuse that names what is wrong with `url`.
    pub fn parse(url: &str) -> Result<Self> {
        let _ = url;
        let _ = MQTT_PORT;
        todo!()
    }

    /// The host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn unused() -> Error {
    todo!()
}
