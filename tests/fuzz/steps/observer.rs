//! Looks at every packet that a client sends and at every one that it was given, and knows what the
//! standard lets it send. It keeps its own books, from the bytes alone.

use std::collections::VecDeque;

use coracle::codec::publish::peek_id;
use coracle::codec::{self, Packet, Publish, Split};
use coracle::protocol::{Continuity, Limits, Receipt};
use coracle::{PacketId, Qos, Reason, Version};

/// What a client may say in DISCONNECT (MQTT 5, table 3-10).
const GOODBYES: [u8; 13] = [
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x99,
];

/// A packet of the client to which a broker owes an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Connect,
    Auth,
    Puback(PacketId),
    Pubrec(PacketId),
    Pubrel(PacketId),
    Pubcomp(PacketId),
    /// With so many filters.
    Suback(PacketId, usize),
    Unsuback(PacketId, usize),
    Pingresp,
}

/// Who holds an identifier of the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exchange {
    Published {
        qos: Qos,
        /// Where its last PUBLISH began.
        from: u64,
        /// Whether that was on this connection.
        here: bool,
        /// Whether any byte of it reached the transport of an earlier one.
        written: bool,
    },
    Released {
        /// Whether its PUBLISH was sent on this connection.
        here: bool,
    },
    Subscribe,
    Unsubscribe,
    /// The broker has said things that make more than one answer right.
    Loose,
}

/// Whether a QoS 2 message with a known identifier may be handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// No: it was handed on, and the broker has not released it.
    Delivered,
    /// Only without DUP: the session may be another one.
    InAnotherSession,
    /// It was refused or given up, so that both are right.
    Perhaps,
}

/// An acknowledgement that the client owes.
#[derive(Debug, Clone, Copy)]
struct Due {
    id: PacketId,
    /// Whose message is not taken yet, so that it must not come.
    unread: Option<Receipt>,
}

#[derive(Debug)]
pub(crate) struct Observer {
    version: Version,
    // Of the session.
    exchanges: Vec<(PacketId, Exchange)>,
    received: Vec<(PacketId, Known)>,
    /// Identifiers that came with it from an earlier process.
    inherited: usize,
    // Of the connection.
    stage: Stage,
    connections: usize,
    receive_maximum: usize,
    exactly_once_maximum: usize,
    limits: Option<Limits>,
    aliases: Vec<u16>,
    pubacks: VecDeque<Due>,
    pubrecs: VecDeque<Due>,
    /// PUBRELs that were not answered.
    pubrels: Vec<PacketId>,
    /// Identifiers of PUBRECs that may be answered with PUBREL.
    pubrecs_received: Vec<PacketId>,
    /// Bytes looked at, over the client's life.
    total: u64,
    pub(crate) asked: VecDeque<Asked>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Closed,
    /// Nothing was sent yet.
    Opened,
    Greeted,
    Online,
    /// DISCONNECT was sent, or would have been if it fit.
    Left,
}

impl Observer {
    pub(crate) fn new(version: Version) -> Self {
        Self {
            version,
            exchanges: Vec::new(),
            received: Vec::new(),
            inherited: 0,
            stage: Stage::Closed,
            connections: 0,
            receive_maximum: 0,
            exactly_once_maximum: 0,
            limits: None,
            aliases: Vec::new(),
            pubacks: VecDeque::new(),
            pubrecs: VecDeque::new(),
            pubrels: Vec::new(),
            pubrecs_received: Vec::new(),
            total: 0,
            asked: VecDeque::new(),
        }
    }

    /// The client goes on with a session that is not known here, in this version and with so many identifiers.
    pub(crate) fn restored(&mut self, version: Version, identifiers: usize) {
        self.version = version;
        self.inherited = identifiers;
    }

    /// Identifiers that the client may hold.
    pub(crate) fn identifiers(&self) -> usize {
        self.exchanges.len() + self.inherited
    }

