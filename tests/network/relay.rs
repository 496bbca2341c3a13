//! A network between a client and a server that is as bad as a test wants it.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use smol::channel::{self, Receiver, Sender};
use smol::{Async, Timer, future};
use socket2::SockRef;

use crate::listening::Listening;

/// Long enough for the receiver of a byte to take it before the next one comes.
const PAUSE: Duration = Duration::from_micros(20);

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything passes.
    Whole,
    /// Everything passes, one byte at a time.
    Bytewise,
    /// Both sides are ended when exactly so many bytes have passed in this direction.
    Cut { after: u64, of: Direction, by: End },
    /// When exactly so many bytes have passed in this direction, nothing passes any more in either one,
    /// not even the end; both sides stay open.
    Silent { after: u64, of: Direction },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In order, by FIN: the other side reads its end.
    Fin,
    /// By RST: the other side reads an error.
    Reset,
}

/// A relay to one port of this machine, ended with its owner.
#[derive(Debug)]
pub(crate) struct Relay {
    /// To count the connections and to name the port.
    pub(crate) listening: Listening,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    to_server: AtomicU64,
    to_client: AtomicU64,
    /// One for each connection, in order; the last one is for all that follow.
    modes: Mutex<Vec<Mode>>,
    /// Of all connections so far, the ended ones too.
    ends: Mutex<Vec<Sender<End>>>,
}

impl Relay {
    /// Connections have these modes in order; the last one is for all that follow.
    pub(crate) fn start(port: u16, modes: &[Mode]) -> Self {
        assert!(!modes.is_empty(), "a relay has a mode");
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let shared = Arc::new(Shared {
            modes: Mutex::new(modes.to_vec()),
            ..Shared::default()
        });
        let serving = Arc::clone(&shared);
        let listening = Listening::start(move |client, number| {
            let shared = Arc::clone(&serving);
            async move {
                let mode = shared.mode(number);
                let end = shared.end();
                // A server that is not there shows as a connection that is closed at once.
                if let Ok(server) = Async::<TcpStream>::connect(server).await {
                    relay(client, server, mode, &shared, end).await;
                }
            }
        });
        Self { listening, shared }
    }

    /// Where clients find it: `scheme://localhost:port`.
    pub(crate) fn url(&self, scheme: &str) -> String {
        self.listening.url(scheme)
    }

    /// How many bytes have passed in this direction, on all connections together.
    pub(crate) fn bytes(&self, direction: Direction) -> u64 {
        self.shared.counter(direction).load(Ordering::SeqCst)
    }

    /// Ends all connections that there are now.
    pub(crate) fn cut(&self, by: End) {
        for end in lock(&self.shared.ends).drain(..) {
            // An error means that the connection has ended by itself.
            let _ = end.try_send(by);
        }
    }

    /// Changes the modes of all connections that come from now on; the last one is for all that follow.
    pub(crate) fn then(&self, modes: &[Mode]) {
        assert!(!modes.is_empty(), "a relay has a mode");
        // Those that have come have their mode already.
        let mut all = vec![Mode::Whole; self.listening.connections()];
        all.extend(modes);
        *lock(&self.shared.modes) = all;
    }
}

impl Shared {
    fn mode(&self, number: usize) -> Mode {
        let modes = lock(&self.modes);
        let last = modes.last().expect("a relay has a mode");
        *modes.get(number).unwrap_or(last)
    }

    fn end(&self) -> Receiver<End> {
        let (sender, receiver) = channel::bounded(1);
        lock(&self.ends).push(sender);
        receiver
    }

    fn counter(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

/// One connection.
async fn relay(
    client: Async<TcpStream>,
    server: Async<TcpStream>,
    mode: Mode,
    shared: &Shared,
    end: Receiver<End>,
) {
    server
        .get_ref()
        .set_nodelay(true)
        .expect("an option of the socket");
    let silent = Cell::new(false);
    let lane = |direction| Lane {
        direction,
        mode,
        silent: &silent,
        passed: shared.counter(direction),
    };
    let traffic = async {
        let to_server = lane(Direction::ToServer).run(&client, &server);
        let to_client = lane(Direction::ToClient).run(&server, &client);
        // Both have come to their end in order, or one of them ends both.
        future::try_zip(to_server, to_client).await.err()
    };
    let told = async {
        match end.recv().await {
            Ok(end) => Some(end),
            // Taken from the list of ends only to be told one.
            Err(_) => future::pending().await,
        }
    };
    match future::or(told, traffic).await {
        None => {}
        Some(End::Reset) => {
            for socket in [&client, &server] {
                // Closed with data or without: RST. Dropped at the end of this function.
                let set = SockRef::from(socket).set_linger(Some(Duration::ZERO));
                set.expect("an option of the socket");
            }
        }
        Some(End::Fin) => {
            future::zip(finish(&client), finish(&server)).await;
        }
    }
}

/// Ends a connection by FIN, and reads on to the other side's end: closed with unread data, the socket
/// would send RST.
async fn finish(mut socket: &Async<TcpStream>) {
    // An error means that the other side was quicker.
    let _ = socket.get_ref().shutdown(Shutdown::Write);
    let mut bytes = [0; 4096];
    while let Ok(1..) = socket.read(&mut bytes).await {}
}

/// One direction of one connection.
struct Lane<'a> {
    direction: Direction,
    mode: Mode,
    /// Of both directions.
    silent: &'a Cell<bool>,
    passed: &'a AtomicU64,
}

impl Lane<'_> {
    /// Until the end in order, or until the connection has to end.
    async fn run(self, mut from: &Async<TcpStream>, mut to: &Async<TcpStream>) -> Result<(), End> {
        let mut left = self.limit();
        let mut bytes = [0; 4096];
        loop {
            if left == Some(0) {
                self.exhausted()?;
            }
            let read = from.read(&mut bytes).await;
            if self.silent.get() {
                if let Ok(1..) = read {
                    continue;
                }
                // Nobody hears of the end.
                future::pending::<Infallible>().await;
            }
            let count = read.map_err(|_| End::Reset)?;
            if count == 0 {
                // An error means that the other direction has ended it.
                let _ = to.get_ref().shutdown(Shutdown::Write);
                return Ok(());
            }
            let room = left.map_or(count, |left| {
                usize::try_from(left).map_or(count, |left| left.min(count))
            });
            let step = if self.mode == Mode::Bytewise { 1 } else { room };
            for piece in bytes[..room].chunks(step) {
                to.write_all(piece).await.map_err(|_| End::Reset)?;
                let length = u64::try_from(piece.len()).expect("a length fits");
                self.passed.fetch_add(length, Ordering::SeqCst);
                left = left.map(|left| left - length);
                if self.mode == Mode::Bytewise {
                    Timer::after(PAUSE).await;
                }
            }
        }
    }

    /// How many bytes may pass here, if there is a bound.
    fn limit(&self) -> Option<u64> {
        match self.mode {
            Mode::Whole | Mode::Bytewise => None,
            Mode::Cut { after, of, .. } | Mode::Silent { after, of } => {
                (of == self.direction).then_some(after)
            }
        }
    }

    /// What happens when they have passed.
    fn exhausted(&self) -> Result<(), End> {
        match self.mode {
            Mode::Cut { by, .. } => Err(by),
            Mode::Silent { .. } => {
                self.silent.set(true);
                Ok(())
            }
            Mode::Whole | Mode::Bytewise => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
