//! Long random schedules against a small model of a broker: publishes of every QoS, subscribes, cuts at
//! any byte, sessions kept and lost, and with a store the process killed. What must hold whatever happens is
//! asserted on the wire and at the end. A schedule depends on its seed alone; the seed of one that fails is printed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use coracle::codec::publish::AckKind;
use coracle::codec::subscribe::ReasonList;
use coracle::codec::{Ack, Connack, Packet, Publish, Split, Suback, Unsuback, decode, split};
use coracle::{ErrorKind, Message, PacketId, Properties, PropertyList, Qos, Reason, Version, Wait};

use crate::*;

/// Schedules per test. Each takes about 5 ms.
const SEEDS: u64 = 200;

/// Steps of one schedule.
const STEPS: usize = 400;

/// What becomes of the session at a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    /// Lost now and then.
    Fickle,
}

#[test]
fn v5_with_the_session_kept() {
    run(Version::V5_0, Fate::Kept);
}

#[test]
fn v5_with_the_session_lost_now_and_then() {
    run(Version::V5_0, Fate::Fickle);
}

#[test]
fn v3_1_1_with_the_session_kept() {
    run(Version::V3_1_1, Fate::Kept);
}

#[test]
fn v3_1_1_with_the_session_lost_now_and_then() {
    run(Version::V3_1_1, Fate::Fickle);
}

#[test]
fn v3_1_with_the_session_kept() {
    run(Version::V3_1, Fate::Kept);
}

#[test]
fn v3_1_with_the_session_lost_now_and_then() {
    run(Version::V3_1, Fate::Fickle);
}

#[test]
fn v5_with_the_process_killed_now_and_then() {
    run_mortal(Version::V5_0, Fate::Kept);
}

#[test]
fn v5_with_the_process_killed_and_the_session_lost() {
    run_mortal(Version::V5_0, Fate::Fickle);
}

#[test]
fn v3_1_1_with_the_process_killed_now_and_then() {
    run_mortal(Version::V3_1_1, Fate::Kept);
}

#[test]
fn v3_1_1_with_the_process_killed_and_the_session_lost() {
    run_mortal(Version::V3_1_1, Fate::Fickle);
}

#[test]
fn v3_1_with_the_process_killed_now_and_then() {
    run_mortal(Version::V3_1, Fate::Kept);
}

fn run(version: Version, fate: Fate) {
    play_seeds(version, fate, None);
}

/// With a store, whose disk is as slow as the schedule likes.
fn run_mortal(version: Version, fate: Fate) {
    play_seeds(version, fate, Some(Disk::default()));
}

fn play_seeds(version: Version, fate: Fate, disk: Option<Disk>) {
    for seed in 0..SEEDS {
        let _told = Seed(seed);
        let mut world = World::new(version, fate, seed);
        if let Some(disk) = &disk {
            world.scene.boot(disk.clone());
        }
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        world.judge();
    }
}

/// Tells the seed of a schedule that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}", self.0);
        }
    }
}

/// A message on its way to the broker, by the number in its payload.
#[derive(Debug, Clone, Copy)]
struct Mine {
    qos: Qos,
    wait: Wait,
    token: Token,
    /// Its place while it is parked.
    place: Option<u64>,
    /// The process was killed before anything was promised.
    unsure: bool,
}

/// What the broker keeps for the client across connections.
#[derive(Debug, Default)]
struct Kept {
    filters: BTreeMap<String, Qos>,
    /// QoS 2 identifiers of the client that it has not released.
    recorded: BTreeSet<PacketId>,
    /// Messages to the client that are not finished, oldest first.
    outgoing: VecDeque<Theirs>,
    last_id: u16,
}

/// A message on its way to the client.
#[derive(Debug, Clone, Copy)]
struct Theirs {
    number: u32,
    qos: Qos,
    id: Option<PacketId>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Never sent.
    New,
    /// Sent on an earlier connection.
    Again,
    /// Sent on this connection.
    Sent,
    /// PUBREC came; PUBREL was sent on an earlier connection.
    ReleaseAgain,
    /// PUBREC came; PUBREL was sent on this connection.
    Released,
}

