//! Topic aliases on the way out: two bytes instead of a topic that was sent before on this connection
//! (MQTT 5, section 3.3.2.3.4). Those of the broker are in `ledger`.
//!
//! ```text
//!     a topic ── has an alias ───────────────────────────────────► the alias alone
//!        │
//!        ├────── an alias is free ───────────────────────────────► topic and alias
//!        │
//!        ├────── was sent lately, and the alias that was unused
//!        │       longest has been so for more than twice as long ─► topic and that alias
//!        │
//!        └────── else ───────────────────────────────────────────► the topic alone
//! ```
//!
//! An alias takes three bytes, and saves the topic from its second use on. So a free alias goes to whoever
//! comes: that costs three bytes per alias and connection. When all are in use, one that is taken from its
//! topic costs three bytes now, and the topic in full later if that comes again. A topic that is sent once
//! would never pay for that, so it has to come a second time. And if a device goes through more topics in
//! turn than there are aliases, the plain rule of the least recent use would give each topic an alias and
//! take it away before its next use, so that none ever saved a byte; by the rule above the first ones keep
//! theirs.
//!
//! All of this belongs to one connection [MQTT-3.3.2-7].

use crate::codec::Publish;
use crate::codec::publish::Naming;
use crate::version::Version;

use super::outgoing::LARGEST;

/// The shortest topic that is worth an alias: the property takes three bytes, and a fourth where the length
/// of all properties needs another byte with it.
const SHORTEST: usize = 5;

/// The longest topic that gets one, because it has to be kept. With the default of 64 aliases that is at most
/// 64 KiB.
const LONGEST: usize = 1024;

/// Bytes by which a packet with topic and alias may be larger than with the topic alone: the property, and
/// one each where the lengths of the properties and of the packet need another byte.
const MORE: usize = 5;

/// No alias: the end of the list.
const END: u16 = u16::MAX;

/// The aliases of one connection.
#[derive(Debug)]
pub(super) struct Aliases {
    /// The highest one.
    maximum: u16,
    /// By number: the alias of the first is 1.
    given: Vec<Given>,
    /// Where in `given` a topic is, by its hash: a power of two of slots, at most half of them taken.
    slots: Vec<u16>,
    /// The alias that was used last, and the one that was unused longest.
    newest: u16,
    oldest: u16,
    /// When topics without an alias were sent, by their hash; made when no alias is free any more. One slot
    /// for all topics of the same low bits: what is forgotten that way, and what is mistaken for another
    /// topic, makes a choice worse and nothing wrong.
    seen: Vec<Seen>,
    /// Counts messages. It may run over: then something looks younger than it is.
    now: u32,
}

/// An alias and its topic.
#[derive(Debug)]
struct Given {
    topic: String,
    hash: u32,
    used: u32,
    /// The neighbours in the order of use.
    newer: u16,
    older: u16,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    hash: u32,
    when: u32,
}

impl Aliases {
    /// A connection begins on which aliases up to this one may be used.
    pub(super) fn new(maximum: u16) -> Self {
        Self {
            // The highest one is the mark for none.
            maximum: maximum.min(END - 1),
            given: Vec::new(),
            slots: Vec::new(),
            newest: END,
            oldest: END,
            seen: Vec::new(),
            now: 0,
        }
    }

    /// How to name the topic of a message that is certain to be sent next.
    ///
    /// What with the whole topic is above `limit` gets no alias: a message that has to be sent again has to
    /// fit on a connection without aliases. Nor does what would be above it with both.
    #[inline]
    pub(super) fn name(&mut self, publish: &Publish<'_>, limit: usize) -> Naming {
        if self.maximum == 0 {
            return Naming::Topic;
        }
        self.choose(publish, limit)
    }

    fn choose(&mut self, publish: &Publish<'_>, limit: usize) -> Naming {
        let topic = publish.topic;
        if !(SHORTEST..=LONGEST).contains(&topic.len()) || !has_room(publish, limit.min(LARGEST)) {
            return Naming::Topic;
        }
        self.now = self.now.wrapping_add(1);
        let hash = hash(topic);
        if let Some(index) = self.find(topic, hash) {
            self.use_now(index);
            return Naming::Alias(index + 1);
        }
        if self.given.len() < usize::from(self.maximum) {
            return Naming::Both(self.give(topic, hash) + 1);
        }
        if !self.is_better(hash) {
            return Naming::Topic;
        }
        let index = self.oldest;
        self.replace(index, topic, hash);
        Naming::Both(index + 1)
    }

