//! What a hostile peer makes the client hold, counted.
//!
//! One test in a binary of its own, because the allocator counts for the whole process.

use std::alloc::System;

use coracle::testkit::{Peer, World};
use coracle::{Acknowledge, Client, Filters, Options, Qos, Subscription, Version, Wait};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

const MIB: isize = 1024 * 1024;

/// Bytes that are held since the region began; the network's own buffers, which hold what was sent last,
/// are part of it.
fn held(region: &Region<'_, System>) -> isize {
    let change = region.change();
    isize::try_from(change.bytes_allocated).expect("it fits")
        - isize::try_from(change.bytes_deallocated).expect("it fits")
}

struct Setup {
    world: World,
    client: Client,
    peer: Peer,
}

impl Setup {
    /// A client whose CONNECT has been sent.
    fn connecting(version: Version) -> Self {
        Self::start(version, |options| options)
    }

    fn start(version: Version, change: impl FnOnce(Options) -> Options) -> Self {
        let world = World::with_peers();
        let options = Options::new("mqtt://broker", "c")
            .expect("the URL is well-formed")
            .version(version)
            .session(coracle::Session::None)
            .receive_maximum(1024)
            .connector(world.network())
            .clock(world.clock())
            .seed(1);
        let (client, driver) = Client::new(change(options));
        world.spawn(driver.run()).detach();
        let mut peer = world.peer();
        peer.received();
        Self {
            world,
            client,
            peer,
        }
    }

    fn connected(version: Version) -> Self {
        let mut setup = Self::connecting(version);
        setup.greet(version);
        setup
    }

    fn greet(&mut self, version: Version) {
        self.peer.send(match version {
            Version::V5_0 => b"\x20\x03\x00\x00\x00",
            _ => b"\x20\x02\x00\x00",
        });
        assert!(self.client.is_connected());
    }

    fn subscribe(&mut self, acknowledge: Acknowledge, filter: &str) -> Subscription {
        let filters = Filters::new(filter, Qos::ExactlyOnce).acknowledge(acknowledge);
        let stream = self.client.subscribe_many(filters, Wait::None);
        let stream = self.world.block_on(stream).expect("it is accepted");
        self.peer.received();
        stream
    }
}

/// PUBLISH to the topic `t` with these properties.
fn publish(version: Version, first: u8, id: u16, properties: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1, b't'];
    if first & 0x06 != 0 {
        body.extend(id.to_be_bytes());
    }
    if version == Version::V5_0 {
        body.extend(length(properties.len()));
        body.extend(properties);
    }
    let mut packet = vec![first];
    packet.extend(length(body.len()));
    packet.extend(body);
    packet
}

fn length(mut left: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(left & 0x7F).expect("seven bits");
        left >>= 7;
        if left == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[test]
fn a_hostile_peer_costs_bounded_memory() {
    // What belongs to the thread and not to a client: the buffer to read into.
    drop(Setup::connected(Version::V5_0));
    for version in [Version::V3_1_1, Version::V5_0] {
        an_announced_length_costs_nothing(version);
        an_announced_length_costs_nothing_though_it_would_be_accepted(version);
        a_peer_that_never_reads_is_bounded(version);
        a_dripping_packet_costs_what_has_come(version);
        tiny_packets_cost_nothing(version);
        an_unread_stream_is_bounded(version);
        messages_taken_behind_an_unread_one_cost_nothing(version);
    }
    messages_of_nothing_but_properties_are_bounded();
    what_is_said_beside_a_pubrec_is_bounded();
    what_is_said_beside_a_suback_is_bounded();
    an_identifier_that_is_named_again_and_again_costs_nothing();
    every_identifier_in_use_is_bounded();
}

/// 256 MB are announced, and nothing follows.
fn an_announced_length_costs_nothing(version: Version) {
    for first in [0x20, 0x30, 0x32, 0x40, 0xF0] {
        for is_connected in [false, true] {
            let mut setup = if is_connected {
                Setup::connected(version)
            } else {
                Setup::connecting(version)
            };
            let region = Region::new(ALLOCATOR);
            setup
                .peer
                .send(&[first, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, b't', 0, 1, 0]);
            let held = held(&region);
            assert!(
                held < 16 * 1024,
                "{held} bytes for {first:x} on {version:?}"
            );
            // A message of 3.1.1 is skipped as it comes.
            setup.peer.send(&vec![0; 1_000_000]);
            setup.peer.received();
            let held = self::held(&region);
            assert!(held < 3 * MIB, "{held} bytes for {first:x} on {version:?}");
        }
    }
}

/// The same, and the options allow as much as MQTT can announce. Not what is held is counted but all that
/// was ever allocated, so that no peak is overlooked.
fn an_announced_length_costs_nothing_though_it_would_be_accepted(version: Version) {
    let mut setup = Setup::start(version, |options| options.inbound_limit(usize::MAX));
    setup.greet(version);
    let region = Region::new(ALLOCATOR);
    setup
        .peer
        .send(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, b't', 0, 1, 0]);
    let peak = region.change().bytes_allocated;
    // 64 KiB of it is the buffer to read into, which all clients of the thread share.
    assert!(peak < 128 * 1024, "{peak} bytes on {version:?}");
    // What has come may be held, and the room to grow into.
    setup.peer.send(&vec![0; 1_000_000]);
    let held = held(&region);
    assert!(held < 4 * MIB, "{held} bytes on {version:?}");
    assert!(setup.client.is_connected());
}

