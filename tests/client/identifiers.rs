//! Subscription identifiers that are given automatically, and who gets a message that brings some.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use coracle::testkit::{BrokerOptions, Overlap, Peer, Restart, World};
use coracle::{ErrorKind, Filters, Message, Qos, Session, Subscription, Version, Wait, matches};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::sample::Index;
use proptest::{prop_assert, prop_assert_eq};

use crate::{CONNACK, CONNACK_PRESENT, SECOND, Setup, failure, now, options};

const AT_MOST_ONCE: Qos = Qos::AtMostOnce;

/// Property 0x0B with the first and the second number that are given automatically.
const FIRST: &[u8] = b"\x0b\x80\x80\x01";
const SECOND_ID: &[u8] = b"\x0b\x81\x80\x01";

/// PUBLISH of one byte at QoS 0 with these properties.
fn publish(topic: &str, properties: &[&[u8]], payload: u8) -> Vec<u8> {
    let properties = properties.concat();
    let body = [
        &[0, topic.len() as u8],
        topic.as_bytes(),
        &[properties.len() as u8],
        &properties,
        &[payload],
    ]
    .concat();
    [&[0x30, body.len() as u8], body.as_slice()].concat()
}

/// SUBSCRIBE to filters at QoS 0 with these properties.
fn subscribe(id: u8, properties: &[u8], filters: &[&str]) -> Vec<u8> {
    let mut body = vec![0, id, properties.len() as u8];
    body.extend_from_slice(properties);
    for filter in filters {
        body.extend_from_slice(&[0, filter.len() as u8]);
        body.extend_from_slice(filter.as_bytes());
        body.push(0);
    }
    [&[0x82, body.len() as u8], body.as_slice()].concat()
}

fn filters(names: &[&str]) -> Filters {
    let (first, rest) = names.split_first().expect("there is one");
    rest.iter()
        .fold(Filters::new(*first, AT_MOST_ONCE), |filters, name| {
            filters.and(*name, AT_MOST_ONCE)
        })
}

#[track_caller]
fn open(setup: &Setup, names: &[&str]) -> Subscription {
    now(setup.client.subscribe_many(filters(names), Wait::None)).expect("accepted")
}

fn payloads(stream: &mut Subscription) -> Vec<u8> {
    std::iter::from_fn(|| stream.try_next())
        .map(|message| message.payload()[0])
        .collect()
}

#[test]
fn a_message_goes_where_its_identifiers_say_without_a_look_at_its_topic() {
    let (setup, mut peer) = Setup::connected();
    let mut one = open(&setup, &["a/+"]);
    let mut other = open(&setup, &["a/#"]);
    peer.expect(
        &[
            subscribe(1, FIRST, &["a/+"]),
            subscribe(2, SECOND_ID, &["a/#"]),
        ]
        .concat(),
    );
    peer.send(&publish("a/b", &[FIRST], 1));
    peer.send(&publish("a/b", &[SECOND_ID], 2));
    peer.send(&publish("a/b", &[SECOND_ID, FIRST], 3));
    // Some brokers rewrite topics: then only the identifier tells.
    peer.send(&publish("elsewhere", &[FIRST], 4));
    // One that the user sees among the properties.
    peer.send(&publish("a/b", &[FIRST, b"\x03\0\x01x"], 5));
    assert_eq!(payloads(&mut one), [1, 3, 4, 5]);
    assert_eq!(payloads(&mut other), [2, 3]);
}

#[test]
fn a_message_without_an_identifier_or_with_an_unknown_one_goes_where_its_topic_says() {
    let (setup, mut peer) = Setup::connected();
    let mut one = open(&setup, &["a/+"]);
    let mut other = open(&setup, &["a/#"]);
    peer.received();
    peer.send(&publish("a/b", &[], 1));
    peer.send(&publish("a/b", &[b"\x0b\x07"], 2));
    peer.send(&publish("a/b", &[FIRST, b"\x0b\x07"], 3));
    assert_eq!(payloads(&mut one), [1, 2, 3]);
    assert_eq!(payloads(&mut other), [1, 2, 3]);
}

