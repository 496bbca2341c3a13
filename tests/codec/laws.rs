//! What holds for all packets and all bytes, tried with arbitrary ones.

use coracle::codec::publish::peek_id;
use coracle::codec::subscribe::{FilterList, FilterOptions, ReasonList, push_filter};
use coracle::codec::unsubscribe::{NameList, push_name};
use coracle::codec::{
    Ack, AckKind, Auth, Connack, Connect, Disconnect, Packet, Publish, Split, Suback, Subscribe,
    Unsuback, Unsubscribe, Will, decode, split,
};
use coracle::{PacketId, Properties, Property, Qos, Reason, Version};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{
    BoxedStrategy, Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof,
    proptest,
};
use proptest::sample::{Index, select};
use proptest::strategy::Union;

use crate::properties::{Place, TABLE};
use crate::{ALL, packet as packet_of};

/// A packet that owns what it is made of.
#[derive(Debug, Clone)]
enum Owned {
    Connect {
        version: Version,
        clean: bool,
        keep_alive: u16,
        client_id: String,
        will: Option<OwnedWill>,
        user_name: Option<String>,
        password: Option<Vec<u8>>,
        properties: Properties,
    },
    Connack(bool, Reason, Properties),
    Publish {
        dup: bool,
        qos: Qos,
        retain: bool,
        topic: String,
        id: Option<PacketId>,
        properties: Properties,
        payload: Vec<u8>,
    },
    Ack(AckKind, PacketId, Reason, Properties),
    Subscribe(PacketId, Properties, Vec<u8>),
    Suback(PacketId, Properties, Vec<u8>),
    Unsubscribe(PacketId, Properties, Vec<u8>),
    Unsuback(PacketId, Properties, Vec<u8>),
    Pingreq,
    Pingresp,
    Disconnect(Reason, Properties),
    Auth(Reason, Properties),
}

#[derive(Debug, Clone)]
struct OwnedWill {
    qos: Qos,
    retain: bool,
    topic: String,
    payload: Vec<u8>,
    properties: Properties,
}

impl Owned {
    fn packet(&self) -> Packet<'_> {
        match self {
            Self::Connect {
                version,
                clean,
                keep_alive,
                client_id,
                will,
                user_name,
                password,
                properties,
            } => Packet::Connect(Connect {
                version: *version,
                clean: *clean,
                keep_alive: *keep_alive,
                client_id,
                will: will.as_ref().map(|will| Will {
                    qos: will.qos,
                    retain: will.retain,
                    topic: &will.topic,
                    payload: &will.payload,
                    properties: will.properties.list(),
                }),
                user_name: user_name.as_deref(),
                password: password.as_deref(),
                properties: properties.list(),
            }),
            Self::Connack(session_present, reason, properties) => Packet::Connack(Connack {
                session_present: *session_present,
                reason: *reason,
                properties: properties.list(),
            }),
            Self::Publish {
                dup,
                qos,
                retain,
                topic,
                id,
                properties,
                payload,
            } => Packet::Publish(Publish {
                dup: *dup,
                qos: *qos,
                retain: *retain,
                topic,
                id: *id,
                properties: properties.list(),
                payload,
            }),
            Self::Ack(kind, id, reason, properties) => {
                let ack = Ack {
                    id: *id,
                    reason: *reason,
                    properties: properties.list(),
                };
                match kind {
                    AckKind::Puback => Packet::Puback(ack),
                    AckKind::Pubrec => Packet::Pubrec(ack),
                    AckKind::Pubrel => Packet::Pubrel(ack),
                    AckKind::Pubcomp => Packet::Pubcomp(ack),
                }
            }
            Self::Subscribe(id, properties, filters) => Packet::Subscribe(Subscribe {
                id: *id,
                properties: properties.list(),
                filters: FilterList::new(filters),
            }),
            Self::Suback(id, properties, reasons) => Packet::Suback(Suback {
                id: *id,
                properties: properties.list(),
                reasons: ReasonList(reasons),
            }),
            Self::Unsubscribe(id, properties, filters) => Packet::Unsubscribe(Unsubscribe {
                id: *id,
                properties: properties.list(),
                filters: NameList::new(filters),
            }),
            Self::Unsuback(id, properties, reasons) => Packet::Unsuback(Unsuback {
                id: *id,
                properties: properties.list(),
                reasons: ReasonList(reasons),
            }),
            Self::Pingreq => Packet::Pingreq,
            Self::Pingresp => Packet::Pingresp,
            Self::Disconnect(reason, properties) => Packet::Disconnect(Disconnect {
                reason: *reason,
                properties: properties.list(),
            }),
            Self::Auth(reason, properties) => Packet::Auth(Auth {
                reason: *reason,
                properties: properties.list(),
            }),
        }
    }

    fn bytes(&self, version: Version) -> Vec<u8> {
        bytes_of(self.packet(), version)
    }
}

