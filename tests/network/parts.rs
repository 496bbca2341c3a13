//! The parts of these tests do what they are said to do, as programs see it that are not ours.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::broker::{Broker, OPEN, PERSISTENT};
use crate::front::{Demand, Front, Handshake, Tls};
use crate::ground::Scratch;
use crate::peers::{CONNACK, FORBIDDEN, GARBAGE, NOT_FOUND, OldTls, PAGE, Peer, Refused};
use crate::pki::{Authority, Identity, write};
use crate::process::Process;
use crate::proxies::Proxy;
use crate::relay::{Direction, End, Mode, Relay};
use crate::site::{Door, Site};
use crate::world::run;

/// The request of RFC 6455, section 1.3.
const UPGRADE: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// What answers it.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Publishes something with mosquitto_pub to a port of this machine, or else to where `arguments` say.
fn publish(port: Option<u16>, arguments: &[&str]) -> Process {
    let mut all = ["-t", "hall", "-m", "warm", "-q", "1", "-r", "-i", "outside"].to_vec();
    let text = port.unwrap_or_default().to_string();
    if port.is_some() {
        all.extend(["-h", "localhost", "-p", &text]);
    }
    all.extend(arguments);
    Process::start("mosquitto_pub", &all)
}

/// A connection to a port of this machine, after it was told something.
fn told(port: u16, words: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection");
    // Only a failing test waits for so long.
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("an option of the socket");
    stream.write_all(words).expect("a write");
    stream
}

/// The first line that a port of this machine answers to something.
fn answered(port: u16, words: &str) -> String {
    let mut stream = told(port, words.as_bytes());
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\r\n") && stream.read(&mut byte).expect("a byte") == 1 {
        line.extend(byte);
    }
    String::from_utf8(line).expect("text").trim_end().to_owned()
}

/// Everything that a port of this machine answers to something until it closes.
fn answer(port: u16, words: &str) -> String {
    let mut text = String::new();
    let mut stream = told(port, words.as_bytes());
    stream.read_to_string(&mut text).expect("an end");
    text
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a path of these tests is text")
}

/// Files of one client: the root that it trusts, its certificate and its key.
struct Files {
    _scratch: Scratch,
    paths: [String; 3],
}

impl Files {
    fn new(authority: &Authority, client: &Identity, key: &str) -> Self {
        let scratch = Scratch::new();
        let files = [
            ("root.pem", authority.root()),
            ("client.pem", client.chain.as_str()),
            ("client.key", key),
        ];
        let paths = files.map(|(name, text)| shown(&write(scratch.path(), name, text)).to_owned());
        Self {
            _scratch: scratch,
            paths,
        }
    }

    /// What the programs of mosquitto are to be told of a server that anyone may use.
    fn trusting(&self) -> [&str; 2] {
        ["--cafile", &self.paths[0]]
    }

    /// And of one that wants a certificate.
    fn identified(&self) -> [&str; 6] {
        let [root, certificate, key] = &self.paths;
        ["--cafile", root, "--cert", certificate, "--key", key]
    }

    /// What openssl is to be told to talk to this address, if it is `localhost` for certain.
    fn verifying<'a>(&'a self, address: &'a str) -> [&'a str; 8] {
        [
            "s_client",
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
            "-CAfile",
            &self.paths[0],
            "-connect",
            address,
        ]
    }
}

/// A client that only trusts the root.
fn trusting(authority: &Authority) -> Files {
    let client = authority.client("anyone");
    Files::new(authority, &client, &client.key)
}

#[test]
fn every_door_of_a_site_is_open() {
    run(async |_| {
        let authority = Authority::new();
        let site = Site::open(&authority).await;
        let files = trusting(&authority);
        publish(Some(site.port(Door::Tcp)), &[]).succeeded().await;
        publish(Some(site.port(Door::Tls)), &files.trusting())
            .succeeded()
            .await;
        publish(
            Some(site.port(Door::ClientCertificate)),
            &files.identified(),
        )
        .succeeded()
        .await;
        publish(None, &["--unix", shown(&site.socket())])
            .succeeded()
            .await;

        let answer = answered(site.port(Door::WebSocket), UPGRADE);
        assert_eq!(answer, "HTTP/1.1 101 Switching Protocols");
        let address = format!("localhost:{}", site.port(Door::SecureWebSocket));
        let arguments = [files.verifying(&address).as_slice(), &["-quiet"]].concat();
        let client = Process::start_telling("openssl", &arguments, UPGRADE);
        client.said(ACCEPT).await;
    });
}