struct World {
    scene: Scene,
    random: fastrand::Rng,
    version: Version,
    fate: Fate,
    kept: Option<Kept>,
    /// What belongs to the connection at the broker; none while there is none.
    connection: Option<Connection>,
    /// Numbers of messages by class in the order of their first arrival, and how often each arrived.
    at_broker: BTreeMap<u32, u32>,
    first_at_broker: Vec<u32>,
    first_zero_at_broker: Vec<u32>,
    at_client: BTreeMap<u32, u32>,
    first_at_client: Vec<u32>,
    mine: BTreeMap<u32, Mine>,
    /// Messages that the client said will not be published.
    unpublished: BTreeSet<u32>,
    /// QoS 2 messages that the client gave up, by number.
    given_up: BTreeSet<u32>,
    withdrawn: BTreeSet<u32>,
    refused: BTreeSet<u32>,
    theirs: BTreeMap<u32, Qos>,
    next: u32,
    /// Filters as the last call left them; none for unsubscribed.
    wanted: BTreeMap<String, Option<Qos>>,
    losses: u32,
    /// Whether a CONNACK that told of a loss was lost itself.
    hidden: bool,
    /// Whether the client has a session of its own.
    begun: bool,
    /// PUBLISHes that the client began and that are not finished as far as it knows, by identifier.
    open: BTreeMap<PacketId, u32>,
    kills: u32,
    /// QoS 2 messages of the broker for which PUBREC has left.
    answered: BTreeSet<u32>,
    /// How often one may come again, because it was taken and not yet recorded when the process was killed.
    again: BTreeMap<u32, u32>,
}

#[derive(Debug, Default)]
struct Connection {
    /// Bytes of the client that arrived and are not a whole packet yet.
    input: Vec<u8>,
    /// Bytes to the client that have not arrived.
    output: VecDeque<u8>,
    connected: bool,
    closed: bool,
    /// Before 5.0 a clean session ends with its connection, in 5.0 one without an expiry interval.
    ends_session: bool,
    /// CONNACK said that there was no session.
    begins_session: bool,
    receive_maximum: usize,
    /// PUBLISHes that arrived and whose last answer has not reached the client.
    window: BTreeSet<PacketId>,
    /// Acknowledgements that the client owes, in order.
    pubacks: VecDeque<PacketId>,
    pubrecs: VecDeque<PacketId>,
    /// What of the output was a packet that finishes an exchange, by where it ends.
    finishes: VecDeque<(u64, PacketId)>,
    written: u64,
    read: u64,
}

impl World {
    fn new(version: Version, fate: Fate, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let config = Config {
            queue_bytes: random.usize(100..2000),
            window: random.u16(1..20),
            receive_maximum: random.u16(1..10),
            keep_qos0_offline: random.bool(),
            ..config(version)
        };
        let mut scene = Scene::new(config, Feed::Whole);
        scene.hold = true;
        // An earlier process may have left something.
        let kept = random.bool().then(|| Kept {
            filters: BTreeMap::from([("left/over".into(), Qos::AtLeastOnce)]),
            ..Kept::default()
        });
        Self {
            scene,
            random,
            version,
            fate,
            kept,
            connection: None,
            at_broker: BTreeMap::new(),
            first_at_broker: Vec::new(),
            first_zero_at_broker: Vec::new(),
            at_client: BTreeMap::new(),
            first_at_client: Vec::new(),
            mine: BTreeMap::new(),
            unpublished: BTreeSet::new(),
            given_up: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            refused: BTreeSet::new(),
            theirs: BTreeMap::new(),
            next: 0,
            wanted: BTreeMap::new(),
            losses: 0,
            begun: false,
            hidden: false,
            open: BTreeMap::new(),
            kills: 0,
            answered: BTreeSet::new(),
            again: BTreeMap::new(),
        }
    }

    // The schedule.

    fn step(&mut self) {
        match self.random.u8(..100) {
            0..25 => self.publish(),
            25..45 => self.flow_to_broker(),
            45..65 => self.flow_to_client(),
            65..75 => self.broker_publishes(),
            75..83 => self.take(),
            83..86 => self.subscribe(),
            86..88 => self.unsubscribe(),
            88..91 => self.transport(),
            91..93 => self.withdraw(),
            93..95 => self.pass(),
            95..97 => self.stray(),
            97.. if self.scene.disk.is_some() && self.random.bool() => self.kill(),
            97.. => self.cut(),
        }
        if self.random.u8(..3) == 0 {
            self.commit();
        }
        if self.connection.is_none() && self.random.u8(..4) == 0 {
            self.connect();
        }
        self.look();
    }