    /// Whether a topic without an alias, which is sent now, would make more of one than the topic that has
    /// the oldest.
    fn is_better(&mut self, hash: u32) -> bool {
        if self.seen.is_empty() {
            let size = (usize::from(self.maximum) * 4).next_power_of_two();
            self.seen = vec![Seen::default(); size];
        }
        let now = self.now;
        let before = std::mem::replace(self.seen_at(hash), Seen { hash, when: now });
        let unused = now.wrapping_sub(self.given[usize::from(self.oldest)].used);
        before.hash == hash && now.wrapping_sub(before.when) < unused / 2
    }

    fn seen_at(&mut self, hash: u32) -> &mut Seen {
        let mask = self.seen.len() - 1;
        &mut self.seen[hash as usize & mask]
    }

    /// Gives the next free alias.
    fn give(&mut self, topic: &str, hash: u32) -> u16 {
        // Below the maximum, which is a `u16`.
        let index = self.given.len() as u16;
        self.given.push(Given {
            topic: topic.into(),
            hash,
            used: self.now,
            newer: END,
            older: END,
        });
        if self.given.len() * 2 > self.slots.len() {
            self.grow();
        } else {
            self.put(index);
        }
        self.link(index);
        index
    }

    /// Gives an alias to another topic.
    fn replace(&mut self, index: u16, topic: &str, hash: u32) {
        self.take_out(index);
        self.use_now(index);
        let given = &mut self.given[usize::from(index)];
        // Its memory serves the next one.
        given.topic.clear();
        given.topic.push_str(topic);
        given.hash = hash;
        self.put(index);
    }

    /// The alias is the one used last.
    fn use_now(&mut self, index: u16) {
        self.given[usize::from(index)].used = self.now;
        if self.newest == index {
            return;
        }
        let Given { newer, older, .. } = self.given[usize::from(index)];
        match older {
            END => self.oldest = newer,
            older => self.given[usize::from(older)].newer = newer,
        }
        // There is a newer one, or it would be the newest.
        self.given[usize::from(newer)].older = older;
        self.link(index);
    }

    /// Puts an alias that stands nowhere in the order of use to its front.
    fn link(&mut self, index: u16) {
        let before = std::mem::replace(&mut self.newest, index);
        let given = &mut self.given[usize::from(index)];
        given.newer = END;
        given.older = before;
        match before {
            END => self.oldest = index,
            before => self.given[usize::from(before)].newer = index,
        }
    }

    // The table by hash: as in `packet_id`, a search may stop at an empty slot.

