//! Peers that break the rules, by malice or by accident: the client says what is wrong, connects again
//! and works.

use coracle::testkit::{BrokerOptions, Cut, Peer, World};
use coracle::{
    Acknowledge, Blame, ErrorKind, Event, Filters, Incoming, Qos, Reason, Version, Wait,
};

use crate::{CONNACK, CONNACK_3, SECOND, Setup, now, options, poll};

/// A length of 256 MB, the largest that MQTT can say.
const LARGEST: [u8; 4] = [0xff, 0xff, 0xff, 0x7f];

/// The error of the last connection, once the peer has closed it too: until then, and for a second at
/// most, the client waits so that its DISCONNECT arrives.
#[track_caller]
fn last_error(setup: &mut Setup, peer: &mut Peer) -> coracle::Error {
    peer.close();
    let events = setup.events();
    let error = events.iter().rev().find_map(|event| match event {
        Event::Disconnected { error, .. } | Event::ConnectFailed { error, .. } => {
            Some(error.clone())
        }
        _ => None,
    });
    error.unwrap_or_else(|| panic!("no connection has failed: {events:?}"))
}

/// Connects again and lets a message through, both ways.
#[track_caller]
fn works_again(setup: &Setup, version: Version) {
    setup.until_attempt();
    let mut peer = setup.greet(if version == Version::V5_0 {
        CONNACK
    } else {
        CONNACK_3
    });
    assert!(setup.client.is_connected());
    peer.received();
    let mut publishing = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    let wire = peer.received();
    assert_eq!(wire[0], 0x32, "{wire:02x?}");
    assert!(poll(&mut publishing).is_none());
    peer.send(&[0x40, 2, wire[5], wire[6]]);
    assert!(now(publishing).is_ok());
}

fn connected(version: Version) -> (Setup, Peer) {
    if version == Version::V5_0 {
        Setup::connected()
    } else {
        Setup::connected_3()
    }
}

// Sizes.

#[test]
fn on_5_a_packet_above_the_limit_is_answered_with_0x95() {
    // It is checked on the announced length: nothing of it is waited for.
    for first in [0x30, 0x32, 0x90, 0xd0] {
        let (mut setup, mut peer) = Setup::connected();
        peer.send(&[&[first], &LARGEST[..]].concat());
        peer.expect(b"\xe0\x01\x95");
        assert!(peer.is_closed());
        let error = last_error(&mut setup, &mut peer);
        let ErrorKind::Protocol(violation) = error.kind() else {
            panic!("{error}");
        };
        assert_eq!(violation.reason, Reason::PACKET_TOO_LARGE);
        assert_eq!(error.blame(), Blame::Broker);
        assert!(!error.is_permanent());
        works_again(&setup, Version::V5_0);
    }
}

#[test]
fn on_3_1_1_a_message_above_the_limit_is_skipped_and_acknowledged_with_an_event() {
    for (first, expected) in [
        (0x30, &b""[..]),
        (0x32, b"\x40\x02\x00\x07"),
        (0x34, b"\x50\x02\x00\x07"),
    ] {
        let world = World::with_peers();
        let options = options(&world).version(Version::V3_1_1).inbound_limit(1000);
        let mut setup = Setup::start(world, options);
        let mut peer = setup.greet(CONNACK_3);
        let mut stream =
            now(setup.client.subscribe("t", Qos::ExactlyOnce, Wait::None)).expect("accepted");
        peer.received();
        drop(setup.events());
        // 2,000 bytes: 0xd0 0x0f.
        let mut message = vec![first, 0xd0, 0x0f, 0, 1, b't'];
        if first != 0x30 {
            message.extend([0, 7]);
        }
        message.resize(3 + 2000, b'x');
        // In two pieces, the second with a whole message behind it.
        peer.send(&message[..100]);
        message.extend(b"\x30\x04\x00\x01ty");
        peer.send(&message[100..]);
        peer.expect(expected);
        let events = setup.events();
        assert!(
            matches!(events[..], [Event::Skipped { size: 2003, .. }]),
            "{events:?}"
        );
        assert_eq!(
            stream.try_next().expect("the next one arrives").payload(),
            b"y"
        );
        assert!(stream.try_next().is_none());
        assert_eq!(setup.client.statistics().skipped, 1);
    }
}

