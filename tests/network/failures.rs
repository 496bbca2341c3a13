//! What stands in the way, each as its user sees it: one sentence, in time, and the client goes on trying.

use std::time::{Duration, Instant};

use coracle::{Blame, Error, ErrorKind, Event, Options, Tls, Version};

use crate::front::{self, Demand, Front};
use crate::ground::Scratch;
use crate::peers::{
    BAD_REQUEST, CONNACK, FORBIDDEN, GARBAGE, NOT_FOUND, OldTls, PAGE, Peer, Refused,
};
use crate::pki::Authority;
use crate::site::{Door, Site};
use crate::world::{World, options_at, run};

/// How long somebody who says nothing is waited for.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);

/// What is said of somebody who only hangs up.
const HUNG_UP: &str =
    "the other side ended the connection; perhaps it expects another protocol there";

fn options(url: &str, tls: Tls) -> Options {
    options_at(url, Version::V5_0, "pump-1").tls(tls)
}

/// What the first attempt fails with. A second one follows, and fails with the same.
pub(crate) async fn failure(world: &World, options: Options) -> Error {
    let device = world.device(options);
    let mut events = device.client.events();
    let mut failures = Vec::new();
    while failures.len() < 2 {
        match events.next().await {
            Some(Event::ConnectFailed { error, .. }) => failures.push(error),
            Some(Event::Connected { .. }) => panic!("it has connected"),
            Some(_) => {}
            None => panic!("the client has ended"),
        }
    }
    let [first, second] = &failures[..] else {
        panic!("{failures:?}");
    };
    let kinds = [first, second].map(|error| match error.kind() {
        ErrorKind::Unreachable(obstacle) => std::mem::discriminant(obstacle.cause()),
        kind => panic!("{error}: {kind:?}"),
    });
    assert_eq!(kinds[0], kinds[1], "{first} / {second}");
    failures.remove(0)
}

#[expect(clippy::disallowed_methods, reason = "a limit to real time is tested")]
fn now() -> Instant {
    Instant::now()
}

/// Checks the sentence, in which `{}` stands for the URL with which the attempt was made.
#[track_caller]
fn says(error: &Error, url: &str, sentence: &str) {
    let expected = format!("connect: {url}: {sentence}");
    assert_eq!(error.to_string(), expected);
    println!("{error}");
}

#[test]
fn a_certificate_that_is_not_to_be_trusted() {
    run(async |world| {
        let (ours, other) = (Authority::new(), Authority::new());
        let names = &["localhost"];
        for (identity, sentence) in [
            (
                other.server(names),
                "TLS with localhost: the certificate is not signed by an authority that is trusted here",
            ),
            (
                ours.expired_server(names),
                "TLS with localhost: the certificate has expired, or the clock of this device is wrong",
            ),
            (
                ours.not_yet_valid_server(names),
                "TLS with localhost: the certificate is not valid yet, or the clock of this device is wrong",
            ),
            (
                ours.server(&[]),
                "TLS with localhost: the certificate is not for this name: it has no subjectAltName, where localhost would have to stand",
            ),
            (
                ours.server(&["broker.test", "other.test"]),
                "TLS with localhost: the certificate is not for this name: it is for broker.test, other.test and not for localhost",
            ),
        ] {
            let site = Site::start("allow_anonymous true\n", &ours, &identity).await;
            let url = site.url(Door::Tls);
            let error = failure(&world, options(&url, Tls::new().roots(ours.root()))).await;
            says(&error, &url, sentence);
            assert_eq!(error.blame(), Blame::Broker);
            assert!(error.is_permanent());
        }
        // The broker shows the certificate that is trusted itself, as many instructions for tests have it.
        let own = Authority::self_signed_server("localhost");
        let site = Site::start("allow_anonymous true\n", &ours, &own).await;
        let url = site.url(Door::Tls);
        let error = failure(&world, options(&url, Tls::new().roots(own.chain.as_str()))).await;
        says(
            &error,
            &url,
            "TLS with localhost: the certificate is not accepted: it is the one of an authority; the broker needs one of its own, signed by it (CA:FALSE)",
        );
        // And one as `openssl x509 -req` makes it without extensions.
        let own = Authority::server_of_version_1("localhost");
        let site = Site::start("allow_anonymous true\n", &ours, &own).await;
        let url = site.url(Door::Tls);
        let error = failure(&world, options(&url, Tls::new().roots(ours.root()))).await;
        says(
            &error,
            &url,
            "TLS with localhost: the certificate is not accepted: it is of version 1; version 3 is needed, with a subjectAltName for a broker",
        );
        // Nobody in the world has signed for this broker.
        let site = Site::open(&ours).await;
        let url = site.url(Door::Tls);
        for tls in [Tls::new(), Tls::new().system_roots()] {
            let error = failure(&world, options(&url, tls)).await;
            says(
                &error,
                &url,
                "TLS with localhost: the certificate is not signed by an authority that is trusted here",
            );
        }
    });
}

