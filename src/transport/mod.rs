//! How bytes reach the broker. The only folder that names a socket.

mod resolve;
pub(crate) mod tcp;

use std::fmt;
use std::io;
use std::net::Ipv6Addr;
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

/// Where the broker is: a host name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// What lies between the bytes of MQTT and the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// Nothing: plain TCP.
    Tcp,
}

impl Scheme {
    /// The names by which a URL asks for a scheme. Brokers' documentation uses either for plain TCP.
    const NAMES: [(&'static str, Self); 2] = [("mqtt", Self::Tcp), ("tcp", Self::Tcp)];

    /// Compared without regard to case, as in every URL (RFC 3986, section 3.1).
    fn parse(name: &str) -> Result<Self> {
        for (known, scheme) in Self::NAMES {
            if name.eq_ignore_ascii_case(known) {
                return Ok(scheme);
            }
        }
        let known = Self::NAMES.map(|(name, _)| name).join(" and ");
        Err(Error::misuse(format!(
            "the scheme {name:?} of the endpoint is unknown; known are {known}"
        )))
    }

    fn default_port(self) -> u16 {
        match self {
            // Registered with IANA for MQTT without TLS.
            Self::Tcp => 1883,
        }
    }
}

impl Endpoint {
    /// Reads `mqtt://host`, `mqtt://host:port` or the same with `tcp://`.
    ///
    /// The host is a name, an IPv4 address or, in brackets, an IPv6 address: `mqtt://[::1]:1884`.
    /// The scheme defaults to `mqtt`, plain TCP. The port defaults to 1883.
    ///
    /// # Errors
    /// A misuse that names what is wrong with `url`. It never repeats a password out of it.
    pub fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = match url.split_once("://") {
            Some((name, rest)) => (Scheme::parse(name)?, rest),
            None => (Scheme::Tcp, url),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        // Before any part of it is quoted: what stands there may be a password, and errors are logged.
        if authority.contains('@') {
            return Err(Error::misuse(
                "the endpoint holds a user name or a password; credentials belong into the options",
            ));
        }
        // Not quoted either: a password with a slash in it looks like a path.
        if authority.len() < rest.len() {
            return Err(Error::misuse(
                "the endpoint has a path, a query or a fragment; only a host and a port are allowed",
            ));
        }
        let (host, port) = split_port(authority)?;
        if host.is_empty() {
            return Err(Error::misuse("the host of the endpoint is empty"));
        }
        // A line end left over from a file would otherwise fail much later, in the look-up.
        if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::misuse(format!(
                "the host {host:?} of the endpoint contains a space or a control character"
            )));
        }
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => scheme.default_port(),
        };
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
        })
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

/// Takes `host:port` apart, and the brackets off an IPv6 address.
fn split_port(authority: &str) -> Result<(&str, Option<&str>)> {
    let Some(bracketed) = authority.strip_prefix('[') else {
        return match authority.split_once(':') {
            // Without brackets, `::1:1883` could be an address alone or an address and a port.
            Some((_, port)) if port.contains(':') => Err(Error::misuse(format!(
                "the endpoint {authority:?} has more than one colon; an IPv6 address stands in brackets"
            ))),
            Some((host, port)) => Ok((host, Some(port))),
            None => Ok((authority, None)),
        };
    };
    let Some((host, after)) = bracketed.split_once(']') else {
        return Err(Error::misuse(format!(
            "the endpoint {authority:?} opens a bracket and does not close it"
        )));
    };
    if !host.is_empty() && host.parse::<Ipv6Addr>().is_err() {
        return Err(Error::misuse(format!(
            "the host {host:?} of the endpoint stands in brackets and is not an IPv6 address"
        )));
    }
    match after.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if after.is_empty() => Ok((host, None)),
        None => Err(Error::misuse(format!(
            "the endpoint has {after:?} after the bracket where only a colon and a port may stand"
        ))),
    }
}

/// A port to connect to: 0 is none, and `+1883`, which `parse` would take, is not how one is written.
fn parse_port(digits: &str) -> Result<u16> {
    digits
        .parse()
        .ok()
        .filter(|port| *port != 0 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| {
            Error::misuse(format!(
                "the port {digits:?} of the endpoint is not a number from 1 to 65535"
            ))
        })
}
