//! The fixed header: types, flags and lengths.

use coracle::codec::subscribe::{FilterList, FilterOptions, push_filter};
use coracle::codec::{Frame, MAX_REMAINING, Packet, Publish, Split, Subscribe, decode, split};
use coracle::{Properties, Qos, Version, Violation};

use crate::{ALL, OLD, golden, id, packet, read};

const V5: Version = Version::V5_0;

#[track_caller]
fn clause(bytes: &[u8]) -> &'static str {
    split(bytes).expect_err("it must not be read").clause
}

#[test]
fn nothing_is_a_header_to_come() {
    assert_eq!(split(b""), Ok(Split::Header));
    assert_eq!(split(b"\x30"), Ok(Split::Header));
    assert_eq!(split(b"\x30\x80"), Ok(Split::Header));
    assert_eq!(split(b"\x30\xFF\xFF\xFF"), Ok(Split::Header));
}

#[test]
fn what_follows_a_packet_is_left_alone() {
    let frame = Frame {
        first: 0x40,
        body: b"\0\x07",
    };
    assert_eq!(
        split(b"\x40\x02\0\x07\xD0\0"),
        Ok(Split::Whole { frame, size: 4 })
    );
}

#[test]
fn lengths_are_read_at_their_borders() {
    // MQTT 5, table 1-1
    for (length, remaining) in [
        (&b"\0"[..], 0),
        (b"\x7F", 127),
        (b"\x80\x01", 128),
        (b"\xFF\x7F", 16_383),
        (b"\x80\x80\x01", 16_384),
        (b"\xFF\xFF\x7F", 2_097_151),
        (b"\x80\x80\x80\x01", 2_097_152),
        (b"\xFF\xFF\xFF\x7F", MAX_REMAINING),
    ] {
        let header = 1 + length.len();
        let size = header + remaining;
        let bytes = [b"\x30", length].concat();
        let expected = if remaining == 0 {
            let (first, body) = (0x30, &b""[..]);
            Split::Whole {
                frame: Frame { first, body },
                size,
            }
        } else {
            // Nothing is allocated for a packet that is only announced.
            Split::Partial {
                first: 0x30,
                header,
                size,
            }
        };
        assert_eq!(split(&bytes), Ok(expected), "{bytes:02X?}");
    }
}

#[test]
fn a_length_is_as_short_as_possible() {
    // [MQTT-1.5.5-1]
    assert_eq!(clause(b"\x30\x80\0"), "MQTT-1.5.5-1");
    assert_eq!(clause(b"\x30\xFF\0"), "MQTT-1.5.5-1");
    assert_eq!(clause(b"\x30\x80\x80\0"), "MQTT-1.5.5-1");
    assert_eq!(clause(b"\x30\x80\x80\x80\0"), "MQTT-1.5.5-1");
}

#[test]
fn a_length_takes_at_most_four_bytes() {
    // MQTT 5, section 1.5.5; seen as soon as the fourth byte announces a fifth.
    assert_eq!(clause(b"\x30\x80\x80\x80\x80"), "MQTT5 1.5.5");
    assert_eq!(clause(b"\x30\xFF\xFF\xFF\xFF\x7F"), "MQTT5 1.5.5");
}

#[test]
fn types_and_flags_are_seen_in_the_first_byte() {
    // [MQTT-2.1.3-1] and, for some packets, a clause of their own.
    for first in 0..=u8::MAX {
        let (kind, flags) = (first >> 4, first & 0x0F);
        let expected = match (kind, flags) {
            (0, _) => Err("MQTT5 2.1.2"),
            (3, 0x06 | 0x07 | 0x0E | 0x0F) => Err("MQTT-3.3.1-4"),
            (3, _) => Ok(()),
            // 0x0A is 3.1 with DUP, which only decoding knows.
            (6 | 8 | 10, 0x02 | 0x0A) => Ok(()),
            (6, _) => Err("MQTT-3.6.1-1"),
            (8, _) => Err("MQTT-3.8.1-1"),
            (10, _) => Err("MQTT-3.10.1-1"),
            (_, 0) => Ok(()),
            (14, _) => Err("MQTT-3.14.1-1"),
            (15, _) => Err("MQTT-3.15.1-1"),
            (_, _) => Err("MQTT-2.1.3-1"),
        };
        let found = split(&[first]).map(|split| assert_eq!(split, Split::Header));
        assert_eq!(found.map_err(|bad| bad.clause), expected, "{first:02X}");
    }
}

