//! What became of every message of a round, and what must not.

use std::collections::{BTreeMap, HashMap, HashSet};

use coracle::{Error, ErrorKind, Qos, Sent, Wait};

use crate::wire::Passed;

pub(crate) const DIGITS: usize = 8;

/// The content of a message: its number, and bytes that follow from it.
pub(crate) fn payload_of(number: usize) -> Vec<u8> {
    let mut payload = format!("{number:0DIGITS$}").into_bytes();
    let spread = number.wrapping_mul(0x9e37_79b1) >> 7;
    let size = match spread % 64 {
        0 => 6_000,
        _ => spread % 160,
    };
    payload.resize(DIGITS + size, b'a' + (number % 26) as u8);
    payload
}

/// The number of a message, if it is as it was published.
fn number_of(payload: &[u8]) -> Option<usize> {
    let digits = payload.get(..DIGITS)?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (payload == payload_of(number)).then_some(number)
}

/// What the call of a message has said.
#[derive(Debug, Clone)]
enum Told {
    Waiting,
    Done,
    Failed(Error),
}

#[derive(Debug)]
struct Fate {
    qos: Qos,
    wait: Wait,
    told: Told,
    arrived: u32,
}

/// What must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Lost,
    Doubled,
    OutOfOrder,
    Failed,
    Hangs,
    /// Came although its call said that it was never sent.
    Untrue,
    Damaged,
}

#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// All messages of a round, by their numbers, which are in the order of the calls.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    fates: Vec<Fate>,
    /// Numbers in the order in which they came, every time.
    came: Vec<usize>,
    /// Messages above QoS 0 that have come.
    arrived: usize,
    /// Messages above QoS 0 that were published.
    published: usize,
    /// Calls that have not ended.
    pub(crate) open: usize,
    /// Calls with [`Wait::Ack`] above QoS 0 that ended well.
    pub(crate) acknowledged: usize,
    faults: Vec<Fault>,
}

/// What is told of a round.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sum {
    pub(crate) messages: [usize; 3],
    pub(crate) acknowledged: usize,
    /// QoS 0 that came, and that its call knew to have been lost.
    pub(crate) zero_arrived: usize,
    pub(crate) zero_told_lost: usize,
    /// QoS 1 that came again.
    pub(crate) repeated: usize,
    /// Above QoS 0, and its call, or an event, said so.
    pub(crate) given_up: usize,
    /// Faults: above QoS 0, and accepted.
    pub(crate) lost: usize,
    /// QoS 2 that came again.
    pub(crate) doubled: usize,
    /// QoS 2 that came again because the broker began anew to publish it.
    pub(crate) republished: usize,
    /// Messages that the broker sent for the first time behind a later one of their QoS.
    pub(crate) overtaken: usize,
    pub(crate) false_acknowledgements: usize,
}

impl Fates {
    /// A message that is about to be published. Returns its number.
    pub(crate) fn begin(&mut self, qos: Qos, wait: Wait) -> usize {
        self.fates.push(Fate {
            qos,
            wait,
            told: Told::Waiting,
            arrived: 0,
        });
        self.open += 1;
        self.published += usize::from(qos != Qos::AtMostOnce);
        self.fates.len() - 1
    }

    /// Its call has ended.
    pub(crate) fn end(&mut self, number: usize, outcome: Result<(), Error>) {
        self.open -= 1;
        let fate = &mut self.fates[number];
        let counts = fate.qos != Qos::AtMostOnce;
        fate.told = match outcome {
            Ok(()) => {
                self.acknowledged += usize::from(counts && fate.wait == Wait::Ack);
                Told::Done
            }
            Err(error) => {
                // Nobody waits for it any more.
                self.published -= usize::from(counts && fate.arrived == 0);
                Told::Failed(error)
            }
        };
    }

    /// An event says that a message was not published, for which nobody waits any more.
    pub(crate) fn give_up(&mut self, payload: &[u8], error: Error) {
        let Some(number) = number_of(payload).filter(|number| *number < self.fates.len()) else {
            return self.note(Kind::Damaged, format!("given up: {payload:?}"));
        };
        let fate = &mut self.fates[number];
        self.published -= usize::from(fate.qos != Qos::AtMostOnce && fate.arrived == 0);
        fate.told = Told::Failed(error);
    }

