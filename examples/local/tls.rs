//! A broker behind TLS that insists on a client certificate and on an application protocol, as clouds do
//! on port 443: for examples that are to run where there is no such broker.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use async_io::Async;
use coracle::LocalExecutor;
use coracle::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use coracle::rustls::server::WebPkiClientVerifier;
use coracle::rustls::{RootCertStore, ServerConfig, crypto::ring};
use futures_rustls::TlsAcceptor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::relay::relay;

/// What a client needs to get in, as PEM.
pub(crate) struct Papers {
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Listens on a port of its own and passes everything on to the broker at `target`. Returns the port, and
/// the papers that it wants to see.
pub(crate) fn listen<'a>(
    executor: &LocalExecutor<'a>,
    target: SocketAddr,
    alpn: &str,
) -> Result<(u16, Papers), Box<dyn Error>> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let server_key = KeyPair::generate()?;
    let server = CertificateParams::new(["localhost".to_owned()])?;
    let server = server.signed_by(&server_key, &authority)?;

    let client_key = KeyPair::generate()?;
    let mut client = CertificateParams::default();
    client.distinguished_name.push(DnType::CommonName, "pump-1");
    let client = client.signed_by(&client_key, &authority)?;

    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone())?;
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain: Vec<CertificateDer<'static>> = vec![server.der().clone()];
    let key = PrivateKeyDer::try_from(server_key.serialize_der())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];

    let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.get_ref().local_addr()?.port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    executor
        .spawn(async move {
            loop {
                // One after the other is enough for an example.
                if let Err(error) = serve(&listener, &acceptor, target).await {
                    eprintln!("the listener: {error}");
                }
            }
        })
        .detach();
    let papers = Papers {
        authority: authority.pem(),
        certificate: client.pem(),
        key: client_key.serialize_pem(),
    };
    Ok((port, papers))
}

async fn serve(
    listener: &Async<TcpListener>,
    acceptor: &TlsAcceptor,
    target: SocketAddr,
) -> io::Result<()> {
    let (socket, _) = listener.accept().await?;
    let stream = acceptor.accept(socket).await?;
    // A client that offers nothing is let through by TLS itself.
    let Some(name) = stream.get_ref().1.alpn_protocol() else {
        return Err(io::Error::other("a client did not ask for the protocol"));
    };
    let name = String::from_utf8_lossy(name);
    println!("the listener: a client certificate was shown and {name} agreed on");
    relay(stream, target).await
}