#[test]
fn on_3_1_1_a_broker_that_announces_256_mb_and_stops_is_found_silent() {
    let (mut setup, mut peer) = Setup::connected_3();
    peer.send(&[&[0x30], &LARGEST[..], b"\x00\x01t"].concat());
    peer.expect_nothing();
    let events = setup.events();
    assert!(
        matches!(events.last(), Some(Event::Skipped { .. })),
        "{events:?}"
    );
    setup.world.advance(70 * SECOND);
    assert!(matches!(
        last_error(&mut setup, &mut peer).kind(),
        ErrorKind::Silent(_)
    ));
    works_again(&setup, Version::V3_1_1);
}

#[test]
fn on_3_1_1_anything_else_above_the_limit_ends_the_link() {
    for first in [0x20, 0x40, 0x90, 0xd0] {
        let (mut setup, mut peer) = Setup::connected_3();
        peer.send(&[&[first], &LARGEST[..]].concat());
        assert!(peer.is_closed());
        assert!(matches!(
            last_error(&mut setup, &mut peer).kind(),
            ErrorKind::Protocol(_)
        ));
        works_again(&setup, Version::V3_1_1);
    }
}

#[test]
fn a_skipped_message_with_the_longest_topic_may_end_anywhere() {
    // Its identifier stands behind 65,535 bytes of topic; the rest comes later.
    for cut in [
        4, 5, 1000, 65_535, 65_536, 65_540, 65_542, 65_543, 65_544, 70_000, 131_072,
    ] {
        let world = World::with_peers();
        let options = options(&world)
            .version(Version::V3_1_1)
            .inbound_limit(100_000);
        let setup = Setup::start(world, options);
        let mut peer = setup.greet(CONNACK_3);
        // 200,000 bytes: 0xc0 0x9a 0x0c.
        let mut message = vec![0x32, 0xc0, 0x9a, 0x0c, 0xff, 0xff];
        message.resize(6 + 65_535, b't');
        message.extend([0, 9]);
        message.resize(4 + 200_000, b'x');
        peer.send(&message[..cut]);
        peer.send(&message[cut..]);
        peer.expect(b"\x40\x02\x00\x09");
        assert!(setup.client.is_connected(), "cut at {cut}");
    }
}

#[test]
fn a_large_message_below_the_limit_arrives_whole_however_it_is_cut() {
    for chunk in [1000, 65_536, usize::MAX] {
        let (setup, mut peer) = Setup::connected();
        let mut stream =
            now(setup.client.subscribe("t", Qos::AtMostOnce, Wait::None)).expect("accepted");
        setup.world.network().read_chunk(chunk);
        // 500,000 bytes: 0xa0 0xc2 0x1e.
        let mut message = vec![0x30, 0xa0, 0xc2, 0x1e, 0, 1, b't', 0];
        message.extend((0..499_996).map(|index: usize| index as u8));
        let mut both = message.clone();
        both.extend(b"\x30\x05\x00\x01t\x00y");
        both.extend(message);
        peer.send(&both);
        for _ in 0..2 {
            let large = stream.try_next().expect("it arrived");
            assert_eq!(large.payload().len(), 499_996);
            assert!(
                large
                    .payload()
                    .iter()
                    .enumerate()
                    .all(|(index, byte)| *byte == index as u8)
            );
            if let Some(small) = stream.try_next() {
                assert_eq!(small.payload(), b"y");
            }
        }
    }
}

// Pace.

#[test]
fn one_byte_a_second_is_enough() {
    let setup = Setup::with_peers();
    let mut peer = setup.world.peer();
    peer.received();
    let trickle = |peer: &mut Peer, bytes: &[u8]| {
        for byte in bytes {
            setup.world.advance(SECOND);
            peer.send(&[*byte]);
        }
    };
    trickle(&mut peer, CONNACK);
    assert!(setup.client.is_connected());
    let mut stream =
        now(setup.client.subscribe("t", Qos::AtLeastOnce, Wait::None)).expect("accepted");
    peer.received();
    let mut message = vec![0x32, 96, 0, 1, b't', 0, 1, 0];
    message.resize(98, b'x');
    trickle(&mut peer, &message);
    assert_eq!(stream.try_next().expect("it arrived").payload().len(), 90);
    assert!(
        setup.client.is_connected(),
        "bytes arrived all the time, so the link lives"
    );
}