    /// An identifier that the client holds.
    pub(crate) fn identifier(&self, nth: usize) -> Option<PacketId> {
        let nth = nth.checked_rem(self.exchanges.len())?;
        self.exchanges.get(nth).map(|(id, _)| *id)
    }

    // The connection.

    pub(crate) fn opened(&mut self) {
        assert_eq!(self.stage, Stage::Closed);
        self.stage = Stage::Opened;
        self.connections += 1;
    }

    pub(crate) fn connected(&mut self, continuity: Continuity, limits: &Limits) {
        self.stage = Stage::Online;
        self.receive_maximum = limits.receive_maximum.into();
        self.exactly_once_maximum = limits.exactly_once_maximum.into();
        self.limits = Some(limits.clone());
        match continuity {
            Continuity::Present => {}
            Continuity::Untold => {
                for (_, known) in &mut self.received {
                    match known {
                        Known::Delivered => *known = Known::InAnotherSession,
                        Known::InAnotherSession | Known::Perhaps => {}
                    }
                }
            }
            Continuity::Lost => {
                self.exchanges.clear();
                self.received.clear();
                self.inherited = 0;
            }
        }
    }

    /// Nothing may be sent any more.
    pub(crate) fn is_over(&mut self) {
        self.stage = Stage::Left;
    }

    /// The transport is gone; it had taken everything before `taken`.
    pub(crate) fn closed(&mut self, taken: u64) {
        self.stage = Stage::Closed;
        self.limits = None;
        self.aliases.clear();
        self.pubacks.clear();
        self.pubrecs.clear();
        self.pubrels.clear();
        self.pubrecs_received.clear();
        self.asked.clear();
        self.exchanges.retain_mut(|(_, exchange)| match exchange {
            Exchange::Published {
                from,
                here,
                written,
                ..
            } => {
                *written |= *here && *from < taken;
                *here = false;
                true
            }
            Exchange::Released { here } => {
                *here = false;
                true
            }
            Exchange::Loose => true,
            Exchange::Subscribe | Exchange::Unsubscribe => false,
        });
    }

    // What the client sends.

