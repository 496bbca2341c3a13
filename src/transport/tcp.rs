//! Plain TCP.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Async;
use futures_lite::{AsyncRead, AsyncWrite, future};

use super::resolve::resolve;
use super::{BoxedTransport, Connector, Endpoint};
use crate::clock::{Clock, LocalBoxFuture, SystemClock};

/// How long an address may keep the next one waiting.
///
/// An unanswered SYN is repeated after 1 s and again 2 s later (RFC 6298, 2.1 and 5.5): 5 s
/// forgive two lost ones and still leave the other addresses a turn within the caller's timeout.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens plain TCP connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tcp;

impl Connector for Tcp {
    fn connect(&self, endpoint: &Endpoint) -> LocalBoxFuture<io::Result<BoxedTransport>> {
        let addresses = resolve(endpoint.host(), endpoint.port());
        Box::pin(async move {
            let socket = connect_any(&addresses.await?, &SystemClock).await?;
            Ok(Box::pin(socket) as BoxedTransport)
        })
    }
}

/// Tries one address after the other; fails as the last one did.
///
/// The last address, often the only one, has all the time that is left: nothing waits behind it, and
/// on a slow radio link an answer may well take longer than [`PATIENCE`]. Its bound is the caller's.
async fn connect_any(addresses: &[SocketAddr], clock: &dyn Clock) -> io::Result<Socket> {
    let Some((last, others)) = addresses.split_last() else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the host has no address",
        ));
    };
    for address in others {
        let bound = clock.sleep_until(clock.now() + PATIENCE);
        let attempt = future::or(connect_one(*address), async {
            bound.await;
            Err(no_answer(*address))
        });
        match attempt.await {
            Ok(socket) => return Ok(socket),
            Err(error) => log::debug!("{error}; the next address is tried"),
        }
    }
    connect_one(*last).await
}

fn no_answer(address: SocketAddr) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{address}: no answer within {PATIENCE:?}"),
    )
}

/// Connects to `address`, which also stands in the text of the error: a name often has several.
async fn connect_one(address: SocketAddr) -> io::Result<Socket> {
    Socket::connect(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

/// A connected socket.
///
/// Its reads and writes are those of [`Async`]: they try the socket first and ask the reactor only when
/// it would block. Only closing differs, which [`Async`] leaves at a flush.
#[derive(Debug)]
struct Socket(Async<TcpStream>);

impl Socket {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = Async::<TcpStream>::connect(address).await?;
        // The driver gathers what it sends into few writes itself; Nagle's algorithm would only hold
        // the last of them back until the peer's delayed acknowledgement.
        stream.get_ref().set_nodelay(true)?;
        Ok(Self(stream))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, bytes)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read_vectored(cx, slices)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    /// Ends the sending side; what the peer still sends can be read.
    ///
    /// Whoever drops a socket with unread bytes in it resets the connection, and the reset may
    /// overtake a DISCONNECT. Closing first lets the caller read to the end before it drops.
    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TCP holds nothing back in the process, so there is nothing to flush before.
        Poll::Ready(match self.0.get_ref().shutdown(Shutdown::Write) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}
