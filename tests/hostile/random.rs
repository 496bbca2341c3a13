//! Random bytes, and random packets, commands, losses and pauses. A failure names its seed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use coracle::codec::subscribe::FilterOptions;
use coracle::protocol::{Accepted, Config, End, Identifier, Outgoing, Subscription, Wish};
use coracle::testkit::{Peer, World};
use coracle::{
    Filters, Message, Properties, PropertyList, Qos, Reason, Session, Version, Wait, WhenFull,
};
use fastrand::Rng;

use super::rig::Rig;
use super::wild::{Greeting, answer, encode, packet, pick, wild_connack};
use super::{SECOND, Setup, VERSIONS, options};

const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
const WAITS: [Wait; 3] = [Wait::None, Wait::Sent, Wait::Ack];
const POLICIES: [WhenFull; 3] = [WhenFull::Fail, WhenFull::DropOldest, WhenFull::DropNewest];
const SESSIONS: [Session; 3] = [Session::Fresh, Session::Resume, Session::None];
const FILTERS: [&str; 7] = ["t", "a/b", "#", "+", "a/+", "$share/g/t", "$SYS/#"];

/// Runs `script` for each seed and version.
fn each(seeds: std::ops::Range<u64>, script: impl Fn(&mut Rng, Version)) {
    for seed in seeds {
        for version in VERSIONS {
            let run = || script(&mut Rng::with_seed(seed), version);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                println!("failed with seed {seed} on {version:?}");
                resume_unwind(panic);
            }
        }
    }
}

#[test]
fn arbitrary_bytes_do_no_harm_in_any_state() {
    each(0..150, |random, version| {
        for state in 0..4 {
            let mut rig = match state {
                0 => Rig::new(Config::new(version, "c")),
                1 => {
                    let mut rig = Rig::new(Config::new(version, "c"));
                    rig.connect();
                    rig
                }
                _ => Rig::online(version),
            };
            if state == 3 {
                rig.protocol
                    .disconnect(Reason::SUCCESS, PropertyList::EMPTY)
                    .expect("two bytes are not too many");
            }
            for _ in 0..10 {
                let mut bytes = match random.u8(..3) {
                    // A packet with a few bytes changed gets further than noise.
                    0 => std::iter::repeat_with(|| random.u8(..)).take(40).collect(),
                    1 => wild_connack(random, version),
                    _ => packet(random, version),
                };
                for _ in 0..random.usize(..3) {
                    let index = random.usize(..bytes.len());
                    bytes[index] = random.u8(..);
                }
                if rig.receive(&bytes).is_err() {
                    break;
                }
                rig.untaken.clear();
            }
            rig.cut(End::Otherwise);
            rig.protocol.close();
            rig.turn();
        }
    });
}

/// A rig and what the script knows of it.
struct Play<'a> {
    rig: Rig,
    random: &'a mut Rng,
    version: Version,
    /// What the client has written and the peer has not answered.
    sent: Vec<u8>,
    /// Messages that the peer sent.
    published: usize,
    subscribers: usize,
}

