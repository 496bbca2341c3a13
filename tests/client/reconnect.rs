//! How connections begin, end and begin again, and what of the session goes on.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use coracle::testkit::{
    Attempt, BrokerOptions, Cut, FakeClock, Kind, Network, Peer, Rule, Then, When, World, probe,
};
use coracle::{
    Blame, BoxedTransport, Clock, Connector, Doing, Endpoint, Error, ErrorKind, Event, Filters,
    LocalBoxFuture, Message, Options, Qos, Reason, Sent, Session, Version, Wait,
};

use crate::{
    CONNACK, CONNACK_3, CONNACK_3_PRESENT, CONNACK_PRESENT, SECOND, Setup, failure, now, options,
    poll,
};

const REFUSED: Attempt = Attempt::Refuse(io::ErrorKind::ConnectionRefused);

/// The connect flags (MQTT 5, section 3.1.2.3).
const CLEAN: u8 = 0x02;
const WILL: u8 = 0x04;

/// The connect flags of a CONNECT of MQTT 3.1.1 or 5.
fn flags(connect: &[u8]) -> u8 {
    assert_eq!(connect[0], 0x10, "CONNECT");
    connect[9]
}

/// Takes the next connection; returns it with its CONNECT.
#[track_caller]
fn connecting(setup: &Setup) -> (Peer, Vec<u8>) {
    let mut peer = setup.world.peer();
    let connect = peer.received();
    (peer, connect)
}

/// The failed attempts among `events`: their numbers and delays.
fn failures(events: &[Event]) -> Vec<(u32, Option<Duration>)> {
    let failures = events.iter().filter_map(|event| match event {
        Event::ConnectFailed {
            attempt, retry_in, ..
        } => Some((*attempt, *retry_in)),
        _ => None,
    });
    failures.collect()
}

fn has(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

// Attempts.

#[test]
fn attempts_that_fail_at_once_leave_the_others_their_turn() {
    let world = World::with_peers();
    let options = options(&world)
        .connector(|_: &Endpoint| -> LocalBoxFuture<_> {
            Box::pin(std::future::ready(Err(
                io::ErrorKind::ConnectionRefused.into()
            )))
        })
        .retry_delays(Duration::ZERO, Duration::ZERO);
    let (client, driver) = coracle::Client::new(options);
    let mut driver = std::pin::pin!(driver.run());
    for _ in 0..100 {
        assert!(poll(&mut driver).is_none());
    }
    assert!(client.statistics().failed >= 50);
}

#[test]
fn the_first_connection_is_retried_too() {
    let world = World::new(BrokerOptions::new());
    world.network().next_attempts(3, REFUSED);
    let options = options(&world);
    let mut setup = Setup::start(world, options);
    setup
        .wait(setup.client.connected())
        .expect("the fourth attempt succeeds");
    assert_eq!(setup.world.network().attempts(), 4);
    let events = setup.events();
    let numbers: Vec<u32> = failures(&events)
        .iter()
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(matches!(
        events.last(),
        Some(Event::Connected {
            session_present: false,
            ..
        })
    ));
    let Event::ConnectFailed { error, .. } = &events[0] else {
        panic!("{events:?}");
    };
    assert!(
        matches!(error.kind(), ErrorKind::Io(io) if io.kind() == io::ErrorKind::ConnectionRefused)
    );
    assert_eq!(
        (error.doing(), error.blame()),
        (Doing::Connecting, Blame::Network)
    );
    assert!(!error.is_permanent());
    assert_eq!(setup.client.statistics().failed, 3);
}

#[test]
fn the_driver_gives_up_when_the_user_says_so() {
    let world = World::new(BrokerOptions::new());
    world.network().all_attempts(REFUSED);
    let asked = Rc::new(RefCell::new(Vec::new()));
    let options = {
        let asked = Rc::clone(&asked);
        options(&world).give_up_when(move |_, failed| {
            asked.borrow_mut().push(failed);
            failed == 3
        })
    };
    let mut setup = Setup::start(world, options);
    let mut publishing = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    assert!(poll(&mut publishing).is_none());
    setup.world.advance(20 * SECOND);
    assert_eq!(*asked.borrow(), [1, 2, 3]);
    let events = setup.events();
    assert_eq!(
        failures(&events).last(),
        Some(&(3, None)),
        "there will be no other attempt"
    );
    let error = failure(now(publishing));
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    let error = failure(setup.world.block_on(setup.driver));
    assert!(matches!(error.kind(), ErrorKind::Io(_)), "{error}");
}

#[test]
fn the_driver_may_give_up_also_when_a_connection_is_lost() {
    let world = World::new(BrokerOptions::new());
    let options = options(&world).give_up_when(|_, failed| failed == 0);
    let setup = Setup::start(world, options);
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    setup.world.network().cut(Cut::Close);
    let error = failure(setup.world.block_on(setup.driver));
    assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
}

#[test]
fn options_that_cannot_work_end_the_driver_at_once() {
    let world = World::with_peers();
    let options = options(&world).will(Message::new("a/+", "x"));
    let setup = Setup::start(world, options);
    let error = failure(setup.world.block_on(setup.driver));
    assert!(matches!(error.kind(), ErrorKind::Topic(..)), "{error}");
    assert_eq!(setup.world.network().attempts(), 0);
}

#[test]
fn a_client_id_that_mqtt_cannot_carry_is_no_option() {
    // [MQTT-1.5.4-2], MQTT 5, section 1.5.4
    for (id, good) in [
        ("a\0b".to_owned(), false),
        ("x".repeat(65_536), false),
        ("x".repeat(65_535), true),
        ("\u{FEFF}\u{10FFFF}".to_owned(), true),
    ] {
        assert_eq!(Options::new("mqtt://broker", &id).is_ok(), good);
    }
}

#[test]
fn delays_are_random_below_a_bound_that_doubles() {
    let delays = |seed| {
        let world = World::new(BrokerOptions::new());
        world.network().all_attempts(REFUSED);
        let options = options(&world).seed(seed);
        let mut setup = Setup::start(world, options);
        setup.world.advance(400 * SECOND);
        let failures = failures(&setup.events());
        let delays: Vec<Duration> = failures
            .into_iter()
            .filter_map(|(_, delay)| delay)
            .collect();
        assert!(delays.len() > 8, "{delays:?}");
        delays
    };
    let first = delays(1);
    assert_eq!(first, delays(1), "the same seed gives the same delays");
    assert_ne!(first, delays(2));
    for (delay, bound) in first.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
        assert!(*delay <= bound * SECOND, "{delay:?} of {bound} s");
    }
    assert!(
        first.iter().any(|delay| *delay > 16 * SECOND),
        "the bound grows: {first:?}"
    );
}