fn bytes_of(packet: Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet
        .encode(version, &mut out)
        .expect("it is not too long");
    out
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/$ äß€\u{FEFF}𝄞]{0,12}"
}

fn topic() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/$ äß€\u{FEFF}𝄞]{1,40}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

/// Mostly short, and now and then of two or three bytes of length.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        1 => (100_usize..300, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
        1 => (16_000_usize..17_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ]
}

fn id() -> impl Strategy<Value = PacketId> {
    any::<PacketId>()
}

fn qos() -> impl Strategy<Value = Qos> {
    select(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][..])
}

fn reason(codes: &'static [u8]) -> impl Strategy<Value = Reason> {
    select(codes).prop_map(Reason::new)
}

/// Well-formed filters, shared ones among them.
fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => "[a-z0-9ä$]{0,5}", 1 => Just(String::from("+"))];
    let levels = (vec(level, 1..4), any::<bool>()).prop_map(|(mut levels, all)| {
        // `#` also stands in for a filter that would be empty.
        if all || levels == [""] {
            levels.push(String::from("#"));
        }
        levels.join("/")
    });
    let share = option::weighted(0.2, "[a-z]{1,4}");
    (share, levels)
        .prop_map(|(share, levels)| match share {
            Some(group) => format!("$share/{group}/{levels}"),
            None => levels,
        })
        .prop_filter("$share is a prefix of its own", |filter| {
            filter.starts_with("$share/") || !filter.starts_with("$share")
        })
}

fn options(version: Version, filter: &str) -> BoxedStrategy<FilterOptions> {
    let only_5_0 = version == Version::V5_0;
    let may_be_local = only_5_0 && !filter.starts_with("$share/");
    (qos(), any::<bool>(), any::<bool>(), 0_u8..3)
        .prop_map(
            move |(qos, no_local, as_published, retain_handling)| FilterOptions {
                qos,
                no_local: no_local && may_be_local,
                retain_as_published: as_published && only_5_0,
                retain_handling: if only_5_0 { retain_handling } else { 0 },
            },
        )
        .boxed()
}

/// Adds the property `id` with a value made of whichever of the others it needs.
fn with_property(
    properties: Properties,
    (id, number, text, bytes): (u8, u32, String, Vec<u8>),
) -> Properties {
    let flag = number % 2 == 1;
    // Never 0, which some do not allow.
    let short = (number % 0xFFFF) as u16 + 1;
    let long = number.max(1);
    properties.with(match id {
        0x01 => Property::PayloadFormatIndicator(flag),
        0x02 => Property::MessageExpiryInterval(number),
        0x03 => Property::ContentType(&text),
        0x08 if text.is_empty() => Property::ResponseTopic("a"),
        0x08 => Property::ResponseTopic(&text),
        0x09 => Property::CorrelationData(&bytes),
        0x0B => Property::SubscriptionIdentifier(number % 268_435_455 + 1),
        0x11 => Property::SessionExpiryInterval(number),
        0x12 => Property::AssignedClientIdentifier(&text),
        0x13 => Property::ServerKeepAlive(short),
        0x15 => Property::AuthenticationMethod(&text),
        0x16 => Property::AuthenticationData(&bytes),
        0x17 => Property::RequestProblemInformation(flag),
        0x18 => Property::WillDelayInterval(number),
        0x19 => Property::RequestResponseInformation(flag),
        0x1A => Property::ResponseInformation(&text),
        0x1C => Property::ServerReference(&text),
        0x1F => Property::ReasonString(&text),
        0x21 => Property::ReceiveMaximum(short),
        0x22 => Property::TopicAliasMaximum(short),
        0x23 => Property::TopicAlias(short),
        0x24 => Property::MaximumQos(u8::from(flag)),
        0x25 => Property::RetainAvailable(flag),
        0x26 => Property::UserProperty(&text, &text),
        0x27 => Property::MaximumPacketSize(long),
        0x28 => Property::WildcardSubscriptionAvailable(flag),
        0x29 => Property::SubscriptionIdentifiersAvailable(flag),
        0x2A => Property::SharedSubscriptionAvailable(flag),
        other => panic!("{other:02X} is not in table 2-4"),
    })
}