impl Play<'_> {
    fn reconnect(&mut self, end: End) {
        self.rig.cut(end);
        self.connect();
        for _ in 0..2 {
            let connack = wild_connack(self.random, self.version);
            if self.rig.receive(&connack).is_ok() && !self.rig.protocol.is_leaving() {
                return;
            }
            self.rig.cut(End::ByBroker);
            self.connect();
        }
    }

    fn connect(&mut self) {
        self.rig.wire.clear();
        self.sent.clear();
        self.rig.connect();
    }

    fn step(&mut self) {
        match self.random.u32(..100) {
            0..25 => self.receive(),
            25..45 => self.answer(),
            45..65 => self.publish(),
            65..72 => self.subscribe(),
            72..76 => {
                let filter = Rc::from(pick(self.random, &FILTERS));
                let wait = self.wait();
                self.rig
                    .protocol
                    .unsubscribe(&[filter], Properties::new(), wait);
            }
            76..78 => {
                let token = self.rig.begin_wait();
                if self.rig.protocol.ping(token).is_err() {
                    self.rig.waits.remove(&token);
                }
            }
            78..90 => self.take(),
            90..94 => self.pass(),
            94..97 => {
                self.rig.takes = pick(self.random, &[0, 1, 7, 100, usize::MAX, usize::MAX]);
                self.rig.flushes = self.random.u8(..4) > 0;
            }
            97..99 => {
                let end = pick(self.random, &[End::ByBroker, End::Otherwise]);
                self.reconnect(end);
            }
            _ => {
                let properties = match self.random.bool() {
                    true => Properties::new().session_expiry_interval(0),
                    false => Properties::new(),
                };
                let _ = self
                    .rig
                    .protocol
                    .disconnect(Reason::SUCCESS, properties.list());
            }
        }
        self.rig.turn();
        if self.rig.protocol.is_leaving() {
            self.reconnect(End::Otherwise);
        }
        let unsent = self.rig.protocol.unsent();
        assert!(unsent < 200_000, "{unsent} bytes unsent");
        assert!(
            self.rig.delivered <= self.published,
            "more was delivered than came"
        );
        self.sent.append(&mut self.rig.wire);
    }

    /// The broker answers all that it got.
    fn answer(&mut self) {
        if let Some(answers) = answer(self.version, Greeting::Done, &mut self.sent)
            && self.rig.receive(&answers).is_err()
        {
            self.reconnect(End::Otherwise);
        }
    }

    fn receive(&mut self) {
        if self.rig.protocol.is_clogged() {
            return;
        }
        let packet = packet(self.random, self.version);
        self.published += usize::from(packet[0] & 0xF0 == 0x30);
        if self.rig.receive(&packet).is_err() {
            self.reconnect(End::Otherwise);
        }
    }

    fn publish(&mut self) {
        let topic = pick(self.random, &["t", "a/b", "c"]);
        let payload = vec![b'y'; pick(self.random, &[0, 3, 100, 70_000])];
        let mut properties = Properties::new();
        if self.random.u8(..4) == 0 {
            properties = properties.message_expiry_interval(self.random.u32(1..20));
        }
        let retain = self.random.u8(..4) == 0;
        let qos = pick(self.random, &QOS);
        if qos == Qos::AtMostOnce && self.random.bool() {
            let outgoing = Outgoing {
                topic,
                payload: (&payload).into(),
                properties: properties.list(),
                retain,
            };
            let token = self.random.bool().then(|| self.rig.begin_wait());
            if self.rig.protocol.publish_qos0(outgoing, token).is_err()
                && let Some(token) = token
            {
                self.rig.waits.remove(&token);
            }
            return;
        }
        let message = Message::new(topic, payload)
            .qos(qos)
            .retain(retain)
            .properties(properties);
        let wait = self.wait();
        match (self.rig.protocol.publish(message, wait), wait) {
            (Ok(Accepted::Parked(place)), Some((_, token)))
                if self.random.bool() && self.rig.protocol.withdraw(qos, place).is_some() =>
            {
                self.rig.waits.remove(&token);
            }
            (Err(_), Some((_, token))) => {
                self.rig.waits.remove(&token);
            }
            _ => {}
        }
    }

    fn subscribe(&mut self) {
        self.subscribers += 1;
        let filters = (0..self.random.usize(1..12)).map(|_| {
            let options = FilterOptions {
                qos: pick(self.random, &QOS),
                no_local: false,
                retain_as_published: self.random.bool(),
                retain_handling: self.random.u8(..3),
            };
            let identifiers = [
                Identifier::None,
                Identifier::Automatic(9),
                Identifier::Given(7),
            ];
            Wish {
                filter: Rc::from(pick(self.random, &FILTERS)),
                options,
                identifier: pick(self.random, &identifiers),
            }
        });
        let filters = filters.collect();
        let wait = self.wait();
        self.rig.protocol.subscribe(Subscription {
            owner: self.subscribers,
            filters,
            properties: Properties::new(),
            wait,
        });
    }

    fn take(&mut self) {
        if self.rig.untaken.is_empty() {
            self.rig.takers = self.random.usize(..3);
            return;
        }
        let nth = self.random.usize(..self.rig.untaken.len());
        let receipt = self.rig.untaken.swap_remove(nth);
        match self.random.u8(..6) {
            0 => self.rig.protocol.abandon(receipt),
            1 => self.rig.take(receipt, Reason::NOT_AUTHORIZED),
            // Each of up to two takers; once more than there are is nothing.
            _ => {
                for _ in 0..3 {
                    self.rig.take(receipt, Reason::SUCCESS);
                }
            }
        }
    }

    fn pass(&mut self) {
        let span = Duration::from_millis(self.random.u64(..20_000));
        self.rig.now += span;
        if self.rig.protocol.handle_timeout(self.rig.now).is_err() {
            return self.reconnect(End::Otherwise);
        }
        self.rig.turn();
        if let Some(due) = self.rig.protocol.poll_timeout() {
            assert!(due > self.rig.now, "what was due is due again at once");
        }
    }

    fn wait(&mut self) -> Option<(Wait, usize)> {
        match pick(self.random, &WAITS) {
            Wait::None => None,
            wait => Some((wait, self.rig.begin_wait())),
        }
    }

    /// A broker without a session answers everything.
    fn drain(&mut self) {
        self.rig.takes = usize::MAX;
        self.rig.flushes = true;
        for receipt in std::mem::take(&mut self.rig.untaken) {
            for _ in 0..3 {
                self.rig.take(receipt, Reason::SUCCESS);
            }
        }
        self.rig.cut(End::Otherwise);
        self.rig.wire.clear();
        self.rig.connect();
        for _ in 0..100_000 {
            match answer(self.version, Greeting::Due, &mut self.rig.wire) {
                Some(answers) if answers.is_empty() => return,
                Some(answers) => self.rig.receive(&answers).expect("the broker is fair now"),
                None => {
                    self.rig.cut(End::ByBroker);
                    self.rig.wire.clear();
                    self.rig.connect();
                }
            }
        }
        panic!("it has no end");
    }
}