    /// A message has come.
    pub(crate) fn arrive(&mut self, qos: Qos, payload: &[u8]) {
        let Some(number) = number_of(payload).filter(|number| *number < self.fates.len()) else {
            self.note(Kind::Damaged, format!("{payload:?}"));
            return;
        };
        let fate = &mut self.fates[number];
        if fate.qos != qos {
            let text = format!("{number}: published with {:?}, came with {qos:?}", fate.qos);
            return self.note(Kind::Damaged, text);
        }
        fate.arrived += 1;
        self.arrived += usize::from(fate.arrived == 1 && fate.qos != Qos::AtMostOnce);
        self.came.push(number);
    }

    fn note(&mut self, kind: Kind, text: String) {
        self.faults.push(Fault { kind, text });
    }

    /// How many messages above QoS 0 are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.published.saturating_sub(self.arrived)
    }

    /// Whether this message has come.
    pub(crate) fn has_come(&self, number: usize) -> bool {
        self.fates[number].arrived > 0
    }

    /// What happened, and everything in it that must not, by what the writer has sent and the reader was
    /// sent.
    pub(crate) fn settle(mut self, sent: &[Passed], received: &[Passed]) -> (Sum, Vec<Fault>) {
        self.check_sent_order(sent);
        self.check_delivered_order(received);
        let republished = republished(received);
        let mut sum = Sum {
            acknowledged: self.acknowledged,
            overtaken: self.overtaken(),
            ..Sum::default()
        };
        let mut faults = self.faults;
        for (number, fate) in self.fates.iter().enumerate() {
            sum.messages[usize::from(fate.qos.bits())] += 1;
            let arrived = fate.arrived;
            let mut fault = |kind| {
                let Fate {
                    qos, wait, told, ..
                } = fate;
                let told = match told {
                    Told::Waiting => "has not ended".to_owned(),
                    Told::Done => "said Ok".to_owned(),
                    Told::Failed(error) => format!("said {error}, sent: {:?}", error.sent()),
                };
                let text = format!(
                    "{number}: {qos:?}, {wait:?}, its call {told}, it came {arrived} times"
                );
                faults.push(Fault { kind, text });
            };
            match &fate.told {
                Told::Waiting => fault(Kind::Hangs),
                Told::Failed(error) if error.sent() == Sent::No && arrived > 0 => {
                    fault(Kind::Untrue);
                }
                Told::Done | Told::Failed(_) => {}
            }
            match (fate.qos, &fate.told, arrived) {
                (_, Told::Waiting, _) => {}
                (Qos::AtMostOnce, _, 2..) => fault(Kind::Doubled),
                (Qos::AtMostOnce, told, _) => {
                    sum.zero_arrived += usize::from(arrived > 0);
                    sum.zero_told_lost += usize::from(matches!(told, Told::Failed(_)));
                }
                // Who cannot be told from a broker that hangs up on this message three times: it has left
                // whole, and the end came in order, without any acknowledgement, right behind a PINGRESP. Or
                // whose link broke six times in a row over it, which is far rarer.
                (qos, Told::Failed(error), times)
                    if matches!(error.kind(), ErrorKind::LinkLost)
                        && error.sent() == Sent::Maybe
                        && (qos == Qos::AtLeastOnce || times <= 1) =>
                {
                    sum.given_up += 1;
                }
                (Qos::AtLeastOnce | Qos::ExactlyOnce, Told::Failed(_), _) => {
                    fault(Kind::Failed);
                }
                (Qos::AtLeastOnce | Qos::ExactlyOnce, Told::Done, 0) => {
                    fault(Kind::Lost);
                    sum.lost += 1;
                    sum.false_acknowledgements += usize::from(fate.wait == Wait::Ack);
                }
                (Qos::AtLeastOnce, Told::Done, more) => sum.repeated += more as usize - 1,
                (Qos::ExactlyOnce, Told::Done, 1) => {}
                (Qos::ExactlyOnce, Told::Done, more) => {
                    let more = more as usize - 1;
                    let by_broker = republished.get(&number).map_or(0, |times| more.min(*times));
                    sum.republished += by_broker;
                    if more > by_broker {
                        fault(Kind::Doubled);
                        sum.doubled += more - by_broker;
                    }
                }
            }
        }
        (sum, faults)
    }

    /// The writer sends in the order of the calls: QoS 0, and QoS 1 and 2 together.
    fn check_sent_order(&mut self, sent: &[Passed]) {
        let mut seen = HashSet::new();
        let mut latest = [None; 2];
        for passed in sent {
            let Passed::Publish { number, id } = *passed else {
                continue;
            };
            if !seen.insert(number) {
                continue;
            }
            let before = latest[usize::from(id.is_some())].replace(number);
            if let Some(before) = before.filter(|before| *before > number) {
                self.note(
                    Kind::OutOfOrder,
                    format!("{number}: sent for the first time behind {before}"),
                );
            }
        }
    }

    /// The reader gets what has come to it, in the order in which it came: each message that it was given
    /// stands on the wire behind the one before.
    fn check_delivered_order(&mut self, received: &[Passed]) {
        let mut places: HashMap<_, Vec<_>> = HashMap::new();
        for (place, passed) in received.iter().enumerate() {
            if let Passed::Publish { number, .. } = passed {
                places.entry(*number).or_default().push(place);
            }
        }
        let mut last = None;
        for number in std::mem::take(&mut self.came) {
            let places = places.get(&number).map_or(&[][..], Vec::as_slice);
            match places.iter().copied().find(|place| Some(*place) > last) {
                Some(place) => last = Some(place),
                None => {
                    let text = format!("{number}: given at {last:?}, on the wire at {places:?}");
                    self.note(Kind::OutOfOrder, text);
                }
            }
            self.came.push(number);
        }
    }

    /// How many messages of a QoS came for the first time behind a later one: the broker sent them so, if
    /// nothing is wrong with the order of either client.
    fn overtaken(&self) -> usize {
        let mut seen = HashSet::new();
        let mut latest = [0; 3];
        let first = self.came.iter().filter(|number| seen.insert(**number));
        let overtaken = first.filter(|number| {
            let latest = &mut latest[usize::from(self.fates[**number].qos.bits())];
            let behind = *latest > **number;
            *latest = **number;
            behind
        });
        overtaken.count()
    }
}

