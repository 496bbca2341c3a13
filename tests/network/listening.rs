//! A server of a test, on a thread of its own.

use std::fmt;
use std::future::Future;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use coracle::LocalExecutor;
use smol::channel::{self, Sender};
use smol::{Async, Timer, future};

use crate::ground::{GLANCE, GLANCES, listener};

/// A listener and what happens on its connections, ended with its owner.
///
/// A thread, so that a client that holds up its own thread does not hold up its peer. Tasks on it, so that
/// a connection is closed exactly when its task ends: a second thread that waits on the same socket would
/// keep it open.
pub(crate) struct Listening {
    port: u16,
    connections: Arc<AtomicUsize>,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// Serves every connection, which has its number from 0 up.
    pub(crate) fn start<F>(serve: impl Fn(Async<TcpStream>, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = listener();
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let listener = Async::new(listener).expect("a listener");
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let (stop, stopped) = channel::bounded(1);
        let thread = thread::spawn(move || {
            let executor = Rc::new(LocalExecutor::new());
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    stream
                        .get_ref()
                        .set_nodelay(true)
                        .expect("an option of the socket");
                    let number = counter.fetch_add(1, Ordering::SeqCst);
                    executor.spawn(serve(stream, number)).detach();
                }
            };
            let stopped = async {
                // An error means that the owner is gone, too.
                let _ = stopped.recv().await;
            };
            smol::block_on(executor.run(future::or(stopped, accept)));
        });
        Self {
            port,
            connections,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `scheme://localhost:port`.
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.port)
    }

    /// How many connections have come so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until that many connections have come.
    pub(crate) async fn came(&self, connections: usize) {
        until("a connection", || self.connections() >= connections).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // An error means that the thread has ended by itself.
        let _ = self.stop.try_send(());
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(panic)) = ended
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening")
            .field("port", &self.port)
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// Waits for what says nothing when it happens.
pub(crate) async fn until(what: &str, happened: impl Fn() -> bool) {
    for _ in 0..GLANCES {
        if happened() {
            return;
        }
        Timer::after(GLANCE).await;
    }
    panic!("{what} never came");
}