#[test]
fn decoding_looks_at_the_flags_too() {
    // A frame need not come from `split`.
    let first = |version, first| -> Result<(), Violation> {
        let body = b"\0\x07";
        decode(version, Frame { first, body }).map(|_packet| ())
    };
    for version in ALL {
        for bad in [0x00, 0x36, 0x41, 0x60, 0xD1, 0xE1] {
            assert!(first(version, bad).is_err(), "{bad:02X} on {version}");
        }
    }
}

#[test]
fn repetitions_of_3_1_keep_their_flag() {
    // MQTT 3.1, sections 3.6, 3.8 and 3.10: DUP on PUBREL, SUBSCRIBE and UNSUBSCRIBE.
    let repeated: [(&[u8], &str); 3] = [
        (b"\x6A\x02\0\x07", "MQTT-3.6.1-1"),
        (b"\x8A\x06\0\x07\0\x01a\x01", "MQTT-3.8.1-1"),
        (b"\xAA\x05\0\x07\0\x01a", "MQTT-3.10.1-1"),
    ];
    for (bytes, clause) in repeated {
        let first_time = [&[bytes[0] & !0x08], &bytes[1..]].concat();
        assert_eq!(read(Version::V3_1, bytes), read(Version::V3_1, &first_time));
        assert!(read(Version::V3_1, bytes).is_ok());
        crate::malformed(Version::V3_1_1, bytes, clause);
        crate::malformed(Version::V5_0, bytes, clause);
    }
}

#[test]
fn packets_that_are_cut_off_are_malformed() {
    // MQTT 5, section 2.1.4: the length in the header is right, but a field reaches beyond it.
    for version in ALL {
        for bytes in [
            &b"\x10\0"[..],
            b"\x10\x05\0\x04MQT",
            b"\x20\0",
            b"\x30\0",
            b"\x30\x01\0",
            b"\x30\x03\0\x02a",
            b"\x32\x04\0\x01a\0",
            b"\x40\0",
            b"\x40\x01\0",
            b"\x62\x01\0",
            b"\x82\x01\0",
            b"\x90\x01\0",
            b"\xA2\x01\0",
            b"\xB0\x01\0",
        ] {
            crate::malformed(version, bytes, "MQTT5 2.1.4");
        }
    }
    for version in OLD {
        crate::malformed(version, b"\x20\x01\0", "MQTT5 2.1.4");
        crate::malformed(version, b"\x82\x05\0\x07\0\x01a", "MQTT5 2.1.4");
        crate::malformed(version, b"\xA2\x03\0\x07\0", "MQTT5 2.1.4");
    }
}

#[test]
fn integers_are_written_as_short_as_possible() {
    // [MQTT-1.5.5-1], at the borders of table 1-1: an integer among the properties, and their length.
    for (number, bytes) in [
        (1, &b"\x01"[..]),
        (127, b"\x7F"),
        (128, b"\x80\x01"),
        (16_383, b"\xFF\x7F"),
        (16_384, b"\x80\x80\x01"),
        (2_097_151, b"\xFF\xFF\x7F"),
        (2_097_152, b"\x80\x80\x80\x01"),
        (268_435_455, b"\xFF\xFF\xFF\x7F"),
    ] {
        let properties = Properties::new().subscription_identifier(number);
        let mut filters = Vec::new();
        let options = FilterOptions {
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
        };
        push_filter(&mut filters, "a", options);
        let subscribe = Subscribe {
            id: id(7),
            properties: properties.list(),
            filters: FilterList::new(&filters),
        };
        let length = bytes.len() as u8 + 1;
        let body = [b"\0\x07", &[length, 0x0B][..], bytes, b"\0\x01a\0"].concat();
        golden(V5, Packet::Subscribe(subscribe), &packet(0x82, &body));
    }
    for (length, bytes) in [
        (127, &b"\x7F"[..]),
        (128, b"\x80\x01"),
        (16_383, b"\xFF\x7F"),
        (16_384, b"\x80\x80\x01"),
    ] {
        // A user property has five bytes beside its texts.
        let value = "v".repeat(length - 6);
        let properties = Properties::new().user_property("k", &value);
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "a",
            id: None,
            properties: properties.list(),
            payload: b"",
        };
        let mut out = Vec::new();
        publish.encode(V5, &mut out).expect("it is short");
        let block = out.len() - length;
        assert_eq!(out.get(block - bytes.len()..block), Some(bytes));
        assert_eq!(out.get(block), Some(&0x26));
        assert_eq!(read(V5, &out), Ok(Packet::Publish(publish)));
    }
}