/// It takes 1,000 bytes, sends what wants answers without end, and the application publishes without end.
fn a_peer_that_never_reads_is_bounded(version: Version) {
    let mut setup = Setup::connected(version);
    setup.world.network().stall();
    setup.world.network().send_buffer(1000);
    let region = Region::new(ALLOCATOR);
    let wants_answers = b"\x50\x02\x00\x01".repeat(1000);
    for _ in 0..100 {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for payload in [vec![b'x'; 100], vec![b'x'; 70_000]] {
                drop(setup.client.publish("t", payload, qos, Wait::None));
            }
        }
        setup.world.run_until_idle();
    }
    let held = held(&region);
    // Two queues of 1 MiB, and what is encoded twice of them.
    assert!(held < 4 * MIB, "{held} bytes on {version:?}");
    // The far side's bytes are in the network, which holds what nobody reads; so little is sent.
    for _ in 0..100 {
        setup.peer.send(&wants_answers);
    }
    let held = self::held(&region);
    assert!(held < 5 * MIB, "{held} bytes on {version:?}");
    assert!(setup.client.is_connected());
}

/// One byte a second of a packet at the limit.
fn a_dripping_packet_costs_what_has_come(version: Version) {
    let mut setup = Setup::connected(version);
    let region = Region::new(ALLOCATOR);
    // 1,000,000 bytes are announced.
    setup.peer.send(&[0x30, 0xC0, 0x84, 0x3D, 0, 1, b't', 0]);
    for _ in 0..1000 {
        setup.peer.send(b"x");
        setup.world.advance(SECOND);
    }
    let held = held(&region);
    assert!(held < 256 * 1024, "{held} bytes on {version:?}");
    assert!(setup.client.is_connected());
}

fn tiny_packets_cost_nothing(version: Version) {
    let mut setup = Setup::connected(version);
    let tiny: [&[u8]; 3] = [b"\xd0\x00", b"\x40\x02\x00\x01", b"\x62\x02\x00\x01"];
    let flood = tiny.concat().repeat(1000);
    let region = Region::new(ALLOCATOR);
    for _ in 0..100 {
        setup.peer.send(&flood);
        setup.peer.received();
    }
    let held = held(&region);
    assert!(held < MIB, "{held} bytes on {version:?}");
    assert_eq!(setup.client.statistics().stray, 200_000);
}

/// Nobody reads the stream: its queue has a bound of 1 MiB, of which an empty message counts 65 bytes.
fn an_unread_stream_is_bounded(version: Version) {
    for first in [0x30, 0x32, 0x34] {
        let mut setup = Setup::connected(version);
        let stream = setup.subscribe(Acknowledge::OnReceipt, "t");
        let region = Region::new(ALLOCATOR);
        for id in 1..=20_000 {
            setup.peer.send(&publish(version, first, id, b""));
            if first == 0x34 && version == Version::V5_0 {
                let [high, low] = id.to_be_bytes();
                setup.peer.send(&[0x62, 2, high, low]);
            }
            setup.peer.received();
        }
        let held = held(&region);
        assert!(held < 12 * MIB, "{held} bytes for {first:x} on {version:?}");
        assert!(stream.len() <= 16_384);
        assert!(setup.client.is_connected());
    }
}

/// The first message is left unread, so that its deadline lies before those of all that are taken.
fn messages_taken_behind_an_unread_one_cost_nothing(version: Version) {
    let mut setup = Setup::connected(version);
    let unread = setup.subscribe(Acknowledge::OnTake, "unread");
    let mut read = setup.subscribe(Acknowledge::OnTake, "t");
    let mut first = publish(version, 0x34, 1, b"");
    first.splice(1..5, [first[1] + 5, 0, 6, b'u']);
    first.splice(5..5, *b"nread");
    setup.peer.send(&first);
    assert_eq!(unread.len(), 1);
    let region = Region::new(ALLOCATOR);
    for _ in 0..20_000 {
        setup.peer.send(&publish(version, 0x32, 2, b""));
        assert!(read.try_next().is_some());
        setup.peer.received();
    }
    let held = held(&region);
    assert!(held < 64 * 1024, "{held} bytes on {version:?}");
    assert_eq!(unread.len(), 1);
}

