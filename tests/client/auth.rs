//! Authenticators: asked at each CONNECT, again on the live connection, and believed only when they do
//! believe the server.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coracle::testkit::{
    AuthReply, BrokerOptions, Direction, FakeClock, Kind, Rule, Then, When, World,
};
use coracle::{
    AuthFuture, AuthStep, Authenticator, Clock, Error, ErrorKind, Event, Exchange, Occasion,
    Options, PropertyList, Qos, Reason, Version, Wait,
};

use crate::{SECOND, Setup, failure, now, options, poll};

/// CONNACK and AUTH of method "M" that say success, with and without data.
const CONNACK_M: &[u8] = b"\x20\x07\0\0\x04\x15\0\x01M";
const SUCCESS: &[u8] = b"\xF0\x06\x00\x04\x15\0\x01M";

/// What happens to a test's authenticator, in order.
type Diary = Rc<RefCell<Vec<String>>>;

/// Answers each challenge with its own text in capitals, and takes its time.
#[derive(Clone)]
struct Parrot {
    diary: Diary,
    clock: FakeClock,
    /// How long each step takes.
    pause: Rc<Cell<Duration>>,
    /// What starting and finishing fail with, if they do.
    credential: Rc<RefCell<Option<Error>>>,
    verdict: Rc<RefCell<Option<Error>>>,
    renew_in: Option<Duration>,
}

impl Parrot {
    fn new(world: &World) -> Self {
        Self {
            diary: Diary::default(),
            clock: world.clock(),
            pause: Rc::default(),
            credential: Rc::default(),
            verdict: Rc::default(),
            renew_in: None,
        }
    }

    async fn note(&self, text: String) {
        let pause = self.pause.get();
        if !pause.is_zero() {
            self.clock.sleep_until(self.clock.now() + pause).await;
        }
        self.diary.borrow_mut().push(text);
    }

    fn diary(&self) -> Vec<String> {
        std::mem::take(&mut self.diary.borrow_mut())
    }
}

impl Authenticator for Parrot {
    fn method(&self) -> &str {
        "M"
    }

    fn start<'a>(
        &'a self,
        occasion: &'a Occasion,
    ) -> AuthFuture<'a, (AuthStep, Box<dyn Exchange>)> {
        Box::pin(async move {
            let what = if occasion.is_renewal() {
                "again"
            } else {
                "connect"
            };
            self.note(format!("{what} {}", occasion.client_id())).await;
            if let Some(error) = self.credential.borrow().clone() {
                return Err(error);
            }
            let exchange: Box<dyn Exchange> = Box::new(self.clone());
            Ok((AuthStep::new().data("hello"), exchange))
        })
    }
}

impl Exchange for Parrot {
    fn proceed<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, AuthStep> {
        Box::pin(async move {
            let said = text(server);
            self.note(format!("challenge {said}")).await;
            Ok(AuthStep::new().data(said.to_uppercase()))
        })
    }

    fn finish<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, Option<Duration>> {
        Box::pin(async move {
            self.note(format!("end {}", text(server))).await;
            match self.verdict.borrow().clone() {
                Some(error) => Err(error),
                None => Ok(self.renew_in),
            }
        })
    }
}

fn text(server: PropertyList<'_>) -> String {
    let data = server.authentication_data().unwrap_or_default();
    String::from_utf8_lossy(data).into_owned()
}

/// A broker that asks two questions and wants them back in capitals.
fn strict_broker() -> BrokerOptions {
    BrokerOptions::new().play_authentication("M", || {
        let mut step = 0;
        move |data: &[u8]| {
            step += 1;
            match (step, data) {
                (1, b"hello") => AuthReply::Challenge(b"one".to_vec()),
                (2, b"ONE") => AuthReply::Challenge(b"two".to_vec()),
                (3, b"TWO") => AuthReply::Accept(b"good".to_vec()),
                _ => AuthReply::Refuse(Reason::NOT_AUTHORIZED),
            }
        }
    })
}

fn start(world: World, parrot: &Parrot) -> Setup {
    let options = options(&world).authenticator(parrot.clone());
    Setup::start(world, options)
}

/// What came from clients, in order.
fn packets(world: &World) -> Vec<Kind> {
    world.broker(|broker, _| {
        assert!(broker.violations().is_empty(), "{:?}", broker.violations());
        let sent = broker.packets().iter();
        sent.filter(|packet| packet.direction() == Direction::In)
            .map(|packet| packet.kind())
            .collect()
    })
}

