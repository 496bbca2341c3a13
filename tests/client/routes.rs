//! Several endpoints, several ways to each, and brokers that send their clients on.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::rc::Rc;

use coracle::testkit::{MemoryStore, Peer, World};
use coracle::{
    Endpoint, ErrorKind, Event, LocalBoxFuture, Options, Properties, Qos, Reason, Rung, Session,
    Version, Wait,
};

use crate::{CONNACK, CONNACK_3, CONNACK_3_PRESENT, CONNACK_PRESENT, SECOND, Setup};

/// Where attempts led, and which ways are blocked.
#[derive(Clone, Default)]
struct Map {
    led: Rc<RefCell<Vec<String>>>,
    blocked: Rc<RefCell<HashSet<String>>>,
}

impl Map {
    fn block(&self, ways: &[&str]) {
        let ways = ways.iter().map(|way| (*way).to_owned());
        self.blocked.borrow_mut().extend(ways);
    }

    fn unblock(&self) {
        self.blocked.borrow_mut().clear();
    }

    /// Where the attempts since the last call led.
    fn led(&self) -> Vec<String> {
        std::mem::take(&mut self.led.borrow_mut())
    }

    fn start(&self, change: impl FnOnce(Options) -> Options) -> Setup {
        let world = World::with_peers();
        let (network, map) = (world.network(), self.clone());
        let connector =
            move |endpoint: &Endpoint| -> LocalBoxFuture<io::Result<coracle::BoxedTransport>> {
                let way = endpoint.to_string();
                map.led.borrow_mut().push(way.clone());
                if map.blocked.borrow().contains(&way) {
                    return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
                }
                network.open()
            };
        let options = crate::options(&world).connector(connector);
        Setup::start(world, change(options))
    }
}

/// Adds these endpoints to `mqtt://broker`.
fn endpoints(options: Options, urls: &[&str]) -> Options {
    urls.iter().fold(options, |options, url| {
        options.endpoint(url).expect("a valid endpoint")
    })
}

/// What the events tell of ways: those that failed, and those to which we were referred.
fn told(setup: &mut Setup) -> Vec<String> {
    let events = setup.events();
    let told = events.iter().filter_map(|event| match event {
        Event::WayFailed { endpoint, error } => Some(format!("{endpoint} failed: {error}")),
        Event::Referred { endpoint, .. } => Some(format!("referred to {endpoint}")),
        Event::ConnectFailed { error, .. } => Some(format!("all failed: {error}")),
        Event::Connected { .. } => Some("connected".to_owned()),
        _ => None,
    });
    told.collect()
}

#[track_caller]
fn connecting(setup: &Setup) -> (Peer, Vec<u8>) {
    let mut peer = setup.world.peer();
    let connect = peer.received();
    (peer, connect)
}

#[test]
fn when_one_endpoint_fails_the_next_is_tried_at_once() {
    let map = Map::default();
    map.block(&["mqtt://broker:1883", "mqtt://b:1883"]);
    let mut setup = map.start(|options| endpoints(options, &["mqtt://b", "mqtt://c:7"]));
    let _peer = setup.greet(CONNACK);
    assert_eq!(
        told(&mut setup),
        [
            "mqtt://broker:1883 failed: connect: mqtt://broker:1883: connection refused",
            "mqtt://b:1883 failed: connect: mqtt://b:1883: connection refused",
            "connected",
        ]
    );
    let endpoint = setup.client.endpoint().expect("it is connected");
    assert_eq!(endpoint.to_string(), "mqtt://c:7");
}

#[test]
fn a_delay_comes_only_when_all_endpoints_have_failed() {
    let map = Map::default();
    map.block(&["mqtt://broker:1883", "mqtt://b:1883"]);
    let mut setup = map.start(|options| endpoints(options, &["mqtt://b"]));
    let events = setup.events();
    let Some(Event::ConnectFailed {
        attempt, retry_in, ..
    }) = events.last()
    else {
        panic!("{events:?}");
    };
    assert_eq!((*attempt, retry_in.is_some()), (1, true));
    assert_eq!(map.led(), ["mqtt://broker:1883", "mqtt://b:1883"]);
    assert_eq!(setup.client.endpoint(), None);
    setup.world.advance(SECOND);
    // All are set aside, so all are tried again.
    assert_eq!(map.led(), ["mqtt://broker:1883", "mqtt://b:1883"]);
}