    /// No more cuts and refusals: everything has to come to its end.
    fn settle(&mut self) {
        self.fate = Fate::Kept;
        for round in 0..10_000 {
            if self.connection.is_none() {
                self.connect();
            }
            self.scene.takes = usize::MAX;
            self.scene.flushes = true;
            self.commit();
            self.scene.turn();
            if self.scene.protocol.is_online() {
                // What an earlier process had subscribed to ends after a while.
                self.scene.wait(1);
            }
            let wire = self.scene.wire.len();
            self.deliver_to_broker(wire);
            let output = self.connection.as_ref().map_or(0, |it| it.output.len());
            self.deliver_to_client(output);
            while !self.scene.got.is_empty() {
                self.take();
            }
            self.look();
            let quiet = self.scene.wire.is_empty()
                && self
                    .connection
                    .as_ref()
                    .is_some_and(|it| it.output.is_empty())
                && self.kept.as_ref().is_some_and(|it| it.outgoing.is_empty());
            // Longer than what an earlier process had subscribed to goes on.
            let rested = self.kills == 0 || round > 10;
            if quiet
                && rested
                && self.scene.protocol.is_online()
                && self.scene.protocol.is_drained()
            {
                return;
            }
        }
        panic!("it does not settle: {:?}", self.scene.protocol);
    }

    fn publish(&mut self) {
        let qos = Qos::from_bits(self.random.u8(..3)).expect("0 to 2");
        let wait = [Wait::None, Wait::Sent, Wait::Ack][self.random.usize(..3)];
        let number = self.next;
        self.next += 1;
        // Some are large enough to fill the out buffer.
        let padding = if self.random.u8(..20) == 0 { 70_000 } else { 0 };
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(4 + padding, 0);
        let message = Message::new("t", payload).qos(qos);
        let (with, token) = self.scene.begin_for(wait);
        let place = match self.scene.protocol.publish(message, with) {
            Ok(Accepted::Yes | Accepted::Dropped) => None,
            Ok(Accepted::Parked(place)) => Some(place),
            Err((_, error)) => {
                assert!(
                    matches!(error.kind(), ErrorKind::QueueFull | ErrorKind::LinkLost),
                    "{error}"
                );
                self.scene.waits.remove(&token);
                return;
            }
        };
        self.mine.insert(
            number,
            Mine {
                qos,
                wait,
                token,
                place,
                unsure: false,
            },
        );
        if self.random.bool() {
            self.scene.turn();
        }
    }

    fn withdraw(&mut self) {
        let parked: Vec<_> = self
            .mine
            .iter()
            .filter_map(|(number, mine)| mine.place.map(|place| (*number, *mine, place)))
            .collect();
        let Some((number, mine, place)) = self.random.choice(parked) else {
            return;
        };
        if self.scene.protocol.withdraw(mine.qos, place).is_some() {
            self.scene.goes_on(mine.token);
            self.scene.waits.remove(&mine.token);
            self.mine.remove(&number);
            self.withdrawn.insert(number);
        }
    }

    fn subscribe(&mut self) {
        let count = self.random.usize(1..12);
        let qos = Qos::from_bits(self.random.u8(..3)).expect("0 to 2");
        let filters: Vec<String> = (0..count)
            .map(|_| format!("f/{}", self.random.u8(..15)))
            .collect();
        for filter in &filters {
            self.wanted.insert(filter.clone(), Some(qos));
        }
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let wait = [Wait::None, Wait::Sent, Wait::Ack][self.random.usize(..3)];
        self.scene.subscribe(&filters, qos, wait);
    }

    fn unsubscribe(&mut self) {
        let count = self.random.usize(1..12);
        let filters: Vec<String> = (0..count)
            .map(|_| format!("f/{}", self.random.u8(..15)))
            .collect();
        for filter in &filters {
            self.wanted.insert(filter.clone(), None);
        }
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let wait = [Wait::None, Wait::Sent, Wait::Ack][self.random.usize(..3)];
        self.scene.unsubscribe(&filters, wait);
    }

    fn broker_publishes(&mut self) {
        if !self.begun {
            return;
        }
        let Some(kept) = &mut self.kept else { return };
        let qos = Qos::from_bits(self.random.u8(1..3)).expect("1 or 2");
        let number = self.next;
        self.next += 1;
        self.theirs.insert(number, qos);
        kept.outgoing.push_back(Theirs {
            number,
            qos,
            id: None,
            stage: Stage::New,
        });
        self.broker_sends();
    }

    fn take(&mut self) {
        // In any order.
        let count = self.scene.got.len();
        if count == 0 {
            return;
        }
        let index = self.random.usize(..count);
        let got = self.scene.got.remove(index).expect("below the length");
        self.scene.take(&got);
    }

    fn transport(&mut self) {
        self.scene.takes = match self.random.u8(..4) {
            0 => 0,
            1 => self.random.usize(1..100),
            _ => usize::MAX,
        };
        self.scene.flushes = self.random.u8(..3) > 0;
        self.scene.turn();
    }