#[test]
fn whatever_packets_come_everything_ends_and_nothing_leaks() {
    each(0..120, |random, version| {
        let mut config = Config::new(version, "c");
        config.session = pick(random, &SESSIONS);
        config.window = pick(random, &[1, 2, 4, 100]);
        config.receive_maximum = pick(random, &[2, 4, 100, 100]);
        config.queue_bytes = pick(random, &[1, 200, 1000, 200_000]);
        config.inbound_limit = pick(random, &[64, 1000, 100_000, 100_000]);
        config.topic_alias_maximum = 2;
        config.keep_qos0_offline = random.bool();
        config.when_full = pick(random, &POLICIES);
        config.when_full_qos0 = pick(random, &POLICIES);
        config.republish = random.bool();
        config.keep_alive = pick(random, &[0, 10, 60]);
        let mut play = Play {
            rig: Rig::new(config),
            random,
            version,
            sent: Vec::new(),
            published: 0,
            subscribers: 0,
        };
        play.reconnect(End::Otherwise);
        for _ in 0..400 {
            play.step();
        }
        play.drain();
        let rig = &mut play.rig;
        assert!(rig.protocol.is_drained(), "{:?}", rig.protocol);
        for (token, outcome) in &rig.waits {
            assert!(
                outcome.is_some(),
                "wait {token} goes on: {:?}",
                rig.protocol
            );
        }
        // The identifiers and the window are no one's to see, but all of their counts are called so.
        let text = format!("{:?}", rig.protocol);
        assert!(text.contains("used: 0,"));
        assert_eq!(
            text.matches(" used: ").count(),
            text.matches(" used: 0,").count(),
            "{text}"
        );
    });
}

/// Plays one connection at random. Returns whether the peer let go of it.
fn disturb(random: &mut Rng, version: Version, peer: &mut Peer, sent: &mut Vec<u8>) -> bool {
    sent.extend(peer.received());
    match random.u32(..200) {
        0..90 => peer.send(&packet(random, version)),
        90..180 => {
            if let Some(answers) = answer(version, Greeting::Done, sent) {
                peer.send(&answers);
            }
        }
        180..182 => {
            let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(5).collect();
            peer.send(&noise);
        }
        182..184 => {
            let whole = packet(random, version);
            peer.send(&whole[..random.usize(..whole.len())]);
        }
        184..186 => peer.reset(),
        186..188 => peer.close(),
        _ => {}
    }
    sent.extend(peer.received());
    peer.is_closed()
}

