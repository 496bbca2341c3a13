//! What a client speaks that leaves the version to the broker.

use coracle::testkit::{BrokerOptions, MemoryStore, Peer, World};
use coracle::{
    ErrorKind, Event, Filters, Message, Options, Properties, Qos, Reason, Session, Version,
    Versions, Wait,
};

use crate::{CONNACK, CONNACK_3, CONNACK_3_PRESENT, CONNACK_PRESENT, SECOND, Setup, options};

fn start(world: World) -> Setup {
    let options = options(&world).version(Version::Auto);
    Setup::start(world, options)
}

/// Takes the next connection and says which version its CONNECT speaks.
#[track_caller]
fn connecting(setup: &Setup) -> (Peer, Version) {
    let mut peer = setup.world.peer();
    let connect = peer.received();
    let version = match &connect[2..9] {
        b"\0\x04MQTT\x05" => Version::V5_0,
        b"\0\x04MQTT\x04" => Version::V3_1_1,
        b"\0\x06MQIsd" => Version::V3_1,
        other => panic!("{other:02x?}"),
    };
    (peer, version)
}

#[test]
fn auto_is_a_choice_and_not_a_version() {
    assert_eq!(Version::Auto, Versions::Auto);
    assert_eq!(Versions::from(Version::V3_1), Versions::One(Version::V3_1));
}

#[test]
fn a_broker_of_5_0_gets_5_0() {
    let setup = start(World::with_peers());
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V5_0);
    peer.send(CONNACK);
    setup.world.run_until_idle();
    assert_eq!(setup.client.version(), Version::V5_0);
}

#[test]
fn a_broker_that_refuses_in_either_form_gets_the_next_version_at_once() {
    for refusal in [
        // As MQTT 5 has it, as 3.x has it, and as aedes does: the reason of 5 in the form of 3.
        &b"\x20\x03\x00\x84\x00"[..],
        b"\x20\x02\x00\x01",
        b"\x20\x02\x00\x84",
    ] {
        let mut setup = start(World::with_peers());
        let (mut peer, _) = connecting(&setup);
        peer.send(refusal);
        peer.close();
        let (mut peer, version) = connecting(&setup);
        assert_eq!(version, Version::V3_1_1, "{refusal:02x?}");
        peer.send(CONNACK_3);
        let events = setup.events();
        assert!(
            matches!(events[..], [Event::Connected { .. }]),
            "{events:?}"
        );
        assert_eq!(setup.client.version(), Version::V3_1_1);
    }
}

#[test]
fn a_broker_that_hangs_up_gets_the_next_version_after_the_second_time() {
    // As RabbitMQ does.
    let setup = start(World::with_peers());
    let mut versions = Vec::new();
    for attempt in 0..5 {
        // The next version is tried at once, the same one after the usual delay.
        if attempt % 2 == 1 {
            setup.until_attempt();
        }
        let (mut peer, version) = connecting(&setup);
        versions.push(version);
        peer.close();
    }
    use Version::{V3_1, V3_1_1, V5_0};
    assert_eq!(versions, [V5_0, V5_0, V3_1_1, V3_1_1, V3_1]);
}

#[test]
fn a_silent_broker_gets_the_next_version_after_the_timeout() {
    // As amqtt is.
    let setup = start(World::with_peers());
    let (_silent, version) = connecting(&setup);
    assert_eq!(version, Version::V5_0);
    setup.world.advance(12 * SECOND);
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V3_1_1);
    peer.send(CONNACK_3);
    setup.world.run_until_idle();
    assert!(setup.client.is_connected());
}

#[test]
fn what_worked_is_kept_whatever_happens_later() {
    let setup = start(World::with_peers());
    let (mut peer, _) = connecting(&setup);
    peer.send(b"\x20\x02\x00\x01");
    peer.close();
    let (mut peer, _) = connecting(&setup);
    peer.send(CONNACK_3);
    setup.world.run_until_idle();
    peer.reset();
    for _ in 0..4 {
        setup.until_attempt();
        let (mut peer, version) = connecting(&setup);
        assert_eq!(version, Version::V3_1_1);
        peer.close();
    }
}

#[test]
fn other_refusals_do_not_cost_a_version() {
    let setup = start(World::with_peers());
    for _ in 0..4 {
        let (mut peer, version) = connecting(&setup);
        assert_eq!(version, Version::V5_0);
        // Not authorized.
        peer.send(b"\x20\x03\x00\x87\x00");
        peer.close();
        setup.until_attempt();
    }
}

