//! What is said on the way to a broker, on any stream: for tests that play the other side with arbitrary
//! bytes, which no [`Connector`](super::Connector) leads to.

use std::io;

#[cfg(feature = "proxy")]
use super::proxy::Server;
#[cfg(feature = "websocket")]
use super::websocket;
use super::{BoxedTransport, Endpoint};

/// Asks for a WebSocket.
///
/// # Errors
/// As a connection that fails at this step.
#[cfg(feature = "websocket")]
pub async fn upgrade(stream: BoxedTransport, endpoint: &Endpoint) -> io::Result<BoxedTransport> {
    websocket::upgrade(stream, endpoint, "mqtt", &websocket::WebSocket::new()).await
}

/// The frames that follow it.
#[cfg(feature = "websocket")]
pub fn frames(stream: BoxedTransport, endpoint: &Endpoint) -> BoxedTransport {
    websocket::frames(stream, endpoint)
}

/// Asks the proxy of this URL to connect on.
///
/// # Errors
/// As a connection that fails at this step, and for a URL that cannot be read.
#[cfg(feature = "proxy")]
pub async fn through(
    proxy: &str,
    stream: BoxedTransport,
    endpoint: &Endpoint,
) -> io::Result<BoxedTransport> {
    let server = Server::parse(proxy).map_err(io::Error::other)?;
    server.connect_on(stream, endpoint).await
}
