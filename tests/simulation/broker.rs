//! A broker that is good, or bad in ways that real ones are. It shares no code with the client but the
//! codec, and nothing with the broker of the test kit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use coracle::codec::publish::AckKind;
use coracle::codec::subscribe::ReasonList;
use coracle::codec::{
    Ack, Connack, Disconnect, Packet, Publish, Split, Suback, Unsuback, decode, split,
};
use coracle::{PacketId, Properties, PropertyList, Qos, Reason, Version, matches};
use fastrand::Rng;

use crate::ledger::{Ledger, Limits, number_of, payload_of};
use crate::observer::Mark;

/// How the broker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Refuses, keeps answers back, surprises.
    Bad,
    Fair,
}

/// A message on its way to the client.
#[derive(Debug, Clone)]
struct Theirs {
    number: u32,
    topic: &'static str,
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
    Sent,
    /// PUBREC came; PUBREL was sent on an earlier connection.
    ReleaseAgain,
    Released,
}

/// What the broker keeps across connections.
#[derive(Debug, Default)]
struct Session {
    filters: BTreeMap<String, Qos>,
    /// QoS 2 identifiers of the client that it has not released, with their messages.
    recorded: BTreeMap<PacketId, u32>,
    outgoing: VecDeque<Theirs>,
    /// Counts the sessions there were.
    epoch: u32,
}

/// What belongs to one connection.
#[derive(Debug)]
struct Link {
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// What in the output means something to the client, by where it ends.
    marks: VecDeque<(u64, Mark)>,
    written: u64,
    given: u64,
    phase: Phase,
    ends_session: bool,
    /// CONNACK said that there was no session.
    begins_session: bool,
    limits: Limits,
    client_receive_maximum: usize,
    client_aliases: u16,
    aliases_in: BTreeMap<u16, String>,
    aliases_out: BTreeMap<u16, &'static str>,
    pubacks: VecDeque<PacketId>,
    pubrecs: VecDeque<PacketId>,
    repeated: Repeated,
    /// Identifiers under which the client owes something on this connection.
    owed: BTreeSet<PacketId>,
}

/// Whether a message was sent twice on the connection: one PUBREC may answer both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeated {
    Never,
    Once,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opened,
    Connected,
    /// Nothing more is said or heard.
    Over,
}

/// A message of the broker's, as the judge wants to know it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) topic: &'static str,
    pub(crate) qos: Qos,
    pub(crate) epoch: u32,
}

#[derive(Debug)]
pub(crate) struct Broker {
    version: Version,
    pub(crate) mood: Mood,
    session: Option<Session>,
    link: Option<Link>,
    epochs: u32,
    last_id: u16,
    most_id: u16,
    pub(crate) theirs: BTreeMap<u32, Sent>,
    next: u32,
    /// Filters that a SUBSCRIBE was refused for.
    pub(crate) refused: BTreeSet<String>,
    /// A CONNACK that told of a loss was lost itself.
    hidden: bool,
    begun: bool,
}

/// Numbers of the broker's messages begin here.
const FIRST: u32 = 500_000;

const TOPICS: [&str; 6] = ["in/0", "in/1", "in/2", "w/0", "w/1", "w/2"];

impl Broker {
    pub(crate) fn new(version: Version, random: &mut Rng) -> Self {
        // An earlier process may have left something.
        let session = random.bool().then(|| Session {
            filters: BTreeMap::from([("left/over".into(), Qos::AtLeastOnce)]),
            ..Session::default()
        });
        Self {
            version,
            mood: Mood::Bad,
            session,
            link: None,
            epochs: 0,
            last_id: 0,
            most_id: if random.bool() { 40 } else { 60_000 },
            theirs: BTreeMap::new(),
            next: FIRST,
            refused: BTreeSet::new(),
            hidden: false,
            begun: false,
        }
    }

    // What the world does to it.

    pub(crate) fn opened(&mut self) {
        self.link = Some(Link {
            input: Vec::new(),
            output: VecDeque::new(),
            marks: VecDeque::new(),
            written: 0,
            given: 0,
            phase: Phase::Opened,
            ends_session: false,
            begins_session: false,
            limits: Limits::NONE,
            client_receive_maximum: usize::MAX,
            client_aliases: 0,
            aliases_in: BTreeMap::new(),
            aliases_out: BTreeMap::new(),
            pubacks: VecDeque::new(),
            pubrecs: VecDeque::new(),
            repeated: Repeated::Never,
            owed: BTreeSet::new(),
        });
    }