#[test]
fn filters_of_one_call_share_an_identifier_unless_they_may_match_the_same_topic() {
    let (setup, mut peer) = Setup::connected();
    let mut stream = open(&setup, &["a", "b", "+", "c/#", "c", "d"]);
    peer.expect(
        &[
            subscribe(1, FIRST, &["a", "b"]),
            subscribe(2, SECOND_ID, &["+"]),
            subscribe(3, b"\x0b\x82\x80\x01", &["c/#"]),
            subscribe(4, b"\x0b\x83\x80\x01", &["c", "d"]),
        ]
        .concat(),
    );
    // Each copy that the broker sends arrives.
    peer.send(&publish("a", &[FIRST], 1));
    peer.send(&publish("a", &[SECOND_ID], 1));
    peer.send(&publish("a", &[SECOND_ID, FIRST], 2));
    assert_eq!(payloads(&mut stream), [1, 1, 2]);
}

#[test]
fn a_second_handle_of_a_filter_keeps_its_identifier() {
    let (setup, mut peer) = Setup::connected();
    let mut one = open(&setup, &["a", "b"]);
    let mut other = open(&setup, &["b", "c"]);
    peer.expect(
        &[
            subscribe(1, FIRST, &["a", "b"]),
            subscribe(2, FIRST, &["b"]),
            subscribe(3, SECOND_ID, &["c"]),
        ]
        .concat(),
    );
    // The two filters of the first have different handles now, so the topic decides between them.
    peer.send(&publish("a", &[FIRST], 1));
    peer.send(&publish("b", &[FIRST], 2));
    peer.send(&publish("c", &[SECOND_ID], 3));
    assert_eq!(payloads(&mut one), [1, 2]);
    assert_eq!(payloads(&mut other), [2, 3]);
    // Alike again.
    drop(other);
    peer.expect(b"\xa2\x06\0\x04\0\0\x01c");
    peer.send(&publish("elsewhere", &[FIRST], 4));
    assert_eq!(payloads(&mut one), [4]);
}

#[test]
fn what_is_on_its_way_for_an_ended_filter_reaches_neither_its_neighbours_nor_the_next_subscription()
{
    // MQTT 5, section 3.10.4: the server may deliver what it has begun to.
    let (setup, mut peer) = Setup::connected();
    let mut neighbour = open(&setup, &["a", "b"]);
    drop(setup.client.unsubscribe("a", Wait::None));
    let gone = open(&setup, &["c"]);
    drop(gone);
    let mut next = open(&setup, &["d"]);
    peer.received();
    peer.send(&publish("a", &[FIRST], 1));
    peer.send(&publish("c", &[SECOND_ID], 2));
    peer.send(&publish("b", &[FIRST], 3));
    peer.send(&publish("d", &[b"\x0b\x82\x80\x01"], 4));
    assert_eq!(payloads(&mut neighbour), [3]);
    assert_eq!(payloads(&mut next), [4]);
    assert_eq!(setup.client.statistics().unmatched, 2);
}

#[test]
fn a_late_message_does_not_reach_the_next_filter_with_the_same_number_of_the_programs() {
    let (setup, mut peer) = Setup::connected();
    let given = |filter: &str| {
        let filters = Filters::new(filter, Qos::AtMostOnce).identifier(5);
        now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted")
    };
    drop(given("a"));
    let mut next = given("b");
    peer.received();
    peer.send(&publish("a", &[b"\x0b\x05"], 1));
    peer.send(&publish("b", &[b"\x0b\x05"], 2));
    assert_eq!(payloads(&mut next), [2]);
    assert_eq!(setup.client.statistics().unmatched, 1);
}