#[test]
fn an_endpoint_that_failed_is_passed_over_for_a_while() {
    let map = Map::default();
    map.block(&["mqtt://broker:1883"]);
    let setup = map.start(|options| endpoints(options, &["mqtt://b"]));
    let mut peer = setup.greet(CONNACK);
    map.unblock();
    map.led();
    peer.reset();
    setup.world.advance(SECOND);
    let mut peer = setup.greet(CONNACK);
    assert_eq!(map.led(), ["mqtt://b:1883"]);
    setup.world.advance(60 * SECOND);
    peer.reset();
    setup.world.advance(SECOND);
    setup.greet(CONNACK);
    assert_eq!(map.led(), ["mqtt://broker:1883"]);
}

#[test]
fn elsewhere_the_session_counts_as_lost_unless_it_is_shared() {
    for shared in [false, true] {
        let map = Map::default();
        let setup =
            map.start(|options| endpoints(options, &["mqtt://b"]).endpoints_share_sessions(shared));
        let mut peer = setup.greet(CONNACK);
        drop(setup.client.publish("t", "x", Qos::ExactlyOnce, Wait::None));
        peer.expect(b"\x34\x07\x00\x01t\x00\x01\x00x");
        map.block(&["mqtt://broker:1883"]);
        peer.reset();
        setup.world.advance(SECOND);
        let (mut peer, _) = connecting(&setup);
        peer.send(CONNACK_PRESENT);
        if shared {
            // It goes on where it was, with DUP.
            peer.expect(b"\x3c\x07\x00\x01t\x00\x01\x00x");
        } else {
            // What is there is somebody else's, and is ended.
            peer.expect(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00");
        }
    }
}

#[test]
fn an_endpoint_that_refuses_is_passed_over_too() {
    let map = Map::default();
    let mut setup = map.start(|options| endpoints(options, &["mqtt://b"]));
    let (mut peer, _) = connecting(&setup);
    peer.send(b"\x20\x03\x00\x87\x00");
    setup.greet(CONNACK);
    assert_eq!(
        told(&mut setup),
        [
            "mqtt://broker:1883 failed: connect: mqtt://broker:1883: the broker refused: not \
             authorized (0x87)",
            "connected",
        ]
    );
}

#[test]
fn give_up_is_asked_when_all_ways_have_failed() {
    let map = Map::default();
    map.block(&["mqtt://broker:1883", "mqtt://b:1883"]);
    let asked = Rc::new(RefCell::new(Vec::new()));
    let setup = {
        let asked = Rc::clone(&asked);
        map.start(|options| {
            endpoints(options, &["mqtt://b"]).give_up_when(move |_, failed| {
                asked.borrow_mut().push(failed);
                failed >= 2
            })
        })
    };
    setup.world.advance(2 * SECOND);
    let ended = setup.world.block_on(setup.driver);
    assert!(ended.is_err());
    assert_eq!(*asked.borrow(), [1, 2]);
    assert_eq!(map.led().len(), 4);
}

#[test]
fn a_fault_of_the_last_way_that_cannot_heal_does_not_stand_for_all() {
    let map = Map::default();
    map.block(&["mqtt://broker:1883"]);
    let mut setup = map.start(|options| {
        endpoints(options, &["mqtt://b"]).give_up_when(|error, _| error.is_permanent())
    });
    // Not authorized: that endpoint is somebody else's.
    let (mut peer, _) = connecting(&setup);
    peer.send(b"\x20\x03\x00\x87\x00");
    setup.world.advance(SECOND / 100);
    assert_eq!(
        told(&mut setup),
        [
            "mqtt://broker:1883 failed: connect: mqtt://broker:1883: connection refused",
            "mqtt://b:1883 failed: connect: mqtt://b:1883: the broker refused: not authorized (0x87)",
            "all failed: connect: mqtt://broker:1883: connection refused",
        ]
    );
    map.unblock();
    setup.world.advance(2 * SECOND);
    setup.greet(CONNACK);
    assert_eq!(told(&mut setup), ["connected"]);
}

#[test]
fn a_fleet_in_random_order_spreads_and_a_seed_repeats_it() {
    let first = |seed| {
        let map = Map::default();
        let _setup = map.start(|options| {
            endpoints(options, &["mqtt://b", "mqtt://c", "mqtt://d"])
                .random_order()
                .seed(seed)
        });
        _setup.world.run_until_idle();
        map.led()[0].clone()
    };
    let all: HashSet<_> = (0..40).map(first).collect();
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!(first(7), first(7));
}

#[test]
fn the_ladder_begins_with_the_url_and_is_climbed_at_once() {
    const TCP: &str = "mqtt://broker:1883";
    const TLS: &str = "mqtts://broker:8883";
    const ALPN: &str = "mqtts://broker:443 with ALPN mqtt";
    const WEBSOCKET: &str = "wss://broker:443/mqtt";
    let map = Map::default();
    map.block(&[TCP, TLS, ALPN]);
    // No proxy is set, so the rungs through one are left out.
    let mut setup = map.start(|options| options.ladder(Rung::standard()));
    let mut peer = setup.greet(CONNACK);
    assert_eq!(map.led(), [TCP, TLS, ALPN, WEBSOCKET]);
    let told = told(&mut setup);
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[2].starts_with(&format!("{ALPN} failed: connect: {ALPN}: ")));
    // The next connection begins with the rung that worked, and it is the same broker.
    drop(setup.client.publish("t", "x", Qos::ExactlyOnce, Wait::None));
    peer.expect(b"\x34\x07\x00\x01t\x00\x01\x00x");
    map.unblock();
    peer.reset();
    setup.world.advance(SECOND);
    let mut peer = setup.greet(CONNACK_PRESENT);
    assert_eq!(map.led(), [WEBSOCKET]);
    peer.expect(b"\x3c\x07\x00\x01t\x00\x01\x00x");
    // When it is blocked, the others are tried from below, with the session that goes on.
    map.block(&[WEBSOCKET, TCP]);
    peer.reset();
    setup.world.advance(2 * SECOND);
    let mut peer = setup.greet(CONNACK_PRESENT);
    assert_eq!(map.led(), [WEBSOCKET, TCP, TLS]);
    peer.expect(b"\x3c\x07\x00\x01t\x00\x01\x00x");
}