/// Without payload, but with a megabyte of properties each.
fn messages_of_nothing_but_properties_are_bounded() {
    let mut setup = Setup::connected(Version::V5_0);
    let _stream = setup.subscribe(Acknowledge::OnTake, "t");
    let property = [b"\x26\x00\x01k\xff\xf0".as_slice(), &[b'v'; 0xFFF0]].concat();
    let packet = publish(Version::V5_0, 0x30, 0, &property.repeat(10));
    let region = Region::new(ALLOCATOR);
    for _ in 0..60 {
        setup.peer.send(&packet);
    }
    let held = held(&region);
    assert!(held < 6 * MIB, "{held} bytes");
}

/// User properties of some 640 KB.
fn many_words() -> Vec<u8> {
    [b"\x26\x00\x01k\xff\xf0".as_slice(), &[b'v'; 0xFFF0]]
        .concat()
        .repeat(10)
}

/// An answer with these properties: PUBREC, SUBACK.
fn answer(first: u8, id: u16, reason: u8, properties: &[u8]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if first == 0x50 {
        body.push(reason);
    }
    body.extend(length(properties.len()));
    body.extend(properties);
    if first == 0x90 {
        body.push(reason);
    }
    let mut packet = vec![first];
    packet.extend(length(body.len()));
    packet.extend(body);
    packet
}

/// A hundred exchanges that never end, each with all that a broker may say in a packet.
fn what_is_said_beside_a_pubrec_is_bounded() {
    let mut setup = Setup::connected(Version::V5_0);
    let words = many_words();
    let region = Region::new(ALLOCATOR);
    let mut waits = Vec::new();
    for id in 1..=100 {
        let publishing = setup.client.publish("t", "x", Qos::ExactlyOnce, Wait::Ack);
        waits.push(publishing);
        setup.world.run_until_idle();
        setup.peer.received();
        setup.peer.send(&answer(0x50, id, 0, &words));
        setup.peer.received();
    }
    let held = held(&region);
    assert!(held < 4 * MIB, "{held} bytes");
    assert!(setup.client.is_connected());
}

/// Thirty handles, each granted with as much.
fn what_is_said_beside_a_suback_is_bounded() {
    let mut setup = Setup::connected(Version::V5_0);
    let words = many_words();
    let region = Region::new(ALLOCATOR);
    let mut streams = Vec::new();
    for id in 1..=30 {
        let subscribing = setup.client.subscribe("t", Qos::AtMostOnce, Wait::Ack);
        setup.world.run_until_idle();
        setup.peer.received();
        setup.peer.send(&answer(0x90, id, 0, &words));
        let stream = setup.world.block_on(subscribing).expect("granted");
        streams.push(stream);
    }
    let held = held(&region);
    assert!(held < 4 * MIB, "{held} bytes");
}

/// A message that says a quarter of a million times for which subscription it is.
fn an_identifier_that_is_named_again_and_again_costs_nothing() {
    let mut setup = Setup::connected(Version::V5_0);
    let mut streams: Vec<_> = (0..20)
        .map(|_| setup.subscribe(Acknowledge::OnTake, "t"))
        .collect();
    let packet = publish(Version::V5_0, 0x30, 0, &b"\x0b\x80\x80\x01".repeat(250_000));
    let region = Region::new(ALLOCATOR);
    setup.peer.send(&packet);
    for stream in &mut streams {
        assert!(stream.try_next().is_some());
        assert!(stream.try_next().is_none(), "once");
    }
    let held = held(&region);
    assert!(held < MIB, "{held} bytes");
}

/// QoS 2 messages under all identifiers, and none is ever released.
fn every_identifier_in_use_is_bounded() {
    let mut setup = Setup::connected(Version::V3_1_1);
    let region = Region::new(ALLOCATOR);
    for (round, last) in [(0, 65_535), (1, 5_000)] {
        for id in 1..=last {
            setup
                .peer
                .send(&publish(Version::V3_1_1, 0x34 | (round * 8), id, b""));
            setup.peer.received();
        }
        let held = held(&region);
        assert!(held < 8 * MIB, "{held} bytes");
    }
    assert!(setup.client.is_connected());
    let mut setup = Setup::connected(Version::V5_0);
    for id in 1..=1024 {
        setup.peer.send(&publish(Version::V5_0, 0x34, id, b""));
    }
    setup.peer.received();
    setup.peer.send(&publish(Version::V5_0, 0x34, 1025, b""));
    // [MQTT-3.3.4-9]
    setup.peer.expect(b"\xe0\x01\x93");
}
