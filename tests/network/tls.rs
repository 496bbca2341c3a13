//! TLS as a device wants it: keys in every form, rotated without a restart, sessions resumed, ALPN.

use std::sync::Arc;

use coracle::rustls::crypto::ring;
use coracle::rustls::pki_types::CertificateDer;
use coracle::rustls::pki_types::pem::PemObject;
use coracle::rustls::{ClientConfig, RootCertStore};
use coracle::{ErrorKind, Event, Options, Tls, TlsVersion, Version};

use crate::front::{self, Demand, Front, Handshake};
use crate::ground::Scratch;
use crate::pki::{self, Authority};
use crate::schemes::exchange;
use crate::site::{Door, Site};
use crate::world::{next_connection, options_at, run};

fn options(url: &str, tls: Tls) -> Options {
    options_at(url, Version::V5_0, "pump-1").tls(tls)
}

#[test]
fn a_client_key_may_be_in_each_form() {
    run(async |world| {
        let ours = Authority::new();
        let site = Site::open(&ours).await;
        let (ec, rsa) = (ours.client("pump-1"), ours.rsa_client("pump-2"));
        for (own, key) in [
            (&ec, ec.key.clone()),
            (&ec, ec.sec1_key()),
            (&rsa, rsa.key.clone()),
            (&rsa, rsa.pkcs1_key()),
        ] {
            let scratch = Scratch::new();
            let certificate_file = pki::write(scratch.path(), "cert.pem", &own.chain);
            let key_file = pki::write(scratch.path(), "key.pem", &key);
            let trusting = Tls::new().roots(ours.root());
            for tls in [
                trusting.clone().client_certificate(own.chain.as_str(), key),
                trusting.client_certificate_files(certificate_file, key_file),
            ] {
                let url = site.url(Door::ClientCertificate);
                let client = world.client(options(&url, tls)).await;
                client.disconnect().await.expect("nothing stays");
            }
        }
    });
}

#[test]
fn certificates_are_rotated_without_a_restart() {
    run(async |world| {
        let (old, new) = (Authority::new(), Authority::new());
        let mut site = Site::open(&old).await;
        let scratch = Scratch::new();
        let roots = pki::write(scratch.path(), "ca.pem", old.root());
        // Signed by the wrong authority at first: the device waits for its papers.
        let (certificate, key) = new.client("pump-1").write(scratch.path(), "own");
        let tls = Tls::new()
            .roots_file(roots)
            .client_certificate_files(certificate, key);
        let device = world.device(options(&site.url(Door::ClientCertificate), tls));
        let mut events = device.client.events();
        loop {
            match events.next().await {
                Some(Event::ConnectFailed { error, .. }) => {
                    assert!(matches!(error.kind(), ErrorKind::Unreachable(_)), "{error}");
                    break;
                }
                Some(Event::Connected { .. }) | None => panic!("it is not to be let in"),
                Some(_) => {}
            }
        }
        old.client("pump-1").write(scratch.path(), "own");
        next_connection(&mut events).await;
        // Then the broker moves to another authority, for itself.
        site.broker.stop().await;
        site.replace(&new.server(&["localhost"]));
        site.broker.start_again().await;
        loop {
            match events.next().await {
                Some(Event::ConnectFailed { error, .. })
                    if error.to_string().contains("not signed by an authority") =>
                {
                    break;
                }
                Some(Event::Connected { .. }) | None => panic!("it is not to be trusted yet"),
                Some(_) => {}
            }
        }
        pki::write(scratch.path(), "ca.pem", new.root());
        next_connection(&mut events).await;
        device.client.disconnect().await.expect("nothing stays");
    });
}

