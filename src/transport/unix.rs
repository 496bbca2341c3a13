//! Unix sockets: a broker, or a gateway to one, on the same machine.

use std::io;

use super::BoxedTransport;

/// Connects to the socket at `path`.
#[cfg(unix)]
pub(super) async fn connect(path: &str) -> io::Result<BoxedTransport> {
    use std::os::unix::net::UnixStream;

    let stream = async_io::Async::<UnixStream>::connect(path).await?;
    Ok(Box::pin(super::socket::Socket(stream)))
}

/// Never called: an endpoint with this scheme is refused before.
#[cfg(not(unix))]
pub(super) async fn connect(_path: &str) -> io::Result<BoxedTransport> {
    Err(io::ErrorKind::Unsupported.into())
}
