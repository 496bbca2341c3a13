//! Handshakes that are cut at every byte: each attempt ends with an error, and the client comes back.

use std::sync::Arc;

use coracle::rustls::client::Resumption;
use coracle::rustls::crypto::ring;
use coracle::rustls::pki_types::CertificateDer;
use coracle::rustls::pki_types::pem::PemObject;
use coracle::rustls::{ClientConfig, RootCertStore};
use coracle::{Event, Options, Tls, Version};

use crate::pki::Authority;
use crate::relay::{Direction, End, Mode, Relay};
use crate::site::{Door, Site};
use crate::world::{next_connection, options_at, run};

/// TLS without resumption, so that each handshake is a whole one.
fn tls(authority: &Authority) -> Tls {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.root().as_bytes());
    roots.add(root.expect("a certificate")).expect("a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Tls::new().client_config(Arc::new(config))
}

fn options(url: &str, authority: &Authority) -> Options {
    options_at(url, Version::V5_0, "cut")
        .tls(tls(authority))
        .retry_delays(std::time::Duration::ZERO, std::time::Duration::ZERO)
}

/// Cuts at every `step`-th byte of a direction, from the first byte to the last one before CONNACK.
fn cut(door: Door, scheme: &str, of: Direction, by: End, step: usize) {
    run(async |world| {
        let authority = Authority::new();
        let site = Site::open(&authority).await;
        let whole = Relay::start(site.port(door), &[Mode::Whole]);
        let client = world.client(options(&whole.url(scheme), &authority)).await;
        let total = whole.bytes(of);
        client.disconnect().await.expect("nothing stays");
        // Signatures differ by a few bytes in length; CONNACK and CONNECT have more than these.
        let end = total - 12;
        let mut modes: Vec<_> = (0..end)
            .step_by(step)
            .map(|after| Mode::Cut { after, of, by })
            .collect();
        let cuts = modes.len();
        modes.push(Mode::Whole);
        let relay = Relay::start(site.port(door), &modes);
        let device = world.device(options(&relay.url(scheme), &authority));
        let mut events = device.client.events();
        let mut failed = 0;
        loop {
            match events.next().await {
                Some(Event::ConnectFailed { error, .. }) => {
                    assert!(error.way().is_some(), "{error}");
                    failed += 1;
                }
                Some(Event::Connected { .. }) => break,
                Some(Event::Disconnected { error, .. }) => panic!("{error}"),
                Some(_) => {}
                None => panic!("the client has ended"),
            }
        }
        assert_eq!(failed, cuts, "{scheme}, {of:?}, {by:?}");
        println!("{scheme}, {of:?}, {by:?}: {cuts} cuts");
        device.client.reconnect().expect("it is open");
        next_connection(&mut events).await;
        device.client.disconnect().await.expect("nothing stays");
    });
}

#[test]
fn a_handshake_of_tls_may_be_cut_at_every_byte_that_the_broker_sends() {
    cut(Door::Tls, "mqtts", Direction::ToClient, End::Fin, 1);
}

#[test]
fn a_handshake_of_tls_may_be_reset_anywhere() {
    cut(Door::Tls, "mqtts", Direction::ToClient, End::Reset, 7);
}

#[test]
fn a_handshake_of_tls_may_be_cut_at_every_byte_that_the_client_sends() {
    cut(Door::Tls, "mqtts", Direction::ToServer, End::Fin, 1);
}

#[cfg(feature = "websocket")]
#[test]
fn an_upgrade_may_be_cut_at_every_byte() {
    cut(Door::WebSocket, "ws", Direction::ToClient, End::Fin, 1);
    cut(Door::WebSocket, "ws", Direction::ToServer, End::Fin, 1);
    cut(Door::WebSocket, "ws", Direction::ToClient, End::Reset, 11);
}

#[cfg(feature = "websocket")]
#[test]
fn an_upgrade_within_tls_may_be_cut_anywhere() {
    cut(
        Door::SecureWebSocket,
        "wss",
        Direction::ToClient,
        End::Fin,
        7,
    );
}