#[test]
fn a_door_has_the_url_of_its_scheme() {
    run(async |_| {
        let site = Site::open(&Authority::new()).await;
        for (door, scheme) in [
            (Door::Tcp, "mqtt://localhost:"),
            (Door::Tls, "mqtts://localhost:"),
            (Door::ClientCertificate, "mqtts://localhost:"),
            (Door::WebSocket, "ws://localhost:"),
            (Door::SecureWebSocket, "wss://localhost:"),
            (Door::Unix, "unix:///"),
        ] {
            let url = site.url(door);
            assert!(url.starts_with(scheme), "{url}");
        }
    });
}

#[test]
fn a_client_is_known_by_its_certificate_whatever_the_form_of_its_key() {
    run(async |_| {
        let authority = Authority::new();
        let server = authority.server(&["localhost"]);
        // Users without a certificate would need a password, and there is none.
        let site = Site::start("allow_anonymous false\n", &authority, &server).await;
        let port = Some(site.port(Door::ClientCertificate));
        let (curve, rsa) = (authority.client("curve"), authority.rsa_client("rsa"));
        for (client, key, form) in [
            (&curve, curve.key.clone(), "BEGIN PRIVATE KEY"),
            (&curve, curve.sec1_key(), "BEGIN EC PRIVATE KEY"),
            (&rsa, rsa.key.clone(), "BEGIN PRIVATE KEY"),
            (&rsa, rsa.pkcs1_key(), "BEGIN RSA PRIVATE KEY"),
        ] {
            assert!(key.contains(form), "{form}");
            let files = Files::new(&authority, client, &key);
            publish(port, &files.identified()).succeeded().await;
        }
        site.broker.logged("u'curve'", 2).await;
        site.broker.logged("u'rsa'", 2).await;
        assert!(
            curve
                .encrypted_key("secret")
                .contains("BEGIN ENCRYPTED PRIVATE KEY")
        );

        let files = trusting(&authority);
        publish(port, &files.trusting()).failed().await;
        publish(Some(site.port(Door::Tls)), &files.trusting())
            .failed()
            .await;
        let late = authority.expired_client("late");
        let files = Files::new(&authority, &late, &late.key);
        publish(port, &files.identified()).failed().await;
        let stranger = Authority::new().client("stranger");
        let files = Files::new(&authority, &stranger, &stranger.key);
        publish(port, &files.identified()).failed().await;
        assert_eq!(site.broker.log().matches("u'").count(), 4);
    });
}

#[test]
fn a_certificate_that_is_not_right_is_refused() {
    run(async |_| {
        let authority = Authority::new();
        let files = trusting(&authority);
        let names = ["localhost"];
        for (server, complaint) in [
            (authority.expired_server(&names), "certificate has expired"),
            (
                authority.not_yet_valid_server(&names),
                "certificate is not yet valid",
            ),
            (
                Authority::new().server(&names),
                "unable to get local issuer",
            ),
            (authority.server(&["elsewhere.test"]), "hostname mismatch"),
        ] {
            let site = Site::start(OPEN, &authority, &server).await;
            let address = format!("localhost:{}", site.port(Door::Tls));
            let said = Process::start("openssl", &files.verifying(&address))
                .failed()
                .await;
            assert!(said.contains(complaint), "{said}");
        }
    });
}

#[test]
fn a_site_comes_back_with_what_it_kept_and_with_another_certificate() {
    run(async |_| {
        let authority = Authority::new();
        let files = trusting(&authority);
        let expired = authority.expired_server(&["localhost"]);
        let mut site = Site::start(PERSISTENT, &authority, &expired).await;
        let port = Some(site.port(Door::Tls));
        publish(Some(site.port(Door::Tcp)), &[]).succeeded().await;
        publish(port, &files.trusting()).failed().await;
        site.replace(&authority.server(&["localhost"]));
        site.broker.stop().await;
        site.broker.start_again().await;
        publish(port, &files.trusting()).succeeded().await;

        // A socket that a crash leaves behind is in nobody's way.
        site.broker.signal("USR1");
        site.broker.logged("Saving in-memory database", 2).await;
        site.broker.kill().await;
        site.broker.start_again().await;
        let socket = site.socket();
        let arguments = ["--unix", shown(&socket), "-t", "hall", "-C", "1"];
        let mut reader = Process::start("mosquitto_sub", &arguments);
        assert_eq!(reader.succeeded().await, "warm\n");
    });
}

