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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Instant;

    use futures_lite::{AsyncReadExt, AsyncWriteExt};
    use smol::block_on;

    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback listener");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        (listener, address)
    }

    /// An address where nobody listens, nor can anybody start to.
    struct Refused {
        address: SocketAddr,
        _held: (TcpListener, TcpStream),
    }

    impl Refused {
        fn new() -> Self {
            let (listener, address) = listener();
            // The port of an outgoing connection is taken and takes no connection itself. A listener
            // closed again would do less: another test may be given its port.
            let stream = TcpStream::connect(address).expect("a connection");
            Self {
                address: stream
                    .local_addr()
                    .expect("a connected socket has an address"),
                _held: (listener, stream),
            }
        }
    }

    fn open(url: &str) -> io::Result<BoxedTransport> {
        let endpoint = Endpoint::parse(url).expect("a valid endpoint");
        block_on(Tcp.connect(&endpoint))
    }

    /// A clock on which some sleeps are over at once and the later ones last for ever.
    #[derive(Debug)]
    struct Impatient {
        short_sleeps: Cell<u32>,
        asked: Cell<u32>,
    }

    impl Impatient {
        fn new(short_sleeps: u32) -> Self {
            Self {
                short_sleeps: Cell::new(short_sleeps),
                asked: Cell::new(0),
            }
        }
    }

    impl Clock for Impatient {
        fn now(&self) -> Instant {
            SystemClock.now()
        }

        fn sleep_until(&self, deadline: Instant) -> LocalBoxFuture<()> {
            assert!(
                deadline > self.now() + PATIENCE / 2,
                "the bound is {PATIENCE:?} from now"
            );
            self.asked.set(self.asked.get() + 1);
            match self.short_sleeps.get().checked_sub(1) {
                Some(left) => {
                    self.short_sleeps.set(left);
                    Box::pin(future::ready(()))
                }
                None => Box::pin(future::pending()),
            }
        }
    }

    #[test]
    fn bytes_go_both_ways() {
        let (listener, address) = listener();
        let mut transport = open(&format!("mqtt://{address}")).expect("a connection");
        let (mut peer, _) = listener.accept().expect("the connection arrives");
        block_on(transport.write_all(&[0xC0, 0x00])).expect("a write");
        let mut bytes = [0; 2];
        peer.read_exact(&mut bytes).expect("the bytes arrive");
        assert_eq!(bytes, [0xC0, 0x00]);
        peer.write_all(&[0xD0, 0x00]).expect("a write");
        block_on(transport.read_exact(&mut bytes)).expect("the bytes arrive");
        assert_eq!(bytes, [0xD0, 0x00]);
    }

    #[test]
    fn several_slices_leave_in_one_write() {
        let (listener, address) = listener();
        let mut transport = open(&format!("tcp://{address}")).expect("a connection");
        let (mut peer, _) = listener.accept().expect("the connection arrives");
        let slices = [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")];
        let written = block_on(transport.write_vectored(&slices)).expect("a write");
        assert_eq!(written, 5);
        let mut bytes = [0; 5];
        peer.read_exact(&mut bytes).expect("the bytes arrive");
        assert_eq!(&bytes, b"hello");
    }

    #[test]
    fn a_name_is_looked_up() {
        // Wherever `localhost` points first: IPv6 is refused here, and IPv4 is tried next.
        let (listener, address) = listener();
        let transport = open(&format!("mqtt://localhost:{}", address.port()));
        assert!(transport.is_ok(), "{:?}", transport.err());
        listener.accept().expect("the connection arrives");
    }

    #[test]
    fn nagle_is_off() {
        let (_listener, address) = listener();
        let socket = block_on(connect_any(&[address], &SystemClock)).expect("a connection");
        assert!(
            socket
                .0
                .get_ref()
                .nodelay()
                .expect("an option of the socket")
        );
    }

    #[test]
    fn a_refusal_names_the_address() {
        let refused = Refused::new();
        let address = refused.address;
        let Err(error) = open(&format!("mqtt://{address}")) else {
            panic!("nobody listens at {address}");
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let text = error.to_string();
        assert!(text.starts_with(&format!("{address}: ")), "{text}");
        assert!(text.to_lowercase().contains("connection refused"), "{text}");
    }

    #[test]
    fn a_refused_address_makes_way_for_the_next() {
        let (_listener, alive) = listener();
        let (refused, clock) = (Refused::new(), Impatient::new(0));
        let addresses = [refused.address, alive];
        let socket = block_on(connect_any(&addresses, &clock)).expect("a connection");
        assert_eq!(socket.0.get_ref().peer_addr().expect("connected"), alive);
    }

    #[test]
    fn a_silent_address_makes_way_for_the_next_when_its_time_is_over() {
        // Two listeners: that the first is not the peer shows that its attempt was given up.
        let (_slow, first) = listener();
        let (_listener, second) = listener();
        let clock = Impatient::new(1);
        let socket = block_on(connect_any(&[first, second], &clock)).expect("a connection");
        assert_eq!(socket.0.get_ref().peer_addr().expect("connected"), second);
    }

    #[test]
    fn the_last_address_has_all_the_time_that_is_left() {
        let (_listener, only) = listener();
        let clock = Impatient::new(u32::MAX);
        let socket = block_on(connect_any(&[only], &clock)).expect("a connection");
        assert_eq!(socket.0.get_ref().peer_addr().expect("connected"), only);
        assert_eq!(clock.asked.get(), 0);
    }

    #[test]
    fn the_last_error_is_returned() {
        let (_slow, silent) = listener();
        let last = Refused::new();
        let error = block_on(connect_any(&[silent, last.address], &Impatient::new(1)))
            .expect_err("no address takes the connection");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(
            error
                .to_string()
                .starts_with(&format!("{}: ", last.address)),
            "{error}"
        );
    }

    #[test]
    fn a_name_without_an_address_is_an_error() {
        let error = block_on(connect_any(&[], &SystemClock)).expect_err("nothing to connect to");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_closed_transport_tells_the_peer_and_still_reads() {
        let (listener, address) = listener();
        let mut transport = open(&format!("mqtt://{address}")).expect("a connection");
        let (mut peer, _) = listener.accept().expect("the connection arrives");
        block_on(transport.write_all(&[0xE0, 0x00])).expect("a write");
        block_on(transport.close()).expect("a close");
        // Only a failing test waits for so long.
        peer.set_read_timeout(Some(Duration::from_secs(20)))
            .expect("an option of the socket");
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).expect("the end arrives");
        assert_eq!(bytes, [0xE0, 0x00]);
        peer.write_all(b"late").expect("a write");
        drop(peer);
        bytes.clear();
        block_on(transport.read_to_end(&mut bytes)).expect("the end arrives");
        assert_eq!(bytes, b"late");
        block_on(transport.close()).expect("closing what is closed");
    }
}
