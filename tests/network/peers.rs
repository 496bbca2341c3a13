//! Peers that are not what a client hopes for.

use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use smol::Async;

use crate::listening::{Listening, until};
use crate::pki::{Identity, write};
use crate::process::Process;

/// Accepts a connection to version 3.1.1.
pub(crate) const CONNACK: &[u8] = &[0x20, 0x02, 0x00, 0x00];

/// Means nothing in MQTT, TLS, HTTP or SOCKS.
pub(crate) const GARBAGE: &[u8] = b"\x00\xFF\x00\xFFhello?\r\n\r\n\x00\xFF";

/// What a web server says to what is no request.
pub(crate) const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

pub(crate) const NOT_FOUND: &str =
    "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nNot here.";

/// What a captive portal says to everything.
pub(crate) const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 21\r\n\
                               Connection: close\r\n\r\n<html>Log in!</html>\n";

pub(crate) const FORBIDDEN: &str =
    "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What a peer does about a connection.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Reads and never says a word.
    Silent,
    /// Closes at once.
    Closing,
    /// Says this as soon as it has read anything, and again for everything that it reads.
    Answering(&'static [u8]),
    /// Reads the head of a request, says this and closes.
    Http(&'static str),
}

/// A peer on a thread of its own, ended with its owner.
#[derive(Debug)]
pub(crate) struct Peer {
    /// To count the connections and to name the port.
    pub(crate) listening: Listening,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Peer {
    /// Takes every connection and never says a word; also as a proxy that never answers.
    pub(crate) fn silent() -> Self {
        Self::start(Manner::Silent)
    }

    /// Takes every connection and closes it at once.
    pub(crate) fn closing() -> Self {
        Self::start(Manner::Closing)
    }

    /// Says the same to everything that it reads: [`CONNACK`], [`GARBAGE`].
    pub(crate) fn answering(words: &'static [u8]) -> Self {
        Self::start(Manner::Answering(words))
    }

    /// Answers every request of HTTP with the same: [`NOT_FOUND`], [`PAGE`], [`FORBIDDEN`].
    pub(crate) fn http(answer: &'static str) -> Self {
        Self::start(Manner::Http(answer))
    }

    /// Where clients find it: `scheme://localhost:port`.
    pub(crate) fn url(&self, scheme: &str) -> String {
        self.listening.url(scheme)
    }

    /// Everything it has read, on all connections.
    pub(crate) fn heard(&self) -> Vec<u8> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.clone()
    }

    /// Waits until it has read this.
    pub(crate) async fn has_heard(&self, words: &[u8]) {
        let heard = || {
            let all = self.heard();
            all.windows(words.len()).any(|some| some == words)
        };
        until(&String::from_utf8_lossy(words), heard).await;
    }

    fn start(manner: Manner) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        let listening =
            Listening::start(move |stream, _| serve(stream, manner, Arc::clone(&hearing)));
        Self { listening, heard }
    }
}

async fn serve(mut stream: Async<TcpStream>, manner: Manner, heard: Arc<Mutex<Vec<u8>>>) {
    let mut before = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        match manner {
            Manner::Closing => return,
            Manner::Silent | Manner::Answering(_) | Manner::Http(_) => {}
        }
        let Ok(count @ 1..) = stream.read(&mut bytes).await else {
            return;
        };
        heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(&bytes[..count]);
        match manner {
            Manner::Silent | Manner::Closing => {}
            Manner::Answering(words) => {
                if stream.write_all(words).await.is_err() {
                    return;
                }
            }
            Manner::Http(answer) => {
                before.extend_from_slice(&bytes[..count]);
                if before.windows(4).any(|some| some == b"\r\n\r\n") {
                    // An error means that the client is gone; then it reads nothing either.
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.get_ref().shutdown(Shutdown::Write);
                    // Closed with unread data, the socket would send RST and the answer could be lost.
                    while let Ok(1..) = stream.read(&mut bytes).await {}
                    return;
                }
            }
        }
    }
}

/// A port where nobody listens, nor can anybody start to.
#[derive(Debug)]
pub(crate) struct Refused {
    port: u16,
    _held: (TcpListener, TcpStream),
}

impl Refused {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        // The port of an outgoing connection is taken and takes no connection itself. A listener
        // closed again would do less: another test may be given its port.
        let stream = TcpStream::connect(address).expect("a connection");
        let own = stream
            .local_addr()
            .expect("a connected socket has an address");
        Self {
            port: own.port(),
            _held: (listener, stream),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `scheme://127.0.0.1:port`.
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }
}

/// A server that knows TLS 1.1 and nothing newer.
#[derive(Debug)]
pub(crate) struct OldTls {
    /// To read what it says.
    pub(crate) process: Process,
    port: u16,
}

impl OldTls {
    pub(crate) async fn start(identity: &Identity) -> Self {
        let (process, port) = Process::serve("openssl", |directory, port| {
            let (certificate, key) = identity.write(directory, "server");
            // The chain stands in the file of the certificate, of which -cert takes only the first.
            let chain = write(directory, "chain.pem", &identity.chain);
            let mut words: Vec<_> = [
                "s_server",
                "-tls1_1",
                "-cipher",
                "DEFAULT:@SECLEVEL=0",
                "-www",
            ]
            .map(str::to_owned)
            .to_vec();
            words.extend(["-accept".to_owned(), format!("127.0.0.1:{port}")]);
            for (option, path) in [
                ("-cert", certificate),
                ("-key", key),
                ("-cert_chain", chain),
            ] {
                words.extend([option.to_owned(), path.display().to_string()]);
            }
            words
        })
        .await;
        Self { process, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `scheme://localhost:port`.
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.port)
    }
}