#[test]
fn a_timer_that_fires_between_any_two_bytes_of_a_packet_costs_none_of_them() {
    let packet = b"\x32\x89\x01\x00\x01t\x00\x01\x00";
    let mut packet = packet.to_vec();
    packet.resize(3 + 137, b'x');
    for place in 1..packet.len() {
        let (mut setup, mut peer) = Setup::connected();
        let subscribing = setup.client.subscribe("t", Qos::AtLeastOnce, Wait::None);
        let mut stream = now(subscribing).expect("accepted");
        peer.received();
        let (first, rest) = packet.split_at(place);
        peer.send(first);
        // Nothing has left meanwhile: PINGREQ is due, and its answer cannot come before the packet has ended.
        setup.world.advance(60 * SECOND);
        peer.expect(b"\xc0\x00");
        setup.world.advance(9 * SECOND);
        peer.send(rest);
        peer.send(b"\xd0\x00");
        let message = stream.try_next().expect("it arrived");
        assert_eq!(message.payload(), &packet[9..], "cut at {place}");
        setup.world.advance(30 * SECOND);
        let events = setup.events();
        assert!(
            events
                .iter()
                .all(|event| matches!(event, Event::Connected { .. })),
            "cut at {place}: {events:?}"
        );
    }
}

#[test]
fn connack_at_a_byte_every_three_seconds_is_too_slow() {
    let mut setup = Setup::with_peers();
    let mut peer = setup.world.peer();
    peer.received();
    for byte in CONNACK {
        setup.world.advance(3 * SECOND);
        peer.send(&[*byte]);
    }
    assert!(!setup.client.is_connected());
    assert!(matches!(
        last_error(&mut setup, &mut peer).kind(),
        ErrorKind::TimedOut(_)
    ));
}

#[test]
fn every_packet_may_come_in_single_bytes() {
    let world = World::new(BrokerOptions::new());
    world.network().read_chunk(1);
    let options = options(&world);
    let setup = Setup::start(world, options);
    let client = &setup.client;
    let mut stream = setup
        .wait(client.subscribe("t", Qos::ExactlyOnce, Wait::Ack))
        .expect("granted");
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        assert!(setup.wait(client.publish("t", "x", qos, Wait::Ack)).is_ok());
        assert!(setup.wait(stream.next()).is_some());
    }
    assert!(setup.wait(client.ping()).is_ok());
    assert!(setup.wait(client.unsubscribe("t", Wait::Ack)).is_ok());
    assert!(setup.wait(client.disconnect()).is_ok());
}

// Acknowledgements of nothing.

