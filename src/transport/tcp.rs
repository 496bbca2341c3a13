//! Plain TCP: the addresses of a name, raced.
//!
//! The addresses are tried as in RFC 8305: IPv6 and IPv4 in turn, IPv6 first, one more every 250 ms or as
//! soon as one has failed. The first that connects wins, the others are given up.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use async_io::Async;
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};

use super::socket::Socket;
use crate::clock::{Clock, LocalBoxFuture};
use crate::obstacle::{Cause, Obstacle, Step};

/// How long an address is alone before the next one joins ("Connection Attempt Delay", RFC 8305,
/// section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// How many addresses of one name are tried. Names with more are rare, and each takes a socket.
const ADDRESSES: usize = 16;

/// What is set on each TCP socket.
#[derive(Debug, Clone, Default)]
pub(crate) struct TcpSettings {
    /// The address of this device that connections leave from.
    pub(crate) local_address: Option<IpAddr>,
    /// After how much silence the system probes the connection.
    pub(crate) keep_alive: Option<Duration>,
    /// How long what was sent may stay unacknowledged; Linux only.
    pub(crate) user_timeout: Option<Duration>,
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<Socket<TcpStream>>>>>;

/// Connects to the first of these addresses that answers; fails as the last one did.
///
/// The caller sets the limit to all of it; there is none per address, because a slow one holds nobody up.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    settings: &TcpSettings,
    clock: &dyn Clock,
) -> io::Result<Socket<TcpStream>> {
    let mut waiting = in_turn(addresses, settings);
    let mut attempts: Vec<Attempt> = Vec::new();
    // None: at once.
    let mut next_joins: Option<LocalBoxFuture<()>> = None;
    let mut last_error = no_address(addresses, settings);
    poll_fn(|cx| {
        loop {
            let mut index = 0;
            while let Some(attempt) = attempts.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(socket)) => return Poll::Ready(Ok(socket)),
                    Poll::Ready(Err(error)) => {
                        log::debug!("{error}");
                        last_error = error;
                        drop(attempts.remove(index));
                        // It holds nobody up.
                        next_joins = None;
                    }
                    Poll::Pending => index += 1,
                }
            }
            if waiting.is_empty() {
                if attempts.is_empty() {
                    let error = std::mem::replace(&mut last_error, io::ErrorKind::Other.into());
                    return Poll::Ready(Err(error));
                }
                return Poll::Pending;
            }
            if let Some(delay) = &mut next_joins
                && delay.as_mut().poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            if let Some(address) = waiting.pop_front() {
                attempts.push(Box::pin(connect_one(address, settings.clone())));
                next_joins = Some(clock.sleep_until(clock.now() + STAGGER));
            }
        }
    })
    .await
}

/// The addresses in the order in which they are tried: both families in turn, IPv6 first, each in the order
/// of the look-up (RFC 8305, section 4). From a set local address only those of its family are reached.
fn in_turn(addresses: &[SocketAddr], settings: &TcpSettings) -> VecDeque<SocketAddr> {
    let usable = |address: &&SocketAddr| {
        settings
            .local_address
            .is_none_or(|local| local.is_ipv4() == address.is_ipv4())
    };
    let (six, four): (Vec<SocketAddr>, Vec<SocketAddr>) = addresses
        .iter()
        .filter(usable)
        .copied()
        .partition(|address| address.is_ipv6());
    let mut order = VecDeque::new();
    for nth in 0..six.len().max(four.len()) {
        order.extend(six.get(nth).into_iter().chain(four.get(nth)));
    }
    order.truncate(ADDRESSES);
    order
}

fn no_address(addresses: &[SocketAddr], settings: &TcpSettings) -> io::Error {
    let text = match settings.local_address {
        Some(local) if !addresses.is_empty() => {
            format!("the name has no address that is reached from {local}")
        }
        Some(_) | None => "the name has no address".to_owned(),
    };
    io::Error::new(io::ErrorKind::NotFound, text)
}

/// Connects to `address`, which also stands in the text of the error: a name often has several.
async fn connect_one(address: SocketAddr, settings: TcpSettings) -> io::Result<Socket<TcpStream>> {
    open(address, &settings).await.map_err(|error| {
        let cause = Cause::System(error.kind(), error.to_string().into());
        Obstacle::new(Step::Tcp, address.to_string(), cause).into()
    })
}

