//! What the broker keeps of a client between its connections (MQTT 5, section 4.1).

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::message::{PacketId, Qos};
use crate::reason::Reason;

use super::broker::LinkId;
use super::stored::Stored;

/// For how long a session outlives its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    AtClose,
    After(Duration),
    Never,
}

impl Expiry {
    /// The Session Expiry Interval of 5.0; 0xFFFFFFFF means never (section 3.1.2.11.2).
    pub(super) fn from_seconds(seconds: u32) -> Self {
        match seconds {
            0 => Self::AtClose,
            u32::MAX => Self::Never,
            seconds => Self::After(Duration::from_secs(seconds.into())),
        }
    }
}

/// One message for one client.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) message: Rc<Stored>,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// Subscription identifiers.
    pub(super) identifiers: Vec<u32>,
}

/// A QoS 1 or 2 publication to the client that is not finished.
#[derive(Debug)]
struct Exchange {
    id: PacketId,
    step: Step,
}

/// What the client is waited for.
#[derive(Debug)]
enum Step {
    /// PUBACK or PUBREC.
    Received(Delivery),
    /// PUBCOMP.
    Complete,
}

/// What goes to the client next.
#[derive(Debug)]
pub(super) enum Emission {
    Publish {
        id: PacketId,
        delivery: Delivery,
        dup: bool,
    },
    Pubrel(PacketId),
}

/// The session state of one client; its subscriptions are in [`super::subscriptions`].
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: Option<LinkId>,
    pub(super) expiry: Expiry,
    /// When it ends, if no connection comes.
    pub(super) ends: Option<Instant>,
    /// The ids of QoS 2 publications from the client that wait for PUBREL.
    pub(super) received: BTreeSet<PacketId>,
    /// In the order of their first emission.
    exchanges: VecDeque<Exchange>,
    /// How many of `exchanges`, from the front, were emitted on this connection.
    emitted: usize,
    ids: BTreeSet<PacketId>,
    last_id: u16,
    queue: VecDeque<Delivery>,
}

impl Session {
    pub(super) fn new(expiry: Expiry) -> Self {
        Self {
            link: None,
            expiry,
            ends: None,
            received: BTreeSet::new(),
            exchanges: VecDeque::new(),
            emitted: 0,
            ids: BTreeSet::new(),
            last_id: 0,
            queue: VecDeque::new(),
        }
    }

    /// A new connection has this session: everything unfinished is to be emitted again.
    pub(super) fn attach(&mut self, link: LinkId, expiry: Expiry) {
        self.link = Some(link);
        self.expiry = expiry;
        self.ends = None;
        self.emitted = 0;
        // PUBREL waits for no quota, so those go first; each kind keeps its order [MQTT-4.6.0-1/-4].
        self.exchanges
            .make_contiguous()
            .sort_by_key(|exchange| match exchange.step {
                Step::Complete => 0,
                Step::Received(_) => 1,
            });
    }

    pub(super) fn enqueue(&mut self, delivery: Delivery) {
        self.queue.push_back(delivery);
    }

    /// Messages that wait or are not finished.
    pub(super) fn backlog(&self) -> usize {
        self.queue.len() + self.exchanges.len()
    }

    /// The next packet for the client, if its Receive Maximum `window` allows one.
    pub(super) fn poll_emission(&mut self, window: usize, now: Instant) -> Option<Emission> {
        if let Some(exchange) = self.exchanges.get(self.emitted) {
            let id = exchange.id;
            let emission = match &exchange.step {
                Step::Complete => Emission::Pubrel(id),
                Step::Received(_) if self.emitted >= window => return None,
                Step::Received(delivery) => Emission::Publish {
                    id,
                    delivery: delivery.clone(),
                    dup: true,
                },
            };
            self.emitted += 1;
            return Some(emission);
        }
        if self.emitted >= window {
            return None;
        }
        let delivery = loop {
            let delivery = self.queue.pop_front()?;
            if !delivery.message.is_expired(now) {
                break delivery;
            }
        };
        let Some(id) = self.unused_id() else {
            self.queue.push_front(delivery);
            return None;
        };
        self.exchanges.push_back(Exchange {
            id,
            step: Step::Received(delivery.clone()),
        });
        self.emitted += 1;
        Some(Emission::Publish {
            id,
            delivery,
            dup: false,
        })
    }

    /// PUBACK. Says whether it belonged to something.
    pub(super) fn acknowledged(&mut self, id: PacketId) -> bool {
        let found = self.find(
            id,
            |step| matches!(step, Step::Received(delivery) if delivery.qos == Qos::AtLeastOnce),
        );
        found.map(|index| self.remove(index)).is_some()
    }

    /// PUBREC. Says whether it belonged to something.
    pub(super) fn recorded(&mut self, id: PacketId, reason: Reason) -> bool {
        let found = self.find(id, |step| match step {
            Step::Received(delivery) => delivery.qos == Qos::ExactlyOnce,
            Step::Complete => true,
        });
        let Some(index) = found else {
            return false;
        };
        if reason.is_error() {
            self.remove(index);
        } else {
            self.exchanges[index].step = Step::Complete;
        }
        true
    }

    /// PUBCOMP. Says whether it belonged to something.
    pub(super) fn completed(&mut self, id: PacketId) -> bool {
        let found = self.find(id, |step| matches!(step, Step::Complete));
        found.map(|index| self.remove(index)).is_some()
    }

    /// Gives up a publication that the client cannot take [MQTT-3.1.2-25].
    pub(super) fn abandon(&mut self, id: PacketId) {
        if let Some(index) = self.find(id, |_| true) {
            self.remove(index);
        }
    }

    fn find(&self, id: PacketId, fits: impl Fn(&Step) -> bool) -> Option<usize> {
        self.exchanges
            .iter()
            .position(|exchange| exchange.id == id)
            .filter(|index| fits(&self.exchanges[*index].step))
    }

    fn remove(&mut self, index: usize) {
        if let Some(exchange) = self.exchanges.remove(index) {
            self.ids.remove(&exchange.id);
            if index < self.emitted {
                self.emitted -= 1;
            }
        }
    }

    fn unused_id(&mut self) -> Option<PacketId> {
        if self.ids.len() >= usize::from(u16::MAX) {
            return None;
        }
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last_id)
                && self.ids.insert(id)
            {
                return Some(id);
            }
        }
    }
}
