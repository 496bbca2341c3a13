//! Topic aliases of what we publish: which topics get one, and that the broker sees the topics that were
//! published whatever happens.

use std::collections::BTreeMap;

use coracle::codec::{self, Packet, Split};
use coracle::{Properties, Qos, Reason, Wait};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};

use crate::*;

/// CONNACK with this Topic Alias Maximum, without and with a session.
const ALLOWS_2: &[u8] = b"\x20\x06\0\0\x03\x22\0\x02";
const ALLOWS_2_PRESENT: &[u8] = b"\x20\x06\x01\0\x03\x22\0\x02";

fn message(topic: &str, payload: &[u8], qos: Qos) -> Message {
    Message::new(topic, payload).qos(qos)
}

/// Publishes nothing to each topic at QoS 0.
fn publish_to(scene: &mut Scene, topics: &[&str]) {
    for topic in topics {
        scene.publish_message(message(topic, b"", Qos::AtMostOnce), Wait::None);
    }
}

/// PUBLISH of nothing to a topic by its name, by both, and by its alias, at QoS 0.
fn named(topic: &str) -> Vec<u8> {
    let length = u8::try_from(topic.len()).expect("short");
    [&[0x30, length + 3, 0, length], topic.as_bytes(), b"\0"].concat()
}

fn both(topic: &str, alias: u8) -> Vec<u8> {
    let length = u8::try_from(topic.len()).expect("short");
    [
        &[0x30, length + 6, 0, length],
        topic.as_bytes(),
        &[3, 0x23, 0, alias],
    ]
    .concat()
}

fn alias(alias: u8) -> Vec<u8> {
    vec![0x30, 6, 0, 0, 3, 0x23, 0, alias]
}

#[track_caller]
fn sent(scene: &mut Scene, packets: &[Vec<u8>]) {
    let packets: Vec<_> = packets.iter().map(Vec::as_slice).collect();
    scene.sends(&packets);
}

#[test]
fn a_topic_is_sent_once_and_then_by_its_alias_at_every_qos_and_with_its_properties() {
    play(&v5(), |scene| {
        scene.open_with(ALLOWS_2);
        scene.publish_message(message("a/b/c", b"1", Qos::AtLeastOnce), Wait::None);
        scene.publish_message(message("a/b/c", b"2", Qos::ExactlyOnce), Wait::None);
        scene.publish_message(message("a/b/c", b"3", Qos::AtMostOnce), Wait::None);
        scene
            .protocol
            .publish_qos0(
                Outgoing {
                    topic: "a/b/c",
                    ..outgoing(b"4")
                },
                None,
            )
            .expect("accepted");
        let typed =
            message("a/b/c", b"5", Qos::AtMostOnce).properties(Properties::new().content_type("x"));
        scene.publish_message(typed, Wait::None);
        scene.sends(&[
            b"\x32\x0e\0\x05a/b/c\0\x01\x03\x23\0\x011",
            b"\x34\x09\0\0\0\x02\x03\x23\0\x012",
            b"\x30\x07\0\0\x03\x23\0\x013",
            b"\x30\x07\0\0\x03\x23\0\x014",
            b"\x30\x0b\0\0\x07\x23\0\x01\x03\0\x01x5",
        ]);
    });
}

#[test]
fn there_is_no_alias_unless_both_sides_want_it() {
    let off = Config {
        topic_aliases: 0,
        ..v5()
    };
    for (config, connack) in [
        (v5(), CONNACK_5),
        (off, ALLOWS_2),
        // What stands in a CONNACK of 3.1.1 is no property.
        (v3(), CONNACK),
    ] {
        play(&config, |scene| {
            scene.open_with(connack);
            publish_to(scene, &["a/b/c", "a/b/c"]);
            assert!(!scene.wire.contains(&0x23));
            scene.wire.clear();
        });
    }
    let one = Config {
        topic_aliases: 1,
        ..v5()
    };
    play(&one, |scene| {
        scene.open_with(ALLOWS_2);
        publish_to(scene, &["a/b/c", "d/e/f", "a/b/c"]);
        sent(scene, &[both("a/b/c", 1), named("d/e/f"), alias(1)]);
    });
}