#[test]
fn the_next_attempt_comes_exactly_when_the_event_says() {
    let world = World::new(BrokerOptions::new());
    world.network().all_attempts(REFUSED);
    let options = options(&world).retry_delays(4 * SECOND, 10 * SECOND);
    let mut setup = Setup::start(world, options);
    for attempt in 1..10 {
        let events = setup.events();
        let [(number, Some(delay))] = failures(&events)[..] else {
            panic!("{events:?}");
        };
        assert_eq!(number, attempt);
        assert!(delay <= 10 * SECOND);
        setup
            .world
            .advance(delay.saturating_sub(Duration::from_nanos(1)));
        assert_eq!(setup.world.network().attempts(), attempt as usize);
        setup.world.advance(Duration::from_nanos(1));
    }
}

#[test]
fn a_broker_that_accepts_and_then_kicks_is_not_flooded() {
    let world = World::new(BrokerOptions::new());
    world.broker(|broker, _| {
        // Something is sent after CONNACK, and the answer is the end of the link.
        let kick = Rule::new(When::Packet(Kind::Subscribe), [Then::Swallow, Then::Cut]);
        broker.add_rule(kick.always());
    });
    let options = options(&world);
    let mut setup = Setup::start(world, options);
    let _stream = now(setup.client.subscribe("t", Qos::AtLeastOnce, Wait::None));
    setup.world.advance(600 * SECOND);
    let connects = setup.world.broker(|broker, _| broker.connects());
    // Within ten minutes: six doublings, then every half a minute on average.
    assert!((10..40).contains(&connects), "{connects} connections");
    let delays: Vec<_> = setup
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Disconnected { retry_in, .. } => retry_in,
            _ => None,
        })
        .collect();
    assert!(
        delays.iter().any(|delay| *delay > 16 * SECOND),
        "{delays:?}"
    );
}

#[test]
fn delays_start_over_after_a_stable_link() {
    let world = World::new(BrokerOptions::new());
    let options = options(&world).stable_after(10 * SECOND);
    let mut setup = Setup::start(world, options);
    for round in 0..20 {
        setup
            .wait(setup.client.connected())
            .expect("the broker is there");
        setup.world.advance(10 * SECOND);
        setup.world.network().cut(Cut::Close);
        let events = setup.events();
        let Some(Event::Disconnected {
            retry_in: Some(delay),
            ..
        }) = events.last()
        else {
            panic!("{events:?}");
        };
        assert!(*delay <= SECOND, "round {round}: {delay:?}");
    }
}

#[test]
fn a_hanging_transport_is_given_up_after_the_connect_timeout() {
    let world = World::new(BrokerOptions::new());
    world.network().next_attempts(1, Attempt::Hang);
    let options = options(&world);
    let mut setup = Setup::start(world, options);
    setup.world.advance(20 * SECOND - SECOND / 1000);
    assert!(setup.events().is_empty());
    setup.world.advance(SECOND / 1000);
    let events = setup.events();
    let Some(Event::ConnectFailed { error, .. }) = events.first() else {
        panic!("{events:?}");
    };
    assert!(
        matches!(error.kind(), ErrorKind::TimedOut(after) if *after == 20 * SECOND),
        "{error}"
    );
    setup
        .wait(setup.client.connected())
        .expect("the next attempt succeeds");
}

#[test]
fn a_broker_that_does_not_answer_connect_is_given_up_after_the_connack_timeout() {
    let mut setup = Setup::with_peers();
    let (peer, _) = connecting(&setup);
    setup.world.advance(10 * SECOND);
    let events = setup.events();
    let Some(Event::ConnectFailed {
        error, attempt: 1, ..
    }) = events.first()
    else {
        panic!("{events:?}");
    };
    assert!(
        matches!(error.kind(), ErrorKind::TimedOut(after) if *after == 10 * SECOND),
        "{error}"
    );
    assert!(peer.is_closed());
    setup.greet_later(CONNACK);
    assert!(setup.client.is_connected());
}

#[test]
fn attempts_are_counted_anew_after_every_connection() {
    let world = World::new(BrokerOptions::new());
    world.network().next_attempts(2, REFUSED);
    let options = options(&world);
    let mut setup = Setup::start(world, options);
    setup
        .wait(setup.client.connected())
        .expect("the third attempt succeeds");
    drop(setup.events());
    setup.world.network().next_attempts(1, REFUSED);
    setup.client.reconnect().expect("it is open");
    setup.world.run_until_idle();
    setup
        .wait(setup.client.connected())
        .expect("the next attempt succeeds");
    assert_eq!(
        failures(&setup.events()).first().map(|(number, _)| *number),
        Some(1)
    );
    setup.world.network().next_attempts(1, REFUSED);
    setup.world.network().cut(Cut::Close);
    setup.world.run_until_idle();
    setup
        .wait(setup.client.connected())
        .expect("the next attempt succeeds");
    assert_eq!(
        failures(&setup.events()).first().map(|(number, _)| *number),
        Some(1)
    );
}