#[test]
fn microsocks_lets_through_who_may_pass() {
    run(async |_| {
        let broker = Broker::open().await;
        let open = Proxy::socks5(None).await;
        let url = open.url().replace("socks5:", "socks5h:");
        publish(Some(broker.port()), &["--proxy", &url])
            .succeeded()
            .await;
        let connected = format!("connected to localhost:{}", broker.port());
        open.process.said(&connected).await;

        let guarded = Proxy::socks5(Some(("pump", "secret"))).await;
        for (credentials, right) in [("pump:secret@", true), ("pump:wrong@", false), ("", false)] {
            let url = format!("socks5h://{credentials}127.0.0.1:{}", guarded.port());
            let mut publishing = publish(Some(broker.port()), &["--proxy", &url]);
            let (status, said) = publishing.ended().await;
            assert_eq!(status.success(), right, "{said}");
        }
    });
}

#[test]
fn tinyproxy_lets_through_who_may_pass() {
    run(async |_| {
        let broker = Broker::open().await;
        let request = |port: u16, more: &str| {
            format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n{more}\r\n")
        };
        let open = Proxy::http(&[broker.port()], None).await;
        let answer = answered(open.port(), &request(broker.port(), ""));
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        open.process
            .said(&format!("localhost:{}", broker.port()))
            .await;
        let answer = answered(open.port(), &request(22, ""));
        assert!(answer.contains(" 403 "), "{answer}");
        assert!(open.url().starts_with("http://"));

        let guarded = Proxy::http(&[broker.port()], Some(("pump", "secret"))).await;
        let answer = answered(guarded.port(), &request(broker.port(), ""));
        assert!(answer.contains(" 407 "), "{answer}");
        // pump:secret, as `base64` says it.
        let right = "Proxy-Authorization: Basic cHVtcDpzZWNyZXQ=\r\n";
        let answer = answered(guarded.port(), &request(broker.port(), right));
        assert!(answer.contains(" 200 "), "{answer}");
    });
}

#[test]
fn a_front_lets_in_who_offers_the_one_protocol() {
    run(async |_| {
        let authority = Authority::new();
        let broker = Broker::open().await;
        let demand = Demand {
            alpn: Some("mqtt"),
            clients: Some(&authority),
            ..Demand::default()
        };
        let front = Front::start(broker.port(), &authority.server(&["localhost"]), &demand);
        let port = Some(front.listening.port());
        let files = trusting(&authority);
        let with = |name| [files.identified().as_slice(), &["--tls-alpn", name]].concat();
        publish(port, &with("mqtt")).succeeded().await;
        publish(port, &with("http/1.1")).failed().await;
        publish(port, &files.identified()).failed().await;
        let nobody = [files.trusting(), ["--tls-alpn", "mqtt"]].concat();
        publish(port, &nobody).failed().await;
        assert!(front.url("mqtts").starts_with("mqtts://localhost:"));

        let greetings = front.greetings();
        let offered: Vec<_> = greetings
            .iter()
            .map(|greeting| greeting.alpn.concat())
            .collect();
        assert_eq!(offered, ["mqtt", "http/1.1", "", "mqtt"]);
        assert_eq!(greetings[0].server_name.as_deref(), Some("localhost"));
        let handshakes: Vec<_> = greetings
            .iter()
            .map(|greeting| greeting.handshake)
            .collect();
        let (open, full) = (Handshake::Open, Handshake::Full);
        assert_eq!(handshakes, [full, open, full, open]);
    });
}

#[test]
fn a_front_resumes_a_session() {
    run(async |_| {
        let authority = Authority::new();
        // It speaks only when it is spoken to, so that the client has the time to take its ticket.
        let peer = Peer::answering(GARBAGE);
        for (version, option) in [(Tls::V1_2, "-tls1_2"), (Tls::V1_3, "-tls1_3")] {
            let demand = Demand {
                version: Some(version),
                ..Demand::default()
            };
            let identity = authority.server(&["localhost"]);
            let front = Front::start(peer.listening.port(), &identity, &demand);
            let scratch = Scratch::new();
            let session = scratch.path().join("session");
            let address = format!("localhost:{}", front.listening.port());
            for (direction, resumed) in [("-sess_out", 0), ("-sess_in", 1)] {
                let arguments = ["s_client", option, "-ign_eof", "-connect", &address];
                let arguments = [arguments.as_slice(), &[direction, shown(&session)]].concat();
                let client = Process::start_telling("openssl", &arguments, "hello\n");
                client.said("hello?").await;
                assert_eq!(front.count(Handshake::Resumed), resumed);
            }
            assert_eq!(front.count(Handshake::Full), 1);
            let other = ["s_client", "-tls1_1", "-connect", &address];
            Process::start("openssl", &other).failed().await;
        }
    });
}

