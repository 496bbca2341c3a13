//! Requests and their answers: how they look on the wire, to which request an answer belongs, and how a
//! request ends that gets none.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use coracle::testkit::{BrokerOptions, Peer, World};
use coracle::{
    Doing, ErrorKind, Event, Filters, Message, Options, Properties, Qos, Reason, Reply, Request,
    Requesting, Sent, Version, Wait,
};

use crate::{
    CONNACK, CONNACK_3, CONNACK_3_PRESENT, CONNACK_PRESENT, SECOND, Setup, failure, now, options,
    poll,
};

/// SUBSCRIBE for the answers of the client "c": QoS 1, no retained messages.
const SUBSCRIBE: &[u8] = b"\x82\x1c\x00\x01\x04\x0b\x80\x80\x01\x00\x12coracle/response/c\x21";
const SUBACK: &[u8] = b"\x90\x04\x00\x01\x00\x01";
/// The same on 3.1.1, where the number of the request follows.
const SUBSCRIBE_3: &[u8] = b"\x82\x19\x00\x01\x00\x14coracle/response/c/+\x01";
const SUBACK_3: &[u8] = b"\x90\x03\x00\x01\x01";

/// A PUBLISH of MQTT 5 to the topic of the answers, QoS 0, with this Correlation Data.
fn answer(correlation: &[u8], payload: u8) -> Vec<u8> {
    let mut packet = b"\x30\x29\x00\x12coracle/response/c\x13\x09\x00\x10".to_vec();
    packet.extend_from_slice(correlation);
    packet.push(payload);
    packet
}

/// The Correlation Data of a request, which follows the topic of its answer.
#[track_caller]
fn correlation(request: &[u8]) -> [u8; 16] {
    let before = b"\x08\x00\x12coracle/response/c\x09\x00\x10";
    let start = request
        .windows(before.len())
        .position(|window| window == before)
        .unwrap_or_else(|| panic!("not one: {}", request.escape_ascii()));
    let data = request[start + before.len()..].first_chunk();
    *data.expect("sixteen digits")
}

/// A client whose answers can arrive.
#[track_caller]
fn ready() -> (Setup, Peer) {
    let (setup, mut peer) = Setup::connected();
    let first = setup.client.request("t", "x", SECOND);
    peer.expect(SUBSCRIBE);
    peer.send(SUBACK);
    let correlation = correlation(&peer.received());
    peer.send(&answer(&correlation, b'y'));
    assert_eq!(now(first).expect("answered").payload(), b"y");
    (setup, peer)
}

/// Makes a request and returns its Correlation Data.
#[track_caller]
fn request(setup: &Setup, peer: &mut Peer) -> (Requesting, [u8; 16]) {
    let requesting = setup.client.request("t", "x", SECOND);
    let correlation = correlation(&peer.received());
    (requesting, correlation)
}

// How it looks.

/// The Message Expiry Interval of a request, behind its Correlation Data.
#[track_caller]
fn expiry(request: &[u8]) -> Option<u32> {
    let before = b"\x09\x00\x10";
    let start = request
        .windows(before.len())
        .position(|window| window == before)
        .expect("it has Correlation Data");
    let rest = request[start + before.len() + 16..].strip_prefix(b"\x02")?;
    rest.first_chunk().copied().map(u32::from_be_bytes)
}

/// Requests with 100 s, as they are when some of their time is over.
fn aged(requests: &[u8], seconds: u8) -> Vec<u8> {
    let mut requests = requests.to_vec();
    for start in 0..requests.len() {
        if requests[start..].starts_with(b"\x02\0\0\0\x64") {
            requests[start + 4] -= seconds;
        }
    }
    requests
}

#[test]
fn the_time_of_a_request_runs_from_the_call_on_wherever_it_waits() {
    let (setup, mut peer) = Setup::connected();
    let asked = setup.client.request("t", "x", 60 * SECOND);
    let stale = setup
        .client
        .request_message(Message::new("t", "x").expiry(5 * SECOND), 60 * SECOND);
    peer.expect(SUBSCRIBE);
    setup.world.advance(50 * SECOND);
    peer.received();
    peer.send(SUBACK);
    let request = peer.received();
    assert_eq!(expiry(&request), Some(10));
    // What lapsed is not sent; nor is there a second packet.
    let error = failure(now(stale));
    assert!(matches!(error.kind(), ErrorKind::Expired), "{error}");
    assert_eq!(error.sent(), Sent::No);
    assert_eq!(setup.client.statistics().expired, 1);
    assert_eq!(usize::from(request[1]) + 2, request.len());
    peer.send(&answer(&correlation(&request), b'y'));
    assert_eq!(now(asked).expect("answered").payload(), b"y");
}

#[test]
fn a_request_that_has_left_and_cannot_leave_again_may_have_been_served() {
    let (setup, mut peer) = ready();
    let asked = setup.client.request("t", "x", 60 * SECOND);
    peer.received();
    peer.reset();
    // Since then the broker takes no packet above 20 bytes.
    let _peer = setup.greet_later(b"\x20\x08\x01\0\x05\x27\0\0\0\x14");
    let error = failure(now(asked));
    assert_eq!(error.blame(), coracle::Blame::Limit, "{error}");
    assert_eq!(error.sent(), Sent::Maybe, "{error}");
}

#[test]
fn a_request_that_is_sent_again_says_what_is_left_of_its_time() {
    let (setup, mut peer) = ready();
    let asked = setup.client.request("t", "x", 60 * SECOND);
    assert_eq!(expiry(&peer.received()), Some(60));
    setup.world.advance(30 * SECOND);
    setup.world.network().cut(coracle::testkit::Cut::Reset);
    setup.world.advance(SECOND);
    let mut peer = setup.world.peer();
    peer.received();
    peer.send(CONNACK_PRESENT);
    let request = peer.received();
    let left = expiry(&request).expect("it has one");
    assert!((28..=29).contains(&left), "{left}");
    peer.send(&answer(&correlation(&request), b'y'));
    assert_eq!(now(asked).expect("answered").payload(), b"y");
}