#[test]
fn a_broker_that_refuses_ends_the_climb() {
    let map = Map::default();
    let mut setup = map.start(|options| options.ladder([Rung::tls(8883)]));
    let (mut peer, _) = connecting(&setup);
    peer.send(b"\x20\x03\x00\x87\x00");
    let events = setup.events();
    assert!(
        matches!(events.last(), Some(Event::ConnectFailed { .. })),
        "{events:?}"
    );
    assert_eq!(map.led(), ["mqtt://broker:1883"]);
}

#[test]
fn a_way_on_which_nobody_speaks_mqtt_is_blocked_too() {
    let map = Map::default();
    let setup = map.start(|options| options.ladder([Rung::tls(8883)]));
    let (mut peer, _) = connecting(&setup);
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    peer.close();
    setup.greet(CONNACK);
    assert_eq!(map.led(), ["mqtt://broker:1883", "mqtts://broker:8883"]);
}

#[test]
fn rungs_through_the_proxy_come_last_and_only_where_there_is_one() {
    let proxy = coracle::Proxy::parse("http://proxy:3128").expect("a valid proxy");
    let rungs = || [Rung::tls(8883), Rung::tls(443).through_proxy()];
    let map = Map::default();
    let directly = ["mqtt://broker:1883", "mqtts://broker:8883"];
    map.block(&directly);
    let setup = map.start(|options| options.proxy(proxy.clone()).ladder(rungs()));
    setup.greet(CONNACK);
    let through = "mqtts://broker:443 through the proxy".to_owned();
    assert_eq!(map.led()[2..], [through]);
    // The proxy is not meant for this host.
    let map = Map::default();
    map.block(&directly);
    let setup = map.start(|options| options.proxy(proxy.except("broker")).ladder(rungs()));
    setup.world.run_until_idle();
    assert_eq!(map.led(), directly);
}