#[test]
fn what_only_5_0_can_say_is_left_out_or_an_error() {
    let setup = start(World::with_peers());
    // Accepted while 5.0 was hoped for.
    let no_local = setup
        .client
        .subscribe_many(Filters::new("a", Qos::AtMostOnce).no_local(true), Wait::Ack);
    let message = Message::new("t", "x")
        .qos(Qos::AtLeastOnce)
        .properties(Properties::new().content_type("text/plain"));
    let publishing = setup.client.publish_message(message, Wait::Ack);
    let (mut peer, _) = connecting(&setup);
    peer.send(b"\x20\x02\x00\x01");
    peer.close();
    let (mut peer, _) = connecting(&setup);
    peer.send(CONNACK_3);
    peer.expect(b"\x32\x06\x00\x01t\x00\x01x");
    peer.send(b"\x40\x02\x00\x01");
    assert!(setup.wait(publishing).is_ok());
    let error = setup.wait(no_local).expect_err("3.1.1 has no such option");
    assert!(error.to_string().contains("need MQTT 5"), "{error}");
    // Now it is known before.
    let late = setup.client.subscribe_many(
        Filters::new("a", Qos::AtMostOnce).no_local(true),
        Wait::None,
    );
    assert!(setup.wait(late).is_err());
}

#[test]
fn messages_go_through_with_every_broker_of_the_test_kit() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5_0] {
        let world = World::new(BrokerOptions::new().versions(&[version]));
        let setup = start(world);
        let mut stream = setup
            .wait(setup.client.subscribe("t", Qos::ExactlyOnce, Wait::Ack))
            .expect("granted");
        let published = setup
            .wait(setup.client.publish("t", "x", Qos::ExactlyOnce, Wait::Ack))
            .expect("acknowledged");
        assert_eq!(published.reason(), Reason::SUCCESS);
        let message = setup.wait(stream.next()).expect("it arrives");
        assert_eq!(message.text(), Some("x"));
        assert_eq!(setup.client.version(), version);
    }
}

#[test]
fn a_client_identifier_that_3_1_cannot_say_is_not_tried_there() {
    // MQTT 3.1, section 3.1: 1 to 23 characters.
    for id in ["", "c7f5a1de-3f1c-4b38-9e52x"] {
        let world = World::with_peers();
        let options = Options::new("mqtt://broker", id)
            .expect("the URL is well-formed")
            .connector(world.network())
            .clock(world.clock())
            .version(Version::Auto);
        let mut setup = Setup::start(world, options);
        let mut versions = Vec::new();
        for attempt in 0..5 {
            // After the last version, as after the same one, the usual delay is due.
            if attempt != 0 && attempt != 2 {
                setup.until_attempt();
            }
            let (mut peer, version) = connecting(&setup);
            versions.push(version);
            peer.close();
        }
        use Version::{V3_1_1, V5_0};
        assert_eq!(versions, [V5_0, V5_0, V3_1_1, V3_1_1, V5_0], "{id:?}");
        // What is told is what the broker did.
        for event in setup.events() {
            let Event::ConnectFailed { error, .. } = event else {
                panic!("{event:?}");
            };
            assert!(!matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
        }
    }
}

#[test]
fn a_session_of_an_earlier_process_goes_on_in_the_version_that_is_found() {
    // As long as no version has worked there is nothing that a change of it could have made worthless.
    let world = World::with_peers();
    let options = options(&world)
        .version(Version::Auto)
        .session(Session::Resume);
    let setup = Setup::start(world, options);
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V5_0);
    peer.send(b"\x20\x02\x00\x01");
    peer.close();
    let mut peer = setup.world.peer();
    // CleanSession 0.
    peer.expect(b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x3c\x00\x01c");
    peer.send(CONNACK_3_PRESENT);
    setup.world.run_until_idle();
    assert!(setup.client.is_connected());
}

#[test]
fn an_acceptance_in_the_form_of_3_is_a_refusal_of_5_0() {
    // Such a broker has not looked at the level: it speaks as it can (MQTT 5, section 3.1.2.2).
    for accepted in [CONNACK_3, CONNACK_3_PRESENT] {
        let setup = start(World::with_peers());
        let (mut peer, _) = connecting(&setup);
        peer.send(accepted);
        setup.world.run_until_idle();
        assert!(peer.is_closed());
        let (mut peer, version) = connecting(&setup);
        assert_eq!(version, Version::V3_1_1);
        peer.send(accepted);
    }
}

// What a store says of the version.

/// A life with this store that has got this CONNACK and a message to send, and ends like a crash.
fn leave(store: &MemoryStore, set: impl FnOnce(Options) -> Options, connack: &[u8]) {
    let world = World::with_peers();
    let options = set(options(&world).store(store.clone()));
    let setup = Setup::start(world, options);
    let (mut peer, _) = connecting(&setup);
    peer.send(connack);
    setup.world.run_until_idle();
    assert!(setup.client.is_connected());
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    setup.world.run_until_idle();
    drop(setup);
    store.crash();
}

fn other(world: &World, url: &str, id: &str, store: &MemoryStore) -> Options {
    Options::new(url, id)
        .expect("the URL is well-formed")
        .connector(world.network())
        .clock(world.clock())
        .seed(1)
        .version(Version::Auto)
        .store(store.clone())
}

#[test]
fn what_another_broker_spoke_is_not_asked_of_this_one() {
    for refusal in [&b"\x20\x02\x00\x01"[..], b"\x20\x02\x00\x84"] {
        let store = MemoryStore::new();
        leave(&store, |options| options.version(Version::Auto), CONNACK);
        let world = World::with_peers();
        let options = other(&world, "mqtt://other", "c", &store);
        let setup = Setup::start(world, options);
        let (mut peer, version) = connecting(&setup);
        assert_eq!(version, Version::V5_0);
        peer.send(refusal);
        peer.close();
        let (mut peer, version) = connecting(&setup);
        assert_eq!(version, Version::V3_1_1, "{refusal:02x?}");
        peer.send(CONNACK_3);
        // Sent anew, without DUP.
        peer.expect(b"\x32\x06\x00\x01t\x00\x02x");
    }
}

#[test]
fn what_another_client_spoke_is_not_asked_of_this_one() {
    // One that 3.1 cannot say: MQTT 3.1, section 3.1.
    let store = MemoryStore::new();
    let set = |options: Options| options.version(Version::V3_1).session(Session::Resume);
    leave(&store, set, CONNACK_3);
    let world = World::with_peers();
    let id = "an identifier of 30 characters";
    let options = other(&world, "mqtt://broker", id, &store);
    let setup = Setup::start(world, options);
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V5_0);
    peer.send(CONNACK);
    setup.world.run_until_idle();
    assert!(setup.client.is_connected());
}