/// How often the broker has begun anew to publish each message of QoS 2, by number: with another packet
/// identifier, or after its PUBREL, which forbids it [MQTT-4.3.3-6]. A receiver has to take such a message
/// for a new one.
fn republished(received: &[Passed]) -> HashMap<usize, usize> {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Half {
        Published,
        Released,
    }
    let mut halves = HashMap::new();
    let mut owners = HashMap::new();
    let mut times = HashMap::new();
    for passed in received {
        match *passed {
            Passed::Publish {
                number,
                id: Some(id),
            } => {
                let before = halves.insert(number, (id, Half::Published));
                if before.is_some_and(|before| before != (id, Half::Published)) {
                    *times.entry(number).or_default() += 1;
                }
                owners.insert(id, number);
            }
            Passed::Publish { id: None, .. } | Passed::Connack { .. } => {}
            Passed::Pubrel { id } => {
                if let Some(number) = owners.get(&id) {
                    halves.insert(*number, (id, Half::Released));
                }
            }
        }
    }
    times
}

impl Sum {
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, more) in self.messages.iter_mut().zip(other.messages) {
            *mine += more;
        }
        self.acknowledged += other.acknowledged;
        self.zero_arrived += other.zero_arrived;
        self.zero_told_lost += other.zero_told_lost;
        self.repeated += other.repeated;
        self.given_up += other.given_up;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.republished += other.republished;
        self.overtaken += other.overtaken;
        self.false_acknowledgements += other.false_acknowledgements;
    }
}

/// How often each of these occurs.
pub(crate) fn tally<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}
