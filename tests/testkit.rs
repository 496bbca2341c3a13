//! The test kit tested: bytes into the broker, bytes out of it.

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_io::Async;
use coracle::testkit::{
    Attempt, AuthReply, Broker, BrokerOptions, Cut, Direction, FakeClock, Kind, LinkId, Network,
    Overlap, Peer, Recording, Restart, Rule, Server, Then, When, World,
};
use coracle::{BoxedTransport, Clock, Message, Properties, Qos, Reason, Version};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use smol::{LocalExecutor, block_on};

const CONNECT_3_1: &[u8] = b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01a";
/// 3.1.1, CleanSession 1, no keep-alive, clients "a" and "b".
const CONNECT_A: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
const CONNECT_B: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01b";
/// CleanSession 0.
const RESUME_A: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x00\x00\x01a";
/// 5.0, Clean Start 1.
const V5_A: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01a";
const V5_B: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01b";
/// 5.0, Clean Start 0, Session Expiry Interval 100 s.
const V5_RESUME_A: &[u8] = b"\x10\x13\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x00\x64\x00\x01a";

const CONNACK: &[u8] = b"\x20\x02\x00\x00";
const CONNACK_PRESENT: &[u8] = b"\x20\x02\x01\x00";
const V5_CONNACK: &[u8] = b"\x20\x03\x00\x00\x00";
const V5_CONNACK_PRESENT: &[u8] = b"\x20\x03\x01\x00\x00";
const DISCONNECT: &[u8] = b"\xe0\x00";

/// SUBSCRIBE "t" with QoS 0, 1, 2 (3.1.1) and the answers.
const SUBSCRIBE: [&[u8]; 3] = [
    b"\x82\x06\x00\x01\x00\x01t\x00",
    b"\x82\x06\x00\x01\x00\x01t\x01",
    b"\x82\x06\x00\x01\x00\x01t\x02",
];
const V5_SUBSCRIBE: [&[u8]; 3] = [
    b"\x82\x07\x00\x01\x00\x00\x01t\x00",
    b"\x82\x07\x00\x01\x00\x00\x01t\x01",
    b"\x82\x07\x00\x01\x00\x00\x01t\x02",
];

/// A broker without a transport, and a clock.
struct Bench {
    broker: Broker,
    clock: FakeClock,
}