#[test]
fn a_request_leaves_when_the_subscription_for_its_answer_stands() {
    let (setup, mut peer) = Setup::connected();
    let mut one = setup.client.request("t", "1", SECOND);
    let other = setup.client.request("t", "2", SECOND);
    peer.expect(SUBSCRIBE);
    peer.send(SUBACK);
    let both = peer.received();
    let (first, second) = both.split_at(both.len() / 2);
    for (request, payload) in [(first, b'1'), (second, b'2')] {
        // It expires with its timeout.
        let mut expected =
            b"\x30\x32\x00\x01t\x2d\x08\x00\x12coracle/response/c\x09\x00\x10".to_vec();
        expected.extend_from_slice(&correlation(request));
        expected.extend_from_slice(b"\x02\x00\x00\x00\x01");
        expected.push(payload);
        assert_eq!(request, expected);
    }
    let (first, second) = (correlation(first), correlation(second));
    assert_ne!(first, second);
    // In any order.
    peer.send(&answer(&second, b'B'));
    assert!(poll(&mut one).is_none());
    peer.send(&answer(&first, b'A'));
    let (one, other) = (now(one).expect("answered"), now(other).expect("answered"));
    assert_eq!((one.payload(), other.payload()), (&b"A"[..], &b"B"[..]));
    // Nothing is acknowledged at QoS 0, and the subscription stays.
    peer.expect_nothing();
    let _third = setup.client.request("t", "3", SECOND);
    correlation(&peer.received());
}

#[test]
fn before_mqtt_5_the_client_and_a_number_are_levels_of_the_topic() {
    let (setup, mut peer) = Setup::connected_3();
    let requesting = setup.client.request("t", "x", SECOND);
    peer.expect(SUBSCRIBE_3);
    peer.send(SUBACK_3);
    let request = peer.received();
    let text = String::from_utf8_lossy(&request[4..request.len() - 1]).into_owned();
    assert_eq!((request[0], request[request.len() - 1]), (0x30, b'x'));
    let number = text.strip_prefix("t/c/").expect("the levels stand there");
    assert!(u64::from_str_radix(number, 16).is_ok(), "{number}");
    assert_eq!(number.len(), 16);
    for (tail, is_it) in [("0", false), ("x", false), (number, true), (number, false)] {
        let before = setup.client.statistics().unclaimed;
        let topic = format!("coracle/response/c/{tail}");
        let mut packet = vec![0x30, topic.len() as u8 + 3, 0, topic.len() as u8];
        packet.extend_from_slice(topic.as_bytes());
        packet.push(b'y');
        peer.send(&packet);
        let unclaimed = setup.client.statistics().unclaimed - before;
        assert_eq!(unclaimed, u64::from(!is_it), "{tail}");
    }
    let answer = now(requesting).expect("answered");
    assert_eq!(answer.text(), Some("y"));
    assert_eq!(answer.topic(), format!("coracle/response/c/{number}"));
}

#[test]
fn a_request_may_have_its_own_qos_and_properties() {
    let (setup, mut peer) = ready();
    let properties = Properties::new()
        .response_topic("elsewhere")
        .correlation_data(b"mine")
        .content_type("a");
    let message = Message::new("t", "x").properties(properties);
    let mut requesting = setup.client.request_message(message, SECOND);
    let request = peer.received();
    let (head, rest) = request.split_at(request.len() - 17);
    assert_eq!(
        head,
        b"\x32\x33\x00\x01t\x00\x02\x2c\x03\x00\x01a\x08\x00\x12coracle/response/c\x09\x00\x10"
    );
    // PUBACK alone is no answer.
    peer.send(b"\x40\x02\x00\x02");
    assert!(poll(&mut requesting).is_none());
    peer.send(&answer(&rest[..16], b'y'));
    assert!(now(requesting).is_ok());
    assert_eq!(setup.client.statistics().waits, 0);
}

#[test]
fn an_answer_before_puback_is_an_answer() {
    let (setup, mut peer) = ready();
    let requesting = setup.client.request_message(Message::new("t", "x"), SECOND);
    let request = peer.received();
    peer.send(&answer(&correlation(&request), b'y'));
    assert!(now(requesting).is_ok());
    assert_eq!(setup.client.statistics().waits, 1);
    // A refusal after that is nobody's.
    peer.send(b"\x40\x03\x00\x02\x80");
    assert_eq!(setup.client.statistics().waits, 0);
}

#[test]
fn an_answer_of_qos_1_is_acknowledged_when_it_is_taken_or_given_up() {
    let (setup, mut peer) = ready();
    for taken in [true, false] {
        let (mut requesting, correlation) = request(&setup, &mut peer);
        let mut packet = b"\x32\x2b\x00\x12coracle/response/c\x00\x07\x13\x09\x00\x10".to_vec();
        packet.extend_from_slice(&correlation);
        packet.push(b'y');
        peer.send(&packet);
        peer.expect_nothing();
        if taken {
            assert!(poll(&mut requesting).expect("answered").is_ok());
        }
        drop(requesting);
        peer.expect(b"\x40\x02\x00\x07");
        // Repeated, it belongs to nothing, and is acknowledged at once.
        peer.send(&packet);
        peer.expect(b"\x40\x02\x00\x07");
    }
    assert_eq!(setup.client.statistics().unclaimed, 2);
}

// Where answers come.

