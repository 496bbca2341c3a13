//! Laws of the records in a store: what is written is read again, and nothing that is read is trusted.

use std::time::Duration;

use coracle::protocol::record::{Death, Entry, Filter, Identity, Key, Outgoing};
use coracle::{
    Message, PacketId, Properties, Property, Qos, Reason, Record, StoreErrorKind, Version,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::Identifier;
use crate::{Feed, Scene, options, v5};

fn version() -> impl Strategy<Value = Version> {
    select(vec![Version::V3_1, Version::V3_1_1, Version::V5_0])
}

fn id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not 0"))
}

fn order() -> impl Strategy<Value = u64> {
    0..1_u64 << 50
}

fn message() -> impl Strategy<Value = Message> {
    (
        "[a-z/é]{1,20}",
        vec(any::<u8>(), 0..200),
        1..3_u8,
        any::<bool>(),
        proptest::option::of((any::<u32>(), "[a-z]{0,9}", "[a-z]{0,9}")),
    )
        .prop_map(|(topic, payload, qos, retain, properties)| {
            let properties = properties.map_or(Properties::new(), |(expiry, name, value)| {
                Properties::new()
                    .message_expiry_interval(expiry)
                    .user_property(&name, &value)
            });
            Message::new(topic, payload)
                .qos(Qos::from_bits(qos).expect("1 or 2"))
                .retain(retain)
                .properties(properties)
        })
}

/// As one may get to be published or kept: with the DUP with which it came, and on an older version with
/// properties of any packet.
fn any_message() -> impl Strategy<Value = Message> {
    let strays = vec(
        select(vec![
            Property::WillDelayInterval(1),
            Property::ReasonString("r"),
            Property::TopicAlias(1),
            Property::SubscriptionIdentifier(1),
            Property::AuthenticationData(b"d"),
            Property::ContentType("c"),
        ]),
        0..4,
    );
    (message(), any::<bool>(), strays).prop_map(|(message, dup, strays)| {
        let properties = Properties::from(message.property_list());
        let properties = strays.into_iter().fold(properties, Properties::with);
        if dup {
            came_again(message).properties(properties)
        } else {
            message.properties(properties)
        }
    })
}

/// The same message with DUP: only one that was received has it, so it comes out of a record.
fn came_again(message: Message) -> Message {
    let kept = record(&Entry::Kept(0, message));
    let mut value = kept.value().to_vec();
    value[1] |= 8;
    match Entry::read(&Record::new(kept.key(), value)) {
        Ok(Entry::Kept(_, message)) => message,
        other => panic!("{other:?}"),
    }
}

