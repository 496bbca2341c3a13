//! Reads every byte that the client writes, as it leaves, and checks it against what the client can know
//! at that moment: which answers it has read, and what CONNACK said.

use std::collections::{BTreeMap, BTreeSet};

use coracle::codec::{Packet, Publish, Split, decode, split};
use coracle::{PacketId, Qos, Reason, Version};

use crate::ledger::{Ledger, Limits, MARK, marks, number_of};

/// Something the client has read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    /// `anew` if the client knows by it that there was no session.
    Connack {
        anew: bool,
        limits: Limits,
    },
    Refused,
    Puback(PacketId, Reason),
    Pubrec(PacketId, Reason),
    Pubcomp(PacketId),
    Request(PacketId),
}

/// What an identifier of the client stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Message { number: u32, released: bool },
    Request,
}

/// How far the connection is, as the client can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opened,
    Asked,
    Greeted,
    Left,
}

#[derive(Debug)]
pub(crate) struct Observer {
    version: Version,
    window: usize,
    republish: bool,
    // What belongs to the session.
    open: BTreeMap<PacketId, Use>,
    /// Bytes of these have left in this session.
    left: BTreeSet<u32>,
    /// PUBLISHes that were cut off before their number.
    torn: u32,
    // What belongs to the connection.
    phase: Phase,
    leaving: bool,
    greeted: bool,
    input: Vec<u8>,
    limits: Limits,
    in_flight: BTreeMap<PacketId, Qos>,
    aliases: BTreeMap<u16, String>,
    here: BTreeSet<u32>,
    /// The limits that the client read last.
    pub(crate) known: Limits,
    connects: u32,
}

impl Observer {
    pub(crate) fn new(version: Version, window: usize, republish: bool) -> Self {
        Self {
            version,
            window,
            republish,
            open: BTreeMap::new(),
            left: BTreeSet::new(),
            torn: 0,
            phase: Phase::Opened,
            leaving: false,
            greeted: false,
            input: Vec::new(),
            limits: Limits::NONE,
            in_flight: BTreeMap::new(),
            aliases: BTreeMap::new(),
            here: BTreeSet::new(),
            known: Limits::NONE,
            connects: 0,
        }
    }

    /// A new connection.
    pub(crate) fn opened(&mut self) {
        self.phase = Phase::Opened;
        self.leaving = false;
        self.greeted = false;
        self.limits = Limits::NONE;
    }

    /// The connection is over.
    pub(crate) fn ended(&mut self, ledger: &mut Ledger) {
        let tail = std::mem::take(&mut self.input);
        if tail.first().is_some_and(|first| first & 0xF0 == 0x30) {
            let mut found = false;
            for number in marks(&tail) {
                found = true;
                self.left.insert(number);
                ledger.of(number).left = true;
            }
            self.torn += u32::from(!found);
            ledger.torn += u32::from(!found);
        }
        self.open
            .retain(|_, what| matches!(what, Use::Message { .. }));
        self.in_flight.clear();
        self.aliases.clear();
        self.here.clear();
    }

    /// Whether the client has said DISCONNECT.
    pub(crate) fn has_left(&self) -> bool {
        self.leaving || self.phase == Phase::Left
    }

    /// The application told the client to leave: it takes nothing to heart any more.
    pub(crate) fn leaves(&mut self) {
        self.leaving = true;
    }

    /// Whether the client has read the CONNACK of this connection.
    pub(crate) fn was_greeted(&self) -> bool {
        self.greeted
    }

    /// An identifier that is in use for a message of this QoS.
    pub(crate) fn used(&self, qos: Qos, ledger: &Ledger) -> Option<PacketId> {
        self.in_flight.iter().find_map(|(id, of)| {
            let Use::Message { number, released } = self.open.get(id)? else {
                return None;
            };
            let fits = *of == qos && !released && ledger.mine[number].qos == qos;
            fits.then_some(*id)
        })
    }