    /// The connection is over. `greeted` if the client has read CONNACK.
    pub(crate) fn ended(&mut self, greeted: bool) {
        let Some(link) = self.link.take() else { return };
        if link.ends_session {
            self.session = None;
        }
        self.hidden |= link.begins_session && !greeted && self.begun;
        self.begun |= greeted;
        if let Some(session) = &mut self.session {
            for theirs in &mut session.outgoing {
                theirs.stage = match theirs.stage {
                    Stage::New => Stage::New,
                    Stage::Again | Stage::Sent => Stage::Again,
                    Stage::ReleaseAgain | Stage::Released => Stage::ReleaseAgain,
                };
            }
        }
    }

    /// Restarts without the sessions, between two connections.
    pub(crate) fn forget(&mut self) {
        self.session = None;
    }

    /// Whether the broker wants the connection ended once its output has gone.
    pub(crate) fn is_over(&self) -> bool {
        self.link
            .as_ref()
            .is_none_or(|link| link.phase == Phase::Over)
    }

    /// Bytes on the way to the client.
    pub(crate) fn output(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.output.len())
    }

    pub(crate) fn take_output(&mut self, count: usize) -> Vec<u8> {
        let Some(link) = &mut self.link else {
            return Vec::new();
        };
        link.given += count as u64;
        link.output.drain(..count).collect()
    }

    /// What the client has read with so many bytes of this connection.
    pub(crate) fn marks_until(&mut self, read: u64) -> Vec<Mark> {
        let Some(link) = &mut self.link else {
            return Vec::new();
        };
        let mut marks = Vec::new();
        while let Some((end, mark)) = link.marks.front()
            && *end <= read
        {
            marks.push(*mark);
            link.marks.pop_front();
        }
        marks
    }

    /// Whether nothing is left to do for the client.
    pub(crate) fn is_quiet(&self) -> bool {
        self.output() == 0
            && self
                .session
                .as_ref()
                .is_some_and(|session| session.outgoing.is_empty())
    }

    pub(crate) fn filters(&self) -> &BTreeMap<String, Qos> {
        &self
            .session
            .as_ref()
            .expect("there is a connection")
            .filters
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.session.as_ref().map_or(0, |session| session.epoch)
    }

    /// Bytes of the client have arrived.
    pub(crate) fn hear(&mut self, bytes: &[u8], random: &mut Rng, ledger: &mut Ledger) {
        let Some(link) = &mut self.link else { return };
        link.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut link.input);
        let mut used = 0;
        while let Split::Whole { frame, size } =
            split(&input[used..]).expect("the client sends packets")
        {
            let packet = decode(self.version, frame).expect("the client's are good");
            used += size;
            self.packet(&packet, random, ledger);
        }
        if let Some(link) = &mut self.link {
            link.input = input[used..].to_vec();
        }
        self.send_due(random);
    }

    /// Publishes something that the client may have subscribed to.
    pub(crate) fn publish(&mut self, random: &mut Rng) {
        let topic = TOPICS[random.usize(..TOPICS.len())];
        let qos = Qos::from_bits(random.u8(..3)).expect("0 to 2");
        let Some(session) = self.session.as_mut().filter(|session| session.epoch > 0) else {
            return;
        };
        let granted = session
            .filters
            .iter()
            .filter(|(filter, _)| matches(filter, topic))
            .map(|(_, qos)| *qos)
            .max();
        let Some(qos) = granted.map(|granted| granted.min(qos)) else {
            return;
        };
        let number = self.next;
        let theirs = Theirs {
            number,
            topic,
            qos,
            id: None,
            stage: Stage::New,
        };
        if qos == Qos::AtMostOnce {
            let version = self.version;
            let Some(link) = self.connected() else { return };
            link.publish(version, &theirs, None, false, random);
        } else {
            session.outgoing.push_back(theirs);
        }
        self.next += 1;
        let epoch = self.epoch();
        self.theirs.insert(number, Sent { topic, qos, epoch });
        self.send_due(random);
    }

    /// Something that no good broker does, or need not do.
    pub(crate) fn surprise(&mut self, random: &mut Rng, used: impl Fn(Qos) -> Option<PacketId>) {
        let version = self.version;
        // Far above what a client counts up to in one run: it must not be in use when this arrives.
        let unknown = PacketId::new(random.u16(5_000..)).expect("not 0");
        let repeated = self.session.as_ref().and_then(|session| {
            let sent =
                |theirs: &&Theirs| theirs.stage == Stage::Sent && theirs.qos == Qos::ExactlyOnce;
            session.outgoing.iter().find(sent).cloned()
        });
        let released = self.session.as_ref().and_then(|session| {
            let released = |theirs: &&Theirs| theirs.stage == Stage::Released;
            session
                .outgoing
                .iter()
                .find(released)
                .and_then(|theirs| theirs.id)
        });
        let Some(link) = self.connected() else { return };
        match random.u8(..14) {
            // Acknowledgements of what nobody knows.
            0..4 => {
                let kinds = [
                    AckKind::Puback,
                    AckKind::Pubrec,
                    AckKind::Pubrel,
                    AckKind::Pubcomp,
                ];
                let kind = kinds[random.usize(..4)];
                // A PUBREL may name one of ours that is on its way.
                if kind != AckKind::Pubrel || !link.owed.contains(&unknown) {
                    link.acknowledge(version, kind, unknown, Reason::SUCCESS, None);
                }
            }
            // Of the wrong kind.
            4 => {
                if let Some(id) = used(Qos::ExactlyOnce) {
                    // If PUBREC is on its way before it, PUBCOMP counts.
                    let (kind, mark) = match random.bool() {
                        true => (AckKind::Puback, Mark::Puback(id, Reason::SUCCESS)),
                        false => (AckKind::Pubcomp, Mark::Pubcomp(id)),
                    };
                    link.acknowledge(version, kind, id, Reason::SUCCESS, Some(mark));
                }
            }
            5 => {
                if let Some(id) = used(Qos::AtLeastOnce) {
                    link.acknowledge(version, AckKind::Pubcomp, id, Reason::SUCCESS, None);
                }
            }
            // Twice on one connection, before PUBREC was heard.
            6 => {
                if let Some(theirs) = repeated
                    && let Some(id) = theirs.id
                    && link.pubrecs.contains(&id)
                {
                    link.repeated = Repeated::Once;
                    link.publish(version, &theirs, Some(id), true, random);
                }
            }
            7 => {
                if let Some(id) = released {
                    link.acknowledge(version, AckKind::Pubrel, id, Reason::SUCCESS, None);
                }
            }
            8 | 9 if version == Version::V5_0 => {
                let reasons = [
                    Reason::SERVER_BUSY,
                    Reason::SERVER_SHUTTING_DOWN,
                    Reason::ADMINISTRATIVE_ACTION,
                    Reason::SESSION_TAKEN_OVER,
                    Reason::QUOTA_EXCEEDED,
                ];
                let packet = Packet::Disconnect(Disconnect {
                    reason: reasons[random.usize(..reasons.len())],
                    properties: PropertyList::EMPTY,
                });
                link.send(version, &packet, None);
                link.phase = Phase::Over;
            }
            // The rules broken: the client hangs up.
            10 => {
                let packets: [&[u8]; 4] =
                    [b"\x00\x00", b"\xe1\x00", b"\x20\x02\x00\x00", b"\x32\x00"];
                link.output.extend(packets[random.usize(..4)]);
                link.phase = Phase::Over;
            }
            11 => link.phase = Phase::Over,
            _ => {}
        }
    }

    // What it answers.

    fn connected(&mut self) -> Option<&mut Link> {
        self.link
            .as_mut()
            .filter(|link| link.phase == Phase::Connected)
    }

    fn packet(&mut self, packet: &Packet<'_>, random: &mut Rng, ledger: &mut Ledger) {
        let version = self.version;
        let Some(link) = &mut self.link else { return };
        match (link.phase, packet) {
            (Phase::Opened, Packet::Connect(connect)) => {
                let maximum = connect.properties.receive_maximum();
                link.client_receive_maximum = match version {
                    Version::V5_0 => maximum.map_or(65_535, usize::from),
                    _ => 20,
                };
                link.client_aliases = connect.properties.topic_alias_maximum().unwrap_or(0);
                link.ends_session = match version {
                    Version::V5_0 => connect.properties.session_expiry_interval().unwrap_or(0) == 0,
                    _ => connect.clean,
                };
                return self.connect(connect.clean, random, ledger);
            }
            (Phase::Opened, _) => panic!("{packet:?} before CONNECT"),
            // What follows on something that the broker closed over is not for it.
            (Phase::Over, _) => return,
            (Phase::Connected, _) => {}
        }
        let session = self.session.as_mut().expect("made at CONNECT");
        let keeps_back = self.mood == Mood::Bad && random.u8(..40) == 0;
        match packet {
            Packet::Publish(publish) => self.take(publish, keeps_back, random, ledger),
            Packet::Pubrel(ack) => {
                let known = session.recorded.remove(&ack.id).is_some();
                let reason = if known || version != Version::V5_0 {
                    Reason::SUCCESS
                } else {
                    Reason::PACKET_IDENTIFIER_NOT_FOUND
                };
                if !keeps_back {
                    let mark = Mark::Pubcomp(ack.id);
                    link.acknowledge(version, AckKind::Pubcomp, ack.id, reason, Some(mark));
                }
            }
            Packet::Puback(ack) => {
                let next = link.pubacks.pop_front();
                assert_eq!(next, Some(ack.id), "PUBACKs in order [MQTT-4.6.0-2]");
                link.owed.remove(&ack.id);
                session.outgoing.retain(|theirs| theirs.id != Some(ack.id));
            }
            Packet::Pubrec(ack) => {
                match link.repeated {
                    Repeated::Never => {
                        let next = link.pubrecs.pop_front();
                        assert_eq!(next, Some(ack.id), "PUBRECs in order [MQTT-4.6.0-3]");
                    }
                    Repeated::Once => link.pubrecs.retain(|id| *id != ack.id),
                }
                let mut known = false;
                for theirs in &mut session.outgoing {
                    if theirs.id == Some(ack.id) {
                        theirs.stage = Stage::Released;
                        known = true;
                    }
                }
                if known {
                    link.acknowledge(version, AckKind::Pubrel, ack.id, Reason::SUCCESS, None);
                }
            }
            Packet::Pubcomp(ack) => {
                let over = |theirs: &Theirs| {
                    theirs.id == Some(ack.id)
                        && matches!(theirs.stage, Stage::Released | Stage::ReleaseAgain)
                };
                if session.outgoing.iter().any(over) {
                    link.owed.remove(&ack.id);
                    session.outgoing.retain(|theirs| !over(theirs));
                }
            }
            Packet::Subscribe(subscribe) => {
                let mut reasons = Vec::new();
                for (filter, options) in subscribe.filters.iter() {
                    let refuses = self.mood == Mood::Bad
                        && version != Version::V3_1
                        && filter.starts_with('w')
                        && random.u8(..12) == 0;
                    if refuses {
                        self.refused.insert(filter.into());
                        reasons.push(0x80);
                    } else {
                        session.filters.insert(filter.into(), options.qos);
                        reasons.push(options.qos.bits());
                    }
                }
                assert!(reasons.len() <= 8, "at most 8 filters in a SUBSCRIBE");
                let suback = Packet::Suback(Suback {
                    id: subscribe.id,
                    properties: PropertyList::EMPTY,
                    reasons: ReasonList(&reasons),
                });
                if !keeps_back {
                    link.send(version, &suback, Some(Mark::Request(subscribe.id)));
                }
            }
            Packet::Unsubscribe(unsubscribe) => {
                let mut reasons = Vec::new();
                for filter in unsubscribe.filters.iter() {
                    let known = session.filters.remove(filter).is_some();
                    reasons.push(if known { 0 } else { 0x11 });
                }
                let unsuback = Packet::Unsuback(Unsuback {
                    id: unsubscribe.id,
                    properties: PropertyList::EMPTY,
                    reasons: ReasonList(&reasons),
                });
                if !keeps_back {
                    link.send(version, &unsuback, Some(Mark::Request(unsubscribe.id)));
                }
            }
            Packet::Pingreq => {
                if !keeps_back {
                    link.send(version, &Packet::Pingresp, None);
                }
            }
            Packet::Disconnect(disconnect) => {
                link.phase = Phase::Over;
                link.ends_session |= disconnect.properties.session_expiry_interval() == Some(0);
            }
            Packet::Auth(_) => {}
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => panic!("no client sends {packet:?}"),
        }
    }

    fn connect(&mut self, clean: bool, random: &mut Rng, ledger: &mut Ledger) {
        let version = self.version;
        let link = self.link.as_mut().expect("CONNECT came on it");
        let bad = self.mood == Mood::Bad;
        if bad && random.u8(..8) == 0 {
            link.ends_session = false;
            link.phase = Phase::Over;
            let reasons = [
                Reason::SERVER_UNAVAILABLE,
                Reason::NOT_AUTHORIZED,
                Reason::BAD_USER_NAME_OR_PASSWORD,
            ];
            let connack = Packet::Connack(Connack {
                session_present: false,
                reason: reasons[random.usize(..3)],
                properties: PropertyList::EMPTY,
            });
            return link.send(version, &connack, Some(Mark::Refused));
        }
        link.phase = Phase::Connected;
        let present = self.session.is_some() && !clean;
        if !present {
            if self.begun && version == Version::V3_1 && !clean {
                ledger.untold_losses += 1;
            }
            self.session = Some(Session::default());
        }
        let session = self.session.as_mut().expect("made above");
        if session.epoch == 0 {
            self.epochs += 1;
            session.epoch = self.epochs;
        }
        if present && self.hidden {
            ledger.untold_losses += 1;
        }
        self.hidden = false;
        link.begins_session = !present;
        let mut properties = Properties::new();
        if version == Version::V5_0 && bad {
            link.limits = Limits {
                receive_maximum: random.usize(1..12),
                packet_size: if random.u8(..4) == 0 {
                    random.usize(60..400)
                } else {
                    usize::MAX
                },
                qos: if random.u8(..12) == 0 {
                    Qos::AtLeastOnce
                } else {
                    Qos::ExactlyOnce
                },
                retain: random.u8(..6) > 0,
                aliases: random.u16(..4),
            };
            let limits = link.limits;
            properties = properties
                .receive_maximum(limits.receive_maximum.try_into().expect("below 12"))
                .topic_alias_maximum(limits.aliases);
            if let Ok(bytes) = u32::try_from(limits.packet_size) {
                properties = properties.maximum_packet_size(bytes);
            }
            if limits.qos < Qos::ExactlyOnce {
                properties = properties.maximum_qos(limits.qos.bits());
            }
            if !limits.retain {
                properties = properties.retain_available(false);
            }
            if random.u8(..4) == 0 {
                properties = properties.server_keep_alive(random.u16(5..40));
            }
        }
        let connack = Packet::Connack(Connack {
            session_present: present && version != Version::V3_1,
            reason: Reason::SUCCESS,
            properties: properties.list(),
        });
        let limits = link.limits;
        // 3.1 cannot tell, so there the client goes on, unless it wanted a clean session.
        let anew = !present && (clean || version != Version::V3_1);
        link.send(version, &connack, Some(Mark::Connack { anew, limits }));
    }

    fn take(
        &mut self,
        publish: &Publish<'_>,
        keeps_back: bool,
        random: &mut Rng,
        ledger: &mut Ledger,
    ) {
        let version = self.version;
        let number = number_of(publish.payload);
        let link = self.link.as_mut().expect("a packet came on it");
        let session = self.session.as_mut().expect("made at CONNECT");
        if let Some(alias) = publish.properties.topic_alias() {
            if publish.topic.is_empty() {
                assert!(link.aliases_in.contains_key(&alias));
            } else {
                link.aliases_in.insert(alias, publish.topic.into());
            }
        }
        let Some(id) = publish.id else {
            return ledger.take(number);
        };
        let kind = match publish.qos {
            Qos::AtMostOnce | Qos::AtLeastOnce => AckKind::Puback,
            Qos::ExactlyOnce => AckKind::Pubrec,
        };
        let mark = |reason| match kind {
            AckKind::Puback => Mark::Puback(id, reason),
            AckKind::Pubrec | AckKind::Pubrel | AckKind::Pubcomp => Mark::Pubrec(id, reason),
        };
        let repeated = kind == AckKind::Pubrec && session.recorded.contains_key(&id);
        let refuses = self.mood == Mood::Bad
            && version == Version::V5_0
            && !publish.dup
            && !repeated
            && random.u8(..25) == 0;
        if refuses {
            ledger.of(number).refused = Some(Reason::QUOTA_EXCEEDED);
            let reason = Reason::QUOTA_EXCEEDED;
            link.acknowledge(version, kind, id, reason, Some(mark(reason)));
            return;
        }
        if kind == AckKind::Pubrec {
            let known = session.recorded.insert(id, number);
            assert!(
                known.is_none_or(|known| known == number) || ledger.untold_losses > 0,
                "identifier {id} stands for {known:?} and for {number}"
            );
        }
        if !repeated {
            ledger.take(number);
        }
        let reason = match version {
            Version::V5_0 if random.bool() => Reason::NO_MATCHING_SUBSCRIBERS,
            _ => Reason::SUCCESS,
        };
        if !keeps_back {
            link.acknowledge(version, kind, id, reason, Some(mark(reason)));
            if self.mood == Mood::Bad && kind == AckKind::Pubrec && random.u8(..20) == 0 {
                link.acknowledge(version, kind, id, Reason::SUCCESS, None);
            }
        }
    }

    /// Sends what is due to the client, replays first, within the client's Receive Maximum.
    fn send_due(&mut self, random: &mut Rng) {
        let version = self.version;
        let (last, most) = (&mut self.last_id, self.most_id);
        let Some(link) = self.link.as_mut().filter(|it| it.phase == Phase::Connected) else {
            return;
        };
        let Some(session) = &mut self.session else {
            return;
        };
        let mut used: BTreeSet<_> = session
            .outgoing
            .iter()
            .filter_map(|theirs| theirs.id)
            .collect();
        for theirs in &mut session.outgoing {
            match theirs.stage {
                Stage::Sent | Stage::Released => {}
                Stage::ReleaseAgain => {
                    let id = theirs.id.expect("it was sent");
                    theirs.stage = Stage::Released;
                    link.owed.insert(id);
                    link.acknowledge(version, AckKind::Pubrel, id, Reason::SUCCESS, None);
                }
                Stage::New | Stage::Again => {
                    if link.owed.len() >= link.client_receive_maximum.min(30) {
                        break;
                    }
                    let id = theirs.id.unwrap_or_else(|| {
                        loop {
                            *last = *last % most + 1;
                            let id = PacketId::new(*last).expect("not 0");
                            if used.insert(id) {
                                break id;
                            }
                        }
                    });
                    theirs.id = Some(id);
                    link.owed.insert(id);
                    let dup = theirs.stage == Stage::Again;
                    theirs.stage = Stage::Sent;
                    link.publish(version, theirs, Some(id), dup, random);
                }
            }
        }
    }
}