    fn pass(&mut self) {
        let span = Duration::from_millis(self.random.u64(..20_000));
        if self.scene.pass(span).is_err() {
            self.drop_link(End::Otherwise);
        }
    }

    /// An acknowledgement of something that nobody knows.
    fn stray(&mut self) {
        let version = self.version;
        let kind = [AckKind::Puback, AckKind::Pubcomp][self.random.usize(..2)];
        let id = PacketId::new(self.random.u16(60_000..)).expect("not 0");
        if let Some(connection) = self.connected() {
            connection.acknowledge(version, kind, id, Reason::SUCCESS);
        }
    }

    fn commit(&mut self) {
        if self.scene.commit() {
            self.scene.turn();
        }
    }

    /// The process is gone, and another one begins with what is on disk.
    fn kill(&mut self) {
        self.look();
        let wire = self.random.usize(..=self.scene.wire.len());
        self.deliver_to_broker(wire);
        self.kills += 1;
        // Even if it is known: what followed from it may not be on disk.
        self.hidden |= self.connection.as_ref().is_some_and(|it| it.begins_session);
        self.drop_connection();
        for mine in self.mine.values_mut() {
            let over = match mine.wait {
                Wait::None => false,
                Wait::Sent | Wait::Ack => self
                    .scene
                    .waits
                    .get(&mine.token)
                    .is_some_and(Option::is_some),
            };
            mine.unsure |= !over;
            mine.place = None;
        }
        // What nobody had taken comes again; so may what was taken and not answered.
        for got in &self.scene.got {
            let times = self.at_client.get_mut(&number_of(got.message.payload()));
            *times.expect("it arrived") -= 1;
        }
        for (number, qos) in &self.theirs {
            let taken = self.at_client.get(number).is_some_and(|times| *times > 0);
            if *qos == Qos::ExactlyOnce && taken && !self.answered.contains(number) {
                *self.again.entry(*number).or_default() += 1;
            }
        }
        let mut disk = self.scene.disk.take().expect("only with a store");
        if self.random.bool() {
            disk.commit();
        }
        disk.under_way = None;
        if !disk.has_session() {
            // So the next process discards what it finds.
            self.losses += 1;
        }
        let config = self.scene.protocol.config().clone();
        let mut scene = Scene::new(config, Feed::Whole);
        scene.hold = true;
        scene.now = self.scene.now;
        scene.next_token = self.scene.next_token;
        scene.waits = std::mem::take(&mut self.scene.waits);
        scene.waits.retain(|_, outcome| outcome.is_some());
        self.scene = scene;
        self.scene.boot(disk);
        for got in &self.scene.got {
            let number = number_of(got.message.payload());
            let times = self.at_client.entry(number).or_default();
            *times += 1;
            if *times > 1 {
                // It was taken, and the store has yet to forget it.
                *self.again.entry(number).or_default() += 1;
            }
        }
        let wanted = std::mem::take(&mut self.wanted);
        for (filter, qos) in wanted {
            if let Some(qos) = qos
                && self.random.bool()
            {
                self.scene.subscribe(&[&filter], qos, Wait::None);
                self.wanted.insert(filter, Some(qos));
            }
        }
    }

    fn cut(&mut self) {
        if self.connection.is_none() {
            return;
        }
        // Some of what is on its way still arrives.
        let wire = self.random.usize(..=self.scene.wire.len());
        self.deliver_to_broker(wire);
        let end = match self.random.u8(..3) {
            0 => End::ByBroker,
            1 => End::Broken(self.scene.now),
            _ => End::Otherwise,
        };
        self.drop_link(end);
    }

    fn drop_link(&mut self, end: End) {
        self.drop_connection();
        self.scene.end(end);
        self.scene.wire.clear();
    }