/// Properties that may stand at `place`; none before 5.0.
fn properties(version: Version, place: Place) -> BoxedStrategy<Properties> {
    if version != Version::V5_0 {
        return Just(Properties::new()).boxed();
    }
    let ids: Vec<u8> = TABLE
        .iter()
        .filter(|(_property, places)| places.contains(&place))
        .map(|(property, _places)| property[0])
        .collect();
    vec((select(ids), any::<u32>(), text(), bytes()), 0..5)
        .prop_map(move |mut chosen| {
            if place == Place::Subscribe {
                // Once only, unlike in PUBLISH.
                let mut seen = false;
                chosen.retain(|(id, ..)| *id != 0x0B || !std::mem::replace(&mut seen, true));
            }
            let lacks_method = !chosen.iter().any(|(id, ..)| *id == 0x15);
            let has_data = chosen.iter().any(|(id, ..)| *id == 0x16);
            let properties = chosen.into_iter().fold(Properties::new(), with_property);
            if lacks_method && has_data && place == Place::Connect {
                // Authentication Data needs a method there.
                return properties.authentication_method("m");
            }
            properties
        })
        .boxed()
}

fn will(version: Version) -> impl Strategy<Value = OwnedWill> {
    let properties = properties(version, Place::Will);
    (qos(), any::<bool>(), topic(), payload(), properties).prop_map(
        |(qos, retain, topic, payload, properties)| OwnedWill {
            qos,
            retain,
            topic,
            payload,
            properties,
        },
    )
}

fn connect(version: Version) -> BoxedStrategy<Owned> {
    let client_id = match version {
        Version::V3_1 => "[a-zA-Z0-9ä]{1,23}".boxed(),
        _later => text().boxed(),
    };
    let login = (option::of(text()), option::of(bytes()));
    let properties = properties(version, Place::Connect);
    let will = option::of(will(version));
    (any::<(bool, u16)>(), client_id, will, login, properties)
        .prop_map(
            move |((clean, keep_alive), client_id, will, (user_name, password), properties)| {
                let password_may_be_alone = version == Version::V5_0;
                Owned::Connect {
                    version,
                    clean: clean || (version == Version::V3_1_1 && client_id.is_empty()),
                    keep_alive,
                    client_id,
                    will,
                    password: password.filter(|_| user_name.is_some() || password_may_be_alone),
                    user_name,
                    properties,
                }
            },
        )
        .boxed()
}

fn connack(version: Version) -> BoxedStrategy<Owned> {
    let reasons: &[u8] = if version == Version::V5_0 {
        &[0x00, 0x80, 0x84, 0x8C, 0x9F]
    } else {
        &[0x00, 0x80, 0x84, 0x85, 0x86, 0x87, 0x88]
    };
    let properties = properties(version, Place::Connack);
    (any::<bool>(), reason(reasons), properties)
        .prop_map(move |(present, reason, properties)| {
            let may_be = reason == Reason::SUCCESS && version != Version::V3_1;
            Owned::Connack(present && may_be, reason, properties)
        })
        .boxed()
}

fn publish(version: Version) -> BoxedStrategy<Owned> {
    let properties = properties(version, Place::Publish);
    let flags = any::<(bool, bool, bool)>();
    (flags, qos(), topic(), id(), properties, payload())
        .prop_map(
            |((dup, retain, by_alias), qos, mut topic, id, properties, payload)| {
                if by_alias && properties.list().topic_alias().is_some() {
                    topic.clear();
                }
                let id = (qos != Qos::AtMostOnce).then_some(id);
                Owned::Publish {
                    dup: dup && id.is_some(),
                    qos,
                    retain,
                    topic,
                    id,
                    properties,
                    payload,
                }
            },
        )
        .boxed()
}

fn ack(
    version: Version,
    kind: AckKind,
    place: Place,
    reasons: &'static [u8],
) -> BoxedStrategy<Owned> {
    let reasons = if version == Version::V5_0 {
        reasons
    } else {
        &[0]
    };
    (id(), reason(reasons), properties(version, place))
        .prop_map(move |(id, reason, properties)| Owned::Ack(kind, id, reason, properties))
        .boxed()
}

fn subscribe(version: Version) -> BoxedStrategy<Owned> {
    let filter = filter().prop_flat_map(move |filter| {
        let options = options(version, &filter);
        (Just(filter), options)
    });
    let properties = properties(version, Place::Subscribe);
    (id(), properties, vec(filter, 1..9))
        .prop_map(|(id, properties, filters)| {
            let mut payload = Vec::new();
            for (filter, options) in filters {
                push_filter(&mut payload, &filter, options);
            }
            Owned::Subscribe(id, properties, payload)
        })
        .boxed()
}