#[test]
fn the_topic_of_answers_is_as_the_option_the_broker_or_the_client_identifier_says() {
    let plain = |options: Options| options;
    let prefix = |options: Options| options.response_prefix("acme/r/");
    type Change = fn(Options) -> Options;
    let cases: [(&str, &[u8], Change, &str); 6] = [
        ("c", CONNACK, plain, "coracle/response/c"),
        ("a/b+#%", CONNACK, plain, "coracle/response/a%2Fb%2B%23%25"),
        ("c", CONNACK, prefix, "acme/r/c"),
        // Response Information, with and without a slash at its end.
        ("c", b"\x20\x09\x00\x00\x06\x1a\x00\x03r/1", plain, "r/1/c"),
        ("c", b"\x20\x09\x00\x00\x06\x1a\x00\x03r1/", plain, "r1/c"),
        // What cannot begin a topic is ignored.
        (
            "c",
            b"\x20\x09\x00\x00\x06\x1a\x00\x03r/#",
            plain,
            "coracle/response/c",
        ),
    ];
    for (id, connack, change, expected) in cases {
        let world = World::with_peers();
        let options = Options::new("mqtt://broker", id)
            .expect("a URL")
            .connector(world.network())
            .clock(world.clock());
        let setup = Setup::start(world, change(options));
        // Not known before CONNACK, so nothing is prepared.
        let _requesting = setup.client.request("t", "x", SECOND);
        let mut peer = setup.greet(connack);
        let subscribe = peer.received();
        assert_eq!(subscribe[0], 0x82);
        let filter = &subscribe[11..subscribe.len() - 1];
        assert_eq!(filter, expected.as_bytes(), "{}", filter.escape_ascii());
    }
}

#[test]
fn an_assigned_client_identifier_is_used_and_without_one_a_random_name() {
    for (version, connack, start, length) in [
        (
            Version::V5_0,
            &b"\x20\x07\x00\x00\x04\x12\x00\x01z"[..],
            "coracle/response/z",
            18,
        ),
        (
            Version::V3_1_1,
            CONNACK_3,
            "coracle/response/~",
            17 + 17 + 2,
        ),
    ] {
        let world = World::with_peers();
        let options = Options::new("mqtt://broker", "")
            .expect("a URL")
            .version(version)
            .session(coracle::Session::None)
            .connector(world.network())
            .clock(world.clock());
        let setup = Setup::start(world, options);
        let mut peer = setup.greet(connack);
        let _requesting = setup.client.request("t", "x", SECOND);
        let subscribe = peer.received();
        let from = if version == Version::V5_0 { 11 } else { 6 };
        let filter = String::from_utf8_lossy(&subscribe[from..subscribe.len() - 1]).into_owned();
        assert!(filter.starts_with(start), "{filter}");
        assert_eq!(filter.len(), length, "{filter}");
    }
}

#[test]
fn a_prefix_that_is_no_topic_is_a_misuse() {
    for prefix in ["", "a/#", "$share/g/a"] {
        let world = World::with_peers();
        let options = options(&world).response_prefix(prefix);
        let setup = Setup::start(world, options);
        let error = failure(setup.wait(setup.client.request("t", "x", SECOND)));
        assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
        let Setup { world, driver, .. } = setup;
        let error = failure(world.block_on(driver));
        assert_eq!(error.doing(), Doing::Configuring, "{error}");
    }
}

#[test]
fn a_refused_subscription_fails_the_requests_and_the_next_one_asks_again() {
    let (setup, mut peer) = Setup::connected();
    let requesting = setup.client.request("t", "x", SECOND);
    peer.expect(SUBSCRIBE);
    peer.send(b"\x90\x04\x00\x01\x00\x87");
    let error = failure(now(requesting));
    assert_eq!(error.reason(), Some(Reason::NOT_AUTHORIZED));
    assert_eq!((error.doing(), error.sent()), (Doing::Requesting, Sent::No));
    assert!(error.to_string().contains("coracle/response/c"), "{error}");
    let requesting = setup.client.request("t", "x", SECOND);
    peer.expect(b"\x82\x1c\x00\x02\x04\x0b\x81\x80\x01\x00\x12coracle/response/c\x21");
    peer.send(b"\x90\x04\x00\x02\x00\x00");
    let correlation = correlation(&peer.received());
    peer.send(&answer(&correlation, b'y'));
    assert!(now(requesting).is_ok());
}

#[test]
fn who_unsubscribes_from_the_answers_makes_the_next_request_subscribe_again() {
    let (setup, mut peer) = ready();
    let unsubscribing = setup.client.unsubscribe("coracle/response/c", Wait::None);
    now(unsubscribing).expect("accepted");
    peer.expect(b"\xa2\x17\x00\x02\x00\x00\x12coracle/response/c");
    peer.send(b"\xb0\x04\x00\x02\x00\x00");
    let _requesting = setup.client.request("t", "x", SECOND);
    peer.expect(b"\x82\x1c\x00\x03\x04\x0b\x81\x80\x01\x00\x12coracle/response/c\x21");
}

// Answers that belong to nothing.

#[test]
fn late_repeated_and_foreign_answers_are_dropped_and_counted() {
    let (setup, mut peer) = ready();
    let (late, of_late) = request(&setup, &mut peer);
    setup.world.advance(2 * SECOND);
    let error = failure(now(late));
    assert!(matches!(error.kind(), ErrorKind::TimedOut(after) if *after == SECOND));
    // The next one may use the same place, but has another number.
    let (mut requesting, correlation) = request(&setup, &mut peer);
    assert_ne!(correlation, of_late);
    let mut near = correlation;
    near[0] ^= 3;
    let mut other_place = correlation;
    other_place[15] ^= 3;
    for (count, foreign) in [of_late, near, other_place, [b'0'; 16], [0xff; 16]]
        .iter()
        .enumerate()
    {
        peer.send(&answer(foreign, b'n'));
        assert_eq!(setup.client.statistics().unclaimed, count as u64 + 1);
    }
    // Without Correlation Data, and with one of another length.
    peer.send(b"\x30\x16\x00\x12coracle/response/c\x00n");
    peer.send(b"\x30\x1a\x00\x12coracle/response/c\x04\x09\x00\x01an");
    assert_eq!(setup.client.statistics().unclaimed, 7);
    assert!(poll(&mut requesting).is_none());
    peer.send(&answer(&correlation, b'y'));
    peer.send(&answer(&correlation, b'z'));
    assert_eq!(now(requesting).expect("answered").payload(), b"y");
    assert_eq!(setup.client.statistics().unclaimed, 8);
    assert_eq!(setup.client.statistics().waits, 0);
}