#[test]
fn a_client_goes_through_an_exchange_and_then_works() {
    let world = World::new(strict_broker());
    let parrot = Parrot::new(&world);
    let mut setup = start(world, &parrot);
    let publishing = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    setup.wait(publishing).expect("it is connected");
    assert_eq!(
        parrot.diary(),
        ["connect c", "challenge one", "challenge two", "end good"]
    );
    assert_eq!(
        packets(&setup.world),
        [Kind::Connect, Kind::Auth, Kind::Auth, Kind::Publish]
    );
    assert!(matches!(setup.events()[..], [Event::Connected { .. }]));
    // Each connection has an exchange of its own.
    setup.client.reconnect().expect("it is open");
    setup.world.run_until_idle();
    assert!(setup.client.is_connected());
    assert_eq!(parrot.diary().len(), 4);
}

#[test]
fn an_authenticator_may_take_its_time() {
    let world = World::new(strict_broker());
    let parrot = Parrot::new(&world);
    parrot.pause.set(9 * SECOND);
    let setup = start(world, &parrot);
    setup.world.advance(35 * SECOND);
    assert!(!setup.client.is_connected());
    setup.world.advance(SECOND);
    assert!(setup.client.is_connected());
    assert_eq!(parrot.diary().len(), 4);
}

#[test]
fn an_authenticator_that_takes_too_long_is_a_failed_attempt() {
    for steps in 0_u32..4 {
        let world = World::new(strict_broker());
        let parrot = Parrot::new(&world);
        let mut setup = start(world, &parrot);
        // The step of this number never ends.
        if steps > 0 {
            parrot.pause.set(SECOND);
            setup.world.advance(steps * SECOND - SECOND / 2);
        }
        parrot.pause.set(3600 * SECOND);
        setup.world.advance(11 * SECOND);
        let error = match &setup.events()[..] {
            [Event::ConnectFailed { error, .. }, ..] => error.clone(),
            other => panic!("{other:?}"),
        };
        assert!(
            matches!(error.kind(), ErrorKind::TimedOut(span) if *span == 10 * SECOND),
            "{error}"
        );
        assert!(!setup.client.is_connected());
    }
}

