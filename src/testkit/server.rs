//! The broker behind a real socket: a thin shell of tasks around the core.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use async_io::{Async, Timer};
use smol::LocalExecutor;

use crate::clock::{Clock, SystemClock};

use super::broker::{Broker, LinkId};
use super::options::BrokerOptions;
use super::socket::Socket;

/// A [`Broker`] on a TCP port of this machine, on the caller's thread and executor.
///
/// Clones are the same server.
///
/// ```
/// use coracle::testkit::{BrokerOptions, Server};
/// use smol::{LocalExecutor, block_on};
/// # use futures_lite::{AsyncReadExt, AsyncWriteExt};
///
/// let executor = LocalExecutor::new();
/// block_on(executor.run(async {
///     let server = Server::bind(BrokerOptions::new())?;
///     executor.spawn(server.run()).detach();
/// #   let mut stream = async_io::Async::<std::net::TcpStream>::connect(server.address()).await?;
/// #   stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a").await?;
/// #   stream.read_exact(&mut [0; 4]).await?;
///     // … a client connects to server.url() …
///     assert!(server.with(|broker, _now| broker.is_connected("a")));
/// #   std::io::Result::Ok(())
/// }))?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Server(Rc<Shell>);

/// What the tasks of a server share. Wakers are woken after its borrows.
pub(super) struct Shell {
    broker: RefCell<Broker>,
    address: SocketAddr,
    /// None during an outage.
    listener: RefCell<Option<Async<TcpListener>>>,
    /// The task that accepts.
    door: RefCell<Option<Waker>>,
    /// The task that waits for deadlines, and which one it waits for.
    alarm: RefCell<Option<Waker>>,
    armed: Cell<Option<Instant>>,
    links: RefCell<BTreeMap<LinkId, Waker>>,
    /// One read buffer for all links: it is used within one poll only.
    pub(super) read_buffer: RefCell<Vec<u8>>,
}

/// As much as one read may bring; larger reads were not faster.
const READ_BUFFER: usize = 64 * 1024;