#[test]
fn another_process_of_the_same_client_does_not_take_the_answers_of_the_last_one() {
    let of_last = {
        let (setup, mut peer) = ready();
        request(&setup, &mut peer).1
    };
    let (setup, mut peer) = ready();
    let (mut requesting, correlation) = request(&setup, &mut peer);
    assert_ne!(correlation, of_last);
    peer.send(&answer(&of_last, b'n'));
    assert!(poll(&mut requesting).is_none());
    assert_eq!(setup.client.statistics().unclaimed, 1);
}

// How a request ends without an answer.

#[test]
fn the_end_of_time_says_whether_the_request_has_left() {
    // No link.
    let setup = Setup::with_peers();
    let requesting = setup.client.request("t", "x", SECOND);
    setup.world.advance(2 * SECOND);
    let error = failure(now(requesting));
    assert!(matches!(error.kind(), ErrorKind::TimedOut(_)), "{error}");
    assert_eq!((error.doing(), error.sent()), (Doing::Requesting, Sent::No));

    // No SUBACK; and what was withdrawn does not leave when it comes.
    let (setup, mut peer) = Setup::connected();
    let requesting = setup.client.request("t", "x", SECOND);
    setup.world.advance(2 * SECOND);
    assert_eq!(failure(now(requesting)).sent(), Sent::No);
    peer.expect(SUBSCRIBE);
    peer.send(SUBACK);
    peer.expect_nothing();
    assert_eq!(setup.client.statistics().waits, 0);

    // Written; and acknowledged.
    let requesting = setup.client.request("t", "x", SECOND);
    setup.world.advance(2 * SECOND);
    assert_eq!(failure(now(requesting)).sent(), Sent::Maybe);
    for (puback, sent) in [(None, Sent::Maybe), (Some(b"\x40\x02\x00\x02"), Sent::Yes)] {
        let requesting = setup.client.request_message(Message::new("t", "x"), SECOND);
        peer.received();
        if let Some(puback) = puback {
            peer.send(b"\x40\x02\x00\x02");
            peer.send(&[puback[0], puback[1], 0, 3]);
        }
        setup.world.advance(2 * SECOND);
        assert_eq!(failure(now(requesting)).sent(), sent);
    }
    assert_eq!(setup.client.statistics().waits, 0);
}

#[test]
fn a_refusal_ends_a_request_of_qos_1_at_once() {
    let (setup, mut peer) = ready();
    for (id, reason) in [
        (2, Reason::NOT_AUTHORIZED),
        (3, Reason::NO_MATCHING_SUBSCRIBERS),
    ] {
        let requesting = setup.client.request_message(Message::new("t", "x"), SECOND);
        peer.received();
        peer.send(&[0x40, 3, 0, id, reason.code()]);
        let error = failure(now(requesting));
        assert_eq!(error.reason(), Some(reason));
        assert_eq!(
            (error.doing(), error.sent()),
            (Doing::Requesting, Sent::Yes)
        );
    }
    let text = "request: the broker refused: no matching subscribers";
    let requesting = setup.client.request_message(Message::new("t", "x"), SECOND);
    peer.received();
    peer.send(b"\x40\x03\x00\x04\x10");
    assert!(failure(now(requesting)).to_string().starts_with(text));
}

#[test]
fn a_callers_mistake_is_an_error_of_the_call() {
    let (setup, mut peer) = Setup::connected();
    let client = &setup.client;
    let retained = Message::new("t", "x").retain(true);
    for requesting in [
        client.request("a/#", "x", SECOND),
        client.request_message(retained, SECOND),
    ] {
        let error = failure(now(requesting));
        assert_eq!((error.doing(), error.sent()), (Doing::Requesting, Sent::No));
    }
    drop(client.request("t", "x", SECOND));
    // Only the last one wanted the subscription, and it was withdrawn.
    peer.expect(SUBSCRIBE);
    peer.send(SUBACK);
    peer.expect_nothing();
}

#[test]
fn a_dropped_request_is_forgotten() {
    let (setup, mut peer) = ready();
    let (requesting, correlation) = request(&setup, &mut peer);
    drop(requesting);
    assert_eq!(setup.client.statistics().waits, 0);
    peer.send(&answer(&correlation, b'y'));
    assert_eq!(setup.client.statistics().unclaimed, 1);
    // Without a link it has not left, and does not leave later.
    peer.reset();
    drop(setup.client.request("t", "x", SECOND));
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    peer.expect_nothing();
}

#[test]
fn the_end_of_the_client_ends_every_request() {
    for by_user in [true, false] {
        let (setup, mut peer) = ready();
        let (out, _) = request(&setup, &mut peer);
        peer.reset();
        setup.world.run_until_idle();
        let held = setup.client.request("t", "x", SECOND);
        let Setup {
            world,
            client,
            driver,
            ..
        } = setup;
        if by_user {
            drop(client.disconnect());
            world.advance(SECOND / 100);
        } else {
            drop(driver);
            world.run_until_idle();
        }
        for (requesting, sent) in [(out, Sent::Maybe), (held, Sent::No)] {
            let error = failure(now(requesting));
            assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
            assert_eq!(error.sent(), sent);
        }
        let error = failure(now(client.request("t", "x", SECOND)));
        assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
        assert_eq!(error.doing(), Doing::Requesting);
    }
}

