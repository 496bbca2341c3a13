//! Passes bytes on, in both directions, until one side ends.

use std::io;
use std::net::SocketAddr;
use std::net::TcpStream;

use async_io::Async;
use futures_lite::{AsyncRead, AsyncWrite, future, io as aio};

/// Connects to `target` and passes on what comes and goes.
pub(crate) async fn relay(
    client: impl AsyncRead + AsyncWrite + Unpin,
    target: SocketAddr,
) -> io::Result<()> {
    let broker = Async::<TcpStream>::connect(target).await?;
    let (mut from_client, mut to_client) = aio::split(client);
    let (mut from_broker, mut to_broker) = aio::split(broker);
    let up = aio::copy(&mut from_client, &mut to_broker);
    let down = aio::copy(&mut from_broker, &mut to_client);
    future::or(up, down).await?;
    Ok(())
}
