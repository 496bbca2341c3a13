//! What a proxy answers, and a web server, and what comes in the frames of a WebSocket: any bytes. Whether
//! they come at once or one by one makes no difference, and nothing waits without being woken.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

use coracle::testkit::probe;
use coracle::{BoxedTransport, Endpoint};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::input::Input;

/// What a server says, in pieces of this size; then the stream ends. It takes all that it is told.
struct Server {
    says: Vec<u8>,
    from: usize,
    piece: usize,
    /// Whether the next read or write goes through at once. In pieces every other one waits.
    is_ready: bool,
}

impl Server {
    fn is_ready(&mut self, cx: &Context<'_>) -> bool {
        let ready = self.is_ready;
        self.is_ready = !ready || self.piece == usize::MAX;
        if !ready {
            cx.waker().wake_by_ref();
        }
        ready
    }
}

impl AsyncRead for Server {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if !self.is_ready(cx) {
            return Poll::Pending;
        }
        let left = &self.says[self.from..];
        let count = left.len().min(bytes.len()).min(self.piece);
        bytes[..count].copy_from_slice(&left[..count]);
        self.from += count;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Server {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.is_ready(cx) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(bytes.len().min(self.piece)))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Remembers that somebody was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future whose every wait is for the server, which never lets anyone wait for long.
fn run_to_end<T>(future: impl Future<Output = T>) -> T {
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Arc::clone(&woken).into();
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    // Each byte takes two turns to be read, and two more if it is answered.
    for _ in 0..100_000 {
        assert!(woken.0.swap(false, Ordering::Relaxed), "it waits for ever");
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
    panic!("it does not end");
}

/// What comes of it: the bytes that are the broker's, and the error if there was one.
fn outcome(kind: u8, says: &[u8], piece: usize) -> (Vec<u8>, Option<String>) {
    let endpoint = Endpoint::parse("ws://broker.example/mqtt").expect("it is well-formed");
    let server: BoxedTransport = Box::pin(Server {
        says: says.to_vec(),
        from: 0,
        piece,
        is_ready: true,
    });
    let mut payload = Vec::new();
    let result = run_to_end(async {
        let mut stream = match kind {
            0 => probe::frames(server, &endpoint),
            1 => probe::upgrade(server, &endpoint).await?,
            2 => probe::through("http://proxy:3128", server, &endpoint).await?,
            3 => probe::through("socks5://proxy", server, &endpoint).await?,
            _ => probe::through("socks5://user:word@proxy", server, &endpoint).await?,
        };
        stream.write_all(b"\xC0\0").await?;
        stream.flush().await?;
        let mut buffer = [0; 100];
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return stream.close().await;
            }
            payload.extend_from_slice(&buffer[..count]);
        }
    });
    let text = result.err().map(|error: io::Error| error.to_string());
    // What stands in quotes is an excerpt of what is there when the error is seen; and what a web server may
    // have meant by an answer that is none is guessed from that.
    let text = text.map(|text| match kind {
        1 => String::new(),
        _ => text.split('"').next().unwrap_or_default().to_owned(),
    });
    (payload, text)
}

/// Input: a byte for who answers, then what it says.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8() % 5;
    let says = input.take(usize::MAX);
    let whole = outcome(kind, says, usize::MAX);
    assert!(whole.0.len() <= says.len());
    assert_eq!(whole, outcome(kind, says, 1), "whole and byte by byte");
}