#[test]
fn an_inline_handler_is_found_by_its_identifier_too() {
    let (setup, mut peer) = Setup::connected();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let record = Rc::clone(&seen);
    let _handle = now(setup.client.subscribe_inline(
        ("a", AT_MOST_ONCE),
        move |message| record.borrow_mut().push(message.payload()[0]),
        Wait::None,
    ));
    peer.received();
    peer.send(&publish("elsewhere", &[FIRST], 1));
    peer.send(&publish("a", &[], 2));
    assert_eq!(*seen.borrow(), [1, 2]);
}

#[test]
fn where_the_broker_knows_no_identifiers_none_is_sent_and_the_topic_decides() {
    let setup = Setup::with_peers();
    let mut stream = open(&setup, &["a"]);
    // Subscription Identifiers Available 0
    let mut peer = setup.greet(b"\x20\x05\0\0\x02\x29\0");
    peer.expect(&subscribe(1, b"", &["a"]));
    peer.send(&publish("a", &[], 1));
    // It sends one all the same: nobody is found by it.
    peer.send(&publish("elsewhere", &[FIRST], 2));
    assert_eq!(payloads(&mut stream), [1]);
    peer.send(b"\x90\x04\0\x01\0\0");
    peer.reset();
    // Another broker of the cluster knows them, but the subscription has none: it is not named.
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    let mut other = open(&setup, &["#"]);
    peer.expect(&subscribe(2, SECOND_ID, &["#"]));
    peer.send(&publish("a", &[SECOND_ID], 3));
    assert_eq!(payloads(&mut stream), [3]);
    assert_eq!(payloads(&mut other), [3]);
    peer.send(b"\x90\x04\0\x02\0\0");
    peer.reset();
    // With a new session both have.
    let mut peer = setup.greet_later(CONNACK);
    peer.expect(&[subscribe(3, SECOND_ID, &["#"]), subscribe(4, FIRST, &["a"])].concat());
    peer.send(&publish("a", &[SECOND_ID], 4));
    peer.send(&publish("a", &[FIRST], 5));
    assert_eq!(payloads(&mut stream), [5]);
    assert_eq!(payloads(&mut other), [4]);
}

#[test]
fn a_subscription_made_while_none_was_known_is_not_forgotten_beside_one_that_has_one() {
    let (setup, mut peer) = Setup::connected();
    let mut one = open(&setup, &["a"]);
    peer.expect(&subscribe(1, FIRST, &["a"]));
    peer.send(b"\x90\x04\0\x01\0\0");
    peer.reset();
    // The session goes on at a part of the cluster that knows none: Subscription Identifiers Available 0.
    let mut peer = setup.greet_later(b"\x20\x05\x01\0\x02\x29\0");
    let mut other = open(&setup, &["+"]);
    peer.expect(&subscribe(2, b"", &["+"]));
    peer.send(b"\x90\x04\0\x02\0\0");
    peer.reset();
    // And back. One copy for both, which can only name the first.
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    peer.send(&publish("a", &[FIRST], 1));
    assert_eq!(payloads(&mut one), [1]);
    assert_eq!(payloads(&mut other), [1]);
}

#[test]
fn identifiers_in_a_session_of_an_earlier_process_are_not_believed() {
    let world = World::with_peers();
    let options = options(&world).session(Session::Resume);
    let setup = Setup::start(world, options);
    let mut stream = open(&setup, &["a"]);
    // The earlier process gave its first number to another filter.
    let mut peer = setup.greet(CONNACK_PRESENT);
    peer.expect(&subscribe(1, FIRST, &["a"]));
    peer.send(&publish("old", &[FIRST], 1));
    peer.send(&publish("a", &[SECOND_ID], 2));
    peer.send(&publish("a", &[FIRST], 3));
    peer.send(b"\x90\x04\0\x01\0\0");
    assert_eq!(payloads(&mut stream), [2, 3]);
    assert_eq!(setup.client.statistics().unmatched, 1);
    // Once that session is lost they are.
    peer.reset();
    let mut peer = setup.greet_later(CONNACK);
    peer.expect(&subscribe(2, FIRST, &["a"]));
    peer.send(&publish("elsewhere", &[FIRST], 4));
    assert_eq!(payloads(&mut stream), [4]);
}

