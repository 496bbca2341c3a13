//! Messages that were received by hand and are published again.

use std::rc::Rc;

use coracle::testkit::{Peer, World};
use coracle::{
    Acknowledge, Blame, Event, Filters, Message, Options, Properties, Qos, Subscription, Wait,
};

use crate::{CONNACK, Setup, now, options};

/// A message that was received by hand at QoS 1, topic `t`, with its stream.
fn by_hand(setup: &Setup, peer: &mut Peer) -> (Subscription, Message) {
    let filters = Filters::new("t", Qos::AtLeastOnce).acknowledge(Acknowledge::ByHand);
    let stream = now(setup.client.subscribe_many(filters, Wait::None));
    let mut stream = stream.expect("accepted");
    peer.received();
    peer.send(b"\x32\x07\x00\x01t\x00\x09\x00x");
    let message = stream.try_next().expect("a message arrived");
    (stream, message)
}

#[test]
fn a_message_received_by_hand_can_be_published_again_at_any_qos() {
    for (qos, packet, answers) in [
        (
            Qos::AtMostOnce,
            b"\x30\x05\x00\x01t\x00x".as_slice(),
            vec![],
        ),
        (
            Qos::AtLeastOnce,
            b"\x32\x07\x00\x01t\x00\x02\x00x",
            vec![b"\x40\x02\x00\x02"],
        ),
        (
            Qos::ExactlyOnce,
            b"\x34\x07\x00\x01t\x00\x02\x00x",
            vec![b"\x50\x02\x00\x02", b"\x70\x02\x00\x02"],
        ),
    ] {
        let (setup, mut peer) = Setup::connected();
        let (_stream, message) = by_hand(&setup, &mut peer);
        let kept = message.clone();
        let publishing = setup.client.publish_message(message.qos(qos), Wait::Ack);
        peer.expect(packet);
        for answer in answers {
            peer.send(answer);
            peer.received();
        }
        now(publishing).expect("published");
        // Publishing it is no acknowledgement, and whoever keeps it can still give one.
        peer.expect_nothing();
        kept.acknowledge().expect("it was not answered before");
        peer.expect(b"\x40\x02\x00\x09");
    }
}

#[test]
fn publishing_the_only_copy_of_an_unacknowledged_message_gives_the_duty_up() {
    let (mut setup, mut peer) = Setup::connected();
    let (_stream, message) = by_hand(&setup, &mut peer);
    setup.events();
    let published = setup.client.publish_message(message, Wait::None);
    now(published).expect("accepted");
    assert!(matches!(
        setup.events().as_slice(),
        [Event::Unacknowledged { topic }] if **topic == *"t"
    ));
}

#[test]
fn a_message_that_comes_back_unpublished_can_still_be_acknowledged() {
    let world = World::with_peers();
    let options: Options = options(&world).queue_bytes(1);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    let (_stream, message) = by_hand(&setup, &mut peer);
    let first = Message::new(Rc::from("f"), "x");
    now(setup.client.publish_message(first, Wait::None)).expect("there is room for one");
    let failed = now(setup.client.publish_message(message, Wait::None));
    let message = failed.expect_err("the queue is full").message;
    let message = message.expect("it comes back");
    peer.received();
    message.acknowledge().expect("it was not answered before");
    peer.expect(b"\x40\x02\x00\x09");
}

#[test]
fn a_message_is_passed_on_without_its_alias_and_its_subscription_identifiers() {
    // [MQTT-3.3.2-7], [MQTT-3.3.4-6]: whether the broker uses them is not for the program to know.
    let (setup, mut peer) = Setup::connected();
    let filters = Filters::new("t", Qos::AtMostOnce).identifier(5);
    let stream = now(setup.client.subscribe_many(filters, Wait::None));
    let mut stream = stream.expect("accepted");
    peer.received();
    peer.send(b"\x30\x0A\x00\x01t\x05\x0B\x05\x23\x00\x01x");
    let message = stream.try_next().expect("a message arrived");
    now(setup.client.publish_message(message, Wait::None)).expect("accepted");
    peer.expect(b"\x30\x05\x00\x01t\x00x");
}

#[test]
fn a_property_of_another_packet_is_a_mistake_of_the_call() {
    // MQTT 5, table 2-4.
    let (setup, mut peer) = Setup::connected();
    for property in [
        Properties::new().will_delay_interval(1),
        Properties::new().authentication_method("m"),
        Properties::new().server_reference("s"),
    ] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let message = Message::new("t", "x").qos(qos).properties(property.clone());
            let failed = now(setup.client.publish_message(message, Wait::None));
            let error = failed.expect_err("it cannot be sent").error;
            assert_eq!(error.blame(), Blame::You, "{error}");
        }
    }
    peer.expect_nothing();
}

#[test]
fn a_message_that_came_again_is_passed_on_as_a_new_one() {
    // [MQTT-3.3.1-3]: DUP says whether this packet was sent before, not whether the one it came in was.
    for (qos, packet) in [
        (Qos::AtMostOnce, b"\x30\x05\x00\x01t\x00x".as_slice()),
        (Qos::AtLeastOnce, b"\x32\x07\x00\x01t\x00\x02\x00x"),
        (Qos::ExactlyOnce, b"\x34\x07\x00\x01t\x00\x02\x00x"),
    ] {
        let (setup, mut peer) = Setup::connected();
        let filters = Filters::new("t", Qos::AtLeastOnce).acknowledge(Acknowledge::ByHand);
        let stream = now(setup.client.subscribe_many(filters, Wait::None));
        let mut stream = stream.expect("accepted");
        peer.received();
        peer.send(b"\x3a\x07\x00\x01t\x00\x09\x00x");
        let message = stream.try_next().expect("a message arrived");
        assert!(message.is_duplicate());
        now(setup.client.publish_message(message.qos(qos), Wait::None)).expect("accepted");
        peer.expect(packet);
    }
}