fn death() -> impl Strategy<Value = Death> {
    prop_oneof![
        Just(Death::Never),
        Just(Death::Unknown),
        (2..u64::MAX).prop_map(Death::At)
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let text = || "[a-zé:/.0-9]{0,30}";
    let identity = (
        any::<bool>(),
        version(),
        text(),
        proptest::option::of("[a-zé:/.0-9]{1,30}"),
        text(),
    )
        .prop_map(|(at_broker, version, client_id, assigned, place)| {
            Entry::Session(Identity {
                at_broker,
                version,
                client_id,
                assigned,
                place,
            })
        });
    let accepted = (order(), proptest::option::of(id()), death(), message());
    let released = (order(), id(), order(), any::<u8>());
    let identifier = prop_oneof![
        Just(Identifier::None),
        (1..1_u32 << 28).prop_map(Identifier::Automatic),
        (1..1_u32 << 28).prop_map(Identifier::Given),
    ];
    let filter = (
        order(),
        "[a-z]{1,9}(/[a-z]|/\\+){0,3}(/#)?",
        0..3_u8,
        identifier,
    );
    prop_oneof![
        identity,
        accepted.prop_map(|(order, id, dies, message)| {
            Entry::Outgoing(order, Outgoing::Message { id, dies, message })
        }),
        released.prop_map(|(key, id, order, reason)| {
            let reason = Reason::new(reason);
            Entry::Outgoing(key, Outgoing::Released { id, order, reason })
        }),
        (order(), proptest::option::of(id())).prop_map(|(order, id)| Entry::Named(order, id)),
        id().prop_map(Entry::Burnt),
        id().prop_map(Entry::Taken),
        (order(), message()).prop_map(|(order, message)| Entry::Kept(order, message)),
        filter.prop_map(|(number, filter, qos, identifier)| {
            let options = options(Qos::from_bits(qos).expect("0 to 2"));
            Entry::Filter(
                number,
                Filter {
                    filter,
                    options,
                    identifier,
                },
            )
        }),
    ]
}

fn record(entry: &Entry) -> Record {
    let mut value = Vec::new();
    entry.write(&mut value);
    Record::new(entry.key().number(), value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_record_comes_back(entry in entry()) {
        let record = record(&entry);
        let read = Entry::read(&record).expect("it was written here");
        prop_assert_eq!(Key::of(record.key()), Some(entry.key()));
        // A message has no equality: whole records have.
        prop_assert_eq!(self::record(&read), record);
        prop_assert_eq!(format!("{read:?}"), format!("{entry:?}"));
    }

    /// What can be accepted can be read by the next process: one record that it refuses costs the whole
    /// store.
    #[test]
    fn every_message_that_may_be_written_is_read_again(
        message in any_message(),
        id in proptest::option::of(id()),
    ) {
        let dies = Death::Never;
        let entries = [
            Entry::Outgoing(1, Outgoing::Message { id, dies, message: message.clone() }),
            Entry::Kept(2, message.clone()),
        ];
        for entry in entries {
            let read = Entry::read(&record(&entry)).expect("it was written here");
            let (Entry::Outgoing(_, Outgoing::Message { message: read, .. }) | Entry::Kept(_, read)) =
                &read
            else {
                panic!("{read:?}");
            };
            let is_kept = matches!(entry, Entry::Kept(..));
            prop_assert_eq!(read.is_duplicate(), message.is_duplicate() && is_kept);
            prop_assert_eq!(read.topic(), message.topic());
            prop_assert_eq!(read.payload(), message.payload());
            prop_assert_eq!(read.quality_of_service(), message.quality_of_service());
            prop_assert_eq!(read.is_retained(), message.is_retained());
            let (read, wrote) = (read.property_list(), message.property_list());
            prop_assert_eq!(read.content_type(), wrote.content_type());
            prop_assert_eq!(read.message_expiry_interval(), wrote.message_expiry_interval());
            prop_assert_eq!(read.reason_string(), None);
            prop_assert_eq!(read.will_delay_interval(), None);
            prop_assert!(read.user_properties().eq(wrote.user_properties()));
        }
    }

    #[test]
    fn a_record_that_is_cut_off_is_an_error_or_a_shorter_payload(
        entry in entry(),
        cut in any::<Index>(),
    ) {
        let whole = record(&entry);
        let cut = cut.index(whole.value().len());
        let read = Entry::read(&Record::new(whole.key(), &whole.value()[..cut]));
        let has_payload = matches!(
            entry,
            Entry::Outgoing(_, Outgoing::Message { .. }) | Entry::Kept(..)
        );
        prop_assert!(read.is_err() || has_payload, "{read:?}");
    }

    #[test]
    fn damaged_records_never_panic(
        entry in entry(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let whole = record(&entry);
        let mut value = whole.value().to_vec();
        for (place, byte) in damage {
            let place = place.index(value.len());
            value[place] = byte;
        }
        let _ = Entry::read(&Record::new(whole.key(), value));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn arbitrary_records_never_panic(
        kind in 0..9_u64,
        which in any::<u64>(),
        mut value in vec(any::<u8>(), 0..64),
        knows_format in any::<bool>(),
    ) {
        if let Some(first) = value.first_mut().filter(|_| knows_format) {
            *first = 1;
        }
        let _ = Entry::read(&Record::new(kind << 56 | which >> 8, value));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// However the records contradict each other: a session or an error, and no message twice.
    #[test]
    fn arbitrary_stores_never_panic(entries in vec(entry(), 0..12)) {
        let records: Vec<Record> = entries.iter().map(record).collect();
        let mut scene = Scene::new(v5(), Feed::Whole);
        let date = Duration::from_secs(1_800_000_000);
        if scene.protocol.restore(scene.now, date, &records).is_ok() {
            let version = scene.protocol.config().version;
            let connack = if version == Version::V5_0 {
                crate::PRESENT_5
            } else {
                crate::PRESENT
            };
            let connected = scene
                .protocol
                .connect(scene.now, &crate::Credentials::default());
            if connected.is_ok() {
                scene.turn();
                scene.receive(connack);
            }
            scene.protocol.close();
        }
    }
}

#[test]
fn what_a_newer_version_wrote_is_refused_and_not_called_damaged() {
    // Whoever removes what is damaged would lose what the newer version can read.
    let error = |key: u64, value: &[u8]| {
        let mut scene = Scene::new(v5(), Feed::Whole);
        let records = [Record::new(key, value)];
        let restored = scene.protocol.restore(scene.now, Duration::ZERO, &records);
        let error = restored.expect_err("it is unknown");
        (error.kind(), error.to_string())
    };
    let by_newer = |what: &str| {
        let text = format!("the record {what}: a newer version of this program wrote it");
        (StoreErrorKind::Other, text)
    };
    assert_eq!(
        error(2 << 56, &[2]),
        by_newer("0x200000000000000 of the store has the format 2, and this version knows 1")
    );
    assert_eq!(
        error(8 << 56, &[1]),
        by_newer("0x800000000000000 of the store is of a kind that this version does not know")
    );
    // These no version writes.
    for (key, value) in [
        (2 << 56, &[][..]),
        (2 << 56, &[0]),
        (7, &[1]),
        (1 << 56 | 1, &[1]),
    ] {
        assert_eq!(error(key, value).0, StoreErrorKind::Damaged, "{key:#x}");
    }
}
