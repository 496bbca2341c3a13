//! Rules that make the broker misbehave at a chosen moment.

use std::time::Duration;

use crate::reason::Reason;

use super::record::Kind;

/// When a [`Rule`] acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// A packet of this kind has come from a client.
    Packet(Kind),
    /// So many more bytes have come from clients. Those behind them are lost if the rule cuts.
    BytesIn(usize),
    /// So many more bytes have gone to clients. Those behind them are lost if the rule cuts.
    BytesOut(usize),
}

impl When {
    fn bytes(self) -> usize {
        match self {
            Self::Packet(_) => 0,
            Self::BytesIn(count) | Self::BytesOut(count) => count,
        }
    }

    fn counts(self, direction: Direction) -> bool {
        match self {
            Self::Packet(_) => false,
            Self::BytesIn(_) => direction == Direction::In,
            Self::BytesOut(_) => direction == Direction::Out,
        }
    }
}

/// What a [`Rule`] does. Several are joined: `[Then::Swallow, Then::Cut]` takes a packet, keeps the
/// answer back and ends the link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Then {
    /// The packet is lost before the broker sees it.
    Ignore,
    /// The packet takes effect, its answer is lost. After a swallowed CONNACK the link stays mute.
    Swallow,
    /// The packet takes effect, and these bytes are the answer. With [`Then::Ignore`]: only the bytes.
    Answer(Vec<u8>),
    /// The packet takes no effect and is answered with this reason: CONNACK and the end of the link;
    /// PUBACK, PUBREC, PUBREL, PUBCOMP; every filter of SUBACK or UNSUBACK; DISCONNECT for packets
    /// that have no answer with a reason. Before 5.0 only CONNACK and SUBACK can say it.
    Refuse(Reason),
    /// The packet takes effect now and the answer leaves so much later. Other packets overtake it,
    /// except that everything waits behind CONNACK.
    Delay(Duration),
    /// The link ends without a DISCONNECT, after the answer, if one is sent. The will is published.
    Cut,
}

/// One rule of the script: when, what, for whom and how often.
///
/// Rules are asked in the order in which they were added, and the first that fits a packet is the
/// only one to act on it. For the bytes of [`When::BytesIn`] and [`When::BytesOut`] only
/// [`Then::Cut`] and [`Then::Answer`] have a meaning.
///
/// ```
/// use coracle::Reason;
/// use coracle::testkit::{Kind, Rule, Then, When};
///
/// // The broker is busy three times, then it recovers.
/// let busy = Rule::new(When::Packet(Kind::Connect), [Then::Refuse(Reason::SERVER_BUSY)]).times(3);
/// // The answer to the second publication of client "a" is lost together with the link.
/// let lost = Rule::new(When::Packet(Kind::Publish), [Then::Swallow, Then::Cut])
///     .client("a")
///     .skip(1);
/// # drop((busy, lost));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    when: When,
    then: Vec<Then>,
    client: Option<String>,
    skip: u64,
    times: u64,
    /// Bytes still to come, if it waits for bytes.
    left: usize,
}

impl Rule {
    /// A rule that acts once, on the next occasion, whoever the client is.
    pub fn new(when: When, then: impl Into<Vec<Then>>) -> Self {
        Self {
            when,
            then: then.into(),
            client: None,
            skip: 0,
            times: 1,
            left: when.bytes(),
        }
    }

    /// Acts on this client only. Defaults to every client; a CONNECT belongs to none yet.
    pub fn client(mut self, client_id: &str) -> Self {
        self.client = Some(client_id.to_owned());
        self
    }

    /// Lets so many packets of the kind pass first. Defaults to 0.
    pub fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Acts so many times. Defaults to 1.
    pub fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    /// Acts until the script is cleared.
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    fn concerns(&self, client: Option<&str>) -> bool {
        self.client.is_none() || self.client.as_deref() == client
    }
}

/// How the broker treats one packet, as the rules want it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) handling: Handling,
    pub(super) answering: Answering,
    pub(super) delay: Option<Duration>,
    pub(super) end: End,
}

/// What becomes of the packet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handling {
    #[default]
    Process,
    Ignore,
    Refuse(Reason),
}

/// What becomes of its answer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Answering {
    #[default]
    Own,
    Nothing,
    Literal(Vec<u8>),
}

/// What becomes of the link.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    #[default]
    Stay,
    Cut,
}

impl Plan {
    fn new(then: &[Then]) -> Self {
        let mut plan = Self::default();
        for action in then {
            match action {
                Then::Ignore => plan.handling = Handling::Ignore,
                Then::Swallow => plan.answering = Answering::Nothing,
                Then::Answer(bytes) => plan.answering = Answering::Literal(bytes.clone()),
                Then::Refuse(reason) => plan.handling = Handling::Refuse(*reason),
                Then::Delay(by) => plan.delay = Some(*by),
                Then::Cut => plan.end = End::Cut,
            }
        }
        plan
    }
}

/// The rules that may still act.
#[derive(Debug, Default)]
pub(super) struct Script {
    rules: Vec<Rule>,
}

/// Which way bytes go, seen from the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum Direction {
    /// From the client to the broker.
    In,
    /// From the broker to the client.
    Out,
}

impl Script {
    pub(super) fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The plan for a packet that has come, if a rule fits.
    pub(super) fn on_packet(&mut self, kind: Kind, client: Option<&str>) -> Option<Plan> {
        let index = self.rules.iter_mut().position(|rule| {
            if rule.when != When::Packet(kind) || !rule.concerns(client) {
                return false;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                return false;
            }
            true
        })?;
        let plan = Plan::new(&self.rules[index].then);
        self.used(index);
        Some(plan)
    }

    /// Counts bytes; the plan of a rule that they set off, and how many of them come before it.
    pub(super) fn on_bytes(
        &mut self,
        direction: Direction,
        client: Option<&str>,
        count: usize,
    ) -> Option<(usize, Plan)> {
        let mut first = None;
        for (index, rule) in self.rules.iter_mut().enumerate() {
            if !rule.when.counts(direction) || !rule.concerns(client) {
                continue;
            }
            if rule.left <= count && first.is_none() {
                first = Some((index, rule.left));
            }
            rule.left = rule.left.saturating_sub(count);
        }
        let (index, before) = first?;
        let plan = Plan::new(&self.rules[index].then);
        self.used(index);
        Some((before, plan))
    }

    fn used(&mut self, index: usize) {
        let rule = &mut self.rules[index];
        rule.left = rule.when.bytes();
        rule.times = rule.times.saturating_sub(1);
        if rule.times == 0 {
            self.rules.remove(index);
        }
    }
}