    fn find(&self, topic: &str, hash: u32) -> Option<u16> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = hash as usize & mask;
        loop {
            match self.slots[slot] {
                END => return None,
                index => {
                    let given = &self.given[usize::from(index)];
                    if given.hash == hash && given.topic == topic {
                        return Some(index);
                    }
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    fn put(&mut self, index: u16) {
        let mask = self.slots.len() - 1;
        let mut slot = self.given[usize::from(index)].hash as usize & mask;
        while self.slots[slot] != END {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = index;
    }

    fn take_out(&mut self, index: u16) {
        let mask = self.slots.len() - 1;
        let mut hole = self.given[usize::from(index)].hash as usize & mask;
        while self.slots[hole] != index {
            hole = (hole + 1) & mask;
        }
        self.slots[hole] = END;
        // What was pushed past this slot moves back.
        let mut slot = (hole + 1) & mask;
        while self.slots[slot] != END {
            let home = self.given[usize::from(self.slots[slot])].hash as usize & mask;
            if (slot.wrapping_sub(home) & mask) >= (slot.wrapping_sub(hole) & mask) {
                self.slots[hole] = std::mem::replace(&mut self.slots[slot], END);
                hole = slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(8);
        self.slots = vec![END; size];
        for index in 0..self.given.len() as u16 {
            self.put(index);
        }
    }
}

/// Whether a message may have an alias and still be below the limit with its whole topic, and with both.
#[inline]
fn has_room(publish: &Publish<'_>, limit: usize) -> bool {
    /// More than everything else in a PUBLISH takes: fixed header, three lengths, packet identifier, alias.
    const REST: usize = 32;
    let variable = publish.topic.len() + publish.properties.as_bytes().len();
    // The first look is enough for nearly every message.
    variable + publish.payload.len() + REST <= limit || publish.size(Version::V5_0) + MORE <= limit
}

/// Spreads topics over the slots. They are the application's own, so nobody profits from making them
/// collide, and a search is bounded by the number of aliases.
fn hash(topic: &str) -> u32 {
    /// The golden ratio as a fraction of 2^64, made odd: it spreads consecutive numbers well.
    const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(SPREAD);
    let bytes = topic.as_bytes();
    let mut hash = topic.len() as u64;
    for chunk in bytes.as_chunks::<8>().0 {
        hash = mix(hash, u64::from_le_bytes(*chunk));
    }
    // What is left, and some bytes once more: cheaper than to copy a few.
    let tail = match (bytes.last_chunk(), bytes.first_chunk(), bytes.last_chunk()) {
        (Some(last), ..) => u64::from_le_bytes(*last),
        (None, Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        // No topic as short as this has an alias.
        (None, None, _) | (None, _, None) => 0,
    };
    hash = mix(hash, tail);
    // The high half is the well mixed one.
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Qos;
    use crate::properties::PropertyList;

    fn name(aliases: &mut Aliases, topic: &str) -> Naming {
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic,
            id: None,
            properties: PropertyList::EMPTY,
            payload: b"",
        };
        aliases.name(&publish, usize::MAX)
    }

    /// The rule in plain lists, searched from front to end.
    struct Model {
        maximum: usize,
        /// By number, with the time of the last use.
        given: Vec<(String, u32)>,
        seen: Vec<Option<(u32, u32)>>,
        now: u32,
    }

    impl Model {
        fn new(maximum: u16) -> Self {
            let maximum = usize::from(maximum);
            Self {
                maximum,
                given: Vec::new(),
                seen: vec![None; (maximum * 4).next_power_of_two()],
                now: 0,
            }
        }

        fn name(&mut self, topic: &str) -> Naming {
            self.now += 1;
            let now = self.now;
            let alias = |index: usize| u16::try_from(index + 1).expect("few");
            if let Some(index) = self.given.iter().position(|(given, _)| given == topic) {
                self.given[index].1 = now;
                return Naming::Alias(alias(index));
            }
            if self.given.len() < self.maximum {
                self.given.push((topic.into(), now));
                return Naming::Both(alias(self.given.len() - 1));
            }
            let hash = hash(topic);
            let slot = hash as usize % self.seen.len();
            let before = self.seen[slot].replace((hash, now));
            let (index, used) = (0..self.maximum)
                .map(|index| (index, self.given[index].1))
                .min_by_key(|(_, used)| *used)
                .expect("there are some");
            match before {
                Some((seen, when)) if seen == hash && now - when < (now - used) / 2 => {
                    self.given[index] = (topic.into(), now);
                    Naming::Both(alias(index))
                }
                Some(_) | None => Naming::Topic,
            }
        }
    }

    #[test]
    fn any_order_of_topics_is_named_as_by_a_plain_list() {
        let mut random = fastrand::Rng::with_seed(7);
        for maximum in [1, 2, 3, 5, 8, 13, 64] {
            let mut aliases = Aliases::new(maximum);
            let mut model = Model::new(maximum);
            let mut replaced = 0;
            // Which topics are in use moves on.
            for step in 0..20_000_usize {
                let width = usize::from(maximum) * 2;
                let first = step / 500 * usize::from(maximum) / 2;
                let topic = match random.u8(..10) {
                    0 => format!("once/{step}"),
                    1..5 => format!("topic/{}", first + random.usize(..width)),
                    _ => format!("topic/{}", first + step % width / 2),
                };
                let named = name(&mut aliases, &topic);
                assert_eq!(named, model.name(&topic), "{maximum}, {step}: {topic}");
                let is_new = matches!(named, Naming::Both(_));
                replaced += usize::from(is_new);
            }
            assert!(replaced > 4 * usize::from(maximum), "{replaced}");
        }
    }

    /// Bytes of the topics of these messages, as they are sent.
    fn bytes(maximum: u16, topics: impl Iterator<Item = String>) -> usize {
        let mut aliases = Aliases::new(maximum);
        topics
            .map(|topic| match name(&mut aliases, &topic) {
                Naming::Topic => topic.len(),
                Naming::Both(_) => topic.len() + 3,
                Naming::Alias(_) => 3,
            })
            .sum()
    }

    #[test]
    fn aliases_save_bytes_where_the_least_recent_use_alone_would_lose_some() {
        let topics = |number: usize| format!("house/room/{number:03}");
        // 14 bytes each. In turn, twelve topics for ten aliases: ten of twelve are saved.
        let in_turn = bytes(10, (0..12_000).map(|step| topics(step % 12)));
        assert!(in_turn < 12_000 * 14 * 36 / 100, "{in_turn}");
        // At random, a hundred topics for ten aliases: at least something.
        let mut random = fastrand::Rng::with_seed(7);
        let any = bytes(10, (0..10_000).map(|_| topics(random.usize(..100))));
        assert!(any < 10_000 * 14, "{any}");
        // Every topic once: three bytes for each alias.
        let once = bytes(10, (0..1000).map(topics));
        assert_eq!(once, 1000 * 14 + 10 * 3);
    }
}
