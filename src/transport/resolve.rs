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
                    format!("no thread for the look-up: {error}"),
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
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::task::Wake;
    use std::thread::ThreadId;
    use std::time::Duration;

    use smol::block_on;

    use super::*;

    /// Far above what a loaded machine needs; only a failing test waits for so long.
    const HANG: Duration = Duration::from_secs(20);

    thread_local! {
        /// Dropped when its thread ends, which the receiver notices.
        static ALIVE: RefCell<Option<Sender<()>>> = const { RefCell::new(None) };
    }

    /// A resolver whose look-ups the test sees begin, and whose answers it gives.
    struct Script {
        resolver: &'static Resolver,
        begun: Receiver<LookUp>,
    }

    /// A look-up that hangs until it is answered.
    struct LookUp {
        name: String,
        thread: ThreadId,
        answer: Sender<Answer>,
        /// Disconnected when the thread has ended.
        ended: Receiver<()>,
    }

    impl Script {
        fn new() -> Self {
            let (begin, begun) = mpsc::channel();
            let begin = Mutex::new(begin);
            let look_up = move |name: &str| {
                let (answer, answered) = mpsc::channel();
                let (alive, ended) = mpsc::channel();
                ALIVE.set(Some(alive));
                let look_up = LookUp {
                    name: name.to_owned(),
                    thread: thread::current().id(),
                    answer,
                    ended,
                };
                let begin = begin.lock().expect("no test panics with the lock").clone();
                if begin.send(look_up).is_err() {
                    return Err(io::Error::other("the test is over"));
                }
                // A test that drops the look-up instead of answering it lets it panic.
                answered.recv().expect("the look-up is answered")
            };
            // A resolver lives as long as the process; these few bytes do so too.
            Self {
                resolver: Box::leak(Box::new(Resolver::new(Box::leak(Box::new(look_up))))),
                begun,
            }
        }

        #[track_caller]
        fn begun(&self, name: &str) -> LookUp {
            let look_up = self.begun.recv_timeout(HANG).expect("a look-up begins");
            assert_eq!(look_up.name, name);
            look_up
        }

        /// Only certain of a look-up that would have begun before something the test has seen.
        #[track_caller]
        fn nothing_else_begun(&self) {
            assert!(self.begun.try_recv().is_err(), "another look-up has begun");
        }

        fn waiters(&self) -> usize {
            self.resolver.lock().waiters.len()
        }
    }

    impl LookUp {
        fn finds(&self, address: &str) {
            let address = format!("{address}:0").parse().expect("an address");
            self.answer
                .send(Ok(vec![address]))
                .expect("the look-up waits for its answer");
        }

        fn fails(&self, text: &str) {
            let error = io::Error::new(io::ErrorKind::NotFound, text);
            self.answer
                .send(Err(error))
                .expect("the look-up waits for its answer");
        }

        #[track_caller]
        fn thread_ends(&self) {
            let end = self.ended.recv_timeout(HANG);
            assert_eq!(
                end,
                Err(mpsc::RecvTimeoutError::Disconnected),
                "the thread ends"
            );
        }
    }

    fn boxed(
        resolver: &'static Resolver,
        host: &str,
        port: u16,
    ) -> Pin<Box<dyn Future<Output = Answer>>> {
        Box::pin(resolver.resolve(host, port))
    }

    fn is_pending(future: &mut Pin<Box<dyn Future<Output = Answer>>>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        future.as_mut().poll(&mut cx).is_pending()
    }

    /// The answer, or a failure in place of a hang.
    fn end_of(future: impl Future<Output = Answer>) -> Answer {
        block_on(smol::future::or(future, async {
            async_io::Timer::after(HANG).await;
            panic!("the look-up hangs");
        }))
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect()
    }

    #[test]
    fn an_address_needs_no_look_up() {
        let script = Script::new();
        for (host, expected) in [("192.0.2.7", "192.0.2.7:1883"), ("::1", "[::1]:1883")] {
            let found = end_of(script.resolver.resolve(host, 1883)).expect("an address");
            assert_eq!(found, addresses(&[expected]));
        }
        assert!(matches!(script.resolver.lock().thread, Thread::Absent));
        script.nothing_else_begun();
    }

    #[test]
    fn the_system_knows_localhost() {
        let found = end_of(resolve("localhost", 1884)).expect("localhost is known");
        assert!(!found.is_empty());
        for address in found {
            assert!(address.ip().is_loopback(), "{address}");
            assert_eq!(address.port(), 1884);
        }
    }

    #[test]
    fn a_look_up_starts_with_the_first_poll() {
        let script = Script::new();
        drop(script.resolver.resolve("broker", 1883));
        assert!(matches!(script.resolver.lock().thread, Thread::Absent));
        script.nothing_else_begun();
    }

    #[test]
    fn requests_for_one_name_share_a_look_up_and_keep_their_ports() {
        let script = Script::new();
        let mut first = boxed(script.resolver, "broker", 1883);
        let mut second = boxed(script.resolver, "broker", 8883);
        assert!(is_pending(&mut first));
        assert!(is_pending(&mut second));
        let look_up = script.begun("broker");
        look_up.finds("192.0.2.7");
        assert_eq!(
            end_of(first).expect("found"),
            addresses(&["192.0.2.7:1883"])
        );
        assert_eq!(
            end_of(second).expect("found"),
            addresses(&["192.0.2.7:8883"])
        );
        look_up.thread_ends();
        script.nothing_else_begun();
        assert_eq!(script.waiters(), 0);
    }

    #[test]
    fn a_waiting_request_is_woken_once() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }

        let script = Script::new();
        let mut request = boxed(script.resolver, "broker", 1883);
        let (stale, fresh) = (Arc::new(Count(0.into())), Arc::new(Count(0.into())));
        for count in [&stale, &fresh] {
            let waker = Waker::from(Arc::clone(count));
            assert!(
                request
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        let look_up = script.begun("broker");
        look_up.finds("192.0.2.7");
        look_up.thread_ends();
        assert_eq!(
            stale.0.load(Ordering::SeqCst),
            0,
            "a task that polled earlier"
        );
        assert_eq!(
            fresh.0.load(Ordering::SeqCst),
            1,
            "the task that polled last"
        );
        assert!(!is_pending(&mut request));
    }

    #[test]
    fn a_stuck_look_up_is_not_started_twice() {
        let script = Script::new();
        let mut given_up = boxed(script.resolver, "broker", 1883);
        assert!(is_pending(&mut given_up));
        let stuck = script.begun("broker");
        // The drop returns although the look-up does not.
        drop(given_up);
        assert_eq!(script.waiters(), 0);

        let mut retry = boxed(script.resolver, "broker", 1883);
        assert!(is_pending(&mut retry));
        // Nor does every retry lengthen the queue.
        assert_eq!(script.resolver.lock().names.len(), 1);
        stuck.finds("192.0.2.7");
        assert_eq!(
            end_of(retry).expect("found"),
            addresses(&["192.0.2.7:1883"])
        );
        stuck.thread_ends();
        script.nothing_else_begun();
    }

    #[test]
    fn another_name_waits_behind_a_stuck_one_for_the_same_thread() {
        let script = Script::new();
        let mut first = boxed(script.resolver, "stuck", 1883);
        let mut second = boxed(script.resolver, "other", 1883);
        assert!(is_pending(&mut first));
        let stuck = script.begun("stuck");
        assert!(is_pending(&mut second));
        script.nothing_else_begun();
        stuck.fails("given up");
        let other = script.begun("other");
        assert_eq!(other.thread, stuck.thread);
        other.finds("192.0.2.8");
        assert_eq!(
            end_of(second).expect("found"),
            addresses(&["192.0.2.8:1883"])
        );
        assert!(end_of(first).is_err());
        other.thread_ends();
    }

    #[test]
    fn a_name_for_which_nobody_waits_any_more_is_not_looked_up() {
        let script = Script::new();
        let mut stuck = boxed(script.resolver, "stuck", 1883);
        let mut given_up = boxed(script.resolver, "given-up", 1883);
        let mut last = boxed(script.resolver, "last", 1883);
        assert!(is_pending(&mut stuck));
        assert!(is_pending(&mut given_up));
        assert!(is_pending(&mut last));
        drop(given_up);
        script.begun("stuck").finds("192.0.2.7");
        let next = script.begun("last");
        next.finds("192.0.2.8");
        next.thread_ends();
        script.nothing_else_begun();
    }

    #[test]
    fn no_thread_stays_and_a_later_request_starts_another() {
        let script = Script::new();
        for address in ["192.0.2.7", "192.0.2.8"] {
            let mut request = boxed(script.resolver, "broker", 1883);
            assert!(is_pending(&mut request));
            let look_up = script.begun("broker");
            look_up.finds(address);
            let found = end_of(request).expect("found");
            assert_eq!(found[0].ip().to_string(), address, "an answer is not kept");
            look_up.thread_ends();
            assert!(matches!(script.resolver.lock().thread, Thread::Absent));
        }
    }

    #[test]
    fn a_failure_reaches_all_who_wait() {
        let script = Script::new();
        let mut first = boxed(script.resolver, "nowhere", 1883);
        let mut second = boxed(script.resolver, "nowhere", 1884);
        assert!(is_pending(&mut first));
        assert!(is_pending(&mut second));
        script.begun("nowhere").fails("no such host");
        for request in [first, second] {
            let error = end_of(request).expect_err("the look-up failed");
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert_eq!(error.to_string(), "no such host");
        }
    }

    #[test]
    fn a_panic_in_a_look_up_is_an_error_and_the_next_name_goes_on() {
        let script = Script::new();
        let mut first = boxed(script.resolver, "panics", 1883);
        let mut second = boxed(script.resolver, "broker", 1883);
        assert!(is_pending(&mut first));
        assert!(is_pending(&mut second));
        // Left unanswered, the script panics in the look-up.
        drop(script.begun("panics"));
        let error = end_of(first).expect_err("the look-up panicked");
        assert_eq!(error.to_string(), "the look-up panicked");
        script.begun("broker").finds("192.0.2.7");
        assert_eq!(
            end_of(second).expect("found"),
            addresses(&["192.0.2.7:1883"])
        );
    }

    #[test]
    fn a_panic_of_a_waker_keeps_nobody_else_waiting() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("a broken executor");
            }
        }

        let script = Script::new();
        let mut broken = boxed(script.resolver, "broker", 1883);
        let waker = Waker::from(Arc::new(Panics));
        assert!(
            broken
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        let mut same = boxed(script.resolver, "broker", 1883);
        let mut other = boxed(script.resolver, "other", 1883);
        assert!(is_pending(&mut same));
        assert!(is_pending(&mut other));
        script.begun("broker").finds("192.0.2.7");
        assert_eq!(end_of(same).expect("found"), addresses(&["192.0.2.7:1883"]));
        script.begun("other").finds("192.0.2.8");
        assert_eq!(
            end_of(other).expect("found"),
            addresses(&["192.0.2.8:1883"])
        );
    }

    #[test]
    fn a_look_up_does_not_stop_the_thread_that_asks() {
        let script = Script::new();
        let mut request = pin!(script.resolver.resolve("broker", 1883));
        let mut answered = false;
        let found = end_of(poll_fn(|cx| {
            let poll = request.as_mut().poll(cx);
            // Reached on the asking thread although the look-up still hangs.
            if poll.is_pending() && !answered {
                answered = true;
                script.begun("broker").finds("192.0.2.7");
            }
            poll
        }));
        assert_eq!(found.expect("found"), addresses(&["192.0.2.7:1883"]));
        assert!(answered);
    }
}