#[test]
fn a_session_of_an_earlier_process_goes_on_in_its_version_where_it_is() {
    // The callback says where that is, and has another way first.
    let to = |broker: &'static [&'static str]| {
        let urls = std::cell::RefCell::new(broker.iter());
        move |options: Options| {
            options.before_connect(move |attempt| {
                let url = urls.borrow_mut().next().expect("one more attempt");
                Box::pin(std::future::ready(attempt.endpoint(url)))
            })
        }
    };
    let store = MemoryStore::new();
    let set = |options: Options| to(&["mqtt://home"])(options).version(Version::V3_1_1);
    leave(&store, set, CONNACK_3);
    let world = World::with_peers();
    let options =
        to(&["mqtt://elsewhere", "mqtt://home"])(other(&world, "mqtt://broker", "c", &store));
    let setup = Setup::start(world, options);
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V5_0);
    // Busy.
    peer.send(b"\x20\x03\x00\x89\x00");
    peer.close();
    setup.until_attempt();
    let mut peer = setup.world.peer();
    // CleanSession 0.
    peer.expect(b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x3c\x00\x01c");
    peer.send(CONNACK_3_PRESENT);
    // With DUP.
    peer.expect(b"\x3a\x06\x00\x01t\x00\x01x");
}

#[test]
fn a_home_that_is_busy_does_not_settle_the_version_of_others() {
    let store = MemoryStore::new();
    leave(&store, |options| options.version(Version::Auto), CONNACK);
    let world = World::with_peers();
    let options = other(&world, "mqtt://broker", "c", &store)
        .endpoint("mqtt://other")
        .expect("a valid endpoint");
    let setup = Setup::start(world, options);
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V5_0);
    peer.send(b"\x20\x03\x00\x89\x00");
    peer.close();
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V5_0);
    peer.send(b"\x20\x02\x00\x01");
    peer.close();
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V3_1_1);
    // Not authorized.
    peer.send(b"\x20\x02\x00\x05");
    peer.close();
    setup.until_attempt();
    // At home the session goes on as it was.
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V5_0);
    peer.send(CONNACK_PRESENT);
    peer.expect(b"\x3a\x07\x00\x01t\x00\x01\x00x");
}

/// It is not taken for one that does not speak what was spoken there.
#[test]
fn a_home_that_refuses_its_version_does_not_change_that_of_others() {
    let store = MemoryStore::new();
    leave(
        &store,
        |options| options.version(Version::V3_1_1),
        CONNACK_3,
    );
    let world = World::with_peers();
    let options = other(&world, "mqtt://broker", "c", &store)
        .endpoint("mqtt://other")
        .expect("a valid endpoint");
    let setup = Setup::start(world, options);
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V3_1_1);
    peer.send(b"\x20\x02\x00\x01");
    peer.close();
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V5_0);
    peer.send(CONNACK);
    setup.world.run_until_idle();
    assert!(setup.client.is_connected());
    assert_eq!(setup.client.version(), Version::V5_0);
}

#[test]
fn a_session_that_another_broker_only_wiped_goes_on_at_home_in_its_version() {
    let store = MemoryStore::new();
    leave(
        &store,
        |options| options.version(Version::V3_1_1),
        CONNACK_3,
    );
    let world = World::with_peers();
    let options = other(&world, "mqtt://other", "c", &store)
        .endpoint("mqtt://broker")
        .expect("a valid endpoint");
    let setup = Setup::start(world, options);
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V5_0);
    // A session that is somebody else's: it is ended, and the client comes again.
    peer.send(CONNACK_PRESENT);
    peer.expect(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00");
    peer.close();
    let (mut peer, version) = connecting(&setup);
    assert_eq!(version, Version::V5_0);
    peer.send(b"\x20\x03\x00\x89\x00");
    peer.close();
    let mut peer = setup.world.peer();
    // CleanSession 0.
    peer.expect(b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x3c\x00\x01c");
    peer.send(CONNACK_3_PRESENT);
    peer.expect(b"\x3a\x06\x00\x01t\x00\x01x");
}