#[test]
fn a_topic_that_is_no_longer_than_an_alias_gets_none() {
    play(&v5(), |scene| {
        scene.open_with(ALLOWS_2);
        publish_to(scene, &["t", "abcd", "abcde", "t", "abcd", "abcde"]);
        sent(
            scene,
            &[
                named("t"),
                named("abcd"),
                both("abcde", 1),
                named("t"),
                named("abcd"),
                alias(1),
            ],
        );
    });
}

#[test]
fn a_topic_that_comes_once_takes_no_alias_away() {
    play(&v5(), |scene| {
        scene.open_with(ALLOWS_2);
        publish_to(scene, &["good/1", "good/2"]);
        scene.wire.clear();
        for name in ["once/1", "once/2", "once/3", "once/4", "once/5"] {
            publish_to(scene, &[name, "good/1", "good/2"]);
            sent(scene, &[named(name), alias(1), alias(2)]);
        }
    });
}

#[test]
fn of_more_topics_in_turn_than_aliases_the_first_ones_keep_theirs() {
    play(&v5(), |scene| {
        scene.open_with(ALLOWS_2);
        let round = ["topic/1", "topic/2", "topic/3"];
        publish_to(scene, &round);
        scene.wire.clear();
        for _ in 0..20 {
            publish_to(scene, &round);
            sent(scene, &[alias(1), alias(2), named("topic/3")]);
        }
    });
}

#[test]
fn when_other_topics_are_sent_the_alias_that_was_unused_longest_goes_to_them() {
    play(&v5(), |scene| {
        scene.open_with(ALLOWS_2);
        publish_to(scene, &["old/1", "old/2", "old/1"]);
        scene.wire.clear();
        // The second time is too early: "old/2" was unused for no more than twice as long.
        publish_to(scene, &["new/1", "new/1", "new/1", "new/1"]);
        sent(
            scene,
            &[named("new/1"), named("new/1"), both("new/1", 2), alias(2)],
        );
        publish_to(scene, &["old/1", "old/2"]);
        sent(scene, &[alias(1), named("old/2")]);
    });
}

#[test]
fn a_new_connection_begins_without_aliases_and_a_replay_with_the_whole_topic() {
    // [MQTT-3.3.2-7], situation 3
    play(&v5(), |scene| {
        scene.open_with(ALLOWS_2);
        let kept = scene.publish_message(message("a/b/c", b"1", Qos::AtLeastOnce), Wait::Ack);
        scene.publish_message(message("a/b/c", b"2", Qos::AtLeastOnce), Wait::None);
        scene.wire.clear();
        scene.cut();
        scene.wire.clear();
        // This time the broker allows none.
        scene.open_with(PRESENT_5);
        scene.sends(&[
            b"\x3a\x0b\0\x05a/b/c\0\x01\x001",
            b"\x3a\x0b\0\x05a/b/c\0\x02\x002",
        ]);
        scene.cut();
        scene.open_with(ALLOWS_2_PRESENT);
        scene.sends(&[
            b"\x3a\x0b\0\x05a/b/c\0\x01\x001",
            b"\x3a\x0b\0\x05a/b/c\0\x02\x002",
        ]);
        publish_to(scene, &["a/b/c", "a/b/c"]);
        sent(scene, &[both("a/b/c", 1), alias(1)]);
        scene.receive(b"\x40\x02\0\x01\x40\x02\0\x02");
        scene.is_acknowledged(kept, Reason::SUCCESS);
    });
}

#[test]
fn what_is_too_large_with_its_whole_topic_is_too_large() {
    // So that what was sent can be sent again. Topic Alias Maximum 2, Maximum Packet Size 20.
    play(&v5(), |scene| {
        scene.open_with(b"\x20\x0b\0\0\x08\x22\0\x02\x27\0\0\0\x14");
        publish_to(scene, &["topic/1", "topic/1"]);
        sent(scene, &[both("topic/1", 1), alias(1)]);
        for (payload, fits) in [(8, true), (9, false)] {
            let large = vec![b'x'; payload];
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
                let size = payload + if qos == Qos::AtMostOnce { 12 } else { 14 };
                if size <= 20 {
                    assert!(fits);
                    scene.publish_message(message("topic/1", &large, qos), Wait::None);
                    // There is no room for both, so there is no alias.
                    assert_eq!(scene.wire.len(), 20);
                    scene.wire.clear();
                } else {
                    scene.publish_refused(message("topic/1", &large, qos));
                }
            }
        }
        publish_to(scene, &["topic/1"]);
        sent(scene, &[alias(1)]);
    });
}