/// CONNACK with a reason and a Server Reference.
fn connack(reason: Reason, reference: &str) -> Vec<u8> {
    let length = u8::try_from(reference.len()).expect("a short name");
    let mut bytes = vec![0x20, length + 6, 0, reason.code(), length + 3];
    bytes.extend_from_slice(&[0x1c, 0, length]);
    bytes.extend_from_slice(reference.as_bytes());
    bytes
}

#[test]
fn a_referral_is_followed_only_with_the_users_leave() {
    let map = Map::default();
    let mut setup = map.start(|options| options);
    let (mut peer, _) = connecting(&setup);
    peer.send(&connack(Reason::USE_ANOTHER_SERVER, "other:9"));
    let events = setup.events();
    let Some(Event::ConnectFailed { error, .. }) = events.last() else {
        panic!("{events:?}");
    };
    // The user can read it, and act.
    assert_eq!(error.properties().server_reference(), Some("other:9"));
    setup.world.advance(SECOND);
    assert_eq!(map.led(), ["mqtt://broker:1883", "mqtt://broker:1883"]);
}

#[test]
fn a_referral_may_be_a_url_that_keeps_to_our_way() {
    for (reference, led) in [
        ("mqtt://other", "mqtt://other:1883"),
        ("tcp://other:9/", "mqtt://other:9"),
        // Any other way would be the broker's choice, not ours.
        ("unix:///run/service mqtt://other:7", "mqtt://other:7"),
        ("mqtts://other MQTT://[::1]:8", "mqtt://[::1]:8"),
    ] {
        let map = Map::default();
        let mut setup = map.start(|options| options.follow_referrals(true));
        let (mut peer, _) = connecting(&setup);
        peer.send(&connack(Reason::USE_ANOTHER_SERVER, reference));
        let referred = format!("referred to {led}");
        assert_eq!(told(&mut setup), [referred], "{reference}");
        setup.greet(CONNACK);
    }
}

#[test]
fn a_referral_for_now_leads_elsewhere_once() {
    let map = Map::default();
    let mut setup = map.start(|options| options.follow_referrals(true));
    let (mut peer, _) = connecting(&setup);
    // The first one that can be read is taken.
    peer.send(&connack(Reason::USE_ANOTHER_SERVER, "a:b:c other"));
    let mut peer = setup.greet(CONNACK);
    assert_eq!(
        told(&mut setup),
        ["referred to mqtt://other:1883", "connected"]
    );
    peer.reset();
    setup.world.advance(SECOND);
    setup.greet(CONNACK);
    let led = [
        "mqtt://broker:1883",
        "mqtt://other:1883",
        "mqtt://broker:1883",
    ];
    assert_eq!(map.led(), led);
}

#[test]
fn a_referral_for_good_is_remembered() {
    let map = Map::default();
    let setup = map.start(|options| options.follow_referrals(true));
    let (mut peer, _) = connecting(&setup);
    peer.send(&connack(Reason::SERVER_MOVED, "other:9"));
    let mut peer = setup.greet(CONNACK);
    peer.reset();
    setup.world.advance(SECOND);
    setup.greet(CONNACK);
    let led = ["mqtt://broker:1883", "mqtt://other:9", "mqtt://other:9"];
    assert_eq!(map.led(), led);
}

#[test]
fn a_broker_may_send_us_on_by_disconnect() {
    let map = Map::default();
    let mut setup = map.start(|options| options.follow_referrals(true));
    let mut peer = setup.greet(CONNACK);
    peer.send(b"\xe0\x0a\x9d\x08\x1c\x00\x05other");
    setup.world.advance(SECOND);
    setup.greet(CONNACK);
    assert_eq!(map.led(), ["mqtt://broker:1883", "mqtt://other:1883"]);
    let told = told(&mut setup);
    assert_eq!(
        told,
        ["connected", "referred to mqtt://other:1883", "connected"]
    );
}

