//! A password is seen by the broker and by nobody else.

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use coracle::codec::{self, Split};
use coracle::protocol::{Config, Credentials, Protocol};
use coracle::testkit::{Attempt, World};
use coracle::{
    AuthFuture, AuthStep, Authenticator, Error, Exchange, Message, Occasion, Options, PropertyList,
    Qos, Version, Wait,
};

use super::rig::Rig;
use super::{SECOND, Setup, VERSIONS, connack, next, options};

const PASSWORD: &str = "correct-horse-battery";

/// All that was logged in this process.
struct Collector(Mutex<String>);

static COLLECTOR: Collector = Collector(Mutex::new(String::new()));

impl log::Log for Collector {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}\n", record.target(), record.args());
        self.0
            .lock()
            .expect("no other test panics in here")
            .push_str(&line);
    }

    fn flush(&self) {}
}

/// Once for all tests of this process.
fn collect_the_log() {
    // Only the first test can set it, and all set the same one.
    let _ = log::set_logger(&COLLECTOR);
    log::set_max_level(log::LevelFilter::Trace);
}

/// The password stands in it neither as text nor as bytes.
#[track_caller]
fn hides(text: &str) {
    let decimal = format!("{:?}", PASSWORD.as_bytes());
    let hex = format!("{:x?}", PASSWORD.as_bytes());
    let upper = format!("{:X?}", PASSWORD.as_bytes());
    let lines: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for form in [
        PASSWORD,
        &decimal[1..decimal.len() - 1],
        &hex[1..hex.len() - 1],
        &upper[1..upper.len() - 1],
    ] {
        assert!(!lines.contains(form), "{form} in {text}");
    }
}

#[track_caller]
fn shows_nothing(value: &impl Debug) {
    hides(&format!("{value:?}"));
    // One field per line separates bytes by line ends, and a comma at the end.
    hides(&format!("{value:#?}"));
}

#[test]
fn debug_output_hides_the_password() {
    for version in VERSIONS {
        let world = World::with_peers();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let attempts = Rc::clone(&seen);
        let options: Options = options(&world, version)
            .credentials("user", PASSWORD)
            .before_connect(move |attempt| {
                let attempt = attempt.credentials("user", PASSWORD);
                attempts.borrow_mut().push(attempt.clone());
                Box::pin(async { Ok(attempt) })
            });
        shows_nothing(&options);
        let (client, driver) = coracle::Client::new(options);
        shows_nothing(&client);
        shows_nothing(&driver);
        world.spawn(driver.run()).detach();
        world.run_until_idle();
        assert_eq!(seen.borrow().len(), 1);
        shows_nothing(&*seen.borrow());

        let credentials = Credentials {
            user_name: Some("user".into()),
            password: Some(PASSWORD.into()),
            will: None,
        };
        shows_nothing(&credentials);
        let mut config = Config::new(version, "c");
        config.session = coracle::Session::None;
        let mut rig = Rig::new(config);
        let protocol: &mut Protocol = &mut rig.protocol;
        protocol
            .connect(rig.now, &credentials)
            .expect("they can be sent");
        shows_nothing(protocol);
        let chunk = protocol.poll_chunk().expect("CONNECT is to be sent");
        shows_nothing(&chunk);
        let bytes = chunk.as_bytes();
        let sent = bytes
            .windows(PASSWORD.len())
            .any(|part| part == PASSWORD.as_bytes());
        assert!(sent, "the broker gets it");
        let split = codec::split(bytes).expect("it is CONNECT");
        shows_nothing(&split);
        let Split::Whole { frame, .. } = split else {
            panic!("all of it is here");
        };
        shows_nothing(&codec::decode(version, frame).expect("it is CONNECT"));
    }
}

