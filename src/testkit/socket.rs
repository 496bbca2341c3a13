//! One TCP connection of the [`super::Server`].

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::{Async, Timer};
use futures_lite::{AsyncRead, AsyncWrite};

use super::broker::{Broker, LinkId};
use super::server::Shell;

/// Unsent bytes above which nothing more is read, so that a client that does not read is not served
/// without bound.
const OUT_MARK: usize = 1024 * 1024;

/// Reads and writes of one turn, so that a busy link does not starve the others.
const ROUNDS: usize = 16;

/// How long the client may take to close its side after the broker has closed its own. Closing at once
/// while bytes of the client are unread would be a reset, which can overtake the last answer.
const LINGER: Duration = Duration::from_secs(1);

pub(super) struct Socket {
    shell: Rc<Shell>,
    link: LinkId,
    stream: Async<TcpStream>,
    out: Vec<u8>,
    written: usize,
}

/// What a turn ends with.
enum Turn {
    /// The stream is at its end or broken.
    Gone,
    /// The broker has ended the link and everything is written.
    Closed,
}

impl Socket {
    pub(super) fn open(shell: &Rc<Shell>, stream: TcpStream) -> io::Result<Self> {
        // Answers are small and awaited.
        stream.set_nodelay(true)?;
        let stream = Async::new(stream)?;
        let link = shell.look(Broker::open);
        Ok(Self {
            shell: Rc::clone(shell),
            link,
            stream,
            out: Vec::new(),
            written: 0,
        })
    }

    /// Serves the connection to its end.
    pub(super) async fn run(mut self) {
        match poll_fn(|cx| self.poll_turn(cx)).await {
            Turn::Gone => {}
            Turn::Closed => self.linger().await,
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        self.shell.register(self.link, cx.waker());
        for _ in 0..ROUNDS {
            let written = self.poll_write_all(cx);
            if let Poll::Ready(Err(_)) = written {
                return Poll::Ready(Turn::Gone);
            }
            if self.shell.look(|broker| broker.is_closed(self.link)) {
                return written.map(|_| Turn::Closed);
            }
            if self.out.len() - self.written > OUT_MARK {
                return Poll::Pending;
            }
            match ready!(self.poll_read_some(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Turn::Gone),
                Ok(_) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                self.shell
                    .look(|broker| broker.take_output_into(self.link, &mut self.out));
            }
            let unsent = self.out.get(self.written..).unwrap_or_default();
            if unsent.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.stream).poll_write(cx, unsent)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => self.written += count,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_read_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = self.shell.read_buffer.borrow_mut();
        let count = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if !bytes.is_empty() {
            self.shell.call(self.link, |broker, now| {
                broker.handle_bytes(self.link, now, bytes);
            });
        }
        Poll::Ready(Ok(count))
    }

    /// Says that nothing more comes, and waits a little until the other side says so too.
    async fn linger(&mut self) {
        if self.stream.get_ref().shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut limit = Timer::after(LINGER);
        poll_fn(|cx| {
            if Pin::new(&mut limit).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut scrap = [0; 1024];
            loop {
                match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scrap)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
                }
            }
        })
        .await;
    }
}

impl Drop for Socket {
    /// However it ends, also when the server's future is dropped, the core is told.
    fn drop(&mut self) {
        self.shell.forget(self.link);
        self.shell.call(self.link, |broker, now| {
            broker.handle_closed(self.link, now)
        });
    }
}