#[test]
fn an_identifier_of_the_users_is_kept_and_none_of_ours_is_taken() {
    let (setup, mut peer) = Setup::connected();
    let given = |name: &str, number| Filters::new(name, AT_MOST_ONCE).identifier(number);
    let client = &setup.client;
    let mut one = now(client.subscribe_many(given("a", 5), Wait::None)).expect("accepted");
    let mut other = now(client.subscribe_many(given("+", 5), Wait::None)).expect("accepted");
    let _automatic = open(&setup, &["b"]);
    peer.expect(
        &[
            subscribe(1, b"\x0b\x05", &["a"]),
            subscribe(2, b"\x0b\x05", &["+"]),
            subscribe(3, FIRST, &["b"]),
        ]
        .concat(),
    );
    peer.send(&publish("a", &[b"\x0b\x05"], 1));
    peer.send(&publish("c", &[b"\x0b\x05"], 2));
    assert_eq!(payloads(&mut one), [1]);
    assert_eq!(payloads(&mut other), [1, 2]);
    let error = failure(now(client.subscribe_many(given("d", 16_384), Wait::None)));
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
    // Who has the filter with an automatic one has other options.
    let error = failure(now(client.subscribe_many(given("b", 6), Wait::None)));
    assert!(matches!(error.kind(), ErrorKind::Conflict(_)), "{error}");
    // Ours go around what is the user's.
    let _taken = now(client.subscribe_many(given("e", 16_385), Wait::None)).expect("accepted");
    let _next = open(&setup, &["f"]);
    peer.expect(
        &[
            subscribe(4, SECOND_ID, &["e"]),
            subscribe(5, b"\x0b\x82\x80\x01", &["f"]),
        ]
        .concat(),
    );
}

#[test]
fn switched_off_none_is_sent_and_the_topic_decides() {
    let world = World::with_peers();
    let options = options(&world).subscription_identifiers(false);
    let setup = Setup::start(world, options);
    let mut one = open(&setup, &["a"]);
    let given = Filters::new("+", AT_MOST_ONCE).identifier(5);
    let mut other = now(setup.client.subscribe_many(given, Wait::None)).expect("accepted");
    let mut peer = setup.greet(CONNACK);
    peer.expect(&[subscribe(1, b"", &["a"]), subscribe(2, b"\x0b\x05", &["+"])].concat());
    // For both, perhaps: the first has nothing that it could be named by.
    peer.send(&publish("a", &[b"\x0b\x05"], 1));
    assert_eq!(payloads(&mut one), [1]);
    assert_eq!(payloads(&mut other), [1]);
}

#[test]
fn before_5_there_are_none() {
    let world = World::with_peers();
    let options = options(&world).version(Version::V3_1_1);
    let setup = Setup::start(world, options);
    let _stream = open(&setup, &["a"]);
    let mut peer: Peer = setup.greet(crate::CONNACK_3);
    peer.expect(b"\x82\x06\0\x01\0\x01a\0");
}

// A broker, any filters and handles, and a model that knows nothing of groups and trees.

const FILTERS: [&str; 24] = [
    "a",
    "b",
    "a/b",
    "a/+",
    "a/#",
    "+/b",
    "#",
    "+",
    "b/#",
    "a/b/c",
    "$share/g/a/+",
    "$share/g/#",
    "$share/h/a/b",
    "c1",
    "c2",
    "c3",
    "c4",
    "c5",
    "c6",
    "c7",
    "c8",
    "c9",
    "d/#",
    "d/+",
];
const TOPICS: [&str; 9] = [
    "a",
    "b",
    "a/b",
    "a/b/c",
    "b/x",
    "c1",
    "c5",
    "c9",
    "d/long enough",
];