#[test]
fn requests_and_their_subscription_do_not_keep_the_driver() {
    let (setup, mut peer) = ready();
    let (requesting, _) = request(&setup, &mut peer);
    let Setup {
        world,
        client,
        driver,
        ..
    } = setup;
    drop(client);
    world.run_until_idle();
    assert_eq!(peer.received(), b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00");
    peer.close();
    assert!(world.block_on(driver).is_ok());
    assert!(matches!(failure(now(requesting)).kind(), ErrorKind::Closed));
}

// Lost links.

#[test]
fn a_request_without_an_answer_is_published_again_after_a_lost_link() {
    let (setup, mut peer) = ready();
    let timeout = Duration::from_secs(100);
    let first = setup.client.request("t", "1", timeout);
    let second = setup.client.request("t", "2", timeout);
    let before = peer.received();
    peer.reset();
    setup.world.run_until_idle();
    let third = setup.client.request("t", "3", timeout);
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    // In their order, and what was published before is the same, its number included, but for its time.
    let again = peer.received();
    assert_eq!(again[..before.len()], aged(&before, 1));
    assert_eq!(again.len(), before.len() / 2 * 3);
    for (requesting, packet) in [first, second, third]
        .into_iter()
        .zip(again.chunks(before.len() / 2))
    {
        peer.send(&answer(&correlation(packet), packet[packet.len() - 1]));
        assert_eq!(
            now(requesting).expect("answered").payload(),
            &packet[packet.len() - 1..]
        );
    }
}

#[test]
fn a_request_that_had_not_left_when_the_link_was_lost_waits_for_the_subscription_again() {
    let (setup, mut peer) = ready();
    let timeout = Duration::from_secs(100);
    let _first = setup.client.request("t", "1", timeout);
    peer.received();
    // In the turn in which the driver sees that the link is gone.
    let _second = setup.client.request("t", "2", timeout);
    peer.reset();
    let mut peer = setup.greet_later(CONNACK);
    peer.expect(b"\x82\x1c\x00\x02\x04\x0b\x80\x80\x01\x00\x12coracle/response/c\x21");
    peer.send(b"\x90\x04\x00\x02\x00\x01");
    let both = peer.received();
    let (first, second) = both.split_at(both.len() / 2);
    assert_eq!((first.last(), second.last()), (Some(&b'1'), Some(&b'2')));
}

#[test]
fn after_a_lost_session_the_subscription_comes_first_and_is_confirmed() {
    for (version, connack, subscribe, suback) in [
        (Version::V5_0, CONNACK, SUBSCRIBE, SUBACK),
        (Version::V3_1_1, CONNACK_3, SUBSCRIBE_3, SUBACK_3),
    ] {
        let world = World::with_peers();
        let options = options(&world).version(version);
        let setup = Setup::start(world, options);
        let mut peer = setup.greet(connack);
        let out = setup.client.request("t", "1", Duration::from_secs(100));
        peer.expect(subscribe);
        peer.send(suback);
        let before = peer.received();
        peer.reset();
        setup.world.run_until_idle();
        let held = setup.client.request("t", "2", Duration::from_secs(100));
        let mut peer = setup.greet_later(connack);
        let mut restored = subscribe.to_vec();
        restored[3] = 2;
        peer.expect(&restored);
        let later = setup.client.request("t", "3", Duration::from_secs(100));
        peer.expect_nothing();
        // The link is lost once more, and the session that began has no subscription yet.
        peer.reset();
        let present = if version == Version::V5_0 {
            CONNACK_PRESENT
        } else {
            CONNACK_3_PRESENT
        };
        let mut peer = setup.greet_later(present);
        restored[3] = 3;
        peer.expect(&restored);
        let mut answered = suback.to_vec();
        answered[3] = 3;
        peer.send(&answered);
        let all = peer.received();
        let first = aged(&before, 3);
        assert!(all.starts_with(&first), "{}", all.escape_ascii());
        // A topic of one letter, and what follows it in each version.
        let topic: &[u8] = if version == Version::V5_0 {
            b"\x01t\x2d"
        } else {
            b"t/c/"
        };
        let count = all
            .windows(topic.len())
            .filter(|window| *window == topic)
            .count();
        assert_eq!((count, all.last()), (3, Some(&b'3')));
        drop((out, held, later));
    }
}

#[test]
fn a_restored_subscription_that_is_refused_fails_what_is_held() {
    let (setup, mut peer) = ready();
    peer.reset();
    setup.world.run_until_idle();
    let requesting = setup.client.request("t", "x", Duration::from_secs(100));
    let mut peer = setup.greet_later(CONNACK);
    peer.received();
    peer.send(b"\x90\x04\x00\x02\x00\x87");
    assert_eq!(
        failure(now(requesting)).reason(),
        Some(Reason::NOT_AUTHORIZED)
    );
    let _next = setup.client.request("t", "x", SECOND);
    peer.expect(b"\x82\x1c\x00\x03\x04\x0b\x81\x80\x01\x00\x12coracle/response/c\x21");
}

#[test]
fn an_acknowledged_request_of_qos_1_is_not_published_again() {
    let (setup, mut peer) = ready();
    let timeout = Duration::from_secs(100);
    let acknowledged = setup
        .client
        .request_message(Message::new("t", "1"), timeout);
    let other = setup
        .client
        .request_message(Message::new("t", "2"), timeout);
    let both = peer.received();
    peer.send(b"\x40\x02\x00\x02");
    peer.reset();
    let mut peer = setup.greet_later(CONNACK_PRESENT);
    let (one, two) = both.split_at(both.len() / 2);
    // Only DUP differs.
    let again = peer.received();
    assert_eq!((again[0], &again[1..]), (0x3a, &two[1..]));
    // The answer that the session has kept.
    peer.send(&answer(&correlation(one), b'1'));
    peer.send(&answer(&correlation(two), b'2'));
    assert_eq!(now(acknowledged).expect("answered").payload(), b"1");
    assert_eq!(now(other).expect("answered").payload(), b"2");
}

#[test]
fn an_answer_that_comes_before_the_request_could_be_repeated_ends_it() {
    let (setup, mut peer) = ready();
    let requesting = setup.client.request("t", "x", Duration::from_secs(100));
    let request = peer.received();
    peer.reset();
    let mut peer = setup.greet_later(CONNACK);
    peer.received();
    // Before SUBACK, from another subscription of ours perhaps.
    peer.send(&answer(&correlation(&request), b'y'));
    assert!(now(requesting).is_ok());
    peer.send(b"\x90\x04\x00\x02\x00\x01");
    peer.expect_nothing();
}

// The other side.

#[test]
fn a_handler_answers_with_the_correlation_data_in_the_same_write() {
    let (setup, mut peer) = Setup::connected();
    let service = setup.client.serve(
        ("t", Qos::AtLeastOnce),
        |request| {
            (request.payload() != b"-").then(|| format!("{}!", request.text().unwrap_or_default()))
        },
        Wait::None,
    );
    let service = now(service).expect("accepted");
    peer.expect(b"\x82\x0b\x00\x01\x04\x0b\x80\x80\x01\x00\x01t\x01");
    peer.send(b"\x90\x04\x00\x01\x00\x01");
    let writes = setup.client.statistics().writes;
    peer.send(b"\x32\x12\x00\x01t\x00\x09\x0b\x08\x00\x03r/1\x09\x00\x02abx");
    peer.expect(b"\x40\x02\x00\x09\x32\x0f\x00\x03r/1\x00\x02\x05\x09\x00\x02abx!");
    assert_eq!(setup.client.statistics().writes, writes + 1);
    // At the QoS of the request; without Correlation Data; without an answer; with nowhere to answer.
    peer.send(b"\x30\x0a\x00\x01t\x05\x08\x00\x02r1y");
    peer.expect(b"\x30\x07\x00\x02r1\x00y!");
    peer.send(b"\x30\x0a\x00\x01t\x05\x08\x00\x02r1-");
    peer.send(b"\x30\x05\x00\x01t\x00z");
    peer.expect_nothing();
    drop(service);
    peer.expect(b"\xa2\x06\x00\x03\x00\x00\x01t");
}

#[test]
fn a_stream_of_requests_answers_later_once_each() {
    let (setup, mut peer) = Setup::connected();
    let filters = Filters::new("$share/g/t", Qos::AtLeastOnce);
    let mut service = now(setup.client.requests(filters, Wait::None)).expect("accepted");
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x01");
    peer.send(b"\x32\x11\x00\x01t\x00\x09\x0a\x08\x00\x03r/1\x09\x00\x01a1");
    peer.send(b"\x32\x11\x00\x01t\x00\x0a\x0a\x08\x00\x03r/1\x09\x00\x01b2");
    peer.expect_nothing();
    let [first, second] = [(); 2].map(|()| service.try_next().expect("it came"));
    assert!(first.wants_answer());
    assert_eq!((first.topic(), first.text()), ("t", Some("1")));
    peer.expect(b"\x40\x02\x00\x09\x40\x02\x00\x0a");
    let reply = Reply::new("B")
        .qos(Qos::AtMostOnce)
        .properties(Properties::new().content_type("x").correlation_data(b"no"));
    now(second.respond(reply, Wait::None)).expect("accepted");
    peer.expect(b"\x30\x0f\x00\x03r/1\x08\x03\x00\x01x\x09\x00\x01bB");
    let mut responding = first.respond(b"A", Wait::Ack);
    peer.expect(b"\x32\x0d\x00\x03r/1\x00\x02\x04\x09\x00\x01aA");
    assert!(poll(&mut responding).is_none());
    peer.send(b"\x40\x02\x00\x02");
    assert!(now(responding).is_ok());

    // Without a place to answer it is a message like any other.
    peer.send(b"\x30\x05\x00\x01t\x00z");
    let request = service.try_next().expect("it came");
    assert!(!request.wants_answer());
    let error = failure(now(request.respond("x", Wait::None)));
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");

    // A request outlives the client, but cannot be answered any more.
    peer.send(b"\x30\x0a\x00\x01t\x05\x08\x00\x02r1y");
    let request = service.try_next().expect("it came");
    let Setup {
        world,
        client,
        driver,
        ..
    } = setup;
    drop((service, client));
    world.run_until_idle();
    peer.close();
    assert!(world.block_on(driver).is_ok());
    let error = failure(now(request.respond("x", Wait::None)));
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
}

#[test]
fn a_response_topic_with_a_wildcard_breaks_the_rules() {
    // [MQTT-3.3.2-14]
    let (mut setup, mut peer) = Setup::connected();
    let service = setup
        .client
        .serve(("t", Qos::AtMostOnce), |_| "x", Wait::None);
    let _service = now(service).expect("accepted");
    peer.received();
    peer.send(b"\x30\x0b\x00\x01t\x06\x08\x00\x03r/#y");
    peer.expect(b"\xe0\x01\x82");
    peer.close();
    let events = setup.events();
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Disconnected { .. })),
        "{events:?}"
    );
}