async fn open(address: SocketAddr, settings: &TcpSettings) -> io::Result<Socket<TcpStream>> {
    let stream = match settings.local_address {
        None => Async::<TcpStream>::connect(address).await?,
        Some(local) => connect_from(local, address).await?,
    };
    // The driver gathers what it sends into few writes itself; Nagle's algorithm would only hold
    // the last of them back until the peer's delayed acknowledgement.
    stream.get_ref().set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    if let Some(silence) = settings.keep_alive {
        // Probes follow each other as closely as the first one, or every 75 s, the usual default.
        let interval = silence.min(Duration::from_secs(75));
        let probes = TcpKeepalive::new()
            .with_time(silence)
            .with_interval(interval);
        socket.set_tcp_keepalive(&probes)?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(settings.user_timeout)?;
    Ok(Socket(stream))
}

/// As `Async::connect`, from an address of our own.
async fn connect_from(local: IpAddr, address: SocketAddr) -> io::Result<Async<TcpStream>> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket
        .bind(&SocketAddr::new(local, 0).into())
        .map_err(|error| {
            io::Error::new(error.kind(), format!("the local address {local}: {error}"))
        })?;
    match socket.connect(&address.into()) {
        Err(error) if !is_under_way(&error) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let stream = Async::new_nonblocking(TcpStream::from(socket))?;
    stream.writable().await?;
    match stream.get_ref().take_error()? {
        None => Ok(stream),
        Some(error) => Err(error),
    }
}

#[cfg(unix)]
fn is_under_way(error: &io::Error) -> bool {
    // std has a kind for it, which is not stable.
    error.raw_os_error() == Some(libc::EINPROGRESS)
}

#[cfg(not(unix))]
fn is_under_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{IoSlice, Read, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Instant;

    use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
    use smol::block_on;

    use super::*;
    use crate::clock::SystemClock;

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

    /// An address that never answers: a listener whose queue is full.
    struct Silent {
        address: SocketAddr,
        _held: (socket2::Socket, Vec<TcpStream>),
    }

    impl Silent {
        fn new() -> Self {
            let listener =
                socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            listener.bind(&any.into()).expect("a free port");
            listener.listen(0).expect("a listener");
            let address = listener.local_addr().expect("it is bound");
            let address = address.as_socket().expect("an address of IPv4");
            // The system takes a few more than the queue is long, and answers no other.
            let patience = Duration::from_millis(100);
            let held = std::iter::from_fn(|| TcpStream::connect_timeout(&address, patience).ok());
            Self {
                address,
                _held: (listener, held.collect()),
            }
        }
    }

    /// A clock whose sleeps are over at once, and which remembers them.
    #[derive(Debug, Default)]
    struct Impatient(RefCell<Vec<Duration>>);

    impl Clock for Impatient {
        fn now(&self) -> Instant {
            SystemClock.now()
        }

        fn sleep_until(&self, deadline: Instant) -> LocalBoxFuture<()> {
            self.0.borrow_mut().push(deadline - self.now());
            Box::pin(future::ready(()))
        }
    }

    /// A clock whose sleeps never end.
    #[derive(Debug)]
    struct Standing;

    impl Clock for Standing {
        fn now(&self) -> Instant {
            SystemClock.now()
        }

        fn sleep_until(&self, _: Instant) -> LocalBoxFuture<()> {
            Box::pin(future::pending())
        }
    }

    fn race(addresses: &[SocketAddr], clock: &dyn Clock) -> io::Result<Socket<TcpStream>> {
        block_on(connect(addresses, &TcpSettings::default(), clock))
    }

    fn peer(socket: &Socket<TcpStream>) -> SocketAddr {
        socket.0.get_ref().peer_addr().expect("it is connected")
    }

    #[test]
    fn bytes_go_both_ways() {
        let (listener, address) = listener();
        let mut socket = race(&[address], &SystemClock).expect("a connection");
        let (mut peer, _) = listener.accept().expect("the connection arrives");
        block_on(socket.write_all(&[0xC0, 0x00])).expect("a write");
        let mut bytes = [0; 2];
        peer.read_exact(&mut bytes).expect("the bytes arrive");
        assert_eq!(bytes, [0xC0, 0x00]);
        peer.write_all(&[0xD0, 0x00]).expect("a write");
        block_on(socket.read_exact(&mut bytes)).expect("the bytes arrive");
        assert_eq!(bytes, [0xD0, 0x00]);
    }

    #[test]
    fn several_slices_leave_in_one_write() {
        let (listener, address) = listener();
        let mut socket = race(&[address], &SystemClock).expect("a connection");
        let (mut peer, _) = listener.accept().expect("the connection arrives");
        let slices = [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")];
        let written = block_on(socket.write_vectored(&slices)).expect("a write");
        assert_eq!(written, 5);
        let mut bytes = [0; 5];
        peer.read_exact(&mut bytes).expect("the bytes arrive");
        assert_eq!(&bytes, b"hello");
    }

    #[test]
    fn nagle_is_off_and_the_rest_is_the_systems() {
        let (_listener, address) = listener();
        let socket = race(&[address], &SystemClock).expect("a connection");
        assert!(socket.0.get_ref().nodelay().expect("an option"));
        assert!(!SockRef::from(&socket.0).keepalive().expect("an option"));
    }

    #[test]
    fn what_is_set_is_set_on_the_socket() {
        let (_listener, address) = listener();
        let settings = TcpSettings {
            local_address: Some(Ipv4Addr::new(127, 0, 0, 9).into()),
            keep_alive: Some(Duration::from_secs(120)),
            user_timeout: Some(Duration::from_secs(30)),
        };
        let socket = block_on(connect(&[address], &settings, &SystemClock)).expect("a connection");
        let local = socket.0.get_ref().local_addr().expect("it is connected");
        assert_eq!(local.ip(), Ipv4Addr::new(127, 0, 0, 9));
        let options = SockRef::from(&socket.0);
        assert!(options.keepalive().expect("an option"));
        let time = options.tcp_keepalive_time().expect("an option");
        assert_eq!(time, Duration::from_secs(120));
        #[cfg(target_os = "linux")]
        assert_eq!(
            options.tcp_user_timeout().expect("an option"),
            settings.user_timeout
        );
    }

    #[test]
    fn an_address_that_is_not_ours_is_named() {
        let (_listener, address) = listener();
        let settings = TcpSettings {
            local_address: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
            ..TcpSettings::default()
        };
        let Err(error) = block_on(connect(&[address], &settings, &SystemClock)) else {
            panic!("192.0.2.1 is nobody's");
        };
        let text = error.to_string();
        assert!(text.contains("the local address 192.0.2.1: "), "{text}");
    }

    #[test]
    fn a_local_address_reaches_only_its_own_family() {
        let settings = TcpSettings {
            local_address: Some(Ipv4Addr::LOCALHOST.into()),
            ..TcpSettings::default()
        };
        let six: SocketAddr = "[::1]:1".parse().expect("an address");
        let Err(error) = block_on(connect(&[six], &settings, &SystemClock)) else {
            panic!("IPv6 is not reached from IPv4");
        };
        assert_eq!(
            error.to_string(),
            "the name has no address that is reached from 127.0.0.1"
        );
    }

    #[test]
    fn the_families_take_turns_and_ipv6_begins() {
        let addresses: Vec<SocketAddr> = [
            "192.0.2.1:1",
            "192.0.2.2:1",
            "192.0.2.3:1",
            "[2001:db8::1]:1",
            "[2001:db8::2]:1",
        ]
        .iter()
        .map(|text| text.parse().expect("an address"))
        .collect();
        let order: Vec<_> = in_turn(&addresses, &TcpSettings::default())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            order,
            [
                "[2001:db8::1]:1",
                "192.0.2.1:1",
                "[2001:db8::2]:1",
                "192.0.2.2:1",
                "192.0.2.3:1",
            ]
        );
    }

    #[test]
    fn a_refusal_names_the_address() {
        let refused = Refused::new();
        let address = refused.address;
        let Err(error) = race(&[address], &SystemClock) else {
            panic!("nobody listens at {address}");
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let text = error.to_string().to_lowercase();
        assert!(
            text.starts_with(&format!("tcp to {address}: connection refused")),
            "{text}"
        );
    }

    #[test]
    fn a_refused_address_makes_way_for_the_next_at_once() {
        let (_listener, alive) = listener();
        let refused = Refused::new();
        // No delay would ever end on this clock.
        let socket = race(&[refused.address, alive], &Standing).expect("a connection");
        assert_eq!(peer(&socket), alive);
    }

    #[test]
    fn a_silent_address_is_joined_by_the_next_after_250_ms() {
        let silent = Silent::new();
        let (_listener, alive) = listener();
        let clock = Impatient::default();
        let socket = race(&[silent.address, alive], &clock).expect("a connection");
        assert_eq!(peer(&socket), alive);
        let first = clock.0.borrow()[0];
        assert!(first <= STAGGER && first > STAGGER - Duration::from_millis(100));
    }

    #[test]
    fn half_of_the_addresses_may_be_dead() {
        let (silent, refused) = (Silent::new(), Refused::new());
        let (_listener, alive) = listener();
        let addresses = [silent.address, refused.address, silent.address, alive];
        let socket = race(&addresses, &SystemClock).expect("a connection");
        assert_eq!(peer(&socket), alive);
    }

    #[test]
    fn a_silent_address_may_still_win() {
        // The only one has all the time that the caller gives it: no limit of its own ends it.
        let (_listener, only) = listener();
        let socket = race(&[only], &Standing).expect("a connection");
        assert_eq!(peer(&socket), only);
    }

    #[test]
    fn the_last_error_is_returned() {
        let (first, last) = (Refused::new(), Refused::new());
        let Err(error) = race(&[first.address, last.address], &SystemClock) else {
            panic!("no address takes the connection");
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let text = error.to_string();
        assert!(text.contains(&last.address.to_string()), "{text}");
    }

    #[test]
    fn a_name_without_an_address_is_an_error() {
        let Err(error) = race(&[], &SystemClock) else {
            panic!("there is nothing to connect to");
        };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_closed_transport_tells_the_peer_and_still_reads() {
        let (listener, address) = listener();
        let mut transport = race(&[address], &SystemClock).expect("a connection");
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