#[test]
fn a_client_certificate_that_is_missing_or_refused() {
    run(async |world| {
        let (ours, other) = (Authority::new(), Authority::new());
        let site = Site::open(&ours).await;
        let trusting = || Tls::new().roots(ours.root());
        let (stranger, expired) = (other.client("pump-1"), ours.expired_client("pump-1"));
        // Mosquitto, then each version of TLS on its own: they tell it at different moments.
        let mut urls = vec![site.url(Door::ClientCertificate)];
        let fronts = [front::Tls::V1_2, front::Tls::V1_3].map(|version| {
            let demand = Demand {
                clients: Some(&ours),
                version: Some(version),
                ..Demand::default()
            };
            Front::start(site.port(Door::Tcp), &ours.server(&["localhost"]), &demand)
        });
        urls.extend(fronts.iter().map(|front| front.url("mqtts")));
        for url in &urls {
            let error = failure(&world, options(url, trusting())).await;
            says(
                &error,
                url,
                "TLS with localhost: the broker wants a client certificate and none is set",
            );
            assert_eq!(error.blame(), Blame::You);
            for own in [&stranger, &expired] {
                let tls = trusting().client_certificate(own.chain.as_str(), own.key.as_str());
                let error = failure(&world, options(url, tls)).await;
                let text = error.to_string();
                assert!(
                    text.contains("TLS with localhost: the broker refused the client certificate: it sent the alert "),
                    "{text}"
                );
                println!("{text}");
                assert_eq!(error.blame(), Blame::You);
                assert!(error.is_permanent());
            }
        }
    });
}

#[test]
fn an_application_protocol_that_the_broker_does_not_know() {
    run(async |world| {
        let ours = Authority::new();
        let site = Site::open(&ours).await;
        let demand = Demand {
            alpn: Some("x-amzn-mqtt-ca"),
            ..Demand::default()
        };
        let front = Front::start(site.port(Door::Tcp), &ours.server(&["localhost"]), &demand);
        let url = front.url("mqtts");
        let tls = Tls::new().roots(ours.root()).alpn(["mqtt"]);
        let error = failure(&world, options(&url, tls)).await;
        says(
            &error,
            &url,
            "TLS with localhost: it knows none of the application protocols (ALPN) offered",
        );
    });
}

#[test]
fn a_version_of_tls_that_is_too_old() {
    run(async |world| {
        let ours = Authority::new();
        let identity = ours.server(&["localhost"]);
        let old = OldTls::start(&identity).await;
        let url = old.url("mqtts");
        let error = failure(&world, options(&url, Tls::new().roots(ours.root()))).await;
        let text = error.to_string();
        assert!(
            text.starts_with(&format!(
                "connect: {url}: TLS with localhost: no version of TLS or cipher in common: "
            )),
            "{text}"
        );
        println!("{text}");
        // A broker of TLS 1.2 for who wants 1.3.
        let demand = Demand {
            version: Some(front::Tls::V1_2),
            ..Demand::default()
        };
        let front = Front::start(old.port(), &identity, &demand);
        let tls = Tls::new()
            .roots(ours.root())
            .minimum_version(coracle::TlsVersion::V1_3);
        let error = failure(&world, options(&front.url("mqtts"), tls)).await;
        let text = error.to_string();
        assert!(
            text.contains("no version of TLS or cipher in common: "),
            "{text}"
        );
        println!("{text}");
    });
}

#[test]
fn somebody_who_speaks_something_else_on_a_port_for_tls() {
    run(async |world| {
        let ours = Authority::new();
        for words in [GARBAGE, CONNACK] {
            let peer = Peer::answering(words);
            let url = peer.url("mqtts");
            let error = failure(&world, options(&url, Tls::new().roots(ours.root()))).await;
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("connect: {url}: TLS with localhost: ")),
                "{text}"
            );
            println!("{text}");
        }
        // A web server takes the first bytes for a bad request. Not `Peer::http`, which waits for a whole one.
        let peer = Peer::answering(BAD_REQUEST);
        let url = peer.url("mqtts");
        let error = failure(&world, options(&url, Tls::new().roots(ours.root()))).await;
        says(
            &error,
            &url,
            "TLS with localhost: it speaks something else: what it sent is not TLS, so perhaps this is a port without TLS",
        );
        // Mosquitto itself, on its plain port, only hangs up.
        let site = Site::open(&ours).await;
        let url = format!("mqtts://localhost:{}", site.port(Door::Tcp));
        let error = failure(&world, options(&url, Tls::new().roots(ours.root()))).await;
        says(&error, &url, &format!("TLS with localhost: {HUNG_UP}"));
    });
}