#[test]
fn who_knows_only_tls_1_1_is_no_peer_of_today() {
    run(async |_| {
        let authority = Authority::new();
        let old = OldTls::start(&authority.server(&["localhost"])).await;
        let address = format!("localhost:{}", old.port());
        let today = ["s_client", "-connect", &address];
        Process::start("openssl", &today).failed().await;
        old.process.said("ACCEPT").await;
        let then = [
            today.as_slice(),
            &["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"],
        ]
        .concat();
        let said = Process::start("openssl", &then).succeeded().await;
        assert!(said.contains("TLSv1.1"), "{said}");
        assert!(old.url("mqtts").starts_with("mqtts://localhost:"));
    });
}

#[test]
fn peers_misbehave_as_they_are_said_to() {
    run(async |_| {
        for text in [NOT_FOUND, PAGE, FORBIDDEN] {
            let peer = Peer::http(text);
            assert_eq!(answer(peer.listening.port(), UPGRADE), text);
            assert_eq!(peer.heard(), UPGRADE.as_bytes());
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            assert!(
                text.contains(&format!("Content-Length: {}\r\n", body.len())),
                "{text}"
            );
        }
        for words in [CONNACK, GARBAGE] {
            let peer = Peer::answering(words);
            let mut bytes = vec![0; words.len()];
            let mut stream = told(peer.listening.port(), b"?");
            stream.read_exact(&mut bytes).expect("an answer");
            assert_eq!(bytes, words);
        }

        let closing = Peer::closing();
        assert_eq!(answer(closing.listening.port(), ""), "");
        closing.listening.came(1).await;

        let silent = Peer::silent();
        let mut stream = told(silent.listening.port(), b"is anybody there");
        silent.has_heard(b"anybody").await;
        stream
            .set_nonblocking(true)
            .expect("an option of the socket");
        let error = stream.read(&mut [0]).expect_err("silence");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(silent.listening.connections(), 1);
        assert!(silent.url("mqtt").starts_with("mqtt://localhost:"));

        let refused = Refused::new();
        let error = TcpStream::connect((Ipv4Addr::LOCALHOST, refused.port()));
        let error = error.expect_err("nobody listens");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(refused.url("mqtt").starts_with("mqtt://127.0.0.1:"));
    });
}

#[test]
fn a_relay_cuts_after_exactly_so_many_bytes() {
    run(async |_| {
        let peer = Peer::answering(CONNACK);
        let (after, of) = (3, Direction::ToClient);
        let modes = [End::Fin, End::Reset].map(|by| Mode::Cut { after, of, by });
        let relay = Relay::start(peer.listening.port(), &modes);
        for end in [None, Some(std::io::ErrorKind::ConnectionReset)] {
            let mut bytes = Vec::new();
            let mut stream = told(relay.listening.port(), b"?");
            let error = stream
                .read_to_end(&mut bytes)
                .err()
                .map(|error| error.kind());
            assert_eq!(error, end);
            assert_eq!(bytes, CONNACK[..3]);
        }
        assert_eq!(relay.bytes(Direction::ToClient), 6);
        assert_eq!(relay.bytes(Direction::ToServer), 2);

        let (after, of) = (4, Direction::ToServer);
        relay.then(&[Mode::Silent { after, of }, Mode::Whole]);
        let mut mute = told(relay.listening.port(), b"long-winded");
        peer.has_heard(b"??long").await;
        // The next connection is whole, and meanwhile nothing came on the other one.
        let mut stream = told(relay.listening.port(), b"!");
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).expect("an answer");
        assert_eq!(bytes, CONNACK);
        assert_eq!(peer.heard(), b"??long!");
        mute.set_nonblocking(true).expect("an option of the socket");
        let mut some = Vec::new();
        let error = mute.read_to_end(&mut some).expect_err("no end");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(some, b"");
        assert_eq!(relay.listening.connections(), 4);

        relay.cut(End::Fin);
        assert_eq!(stream.read(&mut bytes).expect("an end"), 0);
    });
}

#[test]
fn a_relay_passes_single_bytes() {
    run(async |_| {
        let peer = Peer::answering(b"0123456789");
        let relay = Relay::start(peer.listening.port(), &[Mode::Bytewise]);
        let mut stream = told(relay.listening.port(), b"?");
        // On a busy machine this thread may sleep over all pieces of an answer, but not every time.
        for _ in 0..50 {
            let (mut pieces, mut bytes) = (Vec::new(), [0; 10]);
            while pieces.iter().sum::<usize>() < bytes.len() {
                pieces.push(stream.read(&mut bytes).expect("a piece"));
            }
            if pieces.len() > 1 {
                return;
            }
            stream.write_all(b"?").expect("a write");
        }
        panic!("every answer came in one piece");
    });
}
