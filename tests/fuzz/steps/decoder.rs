//! Bytes to packets and back: what is accepted says the same when it is written and read again, and a
//! packet is told from the bytes of its header alone, however few of the others are there.

use coracle::codec::{self, Frame, Packet, Split};
use coracle::{Properties, PropertyList, Version, matches};

use super::input::Input;

/// Input: a byte for the version, then what a peer sends.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let version = input.version();
    let mut rest = input.take(usize::MAX);
    let mut written = Vec::new();
    loop {
        in_pieces(rest);
        let Ok(Split::Whole { frame, size }) = codec::split(rest) else {
            return;
        };
        assert_eq!(&rest[size - frame.body.len()..size], frame.body);
        if let Ok(packet) = codec::decode(version, frame) {
            again(version, frame, &packet, &mut written);
            properties(&packet);
        }
        rest = &rest[size..];
    }
}

/// What is said of the front of `bytes` is said from the first byte on that allows it, and never taken back.
fn in_pieces(bytes: &[u8]) {
    let whole = codec::split(bytes);
    // The fixed header has five bytes at most.
    for end in (0..bytes.len().min(6)).chain([bytes.len() / 2, bytes.len().saturating_sub(1)]) {
        match (codec::split(&bytes[..end]), &whole) {
            (Ok(Split::Header), _) => {}
            (
                Ok(Split::Partial { first, size, .. }),
                Ok(Split::Partial {
                    first: f, size: s, ..
                }),
            ) => {
                assert_eq!((first, size), (*f, *s));
                assert!(size > end);
            }
            (Ok(Split::Partial { first, size, .. }), Ok(Split::Whole { frame, size: s })) => {
                assert_eq!((first, size), (frame.first, *s));
                assert!(size > end);
            }
            (Ok(part @ Split::Whole { .. }), Ok(whole)) => assert_eq!(part, *whole),
            (Err(part), Err(whole)) => assert_eq!(part.clause, whole.clause),
            (part, whole) => panic!("{part:?} of {end} bytes became {whole:?}"),
        }
    }
}

fn again(version: Version, frame: Frame<'_>, packet: &Packet<'_>, written: &mut Vec<u8>) {
    // A refusal in the form of 3.x is translated, with a code that 5.0 may not have.
    if let (Packet::Connack(_), 2) = (packet, frame.body.len()) {
        return;
    }
    written.clear();
    packet
        .encode(version, written)
        .expect("what was read can be written");
    assert_eq!(packet.size(version), written.len());
    let Ok(Split::Whole {
        frame: second,
        size,
    }) = codec::split(written)
    else {
        panic!("what was written is no packet");
    };
    assert_eq!(size, written.len());
    match codec::decode(version, second) {
        Ok(second) => assert_eq!(*packet, second),
        Err(violation) => panic!("what was written cannot be read: {violation}"),
    }
    match packet {
        // Filters are read once to be checked and again by whoever wants them.
        Packet::Subscribe(subscribe) => {
            assert!(subscribe.filters.iter().count() > 0);
            for (filter, _) in subscribe.filters.iter() {
                let _ = matches(filter, "a/b");
            }
        }
        Packet::Unsubscribe(unsubscribe) => assert!(unsubscribe.filters.iter().count() > 0),
        Packet::Publish(publish) => {
            for filter in ["#", "a/+", "+/b/#", "$share/g/a"] {
                let _ = matches(filter, publish.topic);
            }
            let peeked = codec::publish::peek_id(frame.first, frame.body);
            assert_eq!(peeked, Some((publish.qos, publish.id)));
        }
        Packet::Connect(_)
        | Packet::Connack(_)
        | Packet::Puback(_)
        | Packet::Pubrec(_)
        | Packet::Pubrel(_)
        | Packet::Pubcomp(_)
        | Packet::Suback(_)
        | Packet::Unsuback(_)
        | Packet::Pingreq
        | Packet::Pingresp
        | Packet::Disconnect(_)
        | Packet::Auth(_) => {}
    }
}

/// Properties can be read one by one, and added one by one to what says the same.
fn properties(packet: &Packet<'_>) {
    let list = match packet {
        Packet::Connect(packet) => packet.properties,
        Packet::Connack(packet) => packet.properties,
        Packet::Publish(packet) => packet.properties,
        Packet::Puback(packet)
        | Packet::Pubrec(packet)
        | Packet::Pubrel(packet)
        | Packet::Pubcomp(packet) => packet.properties,
        Packet::Subscribe(packet) => packet.properties,
        Packet::Suback(packet) => packet.properties,
        Packet::Unsubscribe(packet) => packet.properties,
        Packet::Unsuback(packet) => packet.properties,
        Packet::Disconnect(packet) => packet.properties,
        Packet::Auth(packet) => packet.properties,
        Packet::Pingreq | Packet::Pingresp => PropertyList::EMPTY,
    };
    // Adding looks through all that is there, so that it takes the square of their number.
    if list.iter().count() < 50 {
        let added = list.iter().fold(Properties::new(), Properties::with);
        assert!(added.list().iter().eq(list.iter()));
    }
}
