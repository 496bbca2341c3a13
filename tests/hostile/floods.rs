//! Too much of everything, and what is too large.

use coracle::{ErrorKind, Event, Version};

use super::{Setup, next};

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
