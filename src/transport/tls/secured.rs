//! A connection with TLS on it, which says in our words what goes wrong.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::ClientConfig;
use futures_rustls::rustls::pki_types::ServerName;

use super::identity::{Identity, Shown};
use super::obstacle::obstacle;
use crate::transport::{BoxedTransport, progress};

/// What is encrypted at a time: as much as rustls takes at once, four full records. Of more it makes a
/// second write, for a rest that may be a few bytes; left with the caller, the rest goes with what follows.
const AT_ONCE: usize = 64 * 1024;

/// Reads of the connection below, one after the other, after which it gives way. A broker can send records
/// without a byte of MQTT in them for ever, empty ones and tickets, and rustls would read on and on. A
/// record of 16 KiB takes up to five.
const READS: usize = 16;

/// A connection with TLS on it.
pub(super) struct Secured {
    stream: TlsStream<Below>,
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
    /// An [`Obstacle`](crate::Obstacle) inside of an [`io::Error`].
    pub(super) async fn shake_hands(
        stream: BoxedTransport,
        with: &str,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        identity: Arc<Identity>,
    ) -> io::Result<BoxedTransport> {
        let connector = futures_rustls::TlsConnector::from(config);
        let mut connecting = pin!(connector.connect(name, Below::new(stream)));
        let mut asked = false;
        // Attempts may share the identity, so it is looked at where they cannot come in between.
        let connected = poll_fn(|cx| {
            identity.take_asked();
            let poll = connecting.as_mut().poll(cx);
            asked |= identity.take_asked();
            poll
        })
        .await;
        let shown = identity.shown(asked);
        let stream = connected.map_err(|error| obstacle(&error, with, shown))?;
        Ok(Box::pin(Self {
            stream,
            with: with.into(),
            trust: Trust::Asked(shown),
        }))
    }