    fn drop_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            if connection.ends_session {
                self.kept = None;
            }
            // The client does not know of the loss, and cannot: the next CONNACK calls the session present.
            self.hidden |= connection.begins_session && !self.scene.protocol.is_online();
        }
        if let Some(kept) = &mut self.kept {
            for theirs in &mut kept.outgoing {
                theirs.stage = match theirs.stage {
                    Stage::New => Stage::New,
                    Stage::Again | Stage::Sent => Stage::Again,
                    Stage::ReleaseAgain | Stage::Released => Stage::ReleaseAgain,
                };
            }
        }
        if self.fate == Fate::Fickle && self.random.u8(..3) == 0 {
            self.lose_session();
        }
    }

    fn lose_session(&mut self) {
        self.kept = None;
        self.losses += 1;
    }

    fn connect(&mut self) {
        self.connection = Some(Connection::default());
        self.scene.connect();
        // The scene's transport is open again; the schedule closes it again if it likes.
    }

    fn flow_to_broker(&mut self) {
        let count = self.random.usize(..=self.scene.wire.len().min(200));
        self.deliver_to_broker(count);
    }

    fn flow_to_client(&mut self) {
        let output = self.connection.as_ref().map_or(0, |it| it.output.len());
        let count = self.random.usize(..=output);
        self.deliver_to_client(count);
    }

    // The network.

    fn deliver_to_broker(&mut self, count: usize) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        connection.input.extend(self.scene.wire.drain(..count));
        loop {
            let Some(connection) = &mut self.connection else {
                return;
            };
            let input = std::mem::take(&mut connection.input);
            match split(&input).expect("the client sends packets") {
                Split::Header | Split::Partial { .. } => {
                    connection.input = input;
                    break;
                }
                Split::Whole { frame, size } => {
                    connection.input = input[size..].to_vec();
                    let packet = decode(self.version, frame).expect("the client's are good");
                    self.handle(&packet);
                }
            }
        }
        self.broker_sends();
    }

    fn deliver_to_client(&mut self, count: usize) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let bytes: Vec<u8> = connection.output.drain(..count).collect();
        connection.read += count as u64;
        while let Some((_, id)) = connection
            .finishes
            .front()
            .copied()
            .filter(|(end, _)| *end <= connection.read)
        {
            connection.finishes.pop_front();
            connection.window.remove(&id);
            self.open.remove(&id);
        }
        let closed = connection.closed && connection.output.is_empty();
        let before = self.scene.got.len();
        self.scene
            .feed(&bytes)
            .expect("the client accepts what a good broker sends");
        for got in self.scene.got.iter().skip(before) {
            let number = number_of(got.message.payload());
            let first = !self.at_client.contains_key(&number);
            let times = self.at_client.entry(number).or_default();
            if first {
                self.first_at_client.push(number);
            }
            *times += 1;
        }
        let again = self
            .scene
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Again));
        if again || closed {
            // DISCONNECT is on its way.
            let wire = self.scene.wire.len();
            self.deliver_to_broker(wire);
            self.look();
            self.drop_link(End::Otherwise);
        }
    }

    // The broker.

    fn connected(&mut self) -> Option<&mut Connection> {
        self.connection
            .as_mut()
            .filter(|connection| connection.connected && !connection.closed)
    }

    fn handle(&mut self, packet: &Packet<'_>) {
        let version = self.version;
        if let Packet::Connect(connect) = packet {
            let present = self.kept.is_some() && !connect.clean;
            if !present {
                self.kept = Some(Kept::default());
                self.open.clear();
            }
            let receive_maximum = self.random.u16(1..12);
            let connection = self.connection.as_mut().expect("it sent CONNECT");
            assert!(!connection.connected, "[MQTT-3.1.0-2]");
            connection.connected = true;
            connection.begins_session = !present;
            connection.ends_session = match version {
                Version::V5_0 => connect.properties.session_expiry_interval().is_none(),
                _ => connect.clean,
            };
            let properties = match version {
                Version::V5_0 => {
                    connection.receive_maximum = receive_maximum.into();
                    Properties::new().receive_maximum(receive_maximum)
                }
                _ => {
                    connection.receive_maximum = usize::MAX;
                    Properties::new()
                }
            };
            connection.send(
                version,
                &Packet::Connack(Connack {
                    session_present: present,
                    reason: Reason::SUCCESS,
                    properties: properties.list(),
                }),
            );
            return;
        }
        let connection = self.connection.as_mut().expect("a packet came from it");
        assert!(connection.connected, "[MQTT-3.1.0-1]: {packet:?}");
        assert!(!connection.closed, "[MQTT-3.14.4-1]: {packet:?}");
        let kept = self.kept.as_mut().expect("made at CONNECT");
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::Pubrel(ack) => {
                let known = kept.recorded.remove(&ack.id);
                let reason = if known || version != Version::V5_0 {
                    Reason::SUCCESS
                } else {
                    Reason::PACKET_IDENTIFIER_NOT_FOUND
                };
                connection.acknowledge(version, AckKind::Pubcomp, ack.id, reason);
                connection.finish(ack.id);
            }
            Packet::Puback(ack) => {
                // [MQTT-4.6.0-2]
                assert_eq!(connection.pubacks.pop_front(), Some(ack.id));
                kept.outgoing.retain(|theirs| theirs.id != Some(ack.id));
            }
            Packet::Pubrec(ack) => {
                // [MQTT-4.6.0-3]
                assert_eq!(connection.pubrecs.pop_front(), Some(ack.id));
                for theirs in &mut kept.outgoing {
                    if theirs.id == Some(ack.id) {
                        theirs.stage = Stage::Released;
                    }
                }
                connection.acknowledge(version, AckKind::Pubrel, ack.id, Reason::SUCCESS);
            }
            Packet::Pubcomp(ack) => {
                kept.outgoing.retain(|theirs| theirs.id != Some(ack.id));
            }
            Packet::Subscribe(subscribe) => {
                assert!(!self.open.contains_key(&subscribe.id), "[MQTT-2.2.1-3]");
                let mut reasons = Vec::new();
                for (filter, options) in subscribe.filters.iter() {
                    kept.filters.insert(filter.into(), options.qos);
                    reasons.push(options.qos.bits());
                }
                assert!(reasons.len() <= 8);
                connection.send(
                    version,
                    &Packet::Suback(Suback {
                        id: subscribe.id,
                        properties: PropertyList::EMPTY,
                        reasons: ReasonList(&reasons),
                    }),
                );
            }
            Packet::Unsubscribe(unsubscribe) => {
                assert!(!self.open.contains_key(&unsubscribe.id), "[MQTT-2.2.1-3]");
                let mut reasons = Vec::new();
                for filter in unsubscribe.filters.iter() {
                    let known = kept.filters.remove(filter).is_some();
                    reasons.push(if known { 0 } else { 0x11 });
                }
                connection.send(
                    version,
                    &Packet::Unsuback(Unsuback {
                        id: unsubscribe.id,
                        properties: PropertyList::EMPTY,
                        reasons: ReasonList(&reasons),
                    }),
                );
            }
            Packet::Pingreq => connection.send(version, &Packet::Pingresp),
            Packet::Disconnect(disconnect) => {
                connection.closed = true;
                connection.ends_session |=
                    disconnect.properties.session_expiry_interval() == Some(0);
            }
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp
            | Packet::Auth(_) => panic!("no client sends {packet:?}"),
        }
    }

    fn handle_publish(&mut self, publish: &Publish<'_>) {
        let version = self.version;
        let number = number_of(publish.payload);
        let connection = self.connection.as_mut().expect("a packet came from it");
        let kept = self.kept.as_mut().expect("made at CONNECT");
        let Some(id) = publish.id else {
            self.first_zero_at_broker.push(number);
            *self.at_broker.entry(number).or_default() += 1;
            return;
        };
        // [MQTT-2.2.1-3], [MQTT-4.4.0-1]: an identifier in use names the same message, sent again.
        match self.open.insert(id, number) {
            Some(before) => {
                assert_eq!(before, number, "identifier {id} is in use");
                assert!(publish.dup, "[MQTT-3.3.1-1]");
            }
            None if version != Version::V3_1 => {
                let complete = self.at_broker.contains_key(&number) && !publish.dup;
                assert!(!complete || self.losses > 0, "{number} is sent twice");
            }
            // Before 3.1.1 the client cannot know that the session was lost.
            None => {}
        }
        // [MQTT-3.3.4-7]: counted by what the client can know.
        assert!(connection.window.insert(id), "twice on one connection");
        assert!(
            connection.window.len() <= connection.receive_maximum,
            "Receive Maximum {}",
            connection.receive_maximum
        );
        let (kind, refusal) = match publish.qos {
            Qos::AtMostOnce => unreachable!("it has an identifier"),
            Qos::AtLeastOnce => (AckKind::Puback, Reason::NOT_AUTHORIZED),
            Qos::ExactlyOnce => (AckKind::Pubrec, Reason::QUOTA_EXCEEDED),
        };
        let repeated = publish.qos == Qos::ExactlyOnce && kept.recorded.contains(&id);
        let refuses =
            version == Version::V5_0 && !publish.dup && !repeated && self.random.u8(..30) == 0;
        if refuses {
            self.refused.insert(number);
            connection.acknowledge(version, kind, id, refusal);
            connection.finish(id);
            return;
        }
        connection.acknowledge(version, kind, id, Reason::SUCCESS);
        if publish.qos == Qos::AtLeastOnce {
            connection.finish(id);
        } else {
            kept.recorded.insert(id);
        }
        if !repeated {
            let times = self.at_broker.entry(number).or_default();
            if *times == 0 {
                self.first_at_broker.push(number);
            }
            *times += 1;
        }
    }

    /// Sends what is due to the client, replays first, within the client's Receive Maximum.
    fn broker_sends(&mut self) {
        let version = self.version;
        let maximum = match version {
            Version::V5_0 => usize::from(self.scene.protocol.config().receive_maximum),
            _ => 20,
        };
        let Some(connection) = self
            .connection
            .as_mut()
            .filter(|connection| connection.connected && !connection.closed)
        else {
            return;
        };
        let Some(kept) = &mut self.kept else { return };
        let mut flying = kept
            .outgoing
            .iter()
            .filter(|theirs| matches!(theirs.stage, Stage::Sent | Stage::Released))
            .count();
        let mut used: BTreeSet<_> = kept
            .outgoing
            .iter()
            .filter_map(|theirs| theirs.id)
            .collect();
        for theirs in &mut kept.outgoing {
            match theirs.stage {
                Stage::Sent | Stage::Released => {}
                Stage::ReleaseAgain => {
                    let id = theirs.id.expect("it was sent");
                    theirs.stage = Stage::Released;
                    connection.acknowledge(version, AckKind::Pubrel, id, Reason::SUCCESS);
                }
                Stage::New | Stage::Again if flying >= maximum => break,
                Stage::New | Stage::Again => {
                    flying += 1;
                    let id = theirs.id.unwrap_or_else(|| {
                        loop {
                            kept.last_id = kept.last_id % 99 + 1;
                            let id = PacketId::new(kept.last_id).expect("1 to 99");
                            if used.insert(id) {
                                break id;
                            }
                        }
                    });
                    theirs.id = Some(id);
                    let dup = theirs.stage == Stage::Again;
                    theirs.stage = Stage::Sent;
                    let payload = theirs.number.to_be_bytes();
                    connection.send(
                        version,
                        &Packet::Publish(Publish {
                            dup,
                            qos: theirs.qos,
                            retain: false,
                            topic: "t",
                            id: Some(id),
                            properties: PropertyList::EMPTY,
                            payload: &payload,
                        }),
                    );
                    match theirs.qos {
                        Qos::AtMostOnce => {}
                        Qos::AtLeastOnce => connection.pubacks.push_back(id),
                        Qos::ExactlyOnce => connection.pubrecs.push_back(id),
                    }
                }
            }
        }
    }

    // What must hold.

    fn look(&mut self) {
        self.look_for_pubrecs();
        self.begun |= self.scene.protocol.is_online();
        for effect in self.scene.effects.drain(..) {
            match effect {
                Effect::Unpublished(Some(message), error) => {
                    let number = number_of(message.payload());
                    self.unpublished.insert(number);
                    if message.quality_of_service() == Qos::ExactlyOnce
                        && matches!(error.kind(), ErrorKind::LinkLost)
                    {
                        self.given_up.insert(number);
                    }
                }
                // The content of QoS 0 and of a confirmed QoS 2 message is not there any more.
                Effect::Unpublished(None, _)
                | Effect::Connected(_)
                | Effect::Again
                | Effect::Subscribed(..)
                | Effect::Overdue(_)
                | Effect::Disinherited
                | Effect::Restored
                | Effect::Stray => {}
                Effect::Done(..) => panic!("the scene keeps those"),
                Effect::Unrestored(_)
                | Effect::Skipped(_)
                | Effect::Authenticate(_)
                | Effect::Reauthenticated
                | Effect::NotRenewed(..) => panic!("{effect:?}"),
            }
        }
    }

    /// Which PUBRECs have left: from then on the message may not come again, whatever becomes of the process.
    fn look_for_pubrecs(&mut self) {
        let (Some(connection), Some(kept)) = (&self.connection, &self.kept) else {
            return;
        };
        if self.scene.disk.is_none() || !connection.connected {
            return;
        }
        let mut bytes = connection.input.clone();
        bytes.extend_from_slice(&self.scene.wire);
        let mut rest = bytes.as_slice();
        while let Ok(Split::Whole { frame, size }) = split(rest) {
            rest = &rest[size..];
            if let Ok(Packet::Pubrec(ack)) = decode(self.version, frame) {
                let theirs = kept.outgoing.iter().find(|it| it.id == Some(ack.id));
                self.answered.extend(theirs.map(|theirs| theirs.number));
            }
        }
    }

    fn judge(&mut self) {
        let scene = &self.scene;
        for (token, outcome) in &scene.waits {
            assert!(outcome.is_some(), "wait {token} did not end");
        }
        for (number, mine) in &self.mine {
            if mine.qos == Qos::ExactlyOnce
                && mine.wait != Wait::None
                && !mine.unsure
                && let Err(error) = scene.outcome(mine.token)
                && matches!(error.kind(), ErrorKind::LinkLost)
            {
                self.given_up.insert(*number);
            }
        }
        // Nothing drifted.
        let connection = self.connection.as_ref().expect("it settled");
        let window = usize::from(scene.protocol.config().window);
        assert_eq!(
            scene.protocol.credit(),
            window.min(connection.receive_maximum)
        );
        assert_eq!(scene.protocol.unfinished(), 0);
        // A QoS 2 message over which the broker closed again and again leaves its identifier behind.
        let burnt = self.given_up.len();
        let identifiers = scene.protocol.identifiers();
        if self.losses == 0 && self.kills == 0 {
            assert_eq!(identifiers, burnt, "identifiers leak");
        } else {
            assert!(identifiers <= burnt, "identifiers leak");
        }
        assert_eq!(scene.protocol.untaken(), 0, "receipts leak");
        for (number, mine) in &self.mine {
            let times = self.at_broker.get(number).copied().unwrap_or_default();
            let failed = match mine.wait {
                _ if mine.unsure => true,
                Wait::None => self.unpublished.contains(number),
                Wait::Sent | Wait::Ack => {
                    scene.outcome(mine.token).is_err() || self.unpublished.contains(number)
                }
            };
            let refused = self.refused.contains(number);
            match mine.qos {
                Qos::AtMostOnce => assert!(times <= 1),
                // Lost sessions may hide an answer, so that the message is sent once more.
                Qos::AtLeastOnce => {
                    assert!(times >= 1 || failed || refused, "{number} is lost");
                }
                Qos::ExactlyOnce if self.losses == 0 => {
                    assert!(times <= 1, "{number} arrived {times} times");
                    assert!(times == 1 || failed || refused, "{number} is lost");
                }
                // Where the client is not told that the session was lost, exactly once cannot be promised;
                // 3.1 never tells.
                Qos::ExactlyOnce => {
                    let told = !self.hidden && self.version != Version::V3_1;
                    assert!(times <= 1 || !told, "{number} arrived {times} times");
                }
            }
            // The truth of completion.
            if mine.wait == Wait::Ack && mine.qos != Qos::AtMostOnce && !failed {
                assert!(times >= 1, "{number} is acknowledged and absent");
            }
        }
        for number in &self.withdrawn {
            assert!(
                !self.at_broker.contains_key(number),
                "{number} was withdrawn"
            );
        }
        // Order within each class.
        assert!(self.first_zero_at_broker.is_sorted());
        // A refusal that the client never saw is followed by a replay, which then comes late.
        let mut in_order = self.first_at_broker.clone();
        in_order.retain(|number| !self.refused.contains(number));
        assert!(in_order.is_sorted(), "{in_order:?}");
        assert!(
            self.first_at_client.is_sorted(),
            "{:?}",
            self.first_at_client
        );
        for (number, qos) in &self.theirs {
            let times = self.at_client.get(number).copied().unwrap_or_default();
            match qos {
                Qos::AtMostOnce => {}
                Qos::AtLeastOnce => assert!(times >= 1 || self.losses > 0, "{number} is lost"),
                Qos::ExactlyOnce => {
                    let most = 1 + self.again.get(number).copied().unwrap_or_default();
                    assert!(times <= most, "{number} arrived {times} times");
                    assert!(times >= 1 || self.losses > 0, "{number} is lost");
                }
            }
        }
        // The last word about each filter.
        let wanted: BTreeMap<_, _> = self
            .wanted
            .iter()
            .filter_map(|(filter, qos)| qos.map(|qos| (filter.clone(), qos)))
            .collect();
        let kept = self.kept.as_ref().expect("it settled");
        assert_eq!(kept.filters, wanted);
    }
}

impl Connection {
    fn send(&mut self, version: Version, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).expect("short");
        self.written += bytes.len() as u64;
        self.output.extend(bytes);
    }

    fn acknowledge(&mut self, version: Version, kind: AckKind, id: PacketId, reason: Reason) {
        let ack = Ack {
            id,
            reason,
            properties: PropertyList::EMPTY,
        };
        let packet = match kind {
            AckKind::Puback => Packet::Puback(ack),
            AckKind::Pubrec => Packet::Pubrec(ack),
            AckKind::Pubrel => Packet::Pubrel(ack),
            AckKind::Pubcomp => Packet::Pubcomp(ack),
        };
        self.send(version, &packet);
    }

    /// The last packet finishes the client's exchange `id` once it is read.
    fn finish(&mut self, id: PacketId) {
        self.finishes.push_back((self.written, id));
    }
}

fn number_of(payload: &[u8]) -> u32 {
    let bytes = payload.first_chunk().expect("four bytes or more");
    u32::from_be_bytes(*bytes)
}