#[test]
fn a_property_topic_alias_of_the_users_is_left_out() {
    play(&v5(), |scene| {
        scene.open_with(ALLOWS_2);
        for alias in [1, 2, 7] {
            let with = Properties::new().topic_alias(alias);
            let message = message("a/b/c", b"", Qos::AtMostOnce).properties(with);
            scene.publish_message(message, Wait::None);
        }
        sent(scene, &[both("a/b/c", 1), alias(1), alias(1)]);
    });
}

/// What may happen, in a program that publishes.
#[derive(Debug, Clone)]
enum Act {
    /// Publish to this topic at this QoS so often; perhaps as much as the limits allow.
    Publish(usize, Qos, bool, usize),
    /// The transport takes so many bytes and no more; or whatever comes.
    Take(Option<u8>),
    /// The broker answers the oldest message that it has not answered.
    Answer,
    /// The link is lost; the next one has a session or not, and this Topic Alias Maximum.
    Reconnect(bool, u8),
}

fn act() -> impl Strategy<Value = Act> {
    let qos = prop_oneof![
        proptest::strategy::Just(Qos::AtMostOnce),
        proptest::strategy::Just(Qos::AtLeastOnce),
        proptest::strategy::Just(Qos::ExactlyOnce),
    ];
    // A few topics come often, and others seldom; some are too short to have an alias.
    let topic = prop_oneof![4 => 0..6_usize, 2 => 0..40_usize];
    prop_oneof![
        30 => (topic, qos, any::<bool>(), 1..4_usize).prop_map(|(topic, qos, large, times)| {
            Act::Publish(topic, qos, large, times)
        }),
        3 => proptest::option::of(any::<u8>()).prop_map(Act::Take),
        8 => proptest::strategy::Just(Act::Answer),
        1 => (any::<bool>(), 0..8_u8).prop_map(|(present, most)| Act::Reconnect(present, most)),
    ]
}

fn topic(number: usize) -> String {
    match number {
        0 => "t".into(),
        1 => "abcd".into(),
        2 => "abcde".into(),
        number => format!("house/room {number}/temperature"),
    }
}

/// The bytes that a message may have on the connections of the model.
const LARGEST: u8 = 60;

/// Reads what a broker reads, as the standard says: with a table per connection, and nothing else.
#[derive(Default)]
struct Reader {
    most: u16,
    aliases: BTreeMap<u16, String>,
    /// Identifiers of messages that it has to answer, PUBRELs among them.
    owes: VecDeque<[u8; 4]>,
}

