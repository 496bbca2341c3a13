//! What the broker says beside its reasons, as the application reads it.

use coracle::testkit::World;
use coracle::{Event, Message, Properties, PropertyList, Qos, Reason, Wait};

use crate::{CONNACK, Setup, failure, now, options};

/// A reason string "why" and a user property "k" of value "v", with their length in front.
const WHY: &[u8] = b"\x0d\x1f\0\x03why\x26\0\x01k\0\x01v";

#[track_caller]
fn says_why(said: PropertyList<'_>) {
    assert_eq!(said.reason_string(), Some("why"));
    let users: Vec<_> = said.user_properties().collect();
    assert_eq!(users, [("k", "v")]);
}

#[test]
fn a_publish_gives_what_the_broker_said_of_it() {
    let (setup, mut peer) = Setup::connected();
    let publishing = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    peer.expect(b"\x32\x07\0\x01t\0\x01\0x");
    peer.send(&[b"\x40\x11\0\x01\x10", WHY].concat());
    let published = now(publishing).expect("it is acknowledged");
    assert_eq!(published.reason(), Reason::NO_MATCHING_SUBSCRIBERS);
    says_why(published.properties());

    let message = Message::new("t", "x").qos(Qos::ExactlyOnce);
    let publishing = setup.client.publish_message(message, Wait::Ack);
    peer.expect(b"\x34\x07\0\x01t\0\x02\0x");
    peer.send(&[b"\x50\x11\0\x02\x87", WHY].concat());
    let unpublished = now(publishing).expect_err("it is refused");
    assert_eq!(unpublished.error.reason(), Some(Reason::NOT_AUTHORIZED));
    says_why(unpublished.error.properties());

    // Nothing is said of what nobody waits for.
    let published = now(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    assert!(published.expect("accepted").properties().is_empty());
}

#[test]
fn a_refusal_of_a_message_that_nobody_waits_for_is_an_event_with_what_the_broker_said() {
    let (mut setup, mut peer) = Setup::connected();
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    peer.expect(b"\x32\x07\0\x01t\0\x01\0x");
    peer.send(&[b"\x40\x11\0\x01\x87", WHY].concat());
    let said = setup.events().into_iter().find_map(|event| match event {
        Event::Unpublished { error, .. } => Some(error),
        _ => None,
    });
    says_why(said.expect("an event tells it").properties());
}

#[test]
fn a_subscription_gives_what_the_broker_said_of_its_filter() {
    let (setup, mut peer) = Setup::connected();
    let subscribing = setup.client.subscribe("t", Qos::AtLeastOnce, Wait::Ack);
    assert_eq!(peer.received()[0], 0x82);
    peer.send(&[b"\x90\x11\0\x01", WHY, b"\x01"].concat());
    let stream = now(subscribing).expect("it is granted");
    let granted: Vec<_> = stream.granted().collect();
    assert_eq!(granted, [("t", Reason::GRANTED_QOS_1)]);
    says_why(stream.properties_of("t"));
    assert!(stream.properties_of("u").is_empty());

    let subscribing = setup.client.subscribe("u", Qos::AtLeastOnce, Wait::Ack);
    assert_eq!(peer.received()[0], 0x82);
    peer.send(&[b"\x90\x11\0\x02", WHY, b"\x87"].concat());
    says_why(failure(now(subscribing)).properties());
}

#[test]
fn an_unsubscribe_gives_what_the_broker_said_of_it() {
    let (setup, mut peer) = Setup::connected();
    let unsubscribing = setup.client.unsubscribe("t", Wait::Ack);
    assert_eq!(peer.received()[0], 0xa2);
    peer.send(&[b"\xb0\x11\0\x01", WHY, b"\x11"].concat());
    let unsubscribed = now(unsubscribing).expect("it is answered");
    assert_eq!(unsubscribed.reason(), Reason::NO_SUBSCRIPTION_EXISTED);
    says_why(unsubscribed.properties());

    let unsubscribing = setup.client.unsubscribe("t", Wait::Ack);
    assert_eq!(peer.received()[0], 0xa2);
    peer.send(&[b"\xb0\x11\0\x02", WHY, b"\x87"].concat());
    says_why(failure(now(unsubscribing)).properties());
}

#[test]
fn response_information_is_asked_for_and_can_be_read() {
    let world = World::with_peers();
    let asked = Properties::new().request_response_information(true);
    let options = options(&world).properties(asked);
    let setup = Setup::start(world, options);
    let mut peer = setup.world.peer();
    let connect = peer.received();
    assert!(connect.windows(2).any(|two| two == b"\x19\x01"));
    peer.send(b"\x20\x09\0\0\x06\x1a\0\x03r/1");
    setup.world.run_until_idle();
    let said = setup.client.server_properties().expect("it is connected");
    assert_eq!(said.list().response_information(), Some("r/1"));
}

#[test]
fn a_broker_that_explains_itself_although_it_was_asked_not_to_is_disconnected() {
    // [MQTT-3.1.2-29]
    let world = World::with_peers();
    let asked = Properties::new().request_problem_information(false);
    let options = options(&world).properties(asked);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    peer.expect(b"\x32\x07\0\x01t\0\x01\0x");
    peer.send(&[b"\x40\x11\0\x01\0", WHY].concat());
    peer.expect(b"\xe0\x01\x82");
}