#[test]
fn a_broker_that_is_not_believed_is_left_before_anything_is_sent() {
    let world = World::with_peers();
    let parrot = Parrot::new(&world);
    *parrot.verdict.borrow_mut() = Some(Error::unproven("it knows nothing"));
    let mut setup = start(world, &parrot);
    let publishing = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    let mut peer = setup.greet(b"\x20\x0B\0\0\x08\x15\0\x01M\x16\0\x01x");
    peer.expect(b"\xE0\x01\x80");
    peer.close();
    assert_eq!(parrot.diary(), ["connect c", "end x"]);
    let events = setup.events();
    let [Event::ConnectFailed { error, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(matches!(error.kind(), ErrorKind::Unproven(_)), "{error}");
    assert!(error.to_string().contains("it knows nothing"), "{error}");
    // The message waits for a broker that is believed.
    *parrot.verdict.borrow_mut() = None;
    let mut peer = setup.greet_later(CONNACK_M);
    peer.expect(b"\x32\x07\0\x01t\0\x01\0x");
    peer.send(b"\x40\x02\0\x01");
    now(publishing).expect("it is acknowledged");
}

#[test]
fn a_program_can_give_up_on_a_broker_that_is_not_believed() {
    let world = World::new(strict_broker());
    let parrot = Parrot::new(&world);
    *parrot.verdict.borrow_mut() = Some(Error::unproven("it knows nothing"));
    let options = options(&world)
        .authenticator(parrot)
        .give_up_when(|error, _| error.is_permanent());
    let setup = Setup::start(world, options);
    let error = failure(setup.world.block_on(setup.driver));
    assert!(matches!(error.kind(), ErrorKind::Unproven(_)), "{error}");
}

#[test]
fn what_came_with_connack_is_read_once_it_is_believed() {
    for size in [1, 70_000] {
        let world = World::with_peers();
        let parrot = Parrot::new(&world);
        let setup = start(world, &parrot);
        let mut stream = now(setup.client.subscribe("t", Qos::AtMostOnce, Wait::None))
            .expect("the filter is good");
        let mut peer = setup.world.peer();
        peer.received();
        parrot.pause.set(5 * SECOND);
        // A message of this size, and a small one behind it.
        let mut bytes = CONNACK_M.to_vec();
        bytes.push(0x30);
        let mut left = size + 4;
        while left > 0 {
            let more = if left > 127 { 0x80 } else { 0 };
            bytes.push(u8::try_from(left % 128).expect("below 128") | more);
            left /= 128;
        }
        bytes.extend_from_slice(b"\0\x01t\0");
        bytes.resize(bytes.len() + size, b'x');
        bytes.extend_from_slice(b"\x30\x05\0\x01t\0y");
        peer.send(&bytes);
        assert!(!setup.client.is_connected());
        peer.expect_nothing();
        setup.world.advance(5 * SECOND);
        assert!(setup.client.is_connected());
        let first = setup.wait(stream.next()).expect("it came");
        assert_eq!(first.payload().len(), size);
        let second = setup.wait(stream.next()).expect("it came");
        assert_eq!(second.payload(), b"y");
    }
}

#[test]
fn an_authenticator_without_a_credential_is_a_failed_attempt() {
    let world = World::new(strict_broker());
    let parrot = Parrot::new(&world);
    *parrot.credential.borrow_mut() = Some(Error::no_credential("the card is out"));
    let mut setup = start(world, &parrot);
    let events = setup.events();
    let [Event::ConnectFailed { error, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(!error.is_permanent());
    assert_eq!(
        error.to_string(),
        "authenticate: there is no credential: the card is out"
    );
    assert_eq!(packets(&setup.world), []);
    *parrot.credential.borrow_mut() = None;
    setup
        .wait(setup.client.connected())
        .expect("it is there now");
}

#[test]
fn a_broker_that_refuses_says_why() {
    let world = World::new(BrokerOptions::new().play_authentication("M", || {
        |_: &[u8]| AuthReply::Refuse(Reason::BAD_AUTHENTICATION_METHOD)
    }));
    let parrot = Parrot::new(&world);
    let mut setup = start(world, &parrot);
    let events = setup.events();
    let [Event::ConnectFailed { error, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(error.reason(), Some(Reason::BAD_AUTHENTICATION_METHOD));
}

#[test]
fn an_authenticator_needs_mqtt_5() {
    for version in [Version::V3_1, Version::V3_1_1] {
        let world = World::new(BrokerOptions::new());
        let options = options(&world)
            .version(version)
            .authenticator(Parrot::new(&world));
        let setup = Setup::start(world, options);
        let error = failure(setup.world.block_on(setup.driver));
        assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    }
}

#[test]
fn a_client_that_leaves_does_not_wait_for_the_authenticator() {
    for elapsed in [0, 1, 2, 3] {
        let world = World::new(strict_broker());
        let parrot = Parrot::new(&world);
        parrot.pause.set(SECOND);
        let setup = start(world, &parrot);
        setup.world.advance(elapsed * SECOND);
        let start = setup.world.now();
        setup
            .wait(setup.client.disconnect())
            .expect("nothing is left");
        assert!(setup.world.now() - start < SECOND);
        setup.world.block_on(setup.driver).expect("it ends well");
    }
}

#[test]
fn a_driver_that_is_dropped_drops_the_exchange() {
    let world = World::new(strict_broker());
    let parrot = Parrot::new(&world);
    parrot.pause.set(SECOND);
    let diary = Rc::downgrade(&parrot.diary);
    let setup = start(world, &parrot);
    drop(parrot);
    setup.world.advance(SECOND + SECOND / 2);
    assert!(diary.upgrade().is_some());
    drop(setup.driver);
    setup.world.run_until_idle();
    assert!(diary.upgrade().is_none());
    assert!(
        failure(now(setup.client.reauthenticate()))
            .to_string()
            .contains("closed")
    );
}

// On the live connection.

#[test]
fn a_program_can_authenticate_again_twice_while_messages_flow() {
    let world = World::new(strict_broker());
    let parrot = Parrot::new(&world);
    let options = options(&world)
        .authenticator(parrot.clone())
        .quiet_renewal(false);
    let mut setup = Setup::start(world, options);
    setup.wait(setup.client.connected()).expect("it connects");
    for _ in 0..2 {
        parrot.diary();
        parrot.pause.set(SECOND);
        let mut again = setup.client.reauthenticate();
        for _ in 0..3 {
            assert!(poll(&mut again).is_none());
            let publishing = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
            setup.world.run_until_idle();
            now(publishing).expect("it is acknowledged at once");
            setup.world.advance(SECOND);
        }
        setup.wait(again).expect("both sides are content");
        assert_eq!(
            parrot.diary(),
            ["again c", "challenge one", "challenge two", "end good"]
        );
    }
    let events = setup.events();
    assert!(
        matches!(
            events[..],
            [
                Event::Connected { .. },
                Event::Reauthenticated,
                Event::Reauthenticated
            ]
        ),
        "{events:?}"
    );
}

#[test]
fn messages_wait_for_a_quiet_reauthentication() {
    let world = World::new(strict_broker());
    let parrot = Parrot::new(&world);
    let setup = start(world, &parrot);
    setup.wait(setup.client.connected()).expect("it connects");
    parrot.pause.set(SECOND);
    let again = setup.client.reauthenticate();
    // The authenticator makes the first data; the broker knows nothing yet.
    let early = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    setup.world.run_until_idle();
    now(early).expect("it is acknowledged at once");
    setup.world.advance(SECOND);
    let mut late = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    setup.world.advance(SECOND);
    assert!(poll(&mut late).is_none());
    setup.wait(again).expect("both sides are content");
    now(late).expect("it is acknowledged");
    // Also what a client that leaves has still to say.
    drop(setup.client.reauthenticate());
    setup.world.advance(SECOND);
    let last = setup.client.publish("t", "y", Qos::AtLeastOnce, Wait::Ack);
    setup
        .wait(setup.client.disconnect())
        .expect("nothing stays");
    now(last).expect("it is acknowledged");
}

#[test]
fn a_credential_is_renewed_by_itself_before_it_expires() {
    let world = World::new(strict_broker());
    let parrot = Parrot {
        renew_in: Some(600 * SECOND),
        ..Parrot::new(&world)
    };
    let mut setup = start(world, &parrot);
    setup.wait(setup.client.connected()).expect("it connects");
    setup.events();
    for _ in 0..3 {
        parrot.diary();
        setup.world.advance(599 * SECOND);
        assert!(parrot.diary().is_empty());
        setup.world.advance(SECOND);
        assert_eq!(
            parrot.diary(),
            ["again c", "challenge one", "challenge two", "end good"]
        );
        assert!(matches!(setup.events()[..], [Event::Reauthenticated]));
    }
    assert!(setup.client.is_connected());
    assert_eq!(setup.client.statistics().connected, 1);
}

#[test]
fn a_renewal_that_cannot_begin_is_an_event_and_tried_again() {
    let world = World::new(strict_broker());
    let parrot = Parrot {
        renew_in: Some(600 * SECOND),
        ..Parrot::new(&world)
    };
    let mut setup = start(world, &parrot);
    setup.wait(setup.client.connected()).expect("it connects");
    setup.events();
    *parrot.credential.borrow_mut() = Some(Error::no_credential("the server is away"));
    setup.world.advance(600 * SECOND);
    let events = setup.events();
    let [Event::NotRenewed { error, retry_in }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(error.to_string().contains("the server is away"), "{error}");
    let retry_in = *retry_in;
    *parrot.credential.borrow_mut() = None;
    setup.world.advance(retry_in);
    assert!(matches!(setup.events()[..], [Event::Reauthenticated]));
}

#[test]
fn a_broker_that_is_not_believed_again_is_left_and_connected_anew() {
    let world = World::with_peers();
    let parrot = Parrot::new(&world);
    let mut setup = start(world, &parrot);
    let mut peer = setup.greet(CONNACK_M);
    let mut again = setup.client.reauthenticate();
    peer.expect(b"\xF0\x0E\x19\x0C\x15\0\x01M\x16\0\x05hello");
    *parrot.verdict.borrow_mut() = Some(Error::unproven("it is another one"));
    peer.send(SUCCESS);
    peer.expect(b"\xE0\x01\x80");
    let error = failure(poll(&mut again).expect("it is over"));
    assert!(matches!(error.kind(), ErrorKind::Unproven(_)), "{error}");
    peer.close();
    let events = setup.events();
    let [Event::Connected { .. }, Event::Disconnected { error, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(error.to_string().contains("it is another one"), "{error}");
    *parrot.verdict.borrow_mut() = None;
    setup.greet_later(CONNACK_M);
    assert!(setup.client.is_connected());
}

#[test]
fn a_refused_reauthentication_is_a_disconnect_of_the_broker() {
    let refusing = Rc::new(Cell::new(false));
    let refuses = Rc::clone(&refusing);
    let world = World::new(BrokerOptions::new().play_authentication("M", move || {
        let refuses = refuses.get();
        move |_: &[u8]| match refuses {
            true => AuthReply::Refuse(Reason::NOT_AUTHORIZED),
            false => AuthReply::Accept(Vec::new()),
        }
    }));
    let parrot = Parrot::new(&world);
    let mut setup = start(world, &parrot);
    setup.wait(setup.client.connected()).expect("it connects");
    refusing.set(true);
    let again = setup.client.reauthenticate();
    setup.world.run_until_idle();
    let error = failure(now(again));
    assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
    let events = setup.events();
    let [_, Event::Disconnected { error, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(error.reason(), Some(Reason::NOT_AUTHORIZED));
}

#[test]
fn a_link_that_is_lost_in_the_middle_of_an_exchange_leaves_nothing_behind() {
    let world = World::with_peers();
    let parrot = Parrot::new(&world);
    let setup = start(world, &parrot);
    let mut peer = setup.greet(CONNACK_M);
    let again = setup.client.reauthenticate();
    peer.received();
    parrot.pause.set(3600 * SECOND);
    peer.send(b"\xF0\x0A\x18\x08\x15\0\x01M\x16\0\x01x");
    peer.reset();
    setup.world.run_until_idle();
    let error = failure(now(again));
    assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
    parrot.pause.set(Duration::ZERO);
    let mut peer = setup.greet_later(CONNACK_M);
    setup.world.advance(59 * SECOND);
    peer.expect_nothing();
    let again = setup.client.reauthenticate();
    peer.expect(b"\xF0\x0E\x19\x0C\x15\0\x01M\x16\0\x05hello");
    peer.send(SUCCESS);
    now(again).expect("both sides are content");
}

#[test]
fn a_challenge_that_came_with_the_end_of_its_link_is_not_put_to_the_next_exchange() {
    let world = World::new(strict_broker());
    let challenge = b"\xF0\x0C\x18\x0A\x15\0\x01M\x16\0\x03old";
    let last_words = [Then::Ignore, Then::Answer(challenge.to_vec()), Then::Cut];
    let rule = Rule::new(When::Packet(Kind::Connect), last_words);
    world.broker(|broker, _| broker.add_rule(rule));
    let parrot = Parrot::new(&world);
    let setup = start(world, &parrot);
    setup.world.run_until_idle();
    assert_eq!(parrot.diary(), ["connect c"]);
    setup.wait(setup.client.connected()).expect("it connects");
    assert_eq!(
        parrot.diary(),
        ["connect c", "challenge one", "challenge two", "end good"]
    );
}

#[test]
fn without_an_authenticator_or_a_connection_a_call_fails_at_once() {
    let (setup, mut peer) = Setup::connected();
    let error = failure(now(setup.client.reauthenticate()));
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    peer.expect_nothing();
    let world = World::with_peers();
    let parrot = Parrot::new(&world);
    let setup = start(world, &parrot);
    let error = failure(now(setup.client.reauthenticate()));
    assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
}

#[test]
fn an_identifier_that_the_broker_chose_is_the_one_of_a_renewal() {
    let broker = strict_broker().assigned_client_id("chosen");
    let world = World::new(broker);
    let parrot = Parrot::new(&world);
    let options = Options::new("mqtt://broker", "")
        .expect("the URL is well-formed")
        .connector(world.network())
        .clock(world.clock())
        .authenticator(parrot.clone());
    let setup = Setup::start(world, options);
    setup.wait(setup.client.connected()).expect("it connects");
    setup
        .wait(setup.client.reauthenticate())
        .expect("it is content");
    let diary = parrot.diary();
    assert_eq!((&*diary[0], &*diary[4]), ("connect ", "again chosen"));
}

#[cfg(feature = "auth")]
mod methods {
    use std::num::NonZeroU32;

    use coracle::{SasToken, Scram, ScramHash};
    use data_encoding::BASE64;
    use ring::{digest, hmac, pbkdf2};

    use super::*;

    /// The server's side of SCRAM-SHA-256 for the user "user" with the password "pencil" (RFC 5802,
    /// section 3), with ring's own PBKDF2. Accepts what `end` makes of its signature.
    fn scram_broker(end: impl Fn(String) -> String + Clone + 'static) -> BrokerOptions {
        BrokerOptions::new().play_authentication("SCRAM-SHA-256", move || {
            let end = end.clone();
            let mut said: Option<(String, String)> = None;
            move |data: &[u8]| {
                let data = String::from_utf8(data.to_vec()).expect("SCRAM is text");
                let Some((first, challenge)) = said.take() else {
                    let first = data.strip_prefix("n,,").expect("no channel binding");
                    let nonce = first.strip_prefix("n=user,r=").expect("user and nonce");
                    let salt = BASE64.encode(b"salt");
                    let challenge = format!("r={nonce}more,s={salt},i=4096");
                    said = Some((first.into(), challenge.clone()));
                    return AuthReply::Challenge(challenge.into_bytes());
                };
                let (last, proof) = data.rsplit_once(",p=").expect("it has a proof");
                let signed = format!("{first},{challenge},{last}");
                let mut salted = [0; 32];
                let iterations = NonZeroU32::new(4096).expect("not 0");
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
                pbkdf2::derive(algorithm, iterations, b"salt", b"pencil", &mut salted);
                let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
                let client = hmac::sign(&key(&salted), b"Client Key");
                let stored = digest::digest(&digest::SHA256, client.as_ref());
                let signature = hmac::sign(&key(stored.as_ref()), signed.as_bytes());
                let proof = BASE64.decode(proof.as_bytes()).expect("it is base64");
                let proven = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b);
                if !proven.eq(client.as_ref().iter().copied()) {
                    return AuthReply::Refuse(Reason::NOT_AUTHORIZED);
                }
                let server = hmac::sign(&key(&salted), b"Server Key");
                let signature = hmac::sign(&key(server.as_ref()), signed.as_bytes());
                let signature = BASE64.encode(signature.as_ref());
                AuthReply::Accept(end(format!("v={signature}")).into_bytes())
            }
        })
    }

    fn scram_client(broker: BrokerOptions, password: &str) -> Setup {
        let world = World::new(broker);
        let scram = Scram::new(ScramHash::Sha256, "user", password).expect("ASCII");
        let options = options(&world).authenticator(scram.renew_every(600 * SECOND));
        Setup::start(world, options)
    }

    #[test]
    fn scram_connects_and_renews() {
        let mut setup = scram_client(scram_broker(|signature| signature), "pencil");
        setup.wait(setup.client.connected()).expect("it connects");
        setup
            .wait(setup.client.reauthenticate())
            .expect("both sides are content");
        setup.world.advance(600 * SECOND);
        let events = setup.events();
        let renewed = |event: &&Event| matches!(event, Event::Reauthenticated);
        assert_eq!(events.iter().filter(renewed).count(), 2, "{events:?}");
        assert_eq!(events.len(), 3, "{events:?}");
    }

    #[test]
    fn a_wrong_password_is_refused_and_never_sent() {
        let mut setup = scram_client(scram_broker(|signature| signature), "hunter2");
        let events = setup.events();
        let [Event::ConnectFailed { error, .. }] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(error.reason(), Some(Reason::NOT_AUTHORIZED));
        setup.world.broker(|broker, _| {
            for packet in broker.packets() {
                let bytes = packet.bytes();
                assert!(!bytes.windows(7).any(|part| part == b"hunter2"));
            }
        });
    }

    #[test]
    fn a_broker_that_accepts_without_the_right_signature_is_left() {
        let ends: [fn(String) -> String; 4] = [
            // A broker that does not know the password but lets anyone in.
            |_| String::new(),
            |_| "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into(),
            |signature| signature.to_lowercase(),
            |_| "e=other-error".into(),
        ];
        for end in ends {
            let mut setup = scram_client(scram_broker(end), "pencil");
            drop(setup.client.publish("t", "x", Qos::AtMostOnce, Wait::None));
            let events = setup.events();
            let [Event::ConnectFailed { error, .. }] = &events[..] else {
                panic!("{events:?}");
            };
            assert!(matches!(error.kind(), ErrorKind::Unproven(_)), "{error}");
            assert_eq!(
                packets(&setup.world),
                [Kind::Connect, Kind::Auth, Kind::Disconnect]
            );
            assert!(!setup.client.is_connected());
        }
    }

    #[test]
    fn a_broker_that_ignores_the_method_is_left() {
        // [MQTT-4.12.0-5]: at least one broker sends CONNACK as if there were no method.
        let world = World::with_peers();
        let scram = Scram::new(ScramHash::Sha256, "user", "pencil").expect("ASCII");
        let options = options(&world).authenticator(scram);
        let setup = Setup::start(world, options);
        let mut peer = setup.greet(crate::CONNACK);
        peer.expect(b"\xE0\x01\x82");
    }

    #[test]
    fn a_sas_token_is_renewed_before_it_expires() {
        let world = World::with_peers();
        let token = SasToken::new("hub.example", "c2VjcmV0IGtleSBvZiBhIGRldmljZQ==")
            .expect("the key is base64");
        let options = options(&world)
            .keep_alive(Duration::ZERO)
            .authenticator(token);
        let setup = Setup::start(world, options);
        let mut peer = setup.world.peer();
        let connect = peer.received();
        // Computed with Python's `hmac`, as below. The clock of a world begins with 2026.
        let signature = "2727b3484cd6457d9968a94a7707dff20075379bf5ac26cd0375df98ddb2ab05";
        assert!(contains(&connect, &unhex(signature)));
        for text in ["\0\x03SAS", "\0\x0D1767225600000", "\0\x0D1767229200000"] {
            assert!(contains(&connect, text.as_bytes()), "{text}");
        }
        // The hub's documentation shows a CONNACK without a method.
        peer.send(crate::CONNACK);
        setup.world.advance(2879 * SECOND);
        peer.expect_nothing();
        setup.world.advance(SECOND);
        let signature = "1a5614eea4b6b1c539decfe96790942486f9308274d3660049ec321ddf67dcdd";
        let expected = [
            b"\xF0\x5F\x19\x5D\x15\0\x03SAS\x16\0\x20".as_slice(),
            &unhex(signature),
            b"\x26\0\x06sas-at\0\x0D1767228480000",
            b"\x26\0\x0Asas-expiry\0\x0D1767232080000",
        ];
        peer.expect(&expected.concat());
        peer.send(b"\xF0\x08\x00\x06\x15\0\x03SAS");
        // And again.
        setup.world.advance(2880 * SECOND);
        assert_eq!(peer.received().first(), Some(&0xF0));
        assert!(setup.client.is_connected());
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    fn unhex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .expect("it is hex")
    }
}

#[test]
fn what_is_held_for_a_quiet_reauthentication_does_not_keep_its_end_from_being_read() {
    let world = World::with_peers();
    let parrot = Parrot::new(&world);
    let setup = start(world, &parrot);
    let mut peer = setup.greet(CONNACK_M);
    let inline = setup
        .client
        .subscribe_inline(("t", Qos::AtLeastOnce), |_| {}, Wait::None);
    let _inline = now(inline).expect("accepted");
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x01");
    let again = setup.client.reauthenticate();
    peer.expect(b"\xF0\x0E\x19\x0C\x15\0\x01M\x16\0\x05hello");
    // Each of them may be unacknowledged: we announce no Receive Maximum.
    let ids = 1..=40_000_u16;
    let sent: Vec<u8> = ids
        .clone()
        .flat_map(|id| {
            let [high, low] = id.to_be_bytes();
            [0x32, 6, 0, 1, b't', high, low, 0]
        })
        .collect();
    for piece in sent.chunks(8 * 1000) {
        peer.send(piece);
        peer.expect_nothing();
    }
    peer.send(SUCCESS);
    now(again).expect("both sides are content");
    let acknowledged: Vec<u8> = ids
        .flat_map(|id| {
            let [high, low] = id.to_be_bytes();
            [0x40, 2, high, low]
        })
        .collect();
    assert!(peer.received() == acknowledged);
}

#[test]
fn what_is_held_for_a_quiet_reauthentication_is_bounded() {
    let world = World::with_peers();
    let parrot = Parrot::new(&world);
    let setup = start(world, &parrot);
    let mut peer = setup.greet(CONNACK_M);
    drop(setup.client.reauthenticate());
    peer.received();
    let before = setup.client.statistics().bytes_in;
    // No honest broker releases what it has not sent, and ours would be an answer of five bytes for each.
    for _ in 0..300 {
        peer.send(&b"\x62\x02\x00\x01".repeat(1000));
    }
    setup.world.run_until_idle();
    let read = setup.client.statistics().bytes_in - before;
    assert!((500_000..800_000).contains(&read), "{read}");
}

#[test]
fn a_quiet_reauthentication_ends_within_the_keep_alive_of_the_server() {
    // [MQTT-3.1.2-20], [MQTT-3.2.2-21]: while it goes on, nothing of ours leaves that could be a PINGREQ.
    for challenged_after in [None, Some(3)] {
        let world = World::with_peers();
        let parrot = Parrot::new(&world);
        let setup = start(world, &parrot);
        let mut peer = setup.greet(b"\x20\x0A\0\0\x07\x13\0\x04\x15\0\x01M");
        drop(setup.client.reauthenticate());
        peer.expect(b"\xF0\x0E\x19\x0C\x15\0\x01M\x16\0\x05hello");
        // Both sides take their time, each of them less than a keep-alive.
        parrot.pause.set(3 * SECOND);
        if let Some(seconds) = challenged_after {
            setup.world.advance(seconds * SECOND);
            peer.send(b"\xF0\x0A\x18\x08\x15\0\x01M\x16\0\x01x");
            setup.world.advance((4 - seconds) * SECOND - SECOND / 2);
        } else {
            setup.world.advance(4 * SECOND - SECOND / 2);
        }
        peer.expect_nothing();
        assert!(setup.client.is_connected());
        setup.world.advance(SECOND / 2);
        assert!(!setup.client.is_connected(), "{challenged_after:?}");
    }
}

#[test]
fn each_answer_in_a_quiet_reauthentication_counts_for_the_keep_alive() {
    let world = World::with_peers();
    let parrot = Parrot::new(&world);
    let setup = start(world, &parrot);
    let mut peer = setup.greet(b"\x20\x0A\0\0\x07\x13\0\x04\x15\0\x01M");
    let again = setup.client.reauthenticate();
    peer.received();
    for _ in 0..3 {
        setup.world.advance(3 * SECOND);
        peer.send(b"\xF0\x0A\x18\x08\x15\0\x01M\x16\0\x01x");
        peer.expect(b"\xF0\x0A\x18\x08\x15\0\x01M\x16\0\x01X");
    }
    setup.world.advance(3 * SECOND);
    peer.send(SUCCESS);
    now(again).expect("both sides are content");
    // And pings go on.
    setup.world.advance(4 * SECOND);
    assert!(peer.received().starts_with(b"\xC0\x00"));
}

#[test]
fn what_came_in_one_turn_with_a_connack_is_read_when_that_is_believed() {
    let world = World::with_peers();
    // The last read that fits into a turn brings the end of CONNACK and a message behind it.
    world.network().read_chunk(8);
    let parrot = Parrot::new(&world);
    let setup = start(world, &parrot);
    let seen = Rc::new(Cell::new(0));
    let count = Rc::clone(&seen);
    let _handle = now(setup.client.subscribe_inline(
        ("t", Qos::AtMostOnce),
        move |_| count.set(count.get() + 1),
        Wait::None,
    ));
    let mut peer = setup.world.peer();
    peer.received();
    let mut bytes = b"\x20\x37\0\0\x34\x15\0\x01M\x26\0\x01k\0\x2A".to_vec();
    bytes.extend([b'x'; 42]);
    bytes.extend(b"\x30\x04\0\x01t\0");
    peer.send(&bytes);
    assert!(setup.client.is_connected());
    assert_eq!(seen.get(), 1);
}

#[test]
fn a_call_that_stands_behind_one_that_failed_is_carried_out_at_once() {
    let world = World::with_peers();
    let parrot = Parrot::new(&world);
    let setup = start(world, &parrot);
    let mut peer = setup.world.peer();
    peer.received();
    peer.send(CONNACK_M);
    parrot.diary();
    parrot.pause.set(1000 * SECOND);
    let stuck = setup.client.reauthenticate();
    setup.world.advance(5 * SECOND);
    let next = setup.client.reauthenticate();
    parrot.pause.set(Duration::ZERO);
    setup.world.advance(5 * SECOND);
    let error = failure(now(stuck));
    assert!(matches!(error.kind(), ErrorKind::TimedOut(_)), "{error}");
    assert_eq!(parrot.diary(), ["again c"]);
    assert_eq!(peer.received()[..3], *b"\xF0\x0E\x19");
    peer.send(SUCCESS);
    now(next).expect("both sides are content");
}