fn unsubscribe(version: Version) -> BoxedStrategy<Owned> {
    let properties = properties(version, Place::Unsubscribe);
    (id(), properties, vec(filter(), 1..9))
        .prop_map(|(id, properties, filters)| {
            let mut payload = Vec::new();
            for filter in filters {
                push_name(&mut payload, &filter);
            }
            Owned::Unsubscribe(id, properties, payload)
        })
        .boxed()
}

fn suback(version: Version) -> BoxedStrategy<Owned> {
    let reasons: &[u8] = match version {
        Version::V3_1 => &[0, 1, 2],
        Version::V3_1_1 => &[0, 1, 2, 0x80],
        _later => &[0, 1, 2, 0x80, 0x8F, 0xA2],
    };
    let properties = properties(version, Place::Suback);
    (id(), properties, vec(select(reasons), 1..9))
        .prop_map(|(id, properties, reasons)| Owned::Suback(id, properties, reasons))
        .boxed()
}

fn unsuback(version: Version) -> BoxedStrategy<Owned> {
    let count = if version == Version::V5_0 { 1..9 } else { 0..1 };
    let properties = properties(version, Place::Unsuback);
    (
        id(),
        properties,
        vec(select(&[0x00, 0x11, 0x91][..]), count),
    )
        .prop_map(|(id, properties, reasons)| Owned::Unsuback(id, properties, reasons))
        .boxed()
}

fn disconnect(version: Version) -> BoxedStrategy<Owned> {
    let reasons: &[u8] = if version == Version::V5_0 {
        &[0x00, 0x04, 0x82, 0x8E, 0xA2]
    } else {
        &[0]
    };
    (reason(reasons), properties(version, Place::Disconnect))
        .prop_map(|(reason, properties)| Owned::Disconnect(reason, properties))
        .boxed()
}

fn auth(version: Version) -> BoxedStrategy<Owned> {
    (
        reason(&[0x00, 0x18, 0x19]),
        properties(version, Place::Auth),
    )
        .prop_map(|(reason, properties)| {
            // Only the empty packet may be without a method.
            let empty = reason == Reason::SUCCESS && properties.is_empty();
            if empty || properties.list().authentication_method().is_some() {
                return Owned::Auth(reason, properties);
            }
            Owned::Auth(reason, properties.authentication_method("m"))
        })
        .boxed()
}

fn packet(version: Version) -> BoxedStrategy<Owned> {
    const RECEIVED: &[u8] = &[0x00, 0x10, 0x80, 0x99];
    const RELEASED: &[u8] = &[0x00, 0x92];
    let mut kinds = std::vec![
        connect(version),
        connack(version),
        publish(version),
        ack(version, AckKind::Puback, Place::Puback, RECEIVED),
        ack(version, AckKind::Pubrec, Place::Pubrec, RECEIVED),
        ack(version, AckKind::Pubrel, Place::Pubrel, RELEASED),
        ack(version, AckKind::Pubcomp, Place::Pubcomp, RELEASED),
        subscribe(version),
        suback(version),
        unsubscribe(version),
        unsuback(version),
        disconnect(version),
        Just(Owned::Pingreq).boxed(),
        Just(Owned::Pingresp).boxed(),
    ];
    if version == Version::V5_0 {
        kinds.push(auth(version));
    }
    Union::new(kinds).boxed()
}

fn version() -> impl Strategy<Value = Version> {
    select(&ALL[..])
}

/// A version and one of its packets.
fn of_a_version() -> impl Strategy<Value = (Version, Owned)> {
    version().prop_flat_map(|version| (Just(version), packet(version)))
}

/// Splits off all whole packets, in the way of a reader: each is written again, and what is left
/// stays in the buffer.
fn take_packets(version: Version, buffer: &mut Vec<u8>, out: &mut Vec<Vec<u8>>) {
    let mut taken = 0;
    while let Split::Whole { frame, size } = split(&buffer[taken..]).expect("it is right") {
        let packet = decode(version, frame).expect("it is right");
        out.push(bytes_of(packet, version));
        taken += size;
    }
    buffer.drain(..taken);
}