#[test]
fn brokers_that_point_at_each_other_do_not_keep_a_client_busy() {
    let map = Map::default();
    let setup = map.start(|options| options.follow_referrals(true));
    for hop in 0..5 {
        let (mut peer, _) = connecting(&setup);
        let to = ["x", "broker"][hop % 2];
        peer.send(&connack(Reason::USE_ANOTHER_SERVER, to));
    }
    setup.world.run_until_idle();
    // The first host, and four steps. Then one pass over what there is, and a delay.
    let led = map.led();
    assert!((5..=6).contains(&led.len()), "{led:?}");
}

#[test]
fn a_referral_is_still_followed_when_it_has_often_led_nowhere() {
    let map = Map::default();
    map.block(&["mqtt://other:1883"]);
    let setup = map.start(|options| options.follow_referrals(true));
    for round in 0..12 {
        setup.world.run_until_idle();
        while !map.led().contains(&"mqtt://broker:1883".to_owned()) {
            setup.world.advance(SECOND);
        }
        if round == 11 {
            map.unblock();
        }
        let (mut peer, _) = connecting(&setup);
        peer.send(&connack(Reason::USE_ANOTHER_SERVER, "other"));
    }
    setup.greet(CONNACK);
    assert_eq!(
        map.led().last().map(String::as_str),
        Some("mqtt://other:1883")
    );
}

#[test]
fn a_referral_for_good_outlives_a_failure() {
    let map = Map::default();
    let setup = map.start(|options| options.follow_referrals(true));
    let (mut peer, _) = connecting(&setup);
    peer.send(&connack(Reason::SERVER_MOVED, "other"));
    let mut peer = setup.greet(CONNACK);
    // The first host is gone for good, the other one starts again.
    map.block(&["mqtt://broker:1883", "mqtt://other:1883"]);
    peer.reset();
    setup.world.advance(SECOND);
    map.unblock();
    map.block(&["mqtt://broker:1883"]);
    setup.greet_later(CONNACK);
}

#[test]
fn a_disconnect_that_sends_us_on_is_no_reason_to_give_up() {
    let map = Map::default();
    let mut setup = map.start(|options| {
        options
            .follow_referrals(true)
            .give_up_when(|error, _| error.is_permanent())
    });
    let mut peer = setup.greet(CONNACK);
    peer.send(b"\xe0\x0a\x9d\x08\x1c\x00\x05other");
    setup.world.advance(SECOND);
    setup.greet(CONNACK);
    assert_eq!(
        told(&mut setup),
        ["connected", "referred to mqtt://other:1883", "connected"]
    );
}

#[cfg(unix)]
#[test]
fn a_broker_chooses_no_socket_of_this_device() {
    let map = Map::default();
    let world = World::with_peers();
    let (network, led) = (world.network(), map.clone());
    let connector =
        move |endpoint: &Endpoint| -> LocalBoxFuture<io::Result<coracle::BoxedTransport>> {
            led.led.borrow_mut().push(endpoint.to_string());
            network.open()
        };
    let options = Options::new("unix:///run/broker.sock", "c")
        .expect("a valid endpoint")
        .clock(world.clock())
        .connector(connector)
        .follow_referrals(true);
    let setup = Setup::start(world, options);
    let (mut peer, _) = connecting(&setup);
    peer.send(&connack(Reason::USE_ANOTHER_SERVER, "/run/other.sock"));
    setup.world.advance(SECOND);
    let led: HashSet<_> = map.led().into_iter().collect();
    assert_eq!(led, HashSet::from(["unix:///run/broker.sock".to_owned()]));
}