#[test]
fn errors_that_cannot_heal_are_told_as_permanent() {
    for (reason, permanent) in [
        (Reason::BAD_USER_NAME_OR_PASSWORD, true),
        (Reason::NOT_AUTHORIZED, true),
        (Reason::CLIENT_IDENTIFIER_NOT_VALID, true),
        (Reason::SERVER_BUSY, false),
        (Reason::SERVER_UNAVAILABLE, false),
    ] {
        let mut setup = Setup::with_broker(BrokerOptions::new().refuse(reason));
        let events = setup.events();
        let Some(Event::ConnectFailed { error, .. }) = events.first() else {
            panic!("{events:?}");
        };
        assert_eq!(error.reason(), Some(reason));
        assert_eq!(error.is_permanent(), permanent, "{error}");
        assert_eq!(error.blame(), Blame::Broker);
    }
    for (reason, permanent) in [(0x8e, true), (0x8b, false)] {
        let (mut setup, mut peer) = Setup::connected();
        peer.send(&[0xe0, 1, reason]);
        let events = setup.events();
        let Some(Event::Disconnected { error, .. }) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!(error.reason(), Some(Reason::new(reason)));
        assert_eq!(error.is_permanent(), permanent, "{error}");
    }
}

// What is asked for anew.

/// Options with a callback that gets the number of its call, from 1.
fn each_time(
    options: Options,
    change: impl Fn(usize, coracle::Attempt) -> coracle::Result<coracle::Attempt> + 'static,
) -> Options {
    let calls = Cell::new(0);
    options.before_connect(move |attempt| {
        calls.set(calls.get() + 1);
        let changed = change(calls.get(), attempt);
        Box::pin(std::future::ready(changed))
    })
}

#[test]
fn credentials_and_will_are_asked_for_at_every_attempt() {
    let world = World::with_peers();
    let options = each_time(options(&world), |call, attempt| {
        assert_eq!(
            attempt.failed_before() as usize,
            call - 1,
            "failed attempts so far"
        );
        let will = Message::new("w", format!("will{call}")).qos(Qos::AtMostOnce);
        Ok(attempt
            .credentials("user", format!("pass{call}").into_bytes())
            .will(will))
    });
    let setup = Setup::start(world, options);
    for call in 1..=3 {
        let (mut peer, connect) = connecting(&setup);
        assert_eq!(flags(&connect) & (WILL | 0xc0), WILL | 0xc0);
        assert!(has(&connect, format!("will{call}").as_bytes()));
        assert!(has(
            &connect,
            format!("\0\x04user\0\x05pass{call}").as_bytes()
        ));
        // CONNACK: busy.
        peer.send(b"\x20\x03\x00\x89\x00");
        setup.until_attempt();
    }
}

#[test]
fn a_callback_that_fails_is_a_failed_attempt() {
    let world = World::with_peers();
    let options = each_time(options(&world), |call, attempt| match call {
        1 => attempt.endpoint("what://is this"),
        _ => Ok(attempt),
    });
    let mut setup = Setup::start(world, options);
    let events = setup.events();
    let Some(Event::ConnectFailed { error, .. }) = events.first() else {
        panic!("{events:?}");
    };
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    assert_eq!(setup.world.network().attempts(), 0, "nothing was opened");
    setup.greet_later(CONNACK);
    assert!(setup.client.is_connected());
}

#[test]
fn a_callback_may_call_the_client_and_take_its_time() {
    let world = World::with_peers();
    let clock = world.clock();
    let client = Rc::new(RefCell::new(None::<coracle::Client>));
    let options = {
        let client = Rc::clone(&client);
        options(&world).before_connect(move |attempt| {
            let sleep = Clock::sleep_until(&clock, Clock::now(&clock) + 3 * SECOND);
            let client = client.borrow().clone();
            Box::pin(async move {
                sleep.await;
                let client = client.expect("it was put there");
                client
                    .publish("t", "x", Qos::AtLeastOnce, Wait::None)
                    .await?;
                Ok(attempt)
            })
        })
    };
    let setup = Setup::start(world, options);
    *client.borrow_mut() = Some(setup.client.clone());
    setup.world.advance(2 * SECOND);
    assert_eq!(setup.world.network().attempts(), 0);
    setup.world.advance(SECOND);
    let mut peer = setup.greet(CONNACK);
    peer.expect(b"\x32\x07\x00\x01t\x00\x01\x00x");
    client.borrow_mut().take();
}

#[test]
fn a_callback_that_hangs_is_given_up_after_the_connect_timeout() {
    let world = World::with_peers();
    let options = options(&world).before_connect(|_| Box::pin(std::future::pending()));
    let mut setup = Setup::start(world, options);
    setup.world.advance(20 * SECOND);
    let events = setup.events();
    assert!(
        matches!(&events[..], [Event::ConnectFailed { .. }]),
        "{events:?}"
    );
}

#[test]
fn a_bad_will_of_the_callback_is_a_failed_attempt_and_is_not_sent() {
    let world = World::with_peers();
    let options = each_time(options(&world), |_, attempt| {
        Ok(attempt.will(Message::new("a/#", "x")))
    });
    let mut setup = Setup::start(world, options);
    let events = setup.events();
    let Some(Event::ConnectFailed { error, .. }) = events.first() else {
        panic!("{events:?}");
    };
    assert!(matches!(error.kind(), ErrorKind::Topic(..)), "{error}");
    assert_eq!(setup.world.network().bytes_sent(), 0);
}

/// Where the attempts of a client led.
type Led = Rc<RefCell<Vec<String>>>;

/// A client whose attempts lead to the endpoints that `change` sets.
fn moving(
    session: Session,
    change: impl Fn(usize, coracle::Attempt) -> coracle::Result<coracle::Attempt> + 'static,
) -> (Setup, Led) {
    let world = World::with_peers();
    let led = Led::default();
    let connector = {
        let (network, led) = (world.network(), Rc::clone(&led));
        move |endpoint: &Endpoint| {
            led.borrow_mut().push(endpoint.host().to_owned());
            network.open()
        }
    };
    let options = options(&world).connector(connector).session(session);
    let options = each_time(options, change);
    (Setup::start(world, options), led)
}