    /// New bytes, at packet borders. Returns the reasons of DISCONNECTs among them.
    pub(crate) fn sent(&mut self, bytes: &[u8]) -> Vec<Reason> {
        let mut goodbyes = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let Ok(Split::Whole { frame, size }) = codec::split(rest) else {
                panic!("a client sends whole packets: {rest:02X?}");
            };
            let packet = match codec::decode(self.version, frame) {
                Ok(packet) => packet,
                Err(violation) => panic!("{violation}: {:02X?}", &rest[..size]),
            };
            if let (Stage::Online, Some(limits)) = (self.stage, &self.limits) {
                // [MQTT-3.2.2-15]
                assert!(
                    size <= limits.maximum_packet_size,
                    "{packet:?} is too large"
                );
            }
            match (self.stage, &packet) {
                // [MQTT-3.1.0-1], [MQTT-3.1.0-2]
                (Stage::Opened, Packet::Connect(_)) => self.stage = Stage::Greeted,
                (Stage::Closed | Stage::Opened, _) | (_, Packet::Connect(_)) => {
                    panic!("{packet:?} in {:?}", self.stage)
                }
                (Stage::Left, _) => panic!("{packet:?} after the end [MQTT-3.14.4-1]"),
                // [MQTT-3.1.2-30]
                (Stage::Greeted, Packet::Auth(_) | Packet::Disconnect(_)) => {}
                (Stage::Greeted, _) => panic!("{packet:?} before CONNACK"),
                (Stage::Online, _) => {}
            }
            if let Packet::Disconnect(disconnect) = &packet {
                // [MQTT-3.14.2-1]
                assert!(GOODBYES.contains(&disconnect.reason.code()), "{packet:?}");
                goodbyes.push(disconnect.reason);
                self.stage = Stage::Left;
            }
            self.judge(&packet);
            self.total += size as u64;
            rest = &rest[size..];
        }
        goodbyes
    }

    fn judge(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Connect(_) => self.asked.push_back(Asked::Connect),
            Packet::Publish(publish) => self.judge_publish(publish),
            Packet::Puback(ack) => {
                // [MQTT-4.6.0-2], [MQTT-4.3.2-4]
                let due = self.pubacks.pop_front();
                let due = due.unwrap_or_else(|| panic!("{packet:?} is not due"));
                assert_eq!((due.id, due.unread), (ack.id, None), "{packet:?}");
            }
            Packet::Pubrec(ack) => {
                // [MQTT-4.6.0-3]; a message that came twice may have one answer.
                while let Some(due) = self.pubrecs.pop_front() {
                    if due.id == ack.id {
                        assert_eq!(due.unread, None, "{packet:?} is not taken");
                        if !ack.reason.is_error() {
                            self.asked.push_back(Asked::Pubrel(ack.id));
                        }
                        return;
                    }
                }
                panic!("{packet:?} is not due");
            }
            Packet::Pubrel(ack) => {
                let replayed = self.pubrecs_received.iter().position(|id| *id == ack.id);
                match replayed {
                    Some(place) => {
                        self.pubrecs_received.swap_remove(place);
                    }
                    // After a lost link [MQTT-4.4.0-1].
                    None => match self.exchange(ack.id) {
                        Some(Exchange::Released { here: false } | Exchange::Loose) => {}
                        None if self.inherited > 0 => {}
                        other => panic!("{packet:?} is not due: {other:?}"),
                    },
                }
                self.asked.push_back(Asked::Pubcomp(ack.id));
            }
            Packet::Pubcomp(ack) => {
                let place = self.pubrels.iter().position(|id| *id == ack.id);
                let place = place.unwrap_or_else(|| panic!("{packet:?} is not due"));
                self.pubrels.remove(place);
            }
            Packet::Subscribe(subscribe) => {
                let count = subscribe.filters.iter().count();
                self.begin(subscribe.id, Exchange::Subscribe);
                self.asked.push_back(Asked::Suback(subscribe.id, count));
            }
            Packet::Unsubscribe(unsubscribe) => {
                let count = unsubscribe.filters.iter().count();
                self.begin(unsubscribe.id, Exchange::Unsubscribe);
                self.asked.push_back(Asked::Unsuback(unsubscribe.id, count));
            }
            Packet::Pingreq => self.asked.push_back(Asked::Pingresp),
            Packet::Auth(_) => self.asked.push_back(Asked::Auth),
            Packet::Disconnect(_) => {}
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                panic!("{packet:?} of a client")
            }
        }
    }

    fn judge_publish(&mut self, publish: &Publish<'_>) {
        if let Some(limits) = &self.limits {
            // [MQTT-3.2.2-11], [MQTT-3.2.2-14], [MQTT-3.2.2-17]
            assert!(publish.qos <= limits.maximum_qos);
            assert!(!publish.retain || limits.retain_available);
            if let Some(alias) = publish.properties.topic_alias() {
                assert!(alias > 0 && alias <= limits.topic_alias_maximum);
                let known = self.aliases.contains(&alias);
                assert!(known || !publish.topic.is_empty(), "alias {alias} is new");
                if !known {
                    self.aliases.push(alias);
                }
            }
        }
        let Some(id) = publish.id else { return };
        match self.exchange(id) {
            Some(Exchange::Published {
                qos, here, written, ..
            }) => {
                // [MQTT-4.4.0-1]: never again on the same connection.
                assert!(!here, "{id:?} is in use");
                let again = qos == publish.qos && publish.dup == written;
                // One of QoS 1 that was given up leaves its identifier to another message.
                let another = qos == Qos::AtLeastOnce && !publish.dup;
                assert!(again || another, "{publish:?} dup {}", publish.dup);
                self.end(id);
            }
            Some(Exchange::Loose) => self.end(id),
            // [MQTT-3.3.1-1]
            Some(Exchange::Released { .. } | Exchange::Subscribe | Exchange::Unsubscribe)
            | None => {
                let known = !publish.dup || self.inherited > 0;
                assert!(known, "{publish:?} was never sent before");
            }
        }
        let exchange = Exchange::Published {
            qos: publish.qos,
            from: self.total,
            here: true,
            written: publish.dup,
        };
        self.begin(id, exchange);
        let (mut used, mut exactly_once) = (0, 0);
        for (_, exchange) in &self.exchanges {
            match exchange {
                Exchange::Published {
                    qos, here: true, ..
                } => {
                    used += 1;
                    exactly_once += usize::from(*qos == Qos::ExactlyOnce);
                }
                Exchange::Released { here: true } => {
                    used += 1;
                    exactly_once += 1;
                }
                Exchange::Published { here: false, .. }
                | Exchange::Released { here: false }
                | Exchange::Subscribe
                | Exchange::Unsubscribe
                | Exchange::Loose => {}
            }
        }
        // [MQTT-3.3.4-7]
        assert!(used <= self.receive_maximum, "{used} are under way");
        assert!(exactly_once <= self.exactly_once_maximum);
        self.asked.push_back(match publish.qos {
            Qos::ExactlyOnce => Asked::Pubrec(id),
            Qos::AtMostOnce | Qos::AtLeastOnce => Asked::Puback(id),
        });
    }

    fn exchange(&self, id: PacketId) -> Option<Exchange> {
        let found = self.exchanges.iter().find(|(other, _)| *other == id);
        found.map(|(_, exchange)| *exchange)
    }

    /// No identifier stands for two things [MQTT-2.2.1-3].
    fn begin(&mut self, id: PacketId, exchange: Exchange) {
        match self.exchange(id) {
            None => {}
            // The first is one of QoS 1 that was given up.
            Some(
                Exchange::Published {
                    qos: Qos::AtLeastOnce,
                    here: false,
                    ..
                }
                | Exchange::Loose,
            ) => self.end(id),
            Some(other) => panic!("{id:?} is in use by {other:?}"),
        }
        self.exchanges.push((id, exchange));
    }

    fn end(&mut self, id: PacketId) {
        self.exchanges.retain(|(other, _)| *other != id);
    }

    // What the client was given.

    /// The client has used up these bytes, and handed the message in them on or not.
    /// If it has to be taken first, this is its receipt.
    pub(crate) fn received(&mut self, bytes: &[u8], delivered: bool, unread: Option<Receipt>) {
        let whole = match codec::split(bytes) {
            Ok(Split::Whole { frame, size }) if size == bytes.len() => {
                codec::decode(self.version, frame).ok()
            }
            _ => None,
        };
        if self.stage != Stage::Online {
            assert!(!delivered);
            return;
        }
        let Some(packet) = whole else {
            assert!(!delivered);
            return;
        };
        match packet {
            Packet::Publish(publish) => self.received_publish(&publish, delivered, unread),
            Packet::Puback(ack) => {
                if let Some(Exchange::Published {
                    qos: Qos::AtLeastOnce,
                    ..
                }) = self.exchange(ack.id)
                {
                    self.end(ack.id);
                }
            }
            Packet::Pubrec(ack) => {
                if !ack.reason.is_error() {
                    self.pubrecs_received.push(ack.id);
                }
                match self.exchange(ack.id) {
                    Some(Exchange::Published {
                        qos: Qos::ExactlyOnce,
                        here,
                        ..
                    }) => {
                        self.end(ack.id);
                        if !ack.reason.is_error() {
                            self.exchanges.push((ack.id, Exchange::Released { here }));
                        }
                    }
                    // It may be one that was given up; else a refusal comes too late.
                    Some(Exchange::Released { here: false }) if ack.reason.is_error() => {
                        self.end(ack.id);
                        self.exchanges.push((ack.id, Exchange::Loose));
                    }
                    Some(
                        Exchange::Published { .. }
                        | Exchange::Released { .. }
                        | Exchange::Subscribe
                        | Exchange::Unsubscribe
                        | Exchange::Loose,
                    )
                    | None => {}
                }
            }
            Packet::Pubcomp(ack) => match self.exchange(ack.id) {
                Some(Exchange::Released { .. }) => self.end(ack.id),
                // It may be one that was given up; else it comes too early.
                Some(Exchange::Published {
                    qos: Qos::ExactlyOnce,
                    here: false,
                    ..
                }) => {
                    self.end(ack.id);
                    self.exchanges.push((ack.id, Exchange::Loose));
                }
                Some(
                    Exchange::Published { .. }
                    | Exchange::Subscribe
                    | Exchange::Unsubscribe
                    | Exchange::Loose,
                )
                | None => {}
            },
            Packet::Pubrel(ack) => {
                self.pubrels.push(ack.id);
                self.received.retain(|(id, _)| *id != ack.id);
                // The broker waits for no PUBREC; one that is on its way may still come.
                self.release(ack.id);
            }
            Packet::Suback(suback) => {
                if self.exchange(suback.id) == Some(Exchange::Subscribe) {
                    self.end(suback.id);
                }
            }
            Packet::Unsuback(unsuback) => {
                if self.exchange(unsuback.id) == Some(Exchange::Unsubscribe) {
                    self.end(unsuback.id);
                }
            }
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq
            | Packet::Pingresp
            | Packet::Disconnect(_)
            | Packet::Auth(_) => {}
        }
    }

    /// The message is taken by all who had it, or it is too late for that.
    pub(crate) fn taken(&mut self, receipt: Receipt) {
        for due in self.pubacks.iter_mut().chain(&mut self.pubrecs) {
            if due.unread == Some(receipt) {
                due.unread = None;
            }
        }
    }

    fn received_publish(
        &mut self,
        publish: &Publish<'_>,
        delivered: bool,
        unread: Option<Receipt>,
    ) {
        let Some(id) = publish.id else {
            assert!(delivered, "a message is lost");
            return;
        };
        match publish.qos {
            Qos::AtMostOnce | Qos::AtLeastOnce => {
                self.pubacks.push_back(Due { id, unread });
                // Repeated, it may stand for one that is still unread.
                assert!(delivered || publish.dup, "a message is lost");
            }
            Qos::ExactlyOnce => {
                self.pubrecs.push_back(Due { id, unread });
                match self.received.iter_mut().find(|(other, _)| *other == id) {
                    None => {
                        assert!(delivered, "a message is lost");
                        self.received.push((id, Known::Delivered));
                    }
                    Some((_, known @ Known::InAnotherSession)) => {
                        assert_eq!(delivered, !publish.dup);
                        *known = Known::Delivered;
                    }
                    Some((_, Known::Delivered)) => {
                        // [MQTT-4.3.3-10]
                        assert!(!delivered, "{publish:?} is delivered twice");
                    }
                    Some((_, Known::Perhaps)) => {}
                }
            }
        }
    }

    /// The client drops a message that is too large: it is acknowledged like one that nobody wants.
    pub(crate) fn skipped(&mut self, first: u8, body: &[u8]) {
        match peek_id(first, body) {
            Some((Qos::AtLeastOnce, Some(id))) => {
                self.pubacks.push_back(Due { id, unread: None });
            }
            Some((Qos::ExactlyOnce, Some(id))) => {
                // It is another one than that which was not taken, so that nothing is owed for that.
                self.release(id);
                self.pubrecs.push_back(Due { id, unread: None });
                self.received.retain(|(other, _)| *other != id);
                self.received.push((id, Known::Delivered));
            }
            Some(_) | None => {}
        }
    }

    fn release(&mut self, id: PacketId) {
        for due in self.pubrecs.iter_mut().filter(|due| due.id == id) {
            due.unread = None;
        }
    }

    /// A message of QoS 2 was refused or given up by the one who had it.
    pub(crate) fn refused(&mut self, id: PacketId) {
        for (other, known) in &mut self.received {
            if *other == id {
                *known = Known::Perhaps;
            }
        }
    }
}