    /// In our words.
    fn failure(&self, error: &io::Error) -> io::Error {
        let shown = match self.trust {
            Trust::Asked(shown) => shown,
            Trust::Given => Shown::NotAsked,
        };
        obstacle(error, &self.with, shown).into()
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

/// The connection below, which gives way after so many reads in a row.
struct Below {
    inner: BoxedTransport,
    reads: usize,
}

impl Below {
    fn new(inner: BoxedTransport) -> Self {
        Self { inner, reads: 0 }
    }
}

/// What rustls holds leaves, which cannot be seen above it.
fn note(poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    if let Poll::Ready(Ok(count)) = poll {
        progress::took(count);
    }
    poll
}

impl AsyncRead for Below {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.reads == READS {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let poll = self.inner.as_mut().poll_read(cx, bytes);
        self.reads = match poll {
            Poll::Ready(_) => self.reads + 1,
            Poll::Pending => 0,
        };
        poll
    }
}

impl AsyncWrite for Below {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        note(self.inner.as_mut().poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        note(self.inner.as_mut().poll_write_vectored(cx, slices))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_close(cx)
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // What the reads before brought was payload.
        self.stream.get_mut().0.reads = 0;
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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::io::{Read, Write};
    use std::task::Waker;

    use futures_lite::AsyncReadExt;
    use futures_rustls::rustls::crypto::ring;
    use futures_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
    use futures_rustls::rustls::server::WebPkiClientVerifier;
    use futures_rustls::rustls::version::{TLS12, TLS13};
    use futures_rustls::rustls::{RootCertStore, ServerConfig, ServerConnection};
    use smol::block_on;

    use super::*;
    use crate::obstacle::{Cause, Obstacle};
    use crate::transport::Endpoint;
    use crate::transport::tls::{Tls, TlsConnector, TlsVersion};

    /// Bytes of one read: of a hundred tickets there are many.
    const PIECE: usize = 64;

    /// A broker in memory, and what the network to it does.
    struct Broker {
        connection: RefCell<ServerConnection>,
        reads: Cell<usize>,
        writes: Cell<usize>,
        /// The write that waits, and all after it.
        waits_from: Cell<usize>,
        /// What reads fail with once the client has written so often.
        fails: Option<(usize, Option<io::ErrorKind>)>,
    }

    struct Near(Rc<Broker>);

    impl AsyncRead for Near {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.0.reads.set(self.0.reads.get() + 1);
            match self.0.fails {
                Some((from, None)) if self.0.writes.get() >= from => return Poll::Ready(Ok(0)),
                Some((from, Some(kind))) if self.0.writes.get() >= from => {
                    return Poll::Ready(Err(kind.into()));
                }
                Some(_) | None => {}
            }
            let mut connection = self.0.connection.borrow_mut();
            if !connection.wants_write() {
                return Poll::Pending;
            }
            let length = bytes.len().min(PIECE);
            let mut rest = &mut bytes[..length];
            // A vectored write would end with the buffer and lose the rest.
            while !rest.is_empty() && connection.wants_write() {
                connection.write_tls(&mut rest).expect("there is room");
            }
            Poll::Ready(Ok(length - rest.len()))
        }
    }

    impl AsyncWrite for Near {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            mut bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.0.writes.get() >= self.0.waits_from.get() {
                return Poll::Pending;
            }
            self.0.writes.set(self.0.writes.get() + 1);
            let length = bytes.len();
            let mut connection = self.0.connection.borrow_mut();
            while !bytes.is_empty() {
                connection.read_tls(&mut bytes).expect("there is room");
                // A refusal goes out as an alert.
                let _ = connection.process_new_packets();
            }
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    enum Asks {
        Nothing,
        ForCertificate,
    }

    fn config(asks: Asks, version: TlsVersion) -> ServerConfig {
        let own = rcgen::generate_simple_self_signed(["broker".to_owned()]).expect("a pair");
        let provider = Arc::new(ring::default_provider());
        let versions = match version {
            TlsVersion::V1_2 => [&TLS12],
            TlsVersion::V1_3 => [&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .expect("ring knows both");
        let certificate = own.cert.der().clone();
        let builder = match asks {
            Asks::Nothing => builder.with_no_client_auth(),
            Asks::ForCertificate => {
                let mut roots = RootCertStore::empty();
                roots.add(certificate.clone()).expect("a root");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        builder
            .with_single_cert(vec![certificate], key.into())
            .expect("a pair")
    }

    fn broker(config: ServerConfig) -> Broker {
        let mut connection = ServerConnection::new(Arc::new(config)).expect("a connection");
        connection.set_buffer_limit(None);
        Broker {
            connection: RefCell::new(connection),
            reads: Cell::new(0),
            writes: Cell::new(0),
            waits_from: Cell::new(usize::MAX),
            fails: None,
        }
    }

    fn connector() -> TlsConnector {
        TlsConnector::new(Tls::new().dangerously_accept_any_certificate())
    }

    fn endpoint() -> Endpoint {
        Endpoint::parse("mqtts://broker").expect("a valid endpoint")
    }

    fn cause(error: &io::Error) -> Cause {
        let obstacle = Obstacle::of(error).expect("it says what stands in the way");
        obstacle.cause().clone()
    }

    #[test]
    fn a_flood_of_tickets_holds_up_nobody_else() {
        let mut config = config(Asks::Nothing, TlsVersion::V1_3);
        config.send_tls13_tickets = 100;
        let broker = Rc::new(broker(config));
        let connecting = connector();
        let near = Box::pin(Near(Rc::clone(&broker)));
        let mut stream = block_on(connecting.secure(near, &endpoint())).expect("TLS");
        let mut connection = broker.connection.borrow_mut();
        connection.writer().write_all(b"x").expect("there is room");
        drop(connection);
        broker.reads.set(0);
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        let first = stream.as_mut().poll_read(&mut cx, &mut byte);
        assert!(first.is_pending(), "{first:?}");
        assert!(broker.reads.get() <= READS, "{}", broker.reads.get());
        // It was woken for the rest.
        assert_eq!(block_on(stream.read(&mut byte)).expect("a byte"), 1);
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn what_leaves_while_a_flush_waits_is_counted() {
        let broker = Rc::new(broker(config(Asks::Nothing, TlsVersion::V1_3)));
        let connecting = connector();
        let near = Box::pin(Near(Rc::clone(&broker)));
        let mut stream = block_on(connecting.secure(near, &endpoint())).expect("TLS");
        let mut cx = Context::from_waker(Waker::noop());
        broker.waits_from.set(0);
        let poll = stream.as_mut().poll_write(&mut cx, &[0; AT_ONCE]);
        assert!(
            matches!(poll, Poll::Ready(Ok(count)) if count > 1000),
            "{poll:?}"
        );
        for writes in 1..4 {
            let before = progress::taken();
            let poll = stream.as_mut().poll_flush(&mut cx);
            assert!(poll.is_pending());
            assert_eq!(progress::taken(), before, "nothing left");
            // One record.
            broker.waits_from.set(broker.writes.get() + 1);
            let poll = stream.as_mut().poll_flush(&mut cx);
            assert!(poll.is_pending(), "{writes}");
            assert!(progress::taken() > before, "{writes}");
            let mut connection = broker.connection.borrow_mut();
            let got = connection.reader().read(&mut [0; AT_ONCE]);
            assert!(got.is_ok_and(|count| count > 1000), "{writes}");
        }
    }

    #[test]
    fn a_broker_that_asked_and_hangs_up_in_the_handshake_wants_a_certificate() {
        let mut broker = broker(config(Asks::ForCertificate, TlsVersion::V1_2));
        broker.fails = Some((2, None));
        let connecting = connector();
        let near = Box::pin(Near(Rc::new(broker)));
        let result = block_on(connecting.secure(near, &endpoint()));
        let error = result.err().expect("it hung up");
        assert_eq!(cause(&error), Cause::ClientCertificateMissing);
    }

    #[test]
    fn a_network_that_fails_is_no_want_of_a_certificate() {
        // The one fails within the handshake, the other right behind it.
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            let mut broker = broker(config(Asks::ForCertificate, version));
            broker.fails = Some((2, Some(io::ErrorKind::TimedOut)));
            let connecting = connector();
            let near = Box::pin(Near(Rc::new(broker)));
            let error = block_on(async {
                let mut stream = connecting.secure(near, &endpoint()).await?;
                stream.read(&mut [0]).await
            })
            .expect_err("the network fails");
            let cause = cause(&error);
            assert!(
                matches!(cause, Cause::System(io::ErrorKind::TimedOut, _)),
                "{version:?}: {cause:?}"
            );
        }
    }

    #[test]
    fn attempts_at_the_same_time_do_not_mix_up_who_was_asked() {
        let mut asking = broker(config(Asks::ForCertificate, TlsVersion::V1_2));
        asking.fails = Some((2, None));
        asking.waits_from.set(1);
        let asking = Rc::new(asking);
        let connecting = connector();
        let (endpoint, mut cx) = (endpoint(), Context::from_waker(Waker::noop()));
        let near = Box::pin(Near(Rc::clone(&asking)));
        let mut first = pin!(connecting.secure(near, &endpoint));
        // It has been asked, and its answer waits.
        assert!(first.as_mut().poll(&mut cx).is_pending());
        let other = Rc::new(broker(config(Asks::Nothing, TlsVersion::V1_2)));
        let near = Box::pin(Near(other));
        block_on(connecting.secure(near, &endpoint)).expect("TLS");
        asking.waits_from.set(usize::MAX);
        let error = block_on(first).err().expect("it hung up");
        assert_eq!(cause(&error), Cause::ClientCertificateMissing);
    }
}
