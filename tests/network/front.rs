//! A TLS server in front of a plain one, that insists on what a cloud insists on and counts handshakes.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::LazyConfigAcceptor;
use futures_rustls::pki_types::pem::PemObject;
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::server::{Acceptor, WebPkiClientVerifier};
use futures_rustls::rustls::version::{TLS12, TLS13};
use futures_rustls::rustls::{HandshakeKind, RootCertStore, ServerConfig};
use smol::{Async, future};

use crate::listening::Listening;
use crate::pki::{Authority, Identity};

/// What a front insists on. Defaults to nothing, with TLS 1.2 and 1.3.
#[derive(Default)]
pub(crate) struct Demand<'a> {
    /// That the client offers exactly this application protocol and no other.
    pub(crate) alpn: Option<&'static str>,
    /// That the client has a certificate of this authority.
    pub(crate) clients: Option<&'a Authority>,
    /// That it is TLS of this version.
    pub(crate) version: Option<Tls>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    V1_2,
    V1_3,
}

/// What a client said in its first words, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// The name of the server (RFC 6066, section 3); an IP address is not sent.
    pub(crate) server_name: Option<String>,
    /// The application protocols that it offers, in its order.
    pub(crate) alpn: Vec<String>,
    pub(crate) handshake: Handshake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// Not done, or not yet.
    Open,
    /// Done with certificates.
    Full,
    /// Done as the continuation of an earlier session.
    Resumed,
}

/// A TLS server on a thread of its own, ended with its owner.
#[derive(Debug)]
pub(crate) struct Front {
    /// To count the connections and to name the port.
    pub(crate) listening: Listening,
    greetings: Arc<Mutex<Vec<Greeting>>>,
}

impl Front {
    /// Passes what it deciphers on to a port of this machine. It keeps sessions, and thereby resumes them,
    /// as long as it lives.
    pub(crate) fn start(port: u16, identity: &Identity, demand: &Demand<'_>) -> Self {
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config = Arc::new(config(identity, demand));
        let alpn = demand.alpn;
        let greetings = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&greetings);
        let listening = Listening::start(move |stream, _| {
            let (config, list) = (Arc::clone(&config), Arc::clone(&list));
            async move {
                // Who is not let in, and who leaves, just loses the connection.
                let _ = serve(stream, config, alpn, server, &list).await;
            }
        });
        Self {
            listening,
            greetings,
        }
    }

    /// Where clients find it: `scheme://localhost:port`.
    pub(crate) fn url(&self, scheme: &str) -> String {
        self.listening.url(scheme)
    }

    /// What all clients have said, in the order in which they came.
    pub(crate) fn greetings(&self) -> Vec<Greeting> {
        lock(&self.greetings).clone()
    }

    /// How many handshakes came to this.
    pub(crate) fn count(&self, handshake: Handshake) -> usize {
        let all = lock(&self.greetings);
        all.iter()
            .filter(|greeting| greeting.handshake == handshake)
            .count()
    }
}

fn config(identity: &Identity, demand: &Demand<'_>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let versions = match demand.version {
        None => vec![&TLS12, &TLS13],
        Some(Tls::V1_2) => vec![&TLS12],
        Some(Tls::V1_3) => vec![&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .expect("ring knows both versions");
    let builder = match demand.clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(authority.root().as_bytes());
            roots.add(root.expect("a certificate")).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let chain = CertificateDer::pem_slice_iter(identity.chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .expect("a chain");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
    let mut config = builder.with_single_cert(chain, key).expect("a pair");
    if let Some(name) = demand.alpn {
        config.alpn_protocols = vec![name.into()];
    }
    config
}

async fn serve(
    stream: Async<TcpStream>,
    config: Arc<ServerConfig>,
    alpn: Option<&str>,
    server: SocketAddr,
    greetings: &Mutex<Vec<Greeting>>,
) -> std::io::Result<()> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let hello = start.client_hello();
    let greeting = Greeting {
        server_name: hello.server_name().map(str::to_owned),
        alpn: hello
            .alpn()
            .into_iter()
            .flatten()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect(),
        handshake: Handshake::Open,
    };
    let welcome = alpn.is_none_or(|name| greeting.alpn == [name]);
    let nth = {
        let mut all = lock(greetings);
        all.push(greeting);
        all.len() - 1
    };
    // With another name than the demanded one this fails with the alert of RFC 7301, section 3.2.
    let mut client = start.into_stream(config).await?;
    let handshake = match client.get_ref().1.handshake_kind() {
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) => Handshake::Full,
        Some(HandshakeKind::Resumed) => Handshake::Resumed,
        None => Handshake::Open,
    };
    lock(greetings)[nth].handshake = handshake;
    if !welcome {
        return client.close().await;
    }
    let server = Async::<TcpStream>::connect(server).await?;
    let (from_client, mut to_client) = smol::io::split(client);
    let up = async {
        pass(from_client, &server).await?;
        server.get_ref().shutdown(Shutdown::Write)?;
        // The other direction ends the connection.
        future::pending().await
    };
    let down = async {
        pass(&server, &mut to_client).await?;
        to_client.close().await
    };
    future::or(up, down).await
}

/// Everything up to the end.
async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..count]).await?;
        // TLS keeps what the socket does not take at once.
        to.flush().await?;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