#[derive(Debug, Clone)]
enum Act {
    Subscribe(BTreeSet<usize>, Option<u32>),
    Drop(Index),
    Unsubscribe(usize),
    Publish(usize, Qos, bool),
    Restart(Restart),
}

fn act() -> impl Strategy<Value = Act> {
    let qos = prop_oneof![
        Just(Qos::AtMostOnce),
        Just(Qos::AtLeastOnce),
        Just(Qos::ExactlyOnce)
    ];
    let some = prop_oneof![
        4 => btree_set(0..FILTERS.len(), 1..4),
        1 => btree_set(0..FILTERS.len(), 9..16),
    ];
    let restart = prop_oneof![Just(Restart::KeepSessions), Just(Restart::ForgetSessions)];
    prop_oneof![
        6 => (some, option::weighted(0.15, 1..3_u32)).prop_map(|(some, id)| Act::Subscribe(some, id)),
        3 => any::<Index>().prop_map(Act::Drop),
        1 => (0..FILTERS.len()).prop_map(Act::Unsubscribe),
        12 => (0..TOPICS.len(), qos, any::<bool>())
            .prop_map(|(topic, qos, retain)| Act::Publish(topic, qos, retain)),
        1 => restart.prop_map(Act::Restart),
    ]
}

/// A handle, the filters that it has, and what it has to get.
struct Handle {
    stream: Subscription,
    filters: BTreeSet<&'static str>,
    due: Vec<u8>,
}

struct Model {
    overlap: Overlap,
    /// Whether the broker knows identifiers, and whether every filter gets one.
    offered: bool,
    automatic: bool,
    handles: Vec<Handle>,
    /// What the broker holds, with the identifiers of the user.
    filters: BTreeMap<&'static str, Option<u32>>,
    retained: BTreeMap<&'static str, u8>,
}

fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

impl Model {
    /// One copy arrives, on behalf of these filters.
    fn copy(&mut self, topic: &str, payload: u8, behalf: &[&str]) {
        let numbered = |given: &Option<u32>| self.automatic || given.is_some();
        let named = self.offered && self.filters.values().all(numbered);
        let is_meant = |filter: &str| {
            let same_number = behalf.iter().any(|other| {
                let (one, other) = (self.filters[filter], self.filters[*other]);
                one.is_some() && one == other
            });
            matches(filter, topic) && (!named || behalf.contains(&filter) || same_number)
        };
        for handle in &mut self.handles {
            if handle.filters.iter().any(|filter| is_meant(filter)) {
                handle.due.push(payload);
            }
        }
    }

    /// A message is published: one copy for all filters or for each; shared ones are apart anyway.
    fn publish(&mut self, topic: &str, payload: u8) {
        let all = self.filters.keys().copied();
        let (shared, plain): (Vec<_>, Vec<_>) = all
            .filter(|filter| matches(filter, topic))
            .partition(|filter| is_shared(filter));
        match self.overlap {
            Overlap::OneCopy if plain.is_empty() => {}
            Overlap::OneCopy => self.copy(topic, payload, &plain),
            Overlap::CopyEach => plain
                .iter()
                .for_each(|one| self.copy(topic, payload, &[one])),
        }
        shared
            .iter()
            .for_each(|one| self.copy(topic, payload, &[one]));
    }

    /// The broker sees a SUBSCRIBE with this filter: it sends what it has kept.
    fn subscribed(&mut self, filter: &str) {
        if is_shared(filter) {
            return;
        }
        for (topic, payload) in self.retained.clone() {
            if matches(filter, topic) {
                self.copy(topic, payload, &[filter]);
            }
        }
    }