impl Bench {
    fn new(options: BrokerOptions) -> Self {
        Self {
            broker: Broker::new(options),
            clock: FakeClock::new(),
        }
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Opens a link, sends `connect` and checks the answer.
    #[track_caller]
    fn connect(&mut self, connect: &[u8], answer: &[u8]) -> LinkId {
        let link = self.broker.open();
        self.exchange(link, connect, answer);
        link
    }

    fn send(&mut self, link: LinkId, bytes: &[u8]) {
        self.broker.handle_bytes(link, self.clock.now(), bytes);
    }

    #[track_caller]
    fn expect(&mut self, link: LinkId, expected: &[u8]) {
        let actual = self.broker.take_output(link);
        assert_eq!(
            actual,
            expected,
            "actual \"{}\", expected \"{}\"",
            actual.escape_ascii(),
            expected.escape_ascii()
        );
    }

    #[track_caller]
    fn exchange(&mut self, link: LinkId, bytes: &[u8], answer: &[u8]) {
        self.send(link, bytes);
        self.expect(link, answer);
    }

    fn advance(&mut self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.broker.handle_timeout(self.clock.now());
    }

    fn lose(&mut self, link: LinkId) {
        self.broker.handle_closed(link, self.clock.now());
    }

    fn publish(&mut self, message: Message) {
        self.broker.publish(self.clock.now(), &message);
    }

    #[track_caller]
    fn expect_violation(&mut self, link: LinkId, clause: &str, goodbye: &[u8]) {
        self.expect(link, goodbye);
        assert!(self.broker.is_closed(link));
        let clauses: Vec<_> = self
            .broker
            .violations()
            .iter()
            .map(|(_, violation)| violation.clause)
            .collect();
        assert_eq!(clauses, [clause]);
    }
}

fn bench() -> Bench {
    Bench::new(BrokerOptions::new())
}

fn message(qos: Qos) -> Message {
    Message::new("t", "x").qos(qos)
}

// Connecting.

#[test]
fn every_version_is_let_in() {
    let mut bench = bench();
    bench.connect(CONNECT_3_1, CONNACK);
    bench.connect(CONNECT_B, CONNACK);
    bench.connect(V5_A, V5_CONNACK);
    assert_eq!(bench.broker.clients(), ["a", "b"]);
    assert_eq!(bench.broker.connects(), 3);
}

#[test]
fn packets_may_come_in_single_bytes() {
    let mut bench = bench();
    let link = bench.broker.open();
    for byte in CONNECT_A
        .iter()
        .chain(b"\xc0\x00\x30\x04\x00\x01tx\xc0\x00")
    {
        bench.send(link, &[*byte]);
    }
    bench.expect(link, b"\x20\x02\x00\x00\xd0\x00\xd0\x00");
    assert_eq!(bench.broker.messages()[0].payload(), b"x");
}

// [MQTT-3.1.0-1], [MQTT-3.14.0-1]: nothing is said before CONNACK.
#[test]
fn a_first_packet_that_is_not_connect_ends_the_link() {
    let mut bench = bench();
    let link = bench.broker.open();
    bench.send(link, b"\xc0\x00");
    bench.expect_violation(link, "MQTT-3.1.0-1", b"");
}

// [MQTT-3.1.0-2]
#[test]
fn a_second_connect_ends_the_link() {
    let mut bench = bench();
    let link = bench.connect(V5_A, V5_CONNACK);
    bench.send(link, V5_A);
    bench.expect_violation(link, "MQTT-3.1.0-2", b"\xe0\x01\x82");
}

#[test]
fn an_unsupported_version_is_refused_in_the_form_of_3_1_1() {
    let mut bench = Bench::new(BrokerOptions::new().versions(&[Version::V3_1_1]));
    let link = bench.connect(V5_A, b"\x20\x02\x00\x01");
    assert!(bench.broker.is_closed(link));
    bench.connect(CONNECT_A, CONNACK);
}

#[test]
fn an_unknown_version_is_refused_with_0x84() {
    let mut bench = bench();
    let link = bench.connect(
        b"\x10\x0e\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x01a",
        b"\x20\x03\x00\x84\x00",
    );
    assert!(bench.broker.is_closed(link));
}

#[test]
fn a_refusal_in_the_options_holds_for_everybody() {
    let mut bench = Bench::new(BrokerOptions::new().refuse(Reason::SERVER_UNAVAILABLE));
    bench.connect(CONNECT_A, b"\x20\x02\x00\x03");
    let link = bench.connect(V5_A, b"\x20\x03\x00\x88\x00");
    assert!(bench.broker.is_closed(link));
    assert!(bench.broker.sessions().is_empty());
}

#[test]
fn wrong_credentials_are_refused() {
    let mut bench = Bench::new(BrokerOptions::new().credentials("u", "p"));
    bench.connect(CONNECT_A, b"\x20\x02\x00\x04");
    bench.connect(V5_A, b"\x20\x03\x00\x86\x00");
    bench.connect(
        b"\x10\x13\x00\x04MQTT\x04\xc2\x00\x00\x00\x01a\x00\x01u\x00\x01p",
        CONNACK,
    );
}

// [MQTT-3.1.3-6/-7] and [MQTT-3.1.3-8] of 3.1.1.
#[test]
fn an_empty_client_id_gets_one_where_the_version_allows_it() {
    let mut bench = bench();
    bench.connect(
        b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00",
        b"\x20\x10\x00\x00\x0d\x12\x00\x0aassigned-1",
    );
    bench.connect(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00", CONNACK);
    assert_eq!(bench.broker.clients(), ["assigned-1", "assigned-2"]);
    bench.connect(
        b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00",
        b"\x20\x02\x00\x02",
    );
    bench.connect(
        b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00",
        b"\x20\x02\x00\x02",
    );
}

// [MQTT-3.1.4-3]
#[test]
fn a_second_connection_takes_over_from_the_first() {
    let mut bench = bench();
    let first = bench.connect(V5_A, V5_CONNACK);
    let second = bench.connect(V5_A, V5_CONNACK);
    bench.expect(first, b"\xe0\x01\x8e");
    assert!(bench.broker.is_closed(first));
    assert_eq!(bench.broker.link_of("a"), Some(second));
    // The transport's report about the first link does not touch the second.
    bench.lose(first);
    bench.exchange(second, b"\xc0\x00", b"\xd0\x00");
}

#[test]
fn connack_announces_what_the_options_limit() {
    let mut bench = Bench::new(
        BrokerOptions::new()
            .receive_maximum(3)
            .maximum_qos(Qos::AtLeastOnce)
            .retain_available(false)
            .maximum_packet_size(100)
            .topic_alias_maximum(2)
            .server_keep_alive(30)
            .session_expiry(Duration::from_secs(60))
            .wildcard_subscriptions(false)
            .subscription_identifiers(false)
            .shared_subscriptions(false),
    );
    bench.connect(
        V5_A,
        b"\x20\x20\x00\x00\x1d\x21\x00\x03\x24\x01\x25\x00\x27\x00\x00\x00\x64\x22\x00\x02\
          \x13\x00\x1e\x11\x00\x00\x00\x3c\x28\x00\x29\x00\x2a\x00",
    );
    // 3.1.1 has no way to say it.
    bench.connect(CONNECT_B, CONNACK);
}

// [MQTT-3.1.2-22]
#[test]
fn silence_for_one_and_a_half_keep_alives_ends_the_link() {
    let mut bench = bench();
    let link = bench.connect(
        b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x01a",
        V5_CONNACK,
    );
    bench.advance(14);
    bench.exchange(link, b"\xc0\x00", b"\xd0\x00");
    bench.advance(14);
    assert!(!bench.broker.is_closed(link));
    bench.advance(1);
    bench.expect(link, b"\xe0\x01\x8d");
    assert!(bench.broker.is_closed(link));
}

#[test]
fn a_server_keep_alive_replaces_the_clients_own() {
    let mut bench = Bench::new(BrokerOptions::new().server_keep_alive(2));
    let link = bench.connect(V5_A, b"\x20\x06\x00\x00\x03\x13\x00\x02");
    assert!(bench.broker.poll_timeout().is_some());
    bench.advance(3);
    assert!(bench.broker.is_closed(link));
}

// [MQTT-4.12.0-1/-2/-5]
#[test]
fn an_authentication_goes_through_its_challenges() {
    let options = BrokerOptions::new().authentication("M", ["1", "2"]);
    let mut bench = Bench::new(options);
    let link = bench.broker.open();
    bench.exchange(
        link,
        b"\x10\x12\x00\x04MQTT\x05\x02\x00\x00\x04\x15\x00\x01M\x00\x01a",
        b"\xf0\x0a\x18\x08\x15\x00\x01M\x16\x00\x011",
    );
    let answer = b"\xf0\x0a\x18\x08\x15\x00\x01M\x16\x00\x01x";
    bench.exchange(link, answer, b"\xf0\x0a\x18\x08\x15\x00\x01M\x16\x00\x012");
    assert!(!bench.broker.is_connected("a"));
    bench.exchange(link, answer, b"\x20\x07\x00\x00\x04\x15\x00\x01M");
    assert!(bench.broker.is_connected("a"));
    // Re-authentication begins with 0x19 and ends with 0x00.
    let again = b"\xf0\x06\x19\x04\x15\x00\x01M";
    bench.exchange(link, again, b"\xf0\x0a\x18\x08\x15\x00\x01M\x16\x00\x011");
    bench.exchange(link, answer, b"\xf0\x0a\x18\x08\x15\x00\x01M\x16\x00\x012");
    bench.exchange(link, answer, b"\xf0\x06\x00\x04\x15\x00\x01M");
    // Another method is not known.
    bench.connect(
        b"\x10\x12\x00\x04MQTT\x05\x02\x00\x00\x04\x15\x00\x01N\x00\x01a",
        b"\x20\x03\x00\x8c\x00",
    );
}

// [MQTT-4.12.0-4], [MQTT-4.12.1-2]
#[test]
fn an_authentication_that_is_played_says_what_it_is_told_to() {
    let options = BrokerOptions::new().play_authentication("M", || {
        let mut round = 0;
        move |data: &[u8]| {
            round += 1;
            match (round, data) {
                (1, b"1") => AuthReply::Challenge(b"2".to_vec()),
                (2, b"3") => AuthReply::Accept(b"4".to_vec()),
                _ => AuthReply::Refuse(Reason::NOT_AUTHORIZED),
            }
        }
    });
    let mut bench = Bench::new(options);
    let connect = b"\x10\x16\x00\x04MQTT\x05\x02\x00\x00\x08\x15\x00\x01M\x16\x00\x011\x00\x01a";
    let challenge = b"\xf0\x0a\x18\x08\x15\x00\x01M\x16\x00\x012";
    let right = b"\xf0\x0a\x18\x08\x15\x00\x01M\x16\x00\x013";
    let wrong = b"\xf0\x0a\x18\x08\x15\x00\x01M\x16\x00\x01x";
    let link = bench.broker.open();
    bench.exchange(link, connect, challenge);
    bench.exchange(link, wrong, b"\x20\x03\x00\x87\x00");
    assert!(bench.broker.is_closed(link));
    let link = bench.broker.open();
    bench.exchange(link, connect, challenge);
    bench.exchange(
        link,
        right,
        b"\x20\x0b\x00\x00\x08\x15\x00\x01M\x16\x00\x014",
    );
    // Each exchange begins anew.
    let again = b"\xf0\x0a\x19\x08\x15\x00\x01M\x16\x00\x011";
    bench.exchange(link, again, challenge);
    bench.exchange(link, right, b"\xf0\x0a\x00\x08\x15\x00\x01M\x16\x00\x014");
    bench.exchange(link, again, challenge);
    bench.exchange(link, wrong, b"\xe0\x01\x87");
    assert!(bench.broker.is_closed(link));
    assert!(bench.broker.violations().is_empty());
}

// Publishing to the broker.

#[test]
fn each_qos_is_answered_as_it_should_be() {
    let mut bench = bench();
    let link = bench.connect(CONNECT_A, CONNACK);
    bench.exchange(link, b"\x30\x04\x00\x01tx", b"");
    bench.exchange(link, b"\x32\x06\x00\x01t\x00\x01x", b"\x40\x02\x00\x01");
    bench.exchange(link, b"\x34\x06\x00\x01t\x00\x02x", b"\x50\x02\x00\x02");
    // [MQTT-4.3.3-10]: a repetition is not taken twice.
    bench.exchange(link, b"\x3c\x06\x00\x01t\x00\x02x", b"\x50\x02\x00\x02");
    bench.exchange(link, b"\x62\x02\x00\x02", b"\x70\x02\x00\x02");
    // [MQTT-4.3.3-12]: now it is a new message.
    bench.exchange(link, b"\x34\x06\x00\x01t\x00\x02y", b"\x50\x02\x00\x02");
    let broker = &bench.broker;
    assert_eq!(
        [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce].map(|qos| broker.received(qos)),
        [1, 1, 2]
    );
    assert_eq!(broker.messages()[3].payload(), b"y");
    assert_eq!(broker.messages()[3].client(), "a");
}

#[test]
fn on_5_0_the_answers_say_whether_anybody_subscribes() {
    let mut bench = bench();
    let link = bench.connect(V5_A, V5_CONNACK);
    bench.exchange(
        link,
        b"\x32\x07\x00\x01t\x00\x01\x00x",
        b"\x40\x03\x00\x01\x10",
    );
    let other = bench.connect(V5_B, V5_CONNACK);
    bench.exchange(other, V5_SUBSCRIBE[0], b"\x90\x04\x00\x01\x00\x00");
    bench.exchange(link, b"\x32\x07\x00\x01t\x00\x02\x00x", b"\x40\x02\x00\x02");
    // An unknown PUBREL is answered with 0x92.
    bench.exchange(link, b"\x62\x02\x00\x09", b"\x70\x03\x00\x09\x92");
}

#[test]
fn what_is_denied_is_refused() {
    let mut bench = Bench::new(BrokerOptions::new().deny("t"));
    let link = bench.connect(V5_A, V5_CONNACK);
    bench.exchange(link, V5_SUBSCRIBE[1], b"\x90\x04\x00\x01\x00\x87");
    bench.exchange(
        link,
        b"\x32\x07\x00\x01t\x00\x01\x00x",
        b"\x40\x03\x00\x01\x87",
    );
    bench.exchange(
        link,
        b"\x34\x07\x00\x01t\x00\x01\x00x",
        b"\x50\x03\x00\x01\x87",
    );
    let older = bench.connect(CONNECT_B, CONNACK);
    bench.exchange(older, SUBSCRIBE[1], b"\x90\x03\x00\x01\x80");
    assert!(bench.broker.messages().is_empty());
    assert!(bench.broker.subscriptions("a").is_empty());
}

// [MQTT-3.3.4-7], [MQTT-3.3.4-9 of the client's side]
#[test]
fn a_client_above_the_receive_maximum_is_disconnected() {
    let mut bench = Bench::new(BrokerOptions::new().receive_maximum(1));
    let link = bench.connect(V5_A, b"\x20\x06\x00\x00\x03\x21\x00\x01");
    // PUBCOMP gives the quota back.
    bench.exchange(
        link,
        b"\x34\x07\x00\x01t\x00\x01\x00x",
        b"\x50\x03\x00\x01\x10",
    );
    bench.exchange(link, b"\x62\x02\x00\x01", b"\x70\x02\x00\x01");
    bench.exchange(
        link,
        b"\x34\x07\x00\x01t\x00\x02\x00x",
        b"\x50\x03\x00\x02\x10",
    );
    bench.send(link, b"\x32\x07\x00\x01t\x00\x03\x00x");
    bench.expect_violation(link, "MQTT-3.3.4-7", b"\xe0\x01\x93");
}

#[test]
fn a_packet_above_the_maximum_size_is_refused_by_its_header() {
    let mut bench = Bench::new(BrokerOptions::new().maximum_packet_size(20));
    let link = bench.connect(V5_A, b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x14");
    bench.exchange(link, b"\x30\x12\x00\x01t\x0012345678901234", b"");
    bench.send(link, b"\x30\x13");
    bench.expect_violation(link, "MQTT-3.2.2-15", b"\xe0\x01\x95");
}

#[test]
fn a_topic_alias_stands_for_its_topic() {
    let mut bench = Bench::new(BrokerOptions::new().topic_alias_maximum(1));
    let link = bench.connect(V5_A, b"\x20\x06\x00\x00\x03\x22\x00\x01");
    bench.send(link, b"\x30\x08\x00\x01t\x03\x23\x00\x01x");
    bench.send(link, b"\x30\x07\x00\x00\x03\x23\x00\x01y");
    let messages = bench.broker.messages();
    assert_eq!(messages[1].topic(), "t");
    assert_eq!(messages[1].payload(), b"y");
    bench.send(link, b"\x30\x08\x00\x01t\x03\x23\x00\x02x");
    bench.expect_violation(link, "MQTT-3.3.2-9", b"\xe0\x01\x94");
}

#[test]
fn what_connack_did_not_offer_is_a_violation() {
    let limited = || {
        BrokerOptions::new()
            .maximum_qos(Qos::AtMostOnce)
            .retain_available(false)
            .wildcard_subscriptions(false)
            .shared_subscriptions(false)
            .subscription_identifiers(false)
    };
    for (bytes, reason) in [
        (&b"\x32\x07\x00\x01t\x00\x01\x00x"[..], 0x9B),
        (b"\x31\x05\x00\x01t\x00x", 0x9A),
        (b"\x82\x07\x00\x01\x00\x00\x01#\x00", 0xA2),
        (b"\x82\x10\x00\x01\x00\x00\x0a$share/g/t\x00", 0x9E),
        (b"\x82\x09\x00\x01\x02\x0b\x07\x00\x01t\x00", 0xA1),
    ] {
        let mut bench = Bench::new(limited());
        let link = bench.broker.open();
        bench.send(link, V5_A);
        bench.broker.take_output(link);
        bench.exchange(link, bytes, &[0xE0, 0x01, reason]);
        assert!(bench.broker.is_closed(link));
        assert_eq!(bench.broker.violations().len(), 1);
    }
}

// [MQTT-4.4.0-1]
#[test]
fn a_repetition_on_a_live_connection_is_a_violation() {
    let mut bench = bench();
    let rule = Rule::new(When::Packet(Kind::Publish), [Then::Swallow]);
    bench.broker.add_rule(rule);
    let link = bench.connect(V5_A, V5_CONNACK);
    bench.exchange(link, b"\x32\x07\x00\x01t\x00\x01\x00x", b"");
    bench.send(link, b"\x3a\x07\x00\x01t\x00\x01\x00x");
    bench.expect_violation(link, "MQTT-4.4.0-1", b"\xe0\x01\x82");
}

// Subscribing and delivery.

#[test]
fn a_message_arrives_at_the_lower_qos() {
    let mut bench = bench();
    let link = bench.connect(CONNECT_A, CONNACK);
    // [MQTT-3.8.4-8]
    bench.exchange(link, SUBSCRIBE[1], b"\x90\x03\x00\x01\x01");
    bench.publish(message(Qos::AtMostOnce));
    bench.expect(link, b"\x30\x04\x00\x01tx");
    bench.publish(message(Qos::ExactlyOnce));
    bench.expect(link, b"\x32\x06\x00\x01t\x00\x01x");
    bench.exchange(link, b"\x40\x02\x00\x01", b"");
    assert_eq!(bench.broker.backlog("a"), 0);
    assert_eq!(bench.broker.subscriptions("a"), [("t", Qos::AtLeastOnce)]);
}

#[test]
fn a_qos_2_delivery_takes_four_packets() {
    let mut bench = bench();
    let link = bench.connect(CONNECT_A, CONNACK);
    bench.exchange(link, SUBSCRIBE[2], b"\x90\x03\x00\x01\x02");
    bench.publish(message(Qos::ExactlyOnce));
    bench.expect(link, b"\x34\x06\x00\x01t\x00\x01x");
    // A PUBACK is not an answer to it.
    bench.exchange(link, b"\x40\x02\x00\x01", b"");
    bench.exchange(link, b"\x50\x02\x00\x01", b"\x62\x02\x00\x01");
    bench.exchange(link, b"\x50\x02\x00\x01", b"\x62\x02\x00\x01");
    bench.exchange(link, b"\x70\x02\x00\x01", b"");
    assert_eq!(bench.broker.backlog("a"), 0);
}

// [MQTT-3.10.4-4/-5]
#[test]
fn unsubscribing_ends_the_messages() {
    let mut bench = bench();
    let link = bench.connect(V5_A, V5_CONNACK);
    bench.exchange(link, V5_SUBSCRIBE[0], b"\x90\x04\x00\x01\x00\x00");
    let unsubscribe = b"\xa2\x09\x00\x02\x00\x00\x01t\x00\x01u";
    bench.exchange(link, unsubscribe, b"\xb0\x05\x00\x02\x00\x00\x11");
    bench.publish(message(Qos::AtMostOnce));
    bench.expect(link, b"");
}

// [MQTT-3.3.1-5 to -8]
#[test]
fn a_retained_message_waits_for_subscribers() {
    let mut bench = bench();
    let link = bench.connect(CONNECT_A, CONNACK);
    bench.send(link, b"\x31\x04\x00\x01tx");
    bench.send(link, b"\x31\x04\x00\x01ty");
    bench.send(link, b"\x30\x04\x00\x01tz");
    assert_eq!(bench.broker.retained("t"), Some(&b"y"[..]));
    // SUBACK comes first.
    bench.exchange(
        link,
        SUBSCRIBE[0],
        b"\x90\x03\x00\x01\x00\x31\x04\x00\x01ty",
    );
    // To those who subscribe already it goes without the flag [MQTT-3.3.1-12].
    bench.exchange(link, b"\x31\x04\x00\x01tz", b"\x30\x04\x00\x01tz");
    bench.exchange(link, b"\x31\x03\x00\x01t", b"\x30\x03\x00\x01t");
    assert_eq!(bench.broker.retained("t"), None);
    bench.exchange(link, SUBSCRIBE[0], b"\x90\x03\x00\x01\x00");
}

// [MQTT-3.3.1-9/-10/-11/-13]
#[test]
fn the_subscription_options_of_5_0_are_followed() {
    let mut bench = bench();
    let link = bench.connect(V5_A, V5_CONNACK);
    bench.publish(Message::new("t", "x").qos(Qos::AtMostOnce).retain(true));
    let retained = b"\x31\x05\x00\x01t\x00x";
    let suback = b"\x90\x04\x00\x01\x00\x00";
    // Retain Handling 1, Retain As Published: for a new subscription only.
    let only_if_new = b"\x82\x07\x00\x01\x00\x00\x01t\x18";
    bench.exchange(link, only_if_new, &[&suback[..], retained].concat());
    bench.exchange(link, only_if_new, suback);
    bench.publish(Message::new("t", "x").qos(Qos::AtMostOnce).retain(true));
    bench.expect(link, retained);
    // Retain Handling 2: never.
    bench.exchange(link, b"\x82\x07\x00\x01\x00\x00\x01t\x20", suback);
    // [MQTT-3.8.3-3]
    bench.exchange(link, b"\x82\x07\x00\x01\x00\x00\x01t\x24", suback);
    bench.exchange(link, b"\x30\x05\x00\x01t\x00x", b"");
}

// [MQTT-3.3.4-2/-3/-4/-5]
#[test]
fn overlapping_subscriptions_share_a_copy_or_get_one_each() {
    for (overlap, expected) in [
        (
            Overlap::OneCopy,
            &b"\x32\x0b\x00\x01t\x00\x01\x04\x0b\x01\x0b\x02x"[..],
        ),
        (
            Overlap::CopyEach,
            b"\x30\x07\x00\x01t\x02\x0b\x01x\x32\x09\x00\x01t\x00\x01\x02\x0b\x02x",
        ),
    ] {
        let mut bench = Bench::new(BrokerOptions::new().overlap(overlap));
        let link = bench.connect(V5_A, V5_CONNACK);
        bench.send(link, b"\x82\x09\x00\x01\x02\x0b\x01\x00\x01t\x00");
        bench.send(link, b"\x82\x09\x00\x02\x02\x0b\x02\x00\x01#\x01");
        bench.broker.take_output(link);
        bench.publish(message(Qos::AtLeastOnce));
        bench.expect(link, expected);
    }
}

// Section 4.8.2
#[test]
fn a_share_group_takes_turns_among_those_who_are_there() {
    let mut bench = bench();
    let subscribe = b"\x82\x0f\x00\x01\x00\x0a$share/g/t\x00";
    let a = bench.connect(CONNECT_A, CONNACK);
    let b = bench.connect(CONNECT_B, CONNACK);
    for link in [a, b] {
        bench.exchange(link, subscribe, b"\x90\x03\x00\x01\x00");
    }
    for _ in 0..4 {
        bench.publish(message(Qos::AtMostOnce));
    }
    let two = b"\x30\x04\x00\x01tx\x30\x04\x00\x01tx";
    bench.expect(a, two);
    bench.expect(b, two);
    bench.lose(a);
    for _ in 0..2 {
        bench.publish(message(Qos::AtMostOnce));
    }
    bench.expect(b, two);
}

// [MQTT-3.3.4-9]
#[test]
fn the_clients_receive_maximum_is_respected() {
    let mut bench = bench();
    // Receive Maximum 1.
    let connect = b"\x10\x11\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x01\x00\x01a";
    let link = bench.connect(connect, V5_CONNACK);
    bench.exchange(link, V5_SUBSCRIBE[2], b"\x90\x04\x00\x01\x00\x02");
    for _ in 0..3 {
        bench.publish(message(Qos::ExactlyOnce));
    }
    bench.expect(link, b"\x34\x07\x00\x01t\x00\x01\x00x");
    bench.exchange(link, b"\x50\x02\x00\x01", b"\x62\x02\x00\x01");
    bench.exchange(link, b"\x70\x02\x00\x01", b"\x34\x07\x00\x01t\x00\x02\x00x");
    // A refusal gives the quota back too [MQTT-4.4.0-2].
    bench.exchange(
        link,
        b"\x50\x03\x00\x02\x80",
        b"\x34\x07\x00\x01t\x00\x03\x00x",
    );
}

// [MQTT-3.1.2-24/-25]
#[test]
fn a_message_too_large_for_the_client_is_not_sent() {
    let mut bench = bench();
    // Maximum Packet Size 12.
    let connect = b"\x10\x13\x00\x04MQTT\x05\x02\x00\x00\x05\x27\x00\x00\x00\x0c\x00\x01a";
    let link = bench.connect(connect, V5_CONNACK);
    bench.exchange(link, V5_SUBSCRIBE[1], b"\x90\x04\x00\x01\x00\x01");
    bench.publish(Message::new("t", "0123456789"));
    bench.publish(message(Qos::AtLeastOnce));
    bench.expect(link, b"\x32\x07\x00\x01t\x00\x02\x00x");
    assert_eq!(bench.broker.backlog("a"), 1);
}

#[test]
fn properties_are_forwarded_and_the_expiry_counts_down() {
    let mut bench = bench();
    let connect = |flags: u8| {
        let mut connect = V5_RESUME_A.to_vec();
        connect[9] = flags;
        connect
    };
    let link = bench.connect(&connect(2), V5_CONNACK);
    bench.exchange(link, V5_SUBSCRIBE[1], b"\x90\x04\x00\x01\x00\x01");
    bench.lose(link);
    for (seconds, payload) in [(10, "x"), (3, "y")] {
        let message = Message::new("t", payload).properties(
            Properties::new()
                .content_type("c")
                .message_expiry_interval(seconds),
        );
        bench.publish(message);
    }
    bench.advance(4);
    // [MQTT-3.3.2-5/-6]: one has expired, the other has 6 s left.
    let link = bench.connect(
        &connect(0),
        b"\x20\x03\x01\x00\x00\x32\x10\x00\x01t\x00\x01\x09\x03\x00\x01c\x02\x00\x00\x00\x06x",
    );
    assert!(bench.broker.backlog("a") == 1 && !bench.broker.is_closed(link));
}

#[test]
fn the_broker_uses_aliases_if_both_sides_allow_it() {
    let mut bench = Bench::new(BrokerOptions::new().send_topic_aliases(5));
    // Topic Alias Maximum 1.
    let connect = b"\x10\x11\x00\x04MQTT\x05\x02\x00\x00\x03\x22\x00\x01\x00\x01a";
    let link = bench.connect(connect, V5_CONNACK);
    bench.exchange(
        link,
        b"\x82\x07\x00\x01\x00\x00\x01#\x00",
        b"\x90\x04\x00\x01\x00\x00",
    );
    for topic in ["t", "t", "u"] {
        bench.publish(Message::new(topic, "x").qos(Qos::AtMostOnce));
    }
    bench.expect(
        link,
        b"\x30\x08\x00\x01t\x03\x23\x00\x01x\x30\x07\x00\x00\x03\x23\x00\x01x\x30\x05\x00\x01u\x00x",
    );
}

// Sessions.

// [MQTT-4.4.0-1], [MQTT-3.3.1-1]
#[test]
fn a_resumed_session_goes_on_where_it_was() {
    let mut bench = bench();
    let link = bench.connect(RESUME_A, CONNACK);
    bench.exchange(link, SUBSCRIBE[2], b"\x90\x03\x00\x01\x02");
    bench.publish(message(Qos::AtLeastOnce));
    bench.publish(message(Qos::ExactlyOnce));
    bench.expect(
        link,
        b"\x32\x06\x00\x01t\x00\x01x\x34\x06\x00\x01t\x00\x02x",
    );
    bench.exchange(link, b"\x50\x02\x00\x02", b"\x62\x02\x00\x02");
    bench.exchange(
        link,
        b"\x34\x06\x00\x01t\x00\x07y",
        b"\x34\x06\x00\x01t\x00\x03y\x50\x02\x00\x07",
    );
    bench.lose(link);
    // QoS 0 is not kept, QoS 1 is.
    bench.publish(message(Qos::AtMostOnce));
    bench.publish(message(Qos::AtLeastOnce));
    assert_eq!(bench.broker.backlog("a"), 4);
    let link = bench.connect(
        RESUME_A,
        b"\x20\x02\x01\x00\x62\x02\x00\x02\x3a\x06\x00\x01t\x00\x01x\x3c\x06\x00\x01t\x00\x03y\
          \x32\x06\x00\x01t\x00\x04x",
    );
    // The inbound id is still known: no second delivery.
    bench.exchange(link, b"\x3c\x06\x00\x01t\x00\x07y", b"\x50\x02\x00\x07");
    assert_eq!(bench.broker.received(Qos::ExactlyOnce), 1);
}

// [MQTT-3.1.2-4]
#[test]
fn a_clean_start_drops_the_session() {
    let mut bench = bench();
    let link = bench.connect(RESUME_A, CONNACK);
    bench.exchange(link, SUBSCRIBE[1], b"\x90\x03\x00\x01\x01");
    bench.send(link, DISCONNECT);
    bench.publish(message(Qos::AtLeastOnce));
    assert_eq!(bench.broker.sessions(), ["a"]);
    let link = bench.connect(CONNECT_A, CONNACK);
    assert!(bench.broker.subscriptions("a").is_empty());
    bench.send(link, DISCONNECT);
    assert!(bench.broker.sessions().is_empty());
    bench.connect(RESUME_A, CONNACK);
}

// [MQTT-3.1.2-23], [MQTT-4.1.0-2]
#[test]
fn a_session_of_5_0_lasts_as_long_as_it_was_asked_for() {
    let mut bench = bench();
    let link = bench.connect(V5_RESUME_A, V5_CONNACK);
    bench.lose(link);
    bench.advance(99);
    let link = bench.connect(V5_RESUME_A, V5_CONNACK_PRESENT);
    // DISCONNECT may shorten it.
    bench.send(link, b"\xe0\x07\x00\x05\x11\x00\x00\x00\x02");
    bench.advance(1);
    assert_eq!(bench.broker.sessions(), ["a"]);
    bench.advance(1);
    assert!(bench.broker.sessions().is_empty());
}

#[test]
fn a_restart_keeps_or_forgets_the_sessions() {
    for (restart, connack) in [
        (Restart::KeepSessions, CONNACK_PRESENT),
        (Restart::ForgetSessions, CONNACK),
    ] {
        let mut bench = bench();
        let link = bench.connect(RESUME_A, CONNACK);
        let other = bench.connect(CONNECT_B, CONNACK);
        let now = bench.now();
        bench.broker.restart(now, restart);
        assert!(bench.broker.is_closed(link) && bench.broker.is_closed(other));
        assert!(bench.broker.clients().is_empty());
        bench.connect(RESUME_A, connack);
    }
}

#[test]
fn a_single_session_can_be_forgotten() {
    let mut bench = bench();
    let link = bench.connect(RESUME_A, CONNACK);
    let now = bench.now();
    assert!(!bench.broker.forget_session(now, "a"), "it is in use");
    bench.lose(link);
    assert!(bench.broker.forget_session(now, "a"));
    bench.connect(RESUME_A, CONNACK);
}

// Wills.

/// 3.1.1, CleanSession 1, will "x" to "t", QoS 0.
const WILL_B: &[u8] = b"\x10\x13\x00\x04MQTT\x04\x06\x00\x00\x00\x01b\x00\x01t\x00\x01x";
/// 5.0, Clean Start 0, session expiry 100 s, will "x" to "t" with a delay of 10 s.
const WILL_DELAYED_B: &[u8] = b"\x10\x1f\x00\x04MQTT\x05\x04\x00\x00\x05\x11\x00\x00\x00\x64\
      \x00\x01b\x05\x18\x00\x00\x00\x0a\x00\x01t\x00\x01x";

// [MQTT-3.1.2-8]
#[test]
fn a_will_is_published_when_its_client_is_lost() {
    let mut bench = bench();
    let link = bench.connect(CONNECT_A, CONNACK);
    bench.exchange(link, SUBSCRIBE[0], b"\x90\x03\x00\x01\x00");
    let other = bench.connect(WILL_B, CONNACK);
    bench.lose(other);
    bench.expect(link, b"\x30\x04\x00\x01tx");
}

// [MQTT-3.14.4-3]
#[test]
fn a_normal_disconnect_discards_the_will() {
    let mut bench = bench();
    let link = bench.connect(V5_A, V5_CONNACK);
    bench.exchange(link, V5_SUBSCRIBE[0], b"\x90\x04\x00\x01\x00\x00");
    let other = bench.connect(WILL_B, CONNACK);
    bench.send(other, DISCONNECT);
    bench.lose(other);
    bench.expect(link, b"");
    // 0x04 asks for the will.
    let other = bench.connect(WILL_DELAYED_B, V5_CONNACK);
    bench.send(other, b"\xe0\x07\x04\x05\x11\x00\x00\x00\x00");
    bench.expect(link, b"\x30\x05\x00\x01t\x00x");
}

// [MQTT-3.1.3-9]
#[test]
fn a_client_that_is_back_within_the_will_delay_has_no_will() {
    let mut bench = bench();
    let link = bench.connect(V5_A, V5_CONNACK);
    bench.exchange(link, V5_SUBSCRIBE[0], b"\x90\x04\x00\x01\x00\x00");
    let other = bench.connect(WILL_DELAYED_B, V5_CONNACK);
    bench.lose(other);
    bench.advance(9);
    let other = bench.connect(WILL_DELAYED_B, V5_CONNACK_PRESENT);
    bench.advance(20);
    bench.expect(link, b"");
    bench.lose(other);
    bench.advance(10);
    bench.expect(link, b"\x30\x05\x00\x01t\x00x");
}

// The script.

#[test]
fn the_next_connects_can_be_refused() {
    let mut bench = bench();
    let refuse = [Then::Refuse(Reason::SERVER_BUSY)];
    bench
        .broker
        .add_rule(Rule::new(When::Packet(Kind::Connect), refuse).times(2));
    bench.connect(V5_A, b"\x20\x03\x00\x89\x00");
    let link = bench.connect(V5_A, b"\x20\x03\x00\x89\x00");
    assert!(bench.broker.is_closed(link));
    bench.connect(V5_A, V5_CONNACK);
}

#[test]
fn each_kind_of_packet_can_be_refused() {
    let mut bench = bench();
    let link = bench.connect(V5_A, V5_CONNACK);
    for kind in [
        Kind::Publish,
        Kind::Subscribe,
        Kind::Unsubscribe,
        Kind::Pubrel,
        Kind::Pingreq,
    ] {
        let refuse = [Then::Refuse(Reason::QUOTA_EXCEEDED)];
        bench
            .broker
            .add_rule(Rule::new(When::Packet(kind), refuse).always());
    }
    bench.exchange(link, b"\x30\x05\x00\x01t\x00x", b"");
    bench.exchange(
        link,
        b"\x32\x07\x00\x01t\x00\x01\x00x",
        b"\x40\x03\x00\x01\x97",
    );
    bench.exchange(
        link,
        b"\x34\x07\x00\x01t\x00\x01\x00x",
        b"\x50\x03\x00\x01\x97",
    );
    bench.exchange(link, b"\x62\x02\x00\x01", b"\x70\x03\x00\x01\x97");
    bench.exchange(link, V5_SUBSCRIBE[1], b"\x90\x04\x00\x01\x00\x97");
    bench.exchange(
        link,
        b"\xa2\x06\x00\x02\x00\x00\x01t",
        b"\xb0\x04\x00\x02\x00\x97",
    );
    assert!(bench.broker.messages().is_empty());
    bench.exchange(link, b"\xc0\x00", b"\xe0\x01\x97");
    assert!(bench.broker.is_closed(link));
}

#[test]
fn a_swallowed_packet_takes_effect_and_an_ignored_one_does_not() {
    let mut bench = bench();
    let link = bench.connect(CONNECT_A, CONNACK);
    let on_publish = |then| Rule::new(When::Packet(Kind::Publish), [then]);
    bench.broker.add_rule(on_publish(Then::Swallow));
    bench.broker.add_rule(on_publish(Then::Ignore));
    bench.exchange(link, b"\x32\x06\x00\x01t\x00\x01x", b"");
    bench.exchange(link, b"\x32\x06\x00\x01t\x00\x02y", b"");
    bench.exchange(link, b"\x32\x06\x00\x01t\x00\x03z", b"\x40\x02\x00\x03");
    let payloads: Vec<_> = bench
        .broker
        .messages()
        .iter()
        .map(|m| m.payload())
        .collect();
    assert_eq!(payloads, [b"x", b"z"]);
}

#[test]
fn a_rule_may_skip_packets_and_concern_one_client() {
    let mut bench = bench();
    let a = bench.connect(CONNECT_A, CONNACK);
    let b = bench.connect(CONNECT_B, CONNACK);
    let rule = Rule::new(When::Packet(Kind::Pingreq), [Then::Swallow]);
    bench.broker.add_rule(rule.client("a").skip(1));
    bench.exchange(b, b"\xc0\x00", b"\xd0\x00");
    bench.exchange(a, b"\xc0\x00", b"\xd0\x00");
    bench.exchange(b, b"\xc0\x00", b"\xd0\x00");
    bench.exchange(a, b"\xc0\x00", b"");
    bench.exchange(a, b"\xc0\x00", b"\xd0\x00");
}

#[test]
fn a_literal_answer_stands_in_the_place_of_the_real_one() {
    let mut bench = bench();
    let answer = [Then::Answer(b"\x20\x02\x01\x00".to_vec())];
    bench
        .broker
        .add_rule(Rule::new(When::Packet(Kind::Connect), answer));
    let link = bench.connect(CONNECT_A, CONNACK_PRESENT);
    assert!(bench.broker.is_connected("a"));
    // A packet without an answer of its own gets one.
    let answer = [Then::Answer(b"\xff".to_vec())];
    bench
        .broker
        .add_rule(Rule::new(When::Packet(Kind::Publish), answer));
    bench.exchange(link, b"\x30\x04\x00\x01tx", b"\xff");
}

#[test]
fn a_delayed_answer_leaves_later() {
    let mut bench = bench();
    let link = bench.connect(CONNECT_A, CONNACK);
    let delay = [Then::Delay(Duration::from_secs(3))];
    bench
        .broker
        .add_rule(Rule::new(When::Packet(Kind::Pingreq), delay));
    bench.exchange(link, b"\xc0\x00", b"");
    assert_eq!(
        bench.broker.poll_timeout(),
        Some(bench.now() + Duration::from_secs(3))
    );
    bench.advance(2);
    // Others overtake it.
    bench.exchange(link, SUBSCRIBE[0], b"\x90\x03\x00\x01\x00");
    bench.advance(1);
    bench.expect(link, b"\xd0\x00");
}

#[test]
fn nothing_overtakes_a_delayed_connack() {
    let mut bench = bench();
    let link = bench.connect(RESUME_A, CONNACK);
    bench.exchange(link, SUBSCRIBE[1], b"\x90\x03\x00\x01\x01");
    bench.lose(link);
    bench.publish(message(Qos::AtLeastOnce));
    let delay = [Then::Delay(Duration::from_secs(3))];
    bench
        .broker
        .add_rule(Rule::new(When::Packet(Kind::Connect), delay));
    let link = bench.connect(RESUME_A, b"");
    bench.publish(message(Qos::AtMostOnce));
    bench.expect(link, b"");
    bench.advance(3);
    bench.expect(
        link,
        b"\x20\x02\x01\x00\x32\x06\x00\x01t\x00\x01x\x30\x04\x00\x01tx",
    );
    bench.exchange(link, b"\xc0\x00", b"\xd0\x00");
}

#[test]
fn after_a_swallowed_connack_the_link_is_mute() {
    let mut bench = bench();
    bench
        .broker
        .add_rule(Rule::new(When::Packet(Kind::Connect), [Then::Swallow]));
    let link = bench.connect(CONNECT_A, b"");
    bench.exchange(link, b"\xc0\x00", b"");
    assert!(!bench.broker.is_closed(link));
}

#[test]
fn a_link_can_be_cut_after_or_instead_of_an_answer() {
    let mut bench = bench();
    let on_ping = |then: &[Then]| Rule::new(When::Packet(Kind::Pingreq), then);
    bench.broker.add_rule(on_ping(&[Then::Cut]));
    bench.broker.add_rule(on_ping(&[Then::Swallow, Then::Cut]));
    let later = Then::Delay(Duration::from_secs(1));
    bench.broker.add_rule(on_ping(&[later, Then::Cut]));
    let link = bench.connect(CONNECT_A, CONNACK);
    bench.exchange(link, b"\xc0\x00", b"\xd0\x00");
    assert!(bench.broker.is_closed(link));
    let link = bench.connect(CONNECT_A, CONNACK);
    bench.exchange(link, b"\xc0\x00", b"");
    assert!(bench.broker.is_closed(link));
    let link = bench.connect(CONNECT_A, CONNACK);
    bench.exchange(link, b"\xc0\x00", b"");
    assert!(!bench.broker.is_closed(link));
    bench.advance(1);
    bench.expect(link, b"\xd0\x00");
    assert!(bench.broker.is_closed(link));
}

#[test]
fn a_cut_at_a_byte_loses_what_is_behind_it() {
    let mut bench = bench();
    let link = bench.connect(CONNECT_A, CONNACK);
    bench
        .broker
        .add_rule(Rule::new(When::BytesIn(8), [Then::Cut]));
    bench.send(link, b"\x30\x04\x00\x01tx\x30");
    assert!(!bench.broker.is_closed(link));
    bench.send(link, b"\x04\x00\x01ty");
    assert!(bench.broker.is_closed(link));
    assert_eq!(bench.broker.messages().len(), 1);

    bench
        .broker
        .add_rule(Rule::new(When::BytesOut(5), [Then::Cut]));
    let link = bench.connect(CONNECT_A, CONNACK);
    bench.exchange(link, b"\xc0\x00", b"\xd0");
    assert!(bench.broker.is_closed(link));
}

#[test]
fn literal_bytes_can_be_injected_and_links_ended() {
    let mut bench = bench();
    let link = bench.connect(V5_A, V5_CONNACK);
    let now = bench.now();
    bench.broker.inject(link, now, b"\xff\xff");
    bench.expect(link, b"\xff\xff");
    bench
        .broker
        .disconnect(link, now, Reason::SERVER_SHUTTING_DOWN);
    bench.expect(link, b"\xe0\x01\x8b");
    assert!(bench.broker.is_closed(link));
    let link = bench.connect(V5_A, V5_CONNACK);
    bench.broker.cut(link, now);
    bench.expect(link, b"");
    assert!(bench.broker.is_closed(link));
}

#[test]
fn packets_are_logged_with_their_direction_and_time() {
    let mut bench = bench();
    let link = bench.connect(CONNECT_A, CONNACK);
    bench.advance(5);
    bench.exchange(link, b"\xc0\x00", b"\xd0\x00");
    let log: Vec<_> = bench
        .broker
        .packets()
        .iter()
        .map(|packet| (packet.direction(), packet.kind()))
        .collect();
    assert_eq!(
        log,
        [
            (Direction::In, Kind::Connect),
            (Direction::Out, Kind::Connack),
            (Direction::In, Kind::Pingreq),
            (Direction::Out, Kind::Pingresp),
        ]
    );
    let last = &bench.broker.packets()[3];
    assert_eq!(last.at(), bench.now());
    assert_eq!(format!("{last:?}"), "link 1 <- PINGRESP d0 00");
    bench.broker.clear_records();
    assert!(bench.broker.packets().is_empty());
}

#[test]
fn a_broker_that_only_counts_keeps_nothing() {
    let mut bench = Bench::new(BrokerOptions::new().recording(Recording::Counts));
    let link = bench.connect(CONNECT_A, CONNACK);
    bench.send(link, &b"\x30\x04\x00\x01tx".repeat(1000));
    assert_eq!(bench.broker.received(Qos::AtMostOnce), 1000);
    assert_eq!(bench.broker.packets_in(), 1001);
    assert!(bench.broker.messages().is_empty() && bench.broker.packets().is_empty());
}

// [MQTT-4.13.1-1]: whatever comes, the worst that happens is the end of the link.
#[test]
fn no_bytes_bring_the_broker_down() {
    let packets: [&[u8]; 14] = [
        CONNECT_3_1,
        RESUME_A,
        V5_RESUME_A,
        WILL_DELAYED_B,
        SUBSCRIBE[2],
        V5_SUBSCRIBE[1],
        b"\x82\x10\x00\x01\x00\x00\x0a$share/g/t\x02",
        b"\x3b\x08\x00\x01t\x00\x01\x00xx",
        b"\x35\x0b\x00\x01t\x00\x02\x03\x23\x00\x01xx",
        b"\x50\x02\x00\x01\x70\x02\x00\x01\x40\x02\x00\x02",
        b"\x62\x02\x00\x02",
        b"\xa2\x06\x00\x02\x00\x00\x01t",
        b"\xf0\x0a\x18\x08\x15\x00\x01M\x16\x00\x01x",
        b"\xe0\x07\x04\x05\x11\x00\x00\x00\x02",
    ];
    let mut random = fastrand::Rng::with_seed(1);
    let options = BrokerOptions::new()
        .topic_alias_maximum(2)
        .maximum_packet_size(1000);
    let mut bench = Bench::new(options.recording(Recording::Counts));
    let mut connects = 0;
    for _ in 0..5_000 {
        let link = bench.broker.open();
        let connect = packets[random.usize(..4)];
        bench.send(link, connect);
        connects += u64::from(!bench.broker.is_closed(link));
        for _ in 0..random.usize(..10) {
            let mut bytes = packets[random.usize(..packets.len())].to_vec();
            if random.bool() {
                let index = random.usize(..bytes.len());
                bytes[index] = random.u8(..);
            }
            bench.send(link, &bytes);
        }
        bench.broker.take_output(link);
        bench.advance(random.u64(..5));
        // Half of those whose link is still open stay connected and are taken over later.
        if bench.broker.is_closed(link) || random.bool() {
            bench.lose(link);
        }
    }
    assert_eq!(bench.broker.connects(), connects);
    assert!(bench.broker.sessions().len() <= 2 + bench.broker.links().len());
    let taken = bench.broker.received(Qos::ExactlyOnce);
    assert!(taken > 100, "only {taken} of the messages were well-formed");
}

// The clock.

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    let world = World::with_peers();
    let woken = Rc::new(RefCell::new(Vec::new()));
    for seconds in [3, 1, 2] {
        let (clock, woken) = (world.clock(), Rc::clone(&woken));
        let task = async move {
            let deadline = clock.now() + Duration::from_secs(seconds);
            clock.sleep_until(deadline).await;
            woken.borrow_mut().push(seconds);
        };
        world.spawn(task).detach();
    }
    world.advance(Duration::from_secs(2));
    assert_eq!(*woken.borrow(), [1, 2]);
    world.advance(Duration::from_secs(1));
    assert_eq!(*woken.borrow(), [1, 2, 3]);
}

#[test]
fn a_dropped_sleep_leaves_no_deadline() {
    let clock = FakeClock::new();
    let deadline = clock.now() + Duration::from_secs(1);
    let long = clock.sleep_until(deadline + Duration::from_secs(1));
    let world = World::with_peers();
    world.block_on(async {
        let mut long = long;
        let mut short = clock.sleep_until(deadline);
        futures_lite::future::poll_once(&mut long).await;
        futures_lite::future::poll_once(&mut short).await;
        assert_eq!(clock.next_deadline(), Some(deadline));
        drop(short);
        assert_eq!(
            clock.next_deadline(),
            Some(deadline + Duration::from_secs(1))
        );
        drop(long);
        assert_eq!(clock.next_deadline(), None);
    });
}

#[test]
#[should_panic(expected = "waits for ever")]
fn a_wait_without_an_end_is_reported() {
    let world = World::with_peers();
    world.block_on(std::future::pending::<()>());
}

#[test]
#[should_panic(expected = "within a day")]
fn a_wait_beside_an_endless_task_is_reported() {
    let world = World::with_peers();
    let clock = world.clock();
    let endless = async move {
        loop {
            let deadline = clock.now() + Duration::from_secs(60);
            clock.sleep_until(deadline).await;
        }
    };
    world.spawn(endless).detach();
    world.block_on(std::future::pending::<()>());
}

// The network.

async fn open(network: &Network) -> BoxedTransport {
    network.open().await.expect("the weather is fair")
}

#[test]
fn a_world_joins_the_network_with_the_broker() {
    let world = World::new(BrokerOptions::new());
    let network = world.network();
    world
        .block_on(async {
            let mut link = open(&network).await;
            link.write_all(CONNECT_A).await?;
            let mut answer = [0; 4];
            link.read_exact(&mut answer).await?;
            assert_eq!(answer, CONNACK);
            io::Result::Ok(())
        })
        .expect("the broker answers");
    // The transport is dropped.
    world.run_until_idle();
    assert_eq!(world.broker(|broker, _| broker.clients().len()), 0);
}

#[test]
fn time_passes_for_the_broker_too() {
    let world = World::new(BrokerOptions::new());
    let network = world.network();
    let silent = world.spawn(async move {
        let mut link = open(&network).await;
        link.write_all(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x01a")
            .await?;
        let mut all = Vec::new();
        link.read_to_end(&mut all).await?;
        io::Result::Ok(all)
    });
    let start = world.now();
    let all = world.block_on(silent).expect("an orderly end");
    assert_eq!(all, b"\x20\x03\x00\x00\x00\xe0\x01\x8d");
    assert_eq!(world.now() - start, Duration::from_secs(15));
}

#[test]
fn attempts_can_be_refused_and_can_hang() {
    let world = World::with_peers();
    let network = world.network();
    network.next_attempts(1, Attempt::Refuse(io::ErrorKind::ConnectionRefused));
    network.next_attempts(1, Attempt::Hang);
    world.block_on(async {
        let refused = network.open().await.err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::ConnectionRefused));
        let clock = world.clock();
        let deadline = clock.now() + Duration::from_secs(10);
        let gave_up = async { network.open().await.is_ok() }
            .or(async {
                clock.sleep_until(deadline).await;
                false
            })
            .await;
        assert!(!gave_up);
        open(&network).await;
    });
    assert_eq!(network.attempts(), 3);
}

#[test]
fn reads_come_in_chunks() {
    let network = Network::new();
    network.read_chunk(2);
    block_on(async {
        let mut link = open(&network).await;
        let mut peer = Peer::accept(&network);
        peer.send(b"abc");
        let mut buffer = [0; 10];
        assert_eq!(link.read(&mut buffer).await.expect("open"), 2);
        assert_eq!(link.read(&mut buffer).await.expect("open"), 1);
        peer.close();
        assert_eq!(link.read(&mut buffer).await.expect("closed in order"), 0);
    });
    assert_eq!((network.reads(), network.bytes_received()), (2, 3));
}

#[test]
fn a_full_send_buffer_waits_until_the_far_side_takes_bytes() {
    let world = World::with_peers();
    let network = world.network();
    network.send_buffer(4);
    network.stall();
    let writer = network.clone();
    let task = world.spawn(async move {
        let mut link = open(&writer).await;
        link.write_all(b"0123456789").await
    });
    let mut peer = world.peer();
    peer.expect_nothing();
    assert_eq!(network.bytes_sent(), 4);
    network.unstall();
    let mut all = Vec::new();
    while all.len() < 10 {
        all.extend(peer.received());
    }
    assert_eq!(all, b"0123456789");
    assert!(world.block_on(task).is_ok());
    assert!(peer.is_closed());
    assert_eq!(network.writes(), 3);
}

#[test]
fn a_flush_can_be_held_back() {
    let world = World::with_peers();
    let network = world.network();
    network.hold_flush();
    let flusher = network.clone();
    let task = world.spawn(async move {
        let mut link = open(&flusher).await;
        link.write_all(b"x").await?;
        link.flush().await
    });
    world.run_until_idle();
    assert!(!task.is_finished());
    network.release_flush();
    assert!(world.block_on(task).is_ok());
}

#[test]
fn a_connection_can_be_cut_at_a_byte_in_each_way() {
    let kinds = [
        (Cut::Close, Some(io::ErrorKind::BrokenPipe)),
        (Cut::Reset, Some(io::ErrorKind::ConnectionReset)),
        (Cut::Hole, None),
    ];
    for (cut, error) in kinds {
        let network = Network::new();
        network.cut_after_sent(3, cut);
        block_on(async {
            let mut link = open(&network).await;
            let mut peer = Peer::accept(&network);
            let written = link.write_all(b"12345").await;
            assert_eq!(written.err().map(|error| error.kind()), error, "{cut:?}");
            let arrived = match cut {
                Cut::Reset => &b""[..],
                _ => b"123",
            };
            assert_eq!(peer.received(), arrived, "{cut:?}");
            assert_eq!(peer.is_closed(), cut != Cut::Hole);
            // Once only.
            let mut link = open(&network).await;
            link.write_all(b"12345")
                .await
                .expect("another connection is whole");
        });
    }
}

#[test]
fn a_connection_can_be_cut_at_a_byte_to_the_client() {
    for (cut, expected) in [
        (Cut::Close, Some(Ok(0))),
        (Cut::Reset, Some(Err(io::ErrorKind::ConnectionReset))),
        (Cut::Hole, None),
    ] {
        let network = Network::new();
        network.cut_after_received(3, cut);
        block_on(async {
            let mut link = open(&network).await;
            let mut peer = Peer::accept(&network);
            peer.send(b"12345");
            let mut buffer = [0; 10];
            assert_eq!(link.read(&mut buffer).await.expect("before the cut"), 3);
            let next = futures_lite::future::poll_once(link.read(&mut buffer)).await;
            let next = next.map(|read| read.map_err(|error| error.kind()));
            assert_eq!(next, expected, "{cut:?}");
        });
    }
}

#[test]
fn a_hole_fills_the_send_buffer() {
    let network = Network::new();
    network.send_buffer(4);
    block_on(async {
        let mut link = open(&network).await;
        let mut peer = Peer::accept(&network);
        network.cut(Cut::Hole);
        assert_eq!(link.write(b"123456").await.expect("nobody tells"), 4);
        peer.expect_nothing();
        let stuck = futures_lite::future::poll_once(link.write(b"x")).await;
        assert!(stuck.is_none());
    });
}

#[test]
#[should_panic(expected = "expected   2 bytes: c0>00  \"\\xc0\\x00\"\n  actual   2 bytes: c0>01")]
fn a_peer_shows_where_bytes_differ() {
    let network = Network::new();
    block_on(async {
        let mut link = open(&network).await;
        link.write_all(b"\xc0\x01").await.expect("fair weather");
        Peer::accept(&network).expect(b"\xc0\x00");
    });
}

#[test]
fn a_peer_ends_its_connection_in_order_or_not() {
    let world = World::with_peers();
    let network = world.network();
    let mut ends = Vec::new();
    for end in [Peer::close, Peer::reset] {
        let network = network.clone();
        let task = world.spawn(async move {
            let mut link = open(&network).await;
            link.read(&mut [0; 1]).await.map_err(|error| error.kind())
        });
        let mut peer = world.peer();
        end(&mut peer);
        ends.push(world.block_on(task));
    }
    assert_eq!(ends, [Ok(0), Err(io::ErrorKind::ConnectionReset)]);
}

// The server.

/// Runs `test` beside a server on a real socket.
fn with_server<F>(options: BrokerOptions, test: impl FnOnce(Server) -> F)
where
    F: Future<Output = io::Result<()>>,
{
    let executor = LocalExecutor::new();
    let done = block_on(executor.run(async {
        let server = Server::bind(options)?;
        executor.spawn(server.run()).detach();
        test(server).await
    }));
    done.expect("the loopback interface works");
}

/// Connects, sends `connect` and checks the answer.
async fn dial(server: &Server, connect: &[u8], answer: &[u8]) -> io::Result<Async<TcpStream>> {
    let mut stream = Async::<TcpStream>::connect(server.address()).await?;
    stream.write_all(connect).await?;
    expect(&mut stream, answer).await?;
    Ok(stream)
}

async fn expect(stream: &mut Async<TcpStream>, expected: &[u8]) -> io::Result<()> {
    let mut actual = vec![0; expected.len()];
    stream.read_exact(&mut actual).await?;
    assert_eq!(actual, expected);
    Ok(())
}

#[test]
fn the_server_carries_messages_between_its_links() {
    with_server(BrokerOptions::new(), |server| async move {
        assert_eq!(server.url(), format!("mqtt://{}", server.address()));
        let mut a = dial(&server, CONNECT_A, CONNACK).await?;
        let mut b = dial(&server, CONNECT_B, CONNACK).await?;
        a.write_all(SUBSCRIBE[1]).await?;
        expect(&mut a, b"\x90\x03\x00\x01\x01").await?;
        b.write_all(b"\x32\x06\x00\x01t\x00\x01x").await?;
        expect(&mut b, b"\x40\x02\x00\x01").await?;
        expect(&mut a, b"\x32\x06\x00\x01t\x00\x01x").await?;
        server.with(|broker, now| broker.publish(now, &message(Qos::AtMostOnce)));
        expect(&mut a, b"\x30\x04\x00\x01tx").await?;
        drop(b);
        while server.with(|broker, _| broker.is_connected("b")) {
            smol::future::yield_now().await;
        }
        Ok(())
    });
}

#[test]
fn the_server_sends_more_than_a_socket_holds() {
    with_server(BrokerOptions::new(), |server| async move {
        let mut a = dial(&server, CONNECT_A, CONNACK).await?;
        a.write_all(SUBSCRIBE[0]).await?;
        expect(&mut a, b"\x90\x03\x00\x01\x00").await?;
        let body = vec![b'x'; 20_000_000];
        let large = Message::new("t", body).qos(Qos::AtMostOnce);
        server.with(|broker, now| broker.publish(now, &large));
        // 20,000,003 bytes follow the header.
        expect(&mut a, b"\x30\x83\xda\xc4\x09\x00\x01t").await?;
        let mut body = vec![0; 20_000_000];
        a.read_exact(&mut body).await?;
        assert!(body.iter().all(|byte| *byte == b'x'));
        Ok(())
    });
}

#[test]
fn the_servers_timers_run_by_themselves() {
    with_server(BrokerOptions::new(), |server| async move {
        let later = [Then::Delay(Duration::from_millis(20))];
        let rule = Rule::new(When::Packet(Kind::Pingreq), later);
        server.with(|broker, _| broker.add_rule(rule));
        let mut a = dial(&server, CONNECT_A, CONNACK).await?;
        a.write_all(b"\xc0\x00").await?;
        expect(&mut a, b"\xd0\x00").await
    });
}

#[test]
fn a_goodbye_arrives_although_the_client_is_still_sending() {
    with_server(BrokerOptions::new(), |server| async move {
        let rule = Rule::new(
            When::Packet(Kind::Publish),
            [Then::Answer(b"\xe0\x01\x97".to_vec()), Then::Cut],
        );
        server.with(|broker, _| broker.add_rule(rule));
        let mut a = dial(&server, V5_A, V5_CONNACK).await?;
        a.write_all(&b"\x30\x05\x00\x01t\x00x".repeat(20_000))
            .await?;
        let mut all = Vec::new();
        a.read_to_end(&mut all).await?;
        assert_eq!(all, b"\xe0\x01\x97");
        Ok(())
    });
}

#[test]
fn an_outage_ends_links_and_refuses_new_ones_until_it_is_over() {
    with_server(BrokerOptions::new(), |server| async move {
        let mut a = dial(&server, RESUME_A, CONNACK).await?;
        server.go_down();
        assert_eq!(a.read(&mut [0; 1]).await?, 0);
        drop(a);
        let refused = Async::<TcpStream>::connect(server.address()).await;
        let refused = refused.err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::ConnectionRefused));
        server.come_up()?;
        dial(&server, RESUME_A, CONNACK_PRESENT).await?;
        Ok(())
    });
}

#[test]
fn dropping_the_run_of_a_server_ends_its_links() {
    let executor = LocalExecutor::new();
    block_on(executor.run(async {
        let server = Server::bind(BrokerOptions::new())?;
        let run = executor.spawn(server.run());
        let mut a = dial(&server, CONNECT_A, CONNACK).await?;
        run.cancel().await;
        assert_eq!(a.read(&mut [0; 1]).await?, 0);
        assert!(server.with(|broker, _| broker.clients().is_empty()));
        io::Result::Ok(())
    }))
    .expect("the loopback interface works");
}