#[test]
fn somebody_who_never_says_a_word() {
    run(async |world| {
        let peer = Peer::silent();
        for (scheme, step) in [
            ("mqtts", "TLS with localhost"),
            #[cfg(feature = "websocket")]
            ("ws", "WebSocket with localhost"),
            #[cfg(feature = "websocket")]
            ("wss", "TLS with localhost"),
        ] {
            let url = peer.url(scheme);
            let begin = now();
            let options = options(&url, Tls::new()).step_timeout(SILENCE);
            let error = failure(&world, options).await;
            // Twice the step, and well below the limit of a whole attempt.
            let took = begin.elapsed();
            assert!(took < Duration::from_secs(15), "{took:?}");
            let text = error.to_string();
            assert!(
                text.contains(&format!("{step}: no answer within 400ms")),
                "{text}"
            );
            println!("{text}");
            assert_eq!(error.blame(), Blame::Limit);
        }
    });
}

#[test]
fn nobody_at_all() {
    run(async |world| {
        let refused = Refused::new();
        let url = refused.url("mqtt");
        let error = failure(&world, options(&url, Tls::new())).await;
        let text = error.to_string();
        let sentence = format!(
            "connect: {url}: TCP to 127.0.0.1:{}: Connection refused",
            refused.port()
        );
        assert!(text.starts_with(&sentence), "{text}");
        println!("{text}");
        assert_eq!(error.blame(), Blame::Network);
        assert!(!error.is_permanent());
        let scratch = Scratch::new();
        let url = format!("unix://{}/nobody.sock", scratch.path().display());
        let error = failure(&world, options(&url, Tls::new())).await;
        let text = error.to_string();
        assert!(text.contains("nobody.sock: No such file"), "{text}");
        println!("{text}");
    });
}

#[cfg(feature = "websocket")]
#[test]
fn a_web_server_where_a_websocket_was_expected() {
    run(async |world| {
        for (answer, status) in [(NOT_FOUND, 404), (FORBIDDEN, 403), (PAGE, 200)] {
            let peer = Peer::http(answer);
            let url = peer.url("ws");
            let error = failure(&world, options(&url, Tls::new())).await;
            let text = error.to_string();
            assert!(
                text.ends_with(&format!(
                    "WebSocket with localhost: it answered the upgrade with HTTP status {status}"
                )),
                "{text}"
            );
            println!("{text}");
        }
        let peer = Peer::answering(CONNACK);
        let error = failure(&world, options(&peer.url("ws"), Tls::new())).await;
        let text = error.to_string();
        assert!(
            text.contains("WebSocket with localhost: it speaks something else: "),
            "{text}"
        );
        println!("{text}");
        let peer = Peer::closing();
        let url = peer.url("ws");
        let error = failure(&world, options(&url, Tls::new())).await;
        let url = format!("{url}/mqtt");
        says(
            &error,
            &url,
            &format!("WebSocket with localhost: {HUNG_UP}"),
        );
    });
}

#[test]
fn settings_that_cannot_be_used() {
    run(async |world| {
        let ours = Authority::new();
        let site = Site::open(&ours).await;
        let url = site.url(Door::ClientCertificate);
        let own = ours.client("pump-1");
        let other = ours.client("pump-2");
        let scratch = Scratch::new();
        let missing = scratch.path().join("missing.pem");
        let trusting = || Tls::new().roots(ours.root());
        for (tls, sentence) in [
            (
                Tls::new().roots_file(&missing),
                format!(
                    "the authorities to trust in {}: No such file or directory (os error 2)",
                    missing.display()
                ),
            ),
            (
                Tls::new().roots(""),
                "the authorities to trust: the PEM holds no certificate".to_owned(),
            ),
            (
                Tls::new().roots("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
                "the authorities to trust: not PEM: ".to_owned(),
            ),
            (
                trusting().client_certificate(own.chain.as_str(), "secret"),
                "the client key: no PEM with a PKCS#8, PKCS#1 or SEC1 key".to_owned(),
            ),
            (
                trusting().client_certificate(own.chain.as_str(), own.encrypted_key("secret")),
                "the client key: it is encrypted; one without a passphrase is needed".to_owned(),
            ),
            (
                trusting().client_certificate("", own.key.as_str()),
                "the client certificate: the PEM holds no certificate".to_owned(),
            ),
            (
                trusting().client_certificate(own.chain.as_str(), other.key.as_str()),
                "the client key: it does not belong to the client certificate".to_owned(),
            ),
            (
                trusting().server_name("no name"),
                "\"no name\" is neither a name nor an address".to_owned(),
            ),
        ] {
            let error = failure(&world, options(&url, tls)).await;
            let text = error.to_string();
            let start = format!("connect: {url}: TLS with localhost: {sentence}");
            assert!(text.starts_with(&start), "{text}\n{start}");
            assert!(!text.contains("secret"), "{text}");
            println!("{text}");
            assert_eq!(error.blame(), Blame::You);
            assert!(error.is_permanent());
        }
    });
}