    /// What nobody has is unsubscribed.
    fn tidy(&mut self) {
        let handles = &self.handles;
        let is_had = |filter: &str| handles.iter().any(|handle| handle.filters.contains(filter));
        self.filters.retain(|filter, _| is_had(filter));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn each_stream_gets_each_copy_that_is_meant_for_it_once(
        acts in vec(act(), 1..60),
        each in any::<bool>(),
        offered in proptest::bool::weighted(0.8),
        automatic in proptest::bool::weighted(0.8),
    ) {
        let overlap = if each { Overlap::CopyEach } else { Overlap::OneCopy };
        let broker = BrokerOptions::new()
            .overlap(overlap)
            .subscription_identifiers(offered)
            .topic_alias_maximum(2)
            .send_topic_aliases(2);
        let world = World::new(broker);
        let options = options(&world).subscription_identifiers(automatic);
        let setup = Setup::start(world, options);
        let client = &setup.client;
        prop_assert!(setup.wait(client.connected()).is_ok());
        let mut model = Model {
            overlap,
            offered,
            automatic,
            handles: Vec::new(),
            filters: BTreeMap::new(),
            retained: BTreeMap::new(),
        };
        let mut topics = BTreeMap::new();
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Subscribe(some, given) => {
                    let given = given.filter(|_| offered);
                    let names: Vec<_> = some.iter().map(|index| FILTERS[*index]).collect();
                    let mut wanted = filters(&names);
                    if let Some(given) = given {
                        wanted = wanted.identifier(given);
                    }
                    let conflict = names.iter().any(|name| {
                        model.filters.get(name).is_some_and(|other| *other != given)
                    });
                    let subscribed = setup.wait(client.subscribe_many(wanted, Wait::Ack));
                    prop_assert_eq!(subscribed.is_err(), conflict);
                    if let Ok(stream) = subscribed {
                        for name in &names {
                            model.filters.insert(name, given);
                        }
                        let filters = names.iter().copied().collect();
                        model.handles.push(Handle { stream, filters, due: Vec::new() });
                        names.iter().for_each(|name| model.subscribed(name));
                    }
                }
                Act::Drop(index) => {
                    if !model.handles.is_empty() {
                        model.handles.swap_remove(index.index(model.handles.len()));
                        model.tidy();
                    }
                }
                Act::Unsubscribe(index) => {
                    let name = FILTERS[index];
                    prop_assert!(setup.wait(client.unsubscribe(name, Wait::Ack)).is_ok());
                    for handle in &mut model.handles {
                        handle.filters.remove(name);
                    }
                    model.tidy();
                }
                Act::Publish(index, qos, retain) => {
                    let (topic, payload) = (TOPICS[index], number as u8);
                    topics.insert(payload, topic);
                    let message = Message::new(topic, &[payload]).qos(qos).retain(retain);
                    prop_assert!(setup.wait(client.publish_message(message, Wait::Ack)).is_ok());
                    if retain {
                        model.retained.insert(topic, payload);
                    }
                    model.publish(topic, payload);
                }
                Act::Restart(sessions) => {
                    setup.world.broker(|broker, now| broker.restart(now, sessions));
                    setup.world.run_until_idle();
                    while !client.is_connected() {
                        setup.world.advance(SECOND);
                    }
                    if sessions == Restart::ForgetSessions {
                        let all: Vec<_> = model.filters.keys().copied().collect();
                        all.iter().for_each(|name| model.subscribed(name));
                    }
                }
            }
            setup.world.run_until_idle();
            for handle in &mut model.handles {
                let mut got = Vec::new();
                while let Some(message) = handle.stream.try_next() {
                    let [payload] = message.payload() else { panic!("one byte") };
                    prop_assert_eq!(topics.get(payload), Some(&message.topic()));
                    got.push(*payload);
                }
                got.sort_unstable();
                handle.due.sort_unstable();
                prop_assert_eq!(&got, &handle.due, "{:?}", handle.filters);
                handle.due.clear();
            }
            setup.world.run_until_idle();
        }
        let violations = setup.world.broker(|broker, _| broker.violations().len());
        prop_assert_eq!(violations, 0);
    }
}