#[test]
fn before_mqtt_5_a_service_answers_to_the_last_two_levels() {
    let (setup, mut peer) = Setup::connected_3();
    let seen = Rc::new(RefCell::new(String::new()));
    let sees = Rc::clone(&seen);
    let service = setup.client.serve(
        ("a/+", Qos::AtMostOnce),
        move |request| {
            sees.replace(request.topic().to_owned());
            "y"
        },
        Wait::None,
    );
    let _service = now(service).expect("accepted");
    peer.expect(b"\x82\x0c\x00\x01\x00\x07a/+/+/+\x00");
    peer.send(b"\x30\x0c\x00\x09a/b/cl/12x");
    peer.expect(b"\x30\x19\x00\x16coracle/response/cl/12y");
    assert_eq!(*seen.borrow(), "a/b");

    let error = failure(now(setup
        .client
        .requests(("a/#", Qos::AtMostOnce), Wait::None)));
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
}

#[test]
fn an_answer_without_room_is_an_event() {
    let world = World::with_peers();
    let options = options(&world).queue_bytes(1);
    let mut setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    let service = setup
        .client
        .serve(("t", Qos::AtLeastOnce), |_| "y", Wait::None);
    let _service = now(service).expect("accepted");
    peer.received();
    for _ in 0..2 {
        peer.send(b"\x32\x0c\x00\x01t\x00\x09\x05\x08\x00\x02r1x");
    }
    let events = setup.events();
    assert!(
        events.iter().any(|event| matches!(
            event,
            Event::Unpublished { message: Some(message), error }
                if message.topic() == "r1" && matches!(error.kind(), ErrorKind::QueueFull)
        )),
        "{events:?}"
    );
}