    /// The client has read this.
    pub(crate) fn read(&mut self, mark: Mark, ledger: &mut Ledger) {
        match mark {
            Mark::Connack { anew, limits } => {
                self.phase = Phase::Greeted;
                self.greeted = true;
                self.limits = limits;
                self.known = limits;
                let tightest = &mut ledger.tightest;
                tightest.packet_size = tightest.packet_size.min(limits.packet_size);
                tightest.qos = tightest.qos.min(limits.qos);
                tightest.retain &= limits.retain;
                if anew {
                    self.lost(ledger);
                }
                for (id, what) in &self.open {
                    if let Use::Message { released: true, .. } = what {
                        self.in_flight.insert(*id, Qos::ExactlyOnce);
                    }
                }
                self.connects += 1;
            }
            Mark::Refused => {}
            Mark::Puback(id, reason) => {
                if let Some(Use::Message { number, .. }) = self.open.get(&id).copied()
                    && ledger.of(number).qos == Qos::AtLeastOnce
                {
                    self.finish(id, number, reason, ledger);
                }
            }
            Mark::Pubrec(id, reason) => {
                if let Some(Use::Message { number, released }) = self.open.get(&id).copied()
                    && ledger.of(number).qos == Qos::ExactlyOnce
                    && !released
                {
                    if reason.is_error() {
                        return self.finish(id, number, reason, ledger);
                    }
                    let released = true;
                    self.open.insert(id, Use::Message { number, released });
                    let mine = ledger.of(number);
                    mine.received = true;
                    mine.barred = Some("published again after PUBREC [MQTT-4.3.3-6]");
                }
            }
            Mark::Pubcomp(id) => {
                if let Some(Use::Message {
                    number,
                    released: true,
                }) = self.open.get(&id).copied()
                {
                    self.finish(id, number, Reason::SUCCESS, ledger);
                }
            }
            Mark::Request(id) => {
                if self.open.get(&id) == Some(&Use::Request) {
                    self.open.remove(&id);
                }
            }
        }
    }

    fn finish(&mut self, id: PacketId, number: u32, reason: Reason, ledger: &mut Ledger) {
        self.open.remove(&id);
        self.in_flight.remove(&id);
        let mine = ledger.of(number);
        if reason.is_error() {
            mine.refused = Some(reason);
            mine.barred = Some("published again after a refusal [MQTT-4.3.3-9]");
        } else {
            mine.acknowledged = true;
            mine.barred = Some("published again after its acknowledgement");
        }
    }

    /// The client knows that the session is lost: design.md, situations 4 and 5.
    fn lost(&mut self, ledger: &mut Ledger) {
        if self.connects > 0 {
            ledger.told_losses += 1;
        }
        self.open.clear();
        for number in std::mem::take(&mut self.left) {
            let mine = ledger.of(number);
            if mine.qos == Qos::ExactlyOnce && !self.republish && mine.barred.is_none() {
                mine.barred = Some("QoS 2 published again after the session was lost");
            }
        }
        self.torn = 0;
    }

    /// The client has written this. Returns the numbers of the whole PUBLISHes in it.
    pub(crate) fn wrote(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut used = 0;
        loop {
            match split(&input[used..]).expect("the client writes packets") {
                Split::Header | Split::Partial { .. } => break,
                Split::Whole { frame, size } => {
                    let packet = decode(self.version, frame).expect("the client's are good");
                    assert!(
                        size <= self.limits.packet_size,
                        "{size} bytes, {} are allowed [MQTT-3.2.2-15]",
                        self.limits.packet_size
                    );
                    self.packet(&packet, ledger);
                    used += size;
                }
            }
        }
        self.input = input[used..].to_vec();
    }