#[test]
fn a_whole_client_survives_the_same_with_every_byte_apart() {
    each(0..24, |random, version| {
        let world = World::with_peers();
        let network = world.network();
        network.read_chunk(1);
        let setup = Setup::start(
            &world,
            options(&world, version)
                .session(pick(random, &SESSIONS))
                .window(pick(random, &[1, 2, 4, 100]))
                .receive_maximum(pick(random, &[2, 4, 100, 100]))
                .queue_bytes(pick(random, &[1, 200, 200_000]))
                .stream_bytes(pick(random, &[1, 300, 100_000]))
                .inbound_limit(pick(random, &[64, 1000, 100_000, 100_000]))
                .retry_delays(SECOND, SECOND),
        );
        let client = &setup.client;
        let mut peer: Option<Peer> = None;
        let mut accepted = 0;
        let mut sent = Vec::new();
        let mut streams = Vec::new();
        let mut waits = Vec::new();
        for _ in 0..300 {
            match &mut peer {
                Some(open) => {
                    if disturb(random, version, open, &mut sent) {
                        peer = None;
                    }
                }
                None if network.attempts() > accepted => {
                    accepted += 1;
                    let mut open = world.peer();
                    sent = open.received();
                    let hello = wild_connack(random, version);
                    open.send(&hello);
                    peer = Some(open);
                }
                None => world.advance(SECOND),
            }
            let qos = pick(random, &QOS);
            let filter = pick(random, &FILTERS);
            match random.u32(..100) {
                0..25 => {
                    let payload = vec![b'z'; pick(random, &[0, 10, 300, 70_000])];
                    let publishing = client.publish("t", payload, qos, pick(random, &WAITS));
                    waits.push(world.spawn(async move { drop(publishing.await) }));
                }
                25..35 => {
                    let subscribing = client.subscribe(filter, qos, Wait::None);
                    let mut cx = Context::from_waker(Waker::noop());
                    let mut subscribing = Box::pin(subscribing);
                    if let std::task::Poll::Ready(Ok(stream)) =
                        Pin::new(&mut subscribing).poll(&mut cx)
                    {
                        streams.push(stream);
                    }
                }
                35..38 => {
                    let other = client.clone();
                    let handler = move |incoming: &coracle::Incoming<'_>| {
                        let topic = incoming.topic();
                        drop(other.publish(topic, incoming.payload(), qos, Wait::None));
                    };
                    let filters = Filters::new("a/b", qos);
                    let subscribing = client.subscribe_inline(filters, handler, Wait::Ack);
                    waits.push(world.spawn(async move { drop(subscribing.await) }));
                }
                38..43 => drop(client.unsubscribe(filter, Wait::None)),
                43..46 => {
                    let pinging = client.ping();
                    waits.push(world.spawn(async move { drop(pinging.await) }));
                }
                46..48 => drop(client.reconnect()),
                48..60 if !streams.is_empty() => {
                    drop(streams.swap_remove(random.usize(..streams.len())));
                }
                60..80 => {
                    for stream in &mut streams {
                        drop(stream.try_next());
                    }
                }
                80..84 => world.advance(Duration::from_millis(random.u64(..10_000))),
                84..86 => network.send_buffer(pick(random, &[1, 100, usize::MAX])),
                86..88 if random.bool() => network.stall(),
                86..90 => network.unstall(),
                _ => world.run_until_idle(),
            }
            let statistics = client.statistics();
            assert!(statistics.received <= statistics.bytes_in / 2);
        }
        // From now on the broker answers everything.
        drop((peer, streams));
        network.cut(coracle::testkit::Cut::Reset);
        network.send_buffer(usize::MAX);
        network.unstall();
        network.read_chunk(usize::MAX);
        let mut peers: Vec<Peer> = Vec::new();
        let mut quiet = 0;
        while quiet < 70 {
            quiet += 1;
            world.advance(SECOND);
            while network.attempts() > accepted {
                accepted += 1;
                peers.push(world.peer());
            }
            for peer in &mut peers {
                loop {
                    let mut sent = peer.received();
                    if sent.is_empty() || peer.is_closed() {
                        break;
                    }
                    quiet = if sent == encode(&coracle::codec::Packet::Pingreq, version) {
                        quiet
                    } else {
                        0
                    };
                    match answer(version, Greeting::Due, &mut sent) {
                        Some(answers) => peer.send(&answers),
                        None => peer.close(),
                    }
                }
            }
            peers.retain(|peer| !peer.is_closed());
        }
        assert!(client.is_connected());
        assert_eq!(client.statistics().unfinished, 0);
        assert_eq!(client.statistics().pending, 0);
        for wait in waits {
            assert!(wait.is_finished(), "a wait goes on");
        }
        let leaving = client.disconnect();
        for _ in 0..3 {
            world.advance(SECOND);
        }
        assert!(world.block_on(leaving).is_ok());
        assert!(world.block_on(setup.driver).is_ok());
    });
}