// Both sides.

#[test]
fn thousands_are_under_way_and_each_gets_its_own_answer() {
    const COUNT: usize = 5_000;
    for version in [Version::V3_1, Version::V3_1_1, Version::V5_0] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let world = World::new(BrokerOptions::new());
            let options = options(&world).version(version);
            let setup = Setup::start(world.clone(), options);
            let served = Options::new("mqtt://broker", "server")
                .expect("a URL")
                .version(version)
                .connector(world.network())
                .clock(world.clock());
            let server = Setup::start(world, served);
            let mut service = server
                .wait(server.client.requests(("t/+", qos), Wait::Ack))
                .expect("granted");
            let timeout = Duration::from_secs(60);
            let waits: Vec<_> = (0..COUNT)
                .map(|number| {
                    let message = Message::new("t/x", number.to_string()).qos(qos);
                    setup.client.request_message(message, timeout)
                })
                .collect();
            setup.world.run_until_idle();
            // Answered from behind.
            let mut requests: Vec<Request> = std::iter::from_fn(|| service.try_next()).collect();
            while requests.len() < COUNT {
                setup.world.run_until_idle();
                requests.extend(std::iter::from_fn(|| service.try_next()));
            }
            for request in requests.into_iter().rev() {
                let answer = format!("{} {}", request.topic(), request.text().unwrap_or_default());
                drop(request.respond(answer, Wait::None));
            }
            for (number, requesting) in waits.into_iter().enumerate() {
                let answer = setup.wait(requesting).expect("answered");
                assert_eq!(answer.text(), Some(&*format!("t/x {number}")), "{version}");
            }
            assert_eq!(setup.client.statistics().unclaimed, 0);
            assert_eq!(setup.client.statistics().waits, 0);
        }
    }
}

#[test]
fn a_client_may_ask_itself_and_from_within_a_handler() {
    let setup = Setup::with_broker(BrokerOptions::new());
    let client = setup.client.clone();
    let asked = Rc::new(RefCell::new(None));
    let asks = Rc::clone(&asked);
    let inner = client.serve(("inner", Qos::AtMostOnce), |_| "deep", Wait::Ack);
    let _inner = setup.wait(inner).expect("granted");
    let own = client.clone();
    let outer = client.serve(
        ("outer", Qos::AtMostOnce),
        move |_| {
            asks.replace(Some(own.request("inner", "", SECOND)));
            "done"
        },
        Wait::Ack,
    );
    let outer = setup.wait(outer).expect("granted");
    let answer = setup.wait(client.request("outer", "", SECOND));
    assert_eq!(answer.expect("answered").text(), Some("done"));
    let inside = asked.take().expect("it was called");
    assert_eq!(setup.wait(inside).expect("answered").text(), Some("deep"));
    drop(outer);
    setup.world.run_until_idle();
    let error = failure(setup.wait(client.request("outer", "", SECOND)));
    assert!(matches!(error.kind(), ErrorKind::TimedOut(_)), "{error}");
}

#[test]
fn shared_services_spread_the_requests() {
    let world = World::new(BrokerOptions::new());
    let options = options(&world);
    let setup = Setup::start(world.clone(), options);
    let mut servers = Vec::new();
    for name in ["one", "two"] {
        let options = Options::new("mqtt://broker", name)
            .expect("a URL")
            .connector(world.network())
            .clock(world.clock());
        let server = Setup::start(world.clone(), options);
        let shared = ("$share/g/t", Qos::AtMostOnce);
        let service = server.wait(server.client.serve(shared, move |_| name, Wait::Ack));
        servers.push((server, service.expect("granted")));
    }
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let answer = setup.wait(setup.client.request("t", "", SECOND));
        names.insert(answer.expect("answered").text().map(str::to_owned));
    }
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(
        setup.client.statistics().unclaimed,
        0,
        "each is served once"
    );
}