    fn packet(&mut self, packet: &Packet<'_>, ledger: &mut Ledger) {
        match (self.phase, packet) {
            (Phase::Opened, Packet::Connect(_)) => {
                self.phase = Phase::Asked;
                return;
            }
            (Phase::Opened, _) => panic!("{packet:?} before CONNECT [MQTT-3.1.0-1]"),
            (Phase::Asked, Packet::Auth(_) | Packet::Disconnect(_)) | (Phase::Greeted, _) => {}
            (Phase::Asked, _) => panic!("{packet:?} before CONNACK [MQTT-3.1.2-30]"),
            (Phase::Left, _) => panic!("{packet:?} after DISCONNECT [MQTT-3.14.4-1]"),
        }
        match packet {
            Packet::Publish(publish) => self.publish(publish, ledger),
            Packet::Pubrel(ack) => {
                // One for an identifier that nobody knows answers a stray PUBREC.
                if let Some(Use::Message { released, .. }) = self.open.get(&ack.id)
                    && !released
                {
                    let qos = self.in_flight.get(&ack.id);
                    assert_ne!(
                        qos,
                        Some(&Qos::ExactlyOnce),
                        "PUBREL without PUBREC [MQTT-4.3.3-4]"
                    );
                }
            }
            Packet::Subscribe(subscribe) => self.request(subscribe.id),
            Packet::Unsubscribe(unsubscribe) => self.request(unsubscribe.id),
            Packet::Disconnect(_) => self.phase = Phase::Left,
            Packet::Connect(_) => panic!("a second CONNECT [MQTT-3.1.0-2]"),
            Packet::Puback(_)
            | Packet::Pubrec(_)
            | Packet::Pubcomp(_)
            | Packet::Pingreq
            | Packet::Auth(_) => {}
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                panic!("no client sends {packet:?}")
            }
        }
    }

    fn request(&mut self, id: PacketId) {
        let before = self.open.insert(id, Use::Request);
        assert_eq!(before, None, "identifier {id} is in use [MQTT-2.2.1-3]");
    }

    fn publish(&mut self, publish: &Publish<'_>, ledger: &mut Ledger) {
        let number = number_of(publish.payload);
        let topic = self.topic(publish);
        let mine = ledger.of(number);
        assert_eq!(topic, mine.topic, "{number} has another topic");
        assert_eq!(publish.qos, mine.qos, "{number} has another QoS");
        assert!(publish.payload[MARK..].iter().all(|byte| *byte == b'.'));
        assert!(publish.qos <= self.limits.qos, "[MQTT-3.2.2-11]");
        assert!(
            !publish.retain || self.limits.retain,
            "retained [MQTT-3.2.2-14]"
        );
        if let Some(rule) = mine.barred {
            panic!("{number}: {rule}");
        }
        assert!(
            self.here.insert(number),
            "{number} twice on one connection [MQTT-4.4.0-1]"
        );
        let before = self.left.contains(&number);
        let (id, dup) = (publish.id, publish.dup);
        mine.left = true;
        mine.written += 1;
        let Some(id) = id else {
            assert_eq!(mine.written, 1, "QoS 0 message {number} sent again");
            return;
        };
        self.left.insert(number);
        if before {
            assert!(dup, "{number} sent again without DUP [MQTT-3.3.1-1]");
        } else if dup && !ledger.blind {
            // Bytes of it left in a packet that was cut off before its number.
            assert!(self.torn > 0, "{number} sent first with DUP");
            self.torn -= 1;
        }
        let released = false;
        match self.open.insert(id, Use::Message { number, released }) {
            None => {}
            Some(Use::Request) => panic!("identifier {id} is in use [MQTT-2.2.1-3]"),
            Some(Use::Message { number: old, .. }) if old == number => {}
            Some(Use::Message { number: old, .. }) => {
                let over = !self.in_flight.contains_key(&id);
                let mine = ledger.of(old);
                // QoS 1 that was not sent again on this connection: given up, or the identifier is
                // used twice. The end of its call tells which.
                assert!(
                    over && mine.qos == Qos::AtLeastOnce,
                    "identifier {id} of {old} is used for {number} [MQTT-2.2.1-3]"
                );
                mine.superseded = true;
            }
        }
        self.in_flight.insert(id, publish.qos);
        let flying = self.in_flight.len();
        assert!(
            flying <= self.limits.receive_maximum && flying <= self.window,
            "{flying} under way, Receive Maximum {}, window {} [MQTT-3.3.4-7]",
            self.limits.receive_maximum,
            self.window
        );
    }

    /// The topic, an alias resolved by what was said on this connection.
    fn topic(&mut self, publish: &Publish<'_>) -> String {
        let Some(alias) = publish.properties.topic_alias() else {
            return publish.topic.into();
        };
        assert!(
            (1..=self.limits.aliases).contains(&alias),
            "alias {alias}, the maximum is {} [MQTT-3.3.2-9]",
            self.limits.aliases
        );
        if publish.topic.is_empty() {
            let known = self.aliases.get(&alias);
            return known
                .expect("an alias of another connection [MQTT-3.3.2-7]")
                .clone();
        }
        self.aliases.insert(alias, publish.topic.into());
        publish.topic.into()
    }
}