impl Server {
    /// A server on a free port of the loopback interface; [`Server::run`] sets it going.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(options: BrokerOptions) -> io::Result<Self> {
        Self::bind_to((Ipv4Addr::LOCALHOST, 0).into(), options)
    }

    /// A server on this address. It lets everybody in who can reach the address, unless the options
    /// say otherwise.
    ///
    /// # Errors
    /// What the system says, for example that the port is taken.
    pub fn bind_to(address: SocketAddr, options: BrokerOptions) -> io::Result<Self> {
        let listener = Async::<TcpListener>::bind(address)?;
        Ok(Self(Rc::new(Shell {
            broker: RefCell::new(Broker::new(options)),
            address: listener.get_ref().local_addr()?,
            listener: RefCell::new(Some(listener)),
            door: RefCell::new(None),
            alarm: RefCell::new(None),
            armed: Cell::new(None),
            links: RefCell::new(BTreeMap::new()),
            read_buffer: RefCell::new(vec![0; READ_BUFFER]),
        })))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The address as `mqtt://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.0.address)
    }

    /// Serves until it is dropped, which ends all its connections. To be spawned once.
    ///
    /// # Errors
    /// When the system does not let it accept any more.
    pub fn run(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let shell = Rc::clone(&self.0);
        async move {
            // Of its own, so that the tasks of the links end with this future.
            let executor = LocalExecutor::new();
            let alarm = Rc::clone(&shell);
            executor
                .spawn(async move {
                    let mut timer = Timer::never();
                    poll_fn(|cx| alarm.poll_alarm(&mut timer, cx)).await
                })
                .detach();
            executor
                .run(async {
                    loop {
                        let stream = poll_fn(|cx| shell.poll_accept(cx)).await?;
                        match Socket::open(&shell, stream) {
                            Ok(socket) => executor.spawn(socket.run()).detach(),
                            // The client was gone already.
                            Err(error) => log::debug!("a connection to the test broker: {error}"),
                        }
                    }
                })
                .await
        }
    }

    /// Looks at the broker or changes it, at the time that is given to `call`.
    pub fn with<T>(&self, call: impl FnOnce(&mut Broker, Instant) -> T) -> T {
        let now = SystemClock.now();
        let mut broker = self.0.broker.borrow_mut();
        broker.handle_timeout(now);
        let result = call(&mut broker, now);
        drop(broker);
        self.0.notify(None);
        result
    }

    /// Ends every connection without a DISCONNECT.
    pub fn cut_all(&self) {
        self.with(|broker, now| {
            for link in broker.links() {
                broker.cut(link, now);
            }
        });
    }

    /// Begins an outage: every connection ends, and new ones are refused.
    pub fn go_down(&self) {
        let listener = self.0.listener.borrow_mut().take();
        drop(listener);
        self.cut_all();
    }

    /// Ends an outage: listens on the same address again.
    ///
    /// # Errors
    /// What the system says, for example that another program has taken the port meanwhile.
    pub fn come_up(&self) -> io::Result<()> {
        if self.0.listener.borrow().is_some() {
            return Ok(());
        }
        let listener = Async::<TcpListener>::bind(self.0.address)?;
        *self.0.listener.borrow_mut() = Some(listener);
        let door = self.0.door.borrow_mut().take();
        if let Some(door) = door {
            door.wake();
        }
        Ok(())
    }
}

impl Shell {
    /// Calls the core on behalf of a link and wakes the other links that have got something to do.
    pub(super) fn call<T>(&self, link: LinkId, call: impl FnOnce(&mut Broker, Instant) -> T) -> T {
        let now = SystemClock.now();
        let result = call(&mut self.broker.borrow_mut(), now);
        self.notify(Some(link));
        result
    }

    /// Reads from the core, or takes from it what wakes nobody.
    pub(super) fn look<T>(&self, call: impl FnOnce(&mut Broker) -> T) -> T {
        call(&mut self.broker.borrow_mut())
    }

    pub(super) fn register(&self, link: LinkId, waker: &Waker) {
        let mut links = self.links.borrow_mut();
        let known = links.get(&link).is_some_and(|old| old.will_wake(waker));
        let stale = (!known).then(|| links.insert(link, waker.clone()));
        drop(links);
        drop(stale);
    }

    pub(super) fn forget(&self, link: LinkId) {
        let stale = self.links.borrow_mut().remove(&link);
        drop(stale);
    }

    /// Wakes the tasks of links that want attention, and the alarm if something is due earlier.
    fn notify(&self, caller: Option<LinkId>) {
        let mut wakers = Vec::new();
        let mut broker = self.broker.borrow_mut();
        while let Some(link) = broker.poll_attention() {
            if Some(link) != caller {
                wakers.extend(self.links.borrow().get(&link).cloned());
            }
        }
        let next = broker.poll_timeout();
        drop(broker);
        let is_earlier = match (next, self.armed.get()) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, Some(_) | None) => false,
        };
        if is_earlier {
            wakers.extend(self.alarm.borrow_mut().take());
        }
        for waker in wakers {
            waker.wake();
        }
    }

    fn poll_alarm(&self, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = SystemClock.now();
            self.broker.borrow_mut().handle_timeout(now);
            let next = self.broker.borrow().poll_timeout();
            self.armed.set(next);
            self.notify(None);
            let stale = self.alarm.borrow_mut().replace(cx.waker().clone());
            drop(stale);
            match next {
                None => return Poll::Pending,
                Some(next) => timer.set_at(next),
            }
            ready!(Pin::new(&mut *timer).poll(cx));
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        let stale = self.door.borrow_mut().replace(cx.waker().clone());
        drop(stale);
        loop {
            let listener = self.listener.borrow();
            let Some(listener) = &*listener else {
                return Poll::Pending;
            };
            match listener.get_ref().accept() {
                Ok((stream, _)) => return Poll::Ready(Ok(stream)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => ready!(listener.poll_readable(cx))?,
                    // These concern the connection, not the listener.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Poll::Ready(Err(error)),
                },
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.0.address)
            .finish_non_exhaustive()
    }
}