#[test]
fn acknowledgements_of_nothing_are_counted_and_the_link_lives() {
    // Situation 7 [MQTT-3.6.2-1, MQTT-3.7.2-1].
    for (packet, answer) in [
        (&b"\x40\x02\x03\xe7"[..], &b""[..]),
        (b"\x50\x02\x03\xe7", b"\x62\x03\x03\xe7\x92"),
        (b"\x62\x02\x03\xe7", b"\x70\x03\x03\xe7\x92"),
        (b"\x70\x02\x03\xe7", b""),
        (b"\x90\x04\x03\xe7\x00\x00", b""),
        (b"\xb0\x04\x03\xe7\x00\x00", b""),
        (b"\x50\x03\x03\xe7\x87", b""),
    ] {
        let (mut setup, mut peer) = Setup::connected();
        peer.send(packet);
        peer.expect(answer);
        assert!(setup.client.is_connected(), "{packet:02x?}");
        assert_eq!(setup.client.statistics().stray, 1, "{packet:02x?}");
        assert_eq!(setup.events().len(), 1, "only that it is connected");
    }
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_ends_no_wait() {
    let (setup, mut peer) = Setup::connected();
    let mut publishing = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    let mut subscribing = setup.client.subscribe("t", Qos::AtLeastOnce, Wait::Ack);
    let mut unsubscribing = setup.client.unsubscribe("u", Wait::Ack);
    // SUBSCRIBE, UNSUBSCRIBE, PUBLISH with the identifiers 1, 2, 3.
    peer.expect(b"\x82\x0b\x00\x01\x04\x0b\x80\x80\x01\x00\x01t\x01\xa2\x06\x00\x02\x00\x00\x01u\x32\x07\x00\x01t\x00\x03\x00x");
    for packet in [
        &b"\x40\x02\x00\x01"[..],
        b"\x40\x02\x00\x02",
        b"\x70\x02\x00\x03",
        b"\x90\x04\x00\x02\x00\x00",
        b"\x90\x04\x00\x03\x00\x00",
        b"\xb0\x04\x00\x01\x00\x00",
        b"\xb0\x04\x00\x03\x00\x00",
    ] {
        peer.send(packet);
    }
    assert!(poll(&mut publishing).is_none());
    assert!(poll(&mut subscribing).is_none());
    assert!(poll(&mut unsubscribing).is_none());
    peer.send(b"\x40\x02\x00\x03\x90\x04\x00\x01\x00\x01\xb0\x04\x00\x02\x00\x00");
    assert!(now(publishing).is_ok() && now(subscribing).is_ok() && now(unsubscribing).is_ok());
}

// Garbage.

#[test]
fn before_connack_anything_else_is_a_failed_attempt() {
    for packet in [
        &b"\x00\x00"[..],
        b"\xff\xff\xff\xff\xff",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\x30\x05\x00\x01t\x00x",
        b"\x40\x02\x00\x01",
        b"\xd0\x00",
        b"\x20\x00",
        b"\x20\x03\x02\x00\x00",
        b"\x21\x03\x00\x00\x00",
        // A session where a refusal says that there is none [MQTT-3.2.2-6].
        b"\x20\x03\x01\x87\x00",
        // A property twice.
        b"\x20\x09\x00\x00\x06\x21\x00\x07\x21\x00\x07",
        // Receive Maximum 0.
        b"\x20\x06\x00\x00\x03\x21\x00\x00",
        &[0x20, 0xff, 0xff, 0xff, 0x7f],
    ] {
        let mut setup = Setup::with_peers();
        let mut peer = setup.world.peer();
        peer.received();
        peer.send(packet);
        peer.received();
        assert!(peer.is_closed(), "{packet:02x?}");
        let error = last_error(&mut setup, &mut peer);
        assert!(
            matches!(
                error.kind(),
                ErrorKind::Protocol(_) | ErrorKind::Refused { .. }
            ),
            "{packet:02x?}: {error}"
        );
        assert!(!setup.client.is_connected());
        works_again(&setup, Version::V5_0);
    }
}

/// Packets that break a rule of MQTT 5, with the reason that the client gives.
const BROKEN: &[(&[u8], u8)] = &[
    // Reserved types and flags [MQTT-2.1.3-1].
    (b"\x00\x00", 0x81),
    (b"\x41\x02\x00\x01", 0x81),
    (b"\x60\x02\x00\x01", 0x81),
    (b"\x63\x02\x00\x01", 0x81),
    (b"\xd1\x00", 0x81),
    // The same of DISCONNECT [MQTT-3.14.1-1] and AUTH [MQTT-3.15.1-1].
    (b"\xe1\x00", 0x81),
    (b"\xe8\x01\x8b", 0x81),
    (b"\xf1\x00", 0x81),
    // A length of five bytes (section 1.5.5).
    (b"\x30\xff\xff\xff\xff\x01", 0x81),
    // QoS 3 [MQTT-3.3.1-4].
    (b"\x36\x07\x00\x01t\x00\x01\x00x", 0x81),
    // Identifier 0 [MQTT-2.2.1-3].
    (b"\x32\x07\x00\x01t\x00\x00\x00x", 0x82),
    // A topic with a wildcard [MQTT-3.3.2-2], without a character, and not UTF-8 [MQTT-1.5.4-1].
    (b"\x30\x05\x00\x01+\x00x", 0x82),
    (b"\x30\x04\x00\x00\x00x", 0x82),
    (b"\x30\x05\x00\x01\xff\x00x", 0x81),
    // A topic with a surrogate, and one with U+0000 [MQTT-1.5.4-2].
    (b"\x30\x07\x00\x03\xed\xa0\x80\x00x", 0x81),
    (b"\x30\x05\x00\x01\x00\x00x", 0x81),
    // A name and a value of a user property that are not UTF-8 [MQTT-1.5.7-1].
    (b"\x30\x0b\x00\x01t\x07\x26\x00\x01\xff\x00\x01v", 0x81),
    (b"\x30\x0b\x00\x01t\x07\x26\x00\x01k\x00\x01\xff", 0x81),
    // A length of properties in more bytes than it needs [MQTT-1.5.5-1].
    (b"\x30\x06\x00\x01t\x80\x00x", 0x81),
    // QoS 0 with DUP [MQTT-3.3.1-2].
    (b"\x38\x05\x00\x01t\x00x", 0x82),
    // A topic longer than its packet.
    (b"\x30\x05\x00\xfft\x00x", 0x81),
    // Properties longer than their packet; one that does not exist; one that does not belong here.
    (b"\x30\x05\x00\x01t\x7fx", 0x81),
    (b"\x30\x06\x00\x01t\x02\x7f\x00", 0x81),
    (b"\x30\x07\x00\x01t\x03\x21\x00\x07", 0x81),
    // Topic alias 0, above the maximum of 16, and never defined (section 3.3.2.3.4).
    (b"\x30\x08\x00\x01t\x03\x23\x00\x00x", 0x94),
    (b"\x30\x08\x00\x01t\x03\x23\x00\x11x", 0x94),
    (b"\x30\x07\x00\x00\x03\x23\x00\x01x", 0x82),
    // A second CONNACK, and what only clients send.
    (CONNACK, 0x82),
    (b"\xc0\x00", 0x82),
    (b"\x82\x07\x00\x01\x00\x00\x01t\x00", 0x82),
    (b"\xa2\x06\x00\x01\x00\x00\x01t", 0x82),
    // AUTH that nobody asked for [MQTT-4.12.0-6].
    (b"\xf0\x00", 0x82),
    // PINGRESP with a body.
    (b"\xd0\x01\x00", 0x81),
];

#[test]
fn on_5_a_broken_packet_is_answered_with_the_reason_and_the_client_goes_on() {
    for (packet, reason) in BROKEN {
        let (mut setup, mut peer) = Setup::connected();
        peer.send(packet);
        let wire = peer.received();
        assert_eq!(wire.first(), Some(&0xe0), "{packet:02x?}: {wire:02x?}");
        assert_eq!(wire.get(2), Some(reason), "{packet:02x?}: {wire:02x?}");
        assert!(peer.is_closed(), "{packet:02x?}");
        let error = last_error(&mut setup, &mut peer);
        let ErrorKind::Protocol(violation) = error.kind() else {
            panic!("{packet:02x?}: {error}");
        };
        assert_eq!(violation.reason.code(), *reason);
        assert!(violation.clause.starts_with("MQTT"), "{violation}");
        works_again(&setup, Version::V5_0);
    }
}

#[test]
fn on_3_1_1_a_broken_packet_ends_the_link_and_the_client_goes_on() {
    for packet in [
        &b"\x00\x00"[..],
        b"\x36\x06\x00\x01t\x00\x01x",
        // 3.1.1: flags [MQTT-2.2.2-2, MQTT-3.6.1-1], texts [MQTT-1.5.3-1, MQTT-1.5.3-2], DUP at QoS 0.
        b"\x41\x02\x00\x01",
        b"\x60\x02\x00\x01",
        b"\x63\x02\x00\x01",
        b"\x6a\x02\x00\x01",
        b"\xb1\x02\x00\x01",
        b"\xd1\x00",
        b"\x30\x04\x00\x01\xffx",
        b"\x30\x06\x00\x03\xed\xa0\x80x",
        b"\x30\x04\x00\x01\x00x",
        b"\x38\x04\x00\x01tx",
        b"\x32\x06\x00\x01t\x00\x00x",
        b"\x30\x04\x00\x01#x",
        b"\x30\x04\x00\xfftx",
        b"\x30\xff\xff\xff\xff\x01",
        b"\x20\x02\x00\x00",
        b"\xe0\x00",
        b"\xf0\x00",
        b"\xc0\x00",
        b"\x90\x01\x00",
    ] {
        let (mut setup, mut peer) = Setup::connected_3();
        peer.send(packet);
        assert!(peer.is_closed(), "{packet:02x?}");
        peer.expect_nothing();
        assert!(matches!(
            last_error(&mut setup, &mut peer).kind(),
            ErrorKind::Protocol(_)
        ));
        works_again(&setup, Version::V3_1_1);
    }
}

#[test]
fn suback_and_unsuback_need_one_reason_per_filter() {
    // [MQTT-3.8.4-6, MQTT-3.11.3-2]
    for (suback, packet) in [
        (true, &b"\x90\x03\x00\x01\x00"[..]),
        (true, b"\x90\x05\x00\x01\x00\x00\x00"),
        (false, b"\xb0\x03\x00\x01\x00"),
        (false, b"\xb0\x05\x00\x01\x00\x00\x00"),
    ] {
        let (mut setup, mut peer) = Setup::connected();
        let mut subscribing =
            suback.then(|| setup.client.subscribe("t", Qos::AtMostOnce, Wait::Ack));
        let mut unsubscribing = (!suback).then(|| setup.client.unsubscribe("t", Wait::Ack));
        peer.received();
        peer.send(packet);
        peer.received();
        assert!(peer.is_closed());
        assert!(matches!(
            last_error(&mut setup, &mut peer).kind(),
            ErrorKind::Protocol(_)
        ));
        // The wait goes on with the next connection (situation 14).
        let mut peer = setup.greet_later(CONNACK);
        let wire = peer.received();
        peer.send(&[if suback { 0x90 } else { 0xb0 }, 4, wire[2], wire[3], 0, 0]);
        assert!(
            subscribing
                .as_mut()
                .is_none_or(|wait| poll(wait).is_some_and(|done| done.is_ok()))
        );
        assert!(
            unsubscribing
                .as_mut()
                .is_none_or(|wait| poll(wait).is_some_and(|done| done.is_ok()))
        );
    }
}

#[test]
fn more_messages_than_our_receive_maximum_are_answered_with_0x93() {
    // [MQTT-3.3.4-9]
    let world = World::with_peers();
    let options = options(&world).receive_maximum(2);
    let mut setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    let filters = Filters::new("t", Qos::AtLeastOnce).acknowledge(Acknowledge::ByHand);
    let mut stream = now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted");
    peer.received();
    for id in 1..=2 {
        peer.send(&[0x32, 7, 0, 1, b't', 0, id, 0, b'x']);
    }
    peer.expect_nothing();
    peer.send(b"\x32\x07\x00\x01t\x00\x03\x00x");
    peer.expect(b"\xe0\x01\x93");
    assert!(matches!(
        last_error(&mut setup, &mut peer).kind(),
        ErrorKind::Protocol(_)
    ));
    assert_eq!(stream.len(), 2);
    // What is acknowledged after the end is owed to nobody.
    stream
        .try_next()
        .expect("queued")
        .acknowledge()
        .expect("once");
    works_again(&setup, Version::V5_0);
}

#[test]
fn what_follows_a_broken_packet_is_not_read() {
    let (setup, mut peer) = Setup::connected();
    let mut stream =
        now(setup.client.subscribe("t", Qos::AtMostOnce, Wait::None)).expect("accepted");
    peer.received();
    peer.send(b"\x30\x05\x00\x01t\x001\x00\x00\x30\x05\x00\x01t\x002");
    assert_eq!(stream.try_next().expect("it came before").payload(), b"1");
    assert!(stream.try_next().is_none());
}

/// What a broker might send to a client with a subscription to "t", all kinds of packets.
const TRANSCRIPT: &[u8] = b"\x20\x0b\x00\x00\x08\x21\x00\x07\x27\x00\x00\x10\x00\
    \x90\x04\x00\x01\x00\x02\
    \x30\x05\x00\x01t\x00x\
    \x32\x08\x00\x01t\x00\x01\x00xy\
    \x34\x0b\x00\x01t\x00\x02\x03\x23\x00\x01z\
    \x62\x02\x00\x02\
    \x40\x02\x00\x02\
    \xd0\x00\
    \xb0\x04\x00\x07\x00\x00";

#[test]
fn a_link_that_ends_after_any_byte_is_replaced() {
    for cut in [Cut::Close, Cut::Reset] {
        for length in 0..=TRANSCRIPT.len() {
            let setup = Setup::with_peers();
            let mut stream =
                now(setup.client.subscribe("t", Qos::ExactlyOnce, Wait::None)).expect("accepted");
            let mut peer = setup.world.peer();
            peer.received();
            peer.send(&TRANSCRIPT[..length]);
            setup.world.network().cut(cut);
            setup.world.run_until_idle();
            while stream.try_next().is_some() {}
            assert!(!setup.client.is_connected(), "after {length} bytes");
            works_again(&setup, Version::V5_0);
        }
    }
}

#[test]
fn a_transcript_with_any_byte_changed_is_survived() {
    for index in 0..TRANSCRIPT.len() {
        for flip in [0x01, 0x80, 0xff] {
            let setup = Setup::with_peers();
            let mut stream =
                now(setup.client.subscribe("t", Qos::ExactlyOnce, Wait::None)).expect("accepted");
            let mut peer = setup.world.peer();
            peer.received();
            let mut bytes = TRANSCRIPT.to_vec();
            bytes[index] ^= flip;
            peer.send(&bytes);
            while stream.try_next().is_some() {}
            setup.world.network().cut(Cut::Close);
            setup.world.run_until_idle();
            works_again(&setup, Version::V5_0);
        }
    }
}

#[test]
fn random_bytes_at_any_stage_are_survived() {
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..500 {
        let version = [Version::V5_0, Version::V3_1_1][round % 2];
        let (setup, mut peer) = connected(version);
        let _stream =
            now(setup.client.subscribe("#", Qos::ExactlyOnce, Wait::None)).expect("accepted");
        drop(setup.client.publish("t", "x", Qos::ExactlyOnce, Wait::None));
        peer.received();
        for _ in 0..random.usize(1..20) {
            // Bytes that look like packets reach further than plain noise.
            let first = random.u8(..) & if random.bool() { 0xf0 } else { 0xff };
            let body: Vec<u8> = (0..random.usize(0..20))
                .map(|_| random.u8(..) & 0x3f)
                .collect();
            peer.send(&[&[first, body.len() as u8], &body[..]].concat());
        }
        setup.world.network().cut(Cut::Close);
        setup.world.run_until_idle();
        // Whatever was believed of it, another connection works.
        setup.until_attempt();
        let mut peer = setup.greet(if version == Version::V5_0 {
            CONNACK
        } else {
            CONNACK_3
        });
        peer.received();
        let ping = setup.client.ping();
        setup.world.run_until_idle();
        peer.send(b"\xd0\x00");
        assert!(now(ping).is_ok(), "round {round}");
    }
}

#[test]
fn a_handler_sees_nothing_of_a_broken_message() {
    let (setup, mut peer) = Setup::connected();
    let handler = |incoming: &Incoming<'_>| {
        assert_eq!(incoming.topic(), "t");
        assert_eq!(incoming.payload(), b"x");
    };
    let subscribing = setup
        .client
        .subscribe_inline(("#", Qos::AtMostOnce), handler, Wait::None);
    let _subscription = now(subscribing).expect("accepted");
    peer.send(b"\x30\x05\x00\x01t\x00x\x30\x05\x00\x01\xff\x00x");
    assert!(!setup.client.is_connected());
    assert_eq!(setup.client.statistics().received, 1);
}

#[test]
fn a_broker_of_an_older_version_is_a_refusal_and_not_malformed() {
    // CONNACK in the form of 3.1.1, code 1: unacceptable protocol version.
    let mut setup = Setup::with_peers();
    let mut peer = setup.world.peer();
    peer.received();
    peer.send(b"\x20\x02\x00\x01");
    let error = last_error(&mut setup, &mut peer);
    assert_eq!(
        error.reason(),
        Some(Reason::UNSUPPORTED_PROTOCOL_VERSION),
        "{error}"
    );
    assert!(error.is_permanent());
}
