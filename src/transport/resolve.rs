//! Looks names up without stopping the application's thread.
//!
//! The system's look-up blocks, so it needs a thread. There is at most one in the process, and only while
//! somebody waits for a name:
//!
//! ```text
//!            first request
//!   Absent ─────────────────► Present: looks up the name at the front of the queue,
//!      ▲                         │     answers all who wait for it, takes the next
//!      └─────────────────────────┘
//!          the queue is empty
//! ```
//!
//! Requests for one name share one look-up. A look-up that is stuck stays at the front of the queue:
//! it is not started a second time, later requests for its name join it, and other names wait behind it.
//! With a thread per name they would not wait, but on a device whose DNS is dead threads could pile up
//! without bound. How long a request waits is up to its caller, who drops the future.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use slab::Slab;

/// Shown by `top` and debuggers; Linux cuts a name after 15 bytes.
const THREAD_NAME: &str = "coracle-resolve";

/// Clients are bound to their threads, but the look-up thread is the process's. A lock does no harm
/// here: it is taken a few times per connection attempt, never for a message.
static RESOLVER: Resolver = Resolver::new(&look_up_by_system);

/// The addresses of `host`, each with `port`, in the order in which they should be tried.
///
/// The look-up starts with the first poll. Dropping the future stops waiting, not the look-up.
///
/// # Errors
/// Whatever the system's look-up failed with, with the name in its text.
pub(crate) fn resolve(
    host: &str,
    port: u16,
) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + use<> {
    RESOLVER.resolve(host, port)
}

fn look_up_by_system(name: &str) -> io::Result<Vec<SocketAddr>> {
    // The port does not change the answer: requests for several ports of one host share a look-up.
    Ok((name, 0).to_socket_addrs()?.collect())
}

/// What a look-up ends with; the ports are still to be set.
type Answer = io::Result<Vec<SocketAddr>>;

struct Resolver {
    /// May block, fail or panic. Tests bring their own.
    look_up: &'static (dyn Fn(&str) -> Answer + Sync),
    state: Mutex<State>,
}

struct State {
    thread: Thread,
    /// Each name once. While the thread is present, it looks up the one at the front.
    names: VecDeque<Arc<str>>,
    waiters: Slab<Waiter>,
}

/// Whether the one thread runs.
enum Thread {
    Absent,
    Present,
}

struct Waiter {
    name: Arc<str>,
    waker: Waker,
    /// `None` until the look-up is done.
    answer: Option<Answer>,
}

impl Waiter {
    fn awaits(&self, name: &str) -> bool {
        self.answer.is_none() && *self.name == *name
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    const fn new(look_up: &'static (dyn Fn(&str) -> Answer + Sync)) -> Self {
        Self {
            look_up,
            state: Mutex::new(State {
                thread: Thread::Absent,
                names: VecDeque::new(),
                waiters: Slab::new(),
            }),
        }
    }

    fn resolve(&'static self, host: &str, port: u16) -> impl Future<Output = Answer> + use<> {
        let host: Arc<str> = host.into();
        async move {
            if let Ok(address) = host.parse::<IpAddr>() {
                return Ok(vec![SocketAddr::new(address, port)]);
            }
            let mut addresses = self.request(host)?.await?;
            for address in &mut addresses {
                address.set_port(port);
            }
            Ok(addresses)
        }
    }

    /// Joins the look-up of `name`, queues it, or starts the thread for it.
    fn request(&'static self, name: Arc<str>) -> io::Result<Request> {
        let mut state = self.lock();
        if !state.names.contains(&name) {
            state.names.push_back(Arc::clone(&name));
        }
        if let Thread::Absent = state.thread {
            let thread = thread::Builder::new().name(THREAD_NAME.to_owned());
            if let Err(error) = thread.spawn(|| self.work()) {
                // Without a thread the queue was empty before, so this takes back our own name only.
                state.names.clear();
                return Err(io::Error::new(
                    error.kind(),
                    format!("{name}: no thread for the look-up: {error}"),
                ));
            }
            state.thread = Thread::Present;
        }
        let key = state.waiters.insert(Waiter {
            name,
            waker: Waker::noop().clone(),
            answer: None,
        });
        Ok(Request {
            resolver: self,
            key,
        })
    }

    /// The life of the thread.
    fn work(&self) {
        while let Some(name) = self.next_name() {
            // A panic would leave the requests waiting for ever.
            let answer = panic::catch_unwind(AssertUnwindSafe(|| (self.look_up)(&name)))
                .unwrap_or_else(|_| Err(io::Error::other("the look-up panicked")));
            for waker in self.answer(&name, &answer) {
                // So would a panic of a waker, with the requests for the names behind. The panic itself
                // has been told by the panic hook.
                let _ = panic::catch_unwind(|| waker.wake());
            }
        }
    }

    /// The name to look up; it stays in front while that goes on. `None` ends the thread.
    fn next_name(&self) -> Option<Arc<str>> {
        let mut state = self.lock();
        while let Some(name) = state.names.front() {
            if state.waiters.iter().any(|(_, waiter)| waiter.awaits(name)) {
                return Some(Arc::clone(name));
            }
            // Everybody who asked for it has gone.
            state.names.pop_front();
        }
        state.thread = Thread::Absent;
        None
    }

    /// Gives the answer to all who wait for `name`; their wakers are woken outside of the lock.
    fn answer(&self, name: &str, answer: &Answer) -> Vec<Waker> {
        let mut state = self.lock();
        state.names.pop_front();
        let mut wakers = Vec::new();
        for (_, waiter) in &mut state.waiters {
            if waiter.awaits(name) {
                waiter.answer = Some(match answer {
                    Ok(addresses) => Ok(addresses.clone()),
                    Err(error) => Err(io::Error::new(error.kind(), format!("{name}: {error}"))),
                });
                wakers.push(mem::replace(&mut waiter.waker, Waker::noop().clone()));
            }
        }
        wakers
    }

    /// No foreign code runs under this lock, so a poisoned state is still a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits. Its entry in the slab is taken out when it is dropped, and only then.
struct Request {
    resolver: &'static Resolver,
    key: usize,
}

impl Future for Request {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        // Cloning and dropping a waker runs code of the executor: both happen outside of the lock.
        let mut waker = cx.waker().clone();
        let mut state = self.resolver.lock();
        let waiter = &mut state.waiters[self.key];
        let poll = match waiter.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                mem::swap(&mut waiter.waker, &mut waker);
                Poll::Pending
            }
        };
        drop(state);
        drop(waker);
        poll
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // Bound to a name so that the lock is released before the waker is dropped.
        let waiter = self.resolver.lock().waiters.try_remove(self.key);
        drop(waiter);
    }
}
