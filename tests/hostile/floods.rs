//! Too much of everything, and what is too large.

use coracle::{ErrorKind, Event, Filters, Incoming, Qos, Reason, Version, Wait};

use super::rig::Rig;
use super::{Setup, VERSIONS, next};

#[test]
fn a_skipped_packet_whose_identifier_is_cut_off_ends_the_connection() {
    for (size, pieces) in [
        (100_usize, 1_usize),
        (100, 103),
        (65_000, 1),
        (65_000, 4096),
        (65_000, 70_000),
    ] {
        let (setup, mut peer) =
            Setup::connected(Version::V3_1_1, |options| options.inbound_limit(64));
        // PUBLISH at QoS 1; the topic says that it is longer than the packet.
        let mut packet = vec![0x32];
        let mut left = size;
        while left >= 0x80 {
            packet.push((left & 0x7F) as u8 | 0x80);
            left >>= 7;
        }
        packet.push(left as u8);
        packet.extend([0xFF, 0xFF]);
        packet.resize(packet.len() + size - 2, b'a');
        let mut events = setup.client.events();
        for piece in packet.chunks(pieces) {
            peer.send(piece);
        }
        match next(&mut events) {
            Some(Event::Disconnected { error, .. }) => match error.kind() {
                ErrorKind::Protocol(violation) => assert_eq!(violation.clause, "MQTT5 2.1.4"),
                other => panic!("a packet of {size} bytes in pieces of {pieces}: {other:?}"),
            },
            other => panic!("a packet of {size} bytes in pieces of {pieces}: {other:?}"),
        }
        assert!(peer.is_closed());
    }
}

/// PUBLISH with this first byte to the topic `t`.
fn publish(version: Version, first: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    match version {
        Version::V5_0 => vec![first, 6, 0, 1, b't', high, low, 0],
        _ => vec![first, 5, 0, 1, b't', high, low],
    }
}

fn bare(first: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [first, 2, high, low]
}

/// The reason with which the first of these packets that is one too many ends the connection, and how
/// many were one too few.
fn until_refused(rig: &mut Rig, packets: impl Iterator<Item = Vec<u8>>) -> Option<(usize, Reason)> {
    for (count, packet) in packets.enumerate() {
        if let Err(error) = rig.receive(&packet) {
            let ErrorKind::Protocol(violation) = error.kind() else {
                panic!("{error:?}");
            };
            return Some((count, violation.reason));
        }
        rig.wire.clear();
    }
    None
}

#[test]
fn a_repeated_message_is_owed_one_pubrec_however_often_it_came() {
    for version in VERSIONS {
        let mut rig = Rig::online(version);
        // Nobody takes the first for long, so the PUBRECs of all others wait [MQTT-4.6.0-3].
        rig.receive(&publish(version, 0x34, 1))
            .expect("it is a message");
        rig.takers = 0;
        let repeat = publish(version, 0x3C, 2);
        let repeats = std::iter::repeat_n(repeat, 20_000);
        assert_eq!(until_refused(&mut rig, repeats), None);
        let first = rig.untaken[0];
        rig.take(first, Reason::SUCCESS);
        assert_eq!(rig.wire, [bare(0x50, 1), bare(0x50, 2)].concat());
        // Once it has left, the next repetition is answered anew.
        rig.wire.clear();
        rig.receive(&publish(version, 0x3C, 2))
            .expect("it is a message");
        assert_eq!(rig.wire, bare(0x50, 2));
    }
}

#[test]
fn messages_released_before_their_pubrec_do_not_pile_up() {
    for version in VERSIONS {
        let mut rig = Rig::online(version);
        rig.receive(&publish(version, 0x34, 1))
            .expect("it is a message");
        rig.takers = 0;
        let cycles =
            (0..70_000).map(|_| [publish(version, 0x34, 2), bare(0x62, 2).into()].concat());
        let refused = until_refused(&mut rig, cycles);
        assert_eq!(
            refused,
            Some((65_534, Reason::RECEIVE_MAXIMUM_EXCEEDED)),
            "{version:?}"
        );
    }
}

#[test]
fn a_released_message_is_found_without_a_search() {
    // With a search for each of them these are 20,000 times 20,000 steps.
    for version in [Version::V3_1, Version::V3_1_1] {
        let mut rig = Rig::online(version);
        rig.receive(&publish(version, 0x34, 1))
            .expect("it is a message");
        rig.takers = 0;
        for id in 2..20_000 {
            rig.receive(&publish(version, 0x34, id))
                .expect("it is a message");
        }
        for id in 2..20_000 {
            rig.receive(&bare(0x62, id)).expect("it is PUBREL");
        }
        rig.wire.clear();
        let first = rig.untaken[0];
        rig.take(first, Reason::SUCCESS);
        assert_eq!(rig.wire, bare(0x50, 1));
    }
}

#[test]
fn unanswered_messages_are_bounded_by_receive_maximum_or_the_packet_ids() {
    for version in VERSIONS {
        for first in [0x32, 0x34] {
            let mut rig = Rig::online(version);
            rig.receive(&publish(version, first, 1))
                .expect("it is a message");
            rig.takers = 0;
            // Every identifier again and again, and nobody releases any.
            let all = (0..140_000_u32).map(|count| {
                let id = u16::try_from(2 + count % 65_534).expect("it is below 65,536");
                publish(version, first, id)
            });
            let expected = match (version, first) {
                (Version::V5_0, _) => Some((1023, Reason::RECEIVE_MAXIMUM_EXCEEDED)),
                // A repeated QoS 2 message is the same message.
                (_, 0x34) => None,
                _ => Some((65_534, Reason::RECEIVE_MAXIMUM_EXCEEDED)),
            };
            assert_eq!(
                until_refused(&mut rig, all),
                expected,
                "{version:?} {first:x}"
            );
        }
    }
}

#[test]
fn pubrecs_and_pubrels_for_all_unknown_ids_are_answered_and_nothing_stays() {
    for version in VERSIONS {
        let mut rig = Rig::online(version);
        for id in 1..=65_535 {
            rig.receive(&bare(0x50, id)).expect("it is PUBREC");
            rig.receive(&bare(0x62, id)).expect("it is PUBREL");
        }
        let each = match version {
            Version::V5_0 => 5 + 5,
            _ => 4 + 4,
        };
        assert_eq!(rig.wire.len(), 65_535 * each);
        assert!(rig.protocol.is_drained());
    }
}

#[test]
fn a_handler_that_ends_another_does_not_keep_its_message_from_being_acknowledged() {
    let (setup, mut peer) = Setup::connected(Version::V5_0, |options| options);
    let client = setup.client.clone();
    let mut handles = Vec::new();
    for _ in 0..2 {
        let client = client.clone();
        let end = move |_: &Incoming<'_>| drop(client.unsubscribe("t", Wait::None));
        let filters = Filters::new("t", Qos::AtLeastOnce);
        handles.push(setup.client.subscribe_inline(filters, end, Wait::None));
    }
    peer.received();
    peer.send(&publish(Version::V5_0, 0x32, 1));
    assert_eq!(peer.received()[..4], bare(0x40, 1));
}