#[test]
fn a_moved_endpoint_starts_clean() {
    for session in [Session::Fresh, Session::Resume] {
        let (setup, led) = moving(session, |call, attempt| {
            attempt.endpoint(if call == 1 { "mqtt://a" } else { "mqtt://b" })
        });
        let (mut peer, _) = connecting(&setup);
        peer.send(CONNACK);
        let _stream = now(setup.client.subscribe("t", Qos::AtLeastOnce, Wait::None));
        peer.received();
        peer.send(b"\x90\x04\x00\x01\x00\x01");
        drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
        peer.received();
        peer.reset();
        setup.until_attempt();
        // What b may hold under our name is not the session that was at a: it is ended first.
        let (mut peer, connect) = connecting(&setup);
        match session {
            Session::Fresh | Session::None => {
                peer.send(CONNACK_PRESENT);
                peer.expect(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00");
            }
            Session::Resume => {
                assert_eq!(flags(&connect) & CLEAN, CLEAN);
                peer.send(CONNACK);
                peer.expect(b"\xe0\x00");
            }
        }
        peer.close();
        let (mut peer, connect) = connecting(&setup);
        assert_eq!(flags(&connect) & CLEAN, 0);
        peer.send(CONNACK);
        // Subscribed anew, then published anew, with DUP 0.
        let wire = peer.received();
        assert!(
            wire.starts_with(&[0x82, 11]) && wire[13] == 0x32,
            "{wire:02x?}"
        );
        peer.reset();
        setup.until_attempt();
        let (mut peer, _) = connecting(&setup);
        peer.send(CONNACK_PRESENT);
        let wire = peer.received();
        assert!(wire.contains(&0x3a), "now the session is at b: {wire:02x?}");
        assert_eq!(*led.borrow(), ["a", "b", "b", "b"]);
    }
}

#[test]
fn an_endpoint_that_shares_sessions_goes_on_with_it() {
    let (setup, led) = moving(Session::Fresh, |call, attempt| {
        let attempt = attempt.endpoint(["mqtt://a", "mqtt://b"][call - 1])?;
        Ok(attempt.shares_sessions())
    });
    let (mut peer, _) = connecting(&setup);
    peer.send(CONNACK);
    drop(setup.client.publish("t", "x", Qos::ExactlyOnce, Wait::None));
    peer.received();
    peer.reset();
    setup.until_attempt();
    let (mut peer, connect) = connecting(&setup);
    assert_eq!(flags(&connect) & CLEAN, 0);
    peer.send(CONNACK_PRESENT);
    peer.expect(b"\x3c\x07\x00\x01t\x00\x01\x00x");
    assert_eq!(*led.borrow(), ["a", "b"]);
}

#[test]
fn an_attempt_that_failed_elsewhere_does_not_cost_the_session() {
    let (setup, led) = moving(Session::Fresh, |call, attempt| {
        attempt.endpoint(["mqtt://a", "mqtt://b", "mqtt://a"][call - 1])
    });
    let (mut peer, _) = connecting(&setup);
    peer.send(CONNACK);
    drop(setup.client.publish("t", "x", Qos::ExactlyOnce, Wait::None));
    peer.received();
    peer.reset();
    setup.until_attempt();
    let (mut peer, _) = connecting(&setup);
    peer.send(b"\x20\x03\x00\x89\x00");
    setup.until_attempt();
    let (mut peer, connect) = connecting(&setup);
    assert_eq!(*led.borrow(), ["a", "b", "a"]);
    assert_eq!(flags(&connect) & CLEAN, 0, "the session is still at a");
    peer.send(CONNACK_PRESENT);
    peer.expect(b"\x3c\x07\x00\x01t\x00\x01\x00x");
}

// By the user's will.

#[test]
fn reconnect_leaves_by_disconnect_so_that_no_will_fires() {
    let world = World::new(BrokerOptions::new());
    let options = options(&world).will(Message::new("w", "gone").retain(true));
    let mut setup = Setup::start(world, options);
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    drop(setup.events());
    setup.client.reconnect().expect("it is open");
    setup.world.run_until_idle();
    assert!(setup.client.is_connected(), "at once");
    setup.world.broker(|broker, _| {
        assert_eq!(broker.connects(), 2);
        assert_eq!(broker.retained("w"), None);
        let kinds: Vec<Kind> = broker
            .packets()
            .iter()
            .map(|packet| packet.kind())
            .collect();
        assert!(kinds.contains(&Kind::Disconnect), "{kinds:?}");
    });
    let events = setup.events();
    assert!(matches!(
        events.last(),
        Some(Event::Connected {
            session_present: true,
            ..
        })
    ));
    // The will does fire when the link breaks.
    setup.world.network().cut(Cut::Close);
    setup.world.run_until_idle();
    setup
        .world
        .broker(|broker, _| assert_eq!(broker.retained("w"), Some(&b"gone"[..])));
}

#[test]
fn reconnect_ends_a_delay_and_a_hanging_attempt() {
    let world = World::new(BrokerOptions::new());
    let options = options(&world).retry_delays(1000 * SECOND, 1000 * SECOND);
    world.network().next_attempts(1, REFUSED);
    world.network().next_attempts(1, Attempt::Hang);
    let setup = Setup::start(world, options);
    setup.world.run_until_idle();
    assert_eq!(setup.world.network().attempts(), 1);
    setup.client.reconnect().expect("it is open");
    setup.world.run_until_idle();
    assert_eq!(setup.world.network().attempts(), 2);
    setup.client.reconnect().expect("it is open");
    setup.world.run_until_idle();
    assert!(setup.client.is_connected());
}

#[test]
fn reconnect_without_an_answer_to_disconnect_takes_a_second_at_most() {
    let (setup, mut peer) = Setup::connected();
    setup.client.reconnect().expect("it is open");
    let wire = peer.received();
    assert_eq!(wire, b"\xe0\x00");
    // The peer neither closes nor answers.
    setup.world.advance(SECOND);
    let (mut peer, connect) = connecting(&setup);
    assert_eq!(flags(&connect) & CLEAN, 0);
    peer.send(CONNACK_PRESENT);
    assert!(setup.client.is_connected());
}

#[test]
fn connected_waits_for_the_connection_and_ends_at_once_if_there_is_one() {
    let world = World::with_peers();
    let options = options(&world);
    let setup = Setup::start(world, options);
    let mut connected = setup.client.connected();
    let (mut peer, _) = connecting(&setup);
    assert!(poll(&mut connected).is_none(), "CONNACK has not come");
    assert!(!setup.client.is_connected());
    peer.send(CONNACK);
    assert!(now(connected).is_ok());
    assert!(now(setup.client.connected()).is_ok());
    peer.reset();
    assert!(!setup.client.is_connected());
    assert!(poll(&mut setup.client.connected()).is_none());
}

#[test]
fn what_the_broker_announced_can_be_read_while_there_is_a_connection() {
    let setup = Setup::with_peers();
    assert!(setup.client.server_properties().is_none());
    assert_eq!(setup.client.credit(), 0);
    // Receive Maximum 7.
    let mut peer = setup.greet(b"\x20\x06\x00\x00\x03\x21\x00\x07");
    let properties = setup
        .client
        .server_properties()
        .expect("there is a connection");
    assert_eq!(properties.list().receive_maximum(), Some(7));
    assert_eq!(setup.client.credit(), 7);
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    peer.received();
    assert_eq!(setup.client.credit(), 6);
    peer.reset();
    assert!(setup.client.server_properties().is_none());
}

#[test]
fn a_slow_link_that_takes_bytes_is_alive_with_and_without_frames() {
    for framed in [false, true] {
        let world = World::with_peers();
        let network = world.network();
        let options = options(&world).keep_alive(Duration::from_secs(60));
        let options = match framed {
            true => options.connector(Framed(network.clone())),
            false => options,
        };
        let setup = Setup::start(world, options);
        let (mut peer, connack) = match framed {
            true => (setup.greet_framed(b"\x82\x05"), CONNACK),
            false => (setup.greet(b""), CONNACK),
        };
        peer.send(connack);
        assert!(setup.client.is_connected());
        // 1,000 bytes per second, and nothing comes back.
        network.send_buffer(1000);
        let payload = vec![b'x'; 200_000];
        drop(
            setup
                .client
                .publish("t", payload, Qos::AtLeastOnce, Wait::None),
        );
        let mut taken = 0;
        for second in 0..195 {
            setup.world.advance(SECOND);
            assert!(setup.client.is_connected(), "{framed}: {second} s");
            taken += peer.received().len();
        }
        assert!(taken > 190_000, "{framed}: {taken}");
        // What takes nothing any more is found dead as before.
        network.stall();
        drop(
            setup
                .client
                .publish("t", vec![b'x'; 100_000], Qos::AtLeastOnce, Wait::None),
        );
        setup.world.advance(95 * SECOND);
        assert!(!setup.client.is_connected(), "{framed}");
    }
}

// A message over which the link breaks.

/// A network on which MQTT is in the frames of a WebSocket, without the upgrade.
struct Framed(Network);

impl Connector for Framed {
    fn connect(&self, endpoint: &Endpoint) -> LocalBoxFuture<io::Result<BoxedTransport>> {
        let opening = self.0.open();
        let endpoint = endpoint.clone();
        Box::pin(async move { Ok(probe::frames(opening.await?, &endpoint)) })
    }
}

/// The messages that a broker would have got, by their payload's first byte, and PINGREQ as `?`.
fn heard(wire: &[u8]) -> String {
    let mut heard = String::new();
    let mut rest = wire;
    while let [first, size, ..] = rest {
        let (packet, behind) = rest.split_at(2 + usize::from(*size));
        rest = behind;
        heard.push(match first >> 4 {
            3 => char::from(packet[7]),
            12 => '?',
            other => panic!("a packet of the type {other}"),
        });
    }
    heard
}

#[test]
fn a_message_over_which_the_broker_resets_six_times_fails_and_the_next_one_arrives() {
    let (mut setup, mut peer) = Setup::connected_3();
    drop(setup.client.publish("t", "a", Qos::AtLeastOnce, Wait::None));
    drop(setup.client.publish("t", "b", Qos::AtLeastOnce, Wait::None));
    // The first three may be anything.
    for _ in 0..3 {
        assert_eq!(heard(&peer.received()), "ab");
        peer.reset();
        peer = setup.greet_later(CONNACK_3_PRESENT);
    }
    for _ in 0..3 {
        // A network that breaks every few seconds would show itself.
        setup.world.advance(4 * SECOND);
        peer.expect_nothing();
        setup.world.advance(SECOND);
        assert_eq!(heard(&peer.received()), "?");
        peer.send(b"\xd0\x00");
        // Alone, so that nothing else can be the cause.
        assert_eq!(heard(&peer.received()), "a");
        assert_eq!(setup.client.statistics().unfinished, 2);
        peer.reset();
        peer = setup.greet_later(CONNACK_3_PRESENT);
    }
    assert_eq!(heard(&peer.received()), "b");
    peer.send(b"\x40\x02\x00\x02");
    assert_eq!(setup.client.statistics().unfinished, 0);
    let unpublished = setup.events().into_iter().find_map(|event| match event {
        Event::Unpublished { error, .. } => Some(error),
        _ => None,
    });
    let error = unpublished.expect("it was given up");
    assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
    assert_eq!(error.sent(), Sent::Maybe);
}

#[test]
fn a_message_whose_body_the_broker_does_not_want_to_read_fails() {
    for cut in [Cut::Close, Cut::Reset] {
        let (setup, mut peer) = Setup::connected_3();
        let network = setup.world.network();
        network.send_buffer(1000);
        let mut publishing = setup
            .client
            .publish("t", vec![b'a'; 5000], Qos::AtLeastOnce, Wait::Ack)
            .timeout(Duration::from_secs(3600));
        drop(setup.client.publish("t", "b", Qos::AtLeastOnce, Wait::None));
        let mut count = 0;
        loop {
            setup.world.advance(5 * SECOND);
            if peer.received() == b"\xc0\x00" {
                peer.send(b"\xd0\x00");
                peer.received();
            }
            if poll(&mut publishing).is_some() {
                break;
            }
            count += 1;
            assert!(count <= 6, "{cut:?}: it is sent again and again");
            network.cut(cut);
            peer = setup.greet_later(CONNACK_3_PRESENT);
        }
        peer.send(b"\x40\x02\x00\x02");
        assert_eq!(setup.client.statistics().unfinished, 0, "{cut:?}");
    }
}

#[test]
fn a_message_over_which_the_broker_closes_the_websocket_fails() {
    let world = World::with_peers();
    let options = options(&world)
        .version(Version::V3_1_1)
        .connector(Framed(world.network()));
    let setup = Setup::start(world, options);
    let connack = [b"\x82\x04", CONNACK_3].concat();
    let mut peer = setup.greet_framed(&connack);
    let mut publishing = setup
        .client
        .publish("t", "a", Qos::AtLeastOnce, Wait::Ack)
        .timeout(Duration::from_secs(3600));
    let connack = [b"\x82\x04", CONNACK_3_PRESENT].concat();
    for _ in 0..6 {
        setup.world.advance(5 * SECOND);
        peer.send(b"\x82\x02\xd0\x00");
        setup.world.run_until_idle();
        assert!(poll(&mut publishing).is_none());
        // 1009: too big.
        peer.send(b"\x88\x02\x03\xf1");
        peer.close();
        setup.until_attempt();
        peer = setup.greet_framed(&connack);
    }
    let error = failure(poll(&mut publishing).expect("it was given up"));
    assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
}

#[test]
fn a_network_that_resets_every_few_seconds_costs_no_message() {
    // A message takes 400 ms there and back, and a connection lasts for 0.8 s to 12 s on average.
    for seed in 0..60 {
        let world = World::with_peers();
        let options = options(&world).version(Version::V3_1_1).seed(seed);
        let setup = Setup::start(world, options);
        let mut random = fastrand::Rng::with_seed(seed);
        let mean = [2, 5, 12, 30][seed as usize % 4];
        let mut peer = setup.greet(CONNACK_3);
        let mut waits = Vec::new();
        let mut acknowledged = 0;
        for number in 0..400 {
            if number % 4 == 0 {
                let waiting = setup
                    .client
                    .publish("t", "a", Qos::AtLeastOnce, Wait::Ack)
                    .timeout(Duration::from_secs(36_000));
                waits.push(waiting);
            }
            // What it said 400 ms ago is answered.
            let said = peer.received();
            setup.world.advance(Duration::from_millis(400));
            if random.usize(..mean) == 0 {
                peer.reset();
                peer = setup.greet_later(CONNACK_3_PRESENT);
                continue;
            }
            let mut rest = &said[..];
            while let [first, size, ..] = rest {
                let (packet, behind) = rest.split_at(2 + usize::from(*size));
                rest = behind;
                match first >> 4 {
                    3 => peer.send(&[0x40, 2, packet[5], packet[6]]),
                    12 => peer.send(b"\xd0\x00"),
                    other => panic!("a packet of the type {other}"),
                }
            }
            waits.retain_mut(|waiting| match poll(waiting) {
                Some(outcome) => {
                    acknowledged += 1;
                    outcome.unwrap_or_else(|error| panic!("{seed}, {number}: {error}"));
                    false
                }
                None => true,
            });
        }
        assert!(acknowledged > 50, "{seed}: {acknowledged}");
    }
}

// The session.

#[test]
fn a_lost_session_restores_the_subscriptions_first() {
    // Situation 4.
    let (setup, mut peer) = Setup::connected();
    let filters = Filters::new("a", Qos::AtLeastOnce).and("b", Qos::ExactlyOnce);
    let _stream = now(setup.client.subscribe_many(filters, Wait::None));
    peer.received();
    peer.send(b"\x90\x05\x00\x01\x00\x01\x02");
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    peer.received();
    peer.reset();
    drop(setup.client.publish("t", "0", Qos::AtMostOnce, Wait::None));
    let mut peer = setup.greet_later(CONNACK);
    let wire = peer.received();
    assert!(
        wire.starts_with(b"\x82\x0f\x00\x03\x04\x0b\x80\x80\x01\x00\x01a\x01\x00\x01b\x02"),
        "{wire:02x?}"
    );
}

#[test]
fn a_present_session_is_not_subscribed_to_again() {
    let (mut setup, mut peer) = Setup::connected();
    let mut stream =
        now(setup.client.subscribe("t", Qos::AtLeastOnce, Wait::None)).expect("accepted");
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x01");
    peer.reset();
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    peer.expect_nothing();
    let events = setup.events();
    assert!(matches!(
        events.last(),
        Some(Event::Connected {
            session_present: true,
            ..
        })
    ));
    peer.send(b"\x30\x05\x00\x01t\x00x");
    assert!(stream.try_next().is_some());
}

#[test]
fn a_restored_subscription_that_is_refused_ends_its_stream_with_an_event() {
    let (mut setup, mut peer) = Setup::connected();
    let mut stream =
        now(setup.client.subscribe("t", Qos::AtLeastOnce, Wait::None)).expect("accepted");
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x01");
    peer.reset();
    let mut peer = setup.greet_later(CONNACK);
    peer.expect(b"\x82\x0b\x00\x02\x04\x0b\x80\x80\x01\x00\x01t\x01");
    peer.send(b"\x90\x04\x00\x02\x00\x87");
    assert!(now(stream.next()).is_none());
    assert_eq!(
        stream.error().and_then(|error| error.reason()),
        Some(Reason::NOT_AUTHORIZED)
    );
    let events = setup.events();
    assert!(
        matches!(events.last(), Some(Event::SubscriptionEnded { .. })),
        "{events:?}"
    );
    // It is not restored another time.
    peer.reset();
    let mut peer = setup.greet_later(CONNACK);
    peer.expect_nothing();
}

#[test]
fn streams_go_on_across_many_reconnects() {
    let setup = Setup::with_broker(BrokerOptions::new());
    let mut stream = setup
        .wait(setup.client.subscribe("t", Qos::AtLeastOnce, Wait::Ack))
        .expect("granted");
    for round in 0..20_u8 {
        setup
            .world
            .network()
            .cut([Cut::Close, Cut::Reset][usize::from(round % 2)]);
        let publishing = setup
            .client
            .publish("t", vec![round], Qos::AtLeastOnce, Wait::Ack);
        setup
            .wait(publishing.timeout(300 * SECOND))
            .expect("the link comes back");
        let message = setup.wait(stream.next()).expect("the stream goes on");
        assert_eq!(message.payload(), [round]);
        // PUBACK leaves, or the broker would send the message again.
        setup.world.run_until_idle();
    }
}

#[test]
fn a_client_id_that_the_broker_chose_is_kept() {
    let world = World::new(BrokerOptions::new().assigned_client_id("chosen"));
    let options = Options::new("mqtt://broker", "")
        .expect("an empty client id is well-formed")
        .connector(world.network())
        .clock(world.clock());
    let mut setup = Setup::start(world, options);
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    assert_eq!(setup.client.client_id(), "chosen");
    setup.world.network().cut(Cut::Close);
    setup.world.run_until_idle();
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    let events = setup.events();
    assert!(matches!(
        events.last(),
        Some(Event::Connected {
            session_present: true,
            ..
        })
    ));
}

#[test]
fn leftovers_of_an_earlier_process_are_ended_on_5() {
    let mut setup = Setup::with_peers();
    let (mut peer, connect) = connecting(&setup);
    assert_eq!(flags(&connect) & CLEAN, 0);
    peer.send(CONNACK_PRESENT);
    peer.expect(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00");
    peer.close();
    assert!(setup.events().is_empty(), "none of this is news");
    let (mut peer, connect) = connecting(&setup);
    assert_eq!(flags(&connect) & CLEAN, 0);
    peer.send(CONNACK);
    peer.expect_nothing();
    let events = setup.events();
    assert!(
        matches!(
            events[..],
            [Event::Connected {
                session_present: false,
                ..
            }]
        ),
        "{events:?}"
    );
}

/// A client of this version in a world of peers, with a will.
fn with_version(version: Version) -> Setup {
    let world = World::with_peers();
    let options = options(&world)
        .version(version)
        .will(Message::new("w", "gone"));
    Setup::start(world, options)
}

#[test]
fn leftovers_of_an_earlier_process_are_wiped_on_3_1_1() {
    // Situation 1: keep, session present; leave and connect clean; connect again.
    let mut setup = with_version(Version::V3_1_1);
    let (mut peer, connect) = connecting(&setup);
    assert_eq!(flags(&connect) & CLEAN, 0);
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    peer.send(CONNACK_3_PRESENT);
    peer.expect(b"\xe0\x00");
    peer.close();
    let (mut peer, connect) = connecting(&setup);
    assert_eq!(
        flags(&connect) & (CLEAN | WILL),
        CLEAN,
        "clean, and without a will"
    );
    peer.send(CONNACK_3);
    peer.expect(b"\xe0\x00");
    peer.close();
    assert!(!setup.client.is_connected());
    assert!(setup.events().is_empty(), "none of this is news");
    let (mut peer, connect) = connecting(&setup);
    assert_eq!(flags(&connect) & (CLEAN | WILL), WILL);
    peer.send(CONNACK_3);
    peer.expect(b"\x32\x06\x00\x01t\x00\x01x");
    let events = setup.events();
    assert!(
        matches!(
            events[..],
            [Event::Connected {
                session_present: false,
                ..
            }]
        ),
        "{events:?}"
    );
}

#[test]
fn without_leftovers_3_1_1_connects_once() {
    let setup = with_version(Version::V3_1_1);
    let (mut peer, connect) = connecting(&setup);
    assert_eq!(flags(&connect) & CLEAN, 0);
    peer.send(CONNACK_3);
    peer.expect_nothing();
    assert!(setup.client.is_connected());
}

#[test]
fn messages_for_an_earlier_process_reach_nobody_on_3_1_1() {
    let world = World::new(BrokerOptions::new());
    let start = || {
        let options = options(&world).version(Version::V3_1_1);
        Setup::start(world.clone(), options)
    };
    let earlier = start();
    let stream = earlier.wait(earlier.client.subscribe("t", Qos::AtLeastOnce, Wait::Ack));
    // The process dies.
    drop(earlier.driver);
    world.run_until_idle();
    drop(stream);
    world.broker(|broker, now| broker.publish(now, &Message::new("t", "old")));
    assert_eq!(world.broker(|broker, _| broker.backlog("c")), 1);
    let later = start();
    later
        .wait(later.client.connected())
        .expect("the broker is there");
    world.run_until_idle();
    assert_eq!(later.client.statistics().received, 0);
    world.broker(|broker, _| {
        assert_eq!(broker.backlog("c"), 0);
        assert_eq!(broker.subscriptions("c"), []);
    });
}

#[test]
fn a_session_none_client_starts_clean_each_time() {
    let world = World::with_peers();
    let options = options(&world).session(Session::None);
    let setup = Setup::start(world, options);
    for _ in 0..3 {
        let (mut peer, connect) = connecting(&setup);
        assert_eq!(flags(&connect) & CLEAN, CLEAN);
        peer.send(CONNACK);
        peer.reset();
        setup.until_attempt();
    }
}

// Silence.

#[test]
fn a_silent_link_is_found_dead_and_replaced() {
    let mut setup = Setup::with_broker(BrokerOptions::new());
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    drop(setup.events());
    setup.world.network().cut(Cut::Hole);
    let start = setup.world.now();
    setup.world.advance(70 * SECOND - SECOND / 1000);
    assert!(setup.client.is_connected());
    setup.world.advance(SECOND / 1000);
    assert!(
        !setup.client.is_connected(),
        "keep-alive 60 s, patience 10 s"
    );
    let events = setup.events();
    let Some(Event::Disconnected { error, .. }) = events.first() else {
        panic!("{events:?}");
    };
    assert!(
        matches!(error.kind(), ErrorKind::Silent(after) if *after == 10 * SECOND),
        "{error}"
    );
    assert_eq!(error.blame(), Blame::Network);
    setup
        .wait(setup.client.connected())
        .expect("the next link works");
    assert!(setup.world.now() - start < 100 * SECOND);
}

#[test]
fn a_link_that_is_only_idle_is_kept_alive_for_hours() {
    let mut setup = Setup::with_broker(BrokerOptions::new());
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    drop(setup.events());
    setup.world.advance(6 * 3600 * SECOND);
    assert!(setup.events().is_empty());
    setup.world.broker(|broker, _| {
        assert_eq!(broker.connects(), 1);
        let pings = broker
            .packets()
            .iter()
            .filter(|packet| packet.kind() == Kind::Pingreq);
        assert_eq!(pings.count(), 360);
    });
}

/// A wall clock that is set anew whenever somebody looks at it, above a clock that goes right.
#[derive(Debug)]
struct Jumps {
    clock: FakeClock,
    looks: Rc<Cell<u32>>,
}

impl Clock for Jumps {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn sleep_until(&self, deadline: Instant) -> LocalBoxFuture<()> {
        self.clock.sleep_until(deadline)
    }

    fn unix_time(&self) -> Duration {
        self.looks.set(self.looks.get() + 1);
        // Ten years ahead, and back to what a device without a battery begins with.
        match self.looks.get() % 2 {
            0 => Duration::ZERO,
            _ => 10 * 365 * 24 * 3600 * SECOND,
        }
    }
}

#[test]
fn a_wall_clock_that_jumps_ends_no_link_no_wait_and_no_message() {
    let world = World::new(BrokerOptions::new());
    let looks = Rc::new(Cell::new(0));
    let clock = Jumps {
        clock: world.clock(),
        looks: Rc::clone(&looks),
    };
    let mut setup = Setup::start(world.clone(), options(&world).clock(clock));
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    drop(setup.events());
    // Pings are as often as they should, and no link is lost.
    world.advance(6 * 3600 * SECOND);
    assert!(setup.events().is_empty());
    let pings = world.broker(|broker, _| {
        let packets = broker.packets();
        let pings = packets
            .iter()
            .filter(|packet| packet.kind() == Kind::Pingreq);
        pings.count()
    });
    assert_eq!(pings, 360);
    // Neither does a message expire too early, nor a wait end too early or too late.
    world.network().cut(Cut::Hole);
    let message = Message::new("t", "x")
        .qos(Qos::AtLeastOnce)
        .expiry(3600 * SECOND);
    let mut lasts = setup
        .client
        .publish_message(message, Wait::Ack)
        .timeout(300 * SECOND);
    let mut ends = setup
        .client
        .publish("t", "y", Qos::AtLeastOnce, Wait::Ack)
        .timeout(20 * SECOND);
    world.advance(20 * SECOND - SECOND / 1000);
    assert!(poll(&mut ends).is_none() && poll(&mut lasts).is_none());
    world.advance(SECOND / 1000);
    let error = poll(&mut ends)
        .expect("its time is over")
        .expect_err("timed out");
    assert!(matches!(error.kind(), ErrorKind::TimedOut(_)), "{error}");
    setup
        .wait(lasts)
        .expect("the silence is found and the next link works");
    assert_eq!(looks.get(), 0, "nothing goes by the wall clock");
}

#[test]
fn an_error_of_an_attempt_says_what_was_done() {
    let error: Error = {
        let mut setup = Setup::with_peers();
        let (mut peer, _) = connecting(&setup);
        peer.close();
        match setup.events().into_iter().next() {
            Some(Event::ConnectFailed { error, .. }) => error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
    assert_eq!(error.doing(), Doing::Connecting);
}

#[test]
fn a_message_is_not_to_blame_for_an_end_in_the_middle_of_a_packet() {
    // A puback that is cut, a large message that is, and for comparison one that ends between packets.
    let large = [&b"\x30\xFF\xFF\x07\0\x01t\0"[..], &[7; 100_000]].concat();
    for (last, suspects) in [(&b"\x40\x02\0"[..], false), (&large, false), (b"", true)] {
        let (setup, mut peer) = Setup::connected();
        let mut publishing = setup.client.publish("t", "a", Qos::AtLeastOnce, Wait::Ack);
        peer.expect(b"\x32\x07\0\x01t\0\x01\0a");
        for _ in 0..4 {
            peer.send(last);
            peer.close();
            peer = setup.greet_later(CONNACK_PRESENT);
            if suspects {
                // It has to show that it answers before it gets the message again.
                peer.expect(b"\xC0\0");
                break;
            }
            peer.expect(b"\x3A\x07\0\x01t\0\x01\0a");
        }
        assert!(poll(&mut publishing).is_none(), "it goes on");
    }
}