#[test]
fn a_broker_that_only_got_to_wipe_leaves_the_session_where_it_is() {
    for version in [Version::V3_1_1, Version::V5_0] {
        let map = Map::default();
        let setup = map.start(|options| endpoints(options, &["mqtt://b"]).version(version));
        let (none, present, publish, again): (&[u8], &[u8], &[u8], &[u8]) = match version {
            Version::V5_0 => (
                CONNACK,
                CONNACK_PRESENT,
                b"\x34\x07\x00\x01t\x00\x01\x00x",
                b"\x3c\x07\x00\x01t\x00\x01\x00x",
            ),
            _ => (
                CONNACK_3,
                CONNACK_3_PRESENT,
                b"\x34\x06\x00\x01t\x00\x01x",
                b"\x3c\x06\x00\x01t\x00\x01x",
            ),
        };
        let mut peer = setup.greet(none);
        drop(setup.client.publish("t", "x", Qos::ExactlyOnce, Wait::None));
        peer.expect(publish);
        map.block(&["mqtt://broker:1883"]);
        peer.reset();
        setup.world.advance(SECOND);
        // The other one has something of an earlier process, is told to end it, and is gone.
        let mut peer = setup.greet(present);
        map.unblock();
        map.block(&["mqtt://b:1883"]);
        peer.close();
        setup.world.run_until_idle();
        map.led();
        // The first one is set aside for a minute.
        while !map.led().contains(&"mqtt://broker:1883".to_owned()) {
            setup.world.advance(SECOND);
        }
        let mut peer = setup.greet(present);
        peer.expect(again);
    }
}

#[test]
fn a_session_that_is_wiped_elsewhere_is_not_kept_there() {
    // Without an expiry interval it ends with the connection [MQTT-3.1.2-23].
    let map = Map::default();
    let setup = map.start(|options| {
        let properties = Properties::new()
            .session_expiry_interval(100)
            .user_property("a", "b");
        endpoints(options, &["mqtt://b"])
            .session(Session::Resume)
            .properties(properties)
    });
    let mut peer = setup.greet(CONNACK);
    map.block(&["mqtt://broker:1883"]);
    peer.reset();
    setup.world.advance(SECOND);
    let (_peer, connect) = connecting(&setup);
    assert_eq!(
        connect,
        b"\x10\x15\x00\x04MQTT\x05\x02\x00\x3c\x07\x26\x00\x01a\x00\x01b\x00\x01c"
    );
}

#[test]
fn leaving_another_broker_before_it_answers_does_not_move_the_session_in_the_store_there() {
    let store = MemoryStore::new();
    let map = Map::default();
    let set = |options| {
        endpoints(options, &["mqtt://b"])
            .session(Session::Resume)
            .store(store.clone())
    };
    map.block(&["mqtt://broker:1883"]);
    let setup = map.start(set);
    let mut peer = setup.greet(CONNACK);
    drop(setup.client.publish("t", "x", Qos::ExactlyOnce, Wait::None));
    peer.expect(b"\x34\x07\x00\x01t\x00\x01\x00x");
    map.unblock();
    map.block(&["mqtt://b:1883"]);
    map.led();
    peer.reset();
    setup.until_attempt();
    let (_peer, connect) = connecting(&setup);
    assert_eq!(connect.first(), Some(&0x10));
    assert_eq!(map.led().last().expect("an attempt"), "mqtt://broker:1883");
    let ends = Properties::new().session_expiry_interval(0);
    let leaving = setup.client.disconnect_with(Reason::SUCCESS, ends);
    assert!(
        setup.wait(leaving).is_err(),
        "one message is unacknowledged"
    );
    drop(setup);
    store.crash();
    map.unblock();
    map.led();
    let mut setup = map.start(set);
    // What this broker has is not the session of the message: with it, the message could arrive twice.
    let (mut peer, _) = connecting(&setup);
    assert_eq!(map.led(), ["mqtt://broker:1883"]);
    peer.send(CONNACK_PRESENT);
    peer.expect(b"\xe0\x00");
    peer.close();
    setup.world.run_until_idle();
    let mut peer = setup.greet(CONNACK);
    peer.expect_nothing();
    let events = setup.events();
    assert!(
        events.iter().any(|event| matches!(
            event,
            Event::Unpublished { error, .. }
                if matches!(error.kind(), ErrorKind::SessionLost { received: false })
        )),
        "{events:?}"
    );
}
