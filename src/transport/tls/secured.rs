//! A connection with TLS on it, which says in our words what goes wrong.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::ClientConfig;
use futures_rustls::rustls::pki_types::ServerName;

use super::identity::{Identity, Shown};
use super::obstacle::obstacle;
use crate::obstacle::{Cause, Obstacle, Step};
use crate::transport::BoxedTransport;

/// What is encrypted at a time: as much as rustls takes at once, four full records. Of more it makes a
/// second write, for a rest that may be a few bytes; left with the caller, the rest goes with what follows.
const AT_ONCE: usize = 64 * 1024;

/// A connection with TLS on it.
pub(super) struct Secured {
    stream: TlsStream<BoxedTransport>,
    with: Rc<str>,
    trust: Trust,
}

/// Whether the broker has accepted us.
///
/// ```text
///     Asked(what it was shown) ── its first bytes ──► Given
/// ```
///
/// In TLS 1.3 our side of the handshake is over before the broker has looked at the client certificate:
/// that it refuses it is seen at the first read.
#[derive(Debug, Clone, Copy)]
enum Trust {
    Asked(Shown),
    Given,
}

impl Secured {
    /// Agrees on TLS.
    ///
    /// # Errors
    /// An [`Obstacle`] inside of an [`io::Error`].
    pub(super) async fn shake_hands(
        stream: BoxedTransport,
        with: &str,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        identity: Arc<Identity>,
    ) -> io::Result<BoxedTransport> {
        identity.forget();
        let connector = futures_rustls::TlsConnector::from(config);
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| obstacle(&error, with, identity.shown()))?;
        Ok(Box::pin(Self {
            stream,
            with: with.into(),
            trust: Trust::Asked(identity.shown()),
        }))
    }

    /// In our words.
    fn failure(&self, error: &io::Error) -> io::Error {
        let shown = match self.trust {
            Trust::Asked(shown) => shown,
            Trust::Given => Shown::NotAsked,
        };
        let obstacle = obstacle(error, &self.with, shown);
        match (shown, obstacle.cause()) {
            // Some brokers only hang up. A link that is lost in this moment looks the same, but a broker that
            // asked and got nothing is by far the likelier reason, and the only one that the user can mend.
            (Shown::Nothing, Cause::Ended | Cause::System(..)) => {
                Obstacle::new(Step::Tls, &*self.with, Cause::ClientCertificateMissing).into()
            }
            (Shown::Nothing | Shown::NotAsked | Shown::Certificate, _) => obstacle.into(),
        }
    }

    /// A write failed: what the broker said before it hung up tells more than that it did.
    fn failed_write(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        let mut unread = [0; 512];
        match Pin::new(&mut self.stream).poll_read(cx, &mut unread) {
            Poll::Ready(Err(said)) => self.failure(&said),
            Poll::Ready(Ok(_)) | Poll::Pending => self.failure(&error),
        }
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_read(cx, bytes) {
            Poll::Ready(Ok(count)) => {
                match (self.trust, count) {
                    (Trust::Asked(Shown::Nothing), 0) => {
                        return Poll::Ready(
                            Err(self.failure(&io::ErrorKind::UnexpectedEof.into())),
                        );
                    }
                    (Trust::Asked(_), 1..) => self.trust = Trust::Given,
                    (Trust::Asked(_) | Trust::Given, _) => {}
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.failure(&error))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = bytes.get(..AT_ONCE).unwrap_or(bytes);
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.failed_write(cx, error))),
            poll => poll,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.failed_write(cx, error))),
            poll => poll,
        }
    }

    /// Says goodbye (close_notify) and ends the sending side below.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
