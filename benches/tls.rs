//! Publishing over TLS, beside a bare loop that writes the same bytes through futures-rustls.
//!
//! ```text
//! cargo bench --bench tls
//! ```
//!
//! The other side only decrypts, on a thread of its own. Both numbers come from one run, because they depend
//! on the machine; their ratio is what counts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use async_io::Async;
use coracle::codec;
use coracle::rustls::pki_types::{PrivateKeyDer, ServerName};
use coracle::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring};
use coracle::{
    Client, LocalExecutor, Options, PropertyList, Qos, Result, Tls, Version, Wait, block_on,
};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::{TlsAcceptor, TlsConnector};

const TOPIC: &str = "bench/tls/topic";
const PAYLOAD: [u8; 1024] = [0x55; 1024];
const MESSAGES: usize = 400_000;
const RUNS: usize = 9;
/// As many as the bare loop writes at a time.
const BATCH: usize = 62;

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A certificate for `localhost` that signs itself.
struct Papers {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Papers {
    fn new() -> Outcome<Self> {
        let key = rcgen::KeyPair::generate()?;
        let parameters = rcgen::CertificateParams::new(["localhost".to_owned()])?;
        let certificate = parameters.self_signed(&key)?;
        Ok(Self { certificate, key })
    }

    fn server(&self) -> Outcome<Arc<ServerConfig>> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der())?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)?;
        Ok(Arc::new(config))
    }

    fn client(&self) -> Outcome<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone())?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// Takes one connection, answers the first bytes with CONNACK and drops the rest.
fn sink(listener: TcpListener, config: Arc<ServerConfig>) -> io::Result<()> {
    block_on(async {
        let (socket, _) = Async::new(listener)?.accept().await?;
        let mut stream = TlsAcceptor::from(config).accept(socket).await?;
        let mut bytes = vec![0; 64 * 1024];
        if stream.read(&mut bytes).await? > 0 {
            stream.write_all(&[0x20, 3, 0, 0, 0]).await?;
            stream.flush().await?;
        }
        while stream.read(&mut bytes).await? > 0 {}
        Ok(())
    })
}

fn listen(papers: &Papers) -> Outcome<(SocketAddr, thread::JoinHandle<io::Result<()>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let config = papers.server()?;
    Ok((address, thread::spawn(move || sink(listener, config))))
}

/// Messages per second through the client.
fn client(papers: &Papers) -> Outcome<f64> {
    let (address, sink) = listen(papers)?;
    let executor = LocalExecutor::new();
    let seconds = block_on(executor.run(async {
        let options = Options::new(&format!("mqtts://localhost:{}", address.port()), "bench")?
            .tls(Tls::new().roots(papers.certificate.pem()));
        let (client, driver) = Client::new(options);
        let running = executor.spawn(driver.run());
        client.connected().await?;
        publish(&client, MESSAGES / 10).await?;
        let start = now();
        publish(&client, MESSAGES).await?;
        let seconds = start.elapsed().as_secs_f64();
        client.disconnect().await?;
        running.await?;
        Result::Ok(seconds)
    }))?;
    // It may be told of the end by a reset.
    let _ = sink.join().expect("the other side does not panic");
    Ok(MESSAGES as f64 / seconds)
}

/// As a program does that reads a sensor or a file: a batch is put into the buffer, and its last message
/// waits until all of it was handed to the system. What is written is then still in the cache.
async fn publish(client: &Client, messages: usize) -> Result<()> {
    for nth in 1..=messages {
        let wait = if nth % BATCH == 0 || nth == messages {
            Wait::Sent
        } else {
            Wait::None
        };
        client
            .publish(TOPIC, &PAYLOAD, Qos::AtMostOnce, wait)
            .await?;
    }
    Ok(())
}

/// Messages per second of a bare loop that writes the same bytes, 64 KiB at a time.
fn bare(papers: &Papers) -> Outcome<f64> {
    let (address, sink) = listen(papers)?;
    let publish = codec::Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: TOPIC,
        id: None,
        properties: PropertyList::EMPTY,
        payload: &PAYLOAD,
    };
    let mut one = Vec::new();
    publish
        .encode(Version::V5_0, &mut one)
        .expect("a small packet fits");
    let per_write = 64 * 1024 / one.len();
    let many = one.repeat(per_write);
    let config = papers.client()?;
    let seconds = block_on(async {
        let socket = Async::<TcpStream>::connect(address).await?;
        socket.get_ref().set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut stream = TlsConnector::from(config).connect(name, socket).await?;
        for _ in 0..MESSAGES / 10 / per_write {
            stream.write_all(&many).await?;
        }
        stream.flush().await?;
        let start = now();
        for _ in 0..MESSAGES / per_write {
            stream.write_all(&many).await?;
        }
        stream.flush().await?;
        let seconds = start.elapsed().as_secs_f64();
        stream.close().await?;
        io::Result::Ok(seconds)
    })?;
    let _ = sink.join().expect("the other side does not panic");
    Ok((MESSAGES / per_write * per_write) as f64 / seconds)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn main() -> Outcome<()> {
    let papers = Papers::new()?;
    println!("QoS 0 over TLS, 1 KiB payloads, messages per second, {RUNS} runs");
    for _ in 0..RUNS {
        let (bare, client) = (bare(&papers)?, client(&papers)?);
        println!(
            "bare loop {bare:>10.0}   client {client:>10.0}   {:>5.1} %",
            100.0 * client / bare
        );
    }
    Ok(())
}
