//! Each script is played once for every byte of either direction over which the connection is cut, in
//! every way a connection breaks. The broker keeps the session, so nothing may be lost or doubled.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle::testkit::{BrokerOptions, Cut, World};
use coracle::{Client, ErrorKind, Message, Options, Qos, Version, Wait};

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5_0];
const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
const CUTS: [Cut; 3] = [Cut::Close, Cut::Reset, Cut::Hole];
const PAYLOADS: [&str; 3] = ["one", "two", "three"];

/// Where the connection is cut: after so many bytes to the broker or to the client.
#[derive(Debug, Clone, Copy)]
enum Place {
    Nowhere,
    Sent(usize),
    Received(usize),
}

/// Starts a client in a world that cuts its connection once.
fn start(version: Version, place: Place, cut: Cut) -> (World, Client) {
    let world = World::new(BrokerOptions::new());
    let network = world.network();
    let options = Options::new("mqtt://broker", "c")
        .expect("the URL is well-formed")
        .connector(network.clone())
        .clock(world.clock())
        .seed(1)
        .version(version)
        .keep_alive(Duration::from_secs(10))
        .wait_timeout(Duration::from_secs(600));
    match place {
        Place::Nowhere => {}
        Place::Sent(bytes) => network.cut_after_sent(bytes, cut),
        Place::Received(bytes) => network.cut_after_received(bytes, cut),
    }
    let (client, driver) = Client::new(options);
    world.spawn(driver.run()).detach();
    (world, client)
}

/// Publishes three messages, one after the other's flush, and waits for all.
fn publish(version: Version, qos: Qos, place: Place, cut: Cut) -> World {
    let (world, client) = start(version, place, cut);
    let mut waits = Vec::new();
    for payload in PAYLOADS {
        waits.push(client.publish("t", payload, qos, Wait::Ack));
        world.run_until_idle();
    }
    let mut told = Vec::new();
    for wait in waits {
        told.push(world.block_on(wait));
    }
    world.broker(|broker, _| {
        let violations = broker.violations();
        assert!(violations.is_empty(), "{violations:?}");
        let mut first = Vec::new();
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for message in broker.messages() {
            let payload = std::str::from_utf8(message.payload()).expect("a word");
            let times = times.entry(payload).or_default();
            *times += 1;
            if *times == 1 {
                first.push(payload);
            }
        }
        for (payload, outcome) in PAYLOADS.iter().zip(&told) {
            let times = times.get(payload).copied().unwrap_or(0);
            match (qos, outcome) {
                (Qos::AtMostOnce, Err(error)) => {
                    assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
                    assert!(times <= 1);
                }
                (Qos::AtMostOnce, Ok(_)) => assert!(times <= 1),
                (Qos::AtLeastOnce, outcome) => {
                    assert!(outcome.is_ok() && times >= 1, "{payload}: {outcome:?}");
                }
                (Qos::ExactlyOnce, outcome) => {
                    assert!(
                        outcome.is_ok() && times == 1,
                        "{payload}: {outcome:?}, {times}"
                    );
                }
            }
        }
        let mut expected: Vec<&str> = PAYLOADS.to_vec();
        expected.retain(|payload| first.contains(payload));
        assert_eq!(first, expected, "in order");
    });
    assert_eq!(client.statistics().unfinished, 0);
    drop(client);
    world
}

/// Subscribes, and reads what the broker publishes.
fn receive(version: Version, qos: Qos, place: Place, cut: Cut) -> World {
    let (world, client) = start(version, place, cut);
    let subscribing = client.subscribe("t", qos, Wait::Ack);
    let mut stream = world.block_on(subscribing).expect("granted");
    for payload in PAYLOADS {
        let message = Message::new("t", payload).qos(Qos::ExactlyOnce);
        world.broker(|broker, now| broker.publish(now, &message));
        world.run_until_idle();
    }
    let mut got = Vec::new();
    for _ in 0..120 {
        while let Some(message) = stream.try_next() {
            got.push(message.text().expect("a word").to_owned());
        }
        world.advance(Duration::from_secs(1));
    }
    let mut first = got.clone();
    first.dedup();
    match qos {
        Qos::AtMostOnce => assert!(got.len() <= 3 && got.is_sorted_by_key(|it| place_of(it))),
        // Repeated from the first one on that was not acknowledged.
        Qos::AtLeastOnce => {
            first.sort_unstable_by_key(|it| place_of(it));
            first.dedup();
            assert_eq!(first, PAYLOADS, "{got:?}");
        }
        Qos::ExactlyOnce => assert_eq!(got, PAYLOADS),
    }
    world.broker(|broker, _| {
        let violations = broker.violations();
        assert!(violations.is_empty(), "{violations:?}");
    });
    assert_eq!(client.statistics().waits, 0);
    drop((client, stream));
    world
}

fn place_of(payload: &str) -> usize {
    let place = PAYLOADS.iter().position(|it| *it == payload);
    place.expect("one of ours")
}

/// Plays a script for every place and every way to cut; returns how often.
fn everywhere(play: impl Fn(Place, Cut) -> World) -> usize {
    let network = play(Place::Nowhere, Cut::Close).network();
    let sent = (0..=network.bytes_sent()).map(Place::Sent);
    let received = (0..=network.bytes_received()).map(Place::Received);
    let mut count = 0;
    for place in sent.chain(received) {
        for cut in CUTS {
            let told = Told(place, cut);
            play(place, cut);
            std::mem::forget(told);
            count += 1;
        }
    }
    count
}

/// Tells where the connection was cut when a script fails.
struct Told(Place, Cut);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("the cut was {:?}, {:?}", self.0, self.1);
    }
}

#[test]
fn publishing_survives_a_cut_at_every_byte() {
    for version in VERSIONS {
        for qos in QOS {
            let count = everywhere(|place, cut| publish(version, qos, place, cut));
            assert!(count > 100, "{count} cuts");
        }
    }
}

#[test]
fn receiving_survives_a_cut_at_every_byte() {
    for version in VERSIONS {
        for qos in QOS {
            let count = everywhere(|place, cut| receive(version, qos, place, cut));
            assert!(count > 100, "{count} cuts");
        }
    }
}