impl Reader {
    /// The topics of a stream of packets, with the numbers that stand in the payloads.
    fn read(&mut self, wire: &[u8]) -> Result<(Vec<(u32, String)>, usize), TestCaseError> {
        let mut all = Vec::new();
        let mut used = 0;
        while let Ok(Split::Whole { frame, size }) = codec::split(&wire[used..]) {
            used += size;
            prop_assert!(size <= usize::from(LARGEST) || frame.first == 0x10);
            match codec::decode(Version::V5_0, frame) {
                Ok(Packet::Publish(publish)) => {
                    let topic = match (publish.properties.topic_alias(), publish.topic) {
                        (None, topic) => topic.to_owned(),
                        (Some(alias), topic) => {
                            prop_assert!((1..=self.most).contains(&alias), "alias {}", alias);
                            if !topic.is_empty() {
                                self.aliases.insert(alias, topic.to_owned());
                            }
                            match self.aliases.get(&alias) {
                                Some(topic) => topic.clone(),
                                None => {
                                    return Err(TestCaseError::fail("an alias without a topic"));
                                }
                            }
                        }
                    };
                    if let Some(id) = publish.id {
                        let first = if publish.qos == Qos::AtLeastOnce {
                            0x40
                        } else {
                            0x50
                        };
                        let [high, low] = id.get().to_be_bytes();
                        self.owes.push_back([first, 2, high, low]);
                    }
                    let (number, _) = publish
                        .payload
                        .split_first_chunk()
                        .expect("a number stands in front");
                    all.push((u32::from_be_bytes(*number), topic));
                }
                Ok(Packet::Pubrel(ack)) => {
                    let [high, low] = ack.id.get().to_be_bytes();
                    self.owes.push_back([0x70, 2, high, low]);
                }
                Ok(Packet::Connect(_)) => {}
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
        }
        Ok((all, used))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A naive reader of the bytes sees exactly the topics that were published, whatever is lost.
    #[test]
    fn the_broker_sees_the_topics_that_were_published(
        acts in vec(act(), 1..200),
        own in 0..8_u16,
        first in 0..8_u8,
    ) {
        let config = Config { topic_aliases: own, ..v5() };
        let mut scene = Scene::new(config, Feed::Whole);
        let mut reader = Reader::default();
        let connack = |present: bool, most: u8| {
            [0x20, 0x0b, u8::from(present), 0, 8, 0x22, 0, most, 0x27, 0, 0, 0, LARGEST]
        };
        let mut published: Vec<(String, Qos)> = Vec::new();
        let mut seen: Vec<u32> = Vec::new();
        let mut lost_nothing = true;
        // Bytes of a packet that the transport has not taken whole.
        let mut cut: Vec<u8> = Vec::new();
        scene.open_with(&connack(false, first));
        reader.most = own.min(first.into());
        for act in acts {
            match act {
                Act::Publish(number, qos, large, times) => for _ in 0..times {
                    let topic = topic(number);
                    let mut payload = u32::try_from(published.len()).expect("few").to_be_bytes().to_vec();
                    if large {
                        let fixed = 5 + if qos == Qos::AtMostOnce { 0 } else { 2 };
                        payload.resize(usize::from(LARGEST) - fixed - topic.len(), b'x');
                    }
                    published.push((topic.clone(), qos));
                    scene.publish_message(message(&topic, &payload, qos), Wait::None);
                }
                Act::Take(bytes) => {
                    scene.takes = bytes.map_or(usize::MAX, usize::from);
                    scene.turn();
                }
                Act::Answer => {
                    if let Some(answer) = reader.owes.pop_front() {
                        scene.receive(&answer);
                    }
                }
                Act::Reconnect(present, most) => {
                    lost_nothing = false;
                    scene.cut();
                    scene.wire.clear();
                    cut.clear();
                    reader = Reader {
                        most: own.min(most.into()),
                        ..Reader::default()
                    };
                    scene.open_with(&connack(present, most));
                }
            }
            cut.append(&mut scene.wire);
            let (topics, used) = reader.read(&cut)?;
            cut.drain(..used);
            for (number, topic) in topics {
                let expected = &published[usize::try_from(number).expect("few")];
                prop_assert_eq!(&topic, &expected.0);
                seen.push(number);
            }
        }
        scene.takes = usize::MAX;
        scene.turn();
        cut.append(&mut scene.wire);
        let (topics, used) = reader.read(&cut)?;
        prop_assert_eq!(used, cut.len());
        for (number, topic) in topics {
            prop_assert_eq!(&topic, &published[usize::try_from(number).expect("few")].0);
            seen.push(number);
        }
        if lost_nothing {
            // Everything has come, and each class in its order.
            for qos_0 in [true, false] {
                let is_of_class =
                    |number: &usize| (published[*number].1 == Qos::AtMostOnce) == qos_0;
                let came: Vec<_> = seen.iter().map(|number| *number as usize).filter(is_of_class).collect();
                let expected: Vec<_> = (0..published.len()).filter(is_of_class).collect();
                prop_assert_eq!(came, expected);
            }
        }
        scene.effects.clear();
        scene.protocol.close();
    }
}