#[test]
fn a_session_of_tls_is_resumed_at_each_reconnect() {
    run(async |world| {
        let ours = Authority::new();
        let site = Site::open(&ours).await;
        let own = ours.client("pump-1");
        for version in [front::Tls::V1_2, front::Tls::V1_3] {
            let demand = Demand {
                clients: Some(&ours),
                version: Some(version),
                ..Demand::default()
            };
            let front = Front::start(site.port(Door::Tcp), &ours.server(&["localhost"]), &demand);
            let scratch = Scratch::new();
            let roots = pki::write(scratch.path(), "ca.pem", ours.root());
            let tls = Tls::new()
                .roots_file(roots)
                .client_certificate(own.chain.as_str(), own.key.as_str());
            let device = world.device(options(&front.url("mqtts"), tls));
            let mut events = device.client.events();
            next_connection(&mut events).await;
            for _ in 0..100 {
                device.client.reconnect().expect("it is open");
                next_connection(&mut events).await;
            }
            assert_eq!(front.count(Handshake::Full), 1, "{version:?}");
            assert_eq!(front.count(Handshake::Resumed), 100, "{version:?}");
            // Other authorities: what was trusted before counts no more.
            let both = format!("{}{}", ours.root(), Authority::new().root());
            pki::write(scratch.path(), "ca.pem", &both);
            device.client.reconnect().expect("it is open");
            next_connection(&mut events).await;
            assert_eq!(front.count(Handshake::Full), 2, "{version:?}");
            device.client.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn the_application_protocol_and_the_name_are_asked_for() {
    run(async |world| {
        let ours = Authority::new();
        let site = Site::open(&ours).await;
        let demand = Demand {
            alpn: Some("x-amzn-mqtt-ca"),
            ..Demand::default()
        };
        let identity = ours.server(&["localhost", "broker.test", "127.0.0.1"]);
        let front = Front::start(site.port(Door::Tcp), &identity, &demand);
        let tls = Tls::new().roots(ours.root()).alpn(["x-amzn-mqtt-ca"]);
        let by_address = format!("mqtts://127.0.0.1:{}", front.listening.port());
        for (url, tls, name) in [
            (front.url("mqtts"), tls.clone(), Some("localhost")),
            (by_address.clone(), tls.clone(), None),
            (
                by_address,
                tls.server_name("broker.test"),
                Some("broker.test"),
            ),
        ] {
            let client = world.client(options(&url, tls)).await;
            exchange(&client, "alpn").await;
            client.disconnect().await.expect("nothing stays");
            let greeting = front.greetings().pop().expect("it came");
            assert_eq!(greeting.server_name.as_deref(), name, "{url}");
            assert_eq!(greeting.alpn, ["x-amzn-mqtt-ca"]);
        }
    });
}

#[test]
fn tls_1_3_can_be_demanded() {
    run(async |world| {
        let ours = Authority::new();
        let site = Site::open(&ours).await;
        let tls = Tls::new()
            .roots(ours.root())
            .minimum_version(TlsVersion::V1_3);
        let client = world.client(options(&site.url(Door::Tls), tls)).await;
        client.disconnect().await.expect("nothing stays");
    });
}

#[test]
fn verification_is_skipped_only_by_its_loud_switch() {
    run(async |world| {
        let ours = Authority::new();
        let identity = ours.expired_server(&["other.test"]);
        let site = Site::start("allow_anonymous true\n", &ours, &identity).await;
        let tls = Tls::new().dangerously_accept_any_certificate();
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            let tls = tls.clone().minimum_version(version);
            let client = world.client(options(&site.url(Door::Tls), tls)).await;
            exchange(&client, "any").await;
            client.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn a_configuration_of_rustls_is_used_as_it_is() {
    run(async |world| {
        let ours = Authority::new();
        let site = Site::open(&ours).await;
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(ours.root().as_bytes());
        roots.add(root.expect("a certificate")).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Other settings do not count beside it.
        let tls = Tls::new().roots("").client_config(Arc::new(config));
        let client = world.client(options(&site.url(Door::Tls), tls)).await;
        exchange(&client, "own").await;
        client.disconnect().await.expect("nothing stays");
    });
}

#[test]
fn settings_never_show_a_key() {
    let ours = Authority::new();
    let own = ours.client("pump-1");
    let tls = Tls::new()
        .roots(ours.root())
        .client_certificate(own.chain.as_str(), own.key.as_str());
    let secret = own.key.lines().nth(1).expect("PEM has lines");
    let options = options("mqtts://broker.test", tls.clone());
    for text in [
        format!("{tls:?}"),
        format!("{tls:#?}"),
        format!("{options:?}"),
    ] {
        assert!(!text.contains(secret), "{text}");
    }
}