#[test]
fn a_service_from_before_the_version_is_known_has_the_form_of_the_one_that_is_found() {
    let world = World::with_peers();
    let options = options(&world).version(Version::Auto);
    let setup = Setup::start(world, options);
    let client = &setup.client;
    let double = client.serve(
        ("math/double", Qos::AtLeastOnce),
        |request| Some((2 * request.text()?.parse::<i32>().ok()?).to_string()),
        Wait::None,
    );
    let _double = now(double).expect("accepted");
    let stream = client.requests(("house/+/temp", Qos::AtMostOnce), Wait::None);
    let mut stream = now(stream).expect("accepted");
    let everything = client.requests(("all/#", Qos::AtMostOnce), Wait::Ack);
    // Not of requests, and the same filter as one of them.
    let plain = client.subscribe("math/double", Qos::AtMostOnce, Wait::None);
    let mut plain = now(plain).expect("accepted");

    let mut peer = setup.greet(b"\x20\x02\x00\x01");
    peer.close();
    let mut peer = setup.greet(CONNACK_3);
    peer.expect(
        b"\x82\x14\x00\x01\x00\x0fmath/double/+/+\x01\
          \x82\x15\x00\x02\x00\x10house/+/temp/+/+\x00\
          \x82\x10\x00\x03\x00\x0bmath/double\x01",
    );
    let error = failure(now(everything));
    assert!(error.to_string().contains("cannot end with #"), "{error}");
    for suback in [
        b"\x90\x03\x00\x01\x01",
        b"\x90\x03\x00\x02\x00",
        b"\x90\x03\x00\x03\x01",
    ] {
        peer.send(suback);
    }
    peer.send(b"\x30\x15\x00\x11math/double/cl/1221");
    peer.expect(b"\x30\x1a\x00\x16coracle/response/cl/1242");
    peer.send(b"\x30\x14\x00\x11house/x/temp/cl/1x");
    assert_eq!(stream.try_next().expect("it came").topic(), "house/x/temp");
    // What names nobody who asks is no request.
    peer.send(b"\x30\x0f\x00\x0chouse/x/tempx");
    peer.send(b"\x30\x0e\x00\x0bmath/double7");
    peer.expect_nothing();
    assert!(stream.try_next().is_none());
    assert_eq!(plain.try_next().expect("it came").text(), Some("7"));
}

#[test]
fn a_service_has_the_form_of_mqtt_5_again_when_the_older_versions_are_refused_too() {
    let world = World::with_peers();
    let options = options(&world).version(Version::Auto);
    let setup = Setup::start(world, options);
    let filters = Filters::new("t", Qos::AtLeastOnce).and("all/#", Qos::AtMostOnce);
    let service = now(setup.client.serve(filters, |_| "y", Wait::None)).expect("accepted");
    for _ in 0..3 {
        let mut peer = setup.greet(b"\x20\x02\x00\x01");
        peer.close();
    }
    let mut peer = setup.greet_later(CONNACK);
    let subscribe = peer.received();
    assert!(
        subscribe.ends_with(b"\x00\x01t\x01\x00\x05all/#\x00"),
        "{}",
        subscribe.escape_ascii()
    );
    peer.send(b"\x90\x05\x00\x01\x00\x01\x00");
    peer.send(b"\x30\x0e\x00\x05all/1\x05\x08\x00\x02r1x");
    peer.expect(b"\x30\x06\x00\x02r1\x00y");
    drop(service);
}

#[test]
fn what_the_broker_says_with_no_subscribers_is_in_the_error() {
    let (setup, mut peer) = ready();
    let requesting = setup.client.request_message(Message::new("t", "x"), SECOND);
    peer.received();
    peer.send(b"\x40\x08\x00\x02\x10\x04\x1f\x00\x01x");
    let error = failure(now(requesting));
    assert_eq!(error.reason(), Some(Reason::NO_MATCHING_SUBSCRIBERS));
    assert_eq!(error.properties().reason_string(), Some("x"));
    assert!(error.to_string().contains("\"x\""), "{error}");
}

#[test]
fn a_request_that_names_the_old_topic_of_answers_is_still_answered() {
    // A broker that gave the client another name has got the request as it was accepted (section 4.10).
    let world = World::with_peers();
    let options = Options::new("mqtt://a", "")
        .and_then(|options| options.endpoint("mqtt://b"))
        .expect("URLs")
        .connector(world.network())
        .clock(world.clock())
        .seed(1);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(b"\x20\x08\x00\x00\x05\x12\x00\x02A1");
    let timeout = Duration::from_secs(100);
    let requesting = setup
        .client
        .request_message(Message::new("t", "1"), timeout);
    peer.expect(b"\x82\x1d\x00\x01\x04\x0b\x80\x80\x01\x00\x13coracle/response/A1\x21");
    peer.send(SUBACK);
    let first = peer.received();
    let number: [u8; 16] = *first[..first.len() - 1].last_chunk().expect("its number");
    peer.reset();
    setup.until_attempt();
    // The first broker is not there, and the second one has never heard of us.
    let mut peer = setup.world.peer();
    peer.received();
    peer.close();
    let mut peer = setup.greet(b"\x20\x08\x00\x00\x05\x12\x00\x02B1");
    let mut expected =
        b"\x82\x1d\x00\x03\x04\x0b\x80\x80\x01\x00\x13coracle/response/A1\x21".to_vec();
    expected.extend_from_slice(&first);
    // SUBSCRIBE takes 31 bytes; the identifier of PUBLISH is new.
    expected[31 + 6] = 4;
    let received = peer.received();
    assert_eq!(received, expected, "{}", received.escape_ascii());
    peer.send(b"\x90\x04\x00\x03\x00\x01");
    // New requests are answered on the new topic.
    let later = setup
        .client
        .request_message(Message::new("t", "2"), timeout);
    peer.expect(b"\x82\x1d\x00\x05\x04\x0b\x81\x80\x01\x00\x13coracle/response/B1\x21");
    peer.send(b"\x90\x04\x00\x05\x00\x01");
    assert!(!peer.received().is_empty());
    let mut answer = b"\x30\x2a\x00\x13coracle/response/A1\x13\x09\x00\x10".to_vec();
    answer.extend_from_slice(&number);
    answer.push(b'y');
    peer.send(&answer);
    assert_eq!(now(requesting).expect("answered").text(), Some("y"));
    // The old one is of no use any more.
    peer.expect(b"\xa2\x18\x00\x07\x00\x00\x13coracle/response/A1");
    drop(later);
}