#[test]
fn the_log_and_the_events_hide_the_password() {
    collect_the_log();
    for version in VERSIONS {
        let world = World::with_peers();
        let network = world.network();
        network.next_attempts(1, Attempt::Refuse(std::io::ErrorKind::ConnectionRefused));
        let will = Message::new("will", "gone").qos(Qos::AtLeastOnce);
        let setup = Setup::start(
            &world,
            options(&world, version)
                .credentials("user", PASSWORD)
                .will(will),
        );
        let mut events = setup.client.events();
        for answer in [
            b"\x20\x02\x00\x04".as_slice(),
            b"\xff",
            connack(version),
            connack(version),
        ] {
            let before = network.attempts();
            while network.attempts() == before {
                world.advance(SECOND);
            }
            let mut peer = world.peer();
            peer.send(answer);
            drop(
                setup
                    .client
                    .publish("t", PASSWORD, Qos::AtLeastOnce, Wait::None),
            );
            peer.send(b"\x00\x00");
            peer.reset();
        }
        let mut count = 0;
        while let Some(event) = next(&mut events) {
            shows_nothing(&event);
            count += 1;
        }
        assert!(count >= 5, "{count} events");
        shows_nothing(&setup.client);
    }
    let log = COLLECTOR.0.lock().expect("no other test panics in here");
    assert!(log.contains("attempt 1"), "{log}");
    hides(&log);
}

/// Says the password in every step, and never believes the server twice.
#[derive(Clone)]
struct Blabber(Rc<RefCell<u32>>);

impl Authenticator for Blabber {
    fn method(&self) -> &str {
        "M"
    }

    fn start<'a>(&'a self, _: &'a Occasion) -> AuthFuture<'a, (AuthStep, Box<dyn Exchange>)> {
        Box::pin(async {
            let exchange: Box<dyn Exchange> = Box::new(self.clone());
            Ok((spoken(), exchange))
        })
    }
}

impl Exchange for Blabber {
    fn proceed<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, AuthStep> {
        shows_nothing(&server);
        Box::pin(async { Ok(spoken()) })
    }

    fn finish<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, Option<Duration>> {
        shows_nothing(&server);
        *self.0.borrow_mut() += 1;
        let believed = *self.0.borrow() % 2 == 1;
        Box::pin(async move {
            if believed {
                Ok(None)
            } else {
                Err(Error::unproven("once is enough"))
            }
        })
    }
}

fn spoken() -> AuthStep {
    let step = AuthStep::new()
        .data(PASSWORD)
        .user_property("token", PASSWORD);
    shows_nothing(&step);
    step
}

#[test]
fn the_data_of_an_authentication_is_hidden() {
    collect_the_log();
    let world = World::with_peers();
    let options = options(&world, Version::V5_0).authenticator(Blabber(Rc::default()));
    shows_nothing(&options);
    let setup = Setup::start(&world, options);
    let mut events = setup.client.events();
    let said = |first: &[u8], middle: &[u8]| {
        let mut bytes = first.to_vec();
        bytes.extend_from_slice(middle);
        bytes.extend_from_slice(b"\x15\0\x01M\x16\0\x15");
        bytes.extend_from_slice(PASSWORD.as_bytes());
        bytes
    };
    let mut peer = world.peer();
    assert!(peer.received().ends_with(b"\0\x01c"));
    peer.send(&said(b"\xF0\x1E\x18\x1C", b""));
    let answer = peer.received();
    let count = answer.windows(PASSWORD.len());
    let count = count.filter(|part| *part == PASSWORD.as_bytes()).count();
    assert_eq!(count, 2, "data and user property");
    peer.send(&said(b"\x20\x1F\0\0\x1C", b""));
    assert!(setup.client.is_connected());
    let again = setup.client.reauthenticate();
    assert_eq!(peer.received().first(), Some(&0xF0));
    peer.send(&said(b"\xF0\x1E\x00\x1C", b""));
    let outcome = world.block_on(again);
    shows_nothing(&outcome);
    outcome.expect_err("it was not believed twice");
    peer.reset();
    world.run_until_idle();
    let mut count = 0;
    while let Some(event) = next(&mut events) {
        shows_nothing(&event);
        count += 1;
    }
    assert_eq!(count, 2);
    shows_nothing(&setup.client);
    shows_nothing(&setup.client.server_properties());
    hides(&COLLECTOR.0.lock().expect("no other test panics in here"));
}