/// What must hold whatever the bytes are: nothing panics, and what can be read means the same when it
/// is written and read again.
fn devour(version: Version, bytes: &[u8]) {
    let Ok(found) = split(bytes) else { return };
    let frame = match found {
        Split::Header => return,
        Split::Partial { first, header, .. } => {
            let _may_be_none = peek_id(first, &bytes[header..]);
            return;
        }
        Split::Whole { frame, .. } => frame,
    };
    let _may_be_none = peek_id(frame.first, frame.body);
    let Ok(packet) = decode(version, frame) else {
        return;
    };
    assert!(!format!("{packet:?}").is_empty());
    if let (Version::V5_0, Packet::Connack(refusal), 2) = (version, packet, frame.body.len()) {
        // The form of 3.x tells even a reason that 5.0 does not list and so would not read again.
        assert!(refusal.reason != Reason::SUCCESS);
        return;
    }
    // The lists give back everything that is in them.
    let mut filters = Vec::new();
    if let Packet::Subscribe(subscribe) = packet {
        for (filter, options) in subscribe.filters.iter() {
            push_filter(&mut filters, filter, options);
        }
        assert_eq!(subscribe.filters, FilterList::new(&filters));
    }
    if let Packet::Unsubscribe(unsubscribe) = packet {
        for filter in unsubscribe.filters.iter() {
            push_name(&mut filters, filter);
        }
        assert_eq!(unsubscribe.filters, NameList::new(&filters));
    }
    let again = bytes_of(packet, version);
    assert_eq!(again.len(), packet.size(version));
    assert_eq!(crate::read(version, &again), Ok(packet));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_packet_comes_back((version, owned) in of_a_version()) {
        let packet = owned.packet();
        let bytes = owned.bytes(version);
        prop_assert_eq!(packet.size(version), bytes.len());
        prop_assert_eq!(crate::read(version, &bytes), Ok(packet));
    }

    #[test]
    fn any_chunking_gives_the_same_packets(
        (version, packets) in version().prop_flat_map(|version| {
            (Just(version), vec(packet(version), 1..6))
        }),
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let sent: Vec<_> = packets.iter().map(|packet| packet.bytes(version)).collect();
        let stream = sent.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.push(stream.len());
        cuts.sort_unstable();
        let (mut buffer, mut got, mut from) = (Vec::new(), Vec::new(), 0);
        for to in cuts {
            buffer.extend_from_slice(&stream[from..to]);
            take_packets(version, &mut buffer, &mut got);
            from = to;
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn the_id_is_seen_as_soon_as_it_is_here(
        owned in publish(Version::V5_0),
        cut in any::<Index>(),
    ) {
        let bytes = owned.bytes(Version::V5_0);
        let Ok(Split::Whole { frame, .. }) = split(&bytes) else {
            panic!("it is whole");
        };
        let Ok(Packet::Publish(publish)) = decode(Version::V5_0, frame) else {
            panic!("it is a PUBLISH");
        };
        let here = cut.index(frame.body.len() + 1);
        let needed = match publish.qos {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce | Qos::ExactlyOnce => 2 + publish.topic.len() + 2,
        };
        let expected = (here >= needed).then_some((publish.qos, publish.id));
        prop_assert_eq!(peek_id(frame.first, &frame.body[..here]), expected);
    }
}

proptest! {
    // Cheap, and most bytes are wrong at once.
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn arbitrary_bytes_never_panic(version in version(), bytes in vec(any::<u8>(), 0..48)) {
        devour(version, &bytes);
    }

    #[test]
    fn arbitrary_bodies_never_panic(
        version in version(),
        first in 0x10_u8..,
        body in vec(prop_oneof![any::<u8>(), 0_u8..8], 0..48),
    ) {
        devour(version, &packet_of(first, &body));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn damaged_packets_never_panic(
        (version, owned) in of_a_version(),
        read_as in version(),
        damage in vec((any::<Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        let bytes = owned.bytes(version);
        let Ok(Split::Whole { frame, .. }) = split(&bytes) else {
            panic!("it is whole");
        };
        // The length in the header is kept right, so that the damage is found behind it.
        let mut body = frame.body.get(..100).unwrap_or(frame.body).to_vec();
        for (place, byte, kind) in damage {
            match (kind, place.index(body.len() + 1)) {
                (0, place) => body.insert(place, byte),
                (1, place) if place < body.len() => { body.remove(place); }
                (_, place) if place < body.len() => body[place] ^= byte,
                (_, _) => {}
            }
        }
        devour(read_as, &packet_of(frame.first, &body));
        devour(version, &packet_of(frame.first, &body));
    }
}