impl Link {
    fn send(&mut self, version: Version, packet: &Packet<'_>, mark: Option<Mark>) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).expect("short");
        self.written += bytes.len() as u64;
        self.output.extend(bytes);
        if let Some(mark) = mark {
            self.marks.push_back((self.written, mark));
        }
    }

    fn acknowledge(
        &mut self,
        version: Version,
        kind: AckKind,
        id: PacketId,
        reason: Reason,
        mark: Option<Mark>,
    ) {
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
        self.send(version, &packet, mark);
    }

    fn publish(
        &mut self,
        version: Version,
        theirs: &Theirs,
        id: Option<PacketId>,
        dup: bool,
        random: &mut Rng,
    ) {
        if let Some(id) = id {
            match theirs.qos {
                Qos::AtMostOnce => {}
                Qos::AtLeastOnce => self.pubacks.push_back(id),
                Qos::ExactlyOnce => self.pubrecs.push_back(id),
            }
        }
        let mut properties = Properties::new();
        let mut topic = theirs.topic;
        if version == Version::V5_0 && self.client_aliases > 0 && random.bool() {
            let alias = random.u16(1..=self.client_aliases.min(3));
            if self.aliases_out.insert(alias, topic) == Some(topic) {
                topic = "";
            }
            properties = properties.topic_alias(alias);
        }
        let payload = payload_of(theirs.number, 12);
        let publish = Packet::Publish(Publish {
            dup,
            qos: theirs.qos,
            retain: false,
            topic,
            id,
            properties: properties.list(),
            payload: &payload,
        });
        self.send(version, &publish, None);
    }
}
